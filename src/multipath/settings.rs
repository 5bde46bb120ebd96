//! What can be set, by multipath.conf's keywords.

use std::fmt;
use std::time::Duration;

pub use super::weights::Weights;
use crate::fabric::{Fencing, PathInfo};

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
    /// By the access state of its port group: optimized 50, non-optimized 10, standby 1, else 0.
    Alua,
    /// The same by ANA's scale: optimized 50, non-optimized 10, else 1.
    Ana,
    /// By where it is (`weightedpath`).
    Weighted(Weights),
    /// By how long reads take on it (`path_latency`).
    Latency(LatencyPrio),
    /// From 1 to 10, another at each check, from this seed (`random`).
    Random(u64),
}

/// Arguments of `path_latency`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LatencyPrio {
    /// Reads at each check, one after the other: `io_num`, 20 to 200.
    pub reads: u32,
    /// A path is a class better than another if it is so many thousandths of the other's speed: `base_num`, 1100 to 10000.
    pub base_thousandths: u32,
}

impl Default for LatencyPrio {
    /// 100 reads, the fourth root of 10.
    fn default() -> LatencyPrio {
        LatencyPrio { reads: 100, base_thousandths: 1778 }
    }
}

impl LatencyPrio {
    /// The logarithm of a time, by this base; of less than a microsecond, 0.
    pub(super) fn log(self, time: Duration) -> f64 {
        (time.as_micros().max(1) as f64).ln() / (f64::from(self.base_thousandths) / 1000.0).ln()
    }

    /// The priority for a mean of such logarithms: how many classes it is better than 100 s.
    pub(super) fn prio(self, mean_log: f64) -> i32 {
        (self.log(Duration::from_secs(100)) - mean_log).max(0.0) as i32
    }
}

/// How the map learns that a path is lost, or back: any set of them. A request that comes back with an error fails a path
/// whatever is watched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Monitors {
    /// What the link says (bonding's MII).
    pub link: bool,
    /// The checker, from time to time.
    pub probe: bool,
    /// Whether anything is heard (bonding's ARP).
    pub traffic: bool,
}

/// `san_path_err_*`: a path that was lost too often is kept out for a while. Off while one of them is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SanPathErr {
    /// More losses than this are too many.
    pub threshold: u32,
    /// After so many good checks one loss is forgotten.
    pub forget_rate: u32,
    /// How long it is kept out.
    pub recovery_time: Duration,
}

impl SanPathErr {
    /// Whether losses are counted.
    pub fn is_on(&self) -> bool {
        self.threshold > 0 && self.forget_rate > 0 && !self.recovery_time.is_zero()
    }
}

/// `marginal_path_*`: a path that fails twice in a short time is tried with reads before it is taken again. Off while a time
/// is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MarginalPath {
    /// Two failures within this time are suspect.
    pub double_failed_time: Duration,
    /// How long it is read from: 32 reads at a time, ten times a second.
    pub err_sample_time: Duration,
    /// Of a thousand reads so many may fail.
    pub err_rate_threshold: u32,
    /// How long it is kept out if more do.
    pub err_recheck_gap_time: Duration,
}

impl MarginalPath {
    /// Whether paths are tried.
    pub fn is_on(&self) -> bool {
        let times = [self.double_failed_time, self.err_sample_time, self.err_recheck_gap_time];
        times.iter().all(|time| !time.is_zero())
    }
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
    /// When the target has confirmed that it aborted the first. Failing that, that the unit was reset; failing that, as `Fence`.
    Abort,
    /// When the target has confirmed that the lost nexus can do nothing more.
    Fence,
    /// At once, in a newer connection generation: the unit refuses what is of an older one.
    Epoch,
}

/// Why a retry safety cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SafetyError {
    /// The paths do not promise what it needs.
    NotPromised {
        /// What was asked for.
        wanted: RetrySafety,
        /// What the paths promise.
        promised: Fencing,
    },
    /// A ghost write under an array makes parity lie about a stripe that no crash has touched, and a repair may spread it.
    BelowRaid,
}

