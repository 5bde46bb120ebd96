//! The oracle: what each sector of a volume may read as.
//!
//! A disk promises little: a read returns the last write, or one it overlaps; a flush makes what was
//! completed before it durable; a power cut leaves each sector as it was or as any later write made
//! it. So a sector has not one right value but a set of them (the asynchronous disk of Chen et al.,
//! SOSP '15). The oracle watches the operations of the clients, never the array, and keeps that set.
//!
//! The rules, numbered as in reports:
//!
//! | Rule | A violation is |
//! |---|---|
//! | R1 register | a value that was overwritten before the read began, or one older than a read has returned before |
//! | R2 never garbage | a mixture, the value of another sector, or one nobody wrote |
//! | R3 errors are earned | an error although enough copies are there |
//! | R4 flush | after a crash, a value older than one that was flushed or written through |
//! | R6 crash choice | after a crash, another value than an earlier read has returned |
//! | R7 no late effect | a failed write that shows up after it was overwritten |
//! | R9 discard | old data where zeroes were acknowledged |
//!
//! R5 (a crash exposes any write not known durable) and R8 (a failed write may have happened) only
//! allow. Sectors are judged each for itself.
//!
//! Reads and writes of one sector are judged as Gibbons and Korach do (SIAM J. Comput. 1997). Every
//! value is unique, so all operations on it lie side by side in any legal order. For each value the
//! oracle keeps `done_by`, the earliest moment one of them had returned, and `current_after`, the
//! latest at which one of them began. Two values clash if each must come before the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use smallvec::{SmallVec, smallvec};

use super::cow::CowVec;
use super::token::TOKEN_BYTES;
use super::{Token, Value};
use crate::block::{Buf, Durability, Extent, IoError, Lba, Payload, Sectors};

/// One operation of a client: the moment it was submitted, counted in submissions and completions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// Which promise was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// R1: a read returns the last write, or one it overlaps.
    Register,
    /// R2: a read returns what somebody wrote to that sector.
    NeverGarbage,
    /// R3: an error means that too few copies are left.
    ErrorsEarned,
    /// R4: what was flushed, or written through, survives a crash.
    Flush,
    /// R6: the value a crash left, once read, stays.
    CrashChoice,
    /// R7: an overwritten attempt has no effect afterwards.
    NoLateEffect,
    /// R9: a discarded or zeroed sector reads as zero.
    Discard,
}

/// What came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Got {
    /// A value.
    Value(Value),
    /// An error.
    Error(IoError),
}

/// A broken promise, with all that is known about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which promise.
    pub rule: Rule,
    /// The first sector of the operation where it shows.
    pub lba: Lba,
    /// The operation that showed it.
    pub op: OpId,
    /// What came back.
    pub got: Got,
    /// What might have come back.
    pub legal: Vec<Value>,
}

/// What the clients of one volume may expect.
#[derive(Clone, Debug)]
pub struct Oracle {
    capacity: Sectors,
    grain: u32,
    sectors: CowVec<Sector, 64>,
    /// Sectors with more than one version, past ones included.
    open: Vec<u64>,
    inflight: BTreeMap<OpId, InFlight>,
    failed: BTreeSet<OpId>,
    /// Where writes have failed since the last crash.
    failed_at: Vec<Extent>,
    /// Sectors where a write that failed may still land.
    landing: BTreeSet<u64>,
    /// Writes that failed there, with the moment at which they did.
    loose: Vec<(OpId, Extent, u64)>,
    /// Sectors that could not be had for a moment, and when that was last.
    lost_at: BTreeMap<u64, u64>,
    no_error_is_earned: bool,
    clock: u64,
    crashes: u32,
    /// The latest beginning of a flush that succeeded: writes acknowledged before it are durable.
    flushed_before: u64,
    /// Sectors nobody can vouch for.
    excused: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    kind: Kind,
    extent: Extent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Read,
    Write(Durability),
    Flush,
}

