//! Connections, talked to by a client made of the same codec, over a volume in memory.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::block::{Buf, Extent, Instant, IoError, Limits, Op, Sectors, State};
use crate::nbd::*;

const SIZE: usize = 16 << 20;
const MIB: u64 = 1 << 20;

/// A client's end of a connection, the connection, and a volume behind it.
struct World {
    connection: Connection,
    style: ReplyStyle,
    requests: RequestStyle,
    /// Bytes on their way to the client.
    inbox: Vec<u8>,
    volume: Vec<u8>,
    /// Bytes of the volume that cannot be read or written.
    bad: Option<usize>,
    pending: VecDeque<(u32, Extent, Op)>,
    flushes: usize,
}

/// A reply put together from its chunks.
#[derive(Default, Debug, PartialEq)]
struct Reply {
    data: BTreeMap<u64, Vec<u8>>,
    errors: Vec<(NbdError, Option<u64>)>,
    extents: Vec<(u32, Vec<(u64, u64)>)>,
    done: bool,
}

impl World {
    fn new(style: ReplyStyle) -> World {
        World::of(style, Limits { preferred: Sectors(384), ..Limits::of_disk(Sectors(SIZE as u64 / 512)) })
    }

    fn of(style: ReplyStyle, limits: Limits) -> World {
        let export = Export::new("lab", "a volume in memory", limits, false);
        let connection = Connection::new(Rc::new(export), Secrecy::None, Instant::START);
        let requests = match style {
            ReplyStyle::Extended => RequestStyle::Extended,
            ReplyStyle::Simple | ReplyStyle::Structured => RequestStyle::Compact,
        };
        let volume = vec![0; SIZE];
        let pending = VecDeque::new();
        let mut world =
            World { connection, style, requests, inbox: Vec::new(), volume, bad: None, pending, flushes: 0 };
        world.send(&3_u32.to_be_bytes());
        let contexts = ["base:allocation", "raidlab:state"].map(str::to_owned).to_vec();
        let set = ClientOption::SetMetaContext(MetaQuery { export: String::new(), queries: contexts });
        let options = match style {
            ReplyStyle::Simple => vec![],
            ReplyStyle::Structured => vec![ClientOption::StructuredReply, set],
            ReplyStyle::Extended => vec![ClientOption::ExtendedHeaders, set],
        };
        for option in options {
            world.send(&option.encode());
        }
        world.send(&ClientOption::Go(InfoQuery { export: String::new(), wanted: vec![] }).encode());
        world.take_output(usize::MAX);
        assert!(Greeting::decode(&world.inbox).unwrap().is_some());
        world.inbox.drain(..Greeting::BYTES);
        while !world.inbox.is_empty() {
            let (_, reply, used) = OptionReply::decode(&world.inbox).unwrap().expect("replies are whole");
            assert!(!matches!(reply, OptionReply::Refused { .. }), "{reply:?}");
            world.inbox.drain(..used);
        }
        assert_eq!(world.connection.handshake_until(), None);
        world
    }

    /// As many bytes as the connection has space for; gives how many it took.
    fn offer(&mut self, bytes: &[u8]) -> usize {
        self.connection.go_on();
        let mut taken = 0;
        for mut space in self.connection.spaces() {
            let now = space.len().min(bytes.len() - taken);
            space[..now].copy_from_slice(&bytes[taken..taken + now]);
            taken += now;
        }
        if taken > 0 {
            self.connection.received(taken);
        }
        taken
    }

