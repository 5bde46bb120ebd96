//! From a lab's directory to a running stack: the only place that knows all layers.
//!
//! ```text
//!   requests -> Reactor -> Paths -> Array -> Paths -> Fault -> Volatile -> Leaves ─┬─ Leaf (mmap | file | io_uring | overlay) -> images, devices
//!                                                                                   ├─ NbdBank -> exports of servers
//!                                                                                   └─ Multipath -> NbdPaths -> exports by several paths
//! ```
//!
//! Where a lab has no paths, there is nothing in their place. The fault layer is what is seen of a disk, so a cache that
//! forgets lies below it: a flush that a fault swallows never reaches the cache.
//!
//! A lab is opened by one process at a time, which holds a lock on its directory. Looking at one needs no lock:
//! superblocks are read as they stand on the disks.

mod bare;
mod leaves;
mod tiers;

pub use bare::BareDisk;
pub use leaves::Leaves;
pub use tiers::Tier;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use thiserror::Error;

use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Op, Payload, Request,
    SECTOR_BYTES, Sectors, Wakeups,
};
use crate::config::{Backend, Backing, Cache, ComponentFault, Config, ConfigError, DiskConfig};
use crate::disk::{
    CACHE_BYTES, CacheLoss, Fault, FaultMisfit, FaultSpec, FileBank, Holder, ImageError, ImageOptions, LockedFile,
    MmapBank, NbdDiskError, OverlayBank, OverlayError, Sharing, UringBank, Volatile,
};
use crate::multipath::Paths;
use crate::multipath::connections::Connections;
use crate::raid::assemble::{AssembleError, AssembleOptions, Assembly, Candidate, CandidateError, Remark, assemble};
use crate::raid::probe::{ProbeError, Refusal};
use crate::raid::sync::SyncOptions;
use crate::raid::{Array, VOLUME};
use crate::reactor::Reactor;

/// A lab's file, with faults as the fault layer takes them.
pub type LabConfig = Config<FaultSpec>;

/// What a lab's users see.
pub type Volume = Paths<LabArray>;

/// The array of a lab over its disks.
pub type LabArray = Array<Members>;

/// The disks of a lab, as the array reaches them.
pub type Members = Paths<Disks>;

/// The disks of a lab, with what is wrong with them.
pub type Disks = Fault<Volatile<Leaves>>;

/// Chance of a lab's fabrics: the jitter of their paths.
const FABRIC_SEED: u64 = 1;

/// Images and devices, whatever they are reached by.
pub enum Leaf {
    /// Mapped into memory.
    Mmap(MmapBank),
    /// pread and pwrite.
    File(FileBank),
    /// `io_uring`.
    Uring(Box<UringBank>),
    /// Originals that do not change.
    Overlay(OverlayBank),
}

macro_rules! each_leaf {
    ($leaf:expr, $bank:ident => $do:expr) => {
        match $leaf {
            Leaf::Mmap($bank) => $do,
            Leaf::File($bank) => $do,
            Leaf::Uring($bank) => $do,
            Leaf::Overlay($bank) => $do,
        }
    };
}

impl Bank for Leaf {
    fn limits(&self, device: DeviceId) -> Limits {
        each_leaf!(self, bank => bank.limits(device))
    }
    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        each_leaf!(self, bank => bank.submit(device, request, now));
    }
    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        each_leaf!(self, bank => bank.poll(now, done));
    }
    fn next_deadline(&self) -> Option<Instant> {
        each_leaf!(self, bank => bank.next_deadline())
    }
    fn lend(&mut self, device: DeviceId, extent: Extent) -> Option<Bytes> {
        each_leaf!(self, bank => bank.lend(device, extent))
    }
    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        each_leaf!(self, bank => bank.window(device, extent))
    }
    fn vouches(&self, device: DeviceId) -> bool {
        each_leaf!(self, bank => bank.vouches(device))
    }
}

impl Wakeups for Leaf {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        each_leaf!(self, bank => bank.wakeups())
    }
}

