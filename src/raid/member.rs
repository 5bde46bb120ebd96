//! The members of an array: which device sits where, and what can be believed of it.

use std::ops::Range;
use std::sync::Arc;

use rangemap::RangeSet;
use smallvec::SmallVec;

use super::bad_blocks::BadBlocks;
use super::geometry::{Column, Slot};
use super::superblock::{Recovery, Superblock};
use crate::block::{DeviceId, Extent, Lba, Sectors};

/// Where a member sits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It is the member of this slot.
    Slot(Slot),
    /// It is being filled to replace the member of this slot, which still serves.
    Replacement(Slot),
    /// It waits for a slot.
    Spare,
    /// It failed, or was failed. Nothing is written to it any more.
    Faulty,
}

/// Errors a member has shown since the array was started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ErrorCounts {
    /// Reads that failed.
    pub read: u64,
    /// Writes that failed.
    pub write: u64,
    /// Flushes that failed.
    pub flush: u64,
    /// Read errors that were mended by rewriting.
    pub corrected: u64,
}

/// One device of the array.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which one.
    pub device: DeviceId,
    /// Where it sits.
    pub place: Place,
    /// Its own superblock as last written, or as it must be before anything else is written; fields that all members
    /// share are filled in anew at each update.
    pub superblock: Arc<Superblock>,
    /// Its bad-block log, in absolute sectors of the device.
    pub bad: BadBlocks,
    /// Member data sectors that it does not hold yet. Recovery makes this empty.
    pub stale: RangeSet<u64>,
    /// The recovery that makes `stale` empty goes by the bitmap: it is not one run from a watermark to the end.
    pub by_bitmap: bool,
    /// It is on its way to hold all it should.
    pub filling: bool,
    /// The superblock on it says that it holds more than it does: that is put right before anything else is written.
    pub overstated: bool,
    /// It has no bitmap of the array yet: all of it is written before its superblock counts.
    pub joining: bool,
    /// What went wrong on it.
    pub errors: ErrorCounts,
    /// Read errors that were mended before the array was started.
    pub(super) corrected_before: u32,
}

impl Member {
    /// A device with this superblock, in sync wherever it sits.
    pub fn new(device: DeviceId, place: Place, superblock: Superblock) -> Member {
        Member {
            device,
            place,
            corrected_before: superblock.corrected_reads,
            superblock: Arc::new(superblock),
            bad: BadBlocks::new(),
            stale: RangeSet::new(),
            by_bitmap: false,
            filling: false,
            overstated: false,
            joining: false,
            errors: ErrorCounts::default(),
        }
    }

    /// It holds none of `stale` yet (member data sectors): recovery has to fill it.
    pub fn begin_filling(&mut self, stale: RangeSet<u64>, by_bitmap: bool) {
        let first = stale.first().map(|range| Sectors(range.start));
        Arc::make_mut(&mut self.superblock).recovery = first.map(|offset| Recovery { offset, by_bitmap });
        self.stale = stale;
        self.by_bitmap = by_bitmap;
        self.filling = true;
    }

    /// Sector of the device at which its data area begins.
    pub fn data_offset(&self) -> Lba {
        self.superblock.data.start
    }

    /// Whether it takes reads and writes of data.
    pub fn serves(&self) -> bool {
        matches!(self.place, Place::Slot(_) | Place::Replacement(_))
    }

    /// Whether it holds all it should, bad blocks apart.
    pub fn is_in_sync(&self) -> bool {
        matches!(self.place, Place::Slot(_)) && self.stale.is_empty()
    }

    /// Read errors that were ever mended on it, as its superblock counts them.
    pub fn corrected_reads(&self) -> u32 {
        self.corrected_before.saturating_add(u32::try_from(self.errors.corrected).unwrap_or(u32::MAX))
    }

    /// Whether it was being filled, and is full.
    pub fn is_filled(&self) -> bool {
        self.filling && self.serves() && self.stale.is_empty()
    }

    /// Everything below is recovered, in member data sectors; `None` when all is.
    pub fn watermark(&self) -> Option<u64> {
        self.stale.first().map(|range| range.start)
    }

    /// The device sectors of `rows` of the chunk that begins at `base` of the data area.
    pub fn on_device(&self, base: Lba, rows: &Range<u64>) -> Extent {
        let start = self.data_offset().0 + base.0 + rows.start;
        Extent::new(Lba(start), Sectors(rows.end - rows.start))
    }

