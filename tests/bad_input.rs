//! What the outside world gets wrong: a clear message, the right exit code, and nothing written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::lab::{Lab, expect_same};
use crate::support::process::{self, Ran};
use crate::support::sample::{self, Sample};
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("bad_input::a_shape_that_cannot_be_is_refused_and_nothing_is_made").told_by(a_shape_that_cannot_be),
        story("bad_input::images_that_make_no_array_are_refused_and_stay_as_they_are")
            .sampled_by(images_that_make_no_array),
        story("bad_input::any_field_of_a_superblock_may_hold_garbage")
            .sampled_by(any_field_of_a_superblock_may_hold_garbage),
        story("bad_input::a_bitmap_or_bad_block_log_may_hold_garbage").sampled_by(a_log_may_hold_garbage),
        story("bad_input::a_lab_file_that_is_wrong_is_quoted").told_by(a_lab_file_that_is_wrong_is_quoted),
        story("bad_input::words_that_are_wrong_are_answered_with_those_that_are_right").told_by(words_that_are_wrong),
        story("bad_input::what_may_not_be_written_is_named_and_left_alone").told_by(what_may_not_be_written),
        story("bad_input::a_full_file_system_is_an_error_and_no_crash")
            .only_if(on_small_file_system("true").is_some(), "needs root, to mount a small file system")
            .told_by(a_full_file_system),
    ]
}

fn a_shape_that_cannot_be() {
    let lab = Lab::nowhere();
    let table = [
        ("--disks 3", "--level"),
        ("--level 7 --disks 3", "no RAID level is called \"7\""),
        ("--level 5", "say how many disks"),
        ("--level 5 --disks x", "invalid digit"),
        ("--level 5 --disks -1", "-1"),
        ("--level 0 --disks 1", "raid0 takes 2 disks or more"),
        ("--level 1 --disks 1", "raid1 takes 2 disks or more"),
        ("--level 4 --disks 2", "raid4 takes 3 disks or more"),
        ("--level 5 --disks 2", "raid5 takes 3 disks or more, not 2: give --disks 3"),
        ("--level 6 --disks 3", "raid6 takes 4 disks or more"),
        ("--level 10 --disks 1", "raid10 takes 2 disks or more"),
        ("--level 5 --disks 65", "at most 64"),
        ("--level 1 --disks 18446744073709551615 --spares 3", "at most 64"),
        ("--level 1 --disks 2 --spares 18446744073709551615", "at most 64"),
        ("--level 0 --disks 2 --spares 1", "raid0 has no redundancy"),
        ("--level 0 --disks 2 --bitmap internal", "raid0 has no redundancy"),
        ("--level 5 --disks 3 --bitmap external", "internal, none"),
        ("--level 5 --disks 3 --layout n2", "no layout \"n2\"; use one of left-asymmetric"),
        ("--level 10 --disks 2 --layout f3", "f3 keeps 3 copies"),
        ("--level 6 --disks 4 --layout ddf", "no layout \"ddf\""),
        ("--level 1 --disks 2 --layout ls", "layout"),
        ("--level 5 --disks 3 --chunk 2K", "not a power of two from 4K to 4M"),
        ("--level 5 --disks 3 --chunk 5K", "a chunk of 5K is not a power of two from 4K to 4M"),
        ("--level 5 --disks 3 --chunk 8M", "not a power of two from 4K to 4M"),
        ("--level 5 --disks 3 --chunk 0", "not a power of two from 4K to 4M"),
        ("--level 5 --disks 3 --chunk 64Q", "is not a unit"),
        ("--level 5 --disks 3 --size 1000001", "is not a multiple of 512 bytes: give --size 999936"),
        ("--level 5 --disks 3 --size 0", "too small"),
        ("--level 5 --disks 3 --size 1M", "too small: 1048576 bytes"),
        ("--level 5 --disks 3 --size 2M --chunk 4M", "give a larger --size"),
        ("--level 5 --disks 3 --size 99999P", "too large"),
        ("--level 5 --disks 3 --name 0123456789012345678901234567890123", "longer than the 32 bytes"),
        ("--level 5 --disks 3 --backend floppy", "mmap, file, uring"),
        ("--level 5 --disks 3 --chunks 4K", "unexpected argument '--chunks'"),
    ];
    for (arguments, phrase) in table {
        lab.refuses(&format!("create lab {arguments}"), 3, phrase);
        assert_eq!(fs::read_dir(lab.around()).expect("it is there").count(), 0, "{arguments}");
    }
    lab.refuses("create not/there --level 1 --disks 2 --size 8M", 4, "make not first");
    lab.refuses("create lab --level 1 --disks 2 --size 300T", 4, "--sparse");
    assert_eq!(fs::read_dir(lab.around()).expect("it is there").count(), 0);

    fs::create_dir(lab.around().join("lab")).expect("there is none");
    fs::write(lab.file("disk-1.img"), b"mine").expect("there is room");
    lab.refuses("create lab --level 1 --disks 2 --size 8M", 3, "lab/disk-1.img exists already");
    assert_eq!((lab.names(), fs::read(lab.file("disk-1.img")).ok()), (vec!["disk-1.img".into()], Some(b"mine".into())));
}

