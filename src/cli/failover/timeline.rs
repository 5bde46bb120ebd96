//! A failover told line by line.

use std::io::{self, Write};
use std::time::Duration;

use crate::cli::output;
use crate::fabric::PathId;
use crate::fabric::emulated::{Health, Note, Point};
use crate::fabric::graph::Graph;
use crate::multipath::keys;
use crate::multipath::map::{Change, PathState, Why};
use crate::multipath::topology::state_word;
use crate::sim::failover::{Class, FIRST, Happening, Outcome, Profile, Scenario};
use crate::units::Span;

/// A line of a timeline.
pub struct Line {
    /// Since the first failure; what was before is not told.
    pub at: Duration,
    /// What happened.
    pub text: String,
    /// Whether the timer that ends a stall is named in it.
    pub owner: Option<&'static str>,
}

/// More lines of one kind are counted, not shown.
const LINES_MAX: usize = 60;

/// All lines; paths that did the same at one moment share one.
pub fn lines(profile: &Profile, measured: &Outcome) -> Vec<Line> {
    let graph = &measured.graph;
    let start = measured.timeline.iter().find_map(|(at, of)| matches!(of, Happening::Action(_)).then_some(*at));
    let mut lines: Vec<(Duration, Key, Vec<PathId>)> = Vec::new();
    for (at, happening) in &measured.timeline {
        let Some(since) = start.filter(|start| start <= at).map(|start| at.since(start)) else { continue };
        let (key, paths) = match happening {
            Happening::Action(action) => (Key::Action(action.component.clone(), action.health), Vec::new()),
            Happening::Transport(paths, note) => (Key::Note(*note), paths.clone()),
            Happening::Map(Change::Failed(path, why)) => (Key::Failed(*why), vec![*path]),
            Happening::Map(Change::Reinstated(path)) => (Key::Reinstated, vec![*path]),
            Happening::Map(Change::KeptOut(path, state)) => (Key::KeptOut(*state), vec![*path]),
            Happening::Map(Change::Marginal(path, is_so)) => (Key::Marginal(*is_so), vec![*path]),
            Happening::Map(Change::Hedged(path)) => (Key::Hedged, vec![*path]),
            Happening::Map(Change::Fencing(path)) => (Key::Fencing, vec![*path]),
            Happening::Map(Change::Fenced(path)) => (Key::Fenced, vec![*path]),
            Happening::Map(Change::Aborting(path)) => (Key::Aborting, vec![*path]),
            Happening::Map(Change::Aborted(path)) => (Key::Aborted, vec![*path]),
            Happening::Map(change) => (Key::Other(*change), Vec::new()),
        };
        // What happens to several paths within a millisecond is told once; so is a change of the group, which may come with each of them.
        let is_shared = !paths.is_empty() || matches!(key, Key::Other(Change::Switched(_)));
        let near = lines.iter_mut().rev().take(40).filter(|line| since - line.0 < Duration::from_millis(1));
        let mut same = near.filter_map(|line| line.1.and(&key).map(|both| (line, both)));
        match same.next() {
            Some((line, both)) if is_shared => {
                line.1 = both;
                line.2.extend(paths);
            }
            _ => lines.push((since, key, paths)),
        }
    }
    lines
        .into_iter()
        .map(|(at, key, mut paths)| {
            paths.sort_unstable();
            paths.dedup();
            let names: Vec<&str> = paths.iter().map(|path| graph.paths()[usize::from(path.0)].name.as_str()).collect();
            let (text, owner) = key.text(&names.join(" "), profile);
            Line { at, text, owner }
        })
        .collect()
}

#[derive(Clone, PartialEq, Debug)]
enum Key {
    Action(String, Health),
    Note(Note),
    Failed(Why),
    Reinstated,
    KeptOut(PathState),
    Marginal(bool),
    Hedged,
    Fencing,
    Fenced,
    Aborting,
    Aborted,
    Other(Change),
}

impl Key {
    /// One key for both, if the same became of all their paths.
    fn and(&self, other: &Key) -> Option<Key> {
        match (self, other) {
            (Key::Note(a), Key::Note(b)) => a.and(*b).map(Key::Note),
            _ => (self == other).then(|| self.clone()),
        }
    }

