//! The write-intent bitmap as it lies on disk.
//!
//! Every member of an array with an internal bitmap carries a copy: a header of 256 bytes, then one
//! bit for each bitmap chunk of the sync space, set while that chunk may have writes that not all
//! members got. After a crash only chunks whose bit is set are resynced; a member that was away
//! needs only the chunks written since.
//!
//! ```text
//! page 0: | header, 256 bytes | bits 0..30720 |
//! page 1: | bits 30720..63488                 |
//! ...       bit i is bit i%8 of byte 256 + i/8
//! ```
//!
//! A bit that changes is written with its page of 4 KiB; the header shares the first. The order of
//! writes is not decided here. The source of the format is `drivers/md/md-bitmap.h` of Linux.

use thiserror::Error;

use super::little_endian::{bytes_at, put, u32_at, u64_at};
use super::superblock::{SECTORS_MAX, SetUuid, Superblock};
use crate::block::{SECTOR_BYTES, Sectors};

/// First field of every bitmap: `bitm`.
pub const BITMAP_MAGIC: u32 = 0x6d74_6962;
/// Bytes of the header.
pub const BITMAP_HEADER_BYTES: usize = 256;
/// Bits are written by pages of this size.
pub const BITMAP_PAGE: Sectors = Sectors(8);
/// The finest chunk mdadm gives a bitmap: 4 KiB.
pub const BITMAP_CHUNK_MIN: Sectors = Sectors(8);

const PAGE_BYTES: usize = BITMAP_PAGE.bytes() as usize;
const VERSION: u32 = 4;
const WRITE_BEHIND_MAX: u32 = 16383;

/// Bits in a bitmap over `sync_size`.
pub fn bitmap_bits(sync_size: Sectors, chunk: Sectors) -> u64 {
    sync_size.0.div_ceil(chunk.0)
}

/// Sectors a bitmap over `sync_size` takes: header and bits, whole pages.
pub fn bitmap_area(sync_size: Sectors, chunk: Sectors) -> Sectors {
    let bytes = BITMAP_HEADER_BYTES as u64 + bitmap_bits(sync_size, chunk).div_ceil(8);
    Sectors(bytes.next_multiple_of(PAGE_BYTES as u64) / SECTOR_BYTES)
}

/// The header of a bitmap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BitmapHeader {
    /// The array's identity.
    pub uuid: SetUuid,
    /// Events of the superblock it was last written with.
    pub events: u64,
    /// Events when a bit was last cleared while all members were there: a member that left before cannot
    /// come back by the bitmap.
    pub events_cleared: u64,
    /// What the bits cover: the used size of a member, on RAID10 the size of the array.
    pub sync_size: Sectors,
    /// State bits.
    pub state: BitmapState,
    /// What one bit covers.
    pub chunk: Sectors,
    /// Seconds between two rounds of clearing.
    pub daemon_sleep: u32,
    /// Most writes to write-mostly members that may be outstanding; zero for none.
    pub write_behind: u32,
    /// Sectors set aside for the bitmap; zero where the superblock says it.
    pub sectors_reserved: u32,
    /// Bytes after the fields, kept as they were read.
    kept: [u8; BITMAP_HEADER_BYTES - NODES_AT],
}

const NODES_AT: usize = 68;

/// State of a bitmap, as a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct BitmapState(pub u32);

