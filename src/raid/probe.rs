//! What a device holds: an md superblock we can work with, one we leave to md, or none.
//!
//! A 1.x superblock may lie in three places. Three older or foreign formats lie elsewhere, and a
//! device that carries one of them is somebody's: it is named and refused, not taken for blank.
//!
//! ```text
//! 1.1 at 0   1.2 at 4 KiB   ...   0.90 in the last whole 64 KiB   1.0 8-12 KiB before the end   IMSM, DDF in the last two sectors
//! ```

use thiserror::Error;

use super::little_endian::u32_at;
use super::superblock::{
    MEMBER_SECTORS_MIN, MinorVersion, SUPERBLOCK_MAGIC, SUPERBLOCK_SECTORS_MAX, Superblock, SuperblockError,
    super_offset,
};
use crate::block::{Lba, SECTOR_BYTES, Sectors};

const DDF_MAGIC: [u8; 4] = [0xde, 0x11, 0xde, 0x11];
const IMSM_SIGNATURE: &[u8] = b"Intel Raid ISM Cfg Sig. ";

/// Metadata, or a state of it, that we leave to md: nothing may be written to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// The format before 1.0.
    #[error("md metadata 0.90: convert it first with mdadm --assemble --update=metadata (to 1.0)")]
    Format090,
    /// SNIA's Disk Data Format, of hardware RAID controllers.
    #[error("DDF metadata of a RAID controller: run it with mdadm, or copy its volume to an array of ours")]
    Ddf,
    /// Intel Matrix Storage.
    #[error("Intel IMSM metadata: run it with mdadm, or copy its volume to an array of ours")]
    Imsm,
    /// The array is changing its shape.
    #[error("a reshape is under way, at sector {} of the array: assemble the array with mdadm and let it finish", position.0)]
    Reshape {
        /// How far it has come, in array sectors.
        position: Sectors,
    },
    /// The data of the member is about to move.
    #[error("the data offset of the member is being changed: assemble the array with mdadm and let it finish")]
    DataMoving,
    /// The array has a write journal, which may hold the only copy of data.
    #[error("the array has a write journal, which may hold newer data than its members: assemble it with mdadm")]
    Journal,
    /// The members have a partial parity log.
    #[error("the array has a partial parity log: switch it off first with mdadm --grow --consistency-policy=resync")]
    Ppl,
    /// The bitmap is shared by the nodes of a cluster.
    #[error("the array has a clustered bitmap: remove it first with mdadm --grow --bitmap=none")]
    Clustered,
    /// A level that is not redundant storage: linear, multipath, faulty.
    #[error("level {level} (linear, multipath or faulty) is none of 0, 1, 4, 5, 6 and 10: use mdadm for it")]
    Level {
        /// The level.
        level: i32,
    },
}

/// Why a device is no member to work with.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ProbeError<E> {
    /// Reading it failed.
    #[error("cannot read superblock: {0}")]
    Read(E),
    /// There is no superblock on it.
    #[error("no md superblock")]
    NotAMember,
    /// There is one, but it is damaged or makes no sense.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// It carries another format.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Finds the superblock on a device of `device` sectors. `read` gives all bytes of the sectors it is
/// asked for, which lie on the device and begin and, but for the last, end on multiples of 8.
///
/// Of several superblocks the one created last counts, as in mdadm. A found superblock may still be
/// [`Superblock::unsupported`].
pub fn probe<E>(
    device: Sectors,
    mut read: impl FnMut(Lba, Sectors) -> Result<Vec<u8>, E>,
) -> Result<Superblock, ProbeError<E>> {
    let mut newest: Option<Superblock> = None;
    let mut broken = None;
    for minor in MinorVersion::ALL {
        let Some(at) = super_offset(minor, device) else { break };
        let bytes = read(at, SUPERBLOCK_SECTORS_MAX).map_err(ProbeError::Read)?;
        match Superblock::decode(&bytes, minor, at, device) {
            Ok(found) => {
                if newest.as_ref().is_none_or(|newest| newest.created < found.created) {
                    newest = Some(found);
                }
            }
            Err(SuperblockError::NoMagic { .. }) => {}
            Err(error) => broken = Some(error),
        }
    }
    if let Some(found) = newest {
        return Ok(found);
    }
    if let Some(refusal) = foreign(device, read).map_err(ProbeError::Read)? {
        return Err(refusal.into());
    }
    Err(broken.map_or(ProbeError::NotAMember, ProbeError::Superblock))
}

/// The format other than 1.x that is on the device.
fn foreign<E>(device: Sectors, mut read: impl FnMut(Lba, Sectors) -> Result<Vec<u8>, E>) -> Result<Option<Refusal>, E> {
    if device >= Sectors(128) {
        let bytes = read(Lba((device.0 & !127) - 128), SUPERBLOCK_SECTORS_MAX)?;
        let big_endian = u32::from_be_bytes(bytes[..4].try_into().expect("4 bytes"));
        // In the byte order of the machine that wrote it; the major version is zero in both.
        if [u32_at(&bytes, 0), big_endian].contains(&SUPERBLOCK_MAGIC) && u32_at(&bytes, 4) == 0 {
            return Ok(Some(Refusal::Format090));
        }
    }
    if device < MEMBER_SECTORS_MIN {
        return Ok(None);
    }
    let last = Lba((device.0 - 2) & !7);
    let bytes = read(last, Sectors(device.0 - last.0))?;
    let sector = |from_end: usize| &bytes[bytes.len() - from_end * SECTOR_BYTES as usize..];
    if sector(1).starts_with(&DDF_MAGIC) {
        return Ok(Some(Refusal::Ddf));
    }
    Ok(sector(2).starts_with(IMSM_SIGNATURE).then_some(Refusal::Imsm))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::raid::golden::Member;

    fn probe_bytes(bytes: &[u8]) -> Result<Superblock, ProbeError<Infallible>> {
        probe(Sectors::floor_bytes(bytes.len() as u64), |at, length| {
            Ok(bytes[at.bytes() as usize..][..length.bytes() as usize].to_vec())
        })
    }

    #[test]
    fn a_superblock_is_found_in_any_of_its_three_places() {
        for (name, minor) in
            [("r1v10-0", MinorVersion::V1_0), ("r5v11bm-0", MinorVersion::V1_1), ("r1-0", MinorVersion::V1_2)]
        {
            assert_eq!(Member::load(name).probe().unwrap().minor, minor);
        }
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        assert_eq!(Member::load("v090-0").probe(), Err(Refusal::Format090.into()));
        assert_eq!(Member::load("ddf-0").probe(), Err(Refusal::Ddf.into()));
        for sectors in [24, 128, 1001, 1008] {
            let mut bytes = vec![0; sectors * 512];
            bytes[(sectors - 2) * 512..][..IMSM_SIGNATURE.len()].copy_from_slice(IMSM_SIGNATURE);
            assert_eq!(probe_bytes(&bytes), Err(Refusal::Imsm.into()));
        }
    }

    #[test]
    fn a_blank_device_of_any_size_is_no_member() {
        for sectors in (0..300).chain([100_000, 100_001]) {
            assert_eq!(probe_bytes(&vec![0; sectors * 512]), Err(ProbeError::NotAMember));
        }
    }

    #[test]
    fn a_damaged_superblock_is_not_a_blank_device() {
        let mut bytes = vec![0; 1 << 20];
        bytes[4096..4100].copy_from_slice(&SUPERBLOCK_MAGIC.to_le_bytes());
        bytes[4100] = 1;
        assert!(matches!(probe_bytes(&bytes), Err(ProbeError::Superblock(SuperblockError::Checksum { .. }))));
    }
}
