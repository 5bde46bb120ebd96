//! Faults: a bank over a bank that breaks what passes through it, by order.
//!
//! Disks fail in more ways than by stopping. Sectors become unreadable until they are written again,
//! writes are torn, lost, or land elsewhere, bits rot, a flush is a lie, an answer comes late or
//! never. An array is as good as its behaviour under each of these, so each must be had at will, at
//! a chosen place and moment, and again tomorrow.
//!
//! [`Fault`] holds a list of faults for each device of the bank below it. A request of a device
//! without faults goes straight down. It reads no clock and draws no lots: the same faults and the
//! same requests give the same answers, and a clone has the same future. What went down is truth:
//! flipped bits and unreadable sectors exist only in this layer, and are gone when it is disarmed. (A
//! write that was corrupted, torn, lost or misdirected did go down like that.)
//!
//! Several faults on one request: a device that has stopped answers before all others; delays add
//! up, flips too; of the faults that decide how a request ends, the one armed first does. A request
//! the device would refuse anyway (beyond its end, misaligned) is left to it.

mod spec;
mod strike;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rangemap::RangeSet;

use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Mark, Op, Payload, Request,
    RequestId, Sectors,
};

use strike::Strikes;

pub use spec::{FaultKind, FaultMisfit, FaultSpec, Trigger};
pub use strike::Strike;
pub use text::{FAULT_KINDS, FaultTextError};

/// A bank whose devices have faults. Its devices are those of the bank below.
#[derive(Clone, Debug)]
pub struct Fault<B> {
    inner: B,
    armed: Vec<ArmedFault>,
    next_id: u64,
    /// Requests below whose completions are not to be handed on as they come.
    treated: BTreeMap<RequestId, Treated>,
    /// Completions by the moment they are due; the number keeps those of one moment in order.
    held: BTreeMap<(Instant, u64), (DeviceId, Completion)>,
    held_total: u64,
    /// Completions that only disarming brings back.
    withheld: Vec<(FaultId, DeviceId, Completion)>,
    strikes: Strikes,
}

/// An armed fault, for as long as the layer lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FaultId(pub u64);

/// A fault and what it has done so far.
#[derive(Clone, Debug)]
pub struct ArmedFault {
    /// Its name here.
    pub id: FaultId,
    /// The device that has it.
    pub device: DeviceId,
    /// What it is.
    pub spec: FaultSpec,
    /// Requests it has struck.
    pub strikes: u64,
    armed_at: Instant,
    /// Requests of the device since it was armed.
    requests: u64,
    /// Where it still is: its range less what writes have mended.
    sectors: RangeSet<u64>,
    silent_until: Option<Instant>,
}

/// What becomes of one request.
#[derive(Default)]
struct Treatment {
    fate: Fate,
    timing: Timing,
    flips: Vec<Flip>,
    /// Of a write on its way down.
    corruption: Vec<Flip>,
    flush_lies: bool,
}

#[derive(Default)]
enum Fate {
    #[default]
    Pass,
    /// Nothing goes down; this is the answer.
    Answer(Result<(), IoError>),
    /// The first sectors go down; this is the answer if they succeed.
    Torn(Sectors, Result<(), IoError>),
    /// It goes down to another address.
    Misdirected(Lba),
}

/// How late a completion is.
#[derive(Clone, Copy, Default, Debug)]
struct Timing {
    delay: Duration,
    silence: Option<Silence>,
}

#[derive(Clone, Copy, Debug)]
struct Silence {
    by: FaultId,
    until: Option<Instant>,
}

/// The same bits of every sector of an extent.
#[derive(Clone, Debug)]
struct Flip {
    extent: Extent,
    bits: u32,
    seed: u64,
    grain: u32,
}

/// A request that went down, and what its completion becomes.
#[derive(Clone, Debug)]
struct Treated {
    /// What was submitted, where something else went down.
    submitted: Option<Op>,
    start: Lba,
    success: Result<(), IoError>,
    timing: Timing,
    flips: Vec<Flip>,
}

impl<B: Bank> Fault<B> {
    /// The bank, without faults.
    pub fn new(inner: B) -> Fault<B> {
        Fault {
            inner,
            armed: Vec::new(),
            next_id: 0,
            treated: BTreeMap::new(),
            held: BTreeMap::new(),
            held_total: 0,
            withheld: Vec::new(),
            strikes: Strikes::default(),
        }
    }

