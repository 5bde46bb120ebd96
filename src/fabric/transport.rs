//! Timers of the initiator's half, by the names the transports give them.
//!
//! A loss is noticed in one of four ways: the link says so (loss of signal, LOOP DOWN, RSCN), nothing was received for too long (iSCSI
//! NOP-Out, NVMe keep-alive), the socket's data was not acknowledged (`TCP_USER_TIMEOUT`), or a command is not answered in time. What
//! was noticed blocks the nexus; after `fast_io_fail_tmo` its commands fail, after `dev_loss_tmo` its devices are gone.
//!
//! Sources: Linux 6.1 `scsi_transport_fc.c`, `scsi_error.c`, `scsi_lib.c` (the cap of (retries + 1) × timeout), `libiscsi.c`,
//! `drivers/nvme/host/core.c`, `fabrics.h`; open-iscsi's `iscsid.conf`; multipath.conf(5).

use std::time::Duration;

/// Nothing was received for `interval`: ask. No answer within `timeout`: the nexus is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    /// `noop_out_interval`; half of NVMe's keep-alive timeout.
    pub interval: Duration,
    /// `noop_out_timeout`; NVMe's keep-alive timeout.
    pub timeout: Duration,
}

/// What becomes of a command that was not answered in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abort {
    /// The adapter gives the exchange up by itself, and the command is sent again down the same path (Fibre Channel, SAS).
    Local,
    /// The target is asked to abort it. Not answered in time, the nexus is given up (iSCSI, `abort_timeout`).
    Asked(Duration),
    /// The nexus is given up at once (NVMe over fabrics).
    Nexus,
}

/// How the initiator's half notices and handles losses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transport {
    /// The link says when it is lost.
    pub link_events: bool,
    /// What was lost is sent again while the connection lives (TCP).
    pub retransmits: bool,
    /// Traffic is watched.
    pub watch: Option<Watch>,
    /// `TCP_USER_TIMEOUT`: what was sent must be acknowledged within.
    pub user_timeout: Option<Duration>,
    /// Time a command has.
    pub cmd_timeout: Duration,
    /// How often a command that had no answer is sent again down the same path.
    pub max_retries: u32,
    /// What is done about it meanwhile.
    pub abort: Abort,
    /// How long error handling of one command may take before the adapter is reset, which hits all its paths.
    pub eh_deadline: Option<Duration>,
    /// How long a lost nexus holds its commands back; `None`: until `dev_loss_tmo`. iSCSI calls it `replacement_timeout`.
    pub fast_io_fail_tmo: Option<Duration>,
    /// After which time the devices of a lost nexus are removed; `None`: never. NVMe calls it `ctrl_loss_tmo`.
    pub dev_loss_tmo: Option<Duration>,
    /// How long a target may say that its port group is in transition; then the command fails (ALUA's implicit transition time).
    pub transition_tmo: Duration,
    /// How often a lost nexus is tried again, where no link event says that it is back.
    pub reconnect_delay: Duration,
}

/// Time an adapter needs after a reset (`HOST_RESET_SETTLE_TIME`).
pub const RESET_SETTLE: Duration = Duration::from_secs(10);

/// The link's own word of a loss takes this long: `t+0.0003`.
pub const LINK_EVENT_DELAY: Duration = Duration::from_micros(300);

/// Time a target has to confirm an abort (open-iscsi's `abort_timeout`).
pub const ABORT_TIMEOUT: Duration = Duration::from_secs(15);

