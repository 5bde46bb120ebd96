//! Both sides of a connection under TLS, with pipes of bytes between them that take any number at a time.

use std::path::Path;
use std::rc::Rc;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::block::{Buf, Durability, Extent, Instant, Lba, Limits, Op, Sectors};
use crate::export::nbd::{Connection, Export, Secrecy, Work};
use crate::nbd::{Client, ClientError, ClientOption, Credentials};

const SECTORS: u64 = 1 << 16;

/// A directory as [`Credentials`] wants it, with an authority of its own.
fn certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let put = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
    put("ca-cert.pem", authority.pem());
    for side in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        put(&format!("{side}-cert.pem"), params.signed_by(&key, &authority).unwrap().pem());
        put(&format!("{side}-key.pem"), key.serialize_pem());
    }
    directory
}

/// An end of the connection.
struct End<S> {
    side: S,
    tls: Option<Tls>,
    error: Option<Error>,
}

struct World {
    client: End<Client>,
    server: End<Connection>,
    server_config: Arc<ServerConfig>,
    client_config: Arc<ClientConfig>,
    up: Vec<u8>,
    down: Vec<u8>,
    volume: Vec<u8>,
    rng: ChaCha8Rng,
}

impl<S: Side> End<S> {
    fn new(side: S) -> End<S> {
        End { side, tls: None, error: None }
    }

    /// Puts up to `most` bytes into a pipe.
    fn send(&mut self, pipe: &mut Vec<u8>, most: usize) -> bool {
        let before = pipe.len();
        match &mut self.tls {
            None => {
                pipe.extend(self.side.slices().iter().flat_map(|slice| slice.to_vec()).take(most));
                self.side.sent(pipe.len() - before);
            }
            Some(tls) => {
                tls.seal(&mut self.side);
                tls.write_to(&mut Stingy { pipe, left: most }).unwrap();
            }
        }
        pipe.len() > before
    }

    /// Takes up to `most` bytes out of a pipe.
    fn receive(&mut self, pipe: &mut Vec<u8>, most: usize) -> bool {
        let Some(tls) = &mut self.tls else {
            let taken = self.side.spaces().first_mut().map_or(0, |space| {
                let count = most.min(pipe.len()).min(space.len());
                space[..count].copy_from_slice(&pipe[..count]);
                count
            });
            pipe.drain(..taken);
            self.side.received(taken);
            return taken > 0;
        };
        let mut count = 0;
        if !tls.is_stalled() {
            let space = tls.space();
            count = most.min(pipe.len()).min(space.len());
            space[..count].copy_from_slice(&pipe[..count]);
            pipe.drain(..count);
            tls.filled(count);
        }
        match tls.open(&mut self.side) {
            Ok(_) => {}
            Err(error) => self.error = Some(error),
        }
        count > 0
    }
}

/// A pipe that takes no more than some bytes.
struct Stingy<'a> {
    pipe: &'a mut Vec<u8>,
    left: usize,
}

