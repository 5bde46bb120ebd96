//! Fresh images to measure on.
//!
//! What a benchmark of file-backed disks measures is decided by where the files lie and how they are
//! reached: the page cache, a device behind it, or memory that looks like a file system (tmpfs). So
//! a [`Store`] knows all three and says them ([`Store::measured`]).
//!
//! Images lose their names as soon as they are open. The kernel then gives their space back when this
//! process ends, however it ends.
//!
//! Flushes and forced writes go to images only where the device is measured. In the page cache they would
//! write back all that other workloads left there, and every page would be faulted in again by its next
//! store: an array, which flushes when it marks itself clean, would be charged for that, and the raw
//! file, which never flushes, would not.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;
use tempfile::TempDir;
use thiserror::Error;

use super::Measured;
use crate::block::{
    Bank, Completion, DeviceId, Durability, Extent, Instant, Lba, Limits, Op, Request, Sectors, Wakeups,
};
use crate::disk::{FileBank, Image, ImageError, ImageOptions, MemBank, MmapBank, Space, UringBank};
use crate::raid::assemble::{Candidate, CandidateError};
use crate::stack::{Leaf, read_candidate_plainly};

/// How disks are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Files mapped into memory.
    Mmap,
    /// Files by pread and pwrite.
    File,
    /// Files by `io_uring` with `O_DIRECT`.
    Uring,
    /// No files: memory of this process.
    Mem,
}

impl Backend {
    /// All there are, the default first.
    pub const ALL: [Backend; 4] = [Backend::Mmap, Backend::File, Backend::Uring, Backend::Mem];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Mmap => "mmap",
            Backend::File => "file",
            Backend::Uring => "uring",
            Backend::Mem => "mem",
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Backend, String> {
        let known = Backend::ALL.into_iter().find(|backend| backend.name() == name);
        known.ok_or_else(|| format!("no backend is called `{name}`: take mmap, file, uring or mem"))
    }
}

/// Why there are no images to measure on.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The directory for images cannot be used.
    #[error("cannot make images in {}: {source}; set TMPDIR to a directory that can be written to", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The way to reach disks cannot be set up.
    #[error("cannot use the {} backend: {source}", backend.name())]
    Backend {
        /// Which.
        backend: Backend,
        /// Why.
        source: io::Error,
    },
    /// The file system has no room.
    #[error("{source}; set TMPDIR to a directory with more space")]
    NoSpace {
        /// Which image, and how much is there.
        source: ImageError,
    },
    /// An image cannot be made or opened.
    #[error(transparent)]
    Image(ImageError),
    /// Metadata cannot be written to an image.
    #[error("cannot write {}: {source}", path.display())]
    Metadata {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<ImageError> for StoreError {
    fn from(source: ImageError) -> StoreError {
        if matches!(source, ImageError::NoSpace { .. }) {
            StoreError::NoSpace { source }
        } else {
            StoreError::Image(source)
        }
    }
}

/// Where images are made, and how they are reached.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Backend,
    directory: PathBuf,
}

impl Store {
    /// Images in `directory`. Where `io_uring` cannot be had, pread and pwrite stand in, and the second value
    /// says why.
    pub fn new(backend: Backend, directory: &Path) -> (Store, Option<String>) {
        let missing = match backend {
            Backend::Uring => UringBank::available().err(),
            Backend::Mmap | Backend::File | Backend::Mem => None,
        };
        let store = |backend| Store { backend, directory: directory.to_owned() };
        match missing {
            None => (store(backend), None),
            Some(why) => (store(Backend::File), Some(format!("{why}: measured with the backend file instead"))),
        }
    }

    /// A bank without disks.
    ///
    /// # Errors
    /// If the process has no descriptor left, or nothing can be made in the directory.
    pub fn bank(&self) -> Result<Images, StoreError> {
        let plain = |source| StoreError::Backend { backend: self.backend, source };
        let kind = match self.backend {
            Backend::Mmap => Kind::Files(Leaf::Mmap(MmapBank::new().map_err(plain)?)),
            Backend::File => Kind::Files(Leaf::File(FileBank::new().map_err(plain)?)),
            Backend::Uring => {
                let bank = UringBank::new().map_err(|why| plain(io::Error::other(why)))?;
                Kind::Files(Leaf::Uring(Box::new(bank)))
            }
            Backend::Mem => Kind::Memory(MemBank::new()),
        };
        let names = match &kind {
            Kind::Memory(_) => None,
            Kind::Files(_) => {
                let directory = tempfile::Builder::new().prefix("raidlab-bench-").tempdir_in(&self.directory);
                Some(directory.map_err(|source| StoreError::Directory { directory: self.directory.clone(), source })?)
            }
        };
        Ok(Images { kind, names, answered: Vec::new() })
    }

