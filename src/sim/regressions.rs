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
disks = 2
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

/// R1 (register) broken: an array that had failed went on reading a disk whose flush had failed, and had lost what it
/// acknowledged.
#[test]
fn raid10_flush_failed_in_a_failed_array() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 0
regime = "unbudgeted"

[array]
level = "raid10"
layout = "f3"
disks = 5
chunk = 2
member = 10

[clients]
depth = 1
ops = ["write 8+1", "read 8+1"]

[[step]]
id = 1
when = "op 0"
do = "fail slot-0"

[[step]]
id = 2
when = "op 0"
do = "stop slot-2"

[[step]]
id = 3
when = "op 0"
do = "rest"

[[step]]
id = 4
when = "op 0"
do = "lose-flush slot-4 x1"

[[step]]
id = 5
when = "op 1"
do = "fault slot-1 flush-fail x1"

[[step]]
id = 6
when = "op 1"
do = "rest"
"#,
    );
}

/// R4 (flush) broken: a resync had made copies equal in their caches; a read took them for settled, and the next power cut
/// brought the other version back.
#[test]
fn raid10_resync_in_caches_only() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 0
regime = "budgeted"

[array]
level = "raid10"
layout = "f3"
disks = 6
spares = 2
chunk = 8
member = 128
bitmap = 16

[clients]
depth = 3
ops = [
    "read 32+1", "write 48+1", "flush", "write 0+1", "write 0+1", "flush",
    "write 48+1", "read 48+1",
]

[[step]]
id = 1
when = "op 0"
do = "freeze"

[[step]]
id = 2
when = "op 0"
do = "fail slot-2"

[[step]]
id = 3
when = "16 events after 2"
do = "stop filling"

[[step]]
id = 10
when = "op 0"
do = "lose-flush slot-1 x1"

[[step]]
id = 11
when = "op 1"
do = "power-cut drop-all"

[[step]]
id = 12
when = "off 11"
do = "swap slot-1 slot-3"

[[step]]
id = 13
when = "op 1"
do = "power-cut drop-all"

[[step]]
id = 14
when = "op 2"
do = "slow slot-2 x10"

[[step]]
id = 15
when = "op 6"
do = "power-cut per-sector"

[[step]]
id = 18
when = "op 1"
do = "rest"

[[step]]
id = 19
when = "op 1"
do = "rest"

[[step]]
id = 20
when = "op 0"
do = "rest"

[[step]]
id = 21
when = "op 1"
do = "rest"

[crash]
event = 145
loss = "drop-all"
back = false
then = "lose"
choose = 0

[crash.again]
events = 0
loss = "keep-all"
"#,
    );
}

/// R6 (crash choice) broken: a resync went on in an array that had failed, and took for equal what a disk that was gone had
/// never got.
#[test]
fn raid10_resync_of_a_failed_array() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 0
regime = "unbudgeted"

[array]
level = "raid10"
layout = "f2"
disks = 4
chunk = 1
member = 10

[clients]
depth = 1
ops = ["flush", "write 0+1", "flush", "write 0+1", "read 0+1"]

[[step]]
id = 1
when = "op 0"
do = "stop slot-3"

[[step]]
id = 2
when = "op 3"
do = "hang slot-0 1s"

[[step]]
id = 3
when = "op 4"
do = "power-cut keep-all"
"#,
    );
}

/// R4 (flush) broken: a member failed and came back within one update of the superblocks. The others called it in sync by
/// then, and so did its own, from before it failed; a power cut later it was believed.
#[test]
fn raid10_back_within_an_update() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 0
regime = "budgeted"

[array]
level = "raid10"
disks = 3
spares = 1
chunk = 8
member = 128
bitmap = 8

[clients]
depth = 5
ops = [
    "write 0+1", "flush", "read 0+1", "read 0+1", "write 0+1", "read 0+1",
    "read 0+1", "read 0+1", "write 0+1", "write 0+1", "read 0+1", "write 0+1",
    "write 0+1", "read 0+1", "write 0+1", "write 0+1", "write 0+1", "write 0+1",
    "read 0+1", "read 0+1", "flush", "write 0+1", "read 0+1", "write 0+1",
    "read 0+1", "write 0+1", "read 0+1", "write 0+1", "read 0+1", "read 0+1",
    "write 0+1", "write 0+1", "write 120+1", "write 0+1", "read 0+1", "write 0+1",
    "flush", "write 24+1", "read 0+1", "write 168+1", "write 8+1", "read 0+1",
    "read 0+1", "write 64+1", "read 8+1", "write 136+1", "read 16+1", "write 0+1",
    "read 0+1", "read 0+1", "read 71+2", "write 16+1", "write 119+2 fua",
]

