//! The volume and its members under TLS, with the programs people use.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::certificates;
use crate::support::cli::raidlab;
use crate::support::lab::{Lab, expect_same};
use crate::support::process::{self, Ran, Running};
use crate::support::sample::Sample;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("nbd_tls::bytes_are_the_same_under_tls")
            .needs(&[certificates::TOOL, "nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "fio"])
            .sampled_by(bytes_are_the_same),
        story("nbd_tls::who_shows_nothing_gets_nothing")
            .needs(&[certificates::TOOL, "nbdinfo", "nbdsh"])
            .told_by(who_shows_nothing),
        story("nbd_tls::a_server_is_public_under_tls_or_not_at_all")
            .needs(&[certificates::TOOL, "nbdinfo"])
            .told_by(a_public_server),
        story("nbd_tls::members_are_reached_under_tls")
            .needs(&[certificates::TOOL, "nbdkit", "qemu-nbd"])
            .sampled_by(members),
    ]
}

/// `raidlab serve lab WORDS --run COMMAND`.
fn captive(lab: &Lab, words: &str, command: &str) -> Ran {
    let command = format!("PATH=/usr/bin:/bin:$PATH; {command}");
    let words = ["serve", "lab"].into_iter().chain(words.split_whitespace());
    raidlab(lab.around(), words.chain(["--run", &command])).within(Duration::from_secs(120)).run()
}

fn bytes_are_the_same(mut sample: Sample) {
    let shapes = [
        "--level 5 --disks 4 --chunk 64K --size 12M",
        "--level 6 --disks 5 --chunk 16K --size 12M",
        "--level 10 --disks 4 --chunk 64K --size 16M",
    ];
    let ways = ["", "--tls-verify-peer", "--nbd tcp:127.0.0.1:0 --tls-verify-peer", "--nbd tcp:127.0.0.1:0 --tls on"];
    for way in sample.some(2, ways.to_vec()) {
        let shape = *sample.one(&shapes);
        let lab = Lab::create(shape);
        let certificates = certificates::make(lab.around(), "certificates");
        let bytes = sample.bytes(lab.size() as usize);
        fs::write(lab.around().join("in"), &bytes).expect("there is room");
        let connections = sample.one(&["", "--connections=8", "--synchronous"]);
        // QEMU has no URI for it, and checks the name of a host.
        let tcp = way.contains("tcp:");
        let qemu = r#"
            tls="--object tls-creds-x509,id=tls0,dir=certificates,endpoint=client --image-opts"
            image="driver=nbd,host=127.0.0.1,port=$port,export=lab,tls-creds=tls0"
            qemu-img info $tls "$image"
            qemu-io ${tls/--image-opts/} --image-opts -c "write -P 9 1M 3M" -c flush -c "read -P 9 1M 3M" "$image"
            dd if=in of="$PWD/part" bs=1M skip=1 count=3 status=none
            qemu-io ${tls/--image-opts/} --image-opts -c "write -s part 1M 3M" "$image""#;
        // It may not name a directory, and libnbd trusts any server then, over a socket in the file system.
        let fio = r#"fio --name=t --ioengine=nbd --uri="${uri/&*/}" --rw=randrw --bsrange=4k-256k --iodepth=16 \
            --verify=crc32c --verify_fatal=1 --do_verify=1 --numjobs=2 --size=4M --offset_increment=4M --fsync=50 \
            --output=fio.txt"#;
        let script = format!(
            r#"exec bash -ec '
            case "$uri" in nbd://*) uri="nbds://127.0.0.1:$port/?tls-certificates=$PWD/certificates" ;; esac
            nbdinfo "$uri"
            nbdcopy {connections} in "$uri"
            nbdcopy {connections} "$uri" out
            {}
            {}
            nbdcopy {connections} in "$uri"'"#,
            if tcp { qemu } else { "" },
            if way.is_empty() { fio } else { "" },
        );
        let ran = captive(&lab, &format!("{way} --tls-certificates certificates"), &script).expect_ok();
        assert!(ran.text().contains("with TLS") && !ran.text().contains("failed"), "{way}: {ran}");
        expect_same(&fs::read(lab.around().join("out")).expect("it was written"), &bytes);
        expect_same(&lab.read(), &bytes);
        assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0), "{way}");
        drop(certificates);
    }
}

