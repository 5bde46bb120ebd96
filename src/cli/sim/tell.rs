//! What a campaign came to, for people.

use std::io::{self, Write};
use std::path::Path;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use crate::block::Mark;
use crate::cli::output::{is_utf8, plain};
use crate::sim::campaign::{Counts, Found, Summary};

/// So many of the last things that happened tell how it came to a finding.
const STORY: usize = 3;
/// So many seeds are listed.
const SEEDS: usize = 12;

/// A word that a shell takes as it is.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+,:@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A finding, and what to type: of the file it is in, or to have it `kept` in one first.
pub fn finding(out: &mut impl Write, found: &Found, file: Option<&Path>, keep: &str) -> io::Result<()> {
    let Found { seed, level, event, .. } = found;
    let place = found.place.as_ref().map_or_else(String::new, |place| format!(", at {}", plain(place)));
    writeln!(out, "finding: seed {seed}, {level}, event {event}: {}{place}", plain(&found.reason))?;
    for line in found.what.lines() {
        writeln!(out, "  {}", plain(line))?;
    }
    let last = &found.story[found.story.len().saturating_sub(STORY)..];
    if !last.is_empty() {
        writeln!(out, "  last: {}", plain(&last.join("; ")))?;
    }
    let file = match file {
        Some(file) => file.display().to_string(),
        None => {
            writeln!(out, "  {keep}")?;
            format!("findings/{seed}.toml")
        }
    };
    let file = quoted(&file);
    writeln!(out, "  raidlab sim replay {file} --explain")?;
    writeln!(out, "  raidlab sim shrink {file}")
}

type Column = (&'static str, fn(&Counts) -> u64);

const COLUMNS: [Column; 12] = [
    ("lives", |counts| counts.lives),
    ("pass", |counts| counts.passes),
    ("finding", |counts| counts.findings),
    ("no promise", |counts| counts.no_promise),
    ("budget", |counts| counts.budget),
    ("ops", |counts| counts.ops),
    ("faults", |counts| counts.faults),
    ("held back", |counts| counts.held_back),
    ("recoveries", |counts| counts.recoveries),
    ("cuts", |counts| counts.cuts),
    ("crash points", |counts| counts.crash_points),
    ("views", |counts| counts.views),
];

/// The table, and a line for each thing it has no column for.
pub fn summary(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let line = if is_utf8() { '─' } else { '-' };
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill(line).junction(line)));
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([""].into_iter().chain(COLUMNS.map(|(name, _)| name)));
    let all = [("all", &summary.total)];
    for (name, counts) in summary.levels.iter().map(|(level, counts)| (level.as_str(), counts)).chain(all) {
        let cells = COLUMNS.map(|(_, count)| count(counts).to_string());
        table.add_row([plain(name)].into_iter().chain(cells));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if at > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in table.lines() {
        writeln!(out, "{}", row.trim_end())?;
    }

    let total = &summary.total;
    writeln!(
        out,
        "{} events, {} disk I/Os, {} s of virtual time; power cuts left {} arrays dirty and degraded, which were refused and forced, and {} with too few members",
        total.events,
        total.ios,
        total.virtual_ms / 1000,
        total.forced,
        total.refused
    )?;
    if total.idle_steps + total.never > 0 {
        writeln!(out, "{} steps found nothing to do, the moment of {} never came", total.idle_steps, total.never)?;
    }
    for (reason, lives) in &summary.no_promise {
        writeln!(out, "no promise: {} in {lives} lives whose disks lie", plain(reason))?;
    }
    if !summary.budget.is_empty() {
        writeln!(out, "given up after too many events: seeds {}", listed(summary.budget.iter()))?;
    }
    for (reason, seeds) in &summary.findings {
        writeln!(out, "finding: {}: seeds {}", plain(reason), listed(seeds.iter()))?;
    }
    let (struck, reachable) = summary.coverage.cells_reached();
    let never: Vec<&str> = summary.coverage.missing_marks().map(Mark::name).collect();
    writeln!(
        out,
        "coverage: {struck} of {reachable} cells (fault, state of the member, phase); rare branches: {} of {}{}",
        Mark::ALL.len() - never.len(),
        Mark::ALL.len(),
        if never.is_empty() { String::new() } else { format!(", never: {}", plain(&never.join(", "))) },
    )?;
    let speed = &summary.throughput;
    writeln!(
        out,
        "{:.1} s, {:.1} s of cores; a core and second: {:.1} lives, {:.0} crash points, {:.0} disk I/Os; trace {}",
        summary.wall_us as f64 / 1e6,
        summary.core_us as f64 / 1e6,
        speed.lives,
        speed.crash_points,
        speed.ios,
        summary.trace
    )
}

fn listed<'a>(seeds: impl ExactSizeIterator<Item = &'a u64>) -> String {
    let more = seeds.len().saturating_sub(SEEDS);
    let words: Vec<String> = seeds.take(SEEDS).map(u64::to_string).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    words.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_quoted_word_for_what_it_is() {
        assert_eq!(quoted("findings/7.toml"), "findings/7.toml");
        assert_eq!(quoted("my findings"), "'my findings'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_finding_says_what_to_type() {
        let found = Found {
            seed: 7,
            level: String::from("raid5"),
            reason: String::from("stuck"),
            what: String::from("nothing happens\nany more"),
            event: 12,
            place: None,
            file: None,
            story: ["op 0: flush", "op 1: read 0+8", "step 1: stop slot-0", "Fail"].map(String::from).to_vec(),
            scenario: String::new(),
        };
        let text = |file: Option<&str>| {
            let mut out = Vec::new();
            finding(&mut out, &found, file.map(Path::new), "raidlab sim run --seeds 7 --corpus findings")
                .expect("memory");
            String::from_utf8(out).expect("text")
        };
        let head = "finding: seed 7, raid5, event 12: stuck\n  nothing happens\n  any more\n  \
                    last: op 1: read 0+8; step 1: stop slot-0; Fail\n";
        assert_eq!(
            text(Some("a b/7.toml")),
            format!("{head}  raidlab sim replay 'a b/7.toml' --explain\n  raidlab sim shrink 'a b/7.toml'\n")
        );
        assert_eq!(
            text(None),
            format!(
                "{head}  raidlab sim run --seeds 7 --corpus findings\n  raidlab sim replay findings/7.toml --explain\n  \
                 raidlab sim shrink findings/7.toml\n"
            )
        );
    }
}
