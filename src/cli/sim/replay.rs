//! `sim replay`: a scenario or a seed, lived once more.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::super::{Failure, Manner, Outcome};
use super::run::fabrics;
use crate::block::Lba;
use crate::raid::level::Level;
use crate::sim::campaign::check_wish;
use crate::sim::explain::{Line, Story, explain};
use crate::sim::fabrics::Fabrics;
use crate::sim::scenario::ScenarioError;
use crate::sim::{Cuts, Effort, Harm, Promise, Report, Scenario, Verdict, Wish, draw, live};

const SCHEMA: &str = "raidlab-sim-replay/v1";

/// Which life, and how much is tried in it.
#[derive(Args, Debug)]
pub struct LifeArgs {
    /// A scenario file, or a seed
    #[arg(value_name = "FILE|SEED")]
    source: String,
    /// The level that `sim run` drew the seed for
    #[arg(long, value_name = "L")]
    level: Option<Level>,
    /// The number of disks that `sim run` drew the seed for
    #[arg(long, value_name = "N")]
    disks: Option<usize>,
    /// The faults that `sim run` drew the seed for
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = harm)]
    faults: Vec<Harm>,
    /// The paths that `sim run` drew the seed for
    #[arg(long, value_name = "none|volume|members|both", value_parser = fabrics, default_value = "none")]
    paths: Fabrics,
    /// The disks lend what they hold: `sim run --mapped` drew the seed
    #[arg(long)]
    mapped: bool,
    /// Where the power of copies is cut: none, sample, every, or every N events [default: sample for a seed, none for a file]
    #[arg(long, value_name = "WHERE", value_parser = crash_points)]
    crash_points: Option<Cuts>,
}

/// Arguments of `sim replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    #[command(flatten)]
    life: LifeArgs,
    /// Tell the story: what happened when, and who held what of the wrong sector's row
    #[arg(long)]
    explain: bool,
    /// With --explain, look at the row of this sector of the volume
    #[arg(long, value_name = "LBA", requires = "explain")]
    sector: Option<u64>,
    /// JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A life to be lived.
pub(super) struct Life {
    pub scenario: Scenario,
    pub effort: Effort,
    /// The file it comes from.
    pub file: Option<PathBuf>,
}

fn harm(word: &str) -> Result<Harm, String> {
    let known = Harm::ALL.map(|(_, name)| name).join(", ");
    Harm::parse(word).ok_or_else(|| format!("faults are {known}"))
}

fn crash_points(word: &str) -> Result<Cuts, String> {
    match word {
        "none" => Ok(Cuts::None),
        "sample" => Ok(Effort::SAMPLE.cuts),
        "every" => Ok(Cuts::Every(1)),
        _ => match word.parse() {
            Ok(every) if every > 0 => Ok(Cuts::Every(every)),
            _ => Err("say none, sample, every, or a number of events".to_owned()),
        },
    }
}

impl LifeArgs {
    /// The scenario that is meant.
    pub(super) fn life(&self) -> Result<Life, Failure> {
        let LifeArgs { source, level, disks, crash_points, mapped, .. } = self;
        let effort = |usual: Effort| Effort { cuts: crash_points.unwrap_or(usual.cuts), ..usual };
        let (faults, paths) = (self.faults.clone(), self.paths);
        let wish = Wish { level: *level, disks: *disks, faults, paths, mapped: *mapped };
        let path = Path::new(source);
        match seed(source) {
            Some(seed) if seed < 1 << 63 => {
                Ok(Life { scenario: drawn(seed, &wish)?, effort: effort(Effort::SAMPLE), file: None })
            }
            Some(_) => Err(Failure::usage(format!("seed {source} is too large: seeds are below 2^63"))),
            None if !path.exists() && source.starts_with(|c: char| c.is_ascii_digit()) && !source.contains('.') => Err(
                Failure::usage(format!("`{source}` is no seed, and no file: seeds are numbers such as 7 or 0x5eed")),
            ),
            None if wish != Wish::default() => Err(Failure::usage(
                "--level, --disks, --faults, --paths and --mapped say what a seed is drawn for; a file has its own",
            )),
            None => Ok(Life { scenario: read(path)?, effort: effort(Effort::PLAIN), file: Some(path.to_owned()) }),
        }
    }
}

/// A number, in the ways numbers are typed.
fn seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn drawn(seed: u64, wish: &Wish) -> Result<Scenario, Failure> {
    check_wish(wish).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(draw(seed, wish))
}

