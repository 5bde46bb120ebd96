//! Requests: what a client wants done.
//!
//! ```text
//!   compact:  magic 32 | flags 16 | command 16 | cookie 64 | offset 64 | length 32          28 bytes
//!   extended: magic 32 | flags 16 | command 16 | cookie 64 | offset 64 | length 64          32 bytes
//! ```
//!
//! The payload of a write follows its header. In extended headers the flag `PAYLOAD_LEN` says that the length is that
//! of a payload; without it the length says how much of the export is meant.

use bitflags::bitflags;

use super::wire::Fields;
use super::{Head, Violation};

const COMPACT_MAGIC: u32 = 0x2560_9513;
const EXTENDED_MAGIC: u32 = 0x21e4_1c71;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Bytes to the client.
    Read,
    /// Bytes from the client.
    Write,
    /// The client goes; no reply.
    Disconnect,
    /// Make durable what was acknowledged.
    Flush,
    /// Forget a range.
    Trim,
    /// A range will be wanted soon.
    Cache,
    /// Make a range read as zero.
    WriteZeroes,
    /// What is known of a range.
    BlockStatus,
}

bitflags! {
    /// How to do it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct CommandFlags: u16 {
        /// Durable before the reply.
        const FUA = 1;
        /// Zeroes keep their room.
        const NO_HOLE = 1 << 1;
        /// One content chunk at most.
        const DF = 1 << 2;
        /// One extent at most.
        const REQ_ONE = 1 << 3;
        /// Zeroes only if that is faster than a write.
        const FAST_ZERO = 1 << 4;
        /// The length is that of a payload (extended headers).
        const PAYLOAD_LEN = 1 << 5;
        /// Flags yet unknown are kept, to be refused.
        const _ = !0;
    }
}

/// Which of the two headers was agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestStyle {
    /// 28 bytes.
    Compact,
    /// 32 bytes.
    Extended,
}

/// The header of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    /// How to do it.
    pub flags: CommandFlags,
    /// What to do; [`RequestHeader::command`] says what it means.
    pub number: u16,
    /// Comes back with the reply.
    pub cookie: u64,
    /// The first byte of the export that is meant.
    pub offset: u64,
    /// How many bytes, of the export or of payload.
    pub length: u64,
}

impl Command {
    const ALL: [Command; 8] = [
        Command::Read,
        Command::Write,
        Command::Disconnect,
        Command::Flush,
        Command::Trim,
        Command::Cache,
        Command::WriteZeroes,
        Command::BlockStatus,
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }
}

impl RequestStyle {
    /// Bytes of a header.
    pub const fn header_bytes(self) -> usize {
        match self {
            RequestStyle::Compact => 28,
            RequestStyle::Extended => 32,
        }
    }
}

impl RequestHeader {
    /// What to do; `None` if the protocol has no such command.
    pub fn command(&self) -> Option<Command> {
        Command::ALL.get(usize::from(self.number)).copied()
    }

    /// How many bytes of payload follow.
    pub fn payload(&self, style: RequestStyle) -> u64 {
        // QEMU's client (10.0) does not set the flag on the payload of a write.
        let follows = self.command() == Some(Command::Write)
            || (style == RequestStyle::Extended && self.flags.contains(CommandFlags::PAYLOAD_LEN));
        if follows { self.length } else { 0 }
    }

    /// The bytes of the header. A compact one has room for 32 bits of length.
    pub fn encode(&self, style: RequestStyle) -> Head {
        let mut head = Head::new();
        head.extend_from_slice(&magic_of(style).to_be_bytes());
        head.extend_from_slice(&self.flags.bits().to_be_bytes());
        head.extend_from_slice(&self.number.to_be_bytes());
        head.extend_from_slice(&self.cookie.to_be_bytes());
        head.extend_from_slice(&self.offset.to_be_bytes());
        match style {
            RequestStyle::Compact => {
                let length = u32::try_from(self.length).expect("a compact request is below 4 GiB");
                head.extend_from_slice(&length.to_be_bytes());
            }
            RequestStyle::Extended => head.extend_from_slice(&self.length.to_be_bytes()),
        }
        head
    }

    /// The header that `bytes` begin with.
    pub fn decode(style: RequestStyle, bytes: &[u8]) -> Result<Option<RequestHeader>, Violation> {
        let mut fields = Fields(bytes);
        let Some(magic) = fields.u32() else { return Ok(None) };
        if magic != magic_of(style) {
            return Err(Violation::Magic { found: magic.into() });
        }
        let mut rest = || {
            let flags = CommandFlags::from_bits_retain(fields.u16()?);
            let (number, cookie, offset) = (fields.u16()?, fields.u64()?, fields.u64()?);
            let length = match style {
                RequestStyle::Compact => fields.u32()?.into(),
                RequestStyle::Extended => fields.u64()?,
            };
            Some(RequestHeader { flags, number, cookie, offset, length })
        };
        Ok(rest())
    }
}

fn magic_of(style: RequestStyle) -> u32 {
    match style {
        RequestStyle::Compact => COMPACT_MAGIC,
        RequestStyle::Extended => EXTENDED_MAGIC,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_have_the_numbers_of_the_protocol() {
        for (number, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(command.number()), number);
        }
    }

    #[test]
    fn a_request_is_laid_out_as_the_protocol_draws_it() {
        let flags = CommandFlags::FUA;
        let request = RequestHeader { flags, number: 1, cookie: 0x0102_0304_0506_0708, offset: 512, length: 4096 };
        let bytes = request.encode(RequestStyle::Compact);
        let expected: [u8; 28] =
            [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0x10, 0];
        assert_eq!(bytes[..], expected);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            flags: u16, number: u16, cookie: u64, offset: u64, length: u32, extended: bool, cut in 0_usize..28,
        ) {
            let style = if extended { RequestStyle::Extended } else { RequestStyle::Compact };
            let length = u64::from(length) << if extended { 16 } else { 0 };
            let flags = CommandFlags::from_bits_retain(flags);
            let request = RequestHeader { flags, number, cookie, offset, length };
            let bytes = request.encode(style);
            prop_assert_eq!(bytes.len(), style.header_bytes());
            prop_assert_eq!(RequestHeader::decode(style, &bytes), Ok(Some(request)));
            prop_assert_eq!(RequestHeader::decode(style, &bytes[..cut]), Ok(None));
        }

        #[test]
        fn any_bytes_are_a_request_or_none(bytes: Vec<u8>, extended: bool) {
            let style = if extended { RequestStyle::Extended } else { RequestStyle::Compact };
            if let Ok(Some(request)) = RequestHeader::decode(style, &bytes) {
                prop_assert_eq!(&request.encode(style)[..], &bytes[..style.header_bytes()]);
            }
        }
    }
}
