//! Scenarios that failed once, each as short as it could be made. `raidlab sim shrink` prints such tests.

use super::{Effort, Scenario, Verdict, live};

/// Lives a scenario, which must come to a good end.
#[track_caller]
fn passes(toml: &str) {
    let scenario = Scenario::parse(toml).unwrap_or_else(|error| panic!("{error}"));
    match live(&scenario, Effort::PLAIN).1 {
        Verdict::Pass => {}
        Verdict::Finding(finding) => panic!("{finding}"),
        other => panic!("{other:?}"),
    }
}

/// background work does not come to its end: the simulator waited for an event of a RAID0 that had stopped at once,
/// having no metadata to write.
#[test]
fn raid0_endless() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 0
regime = "unbudgeted"

[array]
level = "raid0"
disks = 1
chunk = 8
member = 16

[clients]
depth = 1
ops = []

[[step]]
id = 1
when = "op 0"
do = "restart"
"#,
    );
}

/// R4 (flush) broken: operation 6 on sector 0 returned zeroes; legal: write 1 of sector 0. With mutant X5, a flush was
/// acknowledged when all members but one had flushed.
#[test]
fn raid0_r4_flush() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 1
regime = "unbudgeted"

[array]
level = "raid0"
disks = 2
chunk = 8
member = 16

[clients]
depth = 1
ops = ["write 0+1", "flush"]

[crash]
event = 2
loss = "drop-all"
back = false
then = "recover"
choose = 0
"#,
    );
}

/// R6 (crash choice) broken: a crash left a replacement that was complete on record with another version than the member
/// beside it. It was filled again, but the array was on record as clean before that was: a second crash in between, and it
/// was taken for complete.
#[test]
fn raid5_r6_crash_choice() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 2
regime = "budgeted"

[array]
level = "raid5"
disks = 3
spares = 1
chunk = 1
member = 16

[clients]
depth = 1
ops = ["write 0+1", "write 0+1"]

[[step]]
id = 1
when = "op 0"
do = "replace slot-0"

[[step]]
id = 2
when = "op 0"
do = "fail slot-2"

[crash]
event = 47
loss = "keep-all"
back = false
then = "read"
choose = 2

[crash.again]
events = 5
loss = "drop-all"
"#,
    );
}

/// R6 (crash choice) broken: an array that had failed returned one of two copies that a crash had left different. It could
/// not write the other one, which came back later.
#[test]
fn raid10_r6_crash_choice() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 1
regime = "unbudgeted"

[array]
level = "raid10"
disks = 5
chunk = 2
member = 10

[clients]
depth = 2
ops = ["write 0+1", "write 18+1", "read 0+1", "read 18+1"]

[[step]]
id = 2
when = "op 0"
do = "power-cut drop-all"

[[step]]
id = 3
when = "off 2"
do = "rot-superblock slot-1"

[[step]]
id = 15
when = "op 3"
do = "power-cut keep-all"

[[step]]
id = 17
when = "op 0"
do = "fault slot-0 read-only 2+1 x1"

[[step]]
id = 19
when = "op 3"
do = "stop slot-3"
"#,
    );
}
