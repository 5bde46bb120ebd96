//! The superblock of Linux md, metadata 1.x.
//!
//! Every member of an md array carries one: who the array is, what it looks like, which part of the
//! member holds data, and which position in the array each device had when this member was last
//! written. 1.0 keeps it at the end of the member, 1.1 at its start, 1.2 4 KiB after its start.
//!
//! ```text
//! 1.2:  | 4 KiB free | superblock | bitmap | bad-block log | headroom | data ...              |
//! 1.1:  | superblock | bitmap | bad-block log | headroom | data ...                           |
//! 1.0:  | data ...                             | bitmap | bad-block log | superblock | <12 KiB |
//! ```
//!
//! The same bytes mean different things under different feature bits, so a feature bit and the
//! fields it makes valid are one `Option` here: neither can be there without the other. What no
//! valid field covers (a recovery offset left behind by a finished recovery) is kept as it was
//! read and written back. Decoding takes what the kernel takes and no more; beyond that it takes no
//! area that reaches into another one, so garbage under a valid checksum does not lead a write astray.
//!
//! The source of the format is `include/uapi/linux/raid/md_p.h` of Linux.

use std::fmt;

use thiserror::Error;

use super::little_endian::{bytes_at, i32_at, put, u16_at, u32_at, u64_at};
use super::member_layout::MemberLayout;
use super::probe::Refusal;
use crate::block::{Extent, Lba, SECTOR_BYTES, Sectors};

/// First field of every md superblock.
pub const SUPERBLOCK_MAGIC: u32 = 0xa92b_4efc;
/// The most a superblock takes, roles and all: 4 KiB.
pub const SUPERBLOCK_SECTORS_MAX: Sectors = Sectors(8);
/// The most devices a superblock has room for; no array has more members either.
pub const ROLES_MAX: usize = 1920;
/// The most sectors anything here counts: their bytes still fit 63 bits.
pub const SECTORS_MAX: Sectors = Sectors((1 << 54) - 1);
/// The smallest member md knows: below it no superblock has a place.
pub const MEMBER_SECTORS_MIN: Sectors = Sectors(24);

const ROLES_AT: usize = 256;
const CHECKSUM_AT: usize = 216;
const IN_SYNC: u64 = u64::MAX;

const _: () = assert!(ROLES_AT + 2 * ROLES_MAX == SUPERBLOCK_SECTORS_MAX.bytes() as usize);

/// The member metadata of one device of an array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Where superblocks of this array lie.
    pub minor: MinorVersion,
    /// Where this one lies.
    pub super_offset: Lba,
    /// The array's identity.
    pub set_uuid: SetUuid,
    /// The array's name, often `host:name`.
    pub set_name: SetName,
    /// When the array was created; members of one array agree on it.
    pub created: Timestamp,
    /// RAID level: 0, 1, 4, 5, 6, 10; -1 linear, -4 multipath, -5 faulty.
    pub level: i32,
    /// Layout, by the numbers of the level.
    pub layout: u32,
    /// Whether `layout` counts on RAID0: without it, members of unequal size are ambiguous.
    pub raid0_layout: bool,
    /// Sectors used of each member; zero for RAID0 and linear, which use all of `data`.
    pub size: Sectors,
    /// Chunk; zero for RAID1.
    pub chunk: Sectors,
    /// Positions in the array.
    pub raid_disks: u32,
    /// What makes the members agree again after a crash.
    pub policy: ConsistencyPolicy,
    /// A change of shape under way.
    pub reshape: Option<Reshape>,
    /// Where data will begin when the reshape is done, in sectors from where it begins now.
    pub new_offset: Option<i32>,
    /// The part of this member that can hold data.
    pub data: Extent,
    /// How far this member is recovered; `None` when it is complete.
    pub recovery: Option<Recovery>,
    /// This device's place in `roles`: permanent, and not its slot.
    pub dev_number: u32,
    /// This member stands beside the one it replaces.
    pub replacement: bool,
    /// Read errors that were corrected by a rewrite.
    pub corrected_reads: u32,
    /// This device's identity.
    pub device_uuid: DeviceUuid,
    /// Hints for the use of this member.
    pub flags: DeviceFlags,
    /// Where bad blocks are written down.
    pub bad_block_log: Option<BadBlockLog>,
    /// When the superblock was last written.
    pub updated: Timestamp,
    /// Generation number: the highest among the members is the truth.
    pub events: u64,
    /// How far the members agree.
    pub resync: ResyncOffset,
    /// What each device was, by its number, when this was written.
    pub roles: Vec<MemberRole>,
    /// Bytes that were read but that no valid field covers, at their places; empty if all are zero.
    kept: Vec<u8>,
}

