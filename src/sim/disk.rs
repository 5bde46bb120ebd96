//! Simulated disks.
//!
//! A disk acknowledges a write when it is in its cache, and a power cut may then keep or lose it,
//! sector by sector, in any order; only a flush, or force unit access, puts it on the medium. Writes
//! in flight may be torn at sector borders. (Zheng et al., FAST '13, saw worse of real SSDs.)
//!
//! A [`SimBank`] holds several such disks and one heap of events. Each request is done at a moment
//! drawn when it is submitted, so completions come in any order. Each [`poll`](Bank::poll) does
//! exactly one event, the earliest due: between any two polls the world can be cloned and its power cut.
//!
//! A request carries its sectors with all their bytes or at the disk's grain. One that was misdirected
//! may carry metadata to where data is, or the other way round: see `regrain`.

mod cache;
mod faults;
mod media;
mod timing;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use rangemap::RangeSet;

use super::queue::Queue;
use super::{Choose, Odometer, Rng, Trace};
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Mark, Marks, Op, Payload,
    Request, SECTOR_BYTES, Sectors,
};

use cache::{BLOCK, Cached, cut_out, versions_by_unit, visible};
use faults::Hung;
use media::{Media, regrain};
use timing::{Arm, Span};

pub use cache::CacheLoss;
pub use faults::Snapshot;
pub use timing::{Hdd, Service, Timing};

/// What a disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskModel {
    /// What it tells the layer above. The grain holds from `metadata` on and divides 512.
    pub limits: Limits,
    /// Sectors below this travel and are stored with all their 512 bytes.
    pub metadata: Sectors,
    /// How long it takes.
    pub timing: Timing,
    /// Writes its cache holds; the oldest is written back to make room.
    pub cached_writes_max: usize,
}

/// How often something that was done to a disk has struck a request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Hits {
    /// Reads that met an unreadable sector.
    pub unreadable: u64,
    /// Requests that came while it hung.
    pub hung: u64,
    /// Requests that took longer.
    pub slowed: u64,
    /// Flushes that took the cache with them.
    pub flushes_lost: u64,
    /// Writes that found no room.
    pub no_space: u64,
}

/// Disks that can be cloned at any moment, power off and all.
#[derive(Clone, Debug)]
pub struct SimBank {
    seed: u64,
    disks: Vec<Disk>,
    inflight: Queue<InFlight>,
    /// The latest moment it was told of.
    now: Instant,
    /// Counts submissions and completions; says which came before which.
    stamp: u64,
    submitted: u64,
    events: u64,
    trace: Trace,
    marks: Marks,
    /// Reads that met unreadable sectors since somebody asked.
    met_unreadable: Vec<(DeviceId, Extent)>,
    /// Its disks lend what they hold.
    mapped: bool,
}

#[derive(Clone, Debug)]
struct Disk {
    model: DiskModel,
    media: Media,
    /// Completed writes not known to be on the medium, in the order they took effect.
    cache: Vec<Cached>,
    /// Nothing on the medium took effect later than this.
    settled: Instant,
    arm: Arm,
    online: bool,
    /// How long its requests hang, if it does.
    hang: Option<Duration>,
    /// Its requests in flight that will not be answered.
    hanging: u32,
    slowness: u32,
    flushes_to_fail: u64,
    /// Sectors for which there is no space, if space is limited.
    without_space: Option<RangeSet<u64>>,
    medium_errors: BTreeSet<u64>,
    /// Sectors whose last write a failed flush took with it.
    lost: RangeSet<u64>,
    /// Those of them since somebody asked.
    lost_anew: Vec<Extent>,
    submitted: u64,
    hits: Hits,
    /// What was stored since somebody asked, if anybody does.
    written: Option<Vec<Extent>>,
    rng: Rng,
}

#[derive(Clone, Debug)]
struct InFlight {
    begun: Instant,
    due: Instant,
    /// When a write happens, between its submission and its completion: two writes in flight
    /// together may happen in the other order than they complete.
    effect: Instant,
    submitted: u64,
    device: DeviceId,
    request: Request,
    /// It will not be answered.
    hung: Option<Hung>,
}

