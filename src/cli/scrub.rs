//! `check`, `repair`, `wait`: background work, in the foreground.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::run::{self, Ended, stop_flag, until};
use super::size::{Size, range};
use super::{Failure, LabArg, Manner, Outcome};
use crate::block::{Lba, SECTOR_BYTES};
use crate::config::write_whole;
use crate::raid::sync::Scrub;
use crate::stack::{Lab, OpenOptions, Stack};

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Bytes of the volume whose stripes are checked; all if not said
    #[arg(long, value_name = "A..B", value_parser = range::<Size>)]
    range: Option<Range<Size>>,
    /// Forget how far an interrupted check or repair had come
    #[arg(long)]
    cancel: bool,
}

/// Arguments of `repair`.
#[derive(Args, Debug)]
pub struct RepairArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Where it cannot be known who is wrong, take the data for right, as md does
    #[arg(long)]
    trust_data: bool,
}

/// Arguments of `wait`.
#[derive(Args, Debug)]
pub struct WaitArgs {
    #[command(flatten)]
    lab: LabArg,
}

/// The last check or repair of a lab, as `scrub.json` keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastScrub {
    /// `check` or `repair`.
    pub action: String,
    /// Bytes of the volume it was asked for.
    pub range: (u64, u64),
    /// Where it goes on, if it was interrupted.
    pub position: Option<u64>,
    /// md's `mismatch_cnt`, in sectors.
    pub mismatch_cnt: u64,
    /// How many stretches of rows disagree.
    pub mismatches: u64,
    /// How many of them were mended.
    pub mended: u64,
}

fn file_of(lab: &Path) -> PathBuf {
    lab.join("scrub.json")
}

impl LastScrub {
    /// What is known of the last check or repair.
    pub fn of(lab: &Path) -> Option<LastScrub> {
        serde_json::from_slice(&std::fs::read(file_of(lab)).ok()?).ok()
    }

    fn save(&self, lab: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).expect("it is plain data");
        write_whole(&file_of(lab), &text).map_err(|error| Failure::cannot(error.to_string()))
    }
}

/// Runs `check`.
pub fn check(args: &CheckArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    if args.cancel {
        let _lab = Lab::open(&args.lab.lab)?;
        let Some(last) = LastScrub::of(&args.lab.lab).filter(|last| last.position.is_some()) else {
            return Err(Failure::usage("no check or repair was interrupted: there is nothing to cancel"));
        };
        LastScrub { position: None, ..last }.save(&args.lab.lab)?;
        return Ok(0);
    }
    scrub(&args.lab.lab, "check", Scrub::Check, args.range.as_ref(), manner, out)
}

/// Runs `repair`.
pub fn repair(args: &RepairArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let scrub_kind = Scrub::Repair { trust_data: args.trust_data };
    scrub(&args.lab.lab, "repair", scrub_kind, None, manner, out)
}

