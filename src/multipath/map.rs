//! A map: one device over the paths that lead to a logical unit.
//!
//! A bank with a device for every logical unit of its fabric. A request that comes back with a path's error fails the path and goes down
//! another; so does every other that comes back from it, when the transport gives it back. A write whose outcome is unknown waits until
//! it cannot land twice ([`RetrySafety`]).
//!
//! Once a second the map does what multipathd does: it looks whose check is due, whether a better group is there to go back to,
//! and how long requests have waited for a path.

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use super::selector::{Load, select};
use super::settings::{Checker, Failback, Grouping, NoPathRetry, Prio, RetrySafety, Settings};
use crate::block::{Bank, Completion, DeviceId, Extent, Instant, IoError, Limits, Op, Request, RequestId};
use crate::fabric::{Access, Event, Fabric, Link, PathId, Probe, Verdict, is_path_error};

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
    checked_at: Instant,
    interval: Duration,
    check_due: Instant,
    answer_due: Option<Instant>,
}

/// Paths of one priority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Places in [`Map::paths`].
    pub paths: Vec<usize>,
    /// Mean priority of those that are well; 0 if none is.
    pub prio: i32,
    /// The selector's list of those that take requests.
    order: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Io {
    map: usize,
    id: RequestId,
    extent: Extent,
    bytes: u64,
    sent_at: Instant,
}

/// One logical unit.
#[derive(Clone, Debug)]
pub struct Map {
    unit: DeviceId,
    paths: Vec<Path>,
    groups: Vec<Group>,
    current: Option<usize>,
    queue: VecDeque<(usize, Request)>,
    queue_bytes: u64,
    /// Until when requests wait; `None`: they do not, or for ever.
    give_up_at: Option<Instant>,
    gave_up: bool,
    asked_to_fail: bool,
    failback_due: Option<Instant>,
}

/// Writes that wait until they may be sent again.
#[derive(Clone, Debug)]
enum Held {
    Until(Instant, usize, Request),
    /// Until the nexus of this path is fenced, by a fence that was begun later: the number says how many there had been.
    Fenced(PathId, u64, usize, Request),
}

/// Maps over a fabric.
#[derive(Clone, Debug)]
pub struct Multipath<F> {
    fabric: F,
    settings: Settings,
    maps: Vec<Map>,
    ios: Slab<Io>,
    held: Vec<Held>,
    /// Paths whose nexus is being fenced, and the number of the fence.
    fencing: Vec<(PathId, u64)>,
    fences_total: u64,
    tick_due: Instant,
    done: Vec<(DeviceId, Completion)>,
    events: Vec<Event>,
    changes: Vec<(Instant, DeviceId, Change)>,
}

const TICK: Duration = Duration::from_secs(1);

impl Path {
    fn new(id: PathId, settings: &Settings) -> Path {
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

    fn is_well(&self) -> bool {
        matches!(self.state, PathState::Up | PathState::Ghost | PathState::Unchecked)
    }
}

impl Map {
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

    fn position(&self, path: PathId) -> usize {
        self.paths.iter().position(|of| of.id == path).expect("a map knows its paths")
    }

    /// The best group with a path that takes requests: of the highest priority, then of the most such paths.
    fn best(&self) -> Option<usize> {
        let usable = |group: &Group| group.paths.iter().filter(|path| self.paths[**path].active).count();
        (0..self.groups.len())
            .filter(|at| usable(&self.groups[*at]) > 0)
            .max_by_key(|at| (self.groups[*at].prio, usable(&self.groups[*at]), std::cmp::Reverse(*at)))
    }

    fn has_path(&self) -> bool {
        self.paths.iter().any(|path| path.active)
    }

