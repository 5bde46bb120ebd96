//! The initiator's half: what has become of every command, and of every nexus.
//!
//! It sends, waits, sends again, and gives back; what goes over the wire is somebody else's. A nexus here leads to one logical unit, so
//! it is named by its path.

use std::collections::BTreeMap;
use std::time::Duration;

use super::frame;
use super::transport::{Abort, RESET_SETTLE, Transport};
use super::{Link, PathId, PathInfo};
use crate::block::mutant::{self, Mutant};
use crate::block::{Completion, Instant, IoError, Op, Request};

/// How soon a target in transition is asked again.
pub const BUSY_DELAY: Duration = Duration::from_millis(100);

/// One attempt at a command, or a question: what an answer is matched by.
pub(super) type Tag = u64;

/// What has to be done outside.
#[derive(Clone, Debug)]
pub(super) enum Out {
    /// A command goes out: [`Initiator::on_the_wire`].
    Send(PathId, Tag),
    /// The target is asked to abort an attempt.
    Abort(PathId, Tag),
    /// The target is asked whether it is there (NOP-Out, keep-alive).
    Ping(PathId),
    /// A lost nexus is tried again.
    Login(PathId),
    /// The unit has answered a request.
    Done(PathId, Completion),
    /// A request comes back without an answer of the unit.
    GivenBack(PathId, Request, IoError),
    /// Something happened that a timeline tells.
    Told(PathId, Note),
}

/// What the transport does by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// The link says that it is lost.
    LinkDown,
    /// The link is back.
    LinkUp,
    /// Nothing was heard, although it was asked for: `noop_out_timeout`, the keep-alive timeout.
    WatchTimeout,
    /// What was sent was not acknowledged: `TCP_USER_TIMEOUT`.
    UserTimeout,
    /// A command was not answered in time; how often it was sent by now.
    CommandTimeout(u32),
    /// The target did not answer an abort: the nexus is given up.
    AbortTimeout,
    /// `fast_io_fail_tmo`: so many commands were given back.
    FastIoFail(usize),
    /// `dev_loss_tmo`: the device is gone; so many commands were given back.
    DevLoss(usize),
    /// `eh_deadline`: the adapter is reset, with all its paths.
    AdapterReset,
}

impl Note {
    /// One note for two paths, if the same became of both: what was given back is added up.
    pub fn and(self, other: Note) -> Option<Note> {
        match (self, other) {
            (Note::FastIoFail(a), Note::FastIoFail(b)) => Some(Note::FastIoFail(a + b)),
            (Note::DevLoss(a), Note::DevLoss(b)) => Some(Note::DevLoss(a + b)),
            _ => (self == other).then_some(self),
        }
    }
}

#[derive(Clone, Debug)]
struct Nexus {
    link: Link,
    hba: usize,
    /// Commands that may be under way; 0: as many as there are.
    queue_depth: usize,
    lost_at: Instant,
    heard_at: Instant,
    asked_at: Option<Instant>,
    login_due: Instant,
    resetting_until: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Sent,
    Aborting,
    /// The target is busy with itself: it is asked again.
    Busy,
    /// The path has as much under way as it may have.
    HeldBack,
}

#[derive(Clone, Debug)]
struct Command {
    path: PathId,
    request: Request,
    epoch: u64,
    first: Instant,
    sent: Instant,
    due: Instant,
    attempts: u32,
    stage: Stage,
    reset_due: Option<Instant>,
}

/// All nexuses of a host, and the commands under way.
#[derive(Clone, Debug)]
pub(super) struct Initiator {
    transport: Transport,
    nexuses: Vec<Nexus>,
    /// By the tag of the attempt under way: in the order they were sent.
    commands: BTreeMap<Tag, Command>,
    tags: Tag,
    /// Answers that nobody waited for any more.
    stale_answers: u64,
}

