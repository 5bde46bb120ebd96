//! Labs with paths: the array sells its volume over several ports, or every disk has two.

use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::lab::{Lab, expect_same, put};
use crate::support::process::Running;
use crate::support::sample::Sample;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("paths::a_list_has_the_form_of_multipath").told_by(a_list_has_the_form),
        story("paths::bytes_are_the_same_with_paths_and_without").sampled_by(bytes_are_the_same),
        story("paths::fio_finds_what_it_wrote_while_paths_fail_and_groups_change")
            .needs(&["fio"])
            .told_by(fio_finds_what_it_wrote),
        story("paths::requests_wait_when_no_path_is_left_and_fail_when_they_may_not").told_by(no_path_is_left),
        story("paths::what_disks_and_array_refuse_no_path_is_to_blame_for").told_by(no_path_is_to_blame),
        story("paths::a_component_that_fails_takes_every_path_through_it").told_by(a_component_fails),
        story("paths::a_lab_may_have_a_fabric_of_its_own").told_by(a_fabric_of_its_own),
        story("paths::a_lab_has_timers_of_its_own").told_by(timers_of_its_own),
        story("paths::words_that_are_wrong_are_answered").told_by(words_that_are_wrong),
    ]
}

/// `raidlab serve lab`, once it is ready.
fn serve(lab: &Lab) -> Running {
    let running = lab.call("serve lab").within(Duration::from_secs(120)).start();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !running.stdout().contains(&b'\n') {
        assert!(Instant::now() < deadline, "{}", running.kill());
        sleep(Duration::from_millis(5));
    }
    running
}

fn stop(running: Running) {
    running.signal(Signal::TERM);
    running.wait(Duration::from_secs(30)).expect_ok();
}

fn list(lab: &Lab) -> String {
    lab.ok("path list lab").text().to_owned()
}

fn a_list_has_the_form() {
    let lab = Lab::create("--level 5 --disks 3 --size 16M --paths san");
    let text = list(&lab);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("volume (36") && lines[0].ends_with(") dm-0 RAIDLAB,VOLUME"), "{text}");
    assert!(lines[1].starts_with("size=") && lines[1].contains("hwhandler='1 alua' wp=rw"), "{text}");
    assert!(lines[2].starts_with("|-+- policy='service-time 0' prio=50 status="), "{text}");
    assert_eq!(lines[3], "| |- 0:0:0:0 sda 8:0 active ready running");
    assert!(lines[7].starts_with("`-+- policy='service-time 0' prio=10 status="), "{text}");
    assert_eq!(lines.len(), 12, "{text}");
    assert_eq!(lab.status()["maps"][0]["paths"], 8);
    let running = serve(&lab);
    assert_eq!(lab.status()["maps"][0]["active"], 8);
    lab.ok("path fail lab sdb");
    assert_eq!(lab.status()["maps"][0]["active"], 7);
    assert!(list(&lab).contains("sdb 8:16 failed"), "{}", list(&lab));
    lab.ok("path reinstate lab 0:0:1:0");
    assert_eq!(lab.status()["maps"][0]["active"], 8);
    stop(running);
}

fn bytes_are_the_same(mut sample: Sample) {
    let places = ["--paths san", "--paths sas-dual --paths-at members", "--paths nvme-tcp --paths-at both"];
    for place in sample.some(2, places.to_vec()) {
        let lab = Lab::create(&format!("--level 5 --disks 4 --chunk 4K --size 4M {place}"));
        let mut model = vec![0; lab.size() as usize];
        for _ in 0..3 {
            let at = sample.below(lab.size() / 2);
            let bytes = sample.bytes(100_000);
            lab.write(at, &bytes).expect_ok();
            put(&mut model, at, &bytes);
        }
        expect_same(&lab.read(), &model);
        // A disk is lost and a new one filled over paths, which it then has, too.
        lab.ok("fail lab disk-1");
        lab.ok("add lab");
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{place}");
        expect_same(&lab.read(), &model);
        // The images know nothing of paths.
        let without: String = std::fs::read_to_string(lab.file("lab.toml"))
            .expect("a lab has one")
            .split("\n\n")
            .filter(|part| !part.starts_with("[paths]"))
            .collect::<Vec<_>>()
            .join("\n\n");
        std::fs::write(lab.file("lab.toml"), without).expect("it can be written");
        expect_same(&lab.read(), &model);
        lab.refuses("path list lab", 3, "--paths san");
    }
}

