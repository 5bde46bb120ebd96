//! `raidlab examine`: one member's metadata, in the words and order of `mdadm --examine`.
//!
//! Every line mdadm 4.2 prints for a 1.x superblock is printed here as mdadm prints it, its
//! peculiarities included, so that scripts and eyes used to it can read ours. What mdadm does not
//! say (the bitmap's state, the bad sectors, whether we can run the array) is in the JSON.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde::Serialize;
use thiserror::Error;

use crate::block::{Extent, Lba, Sectors};
use crate::config::Backing;
use crate::raid::bad_blocks::{BadBlocks, BadBlocksError};
use crate::raid::bitmap_super::{BITMAP_PAGE, BitmapError, BitmapHeader, BitmapImage};
use crate::raid::probe::{ProbeError, probe};
use crate::raid::superblock::{
    ConsistencyPolicy, DeviceFlags, Features, MemberRole, Reshape, ResyncOffset, SUPERBLOCK_MAGIC, Superblock,
    Timestamp,
};
use crate::stack::BareDisk;

/// Schema of the JSON.
pub const SCHEMA: &str = "raidlab-examine/v1";

/// What the metadata of one member says.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The file or device, as it was named.
    pub path: PathBuf,
    /// Its size.
    pub device: Sectors,
    /// Its superblock.
    pub superblock: Superblock,
    /// Its bitmap, if the superblock names one.
    pub bitmap: Option<Result<BitmapFacts, BitmapError>>,
    /// Its bad sectors, if the superblock says that there are any.
    pub bad_blocks: Option<Result<BadBlocks, BadBlocksError>>,
}

/// What a bitmap says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BitmapFacts {
    /// Its header.
    pub header: BitmapHeader,
    /// Bits that are set.
    pub bits_set: u64,
}

/// Why a member cannot be examined.
#[derive(Debug, Error)]
#[error("{}: {why}", path.display())]
pub struct ExamineError {
    /// The file or device, as it was named.
    pub path: PathBuf,
    /// The reason.
    pub why: ProbeError<io::Error>,
}

impl Examination {
    /// Reads the metadata of the file, device or export that `path` names.
    pub fn read(path: &Path) -> Result<Examination, ExamineError> {
        let failed = |why| ExamineError { path: path.to_owned(), why };
        let unreadable = |error| failed(ProbeError::Read(error));
        let backing = Backing::named(path).map_err(|error| unreadable(io::Error::other(error)))?;
        let mut disk = BareDisk::look(&backing).map_err(unreadable)?;
        let device = disk.limits().capacity;
        Examination::of(path, device, |at, length| disk.read(at, length)).map_err(failed)
    }

    /// Reads the metadata of a device of `device` sectors through `read`, which gives all bytes of the sectors it is asked for.
    pub fn of<E>(
        path: &Path,
        device: Sectors,
        mut read: impl FnMut(Lba, Sectors) -> Result<Vec<u8>, E>,
    ) -> Result<Examination, ProbeError<E>> {
        let superblock = probe(device, &mut read)?;
        let bitmap = match superblock.bitmap_at() {
            Some(at) => Some(read_bitmap(&superblock, at, &mut read).map_err(ProbeError::Read)?),
            None => None,
        };
        let bad_blocks = match superblock.bad_block_log.zip(superblock.bad_block_log_extent()) {
            Some((log, at)) if log.present => {
                let bytes = read(at.start, at.length).map_err(ProbeError::Read)?;
                Some(BadBlocks::decode(&bytes, log.shift, device))
            }
            _ => None,
        };
        Ok(Examination { path: path.to_owned(), device, superblock, bitmap, bad_blocks })
    }

    /// What `mdadm --examine --homehost=HOMEHOST` prints, times in `zone`. `homehost` marks names of
    /// this host's arrays.
    pub fn text(&self, homehost: Option<&str>, zone: &TimeZone) -> String {
        let mut out = format!("{}:\n", self.path.display());
        self.write_text(&mut out, homehost, zone).expect("a string takes all that is written");
        out
    }

