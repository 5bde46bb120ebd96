//! Bytes to send, as the slices they were made in.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Head;

/// Slices for one system call.
pub type Slices<'a> = SmallVec<[IoSlice<'a>; 128]>;

#[derive(Debug)]
enum Segment {
    /// A header.
    Head(Head),
    /// What was read, or is to be written.
    Data(Bytes),
}

/// What is to be sent, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that were sent.
    sent: usize,
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Head(head) => head,
            Segment::Data(bytes) => bytes,
        }
    }
}

impl Outbox {
    pub(crate) fn head(&mut self, head: Head) {
        self.segments.push_back(Segment::Head(head));
    }

    pub(crate) fn data(&mut self, bytes: Bytes) {
        self.segments.push_back(Segment::Data(bytes));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many slices there are.
    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.sent = 0;
    }

    /// The first of what is to be sent.
    pub(crate) fn slices(&self) -> Slices<'_> {
        let mut skip = self.sent;
        let mut slices = Slices::new();
        for segment in self.segments.iter().take(slices.inline_size()) {
            slices.push(IoSlice::new(&segment.bytes()[std::mem::take(&mut skip)..]));
        }
        slices
    }

    /// The first `count` bytes were sent. Gives how many bytes of the volume were let go.
    pub(crate) fn sent(&mut self, count: usize) -> usize {
        self.sent += count;
        let mut released = 0;
        while let Some(first) = self.segments.front()
            && self.sent >= first.bytes().len()
        {
            self.sent -= first.bytes().len();
            if let Segment::Data(bytes) = first {
                released += bytes.len();
            }
            self.segments.pop_front();
        }
        assert!(self.sent == 0 || !self.segments.is_empty(), "{} bytes beyond the last were sent", self.sent);
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_sent_the_bytes_are_the_same_and_all_are_released() {
        for step in 1..20 {
            let mut outbox = Outbox::default();
            outbox.head(Head::from_slice(b"head"));
            outbox.data(Bytes::from_static(b"data of one"));
            outbox.data(Bytes::from_static(b"x"));
            outbox.head(Head::from_slice(b"another"));
            let (mut seen, mut released) = (Vec::new(), 0);
            while !outbox.is_empty() {
                let all: Vec<u8> = outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                let now = step.min(all.len());
                seen.extend_from_slice(&all[..now]);
                released += outbox.sent(now);
            }
            assert_eq!((&seen[..], released), (&b"headdata of onexanother"[..], 12));
        }
    }
}
