//! Components, and the paths through them.
//!
//! ```text
//!   host ─ hba0 ─ cable hba0-switch0 ─ switch0 ─┬─ port ctrl0.p0 ─ ctrl0 ─┬─ logical unit
//!        └ hba1 ─ cable hba1-switch1 ─ switch1 ─┴─ port ctrl1.p1 ─ ctrl1 ─┘
//! ```
//!
//! Several units may lie behind the same components ([`Preset::graph_for`]): what fails takes the paths of all of them. Only the
//! ports of a dual-ported disk are its own.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::block::DeviceId;
use crate::fabric::{Access, Fencing, PathId, PathInfo};

/// What a component is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A port of a host bus adapter, or a network card.
    Hba,
    /// A cable between two others.
    Cable,
    /// A switch, or an expander.
    Switch,
    /// A port of a controller.
    Port,
    /// A controller: a storage processor, an I/O module.
    Controller,
}

/// A component of a graph, by its number in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ComponentId(pub usize);

/// One thing that can fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Component {
    /// What its owner calls it: `hba0`, `switch1`, `ctrl0.p1`, `cable0`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// Components and paths.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Graph {
    name: &'static str,
    components: Vec<Component>,
    paths: Vec<PathInfo>,
    /// What each path crosses, from the host on.
    routes: Vec<Vec<ComponentId>>,
    /// The last component of a route is the unit's own: a port of the disk.
    own_ports: bool,
    wires: Vec<Wire>,
    alua: Alua,
}

/// What a path costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wire {
    /// From a command sent to its answer, the unit's own time not counted.
    pub latency: Duration,
    /// How far a command's time may be from that, in percent, at the most 100.
    pub jitter: u32,
    /// Bytes a second, each way.
    pub bandwidth: u64,
}

impl Default for Wire {
    /// 100 µs ± 20 %, 1 GB/s.
    fn default() -> Wire {
        Wire { latency: Duration::from_micros(100), jitter: 20, bandwidth: 1_000_000_000 }
    }
}

/// How long a controller takes to take over, where nobody says otherwise.
pub const TRANSITION: Duration = Duration::from_secs(2);

/// How an array's controllers share its units (asymmetric logical unit access).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alua {
    /// What controllers offer that do not own the unit: non-optimized, or standby.
    pub others: Access,
    /// The array gives the units of a controller that is gone to another.
    pub implicit: bool,
    /// A host may ask for another owner (SET TARGET PORT GROUPS).
    pub explicit: bool,
    /// How long a change of owners takes.
    pub transition: Duration,
}

impl Default for Alua {
    /// Active/active: the others are non-optimized; implicit and explicit.
    fn default() -> Alua {
        Alua { others: Access::NonOptimized, implicit: true, explicit: true, transition: TRANSITION }
    }
}

/// Shapes of fabrics that are found in the field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Fibre Channel: 2 adapters, a switch for each, 2 controllers with 2 ports each, every port on both switches: 8 paths.
    San,
    /// iSCSI: 2 network cards, each with a switch of its own, 2 portals on 2 controllers: 4 paths.
    Iscsi,
    /// NVMe over TCP: as iSCSI.
    NvmeTcp,
    /// Dual-ported SAS: 2 adapters, 2 chains of 2 expanders, cabled top-down on one and bottom-up on the other: 2 paths.
    SasDual,
    /// As `San`, but the controller that does not own the unit is standby until it is activated.
    ActivePassive,
}

