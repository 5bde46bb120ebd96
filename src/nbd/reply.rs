//! Replies: how it went.
//!
//! ```text
//!   simple:     magic 32 | error 32 | cookie 64                                       then the bytes of a read
//!   structured: magic 32 | flags 16 | type 16 | cookie 64 | length 32                 then the payload of the chunk
//!   extended:   magic 32 | flags 16 | type 16 | cookie 64 | offset 64 | length 64     then the payload of the chunk
//! ```
//!
//! A chunk's payload: `offset 64, bytes` of a read; `offset 64, length 32` of a hole; `error 32, length 16, text` of an
//! error and `offset 64` behind it where it has a place; `context 32, (length 32, flags 32)…` of a block status, which
//! in extended replies is `context 32, count 32, (length 64, flags 64)…`.

use smallvec::SmallVec;

use super::wire::{Fields, text};
use super::{NbdError, STRING_MAX, Violation};

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_MAGIC: u32 = 0x6e8a_278c;

const FLAG_DONE: u16 = 1;

const NONE: u16 = 0;
const OFFSET_DATA: u16 = 1;
const OFFSET_HOLE: u16 = 2;
const BLOCK_STATUS: u16 = 5;
const BLOCK_STATUS_EXT: u16 = 6;
const ERROR: u16 = 1 << 15 | 1;
const ERROR_OFFSET: u16 = 1 << 15 | 2;

/// Bytes of a payload that come before what it is about: an offset.
const OFFSET_BYTES: u64 = 8;

/// The bytes of a header, and of a payload where that is short.
pub type Head = SmallVec<[u8; 64]>;

/// How replies look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyStyle {
    /// A header, then the bytes of a read.
    Simple,
    /// Chunks.
    Structured,
    /// Chunks with longer headers.
    Extended,
}

/// A piece of a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Chunk {
    /// Nothing more to say.
    None,
    /// `length` bytes of the export from `offset` on; they follow the chunk.
    Data {
        /// Where they lie.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// Zeroes that need not travel.
    Hole {
        /// Where they lie.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// It failed.
    Error {
        /// Why.
        error: NbdError,
        /// Why, for people.
        message: String,
    },
    /// It failed at one place.
    ErrorOffset {
        /// Why.
        error: NbdError,
        /// Why, for people.
        message: String,
        /// Where.
        offset: u64,
    },
    /// What is known of consecutive extents.
    BlockStatus {
        /// In which metadata context.
        context: u32,
        /// Length in bytes, and flags. Outside of extended replies both are below 2^32.
        extents: Vec<(u64, u64)>,
    },
}

/// The header a reply begins with, as a client finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyHeader {
    /// All there is to say, but for the bytes of a read that went well.
    Simple {
        /// Why it failed, if it did.
        error: Option<NbdError>,
        /// Of the request.
        cookie: u64,
    },
    /// A chunk follows.
    Chunk {
        /// It is the last of its reply.
        done: bool,
        /// What it is: the number on the wire.
        kind: u16,
        /// Of the request.
        cookie: u64,
        /// Offset of the request, where the style repeats it.
        offset: Option<u64>,
        /// Bytes of payload.
        length: u64,
    },
}

/// A simple reply.
pub fn simple_reply(cookie: u64, error: Option<NbdError>) -> Head {
    let mut head = Head::new();
    head.extend_from_slice(&SIMPLE_MAGIC.to_be_bytes());
    head.extend_from_slice(&error.map_or(0, NbdError::number).to_be_bytes());
    head.extend_from_slice(&cookie.to_be_bytes());
    head
}

