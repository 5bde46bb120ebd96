//! A life: a scenario, lived.
//!
//! Clients do what the scenario says, steps are taken when their moment has come, and after every event the array is
//! asked for its invariants. Before some events, or all, the world is copied and the copy's power is cut (see
//! [`super::crash`]). In the end faults are mended and everything must come to rest within bounded time: recovered where
//! a spare was there, a check clean, every sector right from every view with more members lost.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::array::{Lab, PathOrder};
use super::coverage::Coverage;
use super::crash::{self, EVENTS_MAX, Onlooker, Tally, Views, audit, power_on};
use super::explain::{assembled_words, change_words, event_words, strike_words};
use super::fabrics::{Part, Side};
use super::off::Off;
use super::scenario::{Act, Aftermath, Again, CrashPoint, Moment, Regime, Scenario, Target, When};
use super::strikes::{Seen, Situation, count_act, count_cut};
use super::{CacheLoss, ClientOp, Failed, Finding, OpId, Rng, SimBank, Trace};
use crate::block::{DeviceId, Extent, Instant, Lba, Sectors};
use crate::disk::{FaultKind, FaultSpec};
use crate::fabric::emulated::Health;
use crate::raid::band::Phase;
use crate::raid::control::Event;
use crate::raid::level::Level;
use crate::raid::member::{Member, Place};
use crate::raid::set::SlotSet;
use crate::raid::sync::{Scrub, SyncAction, SyncOptions};

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

enum End {
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
enum Pause {
    /// Until their requests are answered; then this step goes on.
    Draining(usize),
    /// Until the array has stopped, for this step.
    Stopping(usize),
    /// Until nothing happens any more.
    Resting,
}

/// How far a step is.
#[derive(Clone, Copy, Default, Debug)]
struct Progress {
    /// How often its phase was seen.
    seen: u64,
    /// After how many events it was taken.
    taken: Option<u64>,
}

struct Life<'a> {
    scenario: &'a Scenario,
    effort: Effort,
    watch: &'a mut dyn Watch,
    /// Taken out only while it is remade.
    lab: Option<Lab>,
    op: usize,
    pause: Option<Pause>,
    progress: Vec<Progress>,
    report: Report,
    told: Vec<String>,
    /// When something was last told, and after how many events.
    at: (Instant, u64),
    /// The copy whose power was cut, if it ends badly.
    crash: Option<CrashPoint>,
    snapshots: Vec<(DeviceId, super::Snapshot)>,
    quiet_since: Option<Instant>,
    /// What a fault would strike now.
    situation: Situation,
    seen: Seen,
    /// What power cuts left on disks, who was in doubt then, and whether stopped disks were back: each is tried once.
    left: BTreeSet<(u64, u64, bool)>,
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

    fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("a lab is gone only while it is remade")
    }

    fn lab_mut(&mut self) -> &mut Lab {
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

    fn tell(&mut self, what: String) {
        if let Some(lab) = &self.lab {
            self.at = (lab.world.now(), lab.world.events());
        }
        self.watch.told(self.at.0, self.at.1, &what);
        self.note(what);
    }

    /// Remembers what happened lately.
    fn note(&mut self, what: String) {
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

    // ---- steps ----

    fn take_steps(&mut self) -> Result<(), End> {
        for index in 0..self.scenario.steps.len() {
            if self.progress[index].taken.is_none() && self.is_due(index) {
                self.progress[index].taken = Some(self.lab().world.events());
                self.take(index)?;
            }
        }
        Ok(())
    }

    fn is_due(&mut self, index: usize) -> bool {
        let step = &self.scenario.steps[index];
        if self.pause.is_some() && step.act.pauses_clients() {
            return false;
        }
        let lab = self.lab();
        match step.when {
            When::Op(count) => self.op >= count,
            When::Answered(count) => self.op - lab.world.inflight() >= count,
            When::Time(time) => lab.world.now() >= Instant::START + time,
            When::Io(target, count) => {
                self.device(target).is_some_and(|device| lab.bank().io_count_of(device) >= count)
            }
            When::Recovery(percent) => lab.array().sync_progress().is_some_and(|progress| {
                let runs = matches!(progress.action, SyncAction::Recover | SyncAction::Resync);
                runs && progress.done.0 * 100 >= percent * progress.total.0
            }),
            When::Phase(moment, count) => {
                let seen = u64::from(is_at(lab, moment));
                let progress = &mut self.progress[index];
                progress.seen += seen;
                progress.seen >= count
            }
            When::Event(count) => lab.world.events() >= count,
            When::After(events, id) => {
                let other = self.scenario.steps.iter().position(|step| step.id == id);
                let taken = other.and_then(|other| self.progress[other].taken);
                taken.is_some_and(|taken| lab.world.events() >= taken + events)
            }
            When::Off(_) => false,
        }
    }

    fn device(&self, target: Target) -> Option<DeviceId> {
        let members = self.lab().array().members();
        let placed = |place| members.iter().find(|member| member.place == place).map(|member| member.device);
        match target {
            Target::Disk(number) => self.lab().disks().contains(&DeviceId(number)).then_some(DeviceId(number)),
            Target::Slot(slot) => members.seats().get(usize::from(slot)).and_then(|seat| seat.member),
            Target::Filling => {
                let filling = members.iter().find(|member| {
                    matches!(member.place, Place::Replacement(_)) || (member.serves() && !member.stale.is_empty())
                });
                filling.map(|member| member.device)
            }
            Target::Spare => placed(Place::Spare),
            Target::Faulty => placed(Place::Faulty),
        }
    }

    fn take(&mut self, index: usize) -> Result<(), End> {
        let step = self.scenario.steps[index];
        match step.act {
            Act::Rest => {
                self.tell(format!("step {}: rest", step.id));
                self.pause = Some(Pause::Resting);
            }
            Act::Restart | Act::Mend => {
                self.tell(format!("step {}: {}", step.id, step.act));
                self.pause = Some(Pause::Draining(index));
            }
            Act::PowerCut(loss) => {
                self.tell(format!("step {}: {}", step.id, step.act));
                self.pause = None;
                self.cut_power(index, loss)?;
            }
            act => {
                let done = self.act(act);
                let count = match done {
                    Done::Harm => &mut self.report.faults,
                    Done::HeldBack => &mut self.report.held_back,
                    Done::Nothing => &mut self.report.idle_steps,
                    Done::Managed => &mut self.report.ops,
                };
                // Management is no operation of a client.
                *count += u64::from(done != Done::Managed);
                self.tell(format!("step {}: {act}{}", step.id, done.note()));
            }
        }
        Ok(())
    }

    fn act(&mut self, act: Act) -> Done {
        let Some(target) = act.target() else { return self.act_on_all(act) };
        let Some(device) = self.device(target) else { return Done::Nothing };
        let extent = act.extent().and_then(|extent| self.on_device(device, extent));
        if act.loses_data() && self.scenario.regime == Regime::Budgeted {
            let whole = !matches!(act, Act::Unreadable(..));
            if !self.lab().can_lose(device, if whole { None } else { extent }) {
                return Done::HeldBack;
            }
        }
        let now = self.lab().world.now();
        let lab = self.lab.as_mut().expect("a lab is gone only while it is remade");
        count_act(&mut self.report.coverage, lab, act, device);
        match act {
            Act::Fail(_) if lab.fail(device).is_ok() => Done::Harm,
            Act::Fail(_) => Done::Nothing,
            Act::Remove(_) => {
                let removed = lab.array_mut().remove(device).is_ok();
                if removed {
                    lab.unplug(device);
                }
                managed(removed)
            }
            Act::ReAdd(_) => {
                if lab.array_mut().remove(device).is_err() {
                    return Done::Nothing;
                }
                lab.bank_mut().bring_back(device);
                let back = lab.re_add(device).is_ok();
                if !back {
                    lab.unplug(device);
                }
                managed(back)
            }
            Act::Replace(_) => managed(lab.array_mut().replace(device, None).is_ok()),
            Act::Stop(_) => {
                lab.bank_mut().fail_stop(device);
                Done::Harm
            }
            Act::Return(_) => {
                lab.bank_mut().bring_back(device);
                Done::Managed
            }
            Act::Unreadable(..) => match extent {
                Some(extent) => {
                    lab.bank_mut().fail_medium(device, extent);
                    Done::Harm
                }
                None => Done::Nothing,
            },
            Act::Fault(_, kind, _, times) => {
                let spec =
                    FaultSpec { times, range: kind.takes_range().then_some(extent).flatten(), ..FaultSpec::new(kind) };
                if lab.faults_mut().arm(device, spec, now).is_err() {
                    return Done::Nothing;
                }
                if kind == FaultKind::FlushLie {
                    lab.will_lie(device);
                }
                let silent = kind.is_silent() || kind == FaultKind::FlushLie;
                self.report.promise = self.report.promise.max(if silent { Promise::Silent } else { Promise::Detected });
                Done::Harm
            }
            Act::Hang(_, timeout) => {
                lab.bank_mut().hang(device, timeout);
                Done::Harm
            }
            Act::Slow(_, factor) => {
                lab.bank_mut().slow(device, factor);
                Done::Harm
            }
            Act::LoseFlush(_, count) => {
                lab.bank_mut().fail_flushes(device, count);
                Done::Harm
            }
            Act::Fill(_) => {
                lab.bank_mut().limit_space(device);
                Done::Harm
            }
            Act::Snapshot(_) => {
                let snapshot = lab.bank().snapshot(device);
                self.snapshots.retain(|(other, _)| *other != device);
                self.snapshots.push((device, snapshot));
                Done::Managed
            }
            other => unreachable!("{other} has no target while the array runs"),
        }
    }

    /// A component of a fabric changes. Where faults know a budget, what it cuts off can be lost.
    fn change_component(&mut self, part: Part, health: Health) -> Done {
        let lab = self.lab_mut();
        if part.side == Side::Members && health != Health::Up {
            let cut_off = lab.cut_off_by(part, health);
            if !self.may_cut_off(&cut_off) {
                return Done::HeldBack;
            }
        }
        let lab = self.lab_mut();
        match (lab.set_health(part, health), health) {
            (false, _) => Done::Nothing,
            (true, Health::Up) => Done::Managed,
            (true, _) => Done::Harm,
        }
    }

    /// Somebody fails or reinstates a path, or changes the group.
    fn order_path(&mut self, side: Side, order: PathOrder, number: u16) -> Done {
        let lab = self.lab_mut();
        if (side, order) == (Side::Members, PathOrder::Fail) {
            let cut_off: Vec<DeviceId> = lab.cut_off_without(number).into_iter().collect();
            if !self.may_cut_off(&cut_off) {
                return Done::HeldBack;
            }
        }
        managed(self.lab_mut().order_path(side, number, order))
    }

    /// Whether disks may lose all their paths.
    fn may_cut_off(&mut self, disks: &[DeviceId]) -> bool {
        let budgeted = self.scenario.regime == Regime::Budgeted;
        let lab = self.lab_mut();
        let serves = |disk: &&DeviceId| lab.array().members().get(**disk).is_some_and(Member::serves);
        let lost: Vec<DeviceId> = disks.iter().filter(serves).copied().collect();
        match lost[..] {
            _ if !budgeted => true,
            [] => true,
            [device] => lab.can_lose(device, None),
            _ => false,
        }
    }

    fn act_on_all(&mut self, act: Act) -> Done {
        match act {
            Act::Component(part, health) => return self.change_component(part, health),
            Act::Path(side, order, number) => return self.order_path(side, order, number),
            _ => {}
        }
        let lab = self.lab_mut();
        let end = Lba(lab.array().geometry().capacity().0);
        match act {
            Act::Add => return managed(lab.add_disk().is_ok()),
            Act::Check => lab.array_mut().start_scrub(Scrub::Check, Lba(0)..end),
            Act::Repair { trust_data } => lab.array_mut().start_scrub(Scrub::Repair { trust_data }, Lba(0)..end),
            Act::Freeze => lab.array_mut().set_sync_options(SyncOptions { frozen: true, ..SyncOptions::UNLIMITED }),
            Act::Thaw => lab.array_mut().set_sync_options(SyncOptions::UNLIMITED),
            other => unreachable!("{other} has a target, or pauses clients"),
        }
        Done::Managed
    }

    /// Data sectors of a member, on its device.
    fn on_device(&self, device: DeviceId, extent: Extent) -> Option<Extent> {
        let member = self.lab().array().members().get(device)?;
        Some(Extent::new(member.data_offset() + Sectors(extent.start.0), extent.length))
    }

    // ---- pauses ----

    /// Goes on with what clients wait for.
    fn go_on(&mut self) -> Result<(), End> {
        match self.pause {
            Some(Pause::Draining(index)) if self.lab().world.inflight() == 0 => {
                if self.scenario.steps[index].act == Act::Mend {
                    self.mend();
                    self.pause = None;
                } else if self.lab().array().is_failed() {
                    self.pause = None;
                    self.cut_power(index, CacheLoss::KeepAll)?;
                } else {
                    self.lab_mut().array_mut().stop();
                    self.pause = Some(Pause::Stopping(index));
                }
                Ok(())
            }
            Some(Pause::Stopping(index)) if self.lab().array().is_stopped() => {
                self.pause = None;
                if self.lab().array().is_failed() {
                    return self.cut_power(index, CacheLoss::KeepAll);
                }
                self.start_again(index)
            }
            _ => Ok(()),
        }
    }

    fn mend(&mut self) {
        let lab = self.lab_mut();
        lab.faults_mut().clear();
        self.seen.forget_armed();
        let lab = self.lab_mut();
        lab.mend_fabrics();
        for disk in lab.disks().to_vec() {
            let bank = lab.bank_mut();
            bank.end_hang(disk);
            bank.slow(disk, 1);
            bank.fail_flushes(disk, 0);
            bank.unlimit_space(disk);
        }
    }

    fn start_again(&mut self, index: usize) -> Result<(), End> {
        let dark = self.has_dark_steps(index);
        let off = self.lab.take().expect("it is there").switch_off(dark).without_ghosts();
        self.switch_on(index, off)
    }

    fn cut_power(&mut self, index: usize, loss: CacheLoss) -> Result<(), End> {
        let step = &self.scenario.steps[index];
        let mut choose = Rng::new(self.scenario.seed, 2 << 32 | u64::from(step.id));
        self.report.cuts += 1;
        let lab = self.lab.take().expect("it is there");
        count_cut(&mut self.report.coverage, &lab, loss);
        for other in self.scenario.steps.iter().filter(|other| other.when == When::Off(step.id)) {
            let device = match other.act.target() {
                Some(Target::Disk(number)) => Some(DeviceId(number)),
                Some(Target::Slot(slot)) => {
                    lab.array().members().seats().get(usize::from(slot)).and_then(|seat| seat.member)
                }
                _ => None,
            };
            if let Some(device) = device {
                count_act(&mut self.report.coverage, &lab, other.act, device);
            }
        }
        if !lab.vouches_for_cut() {
            self.report.promise = Promise::None;
        }
        let dark = self.has_dark_steps(index);
        self.switch_on(index, lab.cut_power(loss, dark, &mut choose))
    }

    /// Whether something is done to disks while the power is off in this step.
    fn has_dark_steps(&self, index: usize) -> bool {
        let off = When::Off(self.scenario.steps[index].id);
        self.scenario.steps.iter().any(|step| step.when == off)
    }

    /// Does what is to be done while the power is off, and assembles what is there. Where that is too little, life goes on
    /// with a new array on the same disks.
    fn switch_on(&mut self, index: usize, mut off: Off) -> Result<(), End> {
        let id = self.scenario.steps[index].id;
        for other in 0..self.scenario.steps.len() {
            let step = self.scenario.steps[other];
            if step.when == When::Off(id) {
                self.progress[other].taken = Some(0);
                let done = self.act_in_the_dark(step.act, &mut off);
                self.report.faults += u64::from(done == Done::Harm);
                self.report.held_back += u64::from(done == Done::HeldBack);
                self.report.idle_steps += u64::from(done == Done::Nothing);
                self.tell(format!("step {}: {}{}", step.id, step.act, done.note()));
            }
        }
        let mut tally = Tally::default();
        let started = power_on(off, self.scenario.regime, &mut tally)?;
        self.report.tally += tally;
        self.tell(assembled_words(started.as_ref().ok()));
        self.lab = Some(started.unwrap_or_else(|off| {
            self.note("a new array is made of the same disks".to_owned());
            off.make_anew()
        }));
        Ok(())
    }

    fn act_in_the_dark(&mut self, act: Act, off: &mut Off) -> Done {
        let there = |target| match target {
            Target::Disk(number) => off.disks().iter().copied().find(|disk| disk.0 == number),
            Target::Slot(slot) => off.in_slot(slot),
            Target::Filling | Target::Spare | Target::Faulty => None,
        };
        let budgeted = self.scenario.regime == Regime::Budgeted;
        match act {
            Act::Swap(one, other) => match (there(one), there(other)) {
                (Some(one), Some(other)) if one != other && off.is_well(one) && off.is_well(other) => {
                    off.swap(one, other);
                    self.snapshots.retain(|(device, _)| ![one, other].contains(device));
                }
                _ => return Done::Nothing,
            },
            Act::Duplicate(target) => match there(target) {
                Some(device) => off.duplicate(device),
                None => return Done::Nothing,
            },
            Act::Split(target) => match there(target) {
                Some(device) if off.split(device) => {}
                _ => return Done::Nothing,
            },
            Act::RotSuperblock(target) => match there(target) {
                // What is older would be taken for the truth, and nobody could tell.
                Some(device) if !off.has_equals(device) => return Done::HeldBack,
                Some(device) if budgeted && !off.can_lose(device) => return Done::HeldBack,
                Some(device) => off.rot_superblock(device),
                None => return Done::Nothing,
            },
            Act::Restore(target) => {
                let Some(device) = there(target) else { return Done::Nothing };
                let Some(at) = self.snapshots.iter().position(|(other, _)| *other == device) else {
                    return Done::Nothing;
                };
                // What is older would be taken for the truth, and nobody could tell.
                if !off.has_equals(device) || budgeted && !off.can_lose(device) {
                    return Done::HeldBack;
                }
                let (_, snapshot) = self.snapshots.swap_remove(at);
                if !off.restore(device, snapshot) {
                    return Done::Nothing;
                }
            }
            other => unreachable!("{other} is not for when the power is off"),
        }
        Done::Harm
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

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Done {
    /// A disk was harmed.
    Harm,
    /// The array was told something, and took it.
    Managed,
    /// It would go beyond the budget.
    HeldBack,
    /// There was no such disk, or the array refused.
    Nothing,
}

impl Done {
    fn note(self) -> &'static str {
        match self {
            Done::Harm | Done::Managed => "",
            Done::HeldBack => " (held back: beyond the budget)",
            Done::Nothing => " (nothing to be done)",
        }
    }
}

fn managed(done: bool) -> Done {
    if done { Done::Managed } else { Done::Nothing }
}

fn is_at(lab: &Lab, moment: Moment) -> bool {
    let array = lab.array();
    let phase = |phase| array.under_way().any(|(_, other)| other == phase);
    match moment {
        Moment::Gate => phase(Phase::Gate),
        Moment::Lock => phase(Phase::Lock),
        Moment::Reading => phase(Phase::Reading) || phase(Phase::Direct),
        Moment::Writing => phase(Phase::Writing),
        Moment::Verifying => phase(Phase::Verifying),
        Moment::Recording => phase(Phase::Recording),
        Moment::Metadata => array.is_recording(),
        Moment::Flush => array.is_flushing(),
    }
}

impl Act {
    /// The disk it is done to while the array runs.
    pub fn target(self) -> Option<Target> {
        match self {
            Act::Fail(target)
            | Act::Remove(target)
            | Act::ReAdd(target)
            | Act::Replace(target)
            | Act::Stop(target)
            | Act::Return(target)
            | Act::Unreadable(target, _)
            | Act::Fault(target, ..)
            | Act::Hang(target, _)
            | Act::Slow(target, _)
            | Act::LoseFlush(target, _)
            | Act::Fill(target)
            | Act::Snapshot(target)
            | Act::Restore(target)
            | Act::Duplicate(target)
            | Act::Split(target)
            | Act::RotSuperblock(target)
            | Act::Swap(target, _) => Some(target),
            Act::Add
            | Act::Check
            | Act::Repair { .. }
            | Act::Freeze
            | Act::Thaw
            | Act::Rest
            | Act::Restart
            | Act::PowerCut(_)
            | Act::Mend
            | Act::Component(..)
            | Act::Path(..) => None,
        }
    }

    /// The data sectors it concerns.
    pub fn extent(self) -> Option<Extent> {
        match self {
            Act::Unreadable(_, extent) => Some(extent),
            Act::Fault(_, _, extent, _) => extent,
            _ => None,
        }
    }

    /// Whether data of the disk may be gone afterwards, and everybody can see that.
    fn loses_data(self) -> bool {
        match self {
            Act::Fail(_) | Act::Stop(_) | Act::Unreadable(..) | Act::Hang(..) | Act::LoseFlush(..) | Act::Fill(_) => {
                true
            }
            Act::Fault(_, kind, ..) => {
                !kind.is_silent() && !matches!(kind, FaultKind::Latency(_) | FaultKind::FlushLie)
            }
            _ => false,
        }
    }
}