    /// Sorts the paths into groups. The current group stays the one that has the paths it had.
    fn regroup(&mut self, grouping: Grouping, infos: &[crate::fabric::PathInfo]) {
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

    fn rate(&mut self) {
        for at in 0..self.groups.len() {
            let group = self.group_of(self.groups[at].paths.clone());
            self.groups[at].prio = group.prio;
        }
    }
}

/// The priority of an access state (`alua`).
fn alua_prio(access: Access) -> i32 {
    match access {
        Access::Optimized => 50,
        Access::NonOptimized => 10,
        Access::Standby => 1,
        Access::Unavailable | Access::Transitioning => 0,
    }
}

impl<F: Fabric> Multipath<F> {
    /// A map for every logical unit that the fabric's paths lead to. All paths are taken to be well until one is checked.
    pub fn new(fabric: F, settings: Settings) -> Multipath<F> {
        let mut units: Vec<DeviceId> = fabric.paths().iter().map(|path| path.unit).collect();
        units.sort_unstable();
        units.dedup();
        let map = |unit: &DeviceId| {
            let of_it = |at: &usize| fabric.paths()[*at].unit == *unit;
            let ids = (0..fabric.paths().len()).filter(of_it).map(|at| PathId(at as u16));
            Map {
                unit: *unit,
                paths: ids.map(|id| Path::new(id, &settings)).collect(),
                groups: Vec::new(),
                current: None,
                queue: VecDeque::new(),
                queue_bytes: 0,
                give_up_at: None,
                gave_up: false,
                asked_to_fail: false,
                failback_due: None,
            }
        };
        let maps = units.iter().map(map).collect();
        let mut multipath = Multipath {
            fabric,
            settings,
            maps,
            ios: Slab::new(),
            held: Vec::new(),
            fencing: Vec::new(),
            fences_total: 0,
            tick_due: Instant::START,
            done: Vec::new(),
            events: Vec::new(),
            changes: Vec::new(),
        };
        for map in 0..multipath.maps.len() {
            multipath.read_priorities(map);
            multipath.regroup(map);
        }
        multipath
    }

    /// The paths' own world.
    pub fn fabric(&self) -> &F {
        &self.fabric
    }

    /// The paths' own world, to be changed: cables are pulled there.
    pub fn fabric_mut(&mut self) -> &mut F {
        &mut self.fabric
    }

    /// What was set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// One map for each logical unit.
    pub fn maps(&self) -> &[Map] {
        &self.maps
    }

    /// What happened since the last call.
    pub fn drain_changes(&mut self) -> Vec<(Instant, DeviceId, Change)> {
        std::mem::take(&mut self.changes)
    }

    /// Nothing new goes down a path, until its checker finds it well.
    pub fn fail_path(&mut self, path: PathId, now: Instant) {
        let map = self.map_of(path);
        self.fail(map, path, Why::Asked, now);
    }

    /// A path takes requests again, until one of them fails.
    pub fn reinstate_path(&mut self, path: PathId, now: Instant) {
        let map = self.map_of(path);
        self.reinstate(map, path, now);
    }

    /// Requests go down this group from now on.
    pub fn switch_group(&mut self, unit: DeviceId, group: usize, now: Instant) {
        let map = self.map_at(unit);
        self.switch(map, group, now);
    }

    /// Whether requests wait when no path is left (`queue_if_no_path`, `fail_if_no_path`).
    pub fn set_queueing(&mut self, unit: DeviceId, queues: bool, now: Instant) {
        let map = self.map_at(unit);
        self.maps[map].asked_to_fail = !queues;
        if queues {
            self.maps[map].gave_up = false;
        } else {
            self.give_up(map, now);
        }
    }

    fn map_at(&self, unit: DeviceId) -> usize {
        self.maps.iter().position(|map| map.unit == unit).expect("there is a map for every unit")
    }

    fn map_of(&self, path: PathId) -> usize {
        self.map_at(self.fabric.paths()[usize::from(path.0)].unit)
    }

    fn note(&mut self, map: usize, change: Change, now: Instant) {
        let unit = self.maps[map].unit;
        self.changes.push((now, unit, change));
    }

    // ---- requests ----

    /// Sends a request down a path, or has it wait for one.
    fn route(&mut self, key: usize, request: Request, now: Instant) {
        let at = self.ios[key].map;
        let map = &mut self.maps[at];
        let usable =
            map.current.is_some_and(|group| map.groups[group].paths.iter().any(|path| map.paths[*path].active));
        if !usable {
            match map.best() {
                Some(group) => self.switch(at, group, now),
                None => return self.wait_or_fail(key, request, now),
            }
        }
        let map = &mut self.maps[at];
        let group = &mut map.groups[map.current.expect("a group was just chosen")];
        let loads: smallvec::SmallVec<[Load; 8]> = map.paths.iter().map(|path| path.load).collect();
        let bytes = self.ios[key].bytes;
        let cpu = self.ios[key].id.0 as usize;
        let chosen = select(self.settings.selector, &mut group.order, &loads, bytes, cpu, now);
        let path = &mut map.paths[chosen.expect("the group has a path that takes requests")];
        path.load.begin(bytes);
        self.ios[key].sent_at = now;
        self.fabric.submit(path.id, request, now);
    }

    fn wait_or_fail(&mut self, key: usize, request: Request, now: Instant) {
        let at = self.ios[key].map;
        let waits = self.waits(at);
        let map = &mut self.maps[at];
        let bytes = self.ios[key].bytes;
        if !waits || map.queue_bytes + bytes > self.settings.queue_bytes_max {
            return self.finish(key, request.complete(Err(IoError::Transport)));
        }
        map.queue_bytes += bytes;
        map.queue.push_back((key, request));
        if map.queue.len() == 1 {
            self.note(at, Change::Queueing, now);
        }
    }