fn who_shows_nothing() {
    let lab = Lab::create("--level 1 --disks 2 --size 12M");
    certificates::make(lab.around(), "ours");
    certificates::make(lab.around(), "theirs");
    // A client that trusts us and has nothing to show.
    fs::create_dir(lab.around().join("bare")).expect("there is none");
    fs::copy(lab.around().join("ours/ca-cert.pem"), lab.around().join("bare/ca-cert.pem")).expect("there is room");
    // Over a socket in the file system libnbd believes the server whatever it shows.
    let plain = "nbdinfo --size \"nbd://localhost:$port\"";
    let secure = |whose: &str| format!("nbdinfo --size \"nbds://localhost:$port/?tls-certificates=$PWD/{whose}\"");
    let is_let_in =
        |words: &str, command: &str| captive(&lab, &format!("{words} --nbd tcp:127.0.0.1:0"), command).code == Some(0);
    let required = "--tls-certificates ours";
    let offered = "--tls-certificates ours --tls on";
    let verified = "--tls-certificates ours --tls-verify-peer";
    for (words, command, expected) in [
        (required, plain, false),
        (required, &*secure("ours"), true),
        (required, &*secure("bare"), true),
        (required, &*secure("theirs"), false),
        (offered, plain, true),
        (offered, &*secure("ours"), true),
        (offered, &*secure("theirs"), false),
        (verified, plain, false),
        (verified, &*secure("ours"), true),
        (verified, &*secure("bare"), false),
        (verified, &*secure("theirs"), false),
        ("", &*secure("ours"), false),
    ] {
        assert_eq!(is_let_in(words, command), expected, "{words}: {command}");
    }
    // The protocol's own words; half a handshake of TLS, and rubbish instead of one, which hurt nobody.
    let script = r#"
import socket, struct
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.settimeout(10)
    assert s.recv(18, socket.MSG_WAITALL)[:16] == b"NBDMAGICIHAVEOPT"
    s.sendall(struct.pack(">I", 3))
    return s
def ask(s, option):
    s.sendall(b"IHAVEOPT" + struct.pack(">II", option, 0))
    magic, to, kind, length = struct.unpack(">QIII", s.recv(20, socket.MSG_WAITALL))
    s.recv(length, socket.MSG_WAITALL)
    return kind
s = connect()
assert ask(s, 3) == 0x80000005    # LIST: NBD_REP_ERR_TLS_REQD
assert ask(s, 8) == 0x80000005    # STRUCTURED_REPLY
s = connect()
s.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 0))    # EXPORT_NAME cannot be answered
assert s.recv(1) == b""
halves = []
for rubbish in [b"", b"\x16\x03\x01\x02\x00\x01", b"\x17\x03\x03" + b"\xff" * 1000, b"IHAVEOPT" * 100]:
    s = connect()
    assert ask(s, 5) == 1    # STARTTLS
    s.sendall(rubbish)
    halves.append(s)
h.set_uri_allow_local_file(True)
h.connect_uri(uri)
assert h.get_tls_negotiated()
h.pwrite(b"x" * 1048576, 512)
assert h.pread(1048576, 512) == b"x" * 1048576
"#;
    fs::write(lab.around().join("script.py"), script).expect("there is room");
    let command = "nbdsh -c \"path='$unixsocket'; uri='$uri'\" -c \"$(cat script.py)\"";
    captive(&lab, required, command).expect_ok();
}

fn a_public_server() {
    let lab = Lab::create("--level 1 --disks 2 --size 12M");
    certificates::make(lab.around(), "ours");
    let public = "serve lab --nbd tcp:0.0.0.0:0";
    lab.refuses(public, 3, "--listen-public");
    lab.refuses(&format!("{public} --tls-certificates ours"), 3, "--listen-public");
    lab.refuses(&format!("{public} --listen-public"), 3, "TLS is required there");
    lab.refuses(&format!("{public} --listen-public --tls-certificates ours --tls on"), 3, "TLS is required there");
    let words = "--nbd tcp:0.0.0.0:0 --listen-public --tls-certificates ours";
    let there = "nbdinfo --size \"nbds://localhost:$port/?tls-certificates=$PWD/ours\"";
    assert_eq!(captive(&lab, words, there).expect_ok().text().trim(), lab.size().to_string());

    lab.refuses("serve lab --tls require", 3, "--tls-certificates DIR");
    lab.refuses("serve lab --tls-verify-peer", 3, "--tls-certificates DIR");
    lab.refuses("serve lab --tls on --tls-certificates ours --tls-verify-peer", 3, "goes with --tls require");
    lab.refuses("serve lab --tls maybe", 3, "require");
    lab.refuses("serve lab --tls-certificates nowhere", 4, "nowhere/server-cert.pem: No such file");
    let ours = lab.around().join("ours");
    fs::create_dir(lab.around().join("bare")).expect("there is none");
    for name in ["server-cert.pem", "server-key.pem"] {
        fs::copy(ours.join(name), lab.around().join("bare").join(name)).expect("there is room");
    }
    lab.refuses("serve lab --tls-certificates bare --tls-verify-peer", 4, "bare/ca-cert.pem: No such file");
    let bare = captive(&lab, "--tls-certificates bare", "true").expect_ok();
    assert!(bare.stderr.contains("there is no bare/ca-cert.pem"), "{bare}");
    fs::copy(ours.join("client-key.pem"), ours.join("server-key.pem")).expect("there is room");
    lab.refuses("serve lab --tls-certificates ours", 4, "server-key.pem");
    fs::write(ours.join("server-key.pem"), "no key").expect("there is room");
    lab.refuses("serve lab --tls-certificates ours", 4, "server-key.pem: it holds no private key");
    assert_eq!(lab.state(), "clean");
}

