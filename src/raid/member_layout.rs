//! Where the areas of a new member lie: superblock, bitmap, bad-block log, data.
//!
//! mdadm leaves room between metadata and data, about a thousandth of the device and at most
//! 128 MiB, so that a later reshape can move the data aside instead of copying it twice. Where data
//! begins is chosen once, by the first device, for all members of an array; the used size is that
//! of the least. So a layout is planned in two steps: [`DataRoom`] for each device, then, with the
//! array's size known, [`MemberLayout::place`].
//!
//! The formulas are those of mdadm 4.2, checked against members it made from 8 MiB to 15 TiB
//! (`tests/golden/layouts.tsv`).

use thiserror::Error;

use super::bitmap_super::{BITMAP_CHUNK_MIN, bitmap_area};
use super::superblock::{BadBlockLog, MinorVersion, super_offset};
use crate::block::{Extent, Lba, Sectors};

const MIB: u64 = 2048;
const GIB: u64 = 1024 * MIB;
const BAD_BLOCK_LOG: Sectors = Sectors(8);

/// The data area a device offers to an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataRoom {
    /// Where data begins.
    pub data_offset: Lba,
    /// Most sectors of data the array can use here: whole chunks (whole 64 KiB on RAID1).
    pub size: Sectors,
}

impl DataRoom {
    /// What `device` offers. `chunk` is zero for RAID1. `None` if nothing is left for data.
    pub fn default_for(minor: MinorVersion, device: Sectors, level: i32, chunk: Sectors) -> Option<DataRoom> {
        let data_offset = match minor {
            MinorVersion::V1_0 => Lba(0),
            MinorVersion::V1_1 | MinorVersion::V1_2 => default_data_offset(device, chunk),
        };
        DataRoom::at(minor, device, level, chunk, data_offset)
    }

    /// What `device` offers behind a data offset that another member chose.
    pub fn at(minor: MinorVersion, device: Sectors, level: i32, chunk: Sectors, data_offset: Lba) -> Option<DataRoom> {
        let behind = match minor {
            // Superblock and up to 12 KiB around it, bitmap.
            MinorVersion::V1_0 => device.0 % 8 + 24 + bitmap_space(device).0,
            MinorVersion::V1_1 | MinorVersion::V1_2 => 0,
        };
        let room = Sectors(device.0.checked_sub(data_offset.0 + behind)?);
        let unit = if level == 1 { Sectors(128) } else { chunk.max(Sectors(1)) };
        let size = room.round_down(unit);
        (size >= Sectors(10)).then_some(DataRoom { data_offset, size })
    }
}

/// Where mdadm lets data begin on 1.1 and 1.2: metadata, then headroom that is halved until it is no
/// more than a thousandth of the device or two chunks, rounded up to whole MiB.
fn default_data_offset(device: Sectors, chunk: Sectors) -> Lba {
    let mut headroom = 128 * MIB;
    while headroom * 1024 > device.0 && (chunk == Sectors::ZERO || headroom / 2 >= 2 * chunk.0) {
        headroom /= 2;
    }
    Lba((24 + bitmap_space(device).0 + headroom).next_multiple_of(MIB))
}

/// Room mdadm sets aside for a bitmap on a device, or a used size, of this many sectors.
fn bitmap_space(length: Sectors) -> Sectors {
    Sectors(match length.0 {
        ..128 => 0,
        n if n - 128 >= 200 * GIB => 256,
        n if n - 8 > 8 * GIB => 128,
        _ => 8,
    })
}

/// Whether mdadm makes a bitmap unasked: redundant levels of more than 100 GiB a member.
pub fn bitmap_by_default(level: i32, size: Sectors) -> bool {
    level >= 1 && size > Sectors(100 * GIB)
}

/// The bitmap a new member shall have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BitmapWish {
    /// What it covers: the used size of a member, on RAID10 the size of the array.
    pub sync_size: Sectors,
    /// What one bit covers; `None` for 64 MiB, or more where that would not fit.
    pub chunk: Option<Sectors>,
}

