//! Multipath: one device out of many paths to it, in dm-multipath's words.
//!
//! A map stands for a logical unit. Its paths are in priority groups; requests go down the paths of one group, chosen by a
//! selector. The first error that is a path's *fails* it: nothing new goes down, and what came back goes down another. A checker
//! looks at every path from time to time and *reinstates* it when it is well. When a better group is there again, the map
//! may go back to it (failback). When no path is left, requests are queued for a while, or fail (`no_path_retry`).
//!
//! | | |
//! |---|---|
//! | [`settings`] | all that can be set of a map, by multipath.conf's keywords |
//! | [`keys`] | the same as text, key by key |
//! | [`connections`] | what can be set of a disk that is reached by several connections |
//! | [`profile`] | sets of timers that somebody uses |
//! | [`selector`] | which path of a group takes the next request |
//! | [`Multipath`] | a bank over a fabric: routing, failing, checking, failback, queueing |
//! | [`map`] | what a map knows of its paths and groups |
//! | [`Maps`] | the same without its fabric: to be shown and managed |
//! | [`Paths`] | a bank that is reached directly or by paths |
//! | [`conf`] | multipath.conf, read |
//! | [`topology`] | what `multipath -ll` shows |
//! | [`json`] | what `multipathd show maps json` shows, and more |
//! | [`Latencies`] | how long requests took on a path |
//!
//! Behaviour after dm-mpath.c and dm-ps-*.c of Linux 6.1 and multipath-tools 0.14, described, not taken.

mod bank;
mod checks;
pub mod conf;
pub mod connections;
mod errand;
mod hedge;
mod held;
pub mod json;
pub mod keys;
mod latencies;
pub mod map;
mod maps;
mod pace;
mod paths;
mod prio;
pub mod profile;
#[cfg(test)]
mod scripted;
pub mod selector;
pub mod settings;
mod switchover;
#[cfg(test)]
mod tests;
pub mod topology;
mod trial;
#[cfg(test)]
mod trust_tests;
mod weights;

pub use bank::Multipath;
pub use latencies::Latencies;
pub use maps::Maps;
pub use paths::Paths;
