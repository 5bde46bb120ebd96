//! A disk behind several NBD connections, which are cut, kept waiting and made again while it is used.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::support::lab::{Lab, expect_same};
use crate::support::process::{self, Running};
use crate::support::sample::{self, Sample};
use crate::support::story::story;

pub fn trials() -> Vec<Trial> {
    vec![
        story("nbd_paths::servers_are_killed_stopped_and_started_again_in_turn_and_no_byte_is_lost")
            .needs(&["nbdkit", "fio"])
            .sampled_by(servers_in_turn),
        story("nbd_paths::connections_to_our_own_server_are_cut_and_stalled_in_turn")
            .needs(&["fio"])
            .sampled_by(connections_in_turn),
        story("nbd_paths::one_path_at_a_time_where_servers_share_no_cache")
            .needs(&["nbdkit"])
            .sampled_by(one_path_at_a_time),
        story("nbd_paths::what_cannot_be_paths_to_one_disk_is_refused")
            .needs(&["nbdkit"])
            .told_by(what_cannot_be_paths),
    ]
}

/// After so long without an answer a connection is given up.
const CMD_TIMEOUT: Duration = Duration::from_secs(10);

/// What a loaded computer may add to a stall.
const SLACK: Duration = Duration::from_secs(3);

struct Server {
    running: Running,
    socket: PathBuf,
}

impl Server {
    /// `nbdkit file IMAGE` behind a socket of this name, with `filters` and their parameters.
    fn start(at: &Path, image: &str, name: &str, filters: &str) -> Server {
        let socket = at.join(format!("{name}.sock"));
        // What a killed server leaves would be in the way of the next.
        let _ = fs::remove_file(&socket);
        let (filters, parameters) = filters.split_once(' ').unwrap_or((filters, ""));
        let words = format!("-f -U {} {filters} file {image} {parameters}", socket.display());
        let mut command = Command::new("nbdkit");
        let mut running = process::start(command.args(words.split_whitespace()).current_dir(at));
        assert!(running.wait_for_file(&socket, Duration::from_secs(10)), "{}", running.kill());
        Server { running, socket }
    }

    fn uri(&self) -> String {
        uri(&self.socket)
    }
}

fn uri(socket: &Path) -> String {
    format!("nbd+unix:///?socket={}", socket.display())
}

fn image(at: &Path, name: &str, bytes: u64) {
    fs::File::create(at.join(name)).and_then(|file| file.set_len(bytes)).expect("there is room");
}

/// A lab whose every error shows: without redundancy, over a disk with these paths and an image.
fn striped(lab: &Lab, uris: &[String]) {
    image(lab.around(), "b", 24 << 20);
    let words = ["create", "lab", "--level", "0", "--chunk", "64K", "--members", &uris.join("|"), "b"];
    lab.call_words(&words).run().expect_ok();
}

/// fio verifies what it wrote, for so many seconds.
fn fio(lab: &Lab, seed: u64, seconds: u64) -> Running {
    let job = format!(
        "fio --name=t --ioengine=nbd --uri=\"$uri\" --rw=randwrite --bs=8k --iodepth=8 --fsync=64 --verify=crc32c \
         --verify_fatal=1 --size=40M --loops=10000 --time_based --runtime={seconds} --randseed={} --output-format=json \
         --output=fio.json",
        seed >> 32
    );
    lab.call_words(&["serve", "lab", "--run", &job]).within(Duration::from_secs(seconds + 60)).start()
}

/// Waits for fio; nothing went wrong, and the longest wait of a request is no longer than was predicted.
fn expect_no_more(lab: &Lab, served: Running, predicted: Duration) {
    let ran = served.wait(Duration::from_secs(120)).expect_ok();
    // A path may fail, the disk may not.
    assert!(!ran.stderr.lines().any(|line| line.starts_with("Fail:")), "{ran}");
    assert!(ran.stderr.contains("PathFailed: disk-0"), "{ran}");
    let text = fs::read_to_string(lab.around().join("fio.json")).expect("fio has written it");
    let report: serde_json::Value = serde_json::from_str(&text[text.find('{').expect("it is JSON")..]).expect(&text);
    let job = &report["jobs"][0];
    assert_eq!(job["error"], 0, "{text}");
    let longest = ["read", "write", "sync"].map(|kind| {
        let latency = if kind == "sync" { "lat_ns" } else { "clat_ns" };
        job[kind][latency]["max"].as_f64().unwrap_or(0.0) / 1e9
    });
    let longest = longest.into_iter().fold(0.0, f64::max);
    println!("longest stall {longest:.3} s, predicted at most {:.3} s", predicted.as_secs_f64());
    assert!(longest <= (predicted + SLACK).as_secs_f64(), "{longest} s, predicted {predicted:?}");
    assert_eq!(lab.member("disk-0")["state"], "in sync");
}

