//! A lab without power: disks in a box, and what it takes to make an array of them again.

use std::collections::BTreeSet;

use super::array::{Lab, Row, SimArray, SimStack, Site};
use super::losses::{earned, sectors_without_member};
use super::shape::METADATA;
use super::world::Waiting;
use super::{Shape, SimBank, Snapshot};
use crate::block::{Bank, DeviceId, Durability, Extent, Lba, SECTOR_BYTES, Sectors};
use crate::disk::Fault;
use crate::multipath::Paths;
use crate::raid::Array;
use crate::raid::assemble::{AssembleError, AssembleOptions, Assembly, Candidate, Remark, assemble};
use crate::raid::bitmap_super::{BitmapHeader, BitmapImage};
use crate::raid::create::create;
use crate::raid::geometry::StripeIndex;
use crate::raid::set::SlotSet;
use crate::raid::superblock::{MemberRole, Superblock};
use crate::raid::sync::SyncOptions;

/// Writes what makes disks the members of a new array.
pub(super) fn make(bank: &mut SimBank, shape: Shape, disks: &[DeviceId]) {
    let new = shape.new_array(disks.iter().copied());
    let (geometry, members) = create(&new).expect("shapes are checked before");
    for (disk, member) in disks.iter().zip(members) {
        for (at, bytes) in member.writes {
            bank.write_media(*disk, at, &bytes);
        }
        // One bit for all of it, which is what a new array gets, would test nothing.
        if let (Some(chunk), Some(at)) = (shape.bitmap, member.superblock.bitmap_at()) {
            let header = BitmapHeader::new(new.uuid, geometry.sync_size(), chunk);
            let mut image = BitmapImage::all_set(header);
            image.set_all(false);
            bank.write_media(*disk, at, &image.encode());
        }
    }
}

/// Where the superblock of every member lies: 4 KiB from the start, as metadata 1.2 has it.
const SUPERBLOCK: Lba = Lba(8);

pub(super) fn candidate(bank: &SimBank, disk: DeviceId) -> Option<Candidate> {
    let size = bank.limits(disk).capacity;
    let sectors = |at: Lba, length: Sectors| -> Result<Vec<u8>, std::convert::Infallible> {
        let extent = Extent::new(at, length);
        // Behind the metadata a sector holds less than a superblock.
        Ok(if extent.end().0 <= METADATA.0 { bank.peek(disk, extent) } else { vec![0; length.bytes() as usize] })
    };
    const { assert!(SECTOR_BYTES == 512) };
    Candidate::read(disk, size, sectors).ok()
}

/// A lab without power.
#[derive(Clone, Debug)]
pub struct Off {
    pub(super) bank: Fault<SimBank>,
    pub(super) clients: Waiting<SimStack>,
    pub(super) site: Site,
    /// Rows that the cut may have left in disagreement, if anything was missing then.
    pub(super) in_doubt: BTreeSet<Row>,
    /// A member was missing when the power went.
    pub(super) degraded: bool,
    /// Slots that must be whole when it is assembled.
    pub(super) owed: SlotSet,
    /// Disks, and copies of them that were put in.
    pub(super) copies: Vec<(DeviceId, DeviceId)>,
    /// It is another array than the one that was switched off, on the same disks.
    pub(super) made_anew: bool,
}

impl Off {
    /// What paths still carried when the array was stopped is gone with them: it had been given up.
    #[must_use]
    pub(super) fn without_ghosts(mut self) -> Off {
        if self.site.fabrics.any() {
            self.bank.forget_requests();
            self.bank.inner_mut().forget_requests();
        }
        self
    }

    /// The disks.
    pub fn bank(&self) -> &SimBank {
        self.bank.inner()
    }

    /// The disks, to be harmed.
    pub fn bank_mut(&mut self) -> &mut SimBank {
        self.bank.inner_mut()
    }

    /// Disks in the box.
    pub fn disks(&self) -> &[DeviceId] {
        &self.site.disks
    }

    /// Whether a member was missing when the power went.
    pub fn was_degraded(&self) -> bool {
        self.degraded
    }

    /// All disks that had stopped answer again.
    pub fn bring_all_back(&mut self) {
        for disk in &self.site.disks {
            self.bank.inner_mut().bring_back(*disk);
        }
    }

    /// Whether the disk is among the freshest, and others are as fresh.
    pub fn has_equals(&self, device: DeviceId) -> bool {
        let others: Vec<DeviceId> = self.site.disks.iter().copied().filter(|disk| *disk != device).collect();
        self.in_sync_events(&others) >= self.in_sync_events(&self.site.disks)
    }

    /// Whether nothing is wrong with a disk, as far as it is not on its medium.
    pub fn is_well(&self, device: DeviceId) -> bool {
        !self.bank.inner().may_fail(device) && !self.bank.is_armed(device)
    }

