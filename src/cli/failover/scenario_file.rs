//! A scenario in a file.
//!
//! ```toml
//! length = "60s"
//! class = "link"           # link, controller, silent, all-paths, slow: which formula the stall is compared with
//!
//! [[action]]
//! at = "10s"
//! component = "cable0"
//! health = "down"
//! ```
//!
//! | `health` | with | |
//! |---|---|---|
//! | `up`, `down` | | |
//! | `black-hole`, `black-hole-tx`, `black-hole-rx` | | frames vanish, nobody says so |
//! | `stalled` | | frames wait, and land late |
//! | `slow` | `factor = 10` | |
//! | `losing-before-send`, `losing-in-transit`, `losing-answers` | `frames = 3` | so many, once |
//! | `flapping` | `down = "1s"`, `up = "5s"` | by itself, beginning with down |
//! | `zombie` | `by = "1s"` | each answer so much later than the last |
//! | `doubling` | `by = "1s"` | commands are delivered again, so much later |
//! | `fails-io`, `fails-checks` | | what a checker finds is not what reads and writes find |
//! | `corrupting`, `corrupting-reads`, `corrupting-writes` | | a byte of all data is another |
//!
//! A `[topology]` in it is the fabric, in the place of the profile's.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::fabric::emulated::{Health, Point};
use crate::fabric::graph::Graph;
use crate::fabric::topology::Topology;
use crate::multipath::keys;
use crate::sim::failover::{Action, Class, Scenario};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    length: String,
    class: Kind,
    action: Vec<Entry>,
    topology: Option<Topology>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Link,
    Controller,
    Silent,
    AllPaths,
    Slow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    at: String,
    component: String,
    health: Word,
    factor: Option<u32>,
    frames: Option<u32>,
    down: Option<String>,
    up: Option<String>,
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Up,
    Down,
    BlackHole,
    BlackHoleTx,
    BlackHoleRx,
    Stalled,
    Slow,
    LosingBeforeSend,
    LosingInTransit,
    LosingAnswers,
    Flapping,
    Zombie,
    Doubling,
    FailsIo,
    FailsChecks,
    Corrupting,
    CorruptingReads,
    CorruptingWrites,
}

