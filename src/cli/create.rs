//! `create`: a new lab on new images, or on files and devices that exist.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::Args;
use uuid::Uuid;

use super::run::stop_flag;
use super::size::Size;
use super::{Failure, Manner, Outcome};
use crate::block::{SECTOR_BYTES, Sectors};
use crate::config::{self, Backend, Cache, Config, ConfigError, DiskConfig, SyncConfig, UNFINISHED_NAME, VERSION};
use crate::disk::{Image, ImageError, ImageOptions, Space};
use crate::raid::create::{NewAreas, NewArray, NewDevice, create};
use crate::raid::level::{Layout, Level};
use crate::raid::superblock::{DeviceUuid, SetName, SetUuid, Timestamp};
use crate::stack::{LabConfig, lock_directory, looks_blank, remove_files, wall_clock};

/// Arguments of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// The lab's directory; it is made if it is not there
    #[arg(value_name = "LAB")]
    lab: PathBuf,
    /// RAID level: 0, 1, 4, 5, 6 or 10
    #[arg(short, long)]
    level: Level,
    /// Members of the array
    #[arg(short = 'n', long = "disks", alias = "raid-devices", value_name = "N")]
    disks: Option<usize>,
    /// Hot spares besides
    #[arg(short = 'x', long, alias = "spare-devices", default_value_t = 0, value_name = "N")]
    spares: usize,
    /// Size of each disk
    #[arg(long, default_value = "1G")]
    size: Size,
    /// Chunk: a power of two from 4K to 4M
    #[arg(short, long, default_value = "512K")]
    chunk: Size,
    /// Layout, by mdadm's name (left-symmetric or ls, ddf-N-restart, n2, f3, o2, ...)
    #[arg(short = 'p', long)]
    layout: Option<String>,
    /// Write-intent bitmap
    #[arg(long, value_parser = ["internal", "none"], default_value = "none")]
    bitmap: String,
    /// How images are reached: mmap, file or uring
    #[arg(long, value_parser = ["mmap", "file", "uring"])]
    backend: Option<String>,
    /// What disks do with writes: through to the image, or volatile: kept in memory until a flush, and lost in a
    /// power cut
    #[arg(long, value_parser = ["through", "volatile"], default_value = "through")]
    cache: String,
    /// Files or block devices that exist, instead of new images
    #[arg(long, num_args = 1.., value_name = "PATH")]
    members: Vec<PathBuf>,
    /// The array's name
    #[arg(long)]
    name: Option<String>,
    /// Take the space of images from the file system only as they are written
    #[arg(long)]
    sparse: bool,
    /// Begin with a resync although the disks are known to be zero
    #[arg(long)]
    resync: bool,
    /// Use members although something is on them
    #[arg(long)]
    yes: bool,
}

/// More than this neither RAID level of ours takes.
const MEMBERS_MAX: usize = 64;
/// In bytes.
const CHUNKS: std::ops::RangeInclusive<u64> = 4 << 10..=4 << 20;

/// The backend a word names.
pub fn backend_named(word: &str) -> Backend {
    match word {
        "file" => Backend::File,
        "uring" => Backend::Uring,
        _ => Backend::Mmap,
    }
}

/// Runs `create`.
pub fn run(args: &CreateArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let (disks, layout) = shape(args)?;
    if args.lab.join(crate::config::FILE_NAME).exists() {
        return Err(Failure::usage(format!("{} is a lab already: choose another directory", args.lab.display())));
    }
    let made_directory = make_directory(&args.lab)?;
    let mut made: Vec<PathBuf> = Vec::new();
    let outcome = build(args, disks, layout, manner, &mut made);
    match outcome {
        Ok(summary) => {
            writeln!(out, "{summary}")?;
            manner.hint(&format!("next: raidlab status {0}  |  raidlab fail {0} disk-1", args.lab.display()));
            Ok(0)
        }
        Err(failure) => {
            // What says that they are unfinished goes last.
            made.reverse();
            remove_files(&made);
            if made_directory {
                // It is ours and empty again; if not, it stays.
                let _ = fs::remove_dir(&args.lab);
            }
            Err(failure)
        }
    }
}

