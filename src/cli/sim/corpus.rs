//! A corpus: a directory of scenarios that were findings once, each a file of its own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::config::write_whole;
use crate::sim::Scenario;
use crate::sim::campaign::{Found, Shard};

/// A directory that takes scenarios.
pub struct Corpus {
    directory: PathBuf,
}

impl Corpus {
    /// The corpus in `directory`, which is made if need be, and can be written to.
    pub fn open(directory: &Path) -> Result<Corpus, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::cannot(format!("cannot keep findings in {}: {error}", directory.display()))
        };
        fs::create_dir_all(directory).map_err(cannot)?;
        tempfile::tempfile_in(directory).map_err(cannot)?;
        Ok(Corpus { directory: directory.to_owned() })
    }

    /// The scenarios that are there, in the order of their names: those that are `shard`'s.
    pub fn scenarios(&self, shard: Shard) -> Result<Vec<(PathBuf, Scenario)>, Failure> {
        let cannot = |path: &Path, error: &dyn std::fmt::Display| {
            Failure::cannot(format!("cannot read {}: {error}", path.display()))
        };
        let entries = fs::read_dir(&self.directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(|error| cannot(&self.directory, &error))?;
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        let own = paths.into_iter().zip(0..).filter(|(_, position)| shard.has(*position));
        own.map(|(path, _)| {
            let text = fs::read_to_string(&path).map_err(|error| cannot(&path, &error))?;
            let scenario = Scenario::parse(&text).map_err(|error| cannot(&path, &error))?;
            Ok((path, scenario))
        })
        .collect()
    }

    /// Keeps a finding. A scenario of its seed that is there already stays: it may have been shrunk since.
    pub fn keep(&self, found: &Found) -> Result<PathBuf, Failure> {
        self.keep_as(&found.seed.to_string(), found)
    }

    /// Keeps a finding under a name, where that is still free.
    pub fn keep_as(&self, name: &str, found: &Found) -> Result<PathBuf, Failure> {
        let path = self.directory.join(format!("{name}.toml"));
        if !path.exists() {
            write_whole(&path, found.to_file().as_bytes()).map_err(|error| Failure::cannot(error.to_string()))?;
        }
        Ok(path)
    }
}
