//! The initiator's half of a fabric: a host's commands and nexuses, and what it asks the target about them.
//!
//! It puts frames out and takes frames in; what carries them is somebody else's.

use std::collections::BTreeMap;

use super::frame::{Content, Ending, Frame, Question};
use super::initiator::{Initiator, Note, Out, Tag};
use super::reservation::Reserve;
use super::transport::{ABORT_TIMEOUT, LU_RESET_TIMEOUT, Transport};
use super::{Access, Event, Fabric, Link, PathId, PathInfo, Probe};
use crate::block::{DeviceId, Instant, Limits, Request, RequestId};

/// Something the target was asked to end, and has not confirmed.
#[derive(Clone, Debug)]
struct Asked {
    what: What,
    begun: Instant,
    due: Instant,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    End(Ending),
    Forget(PathId, RequestId, Tag),
}

/// A host on a fabric.
#[derive(Clone, Debug)]
pub struct Host {
    paths: Vec<PathInfo>,
    limits: BTreeMap<DeviceId, Limits>,
    transport: Transport,
    initiator: Initiator,
    /// Of each nexus, as the host counts.
    generations: Vec<u64>,
    epochs: BTreeMap<DeviceId, u64>,
    accesses: Vec<Access>,
    asked: Vec<Asked>,
    out: Vec<Out>,
    outbox: Vec<Frame>,
    events: Vec<Event>,
    notes: Vec<(Instant, PathId, Note)>,
    /// Commands that each path was sent, repetitions too.
    sent: Vec<u64>,
    /// Number of the last probe on each path.
    probed: Vec<u64>,
    reserved: Vec<(PathId, Reserve, bool)>,
}

impl Host {
    /// A host that reaches units of these limits by these paths, whose port groups it takes to be as `accesses` says.
    pub fn new(
        paths: Vec<PathInfo>,
        limits: BTreeMap<DeviceId, Limits>,
        accesses: Vec<Access>,
        transport: Transport,
    ) -> Host {
        assert_eq!(paths.len(), accesses.len(), "an access state for each path");
        Host {
            initiator: Initiator::new(transport, &paths, Instant::START),
            generations: vec![0; paths.len()],
            sent: vec![0; paths.len()],
            probed: vec![0; paths.len()],
            reserved: Vec::new(),
            epochs: BTreeMap::new(),
            asked: Vec::new(),
            out: Vec::new(),
            outbox: Vec::new(),
            events: Vec::new(),
            notes: Vec::new(),
            paths,
            limits,
            transport,
            accesses,
        }
    }

    /// Paths more, which lead to units of these limits.
    pub(super) fn add_paths(&mut self, paths: &[PathInfo], accesses: &[Access], limits: Limits, now: Instant) {
        self.initiator.add(paths, now);
        self.paths.extend_from_slice(paths);
        self.accesses.extend_from_slice(accesses);
        self.limits.extend(paths.iter().map(|path| (path.unit, limits)));
        self.generations.resize(self.paths.len(), 0);
        self.sent.resize(self.paths.len(), 0);
        self.probed.resize(self.paths.len(), 0);
    }

    /// Commands that a path was sent so far, repetitions too.
    pub fn sent(&self, path: PathId) -> u64 {
        self.sent[usize::from(path.0)]
    }

    /// Answers that came when nobody waited for them any more.
    pub fn stale_answers(&self) -> u64 {
        self.initiator.stale_answers()
    }

    /// What the transport did by itself since the last call.
    pub fn drain_notes(&mut self) -> Vec<(Instant, PathId, Note)> {
        std::mem::take(&mut self.notes)
    }

    /// Asks something of the reservation of a path's unit, by this path. There may be no answer.
    pub fn reserve(&mut self, path: PathId, reserve: Reserve) {
        self.send(path, Content::Reserve(reserve));
    }

    /// Answers to [`Host::reserve`] since the last call: whether it was done. What was not is a reservation conflict.
    pub fn drain_reserved(&mut self) -> Vec<(PathId, Reserve, bool)> {
        std::mem::take(&mut self.reserved)
    }

