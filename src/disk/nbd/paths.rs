//! One disk behind several connections: the paths of a fabric, for a multipath layer to choose from.
//!
//! All lead to the same export, by other sockets, addresses or servers. Each connects anew by itself, for ever; what a lost
//! one had comes back at once, for another path to take. What [`NbdBank`](super::NbdBank) promises of one connection holds
//! of all together: a request ends once, and what ended in an error does not take effect later, over something newer.
//!
//! * *A connection is closed*: the path is out, and what it had comes back with [`IoError::Transport`]. A server that knows
//!   no sessions let go of its requests when it closed its end, so nothing stands between a path and its server that could
//!   close it instead.
//! * *A server is silent* for [`NbdPathOptions::cmd_timeout`]: what it had comes back with [`IoError::Timeout`]. Its writes
//!   are *ghosts* from then on: they may still be carried out, whenever it wakes up. The old connection is kept and
//!   listened to; a ghost is laid when it is answered after all, when the server closes the connection, or when the server
//!   confirms, by this path or another, that the session goes on in a newer generation ([`Session`]).
//! * *No request overlaps a ghost.* One that would waits until the ghost is laid. No time of waiting makes it safe, so
//!   after [`NbdPathOptions::hold_max`] the whole disk takes no requests ([`IoError::Fenced`]) until it is.
//! * *Acknowledged and not flushed* writes are lost with a server. Exports that promise one cache for all connections
//!   (`CAN_MULTI_CONN`) lose nothing as long as one connection lives that lived when the write was acknowledged, so flushes
//!   go down the one that has lived longest, and one more is sent whenever a connection is lost. Where that fails, the
//!   sectors cannot be read until they are written again, and the next flush fails.
//! * *Without that promise* one path is used at a time: before another is, what the old one has acknowledged is flushed down
//!   it, if it lives.
//! * *Another disk answers*: it must have the same size and abilities, and what the last forced write stored or the disk
//!   began with. Servers that say who they are must be one.
//!
//! Whoever names several servers as paths of one disk says that they share what they store: nothing here can tell.

mod ghost;
mod herald;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll;
use uuid::Uuid;

use super::cache::{Flush, ServerCache};
use super::line::{Break, Destination, Line};
use super::{EVENTS, Found, NbdDiskError, NbdOptions, PROOF_BYTES_MAX, PROOF_KEY, find, is_forced, retry_delay};
use crate::block::{
    Buf, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Op, Payload, Request, RequestId, Sectors, Wakeups,
};
use crate::fabric::{Access, Event, Fabric, Fencing, Link, PathId, PathInfo, Probe, Verdict};
use crate::nbd::{ExportFacts, NbdUri, Session, TransmissionFlags};
use ghost::Ghost;
use herald::Herald;

/// How patient paths are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NbdPathOptions {
    /// A connection on which a command is not answered by then is given up; also how long a new one may take. Over TCP it is
    /// given up, too, when nobody acknowledges its data for so long.
    pub cmd_timeout: Duration,
    /// So long may a request wait for a server to let go of what it may still do; then the disk takes no more.
    pub hold_max: Duration,
    /// How long a path may take to connect when the disk is opened.
    pub connect_max: Duration,
}

impl Default for NbdPathOptions {
    /// A silent server costs 30 s at the most.
    fn default() -> NbdPathOptions {
        NbdPathOptions {
            cmd_timeout: Duration::from_secs(10),
            hold_max: Duration::from_secs(20),
            connect_max: Duration::from_secs(5),
        }
    }
}

/// Connections to an export, as the paths of a fabric with one logical unit.
pub struct NbdPaths {
    options: NbdPathOptions,
    /// Tells of sockets; readable when one has something.
    epoll: OwnedFd,
    /// Scratch: what it told.
    told: Vec<epoll::Event>,
    infos: Vec<PathInfo>,
    facts: ExportFacts,
    limits: Limits,
    ways: Vec<Way>,
    keys: u64,
    lines_total: u64,
    ghosts: Vec<Ghost>,
    heralds: Vec<Herald>,
    /// Paths whose fence was asked for and is not answered.
    fences: Vec<PathId>,
    /// What may not be sent yet.
    waiting: VecDeque<(PathId, Request)>,
    /// Flushes that are not sent yet.
    flushes: Vec<(PathId, RequestId)>,
    flush: Option<FlushUnderWay>,
    /// What was written has to be flushed, although nobody asks for it.
    is_flush_due: bool,
    cache: ServerCache,
    /// Connections there had been when the first of what is not flushed was acknowledged.
    unflushed_since: Option<u64>,
    /// The one path that is used, where only one may be.
    holder: Option<PathId>,
    /// What a server has to show to be taken for the same; nothing while it may be changing.
    proof: Option<(Extent, Payload)>,
    is_closed: bool,
    out: Vec<Event>,
}