impl DiskModel {
    /// A disk of `capacity` sectors of which `metadata` carry 512 bytes and the others 64, with
    /// 80 to 160 microseconds a request.
    pub fn small(capacity: Sectors, metadata: Sectors) -> DiskModel {
        DiskModel {
            limits: Limits { grain: 64, ..Limits::of_disk(capacity) },
            metadata,
            timing: Timing::Fixed(Service {
                base: Duration::from_micros(80),
                per_sector: Duration::from_nanos(100),
                spread: Duration::from_micros(80),
            }),
            cached_writes_max: 256,
        }
    }
}

impl SimBank {
    /// A bank without disks. `seed` decides the service times of those to come.
    pub fn new(seed: u64) -> SimBank {
        SimBank {
            seed,
            disks: Vec::new(),
            inflight: Queue::default(),
            now: Instant::START,
            stamp: 0,
            submitted: 0,
            events: 0,
            trace: Trace::default(),
            marks: Marks::default(),
            mapped: false,
            met_unreadable: Vec::new(),
        }
    }

    /// From now on its disks lend what they hold, as mapped files do.
    pub fn lend_windows(&mut self) {
        self.mapped = true;
    }

    /// Adds a disk full of zeroes, at any time.
    pub fn add_disk(&mut self, model: DiskModel) -> DeviceId {
        let device = DeviceId(self.disks.len() as u32);
        self.disks.push(Disk::new(model, Rng::new(self.seed, u64::from(device.0))));
        device
    }

