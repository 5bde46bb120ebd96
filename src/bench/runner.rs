//! The runner: one workload on one device, on the calling thread.
//!
//! fio keeps `iodepth` requests in flight and times each from submission to completion. So does
//! [`run_cell`], without a thread of its own: it submits, polls, records and submits again, and
//! sleeps only when the bank has nothing to do. On a bank that carries requests out as they are
//! submitted, a latency at depth 32 is therefore the time of 32 requests: that is what a caller who
//! hands over 32 at once waits for.
//!
//! Time is taken once for all completions of a poll. The measurement closes with the first poll at
//! or after its end; what is in flight then is drained and not counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Clock, Mix, Offsets, PayloadPool, Workload};
use crate::block::{Bank, Buf, Completion, DeviceId, Durability, Instant, IoError, Op, Request, RequestId, Sectors};

/// What the runner drives: a device of a bank, and a way to sleep until the bank has news.
pub trait Driven {
    /// The bank.
    fn bank(&mut self) -> &mut dyn Bank;

    /// The device of the bank that is measured.
    fn device(&self) -> DeviceId;

    /// Sleeps until a completion may have arrived, at most `longest` (`None`: as long as it takes).
    /// Called when a poll gave nothing and nothing is due. May return early.
    fn wait(&mut self, longest: Option<Duration>);
}

/// Any bank with a closure to wait by.
#[derive(Debug)]
pub struct OnBank<B, W> {
    /// The bank.
    pub bank: B,
    /// The device measured.
    pub device: DeviceId,
    /// See [`Driven::wait`].
    pub wait: W,
}

impl<B: Bank, W: FnMut(Option<Duration>)> Driven for OnBank<B, W> {
    fn bank(&mut self) -> &mut dyn Bank {
        &mut self.bank
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    fn wait(&mut self, longest: Option<Duration>) {
        (self.wait)(longest);
    }
}

/// When a run is over: whichever comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Time before the measurement starts, in which requests run and are not counted.
    pub warmup: Duration,
    /// Time measured.
    pub measure: Duration,
    /// Requests measured; `u64::MAX` for as many as the time allows.
    pub requests: u64,
}

impl Budget {
    /// `measure` long, after a warm-up of `warmup`.
    pub const fn time(warmup: Duration, measure: Duration) -> Budget {
        Budget { warmup, measure, requests: u64::MAX }
    }

    /// So many requests, in at most `longest`, from the first on.
    pub const fn requests(requests: u64, longest: Duration) -> Budget {
        Budget { warmup: Duration::ZERO, measure: longest, requests }
    }
}

/// What one run of a workload gave.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Reads that succeeded within the measured time.
    pub reads: u64,
    /// Writes that succeeded within the measured time.
    pub writes: u64,
    /// Bytes of address they covered.
    pub bytes: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// Latency of each of them, in nanoseconds, to three digits.
    pub latency: Histogram<u64>,
    /// Requests that failed, in the whole run.
    pub errors: u64,
    /// The first failure.
    pub first_error: Option<IoError>,
    /// Writes handed to the device in the whole run, warm-up and drain with them: what the members'
    /// counters of the same run are divided by.
    pub writes_issued: u64,
}

impl Measurement {
    fn new() -> Measurement {
        Measurement {
            reads: 0,
            writes: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            latency: new_histogram(),
            errors: 0,
            first_error: None,
            writes_issued: 0,
        }
    }

    /// Forgets what the warm-up measured; its errors and writes stay.
    fn restart(&mut self) {
        self.reads = 0;
        self.writes = 0;
        self.bytes = 0;
        self.latency.reset();
    }

    fn record(&mut self, write: bool, block: Sectors, took: Duration) {
        *if write { &mut self.writes } else { &mut self.reads } += 1;
        self.bytes += block.bytes();
        self.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    /// Requests counted.
    pub fn requests(&self) -> u64 {
        self.reads + self.writes
    }

    /// Requests per second.
    pub fn iops(&self) -> f64 {
        per_second(self.requests(), self.elapsed)
    }

    /// Megabytes (10⁶ bytes) per second.
    pub fn mb_per_second(&self) -> f64 {
        per_second(self.bytes, self.elapsed) / 1e6
    }
}

pub(super) fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

/// Nanoseconds from 1 to an hour, to three digits; longer ones count as an hour.
pub(super) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds are in order")
}