/// A way to the export.
#[derive(Debug)]
struct Way {
    to: Destination,
    session: Session,
    state: State,
    /// Its socket has something to say, perhaps.
    is_ready: bool,
    /// What was sent and is not answered, by key: in order.
    asked: BTreeMap<u64, Asked>,
}

#[derive(Debug)]
enum State {
    /// With its number among all connections there were.
    Up(Line, u64),
    Down(Attempt),
}

/// A connection that is being made anew.
#[derive(Debug)]
struct Attempt {
    line: Option<Line>,
    /// When the line has taken too long.
    until: Instant,
    attempts: u32,
    retry_at: Instant,
    /// What it has to show, once it was asked for it.
    question: Option<(Extent, Payload)>,
}

#[derive(Debug)]
struct Asked {
    since: Instant,
    what: What,
}

#[derive(Debug)]
enum What {
    /// `again` is what to give back if there is no answer; none for a read.
    Io {
        id: RequestId,
        extent: Extent,
        again: Option<Op>,
    },
    Probe,
    Flush,
}

/// A flush that covers those asked for by then, and what they asked for.
#[derive(Debug)]
struct FlushUnderWay {
    flush: Flush,
    since: Option<u64>,
    requests: Vec<(PathId, RequestId)>,
}

impl NbdPaths {
    /// Connects to one export by several ways. At least one has to work; what is wrong with the others is given back, and
    /// they are tried again later. An error if two lead to different disks, or one to what cannot be a disk.
    pub fn open(
        uris: &[NbdUri],
        read_only: bool,
        options: NbdPathOptions,
    ) -> Result<(NbdPaths, Vec<NbdDiskError>), NbdDiskError> {
        let first = uris.first().expect("a disk has a path");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|source| NbdDiskError::Unreachable { uri: Box::new(first.clone()), source: source.into() })?;
        let patience = NbdOptions { request_max: options.cmd_timeout, outage_max: options.connect_max };
        let (mut ways, mut troubles) = (Vec::new(), Vec::new());
        for (token, uri) in uris.iter().enumerate() {
            let session = Session { id: Uuid::new_v4().as_u128(), generation: 0 };
            // A name without an address is an error: it is looked up once.
            let to = Destination::of(uri)?;
            match find(uri, &to, Some(session), read_only, (&epoll, token as u64), patience) {
                Ok(found) => ways.push((to, session, Some(found))),
                Err(why @ (NbdDiskError::Unreachable { .. } | NbdDiskError::Silent { .. })) => {
                    troubles.push(why);
                    ways.push((to, session, None));
                }
                Err(why) => return Err(why),
            }
        }
        if troubles.len() == uris.len() {
            return Err(troubles.remove(0));
        }
        check_same(uris, ways.iter().map(|(_, _, found)| found.as_ref()))?;
        Ok((NbdPaths::of(uris, ways, epoll, options), troubles))
    }

    fn of(
        uris: &[NbdUri],
        ways: Vec<(Destination, Session, Option<Found>)>,
        epoll: OwnedFd,
        options: NbdPathOptions,
    ) -> NbdPaths {
        let model = ways.iter().find_map(|(_, _, found)| found.as_ref()).expect("one path works");
        let (facts, limits) = (model.facts, model.limits);
        let proof = ways.iter().find_map(|(_, _, found)| found.as_ref()?.proof.clone());
        let info = |(number, uri): (usize, &NbdUri)| PathInfo {
            hctl: format!("0:0:{number}:0"),
            name: uri.to_string(),
            host: 0,
            hba: 0,
            controller: number,
            tpg: number as u16 + 1,
            unit: UNIT,
            fencing: Fencing::None,
            queue_depth: 0,
        };
        let mut paths = NbdPaths {
            options,
            epoll,
            told: Vec::with_capacity(EVENTS),
            infos: uris.iter().enumerate().map(info).collect(),
            facts,
            limits,
            ways: Vec::new(),
            keys: 0,
            lines_total: 0,
            ghosts: Vec::new(),
            heralds: Vec::new(),
            fences: Vec::new(),
            waiting: VecDeque::new(),
            flushes: Vec::new(),
            flush: None,
            is_flush_due: false,
            cache: ServerCache::default(),
            unflushed_since: None,
            holder: None,
            proof,
            is_closed: false,
            out: Vec::new(),
        };
        for (number, (to, session, found)) in ways.into_iter().enumerate() {
            let state = State::Down(Attempt::new(Instant::START));
            paths.ways.push(Way { to, session, state, is_ready: false, asked: BTreeMap::new() });
            if let Some(found) = found {
                paths.is_up(PathId(number as u16), found.line);
            }
        }
        paths
    }

    /// Whether several paths may be used at a time.
    pub fn can_multi_conn(&self) -> bool {
        self.facts.flags.contains(TransmissionFlags::CAN_MULTI_CONN)
    }

    /// Whether it takes no requests, since one that was given up may still be carried out.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn all_paths(&self) -> impl Iterator<Item = PathId> + use<> {
        (0..self.ways.len()).map(|number| PathId(number as u16))
    }

    fn way(&self, path: PathId) -> &Way {
        &self.ways[usize::from(path.0)]
    }

    fn way_mut(&mut self, path: PathId) -> &mut Way {
        &mut self.ways[usize::from(path.0)]
    }

    fn next_key(&mut self) -> u64 {
        self.keys += 1;
        self.keys
    }

    /// A request is over. What the connection did not bring, or its server had no memory for, may be sent elsewhere.
    fn complete(&mut self, path: PathId, request: Request, result: Result<(), IoError>) {
        self.out.push(match result {
            Err(error) if is_path_error(error) => Event::GivenBack(path, request, error),
            result => Event::Completed(path, request.complete(result)),
        });
    }

    // ---- requests ----

    /// Sends what may be sent.
    fn go_on(&mut self, now: Instant) {
        for (path, request) in std::mem::take(&mut self.waiting) {
            match self.refusal(path) {
                Some(error) => self.complete(path, request, Err(error)),
                None if self.may_send(path, request.extent) => self.send(path, request, now),
                None => self.waiting.push_back((path, request)),
            }
        }
        if self.is_closed {
            for (path, id) in std::mem::take(&mut self.flushes) {
                self.complete(path, Request::flush(id), Err(IoError::Fenced));
            }
        }
        self.begin_flush(now);
    }

    /// Why a path takes nothing now.
    fn refusal(&self, path: PathId) -> Option<IoError> {
        match self.way(path).state {
            _ if self.is_closed => Some(IoError::Fenced),
            State::Down(_) => Some(IoError::Transport),
            State::Up(..) => None,
        }
    }

    fn may_send(&mut self, path: PathId, extent: Extent) -> bool {
        !self.ghosts.iter().any(|ghost| ghost.may_touch(extent)) && (self.can_multi_conn() || self.take_hold(path))
    }

    /// Whether this is the one path that is used. It becomes that when there is nothing left to flush down another.
    fn take_hold(&mut self, path: PathId) -> bool {
        if let Some(holder) = self.holder.filter(|holder| *holder != path)
            && self.way(holder).is_up()
        {
            let is_writing = self.way(holder).asked.values().any(Asked::is_write);
            self.is_flush_due |= !is_writing && self.cache.has_unflushed();
            if is_writing || self.cache.has_unflushed() || self.flush.is_some() {
                return false;
            }
        }
        self.holder = Some(path);
        true
    }

    fn send(&mut self, path: PathId, request: Request, now: Instant) {
        let Request { id, extent, op } = request;
        if matches!(op, Op::Read(_)) && self.cache.hides(extent) {
            return self.complete(path, Request { id, extent, op }, Err(IoError::Medium));
        }
        if op.is_write() {
            self.proof.take_if(|(proof, _)| proof.overlaps(extent));
        }
        let again = op.is_write().then(|| op.clone());
        self.ask(path, extent, op, What::Io { id, extent, again }, now);
    }

    fn ask(&mut self, path: PathId, extent: Extent, op: Op, what: What, now: Instant) {
        let key = self.next_key();
        let way = self.way_mut(path);
        let State::Up(line, _) = &mut way.state else { panic!("there is no server to ask") };
        way.asked.insert(key, Asked { since: now, what });
        line.client.submit(key, extent, op);
    }

    fn begin_flush(&mut self, now: Instant) {
        if self.flush.is_some() || (self.flushes.is_empty() && !self.is_flush_due) {
            return;
        }
        let asked_down = self.flushes.first().map(|(path, _)| *path).filter(|path| self.way(*path).is_up());
        let Some(path) = self.flusher().or(asked_down) else { return };
        self.is_flush_due = false;
        let (flush, since) = (self.cache.flush_begins(), self.unflushed_since.take());
        self.flush = Some(FlushUnderWay { flush, since, requests: std::mem::take(&mut self.flushes) });
        self.ask(path, Extent::new(Lba(0), Sectors::ZERO), Op::Flush, What::Flush, now);
    }

    /// The path whose flush covers the most.
    fn flusher(&self) -> Option<PathId> {
        match self.can_multi_conn() {
            true => self.all_paths().filter_map(|path| Some((self.way(path).number()?, path))).min().map(|(_, p)| p),
            false => self.holder.filter(|holder| self.way(*holder).is_up()),
        }
    }

    /// The server has answered.
    fn answered(&mut self, path: PathId, key: u64, op: Op, result: Result<(), IoError>) {
        let asked = self.way_mut(path).asked.remove(&key).expect("each request ends once");
        match asked.what {
            What::Io { id, extent, .. } => {
                if op.is_write() && result.is_ok() {
                    self.wrote(extent, &op);
                }
                self.complete(path, Request { id, extent, op }, result);
            }
            What::Probe => {
                let verdict = if result.is_err_and(is_path_error) { Verdict::Down } else { Verdict::Up };
                self.out.push(Event::Probed(path, verdict));
            }
            What::Flush => self.flushed(result),
        }
    }

    fn wrote(&mut self, extent: Extent, op: &Op) {
        self.cache.wrote(extent, is_forced(op));
        if self.cache.has_unflushed() {
            self.unflushed_since.get_or_insert(self.lines_total);
        }
        let mut under_way = self.ways.iter().flat_map(|way| way.asked.values());
        if let Op::Write(payload, Durability::Fua) = op
            && payload.len() <= PROOF_BYTES_MAX
            && !under_way.any(|asked| asked.writes_to(extent))
        {
            self.proof = Some((extent, payload.clone()));
        }
    }

    fn flushed(&mut self, result: Result<(), IoError>) {
        let FlushUnderWay { flush, since, requests } = self.flush.take().expect("one is under way");
        if result.is_err() {
            self.unflushed_since = since.or(self.unflushed_since);
        }
        if requests.is_empty() {
            return self.cache.silent_flush_ends(flush, result);
        }
        let result = self.cache.flush_ends(flush, result);
        for (path, id) in requests {
            self.complete(path, Request::flush(id), result);
        }
    }

    // ---- connections that are lost ----

    /// A connection is of no use any more; without a reason it is only silent.
    fn lost(&mut self, path: PathId, why: Option<&Break>, now: Instant) {
        let way = self.way_mut(path);
        let State::Up(line, _) = std::mem::replace(&mut way.state, State::Down(Attempt::new(now))) else { return };
        let (asked, generation) = (std::mem::take(&mut way.asked), way.session.generation);
        way.session.generation += 1;
        let is_late = why.is_none_or(|why| matches!(why, Break::System(rustix::io::Errno::TIMEDOUT)));
        let error = if is_late { IoError::Timeout } else { IoError::Transport };
        let mut writes = BTreeMap::new();
        for (key, Asked { what, .. }) in asked {
            match what {
                What::Io { id, extent, again } => {
                    if again.is_some() {
                        writes.insert(key, extent);
                    }
                    let op = again.unwrap_or_else(|| Op::Read(Buf::zeroed(extent.length.bytes() as usize)));
                    self.complete(path, Request { id, extent, op }, Err(error));
                }
                What::Probe => self.out.push(Event::Probed(path, Verdict::Down)),
                What::Flush => self.flush_is_lost(),
            }
        }
        for (_, id) in self.flushes.extract_if(.., |(of, _)| *of == path).collect::<Vec<_>>() {
            self.complete(path, Request::flush(id), Err(error));
        }
        self.ghosts.extend(Ghost::of(path, generation, line, why, writes, now));
        self.doubt(path);
    }

    fn flush_is_lost(&mut self) {
        let FlushUnderWay { flush, since, requests } = self.flush.take().expect("one is under way");
        self.cache.flush_is_lost(flush);
        self.unflushed_since = since.or(self.unflushed_since);
        self.flushes.splice(..0, requests);
    }

    /// With the connection of `lost` something may have gone that no other covers.
    fn doubt(&mut self, lost: PathId) {
        if !self.cache.has_unflushed() {
            return;
        }
        let since = self.unflushed_since.unwrap_or(0);
        let is_covered = match self.can_multi_conn() {
            true => self.flusher().and_then(|path| self.way(path).number()).is_some_and(|number| number <= since),
            false => self.holder != Some(lost),
        };
        match is_covered {
            true => self.is_flush_due = self.can_multi_conn(),
            false => {
                self.cache.is_gone();
                self.unflushed_since = None;
            }
        }
    }

    // ---- connections that come back ----

    fn is_up(&mut self, path: PathId, line: Line) {
        self.lines_total += 1;
        let (number, server) = (self.lines_total, line.client.server());
        let generation = self.way(path).session.generation;
        self.infos[usize::from(path.0)].fencing = if server.is_some() { Fencing::Session } else { Fencing::None };
        self.way_mut(path).state = State::Up(line, number);
        if let Some(server) = server {
            self.taken_over(path, generation, server);
        }
    }

    fn drive(&mut self, path: PathId, now: Instant) {
        let way = self.way_mut(path);
        match std::mem::replace(&mut way.state, State::Down(Attempt::new(now))) {
            State::Up(line, number) => self.drive_line(path, line, number, now),
            State::Down(attempt) => self.drive_attempt(path, attempt, now),
        }
    }

    fn drive_line(&mut self, path: PathId, mut line: Line, number: u64, now: Instant) {
        let is_ready = std::mem::take(&mut self.way_mut(path).is_ready);
        let pumped = if is_ready || line.has_output() { line.pump(&self.epoll) } else { Ok(()) };
        let mut done = Vec::new();
        while let Some(answer) = line.client.next_done() {
            done.push(answer);
        }
        self.way_mut(path).state = State::Up(line, number);
        for (key, op, result) in done {
            self.answered(path, key, op, result);
        }
        let oldest = self.way(path).asked.values().next().map(|asked| asked.since);
        match pumped {
            Err(why) => self.lost(path, Some(&why), now),
            Ok(()) if oldest.is_some_and(|since| since + self.options.cmd_timeout <= now) => self.lost(path, None, now),
            Ok(()) => {}
        }
    }

    fn drive_attempt(&mut self, path: PathId, mut attempt: Attempt, now: Instant) {
        if attempt.line.is_none() && attempt.retry_at <= now {
            let (to, session) = (&self.way(path).to, self.way(path).session);
            let patience = self.options.cmd_timeout;
            let begun = Line::begin(to, attempt.attempts as usize, Some(session), &self.epoll, path.0.into(), patience);
            match begun {
                Ok(line) => (attempt.line, attempt.until) = (Some(line), now + patience),
                Err(_) => attempt.retry_later(now),
            }
        }
        if let Some(mut line) = attempt.line.take() {
            match line.pump(&self.epoll).map(|()| self.is_same(&mut line, &mut attempt.question)) {
                Ok(Some(true)) => return self.is_up(path, line),
                Ok(None) if now < attempt.until => attempt.line = Some(line),
                Ok(None | Some(false)) | Err(_) => attempt.retry_later(now),
            }
        }
        self.way_mut(path).state = State::Down(attempt);
    }

    /// Whether the disk behind a new connection is the one there was; nothing while that is being found out.
    fn is_same(&self, line: &mut Line, question: &mut Option<(Extent, Payload)>) -> Option<bool> {
        let facts = line.client.export()?;
        let others = self.ways.iter().filter_map(Way::server);
        let is_stranger = line.client.server().is_some_and(|server| others.into_iter().any(|other| other != server));
        if *facts != self.facts || is_stranger {
            return Some(false);
        }
        if let Some((_, op, result)) = line.client.next_done() {
            let asked = question.take().expect("it was asked");
            match (op, result) {
                (Op::Read(buf), Ok(())) if self.proof.as_ref() == Some(&asked) => return Some(buf.freeze() == asked.1),
                // It has changed in the meantime: again.
                (_, Ok(())) => {}
                (_, Err(_)) => return Some(false),
            }
        }
        match (&self.proof, question.is_some()) {
            (_, true) => None,
            (Some((extent, bytes)), false) => {
                line.client.submit(PROOF_KEY, *extent, Op::Read(Buf::zeroed(bytes.len())));
                *question = Some((*extent, bytes.clone()));
                None
            }
            // It may be changing.
            (None, false) if self.ways.iter().any(|way| way.asked.values().any(Asked::is_write)) => None,
            (None, false) => Some(true),
        }
    }

    // ---- what lost connections may still do ----

    fn taken_over(&mut self, path: PathId, generation: u64, server: u128) {
        self.ghosts.retain(|ghost| !ghost.is_laid_by(path, generation, server));
    }

    fn drive_ghosts(&mut self, now: Instant) {
        let epoll = &self.epoll;
        self.ghosts.retain_mut(|ghost| ghost.haunts(epoll));
        let mut heralds = std::mem::take(&mut self.heralds);
        heralds.retain_mut(|herald| {
            let is_needed = self.ghosts.iter().any(|ghost| ghost.path == herald.path);
            is_needed && !self.drive_herald(herald, now)
        });
        self.heralds = heralds;
        self.is_closed = self.ghosts.iter().any(|ghost| ghost.since + self.options.hold_max <= now);
        for path in std::mem::take(&mut self.fences) {
            // Where the disk is closed nothing newer is written that a ghost could be carried out over.
            match self.is_closed || !self.ghosts.iter().any(|ghost| ghost.path == path) {
                true => self.out.push(Event::Fenced(path)),
                false => self.fences.push(path),
            }
        }
    }

    /// Whether a herald has done what it was sent for.
    fn drive_herald(&mut self, herald: &mut Herald, now: Instant) -> bool {
        let session = self.way(herald.path).session;
        let to = &self.way(herald.via).to;
        match herald.drive(to, session, &self.epoll, self.options.cmd_timeout, now) {
            Some((generation, server)) => {
                self.taken_over(herald.path, generation, server);
                true
            }
            None => false,
        }
    }

    /// Whether anything but the paths themselves is to be looked at.
    fn is_haunted(&self) -> bool {
        !self.ghosts.is_empty() || !self.fences.is_empty() || !self.heralds.is_empty() || self.is_closed
    }

    fn note_ready(&mut self) {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.told.clear();
        let told = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.told), Some(&at_once));
        match told {
            Ok(_) => {
                for event in &self.told {
                    if let Some(way) = self.ways.get_mut(event.data.u64() as usize) {
                        way.is_ready = true;
                    }
                }
            }
            // Without an answer all are looked at, which does no harm.
            Err(_) => self.ways.iter_mut().for_each(|way| way.is_ready = true),
        }
    }
}

