//! The disks of a lab: images and devices by one backend, exports of NBD servers beside them, and exports that are reached
//! by several paths.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::epoll;

use super::{Leaf, StackError};
use bytes::Bytes;

use crate::block::{Bank, Completion, DeviceId, Extent, Instant, Limits, Request, Wakeups};
use crate::config::Backing;
use crate::disk::{NbdBank, NbdOptions, NbdPathOptions, NbdPaths};
use crate::fabric::Fabric;
use crate::multipath::Multipath;
use crate::multipath::connections::Connections;
use crate::multipath::settings::{Grouping, Settings};
use crate::nbd::NbdUri;

/// A bank of disks of any kind, numbered in the order they were opened.
pub struct Leaves {
    files: Leaf,
    exports: NbdBank,
    maps: Vec<Mapped>,
    /// Readable when one of the maps has something.
    epoll: OwnedFd,
    /// Where each disk is.
    places: Vec<Place>,
    /// The disk that each file, each export is.
    disks_of_files: Vec<DeviceId>,
    disks_of_exports: Vec<DeviceId>,
    /// What there is to say about how disks were opened.
    remarks: Vec<String>,
    /// Scratch.
    done: Vec<(DeviceId, Completion)>,
}

#[derive(Clone, Copy)]
enum Place {
    File(DeviceId),
    Export(DeviceId),
    Map(usize),
}

/// A disk with several paths.
struct Mapped {
    disk: DeviceId,
    /// With the limits it had; none once it was let go of.
    multipath: Option<Multipath<NbdPaths>>,
    limits: Limits,
    under_way: usize,
    is_closed: bool,
}

/// The unit of a map that has one.
const UNIT: DeviceId = DeviceId(0);

impl Leaves {
    /// No disks yet; files are reached by `files`.
    pub fn new(files: Leaf) -> std::io::Result<Leaves> {
        Ok(Leaves {
            files,
            exports: NbdBank::new(NbdOptions::default())?,
            maps: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            places: Vec::new(),
            disks_of_files: Vec::new(),
            disks_of_exports: Vec::new(),
            remarks: Vec::new(),
            done: Vec::new(),
        })
    }

    /// Adds a disk. If it has several paths they are as `connections` says.
    pub fn open(
        &mut self,
        backing: &Backing,
        overlay: Option<&Path>,
        connections: &Connections,
        read_only: bool,
    ) -> Result<DeviceId, StackError> {
        let disk = DeviceId(self.places.len() as u32);
        let place = match backing {
            Backing::File(path) => {
                let file = self.files.open(path, overlay, read_only)?;
                self.disks_of_files.push(disk);
                Place::File(file)
            }
            Backing::Nbd(_) | Backing::Paths(_) if overlay.is_some() => return Err(StackError::MixedOverlay),
            Backing::Nbd(uri) => {
                let export = self.exports.open(uri, read_only)?;
                self.disks_of_exports.push(disk);
                Place::Export(export)
            }
            Backing::Paths(uris) => self.open_paths(disk, uris, connections, read_only)?,
        };
        self.places.push(place);
        Ok(disk)
    }

    fn open_paths(
        &mut self,
        disk: DeviceId,
        uris: &[NbdUri],
        connections: &Connections,
        read_only: bool,
    ) -> Result<Place, StackError> {
        let Connections { cmd_timeout, hold_max, settings } = *connections;
        let options = NbdPathOptions { cmd_timeout, hold_max, ..NbdPathOptions::default() };
        let (paths, troubles) = NbdPaths::open(uris, read_only, options)?;
        let watched = paths.wakeups().into_iter().try_for_each(|socket| {
            epoll::add(&self.epoll, socket, epoll::EventData::new_u64(disk.0.into()), epoll::EventFlags::IN)
        });
        watched.map_err(|errno| StackError::Bare {
            backing: Box::new(Backing::Paths(uris.to_vec())),
            source: errno.into(),
        })?;
        self.remarks.extend(troubles.iter().map(|trouble| format!("{trouble}; its other paths are used")));
        // Where connections cannot be used side by side one is at a time.
        let grouping = if paths.can_multi_conn() { Grouping::Multibus } else { Grouping::Failover };
        let limits = paths.limits(UNIT);
        let multipath = Some(Multipath::new(paths, Settings { grouping, ..settings }));
        self.maps.push(Mapped { disk, multipath, limits, under_way: 0, is_closed: false });
        Ok(Place::Map(self.maps.len() - 1))
    }

