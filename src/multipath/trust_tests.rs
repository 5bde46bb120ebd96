//! Which paths a map trusts, what it does while it waits, and what it never does.

use std::time::Duration;

use super::map::{Change, PathState, Why};
use super::scripted::{Scripted, Way};
use super::settings::*;
use super::{Multipath, json};
use crate::block::*;
use crate::fabric::{Access, Link, PathId, Verdict};

const UNIT: DeviceId = DeviceId(0);

struct Lab {
    multipath: Multipath<Scripted>,
    now: Instant,
    ids: u64,
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Lab {
    /// All paths in one group, in turn.
    fn new(paths: usize, settings: &Settings) -> Lab {
        Lab { multipath: Multipath::new(Scripted::new(paths), *settings), now: Instant::START, ids: 0 }
    }

    fn fabric(&mut self) -> &mut Scripted {
        self.multipath.fabric_mut()
    }

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
        let length = if matches!(op, Op::Flush) { Sectors::ZERO } else { Sectors(8) };
        // Elsewhere than the one before: a write waits for others over its sectors.
        let extent = Extent::new(Lba(self.ids % 128 * 8), length);
        let request = Request { id: RequestId(self.ids), extent, op };
        self.multipath.submit(UNIT, request, self.now);
    }

    fn read(&mut self) {
        self.submit(Op::Read(Buf::stale(4096)));
    }

    fn write(&mut self) {
        self.submit(Op::Write(Payload::zeroes(4096), Durability::Volatile));
    }

    fn state(&self, path: usize) -> (bool, PathState) {
        let path = &self.multipath.maps()[0].paths()[path];
        (path.active, path.state)
    }

    fn failures(&self, path: usize) -> u64 {
        self.multipath.maps()[0].paths()[path].failures_total
    }

    fn sent_to(&self, path: u16) -> usize {
        self.multipath.fabric().sent.iter().filter(|(of, ..)| of.0 == path).count()
    }

    fn changes(&mut self) -> Vec<Change> {
        self.multipath.drain_changes().into_iter().map(|(_, _, change)| change).collect()
    }
}

fn in_turn() -> Settings {
    Settings {
        grouping: Grouping::Multibus,
        selector: SelectorKind::RoundRobin,
        prio: Prio::Const,
        retry_safety: RetrySafety::None,
        ..Settings::default()
    }
}

fn monitors(link: bool, probe: bool, traffic: bool) -> Monitors {
    Monitors { link, probe, traffic }
}

/// O6: what the unit itself says is the same on all paths.
#[test]
fn an_error_of_the_target_never_blames_a_path() {
    use IoError::*;
    for error in [Medium, Transport, Timeout, Offline, Fenced, NoSpace, ReadOnly, Unsupported, OutOfRange] {
        let mut lab = Lab::new(2, &in_turn());
        lab.fabric().ways = vec![Way::Refuse(error); 2];
        lab.read();
        lab.write();
        let done = lab.pass(s(100));
        assert!(done.len() == 2 && done.iter().all(|completion| completion.result == Err(error)), "{error}");
        assert_eq!(lab.sent_to(0) + lab.sent_to(1), 2, "{error}: nothing is tried again");
        assert!((0..2).all(|path| lab.state(path) == (true, PathState::Up)), "{error}");
    }
}