/// A server, once it listens.
fn start(at: &Path, socket: &str, program: &str, words: &str) -> Running {
    let mut command = Command::new(program);
    let running = process::start(command.args(words.split_whitespace()).current_dir(at));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !at.join(socket).exists() {
        assert!(Instant::now() < deadline, "{}", running.kill());
        std::thread::sleep(Duration::from_millis(2));
    }
    running
}

/// An array whose disks are with nbdkit, with qemu-nbd and with raidlab, each under TLS.
fn members(mut sample: Sample) {
    let lab = Lab::nowhere();
    let at = lab.around();
    certificates::make(at, "ours");
    certificates::make(at, "theirs");
    for image in ["a.img", "b.img"] {
        let file = fs::File::create(at.join(image)).expect("there is room");
        file.set_len(24 << 20).expect("there is room");
    }
    let far = Lab::create("--level 1 --disks 2 --size 26M");
    std::os::unix::fs::symlink(at.join("ours"), far.around().join("ours")).expect("there is none");
    let kit = start(
        at,
        "a.sock",
        "nbdkit",
        "-f -U a.sock --tls=require --tls-certificates=ours --tls-verify-peer file a.img",
    );
    let words = format!(
        "-t -f raw -e 4 -k {}/b.sock -x b --object tls-creds-x509,id=tls0,endpoint=server,dir=ours,verify-peer=yes \
         --tls-creds tls0 b.img",
        at.display()
    );
    let qemu = start(at, "b.sock", "qemu-nbd", &words);
    let ours = far.call("serve lab --nbd unix:c.sock --tls-certificates ours --tls-verify-peer").start();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !far.around().join("c.sock").exists() {
        assert!(Instant::now() < deadline, "{}", ours.kill());
        std::thread::sleep(Duration::from_millis(2));
    }
    let far_socket = far.around().join("c.sock");
    let uris = |certificates: &str| {
        [
            format!("nbds+unix:///?socket=a.sock&tls-certificates={certificates}"),
            format!("nbds+unix:///b?socket=b.sock&tls-certificates={certificates}"),
            format!("nbds+unix:///?socket={}&tls-certificates={certificates}", far_socket.display()),
        ]
    };
    let create = |uris: &[String]| format!("create lab --level 5 --chunk 64K --members {}", uris.join(" "));
    lab.refuses(&create(&uris("theirs")), 4, "ca-cert.pem of ?tls-certificates=DIR");
    lab.refuses(&create(&uris("ours")).replace("nbds+", "nbd+"), 4, "nbds+unix://");
    lab.refuses(&create(&uris("nowhere")), 4, "nowhere/ca-cert.pem");
    let other = uris("ours")[0].clone() + "&tls-hostname=elsewhere.example";
    lab.refuses(&create(&[other, uris("ours")[1].clone(), uris("ours")[2].clone()]), 4, "?tls-hostname=NAME");
    assert!(!lab.file("lab.toml").exists());

    lab.ok(&create(&uris("ours")));
    let bytes = sample.bytes(lab.size() as usize);
    lab.write(0, &bytes);
    expect_same(&lab.read(), &bytes);
    assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0));
    for server in [kit, qemu, ours] {
        server.signal(rustix::process::Signal::TERM);
        server.wait(Duration::from_secs(20));
    }
}
