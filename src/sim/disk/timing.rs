//! How long a disk takes.
//!
//! A hard disk has one arm over spinning platters. To serve a request it moves the arm, waits until the
//! sector comes round, and transfers for as long as the sectors take to pass. The arm accelerates and
//! brakes, so a seek takes `a + b * sqrt(distance)` (Ruemmler and Wilkes, "An Introduction to Disk Drive
//! Modeling", IEEE Computer 27(3), 1994; they go over to a straight line for long seeks, here the curve
//! ends at the full stroke).
//!
//! [`Hdd`] is that and no more: one zone, tracks in the order of their addresses, skewed so that the
//! next one is met without a wait, no read-ahead and no reordering. A write takes its turn at the
//! platter as a read does; a flush only waits for its turn, there is nothing left to seek for.

use std::time::Duration;

use crate::block::{Extent, Instant, Lba, Sectors};
use crate::sim::Rng;

/// How long requests take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timing {
    /// Each for itself, however many there are.
    Fixed(Service),
    /// One after the other, in the order they come, by where the arm is and how the platters stand.
    Hdd(Hdd),
}

/// How long a request takes: `base`, plus `per_sector` for its length, plus up to `spread` drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// What every request takes.
    pub base: Duration,
    /// What each of its sectors adds.
    pub per_sector: Duration,
    /// The longest a draw adds; what lets requests overtake each other.
    pub spread: Duration,
}

/// A hard disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hdd {
    /// Revolutions a minute; not zero.
    pub rpm: u32,
    /// The shortest seek.
    pub track_to_track: Duration,
    /// The longest seek, from the first sector to the last; not below the shortest.
    pub full_stroke: Duration,
    /// Bytes that pass under the head in a second: with `rpm`, the length of a track. At least a
    /// sector each revolution.
    pub bytes_per_second: u64,
}

/// Where the arm is, and until when it is at work.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Arm {
    over: Lba,
    busy_until: Instant,
}

/// When a disk begins a request and when it is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) begin: Instant,
    pub(super) due: Instant,
}

impl Timing {
    /// When a request for `extent` that comes at `now` is served, `slowness` times slower than the model says.
    pub(super) fn serve(
        &self,
        arm: &mut Arm,
        extent: Extent,
        capacity: Sectors,
        slowness: u32,
        now: Instant,
        rng: &mut Rng,
    ) -> Span {
        match self {
            Timing::Fixed(service) => Span { begin: now, due: now + service.time(extent.length, rng) * slowness },
            Timing::Hdd(hdd) => {
                let begin = now.max(arm.busy_until);
                if extent.length == Sectors::ZERO {
                    return Span { begin, due: begin };
                }
                let due = begin + hdd.time(arm.over, extent, capacity, begin) * slowness;
                *arm = Arm { over: extent.end(), busy_until: due };
                Span { begin, due }
            }
        }
    }
}

impl Service {
    fn time(&self, length: Sectors, rng: &mut Rng) -> Duration {
        let nanos = |each: Duration| each.as_nanos() as u64;
        let drawn = rng.below(nanos(self.spread) + 1);
        Duration::from_nanos(nanos(self.base) + nanos(self.per_sector) * length.0 + drawn)
    }
}

impl Hdd {
    /// Round figures of a 3.5-inch disk: 7200 rpm, seeks of 1 to 16 ms, 200 MB/s.
    pub const NEARLINE: Hdd = Hdd {
        rpm: 7200,
        track_to_track: Duration::from_millis(1),
        full_stroke: Duration::from_millis(16),
        bytes_per_second: 200_000_000,
    };

    /// How long one turn takes.
    pub fn revolution(&self) -> Duration {
        Duration::from_nanos(60_000_000_000 / u64::from(self.rpm))
    }

    /// Sectors that pass in one turn.
    pub fn track(&self) -> Sectors {
        Sectors::floor_bytes(self.bytes_per_second * 60 / u64::from(self.rpm))
    }

    /// How long the arm of a disk of `capacity` takes from one sector to another; nothing within a track
    /// and to the beginning of the next.
    pub fn seek(&self, from: Lba, to: Lba, capacity: Sectors) -> Duration {
        let track = self.track().0;
        if from == to || from.0 / track == to.0 / track {
            return Duration::ZERO;
        }
        let distance = from.0.abs_diff(to.0) as f64 / capacity.0 as f64;
        self.track_to_track + (self.full_stroke - self.track_to_track).mul_f64(distance.sqrt())
    }

