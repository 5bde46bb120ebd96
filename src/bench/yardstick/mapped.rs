//! Arrays on memory-mapped images beside loops that do the same with the bare files, by copies and by system calls.
//!
//! All files lie in memory where this computer has a file system for that (`/dev/shm`), so that what is measured is software.
//! One request at a time, on the thread that has it.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memmap2::{MmapMut, MmapOptions};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{Arena, Cell, Options, Row, take_turns};
use crate::bench::clock::{Clock, RealClock};
use crate::bench::images::{Backend, Store};
use crate::bench::runner::{Driven, fill};
use crate::bench::series::Subject;
use crate::bench::subjects::{ArraySpec, ArraySubject};
use crate::bench::workload::PayloadPool;
use crate::block::{
    Buf, Completion, DeviceId, Durability, Extent, Instant, Lba, Op, Payload, Request, RequestId, Sectors,
};
use crate::parity::Kernel;
use crate::raid::level::Level;

/// Members of each array, and bare files.
const DISKS: usize = 5;

/// Bytes of each member: all of them together are many times a cache.
const MEMBER_BYTES: u64 = 128 << 20;

const CHUNK: Sectors = Sectors(128);

/// Bytes of a request.
const BLOCK: usize = 4096;

/// Requests that are drawn; then they begin again.
const DRAWN: usize = 1 << 14;

/// How long an array may take to be filled.
const FILL_MAX: Duration = Duration::from_secs(120);

/// Who takes turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    /// A read of this array.
    Read(usize),
    /// A write to it.
    Write(usize),
    /// A block is copied out of a mapped file.
    BareRead,
    /// A block is read from a file.
    PlainRead,
    /// One of [`DISKS`] is missing: its blocks are read from all others.
    PlainDegradedRead,
    /// Old data, old parity; new parity, new data: all where they are mapped.
    BareUpdate,
    /// The same by two reads and two writes.
    PlainUpdate,
}

const RAID0: usize = 0;
const RAID5: usize = 1;
const DEGRADED: usize = 2;

const WORKS: [Work; 9] = [
    Work::Read(RAID0),
    Work::Read(RAID5),
    Work::Read(DEGRADED),
    Work::Write(RAID5),
    Work::BareRead,
    Work::PlainRead,
    Work::PlainDegradedRead,
    Work::BareUpdate,
    Work::PlainUpdate,
];

/// Every claim about mapped images.
pub(super) fn rows(options: &Options, disturbed: &mut usize, progress: &mut dyn FnMut(f64) -> bool) -> Vec<Row> {
    let claims = [
        ("RAID0 4K random read, mapped", "copies from bare mappings", 0.85, Work::Read(RAID0), Work::BareRead),
        ("RAID5 4K random read, mapped", "copies from bare mappings", 0.85, Work::Read(RAID5), Work::BareRead),
        ("RAID0 4K random read, mapped", "pread", 1.6, Work::Read(RAID0), Work::PlainRead),
        ("RAID5 4K random read, mapped", "pread", 1.6, Work::Read(RAID5), Work::PlainRead),
        ("RAID5 4K random write, mapped", "the same in bare mappings", 0.75, Work::Write(RAID5), Work::BareUpdate),
        ("RAID5 4K random write, mapped", "pread and pwrite", 3.0, Work::Write(RAID5), Work::PlainUpdate),
        ("RAID5 degraded 4K random read, mapped", "the same, healthy", 0.6, Work::Read(DEGRADED), Work::Read(RAID5)),
        ("RAID5 degraded 4K random read, mapped", "pread", 4.0, Work::Read(DEGRADED), Work::PlainDegradedRead),
    ];
    let mut rows: Vec<Row> =
        claims.iter().map(|(work, against, least, ..)| Row::new(work, against, *least, None)).collect();
    let mut files = match Files::new() {
        Ok(files) => files,
        Err(why) => {
            rows.iter_mut().for_each(|row| row.skipped = Some(why.clone()));
            return rows;
        }
    };
    let turns = take_turns(&mut files, options.rounds, options.window, &mut |round| {
        progress(round as f64 / options.rounds as f64)
    });
    *disturbed += turns.disturbed;
    let rate = |work: Work| &turns.rates[WORKS.iter().position(|of| *of == work).expect("it takes turns")];
    for (row, (.., ours, theirs)) in rows.iter_mut().zip(claims) {
        row.cells.push(Cell::new(format!("{DISKS} disks, 64K chunk"), "IOPS", rate(ours), rate(theirs)));
    }
    rows
}