    /// What can be done with `rows` of the chunk at `base`.
    pub fn standing(&self, base: Lba, rows: &Range<u64>) -> Standing {
        let data = base.0 + rows.start..base.0 + rows.end;
        if !self.stale.is_empty() && self.stale.overlaps(&data) {
            let whole = self.stale.get(&data.start).is_some_and(|range| range.end >= data.end);
            return if whole { Standing::Stale } else { Standing::PartlyStale };
        }
        let bad = !self.bad.is_empty() && self.bad.overlaps(self.on_device(base, rows));
        if bad { Standing::Bad } else { Standing::Readable }
    }
}

/// What a member can do with some rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It holds them.
    Readable,
    /// Some of them are in its bad-block log: a write mends them.
    Bad,
    /// Recovery has not reached them, and will write all of them.
    Stale,
    /// Recovery is in the middle of them: writes must arrive, and do not count yet.
    PartlyStale,
}

/// Who sits in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seat {
    /// The member.
    pub member: Option<DeviceId>,
    /// The device that is being filled to take over from it.
    pub replacement: Option<DeviceId>,
}

/// All devices of the array, by device and by slot.
#[derive(Clone, Debug)]
pub struct Members {
    devices: Vec<Option<Member>>,
    seats: Vec<Seat>,
}

impl Members {
    /// Nobody in `raid_disks` slots.
    pub fn new(raid_disks: usize) -> Members {
        Members { devices: Vec::new(), seats: vec![Seat::default(); raid_disks] }
    }

    /// Adds a device, in the place it says.
    pub fn insert(&mut self, member: Member) {
        let at = member.device.0 as usize;
        if self.devices.len() <= at {
            self.devices.resize_with(at + 1, || None);
        }
        assert!(self.devices[at].is_none(), "{:?} is a member already", member.device);
        let (device, place) = (member.device, member.place);
        self.devices[at] = Some(member);
        self.sit(device, place);
    }

    /// Takes a device out.
    pub fn remove(&mut self, device: DeviceId) -> Member {
        self.unseat(device);
        self.devices[device.0 as usize].take().expect("a member that is removed is one")
    }

    /// Moves a device to another place, which must be free.
    pub fn move_to(&mut self, device: DeviceId, place: Place) {
        self.unseat(device);
        self.get_mut(device).expect("a member that is moved is one").place = place;
        self.sit(device, place);
    }

    fn sit(&mut self, device: DeviceId, place: Place) {
        let seat = match place {
            Place::Slot(slot) => &mut self.seats[slot.0 as usize].member,
            Place::Replacement(slot) => &mut self.seats[slot.0 as usize].replacement,
            Place::Spare | Place::Faulty => return,
        };
        assert!(seat.is_none(), "{place:?} is taken by {seat:?}");
        *seat = Some(device);
    }

    fn unseat(&mut self, device: DeviceId) {
        for seat in &mut self.seats {
            for who in [&mut seat.member, &mut seat.replacement] {
                if *who == Some(device) {
                    *who = None;
                }
            }
        }
    }

    /// The member a device is, if it is one.
    pub fn get(&self, device: DeviceId) -> Option<&Member> {
        self.devices.get(device.0 as usize)?.as_ref()
    }

    /// The member a device is, to be changed.
    pub fn get_mut(&mut self, device: DeviceId) -> Option<&mut Member> {
        self.devices.get_mut(device.0 as usize)?.as_mut()
    }

    /// All members, by device.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.devices.iter().flatten()
    }

    /// All members, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.devices.iter_mut().flatten()
    }

    /// The slots, in order.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Who sits in a slot: its member, then its replacement.
    pub fn in_slot(&self, slot: Slot) -> impl Iterator<Item = &Member> {
        let seat = self.seats[slot.0 as usize];
        [seat.member, seat.replacement]
            .into_iter()
            .flatten()
            .map(|device| self.get(device).expect("seats hold members"))
    }

    /// Devices that take reads and writes of data.
    pub fn serving(&self) -> SmallVec<[DeviceId; 16]> {
        self.iter().filter(|member| member.serves()).map(|member| member.device).collect()
    }

    /// The device to read `rows` of `column` from, leaving out `excluded`.
    pub fn reader(&self, column: &Column, rows: &Range<u64>, excluded: &[DeviceId]) -> Option<&Member> {
        self.in_slot(column.slot).find(|member| {
            !excluded.contains(&member.device) && member.standing(column.base, rows) == Standing::Readable
        })
    }
}