#[derive(Clone, Debug)]
struct Sector {
    /// The versions a read may still return, at least one.
    versions: SmallVec<[Version; 1]>,
    /// Overwritten for every read, but a crash may bring them back.
    past: Vec<Version>,
    /// Whether it is in the list of open sectors.
    open: bool,
    /// A read has told which of several versions the last crash left.
    choice_made: bool,
}

#[derive(Clone, Copy, Debug)]
struct Version {
    /// The write that made it; `WRITTEN_NEVER` for what was there at the start.
    write: u64,
    zero: bool,
    epoch: u32,
    /// A moment by which it had happened, if it ever did.
    done_by: u64,
    /// The latest moment at which it was not yet overwritten, as far as is known.
    current_after: u64,
    /// Acknowledged or seen: it did happen.
    certain: bool,
    /// A flush that begins later makes it durable.
    durable_after: u64,
}

const WRITTEN_NEVER: u64 = 0;
const NOT_YET: u64 = u64::MAX;
const AT_ONCE: u64 = 0;

impl Oracle {
    /// A volume of zeroes whose buffers carry `grain` bytes a sector, a multiple of 32.
    pub fn new(capacity: Sectors, grain: u32) -> Oracle {
        assert!((grain as usize).is_multiple_of(TOKEN_BYTES), "a sector of {grain} bytes does not hold whole tokens");
        Oracle {
            capacity,
            grain,
            sectors: CowVec::new(capacity.0 as usize),
            open: Vec::new(),
            inflight: BTreeMap::new(),
            failed: BTreeSet::new(),
            failed_at: Vec::new(),
            landing: BTreeSet::new(),
            loose: Vec::new(),
            lost_at: BTreeMap::new(),
            no_error_is_earned: false,
            clock: 0,
            crashes: 0,
            flushed_before: 1,
            excused: BTreeSet::new(),
        }
    }

    /// From now on `lba` may read as anything: its user accepted that when an array was forced.
    pub fn excuse(&mut self, lba: Lba) {
        self.excused.insert(lba.0);
    }

    /// Whether `lba` may read as anything.
    pub fn is_excused(&self, lba: Lba) -> bool {
        self.excused.contains(&lba.0)
    }

    /// How many sectors may read as anything.
    pub fn excused(&self) -> usize {
        self.excused.len()
    }

    /// The size of the volume.
    pub fn capacity(&self) -> Sectors {
        self.capacity
    }

    /// Bytes of each sector a buffer carries.
    pub fn grain(&self) -> u32 {
        self.grain
    }

    /// Operations submitted and not completed.
    pub fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// From now on no error is earned, whatever could not be had.
    pub fn forbid_errors(&mut self) {
        self.no_error_is_earned = true;
    }

