//! `lab.toml`: which disk is which file, what paths there are, how background work behaves, which faults are armed.
//!
//! What the array *is* stands in its superblocks and is never repeated here.

mod backing;
mod paths;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::multipath::connections::Connections;

pub use backing::Backing;
pub use paths::{ComponentFault, PathsAt, PathsConfig, Word};

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
    use crate::fabric::graph::Preset;
    use crate::multipath::profile::ProfileName;

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
}