fn shape(args: &CreateArgs) -> Result<(usize, Layout), Failure> {
    let given = args.members.len();
    let most = MEMBERS_MAX;
    if args.disks.is_some_and(|disks| disks > most) || args.spares > most {
        return Err(Failure::usage(format!("a lab has at most {most} members and {most} spares")));
    }
    let disks = match (args.disks, given) {
        (Some(disks), 0) => disks,
        (Some(disks), _) if disks + args.spares == given => disks,
        (Some(disks), _) => {
            let spares = args.spares;
            return Err(Failure::usage(format!(
                "--members names {given} disks, --disks {disks} and --spares {spares} ask for {}",
                disks + spares
            )));
        }
        (None, 0) => return Err(Failure::usage("say how many disks: --disks N, or name them: --members PATH...")),
        (None, _) if given > args.spares => given - args.spares,
        (None, _) => return Err(Failure::usage("--members names fewer disks than --spares asks for")),
    };
    let fewest = match args.level {
        Level::Raid0 | Level::Raid1 | Level::Raid10 => 2,
        Level::Raid4 | Level::Raid5 => 3,
        Level::Raid6 => 4,
    };
    if disks < fewest {
        return Err(Failure::usage(format!(
            "{} takes {fewest} disks or more, not {disks}: give --disks {fewest}",
            args.level
        )));
    }
    if disks > most {
        return Err(Failure::usage(format!("a lab has at most {most} members, not {disks}")));
    }
    let chunk = args.chunk.0;
    if !chunk.is_power_of_two() || !CHUNKS.contains(&chunk) {
        return Err(Failure::usage(format!("a chunk of {} is not a power of two from 4K to 4M", args.chunk)));
    }
    let size = args.size.0;
    if given == 0 && !size.is_multiple_of(SECTOR_BYTES) {
        let below = Size(size - size % SECTOR_BYTES);
        return Err(Failure::usage(format!("a size of {size} is not a multiple of 512 bytes: give --size {below}")));
    }
    if args.name.as_ref().is_some_and(|name| name.is_empty() || name.chars().any(char::is_control)) {
        return Err(Failure::usage("a name is one character or more, and none that steers a terminal"));
    }
    let layout = match &args.layout {
        Some(name) => Layout::parse(args.level, name).map_err(|error| Failure::usage(error.to_string()))?,
        None => Layout::default_of(args.level),
    };
    Ok((disks, layout))
}

/// Makes the lab's directory. `false`: it was there.
pub fn make_directory(lab: &Path) -> Result<bool, Failure> {
    match fs::create_dir(lab) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && lab.is_dir() => Ok(false),
        Err(error) => {
            let parent = lab.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists());
            let first = parent.map_or_else(String::new, |parent| format!("; make {} first", parent.display()));
            Err(Failure::cannot(format!("cannot make {}: {error}{first}", lab.display())))
        }
    }
}

fn build(
    args: &CreateArgs,
    disks: usize,
    layout: Layout,
    manner: Manner,
    made: &mut Vec<PathBuf>,
) -> Result<String, Failure> {
    let stop = stop_flag();
    let _lock = lock_directory(&args.lab)?;
    clear_unfinished(&args.lab, manner)?;
    let all = disks + args.spares;
    let paths: Vec<PathBuf> = if args.members.is_empty() {
        (0..all).map(|number| PathBuf::from(format!("disk-{number}.img"))).collect()
    } else {
        for path in &args.members {
            check_member(path, args.yes)?;
        }
        let absolute = |path: &PathBuf| {
            path.canonicalize().map_err(|error| Failure::cannot(format!("cannot use {}: {error}", path.display())))
        };
        args.members.iter().map(absolute).collect::<Result<_, _>>()?
    };
    let size = Sectors::floor_bytes(args.size.0);
    let mut sizes = vec![size; all];
    if !args.members.is_empty() {
        for (slot, path) in sizes.iter_mut().zip(&paths) {
            let image =
                Image::open(path, ImageOptions::default()).map_err(|error| Failure::cannot(error.to_string()))?;
            *slot = image.limits().capacity;
        }
    }
    // Everything is judged before anything is made.
    let blank = args.members.is_empty() && !args.resync;
    let new = plan(args, disks, layout, &sizes, blank)?;
    let (geometry, members) = create(&new).map_err(|error| Failure::usage(error.to_string()))?;
    for path in paths.iter().filter(|_| args.members.is_empty()).map(|path| args.lab.join(path)) {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!(
                "{} exists already: choose another directory, or use it with --members",
                path.display()
            )));
        }
    }
    let on_devices = paths.iter().any(|path| !path.is_relative() && !path.is_file());
    let backend = match args.backend.as_deref() {
        Some(word) => backend_named(word),
        None if on_devices => Backend::Uring,
        None => Backend::Mmap,
    };
    let mut config = LabConfig { backend, ..lab_config(&paths) };
    let cache = Cache::named(&args.cache).expect("only these words are taken");
    config.disks.iter_mut().for_each(|disk| disk.cache = cache);
    let cannot = |error: ConfigError| Failure::cannot(error.to_string());
    made.push(args.lab.join(UNFINISHED_NAME));
    config.write_unfinished(&args.lab).map_err(cannot)?;
    let check_stopped = || match stop.load(Ordering::Relaxed) {
        true => Err(Failure::cannot("interrupted: nothing was made")),
        false => Ok(()),
    };
    if args.members.is_empty() {
        let space = if args.sparse { Space::Sparse } else { Space::Preallocated };
        for path in paths.iter().map(|path| args.lab.join(path)) {
            check_stopped()?;
            Image::create(&path, size, space).map_err(|error| no_room(&error))?;
            made.push(path);
        }
    }
    check_stopped()?;
    for (path, areas) in paths.iter().zip(&members) {
        write_areas(&args.lab.join(path), areas)?;
    }
    config::finish(&args.lab).map_err(cannot)?;
    let spares = match args.spares {
        0 => String::new(),
        1 => String::from(" + 1 spare"),
        many => format!(" + {many} spares"),
    };
    let chunk = match args.level {
        Level::Raid1 => String::new(),
        _ => format!("  chunk {}", args.chunk),
    };
    let layout = match layout {
        Layout::None => String::new(),
        layout => format!("  {layout}"),
    };
    Ok(format!(
        "{}: {}  {disks} disks{spares} of {}{chunk}{layout}  usable {}  tolerates {} failed",
        args.lab.display(),
        args.level,
        Size(sizes[0].bytes()),
        super::status::human(geometry.capacity().bytes()),
        geometry.tolerance(),
    ))
}

