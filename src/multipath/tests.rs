//! A map over an emulated fabric: what it does when, step by step.

use std::time::Duration;

use super::Multipath;
use super::map::{Change, PathState};
use super::settings::{Checker, Failback, Grouping, NoPathRetry, RetrySafety, Settings};
use super::topology;
use crate::block::*;
use crate::disk::MemBank;
use crate::fabric::PathId;
use crate::fabric::emulated::{Emulated, Health, Point};
use crate::fabric::graph::{Alua, Graph, Preset};
use crate::fabric::transport::Transport;

const UNIT: DeviceId = DeviceId(0);

struct Lab {
    multipath: Multipath<Emulated<MemBank>>,
    now: Instant,
    ids: u64,
}

impl Lab {
    fn new(settings: &Settings) -> Lab {
        Lab::of(Preset::San.graph(), settings)
    }

    fn of(graph: Graph, settings: &Settings) -> Lab {
        let mut bank = MemBank::new();
        bank.add(Limits::of_disk(Sectors(2048)));
        let fabric = Emulated::new(bank, graph, Transport::FC, 1);
        Lab { multipath: Multipath::new(fabric, *settings), now: Instant::START, ids: 0 }
    }

    /// Lets time pass; what came back by then.
    fn pass(&mut self, time: Duration) -> Vec<Completion> {
        let until = self.now + time;
        let mut done = Vec::new();
        while let Some(due) = self.multipath.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.multipath.poll(self.now, &mut done);
        }
        self.now = until;
        done.into_iter().map(|(_, completion)| completion).collect()
    }

    fn submit(&mut self, op: Op) {
        self.ids += 1;
        let request = Request::new(RequestId(self.ids), Extent::new(Lba(0), Sectors(8)), op);
        self.multipath.submit(UNIT, request, self.now);
    }

    fn read(&mut self) -> Result<(), IoError> {
        self.submit(Op::Read(Buf::stale(4096)));
        let done = self.pass(Duration::from_secs(1));
        done.first().map_or(Err(IoError::Timeout), |completion| completion.result)
    }

    fn set(&mut self, component: &str, health: Health) {
        let fabric = self.multipath.fabric_mut();
        let id = fabric.graph().find(component).expect("it is there");
        fabric.set_health(id, health, self.now);
    }

    fn current_prio(&self) -> i32 {
        let map = &self.multipath.maps()[0];
        map.groups()[map.current().expect("something was sent")].prio
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn paths_are_grouped_by_what_is_asked_for() {
    let sizes = |grouping| {
        let lab = Lab::new(&Settings { grouping, ..Settings::default() });
        lab.multipath.maps()[0].groups().iter().map(|group| group.paths.len()).collect::<Vec<usize>>()
    };
    assert_eq!(sizes(Grouping::Failover), [1; 8]);
    assert_eq!(sizes(Grouping::Multibus), [8]);
    assert_eq!(sizes(Grouping::GroupBySerial), [8]);
    for by_controller in [Grouping::GroupByPrio, Grouping::GroupByNodeName, Grouping::GroupByTpg] {
        assert_eq!(sizes(by_controller), [4, 4]);
    }
}

#[test]
fn a_path_is_failed_and_reinstated_by_whoever_says_so() {
    let mut lab = Lab::new(&Settings { grouping: Grouping::Failover, ..Settings::default() });
    assert_eq!(lab.read(), Ok(()));
    lab.multipath.fail_path(PathId(0), lab.now);
    assert!(!lab.multipath.maps()[0].paths()[0].active);
    assert_eq!(lab.read(), Ok(()));
    assert_eq!(lab.multipath.fabric().sent(PathId(0)), 1, "it went down another path");
    lab.multipath.reinstate_path(PathId(0), lab.now);
    assert!(lab.multipath.maps()[0].paths()[0].active);
    // What was failed by hand is found well by its checker.
    lab.multipath.fail_path(PathId(3), lab.now);
    lab.pass(seconds(30));
    let path = &lab.multipath.maps()[0].paths()[3];
    assert!(path.active && path.state == PathState::Up && path.failures_total == 1);
}

/// The owner's controller goes and comes back as the one that is not the owner: then nobody goes back. What comes back here are
/// cables, so that the better group is the better one again.
#[test]
fn the_way_back_is_taken_when_the_policy_says_so() {
    let after = |failback| {
        let mut lab = Lab::new(&Settings { failback, ..Settings::default() });
        lab.read().unwrap();
        assert_eq!(lab.current_prio(), 50);
        for port in ["ctrl0.p0", "ctrl0.p1"] {
            lab.set(port, Health::Down);
        }
        lab.submit(Op::Read(Buf::stale(4096)));
        lab.pass(seconds(8));
        lab.read().unwrap();
        assert_eq!(lab.current_prio(), 10, "{failback:?}");
        for port in ["ctrl0.p0", "ctrl0.p1"] {
            lab.set(port, Health::Up);
        }
        let back = (1..60).find(|_| {
            lab.pass(seconds(1));
            lab.current_prio() == 50
        });
        back.map(|second| (second, lab))
    };
    assert!(after(Failback::Manual).is_none());
    let (immediate, _) = after(Failback::Immediate).expect("it goes back");
    assert!(immediate <= 6, "{immediate} s: a polling interval and a tick");
    let (late, mut lab) = after(Failback::After(10)).expect("it goes back");
    assert!((immediate + 10..=immediate + 13).contains(&late), "{immediate} s and 10, not {late}");
    let other = lab.multipath.maps()[0].groups().iter().position(|group| group.prio == 10).unwrap();
    lab.multipath.switch_group(UNIT, other, lab.now);
    assert_eq!(lab.current_prio(), 10);
    assert!(after(Failback::Followover).is_some());
}

#[test]
fn without_a_path_requests_wait_or_fail_as_they_are_told() {
    let mut lab = Lab::new(&Settings { no_path_retry: NoPathRetry::Queue, ..Settings::default() });
    let down = |lab: &mut Lab, health| ["cable0", "cable1"].into_iter().for_each(|cable| lab.set(cable, health));
    lab.read().unwrap();
    down(&mut lab, Health::Down);
    lab.submit(Op::Read(Buf::stale(4096)));
    assert!(lab.pass(seconds(300)).is_empty());
    assert_eq!(lab.multipath.maps()[0].queued(), 1);
    lab.multipath.set_queueing(UNIT, false, lab.now);
    let failed = lab.pass(seconds(1));
    assert_eq!(failed[0].result, Err(IoError::Transport));
    assert_eq!(lab.read(), Err(IoError::Transport));
    lab.multipath.set_queueing(UNIT, true, lab.now);
    lab.submit(Op::Read(Buf::stale(4096)));
    assert!(lab.pass(seconds(10)).is_empty());
    down(&mut lab, Health::Up);
    let served = lab.pass(seconds(10));
    assert!(served.iter().all(|completion| completion.result.is_ok()) && served.len() == 1);
    assert!(lab.multipath.drain_changes().iter().any(|(_, _, change)| *change == Change::Resumed(1)));
}

/// Controllers that answer, and bring no command to the unit: only a checker that reads sees it.
#[test]
fn a_checker_that_reads_sees_what_one_that_asks_does_not() {
    for (checker, found) in [(Checker::Tur, PathState::Up), (Checker::DirectIo, PathState::Down)] {
        let mut lab = Lab::of(Preset::SasDual.graph(), &Settings { checker, ..Settings::default() });
        ["cable0", "cable1"].into_iter().for_each(|cable| lab.set(cable, Health::FailsIo));
        lab.pass(seconds(3));
        let states: Vec<PathState> = lab.multipath.maps()[0].paths().iter().map(|path| path.state).collect();
        assert_eq!(states, [found; 2]);
    }
}

/// The form is `multipath -ll`'s, which others parse.
#[test]
fn a_map_is_shown_as_multipath_shows_it() {
    let mut lab = Lab::new(&Settings::default());
    lab.read().unwrap();
    lab.pass(seconds(2));
    lab.multipath.fail_path(PathId(1), lab.now);
    let shown = topology::show(&lab.multipath, &lab.multipath.maps()[0], "mpatha", "3600", 0);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "mpatha (3600) dm-0 RAIDLAB,VOLUME");
    assert_eq!(lines[1], "size=1.0M features='1 queue_if_no_path' hwhandler='1 alua' wp=rw fencing=epoch");
    assert_eq!(lines[2], "|-+- policy='service-time 0' prio=50 status=active");
    assert_eq!(lines[3], "| |- 0:0:0:0 sda 8:0 active ready running");
    assert_eq!(lines[4], "| |- 0:0:1:0 sdb 8:16 failed ready running");
    assert_eq!(lines[6], "| `- 1:0:1:0 sdf 8:80 active ready running");
    assert_eq!(lines[7], "`-+- policy='service-time 0' prio=10 status=enabled");
    assert_eq!(lines[11], "  `- 1:0:3:0 sdh 8:112 active ready running");
}

