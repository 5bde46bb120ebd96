//! Large counts, sampled by a seed that changes from run to run.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a story draws from. Every story draws from its own, so that one run alone sees the same
/// cases as it does among the others.
pub struct Sample {
    rng: ChaCha8Rng,
}

impl Sample {
    /// The draws of `story` under this run's seed.
    pub fn of(story: &str) -> Sample {
        let name = u64::from(crc32fast::hash(story.as_bytes()));
        Sample { rng: ChaCha8Rng::seed_from_u64(seed() ^ name << 32) }
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // 2^64 is so far above the bounds of tests that the bias is not seen.
        self.rng.next_u64() % bound
    }

    /// One of `all`, which are not none.
    pub fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// `count` of `all` in the order they are given, or all of them under `RAIDLAB_FULL=1`.
    pub fn some<T>(&mut self, count: usize, mut all: Vec<T>) -> Vec<T> {
        while !is_full() && all.len() > count {
            all.remove(self.below(all.len() as u64) as usize);
        }
        all
    }

    /// `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A seed for something that draws by itself.
    pub fn seed(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

/// How many cases to visit: `full` under `RAIDLAB_FULL=1`, otherwise `sampled`.
pub fn count(sampled: usize, full: usize) -> usize {
    if is_full() { full } else { sampled }
}

/// The seed of this run: `RAIDLAB_SEED`, or the second it began.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("RAIDLAB_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("RAIDLAB_SEED={text} is not a number")),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    })
}

/// Whether every case is to be visited.
pub fn is_full() -> bool {
    std::env::var_os("RAIDLAB_FULL").is_some_and(|value| value == "1")
}
