//! The socket, on the reactor's thread.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::{Errno, write};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, accept_with, recvmsg,
    sockopt::set_socket_send_buffer_size,
};
use slab::Slab;
use thiserror::Error;

use super::{CLIENTS_MAX, LINE_MAX, OUTPUT_MAX, REQUEST_MAX, Reply, Request, VERSION, socket_of};
use crate::block::{Completion, Instant};
use crate::reactor::{FrontEnd, Interest, PrivateSocket, Ready, SocketError, Ticket, Turn, Watcher};

/// The listener's token; connections have their number plus one.
const LISTENER: u32 = 0;

/// Where commands come in: a front end of the reactor that has no requests for the volume. Whoever owns the stack takes
/// what was asked from [`Server::take`] and answers with [`Server::say`].
pub struct Server {
    socket: Option<PrivateSocket>,
    watcher: Option<Watcher>,
    connections: Slab<Connection>,
    arrivals: u64,
    waiting: bool,
    asked: VecDeque<(Caller, Request, Option<OwnedFd>)>,
    now: Instant,
    stopping: bool,
}

/// Somebody who asked for something; may have left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Caller {
    key: usize,
    arrival: u64,
}

struct Connection {
    socket: OwnedFd,
    arrival: u64,
    input: Vec<u8>,
    /// What came with the line.
    descriptor: Option<OwnedFd>,
    output: VecDeque<u8>,
    /// It has said what it wants.
    has_asked: bool,
    /// It has been told its last line.
    is_answered: bool,
    /// It is let go then, whatever there is to say.
    until: Option<Instant>,
    readable: bool,
    writable: bool,
}

/// Why a lab cannot be reached while it runs.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct ServerError(#[from] SocketError);

impl Server {
    /// Listens in a lab's directory, whose lock the caller holds.
    pub fn bind(lab: &Path) -> Result<Server, ServerError> {
        Ok(Server {
            socket: Some(PrivateSocket::bind(&socket_of(lab))?),
            watcher: None,
            connections: Slab::new(),
            arrivals: 0,
            waiting: false,
            asked: VecDeque::new(),
            now: Instant::START,
            stopping: false,
        })
    }

    /// What was asked next, with the descriptor that came along.
    pub fn take(&mut self) -> Option<(Caller, Request, Option<OwnedFd>)> {
        self.asked.pop_front()
    }

    /// Whether somebody is still there to be told.
    pub fn is_there(&self, caller: Caller) -> bool {
        self.connections.get(caller.key).is_some_and(|connection| connection.arrival == caller.arrival)
    }

    /// Tells somebody something; the last thing is [`Reply::End`]. One who left is told nothing.
    pub fn say(&mut self, caller: Caller, reply: &Reply) {
        if !self.is_there(caller) {
            return;
        }
        let connection = &mut self.connections[caller.key];
        if connection.is_answered {
            return;
        }
        let line = serde_json::to_string(reply).expect("a reply is plain data");
        connection.output.extend(line.bytes());
        connection.output.push_back(b'\n');
        if matches!(reply, Reply::End { .. }) {
            connection.is_answered = true;
            connection.until = Some(self.now + REQUEST_MAX);
        }
        connection.send();
        if connection.is_over() {
            self.connections.remove(caller.key);
        }
    }

    /// Ends every connection that is left with its last line, waiting for each a moment at the most.
    pub fn dismiss(&mut self, code: u8, message: Option<&str>) {
        let end = Reply::End { code, message: message.map(str::to_owned) };
        let left: Vec<Caller> =
            self.connections.iter().map(|(key, connection)| Caller { key, arrival: connection.arrival }).collect();
        for caller in left {
            self.say(caller, &end);
        }
        for (_, connection) in &mut self.connections {
            // One that does not read is told no more.
            let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            let mut poll = [rustix::event::PollFd::new(&connection.socket, rustix::event::PollFlags::OUT)];
            let _ = rustix::event::poll(&mut poll, Some(&moment));
            connection.writable = true;
            connection.send();
        }
        self.connections.clear();
    }

