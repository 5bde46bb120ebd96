//! What is done with a copy of the world whose power is cut, and how an array at rest is audited.
//!
//! What is left of the array must assemble, or be refused for an honest reason, with every slot whole that was whole and
//! on record as that; then it recovers, every sector is read twice, a check must find no mismatch, and all must hold of
//! what is left when more members are lost. Now and then the power is cut again during that recovery.
//!
//! Where a parity array was dirty and degraded it must be refused; forced, it may be wrong in one place only: in sectors
//! of missing members whose row had a write under way, or on some member not yet on the medium, when the power went.

use std::ops::AddAssign;

use super::array::Lab;
use super::explain::{assembled_words, event_words, slots_words};
use super::life::{Copied, Watch};
use super::mending::Unmended;
use super::off::Off;
use super::scenario::{Aftermath, Again, CrashPoint, Regime};
use super::{CacheLoss, Choose, ClientOp, Failed, Mix, Odometer, Rng, Trace};
use crate::block::{Bank, Extent, Lba, Marks, Sectors};
use crate::raid::VOLUME;
use crate::raid::assemble::AssembleError;
use crate::raid::member::Place;
use crate::raid::sync::Scrub;

/// More events than any recovery here takes.
pub(super) const EVENTS_MAX: u64 = 50_000;

/// How many views with more members lost are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Views {
    /// One, drawn.
    One,
    /// Every one.
    All,
}

/// What crash points came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// How often the power was cut.
    pub cuts: u64,
    /// How often a dirty and degraded array was refused, and forced.
    pub forced: u64,
    /// How often too little was left to assemble, and rightly.
    pub refused: u64,
    /// Views with more members lost that were read.
    pub views: u64,
    /// Second cuts that came when nothing was left to recover.
    pub late: u64,
    /// Rare branches the copies have taken.
    pub marks: Marks,
    /// Hash of all that happened in copies.
    pub trace: Trace,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.cuts += other.cuts;
        self.forced += other.forced;
        self.refused += other.refused;
        self.views += other.views;
        self.late += other.late;
        self.marks.merge(other.marks);
        self.trace.note(other.trace.0);
    }
}

impl CrashPoint {
    /// The crash point of a seed at an event.
    pub fn drawn(seed: u64, event: u64) -> CrashPoint {
        let mut rng = Rng::new(seed, 1 << 32 | event);
        let loss = CacheLoss::ALL[rng.below(5) as usize];
        let then = [Aftermath::Recover, Aftermath::Read, Aftermath::Lose, Aftermath::Write][rng.below(4) as usize];
        let again = Again { events: rng.below(60), loss: CacheLoss::ALL[rng.below(5) as usize] };
        let (back, twice, choose) = (rng.chance(50), rng.chance(20), rng.draw() >> 1);
        CrashPoint { event, loss, survivors: None, back, then, again: twice.then_some(again), choose }
    }
}

/// What is remembered of the last things that happened, and who else wants to know.
pub struct Onlooker<'a> {
    /// The last things that happened.
    pub told: &'a mut Vec<String>,
    /// Who looks on.
    pub watch: &'a mut dyn Watch,
}

impl Onlooker<'_> {
    /// Something happened.
    pub fn tell(&mut self, lab: &Lab, what: String) {
        self.watch.told(lab.world.now(), lab.world.events(), &what);
        self.told.push(what);
    }

    /// One event, looked at. `Ok(false)`: nothing will happen by itself.
    pub fn step(&mut self, lab: &mut Lab) -> Result<bool, Failed> {
        lab.note_losses();
        let stepped = lab.world.step();
        self.look(lab);
        lab.check_paths()?;
        Ok(stepped?)
    }

    fn look(&mut self, lab: &mut Lab) {
        for event in lab.array_mut().drain_events() {
            self.tell(lab, event_words(event));
        }
        self.watch.look(lab);
    }

    fn submit(&mut self, lab: &mut Lab, op: ClientOp) {
        let id = lab.world.submit(op);
        self.watch.submitted(lab.world.now(), lab.world.events(), id, op);
    }

    /// Lets every operation of a client be answered.
    fn run_until_idle(&mut self, lab: &mut Lab) -> Result<(), Failed> {
        for _ in 0..EVENTS_MAX {
            if lab.world.inflight() == 0 || !self.step(lab)? {
                break;
            }
        }
        Ok(lab.world.run_until_idle(0)?)
    }

    /// Reads every sector of the volume.
    fn read_all(&mut self, lab: &mut Lab) -> Result<(), Failed> {
        let mut script = lab.world.audit();
        for _ in 0..EVENTS_MAX {
            lab.note_losses();
            let advanced = lab.world.advance(&mut script);
            self.look(lab);
            lab.check_paths()?;
            if !advanced? {
                return Ok(());
            }
        }
        Ok(lab.world.run_until_idle(0)?)
    }
}

