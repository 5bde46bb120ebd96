//! A fabric in virtual time: what a command sees on its way to a logical unit and back.
//!
//! ```text
//!   initiator ──frame──▶ adapter · cable · switch · port · controller ──▶ logical unit (a bank)
//!             ◀─frame──                                             ◀── its answer
//! ```
//!
//! A frame arrives if every component on its way lets it pass when it gets there. What a component that is *down* loses, the links
//! beside it say; what one loses that is a *black hole*, nobody says. A *stalled* component keeps what it gets and passes it on once it
//! is well again: that is how a write lands long after somebody gave it up.
//!
//! Initiator and target are two halves that know each other by frames only. The target refuses frames of a nexus that was fenced.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use super::frame::{Content, Frame, Question, Wanted};
use super::graph::{ComponentId, Graph};
use super::initiator::{Initiator, Out, Tag};
use super::transport::{LINK_EVENT_DELAY, Transport};
use super::{Access, Event, Fabric, Link, PathId, PathInfo, Probe, Verdict};
use crate::block::{Bank, Buf, Completion, DeviceId, Extent, Instant, IoError, Lba, Limits, Op, Request, RequestId};

pub use super::initiator::{BUSY_DELAY, Note};

/// How long a controller takes to take over from one that is gone.
pub const TRANSITION: Duration = Duration::from_secs(2);

/// How a component is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// Well.
    Up,
    /// Gone, and its neighbours say so.
    Down,
    /// Frames vanish, and nobody says so: those to the target, those from it, or both.
    BlackHole {
        /// Towards the target.
        tx: bool,
        /// From the target.
        rx: bool,
    },
    /// Frames wait until it is well again.
    Stalled,
    /// Frames take so many times as long.
    Slow(u32),
}

/// What a path costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wire {
    /// From a command sent to its answer, the unit's own time not counted.
    pub latency: Duration,
    /// How far a command's time may be from that, in percent.
    pub jitter: u32,
    /// Bytes a second, each way.
    pub bandwidth: u64,
}

impl Default for Wire {
    /// 100 µs ± 20 %, 1 GB/s.
    fn default() -> Wire {
        Wire { latency: Duration::from_micros(100), jitter: 20, bandwidth: 1_000_000_000 }
    }
}

/// For whom the unit works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Command(Tag),
    /// A checker that reads.
    Checker(Access),
}

/// The target's half: which controller owns the unit, and whom it serves.
#[derive(Clone, Debug)]
struct Target {
    owner: usize,
    /// The owner to be, and since when it will be.
    moving: Option<(Instant, usize)>,
    /// Frames of an older generation of a nexus are refused.
    generations: Vec<u64>,
    /// Who is to be told, by which path, that a nexus has ended: when the unit has finished what it had begun for it.
    ending: Vec<(PathId, PathId, u64)>,
}

/// A question for the end of a nexus that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Fencing {
    path: PathId,
    begun: Instant,
    due: Instant,
}

/// An emulated fabric over the bank of its logical units.
#[derive(Clone, Debug)]
pub struct Emulated<B> {
    bank: B,
    graph: Graph,
    transport: Transport,
    wires: Vec<Wire>,
    health: Vec<Health>,
    initiator: Initiator,
    target: Target,
    generations: Vec<u64>,
    accesses: Vec<Access>,
    /// Until when each path's wire is taken, there and back.
    busy: Vec<[Instant; 2]>,
    frames: BTreeMap<(Instant, u64), Frame>,
    /// What stalled components keep.
    stalled: Vec<Frame>,
    /// What TCP sends again for so long as its connection lives.
    unacknowledged: Vec<Frame>,
    frames_total: u64,
    at_unit: BTreeMap<u64, (PathId, u64, Asker)>,
    fencing: Vec<Fencing>,
    out: Vec<Out>,
    events: Vec<Event>,
    notes: Vec<(Instant, PathId, Note)>,
    /// Commands that each path was sent, repetitions too.
    sent: Vec<u64>,
    seed: u64,
}

