//! An array on simulated disks, and what only a simulator can know about it.
//!
//! From outside an array is right if its answers are. From inside more can be asked at every moment: do the
//! columns of a stripe nobody works on agree, on every device that claims to hold them? Is an error owed to faults
//! that are really there? Which sectors would a power cut leave in doubt?

use std::collections::BTreeSet;
use std::ops::Range;

use super::powercut::Failed;
use super::{CacheLoss, DiskModel, Rng, SimBank, World};
use crate::block::{Bank, DeviceId, Extent, Lba, SECTOR_BYTES, Sectors};
use crate::disk::Fault;
use crate::raid::Array;
use crate::raid::assemble::{AssembleError, AssembleOptions, Candidate, Remark, assemble};
use crate::raid::bitmap_super::{BitmapHeader, BitmapImage};
use crate::raid::compute::{Known, compare_copies, compare_parity};
use crate::raid::create::{NewArray, NewDevice, create, joining};
use crate::raid::geometry::{Column, Role, Slot, Stripe, StripeIndex};
use crate::raid::level::{Layout, Level};
use crate::raid::manage::ManageError;
use crate::raid::member::{Member, Place, Standing};
use crate::raid::set::SlotSet;
use crate::raid::superblock::{DeviceUuid, MemberRole, SetName, SetUuid, Timestamp};
use crate::raid::sync::SyncOptions;

/// The array under test: over disks that can have every fault.
pub type SimArray = Array<Fault<SimBank>>;

/// Where data begins on every member.
const METADATA: Sectors = Sectors(2048);
/// The chunk of drawn arrays: small, so that requests cross stripes.
const CHUNK: Sectors = Sectors(8);

/// What an array is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Its level.
    pub level: Level,
    /// Its layout.
    pub layout: Layout,
    /// Its chunk.
    pub chunk: Sectors,
    /// Slots.
    pub disks: usize,
    /// Spares from the start.
    pub spares: usize,
    /// Data sectors of each member.
    pub member: Sectors,
    /// What a bit of its bitmap covers, if it has one.
    pub bitmap: Option<Sectors>,
}

impl Shape {
    /// Any level and layout, 2 to 6 members, with or without bitmap and spares.
    pub fn drawn(rng: &mut Rng) -> Shape {
        let level = Level::ALL[rng.below(Level::ALL.len() as u64) as usize];
        Shape::of(level, rng)
    }

    /// Any array of a level.
    pub fn of(level: Level, rng: &mut Rng) -> Shape {
        let (names, least): (&[&str], u64) = match level {
            Level::Raid5 => (&["ls", "la", "rs", "ra", "parity-first", "parity-last"], 3),
            Level::Raid6 => (&["ls", "la", "rs", "ddf-zero-restart", "ddf-N-continue", "left-symmetric-6"], 4),
            Level::Raid10 => (&["n2", "f2", "o2", "n3", "f3"], 3),
            Level::Raid4 => (&[""], 3),
            Level::Raid0 | Level::Raid1 => (&[""], 2),
        };
        let name = names[rng.below(names.len() as u64) as usize];
        let layout = if name.is_empty() {
            Layout::default_of(level)
        } else {
            Layout::parse(level, name).expect("these layouts exist")
        };
        let disks = (least + rng.below(if level == Level::Raid1 { 2 } else { 7 - least })) as usize;
        let redundant = level != Level::Raid0;
        let bitmap = (redundant && rng.chance(50)).then(|| Sectors(8 << rng.below(3)));
        let member =
            if bitmap.is_some() || level == Level::Raid1 { Sectors(128) } else { Sectors(8 * rng.range(4..11)) };
        let spares = if redundant && rng.chance(40) { 1 } else { 0 };
        Shape { level, layout, chunk: CHUNK, disks, spares, member, bitmap }
    }

    fn model(&self) -> DiskModel {
        DiskModel { cached_writes_max: 48, ..DiskModel::small(METADATA + self.member, METADATA) }
    }

    fn device(&self, device: DeviceId) -> NewDevice {
        NewDevice { size: METADATA + self.member, uuid: DeviceUuid([device.0 as u8 + 1; 16]) }
    }
}

/// An array with its clients, and the disks in the same box, members or not.
#[derive(Clone, Debug)]
pub struct Lab {
    /// The array and its clients.
    pub world: World<SimArray>,
    shape: Shape,
    disks: Vec<DeviceId>,
    /// Rows that were in doubt when the array was forced.
    accepted: BTreeSet<(StripeIndex, u64)>,
}

