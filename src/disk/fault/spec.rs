//! What can be wrong with a disk, as plain data: for `lab.toml`, the command line and tests.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::block::{Extent, Lba, Limits, SECTOR_BYTES, Sectors};

/// One fault: what, where, from when, how often.
///
/// Its text is what follows `fault LAB DISK add` on the command line:
/// `KIND[=ARGS] [--range A..B] [--after T | --at-io N] [--times N]`, ranges in bytes from the start
/// of the device. In `lab.toml` the same words are keys: `kind`, `range`, `after`, `at_io`, `times`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "FaultText", into = "FaultText")]
pub struct FaultSpec {
    /// What is wrong.
    pub kind: FaultKind,
    /// The sectors that have it; the whole device if none are named.
    pub range: Option<Extent>,
    /// From when.
    pub trigger: Trigger,
    /// How many requests it strikes before it is spent; without limit if none is given.
    pub times: Option<u64>,
}

/// From when a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// As soon as it is armed.
    Armed,
    /// This long after it was armed.
    After(Duration),
    /// From this request of the device on, counted from 1 when it was armed; flushes count.
    AtIo(u64),
}

/// What is wrong with a device. "Write" means a write, a write of zeroes or a discard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// `latency=DURATION`: every completion comes this much later.
    Latency(Duration),
    /// `medium[=sticky]`: reads fail with a medium error. A write mends the sectors it stores, as
    /// dm-dust's does, unless the fault is sticky.
    Medium {
        /// Writes do not mend it.
        sticky: bool,
    },
    /// `write-medium`: writes fail with a medium error and store nothing.
    WriteMedium,
    /// `transient=K`: K reads or writes fail with a medium error, later ones succeed.
    Transient(u64),
    /// `torn=K`: a write longer than K sectors stores its first K and fails with a medium error. K is
    /// rounded down to the logical block.
    Torn(Sectors),
    /// `torn-silent=K`: as `torn`, but the write is said to have succeeded.
    TornSilent(Sectors),
    /// `lost`: writes succeed and store nothing.
    Lost,
    /// `misdirected=D`: writes land D sectors further on (before, if negative) and succeed. One that
    /// would land outside the device is lost.
    Misdirected(i64),
    /// `misdirected-read=D`: reads return what lies D sectors further on (before, if negative) and
    /// succeed. One that would reach outside the device is not misdirected.
    MisdirectedRead(i64),
    /// `corrupt-write[=BITS][,seed=N]`: a write's bytes change on their way down, as when memory flips
    /// between what was computed and what is handed to the disk. A run of BITS bits is flipped in one
    /// of the write's sectors in the range; sector and place follow from the seed, the address and how
    /// often it has struck. The write succeeds, and what is stored is wrong for good: nothing mends it
    /// but another write. A write of zeroes and a discard carry no bytes.
    CorruptWrite {
        /// Bits flipped in each write; 1 if not said.
        bits: u32,
        /// Chooses sector and place; 0 if not said.
        seed: u64,
    },
    /// `bitflip[=BITS][,seed=N][,sticky]`: the sectors have rotted. Reads succeed with a run of BITS
    /// bits flipped in each sector, always the same ones: their place follows from the seed and the
    /// address. A write mends the sectors it stores unless the fault is sticky (a stuck bit on the
    /// way). The bytes below stay as they are: a disarmed fault leaves no trace.
    Bitflip {
        /// Bits flipped in each sector; 1 if not said.
        bits: u32,
        /// Chooses their place; 0 if not said.
        seed: u64,
        /// Writes do not mend it.
        sticky: bool,
    },
    /// `fail-stop`: from its first strike every request fails, the device is offline. A range only
    /// says where the fatal touch must be.
    FailStop,
    /// `flush-lie`: flushes succeed and are not passed down; writes that must be durable are passed
    /// down as volatile ones.
    FlushLie,
    /// `flush-fail`: flushes, and writes that must be durable, fail with a medium error and are not
    /// passed down. What was written before stays where it is: in a cache, perhaps.
    FlushFail,
    /// `no-space`: writes and writes of zeroes fail for lack of space and store nothing. A discard
    /// needs none.
    NoSpace,
    /// `hang[=DURATION]`: requests are carried out and their completions withheld, for ever or until
    /// DURATION after the first strike, when all come at once.
    Hang(Option<Duration>),
    /// `read-only`: writes fail, the device takes none any more.
    ReadOnly,
}

