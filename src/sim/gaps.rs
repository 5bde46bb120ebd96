//! Why cells are empty.
//!
//! A cell that no rule forbids and no run has struck was either never possible in these runs, or merely unlikely, or
//! something keeps the two apart. The run itself tells: how often the fault struck such a member at all, and in which
//! part of the events with such a member the array was in that phase. If the two had nothing to do with each other, so
//! many strikes would be expected there. Where that is [`CHANCE`] or more and there is none, chance is no explanation:
//! such cells are questions, the others are answered.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::coverage::{Cell, Coverage, Doing, FaultClass, MemberState, in_words, write_wrapped};

/// With three strikes to be expected, none is seen one time in twenty.
pub const CHANCE: f64 = 3.0;

/// Why a cell that can be struck was not.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// No member was ever in that state.
    NoMember,
    /// The fault never struck a member in that state.
    NotMet,
    /// The array was never in that phase with such a member.
    NotSeen,
    /// So many strikes were to be expected: too few to be sure of one.
    Seldom(f64),
    /// So many were to be expected: that there is none needs another reason.
    AgainstChance(f64),
}

/// Cells of one fault on members in one state that were not struck.
#[derive(Clone, PartialEq, Debug)]
pub struct Gap {
    /// The fault.
    pub fault: FaultClass,
    /// The state of the member.
    pub member: MemberState,
    /// What the array would have been doing, and why it did not meet.
    pub phases: Vec<(Doing, Why)>,
}

impl Coverage {
    /// Why nothing has struck a cell.
    fn why(&self, Cell { fault, member, doing }: Cell) -> Why {
        let (present, seen) = (self.events_with(member), self.events_in(member, doing));
        if present == 0 {
            return Why::NoMember;
        }
        let met = self.strikes_on(fault, member);
        if met == 0 {
            return Why::NotMet;
        }
        if seen == 0 {
            return Why::NotSeen;
        }
        let expected = met as f64 * seen as f64 / present as f64;
        if expected < CHANCE { Why::Seldom(expected) } else { Why::AgainstChance(expected) }
    }

    /// Every cell that can be struck and was not, with the reason.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps: BTreeMap<(FaultClass, MemberState), Vec<(Doing, Why)>> = BTreeMap::new();
        for cell in self.missing_cells() {
            gaps.entry((cell.fault, cell.member)).or_default().push((cell.doing, self.why(cell)));
        }
        gaps.into_iter().map(|((fault, member), phases)| Gap { fault, member, phases }).collect()
    }

    /// What is in no cell, and why, for people.
    pub(super) fn write_gaps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gaps = self.gaps();
        let count = |is: fn(&Why) -> bool| gaps.iter().flat_map(|gap| &gap.phases).filter(|(_, why)| is(why)).count();
        let all = [
            (count(|why| *why == Why::NoMember), "no member was ever in that state"),
            (count(|why| *why == Why::NotMet), "the fault never struck a member in that state"),
            (count(|why| *why == Why::NotSeen), "the array never did that while there was such a member"),
            (count(|why| matches!(why, Why::Seldom(_))), "fewer than three strikes were to be expected"),
            (count(|why| matches!(why, Why::AgainstChance(_))), "three strikes or more were to be expected"),
        ];
        for (cells, because) in all.into_iter().filter(|(cells, _)| *cells > 0) {
            writeln!(f, "  {cells:>5}  {because}")?;
        }
        writeln!(f, "Never done while a member was")?;
        for member in MemberState::ALL.into_iter().filter(|member| self.events_with(*member) > 0) {
            let unseen: Vec<Doing> =
                Doing::all().filter(|doing| doing.is_possible() && self.events_in(member, *doing) == 0).collect();
            if !unseen.is_empty() {
                write_wrapped(f, &format!("  {}: ", member.name()), &in_words(&unseen))?;
            }
        }
        writeln!(f, "By fault and state of the member, strikes where there were others, and how many to expect:")?;
        for gap in gaps {
            let head = format!("  {} {}: ", gap.fault, gap.member.name());
            write_wrapped(f, &head, &self.words(&gap))?;
        }
        Ok(())
    }

    /// A sentence on a gap.
    fn words(&self, gap: &Gap) -> String {
        let of = |is: fn(&Why) -> bool| -> Vec<Doing> {
            gap.phases.iter().filter(|(_, why)| is(why)).map(|(doing, _)| *doing).collect()
        };
        if !of(|why| *why == Why::NoMember).is_empty() {
            return String::from("there was none");
        }
        let met = self.strikes_on(gap.fault, gap.member);
        if met == 0 {
            let strikes = MemberState::ALL.map(|member| self.strikes_on(gap.fault, member)).iter().sum::<u64>();
            return format!("never, of {strikes} strikes in all");
        }
        let mut parts = vec![format!("{met} strikes")];
        let unseen = of(|why| *why == Why::NotSeen);
        if !unseen.is_empty() {
            parts.push(format!("{} never done with such a member", unseen.len()));
        }
        let seldom = of(|why| matches!(why, Why::Seldom(_)));
        if !seldom.is_empty() {
            parts.push(format!("too seldom, {:.1} expected in all, {}", gap.expected(), in_words(&seldom)));
        }
        for (doing, why) in &gap.phases {
            if let Why::AgainstChance(expected) = why {
                parts.push(format!("AGAINST CHANCE {} ({expected:.0} expected)", doing.name()));
            }
        }
        parts.join("; ")
    }
}

