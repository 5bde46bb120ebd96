//! A failover in virtual time: a client, a multipath map, a fabric that fails, and a stopwatch.
//!
//! The client writes blocks that nobody else has under way and remembers what was acknowledged, so that every read, and the whole
//! unit at the end, is known to the byte: a write that lands late over a newer one (a ghost write) is seen.

mod plan;
#[cfg(test)]
mod selector_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use crate::multipath::profile::{Profile, ProfileName};
pub use plan::{Action, Class, Client, FIRST, SCENARIOS, Scenario};

use super::rng::Rng;
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Op, Payload, Request,
    RequestId, Sectors,
};
use crate::disk::MemBank;
use crate::fabric::PathId;
use crate::fabric::emulated::{Emulated, Note};
use crate::fabric::graph::Graph;
use crate::multipath::map::Change;
use crate::multipath::{Multipath, topology};

const UNIT: DeviceId = DeviceId(0);

/// The unit's name in the world: NAA 3, locally assigned.
const WWID: &str = "33000000000000001";

/// Size of the logical unit.
const CAPACITY: Sectors = Sectors(32 << 11);

/// Something on the timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// The scenario did this.
    Action(Action),
    /// The transport of these paths did this by itself.
    Transport(Vec<PathId>, Note),
    /// The map did this.
    Map(Change),
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The fabric it went on.
    pub graph: Graph,
    /// In the order of their times.
    pub timeline: Vec<(Instant, Happening)>,
    /// The longest a request was under way, and from when.
    pub longest: Duration,
    /// When that request was sent.
    pub longest_from: Instant,
    /// Requests that came back with an error.
    pub errors: BTreeMap<IoError, u64>,
    /// Requests that came back well.
    pub served: u64,
    /// Blocks that read as something that was never, or is no longer, in them.
    pub wrong_blocks: u64,
    /// Requests that came back well in each second.
    pub per_second: Vec<u64>,
    /// Requests that each path took.
    pub per_path: Vec<u64>,
    /// How often paths were failed.
    pub failures: u64,
    /// Time each request of the run took, sorted.
    pub latencies: Vec<Duration>,
    /// The map as `multipath -ll` shows it, just before the scenario's last action.
    pub topology: String,
}

struct Pending {
    block: u64,
    begun: Instant,
    /// The version that is written; `None` for a read.
    writes: Option<u64>,
}

/// The stack of a failover, its client, and what is measured.
struct Run {
    multipath: Multipath<Emulated<MemBank>>,
    client: Client,
    rng: Rng,
    now: Instant,
    pending: BTreeMap<u64, Pending>,
    busy: BTreeSet<u64>,
    /// What each block may read as: the version acknowledged last, and those of writes that failed since.
    versions: BTreeMap<u64, Vec<u64>>,
    requests: u64,
    next_at: Instant,
    outcome: Outcome,
}

fn stamp(block: u64, version: u64, bytes: usize) -> Vec<u8> {
    let mut bytes_of = vec![0; bytes];
    if version > 0 {
        for (at, word) in bytes_of.chunks_exact_mut(16).enumerate() {
            word[..8].copy_from_slice(&version.to_le_bytes());
            word[8..].copy_from_slice(&(block << 16 | at as u64).to_le_bytes());
        }
    }
    bytes_of
}

/// Carries out a scenario. The same arguments give the same outcome.
///
/// # Panics
/// If the scenario names a component that the profile's fabric lacks.
pub fn run(profile: &Profile, graph: Graph, scenario: &Scenario, client: Client) -> Outcome {
    let mut bank = MemBank::new();
    bank.add(Limits::of_disk(CAPACITY));
    let paths = graph.paths().len();
    let fabric = Emulated::new(bank, graph.clone(), profile.transport, client.seed);
    let mut run = Run {
        multipath: Multipath::new(fabric, profile.settings),
        client,
        rng: Rng::new(client.seed, 1),
        now: Instant::START,
        pending: BTreeMap::new(),
        busy: BTreeSet::new(),
        versions: BTreeMap::new(),
        requests: 0,
        next_at: Instant::START,
        outcome: Outcome {
            graph,
            timeline: Vec::new(),
            longest: Duration::ZERO,
            longest_from: Instant::START,
            errors: BTreeMap::new(),
            served: 0,
            wrong_blocks: 0,
            per_second: Vec::new(),
            per_path: vec![0; paths],
            failures: 0,
            latencies: Vec::new(),
            topology: String::new(),
        },
    };
    run.carry_out(scenario);
    run.outcome.latencies.sort_unstable();
    run.outcome
}

impl Run {
    fn carry_out(&mut self, scenario: &Scenario) {
        let mut actions = scenario.actions.iter().peekable();
        let end = Instant::START + scenario.length;
        loop {
            let action = actions.peek().map(|action| Instant::START + action.at);
            let more = (self.now < end && self.pending.len() < self.client.depth).then_some(self.next_at);
            // Whatever is still under way comes back; what a stalled component held has passed it on by then.
            if self.now >= end && self.pending.is_empty() && action.is_none() {
                break;
            }
            let due = Instant::earliest([action, more, self.multipath.next_deadline()]);
            self.now = self.now.max(due.expect("a map has its tick"));
            while let Some(action) = actions.next_if(|action| Instant::START + action.at <= self.now) {
                self.act(action);
            }
            self.client_turn(end);
            self.poll();
        }
        self.settle();
        self.audit();
    }

