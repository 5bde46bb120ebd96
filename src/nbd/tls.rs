//! A connection under TLS, without its socket.
//!
//! ```text
//!   socket -> space, filled -> wire -> rustls -> open -> the connection's spaces
//!   socket <- write_to      <- rustls <- seal <- the connection's slices
//! ```
//!
//! Both sides begin in the clear and agree on `STARTTLS`; from then on every byte of the connection passes through
//! here. Records of 16 KiB are the unit: what a connection has no room for waits as one of them.

use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection,
};
use smallvec::SmallVec;

use super::{Intake, Slices};

/// Encrypted bytes that wait to be sent, at the most, but for one record.
pub const SEALED_MAX: usize = 256 << 10;

/// Where arriving bytes go.
pub type Spaces<'a> = SmallVec<[IoSliceMut<'a>; 4]>;

/// One side of a connection, as whoever moves its bytes sees it.
pub trait Side {
    /// Where arriving bytes are to be put; none where nothing is wanted now.
    fn spaces(&mut self) -> Spaces<'_>;
    /// `count` bytes were put there.
    fn received(&mut self, count: usize);
    /// Whether there is something to send.
    fn has_output(&self) -> bool;
    /// What is to be sent.
    fn slices(&self) -> Slices<'_>;
    /// The first `count` bytes of it were sent.
    fn sent(&mut self, count: usize);
}

/// How far [`Tls::open`] came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opened {
    /// All that arrived was handed over.
    All,
    /// The connection takes no more for now.
    NoRoom,
    /// The other side has said that it sends no more.
    End,
}

/// The encryption of one connection.
#[derive(Debug)]
pub(crate) struct Tls {
    session: rustls::Connection,
    /// What arrived and was not looked at.
    wire: Intake,
    /// The connection had no room for what arrived.
    is_stalled: bool,
}

impl Tls {
    /// A server's side.
    pub(crate) fn server(config: &Arc<ServerConfig>) -> Tls {
        let session = ServerConnection::new(Arc::clone(config)).expect("a configuration that was built can be used");
        Tls::of(session.into())
    }

    /// A client's side, of a server that is to be `name`.
    pub(crate) fn client(config: &Arc<ClientConfig>, name: ServerName<'static>) -> Tls {
        let session =
            ClientConnection::new(Arc::clone(config), name).expect("a configuration that was built can be used");
        Tls::of(session.into())
    }

    fn of(mut session: rustls::Connection) -> Tls {
        session.set_buffer_limit(Some(SEALED_MAX));
        Tls { session, wire: Intake::new(), is_stalled: false }
    }

    /// Where bytes from the socket are to be put. Only when all that came before was handed over.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.wire.space()
    }

    /// `count` bytes were put there.
    pub(crate) fn filled(&mut self, count: usize) {
        self.wire.fill(count);
    }

    /// Hands what arrived to the connection, as far as it has room.
    ///
    /// # Errors
    /// The other side does not keep to TLS, or is not who it should be. It is told so by what is to be sent now.
    pub(crate) fn open(&mut self, side: &mut impl Side) -> Result<Opened, Error> {
        loop {
            let opened = self.hand_over(side);
            self.is_stalled = opened == Opened::NoRoom;
            if opened != Opened::All || self.wire.data().is_empty() {
                return Ok(opened);
            }
            let count =
                self.session.read_tls(&mut self.wire.data()).map_err(|error| Error::General(error.to_string()))?;
            self.wire.consume(count);
            self.session.process_new_packets()?;
        }
    }

    fn hand_over(&mut self, side: &mut impl Side) -> Opened {
        loop {
            let mut spaces = side.spaces();
            let Some(space) = spaces.iter_mut().find(|space| !space.is_empty()) else { return Opened::NoRoom };
            match self.session.reader().read(space) {
                Ok(0) => return Opened::End,
                Ok(count) => {
                    drop(spaces);
                    side.received(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Opened::All,
                // The socket's end is seen by whoever has the socket.
                Err(error) => panic!("plain bytes cannot be read: {error}"),
            }
        }
    }

    /// Whether something arrived that the connection had no room for.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// Encrypts what the connection has to send, as far as there is room.
    pub(crate) fn seal(&mut self, side: &mut impl Side) {
        while side.has_output() && !self.session.is_handshaking() {
            let sealed = self.session.writer().write_vectored(&side.slices());
            // After an error nothing is sent any more, and nobody waits for it.
            match sealed.unwrap_or(0) {
                0 => return,
                count => side.sent(count),
            }
        }
    }

    /// Says that nothing more is sent.
    pub(crate) fn end(&mut self) {
        self.session.send_close_notify();
    }

    /// Whether the two are still agreeing on keys.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether there are encrypted bytes to send.
    pub(crate) fn has_output(&self) -> bool {
        self.session.wants_write()
    }

    /// Sends some of them; how many.
    pub(crate) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        self.session.write_tls(socket)
    }
}

/// Why a client has no TLS with a server, and what would mend it.
pub(crate) fn in_words(error: &Error) -> String {
    let advice = match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "; ca-cert.pem of ?tls-certificates=DIR must hold the certificate of who signed the server's"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "; if that is the right server, say by ?tls-hostname=NAME what its certificate calls it"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "; the server needs a new server-cert.pem"
            }
            CertificateError::Revoked => "; ca-crl.pem of ?tls-certificates=DIR names it",
            _ => "",
        },
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure,
        ) => {
            "; the server may want a certificate that it knows the signer of: put client-cert.pem and client-key.pem into the \
             directory of ?tls-certificates=DIR"
        }
        _ => "",
    };
    format!("{error}{advice}")
}

#[cfg(test)]
mod tests;