impl Gap {
    /// Strikes to be expected where chance explains that there is none.
    fn expected(&self) -> f64 {
        self.phases.iter().map(|(_, why)| if let Why::Seldom(expected) = why { *expected } else { 0.0 }).sum()
    }
}

/// A gap in a file: for those who read on, never read back.
#[derive(Clone, PartialEq, Serialize)]
pub(super) struct GapText {
    fault: &'static str,
    member: &'static str,
    /// The reason, for each phase.
    phases: BTreeMap<String, WhyText>,
}

#[derive(Clone, PartialEq, Serialize)]
struct WhyText {
    why: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<f64>,
}

impl From<Gap> for GapText {
    fn from(gap: Gap) -> GapText {
        let text = |why| match why {
            Why::NoMember => WhyText { why: "no-member", expected: None },
            Why::NotMet => WhyText { why: "not-met", expected: None },
            Why::NotSeen => WhyText { why: "not-seen", expected: None },
            Why::Seldom(expected) => WhyText { why: "seldom", expected: Some(expected) },
            Why::AgainstChance(expected) => WhyText { why: "against-chance", expected: Some(expected) },
        };
        let phases = gap.phases.into_iter().map(|(doing, why)| (doing.name(), text(why))).collect();
        GapText { fault: gap.fault.name(), member: gap.member.name(), phases }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raid::band::{Phase, Work};

    #[test]
    fn an_empty_cell_says_what_was_to_be_expected_there() {
        let reading = Doing::Band(Work::Read, Phase::Reading);
        let writing = Doing::Band(Work::Write, Phase::Writing);
        let mut coverage = Coverage::default();
        let why = |coverage: &Coverage, doing| {
            coverage.why(Cell { fault: FaultClass::FailStop, member: MemberState::InSync, doing })
        };
        assert_eq!(why(&coverage, writing), Why::NoMember);
        coverage.visited(MemberState::InSync, 1000, [(reading, 10), (writing, 500), (Doing::Idle, 400)]);
        assert_eq!(why(&coverage, writing), Why::NotMet);
        for _ in 0..10 {
            coverage.strike(FaultClass::FailStop, MemberState::InSync, [Doing::Idle]);
        }
        assert_eq!(why(&coverage, Doing::Metadata), Why::NotSeen);
        assert_eq!(why(&coverage, reading), Why::Seldom(0.1));
        assert_eq!(why(&coverage, writing), Why::AgainstChance(5.0));
        let text = coverage.to_string();
        assert!(text.contains("AGAINST CHANCE write.writing (5 expected)"), "{text}");
        assert!(text.contains("  fail-stop spare: there was none\n"), "{text}");
        assert!(text.contains("  hang in-sync: never, of 0 strikes in all\n"), "{text}");
    }
}
