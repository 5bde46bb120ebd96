//! What a campaign has reached, and what it has not.
//!
//! A simulator that finds nothing has either shown that nothing is there or that it never looked. Which of the two, a
//! table tells: every fault, against every state of the member it strikes, against everything the array was doing at
//! that moment. Such a combination is a *cell*. Beside it stand the [`Mark`]s, rare branches of the engine. Cells and
//! marks merge over runs, threads and machines.
//!
//! An empty cell is a question, unless it cannot be reached: then a rule says why not. A rule may be wrong; a cell that
//! is struck in spite of one is reported.
//!
//! What is under way is all that is under way, not only what the fault has struck: a bit that rots under a read while a
//! recovery writes somewhere else counts for both.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::gaps::GapText;
use crate::block::{Bank, Mark, Marks};
use crate::raid::Array;
use crate::raid::band::{Phase, Work};
use crate::raid::member::{Member, Place};

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $fault:ident = $number:literal $name:literal $strikes:ident,)+) => {
        /// A fault of the table in the reference on reliability, as the simulator can inject it.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum FaultClass {
            $($(#[doc = $doc])+ $fault,)+
        }

        impl FaultClass {
            /// All of them, in the order of the table.
            pub const ALL: [FaultClass; FAULTS] = [$(FaultClass::$fault,)+];

            /// Its number in the table.
            pub const fn number(self) -> u8 {
                match self { $(FaultClass::$fault => $number,)+ }
            }

            /// Its name in reports, files and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(FaultClass::$fault => $name,)+ }
            }

            /// When it strikes.
            pub const fn strikes(self) -> Strikes {
                match self { $(FaultClass::$fault => Strikes::$strikes,)+ }
            }
        }
    };
}

/// Faults of the table that a disk, its power or the engine can have; those of paths come behind them.
const FAULTS: usize = 31;

faults! {
    /// A disk stops answering.
    FailStop = 1 "fail-stop" Alone,
    /// A disk answers late.
    FailSlow = 2 "fail-slow" Any,
    /// A read meets a sector that is unreadable until it is written.
    LatentSectorError = 3 "latent-sector-error" Read,
    /// A read fails, and a later one does not.
    TransientRead = 4 "transient-read" Read,
    /// A write fails and stores nothing.
    WriteError = 5 "write-error" Write,
    /// A write fails and has stored its first sectors.
    TornError = 6 "torn-error" Write,
    /// A read meets rotten data.
    BitRot = 7 "bit-rot" Read,
    /// A write of data is acknowledged and never stored.
    LostWrite = 8 "lost-write" Write,
    /// A write of data lands elsewhere.
    MisdirectedWrite = 9 "misdirected-write" Write,
    /// A read of data returns another address.
    MisdirectedRead = 10 "misdirected-read" Read,
    /// The power goes while a write is in flight: any of its sectors are stored.
    TornAtCut = 11 "torn-at-cut" Alone,
    /// The power goes while a write is in flight: a block of 4 KiB is stored in part.
    TornBlock = 12 "torn-block" Alone,
    /// The power goes while a disk holds what no flush covered, or a write to it is in flight.
    CacheLoss = 13 "cache-loss" Alone,
    /// The power goes after the flush of one disk and before that of this one.
    CutAcrossFlush = 14 "cut-across-flush" Alone,
    /// A flush, or a write through the cache, is acknowledged and not done.
    FlushLie = 15 "flush-lie" Any,
    /// A flush fails and what it covered is lost.
    FlushFail = 16 "flush-fail" Flush,
    /// A disk comes back with what it held long ago.
    StaleReturn = 17 "stale-return" Alone,
    /// Two disks change places, or one is there twice.
    IdentitySwap = 18 "identity-swap" Alone,
    /// A second disk stops answering shortly after a first.
    DoubleFailure = 19 "double-failure" Alone,
    /// A member that a recovery reads stops answering.
    SourceFailsInRecovery = 20 "source-fails-in-recovery" Alone,
    /// The device that a recovery fills stops answering.
    SpareFailsInRecovery = 21 "spare-fails-in-recovery" Alone,
    /// A read of a recovery meets an unreadable sector.
    UnreadableInRecovery = 22 "unreadable-in-recovery" Read,
    /// The power goes during a recovery.
    CutInRecovery = 23 "cut-in-recovery" Alone,
    /// The engine ends at once; the disks keep their power and their caches.
    ProcessKill = 24 "process-kill" Alone,
    /// The power goes, and this member is not there when it is back.
    CutAndMemberMissing = 25 "cut-and-member-missing" Alone,
    /// The superblock of a disk rots.
    SuperblockRot = 26 "superblock-rot" Alone,
    /// The power goes while superblocks are written.
    CutInSuperblockUpdate = 27 "cut-in-superblock-update" Alone,
    /// Halves of the array are started apart, written to, and put together again.
    SplitBrain = 28 "split-brain" Alone,
    /// A request is never answered, or after a long time.
    Hang = 29 "hang" Any,
    /// A write to an address never written before finds no room.
    NoSpace = 30 "no-space" Write,
    /// Bits flip in a buffer of data between computing and writing.
    MemoryFlip = 31 "memory-flip" Write,
}

