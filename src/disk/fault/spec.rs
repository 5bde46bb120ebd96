//! What can be wrong with a disk, as plain data: for `lab.toml`, the command line and tests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::FaultText;
use crate::block::{Extent, Limits, Sectors};

/// One fault: what, where, from when, how often.
///
/// Its text is what follows `fault LAB DISK add` on the command line:
/// `KIND[=ARGS] [--range A..B] [--after T | --at-io N] [--times N]`, ranges in bytes from the start
/// of the device. In `lab.toml` the same words are keys: `kind`, `range`, `after`, `at_io`, `times`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "FaultText", into = "FaultText")]
pub struct FaultSpec {
    /// What is wrong.
    pub kind: FaultKind,
    /// The sectors that have it; the whole device if none are named.
    pub range: Option<Extent>,
    /// From when.
    pub trigger: Trigger,
    /// How many requests it strikes before it is spent; without limit if none is given.
    pub times: Option<u64>,
}

/// From when a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// As soon as it is armed.
    Armed,
    /// This long after it was armed.
    After(Duration),
    /// From this request of the device on, counted from 1 when it was armed; flushes count.
    AtIo(u64),
}

/// What is wrong with a device. "Write" means a write, a write of zeroes or a discard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// `latency=DURATION`: every completion comes this much later.
    Latency(Duration),
    /// `medium[=sticky]`: reads fail with a medium error. A write mends the sectors it stores, as
    /// dm-dust's does, unless the fault is sticky.
    Medium {
        /// Writes do not mend it.
        sticky: bool,
    },
    /// `write-medium`: writes fail with a medium error and store nothing.
    WriteMedium,
    /// `transient=K`: K reads or writes fail with a medium error, later ones succeed.
    Transient(u64),
    /// `torn=K`: a write longer than K sectors stores its first K and fails with a medium error. K is
    /// rounded down to the logical block.
    Torn(Sectors),
    /// `torn-silent=K`: as `torn`, but the write is said to have succeeded.
    TornSilent(Sectors),
    /// `lost`: writes succeed and store nothing.
    Lost,
    /// `misdirected=D`: writes land D sectors further on (before, if negative) and succeed. One that
    /// would land outside the device is lost.
    Misdirected(i64),
    /// `misdirected-read=D`: reads return what lies D sectors further on (before, if negative) and
    /// succeed. One that would reach outside the device is not misdirected.
    MisdirectedRead(i64),
    /// `corrupt-write[=BITS][,seed=N]`: a write's bytes change on their way down, as when memory flips
    /// between what was computed and what is handed to the disk. A run of BITS bits is flipped in one
    /// of the write's sectors in the range; sector and place follow from the seed, the address and how
    /// often it has struck. The write succeeds, and what is stored is wrong for good: nothing mends it
    /// but another write. A write of zeroes and a discard carry no bytes.
    CorruptWrite {
        /// Bits flipped in each write; 1 if not said.
        bits: u32,
        /// Chooses sector and place; 0 if not said.
        seed: u64,
    },
    /// `bitflip[=BITS][,seed=N][,sticky]`: the sectors have rotted. Reads succeed with a run of BITS
    /// bits flipped in each sector, always the same ones: their place follows from the seed and the
    /// address. A write mends the sectors it stores unless the fault is sticky (a stuck bit on the
    /// way). The bytes below stay as they are: a disarmed fault leaves no trace.
    Bitflip {
        /// Bits flipped in each sector; 1 if not said.
        bits: u32,
        /// Chooses their place; 0 if not said.
        seed: u64,
        /// Writes do not mend it.
        sticky: bool,
    },
    /// `fail-stop`: from its first strike every request fails, the device is offline. A range only
    /// says where the fatal touch must be.
    FailStop,
    /// `flush-lie`: flushes succeed and are not passed down; writes that must be durable are passed
    /// down as volatile ones.
    FlushLie,
    /// `flush-fail`: flushes, and writes that must be durable, fail with a medium error and are not
    /// passed down. What was written before stays where it is: in a cache, perhaps.
    FlushFail,
    /// `no-space`: writes and writes of zeroes fail for lack of space and store nothing. A discard
    /// needs none.
    NoSpace,
    /// `hang[=DURATION]`: requests are carried out and their completions withheld, for ever or until
    /// DURATION after the first strike, when all come at once.
    Hang(Option<Duration>),
    /// `read-only`: writes fail, the device takes none any more.
    ReadOnly,
}

/// Why a fault cannot be armed on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FaultMisfit {
    /// The range ends beyond the device.
    #[error("the range ends at byte {end_bytes}, the device at byte {capacity_bytes}")]
    BeyondTheEnd {
        /// End of the range in bytes.
        end_bytes: u64,
        /// Size of the device in bytes.
        capacity_bytes: u64,
    },
    /// The misdirection is not a multiple of the logical block.
    #[error("nothing is misdirected by {distance} sectors on a device of {logical_block}-sector blocks")]
    Misaligned {
        /// Sectors away.
        distance: i64,
        /// The device's logical block in sectors.
        logical_block: u64,
    },
    /// More bits than a sector has.
    #[error("{bits} flipped bits do not fit the {sector_bits} bits of a sector")]
    TooManyBits {
        /// Bits to flip.
        bits: u32,
        /// Bits in a sector's buffer.
        sector_bits: u32,
    },
    /// A flush has no address.
    #[error("`{kind}` takes no range: a flush has no address")]
    FlushWithRange {
        /// The kind.
        kind: &'static str,
    },
    /// `transient=K` says itself how often.
    #[error("`transient=K` says itself how often it strikes, and takes no count besides")]
    CountedTwice,
}

