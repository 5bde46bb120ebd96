//! Overlays: originals that are only read, and files beside them that keep what was written.
//!
//! Whoever recovers a failed array wants to try things without harming the disks further; the usual
//! means is a device-mapper snapshot over each. An overlay is that without privileges: the original
//! is opened read-only, every write goes to a sparse file, and `commit` or `discard` ends it.
//!
//! The file, with P pages of map, one for each 15.9 MiB of the original:
//!
//! ```text
//! 0      4 KiB    8 KiB               1 MiB + 8 KiB
//! +--------+--------+-- - - - - - - - --+-- - - - - --+-- - - - - --+-- - - - - - - - - - - - - - --+
//! | header | header | log               | map, P * 4K | map again   | data: sector n of the original |
//! | copy 0 | copy 1 | of unsynced bits  | copy 0      | copy 1      | lies at 512 * n, if written    |
//! +--------+--------+-- - - - - - - - --+-- - - - - --+-- - - - - --+-- - - - - - - - - - - - - - --+
//! ```
//!
//! Data has its place by address, so the file system's own sparse allocation is the allocator, and
//! zeroes and discards are holes. The map has a bit for each sector, not for each block: a small write
//! copies nothing up, and what `commit` changes is what was written. All structures carry a CRC-32.
//!
//! A sector whose bit is set is believed, so a bit must not reach the disk before its data. But
//! `kill -9` must lose nothing either, and a write cannot wait for the disk. Hence two steps:
//!
//! * A write appends a *record* to the log (addresses, and a CRC-32 of each sector to come), then
//!   stores the data, then is acknowledged: all in the page cache. After a crash, of whichever kind, a
//!   sector of a record is believed if its bytes have the CRC of the record; else it was not stored,
//!   nobody was promised it, and the original shows. Sectors that the map has need no record: old and
//!   new bytes are both theirs.
//! * A flush, a durable write or a full log makes a *checkpoint*: sync the data; write the changed
//!   pages of the map, copy 0; sync; write copy 1. A page torn by a power cut fails its CRC, and the
//!   other copy is whole: copy 1 is durable before copy 0 is touched again, by the first sync of the
//!   next checkpoint. Bits are only ever set, so where both copies are whole, their union counts.
//!
//! Opening replays the log, makes a checkpoint and empties the log before the first request, so that
//! what one crash decided the next one does not decide again. If a sync fails, nobody knows what the
//! kernel dropped: the device answers `Offline` until it is opened anew.
//!
//! `commit` marks the header first; from then on only `commit` is accepted, which starts over and
//! ends alike however often it is killed.

#[cfg(test)]
mod crash;
mod format;
mod shadow;
mod store;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{LockedFile, Sharing};
use crate::block::{
    Bank, Completion, DeviceId, Durability, Instant, IoError, Limits, Op, Request, SECTOR_BYTES, Sectors,
};
use format::{Fingerprint, Header, HeaderFault, LOG_BYTES, Purpose};
use shadow::{LoadError, Shadow};
use store::{Source, Store};

/// A bank of disks, each an original and the overlay file that keeps its changes. Requests are
/// carried out when they are submitted; `poll` hands the completions over.
#[derive(Default)]
pub struct OverlayBank {
    disks: Vec<Overlaid>,
    done: Vec<(DeviceId, Completion)>,
}

struct Overlaid {
    capacity: Sectors,
    /// None once it is closed.
    shadow: Option<Shadow<LockedFile, LockedFile>>,
}

/// What an overlay holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverlayStatus {
    /// Size of the original in bytes.
    pub capacity_bytes: u64,
    /// Bytes that differ, or may differ, from the original's: every sector that was written.
    pub changed_bytes: u64,
    /// Runs of such sectors.
    pub changed_extents: u64,
    /// A commit was begun and not finished: only a commit is possible.
    pub commit_unfinished: bool,
}

