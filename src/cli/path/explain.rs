//! `path explain`: how long a failure stops a client, by formula, before it happens.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::{Failure, Manner, Outcome};
use crate::fabric::transport::{Abort, Transport};
use crate::multipath::conf::{self, PLUMBING, SECTIONS, Section, Setting, TIMED};
use crate::multipath::keys;
use crate::multipath::settings::{Failback, NoPathRetry, Settings};
use crate::sim::failover::{Profile, ProfileName};
use crate::units::Span;

/// Arguments of `path explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// A lab with paths
    #[arg(value_name = "LAB", required_unless_present = "conf")]
    lab: Option<PathBuf>,
    /// A multipath.conf; nothing else is needed
    #[arg(long, value_name = "FILE", conflicts_with = "lab")]
    conf: Option<PathBuf>,
    /// A deadline of your own: warn of every stall that is longer
    #[arg(long, value_name = "TIME")]
    deadline: Option<Span>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// What others wait for, in seconds, and who says so.
const DEADLINES: [(u64, &str); 6] = [
    (15, "Oracle ASM heartbeat"),
    (27, "Oracle short disk timeout"),
    (30, "Oracle CSS misscount"),
    (60, "a guest's disk timeout"),
    (140, "VMware all-paths-down"),
    (200, "Oracle voting disk timeout"),
];

/// A kind of failure, and what it costs.
struct Row {
    failure: &'static str,
    formula: String,
    stall: Option<Duration>,
    /// What would mend it.
    mend: &'static str,
}

/// A set of timers to be explained: whose, over which transport.
struct Case {
    name: String,
    transport: &'static str,
    profile: Profile,
}

/// Runs `path explain`.
pub fn run(args: &ExplainArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let (shown, cases) = match (&args.conf, &args.lab) {
        (Some(conf), _) => (conf.display().to_string(), cases_of_conf(conf)?),
        (None, Some(lab)) => (lab.display().to_string(), vec![case_of_lab(lab)?]),
        (None, None) => unreachable!("one of them is required"),
    };
    let mut told = Vec::new();
    let mut late = false;
    for (number, Case { name, transport, profile }) in cases.iter().enumerate() {
        let rows = rows(profile);
        late |= args
            .deadline
            .is_some_and(|deadline| rows.iter().any(|row| row.stall.is_none_or(|stall| stall > deadline.0)));
        if args.json {
            told.push(as_json(name, transport, &rows));
            continue;
        }
        if number > 0 {
            writeln!(out)?;
        }
        write(out, name, transport, profile, &rows, args.deadline)?;
    }
    if args.json {
        let all = json!({ "schema": "raidlab-path-explain/v1", "source": shown, "cases": told });
        serde_json::to_writer_pretty(&mut *out, &all).map_err(|error| Failure::from(std::io::Error::from(error)))?;
        writeln!(out)?;
    } else if args.lab.is_some() {
        manner.hint(&format!("\ntry it: raidlab failover {shown} --scenario black-hole"));
    } else {
        manner.hint("\ntry one: raidlab failover --scenario black-hole --set max_retries=0 --set cmd_timeout=10");
    }
    Ok(u8::from(late))
}

fn case_of_lab(lab: &Path) -> Result<Case, Failure> {
    let (profile, _) = super::fabric_of(lab)?;
    let transport = match (profile.transport.link_events, profile.transport.abort) {
        (true, _) => "fc or sas",
        (false, Abort::Nexus) => "nvme-tcp",
        (false, _) => "iscsi",
    };
    Ok(Case { name: lab.display().to_string(), transport, profile })
}

fn cases_of_conf(conf: &Path) -> Result<Vec<Case>, Failure> {
    let shown = conf.display();
    let text =
        std::fs::read_to_string(conf).map_err(|error| Failure::cannot(format!("cannot read {shown}: {error}")))?;
    let root = conf::parse(&text).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    let variants = variants(&root).map_err(|why| Failure::usage(format!("{shown}: {why}")))?;
    let mut cases = Vec::new();
    for (name, settings) in variants {
        for (transport, mut profile) in transports(conf, &settings)? {
            profile.settle().map_err(|why| Failure::usage(format!("{shown}: {name}, {transport}: {why}")))?;
            cases.push(Case { name: name.clone(), transport, profile });
        }
    }
    Ok(cases)
}

/// `defaults` with `overrides`, and the same for every device and every map that says something of time: what a device says comes
/// before `overrides`, what a map says after.
fn variants(root: &Section) -> Result<Vec<(String, Vec<Setting>)>, String> {
    check(root)?;
    let of = |name: &str| -> Vec<Setting> {
        root.sections.iter().filter(|section| section.name == name).flat_map(timed).collect()
    };
    let (defaults, overrides) = (of("defaults"), of("overrides"));
    let mut variants = vec![("defaults".to_owned(), [defaults.clone(), overrides.clone()].concat())];
    let inner = |name: &'static str| {
        root.sections.iter().filter(move |section| section.name == name).flat_map(|section| &section.sections)
    };
    for section in inner("devices").chain(inner("multipaths")) {
        let own = timed(section);
        if own.is_empty() {
            continue;
        }
        let layers = match section.name.as_str() {
            "multipath" => [defaults.clone(), overrides.clone(), own],
            _ => [defaults.clone(), own, overrides.clone()],
        };
        variants.push((called(section), layers.concat()));
    }
    Ok(variants)
}

