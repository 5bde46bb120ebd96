//! Maps as a bank: a device for every logical unit that a fabric's paths lead to.
//!
//! A request that comes back with a path's error fails the path and goes down
//! another; so does every other that comes back from it, when the transport gives it back. A write whose outcome is unknown waits until
//! it cannot land twice ([`RetrySafety`]).
//!
//! Once a second a map does what multipathd does: it looks whose check is due, whether a better group is there to go back to,
//! and how long requests have waited for a path.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use slab::Slab;

use super::errand::{Errand, Io};
use super::held::Waiting;
use super::map::{Change, Map, Path, Why};
use super::pace::Pace;
use super::selector::{Incoming, select};
use super::settings::{Grouping, NoPathRetry, Prio, SelectorKind, Settings};
use crate::block::mutant::{self, Mutant};
use crate::block::{Bank, Completion, DeviceId, Instant, IoError, Limits, Op, Request, RequestId, Wakeups};
use crate::fabric::{Access, Event, Fabric, PathId};

/// Maps over a fabric.
#[derive(Clone, Debug)]
pub struct Multipath<F> {
    pub(super) fabric: F,
    pub(super) settings: Settings,
    pub(super) maps: Vec<Map>,
    /// The map of each unit, by the unit's number.
    units: Vec<usize>,
    /// The map of each path, and the path's place in it.
    pub(super) places: Vec<(usize, usize)>,
    pub(super) ios: Slab<Io>,
    pub(super) waiting: Waiting,
    pace: Pace,
    /// When reads that are under way will be late, and their keys: in that order.
    pub(super) reads: VecDeque<(Instant, usize)>,
    pub(super) samples_due: Option<Instant>,
    pub(super) traffic_due: Option<Instant>,
    tick_due: Instant,
    /// Random numbers that were drawn.
    pub(super) drawn: u64,
    done: Vec<(DeviceId, Completion)>,
    events: Vec<Event>,
    changes: Vec<(Instant, DeviceId, Change)>,
}

pub(super) const TICK: Duration = Duration::from_secs(1);

impl<F: Fabric> Multipath<F> {
    /// A map for every logical unit that the fabric's paths lead to. All paths are taken to be well until one is checked.
    /// Without `multi_conn` one path is used at a time, whatever the grouping.
    pub fn new(fabric: F, mut settings: Settings) -> Multipath<F> {
        if !settings.multi_conn {
            settings.grouping = Grouping::Failover;
        }
        let mut units: Vec<DeviceId> = fabric.paths().iter().map(|path| path.unit).collect();
        units.sort_unstable();
        units.dedup();
        let mut multipath = Multipath {
            fabric,
            settings,
            maps: Vec::new(),
            units: Vec::new(),
            places: Vec::new(),
            ios: Slab::new(),
            waiting: Waiting::default(),
            pace: Pace::default(),
            reads: VecDeque::new(),
            samples_due: None,
            traffic_due: settings.monitors.traffic.then_some(Instant::START),
            tick_due: Instant::START,
            drawn: 0,
            done: Vec::new(),
            events: Vec::new(),
            changes: Vec::new(),
        };
        units.into_iter().for_each(|unit| multipath.add_unit(unit));
        multipath
    }

