//! Whether paths are well: what multipathd does once a second, and what else is watched.
//!
//! Three monitors, any set of which may be on (bonding has the same two kinds besides the probe, MII and ARP):
//!
//! | | lost | back |
//! |---|---|---|
//! | `probe` | a check is not answered, or badly | a check is answered well |
//! | `link` | the link says so, `downdelay` ago | the link says so |
//! | `traffic` | nothing was heard for (`traffic_missed_max` + ½) × `traffic_interval`, though it was asked for | something is heard |
//!
//! A path that is found well is taken when it has been so for `updelay`, and when there is nothing on its account
//! ([`trial`](super::trial)).

use std::time::Duration;

use super::Multipath;
use super::bank::TICK;
use super::map::{Change, Obstacle, PathState, Why};
use super::settings::{Checker, Failback};
use crate::block::Instant;
use crate::fabric::{Fabric, Link, PathId, Probe, Verdict};

impl<F: Fabric> Multipath<F> {
    /// Once a second.
    pub(super) fn tick(&mut self, now: Instant) {
        for map in 0..self.maps.len() {
            for at in 0..self.maps[map].paths.len() {
                if self.settings.monitors.probe {
                    self.look_at(map, at, now);
                }
                self.mind_delays(map, at, now);
            }
            let of = &mut self.maps[map];
            of.totals.total_q_time += u64::from(!of.queue.is_empty());
            if of.waits_in_vain(now) {
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
                path.set_state(PathState::Pending, now);
                path.check_due = now + TICK;
            }
            (Link::FastFailed, _) => self.checked(map, at, PathState::Down, now),
            (Link::Removed, _) => self.checked(map, at, PathState::Removed, now),
            (Link::Online, Checker::None) => self.checked(map, at, PathState::Up, now),
            (Link::Online, _) => {
                path.answer_due = Some(now + self.settings.checker_timeout);
                self.ask(id, now);
            }
        }
    }

    /// Asks as the checker asks: whatever the question was for, its answer is one to all questions.
    fn ask(&mut self, path: PathId, now: Instant) {
        let probe = if self.settings.checker == Checker::DirectIo { Probe::DirectIo } else { Probe::Tur };
        self.fabric.probe(path, probe, now);
    }

    /// A probe was answered: a check, or a question that was to bring some traffic.
    pub(super) fn probed(&mut self, path: PathId, verdict: Verdict, now: Instant) {
        let (map, at) = self.place(path);
        let path = &mut self.maps[map].paths[at];
        path.heard_at = now;
        // A check that was waited for too long is none any more.
        let is_check = path.answer_due.take().is_some();
        if is_check || !self.settings.monitors.probe {
            path.checked_at = if is_check { path.checked_at } else { now };
            let state = match verdict {
                Verdict::Up => PathState::Up,
                Verdict::Ghost => PathState::Ghost,
                Verdict::Pending => PathState::Pending,
                Verdict::Down => PathState::Down,
            };
            self.checked(map, at, state, now);
        }
    }

    /// A check has a result.
    fn checked(&mut self, map: usize, at: usize, found: PathState, now: Instant) {
        let (shortest, longest) = (self.settings.polling_interval, self.settings.max_polling_interval);
        let path = &mut self.maps[map].paths[at];
        let before = path.state;
        let id = path.id;
        let well = matches!(found, PathState::Up | PathState::Ghost);
        path.interval = if well && before == found { (path.interval * 2).min(longest) } else { shortest };
        path.check_due = path.checked_at + path.interval;
        match found {
            PathState::Up | PathState::Ghost => self.found_well(map, at, found, now),
            PathState::Down | PathState::Timeout | PathState::Removed => self.found_lost(map, at, found, now),
            PathState::Pending | PathState::Shaky | PathState::Delayed | PathState::Unchecked => {
                path.set_state(found, now);
            }
        }
        self.rate(map);
        self.consider_failback(map, id, before, now);
    }