impl RetrySafety {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            RetrySafety::None => "none",
            RetrySafety::Hold(_) => "hold",
            RetrySafety::Abort => "abort",
            RetrySafety::Fence => "fence",
            RetrySafety::Epoch => "epoch",
        }
    }

    /// What paths must promise for it.
    pub fn needs(self) -> Fencing {
        match self {
            RetrySafety::None | RetrySafety::Hold(_) => Fencing::None,
            RetrySafety::Abort | RetrySafety::Fence => Fencing::Session,
            RetrySafety::Epoch => Fencing::Epoch,
        }
    }

    /// Whether these paths promise enough.
    ///
    /// # Errors
    /// If one of them does not.
    pub fn check(self, paths: &[PathInfo]) -> Result<(), SafetyError> {
        match paths.iter().map(|path| path.fencing).min() {
            Some(promised) if promised < self.needs() => Err(SafetyError::NotPromised { wanted: self, promised }),
            _ => Ok(()),
        }
    }

    /// Whether it may be used for the paths to a member of an array.
    ///
    /// # Errors
    /// If writes may land late and nobody has forced it.
    pub fn check_below_raid(self, forced: bool) -> Result<(), SafetyError> {
        if self == RetrySafety::None && !forced { Err(SafetyError::BelowRaid) } else { Ok(()) }
    }
}

impl fmt::Display for SafetyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SafetyError::NotPromised { wanted, promised } => write!(
                f,
                "retry_safety {} needs paths whose target promises {}, and these promise {promised}: use retry_safety {}",
                wanted.name(),
                wanted.needs(),
                if *promised == Fencing::None { "\"hold TIME\"" } else { "fence" },
            ),
            SafetyError::BelowRaid => f.write_str(
                "retry_safety none below RAID: a write that lands late makes parity and data disagree, and a repair may spread it; \
                 use retry_safety fence, or force it",
            ),
        }
    }
}

impl std::error::Error for SafetyError {}

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
    /// `queue_if_no_path_timeout_secs`: requests wait no longer than this for a path, whatever `no_path_retry` is.
    pub queue_if_no_path_timeout: Option<Duration>,
    /// What is watched.
    pub monitors: Monitors,
    /// How often traffic is looked at: bonding's `arp_interval`.
    pub traffic_interval: Duration,
    /// Intervals without any, and half of one, before a path is failed: bonding's `arp_missed_max`.
    pub traffic_missed_max: u32,
    /// How long a path must be well before it is taken again.
    pub updelay: Duration,
    /// How long a check or a link must say that a path is lost before it is failed.
    pub downdelay: Duration,
    /// `san_path_err_*`.
    pub san_path_err: SanPathErr,
    /// `marginal_path_*`.
    pub marginal_path: MarginalPath,
    /// `marginal_pathgroups`: such a path is taken again, in a group that is used last.
    pub marginal_pathgroups: bool,
    /// A read that is not answered within this time goes down a second path, too.
    pub read_hedge_after: Option<Duration>,
    /// Requests a second that may go down other paths after their own was lost; 0: all at once.
    pub requeue_rate: u32,
    /// The target promises that its paths see each other's writes and flush them (NBD's `CAN_MULTI_CONN`). If not, one path is
    /// used at a time, and it is flushed before another is.
    pub multi_conn: bool,
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
            queue_if_no_path_timeout: None,
            monitors: Monitors { link: false, probe: true, traffic: false },
            traffic_interval: Duration::from_secs(1),
            traffic_missed_max: 2,
            updelay: Duration::ZERO,
            downdelay: Duration::ZERO,
            san_path_err: SanPathErr::default(),
            marginal_path: MarginalPath::default(),
            marginal_pathgroups: false,
            read_hedge_after: None,
            requeue_rate: 0,
            multi_conn: true,
        }
    }
}

impl Settings {
    /// How long requests wait when no path is left, at the most: `no_path_retry` polling intervals and a second, or
    /// `queue_if_no_path_timeout`. `None`: for ever.
    pub fn queueing_max(&self) -> Option<Duration> {
        let retry = match self.no_path_retry {
            NoPathRetry::Fail => Some(Duration::ZERO),
            NoPathRetry::Queue => None,
            NoPathRetry::Checks(checks) => Some(self.polling_interval * checks + Duration::from_secs(1)),
        };
        [retry, self.queue_if_no_path_timeout].into_iter().flatten().min()
    }

    /// How long a path may be silent before traffic that is watched says that it is lost.
    pub fn silence_max(&self) -> Duration {
        self.traffic_interval * self.traffic_missed_max + self.traffic_interval / 2
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
