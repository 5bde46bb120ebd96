//! The leaves: disks that hold bytes.

mod mem;

pub use mem::MemBank;
