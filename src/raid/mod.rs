//! The RAID engine.

pub mod bad_blocks;
pub mod bitmap_super;
#[cfg(test)]
pub(crate) mod golden;
mod little_endian;
pub mod member_layout;
pub mod probe;
pub mod set;
pub mod superblock;
mod superblock_fields;