/// The one logical unit.
const UNIT: DeviceId = DeviceId(0);

/// Whether all that was found is the same; what could not be reached is not asked.
fn check_same<'a>(uris: &[NbdUri], ways: impl Iterator<Item = Option<&'a Found>>) -> Result<(), NbdDiskError> {
    let mut model: Option<(&NbdUri, &Found)> = None;
    for (uri, found) in uris.iter().zip(ways) {
        let Some(found) = found else { continue };
        let Some((other, same)) = model else {
            model = Some((uri, found));
            continue;
        };
        let why = match (&found.proof, &same.proof) {
            _ if found.facts.size != same.facts.size => "their sizes differ",
            _ if found.facts != same.facts => "their servers do not offer the same abilities",
            _ if found.line.client.server() != same.line.client.server() => "their servers are not one",
            (Some(one), Some(another)) if one != another => "they do not begin with the same bytes",
            _ => continue,
        };
        return Err(NbdDiskError::Misfit { uri: Box::new(uri.clone()), other: Box::new(other.clone()), why });
    }
    Ok(())
}

impl Way {
    fn is_up(&self) -> bool {
        matches!(self.state, State::Up(..))
    }

    fn number(&self) -> Option<u64> {
        match self.state {
            State::Up(_, number) => Some(number),
            State::Down(_) => None,
        }
    }

