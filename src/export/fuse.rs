//! The volume as a file, through FUSE: for the loop driver, and for programs that take a file.
//!
//! A mount has one file, [`FILE`], as large as the volume. It is read and written past the page cache (`FOPEN_DIRECT_IO`),
//! so what one descriptor writes another reads, and an `fsync` is a flush of the array. `fallocate` that punches a hole or
//! zeroes a range writes zeroes: that is what the loop driver makes of a discard, and what it promises of one.
//!
//! Any byte range will do. The array takes whole blocks, so the ends of a write that lie within one are read first; a write
//! waits for those before it that touch its blocks.
//!
//! Requests come in on threads of the session and are handed to the reactor, where their answers are sent from as they
//! come.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};

use crate::block::{Buf, Completion, Durability, Extent, IoError, Lba, Limits, Op, Payload, SECTOR_BYTES, Sectors};
use crate::reactor::Handle;

/// The file's name.
pub const FILE: &str = "volume";

/// Longest write the kernel hands over, in bytes; the most it does.
const WRITE_MAX: u32 = 1 << 20;

/// Zeroes written at a time, in bytes.
const ZEROES_MAX: u64 = 32 << 20;

/// Threads that take requests from the kernel.
const THREADS: usize = 2;

/// Nothing about the file changes.
const TTL: Duration = Duration::from_secs(3600);

const DIRECTORY: INodeNo = INodeNo(1);
const VOLUME: INodeNo = INodeNo(2);

/// Mounts a directory with the volume in it, whose requests go to `handle`. `source` is what mountinfo(5) shows of it. The
/// reactor need not run yet.
///
/// # Errors
/// If FUSE cannot be had, or nothing can be mounted at `at`.
pub fn mount(handle: Handle, limits: Limits, at: &Path, source: &str) -> io::Result<BackgroundSession> {
    let volume =
        Volume { port: Arc::new(Port { handle, limits, writes: Writes::default() }), since: SystemTime::now() };
    let mut config = fuser::Config::default();
    config.mount_options = vec![
        MountOption::FSName(source.to_owned()),
        MountOption::Subtype("raidlab".into()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
    ];
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    Session::new(volume, at, &config)?.spawn()
}

struct Volume {
    port: Arc<Port>,
    since: SystemTime,
}

/// The way to the array.
struct Port {
    handle: Handle,
    limits: Limits,
    writes: Writes,
}

/// Writes under way, by the blocks they touch.
#[derive(Default)]
struct Writes {
    extents: Mutex<Vec<Extent>>,
    over: Condvar,
}

impl Writes {
    /// Waits until no write under way touches the blocks of `extent`, and counts as one from then on.
    fn begin(&self, extent: Extent) {
        let extents = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
        let in_the_way = |extents: &mut Vec<Extent>| extents.iter().any(|other| other.overlaps(extent));
        self.over.wait_while(extents, in_the_way).unwrap_or_else(PoisonError::into_inner).push(extent);
    }

    fn end(&self, extent: Extent) {
        let mut extents = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
        let at = extents.iter().position(|other| *other == extent).expect("a write ends once");
        extents.swap_remove(at);
        self.over.notify_all();
    }
}

fn errno_of(error: IoError) -> Errno {
    match error {
        IoError::NoSpace => Errno::ENOSPC,
        IoError::ReadOnly => Errno::EROFS,
        IoError::OutOfRange => Errno::EINVAL,
        _ => Errno::EIO,
    }
}

impl Port {
    fn size(&self) -> u64 {
        self.limits.capacity.bytes()
    }

    /// The blocks that hold `length` bytes from `offset` on.
    fn blocks(&self, offset: u64, length: u64) -> Extent {
        let block = self.limits.logical_block.bytes();
        let start = offset / block * block;
        let end = (offset + length).next_multiple_of(block);
        Extent::new(Lba(start / SECTOR_BYTES), Sectors((end - start) / SECTOR_BYTES))
    }

    fn request(&self, extent: Extent, op: Op) -> Result<(), IoError> {
        self.handle.request(extent, op).map_err(|_| IoError::Offline)?.result
    }

    fn read_now(&self, extent: Extent) -> Result<Vec<u8>, IoError> {
        let op = Op::Read(Buf::stale(extent.length.bytes() as usize));
        let Completion { op, result, .. } = self.handle.request(extent, op).map_err(|_| IoError::Offline)?;
        match (op, result) {
            (Op::Read(buf), Ok(())) => Ok(buf.to_vec()),
            (_, result) => Err(result.err().unwrap_or(IoError::Medium)),
        }
    }

    /// Whole blocks around `data`: what lies before and behind it in them is read.
    fn with_edges(&self, extent: Extent, offset: u64, data: &[u8]) -> Result<Vec<u8>, IoError> {
        let block = self.limits.logical_block.bytes();
        let mut bytes = vec![0; extent.length.bytes() as usize];
        for edge in [extent.start.bytes(), extent.end().bytes() - block] {
            let old = self.read_now(self.blocks(edge, block))?;
            bytes[(edge - extent.start.bytes()) as usize..][..block as usize].copy_from_slice(&old);
        }
        bytes[(offset - extent.start.bytes()) as usize..][..data.len()].copy_from_slice(data);
        Ok(bytes)
    }

    /// Writes zeroes, and waits.
    fn zero(&self, offset: u64, length: u64) -> Result<(), IoError> {
        let block = self.limits.logical_block.bytes();
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let whole_from = at.next_multiple_of(block);
            let whole_to = end.min(whole_from + ZEROES_MAX) / block * block;
            let (to, is_whole) = match whole_from == at && whole_to > at {
                true => (whole_to, true),
                false => (whole_from.max(at + 1).next_multiple_of(block).min(end), false),
            };
            let extent = self.blocks(at, to - at);
            self.writes.begin(extent);
            let result = match is_whole {
                true => self.request(extent, Op::WriteZeroes(Durability::Volatile)),
                false => self
                    .with_edges(extent, at, &vec![0; (to - at) as usize])
                    .and_then(|bytes| self.request(extent, Op::Write(Payload::copy_of(&bytes), Durability::Volatile))),
            };
            self.writes.end(extent);
            result?;
            at = to;
        }
        Ok(())
    }
}

