//! One client: its connection, its socket, and the encryption between them where there is one.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::{Errno, read, readv, writev};
use rustls::ServerConfig;

use super::{Connection, PIECE, Work};
use crate::nbd::{Opened, Side, Tls};
use crate::reactor::{Ready, Ticket, Turn};

/// A client, and how far its socket can be used right now.
pub(super) struct Peer {
    pub(super) connection: Connection,
    /// Its number among all that ever came.
    pub(super) arrival: u64,
    /// The server has it among those to be looked at.
    pub(super) is_active: bool,
    /// None once it is not spoken to any more. A file, for reading and writing is all that is done with it.
    socket: Option<File>,
    /// What encrypts, once that was agreed on.
    tls: Option<Tls>,
    /// What it would begin with.
    credentials: Option<Arc<ServerConfig>>,
    readable: bool,
    writable: bool,
    /// It sends no more.
    ended: bool,
}

impl Peer {
    pub(super) fn new(
        connection: Connection,
        socket: OwnedFd,
        credentials: Option<Arc<ServerConfig>>,
        arrival: u64,
    ) -> Peer {
        Peer {
            connection,
            arrival,
            is_active: false,
            socket: Some(File::from(socket)),
            tls: None,
            credentials,
            readable: true,
            writable: true,
            ended: false,
        }
    }

    /// Its socket has something to say.
    pub(super) fn note(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
        self.ended |= ready.ended;
    }

    /// One share of what there is to do; `key` is its name in tickets.
    pub(super) fn serve(&mut self, key: usize, turn: &mut Turn<'_>) {
        self.receive();
        self.submit(key, turn);
        self.send();
    }

    /// Whether it can be forgotten.
    pub(super) fn is_over(&self) -> bool {
        let is_unsent = self.socket.is_some() && self.tls.as_ref().is_some_and(Tls::has_output);
        self.connection.is_over() && (self.connection.is_broken() || !is_unsent)
    }

    /// Whether there is something to do although nothing else happens.
    pub(super) fn has_more(&mut self) -> bool {
        if self.socket.is_some() && self.connection.is_broken() {
            self.socket = None;
        }
        if self.connection.has_work() {
            return true;
        }
        if self.socket.is_none() {
            return false;
        }
        let is_sealed = self.tls.as_ref().is_some_and(Tls::has_output);
        let is_stalled = self.tls.as_ref().is_some_and(Tls::is_stalled);
        (self.writable && (self.connection.has_output() || is_sealed))
            || ((self.readable || is_stalled) && !self.connection.spaces().is_empty())
    }

    fn receive(&mut self) {
        self.connection.go_on();
        match (&mut self.tls, &self.socket) {
            (None, Some(_)) => self.receive_plain(),
            (Some(_), Some(_)) => self.receive_encrypted(),
            (_, None) => {}
        }
    }

    fn receive_plain(&mut self) {
        let Some(socket) = self.socket.as_ref().filter(|_| self.readable) else { return };
        let mut spaces = self.connection.spaces();
        let room: usize = spaces.iter().map(|space| space.len()).sum();
        if room == 0 {
            return;
        }
        match readv(socket, &mut spaces) {
            Ok(0) => {
                self.readable = false;
                drop(spaces);
                self.connection.ended();
            }
            Ok(count) => {
                drop(spaces);
                // A socket gives all it has; its end comes after that.
                self.readable = count == room || self.ended;
                self.connection.received(count);
            }
            Err(Errno::AGAIN) => self.readable = false,
            Err(Errno::INTR) => {}
            Err(_) => {
                drop(spaces);
                self.hang_up();
            }
        }
    }

    fn receive_encrypted(&mut self) {
        let (Some(tls), Some(socket)) = (&mut self.tls, &mut self.socket) else { return };
        for may_read in [true, false] {
            match tls.open(&mut self.connection) {
                Ok(Opened::All) => {}
                Ok(Opened::NoRoom) => return,
                Ok(Opened::End) => return self.connection.ended(),
                Err(_) => {
                    // The client may take what it is told of the reason; it is gone either way.
                    let _ = tls.write_to(socket);
                    return self.hang_up();
                }
            }
            if !may_read || !self.readable {
                return;
            }
            let space = tls.space();
            let room = space.len();
            match read(&*socket, space) {
                Ok(0) => {
                    self.readable = false;
                    return self.connection.ended();
                }
                Ok(count) => {
                    self.readable = count == room || self.ended;
                    tls.filled(count);
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(_) => return self.hang_up(),
            }
        }
    }

    fn submit(&mut self, key: usize, turn: &mut Turn<'_>) {
        let mut bytes = 0;
        while bytes < PIECE
            && let Some(work) = self.connection.next_work()
        {
            match work {
                Work::Io { piece, extent, op } => {
                    bytes += extent.length.bytes();
                    turn.submit(Ticket((key as u64) << 32 | u64::from(piece)), extent, op);
                }
                Work::States { command, extent } => {
                    let states = turn.states(extent);
                    self.connection.told(command, &states);
                }
            }
        }
    }

    fn send(&mut self) {
        match (&mut self.tls, &self.socket) {
            (None, Some(_)) => self.send_plain(),
            (Some(_), Some(_)) => self.send_encrypted(),
            (_, None) => {}
        }
        if self.connection.awaits_tls()
            && let Some(credentials) = &self.credentials
        {
            self.tls = Some(Tls::server(credentials));
            self.connection.encrypted();
        }
    }

    fn send_plain(&mut self) {
        let Some(socket) = &self.socket else { return };
        while self.writable && self.connection.has_output() {
            let slices = self.connection.slices();
            let length: usize = slices.iter().map(|slice| slice.len()).sum();
            match writev(socket, &slices) {
                Ok(count) => {
                    drop(slices);
                    self.writable = count == length;
                    self.connection.sent(count);
                }
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => {
                    drop(slices);
                    return self.hang_up();
                }
            }
        }
    }

    fn send_encrypted(&mut self) {
        let (Some(tls), Some(socket)) = (&mut self.tls, &mut self.socket) else { return };
        loop {
            tls.seal(&mut self.connection);
            if self.connection.is_over() {
                tls.end();
            }
            if !self.writable || !tls.has_output() {
                return;
            }
            match tls.write_to(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return self.hang_up(),
            }
        }
    }

    /// Nothing more is said to it; pieces the volume has come back later.
    fn hang_up(&mut self) {
        self.connection.broken();
        self.socket = None;
    }
}
