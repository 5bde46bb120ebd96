//! Assembly: from what the members say about themselves to an array that can start.
//!
//! Every member carries a superblock with a count of events; the highest count is the truth, and a
//! member that is more than one behind missed something and stays out. A member exactly one behind was
//! being written when the last one stopped: it takes its role from the freshest superblock, so that a
//! disk that failed in that very update stays failed.
//!
//! Assembly only reads. Whatever has to be written, the array writes once it is started.

use std::collections::BTreeMap;
use std::ops::Range;

use rangemap::RangeSet;
use thiserror::Error;

use super::bad_blocks::{BadBlocks, BadBlocksError};
use super::bitmap_super::{BitmapError, BitmapHeader, BitmapImage, BitmapVerdict};
use super::control::Start;
use super::geometry::{Geometry, GeometryConfig, GeometryError, MEMBERS_MOST, MemberSizes, Slot};
use super::level::{Layout, LayoutError, Level, LevelError};
use super::member::{Member, Members, Place};
use super::mutant::{self, Mutant};
use super::probe::{ProbeError, Refusal, probe};
use super::set::SlotSet;
use super::superblock::{DeviceUuid, MemberRole, ResyncOffset, SetUuid, Superblock};
use super::write_intent::WriteIntent;
use crate::block::{DeviceId, Lba, Sectors};

/// What one device says about itself.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which device.
    pub device: DeviceId,
    /// Its superblock.
    pub superblock: Superblock,
    /// Its bad-block log.
    pub bad: BadBlocks,
    /// Its bitmap, or why it cannot be used.
    pub bitmap: Option<Result<BitmapImage, BitmapError>>,
}

/// Why a device is no candidate.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CandidateError<E> {
    /// No superblock that can be used.
    #[error(transparent)]
    Probe(#[from] ProbeError<E>),
    /// Its bad-block log makes no sense.
    #[error(transparent)]
    BadBlocks(#[from] BadBlocksError),
}

impl Candidate {
    /// Reads the metadata of a device of `size` sectors; `read` gives the bytes of the sectors it is asked for.
    pub fn read<E>(
        device: DeviceId,
        size: Sectors,
        mut read: impl FnMut(Lba, Sectors) -> Result<Vec<u8>, E>,
    ) -> Result<Candidate, CandidateError<E>> {
        let superblock = probe(size, &mut read)?;
        if let Some(refusal) = superblock.unsupported() {
            return Err(ProbeError::Refused(refusal).into());
        }
        let bad = match (superblock.bad_block_log, superblock.bad_block_log_extent()) {
            (Some(log), Some(extent)) if log.present => {
                let bytes = read(extent.start, extent.length).map_err(ProbeError::Read)?;
                BadBlocks::decode(&bytes, log.shift, size)?
            }
            _ => BadBlocks::new(),
        };
        let bitmap = match superblock.bitmap_at() {
            None => None,
            Some(at) => {
                let first = read(at, Sectors(8).min(superblock.bitmap_space())).map_err(ProbeError::Read)?;
                match BitmapHeader::decode(&first).and_then(|header| header.check_space(&superblock).map(|()| header)) {
                    Err(error) => Some(Err(error)),
                    Ok(header) => {
                        let length = header.area().min(superblock.bitmap_space());
                        Some(BitmapImage::decode(&read(at, length).map_err(ProbeError::Read)?))
                    }
                }
            }
        };
        Ok(Candidate { device, superblock, bad, bitmap })
    }
}

/// How insistent whoever assembles is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AssembleOptions {
    /// Accept what may be wrong: a dirty and degraded parity array (its write hole), members that are slightly
    /// behind where there are not enough without them.
    pub force: bool,
    /// Change nothing on the members, take no writes.
    pub read_only: bool,
    /// Seconds since 1970.
    pub wall_clock: u64,
}

