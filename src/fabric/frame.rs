//! What goes over the wire between the two halves.

use super::initiator::Tag;
use super::reservation::Reserve;
use super::{Access, PathId, Probe, Verdict};
use crate::block::{Buf, DeviceId, Durability, Extent, IoError, Op, Payload, RequestId};

/// What a frame carries.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Command(Command),
    Answer(Tag, Option<Op>, Result<(), IoError>),
    /// The port takes no commands for its units.
    Refused(Tag),
    Busy(Tag),
    Abort(Tag),
    Aborted(Tag),
    Ask(Question),
    /// The access state is known to the target alone.
    Told(Question, Verdict, Option<Access>),
    /// The frame's nexus is to do nothing more for this request, of the attempts up to this one.
    Forget(RequestId, Tag),
    Forgotten(RequestId, Tag),
    /// Of these nexuses, all that is older than these generations.
    End(Ending),
    /// Nothing of it is left.
    Ended(Ending),
    /// The frame's port group is to become active.
    Activate,
    Reserve(Reserve),
    /// Whether it was done, or refused with a reservation conflict.
    Reserved(Reserve, bool),
    /// The link's own word, which no component can lose.
    LinkDown,
    LinkUp,
}

/// A command on the wire.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) tag: Tag,
    /// The request's own name, the same for all attempts.
    pub(super) id: RequestId,
    /// Of the connection, as the host counts.
    pub(super) epoch: u64,
    /// Nobody waits for attempts on this nexus that are older.
    pub(super) oldest: Tag,
    pub(super) extent: Extent,
    pub(super) wanted: Wanted,
}

/// Nexuses that end, each with its first generation that lives on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Nexus((PathId, u64)),
    /// All of a host at a unit: a LUN reset.
    Unit(DeviceId, Vec<(PathId, u64)>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// With its number on the path: a late answer to an older one says nothing.
    Probe(Probe, u64),
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
    /// It is a second copy.
    pub(super) again: bool,
    pub(super) content: Content,
}

impl Ending {
    pub(super) fn nexuses(&self) -> &[(PathId, u64)] {
        match self {
            Ending::Nexus(nexus) => std::slice::from_ref(nexus),
            Ending::Unit(_, nexuses) => nexuses,
        }
    }
}

impl Frame {
    /// Whether it goes to the target.
    pub(super) fn is_out(&self) -> bool {
        matches!(
            self.content,
            Content::Command(_)
                | Content::Abort(_)
                | Content::Ask(_)
                | Content::Forget(..)
                | Content::End(_)
                | Content::Activate
                | Content::Reserve(_)
        )
    }

    /// Bytes that travel.
    pub(super) fn load(&self) -> u64 {
        match &self.content {
            Content::Command(Command { wanted: Wanted::Write(payload, _), .. }) => payload.len() as u64,
            Content::Answer(_, Some(Op::Read(buf)), _) => buf.len() as u64,
            _ => 0,
        }
    }

    /// The same frame where paths are counted from `base` on: each host counts its own from 0.
    pub(super) fn counted_from(mut self, base: i32) -> Frame {
        let shift = |path: &mut PathId| path.0 = (i32::from(path.0) + base) as u16;
        shift(&mut self.path);
        if let Content::End(ending) | Content::Ended(ending) = &mut self.content {
            match ending {
                Ending::Nexus((path, _)) => shift(path),
                Ending::Unit(_, nexuses) => nexuses.iter_mut().for_each(|(path, _)| shift(path)),
            }
        }
        self
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
