//! What the field's tables say of failovers, measured in virtual time.

use super::*;
use crate::fabric::emulated::{Health, Point};
use crate::fabric::graph::Preset;
use crate::fabric::transport::{LINK_EVENT_DELAY, Transport};
use crate::multipath::settings::{RetrySafety, Settings};

fn shipped(name: &str, profile: &Profile) -> Scenario {
    Scenario::shipped(name, &profile.graph(), profile).expect("it is shipped")
}

fn run_shipped(name: &str, profile: &Profile, client: Client) -> (Outcome, Scenario) {
    let scenario = shipped(name, profile);
    (run(profile, profile.graph(), &scenario, client), scenario)
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
        let profile = Profile { preset, transport, settings: Settings::default(), ..ProfileName::Classic.profile() };
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
            let client = Client { rate: 200, ..Client::default() };
            let (outcome, scenario) = run_shipped(scenario, &profile, client);
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
    let graph = profile.graph();
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
        let outcome = run(&profile, profile.graph(), &scenario, client);
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

/// What a component does for ten seconds in the middle of a failover.
fn with(profile: &Profile, health: Health) -> Outcome {
    let graph = profile.graph();
    let component = if graph.find("switch0").is_some() { "switch0" } else { "expander0a" };
    let action = |at, health| Action { at: Duration::from_secs(at), component: component.into(), health };
    let actions = vec![action(10, health), action(20, Health::Up)];
    let scenario = Scenario { name: "fault".into(), actions, length: Duration::from_secs(40), class: Class::Silent };
    // Few blocks: what is late finds something newer.
    let client = Client { reads: 30, block: 512, rate: 100, ..Client::default() };
    run(profile, graph, &scenario, client)
}

fn short_timers() -> [Profile; 3] {
    [ProfileName::Aggressive, ProfileName::LinuxIscsi, ProfileName::LinuxNvme].map(ProfileName::profile)
}

/// Losses at three points, silence in three directions, flapping, slowness, zombies, late and double delivery, checkers that are lied
/// to both ways.
#[test]
fn no_fault_of_a_path_leaves_a_wrong_byte_by_default() {
    let s = Duration::from_secs;
    let losing = [Point::Sending, Point::Transit, Point::Answering].map(|at| Health::Losing { frames: 40, at });
    let holes = [(true, true), (true, false), (false, true)].map(|(tx, rx)| Health::BlackHole { tx, rx });
    let others = [
        Health::Down,
        Health::Flapping { down: Duration::from_millis(300), up: Duration::from_millis(900) },
        Health::Flapping { down: s(2), up: s(2) },
        Health::Slow(50),
        Health::Zombie(Duration::from_millis(200)),
        Health::Stalled,
        Health::Doubling(s(2)),
        Health::FailsIo,
        Health::FailsChecks,
    ];
    for profile in short_timers() {
        for health in losing.into_iter().chain(holes).chain(others) {
            let outcome = with(&profile, health);
            assert_eq!(outcome.wrong_blocks, 0, "{}, {health:?}", profile.preset);
            assert!(outcome.errors.is_empty(), "{}, {health:?}: {:?}", profile.preset, outcome.errors);
            assert!(outcome.served > 1000, "{}, {health:?}: {}", profile.preset, outcome.served);
        }
    }
}

#[test]
fn what_a_corrupting_path_does_is_found() {
    for profile in short_timers() {
        for (reads, writes) in [(true, false), (false, true)] {
            let outcome = with(&profile, Health::Corrupting { reads, writes });
            assert!(outcome.wrong_blocks > 0, "{}", profile.preset);
        }
    }
}

/// A target without sessions carries out what is delivered twice.
#[test]
fn double_delivery_is_wrong_where_the_target_promises_nothing() {
    let mut profile = ProfileName::Aggressive.profile();
    profile.fencing = crate::fabric::Fencing::None;
    profile.settings.retry_safety = RetrySafety::None;
    assert!(with(&profile, Health::Doubling(Duration::from_secs(2))).wrong_blocks > 0);
}

#[test]
fn a_write_is_sent_again_safely_by_every_policy_that_is_safe() {
    let hold = RetrySafety::Hold(Duration::from_secs(15));
    for safety in [hold, RetrySafety::Abort, RetrySafety::Fence, RetrySafety::Epoch] {
        assert_eq!(late_frames(safety), 0, "{safety:?}");
        for mut profile in short_timers() {
            profile.settings.retry_safety = safety;
            for health in [Health::Stalled, Health::Down, Health::BlackHole { tx: true, rx: true }] {
                let outcome = with(&profile, health);
                let said = format!("{}, {safety:?}, {health:?}: {:?}", profile.preset, outcome.errors);
                assert!(outcome.wrong_blocks == 0 && outcome.errors.is_empty(), "{said}");
            }
        }
    }
}

/// What is given up with an error is not undone: it may land, but not over what was written and acknowledged since.
#[test]
fn a_write_that_failed_does_not_land_over_a_newer_one() {
    for safety in [RetrySafety::Abort, RetrySafety::Fence, RetrySafety::Epoch] {
        let mut profile = ProfileName::Aggressive.profile();
        profile.settings.retry_safety = safety;
        profile.settings.no_path_retry = crate::multipath::settings::NoPathRetry::Fail;
        let graph = profile.graph();
        let action = |at, component: &str, health| Action { at, component: component.into(), health };
        let ms = Duration::from_millis;
        let actions = vec![
            action(ms(10_000), "switch0", Health::Stalled),
            action(ms(10_000), "switch1", Health::Stalled),
            action(ms(14_000), "switch1", Health::Up),
            action(ms(20_000), "switch0", Health::Up),
        ];
        let scenario = Scenario { name: "given up".into(), actions, length: ms(20_020), class: Class::Silent };
        let client = Client { reads: 10, block: 512, ..Client::default() };
        let outcome = run(&profile, graph, &scenario, client);
        assert!(!outcome.errors.is_empty(), "{safety:?}");
        assert_eq!(outcome.wrong_blocks, 0, "{safety:?}");
    }
}

#[test]
fn a_policy_that_the_paths_do_not_promise_is_refused() {
    use crate::fabric::Fencing;
    let mut profile = ProfileName::Classic.profile();
    profile.fencing = Fencing::Session;
    for (safety, refused) in [(RetrySafety::Epoch, true), (RetrySafety::Fence, false), (RetrySafety::Abort, false)] {
        profile.settings.retry_safety = safety;
        assert_eq!(profile.contradiction().is_some(), refused, "{safety:?}");
    }
    profile.fencing = Fencing::None;
    let why = profile.contradiction().expect("nothing can be aborted there");
    assert!(why.contains("retry_safety abort") && why.contains("hold"), "{why}");
    profile.settings.retry_safety = RetrySafety::Hold(Duration::from_secs(180));
    assert_eq!(profile.contradiction(), None);
    let mut not_asked = Profile { fencing: Fencing::None, ..ProfileName::Classic.profile() };
    assert_eq!(not_asked.settle(), Ok(()));
    assert_eq!(not_asked.settings.retry_safety, RetrySafety::Hold(not_asked.transport.silent_loss_max()));
}

#[test]
fn below_raid_no_safety_at_all_has_to_be_forced() {
    assert!(RetrySafety::None.check_below_raid(false).is_err());
    assert_eq!(RetrySafety::None.check_below_raid(true), Ok(()));
    assert_eq!(RetrySafety::Fence.check_below_raid(false), Ok(()));
}
