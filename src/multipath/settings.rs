//! What can be set, by multipath.conf's keywords.

use std::fmt;
use std::time::Duration;

/// How paths are put into groups (`path_grouping_policy`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Grouping {
    /// Each path alone: active-standby.
    Failover,
    /// All in one: active-active.
    Multibus,
    /// Those of one priority.
    GroupByPrio,
    /// Those of one adapter's target: here, of one controller.
    GroupByNodeName,
    /// Those of one target port group.
    GroupByTpg,
    /// Those of one serial number: all paths of a unit have the same.
    GroupBySerial,
}

/// Which path takes the next request (`path_selector`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SelectorKind {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest requests under way.
    QueueLength,
    /// The one with the fewest bytes under way for its throughput.
    ServiceTime,
    /// The one whose requests have been served fastest.
    HistoricalServiceTime,
    /// The one of the CPU that asks.
    IoAffinity,
}

/// How good a path is (`prio`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Prio {
    /// All alike.
    Const,
    /// By the access state of its port group.
    Alua,
}

/// When the map goes back to a better group (`failback`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failback {
    /// When somebody says so.
    Manual,
    /// At the next check that sees it.
    Immediate,
    /// Only when the first path of the better group comes back.
    Followover,
    /// So many seconds after.
    After(u32),
}

/// What becomes of requests when no path is left (`no_path_retry`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NoPathRetry {
    /// They fail.
    Fail,
    /// They wait for ever.
    Queue,
    /// They wait for so many polling intervals.
    Checks(u32),
}

/// How a path is checked (`path_checker`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Checker {
    /// TEST UNIT READY.
    Tur,
    /// A read of the first block.
    DirectIo,
    /// The transport's own word.
    None,
}

/// When a write whose outcome is unknown may go down another path: it must not land twice, the second time over something newer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RetrySafety {
    /// At once. Wrong whenever the first may still land (a *ghost write*).
    None,
    /// After so long that the first cannot land any more.
    Hold(Duration),
    /// When the target has confirmed that the lost nexus can do nothing more.
    Fence,
}

/// Everything that can be set of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `path_grouping_policy`.
    pub grouping: Grouping,
    /// `path_selector`.
    pub selector: SelectorKind,
    /// `prio`.
    pub prio: Prio,
    /// `failback`.
    pub failback: Failback,
    /// `no_path_retry`.
    pub no_path_retry: NoPathRetry,
    /// `path_checker`.
    pub checker: Checker,
    /// `polling_interval`: between two checks of a path that is not known to be well.
    pub polling_interval: Duration,
    /// `max_polling_interval`: between two checks of one that has been well for long.
    pub max_polling_interval: Duration,
    /// `checker_timeout`: time a check has.
    pub checker_timeout: Duration,
    /// When a write may be sent again.
    pub retry_safety: RetrySafety,
    /// Bytes of requests that may wait for a path; more fail.
    pub queue_bytes_max: u64,
}

impl Default for Settings {
    /// What most arrays of multipath-tools' hardware table ship with.
    fn default() -> Settings {
        Settings {
            grouping: Grouping::GroupByPrio,
            selector: SelectorKind::ServiceTime,
            prio: Prio::Alua,
            failback: Failback::Immediate,
            no_path_retry: NoPathRetry::Checks(30),
            checker: Checker::Tur,
            polling_interval: Duration::from_secs(5),
            max_polling_interval: Duration::from_secs(20),
            checker_timeout: Duration::from_secs(30),
            retry_safety: RetrySafety::Fence,
            queue_bytes_max: 1 << 30,
        }
    }
}

impl Settings {
    /// How long requests wait when no path is left, at the most: `no_path_retry` polling intervals and a second. `None`: for ever.
    pub fn queueing_max(&self) -> Option<Duration> {
        match self.no_path_retry {
            NoPathRetry::Fail => Some(Duration::ZERO),
            NoPathRetry::Queue => None,
            NoPathRetry::Checks(checks) => Some(self.polling_interval * checks + Duration::from_secs(1)),
        }
    }
}

impl SelectorKind {
    /// All of them.
    pub const ALL: [SelectorKind; 5] = [
        SelectorKind::RoundRobin,
        SelectorKind::QueueLength,
        SelectorKind::ServiceTime,
        SelectorKind::HistoricalServiceTime,
        SelectorKind::IoAffinity,
    ];

    /// Its name in multipath.conf.
    pub fn name(self) -> &'static str {
        match self {
            SelectorKind::RoundRobin => "round-robin",
            SelectorKind::QueueLength => "queue-length",
            SelectorKind::ServiceTime => "service-time",
            SelectorKind::HistoricalServiceTime => "historical-service-time",
            SelectorKind::IoAffinity => "io-affinity",
        }
    }
}

impl fmt::Display for SelectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
