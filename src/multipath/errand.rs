//! What a request under way is for, and the requests that a map makes itself: reads to measure and to try paths, and flushes.

use super::Multipath;
use super::map::Why;
use super::trial::SAMPLE_INTERVAL;
use crate::block::{Buf, Extent, Instant, IoError, Lba, Op, Request, RequestId, Sectors};
use crate::fabric::{Fabric, PathId};

/// What a request under way is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Errand {
    /// A client waits for it.
    Client,
    /// A client waits for it or for this other, whichever is first.
    Race(usize),
    /// Nobody waits for it any more: another was first.
    Lost,
    /// How long it takes is a path's priority.
    Latency,
    /// Whether it fails says how good a path is.
    Sample,
    /// A path is flushed before another is used.
    Flush,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Io {
    pub(super) map: usize,
    /// Place of the path it is on, if it waits for none.
    pub(super) path: Option<usize>,
    pub(super) id: RequestId,
    pub(super) extent: Extent,
    pub(super) bytes: u64,
    /// When it was asked for, and when it was sent last.
    pub(super) begun: Instant,
    pub(super) sent_at: Instant,
    /// The connection generation it was sent in.
    pub(super) epoch: u64,
    pub(super) errand: Errand,
    /// A write that has begun: others over its sectors wait for it.
    pub(super) writes: bool,
}

impl Io {
    /// Whether a client waits for it, or did.
    pub(super) fn is_of_a_client(&self) -> bool {
        matches!(self.errand, Errand::Client | Errand::Race(_) | Errand::Lost)
    }
}

impl<F: Fabric> Multipath<F> {
    /// Reads the first block by a path, whatever its state.
    pub(super) fn read_first(&mut self, map: usize, at: usize, errand: Errand, now: Instant) {
        let limits = self.fabric.limits(self.maps[map].unit);
        let extent = Extent::new(Lba(0), limits.logical_block);
        let op = Op::Read(Buf::stale(extent.length.at_grain(limits.grain)));
        self.send_own(map, at, extent, op, errand, now);
    }

    /// Flushes a path.
    pub(super) fn flush_path(&mut self, map: usize, at: usize, now: Instant) {
        self.send_own(map, at, Extent::new(Lba(0), Sectors::ZERO), Op::Flush, Errand::Flush, now);
    }

    fn send_own(&mut self, map: usize, at: usize, extent: Extent, op: Op, errand: Errand, now: Instant) {
        let path = self.maps[map].paths[at].id;
        let io = Io {
            map,
            path: Some(at),
            id: RequestId(0),
            extent,
            bytes: 0,
            begun: now,
            sent_at: now,
            epoch: self.maps[map].epoch,
            errand,
            writes: false,
        };
        let id = RequestId(self.ios.insert(io) as u64);
        self.fabric.submit(path, Request { id, extent, op }, now);
    }

    /// A request of the map's own came back: answered, unless the path failed.
    pub(super) fn own_came_back(&mut self, path: PathId, key: usize, failed: Option<IoError>, now: Instant) {
        let io = self.ios.remove(key);
        let (_, at) = self.place(path);
        match io.errand {
            Errand::Latency => self.measured(io.map, at, now.since(io.sent_at), failed.is_none(), now),
            Errand::Sample => self.maps[io.map].paths[at].trial.sampled(failed.is_none()),
            Errand::Flush => {
                if let Some(error) = failed {
                    self.fail(io.map, path, Why::Io(error), now);
                }
                self.flushed(io.map);
            }
            Errand::Client | Errand::Race(_) | Errand::Lost => panic!("{:?} is a client's", io.errand),
        }
    }

    /// Reads from paths that are tried, ten times a second.
    pub(super) fn sample(&mut self, now: Instant) {
        if self.samples_due.is_none_or(|due| now < due) {
            return;
        }
        self.samples_due = None;
        for (map, at) in self.places.clone() {
            let path = &mut self.maps[map].paths[at];
            if !path.trial.is_tried() {
                continue;
            }
            let more = path.trial.samples(&self.settings.marginal_path, now);
            if path.trial.is_tried() {
                self.samples_due = Some(now + SAMPLE_INTERVAL);
            } else {
                path.check_due = now;
            }
            (0..more).for_each(|_| self.read_first(map, at, Errand::Sample, now));
        }
    }
}
