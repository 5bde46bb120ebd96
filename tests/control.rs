//! A lab that runs, steered from a second terminal.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::cli::raidlab;
use crate::support::lab::{Lab, expect_same, put};
use crate::support::process::{self, Running};
use crate::support::sample::Sample;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("control::a_lab_that_runs_says_what_it_says_at_rest").sampled_by(says_the_same),
        story("control::members_fail_and_return_while_fio_writes").needs(&["fio"]).sampled_by(members_fail_and_return),
        story("control::a_fault_takes_effect_between_two_requests").told_by(a_fault_takes_effect),
        story("control::bytes_are_read_and_written_through_the_process_that_serves").sampled_by(bytes_pass),
        story("control::a_check_is_paused_resumed_and_cancelled").told_by(a_check_is_paused),
        story("control::what_happens_is_on_record_and_a_program_is_called").told_by(what_happens_is_on_record),
        story("control::a_power_cut_loses_what_was_not_flushed_and_nothing_else").sampled_by(a_power_cut),
        story("control::a_lab_has_one_holder_who_is_named").told_by(one_holder),
        story("control::nonsense_at_the_socket_hurts_nobody").sampled_by(nonsense),
    ]
}

/// A lab that is served.
struct Served {
    running: Running,
    uri: String,
}

fn serve(lab: &Lab, words: &str) -> Served {
    let running = lab.call(&format!("serve lab {words}")).start();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let said = String::from_utf8(running.stdout()).expect("URIs are text");
        if let Some((uri, _)) = said.split_once('\n') {
            return Served { uri: uri.to_owned(), running };
        }
        assert!(Instant::now() < deadline, "{}", running.kill());
        sleep(Duration::from_millis(2));
    }
}

/// `raidlab stop lab`, which leaves nothing of the process behind.
#[track_caller]
fn stop(lab: &Lab, served: Served) {
    lab.ok("stop lab");
    served.running.wait(Duration::from_secs(10)).expect_ok();
    for name in ["control.sock", "nbd.sock"] {
        assert!(!lab.file(name).exists(), "{name} was left behind");
    }
}

fn says_the_same(mut sample: Sample) {
    let shapes = [
        "--level 0 --disks 3 --size 8M",
        "--level 1 --disks 2 --spares 1 --size 8M --name böse",
        "--level 5 --disks 4 --spares 1 --chunk 64K --size 8M",
        "--level 6 --disks 5 --chunk 16K --size 8M --backend file",
        "--level 10 --disks 4 --layout f2 --size 8M --cache volatile",
    ];
    for shape in sample.some(2, shapes.to_vec()) {
        let lab = Lab::create(shape);
        if !shape.contains("--level 0") {
            lab.ok("fail lab 1");
            lab.ok("remove lab 1");
        }
        lab.ok("fault lab 0 add latency=1us --at-io 1000000");
        let says = || {
            let text = |words: &str| lab.ok(words).text().to_owned();
            let mut json = lab.status();
            json["in_use"] = Value::Null;
            let faults = text("fault lab list").replace("  (struck 0 times)", "");
            let test = lab.run("status lab --test").code;
            (text("status lab"), json, text("status lab --mdstat"), faults, test)
        };
        let at_rest = says();
        let served = serve(&lab, "");
        let running = says();
        assert_eq!(running, at_rest, "{shape}");
        stop(&lab, served);
        assert_eq!(says(), at_rest, "{shape}");
    }
}

fn members_fail_and_return(mut sample: Sample) {
    let shapes = [
        "--level 1 --disks 2 --spares 1 --size 24M --bitmap internal",
        "--level 5 --disks 4 --spares 1 --chunk 64K --size 16M --bitmap internal",
        "--level 6 --disks 5 --spares 1 --chunk 16K --size 16M",
        "--level 10 --disks 4 --spares 1 --chunk 64K --size 16M --layout o2",
    ];
    for shape in sample.some(1, shapes.to_vec()) {
        let lab = Lab::create(shape);
        let served = serve(&lab, "");
        let fio = process::start(std::process::Command::new("bash").current_dir(lab.around()).args([
            "-c",
            &format!(
                "fio --name=t --ioengine=nbd --uri='{}' --rw=randwrite --bs=12k --iodepth=16 --verify=crc32c \
                 --verify_fatal=1 --size=20M --loops=1000 --time_based --runtime=5 --fsync=50 --randseed={} --output=fio.txt",
                served.uri,
                sample.seed() >> 32
            ),
        ]));
        sleep(Duration::from_millis(300));
        // The spare takes its place; the disk comes back as the next spare.
        lab.ok("fail lab 1");
        assert_eq!(lab.member("disk-1")["state"], "faulty", "{shape}");
        lab.ok("remove lab disk-1");
        lab.ok("add lab disk-1");
        assert_eq!(lab.run("check lab").code, Some(0), "{shape}");
        lab.ok("replace lab disk-0");
        lab.ok("remove lab disk-0");
        lab.ok("add lab disk-0 --no-wait");
        lab.ok("wait lab");
        let fio = fio.wait(Duration::from_secs(60));
        assert!(
            fio.code == Some(0),
            "{shape}: {fio}{}",
            fs::read_to_string(lab.around().join("fio.txt")).unwrap_or_default()
        );
        assert_eq!(lab.mismatches(), 0, "{shape}");
        stop(&lab, served);
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{shape}");
    }
}

