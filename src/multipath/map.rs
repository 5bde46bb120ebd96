//! What a map knows: of its paths, its priority groups, and of the requests that wait.

use std::collections::VecDeque;
use std::time::Duration;

use super::latencies::Latencies;
use super::selector::Load;
use super::settings::{Grouping, Settings};
use super::switchover::Switching;
use super::trial::Trial;
use crate::block::mutant::{self, Mutant};
use crate::block::{DeviceId, Instant, IoError, Request};
use crate::fabric::{Link, PathId, PathInfo};

/// What a checker last said of a path (multipath-tools' path states).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PathState {
    /// `ready`.
    Up,
    /// `faulty`.
    Down,
    /// `ghost`: standby.
    Ghost,
    /// `i/o pending`.
    Pending,
    /// `i/o timeout`: the check was not answered.
    Timeout,
    /// `shaky`: found well, and not trusted.
    Shaky,
    /// `delayed`: found well, and to be so for a while.
    Delayed,
    /// `undef`: its device is gone.
    Removed,
    /// `undef`: not checked yet.
    Unchecked,
}

/// Why a path was failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// A request came back with this error.
    Io(IoError),
    /// Its checker says so.
    Checker(PathState),
    /// Its link says so.
    Link(Link),
    /// Nothing was heard for so long.
    Silence(Duration),
    /// Somebody asked for it.
    Asked,
}

/// What happens to a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing goes down this path any more.
    Failed(PathId, Why),
    /// It takes requests again.
    Reinstated(PathId),
    /// It was found well, and is kept out: delayed, or shaky.
    KeptOut(PathId, PathState),
    /// It is to be used last, or not any more.
    Marginal(PathId, bool),
    /// A read that was late went down this path, too.
    Hedged(PathId),
    /// Requests go down this group, by its number, now.
    Switched(usize),
    /// No path is left: requests wait.
    Queueing,
    /// They have waited for long enough: so many failed.
    GaveUp(usize),
    /// A path is there again, and so many went down it.
    Resumed(usize),
    /// So many writes wait until the nexus of this path is fenced.
    Fencing(PathId),
    /// It is.
    Fenced(PathId),
    /// The target of this path is asked to abort a write that came back from it.
    Aborting(PathId),
    /// It has.
    Aborted(PathId),
    /// The unit is asked to forget all that this host has under way.
    Resetting,
    /// It has.
    Reset,
    /// What is sent from now on is of this connection generation.
    Epoch(u64),
}

/// A path as its map sees it.
#[derive(Clone, Debug)]
pub struct Path {
    /// Which.
    pub id: PathId,
    /// Whether requests go down it (`dm_st`).
    pub active: bool,
    /// What its checker last said (`chk_st`).
    pub state: PathState,
    /// Since when both are so.
    pub since: Instant,
    /// Its priority.
    pub prio: i32,
    /// Whether it is used last (`marginal_st`).
    pub marginal: bool,
    /// What is under way on it.
    pub load: Load,
    /// How long requests took on it.
    pub latencies: Latencies,
    /// How often it was failed.
    pub failures_total: u64,
    /// Place of its group in [`Map::groups`].
    pub(super) group: usize,
    pub(super) checked_at: Instant,
    pub(super) interval: Duration,
    pub(super) check_due: Instant,
    pub(super) answer_due: Option<Instant>,
    pub(super) heard_at: Instant,
    pub(super) link: Link,
    /// Since when its link, and its checks, say that it is lost; since when they say that it is well.
    pub(super) link_lost_at: Option<Instant>,
    pub(super) lost_at: Option<Instant>,
    pub(super) well_at: Option<Instant>,
    pub(super) reinstated_at: Instant,
    /// Whether it has done anything since then.
    pub(super) served: bool,
    /// When the request was sent that came back with an error last.
    pub(super) erred: Instant,
    pub(super) trial: Trial,
    /// Its priority by latency: reads that are still to be measured, and the sum of their logarithms.
    pub(super) measured: (u32, f64),
    pub(super) latency_prio: i32,
}

/// Why a path that is found well is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Obstacle {
    /// It is marginal.
    Marginal(PathState),
    /// It is early.
    Wait(PathState, Instant),
}

