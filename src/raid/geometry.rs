//! Geometry: which sector of the array lies where on which member.
//!
//! An array deals its sectors out to its members in chunks. A level adds parity chunks or copies, a layout says in
//! which order slots take their turns. Read, write, recovery and check all ask the same two questions: which stripe
//! holds this array sector, and what lies in its columns. Everything a level or a layout means to addresses is answered
//! here, as data; nothing above knows one level from another.
//!
//! The unit is the [`Stripe`]: columns of equal length, one chunk each, that stand or fall together.
//!
//! ```text
//!   RAID5, left-symmetric, 4 slots        RAID10 n2, 3 slots           RAID10 f2, 3 slots      RAID0, 3 unequal slots
//!   slot   0   1   2   3                  slot  0   1   2              slot  0   1   2         slot  0   1   2
//!         D0  D1  D2   P   stripe 0            A   A   B               A   B   C               0   1   2   zone 0
//!         D1  D2   P  D0   stripe 1            B   C   C               D   E   F               3   4   5
//!         D2   P  D0  D1   stripe 2            D   D   E               C   A   B   copies      6       7   zone 1
//!          P  D0  D1  D2   stripe 3            E   F   F               F   D   E               8       9
//! ```
//!
//! Parity levels: a stripe is one row. RAID0: one row of a zone. RAID10: one chunk with its copies (a letter above),
//! for they lie in different rows. RAID1 has no chunks; 64 KiB stand in.
//!
//! All formulas are those of Linux md, checked on arrays it made.

use std::sync::Arc;

use std::ops::Range;

use smallvec::SmallVec;

use super::level::{Layout, Level, Raid0Layout, Raid5Layout, Raid6Layout};
use super::set::SlotSet;
use crate::block::{Lba, Sectors};

/// A position in the array.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u8);

/// The number of a stripe, counted by array sector.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StripeIndex(pub u64);

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Data. Copies have the same index.
    Data {
        /// Which of the stripe's data chunks, in array order.
        index: u8,
        /// Q is the sum of `2^exponent * data` in GF(2^8); 0 where there is no Q.
        exponent: u8,
    },
    /// The sum (XOR) of the data.
    P,
    /// The weighted sum of the data.
    Q,
}

/// One chunk of a stripe on one member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Column {
    /// Where in the array.
    pub slot: Slot,
    /// What it holds.
    pub role: Role,
    /// Its first sector, counted from the start of the member's data area.
    pub base: Lba,
}

/// The columns of one stripe: data in array order, then P, then Q; copies in md's order, the first one first.
pub type Columns = SmallVec<[Column; 8]>;

/// What stands or falls together: some data chunks and their parity, or one chunk and its copies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stripe {
    /// The array sector its data begins at.
    pub start: Lba,
    /// The length of each column.
    pub rows: Sectors,
    /// How many chunks of the array it holds.
    pub data_chunks: usize,
    /// What lies where.
    pub columns: Columns,
}

/// What an array is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GeometryConfig {
    /// Which redundancy.
    pub level: Level,
    /// Where it lies.
    pub layout: Layout,
    /// How many slots.
    pub raid_disks: usize,
    /// The chunk; RAID1 has none and takes 0.
    pub chunk: Sectors,
    /// What the members give.
    pub member_sizes: MemberSizes,
}

/// Sectors of data area the members give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemberSizes {
    /// Every member the same: `size` in md's superblock.
    Common(Sectors),
    /// One for each slot: `data_size` in the superblocks of a RAID0.
    PerSlot(Vec<Sectors>),
}

/// Why an array cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GeometryError {
    /// The layout is one of another level.
    #[error("layout {layout} is not one of {level}; use {}", Layout::default_of(*.level))]
    LayoutOfOtherLevel {
        /// The level.
        level: Level,
        /// The layout.
        layout: Layout,
    },
    /// Too few or too many members.
    #[error("{level} takes {fewest} to {MEMBERS_MOST} disks, not {disks}; give another number of disks")]
    Disks {
        /// The level.
        level: Level,
        /// The number asked for.
        disks: usize,
        /// The fewest it takes.
        fewest: usize,
    },
    /// RAID10 with one copy, or more copies than slots.
    #[error(
        "layout {layout} keeps {copies} copies, and {disks} disks take 2 to {disks}; use another layout or more disks"
    )]
    Copies {
        /// The layout.
        layout: Layout,
        /// Near times far copies.
        copies: usize,
        /// How many slots there are.
        disks: usize,
    },
    /// RAID10 offset with one far copy: there is nothing to offset.
    #[error("layout {layout} offsets copies it does not have; use n{near}, or o2 for two offset copies")]
    OffsetWithoutFar {
        /// The layout.
        layout: Layout,
        /// Its near copies.
        near: u8,
    },
    /// RAID10 offset whose near copies wrap into the next row. There md gives two chunks the same sectors: Linux 6.1
    /// does not read back what it wrote to n2o2 on five disks. mdadm does not create such an array.
    #[error(
        "layout {layout} on {disks} disks puts two chunks in one place; use a multiple of {near} disks, or f for o"
    )]
    OffsetOverlap {
        /// The layout.
        layout: Layout,
        /// Its near copies.
        near: u8,
        /// How many slots there are.
        disks: usize,
    },
    /// md gives RAID0 such chunks, no other level; raidlab has them nowhere.
    #[error("chunk of {} bytes is not a power of two, which raidlab lacks; choose one from 4K to 4M", .chunk.bytes())]
    ChunkNotPowerOfTwo {
        /// The chunk.
        chunk: Sectors,
    },
    /// A chunk no level takes.
    #[error("chunk of {} sectors is out of range; choose a power of two from 4K to 4M", .chunk.0)]
    ChunkOutOfRange {
        /// The chunk.
        chunk: Sectors,
    },
    /// A member, or all of them, too small for the chunk.
    #[error(
        "the smallest member gives {} KiB and must give {}; use larger members or a smaller chunk",
        .size.0 / 2,
        .needed.0.div_ceil(2)
    )]
    TooSmall {
        /// What the smallest member gives.
        size: Sectors,
        /// What it must give.
        needed: Sectors,
    },
    /// Sizes add up to more bytes than a file or a device can address (2^63).
    #[error("members add up to more than 8 EiB: a size is wrong, look for a damaged superblock")]
    TooLarge,
    /// Sizes for another number of slots.
    #[error("{sizes} member sizes for {disks} disks; give one for each")]
    SizesMiscounted {
        /// How many sizes.
        sizes: usize,
        /// How many slots.
        disks: usize,
    },
    /// Only RAID0 uses what a larger member has more.
    #[error("{level} uses the same size of every member; give one common size")]
    SizesNotCommon {
        /// The level.
        level: Level,
    },
    /// RAID0 on members of several sizes, where the superblock does not say which of the two layouts wrote it.
    #[error("raid0 on disks of several sizes needs a layout: original if Linux before 3.14 wrote it, else alternate")]
    Raid0LayoutUnknown,
}

/// The most slots of an array: a set of them fits a word.
pub const MEMBERS_MOST: usize = 64;

/// Sectors in 2^63 bytes, the most a file offset reaches.
const SECTORS_MOST: u64 = 1 << 54;

/// Chunks a level takes, in sectors. md takes none below a page (8 sectors); the simulator's stripes are smaller.
const CHUNK_RANGE: std::ops::RangeInclusive<u64> = 1..=8192;

/// RAID1 is planned in stripes of 64 KiB, the unit in which md counts its mismatches.
const RAID1_ROWS: Sectors = Sectors(128);

/// Where the sectors of an array lie on its members. Made once; asked for every request.
#[derive(Clone, Debug)]
pub struct Geometry {
    level: Level,
    layout: Layout,
    raid_disks: usize,
    chunk: Sectors,
    /// Length of a column; of all but perhaps the last stripe in RAID1.
    rows: Sectors,
    capacity: Sectors,
    stripes: u64,
    map: Map,
}

