//! Work in the foreground: a lab's array runs in this process until what was asked for is done, or until Ctrl-C.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Failure, Manner};
use crate::block::Extent;
use crate::raid::assemble::Remark;
use crate::raid::control::Event;
use crate::raid::sync::SyncProgress;
use crate::stack::{Lab, OpenOptions, Stack, StackError};

/// Set by Ctrl-C, SIGTERM, and the end of the terminal.
pub fn stop_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).expect("these signals can be caught");
    }
    flag
}

/// Opens a lab and says what there is to say about how it came up.
pub fn open(lab: &Path, options: OpenOptions, manner: Manner) -> Result<Stack, Failure> {
    let stack = Stack::open(Lab::open(lab)?, options).map_err(|error| hinted(error, lab))?;
    if let Some(why) = &stack.fallback {
        manner.hint(&format!("note: {why}; disks are reached by pread and pwrite instead"));
    }
    for disk in stack.disks.iter().filter(|disk| disk.trouble.is_some()) {
        manner.hint(&format!("note: {}: {}", disk.name, disk.trouble.as_deref().unwrap_or_default()));
    }
    for note in &stack.notes {
        manner.hint(&format!("note: {note}"));
    }
    for remark in &stack.remarks {
        if let Some(line) = remark_line(remark, |device| stack.name_of(device).to_owned()) {
            manner.hint(&line);
        }
    }
    Ok(stack)
}

/// A failure to open a lab, with what to type where `--force` helps.
fn hinted(error: StackError, lab: &Path) -> Failure {
    use crate::raid::assemble::AssembleError;
    let forcible = matches!(
        &error,
        StackError::Assemble { error: AssembleError::DirtyDegraded { .. } | AssembleError::TooFew { .. }, .. }
    );
    let mut failure = Failure::from(error);
    if forcible {
        failure.message += &format!(" (`raidlab assemble {} --force`)", lab.display());
    }
    failure
}

/// A line about how an array was put together.
pub fn remark_line(remark: &Remark, name: impl Fn(crate::block::DeviceId) -> String) -> Option<String> {
    Some(match remark {
        Remark::LeftOut { device, events, newest } => {
            format!("note: {} missed writes and is left out (events {events}, newest {newest})", name(*device))
        }
        Remark::ForcedIn { device, events, newest } => format!(
            "warning: {} was taken although it missed writes (events {events}, newest {newest}): what was written since may be gone",
            name(*device)
        ),
        Remark::ForcedClean => String::from(
            "warning: parity was taken for right although writes were under way when the array stopped: \
             bytes of missing members in those stripes may be wrong",
        ),
        Remark::Unclean { sectors } => {
            format!("note: not stopped cleanly: {} MiB are to be resynced", sectors.bytes().div_ceil(1 << 20))
        }
        Remark::StaleBitmap => {
            String::from("note: the bitmap is older than the superblocks: all of it counts as dirty")
        }
    })
}

/// Longest sleep between two looks at work in the foreground.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// Something to be said about an array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// To everybody who does not want silence.
    Hint(String),
    /// To those who want to know everything.
    Detail(String),
}

impl Line {
    /// What is said.
    pub fn text(&self) -> &str {
        match self {
            Line::Hint(text) | Line::Detail(text) => text,
        }
    }
}

/// What is under way in the background, in a word, and how far it is.
pub fn progress(stack: &Stack) -> Option<(&'static str, SyncProgress)> {
    let progress = stack.array().sync_progress()?;
    let action = match progress.action.name() {
        "recover" => "recovery",
        other => other,
    };
    Some((action, progress))
}

/// Sectors side by side are told of once.
pub fn merged(events: Vec<Event>) -> Vec<Event> {
    let mut told: Vec<Event> = Vec::new();
    for event in events {
        let grows = told.iter_mut().rev().find_map(|before| match (before, event) {
            (Event::BadBlocks(of, had), Event::BadBlocks(device, more))
            | (Event::Corrected(of, had), Event::Corrected(device, more))
                if *of == device && had.end() == more.start =>
            {
                Some((had, more))
            }
            _ => None,
        });
        match grows {
            Some((had, more)) => *had = Extent::new(had.start, had.length + more.length),
            None => told.push(event),
        }
    }
    told
}

/// An event in words; `name` is the disk's.
pub fn event_line(event: Event, name: &str) -> String {
    match event {
        Event::Fail(_) => format!("Fail: {name}"),
        Event::FailSpare(_) => format!("FailSpare: {name}"),
        Event::RebuildStarted(_) => format!("filling {name}"),
        Event::SpareActive(_) => format!("SpareActive: {name}"),
        Event::BadBlocks(_, extent) => {
            format!("bad blocks: {} sectors at {} of {name}", extent.length.0, extent.start.0)
        }
        Event::Corrected(_, extent) => {
            format!("read error corrected: {} sectors at {} of {name}", extent.length.0, extent.start.0)
        }
        Event::ArrayFailed => String::from("the array has failed: more disks are gone than the level tolerates"),
        Event::RebuildFinished => String::from("RebuildFinished"),
    }
}
