//! The power is cut at every event of a life.
//!
//! An array lives through a seeded story: clients read and write, disks fail and stop, spares step in, members
//! leave, come back and are replaced, the array is checked, stopped and started. Before every event, or every few,
//! the world is copied, the power of the copy is cut, and what is left is assembled. It must assemble, or be refused for
//! an honest reason; then it recovers, every sector is audited twice, a check must find no mismatch, and the same must
//! hold of what is left when more members are lost. Now and then the power is cut again during that recovery.
//!
//! Where a parity array was dirty and degraded it must be refused; forced, it may be wrong in one place only: in sectors
//! of missing members whose row had a write under way, or on some member not yet on the medium, when the power went.

use std::fmt;

use super::array::{Lab, Shape};
use super::{CacheLoss, ClientOp, Failure, Mix, Rng, Trace};
use crate::block::{Bank, DeviceId, Extent, Lba, Sectors};
use crate::disk::{FaultKind, FaultSpec, Trigger};
use crate::raid::VOLUME;
use crate::raid::assemble::AssembleError;
use crate::raid::geometry::StripeIndex;
use crate::raid::member::Place;
use crate::raid::sync::Scrub;

/// How much is tried in one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Client operations of the story.
    pub ops: usize,
    /// The power is cut before every so many events, from a place the seed decides: 1 is every event.
    pub every: u64,
    /// Of a hundred cuts, so many are followed by another one during recovery.
    pub again_percent: u64,
    /// Writes fail now and then, whole or torn, and requests for no lasting reason.
    pub flaws: bool,
}

impl Effort {
    /// Every event.
    pub const FULL: Effort = Effort { ops: 40, every: 1, again_percent: 25, flaws: false };
    /// A sample of the events.
    pub const SAMPLE: Effort = Effort { ops: 30, every: 19, again_percent: 15, flaws: false };
}

/// What a run was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// The array.
    pub shape: Shape,
    /// Events of the story.
    pub events: u64,
    /// How often the power was cut, second cuts included.
    pub cuts: u64,
    /// How often a dirty and degraded array was refused, and forced.
    pub refused: u64,
    /// Views of the array with more members lost that were read.
    pub views: u64,
    /// Hash of all that happened.
    pub trace: Trace,
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failed {
    /// An answer was wrong, or there was none.
    World(Failure),
    /// The columns of a stripe that nobody works on disagree.
    Disagree {
        /// Which stripe.
        stripe: StripeIndex,
        /// Which row of its chunks.
        row: u64,
    },
    /// It does not assemble.
    Refused(AssembleError),
    /// It was refused as dirty and degraded, and was not degraded.
    RefusedForNothing(AssembleError),
    /// It started, dirty and degraded.
    NotRefused,
    /// Background work does not come to its end.
    Endless,
    /// Spares wait while slots are empty.
    IdleSpare(DeviceId),
    /// A check found disagreement that nothing excuses.
    Mismatch {
        /// Where.
        stripe: StripeIndex,
        /// The first row of its chunks.
        row: u64,
    },
    /// The array failed, though enough members were left.
    ArrayFailed,
}

/// A failed run: what it was, when, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunFailure {
    /// The seed.
    pub seed: u64,
    /// The array.
    pub shape: Shape,
    /// Events of the story before.
    pub event: u64,
    /// The last acts of the story, and of the copy whose power was cut.
    pub told: Vec<String>,
    /// What went wrong.
    pub failed: Failed,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Failed {
        Failed::World(failure)
    }
}

/// Runs the story of `seed` on an array the seed draws.
pub fn run(seed: u64, effort: Effort) -> Result<Summary, Box<RunFailure>> {
    run_on(Shape::drawn(&mut Rng::new(seed, 100)), seed, effort)
}

/// Runs the story of `seed` on a given array.
pub fn run_on(shape: Shape, seed: u64, effort: Effort) -> Result<Summary, Box<RunFailure>> {
    let mut story = Story::new(shape, seed, effort);
    let result = story.live();
    let summary = Summary { events: story.lab.world.events(), trace: story.lab.bank().trace(), ..story.summary };
    match result {
        Ok(()) => Ok(summary),
        Err(failed) => {
            let told = std::mem::take(&mut story.told);
            Err(Box::new(RunFailure { seed, shape, event: summary.events, told, failed }))
        }
    }
}

