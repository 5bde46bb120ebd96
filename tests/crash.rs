//! `kill -9` at any moment. The page cache survives a process: what these stories try is the order in which it writes.

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::lab::{Lab, expect_same, put};
use crate::support::process::Running;
use crate::support::sample::{self, Sample};
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("crash::killed_during_writes_no_acknowledged_byte_is_lost").sampled_by(killed_during_writes),
        story("crash::killed_during_degraded_writes_it_refuses_and_force_costs_dirty_stripes_only")
            .sampled_by(killed_during_degraded_writes),
        story("crash::killed_during_recovery_it_recovers").sampled_by(killed_during_recovery),
        story("crash::killed_during_create_it_is_made_anew").sampled_by(killed_during_create),
    ]
}

const TIMES: usize = 50;

/// Kills it at a moment that is drawn: within `span` of its start.
fn kill_within(running: Running, span: Duration, sample: &mut Sample) {
    sleep(Duration::from_micros(sample.below(span.as_micros() as u64)));
    running.kill();
}

/// A write of `bytes` at `offset`, to be killed.
fn begin_write(lab: &Lab, offset: u64, bytes: &[u8]) -> Running {
    lab.call(&format!("write lab --offset {offset}")).stdin(bytes).start()
}

/// Every byte is the one in `model`, or within `bytes` at `offset` perhaps the one of the write that was killed.
#[track_caller]
fn expect_old_or_new(found: &[u8], model: &[u8], offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    expect_same(&found[..start], &model[..start]);
    expect_same(&found[end..], &model[end..]);
    let neither = (start..end).find(|at| found[*at] != model[*at] && found[*at] != bytes[at - start]);
    assert!(neither.is_none(), "byte {} is neither old nor new", neither.unwrap_or_default());
}

const SHAPES: [&str; 8] = [
    "--level 0 --disks 3 --chunk 4K --size 8M",
    "--level 1 --disks 3 --size 8M",
    "--level 4 --disks 4 --chunk 4K --size 8M",
    "--level 5 --disks 4 --chunk 64K --size 8M --bitmap internal",
    "--level 5 --disks 3 --chunk 4K --size 8M --backend file",
    "--level 6 --disks 5 --chunk 16K --size 8M",
    "--level 6 --disks 4 --chunk 4K --size 8M --bitmap internal --backend uring",
    "--level 10 --disks 5 --chunk 64K --layout o2 --size 8M",
];

/// Writes that ended are acknowledged; the one that is killed may have come through anywhere.
fn killed_during_writes(mut sample: Sample) {
    let shapes = sample.some(3, SHAPES.to_vec());
    for shape in &shapes {
        let lab = Lab::create(shape);
        let mut model = vec![0; lab.size() as usize];
        let first = sample.bytes(6 << 20);
        let span = lab.write(0, &first).took;
        put(&mut model, 0, &first);
        for _ in 0..sample::count(2, TIMES.div_ceil(shapes.len())) {
            let acknowledged = sample.bytes(300_000);
            let offset = sample.below(model.len() as u64 - 300_000);
            lab.write(offset, &acknowledged);
            put(&mut model, offset, &acknowledged);
            let killed = sample.bytes(5 << 20);
            let offset = sample.below(model.len() as u64 - killed.len() as u64);
            kill_within(begin_write(&lab, offset, &killed), span, &mut sample);

            let state = lab.state();
            assert!(["clean", "active", "resyncing"].contains(&state.as_str()), "{shape}: {state}");
            expect_old_or_new(&lab.read(), &model, offset, &killed);
            lab.ok("wait lab");
            let settled = lab.read();
            expect_old_or_new(&settled, &model, offset, &killed);
            if !shape.starts_with("--level 0") {
                assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{shape}");
            }
            model = settled;
        }
    }
}

