//! A fabric as its owner describes it.
//!
//! ```toml
//! [topology]
//! fencing = "epoch"             # what the target promises: none, session, epoch
//! others = "non-optimized"      # what controllers offer that do not own the unit; or standby
//! transition_ms = 2000          # how long a change of owners takes
//!
//! [[topology.component]]
//! name = "hba0"
//! kind = "hba"                  # hba, cable, switch, port, controller
//!
//! [[topology.path]]             # from an hba to a port or a controller
//! route = ["hba0", "cable0", "ctrl0"]
//! latency_us = 100              # this and what follows may be left out
//! jitter_percent = 20
//! bandwidth_mb = 1000
//! queue_depth = 32
//! tpg = 1
//! ```

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::graph::{Alua, ComponentId, Graph, Kind, TRANSITION};
use super::{Access, Fencing, PathId};

/// Components, and paths through them, by their names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// What the target promises.
    #[serde(default = "epoch")]
    pub fencing: Fencing,
    /// What controllers offer that do not own the unit.
    #[serde(default = "non_optimized")]
    pub others: Others,
    /// The array moves units off a controller that is gone.
    #[serde(default = "yes")]
    pub implicit: bool,
    /// Hosts may ask for another owner.
    #[serde(default = "yes")]
    pub explicit: bool,
    /// How long a change of owners takes, in milliseconds.
    pub transition_ms: Option<u64>,
    /// What can fail.
    #[serde(default, rename = "component")]
    pub components: Vec<NamedComponent>,
    /// The ways to the unit.
    #[serde(default, rename = "path")]
    pub paths: Vec<NamedPath>,
}

/// What controllers offer of a unit that they do not own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Others {
    /// Active/active: they serve it, at a higher cost.
    NonOptimized,
    /// Active/passive: they refuse reads and writes until they are activated.
    Standby,
}

/// A component.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedComponent {
    /// Unique among components.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// A path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPath {
    /// What it crosses, from the host's adapter to a port or a controller.
    pub route: Vec<String>,
    /// From a command sent to its answer, in µs.
    pub latency_us: Option<u64>,
    /// How far a command's time may be from that, in percent.
    pub jitter_percent: Option<u32>,
    /// Megabytes (10^6) a second, each way.
    pub bandwidth_mb: Option<u64>,
    /// Commands that may be under way.
    pub queue_depth: Option<u32>,
    /// Target port group, if it is not that of its controller.
    pub tpg: Option<u16>,
}

/// What is wrong with a topology. Paths are counted from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopologyError {
    /// Nothing leads to the unit.
    NoPath,
    /// Two components have this name.
    Duplicate(String),
    /// A path crosses what is not there.
    Unknown {
        /// Which path.
        path: usize,
        /// The name.
        name: String,
        /// A name that is nearly it.
        meant: Option<String>,
    },
    /// A path crosses this component twice.
    Twice {
        /// Which path.
        path: usize,
        /// The component.
        name: String,
    },
    /// A path does not begin at an adapter.
    NoAdapter(usize),
    /// A path does not end at a port or a controller: it does not reach the unit.
    NoUnit(usize),
    /// A path's jitter is more than 100 percent.
    Jitter(usize),
    /// A path has no bandwidth.
    NoBandwidth(usize),
}

fn epoch() -> Fencing {
    Fencing::Epoch
}

fn non_optimized() -> Others {
    Others::NonOptimized
}

fn yes() -> bool {
    true
}

impl Topology {
    /// The fabric.
    ///
    /// # Errors
    /// Where names or routes do not fit together: the first place, and what is wrong there.
    pub fn graph(&self) -> Result<Graph, TopologyError> {
        let mut graph = Graph::named("topology");
        for NamedComponent { name, kind } in &self.components {
            if graph.find(name).is_some() {
                return Err(TopologyError::Duplicate(name.clone()));
            }
            graph.add(*kind, name);
        }
        for (path, number) in self.paths.iter().zip(1..) {
            self.add(path, number, &mut graph)?;
        }
        if graph.paths().is_empty() {
            return Err(TopologyError::NoPath);
        }
        graph.set_alua(Alua {
            others: match self.others {
                Others::NonOptimized => Access::NonOptimized,
                Others::Standby => Access::Standby,
            },
            implicit: self.implicit,
            explicit: self.explicit,
            transition: self.transition_ms.map_or(TRANSITION, Duration::from_millis),
        });
        Ok(graph.with_fencing(self.fencing))
    }

    fn add(&self, path: &NamedPath, number: usize, graph: &mut Graph) -> Result<(), TopologyError> {
        let route = self.route(path, number, graph)?;
        let kind = |component: ComponentId| graph.components()[component.0].kind;
        if route.first().is_none_or(|first| kind(*first) != Kind::Hba) {
            return Err(TopologyError::NoAdapter(number));
        }
        if route.last().is_none_or(|last| !matches!(kind(*last), Kind::Port | Kind::Controller)) {
            return Err(TopologyError::NoUnit(number));
        }
        let number_of = |of: ComponentId| {
            let alike = graph.components()[..of.0].iter().filter(|component| component.kind == kind(of));
            alike.count()
        };
        let hba = number_of(route[0]);
        let controller = route.iter().copied().rfind(|component| kind(*component) == Kind::Controller);
        let id = graph.add_path(hba, controller.map_or(0, number_of), route);
        Topology::set(path, number, id, graph)
    }

