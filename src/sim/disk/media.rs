//! What stays without power.

use rangemap::RangeSet;

use crate::block::{Extent, Lba, Limits, Payload, SECTOR_BYTES, Sectors};
use crate::sim::Trace;
use crate::sim::cow::CowVec;

use super::DiskModel;

/// Bytes of media two forks share or copy together.
const PAGE_BYTES: usize = 4096;

/// The sectors of a disk: metadata with whole sectors, then data at the disk's grain.
#[derive(Clone, Debug)]
pub(super) struct Media {
    border: Lba,
    capacity: Sectors,
    grain: u32,
    metadata: CowVec<u8, PAGE_BYTES>,
    data: CowVec<u8, PAGE_BYTES>,
}

impl Media {
    pub(super) fn new(model: &DiskModel) -> Media {
        let Limits { capacity, grain, .. } = model.limits;
        assert!(model.metadata <= capacity, "{:?} of metadata on {capacity:?}", model.metadata);
        assert!(SECTOR_BYTES.is_multiple_of(u64::from(grain)), "grain {grain} does not divide a sector");
        Media {
            border: Lba(model.metadata.0),
            capacity,
            grain,
            metadata: CowVec::new(model.metadata.bytes() as usize),
            data: CowVec::new((capacity - model.metadata).at_grain(grain)),
        }
    }

    /// Whether the contents of one could be those of the other.
    pub(super) fn is_shaped_like(&self, other: &Media) -> bool {
        (self.border, self.capacity, self.grain) == (other.border, other.capacity, other.grain)
    }

    /// Bytes of each sector of `extent`, which lies in one area.
    pub(super) fn grain(&self, extent: Extent) -> u32 {
        self.native_grain(extent)
            .unwrap_or_else(|| panic!("{extent:?} lies across the end of the metadata at {:?}", self.border))
    }

    fn native_grain(&self, extent: Extent) -> Option<u32> {
        if extent.start >= self.border {
            Some(self.grain)
        } else {
            (extent.end() <= self.border).then_some(SECTOR_BYTES as u32)
        }
    }

    fn place(&self, lba: Lba) -> usize {
        if lba < self.border { lba.bytes() as usize } else { (lba - self.border).at_grain(self.grain) }
    }

    /// The part of `extent` that is metadata, and the part that is data.
    fn areas(&self, extent: Extent) -> [Extent; 2] {
        let border = self.border.clamp(extent.start, extent.end());
        [Extent::new(extent.start, border - extent.start), Extent::new(border, extent.end() - border)]
    }

    /// Fills `out` with the sectors of `extent`, `grain` bytes each.
    pub(super) fn read(&self, extent: Extent, grain: u32, out: &mut [u8]) {
        if self.native_grain(extent) == Some(grain) {
            return self.read_native(extent.start, out);
        }
        // Misdirected, out of the other area.
        for area in self.areas(extent) {
            let native = self.grain(area);
            let mut bytes = vec![0; area.length.at_grain(native)];
            self.read_native(area.start, &mut bytes);
            let at = (area.start - extent.start).at_grain(grain);
            regrain(&bytes, native, &mut out[at..at + area.length.at_grain(grain)], grain);
        }
    }

    fn read_native(&self, start: Lba, out: &mut [u8]) {
        let area = if start < self.border { &self.metadata } else { &self.data };
        area.read(self.place(start), out);
    }

    /// Stores `data`, whatever its grain; `None` is zeroes.
    pub(super) fn write(&mut self, extent: Extent, data: Option<&Payload>) {
        let Some(payload) = data else { return self.zero(extent) };
        let grain = (payload.len() as u64 / extent.length.0) as u32;
        if self.native_grain(extent) == Some(grain) {
            return self.write_native(extent.start, payload.slices());
        }
        // Misdirected, into the other area.
        let bytes = payload.clone().contiguous();
        for area in self.areas(extent) {
            let native = self.grain(area);
            let at = (area.start - extent.start).at_grain(grain);
            let mut converted = vec![0; area.length.at_grain(native)];
            regrain(&bytes[at..at + area.length.at_grain(grain)], grain, &mut converted, native);
            self.write_native(area.start, std::iter::once(&converted[..]));
        }
    }

    fn write_native<'a>(&mut self, start: Lba, slices: impl Iterator<Item = &'a [u8]>) {
        let mut at = self.place(start);
        let area = if start < self.border { &mut self.metadata } else { &mut self.data };
        for slice in slices {
            area.write(at, slice);
            at += slice.len();
        }
    }

    fn zero(&mut self, extent: Extent) {
        let [metadata, data] = self.areas(extent);
        if metadata.length > Sectors::ZERO {
            self.metadata.zero(self.place(metadata.start), metadata.length.bytes() as usize);
        }
        if data.length > Sectors::ZERO {
            self.data.zero(self.place(data.start), data.length.at_grain(self.grain));
        }
    }

    /// Adds all it holds to a hash.
    pub(super) fn fingerprint(&self, hash: &mut Trace) {
        for (place, page) in self.metadata.pages().chain(self.data.pages()) {
            hash.note(place as u64);
            hash.note_bytes(std::iter::once(page));
        }
    }

    /// Sectors of pages nobody wrote, or that were zeroed as a whole.
    pub(super) fn unwritten(&self) -> RangeSet<u64> {
        let mut unwritten = RangeSet::new();
        for (area, from, end) in [(&self.metadata, Lba(0), self.border), (&self.data, self.border, self.end())] {
            let mut at = from;
            while at < end {
                let page = self.page(at);
                if area.get(self.place(at)).is_none() {
                    unwritten.insert(page.range());
                }
                at = page.end();
            }
        }
        unwritten
    }

    /// `extent` rounded to pages.
    pub(super) fn pages(&self, extent: Extent) -> Extent {
        let start = self.page(extent.start).start;
        let last = self.page(Lba(extent.end().0 - 1));
        Extent::new(start, last.end() - start)
    }

    /// The page of one sector.
    fn page(&self, lba: Lba) -> Extent {
        let (from, end, grain) = if lba < self.border {
            (Lba(0), self.border, SECTOR_BYTES)
        } else {
            (self.border, self.end(), u64::from(self.grain))
        };
        let sectors = Sectors(PAGE_BYTES as u64 / grain);
        let start = from + (lba - from).round_down(sectors);
        Extent::new(start, sectors.min(end - start))
    }

    fn end(&self) -> Lba {
        Lba(self.capacity.0)
    }
}

/// Copies sectors of one grain to sectors of another: of a larger one the beginning is taken, a smaller one is
/// repeated, as tokens are.
pub(super) fn regrain(from: &[u8], from_grain: u32, to: &mut [u8], to_grain: u32) {
    let sectors = from.chunks_exact(from_grain as usize).zip(to.chunks_exact_mut(to_grain as usize));
    for (from, to) in sectors {
        for part in to.chunks_mut(from.len()) {
            part.copy_from_slice(&from[..part.len()]);
        }
    }
}
