//! What is offered to clients.

use super::{PIECE, STRIPE_MAX};
use crate::block::Limits;
use crate::nbd::{Info, PAYLOAD_MAX, ReplyStyle, TransmissionFlags};

/// A volume as clients see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// Its name; it is the default export too.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// Bytes.
    pub size: u64,
    /// Requests are multiples of this, in bytes.
    pub block: u32,
    /// Bytes of a full stripe.
    pub stripe: u64,
    /// It takes no writes.
    pub read_only: bool,
    /// What the server calls itself in [sessions](crate::nbd::Session); without, it knows none.
    pub server: Option<u128>,
}

impl Export {
    /// The export of a volume with these limits.
    pub fn new(name: &str, description: &str, limits: Limits, read_only: bool) -> Export {
        Export {
            name: name.to_owned(),
            description: description.to_owned(),
            size: limits.capacity.bytes(),
            block: limits.logical_block.bytes() as u32,
            stripe: limits.preferred.bytes(),
            read_only: read_only || limits.read_only,
            server: None,
        }
    }

    /// Whether a client means this export by `name`.
    pub fn is_called(&self, name: &str) -> bool {
        name.is_empty() || name == self.name
    }

    /// The block sizes to tell: a full stripe serves best, as far as the protocol can say so.
    pub fn block_size(&self) -> Info {
        let preferred = self.stripe.next_power_of_two().clamp(u64::from(self.block), u64::from(PAYLOAD_MAX)) as u32;
        Info::BlockSize { minimum: self.block, preferred, maximum: PAYLOAD_MAX }
    }

    /// What it can, told to a client that agreed to `replies`.
    pub fn flags(&self, replies: ReplyStyle) -> TransmissionFlags {
        let mut flags = TransmissionFlags::HAS_FLAGS
            | TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::CAN_MULTI_CONN
            | TransmissionFlags::SEND_CACHE;
        if self.read_only {
            flags |= TransmissionFlags::READ_ONLY;
        } else {
            flags |=
                TransmissionFlags::SEND_TRIM | TransmissionFlags::SEND_WRITE_ZEROES | TransmissionFlags::SEND_FAST_ZERO;
        }
        flags.set(TransmissionFlags::SEND_DF, replies != ReplyStyle::Simple);
        flags
    }

    /// Where the piece ends that begins at byte `from` of a request that ends at `to`: at a border of full stripes, so
    /// that no stripe is written in two halves, unless they are very long.
    pub fn piece_end(&self, from: u64, to: u64) -> u64 {
        let piece = if self.stripe <= STRIPE_MAX { PIECE.next_multiple_of(self.stripe) } else { PIECE };
        ((from / piece + 1).saturating_mul(piece)).min(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Sectors;

    fn export(stripe: Sectors) -> Export {
        Export::new("lab", "", Limits { preferred: stripe, ..Limits::of_disk(Sectors(1 << 30)) }, false)
    }

    #[test]
    fn pieces_end_where_stripes_do() {
        // Three chunks of 512 KiB.
        let three = export(Sectors(3 * 1024));
        assert_eq!(three.piece_end(0, u64::MAX), 3 << 19);
        assert_eq!(three.piece_end(512, 32 << 20), 3 << 19);
        assert_eq!(three.piece_end(3 << 19, (3 << 19) + 4096), (3 << 19) + 4096);
        // 48 KiB: some stripes to a piece.
        assert_eq!(export(Sectors(96)).piece_end(0, u64::MAX) % (48 << 10), 0);
        // 40 MiB: no piece may be that long.
        assert_eq!(export(Sectors(10 * 8192)).piece_end(5, u64::MAX), PIECE);
    }

    #[test]
    fn block_sizes_keep_to_the_protocol() {
        for stripe in [1, 8, 96, 3 * 1024, 10 * 8192, 1 << 20] {
            let Info::BlockSize { minimum, preferred, maximum } = export(Sectors(stripe)).block_size() else {
                panic!()
            };
            assert!(preferred.is_power_of_two() && preferred >= minimum && preferred <= maximum);
            assert_eq!((minimum, maximum), (512, 32 << 20));
        }
    }
}
