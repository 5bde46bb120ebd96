//! The array: a bank of one device over a bank of members.
//!
//! This file is the way in and out: requests are cut into bands, bands are started, completions
//! are handed to whom they belong, answers are put together. What happens inside a band is in
//! `executor.rs`, reads that need none in `direct.rs`, background work in `sync.rs`, changes of membership in `manage.rs`.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;

use super::band::{self, Band, Cargo, Content, Cut, Phase, Purpose, Waiter, Waiting, Work};
use super::control::{Control, Event, Start};
use super::geometry::{Geometry, StripeIndex};
use super::locks::{Access, Locks};
use super::member::Members;
use super::mutant::{self, Mutant};
use super::plan::Intent;
use super::sync::{Sync, SyncOptions};
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Mark, Op, Payload, Request,
    RequestId, Sectors, Wakeups,
};
use crate::parity::Kernel;

/// What one request to a member belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IoOwner {
    /// A band, for one of its columns; `part`: the number of the cargo it fills directly.
    Band { band: usize, column: usize, part: Option<usize> },
    /// The control path.
    Metadata,
    /// A user's flush.
    Flush { request: usize },
}

/// A user's request under way.
#[derive(Clone, Debug)]
pub(super) struct UserRequest {
    id: RequestId,
    /// As it goes back; a read's buffer is put together from `pieces` first.
    op: Op,
    pieces: SmallVec<[Option<Buf>; 4]>,
    outstanding: usize,
    result: Result<(), IoError>,
}

/// A RAID array over the devices of a bank.
#[derive(Clone, Debug)]
pub struct Array<B> {
    pub(super) bank: B,
    pub(super) geometry: Geometry,
    pub(super) control: Control,
    pub(super) locks: Locks,
    pub(super) bands: Slab<Band>,
    pub(super) ios: Slab<IoOwner>,
    pub(super) requests: Slab<UserRequest>,
    pub(super) waiting: Waiting,
    pub(super) granted: Vec<usize>,
    pub(super) mending: BTreeSet<(DeviceId, StripeIndex, u64)>,
    pub(super) sync: Sync,
    pub(super) kernel: Kernel,
    pub(super) now: Instant,
    pub(super) last_user_io: Instant,
    limits: Limits,
    ready: Vec<(DeviceId, Completion)>,
    arrived: Vec<(DeviceId, Completion)>,
    /// Requests under way, by device.
    inflight: Vec<u32>,
}

/// The one device an array is.
pub const VOLUME: DeviceId = DeviceId(0);

impl<B: Bank> Array<B> {
    /// Starts an array whose members' metadata was read and judged (see [`super::assemble`]).
    pub fn start(bank: B, geometry: Geometry, start: Start, options: SyncOptions) -> Array<B> {
        let member_limits: Vec<Limits> = start.members.iter().map(|member| bank.limits(member.device)).collect();
        let logical_block = member_limits.iter().map(|limits| limits.logical_block).max().unwrap_or(Sectors(1));
        let grain = member_limits.first().map_or(512, |limits| limits.grain);
        assert!(member_limits.iter().all(|limits| limits.grain == grain), "members of one grain");
        let limits = Limits {
            capacity: geometry.capacity().round_down(logical_block),
            logical_block,
            preferred: geometry.preferred_io(),
            grain,
            read_only: start.read_only,
        };
        let start = Start { logical_block, ..start };
        let filled: Vec<DeviceId> = start.members.iter().filter(|m| m.is_filled()).map(|m| m.device).collect();
        let mut array = Array {
            bank,
            control: Control::new(geometry.clone(), start),
            geometry,
            locks: Locks::default(),
            bands: Slab::new(),
            ios: Slab::new(),
            requests: Slab::new(),
            waiting: Vec::new(),
            granted: Vec::new(),
            mending: BTreeSet::new(),
            sync: Sync::new(options),
            kernel: Kernel::current(),
            now: Instant::START,
            last_user_io: Instant::START,
            limits,
            ready: Vec::new(),
            arrived: Vec::new(),
            inflight: Vec::new(),
        };
        if !array.control.is_read_only() {
            for device in filled {
                array.bank.mark(Mark::FilledBeforeStart);
                array.finish_recovery_of(device);
            }
        }
        array
    }

