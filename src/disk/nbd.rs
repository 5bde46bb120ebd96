//! Disks on other machines, over NBD: any server will do.
//!
//! A network breaks in ways a cable does not: the server dies and is started again, or is silent for a while, and
//! nobody knows what became of a request that was not answered. What this bank promises of each request is what an
//! array relies on: it ends once, and what ended in an error does not take effect later, over something newer.
//!
//! * *The server closes the connection* (it ended, was killed): all it was asked is over, done or not. Within
//!   [`NbdOptions::outage_max`] a new connection is tried for, at ever longer intervals; what was not answered is then
//!   asked again, in order, which does no harm: each request says outright what a sector is to be. If there is no
//!   connection by then, all that waits fails with [`IoError::Transport`], and the disk is offline; a later request begins a
//!   new attempt.
//! * *The server is silent* for [`NbdOptions::request_max`], or the network is: it may still have our requests and carry
//!   them out whenever it wakes up, and NBD cannot call them back. So they fail with [`IoError::Timeout`], and the disk is
//!   not spoken to any more as long as this bank lives: nothing newer of ours can be overwritten.
//! * *A new server has forgotten* what the old one had acknowledged and not flushed, perhaps. After a new connection
//!   the sectors in doubt cannot be read ([`IoError::Medium`]) until they are written again, and the next flush fails, as
//!   that of a disk whose cache lost something.
//! * *Another disk answers* under the old name: it must have the same size and abilities, and what the last forced write
//!   stored, or what the disk began with.
//!
//! An export has no lock: that nobody else writes to it is the business of whoever runs the server.

mod cache;
mod line;
mod paths;
#[cfg(test)]
mod tests;

pub use paths::{NbdPathOptions, NbdPaths};

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, Event};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustls::pki_types::ServerName;
use thiserror::Error;

use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Op, Payload, Request,
    RequestId, Sectors, Wakeups,
};
use crate::nbd::{
    ClientError, Credentials, CredentialsError, ExportFacts, NbdServer, NbdUri, Session, TransmissionFlags,
};
use cache::{Flush, ServerCache};
use line::{Address, Break, Destination, Line, Secrecy};

/// How patient a bank is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NbdOptions {
    /// A request that is not answered by then fails.
    pub request_max: Duration,
    /// A lost connection that is not made anew by then is given up; also how long the first one may take.
    pub outage_max: Duration,
}

impl Default for NbdOptions {
    fn default() -> NbdOptions {
        NbdOptions { request_max: Duration::from_secs(10), outage_max: Duration::from_secs(5) }
    }
}

/// The second attempt to connect comes this long after the first, each further one after twice as long as the one before.
const RETRY_MIN: Duration = Duration::from_millis(50);

/// But not later than this.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Sectors that prove a disk to be the same as before, where nothing was forced: the first 8 KiB.
const PROOF: Sectors = Sectors(16);

/// A forced write proves it if it is no longer than this, in bytes.
const PROOF_BYTES_MAX: usize = 64 << 10;

/// The key of the question for the proof.
const PROOF_KEY: u64 = u64::MAX;

/// Sockets looked at in one poll, at the most; the others are next.
const EVENTS: usize = 64;

/// A bank of exports of NBD servers.
pub struct NbdBank {
    options: NbdOptions,
    /// Tells of sockets; readable when one has something.
    epoll: OwnedFd,
    /// Scratch: what it told.
    events: Vec<Event>,
    disks: Vec<Disk>,
    done: Vec<(DeviceId, Completion)>,
}

