//! `serve`: the volume for other programs, until Ctrl-C.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use signal_hook::consts::SIGCHLD;
use uuid::Uuid;

use super::run::{self, stop_flag};
use super::serving::{Next, Serving};
use super::{Failure, LabArg, Manner, Outcome};
use crate::block::Bank;
use crate::export::nbd::{Endpoint, EndpointError, Export, Listener, Server, ServerTls};
use crate::nbd::{Credentials, NbdServer, NbdTls, NbdUri};
use crate::raid::VOLUME;
use crate::stack::{OpenOptions, Stack};

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Where NBD clients find it: unix:PATH or tcp:ADDRESS:PORT; unix:LAB/nbd.sock if not said
    #[arg(long, value_name = "WHERE")]
    nbd: Vec<Endpoint>,
    /// Take no writes
    #[arg(long)]
    read_only: bool,
    /// Serve while a shell command runs, which finds $uri, $unixsocket, $port and $exportname; end with its exit code
    #[arg(long, value_name = "CMD")]
    run: Option<String>,
    /// Call this program with each event, the lab and, where it is about one, the disk, as mdadm's PROGRAM
    #[arg(long, value_name = "CMD")]
    hook: Option<OsString>,
    /// Let other computers in, under TLS: whoever reaches the address can read and write everything
    #[arg(long)]
    listen_public: bool,
    /// Whether clients may or must be encrypted; with certificates they must, unless said otherwise
    #[arg(long, value_name = "WHEN")]
    tls: Option<TlsWhen>,
    /// Where server-cert.pem and server-key.pem are, and ca-cert.pem for --tls-verify-peer
    #[arg(long, value_name = "DIR")]
    tls_certificates: Option<PathBuf>,
    /// Let in only clients with a certificate that ca-cert.pem has signed
    #[arg(long)]
    tls_verify_peer: bool,
}

/// When clients are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum TlsWhen {
    /// Never
    Off,
    /// If they ask for it
    On,
    /// Always: others are refused
    Require,
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Failure {
        match error {
            EndpointError::NotUnderstood(_) => Failure::usage(error.to_string()),
            _ => Failure::cannot(error.to_string()),
        }
    }
}

/// Runs `serve`.
pub fn run(args: &ServeArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let tls = tls_of(args, manner)?;
    args.nbd.iter().try_for_each(|endpoint| check_public(endpoint, args, tls.as_ref()))?;
    let stop = stop_flag();
    let mut stack = run::open(&args.lab.lab, OpenOptions::default(), manner)?;
    match serve(args, tls, &mut stack, &stop, manner, out) {
        // Nobody was served yet: the array is put back as it was.
        Err(NotServed(failure)) => {
            stack.stop();
            Err(failure)
        }
        Ok(outcome) => outcome,
    }
}

/// What clients are encrypted with, if they are.
fn tls_of(args: &ServeArgs, manner: Manner) -> Result<Option<ServerTls>, Failure> {
    let when = args.tls.unwrap_or(if args.tls_certificates.is_some() { TlsWhen::Require } else { TlsWhen::Off });
    let directory = match (when, &args.tls_certificates) {
        (TlsWhen::Off, _) if args.tls_verify_peer => {
            return Err(Failure::usage("--tls-verify-peer goes with TLS: give --tls-certificates DIR"));
        }
        (TlsWhen::Off, _) => return Ok(None),
        (TlsWhen::On, _) if args.tls_verify_peer => {
            return Err(Failure::usage(
                "--tls-verify-peer goes with --tls require: with --tls on, clients without TLS get in and show nothing",
            ));
        }
        (_, None) => {
            return Err(Failure::usage(
                "TLS wants --tls-certificates DIR, a directory with server-cert.pem and server-key.pem",
            ));
        }
        (_, Some(directory)) => directory,
    };
    let credentials = Credentials::of(directory);
    for key in credentials.exposed_keys() {
        manner.hint(&format!("{} can be read by others than its owner: chmod 600 it", key.display()));
    }
    let authorities = directory.join("ca-cert.pem");
    if !authorities.exists() {
        manner.hint(&format!(
            "there is no {}: clients look there for whom to trust; put the certificate of who signed server-cert.pem there",
            authorities.display()
        ));
    }
    let config = credentials.server(args.tls_verify_peer).map_err(|error| {
        Failure::cannot(format!(
            "{error}; --tls-certificates wants a directory with server-cert.pem and server-key.pem, and with ca-cert.pem \
             for --tls-verify-peer"
        ))
    })?;
    Ok(Some(ServerTls { credentials: config, is_required: when == TlsWhen::Require }))
}

/// Other computers come in under TLS, and only if that is meant.
fn check_public(endpoint: &Endpoint, args: &ServeArgs, tls: Option<&ServerTls>) -> Result<(), Failure> {
    if endpoint.is_private() {
        return Ok(());
    }
    if !args.listen_public {
        return Err(Failure::usage(format!(
            "{endpoint} can be reached from other computers, and whoever does can read and write everything: \
             say --listen-public if that is meant, or listen at 127.0.0.1"
        )));
    }
    match tls {
        Some(tls) if tls.is_required => Ok(()),
        _ => Err(Failure::usage(format!(
            "{endpoint} can be reached from other computers, and what they read and write from everywhere on the way: \
             TLS is required there, give --tls-certificates DIR"
        ))),
    }
}

