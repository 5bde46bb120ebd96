//! Where disks keep their bytes.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::nbd::{NbdUri, UriError};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiskConfig;

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
