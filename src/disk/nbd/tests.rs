//! Servers that die, fall silent, forget, and come back as others; the bank in real time.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use super::*;
use crate::block::Payload;
use crate::export::nbd::{self, Connection, Export, Work};
use crate::nbd::{ClientOption, Greeting, HandshakeFlags, Info, InfoQuery, OptionReply, Side};

const SECTORS: u64 = 4096;
const OPTIONS: NbdOptions =
    NbdOptions { request_max: Duration::from_millis(600), outage_max: Duration::from_millis(400) };

/// What a server does next.
#[derive(Default)]
struct Orders {
    volume: Vec<u8>,
    /// Writes it carries out before it closes each connection without an answer.
    dies_after: Option<usize>,
    is_silent: bool,
    connections: usize,
    flushes: usize,
}

/// A server in a thread, and where it is.
struct Server {
    orders: Arc<Mutex<Orders>>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let volume = vec![0; SECTORS as usize * 512];
        let orders = Arc::new(Mutex::new(Orders { volume, ..Orders::default() }));
        let server = Server { orders, path, _directory: directory };
        server.listen(SECTORS);
        server
    }

    fn listen(&self, sectors: u64) {
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path).unwrap();
        let orders = Arc::clone(&self.orders);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let orders = Arc::clone(&orders);
                orders.lock().unwrap().connections += 1;
                std::thread::spawn(move || serve(stream.unwrap(), &orders, sectors));
            }
        });
    }

    fn uri(&self) -> NbdUri {
        NbdUri { server: NbdServer::Unix(self.path.clone()), export: String::new(), tls: None }
    }

    fn bank(&self) -> Rig {
        let mut bank = NbdBank::new(OPTIONS).unwrap();
        assert_eq!(bank.open(&self.uri(), false).unwrap(), DISK);
        Rig { bank, started: std::time::Instant::now(), next: 0 }
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.lock().unwrap());
    }
}

/// One client, until it goes or orders say so.
fn serve(mut stream: impl Read + Write, orders: &Mutex<Orders>, sectors: u64) {
    let export = Export::new("", "", Limits::of_disk(Sectors(sectors)), false);
    let mut connection = Connection::new(Rc::new(export), nbd::Secrecy::None, Instant::START);
    loop {
        while connection.has_output() {
            let bytes: Vec<u8> = connection.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            if stream.write_all(&bytes).is_err() {
                return;
            }
            connection.sent(bytes.len());
        }
        connection.go_on();
        while let Some(Work::Io { piece, extent, mut op }) = connection.next_work() {
            while orders.lock().unwrap().is_silent {
                std::thread::sleep(Duration::from_millis(5));
            }
            let mut orders = orders.lock().unwrap();
            let range = extent.start.bytes() as usize..extent.end().bytes() as usize;
            match &mut op {
                Op::Read(buf) => buf.copy_from(&orders.volume[range]),
                Op::Write(payload, _) => orders.volume[range].copy_from_slice(&payload.to_vec()),
                Op::WriteZeroes(_) | Op::Discard => orders.volume[range].fill(0),
                Op::Flush => orders.flushes += 1,
            }
            if let Some(left) = &mut orders.dies_after {
                if *left == 0 {
                    orders.dies_after = None;
                    return;
                }
                *left -= 1;
            }
            connection.completed(piece, op, Ok(()));
        }
        if connection.has_output() {
            continue;
        }
        let spaces = connection.spaces();
        let mut bytes = vec![0; spaces.iter().map(|space| space.len()).sum()];
        drop(spaces);
        let Ok(count @ 1..) = stream.read(&mut bytes) else { return };
        let mut rest = &bytes[..count];
        for mut space in connection.spaces() {
            let now = rest.len().min(space.len());
            space[..now].copy_from_slice(&rest[..now]);
            rest = &rest[now..];
        }
        connection.received(count);
    }
}

const DISK: DeviceId = DeviceId(0);

/// The bank and a clock.
struct Rig {
    bank: NbdBank,
    started: std::time::Instant,
    next: u64,
}

