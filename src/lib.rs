//! raidlab: a laboratory for redundant storage.

pub mod bench;
pub mod block;
pub mod cli;
pub mod config;
pub mod disk;
pub mod parity;
pub mod raid;
pub mod reactor;
pub mod sim;
pub mod stack;
