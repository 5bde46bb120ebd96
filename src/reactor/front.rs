//! Those who bring requests to a stack, and what they see of it.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::block::{Completion, Extent, Instant, Limits, Op, Sectors, State};

/// A front end's name for a request of its own; comes back with the completion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// One who brings requests and takes completions, on the thread that drives the stack. It never waits: what it has to
/// wait for, it has watched.
pub trait FrontEnd {
    /// Begins: descriptors to wait for are given to `watcher`, which may be kept.
    fn begin(&mut self, watcher: Watcher) -> std::io::Result<()>;

    /// A descriptor became ready. A note is taken; the work is done in [`FrontEnd::turn`].
    fn ready(&mut self, ready: Ready);

    /// Does a share of what there is to do: takes in what arrived, submits, sends. Called again and again; one that has
    /// much to do leaves some of it for later and says so in [`FrontEnd::next_deadline`].
    fn turn(&mut self, turn: &mut Turn<'_>);

    /// A request is done. To be sent on in the next turn, which follows at once.
    fn completed(&mut self, ticket: Ticket, completion: Completion);

    /// When it has something to do even if nothing else happens. A moment that has passed means: now.
    fn next_deadline(&self) -> Option<Instant>;

    /// Takes no more requests; those it took are still finished and answered.
    fn stop(&mut self);

    /// Whether it was stopped and has nothing left to do.
    fn is_stopped(&self) -> bool;
}

/// What a front end can do in its turn.
pub struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) volume: &'a mut dyn Port,
}

/// The stack, as a front end reaches it.
pub(super) trait Port {
    fn limits(&self) -> Limits;
    fn submit(&mut self, ticket: Ticket, extent: Extent, op: Op);
    fn states(&self, extent: Extent) -> Vec<(Sectors, State)>;
}

impl Turn<'_> {
    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What the volume is and takes.
    pub fn limits(&self) -> Limits {
        self.volume.limits()
    }

    /// Hands over a request; [`FrontEnd::completed`] is called with its ticket, in this turn's wake or later.
    pub fn submit(&mut self, ticket: Ticket, extent: Extent, op: Op) {
        self.volume.submit(ticket, extent, op);
    }

    /// How well sectors are kept; see [`States`](crate::block::States).
    pub fn states(&self, extent: Extent) -> Vec<(Sectors, State)> {
        self.volume.states(extent)
    }
}

/// What a descriptor is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// As long as there is something to read.
    Input,
    /// Once whenever something more can be read, or more be written: to be read, and written, until it would block.
    Changes,
}

/// A descriptor that was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// The name it was given.
    pub token: u32,
    /// Something can be read, or the other side is gone.
    pub readable: bool,
    /// Something can be written, or the other side is gone.
    pub writable: bool,
    /// The other side sends no more than what can be read now.
    pub ended: bool,
}

/// Has descriptors waited for, in the name of one front end. A descriptor that is closed is waited for no more.
#[derive(Clone, Debug)]
pub struct Watcher {
    pub(super) epoll: Rc<OwnedFd>,
    pub(super) front: u32,
}

impl Watcher {
    /// Waits for a descriptor; `token` is what [`Ready`] will call it.
    pub fn watch(&self, descriptor: impl AsFd, token: u32, interest: Interest) -> std::io::Result<()> {
        let flags = match interest {
            Interest::Input => EventFlags::IN,
            Interest::Changes => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        };
        let data = EventData::new_u64(u64::from(self.front) << 32 | u64::from(token));
        Ok(epoll::add(&*self.epoll, descriptor, data, flags)?)
    }

    /// Waits no more for a descriptor.
    pub fn forget(&self, descriptor: impl AsFd) -> std::io::Result<()> {
        match epoll::delete(&*self.epoll, descriptor) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whose descriptor an event is about, and what it says.
pub(super) fn ready_of(event: &epoll::Event) -> (u32, Ready) {
    let (data, flags) = (event.data.u64(), event.flags);
    let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
    let ready = Ready {
        token: data as u32,
        readable: gone || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
        writable: gone || flags.contains(EventFlags::OUT),
        ended: gone || flags.contains(EventFlags::RDHUP),
    };
    ((data >> 32) as u32, ready)
}