    fn server(&self) -> Option<u128> {
        match &self.state {
            State::Up(line, _) => line.client.server(),
            State::Down(_) => None,
        }
    }

    fn next_deadline(&self, options: &NbdPathOptions) -> Option<Instant> {
        match &self.state {
            State::Up(line, _) if line.has_output() => Some(Instant::START),
            State::Up(..) => self.asked.values().next().map(|asked| asked.since + options.cmd_timeout),
            State::Down(Attempt { line: Some(line), .. }) if line.has_output() => Some(Instant::START),
            State::Down(Attempt { line: Some(_), until, .. }) => Some(*until),
            State::Down(attempt) => Some(attempt.retry_at),
        }
    }
}

impl Asked {
    fn is_write(&self) -> bool {
        matches!(self.what, What::Io { again: Some(_), .. })
    }

    fn writes_to(&self, there: Extent) -> bool {
        matches!(self.what, What::Io { again: Some(_), extent, .. } if extent.overlaps(there))
    }
}

impl Attempt {
    fn new(now: Instant) -> Attempt {
        Attempt { line: None, until: now, attempts: 0, retry_at: now, question: None }
    }

    fn retry_later(&mut self, now: Instant) {
        self.retry_at = now + retry_delay(self.attempts);
        self.attempts += 1;
        self.question = None;
    }
}

