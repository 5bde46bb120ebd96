//! What is measured: arrays of every level, and the raw file beside them.
//!
//! An array is made, assembled and driven as in a lab; only its images are fresh, and background
//! work goes as fast as it can. The raw file is one image of the same store, as large as all members of
//! an array together, reached through the same bank.
//!
//! The member that is failed is the one in slot 0, which holds data on every level. It comes back
//! as a new disk on the same image, so that recovery writes every sector of it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use super::counted::Counted;
use super::images::{Images, Store, StoreError};
use super::{Clock, Driven, RealClock, Recovery, Shape, Subject, Traffic};
use crate::block::{Bank, DeviceId, Sectors, Wakeups};
use crate::raid::assemble::{AssembleError, AssembleOptions, CandidateError, assemble};
use crate::raid::create::{CreateError, NewArray, NewDevice, create, joining};
use crate::raid::geometry::Slot;
use crate::raid::level::{Layout, Level};
use crate::raid::superblock::{DeviceUuid, SetName, SetUuid, Timestamp};
use crate::raid::sync::SyncOptions;
use crate::raid::{Array, VOLUME};

/// The longest sleep, so that a stop is seen.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// The longest a failed member may take to be on record.
const FAILURE_RECORDED: Duration = Duration::from_secs(10);

/// Why a subject cannot be measured.
#[derive(Debug, Error)]
pub enum SubjectError {
    /// No images.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not an array.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// What was written to an image is not there.
    #[error("the metadata of a fresh image cannot be read back: {0}")]
    Candidate(#[from] CandidateError<io::Error>),
    /// The fresh members make no array.
    #[error("fresh members make no array: {0}")]
    Assemble(#[from] AssembleError),
}

/// The shape of an array to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArraySpec {
    /// Its level, with its default layout.
    pub level: Level,
    /// Its members.
    pub disks: usize,
    /// Its chunk; of no meaning on RAID1.
    pub chunk: Sectors,
    /// The size of each member, metadata included.
    pub member: Sectors,
}

impl ArraySpec {
    /// Whether there can be such an array.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), CreateError> {
        create(&self.new_array()).map(drop)
    }

    /// How it lays data over its members, as far as cost is concerned.
    pub fn shape(&self) -> Shape {
        let (disks, chunk_bytes) = (self.disks as u32, self.chunk.bytes());
        match self.level {
            Level::Raid0 => Shape::Striped { disks },
            Level::Raid1 => Shape::Mirrored { disks },
            Level::Raid4 | Level::Raid5 => Shape::Parity { disks, parities: 1, chunk_bytes },
            Level::Raid6 => Shape::Parity { disks, parities: 2, chunk_bytes },
            Level::Raid10 => Shape::StripedMirrors { disks, copies: 2 },
        }
    }

    /// What it is made of, in a few words.
    pub fn description(&self) -> String {
        let disks = format!("{} disks of {} MiB", self.disks, self.member.bytes() >> 20);
        let chunk = format!("{}K chunk", self.chunk.bytes() >> 10);
        let layout = Layout::default_of(self.level);
        match self.level {
            Level::Raid1 => disks,
            Level::Raid0 | Level::Raid4 => format!("{disks}, {chunk}"),
            Level::Raid5 | Level::Raid6 | Level::Raid10 => format!("{disks}, {chunk}, {layout}"),
        }
    }

    fn new_array(&self) -> NewArray {
        let device = |number| NewDevice { size: self.member, uuid: device_uuid(number) };
        NewArray {
            level: self.level,
            layout: Layout::default_of(self.level),
            chunk: self.chunk,
            raid_disks: self.disks,
            bitmap: false,
            name: SetName::new("bench").expect("it is short"),
            uuid: SetUuid(*b"raidlab benchset"),
            created: Timestamp::new(1, 0),
            in_sync: true,
            devices: (0..self.disks as u64).map(device).collect(),
        }
    }
}

/// Different for each number; nobody else ever sees these members.
fn device_uuid(number: u64) -> DeviceUuid {
    let mut bytes = *b"raidlab ........";
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    DeviceUuid(bytes)
}

/// An array on fresh images.
pub struct ArraySubject {
    name: String,
    spec: ArraySpec,
    array: Array<Counted<Images>>,
    clock: RealClock,
    /// The member that was failed.
    failed: Option<DeviceId>,
    /// Devices there have been.
    devices_total: u64,
}

impl ArraySubject {
    /// Makes the images and starts the array. `clock` is the one it will be driven by.
    ///
    /// # Errors
    /// If there can be no such array, or no images for it.
    pub fn new(name: String, spec: ArraySpec, store: &Store, clock: RealClock) -> Result<ArraySubject, SubjectError> {
        let (_, members) = create(&spec.new_array())?;
        let mut images = store.bank()?;
        let mut candidates = Vec::with_capacity(spec.disks);
        for member in &members {
            let device = images.add(spec.member, &member.writes)?;
            candidates.push(images.candidate(device)?);
        }
        images.seal()?;
        let assembly = assemble(candidates, AssembleOptions::default())?;
        let array = Array::start(Counted::new(images), assembly.geometry, assembly.start, SyncOptions::UNLIMITED);
        let devices_total = spec.disks as u64;
        Ok(ArraySubject { name, spec, array, clock, failed: None, devices_total })
    }

