//! Which path of a group takes the next request.
//!
//! The paths of a group are in a list; the one that is chosen goes to its end, so that equals take turns. The rules are those of
//! Linux 6.1's dm-ps-round-robin, -queue-length, -service-time, -historical-service-time and -io-affinity, to the bit.

use std::cmp::Ordering;

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
    /// Historical service time, in 1024ths of a nanosecond.
    pub service: u64,
    /// When something finished last.
    pub finished_at: Instant,
    /// From when on that is long ago.
    pub stale_after: Instant,
}

/// A request that looks for a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incoming {
    /// Its bytes.
    pub bytes: u64,
    /// The CPU that asks. CPU `c` is mapped to the path at place `c` of the group, counted round.
    pub cpu: usize,
    /// The time.
    pub now: Instant,
}

impl Default for Load {
    fn default() -> Load {
        let start = Instant::START;
        Load { requests: 0, bytes: 0, throughput: 1, service: ONE, finished_at: start, stale_after: start }
    }
}

/// Fixed point of the moving average: 10 bits.
const SHIFT: u32 = 10;
const ONE: u64 = 1 << SHIFT;

/// What a short service time leaves of the average: 0.95.
const KEPT: u64 = 972;

/// Service times are in buckets of 2^24 ns, about 17 ms; a longer one counts more.
const BUCKET_SHIFT: u32 = 24;
const BUCKETS: usize = 64;

/// What a service time of each bucket leaves of the average: powers of [`KEPT`], and nothing in the last.
const WEIGHTS: [u64; BUCKETS] = {
    let mut weights = [0; BUCKETS];
    let mut bucket = 0;
    while bucket < BUCKETS - 1 {
        weights[bucket] = power(KEPT, bucket as u32 + 1);
        bucket += 1;
    }
    weights
};

/// A power in fixed point, by squares, each product rounded: the rounding is part of the rule.
const fn power(mut base: u64, mut exponent: u32) -> u64 {
    let mut result = ONE;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = rounded(result * base);
        }
        base = rounded(base * base);
        exponent >>= 1;
    }
    result
}

const fn rounded(product: u64) -> u64 {
    (product + ONE / 2) >> SHIFT
}

impl Load {
    /// A request of `bytes` goes out.
    pub fn begin(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
    }

    /// It came back.
    pub fn end(&mut self, bytes: u64) {
        self.requests -= 1;
        self.bytes -= bytes;
    }

    /// How long it took, in a group of which `usable` paths take requests: what history is made of. It is counted from when the
    /// one before it was finished.
    #[inline]
    pub fn remember(&mut self, begun_at: Instant, usable: usize, now: Instant) {
        let taken = now.0.saturating_sub(begun_at.0.max(self.finished_at.0));
        let kept = WEIGHTS[((taken >> BUCKET_SHIFT) as usize).min(BUCKETS - 1)];
        let next = taken.saturating_mul(ONE).min(u64::MAX >> SHIFT);
        self.service = rounded(self.service * kept + next * (ONE - kept));
        self.finished_at = now;
        self.stale_after = Instant(now.0.saturating_add(usable as u64 * (self.service >> SHIFT)));
    }

    /// Less is better.
    #[inline]
    fn compare_service_time(&self, other: &Load, incoming: u64) -> Ordering {
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

    /// Less is better. One of which nothing was heard for long may have become better, or worse: idle, it gets one request to find
    /// out; busy, it gets no more than the others have. Equals are not equal: the later one is taken to be better.
    #[inline]
    fn compare_history(&self, other: &Load, now: Instant) -> Ordering {
        let by_requests = self.requests.cmp(&other.requests);
        if self.service.max(other.service) == 0 {
            return by_requests;
        }
        let [mine, theirs] = [self, other].map(|load| (load.requests == 0, load.stale_after < now));
        if mine == (true, true) || theirs == (true, true) || (mine.0 && theirs.0) {
            // The idle one; of two the one that has been stale for longer.
            let stale_of = |load: &Load, counts: bool| if counts { load.stale_after.0 } else { 0 };
            return stale_of(self, theirs.0).cmp(&stale_of(other, mine.0));
        }
        let (winner_is_stale, by_cost) = match self.costs_more_than(other) {
            true => (theirs.1, Ordering::Greater),
            false => (mine.1, Ordering::Less),
        };
        if winner_is_stale { by_requests } else { by_cost }
    }

    #[inline]
    fn costs_more_than(&self, other: &Load) -> bool {
        let many = self.requests.max(other.requests) >= ONE && self.requests != other.requests;
        let cost = |load: &Load| (load.requests + 1) * (load.service >> if many { SHIFT } else { 0 });
        cost(self) > cost(other)
    }
}

/// Chooses one of `order` for a request, and moves it to the end. `members` are all paths of the group, those that take no
/// requests too, `load` what is known of each.
#[inline]
pub fn select<'a>(
    kind: SelectorKind,
    order: &mut [usize],
    members: &[usize],
    load: impl Fn(usize) -> &'a Load,
    incoming: Incoming,
) -> Option<usize> {
    if order.is_empty() {
        return None;
    }
    let chosen = match kind {
        SelectorKind::RoundRobin => 0,
        SelectorKind::QueueLength => first_least(order, |a, b| load(a).requests.cmp(&load(b).requests)),
        SelectorKind::ServiceTime => first_least(order, |a, b| load(a).compare_service_time(load(b), incoming.bytes)),
        SelectorKind::HistoricalServiceTime => {
            first_least(order, |a, b| load(a).compare_history(load(b), incoming.now))
        }
        SelectorKind::IoAffinity => return of_cpu(order, members, incoming.cpu),
    };
    let path = order[chosen];
    for at in chosen + 1..order.len() {
        order.swap(at - 1, at);
    }
    Some(path)
}

