//! `sim exhaust`: every word of a small space, on all cores, until none is left or Ctrl-C.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::corpus::Corpus;
use super::crew::{self, micros, stop_flag};
use super::tell::quoted;
use crate::cli::output::{is_utf8, plain};
use crate::cli::{Failure, Manner, Outcome};
use crate::raid::level::Level;
use crate::sim::Verdict;
use crate::sim::campaign::{Found, Shard, ShardWish, seed};
use crate::sim::exhaust::{Lived, Scope, Space};

const SCHEMA: &str = "raidlab-sim-exhaust/v1";

const LONG: &str = "Live every short story there is on the smallest arrays, cutting the power before every event in every \
way\n\nA story is a few operations and faults in every order; after the last of them the power of a copy is cut before \
every event, for every combination of the sectors that may survive while there are at most 16, and what comes up must \
assemble, recover, read right, check clean, and read right from every view with more members lost.";

/// Arguments of `sim exhaust`.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_long_help = TIMES)]
pub struct ExhaustArgs {
    /// Only this level
    #[arg(long, value_name = "L")]
    level: Option<Level>,
    /// Operations of a story, at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=4))]
    ops: u8,
    /// Faults of a story, at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=3))]
    faults: u8,
    /// Stripes of the array, at most; md's metadata wants 10 sectors of every member
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(2..=64))]
    stripes: u64,
    /// Members [default: the fewest that reach every plan of the level, or nearly so]
    #[arg(long, value_name = "N")]
    disks: Option<usize>,
    /// Arrays with a write-intent bitmap
    #[arg(long)]
    bitmap: bool,
    /// 2: the recovery from each power cut is cut off again, before every event
    #[arg(long, value_name = "1|2", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    depth: u8,
    /// Decides how long disks take, and so in which order they answer
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = seed)]
    seed: u64,
    /// Only so many stories of each level, from all parts of the space
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    /// Begin at this story: where an interrupted run goes on
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// One of N equal parts, from 0/N to N-1/N; auto asks the scheduler of the cluster (a Slurm array, or, as auto/N, a
    /// Kubernetes Indexed Job)
    #[arg(long, value_name = "I/N|auto|auto/N")]
    shard: Option<ShardWish>,
    /// Stories at a time [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// Where scenarios of findings are kept
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Begin no story after so many findings
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_findings: Option<u64>,
    /// Print lines of JSON: findings as they come, and the summary last
    #[arg(long)]
    json: bool,
}

const TIMES: &str =
    "How long it takes grows fast. Measured in November 2026 on one core of two shared ones of a server:
  --ops 1 --faults 1   2771 stories, the default: all of them in 44 s (raid0 0.2, raid1 2, raid4 5, raid5 15, raid6 17, raid10 5)
  --ops 2 --faults 1   48093 stories: about 10 to 15 minutes by a sample
  --ops 3 --faults 2   25 million stories: about 200 hours, for shards on a cluster (raid0 0.5, raid1 2,
                       raid4 20, raid5 70, raid6 95, raid10 15)
--depth 2 takes about a hundred times as long. --sample 100 says what to expect here.";

impl ExhaustArgs {
    fn spaces(&self) -> Result<Vec<Space>, Failure> {
        let scope = Scope {
            ops: self.ops.into(),
            faults: self.faults.into(),
            stripes: self.stripes,
            disks: self.disks,
            bitmap: self.bitmap,
            twice: self.depth == 2,
            seed: self.seed,
        };
        let levels = match self.level {
            Some(level) => vec![level],
            // No bitmap without redundancy.
            None => Level::ALL.into_iter().filter(|level| !(self.bitmap && *level == Level::Raid0)).collect(),
        };
        let space = |level| Space::new(level, scope).map_err(|error| Failure::usage(format!("{level}: {error}")));
        levels.into_iter().map(space).collect()
    }

    /// The command that goes on at `from`.
    fn command(&self, from: u64, shard: Shard) -> String {
        let mut words = vec![String::from("raidlab sim exhaust")];
        words.extend(self.level.map(|level| format!("--level {level}")));
        words.push(format!("--ops {} --faults {}", self.ops, self.faults));
        words.extend((self.stripes != Scope::USUAL.stripes).then(|| format!("--stripes {}", self.stripes)));
        words.extend(self.disks.map(|disks| format!("--disks {disks}")));
        words.extend(self.bitmap.then(|| String::from("--bitmap")));
        words.extend((self.depth == 2).then(|| String::from("--depth 2")));
        words.extend((self.seed != 0).then(|| format!("--seed {}", self.seed)));
        words.extend(self.sample.map(|count| format!("--sample {count}")));
        words.extend((from > 0).then(|| format!("--from {from}")));
        words.extend((shard != Shard::WHOLE).then(|| format!("--shard {shard}")));
        words.extend(self.jobs.map(|jobs| format!("--jobs {jobs}")));
        words.extend(self.corpus.as_ref().map(|corpus| format!("--corpus {}", quoted(&corpus.display().to_string()))));
        words.extend(self.max_findings.map(|most| format!("--max-findings {most}")));
        words.extend(self.json.then(|| String::from("--json")));
        words.join(" ")
    }
}