impl Lab {
    /// A new array. `seed` decides the service times of its disks.
    pub fn new(shape: Shape, seed: u64) -> Lab {
        let mut bank = SimBank::new(seed);
        let disks: Vec<DeviceId> = (0..shape.disks + shape.spares).map(|_| bank.add_disk(shape.model())).collect();
        let new = NewArray {
            level: shape.level,
            layout: shape.layout,
            chunk: shape.chunk,
            raid_disks: shape.disks,
            bitmap: shape.bitmap.is_some(),
            name: SetName::new("sim").expect("it is short"),
            uuid: SetUuid([7; 16]),
            created: Timestamp::new(1, 0),
            in_sync: true,
            devices: disks.iter().map(|disk| shape.device(*disk)).collect(),
        };
        let (geometry, members) = create(&new).expect("drawn shapes are possible");
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
        let array = match start(bank, &disks, AssembleOptions::default()) {
            Ok((array, _)) => array,
            Err((_, error)) => panic!("a new array does not assemble: {error}"),
        };
        Lab { world: World::new(array, earned), shape, disks, accepted: BTreeSet::new() }
    }

    /// What the array is.
    pub fn shape(&self) -> Shape {
        self.shape
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
        let model = self.shape.model();
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
        let Some(candidate) = candidate(self.bank(), disk, SimBank::peek) else {
            return Err(ManageError::NotAMember);
        };
        self.array_mut().re_add(candidate)
    }

    /// Takes a disk out of the box.
    pub fn unplug(&mut self, disk: DeviceId) {
        self.disks.retain(|other| *other != disk);
    }

    /// Assembles anew what was stopped.
    pub fn assemble_again(&mut self) -> Result<(), AssembleError> {
        let (array, _) = start_by(self.bank().clone(), &self.disks, AssembleOptions::default(), SimBank::peek)
            .map_err(|(_, error)| error)?;
        self.world.stack = array;
        Ok(())
    }

    /// Cuts the power and assembles what is left, with `force` where it is refused without. Gives the refusal, too.
    pub fn cut_power(self, loss: CacheLoss, choose: &mut Rng) -> Result<(Lab, Option<AssembleError>), AssembleError> {
        // Only a degraded array can be refused, or one whose next start may find it so.
        let may_be_refused = !self.array().degraded().is_empty()
            || self.array().is_recording()
            || self.disks.iter().any(|disk| !self.bank().is_online(*disk));
        let in_doubt = if may_be_refused { self.rows_in_doubt() } else { BTreeSet::new() };
        let Lab { world, shape, disks, mut accepted } = self;
        let mut refusal = None;
        let mut world = world.restart(|array| {
            let mut bank = array.into_bank().into_inner();
            bank.power_cut(loss, choose);
            match start(bank, &disks, AssembleOptions::default()) {
                Ok((array, _)) => Ok(array),
                Err((bank, error @ AssembleError::DirtyDegraded { .. })) => {
                    refusal = Some(error);
                    let (array, remarks) =
                        start(*bank, &disks, AssembleOptions { force: true, ..AssembleOptions::default() })
                            .map_err(|(_, error)| error)?;
                    assert!(remarks.contains(&Remark::ForcedClean), "{remarks:?}");
                    Ok(array)
                }
                Err((_, error)) => Err(error),
            }
        })?;
        if refusal.is_some() {
            accepted.extend(&in_doubt);
            for lba in sectors_without_member(&world.stack, &in_doubt) {
                world.oracle.excuse(lba);
            }
        }
        Ok((Lab { world, shape, disks, accepted }, refusal))
    }

