//! What the field's tables say of failovers, measured in virtual time.

use super::*;
use crate::fabric::emulated::Health;
use crate::fabric::graph::Preset;
use crate::fabric::transport::{LINK_EVENT_DELAY, Transport};
use crate::multipath::settings::{RetrySafety, Settings};

fn shipped(name: &str, profile: &Profile) -> Scenario {
    Scenario::shipped(name, &profile.preset.graph(), profile).expect("it is shipped")
}

fn run_shipped(name: &str, profile: &Profile, client: Client) -> (Outcome, Scenario) {
    let scenario = shipped(name, profile);
    (run(profile, profile.preset.graph(), &scenario, client), scenario)
}

/// The bound by formula, and what the emulation takes: two pieces of code that know nothing of each other. Nothing of what was
/// measured is longer, and nothing is shorter by more than a polling tick, or what a watch or a reconnection had already waited.
fn stall_against_formula(profile: &Profile, scenario: &str) -> Result<(), String> {
    let (outcome, scenario) = run_shipped(scenario, profile, Client { rate: 100, ..Client::default() });
    let Some(bound) = scenario.stall_max(profile) else { return Ok(()) };
    let reconnect = if profile.transport.link_events { Duration::ZERO } else { profile.transport.reconnect_delay };
    let slack = profile.settings.polling_interval + Duration::from_secs(1) + reconnect;
    let is_so = outcome.longest <= bound && outcome.longest + slack >= bound && outcome.wrong_blocks == 0;
    let said = || format!("{}: {:?}, by the formula {bound:?}", scenario.name, outcome.longest);
    if is_so { Ok(()) } else { Err(said()) }
}

#[test]
fn the_longest_stall_is_what_the_formula_says() {
    let mut wrong = Vec::new();
    for name in ProfileName::ALL {
        for scenario in ["cable-pull", "black-hole"] {
            let stall = stall_against_formula(&name.profile(), scenario);
            wrong.extend(stall.err().map(|said| format!("{name}, {said}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The rows of the field's table, and their levers.
#[test]
fn the_formula_holds_for_every_way_to_notice_a_loss() {
    let s = Duration::from_secs;
    let (fc, iscsi) = (Transport::FC, Transport::ISCSI);
    let plain = Transport { fast_io_fail_tmo: Some(s(120)), ..iscsi };
    let kernel = |gone| Transport { fast_io_fail_tmo: None, dev_loss_tmo: Some(s(gone)), ..fc };
    let table = [
        (Preset::San, Transport { eh_deadline: Some(s(20)), ..fc }, "black-hole", 30 + 20 + 10),
        (Preset::San, Transport { max_retries: 0, cmd_timeout: s(10), ..fc }, "black-hole", 10),
        (Preset::San, Transport { max_retries: 0, ..fc }, "black-hole", 30),
        (Preset::San, kernel(30), "cable-pull", 30),
        (Preset::San, kernel(60), "cable-pull", 60),
        (Preset::Iscsi, plain, "black-hole", 5 + 5 + 120),
        (Preset::Iscsi, Transport { watch: None, ..plain }, "black-hole", 30 + 15 + 120),
        (Preset::Iscsi, Transport { watch: None, ..iscsi }, "black-hole", 30 + 15 + 5),
        (Preset::Iscsi, Transport { watch: None, ..iscsi }, "cable-pull", 30 + 15 + 5),
        (Preset::Iscsi, Transport { user_timeout: Some(s(3)), ..iscsi }, "black-hole", 3 + 5),
        (Preset::Iscsi, Transport { user_timeout: Some(s(3)), watch: None, ..iscsi }, "black-hole", 3 + 5),
        (Preset::NvmeTcp, Transport { watch: None, ..Transport::NVME_TCP }, "black-hole", 30),
        (Preset::SasDual, Transport { eh_deadline: Some(s(20)), ..fc }, "black-hole", 30 + 20 + 10),
    ];
    let mut wrong = Vec::new();
    for (preset, transport, scenario, seconds) in table {
        let profile = Profile { preset, transport, settings: Settings::default() };
        let bound = shipped(scenario, &profile).stall_max(&profile).unwrap();
        if bound.abs_diff(s(seconds)) > Duration::from_millis(1) {
            wrong.push(format!("{transport:?}, {scenario}: {bound:?}, not {seconds} s"));
        }
        wrong.extend(stall_against_formula(&profile, scenario).err().map(|said| format!("{transport:?}, {said}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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