    fn time(&self, from: Lba, extent: Extent, capacity: Sectors, begin: Instant) -> Duration {
        let seek = self.seek(from, extent.start, capacity);
        let revolution = self.revolution().as_nanos() as u64;
        let comes_round = self.passes(extent.start);
        let wait = (comes_round % revolution + revolution - (begin + seek).0 % revolution) % revolution;
        seek + Duration::from_nanos(wait + self.passes(extent.end()) - comes_round)
    }

    /// The moment a sector would pass under a head that reads the disk from its start, in nanoseconds: modulo the
    /// revolution, its angle.
    fn passes(&self, lba: Lba) -> u64 {
        let turn = self.revolution().as_nanos();
        (u128::from(lba.0) * turn / u128::from(self.track().0)) as u64
    }

    pub(super) fn assert_possible(&self) {
        assert!(self.rpm > 0 && self.track() > Sectors::ZERO, "{self:?} has no sector in a track");
        assert!(self.full_stroke >= self.track_to_track, "{self:?} seeks far faster than near");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Sectors = Sectors(1 << 32);
    const DISK: Hdd = Hdd::NEARLINE;

    fn serve(arm: &mut Arm, start: u64, length: u64, now: Instant) -> Span {
        let extent = Extent::new(Lba(start), Sectors(length));
        Timing::Hdd(DISK).serve(arm, extent, CAPACITY, 1, now, &mut Rng::new(0, 0))
    }

    #[test]
    fn a_seek_takes_from_track_to_track_to_the_full_stroke_along_a_square_root() {
        let seek = |to: u64| DISK.seek(Lba(0), Lba(to), CAPACITY);
        assert_eq!(seek(DISK.track().0 - 1), Duration::ZERO);
        assert!(seek(DISK.track().0 + 1) < Duration::from_micros(1020));
        assert_eq!(seek(CAPACITY.0 / 4), Duration::from_micros(8500), "half of the way from 1 to 16 ms");
        assert_eq!(seek(CAPACITY.0), DISK.full_stroke);
        assert_eq!(DISK.seek(Lba(CAPACITY.0), Lba(CAPACITY.0 / 4 * 3), CAPACITY), seek(CAPACITY.0 / 4));
    }

    #[test]
    fn a_request_takes_its_seek_up_to_a_revolution_and_its_transfer() {
        let mut rng = Rng::new(1, 0);
        let mut waited = Vec::new();
        for _ in 0..1000 {
            let (from, to) = (rng.below(CAPACITY.0), rng.below(CAPACITY.0 - 100));
            let now = Instant(rng.below(1 << 40));
            let mut arm = Arm { over: Lba(from), busy_until: Instant::START };
            let span = serve(&mut arm, to, 100, now);
            let transfer = Duration::from_nanos(100 * 512 * 5);
            let wait = span.due.since(now) - DISK.seek(Lba(from), Lba(to), CAPACITY);
            assert!(wait + Duration::from_micros(1) > transfer, "{wait:?}");
            assert!(wait < DISK.revolution() + transfer + Duration::from_micros(1), "{wait:?}");
            waited.push(wait);
        }
        let mean = waited.iter().sum::<Duration>() / 1000;
        assert!(mean > DISK.revolution() * 2 / 5 && mean < DISK.revolution() * 3 / 5, "half a turn, not {mean:?}");
    }

    #[test]
    fn requests_wait_for_the_arm_and_one_that_follows_its_predecessor_for_nothing_else() {
        let mut arm = Arm::default();
        let first = serve(&mut arm, 1_000_000, 50_000, Instant(7));
        let second = serve(&mut arm, 1_050_000, 50_000, Instant(8));
        assert_eq!(second.begin, first.due);
        let transfer = Duration::from_nanos(50_000 * 512 * 5);
        assert!(second.due.since(second.begin).abs_diff(transfer) < transfer / 1000);
        let flush = serve(&mut arm, 0, 0, Instant(9));
        assert_eq!((flush.begin, flush.due), (second.due, second.due));
        let late = serve(&mut arm, 1_100_000, 1, second.due + Duration::from_micros(1));
        assert!(late.due.since(late.begin) > DISK.revolution() * 9 / 10, "it has just missed its sector");
    }
}