/// When a fault strikes: by itself, or when a request it concerns is submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strikes {
    /// At a moment of its own.
    Alone,
    /// Any request.
    Any,
    /// A read.
    Read,
    /// A write, of zeroes or a discard too.
    Write,
    /// A flush.
    Flush,
}

/// What the disk a fault strikes is to the array, just before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MemberState {
    /// The member of a slot, and it holds all it should.
    InSync,
    /// The member of a slot, and it is being filled.
    Recovering,
    /// It is being filled to replace the member of a slot.
    Replacement,
    /// It waits for a slot.
    Spare,
    /// It failed.
    Faulty,
    /// No device of the array: it was taken out, or is not there.
    Absent,
}

impl MemberState {
    /// All of them.
    pub const ALL: [MemberState; 6] = [
        MemberState::InSync,
        MemberState::Recovering,
        MemberState::Replacement,
        MemberState::Spare,
        MemberState::Faulty,
        MemberState::Absent,
    ];

    /// What `member` is; `None` is a device the array does not know.
    pub fn of(member: Option<&Member>) -> MemberState {
        match member.map(|member| (member.place, member.stale.is_empty())) {
            Some((Place::Slot(_), true)) => MemberState::InSync,
            Some((Place::Slot(_), false)) => MemberState::Recovering,
            Some((Place::Replacement(_), _)) => MemberState::Replacement,
            Some((Place::Spare, _)) => MemberState::Spare,
            Some((Place::Faulty, _)) => MemberState::Faulty,
            None => MemberState::Absent,
        }
    }

    /// Its name in reports and files.
    pub const fn name(self) -> &'static str {
        match self {
            MemberState::InSync => "in-sync",
            MemberState::Recovering => "recovering",
            MemberState::Replacement => "replacement",
            MemberState::Spare => "spare",
            MemberState::Faulty => "faulty",
            MemberState::Absent => "absent",
        }
    }
}

/// Something the array does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Doing {
    /// A band is under way.
    Band(Work, Phase),
    /// No band and no update of the metadata; a user's flush may be.
    Idle,
    /// An update of the metadata is under way, or asked for.
    Metadata,
}

const WORKS: [Work; 7] = [Work::Read, Work::Write, Work::Recovery, Work::Resync, Work::Check, Work::Mend, Work::Half];

const PHASES: [Phase; 8] = [
    Phase::Gate,
    Phase::Lock,
    Phase::Direct,
    Phase::Reading,
    Phase::Writing,
    Phase::Verifying,
    Phase::Recording,
    Phase::Halved,
];

impl Doing {
    /// All that can be thought of, bands first.
    pub fn all() -> impl Iterator<Item = Doing> {
        let bands = WORKS.into_iter().flat_map(|work| PHASES.map(|phase| Doing::Band(work, phase)));
        bands.chain([Doing::Idle, Doing::Metadata])
    }

    /// Its place in [`Doing::all`].
    pub(super) fn index(self) -> usize {
        match self {
            Doing::Band(work, phase) => work as usize * PHASES.len() + phase as usize,
            Doing::Idle => WORKS.len() * PHASES.len(),
            Doing::Metadata => WORKS.len() * PHASES.len() + 1,
        }
    }

    /// Whether some array may do this.
    pub fn is_possible(self) -> bool {
        self.never().is_none()
    }

    /// Everything an array does at this moment, each band apart; [`Doing::Idle`] if nothing.
    pub fn now<B: Bank>(array: &Array<B>) -> impl Iterator<Item = Doing> {
        let metadata = array.is_recording().then_some(Doing::Metadata);
        let mut all = array.under_way().map(|(work, phase)| Doing::Band(work, phase)).chain(metadata).peekable();
        let idle = all.peek().is_none().then_some(Doing::Idle);
        all.chain(idle)
    }

    /// Its name in reports and files.
    pub fn name(self) -> String {
        match self {
            Doing::Band(work, phase) => format!("{}.{}", work_name(work), phase_name(phase)),
            Doing::Idle => "idle".to_owned(),
            Doing::Metadata => "metadata".to_owned(),
        }
    }

    /// Why no array ever does this; `None` if one may.
    fn never(self) -> Option<&'static str> {
        let Doing::Band(work, phase) = self else { return None };
        match (work, phase) {
            (_, Phase::Gate) if work != Work::Write => Some("only writes of users wait for a gate"),
            (Work::Half, Phase::Lock) => Some("a half works under the lock of its whole"),
            (_, Phase::Direct) if !matches!(work, Work::Read | Work::Half) => {
                Some("only reads of users fill the users' buffers directly")
            }
            (_, Phase::Verifying) if !matches!(work, Work::Mend | Work::Half) => {
                Some("only a mend reads back what it wrote")
            }
            (Work::Check, Phase::Halved) => Some("a check reads what can be read, so there is nothing to halve for"),
            _ => None,
        }
    }
}

fn work_name(work: Work) -> &'static str {
    match work {
        Work::Read => "read",
        Work::Write => "write",
        Work::Recovery => "recovery",
        Work::Resync => "resync",
        Work::Check => "check",
        Work::Mend => "mend",
        Work::Half => "half",
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Gate => "gate",
        Phase::Lock => "lock",
        Phase::Direct => "direct",
        Phase::Reading => "reading",
        Phase::Writing => "writing",
        Phase::Verifying => "verifying",
        Phase::Recording => "recording",
        Phase::Halved => "halved",
    }
}

