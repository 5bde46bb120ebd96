//! The volume under real file systems, through FUSE and the loop driver.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::support::cli::raidlab;
use crate::support::lab::{Lab, expect_same, put};
use crate::support::process::{self, Ran};
use crate::support::sample::{self, Sample};
use crate::support::story::{Story, story};
use crate::support::uml::{self, Array};

const TOOLS: &[&str] = &["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "losetup"];

pub fn trials() -> Vec<Trial> {
    vec![
        as_root("mount::a_file_system_outlives_a_disk_and_md_mounts_it_too")
            .needs(TOOLS)
            .needs(uml::TOOLS)
            .sampled_by(outlives_a_disk),
        as_root("mount::fio_finds_what_it_wrote_while_disks_leave_and_return")
            .needs(TOOLS)
            .needs(&["fio"])
            .sampled_by(fio_finds),
        as_root("mount::a_killed_server_costs_nothing_that_was_synced").needs(TOOLS).sampled_by(a_killed_server),
        as_root("mount::discards_zeroes_and_odd_sectors_arrive").needs(TOOLS).sampled_by(odd_sectors),
        as_root("mount::what_is_busy_stays_mounted_and_its_user_is_named").needs(TOOLS).told_by(what_is_busy),
        as_root("mount::what_cannot_be_mounted_is_refused_and_leaves_nothing").needs(TOOLS).told_by(refused),
        story("mount::a_file_takes_bytes_of_any_range").needs(&["fusermount3"]).sampled_by(a_file),
    ]
}

fn as_root(name: &'static str) -> Story {
    story(name).only_if(rustix::process::geteuid().is_root(), "needs root")
}

/// A lab and a directory `mnt` beside it.
fn lab_of(words: &str) -> Lab {
    let lab = Lab::create(words);
    fs::create_dir(lab.around().join("mnt")).expect("there is none");
    lab
}

fn at(lab: &Lab) -> PathBuf {
    lab.around().join("mnt")
}

/// Runs a command beside the lab.
fn sh(lab: &Lab, script: &str) -> Ran {
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(lab.around()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    process::run(&mut command, Duration::from_secs(120))
}

/// Of this lab there is no mount, loop device, socket or process.
#[track_caller]
fn nothing_is_left(lab: &Lab) {
    let around = lab.around().display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("there is one");
    assert!(!mounts.contains(&around), "{mounts}");
    let loops = sh(lab, "losetup -a");
    assert!(!loops.text().contains(&around), "{loops}");
    // A process that has let go of everything takes a moment to end.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let processes = sh(lab, "pgrep -fa 'raidlab mount' || true");
        if !processes.text().contains(&around) {
            break;
        }
        assert!(Instant::now() < deadline, "{processes}");
        sleep(Duration::from_millis(20));
    }
    for name in ["control.sock", "mount.json", "fuse"] {
        assert!(!lab.file(name).exists(), "{name} was left");
    }
}

/// The process that serves the mount.
fn server_of(lab: &Lab) -> u32 {
    let found = sh(lab, "pgrep -f \"raidlab mount $PWD/lab \"").expect_ok();
    found.text().trim().parse().expect("there is one")
}

fn kill(lab: &Lab) {
    let pid = rustix::process::Pid::from_raw(server_of(lab) as i32).expect("it is none of the kernel's");
    rustix::process::kill_process(pid, Signal::KILL).expect("it is ours");
    let deadline = Instant::now() + Duration::from_secs(10);
    while raidlab(lab.around(), ["stop", "lab"]).run().code != Some(0) {
        assert!(Instant::now() < deadline, "it does not end");
        sleep(Duration::from_millis(10));
    }
}

const TREE: &str = "cd mnt && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum | md5sum | cut -d' ' -f1";

fn outlives_a_disk(mut sample: Sample) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let cases = [
        ("ext4", "e2fsck -fn", "--level 5 --disks 4 --spares 1 --chunk 64K --size 40M"),
        ("xfs", "xfs_repair -n", "--level 6 --disks 5 --spares 1 --chunk 64K --size 120M --sparse"),
        ("btrfs", "btrfs check --readonly", "--level 10 --disks 4 --spares 1 --chunk 64K --size 70M"),
    ];
    let mut arrays = Vec::new();
    let mut labs = Vec::new();
    for (file_system, fsck, shape) in sample.some(1, cases.to_vec()) {
        let lab = lab_of(shape);
        let told = lab.ok(&format!("mount lab mnt --mkfs {file_system}"));
        assert_eq!(Path::new(told.text().trim()), at(&lab).canonicalize().expect("it is there"));
        let copy = format!("cp -r {} mnt/first && diff -r {0} mnt/first", sources.display());
        sh(&lab, &copy).expect_ok();
        lab.ok("fail lab 1 --no-wait");
        sh(&lab, &copy.replace("first", "second")).expect_ok();
        lab.ok("wait lab");
        assert_eq!(lab.member("disk-1")["state"], "faulty");
        sh(&lab, &copy.replace("first", "third")).expect_ok();
        let tree = sh(&lab, TREE).expect_ok().text().trim().to_owned();
        lab.ok("umount mnt");
        nothing_is_left(&lab);
        lab.ok("umount mnt");
        lab.ok("cleanup");

        // What fsck says of the bytes, wherever they are.
        fs::write(lab.around().join("volume"), lab.read()).expect("there is room");
        sh(&lab, &format!("{fsck} volume")).expect_ok();
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{shape}");
        let members = lab.status()["members"].as_array().expect("they are a list").clone();
        let mut slots: Vec<(u64, String)> = members
            .iter()
            .filter_map(|member| Some((member["slot"].as_u64()?, member["disk"].as_str()?.to_owned())))
            .collect();
        slots.sort();
        let images: Vec<PathBuf> = slots.iter().map(|(_, disk)| lab.file(&format!("{disk}.img"))).collect();
        arrays.push((Array::assemble(file_system, &images, &[]).tree(file_system).check(), tree));
        labs.push(lab);
    }
    let verdicts = uml::run_arrays(&arrays.iter().map(|(array, _)| array.clone()).collect::<Vec<_>>());
    for (verdict, (_, tree)) in verdicts.iter().zip(&arrays) {
        verdict.expect_clean().expect_md5(tree);
    }
}