/// Why an overlay cannot be opened, committed or discarded.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process, or another part of this one, has the file.
    #[error("{} is in use elsewhere", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The original is neither a regular file nor a block device.
    #[error("{} is neither a file nor a block device", path.display())]
    NotADisk {
        /// What was named.
        path: PathBuf,
    },
    /// The original is no disk: empty, or its size no multiple of 512 bytes.
    #[error("{} has {bytes} bytes: a disk has one or more whole sectors of 512", path.display())]
    NotWholeSectors {
        /// The original.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is something else.
    #[error("{} is not an overlay", path.display())]
    NotAnOverlay {
        /// The file.
        path: PathBuf,
    },
    /// A later version of raidlab made it.
    #[error("{} is an overlay of version {version}, this program knows version 1", path.display())]
    UnknownVersion {
        /// The overlay.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The overlay was cut short: changes may be missing.
    #[error("overlay {} was cut short: {bytes} bytes are left", path.display())]
    Truncated {
        /// The overlay.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Both copies of the header are damaged.
    #[error("the header of overlay {} is damaged in both copies", path.display())]
    HeaderDamaged {
        /// The overlay.
        path: PathBuf,
    },
    /// Both copies of a page of the map are damaged.
    #[error("page {page} of the map of overlay {} is damaged in both copies", path.display())]
    MapDamaged {
        /// The overlay.
        path: PathBuf,
        /// Which 15.9 MiB of the original are concerned, counted from 0.
        page: u64,
    },
    /// The original is not what the overlay was made over.
    #[error("{} is not what its overlay {} was made over: {change}", original.display(), overlay.display())]
    OriginalChanged {
        /// The original.
        original: PathBuf,
        /// The overlay.
        overlay: PathBuf,
        /// How that is known.
        change: OriginalChange,
    },
    /// A commit was interrupted, the original holds some of the changes.
    #[error("a commit of overlay {} was interrupted and must be finished first", path.display())]
    CommitUnfinished {
        /// The overlay.
        path: PathBuf,
    },
}

/// How an original differs from what its overlay remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OriginalChange {
    /// Its size.
    #[error("it had {recorded} bytes and has {found}")]
    Size {
        /// Bytes when the overlay was made.
        recorded: u64,
        /// Bytes now.
        found: u64,
    },
    /// Its first 64 KiB.
    #[error("its first 64 KiB are different")]
    Head,
    /// The time of its last change.
    #[error("it was modified since")]
    Modified,
}

/// Where an original's overlay lies unless another place is named: `NAME.overlay` beside it. No place
/// for the overlay of a block device, whose directory is not on a disk.
pub fn overlay_beside(original: &Path) -> PathBuf {
    let mut name = original.as_os_str().to_owned();
    name.push(".overlay");
    PathBuf::from(name)
}

impl OverlayBank {
    /// A bank without disks.
    pub fn new() -> OverlayBank {
        OverlayBank::default()
    }

    /// Adds the disk that `original` is with the changes in `overlay`, which is made if it is not
    /// there. The original is locked shared and never opened for writing, the overlay is locked alone.
    pub fn open(&mut self, original: &Path, overlay: &Path) -> Result<DeviceId, OverlayError> {
        let source = open_original(original)?;
        let store = match open_overlay(overlay) {
            Err(OverlayError::Io { source: error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                create(&source, original, overlay)?
            }
            other => other?,
        };
        let header = header_of(&store, overlay)?;
        if header.purpose == Purpose::Commit {
            return Err(OverlayError::CommitUnfinished { path: overlay.to_owned() });
        }
        recognise(&source, original, &header, overlay)?;
        let mut shadow = Shadow::load(source, store).map_err(|error| error.of(overlay))?;
        shadow.settle().map_err(io_error("write", overlay))?;
        Ok(self.push(shadow))
    }

    /// Lets go of original and overlay; requests that come later fail.
    pub fn close(&mut self, device: DeviceId) {
        self.disks[device.0 as usize].shadow = None;
    }

    fn push(&mut self, shadow: Shadow<LockedFile, LockedFile>) -> DeviceId {
        self.disks.push(Overlaid { capacity: shadow.capacity(), shadow: Some(shadow) });
        DeviceId(self.disks.len() as u32 - 1)
    }

    /// Adds a disk to be read only, while others read it too. The overlay, which must be there, does not change.
    pub fn look(&mut self, original: &Path, overlay: &Path) -> Result<DeviceId, OverlayError> {
        let source = open_original(original)?;
        let store = File::open(overlay).map_err(io_error("open", overlay))?;
        let store = lock(store, Sharing::Shared, overlay)?;
        recognise(&source, original, &header_of(&store, overlay)?, overlay)?;
        let shadow = Shadow::load(source, store).map_err(|error| error.of(overlay))?;
        Ok(self.push(shadow))
    }

    /// What the overlay of `device`, which was not closed, holds by now.
    pub fn status(&self, device: DeviceId) -> OverlayStatus {
        let shadow = self.disks[device.0 as usize].shadow.as_ref().expect("it is open");
        status_of(shadow, Purpose::Keep)
    }
}

impl Bank for OverlayBank {
    fn limits(&self, device: DeviceId) -> Limits {
        Limits::of_disk(self.disks[device.0 as usize].capacity)
    }

    fn submit(&mut self, device: DeviceId, mut request: Request, _now: Instant) {
        let refused = self.limits(device).refuse(&request);
        let result = match (refused, &mut self.disks[device.0 as usize].shadow) {
            (Some(error), _) => Err(error),
            (None, Some(shadow)) => carry_out(shadow, &mut request),
            (None, None) => Err(IoError::Offline),
        };
        self.done.push((device, request.complete(result)));
    }

    fn poll(&mut self, _now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        done.append(&mut self.done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        (!self.done.is_empty()).then_some(Instant::START)
    }
}

fn carry_out<O: Source, S: Store>(disk: &mut Shadow<O, S>, request: &mut Request) -> Result<(), IoError> {
    assert!(request.grain().is_none_or(|grain| u64::from(grain) == SECTOR_BYTES), "files hold whole sectors");
    match &mut request.op {
        Op::Read(buf) => disk.read(request.extent, buf)?,
        Op::Write(payload, _) => disk.write(request.extent, payload)?,
        Op::WriteZeroes(_) | Op::Discard => disk.zero(request.extent)?,
        Op::Flush => {}
    }
    match request.op {
        Op::Flush | Op::Write(_, Durability::Fua) | Op::WriteZeroes(Durability::Fua) => disk.flush(),
        _ => Ok(()),
    }
}

/// What the overlay at rest holds. Writes nothing; refused while it is in use.
pub fn overlay_status(original: &Path, overlay: &Path) -> Result<OverlayStatus, OverlayError> {
    let source = open_original(original)?;
    let store = File::open(overlay).map_err(io_error("open", overlay))?;
    let store = lock(store, Sharing::Shared, overlay)?;
    let header = header_of(&store, overlay)?;
    recognise(&source, original, &header, overlay)?;
    let shadow = Shadow::load(source, store).map_err(|error| error.of(overlay))?;
    Ok(status_of(&shadow, header.purpose))
}

/// Writes the changes into the original, makes them durable there and removes the overlay. If it is
/// interrupted it must be run again, and then starts over. Says what was committed.
pub fn overlay_commit(original: &Path, overlay: &Path) -> Result<OverlayStatus, OverlayError> {
    let target =
        OpenOptions::new().read(true).write(true).open(original).map_err(io_error("open for writing", original))?;
    let target = lock(target, Sharing::Alone, original)?;
    let store = open_overlay(overlay)?;
    let header = header_of(&store, overlay)?;
    recognise(&target, original, &header, overlay)?;
    let mut shadow = Shadow::load(&*target, store).map_err(|error| error.of(overlay))?;
    shadow.settle().map_err(io_error("write", overlay))?;
    let committing = Header { purpose: Purpose::Commit, ..header };
    shadow::write_header(shadow.store_mut(), &committing).map_err(io_error("write", overlay))?;
    let status = status_of(&shadow, header.purpose);
    shadow
        .copy_changed(|bytes, offset| target.write_all_at(bytes, offset))
        .and_then(|()| target.sync_all())
        .map_err(io_error("commit into", original))?;
    remove(overlay)?;
    Ok(status)
}

/// Removes the overlay and with it every change. Refused while it is in use or a commit is unfinished.
pub fn overlay_discard(overlay: &Path) -> Result<(), OverlayError> {
    let store = open_overlay(overlay)?;
    if header_of(&store, overlay)?.purpose == Purpose::Commit {
        return Err(OverlayError::CommitUnfinished { path: overlay.to_owned() });
    }
    remove(overlay)
}

fn status_of<O: Source, S: Store>(shadow: &Shadow<O, S>, purpose: Purpose) -> OverlayStatus {
    let changed = shadow.changed();
    OverlayStatus {
        capacity_bytes: shadow.capacity().bytes(),
        changed_bytes: changed.iter().map(|extent| extent.length.bytes()).sum(),
        changed_extents: changed.len() as u64,
        commit_unfinished: purpose == Purpose::Commit,
    }
}

fn open_original(path: &Path) -> Result<LockedFile, OverlayError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let kind = file.metadata().map_err(io_error("look at", path))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(OverlayError::NotADisk { path: path.to_owned() });
    }
    lock(file, Sharing::Shared, path)
}

fn open_overlay(path: &Path) -> Result<LockedFile, OverlayError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
    lock(file, Sharing::Alone, path)
}