impl Rig {
    fn now(&self) -> Instant {
        Instant::START + self.started.elapsed()
    }

    fn ask(&mut self, start: u64, length: u64, op: Op) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        let now = self.now();
        self.bank.submit(DISK, Request::new(id, Extent::new(Lba(start), Sectors(length)), op), now);
        id
    }

    /// Sleeps as the reactor does, for this many completions.
    fn take(&mut self, count: usize) -> Vec<Completion> {
        let (mut all, begun) = (Vec::new(), std::time::Instant::now());
        while all.len() < count {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} of {count} came back", all.len());
            let now = self.now();
            let mut done = Vec::new();
            self.bank.poll(now, &mut done);
            all.extend(done.into_iter().map(|(_, completion)| completion));
            let sleep = self.bank.next_deadline().map_or(Duration::from_secs(1), |due| due.since(self.now()));
            if all.len() < count && !sleep.is_zero() {
                let timeout = Timespec { tv_sec: 0, tv_nsec: sleep.as_nanos().min(999_999_999) as i64 };
                let epoll = self.bank.wakeups()[0];
                rustix::event::poll(&mut [PollFd::from_borrowed_fd(epoll, PollFlags::IN)], Some(&timeout)).unwrap();
            }
        }
        all
    }

    fn one(&mut self, start: u64, length: u64, op: Op) -> (Op, Result<(), IoError>) {
        self.ask(start, length, op);
        let completion = self.take(1).remove(0);
        (completion.op, completion.result)
    }

    fn write(&mut self, start: u64, byte: u8, durability: Durability) -> Result<(), IoError> {
        self.one(start, 8, Op::Write(Payload::copy_of(&[byte; 4096]), durability)).1
    }

    fn read(&mut self, start: u64) -> Result<u8, IoError> {
        match self.one(start, 8, Op::Read(Buf::zeroed(4096))) {
            (Op::Read(buf), Ok(())) => Ok(buf.to_vec()[4095]),
            (_, result) => Err(result.unwrap_err()),
        }
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.one(0, 0, Op::Flush).1
    }
}

#[test]
fn what_was_written_is_read_and_the_disk_is_what_the_server_says() {
    let server = Server::start();
    let mut rig = server.bank();
    assert_eq!(rig.bank.limits(DISK), Limits::of_disk(Sectors(SECTORS)));
    assert_eq!(rig.write(8, 7, Durability::Volatile), Ok(()));
    assert_eq!(rig.write(16, 9, Durability::Fua), Ok(()));
    assert_eq!((rig.read(8), rig.read(16), rig.read(24)), (Ok(7), Ok(9), Ok(0)));
    assert_eq!(rig.one(8, 8, Op::Discard).1, Ok(()));
    assert_eq!((rig.read(8), rig.flush()), (Ok(0), Ok(())));
    assert_eq!(rig.one(SECTORS, 1, Op::Discard).1, Err(IoError::OutOfRange));
}

/// Killed with requests under way, started again: nobody notices, and every write is there.
#[test]
fn a_server_that_dies_and_comes_back_is_asked_again_for_what_it_did_not_answer() {
    let server = Server::start();
    let mut rig = server.bank();
    assert_eq!(rig.write(8, 7, Durability::Fua), Ok(()));
    server.order(|orders| orders.dies_after = Some(3));
    for at in 1..20 {
        rig.ask(8 * at, 8, Op::Write(Payload::copy_of(&[at as u8; 4096]), Durability::Fua));
    }
    let mut done = rig.take(19);
    done.sort_by_key(|completion| completion.id);
    assert!(done.iter().all(|completion| completion.result.is_ok()), "{done:?}");
    assert_eq!(server.orders.lock().unwrap().connections, 2);
    for at in 1..20 {
        assert_eq!(rig.read(8 * at), Ok(at as u8));
    }
    assert_eq!(rig.flush(), Ok(()), "all of it was forced");
}

