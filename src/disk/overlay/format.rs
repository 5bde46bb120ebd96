//! The bytes of an overlay file: where things are, and what each looks like.

use crate::block::{Extent, Lba, SECTOR_BYTES, Sectors};

/// Bytes of a header and of a page of the map: what the page cache writes as one.
pub(super) const PAGE_BYTES: usize = 4096;

/// Sectors one page of the map speaks for.
pub(super) const PAGE_SECTORS: u64 = (PAGE_BYTES - PAGE_HEAD_BYTES) as u64 * 8;

/// Bytes of the log in a new overlay: room for 16 thousand writes of 4 KiB between two flushes.
pub(super) const LOG_BYTES: u64 = 1 << 20;

const MAGIC: [u8; 16] = *b"raidlab overlay\n";
const VERSION: u32 = 1;
const PAGE_MAGIC: [u8; 4] = *b"ovmp";
const PAGE_HEAD_BYTES: usize = 16;
const RECORD_HEAD_BYTES: usize = 24;
const RECORD_DATA: u32 = 1;
const RECORD_ZEROES: u32 = 2;

/// Where the areas of an overlay file begin, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) capacity: Sectors,
    pub(super) log_bytes: u64,
}

impl Layout {
    pub(super) const LOG: u64 = 2 * PAGE_BYTES as u64;

    pub(super) const fn header(copy: usize) -> u64 {
        (copy * PAGE_BYTES) as u64
    }

    pub(super) const fn log_end(self) -> u64 {
        Self::LOG + self.log_bytes
    }

    pub(super) const fn pages(self) -> u64 {
        self.capacity.0.div_ceil(PAGE_SECTORS)
    }

    pub(super) const fn map(self, copy: usize) -> u64 {
        self.log_end() + copy as u64 * self.pages() * PAGE_BYTES as u64
    }

    pub(super) const fn page(self, copy: usize, page: u64) -> u64 {
        self.map(copy) + page * PAGE_BYTES as u64
    }

    pub(super) const fn data(self, lba: Lba) -> u64 {
        self.map(2) + lba.bytes()
    }

    /// Length of the file.
    pub(super) const fn file_bytes(self) -> u64 {
        self.map(2) + self.capacity.bytes()
    }
}

/// What an overlay remembers of its original, to know it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint {
    pub(super) bytes: u64,
    /// CRC-32 of the first 64 KiB.
    pub(super) head_crc32: u32,
    /// Nanoseconds since 1970 of the last change; 0 for a block device, which keeps no such time.
    pub(super) modified_ns: i128,
}

/// What an overlay is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To keep what was written.
    Keep,
    /// To be copied into the original, which may hold some of it already.
    Commit,
}

/// The header of an overlay file. Little-endian, the rest of its page is zero:
///
/// ```text
///  0        4         8                          24           32          36        40              56          64     4096
///  | crc32  | version | magic "raidlab overlay\n" | original's | CRC-32 of | purpose | modified, ns  | log bytes  | 0 ... |
///  | of 4.. |    1    |                           | bytes      | its head  |  0 / 1  | (128 bits)    |            |       |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) original: Fingerprint,
    pub(super) purpose: Purpose,
    pub(super) log_bytes: u64,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderFault {
    Foreign,
    Version(u32),
    Damaged,
}

impl Header {
    pub(super) fn layout(&self) -> Layout {
        Layout { capacity: Sectors::floor_bytes(self.original.bytes), log_bytes: self.log_bytes }
    }

    pub(super) fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        page[4..8].copy_from_slice(&VERSION.to_le_bytes());
        page[8..24].copy_from_slice(&MAGIC);
        page[24..32].copy_from_slice(&self.original.bytes.to_le_bytes());
        page[32..36].copy_from_slice(&self.original.head_crc32.to_le_bytes());
        page[36] = u8::from(self.purpose == Purpose::Commit);
        page[40..56].copy_from_slice(&self.original.modified_ns.to_le_bytes());
        page[56..64].copy_from_slice(&self.log_bytes.to_le_bytes());
        seal(&mut page);
        page
    }

    pub(super) fn decode(page: &[u8; PAGE_BYTES]) -> Result<Header, HeaderFault> {
        if page[8..24] != MAGIC {
            return Err(HeaderFault::Foreign);
        }
        if !is_sealed(page) {
            return Err(HeaderFault::Damaged);
        }
        if u32_at(page, 4) != VERSION {
            return Err(HeaderFault::Version(u32_at(page, 4)));
        }
        let purpose = match u32_at(page, 36) {
            0 => Purpose::Keep,
            1 => Purpose::Commit,
            _ => return Err(HeaderFault::Damaged),
        };
        let bytes = u64_at(page, 24);
        let modified_ns = i128::from_le_bytes(page[40..56].try_into().expect("16 bytes"));
        let original = Fingerprint { bytes, head_crc32: u32_at(page, 32), modified_ns };
        let log_bytes = u64_at(page, 56);
        let sound_size = bytes > 0 && bytes.is_multiple_of(SECTOR_BYTES) && bytes <= i64::MAX as u64 / 2;
        let sound_log = log_bytes.is_multiple_of(PAGE_BYTES as u64) && (1..=1 << 30).contains(&log_bytes);
        if !sound_size || !sound_log {
            return Err(HeaderFault::Damaged);
        }
        Ok(Header { original, purpose, log_bytes })
    }
}

