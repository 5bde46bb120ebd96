//! How fast requests that lost their path may go down others: a token bucket.
//!
//! After a failover all that was under way on the lost path, and all that waited meanwhile, would fall upon the survivors at once.

use std::collections::VecDeque;
use std::time::Duration;

use crate::block::{Instant, Request};

/// The bucket holds what flows in during this time.
const BURST: Duration = Duration::from_millis(10);

/// Requests that wait for their turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    waiting: VecDeque<(usize, Request)>,
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Pace {
    /// The request, if it may go at once; if not, it waits. `rate` is in requests a second; 0: all may go.
    pub(super) fn admit(&mut self, key: usize, request: Request, rate: u32, now: Instant) -> Option<Request> {
        if rate == 0 || self.waiting.is_empty() && self.takes(rate, now) {
            return Some(request);
        }
        self.waiting.push_back((key, request));
        None
    }

    /// The next request whose turn it is.
    pub(super) fn next(&mut self, rate: u32, now: Instant) -> Option<(usize, Request)> {
        if self.waiting.is_empty() || !self.takes(rate, now) {
            return None;
        }
        self.waiting.pop_front()
    }

    /// When it is somebody's turn.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| Instant(self.full_at.0.saturating_sub(BURST.as_nanos() as u64)))
    }

    /// Takes a token, if there is one.
    fn takes(&mut self, rate: u32, now: Instant) -> bool {
        let is_there = self.full_at <= now + BURST;
        if is_there {
            self.full_at = self.full_at.max(now) + Duration::from_secs(1) / rate.max(1);
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RequestId;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let mut pace = Pace::default();
        let start = Instant(5_000_000_000);
        let at_once = (0..100).filter(|key| pace.admit(*key, Request::flush(RequestId(1)), 1000, start).is_some());
        assert_eq!(at_once.count(), 11, "what a hundredth of a second brings, and one");
        let mut times = Vec::new();
        while let Some(due) = pace.due() {
            let (key, _) = pace.next(1000, due).expect("it is its turn");
            assert!(pace.next(1000, due).is_none());
            assert_eq!(key, times.len() + 11);
            times.push(due.since(start));
        }
        assert_eq!(times.len(), 89);
        assert_eq!(times[88], Duration::from_millis(89));
        assert!(pace.admit(0, Request::flush(RequestId(1)), 0, start).is_some(), "without a rate nothing waits");
    }
}
