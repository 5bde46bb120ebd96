//! Benchmarks: workloads, runner, report.
