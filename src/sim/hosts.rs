//! Two hosts on one logical unit: a reservation, a voting disk, and what becomes of a host that is cut off or held up.
//!
//! One host owns the unit's data and writes it. Both show that they live: over a network, and each second in a sector of their own on
//! the unit, the *voting disk*. Who hears nothing for too long decides by a table ([`decide`]): it stays, it reboots, or it takes over,
//! and then the other is preempted before anything is written. A host that was held up meanwhile still believes that it is the owner:
//! nothing but the unit's refusal keeps its next write out.
//!
//! Timeouts and table are those of Oracle's cluster synchronization (Red Hat 3182081).

use std::collections::BTreeMap;
use std::time::Duration;

use super::rng::Rng;
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Op, Payload, Request,
    RequestId, Sectors,
};
use crate::disk::MemBank;
use crate::fabric::emulated::Health;
use crate::fabric::graph::Preset;
use crate::fabric::host::Host;
use crate::fabric::reservation::{Key, Reserve};
use crate::fabric::shared::Shared;
use crate::fabric::transport::Transport;
use crate::fabric::{Fabric, PathId};
use crate::multipath::Multipath;
use crate::multipath::settings::Settings;

const UNIT: DeviceId = DeviceId(0);
const SECOND: Duration = Duration::from_secs(1);

/// Between two writes of the owner.
const PACE: Duration = Duration::from_millis(100);

/// When a cluster loses patience.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Silence on the network.
    pub misscount: Duration,
    /// A voting disk that cannot be written, when the network is silent, too: a little less than `misscount`.
    pub short_disktimeout: Duration,
    /// A voting disk that cannot be written.
    pub disktimeout: Duration,
}

impl Default for Timeouts {
    /// 30 s, 27 s and 200 s.
    fn default() -> Timeouts {
        let s = Duration::from_secs;
        Timeouts { misscount: s(30), short_disktimeout: s(27), disktimeout: s(200) }
    }
}

/// What a host does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It goes on.
    Stay,
    /// It gives up, so that others can go on.
    Reboot,
    /// It is the one that goes on, and the other is to be preempted.
    TakeOver,
}

/// What a host hears, and since when it does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// Since something came over the network.
    pub network: Duration,
    /// Since its own sector of the voting disk was last written.
    pub disk: Duration,
    /// Since the other's sector of the voting disk last changed.
    pub other: Duration,
}

