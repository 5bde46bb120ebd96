//! Commands that change or watch an array, wherever it runs.
//!
//! What such a command does is a [`Job`]: [begun](begin) on a stack, looked at after every poll, ended. A lab at rest is
//! opened for it, and the job driven here ([`carry_out`]); on a lab that runs, the process that serves it drives the very
//! same job between two turns of its reactor (the [desk](super::desk)), and this process shows what it is told. So a
//! command says the same in both cases.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bars::Bar;
use super::events::Journal;
use super::run::{self, Line, stop_flag};
use super::{Failure, Manner, Outcome, fault, members, path, scrub, set};
use crate::block::Sectors;
use crate::control::{Client, ClientError, Command, Reply, Request, VERSION};
use crate::stack::{OpenOptions, Stack};

/// Where a job says what there is to say.
pub trait Say {
    /// To the person at the terminal.
    fn hint(&mut self, line: &str);

    /// A line of data.
    fn line(&mut self, line: &str);
}

/// How a job was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the lab was called.
    pub lab: &'a Path,
    /// Where relative paths begin.
    pub directory: &'a Path,
}

/// Work on an array that runs.
pub trait Job {
    /// Whether it is done.
    fn is_done(&mut self, stack: &mut Stack) -> bool;

    /// It is to end before it is done; soon after it is.
    fn interrupt(&mut self, stack: &mut Stack);

    /// What it came to, once it is done.
    fn end(self: Box<Self>, stack: &mut Stack, say: &mut dyn Say) -> Outcome;

    /// Whether it goes on when nobody waits for it any more.
    fn outlives_caller(&self) -> bool {
        false
    }

    /// Whether it is a check or repair.
    fn is_scrub(&self) -> bool {
        false
    }
}

/// Whether recovery and resync have nothing left to do, and all that is known of the members is on record.
pub fn is_settled(stack: &Stack) -> bool {
    !stack.array().is_syncing() && !stack.array().is_recording()
}

/// A job that was over as soon as it was begun.
pub struct Done;

impl Job for Done {
    fn is_done(&mut self, _stack: &mut Stack) -> bool {
        true
    }

    fn interrupt(&mut self, _stack: &mut Stack) {}

    fn end(self: Box<Self>, _stack: &mut Stack, _say: &mut dyn Say) -> Outcome {
        Ok(0)
    }
}

impl Job for path::Wanted {
    fn is_done(&mut self, stack: &mut Stack) -> bool {
        self.can_be_done(stack)
    }

    fn interrupt(&mut self, _stack: &mut Stack) {
        self.hurry();
    }

    fn end(self: Box<Self>, stack: &mut Stack, say: &mut dyn Say) -> Outcome {
        self.carry_out(stack, say).map(|()| 0)
    }
}

/// Begins a job. `read`, `write` and what concerns the process that serves are not among them.
pub fn begin(
    stack: &mut Stack,
    command: &Command,
    asked: Asked<'_>,
    say: &mut dyn Say,
) -> Result<Box<dyn Job>, Failure> {
    match command {
        Command::Fail { disk } => members::begin_fail(stack, disk, asked),
        Command::Remove { disk } => members::begin_remove(stack, disk),
        Command::Add { disk, spare, yes } => members::begin_add(stack, disk.as_deref(), *spare, *yes, asked, say),
        Command::ReAdd { disk } => members::begin_re_add(stack, disk, asked),
        Command::Replace { disk, with, yes } => members::begin_replace(stack, disk, with.as_deref(), *yes, asked, say),
        Command::Check { range } => scrub::begin_check(stack, *range, asked, say),
        Command::Repair { trust_data } => scrub::begin_repair(stack, *trust_data, asked, say),
        Command::Wait => Ok(scrub::begin_wait(asked)),
        Command::Set { settings } => set::on(stack, settings).map(done),
        Command::Path(command) => Ok(Box::new(path::begin(stack, command)?)),
        Command::FaultList => {
            fault::list(stack, say);
            Ok(done(()))
        }
        Command::FaultAdd { disk, fault } => fault::arm(stack, disk, fault, say).map(done),
        Command::ComponentFault { component, health } => fault::set_health(stack, component, *health, say).map(done),
        Command::FaultClear { disk } => fault::disarm(stack, disk.as_deref()).map(done),
        Command::Status { .. }
        | Command::PauseScrub
        | Command::CancelScrub
        | Command::Read { .. }
        | Command::Write { .. }
        | Command::Stop
        | Command::PowerCut { .. } => unreachable!("{command:?} is no job"),
    }
}

fn done(_: ()) -> Box<dyn Job> {
    Box::new(Done)
}

/// Carries a command out on a lab: through the process that serves it if one does, else on the lab opened here.
pub fn carry_out(lab: &Path, command: &Command, no_wait: bool, manner: Manner, out: &mut impl Write) -> Outcome {
    if let Some(client) = Client::find(lab)? {
        return through(client, lab, command, no_wait, manner, out);
    }
    let options = match command {
        // What leaves does not have to be waited for.
        Command::Remove { .. } | Command::Path(_) => OpenOptions { frozen: true, ..OpenOptions::default() },
        _ => OpenOptions::default(),
    };
    let stop = stop_flag();
    let mut stack = run::open(lab, options, manner)?;
    let mut journal = Journal::open(&stack.lab.directory);
    let directory = current_directory()?;
    let asked = Asked { lab, directory: &directory };
    let mut at_hand = AtHand { manner, out, bar: None, broken: None };
    let outcome = begin(&mut stack, command, asked, &mut at_hand)
        .and_then(|job| drive(job, &mut stack, &stop, &mut journal, &mut at_hand));
    at_hand.bar = None;
    stack.stop_in_place();
    journal.note(&mut stack, |line| manner.say(line));
    match at_hand.broken {
        Some(error) => Err(error.into()),
        None => outcome,
    }
}

