//! The command line: one file a command.
//!
//! stdout is data; progress, hints and errors go to stderr. Exit codes: 0 fine; 1 degraded, or findings; 2 array
//! failed, or data lost; 3 wrong usage; 4 could not run.
#![allow(clippy::disallowed_methods, reason = "commands ask for the time, for chance and for signals")]

mod assemble;
pub mod bars;
mod bench;
mod create;
mod data;
mod desk;
pub mod doctor;
mod events;
pub mod examine;
mod failover;
mod fault;
mod job;
mod manual;
mod members;
mod mount;
pub mod output;
mod overlay;
mod path;
mod run;
mod scrub;
mod serve;
mod serving;
mod set;
mod sim;
mod status;
mod stop;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::stack::StackError;

/// A laboratory for redundant storage: RAID on file-backed disks, true to Linux md, in one ordinary process.
#[derive(Parser, Debug)]
#[command(name = "raidlab", version, max_term_width = 100, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Say less: no progress, no hints.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more: every event of the array.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  raidlab bench
  raidlab create lab --level 5 --disks 4 --spares 1 --size 1G
  raidlab fail lab disk-2 && raidlab status lab
  raidlab assemble old sda.img sdb.img sdc.img --overlay";

/// One command; `cli.md`'s words.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a lab: a directory with a new array on new image files
    Create(create::CreateArgs),
    /// Make a lab over members that exist, in place or with the originals untouched
    Assemble(assemble::AssembleArgs),
    /// What was written beside originals: show, commit to them, discard
    Overlay(overlay::OverlayArgs),
    /// The state of a lab's array on one screen
    Status(status::StatusArgs),
    /// The md metadata on one member or more
    Examine(examine::ExamineArgs),
    /// Fail a disk; a spare takes its place at once
    Fail(members::FailArgs),
    /// Take a failed or spare disk out of the array
    Remove(members::RemoveArgs),
    /// Add a disk: back into its slot if it left it, else as a spare that takes a free slot
    Add(members::AddArgs),
    /// Put a disk back that left, copying only what it missed
    ReAdd(members::ReAddArgs),
    /// Copy a disk to a spare, which then takes its place
    Replace(members::ReplaceArgs),
    /// Read everything and compare, counting mismatches as md does
    Check(scrub::CheckArgs),
    /// Read everything, compare, and mend where it is known who is wrong
    Repair(scrub::RepairArgs),
    /// Let recovery and resync go on until nothing is left to do
    Wait(scrub::WaitArgs),
    /// Change a lab's settings
    Set(set::SetArgs),
    /// Arm, list and clear faults of a lab's disks
    Fault(fault::FaultArgs),
    /// Bytes of the volume, to standard output
    Read(data::ReadArgs),
    /// Bytes of the volume, from standard input
    Write(data::WriteArgs),
    /// Give the volume to other programs over NBD, until Ctrl-C
    Serve(serve::ServeArgs),
    /// Mount the volume: as a file system through a loop device, or as a file
    Mount(mount::MountArgs),
    /// Unmount it, and end the process that serves it
    Umount(mount::UmountArgs),
    /// Undo what mounts left whose process is gone
    Cleanup(mount::CleanupArgs),
    /// End the process that serves a lab: it finishes, flushes and marks the array clean
    Stop(stop::StopArgs),
    /// Cut the power of a lab that runs: what volatile caches hold is lost, and nothing is marked clean
    PowerCut(stop::PowerCutArgs),
    /// Compare RAID levels on this computer
    Bench(bench::BenchArgs),
    /// Live whole lives of arrays in virtual time, with every fault that matters, and judge every answer
    Sim(sim::SimArgs),
    /// What a failure of a path costs: a timeline in virtual time, and what shorter timers trade
    Failover(failover::FailoverArgs),
    /// Paths: list, fail and reinstate them, and what their timers come to
    Path(path::PathArgs),
    /// What this host can do, and what to type for the rest
    Doctor,
    /// A completion script for a shell
    Completions(manual::CompletionsArgs),
    /// Manual pages, written into a directory
    Man(manual::ManArgs),
}

/// How a command that could not do its work ends.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What, why, and what to type next.
    pub message: String,
}

impl Failure {
    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: 3, message: message.into() }
    }

    /// The array has failed, or data is lost.
    pub fn lost(message: impl Into<String>) -> Failure {
        Failure { code: 2, message: message.into() }
    }

    /// It could not be done.
    pub fn cannot(message: impl Into<String>) -> Failure {
        Failure { code: 4, message: message.into() }
    }
}

