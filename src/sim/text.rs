//! The words of scenario files: operations, moments, acts.

use std::fmt;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

use super::array::PathOrder;
use super::fabrics::{Part, Side};
use super::scenario::{Act, Moment, Target, When};
use super::{CacheLoss, ClientOp};
use crate::block::{Durability, Extent, Lba, Sectors};
use crate::fabric::health::HealthError;
use crate::text::as_string;
use crate::units::Span;

type Read<T> = Result<T, String>;

/// The words of one text, taken one by one.
struct Words<'a> {
    text: &'a str,
    rest: SplitWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Words<'a> {
        Words { text, rest: text.split_whitespace() }
    }

    fn next(&mut self, wanted: &str) -> Read<&'a str> {
        self.rest.next().ok_or_else(|| format!("`{}` ends where {wanted} should follow", self.text))
    }

    fn parsed<T>(&mut self, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Read<T> {
        let word = self.next(wanted)?;
        parse(word).ok_or_else(|| format!("`{word}` in `{}` is not {wanted}", self.text))
    }

    fn number(&mut self, wanted: &str) -> Read<u64> {
        self.parsed(wanted, |word| word.parse().ok())
    }

    fn extent(&mut self) -> Read<Extent> {
        self.parsed("START+LENGTH in sectors", extent)
    }

    fn target(&mut self) -> Read<Target> {
        self.parsed("a disk: disk-N, slot-N, filling, spare or faulty", |word| word.parse().ok())
    }

    fn duration(&mut self) -> Read<Duration> {
        self.parsed("a duration as 30s or 250us", |word| word.parse().ok().map(|Span(time)| time))
    }

    fn times(&mut self) -> Read<u64> {
        self.parsed("a count as x3", times)
    }

    fn side(&mut self) -> Read<Side> {
        self.parsed("volume or members", |word| word.parse().ok())
    }

    fn component(&mut self) -> Read<Act> {
        let side = self.side()?;
        let part =
            self.parsed("a component: hba-N, cable-N, switch-N, port-N or ctrl-N", |word| Part::parse(side, word))?;
        let word = self.next("how it is: up, down, black-hole, stalled, ..")?;
        let health = word.parse().map_err(|error: HealthError| error.to_string())?;
        Ok(Act::Component(part, health))
    }

    fn path(&mut self, order: PathOrder) -> Read<Act> {
        let side = self.side()?;
        Ok(Act::Path(side, order, self.parsed("the number of a path or a group", |word| word.parse().ok())?))
    }

    fn end<T>(mut self, value: T) -> Read<T> {
        match self.rest.next() {
            None => Ok(value),
            Some(word) => Err(format!("`{word}` in `{}` is one word too many", self.text)),
        }
    }
}

fn extent(word: &str) -> Option<Extent> {
    let (start, length) = word.split_once('+')?;
    let (start, length): (u64, u64) = (start.parse().ok()?, length.parse().ok()?);
    start.checked_add(length).map(|_| Extent::new(Lba(start), Sectors(length)))
}

fn times(word: &str) -> Option<u64> {
    word.strip_prefix('x')?.parse().ok().filter(|times| *times > 0)
}

struct ExtentText(Extent);

impl fmt::Display for ExtentText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.0.start.0, self.0.length.0)
    }
}

as_string!(ClientOp, When, Act);

/// `read 0+8`, `write 0+8 [fua]`, `zero 0+8 [fua]`, `discard 0+8`, `flush`.
impl FromStr for ClientOp {
    type Err = String;

