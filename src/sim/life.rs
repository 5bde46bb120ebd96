//! A life: a scenario, lived.
//!
//! Clients do what the scenario says, steps are taken when their moment has come, and after every event the array is
//! asked for its invariants. Before some events, or all, the world is copied and the copy's power is cut (see
//! [`super::crash`]). In the end faults are mended and everything must come to rest within bounded time: recovered where
//! a spare was there, a check clean, every sector right from every view with more members lost.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::array::Lab;
use super::coverage::Coverage;
use super::crash::{self, EVENTS_MAX, Onlooker, Tally, Views, audit, power_on};
use super::explain::{assembled_words, change_words, event_words, strike_words};
use super::scenario::{Aftermath, Again, CrashPoint, Regime, Scenario, When};
use super::strikes::{Seen, Situation, count_cut};
use super::{CacheLoss, ClientOp, Failed, Finding, OpId, Rng, SimBank, Trace};
use crate::block::{DeviceId, Instant};
use crate::disk::FaultKind;
use crate::raid::control::Event;
use crate::raid::level::Level;
use crate::raid::set::SlotSet;
use crate::raid::sync::SyncOptions;

/// How much is tried in a life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Where the power of copies is cut.
    pub cuts: Cuts,
    /// Views read at the end of the life.
    pub views: Views,
    /// Events after which the life is given up, and reported as that.
    pub events_max: u64,
}

/// Where the power of copies is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cuts {
    /// Nowhere: only where a step says so.
    None,
    /// Before every so many events, from a place the seed decides; 1 is every event.
    Every(u64),
    /// Before every event after the last operation was submitted, the same way each time: how a shrunk scenario, which
    /// ends with the operations submitted before the cut, finds its crash point again.
    Like(CrashPoint),
    /// Before every event after the last operation was submitted and the last step was taken, in every way: what is
    /// before is there in a shorter scenario, too.
    All(Survivors),
}

/// What a power cut leaves, in all its ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Survivors {
    /// Every combination of what survives in caches, if there are at most so many ...
    pub ways_max: u64,
    /// ... else nothing, all, and so many others that are drawn.
    pub drawn: u64,
    /// The recovery from each is cut off again, before every one of its events.
    pub twice: bool,
}

impl Survivors {
    /// Sixteen ways, or two and four that are drawn.
    pub const FEW: Survivors = Survivors { ways_max: 16, drawn: 4, twice: false };
}

impl Effort {
    /// The power of a copy is cut before every event.
    pub const FULL: Effort = Effort { cuts: Cuts::Every(1), ..Effort::PLAIN };
    /// The power of a copy is cut now and then.
    pub const SAMPLE: Effort = Effort { cuts: Cuts::Every(331), ..Effort::PLAIN };
    /// The life alone.
    pub const PLAIN: Effort = Effort { cuts: Cuts::None, views: Views::All, events_max: 400_000 };
}

/// The most that is promised of a life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Promise {
    /// Every fault shows itself: data comes back, or an earned error.
    #[default]
    Detected,
    /// Some faults are silent: damage stays in the rows they touched.
    Silent,
    /// Disks lie about flushes, and what they hold is all there is: nothing is promised.
    None,
}

/// What a life was.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// The most that was promised.
    pub promise: Promise,
    /// Events of the life, without those of copies.
    pub events: u64,
    /// Requests to disks, without those of copies.
    pub ios: u64,
    /// Operations of clients.
    pub ops: u64,
    /// Faults that were done to disks.
    pub faults: u64,
    /// Faults held back because they went beyond the budget.
    pub held_back: u64,
    /// Steps that found no disk to be done to, or were refused by the array.
    pub idle_steps: u64,
    /// Steps whose moment never came.
    pub never: u64,
    /// Power cuts of the life itself.
    pub cuts: u64,
    /// Devices that recovery began to fill.
    pub recoveries: u64,
    /// What crash points came to.
    pub tally: Tally,
    /// Virtual time.
    pub time: Duration,
    /// Hash of all that happened, in copies too.
    pub trace: Trace,
    /// What struck what, and which rare branches were taken, in copies too.
    pub coverage: Coverage,
}

/// How a life ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every answer was allowed.
    Pass,
    /// Something was not.
    Finding(Box<Finding>),
    /// Something was not, where nothing is promised.
    NoPromise(Failed),
    /// It takes more events than it may.
    Budget,
}

