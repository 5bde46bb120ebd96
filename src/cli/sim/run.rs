//! `sim run`: many lives on all cores, until none is left, time is up, or Ctrl-C.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::corpus::Corpus;
use super::crew::{self, micros, stop_flag};
use super::tell;
use crate::cli::{Failure, Manner, Outcome, output};
use crate::raid::level::Level;
use crate::sim::campaign::{Life, Line, Plan, Seeds, Shard, ShardWish, Summary, check_wish, seed};
use crate::sim::fabrics::Fabrics;
use crate::sim::life::{Cuts, Effort};
use crate::sim::{Harm, Scenario, Wish, draw};
use crate::units::Span;

/// Arguments of `sim run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Seeds, from A up to but not including B, or one seed alone [default: chosen ones, from a random start, for 60s]
    #[arg(long, value_name = "A..B")]
    seeds: Option<Seeds>,
    /// Where chosen seeds begin: from the same start, the same are chosen
    #[arg(long, value_name = "SEED", conflicts_with = "seeds", value_parser = seed)]
    start: Option<u64>,
    /// So many chosen seeds
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    count: Option<u64>,
    /// Begin no life after this time
    #[arg(long = "for", value_name = "DURATION")]
    time: Option<Span>,
    /// Only this level
    #[arg(long, value_name = "L")]
    level: Option<Level>,
    /// Only arrays of so many disks
    #[arg(long, value_name = "N")]
    disks: Option<usize>,
    /// Only these faults, such as stop,unreadable,lost
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = harm)]
    faults: Vec<Harm>,
    /// Multipath over the array, under it, or both
    #[arg(long, value_name = "none|volume|members|both", value_parser = fabrics, default_value = "none")]
    paths: Fabrics,
    /// Disks lend what they hold, as mapped images do: reads are carried out at once
    #[arg(long)]
    mapped: bool,
    /// Before which events the power of a copy is cut: every, every Nth, none, or a sample
    #[arg(long, value_name = "every|N|none|sample", default_value_t = CrashPoints::Sample)]
    crash_points: CrashPoints,
    /// Lives at a time [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// One of N equal parts, from 0/N to N-1/N; auto asks the scheduler of the cluster (a Slurm array, or, as auto/N, a
    /// Kubernetes Indexed Job)
    #[arg(long, value_name = "I/N|auto|auto/N")]
    shard: Option<ShardWish>,
    /// Show what struck what in which phase, and what was never reached
    #[arg(long)]
    coverage: bool,
    /// Live each life twice; it is a finding if it is not the same again
    #[arg(long)]
    twice: bool,
    /// Where scenarios of findings are kept; those that are there are lived first
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Begin no life after so many findings
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_findings: Option<u64>,
    /// Print lines of JSON: findings as they come, with -v every life, and the summary last
    #[arg(long)]
    json: bool,
}

/// How long it takes if nothing else says when it is over.
const TIME: Duration = Duration::from_secs(60);

/// Where the power of copies is cut, as it is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CrashPoints {
    Sample,
    Every,
    Nth(u64),
    None,
}

impl FromStr for CrashPoints {
    type Err = String;

    fn from_str(word: &str) -> Result<CrashPoints, String> {
        match word {
            "sample" => Ok(CrashPoints::Sample),
            "every" => Ok(CrashPoints::Every),
            "none" => Ok(CrashPoints::None),
            _ => match word.parse() {
                Ok(events) if events > 0 => Ok(CrashPoints::Nth(events)),
                _ => Err(format!("`{word}` is not every, none, sample, or a number of events from 1")),
            },
        }
    }
}

impl fmt::Display for CrashPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CrashPoints::Sample => f.write_str("sample"),
            CrashPoints::Every => f.write_str("every"),
            CrashPoints::Nth(events) => write!(f, "{events}"),
            CrashPoints::None => f.write_str("none"),
        }
    }
}

impl CrashPoints {
    pub(super) fn effort(self) -> Effort {
        match self {
            CrashPoints::Sample => Effort::SAMPLE,
            CrashPoints::Every => Effort::FULL,
            CrashPoints::Nth(events) => Effort { cuts: Cuts::Every(events), ..Effort::PLAIN },
            CrashPoints::None => Effort::PLAIN,
        }
    }
}

fn harm(word: &str) -> Result<Harm, String> {
    let words = || Harm::ALL.map(|(_, name)| name).join(", ");
    Harm::parse(word).ok_or_else(|| format!("`{word}` is no fault: known are {}", words()))
}

pub(super) fn fabrics(word: &str) -> Result<Fabrics, String> {
    Fabrics::parse(word).ok_or_else(|| format!("`{word}` is not none, volume, members or both"))
}

impl RunArgs {
    fn wish(&self) -> Result<Wish, Failure> {
        let RunArgs { level, disks, paths, mapped, .. } = *self;
        let wish = Wish { level, disks, faults: self.faults.clone(), paths, mapped };
        check_wish(&wish).map_err(|error| {
            let other = if self.level.is_none() { ": without --level, there are arrays of all levels" } else { "" };
            Failure::usage(format!("{error}{other}"))
        })?;
        Ok(wish)
    }

