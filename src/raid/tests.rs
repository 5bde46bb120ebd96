//! Random operations, failures and recoveries on every level, against a flat model.

use super::assemble::{AssembleOptions, Candidate, assemble};
use super::create::{NewArray, NewDevice, create, joining};
use super::level::{Layout, Level};
use super::superblock::{DeviceUuid, SetName, SetUuid, Timestamp};
use super::sync::{Scrub, SyncOptions};
use super::*;
use crate::block::*;
use crate::disk::MemBank;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::borrow::Cow;

/// Disks in memory that may lend what they hold, as mapped files do; of one, pages may be lost.
pub(super) struct Lender {
    disks: MemBank,
    lends: bool,
    lost: Option<DeviceId>,
    asked: u64,
    done: Vec<(DeviceId, Completion)>,
}

impl std::ops::Deref for Lender {
    type Target = MemBank;
    fn deref(&self) -> &MemBank {
        &self.disks
    }
}

impl std::ops::DerefMut for Lender {
    fn deref_mut(&mut self) -> &mut MemBank {
        &mut self.disks
    }
}

impl Bank for Lender {
    fn limits(&self, device: DeviceId) -> Limits {
        self.disks.limits(device)
    }
    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        self.asked += 1;
        if self.lost == Some(device) {
            return self.done.push((device, request.complete(Err(IoError::Medium))));
        }
        self.disks.submit(device, request, now);
    }
    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        done.append(&mut self.done);
        self.disks.poll(now, done);
    }
    fn next_deadline(&self) -> Option<Instant> {
        if self.done.is_empty() { self.disks.next_deadline() } else { Some(Instant::START) }
    }
    /// As a mapping does: who has lost a page lends zeroes before it is found out.
    fn lend(&mut self, device: DeviceId, extent: Extent) -> Option<bytes::Bytes> {
        let range = extent.start.bytes() as usize..extent.end().bytes() as usize;
        let held = bytes::Bytes::copy_from_slice(&self.bytes(device)[range]);
        self.lends.then(|| if self.lost == Some(device) { vec![0; held.len()].into() } else { held })
    }
    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        let range = extent.start.bytes() as usize..extent.end().bytes() as usize;
        let held = &self.bytes(device)[range];
        self.lends.then(|| if self.lost == Some(device) { vec![0; held.len()].into() } else { held.into() })
    }
    fn vouches(&self, device: DeviceId) -> bool {
        self.lost != Some(device)
    }
}

pub(super) struct Lab {
    pub(super) array: Array<Lender>,
    now: Instant,
    pub(super) model: Vec<u8>,
    next: u64,
}

fn read_from(bank: &Lender, device: DeviceId) -> impl FnMut(Lba, Sectors) -> Result<Vec<u8>, IoError> + '_ {
    move |at, length| {
        let from = at.bytes() as usize;
        Ok(bank.bytes(device)[from..from + length.bytes() as usize].to_vec())
    }
}

fn candidates(bank: &Lender, devices: &[DeviceId]) -> Vec<Candidate> {
    devices
        .iter()
        .map(|device| Candidate::read(*device, bank.limits(*device).capacity, read_from(bank, *device)).unwrap())
        .collect()
}

fn open(bank: Lender, devices: &[DeviceId], force: bool) -> Array<Lender> {
    let found = candidates(&bank, devices);
    let assembly = assemble(found, AssembleOptions { force, ..AssembleOptions::default() }).unwrap();
    Array::start(bank, assembly.geometry, assembly.start, SyncOptions::UNLIMITED)
}

impl Lab {
    pub(super) fn new(level: Level, layout: Layout, disks: usize, spares: usize, bitmap: bool) -> Lab {
        let mut bank = Lender { disks: MemBank::new(), lends: disks % 2 == 1, lost: None, asked: 0, done: Vec::new() };
        let size = Sectors(8192);
        let devices: Vec<DeviceId> = (0..disks + spares).map(|_| bank.add(Limits::of_disk(size))).collect();
        let new = NewArray {
            level,
            layout,
            chunk: Sectors(16),
            raid_disks: disks,
            bitmap,
            name: SetName::new("test").unwrap(),
            uuid: SetUuid([9; 16]),
            created: Timestamp::new(1, 0),
            in_sync: true,
            devices: (0..devices.len()).map(|d| NewDevice { size, uuid: DeviceUuid([d as u8; 16]) }).collect(),
        };
        let (_, members) = create(&new).unwrap();
        for (device, member) in devices.iter().zip(members) {
            for (at, bytes) in member.writes {
                let from = at.bytes() as usize;
                bank.bytes_mut(*device)[from..from + bytes.len()].copy_from_slice(&bytes);
            }
        }
        let array = open(bank, &devices, false);
        let model = vec![0; array.geometry().capacity().bytes() as usize];
        Lab { array, now: Instant::START, model, next: 0 }
    }