/// Runs `sim exhaust`.
pub fn run(args: &ExhaustArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let spaces = args.spaces()?;
    let shard = match args.shard {
        None => Shard::WHOLE,
        Some(asked) => {
            let shard = asked.resolve(|name| std::env::var(name).ok());
            shard.map_err(|error| Failure::usage(error.to_string()))?
        }
    };
    let mut parts: Vec<Part> = Vec::new();
    for space in spaces {
        let first = parts.last().map_or(0, |part| part.first + part.stories());
        let sample = args.sample.filter(|count| *count < space.words()).map(|count| space.sample(count, args.seed));
        parts.push(Part { space, sample, first });
    }
    let stories = parts.last().map_or(0, |part| part.first + part.stories());
    if args.from >= stories {
        return Err(Failure::usage(format!("--from {}: there are {stories} stories, numbered from 0", args.from)));
    }
    let target = if manner.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("stories [{bar:30}] {pos} of {len}  {per_sec}  {eta} left  {msg}");
    let cells = if is_utf8() { "█▉▊▋▌▍▎▏ " } else { "=> " };
    let length = (args.from..stories).filter(|at| shard.has(*at)).count() as u64;
    let exhaust = Exhaust {
        args,
        bar: ProgressBar::with_draw_target(Some(length), target)
            .with_style(style.expect("the template is one").progress_chars(cells)),
        corpus: args.corpus.as_deref().map(Corpus::open).transpose()?,
        parts,
        stories,
        shard,
        next: AtomicU64::new(args.from),
        interrupted: stop_flag(),
        enough: AtomicBool::new(false),
    };
    exhaust.run(manner, out)
}

/// The stories of a level.
struct Part {
    space: Space,
    /// If not all: which.
    sample: Option<Vec<u64>>,
    /// The number of its first story, counted through all levels.
    first: u64,
}

impl Part {
    fn stories(&self) -> u64 {
        self.sample.as_ref().map_or(self.space.words(), |sample| sample.len() as u64)
    }

    /// The word of a story.
    fn word(&self, story: u64) -> u64 {
        let at = story - self.first;
        self.sample.as_ref().map_or(at, |sample| sample[at as usize])
    }
}

/// A run under way.
struct Exhaust<'a> {
    args: &'a ExhaustArgs,
    bar: ProgressBar,
    corpus: Option<Corpus>,
    parts: Vec<Part>,
    stories: u64,
    shard: Shard,
    /// The next story, of this shard or not.
    next: AtomicU64,
    interrupted: Arc<AtomicBool>,
    /// No story begins any more: there are enough findings, or nobody listens.
    enough: AtomicBool,
}

/// A story, and how long it took.
struct Told {
    story: u64,
    lived: Lived,
    place: Option<String>,
    took: Duration,
}

