//! The sockets, and the clients behind them.
//!
//! A client is looked at when its socket changed or the volume gave something back, and then again in each turn until it
//! has nothing to do: one read, some pieces for the volume, one write. So no client waits longer than for one such
//! share of each other, and a turn without work costs nothing however many there are.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::{Errno, readv, writev};
use slab::Slab;

use super::{CONNECTIONS_MAX, Connection, Export, Listener, PIECE, Work};
use crate::block::{Completion, Instant};
use crate::reactor::{FrontEnd, Interest, Ready, Ticket, Turn, Watcher};

/// A handshake that takes longer makes room where there is none.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// How long no client is let in after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Clients let in by one turn.
const ACCEPTS_MAX: usize = 16;

/// Every client's connection, and where they come in: a front end of the reactor.
pub struct Server {
    export: Rc<Export>,
    listeners: Vec<Listener>,
    /// Listeners with somebody waiting, perhaps.
    waiting: Vec<bool>,
    watcher: Option<Watcher>,
    peers: Slab<Peer>,
    /// Who is to be looked at, each once.
    active: VecDeque<usize>,
    /// Who came when; those that are through their handshake are passed over.
    handshakes: VecDeque<Arrival>,
    arrivals: u64,
    /// No client is let in before.
    accept_after: Instant,
    stopping: bool,
}

struct Peer {
    connection: Connection,
    /// None once it is not spoken to any more.
    socket: Option<OwnedFd>,
    /// Its number among all that ever came.
    arrival: u64,
    readable: bool,
    writable: bool,
    /// It sends no more.
    ended: bool,
    is_active: bool,
}

#[derive(Clone, Copy)]
struct Arrival {
    at: Instant,
    peer: usize,
    number: u64,
}

impl Server {
    /// A server of `export` behind `listeners`.
    pub fn new(export: Export, listeners: Vec<Listener>) -> Server {
        Server {
            export: Rc::new(export),
            waiting: vec![false; listeners.len()],
            listeners,
            watcher: None,
            peers: Slab::new(),
            active: VecDeque::new(),
            handshakes: VecDeque::new(),
            arrivals: 0,
            accept_after: Instant::START,
            stopping: false,
        }
    }

    /// Clients there are.
    pub fn connections(&self) -> usize {
        self.peers.len()
    }

    fn activate(&mut self, key: usize) {
        let peer = &mut self.peers[key];
        if !peer.is_active {
            peer.is_active = true;
            self.active.push_back(key);
        }
    }

    // ---- who comes and goes ----

    fn accept_some(&mut self, now: Instant) {
        for number in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_MAX {
                if !self.waiting[number] || now < self.accept_after || !self.has_room(now) {
                    break;
                }
                match self.listeners[number].accept() {
                    Ok(Some(socket)) => self.welcome(socket, now),
                    Ok(None) => self.waiting[number] = false,
                    Err(_) => self.accept_after = now + ACCEPT_PAUSE,
                }
            }
        }
    }

    /// Whether one more client can be let in; a handshake that takes long makes room.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.peers.len() < CONNECTIONS_MAX {
            return true;
        }
        self.pass_over_finished();
        match self.handshakes.front() {
            Some(oldest) if now.since(oldest.at) >= HANDSHAKE_GRACE => {
                let peer = oldest.peer;
                self.peers[peer].connection.broken();
                self.close_if_over(peer);
                self.peers.len() < CONNECTIONS_MAX
            }
            _ => false,
        }
    }

    fn welcome(&mut self, socket: OwnedFd, now: Instant) {
        self.arrivals += 1;
        let peer = Peer {
            connection: Connection::new(Rc::clone(&self.export), now),
            socket: None,
            arrival: self.arrivals,
            readable: true,
            writable: true,
            ended: false,
            is_active: false,
        };
        let key = self.peers.insert(peer);
        let token = (self.waiting.len() + key) as u32;
        let watcher = self.watcher.as_ref().expect("clients come after the beginning");
        if watcher.watch(&socket, token, Interest::Changes).is_err() {
            // The kernel has no memory left for it.
            self.peers.remove(key);
            return;
        }
        self.peers[key].socket = Some(socket);
        self.handshakes.push_back(Arrival { at: now, peer: key, number: self.arrivals });
        self.activate(key);
    }

    /// Forgets the first of those who are through their handshake.
    fn pass_over_finished(&mut self) {
        while let Some(first) = self.handshakes.front()
            && self
                .peers
                .get(first.peer)
                .is_none_or(|peer| peer.arrival != first.number || peer.connection.handshake_until().is_none())
        {
            self.handshakes.pop_front();
        }
    }

    fn end_late_handshakes(&mut self, now: Instant) {
        loop {
            self.pass_over_finished();
            let Some(first) = self.handshakes.front() else { return };
            let peer = first.peer;
            if self.peers[peer].connection.handshake_until().is_some_and(|until| now < until) {
                return;
            }
            self.peers[peer].connection.broken();
            self.close_if_over(peer);
        }
    }

    fn close_if_over(&mut self, key: usize) {
        if self.peers[key].connection.is_over() && self.peers.remove(key).is_active {
            self.active.retain(|active| *active != key);
        }
    }

    // ---- a client's share ----

    fn serve(&mut self, key: usize, turn: &mut Turn<'_>) {
        let peer = &mut self.peers[key];
        peer.is_active = false;
        peer.receive();
        peer.submit(key, turn);
        peer.send();
        if peer.connection.is_over() {
            self.peers.remove(key);
        } else if peer.has_more() {
            self.activate(key);
        }
    }
}