    /// What the operations under way are about.
    pub fn asked(&self) -> impl Iterator<Item = Extent> + '_ {
        self.inflight.values().map(|inflight| inflight.extent)
    }

    /// At this moment too little of `lba` could be read: operations under way may fail for it.
    pub fn was_lost(&mut self, lba: Lba) {
        self.lost_at.insert(lba.0, self.clock);
    }

    /// At this moment writes that have failed may still land in these sectors and no others: whoever carried them has given them up,
    /// and cannot say yet that they are over. Writes over them that were submitted since are not carried out before.
    pub fn may_still_land(&mut self, sectors: BTreeSet<u64>) {
        if sectors == self.landing {
            return;
        }
        self.landing = sectors;
        let landing = &self.landing;
        let is_loose = |extent: &Extent| extent.range().any(|lba| landing.contains(&lba));
        let (loose, over): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.loose).into_iter().partition(|(_, extent, _)| is_loose(extent));
        self.loose = loose;
        for (op, extent, failed) in over {
            self.is_over(op, extent, failed);
        }
    }

    /// A write that has failed lands no more. What was submitted over it after it had failed has waited for that.
    fn is_over(&mut self, op: OpId, extent: Extent, failed: u64) {
        self.clock += 1;
        let now = self.clock;
        let overlaps = |other: &Extent| extent.start < other.end() && other.start < extent.end();
        let waited: Vec<(OpId, Extent)> = self
            .inflight
            .iter()
            .filter(|(id, of)| matches!(of.kind, Kind::Write(_)) && id.0 > failed && overlaps(&of.extent))
            .map(|(id, of)| (*id, of.extent))
            .collect();
        self.change_versions(op, extent, |version| version.done_by = version.done_by.min(now));
        for (id, extent) in waited {
            self.change_versions(id, extent, |version| version.current_after = version.current_after.max(now));
        }
    }

    /// Where writes have failed since the last crash: they may have happened in part.
    pub fn failed_writes(&self) -> &[Extent] {
        &self.failed_at
    }

    /// Crashes so far.
    pub fn crashes(&self) -> u32 {
        self.crashes
    }

    /// A write is submitted; it must carry the payload given here.
    pub fn write_invoked(&mut self, extent: Extent, durability: Durability) -> (OpId, Payload) {
        let op = self.change_invoked(extent, durability, false);
        (op, Token::payload(extent, self.grain, op.0, self.crashes))
    }

    /// A write of zeroes is submitted, or, with [`Durability::Volatile`], a discard.
    pub fn zeroes_invoked(&mut self, extent: Extent, durability: Durability) -> OpId {
        self.change_invoked(extent, durability, true)
    }

    fn change_invoked(&mut self, extent: Extent, durability: Durability, zero: bool) -> OpId {
        let op = self.invoked(Kind::Write(durability), extent);
        let epoch = self.crashes;
        for lba in extent.range() {
            let sector = self.sectors.get_mut(lba as usize);
            sector.versions.push(Version::in_flight(op, zero, epoch));
            if !sector.open {
                sector.open = true;
                self.open.push(lba);
            }
        }
        op
    }

    /// The write, write of zeroes or discard was acknowledged.
    pub fn write_ok(&mut self, op: OpId) {
        let (Kind::Write(durability), extent) = self.returned(op) else { panic!("{op:?} is not a write") };
        let now = self.clock;
        self.change_versions(op, extent, |version| {
            version.done_by = version.done_by.min(now);
            version.certain = true;
            version.durable_after = if durability == Durability::Fua { AT_ONCE } else { now };
        });
        for lba in extent.range() {
            self.sectors.get_mut(lba as usize).choice_made = false;
        }
    }

    /// The write failed: it may or may not have happened. `earned` says whether the array may fail a sector.
    pub fn write_failed(
        &mut self,
        op: OpId,
        error: IoError,
        earned: impl Fn(Lba) -> bool,
    ) -> Result<(), Box<Violation>> {
        let (Kind::Write(_), extent) = self.returned(op) else { panic!("{op:?} is not a write") };
        let now = self.clock;
        self.failed.insert(op);
        self.failed_at.push(extent);
        if extent.range().any(|lba| self.landing.contains(&lba)) {
            self.loose.push((op, extent, now));
        } else {
            self.change_versions(op, extent, |version| version.done_by = version.done_by.min(now));
        }
        self.judge_error(op, extent, error, earned)
    }

    fn change_versions(&mut self, op: OpId, extent: Extent, change: impl Fn(&mut Version)) {
        let (reads_since, flushed_before) = (self.reads_since(), self.flushed_before);
        for lba in extent.range() {
            let sector = self.sectors.get_mut(lba as usize);
            let mut versions = sector.versions.iter_mut().chain(&mut sector.past);
            // Absent if it was seen in flight, and overwritten durably.
            if let Some(version) = versions.find(|version| version.write == op.0) {
                change(version);
                sector.forget(reads_since, flushed_before);
            }
        }
    }

    /// A read is submitted.
    pub fn read_invoked(&mut self, extent: Extent) -> OpId {
        self.invoked(Kind::Read, extent)
    }

    /// The read returned `buf`.
    pub fn read_ok(&mut self, op: OpId, buf: &Buf) -> Result<(), Box<Violation>> {
        let (Kind::Read, extent) = self.returned(op) else { panic!("{op:?} is not a read") };
        assert_eq!(buf.len(), extent.length.at_grain(self.grain), "{op:?} over {extent:?} carries another length");
        let copy;
        let bytes = match buf.as_slice() {
            Some(bytes) => bytes,
            None => {
                copy = buf.to_vec();
                &copy
            }
        };
        for (lba, bytes) in extent.range().zip(bytes.chunks_exact(self.grain as usize)) {
            self.judge_value(op, Lba(lba), Value::of(bytes))?;
        }
        Ok(())
    }

    /// The read failed. `earned` says whether the array may fail a sector.
    pub fn read_failed(
        &mut self,
        op: OpId,
        error: IoError,
        earned: impl Fn(Lba) -> bool,
    ) -> Result<(), Box<Violation>> {
        let (Kind::Read, extent) = self.returned(op) else { panic!("{op:?} is not a read") };
        self.judge_error(op, extent, error, earned)
    }

    /// A flush is submitted.
    pub fn flush_invoked(&mut self) -> OpId {
        self.invoked(Kind::Flush, Extent::new(Lba(0), Sectors::ZERO))
    }

    /// The flush was acknowledged.
    pub fn flush_ok(&mut self, op: OpId) {
        let (Kind::Flush, _) = self.returned(op) else { panic!("{op:?} is not a flush") };
        self.flushed_before = self.flushed_before.max(op.0);
        let (reads_since, flushed_before) = (self.reads_since(), self.flushed_before);
        self.close_sectors(|sector| {
            sector.forget(reads_since, flushed_before);
            sector.forget_past(flushed_before);
        });
    }

    /// The flush failed, which proves nothing. `earned` says whether the array may fail a sector.
    pub fn flush_failed(
        &mut self,
        op: OpId,
        error: IoError,
        earned: impl Fn(Lba) -> bool,
    ) -> Result<(), Box<Violation>> {
        let (Kind::Flush, _) = self.returned(op) else { panic!("{op:?} is not a flush") };
        self.judge_error(op, Extent::new(Lba(0), self.capacity), error, earned)
    }

    /// The array stopped without a word: operations in flight never return, and each sector is one
    /// of the versions not known to be overwritten durably.
    pub fn crash(&mut self) {
        self.clock += 1;
        self.crashes += 1;
        self.inflight.clear();
        self.failed_at.clear();
        self.landing.clear();
        self.loose.clear();
        let (now, flushed_before) = (self.clock, self.flushed_before);
        self.close_sectors(|sector| sector.crash(now, flushed_before));
    }

    /// What a read submitted now may return for `lba`.
    pub fn legal(&self, lba: Lba) -> Vec<Value> {
        self.legal_since(lba, self.clock + 1)
    }

    fn legal_since(&self, lba: Lba, begun: u64) -> Vec<Value> {
        let Some(sector) = self.sectors.get(lba.0 as usize) else { return vec![Value::Zero] };
        let mut legal = Vec::new();
        for version in sector.versions.iter().filter(|version| sector.may_return(version, begun, NOT_YET)) {
            let value = version.value(lba);
            if !legal.contains(&value) {
                legal.push(value);
            }
        }
        legal
    }

    fn judge_value(&mut self, op: OpId, lba: Lba, got: Value) -> Result<(), Box<Violation>> {
        if self.excused.contains(&lba.0) {
            return Ok(());
        }
        let Some(sector) = self.sectors.get(lba.0 as usize) else {
            return if got == Value::Zero { Ok(()) } else { Err(self.violation(op, lba, got)) };
        };
        if let [only] = sector.versions[..] {
            return if only.value(lba) == got { Ok(()) } else { Err(self.violation(op, lba, got)) };
        }
        let now = self.clock;
        let is_it = |version: &Version| version.value(lba) == got && sector.may_return(version, op.0, now);
        let mut candidates = (0..sector.versions.len()).filter(|&index| is_it(&sector.versions[index]));
        let Some(index) = candidates.next() else { return Err(self.violation(op, lba, got)) };
        if candidates.next().is_some() {
            return Ok(()); // Zeroes of which write? It is not told, so nothing is learnt.
        }
        let (reads_since, flushed_before) = (self.reads_since(), self.flushed_before);
        let sector = self.sectors.get_mut(lba.0 as usize);
        sector.choice_made |= !sector.versions.iter().any(|version| version.certain);
        let version = &mut sector.versions[index];
        version.certain = true;
        version.done_by = version.done_by.min(now);
        version.current_after = version.current_after.max(op.0);
        sector.forget(reads_since, flushed_before);
        Ok(())
    }

    fn judge_error(
        &self,
        op: OpId,
        extent: Extent,
        error: IoError,
        earned: impl Fn(Lba) -> bool,
    ) -> Result<(), Box<Violation>> {
        let was_lost = |lba| !self.no_error_is_earned && self.lost_at.get(&lba).is_some_and(|at| *at >= op.0);
        if extent.range().any(|lba| earned(Lba(lba)) || was_lost(lba)) {
            return Ok(());
        }
        let (lba, got) = (extent.start, Got::Error(error));
        Err(Box::new(Violation { rule: Rule::ErrorsEarned, lba, op, got, legal: self.legal_since(lba, op.0) }))
    }

    fn violation(&self, op: OpId, lba: Lba, got: Value) -> Box<Violation> {
        let legal = self.legal_since(lba, op.0);
        Box::new(Violation { rule: self.rule_broken(lba, got, &legal), lba, op, got: Got::Value(got), legal })
    }

    /// The rule that says best what is wrong with `got`.
    fn rule_broken(&self, lba: Lba, got: Value, legal: &[Value]) -> Rule {
        match got {
            Value::Garbage => return Rule::NeverGarbage,
            Value::Token(token) if token.lba != lba || token.write > self.clock => return Rule::NeverGarbage,
            Value::Token(token) if self.failed.contains(&OpId(token.write)) => return Rule::NoLateEffect,
            Value::Token(_) | Value::Zero => {}
        }
        let Some(sector) = self.sectors.get(lba.0 as usize) else { return Rule::Register };
        let legal = || sector.versions.iter().filter(|version| legal.contains(&version.value(lba)));
        if legal().all(|version| version.epoch < self.crashes) {
            return if sector.choice_made { Rule::CrashChoice } else { Rule::Flush };
        }
        let zeroed = legal().all(|version| version.zero && version.write != WRITTEN_NEVER);
        if zeroed { Rule::Discard } else { Rule::Register }
    }

    fn invoked(&mut self, kind: Kind, extent: Extent) -> OpId {
        assert!(extent.end().0 <= self.capacity.0, "{extent:?} beyond {:?}", self.capacity);
        self.clock += 1;
        let op = OpId(self.clock);
        self.inflight.insert(op, InFlight { kind, extent });
        op
    }

    fn returned(&mut self, op: OpId) -> (Kind, Extent) {
        let InFlight { kind, extent } = self.inflight.remove(&op).expect("one completion for each operation");
        self.clock += 1;
        (kind, extent)
    }

    /// No read in flight or to come began before this.
    fn reads_since(&self) -> u64 {
        let reads = self.inflight.iter().find(|(_, inflight)| inflight.kind == Kind::Read);
        reads.map_or(self.clock + 1, |(op, _)| op.0)
    }

    fn close_sectors(&mut self, mut change: impl FnMut(&mut Sector)) {
        let sectors = &mut self.sectors;
        self.open.retain(|&lba| {
            let sector = sectors.get_mut(lba as usize);
            change(sector);
            sector.open = sector.versions.len() > 1 || !sector.past.is_empty();
            sector.open
        });
    }
}