    /// All of `bytes`; the volume works when the connection wants it to.
    fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.offer(bytes);
            bytes = &bytes[taken..];
            if taken == 0 {
                let before = self.inbox.len();
                let worked = self.work(0);
                self.take_output(usize::MAX);
                assert!(worked || self.inbox.len() > before, "nothing moves any more");
            }
        }
    }

    fn request(&mut self, command: Command, flags: CommandFlags, cookie: u64, offset: u64, length: u64) {
        let flags = match (command, self.requests) {
            (Command::Write, RequestStyle::Extended) => flags | CommandFlags::PAYLOAD_LEN,
            _ => flags,
        };
        let header = RequestHeader { flags, number: command.number(), cookie, offset, length };
        self.send(&header.encode(self.requests));
    }

    fn ask(&mut self, command: Command, cookie: u64, offset: u64, length: u64) {
        self.request(command, CommandFlags::empty(), cookie, offset, length);
    }

    fn write(&mut self, cookie: u64, offset: u64, bytes: &[u8]) {
        self.ask(Command::Write, cookie, offset, bytes.len() as u64);
        self.send(bytes);
    }

    /// Hands out what there is, then finishes the piece `which` of those pending. Whether there was one.
    fn work(&mut self, which: usize) -> bool {
        while let Some(work) = self.connection.next_work() {
            match work {
                Work::Io { piece, extent, op } => self.pending.push_back((piece, extent, op)),
                Work::States { command, extent } => {
                    let half = Sectors(extent.length.0 / 2);
                    let states = [(half, State::InSync), (extent.length - half, State::Lost)];
                    self.connection.told(command, if half.0 > 0 { &states } else { &states[1..] });
                }
            }
        }
        if self.pending.is_empty() {
            return false;
        }
        let (piece, extent, mut op) = self.pending.remove(which % self.pending.len()).expect("it is among them");
        let range = extent.start.bytes() as usize..extent.end().bytes() as usize;
        let result = match self.bad {
            Some(bad) if range.contains(&bad) => Err(IoError::Medium),
            _ => Ok(()),
        };
        match &mut op {
            _ if result.is_err() => {}
            Op::Read(buf) => buf.copy_from(&self.volume[range]),
            Op::Write(payload, _) => self.volume[range].copy_from_slice(&payload.to_vec()),
            Op::WriteZeroes(_) | Op::Discard => self.volume[range].fill(0),
            Op::Flush => self.flushes += 1,
        }
        self.connection.completed(piece, op, result);
        true
    }

    fn take_output(&mut self, at_most: usize) {
        let mut left = at_most;
        while self.connection.has_output() && left > 0 {
            let mut sent = 0;
            for slice in self.connection.slices() {
                let now = slice.len().min(left);
                self.inbox.extend_from_slice(&slice[..now]);
                left -= now;
                sent += now;
            }
            self.connection.sent(sent);
        }
    }

    fn settle(&mut self) {
        loop {
            self.take_output(usize::MAX);
            self.connection.go_on();
            if !self.work(0) && !self.connection.has_output() {
                return;
            }
        }
    }

    /// The replies that are whole, by cookie; `reads` says how long each read was.
    fn replies(&mut self, reads: &BTreeMap<u64, (u64, u64)>) -> BTreeMap<u64, Reply> {
        let mut all = BTreeMap::<u64, Reply>::new();
        let mut rest = &self.inbox[..];
        while let Some((header, used)) =
            ReplyHeader::decode(self.style, rest).expect("the server keeps to the protocol")
        {
            rest = &rest[used..];
            match header {
                ReplyHeader::Simple { error, cookie } => {
                    let reply = all.entry(cookie).or_default();
                    assert!(!std::mem::replace(&mut reply.done, true), "one reply to a request");
                    match (error, reads.get(&cookie)) {
                        (Some(error), _) => reply.errors.push((error, None)),
                        (None, Some((offset, length))) => {
                            let (data, behind) = rest.split_at(*length as usize);
                            reply.data.insert(*offset, data.to_vec());
                            rest = behind;
                        }
                        (None, None) => {}
                    }
                }
                ReplyHeader::Chunk { done, kind, cookie, length, .. } => {
                    let reply = all.entry(cookie).or_default();
                    assert!(!reply.done, "nothing comes after the end");
                    reply.done = done;
                    let (chunk, used) = Chunk::decode(kind, length, rest).unwrap().expect("chunks are whole");
                    rest = &rest[used..];
                    match chunk {
                        Chunk::None => {}
                        Chunk::Data { offset, length } => {
                            let (data, behind) = rest.split_at(length as usize);
                            reply.data.insert(offset, data.to_vec());
                            rest = behind;
                        }
                        Chunk::Hole { offset, length } => {
                            reply.data.insert(offset, vec![0; length as usize]);
                        }
                        Chunk::Error { error, .. } => reply.errors.push((error, None)),
                        Chunk::ErrorOffset { error, offset, .. } => reply.errors.push((error, Some(offset))),
                        Chunk::BlockStatus { context, extents } => reply.extents.push((context, extents)),
                    }
                }
            }
        }
        assert!(rest.is_empty(), "{} bytes of half a reply", rest.len());
        self.inbox.clear();
        all
    }

    fn reply(&mut self) -> Reply {
        let mut all = self.replies(&BTreeMap::new());
        assert_eq!(all.len(), 1);
        all.pop_first().expect("there is one").1
    }
}