fn a_fault_takes_effect() {
    let lab = Lab::create("--level 0 --disks 2 --chunk 64K --size 16M");
    let served = serve(&lab, "");
    lab.write(0, &vec![7; 1 << 20]);
    lab.ok("read lab --length 1M");
    lab.ok("fault lab 1 add medium");
    lab.refuses("read lab --length 1M", 2, "medium");
    assert!(lab.ok("fault lab list").text().contains("struck"), "{}", lab.ok("fault lab list"));
    lab.refuses("fault lab 9 add medium", 3, "the lab has no disk-9");
    lab.ok("fault lab clear disk-1");
    expect_same(&lab.ok("read lab --length 1M").stdout, &vec![7; 1 << 20]);
    stop(&lab, served);
    assert_eq!(lab.ok("fault lab list").text(), "");
}

fn bytes_pass(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 16M");
    let mut model = vec![0; lab.size() as usize];
    let served = serve(&lab, "");
    for _ in 0..6 {
        let offset = sample.below(model.len() as u64 - 1);
        let length = (1 + sample.below(6 << 20) as usize).min(model.len() - offset as usize);
        let bytes = sample.bytes(length);
        lab.write(offset, &bytes);
        put(&mut model, offset, &bytes);
        let from = sample.below(model.len() as u64 - 1);
        let length = (1 + sample.below(6 << 20)).min(model.len() as u64 - from);
        let read = lab.ok(&format!("read lab --offset {from} --length {length}")).stdout;
        expect_same(&read, &model[from as usize..][..length as usize]);
    }
    // Whoever has enough of them hurts nobody.
    let head = raidlab(lab.around(), ["read", "lab"]).start();
    drop(head);
    lab.refuses("write lab --offset 1T", 3, "beyond the end");
    lab.refuses("read lab --offset 1 --length 1T", 3, "beyond the end");
    expect_same(&lab.read(), &model);
    stop(&lab, served);
    expect_same(&lab.read(), &model);
}

fn a_check_is_paused() {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 16M");
    lab.ok("set lab sync_speed_max=4000 sync_speed_min=4000");
    let served = serve(&lab, "");
    lab.refuses("check lab --pause", 3, "no check or repair is under way");
    lab.refuses("check lab --cancel", 3, "nothing to cancel");

    lab.ok("check lab --no-wait");
    lab.refuses("repair lab", 4, "a check or repair is under way");
    assert_eq!(lab.status()["sync"]["action"], "check");
    sleep(Duration::from_millis(300));
    lab.ok("check lab --pause");
    assert_eq!(lab.status()["sync"]["action"], "idle");

    // One who waits and goes away leaves it running.
    let waiting = lab.call("check lab").start();
    while lab.status()["sync"]["action"] == "idle" {
        sleep(Duration::from_millis(5));
    }
    waiting.signal(Signal::INT);
    let left = waiting.wait(Duration::from_secs(10)).expect_code(4);
    assert!(left.stderr.contains("goes on at byte") && left.stderr.contains("--pause"), "{left}");
    assert_eq!(lab.status()["sync"]["action"], "check");
    let waiting = lab.call("wait lab").start();
    lab.ok("check lab --cancel");
    waiting.wait(Duration::from_secs(10)).expect_ok();
    assert_eq!(lab.status()["sync"]["action"], "idle");
    lab.refuses("check lab --cancel", 3, "nothing to cancel");

    // It ends with the lab, and goes on with it.
    lab.ok("check lab --no-wait");
    sleep(Duration::from_millis(200));
    stop(&lab, served);
    lab.ok("set lab sync_speed_max=200000");
    let ran = lab.ok("check lab");
    assert!(ran.stderr.contains("check goes on at byte"), "{ran}");
    assert!(ran.text().contains("mismatch_cnt 0"), "{ran}");
}

