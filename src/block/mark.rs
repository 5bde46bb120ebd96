//! Rare branches, by name.
//!
//! A test that never took a branch has said nothing about it. Line coverage says which lines ran; it cannot say that a
//! gate opened because the array failed, nor is it there when a seed runs. So branches where danger lies carry a name,
//! as in `FoundationDB`'s simulator (its `TEST` macro) and Antithesis (`sometimes`): a campaign reports those it never
//! met, and is not done before it met them.
//!
//! A layer tells the bank below, [`Bank::mark`](super::Bank::mark). Disks ignore it, and nothing of it is left in their
//! code; simulated disks remember. Each mark stands in exactly one place.

use std::fmt;

macro_rules! marks {
    ($($(#[doc = $sentence:literal])+ $mark:ident = $name:literal,)+) => {
        /// A branch that is taken now and then; its sentence says when.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Mark {
            $($(#[doc = $sentence])+ $mark,)+
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Mark] = &[$(Mark::$mark,)+];

            /// Its name in reports and files.
            pub const fn name(self) -> &'static str {
                match self { $(Mark::$mark => $name,)+ }
            }

            /// When it is met.
            pub fn sentence(self) -> &'static str {
                match self { $(Mark::$mark => concat!($($sentence),+).trim_ascii(),)+ }
            }
        }
    };
}