fn images_that_make_no_array(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 4 --chunk 64K --size 8M");
    let bytes = sample.bytes(lab.size() as usize);
    lab.write(0, &bytes);
    lab.move_images("i");
    lab.ok("create lab --level 5 --disks 4 --chunk 64K --size 8M");
    lab.move_images("j");
    let at = |name: &str| lab.around().join("i").join(name);
    let image = fs::read(at("disk-1.img")).expect("it is there");
    fs::copy(at("disk-1.img"), at("copy")).expect("there is room");
    fs::write(at("short"), &image[..3 << 20]).expect("there is room");
    fs::write(at("stub"), &image[..5000]).expect("there is room");
    fs::write(at("noise"), sample.bytes(8 << 20)).expect("there is room");
    fs::write(at("empty"), b"").expect("there is room");
    let mut old = image.clone();
    old[4096] ^= 1;
    fs::write(at("magicless"), &old).expect("there is room");
    let mut damaged = image.clone();
    damaged[4096 + 200] ^= 1;
    fs::write(at("damaged"), &damaged).expect("there is room");
    fs::create_dir(at("directory")).expect("there is none");
    let (i, j) = (lab.prints("i"), lab.prints("j"));

    let three = "i/disk-0.img i/disk-2.img i/disk-3.img";
    let table = [
        (format!("{three} j/disk-1.img"), 4, "j/disk-1.img belongs to another array"),
        (format!("{three} i/disk-1.img i/copy"), 4, "are the same member"),
        (format!("{three} i/disk-0.img"), 3, "i/disk-0.img is named twice"),
        (format!("{three} i/short"), 4, "i/short"),
        (format!("{three} i/stub"), 4, "i/stub"),
        (format!("{three} i/noise"), 4, "i/noise: no md superblock"),
        (format!("{three} i/empty"), 4, "i/empty"),
        (format!("{three} i/magicless"), 4, "i/magicless: no md superblock"),
        (format!("{three} i/damaged"), 4, "checksum"),
        (format!("{three} i/directory"), 4, "i/directory"),
        (format!("{three} i/nothing"), 4, "cannot use i/nothing"),
        (format!("{three} /dev/null"), 4, "/dev/null"),
        (String::from("i/disk-0.img i/disk-2.img"), 2, "2 of 4 members are usable"),
        (String::new(), 3, "name the members"),
    ];
    for (images, code, phrase) in &table {
        for how in ["", " --overlay", " --force"] {
            lab.refuses(&format!("assemble lab {images}{how}"), *code, phrase);
            assert!(!lab.around().join("lab").exists(), "{images}{how}");
        }
    }
    assert_eq!((lab.prints("i"), lab.prints("j")), (i, j), "what is refused stays as it is");

    for (image, phrase) in [("i/noise", "no md superblock"), ("i/nothing", "No such file"), ("i/damaged", "checksum")] {
        lab.refuses(&format!("examine {image}"), 4, phrase);
    }
    lab.ok(&format!("assemble lab {three}"));
    assert_eq!(lab.state(), "degraded");
    expect_same(&lab.read(), &bytes);
}