fn what_happens_is_on_record() {
    let lab = Lab::create("--level 5 --disks 3 --spares 1 --chunk 64K --size 16M");
    let hook = lab.around().join("hook");
    fs::write(&hook, "#!/bin/sh\necho \"$#:$*\" >> called\n").expect("it can be written");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("it is ours");
    lab.ok("set lab sync_speed_max=30000");
    let served = serve(&lab, "--hook ./hook");
    lab.ok("fail lab 0");
    lab.ok("fail lab 1");
    stop(&lab, served);

    let recorded = fs::read_to_string(lab.file("events.jsonl")).expect("there is a record");
    let events: Vec<(String, Option<String>)> = recorded
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).expect("a line is an event");
            assert!(event["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{event}");
            (event["event"].as_str().unwrap().to_owned(), event["disk"].as_str().map(str::to_owned))
        })
        .collect();
    let place = |event: &str, disk: Option<&str>| {
        let found = events.iter().position(|(name, of)| name == event && of.as_deref() == disk);
        found.unwrap_or_else(|| panic!("no {event} {disk:?} in\n{recorded}"))
    };
    let order = [
        place("NewArray", None),
        place("Fail", Some("disk-0")),
        place("RebuildStarted", None),
        place("SpareActive", Some("disk-3")),
        place("RebuildFinished", None),
        place("Fail", Some("disk-1")),
        place("DeviceDisappeared", None),
    ];
    assert!(order.is_sorted(), "{order:?}\n{recorded}");
    let fifths = ["Rebuild20", "Rebuild40", "Rebuild60", "Rebuild80"];
    assert!(events.iter().any(|(name, _)| fifths.contains(&name.as_str())), "{recorded}");

    let mut called: Vec<String> =
        fs::read_to_string(lab.around().join("called")).expect("it was called").lines().map(str::to_owned).collect();
    let mut expected: Vec<String> = events
        .iter()
        .map(|(event, disk)| match disk {
            Some(disk) => format!("3:{event} lab {disk}"),
            None => format!("2:{event} lab"),
        })
        .collect();
    // Several run at a time.
    called.sort();
    expected.sort();
    assert_eq!(called, expected);

    // Without it the lab is served all the same, and it is said once.
    let served = serve(&lab, "--hook ./no-such-hook");
    sleep(Duration::from_millis(50));
    served.running.signal(Signal::TERM);
    let ran = served.running.wait(Duration::from_secs(10)).expect_ok();
    assert_eq!(ran.stderr.matches("cannot call ./no-such-hook").count(), 1, "{ran}");
}

fn a_power_cut(mut sample: Sample) {
    let shapes = [
        ("--level 0 --disks 3 --chunk 64K --size 8M", false),
        ("--level 1 --disks 2 --size 16M", false),
        ("--level 5 --disks 3 --chunk 64K --size 8M --bitmap internal", false),
        ("--level 5 --disks 4 --chunk 64K --size 8M", true),
        ("--level 6 --disks 4 --chunk 64K --size 8M", true),
        ("--level 10 --disks 4 --chunk 64K --size 8M", true),
    ];
    for (shape, degraded) in sample.some(2, shapes.to_vec()) {
        let lab = Lab::create(&format!("{shape} --cache volatile"));
        let served = serve(&lab, "");
        let before = sample.bytes(lab.size() as usize);
        lab.write(0, &before);
        if degraded {
            lab.ok("fail lab 0");
        }
        // Written, acknowledged, and not flushed.
        let after = sample.bytes(2 << 20);
        let at = sample.below((before.len() - after.len()) as u64 / 4096) * 4096;
        let mut client = Nbd::connect(&lab);
        client.write(at, &after);
        let seed = sample.seed() >> 40;
        let ran = lab.ok(&format!("power-cut lab --seed {seed}"));
        assert!(ran.stderr.contains("sectors that were not flushed"), "{ran}");
        served.running.wait(Duration::from_secs(10));

        if degraded && !shape.contains("--level 10") {
            // Some stripe may be torn, and the member that would tell is gone: it is not for the program to decide.
            lab.refuses("read lab", 4, "--force");
            continue;
        }
        let waited = lab.run("wait lab");
        assert!(matches!(waited.code, Some(0 | 1)), "{waited}");
        let found = lab.read();
        let (start, end) = (at as usize, at as usize + after.len());
        expect_same(&found[..start], &before[..start]);
        expect_same(&found[end..], &before[end..]);
        let sectors = found[start..end].chunks(512).zip(before[start..end].chunks(512)).zip(after.chunks(512));
        let (mut old, mut new) = (0, 0);
        for (sector, ((found, before), after)) in sectors.enumerate() {
            assert!(found == before || found == after, "{shape}, seed {seed}: sector {sector} is neither");
            old += usize::from(found == before);
            new += usize::from(found == after);
        }
        assert!(old > 0 && new > 0, "{shape}, seed {seed}: {old} sectors are old, {new} new");
        if !shape.contains("--level 0") {
            assert_eq!(lab.mismatches(), 0, "{shape}");
        }
    }
    let lab = Lab::create("--level 1 --disks 2 --size 8M");
    lab.refuses("power-cut lab", 3, "there is no power to cut");
}