/// One bit for each sector of a page of the map, least significant first: set if the overlay has it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bits(Box<[u8; PAGE_BYTES - PAGE_HEAD_BYTES]>);

impl Bits {
    pub(super) fn none() -> Bits {
        Bits(Box::new([0; PAGE_BYTES - PAGE_HEAD_BYTES]))
    }

    pub(super) fn has(&self, bit: u64) -> bool {
        self.0[(bit / 8) as usize] >> (bit % 8) & 1 == 1
    }

    /// Sets `range`; true if one of them was not set.
    pub(super) fn set(&mut self, range: std::ops::Range<u64>) -> bool {
        let mut changed = false;
        let mut bit = range.start;
        while bit < range.end {
            let byte = &mut self.0[(bit / 8) as usize];
            let count = (8 - bit % 8).min(range.end - bit);
            let mask = ((0xff_u16 >> (8 - count)) as u8) << (bit % 8);
            changed |= *byte & mask != mask;
            *byte |= mask;
            bit += count;
        }
        changed
    }

    /// The end of the run of equal bits that begins at `start`, at most `end`.
    pub(super) fn run_end(&self, start: u64, end: u64) -> u64 {
        let value = self.has(start);
        let whole = if value { 0xff } else { 0 };
        let mut bit = start;
        while bit < end {
            if bit.is_multiple_of(8) && self.0[(bit / 8) as usize] == whole {
                bit += 8;
            } else if self.has(bit) == value {
                bit += 1;
            } else {
                return bit;
            }
        }
        end
    }

    pub(super) fn add(&mut self, other: &Bits) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine |= theirs);
    }
}

/// A page of the map as it lies in the file:
///
/// ```text
///  0        4        8              16                                                       4096
///  | crc32  | "ovmp" | number of    | 32640 bits: sector 32640 * number + i is in the overlay    |
///  | of 4.. |        | this page    |                                                            |
/// ```
pub(super) fn encode_page(page: u64, bits: &Bits) -> [u8; PAGE_BYTES] {
    let mut bytes = [0; PAGE_BYTES];
    bytes[4..8].copy_from_slice(&PAGE_MAGIC);
    bytes[8..16].copy_from_slice(&page.to_le_bytes());
    bytes[PAGE_HEAD_BYTES..].copy_from_slice(&bits.0[..]);
    seal(&mut bytes);
    bytes
}

/// What a page of the map turned out to be.
#[derive(Clone, Default)]
pub(super) enum PageCopy {
    /// Never written.
    #[default]
    Blank,
    Bits(Bits),
    /// Torn or rotten.
    Damaged,
}

pub(super) fn decode_page(layout: Layout, page: u64, bytes: &[u8; PAGE_BYTES]) -> PageCopy {
    if bytes.iter().all(|byte| *byte == 0) {
        return PageCopy::Blank;
    }
    if !is_sealed(bytes) || bytes[4..8] != PAGE_MAGIC || u64_at(bytes, 8) != page {
        return PageCopy::Damaged;
    }
    let mut bits = Bits::none();
    bits.0.copy_from_slice(&bytes[PAGE_HEAD_BYTES..]);
    let used = PAGE_SECTORS.min(layout.capacity.0 - page * PAGE_SECTORS);
    let reaches_beyond = used < PAGE_SECTORS && (bits.has(used) || bits.run_end(used, PAGE_SECTORS) < PAGE_SECTORS);
    if reaches_beyond { PageCopy::Damaged } else { PageCopy::Bits(bits) }
}

/// A record of the log: sectors about to be stored, and how to know whether they were.
///
/// ```text
///  0        4      8       16       24
///  | crc32  | kind | first | number | kind 1: CRC-32 of each sector's bytes, 4 bytes each
///  | of 4.. |      | LBA   |        | kind 2: nothing, all are zero
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) extent: Extent,
    pub(super) content: Content,
}

/// What a record's sectors hold if they were stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// Bytes with these CRC-32s, one for each sector.
    Data(Vec<u32>),
    Zeroes,
}