#[test]
fn what_a_dead_server_had_not_flushed_is_in_doubt_until_it_is_written_again() {
    let server = Server::start();
    let mut rig = server.bank();
    assert_eq!(rig.write(8, 7, Durability::Volatile), Ok(()));
    assert_eq!(rig.flush(), Ok(()));
    assert_eq!(rig.write(16, 8, Durability::Volatile), Ok(()));
    assert_eq!(rig.write(24, 9, Durability::Fua), Ok(()));
    server.order(|orders| {
        orders.dies_after = Some(0);
        orders.volume[16 * 512..24 * 512].fill(0);
    });
    assert_eq!(rig.read(8), Ok(7), "it was flushed");
    assert_eq!(rig.read(24), Ok(9), "it was forced");
    assert_eq!(rig.read(16), Err(IoError::Medium), "the new server may have an old version");
    assert_eq!(rig.flush(), Err(IoError::Medium));
    assert_eq!(rig.flush(), Ok(()), "it is told once");
    assert_eq!(rig.write(16, 8, Durability::Volatile), Ok(()));
    assert_eq!((rig.read(16), rig.flush()), (Ok(8), Ok(())));
}

#[test]
fn flushes_that_were_under_way_when_the_server_died_fail() {
    let server = Server::start();
    let mut rig = server.bank();
    assert_eq!(rig.write(16, 8, Durability::Volatile), Ok(()));
    server.order(|orders| orders.dies_after = Some(0));
    rig.ask(0, 0, Op::Flush);
    rig.ask(0, 0, Op::Flush);
    let done = rig.take(2);
    assert!(done.iter().all(|completion| completion.result == Err(IoError::Medium)), "{done:?}");
}

/// It may carry out what it was asked whenever it wakes up.
#[test]
fn a_silent_server_times_out_and_is_not_spoken_to_again() {
    let server = Server::start();
    let mut rig = server.bank();
    server.order(|orders| orders.is_silent = true);
    let begun = std::time::Instant::now();
    assert_eq!(rig.write(8, 7, Durability::Volatile), Err(IoError::Timeout));
    let took = begun.elapsed();
    assert!(took >= OPTIONS.request_max && took < OPTIONS.request_max * 3, "{took:?}");
    server.order(|orders| orders.is_silent = false);
    assert_eq!(rig.read(8), Err(IoError::Offline));
    assert_eq!(server.orders.lock().unwrap().connections, 1);
}

#[test]
fn a_server_that_is_silent_for_a_while_only_is_waited_for() {
    let server = Server::start();
    let mut rig = server.bank();
    server.order(|orders| orders.is_silent = true);
    rig.ask(8, 8, Op::Write(Payload::copy_of(&[7; 4096]), Durability::Volatile));
    let orders = Arc::clone(&server.orders);
    let waker = std::thread::spawn(move || {
        std::thread::sleep(OPTIONS.request_max / 2);
        orders.lock().unwrap().is_silent = false;
    });
    assert_eq!(rig.take(1)[0].result, Ok(()));
    waker.join().unwrap();
    assert_eq!(server.orders.lock().unwrap().connections, 1);
}

#[test]
fn a_server_that_stays_away_is_given_up_and_a_later_request_finds_it_again() {
    let server = Server::start();
    let mut rig = server.bank();
    std::fs::rename(&server.path, server.path.with_extension("away")).unwrap();
    server.order(|orders| orders.dies_after = Some(0));
    let begun = std::time::Instant::now();
    assert_eq!(rig.read(8), Err(IoError::Transport));
    let took = begun.elapsed();
    assert!(took >= OPTIONS.outage_max && took < OPTIONS.outage_max * 3, "{took:?}");
    std::fs::rename(server.path.with_extension("away"), &server.path).unwrap();
    assert_eq!(rig.read(8), Ok(0));
}