#[test]
fn a_late_read_goes_down_a_second_path_and_the_first_answer_counts() {
    let mut lab = Lab::new(3, &Settings { read_hedge_after: Some(ms(50)), ..in_turn() });
    lab.pass(ms(100));
    lab.fabric().ways[0] = Way::Silent;
    lab.read();
    assert!(lab.pass(ms(49)).is_empty());
    let done = lab.pass(ms(2));
    let [Completion { op: Op::Read(buf), result: Ok(()), .. }] = &done[..] else { panic!("{done:?}") };
    assert!(buf.to_vec().iter().all(|byte| *byte == 1), "of the second path");
    assert_eq!(lab.multipath.maps()[0].paths()[0].load.requests, 1, "the first is still out");
    let now = lab.now;
    lab.fabric().give_back(PathId(0), Ok(()), now);
    assert!(lab.pass(ms(200)).is_empty(), "one answer to one request");
    assert!(lab.multipath.maps()[0].paths().iter().all(|path| path.load.requests == 0));
    // The first may be the first after all, and one that fails leaves it to the other.
    for (result, value) in [(Ok(()), 0), (Err(IoError::Transport), 2)] {
        let mut lab = Lab::new(3, &Settings { read_hedge_after: Some(ms(50)), ..in_turn() });
        lab.fabric().ways = vec![Way::Silent, Way::Silent, Way::Serve(ms(1))];
        lab.read();
        assert!(lab.pass(ms(60)).is_empty());
        assert_eq!((lab.sent_to(0), lab.sent_to(1)), (1, 1));
        let now = lab.now;
        lab.fabric().give_back(PathId(0), result, now);
        if result.is_err() {
            assert!(lab.pass(ms(10)).is_empty(), "the other may still answer");
            let now = lab.now;
            lab.fabric().give_back(PathId(1), result, now);
        }
        let done = lab.pass(ms(10));
        assert_eq!(done.len(), 1);
        assert!(done[0].result.is_ok());
        if value == 2 {
            let Op::Read(buf) = &done[0].op else { panic!("a read comes back as a read") };
            assert!(buf.to_vec().iter().all(|byte| *byte == value));
        }
    }
}

#[test]
fn a_write_is_never_sent_twice_because_it_is_late() {
    let mut lab = Lab::new(2, &Settings { read_hedge_after: Some(ms(50)), ..in_turn() });
    lab.fabric().ways = vec![Way::Silent; 2];
    lab.write();
    lab.submit(Op::WriteZeroes(Durability::Volatile));
    lab.submit(Op::Discard);
    lab.submit(Op::Flush);
    lab.pass(s(100));
    assert_eq!(lab.multipath.fabric().sent.len(), 4);
}

/// H4: a path is taken again while its fence is under way, and a second write comes back from it: that one needs another fence.
#[test]
fn a_fence_says_nothing_of_a_write_that_came_back_after_it_was_asked_for() {
    let settings = Settings { grouping: Grouping::Failover, retry_safety: RetrySafety::Fence, ..in_turn() };
    let mut lab = Lab::new(2, &settings);
    lab.fabric().ways[0] = Way::Silent;
    let lose = |lab: &mut Lab| {
        lab.write();
        let now = lab.now;
        lab.fabric().give_back(PathId(0), Err(IoError::Timeout), now);
        lab.pass(Duration::from_micros(60));
    };
    lose(&mut lab);
    lab.multipath.reinstate_path(PathId(0), lab.now);
    lab.multipath.switch_group(UNIT, 0, lab.now);
    lose(&mut lab);
    assert_eq!((lab.sent_to(0), lab.sent_to(1)), (2, 1), "the first is fenced, and sent again");
    lab.pass(ms(1));
    assert_eq!((lab.sent_to(0), lab.sent_to(1)), (2, 2));
}

/// What was asked before the only path failed is answered after it. That is no service: what waits then is given up in time.
#[test]
fn an_answer_to_what_was_asked_before_does_not_let_requests_wait_for_ever() {
    let settings = Settings { no_path_retry: NoPathRetry::Checks(1), polling_interval: s(1), ..in_turn() };
    let mut lab = Lab::new(1, &settings);
    lab.fabric().verdicts[0] = Some(Verdict::Down);
    lab.fabric().ways[0] = Way::Silent;
    lab.read();
    lab.fabric().ways[0] = Way::Fail(IoError::Transport);
    lab.read();
    lab.pass(ms(1));
    assert!(!lab.state(0).0, "the second one came back");
    let now = lab.now;
    lab.fabric().give_back(PathId(0), Ok(()), now);
    let done = lab.pass(s(4));
    assert_eq!(done.iter().map(|completion| completion.result).collect::<Vec<_>>(), [Ok(()), Err(IoError::Transport)]);
}

