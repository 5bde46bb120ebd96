//! The ground every layer stands on.
//!
//! A disk is an array of sectors that takes requests and gives each one back, exactly once, as a
//! completion. This module holds the words for that and nothing else (but known bugs for tests, [`mutant`]): addresses and lengths
//! ([`Lba`], [`Sectors`], [`Extent`]), bytes on their way down ([`Payload`]) and up ([`Buf`]),
//! the [`Request`] and its [`Completion`], and the [`Bank`] interface that disks, arrays and fault
//! layers share.
//!
//! Time is an argument: [`Instant`] counts nanoseconds from a start nobody here asks for, so the
//! same layers run under a real clock and under a simulator's.

mod bank;
mod buf;
mod mark;
pub mod mutant;
mod payload;
mod pool;
mod request;
mod state;
mod units;

pub use bank::{Bank, DeviceId, Limits, Wakeups};
pub use buf::Buf;
pub use mark::{Mark, Marks};
pub use payload::Payload;
pub use request::{Completion, Durability, IoError, Op, Request, RequestId};
pub use state::{State, States};
pub use units::{Extent, Instant, Lba, Sectors};

/// Bytes of address in one sector. What a buffer carries for it is [`Limits::grain`].
pub const SECTOR_BYTES: u64 = 512;

/// Alignment of every buffer made here, in bytes: what `O_DIRECT` wants of the strictest devices.
pub const BUFFER_ALIGN: usize = 4096;
