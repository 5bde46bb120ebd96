//! Timers and policies by their names in multipath.conf, iscsid.conf and nvme-cli, and a few of our own.

use std::time::Duration;

use super::profile::{Profile, ProfileName};
use super::settings::{
    Checker, Failback, Grouping, LatencyPrio, Monitors, NoPathRetry, Prio, RetrySafety, SelectorKind, Settings, Weights,
};
use crate::fabric::Fencing;
use crate::fabric::graph::Preset;
use crate::fabric::transport::{Transport, Watch};
use crate::units::Span;

/// All that can be set, and what it is now.
pub fn all(profile: &Profile) -> Vec<(&'static str, String)> {
    let Profile { transport, settings, .. } = profile;
    let time = |time: Duration| Span(time).to_string();
    let maybe = |of: Option<Duration>| of.map_or("off".to_owned(), time);
    let watch = |part: fn(Watch) -> Duration| maybe(transport.watch.map(part));
    vec![
        ("fast_io_fail_tmo", maybe(transport.fast_io_fail_tmo)),
        ("dev_loss_tmo", maybe(transport.dev_loss_tmo)),
        ("cmd_timeout", time(transport.cmd_timeout)),
        ("max_retries", transport.max_retries.to_string()),
        ("eh_deadline", maybe(transport.eh_deadline)),
        ("noop_out_interval", watch(|watch| watch.interval)),
        ("noop_out_timeout", watch(|watch| watch.timeout)),
        ("tcp_user_timeout", maybe(transport.user_timeout)),
        ("reconnect_delay", time(transport.reconnect_delay)),
        ("transition_tmo", time(transport.transition_tmo)),
        ("polling_interval", time(settings.polling_interval)),
        ("max_polling_interval", time(settings.max_polling_interval)),
        ("checker_timeout", time(settings.checker_timeout)),
        ("path_grouping_policy", grouping_name(settings.grouping).to_owned()),
        ("path_selector", settings.selector.to_string()),
        ("path_checker", checker_name(settings.checker).to_owned()),
        ("prio", prio_name(settings.prio).to_owned()),
        ("prio_args", prio_args(settings.prio)),
        ("failback", failback_name(settings.failback)),
        ("no_path_retry", no_path_retry_name(settings.no_path_retry)),
        ("queue_if_no_path_timeout", maybe(settings.queue_if_no_path_timeout)),
        ("retry_safety", safety_name(settings.retry_safety)),
        ("monitors", monitors_name(settings.monitors)),
        ("traffic_interval", time(settings.traffic_interval)),
        ("traffic_missed_max", settings.traffic_missed_max.to_string()),
        ("updelay", time(settings.updelay)),
        ("downdelay", time(settings.downdelay)),
        ("san_path_err_threshold", settings.san_path_err.threshold.to_string()),
        ("san_path_err_forget_rate", settings.san_path_err.forget_rate.to_string()),
        ("san_path_err_recovery_time", time(settings.san_path_err.recovery_time)),
        ("marginal_path_double_failed_time", time(settings.marginal_path.double_failed_time)),
        ("marginal_path_err_sample_time", time(settings.marginal_path.err_sample_time)),
        ("marginal_path_err_rate_threshold", settings.marginal_path.err_rate_threshold.to_string()),
        ("marginal_path_err_recheck_gap_time", time(settings.marginal_path.err_recheck_gap_time)),
        ("marginal_pathgroups", on_off(settings.marginal_pathgroups).to_owned()),
        ("read_hedge_after", maybe(settings.read_hedge_after)),
        ("requeue_rate", settings.requeue_rate.to_string()),
        ("multi_conn", on_off(settings.multi_conn).to_owned()),
        ("fabric", profile.preset.to_string()),
        ("fencing", profile.fencing.to_string()),
    ]
}