    /// Its disks.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> + use<> {
        (0..self.disks.len() as u32).map(DeviceId)
    }

    /// Requests submitted so far, to any disk.
    pub fn io_count(&self) -> u64 {
        self.submitted
    }

    /// Requests submitted so far to one disk.
    pub fn io_count_of(&self, device: DeviceId) -> u64 {
        self.disks[device.0 as usize].submitted
    }

    /// What has struck one disk so far.
    pub fn hits(&self, device: DeviceId) -> Hits {
        self.disks[device.0 as usize].hits
    }

    /// Completions so far: one an event, and the only events there are.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Hash of everything submitted and completed, bytes and times included.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// The rare branches the layers above have taken since it was made.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// The bytes on the medium: after a power cut, all the disk has. They take the grain of their
    /// area; an extent lies in one.
    pub fn read_media(&self, device: DeviceId, extent: Extent) -> Vec<u8> {
        let media = &self.disks[device.0 as usize].media;
        let mut bytes = vec![0; extent.length.at_grain(media.grain(extent))];
        media.read(extent, media.grain(extent), &mut bytes);
        bytes
    }

    /// The bytes a read would return now, in the grain of their area; an extent lies in one.
    pub fn peek(&self, device: DeviceId, extent: Extent) -> Vec<u8> {
        let disk = &self.disks[device.0 as usize];
        let mut buf = Buf::zeroed(extent.length.at_grain(disk.media.grain(extent)));
        disk.read(extent, &mut buf);
        buf.to_vec()
    }

    /// Whether a write to `device` is under way.
    pub fn writes_inflight(&self, device: DeviceId) -> bool {
        self.inflight.iter().any(|each| each.device == device && each.request.op.is_write())
    }

    /// Reads that have met unreadable sectors since the last call.
    pub fn take_unreadable(&mut self) -> Vec<(DeviceId, Extent)> {
        std::mem::take(&mut self.met_unreadable)
    }

    /// Where writes were that failed flushes have taken with them since the last call.
    pub fn take_lost(&mut self) -> Vec<(DeviceId, Extent)> {
        let of = |(number, disk): (usize, &mut Disk)| {
            std::mem::take(&mut disk.lost_anew).into_iter().map(move |extent| (DeviceId(number as u32), extent))
        };
        self.disks.iter_mut().enumerate().flat_map(of).collect()
    }

    /// What was stored on `device` since the last call; nothing is kept before the first.
    pub fn take_written(&mut self, device: DeviceId) -> Vec<Extent> {
        self.disks[device.0 as usize].written.replace(Vec::new()).unwrap_or_default()
    }

    /// Where a power cut now would leave a choice: writes in flight, and completed ones that no flush covered.
    pub fn unsettled(&self, device: DeviceId) -> Vec<Extent> {
        let cached = self.disks[device.0 as usize].cache.iter().map(|cached| cached.extent);
        let mine = self.inflight.iter().filter(|each| each.device == device && each.request.op.is_write());
        cached.chain(mine.map(|each| each.request.extent)).collect()
    }

    /// Where what was written last is gone with a flush that failed.
    pub fn lost(&self, device: DeviceId) -> impl Iterator<Item = Extent> {
        let extent = |range: &std::ops::Range<u64>| Extent::new(Lba(range.start), Sectors(range.end - range.start));
        self.disks[device.0 as usize].lost.iter().map(extent)
    }

    /// Requests in flight are gone without a completion and without effect: nobody is there who waits for them.
    pub fn forget_requests(&mut self) {
        self.inflight.take_all();
        self.disks.iter_mut().for_each(Disk::forget_requests);
    }

    /// Cuts the power of all disks and brings it back: requests in flight are gone without a
    /// completion, caches are empty, and each sector is one of the versions `loss` allows.
    pub fn power_cut(&mut self, loss: CacheLoss, choose: &mut impl Choose) {
        let inflight = self.inflight.take_all();
        for (device, disk) in self.disks.iter_mut().enumerate() {
            let cached = std::mem::take(&mut disk.cache);
            let torn = inflight
                .iter()
                .filter(|each| each.device.0 as usize == device)
                .filter_map(|each| disk.stored_by(each))
                .collect();
            disk.forget_requests();
            disk.lose_power(loss, cached, torn, choose);
        }
    }

    /// All ways in which sectors may survive a power cut now, by their numbers to [`Odometer::at`], one of those that leave
    /// the same behind, with its [fingerprint](SimBank::fingerprint); if there are more than `most`, none survives, all survive, and `drawn` others.
    pub fn survivors(&self, most: u64, drawn: u64, choose: &mut Rng) -> Vec<(u64, u64)> {
        let cut = |odometer: &mut Odometer| {
            let mut bank = self.clone();
            bank.power_cut(CacheLoss::PerSector, odometer);
            bank.fingerprint()
        };
        let mut odometer = Odometer::default();
        let none = cut(&mut odometer);
        let ways = odometer.ways();
        if ways > most {
            let others = std::iter::once(ways - 1).chain((0..drawn).map(|_| choose.range(1..ways - 1)));
            let others = others.map(|number| (number, cut(&mut Odometer::at(number))));
            return std::iter::once((0, none)).chain(others).collect();
        }
        let mut left = BTreeSet::from([none]);
        let mut numbers = vec![(0, none)];
        while odometer.advance() {
            let some = cut(&mut odometer);
            if left.insert(some) {
                numbers.push((odometer.number(), some));
            }
        }
        numbers
    }

    /// A hash of what is on the media, and of which disks answer: after a power cut, all there is.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Trace::default();
        for disk in &self.disks {
            hash.note(u64::from(disk.online));
            disk.media.fingerprint(&mut hash);
        }
        hash.0
    }

    fn note(&mut self, what: &'static str, now: Instant, device: DeviceId, id: u64, extent: Extent) {
        let what = u64::from(what.as_bytes()[0]) << 8 | what.len() as u64;
        self.trace.note_all([now.0, what << 32 | u64::from(device.0), id, extent.start.0, extent.length.0]);
    }
}

