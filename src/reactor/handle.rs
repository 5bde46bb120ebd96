//! Requests from other threads.
//!
//! A [`Handle`] is a front end's hand in the reactor's loop: it may be cloned and sent anywhere. Its [`Inbox`] is served
//! like any front end. The descriptor that wakes the loop is written to only when the loop has not been told already,
//! so that many requests in a row cost one system call.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;

use super::{FrontEnd, Interest, Ready, Ticket, Turn, Watcher};
use crate::block::{Completion, Extent, Instant, Op};

type Reply = Box<dyn FnOnce(Completion) + Send>;

struct Asked {
    extent: Extent,
    op: Op,
    reply: Reply,
}

/// Submits requests from any thread.
#[derive(Clone)]
pub struct Handle {
    requests: Sender<Asked>,
    bell: Arc<Bell>,
}

/// What a [`Handle`] submits arrives here, on the reactor's thread.
pub struct Inbox {
    requests: Receiver<Asked>,
    bell: Arc<Bell>,
    replies: Slab<Reply>,
    rung: bool,
    stopping: bool,
}

/// Wakes the loop.
struct Bell {
    descriptor: OwnedFd,
    /// It was rung and not heard yet.
    ringing: AtomicBool,
}

/// A request that came too late: the loop has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the array has been stopped")]
pub struct Stopped;

impl Handle {
    /// A handle, and the front end that serves it. An error if the process has no descriptor left.
    pub fn new() -> std::io::Result<(Handle, Inbox)> {
        let (sender, receiver) = channel();
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Arc::new(Bell { descriptor, ringing: AtomicBool::new(false) });
        let handle = Handle { requests: sender, bell: Arc::clone(&bell) };
        Ok((handle, Inbox { requests: receiver, bell, replies: Slab::new(), rung: false, stopping: false }))
    }

    /// Hands over a request. `reply` is called with the completion, on the reactor's thread: it passes it on and
    /// returns. A request the loop does not take any more is dropped, and `reply` with it.
    pub fn submit(
        &self,
        extent: Extent,
        op: Op,
        reply: impl FnOnce(Completion) + Send + 'static,
    ) -> Result<(), Stopped> {
        self.requests.send(Asked { extent, op, reply: Box::new(reply) }).map_err(|_| Stopped)?;
        if !self.bell.ringing.swap(true, Ordering::AcqRel) {
            // It cannot fail but by being full, and then it rings.
            let _ = rustix::io::write(&self.bell.descriptor, &1_u64.to_ne_bytes());
        }
        Ok(())
    }
}

impl Handle {
    /// Carries one request out while this thread, which is not the reactor's, waits. An error if the loop has ended.
    pub fn request(&self, extent: Extent, op: Op) -> Result<Completion, Stopped> {
        let (sender, receiver) = sync_channel(1);
        self.submit(extent, op, move |completion| {
            // Whoever asked waits.
            let _ = sender.send(completion);
        })?;
        receiver.recv().map_err(|_| Stopped)
    }
}

impl FrontEnd for Inbox {
    fn begin(&mut self, watcher: Watcher) -> std::io::Result<()> {
        watcher.watch(&self.bell.descriptor, 0, Interest::Input)
    }

    fn ready(&mut self, _ready: Ready) {
        self.rung = true;
    }

    fn turn(&mut self, turn: &mut Turn<'_>) {
        if std::mem::take(&mut self.rung) {
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.bell.descriptor, &mut count);
            // Before the channel is emptied: who sends after that rings again.
            self.bell.ringing.store(false, Ordering::Release);
        }
        while !self.stopping
            && let Ok(Asked { extent, op, reply }) = self.requests.try_recv()
        {
            let ticket = Ticket(self.replies.insert(reply) as u64);
            turn.submit(ticket, extent, op);
        }
    }

    fn completed(&mut self, ticket: Ticket, completion: Completion) {
        self.replies.remove(ticket.0 as usize)(completion);
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn is_stopped(&self) -> bool {
        self.stopping && self.replies.is_empty()
    }
}
