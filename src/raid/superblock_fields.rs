//! The typed fields of a superblock: [`super::superblock`] says where they lie.
//!
//! Each is a closed set of the values md gives it. Bits without a name are kept, so that what was
//! read is written back.

use std::fmt;

use super::superblock::MEMBER_SECTORS_MIN;
use crate::block::{Lba, Sectors};

/// Minor version: it says where the superblock lies, nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MinorVersion {
    /// 8 to 12 KiB before the end.
    V1_0,
    /// At the start.
    V1_1,
    /// 4 KiB after the start.
    V1_2,
}

/// What a device is in its array, as an entry of the role table says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemberRole {
    /// The member in this position.
    Slot(u16),
    /// A spare, or no device of this number at all.
    Spare,
    /// It failed.
    Faulty,
    /// It holds the write journal.
    Journal,
}

/// How far the members are known to agree, in member sectors; on RAID10 in array sectors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ResyncOffset {
    /// Everywhere: the array was stopped clean.
    InSync,
    /// Below this only: from here on a resync is due. Zero while the array is dirty.
    From(Sectors),
}

/// A member that does not yet hold all its data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Recovery {
    /// Member sectors from the start of data that are right already.
    pub offset: Sectors,
    /// Beyond that, only what the bitmap names is wrong.
    pub by_bitmap: bool,
}

/// md's `consistency_policy`: what is consulted after a crash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConsistencyPolicy {
    /// Nothing: a dirty array is resynced as a whole.
    Resync,
    /// A write-intent bitmap on every member.
    Bitmap {
        /// Sectors from the superblock to the bitmap.
        offset: i32,
        /// One bitmap for each node of a cluster.
        clustered: bool,
    },
    /// A write journal on a device of its own.
    Journal,
    /// Partial parity log.
    Ppl {
        /// Sectors from the superblock to the log.
        offset: i16,
        /// Length of the log in sectors.
        length: u16,
        /// Which of the two feature bits says so.
        kind: PplKind,
    },
}

/// Form of a partial parity log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PplKind {
    /// One log.
    Single,
    /// A ring of logs in the same area.
    Multiple,
}

/// A change of shape under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reshape {
    /// How far it has come, in array sectors.
    pub position: Sectors,
    /// Positions gained or lost; `raid_disks` counts them already.
    pub delta_disks: i32,
    /// Level to be.
    pub new_level: i32,
    /// Layout to be.
    pub new_layout: u32,
    /// Chunk to be.
    pub new_chunk: Sectors,
    /// It runs from the end to the start.
    pub backwards: bool,
}

/// Where a member's bad blocks are written down.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BadBlockLog {
    /// Sectors from the superblock to the log.
    pub offset: i32,
    /// Length of the log, 8 at most.
    pub length: Sectors,
    /// The log counts in units of `1 << shift` sectors.
    pub shift: u8,
    /// There are entries. Without it the area is not read and may hold anything.
    pub present: bool,
}

/// Hints for the use of one member, as a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct DeviceFlags(pub u8);

impl DeviceFlags {
    /// Read only if nothing else can be.
    pub const WRITE_MOSTLY: DeviceFlags = DeviceFlags(1);
    /// Do not retry: another copy is near.
    pub const FAIL_FAST: DeviceFlags = DeviceFlags(2);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: DeviceFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The feature map: which parts of the superblock count, as a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(pub u32);

impl Features {
    /// The bitmap offset is valid.
    pub const BITMAP: Features = Features(1);
    /// The recovery offset is valid.
    pub const RECOVERY_OFFSET: Features = Features(2);
    /// A reshape is under way.
    pub const RESHAPE: Features = Features(4);
    /// The bad-block log has entries.
    pub const BAD_BLOCKS: Features = Features(8);
    /// This member is a replacement.
    pub const REPLACEMENT: Features = Features(16);
    /// The reshape runs backwards.
    pub const RESHAPE_BACKWARDS: Features = Features(32);
    /// The new data offset is valid.
    pub const NEW_OFFSET: Features = Features(64);
    /// Recovery is guided by the bitmap.
    pub const RECOVERY_BITMAP: Features = Features(128);
    /// The bitmap is a cluster's.
    pub const CLUSTERED: Features = Features(256);
    /// The array has a write journal.
    pub const JOURNAL: Features = Features(512);
    /// The members have a partial parity log.
    pub const PPL: Features = Features(1024);
    /// The members have several partial parity logs.
    pub const MULTIPLE_PPLS: Features = Features(2048);
    /// The RAID0 layout is valid.
    pub const RAID0_LAYOUT: Features = Features(4096);
    /// All that Linux 6.1 knows.
    pub const KNOWN: Features = Features(8191);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits that have no name here.
    pub const fn unknown(self) -> Features {
        Features(self.0 & !Features::KNOWN.0)
    }

