//! What happens to an array, told three times: in words at the terminal, in `events.jsonl`, and to a program.
//!
//! The names are those of `mdadm --monitor` (mdadm(8), MONITOR MODE): `Fail`, `FailSpare`, `SpareActive`,
//! `DegradedArray`, `NewArray`, `DeviceDisappeared`, `RebuildStarted`, `Rebuild20` to `Rebuild80`, `RebuildFinished`; and
//! those that mdadm has no name for: `BadBlocks`, `ReadErrorCorrected`, `ArrayFailed`; of paths `PathFailed`,
//! `PathReinstated`, `GroupSwitched`, `Queueing`, `GaveUp`, `Resumed`, `Fencing`, `Fenced`. `LAB/events.jsonl` has a line
//! for each:
//!
//! ```text
//! {"time":"2026-11-20T15:37:46Z","event":"Fail","lab":"lab","disk":"disk-2"}
//! {"time":"2026-11-20T15:37:46Z","event":"RebuildStarted","lab":"lab","action":"recovery"}
//! ```
//!
//! The program is called as mdadm calls its own: with the event, the lab and, where it is about one, the disk (or the path,
//! or the map).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::path;
use super::run::{self, Line};
use crate::block::{Extent, Instant};
use crate::raid::control::Event;
use crate::stack::Stack;

/// The file's name in a lab.
pub const FILE_NAME: &str = "events.jsonl";

/// Programs that run at a time; what happens meanwhile waits for its turn.
const HOOKS_MAX: usize = 4;

/// How long they have to end once the array is gone.
const HOOKS_PATIENCE: Duration = Duration::from_secs(2);

/// How often background work is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Events that wait for the program; the oldest are let go beyond that.
const WAITING_MAX: usize = 1024;

/// Keeps the record of a lab.
pub struct Journal {
    lab: PathBuf,
    /// None before the first event, and if it cannot be written; that is no reason to do without the array.
    file: Option<File>,
    hook: Option<Hook>,
    /// Background work that was under way, and the last fifth that was told.
    work: Option<(String, u64)>,
    look_at: Instant,
}

#[derive(Serialize)]
struct Entry<'a> {
    time: String,
    event: &'a str,
    lab: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sector: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sectors: Option<u64>,
}

struct Hook {
    program: OsString,
    running: Vec<Child>,
    waiting: VecDeque<(String, Option<String>)>,
    /// It could not be started; said once.
    is_broken: bool,
}

/// What an event is about besides its name.
#[derive(Default)]
struct About<'a> {
    disk: Option<&'a str>,
    map: Option<&'a str>,
    path: Option<&'a str>,
    action: Option<&'a str>,
    extent: Option<Extent>,
}

impl Journal {
    /// Goes on with the record of a lab.
    pub fn open(lab: &Path) -> Journal {
        Journal { lab: lab.to_owned(), file: None, hook: None, work: None, look_at: Instant::START }
    }

    /// From now on a program is called, too.
    pub fn call(&mut self, program: OsString) {
        self.hook = Some(Hook { program, running: Vec::new(), waiting: VecDeque::new(), is_broken: false });
    }

    /// The array is there: from now on it is watched.
    pub fn arrived(&mut self, stack: &Stack) {
        self.write("NewArray", &About::default());
        if !stack.array().degraded().is_empty() {
            self.write("DegradedArray", &About::default());
        }
    }

