//! The volume over NBD, to the programs people use: libnbd's tools, QEMU's, fio; and to a client that means ill.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::cli::{Raidlab, raidlab};
use crate::support::lab::{Lab, expect_same};
use crate::support::process::{Ran, Running};
use crate::support::sample::Sample;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("nbd::a_volume_is_what_nbdinfo_says").needs(&["nbdinfo"]).told_by(a_volume_is_what_nbdinfo_says),
        story("nbd::a_map_shows_where_redundancy_is_missing").needs(&["nbdinfo"]).sampled_by(a_map_shows),
        story("nbd::nbdfuse_makes_a_file_of_it")
            .needs(&["nbdfuse", "fusermount3", "mkfs.ext4"])
            .sampled_by(nbdfuse_makes_a_file),
        story("nbd::fio_finds_what_it_wrote_while_a_member_fails_and_a_spare_is_filled")
            .needs(&["fio"])
            .sampled_by(fio_finds_while_a_member_fails),
        story("nbd::libnbd_is_refused_with_the_errors_of_the_protocol").needs(&["nbdsh"]).told_by(libnbd_is_refused),
        story("nbd::a_sector_that_is_lost_is_an_error_of_its_own").needs(&["qemu-io"]).told_by(a_sector_that_is_lost),
        story("nbd::a_server_starts_and_stops_and_leaves_nothing_behind")
            .needs(&["nbdcopy"])
            .sampled_by(a_server_starts_and_stops),
        story("nbd::a_server_killed_in_the_middle_is_started_again").needs(&["fio"]).told_by(a_server_killed),
        story("nbd::a_read_only_volume_takes_no_writes").needs(&["nbdinfo", "qemu-io"]).told_by(a_read_only_volume),
        story("nbd::a_client_that_means_ill_hurts_nobody")
            .needs(&["fio", "nbdinfo"])
            .sampled_by(a_client_that_means_ill),
    ]
}

/// `raidlab serve lab WORDS --run COMMAND`.
fn captive(lab: &Lab, words: &str, command: &str) -> Raidlab {
    let words = ["serve", "lab"].into_iter().chain(words.split_whitespace());
    raidlab(lab.around(), words.chain(["--run", command])).within(Duration::from_secs(120))
}

fn nbdfuse_makes_a_file(mut sample: Sample) {
    let levels = ["--level 1 --disks 2 --size 32M", "--level 5 --disks 3 --chunk 512K --size 16M --backend file"];
    for level in sample.some(1, levels.to_vec()) {
        let lab = Lab::create(level);
        let bytes = sample.bytes(lab.size() as usize);
        fs::write(lab.around().join("in"), &bytes).expect("there is room");
        let script = r#"set -e
            PATH=$PATH:/usr/sbin:/sbin
            mkdir mnt
            nbdfuse mnt "$uri" &
            trap 'fusermount3 -u mnt; wait' EXIT
            until [ -e mnt/nbd ]; do sleep 0.01; done
            dd if=in of=mnt/nbd bs=1M conv=notrunc,fsync status=none
            cmp in mnt/nbd
            mkfs.ext4 -q -F mnt/nbd
            e2fsck -fn mnt/nbd > fsck"#;
        captive(&lab, "", script).run().expect_ok();
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{level}");
    }
}

/// `raidlab serve lab WORDS`, and where it is found.
fn serve(lab: &Lab, words: &str) -> (Running, String) {
    let running = lab.call(&format!("serve lab {words}")).start();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let said = String::from_utf8(running.stdout()).expect("URIs are text");
        if let Some((uri, _)) = said.split_once('\n') {
            return (running, uri.to_owned());
        }
        assert!(Instant::now() < deadline, "{}", running.kill());
        sleep(Duration::from_millis(2));
    }
}

fn stop(running: Running) -> Ran {
    running.signal(Signal::TERM);
    running.wait(Duration::from_secs(30))
}

fn socket(lab: &Lab) -> PathBuf {
    lab.file("nbd.sock")
}

fn a_volume_is_what_nbdinfo_says() {
    let lab = Lab::create("--level 5 --disks 4 --chunk 64K --size 12M");
    let info = captive(&lab, "", "nbdinfo --json \"$uri\" && nbdinfo --list \"$uri\"").run().expect_ok();
    let (json, list) = info.text().split_at(info.text().find("\n}\n").expect("an object") + 3);
    let json: Value = serde_json::from_str(json).expect("nbdinfo writes JSON");
    let export = &json["exports"][0];
    assert_eq!(export["export-size"], lab.size(), "{info}");
    assert_eq!(export["block_size_minimum"], 512, "{info}");
    assert_eq!(export["block_size_preferred"], 256 << 10, "{info}");
    assert_eq!(export["block_size_maximum"], 32 << 20, "{info}");
    for can in ["cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"] {
        assert_eq!(export[format!("can_{can}")], true, "{can}: {info}");
    }
    assert_eq!((&export["is_read_only"], &export["contexts"][1]), (&false.into(), &"raidlab:state".into()), "{info}");
    assert!(list.contains("export=\"lab\"") && list.contains("raid5 of 4 disks"), "{list}");
}