    fn act(&mut self, action: &Action) {
        self.outcome.topology = topology::show(&self.multipath, &self.multipath.maps()[0], "mpatha", WWID, 0);
        let fabric = self.multipath.fabric_mut();
        let component = plan::component(fabric.graph(), &action.component);
        fabric.set_health(component, action.health, self.now);
        self.outcome.timeline.push((self.now, Happening::Action(action.clone())));
    }

    fn client_turn(&mut self, end: Instant) {
        while self.now < end && self.pending.len() < self.client.depth && self.next_at <= self.now {
            self.next_at = match 1_000_000_000_u64.checked_div(self.client.rate) {
                Some(gap) => self.now.max(self.next_at) + Duration::from_nanos(gap),
                None => self.now,
            };
            self.request();
        }
    }

    fn request(&mut self) {
        let blocks = CAPACITY.0 / self.client.block;
        let block = loop {
            let block = self.rng.below(blocks);
            if self.busy.insert(block) {
                break block;
            }
        };
        self.requests += 1;
        let id = self.requests;
        let extent = self.extent(block);
        let bytes = extent.length.bytes() as usize;
        let reads = self.rng.chance(self.client.reads);
        let op = if reads {
            Op::Read(Buf::stale(bytes))
        } else {
            Op::Write(Payload::copy_of(&stamp(block, id, bytes)), Durability::Volatile)
        };
        self.pending.insert(id, Pending { block, begun: self.now, writes: (!reads).then_some(id) });
        self.multipath.submit(UNIT, Request::new(RequestId(id), extent, op), self.now);
    }

    fn extent(&self, block: u64) -> Extent {
        Extent::new(Lba(block * self.client.block), Sectors(self.client.block))
    }

    fn poll(&mut self) {
        let mut done = Vec::new();
        self.multipath.poll(self.now, &mut done);
        for (_, completion) in done {
            self.came_back(completion);
        }
        for (at, path, note) in self.multipath.fabric_mut().drain_notes() {
            if let Some((of, Happening::Transport(paths, last))) = self.outcome.timeline.last_mut()
                && *of == at
                && let Some(both) = last.and(note)
            {
                paths.push(path);
                *last = both;
            } else {
                self.outcome.timeline.push((at, Happening::Transport(vec![path], note)));
            }
        }
        for (at, _, change) in self.multipath.drain_changes() {
            self.outcome.failures += u64::from(matches!(change, Change::Failed(..)));
            self.outcome.timeline.push((at, Happening::Map(change)));
        }
    }

    fn came_back(&mut self, completion: Completion) {
        let Pending { block, begun, writes } = self.pending.remove(&completion.id.0).expect("it was sent, once");
        self.busy.remove(&block);
        let took = self.now.since(begun);
        self.outcome.latencies.push(took);
        if took > self.outcome.longest {
            (self.outcome.longest, self.outcome.longest_from) = (took, begun);
        }
        let may_be = self.versions.entry(block).or_insert_with(|| vec![0]);
        match (completion.result, writes) {
            (Err(error), writes) => {
                *self.outcome.errors.entry(error).or_default() += 1;
                may_be.extend(writes);
                return;
            }
            (Ok(()), Some(version)) => *may_be = vec![version],
            (Ok(()), None) => {
                let Op::Read(buf) = completion.op else { panic!("a read comes back as a read") };
                let found = buf.to_vec();
                if !may_be.iter().any(|version| stamp(block, *version, found.len()) == found) {
                    self.outcome.wrong_blocks += 1;
                }
            }
        }
        self.outcome.served += 1;
        let second = (self.now.0 / 1_000_000_000) as usize;
        self.outcome.per_second.resize(self.outcome.per_second.len().max(second + 1), 0);
        self.outcome.per_second[second] += 1;
    }

    /// Lets whatever still travels arrive.
    fn settle(&mut self) {
        let until = self.now + Duration::from_secs(1);
        while let Some(due) = self.multipath.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.poll();
        }
        for path in 0..self.outcome.per_path.len() {
            self.outcome.per_path[path] = self.multipath.fabric().sent(PathId(path as u16));
        }
    }

    /// Looks at every block that was written, on the unit itself.
    fn audit(&mut self) {
        let bytes = self.client.block as usize * 512;
        let unit = self.multipath.fabric().bank().bytes(UNIT);
        for (block, may_be) in &self.versions {
            let found = &unit[*block as usize * bytes..][..bytes];
            if !may_be.iter().any(|version| stamp(*block, *version, bytes) == found) {
                self.outcome.wrong_blocks += 1;
            }
        }
    }
}

/// Lengths of `count` transient losses, exponentially distributed around `mean`, from one seed.
pub fn hiccups(seed: u64, mean: Duration, count: usize) -> Vec<Duration> {
    let mut rng = Rng::new(seed, 2);
    (0..count).map(|_| mean.mul_f64(-((rng.below(1 << 20) + 1) as f64 / f64::from(1 << 20)).ln())).collect()
}
