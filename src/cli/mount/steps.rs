//! The steps of a mount, and their undoing.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::BackgroundSession;

use super::host;
use super::journal::Journal;
use crate::block::{Limits, Sectors};
use crate::cli::Failure;
use crate::export::fuse;
use crate::export::loop_device::{self, LoopDevice};
use crate::reactor::Handle;

/// File systems that can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum FileSystem {
    /// ext4
    Ext4,
    /// XFS
    Xfs,
    /// btrfs
    Btrfs,
}

impl FileSystem {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
        }
    }

    fn package(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "e2fsprogs",
            FileSystem::Xfs => "xfsprogs",
            FileSystem::Btrfs => "btrfs-progs",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The lab, as an absolute path.
    pub lab: PathBuf,
    /// Where, as an absolute path.
    pub at: PathBuf,
    /// Only the FUSE file.
    pub file_only: bool,
    /// A file system to make.
    pub mkfs: Option<FileSystem>,
    /// The volume.
    pub limits: Limits,
    /// Of the array; nothing without stripes.
    pub chunk: Sectors,
    /// Data of one stripe.
    pub stripe: Sectors,
}

/// Blocks of ext4 and XFS in bytes: what stride and stripe-width count, and what su is made of.
const BLOCK: u64 = 4096;
/// From here on, the eight allocation groups that mkfs.xfs makes of a striped volume hold its log of 64 MiB each;
/// below, it asks for them all the same, and refuses.
const EIGHT_GROUPS: Sectors = Sectors(1 << 21);

impl Plan {
    fn fuse(&self) -> PathBuf {
        if self.file_only { self.at.clone() } else { self.lab.join("fuse") }
    }

    fn file(&self) -> PathBuf {
        self.fuse().join(fuse::FILE)
    }

    /// mkfs with its arguments. The array's geometry is handed over: a loop device does not tell it.
    fn mkfs(&self, file_system: FileSystem, device: &Path) -> Vec<String> {
        let (chunk, data) = (self.chunk.bytes(), self.stripe.0.checked_div(self.chunk.0).unwrap_or(0));
        let striped = chunk > 0 && data > 0 && chunk.is_multiple_of(BLOCK);
        let mut words = vec![format!("mkfs.{}", file_system.name())];
        match file_system {
            FileSystem::Ext4 => {
                words.extend(["-q", "-F", "-b", "4096"].map(String::from));
                if striped {
                    let stride = chunk / BLOCK;
                    words.extend(["-E".into(), format!("stride={stride},stripe_width={}", stride * data)]);
                }
            }
            FileSystem::Xfs => {
                words.extend(["-q", "-f"].map(String::from));
                if striped {
                    let groups = if self.limits.capacity < EIGHT_GROUPS { ",agcount=4" } else { "" };
                    words.extend(["-d".into(), format!("su={chunk},sw={data}{groups}")]);
                }
            }
            FileSystem::Btrfs => words.extend(["-q", "-f"].map(String::from)),
        }
        words.push(device.display().to_string());
        words
    }

    fn mount(&self, device: &Path) -> Vec<String> {
        vec!["mount".into(), device.display().to_string(), self.at.display().to_string()]
    }

    /// Writes the commands that do the same.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let file = self.file();
        writeln!(out, "raidlab serves {} by FUSE", file.display())?;
        if self.file_only {
            return Ok(());
        }
        let device = Path::new("/dev/loopN");
        let sector = self.limits.logical_block.bytes();
        writeln!(out, "losetup --find --show --direct-io=on --sector-size {sector} {}", file.display())?;
        if let Some(file_system) = self.mkfs {
            writeln!(out, "{}", self.mkfs(file_system, device).join(" "))?;
        }
        writeln!(out, "{}", self.mount(device).join(" "))
    }
}

/// A mount, made and unmade by threads while the array is served.
pub struct Mounting {
    plan: Arc<Plan>,
    state: Arc<Mutex<State>>,
}

struct State {
    journal: Journal,
    /// To mount FUSE with; it ends with the session.
    handle: Option<Handle>,
    session: Option<BackgroundSession>,
    is_mounted: bool,
}

impl Mounting {
    /// Nothing is done yet. Requests go to `handle`.
    pub fn new(plan: Plan, handle: Handle) -> Mounting {
        let journal = Journal { at: plan.at.clone(), fuse: plan.fuse(), device: None, file_only: plan.file_only };
        let state = State { journal, handle: Some(handle), session: None, is_mounted: false };
        Mounting { plan: Arc::new(plan), state: Arc::new(Mutex::new(state)) }
    }

