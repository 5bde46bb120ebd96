//! The round of a stack that is served.
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

/// A stack on its way of being served: who is waited for, and whose request is whose. Whoever owns the stack goes
/// round: [`Service::turn`], a look at whatever else there is to do, [`Service::wait`].
pub struct Service {
    device: DeviceId,
    epoll: Rc<OwnedFd>,
    owners: Owners,
    patience: Patience,
    events: Vec<epoll::Event>,
    stop_at: Option<Instant>,
}

impl Service {
    /// Begins to serve `device` of a stack to front ends, which are the same, in the same order, in every call that
    /// follows. No request of [`Reactor::submit`] may be under way.
    pub fn begin<S: Bank + Wakeups>(
        reactor: &Reactor<S>,
        device: DeviceId,
        fronts: &mut [&mut dyn FrontEnd],
    ) -> std::io::Result<Service> {
        let epoll = Rc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        for descriptor in reactor.stack.wakeups() {
            epoll::add(&*epoll, descriptor, epoll::EventData::new_u64(u64::from(STACK) << 32), epoll::EventFlags::IN)?;
        }
        for (front, number) in fronts.iter_mut().zip(0..) {
            front.begin(Watcher { epoll: Rc::clone(&epoll), front: number })?;
        }
        let events = Vec::with_capacity(EVENTS);
        Ok(Service { device, epoll, owners: Owners::new(), patience: Patience::default(), events, stop_at: None })
    }

    /// Turns of all front ends, a poll, and turns again if somebody got something back.
    pub fn turn<S: Bank + Wakeups + States>(&mut self, reactor: &mut Reactor<S>, fronts: &mut [&mut dyn FrontEnd]) {
        self.turn_of_fronts(reactor, fronts);
        if self.complete(reactor, fronts) {
            self.turn_of_fronts(reactor, fronts);
        }
    }

    /// These front ends take no more requests from now on, and have some seconds to finish those they have.
    pub fn stop<S: Bank + Wakeups>(&mut self, reactor: &Reactor<S>, fronts: &mut [&mut dyn FrontEnd]) {
        if self.stop_at.is_none() {
            fronts.iter_mut().for_each(|front| front.stop());
            self.stop_at = Some(reactor.now() + STOP_MAX);
        }
    }

    /// Whether it was stopped, and these front ends have finished or had their time.
    pub fn is_over<S: Bank + Wakeups>(&self, reactor: &Reactor<S>, fronts: &[&mut dyn FrontEnd]) -> bool {
        self.stop_at.is_some_and(|at| reactor.now() > at || fronts.iter().all(|front| front.is_stopped()))
    }

    /// Waits until there is something to do, a moment at the longest.
    pub fn wait<S: Bank + Wakeups>(
        &mut self,
        reactor: &Reactor<S>,
        fronts: &mut [&mut dyn FrontEnd],
    ) -> std::io::Result<()> {
        let deadlines = fronts.iter().map(|front| front.next_deadline());
        let deadline = deadlines.chain([reactor.stack.next_deadline()]).flatten().min();
        self.await_events(reactor, deadline)?;
        for event in self.events.drain(..) {
            let (front, ready) = ready_of(&event);
            if front != STACK {
                fronts[front as usize].ready(ready);
            }
        }
        Ok(())
    }

    /// Ends it: what is still under way must not be taken for an answer to a later request.
    pub fn end<S: Bank + Wakeups>(mut self, reactor: &mut Reactor<S>, fronts: &mut [&mut dyn FrontEnd]) {
        while !self.owners.is_empty() {
            self.complete(reactor, fronts);
            reactor.wait(SLEEP_MAX);
        }
    }

    /// Gives the events there are, once there are any or `deadline` has passed; looks a while, then sleeps.
    fn await_events<S: Bank + Wakeups>(
        &mut self,
        reactor: &Reactor<S>,
        deadline: Option<Instant>,
    ) -> std::io::Result<()> {
        let began = reactor.now();
        let due = deadline.unwrap_or(Instant(u64::MAX)).min(began + SLEEP_MAX);
        let mut now = began;
        loop {
            let is_looking = now.since(began) < self.patience.spin;
            let sleep = if is_looking { Duration::ZERO } else { due.since(now) };
            let timeout = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: i64::from(sleep.subsec_nanos()) };
            match epoll::wait(&*self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
                // An interrupted sleep is a short one.
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if due <= began {
                return Ok(());
            }
            now = reactor.now();
            if !self.events.is_empty() || !is_looking || due <= now {
                self.patience.learn(now.since(began));
                return Ok(());
            }
        }
    }

    fn turn_of_fronts<S: Bank + Wakeups + States>(
        &mut self,
        reactor: &mut Reactor<S>,
        fronts: &mut [&mut dyn FrontEnd],
    ) {
        let now = reactor.now();
        for (number, front) in fronts.iter_mut().enumerate() {
            let stack = &mut reactor.stack;
            let mut volume = Volume { stack, device: self.device, owners: &mut self.owners, front: number, now };
            front.turn(&mut Turn { now, volume: &mut volume });
        }
    }

    fn complete<S: Bank + Wakeups>(&mut self, reactor: &mut Reactor<S>, fronts: &mut [&mut dyn FrontEnd]) -> bool {
        let now = reactor.now();
        let mut done = std::mem::take(&mut reactor.done);
        reactor.stack.poll(now, &mut done);
        let any = !done.is_empty();
        for (_, completion) in done.drain(..) {
            let (front, ticket) = self.owners.remove(completion.id.0 as usize);
            fronts[front].completed(ticket, completion);
        }
        reactor.done = done;
        any
    }
}
