//! Who takes part: fail, remove, add, re-add, replace, and spares that step in by themselves.

use thiserror::Error;

use super::array::Array;
use super::assemble::{Candidate, one_range, stale_by_bitmap};
use super::control::Event;
use super::geometry::Slot;
use super::member::{Member, Place};
use super::mutant::{self, Mutant};
use super::set::SlotSet;
use super::superblock::{MemberRole, Superblock};
use crate::block::{Bank, DeviceId, Mark, Sectors};

/// Why a change of membership is refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ManageError {
    /// The device is not part of the array.
    #[error("it is not a member of this array")]
    NotAMember,
    /// It is part of it already.
    #[error("it is a member of this array already")]
    AlreadyAMember,
    /// The array cannot do without it.
    #[error("the array would fail without it: add and recover another disk first")]
    Needed,
    /// It is in use.
    #[error("it is in use: fail it first")]
    InUse,
    /// It failed already.
    #[error("it is faulty already")]
    Faulty,
    /// No spare is there.
    #[error("there is no spare to replace it with: add one first, or name one")]
    NoSpare,
    /// A replacement is under way.
    #[error("it is being replaced already")]
    BeingReplaced,
    /// It cannot be replaced because it holds nothing to replace it from.
    #[error("it is not in sync: let its recovery finish first, or fail it")]
    NotInSync,
    /// It failed, and that is not on record yet: were it back in the same update, a crash could leave members that call it
    /// in sync beside its own word that it is.
    #[error("that it failed is not on record yet: try again in a moment")]
    Unrecorded,
    /// It left, and its last requests have not come back.
    #[error("its last requests have not come back yet: try again in a moment")]
    Draining,
    /// RAID0 has no redundancy.
    #[error("the array has no redundancy, so its members cannot change")]
    NoRedundancy,
    /// The device is too small.
    #[error("it has room for {} sectors of data, and {} are needed", have.0, need.0)]
    TooSmall {
        /// What it has.
        have: Sectors,
        /// What it would need.
        need: Sectors,
    },
    /// Its blocks are larger than the array promises its users.
    #[error("its blocks are larger than those of the array: requests of the array's block size would not fit")]
    LargerBlocks,
    /// It cannot come back by the bitmap.
    #[error("re-add is not possible: {0}; add it as a new disk instead")]
    CannotReturn(&'static str),
    /// The array has failed, or is open for reading only.
    #[error("the array takes no changes: it has failed or is open for reading only")]
    Frozen,
}

impl<B: Bank> Array<B> {
    fn check_running(&self) -> Result<(), ManageError> {
        if self.control.is_failed() || self.control.is_read_only() { Err(ManageError::Frozen) } else { Ok(()) }
    }

    /// Fails a device. It is not read or written any more; if there is a spare, it takes the slot at once.
    pub fn fail(&mut self, device: DeviceId) -> Result<(), ManageError> {
        self.check_running()?;
        let member = self.control.members.get(device).ok_or(ManageError::NotAMember)?;
        match member.place {
            Place::Faulty => return Err(ManageError::Faulty),
            Place::Slot(slot) => {
                let seat = self.control.members.seats()[slot.0 as usize];
                let without = self.control.degraded() | SlotSet::only(slot.0 as usize);
                if seat.replacement.is_none() && !self.geometry.survives(without) && member.stale.is_empty() {
                    return Err(ManageError::Needed);
                }
            }
            Place::Replacement(_) | Place::Spare => {}
        }
        if self.control.writes_inflight() > 0 {
            self.bank.mark(Mark::FailedByAdminInWrites);
        }
        self.control.fail(device, false);
        self.sync.reconsider();
        self.turn();
        Ok(())
    }

    /// Takes a faulty device or a spare out of the array. Its last requests may still come back.
    pub fn remove(&mut self, device: DeviceId) -> Result<(), ManageError> {
        self.check_running()?;
        let member = self.control.members.get(device).ok_or(ManageError::NotAMember)?;
        if member.serves() {
            return Err(ManageError::InUse);
        }
        if self.is_in_use(device) {
            self.bank.mark(Mark::RemovedInFlight);
        }
        self.control.members.remove(device);
        self.control.announce();
        self.turn();
        Ok(())
    }