    pub(super) fn drain_outbox(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.outbox)
    }

    /// Whether a frame that was lost is worth sending again: its connection lives.
    pub(super) fn still_wants(&self, frame: &Frame) -> bool {
        match &frame.content {
            Content::Command(command) => self.initiator.waits_for(command.tag),
            Content::Answer(tag, ..) | Content::Refused(tag) => self.initiator.waits_for(*tag),
            _ => self.initiator.link(frame.path) == Link::Online,
        }
    }

    fn send(&mut self, path: PathId, content: Content) {
        let generation = self.generations[usize::from(path.0)];
        self.outbox.push(Frame { path, generation, again: false, content });
    }

    /// A frame is there; `is_connected` says whether its path is whole.
    pub(super) fn receive(&mut self, frame: Frame, is_connected: bool, now: Instant) {
        let Frame { path, content, .. } = frame;
        match content {
            Content::LinkDown => {
                self.notes.push((now, path, Note::LinkDown));
                self.initiator.lost(path, now);
            }
            Content::LinkUp if is_connected => self.initiator.back(path, now, &mut self.out),
            Content::LinkUp => {}
            answer => {
                self.initiator.heard(path, now);
                self.answered(path, answer, now);
            }
        }
        self.carry_out(now);
    }

    fn answered(&mut self, path: PathId, content: Content, now: Instant) {
        match content {
            Content::Answer(tag, op, result) => self.initiator.answered(tag, op, result, now, &mut self.out),
            Content::Refused(tag) => self.initiator.refused(tag, now, &mut self.out),
            Content::Busy(tag) => self.initiator.busy(tag, now, &mut self.out),
            Content::Aborted(tag) => self.initiator.aborted(tag, now, &mut self.out),
            Content::Told(question, verdict, access) => {
                if let Some(access) = access {
                    self.accesses[usize::from(path.0)] = access;
                }
                match question {
                    Question::Probe(_, number) if number == self.probed[usize::from(path.0)] => {
                        self.events.push(Event::Probed(path, verdict));
                    }
                    // Of an older probe: whoever asked has given it up, and asked again.
                    Question::Probe(..) | Question::Ping => {}
                    Question::Login => self.initiator.back(path, now, &mut self.out),
                }
            }
            Content::Forgotten(id, tag) => {
                if self.take_asked(&What::Forget(path, id, tag)).is_some() {
                    self.events.push(Event::Aborted(path, id));
                }
            }
            Content::Ended(ending) => {
                if let Some(begun) = self.take_asked(&What::End(ending.clone())) {
                    self.ended(ending, begun, now);
                }
            }
            Content::Reserved(reserve, done) => self.reserved.push((path, reserve, done)),
            _ => panic!("a target answers, and asks nothing"),
        }
    }

    /// Takes out what was asked, on however many ways. `None`: a confirmation of something that nobody waits for any more.
    fn take_asked(&mut self, what: &What) -> Option<Instant> {
        let begun = self.asked.iter().find(|asked| asked.what == *what)?.begun;
        self.asked.retain(|asked| asked.what != *what);
        Some(begun)
    }

    fn ended(&mut self, ending: Ending, begun: Instant, now: Instant) {
        match ending {
            Ending::Nexus((path, _)) => {
                self.initiator.ended(path, begun, &mut self.out);
                self.events.push(Event::Fenced(path));
            }
            Ending::Unit(unit, nexuses) => {
                for (path, _) in nexuses {
                    self.initiator.forgotten(path, begun, now, &mut self.out);
                }
                self.events.push(Event::Reset(unit));
            }
        }
    }

    /// Asks for an end of the nexuses of `path`s, or goes on asking, by one more way.
    fn end(
        &mut self,
        is_it: impl Fn(&Ending) -> bool,
        anew: impl FnOnce(&mut Host) -> Ending,
        via: PathId,
        due: Instant,
        now: Instant,
    ) {
        let going = self.asked.iter().find_map(|asked| match &asked.what {
            What::End(ending) if is_it(ending) => Some((ending.clone(), asked.begun)),
            _ => None,
        });
        let (ending, begun) = going.unwrap_or_else(|| (anew(self), now));
        self.asked.push(Asked { what: What::End(ending.clone()), begun, due });
        self.send(via, Content::End(ending));
    }

    fn carry_out(&mut self, now: Instant) {
        for out in std::mem::take(&mut self.out) {
            match out {
                // Given back at the very moment that it was to go out.
                Out::Send(_, tag) if !self.initiator.waits_for(tag) => {}
                Out::Send(path, tag) => {
                    self.sent[usize::from(path.0)] += 1;
                    let command = self.initiator.on_the_wire(tag);
                    self.send(path, Content::Command(command));
                }
                Out::Abort(path, tag) => self.send(path, Content::Abort(tag)),
                Out::Ping(path) => self.send(path, Content::Ask(Question::Ping)),
                Out::Login(path) => self.send(path, Content::Ask(Question::Login)),
                Out::Done(path, completion) => self.events.push(Event::Completed(path, completion)),
                Out::GivenBack(path, request, error) => self.events.push(Event::GivenBack(path, request, error)),
                Out::Told(path, note) => self.notes.push((now, path, note)),
            }
        }
    }

    /// Raises a nexus's generation: what is sent from now on is of the nexus to come.
    fn next_generation(&mut self, path: PathId) -> (PathId, u64) {
        let generation = &mut self.generations[usize::from(path.0)];
        *generation += 1;
        (path, *generation)
    }

    /// One way that is not answered may be lost, too: what was asked is not confirmed when none has answered.
    fn give_up_asking(&mut self, now: Instant) {
        let late: Vec<Asked> = self.asked.iter().filter(|asked| asked.due <= now).cloned().collect();
        self.asked.retain(|asked| asked.due > now);
        let mut told: Vec<What> = Vec::new();
        for Asked { what, .. } in late {
            if told.contains(&what) || self.asked.iter().any(|other| other.what == what) {
                continue;
            }
            self.events.push(match what {
                What::End(Ending::Nexus((path, _))) => Event::NotFenced(path),
                What::End(Ending::Unit(unit, _)) => Event::NotReset(unit),
                What::Forget(path, id, _) => Event::NotAborted(path, id),
            });
            told.push(what);
        }
    }
}

