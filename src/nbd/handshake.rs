//! The handshake: who speaks how, about which export.
//!
//! ```text
//!   greeting:     "NBDMAGIC" | "IHAVEOPT" | flags 16                          then 32 flags of the client
//!   option:       "IHAVEOPT" | option 32 | length 32 | data
//!   option reply: magic 64 | option 32 | kind 32 | length 32 | data
//! ```
//!
//! Bit 31 of a reply's kind says that the option was refused. An option may have several replies; the last is an
//! acknowledgement or a refusal. Only `EXPORT_NAME`, the oldest way in, is answered without a reply's header.

use bitflags::bitflags;

use super::wire::{Fields, put_string, text};
use super::{STRING_MAX, Violation};

const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

const EXPORT_NAME: u32 = 1;
const ABORT: u32 = 2;
const LIST: u32 = 3;
const START_TLS: u32 = 5;
const INFO: u32 = 6;
const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;
const LIST_META_CONTEXT: u32 = 9;
const SET_META_CONTEXT: u32 = 10;
const EXTENDED_HEADERS: u32 = 11;

const ACK: u32 = 1;
const SERVER: u32 = 2;
const INFO_REPLY: u32 = 3;
const META_CONTEXT: u32 = 4;
const REFUSED: u32 = 1 << 31;

/// Zeroes behind the answer to `EXPORT_NAME`, unless the client does without.
const EXPORT_NAME_ZEROES: usize = 124;

/// No reply to an option is longer than this, in bytes.
const REPLY_MAX: u32 = 1 << 20;

bitflags! {
    /// What a server's greeting offers.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct HandshakeFlags: u16 {
        /// Options are answered.
        const FIXED_NEWSTYLE = 1;
        /// Zeroes behind the answer to `EXPORT_NAME` may be left out.
        const NO_ZEROES = 1 << 1;
        /// Others are kept.
        const _ = !0;
    }

    /// What a client takes of that.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ClientFlags: u32 {
        /// It understands answers to options.
        const FIXED_NEWSTYLE = 1;
        /// It wants no zeroes.
        const NO_ZEROES = 1 << 1;
        /// Others are kept.
        const _ = !0;
    }

    /// What an export can.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct TransmissionFlags: u16 {
        /// Always set.
        const HAS_FLAGS = 1;
        /// It takes no writes.
        const READ_ONLY = 1 << 1;
        /// `FLUSH`.
        const SEND_FLUSH = 1 << 2;
        /// The flag `FUA`.
        const SEND_FUA = 1 << 3;
        /// Seeks cost time.
        const ROTATIONAL = 1 << 4;
        /// `TRIM`.
        const SEND_TRIM = 1 << 5;
        /// `WRITE_ZEROES` and the flag `NO_HOLE`.
        const SEND_WRITE_ZEROES = 1 << 6;
        /// The flag `DF`.
        const SEND_DF = 1 << 7;
        /// A flush on one connection covers all.
        const CAN_MULTI_CONN = 1 << 8;
        /// `CACHE`.
        const SEND_CACHE = 1 << 10;
        /// The flag `FAST_ZERO`.
        const SEND_FAST_ZERO = 1 << 11;
        /// `BLOCK_STATUS` for some contexts only.
        const BLOCK_STATUS_PAYLOAD = 1 << 12;
        /// Others are kept.
        const _ = !0;
    }
}

/// The first bytes of a connection, from the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// What it offers.
    pub flags: HandshakeFlags,
}

/// What comes before the data of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionHeader {
    /// Its number.
    pub number: u32,
    /// Bytes of data.
    pub length: u32,
}

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientOption {
    /// This export, now; the connection ends if there is none.
    ExportName(String),
    /// No more.
    Abort,
    /// Which exports there are.
    List,
    /// Speak TLS from here on.
    StartTls,
    /// What an export is.
    Info(InfoQuery),
    /// This export, now.
    Go(InfoQuery),
    /// Replies in chunks.
    StructuredReply,
    /// Which metadata contexts there are.
    ListMetaContext(MetaQuery),
    /// These metadata contexts.
    SetMetaContext(MetaQuery),
    /// 64-bit lengths, and replies in chunks.
    ExtendedHeaders,
    /// An option the protocol had not when this was written.
    Unknown(u32),
}

