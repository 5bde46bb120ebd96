//! How a component can be, well and unwell: faults 32 to 40 of the field's list.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::as_string;
use crate::units::{NotUnderstood, Span};

/// How a component is. In text: `up`, `down`, `slow=10`, ...
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Health {
    /// Well.
    Up,
    /// Gone, and its neighbours say so. What is on its way through it is lost.
    Down,
    /// Frames vanish, and nobody says so: those to the target, those from it, or both.
    BlackHole {
        /// Towards the target.
        tx: bool,
        /// From the target.
        rx: bool,
    },
    /// Loses so many frames, and is well after that.
    Losing {
        /// How many.
        frames: u32,
        /// Where they are when they are lost.
        at: Point,
    },
    /// Down and up in turns, beginning with down.
    Flapping {
        /// How long it is down.
        down: Duration,
        /// How long it is up.
        up: Duration,
    },
    /// Frames wait until it is well again: a write can land long after somebody gave it up.
    Stalled,
    /// Frames take so many times as long.
    Slow(u32),
    /// Each answer takes so much longer than the one before it.
    Zombie(Duration),
    /// Every command comes out of it a second time, so much later.
    Doubling(Duration),
    /// Questions whether a path is well pass; what reads and writes fails.
    FailsIo,
    /// Reads and writes pass; questions whether a path is well are answered: it is not.
    FailsChecks,
    /// A byte of all data that passes is another one then.
    Corrupting {
        /// On its way to the host.
        reads: bool,
        /// On its way to the target.
        writes: bool,
    },
}

/// Where a frame is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// A command, before it is sent.
    Sending,
    /// A command, on its way.
    Transit,
    /// The answer to one that was carried out.
    Answering,
}

/// Why a word is no health.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum HealthError {
    /// No health is called so.
    #[error("{word:?} is no health of a component{}: known are {KINDS}", meant.map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default())]
    Unknown {
        /// What was typed.
        word: String,
        /// One that is nearly it.
        meant: Option<&'static str>,
    },
    /// What stands behind `=` is not what belongs there.
    #[error("{0:?}: {1}")]
    Arguments(String, &'static str),
    /// A time in it is none.
    #[error("{0:?}: {1}")]
    Time(String, NotUnderstood),
}

/// All that can be said of a component, with its arguments.
const KINDS: &str = "up, down, black-hole[=tx|rx], stalled, slow=FACTOR, losing=FRAMES[,sending|transit|answering], flapping=DOWN,UP, \
                     zombie=TIME, doubling=TIME, fails-io, fails-checks, corrupting[=reads|writes]";

const NAMES: [&str; 12] = [
    "up",
    "down",
    "black-hole",
    "stalled",
    "slow",
    "losing",
    "flapping",
    "zombie",
    "doubling",
    "fails-io",
    "fails-checks",
    "corrupting",
];

as_string!(Health);

impl FromStr for Health {
    type Err = HealthError;

