//! Benchmarks: workloads, runner, report.

pub mod parity;
