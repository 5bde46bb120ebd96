//! Campaigns: many lives, and what they came to.
//!
//! One life proves little; a million lives fit no single machine. A campaign is a sequence of seeds that can be cut into
//! *shards* which know nothing of each other, and a [`Summary`] that can be put together from theirs in any order. Every
//! life ends in one of four ways, and all four are counted: it passes, it is a finding, nothing was promised of it, or it
//! took more events than it may.
//!
//! A campaign either sweeps a range of seeds or is *steered*: of a few seeds it takes the one whose scenario does what
//! was planned least so far. Steering only chooses: a seed alone is the same life.
//!
//! Results travel as lines of JSON, each with its `schema` and its `kind`: `life`, `finding`, `summary`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::coverage::Coverage;
use super::scenario::{Act, Scenario, When};
use super::trace::mix;
use super::{Effort, Finding, Promise, Report, Rng, Shape, ShapeError, Trace, Verdict, Wish, draw, live};
use crate::raid::level::Level;
use crate::text::as_string;

/// The version of the lines this program writes and reads.
pub const SCHEMA: &str = "raidlab-sim/v1";

/// Seeds are below 2^63, which is as far as TOML counts.
pub const SEED_END: u64 = 1 << 63;

/// Seeds a steered campaign chooses one of.
const CANDIDATES: u64 = 4;

// ---- seeds and shards ----

/// Seeds from the first up to, but not including, the end: `7..1000`, or `7` alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Seeds {
    /// The first.
    pub start: u64,
    /// Behind the last; at most [`SEED_END`].
    pub end: u64,
}

/// Why a word names no seeds.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SeedError {
    /// It is no number, or not one below 2^63.
    #[error("`{0}` is not a seed: a seed is a number below 2^63, as 7 or 0x5eed")]
    Seed(String),
    /// Its end is not above its beginning.
    #[error("`{0}` is empty: the end must be above the beginning")]
    Empty(String),
}

/// Reads a seed: decimal, or hexadecimal behind `0x`.
///
/// # Errors
/// If the word is no number below 2^63.
pub fn seed(word: &str) -> Result<u64, SeedError> {
    number(word).filter(|seed| *seed < SEED_END).ok_or_else(|| SeedError::Seed(word.to_owned()))
}

fn number(word: &str) -> Option<u64> {
    let (digits, radix) = word.strip_prefix("0x").map_or((word, 10), |digits| (digits, 16));
    // A sign would be read, too.
    let is_digits = digits.chars().all(|c| c.is_digit(radix));
    u64::from_str_radix(digits, radix).ok().filter(|_| is_digits)
}

impl FromStr for Seeds {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Seeds, SeedError> {
        let Some((start, end)) = text.split_once("..") else {
            return seed(text).map(|seed| Seeds { start: seed, end: seed + 1 });
        };
        let end_of = |word| number(word).filter(|end| *end <= SEED_END).ok_or_else(|| SeedError::Seed(word.to_owned()));
        let seeds = Seeds { start: seed(start)?, end: end_of(end)? };
        if seeds.start < seeds.end { Ok(seeds) } else { Err(SeedError::Empty(text.to_owned())) }
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// One of the equal parts of a campaign: `0/4` is the first of four. Seeds are dealt out one by one, so that parts take
/// about the same time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    index: u32,
    count: u32,
}

/// Which part is to be lived, as it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShardWish {
    /// `2/8`.
    Given(Shard),
    /// `auto`, or `auto/8`: what the scheduler of a cluster says, of so many.
    Auto(Option<u32>),
}