/// Why no array comes of the devices given.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AssembleError {
    /// No device at all.
    #[error("no devices to assemble from")]
    NoDevices,
    /// Members of different arrays.
    #[error(
        "{device:?} belongs to another array ({found:?}) than {first:?} ({expected:?}): give the members of one array only"
    )]
    OtherArray {
        /// The first device.
        first: DeviceId,
        /// Its array.
        expected: SetUuid,
        /// The device that does not fit.
        device: DeviceId,
        /// Its array.
        found: SetUuid,
    },
    /// Members of one array that disagree on its shape.
    #[error("{device:?} and {first:?} disagree about the array's {field}: one of them is damaged, leave it out")]
    Disagree {
        /// The freshest device.
        first: DeviceId,
        /// The device that does not fit.
        device: DeviceId,
        /// On what.
        field: &'static str,
    },
    /// Two devices are the same member.
    #[error("{first:?} and {second:?} are the same member (device number {number}): one is a copy, leave it out")]
    SameMember {
        /// One.
        first: DeviceId,
        /// The other.
        second: DeviceId,
        /// Their number in the array.
        number: u32,
    },
    /// The superblock names a level we do not have.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// The superblock names a layout its level does not have.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The superblock describes an array that cannot be.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Something that is left to md.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not enough members for the level.
    #[error("{present} of {raid_disks} members are usable, and the array cannot run without slots {missing:?}{}", stale_note(.stale))]
    TooFew {
        /// How many there are.
        present: usize,
        /// How many belong to it.
        raid_disks: usize,
        /// The slots without a usable member.
        missing: SlotSet,
        /// Members left out because they are behind: device, its events, the newest.
        stale: Vec<(DeviceId, u64, u64)>,
    },
    /// A parity array that was not stopped cleanly and has lost a member: what was being written when
    /// it stopped may reconstruct to bytes nobody wrote.
    #[error(
        "cannot start dirty degraded array: writes were under way when it stopped, and slots {missing:?} are missing. \
         Bytes of the missing members in those stripes cannot be known. Bring the members back, or accept that risk with --force"
    )]
    DirtyDegraded {
        /// The slots without a member in sync.
        missing: SlotSet,
    },
    /// The bitmap that the superblock speaks of is of another array or damaged.
    #[error("the write-intent bitmap cannot be used: {0}")]
    Bitmap(#[from] BitmapError),
    /// The bitmap is of another array.
    #[error("the write-intent bitmap of {device:?} is of another array")]
    ForeignBitmap {
        /// Where it was found.
        device: DeviceId,
    },
}

fn stale_note(stale: &[(DeviceId, u64, u64)]) -> String {
    if stale.is_empty() {
        return String::from(": find the missing members");
    }
    let list: Vec<String> = stale
        .iter()
        .map(|(device, events, newest)| format!("{device:?} is behind (events {events}, newest {newest})"))
        .collect();
    format!("; {}: --force takes the freshest of them, and loses what was written since", list.join(", "))
}

/// Something the user should know about an assembly that went well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remark {
    /// A member missed writes and was left out.
    LeftOut {
        /// Which.
        device: DeviceId,
        /// Its events.
        events: u64,
        /// The newest events.
        newest: u64,
    },
    /// `--force` took a member although it is behind.
    ForcedIn {
        /// Which.
        device: DeviceId,
        /// Its events.
        events: u64,
        /// The newest events.
        newest: u64,
    },
    /// `--force` started a dirty and degraded array: parity is taken for right.
    ForcedClean,
    /// The array was not stopped cleanly: redundancy has to be made to agree in this much of the sync space.
    Unclean {
        /// How much.
        sectors: Sectors,
    },
    /// The bitmap is older than the superblocks: all of it has to be taken for dirty.
    StaleBitmap,
}

/// An array that can be started.
#[derive(Clone, Debug)]
pub struct Assembly {
    /// Where everything lies.
    pub geometry: Geometry,
    /// Who sits where, and what is known of it.
    pub start: Start,
    /// The freshest superblock.
    pub newest: Superblock,
    /// What the user should know.
    pub remarks: Vec<Remark>,
}