/// H5: probes are answered, requests are not. Multipathd would take such a path again at every check, 720 times an hour.
#[test]
fn a_checker_that_lies_does_not_make_a_path_go_up_and_down_for_ever() {
    let mut lab = Lab::new(2, &in_turn());
    lab.fabric().ways[0] = Way::Fail(IoError::Transport);
    for _ in 0..3600 {
        lab.read();
        let done = lab.pass(s(1));
        assert!(done.iter().all(|completion| completion.result.is_ok()));
    }
    let hour = lab.failures(0);
    assert!((6..=18).contains(&hour), "{hour} failures in an hour");
    // Well at last, it is found so within the longest time, and then it is trusted again.
    lab.fabric().ways[0] = Way::Serve(ms(1));
    for _ in 0..330 {
        lab.read();
        lab.pass(s(1));
    }
    assert_eq!((lab.failures(0), lab.state(0)), (hour, (true, PathState::Up)));
    lab.fabric().ways[0] = Way::Fail(IoError::Transport);
    lab.read();
    lab.read();
    lab.pass(s(1));
    lab.fabric().ways[0] = Way::Serve(ms(1));
    lab.pass(s(6));
    assert_eq!(lab.state(0), (true, PathState::Up), "a failure after good service is forgiven at once");
}

/// H5, second half: a good check of a path that serves nothing is no reason to begin to count anew.
#[test]
fn no_path_retry_expires_although_a_checker_says_that_all_is_well() {
    let mut lab = Lab::new(1, &Settings { no_path_retry: NoPathRetry::Checks(6), ..in_turn() });
    lab.fabric().ways[0] = Way::Fail(IoError::Transport);
    lab.read();
    let done = lab.pass(s(33));
    assert_eq!(done.len(), 1, "6 x 5 s + 1 s, and a tick");
    assert_eq!(done[0].result, Err(IoError::Transport));
}

#[test]
fn queueing_for_ever_ends_with_its_timeout() {
    let timeout = Settings { queue_if_no_path_timeout: Some(s(20)), no_path_retry: NoPathRetry::Queue, ..in_turn() };
    let mut lab = Lab::new(1, &timeout);
    lab.fabric().verdicts[0] = Some(Verdict::Down);
    lab.pass(s(2));
    lab.read();
    assert!(lab.pass(s(15)).is_empty());
    assert_eq!(lab.pass(s(6)).len(), 1);
    assert_eq!(lab.multipath.maps()[0].totals().q_timeouts, 1);
    assert!((15..=21).contains(&lab.multipath.maps()[0].totals().total_q_time));
}

#[test]
fn a_link_that_says_so_fails_its_path_at_once_and_a_downdelay_lets_it_blink() {
    let mut lab = Lab::new(2, &Settings { monitors: monitors(true, false, false), ..in_turn() });
    lab.pass(s(3));
    assert_eq!(lab.multipath.fabric().probes, 0, "nobody asks");
    lab.fabric().links[0] = Link::Blocked;
    lab.pass(s(1));
    assert_eq!(lab.changes(), [Change::Failed(PathId(0), Why::Link(Link::Blocked))]);
    lab.fabric().links[0] = Link::Online;
    lab.pass(s(1));
    assert!(lab.state(0).0);

    let delays = Settings { downdelay: s(3), updelay: s(10), monitors: monitors(true, false, false), ..in_turn() };
    let mut lab = Lab::new(2, &delays);
    lab.pass(s(2));
    lab.fabric().links[0] = Link::Blocked;
    lab.pass(s(2));
    lab.fabric().links[0] = Link::Online;
    lab.pass(s(10));
    assert_eq!(lab.failures(0), 0, "it blinked");
    lab.fabric().links[0] = Link::Blocked;
    lab.pass(s(5));
    assert_eq!(lab.failures(0), 1);
    lab.fabric().links[0] = Link::Online;
    lab.pass(s(9));
    assert_eq!(lab.state(0), (false, PathState::Delayed));
    lab.pass(s(3));
    assert_eq!(lab.state(0), (true, PathState::Up));
}

