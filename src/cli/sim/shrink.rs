//! `sim shrink`: what failed, as short as it can be.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::super::run::stop_flag;
use super::super::{Failure, Manner, Outcome};
use super::replay::{Life, LifeArgs, quietly};
use crate::sim::shrink::{Shrunk, rust_test, scenario_file, shrink, test_name};
use crate::sim::{Finding, Verdict, live};
use crate::units::Span;

const SCHEMA: &str = "raidlab-sim-shrink/v1";

/// Arguments of `sim shrink`.
#[derive(Args, Debug)]
pub struct ShrinkArgs {
    #[command(flatten)]
    life: LifeArgs,
    /// Where the short scenario is written [default: FILE.min.toml, or seed-SEED.min.toml]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    yes: bool,
    /// How long to go on at most
    #[arg(long = "for", value_name = "TIME", default_value = "60s")]
    limit: Span,
    /// JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs `sim shrink`.
pub fn run(args: &ShrinkArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let life = args.life.life()?;
    let path = args.out.clone().unwrap_or_else(|| usual_path(&life));
    if path.exists() && !args.yes {
        let path = path.display();
        return Err(Failure::usage(format!("{path} is there already: add --yes to replace it, or --out for another")));
    }
    let finding = quietly(|| fails(&life))?;
    let shrunk = quietly(|| within(args.limit.0, manner, &finding));
    let written = fs::write(&path, scenario_file(&shrunk.finding));
    written.map_err(|error| Failure::cannot(format!("cannot write {}: {error}", path.display())))?;

    let Shrunk { finding, tried, before, after, is_minimal } = shrunk;
    let test = rust_test(&finding, &test_name(&finding));
    if args.json {
        let told = Told {
            schema: SCHEMA,
            reason: finding.failed.reason().to_string(),
            failed: finding.failed.to_string(),
            before,
            after,
            tried,
            is_minimal,
            path: path.display().to_string(),
            scenario: finding.scenario.to_toml(),
            test,
        };
        writeln!(out, "{}", serde_json::to_string_pretty(&told).expect("words and numbers"))?;
    } else {
        writeln!(out, "{}\n{test}", scenario_file(&finding))?;
    }
    let end = if is_minimal { "nothing makes it shorter" } else { "time is up; --for gives it more" };
    manner.hint(&format!("{before} operations and steps are {after} now, in {tried} tries: {end}"));
    manner.hint(&format!("written: {0}; its story: raidlab sim replay {0} --explain", path.display()));
    Ok(1)
}

fn usual_path(life: &Life) -> PathBuf {
    match &life.file {
        Some(file) => file.with_extension("min.toml"),
        None => PathBuf::from(format!("seed-{}.min.toml", life.scenario.seed)),
    }
}

fn fails(life: &Life) -> Result<Finding, Failure> {
    match live(&life.scenario, life.effort).1 {
        Verdict::Finding(finding) => Ok(*finding),
        Verdict::Pass => Err(Failure::cannot(
            "it does not fail: there is nothing to shrink (a copy's power cut may be what it takes: --crash-points every)",
        )),
        Verdict::NoPromise(failed) => {
            Err(Failure::cannot(format!("it fails where nothing is promised, and that is no finding: {failed}")))
        }
        Verdict::Budget => Err(Failure::cannot("it was given up for its many events, and has not failed by then")),
    }
}

fn within(limit: Duration, manner: Manner, finding: &Finding) -> Shrunk {
    let (begun, stop) = (Instant::now(), stop_flag());
    let target = if manner.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{elapsed} {msg}").expect("the template is one");
    let line = ProgressBar::with_draw_target(None, target).with_style(style);
    let shrunk = shrink(finding, &mut |sofar| {
        line.set_message(format!("{} operations and steps after {} tries", sofar.length, sofar.tried));
        line.tick();
        begun.elapsed() < limit && !stop.load(Ordering::Relaxed)
    });
    line.finish_and_clear();
    shrunk
}

/// A result as JSON.
#[derive(Serialize)]
struct Told {
    schema: &'static str,
    reason: String,
    failed: String,
    /// Operations and steps at the beginning.
    before: usize,
    /// Operations and steps left.
    after: usize,
    tried: u64,
    is_minimal: bool,
    path: String,
    scenario: String,
    test: String,
}