/// Judges the devices and puts the array together.
pub fn assemble(mut candidates: Vec<Candidate>, options: AssembleOptions) -> Result<Assembly, AssembleError> {
    let newest = freshest(&candidates)?;
    check_agreement(&candidates, newest)?;
    let newest_device = candidates[newest].device;
    let newest = candidates[newest].superblock.clone();
    let level = Level::from_md(newest.level)?;
    let mut remarks = Vec::new();
    leave_out_former_owners(&mut candidates, &mut remarks, newest.events);

    let chosen = choose(&candidates, &newest, level, options, &mut remarks);
    let geometry = geometry_of(&newest, level, &candidates, &chosen)?;
    let (bitmap, bitmap_is_stale) = bitmap_of(&candidates, &newest, newest_device, &geometry)?;
    if bitmap_is_stale {
        remarks.push(Remark::StaleBitmap);
    }

    let mut members = Members::new(geometry.raid_disks());
    let mut left_out = Vec::new();
    let mut behind = Vec::new();
    for candidate in candidates {
        let Some(Choice { place, in_sync }) = chosen.get(&candidate.device).copied() else {
            left_out.push((candidate.device, candidate.superblock.events, newest.events));
            behind.push(candidate);
            continue;
        };
        members.insert(member_of(candidate, place, in_sync, &geometry, bitmap.as_ref()));
    }

    // A disk that is left out is a faulty member, until it is removed: its number is not given to another.
    for candidate in behind {
        let taken = members.iter().any(|member| member.superblock.dev_number == candidate.superblock.dev_number);
        if !taken {
            members.insert(Member::new(candidate.device, Place::Faulty, candidate.superblock));
        }
    }

    let missing: SlotSet =
        members.seats().iter().enumerate().filter(|(_, seat)| seat.member.is_none()).map(|(slot, _)| slot).collect();
    let present = geometry.raid_disks() - missing.len();
    // Below the watermark a device under recovery counts, but the array must be able to run without what is above.
    if !geometry.survives(missing) {
        return Err(AssembleError::TooFew { present, raid_disks: geometry.raid_disks(), missing, stale: left_out });
    }

    let mut untrusted = untrusted_of(&newest, &geometry, bitmap.as_ref(), bitmap_is_stale);
    refill_replacements(&mut members, &geometry, &untrusted);
    let seats = members.seats().iter().enumerate();
    let degraded: SlotSet = seats
        .filter(|(_, seat)| !seat.member.and_then(|device| members.get(device)).is_some_and(Member::is_in_sync))
        .map(|(slot, _)| slot)
        .collect();
    if newest.resync != ResyncOffset::InSync && !degraded.is_empty() && geometry.parity_count() > 0 {
        if options.force || mutant::is_on(Mutant::DirtyDegradedStarts) {
            remarks.push(Remark::ForcedClean);
            untrusted = RangeSet::new();
        } else if !options.read_only {
            return Err(AssembleError::DirtyDegraded { missing: degraded });
        }
    }
    if !untrusted.is_empty() {
        let sectors = Sectors(untrusted.iter().map(|range| range.end - range.start).sum());
        remarks.push(Remark::Unclean { sectors });
    }
    let start = Start {
        members,
        events: newest.events,
        bitmap,
        untrusted,
        forced: remarks.iter().any(|remark| matches!(remark, Remark::ForcedIn { .. })),
        read_only: options.read_only,
        wall_clock: options.wall_clock,
        logical_block: Sectors(1),
    };
    Ok(Assembly { geometry, start, newest, remarks })
}

/// The candidate with the most events among those that are members of a slot.
fn freshest(candidates: &[Candidate]) -> Result<usize, AssembleError> {
    let in_a_slot = |at: &usize| matches!(candidates[*at].superblock.role(), MemberRole::Slot(_));
    let by_events = |at: &usize| {
        let Superblock { events, updated, .. } = candidates[*at].superblock;
        let age = if mutant::is_on(Mutant::FreshestByTime) { updated.seconds() } else { events };
        (age, std::cmp::Reverse(*at))
    };
    let slots = (0..candidates.len()).filter(in_a_slot).max_by_key(by_events);
    slots.or_else(|| (0..candidates.len()).max_by_key(by_events)).ok_or(AssembleError::NoDevices)
}