    /// Two disks change places in the box.
    pub fn swap(&mut self, one: DeviceId, other: DeviceId) {
        self.bank.inner_mut().swap(one, other);
    }

    /// A copy of a disk is put in, too.
    pub fn duplicate(&mut self, device: DeviceId) {
        let copy = self.bank.inner_mut().add_disk(self.site.model);
        self.bank.inner_mut().copy(device, copy);
        self.site.disks.push(copy);
        self.copies.push((device, copy));
    }

    /// Whether copies of disks were put in.
    pub fn has_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Takes copies of disks out again.
    pub fn take_copies_out(&mut self) {
        for (_, copy) in std::mem::take(&mut self.copies) {
            self.site.disks.retain(|disk| *disk != copy);
        }
    }

    /// Too little is left: a new array is made of the same disks, and nothing is promised of what they held.
    pub fn make_anew(mut self) -> Lab {
        self.take_copies_out();
        let count = self.site.shape.disks + self.site.shape.spares;
        self.site.disks.truncate(count);
        while self.site.disks.len() < count {
            self.site.disks.push(self.bank.inner_mut().add_disk(self.site.model));
        }
        self.bank.clear();
        self.bring_all_back();
        make(self.bank.inner_mut(), self.site.shape, &self.site.disks);
        self.made_anew = true;
        self.assemble(false).unwrap_or_else(|refused| panic!("a new array does not assemble: {}", refused.1))
    }

    /// Bytes of a superblock change.
    pub fn rot_superblock(&mut self, device: DeviceId) {
        let at = Extent::new(SUPERBLOCK, Sectors(1));
        let mut bytes = self.bank().peek(device, at);
        bytes[100] ^= 0xff;
        self.bank.inner_mut().write_media(device, SUPERBLOCK, &bytes);
    }

    /// The disk whose superblock claims a slot.
    pub fn in_slot(&self, slot: u8) -> Option<DeviceId> {
        let claims = |disk: &&DeviceId| {
            let candidate = candidate(self.bank(), **disk);
            candidate.is_some_and(|candidate| candidate.superblock.role() == MemberRole::Slot(slot.into()))
        };
        self.site.disks.iter().find(claims).copied()
    }

    /// Whether an array would come of the other disks, none of them behind, with every sector on them.
    pub fn can_lose(&self, device: DeviceId) -> bool {
        let others: Vec<DeviceId> = self.site.disks.iter().copied().filter(|disk| *disk != device).collect();
        if self.in_sync_events(&others) < self.in_sync_events(&self.site.disks) || !self.site.accepted.is_empty() {
            return false;
        }
        let bank = Paths::Direct(self.bank.clone());
        let Ok(array) = start(bank, &others) else { return false };
        (0..array.geometry().capacity().0).all(|lba| !earned(&array, Lba(lba)))
    }

    /// Makes a disk hold what it held once, unless its count of events would not tell.
    pub fn restore(&mut self, device: DeviceId, snapshot: Snapshot) -> bool {
        let now = self.bank().snapshot(device);
        let others: Vec<DeviceId> = self.site.disks.iter().copied().filter(|disk| *disk != device).collect();
        self.bank_mut().restore(device, snapshot);
        let tells = self.events(&[device]) + 1 < self.events(&others);
        if !tells {
            self.bank_mut().restore(device, now);
        }
        tells
    }

    /// Starts one disk without the others, writes everything there and stops it. `false`: it does not start alone, or
    /// would be the freshest then, so that whoever puts it back goes with it and not with the others.
    pub fn split(&mut self, device: DeviceId) -> bool {
        let mut bank = self.bank.clone();
        bank.inner_mut().bring_back(device);
        let bank = Paths::Direct(bank);
        let Ok(array) = start(bank, &[device]) else { return false };
        let whole = Extent::new(Lba(0), array.geometry().capacity());
        let mut half = self.clients.clone().join(Paths::Direct(array));
        half.wake();
        half.submit_write(whole, Durability::Fua);
        half.stack.bank_mut().stop();
        while !half.stack.bank().is_stopped() {
            if !half.step().is_ok_and(|more| more) {
                break;
            }
        }
        if !half.stack.bank().is_stopped() {
            return false;
        }
        let data = half.stack.bank().members().get(device).expect("it was started of it").data_offset();
        let mut bank = half.stack.into_bank().into_bank().into_bank();
        // What nobody else has ever written: should it be seen beside the others, it is garbage.
        let apart = [0xa5].repeat((self.site.shape.member.0 * u64::from(self.site.shape.grain)) as usize);
        bank.inner_mut().write_media(device, data, &apart);
        let snapshot = bank.inner().snapshot(device);
        let others: Vec<DeviceId> = self.site.disks.iter().copied().filter(|disk| *disk != device).collect();
        let before = self.bank().snapshot(device);
        self.bank_mut().restore(device, snapshot);
        let is_behind = self.in_sync_events(&[device]) < self.in_sync_events(&others);
        if is_behind {
            self.bank_mut().bring_back(device);
        } else {
            self.bank_mut().restore(device, before);
        }
        is_behind
    }