    /// Whether all members are read and written past the page cache.
    pub fn is_direct(&self) -> bool {
        let images = self.array.bank().inner();
        self.array.members().iter().all(|member| images.is_direct(member.device))
    }

    /// Lets the array work until `until` says so; whether it did so within `longest` and before
    /// `stop` was set.
    fn drive(&mut self, longest: Duration, stop: &AtomicBool, until: impl Fn(&Array<Counted<Images>>) -> bool) -> bool {
        let began = self.clock.now();
        let mut done = Vec::new();
        loop {
            let now = self.clock.now();
            self.array.poll(now, &mut done);
            assert!(done.is_empty(), "nobody asked for anything");
            if until(&self.array) {
                return true;
            }
            if now.since(began) >= longest || stop.load(Ordering::Relaxed) {
                return false;
            }
            match self.array.next_deadline() {
                Some(due) if due <= now => {}
                due => sleep(&self.array, due.map(|due| due.since(now))),
            }
        }
    }
}

/// Sleeps until `bank` may have something to poll for.
fn sleep(bank: &impl Wakeups, longest: Option<Duration>) {
    let longest = longest.map_or(SLEEP_MAX, |longest| longest.min(SLEEP_MAX));
    let mut descriptors: Vec<PollFd<'_>> =
        bank.wakeups().into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
    // An interrupted sleep is a short one.
    let _ = poll(&mut descriptors, Some(&timeout));
}

impl Driven for ArraySubject {
    fn bank(&mut self) -> &mut dyn Bank {
        &mut self.array
    }

    fn device(&self) -> DeviceId {
        VOLUME
    }

    fn wait(&mut self, longest: Option<Duration>) {
        sleep(&self.array, longest);
    }
}

impl Subject for ArraySubject {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn description(&self) -> String {
        self.spec.description()
    }

    fn shape(&self) -> Shape {
        self.spec.shape()
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(self.array.bank().traffic())
    }

    fn degrade(&mut self) -> io::Result<()> {
        let device = self.array.members().in_slot(Slot(0)).map(|member| member.device).next();
        let device = device.ok_or_else(|| io::Error::other("slot 0 is empty already"))?;
        self.array.fail(device).map_err(io::Error::other)?;
        self.failed = Some(device);
        let never = AtomicBool::new(false);
        if self.drive(FAILURE_RECORDED, &never, Array::is_quiet) {
            Ok(())
        } else {
            Err(io::Error::other(format!("the failure was not on record after {FAILURE_RECORDED:?}")))
        }
    }

    fn recover(&mut self, longest: Duration, stop: &AtomicBool) -> io::Result<Recovery> {
        let device = self.failed.take().ok_or_else(|| io::Error::other("no member is missing"))?;
        let model = self.array.members().iter().find(|member| member.serves());
        let model = model.ok_or_else(|| io::Error::other("no member is left"))?.superblock.clone();
        self.array.remove(device).map_err(io::Error::other)?;
        let new = NewDevice { size: self.spec.member, uuid: device_uuid(self.devices_total) };
        self.devices_total += 1;
        let number = self.array.next_device_number();
        let superblock = joining(&model, new, number, self.array.geometry().sync_size()).map_err(io::Error::other)?;
        let whole = self.array.geometry().member_used(Slot(0));
        let began = self.clock.now();
        self.array.add(device, superblock).map_err(io::Error::other)?;
        self.drive(longest, stop, |array| !array.is_syncing());
        let elapsed = self.clock.now().since(began);
        let complete = self.array.degraded().is_empty();
        let done = match self.array.sync_progress() {
            _ if complete => whole,
            Some(progress) => progress.done,
            None => return Err(io::Error::other("the array gave up")),
        };
        Ok(Recovery { bytes: done.bytes(), elapsed, complete })
    }
}

/// One image of the same store: the yardstick.
pub struct RawSubject {
    bank: Counted<Images>,
    device: DeviceId,
}

impl RawSubject {
    /// Makes the image.
    ///
    /// # Errors
    /// If that fails.
    pub fn new(size: Sectors, store: &Store) -> Result<RawSubject, SubjectError> {
        let mut images = store.bank()?;
        let device = images.add(size, &[])?;
        images.seal()?;
        Ok(RawSubject { bank: Counted::new(images), device })
    }

    /// Whether it is read and written past the page cache.
    pub fn is_direct(&self) -> bool {
        self.bank.inner().is_direct(self.device)
    }
}

impl Driven for RawSubject {
    fn bank(&mut self) -> &mut dyn Bank {
        &mut self.bank
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    fn wait(&mut self, longest: Option<Duration>) {
        sleep(&self.bank, longest);
    }
}

impl Subject for RawSubject {
    fn name(&self) -> String {
        "raw file".to_owned()
    }