fn check_agreement(candidates: &[Candidate], newest: usize) -> Result<(), AssembleError> {
    let first = &candidates[newest];
    for other in candidates {
        let (a, b) = (&first.superblock, &other.superblock);
        if a.set_uuid != b.set_uuid {
            let (expected, found) = (a.set_uuid, b.set_uuid);
            return Err(AssembleError::OtherArray { first: first.device, expected, device: other.device, found });
        }
        // md rounds a RAID10's size down to what it uses when it first writes the superblocks; a member that was away by
        // then still has the old one, and is left out for being behind.
        let current = b.events + 1 >= a.events;
        let disagreement = [
            ("creation time", a.created != b.created),
            ("level", a.level != b.level),
            ("layout", a.layout != b.layout),
            ("member size", a.size != b.size && current),
            ("chunk", a.chunk != b.chunk),
            ("number of disks", a.raid_disks != b.raid_disks),
        ];
        if let Some((field, _)) = disagreement.iter().find(|(_, differs)| *differs) {
            return Err(AssembleError::Disagree { first: first.device, device: other.device, field });
        }
    }
    let mut identities: BTreeMap<DeviceUuid, DeviceId> = BTreeMap::new();
    let mut numbers: BTreeMap<(u32, u64), DeviceId> = BTreeMap::new();
    for other in candidates {
        let Superblock { dev_number: number, events, device_uuid, .. } = other.superblock;
        let same_identity = identities.insert(device_uuid, other.device);
        // A number is given anew after a removal, but the old bearer's events stand still then.
        let same_number = numbers.insert((number, events), other.device);
        if let Some(first) = same_identity.or(same_number) {
            return Err(AssembleError::SameMember { first, second: other.device, number });
        }
    }
    Ok(())
}

/// The number of a device that was removed goes to the next one added; should the old one still be there, the fresher of
/// them has it.
fn leave_out_former_owners(candidates: &mut Vec<Candidate>, remarks: &mut Vec<Remark>, newest: u64) {
    let mut owners: BTreeMap<u32, u64> = BTreeMap::new();
    for candidate in candidates.iter() {
        let freshest = owners.entry(candidate.superblock.dev_number).or_default();
        *freshest = candidate.superblock.events.max(*freshest);
    }
    candidates.retain(|candidate| {
        let Superblock { events, dev_number, .. } = candidate.superblock;
        let owns = events == owners[&dev_number];
        if !owns {
            remarks.push(Remark::LeftOut { device: candidate.device, events, newest });
        }
        owns
    });
}

#[derive(Clone, Copy, Debug)]
struct Choice {
    place: Place,
    in_sync: bool,
}

/// Who takes part, and where.
fn choose(
    candidates: &[Candidate],
    newest: &Superblock,
    level: Level,
    options: AssembleOptions,
    remarks: &mut Vec<Remark>,
) -> BTreeMap<DeviceId, Choice> {
    let mut chosen = BTreeMap::new();
    let mut seats: BTreeMap<(u16, bool), DeviceId> = BTreeMap::new();
    let mut behind: Vec<&Candidate> = Vec::new();
    for candidate in candidates {
        let superblock = &candidate.superblock;
        let current = superblock.events + 1 >= newest.events;
        // A role is what the freshest superblock says it is.
        let role = role_in(newest, superblock);
        match (role, superblock.role()) {
            (MemberRole::Slot(slot), MemberRole::Slot(_)) if current && u32::from(slot) < newest.raid_disks => {
                let replacement = superblock.replacement;
                if seats.contains_key(&(slot, replacement)) {
                    continue;
                }
                seats.insert((slot, replacement), candidate.device);
                let slot = Slot(slot as u8);
                let place = if replacement { Place::Replacement(slot) } else { Place::Slot(slot) };
                chosen.insert(candidate.device, Choice { place, in_sync: superblock.recovery.is_none() });
            }
            (_, MemberRole::Slot(_)) if !current => behind.push(candidate),
            (MemberRole::Spare, MemberRole::Spare) => {
                chosen.insert(candidate.device, Choice { place: Place::Spare, in_sync: false });
            }
            // It was promoted or failed in an update it did not see: what it holds cannot be known.
            (MemberRole::Slot(_) | MemberRole::Spare, MemberRole::Spare | MemberRole::Slot(_)) if current => {
                chosen.insert(candidate.device, Choice { place: Place::Spare, in_sync: false });
            }
            _ => {}
        }
    }
    // A replacement whose member is gone is the member.
    let alone: Vec<(u16, DeviceId)> = seats
        .iter()
        .filter(|((slot, replacement), _)| *replacement && !seats.contains_key(&(*slot, false)))
        .map(|((slot, _), device)| (*slot, *device))
        .collect();
    for (slot, device) in alone {
        seats.insert((slot, false), device);
        chosen.get_mut(&device).expect("seats are of the chosen").place = Place::Slot(Slot(slot as u8));
    }
    behind.sort_by_key(|candidate| std::cmp::Reverse(candidate.superblock.events));
    for candidate in behind {
        let (device, events) = (candidate.device, candidate.superblock.events);
        let MemberRole::Slot(slot) = candidate.superblock.role() else { continue };
        let taken: usize = seats.keys().filter(|(_, replacement)| !replacement).count();
        let enough = taken + level_tolerance(level, newest) >= newest.raid_disks as usize;
        if options.force && !enough && !seats.contains_key(&(slot, false)) && candidate.superblock.recovery.is_none() {
            seats.insert((slot, false), device);
            chosen.insert(device, Choice { place: Place::Slot(Slot(slot as u8)), in_sync: true });
            remarks.push(Remark::ForcedIn { device, events, newest: newest.events });
        } else if role_in(newest, &candidate.superblock) != MemberRole::Faulty {
            // That a disk failed is no news; that one fell behind is.
            remarks.push(Remark::LeftOut { device, events, newest: newest.events });
        }
    }
    chosen
}

