//! Scenarios: all that will happen in a life, as data.
//!
//! A seed is [drawn](mod@super::draw) into a scenario before anything runs: the array, what its clients do, and steps, each
//! with the moment it waits for. What is left of the seed afterwards decides service times and which of the versions
//! in a cache survive, each from a stream of its own, so that a step can be taken out and the others stay as they were.
//! A scenario is a TOML file that can as well be written by hand:
//!
//! ```toml
//! schema = "raidlab-scenario/v1"
//! seed = 7
//! regime = "budgeted"
//!
//! [array]
//! level = "raid5"
//! disks = 4
//! spares = 1
//! member = 128           # data sectors of each disk
//!
//! [clients]
//! depth = 2
//! ops = ["write 0+24", "flush", "write 3+1 fua", "read 0+24"]
//!
//! [[step]]
//! id = 1
//! when = "op 2"          # before the third operation
//! do = "stop slot-0"
//!
//! [[step]]
//! id = 2
//! when = "recovery 40%"
//! do = "power-cut per-sector"
//! ```
//!
//! With `[paths]`, `volume = "san"` and `members = "sas-dual"`, fabrics lie over and under the array, and steps can have their
//! components fail.
//!
//! The words are those of [`When`], [`Act`] and [`ClientOp`], which see.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::array::PathOrder;
use super::fabrics::{Fabrics, Part, PartKind, Side};
use super::{CacheLoss, ClientOp, DiskModel, Hdd, Shape, Timing};
use crate::block::{DeviceId, Extent, Lba, Sectors};
use crate::disk::FaultKind;
use crate::fabric::emulated::Health;

/// The version of the files this program writes and reads.
pub const SCHEMA: &str = "raidlab-scenario/v1";

/// A life before it is lived.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    schema: Schema,
    /// Decides service times and what survives in caches. Below 2^63, which is as far as TOML counts.
    pub seed: u64,
    /// Whether faults keep to what the level tolerates.
    pub regime: Regime,
    /// The array's disks lend what they hold, as mapped files do: a read that nothing stands against is done at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mapped: bool,
    /// The array.
    pub array: Shape,
    /// How clients reach it, and it its disks.
    #[serde(default, skip_serializing_if = "is_none")]
    pub paths: Fabrics,
    /// How its disks take their time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disks: Disks,
    /// What is asked of it.
    pub clients: Clients,
    /// What happens to it besides, and when.
    #[serde(rename = "step", default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Where a copy's power is cut, and what becomes of the copy: the life ends there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash: Option<CrashPoint>,
}

/// [`SCHEMA`], or an error that says what else it was.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Schema;

/// How far faults go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Regime {
    /// A fault that would leave more erasures in some stripe than the level tolerates is held back: data must come back.
    Budgeted,
    /// Anything goes: errors are allowed where they are earned, wrong bytes never beyond the promise.
    Unbudgeted,
}

/// What the disks are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disks {
    /// A fixed time, and a random part that lets requests overtake each other.
    #[default]
    Fixed,
    /// Seek, rotation, transfer.
    Hdd,
}

impl Disks {
    /// A disk of such an array.
    pub fn model(self, array: &Shape) -> DiskModel {
        match self {
            Disks::Fixed => array.model(),
            Disks::Hdd => DiskModel { timing: Timing::Hdd(Hdd::NEARLINE), ..array.model() },
        }
    }
}

/// What the clients do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// Operations under way at a time, at most.
    pub depth: usize,
    /// The operations, in order.
    pub ops: Vec<ClientOp>,
}

/// Something that happens once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name to other steps, and to chance: it keeps it when others are taken out.
    pub id: u32,
    /// When.
    pub when: When,
    /// What.
    #[serde(rename = "do")]
    pub act: Act,
}