impl Preset {
    /// All of them.
    pub const ALL: [Preset; 5] = [Preset::San, Preset::Iscsi, Preset::NvmeTcp, Preset::SasDual, Preset::ActivePassive];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Preset::San => "san",
            Preset::Iscsi => "iscsi",
            Preset::NvmeTcp => "nvme-tcp",
            Preset::SasDual => "sas-dual",
            Preset::ActivePassive => "active-passive",
        }
    }

    /// The fabric, with one logical unit: number 0.
    pub fn graph(self) -> Graph {
        self.graph_for(&[DeviceId(0)])
    }

    /// The fabric, with these logical units behind the same components. The ports of a dual-ported disk are its own: those
    /// of the first unit are `porta` and `portb`, those of unit 3 `porta.3` and `portb.3`.
    ///
    /// # Panics
    /// Without units: a fabric leads somewhere.
    pub fn graph_for(self, units: &[DeviceId]) -> Graph {
        let mut graph = match self {
            Preset::San => switched(2, 2, 2),
            Preset::Iscsi | Preset::NvmeTcp => switched(2, 2, 1),
            Preset::SasDual => sas_dual(),
            Preset::ActivePassive => {
                let mut graph = switched(2, 2, 2);
                graph.set_alua(Alua { others: Access::Standby, ..Alua::default() });
                graph
            }
        };
        graph.name = self.name();
        graph.for_units(units)
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Graph {
    /// Without components and paths.
    pub fn new() -> Graph {
        Graph::named("fabric")
    }

    /// Without components and paths, and with a name for it all.
    pub fn named(name: &'static str) -> Graph {
        Graph {
            name,
            components: Vec::new(),
            paths: Vec::new(),
            routes: Vec::new(),
            own_ports: false,
            wires: Vec::new(),
            alua: Alua::default(),
        }
    }

    /// Adds a component.
    pub fn add(&mut self, kind: Kind, name: impl Into<String>) -> ComponentId {
        self.components.push(Component { name: name.into(), kind });
        ComponentId(self.components.len() - 1)
    }

    /// Adds a path to logical unit 0 that crosses `route`, from adapter number `hba` to controller number `controller`.
    pub fn add_path(&mut self, hba: usize, controller: usize, route: Vec<ComponentId>) -> PathId {
        let number = self.paths.len();
        let target = self.paths.iter().filter(|path| path.hba == hba).count();
        self.paths.push(PathInfo {
            hctl: format!("{hba}:0:{target}:0"),
            name: disk_name(number),
            host: 0,
            hba,
            controller,
            tpg: controller as u16 + 1,
            unit: DeviceId(0),
            fencing: Fencing::Epoch,
            queue_depth: 0,
        });
        self.routes.push(route);
        self.wires.push(Wire::default());
        PathId(number as u16)
    }

    /// Repeats every way to the first unit for another one, which is not there yet. The new paths come last.
    pub fn add_unit(&mut self, unit: DeviceId) {
        let Some(first) = self.paths.first().map(|path| path.unit) else { return };
        for way in (0..self.paths.len()).filter(|path| self.paths[*path].unit == first).collect::<Vec<_>>() {
            let like = self.paths[way].clone();
            let (nexus, _) = like.hctl.rsplit_once(':').expect("host, channel, target, unit");
            let (hctl, name) = (format!("{nexus}:{}", unit.0), disk_name(self.paths.len()));
            let mut route = self.routes[way].clone();
            if self.own_ports {
                let port = route.pop().expect("a route has an end");
                let Component { name, kind } = self.components[port.0].clone();
                route.push(self.add(kind, format!("{name}.{}", unit.0)));
            }
            self.paths.push(PathInfo { hctl, name, unit, ..like });
            self.routes.push(route);
            self.wires.push(self.wires[way]);
        }
    }

    /// The same, with these units in the place of the one there is.
    ///
    /// # Panics
    /// Without units: a fabric leads somewhere.
    #[must_use]
    pub fn for_units(mut self, units: &[DeviceId]) -> Graph {
        let (first, others) = units.split_first().expect("a fabric leads to a unit");
        for path in &mut self.paths {
            let (nexus, _) = path.hctl.rsplit_once(':').expect("host, channel, target, unit");
            path.hctl = format!("{nexus}:{}", first.0);
            path.unit = *first;
        }
        others.iter().for_each(|unit| self.add_unit(*unit));
        self
    }

    /// The name for it all.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// All components.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// All paths.
    pub fn paths(&self) -> &[PathInfo] {
        &self.paths
    }

    /// What a path crosses, from the host on.
    pub fn route(&self, path: PathId) -> &[ComponentId] {
        &self.routes[usize::from(path.0)]
    }

    /// What a path costs.
    pub fn wire(&self, path: PathId) -> Wire {
        self.wires[usize::from(path.0)]
    }

    /// Sets what a path costs.
    pub fn set_wire(&mut self, path: PathId, wire: Wire) {
        self.wires[usize::from(path.0)] = wire;
    }

    /// Sets how many commands may be under way on a path; 0: as many as there are.
    pub fn set_queue_depth(&mut self, path: PathId, commands: u32) {
        self.paths[usize::from(path.0)].queue_depth = commands;
    }

    /// Puts a path into another target port group than its controller's.
    pub fn set_tpg(&mut self, path: PathId, tpg: u16) {
        self.paths[usize::from(path.0)].tpg = tpg;
    }

    /// How the controllers share the units.
    pub fn alua(&self) -> Alua {
        self.alua
    }

    /// Sets how the controllers share the units.
    pub fn set_alua(&mut self, alua: Alua) {
        self.alua = alua;
    }

    /// The same fabric before a target that promises no more than this.
    #[must_use]
    pub fn with_fencing(mut self, fencing: Fencing) -> Graph {
        self.paths.iter_mut().for_each(|path| path.fencing = fencing);
        self
    }

    /// The same for so many hosts: each has adapters and cables of its own, `h1.hba0`, and shares what lies behind them. The paths of
    /// the first host come first.
    #[must_use]
    pub fn for_hosts(&self, hosts: usize) -> Graph {
        let mut graph = self.clone();
        for host in 1..hosts {
            let mut own = Vec::new();
            for component in &self.components {
                let at = match component.kind {
                    Kind::Hba | Kind::Cable => graph.add(component.kind, format!("h{host}.{}", component.name)),
                    Kind::Switch | Kind::Port | Kind::Controller => ComponentId(own.len()),
                };
                own.push(at);
            }
            for ((info, route), wire) in self.paths.iter().zip(&self.routes).zip(&self.wires) {
                graph.paths.push(PathInfo { host, ..info.clone() });
                graph.routes.push(route.iter().map(|component| own[component.0]).collect());
                graph.wires.push(*wire);
            }
        }
        graph
    }

    /// The component of this name.
    pub fn find(&self, name: &str) -> Option<ComponentId> {
        self.components.iter().position(|component| component.name == name).map(ComponentId)
    }

    /// The paths through a component.
    pub fn through(&self, component: ComponentId) -> impl Iterator<Item = PathId> + '_ {
        (0..self.paths.len())
            .filter(move |path| self.routes[*path].contains(&component))
            .map(|path| PathId(path as u16))
    }
}