/// What `superblock`'s device is, as the freshest superblock has it.
fn role_in(newest: &Superblock, superblock: &Superblock) -> MemberRole {
    newest.roles.get(superblock.dev_number as usize).copied().unwrap_or(MemberRole::Spare)
}

fn level_tolerance(level: Level, newest: &Superblock) -> usize {
    match level {
        Level::Raid0 => 0,
        Level::Raid1 => newest.raid_disks as usize - 1,
        Level::Raid4 | Level::Raid5 => 1,
        Level::Raid6 => 2,
        Level::Raid10 => match Layout::from_md(level, newest.layout) {
            Ok(Layout::Raid10 { near, far, .. }) => usize::from(near) * usize::from(far) - 1,
            _ => 0,
        },
    }
}

fn geometry_of(
    newest: &Superblock,
    level: Level,
    candidates: &[Candidate],
    chosen: &BTreeMap<DeviceId, Choice>,
) -> Result<Geometry, AssembleError> {
    let raid_disks = newest.raid_disks as usize;
    if raid_disks > MEMBERS_MOST {
        return Err(GeometryError::Disks { level, disks: raid_disks, fewest: 1 }.into());
    }
    let number = if level == Level::Raid0 && !newest.raid0_layout { 0 } else { newest.layout };
    let layout = Layout::from_md(level, number)?;
    let member_sizes = if level == Level::Raid0 {
        let mut sizes = vec![None; raid_disks];
        for candidate in candidates {
            if let Some(Choice { place: Place::Slot(slot), .. }) = chosen.get(&candidate.device)
                && let Some(size) = sizes.get_mut(slot.0 as usize)
            {
                *size = Some(candidate.superblock.data.length);
            }
        }
        let missing: SlotSet =
            sizes.iter().enumerate().filter(|(_, size)| size.is_none()).map(|(slot, _)| slot).collect();
        let Some(sizes) = sizes.into_iter().collect() else {
            let present = raid_disks - missing.len();
            return Err(AssembleError::TooFew { present, raid_disks, missing, stale: Vec::new() });
        };
        MemberSizes::PerSlot(sizes)
    } else {
        MemberSizes::Common(newest.size)
    };
    Ok(Geometry::new(GeometryConfig { level, layout, raid_disks, chunk: newest.chunk, member_sizes })?)
}

fn bitmap_of(
    candidates: &[Candidate],
    newest: &Superblock,
    newest_device: DeviceId,
    geometry: &Geometry,
) -> Result<(Option<WriteIntent>, bool), AssembleError> {
    let Some(candidate) = candidates.iter().find(|candidate| candidate.device == newest_device) else {
        return Ok((None, false));
    };
    let Some(bitmap) = &candidate.bitmap else { return Ok((None, false)) };
    let image = bitmap.clone()?;
    match image.header.verdict(newest.set_uuid, newest.events, geometry.sync_size()) {
        BitmapVerdict::Current => Ok((Some(WriteIntent::new(image)), false)),
        BitmapVerdict::Stale { .. } | BitmapVerdict::MarkedStale => {
            let mut intent = WriteIntent::new(image);
            intent.set_all();
            Ok((Some(intent), true))
        }
        BitmapVerdict::OtherSize { sync_size, .. } => {
            Err(BitmapError::Implausible { field: "sync_size", value: sync_size.0 }.into())
        }
        BitmapVerdict::Foreign { .. } => Err(AssembleError::ForeignBitmap { device: newest_device }),
    }
}