/// `device VENDOR PRODUCT`, `multipath ALIAS`.
fn called(section: &Section) -> String {
    let value =
        |key: &str| section.settings.iter().find(|setting| setting.key == key).map(|setting| setting.value.clone());
    let names = if section.name == "multipath" {
        vec![value("alias").or_else(|| value("wwid"))]
    } else {
        vec![value("vendor"), value("product")]
    };
    let names: Vec<String> = names.into_iter().flatten().collect();
    match names.is_empty() {
        true => format!("{} of line {}", section.name, section.line),
        false => format!("{} {}", section.name, names.join(" ")),
    }
}

fn timed(section: &Section) -> Vec<Setting> {
    section.settings.iter().filter(|setting| TIMED.contains(&setting.key.as_str())).cloned().collect()
}

/// Says which word is none of multipath.conf's.
fn check(section: &Section) -> Result<(), String> {
    for setting in &section.settings {
        let word = setting.key.as_str();
        if !TIMED.contains(&word) && !PLUMBING.contains(&word) {
            let known: Vec<&str> = TIMED.iter().chain(PLUMBING).copied().collect();
            let place = format!("line {}, column {}", setting.line, setting.column);
            return Err(format!("{place}: {}", keys::unknown("keyword", word, &known)));
        }
    }
    for inner in &section.sections {
        if !SECTIONS.contains(&inner.name.as_str()) {
            return Err(format!("line {}: {}", inner.line, keys::unknown("section", &inner.name, SECTIONS)));
        }
        check(inner)?;
    }
    Ok(())
}

/// Prioritizers that are taken as they are.
const PRIOS: [&str; 5] = ["const", "ana", "weightedpath", "path_latency", "random"];

/// The transports that dm-multipath is used over, with these settings.
fn transports(conf: &Path, settings: &[Setting]) -> Result<Vec<(&'static str, Profile)>, Failure> {
    let base = ProfileName::Classic.profile();
    // multipath.conf's own defaults, where no array says otherwise.
    let usual = Settings { failback: Failback::Manual, no_path_retry: NoPathRetry::Fail, ..Settings::default() };
    let mut all = Vec::new();
    for (name, transport) in [("fc", Transport::FC), ("iscsi", Transport::ISCSI)] {
        let mut profile = Profile { transport, settings: usual, ..base };
        // Arguments are those of the prioritizer, wherever they stand.
        let (prios, others): (Vec<_>, Vec<_>) = settings.iter().partition(|setting| setting.key == "prio");
        for Setting { key, value, line, column } in prios.into_iter().chain(others) {
            if key == "prio_args" {
                // Names of disks and serial numbers, which patterns may match too, say nothing of time.
                let _ = keys::set(&mut profile, key, value);
                continue;
            }
            if key == "features" {
                // As no_path_retry queue, which has the last word if both are there.
                let is_told = settings.iter().any(|setting| setting.key == "no_path_retry");
                if !is_told && value.contains("queue_if_no_path") {
                    profile.settings.no_path_retry = NoPathRetry::Queue;
                }
                continue;
            }
            // An array's own prioritizer or checker takes about as long.
            let taken = match key.as_str() {
                // sysfs is what the kernel knows by ALUA.
                "prio" if !PRIOS.contains(&value.as_str()) => "alua",
                // Fabric notifications are none of ours: what they say is what errors say later.
                "marginal_pathgroups" if value == "fpin" => "on",
                "path_checker" if !["tur", "directio", "none"].contains(&value.as_str()) => "tur",
                _ => value,
            };
            // multipath.conf's dev_loss_tmo is for FC and SAS, and there is no iSCSI session without a timer: off leaves its own.
            let taken = match (name, key.as_str(), taken) {
                ("iscsi", "dev_loss_tmo", _) => continue,
                ("iscsi", "fast_io_fail_tmo", "off") => "120",
                _ => taken,
            };
            let shown = conf.display();
            keys::set(&mut profile, key, taken)
                .map_err(|why| Failure::usage(format!("{shown}: line {line}, column {column}: {why}")))?;
        }
        if !settings.iter().any(|setting| setting.key == "max_polling_interval") {
            profile.settings.max_polling_interval = profile.settings.polling_interval * 4;
        }
        if !settings.iter().any(|setting| setting.key == "checker_timeout") {
            profile.settings.checker_timeout = transport.cmd_timeout;
        }
        all.push((name, profile));
    }
    Ok(all)
}

