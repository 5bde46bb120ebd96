//! The end that asks.

use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use thiserror::Error;

use super::{Reply, Request, socket_of};
use crate::reactor::connect;

/// How often a wait for a line is looked up from.
const LOOK_UP: Duration = Duration::from_millis(100);

/// A connection to the process that serves a lab.
#[derive(Debug)]
pub struct Client {
    lab: PathBuf,
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The socket does not work.
    #[error("cannot speak to the process that serves {}: {source}", lab.display())]
    Io {
        /// The lab.
        lab: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The other side went away.
    #[error("the process that serves {} ended before it answered", lab.display())]
    Gone {
        /// The lab.
        lab: PathBuf,
    },
    /// It says something that is no answer.
    #[error("the process that serves {} speaks another protocol: {error}", lab.display())]
    NotUnderstood {
        /// The lab.
        lab: PathBuf,
        /// What was wrong.
        error: serde_json::Error,
    },
}

impl Client {
    /// Connects to whoever serves a lab; none if nobody does.
    pub fn find(lab: &Path) -> Result<Option<Client>, ClientError> {
        let failed = |source| ClientError::Io { lab: lab.to_owned(), source };
        match connect(&socket_of(lab)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LOOK_UP)).map_err(failed)?;
                Ok(Some(Client { lab: lab.to_owned(), stream: BufReader::new(stream), line: Vec::new() }))
            }
            // A socket without a listener is what a killed process leaves.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Says what is wanted; `descriptor` goes along.
    pub fn ask(&mut self, request: &Request, descriptor: Option<BorrowedFd<'_>>) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).expect("a request is plain data");
        line.push(b'\n');
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let socket = self.stream.get_ref();
        let sent = sendmsg(socket.as_fd(), &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL);
        let rest = sent.map_err(io::Error::from).and_then(|count| io::Write::write_all(&mut &*socket, &line[count..]));
        rest.map_err(|source| ClientError::Io { lab: self.lab.clone(), source })
    }

    /// The next line of the answer; none if `enough` has said so while it was waited for.
    pub fn next(&mut self, enough: impl Fn() -> bool) -> Result<Option<Reply>, ClientError> {
        loop {
            match self.stream.read_until(b'\n', &mut self.line) {
                Ok(_) if self.line.ends_with(b"\n") => {
                    let reply = serde_json::from_slice(&self.line)
                        .map_err(|error| ClientError::NotUnderstood { lab: self.lab.clone(), error })?;
                    self.line.clear();
                    return Ok(Some(reply));
                }
                Ok(_) => return Err(ClientError::Gone { lab: self.lab.clone() }),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
                {
                    if enough() {
                        return Ok(None);
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(ClientError::Gone { lab: self.lab.clone() });
                }
                Err(source) => return Err(ClientError::Io { lab: self.lab.clone(), source }),
            }
        }
    }
}