impl Bank for SimBank {
    fn limits(&self, device: DeviceId) -> Limits {
        self.disks[device.0 as usize].model.limits
    }

    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        self.note(request.op.name(), now, device, request.id.0, request.extent);
        if let Op::Write(payload, _) = &request.op {
            self.trace.note_bytes(payload.slices());
        }
        assert!(now >= self.now, "time went back from {:?} to {now:?}", self.now);
        self.now = now;
        self.submitted += 1;
        self.stamp += 1;
        let stamp = self.stamp;
        let disk = &mut self.disks[device.0 as usize];
        disk.submitted += 1;
        if let Some(grain) = request.grain().filter(|_| disk.model.limits.refuse(&request).is_none()) {
            let known = [SECTOR_BYTES as u32, disk.model.limits.grain];
            assert!(known.contains(&grain), "{:?} of {device:?} carries {grain} bytes a sector", request.extent);
        }
        let mut inflight =
            InFlight { begun: now, due: now, effect: now, submitted: stamp, device, request, hung: None };
        match disk.hang {
            Some(timeout) => {
                disk.hits.hung += 1;
                disk.leave_hanging(&mut inflight, timeout, now, stamp);
            }
            None => {
                disk.hits.slowed += u64::from(disk.slowness > 1);
                let Span { begin, due } = disk.serve(&inflight.request, now);
                inflight.due = due;
                inflight.effect = Instant(disk.rng.range(begin.0..due.0 + 1));
            }
        }
        self.inflight.push(inflight.due, inflight);
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        let Some(mut next) = self.inflight.pop_due(now) else { return };
        self.now = self.now.max(now);
        self.stamp += 1;
        self.events += 1;
        let result = self.disks[next.device.0 as usize].answer(&mut next, self.stamp);
        self.note("done", now, next.device, next.request.id.0, next.request.extent);
        self.trace.note(result.err().map_or(0, |error| 1 + error as u64));
        match (&next.request.op, result) {
            (Op::Read(buf), Ok(())) => self.trace.note_bytes(buf.parts()),
            (Op::Read(_), Err(IoError::Medium)) => self.met_unreadable.push((next.device, next.request.extent)),
            _ => {}
        }
        done.push((next.device, next.request.complete(result)));
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inflight.next_due()
    }

    /// As a mapping does: where nothing is wrong with the disk, what it holds now, in its cache or on its medium.
    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        let disk = &self.disks[device.0 as usize];
        let well = disk.online && disk.hang.is_none() && disk.slowness <= 1 && !disk.is_unreadable(extent);
        (self.mapped && well).then(|| {
            let mut bytes = vec![0; extent.length.at_grain(disk.model.limits.grain)];
            disk.read_into(extent, &mut bytes);
            Cow::Owned(bytes)
        })
    }

    fn mark(&mut self, mark: Mark) {
        self.marks.insert(mark);
    }
}

impl Disk {
    fn new(model: DiskModel, rng: Rng) -> Disk {
        if let Timing::Hdd(hdd) = &model.timing {
            hdd.assert_possible();
        }
        Disk {
            model,
            media: Media::new(&model),
            cache: Vec::new(),
            settled: Instant::START,
            arm: Arm::default(),
            online: true,
            hang: None,
            hanging: 0,
            slowness: 1,
            flushes_to_fail: 0,
            without_space: None,
            medium_errors: BTreeSet::new(),
            lost: RangeSet::new(),
            lost_anew: Vec::new(),
            submitted: 0,
            hits: Hits::default(),
            written: None,
            rng,
        }
    }

    fn serve(&mut self, request: &Request, now: Instant) -> Span {
        if self.model.limits.refuse(request).is_some() && matches!(self.model.timing, Timing::Hdd(_)) {
            return Span { begin: now, due: now };
        }
        let Disk { model, arm, slowness, rng, .. } = self;
        model.timing.serve(arm, request.extent, model.limits.capacity, *slowness, now, rng)
    }

    fn is_unreadable(&self, extent: Extent) -> bool {
        self.medium_errors.range(extent.range()).next().is_some()
    }

    /// None of its requests is in flight any more.
    fn forget_requests(&mut self) {
        self.arm = Arm::default();
        self.hanging = 0;
    }

    /// How a request ends that is due.
    fn answer(&mut self, inflight: &mut InFlight, now: u64) -> Result<(), IoError> {
        let Some(hung) = inflight.hung else { return self.carry_out(inflight, now) };
        self.hanging -= 1;
        if !self.online {
            return Err(IoError::Offline);
        }
        if hung == Hung::CarriedOutLate {
            // Whether it succeeds is not told.
            let _ = self.carry_out(inflight, now);
        }
        Err(IoError::Timeout)
    }