impl Initiator {
    /// All links are up.
    pub(super) fn new(transport: Transport, paths: &[PathInfo], now: Instant) -> Initiator {
        let nexus = |path: &PathInfo| Nexus {
            link: Link::Online,
            hba: path.hba,
            queue_depth: path.queue_depth as usize,
            lost_at: now,
            heard_at: now,
            asked_at: None,
            login_due: now,
            resetting_until: None,
        };
        Initiator {
            transport,
            nexuses: paths.iter().map(nexus).collect(),
            commands: BTreeMap::new(),
            tags: 0,
            stale_answers: 0,
        }
    }

    /// Nexuses more; their links are up.
    pub(super) fn add(&mut self, paths: &[PathInfo], now: Instant) {
        self.nexuses.extend(Initiator::new(self.transport, paths, now).nexuses);
    }

    pub(super) fn link(&self, path: PathId) -> Link {
        self.nexus(path).link
    }

    /// An attempt as it goes over the wire.
    pub(super) fn on_the_wire(&self, tag: Tag) -> frame::Command {
        let Command { path, request, epoch, .. } = &self.commands[&tag];
        let mut of_path = self.commands.iter().filter(|(_, command)| command.path == *path);
        let oldest = of_path.next().map_or(tag, |(oldest, _)| *oldest);
        let (extent, wanted) = (request.extent, frame::Wanted::of(&request.op));
        frame::Command { tag, id: request.id, epoch: *epoch, oldest, extent, wanted }
    }

    /// The newest attempt there is.
    pub(super) fn newest(&self) -> Tag {
        self.tags
    }

    /// Answers that nobody waited for any more.
    pub(super) fn stale_answers(&self) -> u64 {
        self.stale_answers
    }

    /// Whether an attempt may still be answered.
    pub(super) fn waits_for(&self, tag: Tag) -> bool {
        self.commands.contains_key(&tag)
    }

    fn new_tag(&mut self) -> Tag {
        self.tags += 1;
        self.tags
    }

    fn nexus(&self, path: PathId) -> &Nexus {
        &self.nexuses[usize::from(path.0)]
    }

    pub(super) fn submit(&mut self, path: PathId, request: Request, epoch: u64, now: Instant, out: &mut Vec<Out>) {
        let error = match self.nexus(path).link {
            Link::Online | Link::Blocked => {
                let command = Command {
                    path,
                    request,
                    epoch,
                    first: now,
                    sent: now,
                    due: now,
                    attempts: 0,
                    stage: Stage::Sent,
                    reset_due: None,
                };
                return self.send(command, now, out);
            }
            Link::FastFailed => IoError::Transport,
            Link::Removed => IoError::Offline,
        };
        out.push(Out::GivenBack(path, request, error));
    }

    /// Another attempt; it waits if the nexus is blocked.
    fn send(&mut self, mut command: Command, now: Instant, out: &mut Vec<Out>) {
        let nexus = self.nexus(command.path);
        let goes_out = nexus.link == Link::Online && nexus.resetting_until.is_none();
        let depth = nexus.queue_depth;
        let tag = self.new_tag();
        if goes_out && depth > 0 && self.under_way(command.path) >= depth {
            command.stage = Stage::HeldBack;
            self.commands.insert(tag, command);
            return;
        }
        command.sent = now;
        command.due = now + self.transport.cmd_timeout;
        command.stage = Stage::Sent;
        command.attempts += u32::from(goes_out);
        if goes_out {
            out.push(Out::Send(command.path, tag));
        }
        self.commands.insert(tag, command);
    }

    /// Something came from the target.
    pub(super) fn heard(&mut self, path: PathId, now: Instant) {
        let nexus = &mut self.nexuses[usize::from(path.0)];
        nexus.heard_at = now;
        nexus.asked_at = None;
    }

    /// An attempt was answered; nobody waits for it any more if it is too late.
    pub(super) fn answered(
        &mut self,
        tag: Tag,
        op: Option<Op>,
        result: Result<(), IoError>,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let Some(mut command) = self.commands.remove(&tag) else {
            self.stale_answers += 1;
            return;
        };
        if let Some(op) = op {
            command.request.op = op;
        }
        let path = command.path;
        out.push(Out::Done(path, command.request.complete(result)));
        self.send_held_back(path, now, out);
    }

