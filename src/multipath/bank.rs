//! Maps as a bank: a device for every logical unit that a fabric's paths lead to.
//!
//! A request that comes back with a path's error fails the path and goes down
//! another; so does every other that comes back from it, when the transport gives it back. A write whose outcome is unknown waits until
//! it cannot land twice ([`RetrySafety`]).
//!
//! Once a second a map does what multipathd does: it looks whose check is due, whether a better group is there to go back to,
//! and how long requests have waited for a path.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

use super::map::{Change, Map, Path, PathState, Why, alua_prio};
use super::selector::{Load, select};
use super::settings::{Checker, Failback, Grouping, NoPathRetry, Prio, RetrySafety, Settings};
use crate::block::{Bank, Completion, DeviceId, Extent, Instant, IoError, Limits, Op, Request, RequestId, Wakeups};
use crate::fabric::{Event, Fabric, Link, PathId, Probe, Verdict, is_path_error};

#[derive(Clone, Debug)]
struct Io {
    map: usize,
    id: RequestId,
    extent: Extent,
    bytes: u64,
    sent_at: Instant,
}

/// A write that waits until it may be sent again.
#[derive(Clone, Debug)]
struct Held {
    key: usize,
    request: Request,
    until: Until,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    Moment(Instant),
    /// The nexus of this path is fenced, by a fence that was begun after so many others.
    Fenced(PathId, u64),
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

impl<F: Fabric> Multipath<F> {
    /// A map for every logical unit that the fabric's paths lead to. All paths are taken to be well until one is checked.
    pub fn new(fabric: F, settings: Settings) -> Multipath<F> {
        let mut units: Vec<DeviceId> = fabric.paths().iter().map(|path| path.unit).collect();
        units.sort_unstable();
        units.dedup();
        let map = |unit: &DeviceId| {
            let of_it = |at: &usize| fabric.paths()[*at].unit == *unit;
            let ids = (0..fabric.paths().len()).filter(of_it).map(|at| PathId(at as u16));
            Map::new(*unit, ids.map(|id| Path::new(id, &settings)).collect())
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

    /// The paths' own world, without the maps over it: requests that wait are forgotten.
    pub fn into_fabric(self) -> F {
        self.fabric
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
        let loads: SmallVec<[Load; 8]> = map.paths.iter().map(|path| path.load).collect();
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
            RetrySafety::Hold(time) => self.held.push(Held { key, request, until: Until::Moment(now + time) }),
            RetrySafety::Fence => {
                let until = Until::Fenced(path, self.fences_total);
                self.held.push(Held { key, request, until });
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
        let path_of = |held: &Held| match held.until {
            Until::Fenced(path, _) => Some(path),
            Until::Moment(_) => None,
        };
        let mut paths: Vec<PathId> = self.held.iter().filter_map(path_of).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// Takes out those that are held and for which `which` is true.
    fn take_held(&mut self, which: impl Fn(&Held) -> bool) -> Vec<Held> {
        let (taken, left) = std::mem::take(&mut self.held).into_iter().partition(|held| which(held));
        self.held = left;
        taken
    }

    fn release(&mut self, is_due: impl Fn(Until) -> bool, now: Instant) {
        for Held { key, request, .. } in self.take_held(|held| is_due(held.until)) {
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
        let mut failed: Vec<(usize, Request)> = std::mem::take(&mut of.queue).into();
        let keys: Vec<usize> = self.held.iter().map(|held| held.key).filter(|key| self.ios[*key].map == map).collect();
        failed.extend(self.take_held(|held| keys.contains(&held.key)).into_iter().map(|held| (held.key, held.request)));
        if !failed.is_empty() {
            self.note(map, Change::GaveUp(failed.len()), now);
        }
        for (key, request) in failed {
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
                self.release(|until| matches!(until, Until::Fenced(of, begun) if of == path && begun < number), now);
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
        self.release(|until| matches!(until, Until::Moment(due) if due <= now), now);
        if self.tick_due <= now {
            self.tick_due = Instant((now.0 / TICK.as_nanos() as u64 + 1) * TICK.as_nanos() as u64);
            self.tick(now);
        }
        done.append(&mut self.done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = self.held.iter().filter_map(|held| match held.until {
            Until::Moment(due) => Some(due),
            Until::Fenced(..) => None,
        });
        let done = (!self.done.is_empty()).then_some(Instant::START);
        Instant::earliest([self.fabric.next_deadline(), held.min(), done, Some(self.tick_due)])
    }
}

impl<F: Fabric + Wakeups> Wakeups for Multipath<F> {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        self.fabric.wakeups()
    }
}