/// The moment a step waits for. Steps whose moment never comes are reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum When {
    /// `op N`: N client operations have been submitted.
    Op(usize),
    /// `answered N`: of the client operations submitted, N are no longer under way.
    Answered(usize),
    /// `time 12ms`: the virtual clock has come there.
    Time(Duration),
    /// `io disk-1 37`: the disk has been given that many requests.
    Io(Target, u64),
    /// `recovery 37%`: a recovery or resync runs and has come that far.
    Recovery(u64),
    /// `phase writing 3`: some band has been in that phase after three events.
    Phase(Moment, u64),
    /// `event 812`: the world has seen that many events.
    Event(u64),
    /// `2 events after 3`: so many events after step 3 was taken.
    After(u64, u32),
    /// `off 3`: in step 3, a restart or a power cut, while the power is off.
    Off(u32),
}

/// Phases of bands, and what the array does besides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Moment {
    /// A write waits until its region is marked dirty.
    Gate,
    /// A band waits for its rows.
    Lock,
    /// A band reads.
    Reading,
    /// A band writes.
    Writing,
    /// A mend reads back what it wrote.
    Verifying,
    /// A write waits until a failure is on record.
    Recording,
    /// Metadata is on its way to the members.
    Metadata,
    /// A flush of a client is under way.
    Flush,
}

/// Which disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// `disk-3`: the fourth one that was put in, wherever it is now.
    Disk(u32),
    /// `slot-2`: the member of that slot.
    Slot(u8),
    /// `filling`: a disk that recovery fills, or a replacement.
    Filling,
    /// `spare`: one that waits.
    Spare,
    /// `faulty`: one that failed.
    Faulty,
}

/// What a step does. Extents are in data sectors of the member: `16+4` is four sectors from sector 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Act {
    /// `fail slot-2`: an administrator fails it.
    Fail(Target),
    /// `remove faulty`: it is taken out of the array and out of the box.
    Remove(Target),
    /// `re-add faulty`: it is taken out and put back, answering again.
    ReAdd(Target),
    /// `add`: a new disk is put in, as a spare.
    Add,
    /// `replace slot-1`: it is copied to a spare, which takes its place.
    Replace(Target),
    /// `check`: everything is compared.
    Check,
    /// `repair`: everything is compared and mended where it is known who is wrong. `repair trust-data`: where it is not,
    /// parity is encoded anew, or the first copy copied, as md does.
    Repair {
        /// Data is taken for right.
        trust_data: bool,
    },
    /// `freeze`: background work pauses.
    Freeze,
    /// `thaw`: it goes on.
    Thaw,
    /// `rest`: clients wait until nothing happens any more.
    Rest,
    /// `restart`: the array is stopped and assembled again.
    Restart,
    /// `power-cut LOSS`: `per-sector`, `per-block`, `per-disk`, `drop-all` or `keep-all` (a killed process).
    PowerCut(CacheLoss),
    /// `stop slot-2`: it answers no more.
    Stop(Target),
    /// `return disk-1`: one that stopped answers again.
    Return(Target),
    /// `unreadable slot-2 16+4`: these sectors cannot be read until they are written.
    Unreadable(Target, Extent),
    /// `fault slot-2 lost 16+8 x3`: one of the faults of [`FaultKind`], on the data or a part of it, for so many requests.
    Fault(Target, FaultKind, Option<Extent>, Option<u64>),
    /// `hang slot-2 30s`: requests end with a timeout after that time, their outcome unknown.
    Hang(Target, Duration),
    /// `slow slot-2 x100`: everything takes that many times longer.
    Slow(Target, u32),
    /// `lose-flush slot-2 x1`: flushes fail, and what they should have stored is lost.
    LoseFlush(Target, u64),
    /// `fill slot-2`: its file system is full; sectors never written cannot be.
    Fill(Target),
    /// `mend`: whatever slows, hangs or fails disks ends, when no request is under way. Stopped disks stay so.
    Mend,
    /// `snapshot slot-1`: its contents are kept aside.
    Snapshot(Target),
    /// `restore disk-1`: its contents are again what was kept aside.
    Restore(Target),
    /// `swap disk-0 disk-1`: the disks change places in the box.
    Swap(Target, Target),
    /// `duplicate disk-0`: a copy of it is put in, too.
    Duplicate(Target),
    /// `split disk-1`: it is started without the others, as only a mirror can be, everything is written to that half, and
    /// it is put back beside them.
    Split(Target),
    /// `rot-superblock slot-1`: bytes of its superblock change.
    RotSuperblock(Target),
    /// `component volume switch-1 down`: from now on it is so, in the words of [`Health`], `losing=3,answering` and the like.
    ///
    /// None corrupts: an array without checksums passes on what it is given, and no rule could say what a read may return.
    Component(Part, Health),
    /// `fail-path volume 3`, `reinstate-path members 0`, `switch-group volume 1`: by order, by its number.
    Path(Side, PathOrder, u16),
}

