//! The control path: what the members' metadata says, and when it says it.
//!
//! The data path asks before it writes and reports what failed; control decides what has to be on
//! the members first, writes superblocks, bitmap pages and bad-block logs, and publishes how far it
//! is durable. It does no I/O itself: it hands out [`MetadataIo`] and is told how each one went.
//!
//! The order that never bends:
//!
//! * dirty (superblock and bitmap bit) is durable before the first write to its region, and is
//!   taken back lazily, after a flush;
//! * a failed member, or a bad block, is on record on the survivors before any write that it missed
//!   is acknowledged;
//! * a recovery watermark is written only after the data below it was flushed.
//!
//! One update of the metadata runs at a time, in stages: flush (if it takes something back), bitmap
//! and bad-block pages, superblocks. Whatever is asked for meanwhile goes into the next one. Updates are
//! numbered; the number is the [`Epoch`] that a band waits for.
//!
//! Once more members are gone than the level tolerates the array is *failed*, and its metadata freezes:
//! nothing acknowledged can be missing from the members as they are, and should the last one to leave
//! come back, everything is there.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rangemap::RangeSet;

use super::bitmap_super::BITMAP_PAGE;
use super::geometry::{Column, Geometry, Slot, StripeIndex};
use super::member::{Member, Members, Place, Standing};
use super::mutant::{self, Mutant};
use super::plan::BandHealth;
use super::set::{ColumnSet, SlotSet};
use super::superblock::{MemberRole, Recovery, ResyncOffset, Superblock, Timestamp};
use super::write_intent::WriteIntent;
use crate::block::{
    DeviceId, Durability, Extent, Instant, IoError, Lba, Mark, Marks, Op, Payload, SECTOR_BYTES, Sectors,
};

/// md's safe mode: so long after the last write the array is marked clean.
pub const SAFE_MODE_DELAY: Duration = Duration::from_millis(200);

/// Corrected read errors after which a member is failed, as md does (`max_read_errors`).
pub const READ_ERRORS_MAX: u64 = 20;

/// The number of a metadata update.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub u64);

/// One piece of metadata I/O, for the array to carry out.
#[derive(Clone, Debug)]
pub struct MetadataIo {
    /// On which member.
    pub device: DeviceId,
    /// Where; nothing for a flush.
    pub extent: Extent,
    /// A write through to the medium, or a flush.
    pub op: Op,
}

/// Something a user wants to know of; mdadm's names where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A member failed.
    Fail(DeviceId),
    /// A spare or a device under recovery failed.
    FailSpare(DeviceId),
    /// A recovery began to fill this device.
    RebuildStarted(DeviceId),
    /// This device now holds all it should.
    SpareActive(DeviceId),
    /// Resync, check or repair came to its end.
    RebuildFinished,
    /// Sectors of a device were recorded as bad.
    BadBlocks(DeviceId, Extent),
    /// A read error was mended by rewriting the sectors.
    Corrected(DeviceId, Extent),
    /// More members are gone than the level tolerates.
    ArrayFailed,
}

/// What the array as a whole is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Running,
    /// Opened for reading only.
    ReadOnly,
    /// Too many members are gone.
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Wanted {
    superblocks: bool,
    flush: bool,
    pages: bool,
}

impl Wanted {
    fn anything(self) -> bool {
        self.superblocks || self.flush || self.pages
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Flush,
    Pages,
    Superblocks,
}

/// An update under way: what it promises was decided when it began, before its flush.
#[derive(Clone, Debug)]
struct Update {
    stage: Stage,
    outstanding: usize,
    superblocks: bool,
    pages: Vec<(usize, Vec<u8>)>,
    resync: ResyncOffset,
    resynced_to: Option<u64>,
    /// How far the devices that serve are filled, of what a flush covers.
    watermarks: Vec<(DeviceId, Option<u64>)>,
    /// The bad-block logs to write.
    bad_blocks: Vec<(DeviceId, Lba, Vec<u8>)>,
    /// A member could not be flushed: what was to be taken back stays.
    flush_failed: bool,
    /// What its flush puts on the medium.
    settles: Vec<Range<u64>>,
    /// Who alone gets a superblock, with these roles: whatever fails meanwhile is news, and for the next update.
    catch_up: Option<(Vec<DeviceId>, Vec<MemberRole>)>,
}

/// What the control path starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// The devices and where they sit.
    pub members: Members,
    /// The freshest count of events.
    pub events: u64,
    /// The bitmap, where the array has one.
    pub bitmap: Option<WriteIntent>,
    /// Sync space in which redundancy may disagree with the data.
    pub untrusted: RangeSet<u64>,
    /// A member was taken although the others have it on record as failed: they have to be told.
    pub forced: bool,
    /// Take no writes and change nothing on the members.
    pub read_only: bool,
    /// Seconds since 1970 at [`Instant::START`], for the time stamps in superblocks.
    pub wall_clock: u64,
    /// The smallest piece every member takes.
    pub logical_block: Sectors,
}

