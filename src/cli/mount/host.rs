//! What the host says of mounts (proc_pid_mountinfo(5)) and of who keeps them busy.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// How our FUSE mounts are called, before the lab's path.
const SOURCE: &str = "raidlab:";

/// A mount of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Where.
    pub at: PathBuf,
    /// `ext4`, `fuse.raidlab`, …
    pub kind: String,
    /// The device, or what stands for one.
    pub source: String,
}

impl Mount {
    /// The lab whose FUSE mount it is, if it is one. Mounted by root it is of type `fuse`, by FUSE's helper of
    /// `fuse.raidlab`.
    pub fn lab(&self) -> Option<PathBuf> {
        let is_fuse = self.kind == "fuse" || self.kind.starts_with("fuse.");
        self.source.strip_prefix(SOURCE).filter(|_| is_fuse).map(PathBuf::from)
    }
}

/// What mountinfo shows as the source of a lab's FUSE mount.
pub fn source_of(lab: &Path) -> String {
    format!("{SOURCE}{}", lab.display())
}

/// All mounts there are; those made later come later.
pub fn mounts() -> Vec<Mount> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(parsed).collect()
}

/// The mount whose root a directory is, the topmost if there are several.
pub fn mount_at(at: &Path) -> Option<Mount> {
    mounts().into_iter().rev().find(|mount| mount.at == at)
}

/// Labs that have a FUSE mount here.
pub fn labs() -> Vec<PathBuf> {
    let mut labs: Vec<PathBuf> = mounts().iter().filter_map(Mount::lab).collect();
    labs.dedup();
    labs
}

/// A line of mountinfo: `36 35 98:0 /root /at options - ext4 /dev/source options`, with blanks as `\040`.
fn parsed(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = fields.nth(4)?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| String::from_utf8_lossy(&plain(field)).into_owned();
    let at = PathBuf::from(std::ffi::OsString::from_vec(plain(at)));
    Some(Mount { at, kind: text(rest.next()?), source: text(rest.next()?) })
}

fn plain(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\' && tail.len() >= 3).then(|| std::str::from_utf8(&tail[..3]).ok()).flatten();
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Processes that have a file below `at` open, or live there: `bash (1234)`.
pub fn users_of(at: &Path) -> Vec<String> {
    let mut users = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let path = process.path();
        let links = ["cwd", "root"].iter().map(|link| path.join(link));
        let files = fs::read_dir(path.join("fd")).into_iter().flatten().flatten().map(|file| file.path());
        let mut targets = links.chain(files).filter_map(|link| fs::read_link(link).ok());
        if targets.any(|target| target.starts_with(at)) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            users.push(format!("{} ({pid})", name.trim_end().escape_default()));
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line =
            br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - fuse.raidlab raidlab:/tmp/a\134b rw,errors=continue";
        let mount = parsed(line).unwrap();
        assert_eq!(mount.at, Path::new("/mnt 2"));
        assert_eq!((mount.kind.as_str(), mount.lab()), ("fuse.raidlab", Some(r"/tmp/a\b".into())));
        assert_eq!(parsed(b"36 35 98:0"), None);
    }

    #[test]
    fn the_root_is_mounted_and_this_process_uses_its_directory() {
        assert!(mount_at(Path::new("/")).is_some());
        let here = std::env::current_dir().unwrap();
        assert!(users_of(&here).iter().any(|user| user.contains(&std::process::id().to_string())));
    }
}
