//! Image files and block devices: made, opened, locked, sized.
//!
//! A disk that two programs write at once is soon no disk, so an opener takes a lock first. The
//! lock (`flock`) belongs to the open file and not to the process: a second opener is refused in
//! this process as in another, and a killed process leaves no lock behind. A block device is also
//! claimed with `O_EXCL`, which the kernel refuses while it is mounted or part of a running array.
//!
//! Zeroing and discarding go through `fallocate`, on files and block devices alike; what it does
//! not support is written as zeroes, so that both always read back as zero.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FallocateFlags, OFlags, SeekFrom, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};
use smallvec::SmallVec;
use thiserror::Error;

use super::{LockedFile, Sharing};
use crate::block::{
    BUFFER_ALIGN, Buf, Durability, Extent, IoError, Lba, Limits, Op, Payload, Request, SECTOR_BYTES, Sectors,
};

/// How to open an image or a block device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ImageOptions {
    /// Take no writes; any number of readers may hold the file at once.
    pub read_only: bool,
    /// Refuse a file that holds less than this.
    pub minimum: Sectors,
}

/// Where the space of a new image comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Taken from the file system at once: a write can not run out of it later.
    Preallocated,
    /// Taken by the first write to each part: a full file system then fails the write.
    Sparse,
}

/// Why an image could not be made or opened.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Another opener, in this process or another, holds the file.
    #[error("{} is in use: another program, or another disk here, has it open", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The kernel holds the block device: mounted, or part of an array or mapping.
    #[error("{} is in use: mounted, or part of a running array", path.display())]
    Busy {
        /// The device.
        path: PathBuf,
    },
    /// The file is smaller than asked for, or smaller than one block.
    #[error("{} holds {bytes} bytes, {needed} are needed", path.display())]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// What it holds.
        bytes: u64,
        /// What was asked for, in bytes.
        needed: u64,
    },
    /// Neither a regular file nor a block device.
    #[error("{} is neither a regular file nor a block device", path.display())]
    NotRegular {
        /// What it is called.
        path: PathBuf,
    },
    /// A new image was to be made where something is already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file system cannot hold the new image.
    #[error("no space for {} ({needed} bytes, {available} available)", path.display())]
    NoSpace {
        /// The image that was to be made.
        path: PathBuf,
        /// Its size in bytes.
        needed: u64,
        /// What the file system has left, in bytes.
        available: u64,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What was tried: open, lock, map, …
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// More images are mapped than the SIGBUS guard can watch.
    #[error("cannot map {}: {limit} images are mapped already", path.display())]
    TooManyMapped {
        /// The file.
        path: PathBuf,
        /// How many can be.
        limit: usize,
    },
}

/// An open, locked image file or block device. Dropping it lets go of the lock.
#[derive(Debug)]
pub struct Image {
    file: LockedFile,
    path: PathBuf,
    kind: Kind,
    limits: Limits,
    direct: Option<Alignment>,
    /// A forced write failed since the last flush.
    cache_in_doubt: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Regular,
    BlockDevice,
}

/// What `O_DIRECT` asks of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Alignment {
    /// Buffers begin on multiples of this, in bytes.
    pub memory: usize,
    /// Extents, and so the lengths of buffer parts, are multiples of this.
    pub block: Sectors,
}

/// Most parts one system call takes (`UIO_MAXIOV`).
pub(super) const PARTS_MAX: usize = 1024;

/// Zeroes are written in pieces of this many bytes where `fallocate` does not serve.
pub(super) const ZERO_PIECE: u64 = 16 << 20;

