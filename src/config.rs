//! `lab.toml`: which disk is which file, what paths there are, how background work behaves, which faults are armed.
//!
//! What the array *is* stands in its superblocks and is never repeated here.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::block::DeviceId;
use crate::fabric::graph::{Graph, Preset};
use crate::fabric::health::Health;
use crate::fabric::topology::Topology;
use crate::multipath::connections::Connections;
use crate::multipath::keys;
use crate::multipath::profile::{Profile, ProfileName};
use crate::nbd::{NbdUri, UriError};

/// The version of the file that this program writes.
pub const VERSION: u32 = 1;
/// Its name in the lab's directory.
pub const FILE_NAME: &str = "lab.toml";
/// Its name until the disks it speaks of are made: where a creation was interrupted, it says what was begun.
pub const UNFINISHED_NAME: &str = "lab.toml.unfinished";

/// How image files are reached.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Mapped into memory.
    #[default]
    Mmap,
    /// pread and pwrite.
    File,
    /// `io_uring` with `O_DIRECT`.
    Uring,
}

impl Backend {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Mmap => "mmap",
            Backend::File => "file",
            Backend::Uring => "uring",
        }
    }
}

/// What becomes of a write that a disk has acknowledged and not flushed, when the power goes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// The image has it.
    #[default]
    Through,
    /// It was in the disk's memory, and may be gone.
    Volatile,
}

impl Cache {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Cache::Through => "through",
            Cache::Volatile => "volatile",
        }
    }

    /// The one a word names.
    pub fn named(word: &str) -> Option<Cache> {
        [Cache::Through, Cache::Volatile].into_iter().find(|cache| cache.name() == word)
    }

    fn is_through(&self) -> bool {
        *self == Cache::Through
    }
}

/// Where a disk keeps its bytes. One string in the file: an NBD URI is known by its scheme, anything else is a path; or a
/// list of URIs that lead to one export. In one word these stand with `|` between them, which no URI has in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Backing {
    /// An image or block device; relative to the lab's directory, in `lab.toml`.
    File(PathBuf),
    /// An export of an NBD server.
    Nbd(NbdUri),
    /// An export that is reached by several paths.
    Paths(Vec<NbdUri>),
}

/// Between paths to one export.
const BETWEEN: char = '|';

impl Backing {
    /// What a word names; an error if it is meant as a URI and is none.
    pub fn named(word: &Path) -> Result<Backing, UriError> {
        match word.to_str().filter(|text| NbdUri::is_meant(text)) {
            Some(uris) => uris.split(BETWEEN).map(str::parse).collect::<Result<_, _>>().and_then(Backing::of_paths),
            None => Ok(Backing::File(word.to_owned())),
        }
    }

    /// What one or more paths to an export make; an error if one is named twice.
    fn of_paths(mut uris: Vec<NbdUri>) -> Result<Backing, UriError> {
        let twice = |at: &usize| uris[..*at].contains(&uris[*at]);
        if let Some(at) = (0..uris.len()).find(twice) {
            return Err(UriError { uri: uris[at].to_string(), why: "it is named twice among the paths of one disk" });
        }
        Ok(if uris.len() == 1 { Backing::Nbd(uris.remove(0)) } else { Backing::Paths(uris) })
    }

    /// The same, seen from outside of `directory`.
    pub fn within(&self, directory: &Path) -> Backing {
        match self {
            Backing::File(path) => Backing::File(directory.join(path)),
            Backing::Nbd(_) | Backing::Paths(_) => self.clone(),
        }
    }

    /// Where the paths lead, if there are several.
    pub fn paths(&self) -> Option<&[NbdUri]> {
        match self {
            Backing::Paths(uris) => Some(uris),
            Backing::File(_) | Backing::Nbd(_) => None,
        }
    }

    /// The image or block device, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Backing::File(path) => Some(path),
            Backing::Nbd(_) | Backing::Paths(_) => None,
        }
    }
}

impl From<PathBuf> for Backing {
    fn from(path: PathBuf) -> Backing {
        Backing::File(path)
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backing::File(path) => path.display().fmt(f),
            Backing::Nbd(uri) => uri.fmt(f),
            Backing::Paths(uris) => {
                let words: Vec<String> = uris.iter().map(NbdUri::to_string).collect();
                f.write_str(&words.join(&BETWEEN.to_string()))
            }
        }
    }
}

impl Serialize for Backing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Backing::File(path) => path.serialize(serializer),
            Backing::Nbd(uri) => serializer.collect_str(uri),
            Backing::Paths(uris) => serializer.collect_seq(uris.iter().map(NbdUri::to_string)),
        }
    }
}

