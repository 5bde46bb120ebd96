//! `raidlab sim`: the same array in virtual time, under every fault that matters, with a verdict.

mod corpus;
mod crew;
mod exhaust;
mod merge;
#[cfg(feature = "mutants")]
mod mutants;
mod replay;
mod run;
mod shrink;
mod tell;

use std::io::Write;

use clap::{Args, Subcommand};

use super::{Manner, Outcome};

/// Arguments of `sim`.
#[derive(Args, Debug)]
pub struct SimArgs {
    #[command(subcommand)]
    what: Sim,
}

#[derive(Subcommand, Debug)]
enum Sim {
    /// Live many lives, and report those in which something was wrong
    Run(Box<run::RunArgs>),
    /// Live every short story there is on the smallest arrays, cutting the power before every event in every way
    Exhaust(Box<exhaust::ExhaustArgs>),
    /// Live a scenario or a seed once more, and tell its story
    Replay(replay::ReplayArgs),
    /// Make a scenario that fails as short as can be
    Shrink(shrink::ShrinkArgs),
    /// Put the results of shards together
    Merge(merge::MergeArgs),
    /// Find known bugs, put back one at a time
    #[cfg(feature = "mutants")]
    #[command(hide = true)]
    Mutants(mutants::MutantsArgs),
}

/// Runs `sim`.
pub fn run(args: &SimArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    match &args.what {
        Sim::Run(args) => run::run(args, manner, out),
        Sim::Exhaust(args) => exhaust::run(args, manner, out),
        Sim::Replay(args) => replay::run(args, manner, out),
        Sim::Shrink(args) => shrink::run(args, manner, out),
        Sim::Merge(args) => merge::run(args, manner, out),
        #[cfg(feature = "mutants")]
        Sim::Mutants(args) => mutants::run(args, manner, out),
    }
}