/// How stripes follow each other.
#[derive(Clone, Debug)]
enum Map {
    /// RAID0: zones one after the other.
    Zones(Vec<Zone>),
    /// RAID1: array sector is member sector. `used` sectors of every member.
    Mirror { used: Sectors },
    /// RAID4, 5, 6: stripe `k` is row `k`; its columns are `pattern[k % pattern.len()]`.
    Pattern { pattern: Arc<[Columns]>, data_chunks: usize },
    /// RAID10.
    Copies(Copies),
}

/// The part of a RAID0 that the same members share.
#[derive(Clone, Debug)]
struct Zone {
    /// Its first array sector.
    start: Lba,
    /// Its first sector on each member.
    member_start: Lba,
    first_stripe: u64,
    stripes: u64,
    /// Its members, in the order in which they take the chunks of a row.
    slots: SmallVec<[Slot; 8]>,
}

/// RAID10. Near copies fill the slots row by row, the copies of a chunk next to each other. Every such row is repeated
/// `far` times, each time `near` slots further on: a section of `near_rows` rows below, or with `offset` one row below.
#[derive(Clone, Debug)]
struct Copies {
    disks: u64,
    near: u64,
    far: u64,
    offset: bool,
    near_rows: u64,
    chunks: u64,
}

impl Geometry {
    /// The geometry of an array, if there can be one.
    pub fn new(config: GeometryConfig) -> Result<Geometry, GeometryError> {
        check_disks(&config)?;
        check_layout(&config)?;
        check_chunk(&config)?;
        check_sizes(&config)?;

        let GeometryConfig { level, layout, raid_disks, chunk, member_sizes } = config;
        let size = match &member_sizes {
            MemberSizes::Common(size) => *size,
            MemberSizes::PerSlot(sizes) => *sizes.iter().min().expect("an array has members"),
        };
        let too_small = |needed| GeometryError::TooSmall { size, needed };
        let rows = if level == Level::Raid1 { RAID1_ROWS } else { chunk };
        let (map, capacity, stripes) = match layout {
            _ if level == Level::Raid1 => {
                if size == Sectors::ZERO {
                    return Err(too_small(Sectors(1)));
                }
                (Map::Mirror { used: size }, size, size.0.div_ceil(rows.0))
            }
            Layout::Raid10 { near, far, offset } => {
                let copies = Copies::new(raid_disks, near, far, offset, size.0 / chunk.0);
                let chunks = copies.chunks;
                if chunks == 0 {
                    return Err(too_small(Sectors(chunk.0 * copies.far)));
                }
                (Map::Copies(copies), Sectors(chunks * chunk.0), chunks)
            }
            _ if size < chunk => return Err(too_small(chunk)),
            _ if level == Level::Raid0 => {
                let sizes = match member_sizes {
                    MemberSizes::Common(size) => vec![size; raid_disks],
                    MemberSizes::PerSlot(sizes) => sizes,
                };
                let zones = zones(&sizes, chunk, layout)?;
                let last = zones.last().expect("every member has a chunk");
                let capacity = last.start - Lba(0) + Sectors(last.stripes * chunk.0 * last.slots.len() as u64);
                let stripes = last.first_stripe + last.stripes;
                (Map::Zones(zones), capacity, stripes)
            }
            _ => {
                let data_chunks = raid_disks - level.parity_count();
                let stripes = size.0 / chunk.0;
                let capacity = Sectors(stripes * chunk.0 * data_chunks as u64);
                (Map::Pattern { pattern: parity_pattern(layout, raid_disks).into(), data_chunks }, capacity, stripes)
            }
        };
        Ok(Geometry { level, layout, raid_disks, chunk, rows, capacity, stripes, map })
    }

    /// The size of the array.
    pub fn capacity(&self) -> Sectors {
        self.capacity
    }

    /// Which redundancy it keeps.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Where that lies.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The chunk; means nothing to RAID1.
    pub fn chunk(&self) -> Sectors {
        self.chunk
    }

    /// How many slots it has.
    pub fn raid_disks(&self) -> usize {
        self.raid_disks
    }

    /// All slots.
    pub fn slots(&self) -> SlotSet {
        SlotSet::first(self.raid_disks)
    }

    /// How many stripes.
    pub fn stripes(&self) -> u64 {
        self.stripes
    }

    /// The data of one full stripe; RAID0: of the first zone.
    pub fn stripe_data(&self) -> Sectors {
        let chunks = match &self.map {
            Map::Zones(zones) => zones[0].slots.len(),
            Map::Mirror { .. } | Map::Copies(_) => 1,
            Map::Pattern { data_chunks, .. } => *data_chunks,
        };
        Sectors(self.rows.0 * chunks as u64)
    }

    /// The request length that keeps all members busy and needs no old data: as md's `optimal_io_size`.
    pub fn preferred_io(&self) -> Sectors {
        match &self.map {
            Map::Copies(copies) if copies.disks.is_multiple_of(copies.near) => {
                Sectors(self.chunk.0 * copies.disks / copies.near)
            }
            Map::Copies(copies) => Sectors(self.chunk.0 * copies.disks),
            _ => self.stripe_data(),
        }
    }

    /// Parity chunks of a stripe.
    pub fn parity_count(&self) -> usize {
        self.level.parity_count()
    }

    /// How many members may always fail, whichever they are.
    pub fn tolerance(&self) -> usize {
        match &self.map {
            Map::Zones(_) => 0,
            Map::Mirror { .. } => self.raid_disks - 1,
            Map::Pattern { .. } => self.parity_count(),
            Map::Copies(copies) => (copies.near * copies.far) as usize - 1,
        }
    }

    /// Whether all data is still there without these members.
    pub fn survives(&self, missing: SlotSet) -> bool {
        let missing = missing & self.slots();
        match &self.map {
            Map::Copies(copies) => !copies.holders().any(|holders| missing.contains_all(holders)),
            _ => missing.len() <= self.tolerance(),
        }
    }

    /// How much of a member's data area the array uses.
    pub fn member_used(&self, slot: Slot) -> Sectors {
        assert!(usize::from(slot.0) < self.raid_disks, "{slot:?} of {} slots", self.raid_disks);
        match &self.map {
            Map::Zones(zones) => {
                let last = zones.iter().rfind(|zone| zone.slots.contains(&slot)).expect("every slot is in zone 0");
                last.member_start - Lba(0) + Sectors(last.stripes * self.chunk.0)
            }
            Map::Mirror { used } => *used,
            Map::Pattern { .. } => Sectors(self.stripes * self.chunk.0),
            Map::Copies(copies) => Sectors(copies.near_rows * copies.far * self.chunk.0),
        }
    }

    /// Which stripe holds an array sector, and where in its data: `offset / rows` is the data chunk, `offset % rows`
    /// the row.
    pub fn locate(&self, lba: Lba) -> (StripeIndex, Sectors) {
        assert!(lba.0 < self.capacity.0, "{lba:?} beyond {:?}", self.capacity);
        match &self.map {
            Map::Zones(zones) => {
                let zone = last_of(zones, |zone| zone.start <= lba);
                let (offset, data) = (lba.0 - zone.start.0, zone.slots.len() as u64 * self.rows.0);
                (StripeIndex(zone.first_stripe + offset / data), Sectors(offset % data))
            }
            _ => {
                let data = self.stripe_data().0;
                (StripeIndex(lba.0 / data), Sectors(lba.0 % data))
            }
        }
    }

