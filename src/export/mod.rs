//! Front ends: how programs that know nothing of raidlab get at a volume.

pub mod nbd;
