//! What a map knows: of its paths, its priority groups, and of the requests that wait.

use std::collections::VecDeque;
use std::time::Duration;

use super::selector::Load;
use super::settings::{Grouping, Settings};
use crate::block::{DeviceId, Instant, IoError, Request};
use crate::fabric::{Access, PathId, PathInfo};

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
    /// Its priority.
    pub prio: i32,
    /// What is under way on it.
    pub load: Load,
    /// How often it was failed.
    pub failures_total: u64,
    pub(super) checked_at: Instant,
    pub(super) interval: Duration,
    pub(super) check_due: Instant,
    pub(super) answer_due: Option<Instant>,
}

/// Paths of one priority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Places in [`Map::paths`].
    pub paths: Vec<usize>,
    /// Mean priority of those that are well; 0 if none is.
    pub prio: i32,
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
}

impl Path {
    pub(super) fn new(id: PathId, settings: &Settings) -> Path {
        let start = Instant::START;
        Path {
            id,
            active: true,
            state: PathState::Unchecked,
            prio: 1,
            load: Load::default(),
            failures_total: 0,
            checked_at: start,
            interval: settings.polling_interval,
            check_due: start,
            answer_due: None,
        }
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

    pub(super) fn position(&self, path: PathId) -> usize {
        self.paths.iter().position(|of| of.id == path).expect("a map knows its paths")
    }

    /// The best group with a path that takes requests: of the highest priority, then of the most such paths.
    pub(super) fn best(&self) -> Option<usize> {
        let usable = |group: &Group| group.paths.iter().filter(|path| self.paths[**path].active).count();
        (0..self.groups.len())
            .filter(|at| usable(&self.groups[*at]) > 0)
            .max_by_key(|at| (self.groups[*at].prio, usable(&self.groups[*at]), std::cmp::Reverse(*at)))
    }

    pub(super) fn has_path(&self) -> bool {
        self.paths.iter().any(|path| path.active)
    }

    /// Sorts the paths into groups. The current group stays the one that has the paths it had.
    pub(super) fn regroup(&mut self, grouping: Grouping, infos: &[PathInfo]) {
        let kept = self.current.and_then(|at| self.groups[at].paths.first().copied());
        let key = |at: usize| -> i64 {
            let info = &infos[usize::from(self.paths[at].id.0)];
            match grouping {
                Grouping::Failover => at as i64,
                Grouping::Multibus | Grouping::GroupBySerial => 0,
                Grouping::GroupByPrio => i64::from(self.paths[at].prio),
                Grouping::GroupByNodeName => info.controller as i64,
                Grouping::GroupByTpg => i64::from(info.tpg),
            }
        };
        let mut groups: Vec<(i64, Vec<usize>)> = Vec::new();
        for at in 0..self.paths.len() {
            match groups.iter_mut().find(|(of, _)| *of == key(at)) {
                Some((_, paths)) => paths.push(at),
                None => groups.push((key(at), vec![at])),
            }
        }
        let mut groups: Vec<Group> = groups.into_iter().map(|(_, paths)| self.group_of(paths)).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.prio));
        self.current = kept.and_then(|path| groups.iter().position(|group| group.paths.contains(&path)));
        self.groups = groups;
    }

    fn group_of(&self, paths: Vec<usize>) -> Group {
        let well: Vec<i32> =
            paths.iter().map(|at| &self.paths[*at]).filter(|path| path.is_well()).map(|p| p.prio).collect();
        let prio = if well.is_empty() { 0 } else { well.iter().sum::<i32>() / well.len() as i32 };
        let order = paths.iter().copied().filter(|at| self.paths[*at].active).collect();
        Group { paths, prio, order }
    }

    pub(super) fn rate(&mut self) {
        for at in 0..self.groups.len() {
            let group = self.group_of(self.groups[at].paths.clone());
            self.groups[at].prio = group.prio;
        }
    }
}

/// The priority of an access state (`alua`).
pub(super) fn alua_prio(access: Access) -> i32 {
    match access {
        Access::Optimized => 50,
        Access::NonOptimized => 10,
        Access::Standby => 1,
        Access::Unavailable | Access::Transitioning => 0,
    }
}
