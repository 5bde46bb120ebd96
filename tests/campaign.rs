//! Campaigns of the simulator: many lives of arrays, cut into shards, interrupted, put together again.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use raidlab::sim::campaign::{Ending, Life};
use raidlab::sim::fabrics::Fabrics;
use raidlab::sim::{Cuts, Effort, Scenario, Wish, draw};
use rayon::prelude::*;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::cli::raidlab;
use crate::support::process::Ran;
use crate::support::sample::{Sample, count};
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("campaign::no_seed_finds_anything").sampled_by(no_seed_finds_anything),
        story("campaign::no_seed_with_paths_finds_anything").sampled_by(no_seed_with_paths_finds_anything),
        story("campaign::no_seed_with_mapped_disks_finds_anything").sampled_by(no_seed_with_mapped_disks),
        story("campaign::a_short_run_says_what_it_was").told_by(a_short_run_says_what_it_was),
        story("campaign::a_chosen_campaign_is_the_same_again").told_by(a_chosen_campaign_is_the_same_again),
        story("campaign::shards_together_are_the_whole").told_by(shards_together_are_the_whole),
        story("campaign::interrupted_it_sums_up_and_says_how_to_go_on").told_by(interrupted_it_sums_up),
        story("campaign::the_corpus_is_lived_first").told_by(the_corpus_is_lived_first),
        story("campaign::what_cannot_be_run_is_refused_before_it_begins").told_by(what_cannot_be_run),
    ]
}

/// Each is lived twice, and must be the same again.
fn no_seed_finds_anything(mut sample: Sample) {
    let lives = count(150, 1500);
    let ended = lived(sample.seed(), lives, |seed| Life::live(&draw(seed, &Wish::default()), Effort::SAMPLE, true));
    assert!(ended.iter().map(|life| life.report.tally.cuts).sum::<u64>() > lives as u64, "the power was cut");
}

/// Paths over the array, under it, and both; components fail, and whatever else befalls a life.
fn no_seed_with_paths_finds_anything(mut sample: Sample) {
    let effort = Effort { cuts: Cuts::Every(997), ..Effort::PLAIN };
    lived(sample.seed(), count(45, 10_000), |seed| {
        let wish = Wish { paths: Fabrics::in_turn(seed), ..Wish::default() };
        Life::live(&draw(seed, &wish), effort, false)
    });
}

/// Reads are carried out at once, by an executor of their own, where nothing stands against it.
fn no_seed_with_mapped_disks(mut sample: Sample) {
    let wish = Wish { mapped: true, ..Wish::default() };
    lived(sample.seed(), count(100, 10_000), |seed| Life::live(&draw(seed, &wish), Effort::SAMPLE, true));
}

/// So many lives from a seed on: none finds anything, and most prove something.
fn lived(seed: u64, lives: usize, live: impl Fn(u64) -> Life + Sync + Send) -> Vec<Life> {
    let first = seed >> 2;
    let ended: Vec<Life> = (first..first + lives as u64).into_par_iter().map(live).collect();
    let findings = ended.iter().filter_map(Life::found);
    let told: Vec<_> = findings.map(|found| format!("seed {}: {}: {}", found.seed, found.reason, found.what)).collect();
    assert!(told.is_empty(), "{} of {lives}:\n{}", told.len(), told.join("\n"));
    let passed = ended.iter().filter(|life| life.ending == Ending::Pass).count();
    assert!(passed * 10 > lives * 8, "{passed} of {lives} lives prove something");
    ended
}

/// What is quick, and finds nothing.
const QUICK: &str = "--level 1 --disks 2 --faults stop,fail,unreadable --crash-points none";

fn sim(at: &Path, words: &str) -> Ran {
    raidlab(at, words.split_whitespace()).run()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("the temporary directory takes directories")
}

fn summary_of(ran: &Ran) -> Value {
    let last = ran.text().lines().last().unwrap_or_else(|| panic!("{ran}"));
    let summary: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {ran}"));
    assert_eq!((&summary["schema"], &summary["kind"]), (&"raidlab-sim/v1".into(), &"summary".into()), "{ran}");
    summary
}