/// Requests in flight and what is needed to make the next.
struct Flight<'a> {
    offsets: Offsets,
    pool: &'a mut PayloadPool,
    bytes_carried: usize,
    /// Requests that may still be issued.
    left: u64,
    /// When the request of this id was submitted.
    submitted_at: Vec<Instant>,
    free: Vec<RequestId>,
    spare_bufs: Vec<Buf>,
}

impl Flight<'_> {
    fn next_request(&mut self, now: Instant) -> Option<Request> {
        if self.left == 0 {
            return None;
        }
        let id = self.free.pop()?;
        self.left -= 1;
        self.submitted_at[id.0 as usize] = now;
        let (extent, read) = self.offsets.step();
        let op = if read {
            Op::Read(self.spare_bufs.pop().unwrap_or_else(|| Buf::stale(self.bytes_carried)))
        } else {
            Op::Write(self.pool.cut(self.bytes_carried), Durability::Volatile)
        };
        Some(Request::new(id, extent, op))
    }

    fn take_back(&mut self, completion: Completion, now: Instant, counted: bool, result: &mut Measurement) {
        let took = now.since(self.submitted_at[completion.id.0 as usize]);
        self.free.push(completion.id);
        match completion.result {
            Ok(()) if counted => result.record(completion.op.is_write(), self.offsets.workload().block, took),
            Ok(()) => {}
            Err(error) => {
                result.errors += 1;
                result.first_error.get_or_insert(error);
            }
        }
        if let Op::Read(buf) = completion.op {
            self.spare_bufs.push(buf);
        }
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.submitted_at.len()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measuring,
    Draining,
}

/// Runs the workload of `offsets` until `budget` is spent or `stop` is set, and gives back what was
/// measured. The device is left without a request in flight.
pub fn run_cell<D: Driven + ?Sized>(
    driven: &mut D,
    offsets: Offsets,
    pool: &mut PayloadPool,
    budget: Budget,
    clock: &dyn Clock,
    stop: &AtomicBool,
) -> Measurement {
    let workload = offsets.workload();
    let device = driven.device();
    let depth = workload.queue_depth as usize;
    let mut flight = Flight {
        offsets,
        pool,
        bytes_carried: workload.block.at_grain(driven.bank().limits(device).grain),
        left: budget.requests,
        submitted_at: vec![Instant::START; depth],
        free: (0..depth as u64).rev().map(RequestId).collect(),
        spare_bufs: Vec::with_capacity(depth),
    };
    let mut result = Measurement::new();
    let mut done = Vec::with_capacity(depth);
    let mut phase = if budget.warmup.is_zero() { Phase::Measuring } else { Phase::WarmUp };
    let mut phase_began = clock.now();
    let mut now = phase_began;
    loop {
        if phase != Phase::Draining {
            while let Some(request) = flight.next_request(now) {
                result.writes_issued += u64::from(request.op.is_write());
                driven.bank().submit(device, request, now);
            }
        }
        driven.bank().poll(now, &mut done);
        now = clock.now();
        if done.is_empty() && !flight.is_empty() {
            match driven.bank().next_deadline() {
                Some(due) if due <= now => {}
                due => {
                    driven.wait(due.map(|due| due.since(now)));
                    now = clock.now();
                }
            }
        }
        for (_, completion) in done.drain(..) {
            flight.take_back(completion, now, phase != Phase::Draining, &mut result);
        }
        let passed = now.since(phase_began);
        let stopped = stop.load(Ordering::Relaxed) || (flight.left == 0 && flight.is_empty());
        match phase {
            Phase::WarmUp if stopped => phase = Phase::Draining,
            Phase::WarmUp if passed >= budget.warmup => {
                result.restart();
                phase = Phase::Measuring;
                phase_began = now;
            }
            Phase::Measuring if stopped || passed >= budget.measure => {
                result.elapsed = passed;
                phase = Phase::Draining;
            }
            Phase::Draining if flight.is_empty() => return result,
            Phase::WarmUp | Phase::Measuring | Phase::Draining => {}
        }
    }
}