fn fio_finds_what_it_wrote() {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 32M --paths san --paths-at both");
    let script = "fio --name=v --ioengine=nbd --uri=$uri --rw=randwrite --bs=4k --iodepth=16 --size=16M --loops=2 \
                  --verify=crc32c --verify_fatal=1 --do_verify=1 --output=fio.txt";
    let words = ["serve", "lab", "--run", script];
    let running = lab.call_words(&words).within(Duration::from_secs(120)).start();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !lab.file("control.sock").exists() {
        assert!(Instant::now() < deadline, "{}", running.kill());
        sleep(Duration::from_millis(5));
    }
    // Those that come when fio has ended find the lab at rest.
    for word in [
        "fail lab volume/sda",
        "fail lab disk-1/sdj",
        "switch lab 2 --map volume",
        "fail lab volume/sdb",
        "reinstate lab volume/sda",
    ] {
        lab.run(&format!("path {word}"));
        sleep(Duration::from_millis(100));
    }
    running.wait(Duration::from_secs(120)).expect_ok();
    assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0));
    let events = std::fs::read_to_string(lab.file("events.jsonl")).expect("a lab that ran has one");
    let happened: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("lines of JSON")).collect();
    let is_of = |event: &Value| event["event"] == "PathFailed" && event["map"] == "volume" && event["path"] == "sda";
    assert!(happened.iter().any(is_of), "{events}");
}

fn no_path_is_left() {
    let lab = Lab::create("--level 1 --disks 2 --size 8M --paths sas-dual");
    lab.ok("set lab polling_interval=1 no_path_retry=60");
    let running = serve(&lab);
    for path in ["sda", "sdb"] {
        lab.ok(&format!("path fail lab {path}"));
    }
    // Its checker finds a path well within a polling interval.
    lab.call("read lab --length 512").within(Duration::from_secs(30)).run().expect_ok();
    let begun = Instant::now();
    while lab.status()["maps"][0]["active"] != 2 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(50));
    }
    lab.ok("path queueing lab off");
    for path in ["sda", "sdb"] {
        lab.ok(&format!("path fail lab {path}"));
    }
    let ran = lab.run("read lab --length 512");
    let was_late = lab.status()["maps"][0]["active"] != 0;
    assert!(ran.stderr.contains("cannot read") || was_late, "{ran}");
    lab.ok("path queueing lab on");
    stop(running);
}

fn no_path_is_to_blame() {
    let lab = Lab::create("--level 5 --disks 3 --size 8M --paths san --paths-at both");
    let running = serve(&lab);
    lab.ok("fault lab 0 add fail-stop");
    lab.ok("fault lab 1 add fail-stop");
    let ran = lab.call("write lab").stdin(&[7; 4096]).within(Duration::from_secs(60)).run();
    assert!(ran.stderr.contains("cannot write"), "{ran}");
    assert_eq!((lab.status()["maps"][0]["active"].as_u64(), lab.state().as_str()), (Some(8), "failed"));
    running.signal(Signal::TERM);
    running.wait(Duration::from_secs(30)).expect_code(2);
    let events = std::fs::read_to_string(lab.file("events.jsonl")).expect("a lab that ran has one");
    assert!(!events.contains("PathFailed"), "{events}");
}

/// Waits until so many paths of the first map are active.
fn wait_for_active(lab: &Lab, paths: u64) {
    let begun = Instant::now();
    while lab.status()["maps"][0]["active"] != paths {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", list(lab));
        sleep(Duration::from_millis(50));
    }
}

fn a_component_fails() {
    let lab = Lab::create("--level 5 --disks 3 --size 8M --paths san");
    lab.ok("set lab fast_io_fail_tmo=1 polling_interval=1 max_polling_interval=1");
    let running = serve(&lab);
    lab.ok("fault lab switch0 add down");
    wait_for_active(&lab, 4);
    assert_eq!(lab.ok("fault lab list").text(), "volume/switch0  down\n");
    lab.write(0, &[7; 100_000]);
    lab.ok("fault lab switch0 add up");
    wait_for_active(&lab, 8);
    lab.ok("fault lab ctrl1 add black-hole=rx");
    stop(running);
    // It is so whenever the lab is opened.
    assert_eq!(lab.ok("fault lab list").text(), "volume/ctrl1  black-hole=rx\n");
    let running = serve(&lab);
    wait_for_active(&lab, 4);
    expect_same(&lab.read()[..100_000], &[7; 100_000]);
    lab.ok("fault lab clear");
    wait_for_active(&lab, 8);
    stop(running);
    lab.refuses("fault lab switch7 add down", 3, "switch0, switch1");
    lab.refuses("fault lab switch0 add dawn", 3, "did you mean down?");
    lab.refuses("fault lab switch0 add down --times 3", 3, "faults of disks");
    let both = Lab::create("--level 1 --disks 2 --size 8M --paths sas-dual --paths-at both");
    both.refuses("fault lab hba0 add down", 3, "volume/hba0 or members/hba0");
    both.ok("fault lab members/porta.1 add down");
    let running = serve(&both);
    both.write(0, &[8; 4096]);
    stop(running);
}