impl Record {
    /// How many sectors a record of data can speak for if it may have `bytes` bytes.
    pub(super) const fn sectors_in(bytes: u64) -> Sectors {
        Sectors((bytes - RECORD_HEAD_BYTES as u64) / 4)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, crcs) = match &self.content {
            Content::Data(crcs) => (RECORD_DATA, &crcs[..]),
            Content::Zeroes => (RECORD_ZEROES, &[][..]),
        };
        let mut bytes = Vec::with_capacity(RECORD_HEAD_BYTES + 4 * crcs.len());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&self.extent.start.0.to_le_bytes());
        bytes.extend_from_slice(&self.extent.length.0.to_le_bytes());
        bytes.extend(crcs.iter().flat_map(|crc| crc.to_le_bytes()));
        seal(&mut bytes);
        bytes
    }

    /// The record `bytes` begin with and its length in bytes; `None` if they begin with none.
    pub(super) fn decode(capacity: Sectors, bytes: &[u8]) -> Option<(Record, usize)> {
        if bytes.len() < RECORD_HEAD_BYTES {
            return None;
        }
        let (start, length) = (u64_at(bytes, 8), u64_at(bytes, 16));
        if length == 0 || start.checked_add(length)? > capacity.0 {
            return None;
        }
        let crcs_bytes = match u32_at(bytes, 4) {
            RECORD_DATA => usize::try_from(length).ok()?.checked_mul(4)?,
            RECORD_ZEROES => 0,
            _ => return None,
        };
        let bytes = bytes.get(..RECORD_HEAD_BYTES.checked_add(crcs_bytes)?)?;
        if !is_sealed(bytes) {
            return None;
        }
        let content = match u32_at(bytes, 4) {
            RECORD_ZEROES => Content::Zeroes,
            _ => Content::Data((RECORD_HEAD_BYTES..bytes.len()).step_by(4).map(|at| u32_at(bytes, at)).collect()),
        };
        Some((Record { extent: Extent::new(Lba(start), Sectors(length)), content }, bytes.len()))
    }
}

/// Puts the CRC-32 of everything behind it into the first four bytes.
fn seal(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

fn is_sealed(bytes: &[u8]) -> bool {
    u32_at(bytes, 0) == crc32fast::hash(&bytes[4..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_areas_follow_each_other_without_overlap() {
        for sectors in [1, PAGE_SECTORS, PAGE_SECTORS + 1, 1 << 32] {
            let layout = Layout { capacity: Sectors(sectors), log_bytes: LOG_BYTES };
            assert_eq!(Layout::header(1) + PAGE_BYTES as u64, Layout::LOG);
            assert_eq!(layout.page(0, layout.pages()), layout.page(1, 0));
            assert_eq!(layout.page(1, layout.pages()), layout.data(Lba(0)));
            assert!(layout.pages() * PAGE_SECTORS >= sectors && (layout.pages() - 1) * PAGE_SECTORS < sectors);
        }
    }

    #[test]
    fn bits_set_in_ranges_are_found_in_runs() {
        for start in 0..40 {
            for end in start + 1..40 {
                let mut bits = Bits::none();
                assert!(bits.set(start..end) && !bits.set(start..end));
                assert!((0..50).all(|bit| bits.has(bit) == (start..end).contains(&bit)));
                assert_eq!(bits.run_end(start, 50), end);
                assert_eq!(bits.run_end(end, 50), 50);
                assert!(start == 0 || bits.run_end(0, 50) == start);
                assert_eq!(bits.run_end(start, start + 1), start + 1);
            }
        }
    }

    #[test]
    fn what_was_encoded_is_decoded_and_any_flipped_bit_is_noticed() {
        let original = Fingerprint { bytes: 1 << 20, head_crc32: 77, modified_ns: -5 };
        let header = Header { original, purpose: Purpose::Commit, log_bytes: LOG_BYTES };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        let layout = header.layout();
        let mut bits = Bits::none();
        bits.set(3..9);
        let page = encode_page(0, &bits);
        assert!(matches!(decode_page(layout, 0, &page), PageCopy::Bits(found) if found == bits));
        assert!(matches!(decode_page(layout, 0, &encode_page(1, &bits)), PageCopy::Damaged));
        let record = Record { extent: Extent::new(Lba(5), Sectors(2)), content: Content::Data(vec![1, 2]) };
        let bytes = record.encode();
        assert_eq!(Record::decode(layout.capacity, &bytes), Some((record, bytes.len())));
        for bit in 0..PAGE_BYTES * 8 {
            let mut torn = page;
            torn[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode_page(layout, 0, &torn), PageCopy::Damaged));
            let mut torn = header.encode();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&torn).is_err());
            if bit < bytes.len() * 8 {
                let mut torn = bytes.clone();
                torn[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(layout.capacity, &torn), None);
            }
        }
    }

    #[test]
    fn a_sealed_page_that_speaks_of_sectors_beyond_the_end_is_damaged() {
        let layout = Layout { capacity: Sectors(100), log_bytes: LOG_BYTES };
        for (range, sound) in [(99..100, true), (100..101, false), (101..102, false), (5000..5001, false)] {
            let mut bits = Bits::none();
            bits.set(range);
            assert_eq!(matches!(decode_page(layout, 0, &encode_page(0, &bits)), PageCopy::Bits(_)), sound);
        }
    }

    #[test]
    fn a_sealed_header_of_impossible_sizes_is_damaged() {
        let original = Fingerprint { bytes: 1 << 20, head_crc32: 0, modified_ns: 0 };
        for (bytes, log_bytes) in [(0, LOG_BYTES), (513, LOG_BYTES), (u64::MAX - 511, LOG_BYTES), (512, 0), (512, 100)]
        {
            let original = Fingerprint { bytes, ..original };
            let header = Header { original, purpose: Purpose::Keep, log_bytes };
            assert_eq!(Header::decode(&header.encode()), Err(HeaderFault::Damaged));
        }
    }
}