/// What the maker of a member decides; the rest of a fresh superblock follows.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// Where its areas lie.
    pub member: MemberLayout,
    /// The array's identity.
    pub set_uuid: SetUuid,
    /// The array's name.
    pub set_name: SetName,
    /// When the array is created.
    pub created: Timestamp,
    /// RAID level.
    pub level: i32,
    /// Layout.
    pub layout: u32,
    /// Sectors used of each member: the least of all members'; zero for RAID0.
    pub size: Sectors,
    /// Chunk; zero for RAID1.
    pub chunk: Sectors,
    /// Positions in the array.
    pub raid_disks: u32,
    /// This device's place in `roles`.
    pub dev_number: u32,
    /// This device's identity.
    pub device_uuid: DeviceUuid,
    /// Every device's role.
    pub roles: Vec<MemberRole>,
    /// How far the members agree.
    pub resync: ResyncOffset,
}

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

    fn with(self, other: Features, when: bool) -> Features {
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
pub struct SetName([u8; 32]);

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

    fn from_bits(bits: u64) -> Timestamp {
        Timestamp { seconds: bits & ((1 << 40) - 1), micros: (bits >> 40) as u32 }
    }

    fn bits(self) -> u64 {
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
    fn from_wire(role: u16) -> MemberRole {
        match role {
            0xffff => MemberRole::Spare,
            0xfffe => MemberRole::Faulty,
            0xfffd => MemberRole::Journal,
            slot => MemberRole::Slot(slot),
        }
    }

    fn wire(self) -> u16 {
        match self {
            MemberRole::Slot(slot) => slot,
            MemberRole::Spare => 0xffff,
            MemberRole::Faulty => 0xfffe,
            MemberRole::Journal => 0xfffd,
        }
    }
}

/// Parts of a member that must not reach into each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Area {
    /// The superblock itself.
    Superblock,
    /// The data.
    Data,
    /// The write-intent bitmap.
    Bitmap,
    /// The partial parity log.
    Ppl,
    /// The bad-block log.
    BadBlockLog,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Area::Superblock => "superblock",
            Area::Data => "data",
            Area::Bitmap => "bitmap",
            Area::Ppl => "partial parity log",
            Area::BadBlockLog => "bad-block log",
        })
    }
}

/// Why bytes are no superblock to work with.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SuperblockError {
    /// Fewer bytes than the superblock says it has.
    #[error("superblock is cut short: {have} of {need} bytes")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// Something else is there, or nothing.
    #[error("no superblock: expected magic {SUPERBLOCK_MAGIC:08x}, got {found:08x}")]
    NoMagic {
        /// What stands where the magic belongs.
        found: u32,
    },
    /// Another format under the same magic.
    #[error("metadata version {major} is not 1.x")]
    MajorVersion {
        /// Major version.
        major: u32,
    },
    /// The role table is longer than any can be.
    #[error("role table of {max_dev} devices, at most {ROLES_MAX} fit")]
    TooManyRoles {
        /// Entries the superblock claims.
        max_dev: u32,
    },
    /// The bytes changed after the checksum was made.
    #[error("superblock is damaged: its checksum is {found:x}, its bytes give {expected:x}")]
    Checksum {
        /// As written.
        found: u32,
        /// As computed.
        expected: u32,
    },
    /// Bytes reserved for later formats are in use.
    #[error("superblock uses reserved bytes at {at}: a later format")]
    Reserved {
        /// The first of them, counted from the start of the superblock.
        at: usize,
    },
    /// Feature bits that Linux 6.1 does not know either.
    #[error("superblock has unknown features {unknown}: a later format")]
    UnknownFeatures {
        /// The bits without a name.
        unknown: Features,
    },
    /// Feature bits that exclude each other, or one without the one it adds to.
    #[error("features {features} contradict each other")]
    Contradiction {
        /// All of them.
        features: Features,
    },
    /// The superblock belongs elsewhere: the device was cut, grown or copied to another place.
    #[error("superblock found at sector {} says it lies at sector {}", found_at.0, recorded.0)]
    Misplaced {
        /// Where it says it lies.
        recorded: Lba,
        /// Where it was read.
        found_at: Lba,
    },
    /// A number no array has.
    #[error("{field} is {value}: no array has that")]
    Implausible {
        /// The field, by its name in `md_p.h`.
        field: &'static str,
        /// Its value.
        value: i128,
    },
    /// The member is shorter than what the superblock describes.
    #[error("{area} ends at sector {end}, the device at {}", device.0)]
    BeyondDevice {
        /// What does not fit.
        area: Area,
        /// Where it would end.
        end: i128,
        /// The size of the device.
        device: Sectors,
    },
    /// Two areas share sectors.
    #[error("{first} and {second} overlap")]
    Overlap {
        /// One of them.
        first: Area,
        /// The other.
        second: Area,
    },
    /// More devices claim a slot than a member and its replacement.
    #[error("{devices} devices claim slot {slot}")]
    SlotClaimed {
        /// The slot.
        slot: u16,
        /// How many.
        devices: usize,
    },
}