marks! {
    // ---- requests and their bands ----
    /// A request was refused: out of place, too late, or a write to an array that failed.
    RequestRefused = "request-refused",
    /// A write waited until its region was on record as dirty.
    GateWaited = "gate-waited",
    /// A band waited for rows that another one held.
    LockWaited = "lock-waited",
    /// Those who waited for metadata went on because the array had failed.
    WaitersFreedByFailure = "waiters-freed-by-failure",
    /// A write that had passed its gate found the array failed.
    WriteMetFailedArray = "write-met-failed-array",
    /// A band that was to write found no member to write to.
    WriteHadNoPlace = "write-had-no-place",
    /// A band waited until a failure or a bad block was on record.
    RecordWaited = "record-waited",
    /// When the record a band waited for was there, there was another one to wait for.
    RecordWaitedAgain = "record-waited-again",
    /// A write was on the members, and the array failed before that was on record.
    WriteUnrecorded = "write-unrecorded",
    /// A write was answered with an error: too few members took it.
    WriteNotKept = "write-not-kept",

    // ---- flushes ----
    /// A member failed the flush of a user.
    FlushFailed = "flush-failed",
    /// A member had failed already when the flush of a user came back from it with an error.
    FlushOfFailedMember = "flush-of-failed-member",
    /// A flush waited until a failure was on record.
    FlushWaitedForRecord = "flush-waited-for-record",
    /// A flush was over, and the array had failed.
    FlushMetFailedArray = "flush-met-failed-array",

    // ---- reading ----
    /// A read was reconstructed from the other columns.
    ReadReconstructed = "read-reconstructed",
    /// A read was reconstructed while some device was filled to replace a member.
    ReadReconstructedInReplacement = "read-reconstructed-in-replacement",
    /// A read was planned again and had from another copy or column.
    ReadFromElsewhere = "read-from-elsewhere",
    /// A second device could not be read in one band.
    SecondReadFailed = "second-read-failed",
    /// A read failed its member: the error was not one of the medium.
    ReadFailedMember = "read-failed-member",
    /// A read, or a write that needs to read, was answered with an error: too much was lost.
    BandLost = "band-lost",
    /// A read of copies that may differ made them equal before it was answered.
    SettleWroteCopies = "settle-wrote-copies",

    // ---- writing ----
    /// A write encoded parity anew from what it read, because the parity of its region is not trusted.
    ReconstructWriteOnDoubt = "reconstruct-write-on-doubt",
    /// A write reconstructed chunks that it does not write, to encode parity.
    WriteReconstructed = "write-reconstructed",
    /// A write met the watermark of a recovery inside its band.
    WriteMetWatermark = "write-met-watermark",
    /// A write left parity that matches nothing, and had it recorded as bad.
    WritePoisonedParity = "write-poisoned-parity",
    /// A write of a band failed on the medium.
    WriteFailedOnMedium = "write-failed-on-medium",
    /// A member had no room for a write.
    WriteNoSpace = "write-no-space",
    /// A write failed its member: the error was not one of the medium.
    WriteFailedMember = "write-failed-member",
    /// A write came back with an error from a member that had failed already.
    WriteOfFailedMember = "write-of-failed-member",
    /// A write came back from a device that is no member any more.
    WriteOfFormerMember = "write-of-former-member",
    /// Whole rows were made zero or discarded on every column, parity too.
    RowsEmptied = "rows-emptied",

    // ---- halves ----
    /// A read was halved, to lose no more than is lost.
    ReadHalved = "read-halved",
    /// A write was halved.
    WriteHalved = "write-halved",
    /// Recovery, resync or a mend was halved.
    SyncHalved = "sync-halved",
    /// A half was answered with an error.
    HalfFailed = "half-failed",

    // ---- mending ----
    /// What could not be read was written again and read back.
    Mended = "mended",
    /// The sectors to mend were being mended already, or their member had gone.
    MendAlready = "mend-already",
    /// A mend waited for its rows.
    MendWaited = "mend-waited",
    /// The write of a mend failed.
    MendWriteFailed = "mend-write-failed",
    /// The member to mend failed before it could be read back.
    MendLostMember = "mend-lost-member",
    /// What a mend wrote could not be read back.
    MendReadBackFailed = "mend-read-back-failed",
    /// There was nothing to mend from.
    MendLost = "mend-lost",
    /// A member failed because so many of its read errors had been mended.
    MemberWornOut = "member-worn-out",

    // ---- recovery and resync ----
    /// Recovery met rows that are lost, and recorded them as bad on what it fills.
    RecoveryLostRows = "recovery-lost-rows",
    /// Recovery or resync left rows as they are, because parity there is not trusted.
    SyncBlocked = "sync-blocked",
    /// Recovery or resync gave up: a whole pass left something undone.
    SyncGaveUp = "sync-gave-up",
    /// Recovery or resync began another pass from the start.
    SyncPassAgain = "sync-pass-again",
    /// Background work changed, and the new one waited for bands of the old.
    SyncActionWaited = "sync-action-waited",
    /// One band filled two devices or more.
    RecoveryOfSeveral = "recovery-of-several",
    /// A band of recovery ended early, where another device begins to be stale.
    RecoveryCutShort = "recovery-cut-short",
    /// The device to fill failed between the reads of a band and its writes.
    RecoveryTargetFailed = "recovery-target-failed",
    /// The watermark of a recovery under way was written down.
    WatermarkRecorded = "watermark-recorded",
    /// A device was full at the start, though its superblock said it was being filled.
    FilledBeforeStart = "filled-before-start",
    /// Resync came to its end.
    ResyncEnded = "resync-ended",
    /// A replacement that holds everything took over from its member.
    ReplacementTookOver = "replacement-took-over",
    /// A replacement took over while writes were in flight.
    ReplacementTookOverFromWrites = "replacement-took-over-from-writes",
    /// When it was on record that a replacement is full, it was a replacement no longer.
    ReplacementOvertaken = "replacement-overtaken",

    // ---- check and repair ----
    /// A check met a device it could not read.
    CheckMetUnreadable = "check-met-unreadable",
    /// A check found rows that disagree, and which column is wrong.
    MismatchLocated = "mismatch-located",
    /// A check found rows that disagree, and nobody can know who is wrong.
    MismatchUnlocated = "mismatch-unlocated",
    /// A repair wrote what it knows to be right.
    RepairWrote = "repair-wrote",
    /// A check went on where a recovery had come between.
    ScrubResumed = "scrub-resumed",

    // ---- paths ----
    /// A path was failed by a request that came back from it.
    PathFailedByRequest = "path-failed-by-request",
    /// A path was failed by its checker.
    PathFailedByChecker = "path-failed-by-checker",
    /// Requests went down another group of paths.
    GroupSwitched = "group-switched",
    /// The nexus of a path was ended, so that what it had carried could be sent again.
    NexusFenced = "nexus-fenced",
    /// Requests had waited for a path, and got one.
    QueueResumed = "queue-resumed",
    /// Requests had waited for a path for too long.
    QueueGivenUp = "queue-given-up",

    // ---- members ----
    /// A spare took a free slot.
    SpareTookSlot = "spare-took-slot",
    /// A device was put into a recovery that was under way.
    JoinedRecovery = "joined-recovery",
    /// A device came back by the bitmap.
    ReAddedByBitmap = "re-added-by-bitmap",
    /// A device was failed by its administrator while writes were in flight.
    FailedByAdminInWrites = "failed-by-admin-in-writes",
    /// A device was taken out while requests to it were in flight.
    RemovedInFlight = "removed-in-flight",
    /// The array was told to stop while a device was being filled.
    StoppedInRecovery = "stopped-in-recovery",

    // ---- control: failures ----
    /// A member failed while an update of the metadata was under way.
    MemberFailedInUpdate = "member-failed-in-update",
    /// A member failed before an earlier failure or bad block was on record.
    SecondFailureBeforeRecord = "second-failure-before-record",
    /// A member failed that was being replaced: the replacement carries on with what it holds.
    ReplacementCarriedOn = "replacement-carried-on",
    /// A device failed that was being filled.
    FilledDeviceFailed = "filled-device-failed",
    /// A spare that nobody had taken failed.
    SpareFailed = "spare-failed",
    /// The array failed while writes were in flight.
    ArrayFailedInWrites = "array-failed-in-writes",
    /// A failed flush forbade its member to come back by the bitmap.
    FlushFailureForbadeReturn = "flush-failure-forbade-return",
    /// A bad block was recorded on a device that is being filled.
    BadBlockOnFilling = "bad-block-on-filling",
    /// A bad block did not fit into the log, or there is none: the member failed.
    BadBlockLogFull = "bad-block-log-full",
    /// A write made a bad block good again.
    BadBlockCleared = "bad-block-cleared",

    // ---- control: metadata ----
    /// Metadata could not be written or flushed.
    MetadataFailed = "metadata-failed",
    /// An update began again because a member could not be flushed.
    UpdateBegunAgain = "update-begun-again",
    /// An update ended and did not count, because a member failed during it.
    UpdateMissed = "update-missed",
    /// A member one event behind was brought up to the others before anything else.
    CaughtUp = "caught-up",
    /// A device that joined during an update waited for the next one.
    JoinerWaited = "joiner-waited",
    /// An array at rest was marked clean.
    MarkedClean = "marked-clean",
    /// The daemon cleared bits of the bitmap.
    BitmapCleared = "bitmap-cleared",
    /// The daemon left the bitmap alone: it is the memory of what a member misses.
    BitmapKept = "bitmap-kept",
    /// A write met a bit of the bitmap that was just being cleared.
    BitSetWhileCleared = "bit-set-while-cleared",
}