/// Name, place and length of every field of a 1.x superblock.
const FIELDS: [(&str, usize, usize); 34] = [
    ("magic", 0, 4),
    ("major version", 4, 4),
    ("feature map", 8, 4),
    ("set uuid", 16, 16),
    ("set name", 32, 32),
    ("ctime", 64, 8),
    ("level", 72, 4),
    ("layout", 76, 4),
    ("size", 80, 8),
    ("chunk size", 88, 4),
    ("raid disks", 92, 4),
    ("bitmap offset", 96, 4),
    ("new level", 100, 4),
    ("reshape position", 104, 8),
    ("delta disks", 112, 4),
    ("new layout", 116, 4),
    ("new chunk", 120, 4),
    ("new offset", 124, 4),
    ("data offset", 128, 8),
    ("data size", 136, 8),
    ("super offset", 144, 8),
    ("recovery offset", 152, 8),
    ("device number", 160, 4),
    ("corrected reads", 164, 4),
    ("device uuid", 168, 16),
    ("device flags", 184, 1),
    ("bad block shift", 185, 1),
    ("bad block size", 186, 2),
    ("bad block offset", 188, 4),
    ("utime", 192, 8),
    ("events", 200, 8),
    ("resync offset", 208, 8),
    ("max dev", 220, 4),
    ("roles", 256, 16),
];

const SHAPES: [&str; 4] = [
    "--level 5 --disks 4 --chunk 64K --size 4M --bitmap internal",
    "--level 1 --disks 2 --size 4M",
    "--level 10 --disks 3 --chunk 4K --size 4M --layout o2 --bitmap internal",
    "--level 0 --disks 2 --chunk 64K --size 4M",
];

const SUPERBLOCK: usize = 4096;

/// md's checksum: the words of the superblock added up, and the carries added to the sum.
fn seal(superblock: &mut [u8]) {
    superblock[216..220].fill(0);
    let word = |at: usize| u32::from_le_bytes(superblock[at..at + 4].try_into().expect("four bytes"));
    let length = 256 + 2 * (word(220) as usize).min(1920);
    let mut sum: u64 = (0..length / 4).map(|at| u64::from(word(at * 4))).sum();
    if length % 4 == 2 {
        sum += u64::from(u16::from_le_bytes([superblock[length - 2], superblock[length - 1]]));
    }
    let checksum = (sum as u32).wrapping_add((sum >> 32) as u32);
    superblock[216..220].copy_from_slice(&checksum.to_le_bytes());
}

fn garbage(sample: &mut Sample, old: &[u8]) -> Vec<u8> {
    let length = old.len();
    let number = |number: u64| -> Vec<u8> {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(length.max(8), 0);
        bytes.truncate(length);
        bytes
    };
    let low = u64::from(old[0]);
    match sample.below(8) {
        0 => vec![0; length],
        1 => vec![0xff; length],
        2 => number(low + 1),
        3 => number(low.wrapping_sub(1)),
        4 => number(1 << sample.below(64)),
        5 => number(sample.below(300)),
        6 => {
            let mut bytes = old.to_vec();
            bytes[sample.below(length as u64) as usize] ^= 1 << sample.below(8);
            bytes
        }
        _ => sample.bytes(length),
    }
}

/// Whatever it makes of them, it says so in its own words, and what it refuses it leaves alone.
fn expect_sane(lab: &Lab, images: &[String], what: &str) {
    let in_its_own_words = |ran: &Ran| {
        assert!(ran.signal.is_none() && ran.code.is_some_and(|code| code <= 4), "{what}: {ran}");
        assert!(ran.code == Some(0) || !ran.stderr.is_empty() || !ran.stdout.is_empty(), "{what}: {ran}");
    };
    let names = images.join(" ");
    in_its_own_words(&lab.run(&format!("examine {names}")));
    let before = lab.prints("i");
    for how in ["--overlay", ""] {
        let assembled = lab.run(&format!("assemble lab {names} {how}"));
        in_its_own_words(&assembled);
        if assembled.code == Some(0) {
            for words in ["status lab", "read lab", "check lab", "wait lab"] {
                in_its_own_words(&lab.run(words));
            }
            fs::remove_dir_all(lab.around().join("lab")).expect("it is there");
        }
        if !how.is_empty() || assembled.code != Some(0) {
            assert_eq!(lab.prints("i"), before, "{what}: {assembled}");
            assert!(!lab.around().join("lab").exists(), "{what}: {assembled}");
        }
    }
}