    /// The bank below.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// The bank below, to be changed without passing the faults.
    pub fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// The bank below, without the faults.
    pub fn into_inner(self) -> B {
        self.inner
    }

    /// Gives `device` a fault. It concerns requests submitted from now on. Fails, and changes
    /// nothing, where the device cannot have it.
    pub fn arm(&mut self, device: DeviceId, spec: FaultSpec, now: Instant) -> Result<FaultId, FaultMisfit> {
        let limits = self.inner.limits(device);
        spec.check(&limits)?;
        let whole = Extent::new(Lba(0), limits.capacity).range();
        let range = spec.range.map_or(whole, Extent::range);
        let id = FaultId(self.next_id);
        self.next_id += 1;
        self.armed.push(ArmedFault {
            id,
            device,
            spec,
            strikes: 0,
            armed_at: now,
            requests: 0,
            sectors: (!range.is_empty()).then_some(range).into_iter().collect(),
            silent_until: None,
        });
        Ok(id)
    }

    /// Takes a fault away and says what it was; `None` if it is not there. Completions it withholds
    /// come at the next poll; those it only delays keep their time.
    pub fn disarm(&mut self, id: FaultId) -> Option<FaultSpec> {
        let index = self.armed.iter().position(|fault| fault.id == id)?;
        for treated in self.treated.values_mut() {
            treated.timing.silence.take_if(|silence| silence.by == id);
        }
        let (freed, still) = std::mem::take(&mut self.withheld).into_iter().partition(|(by, ..)| *by == id);
        self.withheld = still;
        let freed: Vec<(FaultId, DeviceId, Completion)> = freed;
        for (_, device, completion) in freed {
            self.hold(device, completion, Instant::START);
        }
        Some(self.armed.remove(index).spec)
    }

    /// Takes every fault away.
    pub fn clear(&mut self) {
        while let Some(fault) = self.armed.first() {
            self.disarm(fault.id);
        }
    }

    /// The power went: requests under way are gone. The faults stay.
    pub fn forget_requests(&mut self) {
        self.treated.clear();
        self.held.clear();
        self.withheld.clear();
    }

    /// The faults in the order they were armed, spent ones too.
    pub fn list(&self) -> &[ArmedFault] {
        &self.armed
    }

    /// Whether `device` has a fault, spent or not.
    pub fn is_armed(&self, device: DeviceId) -> bool {
        self.armed.iter().any(|fault| fault.device == device)
    }

    /// From now on every strike is kept until it is taken.
    pub fn keep_strikes(&mut self) {
        self.strikes.keep();
    }

    /// The strikes since the last look at them; they stay until they are taken.
    pub fn unseen_strikes(&mut self) -> &[Strike] {
        self.strikes.unseen()
    }

    /// The strikes since they were last taken, in order; none unless they are kept.
    pub fn take_strikes(&mut self) -> Vec<Strike> {
        self.strikes.take()
    }

    fn hold(&mut self, device: DeviceId, completion: Completion, due: Instant) {
        self.held.insert((due, self.held_total), (device, completion));
        self.held_total += 1;
    }

    /// Keeps a completion that is there at `now` until its time.
    fn finish(&mut self, device: DeviceId, completion: Completion, timing: Timing, now: Instant) {
        let due = now + timing.delay;
        match timing.silence {
            None => self.hold(device, completion, due),
            Some(Silence { until: Some(until), .. }) => self.hold(device, completion, due.max(until)),
            Some(Silence { by, until: None }) => self.withheld.push((by, device, completion)),
        }
    }

