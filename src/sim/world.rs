//! A world: a stack, the time, and an oracle that watches its clients.
//!
//! The stack is any `Clone` bank whose device 0 is the volume. The world hands client operations to
//! it, goes from one deadline to the next, and shows every answer to the oracle. A clone of a world
//! is a fork: its power can be cut and its sectors audited while the original goes on.

use std::fmt;

use super::{ClientOp, OpId, Oracle, Violation};
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, Lba, Op, Request, RequestId, Sectors,
};

/// The volume of every stack.
const VOLUME: DeviceId = DeviceId(0);

/// Sectors an audit reads at once.
const AUDIT: Sectors = Sectors(128);

/// A stack and its clients.
#[derive(Clone, Debug)]
pub struct World<S> {
    /// What is tested.
    pub stack: S,
    /// What its clients may expect.
    pub oracle: Oracle,
    now: Instant,
    earned: fn(&S, Lba) -> bool,
    done: Vec<(DeviceId, Completion)>,
    events: u64,
}

/// Client operations on their way: how far they have been submitted, and how many at a time.
#[derive(Clone, Debug)]
pub struct Script {
    ops: Vec<ClientOp>,
    next: usize,
    depth: usize,
}

/// Why a run ends badly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// An answer was wrong.
    Wrong(Box<Violation>),
    /// Answers are missing: nothing will happen any more, or too much has.
    Stuck {
        /// Operations without an answer.
        inflight: usize,
        /// Events this world has seen.
        events: u64,
    },
}