/// Removes what a creation had made here when it was killed.
fn clear_unfinished(lab: &Path, manner: Manner) -> Result<(), Failure> {
    let Some(begun) = LabConfig::read_unfinished(lab).map_err(|error| Failure::cannot(error.to_string()))? else {
        return Ok(());
    };
    manner.hint(&format!("note: removing what an interrupted creation left in {}", lab.display()));
    // Images of its own are named relative to the lab; anybody else's stay as they are.
    let images: Vec<PathBuf> =
        begun.disks.iter().filter(|disk| disk.path.is_relative()).map(|disk| lab.join(&disk.path)).collect();
    remove_files(&images);
    remove_files(&[lab.join(UNFINISHED_NAME)]);
    Ok(())
}

fn no_room(error: &ImageError) -> Failure {
    let hint = match error {
        ImageError::NoSpace { .. } => ": give a smaller --size, or --sparse to take space only as it is written",
        _ => "",
    };
    Failure::cannot(format!("{error}{hint}"))
}

/// A new lab over these disks.
pub fn lab_config(paths: &[PathBuf]) -> LabConfig {
    let disk = |(number, path): (usize, &PathBuf)| DiskConfig::new(format!("disk-{number}"), path.clone());
    Config {
        version: VERSION,
        backend: Backend::default(),
        sync: SyncConfig::default(),
        disks: paths.iter().enumerate().map(disk).collect(),
        faults: Vec::new(),
    }
}

fn plan(args: &CreateArgs, disks: usize, layout: Layout, sizes: &[Sectors], blank: bool) -> Result<NewArray, Failure> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let directory = args.lab.canonicalize().unwrap_or_else(|_| args.lab.clone());
            directory.file_name().map_or_else(|| String::from("lab"), |name| name.to_string_lossy().into_owned())
        }
    };
    let short: String = name
        .chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= 32).then_some(c)
        })
        .collect();
    if args.name.is_some() && short != name {
        return Err(Failure::usage(format!("the name {name:?} is longer than the 32 bytes a superblock has for it")));
    }
    Ok(NewArray {
        level: args.level,
        layout,
        chunk: Sectors::floor_bytes(args.chunk.0),
        raid_disks: disks,
        bitmap: args.bitmap == "internal",
        name: SetName::new(&short).ok_or_else(|| Failure::usage(format!("{name:?} cannot be a name")))?,
        uuid: SetUuid(Uuid::new_v4().into_bytes()),
        created: Timestamp::new(wall_clock(), 0),
        in_sync: blank,
        devices: sizes
            .iter()
            .map(|size| NewDevice { size: *size, uuid: DeviceUuid(Uuid::new_v4().into_bytes()) })
            .collect(),
    })
}

/// Refuses a member on which something seems to be.
pub fn check_member(path: &Path, yes: bool) -> Result<(), Failure> {
    if path.to_string_lossy().starts_with("nbd") && !path.exists() {
        return Err(Failure::usage(format!("{}: members are files or block devices", path.display())));
    }
    match looks_blank(path) {
        Ok(true) => Ok(()),
        Ok(false) if yes => Ok(()),
        Ok(false) => Err(Failure::usage(format!(
            "{} is not blank: what is on it would be lost; if that is meant, add --yes",
            path.display()
        ))),
        Err(error) => Err(Failure::cannot(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Writes a new member's metadata, superblock last, and makes it durable.
pub fn write_areas(path: &Path, areas: &NewAreas) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::cannot(format!("cannot write {}: {error}", path.display()));
    // The lock says that nobody else has it.
    let _image = Image::open(path, ImageOptions::default()).map_err(|error| Failure::cannot(error.to_string()))?;
    let file = fs::OpenOptions::new().write(true).open(path).map_err(cannot)?;
    for (at, bytes) in &areas.writes {
        file.write_all_at(bytes, at.bytes()).map_err(cannot)?;
    }
    file.sync_all().map_err(cannot)
}