/// One combination.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// What goes wrong.
    pub fault: FaultClass,
    /// On which disk.
    pub member: MemberState,
    /// While the array does what.
    pub doing: Doing,
}

impl Cell {
    /// Every cell, reachable or not, in the order of the table.
    pub fn all() -> impl Iterator<Item = Cell> {
        FaultClass::ALL.into_iter().flat_map(|fault| {
            let members = MemberState::ALL.into_iter();
            members.flat_map(move |member| Doing::all().map(move |doing| Cell { fault, member, doing }))
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.fault.name(), self.member.name(), self.doing.name())
    }
}

/// Cells that cannot be reached: of these faults, on members in these states, in these situations.
struct Rule {
    faults: fn(FaultClass) -> bool,
    members: &'static [MemberState],
    when: fn(Doing) -> bool,
    because: &'static str,
}

const ANYONE: &[MemberState] = &MemberState::ALL;

fn always(_: Doing) -> bool {
    true
}

fn at_rest(doing: Doing) -> bool {
    doing == Doing::Idle
}

fn is_of_requests(fault: FaultClass) -> bool {
    fault.strikes() != Strikes::Alone
}

fn reads(fault: FaultClass) -> bool {
    fault.strikes() == Strikes::Read
}

fn writes(fault: FaultClass) -> bool {
    fault.strikes() == Strikes::Write
}

fn stops_a_disk(fault: FaultClass) -> bool {
    use FaultClass as F;
    matches!(fault, F::FailStop | F::DoubleFailure)
}

fn cuts_power(fault: FaultClass) -> bool {
    use FaultClass as F;
    let at_writes = matches!(fault, F::TornAtCut | F::TornBlock | F::CacheLoss | F::CutAcrossFlush);
    at_writes || matches!(fault, F::CutInRecovery | F::ProcessKill | F::CutInSuperblockUpdate)
}

const RULES: &[Rule] = &[
    Rule {
        faults: is_of_requests,
        members: &[MemberState::Absent],
        when: always,
        because: "a device that is not there takes no requests",
    },
    Rule {
        faults: is_of_requests,
        members: &[MemberState::Faulty],
        when: at_rest,
        because: "nothing is sent to a member that failed, and what was on its way belongs to a band or an update",
    },
    Rule {
        faults: |fault| reads(fault) || writes(fault),
        members: ANYONE,
        when: at_rest,
        because: "nothing is read or written while nothing is under way",
    },
    Rule { faults: reads, members: &[MemberState::Spare], when: always, because: "a spare is never read" },
    Rule {
        faults: |fault| {
            use FaultClass as F;
            matches!(fault, F::LostWrite | F::MisdirectedWrite | F::MemoryFlip)
        },
        members: &[MemberState::Spare],
        when: always,
        because: "a spare takes no data, and what becomes of metadata is superblock-rot",
    },
    Rule {
        faults: |fault| fault == FaultClass::NoSpace,
        members: &[MemberState::Spare],
        when: always,
        because: "a spare takes metadata only, where something was written when it was made",
    },
    Rule {
        faults: |fault| fault == FaultClass::CutAcrossFlush,
        members: &[MemberState::Spare, MemberState::Faulty, MemberState::Absent],
        when: always,
        because: "a flush is of the members that serve",
    },
    Rule {
        faults: is_of_requests,
        members: &[MemberState::Spare],
        when: at_rest,
        because: "a spare takes nothing but metadata, and no update of it is under way",
    },
    Rule { faults: stops_a_disk, members: &[MemberState::Absent], when: always, because: "it is gone already" },
    Rule {
        faults: stops_a_disk,
        members: &[MemberState::Faulty],
        when: at_rest,
        because: "nothing of a member that failed is in flight any more, so nobody learns that it stopped",
    },
    Rule {
        faults: cuts_power,
        members: &[MemberState::Absent],
        when: always,
        because: "what is not there has no power to lose",
    },
    Rule {
        faults: |fault| matches!(fault, FaultClass::TornAtCut | FaultClass::TornBlock),
        members: ANYONE,
        when: at_rest,
        because: "no write is in flight that could be torn",
    },
    Rule {
        faults: |fault| fault == FaultClass::CacheLoss,
        members: &[MemberState::Spare],
        when: at_rest,
        because: "a spare holds metadata only, which is written through",
    },
    Rule {
        faults: |fault| fault == FaultClass::CutInSuperblockUpdate,
        members: ANYONE,
        when: at_rest,
        because: "an update is under way",
    },
    Rule {
        faults: |fault| fault == FaultClass::SourceFailsInRecovery,
        members: &[MemberState::Replacement, MemberState::Spare, MemberState::Faulty, MemberState::Absent],
        when: always,
        because: "only the members of slots are sources of a recovery",
    },
    Rule {
        faults: |fault| fault == FaultClass::SourceFailsInRecovery,
        members: &[MemberState::Recovering],
        when: always,
        because: "it is being filled itself: that is spare-fails-in-recovery",
    },
    Rule {
        faults: |fault| fault == FaultClass::SpareFailsInRecovery,
        members: &[MemberState::InSync, MemberState::Spare, MemberState::Faulty, MemberState::Absent],
        when: always,
        because: "it is not being filled",
    },
    Rule {
        faults: |fault| fault == FaultClass::CutAndMemberMissing,
        members: &[MemberState::Spare, MemberState::Faulty, MemberState::Absent],
        when: always,
        because: "without it the array misses no more than before",
    },
    Rule {
        faults: |fault| matches!(fault, FaultClass::SuperblockRot | FaultClass::IdentitySwap),
        members: &[MemberState::Absent],
        when: always,
        because: "nobody reads what it says it is; when it comes back, that is stale-return",
    },
    Rule {
        faults: |fault| fault == FaultClass::SplitBrain,
        members: &[MemberState::Spare, MemberState::Faulty, MemberState::Absent],
        when: always,
        because: "halves of an array are made of those that serve in it",
    },
];

/// Why a cell cannot be reached; `None` if it can.
pub fn unreachable(cell: Cell) -> Option<&'static str> {
    let applies =
        |rule: &&Rule| (rule.faults)(cell.fault) && rule.members.contains(&cell.member) && (rule.when)(cell.doing);
    cell.doing.never().or_else(|| RULES.iter().find(applies).map(|rule| rule.because))
}

