//! The power goes at any event of an array's life, in the simulator: nothing that was promised is lost.

use libtest_mimic::Trial;
use raidlab::sim::powercut::{Effort, Summary, run};
use rayon::prelude::*;

use crate::support::sample::{Sample, count};
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("powercut::no_power_cut_takes_what_was_promised").sampled_by(no_power_cut_takes_what_was_promised),
        story("powercut::nor_where_requests_fail_too").sampled_by(nor_where_requests_fail_too),
        story("powercut::nor_at_any_single_event").sampled_by(nor_at_any_single_event),
    ]
}

fn lives(mut sample: Sample, many: usize, effort: Effort) {
    let first = sample.seed() >> 1;
    let lives: Vec<Summary> = (first..first + many as u64)
        .into_par_iter()
        .map(|seed| run(seed, effort).unwrap_or_else(|failure| panic!("{failure}")))
        .collect();
    assert!(lives.iter().map(|life| life.cuts).sum::<u64>() > many as u64, "the power was cut");
}

fn no_power_cut_takes_what_was_promised(sample: Sample) {
    lives(sample, count(150, 1500), Effort::SAMPLE);
}

fn nor_where_requests_fail_too(sample: Sample) {
    lives(sample, count(80, 800), Effort { flaws: true, ..Effort::SAMPLE });
}

fn nor_at_any_single_event(sample: Sample) {
    lives(sample, count(8, 80), Effort { ops: 12, ..Effort::FULL });
}