    fn accept(&mut self) {
        while self.waiting
            && self.connections.len() < CLIENTS_MAX
            && let Some(listener) = &self.socket
        {
            match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => self.welcome(socket),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // Nobody waits any more; or there is no descriptor left, and the next who comes tries again.
                Err(_) => self.waiting = false,
            }
        }
    }

    fn welcome(&mut self, socket: OwnedFd) {
        self.arrivals += 1;
        // Best effort: with less room a client is served in smaller portions.
        let _ = set_socket_send_buffer_size(&socket, OUTPUT_MAX / 4);
        let key = self.connections.insert(Connection {
            socket,
            arrival: self.arrivals,
            input: Vec::new(),
            descriptor: None,
            output: VecDeque::new(),
            has_asked: false,
            is_answered: false,
            until: Some(self.now + REQUEST_MAX),
            readable: true,
            writable: true,
        });
        let watcher = self.watcher.as_ref().expect("clients come after the beginning");
        if watcher.watch(&self.connections[key].socket, key as u32 + 1, Interest::Changes).is_err() {
            self.connections.remove(key);
        }
    }

    /// Reads what has come on a connection, and answers what cannot be understood.
    fn hear(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        let heard = connection.receive();
        let caller = Caller { key, arrival: connection.arrival };
        match heard {
            Heard::Nothing => {}
            Heard::Line(line) => match understand(&line) {
                Ok(request) => {
                    connection.has_asked = true;
                    connection.until = None;
                    let descriptor = connection.descriptor.take();
                    self.asked.push_back((caller, request, descriptor));
                }
                Err(message) => self.say(caller, &Reply::End { code: 4, message: Some(message) }),
            },
            Heard::TooMuch => {
                let message = format!("a request is one line of at most {LINE_MAX} bytes");
                self.say(caller, &Reply::End { code: 4, message: Some(message) });
            }
            Heard::End => {
                self.connections.remove(key);
            }
        }
    }
}

/// A line as a request, or why it is none.
fn understand(line: &[u8]) -> Result<Request, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice::<Version>(line) {
        Ok(Version { version }) if version != VERSION => Err(format!(
            "the lab is served by a raidlab that speaks version {VERSION} of the protocol, not {version}: use that one"
        )),
        Ok(_) => serde_json::from_slice(line).map_err(|error| format!("this request is not understood: {error}")),
        Err(error) => Err(format!("this is no request: {error}")),
    }
}

enum Heard {
    Nothing,
    Line(Vec<u8>),
    TooMuch,
    End,
}

impl Connection {
    fn receive(&mut self) -> Heard {
        while self.readable {
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received =
                recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    descriptors.for_each(|descriptor| self.descriptor = Some(descriptor));
                }
            }
            match received {
                Ok(received) if received.bytes == 0 => return Heard::End,
                // What comes after the request says no more.
                Ok(_) if self.has_asked || self.is_answered => {}
                Ok(received) => {
                    self.input.extend_from_slice(&bytes[..received.bytes]);
                    if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                        self.input.truncate(end);
                        return Heard::Line(std::mem::take(&mut self.input));
                    }
                    if self.input.len() > LINE_MAX {
                        self.input = Vec::new();
                        return Heard::TooMuch;
                    }
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(_) => return Heard::End,
            }
        }
        Heard::Nothing
    }

    fn send(&mut self) {
        while self.writable && !self.output.is_empty() {
            match write(&self.socket, self.output.as_slices().0) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.output.clear();
                    self.is_answered = true;
                }
            }
        }
    }

    /// There is nothing left to be said to it, or too much that it does not take.
    fn is_over(&self) -> bool {
        (self.is_answered && self.output.is_empty()) || self.output.len() > OUTPUT_MAX
    }
}

impl FrontEnd for Server {
    fn begin(&mut self, watcher: Watcher) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            watcher.watch(socket.as_fd(), LISTENER, Interest::Changes)?;
        }
        self.watcher = Some(watcher);
        Ok(())
    }

    fn ready(&mut self, ready: Ready) {
        match ready.token {
            LISTENER => self.waiting = true,
            token => {
                if let Some(connection) = self.connections.get_mut(token as usize - 1) {
                    connection.readable |= ready.readable;
                    connection.writable |= ready.writable;
                }
            }
        }
    }

    fn turn(&mut self, turn: &mut Turn<'_>) {
        self.now = turn.now();
        self.accept();
        if self.connections.is_empty() {
            return;
        }
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            let connection = &mut self.connections[key];
            connection.send();
            if connection.is_over() || connection.until.is_some_and(|until| self.now >= until) {
                self.connections.remove(key);
            } else if connection.readable {
                self.hear(key);
            }
        }
    }

    fn completed(&mut self, _ticket: Ticket, _completion: Completion) {
        unreachable!("nothing is asked of the volume here");
    }

    fn next_deadline(&self) -> Option<Instant> {
        // With room again, whoever waits is let in.
        if self.waiting && self.socket.is_some() && self.connections.len() < CLIENTS_MAX {
            return Some(Instant::START);
        }
        self.connections.iter().filter_map(|(_, connection)| connection.until).min()
    }

    /// Lets nobody in any more. Who has asked is still told, and has to be [dismissed](Server::dismiss) in the end.
    fn stop(&mut self) {
        self.stopping = true;
        self.socket = None;
        self.connections.retain(|_, connection| connection.has_asked);
    }

    fn is_stopped(&self) -> bool {
        self.stopping
    }
}
