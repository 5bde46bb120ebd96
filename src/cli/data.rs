//! `read` and `write`: the volume's bytes, by standard output and input.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;

use super::events::Journal;
use super::job::through;
use super::run::{self, stop_flag};
use super::{Failure, LabArg, Manner, Outcome};
use crate::block::{Bank, Buf, Completion, Durability, Extent, IoError, Lba, Op, Payload, SECTOR_BYTES, Sectors};
use crate::control::{Client, Command};
use crate::raid::VOLUME;
use crate::reactor::Handle;
use crate::stack::{OpenOptions, Stack};
use crate::units::Size;

/// Bytes moved at a time.
const PIECE: u64 = 4 << 20;

/// Arguments of `read`.
#[derive(Args, Debug)]
pub struct ReadArgs {
    #[command(flatten)]
    lab: LabArg,
    /// The first byte
    #[arg(long, default_value = "0")]
    offset: Size,
    /// How many bytes; all to the end if not said
    #[arg(long)]
    length: Option<Size>,
}

/// Arguments of `write`.
#[derive(Args, Debug)]
pub struct WriteArgs {
    #[command(flatten)]
    lab: LabArg,
    /// The first byte
    #[arg(long, default_value = "0")]
    offset: Size,
}

const FROZEN: OpenOptions = OpenOptions { force: false, frozen: true, unlimited: false };

/// A volume that is read and written one piece after the other.
pub trait Volume {
    /// Its size in bytes.
    fn capacity(&self) -> u64;

    /// The smallest piece it takes, in bytes.
    fn block(&self) -> u64;

    /// Reads whole blocks.
    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, IoError>;

    /// Writes whole blocks.
    fn write(&mut self, at: Lba, bytes: &[u8]) -> Result<(), IoError>;

    /// Makes durable what was written.
    fn flush(&mut self) -> Result<(), IoError>;
}

impl Volume for Stack {
    fn capacity(&self) -> u64 {
        self.array().limits(VOLUME).capacity.bytes()
    }

    fn block(&self) -> u64 {
        self.array().limits(VOLUME).logical_block.bytes()
    }

    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, IoError> {
        Stack::read(self, extent)
    }

    fn write(&mut self, at: Lba, bytes: &[u8]) -> Result<(), IoError> {
        Stack::write(self, at, bytes)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Stack::flush(self)
    }
}

/// The volume of a stack that another thread drives.
pub struct Elsewhere {
    handle: Handle,
    capacity: u64,
    block: u64,
}

impl Elsewhere {
    /// By the hand that `stack`'s reactor holds out.
    pub fn new(stack: &Stack, handle: Handle) -> Elsewhere {
        Elsewhere { handle, capacity: Volume::capacity(stack), block: Volume::block(stack) }
    }
}

impl Volume for Elsewhere {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn block(&self) -> u64 {
        self.block
    }

    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, IoError> {
        let op = Op::Read(Buf::zeroed(extent.length.bytes() as usize));
        let Completion { op, result, .. } = self.handle.request(extent, op).map_err(|_| IoError::Offline)?;
        match (op, result) {
            (Op::Read(buf), Ok(())) => Ok(buf.to_vec()),
            (_, result) => Err(result.err().unwrap_or(IoError::Medium)),
        }
    }

    fn write(&mut self, at: Lba, bytes: &[u8]) -> Result<(), IoError> {
        let extent = Extent::new(at, Sectors(bytes.len() as u64 / SECTOR_BYTES));
        let op = Op::Write(Payload::copy_of(bytes), Durability::Volatile);
        self.handle.request(extent, op).map_err(|_| IoError::Offline)?.result
    }

    fn flush(&mut self) -> Result<(), IoError> {
        let nothing = Extent::new(Lba(0), Sectors::ZERO);
        self.handle.request(nothing, Op::Flush).map_err(|_| IoError::Offline)?.result
    }
}

/// The blocks that hold bytes `from..to`.
fn blocks(from: u64, to: u64, block: u64) -> Extent {
    let (start, end) = (from / block * block, to.next_multiple_of(block));
    Extent::new(Lba(start / SECTOR_BYTES), Sectors((end - start) / SECTOR_BYTES))
}

fn check_end(capacity: u64, end: Option<u64>) -> Result<u64, Failure> {
    match end {
        Some(end) if end <= capacity => Ok(end),
        _ => Err(Failure::usage(format!("that is beyond the end of the volume, which holds {capacity} bytes"))),
    }
}

fn lost(what: &str, at: u64, error: IoError) -> Failure {
    Failure::lost(format!("cannot {what} the volume at byte {at}: {error}; `raidlab status` shows the disks"))
}

/// Runs `read`. What can be had is written out up to the first byte that cannot.
pub fn read(args: &ReadArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let (lab, offset, length) = (&args.lab.lab, args.offset.0, args.length.map(|length| length.0));
    if let Some(client) = Client::find(lab)? {
        return through(client, lab, &Command::Read { offset, length }, false, manner, out);
    }
    at_rest(lab, manner, |stack, stop| copy_out(stack, offset, length, stop, out))
}

/// Runs `write`.
pub fn write(args: &WriteArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let (lab, offset) = (&args.lab.lab, args.offset.0);
    if let Some(client) = Client::find(lab)? {
        return through(client, lab, &Command::Write { offset }, false, manner, out);
    }
    at_rest(lab, manner, |stack, stop| copy_in(stack, offset, stop, &mut std::io::stdin().lock()))
}

fn at_rest(lab: &Path, manner: Manner, work: impl FnOnce(&mut Stack, &AtomicBool) -> Outcome) -> Outcome {
    let stop = stop_flag();
    let mut stack = run::open(lab, FROZEN, manner)?;
    let mut journal = Journal::open(&stack.lab.directory);
    let outcome = work(&mut stack, &stop);
    stack.stop_in_place();
    journal.note(&mut stack, |line| manner.say(line));
    outcome
}

