//! Whole labs: what a user does with one, from `create` to the last repair.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::support::lab::{Lab, expect_same, put};
use crate::support::sample::Sample;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("labs::an_array_of_each_level_lives_a_whole_life").sampled_by(an_array_of_each_level_lives_a_whole_life),
        story("labs::any_bytes_can_be_written_and_no_others_change").sampled_by(any_bytes_can_be_written),
        story("labs::a_sector_that_cannot_be_read_is_mended_from_the_others").sampled_by(a_sector_that_cannot_be_read),
        story("labs::a_sector_that_cannot_be_written_is_on_record").sampled_by(a_sector_that_cannot_be_written),
        story("labs::a_disk_that_stops_is_failed_and_the_spare_takes_over").sampled_by(a_disk_that_stops),
        story("labs::a_fault_on_one_disk_costs_no_byte").sampled_by(a_fault_on_one_disk_costs_no_byte),
        story("labs::writes_that_were_lost_are_found_and_blamed_on_the_disk").sampled_by(writes_that_were_lost),
        story("labs::a_flipped_byte_is_mended_where_it_is_known_who_is_wrong").sampled_by(a_flipped_byte_is_mended),
        story("labs::a_flipped_byte_on_raid5_is_left_alone_unless_the_data_are_trusted")
            .sampled_by(a_flipped_byte_on_raid5),
        story("labs::a_check_that_is_interrupted_goes_on_where_it_was").sampled_by(a_check_that_is_interrupted),
        story("labs::a_recovery_that_is_interrupted_goes_on_from_its_watermark")
            .sampled_by(a_recovery_that_is_interrupted),
        story("labs::originals_under_an_overlay_change_only_by_a_commit").sampled_by(originals_under_an_overlay),
        story("labs::a_lab_is_open_once").told_by(a_lab_is_open_once),
        story("labs::a_disk_that_missed_writes_returns_through_the_bitmap").sampled_by(a_disk_that_missed_writes),
        story("labs::members_that_exist_are_taken_when_they_are_blank_or_with_yes").told_by(members_that_exist),
        story("labs::status_says_the_same_to_people_and_to_programs").told_by(status_says_the_same),
        story("labs::the_terminal_is_spoken_to_as_it_wants").told_by(the_terminal_is_spoken_to_as_it_wants),
    ]
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Where data begin on members as small as these.
const DATA: u64 = MIB;

const LIVES: [(&str, &str); 7] = [
    ("--level 0 --disks 3 --chunk 64K --size 8M", "raid0"),
    ("--level 1 --disks 3 --spares 1 --size 8M", "raid1"),
    ("--level 4 --disks 3 --spares 1 --chunk 4K --size 8M", "raid4"),
    ("--level 5 --disks 4 --spares 1 --chunk 64K --size 8M --bitmap internal", "raid5"),
    ("--level 6 --disks 5 --spares 1 --chunk 16K --size 8M", "raid6"),
    ("--level 10 --disks 5 --spares 1 --chunk 64K --size 8M --layout o2", "raid10"),
    ("--level 10 --disks 4 --spares 1 --chunk 32K --size 8M --layout f2 --backend uring", "raid10"),
];