impl BitmapState {
    /// Its bits miss writes.
    pub const STALE: BitmapState = BitmapState(2);
    /// Writing it failed.
    pub const WRITE_ERROR: BitmapState = BitmapState(4);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: BitmapState) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Why bytes are no bitmap to work with. The array does not start with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BitmapError {
    /// Fewer bytes than the bitmap takes.
    #[error("bitmap is cut short: {have} of {need} bytes")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// Something else is there, or nothing.
    #[error("no bitmap: expected magic {BITMAP_MAGIC:08x}, got {found:08x}")]
    NoMagic {
        /// What stands where the magic belongs.
        found: u32,
    },
    /// 3 is in the byte order of the machine that wrote it, 5 a cluster's, 6 lockless.
    #[error("bitmap version {version} is not 4: remove the bitmap with mdadm --grow --bitmap=none first")]
    Version {
        /// Version.
        version: u32,
    },
    /// It belongs to the nodes of a cluster.
    #[error("bitmap of a cluster of {nodes} nodes: remove it with mdadm --grow --bitmap=none first")]
    Clustered {
        /// Nodes of the cluster.
        nodes: u32,
    },
    /// A number no bitmap has.
    #[error("bitmap {field} is {value}: no bitmap has that")]
    Implausible {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// It reaches into what lies behind it.
    #[error("bitmap of {} sectors in a room of {}", area.0, space.0)]
    TooLong {
        /// Sectors it takes.
        area: Sectors,
        /// Sectors there are.
        space: Sectors,
    },
}

/// What a readable bitmap is worth to the array whose superblock is beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitmapVerdict {
    /// Its bits tell all that is out of sync.
    Current,
    /// Writes were made without it: everything may be out of sync.
    Stale {
        /// Events of the bitmap.
        events: u64,
        /// Events of the superblock.
        newest: u64,
    },
    /// It says itself that it misses writes.
    MarkedStale,
    /// It covers another size than the array has: everything may be out of sync.
    OtherSize {
        /// What it covers.
        sync_size: Sectors,
        /// What it should cover.
        expected: Sectors,
    },
    /// It belongs to another array, which must not start with it.
    Foreign {
        /// The array it belongs to.
        uuid: SetUuid,
    },
}

impl BitmapHeader {
    /// The header of a new bitmap, with mdadm's defaults: a daemon that wakes every 5 seconds, no write-behind.
    pub fn new(uuid: SetUuid, sync_size: Sectors, chunk: Sectors) -> BitmapHeader {
        assert!(chunk.0.is_power_of_two() && chunk.bytes() <= 1 << 31, "bitmap chunk of {chunk:?}");
        assert!(sync_size > Sectors::ZERO && sync_size <= SECTORS_MAX, "bitmap over {sync_size:?}");
        BitmapHeader {
            uuid,
            events: 0,
            events_cleared: 0,
            sync_size,
            state: BitmapState::default(),
            chunk,
            daemon_sleep: 5,
            write_behind: 0,
            sectors_reserved: 0,
            kept: [0; BITMAP_HEADER_BYTES - NODES_AT],
        }
    }

