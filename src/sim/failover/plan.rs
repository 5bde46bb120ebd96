//! What is tried: a profile of timers, a scenario of failures, a client.

use std::fmt;
use std::time::Duration;

use crate::fabric::emulated::{BUSY_DELAY, Health, TRANSITION, Wire};
use crate::fabric::graph::{ComponentId, Graph, Kind, Preset};
use crate::fabric::transport::Transport;
use crate::multipath::settings::{Checker, Failback, NoPathRetry, RetrySafety, SelectorKind, Settings};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A set of timers that somebody uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProfileName {
    /// An HBA timeout of 30 s.
    Classic,
    /// Of 5 s.
    Tuned,
    /// Of 1 s.
    Aggressive,
    /// iSCSI as multipathd manages it.
    LinuxIscsi,
    /// NVMe over TCP, native multipath.
    LinuxNvme,
    /// Native multipathing of VMware: paths in turn, no way back, all-paths-down timeout of 140 s.
    Vmware,
    /// MPIO of Windows: LinkTimeOut 30, TimeOutValue 60, PDORemovePeriod 20.
    Windows,
}

/// Where the paths are, and all timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// The fabric.
    pub preset: Preset,
    /// The transport's timers.
    pub transport: Transport,
    /// The map's.
    pub settings: Settings,
}

impl ProfileName {
    /// All of them.
    pub const ALL: [ProfileName; 7] = [
        ProfileName::Classic,
        ProfileName::Tuned,
        ProfileName::Aggressive,
        ProfileName::LinuxIscsi,
        ProfileName::LinuxNvme,
        ProfileName::Vmware,
        ProfileName::Windows,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ProfileName::Classic => "classic",
            ProfileName::Tuned => "tuned",
            ProfileName::Aggressive => "aggressive",
            ProfileName::LinuxIscsi => "linux-iscsi",
            ProfileName::LinuxNvme => "linux-nvme",
            ProfileName::Vmware => "vmware",
            ProfileName::Windows => "windows",
        }
    }

    /// Its timers.
    pub fn profile(self) -> Profile {
        let settings = Settings::default();
        let fc = Profile { preset: Preset::San, transport: Transport::FC, settings };
        match self {
            ProfileName::Classic => fc.with_hba_timeout(s(30)),
            ProfileName::Tuned => {
                let transport = Transport { max_retries: 0, ..Transport::FC };
                Profile { transport, ..fc }.with_hba_timeout(s(5))
            }
            ProfileName::Aggressive => {
                let transport = Transport { max_retries: 0, ..Transport::FC };
                let settings = Settings { polling_interval: s(1), max_polling_interval: s(1), ..settings };
                Profile { transport, settings, ..fc }.with_hba_timeout(s(1))
            }
            ProfileName::LinuxIscsi => Profile { preset: Preset::Iscsi, transport: Transport::ISCSI, settings },
            ProfileName::LinuxNvme => {
                let settings = Settings {
                    checker: Checker::None,
                    selector: SelectorKind::RoundRobin,
                    no_path_retry: NoPathRetry::Checks(120),
                    ..settings
                };
                Profile { preset: Preset::NvmeTcp, transport: Transport::NVME_TCP, settings }
            }
            ProfileName::Vmware => {
                let settings = Settings {
                    selector: SelectorKind::RoundRobin,
                    failback: Failback::Manual,
                    no_path_retry: NoPathRetry::Checks(28),
                    ..settings
                };
                let transport = Transport { fast_io_fail_tmo: Some(s(10)), cmd_timeout: s(60), ..Transport::FC };
                Profile { transport, settings, ..fc }
            }
            ProfileName::Windows => {
                let settings =
                    Settings { selector: SelectorKind::RoundRobin, no_path_retry: NoPathRetry::Checks(4), ..settings };
                let transport =
                    Transport { fast_io_fail_tmo: Some(s(30)), cmd_timeout: s(60), max_retries: 3, ..Transport::FC };
                Profile { transport, settings, ..fc }
            }
        }
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Profile {
    /// The friendly knob: how long a link may be gone, and a command without an answer.
    pub fn with_hba_timeout(mut self, timeout: Duration) -> Profile {
        self.transport.fast_io_fail_tmo = Some(timeout);
        self.transport.cmd_timeout = timeout;
        self.transport.dev_loss_tmo = self.transport.dev_loss_tmo.map(|gone| gone.max(timeout * 2));
        self.settings.checker_timeout = timeout;
        self
    }

    /// What contradicts what, in words.
    pub fn contradiction(&self) -> Option<String> {
        let Transport { fast_io_fail_tmo, dev_loss_tmo, .. } = self.transport;
        if let (Some(fast), Some(gone)) = (fast_io_fail_tmo, dev_loss_tmo)
            && fast >= gone
        {
            return Some(format!(
                "fast_io_fail_tmo ({fast:?}) must be less than dev_loss_tmo ({gone:?}): raise dev_loss_tmo or lower the other"
            ));
        }
        if let RetrySafety::Hold(hold) = self.settings.retry_safety
            && hold < self.transport.silent_loss_max()
        {
            return Some(format!(
                "a hold of {hold:?} is shorter than what a lost path may take ({:?}): a write could land after its repetition; \
                 hold longer, or use retry_safety fence",
                self.transport.silent_loss_max()
            ));
        }
        None
    }
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
            RetrySafety::None | RetrySafety::Fence => Duration::ZERO,
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
