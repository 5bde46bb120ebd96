//! Many ways to a logical unit.
//!
//! A host reaches a logical unit (a LUN, a namespace) by paths: from a port of a host bus adapter over cables and switches to a
//! port of a controller. Initiator and target port together are a *nexus*; a path is a nexus and a logical unit. What is lost
//! with a component is every path through it.
//!
//! A fabric is a bank of paths, and more: it can be asked whether a path is well ([`Fabric::probe`]), to stop what a lost nexus may
//! still do ([`Fabric::fence`]), and it tells what its transport noticed by itself ([`Event`]). The fate of a command that was sent
//! is the transport's alone: a multipath layer that gives up a path stops what is new, and waits for the transport's timers to
//! give back what is old.
//!
//! | | |
//! |---|---|
//! | [`graph`] | components and the paths through them; presets |
//! | [`topology`] | the same as their owner describes them |
//! | [`transport`] | timers of the initiator's half, by the transport's own names |
//! | [`host`] | the initiator's half: commands, nexuses, and what the target is asked about them |
//! | [`target`] | the target's half: whom it serves, whom it refuses |
//! | [`reservation`] | which hosts may write |
//! | [`health`] | how a component can be |
//! | [`shared`] | a target in virtual time, and frames on their way between it and its hosts |
//! | [`emulated`] | such a fabric with one host |
//!
//! A fabric of real connections is [`NbdPaths`](crate::disk::NbdPaths).

mod access;
pub mod emulated;
mod frame;
#[cfg(test)]
#[path = "ghost/tests.rs"]
mod ghost;
pub mod graph;
pub mod health;
pub mod host;
mod initiator;
mod net;
pub mod reservation;
pub mod shared;
pub mod target;
#[cfg(test)]
mod tests;
pub mod topology;
pub mod transport;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::block::{Completion, DeviceId, Instant, IoError, Limits, Request, RequestId};

/// A path of a fabric: the unit that a multipath layer fails and reinstates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathId(pub u16);

/// What a target port group offers of a logical unit: ALUA's names, and what ANA calls the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Active/optimized; ANA optimized.
    Optimized,
    /// Active/non-optimized; ANA non-optimized.
    NonOptimized,
    /// Answers questions, takes no reads and writes.
    Standby,
    /// As standby, and will not become active by being asked; ANA inaccessible.
    Unavailable,
    /// Between two of the others; ANA change.
    Transitioning,
}

/// What the initiator knows of the way to a target port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Link {
    /// Commands go out.
    Online,
    /// Lost, perhaps for a moment: commands wait, also those that were sent.
    Blocked,
    /// Lost for longer than `fast_io_fail_tmo`: commands fail at once.
    FastFailed,
    /// Lost for longer than `dev_loss_tmo`: the device is gone.
    Removed,
}

/// What the target behind a path can promise of commands whose outcome is unknown. Each promises what those before it do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fencing {
    /// Nothing: what is under way may be carried out at any time, even twice.
    None,
    /// It knows its sessions: it carries no command out twice, aborts one when it is asked to, and can end a nexus.
    Session,
    /// Its logical unit refuses commands of an older connection generation ([`Fabric::set_epoch`]).
    Epoch,
}

/// What a path is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathInfo {
    /// Host, channel, target, unit: `0:0:1:0`.
    pub hctl: String,
    /// The kernel's name for such a device: `sda`.
    pub name: String,
    /// Number of the host.
    pub host: usize,
    /// Number of the host bus adapter.
    pub hba: usize,
    /// Number of the controller.
    pub controller: usize,
    /// Target port group: the controller's ports share access states.
    pub tpg: u16,
    /// The logical unit it leads to.
    pub unit: DeviceId,
    /// What its target can promise.
    pub fencing: Fencing,
    /// Commands that may be under way on it, the initiator holds back what is more; 0: as many as there are.
    pub queue_depth: u32,
}

/// How a path is asked whether it is well.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Probe {
    /// TEST UNIT READY: the controller answers.
    Tur,
    /// A read of the first block: the data path answers, too.
    DirectIo,
}