impl Volume {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, nlink, size) = match inode {
            DIRECTORY => (FileType::Directory, 0o700, 2, 0),
            VOLUME => (FileType::RegularFile, 0o600, 1, self.port.size()),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / SECTOR_BYTES,
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: self.since,
            kind,
            perm,
            nlink,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Volume {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The kernel may allow less, and says so by asking for less.
        let _ = config.set_max_write(WRITE_MAX);
        let _ = config.set_max_background(64);
        // Without it the loop driver has one request under way at a time.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(VOLUME).filter(|_| parent == DIRECTORY && name == FILE) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Opening with `O_TRUNC` and setting times are harmless; the size is the volume's.
    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = mode.is_some() || uid.is_some() || gid.is_some();
        match self.attributes(inode) {
            None => reply.error(Errno::ENOENT),
            Some(_) if changes => reply.error(Errno::EPERM),
            Some(attributes) if size.is_some_and(|size| size != 0 && size != attributes.size) => {
                reply.error(Errno::EFBIG);
            }
            Some(attributes) => reply.attr(&TTL, &attributes),
        }
    }

    fn open(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match inode {
            VOLUME => {
                let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
                reply.opened(FileHandle(0), flags);
            }
            _ => reply.error(Errno::EISDIR),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = (offset.saturating_add(size.into())).min(self.port.size());
        if offset >= end {
            return reply.data(&[]);
        }
        let extent = self.port.blocks(offset, end - offset);
        let (skip, length) = ((offset - extent.start.bytes()) as usize, (end - offset) as usize);
        let op = Op::Read(Buf::stale(extent.length.bytes() as usize));
        // One that is not taken any more is answered by the end of the mount.
        let _ = self.port.handle.submit(extent, op, move |completion| match (completion.op, completion.result) {
            (Op::Read(buf), Ok(())) => match buf.as_slice() {
                Some(bytes) => reply.data(&bytes[skip..skip + length]),
                None => reply.data(&buf.to_vec()[skip..skip + length]),
            },
            (_, result) => reply.error(errno_of(result.err().unwrap_or(IoError::Medium))),
        });
    }

    fn write(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let length = data.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.port.size()) {
            return reply.error(Errno::EFBIG);
        }
        if data.is_empty() {
            return reply.written(0);
        }
        let extent = self.port.blocks(offset, length);
        self.port.writes.begin(extent);
        let payload = match extent.length.bytes() == length {
            true => Payload::copy_of(data),
            false => match self.port.with_edges(extent, offset, data) {
                Ok(bytes) => Payload::copy_of(&bytes),
                Err(error) => {
                    self.port.writes.end(extent);
                    return reply.error(errno_of(error));
                }
            },
        };
        let port = Arc::clone(&self.port);
        let written = data.len() as u32;
        let asked = self.port.handle.submit(extent, Op::Write(payload, Durability::Volatile), move |completion| {
            port.writes.end(extent);
            match completion.result {
                Ok(()) => reply.written(written),
                Err(error) => reply.error(errno_of(error)),
            }
        });
        if asked.is_err() {
            self.port.writes.end(extent);
        }
    }

