//! What selectors make of paths that differ: a closed loop of 32 reads over four paths, or eight, of 100 µs ± 20 % and 1 GB/s.
//!
//! The figures beside which these are held come from a model that knows nothing of this layer: one list of paths, one formula a
//! selector. Here the same requests go through the map, the initiator's half, the wire and the target's half.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::rng::Rng;
use crate::block::*;
use crate::disk::MemBank;
use crate::fabric::PathId;
use crate::fabric::emulated::{Emulated, Health, Wire};
use crate::fabric::graph::{Graph, Kind};
use crate::fabric::transport::Transport;
use crate::multipath::Multipath;
use crate::multipath::settings::{Grouping, Prio, SelectorKind, Settings};

const UNIT: DeviceId = DeviceId(0);
const DEPTH: usize = 32;

/// What is measured once the loop has settled.
struct Figures {
    /// Requests a second.
    rate: f64,
    /// Bytes a second.
    throughput: f64,
    /// 99 of 100 took no longer than this, in milliseconds.
    p99: f64,
    /// The part of the requests that each path took.
    shares: Vec<f64>,
    /// Requests that are still under way on path 0.
    stuck: u64,
}

/// Paths that share nothing but the controller.
fn separate(paths: usize) -> Graph {
    let mut graph = Graph::new();
    let controller = graph.add(Kind::Controller, "ctrl0");
    for path in 0..paths {
        let cable = graph.add(Kind::Cable, format!("cable{path}"));
        graph.add_path(path, 0, vec![cable, controller]);
    }
    graph
}

/// A closed loop over all paths of a fabric in one group.
struct Loop {
    multipath: Multipath<Emulated<MemBank>>,
    rng: Rng,
    /// Sizes of requests, in sectors.
    sizes: &'static [u64],
    now: Instant,
    begun: BTreeMap<u64, (Instant, u64)>,
    ids: u64,
    took: Vec<Duration>,
    bytes: u64,
}

impl Loop {
    fn new(paths: usize, selector: SelectorKind, sizes: &'static [u64], seed: u64) -> Loop {
        Loop::over(separate(paths), selector, sizes, seed)
    }

