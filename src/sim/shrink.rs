//! Shrinking: from a scenario that fails to a short one that fails for the same reason.
//!
//! What a seed found has hundreds of operations of which three matter. Delta debugging (Zeller and Hildebrandt,
//! "Simplifying and Isolating Failure-Inducing Input", TSE '02) takes pieces out, large ones first, and keeps what still
//! fails. What is left is made simpler: a smaller array, shorter operations, rounder moments. Each change gives rise to
//! others, so all is tried again until nothing helps.
//!
//! Two things are peculiar to lives. A step taken out shifts the events after it, so the number of the event before
//! which the power was cut means nothing in the shorter life: the same kind of cut is tried before every event after the
//! last operation was submitted. And races are won by luck: when nothing helps any more and lives have become short, the
//! same piece is taken out under a few other seeds.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use super::fabrics::{Part, Side};
use super::life::{Cuts, Effort, Survivors, Verdict, live};
use super::scenario::{Act, Aftermath, CrashPoint, Disks, Scenario, Step, Target, When};
use super::{CacheLoss, ClientOp, Finding, Reason, Trace};
use crate::block::{Durability, Extent, Lba, Sectors};
use crate::disk::FaultKind;
use crate::fabric::emulated::Health;
use crate::raid::level::Layout;

/// What became of a finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shrunk {
    /// The shortest scenario that was found to fail for the same reason.
    pub finding: Finding,
    /// Scenarios tried.
    pub tried: u64,
    /// Operations and steps of the scenario before.
    pub before: usize,
    /// Operations and steps of the scenario now.
    pub after: usize,
    /// Nothing helps any more; else the time was up.
    pub is_minimal: bool,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sofar {
    /// Scenarios tried.
    pub tried: u64,
    /// Operations and steps that are left.
    pub length: usize,
}

/// Shrinks a finding. `go_on` is asked before each try, and says no when the time is up.
pub fn shrink(finding: &Finding, go_on: &mut dyn FnMut(Sofar) -> bool) -> Shrunk {
    shrink_by(finding, &mut fails_again(finding), go_on)
}

/// Shrinks a finding as long as `judge` finds the same in what is left; what it finds may end sooner than what it was
/// given.
pub fn shrink_by(
    finding: &Finding,
    judge: &mut dyn FnMut(&Scenario) -> Option<Finding>,
    go_on: &mut dyn FnMut(Sofar) -> bool,
) -> Shrunk {
    let before = finding.scenario.length();
    let (best, tried, seen) = (finding.clone(), 0, BTreeSet::new());
    let mut shrinker = Shrinker { best, judge, go_on, tried, seen, luck: 0, is_stopped: false };
    shrinker.run();
    let Shrinker { best, tried, is_stopped, .. } = shrinker;
    Shrunk { after: best.scenario.length(), finding: best, tried, before, is_minimal: !is_stopped }
}

/// Lives candidates: a finding, if one fails for the reason of `finding`.
pub fn fails_again(finding: &Finding) -> impl FnMut(&Scenario) -> Option<Finding> + use<> {
    let reason = finding.failed.reason();
    let events_max = 20_000 + 2 * finding.event;
    move |candidate| fails_for(candidate, &reason, events_max)
}

fn fails_for(candidate: &Scenario, reason: &Reason, events_max: u64) -> Option<Finding> {
    let lived = |scenario: &Scenario, cuts| match live(scenario, Effort { cuts, events_max, ..Effort::PLAIN }).1 {
        Verdict::Finding(finding) if finding.failed.reason() == *reason => Some(*finding),
        _ => None,
    };
    let Some(point) = candidate.crash else { return lived(candidate, Cuts::None) };
    lived(candidate, Cuts::None).or_else(|| {
        let anywhere = with(candidate, |scenario| scenario.crash = None);
        match point.survivors {
            None => lived(&anywhere, Cuts::Like(point)),
            Some(_) => lived(&anywhere, Cuts::All(Survivors { twice: point.again.is_some(), ..Survivors::FEW })),
        }
    })
}

/// So many other seeds are tried, when lives are short.
const LUCK: u64 = 6;
/// Operations and steps of a short life.
const SHORT: usize = 60;

struct Shrinker<'a> {
    best: Finding,
    judge: &'a mut dyn FnMut(&Scenario) -> Option<Finding>,
    go_on: &'a mut dyn FnMut(Sofar) -> bool,
    tried: u64,
    /// Scenarios that were tried, by the hash of their text.
    seen: BTreeSet<u64>,
    /// How many other seeds are tried for each piece taken out.
    luck: u64,
    is_stopped: bool,
}