/// Paths of one priority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Places in [`Map::paths`].
    pub paths: Vec<usize>,
    /// Mean priority of those that are well; 0 if none is.
    pub prio: i32,
    /// Whether its paths are used last.
    pub marginal: bool,
    /// The selector's list of those that take requests.
    pub(super) order: Vec<usize>,
}

/// One logical unit.
#[derive(Clone, Debug)]
pub struct Map {
    pub(super) unit: DeviceId,
    pub(super) paths: Vec<Path>,
    pub(super) groups: Vec<Group>,
    pub(super) current: Option<usize>,
    pub(super) queue: VecDeque<(usize, Request)>,
    pub(super) queue_bytes: u64,
    /// Until when requests wait; `None`: they do not, or for ever.
    pub(super) give_up_at: Option<Instant>,
    pub(super) gave_up: bool,
    pub(super) asked_to_fail: bool,
    pub(super) failback_due: Option<Instant>,
    pub(super) switching: Option<Switching>,
    /// The connection generation that requests are sent in.
    pub(super) epoch: u64,
    /// What it did so far.
    pub(super) totals: Totals,
}

/// What `multipathd show maps stats` counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Paths that were failed.
    pub path_faults: u64,
    /// Changes of the group.
    pub switch_grp: u64,
    /// Times the groups were made.
    pub map_loads: u64,
    /// Seconds that requests waited for a path.
    pub total_q_time: u64,
    /// Times they waited for too long.
    pub q_timeouts: u64,
}

impl Path {
    /// Whether it has answered anything since it was taken.
    pub fn has_served(&self) -> bool {
        self.served
    }

    pub(super) fn new(id: PathId, settings: &Settings) -> Path {
        let start = Instant::START;
        Path {
            id,
            active: true,
            state: PathState::Unchecked,
            since: start,
            prio: 1,
            marginal: false,
            load: Load::default(),
            latencies: Latencies::default(),
            failures_total: 0,
            group: 0,
            checked_at: start,
            interval: settings.polling_interval,
            check_due: start,
            answer_due: None,
            heard_at: start,
            link: Link::Online,
            link_lost_at: None,
            lost_at: None,
            well_at: Some(start),
            reinstated_at: start,
            served: true,
            erred: start,
            trial: Trial::default(),
            measured: (0, 0.0),
            latency_prio: 1,
        }
    }

    /// It is found to be in this state.
    pub(super) fn set_state(&mut self, state: PathState, now: Instant) {
        if self.state != state {
            (self.state, self.since) = (state, now);
        }
    }

    /// What stands against taking it although it is found well, and until when it does if that is known. `alone`: there is no
    /// other path.
    pub(super) fn obstacle(&mut self, settings: &Settings, alone: bool, now: Instant) -> Option<Obstacle> {
        if self.active && !self.marginal {
            return None;
        }
        if let Some(state) = self.trial.judge(settings, alone, now) {
            return Some(Obstacle::Marginal(state));
        }
        let longest = if alone { settings.max_polling_interval } else { Duration::MAX };
        let barren = self.trial.barren_until(settings.polling_interval, longest).map(|until| (PathState::Shaky, until));
        let updelay = self.well_at.map(|since| (PathState::Delayed, since + settings.updelay));
        let waits = [barren, updelay].into_iter().flatten().find(|(_, until)| !self.active && *until > now);
        waits.map(|(state, until)| Obstacle::Wait(state, until))
    }

    pub(super) fn is_well(&self) -> bool {
        matches!(self.state, PathState::Up | PathState::Ghost | PathState::Unchecked)
    }
}

impl Map {
    pub(super) fn new(unit: DeviceId, paths: Vec<Path>) -> Map {
        Map {
            unit,
            paths,
            groups: Vec::new(),
            current: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            give_up_at: None,
            gave_up: false,
            asked_to_fail: false,
            failback_due: None,
            switching: None,
            totals: Totals::default(),
            epoch: 0,
        }
    }

    /// The logical unit it stands for.
    pub fn unit(&self) -> DeviceId {
        self.unit
    }

    /// Its paths, in the order of their numbers.
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// Its groups, the best first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group that requests go down.
    pub fn current(&self) -> Option<usize> {
        self.current
    }

