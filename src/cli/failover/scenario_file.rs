//! A scenario in a file.
//!
//! ```toml
//! length = "60s"
//! class = "link"           # link, controller, silent, all-paths, slow: which formula the stall is compared with
//!
//! [[action]]
//! at = "10s"
//! component = "cable0"
//! health = "down"          # up, down, black-hole, black-hole-tx, black-hole-rx, stalled, or slow with factor = 10
//! ```

use std::path::Path;

use serde::Deserialize;

use crate::fabric::emulated::Health;
use crate::multipath::keys;
use crate::sim::failover::{Action, Class, Scenario};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    length: String,
    class: Kind,
    action: Vec<Entry>,
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
}

/// The scenario in the file `name`; errors say what to do about them.
pub fn read(name: &str) -> Result<Scenario, String> {
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
    Ok(Scenario { name: name.to_owned(), actions, length, class })
}

fn action(entry: Entry) -> Result<Action, String> {
    let at = keys::time(&entry.at).map_err(|why| format!("at: {why}"))?;
    let health = match (entry.health, entry.factor) {
        (Word::Slow, Some(factor)) if factor > 1 => Health::Slow(factor),
        (Word::Slow, _) => return Err(format!("{} is slow by a factor: add factor = 10", entry.component)),
        (_, Some(_)) => return Err(format!("{} has a factor, and only what is slow has one", entry.component)),
        (Word::Up, None) => Health::Up,
        (Word::Down, None) => Health::Down,
        (Word::BlackHole, None) => Health::BlackHole { tx: true, rx: true },
        (Word::BlackHoleTx, None) => Health::BlackHole { tx: true, rx: false },
        (Word::BlackHoleRx, None) => Health::BlackHole { tx: false, rx: true },
        (Word::Stalled, None) => Health::Stalled,
    };
    Ok(Action { at, component: entry.component, health })
}