impl Shrinker<'_> {
    fn run(&mut self) {
        loop {
            let before = self.best.scenario.clone();
            // A race that half of the operations decided is lost without them under one seed and won under another.
            let few = self.best.scenario.clients.ops.len() / 8;
            self.delete_ops(few.max(8), self.luck.max(LUCK / 2));
            self.delete_steps(self.luck);
            self.simplify(simpler_crashes);
            self.simplify(simpler_arrays);
            self.delete_ops(1, self.luck);
            self.simplify(simpler_clients);
            self.simplify(simpler_ops);
            self.simplify(simpler_steps);
            self.simplify(simpler_seeds);
            if self.is_stopped {
                return;
            }
            if self.best.scenario != before {
                continue;
            }
            if self.luck > 0 || before.length() > SHORT {
                break;
            }
            self.luck = LUCK;
        }
        self.luck = 0;
        self.simplify(numbered_steps);
    }

    /// Whether a candidate fails, too; then it is the best so far.
    fn fails(&mut self, candidate: &Scenario) -> bool {
        let mut hash = Trace::default();
        hash.note_bytes(std::iter::once(candidate.to_toml().as_bytes()));
        if candidate == &self.best.scenario || !self.seen.insert(hash.0) {
            return false;
        }
        let sofar = Sofar { tried: self.tried, length: self.best.scenario.length() };
        self.is_stopped |= !(self.go_on)(sofar);
        if self.is_stopped {
            return false;
        }
        self.tried += 1;
        match (self.judge)(candidate) {
            Some(finding) => {
                self.best = finding;
                true
            }
            None => false,
        }
    }

    /// Takes operations out, in pieces from all of them down to so many at a time.
    fn delete_ops(&mut self, least: usize, luck: u64) {
        self.delete(least, luck, |scenario| scenario.clients.ops.len(), without_ops_or_waiting);
    }

    fn delete_steps(&mut self, luck: u64) {
        self.delete(1, luck, |scenario| scenario.steps.len(), |scenario, gone| vec![without_steps(scenario, gone)]);
    }

    /// From the end: what comes late depends on what comes early, seldom the other way round.
    fn delete(
        &mut self,
        least: usize,
        luck: u64,
        count: fn(&Scenario) -> usize,
        without: fn(&Scenario, Range<usize>) -> Vec<Scenario>,
    ) {
        let mut size = count(&self.best.scenario);
        while size >= least.max(1) {
            let mut end = count(&self.best.scenario);
            while end > 0 && !self.is_stopped {
                let start = end.saturating_sub(size);
                for candidate in without(&self.best.scenario, start..end) {
                    if self.tries_lucky(candidate, luck) {
                        break;
                    }
                }
                end = start.min(count(&self.best.scenario));
            }
            size = if size > 3 { size.div_ceil(2) } else { size - 1 };
        }
    }

    /// Whether a candidate fails, under its own seed or one of a few others.
    fn tries_lucky(&mut self, candidate: Scenario, luck: u64) -> bool {
        let Some(candidate) = fit(candidate) else { return false };
        let under = |seed: u64| {
            with(&candidate, |scenario| {
                scenario.seed = seed;
                scenario.crash = scenario.crash.map(|point| CrashPoint { choose: seed, ..point });
            })
        };
        self.fails(&candidate) || (0..luck).any(|seed| !self.is_stopped && self.fails(&under(seed)))
    }

    /// Tries ways to make it simpler until none helps.
    fn simplify(&mut self, ways: fn(&Scenario) -> Vec<Scenario>) {
        while let Some(candidate) = ways(&self.best.scenario).into_iter().filter_map(fit).find(|way| {
            // The search stops at the first that fails.
            !self.is_stopped && self.fails(way)
        }) {
            drop(candidate);
        }
    }
}

// ---- taking out ----

fn without_ops(scenario: &Scenario, gone: Range<usize>) -> Scenario {
    let mut scenario = scenario.clone();
    scenario.clients.ops.drain(gone.clone());
    for step in &mut scenario.steps {
        if let When::Op(count) | When::Answered(count) = &mut step.when {
            *count -= gone.end.min(*count).saturating_sub(gone.start);
        }
    }
    scenario
}

/// Operations may be there only to let time pass: a rest does that, too, before the last of them.
fn without_ops_or_waiting(scenario: &Scenario, gone: Range<usize>) -> Vec<Scenario> {
    let mut ways = vec![without_ops(scenario, gone.clone())];
    if gone.len() > 2 {
        let mut waiting = without_ops(scenario, gone.start..gone.end - 1);
        let id = scenario.steps.iter().map(|step| step.id + 1).max().unwrap_or(1);
        waiting.steps.push(Step { id, when: When::Op(gone.start), act: Act::Rest });
        ways.push(waiting);
    }
    ways
}

