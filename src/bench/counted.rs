//! A layer that counts what passes.

use std::borrow::Cow;
use std::os::fd::BorrowedFd;

use super::Traffic;
use bytes::Bytes;

use crate::block::{Bank, Completion, DeviceId, Extent, Instant, Limits, Request, Wakeups};

/// A bank, and what its devices were asked to write.
#[derive(Clone, Debug)]
pub struct Counted<B> {
    inner: B,
    traffic: Traffic,
}

impl<B> Counted<B> {
    /// Nothing was counted so far.
    pub fn new(inner: B) -> Counted<B> {
        Counted { inner, traffic: Traffic::default() }
    }

    /// The bank below.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// All devices together, metadata included.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }
}

impl<B: Bank> Bank for Counted<B> {
    fn limits(&self, device: DeviceId) -> Limits {
        self.inner.limits(device)
    }

    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        if request.op.is_write() {
            self.traffic.writes += 1;
            self.traffic.bytes_written += request.extent.length.bytes();
        }
        self.inner.submit(device, request, now);
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        self.inner.poll(now, done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    fn lend(&mut self, device: DeviceId, extent: Extent) -> Option<Bytes> {
        self.inner.lend(device, extent)
    }

    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        self.inner.window(device, extent)
    }

    fn vouches(&self, device: DeviceId) -> bool {
        self.inner.vouches(device)
    }
}

impl<B: Wakeups> Wakeups for Counted<B> {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        self.inner.wakeups()
    }
}
