//! Real Linux md does what the stories take for granted when they call it as a witness.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::fs::{FallocateFlags, fallocate};
use tempfile::TempDir;

use crate::support::sample::Sample;
use crate::support::story::story;
use crate::support::uml::{self, Array};
use crate::support::{process, tools};

pub fn trials() -> Vec<Trial> {
    vec![
        story("md::arrays_made_by_mdadm_keep_their_content_through_failure_and_recovery")
            .needs(uml::TOOLS)
            .sampled_by(arrays_made_by_mdadm_keep_their_content_through_failure_and_recovery),
        story("md::a_recovery_and_a_resync_stop_where_they_are_told_and_a_power_cut_leaves_the_array_dirty")
            .needs(uml::TOOLS)
            .sampled_by(a_recovery_and_a_resync_stop_where_they_are_told_and_a_power_cut_leaves_the_array_dirty),
        story("md::a_foreign_byte_is_a_mismatch_and_a_missing_superblock_a_problem_of_that_array_alone")
            .needs(uml::TOOLS)
            .sampled_by(a_foreign_byte_is_a_mismatch_and_a_missing_superblock_a_problem_of_that_array_alone),
        story("md::a_member_comes_back_through_the_bitmap_and_a_spare_replaces_another")
            .needs(uml::TOOLS)
            .sampled_by(a_member_comes_back_through_the_bitmap_and_a_spare_replaces_another),
        story("md::a_payload_sees_its_environment_and_its_images").needs(uml::TOOLS).told_by(a_payload_sees_its_world),
    ]
}

const MEMBER_MIB: u64 = 16;

/// Images `name-0`, `name-1`, … of 16 MiB, preallocated as ours are.
fn images(directory: &TempDir, name: &str, count: usize) -> Vec<PathBuf> {
    let paths: Vec<_> = (0..count).map(|n| directory.path().join(format!("{name}-{n}"))).collect();
    for path in &paths {
        let file = File::create(path).expect("the temporary directory takes files");
        fallocate(&file, FallocateFlags::empty(), 0, MEMBER_MIB << 20).expect("the temporary directory has room");
    }
    paths
}

/// A file of bytes longer than any array made here.
fn pattern(directory: &TempDir, sample: &mut Sample) -> PathBuf {
    let path = directory.path().join("pattern");
    std::fs::write(&path, sample.bytes(4 * MEMBER_MIB as usize * 1024 * 1024)).expect("there is room");
    path
}

fn examine(image: &PathBuf) -> String {
    let mut command = Command::new(tools::need("mdadm"));
    process::run(command.arg("--examine").arg(image), Duration::from_secs(10)).expect_ok().text().to_owned()
}

fn arrays_made_by_mdadm_keep_their_content_through_failure_and_recovery(mut sample: Sample) {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let pattern = pattern(&directory, &mut sample);
    let arguments: [(&str, usize, &[&str]); 4] = [
        ("raid0", 2, &["--level=0", "--raid-devices=2", "--chunk=64"]),
        ("raid1", 2, &["--level=1", "--raid-devices=2", "--bitmap=internal"]),
        ("raid5", 3, &["--level=5", "--raid-devices=3", "--chunk=64"]),
        ("raid10", 4, &["--level=10", "--raid-devices=4", "--layout=f2"]),
    ];
    let labs: Vec<_> = arguments.map(|(name, n, arguments)| (name, images(&directory, name, n), arguments)).into();
    let made: Vec<_> = labs
        .iter()
        .map(|(name, images, arguments)| Array::create(name, images, arguments).settle().fill(&pattern).content())
        .collect();
    let made = uml::run_arrays(&made);

    for ((name, images, _), verdict) in labs.iter().zip(&made) {
        verdict.expect_clean();
        assert_eq!(&verdict.level, name);
        for image in images {
            assert!(examine(image).contains("Checksum : ") && examine(image).contains(" - correct"));
        }
    }
    let again: Vec<_> = labs
        .iter()
        .map(|(name, images, _)| {
            let array = Array::assemble(name, images, &[]).settle().check();
            match *name {
                "raid0" => array.content(),
                _ => array.fail(1).content().remove(1).wipe(1).add(1).settle().check().content(),
            }
        })
        .collect();
    for (before, after) in made.iter().zip(uml::run_arrays(&again)) {
        after.expect_clean().expect_md5(before.md5.as_ref().expect("it was read"));
    }
    let degraded: Vec<_> =
        labs[1..].iter().map(|(name, images, _)| Array::assemble(name, &images[1..], &[]).check().content()).collect();
    for (before, after) in made[1..].iter().zip(uml::run_arrays(&degraded)) {
        after.expect_degraded(1).expect_md5(before.md5.as_ref().expect("it was read"));
    }
}