/// Created, written, a disk fails and the spare takes over, another fails and there is none, writes go on; a new disk
/// comes, one is replaced ahead of time. The bytes are what a flat file would hold, all the way.
fn an_array_of_each_level_lives_a_whole_life(mut sample: Sample) {
    for (arguments, level) in sample.some(4, LIVES.to_vec()) {
        let lab = Lab::create(arguments);
        let mut model = vec![0; lab.size() as usize];
        let write = |model: &mut Vec<u8>, sample: &mut Sample| {
            let offset = sample.below(MIB);
            let bytes = sample.bytes(5 << 20);
            lab.write(offset, &bytes);
            put(model, offset, &bytes);
        };
        assert_eq!(lab.status()["level"], level);
        write(&mut model, &mut sample);
        expect_same(&lab.read(), &model);
        if level == "raid0" {
            lab.refuses("fail lab 1", 4, "the array would fail without it");
            lab.refuses("check lab", 3, "no redundancy");
            assert_eq!(lab.state(), "clean");
            continue;
        }

        assert!(lab.ok("fail lab 1").stderr.contains("Fail: disk-1"));
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{arguments}");
        expect_same(&lab.read(), &model);

        lab.ok("fail lab disk-0.img");
        lab.run("status lab --test").expect_code(1);
        write(&mut model, &mut sample);
        expect_same(&lab.read(), &model);
        lab.ok("remove lab disk-1");
        lab.ok("add lab");
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{arguments}");

        lab.ok("add lab disk-1.img --spare");
        lab.ok("replace lab 2 --with disk-1");
        write(&mut model, &mut sample);
        assert_eq!((lab.member("disk-1")["slot"].as_u64(), lab.mismatches()), (Some(2), 0), "{arguments}");
        expect_same(&lab.read(), &model);
    }
}

fn any_bytes_can_be_written(mut sample: Sample) {
    let lab = Lab::create(sample.one(&LIVES).0);
    let mut model = vec![0; lab.size() as usize];
    for _ in 0..8 {
        let longest = *sample.one(&[10, 5000, 200_000]);
        let length = sample.below(longest);
        let offset = sample.below(model.len() as u64 - length);
        let bytes = sample.bytes(length as usize);
        lab.write(offset, &bytes);
        put(&mut model, offset, &bytes);
        let (from, count) = (offset.saturating_sub(1), length + 1);
        let read = lab.ok(&format!("read lab --offset {from} --length {count}")).stdout;
        expect_same(&read, &model[from as usize..][..count as usize]);
    }
    expect_same(&lab.read(), &model);

    let size = lab.size();
    lab.refuses(&format!("read lab --offset {}", size + 1), 3, "beyond the end");
    lab.refuses(&format!("read lab --offset {size} --length 1"), 3, "beyond the end");
    assert_eq!(lab.ok(&format!("read lab --offset {size}")).stdout, b"");
    let too_much = lab.call(&format!("write lab --offset {}", size - 1)).stdin(b"xy").run().expect_code(3);
    assert!(too_much.stderr.contains("nothing was written"), "{too_much}");
    expect_same(&lab.read(), &model);
}

fn a_sector_that_cannot_be_read(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 4 --chunk 64K --size 8M");
    let bytes = sample.bytes(lab.size() as usize);
    lab.write(0, &bytes);
    lab.ok("fault lab 2 add medium --range 1500K..1600K");
    assert!(lab.ok("fault lab list").text().contains("disk-2  medium --range 1500K..1600K"));

    let read = lab.ok("read lab");

    expect_same(&read.stdout, &bytes);
    assert!(read.stderr.contains("read error corrected") && read.stderr.contains("of disk-2"), "{}", read.stderr);
    assert_eq!(lab.mismatches(), 0);
    lab.ok("fault lab clear");
    assert_eq!((lab.mismatches(), lab.state().as_str()), (0, "clean"));
}

fn a_sector_that_cannot_be_written(mut sample: Sample) {
    let lab = Lab::create("--level 6 --disks 5 --chunk 64K --size 8M");
    let bytes = sample.bytes(lab.size() as usize);
    lab.ok("fault lab 2 add write-medium --range 2M..2560K");

    lab.write(0, &bytes);

    assert_eq!(lab.member("disk-2")["errors"]["bad_sectors"], 1024);
    assert!(lab.ok("examine lab/disk-2.img").text().contains("bad blocks present"));
    lab.ok("fault lab clear 2");
    expect_same(&lab.read(), &bytes);
    assert_eq!(lab.mismatches(), 0);
    lab.ok("fail lab 0");
    expect_same(&lab.read(), &bytes);
}

