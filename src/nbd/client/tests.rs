//! The client, talking to our own server's connection over a volume in memory; and to servers that mean ill.

use std::rc::Rc;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::block::{Instant, Lba, Limits, Sectors};
use crate::export::nbd::{Connection, Export, Secrecy, Work};

const SECTORS: u64 = 8192;

/// Both ends of a connection, and a volume that finishes in any order.
struct World {
    client: Client,
    server: Connection,
    volume: Vec<u8>,
    pending: Vec<(u32, Extent, Op)>,
    /// Sectors that cannot be read or written.
    bad: Option<u64>,
    rng: ChaCha8Rng,
    /// Bytes the client has got, and the one of them that is wrong.
    got: usize,
    wrong: Option<usize>,
}

impl World {
    fn new(seed: u64) -> World {
        let export = Export::new("lab", "a volume in memory", Limits::of_disk(Sectors(SECTORS)), false);
        World {
            client: Client::new("lab", false),
            server: Connection::new(Rc::new(export), Secrecy::None, Instant::START),
            volume: vec![0; SECTORS as usize * 512],
            pending: Vec::new(),
            bad: None,
            rng: ChaCha8Rng::seed_from_u64(seed),
            got: 0,
            wrong: None,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u64() as usize % bound
    }

    /// Moves some bytes both ways, and one piece of work through the volume. Whether anything moved.
    fn step(&mut self) -> bool {
        let most = 1 + self.below(20_000);
        let up: Vec<u8> = self.client.slices().iter().flat_map(|slice| slice.to_vec()).take(most).collect();
        self.server.go_on();
        let taken = fill(self.server.spaces(), &up);
        if taken > 0 {
            self.client.sent(taken);
            self.server.received(taken);
        }
        let most = 1 + self.below(20_000);
        let mut down: Vec<u8> = self.server.slices().iter().flat_map(|slice| slice.to_vec()).take(most).collect();
        if let Some(wrong) = self.wrong.and_then(|wrong| wrong.checked_sub(self.got))
            && let Some(byte) = down.get_mut(wrong)
        {
            *byte ^= 1 << (wrong % 8);
        }
        let got = fill(self.client.spaces(), &down);
        if got > 0 {
            self.server.sent(got);
            self.client.received(got);
            self.got += got;
        }
        self.work() || taken + got > 0
    }

    fn work(&mut self) -> bool {
        while let Some(work) = self.server.next_work() {
            let Work::Io { piece, extent, op } = work else { panic!("nobody asks for states") };
            self.pending.push((piece, extent, op));
        }
        if self.pending.is_empty() {
            return false;
        }
        let which = self.below(self.pending.len());
        let (piece, extent, mut op) = self.pending.swap_remove(which);
        let range = extent.start.bytes() as usize..extent.end().bytes() as usize;
        let is_bad = self.bad.is_some_and(|bad| extent.range().contains(&bad));
        match &mut op {
            _ if is_bad => {}
            Op::Read(buf) => buf.copy_from(&self.volume[range]),
            Op::Write(payload, _) => self.volume[range].copy_from_slice(&payload.to_vec()),
            Op::WriteZeroes(_) | Op::Discard => self.volume[range].fill(0),
            Op::Flush => {}
        }
        self.server.completed(piece, op, if is_bad { Err(IoError::Medium) } else { Ok(()) });
        true
    }

    fn shake_hands(&mut self) {
        while self.client.export().is_none() && self.client.error().is_none() {
            assert!(self.step(), "nothing moves any more");
        }
    }

    fn settle(&mut self) -> Vec<(u64, Op, Result<(), IoError>)> {
        let mut all = Vec::new();
        while !self.client.is_idle() && self.client.error().is_none() {
            assert!(self.step(), "nothing moves any more");
        }
        while let Some(done) = self.client.next_done() {
            all.push(done);
        }
        all
    }
}

fn fill<'a>(spaces: impl IntoIterator<Item = IoSliceMut<'a>>, bytes: &[u8]) -> usize {
    let mut done = 0;
    for mut space in spaces {
        let now = space.len().min(bytes.len() - done);
        space[..now].copy_from_slice(&bytes[done..done + now]);
        done += now;
    }
    done
}

fn extent(start: u64, length: u64) -> Extent {
    Extent::new(Lba(start), Sectors(length))
}