/// What `nbdinfo --map=raidlab:state` says: length and flags.
fn states(lab: &Lab) -> Vec<(u64, u64)> {
    let map = captive(lab, "", "nbdinfo --json --map=raidlab:state \"$uri\"").run().expect_ok();
    let map = map.json();
    let number = |of: &Value, key: &str| of[key].as_u64().unwrap_or_else(|| panic!("{key} in {of}"));
    let extents = map.as_array().expect("a map is a list");
    extents.iter().map(|extent| (number(extent, "length"), number(extent, "type"))).collect()
}

fn a_map_shows(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 48M");
    let size = lab.size();
    assert_eq!(states(&lab), [(size, 0)]);
    lab.write(0, &sample.bytes(size as usize));
    lab.ok("fail lab 1");
    assert_eq!(states(&lab), [(size, 1)]);
    lab.ok("set lab sync_speed_min=1 sync_speed_max=4000");
    let adding = lab.call("add lab").start();
    sleep(Duration::from_millis(1500));
    stop(adding);

    let told = states(&lab);

    let kinds: Vec<u64> = told.iter().map(|(_, state)| *state).collect();
    assert_eq!((kinds, told.iter().map(|(length, _)| length).sum::<u64>()), (vec![0, 3], size));
    lab.ok("set lab sync_speed_max=1000000");
    lab.ok("wait lab");
    assert_eq!(states(&lab), [(size, 0)]);
}

/// A job that writes, and reads back what it wrote, in as many processes as there are connections.
fn fio_job(connections: usize, share: u64, seed: u64) -> String {
    format!(
        "fio --name=t --ioengine=nbd --uri=\"$uri\" --rw=randrw --bsrange=4k-256k --iodepth=16 --verify=crc32c \
         --verify_fatal=1 --do_verify=1 --verify_backlog=64 --numjobs={connections} --size={share} \
         --offset_increment={share} --randseed={seed} --fsync=50 --output=fio.txt"
    )
}

fn fio_finds_while_a_member_fails(mut sample: Sample) {
    let levels = [
        "--level 1 --disks 2 --spares 1 --size 32M",
        "--level 5 --disks 4 --spares 1 --chunk 64K --size 12M",
        "--level 6 --disks 5 --spares 1 --chunk 16K --size 12M",
        "--level 10 --disks 4 --spares 1 --chunk 64K --size 16M",
    ];
    for level in sample.some(2, levels.to_vec()) {
        let lab = Lab::create(level);
        lab.ok(&format!("fault lab 1 add fail-stop --at-io {}", 20 + sample.below(100)));
        let ran = captive(&lab, "", &fio_job(4, 5 << 20, sample.seed() >> 32)).run().expect_ok();
        assert!(ran.stderr.contains("Fail: disk-1"), "{level}: {ran}");
        lab.ok("fault lab clear");
        lab.ok("wait lab");
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{level}");
    }
}

