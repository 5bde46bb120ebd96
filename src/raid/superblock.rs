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
pub use super::superblock_fields::{
    BadBlockLog, ConsistencyPolicy, DeviceFlags, DeviceUuid, Features, MemberRole, MinorVersion, PplKind, Recovery,
    Reshape, ResyncOffset, SetName, SetUuid, Timestamp, super_offset,
};
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

/// Where mdadm adds a bitmap behind a 1.0 superblock, it has 3 KiB.
const BITMAP_BEHIND: Sectors = Sectors(6);
/// More updates than any array lives to see: there is always room to count one more.
const EVENTS_MAX: u64 = u64::MAX / 2;
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
        room.unwrap_or(BITMAP_BEHIND)
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
        if self.events > EVENTS_MAX {
            return Err(implausible("events", self.events));
        }
        if !matches!(self.level, -5 | -4 | -1 | 0 | 1 | 4 | 5 | 6 | 10) {
            return Err(implausible("level", self.level));
        }
        if !(1..=ROLES_MAX as u32).contains(&self.raid_disks) {
            return Err(implausible("raid_disks", self.raid_disks));
        }
        let chunk_fits = match self.level {
            0 => self.chunk > Sectors::ZERO && self.chunk <= self.data.length,
            // md itself wants a page (8 sectors); the simulator's stripes are smaller.
            4 | 5 | 6 | 10 => self.chunk.0.is_power_of_two() && self.chunk <= self.size,
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
            ConsistencyPolicy::Bitmap { offset, .. } => {
                let behind = self.minor == MinorVersion::V1_0 && offset > 0;
                beside(Area::Bitmap, offset, if behind { BITMAP_BEHIND.0 } else { 1 });
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raid::golden::{MEMBERS, Member};
    use crate::raid::member_layout::{BitmapWish, DataRoom};
    use proptest::prelude::*;

    fn found(name: &str) -> (Member, Superblock) {
        let member = Member::load(name);
        let superblock = member.probe().unwrap_or_else(|error| panic!("{name}: {error}"));
        (member, superblock)
    }

    /// The superblock of `name` with `change` made to its bytes, its checksum right again.
    fn changed(name: &str, change: impl FnOnce(&mut [u8])) -> Result<Superblock, SuperblockError> {
        let (member, superblock) = found(name);
        let mut bytes = member.read(superblock.super_offset, Sectors(8));
        change(&mut bytes);
        let sum = checksum(&bytes, superblock.roles.len());
        put(&mut bytes, CHECKSUM_AT, sum.to_le_bytes());
        Superblock::decode(&bytes, superblock.minor, superblock.super_offset, member.device)
    }

    #[test]
    fn every_superblock_made_by_md_is_read_and_written_back_unchanged() {
        for name in MEMBERS {
            let (member, superblock) = found(name);
            let extent = superblock.extent();
            assert!(superblock.encode() == member.read(extent.start, extent.length), "{name}");
        }
    }

    #[test]
    fn what_we_do_not_implement_is_refused_by_name() {
        let refusal = |name| found(name).1.unsupported();
        assert_eq!(refusal("r5resh-3"), Some(Refusal::Reshape { position: Sectors(1536) }));
        assert_eq!(refusal("r5jnl-0"), Some(Refusal::Journal));
        assert_eq!(refusal("r5jnl-3"), Some(Refusal::Journal));
        assert_eq!(refusal("r5ppl-0"), Some(Refusal::Ppl));
        assert_eq!(refusal("linear-0"), Some(Refusal::Level { level: -1 }));
        let clustered = changed("r5bm-0", |bytes| bytes[9] |= 1).unwrap();
        assert_eq!(clustered.unsupported(), Some(Refusal::Clustered));
        for name in MEMBERS {
            let refused = ["r5resh", "r5jnl", "r5ppl", "linear"].iter().any(|prefix| name.starts_with(prefix));
            assert_eq!(refusal(name).is_some(), refused, "{name}");
        }
    }

    #[test]
    fn states_of_members_are_as_md_left_them() {
        let (_, recovering) = found("r5rec-3");
        assert_eq!(recovering.recovery, Some(Recovery { offset: Sectors(8192), by_bitmap: false }));
        assert_eq!(recovering.role(), MemberRole::Slot(1));
        let (_, replacement) = found("r5rep-3");
        assert!(replacement.replacement && replacement.recovery.is_some());
        assert_eq!(replacement.devices_in(1).collect::<Vec<_>>(), [1, 3]);
        let (_, last) = found("r5-3");
        assert_eq!((last.role(), last.dev_number), (MemberRole::Slot(3), 5));
        assert_eq!(found("r5-4").1.role(), MemberRole::Spare);
        assert_eq!(found("r5dirty-0").1.resync, ResyncOffset::From(Sectors(0)));
        assert_eq!(found("r1sync-0").1.resync, ResyncOffset::From(Sectors(12544)));
        assert_eq!(found("r1wm-2").1.flags, DeviceFlags(3));
        assert!(found("r0zones-1").1.raid0_layout);
    }

    #[test]
    fn damage_and_later_formats_are_told_apart() {
        let (member, superblock) = found("r5-0");
        let bytes = member.read(superblock.super_offset, Sectors(8));
        let decode = |bytes: &[u8]| Superblock::decode(bytes, MinorVersion::V1_2, Lba(8), member.device);
        let mut flipped = bytes.clone();
        flipped[200] ^= 1;
        assert!(matches!(decode(&flipped), Err(SuperblockError::Checksum { .. })));
        assert_eq!(decode(&bytes[..500]), Err(SuperblockError::Truncated { have: 500, need: 512 }));
        assert_eq!(decode(&[0; 4096]), Err(SuperblockError::NoMagic { found: 0 }));

        assert_eq!(changed("r5-0", |bytes| bytes[13] = 1), Err(SuperblockError::Reserved { at: 13 }));
        assert_eq!(changed("r5-0", |bytes| bytes[255] = 1), Err(SuperblockError::Reserved { at: 255 }));
        let unknown = Features(1 << 13);
        assert_eq!(changed("r5-0", |bytes| bytes[9] = 32), Err(SuperblockError::UnknownFeatures { unknown }));
        let moved = SuperblockError::Misplaced { recorded: Lba(9), found_at: Lba(8) };
        assert_eq!(changed("r5-0", |bytes| bytes[144] = 9), Err(moved));
        let short = Superblock::decode(&bytes, MinorVersion::V1_2, Lba(8), member.device - Sectors(1));
        let end = i128::from(member.device.0);
        assert_eq!(
            short,
            Err(SuperblockError::BeyondDevice { area: Area::Data, end, device: member.device - Sectors(1) })
        );
    }

    #[test]
    fn areas_that_reach_into_each_other_are_refused() {
        let log_at = |offset: i32| move |bytes: &mut [u8]| put(bytes, 188, offset.to_le_bytes());
        let overlap = |first, second| Err(SuperblockError::Overlap { first, second });
        assert_eq!(changed("r5-0", log_at(2033)), overlap(Area::BadBlockLog, Area::Data));
        assert!(changed("r5-0", log_at(2032)).is_ok());
        assert_eq!(changed("r5bm-0", log_at(8)), overlap(Area::Bitmap, Area::BadBlockLog));
        assert_eq!(changed("r5-0", log_at(-8)).err(), None);
        assert_eq!(changed("r5-0", log_at(-7)), overlap(Area::Superblock, Area::BadBlockLog));
        assert!(matches!(changed("r5-0", log_at(-9)), Err(SuperblockError::BeyondDevice { .. })));
        // The data size of a 1.0 member ends where the bitmap begins.
        let bitmap_at = |offset: i32| move |bytes: &mut [u8]| put(bytes, 96, offset.to_le_bytes());
        assert!(changed("r5v10bm-0", bitmap_at(-9)).is_ok());
        assert_eq!(changed("r5v10bm-0", bitmap_at(-8)), overlap(Area::Bitmap, Area::BadBlockLog));
        assert_eq!(changed("r5v10bm-0", bitmap_at(-120)), overlap(Area::Data, Area::Bitmap));
    }

    #[test]
    fn numbers_no_array_has_are_refused() {
        let implausible = |name, at: usize, value: u64, length: usize| {
            let result = changed(name, |bytes| bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]));
            match result {
                Err(SuperblockError::Implausible { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(implausible("r5-0", 72, 7, 4), "level");
        assert_eq!(implausible("r5-0", 92, 0, 4), "raid_disks");
        assert_eq!(implausible("r5-0", 88, 100, 4), "chunksize");
        assert_eq!(implausible("r5-0", 80, u64::MAX, 8), "size");
        assert_eq!(implausible("r5-0", 80, 30_721, 8), "size");
        assert_eq!(implausible("r5-0", 136, 9, 8), "data_size");
        assert_eq!(implausible("r5-0", 160, 128, 4), "dev_number");
        assert_eq!(implausible("r5-0", 200, u64::MAX, 8), "events");
        assert_eq!(implausible("r5-0", 208, 30_721, 8), "resync_offset");
        assert_eq!(implausible("r5rec-3", 152, 1 << 40, 8), "recovery_offset");
        assert_eq!(implausible("r5-0", 256, 4, 2), "dev_roles");
        assert_eq!(implausible("r5resh-0", 124, 0x8000_0000, 4), "new_offset");
    }

    fn fresh(minor: MinorVersion, device: Sectors, slot: u16) -> Superblock {
        let room = DataRoom::default_for(minor, device, 5, Sectors(128)).unwrap();
        let wish = BitmapWish { sync_size: room.size, chunk: None };
        let member = MemberLayout::place(minor, device, room.data_offset, room.size, Some(wish), true).unwrap();
        Superblock::new(NewMember {
            member,
            set_uuid: SetUuid([1; 16]),
            set_name: SetName::new("lab:new").unwrap(),
            created: Timestamp::new(1_700_000_000, 5),
            level: 5,
            layout: 2,
            size: room.size,
            chunk: Sectors(128),
            raid_disks: 3,
            dev_number: slot.into(),
            device_uuid: DeviceUuid([slot as u8 + 2; 16]),
            roles: (0..3).map(MemberRole::Slot).collect(),
            resync: ResyncOffset::InSync,
        })
    }

    #[test]
    fn a_new_member_is_found_as_it_was_made() {
        for (minor, device) in MinorVersion::ALL.iter().zip([Sectors(32_771), Sectors(32_768), Sectors(1 << 33)]) {
            let made = fresh(*minor, device, 2);
            let found = Superblock::decode(&made.encode(), *minor, made.super_offset, device);
            assert_eq!(found.as_ref(), Ok(&made));
            assert_eq!(made.role(), MemberRole::Slot(2));
            assert!(made.bitmap_space() >= Sectors(8) && made.unsupported().is_none());
        }
    }

    #[test]
    fn a_name_longer_than_32_bytes_is_none() {
        assert_eq!(SetName::new("lab:r5").unwrap().to_string(), "lab:r5");
        assert_eq!(SetName::new(&"x".repeat(32)).unwrap().as_bytes().len(), 32);
        assert_eq!(SetName::new(&"x".repeat(33)), None);
        assert_eq!(SetName::new("a\0b"), None);
    }

    #[test]
    fn an_odd_number_of_roles_is_summed_to_its_last_half_word() {
        let mut superblock = found("r5-0").1;
        for roles in [5, 6, 127, 129, 1920] {
            superblock.roles.resize(roles, MemberRole::Spare);
            let bytes = superblock.encode();
            let again = Superblock::decode(&bytes, superblock.minor, superblock.super_offset, Sectors(32768));
            assert_eq!(again.as_ref(), Ok(&superblock), "{roles} roles");
        }
    }

    /// Whatever a checksum vouches for, what was decoded keeps to its place and is written back as it was.
    fn check_sane(bytes: &[u8], device: Sectors, superblock: &Superblock) {
        let encoded = superblock.encode();
        assert_eq!(encoded[..], bytes[..encoded.len()]);
        assert_eq!(
            Superblock::decode(&encoded, superblock.minor, superblock.super_offset, device).as_ref(),
            Ok(superblock)
        );
        assert!(superblock.data.end().0 <= device.0 && superblock.used() <= superblock.data.length);
        let used = Extent::new(superblock.data.start, superblock.used());
        for area in [Some(superblock.extent()), superblock.bad_block_log_extent()].into_iter().flatten() {
            assert!(area.end().0 <= device.0 && !area.overlaps(used), "{area:?} in {used:?}");
        }
        if let Some(bitmap) = superblock.bitmap_at() {
            let bitmap = Extent::new(bitmap, superblock.bitmap_space());
            assert!(bitmap.end().0 <= device.0 && !bitmap.overlaps(used) && !bitmap.overlaps(superblock.extent()));
        }
        let _ = superblock.unsupported();
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_error_or_a_sane_superblock(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            minor in 0_usize..3,
            device in 24_u64..1 << 40,
            frame: bool,
        ) {
            let minor = MinorVersion::ALL[minor];
            let at = super_offset(minor, Sectors(device)).unwrap();
            if frame && bytes.len() >= 512 {
                put(&mut bytes, 0, SUPERBLOCK_MAGIC.to_le_bytes());
                put(&mut bytes, 4, 1_u32.to_le_bytes());
                put(&mut bytes, 12, [0; 4]);
                put(&mut bytes, 144, at.0.to_le_bytes());
                put(&mut bytes, 220, 100_u32.to_le_bytes());
                put(&mut bytes, 224, [0; 32]);
                let sum = checksum(&bytes, 100);
                put(&mut bytes, CHECKSUM_AT, sum.to_le_bytes());
            }
            if let Ok(superblock) = Superblock::decode(&bytes, minor, at, Sectors(device)) {
                check_sane(&bytes, Sectors(device), &superblock);
            }
        }

        /// Up to three fields of a real superblock hold garbage, or a number near a limit, under a valid checksum.
        #[test]
        fn garbage_under_a_valid_checksum_is_an_error_or_a_sane_superblock(
            name in proptest::sample::select(&MEMBERS),
            changes in proptest::collection::vec(
                (
                    proptest::sample::select(&[
                        8, 72, 76, 80, 88, 92, 96, 100, 104, 112, 116, 120, 124, 128, 136, 152, 160, 184, 185, 186, 188,
                        208, 256, 258, 260,
                    ]),
                    prop_oneof![
                        any::<u64>(), 0_u64..32, (0_u32..64).prop_map(|bit| 1 << bit), (0_i64..64).prop_map(|n| -n as u64),
                        0_u64..40_000
                    ],
                    proptest::sample::select(&[1_usize, 2, 4, 8]),
                ),
                1..4,
            ),
        ) {
            let (member, superblock) = found(name);
            let mut bytes = member.read(superblock.super_offset, Sectors(8));
            for (at, value, length) in changes {
                bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
            }
            let roles = superblock.roles.len();
            let sum = checksum(&bytes, roles);
            put(&mut bytes, CHECKSUM_AT, sum.to_le_bytes());
            let decoded = Superblock::decode(&bytes, superblock.minor, superblock.super_offset, member.device);
            if let Ok(decoded) = decoded {
                check_sane(&bytes, member.device, &decoded);
            }
        }
    }
}