impl<'de> Deserialize<'de> for Backing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Backing, D::Error> {
        let named = match Written::deserialize(deserializer)? {
            Written::One(word) => Backing::named(&word),
            Written::Many(words) => words.iter().map(|word| word.parse()).collect::<Result<_, _>>().and_then(|uris| {
                let is_empty = UriError { uri: String::from("[]"), why: "a disk has a path" };
                if words.is_empty() { Err(is_empty) } else { Backing::of_paths(uris) }
            }),
        };
        named.map_err(serde::de::Error::custom)
    }
}

/// A backing in the file.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a path, an NBD URI, or a list of NBD URIs that lead to one export")]
enum Written {
    One(PathBuf),
    Many(Vec<String>),
}

/// One disk of the lab.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// `disk-0`, `disk-1`, …
    pub name: String,
    /// Where it is.
    #[serde(rename = "path")]
    pub backing: Backing,
    /// Where what is written to it is kept, if the original is not to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<PathBuf>,
    /// Whether it forgets what was not flushed.
    #[serde(default, skip_serializing_if = "Cache::is_through")]
    pub cache: Cache,
    /// If it has several paths, what differs of their timers and policies from [`Connections::default`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub timers: BTreeMap<String, Word>,
}

impl DiskConfig {
    /// A disk as most are.
    pub fn new(name: String, backing: Backing) -> DiskConfig {
        DiskConfig { name, backing, overlay: None, cache: Cache::Through, timers: BTreeMap::new() }
    }

    /// Timers and policies of its paths; an error names the setting that is wrong, and says what to do.
    pub fn connections(&self) -> Result<Connections, String> {
        if self.backing.paths().is_none() && !self.timers.is_empty() {
            return Err("a disk with one path has no timers: remove them".to_owned());
        }
        let mut connections = Connections::default();
        for (key, Word(value)) in &self.timers {
            connections.set(key, value)?;
        }
        Ok(connections)
    }
}

/// md's speed limits for background work, in KiB/s for each member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncConfig {
    /// What it may take even while users want the members.
    pub speed_min: u64,
    /// What it takes at the most.
    pub speed_max: u64,
}

impl Default for SyncConfig {
    fn default() -> SyncConfig {
        SyncConfig { speed_min: 1000, speed_max: 200_000 }
    }
}

/// Between which layers of a lab there are paths.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathsAt {
    /// Between the array and who uses it: the array sells its volume over several ports.
    #[default]
    Volume,
    /// Between the array and its members: every disk has several paths.
    Members,
    /// Both.
    Both,
}

impl PathsAt {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PathsAt::Volume => "volume",
            PathsAt::Members => "members",
            PathsAt::Both => "both",
        }
    }

    /// The one a word names.
    pub fn named(word: &str) -> Option<PathsAt> {
        [PathsAt::Volume, PathsAt::Members, PathsAt::Both].into_iter().find(|at| at.name() == word)
    }

    /// Whether the volume has paths.
    pub fn is_over(self) -> bool {
        self != PathsAt::Members
    }

    /// Whether members have paths.
    pub fn is_under(self) -> bool {
        self != PathsAt::Volume
    }
}

/// Many paths: an emulated fabric, its timers and policies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PathsConfig {
    /// Between which layers.
    #[serde(default)]
    pub at: PathsAt,
    /// The fabric, if it is one of those known by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Whose timers; those usual for the fabric, if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// Members may have paths on which writes can land late (`retry_safety none`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// What differs from them, by [the names of `multipath.conf`](crate::multipath::keys).
    #[serde(flatten)]
    pub settings: BTreeMap<String, Word>,
    /// The fabric, if it is one of its owner's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// Components that are not well whenever the lab is opened.
    #[serde(rename = "fault", default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<ComponentFault>,
}

/// A component of a fabric that is not well, in the words of `raidlab fault`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentFault {
    /// `volume/cable0`, `members/hba1`.
    pub component: String,
    /// What it is like.
    pub health: Health,
}

/// A setting's value: `no_path_retry = 30` and `no_path_retry = "30"` are the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word(pub String);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<u32>() {
            Ok(number) => serializer.serialize_u32(number),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a setting is a number or a string")]
        enum Either {
            Number(u32),
            Text(String),
        }
        Ok(Word(match Either::deserialize(deserializer)? {
            Either::Number(number) => number.to_string(),
            Either::Text(text) => text,
        }))
    }
}

