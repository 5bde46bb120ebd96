//! The client's side of a connection, without its socket.
//!
//! ```text
//!   submit    -> requests -> slices, sent     -> socket
//!   next_done <- replies  <- received, spaces <- socket
//! ```
//!
//! A client that is to be encrypted asks for TLS before anything else, and takes no less; what moves its bytes encrypts
//! them once [`Client::awaits_tls`] says so. The client asks for extended headers, then for structured replies, and takes what it gets; then for its
//! session, if it is in one, and for the export. A request goes out at once, in pieces where the server takes less in one; replies come in any order, and a request is
//! done when its last piece is. Bytes of a read go from the socket into the buffer of the read, but for those that
//! arrived together with a header.
//!
//! A server that breaks the protocol is not spoken to any more: the client is closed, and what was not done can be taken
//! back ([`Client::unfinished`]).
//!
//! What the ground promises and the protocol does not: discarded sectors read as zero, so a discard is sent as
//! `WRITE_ZEROES` that may leave a hole, never as `TRIM`. Where the server has no zeroes they are written; where it
//! has no FUA, a flush follows the write; a server without flush has no cache to flush.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSliceMut;

use rangemap::RangeSet;
use thiserror::Error;

use super::{
    Chunk, ClientFlags, ClientOption, Command, CommandFlags, Greeting, HandshakeFlags, INTAKE_BYTES, Info, InfoQuery,
    InfoRequest, Intake, MetaQuery, NbdError, OptionReply, Outbox, PAYLOAD_MAX, Refusal, ReplyHeader, ReplyStyle,
    RequestHeader, RequestStyle, Session, Side, Slices, Spaces, TransmissionFlags, Violation,
};
use crate::block::{Buf, Durability, Extent, IoError, Op, Payload};

#[cfg(test)]
mod tests;

/// The longest piece of a request without a payload, in bytes: 1 GiB.
const BARE_MAX: u64 = 1 << 30;

/// The largest block a server may insist on, in bytes.
const MINIMUM_MAX: u32 = 64 << 10;

/// What a server says an export is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportFacts {
    /// Bytes.
    pub size: u64,
    /// What it can.
    pub flags: TransmissionFlags,
    /// Requests are multiples of this, in place and length; a power of two.
    pub minimum: u32,
    /// Multiples of this serve best.
    pub preferred: u32,
    /// No request carries more.
    pub maximum: u32,
}

/// Why a connection cannot be had, or came to its end.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ClientError {
    /// It does not speak the protocol.
    #[error("the server does not keep to the NBD protocol: {0}")]
    Violation(#[from] Violation),
    /// It speaks it as it was before 2011.
    #[error("the server speaks only the old handshake, which knows no options")]
    Old,
    /// It does not give the export.
    #[error("{}", refused(*refusal, message))]
    Refused {
        /// Why.
        refusal: Refusal,
        /// In its own words.
        message: String,
    },
    /// It has no TLS, which was asked for.
    #[error("the server does not speak TLS{}", in_words(message))]
    NoTls {
        /// In its own words.
        message: String,
    },
    /// It is not who it should be, or breaks the rules of TLS.
    #[error("no TLS with this server: {0}")]
    Tls(String),
    /// A reply to nothing that was asked, or not the one that is due.
    #[error("the server sent a reply that nothing was asked for")]
    Unasked,
    /// Block sizes that make no sense.
    #[error("the server names block sizes that make no sense: minimum {minimum}, maximum {maximum}")]
    BlockSizes {
        /// The least it takes.
        minimum: u32,
        /// The most it takes.
        maximum: u32,
    },
}

fn refused(refusal: Refusal, message: &str) -> String {
    let why = match refusal {
        Refusal::Unknown => "the server has no such export",
        Refusal::TlsRequired => "the server asks for TLS: write nbds:// or nbds+unix://, with ?tls-certificates=DIR",
        Refusal::Policy => "the server does not let us in",
        Refusal::Unsupported => "the server is too old: it does not know GO",
        Refusal::Shutdown => "the server is ending",
        _ => "the server refuses the export",
    };
    format!("{why}{}", in_words(message))
}

