//! Disks in files, by `pread` and `pwrite`.
//!
//! The plainest way to a file, for hosts where `io_uring` is switched off, and the safe twin the
//! other banks are compared with. Reads and volatile writes are done when they are submitted, from
//! and to the page cache; flushes, forced writes and zeroing are a helper thread's work.
//!
//! An image that someone shortens gives medium errors: reads beyond its end at once, flushes as long
//! as it stays short.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use super::flusher::Flusher;
use super::{Image, ImageError, ImageOptions};
use crate::block::Wakeups;
use crate::block::{Bank, Completion, DeviceId, Durability, Instant, IoError, Limits, Op, Request};

/// A bank of image files and block devices, read and written through the page cache.
pub struct FileBank {
    disks: Vec<Disk>,
    done: Vec<(DeviceId, Completion)>,
    flusher: Flusher,
}

struct Disk {
    limits: Limits,
    /// `None` once closed.
    image: Option<Arc<Image>>,
}

impl FileBank {
    /// A bank without disks. An error if the process has no descriptor left.
    pub fn new() -> io::Result<FileBank> {
        Ok(FileBank { disks: Vec::new(), done: Vec::new(), flusher: Flusher::new()? })
    }

    /// Adds the disk in the file, or on the block device, at `path`.
    pub fn open(&mut self, path: &Path, options: ImageOptions) -> Result<DeviceId, ImageError> {
        let image = Arc::new(Image::open(path, options)?);
        let device = DeviceId(self.disks.len() as u32);
        self.flusher.start(device, Arc::clone(&image))?;
        self.disks.push(Disk { limits: image.limits(), image: Some(image) });
        Ok(device)
    }

    /// Takes no more requests for `device`: they fail with [`IoError::Offline`]. The file is let go
    /// when the last request has come back. To close twice does nothing.
    pub fn close(&mut self, device: DeviceId) {
        if self.disks[device.0 as usize].image.take().is_some() {
            self.flusher.stop(device);
        }
    }

    fn start(&mut self, device: DeviceId, mut request: Request) -> Option<Completion> {
        let disk = &self.disks[device.0 as usize];
        let Some(image) = &disk.image else { return Some(request.complete(Err(IoError::Offline))) };
        if let Some(error) = Image::refuse(&disk.limits, &request) {
            return Some(request.complete(Err(error)));
        }
        let result = match &mut request.op {
            Op::Read(buf) => image.read(request.extent, buf),
            Op::Write(payload, Durability::Volatile) => image.write(request.extent, payload, Durability::Volatile),
            Op::Write(_, Durability::Fua) | Op::WriteZeroes(_) | Op::Discard | Op::Flush => {
                self.flusher.submit(device, request);
                return None;
            }
        };
        Some(request.complete(result))
    }
}

impl Bank for FileBank {
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
        self.flusher.poll(|device, completion| done.push((device, completion)));
    }

    fn next_deadline(&self) -> Option<Instant> {
        (!self.done.is_empty()).then_some(Instant::START)
    }
}

impl Wakeups for FileBank {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.flusher.wakeup()]
    }
}