impl PathsConfig {
    /// This fabric, with the timers usual for it.
    pub fn new(preset: Preset, at: PathsAt) -> PathsConfig {
        PathsConfig { preset: Some(preset), ..PathsConfig::bare(at) }
    }

    /// A fabric of one's own, with the timers of Fibre Channel.
    pub fn of_topology(topology: Topology, at: PathsAt) -> PathsConfig {
        PathsConfig { topology: Some(topology), ..PathsConfig::bare(at) }
    }

    fn bare(at: PathsAt) -> PathsConfig {
        PathsConfig {
            at,
            preset: None,
            profile: None,
            force: false,
            settings: BTreeMap::new(),
            topology: None,
            faults: Vec::new(),
        }
    }

    /// Timers and policies; an error names the setting that is wrong, and says what to do.
    pub fn profile(&self) -> Result<Profile, String> {
        let preset = self.preset.unwrap_or(Preset::San);
        let name = self.profile.unwrap_or(ProfileName::of(preset));
        let mut profile = Profile { preset, ..name.profile() };
        match (&self.topology, self.preset) {
            (None, None) => return Err("they are of no fabric: add preset = \"san\", or a [paths.topology]".to_owned()),
            (Some(_), Some(_)) => return Err("a preset and a topology are two fabrics: remove one of them".to_owned()),
            (Some(_), None) if self.settings.contains_key("fabric") => {
                return Err("the fabric is that of the topology: remove the setting fabric".to_owned());
            }
            (Some(topology), None) => {
                profile.fencing = topology.graph().map_err(|error| error.to_string())?.paths()[0].fencing;
            }
            (None, Some(_)) => {}
        }
        for (key, Word(value)) in &self.settings {
            keys::set(&mut profile, key, value)?;
        }
        if let Some(why) = profile.contradiction() {
            return Err(why);
        }
        let below_raid = profile.settings.retry_safety.check_below_raid(self.force || !self.at.is_under());
        below_raid.map_err(|error| format!("{error} (force = true in [paths])"))?;
        Ok(profile)
    }

    /// Whether the paths of a lab of so many disks can be as they are said to be; an error says what is wrong, and what to do.
    fn check(&self, disks: usize) -> Result<(), String> {
        self.profile()?;
        for ComponentFault { component, .. } in &self.faults {
            if self.component(component, disks)?.as_ref() != Some(component) {
                return Err(format!("{component:?} is no component of the fabric: remove that [[paths.fault]]"));
            }
        }
        Ok(())
    }

    /// The component that a word means in a lab of so many disks, as [`ComponentFault`] names it: `volume/cable0`, or `cable0` where that
    /// is one only. `None`: there is no such component.
    pub fn component(&self, word: &str, disks: usize) -> Result<Option<String>, String> {
        let units: Vec<DeviceId> = (0..disks.max(1)).map(|disk| DeviceId(disk as u32)).collect();
        let (over, under) = (self.graph(&units[..1])?, self.graph(&units)?);
        let layers = [("volume", over, self.at.is_over()), ("members", under, self.at.is_under())];
        let named = |(layer, graph, is_there): &(&str, Graph, bool)| {
            let name = word.strip_prefix(layer).and_then(|rest| rest.strip_prefix('/')).unwrap_or(word);
            (*is_there && graph.find(name).is_some()).then(|| format!("{layer}/{name}"))
        };
        let found: Vec<String> = layers.iter().filter_map(named).collect();
        match &found[..] {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => Err(format!("{word} is there twice: say {}", several.join(" or "))),
        }
    }

    /// The fabric, with these units behind it.
    pub fn graph(&self, units: &[DeviceId]) -> Result<Graph, String> {
        let profile = self.profile()?;
        match &self.topology {
            None => Ok(profile.graph_for(units)),
            Some(topology) => {
                let graph = topology.graph().map_err(|error| error.to_string())?;
                Ok(graph.with_fencing(profile.fencing).for_units(units))
            }
        }
    }
}

/// A fault of one disk, in the words of `raidlab fault`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FaultConfig<F> {
    /// The disk's name.
    pub disk: String,
    /// What goes wrong, and when.
    #[serde(flatten)]
    pub fault: F,
}