    fn write_text(&self, out: &mut String, homehost: Option<&str>, zone: &TimeZone) -> std::fmt::Result {
        let sb = &self.superblock;
        writeln!(out, "          Magic : {SUPERBLOCK_MAGIC:08x}")?;
        writeln!(out, "        Version : 1.{}", sb.minor.number())?;
        writeln!(out, "    Feature Map : {}", sb.features())?;
        writeln!(out, "     Array UUID : {}", sb.set_uuid)?;
        let name = super::output::plain(&sb.set_name.to_string());
        let local = homehost
            .filter(|host| !host.is_empty() && name.strip_prefix(*host).is_some_and(|rest| rest.starts_with(':')));
        let local = local.map_or(String::new(), |host| format!("  (local to host {host})"));
        writeln!(out, "           Name : {name}{local}")?;
        writeln!(out, "  Creation Time : {}", calendar(sb.created, zone))?;
        writeln!(out, "     Raid Level : {}", level_name(sb.level))?;
        writeln!(out, "   Raid Devices : {}\n", sb.raid_disks)?;
        self.write_sizes(out)?;
        self.write_state(out)?;
        if let Some(reshape) = &sb.reshape {
            write_reshape(out, sb, reshape)?;
        }
        let flags = flag_names(sb.flags);
        if sb.flags != DeviceFlags::default() {
            writeln!(out, "          Flags : {}", flags.join(" "))?;
        }
        writeln!(out, "    Update Time : {}", calendar(sb.updated, zone))?;
        if let Some(log) = sb.bad_block_log {
            let present = if log.present { " - bad blocks present." } else { "" };
            let entries = log.length.bytes() / 8;
            writeln!(out, "  Bad Block Log : {entries} entries available at offset {} sectors{present}", log.offset)?;
        }
        writeln!(out, "       Checksum : {:x} - correct", sb.checksum())?;
        writeln!(out, "         Events : {}\n", sb.events)?;
        if let Some(layout) = layout_name(sb.level, sb.layout, sb.raid0_layout) {
            writeln!(out, "         Layout : {layout}")?;
        }
        match sb.level {
            0 | 4 | 5 | 6 | 10 => writeln!(out, "     Chunk Size : {}K", sb.chunk.0 / 2)?,
            -1 => writeln!(out, "       Rounding : {}K", sb.chunk.0 / 2)?,
            _ => {}
        }
        writeln!(out, "\n   Device Role : {}", role_name(sb))?;
        write_array_state(out, sb)
    }

    fn write_sizes(&self, out: &mut String) -> std::fmt::Result {
        let sb = &self.superblock;
        let size = |sectors: Sectors| format!("{} sectors{}", sectors.0, human_size(u128::from(sectors.0) * 512));
        writeln!(out, " Avail Dev Size : {}", size(sb.data.length))?;
        if let Some(bytes) = array_bytes(sb) {
            writeln!(out, "     Array Size : {} KiB{}", bytes >> 10, human_size(bytes))?;
        }
        if sb.level != 0 && sb.size != sb.data.length {
            writeln!(out, "  Used Dev Size : {}", size(sb.size))?;
        }
        if sb.data.start != Lba(0) {
            writeln!(out, "    Data Offset : {} sectors", sb.data.start.0)?;
        }
        if let Some(new_offset) = sb.new_offset.filter(|offset| *offset != 0) {
            let moved = sb.data.start.0.wrapping_add_signed(new_offset.into());
            writeln!(out, "     New Offset : {moved} sectors")?;
        }
        writeln!(out, "   Super Offset : {} sectors", sb.super_offset.0)?;
        if let Some(recovery) = sb.recovery {
            writeln!(out, "Recovery Offset : {} sectors", recovery.offset.0)?;
        }
        let (before, after) = self.unused();
        let full = before == Sectors::ZERO && after == Sectors::ZERO && sb.role() != MemberRole::Journal;
        // mdadm takes one sector left for its own mark of a full member.
        if !full && after != Sectors(1) && sb.new_offset.is_none() {
            writeln!(out, "   Unused Space : before={} sectors, after={} sectors", before.0, after.0)?;
        }
        Ok(())
    }