/// Why an export cannot be used as a disk.
#[derive(Debug, Error)]
pub enum NbdDiskError {
    /// Its server cannot be reached.
    #[error("cannot reach {uri}: {source}; is its server running?")]
    Unreachable {
        /// The export.
        uri: Box<NbdUri>,
        /// Why not.
        source: io::Error,
    },
    /// Its server says nothing.
    #[error("{uri} does not answer within {} s", waited.as_secs_f32())]
    Silent {
        /// The export.
        uri: Box<NbdUri>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Its server does not give it.
    #[error("cannot use {uri}: {source}")]
    Refused {
        /// The export.
        uri: Box<NbdUri>,
        /// Why not.
        source: ClientError,
    },
    /// It is to be spoken to under TLS, and what that needs is not there.
    #[error("cannot speak TLS with {uri}: {source}")]
    Credentials {
        /// The export.
        uri: Box<NbdUri>,
        /// What is missing.
        source: CredentialsError,
    },
    /// No certificate can be made out for its server.
    #[error("cannot speak TLS with {uri}: {name:?} is no name a certificate could have; give ?tls-hostname=NAME")]
    Name {
        /// The export.
        uri: Box<NbdUri>,
        /// What its server is called.
        name: String,
    },
    /// It takes no writes.
    #[error("{uri} is read-only: a disk must be writable")]
    ReadOnly {
        /// The export.
        uri: Box<NbdUri>,
    },
    /// Two paths do not lead to one disk.
    #[error("{uri} and {other} are not paths to one disk: {why}")]
    Misfit {
        /// An export.
        uri: Box<NbdUri>,
        /// Another.
        other: Box<NbdUri>,
        /// How they differ.
        why: &'static str,
    },
    /// It has no sector.
    #[error("{uri} holds {bytes} bytes, {needed} are needed")]
    TooSmall {
        /// The export.
        uri: Box<NbdUri>,
        /// What it holds.
        bytes: u64,
        /// One block.
        needed: u64,
    },
    /// Its blocks are larger than a disk's may be.
    #[error("{uri} takes requests in blocks of {minimum} bytes, a disk's are 512 or 4096")]
    Blocks {
        /// The export.
        uri: Box<NbdUri>,
        /// What it insists on.
        minimum: u32,
    },
}

#[derive(Debug)]
struct Disk {
    to: Destination,
    facts: ExportFacts,
    limits: Limits,
    link: Link,
    /// Nothing is asked of it any more.
    is_closed: bool,
    /// Its socket has something to say, perhaps.
    is_ready: bool,
    /// What was submitted and is not done, by key: in order.
    asked: BTreeMap<u64, Asked>,
    /// Those of them that no server has.
    waiting: BTreeMap<u64, (Extent, Op)>,
    keys: u64,
    cache: ServerCache,
    /// What a server has to show to be taken for the same; nothing while it may be changing.
    proof: Option<(Extent, Payload)>,
}

#[derive(Debug)]
struct Asked {
    id: RequestId,
    extent: Extent,
    is_write: bool,
    since: Instant,
    flush: Option<Flush>,
}

#[derive(Debug)]
enum Link {
    Up(Line),
    Down(Outage),
    Gone(Gone),
}

/// A connection that is being made anew.
#[derive(Debug)]
struct Outage {
    line: Option<Line>,
    /// How long that one is waited for: the next way may be better.
    line_until: Instant,
    attempts: u32,
    retry_at: Instant,
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gone {
    /// It can be asked again.
    Lost,
    /// It may still have requests of ours.
    Silent,
}

impl NbdBank {
    /// A bank without disks. An error if the process has no descriptor left.
    pub fn new(options: NbdOptions) -> io::Result<NbdBank> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(NbdBank { options, epoll, events: Vec::with_capacity(EVENTS), disks: Vec::new(), done: Vec::new() })
    }

    /// Adds the disk that an export is. Waits for its server, for a while.
    pub fn open(&mut self, uri: &NbdUri, read_only: bool) -> Result<DeviceId, NbdDiskError> {
        let to = Destination::of(uri)?;
        self.open_at(uri, to, read_only)
    }

    fn open_at(&mut self, uri: &NbdUri, to: Destination, read_only: bool) -> Result<DeviceId, NbdDiskError> {
        let token = self.disks.len() as u64;
        let Found { line, facts, limits, proof } = find(uri, &to, None, read_only, (&self.epoll, token), self.options)?;
        self.disks.push(Disk {
            to,
            facts,
            limits,
            link: Link::Up(line),
            is_closed: false,
            is_ready: false,
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            keys: 0,
            cache: ServerCache::default(),
            proof,
        });
        Ok(DeviceId(token as u32))
    }

