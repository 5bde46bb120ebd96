//! A bank that is reached directly, or by many paths.
//!
//! The same layer stands over an array (which then sells its volume over several ports) and under it (every member then has several
//! paths), so whoever builds a stack need not know which. What is reached directly costs nothing: bytes are lent through.

use std::borrow::Cow;
use std::os::fd::BorrowedFd;

use bytes::Bytes;

use super::Multipath;
use super::settings::Settings;
use crate::block::{
    Bank, Completion, DeviceId, Extent, Instant, Limits, Mark, Request, Sectors, State, States, Wakeups,
};
use crate::fabric::emulated::Emulated;
use crate::fabric::graph::Graph;
use crate::fabric::health::Health;
use crate::fabric::transport::Transport;

/// A bank, and how it is reached.
#[derive(Clone, Debug)]
pub enum Paths<B> {
    /// By nothing in between.
    Direct(B),
    /// By the paths of an emulated fabric.
    Many(Box<Multipath<Emulated<B>>>),
}

impl<B: Bank> Paths<B> {
    /// Reached by the paths of `graph`. All chance comes from `seed`.
    pub fn many(bank: B, graph: Graph, transport: Transport, settings: Settings, seed: u64) -> Paths<B> {
        Paths::Many(Box::new(Multipath::new(Emulated::new(bank, graph, transport, seed), settings)))
    }

    /// What is reached.
    pub fn bank(&self) -> &B {
        match self {
            Paths::Direct(bank) => bank,
            Paths::Many(multipath) => multipath.fabric().bank(),
        }
    }

    /// What is reached, to be changed by its owner.
    pub fn bank_mut(&mut self) -> &mut B {
        match self {
            Paths::Direct(bank) => bank,
            Paths::Many(multipath) => multipath.fabric_mut().bank_mut(),
        }
    }

    /// Ends the paths; what was under way on them is forgotten.
    pub fn into_bank(self) -> B {
        match self {
            Paths::Direct(bank) => bank,
            Paths::Many(multipath) => multipath.into_fabric().into_bank(),
        }
    }

    /// A device that was put into the bank is reached as the others are.
    pub fn add_unit(&mut self, unit: DeviceId, now: Instant) {
        if let Paths::Many(multipath) = self {
            multipath.fabric_mut().add_unit(unit, now);
            multipath.add_unit(unit);
        }
    }

    /// From now on a component of the fabric is as `health` says. Whether there is one of this name.
    pub fn set_health(&mut self, component: &str, health: Health, now: Instant) -> bool {
        let Paths::Many(multipath) = self else { return false };
        let found = multipath.fabric().graph().find(component);
        found.map(|id| multipath.fabric_mut().set_health(id, health, now)).is_some()
    }

    /// The maps, if there are paths.
    pub fn multipath(&self) -> Option<&Multipath<Emulated<B>>> {
        match self {
            Paths::Direct(_) => None,
            Paths::Many(multipath) => Some(multipath),
        }
    }

    /// The maps, to be managed.
    pub fn multipath_mut(&mut self) -> Option<&mut Multipath<Emulated<B>>> {
        match self {
            Paths::Direct(_) => None,
            Paths::Many(multipath) => Some(multipath),
        }
    }
}

macro_rules! each_way {
    ($paths:expr, $bank:ident => $do:expr) => {
        match $paths {
            Paths::Direct($bank) => $do,
            Paths::Many($bank) => $do,
        }
    };
}

impl<B: Bank> Bank for Paths<B> {
    fn limits(&self, device: DeviceId) -> Limits {
        each_way!(self, bank => bank.limits(device))
    }

    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        each_way!(self, bank => bank.submit(device, request, now));
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        each_way!(self, bank => bank.poll(now, done));
    }

    fn next_deadline(&self) -> Option<Instant> {
        each_way!(self, bank => bank.next_deadline())
    }

    #[inline]
    fn lend(&mut self, device: DeviceId, extent: Extent) -> Option<Bytes> {
        match self {
            Paths::Direct(bank) => bank.lend(device, extent),
            Paths::Many(_) => None,
        }
    }

    #[inline]
    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        match self {
            Paths::Direct(bank) => bank.window(device, extent),
            Paths::Many(_) => None,
        }
    }

    #[inline]
    fn vouches(&self, device: DeviceId) -> bool {
        match self {
            Paths::Direct(bank) => bank.vouches(device),
            Paths::Many(_) => true,
        }
    }

    #[inline]
    fn mark(&mut self, mark: Mark) {
        self.bank_mut().mark(mark);
    }
}

impl<B: Bank + Wakeups> Wakeups for Paths<B> {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        self.bank().wakeups()
    }
}

impl<B: Bank + States> States for Paths<B> {
    fn states(&self, extent: Extent) -> Vec<(Sectors, State)> {
        self.bank().states(extent)
    }
}