    /// The members' bank.
    pub fn bank(&self) -> &B {
        &self.bank
    }

    /// The members' bank, to add devices to it, or to arm faults.
    pub fn bank_mut(&mut self) -> &mut B {
        &mut self.bank
    }

    /// The bank, when the array is done with it.
    pub fn into_bank(self) -> B {
        self.bank
    }

    /// Where everything lies.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The devices and where they sit.
    pub fn members(&self) -> &Members {
        &self.control.members
    }

    /// The count of events in the superblocks.
    pub fn events_count(&self) -> u64 {
        self.control.events()
    }

    /// Whether too many members are gone for the array to take writes.
    pub fn is_failed(&self) -> bool {
        self.control.is_failed()
    }

    /// Slots without a member that holds all it should.
    pub fn degraded(&self) -> super::set::SlotSet {
        self.control.degraded()
    }

    /// Whether the members are marked clean: a crash now would leave no redundancy in doubt.
    pub fn is_marked_clean(&self) -> bool {
        self.control.is_clean()
    }

    /// What happened since the last call.
    pub fn drain_events(&mut self) -> Vec<Event> {
        self.control.drain_log()
    }

    /// Takes no more requests, lets those under way finish, writes down how far recovery has come and marks the
    /// array clean. Done when [`Array::is_stopped`] says so.
    pub fn stop(&mut self) {
        if self.control.is_stopping() {
            return;
        }
        let unfinished = self.control.members.iter().any(|member| member.serves() && !member.stale.is_empty());
        if unfinished && !self.control.is_read_only() {
            self.bank.mark(Mark::StoppedInRecovery);
            self.control.checkpoint();
        }
        self.control.stop();
    }

    /// Whether nothing is under way any more and everything is written down.
    pub fn is_stopped(&self) -> bool {
        self.bands.is_empty() && self.requests.is_empty() && self.control.is_stopped()
    }

    /// Whether nothing is under way: no request, no metadata update, no background work that could go on now.
    pub fn is_quiet(&self) -> bool {
        self.bands.is_empty() && self.requests.is_empty() && !self.control.is_busy() && self.ios.is_empty()
    }

    // ---- for those who look inside ----

    /// Whether redundancy at a sector of the volume is known to agree with the data.
    pub fn is_trusted_at(&self, lba: Lba) -> bool {
        let (index, offset) = self.geometry.locate(lba);
        let row = offset.0 % self.geometry.stripe(index).rows.0;
        self.control.is_trusted(index, &(row..row + 1))
    }

    /// Whether a user's flush is under way.
    pub fn is_flushing(&self) -> bool {
        self.requests.iter().any(|(_, request)| matches!(request.op, Op::Flush))
    }

    /// Whether the bitmap marks the region of a sector of the volume as dirty.
    pub fn is_marked_dirty(&self, lba: Lba) -> bool {
        let (index, offset) = self.geometry.locate(lba);
        let row = offset.0 % self.geometry.stripe(index).rows.0;
        let place = self.geometry.sync_range(index, row..row + 1).start;
        self.control.bitmap.as_ref().is_some_and(|bitmap| bitmap.dirty().any(|range| range.contains(&place)))
    }