    /// Lets go of an export, as soon as what was asked of it is answered; requests that come later fail.
    pub fn close(&mut self, device: DeviceId) {
        let disk = &mut self.disks[device.0 as usize];
        disk.is_closed = true;
        disk.let_go_if_idle();
    }
}

/// A connection that was just made, and what it leads to.
struct Found {
    line: Line,
    facts: ExportFacts,
    limits: Limits,
    proof: Option<(Extent, Payload)>,
}

/// Connects to an export for the first time; waits for its server, for a while.
fn find(
    uri: &NbdUri,
    to: &Destination,
    session: Option<Session>,
    read_only: bool,
    (epoll, token): (&OwnedFd, u64),
    options: NbdOptions,
) -> Result<Found, NbdDiskError> {
    let patience = Patience::of(options.outage_max);
    let mut line = reach(uri, to, session, (epoll, token), &patience, options)?;
    let facts = *line.client.export().expect("the handshake is over");
    let limits = limits_of(uri, &facts, read_only)?;
    let extent = Extent::new(Lba(0), PROOF.min(limits.capacity));
    line.client.submit(PROOF_KEY, extent, Op::Read(Buf::zeroed(extent.length.bytes() as usize)));
    let told = line.drive(epoll, &patience, |line| line.client.is_idle());
    if !told.map_err(|why| open_error(uri, why))? {
        return Err(silent(uri, options));
    }
    // A beginning that cannot be read proves nothing, and is the array's to find out.
    let proof = match line.client.next_done() {
        Some((_, Op::Read(buf), Ok(()))) => Some((extent, buf.freeze())),
        _ => None,
    };
    Ok(Found { line, facts, limits, proof })
}

/// A line to the export by the first way that leads to it; each has its share of the time that is left.
fn reach(
    uri: &NbdUri,
    to: &Destination,
    session: Option<Session>,
    (epoll, token): (&OwnedFd, u64),
    patience: &Patience,
    options: NbdOptions,
) -> Result<Line, NbdDiskError> {
    let mut way = 0;
    loop {
        let ways_left = to.ways() - way;
        let share = patience.share(ways_left);
        let attempt = Line::begin(to, way, session, epoll, token, options.request_max).map_err(Break::System).and_then(
            |mut line| line.drive(epoll, &share, |line| line.client.export().is_some()).map(|there| (line, there)),
        );
        match attempt {
            Ok((line, true)) => return Ok(line),
            Ok((_, false)) | Err(Break::System(_)) if ways_left > 1 => way += 1,
            Ok((_, false)) => return Err(silent(uri, options)),
            Err(why) => return Err(open_error(uri, why)),
        }
    }
}

fn silent(uri: &NbdUri, options: NbdOptions) -> NbdDiskError {
    NbdDiskError::Silent { uri: Box::new(uri.clone()), waited: options.outage_max }
}

impl Destination {
    /// Where an export is found; a name is looked up once.
    fn of(uri: &NbdUri) -> Result<Destination, NbdDiskError> {
        let address = Address::of(&uri.server)
            .map_err(|source| NbdDiskError::Unreachable { uri: Box::new(uri.clone()), source })?;
        Ok(Destination { address, export: uri.export.clone(), secrecy: secrecy_of(uri)? })
    }
}

/// Who the server of an export has to be, and who is trusted to say so.
fn secrecy_of(uri: &NbdUri) -> Result<Option<Secrecy>, NbdDiskError> {
    let Some(tls) = &uri.tls else { return Ok(None) };
    let boxed = || Box::new(uri.clone());
    let credentials = Credentials::of(&tls.certificates)
        .client()
        .map_err(|source| NbdDiskError::Credentials { uri: boxed(), source })?;
    let name = match (&tls.hostname, &uri.server) {
        (Some(name), _) => name.clone(),
        (None, NbdServer::Tcp { host, .. }) => host.clone(),
        (None, NbdServer::Unix(_)) => "localhost".to_owned(),
    };
    match ServerName::try_from(name.clone()) {
        Ok(name) => Ok(Some(Secrecy { credentials, name })),
        Err(_) => Err(NbdDiskError::Name { uri: boxed(), name }),
    }
}

fn open_error(uri: &NbdUri, why: Break) -> NbdDiskError {
    let uri = Box::new(uri.clone());
    match why {
        Break::System(errno) => NbdDiskError::Unreachable { uri, source: errno.into() },
        Break::Client(source) => NbdDiskError::Refused { uri, source },
        Break::Ended => {
            let why = match uri.tls {
                None => "the connection was closed before the export was agreed on",
                Some(_) => {
                    "the connection was closed before the export was agreed on, as by a server that wants a certificate: \
                     client-cert.pem and client-key.pem in the directory of ?tls-certificates=DIR"
                }
            };
            NbdDiskError::Unreachable { uri, source: io::Error::other(why) }
        }
    }
}

/// What a disk is that a server describes so.
fn limits_of(uri: &NbdUri, facts: &ExportFacts, read_only: bool) -> Result<Limits, NbdDiskError> {
    let uri = || Box::new(uri.clone());
    let logical_block = match facts.minimum {
        ..=512 => Sectors(1),
        513..=4096 => Sectors(8),
        minimum => return Err(NbdDiskError::Blocks { uri: uri(), minimum }),
    };
    if !read_only && facts.flags.contains(TransmissionFlags::READ_ONLY) {
        return Err(NbdDiskError::ReadOnly { uri: uri() });
    }
    let capacity = Sectors::floor_bytes(facts.size).round_down(logical_block);
    if capacity < logical_block {
        return Err(NbdDiskError::TooSmall { uri: uri(), bytes: facts.size, needed: logical_block.bytes() });
    }
    Ok(Limits { logical_block, read_only, ..Limits::of_disk(capacity) })
}

/// How long something that has to be waited for may take.
struct Patience {
    until: std::time::Instant,
}

impl Patience {
    fn of(most: Duration) -> Patience {
        Patience { until: std::time::Instant::now() + most }
    }