fn lock(file: File, sharing: Sharing, path: &Path) -> Result<LockedFile, OverlayError> {
    match LockedFile::new(file, sharing) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(OverlayError::InUse { path: path.to_owned() }),
        Err(error) => Err(io_error("lock", path)(error)),
        Ok(file) => {
            // Whoever had it before may have removed it between our opening and our locking.
            let links = file.metadata().map_err(io_error("look at", path))?.nlink();
            if links > 0 { Ok(file) } else { Err(OverlayError::InUse { path: path.to_owned() }) }
        }
    }
}

/// Makes the overlay under another name and gives it its own when it is whole and durable.
fn create(source: &File, original: &Path, overlay: &Path) -> Result<LockedFile, OverlayError> {
    let bytes = size_of(source, original)?;
    if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(OverlayError::NotWholeSectors { path: original.to_owned(), bytes });
    }
    let header = Header { original: fingerprint(source, original)?, purpose: Purpose::Keep, log_bytes: LOG_BYTES };
    let mut unfinished = overlay.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let store = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&unfinished)
        .map_err(io_error("create", &unfinished))?;
    let mut store = lock(store, Sharing::Alone, &unfinished)?;
    if overlay.exists() {
        return Err(OverlayError::InUse { path: overlay.to_owned() });
    }
    let made = store
        .set_len(0)
        .and_then(|()| store.set_len(header.layout().file_bytes()))
        .and_then(|()| shadow::write_header(&mut store, &header))
        .and_then(|()| store.sync_all())
        .and_then(|()| std::fs::rename(&unfinished, overlay))
        .and_then(|()| sync_directory(overlay));
    match made {
        Ok(()) => Ok(store),
        Err(error) => {
            // Best effort: the next attempt takes over what is left.
            let _left = std::fs::remove_file(&unfinished);
            Err(io_error("create", overlay)(error))
        }
    }
}