/// Every kind with its arguments, as messages list them.
pub const FAULT_KINDS: [&str; 17] = [
    "latency=DURATION",
    "medium[=sticky]",
    "write-medium",
    "transient=K",
    "torn=K",
    "torn-silent=K",
    "lost",
    "misdirected=D",
    "misdirected-read=D",
    "bitflip[=BITS][,seed=N][,sticky]",
    "corrupt-write[=BITS][,seed=N]",
    "fail-stop",
    "flush-lie",
    "flush-fail",
    "no-space",
    "hang[=DURATION]",
    "read-only",
];

/// Why a text is not a fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FaultTextError {
    /// Nothing was said.
    #[error("no fault named; the kinds are: {}", FAULT_KINDS.join(", "))]
    Empty,
    /// The first word names no kind.
    #[error("no fault kind is called `{word}`; the kinds are: {}", FAULT_KINDS.join(", "))]
    UnknownKind {
        /// The word.
        word: String,
    },
    /// The kind needs an argument.
    #[error("`{kind}` wants an argument: {usage}")]
    MissingArgument {
        /// The kind.
        kind: &'static str,
        /// How it is written.
        usage: &'static str,
    },
    /// An argument is none of this kind's.
    #[error("`{word}` is no argument of `{kind}`: {usage}")]
    BadArgument {
        /// The kind.
        kind: &'static str,
        /// The word.
        word: String,
        /// How it is written.
        usage: &'static str,
    },
    /// A word where an option was expected.
    #[error("`{word}` is no option of a fault: --range A..B, --after T, --at-io N, --times N")]
    UnknownOption {
        /// The word.
        word: String,
    },
    /// An option's value is not one.
    #[error("`{word}` is no value for {option}: {usage}")]
    BadValue {
        /// The option.
        option: &'static str,
        /// The word.
        word: String,
        /// How it is written.
        usage: &'static str,
    },
    /// Two triggers.
    #[error("a fault begins either after a time or at an I/O, not both")]
    TwoTriggers,
}

/// Why a fault cannot be armed on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FaultMisfit {
    /// The range ends beyond the device.
    #[error("the range ends at byte {end_bytes}, the device at byte {capacity_bytes}")]
    BeyondTheEnd {
        /// End of the range in bytes.
        end_bytes: u64,
        /// Size of the device in bytes.
        capacity_bytes: u64,
    },
    /// The misdirection is not a multiple of the logical block.
    #[error("nothing is misdirected by {distance} sectors on a device of {logical_block}-sector blocks")]
    Misaligned {
        /// Sectors away.
        distance: i64,
        /// The device's logical block in sectors.
        logical_block: u64,
    },
    /// More bits than a sector has.
    #[error("{bits} flipped bits do not fit the {sector_bits} bits of a sector")]
    TooManyBits {
        /// Bits to flip.
        bits: u32,
        /// Bits in a sector's buffer.
        sector_bits: u32,
    },
    /// A flush has no address.
    #[error("`{kind}` takes no range: a flush has no address")]
    FlushWithRange {
        /// The kind.
        kind: &'static str,
    },
    /// `transient=K` says itself how often.
    #[error("`transient=K` says itself how often it strikes, and takes no count besides")]
    CountedTwice,
}

impl FaultSpec {
    /// `kind` on the whole device, from the moment it is armed, without limit.
    pub const fn new(kind: FaultKind) -> FaultSpec {
        FaultSpec { kind, range: None, trigger: Trigger::Armed, times: None }
    }

