//! A socket and the client that speaks through it; nothing here ever waits.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::{Errno, read, readv, writev};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, getpeername, socket_with, sockopt};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::nbd::{Client, ClientError, NbdServer, Opened, Session, Side, Tls, tls_in_words};

/// Reads of one pump, at the most: a server that never stops sending is left for the next one, and others get their turn.
const READS_MAX: usize = 16;

/// Where a server is found; a name is looked up once, when its disk is opened.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

impl Address {
    pub(super) fn of(server: &NbdServer) -> io::Result<Address> {
        match server {
            NbdServer::Unix(path) => Ok(Address::Unix(path.clone())),
            NbdServer::Tcp { host, port } => match (host.as_str(), *port).to_socket_addrs()?.collect::<Vec<_>>() {
                none if none.is_empty() => Err(io::Error::other("the name has no address")),
                addresses => Ok(Address::Tcp(addresses)),
            },
        }
    }
}

/// What a line leads to, and how.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) address: Address,
    pub(super) export: String,
    pub(super) secrecy: Option<Secrecy>,
}

impl Destination {
    /// How many different attempts there are.
    pub(super) fn ways(&self) -> usize {
        match &self.address {
            Address::Tcp(addresses) => addresses.len(),
            Address::Unix(_) => 1,
        }
    }
}

/// How a line is to be encrypted.
#[derive(Clone, Debug)]
pub(super) struct Secrecy {
    /// Who is trusted, and what is shown.
    pub(super) credentials: Arc<ClientConfig>,
    /// Who the server has to be.
    pub(super) name: ServerName<'static>,
}

/// Why a line is of no use any more.
#[derive(Debug)]
pub(super) enum Break {
    /// The server closed it: all that it was asked over this line is over.
    Ended,
    /// The system gave it up, or could not make it.
    System(Errno),
    /// The server refused, or broke the protocol.
    Client(ClientError),
}

impl Break {
    /// Whether the server is known to have let go of the line, so that nothing it was asked can still happen.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Break::Ended | Break::System(Errno::CONNRESET | Errno::PIPE))
    }
}

/// A connection, or one that is being made.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) client: Client,
    /// A file, for reading and writing is all that is done with it.
    socket: File,
    secrecy: Option<Secrecy>,
    /// What encrypts, once that was agreed on.
    tls: Option<Tls>,
    is_connected: bool,
    /// The socket takes no more for now.
    is_full: bool,
    /// The server has closed TLS.
    is_ended: bool,
    /// What the kernel is asked to tell.
    watched: EventFlags,
    token: u64,
}