impl Fabric for NbdPaths {
    fn paths(&self) -> &[PathInfo] {
        &self.infos
    }

    fn limits(&self, _unit: DeviceId) -> Limits {
        self.limits
    }

    /// A connection that was closed is known to be: nothing waits for it.
    fn link(&self, path: PathId) -> Link {
        if self.way(path).is_up() { Link::Online } else { Link::FastFailed }
    }

    fn access(&self, _path: PathId) -> Access {
        Access::Optimized
    }

    fn submit(&mut self, path: PathId, request: Request, now: Instant) {
        if let Some(error) = self.limits.refuse(&request).or(self.refusal(path)) {
            return self.complete(path, request, Err(error));
        }
        if matches!(request.op, Op::Flush) {
            self.flushes.push((path, request.id));
            self.begin_flush(now);
        } else if self.may_send(path, request.extent) {
            self.send(path, request, now);
        } else {
            self.waiting.push_back((path, request));
            self.begin_flush(now);
        }
    }

    /// NBD has no question of its own for this: a read of the first block is as good.
    fn probe(&mut self, path: PathId, _probe: Probe, now: Instant) {
        if !self.way(path).is_up() {
            return self.out.push(Event::Probed(path, Verdict::Down));
        }
        let first = Extent::new(Lba(0), self.limits.logical_block);
        let op = Op::Read(Buf::zeroed(first.length.bytes() as usize));
        self.ask(path, first, op, What::Probe, now);
    }