/// Time a target has to confirm a LUN reset (open-iscsi's `lu_reset_timeout`).
pub const LU_RESET_TIMEOUT: Duration = Duration::from_secs(30);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Transport {
    /// Fibre Channel as multipathd sets it up: `fast_io_fail_tmo` 5, `dev_loss_tmo` 60 (the transport's own).
    pub const FC: Transport = Transport {
        link_events: true,
        retransmits: false,
        watch: None,
        user_timeout: None,
        cmd_timeout: s(30),
        max_retries: 5,
        abort: Abort::Local,
        eh_deadline: None,
        fast_io_fail_tmo: Some(s(5)),
        dev_loss_tmo: Some(s(60)),
        transition_tmo: s(60),
        reconnect_delay: s(2),
    };

    /// iSCSI under multipathd: NOP-Out every 5 s, answered within 5 s, and `fast_io_fail_tmo` written to the session.
    pub const ISCSI: Transport = Transport {
        link_events: false,
        retransmits: true,
        watch: Some(Watch { interval: s(5), timeout: s(5) }),
        abort: Abort::Asked(ABORT_TIMEOUT),
        dev_loss_tmo: None,
        ..Transport::FC
    };

    /// NVMe over TCP as Linux has it: keep-alive timeout 5, `ctrl_loss_tmo` 600; what was sent fails as soon as the loss is noticed.
    pub const NVME_TCP: Transport = Transport {
        link_events: false,
        retransmits: true,
        watch: Some(Watch { interval: Duration::from_millis(2500), timeout: s(5) }),
        max_retries: 0,
        abort: Abort::Nexus,
        fast_io_fail_tmo: Some(Duration::ZERO),
        dev_loss_tmo: Some(s(600)),
        reconnect_delay: s(10),
        ..Transport::FC
    };

    /// How long a command can be under way on a path that is lost without a word: until the first timer that gives it back.
    ///
    /// The formulae of the field, and nothing of what the emulation does: one is there to check the other.
    pub fn silent_loss_max(&self) -> Duration {
        let held = self.held_max();
        let by_watch = self.watch.map(|watch| watch.interval + watch.timeout + held);
        let by_acknowledgement = self.user_timeout.map(|timeout| timeout + held);
        let by_command = match self.abort {
            Abort::Local => {
                let retries = self.cmd_timeout * (self.max_retries + 1);
                let reset = self.eh_deadline.map(|deadline| self.cmd_timeout + deadline + RESET_SETTLE);
                reset.map_or(retries, |reset| retries.min(reset))
            }
            Abort::Asked(timeout) => self.cmd_timeout + timeout + held,
            Abort::Nexus => self.cmd_timeout + held,
        };
        [by_watch, by_acknowledgement, Some(by_command)].into_iter().flatten().min().expect("one is there")
    }

    /// How long a command can be under way on a path whose link says that it is lost.
    pub fn link_loss_max(&self) -> Duration {
        if self.link_events { LINK_EVENT_DELAY + self.held_max() } else { self.silent_loss_max() }
    }

    /// How long a nexus that is known to be lost holds its commands.
    fn held_max(&self) -> Duration {
        match (self.fast_io_fail_tmo, self.dev_loss_tmo) {
            (Some(fast), Some(gone)) => fast.min(gone),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Duration::MAX / 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 2.7 of the field's tables, by other means than the emulation: its rows are what administrators compute by hand.
    #[test]
    fn worst_cases_are_those_of_the_books() {
        let fc = Transport::FC;
        assert_eq!(fc.silent_loss_max(), s(180));
        assert_eq!(Transport { max_retries: 0, cmd_timeout: s(10), ..fc }.silent_loss_max(), s(10));
        assert_eq!(fc.link_loss_max() - LINK_EVENT_DELAY, s(5));
        let plain = Transport { fast_io_fail_tmo: None, dev_loss_tmo: Some(s(30)), ..fc };
        assert_eq!(plain.link_loss_max() - LINK_EVENT_DELAY, s(30));
        let iscsi = Transport::ISCSI;
        assert_eq!(iscsi.silent_loss_max(), s(15));
        let unmanaged = Transport { fast_io_fail_tmo: Some(s(120)), ..iscsi };
        assert_eq!(unmanaged.silent_loss_max(), s(130));
        assert_eq!(Transport { watch: None, ..unmanaged }.silent_loss_max(), s(165));
        assert_eq!(Transport::NVME_TCP.silent_loss_max(), Duration::from_millis(7500));
    }
}