/// Sync space in which redundancy may disagree with the data.
fn untrusted_of(
    newest: &Superblock,
    geometry: &Geometry,
    bitmap: Option<&WriteIntent>,
    bitmap_is_stale: bool,
) -> RangeSet<u64> {
    let mut untrusted = RangeSet::new();
    let (ResyncOffset::From(from), size) = (newest.resync, geometry.sync_size().0) else { return untrusted };
    if from.0 >= size {
        return untrusted;
    }
    match bitmap {
        Some(bitmap) if !bitmap_is_stale => {
            for range in bitmap.dirty().filter(|range| range.end > from.0) {
                untrusted.insert(range.start.max(from.0)..range.end);
            }
        }
        _ => untrusted.insert(from.0..size),
    }
    untrusted
}

fn member_of(
    candidate: Candidate,
    place: Place,
    in_sync: bool,
    geometry: &Geometry,
    bitmap: Option<&WriteIntent>,
) -> Member {
    let mut member = Member::new(candidate.device, place, candidate.superblock);
    member.bad = candidate.bad;
    let (Place::Slot(slot) | Place::Replacement(slot)) = place else { return member };
    let recovery = member.superblock.recovery.filter(|_| !in_sync);
    if let Some(recovery) = recovery {
        let used = geometry.member_used(slot).0;
        let stale = match bitmap {
            Some(bitmap) if recovery.by_bitmap => stale_by_bitmap(geometry, bitmap, slot, recovery.offset.0),
            _ => one_range(recovery.offset.0..used),
        };
        member.begin_filling(stale, recovery.by_bitmap && bitmap.is_some());
    } else if matches!(place, Place::Replacement(_)) {
        // Complete, but the last update had not promoted it yet.
        member.begin_filling(RangeSet::new(), false);
    }
    member
}

/// The set of the numbers in `range`, which may be empty.
pub(super) fn one_range(range: Range<u64>) -> RangeSet<u64> {
    let mut set = RangeSet::new();
    if !range.is_empty() {
        set.insert(range);
    }
    set
}

/// The member data sectors of a slot, from `from` on, that lie in regions the bitmap names.
pub(super) fn stale_by_bitmap(geometry: &Geometry, bitmap: &WriteIntent, slot: Slot, from: u64) -> RangeSet<u64> {
    rows_of(geometry, bitmap.dirty(), slot, from)
}

/// The member data sectors of a slot, from `from` on, that lie in these parts of sync space.
fn rows_of(geometry: &Geometry, parts: impl Iterator<Item = Range<u64>>, slot: Slot, from: u64) -> RangeSet<u64> {
    let mut found = RangeSet::new();
    for range in parts {
        let mut place = range.start;
        while place < range.end {
            let index = geometry.stripe_of_sync(place);
            let stripe = geometry.stripe(index);
            let space = geometry.sync_range(index, 0..stripe.rows.0);
            let rows = place - space.start..range.end.min(space.end) - space.start;
            for column in stripe.columns.iter().filter(|column| column.slot == slot) {
                let data = (column.base.0 + rows.start).max(from)..column.base.0 + rows.end;
                if data.start < data.end {
                    found.insert(data);
                }
            }
            place = space.end;
        }
    }
    found
}

/// A replacement and the member it is to replace take the same writes, and a crash may leave them with different ones:
/// where that may be, the replacement is filled again.
fn refill_replacements(members: &mut Members, geometry: &Geometry, untrusted: &RangeSet<u64>) {
    for member in members.iter_mut() {
        if let Place::Replacement(slot) = member.place {
            let recorded = member.superblock.recovery;
            let mut stale = std::mem::take(&mut member.stale);
            stale.extend(rows_of(geometry, untrusted.iter().cloned(), slot, 0));
            member.begin_filling(stale, false);
            // A crash between the update that calls the array clean and the one that says this would leave it as it is.
            member.overstated = member.superblock.recovery != recorded;
        }
    }
}