fn a_disk_that_stops(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 3 --spares 1 --chunk 64K --size 8M");
    let bytes = sample.bytes(lab.size() as usize);
    lab.ok(&format!("fault lab 1 add fail-stop --at-io {}", 20 + sample.below(60)));

    let written = lab.write(0, &bytes);

    assert!(written.stderr.contains("Fail: disk-1"), "{written}");
    lab.ok("wait lab");
    assert_eq!((lab.state().as_str(), lab.member("disk-3")["slot"].as_u64()), ("clean", Some(1)));
    expect_same(&lab.read(), &bytes);
    lab.ok("fault lab clear");
    lab.ok("remove lab 1");
    assert_eq!(lab.mismatches(), 0);
}

fn a_fault_on_one_disk_costs_no_byte(mut sample: Sample) {
    let kinds = ["latency=2ms", "transient=3", "torn=1 --times 2", "flush-lie", "hang=50ms", "read-only", "bitflip"];
    for kind in sample.some(4, kinds.to_vec()) {
        let lab = Lab::create("--level 6 --disks 4 --chunk 64K --size 8M");
        let old = sample.bytes(MIB as usize);
        let new = sample.bytes(MIB as usize);
        lab.write(0, &old);
        let range = if kind == "bitflip" { " --range 1M..1088K --times 1" } else { "" };
        lab.ok(&format!("fault lab 3 add {kind}{range}"));

        lab.write(MIB, &new);
        lab.ok("fault lab clear");

        lab.run("repair lab");
        assert_eq!(lab.mismatches(), 0, "{kind}");
        let mut model = [old, new].concat();
        model.resize(lab.size() as usize, 0);
        expect_same(&lab.read(), &model);
    }
}

fn writes_that_were_lost(mut sample: Sample) {
    let lab = Lab::create("--level 6 --disks 5 --chunk 64K --size 8M");
    let fault = *sample.one(&["lost", "misdirected=8 --times 3", "torn-silent=1"]);
    lab.write(0, &sample.bytes(4 << 20));
    lab.ok(&format!("fault lab 1 add {fault} --range 1M..2M"));
    let bytes = sample.bytes(4 << 20);
    lab.write(0, &bytes);
    lab.ok("fault lab clear");

    let check = lab.run("check lab").expect_code(1);
    let repair = lab.ok("repair lab");

    assert!(check.text().contains("disk-1 is wrong"), "{fault}: {check}");
    assert!(repair.text().contains("mended"), "{fault}: {repair}");
    assert_eq!(lab.mismatches(), 0, "{fault}");
    expect_same(&lab.read()[..bytes.len()], &bytes);
}

/// md counts a RAID6 mismatch by the page. Of mirrors it compares each with the first, in blocks of 64 KiB: if the first
/// is the wrong one, both others differ.
fn a_flipped_byte_is_mended(mut sample: Sample) {
    let labs = [
        ("--level 6 --disks 5 --chunk 64K --size 8M", 5, [8, 8]),
        ("--level 1 --disks 3 --size 8M", 3, [128, 256]),
        ("--level 10 --disks 4 --layout n3 --chunk 64K --size 8M", 4, [128, 256]),
    ];
    for (arguments, disks, counts) in labs {
        let lab = Lab::create(arguments);
        lab.write(0, &sample.bytes(lab.size() as usize));
        let before = lab.read();
        let disk = sample.below(disks);
        let prints = lab.prints("lab");
        lab.flip(&format!("disk-{disk}.img"), DATA + sample.below(4 * MIB));

        let check = lab.run("check lab").expect_code(1);
        assert!(check.text().contains(&format!("disk-{disk} is wrong")), "{arguments}: {check}");
        let count = lab.status()["mismatch_cnt"].as_u64().expect("it is a count");
        assert!(counts.contains(&count), "{arguments}: {check}");
        assert!(check.text().contains(&format!("mismatch_cnt {count} sectors")), "{arguments}: {check}");
        assert!(lab.ok("status lab").text().contains("`raidlab repair lab`"));
        assert!(lab.ok("repair lab").text().contains("1 mended"));

        assert_eq!(lab.mismatches(), 0);
        expect_same(&lab.read(), &before);
        let now = lab.prints("lab");
        let images = (0..disks).map(|disk| format!("disk-{disk}.img"));
        let changed: Vec<String> = images.filter(|image| now[image] != prints[image]).collect();
        // A repair is a write: superblocks say so, and nothing else may have changed.
        assert!(changed.is_empty() || changed.len() as u64 == disks, "{arguments}: {changed:?}");
    }
}