/// Cells and marks reached by one run or many.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "CoverageText", into = "CoverageText")]
pub struct Coverage {
    /// Strikes.
    cells: BTreeMap<Cell, u64>,
    /// Runs that met it.
    marks: BTreeMap<Mark, u64>,
    /// Strikes on members in a state, whatever was going on.
    met: BTreeMap<(FaultClass, MemberState), u64>,
    /// Events while there was a member in that state.
    present: BTreeMap<MemberState, u64>,
    /// Those of them during which the array did that.
    seen: BTreeMap<(MemberState, Doing), u64>,
}

impl Coverage {
    /// A fault has struck a disk; once for each of them, where it strikes several (the power of all disks goes).
    /// `member`: what the disk was just before. `doing`: everything the array did at that moment.
    pub fn strike(&mut self, fault: FaultClass, member: MemberState, doing: impl IntoIterator<Item = Doing>) {
        add(&mut self.met, (fault, member), 1);
        for doing in doing {
            add(&mut self.cells, Cell { fault, member, doing }, 1);
        }
    }

    /// There was a member in this state for so many events, and the array did this during so many of them.
    pub fn visited(&mut self, member: MemberState, events: u64, doing: impl IntoIterator<Item = (Doing, u64)>) {
        if events > 0 {
            add(&mut self.present, member, events);
        }
        for (doing, events) in doing.into_iter().filter(|(_, events)| *events > 0) {
            add(&mut self.seen, (member, doing), events);
        }
    }

    /// The marks met by one run, or by a fork of it.
    pub fn marks(&mut self, marks: Marks) {
        for mark in marks.iter() {
            add(&mut self.marks, mark, 1);
        }
    }

    /// Adds what others have reached.
    pub fn merge(&mut self, other: &Coverage) {
        other.cells.iter().for_each(|(cell, strikes)| add(&mut self.cells, *cell, *strikes));
        other.marks.iter().for_each(|(mark, runs)| add(&mut self.marks, *mark, *runs));
        other.met.iter().for_each(|(met, strikes)| add(&mut self.met, *met, *strikes));
        other.present.iter().for_each(|(member, events)| add(&mut self.present, *member, *events));
        other.seen.iter().for_each(|(seen, events)| add(&mut self.seen, *seen, *events));
    }

    /// How often a cell was struck.
    pub fn strikes(&self, cell: Cell) -> u64 {
        self.cells.get(&cell).copied().unwrap_or(0)
    }

    /// How often a fault struck a member in a state.
    pub fn strikes_on(&self, fault: FaultClass, member: MemberState) -> u64 {
        self.met.get(&(fault, member)).copied().unwrap_or(0)
    }

    /// Events while there was a member in a state.
    pub fn events_with(&self, member: MemberState) -> u64 {
        self.present.get(&member).copied().unwrap_or(0)
    }

    /// Events while there was a member in a state and the array did this.
    pub fn events_in(&self, member: MemberState, doing: Doing) -> u64 {
        self.seen.get(&(member, doing)).copied().unwrap_or(0)
    }

    /// How many runs met a mark.
    pub fn runs_with(&self, mark: Mark) -> u64 {
        self.marks.get(&mark).copied().unwrap_or(0)
    }

    /// Every cell that was not struck, with the reason if it cannot be.
    pub fn empty_cells(&self) -> impl Iterator<Item = (Cell, Option<&'static str>)> {
        Cell::all().filter(|cell| self.strikes(*cell) == 0).map(|cell| (cell, unreachable(cell)))
    }

    /// Cells not struck that could be: what is left to reach.
    pub fn missing_cells(&self) -> impl Iterator<Item = Cell> {
        self.empty_cells().filter(|(_, because)| because.is_none()).map(|(cell, _)| cell)
    }