fn servers_in_turn(mut sample: Sample) {
    let lab = Lab::nowhere();
    let at = lab.around();
    image(at, "a", 24 << 20);
    let start = |number: usize| Server::start(at, "a", &format!("path{number}"), "");
    let mut servers: Vec<Server> = (0..4).map(start).collect();
    let uris: Vec<String> = servers.iter().map(Server::uri).collect();
    striped(&lab, &uris);
    // Shorter than a connection is given up after, and, in full, longer.
    let stops: &[Duration] = match sample::is_full() {
        true => &[Duration::from_secs(3), CMD_TIMEOUT + Duration::from_secs(2)],
        false => &[Duration::from_secs(3)],
    };
    let stopped: Duration = stops.iter().sum();
    let served = fio(&lab, sample.seed(), 14 + stopped.as_secs());
    sleep(Duration::from_secs(2));
    for number in 0..4 {
        servers.remove(number).running.kill();
        sleep(Duration::from_millis(700));
        servers.insert(number, start(number));
        sleep(Duration::from_millis(700));
        // What it has under way is done when it wakes up, and may not be done again before.
        if let Some(length) = stops.get(number) {
            servers[(number + 2) % 4].running.signal(Signal::STOP);
            sleep(*length);
            servers[(number + 2) % 4].running.signal(Signal::CONT);
            sleep(Duration::from_millis(500));
        }
    }
    expect_no_more(&lab, served, *stops.iter().max().expect("there are some"));
}

/// What lies between a client and a socket: lets everything pass, keeps it, or is cut.
struct Between(Arc<AtomicU8>);

const PASS: u8 = 0;
const KEEP: u8 = 1;
const CUT: u8 = 2;

impl Between {
    fn start(at: &Path, to: PathBuf) -> Between {
        let way = Arc::new(AtomicU8::new(PASS));
        let listener = UnixListener::bind(at).expect("nobody listens there");
        let between = Between(Arc::clone(&way));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(server) = UnixStream::connect(&to) else { continue };
                let client = client.expect("somebody came");
                let twin = |stream: &UnixStream| stream.try_clone().expect("descriptors are left");
                for (from, to) in [(twin(&client), twin(&server)), (twin(&server), twin(&client))] {
                    let way = Arc::clone(&way);
                    std::thread::spawn(move || forward(from, to, &way));
                }
            }
        });
        between
    }

    fn set(&self, what: u8) {
        self.0.store(what, Ordering::SeqCst);
    }
}

fn forward(mut from: UnixStream, mut to: UnixStream, way: &AtomicU8) {
    let mut bytes = vec![0; 1 << 16];
    from.set_read_timeout(Some(Duration::from_millis(5))).expect("sockets have timeouts");
    while way.load(Ordering::SeqCst) != CUT {
        let count = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => count,
            Err(_) => continue,
        };
        while way.load(Ordering::SeqCst) == KEEP {
            sleep(Duration::from_millis(1));
        }
        if way.load(Ordering::SeqCst) == CUT || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // The other end may be gone already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn connections_in_turn(mut sample: Sample) {
    let lab = Lab::nowhere();
    let at = lab.around();
    lab.ok("create other --level 1 --disks 2 --size 25M");
    let sockets: Vec<PathBuf> = (0..4).map(|number| at.join(format!("end{number}"))).collect();
    let mut words = vec![String::from("serve"), String::from("other")];
    words.extend(sockets.iter().flat_map(|socket| [String::from("--nbd"), format!("unix:{}", socket.display())]));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut other = lab.call_words(&words).start();
    assert!(sockets.iter().all(|socket| other.wait_for_file(socket, Duration::from_secs(10))));
    let doors: Vec<PathBuf> = (0..4).map(|number| at.join(format!("door{number}"))).collect();
    let ways: Vec<Between> =
        doors.iter().zip(&sockets).map(|(door, socket)| Between::start(door, socket.clone())).collect();
    striped(&lab, &doors.iter().map(|door| uri(door)).collect::<Vec<_>>());

    lab.refuses("set lab 1.cmd_timeout=4", 3, "disk-1 has one path");
    lab.refuses("set lab 0.dev_loss_tmo=4", 3, "there is no setting of a disk's paths");
    lab.ok("set lab 0.cmd_timeout=4 0.polling_interval=2s");
    let timeout = Duration::from_secs(4);
    let stall = timeout + Duration::from_secs(4);
    let served = fio(&lab, sample.seed(), 10 + stall.as_secs());
    sleep(Duration::from_secs(1));
    for way in &ways {
        way.set(CUT);
        sleep(Duration::from_millis(500));
        way.set(PASS);
        sleep(Duration::from_millis(1200));
    }
    // Its requests are on the way for longer than anybody waits for them. The server is asked by the other paths to forget
    // the old connection: what is kept here is not done when it arrives.
    ways[2].set(KEEP);
    sleep(stall);
    ways[2].set(PASS);
    expect_no_more(&lab, served, timeout);
    other.signal(Signal::TERM);
    other.wait(Duration::from_secs(20)).expect_ok();
    assert_eq!(lab.ok("status other --json").json()["state"], "clean");
}

