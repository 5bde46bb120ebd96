//! The `raidlab` program: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    raidlab::cli::main()
}
