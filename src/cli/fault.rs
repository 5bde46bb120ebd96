//! `fault`: what goes wrong with a lab's disks, and when.

use std::io::Write;
use std::ops::Range;

use clap::Args;

use super::size::{Size, Span, range};
use super::{Failure, LabArg, Manner, Outcome, disk_name};
use crate::block::{Extent, Lba, Limits, SECTOR_BYTES, Sectors};
use crate::config::FaultConfig;
use crate::disk::{FaultKind, FaultSpec, Image, ImageOptions, Trigger};
use crate::stack::Lab;

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
    /// So long after the lab was opened
    #[arg(long, value_name = "T", conflicts_with = "at_io")]
    after: Option<Span>,
    /// From the N-th request of the disk on
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

The fault acts whenever the lab is open; `raidlab fault LAB clear` ends it.";

/// Runs `fault`.
pub fn run(args: &FaultArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let mut lab = Lab::open(&args.lab.lab)?;
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => {
            for fault in &lab.config.faults {
                writeln!(out, "{}  {}", fault.disk, fault.fault)?;
            }
        }
        ["clear"] => {
            lab.config.faults.clear();
            lab.save()?;
        }
        ["clear", disk] => {
            let disk = known(&lab, disk)?;
            lab.config.faults.retain(|fault| fault.disk != disk);
            lab.save()?;
        }
        [disk, "add", kind] => {
            let disk = known(&lab, disk)?;
            let kind: FaultKind = kind.parse().map_err(|error| Failure::usage(format!("{error}")))?;
            let fault = spec(args, kind)?;
            check(&lab, &disk, &fault)?;
            lab.config.faults.push(FaultConfig { disk, fault });
            lab.save()?;
            manner.hint("armed whenever the lab is opened, until `raidlab fault LAB clear`");
        }
        _ => {
            return Err(Failure::usage(
                "type `raidlab fault LAB DISK add KIND`, `raidlab fault LAB list` or `raidlab fault LAB clear [DISK]`",
            ));
        }
    }
    Ok(0)
}

fn known(lab: &Lab, word: &str) -> Result<String, Failure> {
    let name = disk_name(word);
    if lab.config.disks.iter().any(|disk| disk.name == name) {
        return Ok(name);
    }
    let names: Vec<&str> = lab.config.disks.iter().map(|disk| disk.name.as_str()).collect();
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

fn check(lab: &Lab, name: &str, fault: &FaultSpec) -> Result<(), Failure> {
    let disk = lab.config.disks.iter().find(|disk| disk.name == name).expect("the disk was looked up");
    let options = ImageOptions { read_only: true, ..ImageOptions::default() };
    let limits: Limits =
        Image::open(&lab.path_of(&disk.path), options).map_err(|error| Failure::cannot(error.to_string()))?.limits();
    fault.check(&limits).map_err(|error| Failure::usage(format!("{name}: {error}")))
}