/// What a server says of it.
fn in_words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({})", message.escape_debug()) }
}

/// The client's side of a connection.
#[derive(Debug)]
pub struct Client {
    export: String,
    is_to_be_encrypted: bool,
    session: Option<Session>,
    /// The server that knows the session.
    server: Option<u128>,
    phase: Phase,
    style: ReplyStyle,
    intake: Intake,
    outbox: Outbox,
    expect: Expect,
    jobs: BTreeMap<u64, Job>,
    /// By cookie, which is never used twice.
    pieces: BTreeMap<u64, Piece>,
    cookies: u64,
    done: VecDeque<(u64, Op, Result<(), IoError>)>,
}

#[derive(Debug)]
enum Phase {
    Greeting,
    /// What was asked for last.
    StartTls,
    /// TLS was agreed on, and has not begun.
    Encrypting,
    /// What was asked for last.
    ExtendedHeaders,
    StructuredReply,
    Session,
    Go(Offer),
    Transmission(ExportFacts),
    Closed(ClientError),
}

/// What the server has said of the export so far.
#[derive(Default, Debug)]
struct Offer {
    export: Option<(u64, TransmissionFlags)>,
    blocks: Option<(u32, u32, u32)>,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// The beginning of a message.
    Message,
    /// Bytes of a read.
    Data { cookie: u64, at: usize, left: usize, is_last: bool },
}

/// A request under way.
#[derive(Debug)]
struct Job {
    extent: Extent,
    /// A read's buffer is with its pieces.
    op: Op,
    outstanding: usize,
    result: Result<(), IoError>,
    /// Buffers of a read's pieces that are done.
    buffers: Vec<Option<Buf>>,
    is_flush_due: bool,
}

/// A part of a request that the server has.
#[derive(Debug)]
struct Piece {
    job: u64,
    index: usize,
    offset: u64,
    length: u64,
    /// What a read fills.
    buf: Option<Buf>,
    /// Bytes of the export that have been sent for it.
    received: RangeSet<u64>,
    error: Option<NbdError>,
}

impl Client {
    /// A connection to `export` that has just been made, and is to be encrypted or not.
    pub fn new(export: &str, is_to_be_encrypted: bool) -> Client {
        Client {
            export: export.to_owned(),
            is_to_be_encrypted,
            session: None,
            server: None,
            phase: Phase::Greeting,
            style: ReplyStyle::Simple,
            intake: Intake::new(),
            outbox: Outbox::default(),
            expect: Expect::Message,
            jobs: BTreeMap::new(),
            pieces: BTreeMap::new(),
            cookies: 0,
            done: VecDeque::new(),
        }
    }

    /// The same, as a connection of a session: older ones of it are to be ended.
    pub fn in_session(self, session: Session) -> Client {
        Client { session: Some(session), ..self }
    }

    /// Which server has taken note of the session, and so has nothing under way of its older connections. None if it knows
    /// no sessions.
    pub fn server(&self) -> Option<u128> {
        self.server
    }

    /// What the export is, once the handshake is over and as long as the server keeps to the protocol.
    pub fn export(&self) -> Option<&ExportFacts> {
        match &self.phase {
            Phase::Transmission(facts) => Some(facts),
            _ => None,
        }
    }

    /// Why there is no more to be had from this connection, if so.
    pub fn error(&self) -> Option<&ClientError> {
        match &self.phase {
            Phase::Closed(error) => Some(error),
            _ => None,
        }
    }

    // ---- for whoever has requests ----

