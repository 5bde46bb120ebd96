//! Locks on rectangles of stripes.
//!
//! Whatever computes from several columns, or writes several, must see them agree: it holds the
//! rows it works on. First come, first served; readers share. A holder waits for no other lock, so
//! nothing can deadlock.

use std::collections::BTreeMap;
use std::ops::Range;

use smallvec::SmallVec;

use super::geometry::StripeIndex;

/// Whether a lock keeps readers out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Nobody may write meanwhile.
    Shared,
    /// Nobody else may do anything meanwhile.
    Exclusive,
}

#[derive(Clone, Debug)]
struct Entry {
    rows: Range<u64>,
    access: Access,
    band: usize,
    granted: bool,
}

impl Entry {
    fn conflicts(&self, other: &Entry) -> bool {
        let overlap = self.rows.start < other.rows.end && other.rows.start < self.rows.end;
        overlap && (self.access == Access::Exclusive || other.access == Access::Exclusive)
    }
}

/// All locks held and waited for, by stripe, in the order they were asked for.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    stripes: BTreeMap<StripeIndex, SmallVec<[Entry; 1]>>,
}

impl Locks {
    /// Asks for `rows` of a stripe in the name of `band`. `true`: held at once; otherwise
    /// [`Locks::release`] will name the band when its turn comes.
    pub fn acquire(&mut self, stripe: StripeIndex, rows: Range<u64>, access: Access, band: usize) -> bool {
        let queue = self.stripes.entry(stripe).or_default();
        let mut entry = Entry { rows, access, band, granted: false };
        entry.granted = !queue.iter().any(|earlier| earlier.conflicts(&entry));
        let granted = entry.granted;
        queue.push(entry);
        granted
    }

    /// Gives back what `band` holds, and adds the bands whose turn has come to `granted`.
    pub fn release(&mut self, stripe: StripeIndex, band: usize, granted: &mut impl Extend<usize>) {
        let queue = self.stripes.get_mut(&stripe).expect("a lock that is released is held");
        let at = queue.iter().position(|entry| entry.band == band).expect("a lock that is released is held");
        assert!(queue[at].granted, "band {band} releases a lock it waits for");
        queue.remove(at);
        if queue.is_empty() {
            self.stripes.remove(&stripe);
            return;
        }
        for waiting in 0..queue.len() {
            if !queue[waiting].granted && !queue[..waiting].iter().any(|earlier| earlier.conflicts(&queue[waiting])) {
                queue[waiting].granted = true;
                granted.extend([queue[waiting].band]);
            }
        }
    }

    /// Whether nothing is held or waited for in a stripe.
    #[inline]
    pub fn is_free(&self, stripe: StripeIndex) -> bool {
        self.stripes.is_empty() || !self.stripes.contains_key(&stripe)
    }

    /// Whether nothing is held or waited for.
    pub fn is_idle(&self) -> bool {
        self.stripes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_wait_for_readers_and_later_readers_wait_for_the_writer() {
        let mut locks = Locks::default();
        let stripe = StripeIndex(3);
        assert!(locks.acquire(stripe, 0..8, Access::Shared, 1));
        assert!(locks.acquire(stripe, 4..12, Access::Shared, 2));
        assert!(!locks.acquire(stripe, 6..7, Access::Exclusive, 3));
        assert!(!locks.acquire(stripe, 6..8, Access::Shared, 4));
        assert!(locks.acquire(stripe, 8..12, Access::Shared, 5));
        assert!(locks.acquire(StripeIndex(4), 0..128, Access::Exclusive, 6));
        let mut granted: Vec<usize> = Vec::new();
        locks.release(stripe, 1, &mut granted);
        assert!(granted.is_empty());
        locks.release(stripe, 2, &mut granted);
        assert_eq!(granted, [3]);
        locks.release(stripe, 3, &mut granted);
        assert_eq!(granted, [3, 4]);
    }
}
