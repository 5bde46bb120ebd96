//! What lies between the clients and the array, and between the array and its members.
//!
//! ```text
//!   clients ══ volume's paths ══ array ══ members' paths ══ disks
//! ```
//!
//! Either may be there or not. Components fail by steps of the [scenario](super::scenario), and are all well again when the power
//! is back. Timers are short, so that a life has many failovers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SimBank;
use super::array::{SimArray, SimStack};
use crate::block::{Bank, DeviceId, Instant};
use crate::disk::Fault;
use crate::fabric::PathId;
use crate::fabric::emulated::{Emulated, Health};
use crate::fabric::graph::{ComponentId, Graph, Kind, Preset};
use crate::fabric::transport::{Abort, Transport, Watch};
use crate::multipath::map::{Map, Path};
use crate::multipath::settings::{Checker, NoPathRetry, Settings};
use crate::multipath::{Multipath, Paths};
use crate::raid::VOLUME;

/// By which fabrics an array is reached, and reaches its members.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "FabricsText", into = "FabricsText")]
pub struct Fabrics {
    /// From the clients to the volume; `None`: there is nothing between.
    pub volume: Option<Preset>,
    /// From the array to its members.
    pub members: Option<Preset>,
}

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// `volume`: over the array.
    Volume,
    /// `members`: under it.
    Members,
}

/// A component of a fabric: `volume switch-1`, counted among those of its kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Part {
    /// Of which fabric.
    pub side: Side,
    /// What it is.
    pub kind: PartKind,
    /// Which.
    pub number: u16,
}

/// Kinds of components that a step can name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PartKind {
    /// `hba-0`.
    Hba,
    /// `cable-0`.
    Cable,
    /// `switch-0`: a switch or an expander.
    Switch,
    /// `port-0`: of a controller; of a dual-ported disk, disk 0 has ports 0 and 1, disk 1 has 2 and 3.
    Port,
    /// `ctrl-0`.
    Controller,
}

impl PartKind {
    /// All of them.
    pub const ALL: [PartKind; 5] =
        [PartKind::Hba, PartKind::Cable, PartKind::Switch, PartKind::Port, PartKind::Controller];
}

/// Checks of a path that requests wait for when none is left.
const NO_PATH_RETRY: u32 = 5;

/// So few that a queue is full now and then.
const QUEUE_BYTES_MAX: u64 = 24 << 10;

const SECOND: Duration = Duration::from_secs(1);

impl Fabrics {
    /// Both.
    pub const BOTH: Fabrics = Fabrics { volume: Some(Preset::San), members: Some(Preset::SasDual) };
    /// Multipath over RAID.
    pub const VOLUME: Fabrics = Fabrics { members: None, ..Fabrics::BOTH };
    /// RAID over multipath.
    pub const MEMBERS: Fabrics = Fabrics { volume: None, ..Fabrics::BOTH };
    /// All of them, the empty one first.
    pub const ALL: [Fabrics; 4] = [Fabrics::NONE, Fabrics::VOLUME, Fabrics::MEMBERS, Fabrics::BOTH];
    /// Neither.
    pub const NONE: Fabrics = Fabrics { volume: None, members: None };

    /// Those that have one, in turn: what shows in one of them may not show in another.
    pub fn in_turn(number: u64) -> Fabrics {
        Fabrics::ALL[1 + (number % 3) as usize]
    }

    /// By the word of the command line: `none`, `volume`, `members` or `both`.
    pub fn parse(word: &str) -> Option<Fabrics> {
        Fabrics::ALL.into_iter().find(|fabrics| fabrics.name() == word)
    }

