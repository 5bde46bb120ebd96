//! The RAID engine.

pub mod geometry;
pub mod level;
pub mod set;
