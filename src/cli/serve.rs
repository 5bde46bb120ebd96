//! `serve`: the volume for other programs, until Ctrl-C.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use signal_hook::consts::SIGCHLD;

use super::run::{self, stop_flag};
use super::serving::{Next, Serving};
use super::{Failure, LabArg, Manner, Outcome};
use crate::block::Bank;
use crate::export::nbd::{Endpoint, EndpointError, Export, Listener, Server};
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
    /// Let other computers in: whoever reaches the address can read and write everything
    #[arg(long)]
    listen_public: bool,
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
    if let Some(public) = args.nbd.iter().find(|endpoint| !endpoint.is_private())
        && !args.listen_public
    {
        return Err(Failure::usage(format!(
            "{public} can be reached from other computers, and whoever does can read and write everything: \
             say --listen-public if that is meant, or listen at 127.0.0.1"
        )));
    }
    let stop = stop_flag();
    let mut stack = run::open(&args.lab.lab, OpenOptions::default(), manner)?;
    match serve(args, &mut stack, &stop, manner, out) {
        // Nobody was served yet: the array is put back as it was.
        Err(NotServed(failure)) => {
            stack.stop();
            Err(failure)
        }
        Ok(outcome) => outcome,
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
    stack: &mut Stack,
    stop: &AtomicBool,
    manner: Manner,
    out: &mut impl Write,
) -> Result<Outcome, NotServed> {
    let serving = Serving::begin(stack, args.hook.clone(), manner)?;
    let listeners = listen(args)?;
    let first = listeners.first().expect("there is a default");
    let export = export_of(args, stack);
    let mut captive = match &args.run {
        Some(command) => Some(Captive::start(command, first, &export)?),
        None => {
            for listener in &listeners {
                writeln!(out, "{}", listener.uri())?;
            }
            out.flush()?;
            None
        }
    };
    let mut server = Server::new(export, listeners);
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

fn export_of(args: &ServeArgs, stack: &Stack) -> Export {
    let path = std::path::absolute(&args.lab.lab).unwrap_or_else(|_| args.lab.lab.clone());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let geometry = stack.array().geometry();
    let description = format!("{} of {} disks", geometry.level(), geometry.raid_disks());
    Export::new(&name, &description, stack.array().limits(VOLUME), args.read_only)
}

/// A command that the volume is served for.
struct Captive {
    child: Child,
    /// A child has ended, perhaps this one.
    rung: Arc<AtomicBool>,
    ended: Option<ExitStatus>,
}

impl Captive {
    fn start(command: &str, listener: &Listener, export: &Export) -> Result<Captive, Failure> {
        let rung = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGCHLD, Arc::clone(&rung)).expect("this signal can be caught");
        let (socket, port) = match listener.endpoint() {
            Endpoint::Unix(path) => (path.clone().into_os_string(), String::new()),
            Endpoint::Tcp(address) => (Default::default(), address.port().to_string()),
        };
        let child = Command::new("sh")
            .args(["-c", command])
            .env("uri", listener.uri())
            .env("nbd", listener.uri())
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