/// What may happen to an array besides requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    /// A member is failed by its administrator.
    Fail,
    /// A disk stops answering.
    Stop,
    /// Sectors become unreadable.
    Rot,
    /// A disk is added.
    Add,
    /// What failed is taken out, and out of the box.
    Remove,
    /// What failed is taken out and put back.
    ReAdd,
    /// A member is replaced by a spare.
    Replace,
    /// Everything is compared.
    Check,
    /// Nothing happens for a while.
    Rest,
    /// The array is stopped and started.
    Restart,
    /// A few requests of a disk will fail.
    Flaw,
}

/// Flaws come last: without them the others are drawn as ever.
const ACTS: [Act; 11] = [
    Act::Fail,
    Act::Stop,
    Act::Rot,
    Act::Add,
    Act::Remove,
    Act::ReAdd,
    Act::Replace,
    Act::Check,
    Act::Rest,
    Act::Restart,
    Act::Flaw,
];

/// More events than any recovery here takes.
const EVENTS_MAX: u64 = 50_000;

struct Story {
    lab: Lab,
    effort: Effort,
    offset: u64,
    acts: Rng,
    choose: Rng,
    summary: Summary,
    told: Vec<String>,
}

/// Says how to replay a run that panics.
struct Replay<'a> {
    told: &'a [String],
    seed: u64,
    shape: Shape,
    event: u64,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, {:?}, event {}: {}", self.seed, self.shape, self.event, self.told.join("; "));
        }
    }
}

impl Story {
    fn new(shape: Shape, seed: u64, effort: Effort) -> Story {
        let trace = Trace::default();
        Story {
            lab: Lab::new(shape, seed),
            effort,
            offset: Rng::new(seed, 101).below(effort.every),
            acts: Rng::new(seed, 102),
            choose: Rng::new(seed, 103),
            summary: Summary { seed, shape, events: 0, cuts: 0, refused: 0, views: 0, trace },
            told: Vec::new(),
        }
    }

    fn live(&mut self) -> Result<(), Failed> {
        let limits = self.lab.array().limits(VOLUME);
        let mut rng = Rng::new(self.summary.seed, 104);
        let mix = Mix::drawn(&limits, &mut rng);
        let depth = 1 + rng.below(6) as usize;
        let acts_percent = rng.below(30);
        for op in mix.draw(&limits, self.effort.ops, &mut rng) {
            if rng.chance(acts_percent) {
                self.act()?;
            }
            while self.lab.world.inflight() >= depth {
                self.must_go_on()?;
            }
            self.tell(format!("{op:?}"));
            self.lab.world.submit(op);
        }
        self.rest()?;
        self.settled_audit(true)
    }

    fn tell(&mut self, what: String) {
        if self.told.len() > 40 {
            self.told.remove(0);
        }
        self.told.push(what);
    }

    /// One event of the story; before it the power of a copy is cut. `false`: nothing will happen by itself.
    fn event(&mut self) -> Result<bool, Failed> {
        if self.lab.world.events() % self.effort.every == self.offset {
            self.cut_here()?;
        }
        let told = std::mem::take(&mut self.told);
        let replay =
            Replay { told: &told, seed: self.summary.seed, shape: self.summary.shape, event: self.lab.world.events() };
        let more = self.lab.world.step().map_err(Failed::World);
        if more.is_ok() {
            self.lab.array().check_invariants();
        }
        drop(replay);
        self.told = told;
        let more = more?;
        if self.lab.world.events().is_multiple_of(4) {
            self.lab.check()?;
        }
        if self.lab.array().is_failed() && self.lab.shape().level != crate::raid::level::Level::Raid0 {
            return Err(Failed::ArrayFailed);
        }
        Ok(more)
    }

    fn must_go_on(&mut self) -> Result<(), Failed> {
        if self.event()? { Ok(()) } else { Err(Failed::Endless) }
    }

    fn drain(&mut self) -> Result<(), Failed> {
        while self.lab.world.inflight() > 0 {
            self.must_go_on()?;
        }
        Ok(())
    }

    /// Until nothing happens any more: recovered, clean, the bitmap clear.
    fn rest(&mut self) -> Result<(), Failed> {
        self.drain()?;
        let end = self.lab.world.events() + EVENTS_MAX;
        while self.event()? {
            if self.lab.world.events() > end {
                return Err(Failed::Endless);
            }
        }
        if self.lab.array().is_syncing() { Err(Failed::Endless) } else { Ok(()) }
    }