fn one_holder() {
    let lab = Lab::create("--level 1 --disks 2 --size 8M");
    let served = serve(&lab, "");
    let holder = format!("process {}: ", served.running.id());
    let second = lab.run("serve lab --nbd unix:other.sock").expect_code(4);
    assert!(second.stderr.contains(&holder) && second.stderr.contains("serve lab"), "{second}");
    assert!(!lab.around().join("other.sock").exists());
    lab.refuses("assemble lab --force", 4, &holder);
    stop(&lab, served);
    let again = lab.ok("stop lab");
    assert!(again.stderr.contains("at rest"), "{again}");
    lab.refuses("stop nowhere", 4, "is not a lab");

    // One that was killed leaves its socket, and is in nobody's way.
    let served = serve(&lab, "");
    served.running.kill();
    assert!(lab.file("control.sock").exists());
    lab.ok("status lab");
    let served = serve(&lab, "");
    stop(&lab, served);
}

fn nonsense(mut sample: Sample) {
    let lab = Lab::create("--level 1 --disks 2 --size 8M");
    let served = serve(&lab, "");
    let socket = lab.file("control.sock");
    let mode = fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let ask = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&socket).expect("somebody listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("it can be set");
        // It may be let go before it has said everything.
        let _ = stream.write_all(bytes);
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        answer
    };
    let request = |version: u32, command: &str| {
        format!("{{\"version\":{version},\"lab\":\"lab\",\"directory\":\"/\",\"command\":{command}}}\n")
    };
    assert!(ask(b"hello\n").contains("this is no request"));
    assert!(ask(request(7, "\"wait\"").as_bytes()).contains("speaks version 1 of the protocol, not 7"));
    assert!(ask(request(1, "\"dance\"").as_bytes()).contains("dance"));
    assert!(ask(request(1, "{\"read\":{\"offset\":0}}").as_bytes()).contains("no descriptor came along"));
    assert!(ask(&vec![b'{'; 100_000]).contains("at most 65536 bytes"));
    assert_eq!(ask(request(1, "\"wait\"").as_bytes()), "{\"end\":{\"code\":0}}\n");
    for _ in 0..50 {
        let mut bytes = sample.bytes(300);
        bytes.push(b'\n');
        assert!(ask(&bytes).contains("end"));
    }

    // Those who say nothing do not keep others out for long, and one who is cut short is forgotten.
    let silent: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(&socket).expect("somebody listens")).collect();
    lab.ok("status lab");
    drop(silent);
    let mut cut = UnixStream::connect(&socket).expect("somebody listens");
    cut.write_all(b"{\"version\":1,").expect("it is taken");
    drop(cut);
    assert_eq!(lab.state(), "clean");
    stop(&lab, served);
}

/// A client that writes and does not flush.
struct Nbd {
    stream: UnixStream,
}

impl Nbd {
    fn connect(lab: &Lab) -> Nbd {
        let mut stream = UnixStream::connect(lab.file("nbd.sock")).expect("it is served");
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).expect("a server greets");
        // NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES, then NBD_OPT_EXPORT_NAME of the default export.
        let mut hello = 3_u32.to_be_bytes().to_vec();
        hello.extend(b"IHAVEOPT");
        hello.extend(1_u32.to_be_bytes());
        hello.extend(0_u32.to_be_bytes());
        stream.write_all(&hello).expect("it is taken");
        let mut export = [0; 10];
        stream.read_exact(&mut export).expect("there is a default export");
        Nbd { stream }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        for (number, piece) in bytes.chunks(64 << 10).enumerate() {
            let mut request = 0x2560_9513_u32.to_be_bytes().to_vec();
            request.extend(0_u16.to_be_bytes());
            request.extend(1_u16.to_be_bytes());
            request.extend((number as u64).to_be_bytes());
            request.extend((at + number as u64 * (64 << 10)).to_be_bytes());
            request.extend((piece.len() as u32).to_be_bytes());
            request.extend(piece);
            self.stream.write_all(&request).expect("it is taken");
            let mut reply = [0; 16];
            self.stream.read_exact(&mut reply).expect("it is answered");
            assert_eq!(reply[4..8], [0; 4], "the write failed");
        }
    }
}
