//! The report on a terminal: one table to compare the subjects, one with every figure.
//!
//! No colour, no terminal width: the same text in a terminal, a file and a README.

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_HORIZONTAL_ONLY};
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::report::{Cell, Report, Spread, State, SubjectFacts};
use super::{Access, Disturbance, Shape, Workload};

/// What the terminal can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charset {
    /// Lines, µ and ±.
    Utf8,
    /// ASCII alone.
    Ascii,
}

/// Subjects beside each other in one table; with more than this, the raw file is repeated.
const SUBJECTS_A_TABLE: usize = 6;

/// The whole report as text.
pub fn render(report: &Report, charset: Charset) -> String {
    let mut parts = vec![head(report)];
    parts.extend(groups(report).iter().map(|group| comparison(report, group, charset)));
    parts.push(figures(report, charset));
    parts.push(notes(report));
    let text = parts.join("\n\n") + "\n";
    match charset {
        Charset::Utf8 => text,
        Charset::Ascii => text.replace('µ', "u").replace('±', "+-").replace('–', "-").replace('−', "-"),
    }
}

fn head(report: &Report) -> String {
    format!("{}\n{}\n{}", report.machine, report.measured, method(report))
}

/// How it was measured, in one sentence.
pub(super) fn method(report: &Report) -> String {
    format!(
        "median of {} interleaved repetitions of {:.0} ms, random data, seed {:#x}, {}",
        report.reps,
        report.rep_seconds * 1e3,
        report.seed,
        report.date
    )
}

/// The subjects of each table: the raw file and as many others as fit.
fn groups(report: &Report) -> Vec<Vec<&SubjectFacts>> {
    let (raw, others): (Vec<_>, Vec<_>) = report.subjects.iter().partition(|facts| facts.shape == Shape::Single);
    let room = SUBJECTS_A_TABLE.saturating_sub(raw.len()).max(1);
    let mut groups: Vec<Vec<_>> = others.chunks(room).map(|some| [&raw[..], some].concat()).collect();
    if groups.is_empty() {
        groups.push(raw);
    }
    groups
}

fn comparison(report: &Report, subjects: &[&SubjectFacts], charset: Charset) -> String {
    let mut table = new_table(charset, 2);
    let header = subjects.iter().map(|facts| facts.name.clone());
    table.set_header([String::new(), String::new()].into_iter().chain(header));
    let mut row = |name: String, unit: &str, values: &mut dyn Iterator<Item = String>| {
        table.add_row([name, unit.to_owned()].into_iter().chain(values));
    };
    row("usable".to_owned(), "MiB", &mut subjects.iter().map(|s| format!("{}      ", s.usable_bytes >> 20)));
    row("failures tolerated".to_owned(), "", &mut subjects.iter().map(|s| format!("{}      ", s.failures_tolerated)));
    for (state, workload) in rows(report) {
        let name = match state {
            State::Optimal => workload.to_string(),
            State::Degraded => format!("degraded {workload}"),
        };
        let unit = if shown_in_mb(&workload) { "MB/s" } else { "IOPS" };
        let values = subjects.iter().map(|facts| {
            let Some(cell) = report.cell(&facts.name, state, workload) else {
                return if lost(facts, state) { "lost      ".to_owned() } else { "-      ".to_owned() };
            };
            with_share(&value(cell), cell.theory_percent.filter(|_| says_something(facts, cell)), &cell.disturbed)
        });
        row(name, unit, &mut values.into_iter());
    }
    if !report.rebuilds.is_empty() {
        let values = subjects.iter().map(|facts| match report.rebuild(&facts.name) {
            Some(rebuild) => with_share(&mb(rebuild.mb_per_second.median), rebuild.theory_percent, &rebuild.disturbed),
            None if lost(facts, State::Degraded) => "lost      ".to_owned(),
            None => "-      ".to_owned(),
        });
        row("recovery".to_owned(), "MB/s", &mut values.into_iter());
    }
    table.trim_fmt()
}

/// Whether there is nothing to measure because the data went with the member.
pub(super) fn lost(facts: &SubjectFacts, state: State) -> bool {
    state == State::Degraded && facts.failures_tolerated == 0 && facts.shape != Shape::Single
}

/// States and workloads in the order planned, those with figures only.
pub(super) fn rows(report: &Report) -> Vec<(State, Workload)> {
    let optimal = report.workloads.iter().map(|workload| (State::Optimal, *workload));
    let degraded = report.degraded_workloads.iter().map(|workload| (State::Degraded, *workload));
    let measured = |row: &(State, Workload)| report.cells.iter().any(|c| (c.state, c.workload) == *row);
    optimal.chain(degraded).filter(measured).collect()
}

