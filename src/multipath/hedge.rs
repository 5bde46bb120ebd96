//! Reads that are late go down a second path, too (`read_hedge_after`).
//!
//! The first answer is the client's; what comes of the other is thrown away, buffer and all, when it comes. A read changes
//! nothing, so it may be done twice; a write may not, and never is.

use super::Multipath;
use super::errand::{Errand, Io};
use super::map::{Change, PathState};
use super::selector::{Incoming, select};
use crate::block::{Buf, Completion, Instant, Op, Request, RequestId};
use crate::fabric::Fabric;

impl<F: Fabric> Multipath<F> {
    /// A read was sent: it is late from some time on.
    pub(super) fn watch_read(&mut self, key: usize, now: Instant) {
        // Paths that need not see each other's writes may answer differently.
        if let Some(after) = self.settings.read_hedge_after.filter(|_| self.settings.multi_conn) {
            self.reads.push_back((now + after, key));
        }
    }

    /// Sends reads that are late down other paths.
    pub(super) fn hedge(&mut self, now: Instant) {
        let Some(after) = self.settings.read_hedge_after else { return };
        while let Some((due, key)) = self.reads.pop_front_if(|(due, _)| *due <= now) {
            let is_out = |io: &Io| io.errand == Errand::Client && io.sent_at + after == due;
            let Some(io) = self.ios.get(key).copied().filter(is_out) else { continue };
            let Some(second) = self.second_path(&io, now) else { continue };
            let (limits, epoch) = (self.fabric.limits(self.maps[io.map].unit), self.maps[io.map].epoch);
            let op = Op::Read(Buf::stale(io.extent.length.at_grain(limits.grain)));
            let other =
                self.ios.insert(Io { path: Some(second), sent_at: now, epoch, errand: Errand::Race(key), ..io });
            self.ios[key].errand = Errand::Race(other);
            let path = &mut self.maps[io.map].paths[second];
            path.load.begin(io.bytes);
            let id = path.id;
            self.fabric.submit(id, Request { id: RequestId(other as u64), extent: io.extent, op }, now);
            self.note(io.map, Change::Hedged(id), now);
        }
    }

    /// Another path of the current group; without any, one of another group that was found well.
    fn second_path(&self, io: &Io, now: Instant) -> Option<usize> {
        let map = &self.maps[io.map];
        let mut order = map.groups[map.current?].order.clone();
        order.retain(|at| Some(*at) != io.path);
        if order.is_empty() {
            let is_well = |at: &usize| map.paths[*at].active && map.paths[*at].state == PathState::Up;
            order = (0..map.paths.len()).filter(|at| Some(*at) != io.path && is_well(at)).collect();
        }
        let members = order.clone();
        let incoming = Incoming { bytes: io.bytes, cpu: io.id.0 as usize, now };
        select(self.settings.selector, &mut order, &members, |at| &map.paths[at].load, incoming)
    }

    /// One of two reads was answered, or the one that nobody waits for: the first answer is the client's.
    pub(super) fn win_race(&mut self, key: usize, completion: Completion) {
        if let Errand::Race(other) = self.ios[key].errand {
            self.ios[other].errand = Errand::Lost;
            self.finish(key, completion);
        } else {
            self.ios.remove(key);
        }
    }

    /// One of two reads came to nothing, or the one that nobody waits for: the client waits for the other.
    pub(super) fn lose_race(&mut self, key: usize) {
        if let Errand::Race(other) = self.ios[key].errand {
            self.ios[other].errand = Errand::Client;
        }
        self.ios.remove(key);
    }
}
