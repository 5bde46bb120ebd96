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
//! | `health` | |
//! |---|---|
//! | `up`, `down` | |
//! | `black-hole`, `black-hole=tx`, `black-hole=rx` | frames vanish, nobody says so |
//! | `stalled` | frames wait, and land late |
//! | `slow=10` | frames take so many times as long |
//! | `losing=3,sending`, `losing=3,transit`, `losing=3,answering` | so many, once |
//! | `flapping=1s,5s` | down and up by itself, beginning with down |
//! | `zombie=1s` | each answer so much later than the last |
//! | `doubling=1s` | commands are delivered again, so much later |
//! | `fails-io`, `fails-checks` | what a checker finds is not what reads and writes find |
//! | `corrupting`, `corrupting=reads`, `corrupting=writes` | a byte of all data is another |
//!
//! A `[topology]` in it is the fabric, in the place of the profile's.

use std::path::Path;

use serde::Deserialize;

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
    health: String,
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

fn action(Entry { at, component, health }: Entry) -> Result<Action, String> {
    let at = keys::time(&at).map_err(|why| format!("at: {why}"))?;
    let health = health.parse().map_err(|error| format!("{component}: {error}"))?;
    Ok(Action { at, component, health })
}
