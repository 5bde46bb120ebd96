//! Caches against a flat model that knows every version of every sector, over a disk that finishes in any order; and an
//! array over them whose power is cut.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::block::Limits;
use crate::disk::{Fault, FaultKind, FaultSpec, MemBank, Trigger};
use crate::raid::assemble::{AssembleOptions, Candidate, assemble};
use crate::raid::create::{NewArray, NewDevice, create};
use crate::raid::level::{Layout, Level};
use crate::raid::superblock::{DeviceUuid, SetName, SetUuid, Timestamp};
use crate::raid::sync::{Scrub, SyncOptions};
use crate::raid::{Array, VOLUME};

const DISK: DeviceId = DeviceId(0);
const THROUGH: DeviceId = DeviceId(1);
const NOW: Instant = Instant::START;

/// Memory that carries requests out one at a time, in any order.
#[derive(Clone, Debug)]
struct Lazy {
    disks: MemBank,
    waiting: Vec<(DeviceId, Request)>,
    rng: ChaCha8Rng,
}

impl Lazy {
    fn new(disks: MemBank, seed: u64) -> Lazy {
        Lazy { disks, waiting: Vec::new(), rng: ChaCha8Rng::seed_from_u64(seed) }
    }
}

impl Bank for Lazy {
    fn limits(&self, device: DeviceId) -> Limits {
        self.disks.limits(device)
    }

