//! Disks behind NBD servers that nobody here wrote, and behind our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::support::lab::{Lab, expect_same, put};
use crate::support::process::{self, Running};
use crate::support::sample::Sample;
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("nbd_member::an_array_lives_on_servers_of_all_kinds")
            .needs(&["nbdkit", "qemu-nbd"])
            .sampled_by(servers_of_all_kinds),
        story("nbd_member::a_server_that_is_killed_costs_its_place_and_no_byte")
            .needs(&["nbdkit", "fio"])
            .sampled_by(a_server_that_is_killed),
        story("nbd_member::a_server_that_sleeps_is_waited_for_and_not_for_ever")
            .needs(&["nbdkit"])
            .sampled_by(a_server_that_sleeps),
        story("nbd_member::a_server_that_errs_is_mended_by_the_others")
            .needs(&["nbdkit"])
            .sampled_by(a_server_that_errs),
        story("nbd_member::what_cannot_be_a_member_is_refused").needs(&["nbdkit"]).told_by(what_cannot_be_a_member),
        story("nbd_member::members_are_examined_by_mdadm").needs(&["nbdkit", "mdadm"]).told_by(examined_by_mdadm),
    ]
}

/// A server of one image beside a lab.
struct Server {
    running: Running,
    socket: PathBuf,
}

impl Server {
    fn start(at: &Path, name: &str, program: &str, words: &str) -> Server {
        let socket = at.join(format!("{name}.sock"));
        // What a killed server leaves would be in the way of the next.
        let _ = fs::remove_file(&socket);
        let words = words.replace("SOCKET", &socket.display().to_string());
        let mut command = Command::new(program);
        let running = process::start(command.args(words.split_whitespace()).current_dir(at));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "{}", running.kill());
            sleep(Duration::from_millis(2));
        }
        Server { running, socket }
    }

    /// `nbdkit file IMAGE`, with `filters` and their parameters.
    fn nbdkit(at: &Path, image: &str, filters: &str) -> Server {
        let (filters, parameters) = filters.split_once(' ').unwrap_or((filters, ""));
        Server::start(at, image, "nbdkit", &format!("-f -U SOCKET {filters} file {image} {parameters}"))
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }
}

fn image(at: &Path, name: &str, bytes: u64) {
    fs::File::create(at.join(name)).and_then(|file| file.set_len(bytes)).expect("there is room");
}

fn servers_of_all_kinds(mut sample: Sample) {
    let lab = Lab::nowhere();
    let at = lab.around();
    for name in ["a", "b", "c"] {
        image(at, name, 16 << 20);
    }
    lab.ok("create other --level 1 --disks 2 --size 17M");
    let servers = [
        Server::nbdkit(at, "a", ""),
        Server::start(at, "memory", "nbdkit", "-f -U SOCKET memory 16M"),
        Server::start(at, "b", "qemu-nbd", "-t -f raw -k SOCKET b"),
        Server::start(at, "ours", env!("CARGO_BIN_EXE_raidlab"), "serve other --nbd unix:SOCKET"),
    ];
    let uris: Vec<String> = servers.iter().map(Server::uri).collect();
    let level = sample.one(&["5", "6", "10"]);
    lab.ok(&format!("create lab --level {level} --chunk 64K --members {} c --disks 5", uris.join(" ")));
    lab.ok("wait lab");
    let mut model = sample.bytes(lab.size() as usize);
    lab.write(0, &model);
    for _ in 0..4 {
        let offset = sample.below(model.len() as u64 - 300_000);
        let length = 1 + sample.below(300_000) as usize;
        let bytes = sample.bytes(length);
        lab.write(offset, &bytes);
        put(&mut model, offset, &bytes);
    }
    expect_same(&lab.read(), &model);
    lab.ok(&format!("fail lab {}", sample.below(5)));
    expect_same(&lab.read(), &model);
    let config = fs::read_to_string(lab.file("lab.toml")).expect("it is there");
    assert!(uris.iter().all(|uri| config.contains(uri.as_str())), "{config}");
    for server in servers {
        server.running.signal(Signal::TERM);
        server.running.wait(Duration::from_secs(10));
    }
    // Without servers there is one disk: too few, and it says which are out of reach.
    lab.refuses("read lab", 2, "is its server running?");
}

fn a_server_that_is_killed(mut sample: Sample) {
    let lab = Lab::nowhere();
    let at = lab.around();
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| image(at, name, 24 << 20));
    image(at, "d", 24 << 20);
    let mut servers: Vec<Server> = names.iter().map(|name| Server::nbdkit(at, name, "")).collect();
    let uris: Vec<String> = servers.iter().map(Server::uri).collect();
    lab.ok(&format!("create lab --level 5 --chunk 64K --bitmap internal --members {} d", uris.join(" ")));
    lab.ok("wait lab");
    lab.ok("set lab sync_speed_min=100000");

    let job = format!(
        "fio --name=t --ioengine=nbd --uri=\"$uri\" --rw=randwrite --bs=8k --iodepth=8 --verify=crc32c --verify_fatal=1 \
         --size=20M --loops=1000 --time_based --runtime=16 --randseed={} --output=fio.txt",
        sample.seed() >> 32
    );
    let served = lab.call_words(&["serve", "lab", "--run", &job]).start();
    sleep(Duration::from_millis(700));
    let victim = sample.below(3) as usize;
    servers.remove(victim).running.kill();
    let disk = format!("disk-{victim}");
    let deadline = Instant::now() + Duration::from_secs(15);
    while lab.member(&disk)["state"] != "faulty" {
        assert!(Instant::now() < deadline, "{}", lab.ok("status lab"));
        sleep(Duration::from_millis(20));
    }
    let _back = Server::nbdkit(at, names[victim], "");
    lab.ok(&format!("remove lab {disk}"));
    lab.ok(&format!("add lab {}", uris[victim]));
    let fio = served.wait(Duration::from_secs(60)).expect_ok();
    assert!(fio.stderr.contains(&format!("Fail: {disk}")), "{fio}");
    assert_eq!((lab.state().as_str(), lab.mismatches()), ("clean", 0));
}