/// Both ports of the owner are cut off, and the owner is well: nobody takes over unless a host asks for it.
fn cut_off_from_the_owner(alua: Alua) -> (Lab, Vec<Completion>) {
    let mut graph = Preset::ActivePassive.graph();
    graph.set_alua(alua);
    let mut lab = Lab::of(graph, &Settings { no_path_retry: NoPathRetry::Checks(4), ..Settings::default() });
    assert_eq!(lab.read(), Ok(()));
    assert_eq!(lab.current_prio(), 50);
    lab.pass(seconds(10));
    for port in ["ctrl0.p0", "ctrl0.p1"] {
        lab.set(port, Health::Down);
    }
    lab.submit(Op::Read(Buf::stale(4096)));
    let done = lab.pass(seconds(40));
    (lab, done)
}

#[test]
fn a_map_asks_a_standby_controller_to_take_over() {
    let alua = Preset::ActivePassive.graph().alua();
    let (mut lab, done) = cut_off_from_the_owner(alua);
    assert!(done.len() == 1 && done[0].result.is_ok(), "{done:?}");
    assert_eq!(lab.current_prio(), 50, "what was standby is optimized now");
    // The old owner's ports come back as standby ones, and there is nothing to go back to.
    for port in ["ctrl0.p0", "ctrl0.p1"] {
        lab.set(port, Health::Up);
    }
    lab.pass(seconds(30));
    let states: Vec<PathState> = lab.multipath.maps()[0].paths().iter().map(|path| path.state).collect();
    let (up, ghost) = (PathState::Up, PathState::Ghost);
    assert_eq!(states, [ghost, ghost, up, up, ghost, ghost, up, up]);
    assert_eq!(lab.read(), Ok(()));
}

