//! One client, without its socket.
//!
//! ```text
//!   socket -> spaces, received -> messages -> next_work -> volume
//!   socket <- slices, sent     <- replies  <- completed <-
//! ```
//!
//! Bytes of a write go from the socket into the buffer that becomes the payload, but for those that arrived together
//! with the header; bytes of a read go from the buffer the volume filled into the socket.
//!
//! A client that asks for TLS gets it where the server has it: [`Connection::awaits_tls`] then says so, and all that
//! follows passes through the encryption, which is the business of whoever has the socket.
//!
//! A client that names a session waits until its server has ended older connections of it: the reply is made and kept
//! back so long.
//!
//! What is in the way of a message (no room in the window, too many requests, replies that were not taken) stops the
//! intake, and nothing else: it gives no space to put bytes in, and the client's bytes stay in its socket.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::rc::Rc;

use bytes::Bytes;
use slab::Slab;

use super::command::{Style, Task, judge};
use super::haggle::{Context, Outcome, Terms};
use super::{COMMANDS_MAX, Export, HANDSHAKE_MAX, Secrecy, WINDOW};
use crate::block::{Buf, Durability, Extent, Instant, IoError, Lba, Op, Payload, SECTOR_BYTES, Sectors, State};
use crate::nbd::{
    Chunk, ClientFlags, ClientOption, Greeting, HandshakeFlags, Head, INTAKE_BYTES, Intake, NbdError, OptionHeader,
    OptionReply, Outbox, PAYLOAD_MAX, Refusal, ReplyStyle, RequestHeader, Session, Side, Slices, Spaces, Violation,
    export_name_answer, simple_reply,
};

/// Replies that wait, in slices, before no more requests are taken.
const OUTBOX_MAX: usize = 4 * COMMANDS_MAX;

/// The server's side of one client.
#[derive(Debug)]
pub struct Connection {
    export: Rc<Export>,
    phase: Phase,
    expect: Expect,
    client: ClientFlags,
    terms: Terms,
    session: Option<Session>,
    intake: Intake,
    outbox: Outbox,
    commands: Slab<Command>,
    pieces: Slab<Piece>,
    /// Commands that are cut into pieces as the window allows.
    cuts: VecDeque<usize>,
    /// What has all it needs.
    arrived: VecDeque<Arrived>,
    /// Whose turn it is.
    cuts_next: bool,
    /// Bytes of pieces under way to the volume and of replies under way to the client.
    up: usize,
    /// Bytes of writes that are arriving or under way to the volume.
    down: usize,
    handshake_until: Instant,
    /// Its handshake was over once.
    is_let_in: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The client's flags are awaited.
    Flags,
    /// Options.
    Options,
    /// TLS was agreed on, and has not begun.
    Encrypting,
    /// Older connections of its session are being ended.
    TakingOver,
    /// Requests.
    Transmission,
    /// No more requests; those that were taken are still answered.
    Leaving,
    /// Nothing is sent any more.
    Broken,
}

/// What the next bytes are.
#[derive(Debug)]
enum Expect {
    /// The beginning of a message.
    Message,
    /// The rest of a write.
    Payload(Arriving),
    /// Bytes nobody wants, and what to answer then.
    Skip { left: u64, answer: Answer },
}

/// An answer that waits for the end of what is skipped.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Option(u32),
    Request { cookie: u64, offset: u64, error: NbdError, why: &'static str },
}

/// A write that is arriving.
#[derive(Debug)]
struct Arriving {
    command: usize,
    /// The byte of the export at which the present piece begins.
    offset: u64,
    /// The present piece; none while there is no room for it.
    buf: Option<Buf>,
    filled: usize,
}

/// A request under way.
#[derive(Debug)]
struct Command {
    cookie: u64,
    task: Task,
    /// The range, in bytes.
    offset: u64,
    end: u64,
    /// Bytes before this were made into pieces.
    next: u64,
    /// Pieces that are not done.
    outstanding: usize,
    error: Option<NbdError>,
    /// What was read of a read that goes out as a whole.
    gathered: Vec<(u64, Bytes)>,
    /// The window has room for all of it.
    has_room: bool,
}

/// A part of a request that the volume has.
#[derive(Clone, Copy, Debug)]
struct Piece {
    command: usize,
    offset: u64,
    length: u64,
}