impl Superblock {
    /// A superblock for a member that was never part of an array.
    pub fn new(new: NewMember) -> Superblock {
        assert!(new.roles.len() <= ROLES_MAX, "{} roles, at most {ROLES_MAX}", new.roles.len());
        assert!((new.dev_number as usize) < new.roles.len(), "device {} has no role", new.dev_number);
        let MemberLayout { minor, super_offset, data, bitmap, bad_block_log, .. } = new.member;
        Superblock {
            minor,
            super_offset,
            set_uuid: new.set_uuid,
            set_name: new.set_name,
            created: new.created,
            level: new.level,
            layout: new.layout,
            raid0_layout: false,
            size: new.size,
            chunk: new.chunk,
            raid_disks: new.raid_disks,
            policy: match bitmap {
                Some(bitmap) => ConsistencyPolicy::Bitmap { offset: bitmap.offset, clustered: false },
                None => ConsistencyPolicy::Resync,
            },
            reshape: None,
            new_offset: None,
            data,
            recovery: None,
            dev_number: new.dev_number,
            replacement: false,
            corrected_reads: 0,
            device_uuid: new.device_uuid,
            flags: DeviceFlags::default(),
            bad_block_log,
            updated: new.created,
            events: 0,
            resync: new.resync,
            roles: new.roles,
            kept: Vec::new(),
        }
    }

    /// Reads the superblock in `bytes`, which were found at `found_at` of a device of `device` sectors.
    /// 4 KiB of bytes are always enough; more are ignored.
    pub fn decode(
        bytes: &[u8],
        minor: MinorVersion,
        found_at: Lba,
        device: Sectors,
    ) -> Result<Superblock, SuperblockError> {
        let max_dev = check_frame(bytes)?;
        let features = Features(u32_at(bytes, 8));
        if features.unknown() != Features::default() {
            return Err(SuperblockError::UnknownFeatures { unknown: features.unknown() });
        }
        let recorded = Lba(u64_at(bytes, 144));
        if recorded != found_at {
            return Err(SuperblockError::Misplaced { recorded, found_at });
        }
        let mut superblock = Superblock {
            minor,
            super_offset: found_at,
            set_uuid: SetUuid(bytes_at(bytes, 16)),
            set_name: SetName(bytes_at(bytes, 32)),
            created: Timestamp::from_bits(u64_at(bytes, 64)),
            level: i32_at(bytes, 72),
            layout: u32_at(bytes, 76),
            raid0_layout: features.contains(Features::RAID0_LAYOUT),
            size: sectors("size", u64_at(bytes, 80))?,
            chunk: Sectors(u64::from(u32_at(bytes, 88))),
            raid_disks: u32_at(bytes, 92),
            policy: decode_policy(bytes, features)?,
            reshape: decode_reshape(bytes, features)?,
            new_offset: features.contains(Features::NEW_OFFSET).then(|| i32_at(bytes, 124)),
            data: Extent::new(
                Lba(sectors("data_offset", u64_at(bytes, 128))?.0),
                sectors("data_size", u64_at(bytes, 136))?,
            ),
            recovery: decode_recovery(bytes, features)?,
            dev_number: u32_at(bytes, 160),
            replacement: features.contains(Features::REPLACEMENT),
            corrected_reads: u32_at(bytes, 164),
            device_uuid: DeviceUuid(bytes_at(bytes, 168)),
            flags: DeviceFlags(bytes[184]),
            bad_block_log: decode_bad_block_log(bytes, features)?,
            updated: Timestamp::from_bits(u64_at(bytes, 192)),
            events: u64_at(bytes, 200),
            resync: match u64_at(bytes, 208) {
                IN_SYNC => ResyncOffset::InSync,
                from => ResyncOffset::From(sectors("resync_offset", from)?),
            },
            roles: (0..max_dev).map(|device| MemberRole::from_wire(u16_at(bytes, ROLES_AT + 2 * device))).collect(),
            kept: Vec::new(),
        };
        superblock.check_shape()?;
        superblock.check_roles()?;
        superblock.check_areas(device)?;
        superblock.keep(bytes);
        Ok(superblock)
    }