/// What is done while the power is off goes with its power cut; what waits for a step waits for what that waited for.
fn without_steps(scenario: &Scenario, gone: Range<usize>) -> Scenario {
    let mut ids: BTreeSet<u32> = scenario.steps[gone].iter().map(|step| step.id).collect();
    let in_the_dark = |step: &&Step| matches!(step.when, When::Off(id) if ids.contains(&id));
    let dark: Vec<u32> = scenario.steps.iter().filter(in_the_dark).map(|step| step.id).collect();
    ids.extend(dark);
    let waits_for = |id: u32| scenario.steps.iter().find(|step| step.id == id).map(|step| step.when);
    let mut left: Vec<Step> = scenario.steps.iter().filter(|step| !ids.contains(&step.id)).copied().collect();
    for step in &mut left {
        for _ in 0..scenario.steps.len() {
            let When::After(events, id) = step.when else { break };
            step.when = match waits_for(id) {
                _ if !ids.contains(&id) => break,
                Some(When::Off(other)) => When::After(events, other),
                Some(when) => when,
                None => When::Op(0),
            };
        }
    }
    with(scenario, |scenario| scenario.steps = left)
}

// ---- making simpler ----

/// `scenario` with one thing changed.
fn with(scenario: &Scenario, change: impl FnOnce(&mut Scenario)) -> Scenario {
    let mut changed = scenario.clone();
    change(&mut changed);
    changed
}

fn simpler_crashes(scenario: &Scenario) -> Vec<Scenario> {
    let Some(point) = scenario.crash else { return Vec::new() };
    let mut ways = vec![with(scenario, |scenario| scenario.crash = None)];
    let mut way = |simpler: CrashPoint| ways.push(with(scenario, |scenario| scenario.crash = Some(simpler)));
    if let Some(again) = point.again {
        way(CrashPoint { again: None, ..point });
        for loss in simpler_losses(again.loss) {
            way(CrashPoint { again: Some(super::scenario::Again { loss, ..again }), ..point });
        }
        for events in smaller(again.events) {
            way(CrashPoint { again: Some(super::scenario::Again { events, ..again }), ..point });
        }
    }
    if point.back {
        way(CrashPoint { back: false, ..point });
    }
    let order = [Aftermath::Recover, Aftermath::Read, Aftermath::Lose, Aftermath::Write];
    for then in order.into_iter().take_while(|then| *then != point.then) {
        way(CrashPoint { then, ..point });
    }
    for loss in simpler_losses(point.loss) {
        way(CrashPoint { loss, ..point });
    }
    for choose in (0..8).take_while(|choose| *choose < point.choose) {
        way(CrashPoint { choose, ..point });
    }
    ways
}

/// From the one that leaves no choice to the one that leaves most.
fn simpler_losses(loss: CacheLoss) -> impl Iterator<Item = CacheLoss> {
    let order = [CacheLoss::DropAll, CacheLoss::KeepAll, CacheLoss::PerDisk, CacheLoss::PerSector];
    order.into_iter().take_while(move |simpler| *simpler != loss)
}

fn simpler_arrays(scenario: &Scenario) -> Vec<Scenario> {
    let shape = scenario.array;
    let mut ways = simpler_paths(scenario);
    let mut way = |change: &dyn Fn(&mut Scenario)| ways.push(with(scenario, change));
    if shape.spares > 0 {
        way(&|scenario| fewer_disks(scenario, 0, shape.spares));
        way(&|scenario| fewer_disks(scenario, 0, 1));
    }
    for fewer in (1..shape.disks).rev() {
        way(&|scenario| fewer_disks(scenario, fewer, 0));
    }
    if shape.bitmap.is_some() {
        way(&|scenario| scenario.array.bitmap = None);
    }
    if shape.layout != Layout::default_of(shape.level) {
        way(&|scenario| scenario.array.layout = Layout::default_of(shape.level));
    }
    if scenario.mapped {
        way(&|scenario| scenario.mapped = false);
    }
    if scenario.disks != Disks::default() {
        way(&|scenario| scenario.disks = Disks::default());
    }
    if shape.block != Sectors(1) {
        way(&|scenario| scenario.array.block = Sectors(1));
    }
    for chunk in [1, 2, 4].into_iter().filter(|chunk| *chunk < shape.chunk.0) {
        way(&|scenario| scale(scenario, shape.chunk.0 / chunk));
        way(&|scenario| scenario.array.chunk = Sectors(chunk));
    }
    let chunk = shape.chunk.0;
    let members = [1, chunk, 2 * chunk, 4 * chunk, shape.member.0 / 2, shape.member.0.saturating_sub(chunk)];
    for member in members.into_iter().filter(|member| (1..shape.member.0).contains(member)) {
        way(&|scenario| scenario.array.member = Sectors(member));
    }
    ways
}

