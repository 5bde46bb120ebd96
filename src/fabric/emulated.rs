//! A fabric in virtual time: what a command sees on its way to a logical unit and back.
//!
//! ```text
//!   host ──frame──▶ adapter · cable · switch · port · controller ──▶ logical unit (a bank)
//!        ◀─frame──                                             ◀── its answer
//! ```
//!
//! A frame arrives if every component on its way lets it pass when it gets there. What a component that is *down* loses, the links
//! beside it say; what one loses that is a *black hole*, nobody says. A *stalled* component keeps what it gets and passes it on once it
//! is well again: that is how a write lands long after somebody gave it up.
//!
//! Host and target are two halves that know each other by frames only.

use super::graph::{ComponentId, Graph};
use super::host::Host;
use super::shared::Shared;
use super::target::Refused;
use super::transport::Transport;
use super::{Access, Event, Fabric, Link, PathId, PathInfo, Probe};
use crate::block::{Bank, DeviceId, Instant, Limits, Request, RequestId};

pub use super::graph::{TRANSITION, Wire};
pub use super::health::{Health, Point};
pub use super::initiator::{BUSY_DELAY, Note};

/// An emulated fabric over the bank of its logical units: one host, one target.
#[derive(Clone, Debug)]
pub struct Emulated<B> {
    host: Host,
    shared: Shared<B>,
}

impl<B: Bank> Emulated<B> {
    /// All components are well. The first path's port group owns the unit; chance comes from `seed`.
    pub fn new(bank: B, graph: Graph, transport: Transport, seed: u64) -> Emulated<B> {
        let (shared, mut hosts) = Shared::new(bank, graph, transport, seed);
        assert_eq!(hosts.len(), 1, "the paths are those of one host");
        Emulated { host: hosts.remove(0), shared }
    }

    /// What is beneath the paths.
    pub fn bank(&self) -> &B {
        self.shared.target().bank()
    }

    /// What is beneath the paths, to be changed by its owner: requests go down paths.
    pub fn bank_mut(&mut self) -> &mut B {
        self.shared.target_mut().bank_mut()
    }

    /// What is beneath the paths, alone.
    pub fn into_bank(self) -> B {
        self.shared.into_target().into_bank()
    }

    /// Components and routes.
    pub fn graph(&self) -> &Graph {
        self.shared.graph()
    }

    /// Another unit of the bank can be reached, by the ways that lead to the others.
    pub fn add_unit(&mut self, unit: DeviceId, now: Instant) {
        self.shared.add_unit(&mut self.host, unit, now);
    }

    /// How a component is.
    pub fn health(&self, component: ComponentId) -> Health {
        self.shared.health(component)
    }

    /// From now on a component is as `health` says.
    pub fn set_health(&mut self, component: ComponentId, health: Health, now: Instant) {
        self.shared.set_health(&[&self.host], component, health, now);
    }

    /// Commands that a path was sent so far, repetitions too.
    pub fn sent(&self, path: PathId) -> u64 {
        self.host.sent(path)
    }

    /// Answers that came when nobody waited for them any more.
    pub fn stale_answers(&self) -> u64 {
        self.host.stale_answers()
    }

    /// What the target refused because it would have landed late.
    pub fn refused(&self) -> Refused {
        self.shared.target().refused()
    }

    /// What the transport did by itself since the last call.
    pub fn drain_notes(&mut self) -> Vec<(Instant, PathId, Note)> {
        self.host.drain_notes()
    }

    fn carry(&mut self, now: Instant) {
        self.shared.carry(0, &mut self.host, now);
    }
}

impl<B: Bank> Fabric for Emulated<B> {
    fn paths(&self) -> &[PathInfo] {
        self.host.paths()
    }

    fn limits(&self, unit: DeviceId) -> Limits {
        self.shared.target().bank().limits(unit)
    }

    fn link(&self, path: PathId) -> Link {
        self.host.link(path)
    }

    fn access(&self, path: PathId) -> Access {
        self.host.access(path)
    }

    fn submit(&mut self, path: PathId, request: Request, now: Instant) {
        self.host.submit(path, request, now);
        self.carry(now);
    }

    fn probe(&mut self, path: PathId, probe: Probe, now: Instant) {
        self.host.probe(path, probe, now);
        self.carry(now);
    }

    fn fence(&mut self, path: PathId, via: PathId, now: Instant) {
        self.host.fence(path, via, now);
        self.carry(now);
    }

    fn abort(&mut self, path: PathId, id: RequestId, now: Instant) {
        self.host.abort(path, id, now);
        self.carry(now);
    }

    fn reset(&mut self, unit: DeviceId, via: PathId, now: Instant) {
        self.host.reset(unit, via, now);
        self.carry(now);
    }

    fn set_epoch(&mut self, unit: DeviceId, epoch: u64) {
        self.host.set_epoch(unit, epoch);
    }

    fn activate(&mut self, path: PathId, now: Instant) {
        self.host.activate(path, now);
        self.carry(now);
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        self.shared.poll(&mut [&mut self.host], now);
        self.host.poll(now, events);
        self.carry(now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        Instant::earliest([self.host.next_deadline(), self.shared.next_deadline()])
    }
}