    fn fence(&mut self, path: PathId, via: PathId, now: Instant) {
        let mut ghosts = self.ghosts.iter().filter(|ghost| ghost.path == path).peekable();
        if ghosts.peek().is_none() {
            return self.out.push(Event::Fenced(path));
        }
        let is_sent = self.heralds.iter().any(|herald| (herald.path, herald.via) == (path, via));
        if path != via && !is_sent && ghosts.any(|ghost| ghost.server.is_some()) {
            self.heralds.push(Herald::new(path, via, now));
        }
        if !self.fences.contains(&path) {
            self.fences.push(path);
        }
    }

    /// NBD cannot call a request back.
    fn abort(&mut self, path: PathId, id: RequestId, _now: Instant) {
        self.out.push(Event::NotAborted(path, id));
    }

    /// Nor all of them.
    fn reset(&mut self, unit: DeviceId, _via: PathId, _now: Instant) {
        self.out.push(Event::NotReset(unit));
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        self.note_ready();
        for path in self.all_paths() {
            self.drive(path, now);
        }
        if self.is_haunted() {
            self.drive_ghosts(now);
        }
        self.go_on(now);
        events.append(&mut self.out);
    }

    fn next_deadline(&self) -> Option<Instant> {
        if !self.out.is_empty() {
            return Some(Instant::START);
        }
        let ways = self.ways.iter().filter_map(|way| way.next_deadline(&self.options)).min();
        let heralds = self.heralds.iter().map(Herald::next_deadline).min();
        let ghosts = self.ghosts.iter().filter_map(|ghost| ghost.next_deadline(self.options.hold_max, self.is_closed));
        Instant::earliest([ways, heralds, ghosts.min()])
    }
}

impl Wakeups for NbdPaths {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.epoll.as_fd()]
    }
}

fn is_path_error(error: IoError) -> bool {
    matches!(error, IoError::Transport | IoError::Timeout)
}
