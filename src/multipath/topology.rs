//! What `multipath -ll` shows.

use std::fmt::Write;

use super::Multipath;
use super::map::{Map, PathState};
use super::settings::{NoPathRetry, Prio, Settings};
use crate::fabric::{Fabric, PathId};

/// The word of `multipath -ll` for a checker's state.
pub fn state_word(state: PathState) -> &'static str {
    match state {
        PathState::Up => "ready",
        PathState::Down => "faulty",
        PathState::Ghost => "ghost",
        PathState::Pending => "i/o pending",
        PathState::Timeout => "i/o timeout",
        PathState::Shaky => "shaky",
        PathState::Delayed => "delayed",
        PathState::Removed | PathState::Unchecked => "undef",
    }
}

/// The kernel's word for a group.
pub(super) fn group_word(map: &Map, group: usize) -> &'static str {
    if map.current() == Some(group) { "active" } else { "enabled" }
}

/// The map's features, as a table of the device mapper has them.
pub(super) fn features(settings: &Settings) -> &'static str {
    match settings.no_path_retry {
        NoPathRetry::Fail => "0",
        NoPathRetry::Queue | NoPathRetry::Checks(_) => "1 queue_if_no_path",
    }
}

/// The hardware handler.
pub(super) fn handler(settings: &Settings) -> &'static str {
    if settings.prio == Prio::Alua { "1 alua" } else { "0" }
}

/// Number of a path's device.
pub(super) fn device_number(path: PathId) -> String {
    format!("8:{}", u32::from(path.0) * 16)
}

/// A map as `multipath -ll` shows it, and what all its paths promise besides. `name`, `wwid` and its device's number head it; sizes
/// are in binary units, as there.
pub fn show<F: Fabric>(multipath: &Multipath<F>, map: &Map, name: &str, wwid: &str, number: usize) -> String {
    let settings = multipath.settings();
    let fabric = multipath.fabric();
    let (features, handler) = (features(settings), handler(settings));
    let limits = fabric.limits(map.unit());
    let write = if limits.read_only { "ro" } else { "rw" };
    let mut text = format!("{name} ({wwid}) dm-{number} RAIDLAB,VOLUME\n");
    let size = size_word(limits.capacity.bytes());
    let promised = map.paths().iter().map(|path| fabric.paths()[usize::from(path.id.0)].fencing).min();
    let fencing = promised.map_or_else(String::new, |fencing| format!(" fencing={fencing}"));
    writeln!(text, "size={size} features='{features}' hwhandler='{handler}' wp={write}{fencing}")
        .expect("text takes all");
    for (at, group) in map.groups().iter().enumerate() {
        let last_group = at + 1 == map.groups().len();
        let status = group_word(map, at);
        let lead = if last_group { "`-+-" } else { "|-+-" };
        writeln!(text, "{lead} policy='{} 0' prio={} status={status}", settings.selector, group.prio)
            .expect("text takes all");
        for (number, path) in group.paths.iter().enumerate() {
            let path = &map.paths()[*path];
            let info = &fabric.paths()[usize::from(path.id.0)];
            let bar = if last_group { "  " } else { "| " };
            let branch = if number + 1 == group.paths.len() { "`-" } else { "|-" };
            let dm = if path.active { "active" } else { "failed" };
            let number = device_number(path.id);
            let state = state_word(path.state);
            let link = fabric.link(path.id);
            writeln!(text, "{bar}{branch} {} {} {number} {dm} {state} {link}", info.hctl, info.name)
                .expect("text takes all");
        }
    }
    text
}

fn size_word(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["", "K", "M", "G", "T"] {
        if size < 1024.0 || unit == "T" {
            return if size < 10.0 && !unit.is_empty() {
                format!("{size:.1}{unit}")
            } else {
                format!("{size:.0}{unit}")
            };
        }
        size /= 1024.0;
    }
    unreachable!("the last unit takes all")
}