    fn from_str(text: &str) -> Result<Health, HealthError> {
        let (name, argument) = match text.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let wrong = |what| HealthError::Arguments(text.to_owned(), what);
        let time = |word: &str| match word.parse::<Span>() {
            Ok(Span(time)) if time.is_zero() => Err(wrong("the time must be more than 0")),
            Ok(Span(time)) => Ok(time),
            Err(error) => Err(HealthError::Time(text.to_owned(), error)),
        };
        let number = |word: &str, least: u32, what| match word.parse() {
            Ok(number) if number >= least => Ok(number),
            _ => Err(wrong(what)),
        };
        Ok(match (name, argument) {
            ("up", None) => Health::Up,
            ("down", None) => Health::Down,
            ("black-hole", None) => Health::BlackHole { tx: true, rx: true },
            ("black-hole", Some("tx")) => Health::BlackHole { tx: true, rx: false },
            ("black-hole", Some("rx")) => Health::BlackHole { tx: false, rx: true },
            ("black-hole", Some(_)) => {
                return Err(wrong("frames vanish to the target (tx), from it (rx), or both (no argument)"));
            }
            ("stalled", None) => Health::Stalled,
            ("slow", Some(factor)) => Health::Slow(number(factor, 2, "frames take so many times as long: 2 or more")?),
            ("losing", Some(arguments)) => {
                let (frames, at) = arguments.split_once(',').unwrap_or((arguments, "transit"));
                let at = Point::named(at).ok_or(wrong("frames are lost when sending, in transit or when answering"))?;
                Health::Losing { frames: number(frames, 1, "so many frames are lost: 1 or more")?, at }
            }
            ("flapping", Some(times)) => {
                let (down, up) = times.split_once(',').ok_or(wrong("how long it is down, and up: flapping=1s,5s"))?;
                Health::Flapping { down: time(down)?, up: time(up)? }
            }
            ("zombie", Some(step)) => Health::Zombie(time(step)?),
            ("doubling", Some(later)) => Health::Doubling(time(later)?),
            ("fails-io", None) => Health::FailsIo,
            ("fails-checks", None) => Health::FailsChecks,
            ("corrupting", None) => Health::Corrupting { reads: true, writes: true },
            ("corrupting", Some("reads")) => Health::Corrupting { reads: true, writes: false },
            ("corrupting", Some("writes")) => Health::Corrupting { reads: false, writes: true },
            ("corrupting", Some(_)) => return Err(wrong("bytes change in reads, in writes, or both (no argument)")),
            ("slow", None) => return Err(wrong("how slow: slow=10")),
            ("losing", None) => return Err(wrong("how many frames: losing=3")),
            ("flapping", None) => return Err(wrong("how long it is down, and up: flapping=1s,5s")),
            ("zombie", None) => return Err(wrong("by how much each answer is later than the last: zombie=1s")),
            ("doubling", None) => return Err(wrong("how much later the second comes: doubling=1s")),
            (name, Some(_)) if NAMES.contains(&name) => return Err(wrong("it takes no argument")),
            (name, _) => {
                let near = |known: &&&str| strsim::damerau_levenshtein(name, known);
                let meant = NAMES.iter().min_by_key(near).filter(|known| near(known) <= 3).copied();
                return Err(HealthError::Unknown { word: name.to_owned(), meant });
            }
        })
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Health::Up => f.write_str("up"),
            Health::Down => f.write_str("down"),
            Health::BlackHole { tx, rx } => match (tx, rx) {
                (true, false) => f.write_str("black-hole=tx"),
                (false, true) => f.write_str("black-hole=rx"),
                _ => f.write_str("black-hole"),
            },
            Health::Losing { frames, at } => write!(f, "losing={frames},{}", at.name()),
            Health::Flapping { down, up } => write!(f, "flapping={},{}", Span(down), Span(up)),
            Health::Stalled => f.write_str("stalled"),
            Health::Slow(factor) => write!(f, "slow={factor}"),
            Health::Zombie(step) => write!(f, "zombie={}", Span(step)),
            Health::Doubling(later) => write!(f, "doubling={}", Span(later)),
            Health::FailsIo => f.write_str("fails-io"),
            Health::FailsChecks => f.write_str("fails-checks"),
            Health::Corrupting { reads, writes } => match (reads, writes) {
                (true, false) => f.write_str("corrupting=reads"),
                (false, true) => f.write_str("corrupting=writes"),
                _ => f.write_str("corrupting"),
            },
        }
    }
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Point::Sending => "sending",
            Point::Transit => "transit",
            Point::Answering => "answering",
        }
    }

    fn named(word: &str) -> Option<Point> {
        [Point::Sending, Point::Transit, Point::Answering].into_iter().find(|point| point.name() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_health_has_a_word_that_means_it() {
        for word in [
            "up",
            "down",
            "black-hole",
            "black-hole=tx",
            "black-hole=rx",
            "stalled",
            "slow=10",
            "losing=3,sending",
            "losing=1,transit",
            "losing=2,answering",
            "flapping=1500ms,3s",
            "zombie=1s",
            "doubling=2m",
            "fails-io",
            "fails-checks",
            "corrupting",
            "corrupting=reads",
            "corrupting=writes",
        ] {
            assert_eq!(word.parse::<Health>().unwrap().to_string(), word);
        }
        assert_eq!("losing=3".parse(), Ok(Health::Losing { frames: 3, at: Point::Transit }));
    }

    #[test]
    fn a_word_that_is_wrong_says_what_would_be_right() {
        let error = |word: &str| word.parse::<Health>().unwrap_err().to_string();
        assert!(error("zombi=1s").contains("did you mean zombie?"));
        assert!(error("zombie").contains("zombie=1s"));
        assert!(error("slow=1").contains("2 or more"));
        assert!(error("down=1s").contains("takes no argument"));
        assert!(error("flapping=1s").contains("flapping=1s,5s"));
        assert!(error("doubling=0").contains("more than 0"));
        assert!(error("zombie=1 parsec").contains("unit"));
        assert!(error("losing=3,anywhere").contains("in transit"));
    }
}
