//! `check`, `repair`, `wait`: background work, in the foreground.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::job::{Asked, Job, Say, carry_out, is_settled, through};
use super::{Failure, LabArg, Manner, Outcome};
use crate::block::{Lba, SECTOR_BYTES};
use crate::config::write_whole;
use crate::control::{Client, Command};
use crate::raid::sync::Scrub;
use crate::stack::{Lab, Stack};
use crate::units::{Size, range};

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Bytes of the volume whose stripes are checked; all if not said
    #[arg(long, value_name = "A..B", value_parser = range::<Size>)]
    range: Option<Range<Size>>,
    /// Interrupt the check or repair of a lab that runs; the next one goes on from there
    #[arg(long, conflicts_with_all = ["range", "cancel", "no_wait"])]
    pause: bool,
    /// End it, or forget how far an interrupted one had come
    #[arg(long, conflicts_with_all = ["range", "no_wait"])]
    cancel: bool,
    /// On a lab that runs: do not wait for its end
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `repair`.
#[derive(Args, Debug)]
pub struct RepairArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Where it cannot be known who is wrong, take the data for right, as md does
    #[arg(long)]
    trust_data: bool,
    /// On a lab that runs: do not wait for its end
    #[arg(long)]
    no_wait: bool,
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
    let lab = &args.lab.lab;
    if args.pause {
        return carry_out_running(lab, &Command::PauseScrub, manner, out)
            .unwrap_or_else(|| Err(Failure::usage(NOTHING_RUNS)));
    }
    if args.cancel {
        return carry_out_running(lab, &Command::CancelScrub, manner, out).unwrap_or_else(|| {
            let _lock = Lab::open(lab)?;
            forget(lab)
        });
    }
    let range = args.range.as_ref().map(|range| (range.start.0, range.end.0));
    carry_out(lab, &Command::Check { range }, args.no_wait, manner, out)
}

/// What `check --pause` says then.
pub const NOTHING_RUNS: &str = "no check or repair is under way";

/// Has a command carried out by the process that serves the lab; none if nobody does.
fn carry_out_running(lab: &Path, command: &Command, manner: Manner, out: &mut impl Write) -> Option<Outcome> {
    match Client::find(lab) {
        Ok(client) => Some(through(client?, lab, command, false, manner, out)),
        Err(error) => Some(Err(error.into())),
    }
}

/// Forgets how far a check or repair had come.
fn forget(lab: &Path) -> Outcome {
    let Some(last) = LastScrub::of(lab).filter(|last| last.position.is_some()) else {
        return Err(Failure::usage("no check or repair was interrupted: there is nothing to cancel"));
    };
    LastScrub { position: None, ..last }.save(lab)?;
    Ok(0)
}

/// Runs `repair`.
pub fn repair(args: &RepairArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    carry_out(&args.lab.lab, &Command::Repair { trust_data: args.trust_data }, args.no_wait, manner, out)
}

/// Begins `check`.
pub fn begin_check(
    stack: &mut Stack,
    range: Option<(u64, u64)>,
    asked: Asked<'_>,
    say: &mut dyn Say,
) -> Result<Box<dyn Job>, Failure> {
    begin(stack, "check", Scrub::Check, range, asked, say)
}

/// Begins `repair`.
pub fn begin_repair(
    stack: &mut Stack,
    trust_data: bool,
    asked: Asked<'_>,
    say: &mut dyn Say,
) -> Result<Box<dyn Job>, Failure> {
    begin(stack, "repair", Scrub::Repair { trust_data }, None, asked, say)
}

fn begin(
    stack: &mut Stack,
    action: &str,
    kind: Scrub,
    range: Option<(u64, u64)>,
    asked: Asked<'_>,
    say: &mut dyn Say,
) -> Result<Box<dyn Job>, Failure> {
    let lab = asked.lab.display();
    let capacity = stack.array().geometry().capacity().bytes();
    if stack.array().geometry().tolerance() == 0 {
        return Err(Failure::usage(format!("the array has no redundancy: there is nothing to {action}")));
    }
    if stack.array().is_scrubbing() {
        return Err(Failure::cannot(format!(
            "a check or repair is under way: `raidlab status {lab}` shows how far it is, `raidlab check {lab} --cancel` ends it"
        )));
    }
    let whole = match range {
        None => (0, capacity),
        Some((start, end)) if start < capacity => (start, end.min(capacity)),
        Some(_) => {
            return Err(Failure::usage(format!(
                "the range lies beyond the end of the volume, which holds {capacity} bytes"
            )));
        }
    };
    let before = LastScrub::of(&stack.lab.directory).filter(|last| last.action == action && last.range == whole);
    let resumed = before.filter(|last| last.position.is_some());
    let from = resumed.as_ref().and_then(|last| last.position).unwrap_or(whole.0);
    if resumed.is_some() {
        say.hint(&format!("{action} goes on at byte {from}; `raidlab check {lab} --cancel` begins anew"));
    }
    let earlier = resumed.unwrap_or(LastScrub {
        action: action.to_owned(),
        range: whole,
        position: None,
        mismatch_cnt: 0,
        mismatches: 0,
        mended: 0,
    });
    let sectors = Lba(from / SECTOR_BYTES)..Lba(whole.1.div_ceil(SECTOR_BYTES));
    stack.array_mut().start_scrub(kind, sectors);
    Ok(Box::new(Scrubbing { lab: asked.lab.to_owned(), earlier, interrupted_at: None }))
}

/// A check or repair.
struct Scrubbing {
    lab: PathBuf,
    /// What was found before it was interrupted the last time.
    earlier: LastScrub,
    /// The byte of the volume at which the next one goes on.
    interrupted_at: Option<u64>,
}