    /// What figures taken here are figures of. `direct`: all images are read and written past the
    /// page cache.
    pub fn measured(&self, direct: bool) -> Measured {
        let directory = self.directory.canonicalize().unwrap_or_else(|_| self.directory.clone());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let system = file_system_of(&mounts, &directory).unwrap_or_else(|| "an unknown file system".to_owned());
        let at = directory.display();
        let what = match (self.backend, direct) {
            (Backend::Mem, _) => "memory of this process".to_owned(),
            _ if system == "tmpfs" || system == "ramfs" => format!("memory, as image files on {system} at {at}"),
            (_, true) => format!("device, past the page cache (O_DIRECT), under image files on {system} at {at}"),
            (_, false) => format!("page cache of image files on {system} at {at}, never flushed"),
        };
        Measured { what, backend: self.backend.name().to_owned(), threads: 1 }
    }
}

/// The type of the file system that `path` lies on, from the text of `/proc/self/mountinfo`
/// (proc_pid_mountinfo(5)): the last mount on the longest mount point above it.
fn file_system_of(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let point = PathBuf::from(unescaped(head.split(' ').nth(4)?));
        Some((point, tail.split(' ').next()?))
    });
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.components().count()).map(|(_, kind)| kind.to_owned())
}

/// Blanks and backslashes stand as `\040` and the like.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

enum Kind {
    Files(Leaf),
    Memory(MemBank),
}

/// Disks of a [`Store`].
pub struct Images {
    kind: Kind,
    /// Holds the names of the files until [`Images::seal`].
    names: Option<TempDir>,
    /// Flushes that are not carried out.
    answered: Vec<(DeviceId, Completion)>,
}

impl Images {
    /// Makes a disk of zeroes with `areas` written on it.
    ///
    /// # Errors
    /// If the image cannot be made, written or opened.
    ///
    /// # Panics
    /// If the images were sealed.
    pub fn add(&mut self, size: Sectors, areas: &[(Lba, Vec<u8>)]) -> Result<DeviceId, StoreError> {
        let leaf = match &mut self.kind {
            Kind::Memory(bank) => {
                let device = bank.add(Limits::of_disk(size));
                for (at, bytes) in areas {
                    let at = at.bytes() as usize;
                    bank.bytes_mut(device)[at..at + bytes.len()].copy_from_slice(bytes);
                }
                return Ok(device);
            }
            Kind::Files(leaf) => leaf,
        };
        let directory = self.names.as_ref().expect("disks are added before the images are sealed").path();
        let unnumbered = directory.join("next");
        Image::create(&unnumbered, size, Space::Preallocated)?;
        let metadata = |source| StoreError::Metadata { path: unnumbered.clone(), source };
        let file = File::options().write(true).open(&unnumbered).map_err(metadata)?;
        for (at, bytes) in areas {
            file.write_all_at(bytes, at.bytes()).map_err(metadata)?;
        }
        let options = ImageOptions::default();
        let device = match leaf {
            Leaf::Mmap(bank) => bank.open(&unnumbered, options)?,
            Leaf::File(bank) => bank.open(&unnumbered, options)?,
            Leaf::Uring(bank) => bank.open(&unnumbered, options)?,
            Leaf::Overlay(_) => panic!("fresh images have no overlay"),
        };
        fs::rename(&unnumbered, directory.join(device.0.to_string())).map_err(metadata)?;
        Ok(device)
    }

    /// Reads the metadata of a disk.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    ///
    /// # Panics
    /// If the images were sealed.
    pub fn candidate(&self, device: DeviceId) -> Result<Candidate, CandidateError<io::Error>> {
        match &self.kind {
            Kind::Memory(bank) => {
                let bytes = bank.bytes(device);
                Candidate::read(device, bank.limits(device).capacity, |at, length| {
                    let at = at.bytes() as usize;
                    Ok(bytes[at..at + length.bytes() as usize].to_vec())
                })
            }
            Kind::Files(_) => {
                let directory = self.names.as_ref().expect("metadata is read before the images are sealed");
                read_candidate_plainly(device, &directory.path().join(device.0.to_string()).into())
            }
        }
    }