#[test]
fn without_explicit_failover_a_standby_controller_refuses_reads_and_writes() {
    let alua = Alua { explicit: false, ..Preset::ActivePassive.graph().alua() };
    let (mut lab, mut done) = cut_off_from_the_owner(alua);
    // Its checks find a ghost path, which is taken again, and serves nothing: `no_path_retry` does not begin anew for it.
    done.extend(lab.pass(seconds(100)));
    assert_eq!(done[0].result, Err(IoError::Transport));
    for port in ["ctrl0.p0", "ctrl0.p1"] {
        lab.set(port, Health::Up);
    }
    lab.pass(seconds(200));
    assert_eq!(lab.read(), Ok(()));
}

#[test]
fn a_transition_that_takes_too_long_fails_the_path() {
    let alua = Alua { transition: seconds(3000), ..Preset::ActivePassive.graph().alua() };
    let (mut lab, done) = cut_off_from_the_owner(alua);
    assert!(done.is_empty());
    // Each of four paths is given a minute; then requests wait for a path for a while.
    let done = lab.pass(seconds(4 * 60 + 30));
    assert_eq!(done[0].result, Err(IoError::Transport));
}

#[test]
fn paths_that_cannot_promise_what_is_asked_are_refused() {
    use crate::fabric::Fencing;
    let graph = Preset::San.graph().with_fencing(Fencing::Session);
    let why = RetrySafety::Epoch.check(graph.paths()).unwrap_err().to_string();
    assert!(why.contains("retry_safety epoch needs paths whose target promises epoch"), "{why}");
}

/// The path that is lost still answers for itself: its target aborts, and nothing else is disturbed.
#[test]
fn a_write_is_aborted_on_its_own_path_or_by_a_reset_of_the_unit() {
    let settings = Settings { retry_safety: RetrySafety::Abort, ..Settings::default() };
    for (health, steps) in [
        (Health::FailsIo, &[Change::Aborting(PathId(0)), Change::Aborted(PathId(0))][..]),
        (Health::Down, &[Change::Resetting, Change::Reset][..]),
    ] {
        let mut lab = Lab::of(Preset::San.graph(), &settings);
        lab.set("ctrl0.p0", health);
        lab.submit(Op::Write(Payload::copy_of(&[7; 4096]), Durability::Volatile));
        let done = lab.pass(seconds(10));
        assert!(done.len() == 1 && done[0].result.is_ok(), "{health:?}");
        let changes: Vec<Change> = lab.multipath.drain_changes().into_iter().map(|(_, _, change)| change).collect();
        assert!(steps.iter().all(|step| changes.contains(step)), "{health:?}: {changes:?}");
    }
}

