//! Volatile write caches: a bank over a bank whose disks acknowledge early and forget when the power goes.
//!
//! A drive says that a write is done when it has it in its memory; only a flush, or a write that is forced (FUA), is a
//! promise. What was not flushed when the power goes may be there afterwards or not, each sector for itself and in no
//! order, and that is where arrays lose data that were written well: metadata that overtook what it speaks of, parity
//! without its data. So it must be had at will, on real images.
//!
//! [`Volatile`] gives some disks such a cache. Writes, zeroes and discards stay in memory and are acknowledged at once,
//! reads see them; a flush writes them down and flushes the disk below; a forced write goes down as such. The
//! cache is bounded: when it is full the oldest writes go down first, as in a drive, and new ones are acknowledged when
//! there is room again.
//!
//! [`Volatile::power_cut`] writes down what survives: for each sector, drawn from a seed, any of the versions that were
//! cached, or none. From then on no request is answered: the process is expected to end. One that ends in another
//! way (killed) takes the whole cache with it, which is the worst of the outcomes a power cut may have.
//!
//! What is on its way down never overlaps, because a disk may finish requests in any order: either the cache writes
//! some of its content down, each sector once, or forced writes pass that have no sector in common. A write that would
//! get in the way of a forced one waits for it.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use rangemap::RangeMap;

use super::fault::scrambled;
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Mark, Op, Payload, Request,
    RequestId, Sectors,
};

#[cfg(test)]
mod tests;

/// How much a disk's cache holds unless something else is said, in bytes: 64 MiB.
pub const CACHE_BYTES: u64 = 64 << 20;

/// A write counts for at least this many bytes, so that the number of them is bounded, too.
const WRITE_BYTES_MIN: u64 = 4096;

/// Requests of our own have numbers from here on; the layers above count from zero.
const OWN: u64 = 1 << 63;

/// A bank some of whose disks have a volatile write cache. Its devices are those of the bank below.
#[derive(Clone, Debug)]
pub struct Volatile<B> {
    inner: B,
    caches: BTreeMap<DeviceId, Cache>,
    /// Reads that went down, and what caches have of their sectors.
    reads: BTreeMap<RequestId, (Extent, Vec<Cached>)>,
    done: Vec<(DeviceId, Completion)>,
    own_total: u64,
    /// What a power cut leaves is still to be written down, by disk; `None` while the power is on.
    cut: Option<BTreeMap<DeviceId, Vec<Cached>>>,
}

/// What a power cut did to one disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheLoss {
    /// The disk.
    pub device: DeviceId,
    /// Sectors that were written and not flushed.
    pub cached: Sectors,
    /// Those of them that have one of the versions they were given.
    pub kept: Sectors,
}

/// The cache of one disk.
#[derive(Clone, Default, Debug)]
struct Cache {
    bytes_max: u64,
    bytes: u64,
    /// What is not on the disk below, in the order it came.
    writes: BTreeMap<u64, Cached>,
    writes_total: u64,
    /// Which of them a sector reads from.
    newest: RangeMap<u64, u64>,
    /// Sectors whose versions before this one are history: a forced write came after them.
    settled: RangeMap<u64, u64>,
    /// Stored, and acknowledged when there is room.
    stored: Vec<Completion>,
    /// Forced writes that wait for their turn.
    forced: VecDeque<Request>,
    /// Forced writes on their way down.
    passing: BTreeMap<RequestId, Extent>,
    /// Writes that overlap a forced one.
    held: VecDeque<Request>,
    flushes: Vec<Request>,
    batch: Option<Batch>,
    /// What survived a power cut and is on its way down, in requests.
    surviving: usize,
    /// All of it is to go down although nobody flushes.
    is_draining: bool,
    /// Something acknowledged could not be written down: told at the next flush, once.
    lost: Option<IoError>,
}

/// What is being written down.
#[derive(Clone, Debug)]
struct Batch {
    /// Each sector once, with the write it is of.
    pieces: Vec<(Extent, u64)>,
    /// The cache's writes before this one are in it.
    end: u64,
    in_flight: usize,
    result: Result<(), IoError>,
    flushes: Vec<Request>,
    is_flushing: bool,
}

/// A write, or a part of one.
#[derive(Clone, Debug)]
struct Cached {
    extent: Extent,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Stored(Bytes),
    Zeroes,
    Discarded,
}