/// What to tell of an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InfoQuery {
    /// The export; empty for the default one.
    pub export: String,
    /// Beside what it is in any case.
    pub wanted: Vec<InfoRequest>,
}

/// One thing to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InfoRequest {
    /// Size and flags, which come in any case.
    Export,
    /// Its name.
    Name,
    /// Its description.
    Description,
    /// Which blocks it takes.
    BlockSize,
    /// Something yet unknown.
    Other(u16),
}

/// Metadata contexts of an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaQuery {
    /// The export; empty for the default one.
    pub export: String,
    /// `namespace:leaf` each.
    pub queries: Vec<String>,
}

/// Why the data of an option cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Misread;

/// What a server answers to an option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionReply {
    /// Agreed, or no more to tell.
    Ack,
    /// There is this export.
    Server {
        /// Its name.
        name: String,
        /// What it is, for people.
        description: String,
    },
    /// Something about the export.
    Info(Info),
    /// There is this metadata context, or it was selected.
    MetaContext {
        /// Its number in block status.
        id: u32,
        /// Its name.
        name: String,
    },
    /// No.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Why, for people.
        message: String,
    },
}

/// Something about an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Info {
    /// What it is.
    Export {
        /// Bytes.
        size: u64,
        /// What it can.
        flags: TransmissionFlags,
    },
    /// Its name.
    Name(String),
    /// What it is, for people.
    Description(String),
    /// Which requests it takes, in bytes.
    BlockSize {
        /// Requests are multiples of this, in place and length.
        minimum: u32,
        /// Multiples of this serve best.
        preferred: u32,
        /// No request carries more.
        maximum: u32,
    },
    /// Something yet unknown.
    Other(u16),
}

/// Why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The option is not known.
    Unsupported,
    /// It is known, and not allowed.
    Policy,
    /// Its data are not as they should be, or it does not fit what came before.
    Invalid,
    /// It cannot be had here.
    Platform,
    /// Not before TLS.
    TlsRequired,
    /// There is no such export.
    Unknown,
    /// The server is ending.
    Shutdown,
    /// Not without block sizes.
    BlockSizeRequired,
    /// Too much was asked.
    TooBig,
    /// Not without extended headers.
    ExtendedHeadersRequired,
    /// A refusal yet unknown.
    Other(u32),
}

impl Greeting {
    /// Bytes of a greeting.
    pub const BYTES: usize = 18;

    /// The bytes of the greeting.
    pub fn encode(self) -> [u8; Greeting::BYTES] {
        let mut bytes = [0; Greeting::BYTES];
        bytes[..8].copy_from_slice(&NBD_MAGIC.to_be_bytes());
        bytes[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
        bytes[16..].copy_from_slice(&self.flags.bits().to_be_bytes());
        bytes
    }

    /// The greeting that `bytes` begin with.
    pub fn decode(bytes: &[u8]) -> Result<Option<Greeting>, Violation> {
        let mut fields = Fields(bytes);
        for magic in [NBD_MAGIC, OPTION_MAGIC] {
            match fields.u64() {
                Some(found) if found == magic => {}
                Some(found) => return Err(Violation::Magic { found }),
                None => return Ok(None),
            }
        }
        Ok(fields.u16().map(|flags| Greeting { flags: HandshakeFlags::from_bits_retain(flags) }))
    }
}

impl OptionHeader {
    /// Bytes of a header.
    pub const BYTES: usize = 16;

    /// The header that `bytes` begin with.
    pub fn decode(bytes: &[u8]) -> Result<Option<OptionHeader>, Violation> {
        let mut fields = Fields(bytes);
        match fields.u64() {
            Some(OPTION_MAGIC) => {}
            Some(found) => return Err(Violation::Magic { found }),
            None => return Ok(None),
        }
        let mut rest = || Some(OptionHeader { number: fields.u32()?, length: fields.u32()? });
        Ok(rest())
    }

