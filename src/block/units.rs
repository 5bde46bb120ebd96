//! Addresses, lengths and instants, each its own type so that two of them cannot be swapped.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use super::SECTOR_BYTES;

/// A sector address: sector `n` begins at byte `512 * n` of its device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Lba(pub u64);

/// A number of 512-byte sectors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Sectors(pub u64);

impl Lba {
    /// The byte this sector begins at.
    pub const fn bytes(self) -> u64 {
        self.0 * SECTOR_BYTES
    }
}

impl Sectors {
    /// No sectors.
    pub const ZERO: Sectors = Sectors(0);

    /// The address space these sectors take, in bytes.
    pub const fn bytes(self) -> u64 {
        self.0 * SECTOR_BYTES
    }

    /// Whole sectors in `bytes`; the rest is dropped.
    pub const fn floor_bytes(bytes: u64) -> Sectors {
        Sectors(bytes / SECTOR_BYTES)
    }

    /// `self` rounded down to a multiple of `unit`.
    pub const fn round_down(self, unit: Sectors) -> Sectors {
        Sectors(self.0 / unit.0 * unit.0)
    }

    /// How many bytes a buffer holds for these sectors when each carries `grain` bytes.
    pub const fn at_grain(self, grain: u32) -> usize {
        (self.0 * grain as u64) as usize
    }
}

impl Add<Sectors> for Lba {
    type Output = Lba;
    fn add(self, length: Sectors) -> Lba {
        Lba(self.0 + length.0)
    }
}

impl Sub<Lba> for Lba {
    type Output = Sectors;
    fn sub(self, start: Lba) -> Sectors {
        Sectors(self.0 - start.0)
    }
}

impl Add for Sectors {
    type Output = Sectors;
    fn add(self, other: Sectors) -> Sectors {
        Sectors(self.0 + other.0)
    }
}

impl Sub for Sectors {
    type Output = Sectors;
    fn sub(self, other: Sectors) -> Sectors {
        Sectors(self.0 - other.0)
    }
}

impl AddAssign for Sectors {
    fn add_assign(&mut self, other: Sectors) {
        self.0 += other.0;
    }
}

impl SubAssign for Sectors {
    fn sub_assign(&mut self, other: Sectors) {
        self.0 -= other.0;
    }
}

/// A run of sectors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Extent {
    /// The first sector.
    pub start: Lba,
    /// How many.
    pub length: Sectors,
}

impl Extent {
    /// `length` sectors from `start`.
    pub const fn new(start: Lba, length: Sectors) -> Extent {
        Extent { start, length }
    }

    /// The sector after the last.
    pub const fn end(self) -> Lba {
        Lba(self.start.0 + self.length.0)
    }

    /// Whether the two share a sector.
    pub const fn overlaps(self, other: Extent) -> bool {
        self.start.0 < other.end().0 && other.start.0 < self.end().0
    }

    /// The sectors as a range of numbers.
    pub const fn range(self) -> std::ops::Range<u64> {
        self.start.0..self.end().0
    }
}

/// A moment, in nanoseconds since the start of the world that hands it out. The core is told the
/// time and never asks for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The first moment.
    pub const START: Instant = Instant(0);

    /// Time passed since `earlier`; zero if it is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The first of some moments, where there are any.
    pub fn earliest<const N: usize>(moments: [Option<Instant>; N]) -> Option<Instant> {
        let mut first = None;
        for moment in moments {
            if let Some(at) = moment
                && first.is_none_or(|first| at < first)
            {
                first = moment;
            }
        }
        first
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, wait: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
