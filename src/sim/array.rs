//! An array on simulated disks, and what only a simulator can know about it.
//!
//! From outside an array is right if its answers are. From inside more can be asked at every moment: do the
//! columns of a stripe nobody works on agree, on every device that claims to hold them? Is an error owed to faults
//! that are really there? Which sectors would a power cut leave in doubt?

use std::collections::BTreeSet;
use std::ops::Range;

use smallvec::SmallVec;

use super::Failed;
use super::fabrics::{Fabrics, Part, Side, cut_off_by, cut_off_without, is_cut_off, mend};
use super::losses::{account, earned_by_clients, is_lost, may_fail, rows_of, sectors_of, taint};
use super::mending::agrees;
use super::off::{Off, candidate, make, start};
use super::path_rules::Rules;
use super::shape::METADATA;
use super::{CacheLoss, Choose, DiskModel, Shape, SimBank, Trace, World};
use crate::block::{DeviceId, Extent, Lba, Sectors};
use crate::disk::Fault;
use crate::fabric::emulated::Health;
use crate::fabric::{Fabric, PathId};
use crate::multipath::Paths;
use crate::multipath::map::{Change, Map};
use crate::raid::assemble::Remark;
use crate::raid::compute::{Known, compare_copies, compare_parity};
use crate::raid::create::joining;
use crate::raid::geometry::{Column, Role, Stripe, StripeIndex};
use crate::raid::manage::ManageError;
use crate::raid::member::{Member, Place, Standing};
use crate::raid::set::SlotSet;
use crate::raid::{Array, VOLUME};

/// The array under test: over disks that can have every fault, and be reached by paths.
pub type SimArray = Array<Paths<Fault<SimBank>>>;

/// The array as its clients reach it.
pub type SimStack = Paths<SimArray>;

/// An array with its clients, and the disks in the same box, members or not.
#[derive(Clone, Debug)]
pub struct Lab {
    /// The array and its clients.
    pub world: World<SimStack>,
    pub(super) site: Site,
    /// What there was to say when it was assembled.
    pub(super) remarks: Vec<Remark>,
    /// Rows that were written to since their columns were last compared.
    pub(super) unchecked: BTreeSet<Row>,
    /// Slots that have been whole since that was last on record.
    pub(super) whole: SlotSet,
    /// Slots that were whole before it was assembled, and are not now.
    pub(super) taken: SlotSet,
}

/// What is the same with the power on and off: what a lab is made of, and what is known of that.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) shape: Shape,
    pub(super) model: DiskModel,
    pub(super) fabrics: Fabrics,
    pub(super) seed: u64,
    pub(super) rules: Rules,
    /// Disks in the box, members or not.
    pub(super) disks: Vec<DeviceId>,
    /// Rows that were in doubt when the array was forced.
    pub(super) accepted: BTreeSet<Row>,
    /// Disks that have lied about a flush.
    pub(super) liars: BTreeSet<DeviceId>,
}

/// What an administrator does to paths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PathOrder {
    /// Fails one.
    Fail,
    /// Reinstates one.
    Reinstate,
    /// Has requests go down the group of this number.
    SwitchGroup,
}

