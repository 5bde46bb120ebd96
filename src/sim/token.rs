//! What a test write writes: in every sector a token that names its address, its writer and its age.
//!
//! A value read back then says where it came from, and a sector that came from nowhere is seen at
//! once. The check value must not be linear: a parity array that goes wrong returns the exclusive or
//! of several sectors, and the exclusive or of three CRC-carrying tokens carries a right CRC again.

use crate::block::{Extent, Lba, Payload};

use super::trace::mix;

/// Bytes of one token. A sector holds it repeated, so its grain is a multiple of this.
pub(super) const TOKEN_BYTES: usize = 32;

/// One write's mark on one sector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// The sector it was written to.
    pub lba: Lba,
    /// The number of the write.
    pub write: u64,
    /// How many crashes the world had seen when the write was submitted.
    pub epoch: u32,
}

/// What a sector reads as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// All zero: never written, or discarded.
    Zero,
    /// One token, whole and repeated.
    Token(Token),
    /// Anything else.
    Garbage,
}

impl Token {
    /// The token as it is stored: four little-endian 64-bit numbers, the last one the check value.
    fn bytes(self) -> [u8; TOKEN_BYTES] {
        let fields = [self.lba.0, self.write, u64::from(self.epoch)];
        let check = fields.iter().fold(0x7261_6964_6c61_6200, |check, field| mix(check ^ field));
        let mut bytes = [0; TOKEN_BYTES];
        for (bytes, field) in bytes.chunks_exact_mut(8).zip(fields.into_iter().chain([check])) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// What write `write` of age `epoch` stores over `extent`, `grain` bytes a sector.
    pub fn payload(extent: Extent, grain: u32, write: u64, epoch: u32) -> Payload {
        let mut bytes = Vec::with_capacity(extent.length.at_grain(grain));
        for lba in extent.range() {
            let token = Token { lba: Lba(lba), write, epoch }.bytes();
            for _ in 0..grain as usize / TOKEN_BYTES {
                bytes.extend_from_slice(&token);
            }
        }
        Payload::from(bytes::Bytes::from(bytes))
    }
}

impl Value {
    /// What the bytes of one sector say.
    pub fn of(sector: &[u8]) -> Value {
        let (first, rest) = sector.split_first_chunk::<TOKEN_BYTES>().expect("a sector holds a token");
        if rest.chunks(TOKEN_BYTES).any(|copy| copy != first) {
            return Value::Garbage;
        }
        if first.iter().all(|&byte| byte == 0) {
            return Value::Zero;
        }
        let field = |at: usize| u64::from_le_bytes(first[at..at + 8].try_into().expect("eight bytes"));
        let Ok(epoch) = u32::try_from(field(16)) else { return Value::Garbage };
        let token = Token { lba: Lba(field(0)), write: field(8), epoch };
        if token.bytes() == *first { Value::Token(token) } else { Value::Garbage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Sectors;

    fn sector(lba: u64, write: u64, grain: u32) -> Vec<u8> {
        Token::payload(Extent::new(Lba(lba), Sectors(1)), grain, write, 3).to_vec()
    }

    #[test]
    fn a_token_is_read_back_at_every_grain() {
        for grain in [64, 128, 512] {
            let token = Token { lba: Lba(9), write: 77, epoch: 3 };
            assert_eq!(Value::of(&sector(9, 77, grain)), Value::Token(token));
            assert_eq!(Value::of(&vec![0; grain as usize]), Value::Zero);
        }
    }

    #[test]
    fn any_changed_byte_makes_garbage() {
        for at in 0..64 {
            let mut bytes = sector(9, 77, 64);
            bytes[at] ^= 0x10;
            assert_eq!(Value::of(&bytes), Value::Garbage, "byte {at}");
        }
    }

    /// What a reconstruction from stale parity returns: the sector wanted, plus the difference of
    /// two versions of a neighbour. Address, epoch and even the write number can come out plausible.
    #[test]
    fn the_exclusive_or_of_three_tokens_is_garbage() {
        let (wanted, old, new) = (sector(5, 8, 64), sector(6, 2, 64), sector(6, 3, 64));
        let mixed: Vec<u8> = (0..64).map(|at| wanted[at] ^ old[at] ^ new[at]).collect();
        assert_eq!(mixed[..8], 5_u64.to_le_bytes());
        assert_eq!(Value::of(&mixed), Value::Garbage);
    }
}
