//! The leaves: disks that hold bytes.
//!
//! [`MmapBank`] is the default for image files, [`UringBank`] for block devices and honest
//! measurements, [`FileBank`] stands in where `io_uring` is switched off, [`MemBank`] needs no files.
//! [`NbdBank`] speaks to servers, here or on other machines; [`NbdPaths`] does by several connections at a time.
//! [`OverlayBank`] reads originals that it never writes, and keeps what is written beside them. [`Fault`] is a
//! layer over any of them that fails in chosen ways, [`Volatile`] one whose disks forget what was not flushed when the
//! power is cut.

#![allow(clippy::disallowed_methods, reason = "helper threads flush, and tests wait for them")]

mod fault;
mod file;
mod flusher;
mod image;
mod locked;
mod mem;
mod mmap;
mod nbd;
mod overlay;
mod sigbus;
#[cfg(test)]
mod tests;
mod uring;
mod volatile;

pub use fault::{
    ArmedFault, FAULT_KINDS, Fault, FaultId, FaultKind, FaultMisfit, FaultSpec, FaultTextError, Strike, Trigger,
};
pub use file::FileBank;
pub use image::{Image, ImageError, ImageOptions, Space};
pub use locked::{Holder, LockedFile, Sharing};
pub use mem::MemBank;
pub use mmap::MmapBank;
pub use nbd::{NbdBank, NbdDiskError, NbdOptions, NbdPathOptions, NbdPaths};
pub use overlay::{
    OriginalChange, OverlayBank, OverlayError, OverlayStatus, overlay_beside, overlay_commit, overlay_discard,
    overlay_status,
};
pub use uring::{UringBank, UringUnavailable};
pub use volatile::{CACHE_BYTES, CacheLoss, Volatile};

use crate::block::{Bank, Wakeups};

impl<B: Bank + Wakeups> Wakeups for Fault<B> {
    fn wakeups(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        self.inner().wakeups()
    }
}

impl<B: Bank + Wakeups> Wakeups for Volatile<B> {
    fn wakeups(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        self.inner().wakeups()
    }
}

impl Wakeups for OverlayBank {
    fn wakeups(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        Vec::new()
    }
}