/// Where a bitmap lies, and what a bit of it covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BitmapPlace {
    /// Sectors from the superblock.
    pub offset: i32,
    /// Sectors it takes.
    pub length: Sectors,
    /// What one bit covers.
    pub chunk: Sectors,
    /// What all bits cover.
    pub sync_size: Sectors,
}

/// Where the areas of a member lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberLayout {
    /// Where the superblock lies.
    pub minor: MinorVersion,
    /// The superblock.
    pub super_offset: Lba,
    /// All sectors that can hold data, used or not.
    pub data: Extent,
    /// The bitmap, if there is one.
    pub bitmap: Option<BitmapPlace>,
    /// The bad-block log, if there is one; empty.
    pub bad_block_log: Option<BadBlockLog>,
}

/// Why a member cannot be laid out as wished.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LayoutError {
    /// Superblock and data do not fit.
    #[error("device of {} sectors is too small: metadata and {} sectors of data do not fit", device.0, size.0)]
    TooSmall {
        /// Size of the device.
        device: Sectors,
        /// Used size wished for.
        size: Sectors,
    },
    /// There is no room for a bitmap, however coarse.
    #[error("no room for a bitmap on members of {} sectors", size.0)]
    NoBitmapSpace {
        /// Used size of the members.
        size: Sectors,
    },
    /// Bits this fine are too many for the room there is.
    #[error("a bitmap chunk of {} bytes is not a power of two of at least {}", chunk.bytes(), least.bytes())]
    BitmapChunk {
        /// Chunk wished for.
        chunk: Sectors,
        /// The least that fits.
        least: Sectors,
    },
}

impl MemberLayout {
    /// Places the areas on `device`, whose data begins at `data_offset` and of which the array uses
    /// `size` sectors (zero on RAID0).
    pub fn place(
        minor: MinorVersion,
        device: Sectors,
        data_offset: Lba,
        size: Sectors,
        bitmap: Option<BitmapWish>,
        bad_block_log: bool,
    ) -> Result<MemberLayout, LayoutError> {
        let too_small = LayoutError::TooSmall { device, size };
        let super_offset = super_offset(minor, device).ok_or(too_small)?;
        let bitmap = bitmap.map(|wish| place_bitmap(minor, size, wish)).transpose()?;
        let space = bitmap.map_or(bitmap_space(size), |bitmap| bitmap.length);
        let (log_offset, data_end) = match minor {
            MinorVersion::V1_0 => {
                let behind = (space + BAD_BLOCK_LOG).0.min(super_offset.0.saturating_sub(size.0));
                (-(BAD_BLOCK_LOG.0 as i32), super_offset.0 - behind)
            }
            MinorVersion::V1_1 | MinorVersion::V1_2 => (8 + space.0 as i32, device.0),
        };
        let metadata_end = match minor {
            MinorVersion::V1_0 => 0,
            MinorVersion::V1_1 | MinorVersion::V1_2 => super_offset.0 + 8 + (space + BAD_BLOCK_LOG).0,
        };
        let length = data_end.checked_sub(data_offset.0).map(Sectors).ok_or(too_small)?;
        if length < size.max(Sectors(10)) || metadata_end > data_offset.0 {
            return Err(too_small);
        }
        let bad_block_log = bad_block_log.then_some(BadBlockLog {
            offset: log_offset,
            length: BAD_BLOCK_LOG,
            shift: 0,
            present: false,
        });
        Ok(MemberLayout { minor, super_offset, data: Extent::new(data_offset, length), bitmap, bad_block_log })
    }
}

fn place_bitmap(minor: MinorVersion, size: Sectors, wish: BitmapWish) -> Result<BitmapPlace, LayoutError> {
    let space = bitmap_space(size);
    if space == Sectors::ZERO {
        return Err(LayoutError::NoBitmapSpace { size });
    }
    let least = bitmap_chunk_min(space, wish.sync_size);
    let chunk = wish.chunk.unwrap_or_else(|| least.max(Sectors(64 * MIB)));
    if chunk < least || !chunk.0.is_power_of_two() {
        return Err(LayoutError::BitmapChunk { chunk, least });
    }
    let length = bitmap_area(wish.sync_size, chunk);
    let offset = match minor {
        MinorVersion::V1_0 => {
            // mdadm counts one bit more than it needs here.
            let counted = bitmap_area(wish.sync_size.round_down(chunk) + chunk, chunk);
            -((counted + BAD_BLOCK_LOG).0 as i32)
        }
        MinorVersion::V1_1 | MinorVersion::V1_2 => 8,
    };
    Ok(BitmapPlace { offset, length, chunk, sync_size: wish.sync_size })
}