impl Image {
    /// Makes an image file of `capacity` zero sectors. Nothing is left behind if that fails.
    pub fn create(path: &Path, capacity: Sectors, space: Space) -> Result<(), ImageError> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(|source| {
                match source.kind() {
                    io::ErrorKind::AlreadyExists => ImageError::Exists { path: path.to_owned() },
                    _ => refused(path, "create", source),
                }
            })?;
        let unfinished = Unfinished(path);
        match space {
            Space::Preallocated => preallocate(&file, path, capacity.bytes())?,
            Space::Sparse => file.set_len(capacity.bytes()).map_err(|source| refused(path, "size", source))?,
        }
        file.sync_all().map_err(|source| refused(path, "sync", source))?;
        // The name is durable only when the directory is.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(|source| refused(parent, "sync", source))?;
        std::mem::forget(unfinished);
        Ok(())
    }

    /// Opens and locks an image or block device; reads and writes go through the page cache.
    pub fn open(path: &Path, options: ImageOptions) -> Result<Image, ImageError> {
        Image::open_with(path, options, false)
    }

    /// Opens and locks an image or block device with `O_DIRECT`, or through the page cache where the
    /// file system has no direct I/O: [`Image::is_direct`] tells.
    pub fn open_direct(path: &Path, options: ImageOptions) -> Result<Image, ImageError> {
        Image::open_with(path, options, true)
    }

    fn open_with(path: &Path, options: ImageOptions, direct: bool) -> Result<Image, ImageError> {
        let open_refused = |source| refused(path, "open", source);
        // Asked before opening: opening a FIFO would wait for its writer.
        let kind = kind_of(path, &path.metadata().map_err(open_refused)?)?;
        let file = match open_file(path, options, kind, direct) {
            Err(error) if direct && error.raw_os_error() == Some(libc::EINVAL) => open_file(path, options, kind, false),
            opened => opened,
        };
        let file = file.map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => ImageError::Busy { path: path.to_owned() },
            _ => open_refused(source),
        })?;
        let metadata = file.metadata().map_err(open_refused)?;
        let kind = kind_of(path, &metadata)?;
        let file = lock(file, path, options.read_only)?;

        let (bytes, device_block) = match kind {
            Kind::Regular => (metadata.len(), Sectors(1)),
            Kind::BlockDevice => (
                rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|errno| refused(path, "size", errno.into()))?,
                block_size(&file).map_err(|errno| refused(path, "size", errno.into()))?,
            ),
        };
        let direct = if direct { direct_alignment(&file, device_block, bytes) } else { None };
        if direct.is_none() {
            without_direct(&file).map_err(|errno| open_refused(errno.into()))?;
        }
        let logical_block = direct.map_or(device_block, |alignment| alignment.block.max(device_block));
        let capacity = Sectors::floor_bytes(bytes).round_down(logical_block);
        let needed = options.minimum.max(logical_block);
        if capacity < needed {
            return Err(ImageError::TooSmall { path: path.to_owned(), bytes, needed: needed.bytes() });
        }
        let of_disk = Limits::of_disk(capacity);
        let preferred = of_disk.preferred.max(logical_block);
        let limits = Limits { logical_block, preferred, read_only: options.read_only, ..of_disk };
        Ok(Image { file, path: path.to_owned(), kind, limits, direct, cache_in_doubt: AtomicBool::new(false) })
    }

    /// What the disk is and takes.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Where the image is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether reads and writes go past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// What direct I/O asks for; `None` through the page cache.
    pub(super) fn alignment(&self) -> Option<Alignment> {
        self.direct
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Why a request cannot be taken, if it cannot. An image carries whole sectors.
    pub(super) fn refuse(limits: &Limits, request: &Request) -> Option<IoError> {
        let grain = request.grain();
        assert!(grain.is_none_or(|grain| u64::from(grain) == SECTOR_BYTES), "grain {grain:?} on an image");
        limits.refuse(request)
    }

    /// Fills `buf` from `extent`.
    pub(super) fn read(&self, extent: Extent, buf: &mut Buf) -> Result<(), IoError> {
        let mut parts: SmallVec<[IoSliceMut; 4]> = buf.parts_mut().map(IoSliceMut::new).collect();
        let mut rest = &mut parts[..];
        let mut at = extent.start.bytes();
        while !rest.is_empty() {
            let now = rest.len().min(PARTS_MAX);
            match rustix::io::preadv(&self.file, &mut rest[..now], at) {
                // The file ends before the disk does.
                Ok(0) => return Err(IoError::Medium),
                Ok(moved) => {
                    IoSliceMut::advance_slices(&mut rest, moved);
                    at += moved as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(io_error(errno)),
            }
        }
        Ok(())
    }

    /// Stores `payload` at `extent`.
    pub(super) fn write(&self, extent: Extent, payload: &Payload, durability: Durability) -> Result<(), IoError> {
        match durability {
            Durability::Volatile => self.write_with(extent, payload, ReadWriteFlags::empty()),
            // Only this range becomes durable: an fdatasync would wait for everything else as well.
            Durability::Fua => match self.write_with(extent, payload, ReadWriteFlags::DSYNC) {
                Err(IoError::Unsupported) => {
                    self.write_with(extent, payload, ReadWriteFlags::empty())?;
                    self.sync()
                }
                result => result,
            },
        }
    }

    fn write_with(&self, extent: Extent, payload: &Payload, flags: ReadWriteFlags) -> Result<(), IoError> {
        let mut parts: SmallVec<[IoSlice; 4]> =
            payload.slices().filter(|slice| !slice.is_empty()).map(IoSlice::new).collect();
        let mut rest = &mut parts[..];
        let mut at = extent.start.bytes();
        while !rest.is_empty() {
            let now = &rest[..rest.len().min(PARTS_MAX)];
            let written = if flags.is_empty() {
                rustix::io::pwritev(&self.file, now, at)
            } else {
                rustix::io::pwritev2(&self.file, now, at, flags)
            };
            match written {
                Ok(0) => return Err(IoError::Medium),
                Ok(moved) => {
                    IoSlice::advance_slices(&mut rest, moved);
                    at += moved as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(io_error(errno)),
            }
        }
        Ok(())
    }

    /// Makes `extent` read as zero: `op` is a `WriteZeroes`, which keeps the space, or a `Discard`,
    /// which gives it back.
    pub(super) fn zero(&self, extent: Extent, op: &Op) -> Result<(), IoError> {
        let (start, length) = (extent.start.bytes(), extent.length.bytes());
        let mode = zeroing_mode(op);
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, mode, start, length)) {
            Ok(()) => Ok(()),
            Err(errno) if not_supported(errno) => self.write_zeroes(extent),
            Err(errno) => Err(io_error(errno)),
        }
    }

    fn write_zeroes(&self, extent: Extent) -> Result<(), IoError> {
        let piece = Sectors::floor_bytes(ZERO_PIECE);
        let mut at = extent.start;
        while at < extent.end() {
            let length = piece.min(extent.end() - at);
            let zeroes = Payload::zeroes(length.bytes() as usize);
            self.write(Extent::new(at, length), &zeroes, Durability::Volatile)?;
            at = at + length;
        }
        Ok(())
    }

    /// Makes every finished write durable.
    pub(super) fn sync(&self) -> Result<(), IoError> {
        rustix::io::retry_on_intr(|| rustix::fs::fdatasync(&self.file)).map_err(io_error)?;
        self.whole()
    }

    /// How a finished request ends. A forced write that fails may have taken cached ones with it, and the kernel tells
    /// that once, to whoever syncs first: the next flush has to fail, too.
    pub(super) fn judged(&self, op: &Op, result: Result<(), IoError>) -> Result<(), IoError> {
        match op {
            Op::Write(_, Durability::Fua) | Op::WriteZeroes(Durability::Fua) if result == Err(IoError::Medium) => {
                self.cache_in_doubt.store(true, Ordering::Relaxed);
                result
            }
            Op::Flush if self.cache_in_doubt.swap(false, Ordering::Relaxed) => result.and(Err(IoError::Medium)),
            _ => result,
        }
    }

    /// Whether the file still holds the whole disk: a medium error if someone has shortened it.
    pub(super) fn whole(&self) -> Result<(), IoError> {
        if self.kind == Kind::BlockDevice {
            return Ok(());
        }
        let bytes = rustix::fs::fstat(&self.file).map_err(io_error)?.st_size as u64;
        if bytes < self.limits.capacity.bytes() { Err(IoError::Medium) } else { Ok(()) }
    }
}

