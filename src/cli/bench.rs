//! `raidlab bench`: RAID levels compared on this computer.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use thiserror::Error;

use super::output;
use crate::bench::table::{self, Charset};
use crate::bench::yardstick::{self, Group};
use crate::bench::{
    ArraySpec, ArraySubject, Backend, Machine, Plan, ProgressLine, RawSubject, RealClock, Report, Series, State, Step,
    Store, Subject, Workload, parity, sim, svg, utc_now,
};
use crate::block::{SECTOR_BYTES, Sectors};
use crate::config::write_whole;
use crate::parity::Kernel;
use crate::raid::create::CreateError;
use crate::raid::geometry::GeometryError;
use crate::raid::level::Level;
use crate::units::Size;

/// Bytes of all images together.
const IMAGES: u64 = 1 << 30;

/// md has no smaller chunk, in bytes.
const CHUNK_LEAST: u64 = 4 << 10;

/// Members are whole multiples of this.
const MEMBER_UNIT: u64 = 64 << 10;

/// Where a report goes unless told otherwise.
const OUT: &str = "raidlab-bench";

/// Compare RAID levels on this computer.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: Option<Bench>,
    /// Levels to compare.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0,1,5,6,10")]
    levels: Vec<Level>,
    /// Members of each array.
    #[arg(long, value_name = "N", default_value_t = 4)]
    disks: usize,
    /// Chunk sizes; of several, each level is measured with each.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64K")]
    chunk: Vec<Size>,
    /// Workloads, such as rand-read, seq-write-1M-q4 or rand-mix70-4K-q32 [default: sequential and random reads,
    /// writes and a mix; reads alone on degraded arrays].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    workload: Vec<Workload>,
    /// States to measure in: optimal, degraded (one member missing), recovering.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "optimal,degraded,recovering", value_parser = state)]
    state: Vec<State>,
    /// How images are reached: mmap, file, uring (past the page cache) or mem (no files).
    #[arg(long, value_name = "B", default_value = "mmap")]
    backend: Backend,
    /// Repetitions of everything.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    reps: u32,
    /// Directory for report.json and report.svg; those of an earlier run are replaced [default: raidlab-bench].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Chooses offsets and data: the same seed, the same requests.
    #[arg(long, value_name = "N", default_value = "0x5eed", value_parser = seed)]
    seed: u64,
}

#[derive(Clone, Debug, Subcommand)]
enum Bench {
    /// How fast parity is computed here, by each kernel.
    Parity {
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// How fast this program is beside what it is to be measured by: limits of this computer, and its peers.
    #[command(name = "self")]
    Yardstick {
        /// What to measure; everything, if not told.
        #[arg(long, value_name = "parity,mapped", value_delimiter = ',', value_parser = group)]
        only: Vec<Group>,
        /// Rounds of each measurement.
        #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Show every measurement, not only what comes of them.
        #[arg(long)]
        cells: bool,
        /// Print the report as JSON, every measurement included.
        #[arg(long)]
        json: bool,
    },
    /// How fast the simulator is here.
    Sim {
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
}

fn group(name: &str) -> Result<Group, String> {
    let names: Vec<&str> = Group::ALL.into_iter().map(Group::name).collect();
    let known = Group::ALL.into_iter().find(|group| group.name() == name);
    known.ok_or_else(|| format!("there are {}", names.join(", ")))
}

fn state(name: &str) -> Result<State, String> {
    let known = [State::Optimal, State::Degraded, State::Recovering].into_iter().find(|s| s.to_string() == name);
    known.ok_or_else(|| "states are optimal, degraded and recovering".to_owned())
}

fn seed(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "a seed is a number of 64 bits, such as 7 or 0x5eed".to_owned())
}

/// Why there is no benchmark.
#[derive(Debug, Error)]
pub enum BenchFailure {
    /// What was asked for is impossible.
    #[error("{0}")]
    Usage(String),
    /// It could not be done here, or not to the end.
    #[error("{0}")]
    CouldNotRun(String),
}

impl BenchFailure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            BenchFailure::Usage(_) => 3,
            BenchFailure::CouldNotRun(_) => 4,
        }
    }
}

fn usage(text: impl Into<String>) -> BenchFailure {
    BenchFailure::Usage(text.into())
}

fn could_not(text: impl Into<String>) -> BenchFailure {
    BenchFailure::CouldNotRun(text.into())
}

