//! Disks in files and block devices, by `io_uring` and `O_DIRECT`.
//!
//! The kernel shares two rings with the process: requests go into one, completions come out of the
//! other, and one system call hands over as many as there are. With `O_DIRECT` they go past the
//! page cache, so that what is measured is the device. Direct I/O asks for aligned memory and whole
//! logical blocks; buffers that are not aligned go through a copy that is.
//!
//! The kernel writes to a buffer whenever it likes between submission and completion. So a request
//! and all it points to rest in a slot here until the kernel is done with it, and a dropped bank waits.
//!
//! A shortened image gives medium errors as a plain file does: reads beyond its end at once, flushes as
//! long as it stays short.
//!
//! Some hosts switch `io_uring` off (`kernel.io_uring_disabled`, a container's seccomp filter):
//! [`UringBank::new`] says so, and [`FileBank`](super::FileBank) serves instead.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::io::Errno;
use thiserror::Error;

use super::flusher::{drain, eventfd};
use super::image::{Alignment, PARTS_MAX, ZERO_PIECE, io_error, not_supported, zeroing_mode};
use super::{Image, ImageError, ImageOptions};
use crate::block::Wakeups;
use crate::block::{Bank, Buf, Completion, DeviceId, Durability, Instant, IoError, Limits, Op, Payload, Request};

/// A bank of image files and block devices under one ring.
pub struct UringBank {
    ring: IoUring,
    wakeup: OwnedFd,
    disks: Vec<Disk>,
    /// Requests the kernel has, or will get; a request's place is its name on the ring.
    slots: Vec<Option<InFlight>>,
    free: Vec<usize>,
    /// Slots whose next step is not on the ring yet.
    backlog: VecDeque<usize>,
    /// Entries on the submission ring that the kernel has not been told of.
    unsent: usize,
    /// Entries on the submission ring or with the kernel.
    on_ring: usize,
    done: Vec<(DeviceId, Completion)>,
    /// Scratch: what came off the completion ring.
    reaped: Vec<(usize, i32)>,
}

/// Why there is no `io_uring` here.
#[derive(Debug, Error)]
pub enum UringUnavailable {
    /// Not permitted: the `kernel.io_uring_disabled` sysctl, or a seccomp filter.
    #[error("io_uring is switched off (see the sysctl kernel.io_uring_disabled, or the container's seccomp profile)")]
    SwitchedOff,
    /// This kernel has none.
    #[error("this kernel has no io_uring")]
    Missing,
    /// This kernel's is too old.
    #[error("this kernel's io_uring has no {operation}")]
    Lacks {
        /// The operation it lacks.
        operation: &'static str,
    },
    /// The ring could not be made.
    #[error("cannot make an io_uring: {source}")]
    Failed {
        /// The system's reason.
        source: io::Error,
    },
}

struct Disk {
    limits: Limits,
    /// `None` once closed and idle.
    image: Option<Image>,
    closed: bool,
    in_flight: usize,
}

/// A request in the kernel's hands, and all the kernel may touch for it.
struct InFlight {
    device: DeviceId,
    request: Request,
    step: Step,
    /// Bytes of this step that are done.
    moved: u64,
    /// The aligned copy of a buffer that is not.
    bounce: Option<Buf>,
    parts: Parts,
}

/// What the kernel does for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Read or write the buffer.
    Move,
    /// Zero or discard by `fallocate`.
    Zero,
    /// Write zeroes, where `fallocate` does not serve.
    WriteZeroes,
    /// `fdatasync`.
    Sync,
}

/// The parts of a buffer as the kernel wants them.
#[derive(Default)]
struct Parts(Vec<libc::iovec>);

// SAFETY: the pointers lead into the request of the same slot, which travels along.
unsafe impl Send for Parts {}

/// Entries on the submission ring: how many requests one system call hands over.
const SUBMISSIONS: u32 = 256;

/// Entries on the completion ring, and so the most requests with the kernel at once; the others wait.
const COMPLETIONS: u32 = 1024;