impl Leaf {
    /// Disks reached by `backend`. Where `io_uring` cannot be had, pread and pwrite stand in, and the second value
    /// says why.
    pub fn new(backend: Backend) -> Result<(Leaf, Option<String>), StackError> {
        let plain = |source| StackError::Backend { backend, source };
        Ok(match backend {
            Backend::Mmap => (Leaf::Mmap(MmapBank::new().map_err(plain)?), None),
            Backend::File => (Leaf::File(FileBank::new().map_err(plain)?), None),
            Backend::Uring => match UringBank::new() {
                Ok(bank) => (Leaf::Uring(Box::new(bank)), None),
                Err(why) => (Leaf::File(FileBank::new().map_err(plain)?), Some(why.to_string())),
            },
        })
    }

    /// Adds an image or device.
    pub fn open(&mut self, path: &Path, overlay: Option<&Path>, read_only: bool) -> Result<DeviceId, StackError> {
        let options = ImageOptions { read_only, ..ImageOptions::default() };
        Ok(match self {
            Leaf::Mmap(bank) => bank.open(path, options)?,
            Leaf::File(bank) => bank.open(path, options)?,
            Leaf::Uring(bank) => bank.open(path, options)?,
            Leaf::Overlay(bank) => bank.open(path, overlay.ok_or(StackError::MixedOverlay)?)?,
        })
    }

    /// Lets go of an image or device: nobody asks it for anything any more.
    pub fn close(&mut self, device: DeviceId) {
        each_leaf!(self, bank => bank.close(device));
    }
}

/// Why a stack cannot be built.
#[derive(Debug, Error)]
pub enum StackError {
    /// `lab.toml` cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process has the lab open.
    #[error("{} is open in another process{}: wait for it to end, or stop it", lab.display(), holder.as_ref().map(|holder| format!(" ({holder})")).unwrap_or_default())]
    InUse {
        /// The lab.
        lab: PathBuf,
        /// Which, if that can be told.
        holder: Option<Holder>,
    },
    /// The lab's directory cannot be locked.
    #[error("cannot lock {}: {source}", lab.display())]
    Lock {
        /// The lab.
        lab: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The way to reach disks cannot be set up.
    #[error("cannot use the {} backend: {source}", backend.name())]
    Backend {
        /// Which.
        backend: Backend,
        /// Why.
        source: std::io::Error,
    },
    /// An image cannot be opened.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An overlay cannot be opened.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// An export cannot be opened.
    #[error(transparent)]
    Nbd(#[from] NbdDiskError),
    /// A disk cannot be opened by itself.
    #[error("cannot open {backing}: {source}")]
    Bare {
        /// Where it is.
        backing: Box<Backing>,
        /// Why.
        source: std::io::Error,
    },
    /// Some disks have an overlay and some have none.
    #[error("either all disks of a lab have an overlay or none, and an export never has one: see `lab.toml`")]
    MixedOverlay,
    /// A fault does not fit its disk.
    #[error("{disk}: {source}")]
    Fault {
        /// The disk.
        disk: String,
        /// Why not.
        source: FaultMisfit,
    },
    /// A disk carries something that is left to md.
    #[error("{disk}: {refusal}")]
    Refused {
        /// The disk.
        disk: String,
        /// What.
        refusal: Refusal,
    },
    /// None of a lab's disks is of any use.
    #[error("no disk of {} can be used: {}", lab.display(), troubles.join("; "))]
    NoDisks {
        /// The lab.
        lab: PathBuf,
        /// What is wrong with each.
        troubles: Vec<String>,
    },
    /// A disk is there, and this user or this file system does not let it be written.
    #[error("{disk}: {source}; mend that, or look at copies with `raidlab assemble LAB IMG... --overlay`")]
    NotOurs {
        /// The disk.
        disk: String,
        /// What the system said.
        source: ImageError,
    },
    /// The disks do not make an array.
    #[error("{}{}", named(error, names), troubles.iter().map(|trouble| format!("; {trouble}")).collect::<String>())]
    Assemble {
        /// Why not.
        error: AssembleError,
        /// What is wrong with those that are of no use.
        troubles: Vec<String>,
        /// The disks' names, by device.
        names: Vec<String>,
    },
}

/// An error about devices, with their names instead of their numbers.
fn named(error: &AssembleError, names: &[String]) -> String {
    let mut text = error.to_string();
    // From the highest number down, so that `DeviceId(1)` is not found in `DeviceId(12)`.
    for (device, name) in names.iter().enumerate().rev() {
        text = text.replace(&format!("DeviceId({device})"), name);
    }
    text
}

/// A disk of a lab, as it was found.
#[derive(Clone, Debug)]
pub struct LabDisk {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub backing: Backing,
    /// Its device, if it could be opened.
    pub device: Option<DeviceId>,
    /// What is wrong with it, if it is of no use.
    pub trouble: Option<String>,
}

/// A lab's directory, locked.
pub struct Lab {
    /// The directory.
    pub directory: PathBuf,
    /// What its file says.
    pub config: LabConfig,
    _lock: LockedFile,
}

/// Locks a directory against any other process that would open it as a lab.
pub fn lock_directory(lab: &Path) -> Result<LockedFile, StackError> {
    let cannot = |source| StackError::Lock { lab: lab.to_owned(), source };
    let directory = File::open(lab).map_err(cannot)?;
    LockedFile::new(directory, Sharing::Alone).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => StackError::InUse { lab: lab.to_owned(), holder: Holder::of(lab) },
        _ => cannot(error),
    })
}