fn a_recovery_and_a_resync_stop_where_they_are_told_and_a_power_cut_leaves_the_array_dirty(mut sample: Sample) {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let pattern = pattern(&directory, &mut sample);
    let [recovering, resyncing, dirty] = ["recovering", "resyncing", "dirty"].map(|name| images(&directory, name, 3));
    let raid5 = ["--level=5", "--raid-devices=3", "--chunk=64"];
    let with_bitmap = ["--level=5", "--raid-devices=3", "--chunk=64", "--bitmap=internal"];

    let verdicts = uml::run_arrays(&[
        Array::create("dirty", &dirty, &with_bitmap).settle().stay_dirty().fill(&pattern).content(),
        Array::create("recovering", &recovering, &raid5)
            .settle()
            .fill(&pattern)
            .fail(2)
            .remove(2)
            .wipe(2)
            .add_until(2, 8192)
            .content(),
        Array::create("resyncing", &resyncing, &raid5).settle().fill(&pattern).resync_until(8192).content(),
    ]);
    verdicts[0].expect_clean();
    verdicts[1].expect_degraded(1);
    verdicts[2].expect_clean();

    let states = [&dirty[0], &recovering[2]].map(examine);
    assert!(states[0].contains("State : active"), "{}", states[0]);
    assert!(states[1].contains("Recovery Offset : 8192 sectors"), "{}", states[1]);
    let resync_offset = std::fs::read(&resyncing[0]).expect("the image is there")[4096 + 208..][..8].to_vec();
    assert_eq!(resync_offset, 8192_u64.to_le_bytes(), "mdadm --examine does not tell");
    let again = uml::run_arrays(&[
        Array::assemble("dirty", &dirty, &[]).settle().check().content(),
        Array::assemble("recovering", &recovering, &[]).settle().check().content(),
        Array::assemble("resyncing", &resyncing, &[]).settle().check().content(),
    ]);
    for (before, after) in verdicts.iter().zip(&again) {
        after.expect_clean();
        assert_eq!(before.md5, after.md5);
    }
}

/// What a witness says is worth something only if it can say no.
fn a_foreign_byte_is_a_mismatch_and_a_missing_superblock_a_problem_of_that_array_alone(mut sample: Sample) {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let [wrong, blank] = ["wrong", "blank"].map(|name| images(&directory, name, 2));
    uml::run_arrays(&[Array::create("wrong", &wrong, &["--level=1", "--raid-devices=2"]).settle()])[0].expect_clean();
    let mut bytes = std::fs::read(&wrong[1]).expect("the image is there");
    let length = bytes.len();
    bytes[length - 4096 - sample.below(1 << 20) as usize] ^= 1;
    std::fs::write(&wrong[1], bytes).expect("there is room");

    let verdicts = uml::run_arrays(&[
        Array::assemble("blank", &blank, &[]).check(),
        Array::assemble("wrong", &wrong, &["--update=name", "--name=it's \"quoted\""]).check(),
    ]);

    assert!(verdicts[0].problem.as_deref().is_some_and(|problem| problem.contains("assemble")), "{verdicts:?}");
    assert_eq!((&verdicts[1].problem, verdicts[1].mismatches), (&None, Some(128)), "{}", verdicts[1].log);
}

fn a_member_comes_back_through_the_bitmap_and_a_spare_replaces_another(mut sample: Sample) {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let pattern = pattern(&directory, &mut sample);
    let [absent, replaced] = ["absent", "replaced"].map(|name| images(&directory, name, 4));
    let raid5 = ["--level=5", "--raid-devices=3", "--bitmap=internal", "--assume-clean"];
    let raid1 = ["--level=1", "--raid-devices=3", "--spare-devices=1", "--assume-clean"];

    let verdicts = uml::run_arrays(&[
        Array::create("absent", &absent[..3], &raid5)
            .fill(&pattern)
            .fail(1)
            .remove(1)
            .fill_from(8, &pattern)
            .re_add(1)
            .settle()
            .check()
            .content(),
        Array::create("replaced", &replaced, &raid1).fill(&pattern).replace(0, 3).settle().check().content(),
    ]);

    verdicts[0].expect_clean();
    verdicts[1].expect_clean();
    assert!(examine(&replaced[3]).contains("Active device 0"));
}

fn a_payload_sees_its_world() {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let images = images(&directory, "image", 2);
    std::fs::write(&images[1], [b'x'; 4096]).expect("there is room");
    let payload =
        r#"echo "$WORDS"; head -c 3 /dev/ubdc; echo yes | dd of=/dev/ubdb conv=notrunc,fsync status=none; exit 7"#;
    let outcome = uml::run(payload, &[("WORDS", "it's \"here\"")], &images);
    assert_eq!((outcome.output.as_str(), outcome.code), ("it's \"here\"\nxxx", 7));
    assert!(std::fs::read(&images[0]).expect("the image is there").starts_with(b"yes\n"));
}
