//! What an overlay asks of the two files it stands on.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::block::Payload;

/// Bytes that can be read: all an overlay may do to the original.
pub(super) trait Source {
    /// Fills `bytes` from byte `offset` on.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Bytes that can be changed: the overlay file. Its length is set when it is made.
pub(super) trait Store: Source {
    /// Its length.
    fn bytes(&self) -> io::Result<u64>;

    /// Stores `bytes` from byte `offset` on; on an error any part of them may be stored.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes `length` bytes from `offset` on read as zero, giving back their space where it can.
    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes every change durable.
    fn sync(&mut self) -> io::Result<()>;

    /// The first byte from `offset` on that may be other than zero, as far as holes tell; `None` if all are zero.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

impl<F: Deref<Target = File>> Source for F {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }
}

impl<F: Deref<Target = File>> Store for F {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&**self, punch, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeroes = Payload::zeroes(64 << 10);
                let block = zeroes.slices().next().expect("64 KiB of zeroes are one slice");
                let mut at = offset;
                while at < offset + length {
                    let now = block.len().min((offset + length - at) as usize);
                    self.write_all_at(&block[..now], at)?;
                    at += now as u64;
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&**self, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }
}