    /// The same on these sectors only.
    pub const fn range(self, range: Extent) -> FaultSpec {
        FaultSpec { range: Some(range), ..self }
    }

    /// The same from this moment on.
    pub const fn trigger(self, trigger: Trigger) -> FaultSpec {
        FaultSpec { trigger, ..self }
    }

    /// The same for so many requests.
    pub const fn times(self, times: u64) -> FaultSpec {
        FaultSpec { times: Some(times), ..self }
    }

    /// Whether a device of these limits can have this fault.
    pub fn check(&self, limits: &Limits) -> Result<(), FaultMisfit> {
        if let Some(range) = self.range
            && range.end().0 > limits.capacity.0
        {
            let (end_bytes, capacity_bytes) = (range.end().bytes(), limits.capacity.bytes());
            return Err(FaultMisfit::BeyondTheEnd { end_bytes, capacity_bytes });
        }
        let logical_block = limits.logical_block.0;
        let sector_bits = limits.grain * 8;
        match self.kind {
            FaultKind::Misdirected(distance) | FaultKind::MisdirectedRead(distance)
                if !distance.unsigned_abs().is_multiple_of(logical_block) =>
            {
                Err(FaultMisfit::Misaligned { distance, logical_block })
            }
            FaultKind::Bitflip { bits, .. } | FaultKind::CorruptWrite { bits, .. } if bits > sector_bits => {
                Err(FaultMisfit::TooManyBits { bits, sector_bits })
            }
            FaultKind::FlushLie | FaultKind::FlushFail if self.range.is_some() => {
                Err(FaultMisfit::FlushWithRange { kind: self.kind.name() })
            }
            FaultKind::Transient(_) if self.times.is_some() => Err(FaultMisfit::CountedTwice),
            _ => Ok(()),
        }
    }
}

impl From<FaultKind> for FaultSpec {
    fn from(kind: FaultKind) -> FaultSpec {
        FaultSpec::new(kind)
    }
}

impl FaultKind {
    /// The kind's word, without arguments.
    pub const fn name(&self) -> &'static str {
        match self {
            FaultKind::Latency(_) => "latency",
            FaultKind::Medium { .. } => "medium",
            FaultKind::WriteMedium => "write-medium",
            FaultKind::Transient(_) => "transient",
            FaultKind::Torn(_) => "torn",
            FaultKind::TornSilent(_) => "torn-silent",
            FaultKind::Lost => "lost",
            FaultKind::Misdirected(_) => "misdirected",
            FaultKind::MisdirectedRead(_) => "misdirected-read",
            FaultKind::CorruptWrite { .. } => "corrupt-write",
            FaultKind::Bitflip { .. } => "bitflip",
            FaultKind::FailStop => "fail-stop",
            FaultKind::FlushLie => "flush-lie",
            FaultKind::FlushFail => "flush-fail",
            FaultKind::NoSpace => "no-space",
            FaultKind::Hang(_) => "hang",
            FaultKind::ReadOnly => "read-only",
        }
    }

    /// Whether requests may fail for it, so that everybody can see that something is wrong.
    pub const fn is_error(&self) -> bool {
        match self {
            FaultKind::Medium { .. }
            | FaultKind::WriteMedium
            | FaultKind::Transient(_)
            | FaultKind::Torn(_)
            | FaultKind::FailStop
            | FaultKind::Hang(_)
            | FaultKind::FlushFail
            | FaultKind::NoSpace
            | FaultKind::ReadOnly => true,
            FaultKind::Latency(_)
            | FaultKind::TornSilent(_)
            | FaultKind::Lost
            | FaultKind::Misdirected(_)
            | FaultKind::MisdirectedRead(_)
            | FaultKind::Bitflip { .. }
            | FaultKind::CorruptWrite { .. }
            | FaultKind::FlushLie => false,
        }
    }

    /// Whether bytes are wrong and nobody is told.
    pub const fn is_silent(&self) -> bool {
        !self.is_error() && !matches!(self, FaultKind::Latency(_) | FaultKind::FlushLie)
    }

    /// Whether it can be kept to a range: a flush has no address.
    pub const fn takes_range(&self) -> bool {
        !matches!(self, FaultKind::FlushLie | FaultKind::FlushFail)
    }

    /// Whether what one write stores is mended.
    pub(super) const fn is_mended_by_writes(&self) -> bool {
        matches!(self, FaultKind::Medium { sticky: false } | FaultKind::Bitflip { sticky: false, .. })
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match *self {
            FaultKind::Latency(duration) | FaultKind::Hang(Some(duration)) => {
                write!(f, "={}", DurationText(duration))
            }
            FaultKind::Medium { sticky: true } => f.write_str("=sticky"),
            FaultKind::Transient(count) => write!(f, "={count}"),
            FaultKind::Torn(kept) | FaultKind::TornSilent(kept) => write!(f, "={}", kept.0),
            FaultKind::Misdirected(distance) | FaultKind::MisdirectedRead(distance) => write!(f, "={distance}"),
            FaultKind::Bitflip { bits, seed, sticky } => {
                write!(f, "={bits},seed={seed}{}", if sticky { ",sticky" } else { "" })
            }
            FaultKind::CorruptWrite { bits, seed } => write!(f, "={bits},seed={seed}"),
            FaultKind::Medium { sticky: false }
            | FaultKind::WriteMedium
            | FaultKind::Lost
            | FaultKind::FailStop
            | FaultKind::FlushLie
            | FaultKind::FlushFail
            | FaultKind::NoSpace
            | FaultKind::Hang(None)
            | FaultKind::ReadOnly => Ok(()),
        }
    }
}