    pub(super) fn with(self, other: Features, when: bool) -> Features {
        if when { Features(self.0 | other.0) } else { self }
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// An array's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SetUuid(pub [u8; 16]);

/// A device's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceUuid(pub [u8; 16]);

/// md writes a UUID as four groups of four bytes.
fn write_uuid(uuid: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, byte) in uuid.iter().enumerate() {
        let colon = if at > 0 && at % 4 == 0 { ":" } else { "" };
        write!(f, "{colon}{byte:02x}")?;
    }
    Ok(())
}

impl fmt::Display for SetUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(&self.0, f)
    }
}

impl fmt::Display for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(&self.0, f)
    }
}

/// An array's name: up to 32 bytes, ended by a NUL if shorter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SetName(pub(super) [u8; 32]);

impl SetName {
    /// `name` as a superblock holds it; `None` if it is longer than 32 bytes or has a NUL in it.
    pub fn new(name: &str) -> Option<SetName> {
        let mut bytes = [0; 32];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (!name.contains('\0')).then_some(SetName(bytes))
    }

    /// The bytes before the first NUL.
    pub fn as_bytes(&self) -> &[u8] {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        &self.0[..length]
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// A moment of the calendar, as superblocks hold it: 40 bits of seconds since 1970 and 24 of microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp {
    seconds: u64,
    micros: u32,
}

impl Timestamp {
    /// `seconds` since 1970, below 2^40, and `micros` microseconds, below 2^24.
    pub fn new(seconds: u64, micros: u32) -> Timestamp {
        assert!(seconds < 1 << 40 && micros < 1 << 24, "{seconds} s and {micros} us are no timestamp");
        Timestamp { seconds, micros }
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> u64 {
        self.seconds
    }

    /// Microseconds beyond the second.
    pub const fn micros(self) -> u32 {
        self.micros
    }

    pub(super) fn from_bits(bits: u64) -> Timestamp {
        Timestamp { seconds: bits & ((1 << 40) - 1), micros: (bits >> 40) as u32 }
    }

    pub(super) fn bits(self) -> u64 {
        self.seconds | u64::from(self.micros) << 40
    }
}

impl MinorVersion {
    /// Every one, in the order mdadm looks for them.
    pub const ALL: [MinorVersion; 3] = [MinorVersion::V1_0, MinorVersion::V1_1, MinorVersion::V1_2];

    /// The number after the dot.
    pub const fn number(self) -> u32 {
        match self {
            MinorVersion::V1_0 => 0,
            MinorVersion::V1_1 => 1,
            MinorVersion::V1_2 => 2,
        }
    }
}

/// Where the superblock lies on a device of this size; `None` if the device is too small for one.
pub fn super_offset(minor: MinorVersion, device: Sectors) -> Option<Lba> {
    (device >= MEMBER_SECTORS_MIN).then(|| match minor {
        MinorVersion::V1_0 => Lba((device.0 - 16) & !7),
        MinorVersion::V1_1 => Lba(0),
        MinorVersion::V1_2 => Lba(8),
    })
}

impl MemberRole {
    pub(super) fn from_wire(role: u16) -> MemberRole {
        match role {
            0xffff => MemberRole::Spare,
            0xfffe => MemberRole::Faulty,
            0xfffd => MemberRole::Journal,
            slot => MemberRole::Slot(slot),
        }
    }

    pub(super) fn wire(self) -> u16 {
        match self {
            MemberRole::Slot(slot) => slot,
            MemberRole::Spare => 0xffff,
            MemberRole::Faulty => 0xfffe,
            MemberRole::Journal => 0xfffd,
        }
    }
}