/// Cuts the power of `lab`, a copy, and audits what comes back.
pub fn crash(lab: Lab, point: &CrashPoint, regime: Regime, onlooker: &mut Onlooker<'_>) -> Result<Tally, Failed> {
    let mut choose = Rng::new(point.choose, 0);
    let views = if point.survivors.is_some() { Views::All } else { Views::One };
    let mut tally = Tally::default();
    onlooker.tell(&lab, format!("power cut of a copy at event {}, {:?}", lab.world.events(), point.loss));
    let cut_off = match point.survivors {
        None => cut(lab, point.loss, point.back, regime, &mut choose, &mut tally, onlooker)?,
        Some(number) => cut(lab, point.loss, point.back, regime, &mut Odometer::at(number), &mut tally, onlooker)?,
    };
    let Some(mut lab) = cut_off else { return Ok(tally) };
    if let Some(again) = point.again {
        some_reads(&mut lab, &mut choose, onlooker);
        for _ in 0..again.events {
            if !onlooker.step(&mut lab)? {
                break;
            }
        }
        tally.late += u64::from(lab.is_at_rest());
        onlooker.tell(&lab, format!("power cut again, {:?}", again.loss));
        let cut_off = cut(lab, again.loss, point.back, regime, &mut choose, &mut tally, onlooker)?;
        let Some(after) = cut_off else { return Ok(tally) };
        lab = after;
    }
    aftermath(&mut lab, point.then, &mut choose, onlooker)?;
    onlooker.tell(&lab, "everything is read and checked".to_owned());
    tally.views += audit(&mut lab, views, &mut choose, onlooker)?;
    tally.marks = lab.bank().marks();
    tally.trace = lab.bank().trace();
    Ok(tally)
}

fn cut(
    lab: Lab,
    loss: CacheLoss,
    back: bool,
    regime: Regime,
    choose: &mut impl Choose,
    tally: &mut Tally,
    onlooker: &mut Onlooker<'_>,
) -> Result<Option<Lab>, Failed> {
    tally.cuts += 1;
    let mut off = lab.cut_power(loss, false, choose);
    if back {
        off.bring_all_back();
    }
    onlooker.watch.left(off.bank());
    let lab = power_on(off, regime, tally)?.ok();
    if let Some(lab) = &lab {
        onlooker.tell(lab, assembled_words(Some(lab)));
    }
    Ok(lab)
}

/// Assembles what a cut has left, insisting where it is dirty and degraded. What it gives back is too little, and rightly.
pub(super) fn power_on(mut off: Off, regime: Regime, tally: &mut Tally) -> Result<Result<Lab, Off>, Failed> {
    // No old member alone knows that it is old (mdadm asks for --run): whoever starts it looks for the others first.
    let mut all_plugged_in = off.newest_is_away();
    if all_plugged_in {
        off.bring_all_back();
    }
    let mut force = false;
    loop {
        let degraded = off.was_degraded();
        let (refused, error) = match off.assemble(force) {
            Ok(lab) if !lab.taken().is_empty() => return Err(Failed::PlaceLost(lab.taken())),
            Ok(lab) if force => return Ok(Ok(given_up(lab, regime))),
            Ok(lab) if lab.is_dirty_and_degraded() => return Err(Failed::NotRefused),
            Ok(lab) => return Ok(Ok(lab)),
            Err(refused) => *refused,
        };
        off = refused;
        match error {
            AssembleError::DirtyDegraded { .. } if !degraded => return Err(Failed::RefusedForNothing(error)),
            AssembleError::DirtyDegraded { .. } if !force => {
                tally.forced += 1;
                force = true;
            }
            // Two devices with one identity: a copy of a disk was put in, and is taken out again.
            AssembleError::SameMember { .. } if off.has_copies() => off.take_copies_out(),
            // Whoever is in charge plugs everything in again, and takes what is old, before giving up.
            AssembleError::TooFew { .. } | AssembleError::NoDevices if regime == Regime::Unbudgeted => {
                if force {
                    tally.refused += 1;
                    return Ok(Err(off));
                }
                force = all_plugged_in;
                all_plugged_in = true;
                off.bring_all_back();
            }
            error => return Err(Failed::Refused(error)),
        }
    }
}

/// Where faults know no budget more members may be lost before what was forced is made to agree: whole rows are in doubt.
fn given_up(mut lab: Lab, regime: Regime) -> Lab {
    if regime == Regime::Unbudgeted {
        lab.excuse_accepted();
    }
    lab
}

/// What is done with an array that comes back from a power cut.
fn aftermath(lab: &mut Lab, then: Aftermath, choose: &mut Rng, onlooker: &mut Onlooker<'_>) -> Result<(), Failed> {
    match then {
        Aftermath::Recover => recover(lab, onlooker)?,
        Aftermath::Read => onlooker.read_all(lab)?,
        // What was read once must not change when the disk it came from is gone.
        Aftermath::Lose => {
            let sets = lab.losable();
            some_reads(lab, choose, onlooker);
            onlooker.run_until_idle(lab)?;
            if !sets.is_empty() {
                let set = sets[choose.below(sets.len() as u64) as usize];
                lab.excuse_accepted();
                lab.lose(set);
                onlooker.tell(lab, format!("{} lost", slots_words(set)));
            }
        }
        Aftermath::Write => {
            let limits = lab.array().limits(VOLUME);
            for op in Mix::of_all(&limits).draw(&limits, 6, choose) {
                if !matches!(op, ClientOp::Flush) {
                    onlooker.submit(lab, op);
                }
                for _ in 0..choose.below(8) {
                    onlooker.step(lab)?;
                    lab.array().check_invariants();
                }
            }
            onlooker.run_until_idle(lab)?;
        }
    }
    Ok(())
}