    /// Requests that wait for a path.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Their bytes.
    pub fn queued_bytes(&self) -> u64 {
        self.queue_bytes
    }

    /// What it did so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn position(&self, path: PathId) -> usize {
        self.paths.iter().position(|of| of.id == path).expect("a map knows its paths")
    }

    /// The best group with a path that takes requests: one that is not marginal, of the highest priority, then of the most such
    /// paths.
    pub(super) fn best(&self) -> Option<usize> {
        let rank = |at: &usize| {
            let Group { marginal, prio, order, .. } = &self.groups[*at];
            let prio = if mutant::is_on(Mutant::WorstGroup) { -prio } else { *prio };
            (!marginal, prio, order.len(), std::cmp::Reverse(*at))
        };
        (0..self.groups.len()).filter(|at| !self.groups[*at].order.is_empty()).max_by_key(rank)
    }

    /// Whether a group is better than the current one, however many of its paths take requests.
    pub(super) fn is_better(&self, group: usize, current: usize) -> bool {
        let rank = |at: usize| (!self.groups[at].marginal, self.groups[at].prio);
        rank(group) > rank(current)
    }

    pub(super) fn has_path(&self) -> bool {
        self.paths.iter().any(|path| path.active)
    }

    /// Whether what waits for a path has waited for too long, or since others had.
    pub(super) fn waits_in_vain(&self, now: Instant) -> bool {
        !self.has_path() && (self.gave_up || self.give_up_at.is_some_and(|at| at <= now))
    }

    /// Whether no path but this one takes requests.
    pub(super) fn is_alone(&self, at: usize) -> bool {
        !self.paths.iter().enumerate().any(|(other, path)| other != at && path.active)
    }

    /// Sorts the paths into groups: those that are not marginal first, then by priority, then by how many paths are well. The
    /// current group stays the one that has the paths it had.
    pub(super) fn regroup(&mut self, grouping: Grouping, infos: &[PathInfo]) {
        let kept = self.current.and_then(|at| self.groups[at].paths.first().copied());
        let key = |at: usize| {
            let path = &self.paths[at];
            let info = &infos[usize::from(path.id.0)];
            let key = match grouping {
                Grouping::Failover => at as i64,
                Grouping::Multibus | Grouping::GroupBySerial => 0,
                Grouping::GroupByPrio => i64::from(path.prio),
                Grouping::GroupByNodeName => info.controller as i64,
                Grouping::GroupByTpg => i64::from(info.tpg),
            };
            (path.marginal, key)
        };
        let mut groups: Vec<((bool, i64), Vec<usize>)> = Vec::new();
        for at in 0..self.paths.len() {
            match groups.iter_mut().find(|(of, _)| *of == key(at)) {
                Some((_, paths)) => paths.push(at),
                None => groups.push((key(at), vec![at])),
            }
        }
        let mut groups: Vec<Group> =
            groups.into_iter().map(|((marginal, _), paths)| self.group_of(paths, marginal)).collect();
        let well = |group: &Group| group.paths.iter().filter(|at| self.paths[**at].is_well()).count();
        groups.sort_by_key(|group| (group.marginal, std::cmp::Reverse((group.prio, well(group)))));
        self.current = kept.and_then(|path| groups.iter().position(|group| group.paths.contains(&path)));
        self.groups = groups;
        self.totals.map_loads += 1;
        for (number, group) in self.groups.iter().enumerate() {
            group.paths.iter().for_each(|at| self.paths[*at].group = number);
        }
    }

    fn group_of(&self, paths: Vec<usize>, marginal: bool) -> Group {
        let order = paths.iter().copied().filter(|at| self.paths[*at].active).collect();
        Group { prio: self.mean_prio(&paths), marginal, order, paths }
    }

    /// The integer mean of the priorities of paths that are well.
    fn mean_prio(&self, paths: &[usize]) -> i32 {
        let well = paths.iter().map(|at| &self.paths[*at]).filter(|path| path.is_well());
        let (sum, count) = well.fold((0, 0), |(sum, count), path| (sum + path.prio, count + 1));
        if count == 0 { 0 } else { sum / count }
    }

    pub(super) fn rate(&mut self) {
        for at in 0..self.groups.len() {
            self.groups[at].prio = self.mean_prio(&self.groups[at].paths);
        }
    }
}