/// Sets one of them; `hba_timeout` sets several.
pub fn set(profile: &mut Profile, key: &str, value: &str) -> Result<(), String> {
    let Profile { transport, settings, .. } = profile;
    match key {
        "hba_timeout" => *profile = profile.with_hba_timeout(positive(key, value)?),
        "fast_io_fail_tmo" | "replacement_timeout" | "recovery_tmo" => transport.fast_io_fail_tmo = maybe_time(value)?,
        "dev_loss_tmo" | "ctrl_loss_tmo" => transport.dev_loss_tmo = maybe_time(value)?,
        "cmd_timeout" | "io_timeout" => transport.cmd_timeout = positive(key, value)?,
        "max_retries" => {
            transport.max_retries = value
                .parse()
                .ok()
                .filter(|retries| *retries <= 5)
                .ok_or(format!("max_retries is a number from 0 to 5, not {value:?}"))?;
        }
        "eh_deadline" => transport.eh_deadline = maybe_time(value)?,
        "noop_out_interval" => set_watch(transport, value, |watch, time| watch.interval = time)?,
        "noop_out_timeout" => set_watch(transport, value, |watch, time| watch.timeout = time)?,
        "tcp_user_timeout" => transport.user_timeout = maybe_time(value)?,
        "transition_tmo" => transport.transition_tmo = positive(key, value)?,
        "reconnect_delay" => transport.reconnect_delay = positive(key, value)?,
        "polling_interval" => {
            settings.polling_interval = positive(key, value)?;
            settings.max_polling_interval = settings.max_polling_interval.max(settings.polling_interval);
        }
        "max_polling_interval" => settings.max_polling_interval = positive(key, value)?,
        "checker_timeout" => settings.checker_timeout = positive(key, value)?,
        "path_grouping_policy" => {
            let known = [
                Grouping::Failover,
                Grouping::Multibus,
                Grouping::GroupByPrio,
                Grouping::GroupBySerial,
                Grouping::GroupByNodeName,
                Grouping::GroupByTpg,
            ];
            settings.grouping = one_of(key, value, &known, grouping_name)?;
        }
        "path_selector" => {
            // The number of arguments behind it, which is 0, is how multipath.conf writes it.
            let value = value.strip_suffix(" 0").unwrap_or(value);
            settings.selector = one_of(key, value, &SelectorKind::ALL, SelectorKind::name)?;
        }
        "path_checker" => {
            settings.checker = one_of(key, value, &[Checker::Tur, Checker::DirectIo, Checker::None], checker_name)?;
        }
        "prio" => {
            let known = [
                Prio::Const,
                Prio::Alua,
                Prio::Ana,
                Prio::Weighted(Weights::default()),
                Prio::Latency(LatencyPrio::default()),
                Prio::Random(1),
            ];
            settings.prio = one_of(key, value, &known, prio_name)?;
        }
        "prio_args" => settings.prio = with_args(settings.prio, value)?,
        "failback" => {
            settings.failback = match value {
                "manual" => Failback::Manual,
                "immediate" => Failback::Immediate,
                "followover" => Failback::Followover,
                _ => Failback::After(value.parse().map_err(|_| {
                    format!("failback is manual, immediate, followover or a number of seconds, not {value:?}")
                })?),
            };
        }
        "no_path_retry" => {
            settings.no_path_retry = match value {
                "fail" => NoPathRetry::Fail,
                "queue" => NoPathRetry::Queue,
                _ => NoPathRetry::Checks(
                    value
                        .parse()
                        .map_err(|_| format!("no_path_retry is fail, queue or a number of checks, not {value:?}"))?,
                ),
            };
        }
        "retry_safety" => {
            profile.safety_is_asked = true;
            settings.retry_safety = match value.split_once(' ') {
                None if value == "none" => RetrySafety::None,
                None if value == "abort" => RetrySafety::Abort,
                None if value == "fence" => RetrySafety::Fence,
                None if value == "epoch" => RetrySafety::Epoch,
                Some(("hold", for_so_long)) => RetrySafety::Hold(positive(key, for_so_long)?),
                _ => return Err(format!("retry_safety is none, abort, fence, epoch or \"hold 15s\", not {value:?}")),
            };
        }
        _ => return set_of_ours(profile, key, value),
    }
    Ok(())
}