fn fio_finds(mut sample: Sample) {
    let shapes = [
        "--level 5 --disks 4 --chunk 64K --size 40M --bitmap internal",
        "--level 6 --disks 5 --chunk 16K --size 40M",
        "--level 1 --disks 3 --size 100M --bitmap internal",
        "--level 10 --disks 4 --chunk 64K --size 60M --backend uring",
    ];
    let seconds = sample::count(6, 120);
    for shape in sample.some(1, shapes.to_vec()) {
        let lab = lab_of(shape);
        lab.ok("set lab sync_speed_min=100000");
        lab.ok("mount lab mnt --mkfs ext4");
        let job = format!(
            "fio --name=t --directory=mnt --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16 --size=60M \
             --verify=crc32c --verify_fatal=1 --loops=1000 --time_based --runtime={seconds} --fsync=100 --randseed={} \
             --output=fio.txt",
            sample.seed() >> 32
        );
        let mut command = Command::new("bash");
        let fio = process::start(command.args(["-c", &job]).current_dir(lab.around()));
        let until = Instant::now() + Duration::from_secs(seconds as u64);
        while Instant::now() < until {
            let disk = sample.below(3);
            lab.ok(&format!("fail lab {disk}"));
            sleep(Duration::from_millis(sample.below(300)));
            lab.ok(&format!("remove lab {disk}"));
            lab.ok(&format!("add lab {disk}"));
            lab.ok("wait lab");
        }
        let fio = fio.wait(Duration::from_secs(120));
        let told = fs::read_to_string(lab.around().join("fio.txt")).unwrap_or_default();
        assert_eq!(fio.code, Some(0), "{shape}: {fio}\n{told}");
        lab.ok("umount mnt");
        nothing_is_left(&lab);
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{shape}");
    }
}

