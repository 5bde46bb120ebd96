//! Failovers in virtual time, and the stall-budget linter, as their users run them.

use std::fs;
use std::time::Duration;

use libtest_mimic::Trial;
use raidlab::sim::failover::{ProfileName, SCENARIOS};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::cli::raidlab;
use crate::support::process::Ran;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("failover::every_stall_is_within_what_was_predicted_and_no_byte_is_wrong").told_by(every_stall),
        story("failover::what_is_printed_does_the_same_again").told_by(the_same_again),
        story("failover::a_shorter_timer_ends_a_stall_sooner_and_fails_over_more_often").told_by(the_trade),
        story("failover::a_scenario_of_ones_own_shows_a_ghost_write").told_by(a_ghost_write),
        story("failover::words_that_are_wrong_are_answered").told_by(words_that_are_wrong),
        story("failover::explain_computes_what_a_configuration_comes_to").told_by(explain),
        story("failover::explain_says_where_a_configuration_is_wrong").told_by(wrong_configurations),
    ]
}

fn call(at: &TempDir, words: &str) -> Ran {
    raidlab(at.path(), words.split_whitespace()).within(Duration::from_secs(120)).run()
}

fn here() -> TempDir {
    tempfile::tempdir().expect("there is room")
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(ran.text()).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

fn every_stall() {
    let at = here();
    for profile in ProfileName::ALL {
        for scenario in SCENARIOS {
            let ran = call(&at, &format!("failover --profile {profile} --scenario {scenario} --rate 300 --json"));
            let told = json(&ran);
            assert_eq!(told["schema"], "raidlab-failover/v1");
            assert_eq!(told["wrong_blocks"], 0, "{profile} {scenario}");
            if let Some(bound) = told["stall_predicted_max_seconds"].as_f64() {
                let stall = told["stall_seconds"].as_f64().expect("it is a number");
                assert!(stall <= bound, "{profile} {scenario}: {stall} s, predicted {bound} s");
            }
            let errors = told["errors"].as_object().expect("they are by kind").len();
            assert_eq!(ran.code, Some(i32::from(errors > 0)), "{ran}");
        }
    }
}

fn the_same_again() {
    let at = here();
    let first =
        raidlab(at.path(), ["failover", "--scenario", "flap", "--set", "retry_safety=hold 200s", "--seed", "7"]).run();
    let command =
        first.stderr.lines().find_map(|line| line.strip_prefix("again: raidlab ")).expect("it is told").to_owned();
    let shell = format!("'{}' {command}", env!("CARGO_BIN_EXE_raidlab"));
    let again =
        std::process::Command::new("sh").arg("-c").arg(shell).env("LC_ALL", "C.UTF-8").output().expect("sh runs");
    assert_eq!(String::from_utf8_lossy(&again.stdout), first.text());
    let drawn = call(&at, "failover --scenario controller-loss --svg picture.svg");
    drawn.expect_ok();
    let picture = fs::read_to_string(at.path().join("picture.svg")).expect("it was drawn");
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    assert!(picture.contains("ctrl0 fails") && !picture.contains("NaN"));
}

fn the_trade() {
    let at = here();
    let ran = call(&at, "failover --sweep hba_timeout=1s..30s --hiccup 4s --rate 200 --svg sweep.svg --json");
    let points = json(&ran)["points"].as_array().expect("there are points").clone();
    let of = |key: &str| -> Vec<f64> { points.iter().map(|point| point[key].as_f64().expect("a number")).collect() };
    assert!(points.len() > 4);
    assert!(of("stall_link_seconds").is_sorted() && of("stall_silent_seconds").is_sorted(), "{points:?}");
    let needless = of("needless_failovers");
    assert!(needless.iter().rev().is_sorted() && needless[0] > 50.0, "{needless:?}");
    // Exponentially distributed around 4 s: 78 of 100 are longer than 1 s, and hardly one is longer than 30 s.
    assert!((needless[0] - 78.0).abs() < 15.0 && needless.last().is_some_and(|last| *last < 3.0), "{needless:?}");
    assert!(fs::read_to_string(at.path().join("sweep.svg")).expect("it was drawn").ends_with("</svg>\n"));
}

/// A switch that keeps frames for so long that the initiator gives them up, and passes them on then.
fn a_ghost_write() {
    let at = here();
    let story = "length = \"20.02s\"\nclass = \"silent\"\n\
                 [[action]]\nat = \"10s\"\ncomponent = \"switch0\"\nhealth = \"stalled\"\n\
                 [[action]]\nat = \"20s\"\ncomponent = \"switch0\"\nhealth = \"up\"\n";
    fs::write(at.path().join("late.toml"), story).expect("there is room");
    let with = |safety: &str| {
        let words =
            ["failover", "--profile", "aggressive", "--scenario", "late.toml", "--bs", "256K", "--rwmixread", "10"];
        raidlab(
            at.path(),
            words.into_iter().map(str::to_owned).chain([
                "--set".to_owned(),
                "path_selector=round-robin".to_owned(),
                "--set".to_owned(),
                format!("retry_safety={safety}"),
            ]),
        )
        .run()
    };
    let ghost = with("none");
    assert!(ghost.code == Some(2) && !ghost.text().contains("wrong blocks 0"), "{ghost}");
    assert!(with("fence").expect_ok().text().contains("wrong blocks 0"));
    assert!(with("hold 11s").expect_ok().text().contains("wrong blocks 0"));
}

fn words_that_are_wrong() {
    let at = here();
    fs::write(
        at.path().join("unknown.toml"),
        "length = \"9s\"\nclass = \"link\"\n[[action]]\nat = \"1s\"\ncomponent = \"cable7\"\nhealth = \"down\"\n",
    )
    .expect("there is room");
    fs::write(
        at.path().join("bad.toml"),
        "length = \"9s\"\nclass = \"link\"\n[[action]]\nat = \"1s\"\ncomponent = \"cable0\"\nhealth = \"dead\"\n",
    )
    .expect("there is room");
    let table = [
        ("--profile clasic", "did you mean classic?"),
        ("--scenario cable-pul", "did you mean cable-pull?"),
        ("--scenario zzz", "known are cable-pull"),
        ("cable-pull", "`raidlab failover --scenario cable-pull`"),
        ("--scenario unknown.toml", "there is no component \"cable7\": did you mean cable"),
        ("--scenario bad.toml", "\"dead\" is no health of a component"),
        ("--set hba_timeout", "is not KEY=VALUE"),
        ("--set fast_io_fail_timeout=5", "fast_io_fail_tmo"),
        ("--set fast_io_fail_tmo=90", "must be less than dev_loss_tmo"),
        ("--set hba_timeout=0", "must be more than 0"),
        ("--set max_retries=9", "a number from 0 to 5"),
        ("--set path_selector=robin", "path_selector"),
        ("--set failback=soon", "manual, immediate, followover"),
        ("--sweep hba_timeout=9..2", "is no range of times"),
        ("--sweep path_checker=1s..2s", "path_checker"),
        ("--bs 1000", "not a multiple of 512"),
        ("--depth 1024 --bs 64K", "16M at the most"),
    ];
    for (words, said) in table {
        let ran = call(&at, &format!("failover {words}"));
        assert!(ran.code == Some(3) && ran.stderr.contains(said) && ran.stdout.is_empty(), "{words}: {ran}");
    }
    let ran = call(&at, "failover --svg nowhere/picture.svg");
    assert!(ran.code == Some(4) && ran.stderr.contains("cannot write nowhere/picture.svg"), "{ran}");
}

fn explain() {
    let at = here();
    let conf = "defaults {\n polling_interval 5\n no_path_retry 2\n fast_io_fail_tmo 5\n}\n\
                devices { device { vendor \"X\" product \"Y\" max_retries 0 } }\n";
    fs::write(at.path().join("multipath.conf"), conf).expect("there is room");
    let told = json(&call(&at, "path explain --conf multipath.conf --json"));
    let stalls = |case: usize| -> Vec<f64> {
        told["cases"][case]["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| row["stall_seconds"].as_f64().expect("bounded"))
            .collect()
    };
    // Of the field's table: fast_io_fail 5; (5 + 1) x 30; 20 + 30 + 1; then 5 + 2 x 5 + 1.
    assert_eq!(stalls(0), [5.0, 180.0, 51.0, 16.0]);
    // iSCSI: 5 + 5 + 5.
    assert_eq!(stalls(1)[0], 15.0);
    assert_eq!(told["cases"][2]["for"], "device X Y");
    assert_eq!(stalls(2), [5.0, 30.0, 51.0, 16.0]);
    let late = call(&at, "path explain --conf multipath.conf --deadline 20s");
    assert!(late.code == Some(1) && late.text().contains("your deadline of 20s"), "{late}");
    call(&at, "path explain --conf multipath.conf --deadline 10m").expect_ok();
}

fn wrong_configurations() {
    let at = here();
    let table = [
        ("defaults {", "line 1, column 1: the section defaults"),
        (
            "defaults {\n  poling_interval 5\n}",
            "line 2, column 3: there is no keyword \"poling_interval\": did you mean polling_interval?",
        ),
        ("defaults {\n  polling_interval often\n}", "line 2, column 3: \"often\""),
        ("defaults {\n  prio \"alua\n}", "line 2, column 8: this quote"),
        ("devises { }", "did you mean devices?"),
        ("defaults { fast_io_fail_tmo 90\n dev_loss_tmo 60 }", "must be less than dev_loss_tmo"),
        ("polling_interval 5", "stands in no section"),
    ];
    for (conf, said) in table {
        fs::write(at.path().join("bad.conf"), conf).expect("there is room");
        let ran = call(&at, "path explain --conf bad.conf");
        assert!(ran.code == Some(3) && ran.stderr.contains(said) && ran.stdout.is_empty(), "{conf}: {ran}");
    }
    let ran = call(&at, "path explain --conf none.conf");
    assert!(ran.code == Some(4) && ran.stderr.contains("cannot read none.conf"), "{ran}");
}