    pub(super) fn drive(&mut self, until: impl Fn(&Array<Lender>) -> bool) -> Vec<Completion> {
        let mut all = Vec::new();
        let mut done = Vec::new();
        for _ in 0..1_000_000 {
            if until(&self.array) && done.is_empty() {
                return all;
            }
            let Some(due) = self.array.next_deadline() else { panic!("stuck") };
            self.now = self.now.max(due);
            self.array.poll(self.now, &mut done);
            all.extend(done.drain(..).map(|(_, c)| c));
        }
        panic!("no end");
    }

    pub(super) fn request(&mut self, extent: Extent, op: Op) -> Completion {
        self.next += 1;
        self.array.submit(VOLUME, Request::new(RequestId(self.next), extent, op), self.now);
        let mut done = Vec::new();
        for _ in 0..1_000_000 {
            self.array.poll(self.now, &mut done);
            if let Some((_, completion)) = done.pop() {
                return completion;
            }
            let Some(due) = self.array.next_deadline() else { panic!("stuck") };
            self.now = self.now.max(due);
        }
        panic!("no end");
    }

    /// A blank disk joins.
    pub(super) fn add_blank(&mut self) {
        let model = self.array.members().iter().find(|m| m.serves()).expect("somebody serves").superblock.clone();
        let number = self.array.next_device_number();
        let new = NewDevice { size: Sectors(8192), uuid: DeviceUuid([number as u8 + 100; 16]) };
        let superblock = joining(&model, new, number, self.array.geometry().sync_size()).unwrap();
        let device = self.array.bank_mut().add(Limits::of_disk(Sectors(8192)));
        self.array.add(device, superblock).unwrap();
    }

    /// Stops the array and assembles it again from the devices that are part of it.
    pub(super) fn restart(&mut self) {
        self.array.stop();
        self.drive(Array::is_stopped);
        let members = self.array.members().iter();
        let devices: Vec<DeviceId> =
            members.filter(|m| m.place != super::member::Place::Faulty).map(|m| m.device).collect();
        let array = std::mem::replace(&mut self.array, Lab::new(Level::Raid1, Layout::None, 2, 0, false).array);
        self.array = open(array.into_bank(), &devices, false);
        self.now = Instant::START;
    }

    fn random_ops(&mut self, rng: &mut ChaCha8Rng, count: usize) {
        let capacity = self.array.geometry().capacity().0;
        for _ in 0..count {
            let start = u64::from(rng.next_u32()) % capacity;
            let length = 1 + u64::from(rng.next_u32()) % [1, 8, 40, 200][rng.next_u32() as usize % 4];
            let extent = Extent::new(Lba(start), Sectors(length.min(capacity - start)));
            let bytes = extent.start.bytes() as usize..extent.end().bytes() as usize;
            match rng.next_u32() % 10 {
                0..5 => {
                    let mut data = vec![0; bytes.len()];
                    rng.fill_bytes(&mut data);
                    let done = self.request(extent, Op::Write(Payload::copy_of(&data), Durability::Volatile));
                    assert_eq!(done.result, Ok(()));
                    self.model[bytes].copy_from_slice(&data);
                }
                5 => {
                    assert_eq!(self.request(extent, Op::Discard).result, Ok(()));
                    self.model[bytes].fill(0);
                }
                _ => {
                    let done = self.request(extent, Op::Read(Buf::zeroed(bytes.len())));
                    assert_eq!(done.result, Ok(()));
                    let Op::Read(buf) = done.op else { panic!() };
                    assert!(buf.to_vec() == self.model[bytes], "{extent:?}");
                }
            }
        }
    }

