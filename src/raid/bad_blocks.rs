//! The bad-block log: sectors of one member that hold no good data.
//!
//! When a sector cannot be recovered because its last copy is unreadable, md writes it down on the
//! member that should have it and goes on, instead of giving up the member or the whole array.
//! Reading such a sector is an error of exactly that sector until it is written anew.
//!
//! On disk the log is a list of 64-bit entries, `sector << 10 | count`, 512 of them in 4 KiB, ended
//! by one of all ones. Sectors are counted from the start of the member, not of its data; entries
//! cover 512 units at most and come in any order. The source of the format is `drivers/md/md.c` of Linux.

use rangemap::RangeSet;
use thiserror::Error;

use super::little_endian::u64_at;
use super::superblock::BadBlockLog;
use crate::block::{Extent, Lba, Sectors};

const ENTRY_BYTES: usize = 8;
const COUNT_BITS: u32 = 10;
const COUNT_MAX: u64 = 512;
const END: u64 = u64::MAX;

/// Bad sectors of one member.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BadBlocks {
    sectors: RangeSet<u64>,
}

/// Why bytes are no bad-block log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadBlocksError {
    /// An entry covers nothing, or more than an entry can.
    #[error("entry {entry} of the bad-block log covers {count} blocks, 1 to {COUNT_MAX} are possible")]
    Count {
        /// Place in the list.
        entry: usize,
        /// Units it covers.
        count: u64,
    },
    /// An entry lies beyond the end of the member.
    #[error("entry {entry} of the bad-block log lies beyond the end of the member")]
    BeyondMember {
        /// Place in the list.
        entry: usize,
    },
}

/// The log has no room for so many ranges. The member cannot be trusted to remember: it has to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("bad-block log is full: {entries} entries, {room} fit")]
pub struct BadBlocksFull {
    /// Entries there would be.
    pub entries: u64,
    /// Entries there is room for.
    pub room: u64,
}

impl BadBlocks {
    /// No bad blocks.
    pub fn new() -> BadBlocks {
        BadBlocks::default()
    }

    /// Reads the log in `bytes`, counted in units of `1 << shift` sectors, of a member of `device` sectors.
    pub fn decode(bytes: &[u8], shift: u8, device: Sectors) -> Result<BadBlocks, BadBlocksError> {
        let mut bad = BadBlocks::new();
        for (entry, bytes) in bytes.chunks_exact(ENTRY_BYTES).enumerate() {
            let word = u64_at(bytes, 0);
            if word == END {
                break;
            }
            let (unit, count) = (word >> COUNT_BITS, word & ((1 << COUNT_BITS) - 1));
            if !(1..=COUNT_MAX).contains(&count) {
                return Err(BadBlocksError::Count { entry, count });
            }
            let end = u128::from(unit + count).checked_shl(shift.into()).unwrap_or(u128::MAX);
            // The last unit may reach beyond the end of a member that is not whole units.
            let start = u128::from(unit).checked_shl(shift.into()).unwrap_or(u128::MAX);
            let last_unit = u128::from(unit + count - 1).checked_shl(shift.into()).unwrap_or(u128::MAX);
            if last_unit >= u128::from(device.0) {
                return Err(BadBlocksError::BeyondMember { entry });
            }
            bad.sectors.insert(start as u64..end.min(u128::from(device.0)) as u64);
        }
        Ok(bad)
    }

