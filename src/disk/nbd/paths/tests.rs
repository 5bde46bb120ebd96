//! Servers behind several sockets that close, fall silent and wake up; a multipath layer over their paths in real time.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags};

use super::*;
use crate::block::{Bank, Completion, State as VolumeState, States};
use crate::disk::MemBank;
use crate::export::nbd::{self as export, Connection, Endpoint, Export, Listener, Work};
use crate::multipath::Multipath;
use crate::multipath::settings::{Checker, Grouping, NoPathRetry, Prio, RetrySafety, Settings};
use crate::nbd::{NbdServer, Side};
use crate::reactor::{Reactor, Service};

const SECTORS: u64 = 4096;
const OPTIONS: NbdPathOptions = NbdPathOptions {
    cmd_timeout: Duration::from_millis(400),
    hold_max: Duration::from_millis(2500),
    connect_max: Duration::from_millis(400),
};

/// A server that is reached at several sockets, each with a mind of its own.
struct Server {
    volume: Arc<Mutex<Vec<u8>>>,
    flushes: Arc<AtomicUsize>,
    ports: Vec<Arc<Port>>,
    directory: tempfile::TempDir,
}

/// What becomes of requests that come in at one socket.
#[derive(Default)]
struct Port {
    /// They are carried out when it is not any more.
    is_silent: AtomicBool,
    /// Its connections are closed, and new ones, too.
    is_dead: AtomicBool,
    writes: AtomicUsize,
    flushes: AtomicUsize,
}

impl Server {
    fn start(ports: usize) -> Server {
        let mut server = Server {
            volume: Arc::new(Mutex::new(vec![0; SECTORS as usize * 512])),
            flushes: Arc::default(),
            ports: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
        };
        for number in 0..ports {
            server.ports.push(Arc::default());
            server.listen(number, SECTORS);
        }
        server
    }

    fn socket(&self, number: usize) -> PathBuf {
        self.directory.path().join(number.to_string())
    }

    fn listen(&self, number: usize, sectors: u64) {
        let _ = std::fs::remove_file(self.socket(number));
        let listener = UnixListener::bind(self.socket(number)).unwrap();
        let (volume, port, flushes) =
            (Arc::clone(&self.volume), Arc::clone(&self.ports[number]), Arc::clone(&self.flushes));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (volume, port, flushes) = (Arc::clone(&volume), Arc::clone(&port), Arc::clone(&flushes));
                std::thread::spawn(move || serve(stream.unwrap(), &volume, &port, &flushes, sectors));
            }
        });
    }

    fn uris(&self) -> Vec<NbdUri> {
        (0..self.ports.len()).map(|number| uri(&self.socket(number))).collect()
    }

    fn rig(&self) -> Rig {
        Rig::new(&self.uris(), Grouping::Multibus)
    }

    /// With one path used at a time, the first to begin with.
    fn rig_of_one_path(&self) -> Rig {
        Rig::new(&self.uris(), Grouping::Failover)
    }

    fn set(&self, number: usize, flag: impl Fn(&Port) -> &AtomicBool, value: bool) {
        flag(&self.ports[number]).store(value, Ordering::SeqCst);
    }

    fn byte(&self, sector: u64) -> u8 {
        self.volume.lock().unwrap()[sector as usize * 512]
    }
}

fn uri(socket: &Path) -> NbdUri {
    NbdUri { server: NbdServer::Unix(socket.to_owned()), export: String::new(), tls: None }
}

