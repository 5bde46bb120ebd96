//! Scenarios written by hand, lived by the program.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::support::cli::raidlab;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("scenarios::those_written_by_hand_pass_twice_the_same_way").told_by(those_written_by_hand_pass),
        story("scenarios::a_story_says_who_held_what").told_by(a_story_says_who_held_what),
        story("scenarios::a_file_that_is_none_is_pointed_into").told_by(a_file_that_is_none_is_pointed_into),
        story("scenarios::what_does_not_fail_is_not_shrunk").told_by(what_does_not_fail_is_not_shrunk),
    ]
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn those_written_by_hand_pass() {
    for entry in fs::read_dir(scenarios()).expect("it is there") {
        let path = entry.expect("it can be listed").path();
        let file = path.to_str().expect("its name is plain");
        let lived = || {
            let replay = ["sim", "replay", file, "--crash-points", "every", "--json"];
            let told = raidlab(&scenarios(), replay).run().expect_ok().json();
            assert_eq!((&told["schema"], &told["verdict"]), (&"raidlab-sim-replay/v1".into(), &"pass".into()));
            told["trace"].clone()
        };
        assert_eq!(lived(), lived(), "{file}");
    }
}

fn a_story_says_who_held_what() {
    let tell = ["sim", "replay", "raid5-write-hole.toml", "--explain", "--sector", "8"];
    let told = raidlab(&scenarios(), tell).run().expect_ok();
    let told = told.text();
    for words in [
        "sector 8 of the volume lies in stripe 0, row 0 of chunk D1: D0 on slot-0",
        "submitted: write 0+16, as w1",
        "step 1: stop slot-1",
        "D1 lost  P gives D1 w1",
        "disk-1 has failed",
        "step 2: power-cut per-sector",
        "dirty and degraded, and forced",
        "D1 absent  P gives D1 garbage",
        "pass: 4 operations",
    ] {
        assert!(told.contains(words), "{words:?} is not in\n{told}");
    }
}

fn a_file_that_is_none_is_pointed_into() {
    let whole = fs::read_to_string(scenarios().join("raid5-write-hole.toml")).expect("it is there");
    let at = tempfile::tempdir().expect("the temporary directory takes files");
    let table = [
        ("level = \"raid5\"", "level = \"raid7\"", "at line 9, column 1"),
        ("disks = 3", "disks = 99", "disks = 99: from 1 to 32"),
        ("raidlab-scenario/v1", "raidlab-scenario/v9", "at line 5, column 10"),
        ("\"flush\"", "\"flash\"", "`flash` is no operation"),
        ("write 0+1\"", "write 0+99\"", "bad.toml:16:31: clients.ops[2], `write 0+99`: the volume has 32 sectors"),
        ("depth = 1", "depth = 0", "bad.toml:15:1: clients.depth"),
        ("7 events after 1", "9 events after 8", "bad.toml:25:8: step 2, `9 events after 8`: there is no other step 8"),
        ("stop slot-1", "stop it", "at line 21, column 6"),
    ];
    for (from, to, phrase) in table {
        assert!(whole.contains(from), "{from}");
        fs::write(at.path().join("bad.toml"), whole.replacen(from, to, 1)).expect("there is room");
        for command in ["replay", "shrink"] {
            let ran = raidlab(at.path(), ["sim", command, "bad.toml"]).run().expect_code(4);
            assert!(ran.stderr.contains(phrase), "{phrase:?} is not in\n{}", ran.stderr);
        }
    }
    let words = [
        (vec!["replay", "12x"], 3, "`12x` is no seed, and no file"),
        (vec!["replay", "nothing.toml"], 4, "cannot read nothing.toml"),
        (vec!["replay", "18446744073709551615"], 3, "seeds are below 2^63"),
        (vec!["replay", "7", "--faults", "flood"], 3, "faults are stop, fail"),
        (vec!["replay", "7", "--level", "6", "--disks", "3"], 3, "raid6 takes 4 to 64 disks, not 3"),
        (vec!["replay", "7", "--crash-points", "0"], 3, "say none, sample, every, or a number"),
        (vec!["shrink", "7", "--for", "long"], 3, "does not begin with a number"),
    ];
    for (arguments, code, phrase) in words {
        let ran = raidlab(at.path(), std::iter::once("sim").chain(arguments.clone())).run().expect_code(code);
        assert!(ran.stderr.contains(phrase), "{phrase:?} is not in\n{}", ran.stderr);
    }
}

fn what_does_not_fail_is_not_shrunk() {
    let at = tempfile::tempdir().expect("the temporary directory takes files");
    let file = at.path().join("hole.toml");
    fs::copy(scenarios().join("raid5-write-hole.toml"), &file).expect("there is room");
    let ran = raidlab(at.path(), ["sim", "shrink", "hole.toml"]).run().expect_code(4);
    assert!(ran.stderr.contains("it does not fail"), "{}", ran.stderr);
    assert!(!at.path().join("hole.min.toml").exists());

    fs::write(at.path().join("hole.min.toml"), "mine").expect("there is room");
    let ran = raidlab(at.path(), ["sim", "shrink", "hole.toml"]).run().expect_code(3);
    assert!(ran.stderr.contains("hole.min.toml is there already: add --yes"), "{}", ran.stderr);
}