/// Why there is no such part.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ShardError {
    /// It is not written as one.
    #[error("`{0}` is not a shard: type I/N, from 0/N to N-1/N, or auto, or auto/N")]
    Text(String),
    /// Parts are numbered from 0.
    #[error("there is no shard {index} of {count}: they are numbered from 0 to {}", count - 1)]
    Index {
        /// Its number.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// No scheduler has said anything.
    #[error("neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set: say which shard, as --shard 0/8")]
    NoScheduler,
    /// A scheduler's variable is not what it should be.
    #[error("{name}={value} is not a number")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What it is.
        value: String,
    },
    /// The scheduler gives the number of this part and not that of all.
    #[error("how many shards there are is not known: say --shard auto/N, as many as the job has completions")]
    NoCount,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// Part `index`, from 0, of `count`.
    ///
    /// # Errors
    /// If there is no such part.
    pub fn new(index: u32, count: u32) -> Result<Shard, ShardError> {
        match index < count {
            true => Ok(Shard { index, count }),
            false if count == 0 => Err(ShardError::Text(format!("{index}/0"))),
            false => Err(ShardError::Index { index, count }),
        }
    }

    /// Whether the `position`th, from 0, of many things is its own.
    pub fn has(self, position: u64) -> bool {
        position % u64::from(self.count) == u64::from(self.index)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Shard, ShardError> {
        let parts = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        parts.map_or_else(|| Err(ShardError::Text(text.to_owned())), |(index, count)| Shard::new(index, count))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for ShardWish {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<ShardWish, ShardError> {
        match text.split_once('/') {
            None if text == "auto" => Ok(ShardWish::Auto(None)),
            Some(("auto", count)) => {
                let count = count.parse().ok().filter(|count| *count > 0);
                count.map_or_else(|| Err(ShardError::Text(text.to_owned())), |count| Ok(ShardWish::Auto(Some(count))))
            }
            _ => text.parse().map(ShardWish::Given),
        }
    }
}

impl ShardWish {
    /// The part meant, where `variable` gives the environment: a Slurm array counts from `SLURM_ARRAY_TASK_MIN` in steps
    /// of `SLURM_ARRAY_TASK_STEP`, a Kubernetes Indexed Job from 0 and does not say how far.
    ///
    /// # Errors
    /// If the environment does not say, or says what cannot be.
    pub fn resolve(self, variable: impl Fn(&str) -> Option<String>) -> Result<Shard, ShardError> {
        let asked = match self {
            ShardWish::Given(shard) => return Ok(shard),
            ShardWish::Auto(asked) => asked,
        };
        let read = |name: &'static str| match variable(name) {
            None => Ok(None),
            Some(value) => value.parse::<u32>().map(Some).map_err(|_| ShardError::Variable { name, value }),
        };
        if let Some(id) = read("SLURM_ARRAY_TASK_ID")? {
            let first = read("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let step = read("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
            let count = asked.or(read("SLURM_ARRAY_TASK_COUNT")?).ok_or(ShardError::NoCount)?;
            return Shard::new(id.saturating_sub(first) / step, count);
        }
        let index = read("JOB_COMPLETION_INDEX")?.ok_or(ShardError::NoScheduler)?;
        Shard::new(index, asked.ok_or(ShardError::NoCount)?)
    }
}

// ---- which lives ----

/// The seeds of a campaign, or of its shard, one after the other.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Every one of a range.
    Sweep(Sweep),
    /// Chosen ones, without end.
    Steered(Steered),
}

/// Every seed of a range that is a shard's own.
#[derive(Clone, Debug)]
pub struct Sweep {
    seeds: Seeds,
    shard: Shard,
    taken: u64,
}

/// Of each few seeds from a start on, the one whose scenario does what was planned least so far.
#[derive(Clone, Debug)]
pub struct Steered {
    start: u64,
    shard: Shard,
    wish: Wish,
    taken: u64,
    planned: BTreeMap<Planned, u64>,
}

/// Something that is to happen at a kind of moment to an array of a level.
type Planned = (Level, String, String);

impl Plan {
    /// All of `seeds` that are `shard`'s.
    pub fn sweep(seeds: Seeds, shard: Shard) -> Plan {
        Plan::Sweep(Sweep { seeds, shard, taken: 0 })
    }

    /// Chosen seeds from `start` on; the shards of one start share none.
    pub fn steered(start: u64, shard: Shard, wish: Wish) -> Plan {
        Plan::Steered(Steered { start, shard, wish, taken: 0, planned: BTreeMap::new() })
    }

    /// How many seeds it will give in all, if that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Plan::Sweep(sweep) => {
                let (all, count) = (sweep.seeds.end - sweep.seeds.start, u64::from(sweep.shard.count));
                Some(all / count + u64::from(all % count > u64::from(sweep.shard.index)))
            }
            Plan::Steered(_) => None,
        }
    }

    /// How many it has given.
    pub fn taken(&self) -> u64 {
        match self {
            Plan::Sweep(sweep) => sweep.taken,
            Plan::Steered(steered) => steered.taken,
        }
    }

    /// What has been given, as summaries say it.
    pub fn part(&self, conditions: &str) -> Part {
        let conditions = conditions.to_owned();
        match self {
            Plan::Sweep(Sweep { seeds, shard, taken }) => {
                let next = seeds.start + taken * u64::from(shard.count);
                let rest = (*taken < self.length().unwrap_or(0)).then_some(next);
                Part { start: seeds.start, end: Some(seeds.end), conditions, shard: *shard, taken: *taken, rest }
            }
            Plan::Steered(Steered { start, shard, taken, .. }) => {
                let rest = Some((start + taken * CANDIDATES * u64::from(shard.count)) % SEED_END);
                Part { start: *start, end: None, conditions, shard: *shard, taken: *taken, rest }
            }
        }
    }
}