/// One client, until it goes or the port is dead.
fn serve(mut stream: UnixStream, volume: &Mutex<Vec<u8>>, port: &Port, flushes: &AtomicUsize, sectors: u64) {
    let export = Export::new("", "", Limits::of_disk(Sectors(sectors)), false);
    let mut connection = Connection::new(Rc::new(export), export::Secrecy::None, Instant::START);
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    loop {
        if port.is_dead.load(Ordering::SeqCst) {
            return;
        }
        while connection.has_output() {
            let bytes: Vec<u8> = connection.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            if stream.write_all(&bytes).is_err() {
                return;
            }
            connection.sent(bytes.len());
        }
        connection.go_on();
        while let Some(Work::Io { piece, extent, mut op }) = connection.next_work() {
            while port.is_silent.load(Ordering::SeqCst) && !port.is_dead.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
            }
            if port.is_dead.load(Ordering::SeqCst) {
                return;
            }
            carry_out(&mut volume.lock().unwrap(), extent, &mut op);
            port.writes.fetch_add(usize::from(op.is_write()), Ordering::SeqCst);
            let is_flush = usize::from(matches!(op, Op::Flush));
            port.flushes.fetch_add(is_flush, Ordering::SeqCst);
            flushes.fetch_add(is_flush, Ordering::SeqCst);
            connection.completed(piece, op, Ok(()));
        }
        if connection.has_output() {
            continue;
        }
        let mut bytes = vec![0; connection.spaces().iter().map(|space| space.len()).sum()];
        let count = match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => count,
            Err(_) => continue,
        };
        let mut rest = &bytes[..count];
        for mut space in connection.spaces() {
            let now = rest.len().min(space.len());
            space[..now].copy_from_slice(&rest[..now]);
            rest = &rest[now..];
        }
        connection.received(count);
    }
}

fn carry_out(volume: &mut [u8], extent: Extent, op: &mut Op) {
    let range = extent.start.bytes() as usize..extent.end().bytes() as usize;
    match op {
        Op::Read(buf) => buf.copy_from(&volume[range]),
        Op::Write(payload, _) => volume[range].copy_from_slice(&payload.to_vec()),
        Op::WriteZeroes(_) | Op::Discard => volume[range].fill(0),
        Op::Flush => {}
    }
}

/// The paths under a map, and a clock.
struct Rig {
    multipath: Multipath<NbdPaths>,
    started: std::time::Instant,
    asked: u64,
    done: Vec<Completion>,
}

impl Rig {
    fn new(uris: &[NbdUri], grouping: Grouping) -> Rig {
        let (paths, troubles) = NbdPaths::open(uris, false, OPTIONS).unwrap();
        assert!(troubles.is_empty(), "{troubles:?}");
        let settings = Settings {
            grouping,
            prio: Prio::Const,
            no_path_retry: NoPathRetry::Checks(4),
            checker: Checker::DirectIo,
            polling_interval: Duration::from_secs(1),
            max_polling_interval: Duration::from_secs(1),
            retry_safety: RetrySafety::Fence,
            ..Settings::default()
        };
        let multipath = Multipath::new(paths, settings);
        Rig { multipath, started: std::time::Instant::now(), asked: 0, done: Vec::new() }
    }

    fn now(&self) -> Instant {
        Instant::START + self.started.elapsed()
    }

    fn switch(&mut self, path: usize) {
        let now = self.now();
        self.multipath.switch_group(UNIT, path, now);
    }

    fn ask(&mut self, start: u64, length: u64, op: Op) -> RequestId {
        let id = RequestId(self.asked);
        self.asked += 1;
        let now = self.now();
        self.multipath.submit(UNIT, Request::new(id, Extent::new(Lba(start), Sectors(length)), op), now);
        id
    }

    fn ask_write(&mut self, start: u64, byte: u8) -> RequestId {
        self.ask(start, 8, Op::Write(Payload::copy_of(&[byte; 4096]), Durability::Volatile))
    }

    /// Goes on until `until` says so; whether it does within `longest`.
    fn run(&mut self, longest: Duration, until: impl Fn(&Rig) -> bool) -> bool {
        let begun = std::time::Instant::now();
        loop {
            let (now, mut done) = (self.now(), Vec::new());
            self.multipath.poll(now, &mut done);
            self.done.extend(done.into_iter().map(|(_, completion)| completion));
            if until(self) {
                return true;
            }
            let Some(left) = longest.checked_sub(begun.elapsed()) else { return false };
            let due = self.multipath.next_deadline().map_or(left, |due| due.since(self.now()));
            let sleep = due.min(left).min(Duration::from_millis(20));
            if !sleep.is_zero() {
                let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
                let epoll = self.multipath.wakeups()[0];
                rustix::event::poll(&mut [PollFd::from_borrowed_fd(epoll, PollFlags::IN)], Some(&timeout)).unwrap();
            }
        }
    }