    pub(super) fn verify(&mut self) {
        let all = self.model.len();
        let extent = Extent::new(Lba(0), Sectors(all as u64 / 512));
        let done = self.request(extent, Op::Read(Buf::zeroed(all)));
        assert_eq!(done.result, Ok(()));
        let Op::Read(buf) = done.op else { panic!() };
        assert!(buf.to_vec() == self.model);
    }

    pub(super) fn check(&mut self) {
        let end = Lba(self.array.geometry().capacity().0);
        self.array.start_scrub(Scrub::Check, Lba(0)..end);
        self.drive(|array| !array.is_scrubbing());
        assert_eq!(self.array.scrub_report().mismatch_sectors, 0);
    }
}

fn shapes() -> Vec<(Level, Layout, usize)> {
    let mut shapes = Vec::new();
    for level in Level::ALL {
        let names: &[&str] = match level {
            Level::Raid5 => &["la", "ra", "ls", "rs", "parity-first", "parity-last"],
            Level::Raid6 => &["ls", "la", "ddf-zero-restart", "ddf-N-restart", "ddf-N-continue", "left-symmetric-6"],
            Level::Raid10 => &["n2", "f2", "o2", "n3"],
            _ => &[""],
        };
        for name in names {
            let layout = if name.is_empty() { Layout::default_of(level) } else { Layout::parse(level, name).unwrap() };
            for disks in [4, 5] {
                shapes.push((level, layout, disks));
            }
        }
    }
    shapes
}

#[test]
fn what_is_written_is_read_also_degraded_and_after_recovery() {
    for (seed, (level, layout, disks)) in shapes().into_iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
        let mut lab =
            Lab::new(level, layout, disks, usize::from(level != Level::Raid0), level != Level::Raid0 && seed % 2 == 0);
        lab.random_ops(&mut rng, 100);
        lab.verify();
        if level == Level::Raid0 {
            continue;
        }
        lab.check();
        lab.array.fail(DeviceId(1)).unwrap();
        lab.random_ops(&mut rng, 100);
        lab.verify();
        lab.drive(|array| !array.is_syncing());
        lab.verify();
        lab.check();
        lab.array.fail(DeviceId(0)).unwrap();
        lab.random_ops(&mut rng, 50);
        lab.verify();
        lab.array.remove(DeviceId(0)).unwrap();
        lab.add_blank();
        lab.random_ops(&mut rng, 50);
        lab.drive(|array| !array.is_syncing());
        lab.check();
        lab.restart();
        lab.verify();
        lab.check();
    }
}

#[test]
fn what_was_made_of_a_lost_page_counts_for_nothing() {
    for (seed, (level, layout, disks)) in shapes().into_iter().enumerate() {
        if level == Level::Raid0 {
            continue;
        }
        // The first request that meets the page is the one that may be misled: the member fails by it.
        for round in 0..20 {
            let mut rng = ChaCha8Rng::seed_from_u64((seed * 20 + round) as u64);
            let mut lab = Lab::new(level, layout, disks, 0, false);
            lab.array.bank_mut().lends = true;
            lab.random_ops(&mut rng, 50);
            lab.array.bank_mut().lost = Some(DeviceId((seed + round) as u32 % disks as u32));
            lab.random_ops(&mut rng, 10);
            lab.verify();
        }
    }
}

#[test]
fn what_lies_in_memory_is_read_and_reconstructed_without_a_request() {
    for (seed, (level, layout, disks)) in shapes().into_iter().enumerate() {
        let mut lab = Lab::new(level, layout, disks, 0, false);
        lab.array.bank_mut().lends = true;
        lab.random_ops(&mut ChaCha8Rng::seed_from_u64(seed as u64), 60);
        for failed in 0..=lab.array.geometry().tolerance() {
            if failed > 0 {
                lab.array.fail(DeviceId(failed as u32)).unwrap();
            }
            lab.drive(Array::is_quiet);
            let before = lab.array.bank().asked;
            lab.verify();
            for start in [0, 1, 15, 16, 37] {
                let extent = Extent::new(Lba(start), Sectors(21));
                let done = lab.request(extent, Op::Read(Buf::zeroed(21 * 512)));
                let Op::Read(buf) = done.op else { panic!("a read comes back as a read") };
                assert!(buf.to_vec() == lab.model[extent.start.bytes() as usize..extent.end().bytes() as usize]);
            }
            assert_eq!(lab.array.bank().asked, before, "{level} {layout} of {disks}, {failed} failed");
        }
    }
}