    /// A close is no promise.
    fn flush(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let nothing = Extent::new(Lba(0), Sectors::ZERO);
        let _ = self.port.handle.submit(nothing, Op::Flush, move |completion| match completion.result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno_of(error)),
        });
    }

    fn fallocate(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let zeroes = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        let known = zeroes | libc::FALLOC_FL_KEEP_SIZE;
        if mode & !known != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        if offset.checked_add(length).is_none_or(|end| end > self.port.size()) {
            return reply.error(Errno::EFBIG);
        }
        // Space is there already.
        if mode & zeroes == 0 {
            return reply.ok();
        }
        match self.port.zero(offset, length) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno_of(error)),
        }
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let block = 4096;
        reply.statfs(self.port.size() / block, 0, 0, 1, 0, block as u32, 255, block as u32);
    }

    fn readdir(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if inode != DIRECTORY {
            return reply.error(Errno::ENOTDIR);
        }
        let entries = [
            (DIRECTORY, FileType::Directory, "."),
            (DIRECTORY, FileType::Directory, ".."),
            (VOLUME, FileType::RegularFile, FILE),
        ];
        for ((inode, kind, name), next) in entries.into_iter().zip(1..).skip(offset as usize) {
            if reply.add(inode, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{DeviceId, Instant};
    use crate::disk::MemBank;
    use crate::reactor::{FrontEnd, Handle, Inbox, Reactor, Service};

    /// A port over memory, whose reactor runs on a thread of its own until the port is gone.
    fn over_memory<R>(limits: Limits, work: impl FnOnce(&Port) -> R) -> R {
        let (handle, mut inbox) = Handle::new().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut bank = MemBank::new();
                bank.add(limits);
                let mut reactor = Reactor::new(Stateless(bank));
                serve(&mut reactor, &mut inbox, &stop);
            });
            let port = Port { handle, limits, writes: Writes::default() };
            let result = work(&port);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            result
        })
    }

    struct Stateless(MemBank);

    impl crate::block::Bank for Stateless {
        fn limits(&self, device: DeviceId) -> Limits {
            self.0.limits(device)
        }
        fn submit(&mut self, device: DeviceId, request: crate::block::Request, now: Instant) {
            self.0.submit(device, request, now);
        }
        fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
            self.0.poll(now, done);
        }
        fn next_deadline(&self) -> Option<Instant> {
            self.0.next_deadline()
        }
    }

    impl crate::block::Wakeups for Stateless {
        fn wakeups(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
            Vec::new()
        }
    }

    impl crate::block::States for Stateless {
        fn states(&self, extent: Extent) -> Vec<(Sectors, crate::block::State)> {
            vec![(extent.length, crate::block::State::InSync)]
        }
    }

    fn serve(reactor: &mut Reactor<Stateless>, inbox: &mut Inbox, stop: &std::sync::atomic::AtomicBool) {
        let mut service = Service::begin(reactor, DeviceId(0), &mut [&mut *inbox as &mut dyn FrontEnd]).unwrap();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            service.turn(reactor, &mut [&mut *inbox]);
            service.wait(reactor, &mut [&mut *inbox]).unwrap();
        }
        service.end(reactor, &mut [&mut *inbox]);
    }

    #[test]
    fn zeroes_of_any_range_are_zeroes_there_and_nowhere_else() {
        for block in [1, 8] {
            let limits = Limits { logical_block: Sectors(block), ..Limits::of_disk(Sectors(64)) };
            let ranges = [(0, 512), (1, 1), (511, 2), (100, 5000), (4096, 8192), (4095, 8194), (0, 32768), (32767, 1)];
            over_memory(limits, |port| {
                for (offset, length) in ranges {
                    let all = port.blocks(0, port.size());
                    let full = vec![0xab; port.size() as usize];
                    port.request(all, Op::Write(Payload::copy_of(&full), Durability::Volatile)).unwrap();
                    port.zero(offset, length).unwrap();
                    let found = port.read_now(all).unwrap();
                    for (at, byte) in found.iter().enumerate() {
                        let zeroed = (offset..offset + length).contains(&(at as u64));
                        assert_eq!(
                            *byte,
                            if zeroed { 0 } else { 0xab },
                            "byte {at} of {offset}+{length}, blocks of {block}"
                        );
                    }
                }
            });
        }
    }
}
