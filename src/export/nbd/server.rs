//! The sockets, and the clients behind them.
//!
//! A client is looked at when its socket changed or the volume gave something back, and then again in each turn until it
//! has nothing to do: one read, some pieces for the volume, one write. So no client waits longer than for one such
//! share of each other, and a turn without work costs nothing however many there are.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use slab::Slab;

use super::peer::Peer;
use super::{CONNECTIONS_MAX, Connection, Export, Listener, Secrecy};
use crate::block::{Completion, Instant};
use crate::reactor::{FrontEnd, Interest, Ready, Ticket, Turn, Watcher};

/// A handshake that takes longer makes room where there is none.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// How long no client is let in after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Clients let in by one turn.
const ACCEPTS_MAX: usize = 16;

/// TLS as a server has it.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// What it shows, and whom it lets in.
    pub credentials: Arc<ServerConfig>,
    /// Clients that do not ask for TLS are told nothing.
    pub is_required: bool,
}

/// Every client's connection, and where they come in: a front end of the reactor.
pub struct Server {
    export: Rc<Export>,
    tls: Option<ServerTls>,
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
    /// Who waits for the end of older connections of its session.
    heirs: Vec<usize>,
    /// No client is let in before.
    accept_after: Instant,
    stopping: bool,
}

#[derive(Clone, Copy)]
struct Arrival {
    at: Instant,
    peer: usize,
    number: u64,
}

impl Server {
    /// A server of `export` behind `listeners`.
    pub fn new(export: Export, listeners: Vec<Listener>, tls: Option<ServerTls>) -> Server {
        Server {
            export: Rc::new(export),
            tls,
            waiting: vec![false; listeners.len()],
            listeners,
            watcher: None,
            peers: Slab::new(),
            active: VecDeque::new(),
            handshakes: VecDeque::new(),
            arrivals: 0,
            heirs: Vec::new(),
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
        let entry = self.peers.vacant_entry();
        let key = entry.key();
        let token = (self.waiting.len() + key) as u32;
        let watcher = self.watcher.as_ref().expect("clients come after the beginning");
        if watcher.watch(&socket, token, Interest::Changes).is_err() {
            // The kernel has no memory left for it.
            return;
        }
        let secrecy = match &self.tls {
            None => Secrecy::None,
            Some(tls) if tls.is_required => Secrecy::Required,
            Some(_) => Secrecy::Offered,
        };
        let connection = Connection::new(Rc::clone(&self.export), secrecy, now);
        let credentials = self.tls.as_ref().map(|tls| Arc::clone(&tls.credentials));
        self.arrivals += 1;
        entry.insert(Peer::new(connection, socket, credentials, self.arrivals));
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
        if self.peers[key].is_over() && self.peers.remove(key).is_active {
            self.active.retain(|active| *active != key);
        }
    }

    // ---- a client's share ----

    fn serve(&mut self, key: usize, turn: &mut Turn<'_>) {
        let peer = &mut self.peers[key];
        peer.is_active = false;
        peer.serve(key, turn);
        if peer.is_over() {
            self.peers.remove(key);
        } else if peer.connection.takes_over() {
            self.end_older(key);
        } else if peer.has_more() {
            self.activate(key);
        }
    }

    // ---- sessions ----

    /// Ends the connections that this one is to replace: what they have not handed to the volume is not done.
    fn end_older(&mut self, heir: usize) {
        for key in self.of_its_session(heir, |older, its| older < its) {
            self.peers[key].connection.broken();
            self.activate(key);
        }
        if !self.heirs.contains(&heir) {
            self.heirs.push(heir);
        }
    }

    /// Lets in those of whose older connections nothing is left. One that is older itself is ended.
    fn let_heirs_in(&mut self) {
        for heir in std::mem::take(&mut self.heirs) {
            if self.peers.get(heir).is_none_or(|peer| !peer.connection.takes_over()) {
                continue;
            }
            if !self.of_its_session(heir, |other, its| other > its).is_empty() {
                self.peers[heir].connection.broken();
            } else if self.of_its_session(heir, |other, its| other < its).is_empty() {
                self.peers[heir].connection.taken_over();
            } else {
                self.heirs.push(heir);
                continue;
            }
            self.activate(heir);
        }
    }

    /// Connections of the session of `heir` whose generation compares so with its own.
    fn of_its_session(&self, heir: usize, compares: impl Fn(u64, u64) -> bool) -> Vec<usize> {
        let Some(its) = self.peers[heir].connection.session() else { return Vec::new() };
        let is_meant = |(key, peer): (usize, &Peer)| {
            let session = peer.connection.session()?;
            (key != heir && session.id == its.id && compares(session.generation, its.generation)).then_some(key)
        };
        self.peers.iter().filter_map(is_meant).collect()
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
            // What was told before the listeners went is of nobody any more.
            *waiting = !self.stopping;
            return;
        }
        let key = token - self.waiting.len();
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.note(ready);
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
        self.let_heirs_in();
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