impl<B: Bank> Emulated<B> {
    /// All components are well. The first controller owns the unit; chance comes from `seed`.
    pub fn new(bank: B, graph: Graph, transport: Transport, seed: u64) -> Emulated<B> {
        let paths = graph.paths().len();
        let initiator = Initiator::new(transport, graph.paths().iter().map(|path| path.hba), Instant::START);
        let mut fabric = Emulated {
            bank,
            transport,
            wires: vec![Wire::default(); paths],
            health: vec![Health::Up; graph.components().len()],
            initiator,
            target: Target { owner: 0, moving: None, generations: vec![0; paths], ending: Vec::new() },
            generations: vec![0; paths],
            accesses: Vec::new(),
            busy: vec![[Instant::START; 2]; paths],
            frames: BTreeMap::new(),
            stalled: Vec::new(),
            unacknowledged: Vec::new(),
            frames_total: 0,
            at_unit: BTreeMap::new(),
            fencing: Vec::new(),
            out: Vec::new(),
            events: Vec::new(),
            notes: Vec::new(),
            sent: vec![0; paths],
            graph,
            seed,
        };
        fabric.accesses = fabric.graph.paths().iter().map(|path| fabric.access_at(path, Instant::START)).collect();
        fabric
    }

    /// What is beneath the paths.
    pub fn bank(&self) -> &B {
        &self.bank
    }

    /// What is beneath the paths, to be changed by its owner: requests go down paths.
    pub fn bank_mut(&mut self) -> &mut B {
        &mut self.bank
    }

    /// What is beneath the paths, alone.
    pub fn into_bank(self) -> B {
        self.bank
    }

    /// Components and routes.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// From now on a component is as `health` says.
    pub fn set_health(&mut self, component: ComponentId, health: Health, now: Instant) {
        let was: Vec<bool> = self.all_paths().map(|path| self.is_connected(path)).collect();
        self.health[component.0] = health;
        for path in self.all_paths() {
            let (before, after) = (was[usize::from(path.0)], self.is_connected(path));
            if self.transport.link_events && before != after {
                let content = if after { Content::LinkUp } else { Content::LinkDown };
                self.arrives(now + LINK_EVENT_DELAY, Frame { path, generation: 0, content });
            }
        }
        if health == Health::Up {
            for frame in std::mem::take(&mut self.stalled) {
                self.put(frame, now);
            }
            for frame in std::mem::take(&mut self.unacknowledged) {
                let wanted = match frame.content {
                    Content::Command(tag, ..) | Content::Answer(tag, ..) => self.initiator.waits_for(tag),
                    _ => self.initiator.link(frame.path) == Link::Online,
                };
                if wanted {
                    self.put(frame, now);
                }
            }
        }
        self.mind_the_owner(now);
    }

    /// From now on a path costs this.
    pub fn set_wire(&mut self, path: PathId, wire: Wire) {
        self.wires[usize::from(path.0)] = wire;
    }

    /// Commands that a path was sent so far, repetitions too.
    pub fn sent(&self, path: PathId) -> u64 {
        self.sent[usize::from(path.0)]
    }

    /// What the transport did by itself since the last call.
    pub fn drain_notes(&mut self) -> Vec<(Instant, PathId, Note)> {
        std::mem::take(&mut self.notes)
    }

    fn all_paths(&self) -> impl Iterator<Item = PathId> + use<B> {
        (0..self.sent.len()).map(|path| PathId(path as u16))
    }

    fn is_connected(&self, path: PathId) -> bool {
        self.graph.route(path).iter().all(|component| self.health[component.0] != Health::Down)
    }

    // ---- the target ----

    fn is_alive(&self, controller: usize) -> bool {
        let mut routes = self.graph.paths().iter().enumerate().filter(|(_, path)| path.controller == controller);
        routes.any(|(path, _)| {
            let last = self.graph.route(PathId(path as u16)).last().expect("a route has an end");
            !matches!(self.health[last.0], Health::Down)
        })
    }

    /// Another controller takes over from one that is gone.
    fn mind_the_owner(&mut self, now: Instant) {
        if self.is_alive(self.target.owner) || self.target.moving.is_some() {
            return;
        }
        let heirs: Vec<usize> = self.graph.paths().iter().map(|path| path.controller).collect();
        if let Some(heir) = heirs.into_iter().find(|controller| self.is_alive(*controller)) {
            self.target.moving = Some((now + TRANSITION, heir));
        }
    }

