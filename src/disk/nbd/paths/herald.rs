//! A connection that only tells a server, by the way of another path, that a session goes on in a newer generation.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::super::line::{Destination, Line};
use super::super::retry_delay;
use crate::block::Instant;
use crate::fabric::PathId;
use crate::nbd::Session;

#[derive(Debug)]
pub(super) struct Herald {
    /// Whose session.
    pub(super) path: PathId,
    pub(super) via: PathId,
    /// With the generation it tells of.
    line: Option<(Line, u64)>,
    until: Instant,
    attempts: u32,
    retry_at: Instant,
}

/// Its socket is none of a path's.
const TOKEN: u64 = u64::MAX;

impl Herald {
    pub(super) fn new(path: PathId, via: PathId, now: Instant) -> Herald {
        Herald { path, via, line: None, until: now, attempts: 0, retry_at: now }
    }

    /// Goes on; which generation was confirmed by which server, once one has.
    pub(super) fn drive(
        &mut self,
        to: &Destination,
        session: Session,
        epoll: &OwnedFd,
        patience: Duration,
        now: Instant,
    ) -> Option<(u64, u128)> {
        if self.line.is_none() && self.retry_at <= now {
            match Line::begin(to, self.attempts as usize, Some(session), epoll, TOKEN, patience) {
                Ok(line) => (self.line, self.until) = (Some((line, session.generation)), now + patience),
                Err(_) => self.retry_later(now),
            }
        }
        let (mut line, generation) = self.line.take()?;
        let pumped = line.pump(epoll);
        match (pumped, line.client.export(), line.client.server()) {
            (Ok(()), Some(_), Some(server)) => return Some((generation, server)),
            (Ok(()), None, _) if now < self.until => self.line = Some((line, generation)),
            _ => self.retry_later(now),
        }
        None
    }

    fn retry_later(&mut self, now: Instant) {
        self.retry_at = now + retry_delay(self.attempts);
        self.attempts += 1;
    }

    pub(super) fn next_deadline(&self) -> Instant {
        match &self.line {
            Some((line, _)) if line.has_output() => Instant::START,
            Some(_) => self.until,
            None => self.retry_at,
        }
    }
}