#[derive(Debug)]
enum Arrived {
    Write { command: usize, offset: u64, payload: Payload },
    Flush { command: usize },
    Status { command: usize },
}

/// Something the volume is asked for.
#[derive(Debug)]
pub enum Work {
    /// A request; [`Connection::completed`] takes its end.
    Io {
        /// The connection's name for it.
        piece: u32,
        /// Where.
        extent: Extent,
        /// What.
        op: Op,
    },
    /// How well sectors are kept; [`Connection::told`] takes the answer.
    States {
        /// The connection's name for it.
        command: u32,
        /// Which.
        extent: Extent,
    },
}

impl Connection {
    /// A client that has just come. It is greeted.
    pub fn new(export: Rc<Export>, secrecy: Secrecy, now: Instant) -> Connection {
        let mut outbox = Outbox::default();
        let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        outbox.head(Head::from_slice(&Greeting { flags }.encode()));
        Connection {
            export,
            phase: Phase::Flags,
            expect: Expect::Message,
            client: ClientFlags::empty(),
            terms: Terms::new(secrecy),
            session: None,
            intake: Intake::new(),
            outbox,
            commands: Slab::new(),
            pieces: Slab::new(),
            cuts: VecDeque::new(),
            arrived: VecDeque::new(),
            cuts_next: false,
            up: 0,
            down: 0,
            handshake_until: now + HANDSHAKE_MAX,
            is_let_in: false,
        }
    }

    // ---- for whoever has the socket ----

    /// No more bytes will come.
    pub fn ended(&mut self) {
        self.leave();
    }

    /// Nothing can be sent any more.
    pub fn broken(&mut self) {
        self.phase = Phase::Broken;
        self.expect = Expect::Message;
        self.outbox.clear();
        self.cuts.clear();
        self.arrived.clear();
    }

    /// Takes no more requests; those it has are answered.
    pub fn stop(&mut self) {
        match self.phase {
            Phase::Flags | Phase::Options | Phase::Encrypting | Phase::TakingOver => self.broken(),
            Phase::Transmission => self.leave(),
            Phase::Leaving | Phase::Broken => {}
        }
    }

    /// Whether the next byte in each direction is to be encrypted.
    pub fn awaits_tls(&self) -> bool {
        self.phase == Phase::Encrypting && self.outbox.is_empty()
    }

    /// From now on they are.
    pub fn encrypted(&mut self) {
        assert!(self.awaits_tls(), "TLS was not agreed on");
        self.phase = Phase::Options;
    }

    /// The session it is of, if its client has named one.
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// Whether it is let in only when its server has ended all older connections of its session.
    pub fn takes_over(&self) -> bool {
        self.phase == Phase::TakingOver
    }

    /// There are none any more.
    pub fn taken_over(&mut self) {
        assert!(self.takes_over(), "nobody asked for it");
        self.phase = Phase::Options;
    }

    /// Until when the handshake must be over, if it is not. Who leaves in the midst of it and takes no answer is in it still.
    pub fn handshake_until(&self) -> Option<Instant> {
        (!self.is_let_in && self.phase != Phase::Broken).then_some(self.handshake_until)
    }

    fn let_in(&mut self) {
        self.phase = Phase::Transmission;
        self.is_let_in = true;
    }

    /// Whether nothing is sent any more.
    pub fn is_broken(&self) -> bool {
        self.phase == Phase::Broken
    }

    /// Whether the socket can be closed, and this be forgotten.
    pub fn is_over(&self) -> bool {
        match self.phase {
            Phase::Broken => self.pieces.is_empty(),
            Phase::Leaving => self.commands.is_empty() && self.outbox.is_empty(),
            Phase::Flags | Phase::Options | Phase::Encrypting | Phase::TakingOver | Phase::Transmission => false,
        }
    }