    /// Marks no run has met.
    pub fn missing_marks(&self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.runs_with(*mark) == 0)
    }

    /// Cells that were struck though a rule says they cannot be: the rule is wrong, or whoever reported the strike.
    pub fn refuted(&self) -> impl Iterator<Item = (Cell, &'static str)> {
        self.cells.keys().filter_map(|cell| unreachable(*cell).map(|because| (*cell, because)))
    }

    /// Cells struck, of those that can be.
    pub fn cells_reached(&self) -> (usize, usize) {
        let reachable = Cell::all().filter(|cell| unreachable(*cell).is_none());
        reachable.fold((0, 0), |(struck, all), cell| (struck + usize::from(self.strikes(cell) > 0), all + 1))
    }
}

fn add<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, more: u64) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(more);
}

// ---- files ----

/// As it stands in a file: counts by name, nothing for what was not reached.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CoverageText {
    /// Strikes, by fault, state of the member and what the array did.
    cells: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
    /// Runs, by mark.
    marks: BTreeMap<String, u64>,
    /// Strikes, by fault and state of the member.
    met: BTreeMap<String, BTreeMap<String, u64>>,
    /// Events, by state of the member.
    present: BTreeMap<String, u64>,
    /// Events, by state of the member and what the array did.
    seen: BTreeMap<String, BTreeMap<String, u64>>,
    /// What is in no cell, and why: it follows from the rest.
    #[serde(deserialize_with = "nothing_read")]
    gaps: Vec<GapText>,
}

fn nothing_read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<GapText>, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| Vec::new())
}

/// A name that is none: the file comes from another version, or was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no {what} is called `{name}`")]
pub struct UnknownName {
    /// Of what.
    pub what: &'static str,
    /// The name.
    pub name: String,
}

impl From<Coverage> for CoverageText {
    fn from(coverage: Coverage) -> CoverageText {
        let gaps = coverage.gaps().into_iter().map(GapText::from).collect();
        let mut text = CoverageText { gaps, ..CoverageText::default() };
        for (cell, strikes) in coverage.cells {
            let fault = text.cells.entry(cell.fault.name().to_owned()).or_default();
            fault.entry(cell.member.name().to_owned()).or_default().insert(cell.doing.name(), strikes);
        }
        text.marks = coverage.marks.iter().map(|(mark, runs)| (mark.name().to_owned(), *runs)).collect();
        for ((fault, member), strikes) in coverage.met {
            text.met.entry(fault.name().to_owned()).or_default().insert(member.name().to_owned(), strikes);
        }
        text.present = coverage.present.iter().map(|(member, events)| (member.name().to_owned(), *events)).collect();
        for ((member, doing), events) in coverage.seen {
            text.seen.entry(member.name().to_owned()).or_default().insert(doing.name(), events);
        }
        text
    }
}

impl TryFrom<CoverageText> for Coverage {
    type Error = UnknownName;

    fn try_from(text: CoverageText) -> Result<Coverage, UnknownName> {
        let mut coverage = Coverage::default();
        let doings: BTreeMap<String, Doing> = Doing::all().map(|doing| (doing.name(), doing)).collect();
        let doing_of = |name: String| doings.get(&name).copied().ok_or(UnknownName { what: "phase", name });
        let fault_of = |name: String| FaultClass::named(&name).ok_or(UnknownName { what: "fault", name });
        for (fault, members) in text.cells {
            let fault = fault_of(fault)?;
            for (member, strikes) in members {
                let member = MemberState::named(member)?;
                for (doing, strikes) in strikes {
                    add(&mut coverage.cells, Cell { fault, member, doing: doing_of(doing)? }, strikes);
                }
            }
        }
        for (fault, members) in text.met {
            let fault = fault_of(fault)?;
            for (member, strikes) in members {
                add(&mut coverage.met, (fault, MemberState::named(member)?), strikes);
            }
        }
        for (member, events) in text.present {
            add(&mut coverage.present, MemberState::named(member)?, events);
        }
        for (member, doings) in text.seen {
            let member = MemberState::named(member)?;
            for (doing, events) in doings {
                add(&mut coverage.seen, (member, doing_of(doing)?), events);
            }
        }
        for (mark, runs) in text.marks {
            let mark = Mark::named(&mark).ok_or(UnknownName { what: "mark", name: mark })?;
            add(&mut coverage.marks, mark, runs);
        }
        coverage.cells.retain(|_, strikes| *strikes > 0);
        coverage.marks.retain(|_, runs| *runs > 0);
        Ok(coverage)
    }
}

impl MemberState {
    fn named(name: String) -> Result<MemberState, UnknownName> {
        let named = MemberState::ALL.into_iter().find(|state| state.name() == name);
        named.ok_or(UnknownName { what: "state of a member", name })
    }
}