    fn route(&self, path: &NamedPath, number: usize, graph: &Graph) -> Result<Vec<ComponentId>, TopologyError> {
        let mut route = Vec::new();
        for name in &path.route {
            let component = graph.find(name).ok_or_else(|| TopologyError::Unknown {
                path: number,
                name: name.clone(),
                meant: self.nearest(name),
            })?;
            if route.contains(&component) {
                return Err(TopologyError::Twice { path: number, name: name.clone() });
            }
            route.push(component);
        }
        Ok(route)
    }

    fn set(path: &NamedPath, number: usize, id: PathId, graph: &mut Graph) -> Result<(), TopologyError> {
        let mut wire = graph.wire(id);
        wire.latency = path.latency_us.map_or(wire.latency, Duration::from_micros);
        wire.jitter = path.jitter_percent.unwrap_or(wire.jitter);
        wire.bandwidth = path.bandwidth_mb.map_or(wire.bandwidth, |mb| mb.saturating_mul(1_000_000));
        if wire.jitter > 100 {
            return Err(TopologyError::Jitter(number));
        }
        if wire.bandwidth == 0 {
            return Err(TopologyError::NoBandwidth(number));
        }
        graph.set_wire(id, wire);
        graph.set_queue_depth(id, path.queue_depth.unwrap_or(0));
        if let Some(tpg) = path.tpg {
            graph.set_tpg(id, tpg);
        }
        Ok(())
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let near = |known: &&NamedComponent| strsim::damerau_levenshtein(name, &known.name);
        let best = self.components.iter().min_by_key(near)?;
        (near(&best) <= 2 + best.name.len() / 4).then(|| best.name.clone())
    }
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopologyError::NoPath => f.write_str("the topology has no path to the unit: add a [[topology.path]]"),
            TopologyError::Duplicate(name) => {
                write!(f, "two components of the topology are called {name}: rename one of them")
            }
            TopologyError::Unknown { path, name, meant: Some(meant) } => {
                write!(f, "path {path} crosses {name:?}, which is no component: did you mean {meant}?")
            }
            TopologyError::Unknown { path, name, meant: None } => {
                write!(f, "path {path} crosses {name:?}, which is no component: add a [[topology.component]]")
            }
            TopologyError::Twice { path, name } => write!(f, "path {path} crosses {name} twice: remove it once"),
            TopologyError::NoAdapter(path) => {
                write!(f, "path {path} does not begin at a host: its route begins with a component of kind hba")
            }
            TopologyError::NoUnit(path) => {
                write!(f, "path {path} does not reach the unit: its route ends with a port or a controller")
            }
            TopologyError::Jitter(path) => write!(f, "path {path}: jitter_percent is 100 at the most"),
            TopologyError::NoBandwidth(path) => write!(f, "path {path}: bandwidth_mb must be more than 0"),
        }
    }
}

impl std::error::Error for TopologyError {}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
        others = 'standby'
        component = [
            { name = 'hba0', kind = 'hba' }, { name = 'hba1', kind = 'hba' },
            { name = 'fan', kind = 'switch' },
            { name = 'left', kind = 'controller' }, { name = 'right', kind = 'controller' },
        ]
        path = [
            { route = ['hba0', 'fan', 'left'], latency_us = 40, queue_depth = 8 },
            { route = ['hba1', 'fan', 'right'], bandwidth_mb = 100, tpg = 9 },
        ]";

    fn read(text: &str) -> Result<Graph, TopologyError> {
        toml::from_str::<Topology>(text).expect("its keys are right").graph()
    }

    #[test]
    fn a_fabric_is_what_its_description_says() {
        let graph = read(TWO).unwrap();
        let [left, right] = graph.paths() else { panic!("two paths, not {:?}", graph.paths()) };
        assert_eq!((left.hba, left.controller, left.tpg, left.queue_depth), (0, 0, 1, 8));
        assert_eq!((right.hba, right.controller, right.tpg, right.queue_depth), (1, 1, 9, 0));
        assert_eq!(graph.wire(PathId(0)).latency, Duration::from_micros(40));
        assert_eq!(graph.wire(PathId(1)).bandwidth, 100_000_000);
        assert_eq!(graph.alua().others, Access::Standby);
        assert_eq!(graph.through(graph.find("fan").unwrap()).count(), 2);
    }

    #[test]
    fn a_description_is_read_back_as_it_was_written() {
        let topology: Topology = toml::from_str(TWO).unwrap();
        assert_eq!(toml::from_str::<Topology>(&toml::to_string(&topology).unwrap()).unwrap(), topology);
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let error = |from: &str, to: &str| read(&TWO.replacen(from, to, 1)).unwrap_err();
        let unknown = error("'fan', 'left'", "'fna', 'left'");
        assert_eq!(unknown.to_string(), "path 1 crosses \"fna\", which is no component: did you mean fan?");
        assert_eq!(error("name = 'hba1'", "name = 'hba0'"), TopologyError::Duplicate("hba0".to_owned()));
        assert_eq!(error("'hba0', 'fan', 'left'", "'fan', 'left'"), TopologyError::NoAdapter(1));
        assert_eq!(error("'fan', 'right'", "'fan'"), TopologyError::NoUnit(2));
        assert!(matches!(error("'fan', 'right'", "'fan', 'fan', 'right'"), TopologyError::Twice { path: 2, .. }));
        assert_eq!(error("bandwidth_mb = 100", "bandwidth_mb = 0"), TopologyError::NoBandwidth(2));
        assert_eq!(read("component = [{ name = 'hba0', kind = 'hba' }]").unwrap_err(), TopologyError::NoPath);
        assert!(toml::from_str::<Topology>("paths = []").is_err());
    }
}
