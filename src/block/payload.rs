//! Bytes on their way down: immutable, reference-counted, cheap to clone and to cut.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{BUFFER_ALIGN, Buf};

/// What a write carries. Clones and cuts share the bytes, so a mirror's copies, the pieces of a
/// strided write, a retry and a forked world copy nothing.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    slices: SmallVec<[Bytes; 1]>,
}

#[repr(align(4096))]
struct ZeroBlock([u8; 64 << 10]);
static ZERO_BLOCK: ZeroBlock = ZeroBlock([0; 64 << 10]);
const _: () = assert!(std::mem::align_of::<ZeroBlock>() == BUFFER_ALIGN);

impl Payload {
    /// `length` zero bytes, all in one shared block.
    pub fn zeroes(length: usize) -> Payload {
        let mut slices = SmallVec::new();
        let mut left = length;
        while left > 0 {
            let now = left.min(ZERO_BLOCK.0.len());
            slices.push(Bytes::from_static(&ZERO_BLOCK.0[..now]));
            left -= now;
        }
        Payload { slices }
    }

    /// A copy of `bytes`, aligned.
    pub fn copy_of(bytes: &[u8]) -> Payload {
        let mut buf = Buf::stale(bytes.len());
        buf.copy_from(bytes);
        buf.freeze()
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.slices.iter().all(Bytes::is_empty)
    }

    /// The slices in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.slices.iter().map(Bytes::as_ref)
    }

    /// The slices in order, given away.
    pub fn into_slices(self) -> impl Iterator<Item = Bytes> {
        self.slices.into_iter()
    }

    /// The bytes of `range`, shared.
    pub fn cut(&self, range: Range<usize>) -> Payload {
        assert!(range.end <= self.len(), "{range:?} beyond {} bytes", self.len());
        let mut slices = SmallVec::new();
        let mut at = 0;
        for slice in &self.slices {
            let (from, to) = (range.start.max(at), range.end.min(at + slice.len()));
            if from < to {
                slices.push(slice.slice(from - at..to - at));
            }
            at += slice.len();
        }
        Payload { slices }
    }

    /// The bytes of `other` behind these, shared.
    pub fn append(&mut self, other: Payload) {
        self.slices.extend(other.slices);
    }

    /// The same bytes in one slice: shared where they are already, copied where not.
    pub fn contiguous(mut self) -> Bytes {
        match self.slices.len() {
            0 => Bytes::new(),
            1 => self.slices.swap_remove(0),
            _ => {
                let mut buf = Buf::stale(self.len());
                buf.copy_from_payload(&self);
                buf.freeze().slices.swap_remove(0)
            }
        }
    }

    /// Copies as many bytes as fit into `out`, from byte `from` on.
    pub fn copy_to(&self, from: usize, mut out: &mut [u8]) {
        let mut skip = from;
        for slice in &self.slices {
            let there = slice.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(slice.len());
            let (now, rest) = out.split_at_mut(there.len().min(out.len()));
            now.copy_from_slice(&there[..now.len()]);
            out = rest;
        }
        assert!(out.is_empty(), "{} bytes beyond the end of {}", out.len(), self.len());
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        for slice in self.slices() {
            all.extend_from_slice(slice);
        }
        all
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        Payload { slices: SmallVec::from_iter([bytes]) }
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(slices: I) -> Payload {
        Payload { slices: slices.into_iter().collect() }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.len() == other.len() && self.slices().flatten().eq(other.slices().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_the_bytes_of_its_range_whatever_the_slices() {
        let bytes: Vec<u8> = (0..200).collect();
        let mut payload = Payload::copy_of(&bytes[..70]);
        payload.append(Payload::copy_of(&bytes[70..71]));
        payload.append(Payload::copy_of(&bytes[71..]));
        for from in 0..200 {
            for to in from..=200 {
                assert_eq!(payload.cut(from..to).to_vec(), bytes[from..to]);
                let mut copy = vec![0; to - from];
                payload.copy_to(from, &mut copy);
                assert_eq!(copy, bytes[from..to]);
            }
        }
        assert_eq!(&payload.contiguous()[..], &bytes[..]);
    }

    #[test]
    fn zeroes_of_any_length_are_zero() {
        for length in [0, 1, 512, 65536, 65537, 200_000] {
            assert_eq!(Payload::zeroes(length).to_vec(), vec![0; length]);
        }
    }
}