impl Iterator for Plan {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        match self {
            Plan::Sweep(sweep) => {
                let position = sweep.taken * u64::from(sweep.shard.count) + u64::from(sweep.shard.index);
                let seed = sweep.seeds.start + position;
                sweep.taken += u64::from(seed < sweep.seeds.end);
                (seed < sweep.seeds.end).then_some(seed)
            }
            Plan::Steered(steered) => Some(steered.choose()),
        }
    }
}

impl Steered {
    fn choose(&mut self) -> u64 {
        let count = u64::from(self.shard.count);
        let first = self.taken * CANDIDATES;
        let seed_of = |number: u64| (self.start + (first + number) * count + u64::from(self.shard.index)) % SEED_END;
        let candidates = (0..CANDIDATES).map(|number| {
            let scenario = draw(seed_of(number), &self.wish);
            (scenario.seed, planned(&scenario))
        });
        let rarity = |plans: &BTreeSet<Planned>| -> u64 {
            plans.iter().map(|plan| (1 << 20) / (1 + self.planned.get(plan).copied().unwrap_or(0))).sum()
        };
        let (seed, plans) = candidates
            .map(|(seed, plans)| (rarity(&plans), seed, plans))
            // The first of equals.
            .reduce(|best, other| if other.0 > best.0 { other } else { best })
            .map(|(_, seed, plans)| (seed, plans))
            .expect("there are candidates");
        for plan in plans {
            *self.planned.entry(plan).or_default() += 1;
        }
        self.taken += 1;
        seed
    }
}

fn planned(scenario: &Scenario) -> BTreeSet<Planned> {
    let first_word = |text: String| text.split([' ', '=']).next().unwrap_or_default().to_owned();
    let steps = scenario.steps.iter().map(|step| {
        let act = match step.act {
            Act::Fault(_, kind, ..) => first_word(kind.to_string()),
            act => first_word(act.to_string()),
        };
        let moment = match step.when {
            When::Phase(moment, _) => moment.name().to_owned(),
            When::After(..) => String::from("after"),
            when => first_word(when.to_string()),
        };
        (scenario.array.level, act, moment)
    });
    steps.collect()
}

/// Whether every seed has a scenario under this wish: some levels take no array of so many disks.
///
/// # Errors
/// Why there is no such array.
pub fn check_wish(wish: &Wish) -> Result<(), ShapeError> {
    let levels = Level::ALL.into_iter().filter(|level| wish.level.is_none_or(|wished| wished == *level));
    for level in levels {
        // As many as it takes to see every layout.
        for number in 0..64 {
            let shape = Shape::of(level, &mut Rng::new(number, 0));
            Shape { disks: wish.disks.unwrap_or(shape.disks), spares: 0, ..shape }.check()?;
        }
    }
    Ok(())
}

// ---- what a life came to ----

/// A life of a campaign, and how it ended.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its seed.
    pub seed: u64,
    /// The level of its array.
    pub level: Level,
    /// What it was.
    pub report: Report,
    /// How it ended.
    pub ending: Ending,
    /// The file of the corpus that the scenario came from.
    pub file: Option<String>,
}

/// How a life of a campaign ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Every answer was allowed.
    Pass,
    /// Something was not.
    Finding(Box<Found>),
    /// Something was not, for this reason, where nothing is promised.
    NoPromise(String),
    /// It takes more events than it may.
    Budget,
}

/// A finding, as files keep it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The level of the array.
    pub level: String,
    /// What two findings have in common when they are taken for the same.
    pub reason: String,
    /// What went wrong.
    pub what: String,
    /// Events of the life before.
    pub event: u64,
    /// File and line, of a panic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The file of the corpus that the scenario came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The last things that happened.
    pub story: Vec<String>,
    /// The scenario, ending where it failed: the text of a scenario file.
    pub scenario: String,
}

impl Life {
    /// Lives `scenario`; `twice`, to see whether it is the same again.
    pub fn live(scenario: &Scenario, effort: Effort, twice: bool) -> Life {
        let (report, verdict) = live(scenario, effort);
        let again = twice.then(|| live(scenario, effort)).filter(|again| *again != (report.clone(), verdict.clone()));
        let ending = match (again, verdict) {
            (Some((other, _)), verdict) => {
                Ending::Finding(Box::new(Found::differing(scenario, &report, &other, &verdict)))
            }
            (None, Verdict::Pass) => Ending::Pass,
            (None, Verdict::Finding(finding)) => Ending::Finding(Box::new(Found::of(&finding))),
            (None, Verdict::NoPromise(failed)) => Ending::NoPromise(failed.reason().to_string()),
            (None, Verdict::Budget) => Ending::Budget,
        };
        Life { seed: scenario.seed, level: scenario.array.level, report, ending, file: None }
    }