/// Lives `scenario`.
pub fn live(scenario: &Scenario, effort: Effort) -> (Report, Verdict) {
    live_watched(scenario, effort, &mut ())
}

/// Somebody who looks on.
pub trait Watch {
    /// Something happened, at this time, after so many events.
    fn told(&mut self, now: Instant, event: u64, what: &str) {
        let _ = (now, event, what);
    }
    /// A client's operation was submitted, and is this one to the oracle.
    fn submitted(&mut self, now: Instant, event: u64, op: OpId, what: ClientOp) {
        let _ = (now, event, op, what);
    }
    /// After every event.
    fn look(&mut self, lab: &Lab) {
        let _ = lab;
    }
    /// A copy of the world goes its own way from here.
    fn enter(&mut self, copy: Copied) {
        let _ = copy;
    }
    /// The power was cut, and this is left on the disks.
    fn left(&mut self, bank: &SimBank) {
        let _ = bank;
    }
    /// Whether an array at rest is to be checked, and views of it read with more members lost: no, if one was that
    /// holds the same.
    fn is_new(&mut self, lab: &Lab) -> bool {
        let _ = lab;
        true
    }
    /// The copy ended well, and the original goes on.
    fn leave(&mut self) {}
}

/// What the world is copied for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copied {
    /// To cut its power.
    PowerCut,
    /// To lose these slots, too.
    View(SlotSet),
}

impl Watch for () {}

/// Lives `scenario` while `watch` looks on.
pub fn live_watched(scenario: &Scenario, effort: Effort, watch: &mut dyn Watch) -> (Report, Verdict) {
    let mut life = Life::new(scenario, effort, watch);
    let result = catch_unwind(AssertUnwindSafe(|| life.live()));
    let failed = match result {
        Ok(Ok(())) => None,
        Ok(Err(End::Failed(failed))) => Some(failed),
        Ok(Err(End::Budget)) => return (life.report(), Verdict::Budget),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(Failed::Panicked(text.unwrap_or("without a word").to_owned()))
        }
    };
    let report = life.report();
    let verdict = match failed {
        None => Verdict::Pass,
        Some(failed) if report.promise == Promise::None && !matches!(failed, Failed::Panicked(_)) => {
            Verdict::NoPromise(failed)
        }
        Some(failed) => Verdict::Finding(Box::new(life.finding(failed))),
    };
    (report, verdict)
}

pub(super) enum End {
    Failed(Failed),
    Budget,
}

impl<F: Into<Failed>> From<F> for End {
    fn from(failed: F) -> End {
        End::Failed(failed.into())
    }
}

/// Why clients wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pause {
    /// Until their requests are answered; then this step goes on.
    Draining(usize),
    /// Until the array has stopped, for this step.
    Stopping(usize),
    /// Until nothing happens any more.
    Resting,
}

/// How far a step is.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Progress {
    /// How often its phase was seen.
    pub(super) seen: u64,
    /// After how many events it was taken.
    pub(super) taken: Option<u64>,
}

pub(super) struct Life<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) effort: Effort,
    pub(super) watch: &'a mut dyn Watch,
    /// Taken out only while it is remade.
    pub(super) lab: Option<Lab>,
    pub(super) op: usize,
    pub(super) pause: Option<Pause>,
    pub(super) progress: Vec<Progress>,
    pub(super) report: Report,
    pub(super) told: Vec<String>,
    /// When something was last told, and after how many events.
    pub(super) at: (Instant, u64),
    /// The copy whose power was cut, if it ends badly.
    pub(super) crash: Option<CrashPoint>,
    pub(super) snapshots: Vec<(DeviceId, super::Snapshot)>,
    pub(super) quiet_since: Option<Instant>,
    /// What a fault would strike now.
    pub(super) situation: Situation,
    pub(super) seen: Seen,
    /// What power cuts left on disks, who was in doubt then, and whether stopped disks were back: each is tried once.
    pub(super) left: BTreeSet<(u64, u64, bool)>,
}