/// The first takes connections and says nothing: at first, and when the connection is made anew.
#[test]
fn a_name_with_several_addresses_is_tried_at_all_of_them() {
    let server = Server::start();
    let [silent, good] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = Address::Tcp([&silent, &good].map(|listener| listener.local_addr().unwrap()).to_vec());
    let orders = Arc::clone(&server.orders);
    std::thread::spawn(move || good.incoming().for_each(|stream| serve(stream.unwrap(), &orders, SECTORS)));
    let mut bank = NbdBank::new(OPTIONS).unwrap();
    let to = Destination { address, export: String::new(), secrecy: None };
    bank.open_at(&"nbd://two.example/".parse().unwrap(), to, false).unwrap();
    let mut rig = Rig { bank, started: std::time::Instant::now(), next: 0 };
    assert_eq!(rig.write(8, 7, Durability::Fua), Ok(()));
    server.order(|orders| orders.dies_after = Some(0));
    assert_eq!(rig.read(8), Ok(7));
}

/// It tells of its export for ever, faster than anybody listens.
#[test]
fn a_server_that_floods_is_given_up_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut beginning = Greeting { flags: HandshakeFlags::FIXED_NEWSTYLE }.encode().to_vec();
        beginning.extend(OptionReply::Ack.encode(ClientOption::ExtendedHeaders.number()));
        let go = ClientOption::Go(InfoQuery { export: String::new(), wanted: Vec::new() }).number();
        let told = OptionReply::Info(Info::Description("x".repeat(1000))).encode(go).repeat(1000);
        let mut sent = stream.write_all(&beginning);
        while sent.is_ok() {
            sent = stream.write_all(&told);
        }
    });
    let mut bank = NbdBank::new(OPTIONS).unwrap();
    let begun = std::time::Instant::now();
    let uri = NbdUri { server: NbdServer::Unix(path), export: String::new(), tls: None };
    let error = bank.open(&uri, false).unwrap_err().to_string();
    assert!(error.contains("does not answer within") && begun.elapsed() < OPTIONS.outage_max * 5, "{error}");
}

#[test]
fn another_disk_under_the_same_name_is_not_taken_for_the_one_there_was() {
    // Its beginning is another.
    let server = Server::start();
    let mut rig = server.bank();
    server.order(|orders| {
        orders.volume[0] = 1;
        orders.dies_after = Some(0);
    });
    assert_eq!(rig.read(800), Err(IoError::Transport));
    // It lacks what was forced.
    let server = Server::start();
    let mut rig = server.bank();
    assert_eq!(rig.write(80, 7, Durability::Fua), Ok(()));
    server.order(|orders| {
        orders.volume.fill(0);
        orders.dies_after = Some(0);
    });
    assert_eq!(rig.read(800), Err(IoError::Transport));
    // It has another size.
    let server = Server::start();
    let mut rig = server.bank();
    server.listen(SECTORS - 8);
    server.order(|orders| orders.dies_after = Some(0));
    assert_eq!(rig.read(800), Err(IoError::Transport));
}

#[test]
fn what_cannot_be_a_disk_says_why() {
    let server = Server::start();
    let mut bank = NbdBank::new(OPTIONS).unwrap();
    let told = |bank: &mut NbdBank, uri: &str| bank.open(&uri.parse().unwrap(), false).unwrap_err().to_string();
    let path = server.path.display();
    let error = told(&mut bank, &format!("nbd+unix:///other?socket={path}"));
    assert!(error.contains("no such export"), "{error}");
    let error = told(&mut bank, &format!("nbd+unix:///?socket={path}.none"));
    assert!(error.contains("is its server running?"), "{error}");
    let mute = UnixListener::bind(server.path.with_extension("mute")).unwrap();
    let error = told(&mut bank, &format!("nbd+unix:///?socket={}", server.path.with_extension("mute").display()));
    assert!(error.contains("does not answer within"), "{error}");
    drop(mute);
    let rude = UnixListener::bind(server.path.with_extension("rude")).unwrap();
    std::thread::spawn(move || rude.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let error = told(&mut bank, &format!("nbd+unix:///?socket={}", server.path.with_extension("rude").display()));
    assert!(error.contains("does not keep to the NBD protocol"), "{error}");
    server.listen(0);
    let error = told(&mut bank, &format!("nbd+unix:///?socket={path}"));
    assert!(error.contains("0 bytes"), "{error}");
}