    /// Its word.
    pub fn name(&self) -> &'static str {
        match (self.volume, self.members) {
            (None, None) => "none",
            (Some(_), None) => "volume",
            (None, Some(_)) => "members",
            (Some(_), Some(_)) => "both",
        }
    }

    /// Whether there is a fabric somewhere.
    pub fn any(&self) -> bool {
        *self != Fabrics::NONE
    }

    /// The fabric of a side.
    pub fn of(&self, side: Side) -> Option<Preset> {
        match side {
            Side::Volume => self.volume,
            Side::Members => self.members,
        }
    }

    /// Disks, as the array reaches them.
    pub(super) fn under(&self, bank: Fault<SimBank>, disks: &[DeviceId], seed: u64) -> Paths<Fault<SimBank>> {
        match self.members {
            Some(preset) if !disks.is_empty() => {
                Paths::many(bank, preset.graph_for(disks), transport(preset), settings(Side::Members), seed ^ 2)
            }
            _ => Paths::Direct(bank),
        }
    }

    /// An array, as its clients reach it.
    pub(super) fn over(&self, array: SimArray, seed: u64) -> SimStack {
        match self.volume {
            Some(preset) => {
                Paths::many(array, preset.graph_for(&[VOLUME]), transport(preset), settings(Side::Volume), seed ^ 1)
            }
            None => Paths::Direct(array),
        }
    }
}

/// The transport of a fabric, with short timers.
pub(super) fn transport(preset: Preset) -> Transport {
    let short = |transport: Transport| Transport {
        cmd_timeout: SECOND,
        max_retries: 0,
        fast_io_fail_tmo: transport.fast_io_fail_tmo.map(|time| time.min(SECOND)),
        reconnect_delay: SECOND,
        watch: transport.watch.map(|_| Watch { interval: SECOND, timeout: SECOND }),
        abort: match transport.abort {
            Abort::Asked(_) => Abort::Asked(SECOND),
            other => other,
        },
        ..transport
    };
    short(match preset {
        Preset::San | Preset::SasDual | Preset::ActivePassive => Transport::FC,
        Preset::Iscsi => Transport::ISCSI,
        Preset::NvmeTcp => Transport::NVME_TCP,
    })
}

/// How a side's maps are set. The array is never asked by a checker that reads: it would never come to rest.
pub(super) fn settings(side: Side) -> Settings {
    Settings {
        no_path_retry: NoPathRetry::Checks(NO_PATH_RETRY),
        checker: if side == Side::Volume { Checker::Tur } else { Checker::DirectIo },
        polling_interval: SECOND,
        max_polling_interval: SECOND,
        checker_timeout: SECOND,
        queue_bytes_max: QUEUE_BYTES_MAX,
        ..Settings::default()
    }
}

impl Part {
    /// The component it names, if the graph has one.
    pub fn find(&self, graph: &Graph) -> Option<ComponentId> {
        let kind = match self.kind {
            PartKind::Hba => Kind::Hba,
            PartKind::Cable => Kind::Cable,
            PartKind::Switch => Kind::Switch,
            PartKind::Port => Kind::Port,
            PartKind::Controller => Kind::Controller,
        };
        let of_kind = graph.components().iter().enumerate().filter(|(_, component)| component.kind == kind);
        of_kind.map(|(at, _)| ComponentId(at)).nth(self.number.into())
    }
}

/// Whether a component lets everything pass in good time.
pub(super) fn is_well(health: Health) -> bool {
    // One that has lost all it was to lose is well again; what comes twice comes in time.
    matches!(health, Health::Up | Health::Losing { frames: 0, .. } | Health::Doubling(_))
}

/// Whether nothing that it is given is ever answered.
pub(super) fn is_dead(health: Health) -> bool {
    matches!(health, Health::Down | Health::BlackHole { .. } | Health::Stalled | Health::FailsIo)
}

/// Whether nothing that goes down a path is answered, other than with an error of its own.
pub(super) fn is_path_dead<B: Bank>(fabric: &Emulated<B>, path: PathId) -> bool {
    fabric.graph().route(path).iter().any(|component| is_dead(fabric.health(*component)))
}

/// Whether every component of a path is well.
pub(super) fn is_path_well<B: Bank>(fabric: &Emulated<B>, path: PathId) -> bool {
    fabric.graph().route(path).iter().all(|component| is_well(fabric.health(*component)))
}