/// Without the fabrics of a side, and all that was done to them.
fn simpler_paths(scenario: &Scenario) -> Vec<Scenario> {
    let sides = [Side::Volume, Side::Members].into_iter().filter(|side| scenario.paths.of(*side).is_some());
    let without = |side: Side| {
        let of_it = |act: Act| match act {
            Act::Component(Part { side: of, .. }, _) | Act::Path(of, ..) => of == side,
            _ => false,
        };
        let mut left = scenario.clone();
        for at in (0..left.steps.len()).rev().filter(|at| of_it(scenario.steps[*at].act)) {
            left = without_steps(&left, at..at + 1);
        }
        match side {
            Side::Volume => left.paths.volume = None,
            Side::Members => left.paths.members = None,
        }
        left
    };
    sides.map(without).collect()
}

/// Takes slots and spares away; who was in a slot that is gone becomes another one.
fn fewer_disks(scenario: &mut Scenario, slots: usize, spares: usize) {
    let (old, old_all) = (scenario.array.disks, scenario.array.disks + scenario.array.spares);
    scenario.array.disks -= slots;
    scenario.array.spares -= spares;
    let (new, new_all) = (scenario.array.disks, scenario.array.disks + scenario.array.spares);
    let moved = |target: Target| match target {
        Target::Slot(slot) if usize::from(slot) >= new => Target::Slot((usize::from(slot) % new) as u8),
        Target::Disk(disk) if (disk as usize) >= old_all => Target::Disk(disk - (old_all - new_all) as u32),
        Target::Disk(disk) if (disk as usize) >= old => {
            Target::Disk((disk as usize - (old - new)).min(new_all.max(1) - 1) as u32)
        }
        Target::Disk(disk) if (disk as usize) >= new => Target::Disk(disk % new as u32),
        other => other,
    };
    for step in &mut scenario.steps {
        step.act = step.act.with_targets(moved);
        if let When::Io(target, _) = &mut step.when {
            *target = moved(*target);
        }
    }
}

/// Everything so many times smaller: chunk, members, and what lies where.
fn scale(scenario: &mut Scenario, times: u64) {
    let scaled = |extent: Extent| Extent::new(Lba(extent.start.0 / times), Sectors(extent.length.0.div_ceil(times)));
    scenario.array.chunk = Sectors(scenario.array.chunk.0 / times);
    scenario.array.member = Sectors((scenario.array.member.0 / times).max(1));
    for op in &mut scenario.clients.ops {
        *op = op.with_extent(scaled);
    }
    for step in &mut scenario.steps {
        step.act = step.act.with_extent(scaled);
    }
}

fn simpler_clients(scenario: &Scenario) -> Vec<Scenario> {
    let depth = scenario.clients.depth;
    (1..depth).map(|depth| with(scenario, |scenario| scenario.clients.depth = depth)).collect()
}

fn simpler_ops(scenario: &Scenario) -> Vec<Scenario> {
    let mut ways = Vec::new();
    for (at, op) in scenario.clients.ops.iter().enumerate() {
        let mut way = |op: ClientOp| ways.push(with(scenario, |scenario| scenario.clients.ops[at] = op));
        match *op {
            ClientOp::Write(extent, Durability::Fua)
            | ClientOp::WriteZeroes(extent, Durability::Volatile)
            | ClientOp::Discard(extent) => way(ClientOp::Write(extent, Durability::Volatile)),
            ClientOp::WriteZeroes(extent, Durability::Fua) => {
                way(ClientOp::Write(extent, Durability::Volatile));
                way(ClientOp::Write(extent, Durability::Fua));
                way(ClientOp::WriteZeroes(extent, Durability::Volatile));
            }
            ClientOp::Write(..) | ClientOp::Read(_) | ClientOp::Flush => {}
        }
        let Some(extent) = op.extent() else { continue };
        for simpler in simpler_extents(extent, scenario.array.chunk) {
            way(op.with_extent(|_| simpler));
        }
    }
    ways
}

/// Shorter, from either end, and nearer to the beginning.
fn simpler_extents(extent: Extent, chunk: Sectors) -> Vec<Extent> {
    let (start, length) = (extent.start.0, extent.length.0);
    let mut ways: Vec<Extent> = Vec::new();
    for shorter in smaller(length).into_iter().filter(|shorter| *shorter > 0) {
        ways.push(Extent::new(extent.start, Sectors(shorter)));
        ways.push(Extent::new(Lba(start + length - shorter), Sectors(shorter)));
    }
    for nearer in [0, start - start % chunk.0, start / 2, start.saturating_sub(chunk.0)] {
        if nearer < start {
            ways.push(Extent::new(Lba(nearer), extent.length));
        }
    }
    ways
}

