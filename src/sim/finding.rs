//! What a simulation can find wrong.

use std::fmt;

use super::explain::slots_words;
use super::path_rules::Broken;
use super::{Failure, Rule, Scenario};
use crate::block::DeviceId;
use crate::raid::assemble::AssembleError;
use crate::raid::geometry::StripeIndex;
use crate::raid::set::SlotSet;

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failed {
    /// An answer was wrong, or there was none.
    World(Failure),
    /// The columns of a stripe that nobody works on disagree.
    Disagree {
        /// Which stripe.
        stripe: StripeIndex,
        /// Which row of its chunks.
        row: u64,
    },
    /// It does not assemble.
    Refused(AssembleError),
    /// It was refused as dirty and degraded, and was not degraded.
    RefusedForNothing(AssembleError),
    /// It started, dirty and degraded.
    NotRefused,
    /// Slots that were whole are not, and nothing happened but that the array went off and on.
    PlaceLost(SlotSet),
    /// Background work does not come to its end.
    Endless,
    /// Spares wait while slots are empty.
    IdleSpare(DeviceId),
    /// A check found disagreement that nothing excuses.
    Mismatch {
        /// Where.
        stripe: StripeIndex,
        /// The first row of its chunks.
        row: u64,
    },
    /// A check found no disagreement where there is one.
    Overlooked {
        /// Where.
        stripe: StripeIndex,
        /// Which row of its chunks.
        row: u64,
    },
    /// A repair changed what it had not located.
    MendedWrong {
        /// Where.
        stripe: StripeIndex,
        /// Which row of its chunks.
        row: u64,
    },
    /// The array failed, though enough members were left.
    ArrayFailed,
    /// A layer of paths broke a rule.
    Paths(Broken),
    /// A broken invariant.
    Panicked(String),
}

/// What two failures have in common when they are taken for the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// A rule of the oracle.
    Rule(Rule),
    /// Anything else, by its name; a panic by its place in the text.
    Other(String),
}

/// A scenario that ends badly: where, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The scenario, ending where it failed.
    pub scenario: Scenario,
    /// Events of the life before.
    pub event: u64,
    /// What went wrong.
    pub failed: Failed,
    /// The last things that happened.
    pub told: Vec<String>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Failed {
        Failed::World(failure)
    }
}

impl From<Broken> for Failed {
    fn from(broken: Broken) -> Failed {
        Failed::Paths(broken)
    }
}

impl Failed {
    /// What makes it the same as another.
    pub fn reason(&self) -> Reason {
        let other = |name: &str| Reason::Other(name.to_owned());
        match self {
            Failed::World(Failure::Wrong(violation)) => Reason::Rule(violation.rule),
            Failed::World(Failure::Stuck { .. }) => other("stuck"),
            Failed::Disagree { .. } => other("columns disagree"),
            Failed::Refused(_) => other("refused"),
            Failed::RefusedForNothing(_) => other("refused for nothing"),
            Failed::NotRefused => other("dirty and degraded, started"),
            Failed::PlaceLost(_) => other("place lost"),
            Failed::Endless => other("endless"),
            Failed::IdleSpare(_) => other("idle spare"),
            Failed::Mismatch { .. } => other("mismatch"),
            Failed::Overlooked { .. } => other("mismatch overlooked"),
            Failed::MendedWrong { .. } => other("mended wrong"),
            Failed::ArrayFailed => other("array failed"),
            Failed::Paths(broken) => other(broken.rule),
            // Numbers differ from run to run of a shrinking scenario.
            Failed::Panicked(message) => {
                let words: String = message.chars().filter(|c| !c.is_ascii_digit()).take(48).collect();
                Reason::Other(format!("panic: {words}"))
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Rule(rule) => write!(f, "{rule}"),
            Reason::Other(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::World(failure) => write!(f, "{failure}"),
            Failed::Disagree { stripe, row } => {
                write!(f, "the columns of stripe {} disagree in row {row}, and nobody is at work there", stripe.0)
            }
            Failed::Refused(error) => write!(f, "it does not assemble: {error}"),
            Failed::RefusedForNothing(error) => write!(f, "it is refused and was not degraded: {error}"),
            Failed::NotRefused => f.write_str("a dirty and degraded parity array was started without being forced"),
            Failed::PlaceLost(slots) => {
                write!(f, "{} whole before it was assembled again, and not any more", were(*slots))
            }
            Failed::Endless => f.write_str("background work does not come to its end"),
            Failed::IdleSpare(device) => write!(f, "spare disk-{} waits while a slot is empty", device.0),
            Failed::Mismatch { stripe, row } => write!(f, "check finds a mismatch in stripe {}, row {row}", stripe.0),
            Failed::Overlooked { stripe, row } => {
                write!(f, "check overlooks that stripe {} disagrees in row {row}", stripe.0)
            }
            Failed::MendedWrong { stripe, row } => {
                write!(
                    f,
                    "repair changes row {row} of stripe {} otherwise than to mend the one column that is wrong",
                    stripe.0
                )
            }
            Failed::Paths(broken) => write!(f, "{broken}"),
            Failed::ArrayFailed => f.write_str("the array failed, though enough members were left"),
            Failed::Panicked(message) => write!(f, "panic: {message}"),
        }
    }
}

fn were(slots: SlotSet) -> String {
    format!("{} {}", slots_words(slots), if slots.len() == 1 { "was" } else { "were" })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, event {}: {}", self.scenario.seed, self.event, self.failed)?;
        for line in &self.told {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Finding {}