fn a_flipped_byte_on_raid5(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 8M");
    lab.write(0, &sample.bytes(lab.size() as usize));
    lab.flip("disk-1.img", DATA + sample.below(4 * MIB));
    let flipped = lab.read();

    let check = lab.run("check lab").expect_code(1);
    assert!(check.text().contains("who is wrong cannot be known"), "{check}");
    assert!(check.text().contains("mismatch_cnt 8 sectors in 1 place"), "{check}");
    let prints = lab.prints("lab");
    let repair = lab.run("repair lab").expect_code(1);
    assert!(repair.text().contains("--trust-data"), "{repair}");
    let now = lab.prints("lab");
    assert!((0..3).map(|disk| format!("disk-{disk}.img")).all(|image| now[&image] == prints[&image]));

    lab.ok("repair lab --trust-data");
    assert_eq!(lab.mismatches(), 0);
    expect_same(&lab.read(), &flipped);
}

fn a_check_that_is_interrupted(mut sample: Sample) {
    let lab = Lab::create("--level 6 --disks 4 --chunk 64K --size 8M");
    lab.write(0, &sample.bytes(lab.size() as usize));
    lab.flip("disk-1.img", DATA + 100);
    lab.flip("disk-2.img", 8 * MIB - 100);
    lab.ok("set lab sync_speed_min=10 sync_speed_max=2000");

    let check = lab.call("check lab").start();
    sleep(Duration::from_millis(1200));
    check.signal(Signal::INT);
    let check = check.wait(Duration::from_secs(20)).expect_code(4);

    assert!(check.stderr.contains("`raidlab check lab` goes on"), "{check}");
    assert_eq!(lab.status()["mismatch_cnt"], 8);
    assert!(lab.ok("status lab").text().contains("interrupted at byte"));
    lab.ok("set lab sync_speed_max=1000000");
    let rest = lab.run("check lab").expect_code(1);
    assert!(rest.stderr.contains("check goes on at byte"), "{rest}");
    assert!(rest.text().contains("mismatch_cnt 16 sectors in 2 places"), "{rest}");

    lab.refuses("check lab --cancel", 3, "nothing to cancel");
    assert_eq!(lab.run("check lab --range 0..1M").expect_code(1).text().matches("is wrong").count(), 1);
}

fn a_recovery_that_is_interrupted(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 8M");
    let bytes = sample.bytes(lab.size() as usize);
    lab.write(0, &bytes);
    lab.ok("set lab sync_speed_min=10 sync_speed_max=2000");
    lab.ok("fail lab 0");

    let add = lab.call("add lab").start();
    sleep(Duration::from_millis(1200));
    add.signal(Signal::INT);
    let add = add.wait(Duration::from_secs(20)).expect_code(4);

    assert!(add.stderr.contains("`raidlab wait lab` goes on"), "{add}");
    let status = lab.status();
    assert_eq!((&status["state"], &status["sync"]["action"]), (&"recovering".into(), &"recover".into()));
    let percent = status["sync"]["percent"].as_f64().expect("it has begun");
    assert!(percent > 0.0 && percent < 100.0, "{status:#}");
    expect_same(&lab.read(), &bytes);
    lab.ok("set lab sync_speed_max=1000000");
    assert!(lab.ok("wait lab").stderr.contains("SpareActive: disk-3"));
    assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0));
    expect_same(&lab.read(), &bytes);
}