/// Member states, superblocks, bitmap and bad-block logs of one array.
#[derive(Clone, Debug)]
pub struct Control {
    pub(super) members: Members,
    pub(super) geometry: Geometry,
    pub(super) untrusted: RangeSet<u64>,
    /// Where a resync has made copies equal, but not yet on the medium: a crash may bring back either version, so a
    /// read there still makes its own.
    unsettled: RangeSet<u64>,
    pub(super) bitmap: Option<WriteIntent>,
    events: u64,
    mode: Mode,
    wall_clock: u64,
    logical_block: Sectors,
    /// The members carry a dirty superblock, or will with `dirty_epoch`.
    active: bool,
    dirty_epoch: Epoch,
    /// The last failure or bad block; writes are acknowledged only when it is on record.
    record_epoch: Epoch,
    /// From where on redundancy is in doubt as far as is on record.
    resync_recorded: Option<u64>,
    /// Members are one event behind since before the start: they are brought up to the others first.
    catching_up: bool,
    writes_inflight: u64,
    now: Instant,
    idle_since: Instant,
    bitmap_due: Option<Instant>,
    stopping: bool,
    wanted: Wanted,
    update: Option<Update>,
    started: Epoch,
    durable: Epoch,
    outbox: VecDeque<MetadataIo>,
    log: Vec<Event>,
    /// Rare branches taken, for the array to pass on: there is no bank here.
    marks: Marks,
}

impl Control {
    pub(super) fn new(geometry: Geometry, start: Start) -> Control {
        let mut control = Control {
            members: start.members,
            geometry,
            untrusted: start.untrusted,
            unsettled: RangeSet::new(),
            bitmap: start.bitmap,
            events: start.events,
            mode: if start.read_only { Mode::ReadOnly } else { Mode::Running },
            wall_clock: start.wall_clock,
            logical_block: start.logical_block,
            active: false,
            dirty_epoch: Epoch(0),
            record_epoch: Epoch(0),
            resync_recorded: None,
            catching_up: false,
            writes_inflight: 0,
            now: Instant::START,
            idle_since: Instant::START,
            bitmap_due: None,
            stopping: false,
            wanted: Wanted::default(),
            update: None,
            started: Epoch(0),
            durable: Epoch(0),
            outbox: VecDeque::new(),
            log: Vec::new(),
            marks: Marks::default(),
        };
        if !control.geometry.survives(control.missing()) {
            control.mode = Mode::Failed;
        }
        control.resync_recorded = control.untrusted.first().map(|range| range.start);
        control.catching_up = control.mode == Mode::Running && control.redundant() && !control.behind().is_empty();
        control.catching_up &= !mutant::is_on(Mutant::NoCatchUp);
        control.wanted.superblocks = start.forced && control.mode == Mode::Running && control.redundant();
        control
    }

    /// Members whose superblocks are older than the freshest, or say that they hold more than they do.
    fn behind(&self) -> Vec<DeviceId> {
        let is_behind = |member: &&Member| member.superblock.events < self.events || member.overstated;
        let behind = self.members.iter().filter(|member| member.serves() && is_behind(member));
        behind.map(|member| member.device).collect()
    }

    /// Whether members can be lost without loss: only then is there anything to keep in step.
    fn redundant(&self) -> bool {
        self.geometry.tolerance() > 0
    }

    pub(super) fn is_failed(&self) -> bool {
        self.mode == Mode::Failed
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.mode == Mode::ReadOnly
    }

    /// The count of events, as the last update that was started wrote it.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Slots without a member that takes reads and writes.
    pub(super) fn missing(&self) -> SlotSet {
        let seats = self.members.seats().iter().enumerate();
        seats.filter(|(_, seat)| seat.member.is_none()).map(|(slot, _)| slot).collect()
    }

