//! `completions` and `man`: made from the same definition as the command line itself.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, Outcome};

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Where the pages go
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Runs `completions`.
pub fn completions(args: &CompletionsArgs, out: &mut impl Write) -> Outcome {
    clap_complete::generate(args.shell, &mut Cli::command(), "raidlab", out);
    Ok(0)
}

/// Runs `man`.
pub fn man(args: &ManArgs) -> Outcome {
    let cannot = |error| Failure::cannot(format!("cannot write to {}: {error}", args.directory.display()));
    std::fs::create_dir_all(&args.directory).map_err(cannot)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(cannot)?;
    Ok(0)
}
