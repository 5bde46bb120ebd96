//! Memory for buffers, used again.
//!
//! An array asks for buffers for every band and drops them a moment later. An allocator gives memory
//! of that size back to the kernel, which hands it out zeroed, page by page, at the next touch: that
//! costs more than the copy the buffer was for. So every thread keeps some of what it dropped, and what
//! it has no room for is there for all: a front end's threads ask for what the reactor's thread drops. Sizes
//! are powers of two, so that one shape of request finds what another left.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use super::{BUFFER_ALIGN, SECTOR_BYTES};

/// Memory of a larger class is not kept, in bytes.
const LARGEST: usize = 4 << 20;

/// What a thread keeps at the most, in bytes.
const OWN_MAX: usize = 2 << 20;

/// What is kept for all threads at the most, in bytes.
const SHARED_MAX: usize = 32 << 20;

/// Powers of two from [`BUFFER_ALIGN`] to [`LARGEST`].
const CLASSES: usize = (LARGEST / BUFFER_ALIGN).ilog2() as usize + 1;

/// Bytes in one piece. Dropped, it is kept for the next who asks; a piece of it is not, because it
/// would hold the whole.
#[derive(Debug, Default)]
pub(super) struct Memory {
    bytes: BytesMut,
    /// The capacity it began with; 0 for what is never kept.
    room: usize,
}

impl Memory {
    /// `length` bytes of no meaning, aligned to [`BUFFER_ALIGN`]; less than a sector, which no device sees, are not.
    pub(super) fn stale(length: usize) -> Memory {
        if length < SECTOR_BYTES as usize {
            // At multiples of a page they would all fall into the same lines of a cache.
            return Memory { bytes: BytesMut::zeroed(length), room: 0 };
        }
        let class_bytes = length.next_power_of_two().max(BUFFER_ALIGN);
        let mut memory = class_of(class_bytes).and_then(kept).unwrap_or_else(|| Memory::fresh(class_bytes));
        memory.bytes.resize(length, 0);
        memory
    }

    /// The bytes, for good.
    pub(super) fn into_bytes(mut self) -> Bytes {
        if self.room == 0 { std::mem::take(&mut self.bytes).freeze() } else { Bytes::from_owner(self) }
    }

    fn fresh(length: usize) -> Memory {
        let mut whole = BytesMut::zeroed(length + BUFFER_ALIGN);
        let skip = whole.as_ptr().align_offset(BUFFER_ALIGN);
        let bytes = whole.split_off(skip);
        Memory { room: bytes.capacity(), bytes }
    }

    /// Keeps the first `at` bytes and gives back the rest.
    pub(super) fn split_off(&mut self, at: usize) -> Memory {
        Memory { bytes: self.bytes.split_off(at), room: 0 }
    }

    /// Takes back what was split off.
    pub(super) fn unsplit(&mut self, mut tail: Memory) {
        self.bytes.unsplit(std::mem::take(&mut tail.bytes));
    }
}

impl Clone for Memory {
    fn clone(&self) -> Memory {
        let mut copy = Memory::stale(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // The power of two that fits: the alignment left a rest.
        if self.room == 0 || self.bytes.capacity() != self.room {
            return;
        }
        if let Some(class) = class_of(1 << self.room.ilog2()) {
            keep(class, Memory { bytes: std::mem::take(&mut self.bytes), room: self.room });
        }
    }
}

struct Pool {
    classes: [Vec<Memory>; CLASSES],
    kept: usize,
    kept_max: usize,
}

impl Pool {
    const fn new(kept_max: usize) -> Pool {
        Pool { classes: [const { Vec::new() }; CLASSES], kept: 0, kept_max }
    }

    fn take(&mut self, class: usize) -> Option<Memory> {
        let memory = self.classes[class].pop()?;
        self.kept -= bytes_of(class);
        Some(memory)
    }

    /// Gives it back if there is no room.
    fn put(&mut self, class: usize, memory: Memory) -> Option<Memory> {
        if self.kept + bytes_of(class) > self.kept_max {
            return Some(memory);
        }
        self.kept += bytes_of(class);
        self.classes[class].push(memory);
        None
    }
}

thread_local! {
    static OWN: RefCell<Pool> = const { RefCell::new(Pool::new(OWN_MAX)) };
}

static SHARED: Mutex<Pool> = Mutex::new(Pool::new(SHARED_MAX));

fn class_of(class_bytes: usize) -> Option<usize> {
    (class_bytes <= LARGEST).then(|| (class_bytes / BUFFER_ALIGN).ilog2() as usize)
}

fn bytes_of(class: usize) -> usize {
    BUFFER_ALIGN << class
}

fn kept(class: usize) -> Option<Memory> {
    // A thread that is ending has no pool of its own any more.
    let own = OWN.try_with(|pool| pool.borrow_mut().take(class)).ok().flatten();
    own.or_else(|| SHARED.lock().unwrap_or_else(PoisonError::into_inner).take(class))
}

fn keep(class: usize, memory: Memory) {
    let mut memory = Some(memory);
    let _ = OWN.try_with(|pool| memory = pool.borrow_mut().put(class, memory.take().expect("it is offered once")));
    let Some(memory) = memory else { return };
    if let Some(mut memory) = SHARED.lock().unwrap_or_else(PoisonError::into_inner).put(class, memory) {
        // What found no room is let go, not kept.
        memory.room = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_bytes() -> usize {
        OWN.with_borrow(|pool| pool.kept)
    }

    #[test]
    fn what_was_dropped_is_used_again_and_still_aligned() {
        for length in [512, 4096, 4097, 65536, 1 << 20] {
            let memory = Memory::stale(length);
            let place = memory.as_ptr();
            drop(memory);
            let again = Memory::stale(length);
            assert_eq!((again.as_ptr(), again.len()), (place, length));
            assert_eq!(place.align_offset(BUFFER_ALIGN), 0);
        }
    }

    #[test]
    fn a_pool_keeps_a_bounded_amount_and_gives_back_the_rest() {
        let class = class_of(LARGEST).unwrap();
        let mut pool = Pool::new(3 * LARGEST);
        let refused = (0..5).filter(|_| pool.put(class, Memory::fresh(LARGEST)).is_some()).count();
        assert_eq!((pool.kept, refused), (3 * LARGEST, 2));
        assert!(pool.take(class).is_some());
        assert_eq!(pool.kept, 2 * LARGEST);
        assert!(pool.take(0).is_none());
    }

    #[test]
    fn a_thread_keeps_little_for_itself_alone() {
        drop((0..20).map(|_| Memory::stale(OWN_MAX / 4)).collect::<Vec<_>>());
        assert_eq!(kept_bytes(), OWN_MAX);
        assert!(SHARED.lock().unwrap().kept <= SHARED_MAX);
    }

    #[test]
    fn a_piece_is_not_kept_and_the_whole_is_once_it_is_whole_again() {
        let mut whole = Memory::stale(8192);
        let tail = whole.split_off(4096);
        drop(whole);
        drop(tail);
        assert_eq!(kept_bytes(), 0);
        let mut whole = Memory::stale(8192);
        let tail = whole.split_off(4096);
        whole.unsplit(tail);
        drop(whole);
        assert_eq!(kept_bytes(), 8192);
    }
}