/// What a probe found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Takes reads and writes.
    Up,
    /// Standby: would take them if its group were activated.
    Ghost,
    /// Its group is in transition.
    Pending,
    /// It does not.
    Down,
}

/// What a fabric has to tell.
#[derive(Clone, Debug)]
pub enum Event {
    /// The unit has answered: whatever the result, the path is well.
    Completed(PathId, Completion),
    /// A request came back without the unit's answer: the path failed, another may do better.
    GivenBack(PathId, Request, IoError),
    /// A probe was answered.
    Probed(PathId, Verdict),
    /// The nexus of this path can do nothing more: what it was given and did not answer is not done, and never will be.
    Fenced(PathId),
    /// A fence was not confirmed.
    NotFenced(PathId),
    /// The attempts at this request on this path are not done, or done, and never will be from now on.
    Aborted(PathId, RequestId),
    /// An abort was not confirmed.
    NotAborted(PathId, RequestId),
    /// The unit was reset: what it was given before and did not answer is not done, and never will be.
    Reset(DeviceId),
    /// A reset was not confirmed.
    NotReset(DeviceId),
}

/// Paths, and what can be asked of them.
pub trait Fabric {
    /// All paths, in order of their numbers.
    fn paths(&self) -> &[PathInfo];

    /// What the logical unit `unit` is and takes.
    fn limits(&self, unit: DeviceId) -> Limits;

    /// What the initiator knows of a path's link.
    fn link(&self, path: PathId) -> Link;

    /// The access state last heard of a path's port group.
    fn access(&self, path: PathId) -> Access;

    /// Sends a request down a path. It comes back once: [`Event::Completed`] or [`Event::GivenBack`].
    fn submit(&mut self, path: PathId, request: Request, now: Instant);

    /// Asks whether a path is well. There may be no answer.
    fn probe(&mut self, path: PathId, probe: Probe, now: Instant);

    /// Asks the target, by the path `via`, to end the nexus of `path` and all it may still hold of it. Answered by
    /// [`Event::Fenced`] or [`Event::NotFenced`].
    fn fence(&mut self, path: PathId, via: PathId, now: Instant);

    /// Asks the target, by the path itself, to do nothing more for a request that came back from it unanswered. Answered by
    /// [`Event::Aborted`] or [`Event::NotAborted`].
    fn abort(&mut self, path: PathId, id: RequestId, now: Instant);

    /// Asks the target, by the path `via`, to forget all that this host has under way at a logical unit (LUN reset). What other paths
    /// have under way there is sent again. Answered by [`Event::Reset`] or [`Event::NotReset`].
    fn reset(&mut self, unit: DeviceId, via: PathId, now: Instant);

    /// What is submitted to a logical unit from now on is of this connection generation; once the unit has seen one of it, it
    /// refuses what is older with [`IoError::Fenced`], and what it refuses it has not done.
    /// Nothing, where units know no generations.
    fn set_epoch(&mut self, _unit: DeviceId, _epoch: u64) {}

    /// Asks the target to make a path's port group active (SET TARGET PORT GROUPS). There is no answer but the access state that
    /// later questions find.
    /// Nothing, where every port group is active.
    fn activate(&mut self, _path: PathId, _now: Instant) {}

    /// Moves what happened to `events`, and does whatever is due at `now`.
    fn poll(&mut self, now: Instant, events: &mut Vec<Event>);

    /// When `poll` has work to do even if nothing else happens.
    fn next_deadline(&self) -> Option<Instant>;
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::Online => "running",
            Link::Blocked => "blocked",
            Link::FastFailed => "transport-offline",
            Link::Removed => "removed",
        })
    }
}

impl Fencing {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Fencing::None => "none",
            Fencing::Session => "session",
            Fencing::Epoch => "epoch",
        }
    }
}

impl fmt::Display for Fencing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Optimized => "active/optimized",
            Access::NonOptimized => "active/non-optimized",
            Access::Standby => "standby",
            Access::Unavailable => "unavailable",
            Access::Transitioning => "transitioning",
        })
    }
}