/// A lab's file. `F` is how a fault is written down.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config<F> {
    /// [`VERSION`].
    pub version: u32,
    /// How image files are reached.
    #[serde(default)]
    pub backend: Backend,
    /// Speed limits.
    #[serde(default)]
    pub sync: SyncConfig,
    /// Paths, if there are many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathsConfig>,
    /// The disks.
    #[serde(rename = "disk", default)]
    pub disks: Vec<DiskConfig>,
    /// The faults, armed whenever the lab is opened.
    #[serde(rename = "fault", default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultConfig<F>>,
}

/// Why a `lab.toml` cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is none.
    #[error("{} is not a lab: it has no {FILE_NAME}; `raidlab create` makes one", lab.display())]
    NotALab {
        /// The directory.
        lab: PathBuf,
    },
    /// It was being made when the program that made it ended.
    #[error("{0} is not a lab yet: its creation was interrupted; run `raidlab create {0}` again, or remove it", lab.display())]
    Unfinished {
        /// The directory.
        lab: PathBuf,
    },
    /// It cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or not ours.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// Its paths cannot be as it says.
    #[error("{}: [paths]: {why}", path.display())]
    Paths {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A disk's paths cannot be as it says.
    #[error("{}: {disk}: timers: {why}", path.display())]
    Timers {
        /// The file.
        path: PathBuf,
        /// The disk.
        disk: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Another program wrote it.
    #[error("{} has version {found}, this program reads {VERSION}: use the program that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl<F: Serialize + for<'a> Deserialize<'a>> Config<F> {
    /// Reads the file of a lab.
    pub fn read(lab: &Path) -> Result<Config<F>, ConfigError> {
        Config::read_as(lab, FILE_NAME)
    }

    /// What a creation that was interrupted had begun to make; none if there was none.
    pub fn read_unfinished(lab: &Path) -> Result<Option<Config<F>>, ConfigError> {
        if !lab.join(UNFINISHED_NAME).exists() {
            return Ok(None);
        }
        Config::read_as(lab, UNFINISHED_NAME).map(Some)
    }

    fn read_as(lab: &Path, name: &str) -> Result<Config<F>, ConfigError> {
        let path = lab.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                let lab = lab.to_owned();
                let begun = lab.join(UNFINISHED_NAME).exists();
                return Err(if begun { ConfigError::Unfinished { lab } } else { ConfigError::NotALab { lab } });
            }
            Err(source) => return Err(ConfigError::Io { action: "read", path, source }),
        };
        let config: Config<F> = toml::from_str(&text)
            .map_err(|error| ConfigError::Syntax { path: path.clone(), message: error.to_string() })?;
        if config.version != VERSION {
            return Err(ConfigError::Version { path, found: config.version });
        }
        if let Some(Err(why)) = config.paths.as_ref().map(|paths| paths.check(config.disks.len())) {
            return Err(ConfigError::Paths { path, why });
        }
        for disk in &config.disks {
            let wrong = |why| ConfigError::Timers { path: path.clone(), disk: disk.name.clone(), why };
            disk.connections().map_err(wrong)?;
        }
        Ok(config)
    }

    /// Writes the file of a lab: at once and whole, or not at all.
    pub fn write(&self, lab: &Path) -> Result<(), ConfigError> {
        self.write_as(lab, FILE_NAME)
    }

    /// Says what is about to be made; [`finish`] follows.
    pub fn write_unfinished(&self, lab: &Path) -> Result<(), ConfigError> {
        self.write_as(lab, UNFINISHED_NAME)
    }

    fn write_as(&self, lab: &Path, name: &str) -> Result<(), ConfigError> {
        let text = toml::to_string_pretty(self).expect("a lab's settings can be written as TOML");
        write_whole(&lab.join(name), text.as_bytes())
    }
}

/// All that was to be made is made: from now on the directory is a lab.
pub fn finish(lab: &Path) -> Result<(), ConfigError> {
    let path = lab.join(FILE_NAME);
    fs::rename(lab.join(UNFINISHED_NAME), &path).and_then(|()| sync_directory(lab)).map_err(|source| ConfigError::Io {
        action: "write",
        path,
        source,
    })
}

/// Puts `bytes` into a file beside `path` and renames it to `path`. Two must not do so at once: whoever writes into a
/// lab has locked it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = fs::write(&beside, bytes)
        .and_then(|()| fs::File::open(&beside)?.sync_all())
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| sync_directory(path.parent().unwrap_or(Path::new("."))));
    written.map_err(|source| {
        // If it cannot be removed either, the next attempt writes over it.
        let _ = fs::remove_file(&beside);
        ConfigError::Io { action: "write", path: path.to_owned(), source }
    })
}

