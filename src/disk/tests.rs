//! What every bank of real disks does alike: the plain ones are the oracle of the fast ones.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec};
use tempfile::TempDir;

use super::*;
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Op, Payload, Request,
    RequestId, Sectors,
};

const CAPACITY: Sectors = Sectors(2048);

/// A bank whose disks are files.
trait FileDisks: Bank + Wakeups + Send {
    fn open(&mut self, path: &Path, options: ImageOptions) -> Result<DeviceId, ImageError>;
    fn close(&mut self, device: DeviceId);
}

macro_rules! file_disks {
    ($($bank:ty),*) => {$(
        impl FileDisks for $bank {
            fn open(&mut self, path: &Path, options: ImageOptions) -> Result<DeviceId, ImageError> {
                <$bank>::open(self, path, options)
            }
            fn close(&mut self, device: DeviceId) {
                <$bank>::close(self, device);
            }
        }
    )*};
}
file_disks!(FileBank, MmapBank, UringBank);

type NewBank = fn() -> Box<dyn FileDisks>;

/// All banks of files that work on this host, by name.
fn file_banks() -> Vec<(&'static str, NewBank)> {
    let mut banks: Vec<(&'static str, NewBank)> =
        vec![("file", || Box::new(FileBank::new().unwrap())), ("mmap", || Box::new(MmapBank::new().unwrap()))];
    match UringBank::available() {
        Ok(()) => banks.push(("uring", || Box::new(UringBank::new().unwrap()))),
        Err(reason) => eprintln!("uring is not tested: {reason}"),
    }
    banks
}

/// A directory on an ordinary file system, and one on tmpfs where there is one: they differ in what
/// `fallocate` and `O_DIRECT` do.
fn directories() -> Vec<TempDir> {
    let mut all = vec![tempfile::tempdir().unwrap()];
    all.extend(Path::new("/dev/shm").is_dir().then(|| tempfile::tempdir_in("/dev/shm").unwrap()));
    all
}

fn image(dir: &TempDir, name: &str) -> PathBuf {
    let path = dir.path().join(name);
    Image::create(&path, CAPACITY, Space::Preallocated).unwrap();
    path
}

fn extent(start: u64, length: u64) -> Extent {
    Extent::new(Lba(start), Sectors(length))
}

fn is_readable(fd: &BorrowedFd<'_>, seconds: i64) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).unwrap() > 0
}

/// Polls until `count` requests have come back, sleeping on the wake-ups as a reactor does.
fn collect<B: Bank + Wakeups + ?Sized>(bank: &mut B, count: usize) -> Vec<(DeviceId, Completion)> {
    let mut done = Vec::new();
    while done.len() < count {
        bank.poll(Instant::START, &mut done);
        if done.len() < count && bank.next_deadline().is_none() {
            let wakeups = bank.wakeups();
            let [fd] = wakeups.as_slice() else { panic!("nothing is ready and nothing will wake us") };
            assert!(is_readable(fd, 20), "{} of {count} requests came back, and no wake-up", done.len());
        }
    }
    assert_eq!(done.len(), count);
    done
}

fn run<B: Bank + Wakeups + ?Sized>(bank: &mut B, device: DeviceId, at: Extent, op: Op) -> (Result<(), IoError>, Op) {
    bank.submit(device, Request { id: RequestId(0), extent: at, op }, Instant::START);
    let (_, completion) = collect(bank, 1).remove(0);
    (completion.result, completion.op)
}

fn flush() -> (Extent, Op) {
    (extent(0, 0), Op::Flush)
}

fn write_of(byte: u8, sectors: u64, durability: Durability) -> Op {
    Op::Write(Payload::copy_of(&vec![byte; Sectors(sectors).bytes() as usize]), durability)
}

fn read<B: Bank + Wakeups + ?Sized>(bank: &mut B, device: DeviceId, at: Extent) -> Result<Vec<u8>, IoError> {
    let buf = Buf::zeroed(at.length.bytes() as usize);
    match run(bank, device, at, Op::Read(buf)) {
        (Ok(()), Op::Read(buf)) => Ok(buf.to_vec()),
        (Ok(()), op) => panic!("a read came back as a {}", op.name()),
        (Err(error), _) => Err(error),
    }
}

/// Lengths that add up to `total` bytes: one, several whole sectors, or any.
fn cuts(rng: &mut ChaCha8Rng, total: usize) -> Vec<usize> {
    let unit = [total, 512, 1][below(rng, 3)];
    let mut left = total;
    let mut lengths = Vec::new();
    while left > 0 {
        let now = (unit * (1 + below(rng, 4 * 512 / unit.min(512)))).min(left);
        lengths.push(now);
        left -= now;
    }
    lengths
}

fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    (rng.next_u64() % bound as u64) as usize
}