/// Where files lie in memory, if there is such a place with room; otherwise where temporary files do.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let needed = 4 * DISKS as u64 * MEMBER_BYTES;
    let has_room = statvfs(memory).is_ok_and(|about| about.f_bavail * about.f_frsize >= needed);
    if has_room && tempfile::tempfile_in(memory).is_ok() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Three arrays, and bare files of the same size, all full of random bytes.
struct Files {
    clock: RealClock,
    arrays: [ArraySubject; 3],
    /// Usable by requests: blocks of every array.
    blocks: u64,
    bare: Vec<(File, MmapMut)>,
    /// Random numbers.
    drawn: Vec<u64>,
    next: usize,
    buf: Buf,
    payloads: Vec<Payload>,
    done: Vec<(DeviceId, Completion)>,
    kernel: Kernel,
}

impl Files {
    fn new() -> Result<Files, String> {
        let directory = place();
        let store = Store::new(Backend::Mmap, &directory).0;
        let clock = RealClock::start();
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let mut pool = PayloadPool::new(1 << 20, 0);
        let never = std::sync::atomic::AtomicBool::new(false);
        let mut array = |level: Level| {
            let spec = ArraySpec { level, disks: DISKS, chunk: CHUNK, member: Sectors::floor_bytes(MEMBER_BYTES) };
            let mut array = ArraySubject::new(level.to_string(), spec, &store, clock).map_err(|error| words(&error))?;
            let filled = fill(&mut array, &mut pool, FILL_MAX, &clock, &never).map_err(|error| words(&error))?;
            Ok::<_, String>((array, filled))
        };
        let ((raid0, _), (raid5, filled), (mut degraded, _)) =
            (array(Level::Raid0)?, array(Level::Raid5)?, array(Level::Raid5)?);
        degraded.degrade().map_err(|error| words(&error))?;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut bare = Vec::with_capacity(DISKS);
        for _ in 0..DISKS {
            let file = tempfile::tempfile_in(&directory).map_err(|error| words(&error))?;
            // With all its blocks: a page that cannot be had would end the process.
            fallocate(&file, FallocateFlags::empty(), 0, MEMBER_BYTES).map_err(|error| words(&error))?;
            // SAFETY: the file has no name: nobody else changes it or makes it shorter.
            let mut map = unsafe { MmapOptions::new().populate().map_mut(&file) }.map_err(|error| words(&error))?;
            rng.fill_bytes(&mut map);
            bare.push((file, map));
        }
        let payload = |_| {
            let mut bytes = vec![0; BLOCK];
            rng.fill_bytes(&mut bytes);
            Payload::copy_of(&bytes)
        };
        let payloads = (0..64).map(payload).collect();
        let mut files = Files {
            clock,
            arrays: [raid0, raid5, degraded],
            blocks: filled.bytes() / BLOCK as u64,
            bare,
            drawn: (0..DRAWN).map(|_| rng.next_u64()).collect(),
            next: 0,
            buf: Buf::zeroed(BLOCK),
            payloads,
            done: Vec::new(),
            kernel: Kernel::current(),
        };
        files.visit_all();
        Ok(files)
    }

    /// Every block of every array once, so that none is met for the first time while it is timed.
    fn visit_all(&mut self) {
        let now = self.clock.now();
        for array in 0..self.arrays.len() {
            for block in 0..self.blocks {
                self.read(array, block, now);
            }
        }
    }

    fn draw(&mut self) -> u64 {
        self.next = (self.next + 1) % DRAWN;
        self.drawn[self.next]
    }