/// The `fallocate` mode that carries out a `WriteZeroes` or a `Discard`.
pub(super) fn zeroing_mode(op: &Op) -> FallocateFlags {
    match op {
        Op::WriteZeroes(_) => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        Op::Discard => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        Op::Read(_) | Op::Write(..) | Op::Flush => panic!("{} zeroes nothing", op.name()),
    }
}

/// Whether an error of `fallocate` says that zeroes must be written instead.
pub(super) fn not_supported(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS)
}

/// What the system's error means to whoever can act on it. Block devices report more finely than
/// files: the table is `blk_errors` in Linux's `block/blk-core.c`.
pub(super) fn io_error(errno: Errno) -> IoError {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => IoError::NoSpace,
        Errno::ROFS => IoError::ReadOnly,
        Errno::NODEV | Errno::NXIO | Errno::STALE => IoError::Offline,
        Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS => IoError::Unsupported,
        Errno::TIMEDOUT => IoError::Timeout,
        Errno::NOLINK => IoError::Transport,
        Errno::BADE => IoError::Fenced,
        // EIO, ENODATA (medium), EILSEQ (protection), and all that names no one else.
        _ => IoError::Medium,
    }
}

fn refused(path: &Path, action: &'static str, source: io::Error) -> ImageError {
    ImageError::Open { path: path.to_owned(), action, source }
}

