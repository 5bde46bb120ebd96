//! Bytes on their way up: exclusively owned, split and rejoined without copying.

use bytes::Bytes;
use smallvec::SmallVec;

use super::Payload;
use super::pool::Memory;

/// What a read fills. It travels down with the request and comes back with the completion. Its
/// clone copies the bytes, so that a forked world owns its own.
#[derive(Clone, Debug, Default)]
pub struct Buf {
    parts: SmallVec<[Memory; 1]>,
}

impl Buf {
    /// `length` zero bytes in one part; from a sector on, aligned to [`BUFFER_ALIGN`](super::BUFFER_ALIGN).
    pub fn zeroed(length: usize) -> Buf {
        let mut buf = Buf::stale(length);
        buf.fill(0);
        buf
    }

    /// `length` bytes of no meaning (what an earlier buffer held, or zero), to be overwritten, in one part that
    /// is, from a sector on, aligned to [`BUFFER_ALIGN`](super::BUFFER_ALIGN).
    pub fn stale(length: usize) -> Buf {
        if length == 0 {
            return Buf::default();
        }
        Buf { parts: SmallVec::from_iter([Memory::stale(length)]) }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| &**part)
    }

    /// The parts in order, to be filled.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.parts.iter_mut().map(|part| &mut **part)
    }

    /// The bytes, if they are in one part.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(&[]),
            [only] => Some(only),
            _ => None,
        }
    }

    /// The bytes, if they are in one part, to be filled.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        match self.parts.as_mut_slice() {
            [] => Some(&mut []),
            [only] => Some(only),
            _ => None,
        }
    }

    /// Keeps the first `at` bytes and gives back the rest.
    pub fn split_off(&mut self, at: usize) -> Buf {
        assert!(at <= self.len(), "split at {at} of {} bytes", self.len());
        let mut tail = Buf::default();
        let mut passed = 0;
        let mut keep = 0;
        for part in &mut self.parts {
            let length = part.len();
            if passed + length <= at {
                keep += 1;
            } else if passed < at {
                tail.parts.push(part.split_off(at - passed));
                keep += 1;
            } else {
                tail.parts.push(std::mem::take(part));
            }
            passed += length;
        }
        self.parts.truncate(keep);
        tail
    }

    /// Puts `other` behind these bytes; parts that were one before they were split are one again.
    pub fn append(&mut self, other: Buf) {
        for part in other.parts {
            match self.parts.last_mut() {
                Some(last) if last.as_ptr_range().end == part.as_ptr() => last.unsplit(part),
                _ => self.parts.push(part),
            }
        }
    }

    /// Overwrites the whole buffer with `bytes`, which must be as long.
    pub fn copy_from(&mut self, bytes: &[u8]) {
        assert_eq!(self.len(), bytes.len(), "copy of another length");
        let mut at = 0;
        for part in self.parts_mut() {
            part.copy_from_slice(&bytes[at..at + part.len()]);
            at += part.len();
        }
    }

    /// Overwrites the whole buffer with the bytes of `payload`, which must be as long.
    pub fn copy_from_payload(&mut self, payload: &Payload) {
        assert_eq!(self.len(), payload.len(), "copy of another length");
        let mut sources = payload.slices();
        let mut source: &[u8] = &[];
        for mut part in self.parts_mut() {
            while !part.is_empty() {
                if source.is_empty() {
                    source = sources.next().expect("lengths are equal");
                }
                let now = part.len().min(source.len());
                part[..now].copy_from_slice(&source[..now]);
                part = &mut part[now..];
                source = &source[now..];
            }
        }
    }

    /// Fills the buffer with `byte`.
    pub fn fill(&mut self, byte: u8) {
        for part in self.parts_mut() {
            part.fill(byte);
        }
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        for part in self.parts() {
            all.extend_from_slice(part);
        }
        all
    }

    /// Gives up the right to change the bytes: all of them in one piece, copied if they are in several parts.
    pub fn into_bytes(mut self) -> Bytes {
        match self.parts.len() {
            1 => self.parts.pop().expect("there is one").into_bytes(),
            _ => self.freeze().contiguous(),
        }
    }

    /// Gives up the right to change the bytes: what was read can now be written.
    pub fn freeze(self) -> Payload {
        self.parts.into_iter().map(Memory::into_bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BUFFER_ALIGN;

    #[test]
    fn zeroed_is_zero_whatever_was_dropped_before() {
        for length in [1, 4096, 70_000] {
            let mut buf = Buf::zeroed(length);
            buf.fill(7);
            drop(buf.freeze());
            assert!(Buf::zeroed(length).to_vec().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn split_and_rejoined_in_any_place_it_is_one_part_again() {
        let bytes: Vec<u8> = (0..255).collect();
        for at in 0..=255 {
            let mut buf = Buf::zeroed(255);
            buf.copy_from(&bytes);
            let tail = buf.split_off(at);
            assert_eq!((buf.len(), tail.len()), (at, 255 - at));
            buf.append(tail);
            assert_eq!(buf.as_slice(), Some(&bytes[..]));
        }
    }

    #[test]
    fn buffers_are_aligned_for_direct_io() {
        for length in [512, 4096, 1 << 20] {
            let buf = Buf::zeroed(length);
            assert_eq!(buf.as_slice().unwrap().as_ptr().align_offset(BUFFER_ALIGN), 0);
        }
    }

    #[test]
    fn a_payload_is_copied_across_part_borders() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut payload = Payload::copy_of(&bytes[..33]);
        payload.append(Payload::copy_of(&bytes[33..]));
        let mut buf = Buf::zeroed(10);
        buf.append(Buf::zeroed(60));
        buf.append(Buf::zeroed(30));
        buf.copy_from_payload(&payload);
        assert_eq!(buf.to_vec(), bytes);
    }
}