fn remove(overlay: &Path) -> Result<(), OverlayError> {
    std::fs::remove_file(overlay).and_then(|()| sync_directory(overlay)).map_err(io_error("remove", overlay))
}

fn sync_directory(of: &Path) -> io::Result<()> {
    let directory = of.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn header_of(store: &File, overlay: &Path) -> Result<Header, OverlayError> {
    shadow::read_header(&store).map_err(|error| error.of(overlay))
}

/// Refuses an original that is not the one the overlay was made over. Once a commit has begun only
/// its size can tell.
fn recognise(source: &File, original: &Path, header: &Header, overlay: &Path) -> Result<(), OverlayError> {
    let recorded = header.original;
    let found = size_of(source, original)?;
    let change = if found != recorded.bytes {
        Some(OriginalChange::Size { recorded: recorded.bytes, found })
    } else if header.purpose == Purpose::Commit {
        None
    } else {
        let now = fingerprint(source, original)?;
        let is_modified = (now.modified_ns != recorded.modified_ns).then_some(OriginalChange::Modified);
        if now.head_crc32 == recorded.head_crc32 { is_modified } else { Some(OriginalChange::Head) }
    };
    change.map_or(Ok(()), |change| {
        let (original, overlay) = (original.to_owned(), overlay.to_owned());
        Err(OverlayError::OriginalChanged { original, overlay, change })
    })
}

/// The size in bytes, of a block device too.
fn size_of(mut file: &File, path: &Path) -> Result<u64, OverlayError> {
    file.seek(io::SeekFrom::End(0)).map_err(io_error("look at", path))
}

fn fingerprint(file: &File, path: &Path) -> Result<Fingerprint, OverlayError> {
    let bytes = size_of(file, path)?;
    let mut head = vec![0; bytes.min(64 << 10) as usize];
    file.read_at(&mut head, 0).map_err(io_error("read", path))?;
    let metadata = file.metadata().map_err(io_error("look at", path))?;
    let modified_ns = if metadata.file_type().is_block_device() {
        0
    } else {
        i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
    };
    Ok(Fingerprint { bytes, head_crc32: crc32fast::hash(&head), modified_ns })
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OverlayError {
    let path = path.to_owned();
    move |source| OverlayError::Io { doing, path, source }
}

impl LoadError {
    fn of(self, overlay: &Path) -> OverlayError {
        let path = overlay.to_owned();
        match self {
            LoadError::Io(source) => OverlayError::Io { doing: "read", path, source },
            LoadError::Header(HeaderFault::Foreign) => OverlayError::NotAnOverlay { path },
            LoadError::Header(HeaderFault::Version(version)) => OverlayError::UnknownVersion { path, version },
            LoadError::Header(HeaderFault::Damaged) => OverlayError::HeaderDamaged { path },
            LoadError::Truncated { bytes } => OverlayError::Truncated { path, bytes },
            LoadError::Map { page } => OverlayError::MapDamaged { path, page },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    use super::format::PAGE_SECTORS;
    use super::*;
    use crate::block::{Buf, Extent, Lba, Payload, RequestId, Sectors};

    struct Lab {
        _directory: tempfile::TempDir,
        original: PathBuf,
        overlay: PathBuf,
    }

    impl Lab {
        fn new(sectors: u64) -> Lab {
            let directory = tempfile::tempdir().unwrap();
            let original = directory.path().join("disk-0.img");
            let file = File::create(&original).unwrap();
            file.set_len(sectors * 512).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[0xee; 4096], 0).unwrap();
            let overlay = overlay_beside(&original);
            Lab { _directory: directory, original, overlay }
        }

        fn open(&self) -> Result<(OverlayBank, DeviceId), OverlayError> {
            let mut bank = OverlayBank::new();
            let device = bank.open(&self.original, &self.overlay)?;
            Ok((bank, device))
        }

        fn refusal(&self) -> String {
            match self.open() {
                Ok(_) => panic!("it should have been refused"),
                Err(error) => error.to_string().replace(self.original.to_str().unwrap(), "IMG"),
            }
        }
    }

    fn run(bank: &mut OverlayBank, device: DeviceId, start: u64, length: u64, op: Op) -> Result<Op, IoError> {
        let request = Request { id: RequestId(0), extent: Extent::new(Lba(start), Sectors(length)), op };
        bank.submit(device, request, Instant::START);
        let mut done = Vec::new();
        bank.poll(Instant::START, &mut done);
        assert_eq!(done.len(), 1, "one completion per request");
        let completion = done.remove(0).1;
        completion.result.map(|()| completion.op)
    }

    fn write(bank: &mut OverlayBank, device: DeviceId, start: u64, bytes: &[u8]) {
        let op = Op::Write(Payload::copy_of(bytes), Durability::Volatile);
        run(bank, device, start, bytes.len() as u64 / 512, op).unwrap();
    }

    fn read(bank: &mut OverlayBank, device: DeviceId, start: u64, length: u64) -> Vec<u8> {
        match run(bank, device, start, length, Op::Read(Buf::zeroed((length * 512) as usize))).unwrap() {
            Op::Read(buf) => buf.to_vec(),
            other => panic!("a read came back as {}", other.name()),
        }
    }

    /// Random requests of every kind around a border of map pages, beside a plain array of bytes; the
    /// bank is dropped and opened anew now and then, as if the process had been killed. In the end
    /// the original is still what it was, and commit makes it the array of bytes.
    #[test]
    fn an_overlay_reads_as_a_disk_and_leaves_the_original_alone_until_it_is_committed() {
        let sectors = PAGE_SECTORS + 100;
        for seed in 0..6 {
            let lab = Lab::new(sectors);
            let before = fs::read(&lab.original).unwrap();
            let mut model = before.clone();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut below = move |limit: u64| rng.next_u64() % limit;
            let (mut bank, mut device) = lab.open().unwrap();
            for step in 0..300_u64 {
                let start = [0, PAGE_SECTORS - 20, sectors - 30][below(3) as usize] + below(30);
                let length = 1 + below((sectors - start).min(60));
                let range = (start * 512) as usize..((start + length) * 512) as usize;
                let durability = [Durability::Volatile, Durability::Fua][usize::from(below(10) == 0)];
                match below(8) {
                    0..3 => {
                        let bytes: Vec<u8> = range.clone().map(|at| (at as u64 / 512 + step * 7) as u8).collect();
                        let mut payload = Payload::copy_of(&bytes[..100]);
                        payload.append(Payload::copy_of(&bytes[100..]));
                        run(&mut bank, device, start, length, Op::Write(payload, durability)).unwrap();
                        model[range].copy_from_slice(&bytes);
                    }
                    3 => {
                        run(&mut bank, device, start, length, Op::WriteZeroes(durability)).unwrap();
                        model[range].fill(0);
                    }
                    4 => {
                        run(&mut bank, device, start, length, Op::Discard).unwrap();
                        model[range].fill(0);
                    }
                    5 if below(4) == 0 => {
                        drop(bank);
                        (bank, device) = lab.open().unwrap();
                    }
                    5 => {
                        run(&mut bank, device, 0, 0, Op::Flush).unwrap();
                    }
                    _ => assert_eq!(read(&mut bank, device, start, length), model[range], "seed {seed}, step {step}"),
                }
            }
            assert_eq!(read(&mut bank, device, 0, sectors), model);
            let status = bank.status(device);
            drop(bank);
            assert_eq!(fs::read(&lab.original).unwrap(), before);
            assert_eq!(overlay_status(&lab.original, &lab.overlay).unwrap(), status);
            assert_eq!(overlay_commit(&lab.original, &lab.overlay).unwrap(), status);
            assert_eq!(fs::read(&lab.original).unwrap(), model);
            assert!(!lab.overlay.exists());
        }
    }

    #[test]
    fn the_status_counts_what_was_written_and_discard_forgets_it() {
        let lab = Lab::new(100);
        let (mut bank, device) = lab.open().unwrap();
        write(&mut bank, device, 3, &[1; 1024]);
        write(&mut bank, device, 5, &[2; 512]);
        write(&mut bank, device, 99, &[3; 512]);
        let status =
            OverlayStatus { capacity_bytes: 51200, changed_bytes: 2048, changed_extents: 2, commit_unfinished: false };
        assert_eq!(bank.status(device), status);
        drop(bank);
        overlay_discard(&lab.overlay).unwrap();
        let (mut bank, device) = lab.open().unwrap();
        assert_eq!(read(&mut bank, device, 3, 2), [0xee; 1024]);
        assert_eq!(bank.status(device).changed_bytes, 0);
    }

    #[test]
    fn an_overlay_in_use_is_left_alone() {
        let lab = Lab::new(100);
        let (bank, _) = lab.open().unwrap();
        let in_use = "IMG.overlay is in use elsewhere";
        assert_eq!(lab.refusal(), in_use);
        for error in [
            overlay_status(&lab.original, &lab.overlay).unwrap_err(),
            overlay_commit(&lab.original, &lab.overlay).unwrap_err(),
            overlay_discard(&lab.overlay).unwrap_err(),
        ] {
            assert!(matches!(error, OverlayError::InUse { .. }), "{error}");
        }
        drop(bank);
        let second = overlay_beside(&lab.overlay);
        let mut bank = OverlayBank::new();
        bank.open(&lab.original, &lab.overlay).unwrap();
        bank.open(&lab.original, &second).expect("two overlays may share an original");
    }

    #[test]
    fn a_changed_original_is_refused_and_says_how_it_differs() {
        let lab = Lab::new(100);
        drop(lab.open().unwrap());
        let change = |change: &dyn Fn(&File)| {
            let file = OpenOptions::new().write(true).open(&lab.original).unwrap();
            change(&file);
            let refusal = lab.refusal();
            assert!(refusal.starts_with("IMG is not what its overlay IMG.overlay was made over: "), "{refusal}");
            refusal.rsplit(": ").next().unwrap().to_owned()
        };
        assert_eq!(change(&|file| file.set_len(512 * 101).unwrap()), "it had 51200 bytes and has 51712");
        let touch = |file: &File| {
            file.set_len(512 * 100).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        };
        assert_eq!(change(&touch), "it was modified since");
        let first_byte = |file: &File| std::os::unix::fs::FileExt::write_all_at(file, &[0], 0).unwrap();
        assert_eq!(change(&first_byte), "its first 64 KiB are different");
    }

    #[test]
    fn what_is_no_overlay_and_what_is_no_disk_is_refused_and_not_written() {
        let lab = Lab::new(100);
        fs::write(&lab.overlay, b"somebody's letters").unwrap();
        assert_eq!(lab.refusal(), "IMG.overlay is not an overlay");
        assert!(matches!(overlay_discard(&lab.overlay), Err(OverlayError::NotAnOverlay { .. })));
        assert_eq!(fs::read(&lab.overlay).unwrap(), b"somebody's letters");
        fs::remove_file(&lab.overlay).unwrap();
        for bytes in [0, 1000] {
            File::options().write(true).open(&lab.original).unwrap().set_len(bytes).unwrap();
            assert_eq!(lab.refusal(), format!("IMG has {bytes} bytes: a disk has one or more whole sectors of 512"));
        }
        assert!(!lab.overlay.exists());
        let mut bank = OverlayBank::new();
        let directory = lab.original.parent().unwrap();
        assert!(matches!(bank.open(directory, &lab.overlay), Err(OverlayError::NotADisk { .. })));
        let missing = directory.join("nowhere");
        assert!(matches!(bank.open(&missing, &lab.overlay), Err(OverlayError::Io { doing: "open", .. })));
    }

    #[test]
    fn a_truncated_overlay_is_refused_and_may_be_discarded() {
        let lab = Lab::new(100);
        drop(lab.open().unwrap());
        File::options().write(true).open(&lab.overlay).unwrap().set_len(8192).unwrap();
        assert_eq!(lab.refusal(), "overlay IMG.overlay was cut short: 8192 bytes are left");
        overlay_discard(&lab.overlay).unwrap();
    }

    /// The header of one copy is destroyed, then of both.
    #[test]
    fn one_copy_of_the_header_is_enough() {
        let lab = Lab::new(100);
        let damage = |at| {
            let file = File::options().write(true).open(&lab.overlay).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[1], at).unwrap();
        };
        drop(lab.open().unwrap());
        damage(40);
        drop(lab.open().unwrap());
        damage(4096 + 40);
        assert_eq!(lab.refusal(), "the header of overlay IMG.overlay is damaged in both copies");
    }

    /// A commit dies when it has marked the header and copied some: as an open file shows it.
    #[test]
    fn an_interrupted_commit_can_only_be_finished() {
        let lab = Lab::new(100);
        let (mut bank, device) = lab.open().unwrap();
        write(&mut bank, device, 7, &[7; 1024]);
        let expected = read(&mut bank, device, 0, 100);
        drop(bank);
        let mut store = open_overlay(&lab.overlay).unwrap();
        let header = header_of(&store, &lab.overlay).unwrap();
        shadow::write_header(&mut store, &Header { purpose: Purpose::Commit, ..header }).unwrap();
        drop(store);
        let target = File::options().read(true).write(true).open(&lab.original).unwrap();
        target.write_at(&[7; 512], 7 * 512).unwrap();
        drop(target);
        assert_eq!(lab.refusal(), "a commit of overlay IMG.overlay was interrupted and must be finished first");
        assert!(matches!(overlay_discard(&lab.overlay), Err(OverlayError::CommitUnfinished { .. })));
        assert!(overlay_status(&lab.original, &lab.overlay).unwrap().commit_unfinished);
        overlay_commit(&lab.original, &lab.overlay).unwrap();
        assert_eq!(fs::read(&lab.original).unwrap(), expected);
    }

    #[test]
    fn the_original_may_be_read_only() {
        let lab = Lab::new(100);
        let mut permissions = fs::metadata(&lab.original).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&lab.original, permissions).unwrap();
        let (mut bank, device) = lab.open().unwrap();
        write(&mut bank, device, 0, &[1; 512]);
        assert_eq!(read(&mut bank, device, 0, 2), [[1; 512], [0xee; 512]].concat());
        let flags = rustix::fs::fcntl_getfl(bank.disks[0].shadow.as_ref().unwrap().original()).unwrap();
        assert_eq!(flags & rustix::fs::OFlags::ACCMODE, rustix::fs::OFlags::RDONLY);
    }
}
