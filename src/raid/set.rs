//! Small sets: which slots of an array, which columns or chunks of a stripe.

use std::fmt;
use std::marker::PhantomData;

/// A set of numbers below 64, the most members an array has. `T` only says what is numbered.
pub struct Set64<T> {
    bits: u64,
    of: PhantomData<fn() -> T>,
}

/// What a [`SlotSet`] numbers: positions in the array.
#[derive(Clone, Copy)]
pub enum OfSlots {}
/// What a [`ColumnSet`] numbers: the columns of one stripe, in the order its geometry lists them.
#[derive(Clone, Copy)]
pub enum OfColumns {}
/// What a [`ChunkSet`] numbers: the data chunks of one stripe, in array order.
#[derive(Clone, Copy)]
pub enum OfChunks {}

/// Positions in the array.
pub type SlotSet = Set64<OfSlots>;
/// Columns of one stripe.
pub type ColumnSet = Set64<OfColumns>;
/// Data chunks of one stripe.
pub type ChunkSet = Set64<OfChunks>;

impl<T> Set64<T> {
    /// Nothing.
    pub const EMPTY: Set64<T> = Set64 { bits: 0, of: PhantomData };

    /// `0..count`.
    pub fn first(count: usize) -> Set64<T> {
        assert!(count <= 64, "{count} members, 64 at most");
        Self::from_bits(if count == 64 { u64::MAX } else { (1 << count) - 1 })
    }

    /// `range.start..range.end`.
    pub fn range(range: std::ops::Range<usize>) -> Set64<T> {
        Self::first(range.end) - Self::first(range.start)
    }

    /// Only `member`.
    pub fn only(member: usize) -> Set64<T> {
        assert!(member < 64, "{member} is not below 64");
        Self::from_bits(1 << member)
    }

    /// The set whose member `i` is bit `i`.
    pub const fn from_bits(bits: u64) -> Set64<T> {
        Set64 { bits, of: PhantomData }
    }

    /// Bit `i` is member `i`.
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// Adds one.
    pub fn insert(&mut self, member: usize) {
        *self = *self | Self::only(member);
    }

    /// Takes one out.
    pub fn remove(&mut self, member: usize) {
        *self = *self - Self::only(member);
    }

    /// Whether it is in.
    pub fn contains(self, member: usize) -> bool {
        member < 64 && self.bits >> member & 1 == 1
    }

    /// Whether every member of `other` is in.
    pub fn contains_all(self, other: Set64<T>) -> bool {
        other.bits & !self.bits == 0
    }

    /// Whether nothing is in.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// How many are in.
    pub fn len(self) -> usize {
        self.bits.count_ones() as usize
    }

    /// The lowest.
    pub fn lowest(self) -> Option<usize> {
        (self.bits != 0).then(|| self.bits.trailing_zeros() as usize)
    }

    /// The members, rising.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        let mut bits = self.bits;
        std::iter::from_fn(move || {
            let lowest = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(lowest)
        })
    }

    /// Every subset, the empty one first.
    pub fn subsets(self) -> impl Iterator<Item = Set64<T>> {
        let mut next = Some(0_u64);
        std::iter::from_fn(move || {
            let bits = next?;
            let following = bits.wrapping_sub(self.bits) & self.bits;
            next = (following != 0).then_some(following);
            Some(Self::from_bits(bits))
        })
    }
}

impl<T> Clone for Set64<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Set64<T> {}
impl<T> PartialEq for Set64<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bits == other.bits
    }
}
impl<T> Eq for Set64<T> {}
impl<T> Default for Set64<T> {
    fn default() -> Self {
        Self::EMPTY
    }
}
impl<T> std::ops::BitOr for Set64<T> {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self::from_bits(self.bits | other.bits)
    }
}
impl<T> std::ops::BitAnd for Set64<T> {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self::from_bits(self.bits & other.bits)
    }
}
impl<T> std::ops::Sub for Set64<T> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::from_bits(self.bits & !other.bits)
    }
}
impl<T> FromIterator<usize> for Set64<T> {
    fn from_iter<I: IntoIterator<Item = usize>>(members: I) -> Self {
        members.into_iter().fold(Self::EMPTY, |set, member| set | Self::only(member))
    }
}
impl<T> fmt::Debug for Set64<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subsets_of_a_set_are_all_and_only_its_subsets() {
        let set = SlotSet::from_iter([1, 4, 63]);
        let subsets: Vec<_> = set.subsets().collect();
        assert_eq!(subsets.len(), 8);
        assert!(subsets.iter().all(|s| set.contains_all(*s)));
        assert_eq!(SlotSet::EMPTY.subsets().count(), 1);
    }

    #[test]
    fn ranges_reach_the_last_member() {
        assert_eq!(ChunkSet::first(64).len(), 64);
        assert_eq!(ChunkSet::range(62..64).iter().collect::<Vec<_>>(), [62, 63]);
    }
}