    /// Whether this option is answered by no reply but by the export, or not at all.
    pub fn is_export_name(&self) -> bool {
        self.number == EXPORT_NAME
    }
}

impl ClientOption {
    /// The number on the wire.
    pub fn number(&self) -> u32 {
        match self {
            ClientOption::ExportName(_) => EXPORT_NAME,
            ClientOption::Abort => ABORT,
            ClientOption::List => LIST,
            ClientOption::StartTls => START_TLS,
            ClientOption::Info(_) => INFO,
            ClientOption::Go(_) => GO,
            ClientOption::StructuredReply => STRUCTURED_REPLY,
            ClientOption::ListMetaContext(_) => LIST_META_CONTEXT,
            ClientOption::SetMetaContext(_) => SET_META_CONTEXT,
            ClientOption::ExtendedHeaders => EXTENDED_HEADERS,
            ClientOption::Unknown(number) => *number,
        }
    }

    /// The bytes of the option, header and all.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::new();
        match self {
            ClientOption::ExportName(name) => data.extend_from_slice(name.as_bytes()),
            ClientOption::Info(query) | ClientOption::Go(query) => {
                put_string(&mut data, &query.export);
                data.extend_from_slice(&(query.wanted.len() as u16).to_be_bytes());
                for wanted in &query.wanted {
                    data.extend_from_slice(&wanted.number().to_be_bytes());
                }
            }
            ClientOption::ListMetaContext(query) | ClientOption::SetMetaContext(query) => {
                put_string(&mut data, &query.export);
                data.extend_from_slice(&(query.queries.len() as u32).to_be_bytes());
                for query in &query.queries {
                    put_string(&mut data, query);
                }
            }
            ClientOption::Abort
            | ClientOption::List
            | ClientOption::StartTls
            | ClientOption::StructuredReply
            | ClientOption::ExtendedHeaders
            | ClientOption::Unknown(_) => {}
        }
        let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.number().to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.append(&mut data);
        bytes
    }

    /// The option `number` with its data.
    pub fn decode(number: u32, data: &[u8]) -> Result<ClientOption, Misread> {
        let bare = |option| if data.is_empty() { Ok(option) } else { Err(Misread) };
        match number {
            EXPORT_NAME => text(data).map(ClientOption::ExportName).ok_or(Misread),
            // Whatever comes with it, the client goes.
            ABORT => Ok(ClientOption::Abort),
            LIST => bare(ClientOption::List),
            START_TLS => bare(ClientOption::StartTls),
            INFO => InfoQuery::decode(data).map(ClientOption::Info),
            GO => InfoQuery::decode(data).map(ClientOption::Go),
            STRUCTURED_REPLY => bare(ClientOption::StructuredReply),
            LIST_META_CONTEXT => MetaQuery::decode(data).map(ClientOption::ListMetaContext),
            SET_META_CONTEXT => MetaQuery::decode(data).map(ClientOption::SetMetaContext),
            EXTENDED_HEADERS => bare(ClientOption::ExtendedHeaders),
            unknown => Ok(ClientOption::Unknown(unknown)),
        }
    }
}

impl InfoQuery {
    fn decode(data: &[u8]) -> Result<InfoQuery, Misread> {
        let mut fields = Fields(data);
        let mut all = || {
            let export = fields.string()?;
            let count = fields.u16()?;
            let wanted = (0..count).map(|_| fields.u16().map(InfoRequest::from_number)).collect::<Option<_>>()?;
            fields.is_empty().then_some(InfoQuery { export, wanted })
        };
        all().ok_or(Misread)
    }
}

impl MetaQuery {
    fn decode(data: &[u8]) -> Result<MetaQuery, Misread> {
        let mut fields = Fields(data);
        let mut all = || {
            let export = fields.string()?;
            let count = fields.u32()?;
            let queries = (0..count).map(|_| fields.string()).collect::<Option<_>>()?;
            fields.is_empty().then_some(MetaQuery { export, queries })
        };
        all().ok_or(Misread)
    }
}