    /// Takes the images' names away: from now on nobody else can open them, and they end with this
    /// process.
    ///
    /// # Errors
    /// If a name cannot be removed.
    pub fn seal(&mut self) -> Result<(), StoreError> {
        let Some(names) = self.names.take() else { return Ok(()) };
        let directory = names.path().to_owned();
        names.close().map_err(|source| StoreError::Directory { directory, source })
    }

    /// Whether a disk is read and written past the page cache.
    pub fn is_direct(&self, device: DeviceId) -> bool {
        matches!(&self.kind, Kind::Files(Leaf::Uring(bank)) if bank.is_direct(device))
    }
}

impl Bank for Images {
    fn limits(&self, device: DeviceId) -> Limits {
        match &self.kind {
            Kind::Files(leaf) => leaf.limits(device),
            Kind::Memory(bank) => bank.limits(device),
        }
    }

    fn submit(&mut self, device: DeviceId, mut request: Request, now: Instant) {
        let direct = self.is_direct(device);
        match &mut request.op {
            Op::Flush if !direct => return self.answered.push((device, request.complete(Ok(())))),
            Op::Write(_, durability) if !direct => *durability = Durability::Volatile,
            _ => {}
        }
        match &mut self.kind {
            Kind::Files(leaf) => leaf.submit(device, request, now),
            Kind::Memory(bank) => bank.submit(device, request, now),
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        done.append(&mut self.answered);
        match &mut self.kind {
            Kind::Files(leaf) => leaf.poll(now, done),
            Kind::Memory(bank) => bank.poll(now, done),
        }
    }

    fn lend(&mut self, device: DeviceId, extent: Extent) -> Option<Bytes> {
        match &mut self.kind {
            Kind::Files(leaf) => leaf.lend(device, extent),
            Kind::Memory(bank) => bank.lend(device, extent),
        }
    }

    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        match &self.kind {
            Kind::Files(leaf) => leaf.window(device, extent),
            Kind::Memory(bank) => bank.window(device, extent),
        }
    }

    fn vouches(&self, device: DeviceId) -> bool {
        match &self.kind {
            Kind::Files(leaf) => leaf.vouches(device),
            Kind::Memory(bank) => bank.vouches(device),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if !self.answered.is_empty() {
            return Some(Instant::START);
        }
        match &self.kind {
            Kind::Files(leaf) => leaf.next_deadline(),
            Kind::Memory(bank) => bank.next_deadline(),
        }
    }
}

impl Wakeups for Images {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Files(leaf) => leaf.wakeups(),
            Kind::Memory(bank) => bank.wakeups(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_longest_mount_point_above() {
        let mounts = "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                      22 21 0:5 / /tmp rw - tmpfs tmpfs rw\n\
                      23 22 0:6 / /tmp/a\\040b rw master:1 - xfs /dev/sdb rw\n";
        let of = |path: &str| file_system_of(mounts, Path::new(path));
        assert_eq!(of("/home/me").as_deref(), Some("ext4"));
        assert_eq!(of("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(of("/tmp/a b/x").as_deref(), Some("xfs"));
        assert_eq!(of("/tmpx").as_deref(), Some("ext4"));
        assert_eq!(file_system_of("", Path::new("/")), None);
    }

    #[test]
    fn a_report_says_whether_it_is_of_memory_a_page_cache_or_a_device() {
        let at = std::env::temp_dir();
        let said = |backend, direct| Store::new(backend, &at).0.measured(direct).what;
        assert_eq!(said(Backend::Mem, false), "memory of this process");
        assert!(said(Backend::Mmap, false).contains(&at.display().to_string()));
    }

    #[test]
    fn a_directory_that_is_none_is_named() {
        let store = Store::new(Backend::File, Path::new("/no/such/place")).0;
        let error = store.bank().err().expect("there is no such place").to_string();
        assert!(error.contains("/no/such/place") && error.contains("TMPDIR"), "{error}");
    }
}
