//! How a command reaches an array that runs in another process.
//!
//! A lab at rest is opened by whoever wants something of it. One that runs belongs to the process that serves it, which
//! listens at `LAB/control.sock` (mode 0600: for its owner alone). A command connects, says what it wants in one line,
//! and gets lines back until the one that ends it.
//!
//! # The protocol
//!
//! Lines of JSON, at most [`LINE_MAX`] bytes each. One [`Request`] a connection:
//!
//! ```text
//! {"version":1,"lab":"lab","directory":"/home/me","no_wait":false,"command":{"fail":{"disk":"disk-2"}}}
//! ```
//!
//! `lab` is how the lab was called, and only used in what is said; `directory` is where relative paths of the command
//! begin. `read` and `write` bring the descriptor they read from or write to along with the line (`SCM_RIGHTS`). The
//! server answers with any number of [`Reply`] lines, the last of which is `end`:
//!
//! ```text
//! {"hint":"Fail: disk-2"}
//! {"progress":{"action":"recovery","done":4096,"total":131072}}
//! {"end":{"code":0}}
//! ```
//!
//! `done` and `total` are sectors; `code` is the exit code. A connection that is closed before its end ends the waiting
//! and not the work: a recovery goes on, a check goes on and keeps its result, only `read` and `write` stop.
//!
//! A request of another [`VERSION`] is refused by name; so is one with a word in it that is not known.
//!
//! # Bounds
//!
//! [`CLIENTS_MAX`] connections, each with one line in and [`OUTPUT_MAX`] bytes out. One that does not say what it wants
//! within [`REQUEST_MAX`] is let go, and so is one that does not read what it is told.

mod client;
mod message;
mod server;

pub use client::{Client, ClientError};
pub use message::{Command, PathCommand, Reply, Request, StatusForm, VERSION};
pub use server::{Caller, Server, ServerError};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest line.
pub const LINE_MAX: usize = 64 << 10;

/// Connections at a time.
pub const CLIENTS_MAX: usize = 32;

/// Bytes that a connection has not taken yet.
pub const OUTPUT_MAX: usize = 1 << 20;

/// From the connection to its request.
pub const REQUEST_MAX: Duration = Duration::from_secs(5);

/// Where a lab that runs is reached.
pub fn socket_of(lab: &Path) -> PathBuf {
    lab.join("control.sock")
}