    /// Reads the header at the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<BitmapHeader, BitmapError> {
        if bytes.len() < BITMAP_HEADER_BYTES {
            return Err(BitmapError::Truncated { have: bytes.len(), need: BITMAP_HEADER_BYTES });
        }
        let implausible = |field, value| Err(BitmapError::Implausible { field, value });
        let (magic, version, nodes) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, NODES_AT));
        if magic != BITMAP_MAGIC {
            return Err(BitmapError::NoMagic { found: magic });
        }
        if version != VERSION {
            return Err(BitmapError::Version { version });
        }
        if nodes != 0 {
            return Err(BitmapError::Clustered { nodes });
        }
        let sync_size = u64_at(bytes, 40);
        if sync_size == 0 || sync_size > SECTORS_MAX.0 {
            return implausible("sync_size", sync_size);
        }
        let chunk = u64::from(u32_at(bytes, 52));
        if !chunk.is_power_of_two() || chunk < SECTOR_BYTES {
            return implausible("chunksize", chunk);
        }
        let (daemon_sleep, write_behind) = (u32_at(bytes, 56), u32_at(bytes, 60));
        if daemon_sleep == 0 {
            return implausible("daemon_sleep", 0);
        }
        if write_behind > WRITE_BEHIND_MAX {
            return implausible("write_behind", write_behind.into());
        }
        Ok(BitmapHeader {
            uuid: SetUuid(bytes_at(bytes, 8)),
            events: u64_at(bytes, 24),
            events_cleared: u64_at(bytes, 32),
            sync_size: Sectors(sync_size),
            state: BitmapState(u32_at(bytes, 48)),
            chunk: Sectors::floor_bytes(chunk),
            daemon_sleep,
            write_behind,
            sectors_reserved: u32_at(bytes, 64),
            kept: bytes_at(bytes, NODES_AT),
        })
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; BITMAP_HEADER_BYTES] {
        let mut bytes = [0; BITMAP_HEADER_BYTES];
        put(&mut bytes, 0, BITMAP_MAGIC.to_le_bytes());
        put(&mut bytes, 4, VERSION.to_le_bytes());
        put(&mut bytes, 8, self.uuid.0);
        put(&mut bytes, 24, self.events.to_le_bytes());
        put(&mut bytes, 32, self.events_cleared.to_le_bytes());
        put(&mut bytes, 40, self.sync_size.0.to_le_bytes());
        put(&mut bytes, 48, self.state.0.to_le_bytes());
        put(&mut bytes, 52, (self.chunk.bytes() as u32).to_le_bytes());
        put(&mut bytes, 56, self.daemon_sleep.to_le_bytes());
        put(&mut bytes, 60, self.write_behind.to_le_bytes());
        put(&mut bytes, 64, self.sectors_reserved.to_le_bytes());
        put(&mut bytes, NODES_AT, self.kept);
        bytes
    }

    /// Number of bits.
    pub fn bits(&self) -> u64 {
        bitmap_bits(self.sync_size, self.chunk)
    }

    /// Sectors the bitmap takes on disk.
    pub fn area(&self) -> Sectors {
        bitmap_area(self.sync_size, self.chunk)
    }

    /// That the bitmap ends before what lies behind it on the member of `superblock`. To be asked before the bits are read.
    pub fn check_space(&self, superblock: &Superblock) -> Result<(), BitmapError> {
        let (area, space) = (self.area(), superblock.bitmap_space());
        // The bits must fit; the padding of the last page may not, where mdadm added a bitmap in the last 3 KiB.
        let bytes = BITMAP_HEADER_BYTES as u64 + self.bits().div_ceil(8);
        if bytes <= space.bytes() { Ok(()) } else { Err(BitmapError::TooLong { area, space }) }
    }

    /// What the bitmap is worth to the array of `set_uuid`, whose newest superblock counts `events` and whose
    /// sync space is `sync_size`.
    pub fn verdict(&self, set_uuid: SetUuid, events: u64, sync_size: Sectors) -> BitmapVerdict {
        if self.uuid != set_uuid {
            BitmapVerdict::Foreign { uuid: self.uuid }
        } else if self.sync_size != sync_size {
            BitmapVerdict::OtherSize { sync_size: self.sync_size, expected: sync_size }
        } else if self.events < events {
            BitmapVerdict::Stale { events: self.events, newest: events }
        } else if self.state.contains(BitmapState::STALE) {
            BitmapVerdict::MarkedStale
        } else {
            BitmapVerdict::Current
        }
    }
}

/// A bitmap as it lies on disk, header and bits, to be changed bit by bit and written page by page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BitmapImage {
    /// The header; it is written with page 0.
    pub header: BitmapHeader,
    /// The bits, one byte for eight, up to the end of the last page.
    bits: Vec<u8>,
}

impl BitmapImage {
    /// A bitmap with every bit set, those beyond the end too, as mdadm writes a new one: everything may be out of sync.
    pub fn all_set(header: BitmapHeader) -> BitmapImage {
        let bytes = header.area().bytes() as usize - BITMAP_HEADER_BYTES;
        BitmapImage { header, bits: vec![0xff; bytes] }
    }