/// A share is worth showing except where it is 100 % by definition: the yardstick itself.
fn says_something(facts: &SubjectFacts, cell: &Cell) -> bool {
    facts.shape != Shape::Single || (0.01..0.99).contains(&cell.workload.read_share())
}

/// Whether megabytes say more than requests.
pub(super) fn shown_in_mb(workload: &Workload) -> bool {
    workload.access == Access::Sequential
}

/// The figure of a cell that is compared.
pub(super) fn compared(cell: &Cell) -> Spread {
    if shown_in_mb(&cell.workload) { cell.mb_per_second } else { cell.iops }
}

fn value(cell: &Cell) -> String {
    if cell.errors > 0 {
        "errors".to_owned()
    } else if shown_in_mb(&cell.workload) {
        mb(cell.mb_per_second.median)
    } else {
        count(cell.iops.median)
    }
}

fn with_share(value: &str, share: Option<Spread>, disturbed: &[Disturbance]) -> String {
    let share = share.map_or(String::new(), |share| format!("{:.0}%", share.median));
    format!("{value} {share:>4}{}", mark(disturbed))
}

fn mark(disturbed: &[Disturbance]) -> &'static str {
    if disturbed.is_empty() { " " } else { "~" }
}

/// Every figure of every cell.
fn figures(report: &Report, charset: Charset) -> String {
    let mut table = new_table(charset, 2);
    let header =
        ["workload", "subject", "IOPS", "MB/s", "±%", "p50 µs", "p99 µs", "p99.9 µs", "w/w", "B/B", "theory", ""];
    table.set_header(header);
    for (state, workload) in rows(report) {
        let name = match state {
            State::Optimal => workload.to_string(),
            State::Degraded => format!("{workload} degraded"),
        };
        let cells = report.subjects.iter().filter_map(|facts| report.cell(&facts.name, state, workload));
        for (at, cell) in cells.enumerate() {
            let half_spread = 50.0 * (cell.iops.max - cell.iops.min) / cell.iops.median.max(f64::MIN_POSITIVE);
            table.add_row([
                if at == 0 { name.clone() } else { String::new() },
                cell.subject.clone(),
                count(cell.iops.median),
                mb(cell.mb_per_second.median),
                format!("{half_spread:.0}"),
                microseconds(cell.latency_us.p50),
                microseconds(cell.latency_us.p99),
                microseconds(cell.latency_us.p99_9),
                cell.member_writes_per_write.map_or(String::new(), |writes| format!("{writes:.2}")),
                cell.member_bytes_per_byte_written.map_or(String::new(), |bytes| format!("{bytes:.2}")),
                cell.theory_percent.map_or(String::new(), |share| format!("{:.0}%", share.median)),
                mark(&cell.disturbed).trim().to_owned(),
            ]);
        }
    }
    table.trim_fmt()
}

fn notes(report: &Report) -> String {
    let mut lines = vec![
        "%: share of what theory allows from the raw file in the same run: its time for the member I/O each".to_owned(),
        "   request costs, one after the other, as on one thread and one store; parity arithmetic counts as free.".to_owned(),
        "±%: half the distance between the slowest and the fastest repetition. w/w, B/B: writes to members per".to_owned(),
        "   write, bytes to members per byte written. Latencies are of all repetitions together.".to_owned(),
    ];
    for cell in report.cells.iter().filter(|cell| cell.errors > 0) {
        let error = cell.first_error.as_deref().unwrap_or("unknown");
        let (subject, workload, errors) = (&cell.subject, cell.workload, cell.errors);
        lines.push(format!("!  {subject} {workload} ({}): {errors} requests failed, first: {error}", cell.state));
    }
    let (disturbed, all) = report.disturbed();
    if disturbed > 0 {
        let causes: Vec<String> = report.causes().iter().map(ToString::to_string).collect();
        lines.push(format!("~  {disturbed} of {all} cells were disturbed; at worst, {}.", causes.join(", ")));
    }
    lines.extend(report.partial.iter().map(|why| format!("!  {why}")));
    lines.join("\n")
}

fn new_table(charset: Charset, left_columns: usize) -> Table {
    let mut table = Table::new();
    table.load_style(match charset {
        Charset::Utf8 => UTF8_HORIZONTAL_ONLY,
        Charset::Ascii => ASCII_MARKDOWN,
    });
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty();
    let _ = left_columns;
    table
}

/// Three digits and a unit: `812`, `8.12k`, `81.2k`, `812k`, `1.23M`.
pub(super) fn count(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v < 999.5 => (v, ""),
        v if v < 999_500.0 => (v / 1e3, "k"),
        v => (v / 1e6, "M"),
    };
    let digits = match scaled {
        _ if unit.is_empty() => 0,
        s if s < 9.995 => 2,
        s if s < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$}{unit}")
}

/// Whole megabytes a second; one decimal below ten.
pub(super) fn mb(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn microseconds(value: f64) -> String {
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}