    fn is_done(&self, id: RequestId) -> bool {
        self.done.iter().any(|completion| completion.id == id)
    }

    fn take(&mut self, id: RequestId) -> (Op, Result<(), IoError>) {
        assert!(self.run(Duration::from_secs(20), |rig| rig.is_done(id)), "{id:?} does not come back");
        let at = self.done.iter().position(|completion| completion.id == id).unwrap();
        let completion = self.done.swap_remove(at);
        (completion.op, completion.result)
    }

    fn write(&mut self, start: u64, byte: u8) -> Result<(), IoError> {
        let id = self.ask_write(start, byte);
        self.take(id).1
    }

    fn read(&mut self, start: u64) -> Result<u8, IoError> {
        let id = self.ask(start, 8, Op::Read(Buf::zeroed(4096)));
        match self.take(id) {
            (Op::Read(buf), Ok(())) => Ok(buf.to_vec()[4095]),
            (_, result) => Err(result.unwrap_err()),
        }
    }

    fn flush(&mut self) -> Result<(), IoError> {
        let id = self.ask(0, 0, Op::Flush);
        self.take(id).1
    }

    fn are_up(&self) -> usize {
        self.multipath.fabric().ways.iter().filter(|way| way.is_up()).count()
    }

    fn wait_for_paths(&mut self, count: usize) {
        assert!(self.run(Duration::from_secs(5), |rig| rig.are_up() == count), "{} paths are up", self.are_up());
    }
}

#[test]
fn all_paths_take_their_share_and_a_flush_down_one_covers_all() {
    let server = Server::start(4);
    let mut rig = server.rig();
    let ids: Vec<RequestId> = (0..64).map(|at| rig.ask_write(8 * at, at as u8)).collect();
    assert!(ids.into_iter().all(|id| rig.take(id).1.is_ok()));
    assert!(server.ports.iter().all(|port| port.writes.load(Ordering::SeqCst) > 4));
    assert!((0..64).all(|at| rig.read(8 * at) == Ok(at as u8)));
    assert_eq!((rig.flush(), server.flushes.load(Ordering::SeqCst)), (Ok(()), 1));
    assert_eq!(rig.multipath.fabric().paths()[0].fencing, Fencing::None);
}

#[test]
fn a_path_whose_server_dies_costs_nothing_and_comes_back_by_itself() {
    let server = Server::start(2);
    let mut rig = server.rig();
    let begun = std::time::Instant::now();
    let ids: Vec<RequestId> = (0..40)
        .map(|at| {
            if at == 20 {
                server.set(0, |port| &port.is_dead, true);
            }
            rig.ask_write(8 * at, at as u8)
        })
        .collect();
    assert!(ids.into_iter().all(|id| rig.take(id).1.is_ok()));
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert!((0..40).all(|at| rig.read(8 * at) == Ok(at as u8)));
    server.set(0, |port| &port.is_dead, false);
    let is_back = |rig: &Rig| rig.multipath.maps()[0].paths().iter().all(|path| path.active);
    assert!(rig.run(Duration::from_secs(4), is_back), "a check finds it");
}

/// It has the write, and carries it out when it wakes up: nothing newer may be written there before.
#[test]
fn a_write_that_a_silent_server_has_is_not_done_again_before_it_wakes_up() {
    let server = Server::start(2);
    let mut rig = server.rig_of_one_path();
    server.set(0, |port| &port.is_silent, true);
    let (write, read) = (rig.ask_write(80, 1), rig.ask(160, 8, Op::Read(Buf::zeroed(4096))));
    assert_eq!(rig.take(read).1, Ok(()), "a read goes down the other path");
    assert_eq!((rig.write(240, 9), rig.read(240)), (Ok(()), Ok(9)), "and so does what is written elsewhere");
    assert!(!rig.run(Duration::from_millis(600), |rig| rig.is_done(write)));
    assert_eq!((server.byte(80), rig.multipath.fabric().is_closed()), (0, false));
    server.set(0, |port| &port.is_silent, false);
    assert_eq!(rig.take(write).1, Ok(()));
    assert_eq!((rig.write(80, 2), rig.read(80)), (Ok(()), Ok(2)));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.byte(80), 2);
}