impl Exhaust<'_> {
    fn run(self, manner: Manner, out: &mut impl Write) -> Outcome {
        let began = Instant::now();
        let mut counts: Vec<Counts> = self.parts.iter().map(Counts::of).collect();
        let mut states: Vec<States> = self.parts.iter().map(|_| States::default()).collect();
        let count = |told: Told| self.count(&told, &mut counts, &mut states, out);
        crew::work(self.args.jobs, &self.bar, &self.enough, |results| self.live(results), count)?;
        self.bar.finish_and_clear();
        for (counts, states) in counts.iter_mut().zip(&states) {
            (counts.states, counts.states_are_more) = (states.seen.len() as u64, states.is_full());
        }
        let next = self.next.load(Ordering::Relaxed).min(self.stories);
        let summary = Summary {
            schema: SCHEMA,
            kind: "summary",
            command: self.args.command(self.args.from, self.shard),
            wall_us: micros(began.elapsed()),
            rest: (next < self.stories).then(|| self.args.command(next, self.shard)),
            levels: counts,
        };
        self.close(&summary, manner, out)
    }

    /// A thread's share: one story after the other.
    fn live(&self, results: &Sender<Told>) {
        while let Some(story) = self.take() {
            let part = self.part(story);
            let (began, part) = (Instant::now(), &self.parts[part]);
            let (lived, place) = crew::in_life(|| part.space.live(part.word(story)));
            let told = Told { story, lived, place, took: began.elapsed() };
            if results.send(told).is_err() {
                return;
            }
        }
    }

    /// The next story. `None`: none begins any more. Stories begin in their order, so all before the next one are told.
    fn take(&self) -> Option<u64> {
        loop {
            if self.interrupted.load(Ordering::Relaxed) || self.enough.load(Ordering::Relaxed) {
                return None;
            }
            let story = self.next.fetch_add(1, Ordering::Relaxed);
            if story >= self.stories {
                return None;
            }
            if self.shard.has(story) {
                return Some(story);
            }
        }
    }

    fn part(&self, story: u64) -> usize {
        self.parts.partition_point(|part| part.first + part.stories() <= story)
    }

    fn count(
        &self,
        told: &Told,
        counts: &mut [Counts],
        states: &mut [States],
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let Told { story, lived, place, took } = told;
        let index = self.part(*story);
        let part = &self.parts[index];
        counts[index].add(lived, *took);
        states[index].add(&lived.states);
        self.bar.inc(1);
        let findings: u64 = counts.iter().map(|counts| counts.findings).sum();
        self.bar.set_message(if findings == 1 { String::from("1 finding") } else { format!("{findings} findings") });
        if self.args.max_findings.is_some_and(|most| findings >= most) {
            self.enough.store(true, Ordering::Relaxed);
        }
        let Verdict::Finding(finding) = &lived.verdict else { return Ok(()) };
        let mut found = Found::of(finding);
        found.place.clone_from(place);
        let word = part.word(*story);
        let kept = self.corpus.as_ref().map(|corpus| {
            let name = format!("{}-{}-{}-{word}", found.level, self.args.ops, self.args.faults);
            corpus.keep_as(&name, &found)
        });
        found.file = kept.transpose()?.map(|path| path.display().to_string());
        self.bar.suspend(|| {
            if self.args.json {
                let line = FindingLine { schema: SCHEMA, kind: "finding", story: *story, found: &found };
                writeln!(out, "{}", serde_json::to_string(&line).expect("words and numbers"))
            } else {
                tell(out, *story, &found)
            }
        })?;
        out.flush()?;
        Ok(())
    }

    fn close(&self, summary: &Summary, manner: Manner, out: &mut impl Write) -> Outcome {
        let findings = summary.levels.iter().any(|counts| counts.findings > 0);
        if self.args.json {
            writeln!(out, "{}", serde_json::to_string(summary).expect("words and numbers"))?;
        } else {
            summary.tell(out)?;
        }
        out.flush()?;
        if let Some(rest) = &summary.rest {
            let why = if self.interrupted.load(Ordering::Relaxed) { "interrupted" } else { "enough findings" };
            return Err(Failure { code: if findings { 1 } else { 4 }, message: format!("{why}: `{rest}` goes on") });
        }
        if findings && self.corpus.is_none() {
            manner.hint("--corpus DIR keeps scenarios of findings, for sim replay and sim shrink");
        }
        Ok(u8::from(findings))
    }
}

/// Fingerprints of states, up to what fits.
#[derive(Default)]
struct States {
    seen: HashSet<u64>,
}

impl States {
    /// 16 million: 256 MiB.
    const MOST: usize = 1 << 24;

    fn add(&mut self, states: &[u64]) {
        if !self.is_full() {
            self.seen.extend(states);
        }
    }

    fn is_full(&self) -> bool {
        self.seen.len() >= States::MOST
    }
}

/// What a level came to.
#[derive(Serialize)]
struct Counts {
    level: String,
    disks: usize,
    stripes: u64,
    /// Stories of the space.
    words: u64,
    /// Stories of it that were to be told here: a sample or all, of all shards.
    stories: u64,
    /// Stories told.
    lived: u64,
    passes: u64,
    findings: u64,
    no_promise: u64,
    budget: u64,
    /// Events of lives, without those of copies.
    events: u64,
    /// Power cuts of copies, second ones not counted, and of lives.
    cuts: u64,
    /// Views with more members lost.
    views: u64,
    /// Different states that power cuts left on disks.
    states: u64,
    /// There were more, not counted.
    states_are_more: bool,
    core_us: u64,
}

