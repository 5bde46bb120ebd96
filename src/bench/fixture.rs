//! Subjects for tests: memory that does as many member reads and writes as theory charges a level,
//! and nothing else an array does.

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::bench::{
    Clock, Driven, Findings, Machine, Measured, Mix, Plan, RealClock, Recovery, Report, Series, Shape, Subject,
    Traffic, Workload,
};
use crate::block::{
    Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, Lba, Limits, Op, Payload, Request, RequestId, Sectors,
};
use crate::disk::MemBank;

/// A plan that is through in a moment.
pub fn hasty_plan() -> Plan {
    let (warmup, measure) = (Duration::from_micros(100), Duration::from_micros(900));
    Plan { reps: 3, warmup, measure, ..Plan::defaults(0x5eed) }
}

/// What a series over all levels finds.
pub fn findings(plan: Plan, stop: &AtomicBool) -> Findings {
    let mut all = Pretender::all(Sectors(4 << 11));
    let mut subjects: Vec<&mut dyn Subject> = all.iter_mut().map(|one| one as &mut dyn Subject).collect();
    let clock = RealClock::start();
    Series::new(plan, &clock, stop, &mut |_| ()).run(&mut subjects).expect("memory takes everything")
}

/// The report of such a series, on a machine that was quiet.
pub fn report() -> Report {
    let machine = Machine {
        cpu: "Test & Sons CPU <1 GHz>".to_owned(),
        cpus: 2,
        memory_bytes: 4 << 30,
        kernel: "Linux 6.1".to_owned(),
    };
    let measured = Measured { what: "memory of this process".to_owned(), backend: "mem".to_owned(), threads: 1 };
    let plan = hasty_plan();
    let findings = findings(plan.clone(), &AtomicBool::new(false));
    Report::new(&plan, findings, machine, measured, "2026-01-01T00:00:00Z".to_owned(), vec!["raidlab".to_owned()])
}

/// A subject of memory.
pub struct Pretender {
    name: &'static str,
    shape: Shape,
    disks: MemBank,
    members: u32,
    pub degraded: bool,
    pub recoveries: u32,
    traffic: Traffic,
    done: Vec<(DeviceId, Completion)>,
}

impl Pretender {
    pub fn new(name: &'static str, shape: Shape, capacity: Sectors) -> Pretender {
        let members = match shape {
            Shape::Single => 1,
            Shape::Striped { disks }
            | Shape::Mirrored { disks }
            | Shape::StripedMirrors { disks, .. }
            | Shape::Parity { disks, .. } => disks,
        };
        let mut disks = MemBank::new();
        (0..members).for_each(|_| _ = disks.add(Limits::of_disk(capacity)));
        let (traffic, done) = (Traffic::default(), Vec::new());
        Pretender { name, shape, disks, members, degraded: false, recoveries: 0, traffic, done }
    }

    /// The raw file and the five levels on four disks.
    pub fn all(capacity: Sectors) -> Vec<Pretender> {
        let parity = |parities| Shape::Parity { disks: 4, parities, chunk_bytes: 64 << 10 };
        [
            ("raw file", Shape::Single),
            ("RAID0", Shape::Striped { disks: 4 }),
            ("RAID1", Shape::Mirrored { disks: 4 }),
            ("RAID5", parity(1)),
            ("RAID6", parity(2)),
            ("RAID10", Shape::StripedMirrors { disks: 4, copies: 2 }),
        ]
        .map(|(name, shape)| Pretender::new(name, shape, capacity))
        .into()
    }

    fn member_io(&mut self, extent: Extent, payload: Option<&Payload>, times: f64) {
        for time in 0..times.round() as u32 {
            let device = DeviceId(time % self.members);
            let op = match payload {
                Some(payload) => Op::Write(payload.clone(), Durability::Volatile),
                None => Op::Read(Buf::zeroed(extent.length.bytes() as usize)),
            };
            self.disks.submit(device, Request::new(RequestId(0), extent, op), Instant::START);
            if payload.is_some() {
                self.traffic.writes += 1;
                self.traffic.bytes_written += extent.length.bytes();
            }
        }
        self.disks.poll(Instant::START, &mut Vec::new());
    }
}

impl Bank for Pretender {
    fn limits(&self, device: DeviceId) -> Limits {
        self.disks.limits(device)
    }

    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        let workload = Workload { block: request.extent.length, ..Workload::random(Mix::Read, 1) };
        if let Op::Write(payload, _) = &request.op {
            let payload = payload.clone();
            let cost = self.shape.cost(&workload.pure(Mix::Write));
            self.member_io(request.extent, None, cost.reads);
            self.member_io(request.extent, Some(&payload), cost.writes);
            self.done.push((device, request.complete(Ok(()))));
            return;
        }
        if self.degraded {
            let cost = self.shape.degraded_cost(&workload).expect("only redundant subjects are degraded");
            self.member_io(request.extent, None, cost.reads - 1.0);
        }
        self.disks.submit(DeviceId(0), request, now);
        self.disks.poll(now, &mut self.done);
    }

    fn poll(&mut self, _now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        done.append(&mut self.done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        (!self.done.is_empty()).then_some(Instant::START)
    }
}

impl Driven for Pretender {
    fn bank(&mut self) -> &mut dyn Bank {
        self
    }

    fn device(&self) -> DeviceId {
        DeviceId(0)
    }

    fn wait(&mut self, _longest: Option<Duration>) {
        panic!("memory never makes one wait");
    }
}

impl Subject for Pretender {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn description(&self) -> String {
        format!("{} disks in memory", self.members)
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(self.traffic)
    }

    fn degrade(&mut self) -> io::Result<()> {
        assert!(!self.degraded, "{} is degraded already", self.name);
        self.degraded = true;
        Ok(())
    }

    fn recover(&mut self, _longest: Duration, _stop: &AtomicBool) -> io::Result<Recovery> {
        assert!(self.degraded, "{} has nothing to recover", self.name);
        let clock = RealClock::start();
        let cost = self.shape.recovery_cost().expect("only redundant subjects are degraded");
        let length = Sectors::floor_bytes(1 << 20);
        let payload = Payload::copy_of(&vec![0x5a; 1 << 20]);
        let blocks = self.disks.limits(DeviceId(0)).capacity.0 / length.0;
        for block in 0..blocks {
            let extent = Extent::new(Lba(block * length.0), length);
            self.member_io(extent, None, cost.reads);
            self.member_io(extent, Some(&payload), 1.0);
        }
        self.degraded = false;
        self.recoveries += 1;
        Ok(Recovery { bytes: blocks << 20, elapsed: clock.now().since(Instant::START), complete: true })
    }
}
