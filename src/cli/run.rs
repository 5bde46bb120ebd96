//! Work in the foreground: a lab's array runs in this process until what was asked for is done, or until Ctrl-C.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::bars::Bar;
use super::{Failure, Manner};
use crate::block::Extent;
use crate::raid::assemble::Remark;
use crate::raid::control::Event;
use crate::raid::sync::SyncProgress;
use crate::stack::{Lab, OpenOptions, Stack, StackError, Volume};

/// Set by Ctrl-C and SIGTERM.
pub fn stop_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
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

/// How work in the foreground ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It is done.
    Done,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

/// Reports what has happened to members while nobody looked.
pub fn tell(stack: &mut Stack, manner: Manner) {
    let names = names_of(stack);
    tell_events(stack.array_mut(), &names, manner);
}

/// As [`tell`], of an array that runs.
pub fn tell_events(array: &mut Volume, names: &Names, manner: Manner) {
    for event in merged(array.drain_events()) {
        if let Some(line) = event_line(event, manner, names) {
            manner.hint(&line);
        }
    }
}

/// What the disks are called.
pub type Names = [(crate::block::DeviceId, String)];

/// Sectors side by side are told of once.
fn merged(events: Vec<Event>) -> Vec<Event> {
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

/// What the disks of a stack are called.
pub fn names_of(stack: &Stack) -> Vec<(crate::block::DeviceId, String)> {
    stack.disks.iter().filter_map(|disk| Some((disk.device?, disk.name.clone()))).collect()
}

/// Drives a stack until `done` says so, with a progress bar, and reports what happens to its members.
pub fn until(stack: &mut Stack, manner: Manner, stop: &AtomicBool, done: impl Fn(&Volume) -> bool) -> Ended {
    let names = names_of(stack);
    let mut bar: Option<(&'static str, Bar)> = None;
    let mut ended = Ended::Done;
    stack.reactor.run(|array| {
        for event in merged(array.drain_events()) {
            if let Some(line) = event_line(event, manner, &names) {
                match &bar {
                    Some((_, bar)) => bar.note(&line),
                    None => manner.hint(&line),
                }
            }
        }
        show(&mut bar, array.sync_progress(), manner);
        if stop.load(Ordering::Relaxed) {
            ended = Ended::Interrupted;
            return true;
        }
        done(array)
    });
    ended
}

fn show(bar: &mut Option<(&'static str, Bar)>, progress: Option<SyncProgress>, manner: Manner) {
    let Some(progress) = progress else { return };
    let what = match progress.action.name() {
        "recover" => "recovery",
        other => other,
    };
    if bar.as_ref().is_none_or(|(shown, _)| *shown != what) {
        if manner.verbose {
            manner.hint(&format!("RebuildStarted: {what}"));
        }
        *bar = Some((what, Bar::new(what, progress.total, manner.quiet)));
    }
    if let Some((_, bar)) = bar {
        bar.set(progress.done);
    }
}

fn event_line(event: Event, manner: Manner, names: &[(crate::block::DeviceId, String)]) -> Option<String> {
    let name = |device| {
        let known = names.iter().find(|(of, _)| *of == device);
        known.map_or_else(|| String::from("a disk"), |(_, name)| name.clone())
    };
    Some(match event {
        Event::Fail(device) => format!("Fail: {}", name(device)),
        Event::FailSpare(device) => format!("FailSpare: {}", name(device)),
        Event::RebuildStarted(device) if manner.verbose => format!("filling {}", name(device)),
        Event::SpareActive(device) => format!("SpareActive: {}", name(device)),
        Event::BadBlocks(device, extent) => {
            format!("bad blocks: {} sectors at {} of {}", extent.length.0, extent.start.0, name(device))
        }
        Event::Corrected(device, extent) => {
            format!("read error corrected: {} sectors at {} of {}", extent.length.0, extent.start.0, name(device))
        }
        Event::ArrayFailed => String::from("the array has failed: more disks are gone than the level tolerates"),
        Event::RebuildFinished if manner.verbose => String::from("RebuildFinished"),
        Event::RebuildStarted(_) | Event::RebuildFinished => return None,
    })
}