impl UringBank {
    /// A bank without disks, or why `io_uring` cannot be used here.
    pub fn new() -> Result<UringBank, UringUnavailable> {
        let ring = IoUring::builder().setup_cqsize(COMPLETIONS).build(SUBMISSIONS).map_err(unavailable)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(unavailable)?;
        let needed = [
            ("READV", opcode::Readv::CODE),
            ("WRITEV", opcode::Writev::CODE),
            ("FSYNC", opcode::Fsync::CODE),
            ("FALLOCATE", opcode::Fallocate::CODE),
        ];
        if let Some((operation, _)) = needed.into_iter().find(|(_, code)| !probe.is_supported(*code)) {
            return Err(UringUnavailable::Lacks { operation });
        }
        let wakeup = eventfd().map_err(unavailable)?;
        ring.submitter().register_eventfd(wakeup.as_raw_fd()).map_err(unavailable)?;
        Ok(UringBank {
            ring,
            wakeup,
            disks: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            backlog: VecDeque::new(),
            unsent: 0,
            on_ring: 0,
            done: Vec::new(),
            reaped: Vec::new(),
        })
    }

    /// Whether [`UringBank::new`] works on this host, and why not.
    pub fn available() -> Result<(), UringUnavailable> {
        UringBank::new().map(drop)
    }

    /// Adds the disk in the file, or on the block device, at `path`: with `O_DIRECT`, or through the
    /// page cache where the file system has no direct I/O ([`UringBank::is_direct`] tells).
    pub fn open(&mut self, path: &Path, options: ImageOptions) -> Result<DeviceId, ImageError> {
        let image = Image::open_direct(path, options)?;
        self.disks.push(Disk { limits: image.limits(), image: Some(image), closed: false, in_flight: 0 });
        Ok(DeviceId(self.disks.len() as u32 - 1))
    }

    /// Takes no more requests for `device`: they fail with [`IoError::Offline`]. The file is let go
    /// when the last request has come back. To close twice does nothing.
    pub fn close(&mut self, device: DeviceId) {
        let disk = &mut self.disks[device.0 as usize];
        disk.closed = true;
        disk.let_go_if_idle();
    }

    /// Whether `device` is read and written past the page cache; false once it is closed.
    pub fn is_direct(&self, device: DeviceId) -> bool {
        self.disks[device.0 as usize].image.as_ref().is_some_and(Image::is_direct)
    }

    /// Puts waiting requests on the ring, while there is room, and tells the kernel.
    fn send(&mut self) {
        loop {
            while self.on_ring < COMPLETIONS as usize
                && let Some(&slot) = self.backlog.front()
            {
                let in_flight = self.slots[slot].as_mut().expect("what waits is in its slot");
                let image = self.disks[in_flight.device.0 as usize].image.as_ref().expect("a busy disk has its image");
                let entry = in_flight.entry(image).user_data(slot as u64);
                // SAFETY: all the entry points to rests in its slot until the completion, and the
                // descriptor is open as long as its disk is busy; a dropped bank waits for both.
                if unsafe { self.ring.submission().push(&entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
                self.unsent += 1;
                self.on_ring += 1;
            }
            if self.unsent == 0 {
                return;
            }
            match self.ring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Out of memory, or completions to be fetched first: the next poll tries again.
                Ok(0) | Err(_) => return,
                Ok(sent) => self.unsent -= sent,
            }
        }
    }

    /// Takes completions off the ring; whether there were any.
    fn reap(&mut self) -> bool {
        let mut reaped = std::mem::take(&mut self.reaped);
        reaped.extend(self.ring.completion().map(|entry| (entry.user_data() as usize, entry.result())));
        self.on_ring -= reaped.len();
        let any = !reaped.is_empty();
        for (slot, result) in reaped.drain(..) {
            self.advance(slot, result);
        }
        self.reaped = reaped;
        any
    }

    /// Takes a request one step on: to its next step, or out.
    fn advance(&mut self, slot: usize, result: i32) {
        let in_flight = self.slots[slot].as_mut().expect("a completion has its request");
        let disk = &mut self.disks[in_flight.device.0 as usize];
        let image = disk.image.as_ref().expect("a busy disk has its image");
        let Some(result) = in_flight.advance(image, result) else {
            self.backlog.push_back(slot);
            return;
        };
        let InFlight { device, mut request, bounce, .. } = self.slots[slot].take().expect("checked above");
        if let (Op::Read(buf), Some(bounce), Ok(())) = (&mut request.op, bounce, result) {
            buf.copy_from_payload(&bounce.freeze());
        }
        let result = image.judged(&request.op, result);
        disk.in_flight -= 1;
        disk.let_go_if_idle();
        self.free.push(slot);
        self.done.push((device, request.complete(result)));
    }
}

impl Disk {
    fn let_go_if_idle(&mut self) {
        if self.closed && self.in_flight == 0 {
            self.image = None;
        }
    }
}

impl InFlight {
    fn new(device: DeviceId, request: Request, alignment: Option<Alignment>) -> InFlight {
        let step = match &request.op {
            Op::Read(_) | Op::Write(..) => Step::Move,
            Op::WriteZeroes(_) | Op::Discard => Step::Zero,
            Op::Flush => Step::Sync,
        };
        let bounce = match &request.op {
            Op::Read(buf) if !is_aligned(buf.parts(), alignment) => Some(Buf::zeroed(buf.len())),
            Op::Write(payload, _) if !is_aligned(payload.slices(), alignment) => {
                let mut copy = Buf::zeroed(payload.len());
                copy.copy_from_payload(payload);
                Some(copy)
            }
            _ => None,
        };
        InFlight { device, request, step, moved: 0, bounce, parts: Parts::default() }
    }

