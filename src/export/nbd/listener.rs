//! Where clients come in.

use std::fmt;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketFlags, accept_with, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use thiserror::Error;

use crate::nbd::PORT;
use crate::reactor::{PrivateSocket, SocketError};

/// A place to listen at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A socket in the file system, for its owner alone.
    Unix(PathBuf),
    /// An address and port; port 0 is any that is free.
    Tcp(SocketAddr),
}

/// Why a word names no endpoint, or an endpoint cannot be listened at.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// It is neither kind.
    #[error("{0:?} is no place to listen at: type unix:PATH or tcp:ADDRESS:PORT")]
    NotUnderstood(String),
    /// The name has no address.
    #[error("{0:?} has no address: {1}")]
    NoAddress(String, std::io::Error),
    /// Somebody listens there.
    #[error("somebody is listening at {0} already")]
    Taken(Endpoint),
    /// The path cannot be listened at.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// It cannot be listened at.
    #[error("cannot listen at {endpoint}: {source}")]
    Listen {
        /// Where.
        endpoint: Endpoint,
        /// Why not.
        source: std::io::Error,
    },
    /// What systemd handed over cannot be used.
    #[error("cannot take over the sockets that were handed over (LISTEN_FDS): {0}")]
    Inherited(std::io::Error),
}