    /// Asks for something; `key` comes back with the answer, and is not under way already. The extent is one that the
    /// export takes. Only after the handshake.
    pub fn submit(&mut self, key: u64, extent: Extent, op: Op) {
        let Phase::Transmission(facts) = self.phase else { panic!("a request outside of transmission") };
        let has = |flag| facts.flags.contains(flag);
        let is_forced = matches!(op, Op::Write(_, Durability::Fua) | Op::WriteZeroes(Durability::Fua));
        let is_flush_due = is_forced && !has(TransmissionFlags::SEND_FUA) && has(TransmissionFlags::SEND_FLUSH);
        let mut flags = CommandFlags::empty();
        flags.set(CommandFlags::FUA, is_forced && has(TransmissionFlags::SEND_FUA));
        let (start, length) = (extent.start.bytes(), extent.length.bytes());
        let carried = u64::from(facts.maximum);
        let job = Job { extent, op, outstanding: 0, result: Ok(()), buffers: Vec::new(), is_flush_due };
        let job = self.jobs.entry(key).or_insert(job);
        assert!(job.outstanding == 0, "{key} is under way already");
        match &mut job.op {
            Op::Flush if !has(TransmissionFlags::SEND_FLUSH) => self.job_is_done(key),
            Op::Flush => self.send(key, Command::Flush, flags, 0..0, None, None),
            Op::Read(buf) => {
                let mut rest = std::mem::take(buf);
                for range in cut(start, length, carried) {
                    let tail = rest.split_off((range.end - range.start) as usize);
                    let buf = std::mem::replace(&mut rest, tail);
                    self.send(key, Command::Read, flags, range, Some(buf), None);
                }
            }
            Op::Write(payload, _) => {
                let payload = payload.clone();
                self.send_write(key, flags, start, &payload, carried);
            }
            Op::WriteZeroes(_) | Op::Discard if !has(TransmissionFlags::SEND_WRITE_ZEROES) => {
                let zeroes = Payload::zeroes(length as usize);
                self.send_write(key, flags, start, &zeroes, carried);
            }
            Op::WriteZeroes(_) | Op::Discard => {
                flags.set(CommandFlags::NO_HOLE, matches!(job.op, Op::WriteZeroes(_)));
                for range in cut(start, length, BARE_MAX) {
                    self.send(key, Command::WriteZeroes, flags, range, None, None);
                }
            }
        }
    }

    /// The next request that is done.
    pub fn next_done(&mut self) -> Option<(u64, Op, Result<(), IoError>)> {
        self.done.pop_front()
    }

    /// Whether requests are under way.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Gives back what is under way, in the order of its keys: nothing of it will be answered.
    pub fn unfinished(&mut self) -> Vec<(u64, Extent, Op)> {
        let mut pieces = std::mem::take(&mut self.pieces);
        let mut bufs: BTreeMap<(u64, usize), Buf> = BTreeMap::new();
        for piece in pieces.values_mut() {
            if let Some(buf) = piece.buf.take() {
                bufs.insert((piece.job, piece.index), buf);
            }
        }
        let whole = |(key, mut job): (u64, Job)| {
            if let Op::Read(whole) = &mut job.op {
                for (index, buf) in job.buffers.into_iter().enumerate() {
                    whole.append(buf.or_else(|| bufs.remove(&(key, index))).expect("it is done, or under way"));
                }
            }
            (key, job.extent, job.op)
        };
        std::mem::take(&mut self.jobs).into_iter().map(whole).collect()
    }

    /// Says good-bye; nothing is asked for afterwards.
    pub fn disconnect(&mut self) {
        if let Phase::Transmission(_) = self.phase {
            let (flags, number) = (CommandFlags::empty(), Command::Disconnect.number());
            let header = RequestHeader { flags, number, cookie: self.cookies, offset: 0, length: 0 };
            self.outbox.head(header.encode(self.requests()));
        }
    }

    // ---- for whoever has the socket ----

    /// Whether the next byte in each direction is to be encrypted.
    pub fn awaits_tls(&self) -> bool {
        matches!(self.phase, Phase::Encrypting)
    }