    fn act(&mut self) -> Result<(), Failed> {
        let acts = ACTS.len() as u64 - u64::from(!self.effort.flaws);
        let act = ACTS[self.acts.below(acts) as usize];
        let disks = self.lab.shape().disks as u64;
        let slot = self.acts.below(disks) as usize;
        self.tell(format!("[{act:?} slot {slot}]"));
        let device = self.lab.array().members().seats()[slot].member;
        let faulty = self.lab.array().members().iter().find(|member| member.place == Place::Faulty).map(|m| m.device);
        match act {
            Act::Fail => {
                if let Some(device) = device.filter(|_| self.all_well()) {
                    let _ = self.lab.array_mut().fail(device);
                }
            }
            Act::Stop => {
                let losable = self.lab.losable().iter().any(|set| set.len() == 1 && set.contains(slot));
                if let Some(device) = device.filter(|_| losable && self.all_well()) {
                    self.lab.bank_mut().fail_stop(device);
                }
            }
            Act::Rot => {
                let whole = self.lab.array().degraded().is_empty() && self.all_well();
                if let Some(device) = device.filter(|_| whole && self.lab.array().geometry().tolerance() > 0) {
                    self.rot(device);
                }
            }
            Act::Add => {
                let _ = self.lab.add_disk();
            }
            Act::Remove => {
                if let Some(device) = faulty
                    && self.lab.array_mut().remove(device).is_ok()
                {
                    self.lab.unplug(device);
                }
            }
            Act::ReAdd => {
                if let Some(device) = faulty
                    && self.lab.array_mut().remove(device).is_ok()
                {
                    self.lab.bank_mut().bring_back(device);
                    if let Err(error) = self.lab.re_add(device) {
                        self.tell(format!("{error}"));
                        self.lab.unplug(device);
                    }
                }
            }
            Act::Replace => {
                if let Some(device) = device {
                    let _ = self.lab.array_mut().replace(device, None);
                }
            }
            Act::Check => {
                let end = Lba(self.lab.array().geometry().capacity().0);
                self.lab.array_mut().start_scrub(Scrub::Check, Lba(0)..end);
            }
            Act::Flaw => {
                let whole = self.lab.array().degraded().is_empty() && self.all_online();
                if let Some(device) = device.filter(|_| whole && self.lab.array().geometry().tolerance() > 0) {
                    self.flaw(device);
                }
            }
            Act::Rest => self.rest()?,
            Act::Restart => self.restart()?,
        }
        Ok(())
    }

    /// Nothing is wrong that may yet come to light.
    fn all_well(&self) -> bool {
        self.all_online() && self.lab.array().bank().list().is_empty()
    }

    fn all_online(&self) -> bool {
        let lab = &self.lab;
        lab.array().members().iter().all(|member| !member.serves() || lab.bank().is_online(member.device))
    }

    /// A few sectors of one disk become unreadable, where all others can be read.
    fn rot(&mut self, device: DeviceId) {
        let data = self.lab.array().members().get(device).expect("it has a slot").data_offset();
        let member = self.lab.shape().member.0;
        let start = self.acts.below(member);
        let length = 1 + self.acts.below(4.min(member - start));
        let extent = Extent::new(data + Sectors(start), Sectors(length));
        let whole = Extent::new(data, Sectors(member));
        let others = self.lab.disks().iter().any(|disk| self.lab.bank().is_unreadable(*disk, whole));
        if !others {
            self.lab.bank_mut().fail_medium(device, extent);
        }
    }

    /// Some requests for a part of one disk's data will fail.
    fn flaw(&mut self, device: DeviceId) {
        let data = self.lab.array().members().get(device).expect("it has a slot").data_offset();
        let member = self.lab.shape().member.0;
        let start = self.acts.below(member);
        let range = Extent::new(data + Sectors(start), Sectors(1 + self.acts.below(member - start)));
        let kind = match self.acts.below(3) {
            0 => FaultKind::WriteMedium,
            1 => FaultKind::Transient(1 + self.acts.below(3)),
            _ => FaultKind::Torn(Sectors(1 + self.acts.below(3))),
        };
        let strikes = 1 + self.acts.below(3);
        // A transient fault counts for itself.
        let times = (!matches!(kind, FaultKind::Transient(_))).then_some(strikes);
        let spec = FaultSpec { kind, range: Some(range), trigger: Trigger::Armed, times };
        let now = self.lab.world.now();
        let faults = self.lab.array_mut().bank_mut();
        if !faults.list().iter().any(|fault| fault.device != device) {
            faults.arm(device, spec, now).expect("the range lies on the disk");
        }
    }

