//! Disks in memory-mapped files.
//!
//! Mapped, a file's cached pages are this process's memory: a read or a volatile write is one copy
//! and no system call. A forced write (metadata, by contract) goes by `pwrite`, which the kernel keeps
//! coherent with the mapping; flushes and zeroing are a helper thread's work as for plain files.
//!
//! A process killed in the middle of a copy may leave a sector torn: that write was never
//! acknowledged, and the next write to it is whole again.
//!
//! A page can be lost under the mapping: the file is truncated, or has no space for it (a sparse
//! image, or one that was discarded, on a full file system). The whole disk is then lost: this and
//! every later request fails with a medium error, flushes too, because the pages its earlier writes
//! went to are no longer in reach. To use the file again, open it again. A truncation inside a page
//! raises nothing before the next flush, which looks at the file's size.

use std::borrow::Cow;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};

use super::flusher::Flusher;
use super::sigbus::{WATCHED_MAX, Watch};
use super::{Image, ImageError, ImageOptions};
use crate::block::Wakeups;
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Limits, Op, Payload, Request,
};

/// A bank of image files and block devices, mapped into memory.
pub struct MmapBank {
    disks: Vec<Disk>,
    done: Vec<(DeviceId, Completion)>,
    flusher: Flusher,
}

struct Disk {
    limits: Limits,
    /// `None` once closed.
    mapping: Option<Arc<Mapping>>,
    /// Whether a page was lost before it was closed.
    closed_lost: bool,
}

/// A mapped image; it stays mapped as long as something of it is lent. The order of the fields is the order they are dropped in: no one watches memory
/// that is no longer ours.
struct Mapping {
    watch: Watch,
    map: MmapRaw,
}

impl MmapBank {
    /// A bank without disks. An error if the process has no descriptor left.
    pub fn new() -> io::Result<MmapBank> {
        Ok(MmapBank { disks: Vec::new(), done: Vec::new(), flusher: Flusher::new()? })
    }

    /// Adds the disk in the file, or on the block device, at `path`. Images should be preallocated:
    /// a store that finds no space loses the disk.
    pub fn open(&mut self, path: &Path, options: ImageOptions) -> Result<DeviceId, ImageError> {
        let image = Arc::new(Image::open(path, options)?);
        let mapping = Arc::new(Mapping::of(&image)?);
        let device = DeviceId(self.disks.len() as u32);
        self.flusher.start(device, Arc::clone(&image))?;
        self.disks.push(Disk { limits: image.limits(), mapping: Some(mapping), closed_lost: false });
        Ok(device)
    }

    /// Takes no more requests for `device`: they fail with [`IoError::Offline`]. The file is let go
    /// when the last request has come back. To close twice does nothing.
    pub fn close(&mut self, device: DeviceId) {
        let disk = &mut self.disks[device.0 as usize];
        if let Some(mapping) = disk.mapping.take() {
            disk.closed_lost = mapping.watch.is_lost();
            self.flusher.stop(device);
        }
    }

    /// Whether the disk has lost a page and answers nothing but medium errors.
    pub fn is_lost(&self, device: DeviceId) -> bool {
        self.disks[device.0 as usize].is_lost()
    }

    fn start(&mut self, device: DeviceId, mut request: Request) -> Option<Completion> {
        let disk = &self.disks[device.0 as usize];
        let Some(mapping) = &disk.mapping else { return Some(request.complete(Err(IoError::Offline))) };
        if let Some(error) = Image::refuse(&disk.limits, &request) {
            return Some(request.complete(Err(error)));
        }
        if mapping.watch.is_lost() {
            return Some(request.complete(Err(IoError::Medium)));
        }
        let result = match &mut request.op {
            Op::Read(buf) => mapping.read(request.extent, buf),
            Op::Write(payload, Durability::Volatile) => mapping.write(request.extent, payload),
            Op::Write(_, Durability::Fua) | Op::WriteZeroes(_) | Op::Discard | Op::Flush => {
                self.flusher.submit(device, request);
                return None;
            }
        };
        Some(request.complete(result))
    }
}

