//! The leaves: disks that hold bytes.
//!
//! [`MmapBank`] is the default for image files, [`UringBank`] for block devices and honest
//! measurements, [`FileBank`] stands in where `io_uring` is switched off, [`MemBank`] needs no files.

mod file;
mod flusher;
mod image;
mod mem;
mod mmap;
mod sigbus;
#[cfg(test)]
mod tests;
mod uring;

pub use file::FileBank;
pub use image::{Image, ImageError, ImageOptions, Space};
pub use mem::MemBank;
pub use mmap::MmapBank;
pub use uring::{UringBank, UringUnavailable};

/// How a bank wakes whoever waits for it.
pub trait Wakeups {
    /// Descriptors that become readable when a completion may be ready; `poll` makes them
    /// unreadable again. None, if the bank has nothing going on outside the driving thread.
    fn wakeups(&self) -> Vec<std::os::fd::BorrowedFd<'_>>;
}
