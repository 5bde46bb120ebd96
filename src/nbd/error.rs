//! Errors on the wire, and errors of the wire.

use thiserror::Error;

use crate::block::IoError;

/// Why a request failed, in the few words the protocol has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NbdError {
    /// `NBD_EPERM`: a write to a read-only export.
    NotPermitted,
    /// `NBD_EIO`.
    Io,
    /// `NBD_ENOMEM`.
    NoMemory,
    /// `NBD_EINVAL`: the request breaks a rule, or reads beyond the end.
    Invalid,
    /// `NBD_ENOSPC`: a write beyond the end, or no room left below.
    NoSpace,
    /// `NBD_EOVERFLOW`: too long to be served in one piece.
    Overflow,
    /// `NBD_ENOTSUP`: zeroes that would be no faster than a write.
    NotSupported,
    /// `NBD_ESHUTDOWN`: the server is ending.
    Shutdown,
}

impl NbdError {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            NbdError::NotPermitted => 1,
            NbdError::Io => 5,
            NbdError::NoMemory => 12,
            NbdError::Invalid => 22,
            NbdError::NoSpace => 28,
            NbdError::Overflow => 75,
            NbdError::NotSupported => 95,
            NbdError::Shutdown => 108,
        }
    }

    /// What a number other than 0 means; one that is not in the protocol counts as `NBD_EINVAL`.
    pub fn from_number(number: u32) -> NbdError {
        match number {
            1 => NbdError::NotPermitted,
            5 => NbdError::Io,
            12 => NbdError::NoMemory,
            28 => NbdError::NoSpace,
            75 => NbdError::Overflow,
            95 => NbdError::NotSupported,
            108 => NbdError::Shutdown,
            _ => NbdError::Invalid,
        }
    }
}

impl From<IoError> for NbdError {
    fn from(error: IoError) -> NbdError {
        match error {
            IoError::Medium | IoError::Transport | IoError::Timeout | IoError::Offline => NbdError::Io,
            IoError::Fenced | IoError::ReadOnly => NbdError::NotPermitted,
            IoError::NoSpace => NbdError::NoSpace,
            IoError::Unsupported | IoError::OutOfRange => NbdError::Invalid,
        }
    }
}

/// What the other side may not send: there is no way to go on with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Violation {
    /// A message does not begin as one must.
    #[error("a message begins with {found:#x}, which is no magic number of NBD here")]
    Magic {
        /// What stands there.
        found: u64,
    },
    /// Flags that were not offered.
    #[error("flags {0:#x} were not offered")]
    Flags(u32),
    /// Bytes in the clear after TLS was agreed on: nobody knows who put them there.
    #[error("bytes follow STARTTLS that are not encrypted")]
    Unencrypted,
    /// A message that its length or content contradicts.
    #[error("a message is not formed as the protocol says")]
    Malformed,
    /// A payload beyond what was agreed on.
    #[error("a payload of {length} bytes is too long")]
    TooLong {
        /// How long it is.
        length: u64,
    },
}