/// Where the power of a copy is cut, and what is done with what comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrashPoint {
    /// After so many events of the life.
    pub event: u64,
    /// What becomes of the caches.
    #[serde(with = "super::text::loss")]
    pub loss: CacheLoss,
    /// Of all ways in which sectors may survive, the one of this number to [`Odometer::at`](super::Odometer::at); then
    /// every view is read. Else chance decides, and one view is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survivors: Option<u64>,
    /// Disks that had stopped answer again.
    #[serde(default)]
    pub back: bool,
    /// Before the audit.
    pub then: Aftermath,
    /// Another cut, before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
    /// Chooses what is left to choose: versions, places.
    pub choose: u64,
}

/// What is done after a power cut before everything is audited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aftermath {
    /// It recovers.
    Recover,
    /// Everything is read while it recovers.
    Read,
    /// Some is read, then as many members are lost as can be.
    Lose,
    /// Clients go on while it recovers.
    Write,
}

/// A second power cut, while the array recovers from the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// After so many events.
    pub events: u64,
    /// What becomes of the caches.
    #[serde(with = "super::text::loss")]
    pub loss: CacheLoss,
}

/// Why a text is no scenario.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// It is not written as one; line and column are in the message.
    #[error("{0}")]
    Text(#[from] Box<toml::de::Error>),
    /// A part of it does not fit the rest.
    #[error("{part}: {reason}")]
    Misfit {
        /// Which part.
        part: String,
        /// Why.
        reason: String,
    },
}

impl Scenario {
    /// A scenario without steps.
    pub fn new(seed: u64, regime: Regime, array: Shape, clients: Clients) -> Scenario {
        Scenario {
            schema: Schema,
            seed,
            regime,
            array,
            paths: Fabrics::NONE,
            mapped: false,
            disks: Disks::Fixed,
            clients,
            steps: Vec::new(),
            crash: None,
        }
    }

