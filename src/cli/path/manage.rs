//! Paths of a lab that runs: shown, failed, reinstated, switched.

use serde_json::{Value, json};

use crate::block::DeviceId;
use crate::cli::Failure;
use crate::cli::job::Say;
use crate::control::PathCommand;
use crate::fabric::PathId;
use crate::multipath::map::{Change, Map, PathState, Why};
use crate::multipath::topology::state_word;
use crate::stack::{Stack, Tier};
use crate::units::Span;

/// What is to be done once every path was looked at.
pub struct Wanted {
    command: PathCommand,
    is_hurried: bool,
}

/// Takes what was asked of a lab's paths.
pub fn begin(stack: &Stack, command: &PathCommand) -> Result<Wanted, Failure> {
    if !stack.has_paths() {
        return Err(Failure::usage("the lab has no paths: make one that has with `raidlab create LAB --paths san`"));
    }
    Ok(Wanted { command: command.clone(), is_hurried: false })
}

impl Wanted {
    /// Whether every path has been looked at: it takes a moment after a lab was opened.
    pub fn can_be_done(&self, stack: &Stack) -> bool {
        let is_known = |map: &Map| map.paths().iter().all(|path| path.state != PathState::Unchecked);
        self.is_hurried || stack.each_map().all(|(_, _, map)| is_known(map))
    }

    /// Waits no longer.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
    }

    /// Does it.
    pub fn carry_out(&self, stack: &mut Stack, say: &mut dyn Say) -> Result<(), Failure> {
        match &self.command {
            PathCommand::List { json: false } => {
                list(stack, say);
                Ok(())
            }
            PathCommand::List { json: true } => {
                let text = serde_json::to_string_pretty(&as_json(stack)).expect("it is plain data");
                text.lines().for_each(|line| say.line(line));
                Ok(())
            }
            PathCommand::Fail { path } => {
                let (tier, path) = find_path(stack, path)?;
                let (now, maps) = stack.maps_now(tier).expect("the path was found there");
                maps.fail_path(path, now);
                Ok(())
            }
            PathCommand::Reinstate { path } => {
                let (tier, path) = find_path(stack, path)?;
                let (now, maps) = stack.maps_now(tier).expect("the path was found there");
                maps.reinstate_path(path, now);
                Ok(())
            }
            PathCommand::Switch { group, map } => switch(stack, usize::from(*group), map.as_deref()),
            PathCommand::Queueing { on, map } => {
                for (tier, unit) in find_maps(stack, map.as_deref())? {
                    let (now, maps) = stack.maps_now(tier).expect("the map was found there");
                    maps.set_queueing(unit, *on, now);
                }
                Ok(())
            }
        }
    }
}

fn list(stack: &Stack, say: &mut dyn Say) {
    for (number, (tier, maps, map)) in stack.each_map().enumerate() {
        let unit = map.unit();
        let text = maps.show(map, stack.map_name(tier, unit), &stack.wwid(tier, unit), number);
        text.lines().for_each(|line| say.line(line));
    }
}

/// What `multipathd show maps json` shows of each map, and more.
fn as_json(stack: &Stack) -> Value {
    let now = stack.reactor.now();
    let mut maps = Vec::new();
    for (tier, of) in stack.tiers().into_iter().filter_map(|tier| Some((tier, stack.maps(tier)?))) {
        let name = |map: &Map| (stack.map_name(tier, map.unit()).to_owned(), stack.wwid(tier, map.unit()));
        if let Value::Array(these) = of.json(&name, maps.len(), now)["maps"].take() {
            maps.extend(these);
        }
    }
    json!({ "schema": "raidlab-path-list/v1", "major_version": 0, "minor_version": 1, "maps": maps })
}

fn switch(stack: &mut Stack, group: usize, map: Option<&str>) -> Result<(), Failure> {
    let found = find_maps(stack, map)?;
    let [(tier, unit)] = found[..] else {
        let names: Vec<&str> = found.iter().map(|(tier, unit)| stack.map_name(*tier, *unit)).collect();
        return Err(Failure::usage(format!("say of which map: --map {}", names.join(" or --map "))));
    };
    let (now, maps) = stack.maps_now(tier).expect("the map was found there");
    let groups = maps.maps().iter().find(|map| map.unit() == unit).map_or(0, |map| map.groups().len());
    if group > groups {
        return Err(Failure::usage(format!("there is no group {group}: `raidlab path list` shows {groups}")));
    }
    maps.switch_group(unit, group - 1, now);
    Ok(())
}