impl Sector {
    /// Whether a read from `begun` to `now` may return `version`: no other version must have come
    /// both after it and before the read.
    fn may_return(&self, version: &Version, begun: u64, now: u64) -> bool {
        let done_by = version.done_by.min(now);
        let current_after = version.current_after.max(begun);
        !self.versions.iter().any(|other| {
            let other_first = other.done_by < current_after;
            let other_later = done_by < other.current_after;
            other.write != version.write && other.certain && other_first && other_later
        })
    }

    /// Sorts out the versions that no read can return any more: a crash may bring back some of them.
    fn forget(&mut self, reads_since: u64, flushed_before: u64) {
        if self.versions.len() == 1 {
            return;
        }
        self.infer();
        let mut readable = smallvec![];
        for version in &self.versions {
            if self.may_return(version, reads_since, NOT_YET) {
                readable.push(*version);
            } else if self.may_survive(version, flushed_before) {
                self.past.push(*version);
            }
        }
        assert!(!readable.is_empty(), "{:?} exclude each other", self.versions);
        self.versions = readable;
    }

    /// Drops the past that a flush has put an end to.
    fn forget_past(&mut self, flushed_before: u64) {
        if !self.past.is_empty() {
            let past = self.past.iter().filter(|version| self.may_survive(version, flushed_before));
            self.past = past.copied().collect();
        }
    }

