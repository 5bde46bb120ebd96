//! Helper threads for the requests that wait for a medium.
//!
//! A read or write of a cached file is a copy; a flush, a forced write or a zeroing may take as long
//! as a disk takes. Those go to a thread, one for each device so that the members of an array flush
//! side by side, and come back over a channel with an eventfd to wake the driving thread.
//!
//! Flushes that wait for the same device share one `fdatasync`: each asks for the writes finished
//! before it was submitted, and the call begins after the last was.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::event::EventfdFlags;

use super::{Image, ImageError};
use crate::block::{Completion, DeviceId, Durability, IoError, Op, Request};

/// The helper threads of a bank.
pub(super) struct Flusher {
    helpers: BTreeMap<DeviceId, Helper>,
    outbox: Outbox,
    finished: Receiver<Batch>,
    /// Batches received whose signal has not been taken from the eventfd yet; negative while it is
    /// the other way round.
    signals_due: i64,
    /// Requests handed over and not come back, of all devices.
    in_flight: usize,
}

struct Helper {
    /// `None` once the device is closed.
    jobs: Option<Sender<Request>>,
    thread: JoinHandle<()>,
    in_flight: usize,
}

struct Batch {
    device: DeviceId,
    completions: Vec<Completion>,
}

#[derive(Clone)]
struct Outbox {
    finished: Sender<Batch>,
    wakeup: Arc<OwnedFd>,
}

impl Flusher {
    /// No threads yet. An error if the process has no descriptor left.
    pub(super) fn new() -> io::Result<Flusher> {
        let (sender, finished) = channel();
        let wakeup = Arc::new(eventfd()?);
        let outbox = Outbox { finished: sender, wakeup };
        Ok(Flusher { helpers: BTreeMap::new(), outbox, finished, signals_due: 0, in_flight: 0 })
    }

    /// Starts the thread that serves `device`.
    pub(super) fn start(&mut self, device: DeviceId, image: Arc<Image>) -> Result<(), ImageError> {
        let (jobs, inbox) = channel();
        let outbox = self.outbox.clone();
        let path = image.path().to_owned();
        let thread = std::thread::Builder::new()
            .name(format!("flush-{}", device.0))
            .spawn(move || serve(device, &image, &inbox, &outbox))
            .map_err(|source| ImageError::Open { path, action: "start a thread for", source })?;
        self.helpers.insert(device, Helper { jobs: Some(jobs), thread, in_flight: 0 });
        Ok(())
    }

    /// Hands over a request that changes the medium, or a flush.
    pub(super) fn submit(&mut self, device: DeviceId, request: Request) {
        let helper = self.helpers.get_mut(&device).expect("an open device has a helper");
        let jobs = helper.jobs.as_ref().expect("an open device has a helper");
        jobs.send(request).expect("a helper lives as long as its device");
        helper.in_flight += 1;
        self.in_flight += 1;
    }

    /// Gives each finished request to `take`.
    pub(super) fn poll(&mut self, mut take: impl FnMut(DeviceId, Completion)) {
        while self.in_flight > 0 || self.signals_due != 0 {
            while let Ok(batch) = self.finished.try_recv() {
                self.signals_due += 1;
                self.in_flight -= batch.completions.len();
                let helper = self.helpers.get_mut(&batch.device).expect("a helper stays until it is idle");
                helper.in_flight -= batch.completions.len();
                if helper.in_flight == 0 && helper.jobs.is_none() {
                    self.join(batch.device);
                }
                batch.completions.into_iter().for_each(|completion| take(batch.device, completion));
            }
            // A signal follows its batch. Taking it here and looking again loses neither.
            let signals = drain(&self.outbox.wakeup);
            if signals == 0 {
                return;
            }
            self.signals_due -= signals as i64;
        }
    }

    /// Lets the thread of `device` end, and its image go, as soon as its last request has come back.
    pub(super) fn stop(&mut self, device: DeviceId) {
        let helper = self.helpers.get_mut(&device).expect("a device is closed once");
        helper.jobs = None;
        if helper.in_flight == 0 {
            self.join(device);
        }
    }

    /// The descriptor that becomes readable when a request has finished.
    pub(super) fn wakeup(&self) -> BorrowedFd<'_> {
        self.outbox.wakeup.as_fd()
    }

    fn join(&mut self, device: DeviceId) {
        let helper = self.helpers.remove(&device).expect("a helper is joined once");
        helper.thread.join().expect("a helper thread does not panic");
    }
}

impl Drop for Flusher {
    /// Waits until what was handed over is done.
    fn drop(&mut self) {
        for (_, helper) in std::mem::take(&mut self.helpers) {
            drop(helper.jobs);
            // A helper's panic has been printed; a second one here would abort.
            let _ = helper.thread.join();
        }
    }
}

impl Outbox {
    fn send(&self, device: DeviceId, completions: Vec<Completion>) {
        self.finished.send(Batch { device, completions }).expect("a bank outlives its helpers");
        rustix::io::retry_on_intr(|| rustix::io::write(&self.wakeup, &1_u64.to_ne_bytes()))
            .expect("an eventfd takes a signal");
    }
}

fn serve(device: DeviceId, image: &Image, inbox: &Receiver<Request>, outbox: &Outbox) {
    while let Ok(first) = inbox.recv() {
        let requests: Vec<_> = std::iter::once(first).chain(inbox.try_iter()).collect();
        let mut waiting_for_sync = Vec::new();
        for request in requests {
            match carry_out(image, &request) {
                Ok(Done::AfterSync) => waiting_for_sync.push(request),
                Ok(Done::Now) => outbox.send(device, vec![request.complete(Ok(()))]),
                Err(error) => {
                    let result = image.judged(&request.op, Err(error));
                    outbox.send(device, vec![request.complete(result)]);
                }
            }
        }
        if !waiting_for_sync.is_empty() {
            let result = image.sync();
            let ended = waiting_for_sync.into_iter().map(|request| {
                let result = image.judged(&request.op, result);
                request.complete(result)
            });
            outbox.send(device, ended.collect());
        }
    }
}

enum Done {
    Now,
    AfterSync,
}

fn carry_out(image: &Image, request: &Request) -> Result<Done, IoError> {
    if request.op.is_write() {
        // A write beyond the end of a shortened file would make it look whole again.
        image.whole()?;
    }
    match &request.op {
        Op::Flush => Ok(Done::AfterSync),
        Op::Write(payload, durability) => image.write(request.extent, payload, *durability).map(|()| Done::Now),
        Op::WriteZeroes(Durability::Fua) => image.zero(request.extent, &request.op).map(|()| Done::AfterSync),
        Op::WriteZeroes(Durability::Volatile) | Op::Discard => {
            image.zero(request.extent, &request.op).map(|()| Done::Now)
        }
        Op::Read(_) => panic!("reads are not a helper's work"),
    }
}

/// An eventfd that counts signals and never blocks.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Takes the signals of an eventfd: how many there were.
pub(super) fn drain(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::retry_on_intr(|| rustix::io::read(eventfd, &mut count)) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}