fn any_field_of_a_superblock_may_hold_garbage(mut sample: Sample) {
    for shape in sample.some(2, SHAPES.to_vec()) {
        let lab = Lab::create(shape);
        lab.write(0, &sample.bytes(1 << 20));
        let images = lab.move_images("i");
        let read = |image: &String| fs::read(lab.around().join(image)).expect("it is there");
        let pristine: Vec<Vec<u8>> = images.iter().map(read).collect();
        for case in 0..sample::count(14, 150) {
            let in_all = sample.below(3) == 0;
            let mut what = format!("{shape}, case {case}, in all: {in_all}");
            let victim = sample.below(images.len() as u64) as usize;
            let mut changes = Vec::new();
            for _ in 0..1 + sample.below(2) {
                let (name, at, length) = *sample.one(&FIELDS);
                let new = garbage(&mut sample, &pristine[victim][SUPERBLOCK + at..][..length]);
                what += &format!(", {name} = {new:02x?}");
                changes.push((at, new));
            }
            for (number, (image, pristine)) in images.iter().zip(&pristine).enumerate() {
                let mut bytes = pristine.clone();
                if in_all || number == victim {
                    for (at, new) in &changes {
                        bytes[SUPERBLOCK + at..][..new.len()].copy_from_slice(new);
                    }
                    seal(&mut bytes[SUPERBLOCK..]);
                }
                fs::write(lab.around().join(image), bytes).expect("there is room");
            }
            expect_sane(&lab, &images, &what);
        }
    }
}

/// The bitmap and the bad-block log have no checksum at all.
fn a_log_may_hold_garbage(mut sample: Sample) {
    let lab = Lab::create(SHAPES[0]);
    lab.write(0, &sample.bytes(1 << 20));
    let images = lab.move_images("i");
    let read = |image: &String| fs::read(lab.around().join(image)).expect("it is there");
    let pristine: Vec<Vec<u8>> = images.iter().map(read).collect();
    for case in 0..sample::count(12, 300) {
        let mut what = format!("case {case}");
        for (image, pristine) in images.iter().zip(&pristine) {
            let mut bytes = pristine.clone();
            let word = |at: usize| u32::from_le_bytes(pristine[SUPERBLOCK + at..][..4].try_into().expect("four bytes"));
            let log = SUPERBLOCK + 512 * *sample.one(&[word(96), word(188)]) as usize;
            let length = sample.one(&[4, 8, 64]);
            let at = log + sample.below(16) as usize * 4;
            let new = garbage(&mut sample, &pristine[at..][..*length]);
            what += &format!(", {image} at {at}: {new:02x?}");
            bytes[at..][..new.len()].copy_from_slice(&new);
            fs::write(lab.around().join(image), bytes).expect("there is room");
        }
        expect_sane(&lab, &images, &what);
    }
}

fn a_lab_file_that_is_wrong_is_quoted() {
    let lab = Lab::create("--level 1 --disks 2 --size 8M");
    let good = fs::read_to_string(lab.file("lab.toml")).expect("it is text");
    let table = [
        (String::from("version = "), 4, "lab/lab.toml"),
        (good.replace("speed_max", "speed_most"), 4, "speed_most"),
        (good.replace("version = 1", "version = 2"), 4, "version 2, this program reads 1"),
        (good.replace("\"mmap\"", "\"floppy\""), 4, "floppy"),
        (good.replace(".img", ".gone"), 4, "disk-0: cannot open"),
        (String::from("version = 1\n"), 4, "no disk of lab can be used"),
        (format!("{good}\n[[fault]]\ndisk = \"disk-0\"\nkind = \"gremlin\"\n"), 4, "gremlin"),
    ];
    let prints = lab.prints("lab");
    for (text, code, phrase) in table {
        fs::write(lab.file("lab.toml"), &text).expect("there is room");
        lab.refuses("read lab", code, phrase);
        let status = lab.run("status lab");
        assert!(matches!(status.code, Some(2 | 4)), "{text}\n{status}");
    }
    fs::write(lab.file("lab.toml"), &good).expect("there is room");
    assert_eq!(lab.prints("lab"), prints);
    fs::write(lab.around().join("file"), b"").expect("there is room");
    for no_lab in ["nowhere", "file", "."] {
        for words in ["status", "read", "check", "wait", "overlay status", "repair"] {
            lab.refuses(&format!("{words} {no_lab}"), 4, "is not a lab");
        }
    }
}

