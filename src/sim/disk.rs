//! Simulated disks.
//!
//! A disk acknowledges a write when it is in its cache, and a power cut may then keep or lose it,
//! sector by sector, in any order; only a flush, or force unit access, puts it on the medium. Writes
//! in flight may be torn at sector borders. (Zheng et al., FAST '13, saw worse of real SSDs.)
//!
//! A [`SimBank`] holds several such disks and one heap of events. Each request is done at a moment
//! drawn when it is submitted, so completions come in any order. Each [`poll`](Bank::poll) does
//! exactly one event, the earliest due: between any two polls the world can be cloned and its power cut.

use std::collections::BTreeSet;
use std::time::Duration;

use smallvec::SmallVec;

use super::cow::CowVec;
use super::queue::Queue;
use super::{Rng, Trace};
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Op, Payload, Request,
    SECTOR_BYTES, Sectors,
};

/// Bytes of media two forks share or copy together.
const PAGE_BYTES: usize = 4096;

/// What a disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskModel {
    /// What it tells the layer above. The grain holds from `metadata` on and divides 512.
    pub limits: Limits,
    /// Sectors below this travel and are stored with all their 512 bytes.
    pub metadata: Sectors,
    /// How long it takes.
    pub service: Service,
    /// Writes its cache holds; the oldest is written back to make room.
    pub cached_writes_max: usize,
}

/// How long a request takes: `base`, plus `per_sector` for its length, plus up to `spread` drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// What every request takes.
    pub base: Duration,
    /// What each of its sectors adds.
    pub per_sector: Duration,
    /// The longest a draw adds; what lets requests overtake each other.
    pub spread: Duration,
}

/// What a power cut does to writes that no flush covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheLoss {
    /// Completed writes stay, those in flight are torn: a process is killed, the disks keep their power.
    KeepAll,
    /// None of them lands, in flight or completed.
    DropAll,
    /// Each sector becomes any version it had since the last flush, each independently.
    PerSector,
    /// Each disk keeps all of them, in flight too, or none.
    PerDisk,
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
}

#[derive(Clone, Debug)]
struct Disk {
    model: DiskModel,
    media: Media,
    /// Completed writes not known to be on the medium, in the order they took effect.
    cache: Vec<Cached>,
    /// Nothing on the medium took effect later than this.
    settled: Instant,
    online: bool,
    medium_errors: BTreeSet<u64>,
    rng: Rng,
}

#[derive(Clone, Debug)]
struct Cached {
    extent: Extent,
    /// `None` is zeroes.
    data: Option<Payload>,
    effect: Instant,
    completed: u64,
}

#[derive(Clone, Debug)]
struct InFlight {
    /// When a write happens, between its submission and its completion: two writes in flight
    /// together may happen in the other order than they complete.
    effect: Instant,
    submitted: u64,
    device: DeviceId,
    request: Request,
}

