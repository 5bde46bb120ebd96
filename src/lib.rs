//! raidlab: a laboratory for redundant storage that runs as one ordinary process.
//!
//! File-backed virtual disks feed a RAID engine that reads and writes Linux md's own format; a command line makes
//! arrays, breaks them, mends them, measures them. This page is the map.
//!
//! # Bird's eye
//!
//! Every layer is a [`Bank`](block::Bank): a set of block devices that takes requests and gives each one back exactly
//! once. An array over five disks is a bank of one device. A layer owns what is below it:
//!
//! ```text
//!   a command, a benchmark                   a simulated world
//!            │                                       │
//!         Reactor  (real time)                     World  (virtual time, oracle)
//!            │                                       │
//!          Paths   (none, or a map over a fabric)  Paths
//!            │                                       │
//!          Array   (raid: the same code in both)   Array
//!            │                                       │
//!          Paths   (the same, to every member)     Paths
//!            │                                       │
//!          Fault   (fails in chosen ways)          Fault
//!            │                                       │
//!         Volatile (forgets what was not flushed)    │
//!            │                                       │
//!   mmap │ file │ uring │ overlay │ nbd │ paths   SimBank  (volatile caches, power cuts)
//! ```
//!
//! # Where things are
//!
//! | | |
//! |---|---|
//! | [`block`] | the ground: addresses, payloads, requests, the `Bank` interface |
//! | [`parity`] | P and Q over byte slices, in every kernel the processor has |
//! | [`disk`] | leaves: memory, image files, block devices, exports of NBD servers by one path or several, overlays; faults and volatile caches as layers |
//! | [`fabric`] | many paths to a logical unit: components, transports and their timers, hosts and targets; emulated, or over NBD in `disk` |
//! | [`multipath`] | one device out of them, in dm-multipath's words: groups, selectors, checkers, failback, queueing |
//! | [`raid`] | geometry, planner, array, control path, background work, md metadata |
//! | [`config`] | `lab.toml` as types |
//! | [`stack`] | from a lab's directory to a running stack: the only place that knows all layers |
//! | [`reactor`] | real time: drives a stack on the calling thread |
//! | [`nbd`] | the NBD protocol as bytes, for both ends, and the TLS around it |
//! | [`export`] | front ends: the NBD server, a file through FUSE, loop devices |
//! | [`control`] | how a command reaches an array that runs in another process |
//! | [`sim`] | scenarios, simulated disks, a flat oracle, power cuts at every event, shrinking, campaigns; failovers |
//! | [`bench`](mod@bench) | workloads, runner, theory, report |
//! | [`drawing`] | pictures as SVG |
//! | [`units`], `text` | sizes, durations and ranges as they are typed; values that are one word in files |
//! | [`cli`] | one file a command |
//!
//! Dependencies point one way: `cli → {bench, sim, export, control} → stack → {reactor, disk, raid, multipath, fabric} → {block, parity, nbd}`. The
//! story `layers` in `tests/` reads the imports and fails on any other edge.
//!
//! # What holds everywhere
//!
//! * The core (`block`, `parity`, `raid`, `fabric`, `multipath`, `sim`, the fault layer) reads no clock, draws no chance, starts no thread and
//!   touches no file: time is an argument, and cloning a stack forks its world.
//! * *Decide, then do*: [`raid::plan`] is a pure function; what carries plans out knows no level.
//! * Dirty marks are durable before the writes they announce; a failed member is on record on the survivors before a
//!   write that it missed is acknowledged; a watermark is written after a flush of what lies below it.
//! * What cannot be trusted is not used: parity of a region that was never made to agree with its data since a crash
//!   reconstructs nothing, and a repair that would have to guess says so.
//! * Errors are completions ([`block::IoError`], named after who can act on it) or states; what the outside world does
//!   never panics, a broken invariant of our own does.
//! * A sector is 512 bytes of address; how many bytes a buffer carries for each is the grain, smaller in simulation.

pub mod bench;
pub mod block;
pub mod cli;
pub mod config;
pub mod control;
pub mod disk;
pub mod drawing;
pub mod export;
pub mod fabric;
pub mod multipath;
pub mod nbd;
pub mod parity;
pub mod raid;
pub mod reactor;
pub mod sim;
pub mod stack;
mod text;
pub mod units;