    fn write_state(&self, out: &mut String) -> std::fmt::Result {
        let sb = &self.superblock;
        writeln!(out, "          State : {}", state_name(sb))?;
        writeln!(out, "    Device UUID : {}\n", sb.device_uuid)?;
        match sb.policy {
            ConsistencyPolicy::Bitmap { offset, .. } => {
                writeln!(out, "Internal Bitmap : {offset} sectors from superblock")
            }
            ConsistencyPolicy::Ppl { offset, length, .. } => {
                // mdadm takes the offset for unsigned.
                writeln!(out, "            PPL : {length} sectors at offset {} sectors from superblock", offset as u16)
            }
            ConsistencyPolicy::Resync | ConsistencyPolicy::Journal => Ok(()),
        }
    }

    /// Sectors free for a move of the data, before and after it, by mdadm's count: it leaves 36 KiB for
    /// the superblock on 1.1 and 1.2, and it counts the bitmap from the start of the member there.
    fn unused(&self) -> (Sectors, Sectors) {
        let sb = &self.superblock;
        let used_end = sb.data.start + if sb.level > 0 { sb.size } else { sb.data.length };
        let log = sb.bad_block_log_extent();
        let bitmap = self.bitmap.as_ref().and_then(|bitmap| bitmap.as_ref().ok());
        let beside = match sb.policy {
            ConsistencyPolicy::Bitmap { offset, .. } => {
                i64::from(offset) + bitmap.map_or(0, |bitmap| bitmap.header.area().0 as i64)
            }
            ConsistencyPolicy::Ppl { offset, length, .. } => i64::from(offset as u16) + i64::from(length),
            ConsistencyPolicy::Resync | ConsistencyPolicy::Journal => 0,
        };
        let less = |from: u64, what: u64| Sectors(from.saturating_sub(what));
        let (before, after) = if sb.data.start < sb.super_offset {
            let side = sb.bitmap_at().unwrap_or(sb.super_offset);
            let end = [Some(sb.super_offset), log.map(|log| log.start), Some(side)].into_iter().flatten().min();
            let end = end.expect("the superblock is one of them");
            (Sectors(sb.data.start.0), less(end.0, used_end.0))
        } else {
            let log_end = log.map_or(0, |log| log.end().0);
            let earliest = (sb.super_offset.0 + 72).max(u64::try_from(beside).unwrap_or(0)).max(log_end);
            (less(sb.data.start.0, earliest), less(self.device.0, used_end.0))
        };
        match sb.role() {
            MemberRole::Journal => (before, Sectors((self.device.0 - sb.data.start.0) % 8)),
            _ => (before, after),
        }
    }