    /// Rows whose columns a power cut now might leave in disagreement: some write there is under way, or on some
    /// member not yet on the medium, or has been in doubt since the last cut.
    pub fn rows_in_doubt(&self) -> BTreeSet<(StripeIndex, u64)> {
        let (array, geometry) = (self.array(), self.array().geometry());
        let mut rows = self.accepted.clone();
        for (index, band) in array.rows_under_way() {
            rows.extend(band.map(|row| (index, row)));
        }
        for member in array.members().iter() {
            // One that has just failed may be back before anybody has written that down.
            let slot = match (member.place, member.superblock.role()) {
                (Place::Slot(slot) | Place::Replacement(slot), _) => slot,
                (Place::Faulty, MemberRole::Slot(slot)) => Slot(slot as u8),
                _ => continue,
            };
            for extent in self.bank().unsettled(member.device) {
                for sector in extent.range() {
                    let Some(row) = sector.checked_sub(member.data_offset().0) else { continue };
                    let Some(index) = geometry.stripe_at(slot, Lba(row)) else { continue };
                    let stripe = geometry.stripe(index);
                    let of_row = |base: u64| (base..base + stripe.rows.0).contains(&row);
                    let column = stripe.columns.iter().find(|c| c.slot == slot && of_row(c.base.0));
                    rows.insert((index, row - column.expect("a stripe has a column at its rows").base.0));
                }
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

    /// Whether parity is in doubt somewhere, and a member is missing that it may be needed for.
    pub fn is_dirty_and_degraded(&self) -> bool {
        let (array, capacity) = (self.array(), self.world.oracle.capacity().0);
        array.geometry().parity_count() > 0
            && !array.degraded().is_empty()
            && (0..capacity).any(|lba| !array.is_trusted_at(Lba(lba)))
    }

    /// Whether any of these rows was in doubt when the array was forced.
    pub fn is_accepted(&self, index: StripeIndex, rows: Range<u64>) -> bool {
        rows.into_iter().any(|row| self.accepted.contains(&(index, row)))
    }

    /// Whatever can be asked of the array at any moment.
    pub fn check(&self) -> Result<(), Failed> {
        self.array().check_invariants();
        self.columns_agree()
    }

    /// Every stripe nobody works on and no crash has left in doubt: its columns agree, on every device that claims to
    /// hold them.
    fn columns_agree(&self) -> Result<(), Failed> {
        let array = self.array();
        let geometry = array.geometry();
        if geometry.tolerance() == 0 || array.is_failed() {
            return Ok(());
        }
        let mut busy = self.accepted.clone();
        for (index, rows) in array.rows_under_way() {
            busy.extend(rows.map(|row| (index, row)));
        }
        for index in (0..geometry.stripes()).map(StripeIndex) {
            let stripe = geometry.stripe(index);
            let roles: Vec<Role> = stripe.columns.iter().map(|column| column.role).collect();
            for row in 0..stripe.rows.0 {
                if busy.contains(&(index, row)) || !array.is_trusted_at(stripe.start + Sectors(row)) {
                    continue;
                }
                for replacements in [false, true] {
                    let known = self.known(&stripe, row, replacements);
                    let all = 0..known.iter().flatten().next().map_or(0, bytes::Bytes::len);
                    let differ = if geometry.parity_count() > 0 {
                        compare_parity(crate::parity::Kernel::current(), &roles, &known, all).is_some()
                    } else {
                        compare_copies(&known, all).is_some()
                    };
                    if differ {
                        return Err(Failed::Disagree { stripe: index, row });
                    }
                }
            }
        }
        Ok(())
    }

    fn known(&self, stripe: &Stripe, row: u64, replacements: bool) -> Known {
        let column = |column: &Column| {
            let mut sitting: Vec<&Member> = self.array().members().in_slot(column.slot).collect();
            if replacements {
                sitting.reverse();
            }
            let rows = row..row + 1;
            let member =
                sitting.into_iter().find(|member| member.standing(column.base, &rows) == Standing::Readable)?;
            let extent = member.on_device(column.base, &rows);
            let there = self.bank().is_online(member.device) && !self.bank().is_unreadable(member.device, extent);
            there.then(|| bytes::Bytes::from(self.bank().peek(member.device, extent)))
        };
        stripe.columns.iter().map(column).collect()
    }

    /// Gives up every sector of the rows that were in doubt when the array was forced: of two syndromes that disagree,
    /// it takes either for right once more is lost.
    pub fn excuse_accepted(&mut self) {
        for (index, row) in &self.accepted.clone() {
            let stripe = self.array().geometry().stripe(*index);
            for chunk in 0..stripe.data_chunks as u64 {
                self.world.oracle.excuse(stripe.start + Sectors(chunk * stripe.rows.0 + row));
            }
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

/// Sectors of the volume in `rows` that no member holds and can read.
fn sectors_without_member(array: &SimArray, rows: &BTreeSet<(StripeIndex, u64)>) -> Vec<Lba> {
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
            && bank.is_online(member.device)
            && !bank.is_unreadable(member.device, member.on_device(column.base, &rows))
    })
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
        return lost_columns.len() == stripe.columns.iter().filter(|c| holds(c.role, chunk)).count();
    }
    let mine = lost_columns.iter().any(|column| holds(column.role, chunk));
    lost_columns.len() > geometry.parity_count() || (mine && !array.is_trusted_at(lba))
}

fn holds(role: Role, chunk: u64) -> bool {
    matches!(role, Role::Data { index, .. } if u64::from(index) == chunk)
}

type ReadMedia = fn(&SimBank, DeviceId, Extent) -> Vec<u8>;

fn candidate(bank: &SimBank, disk: DeviceId, read: ReadMedia) -> Option<Candidate> {
    let size = bank.limits(disk).capacity;
    let sectors = |at: Lba, length: Sectors| -> Result<Vec<u8>, std::convert::Infallible> {
        let extent = Extent::new(at, length);
        // Behind the metadata a sector holds less than a superblock.
        Ok(if extent.end().0 <= METADATA.0 { read(bank, disk, extent) } else { vec![0; length.bytes() as usize] })
    };
    const { assert!(SECTOR_BYTES == 512) };
    Candidate::read(disk, size, sectors).ok()
}

type Started = Result<(SimArray, Vec<Remark>), (Box<SimBank>, AssembleError)>;

fn start(bank: SimBank, disks: &[DeviceId], options: AssembleOptions) -> Started {
    start_by(bank, disks, options, SimBank::read_media)
}

fn start_by(bank: SimBank, disks: &[DeviceId], options: AssembleOptions, read: ReadMedia) -> Started {
    let there = disks.iter().filter(|disk| bank.is_online(**disk));
    let candidates = there.filter_map(|disk| candidate(&bank, *disk, read)).collect();
    match assemble(candidates, options) {
        Ok(assembly) => {
            let array = Array::start(Fault::new(bank), assembly.geometry, assembly.start, SyncOptions::UNLIMITED);
            Ok((array, assembly.remarks))
        }
        Err(error) => Err((Box::new(bank), error)),
    }
}