    /// From now on they are.
    pub fn encrypted(&mut self) {
        assert!(self.awaits_tls(), "TLS was not agreed on");
        self.ask_for_headers();
    }

    /// The encryption failed.
    pub fn tls_failed(&mut self, why: String) {
        self.close(ClientError::Tls(why));
    }

    // ---- inside ----

    fn close(&mut self, error: ClientError) {
        self.outbox.clear();
        self.phase = Phase::Closed(error);
    }

    fn requests(&self) -> RequestStyle {
        match self.style {
            ReplyStyle::Extended => RequestStyle::Extended,
            ReplyStyle::Simple | ReplyStyle::Structured => RequestStyle::Compact,
        }
    }

    fn send_write(&mut self, key: u64, flags: CommandFlags, start: u64, payload: &Payload, carried: u64) {
        let flags = match self.requests() {
            RequestStyle::Extended => flags | CommandFlags::PAYLOAD_LEN,
            RequestStyle::Compact => flags,
        };
        for range in cut(start, payload.len() as u64, carried) {
            let part = payload.cut((range.start - start) as usize..(range.end - start) as usize);
            self.send(key, Command::Write, flags, range, None, Some(part));
        }
    }

    fn send(
        &mut self,
        key: u64,
        command: Command,
        flags: CommandFlags,
        range: std::ops::Range<u64>,
        buf: Option<Buf>,
        payload: Option<Payload>,
    ) {
        let job = self.jobs.get_mut(&key).expect("pieces are of a job");
        let (cookie, index) = (self.cookies, job.buffers.len());
        let (offset, length) = (range.start, range.end - range.start);
        job.outstanding += 1;
        job.buffers.push(None);
        self.cookies += 1;
        self.pieces
            .insert(cookie, Piece { job: key, index, offset, length, buf, received: RangeSet::new(), error: None });
        let header = RequestHeader { flags, number: command.number(), cookie, offset, length };
        self.outbox.head(header.encode(self.requests()));
        payload.into_iter().flat_map(Payload::into_slices).for_each(|slice| self.outbox.data(slice));
    }

    /// Takes one step through what arrived; false if that needs more bytes.
    fn understand(&mut self) -> Result<bool, ClientError> {
        if let Expect::Data { .. } = self.expect {
            return self.take_data();
        }
        let step = match self.phase {
            Phase::Greeting => self.take_greeting(),
            Phase::Transmission(_) => self.take_reply(),
            Phase::Encrypting if self.intake.data().is_empty() => return Ok(false),
            Phase::Encrypting => return Err(Violation::Unencrypted.into()),
            _ => self.take_option_reply(),
        };
        if step == Ok(false) && self.intake.space().is_empty() {
            return Err(Violation::TooLong { length: INTAKE_BYTES as u64 }.into());
        }
        step
    }

    fn take_greeting(&mut self) -> Result<bool, ClientError> {
        let Some(greeting) = Greeting::decode(self.intake.data())? else { return Ok(false) };
        self.intake.consume(Greeting::BYTES);
        if !greeting.flags.contains(HandshakeFlags::FIXED_NEWSTYLE) {
            return Err(ClientError::Old);
        }
        let mut flags = ClientFlags::FIXED_NEWSTYLE;
        flags.set(ClientFlags::NO_ZEROES, greeting.flags.contains(HandshakeFlags::NO_ZEROES));
        self.outbox.head(flags.bits().to_be_bytes().as_slice().into());
        if self.is_to_be_encrypted {
            self.phase = Phase::StartTls;
            self.ask(&ClientOption::StartTls);
        } else {
            self.ask_for_headers();
        }
        Ok(true)
    }

    fn ask_for_headers(&mut self) {
        self.phase = Phase::ExtendedHeaders;
        self.ask(&ClientOption::ExtendedHeaders);
    }

    fn ask(&mut self, option: &ClientOption) {
        self.outbox.head(option.encode().into());
    }

