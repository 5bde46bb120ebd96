//! How long requests took, as a histogram of fixed size: four classes to each doubling, from a microsecond to an hour.
//!
//! A world that is forked copies it, so it is small; a quantile is right to a fifth.

use std::fmt;
use std::time::Duration;

use crate::block::Instant;

const OCTAVES: usize = 32;
const PARTS: usize = 4;

/// The shortest time that is told from shorter ones: 2^10 ns.
const SHIFT: u32 = 10;

/// Times that were counted.
#[derive(Clone, PartialEq, Eq)]
pub struct Latencies {
    counts: [u32; OCTAVES * PARTS],
    total: u64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { counts: [0; OCTAVES * PARTS], total: 0 }
    }
}

impl Latencies {
    /// Counts the time from one moment to another; none, if that is earlier.
    #[inline]
    pub fn record(&mut self, from: Instant, to: Instant) {
        let units = (to.0.saturating_sub(from.0) >> SHIFT) + PARTS as u64;
        let octave = units.ilog2() - PARTS.ilog2();
        let part = (units >> octave) as usize - PARTS;
        let class = (octave as usize * PARTS + part).min(self.counts.len() - 1);
        self.counts[class] = self.counts[class].saturating_add(1);
        self.total += 1;
    }

    /// How many times were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What so many percent of them did not exceed, as the upper edge of its class; `None` before the first.
    pub fn quantile(&self, percent: u64) -> Option<Duration> {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let class = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })?;
        let (octave, part) = (class / PARTS, class % PARTS);
        let edge = ((PARTS + part + 1) as u64) << octave;
        Some(Duration::from_nanos((edge - PARTS as u64) << SHIFT))
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most] = [50, 99].map(|percent| self.quantile(percent));
        write!(f, "Latencies({} times, p50 {half:?}, p99 {most:?})", self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every quantile of many times is at most a quarter above what sorting says, and a microsecond.
    #[test]
    fn quantiles_are_near_those_of_the_sorted_times() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(50), None);
        let mut times: Vec<u64> = (0..1000_u64).map(|n| (n * n * n * 7919) % 50_000_000_000).collect();
        times.iter().for_each(|time| latencies.record(Instant(5), Instant(5 + time)));
        times.sort_unstable();
        for percent in 1..=100 {
            let exact = times[(percent * 10 - 1) as usize];
            let told = latencies.quantile(percent).unwrap().as_nanos() as u64;
            assert!(told >= exact && told <= exact + exact / 4 + 2048, "p{percent}: {told}, not {exact}");
        }
        latencies.record(Instant(0), Instant(u64::MAX));
        assert_eq!(latencies.total(), 1001);
    }
}