/// The scenario in the file `name`, and the fabric if there is one in it; errors say what to do about them.
pub fn read(name: &str) -> Result<(Scenario, Option<Graph>), String> {
    let path = Path::new(name);
    if !path.exists() {
        let known = crate::sim::failover::SCENARIOS;
        return Err(format!("{}; nor is there such a file", keys::unknown("scenario", name, &known)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let file: File =
        toml::from_str(&text).map_err(|error| format!("{name}: {error}(shipped are {})", super::shipped()))?;
    let mut actions = file
        .action
        .into_iter()
        .map(action)
        .collect::<Result<Vec<Action>, String>>()
        .map_err(|why| format!("{name}: {why}"))?;
    actions.sort_by_key(|action| action.at);
    let length = keys::time(&file.length).map_err(|why| format!("{name}: length: {why}"))?;
    if actions.is_empty() {
        return Err(format!("{name}: nothing happens in it: add an [[action]]"));
    }
    let class = match file.class {
        Kind::Link => Class::Link,
        Kind::Controller => Class::Controller,
        Kind::Silent => Class::Silent,
        Kind::AllPaths => Class::AllPaths,
        Kind::Slow => Class::Slow,
    };
    let graph = file.topology.as_ref().map(Topology::graph).transpose().map_err(|why| format!("{name}: {why}"))?;
    Ok((Scenario { name: name.to_owned(), actions, length, class }, graph))
}

fn action(entry: Entry) -> Result<Action, String> {
    let at = keys::time(&entry.at).map_err(|why| format!("at: {why}"))?;
    let component = entry.component.clone();
    let health = health(entry).map_err(|why| format!("{component}: {why}"))?;
    Ok(Action { at, component, health })
}

/// What a health needs it takes out of the entry; what is left is too much.
fn health(mut entry: Entry) -> Result<Health, String> {
    let hole = |tx, rx| Health::BlackHole { tx, rx };
    let corrupting = |reads, writes| Health::Corrupting { reads, writes };
    let health = match entry.health {
        Word::Up => Health::Up,
        Word::Down => Health::Down,
        Word::BlackHole => hole(true, true),
        Word::BlackHoleTx => hole(true, false),
        Word::BlackHoleRx => hole(false, true),
        Word::Stalled => Health::Stalled,
        Word::Slow => Health::Slow(number(&mut entry.factor, 2, "it is slow by a factor: add factor = 10")?),
        Word::LosingBeforeSend => losing(&mut entry, Point::Sending)?,
        Word::LosingInTransit => losing(&mut entry, Point::Transit)?,
        Word::LosingAnswers => losing(&mut entry, Point::Answering)?,
        Word::Flapping => Health::Flapping {
            down: span(&mut entry.down, "it is down for a while: add down = \"1s\"")?,
            up: span(&mut entry.up, "it is up for a while: add up = \"5s\"")?,
        },
        Word::Zombie => Health::Zombie(span(&mut entry.by, "each answer comes later: add by = \"1s\"")?),
        Word::Doubling => Health::Doubling(span(&mut entry.by, "the second comes later: add by = \"1s\"")?),
        Word::FailsIo => Health::FailsIo,
        Word::FailsChecks => Health::FailsChecks,
        Word::Corrupting => corrupting(true, true),
        Word::CorruptingReads => corrupting(true, false),
        Word::CorruptingWrites => corrupting(false, true),
    };
    let left = [
        entry.factor.map(|_| "factor"),
        entry.frames.map(|_| "frames"),
        entry.down.map(|_| "down"),
        entry.up.map(|_| "up"),
        entry.by.map(|_| "by"),
    ];
    match left.into_iter().flatten().next() {
        Some(key) => Err(format!("{key} does not go with this health: remove it")),
        None => Ok(health),
    }
}

fn losing(entry: &mut Entry, at: Point) -> Result<Health, String> {
    let frames = number(&mut entry.frames, 1, "it loses so many frames: add frames = 3")?;
    Ok(Health::Losing { frames, at })
}

fn number(of: &mut Option<u32>, least: u32, missing: &str) -> Result<u32, String> {
    match of.take() {
        Some(number) if number >= least => Ok(number),
        Some(number) => Err(format!("{number} is less than {least}")),
        None => Err(missing.to_owned()),
    }
}

/// More than nothing.
fn span(of: &mut Option<String>, missing: &str) -> Result<Duration, String> {
    let time = keys::time(&of.take().ok_or(missing)?)?;
    if time.is_zero() { Err("a time must be more than 0".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rest: &str) -> Result<Health, String> {
        let entry = toml::from_str::<Entry>(&format!("at = \"1s\"\ncomponent = \"cable0\"\n{rest}"));
        action(entry.map_err(|error| error.to_string())?).map(|action| action.health)
    }

    #[test]
    fn every_fault_has_a_name_and_its_own_arguments() {
        let frames = 3;
        let by = Duration::from_millis(1500);
        assert_eq!(of("health = 'black-hole-rx'"), Ok(Health::BlackHole { tx: false, rx: true }));
        assert_eq!(of("health = 'losing-answers'\nframes = 3"), Ok(Health::Losing { frames, at: Point::Answering }));
        let flapping = of("health = 'flapping'\ndown = '1500ms'\nup = '3s'");
        assert_eq!(flapping, Ok(Health::Flapping { down: by, up: by * 2 }));
        assert_eq!(of("health = 'doubling'\nby = '1500ms'"), Ok(Health::Doubling(by)));
        assert_eq!(of("health = 'corrupting-reads'"), Ok(Health::Corrupting { reads: true, writes: false }));
    }

    #[test]
    fn a_fault_without_its_argument_says_what_to_add() {
        assert_eq!(of("health = 'zombie'"), Err("cable0: each answer comes later: add by = \"1s\"".to_owned()));
        assert!(of("health = 'slow'\nfactor = 1").unwrap_err().contains("less than 2"));
        assert!(of("health = 'down'\nby = '1s'").unwrap_err().contains("by does not go with this health"));
        assert!(of("health = 'zombi'").unwrap_err().contains("zombie"));
    }
}
