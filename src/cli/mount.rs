//! `mount`, `umount`, `cleanup`: the volume as a mounted file system, and nothing of it left behind.
//!
//! ```text
//!   array -> FUSE file (LAB/fuse/volume) -> loop device -> [mkfs] -> file system at DIR
//! ```
//!
//! A mount is one transaction: each step is [written down](journal) before it is made, and all are undone in reverse when a
//! later one fails, when the end is wanted, or by `cleanup` when the process is gone. The steps need the array to answer
//! meanwhile, so they are made by a thread of their own beside the reactor.

mod host;
mod journal;
mod steps;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use clap::Args;

use super::job::through;
use super::run::{self, stop_flag};
use super::serving::{Ended, Next, Serving};
use super::stop::{END_MAX, released};
use super::{Failure, LabArg, Manner, Outcome};
use crate::block::{Bank, Extent, Lba, Sectors};
use crate::control::{Client, Command as Asked, socket_of};
use crate::raid::VOLUME;
use crate::reactor::Handle;
use crate::stack::{OpenOptions, Stack, lock_directory, remove_files};
use journal::Journal;
use steps::{FileSystem, Mounting, Plan};

/// Arguments of `mount`.
#[derive(Args, Debug)]
pub struct MountArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Where: an empty directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Make a file system first, told of the array's geometry
    #[arg(long, value_name = "ext4|xfs|btrfs", conflicts_with = "file_only")]
    mkfs: Option<FileSystem>,
    /// Make it although something is on the volume
    #[arg(long, requires = "mkfs")]
    yes: bool,
    /// The volume as a file in DIR, without loop device and file system: needs no root
    #[arg(long)]
    file_only: bool,
    /// Print the commands that would be run, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Call this program with each event, the lab and, where it is about one, the disk, as mdadm's PROGRAM
    #[arg(long, value_name = "CMD")]
    hook: Option<OsString>,
    /// Serve in this process, until Ctrl-C
    #[arg(long)]
    foreground: bool,
    /// Leave the terminal once it is mounted
    #[arg(long, hide = true)]
    background: bool,
}

/// Arguments of `umount`.
#[derive(Args, Debug)]
pub struct UmountArgs {
    /// Where it is mounted, or the lab
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Arguments of `cleanup`.
#[derive(Args, Debug)]
pub struct CleanupArgs {
    /// Labs; those that something on this host is left of, if none are named
    #[arg(value_name = "LAB")]
    labs: Vec<PathBuf>,
}

/// Where the background process writes what it has to say.
const LOG: &str = "mount.log";

/// How often it is looked whether the file system is still mounted.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs `mount`.
pub fn mount(args: &MountArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let lab = absolute(&args.lab.lab)?;
    let at = checked_directory(args, &lab)?;
    if args.dry_run || args.foreground || args.background {
        return serve(args, &lab, &at, manner, out);
    }
    in_background(args, &lab, &at, out)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| Failure::cannot(format!("cannot use {}: {error}", path.display())))
}

/// What can be known to be wrong before anything is opened.
fn checked_directory(args: &MountArgs, lab: &Path) -> Result<PathBuf, Failure> {
    let shown = args.directory.display();
    let at = absolute(&args.directory).map_err(|failure| match args.directory.exists() {
        true => failure,
        false => Failure::cannot(format!("{shown} does not exist: `mkdir {shown}` first")),
    })?;
    if !at.is_dir() {
        return Err(Failure::usage(format!("{shown} is no directory")));
    }
    if at == lab || at.starts_with(lab) {
        return Err(Failure::usage(format!("{shown} is in the lab: choose another directory")));
    }
    if let Some(mount) = host::mount_at(&at) {
        return Err(Failure::usage(format!(
            "{} is mounted at {shown} already: choose another directory",
            mount.source
        )));
    }
    let mut entries = at.read_dir().map_err(|error| Failure::cannot(format!("cannot read {shown}: {error}")))?;
    if entries.next().is_some() {
        return Err(Failure::usage(format!(
            "{shown} is not empty, and a mount would hide what is in it: choose another directory"
        )));
    }
    if !args.file_only && !args.dry_run && !rustix::process::geteuid().is_root() {
        return Err(Failure::usage(format!(
            "mounting a file system needs root; `raidlab mount {} {shown} --file-only` gives the volume as a file without",
            args.lab.lab.display()
        )));
    }
    Ok(at)
}

