//! An array on simulated disks, and what only a simulator can know about it.
//!
//! From outside an array is right if its answers are. From inside more can be asked at every moment: do the
//! columns of a stripe nobody works on agree, on every device that claims to hold them? Is an error owed to faults
//! that are really there? Which sectors would a power cut leave in doubt?

use std::collections::BTreeSet;
use std::ops::Range;

use smallvec::SmallVec;

use super::Failed;
use super::mending::agrees;
use super::shape::METADATA;
use super::world::Waiting;
use super::{CacheLoss, Choose, DiskModel, Oracle, Shape, SimBank, Snapshot, Trace, World};
use crate::block::{Bank, DeviceId, Durability, Extent, Lba, SECTOR_BYTES, Sectors};
use crate::disk::Fault;
use crate::raid::Array;
use crate::raid::assemble::{AssembleError, AssembleOptions, Candidate, Remark, assemble};
use crate::raid::bitmap_super::{BitmapHeader, BitmapImage};
use crate::raid::compute::{Known, compare_copies, compare_parity};
use crate::raid::create::{create, joining};
use crate::raid::geometry::{Column, Role, Slot, Stripe, StripeIndex};
use crate::raid::manage::ManageError;
use crate::raid::member::{Member, Place, Standing};
use crate::raid::set::SlotSet;
use crate::raid::superblock::{MemberRole, Superblock};
use crate::raid::sync::SyncOptions;

/// The array under test: over disks that can have every fault.
pub type SimArray = Array<Fault<SimBank>>;