fn a_server_that_sleeps(mut sample: Sample) {
    let lab = Lab::nowhere();
    let at = lab.around();
    image(at, "a", 16 << 20);
    image(at, "b", 16 << 20);
    let server = Server::nbdkit(at, "a", "");
    lab.ok(&format!("create lab --level 1 --members {} b", server.uri()));
    lab.ok("wait lab");
    let bytes = sample.bytes(1 << 20);

    // A while is nothing.
    server.running.signal(Signal::STOP);
    let write = lab.call("write lab").stdin(&bytes).start();
    sleep(Duration::from_secs(2));
    server.running.signal(Signal::CONT);
    write.wait(Duration::from_secs(20)).expect_ok();
    assert_eq!(lab.state(), "clean");

    // For ever is not: the disk fails, and those that are left go on.
    let running = lab.call("serve lab").start();
    while !lab.file("control.sock").exists() {
        sleep(Duration::from_millis(5));
    }
    server.running.signal(Signal::STOP);
    let began = Instant::now();
    lab.write(0, &bytes);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(lab.member("disk-0")["state"], "faulty");
    expect_same(&lab.ok("read lab --length 1M").stdout, &bytes);
    server.running.signal(Signal::CONT);
    lab.ok("stop lab");
    running.wait(Duration::from_secs(20)).expect_ok();
}

fn a_server_that_errs(mut sample: Sample) {
    let lab = Lab::nowhere();
    let at = lab.around();
    for name in ["a", "b", "c"] {
        image(at, name, 16 << 20);
    }
    let server = Server::nbdkit(at, "a", "");
    lab.ok(&format!("create lab --level 5 --chunk 64K --members {} b c", server.uri()));
    lab.ok("wait lab");
    let bytes = sample.bytes(lab.size() as usize);
    lab.write(0, &bytes);
    server.running.kill();
    let _server = Server::nbdkit(at, "a", "--filter=error error-pread-rate=5%");
    expect_same(&lab.read(), &bytes);
}

fn what_cannot_be_a_member() {
    let lab = Lab::nowhere();
    let at = lab.around();
    for (name, bytes) in [("a", 16 << 20), ("b", 16 << 20), ("tiny", 64 << 10), ("e", 16 << 20)] {
        image(at, name, bytes);
    }
    let create = |uri: &str| format!("create lab --level 1 --members {uri} b");
    for (uri, code, phrase) in [
        ("nbd://127.0.0.1:1/x", 4, "is its server running?"),
        ("nbd+unix:///?socket=nowhere", 4, "is its server running?"),
        ("nbds://there/x", 3, "tls-certificates"),
        ("nbd:there", 3, "type nbd://HOST"),
    ] {
        lab.refuses(&create(uri), code, phrase);
        assert!(!at.join("lab").exists(), "{uri}");
    }
    let read_only = Server::nbdkit(at, "e", "-r");
    lab.refuses(&create(&read_only.uri()), 4, "read-only");
    let tiny = Server::nbdkit(at, "tiny", "");
    lab.refuses(&create(&tiny.uri()), 3, "");

    let server = Server::nbdkit(at, "a", "");
    let uri = server.uri();
    lab.refuses(&format!("create lab --level 1 --members {uri} {uri}"), 3, "is named twice");
    fs::write(at.join("b"), "somebody's")
        .and_then(|()| fs::File::options().write(true).open(at.join("b"))?.set_len(16 << 20))
        .expect("there is room");
    lab.refuses(&create(&uri), 3, "is not blank");
    lab.ok(&format!("{} --yes", create(&uri)));
    lab.refuses(&format!("assemble second {uri} b --overlay"), 3, "overlays are made for images");
    // The same export by another name.
    lab.refuses(&format!("add lab nbd+unix:///other?socket={}", server.socket.display()), 3, "is a member already");
}

fn examined_by_mdadm() {
    let lab = Lab::nowhere();
    let at = lab.around();
    image(at, "a", 16 << 20);
    image(at, "b", 16 << 20);
    let server = Server::nbdkit(at, "a", "");
    lab.ok(&format!("create lab --level 1 --members {} b --name far", server.uri()));
    lab.ok("wait lab");
    let ours = lab.ok(&format!("examine {}", server.uri()));
    let mdadm = process::run(Command::new("mdadm").args(["--examine", "a"]).current_dir(at), Duration::from_secs(10));
    let mdadm = mdadm.expect_ok();
    let without_name = |text: &str| text.split_once('\n').map(|(_, rest)| rest.to_owned());
    assert_eq!(without_name(ours.text()), without_name(mdadm.text()));

    // The lab is forgotten, its members are not.
    fs::remove_dir_all(at.join("lab")).expect("it is ours");
    lab.ok(&format!("assemble again {} b", server.uri()));
    assert_eq!(lab.ok("status again --json").json()["state"], "clean");
}
