//! Which path of a group takes the next request.
//!
//! The paths of a group are in a list; the one that is chosen goes to its end, so that equals take turns. The rules are those of
//! Linux 6.1's dm-ps-round-robin, -queue-length, -service-time, -historical-service-time and -io-affinity.

use super::settings::SelectorKind;
use crate::block::Instant;

/// What a selector knows of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Requests under way.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Relative throughput, 0 to 100; 0: only if there is nothing else.
    pub throughput: u64,
    /// Historical service time, in ns.
    pub service_ns: u64,
    /// When something finished last.
    pub finished_at: Instant,
}

impl Default for Load {
    fn default() -> Load {
        Load { requests: 0, bytes: 0, throughput: 1, service_ns: 0, finished_at: Instant::START }
    }
}

/// Fixed point of the moving average: 10 bits.
const ONE: u64 = 1 << 10;

/// What a short service time leaves of the average: 0.95.
const KEPT: u64 = 972;

/// Service times are in buckets of 2^24 ns, about 17 ms; a longer one counts more.
const BUCKET_SHIFT: u32 = 24;
const BUCKETS: u64 = 64;

impl Load {
    /// A request of `bytes` goes out.
    pub fn begin(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
    }

    /// It came back. Its service time is counted from when the one before it was finished.
    pub fn end(&mut self, bytes: u64, begun_at: Instant, now: Instant) {
        self.requests -= 1;
        self.bytes -= bytes;
        let service = now.0 - begun_at.0.max(self.finished_at.0).min(now.0);
        let bucket = (service >> BUCKET_SHIFT).min(BUCKETS - 1);
        let kept = (0..bucket).fold(KEPT, |power, _| power * KEPT / ONE);
        self.service_ns = match self.service_ns {
            0 => service,
            before => {
                ((u128::from(before) * u128::from(kept) + u128::from(service) * u128::from(ONE - kept)) >> 10) as u64
            }
        };
        self.finished_at = now;
    }

    /// Less is better.
    fn compare_service_time(&self, other: &Load, incoming: u64) -> std::cmp::Ordering {
        if self.throughput == other.throughput {
            return self.bytes.cmp(&other.bytes);
        }
        let faster_first = other.throughput.cmp(&self.throughput);
        if self.bytes == other.bytes || self.throughput == 0 || other.throughput == 0 {
            return faster_first;
        }
        let product = |mine: &Load, theirs: &Load| u128::from(mine.bytes + incoming) * u128::from(theirs.throughput);
        product(self, other).cmp(&product(other, self)).then(faster_first)
    }

    fn historical_cost(&self) -> u128 {
        u128::from(self.requests + 1) * u128::from(self.service_ns)
    }

    fn is_stale(&self, paths: u64, now: Instant) -> bool {
        now.0.saturating_sub(self.finished_at.0) > self.service_ns.saturating_mul(paths)
    }
}

/// Chooses one of `order`, places in `loads`, for a request of `incoming` bytes from CPU `cpu`, and moves it to the end.
pub fn select(
    kind: SelectorKind,
    order: &mut Vec<usize>,
    loads: &[Load],
    incoming: u64,
    cpu: usize,
    now: Instant,
) -> Option<usize> {
    let chosen = match kind {
        SelectorKind::RoundRobin => 0,
        SelectorKind::QueueLength => first_least(order, |a, b| loads[a].requests < loads[b].requests),
        SelectorKind::ServiceTime => {
            first_least(order, |a, b| loads[a].compare_service_time(&loads[b], incoming).is_lt())
        }
        SelectorKind::HistoricalServiceTime => historical(order, loads, now),
        SelectorKind::IoAffinity => {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            let mine = *sorted.get(cpu % sorted.len().max(1))?;
            return Some(mine);
        }
    };
    if order.is_empty() {
        return None;
    }
    let path = order.remove(chosen);
    order.push(path);
    Some(path)
}

fn first_least(order: &[usize], is_less: impl Fn(usize, usize) -> bool) -> usize {
    let mut best = 0;
    for at in 1..order.len() {
        if is_less(order[at], order[best]) {
            best = at;
        }
    }
    best
}

/// The cheapest; but one of which nothing was heard for long has its cost unknown: idle, it gets one request to find out; busy, it
/// gets no more than the others have.
fn historical(order: &[usize], loads: &[Load], now: Instant) -> usize {
    let paths = order.len() as u64;
    let beats = |a: &Load, b: &Load| {
        let (stale_a, stale_b) = (a.is_stale(paths, now), b.is_stale(paths, now));
        match (stale_a, stale_b) {
            (true, false) => a.requests == 0 || (a.requests <= b.requests && a.historical_cost() < b.historical_cost()),
            (false, true) if b.requests == 0 => false,
            (false, true) if b.requests > a.requests => true,
            _ => a.historical_cost() < b.historical_cost(),
        }
    };
    first_least(order, |a, b| beats(&loads[a], &loads[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(requests: &[u64]) -> Vec<Load> {
        requests
            .iter()
            .map(|requests| Load { requests: *requests, bytes: requests * 4096, ..Load::default() })
            .collect()
    }

    fn chosen(kind: SelectorKind, loads: &[Load], times: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..loads.len()).collect();
        (0..times).map(|_| select(kind, &mut order, loads, 4096, 0, Instant::START).unwrap()).collect()
    }

    #[test]
    fn round_robin_goes_round_whatever_is_under_way() {
        assert_eq!(chosen(SelectorKind::RoundRobin, &loads(&[9, 0, 0]), 5), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn the_least_loaded_is_chosen_and_equals_take_turns() {
        for kind in [SelectorKind::QueueLength, SelectorKind::ServiceTime] {
            assert_eq!(chosen(kind, &loads(&[9, 3, 7]), 2), [1, 1]);
            assert_eq!(chosen(kind, &loads(&[2, 2, 2]), 4), [0, 1, 2, 0]);
        }
    }

    #[test]
    fn service_time_weighs_bytes_by_throughput() {
        let mut two = loads(&[4, 2]);
        two[0].throughput = 10;
        two[1].throughput = 1;
        assert_eq!(chosen(SelectorKind::ServiceTime, &two, 1), [0]);
        two[0].throughput = 0;
        assert_eq!(chosen(SelectorKind::ServiceTime, &two, 1), [1], "a path of no throughput is for want of others");
    }

    #[test]
    fn history_prefers_who_was_fast_and_tries_who_was_not_heard_of() {
        let now = Instant(1_000_000_000);
        let fresh = |service_ns| Load { service_ns, finished_at: now, ..Load::default() };
        let mut order = vec![0, 1];
        let kind = SelectorKind::HistoricalServiceTime;
        assert_eq!(select(kind, &mut order, &[fresh(900), fresh(100)], 4096, 0, now), Some(1));
        let stale = Load { service_ns: 900, finished_at: Instant::START, ..Load::default() };
        assert_eq!(select(kind, &mut vec![0, 1], &[fresh(100), stale], 4096, 0, now), Some(1));
        let tried = Load { requests: 1, ..stale };
        assert_eq!(select(kind, &mut vec![0, 1], &[fresh(100), tried], 4096, 0, now), Some(0));
    }

    #[test]
    fn the_average_keeps_nineteen_parts_in_twenty() {
        let mut load = Load { service_ns: 1000, requests: 1, bytes: 512, ..Load::default() };
        load.end(512, Instant::START, Instant(2000));
        assert_eq!(load.service_ns, (1000 * 972 + 2000 * 52) >> 10);
    }
}