    /// Reads a whole bitmap. `bytes` are those of its area; what is missing of the last page reads as zero.
    pub fn decode(bytes: &[u8]) -> Result<BitmapImage, BitmapError> {
        let header = BitmapHeader::decode(bytes)?;
        let need = BITMAP_HEADER_BYTES as u64 + header.bits().div_ceil(8);
        if (bytes.len() as u64) < need {
            let need = usize::try_from(need).unwrap_or(usize::MAX);
            return Err(BitmapError::Truncated { have: bytes.len(), need });
        }
        let area = header.area().bytes() as usize;
        let mut bits = bytes[BITMAP_HEADER_BYTES..bytes.len().min(area)].to_vec();
        bits.resize(area - BITMAP_HEADER_BYTES, 0);
        Ok(BitmapImage { header, bits })
    }

    /// The whole area's bytes.
    pub fn encode(&self) -> Vec<u8> {
        (0..self.pages()).flat_map(|page| self.page(page)).collect()
    }

    /// Number of bits.
    pub fn len(&self) -> u64 {
        self.header.bits()
    }

    /// Whether there are no bits: never, a bitmap covers something.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `bit` is set.
    pub fn get(&self, bit: u64) -> bool {
        assert!(bit < self.len(), "bit {bit} of {}", self.len());
        self.bits[(bit / 8) as usize] >> (bit % 8) & 1 == 1
    }

    /// Sets or clears `bit`. Gives the page to write if that changed it.
    pub fn set(&mut self, bit: u64, value: bool) -> Option<usize> {
        if self.get(bit) == value {
            return None;
        }
        self.bits[(bit / 8) as usize] ^= 1 << (bit % 8);
        Some(self.page_of(bit))
    }

    /// Sets or clears every bit; bits beyond the end stay as they are.
    pub fn set_all(&mut self, value: bool) {
        let whole = (self.len() / 8) as usize;
        self.bits[..whole].fill(if value { 0xff } else { 0 });
        for bit in whole as u64 * 8..self.len() {
            self.set(bit, value);
        }
    }

    /// Bits that are set, rising.
    pub fn iter_set(&self) -> impl Iterator<Item = u64> {
        let used = self.len().div_ceil(8) as usize;
        (0_u64..)
            .zip(&self.bits[..used])
            .filter(|(_, byte)| **byte != 0)
            .flat_map(|(at, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit))
            .take_while(|bit| *bit < self.len())
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        (self.header.area().0 / BITMAP_PAGE.0) as usize
    }

    /// The page `bit` lies in.
    pub fn page_of(&self, bit: u64) -> usize {
        (BITMAP_HEADER_BYTES + (bit / 8) as usize) / PAGE_BYTES
    }

