//! The `raidlab` program.

fn main() {}