    fn from_str(text: &str) -> Read<ClientOp> {
        let mut words = Words::of(text);
        let op = match words.next("an operation")? {
            "flush" => ClientOp::Flush,
            "read" => ClientOp::Read(words.extent()?),
            "discard" => ClientOp::Discard(words.extent()?),
            word @ ("write" | "zero") => {
                let extent = words.extent()?;
                let durability = match words.rest.next() {
                    None => Durability::Volatile,
                    Some("fua") => Durability::Fua,
                    Some(other) => return Err(format!("`{other}` in `{text}` is not `fua`")),
                };
                if word == "write" {
                    ClientOp::Write(extent, durability)
                } else {
                    ClientOp::WriteZeroes(extent, durability)
                }
            }
            word => {
                return Err(format!("`{word}` in `{text}` is no operation: read, write, zero, discard or flush"));
            }
        };
        words.end(op)
    }
}

impl fmt::Display for ClientOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fua = |durability| if durability == Durability::Fua { " fua" } else { "" };
        match *self {
            ClientOp::Read(extent) => write!(f, "read {}", ExtentText(extent)),
            ClientOp::Write(extent, durability) => write!(f, "write {}{}", ExtentText(extent), fua(durability)),
            ClientOp::WriteZeroes(extent, durability) => write!(f, "zero {}{}", ExtentText(extent), fua(durability)),
            ClientOp::Discard(extent) => write!(f, "discard {}", ExtentText(extent)),
            ClientOp::Flush => f.write_str("flush"),
        }
    }
}

const MOMENTS: [(Moment, &str); 8] = [
    (Moment::Gate, "gate"),
    (Moment::Lock, "lock"),
    (Moment::Reading, "reading"),
    (Moment::Writing, "writing"),
    (Moment::Verifying, "verifying"),
    (Moment::Recording, "recording"),
    (Moment::Metadata, "metadata"),
    (Moment::Flush, "flush"),
];

impl Moment {
    /// Every moment.
    pub const ALL: [Moment; 8] = [
        Moment::Gate,
        Moment::Lock,
        Moment::Reading,
        Moment::Writing,
        Moment::Verifying,
        Moment::Recording,
        Moment::Metadata,
        Moment::Flush,
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        MOMENTS.iter().find(|(moment, _)| *moment == self).expect("every moment has a word").1
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Read<When> {
        let mut words = Words::of(text);
        let when = match words.next("a moment")? {
            "op" => When::Op(words.number("a number of operations")? as usize),
            "answered" => When::Answered(words.number("a number of operations")? as usize),
            "time" => When::Time(words.duration()?),
            "io" => When::Io(words.target()?, words.number("a number of requests")?),
            "recovery" => When::Recovery(words.parsed("a share as 37%", |word| {
                word.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 100)
            })?),
            "phase" => {
                let moment = words.parsed("a phase", |word| {
                    MOMENTS.iter().find(|(_, name)| *name == word).map(|(moment, _)| *moment)
                });
                let all = MOMENTS.map(|(_, name)| name).join(", ");
                When::Phase(moment.map_err(|error| format!("{error}: {all}"))?, words.number("a count")?)
            }
            "event" => When::Event(words.number("a number of events")?),
            "off" => When::Off(step_id(&mut words)?),
            count if count.parse::<u64>().is_ok() => {
                let events = count.parse().expect("it was just parsed");
                words.parsed("the word `events`", |word| matches!(word, "event" | "events").then_some(()))?;
                words.parsed("the word `after`", |word| (word == "after").then_some(()))?;
                When::After(events, step_id(&mut words)?)
            }
            word => {
                return Err(format!(
                    "`{word}` in `{text}` is no moment: op N, answered N, time T, io DISK N, recovery P%, phase NAME N, event N, N events after STEP, off STEP"
                ));
            }
        };
        words.end(when)
    }
}