impl<B: Bank> Volatile<B> {
    /// The bank, without caches.
    pub fn new(inner: B) -> Volatile<B> {
        Volatile { inner, caches: BTreeMap::new(), reads: BTreeMap::new(), done: Vec::new(), own_total: 0, cut: None }
    }

    /// Gives a disk a cache of `bytes_max`. To be called before the disk's first request.
    pub fn give_cache(&mut self, device: DeviceId, bytes_max: u64) {
        self.caches.insert(device, Cache { bytes_max, ..Cache::default() });
    }

    /// Whether a disk has a cache.
    pub fn has_cache(&self, device: DeviceId) -> bool {
        self.caches.contains_key(&device)
    }

    /// The bank below.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// The bank below, to be changed without passing the caches.
    pub fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// The bank below; what the caches hold is lost.
    pub fn into_inner(self) -> B {
        self.inner
    }

    /// Begins to write down all that the caches hold, as a drive does while its power is on. Nothing more should be
    /// submitted until [`Volatile::is_empty`].
    pub fn write_down(&mut self, now: Instant) {
        let devices: Vec<DeviceId> = self.caches.keys().copied().collect();
        for device in devices {
            self.cache(device).is_draining = true;
            self.pump(device, now);
        }
    }

    /// Whether no cache holds anything and nothing is on its way down.
    pub fn is_empty(&self) -> bool {
        self.caches.values().all(|cache| cache.writes.is_empty() && cache.is_idle())
    }

    /// The power goes, for all disks at once: begins to write down what is left of what was not flushed, by a draw from
    /// `seed`, and gives what became of each cache. No request is answered any more; when [`Volatile::is_cut`] says
    /// so, the images are as the power cut left them.
    pub fn power_cut(&mut self, seed: u64, now: Instant) -> Vec<CacheLoss> {
        let mut losses = Vec::new();
        let mut survivors = BTreeMap::new();
        for (device, cache) in &mut self.caches {
            let unit = self.inner.limits(*device).logical_block;
            let left = cache.survivors(unit, scrambled(seed, device.0.into()));
            let cached = Sectors(cache.newest.iter().map(|(sectors, _)| sectors.end - sectors.start).sum());
            let kept = Sectors(left.iter().map(|piece| piece.extent.length.0).sum());
            losses.push(CacheLoss { device: *device, cached, kept });
            survivors.insert(*device, left);
            cache.forget_waiting();
        }
        self.reads.clear();
        self.done.clear();
        self.cut = Some(survivors);
        let devices: Vec<DeviceId> = self.caches.keys().copied().collect();
        devices.into_iter().for_each(|device| self.write_survivors(device, now));
        losses
    }

    /// Whether the power is gone and all that survived is written down.
    pub fn is_cut(&self) -> bool {
        self.cut.as_ref().is_some_and(BTreeMap::is_empty) && self.caches.values().all(Cache::is_idle)
    }

    fn cache(&mut self, device: DeviceId) -> &mut Cache {
        self.caches.get_mut(&device).expect("the disk has a cache")
    }

    /// Hands down a request of our own.
    fn submit_own(&mut self, device: DeviceId, piece: Option<Cached>, now: Instant) {
        let id = RequestId(OWN + self.own_total);
        self.own_total += 1;
        let request = match piece {
            Some(Cached { extent, content }) => Request::new(id, extent, content.op()),
            None => Request::flush(id),
        };
        self.inner.submit(device, request, now);
    }

    fn take(&mut self, device: DeviceId, mut request: Request, now: Instant) {
        let cache = self.caches.get_mut(&device).expect("the disk has a cache");
        match &mut request.op {
            Op::Read(buf) => {
                let there = cache.there(request.extent);
                if there.is_empty() {
                    return self.inner.submit(device, request, now);
                }
                let cached: u64 = there.iter().map(|piece| piece.extent.length.0).sum();
                if cached < request.extent.length.0 {
                    self.reads.insert(request.id, (request.extent, there));
                    return self.inner.submit(device, request, now);
                }
                there.iter().for_each(|piece| piece.copy_to(buf, request.extent));
                self.done.push((device, request.complete(Ok(()))));
            }
            Op::Flush => cache.flushes.push(request),
            Op::Write(_, Durability::Fua) | Op::WriteZeroes(Durability::Fua) => cache.forced.push_back(request),
            _ if cache.must_wait(request.extent) => cache.held.push_back(request),
            _ => cache.store(request),
        }
        self.pump(device, now);
    }