/// The table. Of two hosts that see each other on the voting disk and not on the network, the `first` stays.
pub fn decide(silence: Silence, first: bool, timeouts: Timeouts) -> Decision {
    let Timeouts { misscount, short_disktimeout, disktimeout } = timeouts;
    if silence.disk > disktimeout {
        return Decision::Reboot;
    }
    match silence.network > misscount {
        false => Decision::Stay,
        // It must be seen by the other to stay: who cannot write its vote has none.
        true if silence.disk > short_disktimeout => Decision::Reboot,
        true if first || silence.other > short_disktimeout => Decision::TakeOver,
        true => Decision::Reboot,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Io {
    Vote,
    Look,
    Data { stamp: u64, sent: Instant },
}

/// One of the hosts.
#[derive(Clone, Debug)]
struct Node {
    number: usize,
    multipath: Multipath<Host>,
    is_running: bool,
    is_owner: bool,
    held_up_until: Instant,
    /// When something came over the network.
    heard_at: Instant,
    /// When its vote was last written.
    voted_at: Instant,
    /// The other's vote, and since when.
    other: (u8, Instant),
    vote: u8,
    requests: u64,
    under_way: BTreeMap<u64, Io>,
    write_due: Instant,
    second_due: Instant,
}

/// What happens to the hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Trouble {
    Network(bool),
    HeldUp(usize, Duration),
    Component(String, Health),
}

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Outcome {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Times that a host took over.
    pub takeovers: u64,
    /// Hosts that rebooted.
    pub reboots: u64,
    /// Writes that the unit refused to a host that was preempted.
    pub refused: u64,
    /// Writes that were sent after another host had taken over, and acknowledged: split brain.
    pub split_brain: u64,
    /// Blocks of which the owner's acknowledged write was gone.
    pub lost: u64,
}

/// Two hosts, and the unit they share.
#[derive(Clone, Debug)]
pub struct Hosts {
    shared: Shared<MemBank>,
    nodes: Vec<Node>,
    reserves: bool,
    timeouts: Timeouts,
    now: Instant,
    network: bool,
    troubles: Vec<(Instant, Trouble)>,
    /// Whose the unit is, and since when.
    owner: (usize, Instant),
    /// What the owner's data must read as.
    acknowledged: Option<u64>,
    stamps: u64,
    outcome: Outcome,
}

impl Hosts {
    /// Hosts of a SAN, the first of which owns the unit. `reserves`: the unit is reserved, and a host that takes over preempts the
    /// other; without, it only believes. All trouble comes from `seed`.
    pub fn new(seed: u64, reserves: bool) -> Hosts {
        let mut bank = MemBank::new();
        bank.add(Limits::of_disk(Sectors(16)));
        let graph = Preset::San.graph().for_hosts(2);
        let (shared, hosts) = Shared::new(bank, graph, Transport::FC, seed);
        let nodes = hosts.into_iter().enumerate().map(|(number, host)| Node::new(number, host)).collect();
        let mut hosts = Hosts {
            shared,
            nodes,
            reserves,
            timeouts: Timeouts::default(),
            now: Instant::START,
            network: true,
            troubles: Vec::new(),
            owner: (0, Instant::START),
            acknowledged: None,
            stamps: 0,
            outcome: Outcome::default(),
        };
        if reserves {
            hosts.register();
        }
        hosts.nodes[0].is_owner = true;
        hosts.trouble(seed);
        hosts
    }

    /// Every path is registered before it is used, or its first write would be a conflict.
    fn register(&mut self) {
        for node in &mut self.nodes {
            let key = node.key();
            for path in node.paths() {
                node.multipath.fabric_mut().reserve(path, Reserve::Register(key));
            }
        }
        self.run_until(Instant::START + Duration::from_millis(5));
        self.nodes[0].multipath.fabric_mut().reserve(PathId(0), Reserve::Reserve);
        self.run_until(Instant::START + Duration::from_millis(10));
    }

    fn trouble(&mut self, seed: u64) {
        let mut rng = Rng::new(seed, 3);
        for _ in 0..1 + rng.below(5) {
            let at = Instant::START + SECOND * (5 + rng.below(200) as u32);
            let length = SECOND * (1 + rng.below(120) as u32);
            let component = ["cable0", "cable1", "h1.cable0", "h1.cable1", "switch0", "switch1"];
            let component = component[rng.below(component.len() as u64) as usize].to_owned();
            let hole = Health::BlackHole { tx: true, rx: true };
            let health = [Health::Down, Health::Stalled, hole][rng.below(3) as usize];
            let (begins, ends) = match rng.below(3) {
                0 => (Trouble::Network(false), Trouble::Network(true)),
                1 => {
                    let held_up = Trouble::HeldUp(rng.below(2) as usize, length);
                    (held_up.clone(), held_up)
                }
                _ => (Trouble::Component(component.clone(), health), Trouble::Component(component, Health::Up)),
            };
            let held_up = matches!(begins, Trouble::HeldUp(..));
            self.troubles.push((at, begins));
            if !held_up {
                self.troubles.push((at + length, ends));
            }
        }
        self.troubles.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    }

    /// Lets `time` pass; how it went so far.
    pub fn run(&mut self, time: Duration) -> Outcome {
        self.run_until(self.now + time);
        Outcome { refused: self.shared.target().refused().reservation, ..self.outcome }
    }

    fn run_until(&mut self, end: Instant) {
        while let Some(due) = self.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            while let Some((_, trouble)) = self.troubles.pop_if(|(at, _)| *at <= self.now) {
                self.strike(trouble);
            }
            self.step();
        }
        self.now = end;
    }

    fn next_deadline(&self) -> Option<Instant> {
        let trouble = self.troubles.last().map(|(at, _)| *at);
        let nodes = self.nodes.iter().filter(|node| node.is_running).filter_map(Node::next_deadline).min();
        Instant::earliest([trouble, nodes, self.shared.next_deadline()])
    }

    fn strike(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Network(up) => self.network = up,
            Trouble::HeldUp(number, length) => {
                let node = &mut self.nodes[number];
                node.held_up_until = node.held_up_until.max(self.now + length);
            }
            Trouble::Component(name, health) => {
                let component = self.shared.graph().find(&name).expect("it is one of the graph's");
                let hosts: Vec<&Host> = self.nodes.iter().map(|node| node.multipath.fabric()).collect();
                self.shared.set_health(&hosts, component, health, self.now);
            }
        }
    }

    fn step(&mut self) {
        let now = self.now;
        let mut hosts: Vec<&mut Host> = self.nodes.iter_mut().map(|node| node.multipath.fabric_mut()).collect();
        self.shared.poll(&mut hosts, now);
        self.mind_the_owner();
        for number in 0..self.nodes.len() {
            if self.nodes[number].is_awake(now) {
                self.turn(number);
            }
            self.shared.carry(number, self.nodes[number].multipath.fabric_mut(), now);
        }
        self.audit();
    }

    /// A host does what it has to do.
    fn turn(&mut self, number: usize) {
        let now = self.now;
        let mut done = Vec::new();
        self.nodes[number].multipath.poll(now, &mut done);
        for (_, completion) in done {
            self.came_back(number, completion);
        }
        for (_, reserve, granted) in self.nodes[number].multipath.fabric_mut().drain_reserved() {
            if matches!(reserve, Reserve::Preempt(_)) && granted && !self.nodes[number].is_owner {
                self.takes_over(number);
            }
        }
        let node = &mut self.nodes[number];
        if node.is_owner && node.write_due <= now && !node.writes() {
            self.stamps += 1;
            node.write_due = now + PACE;
            node.submit(Io::Data { stamp: self.stamps, sent: now }, now);
            if self.owner.0 == number {
                self.acknowledged = None;
            }
        }
        if self.nodes[number].second_due <= now {
            self.second(number);
        }
    }

    /// Votes, looks, and decides.
    fn second(&mut self, number: usize) {
        let now = self.now;
        if self.network {
            self.nodes[1 - number].heard_at = now;
        }
        let node = &mut self.nodes[number];
        node.second_due = now + SECOND;
        for io in [Io::Vote, Io::Look] {
            if !node.under_way.values().any(|other| *other == io) {
                node.submit(io, now);
            }
        }
        let silence = Silence {
            network: now.since(node.heard_at),
            disk: now.since(node.voted_at),
            other: now.since(node.other.1),
        };
        match decide(silence, number == 0, self.timeouts) {
            Decision::Stay => {}
            Decision::Reboot => self.reboot(number),
            Decision::TakeOver if self.nodes[number].is_owner => {}
            Decision::TakeOver if self.reserves => self.nodes[number].preempt(),
            Decision::TakeOver => self.takes_over(number),
        }
    }

    fn takes_over(&mut self, number: usize) {
        self.outcome.takeovers += 1;
        self.nodes[number].is_owner = true;
        if !self.reserves {
            self.owner = (number, self.now);
            self.acknowledged = None;
        }
    }

    /// Who the owner is, is the unit's to say: a host hears of it later, if at all.
    fn mind_the_owner(&mut self) {
        let Some(Key(key)) = self.shared.target().reserved_by(UNIT) else { return };
        let number = key as usize - 1;
        if self.owner.0 != number {
            self.owner = (number, self.now);
            self.acknowledged = None;
        }
    }

    fn reboot(&mut self, number: usize) {
        self.outcome.reboots += 1;
        self.nodes[number].is_running = false;
        self.nodes[number].is_owner = false;
    }

    fn came_back(&mut self, number: usize, completion: Completion) {
        let now = self.now;
        let node = &mut self.nodes[number];
        let io = node.under_way.remove(&completion.id.0).expect("it was sent, once");
        match (io, completion.result) {
            (_, Err(IoError::Fenced)) => {
                if node.is_running {
                    self.reboot(number);
                }
            }
            (_, Err(_)) => {}
            (Io::Vote, Ok(())) => node.voted_at = now,
            (Io::Look, Ok(())) => {
                let Op::Read(buf) = completion.op else { panic!("a read comes back as a read") };
                let vote = buf.to_vec()[0];
                if node.other.0 != vote {
                    node.other = (vote, now);
                }
            }
            (Io::Data { stamp, sent }, Ok(())) => {
                self.outcome.acknowledged += 1;
                let (owner, since) = self.owner;
                if owner != number && sent > since {
                    self.outcome.split_brain += 1;
                }
                if owner == number {
                    self.acknowledged = Some(stamp);
                }
            }
        }
    }

    /// What the owner wrote last, and was told is there, is there.
    fn audit(&mut self) {
        let bytes = &self.shared.target().bank().bytes(UNIT)[..8];
        let found = u64::from_le_bytes(bytes.try_into().expect("these are eight"));
        if self.acknowledged.is_some_and(|stamp| stamp != found) {
            self.outcome.lost += 1;
            self.acknowledged = None;
        }
    }
}