    /// Understands what has arrived, as far as there is room for it.
    pub fn go_on(&mut self) {
        while self.is_open() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => self.broken(),
            }
        }
    }

    // ---- for whoever has the volume ----

    /// The next piece of work for the volume, if there is one and the window has room for it.
    pub fn next_work(&mut self) -> Option<Work> {
        self.cuts_next = !self.cuts_next;
        match self.cuts_next {
            true => self.next_cut().or_else(|| self.next_arrived()),
            false => self.next_arrived().or_else(|| self.next_cut()),
        }
    }

    /// Whether [`Connection::next_work`] has something.
    pub fn has_work(&self) -> bool {
        !self.arrived.is_empty() || self.cuts.front().is_some_and(|command| self.fits(*command))
    }

    /// A piece is done.
    pub fn completed(&mut self, piece: u32, op: Op, result: Result<(), IoError>) {
        let Piece { command: key, offset, length } = self.pieces.remove(piece as usize);
        if self.phase == Phase::Broken {
            return;
        }
        let command = &mut self.commands[key];
        command.outstanding -= 1;
        if let Err(error) = result {
            command.error.get_or_insert(error.into());
        }
        let last = command.outstanding == 0 && command.next == command.end;
        let (cookie, start) = (command.cookie, command.offset);
        match (command.task, op, result) {
            (Task::Read { whole: true }, Op::Read(buf), Ok(())) => {
                command.gathered.push((offset, buf.into_bytes()));
            }
            (Task::Read { whole: false }, Op::Read(buf), Ok(())) => {
                let chunk = Chunk::Data { offset, length: length as u32 };
                self.outbox.head(chunk.encode(self.terms.style.replies, cookie, start, last));
                self.outbox.data(buf.into_bytes());
                if last {
                    self.commands.remove(key);
                }
                return;
            }
            (Task::Read { whole: false }, _, Err(error)) => {
                self.up -= length as usize;
                let chunk = Chunk::ErrorOffset { error: error.into(), message: error.to_string(), offset };
                self.outbox.head(chunk.encode(self.terms.style.replies, cookie, start, last));
                if last {
                    self.commands.remove(key);
                }
                return;
            }
            (Task::Write(_), ..) => self.down -= length as usize,
            (Task::Read { whole: true } | Task::Zero(_) | Task::Trim(_) | Task::Cache, ..) => {
                self.up -= length as usize;
            }
            (Task::Flush, ..) => {}
            (task, op, _) => panic!("a {} came back for {task:?}", op.name()),
        }
        if last {
            self.finish(key);
        }
    }

    /// The states that were asked for, from the beginning of the extent on.
    pub fn told(&mut self, command: u32, states: &[(Sectors, State)]) {
        let Command { cookie, task, offset, end, .. } = self.commands.remove(command as usize);
        let one = task == Task::Status { one: true };
        // The extent began at a sector, the request at a byte of it.
        let skipped = offset % SECTOR_BYTES;
        let ranges = |flags: fn(State) -> u64| {
            let (mut at, mut extents) = (offset - skipped, Vec::<(u64, u64)>::new());
            for (length, state) in states {
                let (from, to) = (at.max(offset), (at + length.bytes()).min(end));
                match extents.last_mut() {
                    Some((before, same)) if *same == flags(*state) => *before += to - from,
                    Some(_) if one => break,
                    _ => extents.push((to - from, flags(*state))),
                }
                at += length.bytes();
            }
            extents
        };
        let contexts = std::mem::take(&mut self.terms.contexts);
        for (number, context) in contexts.iter().enumerate() {
            let extents = match context {
                Context::Allocation => ranges(|_| 0),
                Context::State => ranges(state_flags),
            };
            let chunk = Chunk::BlockStatus { context: context.id(), extents };
            let done = number + 1 == contexts.len();
            self.outbox.head(chunk.encode(self.terms.style.replies, cookie, offset, done));
        }
        self.terms.contexts = contexts;
    }

    // ---- messages ----

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Flags | Phase::Options | Phase::Transmission)
    }

    /// Whether what arrives next can be understood.
    fn can_go_on(&self) -> bool {
        match &self.expect {
            Expect::Message => self.commands.len() < COMMANDS_MAX && self.outbox.len() < OUTBOX_MAX,
            Expect::Payload(arriving) => arriving.buf.is_some() || self.down < WINDOW,
            Expect::Skip { .. } => true,
        }
    }

    /// One step on; whether there may be another.
    fn step(&mut self) -> Result<bool, Violation> {
        if !self.can_go_on() {
            return Ok(false);
        }
        match &mut self.expect {
            Expect::Skip { left, .. } => {
                let now = (*left).min(self.intake.data().len() as u64);
                self.intake.consume(now as usize);
                *left -= now;
                if *left > 0 {
                    return Ok(false);
                }
                if let Expect::Skip { answer, .. } = std::mem::replace(&mut self.expect, Expect::Message) {
                    self.answer(answer);
                }
                Ok(true)
            }
            Expect::Payload(_) => Ok(self.step_payload()),
            Expect::Message => match self.phase {
                Phase::Flags => self.step_flags(),
                Phase::Options => self.step_option(),
                Phase::Transmission => self.step_request(),
                Phase::Encrypting | Phase::TakingOver | Phase::Leaving | Phase::Broken => Ok(false),
            },
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Option(number) => {
                let message = String::from("the data of this option are too long");
                self.reply_to_option(number, &[OptionReply::Refused { refusal: Refusal::TooBig, message }]);
            }
            Answer::Request { cookie, offset, error, why } => self.refuse(cookie, offset, error, why),
        }
    }

    fn step_flags(&mut self) -> Result<bool, Violation> {
        let Some(bytes) = self.intake.data().first_chunk() else { return Ok(false) };
        let bits = u32::from_be_bytes(*bytes);
        let known = ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES;
        if bits & !known.bits() != 0 {
            return Err(Violation::Flags(bits));
        }
        self.client = ClientFlags::from_bits_retain(bits);
        self.intake.consume(bytes.len());
        self.phase = Phase::Options;
        Ok(true)
    }

    fn step_option(&mut self) -> Result<bool, Violation> {
        let Some(header) = OptionHeader::decode(self.intake.data())? else { return Ok(false) };
        let OptionHeader { number, length } = header;
        let message = OptionHeader::BYTES + length as usize;
        if message > INTAKE_BYTES / 2 {
            if header.is_export_name() {
                return Err(Violation::TooLong { length: length.into() });
            }
            self.intake.consume(OptionHeader::BYTES);
            self.expect = Expect::Skip { left: length.into(), answer: Answer::Option(number) };
            return Ok(true);
        }
        let Some(bytes) = self.intake.data().get(..message) else { return Ok(false) };
        let option = ClientOption::decode(number, &bytes[OptionHeader::BYTES..]);
        self.intake.consume(message);
        let (replies, outcome) = self.terms.haggle(&self.export, option);
        self.reply_to_option(number, &replies);
        match outcome {
            Outcome::Haggle => {}
            Outcome::TakeOver(session) => {
                self.session = Some(session);
                self.phase = Phase::TakingOver;
            }
            Outcome::Encrypt if !self.intake.data().is_empty() => return Err(Violation::Unencrypted),
            Outcome::Encrypt => self.phase = Phase::Encrypting,
            Outcome::Transmit => self.let_in(),
            Outcome::TransmitAsOfOld => {
                let flags = self.export.flags(self.terms.style.replies);
                self.outbox.head(Head::from_vec(export_name_answer(self.export.size, flags, self.client)));
                self.let_in();
            }
            Outcome::Leave => self.leave(),
            Outcome::Break => self.broken(),
        }
        Ok(true)
    }

    fn reply_to_option(&mut self, number: u32, replies: &[OptionReply]) {
        for reply in replies {
            self.outbox.head(Head::from_vec(reply.encode(number)));
        }
    }

    fn step_request(&mut self) -> Result<bool, Violation> {
        let style = self.terms.style;
        let Some(header) = RequestHeader::decode(style.requests, self.intake.data())? else { return Ok(false) };
        self.intake.consume(style.requests.header_bytes());
        let RequestHeader { cookie, offset, length, .. } = header;
        let payload = header.payload(style.requests);
        if payload > PAYLOAD_MAX.into() {
            return Err(Violation::TooLong { length: payload });
        }
        let verdict = judge(&header, &self.export, style);
        let verdict = match verdict {
            Ok(Task::Status { .. }) if self.terms.contexts.is_empty() => {
                Err((NbdError::Invalid, "no metadata context was selected"))
            }
            verdict => verdict,
        };
        match verdict {
            Ok(task) => self.begin(task, cookie, offset, offset.saturating_add(length)),
            Err((error, why)) => {
                let answer = Answer::Request { cookie, offset, error, why };
                self.expect = Expect::Skip { left: payload, answer };
            }
        }
        Ok(true)
    }

    fn begin(&mut self, task: Task, cookie: u64, offset: u64, end: u64) {
        if task == Task::Disconnect {
            return self.leave();
        }
        let command = Command {
            cookie,
            task,
            offset,
            end,
            next: offset,
            outstanding: 0,
            error: None,
            gathered: Vec::new(),
            has_room: false,
        };
        let key = self.commands.insert(command);
        match task {
            Task::Read { .. } | Task::Zero(_) | Task::Trim(_) | Task::Cache => self.cuts.push_back(key),
            Task::Write(_) => self.expect = Expect::Payload(Arriving { command: key, offset, buf: None, filled: 0 }),
            Task::Flush => {
                self.commands[key].outstanding = 1;
                self.arrived.push_back(Arrived::Flush { command: key });
            }
            Task::Status { .. } => self.arrived.push_back(Arrived::Status { command: key }),
            Task::Disconnect => {}
        }
    }

    /// Takes more of a write; whether there may be more to do.
    fn step_payload(&mut self) -> bool {
        let Expect::Payload(arriving) = &mut self.expect else { return true };
        let command = &mut self.commands[arriving.command];
        let buf = match &mut arriving.buf {
            Some(buf) => buf,
            None if self.down < WINDOW => {
                let length = (self.export.piece_end(arriving.offset, command.end) - arriving.offset) as usize;
                self.down += length;
                arriving.buf.insert(Buf::stale(length))
            }
            None => return false,
        };
        let data = self.intake.data();
        let room = &mut buf.as_mut_slice().expect("a fresh buffer is in one part")[arriving.filled..];
        let now = room.len().min(data.len());
        room[..now].copy_from_slice(&data[..now]);
        self.intake.consume(now);
        arriving.filled += now;
        if arriving.filled < buf.len() {
            return false;
        }
        let payload = arriving.buf.take().expect("it is full").freeze();
        let offset = arriving.offset;
        arriving.offset += payload.len() as u64;
        arriving.filled = 0;
        command.next = arriving.offset;
        command.outstanding += 1;
        let key = arriving.command;
        if command.next == command.end {
            self.expect = Expect::Message;
        }
        self.arrived.push_back(Arrived::Write { command: key, offset, payload });
        true
    }

    /// Takes no more messages. A write that has not arrived does not arrive any more.
    fn leave(&mut self) {
        if matches!(self.phase, Phase::Leaving | Phase::Broken) {
            return;
        }
        self.phase = Phase::Leaving;
        if let Expect::Payload(Arriving { command: key, buf, .. }) =
            std::mem::replace(&mut self.expect, Expect::Message)
        {
            self.down -= buf.map_or(0, |buf| buf.len());
            let command = &mut self.commands[key];
            command.next = command.end;
            command.error.get_or_insert(NbdError::Shutdown);
            if command.outstanding == 0 {
                self.finish(key);
            }
        }
    }

    // ---- pieces ----

    /// Whether the window has room for the next piece of a command. The first may be longer than the window.
    fn fits(&self, key: usize) -> bool {
        let command = &self.commands[key];
        let wanted = match command.task {
            _ if command.has_room => return true,
            Task::Read { whole: true } => command.end - command.offset,
            _ => self.export.piece_end(command.next, command.end) - command.next,
        };
        self.up == 0 || self.up + wanted as usize <= WINDOW
    }

    fn next_cut(&mut self) -> Option<Work> {
        let key = *self.cuts.front()?;
        if !self.fits(key) {
            return None;
        }
        self.cuts.pop_front();
        let command = &mut self.commands[key];
        let (from, to) = (command.next, self.export.piece_end(command.next, command.end));
        match command.task {
            Task::Read { whole: true } if command.has_room => {}
            Task::Read { whole: true } => {
                command.has_room = true;
                self.up += (command.end - command.offset) as usize;
            }
            _ => self.up += (to - from) as usize,
        }
        command.next = to;
        command.outstanding += 1;
        if to < command.end {
            self.cuts.push_back(key);
        }
        let op = match command.task {
            Task::Read { .. } | Task::Cache => Op::Read(Buf::stale((to - from) as usize)),
            Task::Zero(durability) => Op::WriteZeroes(durability),
            Task::Trim(_) => Op::Discard,
            task => panic!("{task:?} is not cut"),
        };
        Some(self.hand_out(key, from, to - from, op))
    }

    fn next_arrived(&mut self) -> Option<Work> {
        Some(match self.arrived.pop_front()? {
            Arrived::Write { command, offset, payload } => {
                let Task::Write(durability) = self.commands[command].task else { panic!("only writes carry bytes") };
                let length = payload.len() as u64;
                self.hand_out(command, offset, length, Op::Write(payload, durability))
            }
            Arrived::Flush { command } => self.hand_out(command, 0, 0, Op::Flush),
            Arrived::Status { command } => {
                let Command { offset, end, .. } = self.commands[command];
                let start = offset / SECTOR_BYTES;
                let extent = Extent::new(Lba(start), Sectors(end.div_ceil(SECTOR_BYTES) - start));
                Work::States { command: command as u32, extent }
            }
        })
    }

    fn hand_out(&mut self, command: usize, offset: u64, length: u64, op: Op) -> Work {
        let piece = self.pieces.insert(Piece { command, offset, length }) as u32;
        let extent = Extent::new(Lba(offset / SECTOR_BYTES), Sectors(length / SECTOR_BYTES));
        Work::Io { piece, extent, op }
    }

    /// All pieces of a command are done.
    fn finish(&mut self, key: usize) {
        let command = &mut self.commands[key];
        if command.task == Task::Trim(Durability::Fua) && command.error.is_none() {
            // It is a flush from here on.
            command.task = Task::Flush;
            command.outstanding = 1;
            self.arrived.push_back(Arrived::Flush { command: key });
            return;
        }
        let Command { cookie, task, offset, end, error, mut gathered, .. } = self.commands.remove(key);
        if let Some(error) = error {
            self.up -= gathered.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            return self.refuse(cookie, offset, error, why(error));
        }
        let Style { replies, .. } = self.terms.style;
        if task == (Task::Read { whole: true }) {
            let length = (end - offset) as u32;
            self.outbox.head(match replies {
                ReplyStyle::Simple => simple_reply(cookie, None),
                _ => Chunk::Data { offset, length }.encode(replies, cookie, offset, true),
            });
            gathered.sort_unstable_by_key(|(offset, _)| *offset);
            gathered.into_iter().for_each(|(_, bytes)| self.outbox.data(bytes));
        } else {
            self.outbox.head(match replies {
                ReplyStyle::Simple => simple_reply(cookie, None),
                _ => Chunk::None.encode(replies, cookie, offset, true),
            });
        }
    }

    fn refuse(&mut self, cookie: u64, offset: u64, error: NbdError, why: &str) {
        let replies = self.terms.style.replies;
        self.outbox.head(match replies {
            ReplyStyle::Simple => simple_reply(cookie, Some(error)),
            _ => Chunk::Error { error, message: why.to_owned() }.encode(replies, cookie, offset, true),
        });
    }
}