/// Does something with the maps of a side, or gives `false` if there are none.
macro_rules! each_side {
    ($lab:expr, $side:expr, $multipath:ident => $do:expr) => {
        match $side {
            Side::Volume => match $lab.world.stack.multipath_mut() {
                Some($multipath) => $do,
                None => false,
            },
            Side::Members => match $lab.world.stack.bank_mut().bank_mut().multipath_mut() {
                Some($multipath) => $do,
                None => false,
            },
        }
    };
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
        Lab::reached(shape, model, Fabrics::NONE, seed)
    }

    /// A new array that is reached, and reaches its members, by fabrics.
    pub fn reached(shape: Shape, model: DiskModel, fabrics: Fabrics, seed: u64) -> Lab {
        let mut bank = SimBank::new(seed);
        let disks: Vec<DeviceId> = shape.devices().map(|_| bank.add_disk(model)).collect();
        make(&mut bank, shape, &disks);
        let bank = fabrics.under(Fault::new(bank), &disks, seed);
        let array = start(bank, &disks).unwrap_or_else(|error| panic!("a new array does not assemble: {error}"));
        let (rules, accepted, liars) = Default::default();
        Lab {
            world: World::new(fabrics.over(array, seed), earned_by_clients).with_account(account),
            site: Site { shape, model, fabrics, seed, rules, disks, accepted, liars },
            remarks: Vec::new(),
            unchecked: BTreeSet::new(),
            whole: SlotSet::default(),
            taken: SlotSet::default(),
        }
    }

    /// What the array is.
    pub fn shape(&self) -> Shape {
        self.site.shape
    }

    /// What there was to say when it was assembled.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// The array.
    pub fn array(&self) -> &SimArray {
        self.world.stack.bank()
    }

    /// The array, to be managed.
    pub fn array_mut(&mut self) -> &mut SimArray {
        self.world.stack.bank_mut()
    }

    /// The faults of its disks, to be armed and disarmed.
    pub fn faults_mut(&mut self) -> &mut Fault<SimBank> {
        self.array_mut().bank_mut().bank_mut()
    }

    /// By what fabrics it is reached.
    pub fn fabrics(&self) -> Fabrics {
        self.site.fabrics
    }

    /// The disks.
    pub fn bank(&self) -> &SimBank {
        self.array().bank().bank().inner()
    }

    /// The disks, to be harmed.
    pub fn bank_mut(&mut self) -> &mut SimBank {
        self.faults_mut().inner_mut()
    }

    /// Disks in the box, members or not.
    pub fn disks(&self) -> &[DeviceId] {
        &self.site.disks
    }

    /// Adds a new disk as a spare.
    pub fn add_disk(&mut self) -> Result<DeviceId, ManageError> {
        let model = self.site.model;
        let Some(like) = self.array().members().iter().find(|member| member.serves()) else {
            return Err(ManageError::Frozen);
        };
        let like = like.superblock.clone();
        let disk = self.bank_mut().add_disk(model);
        self.site.disks.push(disk);
        let now = self.world.now();
        self.array_mut().bank_mut().add_unit(disk, now);
        self.site.rules.look(&self.world);
        let (number, sync_size) = (self.array().next_device_number(), self.array().geometry().sync_size());
        let superblock =
            joining(&like, self.site.shape.device(disk), number, sync_size).expect("disks are of one size");
        self.array_mut().add(disk, superblock).map(|()| disk)
    }

    /// Fails a disk by order. What carries on in its slot, a replacement that is full but not on record as such, does
    /// not make that slot whole before it is.
    pub fn fail(&mut self, disk: DeviceId) -> Result<(), ManageError> {
        let place = self.array().members().get(disk).map(|member| member.place);
        self.array_mut().fail(disk)?;
        if let Some(Place::Slot(slot)) = place {
            self.whole = self.whole.iter().filter(|whole| *whole != slot.0 as usize).collect();
        }
        Ok(())
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
        self.site.disks.retain(|other| *other != disk);
    }

    /// Switches off what was stopped. `dark`: members may be missing when the power is back.
    pub fn switch_off(mut self, dark: bool) -> Off {
        self.note_whole();
        let owed = if dark { SlotSet::default() } else { self.owed() };
        let degraded = dark || self.may_be_missing();
        let in_doubt = if degraded { self.rows_in_doubt() } else { BTreeSet::new() };
        let (stack, clients) = self.world.part();
        Off {
            bank: stack.into_bank().into_bank().into_bank(),
            clients,
            site: Site { rules: self.site.rules.without_power(), ..self.site },
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
        let vouched = self.site.liars.is_empty() && !self.array().is_failed();
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
            || !self.site.liars.is_empty()
            || self.site.disks.iter().any(|disk| !self.bank().is_online(*disk))
    }

    /// A hash of what decides, beside what is left on the disks, what may come of a power cut now: if that is the same,
    /// so is all that follows, but for the time it takes. Of one life.
    pub fn doubts(&self) -> u64 {
        let mut hash = Trace::default();
        let degraded = self.may_be_missing();
        hash.note_all([self.world.inflight() as u64, self.world.oracle.excused() as u64, u64::from(degraded)]);
        hash.note(self.owed().bits());
        let rows = if degraded { self.rows_in_doubt() } else { self.site.accepted.clone() };
        rows.into_iter().for_each(|(index, row)| hash.note_all([index.0, row]));
        hash.0
    }

    /// Cuts the power: requests under way are gone, and of what caches held `choose` decides. `dark`: members may be
    /// missing when the power is back.
    pub fn cut_power(mut self, loss: CacheLoss, dark: bool, choose: &mut impl Choose) -> Off {
        for liar in self.site.liars.clone() {
            for extent in self.bank().unsettled(liar) {
                let World { stack, oracle, .. } = &mut self.world;
                taint(stack.bank(), oracle, liar, extent);
            }
        }
        // It failed with the array, and nobody could write that down: it comes back as if it held all it should.
        if self.array().is_failed() {
            for disk in self.site.disks.clone() {
                for extent in self.bank().lost(disk).collect::<Vec<_>>() {
                    let World { stack, oracle, .. } = &mut self.world;
                    taint(stack.bank(), oracle, disk, extent);
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
        let mut rows = self.site.accepted.clone();
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
        self.site.liars.insert(device);
    }

    /// Tells the oracle which sectors that are asked for cannot be had at this moment, for the error may arrive when they
    /// can; and follows which slots are whole.
    pub fn note_losses(&mut self) {
        self.note_whole();
        let World { stack, oracle, .. } = &mut self.world;
        let array = stack.bank();
        let unreadable = |member: &Member| {
            let data = Extent::new(member.data_offset(), self.site.shape.member);
            !member.bad.is_empty() || array.bank().bank().inner().is_unreadable(member.device, data)
        };
        let whole = array.degraded().is_empty() && !array.members().iter().any(unreadable);
        if whole && !is_cut_off(stack, VOLUME) && !self.site.disks.iter().any(|disk| may_fail(array, *disk)) {
            return;
        }
        let asked: BTreeSet<u64> = oracle.asked().flat_map(Extent::range).collect();
        for lba in asked.into_iter().map(Lba).filter(|lba| earned_by_clients(stack, *lba)) {
            oracle.was_lost(lba);
        }
    }

    /// Judges how the layers of paths behave, if there are any.
    pub fn check_paths(&mut self) -> Result<(), Failed> {
        if self.site.fabrics.any() {
            self.site.rules.judge(&mut self.world, self.site.fabrics)?;
        }
        Ok(())
    }

    /// What happened to maps of paths since the last call, and was judged.
    pub fn drain_path_changes(&mut self) -> Vec<(Side, DeviceId, Change)> {
        self.site.rules.drain_changes()
    }

    /// A component is as `health` says from now on. `false`: there is none.
    pub fn set_health(&mut self, part: Part, health: Health) -> bool {
        let now = self.world.now();
        self.site.rules.harms += u64::from(health != Health::Up);
        self.site.rules.look(&self.world);
        let is_there = each_side!(self, part.side, multipath => {
            let Some(component) = part.find(multipath.fabric().graph()) else { return false };
            multipath.fabric_mut().set_health(component, health, now);
            true
        });
        // What loses a frame may be well again by the next event.
        self.site.rules.look(&self.world);
        is_there
    }

    /// The units that would be cut off if a component were as `health` says.
    pub fn cut_off_by(&self, part: Part, health: Health) -> Vec<DeviceId> {
        match part.side {
            Side::Volume => cut_off_by(&self.world.stack, part, health),
            Side::Members => cut_off_by(self.array().bank(), part, health),
        }
    }

    /// The member that would be cut off if this path took no requests.
    pub fn cut_off_without(&self, path: u16) -> Option<DeviceId> {
        cut_off_without(self.array().bank(), PathId(path))
    }

    /// Fails or reinstates a path by order. `false`: there is none.
    pub fn order_path(&mut self, side: Side, number: u16, order: PathOrder) -> bool {
        let now = self.world.now();
        self.site.rules.asked(side, &self.world);
        self.site.rules.harms += 1;
        each_side!(self, side, multipath => {
            match order {
                PathOrder::Fail if usize::from(number) < multipath.fabric().paths().len() => {
                    multipath.fail_path(PathId(number), now);
                }
                PathOrder::Reinstate if usize::from(number) < multipath.fabric().paths().len() => {
                    multipath.reinstate_path(PathId(number), now);
                }
                PathOrder::SwitchGroup => {
                    let units: Vec<DeviceId> = multipath.maps().iter().map(Map::unit).collect();
                    let groups: Vec<usize> = multipath.maps().iter().map(|map| map.groups().len()).collect();
                    for (unit, _) in units.into_iter().zip(groups).filter(|(_, count)| usize::from(number) < *count) {
                        multipath.switch_group(unit, number.into(), now);
                    }
                }
                PathOrder::Fail | PathOrder::Reinstate => return false,
            }
            true
        })
    }

    /// All components are well again.
    pub fn mend_fabrics(&mut self) {
        let now = self.world.now();
        self.site.rules.look(&self.world);
        if let Some(multipath) = self.world.stack.multipath_mut() {
            mend(multipath, now);
        }
        if let Some(multipath) = self.array_mut().bank_mut().multipath_mut() {
            mend(multipath, now);
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
        let data = Extent::new(Lba(METADATA.0), self.site.shape.member);
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
        self.site.accepted.iter().for_each(|(index, row)| hash.note_all([index.0, *row]));
        hash.note(self.world.oracle.excused() as u64);
        hash.0
    }

    /// Whether anything is promised of a power cut now: one disk that lied about flushes counts as lost with what it
    /// should have stored, and there must be all others.
    pub fn vouches_for_cut(&self) -> bool {
        let serve = |member: &Member| !member.serves() || self.bank().is_online(member.device);
        self.site.liars.is_empty()
            || self.site.liars.len() == 1 && self.is_whole() && self.array().members().iter().all(serve)
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
                    count <= if trusted && !self.site.accepted.contains(&(index, row)) { parity } else { 0 }
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
        self.site.accepted.contains(&row)
    }

    /// Whether any of these rows was in doubt when the array was forced, or was touched by a silent fault.
    pub fn is_accepted(&self, index: StripeIndex, rows: Range<u64>) -> bool {
        rows.into_iter().any(|row| self.site.accepted.contains(&(index, row)) || self.is_tainted((index, row)))
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
        let array = world.stack.bank_mut();
        for device in array.bank().bank().inner().devices() {
            let written = array.bank_mut().bank_mut().inner_mut().take_written(device);
            if let Some(member) = array.members().get(device) {
                written.into_iter().for_each(|extent| unchecked.extend(rows_of(array, member, extent)));
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
        let mut busy = self.site.accepted.clone();
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
            // What a flush has lost under paths, the array may not know before the answer is there.
            let lost = |sectors: Extent| sectors.start < extent.end() && extent.start < sectors.end();
            let is_lost = self.site.fabrics.members.is_some() && self.bank().lost(member.device).any(lost);
            let there = answers && !is_lost && !self.bank().is_unreadable(member.device, extent);
            there.then(|| bytes::Bytes::from(self.bank().peek(member.device, extent)))
        };
        stripe.columns.iter().map(column).collect()
    }

    /// Gives up every sector of the rows that were in doubt when the array was forced: of two syndromes that disagree,
    /// it takes either for right once more is lost.
    pub fn excuse_accepted(&mut self) {
        for row in self.site.accepted.clone() {
            let World { stack, oracle, .. } = &mut self.world;
            sectors_of(stack.bank(), row).for_each(|lba| oracle.excuse(lba));
        }
    }

    /// Rows that were in doubt, and whose columns agree now that all are there, can be reconstructed again: what they
    /// read as stays excused until it is written, and no more than that.
    pub fn trust_what_agrees(&mut self) {
        if self.is_whole() && !self.array().is_syncing() {
            let doubtful = self.site.accepted.iter().copied().filter(|row| !agrees(self, *row)).collect();
            self.site.accepted = doubtful;
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