    /// The bytes to write at `super_offset`, whole sectors, checksum included.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.roles.len() <= ROLES_MAX, "{} roles, at most {ROLES_MAX}", self.roles.len());
        let mut bytes = vec![0; self.extent().length.bytes() as usize];
        let kept = self.kept.len().min(bytes.len());
        bytes[..kept].copy_from_slice(&self.kept[..kept]);
        self.put_array(&mut bytes);
        self.put_member(&mut bytes);
        let sum = checksum(&bytes, self.roles.len());
        put(&mut bytes, CHECKSUM_AT, sum.to_le_bytes());
        bytes
    }

    fn put_array(&self, bytes: &mut [u8]) {
        put(bytes, 0, SUPERBLOCK_MAGIC.to_le_bytes());
        put(bytes, 4, 1_u32.to_le_bytes());
        put(bytes, 8, self.features().0.to_le_bytes());
        put(bytes, 16, self.set_uuid.0);
        put(bytes, 32, self.set_name.0);
        put(bytes, 64, self.created.bits().to_le_bytes());
        put(bytes, 72, self.level.to_le_bytes());
        put(bytes, 76, self.layout.to_le_bytes());
        put(bytes, 80, self.size.0.to_le_bytes());
        put(bytes, 88, chunk_field(self.chunk));
        put(bytes, 92, self.raid_disks.to_le_bytes());
        match self.policy {
            ConsistencyPolicy::Bitmap { offset, .. } => put(bytes, 96, offset.to_le_bytes()),
            ConsistencyPolicy::Ppl { offset, length, .. } => {
                put(bytes, 96, offset.to_le_bytes());
                put(bytes, 98, length.to_le_bytes());
            }
            ConsistencyPolicy::Resync | ConsistencyPolicy::Journal => {}
        }
        if let Some(reshape) = self.reshape {
            put(bytes, 100, reshape.new_level.to_le_bytes());
            put(bytes, 104, reshape.position.0.to_le_bytes());
            put(bytes, 112, reshape.delta_disks.to_le_bytes());
            put(bytes, 116, reshape.new_layout.to_le_bytes());
            put(bytes, 120, chunk_field(reshape.new_chunk));
        }
        if let Some(new_offset) = self.new_offset {
            put(bytes, 124, new_offset.to_le_bytes());
        }
    }

    fn put_member(&self, bytes: &mut [u8]) {
        put(bytes, 128, self.data.start.0.to_le_bytes());
        put(bytes, 136, self.data.length.0.to_le_bytes());
        put(bytes, 144, self.super_offset.0.to_le_bytes());
        if let Some(recovery) = self.recovery {
            put(bytes, 152, recovery.offset.0.to_le_bytes());
        }
        put(bytes, 160, self.dev_number.to_le_bytes());
        put(bytes, 164, self.corrected_reads.to_le_bytes());
        put(bytes, 168, self.device_uuid.0);
        bytes[184] = self.flags.0;
        if let Some(log) = self.bad_block_log {
            let length = u16::try_from(log.length.0).expect("a bad-block log has 8 sectors at most");
            bytes[185] = log.shift;
            put(bytes, 186, length.to_le_bytes());
            put(bytes, 188, log.offset.to_le_bytes());
        }
        put(bytes, 192, self.updated.bits().to_le_bytes());
        put(bytes, 200, self.events.to_le_bytes());
        let resync = match self.resync {
            ResyncOffset::InSync => IN_SYNC,
            ResyncOffset::From(from) => from.0,
        };
        put(bytes, 208, resync.to_le_bytes());
        put(bytes, 220, (self.roles.len() as u32).to_le_bytes());
        for (device, role) in self.roles.iter().enumerate() {
            put(bytes, ROLES_AT + 2 * device, role.wire().to_le_bytes());
        }
    }

    /// Remembers the bytes of `read` that the fields do not give back.
    fn keep(&mut self, read: &[u8]) {
        let written = self.encode();
        let kept: Vec<u8> = written.iter().zip(read).map(|(w, r)| if w == r { 0 } else { *r }).collect();
        if kept.iter().any(|byte| *byte != 0) {
            self.kept = kept;
        }
    }

    /// The checksum it is written with.
    pub fn checksum(&self) -> u32 {
        u32_at(&self.encode(), CHECKSUM_AT)
    }

    /// The feature map that says which fields count.
    pub fn features(&self) -> Features {
        let log = match self.policy {
            ConsistencyPolicy::Resync => Features::default(),
            ConsistencyPolicy::Bitmap { clustered, .. } => Features::BITMAP.with(Features::CLUSTERED, clustered),
            ConsistencyPolicy::Journal => Features::JOURNAL,
            ConsistencyPolicy::Ppl { kind: PplKind::Single, .. } => Features::PPL,
            ConsistencyPolicy::Ppl { kind: PplKind::Multiple, .. } => Features::MULTIPLE_PPLS,
        };
        log.with(Features::RECOVERY_OFFSET, self.recovery.is_some())
            .with(Features::RECOVERY_BITMAP, self.recovery.is_some_and(|recovery| recovery.by_bitmap))
            .with(Features::RESHAPE, self.reshape.is_some())
            .with(Features::RESHAPE_BACKWARDS, self.reshape.is_some_and(|reshape| reshape.backwards))
            .with(Features::NEW_OFFSET, self.new_offset.is_some())
            .with(Features::BAD_BLOCKS, self.bad_block_log.is_some_and(|log| log.present))
            .with(Features::REPLACEMENT, self.replacement)
            .with(Features::RAID0_LAYOUT, self.raid0_layout)
    }

    /// Why we leave the array to md, if we do. Nothing may be written to its members then.
    pub fn unsupported(&self) -> Option<Refusal> {
        if let Some(reshape) = self.reshape {
            return Some(Refusal::Reshape { position: reshape.position });
        }
        if self.new_offset.is_some() {
            return Some(Refusal::DataMoving);
        }
        match self.policy {
            ConsistencyPolicy::Bitmap { clustered: true, .. } => return Some(Refusal::Clustered),
            ConsistencyPolicy::Journal => return Some(Refusal::Journal),
            ConsistencyPolicy::Ppl { .. } => return Some(Refusal::Ppl),
            ConsistencyPolicy::Bitmap { .. } | ConsistencyPolicy::Resync => {}
        }
        (self.level < 0).then_some(Refusal::Level { level: self.level })
    }

    /// The role the superblock gives its own device.
    pub fn role(&self) -> MemberRole {
        self.roles[self.dev_number as usize]
    }

    /// Numbers of the devices in `slot`: none, the member, or the member and its replacement.
    pub fn devices_in(&self, slot: u16) -> impl Iterator<Item = u32> {
        (0..).zip(&self.roles).filter_map(move |(device, role)| (*role == MemberRole::Slot(slot)).then_some(device))
    }

    /// The sectors the superblock takes.
    pub fn extent(&self) -> Extent {
        let bytes = (ROLES_AT + 2 * self.roles.len()) as u64;
        Extent::new(self.super_offset, Sectors(bytes.div_ceil(SECTOR_BYTES)))
    }

    /// Sectors of data in use, from the start of `data`: `size`, or all where `size` has no meaning.
    pub fn used(&self) -> Sectors {
        if self.level > 0 && self.role() != MemberRole::Journal { self.size } else { self.data.length }
    }

    /// Where the bitmap begins, if there is one.
    pub fn bitmap_at(&self) -> Option<Lba> {
        match self.policy {
            ConsistencyPolicy::Bitmap { offset, .. } => Some(self.super_offset_plus(offset)),
            _ => None,
        }
    }

    /// Sectors the bitmap may take before it reaches what lies behind it.
    pub fn bitmap_space(&self) -> Sectors {
        let Some(start) = self.bitmap_at() else { return Sectors::ZERO };
        let log = self.bad_block_log_extent().map(|log| log.start);
        let behind = [Some(self.super_offset), Some(self.data.start), log].into_iter().flatten();
        let room = behind.filter(|next| *next > start).min().map(|next| next - start);
        // With nothing behind it lies in the last KiB after a 1.0 superblock, where md leaves 3 KiB.
        room.unwrap_or(Sectors(6))
    }

    /// Where the bad-block log lies, if there is one.
    pub fn bad_block_log_extent(&self) -> Option<Extent> {
        self.bad_block_log.map(|log| Extent::new(self.super_offset_plus(log.offset), log.length))
    }

    fn super_offset_plus(&self, offset: i32) -> Lba {
        Lba(self.super_offset.0.checked_add_signed(i64::from(offset)).expect("areas lie on the device"))
    }

    fn check_shape(&self) -> Result<(), SuperblockError> {
        if self.dev_number as usize >= self.roles.len() {
            return Err(implausible("dev_number", self.dev_number));
        }
        if !matches!(self.level, -5 | -4 | -1 | 0 | 1 | 4 | 5 | 6 | 10) {
            return Err(implausible("level", self.level));
        }
        if !(1..=ROLES_MAX as u32).contains(&self.raid_disks) {
            return Err(implausible("raid_disks", self.raid_disks));
        }
        let chunk_fits = match self.level {
            0 => self.chunk > Sectors::ZERO && self.chunk <= self.data.length,
            4 | 5 | 6 | 10 => self.chunk >= Sectors(8) && self.chunk.0.is_power_of_two() && self.chunk <= self.size,
            _ => true,
        };
        if !chunk_fits {
            return Err(implausible("chunksize", self.chunk.0));
        }
        if self.data.length < Sectors(10) {
            return Err(implausible("data_size", self.data.length.0));
        }
        if self.used() == Sectors::ZERO || self.used() > self.data.length {
            return Err(implausible("size", self.size.0));
        }
        if let Some(recovery) = self.recovery
            && recovery.offset > self.data.length
        {
            return Err(implausible("recovery_offset", recovery.offset.0));
        }
        if let Some(reshape) = self.reshape {
            let before = i64::from(self.raid_disks) - i64::from(reshape.delta_disks);
            if !(1..=ROLES_MAX as i64).contains(&before) {
                return Err(implausible("delta_disks", reshape.delta_disks));
            }
        }
        self.check_resync()
    }

    fn check_resync(&self) -> Result<(), SuperblockError> {
        let ResyncOffset::From(from) = self.resync else { return Ok(()) };
        let end = match self.level {
            10 => u128::from(self.size.0) * u128::from(self.raid_disks),
            level if level > 0 => u128::from(self.size.0),
            _ => u128::from(SECTORS_MAX.0),
        };
        if self.reshape.is_none() && u128::from(from.0) > end {
            return Err(implausible("resync_offset", from.0));
        }
        Ok(())
    }

    fn check_roles(&self) -> Result<(), SuperblockError> {
        if self.role() == MemberRole::Journal && self.policy != ConsistencyPolicy::Journal {
            return Err(SuperblockError::Contradiction { features: self.features() });
        }
        // A shrinking array has its leaving members still in place.
        let leaving = self.reshape.map_or(0, |reshape| reshape.delta_disks.min(0).unsigned_abs());
        let slots = (self.raid_disks + leaving) as usize;
        let mut claims = vec![0_usize; slots];
        for role in &self.roles {
            if let MemberRole::Slot(slot) = *role {
                let Some(devices) = claims.get_mut(usize::from(slot)) else {
                    return Err(implausible("dev_roles", slot));
                };
                *devices += 1;
                if *devices > 2 {
                    return Err(SuperblockError::SlotClaimed { slot, devices: *devices });
                }
            }
        }
        Ok(())
    }

    /// No area reaches beyond the device or into another. On 1.1 and 1.2 all metadata lies before
    /// the data, on 1.0 the superblock lies behind it.
    fn check_areas(&self, device: Sectors) -> Result<(), SuperblockError> {
        let superblock = i128::from(self.super_offset.0);
        let data = i128::from(self.data.start.0);
        let mut areas = vec![
            (Area::Superblock, superblock, i128::from(self.extent().end().0)),
            (Area::Data, data, data + i128::from(self.used().0)),
        ];
        let mut beside = |area, offset: i32, length: u64| {
            let start = superblock + i128::from(offset);
            areas.push((area, start, start + i128::from(length)));
        };
        match self.policy {
            // Its header says how long it is; the header takes a sector.
            ConsistencyPolicy::Bitmap { offset, .. } => beside(Area::Bitmap, offset, 1),
            ConsistencyPolicy::Ppl { offset, length, .. } => beside(Area::Ppl, offset.into(), length.into()),
            ConsistencyPolicy::Resync | ConsistencyPolicy::Journal => {}
        }
        if let Some(log) = self.bad_block_log {
            beside(Area::BadBlockLog, log.offset, log.length.0);
        }
        let data_limit = match self.minor {
            MinorVersion::V1_0 => superblock,
            MinorVersion::V1_1 | MinorVersion::V1_2 => i128::from(device.0),
        };
        let data_end = data + i128::from(self.data.length.0);
        if data_end > data_limit {
            return Err(SuperblockError::BeyondDevice { area: Area::Data, end: data_end, device });
        }
        for &(area, start, end) in &areas {
            if start < 0 || end > i128::from(device.0) {
                return Err(SuperblockError::BeyondDevice { area, end, device });
            }
            if self.minor != MinorVersion::V1_0 && area != Area::Data && end > data {
                return Err(SuperblockError::Overlap { first: area, second: Area::Data });
            }
        }
        for (at, &(first, start, end)) in areas.iter().enumerate() {
            for &(second, other_start, other_end) in &areas[at + 1..] {
                if start < other_end && other_start < end {
                    return Err(SuperblockError::Overlap { first, second });
                }
            }
        }
        if let Some(new_offset) = self.new_offset {
            let moved = data + i128::from(new_offset);
            if moved < 0 || moved + i128::from(self.used().0) > i128::from(device.0) {
                return Err(implausible("new_offset", new_offset));
            }
        }
        Ok(())
    }
}

