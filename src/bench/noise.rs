//! Noise: was this computer doing something else while we measured?
//!
//! A benchmark on a shared machine measures the neighbours too. The kernel keeps the books that tell:
//! `/proc/stat` (time all CPUs spent, and time the hypervisor stole), the CPU time of this process,
//! and `/proc/thread-self/schedstat` (time this thread was ready to run and another ran instead).
//! A [`Snapshot`] before and one after give the [`Disturbance`]s of what lay between. Where a book
//! is missing (another system, a locked-down container) its disturbances go unseen.

use std::fmt;
use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::Clock;
use crate::block::Instant;

/// What disturbed a measurement. Shares are of one CPU: 0.5 is half a CPU's time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Disturbance {
    /// Other processes, or the kernel on its own account (write-back), used this much CPU.
    OtherLoad {
        /// Of one CPU.
        share: f64,
    },
    /// The hypervisor gave this much CPU to other machines.
    Steal {
        /// Of one CPU.
        share: f64,
    },
    /// The measuring thread was ready to run, and waited for this share of the time.
    Preempted {
        /// Of the measured time.
        share: f64,
    },
    /// The repetitions differ by this much of their median.
    Spread {
        /// (largest − smallest) / median.
        share: f64,
    },
}

impl Disturbance {
    /// Below these nothing is said: what a quiet machine shows between its timer ticks.
    const OTHER_LOAD_MIN: f64 = 0.10;
    /// On many CPUs a load elsewhere disturbs only when it takes this share of all of them.
    const OTHER_LOAD_MIN_OF_ALL: f64 = 0.05;
    const STEAL_MIN: f64 = 0.04;
    const PREEMPTED_MIN: f64 = 0.02;
    const SPREAD_MIN: f64 = 0.25;

    /// The spread of `values`, if it is large enough to be worth a word.
    pub fn of_spread(median: f64, min: f64, max: f64) -> Option<Disturbance> {
        let share = if median > 0.0 { (max - min) / median } else { 0.0 };
        (share >= Self::SPREAD_MIN).then_some(Disturbance::Spread { share: round(share) })
    }

    /// Each cause that occurs, at its worst, in the order of first occurrence.
    pub fn worst<'a>(seen: impl Iterator<Item = &'a Disturbance>) -> Vec<Disturbance> {
        let mut worst: Vec<Disturbance> = Vec::new();
        for new in seen {
            match worst.iter_mut().find(|known| std::mem::discriminant(*known) == std::mem::discriminant(new)) {
                Some(known) if known.share() < new.share() => *known = *new,
                Some(_) => {}
                None => worst.push(*new),
            }
        }
        worst
    }

    /// How much.
    pub fn share(self) -> f64 {
        match self {
            Disturbance::OtherLoad { share }
            | Disturbance::Steal { share }
            | Disturbance::Preempted { share }
            | Disturbance::Spread { share } => share,
        }
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| (share * 100.0).round();
        match *self {
            Disturbance::OtherLoad { share } => write!(f, "other load took {} % of a CPU", percent(share)),
            Disturbance::Steal { share } => write!(f, "the hypervisor took {} % of a CPU", percent(share)),
            Disturbance::Preempted { share } => write!(f, "preempted for {} % of the time", percent(share)),
            Disturbance::Spread { share } => write!(f, "repetitions differ by {} %", percent(share)),
        }
    }
}

fn round(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}

/// What the kernel's books said at one moment; `None` where a book is missing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Snapshot {
    /// Just before the books were read.
    pub from: Instant,
    /// Just after.
    pub to: Instant,
    /// CPU time spent on anything at all, summed over CPUs, steal apart.
    pub busy: Option<Duration>,
    /// CPU time the hypervisor gave to others, summed over CPUs.
    pub stolen: Option<Duration>,
    /// CPU time of this process.
    pub own: Duration,
    /// Time this thread was ready to run and did not.
    pub queued: Option<Duration>,
}

/// Takes snapshots and compares them.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    ticks_per_second: u64,
    cpus: usize,
}