/// Writes random data from the first sector on, 1 MiB at a time, for at most `longest`. Gives back
/// how many sectors from the start now hold data (a rest shorter than 1 MiB stays as it was).
///
/// # Errors
/// The first write that failed.
pub fn fill<D: Driven + ?Sized>(
    driven: &mut D,
    pool: &mut PayloadPool,
    longest: Duration,
    clock: &dyn Clock,
    stop: &AtomicBool,
) -> Result<Sectors, IoError> {
    let device = driven.device();
    let limits = driven.bank().limits(device);
    let workload = Workload::sequential(Mix::Write);
    // One in flight: when time is up, what was written is a run from the start.
    let workload = Workload {
        block: workload.block.min(limits.capacity.round_down(limits.logical_block)),
        queue_depth: 1,
        ..workload
    };
    let blocks = limits.capacity.0 / workload.block.0;
    let offsets = Offsets::new(workload, limits.capacity, 0).from_the_start();
    let written = run_cell(driven, offsets, pool, Budget::requests(blocks, longest), clock, stop);
    match written.first_error {
        Some(error) => Err(error),
        None => Ok(Sectors(written.writes * workload.block.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Limits;
    use crate::disk::MemBank;

    /// A clock that moves on by a microsecond whenever somebody looks.
    #[derive(Default)]
    struct Ticking(std::cell::Cell<u64>);
    impl Clock for Ticking {
        fn now(&self) -> Instant {
            self.0.set(self.0.get() + 1_000);
            Instant(self.0.get())
        }
    }

    fn disk(sectors: u64) -> OnBank<MemBank, impl FnMut(Option<Duration>)> {
        let mut bank = MemBank::new();
        let device = bank.add(Limits::of_disk(Sectors(sectors)));
        OnBank { bank, device, wait: |_| panic!("a disk in memory never makes one wait") }
    }

    fn run(workload: &str, budget: Budget) -> Measurement {
        let workload: Workload = workload.parse().unwrap();
        let offsets = Offsets::new(workload, Sectors(1 << 14), 7);
        let mut pool = PayloadPool::new(workload.block.bytes() as usize, 7);
        run_cell(&mut disk(1 << 14), offsets, &mut pool, budget, &Ticking::default(), &AtomicBool::new(false))
    }

    #[test]
    fn every_request_of_the_budget_is_counted_once() {
        for (workload, requests) in [("rand-mix70-4K-q32", 1000), ("seq-write-1M-q4", 10), ("rand-read-4K-q1", 1)] {
            let result = run(workload, Budget::requests(requests, Duration::from_secs(1)));
            assert_eq!((result.requests(), result.latency.len(), result.errors), (requests, requests, 0), "{workload}");
            assert_eq!(result.writes_issued, result.writes, "{workload}");
        }
    }

    #[test]
    fn latency_and_rate_are_those_of_the_clock() {
        // One look at the clock a poll, so each poll takes a microsecond and completes what was in flight.
        let result = run("rand-read-4K-q8", Budget::time(Duration::from_micros(10), Duration::from_micros(100)));
        assert_eq!((result.elapsed, result.reads, result.bytes), (Duration::from_micros(100), 800, 800 * 4096));
        assert_eq!((result.latency.value_at_quantile(0.5), result.latency.max()), (1000, 1000));
        assert!((result.iops() - 8e6).abs() < 1.0 && (result.mb_per_second() - 8.0 * 4096.0).abs() < 1.0);
    }

    #[test]
    fn writes_of_warm_up_and_drain_are_issued_but_not_measured() {
        let result = run("rand-write-4K-q4", Budget::time(Duration::from_micros(10), Duration::from_micros(10)));
        assert_eq!((result.writes, result.writes_issued), (40, 80));
    }

    #[test]
    fn failed_requests_are_errors_and_nothing_else() {
        let mut driven = disk(64);
        let offsets = Offsets::new("rand-read-4K-q2".parse().unwrap(), Sectors(128), 1);
        let budget = Budget::requests(100, Duration::from_secs(1));
        let mut pool = PayloadPool::new(4096, 1);
        let result = run_cell(&mut driven, offsets, &mut pool, budget, &Ticking::default(), &AtomicBool::new(false));
        assert!((30..70).contains(&result.errors), "{}", result.errors);
        assert_eq!((result.errors + result.reads, result.first_error), (100, Some(IoError::OutOfRange)));
    }

    #[test]
    fn a_stop_ends_the_run_with_nothing_in_flight() {
        let workload: Workload = "seq-write-4K-q4".parse().unwrap();
        let mut driven = disk(1024);
        let mut pool = PayloadPool::new(4096, 1);
        let offsets = Offsets::new(workload, Sectors(1024), 1);
        let budget = Budget::time(Duration::ZERO, Duration::from_secs(3600));
        let result = run_cell(&mut driven, offsets, &mut pool, budget, &Ticking::default(), &AtomicBool::new(true));
        assert_eq!(result.writes, 4);
    }

    #[test]
    fn a_filled_disk_holds_random_bytes_up_to_where_it_says() {
        let mut driven = disk(2 * 2048 + 8);
        let mut pool = PayloadPool::new(1 << 20, 3);
        let clock = Ticking::default();
        let filled = fill(&mut driven, &mut pool, Duration::from_secs(1), &clock, &AtomicBool::new(false)).unwrap();
        assert_eq!(filled, Sectors(2 * 2048));
        let bytes = driven.bank.bytes(driven.device);
        assert!(bytes[..2 << 20].chunks(64).all(|chunk| chunk.iter().any(|&byte| byte != 0)));
        assert!(bytes[..1 << 20] != bytes[1 << 20..2 << 20]);
    }

    /// A bank that completes a request a millisecond after it was submitted, and only if waited for.
    struct Late {
        limits: Limits,
        waiting: Vec<(Instant, Request)>,
    }
    impl Bank for Late {
        fn limits(&self, _device: DeviceId) -> Limits {
            self.limits
        }
        fn submit(&mut self, _device: DeviceId, request: Request, now: Instant) {
            self.waiting.push((now + Duration::from_millis(1), request));
        }
        fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
            let due = self.waiting.iter().take_while(|(at, _)| *at <= now).count();
            done.extend(self.waiting.drain(..due).map(|(_, request)| (DeviceId(0), request.complete(Ok(())))));
        }
        fn next_deadline(&self) -> Option<Instant> {
            self.waiting.first().map(|(at, _)| *at)
        }
    }

    #[test]
    fn the_runner_sleeps_until_the_bank_is_due() {
        let clock = Ticking::default();
        let mut waits = 0;
        let wait = |longest: Option<Duration>| {
            waits += 1;
            clock.0.set(clock.0.get() + longest.expect("the bank names a deadline").as_nanos() as u64);
        };
        let bank = Late { limits: Limits::of_disk(Sectors(1024)), waiting: Vec::new() };
        let mut driven = OnBank { bank, device: DeviceId(0), wait };
        let offsets = Offsets::new("rand-read-4K-q4".parse().unwrap(), Sectors(1024), 1);
        let budget = Budget::requests(40, Duration::from_secs(1));
        let mut pool = PayloadPool::new(4096, 1);
        let result = run_cell(&mut driven, offsets, &mut pool, budget, &clock, &AtomicBool::new(false));
        assert_eq!(result.reads, 40);
        assert!((1_000_000..1_010_000).contains(&result.latency.max()), "{}", result.latency.max());
        assert_eq!(waits, 10);
    }
}