fn simpler_steps(scenario: &Scenario) -> Vec<Scenario> {
    let mut ways = Vec::new();
    for (at, step) in scenario.steps.iter().enumerate() {
        for when in simpler_moments(step.when, scenario.clients.ops.len()) {
            ways.push(with(scenario, |scenario| scenario.steps[at].when = when));
        }
        for act in simpler_acts(step.act, scenario.array.chunk) {
            ways.push(with(scenario, |scenario| scenario.steps[at].act = act));
        }
    }
    ways
}

/// The simplest moment is when so many operations have been submitted; every other one becomes one of those, or rounder.
fn simpler_moments(when: When, ops: usize) -> Vec<When> {
    let at_ops = || (0..=ops.min(24)).map(When::Op);
    match when {
        When::Off(_) => Vec::new(),
        When::Op(count) => smaller(count as u64).into_iter().map(|count| When::Op(count as usize)).collect(),
        When::Answered(count) => {
            at_ops().chain(smaller(count as u64).into_iter().map(|count| When::Answered(count as usize))).collect()
        }
        When::Time(time) => {
            let round = |unit: u32| {
                let nanos = u128::from(unit).max(1);
                Duration::from_nanos((time.as_nanos() / nanos * nanos) as u64)
            };
            let rounder = [round(1_000_000_000), round(1_000_000), round(1_000), time / 2];
            at_ops().chain(rounder.into_iter().filter(|rounder| *rounder < time).map(When::Time)).collect()
        }
        When::Io(target, count) => at_ops().chain(smaller(count).into_iter().map(|n| When::Io(target, n))).collect(),
        When::Recovery(percent) => {
            at_ops().chain([0, percent / 2, percent / 10 * 10].map(When::Recovery)).filter(|w| *w != when).collect()
        }
        When::Phase(moment, count) => {
            at_ops().chain(smaller(count).into_iter().filter(|n| *n > 0).map(|n| When::Phase(moment, n))).collect()
        }
        When::Event(count) => at_ops().chain(smaller(count).into_iter().map(When::Event)).collect(),
        When::After(events, id) => at_ops().chain(smaller(events).into_iter().map(|n| When::After(n, id))).collect(),
    }
}

fn simpler_acts(act: Act, chunk: Sectors) -> Vec<Act> {
    let second = Duration::from_secs(1);
    let mut ways: Vec<Act> = match act {
        Act::PowerCut(loss) => simpler_losses(loss).map(Act::PowerCut).collect(),
        Act::Component(part, Health::BlackHole { tx, rx }) if tx && rx => {
            let one_way = [(true, false), (false, true)].map(|(tx, rx)| Health::BlackHole { tx, rx });
            [Health::Down].into_iter().chain(one_way).map(|health| Act::Component(part, health)).collect()
        }
        Act::Component(part, Health::BlackHole { .. } | Health::Stalled) => vec![Act::Component(part, Health::Down)],
        Act::Component(part, Health::Losing { frames, at }) if frames > 1 => {
            vec![Act::Component(part, Health::Losing { frames: 1, at })]
        }
        Act::Component(part, Health::Flapping { .. } | Health::FailsIo | Health::FailsChecks) => {
            vec![Act::Component(part, Health::Down)]
        }
        Act::Component(part, Health::Zombie(_)) => vec![Act::Component(part, Health::Slow(10))],
        Act::Component(part, Health::Slow(factor)) if factor > 10 => vec![Act::Component(part, Health::Slow(10))],
        Act::Fault(target, kind, range, times) => {
            let mut kinds: Vec<FaultKind> = match kind {
                FaultKind::Transient(count) if count > 1 => vec![FaultKind::Transient(1)],
                FaultKind::Torn(stored) => smaller(stored.0).into_iter().map(|n| FaultKind::Torn(Sectors(n))).collect(),
                FaultKind::TornSilent(stored) => {
                    smaller(stored.0).into_iter().map(|n| FaultKind::TornSilent(Sectors(n))).collect()
                }
                FaultKind::Bitflip { bits, seed, sticky } if bits > 1 || seed > 0 => {
                    vec![FaultKind::Bitflip { bits: 1, seed: 0, sticky }]
                }
                FaultKind::CorruptWrite { bits, seed } if bits > 1 || seed > 0 => {
                    vec![FaultKind::CorruptWrite { bits: 1, seed: 0 }]
                }
                _ => Vec::new(),
            };
            let mut simpler: Vec<Act> = kinds.drain(..).map(|kind| Act::Fault(target, kind, range, times)).collect();
            let fewer = times.map_or_else(Vec::new, smaller);
            simpler.extend(fewer.into_iter().filter(|n| *n > 0).map(|n| Act::Fault(target, kind, range, Some(n))));
            simpler
        }
        Act::Hang(target, time) if time > second => vec![Act::Hang(target, second)],
        Act::Slow(target, factor) if factor > 10 => vec![Act::Slow(target, 10)],
        Act::LoseFlush(target, count) if count > 1 => vec![Act::LoseFlush(target, 1)],
        _ => Vec::new(),
    };
    if let Some(extent) = act.extent() {
        ways.extend(simpler_extents(extent, chunk).into_iter().map(|simpler| act.with_extent(|_| simpler)));
    }
    ways
}