    /// The command that lives `which` under the same conditions.
    fn command(&self, which: &str, shard: Shard) -> String {
        let mut words = vec![format!("raidlab sim run {which}")];
        words.extend(self.conditions());
        if shard != Shard::WHOLE {
            words.push(format!("--shard {shard}"));
        }
        if let Some(corpus) = &self.corpus {
            words.push(format!("--corpus {}", tell::quoted(&corpus.display().to_string())));
        }
        words.extend(self.jobs.map(|jobs| format!("--jobs {jobs}")));
        words.extend(self.max_findings.map(|most| format!("--max-findings {most}")));
        words.extend(self.json.then(|| String::from("--json")));
        words.join(" ")
    }

    /// The command that keeps the finding of a seed.
    fn keep(&self, seed: u64) -> String {
        let words = [format!("raidlab sim run --seeds {seed}")].into_iter().chain(self.conditions());
        words.chain([String::from("--corpus findings")]).collect::<Vec<_>>().join(" ")
    }

    /// What makes a life of the same seed the same.
    fn conditions(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.level.map(|level| format!("--level {level}")));
        words.extend(self.disks.map(|disks| format!("--disks {disks}")));
        if !self.faults.is_empty() {
            let names: Vec<_> = self.faults.iter().map(|harm| harm.name()).collect();
            words.push(format!("--faults {}", names.join(",")));
        }
        if self.paths.any() {
            words.push(format!("--paths {}", self.paths.name()));
        }
        words.extend(self.mapped.then(|| String::from("--mapped")));
        if self.crash_points != CrashPoints::Sample {
            words.push(format!("--crash-points {}", self.crash_points));
        }
        words.extend(self.twice.then(|| String::from("--twice")));
        words
    }
}

/// Runs `sim run`.
pub fn run(args: &RunArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let wish = args.wish()?;
    let shard = match args.shard {
        None => Shard::WHOLE,
        Some(asked) => {
            let shard = asked.resolve(|name| std::env::var(name).ok());
            shard.map_err(|error| Failure::usage(error.to_string()))?
        }
    };
    let corpus = args.corpus.as_deref().map(Corpus::open).transpose()?;
    let known = corpus.as_ref().map_or_else(|| Ok(Vec::new()), |corpus| corpus.scenarios(shard))?;
    let plan = match args.seeds {
        Some(seeds) => Plan::sweep(seeds, shard),
        None => Plan::steered(args.start.unwrap_or_else(random_start), shard, wish.clone()),
    };
    if args.seeds.is_none() {
        let start = plan.part("").start;
        manner.hint(&format!(
            "seeds are chosen from {start} on: `{}` lives the same",
            args.command(&format!("--start {start}"), shard)
        ));
    }
    let is_timed = args.time.is_some() || (args.seeds.is_none() && args.count.is_none());
    let campaign = Campaign {
        args,
        manner,
        bar: bar(&plan, args.count, known.len() as u64, manner.quiet),
        wish,
        began: Instant::now(),
        time: is_timed.then(|| args.time.map_or(TIME, |Span(time)| time)),
        interrupted: stop_flag(),
        enough: AtomicBool::new(false),
        queue: Mutex::new(Queue { known: known.into(), left: args.count.unwrap_or(u64::MAX), plan }),
        corpus,
    };
    campaign.run(out)
}

/// A seed nobody chose, short enough to be typed.
fn random_start() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    (now % 1_000_000_000_000) as u64
}

fn bar(plan: &Plan, count: Option<u64>, known: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let length = plan.length().or(count).map(|lives| lives + known);
    let template = match length {
        Some(_) => "lives [{bar:30}] {pos} of {len}  {per_sec}  {eta} left  {msg}",
        None => "lives {spinner} {pos}  {per_sec}  {elapsed}  {msg}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is one");
    let (cells, ticks) =
        if output::is_utf8() { ("█▉▊▋▌▍▎▏ ", "⠁⠂⠄⡀⢀⠠⠐⠈ ") } else { ("=> ", "-\\|/ ") };
    ProgressBar::with_draw_target(length, target).with_style(style.progress_chars(cells).tick_chars(ticks))
}

/// A campaign under way.
struct Campaign<'a> {
    args: &'a RunArgs,
    manner: Manner,
    bar: ProgressBar,
    wish: Wish,
    began: Instant,
    /// No life begins after that, if there is an end.
    time: Option<Duration>,
    interrupted: Arc<AtomicBool>,
    /// No life begins any more: there are enough findings, or nobody listens.
    enough: AtomicBool,
    queue: Mutex<Queue>,
    corpus: Option<Corpus>,
}

/// What is yet to be lived.
struct Queue {
    /// Scenarios of the corpus, which come first.
    known: VecDeque<(PathBuf, Scenario)>,
    plan: Plan,
    /// How many seeds of the plan.
    left: u64,
}

/// A life, and how long it took.
struct Lived {
    life: Life,
    took: Duration,
}

