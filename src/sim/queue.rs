//! What is due when.
//!
//! A heap moves its elements about whenever one comes or goes, and a request with its buffer is large. So the heap holds
//! moments and places, and the requests lie still.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

use crate::block::Instant;

/// `T`s in the order they are due; of those due together, the one that came first is first.
#[derive(Clone, Debug)]
pub(super) struct Queue<T> {
    order: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    items: Slab<T>,
    pushed: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { order: BinaryHeap::new(), items: Slab::new(), pushed: 0 }
    }
}

impl<T> Queue<T> {
    /// Adds `item`, due at `due`.
    pub(super) fn push(&mut self, due: Instant, item: T) {
        let at = self.items.insert(item);
        self.order.push(Reverse((due, self.pushed, at)));
        self.pushed += 1;
    }

    /// When the first one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((due, ..))| *due)
    }

    /// The first one, if it is due by `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse((_, _, at)) = self.order.pop().expect("it was just seen");
        Some(self.items.remove(at))
    }

    /// All of them, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(_, item)| item)
    }

    /// All of them, in the order they came.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        let mut order: Vec<(u64, usize)> = self.order.drain().map(|Reverse((_, pushed, at))| (pushed, at)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, at)| self.items.remove(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_due_is_first_and_of_those_the_first_to_come() {
        let mut queue = Queue::default();
        for (due, name) in [(7, "b"), (5, "a"), (7, "c"), (9, "d")] {
            queue.push(Instant(due), name);
        }
        let mut copy = queue.clone();
        assert_eq!(queue.pop_due(Instant(4)), None);
        let all: Vec<_> = std::iter::from_fn(|| queue.pop_due(Instant(9))).collect();
        assert_eq!(all, ["a", "b", "c", "d"]);
        assert_eq!(copy.take_all(), ["b", "a", "c", "d"]);
        assert_eq!(copy.next_due(), None);
    }
}