/// It failed before the array had users.
struct NotServed(Failure);

impl<E: Into<Failure>> From<E> for NotServed {
    fn from(error: E) -> NotServed {
        NotServed(error.into())
    }
}

fn serve(
    args: &ServeArgs,
    tls: Option<ServerTls>,
    stack: &mut Stack,
    stop: &AtomicBool,
    manner: Manner,
    out: &mut impl Write,
) -> Result<Outcome, NotServed> {
    let serving = Serving::begin(stack, args.hook.clone(), manner)?;
    let listeners = listen(args)?;
    listeners.iter().try_for_each(|listener| check_public(listener.endpoint(), args, tls.as_ref()))?;
    let first = listeners.first().expect("there is a default");
    let export = export_of(args, stack);
    // Whoever must be encrypted is told so by the name of the protocol.
    let certificates = tls.as_ref().filter(|tls| tls.is_required).and(args.tls_certificates.as_deref());
    let uri = |listener: &Listener| uri_of(listener.endpoint(), certificates);
    let mut captive = match &args.run {
        Some(command) => Some(Captive::start(command, first, &uri(first), &export)?),
        None => {
            for listener in &listeners {
                writeln!(out, "{}", uri(listener))?;
            }
            out.flush()?;
            None
        }
    };
    let mut server = Server::new(export, listeners, tls);
    let ended = serving.run(stack, &mut server, |wanted| {
        let is_over = wanted || stop.load(Ordering::Relaxed) || captive.as_mut().is_some_and(Captive::has_ended);
        if is_over { Next::End } else { Next::GoOn }
    });
    drop(server);
    let code = captive.map(Captive::end);
    Ok(ended.map(|_| code.unwrap_or(0)))
}

/// What was asked for, or was handed over by whoever started this, or else a socket in the lab.
fn listen(args: &ServeArgs) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Listener::inherited(|name| std::env::var(name).ok())?;
    let endpoints = match args.nbd.is_empty() && listeners.is_empty() {
        true => &[Endpoint::Unix(args.lab.lab.join("nbd.sock"))][..],
        false => &args.nbd,
    };
    for endpoint in endpoints {
        listeners.push(Listener::bind(endpoint)?);
    }
    Ok(listeners)
}

/// What clients are told to find it. Under TLS they are told of the directory, too: what they need to trust us is there.
fn uri_of(endpoint: &Endpoint, certificates: Option<&Path>) -> String {
    let server = match endpoint {
        Endpoint::Unix(path) => NbdServer::Unix(path.clone()),
        Endpoint::Tcp(address) => NbdServer::Tcp { host: address.ip().to_string(), port: address.port() },
    };
    let tls = certificates.map(|directory| NbdTls {
        certificates: std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned()),
        hostname: None,
    });
    NbdUri { server, export: String::new(), tls }.to_string()
}

fn export_of(args: &ServeArgs, stack: &Stack) -> Export {
    let path = std::path::absolute(&args.lab.lab).unwrap_or_else(|_| args.lab.lab.clone());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let geometry = stack.array().geometry();
    let description = format!("{} of {} disks", geometry.level(), geometry.raid_disks());
    let export = Export::new(&name, &description, stack.array().limits(VOLUME), args.read_only);
    Export { server: Some(Uuid::new_v4().as_u128()), ..export }
}

/// A command that the volume is served for.
struct Captive {
    child: Child,
    /// A child has ended, perhaps this one.
    rung: Arc<AtomicBool>,
    ended: Option<ExitStatus>,
}

impl Captive {
    fn start(command: &str, listener: &Listener, uri: &str, export: &Export) -> Result<Captive, Failure> {
        let rung = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGCHLD, Arc::clone(&rung)).expect("this signal can be caught");
        let (socket, port) = match listener.endpoint() {
            Endpoint::Unix(path) => (path.clone().into_os_string(), String::new()),
            Endpoint::Tcp(address) => (Default::default(), address.port().to_string()),
        };
        let child = Command::new("sh")
            .args(["-c", command])
            .env("uri", uri)
            .env("nbd", uri)
            .env("unixsocket", socket)
            .env("port", port)
            .env("exportname", &export.name)
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            .spawn()
            .map_err(|error| Failure::cannot(format!("cannot run sh -c {command:?}: {error}")))?;
        Ok(Captive { child, rung, ended: None })
    }

    fn has_ended(&mut self) -> bool {
        if self.rung.swap(false, Ordering::Relaxed) {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_some()
    }

    /// Its exit code, as a shell says it. One that still runs is told that it is over, and waited for.
    fn end(mut self) -> u8 {
        use std::os::unix::process::ExitStatusExt;
        if self.ended.is_none() {
            let pid = rustix::process::Pid::from_child(&self.child);
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let Ok(status) = self.child.wait() else { return 4 };
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(4);
        u8::try_from(code).unwrap_or(4)
    }
}