impl Default for Graph {
    fn default() -> Graph {
        Graph::new()
    }
}

/// `sda` to `sdz`, then `sdaa`.
fn disk_name(number: usize) -> String {
    let mut letters = Vec::new();
    let mut left = number + 1;
    while left > 0 {
        letters.push(b'a' + ((left - 1) % 26) as u8);
        left = (left - 1) / 26;
    }
    letters.reverse();
    format!("sd{}", String::from_utf8(letters).expect("these are letters"))
}

/// Adapter `i` hangs on switch `i`, and every port of every controller on all switches.
fn switched(hbas: usize, controllers: usize, ports: usize) -> Graph {
    let mut graph = Graph::new();
    let adapters: Vec<ComponentId> = (0..hbas).map(|i| graph.add(Kind::Hba, format!("hba{i}"))).collect();
    let cables: Vec<ComponentId> = (0..hbas).map(|i| graph.add(Kind::Cable, format!("cable{i}"))).collect();
    let switches: Vec<ComponentId> = (0..hbas).map(|i| graph.add(Kind::Switch, format!("switch{i}"))).collect();
    let processors: Vec<ComponentId> =
        (0..controllers).map(|i| graph.add(Kind::Controller, format!("ctrl{i}"))).collect();
    let mut outlets = Vec::new();
    for (controller, processor) in processors.iter().enumerate() {
        for port in 0..ports {
            outlets.push((controller, *processor, graph.add(Kind::Port, format!("ctrl{controller}.p{port}"))));
        }
    }
    for hba in 0..hbas {
        for (controller, processor, port) in &outlets {
            graph.add_path(hba, *controller, vec![adapters[hba], cables[hba], switches[hba], *port, *processor]);
        }
    }
    graph
}