/// A write is done and its answer lost. Another over the same sectors is sent meanwhile; then the first is sent again.
#[test]
fn a_write_that_is_sent_again_is_not_done_over_a_newer_one() {
    let settings = Settings { polling_interval: Duration::from_secs(1), ..Settings::default() };
    let transport = Transport { cmd_timeout: Duration::from_secs(1), max_retries: 0, ..Transport::FC };
    let mut bank = MemBank::new();
    bank.add(Limits::of_disk(Sectors(2048)));
    let fabric = Emulated::new(bank, Preset::San.graph(), transport, 1);
    let mut lab = Lab { multipath: Multipath::new(fabric, settings), now: Instant::START, ids: 0 };
    let write = |byte: u8| Op::Write(Payload::copy_of(&[byte; 4096]), Durability::Volatile);
    for hba in ["hba0", "hba1"] {
        lab.set(hba, Health::Losing { frames: 1, at: Point::Answering });
    }
    lab.submit(write(1));
    lab.pass(Duration::from_millis(500));
    for hba in ["hba0", "hba1"] {
        lab.set(hba, Health::Up);
    }
    lab.submit(write(2));
    let done = lab.pass(Duration::from_secs(10));
    assert_eq!(done.iter().map(|completion| completion.id.0).collect::<Vec<_>>(), [1, 2]);
    assert!(done.iter().all(|completion| completion.result.is_ok()));
    assert_eq!(lab.multipath.fabric().bank().bytes(UNIT)[0], 2);
}

/// An outage, then service again; after a while another one. The wait of the first is over, that of the second begins anew.
#[test]
fn how_long_requests_wait_does_not_depend_on_an_earlier_outage() {
    let second = Duration::from_secs(1);
    let settings = Settings {
        no_path_retry: NoPathRetry::Checks(5),
        polling_interval: second,
        max_polling_interval: second,
        ..Settings::default()
    };
    let transport = Transport { cmd_timeout: second, max_retries: 0, fast_io_fail_tmo: Some(second), ..Transport::FC };
    let mut bank = MemBank::new();
    bank.add(Limits::of_disk(Sectors(2048)));
    let fabric = Emulated::new(bank, Preset::San.graph(), transport, 1);
    let mut lab = Lab { multipath: Multipath::new(fabric, settings), now: Instant::START, ids: 0 };
    let set_both = |lab: &mut Lab, health: Health| ["hba0", "hba1"].map(|hba| lab.set(hba, health));
    set_both(&mut lab, Health::Down);
    lab.pass(3 * second);
    set_both(&mut lab, Health::Up);
    lab.pass(5 * second);
    assert_eq!(lab.read(), Ok(()));
    lab.pass(5 * second);
    lab.set("hba0", Health::FailsIo);
    lab.set("hba1", Health::Down);
    lab.submit(Op::Read(Buf::stale(4096)));
    assert!(lab.pass(5 * second).is_empty(), "it waits as long as was set");
    assert_eq!(lab.pass(10 * second)[0].result, Err(IoError::Transport));
}

/// Checks are answered, later than anybody waits for them: paths come back once a second, and serve nothing.
#[test]
fn requests_do_not_wait_longer_for_paths_that_come_back_and_serve_nothing() {
    let second = Duration::from_secs(1);
    let settings = Settings {
        no_path_retry: NoPathRetry::Checks(5),
        checker: Checker::DirectIo,
        checker_timeout: second,
        polling_interval: second,
        max_polling_interval: second,
        ..Settings::default()
    };
    let transport = Transport { cmd_timeout: second, max_retries: 0, ..Transport::FC };
    let mut bank = MemBank::new();
    bank.add(Limits::of_disk(Sectors(2048)));
    let fabric = Emulated::new(bank, Preset::SasDual.graph(), transport, 1);
    let mut lab = Lab { multipath: Multipath::new(fabric, settings), now: Instant::START, ids: 0 };
    for hba in ["hba0", "hba1"] {
        lab.set(hba, Health::Slow(40_000));
    }
    lab.submit(Op::Read(Buf::stale(4096)));
    let done = lab.pass(20 * second);
    assert_eq!(done.first().map(|completion| completion.result), Some(Err(IoError::Transport)));
}