/// Many requests at a time that never meet, as an array's do; servers that can more and less.
#[test]
fn what_was_written_is_read_whatever_the_server_can_and_in_whatever_order_it_answers() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.shake_hands();
        assert_eq!(world.client.style, ReplyStyle::Extended);
        let Phase::Transmission(facts) = &mut world.client.phase else { panic!("hands are shaken") };
        assert_eq!((facts.size, facts.minimum), (SECTORS * 512, 512));
        if seed % 2 == 1 {
            facts.maximum = 64 << 10;
        }
        for (bit, flag) in
            [TransmissionFlags::SEND_FUA, TransmissionFlags::SEND_WRITE_ZEROES, TransmissionFlags::SEND_FLUSH]
                .into_iter()
                .enumerate()
        {
            facts.flags.set(flag, seed >> (bit + 1) & 1 == 0);
        }
        let mut model = vec![0; SECTORS as usize * 512];
        for round in 0..20 {
            let mut asked = Vec::new();
            for key in 0..8 {
                let place = extent(key * 1024 + world.below(512) as u64, 1 + world.below(511) as u64);
                let range = place.start.bytes() as usize..place.end().bytes() as usize;
                let durability = if world.below(2) == 0 { Durability::Fua } else { Durability::Volatile };
                let (place, op) = match world.below(6) {
                    0 => (extent(0, 0), Op::Flush),
                    1 => (place, Op::Discard),
                    2 => (place, Op::WriteZeroes(durability)),
                    3 => {
                        let mut buf = Buf::zeroed(512);
                        buf.append(Buf::zeroed(range.len() - 512));
                        (place, Op::Read(buf))
                    }
                    _ => {
                        let bytes: Vec<u8> = range.clone().map(|at| (at * 7 + round + key as usize) as u8).collect();
                        model[range.clone()].copy_from_slice(&bytes);
                        let mut payload = Payload::copy_of(&bytes[..512]);
                        payload.append(Payload::copy_of(&bytes[512..]));
                        (place, Op::Write(payload, durability))
                    }
                };
                if matches!(op, Op::Discard | Op::WriteZeroes(_)) {
                    model[range.clone()].fill(0);
                }
                asked.push((key, range));
                world.client.submit(key, place, op);
                world.step();
            }
            let mut done = world.settle();
            done.sort_by_key(|(key, ..)| *key);
            assert_eq!(done.len(), asked.len(), "{:?}", world.client.error());
            for ((key, op, result), (of, range)) in done.into_iter().zip(asked) {
                assert_eq!((key, result), (of, Ok(())));
                if let Op::Read(buf) = op {
                    assert!(buf.to_vec() == model[range.clone()], "seed {seed}, {range:?}");
                }
            }
        }
        assert!(world.volume == model, "seed {seed}");
    }
}

#[test]
fn an_error_is_that_of_its_request_and_the_connection_goes_on() {
    let mut world = World::new(1);
    world.shake_hands();
    world.bad = Some(100);
    world.client.submit(1, extent(0, 4096), Op::Read(Buf::zeroed(4096 * 512)));
    world.client.submit(2, extent(100, 1), Op::Write(Payload::zeroes(512), Durability::Volatile));
    world.client.submit(3, extent(101, 1), Op::Read(Buf::zeroed(512)));
    let mut done = world.settle();
    done.sort_by_key(|(key, ..)| *key);
    let results: Vec<_> = done.iter().map(|(key, op, result)| (*key, op.name(), *result)).collect();
    assert_eq!(results, [(1, "read", Err(IoError::Medium)), (2, "write", Err(IoError::Medium)), (3, "read", Ok(()))]);
    assert!(matches!(&done[0].1, Op::Read(buf) if buf.len() == 4096 * 512), "the buffer comes back whole");
}

#[test]
fn what_is_not_done_can_be_taken_back_whole() {
    let mut world = World::new(2);
    world.shake_hands();
    let Phase::Transmission(facts) = &mut world.client.phase else { panic!("hands are shaken") };
    facts.maximum = 64 << 10;
    world.client.submit(7, extent(0, 4096), Op::Read(Buf::zeroed(4096 * 512)));
    world.client.submit(8, extent(4096, 256), Op::Write(Payload::copy_of(&[3; 256 * 512]), Durability::Fua));
    for _ in 0..40 {
        world.step();
    }
    let left = world.client.unfinished();
    assert!(world.client.is_idle() && left.iter().map(|(key, ..)| *key).eq([7, 8]));
    assert!(matches!(&left[0].2, Op::Read(buf) if buf.len() == 4096 * 512));
    assert!(matches!(&left[1].2, Op::Write(payload, Durability::Fua) if payload.to_vec() == [3; 256 * 512]));
}

#[test]
fn an_export_that_is_not_there_is_told_from_one_that_is() {
    let mut world = World::new(3);
    world.client = Client::new("another", false);
    world.shake_hands();
    let error = world.client.error().expect("it was refused");
    assert!(matches!(error, ClientError::Refused { refusal: Refusal::Unknown, .. }), "{error}");
}

/// One bit of all that a server says is another: whatever comes of it, each request ends once or can be taken back.
#[test]
fn a_server_that_says_something_wrong_loses_nobodys_request() {
    for seed in 0..400 {
        let mut world = World::new(seed);
        world.wrong = Some(world.below(600) + if seed % 2 == 0 { 0 } else { 2000 });
        // It may wait for more for ever: that is ended by whoever has the clock.
        for _ in 0..100 {
            world.step();
        }
        let mut ended = Vec::new();
        if world.client.export().is_some() {
            for key in 0..6 {
                let (place, op) = match key % 3 {
                    0 => (extent(key * 8, 4), Op::Read(Buf::zeroed(4 * 512))),
                    1 => (extent(key * 8, 4), Op::Write(Payload::zeroes(4 * 512), Durability::Fua)),
                    _ => (extent(0, 0), Op::Flush),
                };
                world.client.submit(key, place, op);
            }
            for _ in 0..200 {
                world.step();
            }
            while let Some((key, op, _)) = world.client.next_done() {
                assert!(!matches!(op, Op::Read(buf) if buf.len() != 4 * 512));
                ended.push(key);
            }
            ended.extend(world.client.unfinished().into_iter().map(|(key, ..)| key));
            ended.sort_unstable();
            assert_eq!(ended, [0, 1, 2, 3, 4, 5], "seed {seed}");
        }
    }
}