/// Magic, version, checksum and reserved bytes: whether this is a superblock at all. Gives the length of the role table.
fn check_frame(bytes: &[u8]) -> Result<usize, SuperblockError> {
    if bytes.len() < ROLES_AT {
        return Err(SuperblockError::Truncated { have: bytes.len(), need: ROLES_AT });
    }
    if u32_at(bytes, 0) != SUPERBLOCK_MAGIC {
        return Err(SuperblockError::NoMagic { found: u32_at(bytes, 0) });
    }
    if u32_at(bytes, 4) != 1 {
        return Err(SuperblockError::MajorVersion { major: u32_at(bytes, 4) });
    }
    let max_dev = u32_at(bytes, 220);
    if max_dev as usize > ROLES_MAX {
        return Err(SuperblockError::TooManyRoles { max_dev });
    }
    let need = (ROLES_AT + 2 * max_dev as usize).next_multiple_of(SECTOR_BYTES as usize);
    if bytes.len() < need {
        return Err(SuperblockError::Truncated { have: bytes.len(), need });
    }
    let (found, expected) = (u32_at(bytes, CHECKSUM_AT), checksum(bytes, max_dev as usize));
    if found != expected {
        return Err(SuperblockError::Checksum { found, expected });
    }
    match (12..16).chain(224..256).find(|at| bytes[*at] != 0) {
        Some(at) => Err(SuperblockError::Reserved { at }),
        None => Ok(max_dev as usize),
    }
}

