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
//! | [`transport`] | timers of the initiator's half, by the transport's own names |
//! | [`emulated`] | such a fabric in virtual time: frames, components that fail, a target with access states |
//!
//! A fabric of real connections is [`NbdPaths`](crate::disk::NbdPaths).

pub mod emulated;
mod frame;
pub mod graph;
mod initiator;
pub mod transport;

use std::fmt;

use crate::block::{Completion, DeviceId, Instant, IoError, Limits, Request};

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

/// What a path is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathInfo {
    /// Host, channel, target, unit: `0:0:1:0`.
    pub hctl: String,
    /// The kernel's name for such a device: `sda`.
    pub name: String,
    /// Number of the host bus adapter.
    pub hba: usize,
    /// Number of the controller.
    pub controller: usize,
    /// Target port group: the controller's ports share access states.
    pub tpg: u16,
    /// The logical unit it leads to.
    pub unit: DeviceId,
    /// How what a lost nexus may still do is kept from being done.
    pub fencing: Fencing,
}

/// What a path can promise of commands that were sent down it and not answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fencing {
    /// Nothing: they may be carried out until the target is seen to have let go of them.
    None,
    /// A nexus can be ended on demand, and the target confirms that nothing of it is under way any more.
    Session,
    /// The target refuses commands of an older generation of a nexus by itself.
    Epoch,
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
    /// A request came back.
    Completed(PathId, Completion),
    /// A probe was answered.
    Probed(PathId, Verdict),
    /// The nexus of this path can do nothing more: what it was given and did not answer is not done, and never will be.
    Fenced(PathId),
    /// A fence was not confirmed.
    NotFenced(PathId),
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

    /// Sends a request down a path. It comes back once, by an event, with [`IoError::Transport`], [`IoError::Timeout`] or
    /// [`IoError::Offline`] where it was the path that failed ([`is_path_error`]).
    fn submit(&mut self, path: PathId, request: Request, now: Instant);

    /// Asks whether a path is well. There may be no answer.
    fn probe(&mut self, path: PathId, probe: Probe, now: Instant);

    /// Asks the target, by the path `via`, to end the nexus of `path` and all it may still hold of it. Answered by
    /// [`Event::Fenced`] or [`Event::NotFenced`].
    fn fence(&mut self, path: PathId, via: PathId, now: Instant);

    /// Moves what happened to `events`, and does whatever is due at `now`.
    fn poll(&mut self, now: Instant, events: &mut Vec<Event>);

    /// When `poll` has work to do even if nothing else happens.
    fn next_deadline(&self) -> Option<Instant>;
}

/// Whether an error is the path's: another path may do better. Every other error is the logical unit's and the same on all paths.
pub fn is_path_error(error: IoError) -> bool {
    matches!(error, IoError::Transport | IoError::Timeout | IoError::Offline)
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

impl fmt::Display for Fencing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fencing::None => "none",
            Fencing::Session => "session",
            Fencing::Epoch => "epoch",
        })
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