impl<S: Bank> World<S> {
    /// A world around `stack`, whose volume reads as zeroes. `earned` says whether the stack may
    /// answer with an error for a sector of the volume, given the faults it has suffered.
    pub fn new(stack: S, earned: fn(&S, Lba) -> bool) -> World<S> {
        let limits = stack.limits(VOLUME);
        let oracle = Oracle::new(limits.capacity, limits.grain);
        World { stack, oracle, now: Instant::START, earned, done: Vec::new(), events: 0 }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Polls of the stack so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Client operations without an answer.
    pub fn inflight(&self) -> usize {
        self.oracle.inflight()
    }

    /// Submits a client operation.
    pub fn submit(&mut self, op: ClientOp) {
        match op {
            ClientOp::Read(extent) => self.submit_read(extent),
            ClientOp::Write(extent, durability) => self.submit_write(extent, durability),
            ClientOp::WriteZeroes(extent, durability) => {
                let id = self.oracle.zeroes_invoked(extent, durability);
                self.send(id, extent, Op::WriteZeroes(durability));
            }
            ClientOp::Discard(extent) => {
                let id = self.oracle.zeroes_invoked(extent, Durability::Volatile);
                self.send(id, extent, Op::Discard);
            }
            ClientOp::Flush => self.submit_flush(),
        }
    }

    /// Submits a read.
    pub fn submit_read(&mut self, extent: Extent) {
        let id = self.oracle.read_invoked(extent);
        self.send(id, extent, Op::Read(Buf::zeroed(extent.length.at_grain(self.oracle.grain()))));
    }

    /// Submits a write of tokens.
    pub fn submit_write(&mut self, extent: Extent, durability: Durability) {
        let (id, payload) = self.oracle.write_invoked(extent, durability);
        self.send(id, extent, Op::Write(payload, durability));
    }

    /// Submits a flush.
    pub fn submit_flush(&mut self) {
        let id = self.oracle.flush_invoked();
        self.send(id, Extent::new(Lba(0), Sectors::ZERO), Op::Flush);
    }

    fn send(&mut self, id: OpId, extent: Extent, op: Op) {
        self.stack.submit(VOLUME, Request::new(RequestId(id.0), extent, op), self.now);
    }

    /// Goes to the stack's next deadline and polls it once. `Ok(false)`: it has none.
    pub fn step(&mut self) -> Result<bool, Failure> {
        let Some(deadline) = self.stack.next_deadline() else { return Ok(false) };
        self.now = self.now.max(deadline);
        self.events += 1;
        let mut done = std::mem::take(&mut self.done);
        self.stack.poll(self.now, &mut done);
        let verdict = done.drain(..).try_for_each(|(device, completion)| {
            assert_eq!(device, VOLUME, "a completion of another device");
            self.judge(&completion)
        });
        self.done = done;
        verdict.map(|()| true).map_err(Failure::Wrong)
    }

    fn judge(&mut self, completion: &Completion) -> Result<(), Box<Violation>> {
        let World { stack, oracle, earned, .. } = self;
        let earned = |lba| earned(stack, lba);
        let id = OpId(completion.id.0);
        match (&completion.op, completion.result) {
            (Op::Read(buf), Ok(())) => oracle.read_ok(id, buf),
            (Op::Read(_), Err(error)) => oracle.read_failed(id, error, earned),
            (Op::Flush, Ok(())) => {
                oracle.flush_ok(id);
                Ok(())
            }
            (Op::Flush, Err(error)) => oracle.flush_failed(id, error, earned),
            (Op::Write(..) | Op::WriteZeroes(_) | Op::Discard, Ok(())) => {
                oracle.write_ok(id);
                Ok(())
            }
            (Op::Write(..) | Op::WriteZeroes(_) | Op::Discard, Err(error)) => oracle.write_failed(id, error, earned),
        }
    }

    /// Submits what `script` has room for and does one step. `Ok(false)`: every operation of the
    /// script is answered.
    pub fn advance(&mut self, script: &mut Script) -> Result<bool, Failure> {
        while self.inflight() < script.depth
            && let Some(&op) = script.ops.get(script.next)
        {
            script.next += 1;
            self.submit(op);
        }
        if self.inflight() == 0 {
            return Ok(false);
        }
        if self.step()? { Ok(true) } else { Err(self.stuck()) }
    }

    /// Steps until every client operation is answered, or `events_max` events have passed.
    pub fn run_until_idle(&mut self, events_max: u64) -> Result<(), Failure> {
        let end = self.events + events_max;
        while self.inflight() > 0 {
            if self.events == end || !self.step()? {
                return Err(self.stuck());
            }
        }
        Ok(())
    }

    /// Carries out a whole script within `events_max` events.
    pub fn run(&mut self, script: &mut Script, events_max: u64) -> Result<(), Failure> {
        let end = self.events + events_max;
        while self.advance(script)? {
            if self.events == end {
                return Err(self.stuck());
            }
        }
        Ok(())
    }

    /// Reads every sector of the volume and shows it to the oracle, within `events_max` events.
    pub fn read_all(&mut self, events_max: u64) -> Result<(), Failure> {
        let capacity = self.oracle.capacity();
        for start in (0..capacity.0).step_by(AUDIT.0 as usize) {
            self.submit_read(Extent::new(Lba(start), AUDIT.min(Sectors(capacity.0 - start))));
        }
        self.run_until_idle(events_max)
    }

    /// The crash and the start after it: `restart` gets the stack as it stood, cuts its power and
    /// makes a new one of what is left. Operations in flight are gone.
    pub fn restart<E>(self, restart: impl FnOnce(S) -> Result<S, E>) -> Result<World<S>, E> {
        let World { stack, mut oracle, earned, done, events, now } = self;
        oracle.crash();
        Ok(World { stack: restart(stack)?, oracle, now, earned, done, events })
    }

    fn stuck(&self) -> Failure {
        Failure::Stuck { inflight: self.inflight(), events: self.events }
    }
}

impl Script {
    /// Carries out `ops` in order, at most `depth` at a time.
    pub fn new(ops: Vec<ClientOp>, depth: usize) -> Script {
        assert!(depth > 0, "a script of depth 0 never begins");
        Script { ops, next: 0, depth }
    }

    /// How many operations have been submitted.
    pub fn submitted(&self) -> usize {
        self.next
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Wrong(violation) => write!(f, "{violation}"),
            Failure::Stuck { inflight, events } => {
                write!(f, "stuck: {inflight} operations without an answer after {events} events")
            }
        }
    }
}

impl std::error::Error for Failure {}

impl From<Box<Violation>> for Failure {
    fn from(violation: Box<Violation>) -> Failure {
        Failure::Wrong(violation)
    }
}