    fn access_at(&self, path: &PathInfo, now: Instant) -> Access {
        match self.target.moving {
            Some((since, _)) if now < since => Access::Transitioning,
            _ if path.controller == self.owner(now) => Access::Optimized,
            _ => Access::NonOptimized,
        }
    }

    fn owner(&self, now: Instant) -> usize {
        match self.target.moving {
            Some((since, heir)) if since <= now => heir,
            _ => self.target.owner,
        }
    }

    // ---- the wire ----

    /// A number that depends on the seed and on how many frames there were.
    fn chance(&mut self) -> u64 {
        self.frames_total += 1;
        let mut x = self.seed ^ self.frames_total.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Sends a frame, which takes half the path's latency and its own length.
    fn put(&mut self, frame: Frame, now: Instant) {
        let at = usize::from(frame.path.0);
        let wire = self.wires[at];
        let slow = self.graph.route(frame.path).iter().map(|component| match self.health[component.0] {
            Health::Slow(factor) => factor.max(1),
            _ => 1,
        });
        let slow = slow.max().unwrap_or(1);
        let spread = u64::from(wire.jitter);
        let percent = 100 - spread + self.chance() % (2 * spread + 1);
        let latency = wire.latency / 2 * slow * percent as u32 / 100;
        let length = Duration::from_nanos(frame.load() * 1_000_000_000 / wire.bandwidth.max(1)) * slow;
        let busy = &mut self.busy[at][usize::from(!frame.is_out())];
        *busy = now.max(*busy) + length;
        let arrives = *busy + latency;
        self.arrives(arrives, frame);
    }

    fn arrives(&mut self, at: Instant, frame: Frame) {
        self.frames_total += 1;
        self.frames.insert((at, self.frames_total), frame);
    }

    fn send(&mut self, path: PathId, content: Content, now: Instant) {
        let generation = self.generations[usize::from(path.0)];
        self.put(Frame { path, generation, content }, now);
    }

    /// Whether a frame gets through, now that it would arrive; one that is stalled is kept.
    fn passes(&mut self, frame: &Frame) -> bool {
        let out = frame.is_out();
        let is_lost = |health: Health| match health {
            Health::Down => true,
            Health::BlackHole { tx, rx } => {
                if out {
                    tx
                } else {
                    rx
                }
            }
            Health::Up | Health::Slow(_) | Health::Stalled => false,
        };
        let mut on_the_way = self.graph.route(frame.path).iter().map(|component| self.health[component.0]);
        if on_the_way.clone().any(is_lost) {
            if self.transport.retransmits {
                self.unacknowledged.push(frame.clone());
            }
            return false;
        }
        if on_the_way.any(|health| health == Health::Stalled) {
            self.stalled.push(frame.clone());
            return false;
        }
        true
    }

    fn arrived(&mut self, frame: Frame, now: Instant) {
        let own_word = matches!(frame.content, Content::LinkDown | Content::LinkUp);
        if !own_word && !self.passes(&frame) {
            return;
        }
        let Frame { path, generation, content } = frame;
        let at = usize::from(path.0);
        let is_old = generation < self.target.generations[at];
        match content {
            Content::Command(..) | Content::Abort(_) | Content::Ask(_) if is_old => {}
            Content::Command(tag, extent, wanted) => self.serve(path, generation, tag, extent, wanted, now),
            Content::Abort(tag) => {
                // What the unit has begun it finishes; the answer to the command then comes first.
                if !self.at_unit.values().any(|(_, _, asker)| *asker == Asker::Command(tag)) {
                    self.send(path, Content::Aborted(tag), now);
                }
            }
            Content::Ask(question) => {
                let access = self.access_at(&self.graph.paths()[at], now);
                let verdict = match access {
                    Access::Optimized | Access::NonOptimized => Verdict::Up,
                    Access::Standby => Verdict::Ghost,
                    Access::Unavailable => Verdict::Down,
                    Access::Transitioning => Verdict::Pending,
                };
                if question == Question::Probe(Probe::DirectIo) && verdict == Verdict::Up {
                    let unit = self.graph.paths()[at].unit;
                    let limits = self.bank.limits(unit);
                    let first = Extent::new(Lba(0), limits.logical_block);
                    let op = Op::Read(Buf::stale(first.length.at_grain(limits.grain)));
                    return self.ask_unit(path, generation, Asker::Checker(access), first, op, now);
                }
                self.send(path, Content::Told(question, verdict, access), now);
            }
            Content::Fence(other, generation) => {
                let fenced = &mut self.target.generations[usize::from(other.0)];
                *fenced = generation.max(*fenced);
                self.target.ending.push((path, other, generation));
                self.confirm_ends(now);
            }
            Content::Answer(tag, op, result) => {
                self.initiator.heard(path, now);
                self.initiator.answered(tag, op, result, &mut self.out);
            }
            Content::Busy(tag) => {
                self.initiator.heard(path, now);
                self.initiator.busy(tag, now, &mut self.out);
            }
            Content::Aborted(tag) => {
                self.initiator.heard(path, now);
                self.initiator.aborted(tag, now, &mut self.out);
            }
            Content::Told(question, verdict, access) => {
                self.accesses[at] = access;
                self.initiator.heard(path, now);
                match question {
                    Question::Probe(_) => self.events.push(Event::Probed(path, verdict)),
                    Question::Ping => {}
                    Question::Login => self.initiator.back(path, now, &mut self.out),
                }
            }
            Content::Fenced(other, generation) => {
                self.initiator.heard(path, now);
                // The answer to an earlier question says nothing of what was sent since.
                let is_latest = generation == self.generations[usize::from(other.0)];
                let begun = self.fencing.iter().find(|fencing| fencing.path == other).map(|fencing| fencing.begun);
                if let Some(begun) = begun.filter(|_| is_latest) {
                    self.fencing.retain(|fencing| fencing.path != other);
                    self.initiator.ended(other, begun, &mut self.out);
                    self.events.push(Event::Fenced(other));
                }
            }
            Content::LinkDown => {
                self.notes.push((now, path, Note::LinkDown));
                self.initiator.lost(path, now);
            }
            Content::LinkUp if self.is_connected(path) => self.initiator.back(path, now, &mut self.out),
            Content::LinkUp => {}
        }
    }

    /// A command is at the controller.
    fn serve(&mut self, path: PathId, generation: u64, tag: Tag, extent: Extent, wanted: Wanted, now: Instant) {
        match self.access_at(&self.graph.paths()[usize::from(path.0)], now) {
            Access::Optimized | Access::NonOptimized => {}
            Access::Transitioning => return self.send(path, Content::Busy(tag), now),
            Access::Standby | Access::Unavailable => {
                return self.send(path, Content::Answer(tag, None, Err(IoError::Transport)), now);
            }
        }
        self.ask_unit(path, generation, Asker::Command(tag), extent, wanted.into_op(), now);
    }

    fn ask_unit(&mut self, path: PathId, generation: u64, asker: Asker, extent: Extent, op: Op, now: Instant) {
        let unit = self.graph.paths()[usize::from(path.0)].unit;
        self.frames_total += 1;
        let id = self.frames_total;
        self.at_unit.insert(id, (path, generation, asker));
        self.bank.submit(unit, Request::new(RequestId(id), extent, op), now);
    }

    /// Answers the fences of nexuses for which the unit has nothing more to do.
    fn confirm_ends(&mut self, now: Instant) {
        let at_unit = &self.at_unit;
        let is_busy = |nexus: PathId, before: u64| at_unit.values().any(|(path, of, _)| *path == nexus && *of < before);
        let (waiting, over): (Vec<_>, Vec<_>) = std::mem::take(&mut self.target.ending)
            .into_iter()
            .partition(|(_, nexus, before)| is_busy(*nexus, *before));
        self.target.ending = waiting;
        for (via, nexus, generation) in over {
            self.send(via, Content::Fenced(nexus, generation), now);
        }
    }

    fn carry_out(&mut self, now: Instant) {
        for out in std::mem::take(&mut self.out) {
            match out {
                // Given back at the very moment that it was to go out.
                Out::Send(_, tag) if !self.initiator.waits_for(tag) => {}
                Out::Send(path, tag) => {
                    let request = self.initiator.request(tag);
                    let wanted = Wanted::of(&request.op);
                    let extent = request.extent;
                    self.sent[usize::from(path.0)] += 1;
                    self.send(path, Content::Command(tag, extent, wanted), now);
                }
                Out::Abort(path, tag) => self.send(path, Content::Abort(tag), now),
                Out::Ping(path) => self.send(path, Content::Ask(Question::Ping), now),
                Out::Login(path) => self.send(path, Content::Ask(Question::Login), now),
                Out::Done(path, completion) => self.events.push(Event::Completed(path, completion)),
                Out::Told(path, note) => self.notes.push((now, path, note)),
            }
        }
    }
}

impl<B: Bank> Fabric for Emulated<B> {
    fn paths(&self) -> &[PathInfo] {
        self.graph.paths()
    }