impl Lab {
    /// Takes hold of a lab.
    pub fn open(directory: &Path) -> Result<Lab, StackError> {
        // Before it is locked: what is no lab has no lock to speak of.
        LabConfig::read(directory)?;
        let lock = lock_directory(directory)?;
        Ok(Lab { directory: directory.to_owned(), config: LabConfig::read(directory)?, _lock: lock })
    }

    /// Writes `lab.toml` as it is now.
    pub fn save(&self) -> Result<(), StackError> {
        Ok(self.config.write(&self.directory)?)
    }

    /// Where a path of `lab.toml` leads.
    pub fn path_of(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// The name a disk would have that is added next.
    pub fn next_name(&self) -> String {
        let taken = |name: &str| {
            self.config.disks.iter().any(|disk| disk.name == name)
                || ["img", "overlay"].iter().any(|kind| self.directory.join(format!("{name}.{kind}")).exists())
        };
        (0..).map(|number| format!("disk-{number}")).find(|name| !taken(name)).expect("numbers do not end")
    }

    /// What an image or device says about itself that is not one of the open disks.
    pub fn candidate_at(&self, path: &Path) -> Result<Candidate, CandidateError<std::io::Error>> {
        read_candidate_plainly(DeviceId(0), &self.path_of(path).into())
    }

    fn sync_options(&self) -> SyncOptions {
        let sync = self.config.sync;
        SyncOptions { speed_min: sync.speed_min, speed_max: sync.speed_max, frozen: false }
    }
}

/// How to open a lab.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OpenOptions {
    /// Accept what may be wrong; see [`AssembleOptions::force`].
    pub force: bool,
    /// Leave recovery and resync for later.
    pub frozen: bool,
    /// As fast as it goes, whatever the lab's speed limits.
    pub unlimited: bool,
}

/// A lab whose array runs in this process.
pub struct Stack {
    /// The lab.
    pub lab: Lab,
    /// Its disks, in the order of `lab.toml`; those added later behind.
    pub disks: Vec<LabDisk>,
    /// What there is to say about how it was put together.
    pub remarks: Vec<Remark>,
    /// Why the disks are not reached as `lab.toml` says, if so.
    pub fallback: Option<String>,
    /// What there is to say about how disks were reached.
    pub notes: Vec<String>,
    /// The array, and what drives it.
    pub reactor: Reactor<Volume>,
}

/// Seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "superblocks carry the time of day")]
pub fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Stack {
    /// Opens all disks of a lab and starts its array.
    pub fn open(lab: Lab, options: OpenOptions) -> Result<Stack, StackError> {
        let overlays = lab.config.disks.iter().filter(|disk| disk.overlay.is_some()).count();
        let (leaf, fallback) = match overlays {
            0 => Leaf::new(lab.config.backend)?,
            all if all == lab.config.disks.len() => (Leaf::Overlay(OverlayBank::new()), None),
            _ => return Err(StackError::MixedOverlay),
        };
        let backend = lab.config.backend;
        let mut leaves = Leaves::new(leaf).map_err(|source| StackError::Backend { backend, source })?;
        let mut disks = Vec::new();
        for disk in &lab.config.disks {
            disks.push(open_disk(&lab, &mut leaves, disk)?);
        }
        let notes = leaves.drain_remarks();
        let mut bank = Volatile::new(leaves);
        for (disk, config) in disks.iter().zip(&lab.config.disks) {
            if let (Some(device), Cache::Volatile) = (disk.device, config.cache) {
                bank.give_cache(device, CACHE_BYTES);
            }
        }
        let mut bank = Fault::new(bank);
        for fault in &lab.config.faults {
            let device = disks.iter().find(|disk| disk.name == fault.disk).and_then(|disk| disk.device);
            if let Some(device) = device {
                bank.arm(device, fault.fault.clone(), Instant::START)
                    .map_err(|source| StackError::Fault { disk: fault.disk.clone(), source })?;
            }
        }
        let mut reactor = Reactor::new(bank);
        let candidates = read_candidates(&mut reactor, &mut disks)?;
        if candidates.is_empty() {
            return Err(StackError::NoDisks { lab: lab.directory.clone(), troubles: troubles(&disks) });
        }
        let settings = AssembleOptions { force: options.force, read_only: false, wall_clock: wall_clock() };
        let assembly = assemble(candidates, settings).map_err(|error| StackError::Assemble {
            error,
            troubles: troubles(&disks),
            names: names_of(&disks),
        })?;
        let sync = if options.unlimited { SyncOptions::UNLIMITED } else { lab.sync_options() };
        let sync = SyncOptions { frozen: options.frozen, ..sync };
        let Assembly { geometry, start, remarks, .. } = assembly;
        let units: Vec<DeviceId> = disks.iter().filter_map(|disk| disk.device).collect();
        let members = reached(reactor.into_stack(), &lab.config, Tier::Members, &units);
        let array = Array::start(members, geometry, start, sync);
        let volume = reached(array, &lab.config, Tier::Volume, &[VOLUME]);
        Ok(Stack { lab, disks, remarks, fallback, notes, reactor: Reactor::new(volume) })
    }

    /// The array.
    pub fn array(&self) -> &LabArray {
        self.reactor.stack().bank()
    }

    /// The array, to be changed.
    pub fn array_mut(&mut self) -> &mut LabArray {
        self.reactor.stack_mut().bank_mut()
    }

    /// The disks, and what is wrong with them.
    pub fn disks_mut(&mut self) -> &mut Disks {
        self.array_mut().bank_mut().bank_mut()
    }

    /// A disk's name.
    pub fn name_of(&self, device: DeviceId) -> &str {
        let named = self.disks.iter().find(|disk| disk.device == Some(device));
        named.map_or("a disk that was removed", |disk| &disk.name)
    }

    /// Adds a disk under `name`, to the bank and to `lab.toml`.
    pub fn attach(&mut self, name: &str, backing: &Backing) -> Result<DeviceId, StackError> {
        let full = backing.within(&self.lab.directory);
        let overlaid = self.lab.config.disks.iter().any(|disk| disk.overlay.is_some());
        let overlay = overlaid.then(|| PathBuf::from(format!("{name}.overlay")));
        let overlay_path = overlay.as_ref().map(|overlay| self.lab.path_of(overlay));
        let device = self.leaves_mut().open(&full, overlay_path.as_deref(), &Connections::default(), false)?;
        let now = self.reactor.now();
        self.array_mut().bank_mut().add_unit(device, now);
        self.lab.config.disks.push(DiskConfig { overlay, ..DiskConfig::new(name.to_owned(), backing.clone()) });
        self.lab.save()?;
        self.disks.push(LabDisk { name: name.to_owned(), backing: full, device: Some(device), trouble: None });
        Ok(device)
    }

    /// Forgets a disk that is no member any more; its image stays.
    pub fn detach(&mut self, name: &str) -> Result<(), StackError> {
        self.lab.config.disks.retain(|disk| disk.name != name);
        self.lab.config.faults.retain(|fault| fault.disk != name);
        let gone = self.disks.iter().position(|disk| disk.name == name).map(|at| self.disks.remove(at));
        if let Some(device) = gone.and_then(|disk| disk.device) {
            let bank = self.disks_mut();
            let faults: Vec<_> =
                bank.list().iter().filter(|fault| fault.device == device).map(|fault| fault.id).collect();
            for fault in faults {
                bank.disarm(fault);
            }
            self.leaves_mut().close(device);
        }
        self.lab.save()
    }

    /// Lets background work go by the speed limits of the lab's file, as they are now.
    pub fn obey_speed_limits(&mut self) {
        let options = self.lab.sync_options();
        self.array_mut().set_sync_options(options);
    }

    /// Reads from the volume.
    pub fn read(&mut self, extent: Extent) -> Result<Vec<u8>, IoError> {
        let op = Op::Read(Buf::zeroed(extent.length.bytes() as usize));
        match self.reactor.request(VOLUME, extent, op) {
            (Op::Read(buf), Ok(())) => Ok(buf.to_vec()),
            (_, Err(error)) => Err(error),
            (op, Ok(())) => panic!("a read came back as a {}", op.name()),
        }
    }

    /// Writes to the volume.
    pub fn write(&mut self, at: Lba, bytes: &[u8]) -> Result<(), IoError> {
        let extent = Extent::new(at, Sectors(bytes.len() as u64 / SECTOR_BYTES));
        self.reactor.request(VOLUME, extent, Op::Write(Payload::copy_of(bytes), Durability::Volatile)).1
    }

    /// Makes durable what was written.
    pub fn flush(&mut self) -> Result<(), IoError> {
        self.reactor.request(VOLUME, Extent::new(Lba(0), Sectors::ZERO), Op::Flush).1
    }

    /// Lets everything under way finish, writes down how far it came, marks the array clean.
    pub fn stop(mut self) {
        self.stop_in_place();
    }

    /// As [`Stack::stop`]; what happened can be asked for afterwards.
    pub fn stop_in_place(&mut self) {
        self.array_mut().stop();
        self.reactor.run(|volume| volume.bank().is_stopped());
        let now = self.reactor.now();
        self.caches_mut().write_down(now);
        self.reactor.run(|volume| volume.bank().bank().bank().inner().is_empty());
    }

    /// The power goes for all disks: of what those with a volatile cache had not flushed, each sector is kept or lost by a
    /// draw from `seed`. Gives what became of each such disk. The images are then as a power cut leaves them; no request
    /// is answered any more, and all that is left to do is to end the process, without [`Stack::stop`].
    pub fn power_cut(&mut self, seed: u64) -> Vec<CacheLoss> {
        let now = self.reactor.now();
        let losses = self.caches_mut().power_cut(seed, now);
        self.reactor.run(|volume| volume.bank().bank().bank().inner().is_cut());
        losses
    }

    fn leaves(&self) -> &Leaves {
        self.array().bank().bank().inner().inner()
    }

    fn leaves_mut(&mut self) -> &mut Leaves {
        self.caches_mut().inner_mut()
    }

    fn caches_mut(&mut self) -> &mut Volatile<Leaves> {
        self.disks_mut().inner_mut()
    }
}