    /// That it came from `file`, and where a panic came from.
    pub fn came_from(mut self, file: Option<String>, place: Option<String>) -> Life {
        if let Ending::Finding(found) = &mut self.ending {
            found.file.clone_from(&file);
            found.place = place;
        }
        Life { file, ..self }
    }

    /// Its finding, if it is one.
    pub fn found(&self) -> Option<&Found> {
        match &self.ending {
            Ending::Finding(found) => Some(found),
            _ => None,
        }
    }

    /// Its line.
    pub fn line(&self) -> Line {
        let (ending, reason) = match &self.ending {
            Ending::Pass => ("pass", None),
            Ending::Finding(found) => ("finding", Some(found.reason.clone())),
            Ending::NoPromise(reason) => ("no-promise", Some(reason.clone())),
            Ending::Budget => ("budget", None),
        };
        Line::Life(LifeLine {
            seed: self.seed,
            level: self.level.to_string(),
            ending: ending.to_owned(),
            reason,
            trace: Hash(self.report.trace.0),
            counts: Counts::of(self),
        })
    }
}

impl Found {
    /// What a finding is in files.
    pub fn of(finding: &Finding) -> Found {
        Found {
            seed: finding.scenario.seed,
            level: finding.scenario.array.level.to_string(),
            reason: finding.failed.reason().to_string(),
            what: finding.failed.to_string(),
            event: finding.event,
            place: None,
            file: None,
            story: finding.told.clone(),
            scenario: finding.scenario.to_toml(),
        }
    }

    fn differing(scenario: &Scenario, first: &Report, second: &Report, verdict: &Verdict) -> Found {
        let of = |report: &Report| format!("trace {} after {} events", Hash(report.trace.0), report.events);
        let story = match verdict {
            Verdict::Finding(finding) => vec![format!("the first life ended: {}", finding.failed)],
            _ => Vec::new(),
        };
        Found {
            seed: scenario.seed,
            level: scenario.array.level.to_string(),
            reason: String::from("not deterministic"),
            what: format!("lived twice, it was not the same: {}, then {}", of(first), of(second)),
            event: first.events,
            place: None,
            file: None,
            story,
            scenario: scenario.to_toml(),
        }
    }

    /// The text of a scenario file that says in its first lines what it is kept for.
    pub fn to_file(&self) -> String {
        let place = self.place.iter().map(|place| format!("at {place}"));
        let reason = [format!("{}: {}", self.reason, self.what)].into_iter().chain(place);
        let comment: String =
            reason.flat_map(|text| text.lines().map(|line| format!("# {line}\n")).collect::<Vec<_>>()).collect();
        comment + &self.scenario
    }
}

// ---- counting ----

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What lives came to, added up.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counts {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Counts) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

counts! {
    /// Lives.
    lives,
    /// Of these, those that began with a scenario of the corpus and not with a seed.
    corpus,
    /// Lives in which every answer was allowed.
    passes,
    /// Lives in which one was not.
    findings,
    /// Lives in which one was not, where nothing is promised.
    no_promise,
    /// Lives given up after too many events.
    budget,
    /// Lives with faults that are silent, or lie.
    silent,
    /// Events.
    events,
    /// Operations of clients.
    ops,
    /// Requests to disks.
    ios,
    /// Faults done to disks.
    faults,
    /// Faults that would have gone beyond the budget.
    held_back,
    /// Steps that found no disk, or were refused by the array.
    idle_steps,
    /// Steps whose moment never came.
    never,
    /// Power cuts of the lives themselves.
    cuts,
    /// Devices that recovery began to fill.
    recoveries,
    /// Power cuts of copies, and of copies that recovered from one.
    crash_points,
    /// How often a dirty and degraded array was refused, and forced.
    forced,
    /// How often too little was left to assemble, and rightly.
    refused,
    /// Views with more members lost that were read.
    views,
    /// Virtual time, in milliseconds.
    virtual_ms,
}