/// Whether a unit cannot be reached, or its map does not know yet that it can.
pub(super) fn is_cut_off<B: Bank>(paths: &Paths<B>, unit: DeviceId) -> bool {
    let Some(multipath) = paths.multipath() else { return false };
    let Some(map) = multipath.maps().iter().find(|map| map.unit() == unit) else { return false };
    let fabric = multipath.fabric();
    !map.paths().iter().any(|path| path.active) || !map.paths().iter().any(|path| is_path_well(fabric, path.id))
}

/// The units that would have no path that is well, if a component were as `health` says.
pub(super) fn cut_off_by<B: Bank>(paths: &Paths<B>, part: Part, health: Health) -> Vec<DeviceId> {
    let Some(multipath) = paths.multipath() else { return Vec::new() };
    let fabric = multipath.fabric();
    let Some(component) = part.find(fabric.graph()) else { return Vec::new() };
    let well = |path: &PathId| {
        let health_of = |of: &ComponentId| if *of == component { health } else { fabric.health(*of) };
        fabric.graph().route(*path).iter().all(|of| is_well(health_of(of)))
    };
    let maps = multipath.maps().iter();
    // What has just been mended may not serve yet.
    let served = |path: &&Path| path.active && well(&path.id);
    maps.filter(|map| !map.paths().iter().any(|path| served(&path))).map(Map::unit).collect()
}

/// The unit that would have no path that is well, if this one took no requests.
pub(super) fn cut_off_without<B: Bank>(paths: &Paths<B>, path: PathId) -> Option<DeviceId> {
    let multipath = paths.multipath()?;
    let map = multipath.maps().iter().find(|map| map.paths().iter().any(|of| of.id == path))?;
    let serves = |of: &Path| of.id != path && of.active && is_path_well(multipath.fabric(), of.id);
    (!map.paths().iter().any(serves)).then(|| map.unit())
}

/// Everything is well again.
pub(super) fn mend<B: Bank>(multipath: &mut Multipath<Emulated<B>>, now: Instant) {
    let fabric = multipath.fabric_mut();
    for component in (0..fabric.graph().components().len()).map(ComponentId) {
        if fabric.health(component) != Health::Up {
            fabric.set_health(component, Health::Up, now);
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Volume => "volume",
            Side::Members => "members",
        })
    }
}

impl FromStr for Side {
    type Err = String;

    fn from_str(word: &str) -> Result<Side, String> {
        match word {
            "volume" => Ok(Side::Volume),
            "members" => Ok(Side::Members),
            _ => Err(format!("`{word}` is neither volume nor members")),
        }
    }
}

const KINDS: [(PartKind, &str); 5] = [
    (PartKind::Hba, "hba"),
    (PartKind::Cable, "cable"),
    (PartKind::Switch, "switch"),
    (PartKind::Port, "port"),
    (PartKind::Controller, "ctrl"),
];

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = KINDS.iter().find(|(kind, _)| *kind == self.kind).expect("every kind has a word");
        write!(f, "{} {name}-{}", self.side, self.number)
    }
}

impl Part {
    /// The component of a side that a word such as `switch-1` names.
    pub(super) fn parse(side: Side, word: &str) -> Option<Part> {
        let (name, number) = word.rsplit_once('-')?;
        let (kind, _) = KINDS.iter().find(|(_, known)| *known == name)?;
        Some(Part { side, kind: *kind, number: number.parse().ok()? })
    }
}

/// Fabrics as scenario files have them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FabricsText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    members: Option<String>,
}

impl From<Fabrics> for FabricsText {
    fn from(fabrics: Fabrics) -> FabricsText {
        let name = |preset: Preset| preset.name().to_owned();
        FabricsText { volume: fabrics.volume.map(name), members: fabrics.members.map(name) }
    }
}

impl TryFrom<FabricsText> for Fabrics {
    type Error = String;

    fn try_from(text: FabricsText) -> Result<Fabrics, String> {
        let known = || Preset::ALL.map(Preset::name).join(", ");
        let preset = |name: String| {
            let preset = Preset::ALL.into_iter().find(|preset| preset.name() == name);
            preset.ok_or_else(|| format!("`{name}` is no fabric: known are {}", known()))
        };
        Ok(Fabrics { volume: text.volume.map(preset).transpose()?, members: text.members.map(preset).transpose()? })
    }
}
