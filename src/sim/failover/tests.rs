//! What the field's tables say of failovers, measured in virtual time.

use super::*;
use crate::fabric::emulated::Health;
use crate::fabric::transport::{LINK_EVENT_DELAY, Transport};
use crate::multipath::settings::{RetrySafety, Settings};

fn shipped(name: &str, profile: &Profile) -> Scenario {
    Scenario::shipped(name, &profile.preset.graph(), profile).expect("it is shipped")
}

fn run_shipped(name: &str, profile: &Profile, client: Client) -> (Outcome, Scenario) {
    let scenario = shipped(name, profile);
    (run(profile, profile.preset.graph(), &scenario, client), scenario)
}

/// The bound by formula, and what the emulation takes: two pieces of code that know nothing of each other.
#[test]
fn the_longest_stall_is_what_the_formula_says() {
    for name in ProfileName::ALL {
        let profile = name.profile();
        for scenario in ["cable-pull", "black-hole"] {
            let (outcome, scenario) = run_shipped(scenario, &profile, Client::default());
            let bound = scenario.stall_max(&profile).unwrap();
            let said = format!("{name}, {}: {:?}, at the most {bound:?}", scenario.name, outcome.longest);
            assert!(outcome.longest <= bound, "{said}");
            // A tick less, and what the watch had already waited when the path was lost.
            let slack = profile.settings.polling_interval + Duration::from_secs(1);
            assert!(outcome.longest + slack >= bound, "{said}");
            assert_eq!((outcome.errors.len(), outcome.wrong_blocks), (0, 0), "{said}");
        }
    }
}

#[test]
fn every_scenario_leaves_no_wrong_byte_and_no_error() {
    for name in ProfileName::ALL {
        let profile = name.profile();
        for scenario in SCENARIOS {
            let (outcome, scenario) = run_shipped(scenario, &profile, Client::default());
            assert_eq!(outcome.wrong_blocks, 0, "{name}, {}", scenario.name);
            // Where all paths are gone for longer than requests may wait, errors are earned.
            let waits = profile.settings.queueing_max().is_none_or(|max| max > Duration::from_secs(45));
            if scenario.class != Class::AllPaths || waits {
                assert!(outcome.errors.is_empty(), "{name}, {}: {:?}", scenario.name, outcome.errors);
            }
            if let Some(bound) = scenario.stall_max(&profile) {
                assert!(outcome.longest <= bound, "{name}, {}: {:?} > {bound:?}", scenario.name, outcome.longest);
            }
        }
    }
}

#[test]
fn without_a_path_requests_wait_for_so_long_as_they_may() {
    let mut profile = ProfileName::Tuned.profile();
    profile.settings.no_path_retry = crate::multipath::settings::NoPathRetry::Checks(2);
    let (outcome, _) = run_shipped("all-paths-down", &profile, Client::default());
    assert!(!outcome.errors.is_empty());
    let bound = profile.transport.link_loss_max() + Duration::from_secs(11 + 1);
    assert!(outcome.longest <= bound && outcome.longest + Duration::from_secs(2) > bound, "{:?}", outcome.longest);
}

/// A switch keeps frames while the initiator gives its commands up and sends them down another path; then they arrive.
fn late_frames(safety: RetrySafety) -> u64 {
    let mut profile = ProfileName::Aggressive.profile();
    profile.settings = Settings { retry_safety: safety, ..profile.settings };
    let graph = profile.preset.graph();
    let action = |at, health| Action { at: Duration::from_secs(at), component: "switch0".into(), health };
    let actions = vec![action(10, Health::Stalled), action(20, Health::Up)];
    let scenario =
        Scenario { name: "late".into(), actions, length: Duration::from_millis(20_020), class: Class::Silent };
    // Many writes to few blocks: what is late finds something newer, and then it is over.
    let client = Client { reads: 10, block: 512, ..Client::default() };
    run(&profile, graph, &scenario, client).wrong_blocks
}

#[test]
fn a_write_that_lands_late_is_seen_and_a_fence_keeps_it_out() {
    assert!(late_frames(RetrySafety::None) > 0, "nothing landed late");
    assert_eq!(late_frames(RetrySafety::Fence), 0);
    assert!(late_frames(RetrySafety::Hold(Duration::from_secs(1))) > 0, "a hold that is too short is none");
    assert_eq!(late_frames(RetrySafety::Hold(Duration::from_secs(15))), 0);
}

#[test]
fn the_same_seed_is_the_same_failover() {
    let profile = ProfileName::Tuned.profile();
    let outcome = |seed| {
        let (outcome, _) = run_shipped("controller-loss", &profile, Client { seed, ..Client::default() });
        format!("{:?} {:?} {}", outcome.timeline, outcome.latencies, outcome.served)
    };
    assert_eq!(outcome(7), outcome(7));
    assert_ne!(outcome(7), outcome(8));
}

/// At full speed, for a while: who gets how many requests through. One of four paths at a tenth of its speed, then one of eight
/// silent: in turn, all requests end up on it.
#[test]
fn selectors_differ_as_their_definitions_say() {
    use crate::multipath::settings::{Grouping, SelectorKind};
    let speed = |kind: SelectorKind, health: Health, component: &str| {
        let mut profile = ProfileName::LinuxIscsi.profile();
        profile.settings = Settings { selector: kind, grouping: Grouping::Multibus, ..profile.settings };
        let actions = vec![Action { at: Duration::ZERO, component: component.into(), health }];
        let length = Duration::from_millis(120);
        let scenario = Scenario { name: "speed".into(), actions, length, class: Class::Slow };
        let client = Client { rate: 0, ..Client::default() };
        let outcome = run(&profile, profile.preset.graph(), &scenario, client);
        outcome.served
    };
    let slow = |kind| speed(kind, Health::Slow(10), "ctrl0.p0");
    let [turns, queue, bytes, history, _] = SelectorKind::ALL.map(slow);
    assert!(queue > turns * 2 && bytes > turns * 2, "{turns} {queue} {bytes} {history}");
    assert!(history > turns * 2, "{turns} {queue} {bytes} {history}");
}

#[test]
fn timers_that_contradict_each_other_are_named() {
    let mut profile = ProfileName::Classic.profile();
    assert_eq!(profile.contradiction(), None);
    profile.transport = Transport { fast_io_fail_tmo: Some(Duration::from_secs(90)), ..profile.transport };
    assert!(profile.contradiction().unwrap().contains("dev_loss_tmo"));
    let mut profile = ProfileName::Classic.profile();
    profile.settings.retry_safety = RetrySafety::Hold(Duration::from_secs(3));
    assert!(profile.contradiction().unwrap().contains("hold"));
    assert!(LINK_EVENT_DELAY < Duration::from_millis(1));
}