fn words_that_are_wrong() {
    let lab = Lab::create("--level 5 --disks 3 --size 8M --chunk 64K");
    let prints = lab.prints("lab");
    let table = [
        ("", 3, "Usage"),
        ("destroy lab", 3, "destroy"),
        ("fail lab", 3, "<DISK>"),
        ("fail lab 7", 3, "the lab has no disk-7: it has disk-0, disk-1, disk-2"),
        ("remove lab 7", 3, "the lab has no disk-7"),
        ("remove lab 1", 4, "fail it first"),
        ("add lab 1", 4, "a member of this array already"),
        ("add lab nothing.img", 4, "cannot use nothing.img"),
        ("re-add lab 1", 4, "a member of this array already"),
        ("replace lab 1", 4, "there is no spare"),
        ("replace lab 1 --with 2", 4, "disk-"),
        ("check lab --range 5..4", 3, "empty"),
        ("check lab --range 1T..2T", 3, "beyond the end"),
        ("check lab --cancel", 3, "nothing to cancel"),
        ("set lab sync_speed_max", 3, "KEY=VALUE"),
        ("set lab sync_speed_max=fast", 3, "is not a speed"),
        ("set lab sync_speed_max=1", 3, "set both"),
        ("set lab colour=1", 3, "there are sync_speed_min, sync_speed_max"),
        ("fault lab 1 add gremlin", 3, "the kinds are: latency"),
        ("fault lab 9 add medium", 3, "the lab has no disk-9"),
        ("fault lab 1 add medium --range 1..2", 3, "multiples of 512"),
        ("fault lab 1 add medium --range 4M..9M", 3, "the device at byte 8388608"),
        ("fault lab 1 remove medium", 3, "raidlab fault LAB DISK add KIND"),
        ("read lab --offset x", 3, "type something like 64K"),
        ("overlay status lab", 3, "no overlays"),
        ("overlay burn lab", 3, "status, commit, discard"),
        ("assemble lab lab/disk-0.img", 3, "lab is a lab already"),
        ("status lab --json --mdstat", 3, "cannot be used with"),
        ("completions tcl", 3, "bash"),
        ("man /proc/nowhere", 4, "cannot write to /proc/nowhere"),
    ];
    for (words, code, phrase) in table {
        let ran = lab.refuses(words, code, phrase);
        assert!(ran.stdout.is_empty(), "errors go to standard error: {ran}");
    }
    assert_eq!(lab.prints("lab"), prints);
}

/// The program as a user without rights: another one where the stories are told by root.
fn powerless(at: &Path, program: &Path, words: &str) -> Ran {
    let mut command = if rustix::process::getuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.args(words.split_whitespace()).current_dir(at).env("LC_ALL", "C.UTF-8");
    process::run(&mut command, Duration::from_secs(60))
}