fn sync_directory(directory: &Path) -> std::io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Fencing;

    #[test]
    fn a_lab_is_read_as_it_was_written_and_a_misspelt_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config: Config<toml::Table> = Config {
            version: VERSION,
            backend: Backend::Uring,
            sync: SyncConfig { speed_min: 1, speed_max: 2 },
            paths: Some(PathsConfig {
                profile: Some(ProfileName::Tuned),
                settings: [("no_path_retry", "5"), ("failback", "manual")]
                    .map(|(key, value)| (key.to_owned(), Word(value.to_owned())))
                    .into(),
                ..PathsConfig::new(Preset::San, PathsAt::Members)
            }),
            disks: vec![
                DiskConfig::new("disk-0".into(), PathBuf::from("disk-0.img").into()),
                DiskConfig {
                    cache: Cache::Volatile,
                    ..DiskConfig::new("disk-1".into(), PathBuf::from("disk-1.img").into())
                },
                DiskConfig::new("disk-2".into(), Backing::named(Path::new("nbd://there/disk")).unwrap()),
                DiskConfig::new("disk-3".into(), Backing::named(Path::new("nbd://here/a,b|nbd://there/a,b")).unwrap()),
            ],
            faults: Vec::new(),
        };
        config.write(dir.path()).unwrap();
        assert_eq!(Config::read(dir.path()).unwrap(), config);
        let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        assert!(text.contains("\"nbd://there:10809/a%2Cb\""), "{text}");
        fs::write(dir.path().join(FILE_NAME), "version = 1\nbackand = \"mmap\"\n").unwrap();
        let error = Config::<toml::Table>::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("backand"), "{error}");
    }

    #[test]
    fn paths_that_cannot_be_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        for (line, word) in [
            ("preset = \"sam\"", "sam"),
            ("at = \"volume\"", "add preset"),
            ("preset = \"san\"\n[paths.topology]", "two fabrics"),
            ("[paths.topology]\ncomponent = []", "no path to the unit"),
            ("fabric = \"san\"\n[paths.topology]", "remove the setting fabric"),
            ("preset = \"san\"\nno_path_retri = 5", "did you mean no_path_retry?"),
            ("preset = \"san\"\nfast_io_fail_tmo = 90", "dev_loss_tmo"),
            ("preset = \"san\"\nat = \"middle\"", "middle"),
            (
                "preset = \"san\"\n[[paths.fault]]\ncomponent = \"cable0\"\nhealth = \"down\"",
                "remove that [[paths.fault]]",
            ),
            ("preset = \"san\"\n[[paths.fault]]\ncomponent = \"volume/hba0\"\nhealth = \"dead\"", "no health"),
            ("preset = \"san\"\nat = \"members\"\nretry_safety = \"none\"", "force = true"),
        ] {
            fs::write(dir.path().join(FILE_NAME), format!("version = 1\n[paths]\n{line}\n")).unwrap();
            let error = Config::<toml::Table>::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn a_fabric_of_ones_own_is_part_of_the_file() {
        let topology = "component = [{ name = 'hba0', kind = 'hba' }, { name = 'port0', kind = 'port' }]
            path = [{ route = ['hba0', 'port0'] }]
            fencing = 'session'";
        let paths = PathsConfig {
            settings: [(String::from("retry_safety"), Word(String::from("fence")))].into(),
            ..PathsConfig::of_topology(toml::from_str(topology).unwrap(), PathsAt::Both)
        };
        assert_eq!(toml::from_str::<PathsConfig>(&toml::to_string(&paths).unwrap()).unwrap(), paths);
        let graph = paths.graph(&[DeviceId(0), DeviceId(4)]).unwrap();
        let units: Vec<u64> = graph.paths().iter().map(|path| u64::from(path.unit.0)).collect();
        assert_eq!((units, graph.paths()[1].fencing), (vec![0, 4], Fencing::Session));
    }

    #[test]
    fn a_list_of_paths_names_what_is_wrong_with_it() {
        let read = |path: &str| toml::from_str::<DiskConfig>(&format!("name = \"disk-0\"\npath = {path}"));
        assert_eq!(read("[\"nbd://a\"]").unwrap().backing, Backing::named(Path::new("nbd://a")).unwrap());
        for (path, why) in [
            ("[]", "a disk has a path"),
            ("[\"nbd://a\", \"disk-0.img\"]", "disk-0.img"),
            ("[\"nbd://a\", \"nbd://a:10809/\"]", "named twice"),
            ("7", "a path, an NBD URI, or a list"),
        ] {
            let error = read(path).unwrap_err().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
    }
}
