//! The command line: one file a command.

pub mod bars;
pub mod bench;
pub mod doctor;
pub mod examine;
pub mod output;
pub mod size;
