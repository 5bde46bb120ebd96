//! What is tried: a scenario of failures, and a client.

use std::time::Duration;

use crate::fabric::emulated::{BUSY_DELAY, Health, TRANSITION, Wire};
use crate::fabric::graph::{ComponentId, Graph, Kind};
use crate::fabric::transport::ABORT_TIMEOUT;
use crate::multipath::profile::Profile;
use crate::multipath::settings::RetrySafety;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How a failure makes itself known: what decides how long a command can be under way on a path that is lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// The link says so.
    Link,
    /// The links to a controller say so, and another one takes over.
    Controller,
    /// Nobody says anything.
    Silent,
    /// Every path is lost, and the links say so.
    AllPaths,
    /// It only takes longer.
    Slow,
}

/// Something that is done to the fabric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Action {
    /// When.
    pub at: Duration,
    /// To which component.
    pub component: String,
    /// What it is like from then on.
    pub health: Health,
}

/// A story of failures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// In the order of their times.
    pub actions: Vec<Action>,
    /// How long the client works.
    pub length: Duration,
    /// What kind of failure it is.
    pub class: Class,
}

/// Scenarios that are shipped.
pub const SCENARIOS: [&str; 8] = [
    "cable-pull",
    "black-hole",
    "controller-loss",
    "switch-loss",
    "flap",
    "slow-path",
    "all-paths-down",
    "failback-storm",
];

/// The first failure comes at this time.
pub const FIRST: Duration = s(10);

impl Scenario {
    /// A shipped scenario, on the components of `graph`, long enough for the timers of `profile`.
    pub fn shipped(name: &str, graph: &Graph, profile: &Profile) -> Option<Scenario> {
        let of =
            |kind: Kind| graph.components().iter().find(|component| component.kind == kind).map(|c| c.name.clone());
        let first = |kind: Kind| of(kind).unwrap_or_else(|| graph.components()[0].name.clone());
        let bound = profile.transport.silent_loss_max().max(s(60));
        let down = |component: String, at: Duration, back: Duration| {
            [
                Action { at, component: component.clone(), health: Health::Down },
                Action { at: back, component, health: Health::Up },
            ]
        };
        let hole = Health::BlackHole { tx: true, rx: true };
        let link = profile.transport.link_loss_max();
        let (actions, class, length) = match name {
            "cable-pull" => (down(first(Kind::Cable), FIRST, FIRST + link + s(20)).to_vec(), Class::Link, link + s(60)),
            "switch-loss" => {
                (down(first(Kind::Switch), FIRST, FIRST + link + s(20)).to_vec(), Class::Link, link + s(60))
            }
            "controller-loss" => {
                let victim = of(Kind::Controller).unwrap_or_else(|| first(Kind::Port));
                (down(victim, FIRST, FIRST + link + s(20)).to_vec(), Class::Controller, link + s(60))
            }
            "black-hole" => {
                let component = first(Kind::Cable);
                let back = FIRST + bound + s(30);
                let actions = vec![
                    Action { at: FIRST, component: component.clone(), health: hole },
                    Action { at: back, component, health: Health::Up },
                ];
                (actions, Class::Silent, bound + s(90))
            }
            "flap" => {
                let cable = first(Kind::Cable);
                let times = (0..6).map(|i| FIRST + s(i * 10));
                let actions = times.flat_map(|at| down(cable.clone(), at, at + s(3))).collect();
                (actions, Class::Link, s(100))
            }
            "slow-path" => {
                let component = first(Kind::Port);
                let actions = vec![
                    Action { at: FIRST, component: component.clone(), health: Health::Slow(10) },
                    Action { at: FIRST + s(20), component, health: Health::Up },
                ];
                (actions, Class::Slow, s(50))
            }
            "all-paths-down" => {
                let kind = Kind::Cable;
                let all = graph.components().iter().filter(|component| component.kind == kind);
                let mut actions: Vec<Action> =
                    all.flat_map(|component| down(component.name.clone(), FIRST, FIRST + link + s(40))).collect();
                actions.sort_by_key(|action| action.at);
                (actions, Class::AllPaths, link + s(100))
            }
            "failback-storm" => {
                let victim = of(Kind::Controller).unwrap_or_else(|| first(Kind::Port));
                let each = link + s(30);
                let actions = (0..4_u32)
                    .flat_map(|i| down(victim.clone(), FIRST + each * i, FIRST + each * i + link + s(5)))
                    .collect();
                (actions, Class::Controller, each * 4 + s(40))
            }
            _ => return None,
        };
        Some(Scenario { name: name.to_owned(), actions, length: FIRST + length, class })
    }

    /// The longest a command can stand still, by the formulae of the field: the transport's, and what the map adds to it.
    pub fn stall_max(&self, profile: &Profile) -> Option<Duration> {
        // A write waits besides until its old nexus is fenced: two frames over a path that is well.
        let wire = Wire::default();
        let trip = wire.latency * (100 + wire.jitter) / 100 * 4;
        let second = Duration::from_secs(1);
        let polling = profile.settings.polling_interval;
        let held = match profile.settings.retry_safety {
            RetrySafety::Hold(time) => time,
            // A path that is lost without a word does not answer; its unit's reset goes another way.
            RetrySafety::Abort if self.class == Class::Silent => ABORT_TIMEOUT,
            _ => Duration::ZERO,
        };
        let stall = match self.class {
            Class::Link => profile.transport.link_loss_max() + trip,
            Class::Controller => profile.transport.link_loss_max().max(TRANSITION + BUSY_DELAY) + trip,
            Class::Silent => profile.transport.silent_loss_max() + trip,
            Class::Slow => return None,
            Class::AllPaths => {
                let outage = self.actions.iter().map(|action| action.at).max()? - FIRST;
                // Back on the link, or found to be by the next attempt to connect, a path is taken again at its next check.
                let connected =
                    if profile.transport.link_events { Duration::ZERO } else { profile.transport.reconnect_delay };
                let checked = outage + connected + polling + second + trip;
                match profile.settings.queueing_max() {
                    Some(queueing) => checked.min(profile.transport.link_loss_max() + queueing + second),
                    None => checked,
                }
            }
        };
        Some(stall + held)
    }

    /// Names a component that the fabric lacks, if the scenario does.
    pub fn unknown_component(&self, graph: &Graph) -> Option<&str> {
        let known = |name: &str| graph.find(name).is_some();
        self.actions.iter().map(|action| action.component.as_str()).find(|name| !known(name))
    }
}

/// What the client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// Requests under way at a time.
    pub depth: usize,
    /// Requests a second at the most; 0: as many as it can.
    pub rate: u64,
    /// Sectors of a request.
    pub block: u64,
    /// Reads among a hundred.
    pub reads: u64,
    /// All chance comes from it.
    pub seed: u64,
}

impl Default for Client {
    /// 4 KiB, 32 under way, 1000 a second, half of them reads.
    fn default() -> Client {
        Client { depth: 32, rate: 1000, block: 8, reads: 50, seed: 1 }
    }
}

/// Whether a graph's component is there, by its number.
pub(super) fn component(graph: &Graph, name: &str) -> ComponentId {
    graph.find(name).expect("the scenario's components were looked up")
}
