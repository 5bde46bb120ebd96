//! Where a lab that runs takes commands: between two turns of its reactor.
//!
//! Each [request](crate::control::Request) becomes an *errand*: a [job](super::job) that is looked at once a turn, or a
//! thread of its own for `read` and `write`, whose bytes go through the descriptor that came along.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use super::data::{Elsewhere, UntilStopped, copy_in, copy_out};
use super::job::{self, Asked, Job, Say};
use super::run::{self, Line};
use super::scrub::Interrupting;
use super::{Failure, Outcome, scrub, status};
use crate::block::Instant;
use crate::control::{Caller, Command, Reply, Request, Server};
use crate::reactor::Handle;
use crate::stack::Stack;

/// How often those who wait are told how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How the lab is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// As by SIGTERM.
    Stop,
    /// As by a power cut.
    PowerCut {
        /// Decides what is lost.
        seed: u64,
    },
}

/// Takes requests, and sees to them.
pub struct Desk {
    server: Server,
    handle: Handle,
    errands: Vec<Errand>,
    progress_at: Instant,
    wish: Option<Wish>,
    /// Those who asked for the end, and wait for it.
    enders: Vec<Caller>,
}

struct Errand {
    caller: Caller,
    request: Request,
    work: Work,
}

enum Work {
    Job(Box<dyn Job>),
    Transfer(Transfer),
}

/// Bytes on their way, on a thread of their own.
struct Transfer {
    outcome: Receiver<Outcome>,
    stop: Arc<AtomicBool>,
}

/// Says things to somebody who asked.
struct To<'a> {
    server: &'a mut Server,
    caller: Caller,
}

impl Say for To<'_> {
    fn hint(&mut self, line: &str) {
        self.server.say(self.caller, &Reply::Hint(line.to_owned()));
    }

    fn line(&mut self, line: &str) {
        self.server.say(self.caller, &Reply::Line(line.to_owned()));
    }
}

impl To<'_> {
    fn end(&mut self, outcome: Outcome) {
        let end = match outcome {
            Ok(code) => Reply::End { code, message: None },
            Err(Failure { code, message }) => Reply::End { code, message: Some(message) },
        };
        self.server.say(self.caller, &end);
    }
}

impl Desk {
    /// A desk for what comes in at `server`; `handle` is a hand in the reactor's loop.
    pub fn new(server: Server, handle: Handle) -> Desk {
        Desk { server, handle, errands: Vec::new(), progress_at: Instant::START, wish: None, enders: Vec::new() }
    }

    /// The front end, for the reactor.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Takes what was asked, and goes on with what is under way. Gives the wish for the end, if somebody had it.
    pub fn attend(&mut self, stack: &mut Stack) -> Option<Wish> {
        while let Some((caller, request, descriptor)) = self.server.take() {
            self.take(stack, caller, request, descriptor);
        }
        if !self.errands.is_empty() {
            self.go_on(stack);
            self.show_progress(stack);
        }
        self.wish
    }

    /// Tells everybody who waits for the array what happened to it.
    pub fn tell(&mut self, line: &Line) {
        let reply = match line {
            Line::Hint(text) => Reply::Hint(text.clone()),
            Line::Detail(text) => Reply::Detail(text.clone()),
        };
        for errand in self.errands.iter().filter(|errand| matches!(errand.work, Work::Job(_))) {
            self.server.say(errand.caller, &reply);
        }
    }

    /// Tells those who asked for the end what it came to.
    pub fn tell_enders(&mut self, line: &str) {
        for caller in &self.enders {
            self.server.say(*caller, &Reply::Hint(line.to_owned()));
        }
    }

    /// Ends what is under way before its time.
    pub fn interrupt(&mut self, stack: &mut Stack) {
        for errand in &mut self.errands {
            match &mut errand.work {
                Work::Job(job) => job.interrupt(stack),
                Work::Transfer(transfer) => transfer.stop.store(true, Ordering::Relaxed),
            }
        }
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.errands.is_empty()
    }

    /// Those who asked for the end do not get it.
    pub fn refuse_to_end(&mut self, why: &str) {
        self.wish = None;
        for caller in std::mem::take(&mut self.enders) {
            To { server: &mut self.server, caller }.end(Err(Failure::cannot(why)));
        }
    }

    /// The lab has ended: tells so to everybody who is left.
    pub fn close(mut self, failure: Option<&Failure>) {
        for caller in self.enders {
            let mut to = To { server: &mut self.server, caller };
            to.end(match failure {
                None => Ok(0),
                Some(Failure { code, message }) => Err(Failure { code: *code, message: message.clone() }),
            });
        }
        self.server.dismiss(4, Some("the lab was stopped before this was done"));
    }