impl FromStr for FaultKind {
    type Err = FaultTextError;

    fn from_str(text: &str) -> Result<FaultKind, FaultTextError> {
        let (word, args) = match text.split_once('=') {
            Some((word, args)) => (word, Some(args)),
            None => (text, None),
        };
        let usage = FAULT_KINDS
            .into_iter()
            .find(|usage| usage.split(['=', '[']).next() == Some(word))
            .ok_or_else(|| FaultTextError::UnknownKind { word: word.to_owned() })?;
        let kind = usage.split(['=', '[']).next().expect("a split has a first part");
        let bad = |word: &str| FaultTextError::BadArgument { kind, word: word.to_owned(), usage };
        let wanted = || args.ok_or(FaultTextError::MissingArgument { kind, usage });
        match kind {
            "latency" => Ok(FaultKind::Latency(duration(wanted()?).ok_or_else(|| bad(wanted().unwrap_or("")))?)),
            "transient" => number(wanted()?).map(FaultKind::Transient).map_err(|word| bad(&word)),
            "torn" => number(wanted()?).map(|kept| FaultKind::Torn(Sectors(kept))).map_err(|word| bad(&word)),
            "torn-silent" => {
                number(wanted()?).map(|kept| FaultKind::TornSilent(Sectors(kept))).map_err(|word| bad(&word))
            }
            "misdirected" => distance(wanted()?).map(FaultKind::Misdirected).map_err(|word| bad(&word)),
            "misdirected-read" => distance(wanted()?).map(FaultKind::MisdirectedRead).map_err(|word| bad(&word)),
            "hang" => match args {
                None => Ok(FaultKind::Hang(None)),
                Some(word) => Ok(FaultKind::Hang(Some(duration(word).ok_or_else(|| bad(word))?))),
            },
            "medium" => match args {
                None => Ok(FaultKind::Medium { sticky: false }),
                Some("sticky") => Ok(FaultKind::Medium { sticky: true }),
                Some(word) => Err(bad(word)),
            },
            "bitflip" => {
                let BitWords { bits, seed, sticky } = bit_words(args).map_err(|word| bad(&word))?;
                Ok(FaultKind::Bitflip { bits, seed, sticky })
            }
            "corrupt-write" => match bit_words(args).map_err(|word| bad(&word))? {
                BitWords { sticky: true, .. } => Err(bad("sticky")),
                BitWords { bits, seed, sticky: false } => Ok(FaultKind::CorruptWrite { bits, seed }),
            },
            _ => match (kind, args) {
                (_, Some(word)) => Err(bad(word)),
                ("write-medium", None) => Ok(FaultKind::WriteMedium),
                ("lost", None) => Ok(FaultKind::Lost),
                ("fail-stop", None) => Ok(FaultKind::FailStop),
                ("flush-lie", None) => Ok(FaultKind::FlushLie),
                ("flush-fail", None) => Ok(FaultKind::FlushFail),
                ("no-space", None) => Ok(FaultKind::NoSpace),
                ("read-only", None) => Ok(FaultKind::ReadOnly),
                (other, None) => unreachable!("`{other}` is listed but not parsed"),
            },
        }
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| word.to_owned())
}

