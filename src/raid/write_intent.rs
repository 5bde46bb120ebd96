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

use super::bitmap_super::{BitmapHeader, BitmapImage};

/// The bitmap as it should be, and as it is on the members.
#[derive(Clone, Debug)]
pub struct WriteIntent {
    /// As it should be.
    wanted: BitmapImage,
    /// As the last update that was started wrote it.
    started: BitmapImage,
    /// As it certainly is on every member.
    durable: BitmapImage,
    changed: BTreeSet<usize>,
    flying: bool,
    writes: BTreeMap<u64, u32>,
    set: BTreeSet<u64>,
    /// Bits written to since the last call of [`WriteIntent::clear_idle`].
    touched: BTreeSet<u64>,
}

impl WriteIntent {
    /// From the bitmap as read from a member.
    pub fn new(image: BitmapImage) -> WriteIntent {
        WriteIntent {
            set: image.iter_set().collect(),
            started: image.clone(),
            durable: image.clone(),
            wanted: image,
            changed: BTreeSet::new(),
            flying: false,
            writes: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }

    /// The header.
    pub fn header(&self) -> &BitmapHeader {
        &self.wanted.header
    }

    fn bits_of(&self, range: &Range<u64>) -> Range<u64> {
        let region = self.header().chunk.0;
        range.start / region..range.end.div_ceil(region)
    }

    /// A write to `range` of sync space is about to begin. `true`: every bit it needs is durable.
    pub fn begin_write(&mut self, range: &Range<u64>) -> bool {
        let mut safe = true;
        for bit in self.bits_of(range) {
            *self.writes.entry(bit).or_default() += 1;
            self.touched.insert(bit);
            if let Some(page) = self.wanted.set(bit, true) {
                self.set.insert(bit);
                self.changed.insert(page);
            }
            safe &= self.started.get(bit) && self.durable.get(bit);
        }
        safe
    }

    /// Whether a bit of `range` that is set on the members is being cleared by an update under way.
    pub fn is_clearing(&self, range: &Range<u64>) -> bool {
        self.flying && self.bits_of(range).any(|bit| self.durable.get(bit) && !self.started.get(bit))
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
        let region = self.header().chunk.0;
        let idle: Vec<u64> = self
            .set
            .iter()
            .copied()
            .filter(|bit| !touched.contains(bit) && !self.writes.contains_key(bit))
            .filter(|bit| !keep(bit * region..(bit + 1) * region))
            .collect();
        for bit in &idle {
            self.set.remove(bit);
            self.changed.extend(self.wanted.set(*bit, false));
        }
        if !idle.is_empty() {
            self.forbid_return_before(events);
        }
        !idle.is_empty()
    }

    /// No member whose superblock is older than `events` may come back by this bitmap.
    pub fn forbid_return_before(&mut self, events: u64) {
        self.wanted.header.events_cleared = events;
        self.changed.insert(0);
    }

    /// Whether no bit is set.
    pub fn is_clear(&self) -> bool {
        self.set.is_empty()
    }

    /// The parts of sync space whose bits are set.
    pub fn dirty(&self) -> impl Iterator<Item = Range<u64>> {
        let (region, size) = (self.header().chunk.0, self.header().sync_size.0);
        self.set.iter().map(move |bit| bit * region..((bit + 1) * region).min(size))
    }

    /// Sets every bit: nothing is known of what was in flight.
    pub fn set_all(&mut self) {
        for bit in 0..self.wanted.len() {
            self.changed.extend(self.wanted.set(bit, true));
            self.set.insert(bit);
        }
    }

    /// Begins an update: the pages to write to every member, by page number. `events`: the count the superblocks
    /// written with it will carry; a bitmap older than its superblock is not believed.
    pub fn start_update(&mut self, events: Option<u64>) -> Vec<(usize, Vec<u8>)> {
        assert!(!self.flying, "one update at a time");
        if let Some(events) = events {
            self.wanted.header.events = events;
            self.changed.insert(0);
        }
        self.flying = true;
        let pages: Vec<_> =
            std::mem::take(&mut self.changed).into_iter().map(|page| (page, self.wanted.page(page))).collect();
        if !pages.is_empty() {
            self.started = self.wanted.clone();
        }
        pages
    }

    /// The update's pages are on every member; or not on `all`, and the next update will say who does not count.
    pub fn finish_update(&mut self, all: bool) {
        assert!(self.flying, "an update that ends has begun");
        self.flying = false;
        if all && self.durable != self.started {
            self.durable = self.started.clone();
        }
    }

    /// Nothing of the update was written: bits it would have cleared stay set, and its `pages` are to be written yet.
    pub fn abandon_update(&mut self, pages: impl Iterator<Item = usize>) {
        assert!(self.flying, "an update that ends has begun");
        self.flying = false;
        self.started = self.durable.clone();
        self.changed.extend(pages);
        let still_set: Vec<u64> = self.durable.iter_set().filter(|bit| !self.wanted.get(*bit)).collect();
        for bit in still_set {
            self.changed.extend(self.wanted.set(bit, true));
            self.set.insert(bit);
        }
    }

    /// Every page as the last started update left it, for a member that joins.
    pub fn all_pages(&self) -> Vec<(usize, Vec<u8>)> {
        (0..self.started.pages()).map(|page| (page, self.started.page(page))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Sectors;
    use crate::raid::superblock::SetUuid;

    fn blank(regions: u64) -> WriteIntent {
        let mut image = BitmapImage::all_set(BitmapHeader::new(SetUuid([1; 16]), Sectors(regions * 8), Sectors(8)));
        image.set_all(false);
        WriteIntent::new(image)
    }

    #[test]
    fn a_write_waits_until_its_bit_is_on_the_members() {
        let mut intent = blank(100);
        assert!(!intent.begin_write(&(12..20)));
        assert_eq!(intent.dirty().collect::<Vec<_>>(), [8..16, 16..24]);
        intent.start_update(None);
        assert!(!intent.begin_write(&(12..13)), "not before the update is done");
        intent.finish_update(true);
        assert!(intent.begin_write(&(12..20)));
    }

    /// The daemon clears a bit, a write to its region comes while the cleared page is on its way.
    #[test]
    fn a_bit_that_is_being_cleared_is_not_safe() {
        let mut intent = blank(100);
        intent.begin_write(&(0..8));
        intent.start_update(None);
        intent.finish_update(true);
        intent.end_write(&(0..8));
        assert!(!intent.clear_idle(|_| false, 7), "written to since the daemon last came");
        assert!(intent.clear_idle(|_| false, 7));
        let mut early = intent.clone();
        assert!(early.begin_write(&(0..8)), "the page has not left: the bit on the members stays");

        intent.start_update(None);
        assert!(!intent.begin_write(&(0..8)));
        intent.finish_update(true);
        assert!(!intent.begin_write(&(0..8)));
        intent.start_update(None);
        intent.finish_update(true);
        assert!(intent.begin_write(&(0..8)));
        assert_eq!(intent.header().events_cleared, 7);
    }
}