impl Campaign<'_> {
    fn run(self, out: &mut impl Write) -> Outcome {
        let mut summary = Summary::default();
        let count = |lived: Lived| self.count(&lived, &mut summary, out);
        crew::work(self.args.jobs, &self.bar, &self.enough, |results| self.live(results), count)?;
        self.bar.finish_and_clear();
        summary.wall_us = micros(self.began.elapsed());
        self.close(summary, out)
    }

    /// A thread's share: one life after the other.
    fn live(&self, results: &Sender<Lived>) {
        let effort = self.args.crash_points.effort();
        while let Some((scenario, file)) = self.take() {
            let began = Instant::now();
            let alive = || catch_unwind(AssertUnwindSafe(|| Life::live(&scenario, effort, self.args.twice)));
            let (life, place) = crew::in_life(alive);
            let life = life.unwrap_or_else(|panic| {
                anstream::eprintln!(
                    "seed {}: panic at {}",
                    scenario.seed,
                    place.as_deref().unwrap_or("an unknown place")
                );
                resume_unwind(panic)
            });
            let life = life.came_from(file.map(|file| file.display().to_string()), place);
            if results.send(Lived { life, took: began.elapsed() }).is_err() {
                return;
            }
        }
    }

    /// What to live next. `None`: no life begins any more.
    fn take(&self) -> Option<(Scenario, Option<PathBuf>)> {
        if self.interrupted.load(Ordering::Relaxed) || self.enough.load(Ordering::Relaxed) {
            return None;
        }
        let mut queue = self.queue.lock().expect("whoever holds it does not panic");
        if let Some((file, scenario)) = queue.known.pop_front() {
            return Some((scenario, Some(file)));
        }
        if self.is_time_up() || queue.left == 0 {
            return None;
        }
        let seed = queue.plan.next()?;
        queue.left -= 1;
        drop(queue);
        Some((draw(seed, &self.wish), None))
    }

    fn is_time_up(&self) -> bool {
        self.time.is_some_and(|time| self.began.elapsed() >= time)
    }

    fn count(&self, lived: &Lived, summary: &mut Summary, out: &mut impl Write) -> Result<(), Failure> {
        let Lived { life, took } = lived;
        summary.add(life, micros(*took));
        self.bar.inc(1);
        let findings = summary.total.findings;
        self.bar.set_message(if findings == 1 { String::from("1 finding") } else { format!("{findings} findings") });
        if self.args.max_findings.is_some_and(|most| findings >= most) {
            self.enough.store(true, Ordering::Relaxed);
        }
        if self.manner.verbose && self.args.json {
            writeln!(out, "{}", life.line().to_json())?;
            out.flush()?;
        }
        if let Some(found) = life.found() {
            let kept = match (&found.file, &self.corpus) {
                (Some(file), _) => Some(PathBuf::from(file)),
                (None, Some(corpus)) => Some(corpus.keep(found)?),
                (None, None) => None,
            };
            self.bar.suspend(|| match self.args.json {
                true => writeln!(out, "{}", Line::Finding(found.clone()).to_json()),
                false => tell::finding(out, found, kept.as_deref(), &self.args.keep(life.seed)),
            })?;
            // Somebody may wait for it, and the next may be far.
            out.flush()?;
        }
        Ok(())
    }

    /// The summary, and what to type for the same again and for what is left.
    fn close(self, mut summary: Summary, out: &mut impl Write) -> Outcome {
        let queue = self.queue.into_inner().expect("whoever held it did not panic");
        let part = queue.plan.part(&self.args.conditions().join(" "));
        summary.parts.insert(part.clone());
        let code = u8::from(summary.total.findings > 0);
        if self.args.json {
            writeln!(out, "{}", Line::Summary(Box::new(summary)).to_json())?;
        } else {
            tell::summary(out, &summary)?;
            if self.args.coverage {
                writeln!(out, "\n{}", summary.coverage)?;
            }
        }
        let rest = part.rest.map(|rest| {
            let which = match (part.end, self.args.count) {
                (Some(end), _) => format!("--seeds {}", Seeds { start: rest, end }),
                (None, Some(_)) if queue.left > 0 => format!("--start {rest} --count {}", queue.left),
                (None, _) => format!("--start {rest}"),
            };
            self.args.command(&which, part.shard)
        });
        let why = if self.interrupted.load(Ordering::Relaxed) {
            Some("interrupted")
        } else if self.enough.load(Ordering::Relaxed) {
            Some("enough findings")
        } else {
            None
        };
        if let (Some(why), Some(rest)) = (why, &rest) {
            out.flush()?;
            return Err(Failure { code: if code == 1 { 1 } else { 4 }, message: format!("{why}: `{rest}` goes on") });
        }
        if part.end.is_none() {
            let same = format!("--start {} --count {}", part.start, part.taken);
            self.manner.hint(&format!("the same again: {}", self.args.command(&same, part.shard)));
        }
        if let Some(rest) = rest {
            self.manner.hint(&format!("and on: {rest}"));
        }
        Ok(code)
    }
}
