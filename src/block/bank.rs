//! The one interface between layers.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Completion, Extent, Instant, IoError, Mark, Request, SECTOR_BYTES, Sectors};

/// A device of a bank. It names the device for as long as the bank lives, whatever position in an
/// array it takes or loses: a completion from a replaced member must not blame the new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceId(pub u32);

/// What a device is and takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Its size.
    pub capacity: Sectors,
    /// Requests begin and end on multiples of this: 1 (512 bytes) or 8 (4096).
    pub logical_block: Sectors,
    /// The request length that serves best (a full stripe); a multiple of the logical block.
    pub preferred: Sectors,
    /// Bytes of each sector a buffer carries: 512, or fewer in simulation, where parity being
    /// bytewise makes 64 as good and cheaper. Metadata always travels with all 512.
    pub grain: u32,
    /// The device takes no writes.
    pub read_only: bool,
}

impl Limits {
    /// Limits of a plain disk: 512-byte blocks, whole sectors, writable.
    pub const fn of_disk(capacity: Sectors) -> Limits {
        Limits {
            capacity,
            logical_block: Sectors(1),
            preferred: Sectors(8),
            grain: SECTOR_BYTES as u32,
            read_only: false,
        }
    }

    /// Why this device cannot take `request`, if it cannot.
    pub fn refuse(&self, request: &Request) -> Option<IoError> {
        let extent = request.extent;
        let block = self.logical_block.0;
        if !extent.start.0.is_multiple_of(block) || !extent.length.0.is_multiple_of(block) {
            return Some(IoError::Unsupported);
        }
        if extent.start.0.checked_add(extent.length.0).is_none_or(|end| end > self.capacity.0) {
            return Some(IoError::OutOfRange);
        }
        (self.read_only && request.op.is_write()).then_some(IoError::ReadOnly)
    }
}

/// A set of block devices and whatever they share: a ring, an HBA, the simulator's event heap.
/// Every layer stands on a bank and is one: an array over five disks is a bank of one device.
///
/// Each device behaves like one `NVMe` queue: requests between flushes may finish in any order, and
/// each is completed exactly once.
pub trait Bank {
    /// What `device` is and takes. Constant while the device is part of the bank.
    fn limits(&self, device: DeviceId) -> Limits;

    /// Hands over a request. Never blocks for long and never fails: errors are completions.
    fn submit(&mut self, device: DeviceId, request: Request, now: Instant);

    /// Moves finished requests to `done`, and does whatever work is due at `now`.
    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>);

    /// When `poll` has work to do even if nothing else happens; `None` when only new requests or
    /// outside completions can bring some. A moment that has passed means: now.
    fn next_deadline(&self) -> Option<Instant>;

    /// The bytes of `extent` where they lie, if they lie in memory and nothing stands between: a read without a request
    /// and without a copy. Whoever borrows asks for no change of them before it has let go of what it borrowed, and
    /// asks [`Bank::vouches`] before it believes what it made of them. `None`: they are had by a request, or not at all.
    #[inline]
    fn lend(&mut self, device: DeviceId, extent: Extent) -> Option<Bytes> {
        let _ = (device, extent);
        None
    }

    /// The same for as long as nothing is asked of the bank; to be asked for where no write is under way. What is lent may
    /// be a copy, if that is how the bank holds it.
    #[inline]
    fn window(&self, device: DeviceId, extent: Extent) -> Option<Cow<'_, [u8]>> {
        let _ = (device, extent);
        None
    }

    /// Whether all that `device` has lent was what it holds: a page can be lost under whoever reads it.
    #[inline]
    fn vouches(&self, device: DeviceId) -> bool {
        let _ = device;
        true
    }

    /// A layer above took a rare branch. Only simulated disks remember it; to all others it is nothing, at no cost.
    #[inline]
    fn mark(&mut self, mark: Mark) {
        let _ = mark;
    }
}

/// How a bank wakes whoever waits for it.
pub trait Wakeups {
    /// Descriptors that become readable when a completion may be ready; `poll` makes them
    /// unreadable again. None, if the bank has nothing going on outside the driving thread.
    fn wakeups(&self) -> Vec<std::os::fd::BorrowedFd<'_>>;
}
