//! `read` and `write`: the volume's bytes, by standard output and input.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use clap::Args;
use rustix::fs::FileType;

use super::run::{self, stop_flag};
use super::size::Size;
use super::{Failure, LabArg, Manner, Outcome};
use crate::block::{Extent, IoError, Lba, SECTOR_BYTES, Sectors};
use crate::stack::{OpenOptions, Stack};
use std::sync::atomic::Ordering;

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

fn block_of(stack: &Stack) -> u64 {
    use crate::block::Bank;
    stack.array().limits(crate::raid::VOLUME).logical_block.bytes()
}

/// The blocks that hold bytes `from..to`.
fn blocks(from: u64, to: u64, block: u64) -> Extent {
    let (start, end) = (from / block * block, to.next_multiple_of(block));
    Extent::new(Lba(start / SECTOR_BYTES), Sectors((end - start) / SECTOR_BYTES))
}

fn check_end(stack: &Stack, end: Option<u64>) -> Result<u64, Failure> {
    let capacity = stack.array().geometry().capacity().bytes();
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
    let stop = stop_flag();
    let mut stack = run::open(&args.lab.lab, FROZEN, manner)?;
    let outcome = read_from(args, &mut stack, &stop, out);
    stack.stop_in_place();
    run::tell(&mut stack, manner);
    outcome
}

fn read_from(
    args: &ReadArgs,
    stack: &mut Stack,
    stop: &std::sync::atomic::AtomicBool,
    out: &mut impl Write,
) -> Outcome {
    let capacity = stack.array().geometry().capacity().bytes();
    let end = match args.length {
        Some(length) => check_end(stack, args.offset.0.checked_add(length.0))?,
        None => check_end(stack, Some(args.offset.0)).map(|_| capacity)?,
    };
    let block = block_of(stack);
    let mut at = args.offset.0;
    while at < end {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::cannot(format!("interrupted at byte {at}")));
        }
        let to = ((at / PIECE + 1) * PIECE).min(end);
        let extent = blocks(at, to, block);
        match stack.read(extent) {
            Ok(bytes) => {
                let skip = (at - extent.start.bytes()) as usize;
                out.write_all(&bytes[skip..skip + (to - at) as usize])?;
                at = to;
            }
            Err(_) if extent.length.bytes() > block => at = read_blocks(stack, at, to, block, out)?,
            Err(error) => return Err(lost("read", at, error)),
        }
    }
    Ok(0)
}

/// Reads block by block up to the one that cannot be had.
fn read_blocks(stack: &mut Stack, from: u64, to: u64, block: u64, out: &mut impl Write) -> Result<u64, Failure> {
    let mut at = from;
    while at < to {
        let end = ((at / block + 1) * block).min(to);
        let extent = blocks(at, end, block);
        let bytes = stack.read(extent).map_err(|error| lost("read", at, error))?;
        let skip = (at - extent.start.bytes()) as usize;
        out.write_all(&bytes[skip..skip + (end - at) as usize])?;
        at = end;
    }
    Ok(at)
}

/// Runs `write`.
pub fn write(args: &WriteArgs, manner: Manner) -> Outcome {
    let stop = stop_flag();
    let mut stack = run::open(&args.lab.lab, FROZEN, manner)?;
    let outcome = write_to(args, &mut stack, &stop);
    stack.stop_in_place();
    run::tell(&mut stack, manner);
    outcome
}

fn write_to(args: &WriteArgs, stack: &mut Stack, stop: &std::sync::atomic::AtomicBool) -> Outcome {
    let block = block_of(stack);
    let capacity = stack.array().geometry().capacity().bytes();
    check_end(stack, Some(args.offset.0))?;
    let mut input = std::io::stdin().lock();
    let room = capacity - args.offset.0;
    if let Some(bytes) = bytes_left(&input).filter(|bytes| *bytes > room) {
        return Err(Failure::usage(format!(
            "the input holds {bytes} bytes and the volume {room} from byte {} on: nothing was written",
            args.offset.0
        )));
    }
    let mut at = args.offset.0;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::cannot(format!("interrupted at byte {at}: what was written before is kept")));
        }
        let piece = read_full(&mut input, PIECE - at % PIECE)?;
        if piece.is_empty() {
            break;
        }
        let fits = piece.len().min((capacity - at) as usize);
        let (piece, rest) = piece.split_at(fits);
        let end = at + fits as u64;
        let extent = blocks(at, end, block);
        if fits > 0 {
            let bytes = with_edges(stack, extent, at, piece, block)?;
            stack.write(extent.start, &bytes).map_err(|error| lost("write", at, error))?;
        }
        at = end;
        if !rest.is_empty() {
            stack.flush().map_err(|error| lost("flush", at, error))?;
            return Err(Failure::cannot(format!(
                "the volume is full: it holds {capacity} bytes; the first {room} of the input were written"
            )));
        }
    }
    stack.flush().map_err(|error| lost("flush", at, error))?;
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
    stack: &mut Stack,
    extent: Extent,
    at: u64,
    piece: &'a [u8],
    block: u64,
) -> Result<Cow<'a, [u8]>, Failure> {
    let (start, end) = (extent.start.bytes(), extent.end().bytes());
    if start == at && end == at + piece.len() as u64 {
        return Ok(Cow::Borrowed(piece));
    }
    let mut bytes = vec![0; (end - start) as usize];
    for edge in [start, end - block] {
        let old = stack.read(blocks(edge, edge + block, block)).map_err(|error| lost("read", edge, error))?;
        bytes[(edge - start) as usize..(edge - start + block) as usize].copy_from_slice(&old);
    }
    bytes[(at - start) as usize..][..piece.len()].copy_from_slice(piece);
    Ok(Cow::Owned(bytes))
}

fn read_full(input: &mut impl Read, length: u64) -> Result<Vec<u8>, Failure> {
    let mut piece = Vec::new();
    input
        .take(length)
        .read_to_end(&mut piece)
        .map_err(|error| Failure::cannot(format!("cannot read the standard input: {error}")))?;
    Ok(piece)
}