    /// Whether requests wait when no path is left.
    fn waits(&self, map: usize) -> bool {
        match self.settings.no_path_retry {
            NoPathRetry::Fail => false,
            NoPathRetry::Queue | NoPathRetry::Checks(_) => !self.maps[map].gave_up && !self.maps[map].asked_to_fail,
        }
    }

    fn finish(&mut self, key: usize, completion: Completion) {
        let io = self.ios.remove(key);
        self.done.push((self.maps[io.map].unit, Completion { id: io.id, ..completion }));
    }

    fn came_back(&mut self, path: PathId, completion: Completion, now: Instant) {
        let key = completion.id.0 as usize;
        let io = self.ios[key].clone();
        let map = &mut self.maps[io.map];
        let at = map.position(path);
        map.paths[at].load.end(io.bytes, io.sent_at, now);
        let Err(error) = completion.result else { return self.finish(key, completion) };
        if !is_path_error(error) {
            return self.finish(key, completion);
        }
        self.fail(io.map, path, Why::Io(error), now);
        let Completion { id, op, .. } = completion;
        let extent = self.ios[key].extent;
        let request = Request { id, extent, op };
        if !request.op.is_write() {
            return self.route(key, request, now);
        }
        if !self.maps[io.map].has_path() && !self.waits(io.map) {
            return self.finish(key, request.complete(Err(error)));
        }
        match self.settings.retry_safety {
            RetrySafety::None => self.route(key, request, now),
            RetrySafety::Hold(time) => self.held.push(Held::Until(now + time, key, request)),
            RetrySafety::Fence => {
                self.held.push(Held::Fenced(path, self.fences_total, key, request));
            }
        }
    }

    /// Sees to it that nothing of a path's nexus lands any more: asks for it on every path that may be well, since what took
    /// this one may have taken others. Without any it is done when there is one.
    fn fence(&mut self, path: PathId, now: Instant) {
        if self.is_fencing(path) {
            return;
        }
        let map = self.map_of(path);
        let others: Vec<PathId> = self.maps[map]
            .paths
            .iter()
            .filter(|other| other.active && other.id != path)
            .map(|other| other.id)
            .collect();
        if !others.is_empty() {
            self.begin_fence(map, path, &others, now);
        }
    }

    fn begin_fence(&mut self, map: usize, path: PathId, ways: &[PathId], now: Instant) {
        self.fences_total += 1;
        self.fencing.push((path, self.fences_total));
        self.note(map, Change::Fencing(path), now);
        for way in ways {
            self.fabric.fence(path, *way, now);
        }
    }

    fn is_fencing(&self, path: PathId) -> bool {
        self.fencing.iter().any(|(of, _)| *of == path)
    }

