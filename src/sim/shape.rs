//! What an array is, small enough that everything happens to it often.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Choose, DiskModel, Rng};
use crate::block::{DeviceId, Limits, Sectors};
use crate::raid::create::{CreateError, NewArray, NewDevice, create};
use crate::raid::geometry::Geometry;
use crate::raid::level::{Layout, LayoutError, Level, LevelError};
use crate::raid::superblock::{DeviceUuid, SetName, SetUuid, Timestamp};

/// Where data begins on every member.
pub const METADATA: Sectors = Sectors(2048);

/// What an array is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "ShapeText", into = "ShapeText")]
pub struct Shape {
    /// Its level.
    pub level: Level,
    /// Its layout.
    pub layout: Layout,
    /// Its chunk.
    pub chunk: Sectors,
    /// Slots.
    pub disks: usize,
    /// Spares from the start.
    pub spares: usize,
    /// Data sectors of each member.
    pub member: Sectors,
    /// What a bit of its bitmap covers, if it has one.
    pub bitmap: Option<Sectors>,
    /// The logical block of its disks: 1 or 8 sectors.
    pub block: Sectors,
    /// Bytes of each data sector that are simulated.
    pub grain: u32,
}

/// Why there is no such array.
#[derive(Debug, Error)]
pub enum ShapeError {
    /// The level.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The metadata has no place for it, or the level wants other numbers.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A number that does not fit.
    #[error("{name} = {value}: {wanted}")]
    Number {
        /// Which one.
        name: &'static str,
        /// What was given.
        value: u64,
        /// What would do.
        wanted: &'static str,
    },
}

impl Shape {
    /// An array of a level with its usual layout: chunks of 4 KiB, 128 data sectors a member, no bitmap.
    pub fn plain(level: Level, disks: usize) -> Shape {
        Shape {
            level,
            layout: Layout::default_of(level),
            chunk: Sectors(8),
            disks,
            spares: 0,
            member: Sectors(128),
            bitmap: None,
            block: Sectors(1),
            grain: 64,
        }
    }

    /// Any level and layout, 2 to 6 members, with or without bitmap and spares.
    pub fn drawn(rng: &mut Rng) -> Shape {
        let level = Level::ALL[rng.below(Level::ALL.len() as u64) as usize];
        Shape::of(level, rng)
    }

    /// Any array of a level.
    pub fn of(level: Level, rng: &mut impl Choose) -> Shape {
        let (names, least): (&[&str], u64) = match level {
            Level::Raid5 => (&["ls", "la", "rs", "ra", "parity-first", "parity-last"], 3),
            Level::Raid6 => (&["ls", "la", "rs", "ddf-zero-restart", "ddf-N-continue", "left-symmetric-6"], 4),
            Level::Raid10 => (&["n2", "f2", "o2", "n3", "f3"], 3),
            Level::Raid4 => (&[""], 3),
            Level::Raid0 | Level::Raid1 => (&[""], 2),
        };
        let name = names[rng.below(names.len() as u64) as usize];
        let layout = if name.is_empty() {
            Layout::default_of(level)
        } else {
            Layout::parse(level, name).expect("these layouts exist")
        };
        let disks = (least + rng.below(if level == Level::Raid1 { 2 } else { 7 - least })) as usize;
        let redundant = level != Level::Raid0;
        let bitmap = (redundant && rng.chance(50)).then(|| Sectors(8 << rng.below(3)));
        let member =
            if bitmap.is_some() || level == Level::Raid1 { Sectors(128) } else { Sectors(8 * (4 + rng.below(7))) };
        let spares = if redundant && rng.chance(40) { 1 } else { 0 };
        Shape { layout, disks, spares, member, bitmap, ..Shape::plain(level, disks) }
    }

    /// Whether such an array can be made.
    pub fn check(&self) -> Result<(), ShapeError> {
        let number = |name, value: u64, fits: bool, wanted| match fits {
            true => Ok(()),
            false => Err(ShapeError::Number { name, value, wanted }),
        };
        let Shape { chunk, member, bitmap, block, grain, .. } = *self;
        number("disks", self.disks as u64, (1..=32).contains(&self.disks), "from 1 to 32")?;
        number("spares", self.spares as u64, self.spares <= 8, "at most 8")?;
        number("member", member.0, (1..=1 << 20).contains(&member.0), "from 1 to 1048576 sectors")?;
        let whole = chunk.0.is_power_of_two() && chunk <= Sectors(1 << 13);
        number("chunk", chunk.0, whole, "a power of two up to 8192 sectors")?;
        number("block", block.0, matches!(block.0, 1 | 8), "1 or 8 sectors")?;
        number("block", block.0, chunk >= block, "at most the chunk")?;
        number("grain", grain.into(), (5..=9).any(|bits| grain == 1 << bits), "32, 64, 128, 256 or 512 bytes")?;
        if let Some(bit) = bitmap {
            number(
                "bitmap",
                bit.0,
                (8..=1 << 20).contains(&bit.0) && bit.0.is_power_of_two(),
                "a power of two from 8 sectors",
            )?;
        }
        let (_, members) = create(&self.new_array(self.devices()))?;
        // md takes fewer; `create` does not.
        let least = match self.level {
            Level::Raid0 | Level::Raid1 | Level::Raid10 => 2,
            Level::Raid4 | Level::Raid5 => 3,
            Level::Raid6 => 4,
        };
        number(
            "disks",
            self.disks as u64,
            self.disks >= least,
            "at least 2 (raid0, 1, 10), 3 (raid4, 5) or 4 (raid6)",
        )?;
        let small = members.iter().all(|member| member.superblock.data.start.0 == METADATA.0);
        number("member", member.0, small, "fewer: metadata of larger members takes more room than is simulated")
    }