    fn limits(&self, unit: DeviceId) -> Limits {
        self.bank.limits(unit)
    }

    fn link(&self, path: PathId) -> Link {
        self.initiator.link(path)
    }

    fn access(&self, path: PathId) -> Access {
        self.accesses[usize::from(path.0)]
    }

    fn submit(&mut self, path: PathId, request: Request, now: Instant) {
        self.initiator.submit(path, request, now, &mut self.out);
        self.carry_out(now);
    }

    fn probe(&mut self, path: PathId, probe: Probe, now: Instant) {
        self.send(path, Content::Ask(Question::Probe(probe)), now);
    }

    fn fence(&mut self, path: PathId, via: PathId, now: Instant) {
        let generation = &mut self.generations[usize::from(path.0)];
        let begun = self.fencing.iter().find(|fencing| fencing.path == path).map(|fencing| fencing.begun);
        if begun.is_none() {
            // What is sent from now on is of the nexus to come.
            *generation += 1;
        }
        let generation = *generation;
        let due = now + self.transport.cmd_timeout;
        self.fencing.push(Fencing { path, begun: begun.unwrap_or(now), due });
        self.send(via, Content::Fence(path, generation), now);
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        if let Some((since, heir)) = self.target.moving.filter(|(since, _)| *since <= now) {
            self.target.owner = heir;
            self.target.moving = None;
            self.mind_the_owner(since);
        }
        let mut done: Vec<(DeviceId, Completion)> = Vec::new();
        loop {
            self.bank.poll(now, &mut done);
            for (_, Completion { id, op, result }) in done.drain(..) {
                let (path, generation, asker) = self.at_unit.remove(&id.0).expect("the unit answers what it was asked");
                let answer = match asker {
                    Asker::Command(tag) => Content::Answer(tag, matches!(op, Op::Read(_)).then_some(op), result),
                    Asker::Checker(access) => {
                        let verdict = if result.is_ok() { Verdict::Up } else { Verdict::Down };
                        Content::Told(Question::Probe(Probe::DirectIo), verdict, access)
                    }
                };
                self.put(Frame { path, generation, content: answer }, now);
            }
            self.confirm_ends(now);
            let Some(first) = self.frames.first_entry().filter(|first| first.key().0 <= now) else { break };
            let frame = first.remove();
            self.arrived(frame, now);
        }
        self.initiator.tick(now, &mut self.out);
        let (late, fencing): (Vec<Fencing>, Vec<Fencing>) = self.fencing.iter().partition(|fencing| fencing.due <= now);
        self.fencing = fencing;
        let mut late: Vec<PathId> = late.into_iter().map(|fencing| fencing.path).collect();
        // One way that is not answered may be lost, too.
        late.retain(|path| !self.fencing.iter().any(|other| other.path == *path));
        late.dedup();
        self.events.extend(late.into_iter().map(Event::NotFenced));
        self.carry_out(now);
        events.append(&mut self.events);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let frames = self.frames.first_key_value().map(|((at, _), _)| *at);
        let fencing = self.fencing.iter().map(|fencing| fencing.due).min();
        let moving = self.target.moving.map(|(since, _)| since);
        let pending = (!self.events.is_empty()).then_some(Instant::START);
        Instant::earliest([frames, fencing, moving, pending, self.initiator.next_deadline(), self.bank.next_deadline()])
    }
}