impl InfoRequest {
    fn number(self) -> u16 {
        match self {
            InfoRequest::Export => 0,
            InfoRequest::Name => 1,
            InfoRequest::Description => 2,
            InfoRequest::BlockSize => 3,
            InfoRequest::Other(number) => number,
        }
    }

    fn from_number(number: u16) -> InfoRequest {
        match number {
            0 => InfoRequest::Export,
            1 => InfoRequest::Name,
            2 => InfoRequest::Description,
            3 => InfoRequest::BlockSize,
            other => InfoRequest::Other(other),
        }
    }
}

impl Refusal {
    fn number(self) -> u32 {
        match self {
            Refusal::Unsupported => 1,
            Refusal::Policy => 2,
            Refusal::Invalid => 3,
            Refusal::Platform => 4,
            Refusal::TlsRequired => 5,
            Refusal::Unknown => 6,
            Refusal::Shutdown => 7,
            Refusal::BlockSizeRequired => 8,
            Refusal::TooBig => 9,
            Refusal::ExtendedHeadersRequired => 10,
            Refusal::Other(number) => number,
        }
    }

    fn from_number(number: u32) -> Refusal {
        match number {
            1 => Refusal::Unsupported,
            2 => Refusal::Policy,
            3 => Refusal::Invalid,
            4 => Refusal::Platform,
            5 => Refusal::TlsRequired,
            6 => Refusal::Unknown,
            7 => Refusal::Shutdown,
            8 => Refusal::BlockSizeRequired,
            9 => Refusal::TooBig,
            10 => Refusal::ExtendedHeadersRequired,
            other => Refusal::Other(other),
        }
    }
}

impl OptionReply {
    /// The bytes of a reply to the option `number`, header and all.
    pub fn encode(&self, number: u32) -> Vec<u8> {
        let mut data = Vec::new();
        let kind = match self {
            OptionReply::Ack => ACK,
            OptionReply::Server { name, description } => {
                put_string(&mut data, name);
                data.extend_from_slice(description.as_bytes());
                SERVER
            }
            OptionReply::Info(info) => {
                info.put(&mut data);
                INFO_REPLY
            }
            OptionReply::MetaContext { id, name } => {
                data.extend_from_slice(&id.to_be_bytes());
                data.extend_from_slice(name.as_bytes());
                META_CONTEXT
            }
            OptionReply::Refused { refusal, message } => {
                data.extend_from_slice(message.as_bytes());
                REFUSED | refusal.number()
            }
        };
        let mut bytes = REPLY_MAGIC.to_be_bytes().to_vec();
        for field in [number, kind, data.len() as u32] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        bytes.append(&mut data);
        bytes
    }

    /// The reply that `bytes` begin with: to which option it is, and how long.
    pub fn decode(bytes: &[u8]) -> Result<Option<(u32, OptionReply, usize)>, Violation> {
        let mut fields = Fields(bytes);
        match fields.u64() {
            Some(REPLY_MAGIC) => {}
            Some(found) => return Err(Violation::Magic { found }),
            None => return Ok(None),
        }
        let mut header = || Some((fields.u32()?, fields.u32()?, fields.u32()?));
        let Some((number, kind, length)) = header() else { return Ok(None) };
        if length > REPLY_MAX {
            return Err(Violation::TooLong { length: length.into() });
        }
        let Some(data) = fields.bytes(length as usize) else { return Ok(None) };
        let reply = OptionReply::of(kind, Fields(data)).ok_or(Violation::Malformed)?;
        Ok(Some((number, reply, 20 + length as usize)))
    }