fn one_path_at_a_time(mut sample: Sample) {
    let lab = Lab::nowhere();
    let at = lab.around();
    image(at, "a", 24 << 20);
    let start = |name: &str| Server::start(at, "a", name, "--filter=multi-conn multi-conn-mode=disable");
    let (first, second) = (start("first"), start("second"));
    striped(&lab, &[first.uri(), second.uri()]);
    let mut running = lab.call("serve lab").start();
    assert!(running.wait_for_file(&lab.file("control.sock"), Duration::from_secs(10)));
    let bytes = sample.bytes(lab.size() as usize);
    // A path is called by its URI; one that was failed by hand is taken again when it is checked.
    let listed = lab.ok("path list lab").text().to_owned();
    assert!(listed.starts_with("disk-0 (36") && listed.contains(&first.uri()), "{listed}");
    lab.ok(&format!("path fail lab {}", second.uri()));
    lab.ok(&format!("path reinstate lab disk-0/{}", second.uri()));
    assert_eq!((&lab.status()["maps"][0]["active"], &lab.status()["maps"][0]["name"]), (&2.into(), &"disk-0".into()));
    // What was flushed is there by the other path when the first is gone.
    lab.write(0, &bytes);
    first.running.kill();
    expect_same(&lab.read(), &bytes);
    assert_eq!(lab.member("disk-0")["state"], "in sync");
    lab.ok("stop lab");
    running.wait(Duration::from_secs(20)).expect_ok();
}

fn what_cannot_be_paths() {
    let lab = Lab::nowhere();
    let at = lab.around();
    for (name, bytes) in [("a", 24 << 20), ("c", 24 << 20), ("small", 16 << 20), ("b", 24 << 20)] {
        image(at, name, bytes);
    }
    let servers = ["a", "c", "small"].map(|name| Server::start(at, name, name, ""));
    let [a, c, small] = servers.each_ref().map(Server::uri);
    let create = |paths: &str| lab.call_words(&["create", "lab", "--level", "1", "--members", paths, "b"]).run();
    let refused = |paths: String, code: i32, phrases: &[&str]| {
        let ran = create(&paths).expect_code(code);
        assert!(phrases.iter().all(|phrase| ran.stderr.contains(phrase)), "{ran}");
        assert!(!at.join("lab").exists(), "{paths}");
    };
    refused(format!("{a}|{a}"), 3, &["is named twice"]);
    refused(format!("{a}|./b"), 3, &["./b", "type nbd://HOST"]);
    refused(format!("{a}|{small}"), 4, &[a.as_str(), small.as_str(), "their sizes differ"]);
    let nowhere = uri(&at.join("nowhere"));
    refused(format!("{nowhere}|{nowhere}2"), 4, &["is its server running?"]);
    // Two that are blank look the same until something is written to one of them.
    refused(format!("{a}|{c}"), 4, &[a.as_str(), c.as_str(), "do not begin with the same bytes"]);

    // One that cannot be reached is a note, and is tried again whenever the lab is opened.
    let both = format!("{nowhere}|{a}");
    lab.call_words(&["create", "lab", "--level", "1", "--yes", "--members", &both, "b"]).run().expect_ok();
    let waited = lab.ok("wait lab");
    assert!(waited.stderr.contains(&nowhere) && waited.stderr.contains("its other paths are used"), "{waited}");
    let config = fs::read_to_string(lab.file("lab.toml")).expect("it is there");
    assert!(config.contains(&format!("\"{nowhere}\"")) && !config.contains('|'), "{config}");
}