fn bytes_of(reply: &Reply) -> Vec<u8> {
    reply.data.values().flatten().copied().collect()
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(2654435761).wrapping_add(seed * 97) >> 7) as u8).collect()
}

const STYLES: [ReplyStyle; 3] = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended];

#[test]
fn what_was_written_is_read_in_every_style() {
    for style in STYLES {
        let mut world = World::new(style);
        let bytes = pattern(5 << 20, 1);
        world.write(7, 1536, &bytes);
        world.settle();
        assert_eq!(world.reply(), Reply { done: true, ..Reply::default() });
        world.ask(Command::Read, 8, 1536, bytes.len() as u64);
        world.settle();
        let replies = world.replies(&BTreeMap::from([(8, (1536, bytes.len() as u64))]));
        assert!(replies[&8].done && bytes_of(&replies[&8]) == bytes);
    }
}

#[test]
fn a_long_read_lets_a_short_one_pass() {
    let mut world = World::new(ReplyStyle::Structured);
    world.ask(Command::Read, 1, 0, 16 * MIB);
    world.ask(Command::Read, 2, 4096, 4096);
    for _ in 0..3 {
        world.work(0);
    }
    world.take_output(usize::MAX);
    // Taken apart by hand: the long one is not done.
    let mut rest = &world.inbox[..];
    let mut seen = Vec::new();
    while let Some((ReplyHeader::Chunk { cookie, length, .. }, used)) = ReplyHeader::decode(world.style, rest).unwrap()
    {
        seen.push((cookie, length));
        rest = &rest[used + length as usize..];
    }
    assert!(seen.contains(&(2, 4096 + 8)), "{seen:?}");
}

#[test]
fn a_read_that_fails_in_one_place_brings_the_rest_or_nothing() {
    for style in STYLES {
        let mut world = World::new(style);
        world.bad = Some(5 << 20);
        world.ask(Command::Read, 1, 0, 8 * MIB);
        world.settle();
        let reply = world.reply();
        let place = if style == ReplyStyle::Simple { None } else { Some(reply.errors[0].1.expect("it has a place")) };
        assert_eq!(reply.errors, [(NbdError::Io, place)]);
        if let Some(place) = place {
            assert!(place <= 5 * MIB && 5 * MIB < place + 2 * MIB);
            assert!(bytes_of(&reply).len() > 6 << 20);
        }
        // With the flag that wants one piece: the error alone.
        if style != ReplyStyle::Simple {
            world.request(Command::Read, CommandFlags::DF, 2, 0, 8 * MIB);
            world.settle();
            let reply = world.reply();
            assert_eq!((reply.errors, reply.data.len()), (vec![(NbdError::Io, None)], 0));
        }
        // And it is as good as before.
        world.ask(Command::Read, 3, 0, 512);
        world.settle();
        assert!(world.replies(&BTreeMap::from([(3, (0, 512))]))[&3].errors.is_empty());
    }
}