fn a_short_run_says_what_it_was() {
    let at = directory();
    let told = sim(at.path(), &format!("sim run --seeds 5..9 {QUICK}")).expect_ok();
    let row = told.text().lines().find(|line| line.starts_with("all")).unwrap_or_else(|| panic!("{told}"));
    let cells: Vec<u64> = row.split_whitespace().skip(1).map(|cell| cell.parse().expect("a number")).collect();
    assert_eq!(cells[..5], [4, 4, 0, 0, 0], "{told}");

    let ran = sim(at.path(), &format!("sim run -v --seeds 5..9 --twice --json {QUICK}")).expect_ok();
    let lives = ran.text().lines().filter(|line| line.contains(r#""kind":"life""#)).count();
    let summary = summary_of(&ran);
    assert_eq!((lives, summary["total"]["ops"].as_u64()), (4, Some(cells[5])), "{ran}");
    assert_eq!(summary["levels"]["raid1"], summary["total"]);
    assert!(told.text().contains(summary["trace"].as_str().expect("a hash")), "{told}{ran}");
}

fn a_chosen_campaign_is_the_same_again() {
    let at = directory();
    let first = sim(at.path(), &format!("sim run --for 300ms {QUICK} --json"));
    let summary = summary_of(&first);
    let again = first.stderr.lines().find_map(|line| line.strip_prefix("the same again: raidlab ")).map(str::to_owned);
    let again = summary_of(&sim(at.path(), &again.unwrap_or_else(|| panic!("{first}"))));
    for name in ["trace", "total", "findings", "parts"] {
        assert_eq!(summary[name], again[name], "{first}");
    }
}

fn shards_together_are_the_whole() {
    let at = directory();
    let run = |more: &str| sim(at.path(), &format!("sim run --seeds 0..7 {QUICK} --json {more}")).expect_ok();
    let whole = summary_of(&run(""));
    for shard in 0..3 {
        let part = if shard == 1 {
            let words = format!("sim run --seeds 0..7 {QUICK} --json --shard auto/3");
            raidlab(at.path(), words.split_whitespace()).env("JOB_COMPLETION_INDEX", "1").run().expect_ok()
        } else {
            run(&format!("--shard {shard}/3"))
        };
        fs::write(at.path().join(format!("{shard}.jsonl")), &part.stdout).expect("there is room");
    }

    let merged = sim(at.path(), "sim merge --json 2.jsonl 0.jsonl 1.jsonl").expect_ok();
    for name in ["total", "levels", "findings", "no_promise", "budget", "trace"] {
        assert_eq!(summary_of(&merged)[name], whole[name], "{name}");
    }
    let some = sim(at.path(), "sim merge 2.jsonl 0.jsonl").expect_ok();
    assert!(some.stderr.contains("shard 1/3 of seeds 0..7 is not here"), "{some}");

    fs::write(at.path().join("cut"), "").expect("there is room");
    fs::write(at.path().join("poem"), "Roses are red\n").expect("there is room");
    let table = [
        ("0.jsonl 0.jsonl", "0.jsonl:1: these seeds were there before"),
        ("0.jsonl cut", "no summary in cut"),
        ("poem", "poem:1: expected value"),
        ("nowhere", "cannot read nowhere"),
    ];
    for (files, phrase) in table {
        let ran = sim(at.path(), &format!("sim merge {files}")).expect_code(4);
        assert!(ran.stderr.contains(phrase), "{ran}");
    }
}

fn interrupted_it_sums_up() {
    let at = directory();
    let words = format!("sim run -v --seeds 3..1000000 --shard 1/4 {QUICK} --json");
    let run = raidlab(at.path(), words.split_whitespace()).start();
    let began = Instant::now();
    while run.stdout().is_empty() && began.elapsed() < Duration::from_secs(30) {
        sleep(Duration::from_millis(5));
    }
    run.signal(Signal::INT);

    let ran = run.wait(Duration::from_secs(60)).expect_code(4);
    let lives = summary_of(&ran)["total"]["lives"].as_u64().expect("a number");
    assert!((1..10_000).contains(&lives), "{ran}");
    let rest = format!("interrupted: `raidlab sim run --seeds {}..1000000", 3 + 4 * lives);
    assert!(ran.stderr.contains(&rest) && ran.stderr.contains("--shard 1/4"), "{rest}\n{ran}");
}

fn the_corpus_is_lived_first() {
    let at = directory();
    let known = "schema = \"raidlab-scenario/v1\"\nseed = 7\nregime = \"budgeted\"\n[array]\nlevel = \"raid1\"\ndisks = 2\n\
                 member = 128\n[clients]\ndepth = 1\nops = [\"write 0+8\", \"flush\"]\n";
    Scenario::parse(known).expect("it is a scenario");
    fs::create_dir(at.path().join("corpus")).expect("there is room");
    fs::write(at.path().join("corpus/7.toml"), known).expect("there is room");
    let words = format!("sim run --seeds 0..2 --corpus corpus {QUICK} --json");
    let summary = summary_of(&sim(at.path(), &words).expect_ok());
    assert_eq!((summary["total"]["lives"].as_u64(), summary["total"]["corpus"].as_u64()), (Some(3), Some(1)));

    fs::write(at.path().join("corpus/8.toml"), known.replace("depth", "width")).expect("there is room");
    let ran = sim(at.path(), &words).expect_code(4);
    assert!(ran.stderr.contains("cannot read corpus/8.toml") && ran.stderr.contains("line 9"), "{ran}");
}

fn what_cannot_be_run() {
    let at = directory();
    fs::write(at.path().join("file"), b"").expect("there is room");
    let table = [
        ("--seeds x", 3, "`x` is not a seed: a seed is a number below 2^63"),
        ("--seeds 1..y", 3, "`y` is not a seed"),
        ("--seeds 5..5", 3, "`5..5` is empty"),
        ("--seeds 0..9223372036854775809", 3, "below 2^63"),
        ("--start -1", 3, "-1"),
        ("--seeds 1 --start 2", 3, "cannot be used with"),
        ("--for soon", 3, "does not begin with a number"),
        ("--level 7", 3, "no RAID level is called \"7\""),
        ("--level 6 --disks 3", 3, "raid6"),
        ("--disks 3", 3, "without --level, there are arrays of all levels"),
        ("--level 1 --disks 99", 3, "from 1 to 32"),
        ("--faults stop,gremlin", 3, "`gremlin` is no fault: known are stop, fail"),
        ("--crash-points 0", 3, "`0` is not every, none, sample"),
        ("--jobs 0", 3, "0 is not in 1..=1024"),
        ("--shard 4/4", 3, "numbered from 0 to 3"),
        ("--shard 1", 3, "`1` is not a shard"),
        ("--shard auto", 3, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX"),
        ("--max-findings 0", 3, "0 is not in 1.."),
        ("--corpus file", 4, "cannot keep findings in file"),
        ("--corpus /proc/nowhere", 4, "cannot keep findings in /proc/nowhere"),
    ];
    for (words, code, phrase) in table {
        let ran = sim(at.path(), &format!("sim run {words}")).expect_code(code);
        assert!(ran.stderr.contains(phrase), "{phrase}: {ran}");
        assert!(ran.stdout.is_empty(), "errors go to standard error: {ran}");
    }
}