impl Job for Scrubbing {
    fn is_done(&mut self, stack: &mut Stack) -> bool {
        if stack.array().is_failed() {
            self.interrupt(stack);
            return true;
        }
        let settled = match self.interrupted_at {
            // A recovery that came between is not waited for.
            Some(_) => !stack.array().is_recording(),
            None => is_settled(stack),
        };
        !stack.array().is_scrubbing() && settled
    }

    fn interrupt(&mut self, stack: &mut Stack) {
        // Asked now: what is under way is still finished.
        if let (None, Some(position)) = (self.interrupted_at, stack.array().scrub_position()) {
            self.interrupted_at = Some(position.bytes());
        }
        stack.array_mut().cancel_scrub();
    }

    fn end(self: Box<Self>, stack: &mut Stack, say: &mut dyn Say) -> Outcome {
        let found = stack.array().scrub_report();
        let last = LastScrub {
            position: self.interrupted_at,
            mismatch_cnt: self.earlier.mismatch_cnt + found.mismatch_sectors,
            mismatches: self.earlier.mismatches + found.mismatches_total,
            mended: self.earlier.mended + found.mended_total,
            ..self.earlier
        };
        last.save(&stack.lab.directory)?;
        report(stack, &last, say);
        if stack.array().is_failed() {
            return Err(Failure::lost(format!("the array failed: the {} could not be completed", last.action)));
        }
        if let Some(at) = last.position {
            let (action, lab) = (&last.action, self.lab.display());
            return Err(Failure::cannot(format!("interrupted at byte {at}: `raidlab {action} {lab}` goes on")));
        }
        Ok(u8::from(last.mismatches > last.mended))
    }

    fn outlives_caller(&self) -> bool {
        true
    }

    fn is_scrub(&self) -> bool {
        true
    }
}

/// Waits until a check or repair that was interrupted is on record, and forgets how far it came if it is to.
pub struct Interrupting {
    forget: bool,
}

impl Interrupting {
    /// Begins `check --pause` or, with `forget`, `check --cancel`, where the one under way was interrupted.
    pub fn begin(forget: bool) -> Box<dyn Job> {
        Box::new(Interrupting { forget })
    }
}

impl Job for Interrupting {
    fn is_done(&mut self, stack: &mut Stack) -> bool {
        !stack.array().is_scrubbing() && !stack.array().is_recording()
    }

    fn interrupt(&mut self, _stack: &mut Stack) {}

    fn end(self: Box<Self>, stack: &mut Stack, _say: &mut dyn Say) -> Outcome {
        if self.forget { forget(&stack.lab.directory) } else { Ok(0) }
    }
}

fn report(stack: &Stack, last: &LastScrub, say: &mut dyn Say) {
    let found = stack.array().scrub_report();
    for mismatch in &found.mismatches {
        let seat = |slot: crate::raid::geometry::Slot| stack.array().members().seats()[slot.0 as usize].member;
        let wrong = match mismatch.culprit.and_then(seat) {
            Some(device) => format!("{} is wrong", stack.name_of(device)),
            None => String::from("who is wrong cannot be known"),
        };
        let mended = if mismatch.mended { ", mended" } else { "" };
        let sectors = mismatch.rows.end - mismatch.rows.start;
        say.line(&format!(
            "mismatch: stripe {} rows {}..{} ({sectors} sectors), volume byte {}: {wrong}{mended}",
            mismatch.stripe.0,
            mismatch.rows.start,
            mismatch.rows.end,
            mismatch.volume.bytes()
        ));
    }
    let listed = found.mismatches.len() as u64;
    if found.mismatches_total > listed {
        say.line(&format!("... and {} more", found.mismatches_total - listed));
    }
    let mended = if last.mended > 0 { format!(", {} mended", last.mended) } else { String::new() };
    say.line(&format!(
        "{}: mismatch_cnt {} sectors in {} places{mended}",
        last.action, last.mismatch_cnt, last.mismatches
    ));
    let left = last.mismatches - last.mended;
    if left > 0 && last.action == "repair" {
        say.line(&format!(
            "{left} places were left as they are: who is wrong cannot be known there. \
             --trust-data takes the data for right, as md does"
        ));
    }
}

/// Runs `wait`.
pub fn wait(args: &WaitArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    carry_out(&args.lab.lab, &Command::Wait, false, manner, out)
}

/// Begins `wait`.
pub fn begin_wait(asked: Asked<'_>) -> Box<dyn Job> {
    Box::new(Waiting { lab: asked.lab.to_owned(), interrupted: false })
}

/// Waits until recovery and resync have nothing left to do.
struct Waiting {
    lab: PathBuf,
    interrupted: bool,
}

impl Job for Waiting {
    fn is_done(&mut self, stack: &mut Stack) -> bool {
        self.interrupted || is_settled(stack)
    }

    fn interrupt(&mut self, _stack: &mut Stack) {
        self.interrupted = true;
    }

    fn end(self: Box<Self>, stack: &mut Stack, say: &mut dyn Say) -> Outcome {
        let lab = self.lab.display();
        if self.interrupted {
            return Err(Failure::cannot(format!("interrupted: `raidlab wait {lab}` goes on from here")));
        }
        let (blocked, degraded) = (stack.array().is_sync_blocked(), !stack.array().degraded().is_empty());
        if degraded && !blocked {
            say.hint(&format!("the array stays degraded: `raidlab add {lab}` gives it a new disk"));
        }
        if blocked {
            say.hint(
                "part of the array stays without redundancy: its parity was never made to agree with the data since a crash",
            );
        }
        Ok(u8::from(degraded))
    }
}