    fn description(&self) -> String {
        format!("one file of {} MiB", self.bank.limits(self.device).capacity.bytes() >> 20)
    }

    fn shape(&self) -> Shape {
        Shape::Single
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(self.bank.traffic())
    }

    fn degrade(&mut self) -> io::Result<()> {
        Err(io::Error::other("a file has no members"))
    }

    fn recover(&mut self, _longest: Duration, _stop: &AtomicBool) -> io::Result<Recovery> {
        Err(io::Error::other("a file has no members"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Backend, Cell, Findings, Plan, Series, State};
    use crate::raid::level::Level;

    fn hasty_plan() -> Plan {
        let (warmup, measure) = (Duration::from_micros(200), Duration::from_millis(2));
        let recovery_limit = Duration::from_secs(10);
        Plan { reps: 2, warmup, measure, recovery_limit, limit: Duration::from_secs(600), ..Plan::defaults(0x5eed) }
    }

    fn run(backend: Backend, directory: &std::path::Path, stop: &AtomicBool) -> Findings {
        let store = Store::new(backend, directory).0;
        let clock = RealClock::start();
        let member = Sectors::floor_bytes(6 << 20);
        let mut raw = RawSubject::new(Sectors(member.0 * 4), &store).unwrap();
        let chunk = Sectors::floor_bytes(64 << 10);
        let mut arrays: Vec<ArraySubject> = Level::ALL
            .into_iter()
            .map(|level| ArraySpec { level, disks: 4, chunk, member })
            .map(|spec| ArraySubject::new(format!("RAID{}", spec.level.md_number()), spec, &store, clock).unwrap())
            .collect();
        assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0, "images have no names once they are open");
        let mut subjects: Vec<&mut dyn Subject> = vec![&mut raw];
        subjects.extend(arrays.iter_mut().map(|array| array as &mut dyn Subject));
        Series::new(hasty_plan(), &clock, stop, &mut |_| ()).run(&mut subjects).unwrap()
    }

    fn cell<'a>(findings: &'a Findings, subject: &str, workload: &str) -> &'a Cell {
        let workload = workload.parse().unwrap();
        let is = |cell: &&Cell| (&*cell.subject, cell.state, cell.workload) == (subject, State::Optimal, workload);
        findings.cells.iter().find(is).unwrap_or_else(|| panic!("no {subject} {workload}: {:?}", findings.partial))
    }

    /// Every level through every workload, degraded and recovered, on every backend of this host.
    #[test]
    fn all_levels_are_measured_and_leave_nothing_behind() {
        for backend in Backend::ALL {
            let directory = tempfile::tempdir().unwrap();
            let findings = run(backend, directory.path(), &AtomicBool::new(false));
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
            assert_eq!(findings.subjects.len(), 7, "{backend:?}");
            for cell in &findings.cells {
                assert_eq!(cell.errors, 0, "{backend:?} {cell:?}");
                // On a slow device nothing may come back in so short a time.
                assert!(cell.iops.median > 0.0 || backend == Backend::Uring, "{backend:?} {cell:?}");
            }
            for (subject, usable, tolerated) in [
                ("RAID0", 20 << 20, 0),
                ("RAID1", 5 << 20, 3),
                ("RAID4", 15 << 20, 1),
                ("RAID5", 15 << 20, 1),
                ("RAID6", 10 << 20, 2),
                ("RAID10", 10 << 20, 1),
            ] {
                let facts = findings.subjects.iter().find(|facts| facts.name == subject).unwrap();
                assert_eq!((facts.usable_bytes, facts.failures_tolerated), (usable, tolerated), "{subject}");
                let rebuild = findings.rebuilds.iter().find(|rebuild| rebuild.subject == subject);
                assert_eq!(rebuild.map(|rebuild| rebuild.bytes), (tolerated > 0).then_some(5 << 20), "{subject}");
            }
            // Writes to members per write, metadata aside: what the levels are known for.
            for (subject, writes) in
                [("raw file", 1.0), ("RAID0", 1.0), ("RAID1", 4.0), ("RAID5", 2.0), ("RAID6", 3.0), ("RAID10", 2.0)]
            {
                let counted = cell(&findings, subject, "rand-write-4K-q32").member_bytes_per_byte_written.unwrap();
                assert!((writes..writes + 0.5).contains(&counted), "{backend:?} {subject}: {counted}");
            }
        }
    }

    #[test]
    fn an_interrupted_series_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let findings = run(Backend::Mmap, directory.path(), &AtomicBool::new(true));
        assert!(findings.cells.is_empty() && findings.partial.iter().any(|why| why.contains("interrupted")));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_impossible_array_is_refused_before_an_image_is_made() {
        let spec = ArraySpec { level: Level::Raid6, disks: 3, chunk: Sectors(128), member: Sectors(16384) };
        assert!(spec.check().unwrap_err().to_string().contains("raid6 takes 4 to 64 disks"));
        let small = ArraySpec { disks: 4, member: Sectors(100), ..spec };
        assert!(matches!(small.check(), Err(CreateError::TooSmall { .. })));
    }
}