    /// A path is well, by all that is known: it is taken, unless something stands against it.
    fn found_well(&mut self, map: usize, at: usize, found: PathState, now: Instant) {
        let alone = self.maps[map].is_alone(at);
        let path = &mut self.maps[map].paths[at];
        let (id, before) = (path.id, path.state);
        path.lost_at = None;
        path.well_at.get_or_insert(now);
        if path.active {
            path.trial.forget(&self.settings.san_path_err);
        }
        let obstacle = path.obstacle(&self.settings, alone, now);
        if path.trial.is_tried() {
            self.samples_due.get_or_insert(now);
        }
        let is_marginal = matches!(obstacle, Some(Obstacle::Marginal(_))) && self.settings.marginal_pathgroups;
        if std::mem::replace(&mut path.marginal, is_marginal) != is_marginal {
            self.note(map, Change::Marginal(id, is_marginal), now);
            self.regroup(map);
        }
        let path = &mut self.maps[map].paths[at];
        match obstacle {
            Some(Obstacle::Marginal(state) | Obstacle::Wait(state, _)) if !is_marginal => {
                path.set_state(state, now);
                path.interval = self.settings.polling_interval;
                path.check_due = now + path.interval;
                if let Some(Obstacle::Wait(_, until)) = obstacle {
                    path.check_due = path.check_due.min(until);
                }
                if before != state {
                    self.note(map, Change::KeptOut(id, state), now);
                }
            }
            _ => {
                path.set_state(found, now);
                self.reinstate(map, id, now);
                self.measure(map, at, now);
            }
        }
    }

    /// A path is lost, by its checker: it is failed when that has been so for `downdelay`.
    fn found_lost(&mut self, map: usize, at: usize, state: PathState, now: Instant) {
        let downdelay = self.settings.downdelay;
        let path = &mut self.maps[map].paths[at];
        let id = path.id;
        path.set_state(state, now);
        path.well_at = None;
        let until = *path.lost_at.get_or_insert(now) + downdelay;
        if path.active && now < until {
            path.check_due = path.check_due.min(until);
        } else {
            self.fail(map, id, Why::Checker(state), now);
        }
    }

    /// What is watched all the time: links and traffic.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.settings.monitors.link {
            self.watch_links(now);
        }
        if let Some(due) = self.traffic_due.filter(|due| *due <= now) {
            self.traffic_due = Some(due.max(now) + self.settings.traffic_interval);
            self.watch_traffic(now);
        }
    }

    fn watch_links(&mut self, now: Instant) {
        for number in 0..self.places.len() {
            let (map, at) = self.places[number];
            let path = &mut self.maps[map].paths[at];
            let link = self.fabric.link(path.id);
            let before = std::mem::replace(&mut path.link, link);
            match (before == Link::Online, link == Link::Online) {
                (true, false) => {
                    path.link_lost_at = Some(now);
                    self.mind_delays(map, at, now);
                }
                (false, true) => {
                    path.link_lost_at = None;
                    self.link_is_back(map, at, now);
                }
                _ => {}
            }
        }
    }

    /// A check says whether what is behind the link is well, if checks are made.
    fn link_is_back(&mut self, map: usize, at: usize, now: Instant) {
        let path = &mut self.maps[map].paths[at];
        if self.settings.monitors.probe {
            path.check_due = now;
            self.look_at(map, at, now);
        } else if !path.active {
            self.found_well(map, at, PathState::Up, now);
        }
    }

    /// What `downdelay` held back, and without checks `updelay`.
    fn mind_delays(&mut self, map: usize, at: usize, now: Instant) {
        let path = &mut self.maps[map].paths[at];
        let (id, link) = (path.id, path.link);
        if path.link_lost_at.is_some_and(|lost| lost + self.settings.downdelay <= now) {
            path.well_at = None;
            self.fail(map, id, Why::Link(link), now);
        } else if !self.settings.monitors.probe && !path.active && path.well_at.is_some() {
            self.found_well(map, at, PathState::Up, now);
        }
    }

    fn watch_traffic(&mut self, now: Instant) {
        let longest = self.settings.silence_max();
        for number in 0..self.places.len() {
            let (map, at) = self.places[number];
            let path = &self.maps[map].paths[at];
            let (id, silence) = (path.id, now.since(path.heard_at));
            if silence < self.settings.traffic_interval {
                continue;
            }
            if path.active && silence >= longest {
                self.fail(map, id, Why::Silence(silence), now);
            }
            self.ask(id, now);
        }
    }

    /// A path was checked: is there a better group to go back to?
    fn consider_failback(&mut self, map: usize, path: PathId, before: PathState, now: Instant) {
        let of = &self.maps[map];
        let (Some(best), Some(current)) = (of.best(), of.current) else { return };
        if !of.is_better(best, current) {
            return;
        }
        let at = of.position(path);
        let came_back =
            !matches!(before, PathState::Up | PathState::Ghost | PathState::Unchecked) && of.paths[at].is_well();
        match self.settings.failback {
            Failback::Manual => {}
            Failback::Immediate => self.move_to(map, best, now),
            Failback::Followover => {
                let of_best = &of.groups[best].paths;
                let alone = of_best.iter().all(|other| *other == at || !of.paths[*other].active);
                if came_back && alone && of_best.contains(&at) {
                    self.move_to(map, best, now);
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
                self.move_to(map, best, now);
            }
        }
    }
}