    /// Stripes and rows in which something is under way.
    pub fn rows_under_way(&self) -> impl Iterator<Item = (StripeIndex, Range<u64>)> + '_ {
        self.bands.iter().map(|(_, band)| (band.index, band.rows.clone()))
    }

    /// What every band under way works at, and where in its life it is.
    pub fn under_way(&self) -> impl Iterator<Item = (Work, Phase)> + '_ {
        self.bands.iter().map(|(_, band)| (band.work(), band.phase))
    }

    /// Whether the members' superblocks may lag behind what is known here: an update is under way or wanted.
    pub fn is_recording(&self) -> bool {
        self.control.is_busy()
    }

    /// Panics where what the array keeps twice does not agree.
    pub fn check_invariants(&self) {
        self.control.check_invariants();
        let durable = self.control.durable();
        for (epoch, waiter) in &self.waiting {
            assert!(*epoch > durable || self.control.is_failed(), "{waiter:?} waits for {epoch:?}, past {durable:?}");
        }
        let (mut user_bands, mut sync_bands, mut gated) = (0, 0, 0);
        for (key, band) in &self.bands {
            match band.purpose {
                Purpose::User { request } => {
                    assert!(self.requests.contains(request), "band {key} of a request that is gone: {band:?}");
                    user_bands += 1;
                }
                Purpose::Half { of, .. } => {
                    assert_eq!(self.bands[of].phase, Phase::Halved, "band {key} is a half of {of}");
                }
                Purpose::Sync => sync_bands += 1,
                Purpose::Mend => {}
            }
            gated += u64::from(band.gate.is_some());
            let waits = match band.phase {
                Phase::Gate | Phase::Recording => {
                    self.waiting.iter().any(|(_, w)| matches!(w, Waiter::Gate(b) | Waiter::Record(b) if *b == key))
                }
                Phase::Lock => true,
                Phase::Halved => band.halves > 0,
                Phase::Direct | Phase::Reading | Phase::Writing | Phase::Verifying => band.outstanding > 0,
            };
            assert!(waits, "band {key} waits for nothing: {band:?}");
        }
        let pieces: usize = self.requests.iter().map(|(_, request)| request.outstanding).sum();
        let flushes = self.ios.iter().filter(|(_, owner)| matches!(owner, IoOwner::Flush { .. })).count();
        assert_eq!(pieces, user_bands + flushes, "pieces of requests outstanding");
        let ios = self.ios.iter().filter(|(_, owner)| matches!(owner, IoOwner::Band { .. })).count();
        let expected = |band: &Band| match band.phase {
            Phase::Direct | Phase::Reading | Phase::Writing | Phase::Verifying => band.outstanding,
            Phase::Gate | Phase::Lock | Phase::Recording | Phase::Halved => 0,
        };
        assert_eq!(ios, self.bands.iter().map(|(_, band)| expected(band)).sum::<usize>(), "I/O of bands");
        assert_eq!(gated, self.control.writes_inflight(), "writes that were announced");
        assert_eq!(sync_bands, self.sync.inflight(), "bands of background work");
        assert!(self.granted.is_empty(), "bands {:?} were granted their rows and not begun", self.granted);
        let mends = self.bands.iter().filter(|(_, band)| band.purpose == Purpose::Mend).count();
        assert_eq!(self.mending.len(), mends, "sectors being mended: {:?}", self.mending);
    }

    // ---- requests in ----

    fn admit(&mut self, request: &Request) -> Result<(), IoError> {
        if let Some(error) = self.limits.refuse(request) {
            return Err(error);
        }
        if self.control.is_stopping() {
            return Err(IoError::Offline);
        }
        let failed = self.control.is_failed();
        if failed && (request.op.is_write() || matches!(request.op, Op::Flush)) {
            Err(IoError::Offline)
        } else {
            Ok(())
        }
    }

    fn submit_flush(&mut self, id: RequestId) {
        let devices = self.control.members.serving();
        let entry =
            UserRequest { id, op: Op::Flush, pieces: SmallVec::new(), outstanding: devices.len(), result: Ok(()) };
        let key = self.requests.insert(entry);
        for device in devices {
            self.submit_io(device, IoOwner::Flush { request: key }, Extent::new(Lba(0), Sectors::ZERO), Op::Flush);
        }
    }

    fn submit_read(&mut self, id: RequestId, extent: Extent, mut buf: Buf) {
        let (cuts, lengths) = band::cut(&self.geometry, extent);
        self.bands.reserve(cuts.len());
        let mut cargo: SmallVec<[Option<Cargo>; 4]> = SmallVec::with_capacity(lengths.len());
        for length in &lengths {
            let rest = buf.split_off(length.at_grain(self.limits.grain));
            cargo.push(Some(Cargo::Up(std::mem::replace(&mut buf, rest))));
        }
        let request = UserRequest {
            id,
            op: Op::Flush,
            pieces: lengths.iter().map(|_| None).collect(),
            outstanding: cuts.len(),
            result: Ok(()),
        };
        let key = self.requests.insert(request);
        for cut in cuts {
            let intent = Intent::Read(cut.chunks());
            self.start_user_band(key, cut, intent, &mut cargo, Content::Bytes, Durability::Volatile);
        }
    }

    fn submit_write(&mut self, id: RequestId, extent: Extent, op: Op) {
        let grain = self.limits.grain;
        let (content, durability, payload) = match &op {
            Op::Write(payload, durability) => (Content::Bytes, *durability, payload.clone()),
            Op::WriteZeroes(durability) => {
                (Content::Zeroes, *durability, Payload::zeroes(extent.length.at_grain(grain)))
            }
            Op::Discard => (Content::Discarded, Durability::Volatile, Payload::zeroes(extent.length.at_grain(grain))),
            Op::Read(_) | Op::Flush => panic!("{} is not a write", op.name()),
        };
        let (cuts, lengths) = band::cut(&self.geometry, extent);
        let mut at = 0;
        let mut cargo: SmallVec<[Option<Cargo>; 4]> = SmallVec::new();
        for length in &lengths {
            let end = at + length.at_grain(grain);
            cargo.push(Some(Cargo::Down(payload.cut(at..end).contiguous())));
            at = end;
        }
        let request = UserRequest { id, op, pieces: SmallVec::new(), outstanding: cuts.len(), result: Ok(()) };
        let key = self.requests.insert(request);
        for cut in cuts {
            let intent = Intent::Write(cut.chunks());
            self.start_user_band(key, cut, intent, &mut cargo, content, durability);
        }
    }

    fn start_user_band(
        &mut self,
        request: usize,
        cut: Cut,
        intent: Intent,
        cargo: &mut [Option<Cargo>],
        content: Content,
        durability: Durability,
    ) {
        let Cut { index, stripe, rows, pieces } = cut;
        let mut band = Band::new(Purpose::User { request }, intent, index, stripe, rows);
        band.cargo = pieces
            .into_iter()
            .map(|(chunk, piece)| (chunk, piece, cargo[piece].take().expect("every piece lies in one band")))
            .collect();
        // Zeroes asked of whole rows are zeroes on every column, parity too. Elsewhere they are bytes like any.
        let whole_rows = band.cargo.len() == band.stripe.data_chunks;
        band.content = if whole_rows { content } else { Content::Bytes };
        band.durability = durability;
        let key = self.bands.insert(band);
        self.pass_gate(key);
    }

    /// First station of a band: if it writes, its region must be marked dirty.
    fn pass_gate(&mut self, key: usize) {
        let band = &mut self.bands[key];
        if matches!(band.intent, Intent::Write(_)) {
            let range = self.geometry.sync_range(band.index, band.rows.clone());
            band.gate = Some(range.clone());
            if let Some(epoch) = self.control.begin_write(&range)
                && !mutant::is_on(Mutant::WriteBeforeMark)
            {
                self.bank.mark(Mark::GateWaited);
                band.phase = Phase::Gate;
                self.waiting.push((epoch, Waiter::Gate(key)));
                return;
            }
        }
        self.take_lock(key);
    }

    /// Second station: the rows. Bands of background work begin here.
    pub(super) fn take_lock(&mut self, key: usize) {
        let band = &mut self.bands[key];
        band.phase = Phase::Lock;
        if self.geometry.tolerance() == 0 {
            return self.begin(key);
        }
        let mirror = self.geometry.parity_count() == 0;
        let settles = mirror
            && !self.control.is_read_only()
            && !self.control.is_trusted(band.index, &band.rows)
            && !mutant::is_on(Mutant::CopiesNotSettled);
        let access = match band.intent {
            Intent::Read(_) if settles => Access::Exclusive,
            Intent::Read(_) => Access::Shared,
            _ => Access::Exclusive,
        };
        band.access = Some(access);
        band.exclusive = access == Access::Exclusive;
        if self.locks.acquire(band.index, band.rows.clone(), access, key) {
            return self.begin(key);
        }
        self.bank.mark(Mark::LockWaited);
    }

    // ---- to the members and back ----

    pub(super) fn submit_io(&mut self, device: DeviceId, owner: IoOwner, extent: Extent, op: Op) {
        let at = device.0 as usize;
        self.inflight.resize(self.inflight.len().max(at + 1), 0);
        self.inflight[at] += 1;
        let id = RequestId(self.ios.insert(owner) as u64);
        self.bank.submit(device, Request::new(id, extent, op), self.now);
    }

    /// Whether something that was begun with this device, in whatever role it had, is not over.
    pub(super) fn is_in_use(&self, device: DeviceId) -> bool {
        let target = |band: &Band| band.targets.iter().any(|(of, _)| *of == device);
        self.inflight.get(device.0 as usize).is_some_and(|count| *count > 0)
            || self.bands.iter().any(|(_, band)| target(band))
    }

    fn arrive(&mut self, device: DeviceId, completion: Completion) {
        let Completion { id, op, result } = completion;
        self.inflight[device.0 as usize] -= 1;
        match self.ios.remove(id.0 as usize) {
            IoOwner::Band { band, column, part } => self.band_io_done(band, device, column, part, op, result),
            IoOwner::Metadata => self.control.complete(device, &op, result),
            IoOwner::Flush { request } => self.flush_done(request, device, result),
        }
    }

    fn flush_done(&mut self, key: usize, device: DeviceId, result: Result<(), IoError>) {
        if let Err(error) = result
            && !mutant::is_on(Mutant::FlushErrorIgnored)
        {
            if let Some(member) = self.control.members.get_mut(device) {
                member.errors.flush += 1;
                self.bank.mark(if member.serves() { Mark::FlushFailed } else { Mark::FlushOfFailedMember });
            }
            // What it acknowledged since its last good flush may be gone: it cannot be believed any more.
            self.control.fail(device, true);
            if self.geometry.tolerance() == 0 {
                self.requests[key].result = Err(error);
            }
        }
        self.requests[key].outstanding -= 1;
        if mutant::is_on(Mutant::FlushBeforeLast) && self.requests[key].outstanding == 1 {
            let UserRequest { id, op, result, .. } = &mut self.requests[key];
            let op = std::mem::replace(op, Op::Discard);
            self.ready.push((VOLUME, Completion { id: *id, op, result: *result }));
        }
        if self.requests[key].outstanding == 0 {
            match self.control.record() {
                Some(epoch) => {
                    self.bank.mark(Mark::FlushWaitedForRecord);
                    self.waiting.push((epoch, Waiter::Flush(key)));
                }
                None => self.acknowledge_flush(key),
            }
        }
    }

    fn acknowledge_flush(&mut self, key: usize) {
        let UserRequest { id, op, mut result, .. } = self.requests.remove(key);
        if mutant::is_on(Mutant::FlushBeforeLast) && matches!(op, Op::Discard) {
            return;
        }
        if self.control.is_failed() {
            self.bank.mark(Mark::FlushMetFailedArray);
            result = result.and(Err(IoError::Offline));
        }
        self.ready.push((VOLUME, Completion { id, op, result }));
    }

    /// A band of a user's request is done; its bytes come back.
    pub(super) fn user_band_done(
        &mut self,
        key: usize,
        cargo: SmallVec<[(usize, usize, Cargo); 2]>,
        result: Result<(), IoError>,
    ) {
        let request = &mut self.requests[key];
        for (_, piece, cargo) in cargo {
            if let Cargo::Up(buf) = cargo {
                request.pieces[piece] = Some(buf);
            }
        }
        request.result = request.result.and(result);
        request.outstanding -= 1;
        if request.outstanding > 0 {
            return;
        }
        let UserRequest { id, op, pieces, result, .. } = self.requests.remove(key);
        let op = if pieces.is_empty() {
            op
        } else {
            let mut whole = Buf::default();
            for piece in pieces {
                whole.append(piece.expect("every band brought its pieces back"));
            }
            Op::Read(whole)
        };
        self.ready.push((VOLUME, Completion { id, op, result }));
    }

    // ---- the wheel ----

    /// Lets everything go on that can: metadata that is due, gates that opened, locks that came free, background work.
    pub(super) fn turn(&mut self) {
        loop {
            self.take_spares();
            self.control.poll(self.now);
            while let Some(io) = self.control.next_io() {
                self.submit_io(io.device, IoOwner::Metadata, io.extent, io.op);
            }
            self.control.take_marks().iter().for_each(|mark| self.bank.mark(mark));
            let opened = self.open_gates();
            if self.granted.is_empty() && !opened {
                self.pump_sync();
                if self.granted.is_empty() {
                    break;
                }
            }
            for band in std::mem::take(&mut self.granted) {
                self.begin(band);
            }
        }
    }

    fn open_gates(&mut self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let (durable, failed) = (self.control.durable(), self.control.is_failed());
        let mut opened: SmallVec<[Waiter; 8]> = SmallVec::new();
        self.waiting.retain(|(epoch, waiter)| {
            let open = *epoch <= durable || failed;
            if open {
                opened.push(*waiter);
            }
            !open
        });
        if failed && !opened.is_empty() {
            self.bank.mark(Mark::WaitersFreedByFailure);
        }
        for waiter in &opened {
            match *waiter {
                Waiter::Gate(band) => self.take_lock(band),
                Waiter::Record(band) => self.recorded(band),
                Waiter::Flush(request) => self.acknowledge_flush(request),
                Waiter::Replacement(device) => self.finish_replacement(device),
            }
        }
        !opened.is_empty()
    }

    /// Bytes of cargo of one band: `Bytes` for a chunk of a write.
    pub(super) fn written_bytes(band: &Band) -> Vec<(usize, Bytes)> {
        let bytes = |(chunk, _, cargo): &(usize, usize, Cargo)| match cargo {
            Cargo::Down(bytes) => (*chunk, bytes.clone()),
            Cargo::Up(_) => panic!("a write carries bytes down"),
        };
        band.cargo.iter().map(bytes).collect()
    }

    pub(super) fn grain(&self) -> u32 {
        self.limits.grain
    }

    pub(super) fn logical_block(&self) -> Sectors {
        self.limits.logical_block
    }
}