    /// Where the user finds it.
    pub fn shown(&self) -> PathBuf {
        if self.plan.file_only { self.plan.file() } else { self.plan.at.clone() }
    }

    /// Whether it is still mounted; others can unmount, too.
    pub fn is_mounted(&self) -> bool {
        host::mount_at(&self.plan.at).is_some()
    }

    /// Begins to do all steps; the outcome comes later.
    pub fn make(&mut self) -> Receiver<Result<(), Failure>> {
        self.on_thread(|plan, state| state.make(plan))
    }

    /// Begins to undo all steps that were done. What is busy is left as it is, and named.
    pub fn unmake(&mut self) -> Receiver<Result<(), Failure>> {
        self.on_thread(|plan, state| state.unmake(plan))
    }

    fn on_thread(
        &self,
        work: impl FnOnce(&Plan, &mut State) -> Result<(), Failure> + Send + 'static,
    ) -> Receiver<Result<(), Failure>> {
        let (sender, receiver) = channel();
        let (plan, state) = (Arc::clone(&self.plan), Arc::clone(&self.state));
        std::thread::spawn(move || {
            let outcome = work(&plan, &mut state.lock().unwrap_or_else(PoisonError::into_inner));
            // The process may be on its way out.
            let _ = sender.send(outcome);
        });
        receiver
    }

    /// Undoes what is left when the array is gone already.
    pub fn end(self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be undone now is on record for `cleanup`.
        let _ = state.unmake(&self.plan);
    }
}

impl State {
    fn make(&mut self, plan: &Plan) -> Result<(), Failure> {
        let note = |journal: &Journal| journal.write(&plan.lab).map_err(|error| Failure::cannot(error.to_string()));
        note(&self.journal)?;
        let fuse_at = plan.fuse();
        if !plan.file_only {
            make_private_directory(&fuse_at)?;
        }
        let handle = self.handle.take().expect("it is mounted once");
        let session = fuse::mount(handle, plan.limits, &fuse_at, &host::source_of(&plan.lab)).map_err(|error| {
            Failure::cannot(format!(
                "cannot mount FUSE at {}: {error}; `raidlab doctor` says what it needs",
                fuse_at.display()
            ))
        })?;
        self.session = Some(session);
        if plan.file_only {
            self.is_mounted = true;
            return Ok(());
        }
        let sector = plan.limits.logical_block.bytes();
        let journal = &mut self.journal;
        let device = LoopDevice::attach(&plan.file(), sector as u32, |device| {
            journal.device = Some(device.to_owned());
            journal.write(&plan.lab).map_err(std::io::Error::other)
        })
        .map_err(|error| {
            Failure::cannot(format!("cannot make a loop device: {error}; `raidlab doctor` says what it needs"))
        })?;
        if let Some(file_system) = plan.mkfs {
            let package = file_system.package();
            run(&plan.mkfs(file_system, device.path()))
                .map_err(|failure| Failure::cannot(format!("{} (package {package})", failure.message)))?;
        }
        run(&plan.mount(device.path())).map_err(|failure| {
            let hint = if plan.mkfs.is_none() { "; --mkfs ext4 makes a file system on it" } else { "" };
            Failure::cannot(format!("{}{hint}", failure.message))
        })?;
        self.is_mounted = true;
        // The mount keeps it from now on, and lets go of it in the end.
        drop(device);
        Ok(())
    }

    fn unmake(&mut self, plan: &Plan) -> Result<(), Failure> {
        if self.is_mounted && !plan.file_only && host::mount_at(&plan.at).is_some() {
            run(&["umount".into(), plan.at.display().to_string()]).map_err(|failure| busy(&plan.at, &failure))?;
        }
        self.is_mounted = false;
        if let Some(device) = self.journal.device.take() {
            detach_ours(&device, &plan.file())?;
        }
        if let Some(session) = self.session.take() {
            let is_there = host::mount_at(&plan.fuse()).is_some_and(|mount| mount.lab().as_ref() == Some(&plan.lab));
            if is_there && let Some(failure) = unmount_fuse(&plan.fuse()) {
                self.session = Some(session);
                return Err(busy(&plan.fuse(), &failure));
            }
            // It ends by itself now.
            drop(session.join());
        }
        if !plan.file_only {
            // It is ours and empty.
            let _ = fs::remove_dir(plan.fuse());
        }
        Journal::forget(&plan.lab);
        Ok(())
    }
}

fn make_private_directory(at: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o700).create(at) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Failure::cannot(format!("cannot make {}: {error}", at.display())))
        }
        _ => Ok(()),
    }
}