    /// A map for a logical unit that the fabric's paths lead to, too, by now.
    pub fn add_unit(&mut self, unit: DeviceId) {
        let map = self.maps.len();
        self.units.resize(self.units.len().max(unit.0 as usize + 1), usize::MAX);
        self.units[unit.0 as usize] = map;
        self.places.resize(self.fabric.paths().len(), (usize::MAX, usize::MAX));
        let all = self.fabric.paths().iter().enumerate();
        let ids: Vec<PathId> = all.filter(|(_, path)| path.unit == unit).map(|(at, _)| PathId(at as u16)).collect();
        for (at, id) in ids.iter().enumerate() {
            self.places[usize::from(id.0)] = (map, at);
        }
        let paths = ids.into_iter().map(|id| Path::new(id, &self.settings)).collect();
        self.maps.push(Map::new(unit, paths));
        self.read_priorities(map);
        self.regroup(map);
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

    /// When the oldest request was sent that is under way on a path.
    pub(super) fn oldest(&self, map: &Map, path: &Path) -> Option<Instant> {
        let (number, at) = self.place(path.id);
        debug_assert_eq!(self.maps[number].unit, map.unit, "the path is one of the map's");
        let is_there = |io: &Io| io.map == number && io.path == Some(at) && io.is_of_a_client();
        self.ios.iter().filter(|(_, io)| is_there(io)).map(|(_, io)| io.sent_at).min()
    }

    /// What happened since the last call.
    pub fn drain_changes(&mut self) -> Vec<(Instant, DeviceId, Change)> {
        std::mem::take(&mut self.changes)
    }

    /// Nothing new goes down a path, until its checker finds it well.
    pub fn fail_path(&mut self, path: PathId, now: Instant) {
        let (map, _) = self.place(path);
        self.fail(map, path, Why::Asked, now);
    }

    /// A path takes requests again, until one of them fails.
    pub fn reinstate_path(&mut self, path: PathId, now: Instant) {
        let (map, _) = self.place(path);
        self.reinstate(map, path, now);
    }

    /// Requests go down this group from now on.
    pub fn switch_group(&mut self, unit: DeviceId, group: usize, now: Instant) {
        let map = self.map_at(unit);
        self.move_to(map, group, now);
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

    pub(super) fn map_at(&self, unit: DeviceId) -> usize {
        let map = self.units[unit.0 as usize];
        debug_assert_eq!(self.maps[map].unit, unit, "there is a map for every unit");
        map
    }

    /// The map of a path, and its place in it.
    pub(super) fn place(&self, path: PathId) -> (usize, usize) {
        self.places[usize::from(path.0)]
    }

    pub(super) fn note(&mut self, map: usize, change: Change, now: Instant) {
        let unit = self.maps[map].unit;
        self.changes.push((now, unit, change));
    }

    // ---- requests ----

    /// Sends a request down a path, or has it wait for one.
    #[inline]
    pub(super) fn route(&mut self, key: usize, request: Request, now: Instant) {
        let Io { map: at, bytes, id, .. } = self.ios[key];
        if request.op.is_write()
            && let Some(until) = self.waiting.ghost(at, request.extent)
            && (self.maps[at].has_path() || self.waits(at))
        {
            return self.hold(key, request, until);
        }
        let map = &mut self.maps[at];
        if let Some(switching) = &mut map.switching {
            return switching.wait(key, request);
        }
        if map.current.is_none_or(|group| map.groups[group].order.is_empty()) {
            match map.best() {
                Some(group) => self.switch(at, group, now),
                None => return self.wait_or_fail(key, request, now),
            }
        }
        let map = &mut self.maps[at];
        let group = &mut map.groups[map.current.expect("a group was just chosen")];
        let incoming = Incoming { bytes, cpu: id.0 as usize, now };
        let paths = &map.paths;
        let load = |path: usize| &paths[path].load;
        let chosen = select(self.settings.selector, &mut group.order, &group.paths, load, incoming);
        let chosen = chosen.expect("the group has a path that takes requests");
        let path = &mut map.paths[chosen];
        path.load.begin(bytes);
        let id = path.id;
        let epoch = map.epoch;
        let io = &mut self.ios[key];
        (io.path, io.sent_at, io.epoch) = (Some(chosen), now, epoch);
        if self.settings.read_hedge_after.is_some() && matches!(request.op, Op::Read(_)) {
            self.watch_read(key, now);
        }
        self.fabric.submit(id, request, now);
    }

    /// Sends a request down another path, when it is its turn.
    pub(super) fn reroute(&mut self, key: usize, request: Request, now: Instant) {
        if let Some(request) = self.pace.admit(key, request, self.settings.requeue_rate, now) {
            self.route(key, request, now);
        }
    }

    fn wait_or_fail(&mut self, key: usize, request: Request, now: Instant) {
        let at = self.ios[key].map;
        let waits = self.waits(at);
        let map = &mut self.maps[at];
        let bytes = self.ios[key].bytes;
        let is_full = map.queue_bytes + bytes > self.settings.queue_bytes_max && !mutant::is_on(Mutant::QueueUnbounded);
        if !waits || is_full {
            return self.finish(key, request.complete(Err(IoError::Transport)));
        }
        map.queue_bytes += bytes;
        map.queue.push_back((key, request));
        if map.queue.len() == 1 {
            self.note(at, Change::Queueing, now);
        }
    }

    /// Whether requests wait when no path is left.
    pub(super) fn waits(&self, map: usize) -> bool {
        match self.settings.no_path_retry {
            NoPathRetry::Fail => false,
            NoPathRetry::Queue | NoPathRetry::Checks(_) => !self.maps[map].gave_up && !self.maps[map].asked_to_fail,
        }
    }

    #[inline]
    pub(super) fn finish(&mut self, key: usize, completion: Completion) {
        let Io { map, id, writes, .. } = self.ios[key];
        self.ios.remove(key);
        if writes {
            self.waiting.is_over(key);
        }
        self.done.push((self.maps[map].unit, completion));
        // Set before it was moved, it would have to be read back by the move, which costs ten times as much.
        let (_, done) = self.done.last_mut().expect("it was just put there");
        done.id = id;
    }

    /// The unit has answered. An error is the unit's own, and the same on all paths: none is to blame.
    #[inline]
    fn answered(&mut self, path: PathId, completion: Completion, now: Instant) {
        let key = completion.id.0 as usize;
        let io = self.ios[key];
        if !io.is_of_a_client() {
            return self.own_came_back(path, key, None, now);
        }
        if let Err(error) = completion.result
            && mutant::is_on(Mutant::TargetErrorFailsPath)
        {
            let request = Request { id: completion.id, extent: io.extent, op: completion.op };
            return self.given_back(path, request, error, now);
        }
        self.count(path, &io, true, now);
        self.ios[key].path = None;
        // Refused for its connection generation it was not done, and says nothing of the sectors: it was sent before that was raised.
        let is_too_old = completion.result == Err(IoError::Fenced) && io.epoch < self.maps[io.map].epoch;
        if io.errand != Errand::Client {
            return if is_too_old { self.lose_race(key) } else { self.win_race(key, completion) };
        }
        match is_too_old {
            true => self.reroute(key, Request { id: completion.id, extent: io.extent, op: completion.op }, now),
            false => self.finish(key, completion),
        }
    }

    /// A request came back without an answer.
    fn given_back(&mut self, path: PathId, request: Request, error: IoError, now: Instant) {
        let key = request.id.0 as usize;
        let io = self.ios[key];
        if !io.is_of_a_client() {
            return self.own_came_back(path, key, Some(error), now);
        }
        self.count(path, &io, false, now);
        self.ios[key].path = None;
        self.fail(io.map, path, Why::Io(error), now);
        if mutant::is_on(Mutant::StaleBuffer) && matches!(request.op, Op::Read(_)) {
            return self.finish(key, request.complete(Ok(())));
        }
        match (io.errand, request.op.is_write()) {
            (Errand::Client, true) => self.outcome_unknown(path, key, request, error, now),
            (Errand::Client, false) => self.reroute(key, request, now),
            _ => self.lose_race(key),
        }
    }

    /// A client's request is not under way on its path any more.
    #[inline]
    fn count(&mut self, path: PathId, io: &Io, is_answered: bool, now: Instant) {
        let (_, at) = self.place(path);
        let map = &mut self.maps[io.map];
        let path = &mut map.paths[at];
        path.load.end(io.bytes);
        if self.settings.selector == SelectorKind::HistoricalServiceTime {
            path.load.remember(io.sent_at, map.groups[path.group].order.len(), now);
        }
        path.latencies.record(io.sent_at, now);
        if is_answered {
            path.heard_at = now;
            // What was asked before the path failed may be answered later, and says nothing of what waits since.
            if path.active && io.sent_at >= path.reinstated_at {
                path.served = true;
                // Requests are served again: when none is any more, they wait anew.
                (map.gave_up, map.give_up_at) = (false, None);
            }
        } else {
            path.erred = io.sent_at;
        }
    }

    // ---- paths and groups ----

    pub(super) fn fail(&mut self, map: usize, path: PathId, why: Why, now: Instant) {
        let of = &mut self.maps[map];
        let (_, at) = self.places[usize::from(path.0)];
        let path_now = &mut of.paths[at];
        if !std::mem::replace(&mut path_now.active, false) {
            return;
        }
        path_now.since = now;
        path_now.failures_total += 1;
        path_now.well_at = None;
        path_now.interval = self.settings.polling_interval;
        path_now.check_due = path_now.check_due.min(now + self.settings.polling_interval);
        // What somebody asked for says nothing of the path.
        let is_new = path_now.erred >= path_now.reinstated_at;
        // One that nothing was asked of for so long may have been well all that time.
        let queueing_max = self.settings.queueing_max().unwrap_or(Duration::MAX);
        let is_idle = is_new && path_now.erred.since(path_now.reinstated_at) > queueing_max;
        let is_barren = matches!(why, Why::Io(_)) && !path_now.served && is_new && !is_idle;
        if why != Why::Asked {
            path_now.trial.failed(&self.settings, !is_barren, now);
        }
        of.totals.path_faults += 1;
        of.failback_due = None;
        let group = path_now.group;
        if !mutant::is_on(Mutant::FailedPathUsed) {
            of.groups[group].order.retain(|member| *member != at);
        }
        // A path that came back and served nothing was none: requests have waited since before it.
        let goes_on = is_barren && (of.gave_up || of.give_up_at.is_some()) || self.waits_already(map);
        let of = &mut self.maps[map];
        if !of.has_path() && (!goes_on || mutant::is_on(Mutant::CheckerProlongsWait)) {
            of.gave_up = false;
            of.give_up_at = self.settings.queueing_max().map(|time| now + time);
        }
        self.note(map, Change::Failed(path, why), now);
        // Whoever looks only now and then may always find a path that has just come back and will not serve, either.
        if self.maps[map].waits_in_vain(now) {
            self.give_up(map, now);
        }
        if mutant::is_on(Mutant::BackAtOnce) && why != Why::Asked {
            self.reinstate(map, path, now);
        }
    }

    /// Whether a request has waited since the last path was lost that served any: others came back meanwhile, and served none.
    fn waits_already(&self, map: usize) -> bool {
        let (Some(at), Some(time)) = (self.maps[map].give_up_at, self.settings.queueing_max()) else { return false };
        let is_old = |io: &Io| io.map == map && io.is_of_a_client() && io.begun + time <= at;
        self.ios.iter().any(|(_, io)| is_old(io))
    }

    pub(super) fn reinstate(&mut self, map: usize, path: PathId, now: Instant) {
        let of = &mut self.maps[map];
        let (_, at) = self.places[usize::from(path.0)];
        let path_now = &mut of.paths[at];
        if std::mem::replace(&mut path_now.active, true) {
            return;
        }
        (path_now.since, path_now.reinstated_at, path_now.served) = (now, now, false);
        let order = &mut of.groups[path_now.group].order;
        match self.settings.selector {
            SelectorKind::RoundRobin => order.insert(0, at),
            _ => order.push(at),
        }
        self.note(map, Change::Reinstated(path), now);
        self.ask_by(map, path, now);
        let of = &mut self.maps[map];
        of.queue_bytes = 0;
        let queue = std::mem::take(&mut of.queue);
        if !queue.is_empty() {
            self.note(map, Change::Resumed(queue.len()), now);
        }
        for (key, request) in queue {
            self.reroute(key, request, now);
        }
    }

    /// Requests go down this group from now on.
    pub(super) fn switch(&mut self, map: usize, group: usize, now: Instant) {
        let of = &mut self.maps[map];
        let before = of.current.replace(group);
        if before.is_some_and(|before| before != group) {
            of.totals.switch_grp += 1;
            self.note(map, Change::Switched(group), now);
        }
        if before != Some(group) {
            self.activate(map, group, now);
        }
    }

    /// Asks the target for the group's ports, where they are known to be standby (`pg_init`).
    fn activate(&mut self, map: usize, group: usize, now: Instant) {
        let of = &self.maps[map];
        let paths = of.groups[group].paths.iter().map(|at| &of.paths[*at]).filter(|path| path.active);
        let paths: Vec<PathId> = paths.map(|path| path.id).collect();
        let is_standby = paths.iter().all(|path| self.fabric.access(*path) == Access::Standby);
        if self.settings.prio == Prio::Alua && is_standby {
            for path in paths {
                self.fabric.activate(path, now);
            }
        }
    }

    pub(super) fn give_up(&mut self, map: usize, now: Instant) {
        if mutant::is_on(Mutant::QueuesForEver) {
            return;
        }
        let of = &mut self.maps[map];
        of.totals.q_timeouts += u64::from(!of.gave_up);
        of.gave_up = true;
        of.give_up_at = None;
        of.queue_bytes = 0;
        let mut failed: Vec<(usize, Request)> = std::mem::take(&mut of.queue).into();
        failed.extend(self.give_up_held(map));
        if !failed.is_empty() {
            self.note(map, Change::GaveUp(failed.len()), now);
        }
        for (key, request) in failed {
            self.finish(key, request.complete(Err(IoError::Transport)));
        }
    }

    pub(super) fn regroup(&mut self, map: usize) {
        let (grouping, infos) = (self.settings.grouping, self.fabric.paths());
        self.maps[map].regroup(grouping, infos);
    }

    /// Priorities are others, perhaps: groups are rated anew, and made anew where they are by priority.
    pub(super) fn rate(&mut self, map: usize) {
        if self.read_priorities(map) && self.settings.grouping == Grouping::GroupByPrio {
            self.regroup(map);
        }
        self.maps[map].rate();
    }

    #[inline]
    fn happened(&mut self, event: Event, now: Instant) {
        match event {
            Event::Completed(path, completion) => {
                self.answered(path, completion, now);
                self.mind_switching(path, now);
            }
            Event::GivenBack(path, request, error) => {
                self.given_back(path, request, error, now);
                self.mind_switching(path, now);
            }
            Event::Probed(path, verdict) => self.probed(path, verdict, now),
            Event::Fenced(path) => self.fenced(path, now),
            Event::NotFenced(path) => self.not_fenced(path),
            Event::Aborted(path, id) => self.aborted(path, id, now),
            Event::NotAborted(path, id) => self.not_aborted(path, id),
            Event::Reset(unit) => self.was_reset(unit, now),
            Event::NotReset(unit) => self.not_reset(unit),
        }
    }
}

impl<F: Fabric> Bank for Multipath<F> {
    fn limits(&self, device: DeviceId) -> Limits {
        self.fabric.limits(device)
    }

    fn submit(&mut self, device: DeviceId, mut request: Request, now: Instant) {
        let map = self.map_at(device);
        let Request { id, extent, .. } = request;
        let bytes = match request.op {
            Op::Flush => 0,
            _ => extent.length.bytes(),
        };
        let key = self.ios.insert(Io {
            map,
            path: None,
            id,
            extent,
            bytes,
            begun: now,
            sent_at: now,
            epoch: 0,
            errand: Errand::Client,
            writes: false,
        });
        request.id = RequestId(key as u64);
        if mutant::is_on(Mutant::FlushNotSent) && matches!(request.op, Op::Flush) {
            return self.finish(key, request.complete(Ok(())));
        }
        self.begin(key, request, now);
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        let mut events = std::mem::take(&mut self.events);
        self.fabric.poll(now, &mut events);
        for event in events.drain(..) {
            self.happened(event, now);
        }
        self.events = events;
        // What came back at once needs one fence.
        self.pursue(now);
        while let Some((key, request)) = self.pace.next(self.settings.requeue_rate, now) {
            self.route(key, request, now);
        }
        self.hedge(now);
        self.sample(now);
        self.watch(now);
        if self.tick_due <= now {
            self.tick_due = Instant((now.0 / TICK.as_nanos() as u64 + 1) * TICK.as_nanos() as u64);
            self.tick(now);
        }
        self.go_on(now);
        if done.is_empty() {
            std::mem::swap(done, &mut self.done);
        } else {
            done.append(&mut self.done);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let done = (!self.done.is_empty()).then_some(Instant::START);
        let late = self.reads.front().map(|(due, _)| *due);
        let own = [self.samples_due, self.traffic_due, Some(self.tick_due), self.pace.due(), late];
        Instant::earliest([self.fabric.next_deadline(), self.waiting.next_deadline(), done, Instant::earliest(own)])
    }
}

impl<F: Fabric + Wakeups> Wakeups for Multipath<F> {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        self.fabric.wakeups()
    }
}