fn libnbd_is_refused() {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 12M");
    let script = r#"
import errno
h.set_strict_mode(0)
size = h.get_size()
def refused(number, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == number, (error, number)
    else:
        raise Exception("it was not refused")
refused(errno.EINVAL, lambda: h.pread(512, size))
refused(errno.EINVAL, lambda: h.pread(1024, size - 512))
refused(errno.ENOSPC, lambda: h.pwrite(bytearray(1024), size - 512))
refused(errno.ENOSPC, lambda: h.zero(1024, size - 512))
refused(errno.EINVAL, lambda: h.trim(1024, size - 512))
refused(errno.EINVAL, lambda: h.pwrite(bytearray(511), 0))
refused(errno.EINVAL, lambda: h.pread(512, 1))
refused(errno.EINVAL, lambda: h.pread(0, 0))
refused(errno.EINVAL, lambda: h.pread(512, 0, nbd.CMD_FLAG_NO_HOLE))
refused(errno.ENOTSUP, lambda: h.zero(512, 512, nbd.CMD_FLAG_FAST_ZERO))
refused(errno.EINVAL, lambda: h.pread_structured(512, 0xfffffffffffffe00, lambda *a: 0))
h.pwrite(b"x" * 65536, 131072, nbd.CMD_FLAG_FUA)
assert h.pread(65536, 131072) == b"x" * 65536
assert h.pread_structured(65536, 131072, lambda *a: 0, nbd.CMD_FLAG_DF) == b"x" * 65536
h.zero(131072, 131072, nbd.CMD_FLAG_FAST_ZERO)
h.trim(131072, 0, nbd.CMD_FLAG_FUA)
h.cache(size, 0)
assert h.pread(65536, 131072) == bytearray(65536)
# Many at a time, out of order.
buffers = [nbd.Buffer(4096) for _ in range(600)]
cookies = [h.aio_pread(buffer, (number * 8192) % (size - 8192)) for number, buffer in enumerate(buffers)]
for cookie in cookies:
    while not h.aio_command_completed(cookie):
        h.poll(-1)
h.flush()
"#;
    let ran = captive(&lab, "", "PATH=/usr/bin:/bin nbdsh -u \"$uri\" -c \"$script\"").env("script", script).run();
    ran.expect_ok();
    // As clients spoke before there were structured replies.
    let script = r#"
h.set_request_structured_replies(False)
h.connect_uri(uri)
assert not h.get_structured_replies_negotiated()
h.pwrite(b"y" * 1048576, 512)
assert h.pread(1048576, 512) == b"y" * 1048576
h.flush()
"#;
    let command = "PATH=/usr/bin:/bin nbdsh -c \"uri='$uri'\" -c \"$script\"";
    captive(&lab, "", command).env("script", script).run().expect_ok();
}

fn a_sector_that_is_lost() {
    let lab = Lab::create("--level 0 --disks 2 --chunk 64K --size 12M");
    lab.write(0, &[7; 4 << 20]);
    lab.ok("fault lab 0 add medium=sticky --range 1M..1028K");
    let read = |range: &str| captive(&lab, "", &format!("qemu-io -f raw -r -c 'read -P 7 {range}' \"$uri\"")).run();
    assert!(read("0 64k").stdout.windows(11).any(|text| text == b"read failed") || read("0 64k").code != Some(0));
    read("64k 3M").expect_ok();
}

fn a_server_starts_and_stops(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 12M");
    let names = lab.names();
    let bytes = sample.bytes(lab.size() as usize);
    fs::write(lab.around().join("in"), &bytes).expect("there is room");

    let (server, uri) = serve(&lab, "--nbd unix:lab/nbd.sock --nbd tcp:127.0.0.1:0");

    assert_eq!(fs::metadata(socket(&lab)).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert!(uri.starts_with("nbd+unix:///?socket=/"), "{uri}");
    let said = String::from_utf8(server.stdout()).expect("URIs are text");
    let tcp = said.lines().nth(1).expect("one line for each").to_owned();
    assert!(tcp.starts_with("nbd://127.0.0.1:"), "{tcp}");
    lab.refuses("serve lab", 4, "open in another process");
    let copy = |from: &str, to: &str| {
        let mut command = std::process::Command::new("nbdcopy");
        crate::support::process::run(command.args([from, to]).current_dir(lab.around()), Duration::from_secs(60))
    };
    copy("in", &tcp).expect_ok();
    copy(&uri, "out").expect_ok();
    let idle = UnixStream::connect(socket(&lab)).expect("it listens");
    stop(server).expect_ok();
    drop(idle);

    expect_same(&fs::read(lab.around().join("out")).expect("it was written"), &bytes);
    let left: Vec<String> = lab.names().into_iter().filter(|name| name != "events.jsonl").collect();
    assert_eq!((left, lab.state().as_str(), lab.mismatches()), (names, "clean", 0));
    expect_same(&lab.read(), &bytes);
    captive(&lab, "", "exit 7").run().expect_code(7);
    captive(&lab, "", "test -S \"$unixsocket\" && test \"$exportname\" = lab && kill -9 $$").run().expect_code(137);
    fs::write(lab.around().join("file"), "mine").expect("there is room");
    lab.refuses("serve lab --nbd unix:file", 4, "is no socket");
    lab.refuses("serve lab --nbd file", 3, "unix:PATH");
}

fn a_server_killed() {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 24M --bitmap internal");
    let (server, uri) = serve(&lab, "");
    let load = format!(
        "fio --name=t --ioengine=nbd --uri='{uri}' --rw=randwrite --bs=8k --iodepth=16 --size=40M --time_based --runtime=60"
    );
    let mut command = std::process::Command::new("sh");
    let load = crate::support::process::start(command.args(["-c", &load]).current_dir(lab.around()));
    sleep(Duration::from_millis(700));
    server.kill();
    load.wait(Duration::from_secs(30));
    assert!(socket(&lab).exists(), "a killed process removes nothing");
    captive(&lab, "", "true").run().expect_ok();
    lab.ok("wait lab");
    assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0));
}

