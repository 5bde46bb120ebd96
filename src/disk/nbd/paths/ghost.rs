//! Writes that a lost connection had, and that its server may still carry out.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::super::line::{Break, Line};
use crate::block::{Extent, Instant};
use crate::fabric::PathId;

#[derive(Debug)]
pub(super) struct Ghost {
    pub(super) path: PathId,
    /// The server that had it, if it knows sessions.
    pub(super) server: Option<u128>,
    pub(super) since: Instant,
    generation: u64,
    /// The old connection, as long as something can be heard of it.
    line: Option<Line>,
    /// The server, or what stands before it, has closed that.
    is_ended: bool,
    writes: BTreeMap<u64, Extent>,
}

impl Ghost {
    /// What becomes of `writes` when their connection is lost; without a reason it is only silent.
    pub(super) fn of(
        path: PathId,
        generation: u64,
        line: Line,
        why: Option<&Break>,
        writes: BTreeMap<u64, Extent>,
        now: Instant,
    ) -> Option<Ghost> {
        let (server, is_ended) = (line.client.server(), why.is_some_and(Break::is_over));
        let line = why.is_none().then_some(line);
        let ghost = Ghost { path, server, since: now, generation, line, is_ended, writes };
        (!ghost.is_laid()).then_some(ghost)
    }

    /// One that knows sessions is asked whether it lets go; another has done so when it closes the connection.
    fn is_laid(&self) -> bool {
        self.writes.is_empty() || (self.is_ended && self.server.is_none())
    }

    /// Whether a server that let a connection of this session and generation in has thereby let go of it. One that
    /// closed the connection and was started again has, too.
    pub(super) fn is_laid_by(&self, path: PathId, generation: u64, server: u128) -> bool {
        let is_its = self.server == Some(server) || (self.server.is_some() && self.is_ended);
        self.path == path && self.generation < generation && is_its
    }

    pub(super) fn may_touch(&self, extent: Extent) -> bool {
        self.writes.values().any(|write| write.overlaps(extent))
    }

    /// Listens to the old connection; whether something may still come of it.
    pub(super) fn haunts(&mut self, epoll: &OwnedFd) -> bool {
        if let Some(line) = &mut self.line {
            let pumped = line.pump(epoll);
            while let Some((key, ..)) = line.client.next_done() {
                self.writes.remove(&key);
            }
            if let Err(why) = pumped {
                self.is_ended |= why.is_over();
                self.line = None;
            }
        }
        !self.is_laid()
    }

    pub(super) fn next_deadline(&self, hold_max: Duration, is_closed: bool) -> Option<Instant> {
        match &self.line {
            Some(line) if line.has_output() => Some(Instant::START),
            _ => (!is_closed).then_some(self.since + hold_max),
        }
    }
}