    /// Where its data lies; of one that [can be made](Shape::check).
    pub fn geometry(&self) -> Geometry {
        create(&self.new_array(self.devices())).expect("shapes are checked before").0
    }

    /// What its volume is and takes.
    pub fn volume(&self) -> Limits {
        let geometry = self.geometry();
        Limits {
            capacity: geometry.capacity().round_down(self.block),
            logical_block: self.block,
            preferred: geometry.preferred_io(),
            grain: self.grain,
            read_only: false,
        }
    }

    /// The simulated disk its members are.
    pub fn model(&self) -> DiskModel {
        let small = DiskModel::small(METADATA + self.member, METADATA);
        let limits = Limits { logical_block: self.block, grain: self.grain, ..small.limits };
        DiskModel { cached_writes_max: 48, limits, ..small }
    }

    /// What a new disk is to md.
    pub fn device(&self, device: DeviceId) -> NewDevice {
        NewDevice { size: METADATA + self.member, uuid: DeviceUuid([device.0 as u8 + 1; 16]) }
    }

    /// Members and spares of the beginning.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> + use<> {
        (0..(self.disks + self.spares) as u32).map(DeviceId)
    }

    /// What `create` is asked for.
    pub fn new_array(&self, devices: impl Iterator<Item = DeviceId>) -> NewArray {
        NewArray {
            level: self.level,
            layout: self.layout,
            chunk: self.chunk,
            raid_disks: self.disks,
            bitmap: self.bitmap.is_some(),
            name: SetName::new("sim").expect("it is short"),
            uuid: SetUuid([7; 16]),
            created: Timestamp::new(1, 0),
            in_sync: true,
            devices: devices.map(|device| self.device(device)).collect(),
        }
    }
}

/// A shape as scenario files have it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShapeText {
    level: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layout: Option<String>,
    disks: usize,
    #[serde(default, skip_serializing_if = "is_default")]
    spares: usize,
    #[serde(default = "chunk_usual")]
    chunk: u64,
    member: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bitmap: Option<u64>,
    #[serde(default = "block_usual", skip_serializing_if = "is_one")]
    block: u64,
    #[serde(default = "grain_usual", skip_serializing_if = "is_grain_usual")]
    grain: u32,
}

fn chunk_usual() -> u64 {
    8
}
fn block_usual() -> u64 {
    1
}
fn grain_usual() -> u32 {
    64
}
fn is_default(spares: &usize) -> bool {
    *spares == 0
}
fn is_one(block: &u64) -> bool {
    *block == 1
}
fn is_grain_usual(grain: &u32) -> bool {
    *grain == grain_usual()
}

impl From<Shape> for ShapeText {
    fn from(shape: Shape) -> ShapeText {
        let usual = shape.layout == Layout::default_of(shape.level);
        ShapeText {
            level: shape.level.to_string(),
            layout: (!usual).then(|| shape.layout.to_string()),
            disks: shape.disks,
            spares: shape.spares,
            chunk: shape.chunk.0,
            member: shape.member.0,
            bitmap: shape.bitmap.map(|bit| bit.0),
            block: shape.block.0,
            grain: shape.grain,
        }
    }
}

impl TryFrom<ShapeText> for Shape {
    type Error = ShapeError;

    fn try_from(text: ShapeText) -> Result<Shape, ShapeError> {
        let level: Level = text.level.parse()?;
        let shape = Shape {
            level,
            layout: text.layout.map_or(Ok(Layout::default_of(level)), |name| Layout::parse(level, &name))?,
            chunk: Sectors(text.chunk),
            disks: text.disks,
            spares: text.spares,
            member: Sectors(text.member),
            bitmap: text.bitmap.map(Sectors),
            block: Sectors(text.block),
            grain: text.grain,
        };
        shape.check().map(|()| shape)
    }
}