#[test]
fn a_refused_write_is_taken_off_the_stream() {
    for style in STYLES {
        let mut world = World::new(style);
        world.write(1, SIZE as u64 - 512, &pattern(1024, 1));
        world.write(2, 1, &pattern(512, 1));
        world.ask(Command::Read, 3, 0, 512);
        world.settle();
        let replies = world.replies(&BTreeMap::from([(3, (0, 512))]));
        assert_eq!(replies[&1].errors, [(NbdError::NoSpace, None)]);
        assert_eq!(replies[&2].errors, [(NbdError::Invalid, None)]);
        assert_eq!(bytes_of(&replies[&3]), [0; 512]);
    }
}

#[test]
fn a_payload_that_nobody_agreed_to_ends_the_connection() {
    let mut world = World::new(ReplyStyle::Extended);
    world.ask(Command::Write, 1, 0, 32 * MIB + 512);
    assert!(world.connection.is_broken() && world.connection.is_over());
}

#[test]
fn a_client_that_takes_no_replies_is_not_read_from_for_long() {
    for style in STYLES {
        let mut world = World::new(style);
        let header = RequestHeader {
            flags: CommandFlags::empty(),
            number: Command::Read.number(),
            cookie: 1,
            offset: 0,
            length: MIB,
        };
        let request = header.encode(world.requests);
        let (mut accepted, mut held) = (0, 0);
        for _ in 0..100_000 {
            accepted += world.offer(&request[..]);
            while world.work(0) {}
            held = world.connection.slices().iter().map(|slice| slice.len()).sum::<usize>();
        }
        assert!(accepted <= COMMANDS_MAX * request.len() + (64 << 10), "{accepted} bytes of requests");
        assert!(held <= WINDOW + (64 << 10), "{held} bytes of replies");
        // Refusals cost memory too.
        let mut world = World::new(style);
        let refused = RequestHeader { length: 0, ..header }.encode(world.requests);
        let accepted: usize = (0..100_000).map(|_| world.offer(&refused[..])).sum();
        assert!(accepted <= 8 * COMMANDS_MAX * refused.len() + (64 << 10), "{accepted} bytes of requests");
    }
}

#[test]
fn writes_that_the_volume_does_not_take_stop_the_intake() {
    let mut world = World::new(ReplyStyle::Structured);
    let mut accepted = 0;
    let bytes = vec![0; 64 << 10];
    let header =
        RequestHeader { flags: CommandFlags::empty(), number: 1, cookie: 1, offset: 0, length: bytes.len() as u64 };
    'full: loop {
        let message = [&header.encode(world.requests)[..], &bytes].concat();
        let mut rest = &message[..];
        while !rest.is_empty() {
            let taken = world.offer(rest);
            if taken == 0 {
                break 'full;
            }
            accepted += taken;
            rest = &rest[taken..];
        }
        assert!(accepted < 4 * WINDOW);
    }
    assert!(accepted >= WINDOW);
    world.settle();
    assert!(world.offer(b"x") == 0 || !world.inbox.is_empty());
}

#[test]
fn a_write_that_is_cut_off_has_written_its_beginning_and_the_connection_ends() {
    let mut world = World::new(ReplyStyle::Structured);
    world.ask(Command::Write, 1, 0, 4 * MIB);
    world.send(&pattern(3 << 20, 9));
    world.connection.ended();
    world.settle();
    assert_eq!(world.volume[..2 << 20], pattern(3 << 20, 9)[..2 << 20]);
    assert_eq!(world.reply().errors, [(NbdError::Shutdown, None)]);
    assert!(world.connection.is_over());
}

#[test]
fn a_client_that_is_gone_is_remembered_until_its_pieces_are_back() {
    let mut world = World::new(ReplyStyle::Structured);
    world.ask(Command::Read, 1, 0, 4096);
    let Some(Work::Io { piece, extent, .. }) = world.connection.next_work() else { panic!("a read is work") };
    world.connection.broken();
    assert!(!world.connection.is_over() && !world.connection.has_work());
    world.connection.completed(piece, Op::Read(Buf::zeroed(extent.length.bytes() as usize)), Ok(()));
    assert!(world.connection.is_over() && !world.connection.has_output());
}

