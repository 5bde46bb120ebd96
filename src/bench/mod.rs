//! Benchmarks: what each RAID level costs and gives on this computer.
//!
//! A [`Workload`] says what is asked, in fio's words. The runner ([`run_cell`]) keeps that many
//! requests in flight on a bank, on the calling thread, and times each. A [`Series`] takes several
//! [`Subject`]s (an array of each level, the raw single file beside them) through all workloads in
//! interleaved repetitions, degrades and recovers them; [`Shape`] says what theory allows each from
//! the raw file's figures of the same run, and [`Meter`] which figures another load has disturbed.
//! The [`Report`] is JSON, a [`table`] on the terminal and one picture ([`svg`]).

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod clock;
mod counted;
#[cfg(test)]
mod fixture;
mod images;
mod noise;
pub mod parity;
mod progress;
mod report;
mod runner;
mod series;
pub mod sim;
mod subjects;
pub mod svg;
pub mod table;
mod theory;
mod turns;
mod workload;
pub mod yardstick;

pub use clock::{Clock, RealClock, utc_now};
pub use counted::Counted;
pub use images::{Backend, Images, Store, StoreError};
pub use noise::{Disturbance, Meter, Snapshot};
pub use progress::ProgressLine;
pub use report::{Cell, Latency, Machine, Measured, Rebuild, Repetition, Report, SCHEMA, Spread, State, SubjectFacts};
pub use runner::{Budget, Driven, Measurement, OnBank, fill, run_cell};
pub use series::{BenchError, Findings, Plan, Recovery, Series, Step, Subject, Traffic};
pub use subjects::{ArraySpec, ArraySubject, RawSubject, SubjectError};
pub use theory::{Cost, Shape};
pub use workload::{Access, BadWorkload, Mix, Offsets, PayloadPool, Workload};