/// Lines of its story a finding carries.
const TOLD_MAX: usize = 40;
/// After so many events the columns of all rows are compared, not only of those written to.
const CHECK_ALL: u64 = 256;
/// Virtual time in which everything must be well again, when faults have stopped.
const LIVENESS: Duration = Duration::from_secs(120);
/// What has been quiet for so long is at rest: the array's own timers are shorter.
const QUIET: Duration = Duration::from_secs(12);

impl<'a> Life<'a> {
    fn new(scenario: &'a Scenario, effort: Effort, watch: &'a mut dyn Watch) -> Life<'a> {
        let model = scenario.disks.model(&scenario.array);
        let mut lab = Lab::reached(scenario.array, model, scenario.paths, scenario.seed);
        if scenario.mapped {
            lab.bank_mut().lend_windows();
        }
        lab.faults_mut().keep_strikes();
        Life {
            scenario,
            effort,
            watch,
            lab: Some(lab),
            op: 0,
            pause: None,
            progress: vec![Progress::default(); scenario.steps.len()],
            report: Report::default(),
            told: Vec::new(),
            at: (Instant::START, 0),
            crash: None,
            snapshots: Vec::new(),
            quiet_since: None,
            situation: Situation::default(),
            seen: Seen::default(),
            left: BTreeSet::new(),
        }
    }

    pub(super) fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("a lab is gone only while it is remade")
    }

    pub(super) fn lab_mut(&mut self) -> &mut Lab {
        self.lab.as_mut().expect("a lab is gone only while it is remade")
    }

    fn live(&mut self) -> Result<(), End> {
        loop {
            self.take_steps()?;
            self.go_on()?;
            self.submit();
            if self.is_crash_point()? {
                return Ok(());
            }
            if self.event()? && !self.is_at_rest() {
                continue;
            }
            match self.pause {
                Some(Pause::Resting) => {
                    self.pause = None;
                    self.lab_mut().trust_what_agrees();
                }
                Some(Pause::Draining(_)) if self.lab().world.inflight() == 0 => {}
                Some(Pause::Stopping(_)) if self.lab().array().is_stopped() => {}
                Some(_) => return Err(Failed::Endless.into()),
                None if self.lab().world.inflight() > 0 => return Err(Failed::Endless.into()),
                None if self.op < self.scenario.clients.ops.len() => {}
                None => break,
            }
        }
        self.settle()
    }

    pub(super) fn tell(&mut self, what: String) {
        if let Some(lab) = &self.lab {
            self.at = (lab.world.now(), lab.world.events());
        }
        self.watch.told(self.at.0, self.at.1, &what);
        self.note(what);
    }

    /// Remembers what happened lately.
    pub(super) fn note(&mut self, what: String) {
        if self.told.len() >= TOLD_MAX {
            self.told.remove(0);
        }
        self.told.push(what);
    }

    // ---- clients and events ----

    fn submit(&mut self) {
        if self.pause.is_some() {
            return;
        }
        while let Some(op) = self.scenario.clients.ops.get(self.op).copied()
            && self.lab().world.inflight() < self.scenario.clients.depth
            && !self.is_step_waiting_for_op()
        {
            self.note(format!("op {}: {op}", self.op));
            self.op += 1;
            let lab = self.lab.as_mut().expect("a lab is gone only while it is remade");
            let id = lab.world.submit(op);
            self.watch.submitted(lab.world.now(), lab.world.events(), id, op);
        }
    }

    /// Whether a step is to be taken before the next operation: it goes first.
    fn is_step_waiting_for_op(&self) -> bool {
        let steps = self.scenario.steps.iter().zip(&self.progress);
        steps.into_iter().any(|(step, progress)| progress.taken.is_none() && step.when == When::Op(self.op))
    }

    /// One event. `false`: nothing will happen by itself.
    fn event(&mut self) -> Result<bool, End> {
        if self.lab().world.events() >= self.effort.events_max {
            return Err(End::Budget);
        }
        let lab = self.lab.as_mut().expect("a lab is gone only while it is remade");
        // Of what was submitted since the last event, too: that it cannot be had may be over with the next one.
        lab.note_losses();
        self.situation.take(lab.array());
        let stepped = lab.world.step();
        self.seen.count(&mut self.report.coverage, &self.situation, lab.array());
        for strike in lab.faults_mut().take_strikes() {
            if !matches!(strike.kind, FaultKind::Latency(_)) {
                self.tell(strike_words(&strike));
            }
        }
        let more = match stepped {
            Ok(more) => more,
            Err(failure) => {
                self.watch.look(self.lab.as_ref().expect("it was just stepped"));
                return Err(failure.into());
            }
        };
        let lab = self.lab_mut();
        lab.array().check_invariants();
        let paths = lab.check_paths();
        for (side, unit, change) in self.lab_mut().drain_path_changes() {
            self.tell(change_words(side, unit, change));
        }
        paths?;
        let lab = self.lab_mut();
        lab.check_written()?;
        let lab = self.lab();
        if lab.world.events().is_multiple_of(CHECK_ALL) {
            lab.check()?;
        }
        let budgeted = self.scenario.regime == Regime::Budgeted && self.report.promise == Promise::Detected;
        if budgeted && lab.array().is_failed() && lab.shape().level != Level::Raid0 {
            return Err(Failed::ArrayFailed.into());
        }
        let lab = self.lab.as_ref().expect("it was just looked at");
        self.watch.look(lab);
        for event in self.lab_mut().array_mut().drain_events() {
            self.report.recoveries += u64::from(matches!(event, Event::RebuildStarted(_)));
            self.tell(event_words(event));
        }
        Ok(more)
    }

    /// Whether the life ends here, after cutting the power of copies where it is to be cut.
    fn is_crash_point(&mut self) -> Result<bool, End> {
        let (event, seed) = (self.lab().world.events(), self.scenario.seed);
        let point = match (self.scenario.crash, self.effort.cuts) {
            (Some(point), _) if point.event == event => point,
            (None, Cuts::Every(every)) if event % every == Rng::new(seed, 101).below(every) => {
                CrashPoint::drawn(seed, event)
            }
            (Some(_), _) | (None, Cuts::None | Cuts::Every(_)) => return Ok(false),
            (None, Cuts::Like(_)) if self.op < self.scenario.clients.ops.len() => return Ok(false),
            (None, Cuts::Like(point)) => CrashPoint { event, ..point },
            (None, Cuts::All(survivors)) => return self.cut_all(survivors).map(|()| false),
        };
        self.cut_copy(point)?;
        Ok(self.scenario.crash.is_some())
    }

    /// Cuts the power of copies in every way.
    fn cut_all(&mut self, survivors: Survivors) -> Result<(), End> {
        let Report { idle_steps, held_back, .. } = self.report;
        let waits = self.op < self.scenario.clients.ops.len()
            || self.progress.iter().any(|progress| progress.taken.is_none())
            // What has come to nothing leaves a life that is there without it.
            || idle_steps + held_back > 0;
        if waits {
            return Ok(());
        }
        let (lab, seed) = (self.lab(), self.scenario.seed);
        let event = lab.world.events();
        let has_stopped = lab.disks().iter().any(|disk| !lab.bank().is_online(*disk));
        let Survivors { ways_max, drawn, twice } = survivors;
        let ways = lab.bank().survivors(ways_max, drawn, &mut Rng::new(seed, 3 << 32 | event));
        let backs = if has_stopped { &[false, true][..] } else { &[false] };
        let doubts = lab.doubts();
        for ((way, left), back) in ways.into_iter().flat_map(|way| backs.iter().map(move |back| (way, *back))) {
            if !self.left.insert((left, doubts, back)) {
                continue;
            }
            let once = CrashPoint {
                event,
                loss: CacheLoss::PerSector,
                survivors: Some(way),
                back,
                then: Aftermath::Recover,
                again: None,
                choose: event,
            };
            self.cut_copy(once)?;
            for loss in [CacheLoss::DropAll, CacheLoss::KeepAll, CacheLoss::PerSector].iter().filter(|_| twice) {
                for events in 0..EVENTS_MAX {
                    let again = Again { events, loss: *loss };
                    if self.cut_copy(CrashPoint { again: Some(again), ..once })?.late > 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Cuts the power of a copy, and sees what comes of it.
    fn cut_copy(&mut self, point: CrashPoint) -> Result<Tally, End> {
        // A scenario that ends at its crash point audits nothing else.
        self.crash = Some(point);
        let length = self.told.len();
        let lab = self.lab().clone();
        let (promised, regime) = (lab.vouches_for_cut(), self.scenario.regime);
        count_cut(&mut self.report.coverage, &lab, point.loss);
        self.watch.enter(Copied::PowerCut);
        let mut onlooker = Onlooker { told: &mut self.told, watch: self.watch };
        let result = crash::crash(lab, &point, regime, &mut onlooker);
        let tally = match result {
            Ok(tally) => {
                self.report.coverage.marks(tally.marks);
                self.report.trace.note(tally.trace.0);
                self.report.tally += tally;
                tally
            }
            // A copy that lies proves nothing; the life goes on.
            Err(failed) if !promised && !matches!(failed, Failed::Panicked(_)) => {
                self.report.promise = Promise::None;
                Tally { late: 1, ..Tally::default() }
            }
            Err(failed) => return Err(failed.into()),
        };
        self.watch.leave();
        self.told.truncate(length);
        self.crash = None;
        Ok(tally)
    }

    /// Whether nothing is under way and nothing has been for a while: what still ticks will tick for ever.
    fn is_at_rest(&mut self) -> bool {
        let (lab, pause) = (self.lab(), self.pause);
        let waits = pause == Some(Pause::Resting) || (pause.is_none() && self.op == self.scenario.clients.ops.len());
        let quiet = waits && lab.world.inflight() == 0 && lab.array().is_quiet() && !lab.array().is_syncing();
        let now = lab.world.now();
        if !quiet {
            self.quiet_since = None;
            return false;
        }
        now.since(*self.quiet_since.get_or_insert(now)) > QUIET
    }

    // ---- the end ----

    /// Faults stop; then all must be well within bounded time.
    fn settle(&mut self) -> Result<(), End> {
        self.mend();
        self.tell("faults have stopped".to_owned());
        self.lab_mut().array_mut().set_sync_options(SyncOptions::UNLIMITED);
        if self.lab().array().is_failed() {
            let mut off =
                self.lab.take().expect("it is there").cut_power(CacheLoss::KeepAll, false, &mut Rng::new(0, 0));
            off.bring_all_back();
            let mut tally = Tally::default();
            self.lab = power_on(off, self.scenario.regime, &mut tally)?.ok();
            self.report.tally += tally;
            let words = assembled_words(self.lab.as_ref());
            self.tell(words);
            if self.lab.is_none() {
                return Ok(());
            }
        }
        let begun = self.lab().world.now();
        self.pause = Some(Pause::Resting);
        // What was at rest while paths were lost is looked at again when they are back.
        self.quiet_since = None;
        loop {
            if self.is_crash_point()? {
                return Ok(());
            }
            let lab = self.lab.as_mut().expect("it is there");
            lab.check_paths()?;
            let more = Onlooker { told: &mut self.told, watch: self.watch }.step(lab)?;
            if !more || self.is_at_rest() {
                break;
            }
            self.lab().array().check_invariants();
            if self.lab().world.now().since(begun) > LIVENESS {
                return Err(Failed::Endless.into());
            }
        }
        let lab = self.lab.as_mut().expect("it is there");
        let onlooker = &mut Onlooker { told: &mut self.told, watch: self.watch };
        onlooker.tell(lab, "everything is read and checked".to_owned());
        let views = audit(lab, self.effort.views, &mut Rng::new(self.scenario.seed, 103), onlooker)?;
        self.report.tally.views += views;
        Ok(())
    }

    fn report(&self) -> Report {
        let mut report = self.report.clone();
        report.never = self.progress.iter().filter(|progress| progress.taken.is_none()).count() as u64;
        report.ops = self.op as u64;
        self.seen.tell_visits(&mut report.coverage);
        if let Some(lab) = &self.lab {
            report.events = lab.world.events();
            report.ios = lab.bank().io_count();
            report.time = lab.world.now().since(Instant::START);
            report.trace.note(lab.bank().trace().0);
            report.coverage.marks(lab.bank().marks());
        }
        report
    }

    fn finding(&mut self, failed: Failed) -> Finding {
        let mut scenario = self.scenario.clone();
        scenario.crash = self.crash.or(scenario.crash);
        scenario.clients.ops.truncate(self.op);
        let event = self.lab.as_ref().map_or(0, |lab| lab.world.events());
        Finding { scenario, event, failed, told: std::mem::take(&mut self.told) }
    }
}