/// What says which paths are trusted, and what bonding and we have besides.
fn set_of_ours(profile: &mut Profile, key: &str, value: &str) -> Result<(), String> {
    let settings = &mut profile.settings;
    let (san, marginal) = (&mut settings.san_path_err, &mut settings.marginal_path);
    match key {
        "queue_if_no_path_timeout" => settings.queue_if_no_path_timeout = maybe_time(value)?,
        "monitors" => settings.monitors = monitors(value)?,
        "traffic_interval" => settings.traffic_interval = positive(key, value)?,
        "traffic_missed_max" => settings.traffic_missed_max = number(key, value)?,
        "updelay" => settings.updelay = time(value)?,
        "downdelay" => settings.downdelay = time(value)?,
        "san_path_err_threshold" => san.threshold = number(key, value)?,
        "san_path_err_forget_rate" => san.forget_rate = number(key, value)?,
        "san_path_err_recovery_time" => san.recovery_time = time_or_no(value)?,
        "marginal_path_double_failed_time" => marginal.double_failed_time = time_or_no(value)?,
        "marginal_path_err_sample_time" => {
            marginal.err_sample_time = time_or_no(value)?;
            let least = Duration::from_secs(120);
            if !marginal.err_sample_time.is_zero() && marginal.err_sample_time < least {
                return Err(format!("{key} is 120 s at least, not {value}: fewer reads say nothing"));
            }
        }
        "marginal_path_err_rate_threshold" => marginal.err_rate_threshold = number(key, value)?,
        "marginal_path_err_recheck_gap_time" => marginal.err_recheck_gap_time = time_or_no(value)?,
        "marginal_pathgroups" => settings.marginal_pathgroups = flag(key, value)?,
        "read_hedge_after" => settings.read_hedge_after = maybe_time(value)?,
        "requeue_rate" => settings.requeue_rate = number(key, value)?,
        "multi_conn" => settings.multi_conn = flag(key, value)?,
        "fabric" => profile.preset = one_of(key, value, &Preset::ALL, Preset::name)?,
        "fencing" => {
            let known = [Fencing::None, Fencing::Session, Fencing::Epoch];
            profile.fencing = one_of(key, value, &known, Fencing::name)?;
        }
        _ => {
            let known: Vec<&str> =
                std::iter::once("hba_timeout").chain(all(profile).into_iter().map(|(key, _)| key)).collect();
            return Err(unknown("setting", key, &known));
        }
    }
    Ok(())
}

/// A time as it is typed, or as multipath.conf has it: a number alone is seconds.
pub fn time(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => text.parse::<Span>().map(|span| span.0).map_err(|error| error.to_string()),
    }
}

/// Says that something is not known, and what was perhaps meant.
pub fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let near = |known: &&&str| strsim::damerau_levenshtein(word, known);
    let meant = known.iter().min_by_key(near).filter(|best| near(best) <= 2 + best.len() / 4);
    let hint = meant.map_or_else(|| format!("known are {}", known.join(", ")), |best| format!("did you mean {best}?"));
    format!("there is no {what} {word:?}: {hint}")
}

fn positive(key: &str, text: &str) -> Result<Duration, String> {
    time(text).and_then(|time| if time.is_zero() { Err(format!("{key} must be more than 0")) } else { Ok(time) })
}

fn maybe_time(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "off" | "infinity" => Ok(None),
        _ => time(text).map(Some),
    }
}

/// As multipath.conf switches off what it counts and times.
fn time_or_no(text: &str) -> Result<Duration, String> {
    if text == "no" { Ok(Duration::ZERO) } else { time(text) }
}

fn number(key: &str, text: &str) -> Result<u32, String> {
    if text == "no" {
        return Ok(0);
    }
    text.parse().map_err(|_| format!("{key} is a number, not {text:?}"))
}

fn flag(key: &str, text: &str) -> Result<bool, String> {
    match text {
        "on" | "yes" | "1" => Ok(true),
        "off" | "no" | "0" => Ok(false),
        _ => Err(format!("{key} is on or off, not {text:?}")),
    }
}

fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn monitors(text: &str) -> Result<Monitors, String> {
    let mut monitors = Monitors { link: false, probe: false, traffic: false };
    for word in text.split(',') {
        match word {
            "link" => monitors.link = true,
            "probe" => monitors.probe = true,
            "traffic" => monitors.traffic = true,
            _ => return Err(unknown("monitor", word, &["link", "probe", "traffic"])),
        }
    }
    Ok(monitors)
}

fn monitors_name(monitors: Monitors) -> String {
    let all = [(monitors.link, "link"), (monitors.probe, "probe"), (monitors.traffic, "traffic")];
    let on: Vec<&str> = all.iter().filter(|(is_on, _)| *is_on).map(|(_, name)| *name).collect();
    on.join(",")
}

fn set_watch(transport: &mut Transport, text: &str, set: fn(&mut Watch, Duration)) -> Result<(), String> {
    match maybe_time(text)?.filter(|time| !time.is_zero()) {
        None => transport.watch = None,
        Some(time) => {
            let five = Duration::from_secs(5);
            set(transport.watch.get_or_insert(Watch { interval: five, timeout: five }), time);
        }
    }
    Ok(())
}

fn one_of<T: Copy>(key: &str, value: &str, known: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    let names: Vec<&str> = known.iter().map(|known| name(*known)).collect();
    known.iter().copied().find(|known| name(*known) == value).ok_or_else(|| unknown(key, value, &names))
}

fn grouping_name(grouping: Grouping) -> &'static str {
    match grouping {
        Grouping::Failover => "failover",
        Grouping::Multibus => "multibus",
        Grouping::GroupByPrio => "group_by_prio",
        Grouping::GroupByNodeName => "group_by_node_name",
        Grouping::GroupByTpg => "group_by_tpg",
        Grouping::GroupBySerial => "group_by_serial",
    }
}

fn prio_name(prio: Prio) -> &'static str {
    match prio {
        Prio::Const => "const",
        Prio::Alua => "alua",
        Prio::Ana => "ana",
        Prio::Weighted(_) => "weightedpath",
        Prio::Latency(_) => "path_latency",
        Prio::Random(_) => "random",
    }
}

fn prio_args(prio: Prio) -> String {
    match prio {
        Prio::Const | Prio::Alua | Prio::Ana => String::new(),
        Prio::Weighted(weights) => weights.to_string(),
        Prio::Latency(LatencyPrio { reads, base_thousandths }) => {
            format!("io_num={reads} base_num={}.{:03}", base_thousandths / 1000, base_thousandths % 1000)
        }
        Prio::Random(seed) => format!("seed={seed}"),
    }
}

/// The prioritizer with its arguments.
fn with_args(prio: Prio, text: &str) -> Result<Prio, String> {
    Ok(match prio {
        Prio::Const | Prio::Alua | Prio::Ana => prio,
        Prio::Weighted(_) => Prio::Weighted(Weights::parse(text)?),
        Prio::Latency(_) => Prio::Latency(latency_args(text)?),
        Prio::Random(_) => {
            let seed = text.strip_prefix("seed=").and_then(|seed| seed.parse().ok());
            Prio::Random(seed.ok_or_else(|| format!("random takes seed=NUMBER, not {text:?}"))?)
        }
    })
}

fn latency_args(text: &str) -> Result<LatencyPrio, String> {
    let mut latency = LatencyPrio::default();
    for word in text.split_whitespace() {
        let bad = || format!("path_latency takes io_num=20..200 and base_num=1.1..10, not {word:?}");
        match word.split_once('=').ok_or_else(bad)? {
            ("io_num", reads) => {
                latency.reads = reads.parse().ok().filter(|reads| (20..=200).contains(reads)).ok_or_else(bad)?;
            }
            ("base_num", base) => {
                let base: f64 = base.parse().ok().filter(|base| (1.1..=10.0).contains(base)).ok_or_else(bad)?;
                latency.base_thousandths = (base * 1000.0).round() as u32;
            }
            _ => return Err(bad()),
        }
    }
    Ok(latency)
}

fn checker_name(checker: Checker) -> &'static str {
    match checker {
        Checker::Tur => "tur",
        Checker::DirectIo => "directio",
        Checker::None => "none",
    }
}