fn originals_under_an_overlay(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 8M");
    let old = sample.bytes(lab.size() as usize);
    lab.write(0, &old);
    let images = lab.move_images("originals").join(" ");
    let prints = lab.prints("originals");

    lab.ok(&format!("assemble lab {images} --overlay"));
    let new = sample.bytes(3 << 20);
    lab.write(MIB, &new);
    lab.ok("fail lab 1");
    let mut model = old.clone();
    put(&mut model, MIB, &new);
    expect_same(&lab.read(), &model);
    assert_eq!(lab.prints("originals"), prints);
    assert!(lab.ok("overlay status lab").text().contains("changed in"));

    lab.ok("overlay discard lab");
    lab.ok("overlay discard lab");
    assert!(lab.ok("overlay status lab").text().contains("disk-0  0 B changed"));
    assert_eq!(lab.state(), "clean");
    assert!(!lab.names().contains(&String::from("disk-0.overlay")), "status writes nothing");
    expect_same(&lab.read(), &old);
    lab.write(MIB, &new);
    assert_eq!(lab.prints("originals"), prints);

    lab.ok("overlay commit lab");
    lab.refuses("overlay commit lab", 3, "no overlays");
    assert_ne!(lab.prints("originals"), prints);
    expect_same(&lab.read(), &model);
    assert_eq!(lab.mismatches(), 0);
}

fn a_lab_is_open_once() {
    let lab = Lab::create("--level 1 --disks 2 --size 8M");
    lab.ok("set lab sync_speed_min=10 sync_speed_max=500");
    let check = lab.call("check lab").start();
    sleep(Duration::from_millis(500));

    for words in ["write lab", "read lab", "fail lab 1", "add lab", "set lab sync_speed_max=1", "fault lab list"] {
        lab.refuses(words, 4, "lab is open in another process");
    }
    let status = lab.status();
    assert_eq!((&status["in_use"], &status["state"]), (&true.into(), &"clean".into()));
    // Its images are held too, whoever comes from elsewhere.
    lab.refuses("assemble other lab/disk-0.img lab/disk-1.img", 4, "in use");
    assert!(!lab.around().join("other").exists());

    check.signal(Signal::TERM);
    check.wait(Duration::from_secs(20)).expect_code(4);
    lab.ok("read lab --length 1");
}

fn a_disk_that_missed_writes(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 8M --bitmap internal");
    let mut model = sample.bytes(lab.size() as usize);
    lab.write(0, &model);
    lab.ok("fail lab 1");
    let bytes = sample.bytes(100_000);
    lab.write(3 * MIB, &bytes);
    put(&mut model, 3 * MIB, &bytes);

    lab.ok("re-add lab 1");

    assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0));
    expect_same(&lab.read(), &model);
    lab.refuses("re-add lab 1", 4, "a member of this array already");
}

fn members_that_exist() {
    let lab = Lab::nowhere();
    for name in ["a", "b", "c"] {
        fs::write(lab.around().join(name), vec![0; 4 << 20]).expect("there is room");
    }
    let mut bytes = vec![0; 4 << 20];
    bytes[1000] = 1;
    fs::write(lab.around().join("c"), &bytes).expect("there is room");
    let prints = lab.prints(".");

    lab.refuses("create lab --level 5 --members a b c", 3, "c is not blank");
    lab.refuses("create lab --level 5 --disks 4 --members a b c", 3, "names 3 disks");
    assert_eq!(lab.prints("."), prints);
    assert!(!lab.around().join("lab").exists());
    lab.ok("create lab --level 5 --yes --chunk 4K --members a b c");
    assert_eq!(lab.state(), "resyncing", "what is on them is not in step");
    lab.ok("wait lab");
    assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0));
    lab.refuses("create lab --level 1 --disks 2", 3, "lab is a lab already");

    let sparse = Lab::create("--level 1 --disks 2 --size 64M --sparse");
    let taken = |lab: &Lab| fs::metadata(lab.file("disk-0.img")).expect("it is there").blocks() * 512;
    assert!(taken(&sparse) < 8 * MIB);
    assert!(taken(&Lab::create("--level 1 --disks 2 --size 8M")) >= 8 * MIB);

    fs::write(sparse.around().join("small"), vec![0; 4 << 20]).expect("there is room");
    sparse.refuses("add lab small", 4, "disk-2");
    assert_eq!(sparse.status()["members"].as_array().map(Vec::len), Some(2), "what was refused is not in the lab");
}