/// Where relative paths begin.
pub fn current_directory() -> Result<std::path::PathBuf, Failure> {
    std::env::current_dir().map_err(|error| Failure::cannot(format!("cannot tell the current directory: {error}")))
}

fn drive(
    mut job: Box<dyn Job>,
    stack: &mut Stack,
    stop: &AtomicBool,
    journal: &mut Journal,
    at_hand: &mut AtHand<'_, impl Write>,
) -> Outcome {
    let mut interrupted = false;
    loop {
        stack.reactor.poll();
        journal.note(stack, |line| at_hand.tell(line));
        at_hand.show(stack);
        if stop.load(Ordering::Relaxed) && !std::mem::replace(&mut interrupted, true) {
            job.interrupt(stack);
        }
        if job.is_done(stack) {
            return job.end(stack, at_hand);
        }
        stack.reactor.wait(run::PATIENCE);
    }
}

/// The terminal this process was started at.
struct AtHand<'a, W> {
    manner: Manner,
    out: &'a mut W,
    bar: Option<(String, Bar)>,
    broken: Option<std::io::Error>,
}

impl<W: Write> AtHand<'_, W> {
    fn show(&mut self, stack: &Stack) {
        if let Some((action, progress)) = run::progress(stack) {
            self.progress(action, progress.done, progress.total);
        }
    }

    fn progress(&mut self, action: &str, done: Sectors, total: Sectors) {
        if self.bar.as_ref().is_none_or(|(shown, _)| shown != action) {
            self.bar = Some((action.to_owned(), Bar::new(action, total, self.manner.quiet)));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set(done);
        }
    }

    fn tell(&mut self, line: &Line) {
        if self.manner.wants(line) {
            match &self.bar {
                Some((_, bar)) => bar.note(line.text()),
                None => self.manner.hint(line.text()),
            }
        }
    }
}

impl<W: Write> Say for AtHand<'_, W> {
    fn hint(&mut self, line: &str) {
        self.tell(&Line::Hint(line.to_owned()));
    }

    fn line(&mut self, line: &str) {
        self.bar = None;
        if let Err(error) = writeln!(self.out, "{line}") {
            self.broken.get_or_insert(error);
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::cannot(error.to_string())
    }
}

/// Asks the process that serves a lab, and shows what it says.
pub fn through(
    mut client: Client,
    lab: &Path,
    command: &Command,
    no_wait: bool,
    manner: Manner,
    out: &mut impl Write,
) -> Outcome {
    let stop = stop_flag();
    let directory = current_directory()?;
    let request = Request { version: VERSION, lab: lab.to_owned(), directory, no_wait, command: command.clone() };
    match command {
        Command::Read { .. } => client.ask(&request, Some(std::io::stdout().as_fd()))?,
        Command::Write { .. } => client.ask(&request, Some(standard_input()?.as_fd()))?,
        _ => client.ask(&request, None)?,
    }
    let mut at_hand = AtHand { manner, out, bar: None, broken: None };
    let outcome = loop {
        match client.next(|| stop.load(Ordering::Relaxed))? {
            None => break Err(given_up(command, lab)),
            Some(Reply::Hint(line)) => at_hand.tell(&Line::Hint(line)),
            Some(Reply::Detail(line)) => at_hand.tell(&Line::Detail(line)),
            Some(Reply::Progress { action, done, total }) => at_hand.progress(&action, Sectors(done), Sectors(total)),
            Some(Reply::Line(line)) => at_hand.line(&line),
            Some(Reply::End { code, message: None }) => break Ok(code),
            Some(Reply::End { code, message: Some(message) }) => break Err(Failure { code, message }),
        }
    };
    match at_hand.broken {
        Some(error) => Err(error.into()),
        None => outcome,
    }
}

/// Where another process reads what this one is given. A terminal is read here: another process that did it would be
/// stopped for it.
fn standard_input() -> Result<OwnedFd, Failure> {
    let cannot = |error| Failure::cannot(format!("cannot hand over the standard input: {error}"));
    let input = std::io::stdin();
    if !input.is_terminal() {
        return input.as_fd().try_clone_to_owned().map_err(cannot);
    }
    let (reader, mut writer) = std::io::pipe().map_err(cannot)?;
    // It ends with the input, or when the other side has enough.
    std::thread::spawn(move || std::io::copy(&mut input.lock(), &mut writer));
    Ok(reader.into())
}

/// Ctrl-C while a process elsewhere is at work.
fn given_up(command: &Command, lab: &Path) -> Failure {
    let lab = lab.display();
    Failure::cannot(match command {
        Command::Read { .. } => String::from("interrupted"),
        Command::Write { .. } => String::from("interrupted: what was written before is kept"),
        Command::Check { .. } | Command::Repair { .. } => format!(
            "the lab goes on with it: `raidlab status {lab}` shows how far it is, `raidlab check {lab} --pause` interrupts it"
        ),
        _ => format!("the lab goes on with it: `raidlab status {lab}` shows how far it is"),
    })
}
