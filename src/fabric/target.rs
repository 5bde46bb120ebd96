//! The target's half of a fabric: logical units behind controllers, and whom it serves.
//!
//! Commands that nobody waits for any more are the danger: one that was stuck somewhere can land over something newer. The target
//! refuses what comes of a nexus that was ended, what it was told to forget, what it has had before, and, where its hosts count
//! their connections, what is of an older one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::access::Ownership;
use super::frame::{Command, Content, Ending, Frame, Question, Wanted};
use super::graph::Alua;
use super::initiator::Tag;
use super::reservation::{Conflict, Key, Reservation, Reserve};
use super::{Access, Fencing, PathId, PathInfo, Probe, Verdict};
use crate::block::mutant::{self, Mutant};
use crate::block::{Bank, Buf, Completion, DeviceId, Extent, Instant, IoError, Lba, Limits, Op, Request, RequestId};

/// For whom the unit works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Command(Tag, RequestId),
    /// A checker that reads.
    Checker(Question, Access),
}

#[derive(Clone, Debug)]
struct AtUnit {
    path: PathId,
    generation: u64,
    epoch: u64,
    asker: Asker,
}

/// What the target knows of a nexus.
#[derive(Clone, Debug, Default)]
struct Nexus {
    /// Frames of an older generation are refused.
    generation: u64,
    /// Nobody waits for an older attempt.
    oldest: Tag,
    /// Attempts that were here, of those that somebody may wait for.
    seen: BTreeSet<Tag>,
    /// Requests that are forgotten, up to this attempt.
    forgotten: BTreeMap<RequestId, Tag>,
}

/// Confirmations that wait until the unit has finished what it had begun.
#[derive(Clone, Debug)]
enum Promise {
    Ended(Ending),
    Forgotten(RequestId, Tag),
    /// These nexuses were preempted.
    Preempted(Vec<PathId>, Reserve),
}

/// How often the target refused what would have landed late.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Refused {
    /// Of a nexus that was ended.
    pub ended: u64,
    /// Of a request that it was told to forget.
    pub forgotten: u64,
    /// It had it before, or nobody waits for it.
    pub repeated: u64,
    /// Of an older connection generation.
    pub epoch: u64,
    /// Of a host that may not write: a reservation conflict.
    pub reservation: u64,
}

/// Logical units behind controllers.
#[derive(Clone, Debug)]
pub struct Target<B> {
    bank: B,
    paths: Vec<PathInfo>,
    fencing: Fencing,
    ownership: Ownership,
    nexuses: Vec<Nexus>,
    /// The newest connection generation that a host showed to a unit.
    epochs: BTreeMap<(usize, DeviceId), u64>,
    reservations: BTreeMap<DeviceId, Reservation>,
    at_unit: BTreeMap<u64, AtUnit>,
    /// Commands of a newer connection generation than some that the unit has not finished.
    behind: VecDeque<(PathId, u64, Command)>,
    promises: Vec<(PathId, Promise)>,
    refused: Refused,
    requests_total: u64,
    outbox: Vec<Frame>,
}

impl<B: Bank> Target<B> {
    /// Units that are reached by these paths, numbered from 0. The first path's port group owns them.
    pub fn new(bank: B, paths: Vec<PathInfo>, fencing: Fencing, alua: Alua) -> Target<B> {
        Target {
            bank,
            nexuses: vec![Nexus::default(); paths.len()],
            ownership: Ownership::new(alua, paths.first().map_or(0, |path| path.tpg)),
            paths,
            fencing,
            epochs: BTreeMap::new(),
            reservations: BTreeMap::new(),
            at_unit: BTreeMap::new(),
            behind: VecDeque::new(),
            promises: Vec::new(),
            refused: Refused::default(),
            requests_total: 0,
            outbox: Vec::new(),
        }
    }

    /// Paths more.
    pub(super) fn add_paths(&mut self, paths: &[PathInfo]) {
        self.paths.extend_from_slice(paths);
        self.nexuses.resize(self.paths.len(), Nexus::default());
    }

    /// The units.
    pub fn bank(&self) -> &B {
        &self.bank
    }

    /// The units, to be changed by their owner.
    pub fn bank_mut(&mut self) -> &mut B {
        &mut self.bank
    }

    /// The units, alone.
    pub fn into_bank(self) -> B {
        self.bank
    }

    /// What it refused.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// The key that a unit's reservation was taken with.
    pub fn reserved_by(&self, unit: DeviceId) -> Option<Key> {
        self.reservations.get(&unit).and_then(Reservation::held)
    }

    /// What a path's port group offers.
    pub fn access(&self, path: PathId, now: Instant) -> Access {
        self.ownership.access(self.info(path).tpg, now)
    }

