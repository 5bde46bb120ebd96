//! A disk by itself: before it is part of a lab, or as it stands while nobody runs the lab.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::{Leaf, Leaves, StackError};
use crate::block::{Bank, Buf, DeviceId, Durability, Extent, IoError, Lba, Limits, Op, Payload, SECTOR_BYTES, Sectors};
use crate::config::Backing;
use crate::disk::{FileBank, Image, ImageOptions};
use crate::multipath::connections::Connections;
use crate::reactor::Reactor;

/// An open disk, read and written one piece after the other.
pub struct BareDisk {
    kind: Kind,
    limits: Limits,
}

enum Kind {
    /// With the image that has the lock, if it is to be written.
    File {
        file: File,
        _lock: Option<Image>,
    },
    Export(Box<Reactor<Leaves>>, DeviceId),
}

impl BareDisk {
    /// Opens a disk to be read as it stands, without a lock.
    pub fn look(backing: &Backing) -> io::Result<BareDisk> {
        match backing {
            Backing::File(path) => {
                let mut file = File::open(path)?;
                let bytes = file.seek(SeekFrom::End(0))?;
                let limits = Limits::of_disk(Sectors::floor_bytes(bytes));
                Ok(BareDisk { kind: Kind::File { file, _lock: None }, limits })
            }
            Backing::Nbd(_) | Backing::Paths(_) => BareDisk::export(backing, true).map_err(io::Error::other),
        }
    }

    /// Opens a disk to be written. Nobody else may have it, as far as that can be known: an export has no lock.
    pub fn take(backing: &Backing) -> Result<BareDisk, StackError> {
        let Backing::File(path) = backing else { return BareDisk::export(backing, false) };
        let image = Image::open(path, ImageOptions::default())?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| StackError::Bare { backing: Box::new(backing.clone()), source })?;
        Ok(BareDisk { limits: image.limits(), kind: Kind::File { file, _lock: Some(image) } })
    }

    fn export(backing: &Backing, read_only: bool) -> Result<BareDisk, StackError> {
        let mut bank = FileBank::new()
            .and_then(|files| Leaves::new(Leaf::File(files)))
            .map_err(|source| StackError::Bare { backing: Box::new(backing.clone()), source })?;
        let device = bank.open(backing, None, &Connections::default(), read_only)?;
        let limits = bank.limits(device);
        Ok(BareDisk { kind: Kind::Export(Box::new(Reactor::new(bank)), device), limits })
    }

    /// What it takes.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Reads sectors.
    pub fn read(&mut self, at: Lba, length: Sectors) -> io::Result<Vec<u8>> {
        match &mut self.kind {
            Kind::File { file, .. } => {
                let mut bytes = vec![0; length.bytes() as usize];
                file.read_exact_at(&mut bytes, at.bytes()).map(|()| bytes)
            }
            Kind::Export(reactor, device) => {
                let whole = blocks(Extent::new(at, length), self.limits);
                let skip = ((at.0 - whole.start.0) * SECTOR_BYTES) as usize;
                Ok(read_export(reactor, *device, whole)?[skip..][..length.bytes() as usize].to_vec())
            }
        }
    }

    /// Writes sectors of a disk that was [taken](BareDisk::take).
    pub fn write(&mut self, at: Lba, bytes: &[u8]) -> io::Result<()> {
        match &mut self.kind {
            Kind::File { file, .. } => file.write_all_at(bytes, at.bytes()),
            Kind::Export(reactor, device) => {
                let extent = Extent::new(at, Sectors(bytes.len() as u64 / SECTOR_BYTES));
                let whole = blocks(extent, self.limits);
                let payload = match whole == extent {
                    true => Payload::copy_of(bytes),
                    false => {
                        let mut around = read_export(reactor, *device, whole)?;
                        let skip = ((at.0 - whole.start.0) * SECTOR_BYTES) as usize;
                        around[skip..][..bytes.len()].copy_from_slice(bytes);
                        Payload::copy_of(&around)
                    }
                };
                reactor.request(*device, whole, Op::Write(payload, Durability::Volatile)).1.map_err(io::Error::other)
            }
        }
    }

    /// Makes durable what was written.
    pub fn sync(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::File { file, .. } => file.sync_all(),
            Kind::Export(reactor, device) => {
                let nothing = Extent::new(Lba(0), Sectors::ZERO);
                reactor.request(*device, nothing, Op::Flush).1.map_err(io::Error::other)
            }
        }
    }

    /// Whether its first and last MiB are zero, so that nothing of anybody's is lost by making it a member.
    pub fn is_blank(&mut self) -> io::Result<bool> {
        let span = Sectors(1 << 11).min(self.limits.capacity);
        for at in [Lba(0), Lba(self.limits.capacity.0 - span.0)] {
            if self.read(at, span)?.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The whole blocks that hold some sectors.
fn blocks(extent: Extent, limits: Limits) -> Extent {
    let block = limits.logical_block.0;
    let start = extent.start.0 / block * block;
    Extent::new(Lba(start), Sectors(extent.end().0.next_multiple_of(block) - start))
}

fn read_export(reactor: &mut Reactor<Leaves>, device: DeviceId, whole: Extent) -> io::Result<Vec<u8>> {
    match reactor.request(device, whole, Op::Read(Buf::zeroed(whole.length.bytes() as usize))) {
        (Op::Read(buf), Ok(())) => Ok(buf.to_vec()),
        (_, result) => Err(io::Error::other(result.err().unwrap_or(IoError::Medium))),
    }
}