    /// What each of `count` attempts may take of what is left.
    fn share(&self, count: usize) -> Patience {
        Patience::of(self.left().unwrap_or_default() / count as u32)
    }

    fn left(&self) -> Option<Duration> {
        self.until.checked_duration_since(std::time::Instant::now()).filter(|left| !left.is_zero())
    }
}

impl Line {
    /// Waits until `until` says so; false if that takes too long.
    fn drive(&mut self, epoll: &OwnedFd, patience: &Patience, until: impl Fn(&Line) -> bool) -> Result<bool, Break> {
        loop {
            self.pump(epoll)?;
            if until(self) {
                return Ok(true);
            }
            let Some(left) = patience.left() else { return Ok(false) };
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            // An interrupted wait is a short one.
            let _ = rustix::event::poll(&mut [PollFd::new(epoll, PollFlags::IN)], Some(&timeout));
        }
    }
}

impl Disk {
    fn take(&mut self, request: Request, options: &NbdOptions, now: Instant) -> Option<Completion> {
        if let Some(error) = self.limits.refuse(&request) {
            return Some(request.complete(Err(error)));
        }
        match self.link {
            _ if self.is_closed => return Some(request.complete(Err(IoError::Offline))),
            Link::Gone(Gone::Silent) => return Some(request.complete(Err(IoError::Offline))),
            Link::Gone(Gone::Lost) => self.link = Link::Down(Outage::new(now, now + options.outage_max)),
            Link::Up(_) | Link::Down(_) => {}
        }
        let key = self.keys;
        self.keys += 1;
        let Request { id, extent, op } = request;
        let (is_write, flush) = (op.is_write(), None);
        self.asked.insert(key, Asked { id, extent, is_write, since: now, flush });
        match self.link {
            Link::Up(_) => self.send(key, extent, op),
            _ => {
                self.waiting.insert(key, (extent, op));
                None
            }
        }
    }

    /// Asks the server; gives the completion of what it need not be asked.
    fn send(&mut self, key: u64, extent: Extent, op: Op) -> Option<Completion> {
        let Link::Up(line) = &mut self.link else { panic!("there is no server to ask") };
        match &op {
            Op::Read(_) if self.cache.hides(extent) => {
                return Some(self.complete(key, op, Err(IoError::Medium)));
            }
            Op::Flush => {
                let flush = self.cache.flush_begins();
                self.asked.get_mut(&key).expect("it was asked").flush = Some(flush);
            }
            _ if op.is_write() => {
                self.proof.take_if(|(proof, _)| proof.overlaps(extent));
            }
            _ => {}
        }
        line.client.submit(key, extent, op);
        None
    }

