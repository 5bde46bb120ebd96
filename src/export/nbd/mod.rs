//! The volume for NBD clients: qemu, libnbd's tools, fio, the kernel's own client.
//!
//! A [`Connection`] is the protocol without its socket: bytes in, pieces of requests out; completions in, bytes out. The
//! [`Server`] is a front end of the reactor: it has the sockets, moves the bytes, and hands the pieces to the volume, all
//! on the reactor's thread. TLS sits between the two, where a client has asked for it.
//!
//! # Bounds
//!
//! A client that does its worst costs what follows and no more; when it has used it up it is not read from until it has
//! taken its replies. There are [`CONNECTIONS_MAX`] connections; the oldest that has not finished its handshake makes
//! room for a new one, and none has longer than [`HANDSHAKE_MAX`] for it. Each connection has
//! [`WINDOW`] bytes under way to the volume and as many under way to the client, but for one read that must come in one
//! piece (simple replies, or the flag `DF`), which may be as long as [`PAYLOAD_MAX`](crate::nbd::PAYLOAD_MAX). Under TLS
//! come [`SEALED_MAX`](crate::nbd::SEALED_MAX) bytes that are encrypted already, and some records of 16 KiB.
//!
//! # Sessions
//!
//! A client that gives up a connection may name its [`Session`](crate::nbd::Session) by another, in a newer generation. The
//! older connection is ended then: what it has not handed to the volume is not done, and the newer is let in when all
//! that it has is done.
//!
//! # Fairness
//!
//! A long request is cut into pieces of about [`PIECE`] bytes, at borders of full stripes where that can be, which are
//! handed to the volume in turn with those of other requests and other connections. A write is handed on while the rest
//! of it is still arriving: one that is cut off in the middle has written its beginning, as on any disk.

mod command;
mod connection;
mod export;
mod haggle;
mod listener;
mod peer;
mod server;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Work};
pub use export::Export;
pub use haggle::Secrecy;
pub use listener::{Endpoint, EndpointError, Listener};
pub use server::{Server, ServerTls};

use std::time::Duration;

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 128;

/// From the first byte to the end of the handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(20);

/// Bytes under way in one direction of a connection.
pub const WINDOW: usize = 8 << 20;

/// Bytes of a long request that are handed on at once: what a core's own cache holds, so that they are copied from
/// there.
pub const PIECE: u64 = 256 << 10;

/// Longest stripe that a piece is made to fit.
pub const STRIPE_MAX: u64 = 4 << 20;

/// Requests under way on one connection.
pub const COMMANDS_MAX: usize = 512;