    /// What lies where in a stripe.
    pub fn stripe(&self, index: StripeIndex) -> Stripe {
        let StripeIndex(k) = index;
        assert!(k < self.stripes, "{index:?} of {} stripes", self.stripes);
        let rows = self.rows;
        match &self.map {
            Map::Zones(zones) => {
                let zone = last_of(zones, |zone| zone.first_stripe <= k);
                let row = k - zone.first_stripe;
                let base = zone.member_start + Sectors(row * rows.0);
                let columns =
                    zone.slots.iter().enumerate().map(|(i, slot)| Column { slot: *slot, role: data(i), base });
                let start = zone.start + Sectors(row * rows.0 * zone.slots.len() as u64);
                Stripe { start, rows, data_chunks: zone.slots.len(), columns: columns.collect() }
            }
            Map::Mirror { used } => {
                let base = Lba(k * rows.0);
                let columns = (0..self.raid_disks).map(|slot| Column { slot: Slot(slot as u8), role: data(0), base });
                let rows = rows.min(*used - (base - Lba(0)));
                Stripe { start: base, rows, data_chunks: 1, columns: columns.collect() }
            }
            Map::Pattern { pattern, data_chunks } => {
                let mut columns = Columns::from_slice(&pattern[(k % pattern.len() as u64) as usize]);
                for column in &mut columns {
                    column.base = Lba(k * rows.0);
                }
                Stripe { start: Lba(k * self.stripe_data().0), rows, data_chunks: *data_chunks, columns }
            }
            Map::Copies(copies) => {
                let columns =
                    copies.places(k).map(|(slot, row)| Column { slot, role: data(0), base: Lba(row * rows.0) });
                Stripe { start: Lba(k * rows.0), rows, data_chunks: 1, columns: columns.collect() }
            }
        }
    }

    /// Where a data chunk of a stripe lies, without the rest of the stripe: the copy of that number, from 0.
    pub fn data_column(&self, index: StripeIndex, chunk: usize, copy: usize) -> Column {
        let StripeIndex(k) = index;
        assert!(k < self.stripes && copy < self.copies(), "{index:?}, copy {copy}");
        match &self.map {
            Map::Zones(zones) => {
                let zone = last_of(zones, |zone| zone.first_stripe <= k);
                let base = zone.member_start + Sectors((k - zone.first_stripe) * self.rows.0);
                Column { slot: zone.slots[chunk], role: data(chunk), base }
            }
            Map::Mirror { .. } => Column { slot: Slot(copy as u8), role: data(0), base: Lba(k * self.rows.0) },
            Map::Pattern { pattern, .. } => {
                let column = pattern[(k % pattern.len() as u64) as usize][chunk];
                Column { base: Lba(k * self.rows.0), ..column }
            }
            Map::Copies(copies) => {
                let (slot, row) = copies.places(k).nth(copy).expect("there are so many copies");
                Column { slot, role: data(0), base: Lba(row * self.rows.0) }
            }
        }
    }

    /// In how many places every data chunk lies.
    pub fn copies(&self) -> usize {
        match &self.map {
            Map::Zones(_) | Map::Pattern { .. } => 1,
            Map::Mirror { .. } => self.raid_disks,
            Map::Copies(copies) => (copies.near * copies.far) as usize,
        }
    }

    /// The rows of a stripe, but for the last one of a mirror, which may have fewer.
    pub fn rows(&self) -> Sectors {
        self.rows
    }

    /// Which stripe has a column at sector `row` of a member's data area; `None` where the array has nothing.
    pub fn stripe_at(&self, slot: Slot, row: Lba) -> Option<StripeIndex> {
        if row.0 >= self.member_used(slot).0 {
            return None;
        }
        let chunk_row = row.0 / self.rows.0;
        match &self.map {
            Map::Zones(zones) => {
                let zone = last_of(zones, |zone| zone.member_start <= row);
                let row = (row - zone.member_start).0 / self.rows.0;
                Some(StripeIndex(zone.first_stripe + row))
            }
            Map::Mirror { .. } | Map::Pattern { .. } => Some(StripeIndex(chunk_row)),
            Map::Copies(copies) => copies.chunk_at(slot, chunk_row).map(StripeIndex),
        }
    }

    /// The space in which resync, check and the bitmap count: member sectors, array sectors for RAID10. RAID0 has
    /// nothing to bring in sync.
    pub fn sync_size(&self) -> Sectors {
        match &self.map {
            Map::Zones(_) => Sectors::ZERO,
            Map::Mirror { used } => *used,
            Map::Pattern { .. } | Map::Copies(_) => Sectors(self.stripes * self.rows.0),
        }
    }

    /// Where these rows of a stripe are in the sync space; empty for RAID0.
    pub fn sync_range(&self, stripe: StripeIndex, rows: Range<u64>) -> Range<u64> {
        assert!(stripe.0 < self.stripes, "{stripe:?} of {} stripes", self.stripes);
        assert!(rows.end <= self.rows.0, "{rows:?} of {:?}", self.rows);
        match &self.map {
            Map::Zones(_) => 0..0,
            _ => stripe.0 * self.rows.0 + rows.start..stripe.0 * self.rows.0 + rows.end,
        }
    }

    /// The stripe at a place of the sync space.
    pub fn stripe_of_sync(&self, place: u64) -> StripeIndex {
        assert!(place < self.sync_size().0, "{place} beyond {:?}", self.sync_size());
        StripeIndex(place / self.rows.0)
    }

    /// Whether md's superblock must say that its layout number counts (feature bit 4096): a RAID0 of more than one
    /// zone, which Linux since 5.4 does not start without.
    pub fn records_raid0_layout(&self) -> bool {
        matches!(&self.map, Map::Zones(zones) if zones.len() > 1)
    }

    /// The layout number for md's superblock.
    pub fn md_layout_number(&self) -> u32 {
        self.layout.md_number()
    }
}

impl Stripe {
    /// How much of the array it holds.
    pub fn data(&self) -> Sectors {
        Sectors(self.rows.0 * self.data_chunks as u64)
    }

    /// Which of its columns is in `slot`.
    pub fn column_in(&self, slot: Slot) -> Option<usize> {
        self.columns.iter().position(|column| column.slot == slot)
    }

    /// The slots it lies in.
    pub fn slots(&self) -> SlotSet {
        self.columns.iter().map(|column| usize::from(column.slot.0)).collect()
    }
}

impl Copies {
    fn new(disks: usize, near: u8, far: u8, offset: bool, member_chunks: u64) -> Copies {
        let (disks, near, far) = (disks as u64, u64::from(near), u64::from(far));
        let near_rows = member_chunks / far;
        Copies { disks, near, far, offset, near_rows, chunks: near_rows * disks / near }
    }

    /// Slot and row of every copy of a chunk. The first near copy comes with all its far copies, then the next.
    fn places(&self, chunk: u64) -> impl Iterator<Item = (Slot, u64)> {
        let wrapped = |disk| if disk < self.disks { (0, disk) } else { (1, disk - self.disks) };
        let (row, disk) = (chunk * self.near / self.disks, chunk * self.near % self.disks);
        (0..self.near).flat_map(move |near| {
            let (below, disk) = wrapped(disk + near);
            let row = row + below;
            (0..self.far).map(move |far| {
                let (_, slot) = wrapped(disk + far * self.near);
                let row = if self.offset { row * self.far + far } else { row + far * self.near_rows };
                (Slot(slot as u8), row)
            })
        })
    }

    /// The chunk in this row of a slot.
    fn chunk_at(&self, slot: Slot, row: u64) -> Option<u64> {
        let (row, far) = match self.offset {
            true => (row / self.far, row % self.far),
            false => (row % self.near_rows, row / self.near_rows),
        };
        let disk = (u64::from(slot.0) + self.disks - far * self.near) % self.disks;
        let chunk = (row * self.disks + disk) / self.near;
        (chunk < self.chunks).then_some(chunk)
    }

