//! `create`: a new lab on new images, or on files and devices that exist.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::Args;
use serde::Deserialize;
use uuid::Uuid;

use super::run::stop_flag;
use super::{Failure, Manner, Outcome};
use crate::block::{SECTOR_BYTES, Sectors};
use crate::config::{
    self, Backend, Backing, Cache, Config, ConfigError, DiskConfig, PathsAt, PathsConfig, SyncConfig, UNFINISHED_NAME,
    VERSION,
};
use crate::disk::{Image, ImageError, Space};
use crate::fabric::graph::Preset;
use crate::fabric::topology::Topology;
use crate::multipath::keys;
use crate::raid::create::{NewAreas, NewArray, NewDevice, create};
use crate::raid::level::{Layout, Level};
use crate::raid::superblock::{DeviceUuid, SetName, SetUuid, Timestamp};
use crate::stack::{BareDisk, LabConfig, lock_directory, remove_files, wall_clock};
use crate::units::Size;

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
    /// Reach the array by many paths: san (8 of them), active-passive, iscsi, nvme-tcp or sas-dual; or a file with a
    /// [topology] of your own
    #[arg(long, value_name = "PRESET|FILE")]
    paths: Option<String>,
    /// Between which layers: volume (the array sells its volume over several ports), members (every disk has several
    /// paths), or both
    #[arg(long, value_parser = ["volume", "members", "both"], default_value = "volume", requires = "paths")]
    paths_at: String,
    /// Files, block devices or NBD exports (nbd://HOST/EXPORT) that exist, instead of new images; an export that is
    /// reached by several paths is 'URI|URI|...'
    #[arg(long, num_args = 1.., value_name = "PATH|URI")]
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