impl Counts {
    fn of(life: &Life) -> Counts {
        let Life { report, ending, .. } = life;
        Counts {
            lives: 1,
            corpus: u64::from(life.file.is_some()),
            passes: u64::from(*ending == Ending::Pass),
            findings: u64::from(matches!(ending, Ending::Finding(_))),
            no_promise: u64::from(matches!(ending, Ending::NoPromise(_))),
            budget: u64::from(*ending == Ending::Budget),
            silent: u64::from(report.promise != Promise::Detected),
            events: report.events,
            ops: report.ops,
            ios: report.ios,
            faults: report.faults,
            held_back: report.held_back,
            idle_steps: report.idle_steps,
            never: report.never,
            cuts: report.cuts,
            recoveries: report.recoveries,
            crash_points: report.tally.cuts,
            forced: report.tally.forced,
            refused: report.tally.refused,
            views: report.tally.views,
            virtual_ms: u64::try_from(report.time.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What a campaign came to. Summaries of its parts make that of the whole, in whatever order they are put together.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// All lives.
    pub total: Counts,
    /// Those of each level.
    pub levels: BTreeMap<String, Counts>,
    /// Seeds of findings, by reason.
    pub findings: BTreeMap<String, BTreeSet<u64>>,
    /// How many lives ended badly where nothing is promised, by reason.
    pub no_promise: BTreeMap<String, u64>,
    /// Seeds of lives that were given up after too many events.
    pub budget: BTreeSet<u64>,
    /// The traces of all lives, added up: who lives the same seeds in the same way has the same.
    pub trace: Hash,
    /// Which seeds were lived.
    pub parts: BTreeSet<Part>,
    /// Time from the beginning to the end of each part, added up, in microseconds.
    pub wall_us: u64,
    /// Time of each life, added up, in microseconds.
    pub core_us: u64,
    /// How fast that was.
    pub throughput: Throughput,
    /// What struck what, and which rare branches were taken.
    pub coverage: Coverage,
}

/// The seeds of one shard.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Where the campaign, not the shard, begins.
    pub start: u64,
    /// Where it ends; a steered one has no end.
    pub end: Option<u64>,
    /// Options of the command line that make another life of a seed.
    pub conditions: String,
    /// Which seeds of the campaign are its own.
    pub shard: Shard,
    /// How many of these were lived.
    pub taken: u64,
    /// Where a campaign that goes on begins; none if nothing is left.
    pub rest: Option<u64>,
}

/// What one core does in a second.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Throughput {
    /// Lives.
    pub lives: f64,
    /// Copies whose power was cut, and that were audited.
    pub crash_points: f64,
    /// Requests to disks, without those of copies.
    pub ios: f64,
}

impl Part {
    /// Whether the other one is of the same seeds, however many of them it has lived.
    pub fn is_same_shard(&self, other: &Part) -> bool {
        let shard = |part: &Part| (part.start, part.end, part.shard);
        shard(self) == shard(other) && self.conditions == other.conditions
    }
}

impl Summary {
    /// Adds a life that took `core_us` microseconds.
    pub fn add(&mut self, life: &Life, core_us: u64) {
        let counts = Counts::of(life);
        let mut one = Summary { total: counts, core_us, ..Summary::default() };
        one.levels.insert(life.level.to_string(), counts);
        match &life.ending {
            Ending::Pass => {}
            Ending::Finding(found) => {
                one.findings.insert(found.reason.clone(), BTreeSet::from([life.seed]));
            }
            Ending::NoPromise(reason) => {
                one.no_promise.insert(reason.clone(), 1);
            }
            Ending::Budget => {
                one.budget.insert(life.seed);
            }
        }
        one.coverage = life.report.coverage.clone();
        one.trace = Hash(mix(life.report.trace.0 ^ mix(life.seed)));
        self.merge(one);
    }

    /// Adds what another part came to.
    pub fn merge(&mut self, other: Summary) {
        self.total += other.total;
        for (level, counts) in other.levels {
            *self.levels.entry(level).or_default() += counts;
        }
        for (reason, seeds) in other.findings {
            self.findings.entry(reason).or_default().extend(seeds);
        }
        for (reason, lives) in other.no_promise {
            *self.no_promise.entry(reason).or_default() += lives;
        }
        self.budget.extend(other.budget);
        self.trace = Hash(self.trace.0.wrapping_add(other.trace.0));
        self.coverage.merge(&other.coverage);
        self.parts.extend(other.parts);
        self.wall_us += other.wall_us;
        self.core_us += other.core_us;
        let per_second = |count: u64| if self.core_us == 0 { 0.0 } else { count as f64 * 1e6 / self.core_us as f64 };
        self.throughput = Throughput {
            lives: per_second(self.total.lives),
            crash_points: per_second(self.total.crash_points),
            ios: per_second(self.total.ios),
        };
    }