#[inline]
fn first_least(order: &[usize], compare: impl Fn(usize, usize) -> Ordering) -> usize {
    let mut best = 0;
    for at in 1..order.len() {
        if compare(order[at], order[best]).is_lt() {
            best = at;
        }
    }
    best
}

/// The path of this CPU; if it takes no requests, that of the lowest CPU of the node whose path does. There is one node.
fn of_cpu(order: &[usize], members: &[usize], cpu: usize) -> Option<usize> {
    let mine = members[cpu % members.len()];
    std::iter::once(mine).chain(members.iter().copied()).find(|path| order.contains(path))
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

    fn select_of(kind: SelectorKind, order: &mut [usize], loads: &[Load], now: Instant) -> usize {
        let members: Vec<usize> = (0..loads.len()).collect();
        select(kind, order, &members, |at| &loads[at], Incoming { bytes: 4096, cpu: 0, now }).unwrap()
    }

    fn chosen(kind: SelectorKind, loads: &[Load], times: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..loads.len()).collect();
        (0..times).map(|_| select_of(kind, &mut order, loads, Instant::START)).collect()
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
        let kind = SelectorKind::HistoricalServiceTime;
        let busy = |service| Load { service, requests: 1, finished_at: now, stale_after: now, ..Load::default() };
        assert_eq!(select_of(kind, &mut [0, 1], &[busy(900), busy(100)], now), 1);
        assert_eq!(select_of(kind, &mut [0, 1], &[busy(100), busy(100)], now), 1, "the later of two equals");
        let stale = Load { requests: 0, stale_after: Instant(5), ..busy(900) };
        assert_eq!(select_of(kind, &mut [0, 1], &[busy(100), stale], now), 1);
        let tried = Load { requests: 1, ..stale };
        assert_eq!(select_of(kind, &mut [0, 1], &[busy(100), tried], now), 0);
        let winner_of_old = Load { requests: 2, stale_after: Instant(5), ..busy(1) };
        assert_eq!(select_of(kind, &mut [0, 1], &[busy(1000), winner_of_old], now), 0, "no more than the other has");
    }

    #[test]
    fn the_average_keeps_nineteen_parts_in_twenty_and_less_the_longer_it_took() {
        let mut load = Load { service: 1000 << 10, ..Load::default() };
        load.remember(Instant::START, 4, Instant(2000));
        assert_eq!(load.service, ((1000 * 972 + 2000 * 52) << 10) >> 10);
        assert_eq!(load.stale_after, Instant(2000 + 4 * (load.service >> 10)));
        // The weights as the kernel computes them: squares rounded on the way.
        assert_eq!((WEIGHTS[0], WEIGHTS[1], WEIGHTS[62], WEIGHTS[63]), (972, 923, power(972, 63), 0));
        load.remember(Instant(2000), 4, Instant(2000 + (63 << 24)));
        assert_eq!(load.service, (63 << 24) << 10, "so long that nothing is left of what was");
    }

    #[test]
    fn a_cpu_has_its_path_and_the_path_of_the_lowest_cpu_when_that_is_gone() {
        let of = |order: &[usize], cpu| of_cpu(order, &[4, 5, 6], cpu);
        assert_eq!([0, 1, 2, 3].map(|cpu| of(&[6, 5, 4], cpu)), [Some(4), Some(5), Some(6), Some(4)]);
        assert_eq!([0, 1, 2].map(|cpu| of(&[6, 4], cpu)), [Some(4), Some(4), Some(6)]);
        assert_eq!([0, 1, 2].map(|cpu| of(&[6], cpu)), [Some(6); 3]);
    }
}