fn a_fabric_of_its_own() {
    let at = Lab::nowhere();
    let ways = "
        [topology]
        others = 'standby'
        component = [
            { name = 'left', kind = 'hba' }, { name = 'right', kind = 'hba' }, { name = 'fan', kind = 'switch' },
            { name = 'first', kind = 'controller' }, { name = 'second', kind = 'controller' },
        ]
        path = [
            { route = ['left', 'fan', 'first'], latency_us = 40 },
            { route = ['right', 'fan', 'first'] },
            { route = ['right', 'fan', 'second'], tpg = 7 },
        ]";
    std::fs::write(at.around().join("ways.toml"), ways).expect("there is room");
    std::fs::write(at.around().join("broken.toml"), ways.replace("'fan', 'second'", "'fna', 'second'"))
        .expect("there is room");
    at.refuses("create lab --level 1 --disks 2 --paths broken.toml", 3, "did you mean fan?");
    at.refuses("create lab --level 1 --disks 2 --paths nowhere.toml", 3, "nor is there such a file");
    assert!(!at.around().join("lab").exists());
    at.ok("create lab --level 1 --disks 2 --size 8M --paths ways.toml");
    let lines: Vec<String> = list(&at).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 7, "{lines:?}");
    let measured = at.ok("failover lab --scenario controller-loss --json").json();
    assert_eq!((measured["paths"].as_array().map(Vec::len), measured["wrong_blocks"].as_u64()), (Some(3), Some(0)));
    at.write(0, &[5; 4096]);
    at.ok("fault lab fan add slow=2");
    expect_same(&at.read()[..4096], &[5; 4096]);
}

fn timers_of_its_own() {
    let lab = Lab::create("--level 1 --disks 2 --size 8M --paths iscsi");
    let explained = lab.run("path explain lab --json").json();
    assert_eq!(explained["cases"][0]["transport"], "iscsi");
    let stall = |lab: &Lab| lab.ok("failover lab --scenario black-hole --json").json()["stall_seconds"].as_f64();
    let before = stall(&lab).expect("it is a number");
    lab.ok("set lab fast_io_fail_tmo=1 noop_out_interval=2 noop_out_timeout=2");
    let after = stall(&lab).expect("it is a number");
    assert!(before > 10.0 && after < 6.0, "{before} {after}");
    lab.refuses("set lab no_path_retri=5", 3, "did you mean no_path_retry?");
    lab.refuses("failover lab --profile classic", 3, "cannot be used with");
}

fn words_that_are_wrong() {
    let lab = Lab::create("--level 1 --disks 2 --size 8M --paths sas-dual --paths-at both");
    lab.refuses("path fail lab sda", 3, "at rest");
    lab.refuses("create other --level 1 --disks 2 --paths sam", 3, "did you mean san?");
    lab.refuses("create other --level 1 --disks 2 --paths-at members", 3, "--paths <PRESET|FILE>");
    let running = serve(&lab);
    lab.refuses("path fail lab sda", 3, "volume/sda or disk-0/sda");
    lab.refuses("path fail lab volume/sdy", 3, "there is no path");
    lab.refuses("path switch lab 1", 3, "--map volume or --map disk-0");
    lab.refuses("path switch lab 9 --map volume", 3, "there is no group 9");
    lab.refuses("path switch lab 1 --map volum", 3, "did you mean volume?");
    lab.refuses("set lab failback=manual", 4, "at rest");
    stop(running);
    let plain = Lab::create("--level 1 --disks 2 --size 8M");
    plain.refuses("path list lab", 3, "--paths san");
    plain.refuses("failover lab", 3, "--paths san");
}