    fn of(kind: u32, mut fields: Fields<'_>) -> Option<OptionReply> {
        Some(match kind {
            ACK => OptionReply::Ack,
            SERVER => OptionReply::Server { name: fields.string()?, description: text(fields.rest())? },
            INFO_REPLY => OptionReply::Info(Info::of(fields)?),
            META_CONTEXT => OptionReply::MetaContext { id: fields.u32()?, name: text(fields.rest())? },
            _ if kind & REFUSED != 0 => OptionReply::Refused {
                refusal: Refusal::from_number(kind & !REFUSED),
                message: String::from_utf8_lossy(fields.rest()).into_owned(),
            },
            _ => return None,
        })
    }
}

impl Info {
    fn put(&self, data: &mut Vec<u8>) {
        let kind = match self {
            Info::Export { .. } => InfoRequest::Export,
            Info::Name(_) => InfoRequest::Name,
            Info::Description(_) => InfoRequest::Description,
            Info::BlockSize { .. } => InfoRequest::BlockSize,
            Info::Other(number) => InfoRequest::Other(*number),
        };
        data.extend_from_slice(&kind.number().to_be_bytes());
        match self {
            Info::Export { size, flags } => {
                data.extend_from_slice(&size.to_be_bytes());
                data.extend_from_slice(&flags.bits().to_be_bytes());
            }
            Info::Name(string) | Info::Description(string) => {
                assert!(string.len() <= STRING_MAX, "a string of {} bytes", string.len());
                data.extend_from_slice(string.as_bytes());
            }
            Info::BlockSize { minimum, preferred, maximum } => {
                for field in [minimum, preferred, maximum] {
                    data.extend_from_slice(&field.to_be_bytes());
                }
            }
            Info::Other(_) => {}
        }
    }

    fn of(mut fields: Fields<'_>) -> Option<Info> {
        let info = match InfoRequest::from_number(fields.u16()?) {
            InfoRequest::Export => {
                Info::Export { size: fields.u64()?, flags: TransmissionFlags::from_bits_retain(fields.u16()?) }
            }
            InfoRequest::Name => return text(fields.rest()).map(Info::Name),
            InfoRequest::Description => return text(fields.rest()).map(Info::Description),
            InfoRequest::BlockSize => {
                Info::BlockSize { minimum: fields.u32()?, preferred: fields.u32()?, maximum: fields.u32()? }
            }
            InfoRequest::Other(number) => return Some(Info::Other(number)),
        };
        fields.is_empty().then_some(info)
    }
}