    /// The bytes of the log, as long as `log` says. Units that are bad in part are written as bad.
    pub fn encode(&self, log: &BadBlockLog) -> Result<Vec<u8>, BadBlocksFull> {
        let unit = 1_u64 << log.shift;
        // Rounded to units, neighbours may meet.
        let units: RangeSet<u64> = self.sectors.iter().map(|bad| bad.start / unit..bad.end.div_ceil(unit)).collect();
        let mut bytes = vec![0xff; log.length.bytes() as usize];
        let room = (bytes.len() / ENTRY_BYTES) as u64;
        let entries: u64 = units.iter().map(|bad| (bad.end - bad.start).div_ceil(COUNT_MAX)).sum();
        if entries > room {
            return Err(BadBlocksFull { entries, room });
        }
        let words = units.iter().flat_map(|bad| {
            let bad = bad.clone();
            (bad.start..bad.end)
                .step_by(COUNT_MAX as usize)
                .map(move |start| start << COUNT_BITS | (bad.end - start).min(COUNT_MAX))
        });
        for (entry, word) in bytes.chunks_exact_mut(ENTRY_BYTES).zip(words) {
            entry.copy_from_slice(&word.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Writes down that `extent` is bad.
    pub fn insert(&mut self, extent: Extent) {
        if extent.length > Sectors::ZERO {
            self.sectors.insert(extent.range());
        }
    }

    /// Forgets `extent`: it was written.
    pub fn clear(&mut self, extent: Extent) {
        if extent.length > Sectors::ZERO {
            self.sectors.remove(extent.range());
        }
    }

    /// Whether a sector of `extent` is bad.
    pub fn overlaps(&self, extent: Extent) -> bool {
        extent.length > Sectors::ZERO && self.sectors.overlaps(&extent.range())
    }

    /// The bad parts of `extent`, rising.
    pub fn within(&self, extent: Extent) -> impl Iterator<Item = Extent> {
        let range = extent.range();
        let overlapping = (!range.is_empty()).then(|| self.sectors.overlapping(range.clone()));
        overlapping.into_iter().flatten().map(move |bad| {
            let (start, end) = (bad.start.max(range.start), bad.end.min(range.end));
            Extent::new(Lba(start), Sectors(end - start))
        })
    }

    /// All bad extents, rising; no two touch.
    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        self.sectors.iter().map(|bad| Extent::new(Lba(bad.start), Sectors(bad.end - bad.start)))
    }

    /// Whether nothing is bad.
    pub fn is_empty(&self) -> bool {
        self.sectors.is_empty()
    }

    /// How many sectors are bad.
    pub fn sectors(&self) -> Sectors {
        self.iter().fold(Sectors::ZERO, |sum, bad| sum + bad.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raid::golden;
    use crate::raid::superblock::MinorVersion;
    use proptest::prelude::*;

    const LOG: BadBlockLog = BadBlockLog { offset: 16, length: Sectors(8), shift: 0, present: true };
    const DEVICE: Sectors = Sectors(1 << 40);

    fn extent(start: u64, length: u64) -> Extent {
        Extent::new(Lba(start), Sectors(length))
    }

    /// The kernel was told of 3048+1, 5000+600 and 9000+512; it wrote the second in two entries, out of order.
    #[test]
    fn a_log_written_by_the_kernel_is_read() {
        let member = golden::Member::load("r1bb-1");
        let superblock = member.superblock(MinorVersion::V1_2).unwrap();
        let log = superblock.bad_block_log.unwrap();
        let at = superblock.bad_block_log_extent().unwrap();
        let bad = BadBlocks::decode(&member.read(at.start, at.length), log.shift, member.device).unwrap();
        assert!(log.present);
        assert_eq!(bad.iter().collect::<Vec<_>>(), golden::BAD_BLOCKS.map(|(start, length)| extent(start, length)));
    }

    #[test]
    fn a_range_longer_than_an_entry_takes_several() {
        let mut bad = BadBlocks::new();
        bad.insert(extent(5000, 600));
        let bytes = bad.encode(&LOG).unwrap();
        assert_eq!((u64_at(&bytes, 0), u64_at(&bytes, 8)), (5000 << 10 | 512, 5512 << 10 | 88));
        assert_eq!(u64_at(&bytes, 16), END);
    }

    #[test]
    fn the_513th_range_does_not_fit() {
        let mut bad = BadBlocks::new();
        for range in 0..512 {
            bad.insert(extent(range * 10, 1));
        }
        let full = bad.encode(&LOG).unwrap();
        assert_eq!(BadBlocks::decode(&full, 0, DEVICE), Ok(bad.clone()));
        bad.insert(extent(1 << 30, 1));
        assert_eq!(bad.encode(&LOG), Err(BadBlocksFull { entries: 513, room: 512 }));
        bad.insert(extent(0, 20));
        assert!(bad.encode(&LOG).is_ok());
    }

    #[test]
    fn entries_beyond_the_member_or_of_no_length_are_errors() {
        let log = |word: u64| word.to_le_bytes();
        assert_eq!(BadBlocks::decode(&log(100 << 10), 0, DEVICE), Err(BadBlocksError::Count { entry: 0, count: 0 }));
        assert_eq!(
            BadBlocks::decode(&log(100 << 10 | 513), 0, DEVICE),
            Err(BadBlocksError::Count { entry: 0, count: 513 })
        );
        let beyond = Err(BadBlocksError::BeyondMember { entry: 0 });
        assert_eq!(BadBlocks::decode(&log(100 << 10 | 2), 0, Sectors(101)), beyond);
        assert_eq!(BadBlocks::decode(&log(1 << 63 | 1), 200, Sectors(101)), beyond);
    }

    proptest! {
        /// Against a list of sectors: the obvious slow model.
        #[test]
        fn what_was_inserted_and_not_cleared_is_bad(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..200, 0_u64..40), 0..30),
            probe in (0_u64..240, 0_u64..40),
            shift in 0_u8..4,
        ) {
            let mut model = [false; 240];
            let mut bad = BadBlocks::new();
            for (insert, start, length) in steps {
                model[start as usize..(start + length) as usize].fill(insert);
                if insert { bad.insert(extent(start, length)) } else { bad.clear(extent(start, length)) }
            }
            let expected = model.iter().filter(|b| **b).count() as u64;
            prop_assert_eq!(bad.sectors(), Sectors(expected));
            let (start, end) = (probe.0 as usize, (probe.0 + probe.1).min(240) as usize);
            let probed = model.get(start..end).map_or(0, |part| part.iter().filter(|b| **b).count()) as u64;
            let extent = extent(probe.0, (end - start.min(end)) as u64);
            prop_assert_eq!(bad.overlaps(extent), probed > 0);
            prop_assert_eq!(bad.within(extent).map(|e| e.length.0).sum::<u64>(), probed);

            let log = BadBlockLog { shift, ..LOG };
            let decoded = BadBlocks::decode(&bad.encode(&log).unwrap(), shift, Sectors(240)).unwrap();
            for bad in bad.iter() {
                prop_assert_eq!(decoded.within(bad).collect::<Vec<_>>(), vec![bad]);
            }
            if shift == 0 {
                prop_assert_eq!(decoded, bad);
            }
        }

        #[test]
        fn any_bytes_are_an_error_or_a_log_that_is_read_back(
            words in proptest::collection::vec(prop_oneof![any::<u64>(), (0_u64..1 << 30, 1_u64..513).prop_map(|(s, c)| s << 10 | c)], 0..64),
            shift: u8,
        ) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let device = Sectors(1 << 50);
            if let Ok(bad) = BadBlocks::decode(&bytes, shift, device)
                && let Ok(encoded) = bad.encode(&BadBlockLog { shift: shift.min(31), ..LOG })
                && shift <= 31
            {
                prop_assert_eq!(BadBlocks::decode(&encoded, shift, device).unwrap(), bad);
            }
        }
    }
}
