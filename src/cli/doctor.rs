//! `raidlab doctor`: what this host can do, and what to type for the rest.
//!
//! Nothing raidlab needs is more than an ordinary process on an ordinary file system has; what the
//! host offers beyond that makes measurements truer (direct I/O, `io_uring`), or lets real Linux md
//! look at our images.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::block::Buf;
use crate::units::Size;

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// Whether it is there.
    pub state: State,
    /// What that means here.
    pub detail: String,
}

/// Whether something is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// It is.
    Works,
    /// It is not, and this would bring it, or go round it.
    Missing {
        /// What to type or do.
        mend: String,
    },
}

/// Looks at this host, and writes a line for each finding.
///
/// # Errors
/// When `out` takes no more.
pub fn run(out: &mut impl Write) -> io::Result<()> {
    report(&examine(Path::new(".")), out)
}

/// Looks at this host, and at the file system that holds `directory`.
pub fn examine(directory: &Path) -> Vec<Finding> {
    vec![
        images(directory),
        direct_io(directory),
        bench_space(&std::env::temp_dir()),
        ring(),
        loop_devices(),
        fuse(),
        tool("fusermount3", "fuse3", "mounts FUSE for those who are not root: `raidlab mount --file-only`"),
        tool("mkfs.ext4", "e2fsprogs", "makes file systems for `raidlab mount --mkfs ext4`"),
        tool("mkfs.xfs", "xfsprogs", "makes file systems for `raidlab mount --mkfs xfs`"),
        tool("mkfs.btrfs", "btrfs-progs", "makes file systems for `raidlab mount --mkfs btrfs`"),
        tool("mdadm", "mdadm", "compares labs with what Linux md says of them"),
        tool("linux.uml", "user-mode-linux", "runs real Linux md without root: the tests call it"),
        tool("grub-fstest", "grub-common", "reads labs with GRUB's RAID code: the tests call it"),
    ]
}

fn report(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    for Finding { what, state, detail } in findings {
        let word = if *state == State::Works { "ok" } else { "missing" };
        writeln!(out, "{what:width$}  {word:7}  {detail}")?;
        if let State::Missing { mend } = state {
            writeln!(out, "{:width$}  {:7}  -> {mend}", "", "")?;
        }
    }
    Ok(())
}

/// Images are preallocated, so that a full file system is met when a lab is made and not in its midst.
fn images(directory: &Path) -> Finding {
    let what = "disk images";
    let here = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let here = here.display();
    let file = match tempfile::tempfile_in(directory) {
        Ok(file) => file,
        Err(error) => {
            return missing(what, format!("{here} takes no files: {error}"), "change to a directory of yours");
        }
    };
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 4096) {
        Ok(()) => works(what, format!("{} free in {here}", free_space(&file))),
        Err(error) => missing(
            what,
            format!("the file system of {here} preallocates nothing: {error}"),
            "use another file system, or create labs with --sparse",
        ),
    }
}

/// Past the page cache, so that a device is measured and not memory.
fn direct_io(directory: &Path) -> Finding {
    let what = "direct I/O";
    match smallest_direct_write(directory) {
        Ok(bytes) => works(what, format!("O_DIRECT here, in blocks of {bytes} bytes")),
        Err(error) => missing(
            what,
            format!("no O_DIRECT here ({error}): bench measures the page cache"),
            "change to a directory on a disk, or name one with bench --on",
        ),
    }
}

fn smallest_direct_write(directory: &Path) -> io::Result<usize> {
    let file = tempfile::tempfile_in(directory)?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags | OFlags::DIRECT)?;
    let buf = Buf::zeroed(4096);
    let bytes = buf.as_slice().expect("a fresh buffer is in one part");
    match file.write_all_at(&bytes[..512], 0) {
        Ok(()) => Ok(512),
        Err(_) => file.write_all_at(bytes, 0).map(|()| bytes.len()),
    }
}

fn bench_space(directory: &Path) -> Finding {
    let what = "bench space";
    let here = directory.display();
    match tempfile::tempfile_in(directory) {
        Ok(file) => works(what, format!("{} free in {here}, where bench puts its images", free_space(&file))),
        Err(error) => missing(what, format!("{here} takes no files: {error}"), "set TMPDIR to a directory of yours"),
    }
}

fn free_space(file: &File) -> String {
    let free = rustix::fs::fstatvfs(file).map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize));
    // Whole MiB: nobody wants more digits.
    Size(free >> 20 << 20).to_string()
}

/// Many requests in flight from one thread.
fn ring() -> Finding {
    let what = "io_uring";
    let Err(error) = io_uring::IoUring::new(2) else {
        return works(what, "the backend `uring` keeps many requests in flight".into());
    };
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let mend = match switch.trim() {
        "1" | "2" => "as root: sysctl kernel.io_uring_disabled=0",
        _ => "leave it: the backend `file` serves instead",
    };
    missing(what, format!("the kernel refuses it: {error}"), mend)
}

/// Images as block devices, for members and for real md.
/// `raidlab mount` gives the volume as a file through it.
fn fuse() -> Finding {
    let what = "FUSE";
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => works(what, "/dev/fuse: `raidlab mount` works, as root with loop device and file system".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            missing(what, "no /dev/fuse".into(), "as root: modprobe fuse")
        }
        Err(error) => missing(what, format!("/dev/fuse: {error}"), "become root, or let your user read and write it"),
    }
}

fn loop_devices() -> Finding {
    let what = "loop devices";
    match rustix::fs::access("/dev/loop-control", Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => works(what, "losetup --find --show disk-0.img makes an image a block device".into()),
        Err(Errno::NOENT) => missing(what, "no /dev/loop-control".into(), "as root: modprobe loop"),
        Err(error) => missing(what, format!("/dev/loop-control: {error}"), "become root, or a member of group disk"),
    }
}

fn tool(what: &'static str, package: &str, purpose: &str) -> Finding {
    match find(what) {
        Some(path) => works(what, format!("{}: {purpose}", path.display())),
        None => missing(what, purpose.into(), &format!("apt-get install {package}, or your system's package of it")),
    }
}

/// Where `program` is; administrators' tools are not in every user's `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

fn works(what: &'static str, detail: String) -> Finding {
    Finding { what, state: State::Works, detail }
}

fn missing(what: &'static str, detail: String, mend: &str) -> Finding {
    Finding { what, state: State::Missing { mend: mend.into() }, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_followed_by_what_to_type() {
        let findings =
            [works("io_uring", "many requests".into()), missing("mdadm", "compares".into(), "apt-get install mdadm")];
        let mut text = Vec::new();
        report(&findings, &mut text).unwrap();
        let expected = "io_uring  ok       many requests\n\
                        mdadm     missing  compares\n                   -> apt-get install mdadm\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_directory_that_is_not_there_is_said_to_be_missing() {
        let findings = examine(Path::new("/nowhere/at/all"));
        assert!(matches!(findings[0].state, State::Missing { .. }), "{findings:?}");
        assert!(matches!(findings[1].state, State::Missing { .. }), "{findings:?}");
        assert_eq!(findings.len(), 13);
    }

    #[test]
    fn a_writable_directory_holds_images() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(images(directory.path()).state, State::Works);
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "nothing is left behind");
    }
}