    fn carry_out(&mut self, device: DeviceId, request: Request, treatment: Treatment, now: Instant) {
        let Treatment { fate, timing, flips, corruption, flush_lies } = treatment;
        let (id, start) = (request.id, request.extent.start);
        let altered = flush_lies || !corruption.is_empty();
        let (mut down, submitted, success) = match fate {
            Fate::Answer(result) => return self.finish(device, request.complete(result), timing, now),
            Fate::Pass if !altered => (request, None, Ok(())),
            Fate::Pass => (request.clone(), Some(request.op), Ok(())),
            Fate::Torn(kept, answer) => (first_sectors(&request, kept), Some(request.op), answer),
            Fate::Misdirected(landing) => {
                let extent = Extent::new(landing, request.extent.length);
                match request.op {
                    Op::Read(buf) => (Request { id, extent, op: Op::Read(buf) }, None, Ok(())),
                    write => (Request { id, extent, op: write.clone() }, Some(write), Ok(())),
                }
            }
        };
        if let Op::Write(payload, _) = &mut down.op
            && !corruption.is_empty()
        {
            *payload = corrupted(payload, &corruption, start);
        }
        if flush_lies && let Op::Write(_, durability) | Op::WriteZeroes(durability) = &mut down.op {
            *durability = Durability::Volatile;
        }
        if down.op.is_write() {
            for fault in self.armed.iter_mut().filter(|fault| fault.device == device) {
                fault.mend(down.extent, now);
            }
        }
        let as_it_comes = submitted.is_none() && flips.is_empty() && timing.delay.is_zero() && timing.silence.is_none();
        if !as_it_comes {
            let earlier = self.treated.insert(id, Treated { submitted, start, success, timing, flips });
            assert!(earlier.is_none(), "{id:?} is in flight twice");
        }
        self.inner.submit(device, down, now);
    }
}

impl<B: Bank> Bank for Fault<B> {
    fn limits(&self, device: DeviceId) -> Limits {
        self.inner.limits(device)
    }

    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        if !self.is_armed(device) {
            return self.inner.submit(device, request, now);
        }
        let limits = self.inner.limits(device);
        let treatment = treat(&mut self.armed, &mut self.strikes, device, &request, &limits, now);
        self.carry_out(device, request, treatment, now);
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        let before = done.len();
        self.inner.poll(now, done);
        if !self.treated.is_empty() {
            for (device, completion) in done.split_off(before) {
                match self.treated.remove(&completion.id) {
                    None => done.push((device, completion)),
                    Some(treated) => {
                        let timing = treated.timing;
                        self.finish(device, treated.completion(completion), timing, now);
                    }
                }
            }
        }
        while let Some(first) = self.held.first_entry().filter(|first| first.key().0 <= now) {
            done.push(first.remove());
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = self.held.first_key_value().map(|((due, _), _)| *due);
        Instant::earliest([held, self.inner.next_deadline()])
    }

    fn lend(&mut self, device: DeviceId, extent: Extent) -> Option<Bytes> {
        if self.is_armed(device) { None } else { self.inner.lend(device, extent) }
    }

    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        if self.is_armed(device) { None } else { self.inner.window(device, extent) }
    }

    fn vouches(&self, device: DeviceId) -> bool {
        self.inner.vouches(device)
    }

    fn mark(&mut self, mark: Mark) {
        self.inner.mark(mark);
    }
}

/// Decides what becomes of `request`, and counts the strikes.
fn treat(
    armed: &mut [ArmedFault],
    strikes: &mut Strikes,
    device: DeviceId,
    request: &Request,
    limits: &Limits,
    now: Instant,
) -> Treatment {
    let mut treatment = Treatment::default();
    let mut stopped = false;
    for fault in armed.iter_mut().filter(|fault| fault.device == device) {
        fault.requests += 1;
        let fatal = fault.spec.kind == FaultKind::FailStop && (fault.strikes > 0 || fault.is_touched_by(request));
        if fatal && fault.is_live(now) {
            strikes.note(fault, now, || fault.felt_at(request, limits));
            fault.strikes += 1;
            stopped = true;
        }
    }
    if stopped {
        treatment.fate = Fate::Answer(Err(IoError::Offline));
        return treatment;
    }
    if limits.refuse(request).is_some() {
        return treatment;
    }
    let before = strikes.len();
    for fault in armed.iter_mut().filter(|fault| fault.device == device) {
        if fault.is_live(now) && fault.is_touched_by(request) && fault.strike(request, limits, now, &mut treatment) {
            strikes.note(fault, now, || fault.felt_at(request, limits));
            fault.strikes += 1;
        }
    }
    strikes.follow(before, &treatment.fate, request.extent);
    treatment
}

impl ArmedFault {
    /// Whether its moment has come and it is not spent.
    fn is_live(&self, now: Instant) -> bool {
        let begun = match self.spec.trigger {
            Trigger::Armed => true,
            Trigger::After(wait) => now >= self.armed_at + wait,
            Trigger::AtIo(first) => self.requests >= first,
        };
        let times = match self.spec.kind {
            FaultKind::Transient(times) => Some(times),
            _ => self.spec.times,
        };
        begun && times.is_none_or(|times| self.strikes < times) && self.silent_until.is_none_or(|until| now < until)
    }