fn a_read_only_volume() {
    let lab = Lab::create("--level 1 --disks 2 --size 12M");
    let info = captive(&lab, "--read-only", "nbdinfo --json \"$uri\"").run().expect_ok().json();
    assert_eq!((&info["exports"][0]["is_read_only"], &info["exports"][0]["can_trim"]), (&true.into(), &false.into()));
    let ran = captive(&lab, "--read-only", "qemu-io -f raw -c 'write 0 4k' \"$uri\"").run();
    assert_ne!(ran.code, Some(0), "{ran}");
}

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("the kernel writes numbers")
}

/// The bytes that lead into the transmission, by the oldest way.
fn entry() -> Vec<u8> {
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(b"IHAVEOPT\0\0\0\x01\0\0\0\0");
    bytes
}

fn request(command: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&[7; 8]);
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes
}

/// Random bytes, half handshakes, lengths and offsets without end, ten thousand connects, readers that do not read, cuts
/// in the middle of a request; all the while another client writes and verifies.
fn a_client_that_means_ill(mut sample: Sample) {
    let lab = Lab::create("--level 5 --disks 3 --chunk 64K --size 24M");
    let (server, uri) = serve(&lab, "");
    let process = server.id();
    let good = format!(
        "fio --name=t --ioengine=nbd --uri='{uri}' --rw=randwrite --bs=16k --iodepth=16 --verify=crc32c --size=16M \
         --verify_fatal=1 --loops=3"
    );
    let mut command = std::process::Command::new("sh");
    let good = crate::support::process::start(command.args(["-c", &good]).current_dir(lab.around()));
    let connect = || {
        let socket = UnixStream::connect(socket(&lab)).expect("it listens");
        socket.set_write_timeout(Some(Duration::from_millis(200))).expect("a time is a time");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time is a time");
        socket
    };
    // What cannot be sent is not wanted: the server may have hung up.
    let send = |socket: &mut UnixStream, bytes: &[u8]| drop(socket.write_all(bytes));
    let mut kept = Vec::new();

    for round in 0..200 {
        let mut socket = connect();
        match round % 8 {
            0 => send(&mut socket, &sample.bytes(3000)),
            1 => {
                send(&mut socket, &3_u32.to_be_bytes());
                let after = [&b"IHAVEOPT"[..], &sample.bytes(2000)].concat();
                send(&mut socket, &after);
            }
            2 => send(&mut socket, &entry()[..sample.below(20) as usize]),
            3 => {
                send(&mut socket, &entry());
                send(&mut socket, &request(1, 0, u32::MAX));
            }
            4 => {
                send(&mut socket, &entry());
                for (command, offset) in [(0, u64::MAX), (1, u64::MAX - 100), (6, 1 << 63), (7, 0), (99, 5)] {
                    send(&mut socket, &request(command, offset, 512));
                }
            }
            5 => {
                // Within the last 4 MiB, where the other client is not.
                send(&mut socket, &entry());
                send(&mut socket, &request(1, 20 << 20, 2 << 20));
                let arrives = sample.below(1 << 20) as usize;
                send(&mut socket, &sample.bytes(arrives));
            }
            6 => {
                send(&mut socket, &entry());
                send(&mut socket, &request(0, 0, 32 << 20));
            }
            _ => send(&mut socket, &[&entry()[..], &sample.bytes(4000)].concat()),
        }
        if round % 3 == 0 && kept.len() < 20 {
            kept.push(socket);
        }
    }
    let mut greedy = connect();
    send(&mut greedy, &entry());
    let reads: Vec<u8> = (0..20_000).flat_map(|_| request(0, 0, 1 << 20)).collect();
    send(&mut greedy, &reads);
    let crowd: Vec<UnixStream> = (0..300).filter_map(|_| UnixStream::connect(socket(&lab)).ok()).collect();
    for _ in 0..10_000 {
        drop(UnixStream::connect(socket(&lab)));
    }
    let resident = resident(process);
    drop(crowd);

    good.wait(Duration::from_secs(60)).expect_ok();
    assert!(resident < 1 << 20, "{resident} KiB");
    let mut greeting = [0; 18];
    connect().read_exact(&mut greeting).expect("it greets");
    assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
    drop((kept, greedy));
    stop(server).expect_ok();
    assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0));
}