    /// Shards of a range of which others are here.
    pub fn missing(&self) -> Vec<(Seeds, Shard)> {
        let mut sweeps: BTreeMap<(Seeds, &str, u32), BTreeSet<u32>> = BTreeMap::new();
        for Part { start, end, conditions, shard, .. } in &self.parts {
            if let Some(end) = *end {
                let sweep = sweeps.entry((Seeds { start: *start, end }, conditions, shard.count)).or_default();
                sweep.insert(shard.index);
            }
        }
        let missing = sweeps.into_iter().flat_map(|((seeds, _, count), here)| {
            let absent = (0..count).filter(move |index| !here.contains(index));
            absent.map(move |index| (seeds, Shard { index, count }))
        });
        missing.collect()
    }
}

// ---- lines ----

/// 64 bits, in files as hexadecimal digits: not every reader of JSON counts so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub u64);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Hash, String> {
        u64::from_str_radix(text, 16).map(Hash).map_err(|_| format!("`{text}` is not a hash of 16 hexadecimal digits"))
    }
}

as_string!(Shard, Hash);

impl From<Trace> for Hash {
    fn from(trace: Trace) -> Hash {
        Hash(trace.0)
    }
}

/// One line of results.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// A life that ended.
    Life(LifeLine),
    /// A finding.
    Finding(Found),
    /// All of it: the last line.
    Summary(Box<Summary>),
}

/// A life, in a line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LifeLine {
    /// Its seed.
    pub seed: u64,
    /// The level of its array.
    pub level: String,
    /// `pass`, `finding`, `no-promise` or `budget`.
    pub ending: String,
    /// Why it did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Hash of all that happened.
    pub trace: Hash,
    /// What it came to.
    #[serde(flatten)]
    pub counts: Counts,
}

#[derive(Serialize)]
struct Written<'a> {
    schema: &'static str,
    #[serde(flatten)]
    line: &'a Line,
}

#[derive(Deserialize)]
struct Read {
    schema: String,
    kind: String,
}

/// Why a line is none of ours.
#[derive(Debug, Error)]
pub enum LineError {
    /// It is no JSON, or lacks something.
    #[error("{0}")]
    Text(#[from] serde_json::Error),
    /// It is something else.
    #[error("its schema is `{0}`; this program reads {SCHEMA}")]
    Schema(String),
    /// It is of a kind that there is not.
    #[error("`{0}` is no kind of line: life, finding or summary")]
    Kind(String),
}

impl Line {
    /// The text of a line, without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&Written { schema: SCHEMA, line: self }).expect("it is plain data")
    }

