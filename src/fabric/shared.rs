//! One target, and the ways of all its hosts to it.
//!
//! The hosts are not in it: each belongs to the map over it. What they put out is carried, what arrives is handed to them.

use std::collections::BTreeMap;

use super::graph::{ComponentId, Graph};
use super::health::Health;
use super::host::Host;
use super::net::{Arrival, Net};
use super::target::Target;
use super::transport::Transport;
use super::{Access, Fencing, PathId, PathInfo};
use crate::block::{Bank, DeviceId, Instant, Limits};

/// A target with its units, and the components between it and its hosts.
#[derive(Clone, Debug)]
pub struct Shared<B> {
    net: Net,
    target: Target<B>,
    /// The first path of each host; its own numbers begin at 0.
    bases: Vec<u16>,
}

impl<B: Bank> Shared<B> {
    /// All components are well, and the first path's port group owns the unit. The hosts are those of the graph, in order.
    pub fn new(bank: B, graph: Graph, transport: Transport, seed: u64) -> (Shared<B>, Vec<Host>) {
        let paths = graph.paths().to_vec();
        let limits: BTreeMap<DeviceId, Limits> = paths.iter().map(|path| (path.unit, bank.limits(path.unit))).collect();
        let fencing = paths.iter().map(|path| path.fencing).min().unwrap_or(Fencing::None);
        let target = Target::new(bank, paths.clone(), fencing, graph.alua());
        let mut hosts = Vec::new();
        let mut bases = Vec::new();
        let mut base = 0;
        for of_host in paths.chunk_by(|a, b| a.host == b.host) {
            let mine = (base..).map(PathId).take(of_host.len());
            let accesses = mine.map(|path| target.access(path, Instant::START)).collect();
            hosts.push(Host::new(of_host.to_vec(), limits.clone(), accesses, transport));
            bases.push(base);
            base += of_host.len() as u16;
        }
        (Shared { net: Net::new(graph, &transport, seed), target, bases }, hosts)
    }

    /// Components and routes.
    pub fn graph(&self) -> &Graph {
        self.net.graph()
    }

    /// The target.
    pub fn target(&self) -> &Target<B> {
        &self.target
    }

    /// The target, to be changed by its owner.
    pub fn target_mut(&mut self) -> &mut Target<B> {
        &mut self.target
    }

    /// The target, alone.
    pub fn into_target(self) -> Target<B> {
        self.target
    }

    /// Another unit of the bank can be reached by the only host, by the ways that lead to the others.
    ///
    /// # Panics
    /// With several hosts: their paths are numbered one behind the other.
    pub fn add_unit(&mut self, host: &mut Host, unit: DeviceId, now: Instant) {
        assert_eq!(self.bases.len(), 1, "the paths are those of one host");
        let before = self.graph().paths().len();
        self.net.add_unit(unit, now);
        let paths = self.graph().paths()[before..].to_vec();
        self.target.add_paths(&paths);
        let numbers = (before..before + paths.len()).map(|path| PathId(path as u16));
        let accesses: Vec<Access> = numbers.map(|path| self.target.access(path, now)).collect();
        host.add_paths(&paths, &accesses, self.target.bank().limits(unit), now);
    }

    /// How a component is.
    pub fn health(&self, component: ComponentId) -> Health {
        self.net.health(component)
    }

    /// From now on a component is as `health` says.
    pub fn set_health(&mut self, hosts: &[&Host], component: ComponentId, health: Health, now: Instant) {
        self.net.set_health(component, health, now);
        self.changed(hosts, now);
    }

    /// A component is not as it was.
    fn changed(&mut self, hosts: &[&Host], now: Instant) {
        for frame in self.net.take_unacknowledged() {
            let host = self.host_of(frame.path);
            if hosts[host].still_wants(&frame.clone().counted_from(-i32::from(self.bases[host]))) {
                self.net.send(frame, now);
            }
        }
        self.target.mind(&self.net.alive(), now);
    }

    fn host_of(&self, path: PathId) -> usize {
        self.bases.partition_point(|base| *base <= path.0) - 1
    }

    /// What a host has put out goes on its way.
    pub fn carry(&mut self, number: usize, host: &mut Host, now: Instant) {
        for frame in host.drain_outbox() {
            self.net.send(frame.counted_from(i32::from(self.bases[number])), now);
        }
    }

    /// Hands over what is there by `now`, and has the target do its work.
    pub fn poll(&mut self, hosts: &mut [&mut Host], now: Instant) {
        self.target.tick(&self.net.alive(), now);
        loop {
            self.target.poll(now);
            for frame in self.target.drain_outbox() {
                self.net.send(frame, now);
            }
            for (number, host) in hosts.iter_mut().enumerate() {
                self.carry(number, host, now);
            }
            match self.net.next(now) {
                None => break,
                Some(Arrival::Changed) => self.changed(&hosts.iter().map(|host| &**host).collect::<Vec<_>>(), now),
                Some(Arrival::Frame(frame)) if frame.is_out() => self.target.receive(frame, now),
                Some(Arrival::Frame(frame)) => {
                    let is_connected = self.net.is_connected(frame.path);
                    let host = self.host_of(frame.path);
                    hosts[host].receive(frame.counted_from(-i32::from(self.bases[host])), is_connected, now);
                }
            }
        }
    }

    /// When `poll` has work to do even if nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        Instant::earliest([self.net.next_deadline(), self.target.next_deadline()])
    }

    /// The paths of all hosts.
    pub fn paths(&self) -> &[PathInfo] {
        self.net.graph().paths()
    }
}
