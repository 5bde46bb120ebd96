//! `lab.toml`: which disk is which file, how background work behaves, which faults are armed.
//!
//! What the array *is* stands in its superblocks and is never repeated here.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the file that this program writes.
pub const VERSION: u32 = 1;
/// Its name in the lab's directory.
pub const FILE_NAME: &str = "lab.toml";

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

/// One disk of the lab.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// `disk-0`, `disk-1`, …
    pub name: String,
    /// Its image or device; relative to the lab's directory.
    pub path: PathBuf,
    /// Where what is written to it is kept, if the original is not to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<PathBuf>,
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
        let path = lab.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ConfigError::NotALab { lab: lab.to_owned() });
            }
            Err(source) => return Err(ConfigError::Io { action: "read", path, source }),
        };
        let config: Config<F> = toml::from_str(&text)
            .map_err(|error| ConfigError::Syntax { path: path.clone(), message: error.to_string() })?;
        if config.version != VERSION {
            return Err(ConfigError::Version { path, found: config.version });
        }
        Ok(config)
    }

    /// Writes the file of a lab: at once and whole, or not at all.
    pub fn write(&self, lab: &Path) -> Result<(), ConfigError> {
        let text = toml::to_string_pretty(self).expect("a lab's settings can be written as TOML");
        write_whole(&lab.join(FILE_NAME), text.as_bytes())
    }
}

/// Puts `bytes` into a file beside `path` and renames it to `path`.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
    let io = |action: &'static str| move |source| ConfigError::Io { action, path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(io("write"))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(io("write"))?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(permissions).map_err(io("write"))?;
    file.persist(path).map_err(|error| io("write")(error.error))?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_read_as_it_was_written_and_a_misspelt_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config: Config<toml::Table> = Config {
            version: VERSION,
            backend: Backend::Uring,
            sync: SyncConfig { speed_min: 1, speed_max: 2 },
            disks: vec![DiskConfig { name: "disk-0".into(), path: "disk-0.img".into(), overlay: None }],
            faults: Vec::new(),
        };
        config.write(dir.path()).unwrap();
        assert_eq!(Config::read(dir.path()).unwrap(), config);
        fs::write(dir.path().join(FILE_NAME), "version = 1\nbackand = \"mmap\"\n").unwrap();
        let error = Config::<toml::Table>::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("backand"), "{error}");
    }
}
