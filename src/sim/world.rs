//! A world: a stack, the time, and an oracle that watches its clients.
//!
//! The stack is any `Clone` bank whose device 0 is the volume. The world hands client operations to
//! it, goes from one deadline to the next, and shows every answer to the oracle. A clone of a world
//! is a fork: its power can be cut and its sectors audited while the original goes on.

use std::collections::BTreeMap;
use std::fmt;

use super::{ClientOp, OpId, Oracle, Violation};
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Op, Request, RequestId, Sectors,
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
    account: fn(&mut S, &mut Oracle),
    done: Vec<(DeviceId, Completion)>,
    /// What the last event answered.
    answers: Vec<(OpId, Result<(), IoError>)>,
    /// When each operation under way was submitted.
    begun: BTreeMap<OpId, Instant>,
    events: u64,
}

/// A world whose stack is switched off.
#[derive(Clone, Debug)]
pub struct Waiting<S> {
    /// What its clients may expect.
    pub oracle: Oracle,
    now: Instant,
    earned: fn(&S, Lba) -> bool,
    account: fn(&mut S, &mut Oracle),
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
        World {
            stack,
            oracle,
            now: Instant::START,
            earned,
            account: |_, _| (),
            done: Vec::new(),
            answers: Vec::new(),
            begun: BTreeMap::new(),
            events: 0,
        }
    }

    /// After every submission and poll, before any answer is judged, `account` may tell the oracle what
    /// silent faults have touched.
    pub fn with_account(self, account: fn(&mut S, &mut Oracle)) -> World<S> {
        World { account, ..self }
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

    /// When the operation that has been under way for longest was submitted.
    pub fn oldest(&self) -> Option<Instant> {
        self.begun.first_key_value().map(|(_, begun)| *begun)
    }

    /// The operations that the last event answered, and how.
    pub fn answers(&self) -> &[(OpId, Result<(), IoError>)] {
        &self.answers
    }

    /// From now on no error is earned.
    pub fn forbid_errors(&mut self) {
        self.earned = |_, _| false;
        self.oracle.forbid_errors();
    }

    /// Submits a client operation.
    pub fn submit(&mut self, op: ClientOp) -> OpId {
        match op {
            ClientOp::Read(extent) => self.submit_read(extent),
            ClientOp::Write(extent, durability) => self.submit_write(extent, durability),
            ClientOp::WriteZeroes(extent, durability) => {
                let id = self.oracle.zeroes_invoked(extent, durability);
                self.send(id, extent, Op::WriteZeroes(durability))
            }
            ClientOp::Discard(extent) => {
                let id = self.oracle.zeroes_invoked(extent, Durability::Volatile);
                self.send(id, extent, Op::Discard)
            }
            ClientOp::Flush => self.submit_flush(),
        }
    }

    /// Submits a read.
    pub fn submit_read(&mut self, extent: Extent) -> OpId {
        let id = self.oracle.read_invoked(extent);
        self.send(id, extent, Op::Read(Buf::zeroed(extent.length.at_grain(self.oracle.grain()))))
    }

    /// Submits a write of tokens.
    pub fn submit_write(&mut self, extent: Extent, durability: Durability) -> OpId {
        let (id, payload) = self.oracle.write_invoked(extent, durability);
        self.send(id, extent, Op::Write(payload, durability))
    }

    /// Submits a flush.
    pub fn submit_flush(&mut self) -> OpId {
        let id = self.oracle.flush_invoked();
        self.send(id, Extent::new(Lba(0), Sectors::ZERO), Op::Flush)
    }

    /// Reads of every sector of the volume, all at once.
    pub fn audit(&self) -> Script {
        let capacity = self.oracle.capacity();
        let read = |start| ClientOp::Read(Extent::new(Lba(start), AUDIT.min(Sectors(capacity.0 - start))));
        Script::new((0..capacity.0).step_by(AUDIT.0 as usize).map(read).collect(), usize::MAX)
    }

    fn send(&mut self, id: OpId, extent: Extent, op: Op) -> OpId {
        self.begun.insert(id, self.now);
        self.stack.submit(VOLUME, Request::new(RequestId(id.0), extent, op), self.now);
        (self.account)(&mut self.stack, &mut self.oracle);
        id
    }

    /// Tells the stack the time: one that has just been started has not been told.
    pub fn wake(&mut self) {
        let mut done = Vec::new();
        self.stack.poll(self.now, &mut done);
        assert!(done.is_empty(), "a stack that has just been started answers nothing");
    }

    /// Goes to the stack's next deadline and polls it once. `Ok(false)`: it has none.
    pub fn step(&mut self) -> Result<bool, Failure> {
        let Some(deadline) = self.stack.next_deadline() else { return Ok(false) };
        self.now = self.now.max(deadline);
        self.events += 1;
        let mut done = std::mem::take(&mut self.done);
        self.stack.poll(self.now, &mut done);
        (self.account)(&mut self.stack, &mut self.oracle);
        self.answers.clear();
        let verdict = done.drain(..).try_for_each(|(device, completion)| {
            assert_eq!(device, VOLUME, "a completion of another device");
            self.begun.remove(&OpId(completion.id.0));
            self.answers.push((OpId(completion.id.0), completion.result));
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
        self.run(&mut self.audit(), events_max)
    }

    /// The crash and the start after it: `restart` gets the stack as it stood, cuts its power and
    /// makes a new one of what is left. Operations in flight are gone.
    pub fn restart<E>(self, restart: impl FnOnce(S) -> Result<S, E>) -> Result<World<S>, E> {
        let (stack, mut waiting) = self.part();
        waiting.oracle.crash();
        Ok(waiting.join(restart(stack)?))
    }

    /// The stack, and the clients that wait until there is one again.
    pub fn part(self) -> (S, Waiting<S>) {
        let World { stack, oracle, earned, account, done, answers: _, begun: _, events, now } = self;
        (stack, Waiting { oracle, now, earned, account, done, events })
    }

    fn stuck(&self) -> Failure {
        Failure::Stuck { inflight: self.inflight(), events: self.events }
    }
}

impl<S> Waiting<S> {
    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The world with a stack again.
    pub fn join(self, stack: S) -> World<S> {
        let Waiting { oracle, earned, account, done, events, now } = self;
        World { stack, oracle, now, earned, account, done, answers: Vec::new(), begun: BTreeMap::new(), events }
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
    use crate::disk::Fault;
    use crate::sim::{CacheLoss, DiskModel, Hdd, Mix, Rng, SimBank, Timing};

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

    /// The fork lives on after its power cut, and has it cut a second time.
    #[test]
    fn a_disk_keeps_its_promises_when_the_power_is_cut_at_any_event() {
        for seed in 0..30 {
            let mut world = World::new(one_disk(seed, 40), unreadable);
            let mut script = script(seed, 40, 60);
            let mut choose = Rng::new(seed, 51);
            while world.advance(&mut script).unwrap_or_else(|failure| panic!("seed {seed}: {failure}")) {
                for loss in CacheLoss::ALL {
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

    /// A disk whose requests, from the 20th on, meet a fault for a while; at the end its power is cut.
    fn life(seed: u64, model: DiskModel, fault: &str, harm: fn(&mut SimBank, u64)) -> Result<(), Failure> {
        let mut bank = SimBank::new(seed);
        bank.add_disk(model);
        let limits = bank.limits(VOLUME);
        let mut stack = Fault::new(bank);
        if !fault.is_empty() {
            let spec = format!("{fault} --at-io 20").parse().expect("it is a fault");
            stack.arm(VOLUME, spec, Instant::START).expect("the disk can have it");
        }
        let mut rng = Rng::new(seed, 60);
        let ops = Mix::of_all(&limits).draw(&limits, 80, &mut rng);
        let mut world = World::new(stack, |_, _| true);
        let mut script = Script::new(ops, 4);
        while world.advance(&mut script)? {
            let event = world.events();
            harm(world.stack.inner_mut(), event);
        }
        world.read_all(100)?;
        for loss in [CacheLoss::DropAll, CacheLoss::PerBlock, CacheLoss::PerSector] {
            let Ok(mut cut) = world.clone().restart::<std::convert::Infallible>(|stack| {
                let mut bank = stack.inner().clone();
                bank.power_cut(loss, &mut rng);
                Ok(Fault::new(bank))
            });
            cut.read_all(100)?;
            cut.read_all(100)?;
        }
        Ok(())
    }

    fn plain() -> DiskModel {
        let mut model = DiskModel::small(Sectors(40), Sectors::ZERO);
        model.limits.preferred = Sectors(4);
        model
    }

    const FLUSHES_FAIL: fn(&mut SimBank, u64) = |bank, event| {
        if event == 30 {
            bank.fail_flushes(VOLUME, 1);
        }
    };

    #[test]
    fn a_disk_that_says_when_it_fails_keeps_its_promises() {
        let hangs: fn(&mut SimBank, u64) = |bank, event| match event % 20 {
            5 => bank.hang(VOLUME, std::time::Duration::from_millis(30)),
            9 => bank.end_hang(VOLUME),
            _ => {}
        };
        let grows_slow: fn(&mut SimBank, u64) = |bank, event| bank.slow(VOLUME, 1 + event as u32 % 100);
        let fills: fn(&mut SimBank, u64) = |bank, event| match event % 20 {
            5 => bank.limit_space(VOLUME),
            15 => bank.unlimit_space(VOLUME),
            _ => {}
        };
        let hdd = DiskModel { timing: Timing::Hdd(Hdd::NEARLINE), ..plain() };
        for seed in 0..20 {
            for fault in [
                "latency=1ms --times 9",
                "hang=5ms",
                "medium --times 3",
                "write-medium --times 5",
                "transient=6",
                "torn=1 --times 5",
                "fail-stop --times 9",
                "flush-fail --times 4",
                "no-space --times 4",
                "read-only --times 9",
            ] {
                life(seed, plain(), fault, |_, _| {}).unwrap_or_else(|failure| panic!("{seed}, {fault}: {failure}"));
            }
            for (model, harm) in [(plain(), hangs), (plain(), grows_slow), (plain(), fills), (hdd, hangs), (hdd, fills)]
            {
                life(seed, model, "", harm).unwrap_or_else(|failure| panic!("{seed}: {failure}"));
            }
        }
    }

    #[test]
    fn a_disk_that_does_not_say_is_found_out() {
        let never: fn(&mut SimBank, u64) = |_, _| {};
        for (fault, harm) in [
            ("lost --times 6", never),
            ("misdirected=3 --times 6", never),
            ("misdirected-read=2 --times 6", never),
            ("bitflip --times 6", never),
            ("corrupt-write --times 6", never),
            ("torn-silent=0 --times 6", never),
            ("flush-lie", never),
            ("", FLUSHES_FAIL),
        ] {
            let found =
                (0..20).filter(|seed| matches!(life(*seed, plain(), fault, harm), Err(Failure::Wrong(_)))).count();
            assert!(found >= 5, "{fault}: found in {found} of 20 lives");
        }
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