    /// The same as data, for `--json`.
    pub fn report(&self) -> Report {
        let sb = &self.superblock;
        let area = |extent: Extent| (extent.start.0, extent.length.0);
        Report {
            schema: SCHEMA,
            path: self.path.display().to_string(),
            device_sectors: self.device.0,
            version: format!("1.{}", sb.minor.number()),
            feature_map: sb.features().0,
            array_uuid: sb.set_uuid.to_string(),
            name: sb.set_name.to_string(),
            created_seconds: sb.created.seconds(),
            updated_seconds: sb.updated.seconds(),
            level: level_name(sb.level),
            layout: layout_name(sb.level, sb.layout, sb.raid0_layout).map(|name| name.trim().to_owned()),
            raid_devices: sb.raid_disks,
            chunk_bytes: sb.chunk.bytes(),
            array_bytes: array_bytes(sb).and_then(|bytes| u64::try_from(bytes).ok()),
            used_sectors: sb.used().0,
            super_offset: sb.super_offset.0,
            data_offset: sb.data.start.0,
            data_sectors: sb.data.length.0,
            recovery_offset: sb.recovery.map(|recovery| recovery.offset.0),
            resync_offset: match sb.resync {
                ResyncOffset::InSync => None,
                ResyncOffset::From(from) => Some(from.0),
            },
            state: state_name(sb),
            device_uuid: sb.device_uuid.to_string(),
            device_number: sb.dev_number,
            role: role_name(sb),
            flags: flag_names(sb.flags),
            array_state: array_state(sb),
            events: sb.events,
            checksum: sb.checksum(),
            corrected_reads: sb.corrected_reads,
            bitmap: self.bitmap.as_ref().zip(sb.bitmap_at()).map(|(bitmap, at)| match bitmap {
                Ok(BitmapFacts { header, bits_set }) => BitmapReport::Readable {
                    start_sector: at.0,
                    chunk_bytes: header.chunk.bytes(),
                    sync_sectors: header.sync_size.0,
                    events: header.events,
                    events_cleared: header.events_cleared,
                    bits: header.bits(),
                    bits_set: *bits_set,
                },
                Err(error) => BitmapReport::Unreadable { start_sector: at.0, error: error.to_string() },
            }),
            bad_block_log: sb.bad_block_log_extent().map(|extent| {
                let (start_sector, sectors) = area(extent);
                let bad: Vec<(u64, u64)> = match &self.bad_blocks {
                    Some(Ok(bad)) => bad.iter().map(area).collect(),
                    _ => Vec::new(),
                };
                let error = self.bad_blocks.as_ref().and_then(|bad| bad.as_ref().err()).map(ToString::to_string);
                BadBlockReport { start_sector, entries_max: sectors * 64, bad_sectors: bad, error }
            }),
            refused: sb.unsupported().map(|refusal| refusal.to_string()),
        }
    }
}

/// An [`Examination`] as data: `raidlab examine --json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The file or device, as it was named.
    pub path: String,
    /// Its size, in sectors.
    pub device_sectors: u64,
    /// Metadata version: 1.0, 1.1 or 1.2.
    pub version: String,
    /// Feature bits.
    pub feature_map: u32,
    /// The array's identity.
    pub array_uuid: String,
    /// The array's name.
    pub name: String,
    /// When the array was created, in seconds since 1970.
    pub created_seconds: u64,
    /// When the superblock was written, in seconds since 1970.
    pub updated_seconds: u64,
    /// RAID level, by its name in mdadm.
    pub level: &'static str,
    /// Layout, by its name in mdadm, where the level has one.
    pub layout: Option<String>,
    /// Positions in the array.
    pub raid_devices: u32,
    /// Chunk, in bytes; zero for RAID1.
    pub chunk_bytes: u64,
    /// Size of the array in bytes, where one member tells it.
    pub array_bytes: Option<u64>,
    /// Sectors used of this member.
    pub used_sectors: u64,
    /// Where the superblock lies, in sectors.
    pub super_offset: u64,
    /// Where data begins, in sectors.
    pub data_offset: u64,
    /// Sectors that can hold data.
    pub data_sectors: u64,
    /// Sectors recovered so far, if the member is incomplete.
    pub recovery_offset: Option<u64>,
    /// Sectors in sync so far, if the array is not clean.
    pub resync_offset: Option<u64>,
    /// `clean` or `active`.
    pub state: &'static str,
    /// The device's identity.
    pub device_uuid: String,
    /// The device's number, which is not its slot.
    pub device_number: u32,
    /// What the device is in the array, in mdadm's words.
    pub role: String,
    /// `write-mostly`, `failfast`.
    pub flags: Vec<&'static str>,
    /// A letter for each slot, as mdadm prints it.
    pub array_state: String,
    /// Generation number.
    pub events: u64,
    /// Checksum of the superblock, found correct.
    pub checksum: u32,
    /// Read errors that were corrected.
    pub corrected_reads: u32,
    /// The bitmap, if there is one.
    pub bitmap: Option<BitmapReport>,
    /// The bad-block log, if there is one.
    pub bad_block_log: Option<BadBlockReport>,
    /// Why raidlab leaves the array to md, if it does.
    pub refused: Option<String>,
}