impl FaultClass {
    /// The fault of a name, if there is one.
    pub fn named(name: &str) -> Option<FaultClass> {
        FaultClass::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

impl fmt::Display for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

// ---- the table ----

/// Columns of the terminal that a report takes at the most.
const WIDTH: usize = 100;
/// Columns of the number and the name of a fault.
const STUB: usize = 28;

/// What one letter of the table stands for.
struct Column {
    letter: char,
    doing: Doing,
}

/// Columns of the table under one heading.
struct Group {
    heading: &'static str,
    columns: Vec<Column>,
}

impl Group {
    fn width(&self) -> usize {
        self.heading.len().max(self.columns.len())
    }
}

fn groups() -> Vec<Group> {
    let of_work = |work: Work| {
        let letters = PHASES.into_iter().zip("GLDRWVCH".chars());
        let columns = letters.map(|(phase, letter)| Column { letter, doing: Doing::Band(work, phase) });
        Group { heading: work_name(work), columns: columns.filter(|column| column.doing.never().is_none()).collect() }
    };
    let alone = |heading, doing| Group { heading, columns: vec![Column { letter: '-', doing }] };
    let bands = WORKS.into_iter().map(of_work);
    bands.chain([alone("idle", Doing::Idle), alone("metadata", Doing::Metadata)]).collect()
}

impl Coverage {
    /// What stands in the table for a fault in a situation, whatever the member: blank where no cell is reachable,
    /// a dot where none was struck, otherwise the number of digits of the strikes.
    fn sign(&self, fault: FaultClass, doing: Doing) -> char {
        let cells = MemberState::ALL.map(|member| Cell { fault, member, doing });
        let strikes = cells.iter().fold(0_u64, |sum, cell| sum.saturating_add(self.strikes(*cell)));
        match strikes.checked_ilog10() {
            Some(power) => char::from_digit((power + 1).min(9), 10).expect("it is one digit"),
            None if cells.iter().all(|cell| unreachable(*cell).is_some()) => ' ',
            None => '.',
        }
    }

    fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = groups();
        let line = |stub: &str, of: &dyn Fn(&Group) -> String| {
            let parts = groups.iter().map(|group| format!(" {:<width$}", of(group), width = group.width()));
            format!("{stub:<STUB$}{}", parts.collect::<String>()).trim_end().to_owned()
        };
        writeln!(f, "{}", line("", &|group| group.heading.to_owned()))?;
        writeln!(f, "{}", line("", &|group| group.columns.iter().map(|column| column.letter).collect()))?;
        for fault in FaultClass::ALL {
            let stub = format!("{:>2} {fault}", fault.number());
            let signs = |group: &Group| group.columns.iter().map(|column| self.sign(fault, column.doing)).collect();
            writeln!(f, "{}", line(&stub, &signs))?;
        }
        writeln!(f, "Phases: G gate, L lock, D direct, R reading, W writing, V verifying, C recording, H halved.")?;
        writeln!(f, "Signs: 1 up to 9 strikes, 2 up to 99, ...; . none in any state of the member; blank impossible.")
    }
}

/// Why no drawn life meets a mark, as far as that is known.
fn beyond_lives(mark: Mark) -> Option<&'static str> {
    match mark {
        Mark::MemberWornOut => Some("it takes more mended reads of one member than a life has unreadable sectors"),
        Mark::BadBlockLogFull => Some("the log has room for more ranges than a member of a drawn array has sectors"),
        _ => None,
    }
}

/// `read.lock+writing idle`: the phases of one work together.
pub(super) fn in_words(doings: &[Doing]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut before = None;
    for doing in doings {
        match (*doing, before, words.last_mut()) {
            (Doing::Band(work, phase), Some(same), Some(word)) if work == same => {
                word.push('+');
                word.push_str(phase_name(phase));
            }
            _ => words.push(doing.name()),
        }
        before = if let Doing::Band(work, _) = doing { Some(*work) } else { None };
    }
    words.join(" ")
}

