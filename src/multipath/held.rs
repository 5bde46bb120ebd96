//! Writes whose outcome is unknown.
//!
//! One that was sent down a path and not answered may be done, or not, or may land later: over something newer, if nobody minds. It waits
//! until it cannot ([`RetrySafety`]). When it is given up meanwhile, it may still land: then later writes over it wait in its stead.
//!
//! One that is sent again is done again, perhaps; a newer one over the same sectors must not be done between. Nobody can say beforehand
//! which will be sent again, so a write waits for those under way over its sectors.

use std::time::Duration;

use super::Multipath;
use super::errand::Io;
use super::map::Change;
use super::settings::RetrySafety;
use crate::block::mutant::{self, Mutant};
use crate::block::{DeviceId, Extent, Instant, IoError, Request, RequestId};
use crate::fabric::{Fabric, Link, PathId};

/// A write that waits until it may be sent again.
#[derive(Clone, Debug)]
pub(super) struct Held {
    map: usize,
    extent: Extent,
    until: Until,
    /// `None`: it was given up.
    write: Option<(usize, Request)>,
}

/// What a write waits for. A number says how many of its kind were begun when the write came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Until {
    Moment(Instant),
    /// The path's target has aborted this request.
    Aborted(PathId, RequestId),
    /// The unit is reset. Failing that, the nexus of this path is to be fenced.
    Reset(PathId, u64),
    /// The nexus of this path is fenced.
    Fenced(PathId, u64),
}

/// Writes that wait, and what is done about it.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    held: Vec<Held>,
    /// Paths whose nexus is being fenced, and the number of the fence.
    fencing: Vec<(PathId, u64)>,
    /// Maps whose unit is being reset, and the number of the reset.
    resetting: Vec<(usize, u64)>,
    begun_total: u64,
    /// Writes that wait for another one, by its key.
    behind: Vec<(usize, usize, Request)>,
    /// Those that need not wait any more.
    free: Vec<(usize, Request)>,
}

impl Waiting {
    /// A write is over: those behind it may go on.
    pub(super) fn is_over(&mut self, write: usize) {
        if !self.behind.is_empty() {
            let (free, behind): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.behind).into_iter().partition(|(over, ..)| *over == write);
            self.behind = behind;
            self.free.extend(free.into_iter().map(|(_, key, request)| (key, request)));
        }
    }

    /// The first moment at which something is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let moment = |held: &Held| match held.until {
            Until::Moment(due) => Some(due),
            Until::Aborted(..) | Until::Reset(..) | Until::Fenced(..) => None,
        };
        self.held.iter().filter_map(moment).min()
    }

    /// What a write over `extent` waits for, because another may still land there.
    pub(super) fn ghost(&self, map: usize, extent: Extent) -> Option<Until> {
        let ghost = |held: &&Held| held.write.is_none() && held.map == map && overlap(held.extent, extent);
        self.held.iter().find(ghost).map(|held| held.until)
    }

    fn is_fencing(&self, path: PathId) -> bool {
        self.fencing.iter().any(|(of, _)| *of == path)
    }

    fn fences_wanted(&self) -> Vec<PathId> {
        let path_of = |held: &Held| match held.until {
            Until::Fenced(path, _) => Some(path),
            Until::Moment(_) | Until::Aborted(..) | Until::Reset(..) => None,
        };
        let mut paths: Vec<PathId> = self.held.iter().filter_map(path_of).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    fn resets_wanted(&self) -> Vec<usize> {
        let wants = |held: &&Held| matches!(held.until, Until::Reset(..));
        let mut maps: Vec<usize> = self.held.iter().filter(wants).map(|held| held.map).collect();
        maps.sort_unstable();
        maps.dedup();
        maps.retain(|map| self.resetting.iter().all(|(of, _)| of != map));
        maps
    }

    /// The next step, where one was not confirmed.
    fn escalate(&mut self, which: impl Fn(&Held) -> bool) {
        let begun = self.begun_total;
        for held in self.held.iter_mut().filter(|held| which(held)) {
            held.until = match held.until {
                Until::Aborted(path, _) => Until::Reset(path, begun),
                Until::Reset(path, _) => Until::Fenced(path, begun),
                until => until,
            };
        }
    }
}

fn overlap(a: Extent, b: Extent) -> bool {
    a.start < b.end() && b.start < a.end()
}