fn failback_name(failback: Failback) -> String {
    match failback {
        Failback::Manual => "manual".into(),
        Failback::Immediate => "immediate".into(),
        Failback::Followover => "followover".into(),
        Failback::After(seconds) => seconds.to_string(),
    }
}

fn no_path_retry_name(retry: NoPathRetry) -> String {
    match retry {
        NoPathRetry::Fail => "fail".into(),
        NoPathRetry::Queue => "queue".into(),
        NoPathRetry::Checks(checks) => checks.to_string(),
    }
}

fn safety_name(safety: RetrySafety) -> String {
    match safety {
        RetrySafety::Hold(time) => format!("hold {}", Span(time)),
        other => other.name().to_owned(),
    }
}

/// Whether something the map does differs from what is usual.
pub fn differing(settings: &Settings) -> Vec<(&'static str, String)> {
    let profile = |settings| Profile { settings, ..ProfileName::Classic.profile() };
    let usual = all(&profile(Settings::default()));
    all(&profile(*settings))
        .into_iter()
        .zip(usual)
        .filter(|(mine, usual)| mine != usual)
        .map(|(mine, _)| mine)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_set() {
        for name in ProfileName::ALL {
            let profile = name.profile();
            let mut other = ProfileName::Classic.profile();
            other.preset = profile.preset;
            other.transport.link_events = profile.transport.link_events;
            other.transport.retransmits = profile.transport.retransmits;
            other.transport.abort = profile.transport.abort;
            for (key, value) in all(&profile) {
                set(&mut other, key, &value).unwrap_or_else(|error| panic!("{key} {value}: {error}"));
            }
            assert_eq!(other, Profile { safety_is_asked: true, ..profile }, "{name}");
        }
    }

    #[test]
    fn what_paths_are_trusted_by_is_set_by_its_name_and_wrong_values_are_named() {
        let mut profile = ProfileName::Classic.profile();
        for (key, value, shown) in [
            ("prio", "weightedpath", "weightedpath"),
            ("prio_args", "hbtl [1,3]:.+:.:. 50", "hbtl [1,3]:.:.:. 50"),
            ("prio", "path_latency", "path_latency"),
            ("prio_args", "io_num=20 base_num=10", "io_num=20 base_num=10.000"),
            ("prio", "random", "random"),
            ("prio_args", "seed=7", "seed=7"),
            ("monitors", "traffic,link", "link,traffic"),
            ("marginal_pathgroups", "on", "on"),
            ("marginal_path_err_sample_time", "120", "2m"),
            ("san_path_err_threshold", "no", "0"),
            ("read_hedge_after", "50ms", "50ms"),
            ("multi_conn", "off", "off"),
        ] {
            set(&mut profile, key, value).unwrap_or_else(|error| panic!("{key} {value}: {error}"));
            let now = all(&profile).into_iter().find(|(of, _)| *of == key).unwrap().1;
            assert_eq!(now, shown, "{key}");
        }
        for (key, value, named) in [
            ("monitors", "prob", "did you mean probe?"),
            ("marginal_path_err_sample_time", "60", "120 s at least"),
            ("multi_conn", "maybe", "on or off"),
            ("prio_args", "hbtl", "seed=NUMBER"),
            ("requeue_rate", "fast", "is a number"),
        ] {
            let error = set(&mut profile, key, value).unwrap_err();
            assert!(error.contains(named), "{key} {value}: {error}");
        }
    }

    #[test]
    fn a_word_that_is_nearly_right_is_recognised() {
        let mut profile = ProfileName::Classic.profile();
        let error = set(&mut profile, "fast_io_fail_timeo", "5").unwrap_err();
        assert!(error.contains("did you mean fast_io_fail_tmo?"), "{error}");
        let error = set(&mut profile, "path_selector", "service-tim 0").unwrap_err();
        assert!(error.contains("service-time"), "{error}");
        assert!(set(&mut profile, "zzz", "5").unwrap_err().contains("known are hba_timeout"));
        set(&mut profile, "hba_timeout", "7").unwrap();
        assert_eq!(profile.transport.fast_io_fail_tmo, Some(Duration::from_secs(7)));
    }
}
