//! What each fault does to a command, a question, a byte.

use std::time::Duration;

use super::emulated::{Emulated, Health, Point, Wire};
use super::graph::{Graph, Preset};
use super::transport::{Abort, Transport};
use super::*;
use crate::block::{Buf, Durability, Extent, Lba, Op, Payload, RequestId, Sectors};
use crate::disk::MemBank;

const UNIT: DeviceId = DeviceId(0);
const FIRST: PathId = PathId(0);

/// A fabric, and what came of what was asked of it.
struct Lab {
    fabric: Emulated<MemBank>,
    now: Instant,
    done: Vec<(Instant, Completion)>,
    verdicts: Vec<(PathId, Verdict)>,
    ids: u64,
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Lab {
    fn of(graph: Graph, transport: Transport) -> Lab {
        let mut bank = MemBank::new();
        bank.add(Limits::of_disk(Sectors(64)));
        let fabric = Emulated::new(bank, graph, transport, 1);
        Lab { fabric, now: Instant::START, done: Vec::new(), verdicts: Vec::new(), ids: 0 }
    }

    fn new() -> Lab {
        Lab::of(Preset::SasDual.graph(), Transport { cmd_timeout: s(2), ..Transport::FC })
    }

    fn set(&mut self, component: &str, health: Health) {
        let id = self.fabric.graph().find(component).expect("it is there");
        self.fabric.set_health(id, health, self.now);
    }

    fn submit(&mut self, path: PathId, op: Op) {
        self.ids += 1;
        let request = Request::new(RequestId(self.ids), Extent::new(Lba(0), Sectors(1)), op);
        self.fabric.submit(path, request, self.now);
    }

    fn write(&mut self, path: PathId, byte: u8) {
        self.submit(path, Op::Write(Payload::copy_of(&[byte; 512]), Durability::Volatile));
    }

    fn read(&mut self, path: PathId) {
        self.submit(path, Op::Read(Buf::stale(512)));
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.fabric.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let mut events = Vec::new();
            self.fabric.poll(self.now, &mut events);
            for event in events {
                match event {
                    Event::Completed(_, completion) => self.done.push((self.now, completion)),
                    Event::GivenBack(_, request, error) => self.done.push((self.now, request.complete(Err(error)))),
                    Event::Probed(path, verdict) => self.verdicts.push((path, verdict)),
                    _ => {}
                }
            }
        }
        self.now = until;
    }

    fn results(&self) -> Vec<Result<(), IoError>> {
        self.done.iter().map(|(_, completion)| completion.result).collect()
    }

    fn on_the_unit(&self) -> &[u8] {
        &self.fabric.bank().bytes(UNIT)[..512]
    }
}

/// Before it is sent and on its way it has not happened; after the medium it has, and only the answer is missing.
#[test]
fn a_command_is_lost_where_it_is_said_and_sent_again() {
    for (at, is_done) in [(Point::Sending, false), (Point::Transit, false), (Point::Answering, true)] {
        let mut lab = Lab::new();
        lab.set("cable0", Health::Losing { frames: 1, at });
        lab.write(FIRST, 7);
        lab.pass(s(1));
        assert_eq!(lab.on_the_unit()[0] == 7, is_done, "{at:?}");
        assert!(lab.done.is_empty());
        lab.pass(s(2));
        assert_eq!(lab.results(), [Ok(())], "{at:?}");
        assert_eq!((lab.fabric.sent(FIRST), lab.on_the_unit()[0]), (2, 7));
    }
}

/// TCP sends again what was lost, and nobody above it knows.
#[test]
fn a_lost_segment_is_sent_again_by_tcp() {
    let mut lab = Lab::of(Preset::Iscsi.graph(), Transport::ISCSI);
    lab.set("cable0", Health::Losing { frames: 2, at: Point::Transit });
    lab.write(FIRST, 7);
    lab.pass(s(1));
    assert_eq!(lab.results(), [Ok(())]);
    let took = lab.done[0].0.since(Instant::START);
    assert!(took > ms(400) && took < ms(450), "twice a retransmission timeout, not {took:?}");
    assert_eq!(lab.fabric.sent(FIRST), 1);
}

#[test]
fn what_is_on_its_way_through_a_component_that_goes_down_is_lost() {
    let mut lab = Lab::new();
    lab.write(FIRST, 7);
    lab.pass(Duration::from_micros(10));
    lab.set("cable0", Health::Down);
    lab.pass(ms(1));
    lab.set("cable0", Health::Up);
    lab.write(FIRST, 0);
    lab.pass(ms(100));
    // The nexus is back, so what had no answer goes out again.
    assert_eq!(lab.results(), [Ok(()); 2]);
    assert_eq!(lab.fabric.sent(FIRST), 3);
}

#[test]
fn a_component_flaps_by_itself() {
    let mut lab = Lab::new();
    lab.set("cable0", Health::Flapping { down: s(1), up: s(2) });
    let mut links = Vec::new();
    lab.pass(ms(500));
    for _ in 0..7 {
        links.push(lab.fabric.link(FIRST));
        lab.pass(s(1));
    }
    let (up, down) = (Link::Online, Link::Blocked);
    assert_eq!(links, [down, up, up, down, up, up, down]);
    lab.set("cable0", Health::Up);
    lab.pass(s(1));
    assert_eq!(lab.fabric.link(FIRST), Link::Online);
    assert!(lab.fabric.next_deadline().is_none(), "what is well does not flap");
}

