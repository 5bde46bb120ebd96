//! Loop devices (loop(4)): a file as a block device. Root may make them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `linux/loop.h`.
const LOOP_CLR_FD: libc::Ioctl = 0x4c01;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Others look for a free device at the same time.
const TRIES: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    descriptor: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A loop device that is let go of by the kernel when nobody has it open or mounted any more (autoclear).
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    /// Makes a device of a file: read and written past the page cache, in sectors of `sector` bytes. `found` is told its
    /// name before it is made.
    ///
    /// # Errors
    /// If this process may not, or there is no device left.
    pub fn attach(file: &Path, sector: u32, mut found: impl FnMut(&Path) -> io::Result<()>) -> io::Result<LoopDevice> {
        let backing: OwnedFd = OpenOptions::new().read(true).write(true).open(file)?.into();
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        for _ in 0..TRIES {
            // SAFETY: this request takes no argument.
            let number = cvt(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            found(&path)?;
            let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(&path)?;
            let mut file_name = [0; 64];
            let name = file.as_os_str().as_encoded_bytes();
            let shown = name.len().min(63);
            file_name[..shown].copy_from_slice(&name[..shown]);
            let config = LoopConfig {
                descriptor: backing.as_fd().as_raw_fd() as u32,
                block_size: sector,
                info: LoopInfo {
                    device: 0,
                    inode: 0,
                    rdevice: 0,
                    offset: 0,
                    size_limit: 0,
                    number: 0,
                    encrypt_type: 0,
                    encrypt_key_size: 0,
                    flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
                    file_name,
                    crypt_name: [0; 64],
                    encrypt_key: [0; 32],
                    init: [0; 2],
                },
                reserved: [0; 8],
            };
            // SAFETY: the kernel reads a loop_config there, and keeps the backing file open by itself.
            match cvt(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }) {
                Ok(_) => return Ok(LoopDevice { path, _open: device }),
                // Somebody else was faster.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// `/dev/loop0`, …
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Lets go of a loop device, at once or when the last who has it open closes it. Fine if it is free.
///
/// # Errors
/// If this process may not.
pub fn detach(device: &Path) -> io::Result<()> {
    let open = File::open(device)?;
    // SAFETY: this request takes no argument.
    match cvt(unsafe { libc::ioctl(open.as_raw_fd(), LOOP_CLR_FD, 0) }) {
        Err(error) if error.raw_os_error() != Some(libc::ENXIO) => Err(error),
        _ => Ok(()),
    }
}

/// The file a loop device is made of, as it was named; none if it is free.
pub fn backing_of(device: &Path) -> Option<PathBuf> {
    let name = device.file_name()?.to_str()?;
    let text = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

fn cvt(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