    /// What it says of these paths, and the timer that it names.
    fn text(&self, paths: &str, profile: &Profile) -> (String, Option<&'static str>) {
        let transport = &profile.transport;
        let span = |time: Option<Duration>| Span(time.unwrap_or_default()).to_string();
        let plain = |text: String| (text, None);
        match self {
            Key::Action(component, health) => plain(match health {
                Health::Up => format!("{component} is well again"),
                Health::Down => format!("{component} fails"),
                Health::BlackHole { .. } => format!("{component} swallows frames, and nobody says so"),
                Health::Stalled => format!("{component} keeps frames back"),
                Health::Slow(factor) => format!("{component} is {factor} times as slow"),
                Health::Losing { frames, at } => {
                    let what = match at {
                        Point::Sending => "commands before they are sent",
                        Point::Transit => "commands on their way",
                        Point::Answering => "answers to commands that are done",
                    };
                    format!("{component} loses {frames} {what}")
                }
                Health::Flapping { down, up } => {
                    format!("{component} flaps: down for {}, up for {}", Span(*down), Span(*up))
                }
                Health::Zombie(step) => format!("{component} answers, each time {} later", Span(*step)),
                Health::Doubling(later) => format!("{component} delivers commands again, {} later", Span(*later)),
                Health::FailsIo => format!("{component} passes its checks, and reads and writes fail"),
                Health::FailsChecks => format!("{component} reads and writes, and its checks fail"),
                Health::Corrupting { reads, writes } => {
                    let what = match (reads, writes) {
                        (true, false) => "what is read",
                        (false, true) => "what is written",
                        _ => "what is read and written",
                    };
                    format!("{component} corrupts {what}, and nobody says so")
                }
            }),
            Key::Note(note) => match note {
                Note::LinkDown => plain(format!("{paths}: link down, commands are held")),
                Note::LinkUp => plain(format!("{paths}: link up")),
                Note::WatchTimeout => {
                    let watch = transport.watch.map(|watch| watch.interval + watch.timeout);
                    (
                        format!("{paths}: nothing heard for {}: the nexus is lost", span(watch)),
                        Some("noop_out_interval + noop_out_timeout"),
                    )
                }
                Note::UserTimeout => {
                    (format!("{paths}: tcp_user_timeout {}", span(transport.user_timeout)), Some("tcp_user_timeout"))
                }
                Note::CommandTimeout(attempts) => (
                    format!(
                        "{paths}: cmd_timeout {}, attempt {attempts} of {}",
                        Span(transport.cmd_timeout),
                        transport.max_retries + 1
                    ),
                    Some("(max_retries + 1) x cmd_timeout"),
                ),
                Note::AbortTimeout => {
                    (format!("{paths}: the abort is not answered: the nexus is lost"), Some("abort_timeout"))
                }
                Note::FastIoFail(count) => (
                    format!(
                        "{paths}: fast_io_fail_tmo {}: {count} commands given back",
                        span(transport.fast_io_fail_tmo)
                    ),
                    Some("fast_io_fail_tmo"),
                ),
                Note::DevLoss(count) => (
                    format!(
                        "{paths}: dev_loss_tmo {}: removed, {count} commands given back",
                        span(transport.dev_loss_tmo)
                    ),
                    Some("dev_loss_tmo"),
                ),
                Note::AdapterReset => (
                    format!("{paths}: eh_deadline {}: the adapter is reset", span(transport.eh_deadline)),
                    Some("eh_deadline"),
                ),
            },
            Key::Failed(Why::Io(error)) => {
                plain(format!("{paths}: failed ({error}); what came back goes down another path"))
            }
            Key::Failed(Why::Checker(PathState::Timeout)) => (
                format!("{paths}: failed by the checker (checker_timeout {})", Span(profile.settings.checker_timeout)),
                None,
            ),
            Key::Failed(Why::Checker(state)) => {
                plain(format!("{paths}: failed by the checker ({})", state_word(*state)))
            }
            Key::Failed(Why::Link(link)) => plain(format!("{paths}: failed by the link ({link})")),
            Key::Failed(Why::Silence(time)) => (
                format!("{paths}: failed, nothing was heard for {}", Span(*time)),
                Some("(traffic_missed_max + 1/2) x traffic_interval"),
            ),
            Key::Failed(Why::Asked) => plain(format!("{paths}: failed as asked")),
            Key::Reinstated => plain(format!("{paths}: reinstated")),
            Key::KeptOut(state) => plain(format!("{paths}: found well, and kept out ({})", state_word(*state))),
            Key::Marginal(true) => plain(format!("{paths}: marginal, used last")),
            Key::Marginal(false) => plain(format!("{paths}: marginal no more")),
            Key::Hedged => (format!("{paths}: late reads go down it, too"), Some("read_hedge_after")),
            Key::Fencing => {
                plain(format!("{paths}: asking the target to end the old nexus, before writes go elsewhere"))
            }
            Key::Fenced => plain(format!("{paths}: fenced, nothing lands late")),
            Key::Aborting => plain(format!("{paths}: asking the target to abort writes that came back")),
            Key::Aborted => plain(format!("{paths}: writes aborted, they are sent again")),
            Key::Other(change) => match change {
                Change::Resetting => plain("asking the unit to forget what is under way (LUN reset)".to_owned()),
                Change::Reset => plain("the unit is reset, nothing lands late".to_owned()),
                Change::Epoch(epoch) => {
                    plain(format!("connection generation {epoch}: the unit refuses writes of an older one"))
                }
                Change::Switched(group) => plain(format!("requests go down group {}", group + 1)),
                Change::Queueing => plain("no path is left: requests are queued".to_owned()),
                Change::GaveUp(count) => (
                    format!("no_path_retry: queued for {}, {count} fail", span(profile.settings.queueing_max())),
                    Some("no_path_retry"),
                ),
                Change::Resumed(count) => plain(format!("{count} queued requests go on")),
                Change::Failed(..)
                | Change::Reinstated(_)
                | Change::KeptOut(..)
                | Change::Marginal(..)
                | Change::Hedged(_)
                | Change::Fencing(_)
                | Change::Fenced(_)
                | Change::Aborting(_)
                | Change::Aborted(_) => unreachable!("these have keys of their own"),
            },
        }
    }
}