/// Writes `head` and then the words of `text`, in as many lines as it takes, the later ones indented.
pub(super) fn write_wrapped(f: &mut fmt::Formatter<'_>, head: &str, text: &str) -> fmt::Result {
    let mut line = head.to_owned();
    for word in text.split(' ') {
        if line.len() + word.len() > WIDTH {
            writeln!(f, "{}", line.trim_end())?;
            line = "      ".to_owned();
        }
        line.push_str(word);
        line.push(' ');
    }
    writeln!(f, "{}", line.trim_end())
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_table(f)?;
        let (struck, reachable) = self.cells_reached();
        writeln!(f, "\nCells: {struck} of {reachable} struck.")?;
        if struck < reachable {
            writeln!(f, "Not struck, and why:")?;
            self.write_gaps(f)?;
        }
        if self.refuted().next().is_some() {
            writeln!(f, "\nStruck, and held to be impossible:")?;
            for (cell, because) in self.refuted() {
                write_wrapped(f, &format!("  {cell}: "), because)?;
            }
        }
        let missing = self.missing_marks().count();
        writeln!(f, "\nMarks: {} of {} met.", Mark::ALL.len() - missing, Mark::ALL.len())?;
        if missing > 0 {
            writeln!(f, "Never met:")?;
            for mark in self.missing_marks() {
                let because = beyond_lives(mark).map_or_else(String::new, |because| format!(" Not here: {because}."));
                write_wrapped(f, &format!("  {mark}: "), &format!("{}{because}", mark.sentence()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::block::{Durability, Extent, Lba, Sectors};
    use crate::raid::level::Level;
    use crate::sim::array::Lab;
    use crate::sim::{Rng, Shape};

    const WRITING: Doing = Doing::Band(Work::Write, Phase::Writing);

    fn cell(fault: FaultClass, member: MemberState, doing: Doing) -> Cell {
        Cell { fault, member, doing }
    }

    fn some() -> Coverage {
        let mut coverage = Coverage::default();
        coverage.strike(FaultClass::FailStop, MemberState::InSync, [WRITING, Doing::Metadata]);
        coverage.strike(FaultClass::FailStop, MemberState::InSync, [WRITING]);
        coverage.strike(FaultClass::CacheLoss, MemberState::Recovering, [Doing::Band(Work::Recovery, Phase::Reading)]);
        let mut marks = Marks::default();
        marks.insert(Mark::GateWaited);
        coverage.marks(marks);
        coverage.visited(MemberState::InSync, 9, [(WRITING, 4)]);
        coverage
    }

    #[test]
    fn the_faults_are_those_of_the_table_each_once() {
        let numbers: Vec<u8> = FaultClass::ALL.iter().map(|fault| fault.number()).collect();
        assert_eq!(numbers, (1..=31).collect::<Vec<u8>>());
        let names: BTreeSet<&str> = FaultClass::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), FAULTS);
        assert!(FaultClass::ALL.iter().all(|fault| FaultClass::named(fault.name()) == Some(*fault)));
    }

    #[test]
    fn a_strike_counts_for_everything_under_way() {
        let coverage = some();
        let strikes = |doing| coverage.strikes(cell(FaultClass::FailStop, MemberState::InSync, doing));
        assert_eq!((strikes(WRITING), strikes(Doing::Metadata), strikes(Doing::Idle)), (2, 1, 0));
        let missing: Vec<Cell> = coverage.missing_cells().collect();
        let (struck, reachable) = coverage.cells_reached();
        assert_eq!((struck, reachable), (3, missing.len() + 3));
        assert!(!missing.contains(&cell(FaultClass::FailStop, MemberState::InSync, WRITING)));
    }

    #[test]
    fn merging_adds_in_any_order_and_counts_stop_at_the_largest_number() {
        let (mut left, mut right) = (some(), Coverage::default());
        let doing = [Doing::Band(Work::Read, Phase::Direct)];
        right.strike(FaultClass::BitRot, MemberState::InSync, doing);
        let mut other = right.clone();
        left.merge(&right);
        other.merge(&some());
        assert_eq!(left, other);
        assert_eq!(left.runs_with(Mark::GateWaited), 1);

        let struck = cell(FaultClass::BitRot, MemberState::InSync, doing[0]);
        left.cells.insert(struck, u64::MAX);
        left.merge(&right);
        left.strike(FaultClass::BitRot, MemberState::InSync, doing);
        assert_eq!(left.strikes(struck), u64::MAX);
    }

    #[test]
    fn every_cell_is_reachable_or_says_why_not() {
        assert!(Doing::all().enumerate().all(|(at, doing)| doing.index() == at));
        let nothing = Coverage::default();
        let cells: Vec<(Cell, Option<&str>)> = nothing.empty_cells().collect();
        assert_eq!(cells.len(), FAULTS * 6 * (7 * 8 + 2));
        assert!(
            cells.iter().all(|(_, because)| because.is_none_or(|because| !because.is_empty() && because.is_ascii()))
        );

        let why = |fault, member, doing| unreachable(cell(fault, member, doing));
        assert_eq!(why(FaultClass::BitRot, MemberState::Spare, WRITING), Some("a spare is never read"));
        assert!(why(FaultClass::LostWrite, MemberState::Spare, Doing::Metadata).is_some());
        assert!(why(FaultClass::LostWrite, MemberState::InSync, Doing::Idle).is_some());
        assert!(why(FaultClass::FailStop, MemberState::InSync, Doing::Band(Work::Read, Phase::Gate)).is_some());
        for member in [MemberState::InSync, MemberState::Recovering, MemberState::Replacement] {
            assert_eq!(why(FaultClass::LostWrite, member, WRITING), None);
            assert_eq!(why(FaultClass::FlushFail, member, Doing::Idle), None, "a flush is no band");
        }
    }

    #[test]
    fn every_rule_and_every_fault_has_cells_of_its_own() {
        for (number, rule) in RULES.iter().enumerate() {
            let mine = |cell: &Cell| unreachable(*cell) == Some(rule.because);
            assert!(Cell::all().any(|cell| mine(&cell)), "rule {number}: {}", rule.because);
        }
        for fault in FaultClass::ALL {
            assert!(Cell::all().any(|cell| cell.fault == fault && unreachable(cell).is_none()), "{fault}");
        }
    }

    #[test]
    fn what_is_struck_against_a_rule_is_reported() {
        let mut coverage = some();
        assert_eq!(coverage.refuted().count(), 0);
        coverage.strike(FaultClass::BitRot, MemberState::Spare, [Doing::Metadata]);
        assert_eq!(coverage.refuted().count(), 1);
        assert!(coverage.to_string().contains("bit-rot spare metadata: a spare is never read"), "{coverage}");
    }

    #[test]
    fn a_file_keeps_everything_by_name_and_refuses_names_it_does_not_know() {
        let coverage = some();
        let text = serde_json::to_string(&coverage).expect("it is text");
        let head = "{\"cells\":{\"cache-loss\":{\"recovering\":{\"recovery.reading\":1}},\
             \"fail-stop\":{\"in-sync\":{\"metadata\":1,\"write.writing\":2}}},\"marks\":{\"gate-waited\":1},\
             \"met\":{\"cache-loss\":{\"recovering\":1},\"fail-stop\":{\"in-sync\":2}},\"present\":{\"in-sync\":9},\
             \"seen\":{\"in-sync\":{\"write.writing\":4}},\"gaps\":[{\"fault\":\"fail-stop\",\"member\":\"in-sync\",";
        assert!(text.starts_with(head), "{text}");
        assert_eq!(serde_json::from_str::<Coverage>(&text).expect("it was just written"), coverage);
        assert_eq!(serde_json::from_str::<Coverage>("{}").expect("nothing was reached"), Coverage::default());

        for (known, unknown, message) in [
            ("fail-stop", "fail-start", "no fault is called `fail-start`"),
            ("recovering", "resting", "no state of a member is called `resting`"),
            ("write.writing", "write.down", "no phase is called `write.down`"),
            ("gate-waited", "gate-crashed", "no mark is called `gate-crashed`"),
        ] {
            let error = serde_json::from_str::<Coverage>(&text.replace(known, unknown)).expect_err("no such name");
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }

    #[test]
    fn the_table_fits_a_terminal_and_names_what_is_left() {
        let mut all = Coverage::default();
        for cell in Cell::all().filter(|cell| unreachable(*cell).is_none()) {
            all.strike(cell.fault, cell.member, [cell.doing]);
        }
        let mut refuted = some();
        for cell in Cell::all() {
            refuted.strike(cell.fault, cell.member, [cell.doing]);
        }
        for coverage in [Coverage::default(), some(), all.clone(), refuted] {
            let text = coverage.to_string();
            assert!(text.is_ascii());
            assert!(text.lines().all(|line| line.len() <= WIDTH && line == line.trim_end()), "{text}");
        }
        let text = some().to_string();
        assert!(text.contains("  fail-stop recovering: there was none\n"), "{text}");
        assert!(text.contains("  fail-stop in-sync: 2 strikes; "), "{text}");
        assert!(text.contains("  in-sync: read.lock+direct+"), "{text}");
        assert!(!text.contains("gate-waited:") && text.contains("  lock-waited: A band waited"), "{text}");
        assert!(!all.to_string().contains("Not struck"), "{all}");
    }

    /// A first write: the array is marked dirty before any member is written to.
    #[test]
    fn what_an_array_does_is_asked_of_the_array() {
        let mut lab = Lab::new(Shape { spares: 1, ..Shape::of(Level::Raid5, &mut Rng::new(1, 0)) }, 1);
        let now = |lab: &Lab| Doing::now(lab.array()).collect::<Vec<Doing>>();
        let states = |lab: &Lab| {
            let members = lab.array().members();
            lab.disks().iter().map(|disk| MemberState::of(members.get(*disk))).collect::<BTreeSet<_>>()
        };
        assert_eq!(now(&lab), [Doing::Idle]);
        assert_eq!(states(&lab), BTreeSet::from([MemberState::InSync, MemberState::Spare]));
        assert_eq!(MemberState::of(None), MemberState::Absent);

        lab.world.submit_write(Extent::new(Lba(0), Sectors(1)), Durability::Volatile);
        assert_eq!(now(&lab), [Doing::Band(Work::Write, Phase::Gate), Doing::Metadata]);
        let mut seen = BTreeSet::new();
        while lab.world.inflight() > 0 {
            lab.world.step().expect("nothing is wrong with it");
            seen.extend(now(&lab));
        }
        assert!(seen.contains(&Doing::Band(Work::Write, Phase::Reading)) && seen.contains(&WRITING), "{seen:?}");
        assert_eq!(lab.clone().bank().marks().iter().collect::<Vec<_>>(), [Mark::GateWaited]);

        let first = lab.array().members().seats()[0].member.expect("nobody has failed");
        lab.array_mut().fail(first).expect("there is a spare");
        let changed = [MemberState::InSync, MemberState::Recovering, MemberState::Faulty];
        assert_eq!(states(&lab), BTreeSet::from(changed));
        assert!(now(&lab).contains(&Doing::Band(Work::Recovery, Phase::Reading)), "{:?}", now(&lab));
        assert!(lab.bank().marks().contains(Mark::SpareTookSlot));
    }

    #[test]
    fn a_sign_is_the_number_of_digits_of_the_strikes() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.sign(FaultClass::FailStop, WRITING), '.');
        assert_eq!(coverage.sign(FaultClass::BitRot, Doing::Idle), ' ');
        for (strikes, sign) in [(1, '1'), (9, '1'), (10, '2'), (99, '2'), (100, '3'), (u64::MAX, '9')] {
            coverage.cells.insert(cell(FaultClass::FailStop, MemberState::InSync, WRITING), strikes);
            assert_eq!(coverage.sign(FaultClass::FailStop, WRITING), sign, "{strikes}");
        }
    }
}