/// Starts a process that serves, and waits until it has mounted or failed.
fn in_background(args: &MountArgs, lab: &Path, at: &Path, out: &mut impl Write) -> Outcome {
    let program = std::env::current_exe().map_err(|error| Failure::cannot(format!("cannot find myself: {error}")))?;
    let mut command = Command::new(program);
    command.arg("mount").arg(lab).arg(at).arg("--background");
    if let Some(file_system) = args.mkfs {
        command.arg("--mkfs").arg(file_system.name());
    }
    command.args(args.yes.then_some("--yes")).args(args.file_only.then_some("--file-only"));
    if let Some(hook) = &args.hook {
        command.arg("--hook").arg(hook);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Failure::cannot(format!("cannot start the server: {error}")))?;
    let stdout = child.stdout.take().expect("it was asked for");
    let mut line = String::new();
    let told = BufReader::new(stdout).read_line(&mut line);
    if told.is_ok_and(|length| length > 0) {
        out.write_all(line.as_bytes())?;
        return Ok(0);
    }
    // It has said why.
    let code = child.wait().ok().and_then(|status| status.code()).unwrap_or(4);
    Err(Failure { code: u8::try_from(code).unwrap_or(4), message: String::new() })
}

fn serve(args: &MountArgs, lab: &Path, at: &Path, manner: Manner, out: &mut impl Write) -> Outcome {
    let stop = stop_flag();
    if args.background {
        // Signals to whoever started this, and to all that they started, are not for this process.
        let _ = rustix::process::setsid();
    }
    if !args.dry_run {
        // What a process that is gone left of this lab.
        clean(lab, manner)?;
    }
    let mut stack = run::open(&args.lab.lab, OpenOptions { frozen: args.dry_run, ..OpenOptions::default() }, manner)?;
    let outcome = plan(args, &mut stack, lab, at).and_then(|plan| {
        if args.dry_run {
            plan.write(out)?;
            return Ok(None);
        }
        begin(plan, &stack, args.hook.clone(), manner).map(Some)
    });
    let (serving, mut mounting, mut inbox) = match outcome {
        Ok(Some(begun)) => begun,
        other => {
            stack.stop();
            return other.map(|_| 0);
        }
    };
    let background = args.background.then(|| lab.join(LOG));
    let mut told = false;
    let mut course = Course::Making(mounting.make());
    let mut look_at = Instant::now() + LOOK_EVERY;
    let mut failure = None;
    let ended = serving.run(&mut stack, &mut inbox, |wanted| {
        let wanted = wanted | stop.load(Ordering::Relaxed);
        match &course {
            Course::Making(outcome) => match outcome.try_recv() {
                Ok(Ok(())) => course = Course::Mounted,
                Ok(Err(why)) => {
                    failure = Some(why);
                    course = Course::Unmaking(mounting.unmake());
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => unreachable!("a thread says how it ended"),
            },
            Course::Mounted => {
                if !std::mem::replace(&mut told, true) {
                    let heard = writeln!(out, "{}", mounting.shown().display()).and_then(|()| out.flush());
                    if let Some(log) = &background {
                        leave_terminal(log);
                        // Whoever wanted it did not wait for it: it is not wanted any more.
                        stop.fetch_or(heard.is_err(), Ordering::Relaxed);
                    }
                }
                let is_gone = look_at.elapsed() > Duration::ZERO && {
                    look_at = Instant::now() + LOOK_EVERY;
                    !mounting.is_mounted()
                };
                if wanted || is_gone {
                    course = Course::Unmaking(mounting.unmake());
                }
            }
            Course::Unmaking(outcome) => match outcome.try_recv() {
                Ok(Ok(())) => {
                    course = Course::Over;
                    return Next::End;
                }
                Ok(Err(busy)) => {
                    stop.store(false, Ordering::Relaxed);
                    course = Course::Mounted;
                    manner.hint(&busy.message);
                    return Next::Refuse(busy.message);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => unreachable!("a thread says how it ended"),
            },
            Course::Over => return Next::End,
        }
        Next::GoOn
    });
    if matches!(ended, Ok(Ended::PowerCut)) {
        // As by a crash: `cleanup` finds what is left.
        std::process::exit(0);
    }
    mounting.end();
    match (ended, failure) {
        (Err(failure), _) | (Ok(_), Some(failure)) => Err(failure),
        (Ok(_), None) => Ok(0),
    }
}

type Outcomes = Receiver<Result<(), Failure>>;

/// Where the transaction is.
enum Course {
    Making(Outcomes),
    Mounted,
    Unmaking(Outcomes),
    Over,
}

fn plan(args: &MountArgs, stack: &mut Stack, lab: &Path, at: &Path) -> Result<Plan, Failure> {
    if args.mkfs.is_some() && !args.yes && !args.dry_run && !is_blank(stack) {
        return Err(Failure::usage(format!(
            "the volume of {} is not blank: a new file system would destroy what is on it; if that is meant, add --yes",
            args.lab.lab.display()
        )));
    }
    let geometry = stack.array().geometry();
    let limits = stack.array().limits(VOLUME);
    Ok(Plan {
        lab: lab.to_owned(),
        at: at.to_owned(),
        file_only: args.file_only,
        mkfs: args.mkfs,
        limits,
        chunk: geometry.chunk(),
        stripe: geometry.preferred_io(),
    })
}

/// Whether the first and last MiB of the volume are zero.
fn is_blank(stack: &mut Stack) -> bool {
    let capacity = stack.array().limits(VOLUME).capacity;
    let block = stack.array().limits(VOLUME).logical_block;
    let span = Sectors(2048).min(capacity).round_down(block);
    [Lba(0), Lba((capacity - span).round_down(block).0)].into_iter().all(|at| {
        // What cannot be read may be anything.
        stack.read(Extent::new(at, span)).is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    })
}

fn begin(
    plan: Plan,
    stack: &Stack,
    hook: Option<OsString>,
    manner: Manner,
) -> Result<(Serving, Mounting, crate::reactor::Inbox), Failure> {
    let serving = Serving::begin(stack, hook, manner)?;
    let (handle, inbox) = Handle::new().map_err(|error| Failure::cannot(format!("cannot serve: {error}")))?;
    Ok((serving, Mounting::new(plan, handle), inbox))
}

/// From now on nobody reads what is said: it goes into a file.
fn leave_terminal(log: &Path) {
    // Best effort: the worst is a line that nobody sees.
    if let Ok(file) = std::fs::OpenOptions::new().create(true).append(true).open(log) {
        let _ = rustix::stdio::dup2_stderr(&file);
    }
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Runs `umount`. Done twice it is fine.
pub fn umount(args: &UmountArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let shown = args.directory.display();
    let at = args.directory.canonicalize().unwrap_or_else(|_| args.directory.clone());
    let Some(lab) =
        host::labs().into_iter().find(|lab| *lab == at || Journal::read(lab).is_some_and(|kept| kept.at == at))
    else {
        manner.hint(&format!("nothing of raidlab is mounted at {shown}"));
        return Ok(0);
    };
    match Client::find(&lab)? {
        Some(client) => {
            let code = through(client, &lab, &Asked::Stop, false, manner, out)?;
            released(&lab, END_MAX)?;
            Ok(code)
        }
        None => {
            clean(&lab, manner)?;
            Ok(0)
        }
    }
}

/// Runs `cleanup`: undoes what processes that are gone have left. Done twice it is fine.
pub fn cleanup(args: &CleanupArgs, manner: Manner) -> Outcome {
    let labs: Vec<PathBuf> = match args.labs.is_empty() {
        true => host::labs(),
        false => args.labs.iter().map(|lab| absolute(lab)).collect::<Result<_, _>>()?,
    };
    let mut failures = Vec::new();
    for lab in labs {
        if let Err(failure) = clean(&lab, manner) {
            failures.push(failure.message);
        }
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::cannot(failures.join("\nraidlab: "))) }
}

/// Undoes what is left of a mount of a lab that nobody serves.
fn clean(lab: &Path, manner: Manner) -> Result<(), Failure> {
    let Some(kept) = Journal::read(lab) else { return Ok(()) };
    // Whoever serves it holds the lock.
    let Ok(_lock) = lock_directory(lab) else {
        manner.hint(&format!("note: {} is in use: `raidlab umount {}` ends it", lab.display(), kept.at.display()));
        return Ok(());
    };
    // Nobody listens there any more.
    remove_files(&[socket_of(lab)]);
    steps::undo_abandoned(lab, &kept)?;
    manner.hint(&format!("undone: what was left of {} at {}", lab.display(), kept.at.display()));
    Ok(())
}