    fn carry_out(&mut self, inflight: &mut InFlight, now: u64) -> Result<(), IoError> {
        if !self.online {
            return Err(IoError::Offline);
        }
        if let Some(error) = self.model.limits.refuse(&inflight.request) {
            return Err(error);
        }
        let extent = inflight.request.extent;
        let durability = match &mut inflight.request.op {
            Op::Read(_) if self.is_unreadable(extent) => {
                self.hits.unreadable += 1;
                return Err(IoError::Medium);
            }
            Op::Read(buf) => {
                self.read(extent, buf);
                return Ok(());
            }
            Op::Flush => {
                self.survive_flush()?;
                self.flush(inflight.submitted);
                return Ok(());
            }
            Op::Write(_, durability) | Op::WriteZeroes(durability) => *durability,
            Op::Discard => Durability::Volatile,
        };
        if self.lacks_space(&inflight.request) {
            self.hits.no_space += 1;
            return Err(IoError::NoSpace);
        }
        let mut write = self.stored_by(inflight).expect("nothing keeps it from being stored");
        write.completed = now;
        self.store(write, durability);
        Ok(())
    }

    /// A failed flush takes the cache with it.
    fn survive_flush(&mut self) -> Result<(), IoError> {
        if self.flushes_to_fail == 0 {
            return Ok(());
        }
        self.flushes_to_fail -= 1;
        self.hits.flushes_lost += 1;
        for cached in self.cache.drain(..) {
            self.lost.insert(cached.extent.range());
            self.lost_anew.push(cached.extent);
        }
        Err(IoError::Medium)
    }

    fn lacks_space(&self, request: &Request) -> bool {
        let Some(without) = &self.without_space else { return false };
        let needs = matches!(request.op, Op::Write(..) | Op::WriteZeroes(_));
        let sectors = request.extent.range();
        needs && !sectors.is_empty() && without.overlaps(&sectors)
    }

    /// What a request in flight stores, if it still may.
    fn stored_by(&self, inflight: &InFlight) -> Option<Cached> {
        let request = &inflight.request;
        let data = match &request.op {
            Op::Write(payload, _) => Some(payload.clone()),
            Op::WriteZeroes(_) | Op::Discard => None,
            Op::Read(_) | Op::Flush => return None,
        };
        let stores = self.online
            && self.model.limits.refuse(request).is_none()
            && !self.lacks_space(request)
            && !matches!(inflight.hung, Some(Hung::Dropped | Hung::CarriedOut));
        // What is on the medium is older than what is yet to come.
        let effect = inflight.effect.max(self.settled);
        stores.then_some(Cached { extent: request.extent, data, effect, completed: u64::MAX })
    }

    /// The newest version of each sector.
    fn read(&self, extent: Extent, buf: &mut Buf) {
        if let Some(bytes) = buf.as_mut_slice() {
            return self.read_into(extent, bytes);
        }
        let mut bytes = vec![0; buf.len()];
        self.read_into(extent, &mut bytes);
        buf.copy_from(&bytes);
    }

    fn read_into(&self, extent: Extent, bytes: &mut [u8]) {
        let grain = (bytes.len() as u64 / extent.length.0) as u32;
        self.media.read(extent, grain, bytes);
        for cached in self.cache.iter().filter(|cached| cached.extent.overlaps(extent)) {
            let start = extent.start.max(cached.extent.start);
            let end = extent.end().min(cached.extent.end());
            let target = &mut bytes[(start - extent.start).at_grain(grain)..(end - extent.start).at_grain(grain)];
            let Some(payload) = &cached.data else {
                target.fill(0);
                continue;
            };
            let cached_grain = (payload.len() as u64 / cached.extent.length.0) as u32;
            let place = |lba: Lba| (lba - cached.extent.start).at_grain(cached_grain);
            if cached_grain == grain {
                payload.copy_to(place(start), target);
            } else {
                let source = payload.cut(place(start)..place(end));
                regrain(&source.contiguous(), cached_grain, target, grain);
            }
        }
    }

