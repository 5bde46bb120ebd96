//! A series: several subjects through the same workloads, side by side.
//!
//! Load from outside, heat and write-back drift over minutes. Subjects are therefore interleaved, A B
//! C A B C: every repetition visits all workloads, and for each workload all subjects one after the
//! other, beginning with another one each time. Medians are taken over repetitions, ratios to the
//! raw file within a repetition.
//!
//! Everything is bounded by time, not by work. When filling the subjects took long, the measured
//! times shrink; when time is up nevertheless, the series ends where it is and says so.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::{Cell, Latency, Rebuild, Repetition, Spread, State, SubjectFacts};
use super::runner::{new_histogram, per_second};
use super::{
    Budget, Clock, Cost, Disturbance, Driven, Meter, Mix, Offsets, PayloadPool, Shape, Workload, fill, run_cell,
};
use crate::block::{Instant, IoError, Sectors};

/// What is compared: an array, or the raw file.
pub trait Subject: Driven {
    /// A short name, such as `RAID5`; different for each subject of a series.
    fn name(&self) -> String;

    /// What it is made of, in a few words: `4 disks, 64K chunk, left-symmetric`.
    fn description(&self) -> String;

    /// How it lays data over its members.
    fn shape(&self) -> Shape;

    /// What its members were given so far; `None` if nobody counts.
    fn traffic(&self) -> Option<Traffic>;

    /// Fails one member. Called only on subjects that tolerate it, and only while none is missing.
    ///
    /// # Errors
    /// What kept the member from being failed; the series ends.
    fn degrade(&mut self) -> io::Result<()>;

    /// Gives the array a new member and recovers it, as fast as it goes, until done, `longest` has
    /// passed or `stop` is set. Called only after `degrade`.
    ///
    /// # Errors
    /// What kept the array from recovering; the series ends.
    fn recover(&mut self, longest: Duration, stop: &AtomicBool) -> io::Result<Recovery>;
}

/// Write requests and bytes that members were given, metadata included.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Requests, or stores where members are written through windows.
    pub writes: u64,
    /// Bytes.
    pub bytes_written: u64,
}

/// A recovery, or the part of one that time allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// Written to the new member.
    pub bytes: u64,
    /// How long that took.
    pub elapsed: Duration,
    /// Whether the array is whole again.
    pub complete: bool,
}

/// What a series does, and in what time.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// With all members in sync.
    pub workloads: Vec<Workload>,
    /// With one member missing, on subjects that bear it; may be empty.
    pub degraded: Vec<Workload>,
    /// Whether to recover.
    pub recovery: bool,
    /// Repetitions of everything.
    pub reps: u32,
    /// Of each repetition, not measured.
    pub warmup: Duration,
    /// Of each repetition, measured.
    pub measure: Duration,
    /// The most time one subject is filled with data.
    pub fill_limit: Duration,
    /// The most time one recovery is given.
    pub recovery_limit: Duration,
    /// When the series ends, done or not.
    pub limit: Duration,
    /// Chooses offsets and data.
    pub seed: u64,
}

impl Plan {
    /// The default workloads, degraded reads and recovery, in 82 seconds at most.
    pub fn defaults(seed: u64) -> Plan {
        Plan {
            workloads: Workload::defaults(),
            degraded: Workload::degraded_defaults(),
            recovery: true,
            reps: 5,
            warmup: Duration::from_millis(20),
            measure: Duration::from_millis(180),
            fill_limit: Duration::from_millis(1500),
            recovery_limit: Duration::from_millis(400),
            limit: Duration::from_secs(82),
            seed,
        }
    }

    /// The longest a series over subjects of these shapes takes, if that is below the limit.
    pub fn estimate(&self, shapes: &[Shape]) -> Duration {
        let cast = Cast::of(shapes);
        let fill = self.fill_limit * shapes.len() as u32;
        let degraded = self.time_of_cells(&self.degraded_cells(&cast));
        let all = fill + self.time_of_cells(&self.optimal_cells(&cast)) + degraded + self.time_of_recoveries(&cast);
        all.min(self.limit)
    }