impl Fabric for Host {
    fn paths(&self) -> &[PathInfo] {
        &self.paths
    }

    fn limits(&self, unit: DeviceId) -> Limits {
        self.limits[&unit]
    }

    fn link(&self, path: PathId) -> Link {
        self.initiator.link(path)
    }

    fn access(&self, path: PathId) -> Access {
        self.accesses[usize::from(path.0)]
    }

    fn submit(&mut self, path: PathId, request: Request, now: Instant) {
        let unit = self.paths[usize::from(path.0)].unit;
        let epoch = self.epochs.get(&unit).copied().unwrap_or(0);
        self.initiator.submit(path, request, epoch, now, &mut self.out);
        self.carry_out(now);
    }

    fn probe(&mut self, path: PathId, probe: Probe, _now: Instant) {
        let number = &mut self.probed[usize::from(path.0)];
        *number += 1;
        let question = Question::Probe(probe, *number);
        self.send(path, Content::Ask(question));
    }

    fn fence(&mut self, path: PathId, via: PathId, now: Instant) {
        let is_it = |ending: &Ending| matches!(ending, Ending::Nexus((of, _)) if *of == path);
        let anew = |host: &mut Host| Ending::Nexus(host.next_generation(path));
        self.end(is_it, anew, via, now + self.transport.cmd_timeout, now);
    }

    fn abort(&mut self, path: PathId, id: RequestId, now: Instant) {
        let tag = self.initiator.newest();
        self.asked.push(Asked { what: What::Forget(path, id, tag), begun: now, due: now + ABORT_TIMEOUT });
        self.send(path, Content::Forget(id, tag));
    }

    fn reset(&mut self, unit: DeviceId, via: PathId, now: Instant) {
        let is_it = |ending: &Ending| matches!(ending, Ending::Unit(of, _) if *of == unit);
        let anew = |host: &mut Host| {
            let of_unit = (0..host.paths.len()).filter(|path| host.paths[*path].unit == unit);
            let paths: Vec<PathId> = of_unit.map(|path| PathId(path as u16)).collect();
            Ending::Unit(unit, paths.into_iter().map(|path| host.next_generation(path)).collect())
        };
        self.end(is_it, anew, via, now + LU_RESET_TIMEOUT, now);
    }

    fn set_epoch(&mut self, unit: DeviceId, epoch: u64) {
        self.epochs.insert(unit, epoch);
    }

    fn activate(&mut self, path: PathId, _now: Instant) {
        self.send(path, Content::Activate);
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        self.initiator.tick(now, &mut self.out);
        self.give_up_asking(now);
        self.carry_out(now);
        events.append(&mut self.events);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let asked = self.asked.iter().map(|asked| asked.due).min();
        let pending = (!self.events.is_empty()).then_some(Instant::START);
        Instant::earliest([asked, pending, self.initiator.next_deadline()])
    }
}