fn simpler_seeds(scenario: &Scenario) -> Vec<Scenario> {
    let seeds = (0..8).take_while(|seed| *seed < scenario.seed);
    seeds.map(|seed| with(scenario, |scenario| scenario.seed = seed)).collect()
}

/// Steps numbered from 1, in the order they are taken in as far as it can be seen.
fn numbered_steps(scenario: &Scenario) -> Vec<Scenario> {
    let in_order = with(scenario, |scenario| {
        scenario.steps.sort_by_key(|step| {
            if let When::Op(count) | When::Answered(count) = step.when { count } else { usize::MAX }
        });
    });
    vec![numbered(&in_order), numbered(scenario)]
}

fn numbered(scenario: &Scenario) -> Scenario {
    let ids: Vec<u32> = scenario.steps.iter().map(|step| step.id).collect();
    let number = |id: u32| ids.iter().position(|other| *other == id).map_or(id, |at| at as u32 + 1);
    with(scenario, |scenario| {
        for step in &mut scenario.steps {
            step.id = number(step.id);
            step.when = match step.when {
                When::After(events, id) => When::After(events, number(id)),
                When::Off(id) => When::Off(number(id)),
                other => other,
            };
        }
    })
}

/// Some smaller numbers, the smallest first.
fn smaller(number: u64) -> Vec<u64> {
    let mut ways: Vec<u64> = [0, 1, number / 4, number / 2, number - number / 4, number.saturating_sub(1)]
        .into_iter()
        .filter(|n| *n < number)
        .collect();
    ways.dedup();
    ways
}

/// Makes what reaches out of a smaller array fit into it again; `None`: there is no such array, or no such scenario.
fn fit(mut scenario: Scenario) -> Option<Scenario> {
    scenario.array.check().ok()?;
    let (block, member) = (scenario.array.block.0, scenario.array.member);
    let capacity = scenario.capacity();
    let into = |room: Sectors| {
        let room = room.round_down(Sectors(block)).0;
        move |extent: Extent| {
            let length = extent.length.0.next_multiple_of(block).min(room);
            let start = extent.start.0 / block * block;
            let start = if start < room { start } else { start % room };
            Extent::new(Lba(start), Sectors(length.min(room - start)))
        }
    };
    if capacity.0 < block || member.0 < block {
        return None;
    }
    for op in &mut scenario.clients.ops {
        *op = op.with_extent(into(capacity));
    }
    for step in &mut scenario.steps {
        step.act = step.act.with_extent(into(member));
    }
    scenario.check().ok().map(|()| scenario)
}

impl ClientOp {
    /// The same on other sectors.
    fn with_extent(self, other: impl FnOnce(Extent) -> Extent) -> ClientOp {
        match self {
            ClientOp::Read(extent) => ClientOp::Read(other(extent)),
            ClientOp::Write(extent, durability) => ClientOp::Write(other(extent), durability),
            ClientOp::WriteZeroes(extent, durability) => ClientOp::WriteZeroes(other(extent), durability),
            ClientOp::Discard(extent) => ClientOp::Discard(other(extent)),
            ClientOp::Flush => ClientOp::Flush,
        }
    }
}

impl Act {
    /// The same on other sectors.
    fn with_extent(self, other: impl FnOnce(Extent) -> Extent) -> Act {
        match self {
            Act::Unreadable(target, extent) => Act::Unreadable(target, other(extent)),
            Act::Fault(target, kind, Some(extent), times) => Act::Fault(target, kind, Some(other(extent)), times),
            act => act,
        }
    }

