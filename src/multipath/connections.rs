//! What can be set of a disk that is reached by several connections to NBD servers.
//!
//! Of the timers of a transport there is one, `cmd_timeout`, and one of our own, `hold_max`; of a map's there are those that mean
//! something where all paths lead to one server's export. Which paths may be used side by side the servers say.

use std::time::Duration;

use super::keys;
use super::profile::{Profile, ProfileName};
use super::settings::{Checker, Failback, NoPathRetry, Prio, RetrySafety, SelectorKind, Settings};
use crate::fabric::transport::Transport;

/// How patient a disk's connections are, and what the map over them does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connections {
    /// A connection on which a command is not answered by then is given up.
    pub cmd_timeout: Duration,
    /// So long may a request wait for a server to let go of what it may still do; then the disk takes no more.
    pub hold_max: Duration,
    /// The map's timers and policies.
    pub settings: Settings,
}

/// What can be set.
const KEYS: [&str; 22] = [
    "cmd_timeout",
    "hold_max",
    "polling_interval",
    "max_polling_interval",
    "checker_timeout",
    "path_selector",
    "failback",
    "no_path_retry",
    "queue_if_no_path_timeout",
    "read_hedge_after",
    "requeue_rate",
    "updelay",
    "downdelay",
    "san_path_err_threshold",
    "san_path_err_forget_rate",
    "san_path_err_recovery_time",
    "marginal_path_double_failed_time",
    "marginal_path_err_sample_time",
    "marginal_path_err_rate_threshold",
    "marginal_path_err_recheck_gap_time",
    "marginal_pathgroups",
    "monitors",
];

impl Default for Connections {
    /// A silent server costs 30 s at the most. Sending a write again waits for the fabric's word that the first has had its day: what
    /// a server cannot promise, its paths look out for themselves.
    fn default() -> Connections {
        let cmd_timeout = Duration::from_secs(10);
        let settings = Settings {
            selector: SelectorKind::ServiceTime,
            prio: Prio::Const,
            failback: Failback::Immediate,
            // Long enough to find a server again that was started anew; an array does without a member that takes longer.
            no_path_retry: NoPathRetry::Checks(2),
            checker: Checker::DirectIo,
            polling_interval: Duration::from_secs(5),
            max_polling_interval: Duration::from_secs(20),
            checker_timeout: cmd_timeout,
            retry_safety: RetrySafety::Fence,
            queue_bytes_max: 256 << 20,
            ..Settings::default()
        };
        Connections { cmd_timeout, hold_max: Duration::from_secs(20), settings }
    }
}

impl Connections {
    /// Sets one of the keys.
    ///
    /// # Errors
    /// In words: a key that is not known, or does not concern connections; a value that is none.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        if !KEYS.contains(&key) {
            return Err(keys::unknown("setting of a disk's paths", key, &KEYS));
        }
        if key == "hold_max" {
            self.hold_max = keys::time(value)?;
            return Ok(());
        }
        let mut profile = Profile { settings: self.settings, ..ProfileName::Classic.profile() };
        profile.transport = Transport { cmd_timeout: self.cmd_timeout, ..profile.transport };
        keys::set(&mut profile, key, value)?;
        (self.cmd_timeout, self.settings) = (profile.transport.cmd_timeout, profile.settings);
        if key == "cmd_timeout" {
            self.settings.checker_timeout = self.cmd_timeout;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_sets_something_and_others_are_refused() {
        for key in KEYS {
            let mut connections = Connections::default();
            let value = match key {
                "path_selector" => "queue-length",
                "failback" => "manual",
                "marginal_pathgroups" => "on",
                "monitors" => "probe,link",
                _ => "121",
            };
            connections.set(key, value).unwrap_or_else(|why| panic!("{key}: {why}"));
            assert_ne!(connections, Connections::default(), "{key}");
        }
        let error = |key: &str, value: &str| Connections::default().set(key, value).unwrap_err();
        assert!(error("fast_io_fail_tmo", "5").contains("there is no setting"));
        assert!(error("cmd_timeut", "5").contains("did you mean cmd_timeout?"));
        assert!(error("cmd_timeout", "0").contains("more than 0"));
    }
}