fn greeting_bytes() -> Vec<u8> {
    Greeting { flags: HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES }.encode().to_vec()
}

/// A server's replies up to the transmission, in the extended style.
fn export_bytes() -> Vec<u8> {
    let facts = Info::Export { size: 1 << 20, flags: TransmissionFlags::HAS_FLAGS };
    let go = ClientOption::Go(InfoQuery { export: String::new(), wanted: Vec::new() }).number();
    let mut bytes = OptionReply::Ack.encode(ClientOption::ExtendedHeaders.number());
    bytes.extend(OptionReply::Info(facts).encode(go));
    bytes.extend(OptionReply::Ack.encode(go));
    bytes
}

fn hear(client: &mut Client, mut bytes: &[u8]) {
    while !bytes.is_empty() && client.error().is_none() {
        let taken = fill(client.spaces(), bytes);
        client.received(taken);
        bytes = &bytes[taken..];
    }
}

/// A read of three sectors, into a buffer that held something: answered by up to three chunks, of data and holes in turn, wherever they
/// lie.
#[test]
fn a_read_is_done_when_each_of_its_bytes_was_sent_once() {
    let places: Vec<(u64, u64)> = (0..3).flat_map(|from| (1..=3 - from).map(move |length| (from, length))).collect();
    let one_more = |chunks: &Vec<(u64, u64)>| -> Vec<Vec<(u64, u64)>> {
        places.iter().map(|place| [&chunks[..], &[*place]].concat()).collect()
    };
    let mut replies = vec![Vec::new()];
    for count in 0..3 {
        let longest: Vec<_> = replies.iter().filter(|chunks: &&Vec<_>| chunks.len() == count).cloned().collect();
        replies.extend(longest.iter().flat_map(one_more));
    }
    for chunks in replies.iter().filter(|chunks| !chunks.is_empty()) {
        let mut client = Client::new("", false);
        hear(&mut client, &greeting_bytes());
        hear(&mut client, &export_bytes());
        let mut buf = Buf::zeroed(3 * 512);
        buf.copy_from(&[0xee; 3 * 512]);
        client.submit(0, extent(0, 3), Op::Read(buf));
        let mut expected = [None; 3];
        let mut is_sound = true;
        for (at, (from, length)) in chunks.iter().enumerate() {
            let (is_data, is_last) = (at % 2 == 0, at + 1 == chunks.len());
            let (offset, bytes) = (from * 512, *length as u32 * 512);
            let chunk = match is_data {
                true => Chunk::Data { offset, length: bytes },
                false => Chunk::Hole { offset, length: bytes },
            };
            hear(&mut client, &chunk.encode(ReplyStyle::Extended, 0, 0, is_last));
            let byte = if is_data { at as u8 + 1 } else { 0 };
            if is_data {
                hear(&mut client, &vec![byte; bytes as usize]);
            }
            for sector in &mut expected[*from as usize..(from + length) as usize] {
                is_sound &= sector.replace(byte).is_none();
            }
        }
        is_sound &= expected.iter().all(Option::is_some);
        match client.next_done() {
            Some((0, Op::Read(buf), Ok(()))) if is_sound => {
                let sectors: Vec<Option<u8>> = buf.to_vec().chunks(512).map(|sector| Some(sector[0])).collect();
                assert_eq!(sectors, expected, "{chunks:?}");
            }
            None if !is_sound => {
                assert_eq!(client.error(), Some(&ClientError::Violation(Violation::Malformed)), "{chunks:?}");
            }
            done => panic!("{chunks:?}: {done:?}"),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_end_the_connection_or_leave_it_waiting(
        bytes: Vec<u8>, greeting: bool, export: bool, kind in 0_u16..8, length in 0_u32..3000,
    ) {
        let mut client = Client::new("", false);
        let mut stream = Vec::new();
        if greeting {
            stream.extend(greeting_bytes());
        }
        if export {
            stream.extend(export_bytes());
        }
        hear(&mut client, &stream);
        if client.export().is_some() {
            client.submit(0, extent(0, 8), Op::Read(Buf::zeroed(4096)));
            let reply = Chunk::Data { offset: 0, length: length.max(1) }.encode(ReplyStyle::Extended, 0, 0, kind % 2 == 0);
            hear(&mut client, &reply);
        }
        hear(&mut client, &bytes);
        prop_assert!(client.unfinished().len() <= 1);
    }
}
