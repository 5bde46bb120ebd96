//! What lies between the halves: components, and the frames on their way through them.
//!
//! A frame meets every component of its route when it arrives: whatever fails while it is under way hits it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::frame::{Content, Frame, Question, Wanted};
use super::graph::{ComponentId, Graph};
use super::health::{Health, Point};
use super::transport::{LINK_EVENT_DELAY, Transport};
use super::{PathId, Probe, Verdict};
use crate::block::{Buf, DeviceId, Instant, Op};

/// After which time TCP sends again what was lost (Linux's least retransmission timeout).
const RETRANSMISSION: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
struct Part {
    health: Health,
    /// Of one that flaps: whether it is down now, and until when.
    flap: Option<(bool, Instant)>,
    /// Answers that a zombie has kept waiting.
    answers: u32,
}

/// What happens next between the halves.
pub(super) enum Arrival {
    /// A frame is there.
    Frame(Frame),
    /// A component is not as it was.
    Changed,
}

/// What becomes of a frame at a component.
enum Fate {
    Passes,
    Lost,
    /// Lost once: its sender may send it again.
    Dropped,
    Kept,
    Answered(Content),
}

/// Components and frames under way.
#[derive(Clone, Debug)]
pub(super) struct Net {
    graph: Graph,
    link_events: bool,
    retransmits: bool,
    parts: Vec<Part>,
    /// Until when each path's wire is taken, there and back.
    busy: Vec<[Instant; 2]>,
    frames: BTreeMap<(Instant, u64), Frame>,
    /// What stalled components keep.
    stalled: Vec<Frame>,
    /// What TCP sends again for so long as its connection lives.
    unacknowledged: Vec<Frame>,
    frames_total: u64,
    seed: u64,
}

const WELL: Part = Part { health: Health::Up, flap: None, answers: 0 };

impl Net {
    pub(super) fn new(graph: Graph, transport: &Transport, seed: u64) -> Net {
        Net {
            link_events: transport.link_events,
            retransmits: transport.retransmits,
            parts: vec![WELL; graph.components().len()],
            busy: vec![[Instant::START; 2]; graph.paths().len()],
            frames: BTreeMap::new(),
            stalled: Vec::new(),
            unacknowledged: Vec::new(),
            frames_total: 0,
            graph,
            seed,
        }
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A unit more, reached by the ways that lead to the others. Its paths come last.
    pub(super) fn add_unit(&mut self, unit: DeviceId, now: Instant) {
        self.graph.add_unit(unit);
        self.parts.resize(self.graph.components().len(), WELL);
        let before = self.busy.len();
        self.busy.resize(self.graph.paths().len(), [now; 2]);
        for path in (before..self.busy.len()).map(|path| PathId(path as u16)) {
            if !self.is_connected(path) {
                self.tell_link(path, Content::LinkDown, now);
            }
        }
    }

    // ---- components ----

    pub(super) fn set_health(&mut self, component: ComponentId, health: Health, now: Instant) {
        let flap = match health {
            Health::Flapping { down, .. } => Some((true, now + down)),
            _ => None,
        };
        self.change(component, Part { health, flap, answers: 0 }, now);
    }

    pub(super) fn health(&self, component: ComponentId) -> Health {
        self.parts[component.0].health
    }

    fn is_down(&self, component: ComponentId) -> bool {
        let part = &self.parts[component.0];
        part.health == Health::Down || part.flap.is_some_and(|(down, _)| down)
    }

    pub(super) fn is_connected(&self, path: PathId) -> bool {
        !self.graph.route(path).iter().any(|component| self.is_down(*component))
    }

    /// Port groups that are there, in the order of the paths.
    pub(super) fn alive(&self) -> Vec<u16> {
        let mut alive = Vec::new();
        for (info, path) in self.graph.paths().iter().zip(0..) {
            let end = self.graph.route(PathId(path)).last().expect("a route has an end");
            if !self.is_down(*end) && !alive.contains(&info.tpg) {
                alive.push(info.tpg);
            }
        }
        alive
    }

    fn change(&mut self, component: ComponentId, part: Part, now: Instant) {
        let paths: Vec<PathId> = self.graph.through(component).collect();
        let was: Vec<bool> = paths.iter().map(|path| self.is_connected(*path)).collect();
        self.parts[component.0] = part;
        for (path, before) in paths.into_iter().zip(was) {
            let after = self.is_connected(path);
            if before != after {
                self.tell_link(path, if after { Content::LinkUp } else { Content::LinkDown }, now);
            }
        }
        for frame in std::mem::take(&mut self.stalled) {
            self.send(frame, now);
        }
    }

    /// The link's own word, if it has one.
    fn tell_link(&mut self, path: PathId, content: Content, now: Instant) {
        if self.link_events {
            self.arrives(now + LINK_EVENT_DELAY, Frame { path, generation: 0, again: false, content });
        }
    }

    /// What was lost and its sender may send again, now that a component is not as it was.
    pub(super) fn take_unacknowledged(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.unacknowledged)
    }

