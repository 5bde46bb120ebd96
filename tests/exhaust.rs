//! `sim exhaust`: every short story there is, told on the smallest arrays.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use raidlab::raid::level::Level;
use raidlab::sim::Verdict;
use raidlab::sim::exhaust::{Scope, Space};
use rayon::prelude::*;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::cli::raidlab;
use crate::support::process::Ran;
use crate::support::sample::{Sample, count};
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("exhaust::no_story_of_one_operation_and_one_fault_ends_badly").told_by(no_shortest_story_ends_badly),
        story("exhaust::no_longer_story_ends_badly").sampled_by(no_longer_story_ends_badly),
        story("exhaust::shards_together_are_the_whole").told_by(shards_together_are_the_whole),
        story("exhaust::interrupted_it_sums_up_and_says_how_to_go_on").told_by(interrupted_it_sums_up),
        story("exhaust::what_cannot_be_told_is_refused").told_by(what_cannot_be_told),
    ]
}

/// Lives these words of a space: what ended badly, as text, and how many power cuts there were.
fn live(space: &Space, words: &[u64]) -> (Vec<String>, u64) {
    let lived: Vec<_> = words.par_iter().map(|word| (word, space.live(*word))).collect();
    let cuts = lived.iter().map(|(_, lived)| lived.report.tally.cuts).sum();
    let ill = lived.into_iter().filter_map(|(word, lived)| match lived.verdict {
        Verdict::Pass => None,
        Verdict::Finding(finding) => Some(format!("{word}: {finding}{}", finding.scenario.to_toml())),
        other => Some(format!("{word}: {other:?}")),
    });
    (ill.collect(), cuts)
}

fn no_shortest_story_ends_badly() {
    for level in Level::ALL {
        let space = Space::new(level, Scope { ops: 1, ..Scope::USUAL }).expect("the smallest array can be");
        let (ill, cuts) = live(&space, &(0..space.words()).collect::<Vec<_>>());
        assert!(ill.is_empty(), "{level}, {} of {}:\n{}", ill.len(), space.words(), ill.join("\n"));
        assert!(cuts > space.words(), "{level}: the power was cut {cuts} times");
    }
}

fn no_longer_story_ends_badly(mut sample: Sample) {
    let scopes = [
        Scope { ops: 3, faults: 2, ..Scope::USUAL },
        Scope { ops: 2, faults: 2, bitmap: true, ..Scope::USUAL },
        Scope { ops: 1, faults: 0, twice: true, ..Scope::USUAL },
        Scope { ops: 2, disks: Some(6), ..Scope::USUAL },
    ];
    for scope in scopes {
        for level in Level::ALL.into_iter().filter(|level| !(scope.bitmap && *level == Level::Raid0)) {
            let scope = Scope { seed: sample.seed() >> 1, ..scope };
            let space = Space::new(level, scope).expect("the smallest array can be");
            let few = if scope.twice { 1 } else { 4 };
            let words = space.sample(count(few, 40 * few) as u64, sample.seed());
            let (ill, _) = live(&space, &words);
            assert!(ill.is_empty(), "{level}, {scope:?}, {} of {}:\n{}", ill.len(), words.len(), ill.join("\n"));
        }
    }
}

/// Quick: a mirror, and no faults.
const QUICK: &str = "--level 1 --faults 0 --ops 1";

fn sim(at: &Path, words: &str) -> Ran {
    raidlab(at, format!("sim exhaust {words}").split_whitespace()).run()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("the temporary directory takes directories")
}

fn summary_of(ran: &Ran) -> Value {
    let last = ran.text().lines().last().unwrap_or_else(|| panic!("{ran}"));
    let summary: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {ran}"));
    assert_eq!((&summary["schema"], &summary["kind"]), (&"raidlab-sim-exhaust/v1".into(), &"summary".into()), "{ran}");
    summary
}

fn shards_together_are_the_whole() {
    let at = directory();
    let told = sim(at.path(), QUICK).expect_ok();
    assert!(told.text().contains("exhausted: all "), "{told}");
    let counts = |words: &str| {
        let summary = summary_of(&sim(at.path(), &format!("{QUICK} --json {words}")).expect_ok());
        ["lived", "events", "cuts", "views"].map(|name| summary["levels"][0][name].as_u64().expect("a number"))
    };
    let whole = counts("");
    let shards = [counts("--shard 0/2"), counts("--shard 1/2")];
    let both: Vec<u64> = shards[0].iter().zip(shards[1]).map(|(one, other)| one + other).collect();
    assert_eq!(both, whole);

    let sampled = sim(at.path(), &format!("{QUICK} --sample 3")).expect_ok();
    assert!(sampled.text().contains("a sample: 3 of "), "{sampled}");
}

fn interrupted_it_sums_up() {
    let at = directory();
    let words = "sim exhaust --level 1 --ops 3 --faults 2 --jobs 1 --json";
    let run = raidlab(at.path(), words.split_whitespace()).start();
    let began = Instant::now();
    // It has no line to say before the end.
    while began.elapsed() < Duration::from_secs(2) {
        sleep(Duration::from_millis(50));
    }
    run.signal(Signal::INT);
    let ran = run.wait(Duration::from_secs(60)).expect_code(4);
    let summary = summary_of(&ran);
    let lived = summary["levels"][0]["lived"].as_u64().expect("a number");
    let rest = format!("raidlab sim exhaust --level raid1 --ops 3 --faults 2 --from {lived} --jobs 1 --json");
    assert_eq!(summary["rest"], rest, "{ran}");
    assert!(lived > 0 && ran.stderr.contains(&format!("interrupted: `{rest}` goes on")), "{ran}");
}

fn what_cannot_be_told() {
    let at = directory();
    let table = [
        ("--ops 9", 3, "9 is not in 0..=4"),
        ("--faults 7", 3, "7 is not in 0..=3"),
        ("--depth 3", 3, "3 is not in 1..=2"),
        ("--level 6 --disks 3", 3, "raid6"),
        ("--level 0 --bitmap", 3, "raid0 has no redundancy"),
        ("--level 1 --ops 0 --faults 0 --from 7", 3, "there are 1 stories"),
        ("--sample 0", 3, "0 is not in 1.."),
        ("--shard 2/2", 3, "numbered from 0 to 1"),
        ("--corpus /proc/nowhere", 4, "cannot keep findings in /proc/nowhere"),
    ];
    for (words, code, phrase) in table {
        let ran = sim(at.path(), words).expect_code(code);
        assert!(ran.stderr.contains(phrase), "{phrase}: {ran}");
        assert!(ran.stdout.is_empty(), "errors go to standard error: {ran}");
    }
}