/// A piece of a mapping, in use by whoever borrowed it.
struct Lent {
    mapping: Arc<Mapping>,
    at: usize,
    length: usize,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        let start = self.mapping.at(self.at, self.length);
        // SAFETY: `at` checked the range, and the mapping is kept mapped. Nobody else has the file (it is locked), and
        // who borrows asks for no change of these bytes while it reads them: that is the contract of `Bank::lend`. A lost page
        // becomes zeroes, and the mapping is not vouched for then.
        unsafe { std::slice::from_raw_parts(start, self.length) }
    }
}

impl Disk {
    fn is_lost(&self) -> bool {
        self.mapping.as_ref().map_or(self.closed_lost, |mapping| mapping.watch.is_lost())
    }
}

impl Mapping {
    fn of(image: &Image) -> Result<Mapping, ImageError> {
        let length = image.limits().capacity.bytes() as usize;
        let mut options = MmapOptions::new();
        options.len(length);
        let map = match image.limits().read_only {
            true => options.map_raw_read_only(image.file()),
            false => options.map_raw(image.file()),
        };
        let path = || image.path().to_owned();
        let map = map.map_err(|source| ImageError::Open { path: path(), action: "map", source })?;
        let start = map.as_ptr() as usize;
        let watch = Watch::new(start..start + length)
            .ok_or_else(|| ImageError::TooManyMapped { path: path(), limit: WATCHED_MAX })?;
        Ok(Mapping { watch, map })
    }

    /// The address of `length` bytes at byte `at`.
    fn at(&self, at: usize, length: usize) -> *mut u8 {
        assert!(at + length <= self.map.len(), "{length} bytes at {at} of a mapping of {}", self.map.len());
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.map.as_mut_ptr().add(at) }
    }

    fn read(&self, extent: Extent, buf: &mut Buf) -> Result<(), IoError> {
        let mut at = extent.start.bytes() as usize;
        for part in buf.parts_mut() {
            let source = self.at(at, part.len());
            // SAFETY: `at` checked the source; the part is ours alone and not in the mapping. The file's
            // bytes may change meanwhile (another process, pwrite): any bytes are valid bytes.
            unsafe { std::ptr::copy_nonoverlapping(source, part.as_mut_ptr(), part.len()) };
            at += part.len();
        }
        self.verdict()
    }

    fn write(&self, extent: Extent, payload: &Payload) -> Result<(), IoError> {
        let mut at = extent.start.bytes() as usize;
        for slice in payload.slices() {
            let target = self.at(at, slice.len());
            // SAFETY: `at` checked the target; the mapping is writable, since a read-only disk refuses
            // writes; nobody reads what was lent of these bytes. The slice may itself have been lent, even of this place.
            unsafe { std::ptr::copy(slice.as_ptr(), target, slice.len()) };
            at += slice.len();
        }
        self.verdict()
    }

    /// Whether what was copied can be believed.
    fn verdict(&self) -> Result<(), IoError> {
        if self.watch.is_lost() { Err(IoError::Medium) } else { Ok(()) }
    }
}

impl Bank for MmapBank {
    fn limits(&self, device: DeviceId) -> Limits {
        self.disks[device.0 as usize].limits
    }

    fn submit(&mut self, device: DeviceId, request: Request, _now: Instant) {
        if let Some(completion) = self.start(device, request) {
            self.done.push((device, completion));
        }
    }

    fn poll(&mut self, _now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        done.append(&mut self.done);
        let disks = &self.disks;
        self.flusher.poll(|device, mut completion| {
            // A flush that began before the page was lost cannot vouch for it either.
            if disks[device.0 as usize].is_lost() && completion.result.is_ok() {
                completion.result = Err(IoError::Medium);
            }
            done.push((device, completion));
        });
    }