/// Recovers, reads everything twice, checks, and reads what is left when more is lost. Gives the number of such views.
pub fn audit(lab: &mut Lab, views: Views, choose: &mut Rng, onlooker: &mut Onlooker<'_>) -> Result<u64, Failed> {
    onlooker.read_all(lab)?;
    recover(lab, onlooker)?;
    onlooker.read_all(lab)?;
    if lab.array().is_failed() {
        return Ok(0);
    }
    lab.check()?;
    let idle = lab.array().members().iter().find(|member| member.place == Place::Spare).map(|member| member.device);
    let empty = lab.array().members().seats().iter().any(|seat| seat.member.is_none());
    if let Some(device) = idle.filter(|_| empty && lab.array().geometry().tolerance() > 0) {
        return Err(Failed::IdleSpare(device));
    }
    if lab.array().is_sync_blocked() {
        return Ok(0);
    }
    if views == Views::All && !onlooker.watch.is_new(lab) {
        return Ok(0);
    }
    scrub(lab, onlooker)?;
    let still_lies = lab.array().bank().bank().list().iter().any(|fault| fault.spec.kind.is_silent());
    if lab.world.oracle.excused() > 0 && !still_lies {
        repair(lab, onlooker)?;
    }
    let sets = lab.losable();
    if sets.is_empty() {
        return Ok(0);
    }
    let chosen = choose.below(sets.len() as u64) as usize;
    let mut read = 0;
    for (at, set) in sets.into_iter().enumerate() {
        if views == Views::All || at == chosen {
            let mut view = lab.clone();
            view.excuse_accepted();
            view.lose(set);
            onlooker.watch.enter(Copied::View(set));
            onlooker.read_all(&mut view)?;
            onlooker.watch.leave();
            read += 1;
        }
    }
    Ok(read)
}

fn some_reads(lab: &mut Lab, choose: &mut Rng, onlooker: &mut Onlooker<'_>) {
    let limits = lab.array().limits(VOLUME);
    let block = limits.logical_block.0;
    let blocks = limits.capacity.0 / block;
    for _ in 0..choose.below(4) {
        let start = choose.below(blocks);
        let length = 1 + choose.below(40.min(blocks - start));
        onlooker.submit(lab, ClientOp::Read(Extent::new(Lba(start * block), Sectors(length * block))));
    }
}

/// Lets recovery and resync come to their end.
pub(super) fn recover(lab: &mut Lab, onlooker: &mut Onlooker<'_>) -> Result<(), Failed> {
    run_until(lab, onlooker, |lab| !lab.array().is_syncing() && lab.array().is_quiet())
}

fn run_until(lab: &mut Lab, onlooker: &mut Onlooker<'_>, end: impl Fn(&Lab) -> bool) -> Result<(), Failed> {
    for _ in 0..EVENTS_MAX {
        // What is quiet may yet have something to begin.
        let due = lab.array().next_deadline().is_some_and(|due| due <= lab.world.now());
        if end(lab) && !due {
            return Ok(());
        }
        if !onlooker.step(lab)? {
            return if end(lab) { Ok(()) } else { Err(Failed::Endless) };
        }
    }
    Err(Failed::Endless)
}

/// Lets a check or repair come to its end, which a failed array never does.
fn until_scrubbed(lab: &mut Lab, onlooker: &mut Onlooker<'_>) -> Result<(), Failed> {
    run_until(lab, onlooker, |lab| !lab.array().is_scrubbing() || lab.array().is_failed())
}

/// A check finds nothing, but for what is excused, and overlooks nothing.
fn scrub(lab: &mut Lab, onlooker: &mut Onlooker<'_>) -> Result<(), Failed> {
    let end = Lba(lab.array().geometry().capacity().0);
    lab.array_mut().start_scrub(Scrub::Check, Lba(0)..end);
    until_scrubbed(lab, onlooker)?;
    for mismatch in &lab.array().scrub_report().mismatches {
        if !lab.is_accepted(mismatch.stripe, mismatch.rows.clone()) {
            return Err(Failed::Mismatch { stripe: mismatch.stripe, row: mismatch.rows.start });
        }
    }
    Ok(())
}

/// A repair mends what it can locate, and spreads nothing.
fn repair(lab: &mut Lab, onlooker: &mut Onlooker<'_>) -> Result<(), Failed> {
    let before = Unmended::of(lab);
    onlooker.tell(lab, "everything is repaired".to_owned());
    let end = Lba(lab.array().geometry().capacity().0);
    lab.array_mut().start_scrub(Scrub::Repair { trust_data: false }, Lba(0)..end);
    until_scrubbed(lab, onlooker)?;
    before.judge(lab)
}