    fn store(&mut self, write: Cached, durability: Durability) {
        if let Some(written) = &mut self.written {
            written.push(write.extent);
        }
        self.forgive(write.extent);
        let later = self.cache.partition_point(|cached| cached.effect <= write.effect);
        match durability {
            Durability::Volatile => self.cache.insert(later, write),
            Durability::Fua => {
                let newer = self.cache.split_off(later);
                self.settle(&write);
                self.cache.extend(newer);
            }
        }
        if self.cache.len() > self.model.cached_writes_max {
            let oldest = self.cache.remove(0);
            self.land(oldest.extent, oldest.data.as_ref());
            self.settled = self.settled.max(oldest.effect);
        }
    }

    /// Puts on the medium what was completed before the flush was submitted, and nothing else.
    fn flush(&mut self, submitted: u64) {
        for write in std::mem::take(&mut self.cache) {
            if write.completed < submitted {
                self.settle(&write);
            } else {
                self.cache.push(write);
            }
        }
    }

    /// Puts `write` on the medium; what the cache holds is older and loses those sectors.
    fn settle(&mut self, write: &Cached) {
        cut_out(&mut self.cache, write.extent);
        self.land(write.extent, write.data.as_ref());
        self.settled = self.settled.max(write.effect);
    }

    fn land(&mut self, extent: Extent, data: Option<&Payload>) {
        self.forgive(extent);
        if !self.lost.is_empty() {
            self.lost.remove(extent.range());
        }
        self.media.write(extent, data);
    }

    /// A write makes a sector readable again (as dm-dust does).
    fn forgive(&mut self, extent: Extent) {
        if !self.medium_errors.is_empty() {
            extent.range().for_each(|lba| {
                self.medium_errors.remove(&lba);
            });
        }
    }

    fn lose_power(&mut self, loss: CacheLoss, cached: Vec<Cached>, torn: Vec<Cached>, choose: &mut impl Choose) {
        let (landed, open) = match loss {
            CacheLoss::KeepAll => (cached, torn),
            CacheLoss::DropAll => return,
            CacheLoss::PerDisk if choose.chance(50) => return,
            CacheLoss::PerDisk => ([cached, torn].concat(), Vec::new()),
            CacheLoss::PerSector | CacheLoss::PerBlock => (Vec::new(), [cached, torn].concat()),
        };
        for write in &landed {
            self.land(write.extent, write.data.as_ref());
        }
        if loss == CacheLoss::PerBlock {
            self.choose_versions(open, BLOCK, choose);
        } else {
            self.choose_versions(open, Sectors(1), choose);
        }
    }

