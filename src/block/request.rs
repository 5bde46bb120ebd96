//! A request goes down, a completion comes back.

use std::fmt;

use super::{Buf, Extent, Lba, Payload, Sectors};

/// Chosen by whoever submits; comes back with the completion. Unique among the requests a
/// submitter has in flight on one bank.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// When a write may be called done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Durability {
    /// When a later read returns it; a power cut may still undo it until the next flush.
    Volatile,
    /// When it is on stable media (force unit access).
    Fua,
}

/// What to do with the extent of a request.
#[derive(Clone, Debug)]
pub enum Op {
    /// Fill the buffer.
    Read(Buf),
    /// Store the payload.
    Write(Payload, Durability),
    /// Make the sectors read as zero.
    WriteZeroes(Durability),
    /// Forget the sectors; they read as zero afterwards.
    Discard,
    /// Make every write that was completed before this was submitted durable.
    Flush,
}

/// One unit of work for one device.
#[derive(Clone, Debug)]
pub struct Request {
    /// The submitter's name for it.
    pub id: RequestId,
    /// The sectors it touches; none for a flush.
    pub extent: Extent,
    /// What to do there.
    pub op: Op,
}

/// A request given back, buffer and all.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The request's id.
    pub id: RequestId,
    /// The request's operation; a read's buffer is filled if `result` is `Ok`, and of no meaning otherwise.
    pub op: Op,
    /// How it went.
    pub result: Result<(), IoError>,
}

/// Why a request failed, named after who can do something about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IoError {
    /// These sectors cannot be read or written, others can: the array reconstructs.
    Medium,
    /// The way to the device failed; the device may be well: another path may serve.
    Transport,
    /// No answer in time; the outcome is unknown.
    Timeout,
    /// The device is gone for good: the array does without it.
    Offline,
    /// The device refuses this initiator.
    Fenced,
    /// The file system that holds the image is full.
    NoSpace,
    /// The device, or the array, takes no writes.
    ReadOnly,
    /// The request is not one this device takes: too small for its logical block, or of a kind it lacks.
    Unsupported,
    /// The request reaches beyond the end of the device.
    OutOfRange,
}

impl Op {
    /// Whether the medium changes.
    pub fn is_write(&self) -> bool {
        matches!(self, Op::Write(..) | Op::WriteZeroes(_) | Op::Discard)
    }

    /// One word for messages and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Read(_) => "read",
            Op::Write(..) => "write",
            Op::WriteZeroes(_) => "write-zeroes",
            Op::Discard => "discard",
            Op::Flush => "flush",
        }
    }

    /// Bytes a buffer or payload carries; `None` where there is none.
    fn carried(&self) -> Option<usize> {
        match self {
            Op::Read(buf) => Some(buf.len()),
            Op::Write(payload, _) => Some(payload.len()),
            Op::WriteZeroes(_) | Op::Discard | Op::Flush => None,
        }
    }
}

impl Request {
    /// A request over `extent`. A buffer or payload must carry the same number of bytes for each
    /// sector, and a flush has no extent.
    pub fn new(id: RequestId, extent: Extent, op: Op) -> Request {
        if let Some(bytes) = op.carried() {
            assert!(
                extent.length > Sectors::ZERO && bytes.is_multiple_of(extent.length.0 as usize),
                "{bytes} bytes are not whole sectors of {extent:?}"
            );
        }
        Request { id, extent, op }
    }

    /// A flush.
    pub fn flush(id: RequestId) -> Request {
        Request { id, extent: Extent::new(Lba(0), Sectors::ZERO), op: Op::Flush }
    }

    /// Bytes the buffer carries for each sector; `None` where no bytes travel.
    pub fn grain(&self) -> Option<u32> {
        self.op.carried().map(|bytes| (bytes / self.extent.length.0 as usize) as u32)
    }

    /// The request given back with `result`.
    pub fn complete(self, result: Result<(), IoError>) -> Completion {
        Completion { id: self.id, op: self.op, result }
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoError::Medium => "medium error",
            IoError::Transport => "transport error",
            IoError::Timeout => "timeout",
            IoError::Offline => "device offline",
            IoError::Fenced => "fenced",
            IoError::NoSpace => "no space left for the image",
            IoError::ReadOnly => "read-only",
            IoError::Unsupported => "unsupported request",
            IoError::OutOfRange => "beyond the end of the device",
        })
    }
}

impl std::error::Error for IoError {}