fn a_killed_server(mut sample: Sample) {
    let lab = lab_of("--level 5 --disks 3 --chunk 64K --size 40M --bitmap internal");
    lab.ok("mount lab mnt --mkfs ext4");
    let mut synced: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..sample::count(3, 20) {
        let load = "i=0; while :; do dd if=/dev/urandom of=mnt/load-$i bs=64k count=8 2> /dev/null || exit; i=$(((i+1)%40)); done";
        let load = process::start(Command::new("bash").args(["-c", load]).current_dir(lab.around()));
        let name = format!("synced-{round}");
        let bytes = sample.bytes(100_000);
        let mut file = File::create(at(&lab).join(&name)).expect("it is mounted");
        file.write_all(&bytes).and_then(|()| file.sync_all()).expect("there is room");
        drop(file);
        synced.push((name, bytes));
        sleep(Duration::from_millis(sample.below(300)));
        kill(&lab);
        load.kill();
        lab.ok("cleanup");
        nothing_is_left(&lab);
        // ext4's journal makes it whole.
        lab.ok("mount lab mnt");
        for (name, bytes) in &synced {
            expect_same(&fs::read(at(&lab).join(name)).expect("it was synced"), bytes);
        }
    }
    lab.ok("umount mnt");
    nothing_is_left(&lab);
    fs::write(lab.around().join("volume"), lab.read()).expect("there is room");
    sh(&lab, "e2fsck -fn volume").expect_ok();
    assert_eq!(lab.mismatches(), 0);

    // Degraded and dirty, it is not for the program to decide.
    lab.ok("mount lab mnt");
    lab.ok("fail lab 0");
    fs::write(at(&lab).join("dirty"), sample.bytes(1 << 20)).expect("there is room");
    sh(&lab, "sync -f mnt");
    fs::write(at(&lab).join("dirty"), sample.bytes(1 << 20)).expect("there is room");
    sh(&lab, "sync -f mnt & sleep 0.02; pkill -9 -f \"raidlab mount $PWD/lab \"; true");
    lab.ok("cleanup");
    nothing_is_left(&lab);
    let again = lab.run("mount lab mnt");
    if again.code == Some(0) {
        // It had come to rest in time.
        lab.ok("umount mnt");
    } else {
        assert!(again.code == Some(4) && again.stderr.contains("lab --force`"), "{again}");
        lab.ok("assemble lab --force");
        lab.ok("mount lab mnt");
        lab.ok("umount mnt");
    }
    nothing_is_left(&lab);
}

fn odd_sectors(mut sample: Sample) {
    let lab = lab_of("--level 5 --disks 3 --chunk 64K --size 24M");
    let bytes = sample.bytes(8192);
    lab.ok("mount lab mnt --file-only");
    let volume = at(&lab).join("volume");
    sh(&lab, "losetup --direct-io=on --sector-size 512 -f --show mnt/volume > dev").expect_ok();
    let dev = fs::read_to_string(lab.around().join("dev")).expect("it was told").trim().to_owned();
    let block = OpenOptions::new().read(true).write(true).open(&dev).expect("it is ours");
    block.write_all_at(&bytes, 512).and_then(|()| block.sync_all()).expect("there is room");
    let whole = || {
        let mut found = vec![0; 65536];
        File::open(&volume).and_then(|file| file.read_exact_at(&mut found, 0)).expect("it is there");
        found
    };
    let mut model = whole();
    expect_same(&model[512..512 + 8192], &bytes);
    sh(&lab, &format!("blkdiscard -o 1024 -l 2048 {dev}")).expect_ok();
    put(&mut model, 1024, &[0; 2048]);
    sh(&lab, &format!("blkdiscard -z -o 4096 -l 512 {dev}")).expect_ok();
    put(&mut model, 4096, &[0; 512]);
    expect_same(&whole(), &model);
    drop(block);
    sh(&lab, &format!("losetup -d {dev}")).expect_ok();
    sh(&lab, "fallocate -p -o 100 -l 1000 mnt/volume && fallocate -z -n -o 7001 -l 999 mnt/volume").expect_ok();
    put(&mut model, 100, &[0; 1000]);
    put(&mut model, 7001, &[0; 999]);
    expect_same(&whole(), &model);
    lab.ok("umount mnt");
    nothing_is_left(&lab);
    expect_same(&lab.read()[..65536], &model);
}

fn what_is_busy() {
    let lab = lab_of("--level 1 --disks 2 --size 24M");
    lab.ok("mount lab mnt --mkfs ext4");
    let user = process::start(Command::new("sleep").arg("60").current_dir(at(&lab)));
    lab.refuses("umount mnt", 4, &format!("sleep ({})", user.id()));
    lab.refuses("stop lab", 4, "it stays mounted");
    lab.refuses("cleanup lab", 0, "is in use");
    fs::write(at(&lab).join("still"), "there").expect("it is mounted");
    lab.refuses("mount lab mnt", 3, "is mounted at");
    user.kill();
    // Anybody may unmount it; the rest follows.
    sh(&lab, "umount mnt").expect_ok();
    let deadline = Instant::now() + Duration::from_secs(10);
    while lab.file("mount.json").exists() || lab.file("control.sock").exists() {
        assert!(Instant::now() < deadline, "it goes on");
        sleep(Duration::from_millis(10));
    }
    lab.ok("stop lab");
    nothing_is_left(&lab);

    // Ctrl-C in the foreground.
    let foreground = lab.call("mount lab mnt --foreground").start();
    while foreground.stdout().is_empty() {
        assert!(Instant::now() < deadline + Duration::from_secs(10), "{}", foreground.kill());
        sleep(Duration::from_millis(5));
    }
    assert_eq!(fs::read_to_string(at(&lab).join("still")).expect("it was written"), "there");
    foreground.signal(Signal::INT);
    foreground.wait(Duration::from_secs(20)).expect_ok();
    nothing_is_left(&lab);
}