    fn restart(&mut self) -> Result<(), Failed> {
        self.drain()?;
        self.lab.array_mut().stop();
        let end = self.lab.world.events() + EVENTS_MAX;
        while !self.lab.array().is_stopped() {
            if !self.event()? || self.lab.world.events() > end {
                return Err(Failed::Endless);
            }
        }
        self.lab.assemble_again().map_err(Failed::Refused)
    }

    // ---- in copies ----

    fn cut_here(&mut self) -> Result<(), Failed> {
        let loss = CacheLoss::ALL[self.choose.below(CacheLoss::ALL.len() as u64) as usize];
        let told = self.told.len();
        let lab = self.lab.clone();
        self.after_cut(lab, loss, true)?;
        self.told.truncate(told);
        Ok(())
    }

    fn after_cut(&mut self, lab: Lab, loss: CacheLoss, again: bool) -> Result<(), Failed> {
        let mut choose = Rng::new(self.choose.draw(), 0);
        self.summary.cuts += 1;
        self.tell(format!("<cut at event {}, {loss:?}>", lab.world.events()));
        let was_degraded = !lab.array().degraded().is_empty()
            || lab.array().is_recording()
            || lab.disks().iter().any(|disk| !lab.bank().is_online(*disk));
        let mut lab = lab;
        if choose.chance(50) {
            for disk in lab.disks().to_vec() {
                lab.bank_mut().bring_back(disk);
            }
        }
        let (mut fork, refusal) = lab.cut_power(loss, &mut choose).map_err(Failed::Refused)?;
        if let Some(error) = refusal {
            self.summary.refused += 1;
            self.tell(format!("<forced: {} sectors excused>", fork.world.oracle.excused()));
            if !was_degraded {
                return Err(Failed::RefusedForNothing(error));
            }
        } else if fork.is_dirty_and_degraded() {
            return Err(Failed::NotRefused);
        }
        let told = std::mem::take(&mut self.told);
        let (seed, shape, event) = (self.summary.seed, self.summary.shape, self.lab.world.events());
        let replay = Replay { told: &told, seed, shape, event };
        if again && choose.chance(self.effort.again_percent) {
            let mut second = fork.clone();
            let events = choose.below(60);
            submit_all_reads(&mut second, &mut choose);
            for _ in 0..events {
                if !second.world.step()? {
                    break;
                }
            }
            drop(replay);
            self.told = told;
            self.after_cut(second, CacheLoss::ALL[choose.below(CacheLoss::ALL.len() as u64) as usize], false)?;
            self.told.pop();
        } else {
            drop(replay);
            self.told = told;
        }
        let told = std::mem::take(&mut self.told);
        let replay = Replay { told: &told, seed, shape, event };
        let result = aftermath(&mut fork, &mut choose);
        drop(replay);
        self.told = told;
        self.summary.views += result?;
        Ok(())
    }

    fn settled_audit(&mut self, all: bool) -> Result<(), Failed> {
        let mut choose = Rng::new(self.choose.draw(), 0);
        let mut fork = self.lab.clone();
        self.summary.views += audit(&mut fork, &mut choose, all)?;
        Ok(())
    }
}

/// What is done with an array that comes back from a power cut.
fn aftermath(fork: &mut Lab, choose: &mut Rng) -> Result<u64, Failed> {
    match choose.below(4) {
        0 => recover(fork)?,
        1 => fork.world.read_all(EVENTS_MAX)?,
        // What was read once must not change when the disk it came from is gone.
        2 => {
            let sets = fork.losable();
            submit_all_reads(fork, choose);
            fork.world.run_until_idle(EVENTS_MAX)?;
            if !sets.is_empty() {
                fork.excuse_accepted();
                fork.lose(sets[choose.below(sets.len() as u64) as usize]);
            }
        }
        _ => {
            let limits = fork.array().limits(VOLUME);
            for op in Mix::of_all(&limits).draw(&limits, 6, choose) {
                if !matches!(op, ClientOp::Flush) {
                    fork.world.submit(op);
                }
                for _ in 0..choose.below(8) {
                    fork.world.step()?;
                    fork.array().check_invariants();
                }
            }
            fork.world.run_until_idle(EVENTS_MAX)?;
        }
    }
    audit(fork, choose, false)
}