    /// One request to an array, to its end.
    fn ask(&mut self, array: usize, block: u64, op: Op, now: Instant) -> Op {
        let extent = Extent::new(Lba(block * 8), Sectors(8));
        let request = Request::new(RequestId(0), extent, op);
        let device = self.arrays[array].device();
        let bank = self.arrays[array].bank();
        bank.submit(device, request, now);
        loop {
            bank.poll(now, &mut self.done);
            if let Some((_, completion)) = self.done.pop() {
                completion.result.expect("files in memory do not fail");
                return completion.op;
            }
        }
    }

    fn read(&mut self, array: usize, block: u64, now: Instant) {
        let read = Op::Read(std::mem::take(&mut self.buf));
        let Op::Read(buf) = self.ask(array, block, read, now) else { panic!("a read comes back as a read") };
        self.buf = buf;
    }

    fn one(&mut self, work: Work, now: Instant) {
        match work {
            Work::Read(array) => {
                let block = self.draw() % self.blocks;
                self.read(array, block, now);
            }
            Work::Write(array) => {
                let block = self.draw() % self.blocks;
                let payload = self.payloads[self.next % self.payloads.len()].clone();
                self.ask(array, block, Op::Write(payload, Durability::Volatile), now);
            }
            Work::BareRead => {
                let (disk, at) = self.place();
                let buf = self.buf.as_mut_slice().expect("one part");
                buf.copy_from_slice(&self.bare[disk].1[at..at + BLOCK]);
            }
            Work::PlainRead => {
                let (disk, at) = self.place();
                self.plain_read(disk, at);
            }
            Work::PlainDegradedRead => {
                let (missing, at) = self.place();
                if missing > 0 {
                    return self.plain_read(missing, at);
                }
                let mut sum = [0; BLOCK];
                for disk in 1..DISKS {
                    self.plain_read(disk, at);
                    self.kernel.add_p(&mut sum, &[self.buf.as_slice().expect("one part")]);
                }
                black_box(&sum);
            }
            Work::BareUpdate => {
                let (disk, at) = self.place();
                let new = self.payloads[self.next % self.payloads.len()].clone();
                let new = new.slices().next().expect("a payload has bytes");
                let [(_, data), (_, parity)] =
                    self.bare.get_disjoint_mut([disk, (disk + 1) % DISKS]).expect("two disks");
                let data = &mut data[at..at + BLOCK];
                self.kernel.add_p(&mut parity[at..at + BLOCK], &[data, new]);
                data.copy_from_slice(new);
            }
            Work::PlainUpdate => {
                let (disk, at) = self.place();
                let new = self.payloads[self.next % self.payloads.len()].clone();
                let new = new.slices().next().expect("a payload has bytes");
                let (data, parity) = (&self.bare[disk].0, &self.bare[(disk + 1) % DISKS].0);
                let (mut old, mut sum) = ([0; BLOCK], [0; BLOCK]);
                data.read_exact_at(&mut old, at as u64).expect("files in memory do not fail");
                parity.read_exact_at(&mut sum, at as u64).expect("files in memory do not fail");
                self.kernel.add_p(&mut sum, &[&old, new]);
                data.write_all_at(new, at as u64).expect("files in memory do not fail");
                parity.write_all_at(&sum, at as u64).expect("files in memory do not fail");
            }
        }
    }

    /// A block of the bare files.
    fn place(&mut self) -> (usize, usize) {
        let drawn = self.draw();
        let blocks = MEMBER_BYTES / BLOCK as u64;
        ((drawn >> 32) as usize % DISKS, ((drawn & 0xffff_ffff) % blocks) as usize * BLOCK)
    }

    fn plain_read(&mut self, disk: usize, at: usize) {
        let buf = self.buf.as_mut_slice().expect("one part");
        self.bare[disk].0.read_exact_at(buf, at as u64).expect("files in memory do not fail");
    }
}

impl Arena for Files {
    fn contestants(&self) -> usize {
        WORKS.len()
    }

    fn run(&mut self, contestant: usize, count: u64) -> Duration {
        let began = self.clock.now();
        let mut now = began;
        for number in 0..count {
            self.one(WORKS[contestant], now);
            if number % 32 == 31 {
                now = self.clock.now();
            }
        }
        black_box(&self.buf);
        self.clock.now().since(began)
    }

    fn check(&mut self, _contestant: usize) {}
}
