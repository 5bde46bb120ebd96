//! `fault`: what goes wrong with a lab's disks, and when.

use std::io::Write;
use std::ops::Range;

use clap::Args;

use super::job::{Say, through};
use super::{Failure, LabArg, Manner, Outcome, disk_name};
use crate::block::{Extent, Lba, Limits, SECTOR_BYTES, Sectors};
use crate::config::{Backing, FaultConfig};
use crate::control::{Client, Command};
use crate::disk::{FaultKind, FaultSpec, Image, ImageOptions, Trigger};
use crate::stack::{BareDisk, Lab, LabConfig, Stack};
use crate::units::{Size, Span, range};

/// Arguments of `fault`.
#[derive(Args, Debug)]
#[command(after_help = KINDS)]
pub struct FaultArgs {
    #[command(flatten)]
    lab: LabArg,
    /// DISK add KIND[=ARGS], or list, or clear [DISK]
    #[arg(value_name = "WORDS", required = true)]
    words: Vec<String>,
    /// Bytes of the disk that have it
    #[arg(long, value_name = "A..B", value_parser = range::<Size>)]
    range: Option<Range<Size>>,
    /// So long after the lab was opened, or from now on if it runs
    #[arg(long, value_name = "T", conflicts_with = "at_io")]
    after: Option<Span>,
    /// From the N-th request of the disk on, counted from then
    #[arg(long, value_name = "N")]
    at_io: Option<u64>,
    /// How many requests it strikes
    #[arg(long, value_name = "N")]
    times: Option<u64>,
}

const KINDS: &str = "Kinds:
  latency=50ms            every answer comes that much later
  medium[=sticky]         reads fail; a write mends the sectors (not if sticky)
  write-medium            writes fail and store nothing
  transient=K             K requests fail, later ones succeed
  torn=K, torn-silent=K   a write stores its first K sectors, and fails or says it succeeded
  lost                    writes succeed and store nothing
  misdirected=D           writes land D sectors further on
  misdirected-read=D      reads return what lies D sectors further on
  bitflip[=BITS][,seed=N][,sticky]   reads return flipped bits
  corrupt-write[=BITS][,seed=N]      writes store flipped bits
  fail-stop               nothing works any more
  flush-lie               flushes succeed and do nothing
  flush-fail              flushes fail and do nothing
  no-space                writes fail: no space left
  hang[=D]                no answers
  read-only               writes are refused

The fault acts whenever the lab is open, on one that runs from now on; `raidlab fault LAB clear` ends it.";

/// Runs `fault`.
pub fn run(args: &FaultArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let lab = &args.lab.lab;
    let command = command_of(args)?;
    if let Some(client) = Client::find(lab)? {
        return through(client, lab, &command, false, manner, out);
    }
    let mut lab = Lab::open(lab)?;
    match command {
        Command::FaultList => {
            for fault in &lab.config.faults {
                writeln!(out, "{}  {}", fault.disk, fault.fault)?;
            }
        }
        Command::FaultClear { disk } => {
            forget(&mut lab.config, disk.as_deref())?;
            lab.save()?;
        }
        Command::FaultAdd { disk, fault } => {
            let disk = known(&lab.config, &disk)?;
            fits(&disk, &fault, &limits_of(&lab, &disk)?)?;
            lab.config.faults.push(FaultConfig { disk, fault });
            lab.save()?;
            manner.hint("armed whenever the lab is opened, until `raidlab fault LAB clear`");
        }
        other => unreachable!("{other:?} is not about faults"),
    }
    Ok(0)
}

fn command_of(args: &FaultArgs) -> Result<Command, Failure> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    Ok(match words[..] {
        ["list"] => Command::FaultList,
        ["clear"] => Command::FaultClear { disk: None },
        ["clear", disk] => Command::FaultClear { disk: Some(disk.to_owned()) },
        [disk, "add", kind] => {
            let kind: FaultKind = kind.parse().map_err(|error| Failure::usage(format!("{error}")))?;
            Command::FaultAdd { disk: disk.to_owned(), fault: spec(args, kind)? }
        }
        _ => {
            return Err(Failure::usage(
                "type `raidlab fault LAB DISK add KIND`, `raidlab fault LAB list` or `raidlab fault LAB clear [DISK]`",
            ));
        }
    })
}

/// Lists the faults of a lab that runs, with what they have done so far.
pub fn list(stack: &Stack, say: &mut dyn Say) {
    let armed = stack.array().bank().bank().list();
    for FaultConfig { disk, fault } in &stack.lab.config.faults {
        let struck = armed.iter().find(|armed| armed.spec == *fault && stack.name_of(armed.device) == disk);
        let struck = struck.map(|armed| format!("  (struck {} times)", armed.strikes)).unwrap_or_default();
        say.line(&format!("{disk}  {fault}{struck}"));
    }
}

