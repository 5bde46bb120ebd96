//! Where an export is, in one word.
//!
//! ```text
//!   nbd://host[:port][/export]             TCP
//!   nbd+unix:///[export]?socket=PATH       a socket in the file system
//!   nbds://..., nbds+unix://...            the same under TLS, with
//!       tls-certificates=DIR               who is trusted, and what is shown
//!       tls-hostname=NAME                  who the server has to be, if that is not its host
//! ```
//!
//! Percent-encoded, as `doc/uri.md` of the NBD project has it; the words about TLS are those of libnbd. `nbd+vsock`, a
//! virtual machine's socket, is not spoken here.

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use super::{PORT, STRING_MAX};

/// An export of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NbdUri {
    /// Where the server is.
    pub server: NbdServer,
    /// The export; empty for the default one.
    pub export: String,
    /// What TLS needs, if it is to be spoken.
    pub tls: Option<NbdTls>,
}

/// What a client needs for TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NbdTls {
    /// The directory with its certificates.
    pub certificates: PathBuf,
    /// Who the server has to be, if that is not its host.
    pub hostname: Option<String>,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NbdServer {
    /// On a host.
    Tcp {
        /// Its name or address.
        host: String,
        /// The port it listens at.
        port: u16,
    },
    /// Behind a socket in the file system.
    Unix(PathBuf),
}

/// Why a word is no URI of an export.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{uri:?} cannot be used: {why}; type nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH")]
pub struct UriError {
    /// The word.
    pub uri: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl NbdUri {
    /// Whether a word is meant as a URI of an export, well formed or not; a file of such a name is reached as `./NAME`.
    pub fn is_meant(word: &str) -> bool {
        word.split_once(':').is_some_and(|(scheme, _)| {
            matches!(scheme, "nbd" | "nbds" | "nbd+unix" | "nbds+unix" | "nbd+vsock" | "nbds+vsock")
        })
    }
}

impl FromStr for NbdUri {
    type Err = UriError;
    fn from_str(uri: &str) -> Result<NbdUri, UriError> {
        parsed(uri).map_err(|why| UriError { uri: uri.to_owned(), why })
    }
}

fn parsed(uri: &str) -> Result<NbdUri, &'static str> {
    let (scheme, rest) = uri.split_once(':').ok_or("it names no protocol")?;
    let rest = rest.strip_prefix("//").ok_or("two slashes belong behind the protocol")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
    let export = String::from_utf8(decoded(export)?).map_err(|_| "the export's name is no UTF-8")?;
    if export.len() > STRING_MAX || export.contains('\0') {
        return Err("the export's name is none that the protocol takes");
    }
    let word = |name: &str| {
        query.split('&').filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let (transport, tls) = match scheme.strip_prefix("nbds") {
        Some(rest) => (format!("nbd{rest}"), Some(tls_of(word("tls-certificates"), word("tls-hostname"))?)),
        None => (scheme.to_owned(), None),
    };
    let server = match (transport.as_str(), word("socket")) {
        ("nbd", None) => tcp(authority)?,
        ("nbd", Some(_)) => return Err("a socket goes with nbd+unix"),
        ("nbd+unix", Some(_)) if !authority.is_empty() => return Err("a socket has no host: write nbd+unix:///"),
        ("nbd+unix", Some(path)) if !path.is_empty() => NbdServer::Unix(path_of(path)?),
        ("nbd+unix", _) => return Err("it names no socket"),
        _ => return Err("the protocol is none that is spoken here"),
    };
    Ok(NbdUri { server, export, tls })
}

fn tls_of(certificates: Option<&str>, hostname: Option<&str>) -> Result<NbdTls, &'static str> {
    let certificates = certificates.filter(|path| !path.is_empty());
    let certificates = certificates.ok_or("TLS wants ?tls-certificates=DIR, a directory with ca-cert.pem")?;
    let hostname = hostname.map(|name| String::from_utf8(decoded(name)?).map_err(|_| "tls-hostname is no UTF-8"));
    Ok(NbdTls { certificates: path_of(certificates)?, hostname: hostname.transpose()? })
}

fn path_of(text: &str) -> Result<PathBuf, &'static str> {
    Ok(OsString::from_vec(decoded(text)?).into())
}

fn tcp(authority: &str) -> Result<NbdServer, &'static str> {
    let is_port = |text: &str| text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit());
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => (host, port),
        _ => (authority, ""),
    };
    let port = if port.is_empty() { PORT } else { port.parse().map_err(|_| "the port is none")? };
    if host.contains('@') {
        return Err("NBD knows no users");
    }
    let host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').ok_or("a bracket is not closed")?.to_owned(),
        None if host.contains(':') => return Err("an IPv6 address stands in brackets"),
        None => String::from_utf8(decoded(host)?).map_err(|_| "the host's name is no UTF-8")?,
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    Ok(NbdServer::Tcp { host, port })
}

fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit(), digit());
        let value = high.zip(low).map(|(high, low)| high * 16 + low).ok_or("two hexadecimal digits follow a %")?;
        bytes.push(value as u8);
    }
    Ok(bytes)
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(*byte as char),
            _ => write!(text, "%{byte:02X}").expect("a string takes all"),
        }
    }
    text
}

impl NbdUri {
    /// The same export, where relative paths begin in `directory`.
    pub fn within(self, directory: &Path) -> NbdUri {
        self.with_paths(|path| Ok::<_, std::convert::Infallible>(directory.join(path)))
            .unwrap_or_else(|never| match never {})
    }

    /// The same export, however the working directory changes.
    pub fn absolute(self) -> std::io::Result<NbdUri> {
        self.with_paths(std::path::absolute)
    }

    fn with_paths<E>(mut self, change: impl Fn(PathBuf) -> Result<PathBuf, E>) -> Result<NbdUri, E> {
        if let NbdServer::Unix(path) = self.server {
            self.server = NbdServer::Unix(change(path)?);
        }
        if let Some(tls) = self.tls {
            self.tls = Some(NbdTls { certificates: change(tls.certificates)?, ..tls });
        }
        Ok(self)
    }
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &Path| encoded(path.as_os_str().as_bytes());
        let (secure, export) = (if self.tls.is_some() { "s" } else { "" }, encoded(self.export.as_bytes()));
        let mut query = Vec::new();
        match &self.server {
            NbdServer::Unix(socket) => {
                write!(f, "nbd{secure}+unix:///{export}")?;
                query.push(format!("socket={}", path(socket)));
            }
            NbdServer::Tcp { host, port } => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "nbd{secure}://{open}{host}{close}:{port}/{export}")?;
            }
        }
        if let Some(tls) = &self.tls {
            query.push(format!("tls-certificates={}", path(&tls.certificates)));
            query.extend(tls.hostname.iter().map(|name| format!("tls-hostname={}", encoded(name.as_bytes()))));
        }
        if !query.is_empty() {
            write!(f, "?{}", query.join("&"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, export: &str) -> NbdUri {
        NbdUri { server: NbdServer::Tcp { host: host.into(), port }, export: export.into(), tls: None }
    }

    fn unix(path: &str, export: &str) -> NbdUri {
        NbdUri { server: NbdServer::Unix(path.into()), export: export.into(), tls: None }
    }

    #[test]
    fn uris_say_what_the_nbd_project_says_they_do() {
        let known = [
            ("nbd://example.com", tcp("example.com", PORT, "")),
            ("nbd://example.com:99/", tcp("example.com", 99, "")),
            ("nbd://127.0.0.1/disk", tcp("127.0.0.1", PORT, "disk")),
            ("nbd://[::1]:10810/a/b", tcp("::1", 10810, "a/b")),
            ("nbd+unix:///?socket=/run/nbd", unix("/run/nbd", "")),
            ("nbd+unix:///a%20b?socket=/tmp/x%3Fy", unix("/tmp/x?y", "a b")),
            ("nbd+unix:////a?socket=nbd.sock", unix("nbd.sock", "/a")),
        ];
        let tls =
            |hostname: Option<&str>| Some(NbdTls { certificates: "/a b".into(), hostname: hostname.map(Into::into) });
        let secure = [
            ("nbds://host/x?tls-certificates=/a%20b", NbdUri { tls: tls(None), ..tcp("host", PORT, "x") }),
            (
                "nbds+unix:///?socket=s&tls-hostname=lab&tls-certificates=/a%20b",
                NbdUri { tls: tls(Some("lab")), ..unix("s", "") },
            ),
        ];
        for (text, expected) in known.into_iter().chain(secure) {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_uri_says_why_and_a_path_is_not_taken_for_one() {
        for (text, why) in [
            ("nbds://host/x", "tls-certificates"),
            ("nbds+vsock://1/?tls-certificates=x", "none that is spoken"),
            ("nbd+unix:///x", "no socket"),
            ("nbd+unix://host/x?socket=/y", "no host"),
            ("nbd:///x", "no host"),
            ("nbd:host", "two slashes"),
            ("nbd://host:99999/", "the port"),
            ("nbd://host/%4", "hexadecimal"),
            ("nbd://::1/", "brackets"),
            ("nbd+vsock://1/", "none that is spoken"),
        ] {
            let error = text.parse::<NbdUri>().unwrap_err();
            assert!(NbdUri::is_meant(text) && error.why.contains(why), "{error}");
        }
        for path in ["disk-0.img", "./nbd://x", "/dev/nbd0", "nbd0", "a:b"] {
            assert!(!NbdUri::is_meant(path), "{path}");
        }
    }
}