[[step]]
id = 1
when = "op 0"
do = "hang slot-1 1s"

[[step]]
id = 2
when = "op 2"
do = "rest"

[[step]]
id = 3
when = "op 5"
do = "rest"

[[step]]
id = 4
when = "op 50"
do = "stop slot-0"

[[step]]
id = 5
when = "op 53"
do = "re-add faulty"

[[step]]
id = 6
when = "37 events after 4"
do = "power-cut drop-all"
"#,
    );
}

/// R6 (crash choice) broken: a read made copies equal, but the one it had read was there by a resync and in a cache only.
/// The other one could not be written, and the power took the first.
#[test]
fn raid1_settled_from_a_cache() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 0
regime = "budgeted"

[array]
level = "raid1"
disks = 2
chunk = 1
member = 128
bitmap = 8

[clients]
depth = 5
ops = [
    "write 0+1", "write 43+1", "write 0+1", "flush", "write 1+1", "read 1+1",
    "write 32+1", "read 43+1",
]

[[step]]
id = 1
when = "op 0"
do = "slow slot-0 x10"

[[step]]
id = 2
when = "op 7"
do = "power-cut keep-all"

[[step]]
id = 3
when = "op 8"
do = "fault slot-0 transient=3 43+1"

[crash]
event = 22
loss = "drop-all"
back = false
then = "recover"
choose = 0
"#,
    );
}

/// slot-0 was whole before it was assembled again, and not any more: the judge held a member for whole that had stopped
/// and that no request had met yet; its replacement took the slot before that was on record, as it must.
#[test]
fn raid10_place_lost() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 3
regime = "unbudgeted"

[array]
level = "raid10"
disks = 2
chunk = 1
member = 15

[clients]
depth = 1
ops = []

[[step]]
id = 1
when = "op 0"
do = "add"

[[step]]
id = 2
when = "op 0"
do = "replace slot-0"

[[step]]
id = 3
when = "22 events after 2"
do = "stop slot-0"

[crash]
event = 40
loss = "drop-all"
back = false
then = "recover"
choose = 0
"#,
    );
}

/// slot-1 was whole before it was assembled again, and not any more: the judge held a slot for whole whose member was
/// failed by order while it was being recorded that its replacement is full; that carries on with what is on record.
#[test]
fn raid4_replaced_member_failed_place_lost() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 1
regime = "unbudgeted"

[array]
level = "raid4"
disks = 3
chunk = 1
member = 10

[clients]
depth = 1
ops = ["flush"]

[[step]]
id = 1
when = "op 0"
do = "add"

[[step]]
id = 2
when = "op 0"
do = "rest"

[[step]]
id = 3
when = "op 1"
do = "replace slot-1"

[[step]]
id = 4
when = "26 events after 3"
do = "fail slot-1"

[crash]
event = 37
loss = "drop-all"
back = false
then = "recover"
choose = 0
"#,
    );
}

/// slot-2 was whole before it was assembled again, and not any more: a member that was taken by force wrote its own
/// superblock, and the others still had it on record as failed. They are told at once now, as mdadm does it.
#[test]
fn raid5_forced_in_place_lost() {
    passes(
        r#"
# place lost
# slot-2 was whole before it was assembled again, and not any more
#
# raidlab sim replay THIS-FILE --explain

schema = "raidlab-scenario/v1"
seed = 0
regime = "unbudgeted"

[array]
level = "raid5"
disks = 3
chunk = 1
member = 10

[clients]
depth = 1
ops = ["write 0+1"]

[[step]]
id = 1
when = "op 0"
do = "snapshot disk-1"

[[step]]
id = 2
when = "op 1"
do = "fail slot-2"

[[step]]
id = 3
when = "op 1"
do = "restart"

[[step]]
id = 4
when = "off 3"
do = "restore disk-1"

[crash]
event = 12
loss = "drop-all"
back = false
then = "recover"
choose = 0
"#,
    );
}

