//! Two writes to one block over two paths, in every order that frames may come in.
//!
//! Map, host and target are the real ones; the wire between them is a bag: a frame may be taken out of it at any time until it is
//! [`LIFETIME`] old, or never. So a command is lost, carried out late, or its answer is lost, wherever that can be. What a state may do
//! next is tried to the end; states that were seen before are not tried again.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::frame::{Content, Frame};
use super::graph::Preset;
use super::host::Host;
use super::target::Target;
use super::transport::Transport;
use super::*;
use crate::block::{Bank, Durability, Extent, Lba, Op, Payload, RequestId, Sectors};
use crate::multipath::Multipath;
use crate::multipath::settings::{Checker, RetrySafety, SelectorKind, Settings};

const UNIT: DeviceId = DeviceId(0);
const SECOND: Duration = Duration::from_secs(1);

/// A frame that is older is lost. A command that has no answer is given up after a second: then it can still land for two.
const LIFETIME: Duration = Duration::from_secs(3);

/// How long a story lasts, and how long one in which writes are held for some time.
const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(6);

/// Two writes, and two that were given up.
const COMMANDS: u64 = 4;

/// A unit of one block of one byte.
#[derive(Clone, Debug, Default)]
struct Block {
    byte: u8,
    done: Vec<Completion>,
}

impl Bank for Block {
    fn limits(&self, _: DeviceId) -> Limits {
        Limits { grain: 1, ..Limits::of_disk(Sectors(1)) }
    }

    fn submit(&mut self, _: DeviceId, request: Request, _: Instant) {
        if let Op::Write(payload, _) = &request.op {
            self.byte = payload.slices().next().expect("a byte is written")[0];
        }
        self.done.push(request.complete(Ok(())));
    }