    fn is_touched_by(&self, request: &Request) -> bool {
        match request.op {
            Op::Flush => self.spec.range.is_none(),
            _ => !request.extent.range().is_empty() && self.sectors.overlaps(&request.extent.range()),
        }
    }

    /// Adds what this fault does to `request`; false if it does nothing to it.
    fn strike(&mut self, request: &Request, limits: &Limits, now: Instant, treatment: &mut Treatment) -> bool {
        let (is_read, is_write) = (matches!(request.op, Op::Read(_)), request.op.is_write());
        let fate = match self.spec.kind {
            FaultKind::Latency(delay) => {
                treatment.timing.delay += delay;
                return true;
            }
            FaultKind::Hang(duration) => {
                let first = self.silent_until.or(duration.map(|duration| now + duration));
                self.silent_until = first;
                treatment.timing.silence.get_or_insert(Silence { by: self.id, until: first });
                return true;
            }
            FaultKind::Bitflip { bits, seed, .. } if is_read => {
                let grain = request.grain().unwrap_or(limits.grain);
                treatment.flips.extend(self.there(request.extent).map(|extent| Flip { extent, bits, seed, grain }));
                return true;
            }
            FaultKind::CorruptWrite { bits, seed } => {
                let Op::Write(..) = request.op else { return false };
                let extent = self.flipped_sector(request.extent, seed);
                let (seed, grain) = (scrambled(seed, self.strikes), request.grain().unwrap_or(limits.grain));
                treatment.corruption.push(Flip { extent, bits, seed, grain });
                return true;
            }
            FaultKind::FlushLie => match request.op {
                Op::Flush => Fate::Answer(Ok(())),
                Op::Write(_, Durability::Fua) | Op::WriteZeroes(Durability::Fua) => {
                    treatment.flush_lies = true;
                    return true;
                }
                _ => return false,
            },
            FaultKind::FlushFail => match request.op {
                Op::Flush | Op::Write(_, Durability::Fua) | Op::WriteZeroes(Durability::Fua) => {
                    Fate::Answer(Err(IoError::Medium))
                }
                _ => return false,
            },
            FaultKind::NoSpace => match request.op {
                Op::Write(..) | Op::WriteZeroes(_) => Fate::Answer(Err(IoError::NoSpace)),
                _ => return false,
            },
            FaultKind::Medium { .. } if is_read => Fate::Answer(Err(IoError::Medium)),
            FaultKind::WriteMedium if is_write => Fate::Answer(Err(IoError::Medium)),
            FaultKind::Transient(_) if is_read || is_write => Fate::Answer(Err(IoError::Medium)),
            FaultKind::Torn(kept) if is_write => torn(request, kept, limits, Err(IoError::Medium)),
            FaultKind::TornSilent(kept) if is_write => torn(request, kept, limits, Ok(())),
            FaultKind::Lost if is_write => Fate::Answer(Ok(())),
            FaultKind::Misdirected(distance) if is_write => match landing(request.extent, distance, limits) {
                Some(landing) => Fate::Misdirected(landing),
                None => Fate::Answer(Ok(())),
            },
            FaultKind::MisdirectedRead(distance) if is_read => match landing(request.extent, distance, limits) {
                Some(landing) => Fate::Misdirected(landing),
                None => return false,
            },
            FaultKind::ReadOnly if is_write => Fate::Answer(Err(IoError::ReadOnly)),
            _ => return false,
        };
        let decides = matches!(treatment.fate, Fate::Pass) && !matches!(fate, Fate::Pass);
        if decides {
            treatment.fate = fate;
        }
        decides
    }

    /// Those of the sectors of `extent` that have it.
    fn there(&self, extent: Extent) -> impl Iterator<Item = Extent> {
        self.sectors.overlapping(extent.range()).map(move |sectors| {
            let (start, end) = (sectors.start.max(extent.start.0), sectors.end.min(extent.end().0));
            Extent::new(Lba(start), Sectors(end - start))
        })
    }

    /// The sector of a write that the next strike corrupts.
    fn flipped_sector(&self, extent: Extent, seed: u64) -> Extent {
        let sectors: u64 = self.there(extent).map(|piece| piece.length.0).sum();
        let chosen = (scrambled(seed, self.strikes) % sectors) as usize;
        let sector = self.there(extent).flat_map(Extent::range).nth(chosen);
        Extent::new(Lba(sector.expect("it is one of them")), Sectors(1))
    }

