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