impl Chunk {
    /// The chunk with its header: a reply to the request `cookie` at `request_offset`. The bytes of [`Chunk::Data`]
    /// are to follow.
    pub fn encode(&self, style: ReplyStyle, cookie: u64, request_offset: u64, done: bool) -> Head {
        let mut head = Head::new();
        let kind = self.kind(style);
        let length = self.payload_bytes(style);
        let flags = if done { FLAG_DONE } else { 0 };
        match style {
            ReplyStyle::Simple => panic!("a simple reply has no chunks"),
            ReplyStyle::Structured => {
                head.extend_from_slice(&STRUCTURED_MAGIC.to_be_bytes());
                head.extend_from_slice(&flags.to_be_bytes());
                head.extend_from_slice(&kind.to_be_bytes());
                head.extend_from_slice(&cookie.to_be_bytes());
                let length = u32::try_from(length).expect("a chunk is below 4 GiB");
                head.extend_from_slice(&length.to_be_bytes());
            }
            ReplyStyle::Extended => {
                head.extend_from_slice(&EXTENDED_MAGIC.to_be_bytes());
                head.extend_from_slice(&flags.to_be_bytes());
                head.extend_from_slice(&kind.to_be_bytes());
                head.extend_from_slice(&cookie.to_be_bytes());
                head.extend_from_slice(&request_offset.to_be_bytes());
                head.extend_from_slice(&length.to_be_bytes());
            }
        }
        self.put_payload(style, &mut head);
        head
    }

    fn kind(&self, style: ReplyStyle) -> u16 {
        match self {
            Chunk::None => NONE,
            Chunk::Data { .. } => OFFSET_DATA,
            Chunk::Hole { .. } => OFFSET_HOLE,
            Chunk::Error { .. } => ERROR,
            Chunk::ErrorOffset { .. } => ERROR_OFFSET,
            Chunk::BlockStatus { .. } if style == ReplyStyle::Extended => BLOCK_STATUS_EXT,
            Chunk::BlockStatus { .. } => BLOCK_STATUS,
        }
    }

    fn payload_bytes(&self, style: ReplyStyle) -> u64 {
        match self {
            Chunk::None => 0,
            Chunk::Data { length, .. } => OFFSET_BYTES + u64::from(*length),
            Chunk::Hole { .. } => OFFSET_BYTES + 4,
            Chunk::Error { message, .. } => 6 + message.len() as u64,
            Chunk::ErrorOffset { message, .. } => 6 + message.len() as u64 + OFFSET_BYTES,
            Chunk::BlockStatus { extents, .. } if style == ReplyStyle::Extended => 8 + 16 * extents.len() as u64,
            Chunk::BlockStatus { extents, .. } => 4 + 8 * extents.len() as u64,
        }
    }

    fn put_payload(&self, style: ReplyStyle, head: &mut Head) {
        match self {
            Chunk::None => {}
            Chunk::Data { offset, .. } => head.extend_from_slice(&offset.to_be_bytes()),
            Chunk::Hole { offset, length } => {
                head.extend_from_slice(&offset.to_be_bytes());
                head.extend_from_slice(&length.to_be_bytes());
            }
            Chunk::Error { error, message } => put_error(head, *error, message),
            Chunk::ErrorOffset { error, message, offset } => {
                put_error(head, *error, message);
                head.extend_from_slice(&offset.to_be_bytes());
            }
            Chunk::BlockStatus { context, extents } => {
                head.extend_from_slice(&context.to_be_bytes());
                if style == ReplyStyle::Extended {
                    head.extend_from_slice(&(extents.len() as u32).to_be_bytes());
                }
                for (length, flags) in extents {
                    for field in [*length, *flags] {
                        if style == ReplyStyle::Extended {
                            head.extend_from_slice(&field.to_be_bytes());
                        } else {
                            let field = u32::try_from(field).expect("an extent of a structured reply is below 4 GiB");
                            head.extend_from_slice(&field.to_be_bytes());
                        }
                    }
                }
            }
        }
    }