#[test]
fn a_forced_trim_is_answered_after_a_flush() {
    let mut world = World::new(ReplyStyle::Structured);
    world.volume.fill(1);
    world.request(Command::Trim, CommandFlags::FUA, 1, 0, 2 * MIB);
    world.settle();
    assert!(world.reply().done);
    assert_eq!((world.flushes, world.volume.iter().take_while(|byte| **byte == 0).count()), (1, 2 << 20));
    world.request(Command::WriteZeroes, CommandFlags::NO_HOLE, 2, 0, 8 * MIB);
    world.settle();
    assert!(world.reply().done && world.flushes == 1 && world.volume[..8 << 20].iter().all(|byte| *byte == 0));
}

#[test]
fn block_status_tells_of_every_context_no_more_than_was_asked() {
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let mut world = World::new(style);
        world.ask(Command::BlockStatus, 1, 1000, 10_000);
        world.settle();
        let reply = world.reply();
        assert_eq!(reply.extents[0], (1, vec![(10_000, 0)]));
        let (context, extents) = &reply.extents[1];
        assert_eq!((*context, extents.iter().map(|extent| extent.0).sum()), (2, 10_000_u64));
        assert_eq!(extents.iter().map(|extent| extent.1).collect::<Vec<_>>(), [0, 4]);
        world.request(Command::BlockStatus, CommandFlags::REQ_ONE, 2, 0, 1 << 20);
        world.settle();
        assert_eq!(world.reply().extents[1].1, [(1 << 19, 0)]);
    }
    let mut world = World::new(ReplyStyle::Simple);
    world.ask(Command::BlockStatus, 1, 0, 512);
    world.settle();
    assert_eq!(world.reply().errors, [(NbdError::Invalid, None)]);
}

#[test]
fn an_option_that_is_too_long_is_skipped_and_refused() {
    let export = Export::new("lab", "", Limits::of_disk(Sectors(8)), false);
    let mut world = World::new(ReplyStyle::Simple);
    world.connection = Connection::new(Rc::new(export), Secrecy::None, Instant::START);
    world.send(&3_u32.to_be_bytes());
    let mut option = ClientOption::SetMetaContext(MetaQuery { export: "x".repeat(200_000), queries: vec![] }).encode();
    option.extend_from_slice(&ClientOption::Abort.encode());
    world.send(&option);
    world.take_output(usize::MAX);
    let (_, reply, used) = OptionReply::decode(&world.inbox[Greeting::BYTES..]).unwrap().unwrap();
    assert!(matches!(reply, OptionReply::Refused { refusal: Refusal::TooBig, .. }), "{reply:?}");
    let (_, reply, _) = OptionReply::decode(&world.inbox[Greeting::BYTES + used..]).unwrap().unwrap();
    assert_eq!(reply, OptionReply::Ack);
    assert!(world.connection.is_over());
}

#[derive(Clone, Debug)]
struct Ask {
    command: Command,
    quarter: u64,
    start: u64,
    length: u64,
}

fn any_ask(quarter: u64) -> impl Strategy<Value = Ask> {
    let commands = [Command::Read, Command::Write, Command::WriteZeroes, Command::Trim, Command::Cache];
    (proptest::sample::select(commands.to_vec()), 0_u64..4096, 1_u64..4096)
        .prop_map(move |(command, start, length)| Ask { command, quarter, start, length: length.min(8192 - start) })
}