    /// Replies are in chunks from here on, without which there are no metadata contexts.
    fn ask_for_session(&mut self) {
        let Some(session) = self.session else { return self.go() };
        self.phase = Phase::Session;
        let query = MetaQuery { export: self.export.clone(), queries: vec![session.to_string()] };
        self.ask(&ClientOption::SetMetaContext(query));
    }

    fn go(&mut self) {
        self.phase = Phase::Go(Offer::default());
        let query = InfoQuery { export: self.export.clone(), wanted: vec![InfoRequest::BlockSize] };
        self.ask(&ClientOption::Go(query));
    }

    fn take_option_reply(&mut self) -> Result<bool, ClientError> {
        let Some((number, reply, used)) = OptionReply::decode(self.intake.data())? else { return Ok(false) };
        self.intake.consume(used);
        let asked = match &self.phase {
            Phase::StartTls => ClientOption::StartTls,
            Phase::ExtendedHeaders => ClientOption::ExtendedHeaders,
            Phase::StructuredReply => ClientOption::StructuredReply,
            Phase::Session => ClientOption::SetMetaContext(MetaQuery { export: String::new(), queries: Vec::new() }),
            _ => ClientOption::Go(InfoQuery { export: String::new(), wanted: Vec::new() }),
        };
        if number != asked.number() {
            return Err(ClientError::Unasked);
        }
        match (&mut self.phase, reply) {
            (Phase::StartTls, OptionReply::Ack) => self.phase = Phase::Encrypting,
            (Phase::StartTls, OptionReply::Refused { message, .. }) => return Err(ClientError::NoTls { message }),
            (Phase::ExtendedHeaders, OptionReply::Ack) => {
                self.style = ReplyStyle::Extended;
                self.ask_for_session();
            }
            (Phase::ExtendedHeaders, OptionReply::Refused { refusal, .. }) if refusal != Refusal::TlsRequired => {
                self.phase = Phase::StructuredReply;
                self.ask(&ClientOption::StructuredReply);
            }
            (Phase::StructuredReply, OptionReply::Ack) => {
                self.style = ReplyStyle::Structured;
                self.ask_for_session();
            }
            (Phase::StructuredReply, OptionReply::Refused { refusal, .. }) if refusal != Refusal::TlsRequired => {
                self.go();
            }
            (Phase::Session, OptionReply::MetaContext { name, .. }) => {
                self.server = self.server.or(self.session.and_then(|session| session.server_of(&name)));
            }
            (Phase::Session, OptionReply::Ack | OptionReply::Refused { .. }) => self.go(),
            (Phase::Go(offer), OptionReply::Info(Info::Export { size, flags })) => offer.export = Some((size, flags)),
            (Phase::Go(offer), OptionReply::Info(Info::BlockSize { minimum, preferred, maximum })) => {
                offer.blocks = Some((minimum, preferred, maximum));
            }
            (Phase::Go(_), OptionReply::Info(_)) => {}
            (Phase::Go(offer), OptionReply::Ack) => self.phase = Phase::Transmission(offer.facts()?),
            (_, OptionReply::Refused { refusal, message }) => {
                return Err(ClientError::Refused { refusal, message });
            }
            _ => return Err(ClientError::Unasked),
        }
        Ok(true)
    }

    fn take_reply(&mut self) -> Result<bool, ClientError> {
        let Some((header, used)) = ReplyHeader::decode(self.style, self.intake.data())? else { return Ok(false) };
        match header {
            ReplyHeader::Simple { error, cookie } => {
                self.intake.consume(used);
                let is_structured = self.style != ReplyStyle::Simple;
                let piece = self.pieces.get_mut(&cookie).ok_or(ClientError::Unasked)?;
                piece.error = piece.error.or(error);
                match (&piece.buf, error) {
                    (Some(_), None) if is_structured => return Err(ClientError::Unasked),
                    (Some(_), None) => {
                        piece.place(piece.offset, piece.length)?;
                        self.expect = Expect::Data { cookie, at: 0, left: piece.length as usize, is_last: true };
                    }
                    _ => self.piece_is_done(cookie)?,
                }
            }
            ReplyHeader::Chunk { done: is_last, kind, cookie, length, .. } => {
                let payload = &self.intake.data()[used..];
                let Some((chunk, taken)) = Chunk::decode(kind, length, payload)? else { return Ok(false) };
                self.intake.consume(used + taken);
                self.take_chunk(cookie, &chunk, is_last)?;
            }
        }
        Ok(true)
    }