    /// Slots without a member that holds all it should.
    pub(super) fn degraded(&self) -> SlotSet {
        let seats = self.members.seats().iter().enumerate();
        let in_sync = |device| self.members.get(device).is_some_and(Member::is_in_sync);
        seats.filter(|(_, seat)| !seat.member.is_some_and(in_sync)).map(|(slot, _)| slot).collect()
    }

    pub(super) fn drain_log(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.log)
    }

    pub(super) fn take_marks(&mut self) -> Marks {
        std::mem::take(&mut self.marks)
    }

    pub(super) fn note(&mut self, event: Event) {
        self.log.push(event);
    }

    // ---- health ----

    /// What can be done with `rows` of a stripe, not believing reads from `excluded`.
    pub(super) fn health(
        &self,
        stripe: StripeIndex,
        columns: &[Column],
        rows: &Range<u64>,
        excluded: &[DeviceId],
    ) -> BandHealth {
        let mut health = BandHealth {
            readable: ColumnSet::EMPTY,
            writable: ColumnSet::EMPTY,
            sound: ColumnSet::EMPTY,
            trusted: self.is_trusted(stripe, rows),
        };
        for (at, column) in columns.iter().enumerate() {
            for member in self.members.in_slot(column.slot) {
                let standing = member.standing(column.base, rows);
                if standing == Standing::Readable && !excluded.contains(&member.device) {
                    health.readable.insert(at);
                }
                if standing != Standing::Stale {
                    health.writable.insert(at);
                }
                if matches!(standing, Standing::Readable | Standing::Bad) {
                    health.sound.insert(at);
                }
            }
        }
        health
    }

    /// Whether redundancy agrees with the data in `rows` of a stripe.
    pub(super) fn is_trusted(&self, stripe: StripeIndex, rows: &Range<u64>) -> bool {
        if self.untrusted.is_empty() && self.unsettled.is_empty() {
            return true;
        }
        let range = self.geometry.sync_range(stripe, rows.clone());
        !self.untrusted.overlaps(&range) && !self.unsettled.overlaps(&range)
    }

    // ---- gates ----

    /// A write to `range` of sync space is about to begin; [`Control::end_write`] must follow. `Some`: it has to wait
    /// until that epoch is durable.
    pub(super) fn begin_write(&mut self, range: &Range<u64>) -> Option<Epoch> {
        self.writes_inflight += 1;
        if !self.redundant() {
            return None;
        }
        let mut gate = None;
        if !self.active {
            self.active = true;
            self.dirty_epoch = self.want(Wanted { superblocks: true, ..Wanted::default() });
        }
        if self.dirty_epoch > self.durable {
            gate = Some(self.dirty_epoch);
        }
        if let Some(bitmap) = &mut self.bitmap
            && !bitmap.begin_write(range)
        {
            if bitmap.is_clearing(range) {
                self.marks.insert(Mark::BitSetWhileCleared);
            }
            gate = Some(self.want(Wanted { pages: true, ..Wanted::default() }));
        }
        gate
    }

    /// A write that was begun is over, however it went.
    pub(super) fn end_write(&mut self, range: &Range<u64>, now: Instant) {
        self.writes_inflight -= 1;
        self.idle_since = now;
        if self.redundant()
            && let Some(bitmap) = &mut self.bitmap
        {
            bitmap.end_write(range);
            if self.bitmap_due.is_none() {
                self.bitmap_due = Some(now + Duration::from_secs(u64::from(bitmap.header().daemon_sleep).max(1)));
            }
        }
    }

    /// What must be durable before a write that has just been carried out may be acknowledged.
    pub(super) fn record(&self) -> Option<Epoch> {
        let missing = self.record_epoch > self.durable && self.mode == Mode::Running;
        (missing && !mutant::is_on(Mutant::AcknowledgedBeforeRecord)).then_some(self.record_epoch)
    }

    pub(super) fn durable(&self) -> Epoch {
        self.durable
    }

    // ---- what happens to members ----

    /// A device failed, or was failed. `flush_failed`: what it acknowledged since its last good flush may be gone.
    pub(super) fn fail(&mut self, device: DeviceId, flush_failed: bool) {
        let Some(member) = self.members.get(device) else { return };
        let place = member.place;
        if flush_failed && self.mode == Mode::Failed && member.serves() {
            // Nobody writes that down any more, but what it holds now is not what it acknowledged.
            return self.members.move_to(device, Place::Faulty);
        }
        if place == Place::Faulty || self.mode != Mode::Running {
            return;
        }
        let filling = place == Place::Spare || !member.stale.is_empty() || matches!(place, Place::Replacement(_));
        if self.update.is_some() {
            self.marks.insert(Mark::MemberFailedInUpdate);
        }
        if self.record_epoch > self.durable {
            self.marks.insert(Mark::SecondFailureBeforeRecord);
        }
        if filling {
            self.marks.insert(if place == Place::Spare { Mark::SpareFailed } else { Mark::FilledDeviceFailed });
        }
        // Should it come back before the update is over, what it held when that began is true no more.
        if let Some(update) = &mut self.update {
            update.watermarks.retain(|(of, _)| *of != device);
            update.bad_blocks.retain(|(of, ..)| *of != device);
        }
        self.note(if filling { Event::FailSpare(device) } else { Event::Fail(device) });
        if let Place::Slot(slot) = place {
            let replacement = self.members.seats()[slot.0 as usize].replacement;
            if !self.geometry.survives(self.missing() | SlotSet::only(slot.0 as usize)) && replacement.is_none() {
                if self.writes_inflight > 0 {
                    self.marks.insert(Mark::ArrayFailedInWrites);
                }
                self.mode = Mode::Failed;
                self.note(Event::ArrayFailed);
                self.outbox.clear();
            }
            self.members.move_to(device, Place::Faulty);
            // A replacement carries on as the member, with what it holds so far.
            if let Some(replacement) = replacement {
                self.marks.insert(Mark::ReplacementCarriedOn);
                self.members.move_to(replacement, Place::Slot(slot));
            }
        } else {
            self.members.move_to(device, Place::Faulty);
        }
        if flush_failed && let Some(bitmap) = &mut self.bitmap {
            // It lost writes whose bits may be cleared by now: it must not come back by the bitmap.
            self.marks.insert(Mark::FlushFailureForbadeReturn);
            bitmap.forbid_return_before(self.events + 1);
        }
        if !self.redundant() {
            return;
        }
        self.record_epoch = self.want(Wanted { superblocks: true, ..Wanted::default() });
    }

    /// Sectors of a device (absolute) failed to take a write. They go into its bad-block log; without
    /// one, or with a full one, the device fails.
    pub(super) fn add_bad_blocks(&mut self, device: DeviceId, sectors: Extent) {
        let Some(member) = self.members.get_mut(device) else { return };
        if !member.serves() || self.mode != Mode::Running {
            return;
        }
        let before = member.bad.clone();
        member.bad.insert(sectors);
        let fits = member.superblock.bad_block_log.is_some_and(|log| member.bad.encode(&log).is_ok());
        if fits {
            if member.filling {
                self.marks.insert(Mark::BadBlockOnFilling);
            }
            self.note(Event::BadBlocks(device, sectors));
            self.record_epoch = self.want(Wanted { superblocks: true, pages: true, ..Wanted::default() });
        } else {
            member.bad = before;
            self.marks.insert(Mark::BadBlockLogFull);
            self.fail(device, false);
        }
    }

    /// Sectors of a device (absolute) were written: whatever was bad there is good again.
    pub(super) fn clear_bad_blocks(&mut self, device: DeviceId, sectors: Extent) {
        let Some(member) = self.members.get_mut(device) else {
            return self.marks.insert(Mark::WriteOfFormerMember);
        };
        if member.bad.overlaps(sectors) {
            member.bad.clear(sectors);
            self.marks.insert(Mark::BadBlockCleared);
            // On the medium first, off the list then, acknowledged last.
            self.record_epoch = self.want(Wanted { superblocks: true, pages: true, flush: true });
        }
    }

    /// Recovery wrote these member data sectors of a device, or recorded them as bad: an array that has failed records
    /// nothing any more, so there they stay stale.
    pub(super) fn recovered(&mut self, device: DeviceId, data: Range<u64>) {
        if self.mode == Mode::Failed {
            return;
        }
        if let Some(member) = self.members.get_mut(device) {
            member.stale.remove(data);
        }
    }

    /// Redundancy was made to agree with the data in this part of sync space, in caches at least. An array that has
    /// failed could not write down which of its members were left behind.
    pub(super) fn resynced(&mut self, range: Range<u64>) {
        if !self.untrusted.is_empty() && self.mode != Mode::Failed {
            self.untrusted.remove(range);
        }
    }

    /// What was made equal there may not be on the medium.
    pub(super) fn not_settled(&mut self, range: Range<u64>) {
        self.unsettled.insert(range);
    }

    /// Asks for the superblocks to be written, after a flush: watermarks and the end of a recovery.
    pub(super) fn checkpoint(&mut self) -> Epoch {
        self.want(Wanted { superblocks: true, flush: true, ..Wanted::default() })
    }

    /// A replacement holds everything: it becomes the member of its slot. The old member misses every write
    /// from now on, so none is acknowledged before that is on record.
    pub(super) fn finish_replacement(&mut self, slot: Slot) {
        let seat = self.members.seats()[slot.0 as usize];
        let replacement = seat.replacement.expect("a replacement that ends is there");
        if let Some(old) = seat.member {
            self.members.move_to(old, Place::Faulty);
        }
        self.members.move_to(replacement, Place::Slot(slot));
        self.record_epoch = self.checkpoint();
    }

    /// Asks for the superblocks to be written: somebody came, went, or changed places.
    pub(super) fn announce(&mut self) -> Epoch {
        self.want(Wanted { superblocks: true, pages: true, ..Wanted::default() })
    }

    /// From now on nothing new comes: mark the array clean as soon as no write is in flight.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether the array was stopped and everything about it is on the members.
    pub(super) fn is_stopped(&self) -> bool {
        let settled = !self.is_busy() && self.outbox.is_empty();
        self.stopping && self.writes_inflight == 0 && ((settled && !self.active) || self.mode != Mode::Running)
    }

    /// Whether an update runs or is asked for.
    pub(super) fn is_busy(&self) -> bool {
        self.mode == Mode::Running && (self.update.is_some() || self.wanted.anything() || self.catching_up)
    }

    pub(super) fn is_clean(&self) -> bool {
        !self.active
    }

    pub(super) fn writes_inflight(&self) -> u64 {
        self.writes_inflight
    }

    pub(super) fn check_invariants(&self) {
        let last = self.started.0 + 1 + u64::from(self.catching_up);
        assert!(self.durable <= self.started && self.record_epoch.0 <= last && self.dirty_epoch.0 <= last, "{self:?}");
        for (slot, seat) in self.members.seats().iter().enumerate() {
            let slot = Slot(slot as u8);
            for (device, place) in [(seat.member, Place::Slot(slot)), (seat.replacement, Place::Replacement(slot))] {
                let Some(device) = device else { continue };
                assert_eq!(self.members.get(device).map(|member| member.place), Some(place), "seat of {slot:?}");
            }
        }
        for member in self.members.iter() {
            assert!(member.filling || member.stale.is_empty() || !member.serves(), "{member:?} is stale for ever");
        }
        if let Some(update) = &self.update
            && self.mode == Mode::Running
        {
            assert!(update.outstanding > 0, "an update waits for nothing: {update:?}");
        }
    }

    // ---- updates ----

    /// The number of the first update that will contain all that is true now.
    fn want(&mut self, what: Wanted) -> Epoch {
        self.wanted.superblocks |= what.superblocks;
        self.wanted.flush |= what.flush;
        self.wanted.pages |= what.pages;
        let catching_up = self.catching_up && self.update.is_none();
        Epoch(self.started.0 + 1 + u64::from(catching_up))
    }

    /// Does what is due: safe mode, the bitmap's daemon, the next update.
    pub(super) fn poll(&mut self, now: Instant) {
        self.now = now;
        if self.mode != Mode::Running {
            return;
        }
        if self.active && self.writes_inflight == 0 && self.clean_due().is_some_and(|due| due <= now) {
            self.active = false;
            self.marks.insert(Mark::MarkedClean);
            self.want(Wanted { superblocks: true, flush: true, ..Wanted::default() });
        }
        if self.bitmap_due.is_some_and(|due| due <= now) {
            self.tidy_bitmap(now);
        }
        if self.update.is_none() && (self.wanted.anything() || self.catching_up) {
            self.start_update();
        }
    }

    fn clean_due(&self) -> Option<Instant> {
        if self.writes_inflight > 0 || !self.active {
            return None;
        }
        if self.stopping {
            return Some(Instant::START);
        }
        self.untrusted.is_empty().then(|| self.idle_since + SAFE_MODE_DELAY)
    }

    fn tidy_bitmap(&mut self, now: Instant) {
        self.bitmap_due = None;
        // Of a member that is away or not yet whole the bits are the only memory of what it misses.
        let whole = self.degraded().is_empty();
        let Some(bitmap) = &mut self.bitmap else { return };
        if whole {
            let untrusted = &self.untrusted;
            if bitmap.clear_idle(|range| untrusted.overlaps(&range), self.events) {
                self.marks.insert(Mark::BitmapCleared);
                self.wanted.pages = true;
                self.wanted.flush |= !mutant::is_on(Mutant::BitBeforeFlush);
            }
        } else {
            self.marks.insert(Mark::BitmapKept);
        }
        if !bitmap.is_clear() && whole {
            let sleep = u64::from(bitmap.header().daemon_sleep).max(1);
            self.bitmap_due = Some(now + Duration::from_secs(sleep));
        }
    }

    /// When [`Control::poll`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.mode != Mode::Running {
            return None;
        }
        if self.update.is_none() && (self.wanted.anything() || self.catching_up) || !self.outbox.is_empty() {
            return Some(Instant::START);
        }
        Instant::earliest([self.clean_due(), self.bitmap_due])
    }

    /// Begins an update. One that catches up does nothing else, and the count of events stays: a crash in the middle of
    /// the next one would leave a member two behind, and out. Whatever is wanted meanwhile is left for that next one.
    fn start_update(&mut self) {
        let only = std::mem::take(&mut self.catching_up).then(|| self.behind());
        if only.is_some() {
            self.marks.insert(Mark::CaughtUp);
        }
        let wanted = match only {
            Some(_) => Wanted { superblocks: true, ..Wanted::default() },
            None => std::mem::take(&mut self.wanted),
        };
        self.started.0 += 1;
        if wanted.superblocks && only.is_none() {
            self.events += 1;
        }
        let events = wanted.superblocks.then_some(self.events);
        let resynced_to = self.resynced_to(wanted.flush);
        let resync = match resynced_to {
            // It says what the freshest superblocks say, or a crash would leave one that is clean among dirty ones.
            _ if only.is_some() => self.freshest_resync(),
            _ if self.active => ResyncOffset::From(Sectors::ZERO),
            Some(_) if mutant::is_on(Mutant::CleanBeforeResynced) => ResyncOffset::InSync,
            Some(from) => ResyncOffset::From(Sectors(from)),
            None => ResyncOffset::InSync,
        };
        self.update = Some(Update {
            stage: Stage::Flush,
            outstanding: 0,
            superblocks: wanted.superblocks,
            pages: self.bitmap.as_mut().map(|bitmap| bitmap.start_update(events)).unwrap_or_default(),
            resync,
            resynced_to,
            watermarks: self.watermarks(wanted.flush || mutant::is_on(Mutant::WatermarkBeforeFlush)),
            bad_blocks: if wanted.superblocks { self.bad_block_logs() } else { Vec::new() },
            flush_failed: false,
            settles: if wanted.flush { self.unsettled.iter().cloned().collect() } else { Vec::new() },
            catch_up: only.map(|only| (only, self.roles())),
        });
        if wanted.flush {
            for device in self.members.serving() {
                self.emit(device, Extent::new(Lba(0), Sectors::ZERO), Op::Flush);
            }
        }
        self.advance();
    }

    /// From where on redundancy is in doubt, as the freshest superblocks have it.
    fn freshest_resync(&self) -> ResyncOffset {
        let freshest = self.members.iter().max_by_key(|member| member.superblock.events);
        freshest.expect("an array has members").superblock.resync
    }

    /// From where on redundancy is in doubt, as the superblocks may say it: without a flush, nothing better than they
    /// say already.
    fn resynced_to(&self, flush: bool) -> Option<u64> {
        let now = self.untrusted.first().map(|range| range.start);
        if flush { now } else { [now, self.resync_recorded].into_iter().flatten().min() }
    }

    /// What the superblocks may say of recovery: without a flush, nothing new.
    fn watermarks(&self, flush: bool) -> Vec<(DeviceId, Option<u64>)> {
        let recorded = |member: &Member| member.superblock.recovery.map(|recovery| recovery.offset.0);
        let watermark = |member: &Member| if flush { member.watermark() } else { recorded(member) };
        let serving = self.members.iter().filter(|member| member.serves());
        serving.map(|member| (member.device, watermark(member))).collect()
    }

    /// The logs as they are now: what is taken off them while the update runs may not be on the medium yet.
    fn bad_block_logs(&self) -> Vec<(DeviceId, Lba, Vec<u8>)> {
        let log = |member: &Member| {
            let log = member.superblock.bad_block_log.filter(|log| log.present || !member.bad.is_empty())?;
            let extent = member.superblock.bad_block_log_extent()?;
            Some((member.device, extent.start, member.bad.encode(&log).expect("a full log fails its member")))
        };
        self.members.iter().filter_map(log).collect()
    }

    fn emit(&mut self, device: DeviceId, extent: Extent, op: Op) {
        self.outbox.push_back(MetadataIo { device, extent, op });
        self.update.as_mut().expect("metadata I/O belongs to an update").outstanding += 1;
    }

    fn emit_write(&mut self, device: DeviceId, at: Lba, bytes: &[u8]) {
        let mut padded = bytes.to_vec();
        padded.resize(padded.len().next_multiple_of(self.logical_block.bytes() as usize), 0);
        let length = Sectors(padded.len() as u64 / SECTOR_BYTES);
        self.emit(device, Extent::new(at, length), Op::Write(Payload::copy_of(&padded), Durability::Fua));
    }

    /// Goes on to the next stage for as long as nothing is outstanding.
    fn advance(&mut self) {
        while let Some(update) = &mut self.update
            && update.outstanding == 0
        {
            match update.stage {
                Stage::Flush if update.flush_failed => self.begin_again(),
                Stage::Flush => {
                    for range in update.settles.drain(..) {
                        self.unsettled.remove(range);
                    }
                    update.stage = Stage::Pages;
                    self.emit_pages();
                }
                Stage::Pages => {
                    update.stage = Stage::Superblocks;
                    if update.superblocks {
                        self.emit_superblocks();
                    }
                }
                Stage::Superblocks => {
                    self.resync_recorded = update.resynced_to;
                    self.update = None;
                    // A member that failed meanwhile may have missed it, and until that is on record it counts for as
                    // much as the others: should it come back, its word would stand against theirs.
                    let missed = self.record_epoch > self.started;
                    if missed {
                        self.marks.insert(Mark::UpdateMissed);
                    } else {
                        self.durable = self.started;
                    }
                    if let Some(bitmap) = &mut self.bitmap {
                        bitmap.finish_update(!missed);
                    }
                }
            }
        }
    }

    /// Nothing of the update has been written. A member that could not be flushed has lost what others have: that
    /// comes on record first, and only another update may call anything clean.
    fn begin_again(&mut self) {
        self.marks.insert(Mark::UpdateBegunAgain);
        let update = self.update.take().expect("an update is under way");
        if update.superblocks {
            self.events -= 1;
        }
        if let Some(bitmap) = &mut self.bitmap {
            bitmap.abandon_update(update.pages.iter().map(|(page, _)| *page));
        }
        self.want(Wanted { superblocks: true, pages: true, flush: true });
    }

    fn emit_pages(&mut self) {
        let update = self.update.as_ref().expect("an update is under way");
        let (pages, logs) = (update.pages.clone(), update.bad_blocks.clone());
        for device in self.present() {
            let member = self.members.get_mut(device).expect("present devices are members");
            let joining = std::mem::take(&mut member.joining);
            let (bitmap_at, space) = (member.superblock.bitmap_at(), member.superblock.bitmap_space());
            if let (Some(at), Some(bitmap)) = (bitmap_at, &self.bitmap) {
                let pages = if joining { bitmap.all_pages() } else { pages.clone() };
                for (page, bytes) in &pages {
                    // Behind a version 1.0 superblock there is less room than a page.
                    let page_start = Sectors(*page as u64 * BITMAP_PAGE.0);
                    let room = space.bytes().saturating_sub(page_start.bytes()) as usize;
                    self.emit_write(device, at + page_start, &bytes[..bytes.len().min(room)]);
                }
            }
            if let Some((_, at, bytes)) = logs.iter().find(|(of, ..)| *of == device) {
                self.emit_write(device, *at, bytes);
            }
        }
    }

    /// Devices that are written to: all but the faulty.
    fn present(&self) -> Vec<DeviceId> {
        self.members.iter().filter(|member| member.place != Place::Faulty).map(|member| member.device).collect()
    }

    fn emit_superblocks(&mut self) {
        let update = self.update.as_ref().expect("an update is under way");
        let (only, roles) = match update.catch_up.clone() {
            Some((only, roles)) => (Some(only), roles),
            None => (None, self.roles()),
        };
        for device in self.present() {
            // One that came after the pages were written has to wait for its own.
            let joining = self.members.get(device).is_some_and(|member| member.joining);
            if joining || only.as_ref().is_some_and(|only| !only.contains(&device)) {
                if joining {
                    self.marks.insert(Mark::JoinerWaited);
                }
                continue;
            }
            let superblock = self.superblock_of(device, &roles);
            let (at, bytes) = (superblock.super_offset, superblock.encode());
            let member = self.members.get_mut(device).expect("it was just listed");
            member.superblock = Arc::new(superblock);
            member.overstated = false;
            self.emit_write(device, at, &bytes);
        }
    }

    /// The role table as it is now.
    fn roles(&self) -> Vec<MemberRole> {
        let known = self.members.iter().map(|member| member.superblock.roles.len());
        let highest = self.members.iter().map(|member| member.superblock.dev_number as usize + 1);
        let mut roles = vec![MemberRole::Spare; known.chain(highest).max().unwrap_or(0)];
        for member in self.members.iter() {
            roles[member.superblock.dev_number as usize] = match member.place {
                Place::Slot(slot) | Place::Replacement(slot) => MemberRole::Slot(u16::from(slot.0)),
                Place::Spare => MemberRole::Spare,
                Place::Faulty => MemberRole::Faulty,
            };
        }
        roles
    }

    fn superblock_of(&self, device: DeviceId, roles: &[MemberRole]) -> Superblock {
        let member = self.members.get(device).expect("superblocks are written to members");
        let update = self.update.as_ref().expect("superblocks are written by updates");
        let recorded = member.superblock.recovery.map(|recovery| recovery.offset.0);
        // It began to be filled after the update did: what its superblock must say is in it.
        let watermark = update.watermarks.iter().find(|(of, _)| *of == device).map_or(recorded, |(_, known)| *known);
        let seconds = self.wall_clock + self.now.0 / 1_000_000_000;
        let mut superblock = Superblock::clone(&member.superblock);
        superblock.roles = roles.to_vec();
        superblock.events = self.events;
        superblock.updated = Timestamp::new(seconds, 0);
        superblock.resync = update.resync;
        superblock.replacement = matches!(member.place, Place::Replacement(_));
        let recovery = watermark.map(|offset| Recovery { offset: Sectors(offset), by_bitmap: member.by_bitmap });
        superblock.recovery = recovery.filter(|_| member.serves());
        superblock.corrected_reads = member.corrected_reads();
        if let Some(log) = &mut superblock.bad_block_log {
            log.present |= update.bad_blocks.iter().any(|(of, ..)| *of == device);
        }
        superblock
    }

    /// The next piece of metadata I/O to carry out.
    pub(super) fn next_io(&mut self) -> Option<MetadataIo> {
        self.outbox.pop_front()
    }

    /// How a piece of metadata I/O went.
    pub(super) fn complete(&mut self, device: DeviceId, op: &Op, result: Result<(), IoError>) {
        if let Err(_error) = result {
            self.marks.insert(Mark::MetadataFailed);
            if let Some(member) = self.members.get_mut(device) {
                match op {
                    Op::Flush => member.errors.flush += 1,
                    _ => member.errors.write += 1,
                }
            }
            self.fail(device, matches!(op, Op::Flush));
        }
        if let Some(update) = &mut self.update {
            update.outstanding -= 1;
            update.flush_failed |= result.is_err() && matches!(op, Op::Flush);
        }
        if self.mode == Mode::Running {
            self.advance();
        }
    }

    /// A slot that a spare could take, if there is one of each.
    pub(super) fn spare_wanted(&self) -> Option<(Slot, DeviceId)> {
        if self.mode != Mode::Running || !self.redundant() || self.catching_up {
            return None;
        }
        let spare = self.members.iter().find(|member| member.place == Place::Spare)?;
        let slot = self.missing().lowest()?;
        Some((Slot(slot as u8), spare.device))
    }
}