    /// The same on other disks.
    pub(super) fn with_targets(self, mut other: impl FnMut(Target) -> Target) -> Act {
        match self {
            Act::Fail(target) => Act::Fail(other(target)),
            Act::Remove(target) => Act::Remove(other(target)),
            Act::ReAdd(target) => Act::ReAdd(other(target)),
            Act::Replace(target) => Act::Replace(other(target)),
            Act::Stop(target) => Act::Stop(other(target)),
            Act::Return(target) => Act::Return(other(target)),
            Act::Unreadable(target, extent) => Act::Unreadable(other(target), extent),
            Act::Fault(target, kind, range, times) => Act::Fault(other(target), kind, range, times),
            Act::Hang(target, time) => Act::Hang(other(target), time),
            Act::Slow(target, factor) => Act::Slow(other(target), factor),
            Act::LoseFlush(target, count) => Act::LoseFlush(other(target), count),
            Act::Fill(target) => Act::Fill(other(target)),
            Act::Snapshot(target) => Act::Snapshot(other(target)),
            Act::Restore(target) => Act::Restore(other(target)),
            Act::Swap(one, two) => Act::Swap(other(one), other(two)),
            Act::Duplicate(target) => Act::Duplicate(other(target)),
            Act::Split(target) => Act::Split(other(target)),
            Act::RotSuperblock(target) => Act::RotSuperblock(other(target)),
            act @ (Act::Add
            | Act::Check
            | Act::Repair { .. }
            | Act::Freeze
            | Act::Thaw
            | Act::Rest
            | Act::Restart
            | Act::PowerCut(_)
            | Act::Mend
            | Act::Component(..)
            | Act::Path(..)) => act,
        }
    }
}

// ---- keeping it ----

/// A scenario file that begins with what is wrong and how to see it.
pub fn scenario_file(finding: &Finding) -> String {
    let mut text = format!("# {}\n", finding.failed.reason());
    for line in finding.failed.to_string().lines() {
        writeln!(text, "# {line}").expect("a string takes everything");
    }
    text + "#\n# raidlab sim replay THIS-FILE --explain\n\n" + &finding.scenario.to_toml()
}

/// A regression test for `src/sim/regressions.rs`: the scenario must pass.
pub fn rust_test(finding: &Finding, name: &str) -> String {
    let failed = finding.failed.to_string().replace('\n', " ");
    let scenario = finding.scenario.to_toml();
    format!("/// {failed}\n#[test]\nfn {name}() {{\n    passes(\n        r#\"\n{scenario}\"#,\n    );\n}}\n")
}

