//! Faults in words: as they are typed, and as `lab.toml` has them.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::spec::{FaultKind, FaultSpec, Trigger};
use crate::block::{Extent, Lba, SECTOR_BYTES, Sectors};
use crate::units::{self, Size, Span};

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

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match *self {
            FaultKind::Latency(duration) | FaultKind::Hang(Some(duration)) => {
                write!(f, "={}", Span(duration))
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
            Trigger::After(duration) => write!(f, " --after {}", Span(duration))?,
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
pub(super) struct FaultText {
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
            Trigger::After(duration) => (Some(Span(duration).to_string()), None),
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

fn duration(word: &str) -> Option<Duration> {
    word.parse().ok().map(|Span(duration)| duration)
}

fn byte_range(word: &str) -> Option<Extent> {
    let Range { start: Size(start), end: Size(end) } = units::range(word).ok()?;
    let whole = start.is_multiple_of(SECTOR_BYTES) && end.is_multiple_of(SECTOR_BYTES);
    whole.then(|| Extent::new(Lba(start / SECTOR_BYTES), Sectors::floor_bytes(end - start)))
}

struct RangeText(Extent);

impl fmt::Display for RangeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", Size(self.0.start.bytes()), Size(self.0.end().bytes()))
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
            ("latency=2m", "latency=2m"),
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
}