/// The bitmap in a [`Report`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum BitmapReport {
    /// It can be read.
    Readable {
        /// Where it lies.
        start_sector: u64,
        /// What a bit covers.
        chunk_bytes: u64,
        /// What all bits cover.
        sync_sectors: u64,
        /// Events it was last written with.
        events: u64,
        /// Events when a bit was last cleared in a complete array.
        events_cleared: u64,
        /// How many bits it has.
        bits: u64,
        /// How many of them are set.
        bits_set: u64,
    },
    /// It cannot.
    Unreadable {
        /// Where it should lie.
        start_sector: u64,
        /// Why not.
        error: String,
    },
}

/// The bad-block log in a [`Report`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BadBlockReport {
    /// Where it lies.
    pub start_sector: u64,
    /// Entries it has room for.
    pub entries_max: u64,
    /// Bad sectors of the member: start and length.
    pub bad_sectors: Vec<(u64, u64)>,
    /// Why it cannot be read, if it cannot.
    pub error: Option<String>,
}

fn read_bitmap<E>(
    superblock: &Superblock,
    at: Lba,
    mut read: impl FnMut(Lba, Sectors) -> Result<Vec<u8>, E>,
) -> Result<Result<BitmapFacts, BitmapError>, E> {
    let space = superblock.bitmap_space();
    let first = read(at, BITMAP_PAGE.min(space))?;
    let header = BitmapHeader::decode(&first).and_then(|header| header.check_space(superblock).map(|()| header));
    let header = match header {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let image = BitmapImage::decode(&read(at, header.area().min(space))?);
    Ok(image.map(|image| BitmapFacts { header, bits_set: image.iter_set().count() as u64 }))
}

/// Size of the array as mdadm computes it from one member; `None` where that does not tell it.
fn array_bytes(sb: &Superblock) -> Option<u128> {
    let disks = u128::from(sb.raid_disks);
    let (members, copies) = match sb.level {
        1 => (1, 1),
        4 | 5 => (disks.checked_sub(1)?, 1),
        6 => (disks.checked_sub(2)?, 1),
        10 => (disks, u128::from(sb.layout & 255) * u128::from(sb.layout >> 8 & 255)),
        _ => return None,
    };
    (members > 0).then_some(())?;
    (u128::from(sb.size.0) * 512 * members).checked_div(copies)
}

fn write_reshape(out: &mut String, sb: &Superblock, reshape: &Reshape) -> std::fmt::Result {
    let position = reshape.position.0;
    writeln!(out, "  Reshape pos'n : {}{}", position / 2, human_size(u128::from(position) * 512))?;
    if reshape.delta_disks != 0 {
        let before = i64::from(sb.raid_disks) - i64::from(reshape.delta_disks);
        writeln!(out, "  Delta Devices : {} ({before}->{})", reshape.delta_disks, sb.raid_disks)?;
    }
    if reshape.new_level != sb.level {
        writeln!(out, "      New Level : {}", level_name(reshape.new_level))?;
    }
    if reshape.new_layout != sb.layout
        && let Some(layout) = layout_name(sb.level, reshape.new_layout, false)
    {
        writeln!(out, "     New Layout : {layout}")?;
    }
    if reshape.new_chunk != sb.chunk {
        writeln!(out, "  New Chunksize : {}K", reshape.new_chunk.0 / 2)?;
    }
    writeln!(out)
}

/// Members whose array lost positions to a reshape are still listed.
fn slots(sb: &Superblock) -> u32 {
    sb.raid_disks + sb.reshape.map_or(0, |reshape| reshape.delta_disks.min(0).unsigned_abs())
}

fn array_state(sb: &Superblock) -> String {
    let letter = |slot: u32| match (sb.devices_in(slot as u16).count(), sb.level) {
        (0, _) => '.',
        (1, _) => 'A',
        (2, level) if level != 0 => 'R',
        _ => '?',
    };
    (0..slots(sb)).map(letter).collect()
}

fn write_array_state(out: &mut String, sb: &Superblock) -> std::fmt::Result {
    let state = array_state(sb);
    writeln!(out, "   Array State : {state} ('A' == active, '.' == missing, 'R' == replacing)")?;
    if !state.contains('?') {
        return Ok(());
    }
    writeln!(out, "WARNING Array state is inconsistent - each number should appear only once")?;
    for (device, role) in sb.roles.iter().enumerate() {
        match role {
            MemberRole::Slot(slot) => write!(out, " {device}:{slot}")?,
            MemberRole::Journal => write!(out, " {device}:{}", 0xfffd)?,
            MemberRole::Faulty | MemberRole::Spare => write!(out, " {device}:-")?,
        }
    }
    writeln!(out)
}

fn state_name(sb: &Superblock) -> &'static str {
    match sb.resync {
        ResyncOffset::InSync => "clean",
        ResyncOffset::From(_) => "active",
    }
}