    /// The server has answered.
    fn answered(&mut self, key: u64, op: Op, mut result: Result<(), IoError>) -> Completion {
        let extent = self.asked[&key].extent;
        if let Some(flush) = self.asked.get_mut(&key).and_then(|asked| asked.flush.take()) {
            result = self.cache.flush_ends(flush, result);
        }
        if op.is_write() && result.is_ok() {
            self.cache.wrote(extent, is_forced(&op));
            let writes_there = |asked: &&Asked| asked.is_write && asked.extent.overlaps(extent);
            if let Op::Write(payload, Durability::Fua) = &op
                && payload.len() <= PROOF_BYTES_MAX
                && self.asked.values().filter(writes_there).count() == 1
            {
                self.proof = Some((extent, payload.clone()));
            }
        }
        self.complete(key, op, result)
    }

    fn complete(&mut self, key: u64, op: Op, result: Result<(), IoError>) -> Completion {
        let asked = self.asked.remove(&key).expect("each request ends once");
        Completion { id: asked.id, op, result }
    }

    /// The connection is of no use any more.
    fn lost(&mut self, mut line: Line, why: &Break, options: &NbdOptions, now: Instant, done: &mut Vec<Completion>) {
        for (key, extent, op) in line.client.unfinished() {
            self.waiting.insert(key, (extent, op));
        }
        if !why.is_over() {
            let is_late = matches!(why, Break::System(Errno::TIMEDOUT));
            let error = if is_late { IoError::Timeout } else { IoError::Transport };
            return self.give_up(Gone::Silent, error, done);
        }
        for flush in self.asked.values_mut().filter_map(|asked| asked.flush.take()) {
            self.cache.flush_is_lost(flush);
        }
        self.cache.is_gone();
        // No request waits longer than it may.
        let patience = self.asked.values().next().map(|asked| asked.since + options.request_max);
        let until = (now + options.outage_max).min(patience.unwrap_or(now + options.outage_max));
        self.link = Link::Down(Outage::new(now, until));
    }

    fn give_up(&mut self, gone: Gone, error: IoError, done: &mut Vec<Completion>) {
        self.link = Link::Gone(gone);
        for (key, (_, op)) in std::mem::take(&mut self.waiting) {
            done.push(self.complete(key, op, Err(error)));
        }
        assert!(self.asked.is_empty(), "what no server has is waiting");
    }

    fn let_go_if_idle(&mut self) {
        if self.is_closed && self.asked.is_empty() {
            self.link = Link::Gone(Gone::Lost);
        }
    }

    /// Does what is due.
    fn drive(&mut self, shared: &Shared<'_>, token: u64, now: Instant, done: &mut Vec<Completion>) {
        match std::mem::replace(&mut self.link, Link::Gone(Gone::Lost)) {
            Link::Up(line) => self.drive_line(line, shared, now, done),
            Link::Down(outage) => self.drive_outage(outage, shared, token, now, done),
            gone @ Link::Gone(_) => self.link = gone,
        }
        self.let_go_if_idle();
    }

    fn drive_line(&mut self, mut line: Line, shared: &Shared<'_>, now: Instant, done: &mut Vec<Completion>) {
        let pumped = match std::mem::take(&mut self.is_ready) || line.has_output() {
            true => line.pump(shared.epoll),
            false => Ok(()),
        };
        while let Some((key, op, result)) = line.client.next_done() {
            done.push(self.answered(key, op, result));
        }
        let oldest = self.asked.values().next().map(|asked| asked.since);
        match pumped {
            Err(why) => self.lost(line, &why, shared.options, now, done),
            Ok(()) if oldest.is_some_and(|since| since + shared.options.request_max <= now) => {
                self.lost(line, &Break::System(Errno::TIMEDOUT), shared.options, now, done);
            }
            Ok(()) => self.link = Link::Up(line),
        }
    }

    fn drive_outage(
        &mut self,
        mut outage: Outage,
        shared: &Shared<'_>,
        token: u64,
        now: Instant,
        done: &mut Vec<Completion>,
    ) {
        if outage.line.is_none() && outage.retry_at <= now {
            let ways = self.to.ways();
            let way = outage.attempts as usize % ways;
            let begun = Line::begin(&self.to, way, None, shared.epoll, token, shared.options.request_max);
            match begun {
                Ok(line) => {
                    outage.line = Some(line);
                    outage.line_until = now + outage.until.since(now) / (ways - way) as u32;
                }
                Err(_) => outage.retry_later(now),
            }
        }
        if let Some(mut line) = outage.line.take() {
            match line.pump(shared.epoll).map(|()| self.is_same(&mut line)) {
                Ok(Some(true)) => return self.is_back(line, done),
                Ok(None) if now < outage.line_until => outage.line = Some(line),
                Ok(_) | Err(_) => outage.retry_later(now),
            }
        }
        match outage.until <= now {
            true => self.give_up(Gone::Lost, IoError::Transport, done),
            false => self.link = Link::Down(outage),
        }
    }

