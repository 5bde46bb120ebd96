//! The report on a terminal: one table to compare the subjects, one with every figure.
//!
//! No colour, no terminal width: the same text in a terminal, a file and a README.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use super::report::{Cell, Report, Spread, State, SubjectFacts};
use super::{Access, Disturbance, Shape, Workload, parity, sim, yardstick};
use crate::drawing::wrapped;

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

/// A share above this, in percent, is more than noise and wants a word.
const ABOVE_ALL: f64 = 110.0;

/// Where text is broken, so that it and an indent fit into 120.
const COLUMNS: usize = 116;

/// The whole report as text.
pub fn render(report: &Report, charset: Charset) -> String {
    let mut parts = vec![head(report)];
    parts.extend(groups(report).iter().map(|group| comparison(report, group, charset)));
    parts.push(figures(report, charset));
    parts.push(notes(report));
    let text = parts.join("\n\n") + "\n";
    match charset {
        Charset::Utf8 => text,
        Charset::Ascii => text.chars().map(ascii).collect(),
    }
}

/// What is nearest in ASCII, as wide as `c` so that columns stay in line.
fn ascii(c: char) -> char {
    match c {
        'µ' => 'u',
        '±' => 's',
        '–' | '−' => '-',
        c if c.is_ascii() => c,
        _ => '?',
    }
}

/// The report on parity as text.
pub fn parity(report: &parity::Report, charset: Charset) -> String {
    let mut table = report.table();
    table.load_style(style(charset));
    table.set_content_arrangement(ContentArrangement::Disabled);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let (rounds, window, kernel) = (report.rounds, report.window_ms, report.kernel_current);
    let mut notes = vec![format!(
        "GB (10^9 bytes) of source read a second: the median of {rounds} rounds of {window:.0} ms; \
         --json has the slowest and the fastest, too. Arrays here use the kernel {kernel}."
    )];
    if report.windows_disturbed > 0 {
        notes.push(format!("~  disturbed: the thread lost the processor in {} windows.", report.windows_disturbed));
    }
    let notes: Vec<String> = notes.iter().flat_map(|note| wrapped(note, COLUMNS)).collect();
    format!("{}\n\n{}\n", table.trim_fmt(), notes.join("\n"))
}

