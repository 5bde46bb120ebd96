//! `sim mutants`: how soon drawn lives find known bugs, put back one at a time.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::super::run::stop_flag;
use super::replay::quietly;
use super::run::CrashPoints;
use crate::cli::output::{is_utf8, plain};
use crate::cli::{Failure, Manner, Outcome};
use crate::raid::mutant::{Mutant, switch_on};
use crate::sim::campaign::seed;
use crate::sim::fabrics::Fabrics;
use crate::sim::shrink::{fails_again, scenario_file, shrink_by};
use crate::sim::{Effort, Finding, Scenario, Verdict, Wish, draw, live};
use crate::units::Span;

const SCHEMA: &str = "raidlab-sim-mutants/v1";

/// A finding is shrunk to so many operations and steps.
const SHORT: usize = 20;
/// In so much time of a core a mutant is to be found, by the median, and its finding shrunk.
const SOON: Duration = Duration::from_secs(60);

/// Arguments of `sim mutants`.
#[derive(Args, Debug)]
pub struct MutantsArgs {
    /// Only these, such as M1 and X3 [default: all that drawn lives find within minutes]
    #[arg(value_name = "MUTANT")]
    mutants: Vec<Mutant>,
    /// So many seeds for each at most
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value = "1", value_parser = seed)]
    start: u64,
    /// So much time of a core for each at most
    #[arg(long = "for", value_name = "DURATION", default_value = "2m")]
    time: Span,
    /// Before which events the power of a copy is cut: every, every Nth, none, or a sample [default: 37; none for bugs of
    /// paths, which show without]
    #[arg(long, value_name = "every|N|none|sample")]
    crash_points: Option<CrashPoints>,
    /// Mutants at a time [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// Shrink nothing
    #[arg(long)]
    no_shrink: bool,
    /// Where the short scenarios are kept, as M1.toml
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// JSON on standard output
    #[arg(long)]
    json: bool,
}

/// What became of a mutant.
#[derive(Serialize)]
struct Hunted {
    mutant: String,
    source: &'static str,
    /// Seeds lived, the one that found it included.
    seeds: u64,
    /// Time of a core until it was found, or until the hunt was given up.
    core_s: f64,
    /// Seeds that failed without it, too, and so prove nothing.
    fails_without: Vec<u64>,
    #[serde(flatten)]
    found: Option<Found>,
}

/// How a mutant was found.
#[derive(Serialize)]
struct Found {
    seed: u64,
    reason: String,
    what: String,
    /// Operations and steps of the scenario that failed.
    length: usize,
    /// Operations and steps of the short one.
    length_short: usize,
    /// Time of a core until it was short enough.
    short_core_s: Option<f64>,
    /// Time of a core until nothing made it shorter, or time was up.
    shrink_core_s: f64,
    /// The short scenario.
    scenario: String,
}

/// All of them.
#[derive(Serialize)]
struct Told<'a> {
    schema: &'static str,
    mutants: &'a [Hunted],
    found: usize,
    short: usize,
    median_core_s: Option<f64>,
}

/// Runs `sim mutants`.
pub fn run(args: &MutantsArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let drawn: Vec<Mutant> = Mutant::ALL.iter().copied().filter(|mutant| mutant.shows_in_drawn_lives()).collect();
    let mutants: &[Mutant] = if args.mutants.is_empty() { &drawn } else { &args.mutants };
    if let Some(folder) = &args.keep {
        let made = fs::create_dir_all(folder);
        made.map_err(|error| Failure::cannot(format!("cannot make {}: {error}", folder.display())))?;
    }
    let hunted = quietly(|| hunt_all(args, mutants, manner));
    if let Some(folder) = &args.keep {
        for Hunted { mutant, found, .. } in &hunted {
            let Some(found) = found else { continue };
            let path = folder.join(format!("{mutant}.toml"));
            let written = fs::write(&path, &found.scenario);
            written.map_err(|error| Failure::cannot(format!("cannot write {}: {error}", path.display())))?;
        }
    }
    let found = hunted.iter().filter(|hunted| hunted.found.is_some()).count();
    let short = hunted.iter().filter_map(|hunted| hunted.found.as_ref()).filter(|found| found.is_short()).count();
    let median_core_s = median(&hunted);
    if args.json {
        let told = Told { schema: SCHEMA, mutants: &hunted, found, short, median_core_s };
        writeln!(out, "{}", serde_json::to_string_pretty(&told).expect("words and numbers"))?;
    } else {
        write!(out, "{}", table(&hunted))?;
        let median = median_core_s.map_or_else(|| String::from("more than there was"), |time| format!("{time:.1} s"));
        writeln!(
            out,
            "{found} of {} found, the median in {median} of a core; {short} of them shrunk to {SHORT} operations and \
             steps or fewer in less than {} s",
            hunted.len(),
            SOON.as_secs()
        )?;
    }
    if hunted.len() < mutants.len() {
        out.flush()?;
        return Err(Failure { code: 4, message: String::from("interrupted") });
    }
    Ok(u8::from(found < mutants.len()))
}

impl Found {
    fn is_short(&self) -> bool {
        self.short_core_s.is_some_and(|time| time < SOON.as_secs_f64())
    }
}