fn kind_of(path: &Path, metadata: &std::fs::Metadata) -> Result<Kind, ImageError> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(Kind::Regular),
        kind if kind.is_block_device() => Ok(Kind::BlockDevice),
        _ => Err(ImageError::NotRegular { path: path.to_owned() }),
    }
}

fn open_file(path: &Path, options: ImageOptions, kind: Kind, direct: bool) -> io::Result<File> {
    let mut flags = 0;
    if direct {
        flags |= libc::O_DIRECT;
    }
    if kind == Kind::BlockDevice && !options.read_only {
        flags |= libc::O_EXCL;
    }
    OpenOptions::new().read(true).write(!options.read_only).custom_flags(flags).open(path)
}

fn lock(file: File, path: &Path, shared: bool) -> Result<LockedFile, ImageError> {
    LockedFile::new(file, if shared { Sharing::Shared } else { Sharing::Alone }).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => ImageError::Locked { path: path.to_owned() },
        _ => refused(path, "lock", error),
    })
}

fn block_size(device: impl AsFd) -> rustix::io::Result<Sectors> {
    rustix::fs::ioctl_blksszget(device).map(|bytes| Sectors::floor_bytes(u64::from(bytes)).max(Sectors(1)))
}

/// What direct I/O on `file` asks for; `None` if the file system does not do it.
fn direct_alignment(file: &File, device_block: Sectors, bytes: u64) -> Option<Alignment> {
    let flags = rustix::fs::fcntl_getfl(file).ok()?;
    if !flags.contains(OFlags::DIRECT) {
        return None;
    }
    if let Ok(stat) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN)
    {
        let block = Sectors::floor_bytes(u64::from(stat.stx_dio_offset_align)).max(Sectors(1));
        let memory = stat.stx_dio_mem_align as usize;
        return (stat.stx_dio_offset_align > 0).then_some(Alignment { memory, block });
    }
    // A kernel before 6.1, or a file system that does not tell: try one sector in the middle of a
    // block, and ask for memory as aligned as the extents, which was the rule before.
    let at = Extent::new(Lba(1), Sectors(1));
    let mut buf = Buf::zeroed(SECTOR_BYTES as usize);
    let refused = bytes >= at.end().bytes()
        && buf.parts_mut().any(|part| rustix::io::pread(file, part, at.start.bytes()) == Err(Errno::INVAL));
    let block = if refused { Sectors::floor_bytes(BUFFER_ALIGN as u64) } else { Sectors(1) }.max(device_block);
    Some(Alignment { memory: block.bytes() as usize, block })
}

fn without_direct(file: &File) -> rustix::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    if flags.contains(OFlags::DIRECT) {
        rustix::fs::fcntl_setfl(file, flags.difference(OFlags::DIRECT))?;
    }
    Ok(())
}