    /// Leaves each unit as it was after any of the writes that touched it, or before the first.
    fn choose_versions(&mut self, mut open: Vec<Cached>, unit: Sectors, choose: &mut impl Choose) {
        open.sort_by_key(|write| write.effect);
        for (unit, versions) in versions_by_unit(&open, unit) {
            let chosen = choose.below(versions.len() as u64 + 1) as usize;
            for part in visible(&open, &versions[..chosen], unit) {
                self.land(part.extent, part.data.as_ref());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RequestId;

    pub(super) const DISK: DeviceId = DeviceId(0);

    pub(super) fn bank() -> SimBank {
        let mut bank = SimBank::new(1);
        bank.add_disk(DiskModel::small(Sectors(64), Sectors(16)));
        bank
    }

    pub(super) fn extent(start: u64, length: u64) -> Extent {
        Extent::new(Lba(start), Sectors(length))
    }

    pub(super) fn write(start: u64, length: u64, byte: u8, durability: Durability) -> Request {
        let grain = if start < 16 { 512 } else { 64 };
        let payload = Payload::copy_of(&vec![byte; length as usize * grain]);
        Request::new(RequestId(u64::from(byte)), extent(start, length), Op::Write(payload, durability))
    }

    pub(super) fn run(bank: &mut SimBank) -> Vec<Completion> {
        let mut done = Vec::new();
        while let Some(deadline) = bank.next_deadline() {
            bank.poll(deadline, &mut done);
        }
        done.into_iter().map(|(_, completion)| completion).collect()
    }

    pub(super) fn do_one(bank: &mut SimBank, request: Request) -> Completion {
        let now = bank.now;
        bank.submit(DISK, request, now);
        run(bank).pop().expect("one completion")
    }

    pub(super) fn read(bank: &mut SimBank, start: u64, length: u64) -> Vec<u8> {
        let buf = Buf::zeroed(length as usize * if start < 16 { 512 } else { 64 });
        let completion = do_one(bank, Request::new(RequestId(0), extent(start, length), Op::Read(buf)));
        assert_eq!(completion.result, Ok(()));
        let Op::Read(buf) = completion.op else { panic!("a read comes back as a read") };
        buf.to_vec()
    }

    pub(super) fn first_bytes(bank: &SimBank, start: u64, length: u64) -> Vec<u8> {
        bank.read_media(DISK, extent(start, length)).chunks(64).map(|sector| sector[0]).collect()
    }

    #[test]
    fn a_poll_does_one_event_however_late_it_comes() {
        let mut bank = bank();
        for byte in 1..=5 {
            bank.submit(DISK, write(20, 1, byte, Durability::Volatile), Instant::START);
        }
        let late = Instant(u64::MAX);
        for polls in 1..=6 {
            let mut done = Vec::new();
            bank.poll(late, &mut done);
            assert_eq!((done.len(), bank.events()), if polls <= 5 { (1, polls) } else { (0, 5) });
        }
    }

    /// Of writes in flight, some finish while the flush is in flight: they stay in the cache.
    #[test]
    fn a_flush_puts_on_the_medium_what_was_completed_before_it_and_nothing_else() {
        let mut bank = bank();
        do_one(&mut bank, write(20, 4, 1, Durability::Volatile));
        bank.submit(DISK, write(22, 4, 2, Durability::Volatile), bank.now);
        do_one(&mut bank, Request::flush(RequestId(9)));
        assert_eq!(first_bytes(&bank, 20, 6), [1, 1, 1, 1, 0, 0]);
        assert_eq!(read(&mut bank, 22, 1), [2; 64]);
    }

    #[test]
    fn a_forced_write_takes_nothing_else_with_it() {
        let mut bank = bank();
        do_one(&mut bank, write(20, 4, 1, Durability::Volatile));
        do_one(&mut bank, write(21, 1, 2, Durability::Fua));
        assert_eq!(first_bytes(&bank, 20, 4), [0, 2, 0, 0]);
        assert_eq!(read(&mut bank, 20, 4), [[1; 64], [2; 64], [1; 64], [1; 64]].concat());
        bank.power_cut(CacheLoss::DropAll, &mut Rng::new(0, 0));
        assert_eq!(read(&mut bank, 20, 4), [[0; 64], [2; 64], [0; 64], [0; 64]].concat());
    }

    #[test]
    fn a_power_cut_leaves_every_combination_of_versions_sooner_or_later() {
        let mut bank = bank();
        do_one(&mut bank, write(20, 2, 1, Durability::Volatile));
        bank.submit(DISK, write(21, 2, 2, Durability::Fua), bank.now);
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let mut fork = bank.clone();
            fork.power_cut(CacheLoss::PerSector, &mut Rng::new(seed, 0));
            assert_eq!(fork.next_deadline(), None);
            seen.insert(first_bytes(&fork, 20, 3));
        }
        assert_eq!(seen.len(), 2 * 3 * 2, "{seen:?}");

        bank.power_cut(CacheLoss::KeepAll, &mut Rng::new(0, 0));
        assert_eq!(first_bytes(&bank, 20, 1), [1]);
    }

    #[test]
    fn a_full_cache_writes_the_oldest_back() {
        let mut bank = SimBank::new(1);
        bank.add_disk(DiskModel { cached_writes_max: 2, ..DiskModel::small(Sectors(64), Sectors(16)) });
        for byte in 1..=4 {
            do_one(&mut bank, write(20, 1, byte, Durability::Volatile));
        }
        assert_eq!(first_bytes(&bank, 20, 1), [2]);
        assert_eq!(read(&mut bank, 20, 1), [4; 64]);
    }

    #[test]
    fn metadata_keeps_whole_sectors_and_a_discard_may_cross_into_the_data() {
        let mut bank = bank();
        do_one(&mut bank, write(14, 2, 7, Durability::Fua));
        do_one(&mut bank, write(16, 2, 8, Durability::Volatile));
        assert_eq!(read(&mut bank, 14, 2), [7; 1024]);
        do_one(&mut bank, Request::new(RequestId(1), extent(15, 2), Op::Discard));
        do_one(&mut bank, Request::flush(RequestId(2)));
        assert_eq!(read(&mut bank, 14, 2), [[7; 512], [0; 512]].concat());
        assert_eq!(bank.read_media(DISK, extent(16, 2)), [[0; 64], [8; 64]].concat());
    }

    #[test]
    fn a_fabricated_image_is_what_the_disk_reads() {
        let mut bank = bank();
        do_one(&mut bank, write(30, 3, 1, Durability::Volatile));
        bank.write_media(DISK, Lba(31), &[5; 64]);
        bank.write_media(DISK, Lba(0), &[6; 512]);
        assert_eq!(read(&mut bank, 30, 3), [[1; 64], [5; 64], [1; 64]].concat());
        assert_eq!(read(&mut bank, 0, 1), [6; 512]);
    }

    /// Data is written where metadata is, and the other way round, and read back in both grains.
    #[test]
    fn what_is_misdirected_across_the_end_of_the_metadata_takes_the_grain_of_where_it_lands() {
        let mut bank = bank();
        for settled in [false, true] {
            let place = |start| extent(start, 4);
            for (id, start, grain) in [(1, 14, 64), (2, 30, 512)] {
                let bytes: Vec<u8> = (1..=4).flat_map(|sector| vec![sector; grain]).collect();
                let write = Op::Write(Payload::copy_of(&bytes), Durability::Volatile);
                assert_eq!(do_one(&mut bank, Request::new(RequestId(id), place(start), write)).result, Ok(()));
            }
            if settled {
                do_one(&mut bank, Request::flush(RequestId(3)));
            }
            assert_eq!(bank.peek(DISK, extent(14, 2)), [[1; 512], [2; 512]].concat());
            assert_eq!(bank.peek(DISK, extent(16, 2)), [[3; 64], [4; 64]].concat());
            assert_eq!(bank.peek(DISK, extent(30, 4)), [[1; 64], [2; 64], [3; 64], [4; 64]].concat());
            for (grain, start) in [(64, 14), (512, 14), (512, 30)] {
                let read = Request::new(RequestId(4), place(start), Op::Read(Buf::zeroed(4 * grain)));
                let Op::Read(buf) = do_one(&mut bank, read).op else { panic!("a read comes back as a read") };
                let sectors: Vec<u8> = buf.to_vec().chunks(grain).map(|sector| sector[0]).collect();
                assert_eq!(sectors, [1, 2, 3, 4], "{grain} bytes a sector from {start}");
            }
        }
    }

    #[test]
    fn a_hard_disk_answers_in_the_order_it_was_asked() {
        let mut bank = SimBank::new(1);
        let model = DiskModel::small(Sectors(64), Sectors(16));
        bank.add_disk(DiskModel { timing: Timing::Hdd(Hdd::NEARLINE), ..model });
        for byte in 1..=9 {
            bank.submit(DISK, write(60 - 4 * u64::from(byte), 2, byte, Durability::Volatile), Instant::START);
        }
        let done = run(&mut bank);
        assert!(done.iter().map(|completion| completion.id.0).eq(1..=9));
        assert!(bank.now > Instant::START + 7 * Hdd::NEARLINE.revolution(), "backwards, a turn for each");
    }
}
