//! The disks of a lab: images and devices by one backend, and exports of NBD servers beside them.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::{Leaf, StackError};
use bytes::Bytes;

use crate::block::{Bank, Completion, DeviceId, Extent, Instant, Limits, Request, Wakeups};
use crate::config::Backing;
use crate::disk::{NbdBank, NbdOptions};

/// A bank of disks of either kind, numbered in the order they were opened.
pub struct Leaves {
    files: Leaf,
    exports: NbdBank,
    /// Where each disk is.
    places: Vec<Place>,
    /// The disk that each file, each export is.
    disks_of_files: Vec<DeviceId>,
    disks_of_exports: Vec<DeviceId>,
    /// Scratch.
    done: Vec<(DeviceId, Completion)>,
}

#[derive(Clone, Copy)]
enum Place {
    File(DeviceId),
    Export(DeviceId),
}

impl Leaves {
    /// No disks yet; files are reached by `files`.
    pub fn new(files: Leaf) -> std::io::Result<Leaves> {
        Ok(Leaves {
            files,
            exports: NbdBank::new(NbdOptions::default())?,
            places: Vec::new(),
            disks_of_files: Vec::new(),
            disks_of_exports: Vec::new(),
            done: Vec::new(),
        })
    }

    /// Adds a disk.
    pub fn open(&mut self, backing: &Backing, overlay: Option<&Path>, read_only: bool) -> Result<DeviceId, StackError> {
        let disk = DeviceId(self.places.len() as u32);
        let place = match backing {
            Backing::File(path) => {
                let file = self.files.open(path, overlay, read_only)?;
                self.disks_of_files.push(disk);
                Place::File(file)
            }
            Backing::Nbd(_) if overlay.is_some() => return Err(StackError::MixedOverlay),
            Backing::Nbd(uri) => {
                let export = self.exports.open(uri, read_only)?;
                self.disks_of_exports.push(disk);
                Place::Export(export)
            }
        };
        self.places.push(place);
        Ok(disk)
    }

    /// Lets go of a disk: nobody asks it for anything any more.
    pub fn close(&mut self, disk: DeviceId) {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.close(file),
            Place::Export(export) => self.exports.close(export),
        }
    }

    /// Without exports, files have the numbers of disks.
    fn is_plain(&self) -> bool {
        self.disks_of_exports.is_empty()
    }
}

impl Bank for Leaves {
    fn limits(&self, disk: DeviceId) -> Limits {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.limits(file),
            Place::Export(export) => self.exports.limits(export),
        }
    }

    fn submit(&mut self, disk: DeviceId, request: Request, now: Instant) {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.submit(file, request, now),
            Place::Export(export) => self.exports.submit(export, request, now),
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        if self.is_plain() {
            return self.files.poll(now, done);
        }
        self.files.poll(now, &mut self.done);
        done.extend(self.done.drain(..).map(|(file, completion)| (self.disks_of_files[file.0 as usize], completion)));
        self.exports.poll(now, &mut self.done);
        done.extend(
            self.done.drain(..).map(|(export, completion)| (self.disks_of_exports[export.0 as usize], completion)),
        );
    }

    fn lend(&mut self, disk: DeviceId, extent: Extent) -> Option<Bytes> {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.lend(file, extent),
            Place::Export(_) => None,
        }
    }

    fn vouches(&self, disk: DeviceId) -> bool {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.vouches(file),
            Place::Export(_) => true,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        [self.files.next_deadline(), self.exports.next_deadline()].into_iter().flatten().min()
    }
}

impl Wakeups for Leaves {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        self.files.wakeups().into_iter().chain(self.exports.wakeups()).collect()
    }
}