/// Arms a fault on a lab that runs: it acts from the next request on, and whenever the lab is opened.
pub fn arm(stack: &mut Stack, disk: &str, fault: &FaultSpec, say: &mut dyn Say) -> Result<(), Failure> {
    let disk = known(&stack.lab.config, disk)?;
    let now = stack.reactor.now();
    let device = stack.disks.iter().find(|open| open.name == disk).and_then(|open| open.device);
    match device {
        Some(device) => {
            let bank = stack.disks_mut();
            bank.arm(device, fault.clone(), now).map_err(|error| Failure::usage(format!("{disk}: {error}")))?;
        }
        None => fits(&disk, fault, &limits_of(&stack.lab, &disk)?)?,
    }
    stack.lab.config.faults.push(FaultConfig { disk, fault: fault.clone() });
    stack.lab.save()?;
    say.hint("armed from now on, and whenever the lab is opened, until `raidlab fault LAB clear`");
    Ok(())
}

/// Takes the faults of one disk, or of all, away from a lab that runs.
pub fn disarm(stack: &mut Stack, disk: Option<&str>) -> Result<(), Failure> {
    let cleared = forget(&mut stack.lab.config, disk)?;
    stack.lab.save()?;
    let device = |name: &str| stack.disks.iter().find(|open| open.name == name).and_then(|open| open.device);
    let device = cleared.as_deref().map(device);
    let bank = stack.disks_mut();
    let ids: Vec<_> = bank
        .list()
        .iter()
        .filter(|fault| device.is_none_or(|device| device == Some(fault.device)))
        .map(|fault| fault.id)
        .collect();
    for id in ids {
        bank.disarm(id);
    }
    Ok(())
}

/// Removes faults from a lab's file; gives the name of the one disk concerned, if it is one.
fn forget(config: &mut LabConfig, disk: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(disk) = disk else {
        config.faults.clear();
        return Ok(None);
    };
    let disk = known(config, disk)?;
    config.faults.retain(|fault| fault.disk != disk);
    Ok(Some(disk))
}

fn known(config: &LabConfig, word: &str) -> Result<String, Failure> {
    let name = disk_name(word);
    if config.disks.iter().any(|disk| disk.name == name) {
        return Ok(name);
    }
    let names: Vec<&str> = config.disks.iter().map(|disk| disk.name.as_str()).collect();
    Err(Failure::usage(format!("the lab has no {name}: it has {}", names.join(", "))))
}

fn spec(args: &FaultArgs, kind: FaultKind) -> Result<FaultSpec, Failure> {
    let range = match &args.range {
        None => None,
        Some(Range { start, end }) => {
            if !start.0.is_multiple_of(SECTOR_BYTES) || !end.0.is_multiple_of(SECTOR_BYTES) {
                return Err(Failure::usage("--range begins and ends on multiples of 512 bytes"));
            }
            let length = Sectors((end.0 - start.0) / SECTOR_BYTES);
            Some(Extent::new(Lba(start.0 / SECTOR_BYTES), length))
        }
    };
    let trigger = match (args.after, args.at_io) {
        (Some(Span(after)), _) => Trigger::After(after),
        (None, Some(count)) => Trigger::AtIo(count),
        (None, None) => Trigger::Armed,
    };
    Ok(FaultSpec { kind, range, trigger, times: args.times })
}

fn fits(name: &str, fault: &FaultSpec, limits: &Limits) -> Result<(), Failure> {
    fault.check(limits).map_err(|error| Failure::usage(format!("{name}: {error}")))
}

/// What a disk that is not open here takes.
fn limits_of(lab: &Lab, name: &str) -> Result<Limits, Failure> {
    let disk = lab.config.disks.iter().find(|disk| disk.name == name).expect("the disk was looked up");
    let backing = disk.backing.within(&lab.directory);
    let cannot = |error: &dyn std::fmt::Display| Failure::cannot(format!("{name}: {error}"));
    match &backing {
        Backing::File(path) => {
            let options = ImageOptions { read_only: true, ..ImageOptions::default() };
            Ok(Image::open(path, options).map_err(|error| Failure::cannot(error.to_string()))?.limits())
        }
        Backing::Nbd(_) | Backing::Paths(_) => Ok(BareDisk::look(&backing).map_err(|error| cannot(&error))?.limits()),
    }
}