fn distance(word: &str) -> Result<i64, String> {
    word.parse().ok().filter(|distance| *distance != 0).ok_or_else(|| word.to_owned())
}

/// `[BITS][,seed=N][,sticky]`
struct BitWords {
    bits: u32,
    seed: u64,
    sticky: bool,
}

fn bit_words(args: Option<&str>) -> Result<BitWords, String> {
    let (mut bits, mut seed, mut sticky) = (1, 0, false);
    for word in args.into_iter().flat_map(|args| args.split(',')) {
        if word == "sticky" {
            sticky = true;
        } else if let Some(value) = word.strip_prefix("seed=") {
            seed = number(value).map_err(|_| word.to_owned())?;
        } else {
            bits = word.parse().ok().filter(|bits| *bits > 0).ok_or_else(|| word.to_owned())?;
        }
    }
    Ok(BitWords { bits, seed, sticky })
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(range) = self.range {
            write!(f, " --range {}", RangeText(range))?;
        }
        match self.trigger {
            Trigger::Armed => {}
            Trigger::After(duration) => write!(f, " --after {}", DurationText(duration))?,
            Trigger::AtIo(count) => write!(f, " --at-io {count}")?,
        }
        self.times.map_or(Ok(()), |times| write!(f, " --times {times}"))
    }
}

impl FromStr for FaultSpec {
    type Err = FaultTextError;

    fn from_str(text: &str) -> Result<FaultSpec, FaultTextError> {
        let mut words = text.split_whitespace();
        let mut parts = FaultText { kind: words.next().unwrap_or("").to_owned(), ..FaultText::default() };
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option, value),
                None => (word, words.next().unwrap_or("")),
            };
            match option {
                "--range" => parts.range = Some(value.to_owned()),
                "--after" => parts.after = Some(value.to_owned()),
                "--at-io" => parts.at_io = Some(counted("--at-io", value)?),
                "--times" => parts.times = Some(counted("--times", value)?),
                _ => return Err(FaultTextError::UnknownOption { word: word.to_owned() }),
            }
        }
        parts.try_into()
    }
}

fn counted(option: &'static str, word: &str) -> Result<u64, FaultTextError> {
    number(word).map_err(|word| FaultTextError::BadValue { option, word, usage: "a number from 1" })
}

/// A fault in `lab.toml`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultText {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_io: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
}

impl From<FaultSpec> for FaultText {
    fn from(spec: FaultSpec) -> FaultText {
        let (after, at_io) = match spec.trigger {
            Trigger::Armed => (None, None),
            Trigger::After(duration) => (Some(DurationText(duration).to_string()), None),
            Trigger::AtIo(count) => (None, Some(count)),
        };
        FaultText {
            kind: spec.kind.to_string(),
            range: spec.range.map(|range| RangeText(range).to_string()),
            after,
            at_io,
            times: spec.times,
        }
    }
}

impl TryFrom<FaultText> for FaultSpec {
    type Error = FaultTextError;