impl Node {
    fn new(number: usize, host: Host) -> Node {
        let start = Instant::START;
        Node {
            number,
            multipath: Multipath::new(host, Settings::default()),
            is_running: true,
            is_owner: false,
            held_up_until: start,
            heard_at: start,
            voted_at: start,
            other: (0, start),
            vote: 0,
            requests: 0,
            under_way: BTreeMap::new(),
            write_due: start,
            second_due: start + SECOND,
        }
    }

    fn key(&self) -> Key {
        Key(self.number as u64 + 1)
    }

    fn paths(&self) -> Vec<PathId> {
        (0..self.multipath.fabric().paths().len()).map(|path| PathId(path as u16)).collect()
    }

    fn is_awake(&self, now: Instant) -> bool {
        self.is_running && self.held_up_until <= now
    }

    fn writes(&self) -> bool {
        self.under_way.values().any(|io| matches!(io, Io::Data { .. }))
    }

    fn next_deadline(&self) -> Option<Instant> {
        let write = (self.is_owner && !self.writes()).then_some(self.write_due);
        let due = Instant::earliest([write, Some(self.second_due), self.multipath.next_deadline()]);
        due.map(|due| due.max(self.held_up_until))
    }

    /// By every path that takes requests.
    fn preempt(&mut self) {
        let other = Key(2 - self.number as u64);
        let active = self.multipath.maps()[0].paths().iter().filter(|path| path.active);
        for path in active.map(|path| path.id).collect::<Vec<PathId>>() {
            self.multipath.fabric_mut().reserve(path, Reserve::Preempt(other));
        }
    }