impl FaultSpec {
    /// `kind` on the whole device, from the moment it is armed, without limit.
    pub const fn new(kind: FaultKind) -> FaultSpec {
        FaultSpec { kind, range: None, trigger: Trigger::Armed, times: None }
    }

    /// The same on these sectors only.
    pub const fn range(self, range: Extent) -> FaultSpec {
        FaultSpec { range: Some(range), ..self }
    }

    /// The same from this moment on.
    pub const fn trigger(self, trigger: Trigger) -> FaultSpec {
        FaultSpec { trigger, ..self }
    }

    /// The same for so many requests.
    pub const fn times(self, times: u64) -> FaultSpec {
        FaultSpec { times: Some(times), ..self }
    }

    /// Whether a device of these limits can have this fault.
    pub fn check(&self, limits: &Limits) -> Result<(), FaultMisfit> {
        if let Some(range) = self.range
            && range.end().0 > limits.capacity.0
        {
            let (end_bytes, capacity_bytes) = (range.end().bytes(), limits.capacity.bytes());
            return Err(FaultMisfit::BeyondTheEnd { end_bytes, capacity_bytes });
        }
        let logical_block = limits.logical_block.0;
        let sector_bits = limits.grain * 8;
        match self.kind {
            FaultKind::Misdirected(distance) | FaultKind::MisdirectedRead(distance)
                if !distance.unsigned_abs().is_multiple_of(logical_block) =>
            {
                Err(FaultMisfit::Misaligned { distance, logical_block })
            }
            FaultKind::Bitflip { bits, .. } | FaultKind::CorruptWrite { bits, .. } if bits > sector_bits => {
                Err(FaultMisfit::TooManyBits { bits, sector_bits })
            }
            FaultKind::FlushLie | FaultKind::FlushFail if self.range.is_some() => {
                Err(FaultMisfit::FlushWithRange { kind: self.kind.name() })
            }
            FaultKind::Transient(_) if self.times.is_some() => Err(FaultMisfit::CountedTwice),
            _ => Ok(()),
        }
    }
}

impl From<FaultKind> for FaultSpec {
    fn from(kind: FaultKind) -> FaultSpec {
        FaultSpec::new(kind)
    }
}

impl FaultKind {
    /// The kind's word, without arguments.
    pub const fn name(&self) -> &'static str {
        match self {
            FaultKind::Latency(_) => "latency",
            FaultKind::Medium { .. } => "medium",
            FaultKind::WriteMedium => "write-medium",
            FaultKind::Transient(_) => "transient",
            FaultKind::Torn(_) => "torn",
            FaultKind::TornSilent(_) => "torn-silent",
            FaultKind::Lost => "lost",
            FaultKind::Misdirected(_) => "misdirected",
            FaultKind::MisdirectedRead(_) => "misdirected-read",
            FaultKind::CorruptWrite { .. } => "corrupt-write",
            FaultKind::Bitflip { .. } => "bitflip",
            FaultKind::FailStop => "fail-stop",
            FaultKind::FlushLie => "flush-lie",
            FaultKind::FlushFail => "flush-fail",
            FaultKind::NoSpace => "no-space",
            FaultKind::Hang(_) => "hang",
            FaultKind::ReadOnly => "read-only",
        }
    }

    /// Whether requests may fail for it, so that everybody can see that something is wrong.
    pub const fn is_error(&self) -> bool {
        match self {
            FaultKind::Medium { .. }
            | FaultKind::WriteMedium
            | FaultKind::Transient(_)
            | FaultKind::Torn(_)
            | FaultKind::FailStop
            | FaultKind::Hang(_)
            | FaultKind::FlushFail
            | FaultKind::NoSpace
            | FaultKind::ReadOnly => true,
            FaultKind::Latency(_)
            | FaultKind::TornSilent(_)
            | FaultKind::Lost
            | FaultKind::Misdirected(_)
            | FaultKind::MisdirectedRead(_)
            | FaultKind::Bitflip { .. }
            | FaultKind::CorruptWrite { .. }
            | FaultKind::FlushLie => false,
        }
    }

    /// Whether bytes are wrong and nobody is told.
    pub const fn is_silent(&self) -> bool {
        !self.is_error() && !matches!(self, FaultKind::Latency(_) | FaultKind::FlushLie)
    }

    /// Whether it can be kept to a range: a flush has no address.
    pub const fn takes_range(&self) -> bool {
        !matches!(self, FaultKind::FlushLie | FaultKind::FlushFail)
    }

    /// Whether what one write stores is mended.
    pub(super) const fn is_mended_by_writes(&self) -> bool {
        matches!(self, FaultKind::Medium { sticky: false } | FaultKind::Bitflip { sticky: false, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_does_not_fit_its_device_is_refused() {
        let limits = Limits { logical_block: Sectors(8), ..Limits::of_disk(Sectors(64)) };
        for (text, fits) in [
            ("lost --range 0..32K", true),
            ("lost --range 0..33K", false),
            ("misdirected=-16", true),
            ("misdirected=4", false),
            ("misdirected-read=8", true),
            ("misdirected-read=9", false),
            ("corrupt-write=4097", false),
            ("bitflip=4096", true),
            ("bitflip=4097", false),
            ("flush-lie --range 0..512", false),
            ("flush-fail --range 0..512", false),
            ("no-space --range 0..512", true),
            ("transient=2 --times 1", false),
        ] {
            assert_eq!(text.parse::<FaultSpec>().unwrap().check(&limits).is_ok(), fits, "{text}");
        }
    }
}