    fn take_chunk(&mut self, cookie: u64, chunk: &Chunk, is_last: bool) -> Result<(), ClientError> {
        let piece = self.pieces.get_mut(&cookie).ok_or(ClientError::Unasked)?;
        match *chunk {
            Chunk::None => {}
            Chunk::Data { offset, length } => {
                let at = piece.place(offset, length.into())?;
                self.expect = Expect::Data { cookie, at, left: length as usize, is_last };
                return Ok(());
            }
            Chunk::Hole { offset, length } => {
                let at = piece.place(offset, length.into())?;
                let buf = piece.buf.as_mut().expect("a read has a buffer");
                within(buf, at, length as usize).for_each(|part| part.fill(0));
            }
            Chunk::Error { error, .. } | Chunk::ErrorOffset { error, .. } => piece.error = piece.error.or(Some(error)),
            Chunk::BlockStatus { .. } => return Err(ClientError::Unasked),
        }
        if is_last { self.piece_is_done(cookie) } else { Ok(()) }
    }

    /// Moves bytes of a read that arrived with a header; they are done when none are left.
    fn take_data(&mut self) -> Result<bool, ClientError> {
        let Expect::Data { cookie, at, left, is_last } = self.expect else { return Ok(true) };
        let now = left.min(self.intake.data().len());
        let piece = self.pieces.get_mut(&cookie).expect("its data are arriving");
        let mut done = 0;
        for part in within(piece.buf.as_mut().expect("a read has a buffer"), at, now) {
            part.copy_from_slice(&self.intake.data()[done..done + part.len()]);
            done += part.len();
        }
        self.intake.consume(now);
        if now < left {
            self.expect = Expect::Data { cookie, at: at + now, left: left - now, is_last };
            return Ok(false);
        }
        self.expect = Expect::Message;
        if is_last {
            self.piece_is_done(cookie)?;
        }
        Ok(true)
    }

    fn piece_is_done(&mut self, cookie: u64) -> Result<(), ClientError> {
        let piece = &self.pieces[&cookie];
        match piece.error {
            // Not done, and the server will close the connection: until then the rest is answered.
            Some(NbdError::Shutdown) => return Ok(()),
            None if piece.buf.is_some() && !piece.is_whole() => return Err(Violation::Malformed.into()),
            _ => {}
        }
        let piece = self.pieces.remove(&cookie).expect("it was there");
        let job = self.jobs.get_mut(&piece.job).expect("pieces are of a job");
        job.buffers[piece.index] = piece.buf;
        job.result = job.result.and(piece.error.map_or(Ok(()), |error| Err(meaning(error))));
        job.outstanding -= 1;
        if job.outstanding == 0 {
            self.job_is_done(piece.job);
        }
        Ok(())
    }

    /// Nothing of a job is under way any more.
    fn job_is_done(&mut self, key: u64) {
        let job = self.jobs.get_mut(&key).expect("it was under way");
        if job.result.is_ok() && std::mem::take(&mut job.is_flush_due) {
            return self.send(key, Command::Flush, CommandFlags::empty(), 0..0, None, None);
        }
        let mut job = self.jobs.remove(&key).expect("it was there");
        if let Op::Read(whole) = &mut job.op {
            job.buffers.into_iter().for_each(|buf| whole.append(buf.expect("its piece is done")));
        }
        self.done.push_back((key, job.op, job.result));
    }
}