fn status_says_the_same() {
    let lab = Lab::create("--level 10 --disks 4 --chunk 64K --size 8M --name nine");
    let status = lab.status();
    for field in ["schema", "name", "uuid", "level", "layout", "chunk_bytes", "size_bytes", "state", "degraded"] {
        assert!(!status[field].is_null(), "{field} in {status:#}");
    }
    assert_eq!((&status["schema"], &status["name"]), (&"raidlab-status/v1".into(), &"nine".into()));
    assert_eq!((&status["chunk_bytes"], &status["mismatch_cnt"]), (&(64 * KIB).into(), &0.into()));
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().expect("it has fields").keys().cloned().collect()
    };
    assert_eq!(names(&status["sync"]), ["action", "eta", "percent", "rate"]);
    assert_eq!(names(&status["members"][0]), ["disk", "errors", "events", "slot", "state"]);
    lab.run("status lab --test").expect_code(0);

    lab.ok("fail lab 3");
    assert_eq!(lab.status()["degraded"], 1);
    assert!(lab.run("status lab --test").expect_code(1).text().contains("[UUU_]"));
    assert!(lab.ok("status lab --mdstat").text().contains("[4/3] [UUU_]"));
    fs::remove_file(lab.file("disk-2.img")).expect("it is there");
    let failed = lab.run("status lab --test").expect_code(2);
    assert!(failed.text().contains("FAILED") && failed.text().contains("disk-2"), "{failed}");
    lab.refuses("read lab", 2, "cannot run without slots");
    lab.run("status nowhere --test").expect_code(4);
}

fn the_terminal_is_spoken_to_as_it_wants() {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 8M --name Größe");
    lab.ok("set lab sync_speed_min=10 sync_speed_max=2000");
    lab.ok("-q fail lab 0");
    let add = lab.call("-q add lab").start();
    sleep(Duration::from_millis(800));
    add.signal(Signal::INT);
    let add = add.wait(Duration::from_secs(20)).expect_code(4);
    assert_eq!(add.stderr.lines().count(), 1, "quiet says errors only: {add}");

    assert!(!lab.ok("status lab").text().is_ascii());
    for words in ["status lab", "status lab --mdstat", "examine lab/disk-1.img", "doctor", "create --help"] {
        let ran = lab.call(words).env("LC_ALL", "C").run().expect_ok();
        assert!(ran.text().is_ascii() && ran.stderr.is_ascii(), "{ran}");
        assert!(!ran.stdout.contains(&0x1b), "{ran}");
    }
    lab.ok("set lab sync_speed_max=1000000");
    assert!(lab.ok("-v wait lab").stderr.contains("Rebuild"));

    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(lab.ok(&format!("completions {shell}")).text().contains("raidlab"));
    }
    lab.ok("man pages");
    let pages = lab.prints("pages");
    for command in ["create", "assemble", "overlay", "status", "examine", "fail", "remove", "add", "re-add", "replace"]
        .into_iter()
        .chain(["check", "repair", "wait", "set", "fault", "read", "write", "doctor", "completions", "man"])
    {
        assert!(lab.ok(&format!("{command} --help")).text().contains("Usage:"));
        assert!(pages.contains_key(&format!("raidlab-{command}.1")));
    }
}