/// A bank by the paths of a lab's file, if these units of it have any.
fn reached<B: Bank>(bank: B, config: &LabConfig, tier: Tier, units: &[DeviceId]) -> Paths<B> {
    let Some(paths) = config.paths.as_ref().filter(|paths| tier.is_one_of(paths.at)) else {
        return Paths::Direct(bank);
    };
    let looked_at = "it was looked at when it was read";
    let (profile, graph) = (paths.profile().expect(looked_at), paths.graph(units).expect(looked_at));
    let mut reached = Paths::many(bank, graph, profile.transport, profile.settings, FABRIC_SEED);
    for ComponentFault { component, health } in &paths.faults {
        if let Some((of, name)) = Tier::of_component(component)
            && of == tier
        {
            reached.set_health(name, *health, Instant::START);
        }
    }
    reached
}

fn names_of(disks: &[LabDisk]) -> Vec<String> {
    let highest = disks.iter().filter_map(|disk| disk.device).map(|device| device.0 as usize + 1).max().unwrap_or(0);
    let mut names = vec![String::new(); highest];
    for disk in disks {
        if let Some(device) = disk.device {
            names[device.0 as usize].clone_from(&disk.name);
        }
    }
    names
}

fn open_disk(lab: &Lab, leaves: &mut Leaves, disk: &DiskConfig) -> Result<LabDisk, StackError> {
    let backing = disk.backing.within(&lab.directory);
    let overlay = disk.overlay.as_ref().map(|overlay| lab.path_of(overlay));
    let mut found = LabDisk { name: disk.name.clone(), backing, device: None, trouble: None };
    let connections = disk.connections().expect("it was looked at when it was read");
    match open_when_free(leaves, &found.backing, overlay.as_deref(), &connections) {
        Ok(device) => found.device = Some(device),
        // A disk that is gone or broken is missing; one that somebody else holds, or that we may not write, must not be
        // worked around.
        Err(
            error @ (StackError::Image(ImageError::Locked { .. } | ImageError::Busy { .. }) | StackError::Overlay(_)),
        ) => return Err(error),
        Err(StackError::Image(source @ ImageError::Open { .. })) if is_withheld(&source) => {
            return Err(StackError::NotOurs { disk: disk.name.clone(), source });
        }
        Err(error) => found.trouble = Some(error.to_string()),
    }
    Ok(found)
}