fn what_may_not_be_written() {
    let lab = Lab::create("--level 5 --disks 3 --size 8M --chunk 64K");
    let program = lab.around().join("raidlab");
    fs::copy(env!("CARGO_BIN_EXE_raidlab"), &program).expect("there is room");
    let allow = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    let images: Vec<_> = (0..3).map(|disk| lab.file(&format!("disk-{disk}.img"))).collect();
    for path in images.iter().chain([&lab.file("lab.toml")]) {
        allow(path, 0o444);
    }
    allow(&lab.around().join("lab"), 0o555);
    allow(lab.around(), 0o555);
    let prints = lab.prints("lab");

    let table = [
        ("create new --level 1 --disks 2 --size 8M", "cannot make new: Permission denied"),
        ("read lab", "disk-0: cannot open lab/disk-0.img: Permission denied"),
        ("write lab", "Permission denied"),
        ("check lab", "Permission denied"),
        ("fail lab 1", "Permission denied"),
        ("add lab", "Permission denied"),
        ("set lab sync_speed_max=5000", "cannot write lab/lab.toml: Permission denied"),
        ("fault lab 1 add fail-stop", "cannot write lab/lab.toml: Permission denied"),
        ("assemble new lab/disk-0.img lab/disk-1.img lab/disk-2.img", "cannot make new: Permission denied"),
        ("man pages", "cannot write to pages: Permission denied"),
    ];
    for (words, phrase) in table {
        let ran = powerless(lab.around(), &program, words).expect_code(4);
        assert!(ran.stderr.contains(phrase), "{phrase:?} was expected of {ran}");
    }
    let status = powerless(lab.around(), &program, "status lab").expect_ok();
    assert!(status.text().contains("clean"), "{status}");
    powerless(lab.around(), &program, "examine lab/disk-0.img").expect_ok();

    // One disk that may not be written is not one disk less.
    for path in &images[1..] {
        allow(path, 0o666);
    }
    let ran = powerless(lab.around(), &program, "fail lab 1").expect_code(4);
    assert!(ran.stderr.contains("disk-0") && ran.stderr.contains("--overlay"), "{ran}");
    assert_eq!(lab.prints("lab"), prints);

    // Originals need not be written: what changes is kept elsewhere.
    allow(lab.around(), 0o777);
    powerless(lab.around(), &program, "assemble new lab/disk-0.img lab/disk-1.img lab/disk-2.img --overlay")
        .expect_ok();
    powerless(lab.around(), &program, "fail new 1").expect_ok();
    assert_eq!(lab.prints("lab"), prints);
    allow(&lab.around().join("lab"), 0o755);
}

/// A small file system of the story's own, in a mount namespace of its own: nothing is left of it.
fn on_small_file_system(script: &str) -> Option<Ran> {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let mut command = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = format!("mount -t tmpfs -o size=20m tmpfs . && cd \"$PWD\" || exit 77\n{script}");
    command.args(["--mount", "bash", "-c", &script]).current_dir(directory.path());
    command.env("R", env!("CARGO_BIN_EXE_raidlab")).env("LC_ALL", "C.UTF-8");
    let ran = process::run(&mut command, Duration::from_secs(60));
    let is_refused = ran.code == Some(77) || ran.stderr.contains("unshare");
    (!is_refused).then_some(ran)
}

fn a_full_file_system() {
    let made = on_small_file_system(
        "$R create lab --level 5 --disks 3 --size 8M --chunk 64K; echo $?; ls -A
         $R create lab --level 1 --disks 2 --size 8M; $R add lab; echo $?; ls -A lab; $R status lab --test > /dev/null; echo $?",
    )
    .expect("one could be mounted before");
    let lines: Vec<&str> = made.text().lines().collect();
    assert!(made.stderr.contains("no space for lab/disk-2.img") && made.stderr.contains("--size"), "{made}");
    assert_eq!(lines[0], "4", "{made}");
    assert!(lines[1].starts_with("lab: raid1"), "nothing was left behind: {made}");
    assert_eq!(lines[2..], ["4", "disk-0.img", "disk-1.img", "lab.toml", "0"], "{made}");

    for backend in ["mmap", "file", "uring"] {
        let ran = on_small_file_system(&format!(
            "$R create lab --level 5 --disks 3 --size 16M --chunk 64K --sparse --backend {backend}
             head -c 29M /dev/urandom | $R write lab; echo $?; $R status lab --test > /dev/null; echo $?"
        ));
        let ran = ran.expect("one could be mounted before");
        let codes: Vec<&str> = ran.text().lines().skip(1).collect();
        assert!(ran.stderr.contains("cannot write the volume at byte"), "{backend}: {ran}");
        assert_eq!(codes[0], "2", "{backend}: {ran}");
        assert!(["0", "1", "2"].contains(&codes[1]), "{backend}: {ran}");
    }
}