    /// The array is gone. Programs that are called have a moment to end.
    pub fn departed(mut self, mut tell: impl FnMut(&Line)) {
        self.write("DeviceDisappeared", &About::default());
        let deadline = std::time::Instant::now() + HOOKS_PATIENCE;
        while let Some(hook) = self.hook.as_mut().filter(|hook| hook.has_work()) {
            hook.go_on(&self.lab, &mut tell);
            if std::time::Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Records what has happened since the last time, and says it in words.
    pub fn note(&mut self, stack: &mut Stack, mut tell: impl FnMut(&Line)) {
        let events = stack.array_mut().drain_events();
        let of_paths = stack.drain_path_changes();
        let now = stack.reactor.now();
        if events.is_empty() && of_paths.is_empty() && now < self.look_at {
            return;
        }
        for event in run::merged(events) {
            self.record(event, stack, &mut tell);
        }
        for (tier, unit, change) in of_paths {
            let (event, path, line) = path::change_line(stack, tier, unit, change);
            let map = Some(stack.map_name(tier, unit));
            self.write(event, &About { map, path: path.as_deref(), ..About::default() });
            tell(&Line::Hint(line));
        }
        self.look_at = now + LOOK_EVERY;
        self.follow(stack, &mut tell);
        if let Some(hook) = &mut self.hook {
            hook.go_on(&self.lab, &mut tell);
        }
    }

    fn record(&mut self, event: Event, stack: &Stack, tell: &mut impl FnMut(&Line)) {
        let (name, device, extent) = match event {
            Event::Fail(device) => ("Fail", Some(device), None),
            Event::FailSpare(device) => ("FailSpare", Some(device), None),
            Event::SpareActive(device) => ("SpareActive", Some(device), None),
            Event::BadBlocks(device, extent) => ("BadBlocks", Some(device), Some(extent)),
            Event::Corrected(device, extent) => ("ReadErrorCorrected", Some(device), Some(extent)),
            Event::ArrayFailed => ("ArrayFailed", None, None),
            // Told as they are seen to begin and end, whatever they are.
            Event::RebuildStarted(device) => {
                return tell(&Line::Detail(format!("filling {}", stack.name_of(device))));
            }
            Event::RebuildFinished => return,
        };
        let disk = device.map(|device| stack.name_of(device));
        self.write(name, &About { disk, extent, ..About::default() });
        tell(&Line::Hint(run::event_line(event, disk.unwrap_or_default())));
    }

    /// Follows background work.
    fn follow(&mut self, stack: &Stack, tell: &mut impl FnMut(&Line)) {
        let now = run::progress(stack);
        let action = now.as_ref().map(|(action, _)| *action);
        if self.work.as_ref().map(|(action, _)| action.as_str()) != action {
            if let Some((ended, _)) = self.work.take() {
                self.write("RebuildFinished", &About { action: Some(&ended), ..About::default() });
                tell(&Line::Detail(format!("RebuildFinished: {ended}")));
            }
            if let Some(action) = action {
                self.write("RebuildStarted", &About { action: Some(action), ..About::default() });
                tell(&Line::Detail(format!("RebuildStarted: {action}")));
                self.work = Some((action.to_owned(), 0));
            }
        }
        if let (Some((action, progress)), Some((_, told))) = (now, &mut self.work) {
            let fifth = (progress.done.0 * 5).checked_div(progress.total.0).unwrap_or(0).min(4);
            if fifth > *told {
                *told = fifth;
                self.write(&format!("Rebuild{}", fifth * 20), &About { action: Some(action), ..About::default() });
            }
        }
    }

    fn write(&mut self, event: &str, about: &About<'_>) {
        if self.file.is_none() {
            self.file = OpenOptions::new().create(true).append(true).open(self.lab.join(FILE_NAME)).ok();
        }
        if let Some(file) = &mut self.file {
            let entry = Entry {
                time: Timestamp::now().round(jiff::Unit::Second).unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
                event,
                lab: &self.lab.to_string_lossy(),
                disk: about.disk,
                map: about.map,
                path: about.path,
                action: about.action,
                sector: about.extent.map(|extent| extent.start.0),
                sectors: about.extent.map(|extent| extent.length.0),
            };
            let mut line = serde_json::to_vec(&entry).expect("an entry is plain data");
            line.push(b'\n');
            // A full file system is no reason to stop the array.
            let _ = file.write_all(&line);
        }
        if let Some(hook) = &mut self.hook {
            hook.waiting.push_back((event.to_owned(), about.disk.or(about.path).or(about.map).map(str::to_owned)));
            if hook.waiting.len() > WAITING_MAX {
                hook.waiting.pop_front();
            }
        }
    }
}

impl Hook {
    fn has_work(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty()
    }

    /// Takes back programs that have ended, and starts those that wait.
    fn go_on(&mut self, lab: &Path, tell: &mut impl FnMut(&Line)) {
        if !self.has_work() {
            return;
        }
        self.running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        while self.running.len() < HOOKS_MAX
            && let Some((event, disk)) = self.waiting.pop_front()
        {
            let mut command = Command::new(&self.program);
            command.arg(event).arg(lab).args(disk).stdin(Stdio::null()).stdout(Stdio::null());
            match command.spawn() {
                Ok(child) => self.running.push(child),
                Err(error) if !std::mem::replace(&mut self.is_broken, true) => {
                    tell(&Line::Hint(format!("cannot call {}: {error}", Path::new(&self.program).display())));
                }
                Err(_) => {}
            }
        }
    }
}