    fn try_from(text: FaultText) -> Result<FaultSpec, FaultTextError> {
        if text.kind.is_empty() {
            return Err(FaultTextError::Empty);
        }
        let bad = |option, word: &str, usage| FaultTextError::BadValue { option, word: word.to_owned(), usage };
        let range = match &text.range {
            None => None,
            Some(word) => Some(
                byte_range(word).ok_or_else(|| bad("--range", word, "A..B, in bytes, both multiples of 512, A < B"))?,
            ),
        };
        for (option, count) in [("--at-io", text.at_io), ("--times", text.times)] {
            if count == Some(0) {
                return Err(bad(option, "0", "a number from 1"));
            }
        }
        let trigger = match (&text.after, text.at_io) {
            (None, None) => Trigger::Armed,
            (Some(word), None) => {
                Trigger::After(duration(word).ok_or_else(|| bad("--after", word, "a duration as 30s or 250ms"))?)
            }
            (None, Some(count)) => Trigger::AtIo(count),
            (Some(_), Some(_)) => return Err(FaultTextError::TwoTriggers),
        };
        Ok(FaultSpec { kind: text.kind.parse()?, range, trigger, times: text.times })
    }
}

const SIZES: [(&str, u64); 13] = [
    ("", 1),
    ("K", 1 << 10),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("T", 1 << 40),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
];

const DURATIONS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A whole number and its unit.
fn scaled(word: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (count, unit) = word.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    count.parse::<u64>().ok()?.checked_mul(*scale)
}

pub(crate) fn duration(word: &str) -> Option<Duration> {
    scaled(word, &DURATIONS).map(Duration::from_nanos)
}

fn byte_range(word: &str) -> Option<Extent> {
    let (start, end) = word.split_once("..")?;
    let (start, end) = (scaled(start, &SIZES)?, scaled(end, &SIZES)?);
    let whole = start.is_multiple_of(SECTOR_BYTES) && end.is_multiple_of(SECTOR_BYTES);
    (whole && start < end).then(|| Extent::new(Lba(start / SECTOR_BYTES), Sectors::floor_bytes(end - start)))
}

pub(crate) struct DurationText(pub(crate) Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        let largest = DURATIONS[..4].iter().rev().find(|(_, scale)| nanoseconds.is_multiple_of(*scale));
        let (unit, scale) = largest.expect("every duration is whole nanoseconds");
        write!(f, "{}{unit}", nanoseconds / scale)
    }
}

struct RangeText(Extent);

impl fmt::Display for RangeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", SizeText(self.0.start.bytes()), SizeText(self.0.end().bytes()))
    }
}

struct SizeText(u64);

