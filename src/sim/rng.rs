//! Chance, from one seed.
//!
//! Every component draws from a stream of its own, keyed by an id that does not change when other
//! components come or go: a step deleted from a plan then leaves the draws of the rest as they
//! were, which is what makes a failing run shrinkable.
//!
//! The generator is `SplitMix64`, one word of state: a world is cloned at every event and draws for every request. A
//! stream begins at a place in the one cycle of 2^64 that seed and stream are hashed to: that two streams of a run come
//! to the same place is as good as impossible.

use super::trace::{GOLDEN, mix};

/// One stream of draws: the same seed and stream give the same draws on every machine.
#[derive(Clone, Debug)]
pub struct Rng {
    at: u64,
}

impl Rng {
    /// Stream `stream` of `seed`.
    pub fn new(seed: u64, stream: u64) -> Rng {
        Rng { at: mix(mix(seed) ^ stream) }
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        let drawn = mix(self.at);
        self.at = self.at.wrapping_add(GOLDEN);
        drawn
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        // The high half of a product spreads evenly but for 1 part in 2^64 / bound.
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number of `range`, which is not empty.
    pub fn range(&mut self, range: std::ops::Range<u64>) -> u64 {
        assert!(range.start < range.end, "{range:?} is empty");
        range.start + self.below(range.end - range.start)
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draws = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            [rng.draw(), rng.draw(), rng.draw()]
        };
        assert_eq!(draws(7, 1), draws(7, 1));
        assert_ne!(draws(7, 1), draws(7, 2));
        assert_ne!(draws(7, 1), draws(8, 1));
    }

    #[test]
    fn every_number_below_the_bound_is_drawn_and_none_above() {
        let mut rng = Rng::new(1, 0);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[rng.below(5) as usize] += 1;
            assert!((10..12).contains(&rng.range(10..12)));
        }
        assert!(seen.iter().all(|&count| count > 150), "{seen:?}");
    }
}