    fn take(&mut self, stack: &mut Stack, caller: Caller, request: Request, descriptor: Option<OwnedFd>) {
        let mut to = To { server: &mut self.server, caller };
        let work = match &request.command {
            Command::Status { form, test, utf8 } => {
                let outcome = status::of_running(stack, &request.lab, *form, *test, *utf8, &mut to);
                return to.end(outcome);
            }
            // They are told when it is over.
            Command::Stop => return self.end_wanted(caller, Wish::Stop),
            Command::PowerCut { seed } => return self.end_wanted(caller, Wish::PowerCut { seed: *seed }),
            Command::PauseScrub => interrupt_scrub(&mut self.errands, stack, false),
            Command::CancelScrub => interrupt_scrub(&mut self.errands, stack, true),
            Command::Read { .. } | Command::Write { .. } => {
                Transfer::begin(stack, &request.command, descriptor, self.handle.clone()).map(Work::Transfer)
            }
            command => {
                let asked = Asked { lab: &request.lab, directory: &request.directory };
                job::begin(stack, command, asked, &mut to).map(Work::Job)
            }
        };
        match work {
            Ok(work) => {
                if request.no_wait {
                    to.end(Ok(0));
                }
                self.errands.push(Errand { caller, request, work });
            }
            Err(failure) => to.end(Err(failure)),
        }
    }

    fn end_wanted(&mut self, caller: Caller, wish: Wish) {
        self.enders.push(caller);
        // A power cut does not wait until a stop is through.
        if self.wish != Some(wish) && !matches!(self.wish, Some(Wish::PowerCut { .. })) {
            self.wish = Some(wish);
        }
    }

    fn go_on(&mut self, stack: &mut Stack) {
        for errand in std::mem::take(&mut self.errands) {
            let Errand { caller, request, work } = errand;
            let is_awaited = self.server.is_there(caller);
            let mut to = To { server: &mut self.server, caller };
            match work {
                Work::Job(mut job) => {
                    if job.is_done(stack) {
                        let outcome = job.end(stack, &mut to);
                        to.end(outcome);
                    } else if is_awaited || job.outlives_caller() {
                        self.errands.push(Errand { caller, request, work: Work::Job(job) });
                    }
                }
                Work::Transfer(transfer) => {
                    if !is_awaited {
                        transfer.stop.store(true, Ordering::Relaxed);
                    }
                    match transfer.outcome.try_recv() {
                        Ok(outcome) => to.end(outcome),
                        Err(TryRecvError::Disconnected) => to.end(Err(Failure::cannot("the transfer broke off"))),
                        Err(TryRecvError::Empty) => {
                            self.errands.push(Errand { caller, request, work: Work::Transfer(transfer) });
                        }
                    }
                }
            }
        }
    }

    fn show_progress(&mut self, stack: &Stack) {
        let now = stack.reactor.now();
        if now < self.progress_at {
            return;
        }
        self.progress_at = now + PROGRESS_EVERY;
        let Some((action, progress)) = run::progress(stack) else { return };
        let reply = Reply::Progress { action: action.to_owned(), done: progress.done.0, total: progress.total.0 };
        for errand in self.errands.iter().filter(|errand| matches!(errand.work, Work::Job(_))) {
            self.server.say(errand.caller, &reply);
        }
    }
}

/// Interrupts the check or repair that is under way; without one, `cancel` concerns the one that was interrupted before.
fn interrupt_scrub(errands: &mut [Errand], stack: &mut Stack, cancel: bool) -> Result<Work, Failure> {
    let scrub = errands.iter_mut().find_map(|errand| match &mut errand.work {
        Work::Job(job) if job.is_scrub() => Some(job),
        _ => None,
    });
    match scrub {
        Some(job) => job.interrupt(stack),
        None if !cancel => return Err(Failure::usage(scrub::NOTHING_RUNS)),
        None => {}
    }
    Ok(Work::Job(Interrupting::begin(cancel)))
}

impl Transfer {
    fn begin(
        stack: &Stack,
        command: &Command,
        descriptor: Option<OwnedFd>,
        handle: Handle,
    ) -> Result<Transfer, Failure> {
        let Some(descriptor) = descriptor else {
            return Err(Failure::cannot("no descriptor came along with the request"));
        };
        let file = File::from(descriptor);
        let mut volume = Elsewhere::new(stack, handle);
        let command = command.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (sender, outcome) = channel();
        let thread = std::thread::Builder::new().name("transfer".into()).spawn(move || {
            let outcome = match command {
                Command::Read { offset, length } => {
                    copy_out(&mut volume, offset, length, &stopped, &mut BufWriter::new(&file))
                }
                Command::Write { offset } => {
                    let mut input = UntilStopped { file: &file, stop: &stopped };
                    copy_in(&mut volume, offset, &stopped, &mut input)
                }
                other => unreachable!("{other:?} moves no bytes"),
            };
            // The lab may have ended meanwhile.
            let _ = sender.send(outcome);
        });
        thread.map_err(|error| Failure::cannot(format!("cannot start a thread: {error}")))?;
        Ok(Transfer { outcome, stop })
    }
}
