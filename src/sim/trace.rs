//! A rolling hash of what happened: two runs of one seed must agree on it.

/// The hash so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trace(pub u64);

impl Trace {
    /// Adds one fact.
    pub fn note(&mut self, fact: u64) {
        self.0 = mix(self.0.rotate_left(5) ^ fact);
    }

    /// Adds several facts that come together.
    pub fn note_all<const N: usize>(&mut self, facts: [u64; N]) {
        // Sums of products by odd numbers of their own need not wait for each other, as rounds of `mix` do.
        let mut factor = FACTOR;
        let sum = facts.into_iter().fold(0_u64, |sum, fact| {
            factor = factor.wrapping_mul(FACTOR);
            sum.wrapping_add((fact ^ (fact >> 32)).wrapping_mul(factor))
        });
        self.note(sum);
    }

    /// Adds the check value of some bytes.
    pub fn note_bytes<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) {
        let mut crc = crc32fast::Hasher::new();
        slices.for_each(|slice| crc.update(slice));
        self.note(u64::from(crc.finalize()));
    }
}

/// The multiplier of Knuth's MMIX generator: odd, and no pattern in its bits.
const FACTOR: u64 = 0x5851_f42d_4c95_7f2d;

/// The step of `SplitMix64`: 2^64 over the golden ratio.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): every input bit reaches every output bit.
pub(super) fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(GOLDEN);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
