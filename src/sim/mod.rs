//! Simulation: the same stack in a virtual world.
//!
//! What breaks storage is rare and unrepeatable: a power cut between two writes, a cache that loses
//! one of three versions, a disk that dies while another is being filled. A simulator makes it
//! common and repeatable: time is a number, disks are data, chance comes from one seed, and the
//! whole world can be copied at any event, its power cut in the copy, and every sector audited.
//!
//! [`SimBank`] is the disks, with volatile caches and an event heap. [`Oracle`] knows what each
//! sector of the volume may read as. [`World`] drives a stack (any `Clone` bank) between them and
//! replays a [`workload`] of client operations; [`mod@array`] puts a RAID array between them, [`off`] is what is left of it
//! without power, [`losses`] what faults have left of its rows.
//!
//! A [`scenario`] is all that will happen to one array, as data: [drawn](mod@draw) from a seed, or written by hand. A
//! [`life`] carries it out (`steps`: what is done to disks, paths and power), [`mod@crash`] cuts the power of copies of it, and [`coverage`] counts what was reached. Nothing
//! here reads a clock or starts a thread.

pub mod array;
#[cfg(test)]
mod array_tests;
mod bytes;
pub mod campaign;
mod choose;
pub mod coverage;
mod cow;
pub mod crash;
mod disk;
pub mod draw;
pub mod exhaust;
pub mod explain;
pub mod fabrics;
pub mod failover;
mod finding;
pub mod gaps;
pub mod hosts;
pub mod life;
pub mod losses;
mod mending;
#[cfg(all(test, feature = "mutants"))]
mod mutant_tests;
pub mod off;
mod oracle;
pub mod path_rules;
mod path_stories;
#[cfg(test)]
mod path_tests;
mod queue;
#[cfg(test)]
mod regressions;
mod rng;
pub mod scenario;
mod shape;
pub mod shrink;
mod steps;
mod strikes;
mod text;
mod token;
mod trace;
pub mod workload;
mod world;
#[cfg(test)]
mod wrong;

pub use choose::{Choose, Odometer};
pub use disk::{CacheLoss, DiskModel, Hdd, Hits, Service, SimBank, Snapshot, Timing};
pub use draw::{Harm, Wish, draw};
pub use finding::{Failed, Finding, Reason};
pub use life::{Copied, Cuts, Effort, Promise, Report, Survivors, Verdict, Watch, live, live_watched};
pub use oracle::{Got, OpId, Oracle, Rule, Violation};
pub use rng::Rng;
pub use scenario::{Regime, Scenario, ScenarioError};
pub use shape::{Shape, ShapeError};
pub use token::{Token, Value};
pub use trace::Trace;
pub use workload::{ClientOp, Mix};
pub use world::{Failure, Script, World};