/// A scenario file.
fn read(path: &Path) -> Result<Scenario, Failure> {
    let cannot = |error| Failure::cannot(format!("cannot read {}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(cannot)?;
    Scenario::parse(&text).map_err(|error| {
        let place = match &error {
            ScenarioError::Misfit { part, .. } => place(&text, part),
            ScenarioError::Text(_) => None,
        };
        let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        Failure::cannot(format!("{}{place}: {error}", path.display()))
    })
}

/// Line and column of a part of a scenario, which names itself ``clients.ops[3], `WORDS` `` or ``step 3, `WORDS` ``.
fn place(text: &str, part: &str) -> Option<(usize, usize)> {
    let (owner, words) =
        part.split_once(", `").map_or((part, ""), |(owner, words)| (owner, words.trim_end_matches('`')));
    let at = match owner.strip_prefix("step ") {
        Some(id) => {
            let steps = text.match_indices("[[step]]").map(|(at, _)| at);
            let is_it =
                |line: &str| line.split_once('=').is_some_and(|(key, value)| key.trim() == "id" && value.trim() == id);
            let step = steps.filter(|at| text[at + 8..].lines().take_while(|line| !line.starts_with('[')).any(is_it));
            let last = step.last()?;
            last + text[last..].find(&format!("\"{words}\"")).unwrap_or(0)
        }
        None if owner == "clients.depth" => text.find("depth")?,
        None => text.find(&format!("\"{words}\""))?,
    };
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    Some((line, at - before.rfind('\n').map_or(0, |newline| newline + 1) + 1))
}

/// Without what a panic prints: in a life it is a finding like others.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = work();
    std::panic::set_hook(usual);
    done
}

/// Runs `sim replay`.
pub fn run(args: &ReplayArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let Life { scenario, effort, .. } = args.life.life()?;
    let lba = args.sector.map(Lba);
    if let Some(lba) = lba.filter(|lba| lba.0 >= scenario.capacity().0) {
        let capacity = scenario.capacity().0;
        return Err(Failure::usage(format!("--sector {}: the volume has {capacity} sectors", lba.0)));
    }
    let (report, verdict, story) = quietly(|| {
        if args.explain {
            let (report, verdict, story) = explain(&scenario, effort, lba);
            (report, verdict, Some(story))
        } else {
            let (report, verdict) = live(&scenario, effort);
            (report, verdict, None)
        }
    });
    if args.json {
        let text = serde_json::to_string_pretty(&Told::new(&scenario, &report, &verdict, story.as_ref()));
        writeln!(out, "{}", text.expect("words and numbers"))?;
    } else {
        if let Some(story) = &story {
            writeln!(out, "{story}")?;
        }
        writeln!(out, "{}", verdict_words(&report, &verdict))?;
    }
    let Verdict::Finding(_) = verdict else { return Ok(0) };
    if !args.explain && !args.json {
        manner.hint(&format!("its story: raidlab sim replay {} --explain", args.life.typed()));
        manner.hint(&format!("shorter: raidlab sim shrink {}", args.life.typed()));
    }
    Ok(1)
}

impl LifeArgs {
    /// As it was typed.
    fn typed(&self) -> String {
        let mut typed = self.source.clone();
        if let Some(level) = self.level {
            typed += &format!(" --level {level}");
        }
        if let Some(disks) = self.disks {
            typed += &format!(" --disks {disks}");
        }
        if !self.faults.is_empty() {
            let names: Vec<&str> = self.faults.iter().map(|harm| harm.name()).collect();
            typed += &format!(" --faults {}", names.join(","));
        }
        if self.paths.any() {
            typed += &format!(" --paths {}", self.paths.name());
        }
        if self.mapped {
            typed += " --mapped";
        }
        match self.crash_points {
            Some(Cuts::None) => typed += " --crash-points none",
            Some(Cuts::Every(1)) => typed += " --crash-points every",
            Some(Cuts::Every(every)) => typed += &format!(" --crash-points {every}"),
            Some(Cuts::Like(_) | Cuts::All(_)) | None => {}
        }
        typed
    }
}

fn verdict_words(report: &Report, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => {
            let Report { ops, faults, events, cuts, tally, .. } = report;
            let promise = match report.promise {
                Promise::Detected => "every fault showed itself",
                Promise::Silent => "some faults were silent",
                Promise::None => "nothing was promised",
            };
            let time = report.time.as_secs_f64();
            let cuts = cuts + tally.cuts;
            format!(
                "pass: {ops} operations, {faults} faults, {cuts} power cuts, {events} events in {time:.3} s; {promise}"
            )
        }
        Verdict::Finding(finding) => format!("finding: {}\n{finding}", finding.failed.reason()).trim_end().to_owned(),
        Verdict::NoPromise(failed) => format!("no promise: {failed}"),
        Verdict::Budget => format!("given up after {} events", report.events),
    }
}

/// A replay as JSON.
#[derive(Serialize)]
struct Told<'a> {
    schema: &'static str,
    seed: u64,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    /// The scenario, ending where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<String>,
    events: u64,
    ops: u64,
    faults: u64,
    cuts: u64,
    time_ns: u64,
    trace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    story: Option<&'a [Line]>,
}

impl<'a> Told<'a> {
    fn new(scenario: &Scenario, report: &Report, verdict: &Verdict, story: Option<&'a Story>) -> Told<'a> {
        let (verdict, failed, ends) = match verdict {
            Verdict::Pass => ("pass", None, None),
            Verdict::Finding(finding) => ("finding", Some(&finding.failed), Some(&finding.scenario)),
            Verdict::NoPromise(failed) => ("no-promise", Some(failed), None),
            Verdict::Budget => ("given-up", None, None),
        };
        Told {
            schema: SCHEMA,
            seed: scenario.seed,
            verdict,
            reason: failed.map(|failed| failed.reason().to_string()),
            failed: failed.map(ToString::to_string),
            scenario: ends.map(Scenario::to_toml),
            events: report.events,
            ops: report.ops,
            faults: report.faults,
            cuts: report.cuts + report.tally.cuts,
            time_ns: report.time.as_nanos() as u64,
            trace: format!("{:016x}", report.trace.0),
            place: story.and_then(Story::place),
            story: story.map(Story::lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "[clients]\nops = [\"flush\",\n  \"read 0+9\"]\n\n[[step]]\nid = 2\nwhen = \"op 1\"\ndo = \"add\"\n";

    #[test]
    fn a_part_that_does_not_fit_is_pointed_at() {
        assert_eq!(place(TEXT, "clients.ops[1], `read 0+9`"), Some((3, 3)));
        assert_eq!(place(TEXT, "step 2, `op 1`"), Some((7, 8)));
        assert_eq!(place(TEXT, "step 2, `add`"), Some((8, 6)));
        assert_eq!(place(TEXT, "step 9, `add`"), None);
    }
}