    fn flap_due(&self) -> Option<(Instant, ComponentId)> {
        let flaps = self.parts.iter().enumerate();
        flaps.filter_map(|(at, part)| part.flap.map(|(_, until)| (until, ComponentId(at)))).min()
    }

    fn flap(&mut self, component: ComponentId, at: Instant) {
        let part = self.parts[component.0].clone();
        let (Health::Flapping { down, up }, Some((is_down, _))) = (part.health, part.flap) else {
            panic!("only what flaps is due")
        };
        let until = at + if is_down { up } else { down };
        self.change(component, Part { flap: Some((!is_down, until)), ..part }, at);
    }

    // ---- frames ----

    /// A number that depends on the seed and on how many frames there were.
    fn chance(&mut self) -> u64 {
        self.frames_total += 1;
        let mut x = self.seed ^ self.frames_total.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Sends a frame, which takes half the path's latency and its own length.
    pub(super) fn send(&mut self, frame: Frame, now: Instant) {
        if frame.is_out() && self.is_dropped(&frame, Point::Sending) {
            return self.again_later(frame, now);
        }
        let at = usize::from(frame.path.0);
        let wire = self.graph.wire(frame.path);
        let slow = self.on_the_way(&frame).map(|part| match part.health {
            Health::Slow(factor) => factor.max(1),
            _ => 1,
        });
        let slow = slow.max().unwrap_or(1);
        let spread = u64::from(wire.jitter.min(100));
        let percent = 100 - spread + self.chance() % (2 * spread + 1);
        let latency = wire.latency / 2 * slow * percent as u32 / 100;
        let length = Duration::from_nanos(frame.load() * 1_000_000_000 / wire.bandwidth.max(1)) * slow;
        let kept = if frame.is_out() { Duration::ZERO } else { self.kept_by_zombies(&frame) };
        let busy = &mut self.busy[at][usize::from(!frame.is_out())];
        *busy = now.max(*busy) + length;
        let arrives = *busy + latency + kept;
        self.arrives(arrives, frame);
    }

    fn on_the_way(&self, frame: &Frame) -> impl Iterator<Item = &Part> {
        self.graph.route(frame.path).iter().map(|component| &self.parts[component.0])
    }

    fn kept_by_zombies(&mut self, frame: &Frame) -> Duration {
        let mut kept = Duration::ZERO;
        for component in self.graph.route(frame.path) {
            let part = &mut self.parts[component.0];
            if let Health::Zombie(step) = part.health {
                part.answers += 1;
                kept += step * part.answers;
            }
        }
        kept
    }

    fn arrives(&mut self, at: Instant, frame: Frame) {
        self.frames_total += 1;
        self.frames.insert((at, self.frames_total), frame);
    }

    /// What TCP does about a frame that was lost; other transports do nothing.
    fn again_later(&mut self, frame: Frame, now: Instant) {
        if self.retransmits {
            self.arrives(now + RETRANSMISSION, frame);
        }
    }

    /// Whether a component on the way loses this frame at this point, which it does so many times.
    fn is_dropped(&mut self, frame: &Frame, point: Point) -> bool {
        for component in self.graph.route(frame.path) {
            let part = &mut self.parts[component.0];
            match &mut part.health {
                Health::Losing { frames, at } if *at == point && *frames > 0 => {
                    *frames -= 1;
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    /// What happens at `now` or before, in the order of its times.
    pub(super) fn next(&mut self, now: Instant) -> Option<Arrival> {
        loop {
            let frame_due = self.frames.first_key_value().map(|((at, _), _)| *at);
            if let Some((at, component)) = self.flap_due().filter(|(at, _)| *at <= now)
                && frame_due.is_none_or(|due| at <= due)
            {
                self.flap(component, at);
                return Some(Arrival::Changed);
            }
            let first = self.frames.first_entry().filter(|first| first.key().0 <= now)?;
            let frame = first.remove();
            if let Some(frame) = self.met(frame, now) {
                return Some(Arrival::Frame(frame));
            }
        }
    }

    /// What a frame has become of by the components on its way, now that it would arrive.
    fn met(&mut self, mut frame: Frame, now: Instant) -> Option<Frame> {
        if matches!(frame.content, Content::LinkDown | Content::LinkUp) {
            return Some(frame);
        }
        match self.fate(&frame) {
            Fate::Passes => {}
            Fate::Lost => {
                if self.retransmits {
                    self.unacknowledged.push(frame);
                }
                return None;
            }
            Fate::Dropped => {
                self.again_later(frame, now);
                return None;
            }
            Fate::Kept => {
                self.stalled.push(frame);
                return None;
            }
            Fate::Answered(content) => {
                self.send(Frame { content, ..frame }, now);
                return None;
            }
        }
        self.double(&frame, now);
        self.corrupt(&mut frame);
        Some(frame)
    }

    fn fate(&mut self, frame: &Frame) -> Fate {
        let out = frame.is_out();
        let mut kept = false;
        let mut answered = None;
        for component in self.graph.route(frame.path) {
            match self.parts[component.0].health {
                _ if self.is_down(*component) => return Fate::Lost,
                Health::BlackHole { tx, rx } if (if out { tx } else { rx }) => return Fate::Lost,
                Health::Stalled => kept = true,
                Health::FailsIo => answered = refused(&frame.content).or(answered),
                Health::FailsChecks => answered = denied(&frame.content).or(answered),
                _ => {}
            }
        }
        if self.is_dropped(frame, if out { Point::Transit } else { Point::Answering }) {
            return Fate::Dropped;
        }
        match answered {
            _ if kept => Fate::Kept,
            Some(content) => Fate::Answered(content),
            None => Fate::Passes,
        }
    }

    fn double(&mut self, frame: &Frame, now: Instant) {
        let later = self.on_the_way(frame).find_map(|part| match part.health {
            Health::Doubling(later) => Some(later),
            _ => None,
        });
        if let Some(later) = later.filter(|_| !frame.again && matches!(frame.content, Content::Command(_))) {
            self.arrives(now + later, Frame { again: true, ..frame.clone() });
        }
    }

    fn corrupt(&mut self, frame: &mut Frame) {
        let corrupts = |reads: bool| {
            let is_bad = |health: Health| match health {
                Health::Corrupting { reads: of_reads, writes } => {
                    if reads {
                        of_reads
                    } else {
                        writes
                    }
                }
                _ => false,
            };
            self.on_the_way(frame).any(|part| is_bad(part.health))
        };
        let (of_reads, of_writes) = (corrupts(true), corrupts(false));
        let at = self.chance() as usize;
        match &mut frame.content {
            Content::Answer(_, Some(Op::Read(buf)), Ok(())) if of_reads => flip(buf, at),
            Content::Command(command) if of_writes => {
                if let Wanted::Write(payload, _) = &mut command.wanted {
                    let mut buf = Buf::stale(payload.len());
                    buf.copy_from_payload(payload);
                    flip(&mut buf, at);
                    *payload = buf.freeze();
                }
            }
            _ => {}
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let frame = self.frames.first_key_value().map(|((at, _), _)| *at);
        Instant::earliest([frame, self.flap_due().map(|(at, _)| at)])
    }
}

/// The answer of something that can neither read nor write.
fn refused(content: &Content) -> Option<Content> {
    match content {
        Content::Command(command) => Some(Content::Refused(command.tag)),
        Content::Ask(question @ Question::Probe(Probe::DirectIo, _)) => {
            Some(Content::Told(*question, Verdict::Down, None))
        }
        _ => None,
    }
}

/// The answer of something that says that it is not well.
fn denied(content: &Content) -> Option<Content> {
    match content {
        Content::Ask(question @ Question::Probe(..)) => Some(Content::Told(*question, Verdict::Down, None)),
        _ => None,
    }
}

fn flip(buf: &mut Buf, at: usize) {
    let length = buf.len().max(1);
    let mut left = at % length;
    for part in buf.parts_mut() {
        if left < part.len() {
            part[left] ^= 0xff;
            return;
        }
        left -= part.len();
    }
}