/// Writes what makes disks the members of a new array.
fn make(bank: &mut SimBank, shape: Shape, disks: &[DeviceId]) {
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

/// An array with its clients, and the disks in the same box, members or not.
#[derive(Clone, Debug)]
pub struct Lab {
    /// The array and its clients.
    pub world: World<SimArray>,
    shape: Shape,
    model: DiskModel,
    disks: Vec<DeviceId>,
    /// What there was to say when it was assembled.
    remarks: Vec<Remark>,
    /// Rows that were in doubt when the array was forced.
    accepted: BTreeSet<Row>,
    /// Disks that have lied about a flush.
    liars: BTreeSet<DeviceId>,
    /// Rows that were written to since their columns were last compared.
    unchecked: BTreeSet<Row>,
    /// Slots that have been whole since that was last on record.
    whole: SlotSet,
    /// Slots that were whole before it was assembled, and are not now.
    taken: SlotSet,
}

/// A row of a stripe: what silent damage never leaves.
pub type Row = (StripeIndex, u64);

impl Lab {
    /// A new array. `seed` decides the service times of its disks.
    pub fn new(shape: Shape, seed: u64) -> Lab {
        Lab::on(shape, shape.model(), seed)
    }

    /// A new array on disks of a given model.
    pub fn on(shape: Shape, model: DiskModel, seed: u64) -> Lab {
        let mut bank = SimBank::new(seed);
        let disks: Vec<DeviceId> = shape.devices().map(|_| bank.add_disk(model)).collect();
        make(&mut bank, shape, &disks);
        let array = match start(Fault::new(bank), &disks, AssembleOptions::default(), SyncOptions::UNLIMITED) {
            Ok((array, _)) => array,
            Err((_, error)) => panic!("a new array does not assemble: {error}"),
        };
        Lab {
            world: World::new(array, earned).with_account(account),
            shape,
            model,
            disks,
            remarks: Vec::new(),
            accepted: BTreeSet::new(),
            liars: BTreeSet::new(),
            unchecked: BTreeSet::new(),
            whole: SlotSet::default(),
            taken: SlotSet::default(),
        }
    }

    /// What the array is.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What there was to say when it was assembled.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// The array.
    pub fn array(&self) -> &SimArray {
        &self.world.stack
    }

    /// The array, to be managed.
    pub fn array_mut(&mut self) -> &mut SimArray {
        &mut self.world.stack
    }

    /// The disks.
    pub fn bank(&self) -> &SimBank {
        self.array().bank().inner()
    }

    /// The disks, to be harmed.
    pub fn bank_mut(&mut self) -> &mut SimBank {
        self.array_mut().bank_mut().inner_mut()
    }

    /// Disks in the box, members or not.
    pub fn disks(&self) -> &[DeviceId] {
        &self.disks
    }

    /// Adds a new disk as a spare.
    pub fn add_disk(&mut self) -> Result<DeviceId, ManageError> {
        let model = self.model;
        let Some(like) = self.array().members().iter().find(|member| member.serves()) else {
            return Err(ManageError::Frozen);
        };
        let like = like.superblock.clone();
        let disk = self.bank_mut().add_disk(model);
        self.disks.push(disk);
        let (number, sync_size) = (self.array().next_device_number(), self.array().geometry().sync_size());
        let superblock = joining(&like, self.shape.device(disk), number, sync_size).expect("disks are of one size");
        self.array_mut().add(disk, superblock).map(|()| disk)
    }

    /// Puts a disk that was a member back, with what its superblock says.
    pub fn re_add(&mut self, disk: DeviceId) -> Result<(), ManageError> {
        let Some(candidate) = candidate(self.bank(), disk) else {
            return Err(ManageError::NotAMember);
        };
        self.array_mut().re_add(candidate)
    }

    /// Takes a disk out of the box.
    pub fn unplug(&mut self, disk: DeviceId) {
        self.disks.retain(|other| *other != disk);
    }

    /// Switches off what was stopped. `dark`: members may be missing when the power is back.
    pub fn switch_off(mut self, dark: bool) -> Off {
        self.note_whole();
        let owed = if dark { SlotSet::default() } else { self.owed() };
        let degraded = dark || self.may_be_missing();
        let in_doubt = if degraded { self.rows_in_doubt() } else { BTreeSet::new() };
        let Lab { world, shape, model, disks, remarks: _, accepted, liars, unchecked: _, whole: _, taken: _ } = self;
        let (array, clients) = world.part();
        Off {
            bank: array.into_bank(),
            clients,
            shape,
            model,
            disks,
            accepted,
            liars,
            in_doubt,
            degraded,
            owed,
            copies: Vec::new(),
            made_anew: false,
        }
    }

    /// Follows which slots are whole. What recovery has filled counts when that is on record; a member that does not
    /// answer is as good as gone, whether the array knows or not.
    fn note_whole(&mut self) {
        let array = self.array();
        let is_whole = |slot: &usize| {
            let member = array.members().seats()[*slot].member.and_then(|device| array.members().get(device));
            member.is_some_and(|member| {
                member.is_in_sync() && self.bank().is_online(member.device) && !may_fail(array, member.device)
            })
        };
        let known = if array.is_recording() { self.whole } else { array.geometry().slots() };
        self.whole = known.iter().filter(is_whole).collect();
    }

    /// Slots that must be whole when the array is assembled again: going off and on costs nobody its place.
    fn owed(&self) -> SlotSet {
        let vouched = self.liars.is_empty() && !self.array().is_failed();
        if vouched { self.whole } else { SlotSet::default() }
    }

    /// Slots that were whole before the array was switched off, and are not now.
    pub fn taken(&self) -> SlotSet {
        self.taken
    }

    /// Whether a member may be missing when the power is back.
    fn may_be_missing(&self) -> bool {
        !self.is_whole()
            || self.array().is_recording()
            || !self.liars.is_empty()
            || self.disks.iter().any(|disk| !self.bank().is_online(*disk))
    }

    /// A hash of what decides, beside what is left on the disks, what may come of a power cut now: if that is the same,
    /// so is all that follows, but for the time it takes. Of one life.
    pub fn doubts(&self) -> u64 {
        let mut hash = Trace::default();
        let degraded = self.may_be_missing();
        hash.note_all([self.world.inflight() as u64, self.world.oracle.excused() as u64, u64::from(degraded)]);
        hash.note(self.owed().bits());
        let rows = if degraded { self.rows_in_doubt() } else { self.accepted.clone() };
        rows.into_iter().for_each(|(index, row)| hash.note_all([index.0, row]));
        hash.0
    }

    /// Cuts the power: requests under way are gone, and of what caches held `choose` decides. `dark`: members may be
    /// missing when the power is back.
    pub fn cut_power(mut self, loss: CacheLoss, dark: bool, choose: &mut impl Choose) -> Off {
        for liar in self.liars.clone() {
            for extent in self.bank().unsettled(liar) {
                let World { stack, oracle, .. } = &mut self.world;
                taint(stack, oracle, liar, extent);
            }
        }
        // It failed with the array, and nobody could write that down: it comes back as if it held all it should.
        if self.array().is_failed() {
            for disk in self.disks.clone() {
                for extent in self.bank().lost(disk).collect::<Vec<_>>() {
                    let World { stack, oracle, .. } = &mut self.world;
                    taint(stack, oracle, disk, extent);
                }
            }
        }
        let mut off = self.switch_off(dark);
        off.clients.oracle.crash();
        off.bank.forget_requests();
        off.bank.inner_mut().power_cut(loss, choose);
        off
    }

    /// Rows whose columns a power cut now might leave in disagreement: some write there is under way, or on some
    /// member not yet on the medium, or lost with a flush that failed, or has been in doubt since the last cut.
    pub fn rows_in_doubt(&self) -> BTreeSet<Row> {
        let (array, geometry) = (self.array(), self.array().geometry());
        let mut rows = self.accepted.clone();
        for (index, band) in array.rows_under_way() {
            rows.extend(band.map(|row| (index, row)));
        }
        for member in array.members().iter() {
            let (unsettled, lost) = (self.bank().unsettled(member.device), self.bank().lost(member.device));
            for extent in unsettled.into_iter().chain(lost) {
                rows.extend(rows_of(self.array(), member, extent));
            }
        }
        for extent in self.world.oracle.failed_writes() {
            for lba in extent.range() {
                let (index, offset) = geometry.locate(Lba(lba));
                rows.insert((index, offset.0 % geometry.stripe(index).rows.0));
            }
        }
        for index in (0..geometry.stripes()).map(StripeIndex) {
            let stripe = geometry.stripe(index);
            rows.extend(
                (0..stripe.rows.0)
                    .filter(|row| !array.is_trusted_at(stripe.start + Sectors(*row)))
                    .map(|row| (index, row)),
            );
        }
        rows
    }

    /// `device` lies about flushes: what a power cut takes from its cache then is silent damage.
    pub fn will_lie(&mut self, device: DeviceId) {
        self.liars.insert(device);
    }

    /// Tells the oracle which sectors that are asked for cannot be had at this moment, for the error may arrive when they
    /// can; and follows which slots are whole.
    pub fn note_losses(&mut self) {
        self.note_whole();
        let World { stack, oracle, .. } = &mut self.world;
        let unreadable = |member: &Member| {
            let data = Extent::new(member.data_offset(), self.shape.member);
            !member.bad.is_empty() || stack.bank().inner().is_unreadable(member.device, data)
        };
        let whole = stack.degraded().is_empty() && !stack.members().iter().any(unreadable);
        if whole && !self.disks.iter().any(|disk| may_fail(stack, *disk)) {
            return;
        }
        let asked: BTreeSet<u64> = oracle.asked().flat_map(Extent::range).collect();
        for lba in asked.into_iter().map(Lba).filter(|lba| earned(stack, *lba)) {
            oracle.was_lost(lba);
        }
    }

    /// Whether every slot has a member that holds all it should.
    pub fn is_whole(&self) -> bool {
        self.array().degraded().is_empty()
    }

    /// Whether nothing is under way, and nothing waits to be recovered.
    pub fn is_at_rest(&self) -> bool {
        self.world.inflight() == 0 && self.array().is_quiet() && !self.array().is_syncing()
    }

    /// A hash of the data on its disks, and of who holds what: what is read from any view follows from it.
    pub fn data(&self) -> u64 {
        let mut hash = Trace::default();
        let data = Extent::new(Lba(METADATA.0), self.shape.member);
        for member in self.array().members().iter() {
            let slot = match member.place {
                Place::Slot(slot) => u64::from(slot.0),
                Place::Replacement(slot) => 1 << 8 | u64::from(slot.0),
                Place::Spare | Place::Faulty => continue,
            };
            let online = self.bank().is_online(member.device);
            hash.note_all([slot, u64::from(online), u64::from(member.stale.is_empty())]);
            hash.note_bytes(std::iter::once(&self.bank().peek(member.device, data)[..]));
        }
        let geometry = self.array().geometry();
        for index in (0..geometry.stripes()).map(StripeIndex) {
            let stripe = geometry.stripe(index);
            for row in 0..stripe.rows.0 {
                let lost = stripe.columns.iter().map(|column| is_lost(self.array(), column, row));
                let lost = lost.fold(1, |bits, lost| bits << 1 | u64::from(lost));
                hash.note(lost << 1 | u64::from(self.array().is_trusted_at(stripe.start + Sectors(row))));
            }
        }
        self.accepted.iter().for_each(|(index, row)| hash.note_all([index.0, *row]));
        hash.note(self.world.oracle.excused() as u64);
        hash.0
    }

    /// Whether anything is promised of a power cut now: one disk that lied about flushes counts as lost with what it
    /// should have stored, and there must be all others.
    pub fn vouches_for_cut(&self) -> bool {
        let serve = |member: &Member| !member.serves() || self.bank().is_online(member.device);
        self.liars.is_empty() || self.liars.len() == 1 && self.is_whole() && self.array().members().iter().all(serve)
    }

    /// Whether every sector can still be had when `device` loses `extent`, or all of it, given what has been lost, may
    /// yet fail, or cannot be trusted.
    pub fn can_lose(&self, device: DeviceId, extent: Option<Extent>) -> bool {
        let array = self.array();
        let Some(member) = array.members().get(device) else { return true };
        let Place::Slot(slot) = member.place else { return true };
        let geometry = array.geometry();
        let hit = extent.map(|extent| rows_of(self.array(), member, extent));
        // What was recovered counts after a power cut only as far as it is on record.
        let unrecorded =
            |member: &Member| member.superblock.recovery.is_some() || (member.filling && array.is_recording());
        let row_survives = |index: StripeIndex, stripe: &Stripe, row: u64| {
            let lost = |column: &&Column| {
                column.slot == slot
                    || is_lost(array, column, row)
                    || array.members().in_slot(column.slot).any(unrecorded)
            };
            match geometry.parity_count() {
                0 => {
                    let left: SlotSet =
                        stripe.columns.iter().filter(|c| !lost(c)).map(|c| usize::from(c.slot.0)).collect();
                    !left.is_empty()
                }
                parity => {
                    let trusted = array.is_trusted_at(stripe.start + Sectors(row));
                    let count = stripe.columns.iter().filter(lost).count();
                    count <= if trusted && !self.accepted.contains(&(index, row)) { parity } else { 0 }
                }
            }
        };
        !array.is_failed()
            && geometry.tolerance() > 0
            && (0..geometry.stripes()).map(StripeIndex).all(|index| {
                let stripe = geometry.stripe(index);
                let on_it = stripe.columns.iter().any(|column| column.slot == slot);
                !on_it
                    || (0..stripe.rows.0)
                        // Where a sector cannot be read, its neighbours in the chunk are reconstructed with it.
                        .filter(|_| hit.as_ref().is_none_or(|hit| hit.iter().any(|(of, _)| *of == index)))
                        .all(|row| row_survives(index, &stripe, row))
            })
    }

    /// Whether parity is in doubt somewhere, and a member is missing that it may be needed for.
    pub fn is_dirty_and_degraded(&self) -> bool {
        let (array, capacity) = (self.array(), self.world.oracle.capacity().0);
        array.geometry().parity_count() > 0
            && !array.degraded().is_empty()
            && (0..capacity).any(|lba| !array.is_trusted_at(Lba(lba)))
    }

    /// Whether some sector of a stripe cannot be read on some member.
    pub fn has_unreadable(&self, index: StripeIndex) -> bool {
        let stripe = self.array().geometry().stripe(index);
        let unreadable = |column: &Column| {
            let on = |member: &Member| {
                self.bank().is_unreadable(member.device, member.on_device(column.base, &(0..stripe.rows.0)))
            };
            self.array().members().in_slot(column.slot).any(on)
        };
        stripe.columns.iter().any(unreadable)
    }

    /// Whether a row was in doubt when the array was forced.
    pub fn was_given_up(&self, row: Row) -> bool {
        self.accepted.contains(&row)
    }

    /// Whether any of these rows was in doubt when the array was forced, or was touched by a silent fault.
    pub fn is_accepted(&self, index: StripeIndex, rows: Range<u64>) -> bool {
        rows.into_iter().any(|row| self.accepted.contains(&(index, row)) || self.is_tainted((index, row)))
    }

    /// Whether a silent fault has touched a row, so that nobody vouches for any of it.
    fn is_tainted(&self, row: Row) -> bool {
        let oracle = &self.world.oracle;
        oracle.excused() > 0 && sectors_of(self.array(), row).all(|lba| oracle.is_excused(lba))
    }

    /// Whatever can be asked of the array at any moment.
    pub fn check(&self) -> Result<(), Failed> {
        self.array().check_invariants();
        if !self.has_columns_to_compare() {
            return Ok(());
        }
        let busy = self.busy_rows();
        for index in (0..self.array().geometry().stripes()).map(StripeIndex) {
            let stripe = self.array().geometry().stripe(index);
            for row in 0..stripe.rows.0 {
                if !busy.contains(&(index, row)) {
                    self.row_agrees(index, &stripe, row)?;
                }
            }
        }
        Ok(())
    }

    /// The same of rows that were written to since the last time. Those that somebody works on are left for the next.
    pub fn check_written(&mut self) -> Result<(), Failed> {
        let Lab { world, unchecked, .. } = self;
        let World { stack, .. } = world;
        for device in stack.bank().inner().devices() {
            let written = stack.bank_mut().inner_mut().take_written(device);
            if let Some(member) = stack.members().get(device) {
                written.into_iter().for_each(|extent| unchecked.extend(rows_of(stack, member, extent)));
            }
        }
        if !self.has_columns_to_compare() {
            self.unchecked.clear();
            return Ok(());
        }
        let busy = self.busy_rows();
        let (later, now): (BTreeSet<Row>, BTreeSet<Row>) = self.unchecked.iter().partition(|row| busy.contains(row));
        self.unchecked = later;
        for (index, row) in now {
            self.row_agrees(index, &self.array().geometry().stripe(index), row)?;
        }
        Ok(())
    }

    fn has_columns_to_compare(&self) -> bool {
        self.array().geometry().tolerance() > 0 && !self.array().is_failed()
    }

    /// Rows that somebody works on, or that were in doubt when the array was forced.
    fn busy_rows(&self) -> BTreeSet<Row> {
        let mut busy = self.accepted.clone();
        for (index, rows) in self.array().rows_under_way() {
            busy.extend(rows.map(|row| (index, row)));
        }
        busy
    }

    /// A row nobody works on and no crash has left in doubt: its columns agree, on every device that claims to hold
    /// them.
    fn row_agrees(&self, index: StripeIndex, stripe: &Stripe, row: u64) -> Result<(), Failed> {
        let array = self.array();
        if self.is_tainted((index, row)) || !array.is_trusted_at(stripe.start + Sectors(row)) {
            return Ok(());
        }
        let roles: SmallVec<[Role; 8]> = stripe.columns.iter().map(|column| column.role).collect();
        let replaced = array.members().seats().iter().any(|seat| seat.replacement.is_some());
        for replacements in [false, true] {
            if replacements && !replaced {
                continue;
            }
            let known = self.known(stripe, row, replacements);
            let all = 0..known.iter().flatten().next().map_or(0, bytes::Bytes::len);
            let differ = if array.geometry().parity_count() > 0 {
                compare_parity(crate::parity::Kernel::current(), &roles, &known, all).is_some()
            } else {
                compare_copies(&known, all).is_some()
            };
            if differ {
                return Err(Failed::Disagree { stripe: index, row });
            }
        }
        Ok(())
    }

    pub(super) fn known(&self, stripe: &Stripe, row: u64, replacements: bool) -> Known {
        let column = |column: &Column| {
            let mut sitting: Vec<&Member> = self.array().members().in_slot(column.slot).collect();
            if replacements {
                sitting.reverse();
            }
            let rows = row..row + 1;
            let member =
                sitting.into_iter().find(|member| member.standing(column.base, &rows) == Standing::Readable)?;
            let extent = member.on_device(column.base, &rows);
            let answers = self.bank().is_online(member.device) && !self.bank().is_hung(member.device);
            let there = answers && !self.bank().is_unreadable(member.device, extent);
            there.then(|| bytes::Bytes::from(self.bank().peek(member.device, extent)))
        };
        stripe.columns.iter().map(column).collect()
    }

    /// Gives up every sector of the rows that were in doubt when the array was forced: of two syndromes that disagree,
    /// it takes either for right once more is lost.
    pub fn excuse_accepted(&mut self) {
        for row in self.accepted.clone() {
            let World { stack, oracle, .. } = &mut self.world;
            sectors_of(stack, row).for_each(|lba| oracle.excuse(lba));
        }
    }

    /// Rows that were in doubt, and whose columns agree now that all are there, can be reconstructed again: what they
    /// read as stays excused until it is written, and no more than that.
    pub fn trust_what_agrees(&mut self) {
        if self.is_whole() && !self.array().is_syncing() {
            let doubtful = self.accepted.iter().copied().filter(|row| !agrees(self, *row)).collect();
            self.accepted = doubtful;
        }
    }

    /// Every set of slots that can still be lost.
    pub fn losable(&self) -> Vec<SlotSet> {
        let geometry = self.array().geometry();
        let lost = self.array().degraded();
        let sets = (geometry.slots() - lost).subsets().filter(|set| !set.is_empty() && geometry.survives(*set | lost));
        sets.collect()
    }

    /// Stops every disk of these slots.
    pub fn lose(&mut self, slots: SlotSet) {
        let devices: Vec<DeviceId> =
            slots.iter().filter_map(|slot| self.array().members().seats()[slot].member).collect();
        for device in devices {
            self.bank_mut().fail_stop(device);
        }
    }
}

/// The rows of the array that lie on these sectors of a member.
fn rows_of(array: &SimArray, member: &Member, extent: Extent) -> Vec<Row> {
    // One that has just failed may be back before anybody has written that down.
    let slot = match (member.place, member.superblock.role()) {
        (Place::Slot(slot) | Place::Replacement(slot), _) => slot,
        (Place::Faulty, MemberRole::Slot(slot)) => Slot(slot as u8),
        _ => return Vec::new(),
    };
    let geometry = array.geometry();
    let row_at = |sector: u64| {
        let row = sector.checked_sub(member.data_offset().0)?;
        let index = geometry.stripe_at(slot, Lba(row))?;
        let stripe = geometry.stripe(index);
        let of_row = |base: u64| (base..base + stripe.rows.0).contains(&row);
        let column = stripe.columns.iter().find(|c| c.slot == slot && of_row(c.base.0));
        Some((index, row - column.expect("a stripe has a column at its rows").base.0))
    };
    extent.range().filter_map(row_at).collect()
}

/// The sectors of the volume in a row.
fn sectors_of(array: &SimArray, (index, row): Row) -> impl Iterator<Item = Lba> + use<> {
    let stripe = array.geometry().stripe(index);
    let (start, rows) = (stripe.start, stripe.rows.0);
    (0..stripe.data_chunks as u64).map(move |chunk| start + Sectors(chunk * rows + row))
}

/// A silent fault has touched these sectors of a device: nobody vouches for the rows they lie in (R12).
fn taint(array: &SimArray, oracle: &mut Oracle, device: DeviceId, extent: Extent) {
    let Some(member) = array.members().get(device) else { return };
    for row in rows_of(array, member, extent) {
        sectors_of(array, row).for_each(|lba| oracle.excuse(lba));
    }
}

/// Tells the oracle what silent faults have touched since the last time, and what could not be read: a write may have
/// mended that by the time the error arrives.
fn account(array: &mut SimArray, oracle: &mut Oracle) {
    for strike in array.bank_mut().unseen_strikes().to_vec() {
        if strike.kind.is_silent() {
            for extent in strike.extents {
                taint(array, oracle, strike.device, extent);
            }
        }
    }
    for (device, extent) in array.bank_mut().inner_mut().take_unreadable() {
        let Some(member) = array.members().get(device) else { continue };
        for row in rows_of(array, member, extent) {
            sectors_of(array, row).filter(|lba| earned(array, *lba)).for_each(|lba| oracle.was_lost(lba));
        }
    }
}

/// Sectors of the volume in `rows` that no member holds and can read.
fn sectors_without_member(array: &SimArray, rows: &BTreeSet<Row>) -> Vec<Lba> {
    let mut sectors = Vec::new();
    for (index, row) in rows {
        let stripe = array.geometry().stripe(*index);
        for column in &stripe.columns {
            // Where a row of a chunk cannot be read, its neighbours are reconstructed with it.
            if !(0..stripe.rows.0).any(|near| is_lost(array, column, near)) {
                continue;
            }
            if let Role::Data { index: chunk, .. } = column.role {
                sectors.push(stripe.start + Sectors(u64::from(chunk) * stripe.rows.0 + row));
            }
        }
    }
    sectors
}

/// Whether no device has this row of a column, by what it holds and by what it can read.
fn is_lost(array: &SimArray, column: &Column, row: u64) -> bool {
    let rows = row..row + 1;
    let bank = array.bank().inner();
    !array.members().in_slot(column.slot).any(|member| {
        member.standing(column.base, &rows) == Standing::Readable
            && !may_fail(array, member.device)
            && bank.is_online(member.device)
            && !bank.is_unreadable(member.device, member.on_device(column.base, &rows))
    })
}

/// Whether requests of a disk may fail for a fault that somebody gave it.
fn may_fail(array: &SimArray, device: DeviceId) -> bool {
    let fails = |fault: &crate::disk::ArmedFault| fault.device == device && fault.spec.kind.is_error();
    array.bank().list().iter().any(fails) || array.bank().inner().may_fail(device)
}

/// Whether faults that are really there leave too little of a sector: what the array believes of its members is taken
/// for true only where it believes less than it could.
pub fn earned(array: &SimArray, lba: Lba) -> bool {
    if array.is_failed() {
        return true;
    }
    let geometry = array.geometry();
    let (index, offset) = geometry.locate(lba);
    let stripe = geometry.stripe(index);
    let (chunk, row) = (offset.0 / stripe.rows.0, offset.0 % stripe.rows.0);
    let lost_columns: Vec<_> = stripe.columns.iter().filter(|column| is_lost(array, column, row)).collect();
    if geometry.parity_count() == 0 {
        let lost = lost_columns.iter().filter(|column| holds(column.role, chunk)).count();
        return lost == stripe.columns.iter().filter(|column| holds(column.role, chunk)).count();
    }
    let mine = lost_columns.iter().any(|column| holds(column.role, chunk));
    lost_columns.len() > geometry.parity_count() || (mine && !array.is_trusted_at(lba))
}

fn holds(role: Role, chunk: u64) -> bool {
    matches!(role, Role::Data { index, .. } if u64::from(index) == chunk)
}

fn candidate(bank: &SimBank, disk: DeviceId) -> Option<Candidate> {
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
    bank: Fault<SimBank>,
    clients: Waiting<SimArray>,
    shape: Shape,
    model: DiskModel,
    disks: Vec<DeviceId>,
    accepted: BTreeSet<Row>,
    liars: BTreeSet<DeviceId>,
    /// Rows that the cut may have left in disagreement, if anything was missing then.
    in_doubt: BTreeSet<Row>,
    /// A member was missing when the power went.
    degraded: bool,
    /// Slots that must be whole when it is assembled.
    owed: SlotSet,
    /// Disks, and copies of them that were put in.
    copies: Vec<(DeviceId, DeviceId)>,
    /// It is another array than the one that was switched off, on the same disks.
    made_anew: bool,
}

impl Off {
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
        &self.disks
    }

    /// Whether a member was missing when the power went.
    pub fn was_degraded(&self) -> bool {
        self.degraded
    }

    /// All disks that had stopped answer again.
    pub fn bring_all_back(&mut self) {
        for disk in &self.disks {
            self.bank.inner_mut().bring_back(*disk);
        }
    }

    /// Whether the disk is among the freshest, and others are as fresh.
    pub fn has_equals(&self, device: DeviceId) -> bool {
        let others: Vec<DeviceId> = self.disks.iter().copied().filter(|disk| *disk != device).collect();
        self.in_sync_events(&others) >= self.in_sync_events(&self.disks)
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
        let copy = self.bank.inner_mut().add_disk(self.model);
        self.bank.inner_mut().copy(device, copy);
        self.disks.push(copy);
        self.copies.push((device, copy));
    }

    /// Whether copies of disks were put in.
    pub fn has_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Takes copies of disks out again.
    pub fn take_copies_out(&mut self) {
        for (_, copy) in std::mem::take(&mut self.copies) {
            self.disks.retain(|disk| *disk != copy);
        }
    }

    /// Too little is left: a new array is made of the same disks, and nothing is promised of what they held.
    pub fn make_anew(mut self) -> Lab {
        self.take_copies_out();
        let count = self.shape.disks + self.shape.spares;
        self.disks.truncate(count);
        while self.disks.len() < count {
            self.disks.push(self.bank.inner_mut().add_disk(self.model));
        }
        self.bank.clear();
        self.bring_all_back();
        make(self.bank.inner_mut(), self.shape, &self.disks);
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
        self.disks.iter().find(claims).copied()
    }

    /// Whether an array would come of the other disks, none of them behind, with every sector on them.
    pub fn can_lose(&self, device: DeviceId) -> bool {
        let others: Vec<DeviceId> = self.disks.iter().copied().filter(|disk| *disk != device).collect();
        if self.in_sync_events(&others) < self.in_sync_events(&self.disks) || !self.accepted.is_empty() {
            return false;
        }
        let started = start(self.bank.clone(), &others, AssembleOptions::default(), SyncOptions::UNLIMITED);
        let Ok((array, _)) = started else { return false };
        (0..array.geometry().capacity().0).all(|lba| !earned(&array, Lba(lba)))
    }

    /// Makes a disk hold what it held once, unless its count of events would not tell.
    pub fn restore(&mut self, device: DeviceId, snapshot: Snapshot) -> bool {
        let now = self.bank().snapshot(device);
        let others: Vec<DeviceId> = self.disks.iter().copied().filter(|disk| *disk != device).collect();
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
        let Ok((array, _)) = start(bank, &[device], AssembleOptions::default(), SyncOptions::UNLIMITED) else {
            return false;
        };
        let whole = Extent::new(Lba(0), array.geometry().capacity());
        let mut half = self.clients.clone().join(array);
        half.wake();
        half.submit_write(whole, Durability::Fua);
        half.stack.stop();
        while !half.stack.is_stopped() {
            if !half.step().is_ok_and(|more| more) {
                break;
            }
        }
        if !half.stack.is_stopped() {
            return false;
        }
        let data = half.stack.members().get(device).expect("it was started of it").data_offset();
        let mut bank = half.stack.into_bank();
        // What nobody else has ever written: should it be seen beside the others, it is garbage.
        let apart = [0xa5].repeat((self.shape.member.0 * u64::from(self.shape.grain)) as usize);
        bank.inner_mut().write_media(device, data, &apart);
        let snapshot = bank.inner().snapshot(device);
        let others: Vec<DeviceId> = self.disks.iter().copied().filter(|disk| *disk != device).collect();
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
            self.disks.iter().partition(|disk| self.bank().is_online(**disk));
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
        let Off {
            bank,
            clients,
            shape,
            model,
            disks,
            mut accepted,
            liars,
            in_doubt,
            degraded,
            owed,
            copies,
            made_anew,
        } = self;
        match start(bank, &disks, options, sync) {
            Ok((array, remarks)) => {
                // Of a disk and its copy one takes part at the most; the other one is taken away.
                let mut disks = disks;
                for (original, copy) in copies {
                    let left = if array.members().get(copy).is_some() { original } else { copy };
                    disks.retain(|disk| *disk != left);
                }
                let mut world = clients.join(array);
                world.wake();
                if force && remarks.contains(&Remark::ForcedClean) {
                    accepted.extend(&in_doubt);
                    for lba in sectors_without_member(&world.stack, &in_doubt) {
                        world.oracle.excuse(lba);
                    }
                }
                // Old members stand beside newer ones: any sector may be of any time.
                if made_anew || remarks.iter().any(|remark| matches!(remark, Remark::ForcedIn { .. })) {
                    let geometry = world.stack.geometry();
                    let rows = |index| (0..geometry.stripe(index).rows.0).map(move |row| (index, row));
                    accepted.extend((0..geometry.stripes()).map(StripeIndex).flat_map(rows));
                    (0..geometry.capacity().0).for_each(|lba| world.oracle.excuse(Lba(lba)));
                }
                let lost = world.stack.degraded();
                let (whole, taken, unchecked) = (owed - lost, owed & lost, BTreeSet::new());
                Ok(Lab { world, shape, model, disks, remarks, accepted, liars, unchecked, whole, taken })
            }
            Err((bank, error)) => {
                let bank = *bank;
                let off = Off {
                    bank,
                    clients,
                    shape,
                    model,
                    disks,
                    accepted,
                    liars,
                    in_doubt,
                    degraded,
                    owed,
                    copies,
                    made_anew,
                };
                Err(Box::new((off, error)))
            }
        }
    }
}

type Started = Result<(SimArray, Vec<Remark>), (Box<Fault<SimBank>>, AssembleError)>;

/// After a power cut what a read returns is what is on the medium, and after a clean stop what counts is on both.
fn start(bank: Fault<SimBank>, disks: &[DeviceId], options: AssembleOptions, sync: SyncOptions) -> Started {
    let there = disks.iter().filter(|disk| bank.inner().is_online(**disk));
    let candidates = there.filter_map(|disk| candidate(bank.inner(), *disk)).collect();
    match assemble(candidates, options) {
        Ok(assembly) => {
            let array = Array::start(bank, assembly.geometry, assembly.start, sync);
            Ok((array, assembly.remarks))
        }
        Err(error) => Err((Box::new(bank), error)),
    }
}