impl Meter {
    /// A meter for this computer.
    pub fn new() -> Meter {
        Meter {
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }

    /// What the books say now.
    pub fn snapshot(&self, clock: &dyn Clock) -> Snapshot {
        let from = clock.now();
        let stat = fs::read_to_string("/proc/stat").ok().and_then(|text| parse_stat(&text));
        let ticks = |count: u64| Duration::from_nanos(count.saturating_mul(1_000_000_000 / self.ticks_per_second));
        let own = clock_gettime(ClockId::ProcessCPUTime);
        let queued = fs::read_to_string("/proc/thread-self/schedstat").ok().and_then(|text| parse_schedstat(&text));
        Snapshot {
            from,
            to: clock.now(),
            busy: stat.map(|stat| ticks(stat.busy)),
            stolen: stat.map(|stat| ticks(stat.steal)),
            own: Duration::new(u64::try_from(own.tv_sec).unwrap_or(0), u32::try_from(own.tv_nsec).unwrap_or(0)),
            queued,
        }
    }

    /// What disturbed the time between two snapshots.
    pub fn between(&self, before: &Snapshot, after: &Snapshot) -> Vec<Disturbance> {
        // Whatever the books of both moments differ by happened within this time.
        let wall = after.to.since(before.from).as_secs_f64();
        if wall <= 0.0 {
            return Vec::new();
        }
        let passed = |from: Option<Duration>, to: Option<Duration>| {
            from.zip(to).map_or(0.0, |(from, to)| to.saturating_sub(from).as_secs_f64())
        };
        let own = after.own.saturating_sub(before.own).as_secs_f64();
        // The books of all CPUs are kept in ticks, ours to the nanosecond: one tick is no evidence.
        let tick = 1.0 / self.ticks_per_second as f64;
        let other = (passed(before.busy, after.busy) - own - tick).max(0.0) / wall;
        let stolen = (passed(before.stolen, after.stolen) - tick).max(0.0) / wall;
        let queued = passed(before.queued, after.queued) / wall;
        let other_min = Disturbance::OTHER_LOAD_MIN.max(Disturbance::OTHER_LOAD_MIN_OF_ALL * self.cpus as f64);
        let seen = [
            (other >= other_min).then_some(Disturbance::OtherLoad { share: round(other) }),
            (stolen >= Disturbance::STEAL_MIN).then_some(Disturbance::Steal { share: round(stolen) }),
            (queued >= Disturbance::PREEMPTED_MIN).then_some(Disturbance::Preempted { share: round(queued) }),
        ];
        seen.into_iter().flatten().collect()
    }
}

impl Default for Meter {
    fn default() -> Meter {
        Meter::new()
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Stat {
    busy: u64,
    steal: u64,
}

/// The `cpu` line of `/proc/stat`: user nice system idle iowait irq softirq steal guest guest_nice,
/// in ticks; guest time is contained in user and nice (proc_stat(5)).
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix("cpu "))?.split_whitespace();
    let mut next = || fields.next().map_or(Some(0), |field| field.parse::<u64>().ok());
    let (user, nice, system, _idle, _iowait, irq, softirq, steal) =
        (next()?, next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    Some(Stat { busy: user + nice + system + irq + softirq, steal })
}

/// `schedstat`: nanoseconds on a CPU, nanoseconds waiting for one, time slices
/// (Documentation/scheduler/sched-stats.rst).
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(at_ms: u64, busy_ms: u64, stolen_ms: u64, own_ms: u64, queued_ms: u64) -> Snapshot {
        Snapshot {
            from: Instant::START + Duration::from_millis(at_ms),
            to: Instant::START + Duration::from_millis(at_ms),
            busy: Some(Duration::from_millis(busy_ms)),
            stolen: Some(Duration::from_millis(stolen_ms)),
            own: Duration::from_millis(own_ms),
            queued: Some(Duration::from_millis(queued_ms)),
        }
    }

    #[test]
    fn a_quiet_machine_disturbs_nothing_and_each_cause_is_named() {
        let meter = Meter { ticks_per_second: 100, cpus: 2 };
        let before = snapshot(0, 0, 0, 0, 0);
        assert_eq!(meter.between(&before, &snapshot(1000, 1010, 10, 995, 5)), []);
        assert_eq!(meter.between(&before, &snapshot(1000, 1510, 0, 1000, 0)), [Disturbance::OtherLoad { share: 0.5 }]);
        assert_eq!(meter.between(&before, &snapshot(1000, 1000, 110, 1000, 0)), [Disturbance::Steal { share: 0.1 }]);
        assert_eq!(meter.between(&before, &snapshot(1000, 700, 0, 700, 300)), [Disturbance::Preempted { share: 0.3 }]);
        let blind = Snapshot { busy: None, stolen: None, queued: None, ..before };
        assert_eq!(meter.between(&blind, &snapshot(1000, 2000, 500, 0, 500)), []);
    }

    #[test]
    fn a_load_elsewhere_counts_less_on_many_cpus() {
        let before = snapshot(0, 0, 0, 0, 0);
        let after = snapshot(1000, 2000, 0, 1000, 0);
        assert_eq!(Meter { ticks_per_second: 100, cpus: 64 }.between(&before, &after), []);
        assert_eq!(Meter { ticks_per_second: 100, cpus: 4 }.between(&before, &after).len(), 1);
    }

    #[test]
    fn the_books_of_the_kernel_are_read() {
        let text = "cpu  10 20 30 400 50 6 7 8 9 0\ncpu0 1 2 3 4 5 6 7 8 9 0\nintr 5\n";
        assert_eq!(parse_stat(text), Some(Stat { busy: 73, steal: 8 }));
        assert_eq!(parse_stat("cpu  10 20 30 400\n"), Some(Stat { busy: 60, steal: 0 }));
        assert_eq!(parse_stat("cpu  x\n"), None);
        assert_eq!(parse_schedstat("1323307 63485 1\n"), Some(Duration::from_nanos(63485)));
        assert_eq!(parse_schedstat(""), None);
    }
}