    /// Starts what can be started.
    fn pump(&mut self, device: DeviceId, now: Instant) {
        let cache = self.caches.get_mut(&device).expect("the disk has a cache");
        if cache.bytes <= cache.bytes_max {
            self.done.extend(cache.stored.drain(..).map(|completion| (device, completion)));
        }
        if cache.batch.is_some() {
            return;
        }
        if !cache.wants_batch() {
            return self.pass_forced(device, now);
        }
        if !cache.passing.is_empty() {
            return;
        }
        let batch = cache.new_batch();
        let pieces: Vec<Cached> = batch.pieces.iter().map(|(extent, of)| cache.writes[of].part(*extent)).collect();
        let is_nothing = pieces.is_empty();
        cache.batch = Some(batch);
        pieces.into_iter().for_each(|piece| self.submit_own(device, Some(piece), now));
        if is_nothing {
            self.go_on(device, now);
        }
    }

    /// Hands down the forced writes that are in nobody's way.
    fn pass_forced(&mut self, device: DeviceId, now: Instant) {
        let cache = self.caches.get_mut(&device).expect("the disk has a cache");
        for request in std::mem::take(&mut cache.forced) {
            let is_in_the_way = cache.passing.values().chain(cache.forced.iter().map(|earlier| &earlier.extent));
            if is_in_the_way.into_iter().any(|earlier| earlier.overlaps(request.extent)) {
                cache.forced.push_back(request);
            } else {
                cache.passing.insert(request.id, request.extent);
                self.inner.submit(device, request, now);
            }
        }
    }

    /// Nothing of the batch is on its way any more.
    fn go_on(&mut self, device: DeviceId, now: Instant) {
        let is_off = self.cut.is_some();
        let cache = self.caches.get_mut(&device).expect("the disk has a cache");
        let batch = cache.batch.as_mut().expect("something came back");
        if !batch.flushes.is_empty() && !batch.is_flushing && batch.result.is_ok() && !is_off {
            batch.is_flushing = true;
            batch.in_flight = 1;
            return self.submit_own(device, None, now);
        }
        let batch = cache.batch.take().expect("it was there");
        cache.forget(&batch);
        let mut result = batch.result;
        if batch.flushes.is_empty() {
            cache.lost = cache.lost.or(result.err());
        } else if let Some(lost) = cache.lost.take() {
            result = Err(lost);
        }
        let flushes = batch.flushes.into_iter().map(|flush| (device, flush.complete(result)));
        self.done.extend(flushes);
        if !is_off {
            // First what waited for the batch: an endless row of flushes must not keep it waiting.
            self.pass_forced(device, now);
            self.pump(device, now);
        }
    }

    /// A request came back from below.
    fn came_back(&mut self, device: DeviceId, mut completion: Completion, now: Instant) {
        let Some(cache) = self.caches.get_mut(&device) else { return self.done.push((device, completion)) };
        if completion.id.0 >= OWN {
            match &mut cache.batch {
                Some(batch) => {
                    batch.in_flight -= 1;
                    batch.result = batch.result.and(completion.result);
                    if batch.in_flight == 0 {
                        self.go_on(device, now);
                    }
                }
                None => cache.surviving -= 1,
            }
        } else if let Some(extent) = cache.passing.remove(&completion.id) {
            if completion.result.is_ok() {
                cache.settle(extent);
            }
            cache.release_held();
            self.done.push((device, completion));
            if self.cut.is_none() {
                self.pump(device, now);
            }
        } else {
            if let (Some((extent, there)), Op::Read(buf)) = (self.reads.remove(&completion.id), &mut completion.op) {
                there.iter().for_each(|piece| piece.copy_to(buf, extent));
            }
            self.done.push((device, completion));
        }
    }

    /// Writes down what a power cut left, once nothing else is on its way that could come after it.
    fn write_survivors(&mut self, device: DeviceId, now: Instant) {
        let Some(cut) = &mut self.cut else { return };
        if self.caches[&device].is_idle()
            && let Some(left) = cut.remove(&device)
        {
            self.cache(device).surviving = left.len();
            left.into_iter().for_each(|piece| self.submit_own(device, Some(piece), now));
        }
    }
}

impl Cache {
    fn store(&mut self, request: Request) {
        let number = self.writes_total;
        self.writes_total += 1;
        let write = Cached { extent: request.extent, content: Content::of(&request.op) };
        self.bytes += write.cost();
        self.writes.insert(number, write);
        self.newest.insert(request.extent.range(), number);
        self.stored.push(request.complete(Ok(())));
    }