    fn optimal_cells(&self, cast: &Cast) -> Vec<Who> {
        Self::with_yardsticks(&self.workloads, &cast.everyone, cast)
    }

    fn degraded_cells(&self, cast: &Cast) -> Vec<Who> {
        let who = [&cast.raw[..], &cast.redundant].concat();
        Self::with_yardsticks(if cast.redundant.is_empty() { &[] } else { &self.degraded }, &who, cast)
    }

    /// `workloads` for all of `who`, and for the raw file what else theory needs to know its read and
    /// write times for each of them.
    fn with_yardsticks(workloads: &[Workload], who: &[usize], cast: &Cast) -> Vec<Who> {
        let mut cells: Vec<Who> = workloads.iter().map(|workload| (*workload, who.to_vec())).collect();
        for workload in workloads {
            let both = [workload.pure(Mix::Read), workload.pure(Mix::Write)];
            for pure in &both[..if workload.mix == Mix::Read { 1 } else { 2 }] {
                if cells.iter().all(|(known, _)| known != pure) && !cast.raw.is_empty() {
                    cells.push((*pure, cast.raw.clone()));
                }
            }
        }
        cells
    }

    fn time_of_cells(&self, cells: &[Who]) -> Duration {
        let count: usize = cells.iter().map(|(_, who)| who.len()).sum();
        (self.warmup + self.measure) * count as u32 * self.reps
    }

    fn time_of_recoveries(&self, cast: &Cast) -> Duration {
        if !self.recovery || cast.redundant.is_empty() {
            return Duration::ZERO;
        }
        let yardsticks = (self.warmup + self.measure) * (RECOVERY_YARDSTICKS.len() * cast.raw.len()) as u32;
        (self.recovery_limit * cast.redundant.len() as u32 + yardsticks) * self.reps
    }
}

/// A workload, and the subjects it is for.
type Who = (Workload, Vec<usize>);

/// What tells the cost of a recovery: it reads and writes large blocks one after the other.
const RECOVERY_YARDSTICKS: [Workload; 2] = [Workload::sequential(Mix::Read), Workload::sequential(Mix::Write)];

/// Subjects by what can be asked of them.
struct Cast {
    everyone: Vec<usize>,
    raw: Vec<usize>,
    redundant: Vec<usize>,
}

impl Cast {
    fn of(shapes: &[Shape]) -> Cast {
        let which = |is: fn(Shape) -> bool| (0..shapes.len()).filter(|&at| is(shapes[at])).collect();
        Cast {
            everyone: (0..shapes.len()).collect(),
            raw: which(|shape| shape == Shape::Single),
            redundant: which(|shape| shape.failures_tolerated() > 0),
        }
    }
}

/// Where a series is.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// What comes next: `RAID5 rand-read-4K-q1, 2 of 5`.
    pub what: String,
    /// Share of the planned time that lies behind, 0 to 1.
    pub done: f64,
}

/// Why a series could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Writing the first data failed.
    #[error("{subject} could not be filled with data: {error}")]
    Fill {
        /// Its name.
        subject: String,
        /// What its write gave.
        error: IoError,
    },
    /// A member could not be failed.
    #[error("{subject} could not be degraded: {error}")]
    Degrade {
        /// Its name.
        subject: String,
        /// Why.
        error: io::Error,
    },
    /// A member could not be recovered.
    #[error("{subject} could not be recovered: {error}")]
    Recover {
        /// Its name.
        subject: String,
        /// Why.
        error: io::Error,
    },
}

/// What a series found: the part of a report that does not say where and by whom.
#[derive(Clone, PartialEq, Debug)]
pub struct Findings {
    /// The subjects in the order given.
    pub subjects: Vec<SubjectFacts>,
    /// One for each subject, state and workload that was run.
    pub cells: Vec<Cell>,
    /// One for each subject that was recovered.
    pub rebuilds: Vec<Rebuild>,
    /// Why something is missing or shorter than planned.
    pub partial: Vec<String>,
    /// How long it all took.
    pub elapsed: Duration,
}

/// One repetition of one cell.
struct Run {
    requests: u64,
    bytes: u64,
    elapsed: Duration,
    disturbed: Vec<Disturbance>,
}

