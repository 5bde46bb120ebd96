//! Sockets in the file system, for their owner alone.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::umask;
use thiserror::Error;

/// Longest path that fits into an address, with its end (unix(7)).
const PATH_MAX: usize = 108;

/// A socket that is listened at (mode 0600). It is removed when this is dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
    /// What was made; another may stand there by the time it goes.
    made: Option<(u64, u64)>,
}

/// Why a path cannot be listened at.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("somebody is listening at {} already", .0.display())]
    Taken(PathBuf),
    /// Something is there that is no socket.
    #[error("{} is there and is no socket: choose another path, or move it away", .0.display())]
    Occupied(PathBuf),
    /// The system does not let it.
    #[error("cannot listen at {}: {source}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl PrivateSocket {
    /// Listens at a path, without waiting for anybody. A socket that a dead process left there is replaced.
    pub fn bind(path: &Path) -> Result<PrivateSocket, SocketError> {
        let failed = |source| SocketError::Listen { path: path.to_owned(), source };
        let path = std::path::absolute(path).map_err(failed)?;
        make_room(&path)?;
        // From its first moment on it is its owner's alone.
        let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = by_short_path(&path, UnixListener::bind);
        umask(before);
        let listener = bound.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let made = identity(&path);
        Ok(PrivateSocket { listener, path, made })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for PrivateSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        if self.made.is_some() && identity(&self.path) == self.made {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Connects to whoever listens at a path.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    by_short_path(path, UnixStream::connect)
}

/// A path that does not fit into an address is reached from its directory.
fn by_short_path<T>(path: &Path, act: impl Fn(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return act(path.to_owned()) };
    if path.as_os_str().as_bytes().len() < PATH_MAX {
        return act(path.to_owned());
    }
    let directory = open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let directory = std::os::fd::AsRawFd::as_raw_fd(&directory);
    act(PathBuf::from(format!("/proc/self/fd/{directory}")).join(name))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Takes what a dead process left out of the way.
fn make_room(path: &Path) -> Result<(), SocketError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::Occupied(path.to_owned()));
    }
    match connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| SocketError::Listen { path: path.to_owned(), source })
        }
        _ => Err(SocketError::Taken(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_socket_is_private_replaces_a_dead_one_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        for path in [directory.path().join("a b%"), deep.join("socket")] {
            let socket = PrivateSocket::bind(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(matches!(PrivateSocket::bind(&path), Err(SocketError::Taken(_))));
            connect(&path).unwrap();
            drop(socket);
            assert!(!path.exists());
            drop(by_short_path(&path, UnixListener::bind).unwrap());
            drop(PrivateSocket::bind(&path).unwrap());
            std::fs::write(&path, "mine").unwrap();
            assert!(matches!(PrivateSocket::bind(&path), Err(SocketError::Occupied(_))));
        }
    }

    #[test]
    fn a_socket_that_was_replaced_is_left_to_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = PrivateSocket::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = PrivateSocket::bind(&path).unwrap();
        drop(first);
        connect(&path).unwrap();
        drop(second);
    }
}