    /// Draws conclusions, so that a version can be dropped and what it proved about others stays: of
    /// two in a known order, the earlier was done by when the later was, and the later was current
    /// after the earlier was.
    fn infer(&mut self) {
        let mut again = true;
        while again {
            again = false;
            for earlier in 0..self.versions.len() {
                for later in 0..self.versions.len() {
                    let (a, b) = (self.versions[earlier], self.versions[later]);
                    if earlier == later || a.done_by >= b.current_after {
                        continue;
                    }
                    if b.certain && b.done_by < a.done_by {
                        self.versions[earlier].done_by = b.done_by;
                        again = true;
                    }
                    if a.certain && a.current_after > b.current_after {
                        self.versions[later].current_after = a.current_after;
                        again = true;
                    }
                }
            }
        }
    }

    /// Whether a crash may leave `version`: it may have happened, and no durable one must have come
    /// after it.
    fn may_survive(&self, version: &Version, flushed_before: u64) -> bool {
        let durable_later = |other: &Version| {
            other.write != version.write
                && other.durable_after < flushed_before
                && version.done_by < other.current_after
        };
        self.may_return(version, version.current_after, NOT_YET)
            && !self.versions.iter().chain(&self.past).any(durable_later)
    }

    fn crash(&mut self, now: u64, flushed_before: u64) {
        let versions = self.past.iter().chain(&self.versions);
        let survivors = versions.filter(|version| self.may_survive(version, flushed_before));
        let mut left: SmallVec<[Version; 1]> = smallvec![];
        for survivor in survivors {
            if !(survivor.zero && left.iter().any(|version| version.zero)) {
                left.push(Version { durable_after: AT_ONCE, ..*survivor });
            }
        }
        // One of them was the sector's value at this moment; which, the first read will tell.
        let certain = left.len() == 1;
        for version in &mut left {
            (version.done_by, version.current_after, version.certain) = (now, now, certain);
        }
        self.choice_made &= certain;
        self.versions = left;
        self.past = Vec::new();
    }
}