    /// Reads a scenario file's text.
    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = toml::from_str(text).map_err(Box::new)?;
        scenario.check().map(|()| scenario)
    }

    /// The text of a scenario file.
    pub fn to_toml(&self) -> String {
        let text = toml::to_string(self).expect("a scenario is a table of plain values");
        // One operation a line.
        text.lines()
            .map(|line| if line.starts_with("ops = [") { spread(line) } else { line.to_owned() + "\n" })
            .collect()
    }

    /// The size of its volume.
    pub fn capacity(&self) -> Sectors {
        self.array.volume().capacity
    }

    /// Whether the fabric has such a component, or may have it when disks are added.
    fn has_component(&self, part: Part) -> bool {
        let units: Vec<DeviceId> = match part.side {
            Side::Volume => vec![DeviceId(0)],
            Side::Members => self.array.devices().collect(),
        };
        let is_port_of_disk = part.side == Side::Members && part.kind == PartKind::Port;
        is_port_of_disk || self.paths.of(part.side).is_some_and(|preset| part.find(&preset.graph_for(&units)).is_some())
    }

    /// Operations and steps together: what shrinking makes fewer.
    pub fn length(&self) -> usize {
        self.clients.ops.len() + self.steps.len()
    }

    /// Whether all parts fit each other.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let misfit = |part: String, reason: String| Err(ScenarioError::Misfit { part, reason });
        if self.clients.depth == 0 {
            return misfit("clients.depth".into(), "0 operations at a time never begin; give 1 or more".into());
        }
        let (capacity, block) = (self.capacity(), self.array.block);
        for (at, op) in self.clients.ops.iter().enumerate() {
            let Some(extent) = op.extent() else { continue };
            let part = format!("clients.ops[{at}], `{op}`");
            if extent.length == Sectors::ZERO || extent.end() > Lba(capacity.0) {
                return misfit(part, format!("the volume has {} sectors", capacity.0));
            }
            if !extent.start.0.is_multiple_of(block.0) || !extent.length.0.is_multiple_of(block.0) {
                return misfit(part, format!("the disks have blocks of {} sectors", block.0));
            }
        }
        let mut ids = BTreeSet::new();
        for step in &self.steps {
            let part = format!("step {}, `{}`", step.id, step.act);
            if !ids.insert(step.id) {
                return misfit(part, "another step has the same id".into());
            }
            let (member, block) = (self.array.member, self.array.block);
            if let Act::Unreadable(_, extent) | Act::Fault(_, _, Some(extent), _) = step.act
                && (extent.end() > Lba(member.0) || extent.length == Sectors::ZERO)
            {
                return misfit(part, format!("a member has {} data sectors", member.0));
            }
            if let Act::Unreadable(_, extent) | Act::Fault(_, _, Some(extent), _) = step.act
                && !(extent.start.0.is_multiple_of(block.0) && extent.length.0.is_multiple_of(block.0))
            {
                return misfit(part, format!("the disks have blocks of {} sectors", block.0));
            }
            if let Act::Component(Part { side, .. }, _) | Act::Path(side, ..) = step.act
                && self.paths.of(side).is_none()
            {
                return misfit(part, format!("there are no paths there; give [paths] {side} = \"san\""));
            }
            if let Act::Component(_, Health::Corrupting { .. }) = step.act {
                return misfit(part, "an array passes on what a path corrupts: no rule says what may be read".into());
            }
            if let Act::Component(component, _) = step.act
                && !self.has_component(component)
            {
                return misfit(part, "the fabric has no such component".into());
            }
            if step.act.is_for_power_off() != matches!(step.when, When::Off(_)) {
                let reason = "what changes disks behind the array's back happens while the power is off, `off N`, and nothing else does";
                return misfit(part, reason.into());
            }
        }
        for step in &self.steps {
            let part = format!("step {}, `{}`", step.id, step.when);
            let named = |id: u32| self.steps.iter().find(|other| other.id == id && id != step.id);
            match step.when {
                When::After(_, id) if named(id).is_none() => {
                    return misfit(part, format!("there is no other step {id}"));
                }
                When::Off(id)
                    if !named(id).is_some_and(|other| matches!(other.act, Act::Restart | Act::PowerCut(_))) =>
                {
                    return misfit(part, format!("step {id} neither restarts the array nor cuts the power"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A list of strings on lines of their own, six a line at most.
fn spread(line: &str) -> String {
    let list = line.trim_start_matches("ops = [").trim_end_matches(']');
    let words: Vec<&str> = list.split(", ").collect();
    if words.len() < 6 {
        return line.to_owned() + "\n";
    }
    let lines: String = words.chunks(6).map(|words| format!("    {},\n", words.join(", "))).collect();
    format!("ops = [\n{lines}]\n")
}

impl Act {
    /// Whether it is done while the power is off.
    pub fn is_for_power_off(self) -> bool {
        matches!(self, Act::Restore(_) | Act::Swap(..) | Act::Duplicate(_) | Act::Split(_) | Act::RotSuperblock(_))
    }

    /// Whether clients pause for it.
    pub fn pauses_clients(self) -> bool {
        matches!(self, Act::Rest | Act::Restart | Act::Mend)
    }
}

impl TryFrom<String> for Schema {
    type Error = String;

    fn try_from(text: String) -> Result<Schema, String> {
        match text.strip_prefix("raidlab-scenario/v") {
            _ if text == SCHEMA => Ok(Schema),
            Some(version) if version.parse::<u32>().is_ok() => {
                Err(format!("this program reads {SCHEMA}; `{text}` was written by another version of it"))
            }
            _ => Err(format!("`{text}` is no scenario; one begins with schema = \"{SCHEMA}\"")),
        }
    }
}

impl From<Schema> for String {
    fn from(_: Schema) -> String {
        SCHEMA.to_owned()
    }
}

fn is_none(paths: &Fabrics) -> bool {
    !paths.any()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