    /// The ring entry for what is left of the present step.
    fn entry(&mut self, image: &Image) -> squeue::Entry {
        let file = types::Fd(image.file().as_raw_fd());
        let extent = self.request.extent;
        let at = extent.start.bytes() + self.moved;
        let left = extent.length.bytes() - self.moved;
        let flags = match self.request.op {
            Op::Write(_, Durability::Fua) | Op::WriteZeroes(Durability::Fua) => libc::RWF_DSYNC,
            _ => 0,
        };
        match (self.step, &mut self.request.op) {
            (Step::Move, Op::Read(buf)) => {
                let buf = self.bounce.as_mut().unwrap_or(buf);
                self.parts.fill(buf.parts_mut().map(|part| (part.as_mut_ptr(), part.len())), self.moved);
                opcode::Readv::new(file, self.parts.0.as_ptr(), self.parts.0.len() as u32).offset(at).build()
            }
            (Step::Move, Op::Write(payload, _)) => {
                // The kernel only reads what a write points to.
                let of = |slice: &[u8]| (slice.as_ptr().cast_mut(), slice.len());
                match &self.bounce {
                    Some(copy) => self.parts.fill(copy.parts().map(of), self.moved),
                    None => self.parts.fill(payload.slices().map(of), self.moved),
                }
                self.write_entry(file, at, flags)
            }
            (Step::WriteZeroes, _) => {
                // These live in static memory.
                let zeroes = Payload::zeroes(left.min(ZERO_PIECE) as usize);
                self.parts.fill(zeroes.slices().map(|slice| (slice.as_ptr().cast_mut(), slice.len())), 0);
                self.write_entry(file, at, flags)
            }
            (Step::Zero, op) => {
                let mode = zeroing_mode(op).bits() as i32;
                opcode::Fallocate::new(file, extent.length.bytes()).offset(extent.start.bytes()).mode(mode).build()
            }
            (Step::Sync, _) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            (Step::Move, op) => panic!("{} moves no bytes", op.name()),
        }
    }

    fn write_entry(&self, file: types::Fd, at: u64, flags: i32) -> squeue::Entry {
        let parts = &self.parts.0;
        opcode::Writev::new(file, parts.as_ptr(), parts.len() as u32).offset(at).rw_flags(flags).build()
    }

