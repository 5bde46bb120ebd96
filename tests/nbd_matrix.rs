//! Every tool, on every level, over one connection and eight, while disks leave and return and checks run.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::lab::Lab;
use crate::support::process::{self, Ran};
use crate::support::sample::Sample;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("nbd_matrix::every_tool_is_right_while_disks_leave_and_return_and_checks_run")
            .needs(&["nbdinfo", "nbdcopy", "nbdfuse", "fusermount3", "nbdsh", "qemu-img", "qemu-io", "fio"])
            .sampled_by(every_tool),
    ]
}

/// The level, and how many disks it has: one more is a spare.
const SHAPES: [(&str, u64); 7] = [
    ("--level 0 --disks 3 --chunk 64K --size 12M", 0),
    ("--level 1 --disks 2 --spares 1 --size 24M", 2),
    ("--level 5 --disks 4 --spares 1 --chunk 64K --size 10M --bitmap internal", 4),
    ("--level 5 --disks 3 --spares 1 --chunk 512K --size 14M --backend file", 3),
    ("--level 6 --disks 5 --spares 1 --chunk 16K --size 10M", 5),
    ("--level 10 --disks 4 --spares 1 --chunk 64K --size 14M --layout f2", 4),
    ("--level 10 --disks 5 --spares 1 --chunk 32K --size 12M --backend uring", 5),
];

/// What a tool is given: `$uri`, `$size`, `$connections`, `$seed`, and random bytes in `in`. It ends well if every byte
/// was right.
const TOOLS: [(&str, &str); 9] = [
    ("nbdinfo", "test $(nbdinfo --size \"$uri\") = $size; nbdinfo --can multi-conn \"$uri\"; nbdinfo --list \"$uri\""),
    (
        "nbdinfo --map",
        r#"for context in base:allocation raidlab:state; do
            nbdinfo --map=$context "$uri" | awk -v size=$size '$1 != at { exit 1 } { at += $2 } END { exit at != size }'
        done"#,
    ),
    (
        "nbdcopy",
        r#"nbdcopy --connections=$connections in "$uri"
        nbdcopy --connections=$connections "$uri" out
        cmp in out"#,
    ),
    (
        "qemu-img",
        r#"qemu-img info "$uri"
        qemu-img convert -n -m $connections -W -f raw -O raw in "$uri"
        qemu-img compare -f raw -F raw in "$uri"
        qemu-img convert -m $connections -f raw -O qcow2 "$uri" out.qcow2
        qemu-img compare -f raw -F qcow2 in out.qcow2
        qemu-img map --output=json -f raw "$uri""#,
    ),
    (
        "qemu-img bench",
        r#"qemu-img bench -f raw -c 3000 -d $((4 * connections)) -s 4096 "$uri"
        qemu-img bench -f raw -c 2000 -d $((4 * connections)) -w --pattern=7 --flush-interval=100 -s 8192 "$uri""#,
    ),
    (
        "qemu-io",
        r#"share=$((size / connections / 65536 * 65536))
        for ((each = 0; each < connections; each++)); do
            at=$((each * share))
            qemu-io -f raw -c "write -P 5 $at 512k" -c "read -P 5 $at 512k" -c "write -z $((at + 65536)) 128k" \
                -c "read -P 0 $((at + 65536)) 128k" -c "write -z -u $((at + 262144)) 64k" -c "discard $at 64k" \
                -c "write -f -P 7 $((at + 512)) 1k" -c flush -c "read -P 7 $((at + 512)) 1k" \
                -c "read -P 0 $((at + 65536)) 128k" -c "read -P 5 $((at + 327680)) 192k" "$uri" > io.$each &
        done
        wait
        ! grep -i -E "fail|error" io.*"#,
    ),
    (
        "nbdfuse",
        r#"mkdir -p mnt
        nbdfuse -C $connections mnt "$uri" &
        trap 'fusermount3 -u mnt; wait' EXIT
        until [ -e mnt/nbd ]; do sleep 0.01; done
        dd if=in of=mnt/nbd bs=1M conv=notrunc,fsync status=none
        cmp in mnt/nbd"#,
    ),
    (
        "fio",
        r#"share=$((size / connections / 1048576 * 1048576))
        fio --name=t --ioengine=nbd --uri="$uri" --rw=randrw --bsrange=4k-256k --iodepth=16 --verify=crc32c \
            --verify_fatal=1 --do_verify=1 --verify_backlog=64 --numjobs=$connections --size=$share \
            --offset_increment=$share --randseed=$seed --fsync=50"#,
    ),
    ("libnbd", "PATH=/usr/bin:/bin nbdsh -c \"uri, n, seed = '$uri', $connections, $seed\" -c \"$model\""),
];

/// Random requests of every kind over some connections, each in its own part of the volume, against a model.
const MODEL: &str = r#"
import random
rng = random.Random(seed)
handles = [nbd.NBD() for _ in range(n)]
for c in handles:
    c.add_meta_context("base:allocation")
    c.add_meta_context("raidlab:state")
    c.connect_uri(uri)