/// What a server answers to `EXPORT_NAME`, if it lets the client in.
pub fn export_name_answer(size: u64, flags: TransmissionFlags, client: ClientFlags) -> Vec<u8> {
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.bits().to_be_bytes());
    if !client.contains(ClientFlags::NO_ZEROES) {
        bytes.extend_from_slice(&[0; EXPORT_NAME_ZEROES]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_option() -> impl Strategy<Value = ClientOption> {
        let info = || {
            (".{0,40}", vec(any::<u16>().prop_map(InfoRequest::from_number), 0..6))
                .prop_map(|(export, wanted)| InfoQuery { export: export.replace('\0', ""), wanted })
        };
        let meta = || {
            ("[a-z]{0,40}", vec("[a-z]{1,5}:[a-z]{0,9}", 0..5))
                .prop_map(|(export, queries)| MetaQuery { export, queries })
        };
        prop_oneof![
            "[a-z]{0,30}".prop_map(ClientOption::ExportName),
            Just(ClientOption::Abort),
            Just(ClientOption::List),
            Just(ClientOption::StartTls),
            info().prop_map(ClientOption::Info),
            info().prop_map(ClientOption::Go),
            Just(ClientOption::StructuredReply),
            meta().prop_map(ClientOption::ListMetaContext),
            meta().prop_map(ClientOption::SetMetaContext),
            Just(ClientOption::ExtendedHeaders),
            (12_u32..).prop_map(ClientOption::Unknown),
        ]
    }

    fn any_reply() -> impl Strategy<Value = OptionReply> {
        let info = prop_oneof![
            (any::<u64>(), any::<u16>())
                .prop_map(|(size, flags)| Info::Export { size, flags: TransmissionFlags::from_bits_retain(flags) }),
            "[a-z]{0,30}".prop_map(Info::Name),
            "[a-z ]{0,30}".prop_map(Info::Description),
            (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(minimum, preferred, maximum)| Info::BlockSize {
                minimum,
                preferred,
                maximum
            }),
            (4_u16..).prop_map(Info::Other),
        ];
        prop_oneof![
            Just(OptionReply::Ack),
            ("[a-z]{0,30}", "[a-z ]{0,30}").prop_map(|(name, description)| OptionReply::Server { name, description }),
            info.prop_map(OptionReply::Info),
            (any::<u32>(), "[a-z:]{0,30}").prop_map(|(id, name)| OptionReply::MetaContext { id, name }),
            (0_u32..1 << 31, "[a-z ]{0,30}")
                .prop_map(|(number, message)| OptionReply::Refused { refusal: Refusal::from_number(number), message }),
        ]
    }

    #[test]
    fn a_greeting_is_read_back_and_another_beginning_is_refused() {
        let greeting = Greeting { flags: HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES };
        let bytes = greeting.encode();
        assert_eq!(&bytes[..16], b"NBDMAGICIHAVEOPT");
        assert_eq!(Greeting::decode(&bytes), Ok(Some(greeting)));
        for cut in 0..bytes.len() {
            assert_eq!(Greeting::decode(&bytes[..cut]), Ok(None));
        }
        assert!(Greeting::decode(b"SSH-2.0-OpenSSH_9").is_err());
    }

    #[test]
    fn the_answer_to_export_name_ends_in_zeroes_unless_the_client_does_without() {
        let flags = TransmissionFlags::HAS_FLAGS;
        assert_eq!(export_name_answer(7, flags, ClientFlags::empty()).len(), 8 + 2 + 124);
        assert_eq!(export_name_answer(7, flags, ClientFlags::NO_ZEROES), [0, 0, 0, 0, 0, 0, 0, 7, 0, 1]);
    }

    #[test]
    fn options_without_data_take_none_and_lengths_within_must_fit() {
        for number in [LIST, START_TLS, STRUCTURED_REPLY, EXTENDED_HEADERS] {
            assert_eq!(ClientOption::decode(number, &[0]), Err(Misread));
        }
        assert_eq!(ClientOption::decode(ABORT, &[1, 2, 3]), Ok(ClientOption::Abort));
        let beyond = [0xff, 0xff, 0xff, 0xff, 0, 0];
        for number in [INFO, GO, LIST_META_CONTEXT, SET_META_CONTEXT] {
            assert_eq!(ClientOption::decode(number, &beyond), Err(Misread));
        }
        // Four billion queries that are not there.
        assert_eq!(ClientOption::decode(SET_META_CONTEXT, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), Err(Misread));
    }

    proptest! {
        #[test]
        fn an_option_that_was_encoded_is_decoded(option in any_option(), cut in 0_usize..16) {
            let bytes = option.encode();
            let header = OptionHeader::decode(&bytes).unwrap().unwrap();
            prop_assert_eq!(header.length as usize, bytes.len() - OptionHeader::BYTES);
            prop_assert_eq!(ClientOption::decode(header.number, &bytes[OptionHeader::BYTES..]), Ok(option));
            prop_assert_eq!(OptionHeader::decode(&bytes[..cut]), Ok(None));
        }

        #[test]
        fn a_reply_that_was_encoded_is_decoded(reply in any_reply(), number: u32) {
            let bytes = reply.encode(number);
            for cut in 0..bytes.len() {
                prop_assert_eq!(OptionReply::decode(&bytes[..cut]), Ok(None));
            }
            prop_assert_eq!(OptionReply::decode(&bytes), Ok(Some((number, reply, bytes.len()))));
        }

        #[test]
        fn any_data_are_an_option_or_not(number in 0_u32..14, data: Vec<u8>) {
            if let Ok(option) = ClientOption::decode(number, &data)
                && !matches!(option, ClientOption::Abort | ClientOption::Unknown(_))
            {
                prop_assert_eq!(&option.encode()[OptionHeader::BYTES..], &data[..]);
            }
        }
    }
}