    fn submit(&mut self, device: DeviceId, request: Request, _now: Instant) {
        for (other, waiting) in &self.waiting {
            let overlaps = *other == device && waiting.extent.overlaps(request.extent);
            assert!(!(overlaps && waiting.op.is_write() && request.op.is_write()), "two writes of one sector");
        }
        self.waiting.push((device, request));
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        if !self.waiting.is_empty() {
            let (device, request) = self.waiting.swap_remove(self.rng.next_u64() as usize % self.waiting.len());
            self.disks.submit(device, request, now);
        }
        self.disks.poll(now, done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(NOW)
    }
}

fn extent(start: u64, length: u64) -> Extent {
    Extent::new(Lba(start), Sectors(length))
}

/// A sector that says which version it is; 0 is zeroes.
fn sector(version: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn version(sector: &[u8]) -> u64 {
    u64::from_le_bytes(sector[..8].try_into().unwrap())
}

/// A request that stored a sector, and the version it stored: zeroes are all alike.
type Stored = (u64, u64);

/// The versions of each sector since it was last made durable, oldest first; requests under way never overlap.
struct Model {
    bank: Volatile<Lazy>,
    rng: ChaCha8Rng,
    versions: Vec<Vec<Stored>>,
    next: u64,
    /// With, for a flush, the request of each sector that it has to make durable.
    under_way: Vec<(Request, Vec<u64>)>,
}

impl Model {
    fn new(sectors: u64, seed: u64) -> Model {
        let mut disks = MemBank::new();
        disks.add(Limits::of_disk(Sectors(sectors)));
        let mut bank = Volatile::new(Lazy::new(disks, seed));
        bank.give_cache(DISK, 5 * WRITE_BYTES_MIN);
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Model { bank, rng, versions: vec![vec![(0, 0)]; sectors as usize], next: 1, under_way: Vec::new() }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    /// Begins something that is in the way of nothing.
    fn begin(&mut self) {
        let start = self.below(self.versions.len() as u64);
        let length = 1 + self.below((self.versions.len() as u64 - start).min(12));
        let durability = if self.below(4) == 0 { Durability::Fua } else { Durability::Volatile };
        let mut content = Vec::new();
        let numbers: Vec<u64> = (0..length).map(|at| self.next * 100 + at).collect();
        numbers.iter().for_each(|number| content.extend_from_slice(&sector(*number)));
        let (op, stored) = match self.below(10) {
            0 => (Op::WriteZeroes(durability), vec![0; length as usize]),
            1 => (Op::Discard, vec![0; length as usize]),
            2 => (Op::Flush, Vec::new()),
            3..6 => (Op::Read(Buf::zeroed(content.len())), Vec::new()),
            _ => (Op::Write(Payload::copy_of(&content), durability), numbers),
        };
        let place = if matches!(op, Op::Flush) { extent(0, 0) } else { extent(start, length) };
        if self.under_way.iter().any(|(other, _)| other.extent.overlaps(place)) {
            return;
        }
        for (at, number) in place.range().zip(&stored) {
            self.versions[at as usize].push((self.next, *number));
        }
        let is_under_way = |at: &usize| {
            self.under_way.iter().any(|(other, _)| other.op.is_write() && other.extent.range().contains(&(*at as u64)))
        };
        let durable = match op {
            Op::Flush => (0..self.versions.len())
                .map(|at| {
                    let versions = &self.versions[at];
                    // What is under way has not been acknowledged: the one before counts.
                    versions[versions.len() - if is_under_way(&at) { 2 } else { 1 }].0
                })
                .collect(),
            _ => Vec::new(),
        };
        let request = Request::new(RequestId(self.next), place, op);
        self.next += 1;
        self.under_way.push((request.clone(), durable));
        self.bank.submit(DISK, request, NOW);
    }

    fn poll(&mut self) {
        let mut done = Vec::new();
        self.bank.poll(NOW, &mut done);
        for (_, completion) in done {
            assert_eq!(completion.result, Ok(()));
            let index = self.under_way.iter().position(|(request, _)| request.id == completion.id).expect("once");
            let (request, durable) = self.under_way.swap_remove(index);
            let range = request.extent.range();
            match completion.op {
                Op::Read(buf) => {
                    for (at, bytes) in range.zip(buf.to_vec().chunks(512)) {
                        assert_eq!(version(bytes), self.versions[at as usize].last().unwrap().1, "sector {at}");
                    }
                }
                Op::Write(_, Durability::Fua) | Op::WriteZeroes(Durability::Fua) => {
                    range.for_each(|at| keep_from(&mut self.versions[at as usize], None));
                }
                Op::Flush => {
                    for (versions, durable) in self.versions.iter_mut().zip(durable) {
                        keep_from(versions, Some(durable));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Forgets the versions before the one that is durable: the last, if none is named.
fn keep_from(versions: &mut Vec<Stored>, durable: Option<u64>) {
    let last = versions[versions.len() - 1].0;
    versions.retain(|(request, _)| *request >= durable.unwrap_or(last));
}

#[test]
fn a_power_cut_keeps_what_was_flushed_and_of_the_rest_any_version() {
    for seed in 0..300 {
        let mut model = Model::new(40, seed);
        for _ in 0..model.below(300) {
            model.begin();
            for _ in 0..model.below(4) {
                model.poll();
            }
            assert!(model.bank.caches[&DISK].writes.len() <= 5 + model.under_way.len(), "it is bounded");
        }
        for cut in 0..4 {
            let mut bank = model.bank.clone();
            let losses = bank.power_cut(cut, NOW);
            bank.submit(DISK, Request::flush(RequestId(0)), NOW);
            let mut done = Vec::new();
            while !bank.is_cut() {
                bank.poll(NOW, &mut done);
            }
            assert!(done.is_empty(), "nobody answers without power");
            assert!(losses[0].kept <= losses[0].cached);
            for (at, bytes) in bank.inner().disks.bytes(DISK).chunks(512).enumerate() {
                let (found, allowed) = (version(bytes), &model.versions[at]);
                assert!(
                    allowed.iter().any(|(_, version)| *version == found),
                    "seed {seed}, cut {cut}, sector {at}: {found} of {allowed:?}"
                );
            }
        }
    }
}

#[test]
fn written_down_it_is_empty_and_the_disk_has_the_last_of_everything() {
    for seed in 0..100 {
        let mut model = Model::new(40, seed);
        for _ in 0..100 {
            model.begin();
            model.poll();
        }
        while !model.under_way.is_empty() {
            model.poll();
        }
        model.bank.write_down(NOW);
        while !model.bank.is_empty() {
            model.poll();
        }
        for (at, bytes) in model.bank.inner().disks.bytes(DISK).chunks(512).enumerate() {
            assert_eq!(version(bytes), model.versions[at].last().unwrap().1, "seed {seed}, sector {at}");
        }
    }
}

fn mem(disks: usize, sectors: u64) -> MemBank {
    let mut bank = MemBank::new();
    for _ in 0..disks {
        bank.add(Limits::of_disk(Sectors(sectors)));
    }
    bank
}

fn do_one<B: Bank>(bank: &mut B, device: DeviceId, place: Extent, op: Op) -> Result<(), IoError> {
    bank.submit(device, Request::new(RequestId(1), place, op), NOW);
    let mut done = Vec::new();
    while done.is_empty() {
        bank.poll(NOW, &mut done);
    }
    done.remove(0).1.result
}

#[test]
fn what_each_seed_leaves_is_another_draw_and_the_same_one_again() {
    let mut bank = Volatile::new(mem(2, 64));
    bank.give_cache(DISK, CACHE_BYTES);
    let write = |version| Op::Write(Payload::copy_of(&sector(version).repeat(64)), Durability::Volatile);
    do_one(&mut bank, DISK, extent(0, 64), write(1)).unwrap();
    do_one(&mut bank, DISK, extent(0, 64), write(2)).unwrap();
    do_one(&mut bank, THROUGH, extent(0, 64), write(3)).unwrap();
    let left = |seed| {
        let mut bank = bank.clone();
        let losses = bank.power_cut(seed, NOW);
        while !bank.is_cut() {
            bank.poll(NOW, &mut Vec::new());
        }
        assert!(bank.inner().bytes(THROUGH).chunks(512).all(|bytes| version(bytes) == 3), "it has no cache");
        let versions: Vec<u64> = bank.inner().bytes(DISK).chunks(512).map(version).collect();
        let kept = versions.iter().filter(|version| **version != 0).count() as u64;
        assert_eq!(losses, [CacheLoss { device: DISK, cached: Sectors(64), kept: Sectors(kept) }]);
        versions
    };
    assert_eq!(left(7), left(7));
    assert_ne!(left(7), left(8));
    assert!((0..3).all(|version| left(7).contains(&version)), "{:?}", left(7));
}

#[test]
fn what_cannot_be_written_down_is_told_at_the_next_flush_once() {
    let mut below = Fault::new(mem(1, 1024));
    let kind = FaultKind::WriteMedium;
    let spec = FaultSpec { kind, range: Some(extent(0, 8)), trigger: Trigger::Armed, times: None };
    below.arm(DISK, spec, NOW).unwrap();
    let mut bank = Volatile::new(below);
    bank.give_cache(DISK, 2 * WRITE_BYTES_MIN);
    for at in 0..4 {
        let write = Op::Write(Payload::copy_of(&[7; 4096]), Durability::Volatile);
        assert_eq!(do_one(&mut bank, DISK, extent(8 * at, 8), write), Ok(()), "it is only cached");
    }
    assert_eq!(do_one(&mut bank, DISK, extent(0, 0), Op::Flush), Err(IoError::Medium));
    assert_eq!(do_one(&mut bank, DISK, extent(0, 0), Op::Flush), Ok(()));
    assert_eq!(bank.inner().inner().bytes(DISK)[8 * 512..32 * 512], [7; 24 * 512]);
}

const MEMBER: Sectors = Sectors(4096);

fn open(bank: Volatile<Lazy>, devices: usize) -> Array<Volatile<Lazy>> {
    let candidates = (0..devices as u32).map(DeviceId).map(|device| {
        let read = |at: Lba, length: Sectors| -> Result<Vec<u8>, IoError> {
            let from = at.bytes() as usize;
            Ok(bank.inner().disks.bytes(device)[from..from + length.bytes() as usize].to_vec())
        };
        Candidate::read(device, MEMBER, read).unwrap()
    });
    let assembly = assemble(candidates.collect(), AssembleOptions::default()).unwrap();
    Array::start(bank, assembly.geometry, assembly.start, SyncOptions::UNLIMITED)
}

fn caches_over(disks: MemBank, seed: u64, devices: usize) -> Volatile<Lazy> {
    let mut bank = Volatile::new(Lazy::new(disks, seed));
    (0..devices as u32).for_each(|device| bank.give_cache(DeviceId(device), 16 * WRITE_BYTES_MIN));
    bank
}

/// Takes what `array` does until `until` or nothing is left to do.
fn drive(array: &mut Array<Volatile<Lazy>>, now: &mut Instant, until: impl Fn(&Array<Volatile<Lazy>>) -> bool) {
    let mut done = Vec::new();
    for _ in 0..1_000_000 {
        array.poll(*now, &mut done);
        if until(array) {
            return;
        }
        let Some(due) = array.next_deadline() else { return };
        *now = due.max(*now);
    }
    panic!("no end");
}

/// The promise a file system lives by: what the volume flushed is there, sector by sector, and the rest is what it was
/// or what it was to be. After a resync the check counts nothing.
#[test]
fn an_array_whose_disks_lose_their_caches_comes_back_with_all_that_was_flushed() {
    for (seed, level) in (0..).zip([Level::Raid1, Level::Raid5, Level::Raid6, Level::Raid10].repeat(12)) {
        let (mut rng, devices) = (ChaCha8Rng::seed_from_u64(seed), 4);
        let mut disks = mem(devices, MEMBER.0);
        let new = NewArray {
            level,
            layout: Layout::default_of(level),
            chunk: Sectors(8),
            raid_disks: devices,
            bitmap: seed % 2 == 0,
            name: SetName::new("cut").unwrap(),
            uuid: SetUuid([9; 16]),
            created: Timestamp::new(1, 0),
            in_sync: true,
            devices: (0..devices).map(|at| NewDevice { size: MEMBER, uuid: DeviceUuid([at as u8; 16]) }).collect(),
        };
        for (device, member) in (0..).map(DeviceId).zip(create(&new).unwrap().1) {
            for (at, bytes) in member.writes {
                let from = at.bytes() as usize;
                disks.bytes_mut(device)[from..from + bytes.len()].copy_from_slice(&bytes);
            }
        }
        let mut versions = vec![vec![(0, 0)]; 64];
        for life in 0..3 {
            let mut array = open(caches_over(disks, seed, devices), devices);
            let mut now = NOW;
            for number in 1..60 {
                let (start, length) = (rng.next_u64() % 56, 1 + rng.next_u64() % 8);
                let op = match rng.next_u64() % 6 {
                    0 => Op::Flush,
                    _ => {
                        let number = life * 100 + number;
                        Op::Write(Payload::copy_of(&sector(number).repeat(length as usize)), Durability::Volatile)
                    }
                };
                let place = if matches!(op, Op::Flush) { extent(0, 0) } else { extent(start, length) };
                let number = life * 100 + number;
                place.range().for_each(|at| versions[at as usize].push((number, number)));
                let is_flush = matches!(op, Op::Flush);
                array.submit(VOLUME, Request::new(RequestId(number), place, op), now);
                // The last request is cut off in its midst.
                let steps = if number % 100 == 59 { rng.next_u64() % 20 } else { u64::MAX };
                let mut done = Vec::new();
                for _ in 0..steps {
                    array.poll(now, &mut done);
                    if !done.is_empty() {
                        assert_eq!(done.remove(0).1.result, Ok(()));
                        if is_flush {
                            versions.iter_mut().for_each(|versions| keep_from(versions, None));
                        }
                        break;
                    }
                    now = now.max(array.next_deadline().expect("something is under way"));
                }
            }
            array.bank_mut().power_cut(rng.next_u64(), now);
            while !array.bank_mut().is_cut() {
                array.bank_mut().poll(now, &mut Vec::new());
            }
            disks = array.into_bank().into_inner().disks;

            let mut array = open(caches_over(disks, seed, devices), devices);
            drive(&mut array, &mut now, |array| !array.is_resync_due() && !array.is_syncing() && array.is_quiet());
            array.submit(VOLUME, Request::new(RequestId(0), extent(0, 64), Op::Read(Buf::zeroed(64 * 512))), now);
            let mut done = Vec::new();
            while done.is_empty() {
                now = now.max(array.next_deadline().expect("something is under way"));
                array.poll(now, &mut done);
            }
            let Op::Read(buf) = done.remove(0).1.op else { panic!("a read comes back as a read") };
            for (at, bytes) in buf.to_vec().chunks(512).enumerate() {
                let (found, allowed) = (version(bytes), &mut versions[at]);
                let is_allowed = allowed.iter().any(|(_, version)| *version == found);
                assert!(is_allowed, "seed {seed}, life {life}, sector {at}: {found} of {allowed:?}");
                *allowed = vec![(found, found)];
            }
            let end = Lba(array.geometry().capacity().0);
            array.start_scrub(Scrub::Check, Lba(0)..end);
            drive(&mut array, &mut now, |array| !array.is_scrubbing());
            assert_eq!(array.scrub_report().mismatch_sectors, 0, "seed {seed}, life {life}");
            array.stop();
            drive(&mut array, &mut now, Array::is_stopped);
            array.bank_mut().write_down(now);
            while !array.bank_mut().is_empty() {
                array.bank_mut().poll(now, &mut Vec::new());
            }
            disks = array.into_bank().into_inner().disks;
        }
    }
}
