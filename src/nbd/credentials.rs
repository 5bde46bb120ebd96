//! Certificates and keys, from a directory laid out as every NBD program has it:
//!
//! ```text
//!   ca-cert.pem                       who signs: servers, and clients that have to show a certificate
//!   ca-crl.pem                        whom it has revoked, if there is such a file
//!   server-cert.pem, server-key.pem   what a server shows
//!   client-cert.pem, client-key.pem   what a client shows, if it has them
//! ```
//!
//! The protocol also knows keys that both sides share (TLS-PSK); rustls does not.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};
use thiserror::Error;

/// Why a directory of certificates cannot be used.
#[derive(Debug, Error)]
#[error("cannot use {}: {why}", path.display())]
pub struct CredentialsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// A directory with certificates and keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    directory: PathBuf,
}

impl Credentials {
    /// Those in a directory; they are read when they are needed.
    pub fn of(directory: &Path) -> Credentials {
        Credentials { directory: directory.to_owned() }
    }

    /// What a server shows; with `verify_peer` clients have to show a certificate that is signed by `ca-cert.pem`.
    pub fn server(&self, verify_peer: bool) -> Result<Arc<ServerConfig>, CredentialsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers for every version");
        let builder = if verify_peer {
            let verifier = WebPkiClientVerifier::builder_with_provider(self.authorities()?, provider())
                .with_crls(self.revoked()?)
                .build()
                .map_err(|error| self.unverifiable(&error))?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let (certificates, key) = self.own("server")?;
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| self.failed("server-cert.pem", format!("{error} (with server-key.pem)")))?;
        // Connections last: nobody comes back soon enough to be worth remembering.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// What a client trusts, and shows if it has something to show.
    pub fn client(&self) -> Result<Arc<ClientConfig>, CredentialsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.authorities()?, provider())
            .with_crls(self.revoked()?)
            .build()
            .map_err(|error| self.unverifiable(&error))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers for every version")
            .with_webpki_verifier(verifier);
        if !self.is_there("client-cert.pem") {
            return Ok(Arc::new(builder.with_no_client_auth()));
        }
        let (certificates, key) = self.own("client")?;
        let config = builder
            .with_client_auth_cert(certificates, key)
            .map_err(|error| self.failed("client-cert.pem", format!("{error} (with client-key.pem)")))?;
        Ok(Arc::new(config))
    }

    /// The key files that others than their owner can read.
    pub fn exposed_keys(&self) -> Vec<PathBuf> {
        let is_exposed =
            |path: &PathBuf| std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
        ["server-key.pem", "client-key.pem"].map(|name| self.path(name)).into_iter().filter(is_exposed).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A link that leads nowhere is there, too: what it should lead to is missed by whoever reads it.
    fn is_there(&self, name: &str) -> bool {
        let found = self.path(name).symlink_metadata();
        !found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    fn failed(&self, name: &str, why: String) -> CredentialsError {
        CredentialsError { path: self.path(name), why }
    }

    /// Nobody can be verified by these authorities, or by these lists of whom they have revoked.
    fn unverifiable(&self, error: &VerifierBuilderError) -> CredentialsError {
        match error {
            VerifierBuilderError::InvalidCrl(_) => self.failed("ca-crl.pem", error.to_string()),
            _ => self.failed("ca-cert.pem", error.to_string()),
        }
    }

    /// The certificate of one side and its chain, and their key.
    fn own(&self, side: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CredentialsError> {
        let name = format!("{side}-cert.pem");
        let certificates = self.all::<CertificateDer>(&name, "certificate")?;
        let name = format!("{side}-key.pem");
        let key = PrivateKeyDer::from_pem_file(self.path(&name))
            .map_err(|error| self.failed(&name, told(error, "private key without a password")))?;
        Ok((certificates, key))
    }

    fn authorities(&self) -> Result<Arc<RootCertStore>, CredentialsError> {
        let name = "ca-cert.pem";
        let mut roots = RootCertStore::empty();
        for certificate in self.all::<CertificateDer>(name, "certificate of who signs")? {
            roots.add(certificate).map_err(|error| self.failed(name, error.to_string()))?;
        }
        Ok(Arc::new(roots))
    }

    fn revoked(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, CredentialsError> {
        let name = "ca-crl.pem";
        if self.is_there(name) { self.all(name, "list of revoked certificates") } else { Ok(Vec::new()) }
    }

    /// All items of a file, which are not none.
    fn all<T: PemObject>(&self, name: &str, what: &str) -> Result<Vec<T>, CredentialsError> {
        let read = T::pem_file_iter(self.path(name)).and_then(Iterator::collect::<Result<Vec<T>, _>>);
        match read {
            Ok(items) if items.is_empty() => Err(self.failed(name, told(pem::Error::NoItemsFound, what))),
            Ok(items) => Ok(items),
            Err(error) => Err(self.failed(name, told(error, what))),
        }
    }
}

fn told(error: pem::Error, what: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("it holds no {what} in PEM"),
        pem::Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("{error}; it must hold a {what} in PEM")
        }
        pem::Error::Io(error) => error.to_string(),
        error => format!("it holds no {what} in PEM: {error}"),
    }
}

/// Ciphers under which a connection may last as long as it likes.
///
/// A key of AES-GCM is good for 2²⁴ records (256 GiB, or 64 GiB of replies of 4 KiB). TLS 1.3 changes keys on the way; TLS 1.2 cannot,
/// and rustls closes the connection. There ChaCha20-Poly1305 is left, which has no such limit and which GnuTLS, and so QEMU, nbdkit and
/// libnbd, have offered since 2015.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| match suite {
        SupportedCipherSuite::Tls13(_) => true,
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit == u64::MAX,
    });
    Arc::new(provider)
}