fn preallocate(file: &File, path: &Path, bytes: u64) -> Result<(), ImageError> {
    let available = || {
        let stat = rustix::fs::fstatvfs(file).map_err(|errno| refused(path, "size", errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    };
    let no_space = |available| ImageError::NoSpace { path: path.to_owned(), needed: bytes, available };
    // Asked first: filling the file system only to find that out would harm everyone on it.
    let before = available()?;
    if before < bytes {
        return Err(no_space(before));
    }
    let allocated = match rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        Err(errno) if not_supported(errno) => write_all_zero(file, bytes),
        result => result,
    };
    match allocated {
        Ok(()) => Ok(()),
        Err(Errno::NOSPC | Errno::DQUOT) => {
            file.set_len(0).map_err(|source| refused(path, "size", source))?;
            Err(no_space(available()?))
        }
        Err(errno) => Err(refused(path, "allocate", errno.into())),
    }
}

fn write_all_zero(file: &File, bytes: u64) -> rustix::io::Result<()> {
    let zeroes = vec![0; ZERO_PIECE.min(bytes) as usize];
    let mut at = 0;
    while at < bytes {
        let now = (bytes - at).min(ZERO_PIECE) as usize;
        at += rustix::io::retry_on_intr(|| rustix::io::pwrite(file, &zeroes[..now], at))? as u64;
    }
    Ok(())
}

/// A file that goes away again unless it is forgotten.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // Nobody is left to tell: the first error is on its way up.
        let _ = std::fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_ONLY: ImageOptions = ImageOptions { read_only: true, minimum: Sectors::ZERO };

    #[test]
    fn a_writer_is_alone_and_readers_are_among_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        Image::create(&path, Sectors(64), Space::Preallocated).unwrap();
        let writer = Image::open(&path, ImageOptions::default()).unwrap();
        assert!(matches!(Image::open(&path, ImageOptions::default()), Err(ImageError::Locked { .. })));
        assert!(matches!(Image::open_direct(&path, READ_ONLY), Err(ImageError::Locked { .. })));
        drop(writer);
        let readers = [Image::open(&path, READ_ONLY).unwrap(), Image::open(&path, READ_ONLY).unwrap()];
        assert!(matches!(Image::open(&path, ImageOptions::default()), Err(ImageError::Locked { .. })));
        assert!(readers.iter().all(|image| image.limits().read_only));
    }

    #[test]
    fn after_a_forced_write_that_failed_the_next_flush_fails_and_the_one_after_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        Image::create(&path, Sectors(64), Space::Preallocated).unwrap();
        let image = Image::open(&path, ImageOptions::default()).unwrap();
        let write = |durability| Op::Write(Payload::zeroes(512), durability);
        let (failed, well) = (Err(IoError::Medium), Ok(()));
        assert_eq!(image.judged(&write(Durability::Volatile), failed), failed);
        assert_eq!(image.judged(&Op::Flush, well), well, "a write that was not forced is told to its owner alone");
        for forced in [write(Durability::Fua), Op::WriteZeroes(Durability::Fua)] {
            assert_eq!(image.judged(&forced, failed), failed);
            assert_eq!(image.judged(&write(Durability::Fua), well), well);
            assert_eq!(image.judged(&Op::Flush, well), failed);
            assert_eq!(image.judged(&Op::Flush, well), well);
        }
    }

    #[test]
    fn an_image_too_large_for_its_file_system_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let error = Image::create(&path, Sectors(1 << 43), Space::Preallocated).unwrap_err();
        assert!(matches!(error, ImageError::NoSpace { needed, available, .. } if available < needed), "{error}");
        assert!(!path.exists());
        let error = Image::create(&path, Sectors(1 << 54), Space::Sparse).unwrap_err();
        assert!(matches!(error, ImageError::Open { .. }), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_new_image_takes_its_space_at_once_unless_it_is_sparse() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        for (name, space, taken) in [("full", Space::Preallocated, true), ("sparse", Space::Sparse, false)] {
            let path = dir.path().join(name);
            Image::create(&path, Sectors(2048), space).unwrap();
            let metadata = path.metadata().unwrap();
            assert_eq!((metadata.len(), metadata.blocks() >= 2048), (1 << 20, taken), "{name}");
            assert!(matches!(Image::create(&path, Sectors(1), space), Err(ImageError::Exists { .. })));
        }
    }

    #[test]
    fn only_files_and_block_devices_of_the_size_asked_for_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let small = dir.path().join("small");
        std::fs::write(&small, [0; 1000]).unwrap();
        assert_eq!(Image::open(&small, READ_ONLY).unwrap().limits().capacity, Sectors(1));
        let options = ImageOptions { minimum: Sectors(2), ..READ_ONLY };
        let error = Image::open(&small, options).unwrap_err();
        assert!(matches!(error, ImageError::TooSmall { bytes: 1000, needed: 1024, .. }), "{error}");
        std::fs::write(&small, [0; 511]).unwrap();
        assert!(matches!(Image::open(&small, READ_ONLY), Err(ImageError::TooSmall { .. })));
        assert!(matches!(Image::open(dir.path(), READ_ONLY), Err(ImageError::NotRegular { .. })));
        assert!(matches!(Image::open(Path::new("/dev/null"), READ_ONLY), Err(ImageError::NotRegular { .. })));
        assert!(matches!(Image::open(&dir.path().join("none"), READ_ONLY), Err(ImageError::Open { .. })));
    }
}