    /// The slots that share a chunk, for every such set. They recur after `disks` chunks.
    fn holders(&self) -> impl Iterator<Item = SlotSet> {
        let some = self.chunks.min(self.disks);
        (0..some).map(|chunk| self.places(chunk).map(|(slot, _)| usize::from(slot.0)).collect())
    }
}

/// Data of the stripe, where there is no Q.
fn data(index: usize) -> Role {
    Role::Data { index: index as u8, exponent: 0 }
}

/// The last item that `begins`, of a list whose first one does.
fn last_of<T>(items: &[T], begins: impl Fn(&T) -> bool) -> &T {
    &items[items.partition_point(begins) - 1]
}

/// Zone 0 ends with the shortest member, each further one with the next longer.
fn zones(sizes: &[Sectors], chunk: Sectors, layout: Layout) -> Result<Vec<Zone>, GeometryError> {
    let used: Vec<Sectors> = sizes.iter().map(|size| size.round_down(chunk)).collect();
    let mut ends = used.clone();
    ends.sort_unstable();
    ends.dedup();

    let mut zones = Vec::with_capacity(ends.len());
    let (mut start, mut member_start, mut first_stripe) = (Lba(0), Lba(0), 0);
    for end in ends {
        let mut slots: SmallVec<[Slot; 8]> =
            (0..used.len()).filter(|slot| used[*slot] >= end).map(|slot| Slot(slot as u8)).collect();
        if slots.len() > 1 && start > Lba(0) {
            match layout {
                Layout::Raid0(Raid0Layout::Original) => {
                    let first = start.0 / chunk.0 % slots.len() as u64;
                    slots.rotate_left(first as usize);
                }
                Layout::Raid0(Raid0Layout::Alternate) => {}
                _ => return Err(GeometryError::Raid0LayoutUnknown),
            }
        }
        let length = end - (member_start - Lba(0));
        let (stripes, data) = (length.0 / chunk.0, Sectors(length.0 * slots.len() as u64));
        zones.push(Zone { start, member_start, first_stripe, stripes, slots });
        start = start + data;
        member_start = member_start + length;
        first_stripe += stripes;
    }
    Ok(zones)
}

/// The columns of RAID4, 5 and 6 (their base left 0) for each row until they recur.
fn parity_pattern(layout: Layout, disks: usize) -> Vec<Columns> {
    match layout {
        Layout::Raid6(layout) => {
            let rotating = disks - usize::from(raid5_part(layout).is_some());
            (0..rotating).map(|row| raid6_columns(layout, disks, row)).collect()
        }
        Layout::Raid5(layout) => (0..disks).map(|row| columns(&raid5_row(layout, disks, row), None, |_| 0)).collect(),
        // RAID4.
        _ => vec![columns(&raid5_row(Raid5Layout::ParityLast, disks, 0), None, |_| 0)],
    }
}

/// One row of a parity level: the slots of P and of the data in array order.
struct Row {
    p: usize,
    data: Vec<usize>,
}

fn raid5_row(layout: Raid5Layout, disks: usize, row: usize) -> Row {
    use Raid5Layout as L;
    let p = match layout {
        L::LeftAsymmetric | L::LeftSymmetric => disks - 1 - row,
        L::RightAsymmetric | L::RightSymmetric => row,
        L::ParityFirst => 0,
        L::ParityLast => disks - 1,
    };
    let slot = |index: usize| match layout {
        L::LeftSymmetric | L::RightSymmetric => (p + 1 + index) % disks,
        L::LeftAsymmetric | L::RightAsymmetric | L::ParityFirst | L::ParityLast => index + usize::from(index >= p),
    };
    Row { p, data: (0..disks - 1).map(slot).collect() }
}

/// What all members but the last are, in a layout with Q on the last.
fn raid5_part(layout: Raid6Layout) -> Option<Raid5Layout> {
    match layout {
        Raid6Layout::LeftAsymmetric6 => Some(Raid5Layout::LeftAsymmetric),
        Raid6Layout::RightAsymmetric6 => Some(Raid5Layout::RightAsymmetric),
        Raid6Layout::LeftSymmetric6 => Some(Raid5Layout::LeftSymmetric),
        Raid6Layout::RightSymmetric6 => Some(Raid5Layout::RightSymmetric),
        Raid6Layout::ParityFirst6 => Some(Raid5Layout::ParityFirst),
        _ => None,
    }
}

fn raid6_columns(layout: Raid6Layout, disks: usize, row: usize) -> Columns {
    use Raid6Layout as L;
    let (row, q) = match raid5_part(layout) {
        Some(raid5) => (raid5_row(raid5, disks - 1, row), disks - 1),
        None => raid6_row(layout, disks, row),
    };
    // md numbers the data by walking the slots from the one behind Q, DDF by slot.
    let behind_q = |slot: usize| {
        let walked = (slot + disks - q - 1) % disks;
        let p_walked = (row.p + disks - q - 1) % disks;
        walked - usize::from(p_walked < walked)
    };
    match layout {
        L::DdfZeroRestart | L::DdfNRestart | L::DdfNContinue => columns(&row, Some(q), |slot| slot),
        _ => columns(&row, Some(q), behind_q),
    }
}

/// The layouts that are RAID6's own: P and data of a row, and Q.
fn raid6_row(layout: Raid6Layout, disks: usize, row: usize) -> (Row, usize) {
    use Raid6Layout as L;
    let p = match layout {
        L::RightAsymmetric | L::RightSymmetric | L::DdfZeroRestart => row,
        L::DdfNRestart => disks - 1 - (row + 1) % disks,
        L::ParityFirst => 0,
        L::ParityLast => disks - 2,
        _ => disks - 1 - row,
    };
    let q = match layout {
        L::DdfNContinue => (p + disks - 1) % disks,
        _ => (p + 1) % disks,
    };
    let slot = |index: usize| match layout {
        L::LeftSymmetric | L::RightSymmetric => (p + 2 + index) % disks,
        L::DdfNContinue => (p + 1 + index) % disks,
        // Q has wrapped to slot 0.
        _ if p == disks - 1 => index + 1,
        _ => index + 2 * usize::from(index >= p),
    };
    (Row { p, data: (0..disks - 2).map(slot).collect() }, q)
}

fn columns(row: &Row, q: Option<usize>, exponent: impl Fn(usize) -> usize) -> Columns {
    let column = |slot: usize, role| Column { slot: Slot(slot as u8), role, base: Lba(0) };
    let data = row
        .data
        .iter()
        .enumerate()
        .map(|(index, slot)| column(*slot, Role::Data { index: index as u8, exponent: exponent(*slot) as u8 }));
    data.chain([column(row.p, Role::P)]).chain(q.map(|q| column(q, Role::Q))).collect()
}

fn check_disks(config: &GeometryConfig) -> Result<(), GeometryError> {
    let (level, disks) = (config.level, config.raid_disks);
    let fewest = match level {
        Level::Raid0 | Level::Raid1 => 1,
        Level::Raid4 | Level::Raid5 | Level::Raid10 => 2,
        Level::Raid6 => 4,
    };
    if (fewest..=MEMBERS_MOST).contains(&disks) {
        return Ok(());
    }
    Err(GeometryError::Disks { level, disks, fewest })
}

fn check_layout(config: &GeometryConfig) -> Result<(), GeometryError> {
    let (level, layout, disks) = (config.level, config.layout, config.raid_disks);
    if !layout.is_of(level) {
        return Err(GeometryError::LayoutOfOtherLevel { level, layout });
    }
    let Layout::Raid10 { near, far, offset } = layout else { return Ok(()) };
    let copies = usize::from(near) * usize::from(far);
    if !(2..=disks).contains(&copies) {
        return Err(GeometryError::Copies { layout, copies, disks });
    }
    if offset && far == 1 {
        return Err(GeometryError::OffsetWithoutFar { layout, near });
    }
    if offset && !disks.is_multiple_of(usize::from(near)) {
        return Err(GeometryError::OffsetOverlap { layout, near, disks });
    }
    Ok(())
}