    /// What there is of `extent`.
    fn there(&self, extent: Extent) -> Vec<Cached> {
        let pieces = self.newest.overlapping(extent.range());
        pieces.map(|(sectors, number)| self.writes[number].part(common(extent, sectors))).collect()
    }

    /// Whether a write would meet a forced one, or overtake another that waits.
    fn must_wait(&self, extent: Extent) -> bool {
        let waiting = self.forced.iter().chain(&self.held).map(|request| &request.extent);
        self.passing.values().chain(waiting).any(|other| other.overlaps(extent))
    }

    fn release_held(&mut self) {
        for request in std::mem::take(&mut self.held) {
            match self.must_wait(request.extent) {
                true => self.held.push_back(request),
                false => self.store(request),
            }
        }
    }

    fn wants_batch(&self) -> bool {
        self.bytes > self.bytes_max || !self.flushes.is_empty() || (self.is_draining && !self.writes.is_empty())
    }

    /// What is to go down now: everything, for a flush; else the oldest writes, until a quarter of the cache is free.
    fn new_batch(&mut self) -> Batch {
        let flushes = std::mem::take(&mut self.flushes);
        let mut end = self.writes_total;
        if flushes.is_empty() && !self.is_draining {
            let mut left = self.bytes;
            let mut oldest = self.writes.iter();
            while left > self.bytes_max / 4 * 3
                && let Some((number, write)) = oldest.next()
            {
                left -= write.cost();
                end = number + 1;
            }
        }
        let newest = self.newest.iter().filter(|(_, number)| **number < end);
        let pieces: Vec<(Extent, u64)> = newest.map(|(sectors, number)| (extent_of(sectors), *number)).collect();
        Batch { in_flight: pieces.len(), pieces, end, result: Ok(()), flushes, is_flushing: false }
    }

    /// Forgets what a batch wrote down.
    fn forget(&mut self, batch: &Batch) {
        for (extent, of) in &batch.pieces {
            let still: Vec<Extent> = self
                .newest
                .overlapping(extent.range())
                .filter(|(_, number)| *number == of)
                .map(|(sectors, _)| common(*extent, sectors))
                .collect();
            still.into_iter().for_each(|extent| self.newest.remove(extent.range()));
        }
        let left = self.writes.split_off(&batch.end);
        let gone = std::mem::replace(&mut self.writes, left);
        self.bytes -= gone.values().map(Cached::cost).sum::<u64>();
        if self.writes.is_empty() {
            self.settled.clear();
        }
    }

    /// A later version of `extent` than all here is on the disk.
    fn settle(&mut self, extent: Extent) {
        self.newest.remove(extent.range());
        self.settled.insert(extent.range(), self.writes_total);
    }

    /// No one waits any more.
    fn forget_waiting(&mut self) {
        self.stored.clear();
        self.forced.clear();
        self.held.clear();
        self.flushes.clear();
    }

    /// Nothing is on its way down.
    fn is_idle(&self) -> bool {
        self.batch.is_none() && self.passing.is_empty() && self.surviving == 0
    }

    /// What a power cut leaves: for each unit one of its versions, or none.
    fn survivors(&self, unit: Sectors, seed: u64) -> Vec<Cached> {
        let mut versions: Vec<(u64, u64)> = Vec::new();
        for (number, write) in &self.writes {
            let units = write.extent.start.0 / unit.0..write.extent.end().0 / unit.0;
            let is_settled = |at: &u64| self.settled.get(&(at * unit.0)).is_some_and(|first| number < first);
            versions.extend(units.filter(|at| !is_settled(at)).map(|at| (at, *number)));
        }
        versions.sort_unstable();
        let mut runs: Vec<(Extent, u64)> = Vec::new();
        for versions in versions.chunk_by(|a, b| a.0 == b.0) {
            let at = versions[0].0;
            let draw = scrambled(seed, at) % (versions.len() as u64 + 1);
            let Some((_, number)) = versions.get(draw as usize) else { continue };
            match runs.last_mut() {
                Some((run, of)) if of == number && run.end().0 == at * unit.0 => run.length += unit,
                _ => runs.push((Extent::new(Lba(at * unit.0), unit), *number)),
            }
        }
        runs.into_iter().map(|(extent, number)| self.writes[&number].part(extent)).collect()
    }
}