impl Mark {
    /// The mark of a name, if there is one.
    pub fn named(name: &str) -> Option<Mark> {
        Mark::ALL.iter().copied().find(|mark| mark.name() == name)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The marks that were met.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u128);

const _: () = assert!(Mark::ALL.len() <= u128::BITS as usize, "one bit for each mark");

impl Marks {
    /// Adds one.
    pub fn insert(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u32;
    }

    /// Adds those of `other`.
    pub fn merge(&mut self, other: Marks) {
        self.0 |= other.0;
    }

    /// Whether `mark` was met.
    pub fn contains(self, mark: Mark) -> bool {
        self.0 >> mark as u32 & 1 == 1
    }

    /// Whether none was.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that were met, in the order of their list.
    pub fn iter(self) -> impl Iterator<Item = Mark> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let first = Mark::ALL.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(*first)
        })
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mark_has_a_name_of_its_own_and_a_sentence() {
        let names: BTreeSet<&str> = Mark::ALL.iter().map(|mark| mark.name()).collect();
        assert_eq!(names.len(), Mark::ALL.len());
        for mark in Mark::ALL {
            assert_eq!(Mark::named(mark.name()), Some(*mark));
            assert!(mark.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{mark}");
            assert!(mark.sentence().ends_with('.') && mark.sentence().is_ascii(), "{mark}: {}", mark.sentence());
        }
    }

    #[test]
    fn marks_are_remembered_once_each_and_in_order() {
        let mut marks = Marks::default();
        assert!(marks.is_empty());
        marks.insert(Mark::BitSetWhileCleared);
        let mut other = Marks::default();
        other.insert(Mark::RequestRefused);
        other.insert(Mark::BitSetWhileCleared);
        marks.merge(other);
        assert_eq!(marks.iter().collect::<Vec<_>>(), [Mark::RequestRefused, Mark::BitSetWhileCleared]);
        assert!(!marks.contains(Mark::GateWaited));
    }

    /// Every mark is named once in the engine: the file that lists them apart, nobody else's `Mark::X` is it.
    #[test]
    fn each_mark_stands_in_exactly_one_place() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        // What maps do is seen from outside.
        let mut text = std::fs::read_to_string(sources.join("sim/path_rules.rs")).expect("sources can be read");
        for entry in std::fs::read_dir(sources.join("raid")).expect("the engine has sources") {
            text += &std::fs::read_to_string(entry.expect("it can be listed").path()).expect("sources can be read");
        }
        let is_end = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        for mark in Mark::ALL {
            let written = format!("Mark::{mark:?}");
            let places = text.match_indices(&written);
            let places = places.filter(|(at, _)| is_end(text.as_bytes().get(at + written.len()))).count();
            assert_eq!(places, 1, "{written}");
        }
    }
}
