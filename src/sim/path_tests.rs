//! Multipath over RAID, RAID over multipath, and both, lived.

use super::fabrics::Fabrics;
use super::{Effort, Scenario, Verdict, Wish, draw, live};

/// A life from the text of a scenario without its first lines.
fn life(paths: &str, regime: &str, steps: &[(&str, &str)]) -> (super::Report, Verdict) {
    let ops: Vec<String> = (0..40).map(|at| format!("\"write {}+4\"", at * 4 % 96)).collect();
    let mut text = format!(
        "schema = \"raidlab-scenario/v1\"\nseed = 1\nregime = \"{regime}\"\n[array]\nlevel = \"raid5\"\ndisks = 3\n\
         spares = 1\nchunk = 8\nmember = 64\n[paths]\n{paths}\n[clients]\ndepth = 2\nops = [{}]\n",
        ops.join(", ")
    );
    for (at, (when, act)) in steps.iter().enumerate() {
        text += &format!("[[step]]\nid = {}\nwhen = \"{when}\"\ndo = \"{act}\"\n", at + 1);
    }
    live(&Scenario::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")), Effort::PLAIN)
}

#[test]
fn drawn_lives_with_paths_pass() {
    for paths in [Fabrics::VOLUME, Fabrics::MEMBERS, Fabrics::BOTH] {
        for seed in 0..12 {
            let wish = Wish { paths, ..Wish::default() };
            let (_, verdict) = live(&draw(seed, &wish), Effort::SAMPLE);
            let passed = matches!(verdict, Verdict::Pass | Verdict::NoPromise(_));
            if let Verdict::Finding(f) = &verdict {
                eprintln!("{:?}", f.failed);
            }
            assert!(passed, "sim replay {seed} --paths {}: {verdict:?}", paths.name());
        }
    }
}

/// Requests to a member without paths wait; when they have waited for long enough it fails, a spare steps in, and what it
/// missed it gets when it is back.
#[test]
fn a_member_fails_when_its_paths_are_gone_for_longer_than_requests_wait() {
    let members = "members = \"sas-dual\"";
    let outage = |events: u64| {
        let up = format!("{events} events after 2");
        let steps = [
            ("op 10", "component members port-0 down"),
            ("op 10", "component members port-1 black-hole"),
            (up.as_str(), "component members port-0 up"),
            (up.as_str(), "component members port-1 up"),
            ("op 38", "re-add faulty"),
        ];
        life(members, "budgeted", &steps)
    };
    let (short, verdict) = outage(40);
    assert_eq!(verdict, Verdict::Pass);
    assert_eq!(short.recoveries, 0, "requests waited");
    let (long, verdict) = outage(3000);
    assert_eq!(verdict, Verdict::Pass);
    assert!(long.recoveries > 0, "it was failed, and recovered");
}

#[test]
fn what_would_cut_too_many_members_off_is_held_back() {
    let steps = [("op 10", "component members hba-0 down"), ("op 12", "component members hba-1 down")];
    let (report, verdict) = life("members = \"sas-dual\"", "budgeted", &steps);
    assert_eq!((verdict, report.held_back, report.faults), (Verdict::Pass, 1, 1));
}

#[test]
fn clients_who_are_cut_off_get_earned_errors_and_go_on_when_paths_are_back() {
    let steps = [
        ("op 10", "component volume hba-0 down"),
        ("op 10", "component volume hba-1 stalled"),
        ("op 20", "component volume hba-0 up"),
        ("op 30", "component volume hba-1 up"),
    ];
    let (report, verdict) = life("volume = \"san\"", "budgeted", &steps);
    assert_eq!((verdict, report.ops), (Verdict::Pass, 40));
    assert!(report.coverage.runs_with(crate::block::Mark::QueueGivenUp) > 0);
}

#[test]
fn a_step_must_name_a_component_that_is_there() {
    let refused = |paths: &str, act: &str| {
        let text = format!(
            "schema = \"raidlab-scenario/v1\"\nseed = 1\nregime = \"budgeted\"\n[array]\nlevel = \"raid1\"\ndisks = 2\n\
             chunk = 8\nmember = 128\n{paths}[clients]\ndepth = 1\nops = []\n[[step]]\nid = 1\nwhen = \"op 0\"\ndo = \"{act}\"\n"
        );
        Scenario::parse(&text).expect_err("it does not fit").to_string()
    };
    let told = refused("", "component volume hba-0 down");
    assert!(told.contains("there are no paths there"), "{told}");
    let san = "[paths]\nvolume = \"san\"\n";
    assert!(refused(san, "component volume hba-2 down").contains("no such component"));
    assert!(refused(san, "component volume fan-0 down").contains("not a component"));
    assert!(refused(san, "component volume hba-0 broken").contains("stalled"));
    assert!(refused(san, "component volume hba-0 corrupting").contains("no rule"));
    assert!(refused("[paths]\nvolume = \"token-ring\"\n", "check").contains("known are san"));
}
