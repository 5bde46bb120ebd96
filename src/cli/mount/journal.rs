//! What was done to the host for a mount: `LAB/mount.json`, written before each step, so that it can be undone by
//! another process. There is one as long as something may be left.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, write_whole};

const FILE_NAME: &str = "mount.json";

/// What may have been made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Journal {
    /// Where the user wanted it.
    pub at: PathBuf,
    /// Where FUSE is mounted.
    pub fuse: PathBuf,
    /// The loop device, once one is about to be made.
    pub device: Option<PathBuf>,
    /// The volume is given as a file: `at` is where FUSE is mounted.
    pub file_only: bool,
}

impl Journal {
    /// What is written down of a lab; none if nothing is left of it.
    pub fn read(lab: &Path) -> Option<Journal> {
        serde_json::from_slice(&fs::read(lab.join(FILE_NAME)).ok()?).ok()
    }

    /// Writes it down, durably.
    pub fn write(&self, lab: &Path) -> Result<(), ConfigError> {
        write_whole(&lab.join(FILE_NAME), &serde_json::to_vec(self).expect("it is plain data"))
    }

    /// Everything is undone.
    pub fn forget(lab: &Path) {
        // One that stays is read again, and finds nothing to undo.
        let _ = fs::remove_file(lab.join(FILE_NAME));
    }
}