impl Line {
    /// Begins to connect, in a session if there is one; `way` says which of the addresses, and `epoll` tells of events
    /// under `token`. Over TCP data that nobody acknowledges for `patience` end the connection.
    pub(super) fn begin(
        to: &Destination,
        way: usize,
        session: Option<Session>,
        epoll: &OwnedFd,
        token: u64,
        patience: Duration,
    ) -> Result<Line, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, begun) = match &to.address {
            Address::Unix(path) => {
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                let begun = connect(&socket, &SocketAddrUnix::new(path)?);
                (socket, begun)
            }
            Address::Tcp(addresses) => {
                let to = &addresses[way % addresses.len()];
                let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = socket_with(family, SocketType::STREAM, flags, None)?;
                let milliseconds = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
                sockopt::set_tcp_nodelay(&socket, true)?;
                sockopt::set_tcp_user_timeout(&socket, milliseconds)?;
                // So that a server that is gone is noticed although nothing is asked of it.
                sockopt::set_socket_keepalive(&socket, true)?;
                sockopt::set_tcp_keepidle(&socket, patience)?;
                sockopt::set_tcp_keepintvl(&socket, patience)?;
                let begun = connect(&socket, to);
                (socket, begun)
            }
        };
        let is_connected = match begun {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            Err(errno) => return Err(errno),
        };
        let watched = if is_connected { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        epoll::add(epoll, &socket, EventData::new_u64(token), watched)?;
        let client = Client::new(&to.export, to.secrecy.is_some());
        let client = match session {
            Some(session) => client.in_session(session),
            None => client,
        };
        let (socket, secrecy) = (File::from(socket), to.secrecy.clone());
        Ok(Line { client, socket, secrecy, tls: None, is_connected, is_full: false, is_ended: false, watched, token })
    }

    /// Whether [`Line::pump`] has something to send that the socket may take.
    pub(super) fn has_output(&self) -> bool {
        let has_output = match &self.tls {
            None => self.client.has_output(),
            // What the client says waits until the handshake is over.
            Some(tls) => tls.has_output() || (self.client.has_output() && !tls.is_handshaking()),
        };
        self.is_connected && !self.is_full && has_output
    }

    /// Moves what can be moved in both directions.
    pub(super) fn pump(&mut self, epoll: &OwnedFd) -> Result<(), Break> {
        if !self.is_connected {
            match getpeername(&self.socket) {
                Ok(_) => self.is_connected = true,
                Err(Errno::NOTCONN) => match sockopt::socket_error(&self.socket).map_err(Break::System)? {
                    Ok(()) => return Ok(()),
                    Err(errno) => return Err(Break::System(errno)),
                },
                Err(errno) => return Err(Break::System(errno)),
            }
        }
        self.is_full = false;
        let received = self.receive();
        // What the server said before it went is still an answer; what is sent to one that went, is not.
        if received.is_ok() {
            self.send()?;
        }
        self.watch(epoll).map_err(Break::System)?;
        match self.client.error() {
            Some(error) => Err(Break::Client(error.clone())),
            None => received,
        }
    }

    fn receive(&mut self) -> Result<(), Break> {
        for _ in 0..READS_MAX {
            if self.client.error().is_some() {
                break;
            }
            let (read, room) = match &mut self.tls {
                None => {
                    let mut spaces = self.client.spaces();
                    let room: usize = spaces.iter().map(|space| space.len()).sum();
                    (readv(&self.socket, &mut spaces), room)
                }
                Some(tls) => {
                    let space = tls.space();
                    let room = space.len();
                    (read(&self.socket, space), room)
                }
            };
            match read {
                Ok(0) => return Err(Break::Ended),
                Ok(count) => {
                    self.received(count);
                    if self.is_ended {
                        return Err(Break::Ended);
                    }
                    if count < room {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Break::System(errno)),
            }
        }
        Ok(())
    }

    fn received(&mut self, count: usize) {
        match &mut self.tls {
            None => self.client.received(count),
            Some(tls) => {
                tls.filled(count);
                match tls.open(&mut self.client) {
                    // It said goodbye, and may keep the connection until it has heard the same.
                    Ok(Opened::End) => self.is_ended = true,
                    Ok(_) => {}
                    Err(error) => {
                        // The server may take what it is told of the reason.
                        let _ = tls.write_to(&mut self.socket);
                        self.client.tls_failed(tls_in_words(&error));
                    }
                }
            }
        }
        if self.client.awaits_tls()
            && let Some(Secrecy { credentials, name }) = self.secrecy.take()
        {
            self.tls = Some(Tls::client(&credentials, name));
            self.client.encrypted();
        }
    }

    fn send(&mut self) -> Result<(), Break> {
        loop {
            let sent = match &mut self.tls {
                None if !self.client.has_output() => return Ok(()),
                None => {
                    let written = writev(&self.socket, &self.client.slices());
                    written.map(|count| self.client.sent(count))
                }
                Some(tls) => {
                    tls.seal(&mut self.client);
                    if !tls.has_output() {
                        return Ok(());
                    }
                    let written = tls.write_to(&mut self.socket);
                    written.map(|_| ()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
                }
            };
            match sent {
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.is_full = true;
                    return Ok(());
                }
                Err(errno) => return Err(Break::System(errno)),
            }
        }
    }

    fn watch(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        let wanted = if self.is_full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        if wanted != self.watched {
            epoll::modify(epoll, &self.socket, EventData::new_u64(self.token), wanted)?;
            self.watched = wanted;
        }
        Ok(())
    }
}

impl Drop for Line {
    /// Says good-bye, if that can be had without waiting.
    fn drop(&mut self) {
        if self.client.is_idle() && !self.client.has_output() {
            self.client.disconnect();
            // The server finds out either way.
            match &mut self.tls {
                None => drop(writev(self.socket.as_fd(), &self.client.slices())),
                Some(tls) => {
                    tls.seal(&mut self.client);
                    tls.end();
                    drop(tls.write_to(&mut self.socket));
                }
            }
        }
    }
}