fn any_payload(rng: &mut ChaCha8Rng, bytes: &[u8]) -> Payload {
    let mut at = 0;
    cuts(rng, bytes.len())
        .into_iter()
        .map(|length| {
            let skip = below(rng, 2);
            let mut memory = vec![0; skip];
            memory.extend_from_slice(&bytes[at..at + length]);
            at += length;
            Bytes::from(memory).slice(skip..)
        })
        .collect()
}

fn any_buf(rng: &mut ChaCha8Rng, total: usize) -> Buf {
    let mut buf = Buf::zeroed(0);
    cuts(rng, total).into_iter().for_each(|length| buf.append(Buf::zeroed(length)));
    buf
}

fn any_durability(rng: &mut ChaCha8Rng) -> Durability {
    [Durability::Volatile, Durability::Fua][below(rng, 2)]
}

/// Batches of requests that do not overlap, of any kind, length and buffer shape.
fn compare_with_a_vector<B: Bank + Wakeups + ?Sized>(name: &str, bank: &mut B, device: DeviceId, seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let Limits { capacity, logical_block: block, .. } = bank.limits(device);
    let mut model = vec![0; capacity.bytes() as usize];
    for round in 0..40 {
        let mut at = 0;
        let mut submitted = Vec::new();
        loop {
            let mut blocks_below = |bound| block.0 * below(&mut rng, bound / block.0 as usize) as u64;
            let piece = extent(at + blocks_below(200), block.0 + blocks_below(200));
            if piece.end() > Lba(capacity.0) {
                break;
            }
            at = piece.end().0;
            let bytes = piece.start.bytes() as usize..piece.end().bytes() as usize;
            let (piece, op) = match below(&mut rng, 8) {
                0..=2 => (piece, Op::Read(any_buf(&mut rng, bytes.len()))),
                3 | 4 => {
                    rng.fill_bytes(&mut model[bytes.clone()]);
                    (piece, Op::Write(any_payload(&mut rng, &model[bytes]), any_durability(&mut rng)))
                }
                5 => {
                    model[bytes].fill(0);
                    (piece, Op::WriteZeroes(any_durability(&mut rng)))
                }
                6 => {
                    model[bytes].fill(0);
                    (piece, Op::Discard)
                }
                _ => flush(),
            };
            bank.submit(device, Request::new(RequestId(submitted.len() as u64), piece, op), Instant::START);
            submitted.push(piece);
        }
        let mut back = vec![false; submitted.len()];
        for (from, Completion { id, op, result }) in collect(bank, submitted.len()) {
            let piece = submitted[id.0 as usize];
            assert_eq!((from, result), (device, Ok(())), "{name}, seed {seed}, round {round}: {} {piece:?}", op.name());
            assert!(!std::mem::replace(&mut back[id.0 as usize], true), "completed twice");
            if let Op::Read(buf) = op {
                let bytes = &model[piece.start.bytes() as usize..piece.end().bytes() as usize];
                assert!(buf.to_vec() == bytes, "{name}, seed {seed}, round {round}: wrong bytes in {piece:?}");
            }
        }
    }
    assert!(
        read(bank, device, extent(0, capacity.0)) == Ok(model.clone()),
        "{name}, seed {seed}: wrong bytes at the end"
    );
    model
}