    fn fences_wanted(&self) -> Vec<PathId> {
        let mut paths: Vec<PathId> = self
            .held
            .iter()
            .filter_map(|held| match held {
                Held::Fenced(path, ..) => Some(*path),
                Held::Until(..) => None,
            })
            .collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    fn release(&mut self, is_due: impl Fn(&Held) -> bool, now: Instant) {
        let (due, held) = std::mem::take(&mut self.held).into_iter().partition(|held| is_due(held));
        self.held = held;
        for held in Vec::into_iter(due) {
            let (Held::Until(_, key, request) | Held::Fenced(_, _, key, request)) = held;
            self.route(key, request, now);
        }
    }

    // ---- paths and groups ----

    fn fail(&mut self, map: usize, path: PathId, why: Why, now: Instant) {
        let of = &mut self.maps[map];
        let at = of.position(path);
        if !std::mem::replace(&mut of.paths[at].active, false) {
            return;
        }
        let path_now = &mut of.paths[at];
        path_now.failures_total += 1;
        path_now.interval = self.settings.polling_interval;
        path_now.check_due = path_now.check_due.min(now + self.settings.polling_interval);
        of.failback_due = None;
        for group in &mut of.groups {
            group.order.retain(|member| *member != at);
        }
        if !of.has_path() {
            of.gave_up = false;
            of.give_up_at = self.settings.queueing_max().map(|time| now + time);
        }
        self.note(map, Change::Failed(path, why), now);
    }

    fn reinstate(&mut self, map: usize, path: PathId, now: Instant) {
        let of = &mut self.maps[map];
        let at = of.position(path);
        if std::mem::replace(&mut of.paths[at].active, true) {
            return;
        }
        of.give_up_at = None;
        of.gave_up = false;
        for group in &mut of.groups {
            if group.paths.contains(&at) {
                group.order.push(at);
            }
        }
        self.note(map, Change::Reinstated(path), now);
        for wanted in self.fences_wanted() {
            if wanted == path && !self.is_fencing(path) {
                // It speaks for itself: what goes down it from now on is of a nexus that begins anew.
                self.begin_fence(map, path, &[path], now);
            } else if self.is_fencing(wanted) {
                self.fabric.fence(wanted, path, now);
            } else {
                self.fence(wanted, now);
            }
        }
        let of = &mut self.maps[map];
        of.queue_bytes = 0;
        let queue = std::mem::take(&mut of.queue);
        if !queue.is_empty() {
            self.note(map, Change::Resumed(queue.len()), now);
        }
        for (key, request) in queue {
            self.route(key, request, now);
        }
    }

    fn switch(&mut self, map: usize, group: usize, now: Instant) {
        if self.maps[map].current != Some(group) {
            let first = self.maps[map].current.is_none();
            self.maps[map].current = Some(group);
            if !first {
                self.note(map, Change::Switched(group), now);
            }
        }
    }

    fn give_up(&mut self, map: usize, now: Instant) {
        let of = &mut self.maps[map];
        of.gave_up = true;
        of.give_up_at = None;
        of.queue_bytes = 0;
        let queue = std::mem::take(&mut of.queue);
        let held =
            self.held.iter().filter(|(Held::Until(_, key, _) | Held::Fenced(_, _, key, _))| self.ios[*key].map == map);
        let failed = queue.len() + held.count();
        self.note(map, Change::GaveUp(failed), now);
        for (key, request) in queue {
            self.finish(key, request.complete(Err(IoError::Transport)));
        }
        for held in std::mem::take(&mut self.held) {
            let (Held::Until(_, key, _) | Held::Fenced(_, _, key, _)) = held;
            if self.ios[key].map != map {
                self.held.push(held);
                continue;
            }
            let (Held::Until(_, key, request) | Held::Fenced(_, _, key, request)) = held;
            self.finish(key, request.complete(Err(IoError::Transport)));
        }
    }

    /// Whether a priority is another now.
    fn read_priorities(&mut self, map: usize) -> bool {
        let mut changed = false;
        for path in &mut self.maps[map].paths {
            let prio = match self.settings.prio {
                Prio::Const => 1,
                Prio::Alua => alua_prio(self.fabric.access(path.id)),
            };
            changed |= std::mem::replace(&mut path.prio, prio) != prio;
        }
        changed
    }

    fn regroup(&mut self, map: usize) {
        let (grouping, infos) = (self.settings.grouping, self.fabric.paths());
        self.maps[map].regroup(grouping, infos);
    }

    // ---- once a second ----

    fn tick(&mut self, now: Instant) {
        for map in 0..self.maps.len() {
            for at in 0..self.maps[map].paths.len() {
                self.look_at(map, at, now);
            }
            if self.maps[map].give_up_at.is_some_and(|at| at <= now) && !self.maps[map].has_path() {
                self.give_up(map, now);
            }
            self.fall_back(map, now);
        }
    }

    fn look_at(&mut self, map: usize, at: usize, now: Instant) {
        let path = &mut self.maps[map].paths[at];
        if path.answer_due.is_some_and(|due| due <= now) {
            path.answer_due = None;
            return self.checked(map, at, PathState::Timeout, now);
        }
        if path.answer_due.is_some() || now < path.check_due {
            return;
        }
        let id = path.id;
        path.checked_at = now;
        match (self.fabric.link(id), self.settings.checker) {
            // There is no saying yet.
            (Link::Blocked, _) => {
                path.state = PathState::Pending;
                path.check_due = now + TICK;
            }
            (Link::FastFailed | Link::Removed, _) => self.checked(map, at, PathState::Down, now),
            (Link::Online, Checker::None) => self.checked(map, at, PathState::Up, now),
            (Link::Online, checker) => {
                path.answer_due = Some(now + self.settings.checker_timeout);
                let probe = if checker == Checker::DirectIo { Probe::DirectIo } else { Probe::Tur };
                self.fabric.probe(id, probe, now);
            }
        }
    }

    /// A check has a result.
    fn checked(&mut self, map: usize, at: usize, state: PathState, now: Instant) {
        let (shortest, longest) = (self.settings.polling_interval, self.settings.max_polling_interval);
        let path = &mut self.maps[map].paths[at];
        let before = std::mem::replace(&mut path.state, state);
        let id = path.id;
        let well = matches!(state, PathState::Up | PathState::Ghost);
        path.interval = if well && before == state { (path.interval * 2).min(longest) } else { shortest };
        path.check_due = path.checked_at + path.interval;
        match state {
            PathState::Up | PathState::Ghost => self.reinstate(map, id, now),
            PathState::Down | PathState::Timeout => self.fail(map, id, Why::Checker(state), now),
            PathState::Pending | PathState::Unchecked => {}
        }
        if self.read_priorities(map) && matches!(self.settings.grouping, Grouping::GroupByPrio) {
            self.regroup(map);
        }
        self.maps[map].rate();
        self.consider_failback(map, id, before, now);
    }

    /// A path was checked: is there a better group to go back to?
    fn consider_failback(&mut self, map: usize, path: PathId, before: PathState, now: Instant) {
        let of = &self.maps[map];
        let (Some(best), Some(current)) = (of.best(), of.current) else { return };
        if of.groups[best].prio <= of.groups[current].prio {
            return;
        }
        let at = of.position(path);
        let came_back =
            !matches!(before, PathState::Up | PathState::Ghost | PathState::Unchecked) && of.paths[at].is_well();
        match self.settings.failback {
            Failback::Manual => {}
            Failback::Immediate => self.switch(map, best, now),
            Failback::Followover => {
                let of_best = &of.groups[best].paths;
                let alone = of_best.iter().all(|other| *other == at || !of.paths[*other].active);
                if came_back && alone && of_best.contains(&at) {
                    self.switch(map, best, now);
                }
            }
            Failback::After(seconds) => {
                let due = now + Duration::from_secs(u64::from(seconds) + 1);
                self.maps[map].failback_due.get_or_insert(due);
            }
        }
    }

    fn fall_back(&mut self, map: usize, now: Instant) {
        if self.maps[map].failback_due.is_some_and(|due| due <= now) {
            self.maps[map].failback_due = None;
            if let Some(best) = self.maps[map].best() {
                self.switch(map, best, now);
            }
        }
    }

    fn happened(&mut self, event: Event, now: Instant) {
        match event {
            Event::Completed(path, completion) => self.came_back(path, completion, now),
            Event::Probed(path, verdict) => {
                let map = self.map_of(path);
                let at = self.maps[map].position(path);
                // One that was waited for too long is no answer any more.
                if self.maps[map].paths[at].answer_due.take().is_some() {
                    let state = match verdict {
                        Verdict::Up => PathState::Up,
                        Verdict::Ghost => PathState::Ghost,
                        Verdict::Pending => PathState::Pending,
                        Verdict::Down => PathState::Down,
                    };
                    self.checked(map, at, state, now);
                }
            }
            Event::Fenced(path) => {
                let Some(at) = self.fencing.iter().position(|(of, _)| *of == path) else { return };
                let (_, number) = self.fencing.swap_remove(at);
                let map = self.map_of(path);
                self.note(map, Change::Fenced(path), now);
                self.release(|held| matches!(held, Held::Fenced(of, begun, ..) if *of == path && *begun < number), now);
            }
            Event::NotFenced(path) => self.fencing.retain(|(of, _)| *of != path),
        }
    }
}

impl<F: Fabric> Bank for Multipath<F> {
    fn limits(&self, device: DeviceId) -> Limits {
        self.fabric.limits(device)
    }

    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        let map = self.map_at(device);
        let Request { id, extent, op } = request;
        let bytes = match op {
            Op::Flush => 0,
            _ => extent.length.bytes(),
        };
        let key = self.ios.insert(Io { map, id, extent, bytes, sent_at: now });
        self.route(key, Request { id: RequestId(key as u64), extent, op }, now);
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        let mut events = std::mem::take(&mut self.events);
        self.fabric.poll(now, &mut events);
        for event in events.drain(..) {
            self.happened(event, now);
        }
        self.events = events;
        // What came back at once needs one fence.
        for path in self.fences_wanted() {
            self.fence(path, now);
        }
        self.release(|held| matches!(held, Held::Until(due, ..) if *due <= now), now);
        if self.tick_due <= now {
            self.tick_due = Instant((now.0 / TICK.as_nanos() as u64 + 1) * TICK.as_nanos() as u64);
            self.tick(now);
        }
        done.append(&mut self.done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = self.held.iter().filter_map(|held| match held {
            Held::Until(due, ..) => Some(*due),
            Held::Fenced(..) => None,
        });
        let done = (!self.done.is_empty()).then_some(Instant::START);
        Instant::earliest([self.fabric.next_deadline(), held.min(), done, Some(self.tick_due)])
    }
}
