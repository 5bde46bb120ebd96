//! Write-intent bitmap.
//!
//! If power fails between the data write and the parity write of a stripe, parity no longer matches
//! ("write hole"). The bitmap remembers which regions had writes in flight, so that a resync after a
//! crash visits those regions and not the whole array. It also remembers what a member that left
//! has missed, so that it can come back by copying just that.
//!
//! A bit is set and made durable *before* the first write to its region; it is cleared lazily, so a
//! set bit costs time and a wrongly cleared bit costs data.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::bitmap_super::{BITMAP_HEADER_BYTES, BitmapSuper};

/// Bytes of a page: the bitmap is written in pages, the header in the first.
pub const PAGE_BYTES: usize = 4096;

/// The bitmap as it should be, and as it is on the members.
#[derive(Clone, Debug)]
pub struct WriteIntent {
    header: BitmapSuper,
    /// As it should be: header, then bits, in whole pages.
    wanted: Vec<u8>,
    /// As the last update that was started wrote it.
    started: Vec<u8>,
    /// As it certainly is on every member.
    durable: Vec<u8>,
    changed: BTreeSet<usize>,
    flying: BTreeSet<usize>,
    writes: BTreeMap<u64, u32>,
    set: BTreeSet<u64>,
    /// Bits written to since the last call of [`WriteIntent::clear_idle`].
    touched: BTreeSet<u64>,
}

impl WriteIntent {
    /// From a header and the bits behind it as read from a member.
    pub fn new(header: BitmapSuper, bits: &[u8]) -> WriteIntent {
        let bytes = (BITMAP_HEADER_BYTES + (header.bits() as usize).div_ceil(8)).next_multiple_of(PAGE_BYTES);
        let mut wanted = vec![0; bytes];
        let length = bits.len().min(bytes - BITMAP_HEADER_BYTES);
        wanted[BITMAP_HEADER_BYTES..BITMAP_HEADER_BYTES + length].copy_from_slice(&bits[..length]);
        let is_set = |bit: u64| wanted[BITMAP_HEADER_BYTES + (bit / 8) as usize] >> (bit % 8) & 1 == 1;
        let set = (0..header.bits()).filter(|bit| is_set(*bit)).collect();
        WriteIntent {
            started: wanted.clone(),
            durable: wanted.clone(),
            wanted,
            header,
            changed: BTreeSet::new(),
            flying: BTreeSet::new(),
            writes: BTreeMap::new(),
            set,
            touched: BTreeSet::new(),
        }
    }

    /// The header.
    pub fn header(&self) -> &BitmapSuper {
        &self.header
    }

    /// Sectors of sync space a bit covers.
    pub fn region(&self) -> u64 {
        u64::from(self.header.chunk_bytes) / crate::block::SECTOR_BYTES
    }

    fn bits_of(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.region()..range.end.div_ceil(self.region())
    }

    fn place(bit: u64) -> (usize, u8) {
        (BITMAP_HEADER_BYTES + (bit / 8) as usize, 1 << (bit % 8))
    }

    /// A write to `range` of sync space is about to begin. `true`: every bit it needs is durable.
    pub fn begin_write(&mut self, range: &Range<u64>) -> bool {
        let mut safe = true;
        for bit in self.bits_of(range) {
            *self.writes.entry(bit).or_default() += 1;
            let (byte, mask) = Self::place(bit);
            self.touched.insert(bit);
            if self.wanted[byte] & mask == 0 {
                self.wanted[byte] |= mask;
                self.set.insert(bit);
                self.changed.insert(byte / PAGE_BYTES);
            }
            safe &= self.started[byte] & self.durable[byte] & mask != 0;
        }
        safe
    }

    /// A write that was begun is over.
    pub fn end_write(&mut self, range: &Range<u64>) {
        for bit in self.bits_of(range) {
            let writes = self.writes.get_mut(&bit).expect("a write that ends has begun");
            *writes -= 1;
            if *writes == 0 {
                self.writes.remove(&bit);
            }
        }
    }

    /// Clears the bits that nobody has written to since the last call, except those in `keep`.
    /// `events` is the array's count, which no member that missed a write can have. Returns whether
    /// there is anything to write out; the members must be flushed before it is.
    pub fn clear_idle(&mut self, keep: impl Fn(Range<u64>) -> bool, events: u64) -> bool {
        let touched = std::mem::take(&mut self.touched);
        let region = self.region();
        let idle: Vec<u64> = self
            .set
            .iter()
            .copied()
            .filter(|bit| !touched.contains(bit) && !self.writes.contains_key(bit))
            .filter(|bit| !keep(bit * region..(bit + 1) * region))
            .collect();
        for bit in &idle {
            let (byte, mask) = Self::place(*bit);
            self.wanted[byte] &= !mask;
            self.set.remove(bit);
            self.changed.insert(byte / PAGE_BYTES);
        }
        if !idle.is_empty() {
            self.header.events_cleared = events;
            self.changed.insert(0);
        }
        !idle.is_empty()
    }

    /// No member whose superblock is older than `events` may come back by this bitmap.
    pub fn forbid_return_before(&mut self, events: u64) {
        self.header.events_cleared = events;
        self.changed.insert(0);
    }

    /// Whether no bit is set.
    pub fn is_clear(&self) -> bool {
        self.set.is_empty()
    }

    /// The parts of sync space whose bits are set, within `size` sectors.
    pub fn dirty(&self, size: u64) -> impl Iterator<Item = Range<u64>> {
        let region = self.region();
        self.set.iter().map(move |bit| bit * region..((bit + 1) * region).min(size)).filter(|range| !range.is_empty())
    }

    /// Sets every bit: nothing is known of what was in flight.
    pub fn set_all(&mut self) {
        for bit in 0..self.header.bits() {
            let (byte, mask) = Self::place(bit);
            self.wanted[byte] |= mask;
            self.set.insert(bit);
            self.changed.insert(byte / PAGE_BYTES);
        }
    }

    /// Whether pages differ from what the last started update wrote.
    pub fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Begins an update: the pages to write to every member, by page number. `events`: the count the superblocks
    /// written with it will carry; a bitmap older than its superblock is not believed.
    pub fn start_update(&mut self, events: Option<u64>) -> Vec<(usize, Vec<u8>)> {
        assert!(self.flying.is_empty(), "one update at a time");
        if let Some(events) = events {
            self.header.events = events;
            self.changed.insert(0);
        }
        self.wanted[..BITMAP_HEADER_BYTES].copy_from_slice(&self.header.encode());
        self.flying = std::mem::take(&mut self.changed);
        let pages: Vec<_> =
            self.flying.iter().map(|page| (*page, self.wanted[page * PAGE_BYTES..][..PAGE_BYTES].to_vec())).collect();
        for (page, bytes) in &pages {
            self.started[page * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(bytes);
        }
        pages
    }

    /// The update's pages are on every member.
    pub fn finish_update(&mut self) {
        for page in std::mem::take(&mut self.flying) {
            let bytes = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
            self.durable[bytes.clone()].copy_from_slice(&self.started[bytes]);
        }
    }

    /// All pages as they should be, for a member that has none yet.
    pub fn all_pages(&mut self) -> &[u8] {
        self.wanted[..BITMAP_HEADER_BYTES].copy_from_slice(&self.header.encode());
        &self.wanted
    }
}