impl Write for Stingy<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.left);
        self.left -= count;
        self.pipe.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl World {
    fn new(seed: u64, certificates: &Path, secrecy: Secrecy, verify_peer: bool) -> World {
        let export = Export::new("lab", "", Limits::of_disk(Sectors(SECTORS)), false);
        let credentials = Credentials::of(certificates);
        World {
            client: End::new(Client::new("lab", true)),
            server: End::new(Connection::new(Rc::new(export), secrecy, Instant::START)),
            server_config: credentials.server(verify_peer).unwrap(),
            client_config: credentials.client().unwrap(),
            up: Vec::new(),
            down: Vec::new(),
            volume: vec![0; SECTORS as usize * 512],
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    fn some(&mut self) -> usize {
        let bound = [5, 500, 100_000][self.rng.next_u64() as usize % 3];
        1 + self.rng.next_u64() as usize % bound
    }

    /// Whether anything moved.
    fn step(&mut self) -> bool {
        let [a, b, c, d] = [(); 4].map(|()| self.some());
        let mut moved = self.client.send(&mut self.up, a);
        moved |= self.server.receive(&mut self.up, b);
        moved |= self.work();
        moved |= self.server.send(&mut self.down, c);
        moved |= self.client.receive(&mut self.down, d);
        if self.server.side.awaits_tls() {
            self.server.tls = Some(Tls::server(&self.server_config));
            self.server.side.encrypted();
        }
        if self.client.side.awaits_tls() {
            let name = ServerName::try_from("localhost").unwrap();
            self.client.tls = Some(Tls::client(&self.client_config, name));
            self.client.side.encrypted();
        }
        moved
    }

    fn work(&mut self) -> bool {
        self.server.side.go_on();
        let Some(Work::Io { piece, extent, mut op }) = self.server.side.next_work() else { return false };
        let range = extent.start.bytes() as usize..extent.end().bytes() as usize;
        match &mut op {
            Op::Read(buf) => buf.copy_from(&self.volume[range]),
            Op::Write(payload, _) => self.volume[range].copy_from_slice(&payload.to_vec()),
            Op::WriteZeroes(_) | Op::Discard => self.volume[range].fill(0),
            Op::Flush => {}
        }
        self.server.side.completed(piece, op, Ok(()));
        true
    }

    fn run(&mut self, mut until: impl FnMut(&World) -> bool) {
        // A step may move nothing because a pipe is at the end of a record.
        let mut idle = 0;
        while !until(self) {
            idle = if self.step() { 0 } else { idle + 1 };
            assert!(idle < 10, "nothing moves any more");
        }
    }
}

#[test]
fn what_is_written_under_tls_is_read_back_however_the_bytes_arrive() {
    let certificates = certificates();
    for (seed, secrecy, verify_peer) in
        [(0, Secrecy::Offered, false), (1, Secrecy::Required, true), (2, Secrecy::Required, false)]
    {
        let mut world = World::new(seed, certificates.path(), secrecy, verify_peer);
        world.run(|world| world.client.side.export().is_some() || world.client.side.error().is_some());
        assert_eq!(world.client.side.error(), None);
        let mut bytes = vec![0; 9 << 20];
        world.rng.fill_bytes(&mut bytes);
        // Longer than the window, and many that are shorter than a record.
        let long = Extent::new(Lba(3), Sectors(bytes.len() as u64 / 512));
        let mut buf = Buf::zeroed(bytes.len());
        buf.copy_from(&bytes);
        let payload = buf.freeze();
        world.client.side.submit(0, long, Op::Write(payload.clone(), Durability::Fua));
        world.run(|world| world.client.side.is_idle());
        world.client.side.submit(1, long, Op::Read(Buf::zeroed(bytes.len())));
        for key in 2..200 {
            let extent = Extent::new(Lba(3 + key * 8), Sectors(8));
            world.client.side.submit(key, extent, Op::Read(Buf::zeroed(4096)));
        }
        world.run(|world| world.client.side.is_idle());
        while let Some((key, op, result)) = world.client.side.next_done() {
            assert_eq!(result, Ok(()));
            let Op::Read(buf) = op else { continue };
            let from = if key == 1 { 0 } else { key as usize * 4096 };
            let length = buf.len();
            assert!(buf.freeze().to_vec() == bytes[from..from + length], "{key}");
        }
    }
}

#[test]
fn a_server_that_is_signed_by_nobody_known_is_not_spoken_to() {
    let (ours, theirs) = (certificates(), certificates());
    let mut world = World::new(7, ours.path(), Secrecy::Offered, false);
    world.server_config = Credentials::of(theirs.path()).server(false).unwrap();
    world.run(|world| world.client.error.is_some());
    let told = in_words(&world.client.error.unwrap());
    assert!(told.contains("certificate") && told.contains("ca-cert.pem"), "{told}");
}

#[test]
fn a_client_that_has_to_show_a_certificate_and_has_another_ones_is_turned_away() {
    let (ours, theirs) = (certificates(), certificates());
    let mut world = World::new(7, ours.path(), Secrecy::Required, true);
    for name in ["client-cert.pem", "client-key.pem"] {
        std::fs::copy(theirs.path().join(name), ours.path().join(name)).unwrap();
    }
    world.client_config = Credentials::of(ours.path()).client().unwrap();
    world.run(|world| world.server.error.is_some());
    assert!(world.server.side.handshake_until().is_some());
}

#[test]
fn a_client_that_shows_nothing_is_told_what_it_could_show() {
    let certificates = certificates();
    let mut world = World::new(7, certificates.path(), Secrecy::Required, true);
    std::fs::remove_file(certificates.path().join("client-cert.pem")).unwrap();
    world.client_config = Credentials::of(certificates.path()).client().unwrap();
    world.run(|world| world.client.error.is_some());
    let told = in_words(&world.client.error.unwrap());
    assert!(told.contains("client-cert.pem"), "{told}");
}

#[test]
fn a_server_of_another_name_can_be_meant_all_the_same() {
    let told = in_words(&Error::InvalidCertificate(CertificateError::NotValidForName));
    assert!(told.contains("?tls-hostname=NAME"), "{told}");
}

/// A connection carries more than 2²⁴ records.
#[test]
fn no_cipher_is_offered_under_which_a_connection_must_end() {
    let suites = crate::nbd::credentials::provider().cipher_suites.clone();
    let limit_of = |suite: &rustls::SupportedCipherSuite| match suite {
        rustls::SupportedCipherSuite::Tls12(suite) => Some(suite.common.confidentiality_limit),
        rustls::SupportedCipherSuite::Tls13(_) => None,
    };
    let limits: Vec<u64> = suites.iter().filter_map(limit_of).collect();
    assert!(!limits.is_empty() && limits.iter().all(|limit| *limit == u64::MAX), "{suites:?}");
    assert!(limits.len() < suites.len(), "TLS 1.3 is offered, too");
}

#[test]
fn a_server_without_tls_is_refused_by_a_client_that_wants_it() {
    let certificates = certificates();
    let mut world = World::new(7, certificates.path(), Secrecy::None, false);
    world.run(|world| world.client.side.error().is_some());
    assert!(matches!(world.client.side.error(), Some(ClientError::NoTls { .. })));
}

/// Somebody on the way could put options there in the clear, to be taken for the client's own.
#[test]
fn bytes_in_the_clear_behind_starttls_end_the_connection() {
    let export = Export::new("", "", Limits::of_disk(Sectors(8)), false);
    let mut server = End::new(Connection::new(Rc::new(export), Secrecy::Offered, Instant::START));
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    bytes.extend([ClientOption::StartTls, ClientOption::List].iter().flat_map(ClientOption::encode));
    while server.receive(&mut bytes, usize::MAX) {}
    assert!(server.side.is_broken());
}

#[test]
fn what_is_wrong_with_a_directory_is_said_of_the_file() {
    let directory = certificates();
    let server = |verify| Credentials::of(directory.path()).server(verify).map(|_| ()).unwrap_err().to_string();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("ca-crl.pem"), "no list").unwrap();
    assert!(server(true).contains("ca-crl.pem: it holds no list"), "{}", server(true));
    std::fs::write(at("ca-crl.pem"), "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
    assert!(server(true).contains("ca-crl.pem: "), "{}", server(true));
    std::fs::remove_file(at("ca-crl.pem")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("ca-crl.pem")).unwrap();
    assert!(server(true).contains("ca-crl.pem: No such file"), "{}", server(true));
    std::fs::remove_file(at("ca-crl.pem")).unwrap();
    std::fs::rename(at("client-cert.pem"), at("away")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("client-cert.pem")).unwrap();
    let client = Credentials::of(directory.path()).client().map(|_| ()).unwrap_err().to_string();
    assert!(client.contains("client-cert.pem: No such file"), "{client}");
    std::fs::copy(at("client-key.pem"), at("server-key.pem")).unwrap();
    assert!(server(false).contains("server-key.pem"), "{}", server(false));
    std::fs::write(at("server-key.pem"), "-----BEGIN RUBBISH-----\n").unwrap();
    assert!(server(false).contains("server-key.pem: it holds no private key"), "{}", server(false));
    std::fs::remove_file(at("server-cert.pem")).unwrap();
    assert!(server(false).contains("server-cert.pem: No such file"), "{}", server(false));
    std::fs::remove_file(at("ca-cert.pem")).unwrap();
    assert!(server(true).contains("ca-cert.pem: No such file"), "{}", server(true));
}