    fn lend(&mut self, device: DeviceId, extent: Extent) -> Option<Bytes> {
        let disk = &self.disks[device.0 as usize];
        let mapping = disk.mapping.as_ref().filter(|mapping| !mapping.watch.is_lost())?;
        let (at, length) = (extent.start.bytes() as usize, extent.length.bytes() as usize);
        Some(Bytes::from_owner(Lent { mapping: Arc::clone(mapping), at, length }))
    }

    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        let disk = &self.disks[device.0 as usize];
        let mapping = disk.mapping.as_ref().filter(|mapping| !mapping.watch.is_lost())?;
        let (at, length) = (extent.start.bytes() as usize, extent.length.bytes() as usize);
        let start = mapping.at(at, length);
        // SAFETY: `at` checked the range; the mapping stays while the bank is borrowed. Nobody else has the file (it is
        // locked), and who looks has no write under way there, on a helper's thread neither: that is the contract of
        // `Bank::window`. A lost page becomes zeroes, and the mapping is not vouched for then.
        Some(Cow::Borrowed(unsafe { std::slice::from_raw_parts(start, length) }))
    }

    fn vouches(&self, device: DeviceId) -> bool {
        !self.disks[device.0 as usize].is_lost()
    }

    fn next_deadline(&self) -> Option<Instant> {
        (!self.done.is_empty()).then_some(Instant::START)
    }
}

impl Wakeups for MmapBank {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.flusher.wakeup()]
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::block::{Lba, RequestId, Sectors};
    use crate::disk::{FileBank, Space};

    const TINY: Sectors = Sectors(512);
    const HELD: Sectors = Sectors(4 * TINY.0);

    /// Gives the calling thread mounts of its own and a file system of `TINY` at `dir`. False where
    /// that is not permitted.
    fn mount_tiny(dir: &Path) -> bool {
        let mount = |source: &CStr, target: &Path, kind: Option<&CStr>, flags, data: Option<&CStr>| {
            let target = std::ffi::CString::new(target.as_os_str().as_encoded_bytes()).unwrap();
            let or_null = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
            // SAFETY: all strings are alive and end in zero, or are null where that is allowed.
            unsafe { libc::mount(source.as_ptr(), target.as_ptr(), or_null(kind), flags, or_null(data).cast()) == 0 }
        };
        // SAFETY: only this thread leaves the common mounts; it ends with the test.
        let alone = unsafe { libc::unshare(libc::CLONE_NEWNS) == 0 };
        let size = std::ffi::CString::new(format!("size={}", TINY.bytes())).unwrap();
        alone
            && mount(c"none", Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE, None)
            && mount(c"tiny", dir, Some(c"tmpfs"), 0, Some(&size))
    }

    fn write_all<B: Bank>(bank: &mut B, device: DeviceId) -> Result<(), IoError> {
        let at = Extent::new(Lba(0), HELD);
        let op = Op::Write(Payload::copy_of(&vec![1; HELD.bytes() as usize]), Durability::Volatile);
        bank.submit(device, Request::new(RequestId(0), at, op), Instant::START);
        let mut done = Vec::new();
        bank.poll(Instant::START, &mut done);
        done.remove(0).1.result
    }

    /// Needs the right to mount; where that lacks, truncation is the test of the same path.
    #[test]
    fn a_full_file_system_fails_the_disk_and_not_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let story = || {
            if !mount_tiny(dir.path()) {
                eprintln!("not tested: no right to mount");
                return;
            }
            let path = dir.path().join("disk");
            let error = Image::create(&path, HELD, Space::Preallocated).unwrap_err();
            assert!(matches!(error, ImageError::NoSpace { .. }), "{error}");
            assert!(!path.exists());

            Image::create(&path, HELD, Space::Sparse).unwrap();
            let mut mapped = MmapBank::new().unwrap();
            let device = mapped.open(&path, ImageOptions::default()).unwrap();
            assert_eq!(write_all(&mut mapped, device), Err(IoError::Medium));
            assert!(mapped.is_lost(device));
            mapped.close(device);

            let mut plain = FileBank::new().unwrap();
            let device = plain.open(&path, ImageOptions::default()).unwrap();
            assert_eq!(write_all(&mut plain, device), Err(IoError::NoSpace));
        };
        std::thread::scope(|scope| scope.spawn(story).join()).unwrap();
    }
}
