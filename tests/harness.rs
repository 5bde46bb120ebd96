//! What stories are told with holds what it says.

use std::panic::catch_unwind;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::cli::raidlab;
use crate::support::process;
use crate::support::sample::Sample;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("harness::a_program_that_does_not_end_is_killed_with_all_it_started")
            .told_by(a_program_that_does_not_end_is_killed_with_all_it_started),
        story("harness::a_story_draws_the_same_cases_alone_and_among_others")
            .sampled_by(a_story_draws_the_same_cases_alone_and_among_others),
        story("harness::the_program_runs").told_by(the_program_runs),
    ]
}

fn a_program_that_does_not_end_is_killed_with_all_it_started() {
    let began = Instant::now();
    let outcome = catch_unwind(|| {
        let mut command = Command::new("bash");
        process::run(command.args(["-c", "sleep 60 & echo $!; wait"]), Duration::from_millis(300))
    });
    assert!(began.elapsed() < Duration::from_secs(30));
    let panic = outcome.err().expect("it does not end");
    let message = panic.downcast_ref::<String>().expect("it has values in it");
    let child = message.lines().nth(1).and_then(|line| line.parse::<u32>().ok()).expect("its output is told");
    let state = || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_else(|_| ") Z".into());
    // Dead, and perhaps not yet buried.
    while !state().contains(") Z") && began.elapsed() < Duration::from_secs(30) {}
    assert!(state().contains(") Z"), "{}", state());
}

fn a_story_draws_the_same_cases_alone_and_among_others(mut sample: Sample) {
    let mut again = Sample::of("harness::a_story_draws_the_same_cases_alone_and_among_others");
    let mut other = Sample::of("another story");
    let drawn = sample.bytes(32);
    assert_eq!(drawn, again.bytes(32));
    assert_ne!(drawn, other.bytes(32));
    assert!(sample.below(7) < 7);
    assert!([1, 2, 3].contains(sample.one(&[1, 2, 3])));
}

fn the_program_runs() {
    let ran = raidlab(Path::new("."), ["--version"]).run();
    assert_eq!(ran.signal, None, "{ran}");
    assert!(ran.took < Duration::from_secs(10), "{ran}");
}