fn step_id(words: &mut Words<'_>) -> Read<u32> {
    words.parsed("the id of a step", |word| word.parse().ok())
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            When::Op(count) => write!(f, "op {count}"),
            When::Answered(count) => write!(f, "answered {count}"),
            When::Time(time) => write!(f, "time {}", Span(time)),
            When::Io(target, count) => write!(f, "io {target} {count}"),
            When::Recovery(percent) => write!(f, "recovery {percent}%"),
            When::Phase(moment, count) => write!(f, "phase {} {count}", moment.name()),
            When::Event(count) => write!(f, "event {count}"),
            When::After(events, step) => write!(f, "{events} events after {step}"),
            When::Off(step) => write!(f, "off {step}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(word: &str) -> Read<Target> {
        let numbered = |prefix| word.strip_prefix(prefix).and_then(|number: &str| number.parse::<u8>().ok());
        match word {
            "filling" => Ok(Target::Filling),
            "spare" => Ok(Target::Spare),
            "faulty" => Ok(Target::Faulty),
            _ => numbered("disk-")
                .map(|number| Target::Disk(number.into()))
                .or_else(|| numbered("slot-").map(Target::Slot))
                .ok_or_else(|| format!("`{word}` is no disk")),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Disk(number) => write!(f, "disk-{number}"),
            Target::Slot(number) => write!(f, "slot-{number}"),
            Target::Filling => f.write_str("filling"),
            Target::Spare => f.write_str("spare"),
            Target::Faulty => f.write_str("faulty"),
        }
    }
}

const ACTS: &str = "fail, remove, re-add, add, replace, check, repair, freeze, thaw, rest, restart, power-cut, stop, \
    return, unreadable, fault, hang, slow, lose-flush, fill, mend, snapshot, restore, swap, duplicate, split, rot-superblock, \
    component, fail-path, reinstate-path, switch-group";

impl FromStr for Act {
    type Err = String;