/// The paths that a word means: a preset's name, or a file.
fn paths_named(word: &str, at: PathsAt) -> Result<PathsConfig, Failure> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        topology: Topology,
    }
    let known = Preset::ALL.map(Preset::name);
    if let Some(preset) = Preset::ALL.into_iter().find(|preset| preset.name() == word) {
        return Ok(PathsConfig::new(preset, at));
    }
    if !Path::new(word).exists() {
        return Err(Failure::usage(format!("{}; nor is there such a file", keys::unknown("fabric", word, &known))));
    }
    let text = fs::read_to_string(word).map_err(|error| Failure::cannot(format!("cannot read {word}: {error}")))?;
    let file: File = toml::from_str(&text).map_err(|error| Failure::usage(format!("{word}: {error}")))?;
    let paths = PathsConfig::of_topology(file.topology, at);
    paths.profile().map_err(|why| Failure::usage(format!("{word}: {why}")))?;
    Ok(paths)
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
    let at = PathsAt::named(&args.paths_at).expect("only these words are taken");
    let paths = args.paths.as_deref().map(|word| paths_named(word, at)).transpose()?;
    let _lock = lock_directory(&args.lab)?;
    clear_unfinished(&args.lab, manner)?;
    let all = disks + args.spares;
    let size = Sectors::floor_bytes(args.size.0);
    let mut sizes = vec![size; all];
    let mut given: Vec<BareDisk> = Vec::new();
    let backings: Vec<Backing> = if args.members.is_empty() {
        (0..all).map(|number| PathBuf::from(format!("disk-{number}.img")).into()).collect()
    } else {
        let here = Path::new("");
        let backings: Vec<Backing> =
            args.members.iter().map(|word| existing_backing(word, here)).collect::<Result<_, _>>()?;
        for (at, (backing, word)) in backings.iter().zip(&args.members).enumerate() {
            if backings[..at].contains(backing) {
                return Err(Failure::usage(format!("{} is named twice", word.display())));
            }
            let mut disk = BareDisk::take(backing)?;
            check_blank(&mut disk, backing, args.yes)?;
            sizes[at] = disk.limits().capacity;
            given.push(disk);
        }
        backings
    };
    // Everything is judged before anything is made.
    let blank = args.members.is_empty() && !args.resync;
    let new = plan(args, disks, layout, &sizes, blank)?;
    let (geometry, members) = create(&new).map_err(|error| Failure::usage(error.to_string()))?;
    let images: Vec<PathBuf> = match args.members.is_empty() {
        true => backings.iter().filter_map(Backing::file).map(|path| args.lab.join(path)).collect(),
        false => Vec::new(),
    };
    for path in &images {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!(
                "{} exists already: choose another directory, or use it with --members",
                path.display()
            )));
        }
    }
    let on_devices = backings.iter().filter_map(Backing::file).any(|path| !path.is_relative() && !path.is_file());
    let backend = match args.backend.as_deref() {
        Some(word) => backend_named(word),
        None if on_devices => Backend::Uring,
        None => Backend::Mmap,
    };
    let mut config = LabConfig { backend, ..lab_config(&backings) };
    let cache = Cache::named(&args.cache).expect("only these words are taken");
    config.disks.iter_mut().for_each(|disk| disk.cache = cache);
    config.paths = paths;
    let cannot = |error: ConfigError| Failure::cannot(error.to_string());
    made.push(args.lab.join(UNFINISHED_NAME));
    config.write_unfinished(&args.lab).map_err(cannot)?;
    let check_stopped = || match stop.load(Ordering::Relaxed) {
        true => Err(Failure::cannot("interrupted: nothing was made")),
        false => Ok(()),
    };
    let space = if args.sparse { Space::Sparse } else { Space::Preallocated };
    for path in images {
        check_stopped()?;
        Image::create(&path, size, space).map_err(|error| no_room(&error))?;
        given.push(BareDisk::take(&path.clone().into())?);
        made.push(path);
    }
    check_stopped()?;
    for ((disk, backing), areas) in given.iter_mut().zip(&backings).zip(&members) {
        write_areas(disk, areas).map_err(|error| Failure::cannot(format!("cannot write {backing}: {error}")))?;
    }
    drop(given);
    for backing in backings.iter().filter(|backing| matches!(backing, Backing::Paths(_))) {
        // Now that something is on it, each of its paths has to show that.
        BareDisk::look(backing).map_err(|error| Failure::cannot(error.to_string()))?;
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
    let images = begun.disks.iter().filter_map(|disk| disk.backing.file()).filter(|path| path.is_relative());
    let images: Vec<PathBuf> = images.map(|path| lab.join(path)).collect();
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
pub fn lab_config(backings: &[Backing]) -> LabConfig {
    let disk = |(number, backing): (usize, &Backing)| DiskConfig::new(format!("disk-{number}"), backing.clone());
    Config {
        version: VERSION,
        backend: Backend::default(),
        sync: SyncConfig::default(),
        paths: None,
        disks: backings.iter().enumerate().map(disk).collect(),
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

/// The disk that a word means, which must be there; relative paths begin in `directory`.
pub fn existing_backing(word: &Path, directory: &Path) -> Result<Backing, Failure> {
    let cannot = |error: std::io::Error| Failure::cannot(format!("cannot use {}: {error}", word.display()));
    match Backing::named(word).map_err(|error| Failure::usage(error.to_string()))? {
        Backing::File(path) => Ok(Backing::File(directory.join(path).canonicalize().map_err(cannot)?)),
        Backing::Nbd(uri) => uri.within(directory).absolute().map(Backing::Nbd).map_err(cannot),
        Backing::Paths(uris) => {
            let whole = uris.into_iter().map(|uri| uri.within(directory).absolute());
            whole.collect::<Result<_, _>>().map(Backing::Paths).map_err(cannot)
        }
    }
}

/// Refuses a member on which something seems to be.
pub fn check_blank(disk: &mut BareDisk, backing: &Backing, yes: bool) -> Result<(), Failure> {
    match disk.is_blank() {
        Ok(true) => Ok(()),
        Ok(false) if yes => Ok(()),
        Ok(false) => Err(Failure::usage(format!(
            "{backing} is not blank: what is on it would be lost; if that is meant, add --yes"
        ))),
        Err(error) => Err(Failure::cannot(format!("cannot read {backing}: {error}"))),
    }
}

/// Writes a new member's metadata, superblock last, and makes it durable.
fn write_areas(disk: &mut BareDisk, areas: &NewAreas) -> std::io::Result<()> {
    for (at, bytes) in &areas.writes {
        disk.write(*at, bytes)?;
    }
    disk.sync()
}