/// Measures, prints, writes the report. Gives the exit code: 0, or 1 if requests failed.
///
/// # Errors
/// If what was asked for is impossible, could not be done, or was interrupted (the report of what had been measured is
/// printed and written then, too).
pub fn run(args: &BenchArgs, quiet: bool) -> Result<u8, BenchFailure> {
    Kernel::from_env().map_err(|error| usage(error.to_string()))?;
    match &args.what {
        Some(Bench::Parity { json }) => run_parity(*json, quiet),
        Some(Bench::Yardstick { only, rounds, cells, json }) => run_yardstick(only, *rounds, *cells, *json, quiet),
        Some(Bench::Sim { json }) => run_sim(*json, quiet),
        None => run_levels(args, quiet),
    }
}

fn charset() -> Charset {
    if output::is_utf8() { Charset::Utf8 } else { Charset::Ascii }
}

/// Data to standard output; a reader that has seen enough is no error.
fn print(text: &str) -> Result<(), BenchFailure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(could_not(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn run_parity(json: bool, quiet: bool) -> Result<u8, BenchFailure> {
    let line = ProgressLine::new(!quiet);
    let options = parity::Options::default();
    let report = parity::measure(&options, |done, all| {
        line.step(&Step { what: "parity".to_owned(), done: done as f64 / all as f64 });
    });
    drop(line);
    print_report(&report, json, table::parity)
}

fn run_yardstick(only: &[Group], rounds: u32, cells: bool, json: bool, quiet: bool) -> Result<u8, BenchFailure> {
    let line = ProgressLine::new(!quiet);
    let options = yardstick::Options { rounds: rounds as usize, ..yardstick::Options::default() };
    let groups = if only.is_empty() { &Group::ALL[..] } else { only };
    let stop = stop_flag().map_err(|error| could_not(format!("cannot watch for Ctrl-C: {error}")))?;
    let report = yardstick::measure(&options, groups, &mut |what, done| {
        line.step(&Step { what: what.to_owned(), done });
        !stop.load(Ordering::Relaxed)
    });
    drop(line);
    let report = report.ok_or_else(|| could_not("interrupted: there is no figure yet"))?;
    print_report(&report, json, |report, charset| table::yardstick(report, cells, charset))
}

fn run_sim(json: bool, quiet: bool) -> Result<u8, BenchFailure> {
    let line = ProgressLine::new(!quiet);
    let report = sim::measure(&sim::Options::default(), |done, all| {
        line.step(&Step { what: "sim".to_owned(), done: done as f64 / all as f64 });
    });
    drop(line);
    print_report(&report, json, table::sim)
}

fn print_report<R: Serialize>(
    report: &R,
    json: bool,
    table: impl Fn(&R, Charset) -> String,
) -> Result<u8, BenchFailure> {
    if json {
        let mut text = serde_json::to_string_pretty(report).expect("a report is numbers and names");
        text.push('\n');
        print(&text)?;
    } else {
        print(&table(report, charset()))?;
    }
    Ok(0)
}

/// The arrays to compare, each with its name.
fn specs(args: &BenchArgs) -> Result<Vec<(String, ArraySpec)>, BenchFailure> {
    let mut asked: Vec<(Level, Size)> = Vec::new();
    let mut chunks = args.chunk.clone();
    chunks.sort_unstable();
    chunks.dedup();
    for level in &args.levels {
        // RAID1 has no chunks.
        let chunks = if *level == Level::Raid1 { &chunks[..1] } else { &chunks[..] };
        for chunk in chunks {
            if chunk.0 < CHUNK_LEAST || !chunk.0.is_multiple_of(SECTOR_BYTES) {
                return Err(usage(format!("--chunk {}: give a power of two from 4K to 4M", chunk.0)));
            }
            if !asked.contains(&(*level, *chunk)) {
                asked.push((*level, *chunk));
            }
        }
    }
    let member = IMAGES / (asked.len() as u64 + 1) / (args.disks as u64).max(1) / MEMBER_UNIT * MEMBER_UNIT;
    let spec = |(level, chunk): (Level, Size)| {
        let number = level.md_number();
        let name = match level {
            Level::Raid1 => "RAID1".to_owned(),
            _ if chunks.len() == 1 => format!("RAID{number}"),
            _ => format!("RAID{number} {chunk}"),
        };
        let spec = ArraySpec {
            level,
            disks: args.disks,
            chunk: Sectors::floor_bytes(chunk.0),
            member: Sectors::floor_bytes(member),
        };
        spec.check().map_err(|error| impossible(&name, member, &error))?;
        Ok((name, spec))
    };
    asked.into_iter().map(spec).collect()
}

fn impossible(name: &str, member: u64, error: &CreateError) -> BenchFailure {
    match error {
        CreateError::TooSmall { .. }
        | CreateError::Geometry(GeometryError::TooSmall { .. })
        | CreateError::Layout(_) => usage(format!(
            "{name}: of {} in all, {} are left for each image, which is too little; take fewer --levels, --disks or \
                 --chunk, or a smaller --chunk",
            Size(IMAGES),
            Size(member)
        )),
        CreateError::Geometry(GeometryError::Disks { .. }) => {
            usage(format!("{name}: {error} with --disks, or leave the level out of --levels"))
        }
        _ => usage(format!("{name}: {error}")),
    }
}

fn plan(args: &BenchArgs, specs: &[(String, ArraySpec)]) -> Result<Plan, BenchFailure> {
    let wants = |state| args.state.contains(&state);
    let redundant = specs.iter().any(|(_, spec)| spec.shape().failures_tolerated() > 0);
    if !wants(State::Optimal) && !redundant {
        return Err(usage(
            "RAID0 has no redundancy: it is only ever optimal; add another of --levels, or --state optimal",
        ));
    }
    let mut asked: Vec<Workload> = Vec::new();
    for workload in &args.workload {
        if !asked.contains(workload) {
            asked.push(*workload);
        }
    }
    let chosen = |state, defaults: Vec<Workload>| match (wants(state), asked.is_empty()) {
        (false, _) => Vec::new(),
        (true, true) => defaults,
        (true, false) => asked.clone(),
    };
    let defaults = Plan::defaults(args.seed);
    let plan = Plan {
        workloads: chosen(State::Optimal, Workload::defaults()),
        degraded: chosen(State::Degraded, Workload::degraded_defaults()),
        recovery: wants(State::Recovering),
        reps: args.reps,
        ..defaults
    };
    // More than the defaults may take longer.
    let shapes: Vec<_> =
        std::iter::once(crate::bench::Shape::Single).chain(specs.iter().map(|s| s.1.shape())).collect();
    let estimate = Plan { limit: Duration::MAX, ..plan.clone() }.estimate(&shapes);
    Ok(Plan { limit: plan.limit.max(estimate), ..plan })
}

fn run_levels(args: &BenchArgs, quiet: bool) -> Result<u8, BenchFailure> {
    let specs = specs(args)?;
    let plan = plan(args, &specs)?;
    let out = place_for_report(args.out.as_deref())?;
    let stop = stop_flag().map_err(|error| could_not(format!("cannot watch for Ctrl-C: {error}")))?;

    let clock = RealClock::start();
    let date = utc_now();
    let (store, fallback) = Store::new(args.backend, &std::env::temp_dir());
    let raw_size: u64 = specs.first().map_or(IMAGES, |(_, spec)| spec.member.bytes() * spec.disks as u64);
    let mut raw =
        RawSubject::new(Sectors::floor_bytes(raw_size), &store).map_err(|error| could_not(error.to_string()))?;
    let mut arrays = Vec::new();
    for (name, spec) in specs {
        if stop.load(Ordering::Relaxed) {
            return Err(could_not("interrupted before anything was measured"));
        }
        arrays.push(ArraySubject::new(name, spec, &store, clock).map_err(|error| could_not(error.to_string()))?);
    }
    let measured = store.measured(raw.is_direct() && arrays.iter().all(ArraySubject::is_direct));

    let line = ProgressLine::new(!quiet);
    let mut watch = |step: &Step| line.step(step);
    let mut subjects: Vec<&mut dyn Subject> = vec![&mut raw];
    subjects.extend(arrays.iter_mut().map(|array| array as &mut dyn Subject));
    let findings = Series::new(plan.clone(), &clock, &stop, &mut watch).run(&mut subjects);
    drop(line);
    let mut findings = findings.map_err(|error| could_not(error.to_string()))?;
    findings.partial.extend(fallback);
    let command = std::env::args().collect();
    let report = Report::new(&plan, findings, Machine::this(), measured, date, command);

    print(&if args.json { report.to_json() } else { table::render(&report, charset()) })?;
    if let Some(out) = out {
        let written = write_report(&out, &report)?;
        if !quiet {
            anstream::eprintln!("{written}");
        }
    }
    if stop.load(Ordering::Relaxed) {
        return Err(could_not("interrupted: the report holds what had been measured until then"));
    }
    Ok(u8::from(report.cells.iter().any(|cell| cell.errors > 0)))
}

/// Where the report will be written. A directory that was asked for must be usable before an hour of measuring is lost;
/// without the default one, the table is still worth having.
fn place_for_report(asked: Option<&Path>) -> Result<Option<PathBuf>, BenchFailure> {
    let out = asked.unwrap_or(Path::new(OUT));
    let usable = fs::create_dir_all(out).and_then(|()| tempfile::tempfile_in(out));
    match usable {
        Ok(_) => Ok(Some(out.to_owned())),
        Err(error) => {
            let text = format!("cannot write reports to {}: {error}; name another directory with --out", out.display());
            if asked.is_some() {
                return Err(could_not(text));
            }
            anstream::eprintln!("{text}. Nothing but standard output will hold the figures.");
            Ok(None)
        }
    }
}

fn write_report(out: &Path, report: &Report) -> Result<String, BenchFailure> {
    let (json, picture) = (out.join("report.json"), out.join("report.svg"));
    write_whole(&json, report.to_json().as_bytes()).map_err(|error| could_not(error.to_string()))?;
    write_whole(&picture, svg::draw(report).as_bytes()).map_err(|error| could_not(error.to_string()))?;
    Ok(format!("written: {} and {}", json.display(), picture.display()))
}

/// Set by the first Ctrl-C, which ends the measurement; the second one ends the program.
fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 4, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn args(line: &str) -> BenchArgs {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).bench
    }

    fn refusal(line: &str) -> String {
        let args = args(line);
        let refused = specs(&args).and_then(|specs| plan(&args, &specs)).map(drop).expect_err(line);
        assert_eq!(refused.code(), 3, "{refused}");
        refused.to_string()
    }

    #[test]
    fn without_arguments_it_is_what_fits_in_ninety_seconds() {
        let args = args("");
        let specs = specs(&args).unwrap();
        let names: Vec<&str> = specs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["RAID0", "RAID1", "RAID5", "RAID6", "RAID10"]);
        let images: u64 = specs.iter().map(|(_, spec)| spec.member.bytes() * spec.disks as u64).sum();
        assert!(images + specs[0].1.member.bytes() * 4 <= IMAGES);
        let plan = plan(&args, &specs).unwrap();
        assert_eq!(plan, Plan::defaults(0x5eed));
    }

    #[test]
    fn several_chunks_are_several_arrays_but_of_raid1() {
        let specs = specs(&args("--levels 1,5,5 --chunk 512K,64K")).unwrap();
        let names: Vec<&str> = specs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["RAID1", "RAID5 64K", "RAID5 512K"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_type() {
        assert!(refusal("--disks 3 --levels 6").starts_with("RAID6: raid6 takes 4 to 64 disks, not 3"));
        assert!(specs(&args("--disks 3 --levels 10")).is_ok());
        assert!(refusal("--chunk 100K").contains("power of two"));
        assert!(refusal("--chunk 1").contains("power of two"));
        assert!(refusal("--disks 64 --levels 0,1,4,5,6,10 --chunk 1M,2M,4M").contains("fewer --levels"));
        assert!(refusal("--levels 0 --state degraded").contains("no redundancy"));
        for line in
            ["--workload scan", "--state odd", "--backend tape", "--reps 0", "--seed x", "--levels 7", "--disk hdd"]
        {
            let words = std::iter::once("bench").chain(line.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
        assert!(Line::try_parse_from(["bench", "parity", "--json"]).is_ok());
        assert!(Line::try_parse_from(["bench", "sim", "--json"]).is_ok());
        assert!(Line::try_parse_from(["bench", "--reps", "2", "parity"]).is_err());
    }

    #[test]
    fn states_and_workloads_are_those_asked_for() {
        let args = args("--state degraded --workload rand-write,seq-read,rand-write --seed 7");
        let plan = plan(&args, &specs(&args).unwrap()).unwrap();
        assert!(plan.workloads.is_empty() && !plan.recovery);
        assert_eq!((plan.degraded.len(), plan.seed), (2, 7));
    }

    #[test]
    fn a_directory_that_was_asked_for_must_take_the_report() {
        assert!(place_for_report(Some(Path::new("/proc/no/such"))).is_err());
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("a/b");
        assert_eq!(place_for_report(Some(&out)).unwrap(), Some(out));
    }
}
