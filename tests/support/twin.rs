//! A lab beside its twin: what its volume should hold, all of it.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};

use super::cli::raidlab;
use super::process::{self, Ran};
use super::sample::Sample;
use super::shape::Shape;
use super::tools;

/// A lab, the images of its members by slot, and the content it should have.
#[derive(Clone)]
pub struct Twin {
    at: PathBuf,
    name: String,
    /// The images; a slot's image changes when a member is replaced.
    pub images: Vec<PathBuf>,
    /// What the volume should hold, all of it.
    pub content: Vec<u8>,
}

/// Images of these sizes called `name-0`, `name-1`, …, preallocated as ours are.
pub fn images(at: &Path, name: &str, sizes_kib: &[u64]) -> Vec<PathBuf> {
    let paths: Vec<_> = (0..sizes_kib.len()).map(|n| at.join(format!("{name}-{n}"))).collect();
    for (path, size) in paths.iter().zip(sizes_kib) {
        let file = File::create(path).expect("the temporary directory takes files");
        fallocate(&file, FallocateFlags::empty(), 0, size << 10).expect("the temporary directory has room");
    }
    paths
}

/// Those of `images` whose places are not among `left_out`.
pub fn without(images: &[PathBuf], left_out: &[usize]) -> Vec<PathBuf> {
    let kept = images.iter().enumerate().filter(|(slot, _)| !left_out.contains(slot));
    kept.map(|(_, image)| image.clone()).collect()
}

/// MD5 of `bytes`, in hexadecimal.
pub fn md5(bytes: &[u8]) -> String {
    let mut file = tempfile::tempfile().expect("the temporary directory takes files");
    file.write_all(bytes).and_then(|()| file.rewind()).expect("the temporary directory has room");
    let mut command = Command::new("md5sum");
    let sum = process::run(command.stdin(Stdio::from(file)), Duration::from_secs(60)).expect_ok();
    sum.text()[..32].to_owned()
}

/// What `mdadm --examine` says of an image, in UTC.
#[track_caller]
pub fn mdadm_examine(image: &Path) -> String {
    let mut command = Command::new(tools::need("mdadm"));
    let command = command.arg("--examine").arg(image).env("TZ", "UTC");
    process::run(command, Duration::from_secs(30)).expect_ok().text().to_owned()
}

/// mdadm finds every checksum right, and says of every image what we say of it.
#[track_caller]
pub fn expect_examined(images: &[PathBuf]) {
    for image in images {
        let theirs = mdadm_examine(image);
        assert!(theirs.lines().any(|line| line.contains("Checksum : ") && line.ends_with(" - correct")), "{theirs}");
        let ours = raidlab(Path::new("/"), [Path::new("examine"), image]).env("TZ", "UTC").run().expect_ok();
        assert_eq!(ours.text(), theirs);
    }
}

impl Twin {
    /// A new lab `name` in the directory `at`, with images of its own or, where they differ in size, over files.
    #[track_caller]
    pub fn create(at: &Path, name: &str, shape: &Shape) -> Twin {
        let mut words: Vec<String> = vec!["create".into(), name.into()];
        words.extend(shape.for_raidlab());
        let (members, own) = (shape.members(), |slot| at.join(name).join(format!("disk-{slot}.img")));
        let images = if shape.is_uneven() {
            let images = images(at, &format!("{name}-member"), &shape.sizes_kib);
            words.push("--members".into());
            words.extend(images.iter().map(|image| image.display().to_string()));
            images
        } else {
            words.extend([format!("--disks={members}"), format!("--size={}K", shape.sizes_kib[0])]);
            (0..members).map(own).collect()
        };
        raidlab(at, words).run().expect_ok();
        Twin::over(at, name, images)
    }

    /// A new lab `name` over images that exist, with `options`.
    #[track_caller]
    pub fn assemble(at: &Path, name: &str, images: &[PathBuf], options: &[&str]) -> Twin {
        Twin::try_assemble(at, name, images, options).expect_ok();
        Twin::over(at, name, images.to_vec())
    }

    /// As [`Twin::assemble`], whatever comes of it.
    #[track_caller]
    pub fn try_assemble(at: &Path, name: &str, images: &[PathBuf], options: &[&str]) -> Ran {
        let mut words: Vec<PathBuf> = vec!["assemble".into(), name.into()];
        words.extend(images.iter().cloned());
        words.extend(options.iter().map(PathBuf::from));
        raidlab(at, words).run()
    }

    fn over(at: &Path, name: &str, images: Vec<PathBuf>) -> Twin {
        let mut lab = Twin { at: at.to_owned(), name: name.to_owned(), images, content: Vec::new() };
        let status = lab.tell("status", &["--json"]).json();
        let size = status["size_bytes"].as_u64().unwrap_or_else(|| panic!("no size in {status}"));
        lab.content = vec![0; size as usize];
        lab
    }