/// A stripe that was being written cannot be reconstructed: its missing chunk may come out as anything. Nothing else may.
fn killed_during_degraded_writes(mut sample: Sample) {
    let shapes = [
        ("--level 5 --disks 4 --chunk 64K --size 8M", 1, 3 * 64 * 1024),
        ("--level 5 --disks 3 --chunk 4K --size 8M --bitmap internal", 1, 2 * 4096),
        ("--level 4 --disks 4 --chunk 16K --size 8M", 1, 3 * 16384),
        ("--level 6 --disks 5 --chunk 16K --size 8M", 2, 3 * 16384),
    ];
    let shapes = sample.some(2, shapes.to_vec());
    let mut refused = 0;
    for (shape, missing, stripe) in &shapes {
        let lab = Lab::create(shape);
        let mut model = sample.bytes(lab.size() as usize);
        let span = lab.write(0, &model).took / 2;
        for disk in 0..*missing {
            lab.ok(&format!("fail lab {disk}"));
        }
        for _ in 0..sample::count(3, TIMES.div_ceil(shapes.len())) {
            let killed = sample.bytes(3 << 20);
            let offset = sample.below(model.len() as u64 - killed.len() as u64);
            kill_within(begin_write(&lab, offset, &killed), span, &mut sample);

            let read = lab.run("read lab");
            let found = if read.code == Some(0) {
                expect_old_or_new(&read.stdout, &model, offset, &killed);
                read.stdout
            } else {
                refused += 1;
                let read = read.expect_code(4);
                assert!(read.stderr.contains("cannot start dirty degraded array"), "{read}");
                assert!(read.stderr.contains("`raidlab assemble lab --force`"), "{read}");
                lab.run("status lab --test").expect_code(2);
                lab.refuses("wait lab", 4, "cannot start dirty degraded array");
                let forced = lab.ok("assemble lab --force");
                assert!(forced.stderr.contains("warning: "), "{forced}");
                lab.read()
            };
            let dirty = offset / stripe..(offset + killed.len() as u64).div_ceil(*stripe);
            let differing: BTreeSet<u64> = (0..model.len())
                .filter(|at| found[*at] != model[*at])
                .map(|at| at as u64 / stripe)
                .filter(|at| !dirty.contains(at))
                .collect();
            assert!(differing.is_empty(), "{shape}: stripes {differing:?} differ, {dirty:?} were being written");
            model = found;
        }
        lab.ok("add lab");
        if *missing == 2 {
            lab.ok("add lab");
        }
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{shape}");
        expect_same(&lab.read(), &model);
    }
    assert!(refused > 0 || !sample::is_full(), "some of the kills come while the array is dirty");
}

fn killed_during_recovery(mut sample: Sample) {
    let shapes = [
        "--level 1 --disks 2 --size 8M",
        "--level 5 --disks 3 --chunk 64K --size 8M",
        "--level 5 --disks 4 --chunk 4K --size 8M --bitmap internal",
        "--level 6 --disks 5 --chunk 16K --size 8M",
        "--level 10 --disks 4 --chunk 16K --layout f2 --size 8M",
    ];
    for _ in 0..sample::count(5, TIMES) {
        let shape = *sample.one(&shapes);
        let lab = Lab::create(shape);
        let bytes = sample.bytes(lab.size() as usize);
        lab.write(0, &bytes);
        lab.ok("set lab sync_speed_min=1 sync_speed_max=20000");
        let disk = sample.below(2);
        let how = *sample.one(&["fail", "replace"]);
        let words = match how {
            "fail" => {
                lab.ok(&format!("fail lab {disk}"));
                String::from(*sample.one(&["add lab", "add lab 0"])).replace('0', &disk.to_string())
            }
            _ => {
                lab.ok("add lab");
                format!("replace lab {disk}")
            }
        };
        kill_within(lab.call(&words).start(), Duration::from_millis(600), &mut sample);

        let what = format!("{shape}: {words}");
        lab.ok("set lab sync_speed_max=1000000");
        expect_same(&lab.read(), &bytes);
        lab.run("wait lab");
        expect_same(&lab.read(), &bytes);
        if lab.state() == "degraded" {
            // The disk had not joined yet.
            lab.ok("add lab");
        }
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{what}");
        expect_same(&lab.read(), &bytes);
    }
}

/// What is left says that it is unfinished; the next `create` removes it and begins anew. Removing the directory does,
/// too.
fn killed_during_create(mut sample: Sample) {
    let words = "create lab --level 5 --disks 6 --size 8M --chunk 64K --bitmap internal";
    let lab = Lab::nowhere();
    let span = lab.ok(words).took;
    let mut unfinished = 0;
    for _ in 0..sample::count(6, TIMES) {
        fs::remove_dir_all(lab.around().join("lab")).expect("it is there");
        kill_within(lab.call(words).start(), span, &mut sample);

        if lab.file("lab.toml").exists() {
            assert_eq!(lab.state(), "clean");
            continue;
        }
        unfinished += 1;
        let status = lab.run("status lab").expect_code(4);
        assert!(status.stderr.contains("is not a lab"), "{status}");
        lab.ok(words);
        let mut names: Vec<String> = (0..6).map(|disk| format!("disk-{disk}.img")).collect();
        names.push(String::from("lab.toml"));
        assert_eq!(lab.names(), names, "nothing is left of the first");
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0));
    }
    assert!(unfinished > 0 || !sample::is_full(), "some of the kills come while it is made");
}
