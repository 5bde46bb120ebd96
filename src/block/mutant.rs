//! Mutants: known bugs of RAID engines and multipath layers, to be switched on in these.
//!
//! A test that has never failed proves little. Bugs that other arrays really had, put back one at a time, say whether
//! a simulator would have found them, and how soon: CrashMonkey is believed because it finds 24 of 26 known ones.
//!
//! They are there with the feature `mutants` only; without it [`is_on`] is `false` to the compiler, which leaves nothing
//! of them. The planner and assembly are pure functions and hold nothing that could say which mutant is on, so this is the
//! one thing the core does not get handed: each thread has its own, and a campaign's threads may run different ones.

macro_rules! mutants {
    ($($name:ident, $id:literal, $source:literal, $breaks:literal;)*) => {
        /// A bug, under the name of what goes wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Mutant {
            $(#[doc = concat!($id, ": ", $breaks)] $name,)*
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them: first those of the corpus by their number there, then the others.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)*];

            /// Its short name.
            pub fn id(self) -> &'static str {
                match self { $(Mutant::$name => $id,)* }
            }

            /// Whose bug it was, or what kind it is of.
            pub fn source(self) -> &'static str {
                match self { $(Mutant::$name => $source,)* }
            }

            /// Whether it shows only where there are paths.
            pub fn is_of_paths(self) -> bool {
                self.id() == "M10" || self.id().starts_with('P')
            }

            /// Whether drawn lives find it within minutes. The other one has a story of its own, in `sim::mutant_tests`.
            pub fn shows_in_drawn_lives(self) -> bool {
                self.id() != "P11"
            }

            /// What goes wrong, in a sentence.
            pub fn breaks(self) -> &'static str {
                match self { $(Mutant::$name => $breaks,)* }
            }
        }
    };
}

mutants! {
    RecoverySkipsWrites, "M1", "md: flush writes before starting a recovery",
        "rows that a write is on its way to while a spare is filled count as recovered, and the spare never gets them.";
    ReplacementWindow, "M2", "md/raid10 since 3.3: writes lost when a replacement completes",
        "on mirrors, a replacement that is full gets no writes until it has taken the slot.";
    ParityNeverLoaded, "M3", "md/raid5 since 3.16: livelock of an unaligned write to a missing device",
        "a write to a missing member of a RAID6, with other data missing beside it, reads its stripe again and again.";
    DifferenceOnDoubtfulParity, "M4", "md 2012: force reconstruct-write while parity is not in sync",
        "a small write to a stripe whose parity is in doubt updates it by the difference, and takes it for right then.";
    RepairWithoutLock, "M5", "btrfs 9a33944b: scrub overwrites good parity with parity of stale pages",
        "a repair reads, judges and writes a stripe without keeping writes out of it.";
    CulpritIntoParity, "M6", "btrfs: destructive read-modify-write, as repair",
        "a repair that has located the wrong data column of a RAID6 makes parity agree with it.";
    ReplacementMissesWrites, "M7", "btrfs raid56 2014: device replace does not get parity",
        "a replacement that is being filled gets no writes, on rows it holds already either.";
    DirtyDegradedStarts, "M8", "md without its rule on dirty degraded arrays",
        "a dirty and degraded parity array starts unasked, its parity taken for right.";
    CleanBeforeResynced, "M9", "redb: a crash during the recovery of an earlier one rolls back durable data",
        "while a resync runs, superblocks may say that nothing is left to do.";
    RetryWithoutFence, "M10", "Linux NVMe/TCP and NBD: a ghost write",
        "a write whose path failed goes down another at once, and may land a second time, over something newer.";
    FlushErrorIgnored, "M11", "ext4, XFS, btrfs: what a failed flush did not write counts as written (ATC '20)",
        "a user's flush that fails on a member counts as done there.";
    WatermarkBeforeFlush, "M12a", "kin of M1",
        "a recovery watermark is written without flushing what lies below it.";
    BitBeforeFlush, "M12b", "md.rst: can_clear",
        "a bit of the bitmap is cleared without flushing the writes it stood for.";
    FreshestByTime, "X1", "class: superblock by time",
        "the freshest superblock is the one with the latest update time, to the second.";
    StaleReAdded, "X2", "class: event counts tie",
        "a member that left no more than two events ago comes back as if it had missed nothing.";
    LostNotRecorded, "X3", "class: unreadable sector during rebuild",
        "what cannot be recovered counts as recovered, whatever stands there: zeroes, on a new disk.";
    AcknowledgedBeforeRecord, "X4", "class: acknowledged too early",
        "a write is acknowledged before the failure of the member that missed it is on record.";
    FlushBeforeLast, "X5", "class: acknowledged too early",
        "a flush is acknowledged when all members but one have flushed.";
    WriteBeforeMark, "X6", "class: write hole",
        "a write does not wait until its region is marked dirty.";
    WriteErrorForgotten, "X7", "class: stale sector",
        "sectors that failed to take a write are not recorded as bad.";
    CopiesNotSettled, "X8", "class: a read is undone",
        "a read of copies that may disagree after a crash returns one and leaves the others.";
    DifferenceAgrees, "X9", "second half of M4",
        "parity in doubt that was updated by a difference is taken for right then.";
    ReplacementBeforeRecord, "X10", "class: two steps in one",
        "a replacement takes the slot before it is on record that it is full.";
    NoCatchUp, "X11", "class: event counts",
        "members one event behind are not brought up to the others before the next update.";
    HoldTooShort, "P1", "hazard H1: TP4129 with too short a wait",
        "a write whose path failed goes down another after 10 ms, whatever may still be under way.";
    BackAtOnce, "P2", "hazard H5: up and down",
        "a path that fails is taken again without being checked.";
    FlushNotSent, "P3", "hazard H10: a flush that stays in the host",
        "a flush is acknowledged without being sent down any path.";
    TargetErrorFailsPath, "P4", "hazard H8: error classes",
        "an error of the unit fails the path and is tried again on another, until no path is left.";
    AnsweredTwice, "P5", "class: late answer",
        "a command that was given up is answered again when the late answer comes.";
    QueuesForEver, "P6", "hazard H6: queue_if_no_path without an end",
        "requests wait for a path for ever, whatever no_path_retry says.";
    StaleBuffer, "P7", "class: retried read",
        "a read whose path failed takes what its buffer holds for the answer.";
    CheckerProlongsWait, "P8", "hazard H5: multipath-tools #54",
        "requests wait anew each time a checker finds a path well that serves nothing.";
    WorstGroup, "P9", "class: group choice",
        "among groups with paths, that of the lowest priority is used.";
    FailedPathUsed, "P10", "class: path state",
        "a path that was failed is still given requests.";
    GivenUpForgotten, "P11", "hazard H1, after the error",
        "when a write is given up nobody remembers that it may still land, and later ones overtake it.";
    CarriedOutTwice, "P12", "hazard H3: a target that does not know its sessions",
        "a target carries out commands that it has had before, or was told to forget.";
    QueueUnbounded, "P13", "hazard H6: a queue without a bound",
        "requests wait for a path whatever they take together.";
    OverlapsWrites, "P14", "hazard H13: two writes over two paths",
        "a write goes out while another is under way over its sectors, which may be sent again and done twice.";
}