#[test]
fn a_silent_server_that_is_killed_has_let_go_of_what_it_had() {
    let server = Server::start(2);
    let mut rig = server.rig_of_one_path();
    server.set(0, |port| &port.is_silent, true);
    let write = rig.ask_write(80, 1);
    assert!(!rig.run(Duration::from_millis(800), |rig| rig.is_done(write)));
    server.set(0, |port| &port.is_dead, true);
    assert_eq!(rig.take(write).1, Ok(()));
    assert_eq!(server.byte(80), 1);
}

#[test]
fn a_server_that_stays_silent_closes_the_disk_until_it_has_let_go() {
    let server = Server::start(2);
    let mut rig = server.rig_of_one_path();
    server.set(0, |port| &port.is_silent, true);
    let begun = std::time::Instant::now();
    let write = rig.ask_write(80, 1);
    assert_eq!(rig.take(write).1, Err(IoError::Fenced));
    let (took, longest) = (begun.elapsed(), OPTIONS.cmd_timeout + OPTIONS.hold_max);
    assert!(took >= longest && took < longest + Duration::from_millis(800), "{took:?}, predicted {longest:?}");
    assert_eq!(
        (rig.read(800), rig.write(800, 3), rig.flush()),
        (Err(IoError::Fenced), Err(IoError::Fenced), Err(IoError::Fenced))
    );
    server.set(0, |port| &port.is_silent, false);
    assert!(rig.run(Duration::from_secs(2), |rig| !rig.multipath.fabric().is_closed()));
    assert_eq!((rig.write(80, 2), rig.read(80), server.byte(80)), (Ok(()), Ok(2), 2));
}

#[test]
fn what_was_not_flushed_is_in_doubt_only_if_no_connection_has_lived_since() {
    let server = Server::start(2);
    let mut rig = server.rig();
    assert_eq!(rig.write(80, 1), Ok(()));
    // One is lost: what was written is flushed down the other at once.
    server.set(0, |port| &port.is_dead, true);
    rig.wait_for_paths(1);
    assert!(rig.run(Duration::from_secs(1), |_| server.ports[1].flushes.load(Ordering::SeqCst) == 1));
    server.set(0, |port| &port.is_dead, false);
    rig.wait_for_paths(2);
    server.set(1, |port| &port.is_dead, true);
    rig.wait_for_paths(1);
    server.set(1, |port| &port.is_dead, false);
    rig.wait_for_paths(2);
    assert_eq!((rig.read(80), rig.flush()), (Ok(1), Ok(())));
    // Both are lost: whatever comes back may have forgotten.
    assert_eq!(rig.write(80, 2), Ok(()));
    (0..2).for_each(|number| server.set(number, |port| &port.is_dead, true));
    rig.wait_for_paths(0);
    (0..2).for_each(|number| server.set(number, |port| &port.is_dead, false));
    rig.wait_for_paths(2);
    assert_eq!((rig.read(80), rig.flush()), (Err(IoError::Medium), Err(IoError::Medium)));
    assert_eq!((rig.flush(), rig.write(80, 3), rig.read(80)), (Ok(()), Ok(()), Ok(3)));
}

