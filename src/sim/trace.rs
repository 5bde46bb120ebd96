//! A rolling hash of what happened: two runs of one seed must agree on it.

/// The hash so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trace(pub u64);

impl Trace {
    /// Adds one fact.
    pub fn note(&mut self, fact: u64) {
        self.0 = mix(self.0.rotate_left(5) ^ fact);
    }

    /// Adds the check value of some bytes.
    pub fn note_bytes<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) {
        let mut crc = crc32fast::Hasher::new();
        slices.for_each(|slice| crc.update(slice));
        self.note(u64::from(crc.finalize()));
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): every input bit reaches every output bit.
pub(super) fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