fn rows(profile: &Profile) -> Vec<Row> {
    let Profile { transport, settings, .. } = profile;
    let span = |time: Duration| Span(time).to_string();
    let held = transport.fast_io_fail_tmo.or(transport.dev_loss_tmo);
    let held_name = if transport.fast_io_fail_tmo.is_some() { "fast_io_fail_tmo" } else { "dev_loss_tmo" };
    let held_word = held.map_or("for ever".to_owned(), span);
    let silent = transport.silent_loss_max();
    let mut rows = Vec::new();
    if transport.link_events {
        rows.push(Row {
            failure: "link lost, and it says so",
            formula: format!("{held_name} {held_word}"),
            stall: held,
            mend: "set fast_io_fail_tmo 5",
        });
    }
    let formula = match (transport.watch, transport.abort) {
        (Some(watch), _) => {
            format!(
                "noop_out_interval {} + noop_out_timeout {} + {held_name} {held_word}",
                span(watch.interval),
                span(watch.timeout)
            )
        }
        (None, Abort::Local) => match transport.eh_deadline {
            Some(deadline) => format!(
                "min((max_retries {} + 1) x timeout {}, timeout + eh_deadline {} + reset 10s)",
                transport.max_retries,
                span(transport.cmd_timeout),
                span(deadline)
            ),
            None => format!("(max_retries {} + 1) x timeout {}", transport.max_retries, span(transport.cmd_timeout)),
        },
        (None, _) => format!("timeout {} + abort + {held_name} {held_word}", span(transport.cmd_timeout)),
    };
    let mend = if transport.link_events {
        "set max_retries 0, and a timeout of 10 s in /sys/block/*/device/timeout"
    } else {
        "set fast_io_fail_tmo 1, noop_out_interval 2, noop_out_timeout 2"
    };
    rows.push(Row { failure: "silent loss, a command under way", formula, stall: Some(silent), mend });
    let checked = settings.max_polling_interval + settings.checker_timeout + Duration::from_secs(1);
    rows.push(Row {
        failure: "silent loss, until new commands avoid it",
        formula: format!(
            "max_polling_interval {} + checker_timeout {} + 1s",
            span(settings.max_polling_interval),
            span(settings.checker_timeout)
        ),
        stall: Some(checked),
        mend: "set max_polling_interval 5 and checker_timeout 5",
    });
    let queueing = settings.queueing_max();
    let loss = if transport.link_events { held } else { Some(silent) };
    rows.push(Row {
        failure: "no path left",
        formula: match queueing {
            None => "no_path_retry queue: until a path is back".to_owned(),
            Some(time) if time.is_zero() => {
                format!("{}, then errors (no_path_retry fail)", loss.map_or("for ever".into(), span))
            }
            Some(time) => format!(
                "{} + no_path_retry x polling_interval + 1s = {}",
                loss.map_or("for ever".into(), span),
                span(time)
            ),
        },
        stall: loss.zip(queueing).map(|(loss, queueing)| loss + queueing),
        mend: match queueing {
            None => "set no_path_retry to a number: so many polling intervals",
            Some(_) => "lower no_path_retry (so many polling intervals), or mend what comes before it",
        },
    });
    rows
}

fn write(
    out: &mut impl Write,
    name: &str,
    transport: &str,
    profile: &Profile,
    rows: &[Row],
    deadline: Option<Span>,
) -> std::io::Result<()> {
    let settings = &profile.settings;
    writeln!(
        out,
        "{name}, {transport}: polling_interval {}, path_selector {}",
        Span(settings.polling_interval),
        settings.selector
    )?;
    for row in rows {
        let stall = row.stall.map_or("no bound".to_owned(), |stall| Span(stall).to_string());
        writeln!(out, "  {:<42} {stall:>9}   {}", row.failure, row.formula)?;
        let missed: Vec<String> = DEADLINES
            .iter()
            .filter(|(seconds, _)| row.stall.is_none_or(|stall| stall > Duration::from_secs(*seconds)))
            .map(|(seconds, who)| format!("{who} {seconds}s"))
            .collect();
        let own = deadline.filter(|deadline| row.stall.is_none_or(|stall| stall > deadline.0));
        let own = own.map(|deadline| format!("your deadline of {deadline}"));
        let exceeded: Vec<String> = own.into_iter().chain(missed).collect();
        if !exceeded.is_empty() {
            writeln!(out, "  {:<42} {:>9}   exceeds {}", "", "", exceeded.join(", "))?;
            writeln!(out, "  {:<42} {:>9}   {}", "", "", row.mend)?;
        }
    }
    Ok(())
}

fn as_json(name: &str, transport: &str, rows: &[Row]) -> serde_json::Value {
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            json!({
                "failure": row.failure,
                "formula": row.formula,
                "stall_seconds": row.stall.map(|stall| stall.as_secs_f64()),
                "exceeds": DEADLINES.iter().filter(|(seconds, _)| row.stall.is_none_or(|stall| stall > Duration::from_secs(*seconds)))
                    .map(|(seconds, who)| json!({ "who": who, "seconds": seconds })).collect::<Vec<_>>(),
                "mend": row.mend,
            })
        })
        .collect();
    json!({ "for": name, "transport": transport, "rows": rows })
}