fn scrub(
    lab: &Path,
    action: &str,
    kind: Scrub,
    asked: Option<&Range<Size>>,
    manner: Manner,
    out: &mut impl Write,
) -> Outcome {
    let stop = stop_flag();
    let mut stack = run::open(lab, OpenOptions::default(), manner)?;
    let capacity = stack.array().geometry().capacity().bytes();
    if stack.array().geometry().tolerance() == 0 {
        stack.stop();
        return Err(Failure::usage(format!("the array has no redundancy: there is nothing to {action}")));
    }
    let whole = match asked {
        None => (0, capacity),
        Some(range) if range.start.0 < capacity => (range.start.0, range.end.0.min(capacity)),
        Some(_) => {
            stack.stop();
            return Err(Failure::usage(format!(
                "the range lies beyond the end of the volume, which holds {capacity} bytes"
            )));
        }
    };
    let before = LastScrub::of(lab).filter(|last| last.action == action && last.range == whole);
    let resumed = before.filter(|last| last.position.is_some());
    let from = resumed.as_ref().and_then(|last| last.position).unwrap_or(whole.0);
    if resumed.is_some() {
        manner
            .hint(&format!("{action} goes on at byte {from}; `raidlab check {} --cancel` begins anew", lab.display()));
    }
    let sectors = Lba(from / SECTOR_BYTES)..Lba(whole.1.div_ceil(SECTOR_BYTES));
    stack.array_mut().start_scrub(kind, sectors);
    let ended = until(&mut stack, manner, &stop, |array| !array.is_scrubbing() && array.is_quiet());
    let position = stack.stop_in_place();
    let found = stack.array().scrub_report().clone();
    let earlier = resumed.unwrap_or(LastScrub {
        action: action.to_owned(),
        range: whole,
        position: None,
        mismatch_cnt: 0,
        mismatches: 0,
        mended: 0,
    });
    let last = LastScrub {
        position: (ended == Ended::Interrupted).then_some(position.unwrap_or(from)),
        mismatch_cnt: earlier.mismatch_cnt + found.mismatch_sectors,
        mismatches: earlier.mismatches + found.mismatches_total,
        mended: earlier.mended + found.mended_total,
        ..earlier
    };
    last.save(lab)?;
    report(&stack, &last, out)?;
    if ended == Ended::Interrupted {
        let at = last.position.unwrap_or(from);
        return Err(Failure::cannot(format!("interrupted at byte {at}: `raidlab {action} {}` goes on", lab.display())));
    }
    Ok(u8::from(last.mismatches > last.mended))
}

fn report(stack: &Stack, last: &LastScrub, out: &mut impl Write) -> Result<(), Failure> {
    let found = stack.array().scrub_report();
    for mismatch in &found.mismatches {
        let seat = |slot: crate::raid::geometry::Slot| stack.array().members().seats()[slot.0 as usize].member;
        let wrong = match mismatch.culprit.and_then(seat) {
            Some(device) => format!("{} is wrong", stack.name_of(device)),
            None => String::from("who is wrong cannot be known"),
        };
        let mended = if mismatch.mended { ", mended" } else { "" };
        let sectors = mismatch.rows.end - mismatch.rows.start;
        writeln!(
            out,
            "mismatch: stripe {} rows {}..{} ({sectors} sectors), volume byte {}: {wrong}{mended}",
            mismatch.stripe.0,
            mismatch.rows.start,
            mismatch.rows.end,
            mismatch.volume.bytes()
        )?;
    }
    let listed = found.mismatches.len() as u64;
    if found.mismatches_total > listed {
        writeln!(out, "... and {} more", found.mismatches_total - listed)?;
    }
    let mended = if last.mended > 0 { format!(", {} mended", last.mended) } else { String::new() };
    writeln!(out, "{}: mismatch_cnt {} sectors in {} places{mended}", last.action, last.mismatch_cnt, last.mismatches)?;
    let left = last.mismatches - last.mended;
    if left > 0 && last.action == "repair" {
        writeln!(
            out,
            "{left} places were left as they are: who is wrong cannot be known there. \
             --trust-data takes the data for right, as md does"
        )?;
    }
    Ok(())
}

/// Runs `wait`.
pub fn wait(args: &WaitArgs, manner: Manner) -> Outcome {
    let stop = stop_flag();
    let mut stack = run::open(&args.lab.lab, OpenOptions::default(), manner)?;
    let ended = until(&mut stack, manner, &stop, |array| !array.is_syncing() && array.is_quiet());
    let (blocked, degraded) = (stack.array().is_sync_blocked(), !stack.array().degraded().is_empty());
    stack.stop();
    if ended == Ended::Interrupted {
        return Err(Failure::cannot(format!(
            "interrupted: `raidlab wait {}` goes on from here",
            args.lab.lab.display()
        )));
    }
    if degraded && !blocked {
        manner.hint(&format!("the array stays degraded: `raidlab add {}` gives it a new disk", args.lab.lab.display()));
    }
    if blocked {
        manner.hint("part of the array stays without redundancy: its parity was never made to agree with the data since a crash");
    }
    Ok(u8::from(degraded))
}
