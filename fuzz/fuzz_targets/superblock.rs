//! Any bytes are an error or a superblock that is written back as it was read.
//!
//! Input: minor version (1 byte), device size in sectors (8 bytes), then the superblock. The checksum
//! is made right first, or no input would get past it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raidlab::block::Sectors;
use raidlab::raid::superblock::{MinorVersion, ROLES_MAX, SECTORS_MAX, Superblock, super_offset};

const ROLES_AT: usize = 256;

fn checksum(bytes: &[u8], roles: usize) -> u32 {
    let mut summed = bytes[..ROLES_AT + 2 * roles].to_vec();
    summed[216..220].fill(0);
    summed.resize(summed.len().next_multiple_of(4), 0);
    let words = summed.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum: u64 = words.sum();
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

fuzz_target!(|input: &[u8]| {
    let Some((head, bytes)) = input.split_at_checked(9) else { return };
    let minor = MinorVersion::ALL[usize::from(head[0]) % 3];
    let device = Sectors(u64::from_le_bytes(head[1..].try_into().unwrap()) & SECTORS_MAX.0);
    let Some(at) = super_offset(minor, device) else { return };
    let mut bytes = bytes.to_vec();
    if bytes.len() >= ROLES_AT {
        let roles = u32::from_le_bytes(bytes[220..224].try_into().unwrap()) as usize;
        if roles <= ROLES_MAX && bytes.len() >= ROLES_AT + 2 * roles {
            let sum = checksum(&bytes, roles);
            bytes[216..220].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let Ok(superblock) = Superblock::decode(&bytes, minor, at, device) else { return };
    let encoded = superblock.encode();
    assert_eq!(encoded[..], bytes[..encoded.len()]);
    assert_eq!(Superblock::decode(&encoded, minor, at, device).as_ref(), Ok(&superblock));
    assert!(superblock.data.end().0 <= device.0 && superblock.used() <= superblock.data.length);
    let areas = [Some(superblock.extent()), superblock.bad_block_log_extent()];
    assert!(areas.into_iter().flatten().all(|area| area.end().0 <= device.0));
    assert!(superblock.bitmap_at().is_none_or(|at| at.0 + superblock.bitmap_space().0 <= device.0));
    let _ = superblock.unsupported();
});
