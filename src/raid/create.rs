//! Making members: the superblocks and bitmaps of a new array, or of a device that joins one.

use thiserror::Error;

use super::bitmap_super::{BitmapHeader, BitmapImage};
use super::geometry::{Geometry, GeometryConfig, GeometryError, MemberSizes};
use super::level::{Layout, Level};
use super::member_layout::{BitmapWish, DataRoom, LayoutError, MemberLayout};
use super::superblock::{
    DeviceUuid, MemberRole, MinorVersion, NewMember, ResyncOffset, SetName, SetUuid, Superblock, Timestamp,
};
use crate::block::{Lba, Sectors};

/// Entries mdadm gives the role table of a new array.
const ROLES: usize = 128;

/// What a new array shall be.
#[derive(Clone, Debug)]
pub struct NewArray {
    /// Its level.
    pub level: Level,
    /// Its layout.
    pub layout: Layout,
    /// Its chunk; ignored for RAID1.
    pub chunk: Sectors,
    /// How many of the devices are members; the rest are spares.
    pub raid_disks: usize,
    /// Whether to keep a write-intent bitmap.
    pub bitmap: bool,
    /// Its name.
    pub name: SetName,
    /// Its identity.
    pub uuid: SetUuid,
    /// When it is made.
    pub created: Timestamp,
    /// The members are known to be zero, hence in sync. If not, the first thing the array does is a resync.
    pub in_sync: bool,
    /// What every device is.
    pub devices: Vec<NewDevice>,
}

/// A device that becomes a member.
#[derive(Clone, Copy, Debug)]
pub struct NewDevice {
    /// Its size.
    pub size: Sectors,
    /// Its identity.
    pub uuid: DeviceUuid,
}

/// Why an array cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CreateError {
    /// The shape is impossible.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// A device has no room.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A device is too small to be a member at all.
    #[error("disk {disk} is too small: {} bytes do not hold the metadata and one chunk of data; give a larger --size", size.bytes())]
    TooSmall {
        /// Which, in the order given.
        disk: usize,
        /// Its size.
        size: Sectors,
    },
    /// RAID0 keeps nothing in step.
    #[error("raid0 has no redundancy, so it takes no spares and no bitmap")]
    NoRedundancy,
}

/// A member to be written: every area with its place and its bytes, the superblock last.
#[derive(Clone, Debug)]
pub struct NewAreas {
    /// The superblock.
    pub superblock: Superblock,
    /// What to write, in order.
    pub writes: Vec<(Lba, Vec<u8>)>,
}

/// Plans all members of a new array. Nothing is written here.
pub fn create(new: &NewArray) -> Result<(Geometry, Vec<NewAreas>), CreateError> {
    let redundant = new.level != Level::Raid0;
    if !redundant && (new.bitmap || new.devices.len() > new.raid_disks) {
        return Err(CreateError::NoRedundancy);
    }
    let chunk = if new.level == Level::Raid1 { Sectors::ZERO } else { new.chunk };
    let minor = MinorVersion::V1_2;
    let level = new.level.md_number();
    let mut rooms = Vec::new();
    for (disk, device) in new.devices.iter().enumerate() {
        let room = DataRoom::default_for(minor, device.size, level, chunk);
        rooms.push(room.ok_or(CreateError::TooSmall { disk, size: device.size })?);
    }
    let member_sizes = if redundant {
        MemberSizes::Common(rooms.iter().map(|room| room.size).min().unwrap_or(Sectors::ZERO))
    } else {
        let room = |(device, room): (&NewDevice, &DataRoom)| Sectors(device.size.0 - room.data_offset.0);
        MemberSizes::PerSlot(new.devices.iter().zip(&rooms).map(room).collect())
    };
    let config =
        GeometryConfig { level: new.level, layout: new.layout, raid_disks: new.raid_disks, chunk, member_sizes };
    let size =
        if redundant { rooms.iter().map(|room| room.size).min().unwrap_or(Sectors::ZERO) } else { Sectors::ZERO };
    let geometry = Geometry::new(config)?;
    let wish = new.bitmap.then(|| BitmapWish { sync_size: geometry.sync_size(), chunk: None });
    let mut roles: Vec<MemberRole> = (0..new.raid_disks as u16).map(MemberRole::Slot).collect();
    roles.resize(ROLES.max(new.devices.len()), MemberRole::Spare);
    let resync = if new.in_sync || !redundant { ResyncOffset::InSync } else { ResyncOffset::From(Sectors::ZERO) };
    let mut members = Vec::new();
    for (number, (device, room)) in new.devices.iter().zip(&rooms).enumerate() {
        let member = MemberLayout::place(minor, device.size, room.data_offset, size, wish, true)?;
        let mut superblock = Superblock::new(NewMember {
            member,
            set_uuid: new.uuid,
            set_name: new.name,
            created: new.created,
            level,
            layout: geometry.md_layout_number(),
            size,
            chunk,
            raid_disks: new.raid_disks as u32,
            dev_number: number as u32,
            device_uuid: device.uuid,
            roles: roles.clone(),
            resync,
        });
        superblock.raid0_layout = geometry.records_raid0_layout();
        members.push(areas(superblock, member, !new.in_sync));
    }
    Ok((geometry, members))
}

fn areas(superblock: Superblock, layout: MemberLayout, dirty: bool) -> NewAreas {
    let mut writes = Vec::new();
    if let (Some(place), Some(at)) = (layout.bitmap, superblock.bitmap_at()) {
        let header = BitmapHeader::new(superblock.set_uuid, place.sync_size, place.chunk);
        let mut image = BitmapImage::all_set(header);
        if !dirty {
            image.set_all(false);
        }
        writes.push((at, image.encode()));
    }
    writes.push((superblock.super_offset, superblock.encode()));
    NewAreas { superblock, writes }
}

/// The superblock of a device that joins an array one of whose members has `model`. `used`: the sync space of the
/// array's bitmap, if it has one. The array writes it once the device is added.
pub fn joining(
    model: &Superblock,
    device: NewDevice,
    dev_number: u32,
    sync_size: Sectors,
) -> Result<Superblock, CreateError> {
    let too_small = CreateError::TooSmall { disk: dev_number as usize, size: device.size };
    let room = DataRoom::at(model.minor, device.size, model.level, model.chunk, model.data.start).ok_or(too_small)?;
    if room.size < model.size {
        return Err(LayoutError::TooSmall { device: device.size, size: model.size }.into());
    }
    let wish = model.bitmap_at().map(|_| BitmapWish { sync_size, chunk: None });
    let layout = MemberLayout::place(
        model.minor,
        device.size,
        room.data_offset,
        model.size,
        wish,
        model.bad_block_log.is_some(),
    )?;
    let mut roles = model.roles.clone();
    roles.resize(roles.len().max(dev_number as usize + 1), MemberRole::Spare);
    let mut superblock = Superblock::new(NewMember {
        member: layout,
        set_uuid: model.set_uuid,
        set_name: model.set_name,
        created: model.created,
        level: model.level,
        layout: model.layout,
        size: model.size,
        chunk: model.chunk,
        raid_disks: model.raid_disks,
        dev_number,
        device_uuid: device.uuid,
        roles,
        resync: model.resync,
    });
    superblock.raid0_layout = model.raid0_layout;
    superblock.policy = model.policy;
    Ok(superblock)
}
