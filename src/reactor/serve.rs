//! The loop of a stack that is served.
//!
//! ```text
//!   wait (spin, then sleep) -> front ends take their turns -> stack is polled -> completions -> turns again, to answer
//! ```
//!
//! Waking up from sleep costs an idle virtual machine tens of microseconds, several times what a small request takes. So
//! before it sleeps the loop looks a little while longer, as hypervisors do (halt polling): the while grows when
//! something comes soon after it, and shrinks when nothing does.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use slab::Slab;

use super::front::{Port, ready_of};
use super::{FrontEnd, Reactor, SLEEP_MAX, Ticket, Turn, Watcher};
use crate::block::{Bank, DeviceId, Extent, Instant, Limits, Op, Request, RequestId, Sectors, State, States, Wakeups};

/// Longest look before a sleep.
const SPIN_MAX: Duration = Duration::from_micros(50);

/// What a look begins with when it turns out to be worth it.
const SPIN_FIRST: Duration = Duration::from_micros(10);

/// Events taken from the kernel at once.
const EVENTS: usize = 64;

/// The stack's own descriptors, where front ends have their number.
const STACK: u32 = u32::MAX;

/// How long front ends have to finish, once they were stopped.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Whose request is whose, by its id.
type Owners = Slab<(usize, Ticket)>;

struct Volume<'a, S> {
    stack: &'a mut S,
    device: DeviceId,
    owners: &'a mut Owners,
    front: usize,
    now: Instant,
}

impl<S: Bank + States> Port for Volume<'_, S> {
    fn limits(&self) -> Limits {
        self.stack.limits(self.device)
    }

    fn submit(&mut self, ticket: Ticket, extent: Extent, op: Op) {
        let id = RequestId(self.owners.insert((self.front, ticket)) as u64);
        self.stack.submit(self.device, Request::new(id, extent, op), self.now);
    }

    fn states(&self, extent: Extent) -> Vec<(Sectors, State)> {
        self.stack.states(extent)
    }
}

/// How long to look before sleeping.
#[derive(Default)]
struct Patience {
    spin: Duration,
}

impl Patience {
    /// Something came `after` the loop had nothing more to do.
    fn learn(&mut self, after: Duration) {
        self.spin = match after {
            _ if after <= self.spin => self.spin,
            _ if after <= SPIN_MAX => (self.spin * 2).clamp(SPIN_FIRST, SPIN_MAX),
            _ if self.spin <= SPIN_FIRST => Duration::ZERO,
            _ => self.spin / 2,
        };
    }
}

impl<S: Bank + Wakeups + States> Reactor<S> {
    /// Serves `device` to front ends until `until` says so; it is asked after every turn, may change the stack, and
    /// returns within a moment. Then the front ends are stopped, and have some seconds to finish. No request of
    /// [`Reactor::submit`] may be under way.
    pub fn serve(
        &mut self,
        device: DeviceId,
        fronts: &mut [&mut dyn FrontEnd],
        mut until: impl FnMut(&mut S) -> bool,
    ) -> std::io::Result<()> {
        let epoll = Rc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        for descriptor in self.stack.wakeups() {
            epoll::add(&*epoll, descriptor, epoll::EventData::new_u64(u64::from(STACK) << 32), epoll::EventFlags::IN)?;
        }
        for (front, number) in fronts.iter_mut().zip(0..) {
            front.begin(Watcher { epoll: Rc::clone(&epoll), front: number })?;
        }
        let mut owners = Owners::new();
        let mut patience = Patience::default();
        let mut stop_at = None;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            self.turn(device, fronts, &mut owners);
            match stop_at {
                None if until(&mut self.stack) => {
                    fronts.iter_mut().for_each(|front| front.stop());
                    stop_at = Some(self.now() + STOP_MAX);
                }
                Some(at) if self.now() > at || fronts.iter().all(|front| front.is_stopped()) => break,
                _ => {}
            }
            let deadlines = fronts.iter().map(|front| front.next_deadline());
            let deadline = deadlines.chain([self.stack.next_deadline()]).flatten().min();
            self.await_events(&epoll, deadline, &mut patience, &mut events)?;
            for event in events.drain(..) {
                let (front, ready) = ready_of(&event);
                if front != STACK {
                    fronts[front as usize].ready(ready);
                }
            }
        }
        // What is still under way must not be taken for an answer to a later request.
        while !owners.is_empty() {
            self.complete(fronts, &mut owners);
            self.wait(SLEEP_MAX);
        }
        Ok(())
    }

    /// Gives the events there are, once there are any or `deadline` has passed; looks a while, then sleeps.
    fn await_events(
        &self,
        epoll: &OwnedFd,
        deadline: Option<Instant>,
        patience: &mut Patience,
        events: &mut Vec<epoll::Event>,
    ) -> std::io::Result<()> {
        let began = self.now();
        let due = deadline.unwrap_or(Instant(u64::MAX)).min(began + SLEEP_MAX);
        let mut now = began;
        loop {
            let is_looking = now.since(began) < patience.spin;
            let sleep = if is_looking { Duration::ZERO } else { due.since(now) };
            let timeout = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: i64::from(sleep.subsec_nanos()) };
            match epoll::wait(epoll, spare_capacity(events), Some(&timeout)) {
                // An interrupted sleep is a short one.
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if due <= began {
                return Ok(());
            }
            now = self.now();
            if !events.is_empty() || !is_looking || due <= now {
                patience.learn(now.since(began));
                return Ok(());
            }
        }
    }

    /// Turns of all front ends, a poll, and turns again of those who got something back.
    fn turn(&mut self, device: DeviceId, fronts: &mut [&mut dyn FrontEnd], owners: &mut Owners) {
        self.turn_of_fronts(device, fronts, owners);
        if self.complete(fronts, owners) {
            self.turn_of_fronts(device, fronts, owners);
        }
    }

    fn turn_of_fronts(&mut self, device: DeviceId, fronts: &mut [&mut dyn FrontEnd], owners: &mut Owners) {
        let now = self.now();
        for (number, front) in fronts.iter_mut().enumerate() {
            let mut volume = Volume { stack: &mut self.stack, device, owners, front: number, now };
            front.turn(&mut Turn { now, volume: &mut volume });
        }
    }

    fn complete(&mut self, fronts: &mut [&mut dyn FrontEnd], owners: &mut Owners) -> bool {
        let now = self.now();
        let mut done = std::mem::take(&mut self.done);
        self.stack.poll(now, &mut done);
        let any = !done.is_empty();
        for (_, completion) in done.drain(..) {
            let (front, ticket) = owners.remove(completion.id.0 as usize);
            fronts[front].completed(ticket, completion);
        }
        self.done = done;
        any
    }
}
