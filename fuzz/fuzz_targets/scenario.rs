//! Any bytes are a life in which every answer is allowed.
//!
//! Input: see `raidlab::sim::Scenario::from_bytes`. A finding panics with the scenario, for `raidlab sim replay` and
//! `raidlab sim shrink`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raidlab::sim::{Cuts, Effort, Scenario, Verdict, live};

/// Short enough for hundreds of lives a second.
const EFFORT: Effort = Effort { cuts: Cuts::Every(61), events_max: 20_000, ..Effort::PLAIN };

fuzz_target!(init: {
    // A panic in a life is a finding like others, and the life catches it.
    std::panic::set_hook(Box::new(|_| {}));
}, |bytes: &[u8]| {
    let scenario = Scenario::from_bytes(bytes);
    if let Verdict::Finding(finding) = live(&scenario, EFFORT).1 {
        eprintln!("{finding}\n{}", finding.scenario.to_toml());
        std::process::abort();
    }
});