    /// The number a new device would have in the array: the lowest that no device has.
    pub fn next_device_number(&self) -> u32 {
        let taken = |number: &u32| self.control.members.iter().any(|member| member.superblock.dev_number == *number);
        (0..).find(|number| !taken(number)).expect("devices are fewer than numbers")
    }

    /// Adds a device as a spare; it takes a free slot at once if there is one. `superblock` is the one it
    /// shall have, made by [`super::create::joining`].
    pub fn add(&mut self, device: DeviceId, superblock: Superblock) -> Result<(), ManageError> {
        self.check_running()?;
        self.check_new(device, &superblock)?;
        self.control.members.insert(Member { joining: true, ..Member::new(device, Place::Spare, superblock) });
        self.control.announce();
        self.sync.reconsider();
        self.turn();
        Ok(())
    }

    fn check_new(&self, device: DeviceId, superblock: &Superblock) -> Result<(), ManageError> {
        if self.geometry.tolerance() == 0 {
            return Err(ManageError::NoRedundancy);
        }
        if self.control.members.get(device).is_some() {
            return Err(ManageError::AlreadyAMember);
        }
        if self.is_in_use(device) {
            return Err(ManageError::Draining);
        }
        if self.bank.limits(device).logical_block > self.logical_block() {
            return Err(ManageError::LargerBlocks);
        }
        let need = self.geometry.member_used(Slot(0));
        if superblock.data.length < need {
            return Err(ManageError::TooSmall { have: superblock.data.length, need });
        }
        Ok(())
    }

    /// Writes the superblocks anew: what a forced assembly accepted is on record then.
    pub fn put_on_record(&mut self) {
        if self.check_running().is_ok() {
            self.control.checkpoint();
        }
    }

    /// Whether [`Array::re_add`] would take a device back, under this device id; its own entry as a faulty member
    /// does not stand in the way.
    pub fn check_re_add(&self, candidate: &Candidate, device: DeviceId) -> Result<(), ManageError> {
        self.check_running()?;
        let no = |why| Err(ManageError::CannotReturn(why));
        let superblock = &candidate.superblock;
        let others = || self.control.members.iter().filter(|member| member.device != device);
        if self.control.members.get(device).is_some_and(|member| member.place != Place::Faulty) {
            return Err(ManageError::AlreadyAMember);
        }
        if self.is_in_use(device) {
            return Err(ManageError::Draining);
        }
        let Some(reference) = others().find(|member| member.serves()) else {
            return no("there is nobody to copy from");
        };
        if reference.superblock.set_uuid != superblock.set_uuid {
            return no("it belongs to another array");
        }
        let Some(bitmap) = &self.control.bitmap else { return no("the array has no bitmap") };
        let MemberRole::Slot(slot) = superblock.role() else { return no("it was not a member of a slot") };
        let free = self.control.members.seats().get(usize::from(slot)).is_some_and(|seat| seat.member.is_none());
        if !free {
            return no("its slot is taken");
        }
        if others().any(|member| member.superblock.dev_number == superblock.dev_number) {
            return no("its device number is taken");
        }
        if superblock.events < bitmap.header().events_cleared {
            return no("the bitmap does not reach back to when it left");
        }
        if superblock.recovery.is_some() {
            return no("it was not in sync when it left");
        }
        // Started apart it counts its own events, which say nothing of what it holds. But its table tells that it was without those
        // who served here all the time. Whom it has for faulty may have come back since, and served.
        let is_known = |member: &Member| match member.place {
            Place::Slot(slot) => {
                let known = superblock.roles.get(member.superblock.dev_number as usize);
                known == Some(&MemberRole::Slot(u16::from(slot.0)))
            }
            _ => false,
        };
        let apart =
            !others().filter(|member| member.is_in_sync()).any(is_known) || superblock.events > self.control.events();
        if apart {
            return no("it was started without those who serve now, or they all came later");
        }
        Ok(())
    }