/// A name for that test, from the level and what is wrong.
pub fn test_name(finding: &Finding) -> String {
    let words = format!("{} {}", finding.scenario.array.level, finding.failed.reason());
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).take(8).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raid::level::Level;
    use crate::sim::scenario::{Again, Clients, Regime};
    use crate::sim::{Failed, Shape, Wish, draw};

    fn finding(scenario: Scenario) -> Finding {
        Finding { scenario, event: 100, failed: Failed::Endless, told: Vec::new() }
    }

    /// Shrinks with a judge that needs no life.
    fn shrunk(scenario: &Scenario, fails: impl Fn(&Scenario) -> bool) -> Shrunk {
        let judge = &mut |candidate: &Scenario| fails(candidate).then(|| finding(candidate.clone()));
        shrink_by(&finding(scenario.clone()), judge, &mut |_| true)
    }

    fn drawn(seed: u64) -> Scenario {
        let mut scenario = draw(seed, &Wish { level: Some(Level::Raid6), ..Wish::default() });
        let again = Some(Again { events: 40, loss: CacheLoss::PerSector });
        let (loss, then) = (CacheLoss::PerSector, Aftermath::Write);
        scenario.crash =
            Some(CrashPoint { event: 500, loss, back: true, then, again, choose: 1 << 40, survivors: None });
        scenario
    }

    /// Whether these come in this order among others.
    fn has_in_order(ops: &[ClientOp], wanted: &[fn(&ClientOp) -> bool]) -> bool {
        let mut ops = ops.iter();
        wanted.iter().all(|is_it| ops.any(is_it))
    }

    #[test]
    fn of_hundreds_of_operations_the_three_that_matter_are_left() {
        let fails = |scenario: &Scenario| {
            let cuts = scenario.steps.iter().any(|step| matches!(step.act, Act::PowerCut(_)));
            let is_fua = |op: &ClientOp| matches!(op, ClientOp::Write(_, Durability::Fua));
            let is_long = |op: &ClientOp| op.extent().is_some_and(|extent| extent.length.0 >= 3);
            cuts && has_in_order(&scenario.clients.ops, &[is_fua, |op| matches!(op, ClientOp::Flush), is_long])
        };
        let scenarios = (0..40).map(drawn).filter(fails);
        for scenario in scenarios.take(5) {
            let shrunk = shrunk(&scenario, fails);
            let left = &shrunk.finding.scenario;
            assert!(shrunk.is_minimal && shrunk.before > 200 && shrunk.after == 4, "{left:?}");
            assert_eq!((left.clients.depth, left.seed, left.crash), (1, 0, None));
            assert_eq!(left.steps[0].act, Act::PowerCut(CacheLoss::DropAll));
            let ops: Vec<String> = left.clients.ops.iter().map(ToString::to_string).collect();
            assert_eq!(ops[..2], ["write 0+1 fua", "flush"]);
            assert!(ops[2].ends_with(" 0+3"), "{ops:?}");
        }
    }

    #[test]
    fn of_what_fails_whatever_it_is_nothing_is_left() {
        for level in Level::ALL {
            let scenario = draw(3, &Wish { level: Some(level), ..Wish::default() });
            let left = shrunk(&scenario, |_| true).finding.scenario;
            assert_eq!(left.length(), 0);
            let shape = left.array;
            assert_eq!((shape.spares, shape.bitmap, shape.block), (0, None, Sectors(1)), "{level}");
            assert!(shape.disks <= 4 && shape.volume().capacity <= Sectors(128), "{shape:?}");
            assert_eq!(left.check().ok(), Some(()), "{level}");
        }
    }

    #[test]
    fn every_candidate_is_a_scenario_that_can_be_written_and_read() {
        let scenario = drawn(11);
        let judge = &mut |candidate: &Scenario| {
            assert_eq!(Scenario::parse(&candidate.to_toml()).as_ref().ok(), Some(candidate));
            (candidate.steps.len() > 3).then(|| finding(candidate.clone()))
        };
        let shrunk = shrink_by(&finding(scenario), judge, &mut |_| true);
        assert_eq!(shrunk.after, 4);
    }

    #[test]
    fn when_the_time_is_up_the_best_so_far_is_given() {
        let scenario = drawn(5);
        let length = scenario.length();
        let judge = &mut |candidate: &Scenario| (candidate.length() * 2 > length).then(|| finding(candidate.clone()));
        let shrunk = shrink_by(&finding(scenario), judge, &mut |sofar| sofar.tried < 20);
        assert!(!shrunk.is_minimal && shrunk.tried == 20 && shrunk.after < length, "{} of {length}", shrunk.after);
    }

    #[test]
    fn operations_taken_out_leave_steps_between_the_same_others() {
        let ops = vec![ClientOp::Flush; 6];
        let mut scenario = Scenario::new(1, Regime::Budgeted, Shape::plain(Level::Raid5, 3), Clients { depth: 1, ops });
        let step = |id, when| Step { id, when, act: Act::Check };
        scenario.steps = vec![step(1, When::Op(1)), step(2, When::Op(3)), step(3, When::Op(6))];
        let left = without_ops(&scenario, 2..5);
        let whens: Vec<When> = left.steps.iter().map(|step| step.when).collect();
        assert_eq!((left.clients.ops.len(), whens), (3, vec![When::Op(1), When::Op(2), When::Op(3)]));
    }

    #[test]
    fn what_waited_for_a_step_that_is_gone_waits_for_what_that_waited_for() {
        let clients = Clients { depth: 1, ops: vec![ClientOp::Flush; 6] };
        let mut scenario = Scenario::new(1, Regime::Budgeted, Shape::plain(Level::Raid5, 3), clients);
        let step = |id, when, act| Step { id, when, act };
        scenario.steps = vec![
            step(1, When::Op(2), Act::Restart),
            step(2, When::Off(1), Act::RotSuperblock(Target::Slot(1))),
            step(3, When::After(4, 2), Act::Check),
            step(4, When::After(9, 3), Act::Repair { trust_data: false }),
        ];
        assert_eq!(
            without_steps(&scenario, 0..1).steps,
            [step(3, When::Op(2), Act::Check), step(4, When::After(9, 3), Act::Repair { trust_data: false })]
        );
        assert_eq!(
            without_steps(&scenario, 2..3).steps[2],
            step(4, When::After(4, 2), Act::Repair { trust_data: false })
        );
        scenario.steps[0].when = When::After(1, 4);
        assert!(without_steps(&scenario, 0..1).check().is_ok(), "steps in a ring");
    }

    #[test]
    fn a_shrunk_scenario_is_a_regression_test() {
        let finding = finding(drawn(2));
        let name = test_name(&finding);
        assert_eq!(name, "raid6_endless");
        let test = rust_test(&finding, &name);
        let (head, rest) = test.split_once("r#\"\n").unwrap();
        let (text, tail) = rest.split_once("\"#").unwrap();
        assert!(head.ends_with("#[test]\nfn raid6_endless() {\n    passes(\n        "), "{head}");
        assert_eq!(tail, ",\n    );\n}\n");
        assert_eq!(Scenario::parse(text).unwrap(), finding.scenario);
        assert_eq!(Scenario::parse(&scenario_file(&finding)).unwrap(), finding.scenario);
    }
}