impl Counts {
    fn of(part: &Part) -> Counts {
        let shape = part.space.shape();
        Counts {
            level: shape.level.to_string(),
            disks: shape.disks,
            stripes: shape.geometry().stripes(),
            words: part.space.words(),
            stories: part.stories(),
            lived: 0,
            passes: 0,
            findings: 0,
            no_promise: 0,
            budget: 0,
            events: 0,
            cuts: 0,
            views: 0,
            states: 0,
            states_are_more: false,
            core_us: 0,
        }
    }

    fn add(&mut self, lived: &Lived, took: Duration) {
        let report = &lived.report;
        self.lived += 1;
        match lived.verdict {
            Verdict::Pass => self.passes += 1,
            Verdict::Finding(_) => self.findings += 1,
            Verdict::NoPromise(_) => self.no_promise += 1,
            Verdict::Budget => self.budget += 1,
        }
        self.events += report.events;
        self.cuts += report.cuts + report.tally.cuts;
        self.views += report.tally.views;
        self.core_us += micros(took);
    }

    fn cells(&self) -> [String; 9] {
        let states = if self.states_are_more { format!("{}+", self.states) } else { self.states.to_string() };
        let numbers = [self.words, self.lived, self.passes, self.findings, self.events, self.cuts];
        let [words, lived, passes, findings, events, cuts] = numbers.map(|number| number.to_string());
        [words, lived, passes, findings, events, cuts, states, self.views.to_string(), seconds(self.core_us)]
    }
}

fn seconds(us: u64) -> String {
    format!("{:.1}", us as f64 / 1e6)
}

#[derive(Serialize)]
struct Summary {
    schema: &'static str,
    kind: &'static str,
    /// The command that does the same again.
    command: String,
    wall_us: u64,
    /// The command that goes on.
    rest: Option<String>,
    levels: Vec<Counts>,
}

const COLUMNS: [&str; 9] = ["stories", "lived", "pass", "finding", "events", "power cuts", "states", "views", "core s"];

impl Summary {
    /// The table, and whether it was all.
    fn tell(&self, out: &mut impl Write) -> std::io::Result<()> {
        let line = if is_utf8() { '─' } else { '-' };
        let mut table = Table::new();
        table.load_style(TableStyle::new().header_separator(LineStyle::none().fill(line).junction(line)));
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["", "array"].into_iter().chain(COLUMNS));
        for counts in &self.levels {
            let array = format!("{} disks, {} stripes", counts.disks, counts.stripes);
            table.add_row([counts.level.clone(), array].into_iter().chain(counts.cells()));
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if at > 1 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in table.lines() {
            writeln!(out, "{}", row.trim_end())?;
        }
        let sum = |number: fn(&Counts) -> u64| self.levels.iter().map(number).sum::<u64>();
        let (words, stories, lived) =
            (sum(|counts| counts.words), sum(|counts| counts.stories), sum(|counts| counts.lived));
        let others = sum(|counts| counts.no_promise + counts.budget);
        if others > 0 {
            writeln!(out, "{others} stories end where nothing is promised, or after too many events")?;
        }
        if lived == words {
            writeln!(out, "exhausted: all {words} stories, {} s of cores", seconds(sum(|counts| counts.core_us)))
        } else {
            let all = self.levels.iter().filter(|counts| counts.lived > 0);
            let all: f64 = all.map(|counts| counts.core_us as f64 * (counts.words as f64 / counts.lived as f64)).sum();
            let how = if stories < words { "a sample" } else { "a part" };
            writeln!(out, "{how}: {lived} of {words} stories; all would take about {} of a core", duration(all / 1e6))
        }
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

#[derive(Serialize)]
struct FindingLine<'a> {
    schema: &'static str,
    kind: &'static str,
    story: u64,
    #[serde(flatten)]
    found: &'a Found,
}

/// A finding with its scenario, which is short.
fn tell(out: &mut impl Write, story: u64, found: &Found) -> std::io::Result<()> {
    let place = found.place.as_ref().map_or_else(String::new, |place| format!(", at {}", plain(place)));
    writeln!(out, "finding: story {story}, {}, event {}: {}{place}", found.level, found.event, plain(&found.reason))?;
    for line in found.what.lines() {
        writeln!(out, "  {}", plain(line))?;
    }
    match &found.file {
        Some(file) => {
            let file = quoted(file);
            writeln!(out, "  raidlab sim replay {file} --explain\n  raidlab sim shrink {file}")
        }
        None => found.scenario.lines().try_for_each(|line| writeln!(out, "  | {line}")),
    }
}