/// The sum of all 32-bit words up to the end of the role table, the checksum itself taken as zero,
/// its carries added once. An odd number of roles leaves half a word, which counts as it stands.
fn checksum(bytes: &[u8], roles: usize) -> u32 {
    let words = bytes[..ROLES_AT + 2 * roles].chunks(4).map(|word| match word {
        [a, b, c, d] => u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => u64::from(u16_at(word, 0)),
    });
    let sum: u64 = words.sum::<u64>() - u64::from(u32_at(bytes, CHECKSUM_AT));
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

fn decode_policy(bytes: &[u8], features: Features) -> Result<ConsistencyPolicy, SuperblockError> {
    let has = |feature| features.contains(feature);
    let ppl = |kind| ConsistencyPolicy::Ppl { offset: u16_at(bytes, 96) as i16, length: u16_at(bytes, 98), kind };
    let clustered = has(Features::CLUSTERED);
    let policy = match (has(Features::BITMAP), has(Features::JOURNAL), has(Features::PPL), has(Features::MULTIPLE_PPLS))
    {
        (false, false, false, false) => ConsistencyPolicy::Resync,
        (true, false, false, false) => {
            return Ok(ConsistencyPolicy::Bitmap { offset: i32_at(bytes, 96), clustered });
        }
        (false, true, false, false) => ConsistencyPolicy::Journal,
        (false, false, true, false) => ppl(PplKind::Single),
        (false, false, false, true) => ppl(PplKind::Multiple),
        _ => return Err(SuperblockError::Contradiction { features }),
    };
    if clustered {
        return Err(SuperblockError::Contradiction { features });
    }
    Ok(policy)
}

fn decode_reshape(bytes: &[u8], features: Features) -> Result<Option<Reshape>, SuperblockError> {
    let backwards = features.contains(Features::RESHAPE_BACKWARDS);
    if !features.contains(Features::RESHAPE) {
        return if backwards { Err(SuperblockError::Contradiction { features }) } else { Ok(None) };
    }
    Ok(Some(Reshape {
        position: sectors("reshape_position", u64_at(bytes, 104))?,
        delta_disks: i32_at(bytes, 112),
        new_level: i32_at(bytes, 100),
        new_layout: u32_at(bytes, 116),
        new_chunk: Sectors(u64::from(u32_at(bytes, 120))),
        backwards,
    }))
}

fn decode_recovery(bytes: &[u8], features: Features) -> Result<Option<Recovery>, SuperblockError> {
    let by_bitmap = features.contains(Features::RECOVERY_BITMAP);
    if !features.contains(Features::RECOVERY_OFFSET) {
        return if by_bitmap { Err(SuperblockError::Contradiction { features }) } else { Ok(None) };
    }
    Ok(Some(Recovery { offset: sectors("recovery_offset", u64_at(bytes, 152))?, by_bitmap }))
}

fn decode_bad_block_log(bytes: &[u8], features: Features) -> Result<Option<BadBlockLog>, SuperblockError> {
    let log = BadBlockLog {
        offset: i32_at(bytes, 188),
        length: Sectors(u64::from(u16_at(bytes, 186))),
        shift: bytes[185],
        present: features.contains(Features::BAD_BLOCKS),
    };
    if log.offset == 0 || log.length == Sectors::ZERO {
        return if log.present { Err(SuperblockError::Contradiction { features }) } else { Ok(None) };
    }
    if log.length > Sectors(8) {
        return Err(implausible("bblog_size", log.length.0));
    }
    // A unit of more than a terabyte is no unit.
    if log.shift > 31 {
        return Err(implausible("bblog_shift", log.shift));
    }
    Ok(Some(log))
}

fn sectors(field: &'static str, value: u64) -> Result<Sectors, SuperblockError> {
    if value <= SECTORS_MAX.0 { Ok(Sectors(value)) } else { Err(implausible(field, value)) }
}

fn implausible(field: &'static str, value: impl Into<i128>) -> SuperblockError {
    SuperblockError::Implausible { field, value: value.into() }
}

fn chunk_field(chunk: Sectors) -> [u8; 4] {
    u32::try_from(chunk.0).expect("a chunk is less than 2 TiB").to_le_bytes()
}
