//! Sets of timers that somebody uses.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::{Checker, Failback, NoPathRetry, RetrySafety, SelectorKind, Settings};
use crate::block::DeviceId;
use crate::fabric::Fencing;
use crate::fabric::graph::{Graph, Preset};
use crate::fabric::transport::Transport;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A set of timers that somebody uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileName {
    /// An HBA timeout of 30 s.
    Classic,
    /// Of 5 s.
    Tuned,
    /// Of 1 s.
    Aggressive,
    /// iSCSI as multipathd manages it.
    LinuxIscsi,
    /// NVMe over TCP, native multipath.
    LinuxNvme,
    /// Native multipathing of VMware: paths in turn, no way back, all-paths-down timeout of 140 s.
    Vmware,
    /// MPIO of Windows: LinkTimeOut 30, TimeOutValue 60, PDORemovePeriod 20.
    Windows,
}

/// Where the paths are, and all timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// The fabric.
    pub preset: Preset,
    /// The transport's timers.
    pub transport: Transport,
    /// The map's.
    pub settings: Settings,
    /// What the target promises.
    pub fencing: Fencing,
    /// Whether `retry_safety` was asked for; else it [follows](Profile::settle) from what the target promises.
    pub safety_is_asked: bool,
}

impl ProfileName {
    /// All of them.
    pub const ALL: [ProfileName; 7] = [
        ProfileName::Classic,
        ProfileName::Tuned,
        ProfileName::Aggressive,
        ProfileName::LinuxIscsi,
        ProfileName::LinuxNvme,
        ProfileName::Vmware,
        ProfileName::Windows,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ProfileName::Classic => "classic",
            ProfileName::Tuned => "tuned",
            ProfileName::Aggressive => "aggressive",
            ProfileName::LinuxIscsi => "linux-iscsi",
            ProfileName::LinuxNvme => "linux-nvme",
            ProfileName::Vmware => "vmware",
            ProfileName::Windows => "windows",
        }
    }

    /// Whose timers a fabric usually has.
    pub fn of(preset: Preset) -> ProfileName {
        match preset {
            Preset::San | Preset::SasDual | Preset::ActivePassive => ProfileName::Classic,
            Preset::Iscsi => ProfileName::LinuxIscsi,
            Preset::NvmeTcp => ProfileName::LinuxNvme,
        }
    }

    /// Its timers.
    pub fn profile(self) -> Profile {
        let settings = Settings::default();
        let fc = Profile {
            preset: Preset::San,
            transport: Transport::FC,
            settings,
            fencing: Fencing::Epoch,
            safety_is_asked: false,
        };
        match self {
            ProfileName::Classic => fc.with_hba_timeout(s(30)),
            ProfileName::Tuned => {
                let transport = Transport { max_retries: 0, ..Transport::FC };
                Profile { transport, ..fc }.with_hba_timeout(s(5))
            }
            ProfileName::Aggressive => {
                let transport = Transport { max_retries: 0, ..Transport::FC };
                let settings = Settings { polling_interval: s(1), max_polling_interval: s(1), ..settings };
                Profile { transport, settings, ..fc }.with_hba_timeout(s(1))
            }
            ProfileName::LinuxIscsi => Profile { preset: Preset::Iscsi, transport: Transport::ISCSI, ..fc },
            ProfileName::LinuxNvme => {
                let settings = Settings {
                    checker: Checker::None,
                    selector: SelectorKind::RoundRobin,
                    no_path_retry: NoPathRetry::Checks(120),
                    ..settings
                };
                Profile { preset: Preset::NvmeTcp, transport: Transport::NVME_TCP, settings, ..fc }
            }
            ProfileName::Vmware => {
                let settings = Settings {
                    selector: SelectorKind::RoundRobin,
                    failback: Failback::Manual,
                    no_path_retry: NoPathRetry::Checks(28),
                    ..settings
                };
                let transport = Transport { fast_io_fail_tmo: Some(s(10)), cmd_timeout: s(60), ..Transport::FC };
                Profile { transport, settings, ..fc }
            }
            ProfileName::Windows => {
                let settings =
                    Settings { selector: SelectorKind::RoundRobin, no_path_retry: NoPathRetry::Checks(4), ..settings };
                let transport =
                    Transport { fast_io_fail_tmo: Some(s(30)), cmd_timeout: s(60), max_retries: 3, ..Transport::FC };
                Profile { transport, settings, ..fc }
            }
        }
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Profile {
    /// The friendly knob: how long a link may be gone, and a command without an answer.
    pub fn with_hba_timeout(mut self, timeout: Duration) -> Profile {
        self.transport.fast_io_fail_tmo = Some(timeout);
        self.transport.cmd_timeout = timeout;
        self.transport.dev_loss_tmo = self.transport.dev_loss_tmo.map(|gone| gone.max(timeout * 2));
        self.settings.checker_timeout = timeout;
        self
    }

    /// The fabric, with what its target promises.
    pub fn graph(&self) -> Graph {
        self.graph_for(&[DeviceId(0)])
    }

    /// The same, with these units behind it.
    pub fn graph_for(&self, units: &[DeviceId]) -> Graph {
        self.preset.graph_for(units).with_fencing(self.fencing)
    }

    /// Settles what was not asked for: where a target promises no fence, a write whose fate is unknown waits until it can
    /// land no more.
    ///
    /// # Errors
    /// Says [what contradicts what](Profile::contradiction).
    pub fn settle(&mut self) -> Result<(), String> {
        if !self.safety_is_asked {
            self.settings.retry_safety = match self.fencing {
                Fencing::None => RetrySafety::Hold(self.transport.silent_loss_max()),
                Fencing::Session | Fencing::Epoch => Settings::default().retry_safety,
            };
        }
        self.contradiction().map_or(Ok(()), Err)
    }

    /// What contradicts what, in words.
    pub fn contradiction(&self) -> Option<String> {
        let Transport { fast_io_fail_tmo, dev_loss_tmo, .. } = self.transport;
        if let (Some(fast), Some(gone)) = (fast_io_fail_tmo, dev_loss_tmo)
            && fast >= gone
        {
            return Some(format!(
                "fast_io_fail_tmo ({fast:?}) must be less than dev_loss_tmo ({gone:?}): raise dev_loss_tmo or lower the other"
            ));
        }
        if let Err(why) = self.settings.retry_safety.check(self.graph().paths()) {
            return Some(why.to_string());
        }
        if let RetrySafety::Hold(hold) = self.settings.retry_safety
            && hold < self.transport.silent_loss_max()
        {
            return Some(format!(
                "a hold of {hold:?} is shorter than what a lost path may take ({:?}): a write could land after its repetition; \
                 hold longer, or use retry_safety fence",
                self.transport.silent_loss_max()
            ));
        }
        None
    }
}