    fn over(graph: Graph, selector: SelectorKind, sizes: &'static [u64], seed: u64) -> Loop {
        let mut bank = MemBank::new();
        bank.add(Limits::of_disk(Sectors(2048)));
        let fabric = Emulated::new(bank, graph, Transport::FC, seed);
        let settings = Settings { selector, grouping: Grouping::Multibus, prio: Prio::Const, ..Settings::default() };
        Loop {
            multipath: Multipath::new(fabric, settings),
            rng: Rng::new(seed, 3),
            sizes,
            now: Instant::START,
            begun: BTreeMap::new(),
            ids: 0,
            took: Vec::new(),
            bytes: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut done = Vec::new();
        loop {
            while self.begun.len() < DEPTH {
                self.ids += 1;
                let sectors = self.sizes[self.rng.below(self.sizes.len() as u64) as usize];
                let extent = Extent::new(Lba(0), Sectors(sectors));
                let op = Op::Read(Buf::stale(extent.length.bytes() as usize));
                self.begun.insert(self.ids, (self.now, extent.length.bytes()));
                self.multipath.submit(UNIT, Request::new(RequestId(self.ids), extent, op), self.now);
            }
            let due = self.multipath.next_deadline().expect("a map has its tick");
            if due > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(due);
            self.multipath.poll(self.now, &mut done);
            for (_, completion) in done.drain(..) {
                let (begun, bytes) = self.begun.remove(&completion.id.0).expect("it was sent, once");
                self.took.push(self.now.since(begun));
                self.bytes += bytes;
            }
        }
    }

    fn sent(&self) -> Vec<u64> {
        let fabric = self.multipath.fabric();
        (0..self.multipath.maps()[0].paths().len()).map(|path| fabric.sent(PathId(path as u16))).collect()
    }

    /// Runs for a while, then for so long with the stopwatch.
    fn measure(&mut self, time: Duration) -> Figures {
        self.run(Duration::from_millis(50));
        let before = self.sent();
        (self.took, self.bytes) = (Vec::new(), 0);
        self.run(time);
        self.took.sort_unstable();
        let sent: Vec<f64> = self.sent().iter().zip(before).map(|(after, before)| (after - before) as f64).collect();
        let all: f64 = sent.iter().sum();
        let p99 = self.took.get(self.took.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        Figures {
            rate: self.took.len() as f64 / time.as_secs_f64(),
            throughput: self.bytes as f64 / time.as_secs_f64(),
            p99,
            shares: sent.iter().map(|sent| sent / all.max(1.0)).collect(),
            stuck: self.multipath.maps()[0].paths()[0].load.requests,
        }
    }
}

/// Round-robin, queue-length, service-time, historical-service-time; path 0 is what `wire` says.
fn measured(wire: Wire, sizes: &'static [u64], time: Duration) -> [Figures; 4] {
    let [turns, queue, bytes, history, _] = SelectorKind::ALL;
    [turns, queue, bytes, history].map(|selector| {
        let mut graph = separate(4);
        graph.set_wire(PathId(0), wire);
        let mut client = Loop::over(graph, selector, sizes, 1);
        client.measure(time)
    })
}

#[track_caller]
fn near(what: &str, found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() <= 0.1, "{what}: {found:.4}, not {expected} within 10 %");
}

const K4: &[u64] = &[8];
const K64: &[u64] = &[128];
const MIXED: &[u64] = &[8, 128, 1024];

#[test]
fn a_path_of_ten_times_the_latency_takes_a_quarter_in_turn_and_next_to_nothing_by_history() {
    let wire = Wire { latency: Duration::from_millis(1), ..Wire::default() };
    let [turns, queue, bytes, history] = measured(wire, K4, Duration::from_millis(200));
    near("round-robin", turns.rate, 97e3);
    near("round-robin's share", turns.shares[0], 0.25);
    for (name, least) in [("queue-length", &queue), ("service-time", &bytes)] {
        near(name, least.rate, 237e3);
        near(&format!("{name}'s share"), least.shares[0], 0.034);
    }
    near("historical-service-time", history.rate, 290e3);
    assert!(history.shares[0] < 0.002, "{}", history.shares[0]);
}

#[test]
fn a_path_of_a_tenth_of_the_bandwidth_holds_all_back_in_turn() {
    let wire = Wire { bandwidth: 100_000_000, ..Wire::default() };
    let [turns, queue, bytes, history] = measured(wire, K64, Duration::from_millis(500));
    near("round-robin", turns.throughput, 412e6);
    near("round-robin's p99", turns.p99, 20.5);
    for (name, least) in [("queue-length", &queue), ("service-time", &bytes)] {
        near(name, least.throughput, 3099e6);
        near(&format!("{name}'s p99"), least.p99, 5.3);
    }
    near("historical-service-time", history.throughput, 3024e6);
    near("historical-service-time's p99", history.p99, 0.8);
}

#[test]
fn of_mixed_sizes_service_time_has_the_shortest_tail() {
    let [turns, queue, bytes, history] = measured(Wire::default(), MIXED, Duration::from_secs(2));
    near("round-robin's p99", turns.p99, 5.3);
    near("queue-length's p99", queue.p99, 3.2);
    near("service-time's p99", bytes.p99, 2.7);
    near("historical-service-time's p99", history.p99, 3.4);
}

#[test]
fn equal_paths_are_used_evenly_but_by_history() {
    let [turns, queue, bytes, history] = measured(Wire::default(), K4, Duration::from_millis(200));
    near("round-robin", turns.rate, 307e3);
    turns.shares.iter().for_each(|share| near("round-robin's shares", *share, 0.25));
    near("queue-length", queue.rate, 305e3);
    near("service-time", bytes.rate, 305e3);
    near("historical-service-time", history.rate, 293e3);
    let most = history.shares.iter().copied().fold(0.0, f64::max);
    near("the busiest by history", most, 0.46);
}

/// The one that decides what a silent failure costs: in turn all 32 end up on the silent path, within milliseconds.
#[test]
fn one_silent_path_of_eight_stops_everything_in_turn_and_an_eighth_by_load() {
    let [turns, queue, bytes, history, _] = SelectorKind::ALL;
    for selector in [turns, queue, bytes, history] {
        let mut client = Loop::new(8, selector, K4, 1);
        let well = client.measure(Duration::from_millis(50)).rate;
        let fabric = client.multipath.fabric_mut();
        let cable = fabric.graph().find("cable0").expect("every path has one");
        fabric.set_health(cable, Health::BlackHole { tx: true, rx: true }, client.now);
        client.run(Duration::from_millis(3));
        let after = client.measure(Duration::from_millis(50));
        if selector == turns {
            assert_eq!((after.rate, after.stuck), (0.0, 32));
        } else {
            near(selector.name(), after.rate / well, 0.88);
            assert_eq!(after.stuck, 4, "{selector}");
        }
    }
}
