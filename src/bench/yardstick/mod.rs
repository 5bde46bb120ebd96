//! Yardsticks: this program's own speed beside what it is to be measured by, in the same run.
//!
//! A [`Row`] is one claim: work, what it is compared with, the ratio aimed at. It is measured in [`Cell`]s (shapes, sizes),
//! in each of which both take turns; the ratio of a cell is the median of the ratios of its rounds, and that of a row the
//! geometric mean over its cells. What cannot be measured here says why.

mod isal;
mod mapped;
mod parity;

use std::time::Duration;

use serde::Serialize;

use super::report::{Machine, Spread};
use super::turns::{Arena, take_turns};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rounds of each cell.
    pub rounds: usize,
    /// The length of a window.
    pub window: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { rounds: 9, window: Duration::from_micros(2500) }
    }
}

/// What is measured together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Parity kernels.
    Parity,
    /// Arrays on memory-mapped images.
    Mapped,
}

impl Group {
    /// Every one.
    pub const ALL: [Group; 2] = [Group::Parity, Group::Mapped];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Group::Parity => "parity",
            Group::Mapped => "mapped",
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The form of this report.
    pub schema: &'static str,
    /// The computer.
    pub machine: Machine,
    /// Rounds of each cell.
    pub rounds: usize,
    /// Windows taken although the thread lost the processor in them.
    pub windows_disturbed: usize,
    /// Every claim.
    pub rows: Vec<Row>,
}

/// A claim, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is done.
    pub work: String,
    /// What it is compared with.
    pub against: String,
    /// What is aimed at.
    pub goal: Goal,
    /// The geometric mean of the ratios of all cells; none, if there are no cells.
    pub ratio: Option<f64>,
    /// The least of them.
    pub worst: Option<f64>,
    /// Whether the goal is reached.
    pub reached: Option<bool>,
    /// Why nothing was measured.
    pub skipped: Option<String>,
    /// What was measured.
    pub cells: Vec<Cell>,
}

/// What a row aims at.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Goal {
    /// The least for the geometric mean.
    pub least: f64,
    /// The least for every cell.
    pub each: Option<f64>,
}

/// One measurement of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Its shape.
    pub name: String,
    /// What rates are counted in.
    pub unit: &'static str,
    /// Of this program: the median of its rounds.
    pub ours: f64,
    /// Of what it is compared with: the median of its rounds.
    pub theirs: f64,
    /// Ours over theirs, round by round.
    pub ratio: Spread,
}

impl Cell {
    /// From the rates of both, round by round.
    fn new(name: String, unit: &'static str, ours: &[f64], theirs: &[f64]) -> Cell {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Cell {
            name,
            unit,
            ours: Spread::of(ours).median,
            theirs: Spread::of(theirs).median,
            ratio: Spread::of(&ratios),
        }
    }
}

impl Row {
    fn new(work: &str, against: &str, least: f64, each: Option<f64>) -> Row {
        Row {
            work: work.to_owned(),
            against: against.to_owned(),
            goal: Goal { least, each },
            ratio: None,
            worst: None,
            reached: None,
            skipped: None,
            cells: Vec::new(),
        }
    }

    /// The row judged by its cells.
    fn judged(mut self) -> Row {
        if self.cells.is_empty() {
            return self;
        }
        let medians = || self.cells.iter().map(|cell| cell.ratio.median);
        let ratio = (medians().map(f64::ln).sum::<f64>() / self.cells.len() as f64).exp();
        let worst = medians().fold(f64::INFINITY, f64::min);
        self.reached = Some(ratio >= self.goal.least && self.goal.each.is_none_or(|each| worst >= each));
        (self.ratio, self.worst) = (Some(ratio), Some(worst));
        self
    }
}

/// Measures the claims of `groups`. `progress` is told what is measured and the share that is done, and may end it there:
/// `None`.
pub fn measure(options: &Options, groups: &[Group], progress: &mut dyn FnMut(&str, f64) -> bool) -> Option<Report> {
    let mut report = Report {
        schema: "raidlab-bench-self/v1",
        machine: Machine::this(),
        rounds: options.rounds,
        windows_disturbed: 0,
        rows: Vec::new(),
    };
    for (number, group) in groups.iter().enumerate() {
        let mut goes_on = true;
        let mut within = |share: f64| {
            goes_on = progress(group.name(), (number as f64 + share) / groups.len() as f64);
            goes_on
        };
        let rows = match group {
            Group::Parity => parity::rows(options, &mut report.windows_disturbed, &mut within),
            Group::Mapped => mapped::rows(options, &mut report.windows_disturbed, &mut within),
        };
        if !goes_on {
            return None;
        }
        report.rows.extend(rows.into_iter().map(Row::judged));
    }
    Some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_geometric_mean_of_the_medians_of_its_cells_and_reached_where_none_is_too_low() {
        let row = |each| Row {
            cells: vec![
                Cell::new("one".to_owned(), "GB/s", &[2.0, 8.0, 2.0], &[1.0, 1.0, 1.0]),
                Cell::new("other".to_owned(), "GB/s", &[4.0, 1.0, 3.0], &[8.0, 2.0, 6.0]),
            ],
            ..Row::new("work", "peer", 1.0, each)
        };
        let judged = row(None).judged();
        assert_eq!((judged.ratio, judged.worst, judged.reached), (Some(1.0), Some(0.5), Some(true)));
        assert_eq!(row(Some(0.6)).judged().reached, Some(false));
        assert_eq!(Row::new("work", "peer", 1.0, None).judged().reached, None, "nothing measured is nothing reached");
        assert_eq!((judged.cells[0].ours, judged.cells[0].theirs), (2.0, 1.0));
        assert_eq!((judged.cells[0].ratio.min, judged.cells[0].ratio.max), (2.0, 8.0));
    }
}