/// The one path that a word means: its name or its host:channel:target:unit, perhaps with its map's name before it.
fn find_path(stack: &Stack, word: &str) -> Result<(Tier, PathId), Failure> {
    let mut all = Vec::new();
    for (tier, maps, map) in stack.each_map() {
        let map_name = stack.map_name(tier, map.unit());
        for path in map.paths() {
            let info = &maps.paths()[usize::from(path.id.0)];
            all.push((tier, path.id, map_name, info.name.as_str(), info.hctl.as_str()));
        }
    }
    // The name of a path over NBD is its URI, with slashes of its own.
    let is_name = |name: &str, path: &str, hctl: &str| name == path || name == hctl;
    let of_map = |map: &str| word.strip_prefix(map)?.strip_prefix('/');
    let is_meant = |map: &str, path: &str, hctl: &str| {
        is_name(word, path, hctl) || of_map(map).is_some_and(|name| is_name(name, path, hctl))
    };
    let meant: Vec<_> = all.iter().filter(|(_, _, map, path, hctl)| is_meant(map, path, hctl)).collect();
    match meant[..] {
        [(tier, path, ..)] => Ok((*tier, *path)),
        [] => {
            let names: Vec<&str> = all.iter().map(|(_, _, _, path, _)| *path).collect();
            Err(Failure::usage(crate::multipath::keys::unknown("path", word, &names)))
        }
        _ => {
            let names: Vec<String> = meant.iter().map(|(_, _, map, path, _)| format!("{map}/{path}")).collect();
            Err(Failure::usage(format!("{word} is the name of several paths: type {}", names.join(" or "))))
        }
    }
}

/// The map of this name, or all.
fn find_maps(stack: &Stack, name: Option<&str>) -> Result<Vec<(Tier, DeviceId)>, Failure> {
    let all: Vec<(Tier, DeviceId)> = stack.each_map().map(|(tier, _, map)| (tier, map.unit())).collect();
    let Some(name) = name else { return Ok(all) };
    let found: Vec<_> = all.iter().copied().filter(|(tier, unit)| stack.map_name(*tier, *unit) == name).collect();
    if found.is_empty() {
        let names: Vec<&str> = all.iter().map(|(tier, unit)| stack.map_name(*tier, *unit)).collect();
        return Err(Failure::usage(crate::multipath::keys::unknown("map", name, &names)));
    }
    Ok(found)
}

/// What happened to a path, for the record: the event's name, the path if it is one's, and a line in words.
pub fn change_line(
    stack: &Stack,
    tier: Tier,
    unit: DeviceId,
    change: Change,
) -> (&'static str, Option<String>, String) {
    let map = stack.map_name(tier, unit);
    let name =
        |path: PathId| stack.maps(tier).map_or(String::new(), |maps| maps.paths()[usize::from(path.0)].name.clone());
    let why = |why: Why| match why {
        Why::Io(error) => error.to_string(),
        Why::Checker(state) => format!("its checker says {}", state_word(state)),
        Why::Link(link) => format!("its link is {link}"),
        Why::Silence(time) => format!("nothing was heard for {}", Span(time)),
        Why::Asked => "as asked".to_owned(),
    };
    match change {
        Change::Failed(path, reason) => {
            ("PathFailed", Some(name(path)), format!("PathFailed: {map} {} ({})", name(path), why(reason)))
        }
        Change::Reinstated(path) => {
            ("PathReinstated", Some(name(path)), format!("PathReinstated: {map} {}", name(path)))
        }
        Change::KeptOut(path, state) => {
            ("PathKeptOut", Some(name(path)), format!("PathKeptOut: {map} {} ({})", name(path), state_word(state)))
        }
        Change::Marginal(path, is_so) => {
            let word = if is_so { "is used last" } else { "is used as others again" };
            ("PathMarginal", Some(name(path)), format!("PathMarginal: {map} {} {word}", name(path)))
        }
        Change::Hedged(path) => {
            ("Hedged", Some(name(path)), format!("Hedged: {map}: late reads go down {}, too", name(path)))
        }
        Change::Switched(group) => {
            ("GroupSwitched", None, format!("GroupSwitched: {map}: requests go down group {}", group + 1))
        }
        Change::Queueing => ("Queueing", None, format!("Queueing: {map} has no path left: requests wait")),
        Change::GaveUp(count) => ("GaveUp", None, format!("GaveUp: {map}: {count} requests waited too long, and fail")),
        Change::Resumed(count) => ("Resumed", None, format!("Resumed: {map}: {count} requests go on")),
        Change::Fencing(path) => (
            "Fencing",
            Some(name(path)),
            format!("Fencing: {map} {}: writes wait until its nexus has ended", name(path)),
        ),
        Change::Aborting(path) => {
            ("Aborting", Some(name(path)), format!("Aborting: {map} {}: a write waits for its abort", name(path)))
        }
        Change::Aborted(path) => ("Aborted", Some(name(path)), format!("Aborted: {map} {}", name(path))),
        Change::Resetting => ("Resetting", None, format!("Resetting: {map}: writes wait for a reset of the unit")),
        Change::Reset => ("Reset", None, format!("Reset: {map}")),
        Change::Epoch(epoch) => ("Epoch", None, format!("Epoch: {map}: requests are of generation {epoch} now")),
        Change::Fenced(path) => ("Fenced", Some(name(path)), format!("Fenced: {map} {}", name(path))),
    }
}