#[test]
fn where_connections_share_no_cache_the_old_one_is_flushed_before_another_is_used() {
    let server = Server::start(2);
    let mut rig = server.rig_of_one_path();
    rig.multipath.fabric_mut().facts.flags.remove(TransmissionFlags::CAN_MULTI_CONN);
    assert_eq!(rig.write(80, 1), Ok(()));
    rig.switch(1);
    assert_eq!(rig.read(80), Ok(1));
    let flushes = |number: usize| server.ports[number].flushes.load(Ordering::SeqCst);
    assert_eq!((flushes(0), flushes(1)), (1, 0));
    // Where it died it cannot be: the other path lives, and knows nothing of what was written.
    assert_eq!(rig.write(160, 2), Ok(()));
    server.set(1, |port| &port.is_dead, true);
    rig.wait_for_paths(1);
    assert_eq!((rig.read(160), rig.flush(), rig.read(80)), (Err(IoError::Medium), Err(IoError::Medium), Ok(1)));
}

#[test]
fn paths_to_two_disks_are_refused_and_one_that_cannot_be_reached_is_a_remark() {
    let (server, other) = (Server::start(2), Server::start(1));
    let both = [server.uris(), other.uris()].concat();
    let refused = |uris: &[NbdUri]| NbdPaths::open(uris, false, OPTIONS).map(|_| ()).unwrap_err().to_string();
    other.volume.lock().unwrap()[5000] = 1;
    let error = refused(&both);
    assert!(error.contains("do not begin with the same bytes"), "{error}");
    assert!(error.contains(&both[0].to_string()) && error.contains(&both[2].to_string()), "{error}");
    other.listen(0, SECTORS - 8);
    assert!(refused(&both).contains("their sizes differ"));
    let nowhere = uri(&server.socket(7));
    let (paths, troubles) = NbdPaths::open(&[nowhere.clone(), both[0].clone()], false, OPTIONS).unwrap();
    assert_eq!((paths.link(PathId(0)), paths.link(PathId(1))), (Link::FastFailed, Link::Online));
    assert!(troubles[0].to_string().contains(&nowhere.to_string()), "{troubles:?}");
    assert!(refused(&[nowhere]).contains("is its server running?"));
}

#[test]
fn a_path_that_leads_to_another_disk_is_not_taken_back() {
    let server = Server::start(2);
    let mut rig = server.rig();
    let forced = Op::Write(Payload::copy_of(&[7; 4096]), Durability::Fua);
    let id = rig.ask(80, 8, forced);
    assert_eq!(rig.take(id).1, Ok(()));
    let other = Server::start(1);
    server.set(0, |port| &port.is_dead, true);
    rig.wait_for_paths(1);
    std::fs::rename(other.socket(0), server.socket(0)).unwrap();
    assert!(!rig.run(Duration::from_secs(1), |rig| rig.are_up() == 2), "it lacks what was forced");
    other.volume.lock().unwrap()[80 * 512..88 * 512].fill(7);
    rig.wait_for_paths(2);
}

/// A volume of our own server that keeps writes as long as it is told to.
struct Slow {
    bank: MemBank,
    kept: Vec<(DeviceId, Request)>,
    is_slow: Arc<AtomicBool>,
}

impl Bank for Slow {
    fn limits(&self, device: DeviceId) -> Limits {
        self.bank.limits(device)
    }
    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        match self.is_slow.load(Ordering::SeqCst) && request.op.is_write() {
            true => self.kept.push((device, request)),
            false => self.bank.submit(device, request, now),
        }
    }
    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        if !self.is_slow.load(Ordering::SeqCst) {
            self.kept.drain(..).for_each(|(device, request)| self.bank.submit(device, request, now));
        }
        self.bank.poll(now, done);
    }
    fn next_deadline(&self) -> Option<Instant> {
        self.bank.next_deadline()
    }
}

impl Wakeups for Slow {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}

impl States for Slow {
    fn states(&self, extent: Extent) -> Vec<(Sectors, VolumeState)> {
        vec![(extent.length, VolumeState::InSync)]
    }
}

/// Our own server, in a thread that ends with it.
struct Ours {
    is_slow: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    directory: tempfile::TempDir,
}