/// The report on yardsticks as text: a line for each claim, and with `cells` a table of every measurement.
pub fn yardstick(report: &yardstick::Report, cells: bool, charset: Charset) -> String {
    let number = |value: f64| format!("{value:.2}");
    let mut claims = plain(charset, ["work", "against", "ratio", "worst", "wanted", "reached"]);
    for row in &report.rows {
        let wanted = match row.goal.each {
            Some(each) => format!("{}, each {each}", row.goal.least),
            None => row.goal.least.to_string(),
        };
        let reached = match row.reached {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let [ratio, worst] = [row.ratio, row.worst].map(|value| value.map_or_else(String::new, number));
        claims.add_row([&*row.work, &*row.against, &ratio, &worst, &wanted, reached]);
    }
    let mut tables = vec![claims];
    if cells {
        let mut all = plain(charset, ["work", "against", "shape", "ours", "theirs", "ratio", "least", "most"]);
        for row in &report.rows {
            for cell in &row.cells {
                let of = |value: f64| format!("{value:.1} {}", cell.unit);
                let [ratio, least, most] = [cell.ratio.median, cell.ratio.min, cell.ratio.max].map(number);
                let (ours, theirs) = (of(cell.ours), of(cell.theirs));
                all.add_row([&*row.work, &*row.against, &cell.name, &ours, &theirs, &ratio, &least, &most]);
            }
        }
        tables.push(all);
    }
    let mut notes = vec![format!(
        "ratio: ours over theirs, taken inside each of {} rounds in which both take turns; the median of the rounds, the \
         geometric mean over all shapes. worst: the least of them. {}, {}.",
        report.rounds, report.machine.cpu, report.machine.kernel
    )];
    notes.extend(report.rows.iter().filter_map(|row| {
        let why = row.skipped.as_ref()?;
        Some(format!("{} was not compared with {}: {why}.", row.work, row.against))
    }));
    if report.windows_disturbed > 0 {
        notes.push(format!("~  disturbed: the thread lost the processor in {} windows.", report.windows_disturbed));
    }
    let notes: Vec<String> = notes.iter().flat_map(|note| wrapped(note, COLUMNS)).collect();
    let tables: Vec<String> = tables.iter().map(Table::trim_fmt).collect();
    format!("{}\n\n{}\n", tables.join("\n\n"), notes.join("\n"))
}

/// A table without borders, its figures on the right.
fn plain<const N: usize>(charset: Charset, header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(style(charset));
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The report on the simulator as text.
pub fn sim(report: &sim::Report, charset: Charset) -> String {
    let mut table = report.table();
    table.load_style(style(charset));
    table.set_content_arrangement(ContentArrangement::Disabled);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let note = format!(
        "RAID5 of five simulated disks; a second is one of processor time of one thread: the median of {} rounds of the \
         same work. A crash point is a copy of the world whose power is cut, that is assembled, read all over (stripes of \
         one-sector chunks, 64 bytes a sector), judged and dropped; settled: it is resynced first; with views: and then \
         copies without one member each are read all over.",
        report.rounds
    );
    format!("{}\n\n{}\n", table.trim_fmt(), wrapped(&note, COLUMNS).join("\n"))
}

fn head(report: &Report) -> String {
    let lines = [report.machine.to_string(), report.measured.to_string(), method(report)];
    lines.map(|line| wrapped(&line, COLUMNS).join("\n")).join("\n")
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
    let header = ["", ""].map(str::to_owned).into_iter().chain(subjects.iter().map(|s| aligned(&s.name, "", " ")));
    let mut table = new_table(header.collect(), charset);
    let mut row = |name: String, unit: &str, value: &dyn Fn(&SubjectFacts) -> String| {
        table.add_row([name, unit.to_owned()].into_iter().chain(subjects.iter().map(|facts| value(facts))));
    };
    row("usable".to_owned(), "MiB", &|facts| aligned(&(facts.usable_bytes >> 20).to_string(), "", " "));
    row("failures tolerated".to_owned(), "", &|facts| aligned(&facts.failures_tolerated.to_string(), "", " "));
    for (state, workload) in rows(report) {
        let name = row_name(state, workload);
        row(name, if shown_in_mb(&workload) { "MB/s" } else { "IOPS" }, &|facts| {
            let Some(cell) = report.cell(&facts.name, state, workload) else {
                return aligned(absent(facts, state), "", " ");
            };
            let share = cell.theory_percent.filter(|_| says_something(facts, cell));
            aligned(&value(cell), &percent(share), mark(&cell.disturbed))
        });
    }
    if !report.rebuilds.is_empty() {
        row("recovery".to_owned(), "MB/s", &|facts| match report.rebuild(&facts.name) {
            Some(rebuild) => {
                aligned(&mb(rebuild.mb_per_second.median), &percent(rebuild.theory_percent), mark(&rebuild.disturbed))
            }
            None => aligned(absent(facts, State::Degraded), "", " "),
        });
    }
    table.trim_fmt()
}

/// A value, its share and its mark, each in its place below the others.
fn aligned(value: &str, share: &str, mark: &str) -> String {
    format!("{value} {share:>4}{mark}")
}

fn percent(share: Option<Spread>) -> String {
    share.map_or(String::new(), |share| format!("{:.0}%", share.median))
}

fn absent(facts: &SubjectFacts, state: State) -> &'static str {
    if lost(facts, state) { "lost" } else { "-" }
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

fn row_name(state: State, workload: Workload) -> String {
    match state {
        State::Optimal => workload.to_string(),
        State::Degraded | State::Recovering => format!("{workload}, {state}"),
    }
}

/// A share is worth showing except where it is 100 % by definition: the yardstick itself.
pub(super) fn says_something(facts: &SubjectFacts, cell: &Cell) -> bool {
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

fn mark(disturbed: &[Disturbance]) -> &'static str {
    if disturbed.is_empty() { " " } else { "~" }
}

/// Every figure of every cell.
fn figures(report: &Report, charset: Charset) -> String {
    let header =
        ["workload", "subject", "IOPS", "MB/s", "±%", "p50 µs", "p99 µs", "p99.9 µs", "w/w", "B/B", "theory", ""];
    let mut table = new_table(header.map(str::to_owned).to_vec(), charset);
    for (state, workload) in rows(report) {
        let name = row_name(state, workload);
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
                percent(cell.theory_percent),
                mark(&cell.disturbed).trim().to_owned(),
            ]);
        }
    }
    table.trim_fmt()
}