    /// The port took no attempt for its unit.
    pub(super) fn refused(&mut self, tag: Tag, now: Instant, out: &mut Vec<Out>) {
        let Some(command) = self.commands.remove(&tag) else {
            self.stale_answers += 1;
            return;
        };
        out.push(Out::GivenBack(command.path, command.request, IoError::Transport));
        self.send_held_back(command.path, now, out);
    }

    /// An abort was answered: the attempt is over, without effect from now on.
    pub(super) fn aborted(&mut self, tag: Tag, now: Instant, out: &mut Vec<Out>) {
        if let Some(command) = self.commands.remove(&tag) {
            self.again(tag, command, now, out);
        }
    }

    /// The target said that it is in transition: the command is sent again a little later, for so long as a transition may last.
    pub(super) fn busy(&mut self, tag: Tag, now: Instant, out: &mut Vec<Out>) {
        let Some(command) = self.commands.get_mut(&tag) else { return };
        if now < command.first + self.transport.transition_tmo {
            command.stage = Stage::Busy;
            command.due = now + BUSY_DELAY;
            return;
        }
        let command = self.commands.remove(&tag).expect("it was just there");
        let path = command.path;
        out.push(Out::GivenBack(path, command.request, IoError::Transport));
        self.send_held_back(path, now, out);
    }

    fn again(&mut self, tag: Tag, command: Command, now: Instant, out: &mut Vec<Out>) {
        let most = self.transport.max_retries + 1;
        if command.attempts < most && now < command.first + self.transport.cmd_timeout * most {
            return self.send(command, now, out);
        }
        if mutant::is_on(Mutant::AnsweredTwice) {
            self.commands.insert(tag, Command { due: Instant(u64::MAX), ..command.clone() });
        }
        let path = command.path;
        out.push(Out::GivenBack(path, command.request, IoError::Timeout));
        self.send_held_back(path, now, out);
    }

    /// The link says so, or it was found out.
    pub(super) fn lost(&mut self, path: PathId, now: Instant) {
        let delay = self.transport.reconnect_delay;
        let nexus = &mut self.nexuses[usize::from(path.0)];
        if nexus.link == Link::Online {
            nexus.link = Link::Blocked;
            nexus.lost_at = now;
            nexus.asked_at = None;
            nexus.login_due = now + delay;
        }
    }

    /// The nexus is there again: what waited goes out, and what was sent and not answered goes out again.
    pub(super) fn back(&mut self, path: PathId, now: Instant, out: &mut Vec<Out>) {
        self.heard(path, now);
        let nexus = &mut self.nexuses[usize::from(path.0)];
        if std::mem::replace(&mut nexus.link, Link::Online) == Link::Online {
            return;
        }
        out.push(Out::Told(path, Note::LinkUp));
        for command in self.take(|command| command.path == path) {
            self.send(command, now, out);
        }
    }

    fn under_way(&self, path: PathId) -> usize {
        let is_out = |command: &&Command| command.path == path && command.stage != Stage::HeldBack;
        self.commands.values().filter(is_out).count()
    }

    /// Room on a path is for the oldest that was held back.
    fn send_held_back(&mut self, path: PathId, now: Instant, out: &mut Vec<Out>) {
        if self.nexus(path).queue_depth == 0 {
            return;
        }
        let waits = |(tag, command): (&Tag, &Command)| {
            (command.path == path && command.stage == Stage::HeldBack).then_some(*tag)
        };
        while let Some(tag) = self.commands.iter().find_map(waits)
            && self.under_way(path) < self.nexus(path).queue_depth
        {
            let command = self.commands.remove(&tag).expect("it was just found");
            self.send(command, now, out);
        }
    }

    fn take(&mut self, which: impl Fn(&Command) -> bool) -> Vec<Command> {
        let tags: Vec<Tag> = self.commands.iter().filter(|(_, command)| which(command)).map(|(tag, _)| *tag).collect();
        tags.iter().filter_map(|tag| self.commands.remove(tag)).collect()
    }