    fn poll(&mut self, _: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        done.extend(self.done.drain(..).map(|completion| (UNIT, completion)));
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

#[derive(Clone, Debug)]
struct Air {
    host: Host,
    target: Target<Block>,
    frames: Vec<(Instant, Frame)>,
}

impl Air {
    fn exchange(&mut self, now: Instant) {
        self.target.poll(now);
        let frames = self.host.drain_outbox().into_iter().chain(self.target.drain_outbox());
        self.frames.extend(frames.map(|frame| (now, frame)));
    }

    fn deliver(&mut self, at: usize, now: Instant) {
        let (_, frame) = self.frames.remove(at);
        match frame.is_out() {
            true => self.target.receive(frame, now),
            false => self.host.receive(frame, true, now),
        }
        self.exchange(now);
    }
}

impl Fabric for Air {
    fn paths(&self) -> &[PathInfo] {
        self.host.paths()
    }

    fn limits(&self, unit: DeviceId) -> Limits {
        self.host.limits(unit)
    }

    fn link(&self, path: PathId) -> Link {
        self.host.link(path)
    }

    fn access(&self, path: PathId) -> Access {
        self.host.access(path)
    }

    fn submit(&mut self, path: PathId, request: Request, now: Instant) {
        self.host.submit(path, request, now);
        self.exchange(now);
    }

    fn probe(&mut self, path: PathId, probe: Probe, now: Instant) {
        self.host.probe(path, probe, now);
        self.exchange(now);
    }

    fn fence(&mut self, path: PathId, via: PathId, now: Instant) {
        self.host.fence(path, via, now);
        self.exchange(now);
    }

    fn abort(&mut self, path: PathId, id: RequestId, now: Instant) {
        self.host.abort(path, id, now);
        self.exchange(now);
    }

    fn reset(&mut self, unit: DeviceId, via: PathId, now: Instant) {
        self.host.reset(unit, via, now);
        self.exchange(now);
    }

    fn set_epoch(&mut self, unit: DeviceId, epoch: u64) {
        self.host.set_epoch(unit, epoch);
    }

    fn activate(&mut self, path: PathId, now: Instant) {
        self.host.activate(path, now);
        self.exchange(now);
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        self.host.poll(now, events);
        self.exchange(now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.host.next_deadline()
    }
}

#[derive(Clone, Debug)]
struct World {
    multipath: Multipath<Air>,
    now: Instant,
    /// Writes that were acknowledged: the second is sent when the first is.
    acknowledged: u8,
}

impl World {
    fn new(safety: RetrySafety) -> World {
        let bank = Block::default();
        let limits = bank.limits(UNIT);
        let graph = Preset::SasDual.graph();
        let paths = graph.paths().to_vec();
        let transport = Transport { cmd_timeout: SECOND, max_retries: 0, ..Transport::FC };
        let accesses = vec![Access::Optimized; paths.len()];
        let air = Air {
            host: Host::new(paths.clone(), BTreeMap::from([(UNIT, limits)]), accesses, transport),
            // A target that checks nothing but what the policy under test asks of it.
            target: Target::new(bank, paths, safety.needs(), graph.alua()),
            frames: Vec::new(),
        };
        let settings = Settings {
            retry_safety: safety,
            selector: SelectorKind::RoundRobin,
            checker: Checker::None,
            polling_interval: SECOND,
            max_polling_interval: SECOND,
            ..Settings::default()
        };
        let mut world = World { multipath: Multipath::new(air, settings), now: Instant::START, acknowledged: 0 };
        world.write(1);
        world
    }

    fn write(&mut self, number: u8) {
        let op = Op::Write(Payload::copy_of(&[number]), Durability::Volatile);
        let request = Request::new(RequestId(number.into()), Extent::new(Lba(0), Sectors(1)), op);
        self.multipath.submit(UNIT, request, self.now);
    }

    fn poll(&mut self) {
        let mut done = Vec::new();
        self.multipath.poll(self.now, &mut done);
        // What was told is no part of a state.
        self.multipath.drain_changes();
        self.multipath.fabric_mut().host.drain_notes();
        for (_, completion) in done {
            assert_eq!(completion.result, Ok(()), "requests wait for a path");
            self.acknowledged += 1;
            if self.acknowledged == 1 {
                self.write(2);
            }
        }
    }

    /// Every state that may be the next; none if both writes are done and nothing is under way that could undo them.
    fn successors(&self) -> Vec<World> {
        let is_command = |(_, frame): &(Instant, Frame)| matches!(frame.content, Content::Command(_));
        if self.acknowledged == 2 && !self.multipath.fabric().frames.iter().any(is_command) {
            return Vec::new();
        }
        let frames = self.multipath.fabric().frames.len();
        let mut next: Vec<World> = (0..frames)
            .map(|at| {
                let mut world = self.clone();
                world.multipath.fabric_mut().deliver(at, world.now);
                world.poll();
                world
            })
            .collect();
        let sent: u64 = (0..2).map(|path| self.multipath.fabric().host.sent(PathId(path))).sum();
        let (length, commands) = match self.multipath.settings().retry_safety {
            RetrySafety::Hold(_) => (LONG, COMMANDS),
            // Questions that are asked again and again make many states: one write is given up.
            RetrySafety::Fence | RetrySafety::Epoch => (SECOND * 2, COMMANDS - 1),
            RetrySafety::None | RetrySafety::Abort => (SHORT, COMMANDS),
        };
        if self.now < Instant::START + length && sent <= commands {
            let mut world = self.clone();
            let due = world.multipath.next_deadline().expect("a map has its tick");
            world.now = world.now.max(due);
            let now = world.now;
            world.multipath.fabric_mut().frames.retain(|(sent, _)| now.since(*sent) <= LIFETIME);
            world.poll();
            next.push(world);
        }
        next
    }

    fn is_right(&self) -> bool {
        let found = self.multipath.fabric().target.bank().byte;
        match self.acknowledged {
            0 => found <= 1,
            1 => found == 1 || found == 2,
            _ => found == 2,
        }
    }

    /// Worlds of one key go on alike.
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{self:?}").hash(&mut hasher);
        hasher.finish()
    }
}

struct Found {
    states: usize,
    /// States in which the block is not what it may be.
    wrong: usize,
    /// States in which both writes are done.
    done: usize,
}

fn explore(safety: RetrySafety) -> Found {
    let mut seen = HashSet::new();
    let mut found = Found { states: 0, wrong: 0, done: 0 };
    let mut open = vec![World::new(safety)];
    while let Some(world) = open.pop() {
        if !seen.insert(world.key()) {
            continue;
        }
        found.states += 1;
        found.done += usize::from(world.acknowledged == 2);
        if world.is_right() {
            open.extend(world.successors());
        } else {
            found.wrong += 1;
        }
    }
    println!("{safety:?}: {} states, {} wrong, {} with both writes done", found.states, found.wrong, found.done);
    found
}

#[test]
fn sent_again_at_once_or_too_soon_a_write_lands_over_a_newer_one() {
    for unsafe_one in [RetrySafety::None, RetrySafety::Hold(SECOND)] {
        let found = explore(unsafe_one);
        assert!(found.wrong > 0, "{unsafe_one:?}: {} states", found.states);
    }
}

#[test]
fn no_order_of_frames_makes_a_write_land_late_where_the_policy_is_safe() {
    let long = RetrySafety::Hold(LIFETIME);
    for safe in [long, RetrySafety::Abort, RetrySafety::Fence, RetrySafety::Epoch] {
        let found = explore(safe);
        assert_eq!(found.wrong, 0, "{safe:?}: {} states", found.states);
        assert!(found.done > 0 && found.states > 50, "{safe:?}: {} states", found.states);
    }
}