/// All of them, several at a time, in the order given; those that an interruption left out are missing.
fn hunt_all(args: &MutantsArgs, mutants: &[Mutant], manner: Manner) -> Vec<Hunted> {
    let jobs = args.jobs.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), |jobs| jobs as usize);
    let target = if manner.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("mutants [{bar:30}] {pos} of {len}  {elapsed}").expect("it is a template");
    let bar = ProgressBar::with_draw_target(Some(mutants.len() as u64), target).with_style(style);
    let (stop, next, done) = (stop_flag(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..jobs.min(mutants.len()) {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(hunted) = hunt(*mutant, args, &stop) else { return };
                    done.lock().expect("whoever holds it does not panic").push((*mutant, hunted));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().expect("whoever held it did not panic");
    done.sort_by_key(|(mutant, _)| mutants.iter().position(|other| other == mutant));
    done.into_iter().map(|(_, hunted)| hunted).collect()
}

/// One seed after the other, until one fails with the mutant and passes without it. `None`: interrupted.
fn hunt(mutant: Mutant, args: &MutantsArgs, stop: &AtomicBool) -> Option<Hunted> {
    let began = core_time();
    let usual = if mutant.is_of_paths() { CrashPoints::None } else { CrashPoints::Nth(37) };
    let effort = args.crash_points.unwrap_or(usual).effort();
    let paths = |seed: u64| if mutant.is_of_paths() { Fabrics::in_turn(seed) } else { Fabrics::NONE };
    let mut hunted = Hunted {
        mutant: mutant.id().to_owned(),
        source: mutant.source(),
        seeds: 0,
        core_s: 0.0,
        fails_without: Vec::new(),
        found: None,
    };
    let mut finding = None;
    while finding.is_none() && hunted.seeds < args.seeds && core_time() - began < args.time.0 {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let seed = args.start + hunted.seeds;
        hunted.seeds += 1;
        finding = fails(mutant, &draw(seed, &Wish { paths: paths(seed), ..Wish::default() }), effort);
        if let Some(own) = finding.take_if(|finding| fails_without(finding)) {
            hunted.fails_without.push(own.scenario.seed);
        }
    }
    hunted.core_s = (core_time() - began).as_secs_f64();
    let limit = if args.no_shrink { Duration::ZERO } else { SOON };
    hunted.found = finding.map(|finding| shrunk(mutant, &finding, limit, stop));
    Some(hunted)
}

fn fails(mutant: Mutant, scenario: &Scenario, effort: Effort) -> Option<Finding> {
    let _on = switch_on(Some(mutant));
    match live(scenario, effort).1 {
        Verdict::Finding(finding) => Some(*finding),
        _ => None,
    }
}

/// Whether what failed with a mutant fails without it.
fn fails_without(finding: &Finding) -> bool {
    let _off = switch_on(None);
    matches!(live(&finding.scenario, Effort::PLAIN).1, Verdict::Finding(_))
}

/// Shrinks a finding, in no more time of a core than `limit`.
fn shrunk(mutant: Mutant, finding: &Finding, limit: Duration, stop: &AtomicBool) -> Found {
    let began = core_time();
    let mut again = fails_again(finding);
    let mut judge = |candidate: &Scenario| {
        let _on = switch_on(Some(mutant));
        again(candidate).filter(|finding| !fails_without(finding))
    };
    let mut short = None;
    let shrunk = shrink_by(finding, &mut judge, &mut |sofar| {
        if sofar.length <= SHORT {
            short.get_or_insert_with(|| core_time() - began);
        }
        core_time() - began < limit && !stop.load(Ordering::Relaxed)
    });
    if shrunk.after <= SHORT {
        short.get_or_insert_with(|| core_time() - began);
    }
    Found {
        seed: finding.scenario.seed,
        reason: finding.failed.reason().to_string(),
        what: shrunk.finding.failed.to_string(),
        length: shrunk.before,
        length_short: shrunk.after,
        short_core_s: short.map(|time| time.as_secs_f64()),
        shrink_core_s: (core_time() - began).as_secs_f64(),
        scenario: scenario_file(&shrunk.finding),
    }
}

/// Time this thread has had of a core.
fn core_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Those that were not found took longer than any.
fn median(hunted: &[Hunted]) -> Option<f64> {
    let time = |hunted: &Hunted| if hunted.found.is_some() { hunted.core_s } else { f64::INFINITY };
    let mut times: Vec<f64> = hunted.iter().map(time).collect();
    times.sort_by(f64::total_cmp);
    let (below, above) = (times.get(times.len().saturating_sub(1) / 2)?, times.get(times.len() / 2)?);
    Some((below + above) / 2.0).filter(|median| median.is_finite())
}

fn table(hunted: &[Hunted]) -> String {
    let line = if is_utf8() { '─' } else { '-' };
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill(line).junction(line)));
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["", "source", "seeds", "core s", "found as", "length", "short s", "shrink s"]);
    for Hunted { mutant, source, seeds, core_s, found, .. } in hunted {
        let (reason, length, short, shrink) = match found {
            Some(found) => (
                plain(&found.reason),
                format!("{} of {}", found.length_short, found.length),
                found.short_core_s.map_or_else(String::new, |time| format!("{time:.1}")),
                format!("{:.1}", found.shrink_core_s),
            ),
            None => (String::from("not found"), String::new(), String::new(), String::new()),
        };
        let (seeds, core_s) = (seeds.to_string(), format!("{core_s:.1}"));
        table.add_row([mutant.clone(), plain(source), seeds, core_s, reason, length, short, shrink]);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if ![0, 1, 4].contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text: String = table.lines().map(|row| row.trim_end().to_owned() + "\n").collect();
    let own: Vec<String> = hunted
        .iter()
        .filter(|hunted| !hunted.fails_without.is_empty())
        .flat_map(|hunted| hunted.fails_without.iter().map(u64::to_string))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    if !own.is_empty() {
        text += &format!("fail without a mutant, too: seeds {}\n", own.join(", "));
    }
    text
}