    /// Where the next strike on `request` is felt, if no other fault has a part in it.
    fn felt_at(&self, request: &Request, limits: &Limits) -> Vec<Extent> {
        let extent = request.extent;
        match self.spec.kind {
            FaultKind::Medium { .. } | FaultKind::Bitflip { .. } => self.there(extent).collect(),
            FaultKind::CorruptWrite { seed, .. } => vec![self.flipped_sector(extent, seed)],
            FaultKind::Torn(kept) | FaultKind::TornSilent(kept) => {
                let kept = kept.round_down(limits.logical_block);
                vec![Extent::new(extent.start + kept, extent.length - kept)]
            }
            FaultKind::Misdirected(distance) => {
                let landing = landing(extent, distance, limits).map(|landing| Extent::new(landing, extent.length));
                [extent].into_iter().chain(landing).collect()
            }
            _ => Vec::from_iter((extent.length > Sectors::ZERO).then_some(extent)),
        }
    }

    /// A write stored `extent` anew.
    fn mend(&mut self, extent: Extent, now: Instant) {
        if self.spec.kind.is_mended_by_writes() && self.is_live(now) && !extent.range().is_empty() {
            self.sectors.remove(extent.range());
        }
    }
}

fn torn(request: &Request, kept: Sectors, limits: &Limits, answer: Result<(), IoError>) -> Fate {
    let kept = kept.round_down(limits.logical_block);
    match kept {
        _ if kept >= request.extent.length => Fate::Pass,
        Sectors::ZERO => Fate::Answer(answer),
        _ => Fate::Torn(kept, answer),
    }
}

/// Where what was meant for `extent` begins; `None` if some of it would lie outside the device.
fn landing(extent: Extent, distance: i64, limits: &Limits) -> Option<Lba> {
    let last_start = limits.capacity - extent.length;
    extent.start.0.checked_add_signed(distance).filter(|landing| *landing <= last_start.0).map(Lba)
}

/// `payload` with its flips; its first sector is `start`.
fn corrupted(payload: &Payload, flips: &[Flip], start: Lba) -> Payload {
    let mut buf = Buf::stale(payload.len());
    buf.copy_from_payload(payload);
    flips.iter().for_each(|flip| flip.apply(&mut buf, start));
    buf.freeze()
}

/// The part of a write that a torn one stores.
fn first_sectors(request: &Request, kept: Sectors) -> Request {
    let op = match (&request.op, request.grain()) {
        (Op::Write(payload, durability), Some(grain)) => Op::Write(payload.cut(0..kept.at_grain(grain)), *durability),
        (other, _) => other.clone(),
    };
    Request::new(request.id, Extent::new(request.extent.start, kept), op)
}

impl Treated {
    /// What the completion from below is to its submitter.
    fn completion(self, mut below: Completion) -> Completion {
        if let Some(submitted) = self.submitted {
            below.op = submitted;
        }
        if below.result.is_ok() {
            below.result = self.success;
            if let Op::Read(buf) = &mut below.op {
                for flip in &self.flips {
                    flip.apply(buf, self.start);
                }
            }
        }
        below
    }
}

impl Flip {
    /// Flips the bits in a buffer whose first sector is `start`; those beyond its end are lost.
    fn apply(&self, buf: &mut Buf, start: Lba) {
        let sector_bits = u64::from(self.grain) * 8;
        for lba in self.extent.range() {
            let first = scrambled(self.seed, lba) % sector_bits;
            for bit in 0..u64::from(self.bits) {
                flip_bit(buf, (lba - start.0) * sector_bits + (first + bit) % sector_bits);
            }
        }
    }
}

fn flip_bit(buf: &mut Buf, bit: u64) {
    let mut byte = (bit / 8) as usize;
    for part in buf.parts_mut() {
        match part.get_mut(byte) {
            Some(found) => return *found ^= 1 << (bit % 8),
            None => byte -= part.len(),
        }
    }
}

/// A number that follows from both and looks like neither: splitmix64's finalizer (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014).
pub(super) fn scrambled(seed: u64, lba: u64) -> u64 {
    let mut z = seed.wrapping_add(lba.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
