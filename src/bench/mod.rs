//! Benchmarks: workloads, runner, report.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

pub mod parity;