impl DiskModel {
    /// A disk of `capacity` sectors of which `metadata` carry 512 bytes and the others 64, with
    /// 80 to 160 microseconds a request.
    pub fn small(capacity: Sectors, metadata: Sectors) -> DiskModel {
        DiskModel {
            limits: Limits { grain: 64, ..Limits::of_disk(capacity) },
            metadata,
            service: Service {
                base: Duration::from_micros(80),
                per_sector: Duration::from_nanos(100),
                spread: Duration::from_micros(80),
            },
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
        }
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

    /// Completions so far: one an event, and the only events there are.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Hash of everything submitted and completed, bytes and times included.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// The bytes on the medium: after a power cut, all the disk has. They take the grain of their
    /// area; an extent lies in one.
    pub fn read_media(&self, device: DeviceId, extent: Extent) -> Vec<u8> {
        let media = &self.disks[device.0 as usize].media;
        let mut bytes = vec![0; extent.length.at_grain(media.grain(extent))];
        media.read(extent.start, &mut bytes);
        bytes
    }

    /// The bytes a read would return now, in the grain of their area; an extent lies in one.
    pub fn peek(&self, device: DeviceId, extent: Extent) -> Vec<u8> {
        let disk = &self.disks[device.0 as usize];
        let mut buf = Buf::zeroed(extent.length.at_grain(disk.media.grain(extent)));
        disk.read(extent, &mut buf);
        buf.to_vec()
    }

    /// Where a power cut now would leave a choice: writes in flight, and completed ones that no flush covered.
    pub fn unsettled(&self, device: DeviceId) -> Vec<Extent> {
        let cached = self.disks[device.0 as usize].cache.iter().map(|cached| cached.extent);
        let mine = self.inflight.iter().filter(|each| each.device == device && each.request.op.is_write());
        cached.chain(mine.map(|each| each.request.extent)).collect()
    }

    /// Changes the medium from `start` on behind everyone's back, cache and all; whole sectors of one area.
    pub fn write_media(&mut self, device: DeviceId, start: Lba, bytes: &[u8]) {
        let disk = &mut self.disks[device.0 as usize];
        let grain = disk.media.grain(Extent::new(start, Sectors(1))) as usize;
        assert!(bytes.len().is_multiple_of(grain), "{} bytes are not whole sectors of {grain}", bytes.len());
        let extent = Extent::new(start, Sectors((bytes.len() / grain) as u64));
        disk.media.grain(extent);
        cut_out(&mut disk.cache, extent);
        disk.land(extent, Some(&Payload::copy_of(bytes)));
    }

    /// From now on every request of `device` ends with [`IoError::Offline`], those in flight included.
    pub fn fail_stop(&mut self, device: DeviceId) {
        self.disks[device.0 as usize].online = false;
    }

    /// Ends a [`fail_stop`](SimBank::fail_stop): the disk is back with what it held.
    pub fn bring_back(&mut self, device: DeviceId) {
        self.disks[device.0 as usize].online = true;
    }

    /// Whether `device` answers.
    pub fn is_online(&self, device: DeviceId) -> bool {
        self.disks[device.0 as usize].online
    }

    /// Makes `extent` unreadable, each sector until it is written. Outlives a power cut.
    pub fn fail_medium(&mut self, device: DeviceId, extent: Extent) {
        self.disks[device.0 as usize].medium_errors.extend(extent.range());
    }

    /// Whether a read of `extent` would meet an unreadable sector.
    pub fn is_unreadable(&self, device: DeviceId, extent: Extent) -> bool {
        self.disks[device.0 as usize].is_unreadable(extent)
    }

    /// Cuts the power of all disks and brings it back: requests in flight are gone without a
    /// completion, caches are empty, and each sector is one of the versions `loss` allows.
    pub fn power_cut(&mut self, loss: CacheLoss, choose: &mut Rng) {
        let inflight = self.inflight.take_all();
        for (device, disk) in self.disks.iter_mut().enumerate() {
            let cached = std::mem::take(&mut disk.cache);
            let torn = inflight
                .iter()
                .filter(|each| each.device.0 as usize == device)
                .filter_map(|each| disk.would_store(each))
                .collect();
            disk.lose_power(loss, cached, torn, choose);
        }
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
        let disk = &mut self.disks[device.0 as usize];
        if let Some(grain) = request.grain().filter(|_| disk.model.limits.refuse(&request).is_none()) {
            let needed = disk.media.grain(request.extent);
            assert_eq!(grain, needed, "{:?} of {device:?} carries another grain", request.extent);
        }
        let due = now + disk.service_time(request.extent.length);
        let effect = Instant(disk.rng.range(now.0..due.0 + 1));
        self.inflight.push(due, InFlight { effect, submitted: self.stamp, device, request });
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        let Some(mut next) = self.inflight.pop_due(now) else { return };
        self.now = self.now.max(now);
        self.stamp += 1;
        self.events += 1;
        let result = self.disks[next.device.0 as usize].carry_out(&mut next, self.stamp);
        self.note("done", now, next.device, next.request.id.0, next.request.extent);
        self.trace.note(result.err().map_or(0, |error| 1 + error as u64));
        if let (Op::Read(buf), Ok(())) = (&next.request.op, result) {
            self.trace.note_bytes(buf.parts());
        }
        done.push((next.device, next.request.complete(result)));
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inflight.next_due()
    }
}

impl Disk {
    fn new(model: DiskModel, rng: Rng) -> Disk {
        Disk {
            model,
            media: Media::new(&model),
            cache: Vec::new(),
            settled: Instant::START,
            online: true,
            medium_errors: BTreeSet::new(),
            rng,
        }
    }

    fn service_time(&mut self, length: Sectors) -> Duration {
        let Service { base, per_sector, spread } = self.model.service;
        let nanos = |each: Duration| each.as_nanos() as u64;
        Duration::from_nanos(nanos(base) + nanos(per_sector) * length.0 + self.rng.below(nanos(spread) + 1))
    }

