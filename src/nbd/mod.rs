//! The NBD protocol, as bytes.
//!
//! A network block device is a conversation over one stream. The *handshake* comes first: the server greets, the
//! client haggles over options (which export, how replies look, which metadata contexts) until it says `GO`. Then comes
//! the *transmission*: requests with a cookie one way, replies with the same cookie the other way, in any order, until
//! the client says `DISC`. All numbers are big-endian.
//!
//! Replies have three styles, by what was agreed on: *simple* (a header, then the bytes of a read), *structured* (a
//! reply is a series of chunks, each with its own header), *extended* (the same with 64-bit lengths, in requests too).
//!
//! The codec neither reads, waits nor remembers: bytes become values and values become bytes, in both directions, so that
//! a server and a client share it. A `decode` of a beginning that is not all there gives `None`; what no client or server
//! may send is a [`Violation`]. [`Client`] is the client's side of a connection, without its socket. Either side may be
//! encrypted (TLS); [`Credentials`] are what it shows and trusts then. The source is `doc/proto.md` of the NBD project, with its branch `extension-ext-header`.

mod client;
mod credentials;
mod error;
mod handshake;
mod intake;
mod outbox;
mod reply;
mod request;
mod session;
mod tls;
mod uri;
mod wire;

pub use client::{Client, ClientError, ExportFacts};
pub use credentials::{Credentials, CredentialsError};
pub use error::{NbdError, Violation};
pub use handshake::{
    ClientFlags, ClientOption, Greeting, HandshakeFlags, Info, InfoQuery, InfoRequest, MetaQuery, Misread,
    OptionHeader, OptionReply, Refusal, TransmissionFlags, export_name_answer,
};
pub(crate) use intake::{INTAKE_BYTES, Intake};
pub(crate) use outbox::Outbox;
pub use outbox::Slices;
pub use reply::{Chunk, Head, ReplyHeader, ReplyStyle, simple_reply};
pub use request::{Command, CommandFlags, RequestHeader, RequestStyle};
pub use session::Session;
pub(crate) use tls::{Opened, Tls, in_words as tls_in_words};
pub use tls::{SEALED_MAX, Side, Spaces};
pub use uri::{NbdServer, NbdTls, NbdUri, UriError};

/// The longest name, description, message or query, in bytes.
pub const STRING_MAX: usize = 4096;

/// The most bytes a request or reply carries unless another bound was agreed on.
pub const PAYLOAD_MAX: u32 = 32 << 20;

/// The port the protocol is registered for.
pub const PORT: u16 = 10809;
