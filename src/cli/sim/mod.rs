//! `sim`: arrays in a virtual world, where everything that breaks storage happens often, and again.

mod replay;
mod shrink;

use std::io::Write;

use clap::Subcommand;

use super::{Manner, Outcome};

/// What to do in the virtual world.
#[derive(Subcommand, Debug)]
pub enum Sim {
    /// Live a scenario or a seed once more, and tell its story
    Replay(replay::ReplayArgs),
    /// Make a scenario that fails as short as can be
    Shrink(shrink::ShrinkArgs),
}

/// Runs `sim`.
pub fn run(sim: &Sim, manner: Manner, out: &mut impl Write) -> Outcome {
    match sim {
        Sim::Replay(args) => replay::run(args, manner, out),
        Sim::Shrink(args) => shrink::run(args, manner, out),
    }
}