/// Recovers, reads everything twice, checks, and reads what is left when more is lost. Gives the number of such views.
fn audit(fork: &mut Lab, choose: &mut Rng, all: bool) -> Result<u64, Failed> {
    fork.world.read_all(EVENTS_MAX)?;
    recover(fork)?;
    fork.world.read_all(EVENTS_MAX)?;
    if fork.array().is_failed() {
        return Ok(0);
    }
    fork.check()?;
    let idle = fork.array().members().iter().find(|member| member.place == Place::Spare).map(|member| member.device);
    let empty = fork.array().members().seats().iter().any(|seat| seat.member.is_none());
    if let Some(device) = idle.filter(|_| empty && fork.array().geometry().tolerance() > 0) {
        return Err(Failed::IdleSpare(device));
    }
    if !fork.array().is_sync_blocked() {
        check(fork)?;
    }
    let sets = fork.losable();
    if sets.is_empty() || fork.array().is_sync_blocked() {
        return Ok(0);
    }
    let chosen = choose.below(sets.len() as u64) as usize;
    let mut views = 0;
    for (at, set) in sets.into_iter().enumerate() {
        if all || at == chosen {
            let mut view = fork.clone();
            view.excuse_accepted();
            view.lose(set);
            view.world.read_all(EVENTS_MAX)?;
            views += 1;
        }
    }
    Ok(views)
}

fn submit_all_reads(lab: &mut Lab, choose: &mut Rng) {
    let capacity = lab.world.oracle.capacity().0;
    for _ in 0..choose.below(4) {
        let start = choose.below(capacity);
        let length = 1 + choose.below(40.min(capacity - start));
        lab.world.submit_read(Extent::new(Lba(start), Sectors(length)));
    }
}

/// Lets recovery and resync come to their end.
fn recover(lab: &mut Lab) -> Result<(), Failed> {
    run_until(lab, |lab| !lab.array().is_syncing() && lab.array().is_quiet())
}

fn run_until(lab: &mut Lab, end: impl Fn(&Lab) -> bool) -> Result<(), Failed> {
    for _ in 0..EVENTS_MAX {
        // What is quiet may yet have something to begin.
        let due = lab.array().next_deadline().is_some_and(|due| due <= lab.world.now());
        if end(lab) && !due {
            return Ok(());
        }
        if !lab.world.step()? {
            return if end(lab) { Ok(()) } else { Err(Failed::Endless) };
        }
    }
    Err(Failed::Endless)
}

/// A check finds nothing, but for what is excused.
fn check(lab: &mut Lab) -> Result<(), Failed> {
    let end = Lba(lab.array().geometry().capacity().0);
    lab.array_mut().start_scrub(Scrub::Check, Lba(0)..end);
    run_until(lab, |lab| !lab.array().is_scrubbing())?;
    for mismatch in &lab.array().scrub_report().mismatches {
        if !lab.is_accepted(mismatch.stripe, mismatch.rows.clone()) {
            return Err(Failed::Mismatch { stripe: mismatch.stripe, row: mismatch.rows.start });
        }
    }
    Ok(())
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::World(failure) => write!(f, "{failure}"),
            Failed::Disagree { stripe, row } => {
                write!(f, "the columns of stripe {} disagree in row {row}, and nobody is at work there", stripe.0)
            }
            Failed::Refused(error) => write!(f, "it does not assemble: {error}"),
            Failed::RefusedForNothing(error) => write!(f, "it is refused and was not degraded: {error}"),
            Failed::NotRefused => f.write_str("a dirty and degraded parity array was started without being forced"),
            Failed::Endless => f.write_str("background work does not come to its end"),
            Failed::IdleSpare(device) => write!(f, "spare {} waits while a slot is empty", device.0),
            Failed::Mismatch { stripe, row } => write!(f, "check finds a mismatch in stripe {}, row {row}", stripe.0),
            Failed::ArrayFailed => f.write_str("the array failed, though enough members were left"),
        }
    }
}

impl fmt::Display for RunFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {:?}, event {}: {}", self.seed, self.shape, self.event, self.failed)?;
        write!(f, "  {}", self.told.join("; "))
    }
}

impl std::error::Error for RunFailure {}
