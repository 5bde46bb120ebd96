//! The RAID engine.

pub mod set;
