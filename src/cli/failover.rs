//! `failover`: what a failure of a path costs, in virtual time.

mod picture;
mod scenario_file;
mod sweep;
mod timeline;

use std::io::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Failure, Manner, Outcome, path};
use crate::multipath::keys;
use crate::multipath::profile::{Profile, ProfileName};
use crate::sim::failover::{Class, Client, Outcome as Measured, SCENARIOS, Scenario, run as fail_over};
use crate::units::{Size, Span};

/// Arguments of `failover`.
#[derive(Args, Debug)]
pub struct FailoverArgs {
    /// A lab with paths: its fabric and its timers
    #[arg(value_name = "LAB", conflicts_with = "profile")]
    lab: Option<PathBuf>,
    /// Whose timers: classic, tuned, aggressive, linux-iscsi, linux-nvme, vmware, windows
    #[arg(long, value_name = "NAME", default_value = "classic", value_parser = profile_of)]
    profile: ProfileName,
    /// What fails: cable-pull, black-hole, controller-loss, switch-loss, flap, slow-path, all-paths-down, failback-storm, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "cable-pull")]
    scenario: String,
    /// Another value for a timer or a policy, by its name in multipath.conf; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Try values of a timer: the longest stall against needless failovers
    #[arg(long, value_name = "KEY=A..B", conflicts_with = "scenario")]
    sweep: Option<Sweep>,
    /// How long the transient losses of a sweep last, on average
    #[arg(long, value_name = "TIME", default_value = "3s", requires = "sweep")]
    hiccup: Span,
    /// Requests a second of the client; 0: as many as it can
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rate: u64,
    /// Requests of the client under way at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// Size of the client's requests
    #[arg(long, value_name = "SIZE", default_value = "4K")]
    bs: Size,
    /// Reads among a hundred of them
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    rwmixread: u8,
    /// All chance comes from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Draw it
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// `hba_timeout=1s..60s`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sweep {
    key: String,
    range: RangeInclusive<Duration>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Sweep, String> {
        let bad = || format!("{text:?} is not KEY=A..B: type something like hba_timeout=1s..60s");
        let (key, range) = text.split_once('=').ok_or_else(bad)?;
        let (from, to) = range.split_once("..").ok_or_else(bad)?;
        let [from, to] = [from, to].map(keys::time);
        let (from, to) = (from?, to?);
        if from.is_zero() || from >= to {
            return Err(format!(
                "{range:?} is no range of times: the first must be more than 0 and less than the second"
            ));
        }
        Ok(Sweep { key: key.to_owned(), range: from..=to })
    }
}

fn profile_of(text: &str) -> Result<ProfileName, String> {
    let known = ProfileName::ALL.map(ProfileName::name);
    ProfileName::ALL
        .into_iter()
        .find(|profile| profile.name() == text)
        .ok_or_else(|| keys::unknown("profile", text, &known))
}

/// Runs `failover`.
pub fn run(args: &FailoverArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let (mut profile, of_lab) = match &args.lab {
        Some(lab) if !lab.exists() && lab.to_str().is_some_and(|word| SCENARIOS.contains(&word)) => {
            let lab = lab.display();
            return Err(Failure::usage(format!(
                "{lab} is a scenario, and no lab: `raidlab failover --scenario {lab}`"
            )));
        }
        Some(lab) => path::fabric_of(lab).map(|(profile, graph)| (profile, Some(graph)))?,
        None => (args.profile.profile(), None),
    };
    let preset = profile.preset;
    for setting in &args.set {
        let (key, value) = setting.split_once('=').ok_or_else(|| {
            Failure::usage(format!("{setting:?} is not KEY=VALUE: type something like hba_timeout=5s"))
        })?;
        keys::set(&mut profile, key, value).map_err(Failure::usage)?;
    }
    let client = client(args)?;
    let fabric = match of_lab.filter(|_| profile.preset == preset) {
        Some(graph) => graph.with_fencing(profile.fencing),
        None => profile.graph(),
    };
    if let Some(of) = &args.sweep {
        return sweep::run(args, &profile, &fabric, of, client, manner, out);
    }
    let (scenario, topology) = match Scenario::shipped(&args.scenario, &fabric, &profile) {
        Some(scenario) => (scenario, None),
        None => scenario_file::read(&args.scenario).map_err(Failure::usage)?,
    };
    let graph = topology.unwrap_or(fabric);
    profile.fencing = graph.paths().iter().map(|path| path.fencing).min().unwrap_or(profile.fencing);
    profile.settle().map_err(Failure::usage)?;
    if let Some(unknown) = scenario.unknown_component(&graph) {
        let known: Vec<&str> = graph.components().iter().map(|component| component.name.as_str()).collect();
        return Err(Failure::usage(keys::unknown("component", unknown, &known)));
    }
    let measured = fail_over(&profile, graph, &scenario, client);
    let command = replay(args);
    if let Some(path) = &args.svg {
        let drawn = picture::draw(&whose(args), &profile, &scenario, &measured, &command);
        std::fs::write(path, drawn)
            .map_err(|error| Failure::cannot(format!("cannot write {}: {error}", path.display())))?;
    }
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &as_json(args, &profile, &scenario, &measured, &command))
            .map_err(|error| Failure::from(std::io::Error::from(error)))?;
        writeln!(out)?;
    } else {
        timeline::write(out, &whose(args), &profile, &scenario, &measured)?;
        if manner.verbose {
            write!(out, "\nbefore the last event:\n{}", measured.topology)?;
        }
        manner.hint(&format!("again: {command}"));
    }
    Ok(if measured.wrong_blocks > 0 { 2 } else { u8::from(!measured.errors.is_empty()) })
}