impl Endpoint {
    /// Whether only this computer reaches it.
    pub fn is_private(&self) -> bool {
        match self {
            Endpoint::Unix(_) => true,
            Endpoint::Tcp(address) => address.ip().is_loopback(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;
    fn from_str(word: &str) -> Result<Endpoint, EndpointError> {
        let not_understood = || EndpointError::NotUnderstood(word.to_owned());
        if let Some(path) = word.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Endpoint::Unix(PathBuf::from(path)));
        }
        let host = word.strip_prefix("tcp:").ok_or_else(not_understood)?;
        let found = match host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            true => host.to_socket_addrs(),
            false => (host, PORT).to_socket_addrs(),
        };
        let mut addresses = found.map_err(|error| EndpointError::NoAddress(host.to_owned(), error))?;
        addresses.next().map(Endpoint::Tcp).ok_or_else(not_understood)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// A socket that takes clients. One in the file system is removed with it, if it was made here.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    endpoint: Endpoint,
}

#[derive(Debug)]
enum Socket {
    Private(PrivateSocket),
    Plain(OwnedFd),
}

impl Listener {
    /// Listens at an endpoint. A socket that a dead process left is replaced.
    pub fn bind(endpoint: &Endpoint) -> Result<Listener, EndpointError> {
        match endpoint {
            Endpoint::Unix(path) => {
                let socket = PrivateSocket::bind(path)?;
                let endpoint = Endpoint::Unix(socket.path().to_owned());
                Ok(Listener { socket: Socket::Private(socket), endpoint })
            }
            Endpoint::Tcp(address) => {
                let failed = |source| EndpointError::Listen { endpoint: endpoint.clone(), source };
                let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
                    std::io::ErrorKind::AddrInUse => EndpointError::Taken(endpoint.clone()),
                    _ => failed(error),
                })?;
                listener.set_nonblocking(true).map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                Ok(Listener { socket: Socket::Plain(OwnedFd::from(listener)), endpoint: Endpoint::Tcp(bound) })
            }
        }
    }

    /// The sockets that whoever started this process listens at for it, by systemd's convention: `LISTEN_PID` is this
    /// process, and `LISTEN_FDS` says how many descriptors there are from 3 on.
    pub fn inherited(variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Listener>, EndpointError> {
        const FIRST: i32 = 3;
        let number = |name| variable(name).and_then(|text| text.parse::<i32>().ok());
        if number("LISTEN_PID") != Some(getpid().as_raw_nonzero().get()) {
            return Ok(Vec::new());
        }
        let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, 64);
        let take = |descriptor| take_over(getpid(), descriptor).map_err(EndpointError::Inherited);
        (FIRST..FIRST + count).map(take).collect()
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next client that waits, if one does.
    pub(super) fn accept(&self) -> std::io::Result<Option<OwnedFd>> {
        let client = loop {
            match accept_with(self.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(client) => break client,
                Err(Errno::AGAIN) => return Ok(None),
                // It went before it was let in: the next.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if matches!(self.endpoint, Endpoint::Tcp(_)) {
            // A client that is gone already is noticed soon enough.
            let _ = sockopt::set_tcp_nodelay(&client, true);
            let _ = sockopt::set_socket_keepalive(&client, true);
        }
        Ok(Some(client))
    }
}

fn take_over(this: Pid, descriptor: i32) -> std::io::Result<Listener> {
    let process = pidfd_open(this, PidfdFlags::empty())?;
    let socket = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?;
    // SAFETY: it was open a moment ago, and nobody here closes what was handed over.
    let original = unsafe { BorrowedFd::borrow_raw(descriptor) };
    // Whoever hands sockets over leaves them to children as well.
    rustix::io::fcntl_setfd(original, FdFlags::CLOEXEC)?;
    if !sockopt::socket_acceptconn(&socket)? {
        return Err(std::io::Error::other(format!("descriptor {descriptor} does not listen")));
    }
    rustix::io::ioctl_fionbio(&socket, true)?;
    let endpoint = match sockopt::socket_domain(&socket)? {
        AddressFamily::UNIX => {
            let listener = UnixListener::from(socket.try_clone()?);
            let address = listener.local_addr()?;
            Endpoint::Unix(address.as_pathname().map(Path::to_owned).unwrap_or_default())
        }
        _ => Endpoint::Tcp(TcpListener::from(socket.try_clone()?).local_addr()?),
    };
    Ok(Listener { socket: Socket::Plain(socket), endpoint })
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Private(socket) => socket.as_fd(),
            Socket::Plain(socket) => socket.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn endpoints_are_typed_as_unix_or_tcp() {
        let parse = |word: &str| word.parse::<Endpoint>().ok();
        assert_eq!(parse("unix:/tmp/a b"), Some(Endpoint::Unix("/tmp/a b".into())));
        assert_eq!(parse("tcp:127.0.0.1:0"), Some(Endpoint::Tcp("127.0.0.1:0".parse().unwrap())));
        assert_eq!(parse("tcp:[::1]:99"), Some(Endpoint::Tcp("[::1]:99".parse().unwrap())));
        assert_eq!(parse("tcp:127.0.0.1"), Some(Endpoint::Tcp("127.0.0.1:10809".parse().unwrap())));
        for word in ["", "unix:", "tcp:", "/tmp/socket", "udp:127.0.0.1:1", "tcp:127.0.0.1:99999"] {
            assert_eq!(parse(word), None, "{word}");
        }
        assert!(!parse("tcp:0.0.0.0:1").unwrap().is_private() && parse("tcp:[::1]:1").unwrap().is_private());
    }

    #[test]
    fn a_socket_that_was_handed_over_is_not_handed_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::io::fcntl_setfd(&listener, FdFlags::empty()).unwrap();
        let taken = take_over(getpid(), listener.as_raw_fd()).unwrap();
        assert_eq!(taken.endpoint(), &Endpoint::Tcp(listener.local_addr().unwrap()));
        assert_eq!(rustix::io::fcntl_getfd(&listener).unwrap(), FdFlags::CLOEXEC);
        assert_eq!(rustix::io::fcntl_getfd(&taken).unwrap(), FdFlags::CLOEXEC);
    }

    #[test]
    fn a_socket_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a b%");
        let listener = Listener::bind(&Endpoint::Unix(path.clone())).unwrap();
        assert_eq!(listener.endpoint(), &Endpoint::Unix(path.clone()));
        drop(listener);
        assert!(!path.exists());
    }
}