fn role_name(sb: &Superblock) -> String {
    match sb.role() {
        MemberRole::Spare | MemberRole::Faulty => "spare".to_owned(),
        MemberRole::Journal => "Journal".to_owned(),
        MemberRole::Slot(slot) if sb.features().contains(Features::REPLACEMENT) => format!("Replacement device {slot}"),
        MemberRole::Slot(slot) => format!("Active device {slot}"),
    }
}

fn flag_names(flags: DeviceFlags) -> Vec<&'static str> {
    let names = [(DeviceFlags::WRITE_MOSTLY, "write-mostly"), (DeviceFlags::FAIL_FAST, "failfast")];
    names.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| name).collect()
}

fn level_name(level: i32) -> &'static str {
    match level {
        -5 => "faulty",
        -4 => "multipath",
        -1 => "linear",
        0 => "raid0",
        1 => "raid1",
        4 => "raid4",
        5 => "raid5",
        6 => "raid6",
        10 => "raid10",
        _ => "-unknown-",
    }
}

/// The layout's name, for levels that have one.
fn layout_name(level: i32, layout: u32, raid0_layout: bool) -> Option<String> {
    let name = match (level, layout) {
        (0, _) if !raid0_layout => return None,
        (0, 0) => "dangerous",
        (0, 1) => "original",
        (0, 2) => "alternate",
        (10, _) => return Some(raid10_layout_name(layout)),
        (5 | 6, 0) => "left-asymmetric",
        (5 | 6, 1) => "right-asymmetric",
        (5 | 6, 2) => "left-symmetric",
        (5 | 6, 3) => "right-symmetric",
        (5 | 6, 4) => "parity-first",
        (5 | 6, 5) => "parity-last",
        (6, 8) => "ddf-zero-restart",
        (6, 9) => "ddf-N-restart",
        (6, 10) => "ddf-N-continue",
        (6, 16) => "left-asymmetric-6",
        (6, 17) => "right-asymmetric-6",
        (6, 18) => "left-symmetric-6",
        (6, 19) => "right-symmetric-6",
        (6, 20) => "parity-first-6",
        (0 | 5 | 6, _) => "-unknown-",
        _ => return None,
    };
    Some(name.to_owned())
}

fn raid10_layout_name(layout: u32) -> String {
    let (near, far) = (layout & 255, layout >> 8 & 255);
    let far_word = if layout & 0x1_0000 != 0 { "offset" } else { "far" };
    let mut copies = Vec::new();
    if near != 1 {
        copies.push(format!("near={near}"));
    }
    if far != 1 {
        copies.push(format!("{far_word}={far}"));
    }
    if copies.is_empty() { "NO REDUNDANCY".to_owned() } else { copies.join(", ") }
}