impl Default for Sector {
    fn default() -> Sector {
        Sector { versions: smallvec![Version::INITIAL], past: Vec::new(), open: false, choice_made: false }
    }
}

impl Version {
    const INITIAL: Version = Version {
        write: WRITTEN_NEVER,
        zero: true,
        epoch: 0,
        done_by: 0,
        current_after: 0,
        certain: true,
        durable_after: AT_ONCE,
    };

    fn in_flight(op: OpId, zero: bool, epoch: u32) -> Version {
        Version {
            write: op.0,
            zero,
            epoch,
            done_by: NOT_YET,
            current_after: op.0,
            certain: false,
            durable_after: NOT_YET,
        }
    }

    fn value(&self, lba: Lba) -> Value {
        if self.zero { Value::Zero } else { Value::Token(Token { lba, write: self.write, epoch: self.epoch }) }
    }
}

impl Rule {
    /// Its number in reports.
    pub fn id(self) -> &'static str {
        match self {
            Rule::Register => "R1",
            Rule::NeverGarbage => "R2",
            Rule::ErrorsEarned => "R3",
            Rule::Flush => "R4",
            Rule::CrashChoice => "R6",
            Rule::NoLateEffect => "R7",
            Rule::Discard => "R9",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Rule::Register => "register",
            Rule::NeverGarbage => "never garbage",
            Rule::ErrorsEarned => "errors are earned",
            Rule::Flush => "flush",
            Rule::CrashChoice => "crash choice",
            Rule::NoLateEffect => "no late effect",
            Rule::Discard => "discard",
        };
        write!(f, "{} ({name})", self.id())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Zero => f.write_str("zeroes"),
            Value::Garbage => f.write_str("garbage"),
            Value::Token(Token { lba, write, epoch: 0 }) => write!(f, "write {write} of sector {}", lba.0),
            Value::Token(Token { lba, write, epoch }) => {
                write!(f, "write {write} of sector {} after crash {epoch}", lba.0)
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken: operation {} on sector {} returned ", self.rule, self.op.0, self.lba.0)?;
        match self.got {
            Got::Value(value) => write!(f, "{value}")?,
            Got::Error(error) => write!(f, "a {error}")?,
        }
        f.write_str("; legal: ")?;
        for (index, value) in self.legal.iter().enumerate() {
            write!(f, "{}{value}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Rng;

    const ONE: Extent = Extent::new(Lba(0), Sectors(1));

    /// One way things may have gone in a disk with a volatile cache, told plainly.
    #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
    struct Way {
        /// The writes that happened, in order.
        happened: Vec<u64>,
        /// Which of them is the last durable one.
        durable: usize,
        /// Reads in flight, and the write they saw.
        seen: BTreeMap<u64, u64>,
    }

    /// All ways things may have gone: the definition that the oracle abridges.
    struct Ways {
        ways: BTreeSet<Way>,
        writes: BTreeSet<u64>,
        reads: BTreeSet<u64>,
        acked: BTreeMap<u64, u64>,
    }

    impl Ways {
        fn new() -> Ways {
            let way = Way { happened: vec![WRITTEN_NEVER], ..Way::default() };
            let (writes, reads, acked) = Default::default();
            Ways { ways: [way].into(), writes, reads, acked }
        }

        /// Lets writes in flight happen and reads in flight see, in any number and order.
        fn pass_time(&mut self) {
            let mut fresh: Vec<Way> = self.ways.iter().cloned().collect();
            while let Some(way) = fresh.pop() {
                let mut next = Vec::new();
                for &write in self.writes.iter().filter(|write| !way.happened.contains(write)) {
                    let mut later = way.clone();
                    later.happened.push(write);
                    next.push(later);
                }
                for &read in self.reads.iter().filter(|read| !way.seen.contains_key(read)) {
                    let mut later = way.clone();
                    later.seen.insert(read, *way.happened.last().unwrap());
                    next.push(later);
                }
                fresh.extend(next.into_iter().filter(|way| self.ways.insert(way.clone())));
            }
        }

        fn change(&mut self, change: impl Fn(Way) -> Vec<Way>) {
            self.ways = std::mem::take(&mut self.ways).into_iter().flat_map(change).collect();
        }

        fn write_returned(&mut self, op: OpId, now: u64, ok: bool, durability: Durability) {
            self.pass_time();
            if ok {
                self.ways.retain(|way| way.happened.contains(&op.0));
                self.acked.insert(op.0, now);
            }
            self.writes.remove(&op.0);
            if ok && durability == Durability::Fua {
                self.make_durable(&|write| write == op.0);
            }
        }

        fn make_durable(&mut self, which: &dyn Fn(u64) -> bool) {
            self.change(|mut way| {
                let newest = way.happened.iter().rposition(|&write| which(write)).unwrap_or(0);
                way.durable = way.durable.max(newest);
                vec![way]
            });
        }

        fn flushed(&mut self, op: OpId) {
            self.pass_time();
            let acked = self.acked.clone();
            self.make_durable(&|write| acked.get(&write).is_some_and(|&at| at < op.0));
        }

        fn read_returned(&mut self, op: OpId, got: u64) {
            self.pass_time();
            self.ways.retain(|way| way.seen.get(&op.0) == Some(&got));
            self.reads.remove(&op.0);
            self.change(|mut way| {
                way.seen.remove(&op.0);
                vec![way]
            });
        }

        fn crash(&mut self) {
            self.pass_time();
            self.writes.clear();
            self.reads.clear();
            self.change(|way| {
                let left =
                    way.happened[way.durable..].iter().map(|&write| Way { happened: vec![write], ..Way::default() });
                left.collect()
            });
        }
    }

    fn random_history(seed: u64) -> (bool, String) {
        let mut rng = Rng::new(seed, 0);
        let (mut oracle, mut ways) = (Oracle::new(Sectors(1), 64), Ways::new());
        let (mut inflight, mut written) = (Vec::new(), vec![(WRITTEN_NEVER, 0)]);
        let mut told = format!("seed {seed}:");
        for _ in 0..24 {
            if rng.chance(50) && inflight.len() < 4 {
                let durability = if rng.chance(15) { Durability::Fua } else { Durability::Volatile };
                let (op, kind) = match rng.below(10) {
                    0 => (oracle.flush_invoked(), Kind::Flush),
                    1..5 => (oracle.write_invoked(ONE, durability).0, Kind::Write(durability)),
                    _ => (oracle.read_invoked(ONE), Kind::Read),
                };
                ways.pass_time();
                match kind {
                    Kind::Write(_) => {
                        written.push((op.0, oracle.crashes));
                        ways.writes.insert(op.0);
                    }
                    Kind::Read => {
                        ways.reads.insert(op.0);
                    }
                    Kind::Flush => {}
                }
                told += &format!(" {kind:?} {}", op.0);
                inflight.push((op, kind));
            } else if rng.chance(8) {
                told += " crash";
                inflight.clear();
                oracle.crash();
                ways.crash();
            } else if !inflight.is_empty() {
                let (op, kind) = inflight.remove(rng.below(inflight.len() as u64) as usize);
                let ok = rng.chance(85);
                told += &format!(" {kind:?} {} -> {ok}", op.0);
                match kind {
                    Kind::Write(durability) => {
                        if ok {
                            oracle.write_ok(op);
                        } else {
                            oracle.write_failed(op, IoError::Medium, |_| true).unwrap();
                        }
                        ways.write_returned(op, oracle.clock, ok, durability);
                    }
                    Kind::Flush => {
                        oracle.flush_ok(op);
                        ways.flushed(op);
                    }
                    Kind::Read => {
                        let recent = written.len().min(4) as u64;
                        let (write, epoch) = written[written.len() - 1 - rng.below(recent) as usize];
                        told += &format!(" {write}");
                        let mut buf = Buf::zeroed(64);
                        if write != WRITTEN_NEVER {
                            buf.copy_from_payload(&Token::payload(ONE, 64, write, epoch));
                        }
                        let verdict = oracle.read_ok(op, &buf);
                        ways.read_returned(op, write);
                        assert_eq!(verdict.is_ok(), !ways.ways.is_empty(), "{told}: {verdict:?}");
                        if verdict.is_err() {
                            return (false, told);
                        }
                    }
                }
            }
        }
        (true, told)
    }

    /// Random histories of one sector, right and wrong ones: overlapping reads and writes, failed
    /// writes, flushes, crashes.
    #[test]
    fn the_oracle_agrees_with_a_disk_that_tries_every_order() {
        let right = (0..6000).filter(|&seed| random_history(seed).0).count();
        assert!((500..5500).contains(&right), "{right} of 6000 histories were right");
    }
}