#[test]
fn every_bank_holds_what_a_vector_holds() {
    for seed in 0..4 {
        let mut bank = MemBank::new();
        let device = bank.add(Limits::of_disk(CAPACITY));
        compare_with_a_vector("mem", &mut bank, device, seed);
        for (name, new) in file_banks() {
            for dir in directories() {
                let path = image(&dir, "disk");
                let mut bank = new();
                let device = bank.open(&path, ImageOptions::default()).unwrap();
                let model = compare_with_a_vector(name, bank.as_mut(), device, seed);
                drop(bank);
                assert!(std::fs::read(&path).unwrap() == model, "{name}, seed {seed}: wrong bytes in the file");
            }
        }
    }
}

/// A loop device over a file, of 4096-byte blocks.
struct Loop(PathBuf);

impl Loop {
    /// `None` where loop devices need rights we do not have.
    fn over(image: &Path) -> Option<Loop> {
        let mut losetup = std::process::Command::new("losetup");
        let output = losetup.args(["--find", "--show", "--sector-size", "4096"]).arg(image).output().ok()?;
        let name = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| Loop(name.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        std::process::Command::new("losetup").arg("--detach").arg(&self.0).status().unwrap();
    }
}

#[test]
fn every_bank_takes_a_block_device_of_4096_byte_blocks() {
    for (name, new) in file_banks() {
        let dir = tempfile::tempdir().unwrap();
        let Some(device) = Loop::over(&image(&dir, "disk")) else {
            eprintln!("not tested: no loop devices");
            return;
        };
        let mut bank = new();
        let disk = bank.open(&device.0, ImageOptions::default()).unwrap();
        let limits = bank.limits(disk);
        assert_eq!((limits.capacity, limits.logical_block), (CAPACITY, Sectors(8)), "{name}");
        compare_with_a_vector(name, bank.as_mut(), disk, 1);
        assert_eq!(read(bank.as_mut(), disk, extent(1, 8)), Err(IoError::Unsupported), "{name}");
        let error = new().open(&device.0, ImageOptions::default()).unwrap_err();
        assert!(matches!(error, ImageError::Busy { .. }), "{name}: {error}");
    }
}

#[test]
fn the_second_opener_is_refused_whatever_its_bank() {
    for (name, new) in file_banks() {
        for (other_name, other) in file_banks() {
            let dir = tempfile::tempdir().unwrap();
            let path = image(&dir, "disk");
            let (mut first, mut second) = (new(), other());
            let device = first.open(&path, ImageOptions::default()).unwrap();
            for bank in [&mut first, &mut second] {
                let error = bank.open(&path, ImageOptions::default()).unwrap_err();
                assert!(matches!(error, ImageError::Locked { .. }), "{name}, then {other_name}: {error}");
            }
            first.close(device);
            second.open(&path, ImageOptions::default()).unwrap();
        }
    }
}

#[test]
fn a_closed_disk_gives_back_what_it_took_lets_its_file_go_and_its_name_is_not_used_again() {
    for (name, new) in file_banks() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, "disk");
        let mut bank = new();
        let closed = bank.open(&path, ImageOptions::default()).unwrap();
        bank.submit(closed, Request::new(RequestId(1), extent(8, 8), write_of(7, 8, Durability::Fua)), Instant::START);
        bank.submit(closed, Request::flush(RequestId(2)), Instant::START);
        bank.close(closed);
        bank.close(closed);
        bank.submit(closed, Request::flush(RequestId(3)), Instant::START);
        let mut results: Vec<_> = collect(bank.as_mut(), 3).iter().map(|(_, c)| (c.id.0, c.result)).collect();
        results.sort_unstable();
        assert_eq!(results, [(1, Ok(())), (2, Ok(())), (3, Err(IoError::Offline))], "{name}");
        let again = bank.open(&path, ImageOptions::default()).unwrap();
        assert_ne!(again, closed);
        assert_eq!(read(bank.as_mut(), again, extent(8, 8)).unwrap(), vec![7; 4096], "{name}");
        assert_eq!(bank.limits(closed).capacity, CAPACITY);
    }
}