impl Cached {
    /// What of it lies in `extent`, which is a part of its own.
    fn part(&self, extent: Extent) -> Cached {
        let content = match &self.content {
            Content::Stored(bytes) => {
                let grain = bytes.len() / self.extent.length.0 as usize;
                let from = (extent.start - self.extent.start).0 as usize * grain;
                Content::Stored(bytes.slice(from..from + extent.length.0 as usize * grain))
            }
            nothing => nothing.clone(),
        };
        Cached { extent, content }
    }

    /// What it takes of the cache, in bytes.
    fn cost(&self) -> u64 {
        match &self.content {
            Content::Stored(bytes) => WRITE_BYTES_MIN.max(bytes.len() as u64),
            Content::Zeroes | Content::Discarded => WRITE_BYTES_MIN,
        }
    }

    /// Puts it into a buffer for `whole`.
    fn copy_to(&self, buf: &mut Buf, whole: Extent) {
        let grain = buf.len() / whole.length.0 as usize;
        let mut skip = (self.extent.start - whole.start).0 as usize * grain;
        let mut left = self.extent.length.0 as usize * grain;
        let mut done = 0;
        for part in buf.parts_mut() {
            let from = skip.min(part.len());
            let there = &mut part[from..];
            let now = there.len().min(left);
            match &self.content {
                Content::Stored(bytes) => there[..now].copy_from_slice(&bytes[done..done + now]),
                Content::Zeroes | Content::Discarded => there[..now].fill(0),
            }
            (skip, left, done) = (skip - from, left - now, done + now);
        }
    }
}

impl Content {
    /// What a write stores. A copy of the bytes, as a drive has its own: a slice of a large buffer would keep all of it.
    fn of(op: &Op) -> Content {
        match op {
            Op::Write(payload, _) => {
                let mut buf = Buf::stale(payload.len());
                buf.copy_from_payload(payload);
                Content::Stored(buf.into_bytes())
            }
            Op::WriteZeroes(_) => Content::Zeroes,
            Op::Discard => Content::Discarded,
            Op::Read(_) | Op::Flush => panic!("a {} stores nothing", op.name()),
        }
    }

    fn op(self) -> Op {
        match self {
            Content::Stored(bytes) => Op::Write(Payload::from(bytes), Durability::Volatile),
            Content::Zeroes => Op::WriteZeroes(Durability::Volatile),
            Content::Discarded => Op::Discard,
        }
    }
}

fn extent_of(sectors: &std::ops::Range<u64>) -> Extent {
    Extent::new(Lba(sectors.start), Sectors(sectors.end - sectors.start))
}

/// Those of `sectors` that lie in `extent`.
fn common(extent: Extent, sectors: &std::ops::Range<u64>) -> Extent {
    let (start, end) = (extent.start.0.max(sectors.start), extent.end().0.min(sectors.end));
    Extent::new(Lba(start), Sectors(end - start))
}

impl<B: Bank> Bank for Volatile<B> {
    fn limits(&self, device: DeviceId) -> Limits {
        self.inner.limits(device)
    }

    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        assert!(request.id.0 < OWN, "{:?} is one of the numbers that caches use", request.id);
        if self.cut.is_some() {
            return;
        }
        if !self.has_cache(device) || self.inner.limits(device).refuse(&request).is_some() {
            return self.inner.submit(device, request, now);
        }
        self.take(device, request, now);
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        if self.caches.is_empty() && self.cut.is_none() {
            return self.inner.poll(now, done);
        }
        let before = done.len();
        self.inner.poll(now, done);
        for (device, completion) in done.split_off(before) {
            self.came_back(device, completion, now);
        }
        if self.cut.is_some() {
            self.done.clear();
            let devices: Vec<DeviceId> = self.caches.keys().copied().collect();
            devices.into_iter().for_each(|device| self.write_survivors(device, now));
        }
        done.append(&mut self.done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.done.is_empty() { self.inner.next_deadline() } else { Some(Instant::START) }
    }

    fn lend(&mut self, device: DeviceId, extent: Extent) -> Option<Bytes> {
        if self.has_cache(device) || self.cut.is_some() { None } else { self.inner.lend(device, extent) }
    }

    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        if self.has_cache(device) || self.cut.is_some() { None } else { self.inner.window(device, extent) }
    }

    fn vouches(&self, device: DeviceId) -> bool {
        self.inner.vouches(device)
    }

    fn mark(&mut self, mark: Mark) {
        self.inner.mark(mark);
    }
}