    fn submit(&mut self, io: Io, now: Instant) {
        let mut bytes = [0; 512];
        let (lba, op) = match io {
            Io::Data { stamp, .. } => {
                bytes[..8].copy_from_slice(&stamp.to_le_bytes());
                (0, Op::Write(Payload::copy_of(&bytes), Durability::Volatile))
            }
            Io::Vote => {
                self.vote = self.vote.wrapping_add(1);
                bytes[0] = self.vote;
                (8 + self.number as u64, Op::Write(Payload::copy_of(&bytes), Durability::Volatile))
            }
            Io::Look => (9 - self.number as u64, Op::Read(Buf::stale(512))),
        };
        self.requests += 1;
        self.under_way.insert(self.requests, io);
        let request = Request::new(RequestId(self.requests), Extent::new(Lba(lba), Sectors(1)), op);
        self.multipath.submit(UNIT, request, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(400);

    #[test]
    fn the_table_is_that_of_the_books() {
        let s = Duration::from_secs;
        let timeouts = Timeouts::default();
        let by = |network, disk, other, first| {
            decide(Silence { network: s(network), disk: s(disk), other: s(other) }, first, timeouts)
        };
        assert_eq!(by(0, 20, 0, false), Decision::Stay);
        assert_eq!(by(0, 150, 0, false), Decision::Stay, "the disk alone may be gone for longer");
        assert_eq!(by(0, 201, 0, true), Decision::Reboot);
        assert_eq!(by(31, 0, 0, false), Decision::Reboot);
        assert_eq!(by(31, 0, 0, true), Decision::TakeOver);
        assert_eq!(by(31, 0, 31, false), Decision::TakeOver, "the other is gone");
        assert_eq!(by(31, 31, 31, true), Decision::Reboot, "who cannot vote has none");
    }

    #[test]
    fn without_trouble_the_owner_writes_and_nobody_takes_over() {
        let mut hosts = Hosts::new(1, true);
        hosts.troubles.clear();
        let outcome = hosts.run(MINUTES);
        let writes = outcome.acknowledged;
        assert!(writes > 3900, "{outcome:?}");
        assert_eq!(outcome, Outcome { acknowledged: writes, ..Outcome::default() });
    }

    /// The owner is held up for longer than anybody waits, and comes back in the belief that it is the owner.
    fn held_up(reserves: bool) -> Outcome {
        let mut hosts = Hosts::new(1, reserves);
        hosts.troubles = vec![(Instant::START + SECOND * 20, Trouble::HeldUp(0, SECOND * 60))];
        hosts.run(MINUTES)
    }

    #[test]
    fn an_owner_that_was_held_up_is_refused() {
        let outcome = held_up(true);
        assert_eq!((outcome.takeovers, outcome.split_brain, outcome.lost), (1, 0, 0), "{outcome:?}");
        assert!(outcome.refused >= 1 && outcome.reboots == 1, "{outcome:?}");
    }

    #[test]
    fn without_a_reservation_both_write_and_it_is_seen() {
        let outcome = held_up(false);
        assert!(outcome.split_brain > 0 && outcome.lost > 0, "{outcome:?}");
    }

    /// Networks that are cut, hosts that are held up, cables and switches that fail, stall and swallow.
    #[test]
    fn two_hosts_that_both_believe_to_be_the_owner_never_both_write() {
        let (mut takeovers, mut refused, mut split_without) = (0, 0, 0);
        for seed in 0..120 {
            let outcome = Hosts::new(seed, true).run(MINUTES);
            assert_eq!((outcome.split_brain, outcome.lost), (0, 0), "Hosts::new({seed}, true): {outcome:?}");
            assert!(outcome.acknowledged > 0, "Hosts::new({seed}, true): {outcome:?}");
            takeovers += outcome.takeovers;
            refused += outcome.refused;
            split_without += u64::from(Hosts::new(seed, false).run(MINUTES).split_brain > 0);
        }
        assert!(takeovers > 10 && refused > 3 && split_without > 3, "{takeovers}, {refused}, {split_without}");
    }
}