impl From<StackError> for Failure {
    fn from(error: StackError) -> Failure {
        use crate::raid::assemble::AssembleError;
        let code = match &error {
            StackError::Assemble { error: AssembleError::TooFew { .. }, .. } => 2,
            _ => 4,
        };
        Failure { code, message: error.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        // Whoever read the output has had enough: nothing to complain about.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure::cannot("");
        }
        Failure::cannot(format!("cannot write the output: {error}"))
    }
}

/// What every command is told beside its own arguments.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// No progress, no hints.
    pub quiet: bool,
    /// Every event.
    pub verbose: bool,
}

impl Manner {
    /// Whether a line is for this person.
    pub fn wants(self, line: &run::Line) -> bool {
        !self.quiet && (self.verbose || matches!(line, run::Line::Hint(_)))
    }

    /// A line for the person at the terminal, if that person wants it.
    pub fn say(self, line: &run::Line) {
        if self.wants(line) {
            anstream::eprintln!("{}", line.text());
        }
    }

    /// A line for the person at the terminal, unless that person asked for silence.
    pub fn hint(self, line: &str) {
        if !self.quiet {
            anstream::eprintln!("{line}");
        }
    }
}

/// An exit code, or a failure.
pub type Outcome = Result<u8, Failure>;

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    ExitCode::from(run_with(std::env::args_os().collect()))
}

fn run_with(arguments: Vec<OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 3 } else { 0 };
            // Nobody is left to tell if this fails.
            let _ = error.print();
            return code;
        }
    };
    let manner = Manner { quiet: cli.quiet, verbose: cli.verbose };
    // Not a stream that looks for escape sequences: `read` writes bytes.
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let outcome = dispatch(cli.command, manner, &mut out);
    let outcome = outcome.and_then(|code| out.flush().map(|()| code).map_err(Failure::from));
    match outcome {
        Ok(code) => code,
        Err(Failure { code, message }) => {
            // What was written before it failed is still data.
            let _ = out.flush();
            if !message.is_empty() {
                anstream::eprintln!("raidlab: {message}");
            }
            code
        }
    }
}

fn dispatch(command: Command, manner: Manner, out: &mut impl Write) -> Outcome {
    match command {
        Command::Create(args) => create::run(&args, manner, out),
        Command::Assemble(args) => assemble::run(&args, manner, out),
        Command::Overlay(args) => overlay::run(&args, manner, out),
        Command::Status(args) => status::run(&args, manner, out),
        Command::Examine(args) => examine::run(&args, out),
        Command::Fail(args) => members::fail(&args, manner, out),
        Command::Remove(args) => members::remove(&args, manner, out),
        Command::Add(args) => members::add(&args, manner, out),
        Command::ReAdd(args) => members::re_add(&args, manner, out),
        Command::Replace(args) => members::replace(&args, manner, out),
        Command::Check(args) => scrub::check(&args, manner, out),
        Command::Repair(args) => scrub::repair(&args, manner, out),
        Command::Wait(args) => scrub::wait(&args, manner, out),
        Command::Set(args) => set::run(&args, manner, out),
        Command::Fault(args) => fault::run(&args, manner, out),
        Command::Read(args) => data::read(&args, manner, out),
        Command::Write(args) => data::write(&args, manner, out),
        Command::Serve(args) => serve::run(&args, manner, out),
        Command::Mount(args) => mount::mount(&args, manner, out),
        Command::Umount(args) => mount::umount(&args, manner, out),
        Command::Cleanup(args) => mount::cleanup(&args, manner),
        Command::Stop(args) => stop::stop(&args, manner, out),
        Command::PowerCut(args) => stop::power_cut(&args, manner, out),
        Command::Bench(args) => bench::run(&args, manner.quiet)
            .map_err(|failure| Failure { code: failure.code(), message: failure.to_string() }),
        Command::Sim(args) => sim::run(&args, manner, out),
        Command::Failover(args) => failover::run(&args, manner, out),
        Command::Path(args) => path::run(&args, manner, out),
        Command::Doctor => doctor::run(out).map(|()| 0).map_err(Failure::from),
        Command::Completions(args) => manual::completions(&args, out),
        Command::Man(args) => manual::man(&args),
    }
}

/// The argument that names a lab.
#[derive(clap::Args, Clone, Debug)]
pub struct LabArg {
    /// The lab's directory
    #[arg(value_name = "LAB")]
    pub lab: PathBuf,
}

/// What a disk is called: `disk-2`, `disk-2.img` and `2` are the same one.
pub fn disk_name(word: &str) -> String {
    let word = word.strip_suffix(".img").unwrap_or(word);
    if word.bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty() {
        return format!("disk-{word}");
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_disk_has_three_names() {
        for word in ["disk-2", "disk-2.img", "2"] {
            assert_eq!(disk_name(word), "disk-2");
        }
    }
}