impl Ours {
    fn start() -> Ours {
        let ours = Ours { is_slow: Arc::default(), is_over: Arc::default(), directory: tempfile::tempdir().unwrap() };
        let (is_slow, is_over) = (Arc::clone(&ours.is_slow), Arc::clone(&ours.is_over));
        let endpoints = [0, 1].map(|number| Endpoint::Unix(ours.socket(number)));
        let listeners = endpoints.iter().map(|endpoint| Listener::bind(endpoint).unwrap()).collect::<Vec<_>>();
        std::thread::spawn(move || {
            let mut bank = MemBank::new();
            let device = bank.add(Limits::of_disk(Sectors(SECTORS)));
            let export = Export { server: Some(77), ..Export::new("", "", bank.limits(device), false) };
            let mut reactor = Reactor::new(Slow { bank, kept: Vec::new(), is_slow });
            let mut server = export::Server::new(export, listeners, None);
            let mut service = Service::begin(&reactor, device, &mut [&mut server]).unwrap();
            while !is_over.load(Ordering::SeqCst) {
                service.turn(&mut reactor, &mut [&mut server]);
                service.wait(&reactor, &mut [&mut server]).unwrap();
            }
        });
        ours
    }

    fn socket(&self, number: usize) -> PathBuf {
        self.directory.path().join(number.to_string())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// What lies between a client and a socket, and keeps bytes as long as it is told to.
fn proxy(at: &Path, to: PathBuf, is_stalled: &Arc<AtomicBool>) {
    let listener = UnixListener::bind(at).unwrap();
    let is_stalled = Arc::clone(is_stalled);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), UnixStream::connect(&to).unwrap());
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server.try_clone().unwrap(), client.try_clone().unwrap()),
            ] {
                let is_stalled = Arc::clone(&is_stalled);
                std::thread::spawn(move || {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        while is_stalled.load(Ordering::SeqCst) {
                            std::thread::sleep(Duration::from_millis(2));
                        }
                        if to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
}

/// The first path is stalled on the way, the server is well: it ends the session's old connection when it hears of a newer
/// one by the second path, and what is still on its way to it is never carried out.
#[test]
fn a_server_that_knows_sessions_ends_the_lost_connection_when_another_path_asks() {
    let (ours, is_stalled) = (Ours::start(), Arc::new(AtomicBool::new(false)));
    let between = ours.directory.path().join("between");
    proxy(&between, ours.socket(0), &is_stalled);
    let mut rig = Rig::new(&[uri(&between), uri(&ours.socket(1))], Grouping::Failover);
    assert_eq!(rig.multipath.fabric().paths()[0].fencing, Fencing::Session);
    assert_eq!(rig.write(80, 1), Ok(()));
    is_stalled.store(true, Ordering::SeqCst);
    let begun = std::time::Instant::now();
    let write = rig.ask_write(80, 2);
    assert_eq!(rig.take(write).1, Ok(()));
    assert!(begun.elapsed() < OPTIONS.cmd_timeout + Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!((rig.write(80, 3), rig.read(80)), (Ok(()), Ok(3)));
    is_stalled.store(false, Ordering::SeqCst);
    rig.wait_for_paths(2);
    assert_eq!((rig.read(80), rig.flush()), (Ok(3), Ok(())));
}

/// What the volume has begun for the old connection ends first.
#[test]
fn a_session_goes_on_only_when_nothing_of_the_old_connection_is_under_way() {
    let (ours, is_stalled) = (Ours::start(), Arc::new(AtomicBool::new(false)));
    let between = ours.directory.path().join("between");
    proxy(&between, ours.socket(0), &is_stalled);
    let mut rig = Rig::new(&[uri(&between), uri(&ours.socket(1))], Grouping::Failover);
    ours.is_slow.store(true, Ordering::SeqCst);
    let write = rig.ask_write(80, 1);
    // The server has it; its way back is lost.
    assert!(!rig.run(Duration::from_millis(100), |rig| rig.is_done(write)));
    is_stalled.store(true, Ordering::SeqCst);
    assert!(!rig.run(Duration::from_secs(1), |rig| rig.is_done(write)), "the volume is still at it");
    ours.is_slow.store(false, Ordering::SeqCst);
    assert_eq!(rig.take(write).1, Ok(()));
    assert_eq!((rig.write(80, 2), rig.read(80)), (Ok(()), Ok(2)));
}