/// Whether this bug is there.
#[cfg(not(feature = "mutants"))]
#[inline]
pub const fn is_on(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use switch::{NoSuchMutant, Switched, is_on, switch_on};

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;
    use std::fmt;
    use std::marker::PhantomData;
    use std::str::FromStr;

    use thiserror::Error;

    use super::Mutant;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this bug is there, on this thread.
    pub fn is_on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }

    /// Switches a mutant on, or all off, on this thread, until the guard is dropped.
    #[must_use = "it is off again as soon as the guard is dropped"]
    pub fn switch_on(mutant: Option<Mutant>) -> Switched {
        Switched { before: ON.replace(mutant), of_this_thread: PhantomData }
    }

    /// For as long as this lives, a mutant is on; then what was on before is.
    #[derive(Debug)]
    pub struct Switched {
        before: Option<Mutant>,
        of_this_thread: PhantomData<*const ()>,
    }

    impl Drop for Switched {
        fn drop(&mut self) {
            ON.set(self.before);
        }
    }

    impl fmt::Display for Mutant {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.pad(self.id())
        }
    }

    /// No mutant has this id.
    #[derive(Clone, PartialEq, Eq, Debug, Error)]
    #[error("there is no mutant {0:?}: M1 to M12b, X1 to X11 and P1 to P14 are")]
    pub struct NoSuchMutant(pub String);

    impl FromStr for Mutant {
        type Err = NoSuchMutant;

        fn from_str(id: &str) -> Result<Mutant, NoSuchMutant> {
            let named = |mutant: &&Mutant| mutant.id().eq_ignore_ascii_case(id);
            Mutant::ALL.iter().find(named).copied().ok_or_else(|| NoSuchMutant(id.to_owned()))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn ids_name_one_mutant_each() {
            for mutant in Mutant::ALL {
                assert_eq!(mutant.to_string().parse(), Ok(*mutant));
            }
            assert_eq!("M13".parse::<Mutant>(), Err(NoSuchMutant("M13".to_owned())));
        }

        #[test]
        fn a_mutant_is_on_until_its_guard_is_dropped_and_on_its_thread_only() {
            let _outer = switch_on(Some(Mutant::NoCatchUp));
            {
                let _inner = switch_on(None);
                assert!(!is_on(Mutant::NoCatchUp));
            }
            assert!(is_on(Mutant::NoCatchUp) && !is_on(Mutant::FreshestByTime));
            #[allow(clippy::disallowed_methods, reason = "a campaign's threads")]
            let elsewhere = std::thread::spawn(|| is_on(Mutant::NoCatchUp)).join().unwrap();
            assert!(!elsewhere);
        }
    }
}
