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

    /// From now on no error is earned.
    pub fn forbid_errors(&mut self) {
        self.earned = |_, _| false;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{CacheLoss, DiskModel, Mix, Rng, SimBank};

    fn one_disk(seed: u64, sectors: u64) -> SimBank {
        let mut bank = SimBank::new(seed);
        let mut model = DiskModel::small(Sectors(sectors), Sectors::ZERO);
        model.limits.preferred = Sectors(4);
        model.cached_writes_max = 12;
        bank.add_disk(model);
        bank
    }

    fn script(seed: u64, sectors: u64, ops: usize) -> Script {
        let limits = one_disk(seed, sectors).limits(VOLUME);
        let mut rng = Rng::new(seed, 50);
        Script::new(Mix::drawn(&limits, &mut rng).draw(&limits, ops, &mut rng), 1 + rng.below(6) as usize)
    }

    fn unreadable(bank: &SimBank, lba: Lba) -> bool {
        !bank.is_online(VOLUME) || bank.is_unreadable(VOLUME, Extent::new(lba, Sectors(1)))
    }

    fn after_power_cut(world: World<SimBank>, loss: CacheLoss, choose: &mut Rng) -> World<SimBank> {
        let restarted = world.restart::<std::convert::Infallible>(|mut bank| {
            bank.power_cut(loss, choose);
            Ok(bank)
        });
        let Ok(world) = restarted;
        world
    }

    const LOSSES: [CacheLoss; 4] = [CacheLoss::KeepAll, CacheLoss::DropAll, CacheLoss::PerSector, CacheLoss::PerDisk];

    /// The fork lives on after its power cut, and has it cut a second time.
    #[test]
    fn a_disk_keeps_its_promises_when_the_power_is_cut_at_any_event() {
        for seed in 0..30 {
            let mut world = World::new(one_disk(seed, 40), unreadable);
            let mut script = script(seed, 40, 60);
            let mut choose = Rng::new(seed, 51);
            while world.advance(&mut script).unwrap_or_else(|failure| panic!("seed {seed}: {failure}")) {
                for loss in LOSSES {
                    let mut fork = after_power_cut(world.clone(), loss, &mut choose);
                    let mut life = || {
                        fork.read_all(100)?;
                        fork.run(&mut script.clone(), 25).or_else(not_stuck)?;
                        fork = after_power_cut(fork.clone(), loss, &mut choose);
                        fork.read_all(100)?;
                        fork.read_all(100)
                    };
                    life()
                        .unwrap_or_else(|failure| panic!("seed {seed}, event {}, {loss:?}: {failure}", world.events()));
                }
            }
            world.read_all(100).unwrap();
        }
    }

    fn not_stuck(failure: Failure) -> Result<(), Failure> {
        if matches!(failure, Failure::Stuck { .. }) { Ok(()) } else { Err(failure) }
    }

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
        let trace = |seed| {
            let mut world = World::new(one_disk(seed, 200), unreadable);
            world.run(&mut script(seed, 200, 300), 10_000).unwrap();
            world.stack.trace()
        };
        assert_eq!(trace(5), trace(5));
        assert_ne!(trace(5), trace(6));
    }

    #[test]
    fn a_fork_leaves_the_original_as_it_was() {
        let run = |fork_at: Option<u64>| {
            let mut world = World::new(one_disk(9, 100), unreadable);
            let mut script = script(9, 100, 100);
            while world.advance(&mut script).unwrap() {
                if Some(world.events()) == fork_at {
                    let mut fork = world.clone();
                    fork.run(&mut script.clone(), 10_000).unwrap();
                    after_power_cut(fork, CacheLoss::PerSector, &mut Rng::new(9, 9)).read_all(100).unwrap();
                }
            }
            (world.now(), world.stack.trace())
        };
        assert_eq!(run(None), run(Some(30)));
    }

    #[test]
    fn errors_of_a_failing_disk_are_earned_and_a_write_makes_a_sector_readable_again() {
        let mut world = World::new(one_disk(3, 64), unreadable);
        world.stack.fail_medium(VOLUME, Extent::new(Lba(10), Sectors(2)));
        world.read_all(10).unwrap();

        world.submit_write(Extent::new(Lba(8), Sectors(8)), Durability::Fua);
        world.run_until_idle(10).unwrap();
        assert!(!world.stack.is_unreadable(VOLUME, Extent::new(Lba(0), Sectors(64))));
        world.read_all(10).unwrap();

        world.submit_write(Extent::new(Lba(0), Sectors(8)), Durability::Volatile);
        world.stack.fail_stop(VOLUME);
        world.run_until_idle(10).unwrap();
        world.stack.bring_back(VOLUME);
        world.read_all(10).unwrap();
        assert_eq!(world.oracle.legal(Lba(0)), [crate::sim::Value::Zero], "what failed did not happen");
    }
}
