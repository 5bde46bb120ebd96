//! Front ends: how programs that know nothing of raidlab get at a volume.

#![allow(clippy::disallowed_methods, reason = "files have times, and sessions have threads")]

pub mod fuse;
pub mod loop_device;
pub mod nbd;
