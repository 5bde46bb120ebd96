//! Any bytes are an error or a bad-block log that is read back as it was understood.
//!
//! Input: shift (1 byte), device size in sectors (8 bytes), then the log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raidlab::block::Sectors;
use raidlab::raid::bad_blocks::BadBlocks;
use raidlab::raid::superblock::{BadBlockLog, SECTORS_MAX};

fuzz_target!(|input: &[u8]| {
    let Some((head, bytes)) = input.split_at_checked(9) else { return };
    let shift = head[0];
    let device = Sectors(u64::from_le_bytes(head[1..].try_into().unwrap()) & SECTORS_MAX.0);
    let Ok(bad) = BadBlocks::decode(bytes, shift, device) else { return };
    assert!(bad.iter().all(|extent| extent.end().0 <= device.0));
    if shift < 32 {
        let log = BadBlockLog { offset: 16, length: Sectors(8), shift, present: true };
        let Ok(encoded) = bad.encode(&log) else { return };
        assert_eq!(BadBlocks::decode(&encoded, shift, device), Ok(bad));
    }
});