fn notes(report: &Report) -> String {
    let mut notes = vec![
        "%  share of what theory allows from the raw file in the same run: its time for the member I/O a request \
         costs, one after the other, as on one thread and one store; parity arithmetic counts as free."
            .to_owned(),
        "±% half the distance between the slowest and the fastest repetition. w/w, B/B: writes to members per write, \
         bytes to members per byte written. Latencies are of all repetitions together."
            .to_owned(),
    ];
    if report.cells.iter().any(|cell| cell.theory_percent.is_some_and(|share| share.median > ABOVE_ALL)) {
        notes.push(
            "Above 100 %: an array has more requests under way than the raw file at the same queue depth, and a device \
             serves several at once; or it writes several members from one source that is in the CPU's cache by then."
                .to_owned(),
        );
    }
    for cell in report.cells.iter().filter(|cell| cell.errors > 0) {
        let error = cell.first_error.as_deref().unwrap_or("unknown");
        let (subject, workload, state, errors) = (&cell.subject, cell.workload, cell.state, cell.errors);
        notes.push(format!("!  {subject} {workload} ({state}): {errors} requests failed, the first with: {error}"));
    }
    notes.extend(disturbances(report).map(|disturbed| format!("~  {disturbed}")));
    notes.extend(report.partial.iter().map(|why| format!("!  {why}")));
    notes.iter().map(|note| wrapped(note, COLUMNS).join("\n   ")).collect::<Vec<_>>().join("\n")
}

/// How much of the report was disturbed, and by what; `None` if nothing was.
pub(super) fn disturbances(report: &Report) -> Option<String> {
    let (disturbed, all) = report.disturbed();
    let causes: Vec<String> = report.causes().iter().map(ToString::to_string).collect();
    (disturbed > 0).then(|| format!("disturbed: {disturbed} of {all} cells; at worst, {}.", causes.join(", ")))
}

/// A line under the header, no other.
fn style(charset: Charset) -> TableStyle {
    let line = match charset {
        Charset::Utf8 => '─',
        Charset::Ascii => '-',
    };
    TableStyle::new().header_separator(LineStyle::none().fill(line).junction(line))
}

/// A table with a line under its header, numbers to the right of the two columns of names.
fn new_table(header: Vec<String>, charset: Charset) -> Table {
    let mut table = Table::new();
    table.load_style(style(charset));
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding(if at == 0 { (0, 1) } else { (1, 0) });
        if at >= 2 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn the_tables_fit_a_terminal_of_120_columns() {
        let text = render(&fixture::report(), Charset::Utf8);
        let widest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(widest.chars().count() <= 120, "{} columns: {widest}", widest.chars().count());
        for word in ["raw file", "RAID10", "rand-mix70-4K-q32", "seq-read-1M-q4, degraded", "recovery", "lost"] {
            assert!(text.contains(word), "{word} in\n{text}");
        }
    }

    #[test]
    fn without_utf_8_there_is_ascii_alone() {
        assert!(render(&fixture::report(), Charset::Ascii).is_ascii());
    }

    #[test]
    fn figures_have_three_digits() {
        let figures = [0.0, 812.4, 999.6, 8123.0, 81_234.0, 812_345.0, 999_600.0, 1_234_567.0].map(count);
        assert_eq!(figures, ["0", "812", "1.00k", "8.12k", "81.2k", "812k", "1.00M", "1.23M"]);
        assert_eq!([0.44, 12.34, 123.4].map(microseconds), ["0.44", "12.3", "123"]);
        assert_eq!([0.44, 12.34].map(mb), ["0.4", "12"]);
    }

    #[test]
    fn beyond_one_table_the_raw_file_is_repeated() {
        let mut report = fixture::report();
        let more: Vec<SubjectFacts> = report.subjects[1..]
            .iter()
            .map(|facts| SubjectFacts { name: format!("{} 512K", facts.name), ..facts.clone() })
            .collect();
        report.subjects.extend(more);
        let groups = groups(&report);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6]);
        assert!(groups.iter().all(|group| group[0].shape == Shape::Single));
    }
}