    fn is_unreadable(&self, extent: Extent) -> bool {
        self.medium_errors.range(extent.range()).next().is_some()
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
            Op::Read(_) if self.is_unreadable(extent) => return Err(IoError::Medium),
            Op::Read(buf) => {
                self.read(extent, buf);
                return Ok(());
            }
            Op::Flush => {
                self.flush(inflight.submitted);
                return Ok(());
            }
            Op::Write(_, durability) | Op::WriteZeroes(durability) => *durability,
            Op::Discard => Durability::Volatile,
        };
        if let Some(mut write) = self.would_store(inflight) {
            write.completed = now;
            self.store(write, durability);
        }
        Ok(())
    }

    /// What a request in flight stores, if it does.
    fn would_store(&self, inflight: &InFlight) -> Option<Cached> {
        let request = &inflight.request;
        let data = match &request.op {
            Op::Write(payload, _) => Some(payload.clone()),
            Op::WriteZeroes(_) | Op::Discard => None,
            Op::Read(_) | Op::Flush => return None,
        };
        let stores = self.online && self.model.limits.refuse(request).is_none();
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
        let grain = self.media.grain(extent) as usize;
        self.media.read(extent.start, bytes);
        for cached in self.cache.iter().filter(|cached| cached.extent.overlaps(extent)) {
            let start = extent.start.max(cached.extent.start);
            let end = extent.end().min(cached.extent.end());
            let place = |from: Lba| (start - from).0 as usize * grain..(end - from).0 as usize * grain;
            let target = &mut bytes[place(extent.start)];
            match &cached.data {
                Some(payload) => payload.copy_to(place(cached.extent.start).start, target),
                None => target.fill(0),
            }
        }
    }

    fn store(&mut self, write: Cached, durability: Durability) {
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

    fn lose_power(&mut self, loss: CacheLoss, mut cached: Vec<Cached>, torn: Vec<Cached>, choose: &mut Rng) {
        let (landed, open) = match loss {
            CacheLoss::KeepAll => (cached, torn),
            CacheLoss::DropAll => return,
            CacheLoss::PerDisk if choose.chance(50) => return,
            CacheLoss::PerDisk | CacheLoss::PerSector => {
                cached.extend(torn);
                if loss == CacheLoss::PerDisk { (cached, Vec::new()) } else { (Vec::new(), cached) }
            }
        };
        for write in &landed {
            self.land(write.extent, write.data.as_ref());
        }
        for (lba, versions) in versions_by_sector(&open) {
            let chosen = choose.below(versions.len() as u64 + 1) as usize;
            let Some(&version) = versions.get(chosen) else { continue };
            let write = &open[version];
            let sector = Extent::new(lba, Sectors(1));
            let grain = self.media.grain(sector);
            let at = (lba - write.extent.start).at_grain(grain);
            let data = write.data.as_ref().map(|payload| payload.cut(at..at + grain as usize));
            self.land(sector, data.as_ref());
        }
    }
}

/// Each sector written by any of `writes`, rising, with the writes that did.
fn versions_by_sector(writes: &[Cached]) -> Vec<(Lba, SmallVec<[usize; 4]>)> {
    let mut pairs: Vec<(u64, usize)> = Vec::new();
    for (index, write) in writes.iter().enumerate() {
        pairs.extend(write.extent.range().map(|lba| (lba, index)));
    }
    pairs.sort_unstable();
    let of_one_sector = pairs.chunk_by(|a, b| a.0 == b.0);
    of_one_sector.map(|pairs| (Lba(pairs[0].0), pairs.iter().map(|pair| pair.1).collect())).collect()
}

/// Takes the sectors of `hole` out of `writes`.
fn cut_out(writes: &mut Vec<Cached>, hole: Extent) {
    if !writes.iter().any(|write| write.extent.overlaps(hole)) {
        return;
    }
    for write in std::mem::take(writes) {
        if !write.extent.overlaps(hole) {
            writes.push(write);
            continue;
        }
        let (start, end) = (write.extent.start, write.extent.end());
        for (from, to) in [(start, hole.start), (hole.end(), end)] {
            if from < to {
                writes.push(write.part(Extent::new(from, to - from)));
            }
        }
    }
}

impl Cached {
    fn part(&self, extent: Extent) -> Cached {
        let data = self.data.as_ref().map(|payload| {
            let grain = payload.len() / self.extent.length.0 as usize;
            let at = (extent.start - self.extent.start).0 as usize * grain;
            payload.cut(at..at + extent.length.0 as usize * grain)
        });
        Cached { extent, data, ..*self }
    }
}

/// What stays without power: metadata with whole sectors, then data at the disk's grain.
#[derive(Clone, Debug)]
struct Media {
    border: Lba,
    grain: u32,
    metadata: CowVec<u8, PAGE_BYTES>,
    data: CowVec<u8, PAGE_BYTES>,
}

impl Media {
    fn new(model: &DiskModel) -> Media {
        let Limits { capacity, grain, .. } = model.limits;
        assert!(model.metadata <= capacity, "{:?} of metadata on {capacity:?}", model.metadata);
        assert!(SECTOR_BYTES.is_multiple_of(u64::from(grain)), "grain {grain} does not divide a sector");
        Media {
            border: Lba(model.metadata.0),
            grain,
            metadata: CowVec::new(model.metadata.bytes() as usize),
            data: CowVec::new((capacity - model.metadata).at_grain(grain)),
        }
    }