    /// Reads the payload of a chunk of `kind` that is `length` bytes long, and says how many of `payload` it took. Of
    /// [`Chunk::Data`] only the offset is taken: the bytes behind it are the caller's.
    pub fn decode(kind: u16, length: u64, payload: &[u8]) -> Result<Option<(Chunk, usize)>, Violation> {
        let needed = if kind == OFFSET_DATA { OFFSET_BYTES } else { length };
        if needed > (8 << 20) + 8 {
            return Err(Violation::TooLong { length });
        }
        let Some(bytes) = payload.get(..needed as usize) else { return Ok(None) };
        let chunk = Chunk::of_payload(kind, length, Fields(bytes)).ok_or(Violation::Malformed)?;
        Ok(Some((chunk, needed as usize)))
    }

    fn of_payload(kind: u16, length: u64, mut fields: Fields<'_>) -> Option<Chunk> {
        let chunk = match kind {
            NONE => Chunk::None,
            OFFSET_DATA => {
                let bytes = length.checked_sub(OFFSET_BYTES).filter(|bytes| *bytes > 0)?;
                Chunk::Data { offset: fields.u64()?, length: u32::try_from(bytes).ok()? }
            }
            OFFSET_HOLE => Chunk::Hole { offset: fields.u64()?, length: fields.u32().filter(|length| *length > 0)? },
            BLOCK_STATUS => {
                let context = fields.u32()?;
                let mut extents = Vec::new();
                while !fields.is_empty() {
                    extents.push((fields.u32()?.into(), fields.u32()?.into()));
                }
                Chunk::BlockStatus { context, extents }
            }
            BLOCK_STATUS_EXT => {
                let (context, count) = (fields.u32()?, fields.u32()?);
                let mut extents = Vec::new();
                while !fields.is_empty() {
                    extents.push((fields.u64()?, fields.u64()?));
                }
                (extents.len() == count as usize).then_some(Chunk::BlockStatus { context, extents })?
            }
            // An error of a kind yet unknown is an error all the same.
            _ if kind & 1 << 15 != 0 => {
                let error = NbdError::from_number(fields.u32().filter(|number| *number != 0)?);
                let message_bytes = fields.u16()?;
                let message = text(fields.bytes(message_bytes.into())?)?;
                match kind {
                    ERROR_OFFSET => Chunk::ErrorOffset { error, message, offset: fields.u64()? },
                    _ => {
                        fields = Fields(&[]);
                        Chunk::Error { error, message }
                    }
                }
            }
            _ => return None,
        };
        let well_formed = match &chunk {
            Chunk::BlockStatus { extents, .. } => !extents.is_empty() && extents.iter().all(|(length, _)| *length > 0),
            _ => true,
        };
        (fields.is_empty() && well_formed).then_some(chunk)
    }
}

fn put_error(head: &mut Head, error: NbdError, message: &str) {
    assert!(message.len() <= STRING_MAX, "a message of {} bytes", message.len());
    head.extend_from_slice(&error.number().to_be_bytes());
    head.extend_from_slice(&(message.len() as u16).to_be_bytes());
    head.extend_from_slice(message.as_bytes());
}

impl ReplyHeader {
    /// The header that `bytes` begin with, and how long it is.
    pub fn decode(style: ReplyStyle, bytes: &[u8]) -> Result<Option<(ReplyHeader, usize)>, Violation> {
        let mut fields = Fields(bytes);
        let Some(magic) = fields.u32() else { return Ok(None) };
        let header = match (style, magic) {
            (ReplyStyle::Simple | ReplyStyle::Structured, SIMPLE_MAGIC) => simple_header(fields).map(|head| (head, 16)),
            (ReplyStyle::Structured, STRUCTURED_MAGIC) => chunk_header(fields, false).map(|head| (head, 20)),
            (ReplyStyle::Extended, EXTENDED_MAGIC) => chunk_header(fields, true).map(|head| (head, 32)),
            _ => return Err(Violation::Magic { found: magic.into() }),
        };
        Ok(header)
    }
}

