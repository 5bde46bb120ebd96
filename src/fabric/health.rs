//! How a component can be, well and unwell: faults 32 to 40 of the field's list.

use std::time::Duration;

/// How a component is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// Well.
    Up,
    /// Gone, and its neighbours say so. What is on its way through it is lost.
    Down,
    /// Frames vanish, and nobody says so: those to the target, those from it, or both.
    BlackHole {
        /// Towards the target.
        tx: bool,
        /// From the target.
        rx: bool,
    },
    /// Loses so many frames, and is well after that.
    Losing {
        /// How many.
        frames: u32,
        /// Where they are when they are lost.
        at: Point,
    },
    /// Down and up in turns, beginning with down.
    Flapping {
        /// How long it is down.
        down: Duration,
        /// How long it is up.
        up: Duration,
    },
    /// Frames wait until it is well again: a write can land long after somebody gave it up.
    Stalled,
    /// Frames take so many times as long.
    Slow(u32),
    /// Each answer takes so much longer than the one before it.
    Zombie(Duration),
    /// Every command comes out of it a second time, so much later.
    Doubling(Duration),
    /// Questions whether a path is well pass; what reads and writes fails.
    FailsIo,
    /// Reads and writes pass; questions whether a path is well are answered: it is not.
    FailsChecks,
    /// A byte of all data that passes is another one then.
    Corrupting {
        /// On its way to the host.
        reads: bool,
        /// On its way to the target.
        writes: bool,
    },
}

/// Where a frame is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// A command, before it is sent.
    Sending,
    /// A command, on its way.
    Transit,
    /// The answer to one that was carried out.
    Answering,
}