    /// Bytes of each sector of `extent`, which lies in one area.
    fn grain(&self, extent: Extent) -> u32 {
        assert!(
            extent.end() <= self.border || extent.start >= self.border,
            "{extent:?} lies across the end of the metadata at {:?}",
            self.border
        );
        if extent.start < self.border { SECTOR_BYTES as u32 } else { self.grain }
    }

    fn place(&self, lba: Lba) -> usize {
        if lba < self.border { lba.bytes() as usize } else { (lba - self.border).at_grain(self.grain) }
    }

    fn read(&self, start: Lba, out: &mut [u8]) {
        let area = if start < self.border { &self.metadata } else { &self.data };
        area.read(self.place(start), out);
    }

    fn write(&mut self, extent: Extent, data: Option<&Payload>) {
        let Some(payload) = data else { return self.zero(extent) };
        let mut at = self.place(extent.start);
        let area = if extent.start < self.border { &mut self.metadata } else { &mut self.data };
        for slice in payload.slices() {
            area.write(at, slice);
            at += slice.len();
        }
    }

    fn zero(&mut self, extent: Extent) {
        let border = self.border.clamp(extent.start, extent.end());
        if extent.start < border {
            self.metadata.zero(self.place(extent.start), (border - extent.start).bytes() as usize);
        }
        if border < extent.end() {
            self.data.zero(self.place(border), (extent.end() - border).at_grain(self.grain));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RequestId;

    const DISK: DeviceId = DeviceId(0);

    fn bank() -> SimBank {
        let mut bank = SimBank::new(1);
        bank.add_disk(DiskModel::small(Sectors(64), Sectors(16)));
        bank
    }

    fn extent(start: u64, length: u64) -> Extent {
        Extent::new(Lba(start), Sectors(length))
    }

    fn write(start: u64, length: u64, byte: u8, durability: Durability) -> Request {
        let grain = if start < 16 { 512 } else { 64 };
        let payload = Payload::copy_of(&vec![byte; length as usize * grain]);
        Request::new(RequestId(u64::from(byte)), extent(start, length), Op::Write(payload, durability))
    }

    fn run(bank: &mut SimBank) -> Vec<Completion> {
        let mut done = Vec::new();
        while let Some(deadline) = bank.next_deadline() {
            bank.poll(deadline, &mut done);
        }
        done.into_iter().map(|(_, completion)| completion).collect()
    }

    fn do_one(bank: &mut SimBank, request: Request) -> Completion {
        let now = bank.now;
        bank.submit(DISK, request, now);
        run(bank).pop().expect("one completion")
    }

    fn read(bank: &mut SimBank, start: u64, length: u64) -> Vec<u8> {
        let buf = Buf::zeroed(length as usize * if start < 16 { 512 } else { 64 });
        let completion = do_one(bank, Request::new(RequestId(0), extent(start, length), Op::Read(buf)));
        assert_eq!(completion.result, Ok(()));
        let Op::Read(buf) = completion.op else { panic!("a read comes back as a read") };
        buf.to_vec()
    }

    fn first_bytes(bank: &SimBank, start: u64, length: u64) -> Vec<u8> {
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
}
