//! A lab that runs: whoever brings its users, commands come in beside, and its end is the same.

use std::ffi::OsString;
use std::time::Duration;

use super::desk::{Desk, Wish};
use super::events::Journal;
use super::{Failure, Manner};
use crate::block::Instant;
use crate::control::{Server, ServerError};
use crate::raid::VOLUME;
use crate::reactor::{FrontEnd, Handle, Inbox, Service};
use crate::stack::Stack;

/// How long users and commands have to finish, once the end is wanted.
const FINISH_MAX: Duration = Duration::from_secs(10);

/// A lab on its way of being served: its control socket is there, nobody is answered yet.
pub struct Serving {
    desk: Desk,
    inbox: Inbox,
    journal: Journal,
    manner: Manner,
}

/// Whether a lab goes on being served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// It does.
    GoOn,
    /// It does, although somebody wants its end, who is told why.
    Refuse(String),
    /// It does not.
    End,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Everything was finished, flushed and marked clean.
    Cleanly,
    /// As by a power cut: nothing more may be asked of the stack.
    PowerCut,
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Failure {
        Failure::cannot(error.to_string())
    }
}

impl Serving {
    /// Takes commands for the lab of `stack` from now on; `hook` is called with what happens.
    pub fn begin(stack: &Stack, hook: Option<OsString>, manner: Manner) -> Result<Serving, Failure> {
        let (handle, inbox) = Handle::new()
            .map_err(|error| Failure::cannot(format!("cannot serve {}: {error}", stack.lab.directory.display())))?;
        let desk = Desk::new(Server::bind(&stack.lab.directory)?, handle);
        let mut journal = Journal::open(&stack.lab.directory);
        if let Some(program) = hook {
            journal.call(program);
        }
        Ok(Serving { desk, inbox, journal, manner })
    }

    /// Serves the volume to `front` until `next` says so, which is asked often and told whether somebody wants the end.
    /// Then front ends finish what they have, the volume is flushed, and the array marked clean; or its power is cut.
    pub fn run(
        mut self,
        stack: &mut Stack,
        front: &mut dyn FrontEnd,
        mut next: impl FnMut(bool) -> Next,
    ) -> Result<Ended, Failure> {
        self.journal.arrived(stack);
        let served = self.serve(stack, front, &mut next);
        let ended = match served {
            Ok(Some(seed)) => {
                self.cut(stack, seed);
                Ok(Ended::PowerCut)
            }
            Ok(None) => self.finish(stack).map(|()| Ended::Cleanly),
            Err(failure) => {
                // The array is in order, whatever became of those who wanted something of it.
                self.finish(stack)?;
                Err(failure)
            }
        };
        self.desk.close(ended.as_ref().err());
        if !matches!(ended, Ok(Ended::PowerCut)) {
            self.journal.departed(|line| self.manner.say(line));
        }
        ended
    }

    /// The round, until the end. Gives the seed if the power is to be cut.
    fn serve(
        &mut self,
        stack: &mut Stack,
        front: &mut dyn FrontEnd,
        next: &mut impl FnMut(bool) -> Next,
    ) -> Result<Option<u64>, Failure> {
        let broken = |error| Failure::cannot(format!("cannot wait for clients: {error}"));
        let Serving { desk, inbox, journal, manner } = self;
        let mut service =
            Service::begin(&stack.reactor, VOLUME, &mut [&mut *front, desk.server(), &mut *inbox]).map_err(broken)?;
        let mut stop_by: Option<Instant> = None;
        let outcome = loop {
            service.turn(&mut stack.reactor, &mut [&mut *front, desk.server(), &mut *inbox]);
            journal.note(stack, |line| {
                manner.say(line);
                desk.tell(line);
            });
            let wish = desk.attend(stack);
            if let Some(Wish::PowerCut { seed }) = wish {
                return Ok(Some(seed));
            }
            if stop_by.is_none() {
                match next(wish.is_some()) {
                    Next::GoOn => {}
                    Next::Refuse(why) => desk.refuse_to_end(&why),
                    Next::End => {
                        stop_by = Some(stack.reactor.now() + FINISH_MAX);
                        desk.interrupt(stack);
                        service.stop(&stack.reactor, &mut [&mut *front, desk.server()]);
                    }
                }
            }
            if let Some(stop_by) = stop_by {
                let is_finished = service.is_over(&stack.reactor, &[&mut *front]) && desk.is_idle();
                if is_finished || stack.reactor.now() > stop_by {
                    break Ok(None);
                }
            }
            let waited = service.wait(&stack.reactor, &mut [&mut *front, desk.server(), &mut *inbox]);
            if let Err(error) = waited {
                break Err(broken(error));
            }
        };
        service.end(&mut stack.reactor, &mut [&mut *front, desk.server(), &mut *inbox]);
        outcome
    }

    fn finish(&mut self, stack: &mut Stack) -> Result<(), Failure> {
        let flushed = stack.flush();
        stack.stop_in_place();
        let Serving { desk, journal, manner, .. } = self;
        journal.note(stack, |line| {
            manner.say(line);
            desk.tell(line);
        });
        flushed.map_err(|error| Failure::lost(format!("cannot flush the volume: {error}")))
    }

    fn cut(&mut self, stack: &mut Stack, seed: u64) {
        for loss in stack.power_cut(seed) {
            let lost = loss.cached.0 - loss.kept.0;
            let line = format!(
                "power cut: {} had {} sectors that were not flushed, {lost} are lost",
                stack.name_of(loss.device),
                loss.cached.0,
            );
            self.manner.hint(&line);
            self.desk.tell_enders(&line);
        }
    }
}