    /// The bytes of a page, to be written `page * BITMAP_PAGE` behind the start of the bitmap.
    pub fn page(&self, page: usize) -> Vec<u8> {
        assert!(page < self.pages(), "page {page} of {}", self.pages());
        let end = (page + 1) * PAGE_BYTES - BITMAP_HEADER_BYTES;
        match page {
            0 => [&self.header.encode()[..], &self.bits[..end]].concat(),
            _ => self.bits[end - PAGE_BYTES..end].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raid::golden;
    use crate::raid::superblock::MinorVersion;
    use proptest::prelude::*;

    fn header() -> BitmapHeader {
        BitmapHeader::new(SetUuid([7; 16]), Sectors(100_000), Sectors(1))
    }

    fn image_of(name: &str) -> (Superblock, BitmapImage) {
        let member = golden::Member::load(name);
        let superblock = member.superblock(MinorVersion::V1_2).unwrap();
        let header = BitmapHeader::decode(&member.read(superblock.bitmap_at().unwrap(), Sectors(1))).unwrap();
        header.check_space(&superblock).unwrap();
        let image = BitmapImage::decode(&member.read(superblock.bitmap_at().unwrap(), header.area())).unwrap();
        (superblock, image)
    }

    /// A RAID5 of three members with 64 KiB chunks and bitmap chunks was cut off after writes to its first stripe
    /// and to array byte 308 KiB, which is in its third.
    #[test]
    fn after_a_crash_the_bits_name_the_chunks_that_were_written() {
        let (superblock, image) = image_of("r5dirty-0");
        assert_eq!(image.iter_set().collect::<Vec<_>>(), [0, 2]);
        let verdict = image.header.verdict(superblock.set_uuid, superblock.events, superblock.size);
        assert_eq!(verdict, BitmapVerdict::Current);
    }

    #[test]
    fn a_bitmap_made_by_mdadm_is_encoded_to_the_same_bytes() {
        for name in ["r1-0", "r5bm-0", "r5dirty-0", "r10n2-0", "r1wm-2"] {
            let (superblock, image) = image_of(name);
            let member = golden::Member::load(name);
            let bytes = member.read(superblock.bitmap_at().unwrap(), image.header.area());
            assert!(image.encode() == bytes, "{name}");
        }
    }

    #[test]
    fn a_bitmap_older_than_its_superblock_is_stale_and_one_of_another_array_foreign() {
        let header = BitmapHeader { events: 6, ..header() };
        let (uuid, size) = (header.uuid, header.sync_size);
        assert_eq!(header.verdict(uuid, 6, size), BitmapVerdict::Current);
        assert_eq!(header.verdict(uuid, 7, size), BitmapVerdict::Stale { events: 6, newest: 7 });
        assert_eq!(
            header.verdict(uuid, 6, Sectors(1)),
            BitmapVerdict::OtherSize { sync_size: size, expected: Sectors(1) }
        );
        assert_eq!(header.verdict(SetUuid([8; 16]), 6, size), BitmapVerdict::Foreign { uuid });
        let marked = BitmapHeader { state: BitmapState::STALE, ..header };
        assert_eq!(marked.verdict(uuid, 6, size), BitmapVerdict::MarkedStale);
    }

    #[test]
    fn a_changed_bit_is_in_the_page_that_is_to_be_written() {
        let mut image = BitmapImage::all_set(header());
        image.set_all(false);
        assert_eq!(image.iter_set().count(), 0);
        for bit in [0, 7, 30719, 30720, 63487, 63488, 99_999] {
            let before = image.encode();
            let page = image.set(bit, true).unwrap();
            let after = image.encode();
            let changed = before.iter().zip(&after).position(|(b, a)| b != a).unwrap();
            assert_eq!(page, changed / PAGE_BYTES, "bit {bit}");
            assert_eq!(image.page(page), after[page * PAGE_BYTES..(page + 1) * PAGE_BYTES]);
            assert_eq!(image.set(bit, true), None);
        }
        assert_eq!(image.iter_set().collect::<Vec<_>>(), [0, 7, 30719, 30720, 63487, 63488, 99_999]);
    }

    #[test]
    fn versions_and_clusters_we_do_not_know_are_refused() {
        for version in [0, 3, 5, 6] {
            let mut bytes = header().encode();
            bytes[4] = version;
            assert_eq!(BitmapHeader::decode(&bytes), Err(BitmapError::Version { version: version.into() }));
        }
        let mut bytes = header().encode();
        bytes[NODES_AT] = 2;
        assert_eq!(BitmapHeader::decode(&bytes), Err(BitmapError::Clustered { nodes: 2 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_a_bitmap_that_encodes_to_them(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..9000),
            sync_size in 1_u64..200_000,
            shift in 9_u32..32,
            as_bitmap: bool,
        ) {
            if as_bitmap && bytes.len() >= BITMAP_HEADER_BYTES {
                put(&mut bytes, 0, BITMAP_MAGIC.to_le_bytes());
                put(&mut bytes, 4, VERSION.to_le_bytes());
                put(&mut bytes, 40, sync_size.to_le_bytes());
                put(&mut bytes, 52, (1_u32 << shift).to_le_bytes());
                put(&mut bytes, 60, 0_u32.to_le_bytes());
                put(&mut bytes, NODES_AT, 0_u32.to_le_bytes());
            }
            if let Ok(image) = BitmapImage::decode(&bytes) {
                let encoded = image.encode();
                let common = encoded.len().min(bytes.len());
                prop_assert_eq!(&encoded[..common], &bytes[..common]);
                prop_assert_eq!(BitmapImage::decode(&encoded).unwrap(), image);
            }
        }
    }
}