impl Piece {
    /// Where bytes of the export go in the buffer of a read. Each is sent once.
    fn place(&mut self, offset: u64, length: u64) -> Result<usize, ClientError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.offset + self.length);
        let Some(end) = end.filter(|_| self.buf.is_some() && offset >= self.offset) else {
            return Err(ClientError::Unasked);
        };
        if self.received.overlaps(&(offset..end)) {
            return Err(Violation::Malformed.into());
        }
        self.received.insert(offset..end);
        Ok((offset - self.offset) as usize)
    }

    /// Whether every byte was sent: the others are what the buffer held before.
    fn is_whole(&self) -> bool {
        self.received.gaps(&(self.offset..self.offset + self.length)).next().is_none()
    }
}

impl Side for Client {
    fn spaces(&mut self) -> Spaces<'_> {
        let mut spaces = Spaces::new();
        if self.error().is_some() {
            return spaces;
        }
        if let Expect::Data { cookie, at, left, .. } = self.expect {
            let buf = self.pieces.get_mut(&cookie).and_then(|piece| piece.buf.as_mut()).expect("a read has a buffer");
            spaces.extend(within(buf, at, left).map(IoSliceMut::new));
        }
        spaces.push(IoSliceMut::new(self.intake.space()));
        spaces
    }

    fn received(&mut self, mut count: usize) {
        if let Expect::Data { at, left, .. } = &mut self.expect {
            let now = count.min(*left);
            (*at, *left, count) = (*at + now, *left - now, count - now);
        }
        self.intake.fill(count);
        while self.error().is_none() {
            match self.understand() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => self.close(error),
            }
        }
    }

    fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    fn slices(&self) -> Slices<'_> {
        self.outbox.slices()
    }

    fn sent(&mut self, count: usize) {
        self.outbox.sent(count);
    }
}

impl Offer {
    fn facts(&self) -> Result<ExportFacts, ClientError> {
        let (size, flags) = self.export.ok_or(ClientError::Unasked)?;
        // Without block sizes: what the protocol says is safe to assume.
        let (minimum, preferred, maximum) = self.blocks.unwrap_or((512, 4096, PAYLOAD_MAX));
        let is_sane = minimum.is_power_of_two() && minimum <= MINIMUM_MAX && maximum >= minimum;
        if !is_sane || !flags.contains(TransmissionFlags::HAS_FLAGS) {
            return Err(ClientError::BlockSizes { minimum, maximum });
        }
        let block = minimum.max(512);
        let maximum = maximum.min(PAYLOAD_MAX) / block * block;
        match maximum {
            0 => Err(ClientError::BlockSizes { minimum, maximum }),
            _ => Ok(ExportFacts { size, flags, minimum, preferred, maximum }),
        }
    }
}

/// The parts of a buffer in `length` bytes from `at` on.
fn within(buf: &mut Buf, at: usize, length: usize) -> impl Iterator<Item = &mut [u8]> {
    let (mut skip, mut left) = (at, length);
    let parts = buf.parts_mut().map(move |part| {
        let from = skip.min(part.len());
        let now = left.min(part.len() - from);
        (skip, left) = (skip - from, left - now);
        &mut part[from..from + now]
    });
    parts.filter(|part| !part.is_empty())
}

/// Cuts a range of bytes into pieces of `most`.
fn cut(start: u64, length: u64, most: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let end = start + length;
    (0..length.div_ceil(most)).map(move |piece| start + piece * most..end.min(start + (piece + 1) * most))
}

/// What a server's error says about the disk.
fn meaning(error: NbdError) -> IoError {
    match error {
        NbdError::Io => IoError::Medium,
        NbdError::NotPermitted => IoError::ReadOnly,
        NbdError::NoSpace => IoError::NoSpace,
        NbdError::NoMemory => IoError::Transport,
        NbdError::Invalid | NbdError::Overflow | NbdError::NotSupported => IoError::Unsupported,
        NbdError::Shutdown => unreachable!("it is no answer"),
    }
}