fn simple_header(mut fields: Fields<'_>) -> Option<ReplyHeader> {
    let error = match fields.u32()? {
        0 => None,
        number => Some(NbdError::from_number(number)),
    };
    Some(ReplyHeader::Simple { error, cookie: fields.u64()? })
}

fn chunk_header(mut fields: Fields<'_>, extended: bool) -> Option<ReplyHeader> {
    let done = fields.u16()? & FLAG_DONE != 0;
    let (kind, cookie) = (fields.u16()?, fields.u64()?);
    let (offset, length) = match extended {
        true => (Some(fields.u64()?), fields.u64()?),
        false => (None, fields.u32()?.into()),
    };
    Some(ReplyHeader::Chunk { done, kind, cookie, offset, length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_error() -> impl Strategy<Value = NbdError> {
        prop_oneof![Just(1_u32), Just(5), Just(12), Just(22), Just(28), Just(75), Just(95), Just(108)]
            .prop_map(NbdError::from_number)
    }

    fn any_chunk() -> impl Strategy<Value = Chunk> {
        let extents = proptest::collection::vec((1_u64..1 << 32, 0_u64..1 << 32), 1..20);
        prop_oneof![
            Just(Chunk::None),
            (any::<u64>(), 1_u32..1 << 30).prop_map(|(offset, length)| Chunk::Data { offset, length }),
            (any::<u64>(), 1_u32..).prop_map(|(offset, length)| Chunk::Hole { offset, length }),
            (any_error(), "[a-z ]{0,100}").prop_map(|(error, message)| Chunk::Error { error, message }),
            (any_error(), "[a-z ]{0,100}", any::<u64>()).prop_map(|(error, message, offset)| Chunk::ErrorOffset {
                error,
                message,
                offset
            }),
            (any::<u32>(), extents).prop_map(|(context, extents)| Chunk::BlockStatus { context, extents }),
        ]
    }

    proptest! {
        #[test]
        fn a_chunk_that_was_encoded_is_decoded(
            chunk in any_chunk(), cookie: u64, request_offset: u64, done: bool, extended: bool,
        ) {
            let style = if extended { ReplyStyle::Extended } else { ReplyStyle::Structured };
            let bytes = chunk.encode(style, cookie, request_offset, done);
            let (header, used) = ReplyHeader::decode(style, &bytes).unwrap().unwrap();
            let ReplyHeader::Chunk { done: was_done, kind, cookie: of, offset, length } = header else {
                panic!("{header:?} is not a chunk");
            };
            prop_assert_eq!((was_done, of, offset), (done, cookie, extended.then_some(request_offset)));
            let (decoded, payload) = Chunk::decode(kind, length, &bytes[used..]).unwrap().unwrap();
            prop_assert_eq!(&decoded, &chunk);
            prop_assert_eq!(used + payload, bytes.len());
            for cut in 0..used {
                prop_assert_eq!(ReplyHeader::decode(style, &bytes[..cut]), Ok(None));
            }
            if payload > 0 {
                prop_assert_eq!(Chunk::decode(kind, length, &bytes[used..bytes.len() - 1]), Ok(None));
            }
        }

        #[test]
        fn a_simple_reply_that_was_encoded_is_decoded(error in proptest::option::of(any_error()), cookie: u64) {
            let bytes = simple_reply(cookie, error);
            for style in [ReplyStyle::Simple, ReplyStyle::Structured] {
                let decoded = ReplyHeader::decode(style, &bytes);
                prop_assert_eq!(decoded, Ok(Some((ReplyHeader::Simple { error, cookie }, 16))));
            }
            prop_assert!(ReplyHeader::decode(ReplyStyle::Extended, &bytes).is_err());
        }

        #[test]
        fn any_payload_is_a_chunk_or_none(kind in prop_oneof![0_u16..8, 0x8000_u16..0x8004], payload: Vec<u8>) {
            let _ = Chunk::decode(kind, payload.len() as u64, &payload);
        }
    }
}
