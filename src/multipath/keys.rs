//! Timers and policies by their names in multipath.conf, iscsid.conf and nvme-cli, and a few of our own.

use std::time::Duration;

use super::profile::{Profile, ProfileName};
use super::settings::{Checker, Failback, Grouping, NoPathRetry, Prio, RetrySafety, SelectorKind, Settings};
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
        ("polling_interval", time(settings.polling_interval)),
        ("max_polling_interval", time(settings.max_polling_interval)),
        ("checker_timeout", time(settings.checker_timeout)),
        ("path_grouping_policy", grouping_name(settings.grouping).to_owned()),
        ("path_selector", settings.selector.to_string()),
        ("path_checker", checker_name(settings.checker).to_owned()),
        ("prio", if settings.prio == Prio::Alua { "alua" } else { "const" }.to_owned()),
        ("failback", failback_name(settings.failback)),
        ("no_path_retry", no_path_retry_name(settings.no_path_retry)),
        ("retry_safety", safety_name(settings.retry_safety)),
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
            let name = |prio| if prio == Prio::Alua { "alua" } else { "const" };
            settings.prio = one_of(key, value, &[Prio::Alua, Prio::Const], name)?;
        }
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
            settings.retry_safety = match value.split_once(' ') {
                None if value == "none" => RetrySafety::None,
                None if value == "fence" => RetrySafety::Fence,
                Some(("hold", for_so_long)) => RetrySafety::Hold(positive(key, for_so_long)?),
                _ => return Err(format!("retry_safety is none, fence or \"hold 15s\", not {value:?}")),
            };
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
        RetrySafety::None => "none".into(),
        RetrySafety::Fence => "fence".into(),
        RetrySafety::Hold(time) => format!("hold {}", Span(time)),
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
            assert_eq!(other, profile, "{name}");
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