/// ` (15.00 MiB 15.73 MB)`: nothing below 5000 KiB, TiB from 2 TiB, GiB from 2 GiB, rounded to hundredths.
fn human_size(bytes: u128) -> String {
    let (shift, unit, letter) = match bytes {
        0..5_120_000 => return String::new(),
        b if b < 2 << 30 => (20, 1_000_000, 'M'),
        b if b < 2 << 40 => (30, 1_000_000_000, 'G'),
        _ => (40, 1_000_000_000_000, 'T'),
    };
    let hundredths = |unit: u128| {
        let rounded = (bytes * 200 / unit).div_ceil(2);
        format!("{}.{:02}", rounded / 100, rounded % 100)
    };
    format!(" ({} {letter}iB {} {letter}B)", hundredths(1 << shift), hundredths(unit))
}

/// As C's `ctime` writes it.
fn calendar(moment: Timestamp, zone: &TimeZone) -> String {
    let seconds = moment.seconds() as i64;
    match jiff::Timestamp::from_second(seconds) {
        Ok(moment) => moment.to_zoned(zone.clone()).strftime("%a %b %e %H:%M:%S %Y").to_string(),
        // Beyond the year 9999 only garbage has a date.
        Err(_) => format!("{seconds} seconds after 1970"),
    }
}

/// Arguments of `examine`.
#[derive(clap::Args, Debug)]
pub struct ExamineArgs {
    /// Images or block devices
    #[arg(value_name = "IMG", required = true)]
    images: Vec<PathBuf>,
    /// As JSON (raidlab-examine/v1)
    #[arg(long)]
    json: bool,
}

/// Runs `examine`. Members that can be read are shown also when others cannot.
pub fn run(args: &ExamineArgs, out: &mut impl std::io::Write) -> super::Outcome {
    let mut failures = Vec::new();
    let mut reports = Vec::new();
    for image in &args.images {
        match Examination::read(image) {
            Ok(examination) if args.json => reports.push(examination.report()),
            Ok(examination) => write!(out, "{}", examination.text(None, &TimeZone::system()))?,
            Err(error) => failures.push(error.to_string()),
        }
    }
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &reports).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    if failures.is_empty() { Ok(0) } else { Err(super::Failure::cannot(failures.join("\nraidlab: "))) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::raid::golden::{self, MEMBERS, Member};

    fn examined(name: &str) -> Examination {
        let member = Member::load(name);
        let path = PathBuf::from(format!("{name}.img"));
        Examination::of(&path, member.device, |at, length| Ok::<_, io::Error>(member.read(at, length))).unwrap()
    }

    #[test]
    fn the_text_is_mdadms_byte_for_byte() {
        for name in MEMBERS {
            let expected = String::from_utf8(golden::file(&format!("{name}.txt"))).unwrap();
            assert_eq!(examined(name).text(Some("lab"), &TimeZone::UTC), expected);
        }
    }

    #[test]
    fn json_says_what_the_text_leaves_out() {
        let report = examined("r5dirty-0").report();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["bitmap"]["bits_set"], 2);
        assert_eq!(json["resync_offset"], 0);
        assert_eq!(json["refused"], serde_json::Value::Null);
        let bad = examined("r1bb-1").report().bad_block_log.unwrap();
        assert_eq!(bad.bad_sectors, golden::BAD_BLOCKS);
        assert!(examined("r5resh-0").report().refused.unwrap().contains("reshape"));
    }

    #[test]
    fn a_file_is_read_and_what_is_no_member_is_named() {
        let member = Member::load("r1-0");
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(member.device.bytes()).unwrap();
        let error = Examination::read(file.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: no md superblock", file.path().display()));

        file.as_file().write_all_at(&member.read(Lba(0), Sectors(2048)), 0).unwrap();
        assert_eq!(Examination::read(file.path()).unwrap().superblock, member.probe().unwrap());
        assert!(Examination::read(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn sizes_change_their_unit_where_mdadm_does() {
        assert_eq!(human_size(5_119_999), "");
        assert_eq!(human_size(5_120_000), " (4.88 MiB 5.12 MB)");
        assert_eq!(human_size((2 << 30) - 1), " (2048.00 MiB 2147.48 MB)");
        assert_eq!(human_size(2 << 30), " (2.00 GiB 2.15 GB)");
        assert_eq!(human_size(2 << 40), " (2.00 TiB 2.20 TB)");
    }
}