    /// Whether the disk behind a new connection is the one there was; nothing while that is being found out.
    fn is_same(&self, line: &mut Line) -> Option<bool> {
        let facts = line.client.export()?;
        if *facts != self.facts {
            return Some(false);
        }
        let Some((extent, bytes)) = &self.proof else { return Some(true) };
        match line.client.next_done() {
            Some((_, Op::Read(buf), Ok(()))) => Some(buf.freeze() == *bytes),
            Some(_) => Some(false),
            None => {
                if line.client.is_idle() {
                    line.client.submit(PROOF_KEY, *extent, Op::Read(Buf::zeroed(bytes.len())));
                }
                None
            }
        }
    }

    /// Asks again for what was not answered.
    fn is_back(&mut self, line: Line, done: &mut Vec<Completion>) {
        self.link = Link::Up(line);
        for (key, (extent, op)) in std::mem::take(&mut self.waiting) {
            done.extend(self.send(key, extent, op));
        }
    }

    fn next_deadline(&self, options: &NbdOptions) -> Option<Instant> {
        match &self.link {
            Link::Up(line) if line.has_output() => Some(Instant::START),
            Link::Up(_) => self.asked.values().next().map(|asked| asked.since + options.request_max),
            Link::Down(Outage { line: Some(line), .. }) if line.has_output() => Some(Instant::START),
            Link::Down(Outage { line: Some(_), line_until, .. }) => Some(*line_until),
            Link::Down(outage) => Some(outage.retry_at.min(outage.until)),
            Link::Gone(_) => None,
        }
    }
}

/// Whether a write is durable when it is done.
fn is_forced(op: &Op) -> bool {
    matches!(op, Op::Write(_, Durability::Fua) | Op::WriteZeroes(Durability::Fua))
}

/// How long to wait after so many attempts to connect.
fn retry_delay(attempts: u32) -> Duration {
    RETRY_MAX.min(RETRY_MIN * (1 << attempts.min(8)))
}

impl Outage {
    fn new(now: Instant, until: Instant) -> Outage {
        Outage { line: None, line_until: until, attempts: 0, retry_at: now, until }
    }

    fn retry_later(&mut self, now: Instant) {
        self.retry_at = now + retry_delay(self.attempts);
        self.attempts += 1;
    }
}

/// What all disks of a bank have in common.
struct Shared<'a> {
    epoll: &'a OwnedFd,
    options: &'a NbdOptions,
}

impl Bank for NbdBank {
    fn limits(&self, device: DeviceId) -> Limits {
        self.disks[device.0 as usize].limits
    }

    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        if let Some(completion) = self.disks[device.0 as usize].take(request, &self.options, now) {
            self.done.push((device, completion));
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        if self.disks.is_empty() {
            return;
        }
        // Without an answer all are looked at, which does no harm.
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.events.clear();
        let told = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&at_once));
        let ready = self.events.iter().map(|event| event.data.u64() as usize);
        match told {
            Ok(_) => ready.for_each(|number| self.disks[number].is_ready = true),
            Err(_) => self.disks.iter_mut().for_each(|disk| disk.is_ready = true),
        }
        let shared = Shared { epoll: &self.epoll, options: &self.options };
        let mut completions = Vec::new();
        for (number, disk) in self.disks.iter_mut().enumerate() {
            disk.drive(&shared, number as u64, now, &mut completions);
            self.done.extend(completions.drain(..).map(|completion| (DeviceId(number as u32), completion)));
        }
        done.append(&mut self.done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        if !self.done.is_empty() {
            return Some(Instant::START);
        }
        self.disks.iter().filter_map(|disk| disk.next_deadline(&self.options)).min()
    }
}

impl Wakeups for NbdBank {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.epoll.as_fd()]
    }
}