/// What the timers are, in a line or two.
pub fn settings_line(name: &str, profile: &Profile, graph: &Graph) -> String {
    let told = keys::all(profile);
    let wanted =
        ["fast_io_fail_tmo", "dev_loss_tmo", "cmd_timeout", "max_retries", "noop_out_interval", "noop_out_timeout"];
    let mut words: Vec<String> = Vec::new();
    for (key, value) in &told {
        if wanted.contains(key) && value != "off" {
            words.push(format!("{key} {value}"));
        }
    }
    words.extend(keys::differing(&profile.settings).into_iter().map(|(key, value)| format!("{key} {value}")));
    words.dedup();
    format!("{name}: {} ({} paths); {}", graph.name(), graph.paths().len(), words.join(", "))
}

/// The stall, beside what the formula allows.
pub fn stall_line(profile: &Profile, scenario: &Scenario, measured: &Outcome, lines: &[Line]) -> String {
    let ends = (measured.longest_from + measured.longest).since(crate::block::Instant::START + FIRST);
    let owner = lines.iter().rev().filter(|line| line.at <= ends).find_map(|line| line.owner);
    let owner =
        owner.filter(|_| scenario.class != Class::Slow).map(|owner| format!(", owned by {owner}")).unwrap_or_default();
    let bound = match scenario.stall_max(profile) {
        Some(bound) => format!("; predicted at the most {}", seconds(bound)),
        None => String::new(),
    };
    format!("longest stall {}{bound}{owner}", seconds(measured.longest))
}

/// Seconds, to the tenth of a millisecond.
pub fn seconds(time: Duration) -> String {
    format!("{:.4} s", time.as_secs_f64())
}

/// Writes it all.
pub fn write(
    out: &mut impl Write,
    name: &str,
    profile: &Profile,
    scenario: &Scenario,
    measured: &Outcome,
) -> io::Result<()> {
    let graph = &measured.graph;
    writeln!(out, "{}", settings_line(name, profile, graph))?;
    let lines = lines(profile, measured);
    let length = scenario.length.as_secs_f64();
    writeln!(out, "{}: the first failure after {} of {length:.0} s\n", scenario.name, Span(FIRST))?;
    for line in lines.iter().take(LINES_MAX) {
        writeln!(out, "  t+{:<10.4}  {}", line.at.as_secs_f64(), line.text)?;
    }
    if lines.len() > LINES_MAX {
        writeln!(out, "  ... {} lines more (--json has all)", lines.len() - LINES_MAX)?;
    }
    writeln!(out, "\n{}", stall_line(profile, scenario, measured, &lines))?;
    let errors: u64 = measured.errors.values().sum();
    let why: Vec<String> = measured.errors.iter().map(|(error, count)| format!("{count} x {error}")).collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
    writeln!(out, "served {}, errors {errors}{why}, wrong blocks {}", measured.served, measured.wrong_blocks)?;
    writeln!(out, "paths failed {} times; commands by path: {}", measured.failures, shares(graph, measured))?;
    writeln!(out, "served per second  {}", sparkline(&measured.per_second, output::is_utf8()))
}

fn shares(graph: &Graph, measured: &Outcome) -> String {
    let shares = graph.paths().iter().zip(&measured.per_path).map(|(path, count)| format!("{} {count}", path.name));
    shares.collect::<Vec<String>>().join(" ")
}

/// At most 72 columns.
fn sparkline(values: &[u64], utf8: bool) -> String {
    let marks: Vec<char> = if utf8 { " ▁▂▃▄▅▆▇█" } else { " .:-=+*#@" }.chars().collect();
    let width = values.len().div_ceil(72).max(1);
    let means: Vec<u64> = values.chunks(width).map(|chunk| chunk.iter().sum::<u64>() / chunk.len() as u64).collect();
    let most = means.iter().copied().max().unwrap_or(0).max(1);
    let mark = |value: &u64| marks[(value * (marks.len() as u64 - 1)).div_ceil(most) as usize];
    format!("|{}| 0..{most}", means.iter().map(mark).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_a_stall_as_a_gap() {
        assert_eq!(sparkline(&[100, 100, 0, 0, 50, 100], false), "|@@  =@| 0..100");
        assert_eq!(sparkline(&[1; 1000], true).chars().count(), "|| 0..1".len() + 72);
    }
}
