//! What goes over the wire between the two halves.

use super::initiator::Tag;
use super::{Access, PathId, Probe, Verdict};
use crate::block::{Buf, Durability, Extent, IoError, Op, Payload};

/// What a frame carries.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Command(Tag, Extent, Wanted),
    Answer(Tag, Option<Op>, Result<(), IoError>),
    Busy(Tag),
    Abort(Tag),
    Aborted(Tag),
    Ask(Question),
    Told(Question, Verdict, Access),
    /// Of this nexus, all that is older than this generation.
    Fence(PathId, u64),
    /// Of this nexus, nothing is left that is older than this generation.
    Fenced(PathId, u64),
    /// The link's own word, which no component can lose.
    LinkDown,
    LinkUp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Question {
    Probe(Probe),
    Ping,
    Login,
}

/// What a command asks of the unit.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Read(usize),
    Write(Payload, Durability),
    Zeroes(Durability),
    Discard,
    Flush,
}

#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) path: PathId,
    /// Of the nexus, when the frame was sent.
    pub(super) generation: u64,
    pub(super) content: Content,
}

impl Frame {
    pub(super) fn is_out(&self) -> bool {
        matches!(self.content, Content::Command(..) | Content::Abort(_) | Content::Ask(_) | Content::Fence(..))
    }

    /// Bytes that travel.
    pub(super) fn load(&self) -> u64 {
        match &self.content {
            Content::Command(_, _, Wanted::Write(payload, _)) => payload.len() as u64,
            Content::Answer(_, Some(Op::Read(buf)), _) => buf.len() as u64,
            _ => 0,
        }
    }
}

impl Wanted {
    /// What `op` asks, without the buffer that an answer fills.
    pub(super) fn of(op: &Op) -> Wanted {
        match op {
            Op::Read(buf) => Wanted::Read(buf.len()),
            Op::Write(payload, durability) => Wanted::Write(payload.clone(), *durability),
            Op::WriteZeroes(durability) => Wanted::Zeroes(*durability),
            Op::Discard => Wanted::Discard,
            Op::Flush => Wanted::Flush,
        }
    }

    /// The same for the unit, with a buffer of its own.
    pub(super) fn into_op(self) -> Op {
        match self {
            Wanted::Read(length) => Op::Read(Buf::stale(length)),
            Wanted::Write(payload, durability) => Op::Write(payload, durability),
            Wanted::Zeroes(durability) => Op::WriteZeroes(durability),
            Wanted::Discard => Op::Discard,
            Wanted::Flush => Op::Flush,
        }
    }
}