impl Run {
    fn iops(&self) -> f64 {
        per_second(self.requests, self.elapsed)
    }

    fn mb_per_second(&self) -> f64 {
        per_second(self.bytes, self.elapsed) / 1e6
    }
}

/// All repetitions of one cell.
struct Runs {
    subject: usize,
    state: State,
    workload: Workload,
    runs: Vec<Run>,
    latency: Histogram<u64>,
    errors: u64,
    first_error: Option<IoError>,
    /// Of all repetitions; `None` if nobody counts.
    traffic: Option<Traffic>,
    writes_issued: u64,
}

/// A series under way.
pub struct Series<'a> {
    plan: Plan,
    clock: &'a dyn Clock,
    stop: &'a AtomicBool,
    watch: &'a mut dyn FnMut(&Step),
    meter: Meter,
    pool: PayloadPool,
    began: Instant,
    /// Planned time that lies behind, and all of it.
    planned: (Duration, Duration),
    cells: Vec<Runs>,
    rebuilds: Vec<(usize, Vec<Run>)>,
    partial: Vec<String>,
}

impl<'a> Series<'a> {
    /// A series that tells `watch` of every step and ends early, with what it has, when `stop` is set.
    pub fn new(plan: Plan, clock: &'a dyn Clock, stop: &'a AtomicBool, watch: &'a mut dyn FnMut(&Step)) -> Series<'a> {
        let longest = plan.workloads.iter().chain(&plan.degraded).map(|w| w.block.bytes()).max().unwrap_or(0);
        let pool = PayloadPool::new((longest as usize).max(1 << 20), plan.seed);
        Series {
            pool,
            clock,
            stop,
            watch,
            meter: Meter::new(),
            began: clock.now(),
            planned: (Duration::ZERO, Duration::ZERO),
            cells: Vec::new(),
            rebuilds: Vec::new(),
            partial: Vec::new(),
            plan,
        }
    }

    /// Fills the subjects, runs the workloads, degrades, recovers.
    ///
    /// # Errors
    /// If a subject cannot be filled, degraded or recovered. Requests that fail while measured are
    /// counted in their cell.
    pub fn run(mut self, subjects: &mut [&mut dyn Subject]) -> Result<Findings, BenchError> {
        let shapes: Vec<Shape> = subjects.iter().map(|subject| subject.shape()).collect();
        let cast = Cast::of(&shapes);
        self.planned.1 = self.plan.estimate(&shapes);
        let (optimal, degraded) = (self.plan.optimal_cells(&cast), self.plan.degraded_cells(&cast));
        let until_recovery = self.plan.limit.saturating_sub(self.plan.time_of_recoveries(&cast));
        let until_degraded = until_recovery.saturating_sub(self.plan.time_of_cells(&degraded));

        let spans = self.fill(subjects)?;
        self.measure(subjects, &spans, State::Optimal, &optimal, until_degraded);
        if !self.stopped() && !degraded.is_empty() {
            for &at in &cast.redundant {
                degrade(subjects[at])?;
            }
            self.measure(subjects, &spans, State::Degraded, &degraded, until_recovery);
        }
        if !self.stopped() && self.plan.recovery {
            self.recover(subjects, &spans, &cast, !degraded.is_empty())?;
        }
        if self.stopped() {
            self.partial.push("interrupted: what had been measured until then".to_owned());
        }
        Ok(self.findings(subjects, &spans))
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().since(self.began)
    }

    fn step(&mut self, what: String, planned: Duration) {
        let done = self.planned.0.as_secs_f64() / self.planned.1.as_secs_f64().max(1e-9);
        (self.watch)(&Step { what, done: done.min(1.0) });
        self.planned.0 += planned;
    }

    /// Writes random data over every subject; gives back how much of each holds some.
    fn fill(&mut self, subjects: &mut [&mut dyn Subject]) -> Result<Vec<Sectors>, BenchError> {
        let mut spans = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let name = subject.name();
            self.step(format!("{name}: writing random data"), self.plan.fill_limit);
            let filled = fill(&mut **subject, &mut self.pool, self.plan.fill_limit, self.clock, self.stop)
                .map_err(|error| BenchError::Fill { subject: name.clone(), error })?;
            let device = subject.device();
            let capacity = subject.bank().limits(device).capacity;
            if filled.bytes() + (1 << 20) <= capacity.bytes() && !self.stopped() {
                let percent = filled.0 * 100 / capacity.0;
                self.partial.push(format!("{name}: filled, and measured, is only the first {percent} % of it"));
            }
            spans.push(filled);
        }
        Ok(spans)
    }