    fn info(&self, path: PathId) -> &PathInfo {
        &self.paths[usize::from(path.0)]
    }

    fn nexus(&mut self, path: PathId) -> &mut Nexus {
        &mut self.nexuses[usize::from(path.0)]
    }

    pub(super) fn drain_outbox(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.outbox)
    }

    fn send(&mut self, path: PathId, content: Content) {
        self.outbox.push(Frame { path, generation: 0, again: false, content });
    }

    /// These port groups are there.
    pub(super) fn mind(&mut self, alive: &[u16], now: Instant) {
        self.ownership.mind(alive, now);
    }

    /// A frame is there.
    pub(super) fn receive(&mut self, frame: Frame, now: Instant) {
        let Frame { path, generation, content, .. } = frame;
        if self.fencing > Fencing::None && generation < self.nexus(path).generation {
            self.refused.ended += u64::from(matches!(content, Content::Command(_)));
            return;
        }
        match content {
            Content::Command(command) => self.command(path, generation, command, now),
            // What the unit has begun it finishes; the answer to the command then comes first.
            Content::Abort(tag) if self.has_begun(path, |of, _| of == tag) => {}
            Content::Abort(tag) => self.send(path, Content::Aborted(tag)),
            Content::Ask(question) => self.answer(path, generation, question, now),
            Content::Forget(id, tag) => {
                let forgotten = self.nexus(path).forgotten.entry(id).or_default();
                *forgotten = tag.max(*forgotten);
                self.behind.retain(|(of, _, command)| *of != path || command.id != id || command.tag > tag);
                self.promises.push((path, Promise::Forgotten(id, tag)));
                self.keep_promises();
            }
            Content::End(ending) => {
                for (path, generation) in ending.nexuses() {
                    let nexus = self.nexus(*path);
                    nexus.generation = nexus.generation.max(*generation);
                    self.behind.retain(|(of, old, _)| of != path || old >= generation);
                }
                self.promises.push((path, Promise::Ended(ending)));
                self.keep_promises();
            }
            Content::Reserve(reserve) => self.reserve(path, reserve),
            Content::Activate => self.ownership.activate(self.info(path).tpg, now),
            _ => panic!("a host asks, and answers nothing"),
        }
    }

    fn reserve(&mut self, path: PathId, reserve: Reserve) {
        let unit = self.info(path).unit;
        match self.reservations.entry(unit).or_default().apply(path, reserve) {
            Err(Conflict) => self.send(path, Content::Reserved(reserve, false)),
            Ok(gone) => {
                self.behind.retain(|(of, ..)| !gone.contains(of));
                self.promises.push((path, Promise::Preempted(gone, reserve)));
                self.keep_promises();
            }
        }
    }

    fn has_begun(&self, path: PathId, is_it: impl Fn(Tag, RequestId) -> bool) -> bool {
        self.at_unit.values().any(|of| match of.asker {
            Asker::Command(tag, id) => of.path == path && is_it(tag, id),
            Asker::Checker(..) => false,
        })
    }

    /// Whether a command may be one that nobody waits for: one that was here, that was forgotten, or that is older than all that
    /// somebody waits for.
    fn is_stray(&mut self, path: PathId, command: &Command) -> bool {
        let nexus = self.nexus(path);
        nexus.oldest = nexus.oldest.max(command.oldest);
        nexus.seen = nexus.seen.split_off(&nexus.oldest);
        let is_forgotten = nexus.forgotten.get(&command.id).is_some_and(|newest| command.tag <= *newest);
        let is_repeated = command.tag < nexus.oldest || !nexus.seen.insert(command.tag);
        self.refused.forgotten += u64::from(is_forgotten);
        self.refused.repeated += u64::from(is_repeated && !is_forgotten);
        (is_forgotten || is_repeated) && !mutant::is_on(Mutant::CarriedOutTwice)
    }

    fn command(&mut self, path: PathId, generation: u64, command: Command, now: Instant) {
        if self.fencing > Fencing::None && self.is_stray(path, &command) {
            return;
        }
        let refusal = match self.access(path, now) {
            Access::Optimized | Access::NonOptimized => None,
            Access::Transitioning => Some(Content::Busy(command.tag)),
            Access::Standby | Access::Unavailable => Some(Content::Refused(command.tag)),
        };
        if let Some(content) = refusal {
            return self.send(path, content);
        }
        let is_write = !matches!(command.wanted, Wanted::Read(_) | Wanted::Flush);
        let unit = self.info(path).unit;
        if is_write && self.reservations.get(&unit).is_some_and(|reservation| !reservation.admits(path)) {
            self.refused.reservation += 1;
            return self.send(path, Content::Answer(command.tag, None, Err(IoError::Fenced)));
        }
        if self.fencing == Fencing::Epoch {
            let host = (self.info(path).host, self.info(path).unit);
            let newest = self.epochs.entry(host).or_default();
            if command.epoch < *newest {
                self.refused.epoch += 1;
                return self.send(path, Content::Answer(command.tag, None, Err(IoError::Fenced)));
            }
            *newest = command.epoch;
        }
        self.behind.push_back((path, generation, command));
        self.begin(now);
    }

    /// Begins what waited for the unit to finish what is older.
    fn begin(&mut self, now: Instant) {
        while let Some((path, _, command)) = self.behind.front() {
            let (host, unit) = (self.info(*path).host, self.info(*path).unit);
            let is_older = |of: &AtUnit| {
                let info = &self.paths[usize::from(of.path.0)];
                (info.host, info.unit) == (host, unit) && of.epoch < command.epoch
            };
            if self.at_unit.values().any(is_older) {
                return;
            }
            let (path, generation, Command { tag, id, epoch, extent, wanted, .. }) =
                self.behind.pop_front().expect("it was just seen");
            let of = AtUnit { path, generation, epoch, asker: Asker::Command(tag, id) };
            self.ask_unit(of, extent, wanted.into_op(), now);
        }
    }

    fn ask_unit(&mut self, of: AtUnit, extent: Extent, op: Op, now: Instant) {
        let unit = self.info(of.path).unit;
        self.requests_total += 1;
        let id = self.requests_total;
        self.at_unit.insert(id, of);
        self.bank.submit(unit, Request::new(RequestId(id), extent, op), now);
    }

    fn answer(&mut self, path: PathId, generation: u64, question: Question, now: Instant) {
        let access = self.access(path, now);
        let verdict = match access {
            Access::Optimized | Access::NonOptimized => Verdict::Up,
            Access::Standby => Verdict::Ghost,
            Access::Unavailable => Verdict::Down,
            Access::Transitioning => Verdict::Pending,
        };
        if matches!(question, Question::Probe(Probe::DirectIo, _)) && verdict == Verdict::Up {
            let limits: Limits = self.bank.limits(self.info(path).unit);
            let first = Extent::new(Lba(0), limits.logical_block);
            let op = Op::Read(Buf::stale(first.length.at_grain(limits.grain)));
            let of = AtUnit { path, generation, epoch: u64::MAX, asker: Asker::Checker(question, access) };
            return self.ask_unit(of, first, op, now);
        }
        self.send(path, Content::Told(question, verdict, Some(access)));
    }

    /// Confirms what the unit has nothing more to do for.
    fn keep_promises(&mut self) {
        for (via, promise) in std::mem::take(&mut self.promises) {
            let is_busy = match &promise {
                Promise::Ended(ending) => {
                    let is_old = |of: &AtUnit| {
                        ending.nexuses().iter().any(|(path, before)| of.path == *path && of.generation < *before)
                    };
                    self.at_unit.values().any(is_old)
                }
                Promise::Preempted(gone, _) => self.at_unit.values().any(|of| gone.contains(&of.path)),
                Promise::Forgotten(id, newest) => self.has_begun(via, |tag, of| of == *id && tag <= *newest),
            };
            match promise {
                promise if is_busy => self.promises.push((via, promise)),
                Promise::Ended(ending) => self.send(via, Content::Ended(ending)),
                Promise::Forgotten(id, tag) => self.send(via, Content::Forgotten(id, tag)),
                Promise::Preempted(_, reserve) => self.send(via, Content::Reserved(reserve, true)),
            }
        }
    }

    /// Takes what the units have done.
    pub(super) fn poll(&mut self, now: Instant) {
        let mut done: Vec<(DeviceId, Completion)> = Vec::new();
        self.bank.poll(now, &mut done);
        if done.is_empty() {
            return;
        }
        for (_, Completion { id, op, result }) in done {
            let AtUnit { path, asker, .. } = self.at_unit.remove(&id.0).expect("the unit answers what it was asked");
            let content = match asker {
                Asker::Command(tag, _) => Content::Answer(tag, matches!(op, Op::Read(_)).then_some(op), result),
                // Whatever the unit says, the path has brought it.
                Asker::Checker(question, access) => Content::Told(question, Verdict::Up, Some(access)),
            };
            self.send(path, content);
        }
        self.keep_promises();
        self.begin(now);
    }

    /// A change of owners is over; `alive` are the port groups that are there.
    pub(super) fn tick(&mut self, alive: &[u16], now: Instant) {
        if self.ownership.tick(now) {
            self.ownership.mind(alive, now);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        Instant::earliest([self.ownership.next_deadline(), self.bank.next_deadline()])
    }
}
