//! The RAID engine: what an array of members is, and how it stays one while members come and go.
//!
//! *Decide, then do.* [`geometry`] says where everything lies, [`plan`] what to read, compute and write; both are pure.
//! [`Array`] carries plans out (data path) and [`control`] keeps the members' metadata in step (control path). Both are
//! state machines over a [`Bank`](crate::block::Bank): no clock, no thread, no file, and `Clone` if the bank is.
//!
//! | | |
//! |---|---|
//! | where | [`level`], [`geometry`] |
//! | what to do | [`plan`], [`compute`] |
//! | doing it | [`mod@array`] (requests in and out), [`band`] and `executor` (one rectangle of a stripe), [`locks`], [`sync`] |
//! | who takes part | [`member`], [`control`], `manage`, [`assemble`], [`create`] |
//! | known bugs, for tests | [`mutant`] |
//! | on disk | [`superblock`], [`probe`], [`member_layout`], [`bitmap_super`], [`write_intent`], [`bad_blocks`] |

pub mod array;
pub mod assemble;
pub mod bad_blocks;
pub mod band;
pub mod bitmap_super;
pub mod compute;
pub mod control;
pub mod create;
mod direct;
mod executor;
pub mod geometry;
#[cfg(test)]
pub(crate) mod golden;
pub mod level;
mod little_endian;
pub mod locks;
pub mod manage;
pub mod member;
pub mod member_layout;
#[cfg(test)]
mod operations;
pub mod plan;
pub mod probe;
pub mod set;
mod state;
pub mod superblock;
mod superblock_fields;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod write_intent;

pub use crate::block::mutant;
pub use array::{Array, VOLUME};