    /// What there is to say about disks that were opened since the last call.
    pub fn drain_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    /// The disks that have several paths.
    pub fn mapped(&self) -> impl Iterator<Item = DeviceId> {
        self.maps.iter().filter(|map| map.multipath.is_some()).map(|map| map.disk)
    }

    /// The paths of a disk, if it has several. They lead to unit 0.
    pub fn multipath(&self, disk: DeviceId) -> Option<&Multipath<NbdPaths>> {
        match self.places.get(disk.0 as usize)? {
            Place::Map(map) => self.maps[*map].multipath.as_ref(),
            Place::File(_) | Place::Export(_) => None,
        }
    }

    /// The paths of a disk, to be managed.
    pub fn multipath_mut(&mut self, disk: DeviceId) -> Option<&mut Multipath<NbdPaths>> {
        match self.places.get(disk.0 as usize)? {
            Place::Map(map) => self.maps[*map].multipath.as_mut(),
            Place::File(_) | Place::Export(_) => None,
        }
    }

    /// Lets go of a disk: nobody asks it for anything any more.
    pub fn close(&mut self, disk: DeviceId) {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.close(file),
            Place::Export(export) => self.exports.close(export),
            Place::Map(map) => {
                self.maps[map].is_closed = true;
                self.maps[map].let_go_if_idle();
            }
        }
    }

    /// Without exports, files have the numbers of disks.
    fn is_plain(&self) -> bool {
        self.disks_of_exports.is_empty() && self.maps.is_empty()
    }
}

impl Mapped {
    fn open(&mut self) -> &mut Multipath<NbdPaths> {
        self.multipath.as_mut().expect("nobody asks a disk that was let go of")
    }

    fn let_go_if_idle(&mut self) {
        if self.is_closed && self.under_way == 0 {
            self.multipath = None;
        }
    }

    fn poll(
        &mut self,
        now: Instant,
        scratch: &mut Vec<(DeviceId, Completion)>,
        done: &mut Vec<(DeviceId, Completion)>,
    ) {
        let Some(multipath) = &mut self.multipath else { return };
        multipath.poll(now, scratch);
        self.under_way -= scratch.len();
        done.extend(scratch.drain(..).map(|(_, completion)| (self.disk, completion)));
        self.let_go_if_idle();
    }
}

impl Bank for Leaves {
    fn limits(&self, disk: DeviceId) -> Limits {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.limits(file),
            Place::Export(export) => self.exports.limits(export),
            Place::Map(map) => self.maps[map].limits,
        }
    }

    fn submit(&mut self, disk: DeviceId, request: Request, now: Instant) {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.submit(file, request, now),
            Place::Export(export) => self.exports.submit(export, request, now),
            Place::Map(map) => {
                self.maps[map].under_way += 1;
                self.maps[map].open().submit(UNIT, request, now);
            }
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
        for map in &mut self.maps {
            map.poll(now, &mut self.done, done);
        }
    }

    fn lend(&mut self, disk: DeviceId, extent: Extent) -> Option<Bytes> {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.lend(file, extent),
            Place::Export(_) | Place::Map(_) => None,
        }
    }

    fn window(&self, disk: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.window(file, extent),
            Place::Export(_) | Place::Map(_) => None,
        }
    }

    fn vouches(&self, disk: DeviceId) -> bool {
        match self.places[disk.0 as usize] {
            Place::File(file) => self.files.vouches(file),
            Place::Export(_) | Place::Map(_) => true,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let maps = self.maps.iter().filter_map(|map| map.multipath.as_ref()?.next_deadline()).min();
        Instant::earliest([self.files.next_deadline(), self.exports.next_deadline(), maps])
    }
}

impl Wakeups for Leaves {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        self.files.wakeups().into_iter().chain(self.exports.wakeups()).chain([self.epoll.as_fd()]).collect()
    }
}
