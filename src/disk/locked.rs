//! Open files that nobody else may use meanwhile.
//!
//! The lock (`flock`) belongs to the open file and not to the process: it holds against another
//! process and against another part of this one alike.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Who else may hold the lock of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Nobody.
    Alone,
    /// Others who ask for no more.
    Shared,
}

/// A file that is locked for as long as it is open here.
#[derive(Debug)]
pub struct LockedFile(File);

impl LockedFile {
    /// Locks a file or directory; an error of kind `WouldBlock` if somebody else has it.
    pub fn new(file: File, sharing: Sharing) -> io::Result<LockedFile> {
        let operation = match sharing {
            Sharing::Alone => FlockOperation::NonBlockingLockExclusive,
            Sharing::Shared => FlockOperation::NonBlockingLockShared,
        };
        rustix::io::retry_on_intr(|| flock(&file, operation)).map_err(|errno: Errno| io::Error::from(errno))?;
        Ok(LockedFile(file))
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl AsFd for LockedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // A child between its fork and its exec holds the open file too: closing alone would leave it locked
        // until then. Nothing can be done about an error, and closing follows.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Who has a file locked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its command line; empty if that cannot be read.
    pub command: String,
}

impl Holder {
    /// The process that has the file or directory locked, as far as the kernel tells (proc_locks(5)): it speaks of files
    /// by device and inode, and some file systems have another device number there.
    pub fn of(path: &Path) -> Option<Holder> {
        let file = fs::metadata(path).ok()?;
        let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        let wanted = format!("{major:02x}:{minor:02x}:{}", file.ino());
        let locks = fs::read_to_string("/proc/locks").ok()?;
        // `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; a waiter has `->` behind its number.
        let pid = locks.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                [_, "FLOCK", _, _, pid, place, ..] if place == wanted => pid.parse().ok(),
                _ => None,
            }
        })?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        let command: Vec<_> = words.map(|word| String::from_utf8_lossy(word).escape_default().to_string()).collect();
        Some(Holder { pid, command: command.join(" ") })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command.as_str() {
            "" => write!(f, "process {}", self.pid),
            command => write!(f, "process {}: {command}", self.pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// The copy stands for the one that a child has between its fork and its exec.
    #[test]
    fn a_lock_ends_with_its_owner_whoever_else_has_the_file_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        File::create(&path).unwrap();
        let open = |sharing| LockedFile::new(File::open(&path).unwrap(), sharing);

        let alone = open(Sharing::Alone).unwrap();
        let inherited = alone.try_clone().unwrap();
        assert_eq!(open(Sharing::Shared).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(alone);
        let shared = open(Sharing::Shared).unwrap();
        let other = open(Sharing::Shared).unwrap();
        assert_eq!(open(Sharing::Alone).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop((shared, other));
        open(Sharing::Alone).unwrap();
        drop(inherited);
    }

    #[test]
    fn the_holder_of_a_lock_is_named() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Holder::of(directory.path()), None);
        let _lock = LockedFile::new(File::open(directory.path()).unwrap(), Sharing::Alone).unwrap();
        // Where the kernel gives the file system another number, nobody is named.
        if let Some(holder) = Holder::of(directory.path()) {
            assert_eq!(holder.pid, std::process::id());
            assert!(!holder.command.is_empty());
        }
    }
}