fn check_chunk(config: &GeometryConfig) -> Result<(), GeometryError> {
    let chunk = config.chunk;
    if config.level == Level::Raid1 && chunk == Sectors::ZERO {
        return Ok(());
    }
    if !CHUNK_RANGE.contains(&chunk.0) {
        return Err(GeometryError::ChunkOutOfRange { chunk });
    }
    if chunk.0.is_power_of_two() {
        return Ok(());
    }
    Err(GeometryError::ChunkNotPowerOfTwo { chunk })
}

fn check_sizes(config: &GeometryConfig) -> Result<(), GeometryError> {
    let (level, disks) = (config.level, config.raid_disks);
    let total = match &config.member_sizes {
        MemberSizes::Common(size) => u128::from(size.0) * disks as u128,
        MemberSizes::PerSlot(_) if level != Level::Raid0 => return Err(GeometryError::SizesNotCommon { level }),
        MemberSizes::PerSlot(sizes) if sizes.len() != disks => {
            return Err(GeometryError::SizesMiscounted { sizes: sizes.len(), disks });
        }
        MemberSizes::PerSlot(sizes) => sizes.iter().map(|size| u128::from(size.0)).sum(),
    };
    if total <= u128::from(SECTORS_MOST) {
        return Ok(());
    }
    Err(GeometryError::TooLarge)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const CHUNK: Sectors = Sectors(8);

    fn geometry(level: Level, layout: Layout, raid_disks: usize, sizes: MemberSizes) -> Geometry {
        let chunk = if level == Level::Raid1 { Sectors::ZERO } else { CHUNK };
        let config = GeometryConfig { level, layout, raid_disks, chunk, member_sizes: sizes };
        Geometry::new(config.clone()).unwrap_or_else(|error| panic!("{config:?}: {error}"))
    }

    fn refused(level: Level, layout: Layout, raid_disks: usize, chunk: u64, size: u64) -> GeometryError {
        let member_sizes = MemberSizes::Common(Sectors(size));
        let config = GeometryConfig { level, layout, raid_disks, chunk: Sectors(chunk), member_sizes };
        Geometry::new(config).expect_err("not an array")
    }

    fn chunks(count: u64) -> MemberSizes {
        MemberSizes::Common(Sectors(count * CHUNK.0))
    }

    fn raid10(near: u8, far: u8, offset: bool) -> Layout {
        Layout::Raid10 { near, far, offset }
    }

    /// Every RAID10 layout that `disks` take.
    fn raid10_layouts(disks: usize) -> Vec<Layout> {
        let mut layouts = Vec::new();
        for (near, far) in (1..=disks).flat_map(|near| (1..=disks / near).map(move |far| (near, far))) {
            if near * far > 1 {
                layouts.push(raid10(near as u8, far as u8, false));
            }
            if far > 1 && disks.is_multiple_of(near) {
                layouts.push(raid10(near as u8, far as u8, true));
            }
        }
        layouts
    }

    /// Every level and layout that `disks` of one size take.
    fn all_of(disks: usize) -> Vec<(Level, Layout)> {
        let mut all = vec![(Level::Raid0, Layout::None), (Level::Raid1, Layout::None)];
        if disks >= 2 {
            all.push((Level::Raid4, Layout::None));
            all.extend(Raid5Layout::ALL.map(|layout| (Level::Raid5, Layout::Raid5(layout))));
            all.extend(raid10_layouts(disks).into_iter().map(|layout| (Level::Raid10, layout)));
        }
        if disks >= 4 {
            all.extend(Raid6Layout::ALL.map(|layout| (Level::Raid6, Layout::Raid6(layout))));
        }
        all
    }

    /// The slow model: members drawn as tables of chunks, filled by dealing and shuffling as md's manual tells it, with
    /// no address computed.
    mod model {
        use super::*;

        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Cell {
            /// The `copy`th copy of a chunk of the array, with its exponent in Q.
            Data {
                chunk: u64,
                copy: usize,
                exponent: u8,
            },
            P,
            Q,
            Unused,
        }
        use Cell::{P, Q, Unused};

        /// `table[row][slot]`; slots that ended are `Unused`.
        pub type Table = Vec<Vec<Cell>>;

        fn deal(count: usize, next: &mut u64) -> Vec<Cell> {
            (0..count)
                .map(|_| {
                    *next += 1;
                    Cell::Data { chunk: *next - 1, copy: 0, exponent: 0 }
                })
                .collect()
        }

        pub fn raid0(layout: Raid0Layout, lengths: &[usize]) -> Table {
            let mut next = 0;
            let mut zone_row = 0;
            let mut table: Table = Vec::new();
            for row in 0..*lengths.iter().max().expect("members") {
                let members: Vec<usize> = (0..lengths.len()).filter(|slot| lengths[*slot] > row).collect();
                let mut cells = vec![Unused; lengths.len()];
                if row > 0 && lengths.contains(&row) {
                    zone_row = 0;
                }
                for (i, cell) in deal(members.len(), &mut next).into_iter().enumerate() {
                    let Cell::Data { chunk, .. } = cell else { unreachable!("only data is dealt") };
                    let turn = match layout {
                        Raid0Layout::Original => chunk as usize,
                        Raid0Layout::Alternate => zone_row * members.len() + i,
                    };
                    cells[members[turn % members.len()]] = cell;
                }
                zone_row += 1;
                table.push(cells);
            }
            table
        }

        /// Parity goes round once and begins again: `left` from the last slot to the first, else the other way.
        fn going_round(disks: usize, left: bool) -> impl Iterator<Item = usize> {
            let round: Vec<usize> = if left { (0..disks).rev().collect() } else { (0..disks).collect() };
            round.into_iter().cycle()
        }

        pub fn raid5(layout: Raid5Layout, disks: usize, rows: usize) -> Table {
            use Raid5Layout as L;
            let mut next = 0;
            let left = matches!(layout, L::LeftAsymmetric | L::LeftSymmetric);
            going_round(disks, left)
                .take(rows)
                .map(|turn| {
                    let mut row = deal(disks - 1, &mut next);
                    match layout {
                        L::LeftAsymmetric | L::RightAsymmetric => row.insert(turn, P),
                        L::LeftSymmetric | L::RightSymmetric => {
                            row.insert(0, P);
                            row.rotate_right(turn);
                        }
                        L::ParityFirst => row.insert(0, P),
                        L::ParityLast => row.push(P),
                    }
                    row
                })
                .collect()
        }

        pub fn raid6(layout: Raid6Layout, disks: usize, rows: usize) -> Table {
            use Raid6Layout as L;
            let with_q = |layout| -> Table {
                let mut table = raid5(layout, disks - 1, rows);
                table.iter_mut().for_each(|row| row.push(Q));
                table
            };
            let mut next = 0;
            let mut rotating = |left, turns_ahead, fill: fn(Vec<Cell>, usize) -> Vec<Cell>| -> Table {
                let turns = going_round(disks, left).skip(turns_ahead).take(rows);
                turns.map(|turn| fill(deal(disks - 2, &mut next), turn)).collect()
            };
            // P and Q stay together, Q behind P and round the corner if need be.
            let asymmetric = |mut data: Vec<Cell>, turn: usize| {
                if turn == data.len() + 1 {
                    return [vec![Q], data, vec![P]].concat();
                }
                data.splice(turn..turn, [P, Q]);
                data
            };
            let symmetric = |data: Vec<Cell>, turn| {
                let mut row = [vec![P, Q], data].concat();
                row.rotate_right(turn);
                row
            };
            let mut table = match layout {
                L::LeftAsymmetric => rotating(true, 0, asymmetric),
                L::RightAsymmetric | L::DdfZeroRestart => rotating(false, 0, asymmetric),
                L::DdfNRestart => rotating(true, 1, asymmetric),
                L::LeftSymmetric => rotating(true, 0, symmetric),
                L::RightSymmetric => rotating(false, 0, symmetric),
                L::DdfNContinue => rotating(true, 0, |data, turn| {
                    let mut row = [vec![P], data, vec![Q]].concat();
                    row.rotate_right(turn);
                    row
                }),
                L::ParityFirst => rotating(true, 0, |data, _| [vec![P, Q], data].concat()),
                L::ParityLast => rotating(true, 0, |data, _| [data, vec![P, Q]].concat()),
                L::LeftAsymmetric6 => with_q(Raid5Layout::LeftAsymmetric),
                L::RightAsymmetric6 => with_q(Raid5Layout::RightAsymmetric),
                L::LeftSymmetric6 => with_q(Raid5Layout::LeftSymmetric),
                L::RightSymmetric6 => with_q(Raid5Layout::RightSymmetric),
                L::ParityFirst6 => with_q(Raid5Layout::ParityFirst),
            };
            let by_slot = matches!(layout, L::DdfZeroRestart | L::DdfNRestart | L::DdfNContinue);
            for row in &mut table {
                if by_slot {
                    for (slot, cell) in row.iter_mut().enumerate() {
                        number(cell, slot);
                    }
                    continue;
                }
                let q = row.iter().position(|cell| *cell == Q).expect("every row has a Q");
                let behind_q = (q + 1..disks).chain(0..q);
                let data: Vec<usize> = behind_q.filter(|slot| matches!(row[*slot], Cell::Data { .. })).collect();
                for (exponent, slot) in data.into_iter().enumerate() {
                    number(&mut row[slot], exponent);
                }
            }
            table
        }

        fn number(cell: &mut Cell, to: usize) {
            if let Cell::Data { exponent, .. } = cell {
                *exponent = to as u8;
            }
        }

        /// Near copies dealt row by row; then every row repeated, turned, one below the other or section by section.
        pub fn raid10(near: usize, far: usize, offset: bool, disks: usize, rows: usize) -> Table {
            let near_rows = rows / far;
            let mut cards: Vec<Cell> = deal(near_rows * disks / near, &mut 0)
                .into_iter()
                .flat_map(|cell| (0..near).map(move |copy| nth_copy(cell, copy * far)))
                .collect();
            cards.resize(near_rows * disks, Unused);
            let section: Table = cards.chunks(disks).map(<[Cell]>::to_vec).collect();
            let turned = |row: &Vec<Cell>, times: usize| -> Vec<Cell> {
                let mut row: Vec<Cell> = row.iter().map(|cell| nth_copy(*cell, times)).collect();
                row.rotate_right(times * near);
                row
            };
            match offset {
                true => section.iter().flat_map(|row| (0..far).map(|times| turned(row, times))).collect(),
                false => (0..far).flat_map(|times| section.iter().map(move |row| turned(row, times))).collect(),
            }
        }

        fn nth_copy(cell: Cell, more: usize) -> Cell {
            match cell {
                Cell::Data { chunk, copy, exponent } => Cell::Data { chunk, copy: copy + more, exponent },
                other => other,
            }
        }

        pub fn table(level: Level, layout: Layout, disks: usize, rows: usize) -> Table {
            match (level, layout) {
                (Level::Raid0, _) => raid0(Raid0Layout::Alternate, &vec![rows; disks]),
                (Level::Raid4, _) => raid5(Raid5Layout::ParityLast, disks, rows),
                (_, Layout::Raid5(layout)) => raid5(layout, disks, rows),
                (_, Layout::Raid6(layout)) => raid6(layout, disks, rows),
                (_, Layout::Raid10 { near, far, offset }) => raid10(near.into(), far.into(), offset, disks, rows),
                _ => panic!("{level} has no chunks"),
            }
        }
    }
    use model::Cell;

    /// Draws the same table by asking the geometry stripe by stripe.
    fn drawn(geometry: &Geometry) -> model::Table {
        let disks = geometry.raid_disks();
        let rows = (0..disks).map(|slot| geometry.member_used(Slot(slot as u8)).0 / CHUNK.0).max().expect("members");
        let mut table = vec![vec![Cell::Unused; disks]; rows as usize];
        for k in 0..geometry.stripes() {
            let stripe = geometry.stripe(StripeIndex(k));
            assert_eq!(stripe.rows, CHUNK);
            for (i, column) in stripe.columns.iter().enumerate() {
                let cell = &mut table[(column.base.0 / CHUNK.0) as usize][usize::from(column.slot.0)];
                assert_eq!(*cell, Cell::Unused, "two columns at {column:?}");
                *cell = match column.role {
                    Role::Data { index, exponent } => Cell::Data {
                        chunk: stripe.start.0 / CHUNK.0 + u64::from(index),
                        copy: if geometry.level() == Level::Raid10 { i } else { 0 },
                        exponent,
                    },
                    Role::P => Cell::P,
                    Role::Q => Cell::Q,
                };
            }
        }
        table
    }

    /// Data columns first and in array order, then P, then Q; each in its own slot.
    fn in_order(geometry: &Geometry, stripe: &Stripe) {
        let roles: Vec<Role> = stripe.columns.iter().map(|column| column.role).collect();
        let (first, parity) = roles.split_at(roles.len() - geometry.parity_count());
        for (i, role) in first.iter().enumerate() {
            let Role::Data { index, .. } = role else { panic!("{roles:?}") };
            assert_eq!(usize::from(*index), if stripe.data_chunks == 1 { 0 } else { i });
        }
        assert_eq!(parity, &[Role::P, Role::Q][..geometry.parity_count()]);
        assert_eq!(stripe.slots().len(), roles.len());
    }

    /// Every stripe answers for its own sectors, in the array, on its members and in the sync space, and together
    /// they fill all three.
    fn holds_together(geometry: &Geometry) {
        let (mut array, mut sync) = (0, 0);
        let mut used: BTreeMap<(Slot, u64), StripeIndex> = BTreeMap::new();
        for k in (0..geometry.stripes()).map(StripeIndex) {
            let stripe = geometry.stripe(k);
            in_order(geometry, &stripe);
            assert_eq!(stripe.start, Lba(array));
            for offset in 0..stripe.data().0 {
                assert_eq!(geometry.locate(Lba(array + offset)), (k, Sectors(offset)));
            }
            array += stripe.data().0;
            for column in &stripe.columns {
                assert_eq!(stripe.column_in(column.slot).map(|i| stripe.columns[i]), Some(*column));
                for row in column.base.0..(column.base + stripe.rows).0 {
                    assert_eq!(used.insert((column.slot, row), k), None, "{column:?} is taken");
                }
            }
            let range = geometry.sync_range(k, 0..stripe.rows.0);
            if geometry.level() == Level::Raid0 {
                assert!(range.is_empty());
                continue;
            }
            assert_eq!(range.start, sync);
            sync = range.end;
            assert!(range.clone().all(|place| geometry.stripe_of_sync(place) == k));
            assert_eq!(geometry.sync_range(k, 1..2), range.start + 1..range.start + 2);
        }
        assert_eq!(Sectors(array), geometry.capacity());
        assert_eq!(Sectors(sync), geometry.sync_size());
        for slot in (0..geometry.raid_disks()).map(|slot| Slot(slot as u8)) {
            for row in 0..geometry.member_used(slot).0 + 2 * CHUNK.0 {
                assert_eq!(geometry.stripe_at(slot, Lba(row)), used.remove(&(slot, row)), "{slot:?} {row}");
            }
        }
        assert_eq!(used.len(), 0, "columns beyond what members are said to use");
    }

    /// Asks the table: is there, for every row or chunk, enough left?
    fn table_survives(table: &model::Table, parity: usize, missing: SlotSet) -> bool {
        if parity > 0 {
            return missing.len() <= parity;
        }
        let cells = |lost: bool| {
            table.iter().flat_map(move |row| {
                let here = row.iter().enumerate().filter(move |(slot, _)| !lost || !missing.contains(*slot));
                here.filter_map(|(_, cell)| match cell {
                    Cell::Data { chunk, .. } => Some(*chunk),
                    _ => None,
                })
            })
        };
        cells(false).collect::<BTreeSet<_>>() == cells(true).collect::<BTreeSet<_>>()
    }

    #[test]
    fn every_layout_on_up_to_eight_members_is_the_table_md_fills() {
        for disks in 1..=8 {
            for (level, layout) in all_of(disks) {
                if level == Level::Raid1 {
                    continue;
                }
                let copies = if let Layout::Raid10 { far, .. } = layout { far.into() } else { 1 };
                for rows in copies..=3 * disks.max(copies) {
                    let geometry = geometry(level, layout, disks, chunks(rows as u64));
                    let table = model::table(level, layout, disks, rows);
                    assert_eq!(drawn(&geometry), table, "{level} {layout} on {disks}");
                }
            }
        }
    }

    #[test]
    fn every_layout_on_up_to_eight_members_holds_together() {
        for disks in 1..=8 {
            for (level, layout) in all_of(disks) {
                for size in [17, 8 * (disks as u64 + 1), 129, 8 * (2 * disks as u64 + 3) + 7] {
                    if let Layout::Raid10 { far, .. } = layout
                        && size / 8 < u64::from(far)
                    {
                        continue;
                    }
                    holds_together(&geometry(level, layout, disks, MemberSizes::Common(Sectors(size))));
                }
            }
        }
    }

    #[test]
    fn raid0_on_unequal_members_is_the_table_md_fills() {
        for layout in [Raid0Layout::Original, Raid0Layout::Alternate] {
            for disks in 1..=4_u32 {
                for code in 0..4_usize.pow(disks) {
                    let lengths: Vec<usize> = (0..disks).map(|i| code / 4_usize.pow(i) % 4 + 1).collect();
                    let sizes = lengths.iter().enumerate().map(|(i, rows)| Sectors((rows * 8 + i) as u64)).collect();
                    let geometry =
                        geometry(Level::Raid0, Layout::Raid0(layout), lengths.len(), MemberSizes::PerSlot(sizes));
                    assert_eq!(drawn(&geometry), model::raid0(layout, &lengths), "{layout:?} {lengths:?}");
                    holds_together(&geometry);
                }
            }
        }
    }

    #[test]
    fn an_array_survives_exactly_the_losses_its_table_survives() {
        for disks in 1..=8 {
            for (level, layout) in all_of(disks) {
                for rows in [1, 4, 9] {
                    let far = if let Layout::Raid10 { far, .. } = layout { far.into() } else { 1 };
                    let geometry = geometry(level, layout, disks, chunks(rows * far));
                    let mut fatal = usize::MAX;
                    for missing in geometry.slots().subsets() {
                        let survives = match level {
                            Level::Raid1 => missing.len() < disks,
                            _ => table_survives(&drawn(&geometry), geometry.parity_count(), missing),
                        };
                        assert_eq!(
                            geometry.survives(missing),
                            survives,
                            "{level} {layout} on {disks} less {missing:?}"
                        );
                        if !survives {
                            fatal = fatal.min(missing.len());
                        }
                    }
                    assert_eq!(geometry.tolerance() + 1, fatal, "{level} {layout} on {disks}");
                }
            }
        }
    }

    #[test]
    fn left_symmetric_raid5_is_the_textbook_picture() {
        let geometry = geometry(Level::Raid5, Layout::default_of(Level::Raid5), 4, chunks(4));
        let picture: Vec<String> = drawn(&geometry)
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| if let Cell::Data { chunk, .. } = cell { format!(" {chunk}") } else { " P".into() })
                    .collect()
            })
            .collect();
        assert_eq!(picture, [" 0 1 2 P", " 4 5 P 3", " 8 P 6 7", " P 9 10 11"]);
    }

    /// A trap: with data restarting at slot 0 the power of two in Q is not the number of the chunk.
    #[test]
    fn asymmetric_raid6_counts_exponents_from_behind_q() {
        let geometry = geometry(Level::Raid6, Layout::Raid6(Raid6Layout::LeftAsymmetric), 5, chunks(5));
        let stripe = geometry.stripe(StripeIndex(2));
        let columns: Vec<(u8, Role)> = stripe.columns.iter().map(|column| (column.slot.0, column.role)).collect();
        let data = |index, exponent| Role::Data { index, exponent };
        assert_eq!(columns, [(0, data(0, 1)), (1, data(1, 2)), (4, data(2, 0)), (2, Role::P), (3, Role::Q)]);
    }

    /// md's own, longer formula for the distance of far copies. The rows it gives equal ours as long as there are no
    /// more copies than members, which is why geometry refuses those.
    #[test]
    fn the_far_stride_is_mds_with_odd_members_too() {
        let odd = geometry(Level::Raid10, raid10(1, 2, false), 3, chunks(5));
        assert_eq!((odd.stripes(), odd.member_used(Slot(0))), (6, Sectors(4 * CHUNK.0)));
        let bases: Vec<_> = odd.stripe(StripeIndex(2)).columns.iter().map(|c| (c.slot.0, c.base.0)).collect();
        assert_eq!(bases, [(2, 0), (0, 2 * CHUNK.0)]);
        for disks in 2..=16 {
            for layout in raid10_layouts(disks) {
                let Layout::Raid10 { near, far, .. } = layout else { unreachable!("RAID10") };
                let (near, far, n) = (u64::from(near), u64::from(far), disks as u64);
                for size in far..50 {
                    let total = size / far * n / near;
                    let used = (total * near * far).div_ceil(n);
                    let geometry = geometry(Level::Raid10, layout, disks, chunks(size));
                    assert_eq!(geometry.stripes(), total);
                    assert_eq!(geometry.member_used(Slot(0)), Sectors(used * CHUNK.0), "{layout} on {disks}");
                    assert_eq!(used / far * far, used, "the stride is whole");
                }
            }
        }
    }

    /// Three members of 1, 3 and 3 chunks: the second zone has two members and begins at array chunk 3, an odd one.
    #[test]
    fn raid0_layouts_differ_in_who_begins_the_second_zone() {
        let sizes = || MemberSizes::PerSlot([1, 3, 3].map(|chunks| Sectors(chunks * CHUNK.0)).into());
        let begins = |layout| {
            let geometry = geometry(Level::Raid0, Layout::Raid0(layout), 3, sizes());
            assert!(geometry.records_raid0_layout());
            assert_eq!(geometry.capacity(), Sectors(7 * CHUNK.0));
            let (stripe, offset) = geometry.locate(Lba(3 * CHUNK.0));
            assert_eq!((stripe, offset), (StripeIndex(1), Sectors(0)));
            geometry.stripe(stripe).columns[0].slot
        };
        assert_eq!(begins(Raid0Layout::Original), Slot(2));
        assert_eq!(begins(Raid0Layout::Alternate), Slot(1));

        let config = |member_sizes| GeometryConfig {
            level: Level::Raid0,
            layout: Layout::None,
            raid_disks: 3,
            chunk: CHUNK,
            member_sizes,
        };
        assert_eq!(Geometry::new(config(sizes())).err(), Some(GeometryError::Raid0LayoutUnknown));
        let one_goes_on = MemberSizes::PerSlot([1, 1, 3].map(|chunks| Sectors(chunks * CHUNK.0)).into());
        assert!(Geometry::new(config(one_goes_on)).is_ok());
        assert!(!Geometry::new(config(chunks(3))).expect("one zone").records_raid0_layout());
    }

    #[test]
    fn the_last_stripe_of_a_mirror_may_be_short() {
        let geometry = geometry(Level::Raid1, Layout::None, 3, MemberSizes::Common(Sectors(300)));
        assert_eq!((geometry.stripes(), geometry.stripe_data()), (3, Sectors(128)));
        assert_eq!(geometry.stripe(StripeIndex(2)).rows, Sectors(44));
        assert_eq!(geometry.locate(Lba(299)), (StripeIndex(2), Sectors(43)));
        assert_eq!(geometry.stripe_at(Slot(1), Lba(300)), None);
    }

    #[test]
    fn what_cannot_be_an_array_is_refused() {
        use GeometryError as E;
        let (ls5, ls6) = (Layout::default_of(Level::Raid5), Layout::default_of(Level::Raid6));
        let n2 = Layout::default_of(Level::Raid10);
        let disks = |level, layout, disks| matches!(refused(level, layout, disks, 8, 64), E::Disks { .. });
        assert!(disks(Level::Raid0, Layout::None, 0) && disks(Level::Raid1, Layout::None, 0));
        assert!(disks(Level::Raid4, Layout::None, 1) && disks(Level::Raid5, ls5, 1));
        assert!(disks(Level::Raid6, ls6, 3) && disks(Level::Raid10, n2, 1) && disks(Level::Raid5, ls5, 65));
        assert!(matches!(refused(Level::Raid5, ls6, 4, 8, 64), E::LayoutOfOtherLevel { .. }));
        assert!(matches!(refused(Level::Raid5, Layout::None, 4, 8, 64), E::LayoutOfOtherLevel { .. }));
        assert!(matches!(refused(Level::Raid10, raid10(3, 2, false), 5, 8, 64), E::Copies { copies: 6, disks: 5, .. }));
        assert!(matches!(refused(Level::Raid10, raid10(1, 1, false), 5, 8, 64), E::Copies { copies: 1, .. }));
        assert!(matches!(refused(Level::Raid10, raid10(2, 1, true), 4, 8, 64), E::OffsetWithoutFar { .. }));
        assert!(matches!(refused(Level::Raid10, raid10(2, 2, true), 5, 8, 64), E::OffsetOverlap { .. }));
        for chunk in [0, 16384, u64::MAX] {
            assert!(matches!(refused(Level::Raid5, ls5, 4, chunk, 1 << 40), E::ChunkOutOfRange { .. }), "{chunk}");
        }
        assert!(matches!(refused(Level::Raid0, Layout::None, 2, 40, 400), E::ChunkNotPowerOfTwo { .. }));
        assert!(matches!(refused(Level::Raid1, Layout::None, 2, 40, 400), E::ChunkNotPowerOfTwo { .. }));
        assert!(matches!(refused(Level::Raid5, ls5, 4, 128, 127), E::TooSmall { .. }));
        assert!(matches!(refused(Level::Raid1, Layout::None, 2, 0, 0), E::TooSmall { .. }));
        assert!(matches!(
            refused(Level::Raid10, raid10(1, 3, false), 4, 8, 23),
            E::TooSmall { needed: Sectors(24), .. }
        ));
        assert_eq!(refused(Level::Raid5, ls5, 4, 8, u64::MAX), E::TooLarge);
        let per_slot = |level, layout, sizes| {
            let member_sizes = MemberSizes::PerSlot(sizes);
            Geometry::new(GeometryConfig { level, layout, raid_disks: 2, chunk: CHUNK, member_sizes }).err()
        };
        assert_eq!(per_slot(Level::Raid0, Layout::None, vec![CHUNK]), Some(E::SizesMiscounted { sizes: 1, disks: 2 }));
        assert_eq!(per_slot(Level::Raid5, ls5, vec![CHUNK; 2]), Some(E::SizesNotCommon { level: Level::Raid5 }));
        let short = per_slot(Level::Raid0, Layout::None, vec![CHUNK, Sectors(7)]);
        assert_eq!(short, Some(E::TooSmall { size: Sectors(7), needed: CHUNK }));
    }

    /// Any array there can be, up to 64 members and real sizes.
    fn any_geometry() -> impl Strategy<Value = Geometry> {
        (1..=64_usize, 3..=13_u32, any::<prop::sample::Index>()).prop_flat_map(|(disks, chunk_shift, pick)| {
            let (level, layout) = *pick.get(&all_of(disks));
            let chunk = Sectors(1 << chunk_shift);
            let far = if let Layout::Raid10 { far, .. } = layout { u64::from(far) } else { 1 };
            let sizes = match level {
                Level::Raid0 => prop::collection::vec((chunk.0..1 << 36).prop_map(Sectors), disks)
                    .prop_map(MemberSizes::PerSlot)
                    .boxed(),
                _ => (chunk.0 * far..1 << 40).prop_map(|size| MemberSizes::Common(Sectors(size))).boxed(),
            };
            (sizes, any::<bool>()).prop_map(move |(member_sizes, original)| {
                let raid0 = if original { Raid0Layout::Original } else { Raid0Layout::Alternate };
                let layout = if level == Level::Raid0 { Layout::Raid0(raid0) } else { layout };
                let config = GeometryConfig { level, layout, raid_disks: disks, chunk, member_sizes };
                Geometry::new(config).expect("an array")
            })
        })
    }

    proptest! {
        /// From the array to the members and back: every sector of the array finds its columns, and those find it.
        #[test]
        fn array_and_member_sectors_lead_to_each_other(geometry in any_geometry(), at in any::<prop::sample::Index>()) {
            let capacity = geometry.capacity().0;
            for lba in [at.index(capacity as usize) as u64, 0, capacity - 1].map(Lba) {
                let (k, offset) = geometry.locate(lba);
                let stripe = geometry.stripe(k);
                in_order(&geometry, &stripe);
                prop_assert_eq!(stripe.start + offset, lba);
                prop_assert!(offset < stripe.data());
                let row = Sectors(offset.0 % stripe.rows.0);
                let chunk = (offset.0 / geometry.rows().0) as usize;
                let holds = |role: Role| matches!(role, Role::Data { index, .. } if usize::from(index) == chunk);
                let held = stripe.columns.iter().copied().filter(|column| holds(column.role));
                let named = (0..geometry.copies()).map(|copy| geometry.data_column(k, chunk, copy));
                prop_assert!(held.eq(named));
                for column in &stripe.columns {
                    prop_assert_eq!(geometry.stripe_at(column.slot, column.base + row), Some(k));
                    prop_assert!((column.base + stripe.rows).0 <= geometry.member_used(column.slot).0);
                }
                if geometry.sync_size() > Sectors::ZERO {
                    let range = geometry.sync_range(k, row.0..row.0 + 1);
                    prop_assert_eq!(geometry.stripe_of_sync(range.start), k);
                    prop_assert!(range.end <= geometry.sync_size().0);
                }
            }
        }

        /// From a member to the array: every sector in use belongs to one column of the stripe that claims it.
        #[test]
        fn member_sectors_belong_to_the_stripe_that_claims_them(
            geometry in any_geometry(),
            slot in 0..64_u8,
            at in any::<prop::sample::Index>(),
        ) {
            let slot = Slot(slot % geometry.raid_disks() as u8);
            let used = geometry.member_used(slot);
            for row in [at.index(used.0 as usize) as u64, 0, used.0 - 1].map(Lba) {
                let Some(k) = geometry.stripe_at(slot, row) else {
                    prop_assert_eq!(geometry.level(), Level::Raid10);
                    continue;
                };
                let stripe = geometry.stripe(k);
                let column = stripe.columns[stripe.column_in(slot).expect("the stripe is there")];
                prop_assert!((column.base.0..(column.base + stripe.rows).0).contains(&row.0));
            }
            prop_assert_eq!(geometry.stripe_at(slot, Lba(used.0)), None);
        }
    }
}