    /// Puts a device back that left: what it missed since is copied, by the bitmap; the rest it still holds.
    pub fn re_add(&mut self, candidate: Candidate) -> Result<(), ManageError> {
        self.check_re_add(&candidate, candidate.device)?;
        if self.control.record().is_some() {
            return Err(ManageError::Unrecorded);
        }
        let Candidate { device, superblock, bad, .. } = candidate;
        if self.control.members.get(device).is_some() {
            return Err(ManageError::AlreadyAMember);
        }
        let (Some(bitmap), MemberRole::Slot(slot)) = (&self.control.bitmap, superblock.role()) else {
            panic!("a device that may come back was in a slot of an array with a bitmap");
        };
        let slot = Slot(slot as u8);
        self.bank.mark(Mark::ReAddedByBitmap);
        let mut stale = stale_by_bitmap(&self.geometry, bitmap, slot, 0);
        if mutant::is_on(Mutant::StaleReAdded) && superblock.events + 2 >= self.control.events() {
            stale.clear();
        }
        let mut member = Member::new(device, Place::Slot(slot), superblock);
        member.bad = bad;
        member.joining = true;
        member.begin_filling(stale, true);
        self.control.members.insert(member);
        self.control.note(Event::RebuildStarted(device));
        self.control.announce();
        self.sync.reconsider();
        self.finish_recovery_of(device);
        self.turn();
        Ok(())
    }

    /// Begins to fill a spare from a member that goes on serving, to take over from it then.
    pub fn replace(&mut self, device: DeviceId, with: Option<DeviceId>) -> Result<DeviceId, ManageError> {
        self.check_running()?;
        let member = self.control.members.get(device).ok_or(ManageError::NotAMember)?;
        let Place::Slot(slot) = member.place else { return Err(ManageError::NotInSync) };
        if !member.is_in_sync() {
            return Err(ManageError::NotInSync);
        }
        if self.control.members.seats()[slot.0 as usize].replacement.is_some() {
            return Err(ManageError::BeingReplaced);
        }
        let spare = match with {
            Some(with) => {
                let member = self.control.members.get(with).ok_or(ManageError::NotAMember)?;
                if member.place != Place::Spare {
                    return Err(ManageError::InUse);
                }
                with
            }
            None => self.control.members.iter().find(|m| m.place == Place::Spare).ok_or(ManageError::NoSpare)?.device,
        };
        self.fill(spare, Place::Replacement(slot));
        self.turn();
        Ok(spare)
    }

    fn fill(&mut self, device: DeviceId, place: Place) {
        let (Place::Slot(slot) | Place::Replacement(slot)) = place else { panic!("{place:?} is not to be filled") };
        if self.sync.inflight() > 0 && self.control.members.iter().any(|member| member.filling) {
            self.bank.mark(Mark::JoinedRecovery);
        }
        let used = self.geometry.member_used(slot).0;
        self.control.members.move_to(device, place);
        let member = self.control.members.get_mut(device).expect("it was just moved");
        member.begin_filling(one_range(0..used), false);
        self.control.note(Event::RebuildStarted(device));
        self.control.announce();
        self.sync.reconsider();
    }

    /// Whether a spare can take a free slot, and nothing has made it do so yet.
    pub(super) fn spare_is_due(&self) -> bool {
        self.takes_spares() && self.control.spare_wanted().is_some()
    }

    fn takes_spares(&self) -> bool {
        !self.sync.options.frozen && !self.control.is_stopping()
    }

    /// Spares take free slots at once.
    pub(super) fn take_spares(&mut self) {
        if !self.takes_spares() {
            return;
        }
        while let Some((slot, spare)) = self.control.spare_wanted() {
            self.bank.mark(Mark::SpareTookSlot);
            self.fill(spare, Place::Slot(slot));
        }
    }
}