    /// Reads a line.
    ///
    /// # Errors
    /// If it is not one that this program writes.
    pub fn parse(text: &str) -> Result<Line, LineError> {
        let Read { schema, kind } = serde_json::from_str(text)?;
        match kind.as_str() {
            _ if schema != SCHEMA => Err(LineError::Schema(schema)),
            "life" => Ok(Line::Life(serde_json::from_str(text)?)),
            "finding" => Ok(Line::Finding(serde_json::from_str(text)?)),
            "summary" => Ok(Line::Summary(serde_json::from_str(text)?)),
            _ => Err(LineError::Kind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(seeds: &str, shard: &str) -> Plan {
        Plan::sweep(seeds.parse().expect("they are seeds"), shard.parse().expect("it is a shard"))
    }

    fn summary_of(seed: u64) -> Summary {
        let wish = Wish { level: Some(Level::Raid1), disks: Some(2), ..Wish::default() };
        let mut life = Life::live(&draw(seed, &wish), Effort::PLAIN, false);
        life.ending = match seed % 4 {
            0 => Ending::Pass,
            1 => Ending::Finding(Box::new(found(seed))),
            2 => Ending::NoPromise(String::from("register")),
            _ => Ending::Budget,
        };
        life.level = Level::ALL[seed as usize % 6];
        let mut summary = Summary::default();
        summary.add(&life, 100 + seed);
        summary.parts.insert(sweep(&format!("{seed}"), "0/1").part(""));
        summary
    }

    fn found(seed: u64) -> Found {
        Found {
            seed,
            level: String::from("raid1"),
            reason: format!("reason {}", seed % 2),
            what: String::from("two\nlines"),
            event: 9,
            place: Some(String::from("src/raid/array.rs:1")),
            file: None,
            story: vec![String::from("op 0: flush")],
            scenario: draw(seed, &Wish::default()).to_toml(),
        }
    }

    #[test]
    fn seeds_are_a_range_or_one_and_what_is_no_seed_is_named() {
        assert_eq!("7..9".parse(), Ok(Seeds { start: 7, end: 9 }));
        assert_eq!("0x10".parse(), Ok(Seeds { start: 16, end: 17 }));
        assert_eq!("0..9223372036854775808".parse(), Ok(Seeds { start: 0, end: SEED_END }));
        let table = [
            ("a..5", "`a` is not a seed"),
            ("5..b", "`b` is not a seed"),
            ("", "`` is not a seed"),
            ("..", "`` is not a seed"),
            ("+5", "`+5` is not a seed"),
            ("-1", "`-1` is not a seed"),
            ("0x", "`0x` is not a seed"),
            ("1..2..3", "`2..3` is not a seed"),
            ("9223372036854775808", "below 2^63"),
            ("0..9223372036854775809", "below 2^63"),
            ("5..5", "`5..5` is empty"),
            ("6..5", "`6..5` is empty"),
        ];
        for (text, phrase) in table {
            let error = text.parse::<Seeds>().expect_err(text).to_string();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn every_seed_of_a_range_is_in_one_shard() {
        for (seeds, count) in [("0..10", 1), ("0..10", 3), ("5..7", 4), ("100..133", 8)] {
            let whole: Vec<u64> = sweep(seeds, "0/1").collect();
            let mut dealt = Vec::new();
            for index in 0..count {
                let plan = sweep(seeds, &format!("{index}/{count}"));
                let (length, own): (_, Vec<u64>) = (plan.length(), plan.collect());
                assert_eq!(length, Some(own.len() as u64), "{seeds} {index}/{count}");
                dealt.extend(own);
            }
            dealt.sort_unstable();
            assert_eq!(dealt, whole, "{seeds} in {count}");
        }
        let last = format!("{}..{SEED_END}", SEED_END - 2);
        assert_eq!(sweep(&last, "1/2").collect::<Vec<_>>(), [SEED_END - 1]);
        assert_eq!(sweep(&last, "4000000000/4294967295").next(), None);
    }

    #[test]
    fn a_shard_goes_on_where_it_was() {
        for taken in 0..=4 {
            let mut plan = sweep("10..30", "2/5");
            let begun: Vec<u64> = plan.by_ref().take(taken).collect();
            let rest = plan.part("").rest.map(|rest| sweep(&format!("{rest}..30"), "2/5").collect::<Vec<_>>());
            assert_eq!([begun, rest.unwrap_or_default()].concat(), [12, 17, 22, 27], "after {taken}");
        }
    }

    #[test]
    fn a_scheduler_says_which_shard_it_is() {
        let resolve = |word: &str, variables: &[(&str, &str)]| {
            let variable =
                |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into());
            word.parse::<ShardWish>().and_then(|wish| wish.resolve(variable)).map(|shard| shard.to_string())
        };
        let slurm = |id| {
            let (first, step, count) = ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT");
            [("SLURM_ARRAY_TASK_ID", id), (first, "1"), (step, "2"), (count, "4")]
        };
        assert_eq!(resolve("2/8", &[]).as_deref(), Ok("2/8"));
        assert_eq!(resolve("auto", &slurm("1")).as_deref(), Ok("0/4"));
        assert_eq!(resolve("auto", &slurm("7")).as_deref(), Ok("3/4"));
        assert_eq!(resolve("auto", &slurm("9")), Err(ShardError::Index { index: 4, count: 4 }));
        assert!(matches!(resolve("auto", &slurm("x")), Err(ShardError::Variable { .. })));
        let kubernetes = [("JOB_COMPLETION_INDEX", "3")];
        assert_eq!(resolve("auto/5", &kubernetes).as_deref(), Ok("3/5"));
        assert_eq!(resolve("auto", &kubernetes), Err(ShardError::NoCount));
        assert_eq!(resolve("auto/3", &kubernetes), Err(ShardError::Index { index: 3, count: 3 }));
        assert_eq!(resolve("auto", &[]), Err(ShardError::NoScheduler));
        for word in ["", "1", "1/", "/8", "8/8", "0/0", "auto/0", "auto/x", "-1/8", "1/2/3"] {
            assert!(resolve(word, &kubernetes).is_err(), "{word}");
        }
    }

    #[test]
    fn a_steered_campaign_chooses_the_same_again_and_its_shards_share_no_seed() {
        let chosen = |index, lives| {
            let shard = Shard::new(index, 2).expect("there are two");
            Plan::steered(SEED_END - 20, shard, Wish::default()).take(lives).collect::<Vec<_>>()
        };
        let (one, other) = (chosen(0, 12), chosen(1, 12));
        assert_eq!(one[..8], chosen(0, 8));
        let all: BTreeSet<u64> = one.iter().chain(&other).copied().collect();
        assert_eq!(all.len(), 24);
        assert!(all.iter().all(|seed| *seed < SEED_END));
    }

    /// 40 of 160 scenarios, chosen, plan more different things than the first 40.
    #[test]
    fn steering_reaches_more_in_as_many_lives() {
        let reached = |seeds: Vec<u64>| {
            let plans: BTreeSet<Planned> =
                seeds.into_iter().flat_map(|seed| planned(&draw(seed, &Wish::default()))).collect();
            plans.len()
        };
        let steered = Plan::steered(1000, Shard::WHOLE, Wish::default());
        assert!(reached(steered.take(40).collect()) > reached((1000..1040).collect()));
    }

    #[test]
    fn summaries_of_parts_make_the_same_whole_in_any_order() {
        let parts: Vec<Summary> = (0..8).map(summary_of).collect();
        let whole = |order: &[usize]| {
            let mut whole = Summary::default();
            order.iter().for_each(|at| whole.merge(parts[*at].clone()));
            whole
        };
        let forwards = whole(&[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(forwards, whole(&[7, 6, 5, 4, 3, 2, 1, 0]));
        let mut halves = whole(&[5, 0, 3]);
        halves.merge(whole(&[1, 7, 2, 6, 4]));
        assert_eq!(forwards, halves);

        let counts = forwards.total;
        let ended = (counts.passes, counts.findings, counts.no_promise, counts.budget);
        assert_eq!((counts.lives, ended), (8, (2, 2, 2, 2)), "every life ends in one of four ways");
        assert_eq!(forwards.levels.values().map(|level| level.lives).sum::<u64>(), 8);
        assert_eq!(forwards.findings["reason 1"], BTreeSet::from([1, 5]));
        assert_eq!(forwards.budget, BTreeSet::from([3, 7]));
    }

    #[test]
    fn a_shard_that_is_not_there_is_missed() {
        let mut whole = Summary::default();
        whole.parts.extend([
            sweep("0..9", "0/3").part(""),
            sweep("0..9", "2/3").part(""),
            sweep("0..5", "0/1").part(""),
        ]);
        let missing: Vec<String> = whole.missing().iter().map(|(seeds, shard)| format!("{shard} of {seeds}")).collect();
        assert_eq!(missing, ["1/3 of 0..9"]);
    }

    #[test]
    fn lines_are_read_as_they_were_written_and_others_are_refused() {
        let life = Life::live(&draw(1, &Wish { level: Some(Level::Raid1), ..Wish::default() }), Effort::PLAIN, true);
        for line in [life.line(), Line::Finding(found(1)), Line::Summary(Box::new(summary_of(2)))] {
            assert_eq!(Line::parse(&line.to_json()).expect("it was just written"), line);
        }
        let table = [
            ("", "EOF"),
            ("{}", "missing field `schema`"),
            (r#"{"schema":"raidlab-sim/v9","kind":"summary"}"#, "this program reads raidlab-sim/v1"),
            (r#"{"schema":"raidlab-sim/v1","kind":"poem"}"#, "`poem` is no kind of line"),
            (r#"{"schema":"raidlab-sim/v1","kind":"finding","seed":-1}"#, "invalid value"),
        ];
        for (text, phrase) in table {
            let error = Line::parse(text).expect_err(text).to_string();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn the_file_of_a_finding_is_a_scenario_and_says_what_it_is_kept_for() {
        let text = found(3).to_file();
        assert!(text.starts_with("# reason 1: two\n# lines\n# at src/raid/array.rs:1\nschema = "), "{text}");
        assert_eq!(Scenario::parse(&text).expect("it is one"), draw(3, &Wish::default()));
    }

    #[test]
    fn a_wish_that_some_seed_could_not_fulfil_is_refused() {
        let wish = |level, disks| check_wish(&Wish { level, disks: Some(disks), ..Wish::default() });
        for (level, disks) in [(None, 2), (None, 33), (None, 0), (Some(Level::Raid6), 3), (Some(Level::Raid10), 2)] {
            assert!(wish(level, disks).is_err(), "{level:?} of {disks}");
        }
        for (level, disks) in [(None, 4), (None, 7), (Some(Level::Raid1), 2), (Some(Level::Raid5), 32)] {
            assert!(wish(level, disks).is_ok(), "{level:?} of {disks}: {:?}", wish(level, disks));
        }
    }
}