#[test]
fn what_a_disk_cannot_take_comes_back_as_an_error() {
    for (name, new) in file_banks() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, "disk");
        let mut bank = new();
        let read_only = bank.open(&path, ImageOptions { read_only: true, ..Default::default() }).unwrap();
        for op in [write_of(1, 8, Durability::Volatile), Op::WriteZeroes(Durability::Fua), Op::Discard] {
            assert_eq!(run(bank.as_mut(), read_only, extent(0, 8), op).0, Err(IoError::ReadOnly), "{name}");
        }
        let end = extent(CAPACITY.0 - 8, 16);
        assert_eq!(read(bank.as_mut(), read_only, end), Err(IoError::OutOfRange), "{name}");
        assert_eq!(read(bank.as_mut(), read_only, extent(0, 8)), Ok(vec![0; 4096]), "{name}");
        let (none, op) = flush();
        assert_eq!(run(bank.as_mut(), read_only, none, op).0, Ok(()), "{name}");
    }
}

#[test]
fn more_requests_than_any_queue_holds_all_come_back() {
    for (name, new) in file_banks() {
        let dir = tempfile::tempdir().unwrap();
        let mut bank = new();
        let devices: Vec<_> =
            (0..3).map(|n| bank.open(&image(&dir, &format!("disk-{n}")), ImageOptions::default()).unwrap()).collect();
        for id in 0..CAPACITY.0 {
            for &device in &devices {
                let op = write_of(id as u8, 1, Durability::Volatile);
                bank.submit(device, Request::new(RequestId(id), extent(id, 1), op), Instant::START);
            }
        }
        let done = collect(bank.as_mut(), 3 * CAPACITY.0 as usize);
        assert!(done.iter().all(|(_, completion)| completion.result.is_ok()), "{name}");
        let expected: Vec<u8> = (0..CAPACITY.0).flat_map(|id| [id as u8; 512]).collect();
        for device in devices {
            assert!(read(bank.as_mut(), device, extent(0, CAPACITY.0)).as_ref() == Ok(&expected), "{name}");
        }
    }
}

#[test]
fn a_request_of_more_parts_than_one_call_takes_is_carried_out_whole() {
    for (name, new) in file_banks() {
        let dir = tempfile::tempdir().unwrap();
        let mut bank = new();
        let device = bank.open(&image(&dir, "disk"), ImageOptions::default()).unwrap();
        let whole = extent(0, CAPACITY.0);
        let sector = Payload::copy_of(&[5; 512]).contiguous();
        let parts: Payload = (0..CAPACITY.0).map(|_| sector.clone()).collect();
        let (result, _) = run(bank.as_mut(), device, whole, Op::Write(parts, Durability::Fua));
        assert_eq!(result, Ok(()), "{name}");
        let mut buf = Buf::zeroed(0);
        (0..CAPACITY.0).for_each(|_| buf.append(Buf::zeroed(512)));
        let (result, Op::Read(buf)) = run(bank.as_mut(), device, whole, Op::Read(buf)) else { panic!("not a read") };
        assert_eq!(result, Ok(()), "{name}");
        assert!(buf.to_vec().iter().all(|byte| *byte == 5), "{name}");
    }
}

#[test]
fn a_dropped_bank_finishes_what_the_kernel_has_and_lets_its_files_go() {
    for (name, new) in file_banks() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, "disk");
        for _ in 0..20 {
            let mut bank = new();
            let device = bank.open(&path, ImageOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
            for id in 0..64 {
                let op = match id % 3 {
                    0 => write_of(id as u8, 16, Durability::Fua),
                    1 => Op::Read(Buf::zeroed(8192)),
                    _ => Op::WriteZeroes(Durability::Volatile),
                };
                bank.submit(device, Request::new(RequestId(id), extent(16 * id, 16), op), Instant::START);
            }
            bank.poll(Instant::START, &mut Vec::new());
        }
    }
}