    fn from_str(text: &str) -> Read<Act> {
        let mut words = Words::of(text);
        let act = match words.next("an act")? {
            "fail" => Act::Fail(words.target()?),
            "remove" => Act::Remove(words.target()?),
            "re-add" => Act::ReAdd(words.target()?),
            "add" => Act::Add,
            "replace" => Act::Replace(words.target()?),
            "check" => Act::Check,
            "repair" => match words.rest.next() {
                None => Act::Repair { trust_data: false },
                Some("trust-data") => Act::Repair { trust_data: true },
                Some(other) => return Err(format!("`{other}` in `{text}` is not `trust-data`")),
            },
            "freeze" => Act::Freeze,
            "thaw" => Act::Thaw,
            "rest" => Act::Rest,
            "restart" => Act::Restart,
            "power-cut" => Act::PowerCut(words.parsed(LOSS_WANTED, loss_of)?),
            "stop" => Act::Stop(words.target()?),
            "return" => Act::Return(words.target()?),
            "unreadable" => Act::Unreadable(words.target()?, words.extent()?),
            "fault" => {
                let target = words.target()?;
                let kind = words.next("a kind of fault")?.parse().map_err(|error| format!("{error}"))?;
                let (mut range, mut strikes) = (None, None);
                for word in words.rest.by_ref() {
                    match (extent(word), times(word)) {
                        (Some(extent), _) if range.is_none() => range = Some(extent),
                        (_, Some(times)) if strikes.is_none() => strikes = Some(times),
                        _ => return Err(format!("`{word}` in `{text}` is neither START+LENGTH nor a count as x3")),
                    }
                }
                Act::Fault(target, kind, range, strikes)
            }
            "hang" => Act::Hang(words.target()?, words.duration()?),
            "slow" => Act::Slow(words.target()?, u32::try_from(words.times()?).map_err(|error| error.to_string())?),
            "lose-flush" => Act::LoseFlush(words.target()?, words.times()?),
            "fill" => Act::Fill(words.target()?),
            "mend" => Act::Mend,
            "snapshot" => Act::Snapshot(words.target()?),
            "restore" => Act::Restore(words.target()?),
            "swap" => Act::Swap(words.target()?, words.target()?),
            "duplicate" => Act::Duplicate(words.target()?),
            "split" => Act::Split(words.target()?),
            "rot-superblock" => Act::RotSuperblock(words.target()?),
            "component" => words.component()?,
            "fail-path" => words.path(PathOrder::Fail)?,
            "reinstate-path" => words.path(PathOrder::Reinstate)?,
            "switch-group" => words.path(PathOrder::SwitchGroup)?,
            word => return Err(format!("`{word}` in `{text}` is no act: {ACTS}")),
        };
        words.end(act)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Act::Fail(target) => write!(f, "fail {target}"),
            Act::Remove(target) => write!(f, "remove {target}"),
            Act::ReAdd(target) => write!(f, "re-add {target}"),
            Act::Add => f.write_str("add"),
            Act::Replace(target) => write!(f, "replace {target}"),
            Act::Check => f.write_str("check"),
            Act::Repair { trust_data: false } => f.write_str("repair"),
            Act::Repair { trust_data: true } => f.write_str("repair trust-data"),
            Act::Freeze => f.write_str("freeze"),
            Act::Thaw => f.write_str("thaw"),
            Act::Rest => f.write_str("rest"),
            Act::Restart => f.write_str("restart"),
            Act::PowerCut(loss) => write!(f, "power-cut {}", loss_name(loss)),
            Act::Stop(target) => write!(f, "stop {target}"),
            Act::Return(target) => write!(f, "return {target}"),
            Act::Unreadable(target, extent) => write!(f, "unreadable {target} {}", ExtentText(extent)),
            Act::Fault(target, kind, range, strikes) => {
                write!(f, "fault {target} {kind}")?;
                range.map_or(Ok(()), |range| write!(f, " {}", ExtentText(range)))?;
                strikes.map_or(Ok(()), |strikes| write!(f, " x{strikes}"))
            }
            Act::Hang(target, time) => write!(f, "hang {target} {}", Span(time)),
            Act::Slow(target, factor) => write!(f, "slow {target} x{factor}"),
            Act::LoseFlush(target, count) => write!(f, "lose-flush {target} x{count}"),
            Act::Fill(target) => write!(f, "fill {target}"),
            Act::Mend => f.write_str("mend"),
            Act::Snapshot(target) => write!(f, "snapshot {target}"),
            Act::Restore(target) => write!(f, "restore {target}"),
            Act::Swap(one, other) => write!(f, "swap {one} {other}"),
            Act::Duplicate(target) => write!(f, "duplicate {target}"),
            Act::Split(target) => write!(f, "split {target}"),
            Act::RotSuperblock(target) => write!(f, "rot-superblock {target}"),
            Act::Component(part, health) => write!(f, "component {part} {health}"),
            Act::Path(side, order, number) => {
                let order = match order {
                    PathOrder::Fail => "fail-path",
                    PathOrder::Reinstate => "reinstate-path",
                    PathOrder::SwitchGroup => "switch-group",
                };
                write!(f, "{order} {side} {number}")
            }
        }
    }
}

const LOSSES: [(CacheLoss, &str); 5] = [
    (CacheLoss::PerBlock, "per-block"),
    (CacheLoss::PerSector, "per-sector"),
    (CacheLoss::PerDisk, "per-disk"),
    (CacheLoss::DropAll, "drop-all"),
    (CacheLoss::KeepAll, "keep-all"),
];
const LOSS_WANTED: &str = "what becomes of caches: per-sector, per-block, per-disk, drop-all or keep-all";

fn loss_of(word: &str) -> Option<CacheLoss> {
    LOSSES.iter().find(|(_, name)| *name == word).map(|(loss, _)| *loss)
}

fn loss_name(loss: CacheLoss) -> &'static str {
    LOSSES.iter().find(|(other, _)| *other == loss).expect("every loss has a word").1
}

/// A [`CacheLoss`] in a file.
pub(super) mod loss {
    use super::{CacheLoss, LOSS_WANTED, loss_name, loss_of};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
    pub fn serialize<S: Serializer>(loss: &CacheLoss, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(loss_name(*loss))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CacheLoss, D::Error> {
        let word = String::deserialize(deserializer)?;
        loss_of(&word).ok_or_else(|| D::Error::custom(format!("`{word}` is not {LOSS_WANTED}")))
    }
}