impl Side for Connection {
    fn spaces(&mut self) -> Spaces<'_> {
        let mut spaces = Spaces::new();
        if !self.is_open() || !self.can_go_on() {
            return spaces;
        }
        if let Expect::Payload(Arriving { buf: Some(buf), filled, .. }) = &mut self.expect {
            let buf = buf.as_mut_slice().expect("a fresh buffer is in one part");
            spaces.push(IoSliceMut::new(&mut buf[*filled..]));
        }
        let space = self.intake.space();
        if !space.is_empty() {
            spaces.push(IoSliceMut::new(space));
        }
        spaces
    }

    fn received(&mut self, count: usize) {
        let mut left = count;
        if let Expect::Payload(Arriving { buf: Some(buf), filled, .. }) = &mut self.expect {
            let now = left.min(buf.len() - *filled);
            *filled += now;
            left -= now;
        }
        self.intake.fill(left);
        self.go_on();
    }

    fn has_output(&self) -> bool {
        !self.outbox.is_empty() && !self.takes_over()
    }

    fn slices(&self) -> Slices<'_> {
        self.outbox.slices()
    }

    fn sent(&mut self, count: usize) {
        self.up -= self.outbox.sent(count);
    }
}

/// What `raidlab:state` says: bit 0: less redundancy than there should be; bit 1: that is being mended; bit 2: lost.
fn state_flags(state: State) -> u64 {
    match state {
        State::InSync => 0,
        State::Degraded => 1,
        State::Recovering => 1 | 2,
        State::Lost => 4,
    }
}

fn why(error: NbdError) -> &'static str {
    match error {
        NbdError::NotPermitted => "the volume takes no writes",
        NbdError::NoSpace => "no space is left for the images",
        NbdError::Shutdown => "the server is ending",
        _ => "the array could not do it: see its status",
    }
}