    /// What the kernel's answer means: the request's result, or `None` if there is more to do.
    fn advance(&mut self, image: &Image, result: i32) -> Option<Result<(), IoError>> {
        if result < 0 {
            return match Errno::from_raw_os_error(-result) {
                Errno::INTR | Errno::AGAIN => None,
                errno if self.step == Step::Zero && not_supported(errno) => {
                    self.step = Step::WriteZeroes;
                    None
                }
                errno => Some(Err(io_error(errno))),
            };
        }
        match self.step {
            // The file ends before the disk does.
            Step::Move | Step::WriteZeroes if result == 0 => Some(Err(IoError::Medium)),
            Step::Move | Step::WriteZeroes => {
                self.moved += result as u64;
                (self.moved == self.request.extent.length.bytes()).then_some(Ok(()))
            }
            Step::Zero if matches!(self.request.op, Op::WriteZeroes(Durability::Fua)) => {
                self.step = Step::Sync;
                None
            }
            Step::Zero => Some(Ok(())),
            Step::Sync => Some(image.whole()),
        }
    }
}

impl Parts {
    /// The parts without their first `skip` bytes; as many as one call takes.
    fn fill(&mut self, parts: impl Iterator<Item = (*mut u8, usize)>, skip: u64) {
        self.0.clear();
        let mut skip = skip as usize;
        for (start, length) in parts {
            let skipped = skip.min(length);
            skip -= skipped;
            if skipped < length {
                let iov_base = start.wrapping_add(skipped).cast();
                self.0.push(libc::iovec { iov_base, iov_len: length - skipped });
            }
            if self.0.len() == PARTS_MAX {
                break;
            }
        }
    }
}

fn is_aligned<'a>(mut parts: impl Iterator<Item = &'a [u8]>, alignment: Option<Alignment>) -> bool {
    let Some(Alignment { memory, block }) = alignment else { return true };
    parts.all(|part| {
        part.as_ptr().addr().is_multiple_of(memory.max(1)) && part.len().is_multiple_of(block.bytes() as usize)
    })
}

fn unavailable(error: io::Error) -> UringUnavailable {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => UringUnavailable::SwitchedOff,
        Some(libc::ENOSYS) => UringUnavailable::Missing,
        _ => UringUnavailable::Failed { source: error },
    }
}

impl Bank for UringBank {
    fn limits(&self, device: DeviceId) -> Limits {
        self.disks[device.0 as usize].limits
    }

    fn submit(&mut self, device: DeviceId, request: Request, _now: Instant) {
        let disk = &mut self.disks[device.0 as usize];
        let refusal = if disk.closed { Some(IoError::Offline) } else { Image::refuse(&disk.limits, &request) };
        if let Some(error) = refusal {
            self.done.push((device, request.complete(Err(error))));
            return;
        }
        let alignment = disk.image.as_ref().expect("an open disk has its image").alignment();
        disk.in_flight += 1;
        let in_flight = Some(InFlight::new(device, request, alignment));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = in_flight;
                slot
            }
            None => {
                self.slots.push(in_flight);
                self.slots.len() - 1
            }
        };
        self.backlog.push_back(slot);
    }

    fn poll(&mut self, _now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        self.send();
        // A completion comes before its signal: taking the signal and looking again loses neither.
        if !self.reap() {
            drain(&self.wakeup);
            self.reap();
        }
        if !self.backlog.is_empty() {
            self.send();
        }
        done.append(&mut self.done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let can_send = !self.backlog.is_empty() && self.on_ring < COMPLETIONS as usize;
        (can_send || self.unsent > 0 || !self.done.is_empty()).then_some(Instant::START)
    }
}

impl Wakeups for UringBank {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.wakeup.as_fd()]
    }
}

impl Drop for UringBank {
    /// Waits for what the kernel has: it may still write to the buffers.
    fn drop(&mut self) {
        while self.on_ring > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(_) => {
                    // No way to learn when the kernel is done: what it may touch must stay.
                    std::mem::forget(std::mem::take(&mut self.slots));
                    return;
                }
            }
            let reaped = self.ring.completion().count();
            self.on_ring -= reaped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_io_uring_is_told_apart_from_one_that_forbids_it() {
        let reason = |errno| unavailable(io::Error::from_raw_os_error(errno));
        assert!(matches!(reason(libc::EPERM), UringUnavailable::SwitchedOff));
        assert!(matches!(reason(libc::ENOSYS), UringUnavailable::Missing));
        assert!(matches!(reason(libc::ENOMEM), UringUnavailable::Failed { .. }));
    }

    #[test]
    fn what_direct_io_cannot_take_is_copied_and_nothing_else() {
        let alignment = Some(Alignment { memory: 512, block: crate::block::Sectors(1) });
        let buf = Buf::zeroed(4096);
        let bytes = buf.as_slice().expect("one part");
        assert!(is_aligned([bytes, &bytes[512..]].into_iter(), alignment));
        for part in [&bytes[1..513], &bytes[..100], &bytes[256..768]] {
            assert!(!is_aligned([bytes, part].into_iter(), alignment));
            assert!(is_aligned([bytes, part].into_iter(), None));
        }
    }
}