#[test]
fn a_zombie_answers_later_every_time() {
    let mut lab = Lab::of(Preset::SasDual.graph(), Transport::FC);
    lab.set("cable0", Health::Zombie(s(3)));
    let took: Vec<u64> = (0..4)
        .map(|_| {
            let begun = lab.now;
            lab.read(FIRST);
            lab.pass(s(20));
            lab.done.pop().expect("it is answered").0.since(begun).as_secs()
        })
        .collect();
    assert_eq!(took, [3, 6, 9, 12]);
}

#[test]
fn what_is_delivered_twice_is_carried_out_once_by_a_target_that_knows_its_sessions() {
    for (fencing, left, repeated) in [(Fencing::None, 1, 0), (Fencing::Session, 2, 1), (Fencing::Epoch, 2, 1)] {
        let mut lab = Lab::of(Preset::SasDual.graph().with_fencing(fencing), Transport::FC);
        lab.set("cable0", Health::Doubling(s(1)));
        lab.write(FIRST, 1);
        lab.pass(ms(10));
        lab.set("cable0", Health::Up);
        lab.write(FIRST, 2);
        lab.pass(s(2));
        assert_eq!(lab.results(), [Ok(()); 2]);
        assert_eq!(lab.on_the_unit()[0], left, "{fencing}");
        assert_eq!(lab.fabric.refused().repeated, repeated, "{fencing}");
    }
}

#[test]
fn a_checker_can_be_lied_to_both_ways() {
    let mut lab = Lab::new();
    lab.set("cable0", Health::FailsIo);
    lab.fabric.probe(FIRST, Probe::Tur, lab.now);
    lab.pass(ms(1));
    lab.fabric.probe(FIRST, Probe::DirectIo, lab.now);
    lab.read(FIRST);
    lab.pass(ms(1));
    // Only a checker that reads sees it.
    assert_eq!(lab.verdicts, [(FIRST, Verdict::Up), (FIRST, Verdict::Down)]);
    assert_eq!(lab.results(), [Err(IoError::Transport)]);
    lab.set("cable0", Health::FailsChecks);
    lab.fabric.probe(FIRST, Probe::Tur, lab.now);
    lab.read(FIRST);
    lab.pass(ms(1));
    assert_eq!(lab.verdicts[2], (FIRST, Verdict::Down));
    assert_eq!(lab.results()[1], Ok(()));
}

#[test]
fn a_path_corrupts_what_is_read_or_what_is_written() {
    let wrong = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != 9).count();
    for (reads, writes) in [(true, false), (false, true)] {
        let mut lab = Lab::new();
        lab.set("cable0", Health::Corrupting { reads, writes });
        lab.write(FIRST, 9);
        lab.pass(ms(1));
        assert_eq!(wrong(lab.on_the_unit()), usize::from(writes), "one byte of each write");
        lab.read(FIRST);
        lab.read(PathId(1));
        lab.pass(ms(1));
        assert_eq!(lab.results(), [Ok(()); 3], "and nobody says so");
        let found: Vec<usize> = lab.done[1..]
            .iter()
            .map(|(_, completion)| match &completion.op {
                Op::Read(buf) => wrong(&buf.to_vec()),
                _ => panic!("a read comes back as a read"),
            })
            .collect();
        assert_eq!(found.iter().sum::<usize>(), if writes { 2 } else { 1 });
    }
}

#[test]
fn an_answer_that_nobody_waits_for_is_dropped_and_counted() {
    let transport = Transport { cmd_timeout: s(1), max_retries: 0, ..Transport::FC };
    let mut lab = Lab::of(Preset::SasDual.graph(), transport);
    lab.read(FIRST);
    lab.pass(Duration::from_micros(60));
    lab.set("cable0", Health::Stalled);
    lab.pass(s(2));
    assert_eq!(lab.results(), [Err(IoError::Timeout)]);
    lab.set("cable0", Health::Up);
    lab.pass(s(1));
    assert_eq!((lab.results().len(), lab.fabric.stale_answers()), (1, 1));
}

#[test]
fn each_path_costs_what_it_is_said_to() {
    let mut graph = Preset::SasDual.graph();
    graph.set_wire(FIRST, Wire { latency: ms(40), jitter: 0, bandwidth: 1_000_000_000 });
    graph.set_wire(PathId(1), Wire { latency: Duration::ZERO, jitter: 0, bandwidth: 51_200 });
    let mut lab = Lab::of(graph, Transport::FC);
    lab.read(FIRST);
    lab.read(PathId(1));
    lab.pass(s(1));
    let took: Vec<Duration> = lab.done.iter().map(|(at, _)| at.since(Instant::START)).collect();
    assert_eq!(took[0], ms(10), "512 bytes at 51,200 a second");
    assert!(took[1] >= ms(40) && took[1] < ms(41), "{:?}", took[1]);
}

#[test]
fn what_exceeds_a_paths_queue_depth_is_held_back() {
    let mut graph = Preset::SasDual.graph();
    graph.set_queue_depth(FIRST, 2);
    let mut lab = Lab::of(graph, Transport { abort: Abort::Local, ..Transport::FC });
    for byte in 1..=5 {
        lab.write(FIRST, byte);
    }
    assert_eq!(lab.fabric.sent(FIRST), 2);
    lab.pass(ms(1));
    assert_eq!(lab.results(), [Ok(()); 5]);
    // Lost with two under way, all come back.
    lab.done.clear();
    for byte in 1..=5 {
        lab.write(FIRST, byte);
    }
    lab.set("cable0", Health::Down);
    lab.pass(s(6));
    assert_eq!(lab.results(), [Err(IoError::Transport); 5]);
}
