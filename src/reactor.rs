//! Real time: drives a stack on the thread that calls.
//!
//! The stack is told the time and polled; when it has nothing to do, the reactor sleeps until a
//! completion, the stack's next deadline, or the caller's patience, whichever comes first.
//!
//! A command asks for one thing after the other ([`Reactor::request`], [`Reactor::run`]). A stack that is used by others
//! is *served* ([`Service`]): [`FrontEnd`]s bring requests and take completions, all on this one thread, because a
//! hand-off to another costs more than a small request does. Whoever has a thread of its own holds a [`Handle`].
#![allow(clippy::disallowed_methods, reason = "this is where time comes from")]

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

mod front;
mod handle;
mod serve;
mod socket;
#[cfg(test)]
mod tests;

pub use front::{FrontEnd, Interest, Ready, Ticket, Turn, Watcher};
pub use handle::{Handle, Inbox, Stopped};
pub use serve::Service;
pub use socket::{PrivateSocket, SocketError, connect};

use crate::block::{Bank, Completion, DeviceId, Extent, Instant, IoError, Op, Request, RequestId, Wakeups};

/// Longest sleep, so that a caller's stop flag is seen.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// A stack and its clock.
pub struct Reactor<S> {
    stack: S,
    started: std::time::Instant,
    done: Vec<(DeviceId, Completion)>,
    next_id: u64,
}

impl<S: Bank + Wakeups> Reactor<S> {
    /// Begins to drive `stack`; its clock starts now.
    pub fn new(stack: S) -> Reactor<S> {
        Reactor { stack, started: std::time::Instant::now(), done: Vec::new(), next_id: 0 }
    }

    /// The stack.
    pub fn stack(&self) -> &S {
        &self.stack
    }

    /// The stack, to be changed between two polls.
    pub fn stack_mut(&mut self) -> &mut S {
        &mut self.stack
    }

    /// Gives the stack back.
    pub fn into_stack(self) -> S {
        self.stack
    }

    /// Nanoseconds since the reactor was made.
    pub fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Hands over a request.
    pub fn submit(&mut self, device: DeviceId, extent: Extent, op: Op) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let now = self.now();
        self.stack.submit(device, Request::new(id, extent, op), now);
        id
    }

    /// Polls once and gives what was completed.
    pub fn poll(&mut self) -> Vec<(DeviceId, Completion)> {
        let now = self.now();
        self.stack.poll(now, &mut self.done);
        std::mem::take(&mut self.done)
    }

    /// Sleeps until there is something to poll for, at most `longest`.
    pub fn wait(&self, longest: Duration) {
        let longest = longest.min(SLEEP_MAX);
        let sleep = match self.stack.next_deadline() {
            Some(due) => due.since(self.now()).min(longest),
            None => longest,
        };
        if sleep.is_zero() {
            return;
        }
        let mut descriptors: Vec<PollFd<'_>> =
            self.stack.wakeups().into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: i64::from(sleep.subsec_nanos()) };
        // An interrupted sleep is a short one: the caller looks around and comes back.
        let _ = poll(&mut descriptors, Some(&timeout));
    }

    /// Carries one request out, while everything else goes on.
    pub fn request(&mut self, device: DeviceId, extent: Extent, op: Op) -> (Op, Result<(), IoError>) {
        let id = self.submit(device, extent, op);
        loop {
            for (_, completion) in self.poll() {
                if completion.id == id {
                    return (completion.op, completion.result);
                }
            }
            self.wait(SLEEP_MAX);
        }
    }

    /// Drives the stack until `until` says so; it is asked after every poll.
    pub fn run(&mut self, mut until: impl FnMut(&mut S) -> bool) {
        loop {
            self.poll();
            if until(&mut self.stack) {
                return;
            }
            self.wait(SLEEP_MAX);
        }
    }
}