size = handles[0].get_size()
share = size // n // 65536 * 65536
def read(c, start, end):
    step = 4 << 20
    return bytearray().join(c.pread(min(step, end - at), at) for at in range(start, end, step))
models = [read(c, i * share, (i + 1) * share) for i, c in enumerate(handles)]
for turn in range(250):
    i = rng.randrange(n)
    c, model, base = handles[i], models[i], i * share
    at = rng.randrange(share // 512) * 512
    length = min(share - at, 512 * rng.choice([1, 8, 100, 1000, rng.randrange(1, 4000)]))
    fua = rng.choice([0, nbd.CMD_FLAG_FUA])
    kind = rng.choice(["write", "write", "read", "read", "zero", "trim", "status", "many", "other"])
    if kind == "write":
        data = rng.randbytes(length)
        c.pwrite(data, base + at, fua)
        model[at:at + length] = data
    elif kind == "zero":
        c.zero(length, base + at, fua | rng.choice([0, nbd.CMD_FLAG_NO_HOLE]))
        model[at:at + length] = bytes(length)
    elif kind == "trim":
        c.trim(length, base + at, fua)
        model[at:at + length] = bytes(length)
    elif kind == "read":
        if rng.randrange(2):
            got = c.pread(length, base + at)
        else:
            got = c.pread_structured(length, base + at, lambda *a: 0, rng.choice([0, nbd.CMD_FLAG_DF]))
        assert got == model[at:at + length], (turn, i, at, length)
    elif kind == "status":
        told = {}
        def note(context, offset, entries, error):
            assert offset == base + at
            told[context] = sum(entries[::2])
        c.block_status(length, base + at, note)
        assert told.keys() == {"base:allocation", "raidlab:state"}
        assert all(length <= total for total in told.values()), (told, length)
    elif kind == "many":
        places = [rng.randrange(share // 4096) * 4096 for _ in range(40)]
        buffers = [nbd.Buffer(4096) for _ in places]
        cookies = [c.aio_pread(buffer, base + place) for buffer, place in zip(buffers, places)]
        for cookie in cookies:
            while not c.aio_command_completed(cookie):
                c.poll(-1)
        for buffer, place in zip(buffers, places):
            assert buffer.to_bytearray() == model[place:place + 4096], (turn, i, place)
    else:
        c.cache(length, base + at)
        c.flush()
handles[0].flush()
for i, model in enumerate(models):
    assert read(handles[-1 - i], i * share, (i + 1) * share) == model, i
"#;

/// Ends a loop in another thread, whatever happens here.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One disk after the other fails; the spare is filled in its place, it returns as the spare, and a check is clean.
fn leave_and_return(lab: &Lab, disks: u64, is_over: &AtomicBool) -> u64 {
    let mut rounds = 0;
    while disks > 0 && !is_over.load(Ordering::Relaxed) {
        let disk = rounds % (disks + 1);
        lab.ok(&format!("fail lab disk-{disk} --no-wait"));
        lab.ok("wait lab");
        lab.ok(&format!("remove lab disk-{disk}"));
        lab.ok(&format!("add lab disk-{disk} --no-wait"));
        lab.ok("check lab");
        rounds += 1;
    }
    rounds
}

fn every_tool(mut sample: Sample) {
    let cells = SHAPES.iter().flat_map(|shape| [(shape, 1), (shape, 8)]).collect();
    for ((shape, disks), connections) in sample.some(2, cells) {
        let lab = Lab::create(shape);
        // A disk of 10 MiB is filled in half a second: time to be met in the middle.
        lab.ok("set lab sync_speed_min=1000 sync_speed_max=20000");
        let size = lab.size();
        fs::write(lab.around().join("in"), sample.bytes(size as usize)).expect("there is room");
        let mut server = lab.call("serve lab").start();
        let socket = lab.file("nbd.sock");
        assert!(server.wait_for_file(&socket, Duration::from_secs(20)), "{}", server.kill());
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        let run = |script: &str, seed: u64| -> Ran {
            let mut command = std::process::Command::new("bash");
            command.args(["-ec", script]).current_dir(lab.around()).env("model", MODEL).env("uri", &uri);
            for (name, value) in [("size", size), ("connections", connections), ("seed", seed)] {
                command.env(name, value.to_string());
            }
            process::run(&mut command, Duration::from_secs(120))
        };

        let is_over = AtomicBool::new(false);
        let rounds = thread::scope(|scope| {
            let others = scope.spawn(|| leave_and_return(&lab, *disks, &is_over));
            let end = EndsWith(&is_over);
            for (tool, script) in sample.some(5, TOOLS.to_vec()) {
                let ran = run(script, sample.seed() >> 32);
                assert!(ran.code == Some(0), "{tool}, {connections} connections, {shape}: {ran}");
            }
            drop(end);
            others.join().expect("it ends well")
        });

        assert!(*disks == 0 || rounds > 0, "nothing happened meanwhile");
        server.signal(rustix::process::Signal::TERM);
        server.wait(Duration::from_secs(30)).expect_ok();
        if *disks > 0 {
            assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{shape}");
        }
    }
}