/// The disk sits in the second of two enclosures: near on one chain, far on the other.
fn sas_dual() -> Graph {
    let mut graph = Graph { own_ports: true, ..Graph::new() };
    for (side, letter) in ["a", "b"].into_iter().enumerate() {
        let hba = graph.add(Kind::Hba, format!("hba{side}"));
        let cable = graph.add(Kind::Cable, format!("cable{side}"));
        let order = if side == 0 { [0, 1] } else { [1, 0] };
        let expanders = order.map(|shelf| graph.add(Kind::Switch, format!("expander{shelf}{letter}")));
        let port = graph.add(Kind::Port, format!("port{letter}"));
        let mut route = vec![hba, cable, expanders[0]];
        if side == 0 {
            route.push(expanders[1]);
        }
        route.push(port);
        graph.add_path(side, 0, route);
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_paths_their_owners_expect() {
        let counts = Preset::ALL.map(|preset| preset.graph().paths().len());
        assert_eq!(counts, [8, 4, 4, 2, 8]);
        let san = Preset::San.graph();
        assert_eq!(san.through(san.find("switch0").unwrap()).count(), 4);
        assert_eq!(san.through(san.find("ctrl1").unwrap()).count(), 4);
        assert_eq!(san.through(san.find("ctrl1.p0").unwrap()).count(), 2);
        let names: Vec<&str> = san.paths().iter().map(|path| path.hctl.as_str()).collect();
        assert_eq!(names[..5], ["0:0:0:0", "0:0:1:0", "0:0:2:0", "0:0:3:0", "1:0:0:0"]);
    }

    /// Top-down on one chain, bottom-up on the other: no single expander is on both paths.
    #[test]
    fn no_component_of_a_dual_ported_disk_is_on_both_paths() {
        let graph = Preset::SasDual.graph();
        for component in 0..graph.components().len() {
            assert!(graph.through(ComponentId(component)).count() <= 1);
        }
    }

    #[test]
    fn units_of_one_graph_share_all_components_but_the_ports_of_disks() {
        let units = [2, 3, 5].map(DeviceId);
        for preset in Preset::ALL {
            let (one, many) = (preset.graph(), preset.graph_for(&units));
            let ways = one.paths().len();
            assert_eq!(many.paths().len(), 3 * ways);
            for (number, path) in many.paths().iter().enumerate() {
                let (unit, way) = (units[number / ways], number % ways);
                assert_eq!((path.unit, path.name.as_str()), (unit, disk_name(number).as_str()));
                assert_eq!(path.hctl, format!("{}{}", one.paths()[way].hctl.trim_end_matches('0'), unit.0));
                let (route, like) = (many.route(PathId(number as u16)), one.route(PathId(way as u16)));
                let shared = if preset == Preset::SasDual { like.len() - 1 } else { like.len() };
                assert_eq!(route[..shared], like[..shared]);
            }
        }
        let disks = Preset::SasDual.graph_for(&units);
        assert_eq!(disks.through(disks.find("expander1a").unwrap()).count(), 3);
        assert_eq!(disks.through(disks.find("portb.5").unwrap()).count(), 1);
    }

    #[test]
    fn disks_are_named_as_the_kernel_names_them() {
        assert_eq!([0, 25, 26, 701, 702].map(disk_name), ["sda", "sdz", "sdaa", "sdzz", "sdaaa"]);
    }
}