/// Requests to a member waited for a path for ever: a read that was asked before the last path failed was answered after it, which
/// was taken for service, and nobody gave up what came later.
#[test]
fn raid0_answered_after_the_last_path_failed() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 2
regime = "unbudgeted"

[array]
level = "raid0"
disks = 2
chunk = 1
member = 10

[paths]
members = "sas-dual"

[clients]
depth = 2
ops = ["write 0+1", "read 0+1", "write 0+1", "write 2+1"]

[[step]]
id = 1
when = "op 0"
do = "component members hba-1 fails-io"

[[step]]
id = 2
when = "op 3"
do = "component members hba-0 fails-io"
"#,
    );
}

/// A write to the volume waited for a path for ever: the map had given up in an outage before, in which paths had come back without
/// being asked for anything, and it did not give up what it held when the next outage began.
#[test]
fn raid4_held_when_the_map_has_given_up() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 3
regime = "budgeted"

[array]
level = "raid4"
disks = 3
chunk = 1
member = 10

[paths]
volume = "san"

[clients]
depth = 2
ops = ["read 0+1", "write 0+1", "read 0+1"]

[[step]]
id = 1
when = "op 0"
do = "component volume hba-0 down"

[[step]]
id = 2
when = "op 0"
do = "component volume hba-1 down"

[[step]]
id = 3
when = "op 1"
do = "mend"

[[step]]
id = 4
when = "op 1"
do = "rest"

[[step]]
id = 5
when = "op 2"
do = "component volume hba-0 down"

[[step]]
id = 6
when = "5 events after 5"
do = "component volume hba-1 down"
"#,
    );
}

/// A member that had been started apart was taken back by the bitmap: its own events had brought its count beyond that at which bits
/// were cleared the last time, and what it held was garbage.
#[test]
fn raid1_columns_disagree() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 0
regime = "budgeted"

[array]
level = "raid1"
disks = 2
chunk = 1
member = 128
bitmap = 8

[clients]
depth = 1
ops = ["write 0+1", "write 0+1"]

[[step]]
id = 1
when = "op 0"
do = "fail slot-1"

[[step]]
id = 2
when = "op 1"
do = "restart"

[[step]]
id = 3
when = "op 2"
do = "re-add faulty"

[[step]]
id = 4
when = "off 2"
do = "split slot-1"
"#,
    );
}

/// background work does not come to its end: what was at rest while all paths were lost was taken to be at rest when they were well
/// again, nothing could be read, and the check met a disk that nobody had missed. A check of an array that fails has no end.
#[test]
fn raid5_endless() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 0
regime = "unbudgeted"

[array]
level = "raid5"
disks = 3
chunk = 1
member = 10

[paths]
volume = "san"

[clients]
depth = 1
ops = []

[[step]]
id = 1
when = "op 0"
do = "power-cut drop-all"

[[step]]
id = 2
when = "op 0"
do = "stop slot-0"

[[step]]
id = 3
when = "op 0"
do = "component volume hba-0 down"

[[step]]
id = 4
when = "op 0"
do = "component volume hba-1 down"

[[step]]
id = 5
when = "off 1"
do = "rot-superblock slot-2"
"#,
    );
}

/// O4 broken: a write came back while an end of its path's nexus was asked for, which did not count for it; when that was done the path
/// was the only one, nobody else could ask for another end, and the write waited for ever.
#[test]
fn raid6_o4_fenced_twice() {
    passes(
        r#"
schema = "raidlab-scenario/v1"
seed = 0
regime = "budgeted"

[array]
level = "raid6"
disks = 4
chunk = 1
member = 10

[paths]
members = "sas-dual"

[clients]
depth = 5
ops = [
    "write 0+1", "flush", "write 0+1", "flush", "write 0+1", "write 13+2",
    "write 0+1",
]

[[step]]
id = 1
when = "op 0"
do = "component members port-3 black-hole=rx"

[[step]]
id = 2
when = "op 7"
do = "component members port-3 up"

[[step]]
id = 3
when = "op 7"
do = "component members hba-0 down"
"#,
    );
}