impl Peer {
    fn receive(&mut self) {
        self.connection.go_on();
        let Some(socket) = &self.socket else { return };
        if !self.readable {
            return;
        }
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

    /// Nothing more is said to it; pieces the volume has come back later.
    fn hang_up(&mut self) {
        self.connection.broken();
        self.socket = None;
    }

    fn has_more(&mut self) -> bool {
        if self.socket.is_some() && self.connection.is_broken() {
            self.socket = None;
        }
        self.connection.has_work()
            || (self.socket.is_some()
                && ((self.writable && self.connection.has_output())
                    || (self.readable && !self.connection.spaces().is_empty())))
    }
}

impl FrontEnd for Server {
    fn begin(&mut self, watcher: Watcher) -> io::Result<()> {
        for (token, listener) in self.listeners.iter().enumerate() {
            watcher.watch(listener, token as u32, Interest::Changes)?;
        }
        self.watcher = Some(watcher);
        Ok(())
    }

    fn ready(&mut self, ready: Ready) {
        let token = ready.token as usize;
        if let Some(waiting) = self.waiting.get_mut(token) {
            *waiting = true;
            return;
        }
        let key = token - self.waiting.len();
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.readable |= ready.readable;
        peer.writable |= ready.writable;
        peer.ended |= ready.ended;
        self.activate(key);
    }

    fn turn(&mut self, turn: &mut Turn<'_>) {
        self.end_late_handshakes(turn.now());
        self.accept_some(turn.now());
        for _ in 0..self.active.len() {
            if let Some(key) = self.active.pop_front() {
                self.serve(key, turn);
            }
        }
    }

    fn completed(&mut self, ticket: Ticket, completion: Completion) {
        let (key, piece) = ((ticket.0 >> 32) as usize, ticket.0 as u32);
        self.peers[key].connection.completed(piece, completion.op, completion.result);
        self.activate(key);
    }

    fn next_deadline(&self) -> Option<Instant> {
        if !self.active.is_empty() {
            return Some(Instant::START);
        }
        let first = self.handshakes.front().map(|first| first.at);
        let accept = match self.waiting.contains(&true) {
            false => None,
            true if self.peers.len() < CONNECTIONS_MAX => Some(self.accept_after),
            true => first.map(|at| at + HANDSHAKE_GRACE),
        };
        Instant::earliest([first.map(|at| at + super::HANDSHAKE_MAX), accept])
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.listeners.clear();
        self.waiting.fill(false);
        let keys: Vec<usize> = self.peers.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.peers[key].connection.stop();
            self.activate(key);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopping && self.peers.is_empty()
    }
}
