//! Members that real md made, kept as their metadata without the zeroes: `tests/golden/README.md`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use super::probe::{ProbeError, probe};
use super::superblock::{MinorVersion, Superblock, SuperblockError, super_offset};
use crate::block::{Lba, SECTOR_BYTES, Sectors};

/// Every member with a 1.x superblock.
pub(crate) const MEMBERS: [&str; 37] = [
    "r0-0",
    "r0zones-1",
    "r1-0",
    "r1-2T-0",
    "r10-15T-0",
    "r10f2-1",
    "r10n2-0",
    "r10o3-4",
    "r1bb-1",
    "r1sync-0",
    "r1v10-0",
    "r1wm-2",
    "r4-2",
    "r5-0",
    "r5-3",
    "r5-4",
    "r5big-2",
    "r5bm-0",
    "r5d10-9G-0",
    "r5dirty-0",
    "r5jnl-0",
    "r5jnl-3",
    "r5miss-0",
    "r5n-9G-0",
    "r5ppl-0",
    "r5rec-0",
    "r5rec-3",
    "r5rep-1",
    "r5rep-3",
    "r5resh-0",
    "r5resh-3",
    "r5v10bm-0",
    "r5v11bm-0",
    "r6-0",
    "r6-1",
    "r6-3",
    "linear-0",
];

/// The bad blocks of `r1bb-1`: start and length.
pub(crate) const BAD_BLOCKS: [(u64, u64); 3] = [(3048, 1), (5000, 600), (9000, 512)];

/// A member: its metadata, and zeroes elsewhere.
pub(crate) struct Member {
    pub(crate) device: Sectors,
    sectors: BTreeMap<u64, Vec<u8>>,
}

/// A file of `tests/golden`.
pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Member {
    pub(crate) fn load(name: &str) -> Member {
        let bytes = file(&format!("{name}.bin"));
        let number = |at: &[u8]| u64::from_le_bytes(at[..8].try_into().unwrap());
        let sectors = bytes[8..].chunks(8 + SECTOR_BYTES as usize).map(|c| (number(c), c[8..].to_vec())).collect();
        Member { device: Sectors(number(&bytes)), sectors }
    }

    pub(crate) fn read(&self, at: Lba, length: Sectors) -> Vec<u8> {
        assert!(at.0 + length.0 <= self.device.0, "{length:?} at {at:?} beyond {:?}", self.device);
        let zeroes = vec![0; SECTOR_BYTES as usize];
        (at.0..at.0 + length.0).flat_map(|lba| self.sectors.get(&lba).unwrap_or(&zeroes).clone()).collect()
    }

    pub(crate) fn superblock(&self, minor: MinorVersion) -> Result<Superblock, SuperblockError> {
        let at = super_offset(minor, self.device).unwrap();
        Superblock::decode(&self.read(at, Sectors(8)), minor, at, self.device)
    }

    pub(crate) fn probe(&self) -> Result<Superblock, ProbeError<Infallible>> {
        probe(self.device, |at, length| Ok(self.read(at, length)))
    }
}