    /// `raidlab VERB LAB ARGUMENTS`, whatever comes of it.
    #[track_caller]
    pub fn tell(&self, verb: &str, arguments: &[&str]) -> Ran {
        raidlab(&self.at, [&[verb, &self.name], arguments].concat()).run()
    }

    /// `raidlab VERB LAB ARGUMENTS`, which ends well.
    #[track_caller]
    pub fn does(&self, verb: &str, arguments: &[&str]) -> &Twin {
        self.tell(verb, arguments).expect_ok();
        self
    }

    /// Writes `bytes` to the volume from byte `at` on.
    #[track_caller]
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let words = ["write", &self.name, "--offset", &at.to_string()];
        raidlab(&self.at, words).stdin(bytes).run().expect_ok();
        self.content[at..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Writes all of the volume.
    #[track_caller]
    pub fn fill(&mut self, sample: &mut Sample) {
        let bytes = sample.bytes(self.content.len());
        self.write(0, &bytes);
    }

    /// Writes somewhere, of no particular length or alignment.
    #[track_caller]
    pub fn scribble(&mut self, sample: &mut Sample) {
        for most in [700, 100_000, 3_000_000] {
            let length = 1 + sample.below(most.min(self.content.len() as u64)) as usize;
            let at = sample.below((self.content.len() - length + 1) as u64) as usize;
            let bytes = sample.bytes(length);
            self.write(at, &bytes);
        }
    }

    /// Itself, if the volume holds what it should.
    #[track_caller]
    pub fn expect_content(&self) -> &Twin {
        let read = self.tell("read", &[]).expect_ok().stdout;
        let differ = || read.iter().zip(&self.content).position(|(is, should)| is != should);
        let (is, should) = (read.len(), self.content.len());
        assert!(
            read == self.content,
            "{}: differs at {:?}, {is} of {should} bytes",
            self.at.join(&self.name).display(),
            differ()
        );
        self
    }

    /// MD5 of what the volume should hold.
    pub fn md5(&self) -> String {
        md5(&self.content)
    }

    /// A copy of the lab and of its images in the new directory `to`.
    pub fn copy(&self, to: &Path) -> Twin {
        std::fs::create_dir_all(to).expect("the temporary directory takes files");
        let mut command = Command::new("cp");
        let command = command.arg("-r").arg(self.at.join(&self.name)).arg(to);
        process::run(command, Duration::from_secs(60)).expect_ok();
        let moved = |image: &PathBuf| to.join(image.strip_prefix(&self.at).expect("the images are the lab's own"));
        Twin { at: to.to_owned(), images: self.images.iter().map(moved).collect(), ..self.clone() }
    }

    /// Fails the members of these slots.
    #[track_caller]
    pub fn fail(&self, slots: &[usize]) {
        for slot in slots {
            self.does("fail", &[&self.disk(*slot)]);
        }
    }

    /// Takes the failed member of a slot out and puts a new image in its place.
    #[track_caller]
    pub fn renew(&mut self, slot: usize) {
        self.does("remove", &[&self.disk(slot)]);
        self.images[slot] = self.add();
    }

    /// Adds a spare, which takes the place of a slot's member when that is told to `verb`: to fail, or to be replaced.
    #[track_caller]
    pub fn hand_over(&mut self, slot: usize, verb: &str) {
        let spare = self.add();
        self.does(verb, &[&self.disk(slot)]);
        self.images[slot] = spare;
    }

    /// Adds a new image.
    #[track_caller]
    fn add(&self) -> PathBuf {
        let before = self.disks();
        self.does("add", &[]);
        let new = self.disks().into_iter().find(|disk| !before.contains(disk)).expect("a disk was added");
        self.at.join(&self.name).join(format!("{new}.img"))
    }

    /// Takes the failed member of a slot out and puts it back: the bitmap says what it missed.
    #[track_caller]
    pub fn bring_back(&self, slot: usize) {
        let disk = self.disk(slot);
        self.does("remove", &[&disk]).does("re-add", &[&disk]);
    }

    fn disk(&self, slot: usize) -> String {
        let name = self.images[slot].file_stem().expect("images have names").to_string_lossy().into_owned();
        if name.starts_with("disk-") { name } else { format!("disk-{slot}") }
    }

    fn disks(&self) -> Vec<String> {
        let status = self.tell("status", &["--json"]).json();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        members.iter().filter_map(|member| Some(member["disk"].as_str()?.to_owned())).collect()
    }
}
