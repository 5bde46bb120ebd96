//! Open files that nobody else may use meanwhile.
//!
//! The lock (`flock`) belongs to the open file and not to the process: it holds against another
//! process and against another part of this one alike.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

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
}