#[test]
fn without_probes_a_silent_path_is_not_seen_and_with_traffic_watched_it_is() {
    for traffic in [false, true] {
        let mut lab = Lab::new(2, &Settings { monitors: monitors(!traffic, false, traffic), ..in_turn() });
        lab.pass(s(10));
        lab.fabric().verdicts[0] = None;
        lab.changes();
        lab.pass(ms(1400));
        assert!(lab.state(0).0);
        lab.pass(ms(1700));
        assert_eq!(lab.state(0).0, !traffic, "2.5 intervals");
        if traffic {
            assert!(matches!(lab.changes()[..], [Change::Failed(PathId(0), Why::Silence(_))]));
            lab.fabric().verdicts[0] = Some(Verdict::Up);
            lab.pass(s(2));
            assert_eq!(lab.state(0), (true, PathState::Up), "what is heard is back");
        }
    }
}

#[test]
fn checks_wait_for_updelay_and_downdelay_and_a_request_that_fails_does_not() {
    let delays = Settings { downdelay: s(12), updelay: s(12), ..in_turn() };
    let mut lab = Lab::new(2, &delays);
    lab.pass(s(2));
    lab.fabric().verdicts[0] = Some(Verdict::Down);
    lab.pass(s(10));
    assert_eq!(lab.state(0), (true, PathState::Down), "down, and not failed yet");
    lab.pass(s(10));
    assert_eq!(lab.state(0), (false, PathState::Down));
    lab.fabric().verdicts[0] = Some(Verdict::Up);
    lab.pass(s(11));
    assert_eq!(lab.state(0), (false, PathState::Delayed));
    lab.pass(s(12));
    assert_eq!(lab.state(0), (true, PathState::Up));
    lab.fabric().ways[0] = Way::Fail(IoError::Transport);
    lab.read();
    lab.read();
    lab.pass(ms(1));
    assert!(!lab.state(0).0);
}

#[test]
fn a_path_that_was_lost_too_often_is_delayed_unless_it_is_the_last() {
    let san_path_err = SanPathErr { threshold: 2, forget_rate: 100, recovery_time: s(60) };
    let mut lab = Lab::new(2, &Settings { san_path_err, ..in_turn() });
    for _ in 0..3 {
        lab.fabric().verdicts[0] = Some(Verdict::Down);
        lab.pass(s(25));
        lab.fabric().verdicts[0] = Some(Verdict::Up);
        lab.pass(s(7));
    }
    assert_eq!(lab.state(0), (false, PathState::Delayed));
    lab.pass(s(50));
    assert_eq!(lab.state(0), (false, PathState::Delayed));
    let mut alone = Lab { multipath: lab.multipath.clone(), ..lab };
    lab.pass(s(15));
    assert_eq!(lab.state(0), (true, PathState::Up));
    alone.multipath.fail_path(PathId(1), alone.now);
    alone.fabric().verdicts[1] = Some(Verdict::Down);
    alone.pass(s(6));
    assert_eq!(alone.state(0), (true, PathState::Up));
    assert!(lab.changes().contains(&Change::KeptOut(PathId(0), PathState::Delayed)));
}

fn fails_twice(lab: &mut Lab) {
    for _ in 0..2 {
        lab.fabric().verdicts[0] = Some(Verdict::Down);
        lab.pass(s(25));
        lab.fabric().verdicts[0] = Some(Verdict::Up);
        lab.pass(s(7));
    }
}

fn suspicious() -> Settings {
    let marginal_path = MarginalPath {
        double_failed_time: s(60),
        err_sample_time: s(120),
        err_rate_threshold: 10,
        err_recheck_gap_time: s(300),
    };
    Settings { marginal_path, ..in_turn() }
}

#[test]
fn a_path_that_fails_twice_is_read_from_before_it_is_taken_again() {
    for (way, recovers) in [(Way::Serve(ms(1)), true), (Way::Fail(IoError::Transport), false), (Way::Silent, false)] {
        let mut lab = Lab::new(2, &suspicious());
        fails_twice(&mut lab);
        assert_eq!(lab.state(0), (false, PathState::Shaky));
        lab.fabric().ways[0] = way;
        lab.pass(s(115));
        assert_eq!(lab.state(0), (false, PathState::Shaky));
        let reads = lab.sent_to(0);
        assert!(if way == Way::Silent { reads >= 32 } else { reads > 32 * 1000 }, "{reads}");
        lab.pass(s(15));
        assert_eq!(lab.state(0).0, recovers, "{way:?}");
        lab.fabric().ways[0] = Way::Serve(ms(1));
        let now = lab.now;
        lab.fabric().give_back(PathId(0), Ok(()), now);
        lab.pass(s(300 + 120 + 10));
        assert_eq!(lab.state(0), (true, PathState::Up), "{way:?}: tried again after the gap");
        assert!(lab.pass(s(5)).is_empty(), "no client has asked");
    }
}