fn busy(at: &Path, failure: &Failure) -> Failure {
    let users = host::users_of(at);
    let users = if users.is_empty() { String::new() } else { format!("; in use by {}", users.join(", ")) };
    Failure::cannot(format!("{}{users}: it stays mounted", failure.message))
}

/// Runs a command that says nothing when all is well.
fn run(words: &[String]) -> Result<(), Failure> {
    let failed = |why: String| Failure::cannot(format!("`{}` failed: {why}", words.join(" ")));
    let output = Command::new(&words[0])
        .args(&words[1..])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // What went wrong comes first, how to call it after that.
    let said = said.trim().lines().take_while(|line| !line.starts_with("Usage:")).collect::<Vec<_>>().join("; ");
    Err(failed(if said.is_empty() { output.status.to_string() } else { said }))
}

/// By root with umount(8), by anybody else with FUSE's helper.
fn unmount_fuse(at: &Path) -> Option<Failure> {
    let at = at.display().to_string();
    match rustix::process::geteuid().is_root() {
        true => run(&["umount".into(), at]).err(),
        false => run(&["fusermount3".into(), "-u".into(), at]).err(),
    }
}

/// Lets go of a loop device, if it is the one we made: it may be somebody else's by now.
fn detach_ours(device: &Path, file: &Path) -> Result<(), Failure> {
    // The kernel shows a path that is not reachable from here with a remark behind it.
    let is_ours = loop_device::backing_of(device)
        .is_some_and(|backing| backing.as_os_str().as_encoded_bytes().starts_with(file.as_os_str().as_encoded_bytes()));
    if !is_ours {
        return Ok(());
    }
    loop_device::detach(device)
        .map_err(|error| Failure::cannot(format!("cannot let go of {}: {error}", device.display())))
}

/// Undoes a mount whose server is gone: nothing of it answers any more, so nothing is waited for.
pub fn undo_abandoned(lab: &Path, journal: &Journal) -> Result<(), Failure> {
    let file = journal.fuse.join(fuse::FILE);
    if let (false, Some(device)) = (journal.file_only, &journal.device) {
        let name = device.display().to_string();
        if host::mount_at(&journal.at).is_some_and(|mount| mount.source == name) {
            let at = journal.at.display().to_string();
            // Whoever uses it gets errors; nobody is to wait for them.
            run(&["umount".into(), at.clone()]).or_else(|_| run(&["umount".into(), "-l".into(), at]))?;
        }
        detach_ours(device, &file)?;
    }
    while host::mount_at(&journal.fuse).is_some_and(|mount| mount.lab().as_deref() == Some(lab)) {
        let at = journal.fuse.display().to_string();
        match rustix::process::geteuid().is_root() {
            true => run(&["umount".into(), "-l".into(), at])?,
            false => run(&["fusermount3".into(), "-u".into(), "-z".into(), at])?,
        }
    }
    if !journal.file_only {
        let _ = fs::remove_dir(&journal.fuse);
    }
    Journal::forget(lab);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(chunk: u64, stripe: u64, mkfs: FileSystem) -> Plan {
        Plan {
            lab: "/lab".into(),
            at: "/mnt".into(),
            file_only: false,
            mkfs: Some(mkfs),
            limits: Limits::of_disk(Sectors(1 << 20)),
            chunk: Sectors(chunk / 512),
            stripe: Sectors(stripe / 512),
        }
    }

    #[test]
    fn mkfs_is_told_the_geometry() {
        let words = |plan: Plan| plan.mkfs(plan.mkfs.unwrap(), Path::new("/dev/loop7")).join(" ");
        let chunk = 64 << 10;
        assert_eq!(
            words(plan(chunk, 3 * chunk, FileSystem::Ext4)),
            "mkfs.ext4 -q -F -b 4096 -E stride=16,stripe_width=48 /dev/loop7"
        );
        let xfs = plan(chunk, 3 * chunk, FileSystem::Xfs);
        assert_eq!(words(xfs.clone()), "mkfs.xfs -q -f -d su=65536,sw=3,agcount=4 /dev/loop7");
        let large = Plan { limits: Limits::of_disk(Sectors(1 << 21)), ..xfs };
        assert_eq!(words(large), "mkfs.xfs -q -f -d su=65536,sw=3 /dev/loop7");
        assert_eq!(words(plan(6 << 10, 18 << 10, FileSystem::Xfs)), "mkfs.xfs -q -f /dev/loop7");
        assert_eq!(words(plan(0, 0, FileSystem::Xfs)), "mkfs.xfs -q -f /dev/loop7");
        assert_eq!(words(plan(chunk, chunk, FileSystem::Btrfs)), "mkfs.btrfs -q -f /dev/loop7");
    }
}