    /// All repetitions of `cells`, interleaved, ending at `until` on the clock of the series.
    fn measure(
        &mut self,
        subjects: &mut [&mut dyn Subject],
        spans: &[Sectors],
        state: State,
        cells: &[Who],
        until: Duration,
    ) {
        let count: usize = cells.iter().map(|(_, who)| who.len()).sum();
        let left = until.saturating_sub(self.elapsed());
        let each = left / (count as u32 * self.plan.reps).max(1);
        let time = Budget::time(self.plan.warmup, self.plan.measure);
        let shorter = Budget::time(each / 10, each - each / 10);
        let budget = if each < self.plan.warmup + self.plan.measure { shorter } else { time };
        for rep in 0..self.plan.reps {
            for (workload, who) in cells {
                for turn in 0..who.len() {
                    let at = who[(turn + rep as usize) % who.len()];
                    if self.stopped() {
                        return;
                    }
                    if self.elapsed() + budget.warmup + budget.measure > until {
                        let reps = self.plan.reps;
                        self.partial.push(format!("{state}: time was up in repetition {} of {reps}", rep + 1));
                        return;
                    }
                    if spans[at] < workload.block {
                        if rep == 0 {
                            self.partial.push(format!("{}: no room for {workload}", subjects[at].name()));
                        }
                        continue;
                    }
                    let what = format!("{} {workload}, {} of {}", subjects[at].name(), rep + 1, self.plan.reps);
                    self.step(what, self.plan.warmup + self.plan.measure);
                    self.measure_once(subjects[at], at, spans[at], state, *workload, rep, budget);
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a cell has that many coordinates")]
    fn measure_once(
        &mut self,
        subject: &mut dyn Subject,
        at: usize,
        span: Sectors,
        state: State,
        workload: Workload,
        rep: u32,
        budget: Budget,
    ) {
        // The same offsets for every subject of the same size.
        let offsets = Offsets::new(workload, span, self.plan.seed.wrapping_add(u64::from(rep)));
        let traffic_before = subject.traffic();
        let before = self.meter.snapshot(self.clock);
        let measured = run_cell(subject, offsets, &mut self.pool, budget, self.clock, self.stop);
        let after = self.meter.snapshot(self.clock);
        if self.stopped() {
            return;
        }
        let traffic = traffic_before.zip(subject.traffic()).map(|(before, after)| after.since(before));
        let known = |runs: &Runs| (runs.subject, runs.state, runs.workload) == (at, state, workload);
        let index = self.cells.iter().position(known).unwrap_or_else(|| {
            self.cells.push(Runs {
                subject: at,
                state,
                workload,
                runs: Vec::new(),
                latency: new_histogram(),
                errors: 0,
                first_error: None,
                traffic: Some(Traffic::default()),
                writes_issued: 0,
            });
            self.cells.len() - 1
        });
        let runs = &mut self.cells[index];
        runs.latency.add(&measured.latency).expect("histograms of one kind");
        runs.errors += measured.errors;
        runs.first_error = runs.first_error.or(measured.first_error);
        runs.traffic = runs.traffic.zip(traffic).map(|(sum, new)| sum.plus(new));
        runs.writes_issued += measured.writes_issued;
        runs.runs.push(Run {
            requests: measured.requests(),
            bytes: measured.bytes,
            elapsed: measured.elapsed,
            disturbed: self.meter.between(&before, &after),
        });
    }

    /// Recovers everyone in turn, the raw file's sequential reads and writes between; `missing` says
    /// that members are missing already.
    fn recover(
        &mut self,
        subjects: &mut [&mut dyn Subject],
        spans: &[Sectors],
        cast: &Cast,
        mut missing: bool,
    ) -> Result<(), BenchError> {
        let mut given_up = vec![false; subjects.len()];
        let budget = Budget::time(self.plan.warmup, self.plan.measure);
        for rep in 0..self.plan.reps {
            for (workload, &at) in RECOVERY_YARDSTICKS.iter().flat_map(|w| cast.raw.iter().map(move |at| (w, at))) {
                let late = self.elapsed() + budget.warmup + budget.measure > self.plan.limit;
                if cast.redundant.is_empty() || late || self.stopped() || spans[at] < workload.block {
                    continue;
                }
                let what = format!("{} {workload}, {} of {}", subjects[at].name(), rep + 1, self.plan.reps);
                self.step(what, self.plan.warmup + self.plan.measure);
                self.measure_once(subjects[at], at, spans[at], State::Recovering, *workload, rep, budget);
            }
            for &at in &cast.redundant {
                let left = self.plan.limit.saturating_sub(self.elapsed());
                if self.stopped() {
                    return Ok(());
                }
                if left.is_zero() {
                    self.partial.push(format!("recovery: time was up in repetition {} of {}", rep + 1, self.plan.reps));
                    return Ok(());
                }
                if given_up[at] {
                    continue;
                }
                let subject = &mut *subjects[at];
                let name = subject.name();
                self.step(format!("{name} recovery, {} of {}", rep + 1, self.plan.reps), self.plan.recovery_limit);
                if !missing {
                    degrade(subject)?;
                }
                let before = self.meter.snapshot(self.clock);
                let recovery = subject
                    .recover(left.min(self.plan.recovery_limit), self.stop)
                    .map_err(|error| BenchError::Recover { subject: name, error })?;
                let after = self.meter.snapshot(self.clock);
                // One that was cut short has a rate too, but the array is still degraded.
                given_up[at] = !recovery.complete;
                let index = self.rebuilds.iter().position(|(known, _)| *known == at).unwrap_or_else(|| {
                    self.rebuilds.push((at, Vec::new()));
                    self.rebuilds.len() - 1
                });
                self.rebuilds[index].1.push(Run {
                    requests: 0,
                    bytes: recovery.bytes,
                    elapsed: recovery.elapsed,
                    disturbed: self.meter.between(&before, &after),
                });
            }
            missing = false;
        }
        Ok(())
    }

    fn findings(self, subjects: &mut [&mut dyn Subject], spans: &[Sectors]) -> Findings {
        let facts: Vec<SubjectFacts> = subjects
            .iter_mut()
            .zip(spans)
            .map(|(subject, span)| {
                let device = subject.device();
                SubjectFacts {
                    name: subject.name(),
                    description: subject.description(),
                    shape: subject.shape(),
                    usable_bytes: subject.bank().limits(device).capacity.bytes(),
                    failures_tolerated: subject.shape().failures_tolerated(),
                    measured_bytes: span.bytes(),
                }
            })
            .collect();
        let yardstick =
            Yardstick { raw: facts.iter().position(|facts| facts.shape == Shape::Single), cells: &self.cells };
        let cells = self.cells.iter().map(|runs| cell(runs, &facts[runs.subject], &yardstick)).collect();
        let rebuilds =
            self.rebuilds.iter().map(|(subject, runs)| rebuild(runs, &facts[*subject], &yardstick)).collect();
        let elapsed = self.elapsed();
        Findings { subjects: facts, cells, rebuilds, partial: self.partial, elapsed }
    }
}

impl Traffic {
    fn since(self, earlier: Traffic) -> Traffic {
        Traffic {
            writes: self.writes.saturating_sub(earlier.writes),
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
        }
    }

    fn plus(self, more: Traffic) -> Traffic {
        Traffic { writes: self.writes + more.writes, bytes_written: self.bytes_written + more.bytes_written }
    }
}

fn degrade(subject: &mut dyn Subject) -> Result<(), BenchError> {
    subject.degrade().map_err(|error| BenchError::Degrade { subject: subject.name(), error })
}

/// The raw file's cells.
struct Yardstick<'a> {
    raw: Option<usize>,
    cells: &'a [Runs],
}

impl Yardstick<'_> {
    /// The rates the raw file showed for `workload` in the repetitions of `state`.
    fn rates(&self, state: State, workload: Workload, rate: impl Fn(&Run) -> f64) -> Option<Vec<f64>> {
        let raw = self.raw?;
        let cell = self.cells.iter().find(|c| (c.subject, c.state, c.workload) == (raw, state, workload))?;
        Some(cell.runs.iter().map(rate).collect())
    }

    /// The rate theory allows at `cost`, in each repetition; where reads or writes do not occur in
    /// `cost`, theirs need not have been measured.
    fn ceilings(&self, state: State, workload: Workload, cost: Cost, rate: impl Fn(&Run) -> f64) -> Option<Vec<f64>> {
        let reads = self.rates(state, workload.pure(Mix::Read), &rate).filter(|_| cost.reads > 0.0);
        let writes = self.rates(state, workload.pure(Mix::Write), &rate).filter(|_| cost.writes > 0.0);
        if (reads.is_none() && cost.reads > 0.0) || (writes.is_none() && cost.writes > 0.0) {
            return None;
        }
        let reps = reads.iter().chain(&writes).map(Vec::len).min()?;
        let time = |rates: &Option<Vec<f64>>, rep: usize| rates.as_ref().map_or(0.0, |rates| 1.0 / rates[rep]);
        Some((0..reps).map(|rep| 1.0 / cost.time(time(&reads, rep), time(&writes, rep))).collect())
    }
}

fn cell(runs: &Runs, facts: &SubjectFacts, yardstick: &Yardstick<'_>) -> Cell {
    let cost = match runs.state {
        State::Degraded if facts.failures_tolerated > 0 => facts.shape.degraded_cost(&runs.workload),
        State::Optimal | State::Degraded | State::Recovering => Some(facts.shape.cost(&runs.workload)),
    };
    let ceilings = cost.and_then(|cost| yardstick.ceilings(runs.state, runs.workload, cost, Run::iops));
    let iops: Vec<f64> = runs.runs.iter().map(Run::iops).collect();
    let spread = Spread::of(&iops);
    let microseconds = |quantile: f64| runs.latency.value_at_quantile(quantile) as f64 / 1e3;
    let per_write = |count: u64| (runs.writes_issued > 0).then(|| count as f64 / runs.writes_issued as f64);
    let bytes_per_write = runs.traffic.and_then(|traffic| per_write(traffic.bytes_written));
    Cell {
        subject: facts.name.clone(),
        state: runs.state,
        workload: runs.workload,
        fio: runs.workload.fio_arguments(),
        iops: spread,
        mb_per_second: Spread::of(&runs.runs.iter().map(Run::mb_per_second).collect::<Vec<_>>()),
        latency_us: Latency {
            p50: microseconds(0.5),
            p99: microseconds(0.99),
            p99_9: microseconds(0.999),
            max: runs.latency.max() as f64 / 1e3,
        },
        errors: runs.errors,
        first_error: runs.first_error.map(|error| error.to_string()),
        member_writes_per_write: runs.traffic.and_then(|traffic| per_write(traffic.writes)),
        member_bytes_per_byte_written: bytes_per_write.map(|bytes| bytes / runs.workload.block.bytes() as f64),
        theory_cost: cost,
        theory_iops: ceilings.as_ref().map(|ceilings| Spread::of(ceilings).median),
        theory_percent: ceilings.map(|ceilings| percent(&iops, &ceilings)),
        disturbed: disturbances(&runs.runs, spread),
        repetitions: repetitions(&runs.runs),
    }
}

fn rebuild(runs: &[Run], facts: &SubjectFacts, yardstick: &Yardstick<'_>) -> Rebuild {
    let cost = facts.shape.recovery_cost();
    let ceilings =
        cost.and_then(|cost| yardstick.ceilings(State::Recovering, RECOVERY_YARDSTICKS[0], cost, Run::mb_per_second));
    let rates: Vec<f64> = runs.iter().map(Run::mb_per_second).collect();
    let spread = Spread::of(&rates);
    Rebuild {
        subject: facts.name.clone(),
        mb_per_second: spread,
        bytes: runs.iter().map(|run| run.bytes).max().unwrap_or(0),
        theory_cost: cost,
        theory_mb_per_second: ceilings.as_ref().map(|ceilings| Spread::of(ceilings).median),
        theory_percent: ceilings.map(|ceilings| percent(&rates, &ceilings)),
        disturbed: disturbances(runs, spread),
        repetitions: repetitions(runs),
    }
}

/// Shares of the ceiling, each of its own repetition's; of the median of all where time was up
/// before the raw file had its turn.
fn percent(rates: &[f64], ceilings: &[f64]) -> Spread {
    let median = Spread::of(ceilings).median;
    let share = |(rep, rate): (usize, &f64)| 100.0 * rate / ceilings.get(rep).copied().unwrap_or(median);
    Spread::of(&rates.iter().enumerate().map(share).collect::<Vec<_>>())
}

fn repetitions(runs: &[Run]) -> Vec<Repetition> {
    runs.iter()
        .map(|run| Repetition {
            requests: run.requests,
            bytes: run.bytes,
            seconds: run.elapsed.as_secs_f64(),
            disturbed: run.disturbed.clone(),
        })
        .collect()
}

/// What disturbed a cell: every cause seen in some repetition, at its worst, if half of the
/// repetitions were hit (a median bears fewer), and a large spread in any case.
fn disturbances(runs: &[Run], spread: Spread) -> Vec<Disturbance> {
    let hit = runs.iter().filter(|run| !run.disturbed.is_empty()).count();
    let seen = runs.iter().filter(|_| 2 * hit >= runs.len()).flat_map(|run| &run.disturbed);
    let mut worst = Disturbance::worst(seen);
    worst.extend(Disturbance::of_spread(spread.median, spread.min, spread.max));
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture::{Pretender, findings, hasty_plan};

    #[test]
    fn a_series_has_a_cell_for_each_subject_workload_and_state() {
        let found = findings(hasty_plan(), &AtomicBool::new(false));
        // The raw file runs beside the degraded arrays and between recoveries.
        assert_eq!(found.cells.len(), 6 * 8 + 5 * 2 + 2);
        assert_eq!(found.rebuilds.len(), 4);
        assert_eq!(found.partial, Vec::<String>::new());
        for cell in &found.cells {
            let Latency { p50, p99, p99_9, max } = cell.latency_us;
            assert!(cell.iops.median > 0.0 && cell.errors == 0 && cell.repetitions.len() == 3, "{cell:?}");
            assert!(0.0 < p50 && p50 <= p99 && p99 <= p99_9 && p99_9 <= max, "{cell:?}");
            let mb = cell.iops.median * cell.workload.block.bytes() as f64 / 1e6;
            assert!((cell.mb_per_second.median - mb).abs() < 1e-6 * mb, "{cell:?}");
            assert!(cell.theory_percent.is_some(), "{cell:?}");
        }
    }

    #[test]
    fn members_are_written_as_often_as_counted() {
        let found = findings(hasty_plan(), &AtomicBool::new(false));
        let small_write = Workload::random(Mix::Write, 1);
        let written = |subject: &str| {
            let cell = found.cells.iter().find(|c| c.subject == subject && c.workload == small_write).unwrap();
            (cell.member_writes_per_write.unwrap(), cell.member_bytes_per_byte_written.unwrap())
        };
        assert_eq!(["raw file", "RAID0", "RAID10"].map(written), [(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)]);
        assert_eq!(["RAID1", "RAID5", "RAID6"].map(written), [(4.0, 4.0), (2.0, 2.0), (3.0, 3.0)]);
        assert!(found.cells.iter().all(|c| (c.workload.mix == Mix::Read) == c.member_writes_per_write.is_none()));
    }

    #[test]
    fn the_raw_file_is_all_that_theory_allows_it() {
        let found = findings(hasty_plan(), &AtomicBool::new(false));
        let pure = |cell: &&Cell| cell.subject == "raw file" && matches!(cell.workload.mix, Mix::Read | Mix::Write);
        for cell in found.cells.iter().filter(pure) {
            let share = cell.theory_percent.unwrap();
            assert!((share.min - 100.0).abs() < 1e-9 && (share.max - 100.0).abs() < 1e-9, "{cell:?}");
        }
    }

    #[test]
    fn everyone_who_can_is_degraded_and_recovered_in_each_repetition() {
        let mut all = Pretender::all(Sectors(4 << 11));
        let mut subjects: Vec<&mut dyn Subject> = all.iter_mut().map(|one| one as &mut dyn Subject).collect();
        let (clock, stop) = (super::super::RealClock::start(), AtomicBool::new(false));
        let mut steps = Vec::new();
        let mut watch = |step: &Step| steps.push(step.clone());
        Series::new(hasty_plan(), &clock, &stop, &mut watch).run(&mut subjects).unwrap();
        assert!(all.iter().all(|one| !one.degraded));
        assert_eq!(all.iter().map(|one| one.recoveries).collect::<Vec<_>>(), [0, 0, 3, 3, 3, 3]);
        assert_eq!(steps.len(), 6 + 3 * (6 * 8 + 5 * 2 + 2 + 4));
        assert!(
            steps.is_sorted_by(|a, b| a.done <= b.done) && steps.iter().all(|step| (0.0..=1.0).contains(&step.done))
        );
        assert_eq!(steps[6].what, "raw file seq-read-1M-q4, 1 of 3");
    }

    #[test]
    fn theory_gets_its_yardsticks_even_if_nobody_asked_for_them() {
        let plan = Plan { workloads: vec![Workload::random(Mix::Write, 8)], degraded: Vec::new(), ..hasty_plan() };
        let found = findings(plan, &AtomicBool::new(false));
        let raid5: Vec<_> = found.cells.iter().filter(|cell| cell.subject == "RAID5").collect();
        assert!(raid5.len() == 1 && raid5[0].theory_percent.is_some());
        assert!(found.rebuilds.iter().all(|rebuild| rebuild.theory_percent.is_some()));
    }

    #[test]
    fn a_series_ends_in_its_time_and_says_what_is_missing() {
        let limit = Duration::from_millis(100);
        let long = Duration::from_secs(1000);
        let found = findings(Plan { measure: long, recovery: false, limit, ..hasty_plan() }, &AtomicBool::new(false));
        assert!(found.elapsed < Duration::from_secs(10), "{:?}", found.elapsed);
        let none = findings(Plan { limit: Duration::ZERO, ..hasty_plan() }, &AtomicBool::new(false));
        assert!(none.cells.is_empty() && none.partial[0].contains("time was up"), "{:?}", none.partial);
    }

    #[test]
    fn an_interrupted_series_says_so() {
        let found = findings(hasty_plan(), &AtomicBool::new(true));
        assert!(found.cells.is_empty() && found.rebuilds.is_empty());
        assert!(found.partial.iter().any(|why| why.starts_with("interrupted")));
    }

    #[test]
    fn the_default_plan_takes_less_than_its_limit() {
        let shapes: Vec<Shape> = Pretender::all(Sectors(1 << 11)).iter().map(Subject::shape).collect();
        let plan = Plan::defaults(1);
        assert!(plan.estimate(&shapes) < plan.limit, "{:?}", plan.estimate(&shapes));
        assert!(plan.limit < Duration::from_secs(90));
    }

    #[test]
    fn one_disturbed_repetition_of_three_is_borne_by_the_median() {
        let run =
            |disturbed: Vec<Disturbance>| Run { requests: 1, bytes: 1, elapsed: Duration::from_secs(1), disturbed };
        let steal = |share| vec![Disturbance::Steal { share }];
        let level = Spread { median: 1.0, min: 1.0, max: 1.0 };
        assert_eq!(disturbances(&[run(steal(0.5)), run(vec![]), run(vec![])], level), []);
        let two = [run(steal(0.1)), run(steal(0.5)), run(vec![])];
        assert_eq!(disturbances(&two, level), [Disturbance::Steal { share: 0.5 }]);
        let wide = Spread { median: 1.0, min: 0.8, max: 1.2 };
        assert_eq!(disturbances(&[run(vec![])], wide), [Disturbance::Spread { share: 0.4 }]);
    }
}