#[test]
fn a_marginal_path_is_used_last_where_groups_are_made_for_it() {
    let mut lab = Lab::new(2, &Settings { marginal_pathgroups: true, ..suspicious() });
    fails_twice(&mut lab);
    lab.fabric().ways[0] = Way::Fail(IoError::Transport);
    let groups = |lab: &Lab| -> Vec<(Vec<usize>, bool)> {
        lab.multipath.maps()[0].groups().iter().map(|group| (group.paths.clone(), group.marginal)).collect()
    };
    assert_eq!(groups(&lab), [(vec![1], false), (vec![0], true)]);
    assert_eq!(lab.state(0), (true, PathState::Up));
    lab.pass(s(130));
    lab.fabric().ways[0] = Way::Serve(ms(1));
    let before = lab.sent_to(0);
    (0..10).for_each(|_| lab.read());
    assert_eq!(lab.pass(s(1)).len(), 10);
    assert_eq!(lab.sent_to(0), before, "there is a better one");
    lab.multipath.fail_path(PathId(1), lab.now);
    lab.read();
    assert_eq!(lab.pass(ms(10)).len(), 1);
    assert_eq!(lab.sent_to(0), before + 1, "there is no better one");
    lab.pass(s(500));
    assert_eq!(groups(&lab), [(vec![0, 1], false)], "reads went well");
}

#[test]
fn priorities_are_what_their_prioritizers_say() {
    let prios = |prio, grouping, accesses: [Access; 4]| {
        let mut lab = Lab::new(4, &Settings { grouping, prio, ..in_turn() });
        lab.fabric().accesses = accesses.to_vec();
        lab.fabric().ways = [100, 1000, 10_000, 100_000].map(|us| Way::Serve(Duration::from_micros(us))).to_vec();
        lab.pass(s(30));
        let map = &lab.multipath.maps()[0];
        let groups: Vec<Vec<usize>> = map.groups().iter().map(|group| group.paths.clone()).collect();
        (map.paths().iter().map(|path| path.prio).collect::<Vec<i32>>(), groups)
    };
    use Access::*;
    let mixed = [NonOptimized, Optimized, Unavailable, Standby];
    let by_prio = Grouping::GroupByPrio;
    assert_eq!(prios(Prio::Const, by_prio, mixed), (vec![1; 4], vec![vec![0, 1, 2, 3]]));
    assert_eq!(prios(Prio::Alua, by_prio, mixed).0, [10, 50, 0, 1]);
    assert_eq!(prios(Prio::Ana, by_prio, mixed), (vec![10, 50, 1, 1], vec![vec![1], vec![0], vec![2, 3]]));
    let weights = Weights::parse("hbtl [1,3]:.:.:. 30 2:.:.:. 40").unwrap();
    let weighted = prios(Prio::Weighted(weights), by_prio, mixed);
    assert_eq!(weighted, (vec![1, 30, 40, 30], vec![vec![2], vec![1, 3], vec![0]]));
    // log10(100 s) - log10(latency), latencies of 10^2 to 10^5 us: 8 - 2, 8 - 3, ...
    let latency = LatencyPrio { reads: 20, base_thousandths: 10_000 };
    let by_latency = prios(Prio::Latency(latency), Grouping::Failover, mixed);
    assert_eq!(by_latency, (vec![6, 5, 4, 3], vec![vec![0], vec![1], vec![2], vec![3]]));
    let (random, _) = prios(Prio::Random(7), Grouping::Failover, mixed);
    assert!(random.iter().all(|prio| (1..=10).contains(prio)));
    assert_eq!(random, prios(Prio::Random(7), Grouping::Failover, mixed).0);
    assert_ne!(random, prios(Prio::Random(8), Grouping::Failover, mixed).0);
}