/// Whoever leaves in the midst of the handshake and takes no answer holds a place for no longer than the handshake may take.
#[test]
fn who_leaves_before_being_let_in_is_still_waited_for_only_so_long() {
    let export = Export::new("lab", "", Limits::of_disk(Sectors(8)), false);
    let mut connection = Connection::new(Rc::new(export), Secrecy::None, Instant::START);
    let until = connection.handshake_until();
    assert!(until.is_some() && connection.has_output(), "the greeting waits");
    connection.ended();
    assert!(!connection.is_over());
    assert_eq!(connection.handshake_until(), until);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Four requests at a time, each in its own quarter of the volume, finished in any order, sent and taken in portions
    /// of any size: the replies are those of a flat file.
    #[test]
    fn requests_in_any_order_in_any_portions_do_what_a_flat_file_would(
        rounds in proptest::collection::vec((any_ask(0), any_ask(1), any_ask(2), any_ask(3)), 1..4),
        style in proptest::sample::select(STYLES.to_vec()),
        portions in proptest::collection::vec(1_usize..100_000, 1..20),
        order: Vec<usize>,
    ) {
        let mut world = World::new(style);
        let mut model = pattern(SIZE, 5);
        world.volume.copy_from_slice(&model);
        let mut order = order.into_iter().cycle();
        let mut portions = portions.into_iter().cycle();
        for (round, asks) in rounds.into_iter().enumerate() {
            let (mut stream, mut reads, mut expected) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
            for ask in [asks.0, asks.1, asks.2, asks.3] {
                let cookie = round as u64 * 10 + ask.quarter;
                let (offset, length) = (ask.quarter * 4 * MIB + ask.start * 512, ask.length * 512);
                let range = offset as usize..(offset + length) as usize;
                let flags = match (ask.command, world.requests) {
                    (Command::Write, RequestStyle::Extended) => CommandFlags::PAYLOAD_LEN,
                    _ => CommandFlags::empty(),
                };
                let header = RequestHeader { flags, number: ask.command.number(), cookie, offset, length };
                stream.extend_from_slice(&header.encode(world.requests));
                match ask.command {
                    Command::Write => {
                        let bytes = pattern(range.len(), cookie);
                        stream.extend_from_slice(&bytes);
                        model[range].copy_from_slice(&bytes);
                        expected.insert(cookie, vec![]);
                    }
                    Command::Read => {
                        reads.insert(cookie, (offset, length));
                        expected.insert(cookie, model[range].to_vec());
                    }
                    Command::Cache => { expected.insert(cookie, vec![]); }
                    _ => {
                        model[range].fill(0);
                        expected.insert(cookie, vec![]);
                    }
                }
            }
            let mut rest = &stream[..];
            loop {
                let now = portions.next().unwrap_or(4096).min(rest.len());
                let taken = if now > 0 { world.offer(&rest[..now]) } else { 0 };
                rest = &rest[taken..];
                let worked = world.work(order.next().unwrap_or(0));
                world.take_output(portions.next().unwrap_or(4096));
                if rest.is_empty() && !worked && !world.connection.has_output() {
                    break;
                }
            }
            let replies = world.replies(&reads);
            prop_assert_eq!(replies.len(), 4);
            for (cookie, bytes) in expected {
                let reply = &replies[&cookie];
                prop_assert!(reply.done && reply.errors.is_empty());
                prop_assert!(bytes_of(reply) == bytes, "bytes of {cookie} differ");
            }
            prop_assert!(world.volume == model);
        }
    }

    #[test]
    fn any_bytes_are_borne(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        greeted: bool,
        style in proptest::sample::select(STYLES.to_vec()),
    ) {
        let mut world = World::new(style);
        if greeted {
            let export = Export::new("lab", "", Limits::of_disk(Sectors(8)), false);
            world.connection = Connection::new(Rc::new(export), Secrecy::None, Instant::START);
        }
        world.offer(&bytes);
        world.connection.ended();
        world.settle();
        prop_assert!(world.connection.is_over());
    }
}

/// The kernel told of somebody at the door, and the door was closed meanwhile.
#[test]
fn what_is_told_of_a_listener_that_is_gone_keeps_nobody_awake() {
    use crate::reactor::{FrontEnd, Ready};
    let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).unwrap();
    let export = Export::new("lab", "", Limits::of_disk(Sectors(8)), false);
    let mut server = Server::new(export, vec![listener], None);
    server.stop();
    server.ready(Ready { token: 0, readable: true, writable: false, ended: false });
    assert_eq!(server.next_deadline(), None);
    assert!(server.is_stopped());
}