/// The finest chunk of a bitmap that covers `sync_size` and fits `space`.
fn bitmap_chunk_min(space: Sectors, sync_size: Sectors) -> Sectors {
    let bits_max = (space.bytes() - super::bitmap_super::BITMAP_HEADER_BYTES as u64) * 8;
    let mut chunk = BITMAP_CHUNK_MIN;
    let mut bits = sync_size.0 / chunk.0 + 1;
    while bits > bits_max {
        chunk = Sectors(chunk.0 * 2);
        bits = bits.div_ceil(2);
    }
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row is a member that mdadm 4.2 made: minor, level, chunk, device, whether a bitmap was
    /// asked for (`-` for mdadm's own choice); then what it wrote.
    #[test]
    fn members_are_laid_out_as_mdadm_does() {
        let table = include_str!("../../tests/golden/layouts.tsv");
        let mut rows = 0;
        for row in table.lines().skip(1) {
            let cells: Vec<i64> =
                row.split('\t').map(|cell| if cell == "-" { -1 } else { cell.parse().unwrap() }).collect();
            let [
                minor,
                level,
                chunk,
                device,
                asked,
                data_offset,
                data_size,
                size,
                log,
                bitmap,
                bitmap_chunk,
                sync_size,
            ] = cells[..]
            else {
                panic!("12 cells in {row}")
            };
            let minor = MinorVersion::ALL[minor as usize];
            let (level, device, chunk) = (level as i32, Sectors(device as u64), Sectors(chunk as u64));
            let room = DataRoom::default_for(minor, device, level, chunk).unwrap();
            let used = if level == 0 { Sectors::ZERO } else { room.size };
            let wanted = if asked == -1 { bitmap_by_default(level, used) } else { asked == 1 };
            let sync_size = if wanted { Sectors(sync_size as u64) } else { used };
            let wish = wanted.then_some(BitmapWish { sync_size, chunk: None });
            let layout = MemberLayout::place(minor, device, room.data_offset, used, wish, true).unwrap();

            assert_eq!(layout.data, Extent::new(Lba(data_offset as u64), Sectors(data_size as u64)), "{row}");
            assert_eq!(used, Sectors(size as u64), "{row}");
            assert_eq!(layout.bad_block_log.unwrap().offset, log as i32, "{row}");
            let placed = layout.bitmap.map_or((0, 0), |place| (i64::from(place.offset), place.chunk.0 as i64));
            assert_eq!(placed, (bitmap, bitmap_chunk), "{row}");
            rows += 1;
        }
        assert!(rows > 100, "{rows} rows");
    }

    #[test]
    fn a_device_too_small_for_its_metadata_is_refused() {
        for sectors in 0..2060 {
            assert_eq!(DataRoom::default_for(MinorVersion::V1_2, Sectors(sectors), 5, Sectors(128)), None);
        }
        let placed = MemberLayout::place(MinorVersion::V1_2, Sectors(4096), Lba(16), Sectors(1024), None, true);
        assert_eq!(placed, Err(LayoutError::TooSmall { device: Sectors(4096), size: Sectors(1024) }));
    }

    #[test]
    fn a_bitmap_gets_coarser_until_it_fits() {
        let sync_size = Sectors(1 << 40);
        let place = place_bitmap(MinorVersion::V1_2, Sectors(1 << 36), BitmapWish { sync_size, chunk: None }).unwrap();
        assert!(place.length <= Sectors(256) && place.chunk > Sectors(64 * MIB), "{place:?}");
        let finest = BitmapWish { sync_size, chunk: Some(Sectors(8)) };
        assert!(matches!(
            place_bitmap(MinorVersion::V1_2, Sectors(1 << 36), finest),
            Err(LayoutError::BitmapChunk { .. })
        ));
    }
}