impl<B: Bank> Bank for Array<B> {
    fn limits(&self, device: DeviceId) -> Limits {
        assert_eq!(device, VOLUME, "an array is one device");
        self.limits
    }

    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        assert_eq!(device, VOLUME, "an array is one device");
        self.now = now;
        self.last_user_io = now;
        if let Err(error) = self.admit(&request) {
            self.bank.mark(Mark::RequestRefused);
            self.ready.push((VOLUME, request.complete(Err(error))));
            return;
        }
        let Request { id, extent, op } = request;
        match op {
            Op::Flush => self.submit_flush(id),
            Op::Read(mut buf) => {
                if self.read_at_once(extent, &mut buf) {
                    return self.ready.push((VOLUME, Completion { id, op: Op::Read(buf), result: Ok(()) }));
                }
                self.submit_read(id, extent, buf);
            }
            Op::Write(..) | Op::WriteZeroes(_) | Op::Discard => self.submit_write(id, extent, op),
        }
        self.turn();
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        self.now = now;
        let mut arrived = std::mem::take(&mut self.arrived);
        self.bank.poll(now, &mut arrived);
        for (device, completion) in arrived.drain(..) {
            self.arrive(device, completion);
        }
        self.arrived = arrived;
        self.turn();
        done.append(&mut self.ready);
    }

    fn next_deadline(&self) -> Option<Instant> {
        if !self.ready.is_empty() || self.spare_is_due() {
            return Some(Instant::START);
        }
        Instant::earliest([self.bank.next_deadline(), self.control.next_deadline(), self.sync_deadline()])
    }

    fn mark(&mut self, mark: Mark) {
        self.bank.mark(mark);
    }
}

impl<B: Wakeups> Wakeups for Array<B> {
    fn wakeups(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        self.bank.wakeups()
    }
}
