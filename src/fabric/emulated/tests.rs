//! What a fence promises: that nothing of a nexus can land any more.

use super::*;
use crate::block::{Durability, Payload, Sectors};
use crate::disk::{Fault, MemBank};
use crate::fabric::graph::Preset;

const UNIT: DeviceId = DeviceId(0);
const BYTES: usize = 4096;

/// A fabric of eight paths, and a clock.
struct Rig {
    fabric: Emulated<Fault<MemBank>>,
    now: Instant,
    events: Vec<(Instant, Event)>,
}

fn at(seconds: u64) -> Instant {
    Instant::START + Duration::from_secs(seconds)
}

impl Rig {
    fn new(fault: Option<&str>) -> Rig {
        let mut disk = MemBank::new();
        disk.add(Limits::of_disk(Sectors(64)));
        let mut unit = Fault::new(disk);
        if let Some(fault) = fault {
            unit.arm(UNIT, fault.parse().unwrap(), Instant::START).unwrap();
        }
        let transport = Transport { cmd_timeout: Duration::from_secs(10), ..Transport::FC };
        let fabric = Emulated::new(unit, Preset::San.graph(), transport, 1);
        Rig { fabric, now: Instant::START, events: Vec::new() }
    }

    fn run_until(&mut self, until: Instant) {
        while let Some(due) = self.fabric.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let mut events = Vec::new();
            self.fabric.poll(self.now, &mut events);
            self.events.extend(events.into_iter().map(|event| (self.now, event)));
        }
        self.now = until;
    }

    /// Writes this byte all over a block, by path 0.
    fn write(&mut self, id: u64, byte: u8) {
        let extent = Extent::new(Lba(0), Sectors(BYTES as u64 / 512));
        let op = Op::Write(Payload::copy_of(&[byte; BYTES]), Durability::Volatile);
        self.fabric.submit(PathId(0), Request::new(RequestId(id), extent, op), self.now);
    }

    fn set(&mut self, component: &str, health: Health) {
        let component = self.fabric.graph().find(component).unwrap();
        self.fabric.set_health(component, health, self.now);
    }

    fn stored(&self) -> u8 {
        self.fabric.bank().inner().bytes(UNIT)[0]
    }

    fn when(&self, which: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.events.iter().find(|(_, event)| which(event)).map(|(at, _)| *at)
    }

    fn fenced(&self) -> Option<Instant> {
        self.when(|event| matches!(event, Event::Fenced(PathId(0))))
    }
}

/// The unit has begun a write and takes five seconds for it: until then it could land over something newer.
#[test]
fn a_fence_waits_for_a_unit_that_is_slow() {
    let mut rig = Rig::new(Some("latency=5s"));
    rig.write(1, 7);
    rig.run_until(at(1));
    rig.fabric.fence(PathId(0), PathId(4), rig.now);
    rig.run_until(at(4));
    assert_eq!(rig.fenced(), None, "the write is still under way");
    rig.run_until(at(6));
    assert!(rig.fenced().is_some_and(|fenced| fenced >= at(5)), "{:?}", rig.events);
    assert_eq!(rig.stored(), 7);
}

/// Asked in vain, the path went on, and was asked to end again: what the target says of the first question says nothing of what was
/// sent since.
#[test]
fn the_answer_to_an_old_fence_does_not_confirm_a_newer_one() {
    let mut rig = Rig::new(None);
    // The way of the writes, and those of both questions, which have nothing but the target in common.
    for port in ["ctrl0.p0", "ctrl0.p1", "ctrl1.p0"] {
        rig.set(port, Health::Stalled);
    }
    rig.fabric.fence(PathId(0), PathId(5), rig.now);
    rig.run_until(at(11));
    assert!(rig.when(|event| matches!(event, Event::NotFenced(PathId(0)))).is_some(), "{:?}", rig.events);
    rig.write(2, 7);
    rig.run_until(at(12));
    rig.fabric.fence(PathId(0), PathId(6), rig.now);

    rig.set("ctrl0.p1", Health::Up);
    rig.run_until(at(14));
    assert_eq!(rig.fenced(), None, "that was of the first");
    rig.set("ctrl1.p0", Health::Up);
    rig.run_until(at(15));
    assert!(rig.fenced().is_some());
    assert!(rig.when(|event| matches!(event, Event::GivenBack(_, _, IoError::Transport))).is_some(), "{:?}", rig.events);
    rig.set("ctrl0.p0", Health::Up);
    rig.run_until(at(60));
    assert_eq!(rig.stored(), 0, "it was kept out");
}