impl<F: Fabric> Multipath<F> {
    /// Sends a client's request down a path; a write when none is under way over its sectors.
    #[inline]
    pub(super) fn begin(&mut self, key: usize, request: Request, now: Instant) {
        if request.op.is_write() {
            let map = self.ios[key].map;
            let is_under = |io: &Io| io.writes && io.map == map && overlap(io.extent, request.extent);
            if let Some((over, _)) = self.ios.iter().find(|(_, io)| is_under(io))
                && !mutant::is_on(Mutant::OverlapsWrites)
            {
                return self.waiting.behind.push((over, key, request));
            }
            self.ios[key].writes = true;
        }
        self.route(key, request, now);
    }

    /// Writes go on that others were under way before.
    pub(super) fn go_on(&mut self, now: Instant) {
        while let Some((key, request)) = self.waiting.free.pop() {
            self.begin(key, request, now);
        }
    }

    /// Where writes to a unit that were given up may still land.
    pub fn may_still_land(&self) -> impl Iterator<Item = (DeviceId, Extent)> + '_ {
        let given_up = self.waiting.held.iter().filter(|held| held.write.is_none());
        given_up.map(|held| (self.maps[held.map].unit, held.extent))
    }

    /// A write came back from a path, and nobody knows whether it was done.
    pub(super) fn outcome_unknown(&mut self, path: PathId, key: usize, request: Request, error: IoError, now: Instant) {
        let io = &self.ios[key];
        let (map, extent, epoch) = (io.map, io.extent, io.epoch);
        let gives_up = !self.maps[map].has_path() && !self.waits(map);
        let begun = self.waiting.begun_total;
        let until = match self.settings().retry_safety {
            _ if mutant::is_on(Mutant::RetryWithoutFence) => None,
            _ if mutant::is_on(Mutant::HoldTooShort) => Some(Until::Moment(now + Duration::from_millis(10))),
            RetrySafety::None => None,
            RetrySafety::Epoch => {
                self.raise_epoch(map, epoch, now);
                None
            }
            RetrySafety::Hold(time) => Some(Until::Moment(now + time)),
            RetrySafety::Abort if !gives_up && self.fabric().link(path) == Link::Online => {
                self.note(map, Change::Aborting(path), now);
                self.fabric_mut().abort(path, request.id, now);
                Some(Until::Aborted(path, request.id))
            }
            RetrySafety::Abort => Some(Until::Reset(path, begun)),
            RetrySafety::Fence => Some(Until::Fenced(path, begun)),
        };
        let write = match gives_up {
            true => {
                self.finish(key, request.complete(Err(error)));
                None
            }
            false => Some((key, request)),
        };
        match (until, write) {
            (Some(_), None) if mutant::is_on(Mutant::GivenUpForgotten) => {}
            (Some(until), write) => self.waiting.held.push(Held { map, extent, until, write }),
            (None, Some((key, request))) => self.reroute(key, request, now),
            (None, None) => {}
        }
    }

    /// A write waits for what an older one over the same sectors waited for.
    pub(super) fn hold(&mut self, key: usize, request: Request, until: Until) {
        let (map, extent) = (self.ios[key].map, request.extent);
        self.waiting.held.push(Held { map, extent, until, write: Some((key, request)) });
    }

    /// What is sent from now on is of a newer connection generation than what was sent in `epoch`.
    fn raise_epoch(&mut self, map: usize, epoch: u64, now: Instant) {
        if self.maps[map].epoch == epoch {
            let newer = epoch + 1;
            self.maps[map].epoch = newer;
            let unit = self.maps[map].unit;
            self.fabric_mut().set_epoch(unit, newer);
            self.note(map, Change::Epoch(newer), now);
        }
    }

    /// Gives up a map's writes; what they were still may land.
    pub(super) fn give_up_held(&mut self, map: usize) -> Vec<(usize, Request)> {
        self.waiting.escalate(|held| held.map == map && matches!(held.until, Until::Aborted(..)));
        let of_map = self.waiting.held.iter_mut().filter(|held| held.map == map);
        let given_up = of_map.filter_map(|held| held.write.take()).collect();
        if mutant::is_on(Mutant::GivenUpForgotten) {
            self.waiting.held.retain(|held| held.map != map);
        }
        given_up
    }

    /// Sees to it that nothing that is waited for lands any more: asks for it on every path that may be well, since what took one
    /// may have taken others. Without any it is done when there is one.
    pub(super) fn pursue(&mut self, now: Instant) {
        if self.waiting.held.is_empty() {
            return;
        }
        for map in self.waiting.resets_wanted() {
            self.reset(map, now);
        }
        for path in self.waiting.fences_wanted() {
            self.fence(path, now);
        }
        self.release(|held| matches!(held.until, Until::Moment(due) if due <= now), now);
    }

    fn active_paths(&self, map: usize, but: Option<PathId>) -> Vec<PathId> {
        let paths = self.maps[map].paths.iter().filter(|path| path.active && Some(path.id) != but);
        paths.map(|path| path.id).collect()
    }

    fn reset(&mut self, map: usize, now: Instant) {
        let ways = self.active_paths(map, None);
        if ways.is_empty() {
            return self.waiting.escalate(|held| held.map == map && matches!(held.until, Until::Reset(..)));
        }
        self.waiting.begun_total += 1;
        self.waiting.resetting.push((map, self.waiting.begun_total));
        self.note(map, Change::Resetting, now);
        let unit = self.maps[map].unit;
        for way in ways {
            self.fabric_mut().reset(unit, way, now);
        }
    }

    fn fence(&mut self, path: PathId, now: Instant) {
        if self.waiting.is_fencing(path) {
            return;
        }
        let (map, _) = self.place(path);
        let mut ways = self.active_paths(map, Some(path));
        if ways.is_empty() {
            // Alone it speaks for itself: a write may have come back while an older fence was asked for, which does not count for it.
            ways = self.active_paths(map, None);
        }
        if !ways.is_empty() {
            self.begin_fence(map, path, &ways, now);
        }
    }

    fn begin_fence(&mut self, map: usize, path: PathId, ways: &[PathId], now: Instant) {
        self.waiting.begun_total += 1;
        self.waiting.fencing.push((path, self.waiting.begun_total));
        self.note(map, Change::Fencing(path), now);
        for way in ways {
            self.fabric_mut().fence(path, *way, now);
        }
    }

    /// A path takes requests again: one more way to ask.
    pub(super) fn ask_by(&mut self, map: usize, path: PathId, now: Instant) {
        for wanted in self.waiting.fences_wanted() {
            if wanted == path && !self.waiting.is_fencing(path) {
                // It speaks for itself: what goes down it from now on is of a nexus that begins anew.
                self.begin_fence(map, path, &[path], now);
            } else if self.waiting.is_fencing(wanted) {
                self.fabric_mut().fence(wanted, path, now);
            } else {
                self.fence(wanted, now);
            }
        }
    }

    fn release(&mut self, which: impl Fn(&Held) -> bool, now: Instant) {
        let (free, held) = std::mem::take(&mut self.waiting.held).into_iter().partition(|held| which(held));
        self.waiting.held = held;
        let free: Vec<Held> = free;
        for (key, request) in free.into_iter().filter_map(|held| held.write) {
            self.reroute(key, request, now);
        }
    }

    pub(super) fn fenced(&mut self, path: PathId, now: Instant) {
        let Some(at) = self.waiting.fencing.iter().position(|(of, _)| *of == path) else { return };
        let (_, number) = self.waiting.fencing.swap_remove(at);
        let (map, _) = self.place(path);
        self.note(map, Change::Fenced(path), now);
        self.release(|held| matches!(held.until, Until::Fenced(of, begun) if of == path && begun < number), now);
    }

    pub(super) fn not_fenced(&mut self, path: PathId) {
        self.waiting.fencing.retain(|(of, _)| *of != path);
    }

    pub(super) fn aborted(&mut self, path: PathId, id: RequestId, now: Instant) {
        let (map, _) = self.place(path);
        self.note(map, Change::Aborted(path), now);
        self.release(|held| held.until == Until::Aborted(path, id), now);
    }

    pub(super) fn not_aborted(&mut self, path: PathId, id: RequestId) {
        self.waiting.escalate(|held| held.until == Until::Aborted(path, id));
    }

    pub(super) fn was_reset(&mut self, unit: DeviceId, now: Instant) {
        let map = self.map_at(unit);
        let Some(at) = self.waiting.resetting.iter().position(|(of, _)| *of == map) else { return };
        let (_, number) = self.waiting.resetting.swap_remove(at);
        self.note(map, Change::Reset, now);
        let is_free = |held: &Held| held.map == map && matches!(held.until, Until::Reset(_, begun) if begun < number);
        self.release(is_free, now);
    }

    pub(super) fn not_reset(&mut self, unit: DeviceId) {
        let map = self.map_at(unit);
        self.waiting.resetting.retain(|(of, _)| *of != map);
        self.waiting.escalate(|held| held.map == map && matches!(held.until, Until::Reset(..)));
    }
}