impl fmt::Display for SizeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = [("T", 1_u64 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("", 1)];
        let largest = binary.iter().find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale));
        let (unit, scale) = largest.unwrap_or(&("", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_kind_is_parsed_and_says_what_it_was_parsed_from() {
        for (text, back) in [
            ("latency=250ms", "latency=250ms"),
            ("latency=1500us", "latency=1500us"),
            ("latency=2m", "latency=120s"),
            ("medium", "medium"),
            ("medium=sticky", "medium=sticky"),
            ("write-medium", "write-medium"),
            ("transient=3", "transient=3"),
            ("torn=5", "torn=5"),
            ("torn-silent=0", "torn-silent=0"),
            ("lost", "lost"),
            ("misdirected=-8", "misdirected=-8"),
            ("misdirected-read=16", "misdirected-read=16"),
            ("bitflip", "bitflip=1,seed=0"),
            ("bitflip=3,seed=7,sticky", "bitflip=3,seed=7,sticky"),
            ("corrupt-write", "corrupt-write=1,seed=0"),
            ("corrupt-write=4,seed=9", "corrupt-write=4,seed=9"),
            ("fail-stop", "fail-stop"),
            ("flush-lie", "flush-lie"),
            ("flush-fail", "flush-fail"),
            ("no-space", "no-space"),
            ("hang", "hang"),
            ("hang=30s", "hang=30s"),
            ("read-only", "read-only"),
        ] {
            let kind: FaultKind = text.parse().unwrap();
            assert_eq!(kind.to_string(), back);
            assert_eq!(back.parse(), Ok(kind));
        }
        for usage in FAULT_KINDS {
            let kind = usage.split('[').next().unwrap();
            let kind = kind.replace("DURATION", "1s").replace("=K", "=1").replace("=D", "=1");
            assert!(kind.parse::<FaultKind>().is_ok(), "{usage}");
        }
    }

    #[test]
    fn a_whole_fault_is_the_same_in_text_and_in_toml() {
        for text in [
            "medium --range 64K..1M --after 30s --times 2",
            "lost --at-io 17",
            "fail-stop --range 0..512",
            "latency=1s",
        ] {
            let spec: FaultSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let toml = toml::to_string(&spec).unwrap();
            assert_eq!(toml::from_str::<FaultSpec>(&toml).unwrap(), spec, "{toml}");
        }
        let spec: FaultSpec = toml::from_str("kind = 'torn=4'\nrange = '64kB..128KiB'\nat_io = 2").unwrap();
        let range = Extent::new(Lba(125), Sectors(256 - 125));
        let expected = FaultSpec::new(FaultKind::Torn(Sectors(4))).range(range).trigger(Trigger::AtIo(2));
        assert_eq!(spec, expected);
    }

    #[test]
    fn a_bad_word_is_named_with_what_would_do() {
        for (text, expected) in [
            ("mediun", "no fault kind is called `mediun`; the kinds are: latency=DURATION, medium[=sticky], "),
            ("", "no fault named; the kinds are: latency=DURATION"),
            ("torn", "`torn` wants an argument: torn=K"),
            ("torn=x", "`x` is no argument of `torn`: torn=K"),
            ("latency=soon", "`soon` is no argument of `latency`: latency=DURATION"),
            ("misdirected=0", "`0` is no argument of `misdirected`: misdirected=D"),
            ("misdirected-read=far", "`far` is no argument of `misdirected-read`: misdirected-read=D"),
            ("corrupt-write=1,sticky", "`sticky` is no argument of `corrupt-write`: corrupt-write[=BITS]"),
            ("lost=1", "`1` is no argument of `lost`: lost"),
            ("bitflip=2,sed=1", "`sed=1` is no argument of `bitflip`: "),
            ("lost --range 1..512", "`1..512` is no value for --range: A..B, in bytes, both multiples of 512"),
            ("lost --range 1K..1K", "`1K..1K` is no value for --range"),
            ("lost --times 0", "`0` is no value for --times: a number from 1"),
            ("lost --at-io soon", "`soon` is no value for --at-io: a number from 1"),
            ("lost --after 3", "`3` is no value for --after: a duration as 30s or 250ms"),
            ("lost --never", "`--never` is no option of a fault: --range A..B"),
            ("lost --after 1s --at-io 3", "a fault begins either after a time or at an I/O, not both"),
        ] {
            let message = text.parse::<FaultSpec>().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
        assert!(toml::from_str::<FaultSpec>("kind = 'lost'\nrnage = '0..512'").is_err());
    }

    #[test]
    fn a_fault_that_does_not_fit_its_device_is_refused() {
        let limits = Limits { logical_block: Sectors(8), ..Limits::of_disk(Sectors(64)) };
        for (text, fits) in [
            ("lost --range 0..32K", true),
            ("lost --range 0..33K", false),
            ("misdirected=-16", true),
            ("misdirected=4", false),
            ("misdirected-read=8", true),
            ("misdirected-read=9", false),
            ("corrupt-write=4097", false),
            ("bitflip=4096", true),
            ("bitflip=4097", false),
            ("flush-lie --range 0..512", false),
            ("flush-fail --range 0..512", false),
            ("no-space --range 0..512", true),
            ("transient=2 --times 1", false),
        ] {
            assert_eq!(text.parse::<FaultSpec>().unwrap().check(&limits).is_ok(), fits, "{text}");
        }
    }
}