#[test]
fn an_idle_bank_does_not_wake_anyone() {
    for (name, new) in file_banks() {
        let dir = tempfile::tempdir().unwrap();
        let mut bank = new();
        let device = bank.open(&image(&dir, "disk"), ImageOptions::default()).unwrap();
        for _ in 0..50 {
            let (none, op) = flush();
            run(bank.as_mut(), device, none, op).0.unwrap();
            // One signal may come after its completion; after that there is none.
            std::thread::sleep(std::time::Duration::from_millis(1));
            bank.poll(Instant::START, &mut Vec::new());
            assert!(!bank.wakeups().iter().any(|fd| is_readable(fd, 0)), "{name}");
            assert_eq!(bank.next_deadline(), None, "{name}");
        }
    }
}

/// A shortened file is a fault someone outside causes: it costs the sectors that are gone, or the
/// disk, and not the process or the other disks of the bank.
#[test]
fn a_truncated_image_gives_medium_errors_and_its_neighbour_none() {
    for (name, new) in file_banks() {
        let dir = tempfile::tempdir().unwrap();
        let mut bank = new();
        let path = image(&dir, "disk-0");
        let shortened = bank.open(&path, ImageOptions::default()).unwrap();
        let whole = bank.open(&image(&dir, "disk-1"), ImageOptions::default()).unwrap();
        for device in [shortened, whole] {
            let (result, _) = run(bank.as_mut(), device, extent(0, 64), write_of(3, 64, Durability::Volatile));
            assert_eq!(result, Ok(()), "{name}");
        }

        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();

        let (none, op) = flush();
        assert_eq!(run(bank.as_mut(), shortened, none, op.clone()).0, Err(IoError::Medium), "{name}");
        assert_eq!(read(bank.as_mut(), shortened, extent(0, 64)), Err(IoError::Medium), "{name}");
        assert_eq!(run(bank.as_mut(), whole, none, op).0, Ok(()), "{name}");
        assert_eq!(read(bank.as_mut(), whole, extent(0, 64)), Ok(vec![3; 64 * 512]), "{name}");
    }
}

#[test]
fn a_store_to_a_lost_page_fails_the_mapped_disk_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(&dir, "disk");
    let mut bank = MmapBank::new().unwrap();
    let device = bank.open(&path, ImageOptions::default()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let (in_reach, gone) = (extent(0, 8), extent(8, 8));
    assert_eq!(run(&mut bank, device, in_reach, write_of(1, 8, Durability::Volatile)).0, Ok(()));
    assert!(!bank.is_lost(device));
    assert_eq!(run(&mut bank, device, gone, write_of(1, 8, Durability::Volatile)).0, Err(IoError::Medium));
    assert!(bank.is_lost(device));
    for at in [in_reach, gone] {
        assert_eq!(read(&mut bank, device, at), Err(IoError::Medium));
        assert_eq!(run(&mut bank, device, at, write_of(1, 8, Durability::Fua)).0, Err(IoError::Medium));
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4096, "a forced write made the file look whole again");
}

#[test]
fn direct_io_is_used_where_the_file_system_has_it() {
    use std::os::unix::fs::OpenOptionsExt;
    let Ok(mut bank) = UringBank::new() else { return };
    for dir in directories() {
        let path = image(&dir, "disk");
        let has_direct = std::fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(&path).is_ok();
        let device = bank.open(&path, ImageOptions::default()).unwrap();
        // A file system may take the flag and still say that it does not do it.
        assert!(has_direct || !bank.is_direct(device), "{}", path.display());
        let limits = bank.limits(device);
        assert!(limits.preferred.0.is_multiple_of(limits.logical_block.0), "{limits:?}");
    }
}