    fn give_back(&mut self, path: PathId, error: IoError, out: &mut Vec<Out>) -> usize {
        let commands = self.take(|command| command.path == path);
        let count = commands.len();
        out.extend(commands.into_iter().map(|command| Out::GivenBack(path, command.request, error)));
        count
    }

    /// The target has ended a nexus: what was sent before `begun` is not done, and comes back.
    pub(super) fn ended(&mut self, path: PathId, begun: Instant, out: &mut Vec<Out>) {
        let commands = self.take(|command| command.path == path && command.sent < begun);
        out.extend(commands.into_iter().map(|command| Out::GivenBack(path, command.request, IoError::Transport)));
    }

    /// The target was told to forget what was sent before `begun`, and has: it is sent again.
    pub(super) fn forgotten(&mut self, path: PathId, begun: Instant, now: Instant, out: &mut Vec<Out>) {
        for mut command in self.take(|command| command.path == path && command.sent < begun) {
            command.attempts = command.attempts.saturating_sub(1);
            self.send(command, now, out);
        }
    }

    /// When a timer of a nexus is due next.
    fn nexus_due(&self, path: PathId) -> Option<Instant> {
        let (nexus, transport) = (self.nexus(path), &self.transport);
        if let Some(until) = nexus.resetting_until {
            return Some(until);
        }
        let after = |from: Instant, time: Option<Duration>| time.map(|time| from + time);
        let gone = after(nexus.lost_at, transport.dev_loss_tmo);
        let login = (!transport.link_events).then_some(nexus.login_due);
        match nexus.link {
            Link::Online => {
                let watch = transport.watch.map(|watch| match nexus.asked_at {
                    Some(asked) => asked + watch.timeout,
                    None => nexus.heard_at + watch.interval,
                });
                let oldest = || {
                    let mine = self.commands.values().filter(|command| {
                        command.path == path && command.stage != Stage::HeldBack && command.sent >= nexus.heard_at
                    });
                    mine.map(|command| command.sent).min()
                };
                let user = transport.user_timeout.and_then(|timeout| oldest().map(|sent| sent + timeout));
                Instant::earliest([watch, user])
            }
            Link::Blocked => Instant::earliest([after(nexus.lost_at, transport.fast_io_fail_tmo), gone, login]),
            Link::FastFailed => Instant::earliest([gone, login]),
            Link::Removed => login,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let nexuses = (0..self.nexuses.len()).filter_map(|path| self.nexus_due(PathId(path as u16))).min();
        let waiting = self.commands.values().filter(|command| command.stage != Stage::HeldBack);
        let commands = waiting.map(|command| command.reset_due.unwrap_or(command.due).min(command.due)).min();
        Instant::earliest([nexuses, commands])
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<Out>) {
        for path in (0..self.nexuses.len()).map(|path| PathId(path as u16)) {
            while self.nexus_due(path).is_some_and(|due| due <= now) {
                self.nexus_tick(path, now, out);
            }
        }
        let is_due = |command: &Command| {
            command.stage != Stage::HeldBack && (command.due <= now || command.reset_due.is_some_and(|due| due <= now))
        };
        for tag in self.commands.iter().filter(|(_, command)| is_due(command)).map(|(tag, _)| *tag).collect::<Vec<_>>()
        {
            if self.commands.contains_key(&tag) {
                self.command_tick(tag, now, out);
            }
        }
    }

    fn nexus_tick(&mut self, path: PathId, now: Instant, out: &mut Vec<Out>) {
        let transport = self.transport;
        let at = usize::from(path.0);
        if self.nexuses[at].resetting_until.take().is_some() {
            self.give_back(path, IoError::Transport, out);
            return;
        }
        let nexus = &mut self.nexuses[at];
        match nexus.link {
            Link::Online => {
                let watched = transport.watch.is_some_and(|watch| match nexus.asked_at {
                    Some(asked) => asked + watch.timeout <= now,
                    None => nexus.heard_at + watch.interval <= now,
                });
                match (watched, nexus.asked_at) {
                    (true, None) => {
                        nexus.asked_at = Some(now);
                        out.push(Out::Ping(path));
                    }
                    (true, Some(_)) => {
                        out.push(Out::Told(path, Note::WatchTimeout));
                        self.lost(path, now);
                    }
                    (false, _) => {
                        out.push(Out::Told(path, Note::UserTimeout));
                        self.lost(path, now);
                    }
                }
            }
            _ if !transport.link_events && nexus.login_due <= now => {
                nexus.login_due = now + transport.reconnect_delay;
                out.push(Out::Login(path));
            }
            Link::Blocked if transport.fast_io_fail_tmo.is_some_and(|time| nexus.lost_at + time <= now) => {
                nexus.link = Link::FastFailed;
                let count = self.give_back(path, IoError::Transport, out);
                out.push(Out::Told(path, Note::FastIoFail(count)));
            }
            Link::Blocked | Link::FastFailed => {
                nexus.link = Link::Removed;
                let count = self.give_back(path, IoError::Offline, out);
                out.push(Out::Told(path, Note::DevLoss(count)));
            }
            Link::Removed => panic!("a removed device has no timer but that of its return"),
        }
    }

    fn command_tick(&mut self, tag: Tag, now: Instant, out: &mut Vec<Out>) {
        let transport = self.transport;
        let command = self.commands.get_mut(&tag).expect("it was just looked up");
        let path = command.path;
        let nexus = &self.nexuses[usize::from(path.0)];
        if nexus.link != Link::Online || nexus.resetting_until.is_some() {
            // The transport has taken over: its timers count.
            command.due = now + transport.cmd_timeout;
            command.reset_due = None;
            return;
        }
        if command.reset_due.is_some_and(|due| due <= now) {
            return self.reset_adapter(path, now, out);
        }
        let attempts = command.attempts;
        match (command.stage, transport.abort) {
            (Stage::Sent, Abort::Local) => {
                out.push(Out::Told(path, Note::CommandTimeout(attempts)));
                let mut command = self.commands.remove(&tag).expect("it was just looked up");
                let deadline = transport.eh_deadline.map(|deadline| now + deadline);
                command.reset_due = command.reset_due.or(deadline);
                self.again(tag, command, now, out);
            }
            (Stage::Sent, Abort::Asked(timeout)) => {
                out.push(Out::Told(path, Note::CommandTimeout(attempts)));
                command.stage = Stage::Aborting;
                command.due = now + timeout;
                out.push(Out::Abort(path, tag));
            }
            (Stage::Sent, Abort::Nexus) => {
                out.push(Out::Told(path, Note::CommandTimeout(attempts)));
                self.lost(path, now);
                self.commands.get_mut(&tag).expect("it is still there").due = now + transport.cmd_timeout;
            }
            (Stage::Busy, _) => {
                let mut command = self.commands.remove(&tag).expect("it was just looked up");
                command.attempts -= 1;
                self.send(command, now, out);
            }
            (Stage::HeldBack, _) => panic!("what is held back has no timer"),
            (Stage::Aborting, _) => {
                command.due = now + transport.cmd_timeout;
                out.push(Out::Told(path, Note::AbortTimeout));
                self.lost(path, now);
            }
        }
    }

    fn reset_adapter(&mut self, path: PathId, now: Instant, out: &mut Vec<Out>) {
        let hba = self.nexus(path).hba;
        out.push(Out::Told(path, Note::AdapterReset));
        for nexus in self.nexuses.iter_mut().filter(|nexus| nexus.hba == hba) {
            nexus.resetting_until = Some(now + RESET_SETTLE);
        }
        let nexuses = &self.nexuses;
        for command in self.commands.values_mut() {
            if nexuses[usize::from(command.path.0)].hba == hba {
                command.reset_due = None;
            }
        }
    }
}