fn refused() {
    let lab = lab_of("--level 1 --disks 2 --size 24M");
    fs::write(lab.around().join("file"), "").expect("there is room");
    fs::create_dir(lab.around().join("full")).and_then(|()| fs::write(lab.around().join("full/x"), "")).expect("ours");
    for (words, code, phrase) in [
        ("mount lab nowhere", 4, "`mkdir nowhere` first"),
        ("mount lab file", 3, "is no directory"),
        ("mount lab full", 3, "is not empty"),
        ("mount lab lab", 3, "is in the lab"),
        ("mount lab /proc", 3, "is mounted at /proc already"),
        ("mount lab mnt --mkfs ntfs", 3, "ext4"),
        ("mount lab mnt --yes", 3, "--mkfs"),
        ("mount lab mnt", 4, "--mkfs ext4 makes a file system on it"),
        // Smaller than xfs may be.
        ("mount lab mnt --mkfs xfs", 4, "larger than 300MB"),
    ] {
        lab.refuses(words, code, phrase);
        nothing_is_left(&lab);
    }
    let plan = lab.ok("mount lab mnt --mkfs ext4 --dry-run");
    assert!(plan.text().contains("losetup") && plan.text().contains("mkfs.ext4"), "{plan}");
    nothing_is_left(&lab);
    assert!(lab.read().iter().all(|byte| *byte == 0), "nothing was written");
    lab.ok("mount lab mnt --mkfs ext4");
    lab.ok("umount mnt");
    lab.refuses("mount lab mnt --mkfs btrfs", 3, "is not blank");
    lab.ok("mount lab mnt");
    lab.ok("umount lab");
    nothing_is_left(&lab);
    lab.ok("umount nowhere");
}

fn a_file(mut sample: Sample) {
    let lab = lab_of("--level 5 --disks 3 --chunk 64K --size 16M");
    let hook = lab.around().join("hook");
    fs::write(&hook, "#!/bin/sh\necho \"$*\" >> called\n").expect("it can be written");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let told = lab.ok("mount lab mnt --file-only --hook ./hook");
    let path = PathBuf::from(told.text().trim());
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("it is ours");
    let mut model = vec![0; lab.size() as usize];
    assert_eq!(file.metadata().expect("it is there").len(), model.len() as u64);
    for _ in 0..200 {
        let offset = sample.below(model.len() as u64 - 1);
        let length = (1 + sample.below(70_000) as usize).min(model.len() - offset as usize);
        let bytes = sample.bytes(length);
        file.write_all_at(&bytes, offset).expect("it takes any range");
        put(&mut model, offset, &bytes);
        let from = sample.below(model.len() as u64 - 1);
        let mut found = vec![0; (1 + sample.below(70_000) as usize).min(model.len() - from as usize)];
        file.read_exact_at(&mut found, from).expect("it gives any range");
        expect_same(&found, &model[from as usize..][..found.len()]);
    }
    // Several at a time, in the same blocks.
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let file = &file;
            scope.spawn(move || {
                for at in 0..2000 {
                    file.write_all_at(&[thread + 1], at * 4 + u64::from(thread)).expect("it takes any range");
                }
            });
        }
    });
    model[..8000].iter_mut().zip((1..=4).cycle()).for_each(|(byte, thread)| *byte = thread);
    file.sync_all().expect("it can be flushed");
    assert!(file.write_all_at(b"x", model.len() as u64).is_err(), "it does not grow");
    drop(file);
    lab.ok("umount mnt");
    assert!(!path.exists() && !lab.file("mount.json").exists());
    let called = fs::read_to_string(lab.around().join("called")).expect("it was called");
    let named = |event: &str| called.lines().any(|line| line.starts_with(event) && line.ends_with("/lab"));
    assert!(named("NewArray ") && named("DeviceDisappeared "), "{called}");
    expect_same(&lab.read(), &model);
    assert_eq!(lab.mismatches(), 0);
}