fn client(args: &FailoverArgs) -> Result<Client, Failure> {
    let most = 1 << 20;
    if args.bs.0 == 0 || !args.bs.0.is_multiple_of(512) || args.bs.0 > most {
        return Err(Failure::usage(format!("--bs {} is not a multiple of 512 up to 1M", args.bs)));
    }
    // Each request has a block of its own, of 32 MiB.
    if u64::from(args.depth) * args.bs.0 > 16 << 20 {
        return Err(Failure::usage("--depth times --bs must be 16M at the most: lower one of them"));
    }
    Ok(Client {
        depth: args.depth.into(),
        rate: args.rate,
        block: args.bs.0 / 512,
        reads: args.rwmixread.into(),
        seed: args.seed,
    })
}

/// Whose timers they are.
fn whose(args: &FailoverArgs) -> String {
    args.lab.as_ref().map_or_else(|| args.profile.to_string(), |lab| lab.display().to_string())
}

/// The command that does the same again.
fn replay(args: &FailoverArgs) -> String {
    let mut words = vec![match &args.lab {
        Some(lab) => format!("raidlab failover {}", quoted(&lab.display().to_string())),
        None => format!("raidlab failover --profile {}", args.profile),
    }];
    if args.sweep.is_none() {
        words.push(format!("--scenario {}", quoted(&args.scenario)));
    }
    words.extend(args.set.iter().map(|setting| format!("--set {}", quoted(setting))));
    if let Some(Sweep { key, range }) = &args.sweep {
        words.push(format!("--sweep {key}={}..{} --hiccup {}", Span(*range.start()), Span(*range.end()), args.hiccup));
    }
    words.push(format!(
        "--rate {} --depth {} --bs {} --rwmixread {} --seed {}",
        args.rate, args.depth, args.bs, args.rwmixread, args.seed
    ));
    words.join(" ")
}

/// For a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// What a command can be told of the class of a failure.
fn class_name(class: Class) -> &'static str {
    match class {
        Class::Link => "link",
        Class::Controller => "controller",
        Class::Silent => "silent",
        Class::AllPaths => "all-paths",
        Class::Slow => "slow",
    }
}

fn as_json(
    args: &FailoverArgs,
    profile: &Profile,
    scenario: &Scenario,
    measured: &Measured,
    command: &str,
) -> serde_json::Value {
    let graph = &measured.graph;
    let quantile =
        |percent: usize| measured.latencies.get(measured.latencies.len() * percent / 100).map(Duration::as_secs_f64);
    json!({
        "schema": "raidlab-failover/v1",
        "command": command,
        "profile": whose(args),
        "fabric": graph.name(),
        "settings": keys::all(profile).into_iter().map(|(key, value)| (key.to_owned(), value.into()))
            .collect::<serde_json::Map<String, serde_json::Value>>(),
        "scenario": scenario.name,
        "class": class_name(scenario.class),
        "stall_seconds": measured.longest.as_secs_f64(),
        "stall_begins_at": measured.longest_from.0 as f64 / 1e9,
        "stall_predicted_max_seconds": scenario.stall_max(profile).map(|bound| bound.as_secs_f64()),
        "served": measured.served,
        "errors": measured.errors.iter().map(|(error, count)| (error.to_string(), (*count).into()))
            .collect::<serde_json::Map<String, serde_json::Value>>(),
        "wrong_blocks": measured.wrong_blocks,
        "path_failures": measured.failures,
        "latency_seconds": { "p50": quantile(50), "p99": quantile(99) },
        "per_second": measured.per_second,
        "paths": graph.paths().iter().zip(&measured.per_path)
            .map(|(path, commands)| json!({ "name": path.name, "hctl": path.hctl, "commands": commands })).collect::<Vec<_>>(),
        "timeline": timeline::lines(profile, measured).into_iter()
            .map(|line| json!({ "at": line.at.as_secs_f64(), "text": line.text })).collect::<Vec<_>>(),
    })
}

/// What is shipped, for messages.
fn shipped() -> String {
    SCENARIOS.join(", ")
}