    /// Whether the freshest members do not answer: whoever starts the rest goes back in history.
    pub fn newest_is_away(&self) -> bool {
        let (here, away): (Vec<DeviceId>, Vec<DeviceId>) =
            self.site.disks.iter().partition(|disk| self.bank().is_online(**disk));
        self.events(&here) < self.events(&away) || self.in_sync_events(&here) < self.in_sync_events(&away)
    }

    /// The freshest count of events on those of these disks that hold all they should.
    fn in_sync_events(&self, disks: &[DeviceId]) -> u64 {
        let members =
            disks.iter().filter_map(|disk| candidate(self.bank(), *disk)).map(|candidate| candidate.superblock);
        let in_sync =
            |superblock: &Superblock| matches!(superblock.role(), MemberRole::Slot(_)) && superblock.recovery.is_none();
        members.filter(in_sync).map(|superblock| superblock.events).max().unwrap_or(0)
    }

    /// The freshest count of events on these disks.
    fn events(&self, disks: &[DeviceId]) -> u64 {
        let events = |disk: &DeviceId| candidate(self.bank(), *disk).map(|candidate| candidate.superblock.events);
        disks.iter().filter_map(events).max().unwrap_or(0)
    }

    /// Assembles what is there. With `force` a dirty and degraded array is taken as it is: what was in doubt when the
    /// power went may then be wrong where a member is missing. Where too few are left, members that fell behind are taken,
    /// too, and nothing is promised of what is read then.
    pub fn assemble(self, force: bool) -> Result<Lab, Box<(Off, AssembleError)>> {
        self.assemble_with(force, SyncOptions::UNLIMITED)
    }

    /// As [`Off::assemble`], with a say in what begins at once.
    pub fn assemble_with(self, force: bool, sync: SyncOptions) -> Result<Lab, Box<(Off, AssembleError)>> {
        let options = AssembleOptions { force, ..AssembleOptions::default() };
        let Assembly { geometry, start, remarks, .. } = match assembly(&self.bank, &self.site.disks, options) {
            Ok(assembly) => assembly,
            Err(error) => return Err(Box::new((self, error))),
        };
        let Off { bank, clients, mut site, in_doubt, owed, copies, made_anew, .. } = self;
        let bank = site.fabrics.under(bank, &site.disks, site.seed);
        let array = Array::start(bank, geometry, start, sync);
        // Of a disk and its copy one takes part at the most; the other one is taken away.
        for (original, copy) in copies {
            let left = if array.members().get(copy).is_some() { original } else { copy };
            site.disks.retain(|disk| *disk != left);
        }
        let mut world = clients.join(site.fabrics.over(array, site.seed));
        world.wake();
        if force && remarks.contains(&Remark::ForcedClean) {
            site.accepted.extend(&in_doubt);
            for lba in sectors_without_member(world.stack.bank(), &in_doubt) {
                world.oracle.excuse(lba);
            }
        }
        // Old members stand beside newer ones: any sector may be of any time.
        if made_anew || remarks.iter().any(|remark| matches!(remark, Remark::ForcedIn { .. })) {
            let geometry = world.stack.bank().geometry();
            let rows = |index| (0..geometry.stripe(index).rows.0).map(move |row| (index, row));
            site.accepted.extend((0..geometry.stripes()).map(StripeIndex).flat_map(rows));
            (0..geometry.capacity().0).for_each(|lba| world.oracle.excuse(Lba(lba)));
        }
        let lost = world.stack.bank().degraded();
        Ok(Lab { world, site, remarks, unchecked: BTreeSet::new(), whole: owed - lost, taken: owed & lost })
    }
}

/// After a power cut what a read returns is what is on the medium, and after a clean stop what counts is on both.
fn assembly(bank: &Fault<SimBank>, disks: &[DeviceId], options: AssembleOptions) -> Result<Assembly, AssembleError> {
    let there = disks.iter().filter(|disk| bank.inner().is_online(**disk));
    assemble(there.filter_map(|disk| candidate(bank.inner(), *disk)).collect(), options)
}

/// The array that comes of these disks, if nobody forces it.
pub(super) fn start(bank: Paths<Fault<SimBank>>, disks: &[DeviceId]) -> Result<SimArray, AssembleError> {
    let Assembly { geometry, start, .. } = assembly(bank.bank(), disks, AssembleOptions::default())?;
    Ok(Array::start(bank, geometry, start, SyncOptions::UNLIMITED))
}