/// H14: what was lost with a path does not fall upon the others at once.
#[test]
fn requests_that_lost_their_path_go_on_at_the_rate_that_is_set() {
    for (requeue_rate, took) in [(0, ms(1)), (1000, ms(100))] {
        let mut lab = Lab::new(2, &Settings { requeue_rate, grouping: Grouping::Failover, ..in_turn() });
        lab.fabric().ways[0] = Way::Silent;
        (0..100).for_each(|_| lab.read());
        lab.pass(ms(10));
        let now = lab.now;
        lab.fabric().give_back(PathId(0), Err(IoError::Transport), now);
        let done = lab.pass(took);
        let last = lab.multipath.fabric().sent.last().unwrap().2.since(now);
        assert_eq!(done.len() + lab.pass(ms(1)).len(), 100);
        assert!(last <= took && last + ms(15) >= took, "{requeue_rate}: {last:?}");
    }
}

/// H10: paths that do not promise to see each other's writes are used one at a time.
#[test]
fn without_multi_conn_a_path_is_flushed_before_another_is_used() {
    let mut lab = Lab::new(2, &Settings { multi_conn: false, prio: Prio::Alua, ..in_turn() });
    lab.fabric().ways = vec![Way::Serve(ms(5)); 2];
    lab.fabric().accesses = vec![Access::NonOptimized; 2];
    lab.pass(ms(100));
    lab.fabric().sent.clear();
    (0..4).for_each(|_| lab.write());
    lab.multipath.switch_group(UNIT, 1, lab.now);
    lab.write();
    let done = lab.pass(s(1));
    assert_eq!(done.len(), 5);
    let sent: Vec<(u16, &str)> = lab.multipath.fabric().sent.iter().map(|(path, name, _)| (path.0, *name)).collect();
    let writes = [(0, "write"); 4];
    assert_eq!(sent, [&writes[..], &[(0, "flush"), (1, "write")]].concat());
    // A path that is lost cannot be flushed.
    lab.fabric().ways[1] = Way::Fail(IoError::Transport);
    lab.write();
    assert_eq!(lab.pass(s(1)).len(), 1);
    assert_eq!(lab.multipath.fabric().sent.last().map(|(path, name, _)| (path.0, *name)), Some((0, "write")));
}

/// The keys of multipathd 0.14, in libmultipath's print.c, and ours behind them.
#[test]
fn the_json_has_all_keys_of_multipathd_and_what_its_users_miss() {
    let mut lab = Lab::new(2, &in_turn());
    lab.pass(s(2));
    lab.fabric().ways[1] = Way::Silent;
    (0..4).for_each(|_| lab.read());
    lab.pass(ms(1500));
    let shown = json::show(&lab.multipath, |_| ("mpatha".into(), "3600".into()), 0, lab.now);
    assert_eq!((&shown["major_version"], &shown["minor_version"]), (&0.into(), &1.into()));
    let map = &shown["maps"][0];
    for key in
        "name uuid sysfs failback queueing paths write_prot dm_st features hwhandler action path_faults vend prod \
                rev switch_grp map_loads total_q_time q_timeouts path_groups"
            .split_whitespace()
    {
        assert!(map.get(key).is_some(), "{key}");
    }
    let group = &map["path_groups"][0];
    for key in "selector pri dm_st marginal_st group paths".split_whitespace() {
        assert!(group.get(key).is_some(), "{key}");
    }
    let path = &group["paths"][1];
    for key in
        "dev dev_t dm_st dev_st chk_st checker pri host_wwnn target_wwnn host_wwpn target_wwpn host_adapter lun_hex \
                marginal_st"
            .split_whitespace()
    {
        assert!(path.get(key).is_some(), "{key}");
    }
    assert_eq!((&path["dev"], &path["dm_st"], &path["chk_st"]), (&"sdb".into(), &"active".into(), &"ready".into()));
    assert_eq!((&path["inflight"], &path["oldest_ms"], &path["p50_us"]), (&2.into(), &1500.into(), &().into()));
    let other = &group["paths"][0];
    assert_eq!((&other["inflight"], &other["oldest_ms"], &other["served"]), (&0.into(), &().into(), &2.into()));
    assert!((90..=130).contains(&other["p50_us"].as_u64().unwrap()), "{}", other["p50_us"]);
    assert_eq!(other["flaps"], 0);
}
