//! What `multipathd show maps json` shows (its format 0.1), and what its users miss there: what is under way, how long it takes, how
//! old states are.
//!
//! The keys of multipathd come first, in its order; ours are behind them. What a fabric has no names for (WWNs, adapters) is
//! `[undef]`, as there.

use serde_json::{Value, json};

use super::Multipath;
use super::map::{Group, Map, Path};
use super::settings::{Checker, Failback, NoPathRetry, RetrySafety};
use super::topology::{device_number, features, group_word, handler, state_word};
use crate::block::Instant;
use crate::fabric::{Fabric, Link};

/// All maps. `name` gives a map's alias and WWID, `first` the number of the first one's device.
pub fn show<F: Fabric>(
    multipath: &Multipath<F>,
    name: impl Fn(&Map) -> (String, String),
    first: usize,
    now: Instant,
) -> Value {
    let maps = multipath.maps().iter().enumerate().map(|(number, map)| {
        let (alias, wwid) = name(map);
        map_of(multipath, map, first + number, &alias, &wwid, now)
    });
    json!({ "major_version": 0, "minor_version": 1, "maps": maps.collect::<Vec<Value>>() })
}

fn map_of<F: Fabric>(
    multipath: &Multipath<F>,
    map: &Map,
    number: usize,
    alias: &str,
    wwid: &str,
    now: Instant,
) -> Value {
    let settings = multipath.settings();
    let totals = map.totals();
    let read_only = multipath.fabric().limits(map.unit()).read_only;
    let groups = map.groups().iter().enumerate().map(|(at, group)| group_of(multipath, map, at, group, now));
    json!({
        "name": alias,
        "uuid": wwid,
        "sysfs": format!("dm-{number}"),
        "failback": failback(settings.failback),
        "queueing": queueing(map, settings.no_path_retry),
        "paths": map.paths().len(),
        "write_prot": if read_only { "ro" } else { "rw" },
        "dm_st": "active",
        "features": features(settings),
        "hwhandler": handler(settings),
        "action": "",
        "path_faults": totals.path_faults,
        "vend": "RAIDLAB",
        "prod": "VOLUME",
        "rev": env!("CARGO_PKG_VERSION"),
        "switch_grp": totals.switch_grp,
        "map_loads": totals.map_loads,
        "total_q_time": totals.total_q_time,
        "q_timeouts": totals.q_timeouts,
        "queued": map.queued(),
        "retry_safety": retry_safety(settings.retry_safety),
        "path_groups": groups.collect::<Vec<Value>>(),
    })
}

fn group_of<F: Fabric>(multipath: &Multipath<F>, map: &Map, at: usize, group: &Group, now: Instant) -> Value {
    let paths = group.paths.iter().map(|path| path_of(multipath, map, &map.paths()[*path], now));
    json!({
        "selector": format!("{} 0", multipath.settings().selector),
        "pri": group.prio,
        "dm_st": group_word(map, at),
        "marginal_st": marginal(group.marginal),
        "group": at + 1,
        "paths": paths.collect::<Vec<Value>>(),
    })
}

fn path_of<F: Fabric>(multipath: &Multipath<F>, map: &Map, path: &Path, now: Instant) -> Value {
    const UNDEF: &str = "[undef]";
    let fabric = multipath.fabric();
    let info = &fabric.paths()[usize::from(path.id.0)];
    let micros = |percent| path.latencies.quantile(percent).map(|time| time.as_micros() as u64);
    let oldest = multipath.oldest(map, path).map(|sent| now.since(sent).as_millis() as u64);
    json!({
        "dev": info.name,
        "dev_t": device_number(path.id),
        "dm_st": if path.active { "active" } else { "failed" },
        "dev_st": if fabric.link(path.id) == Link::Online { "running" } else { "offline" },
        "chk_st": state_word(path.state),
        "checker": checker(multipath.settings().checker),
        "pri": path.prio,
        "host_wwnn": UNDEF,
        "target_wwnn": UNDEF,
        "host_wwpn": UNDEF,
        "target_wwpn": UNDEF,
        "host_adapter": UNDEF,
        "lun_hex": format!("0x{:016x}", info.unit.0),
        "marginal_st": marginal(path.marginal),
        "hctl": info.hctl,
        "link": fabric.link(path.id).to_string(),
        "access": fabric.access(path.id).to_string(),
        "fencing": info.fencing.to_string(),
        "inflight": path.load.requests,
        "oldest_ms": oldest,
        "p50_us": micros(50),
        "p99_us": micros(99),
        "served": path.latencies.total(),
        "flaps": path.failures_total,
        "state_age_ms": now.since(path.since).as_millis() as u64,
    })
}

fn marginal(is_marginal: bool) -> &'static str {
    if is_marginal { "marginal" } else { "normal" }
}

fn checker(checker: Checker) -> &'static str {
    match checker {
        Checker::Tur => "tur",
        Checker::DirectIo => "directio",
        Checker::None => "none",
    }
}

fn failback(failback: Failback) -> String {
    match failback {
        Failback::Manual => "manual".to_owned(),
        Failback::Immediate => "immediate".to_owned(),
        Failback::Followover => "followover".to_owned(),
        Failback::After(seconds) => seconds.to_string(),
    }
}

fn queueing(map: &Map, retry: NoPathRetry) -> String {
    match retry {
        NoPathRetry::Fail => "off".to_owned(),
        NoPathRetry::Queue => "on".to_owned(),
        NoPathRetry::Checks(_) if map.gave_up => "off".to_owned(),
        NoPathRetry::Checks(checks) => format!("{checks} chk"),
    }
}

fn retry_safety(safety: RetrySafety) -> &'static str {
    match safety {
        RetrySafety::None => "none",
        RetrySafety::Abort => "abort",
        RetrySafety::Hold(_) => "hold",
        RetrySafety::Fence => "fence",
        RetrySafety::Epoch => "epoch",
    }
}