/// How long an image may still be held by a process that is gone.
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// Opens an image. One that a killed process had is let go of only when the kernel has carried out what the process's
/// `io_uring` had begun: until then it must not be touched, and soon it can be.
#[allow(clippy::disallowed_methods, reason = "there is no file descriptor to wait on for a lock")]
fn open_when_free(
    leaves: &mut Leaves,
    backing: &Backing,
    overlay: Option<&Path>,
    connections: &Connections,
) -> Result<DeviceId, StackError> {
    let deadline = std::time::Instant::now() + RELEASE_MAX;
    loop {
        match leaves.open(backing, overlay, connections, false) {
            Err(StackError::Image(ImageError::Locked { .. })) if std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

fn is_withheld(error: &ImageError) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error, ImageError::Open { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
}

/// What is wrong with disks, each with its name.
pub fn troubles(disks: &[LabDisk]) -> Vec<String> {
    disks.iter().filter_map(|disk| Some(format!("{}: {}", disk.name, disk.trouble.as_ref()?))).collect()
}

fn read_candidates(reactor: &mut Reactor<Disks>, disks: &mut [LabDisk]) -> Result<Vec<Candidate>, StackError> {
    let mut candidates = Vec::new();
    for disk in disks {
        let Some(device) = disk.device else { continue };
        let size = reactor.stack().limits(device).capacity;
        let read = |at: Lba, length: Sectors| {
            let op = Op::Read(Buf::zeroed(length.bytes() as usize));
            match reactor.request(device, Extent::new(at, length), op) {
                (Op::Read(buf), Ok(())) => Ok(buf.to_vec()),
                (_, result) => Err(result.err().unwrap_or(IoError::Medium)),
            }
        };
        note_candidate(Candidate::read(device, size, read), disk, &mut candidates)?;
    }
    Ok(candidates)
}

fn note_candidate<E: std::fmt::Display>(
    found: Result<Candidate, CandidateError<E>>,
    disk: &mut LabDisk,
    candidates: &mut Vec<Candidate>,
) -> Result<(), StackError> {
    match found {
        Ok(candidate) => candidates.push(candidate),
        Err(CandidateError::Probe(ProbeError::Refused(refusal))) => {
            return Err(StackError::Refused { disk: disk.name.clone(), refusal });
        }
        Err(error) => disk.trouble = Some(error.to_string()),
    }
    Ok(())
}

/// Reads the metadata on a disk as it stands there, without a lock.
pub fn read_candidate_plainly(
    device: DeviceId,
    backing: &Backing,
) -> Result<Candidate, CandidateError<std::io::Error>> {
    let mut disk = BareDisk::look(backing).map_err(|error| CandidateError::Probe(ProbeError::Read(error)))?;
    Candidate::read(device, disk.limits().capacity, |at: Lba, length: Sectors| disk.read(at, length))
}

/// A lab as it stands on its disks: nothing is opened for writing, nothing changes.
pub struct Look {
    /// What `lab.toml` says.
    pub config: LabConfig,
    /// Its disks.
    pub disks: Vec<LabDisk>,
    /// What they say about themselves.
    pub candidates: Vec<Candidate>,
    /// The array they would make, or why they make none.
    pub assembly: Result<Assembly, StackError>,
    /// Another process has the lab open.
    pub in_use: bool,
}

impl Look {
    /// Looks at a lab.
    pub fn at(directory: &Path) -> Result<Look, StackError> {
        let config = LabConfig::read(directory)?;
        // Held no longer than it takes to ask.
        let in_use = matches!(lock_directory(directory), Err(StackError::InUse { .. }));
        if in_use && config.disks.iter().any(|disk| disk.overlay.is_some()) {
            // An overlay makes sense to its owner alone until it is at rest.
            return Err(StackError::InUse { lab: directory.to_owned(), holder: Holder::of(directory) });
        }
        let mut disks: Vec<LabDisk> = Vec::new();
        let mut candidates = Vec::new();
        let mut refused = None;
        for (number, disk) in config.disks.iter().enumerate() {
            let device = DeviceId(number as u32);
            let backing = disk.backing.within(directory);
            let mut found = LabDisk { name: disk.name.clone(), backing, device: Some(device), trouble: None };
            let candidate = match &disk.overlay {
                Some(overlay) if directory.join(overlay).exists() => {
                    look_through(device, &mut found, &directory.join(overlay), &mut candidates)
                }
                _ => note_candidate(read_candidate_plainly(device, &found.backing), &mut found, &mut candidates),
            };
            if let Err(error) = candidate {
                found.trouble = Some(error.to_string());
                refused = Some(error);
            }
            if found.trouble.is_some() {
                found.device = None;
            }
            disks.push(found);
        }
        let options = AssembleOptions { force: false, read_only: false, wall_clock: wall_clock() };
        let assembly = match refused {
            Some(error) => Err(error),
            None => assemble(candidates.clone(), options).map_err(|error| {
                let names = config.disks.iter().map(|disk| disk.name.clone()).collect();
                // Each disk is shown with its own.
                StackError::Assemble { error, troubles: Vec::new(), names }
            }),
        };
        Ok(Look { config, disks, candidates, assembly, in_use })
    }
}

/// Reads the metadata of a disk through its overlay.
fn look_through(
    device: DeviceId,
    disk: &mut LabDisk,
    overlay: &Path,
    candidates: &mut Vec<Candidate>,
) -> Result<(), StackError> {
    let mut bank = OverlayBank::new();
    let original = disk.backing.file().ok_or(StackError::MixedOverlay)?;
    let opened = bank.look(original, overlay)?;
    let size = bank.limits(opened).capacity;
    let mut reactor = Reactor::new(bank);
    let read = |at: Lba, length: Sectors| {
        let op = Op::Read(Buf::zeroed(length.bytes() as usize));
        match reactor.request(opened, Extent::new(at, length), op) {
            (Op::Read(buf), Ok(())) => Ok(buf.to_vec()),
            (_, result) => Err(result.err().unwrap_or(IoError::Medium)),
        }
    };
    note_candidate(Candidate::read(device, size, read), disk, candidates)
}

/// Removes files that were made in vain.
pub fn remove_files(paths: &[PathBuf]) {
    for path in paths {
        // What cannot be removed is left; the error that led here says more.
        let _ = fs::remove_file(path);
    }
}
