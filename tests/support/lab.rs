//! A lab in a directory of its own, and what a user does with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::cli::{Raidlab, raidlab};
use super::process::Ran;

/// A directory for a lab called `lab`. It is gone when this is dropped.
pub struct Lab {
    directory: TempDir,
}

impl Lab {
    /// An empty directory.
    pub fn nowhere() -> Lab {
        Lab { directory: tempfile::tempdir().expect("the temporary directory takes files") }
    }

    /// The lab that `raidlab create lab ARGUMENTS` makes.
    #[track_caller]
    pub fn create(arguments: &str) -> Lab {
        let lab = Lab::nowhere();
        lab.ok(&format!("create lab {arguments}"));
        lab
    }

    /// The directory that `lab` is in.
    pub fn around(&self) -> &Path {
        self.directory.path()
    }

    /// A file of the lab.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("lab").join(name)
    }

    /// `raidlab WORDS`, beside the lab.
    pub fn call(&self, words: &str) -> Raidlab {
        raidlab(self.around(), words.split_whitespace())
    }

    /// `raidlab WORDS`, where a word has blanks in it.
    pub fn call_words(&self, words: &[&str]) -> Raidlab {
        raidlab(self.around(), words)
    }

    /// Runs `raidlab WORDS` to its end.
    #[track_caller]
    pub fn run(&self, words: &str) -> Ran {
        self.call(words).run()
    }

    /// Runs `raidlab WORDS`, which ends well.
    #[track_caller]
    pub fn ok(&self, words: &str) -> Ran {
        self.run(words).expect_ok()
    }

    /// Runs `raidlab WORDS`, which ends with `code` and says `phrase`.
    #[track_caller]
    pub fn refuses(&self, words: &str, code: i32, phrase: &str) -> Ran {
        let ran = self.run(words).expect_code(code);
        assert!(ran.stderr.contains(phrase), "{phrase:?} was expected of {ran}");
        ran
    }

    /// `status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.ok("status lab --json").json()
    }

    /// The state in a word.
    #[track_caller]
    pub fn state(&self) -> String {
        self.status()["state"].as_str().expect("a state is a word").to_owned()
    }

    /// A disk, as `status --json` shows it.
    #[track_caller]
    pub fn member(&self, disk: &str) -> Value {
        let status = self.status();
        let members = status["members"].as_array().expect("members are a list");
        let found = members.iter().find(|member| member["disk"] == disk);
        found.unwrap_or_else(|| panic!("no {disk} in {status:#}")).clone()
    }

    /// How many bytes the volume holds.
    #[track_caller]
    pub fn size(&self) -> u64 {
        self.status()["size_bytes"].as_u64().expect("the array runs")
    }

    /// Writes to the volume.
    #[track_caller]
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Ran {
        self.call(&format!("write lab --offset {offset}")).stdin(bytes).run().expect_ok()
    }

    /// All bytes of the volume.
    #[track_caller]
    pub fn read(&self) -> Vec<u8> {
        self.ok("read lab").stdout
    }

    /// `check`'s count, which is what `status` says from then on.
    #[track_caller]
    pub fn mismatches(&self) -> u64 {
        let ran = self.run("check lab");
        assert!(matches!(ran.code, Some(0 | 1)), "{ran}");
        self.status()["mismatch_cnt"].as_u64().expect("it is a count")
    }

    /// Changes one byte of a disk behind the array's back.
    pub fn flip(&self, image: &str, at: u64) {
        let file = fs::OpenOptions::new().read(true).write(true).open(self.file(image)).expect("the image is there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it is within the image");
        file.write_all_at(&[byte[0] ^ 0xff], at).expect("it is within the image");
    }

    /// What every file of a directory beside the lab holds, in short.
    pub fn prints(&self, directory: &str) -> BTreeMap<String, u32> {
        let entries = fs::read_dir(self.around().join(directory)).expect("the directory is there");
        entries
            .map(|entry| entry.expect("it can be listed"))
            .filter(|entry| entry.path().is_file())
            .map(|entry| {
                let bytes = fs::read(entry.path()).expect("it can be read");
                (entry.file_name().to_string_lossy().into_owned(), crc32fast::hash(&bytes))
            })
            .collect()
    }

    /// The names in the lab's directory.
    pub fn names(&self) -> Vec<String> {
        self.prints("lab").into_keys().collect()
    }

    /// Copies the images of the lab into a directory beside it, and forgets the lab.
    pub fn move_images(&self, directory: &str) -> Vec<String> {
        let target = self.around().join(directory);
        fs::create_dir(&target).expect("there is none yet");
        let images: Vec<String> = self.names().into_iter().filter(|name| name.ends_with(".img")).collect();
        for image in &images {
            fs::rename(self.file(image), target.join(image)).expect("one directory is beside the other");
        }
        fs::remove_dir_all(self.around().join("lab")).expect("it is ours");
        images.into_iter().map(|image| format!("{directory}/{image}")).collect()
    }
}

/// `bytes` over `model` at `offset`.
pub fn put(model: &mut [u8], offset: u64, bytes: &[u8]) {
    model[offset as usize..][..bytes.len()].copy_from_slice(bytes);
}

/// Fails with the first byte that is not as it should be, and not with megabytes.
#[track_caller]
pub fn expect_same(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "bytes");
    let different = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert!(different.is_none(), "byte {} differs", different.unwrap_or_default());
}