/// Copies bytes of a volume out, until `stop` is set.
pub fn copy_out(
    volume: &mut impl Volume,
    offset: u64,
    length: Option<u64>,
    stop: &AtomicBool,
    out: &mut impl Write,
) -> Outcome {
    let capacity = volume.capacity();
    let end = match length {
        Some(length) => check_end(capacity, offset.checked_add(length))?,
        None => check_end(capacity, Some(offset)).map(|_| capacity)?,
    };
    let block = volume.block();
    let mut at = offset;
    while at < end {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::cannot(format!("interrupted at byte {at}")));
        }
        let to = ((at / PIECE + 1) * PIECE).min(end);
        let extent = blocks(at, to, block);
        match volume.read(extent) {
            Ok(bytes) => {
                let skip = (at - extent.start.bytes()) as usize;
                out.write_all(&bytes[skip..skip + (to - at) as usize])?;
                at = to;
            }
            Err(_) if extent.length.bytes() > block => at = read_blocks(volume, at, to, out)?,
            Err(error) => return Err(lost("read", at, error)),
        }
    }
    out.flush()?;
    Ok(0)
}

/// Reads block by block up to the one that cannot be had.
fn read_blocks(volume: &mut impl Volume, from: u64, to: u64, out: &mut impl Write) -> Result<u64, Failure> {
    let block = volume.block();
    let mut at = from;
    while at < to {
        let end = ((at / block + 1) * block).min(to);
        let extent = blocks(at, end, block);
        let bytes = volume.read(extent).map_err(|error| lost("read", at, error))?;
        let skip = (at - extent.start.bytes()) as usize;
        out.write_all(&bytes[skip..skip + (end - at) as usize])?;
        at = end;
    }
    Ok(at)
}

/// Copies bytes into a volume, until there are no more or `stop` is set.
pub fn copy_in(volume: &mut impl Volume, offset: u64, stop: &AtomicBool, input: &mut (impl Read + AsFd)) -> Outcome {
    let capacity = volume.capacity();
    check_end(capacity, Some(offset))?;
    let room = capacity - offset;
    if let Some(bytes) = bytes_left(input).filter(|bytes| *bytes > room) {
        return Err(Failure::usage(format!(
            "the input holds {bytes} bytes and the volume {room} from byte {offset} on: nothing was written"
        )));
    }
    let mut at = offset;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::cannot(format!("interrupted at byte {at}: what was written before is kept")));
        }
        let piece = read_full(input, PIECE - at % PIECE)?;
        if stop.load(Ordering::Relaxed) {
            continue;
        }
        if piece.is_empty() {
            break;
        }
        let fits = piece.len().min((capacity - at) as usize);
        let (piece, rest) = piece.split_at(fits);
        let end = at + fits as u64;
        let extent = blocks(at, end, volume.block());
        if fits > 0 {
            let bytes = with_edges(volume, extent, at, piece)?;
            volume.write(extent.start, &bytes).map_err(|error| lost("write", at, error))?;
        }
        at = end;
        if !rest.is_empty() {
            volume.flush().map_err(|error| lost("flush", at, error))?;
            return Err(Failure::cannot(format!(
                "the volume is full: it holds {capacity} bytes; the first {room} of the input were written"
            )));
        }
    }
    volume.flush().map_err(|error| lost("flush", at, error))?;
    Ok(0)
}

/// How much a file on standard input still holds; unknown for a pipe.
fn bytes_left(input: &impl AsFd) -> Option<u64> {
    let status = rustix::fs::fstat(input).ok()?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return None;
    }
    let position = rustix::fs::seek(input, rustix::fs::SeekFrom::Current(0)).ok()?;
    Some((status.st_size as u64).saturating_sub(position))
}

/// Whole blocks: where the bytes begin or end inside one, the rest of it is read first.
fn with_edges<'a>(
    volume: &mut impl Volume,
    extent: Extent,
    at: u64,
    piece: &'a [u8],
) -> Result<Cow<'a, [u8]>, Failure> {
    let block = volume.block();
    let (start, end) = (extent.start.bytes(), extent.end().bytes());
    if start == at && end == at + piece.len() as u64 {
        return Ok(Cow::Borrowed(piece));
    }
    let mut bytes = vec![0; (end - start) as usize];
    for edge in [start, end - block] {
        let old = volume.read(blocks(edge, edge + block, block)).map_err(|error| lost("read", edge, error))?;
        bytes[(edge - start) as usize..(edge - start + block) as usize].copy_from_slice(&old);
    }
    bytes[(at - start) as usize..][..piece.len()].copy_from_slice(piece);
    Ok(Cow::Owned(bytes))
}

/// A file that is read until `stop` is set, and then ends; nothing is taken from it that is not wanted any more.
pub struct UntilStopped<'a> {
    /// What is read.
    pub file: &'a File,
    /// Set from outside.
    pub stop: &'a AtomicBool,
}

/// How often a reader that waits looks whether it is to stop.
const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

impl Read for UntilStopped<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while !self.stop.load(Ordering::Relaxed) {
            if poll(&mut [PollFd::new(self.file, PollFlags::IN)], Some(&LOOK_UP))? > 0 {
                return self.file.read(buf);
            }
        }
        Ok(0)
    }
}

impl AsFd for UntilStopped<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_full(input: &mut impl Read, length: u64) -> Result<Vec<u8>, Failure> {
    let mut piece = Vec::new();
    input
        .take(length)
        .read_to_end(&mut piece)
        .map_err(|error| Failure::cannot(format!("cannot read the standard input: {error}")))?;
    Ok(piece)
}
