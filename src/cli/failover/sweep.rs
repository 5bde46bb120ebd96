//! The trade of a timer: a shorter one ends a stall sooner, and takes a hiccup for a failure more often.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::json;

use super::timeline::seconds;
use super::{FailoverArgs, Sweep, keys, picture, replay};
use crate::block::Instant;
use crate::cli::{Failure, Manner, Outcome};
use crate::fabric::emulated::Health;
use crate::fabric::graph::{Component, Graph, Kind};
use crate::multipath::map::Change;
use crate::sim::failover::{Action, Class, Client, FIRST, Happening, Profile, Scenario, hiccups, run as fail_over};
use crate::units::Span;

/// Hiccups of a cable in a row.
const HICCUPS: usize = 100;

/// What one value of the timer comes to.
pub struct Point {
    /// The value.
    pub value: Duration,
    /// The longest stall where the link says that it is lost, and where nobody says so.
    pub stalls: [Duration; 2],
    /// Hiccups that became failovers.
    pub needless: usize,
}

/// Runs `failover --sweep`.
pub fn run(
    args: &FailoverArgs,
    profile: &Profile,
    fabric: &Graph,
    Sweep { key, range }: &Sweep,
    client: Client,
    manner: Manner,
    out: &mut impl Write,
) -> Outcome {
    let mut points = Vec::new();
    for value in values(range) {
        let mut profile = *profile;
        keys::set(&mut profile, key, &Span(value).to_string()).map_err(Failure::usage)?;
        profile.settle().map_err(|why| Failure::usage(format!("{key} {}: {why}", Span(value))))?;
        points.push(point(&profile, fabric, value, args.hiccup.0, client));
    }
    let command = replay(args);
    if let Some(path) = &args.svg {
        std::fs::write(path, picture::draw_sweep(key, args.hiccup, HICCUPS, &points, &command))
            .map_err(|error| Failure::cannot(format!("cannot write {}: {error}", path.display())))?;
    }
    if args.json {
        let points: Vec<serde_json::Value> = points
            .iter()
            .map(|point| {
                json!({
                    "value_seconds": point.value.as_secs_f64(),
                    "stall_link_seconds": point.stalls[0].as_secs_f64(),
                    "stall_silent_seconds": point.stalls[1].as_secs_f64(),
                    "needless_failovers": point.needless,
                })
            })
            .collect();
        let told = json!({
            "schema": "raidlab-failover-sweep/v1", "command": command, "key": key, "hiccups": HICCUPS,
            "hiccup_mean_seconds": args.hiccup.0.as_secs_f64(), "points": points,
        });
        serde_json::to_writer_pretty(&mut *out, &told).map_err(|error| Failure::from(std::io::Error::from(error)))?;
        writeln!(out)?;
        return Ok(0);
    }
    let width = key.len().max(8);
    writeln!(out, "{key:>width$}  stall, link says so   stall, silent loss   needless failovers of {HICCUPS} hiccups")?;
    for point in &points {
        let [link, silent] = point.stalls.map(seconds);
        let value = Span(point.value).to_string();
        writeln!(out, "{value:>width$}  {link:>19}   {silent:>18}   {:>8}", point.needless)?;
    }
    manner.hint(&format!(
        "a hiccup is a cable that is lost and comes back after {} on average, exponentially distributed\nagain: {command}",
        args.hiccup
    ));
    Ok(0)
}

/// 1, 2, 5, 10, ... of the largest unit that is smaller than the range, and its ends.
fn values(range: &RangeInclusive<Duration>) -> Vec<Duration> {
    let mut values = vec![*range.start()];
    let mut decade = Duration::from_millis(1);
    while decade <= *range.end() {
        for factor in [1, 2, 3, 5] {
            let value = decade * factor;
            if value > *range.start() && value < *range.end() {
                values.push(value);
            }
        }
        decade *= 10;
    }
    values.push(*range.end());
    values
}

fn point(profile: &Profile, graph: &Graph, value: Duration, hiccup: Duration, client: Client) -> Point {
    let stall = |name: &str| {
        let scenario = Scenario::shipped(name, graph, profile).expect("it is shipped");
        fail_over(profile, graph.clone(), &scenario, client).longest
    };
    let stalls = [stall("cable-pull"), stall("black-hole")];
    let is_cable = |component: &&Component| component.kind == Kind::Cable;
    let cable = graph.components().iter().find(is_cable).unwrap_or(&graph.components()[0]);
    let mut at = FIRST;
    let mut actions = Vec::new();
    let mut begins = Vec::new();
    for length in hiccups(client.seed, hiccup, HICCUPS) {
        begins.push(Instant::START + at);
        actions.push(Action { at, component: cable.name.clone(), health: Health::Down });
        actions.push(Action { at: at + length, component: cable.name.clone(), health: Health::Up });
        // Time for the checker to take the paths back.
        at += length + profile.settings.max_polling_interval * 2 + Duration::from_secs(5);
    }
    let scenario = Scenario { name: "hiccups".into(), actions, length: at, class: Class::Link };
    let patient = Client { rate: 20, ..client };
    let outcome = fail_over(profile, graph.clone(), &scenario, patient);
    // A hiccup that failed a path, or more, counts once.
    let failed = outcome.timeline.iter().filter(|(_, of)| matches!(of, Happening::Map(Change::Failed(..))));
    let of_which: BTreeSet<usize> = failed.map(|(at, _)| begins.partition_point(|begin| begin <= at)).collect();
    Point { value, stalls, needless: of_which.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_tried_at_its_ends_and_at_round_values_between() {
        let s = Duration::from_secs;
        assert_eq!(values(&(s(1)..=s(60))), [1, 2, 3, 5, 10, 20, 30, 50, 60].map(s));
        assert_eq!(values(&(s(7)..=s(8))), [7, 8].map(s));
    }
}
