//! `sim merge`: what the shards of a campaign came to, together.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::corpus::Corpus;
use super::tell;
use crate::cli::{Failure, Manner, Outcome};
use crate::sim::campaign::{Found, Line, Summary};

/// Arguments of `sim merge`.
#[derive(Args, Debug)]
pub struct MergeArgs {
    /// What `sim run --json` wrote, a file for each shard; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where scenarios of findings are kept
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Show what struck what in which phase, and what was never reached
    #[arg(long)]
    coverage: bool,
    /// Print it as lines of JSON, which can be merged again
    #[arg(long)]
    json: bool,
}

/// Runs `sim merge`.
pub fn run(args: &MergeArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let corpus = args.corpus.as_deref().map(Corpus::open).transpose()?;
    let mut parts = Vec::new();
    // A shard that was begun again has found the same again.
    let mut found = BTreeSet::new();
    let mut cut_off = Vec::new();
    for file in &args.files {
        let mut has_summary = false;
        for (line, number) in lines(file)?.zip(1_u64..) {
            let at = |reason: &dyn std::fmt::Display| Failure::cannot(format!("{}:{number}: {reason}", file.display()));
            let line = line.map_err(|error| at(&error))?;
            match Line::parse(&line).map_err(|error| at(&error))? {
                Line::Summary(part) => {
                    has_summary = true;
                    add(&mut parts, *part).map_err(|twice| at(&twice))?;
                }
                Line::Finding(finding) if found.insert((finding.seed, finding.what.clone())) => {
                    tell(args, corpus.as_ref(), finding, out)?;
                }
                Line::Life(_) if args.json => writeln!(out, "{line}")?,
                Line::Finding(_) | Line::Life(_) => {}
            }
        }
        if !has_summary {
            cut_off.push(file.display().to_string());
        }
    }
    let mut whole = Summary::default();
    parts.into_iter().for_each(|part| whole.merge(part));
    for (seeds, shard) in whole.missing() {
        manner.hint(&format!("note: shard {shard} of seeds {seeds} is not here"));
    }
    let has_findings = whole.total.findings > 0 || !found.is_empty();
    if args.json {
        writeln!(out, "{}", Line::Summary(Box::new(whole)).to_json())?;
    } else {
        tell::summary(out, &whole)?;
        if args.coverage {
            writeln!(out, "\n{}", whole.coverage)?;
        }
    }
    if cut_off.is_empty() {
        return Ok(u8::from(has_findings));
    }
    let code = if has_findings { 1 } else { 4 };
    let files = cut_off.join(", ");
    Err(Failure { code, message: format!("no summary in {files}: these shards did not end; run them again") })
}

/// Adds a part to those that are there. Of a shard that was stopped and begun again, the longer one counts.
fn add(parts: &mut Vec<Summary>, part: Summary) -> Result<(), String> {
    let is_same = |other: &Summary| other.parts.iter().any(|one| part.parts.iter().any(|two| one.is_same_shard(two)));
    let Some(at) = parts.iter().position(is_same) else {
        parts.push(part);
        return Ok(());
    };
    let taken = |summary: &Summary| match summary.parts.len() {
        1 => summary.parts.first().map(|part| part.taken),
        _ => None,
    };
    match (taken(&parts[at]), taken(&part)) {
        (Some(before), Some(now)) if before < now => parts[at] = part,
        (Some(before), Some(now)) if before > now => {}
        _ => return Err(String::from("these seeds were there before: give each file once")),
    }
    Ok(())
}

fn tell(args: &MergeArgs, corpus: Option<&Corpus>, found: Found, out: &mut impl Write) -> Result<(), Failure> {
    let kept = corpus.map(|corpus| corpus.keep(&found)).transpose()?;
    if args.json {
        return Ok(writeln!(out, "{}", Line::Finding(found).to_json())?);
    }
    let files: String = args.files.iter().map(|file| tell::quoted(&file.display().to_string()) + " ").collect();
    let keep = format!("raidlab sim merge {files}--corpus findings");
    Ok(tell::finding(out, &found, kept.as_deref(), &keep)?)
}

fn lines(file: &Path) -> Result<Box<dyn Iterator<Item = io::Result<String>>>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock().lines()));
    }
    let opened =
        File::open(file).map_err(|error| Failure::cannot(format!("cannot read {}: {error}", file.display())))?;
    Ok(Box::new(BufReader::new(opened).lines()))
}
