//! The kernel's dm-multipath beside ours: which path takes how many reads, and what becomes of them when paths fail.
//!
//! A user-mode Linux makes a map over paths that are targets of their own (dm-linear, dm-delay, dm-error) and does the same steps that
//! our layer does over a fabric that keeps requests until it is told.
//!
//! Not compared: historical-service-time and io-affinity, which this kernel is built without; the shares of paths of different
//! speed in a closed loop, since time inside is not time outside; request-based queueing, since the targets beneath take bios;
//! hardware handlers and priority groups' activation, which need SCSI devices; and everything that multipathd does, which is no
//! part of the kernel: checks, priorities, failback.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;

use raidlab::block::{
    Bank, Buf, Completion, DeviceId, Extent, Instant, IoError, Lba, Limits, Op, Request, RequestId, Sectors,
};
use raidlab::fabric::{Access, Event, Fabric, Fencing, Link, PathId, PathInfo, Probe, Verdict};
use raidlab::multipath::Multipath;
use raidlab::multipath::settings::{Grouping, Monitors, NoPathRetry, Prio, SelectorKind, Settings};

use crate::support::story::story;
use crate::support::uml;

/// Half a minute, and for a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(300);

pub fn trials() -> Vec<Trial> {
    let told = |name, selector| {
        story(name)
            .needs(&["linux.uml", "modprobe", "losetup", "dmsetup"])
            .told_by(move || the_kernel_and_ours_agree(selector))
    };
    vec![
        told("dm_multipath::round_robin_is_the_kernels", SelectorKind::RoundRobin),
        told("dm_multipath::queue_length_is_the_kernels", SelectorKind::QueueLength),
        told("dm_multipath::service_time_is_the_kernels", SelectorKind::ServiceTime),
    ]
}

/// One thing that is done to a map.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A read of so many KiB begins.
    Read(u64),
    /// Everything that has begun ends.
    Settle,
    Fail(u16),
    Reinstate(u16),
    QueueIfNoPath,
    FailIfNoPath,
}

/// A path, by the target that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Linear,
    Slow,
    Error,
}

struct Case {
    name: &'static str,
    paths: &'static [Kind],
    steps: Vec<Step>,
}

/// What a map did: reads that each path served, which of them are active, and reads that failed.
#[derive(PartialEq, Eq, Debug)]
struct Counted {
    reads: Vec<u64>,
    states: String,
    errors: u64,
}

fn cases() -> Vec<Case> {
    use Step::*;
    let one_by_one = |times: usize| [Read(4), Settle].repeat(times);
    vec![
        Case {
            name: "under-way",
            paths: &[Kind::Slow; 3],
            steps: [Read(4), Read(64), Read(4), Read(4), Read(4), Read(16), Read(4), Read(4), Read(4), Settle].to_vec(),
        },
        Case {
            name: "fail-and-reinstate",
            paths: &[Kind::Linear; 3],
            steps: [one_by_one(4), vec![Fail(1)], one_by_one(3), vec![Reinstate(1)], one_by_one(4)].concat(),
        },
        Case { name: "path-error", paths: &[Kind::Error, Kind::Linear, Kind::Linear], steps: one_by_one(5) },
        Case {
            name: "no-path",
            paths: &[Kind::Linear; 2],
            steps: [
                vec![QueueIfNoPath, Fail(0), Fail(1), Read(4), Read(4), Reinstate(1), Settle],
                vec![FailIfNoPath, Fail(1), Read(4), Settle],
            ]
            .concat(),
        },
    ]
}

#[track_caller]
fn the_kernel_and_ours_agree(selector: SelectorKind) {
    let mut payload = String::from(". \"$dm_words\" && dm_modules || exit\n");
    for case in cases() {
        let paths: Vec<&str> = case.paths.iter().map(|kind| kind.target()).collect();
        payload += &format!("table {selector} {} || exit\n", paths.join(" "));
        for step in &case.steps {
            payload += &(step.command() + "\n");
        }
        payload += &format!("end_table {}\n", case.name);
    }
    let words = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/uml/dm.sh");
    let outcome = uml::run_within(LIMIT, &payload, &[("dm_words", &words.display().to_string())]);
    for case in cases() {
        let begins = format!("counted {} ", case.name);
        let line = outcome.output.lines().find_map(|line| line.strip_prefix(&begins));
        let line = line.unwrap_or_else(|| panic!("no word of {}:\n{}", case.name, outcome.output));
        let mut kernel = Counted::parse(line);
        let ours = case.ours(selector);
        for (reads, kind) in kernel.reads.iter_mut().zip(case.paths) {
            // What a target refuses is counted by some kernels, and by some is not.
            *reads *= u64::from(*kind != Kind::Error);
        }
        assert_eq!(ours, kernel, "{selector}, {}: ours, and the kernel's\n{}", case.name, outcome.output);
    }
}

impl Kind {
    fn target(self) -> &'static str {
        match self {
            Kind::Linear => "linear",
            Kind::Slow => "slow",
            Kind::Error => "error",
        }
    }
}

impl Step {
    fn command(self) -> String {
        match self {
            Step::Read(kib) => format!("begin_read {kib}"),
            Step::Settle => "wait".to_owned(),
            Step::Fail(path) => format!("fail {path}"),
            Step::Reinstate(path) => format!("reinstate {path}"),
            Step::QueueIfNoPath => "message queue_if_no_path".to_owned(),
            Step::FailIfNoPath => "message fail_if_no_path".to_owned(),
        }
    }
}

impl Counted {
    fn parse(line: &str) -> Counted {
        let [reads, states, errors] = line.split(' ').collect::<Vec<&str>>()[..] else { panic!("no counts: {line}") };
        let number = |text: &str| text.parse().expect("the kernel writes numbers");
        Counted { reads: reads.split(',').map(number).collect(), states: states.to_owned(), errors: number(errors) }
    }
}

impl Case {
    /// The same steps by our layer.
    fn ours(&self, selector: SelectorKind) -> Counted {
        let settings = Settings {
            selector,
            grouping: Grouping::Multibus,
            prio: Prio::Const,
            no_path_retry: NoPathRetry::Queue,
            // The kernel's part checks nothing.
            monitors: Monitors { link: true, probe: false, traffic: false },
            ..Settings::default()
        };
        let mut map = Multipath::new(Kept::new(self.paths), settings);
        let (unit, now) = (DeviceId(0), Instant::START);
        let (mut ids, mut done): (u64, Vec<(DeviceId, Completion)>) = (0, Vec::new());
        map.set_queueing(unit, false, now);
        for step in &self.steps {
            match *step {
                Step::Read(kib) => {
                    ids += 1;
                    let extent = Extent::new(Lba(0), Sectors(kib * 2));
                    let op = Op::Read(Buf::stale(kib as usize * 1024));
                    map.submit(unit, Request::new(RequestId(ids), extent, op), now);
                }
                Step::Settle => map.fabric_mut().let_go(),
                Step::Fail(path) => map.fail_path(PathId(path), now),
                Step::Reinstate(path) => map.reinstate_path(PathId(path), now),
                Step::QueueIfNoPath => map.set_queueing(unit, true, now),
                Step::FailIfNoPath => map.set_queueing(unit, false, now),
            }
            // What failed on one path is on another by then, and settles with the rest.
            for _ in self.paths {
                map.poll(now, &mut done);
                if matches!(step, Step::Settle) {
                    map.fabric_mut().let_go();
                }
            }
            map.poll(now, &mut done);
        }
        assert_eq!(done.len() as u64, ids, "{}: each read ends once", self.name);
        Counted {
            reads: map.fabric().served.clone(),
            states: map.maps()[0].paths().iter().map(|path| if path.active { 'A' } else { 'F' }).collect(),
            errors: done.iter().filter(|(_, completion)| completion.result.is_err()).count() as u64,
        }
    }
}

/// Paths that keep what they are sent, until they are told; those that are errors fail it at once.
struct Kept {
    infos: Vec<PathInfo>,
    kinds: &'static [Kind],
    kept: Vec<(PathId, Request)>,
    events: Vec<Event>,
    served: Vec<u64>,
}

impl Kept {
    fn new(kinds: &'static [Kind]) -> Kept {
        let info = |path: usize| PathInfo {
            hctl: format!("0:0:{path}:0"),
            name: format!("path{path}"),
            host: 0,
            hba: 0,
            controller: 0,
            tpg: 0,
            unit: DeviceId(0),
            fencing: Fencing::Epoch,
            queue_depth: 0,
        };
        Kept {
            infos: (0..kinds.len()).map(info).collect(),
            kinds,
            kept: Vec::new(),
            events: Vec::new(),
            served: vec![0; kinds.len()],
        }
    }

    fn let_go(&mut self) {
        for (path, request) in self.kept.drain(..) {
            self.served[usize::from(path.0)] += 1;
            self.events.push(Event::Completed(path, request.complete(Ok(()))));
        }
    }
}

impl Fabric for Kept {
    fn paths(&self) -> &[PathInfo] {
        &self.infos
    }

    fn limits(&self, _: DeviceId) -> Limits {
        Limits::of_disk(Sectors(8192))
    }

    fn link(&self, _: PathId) -> Link {
        Link::Online
    }

    fn access(&self, _: PathId) -> Access {
        Access::Optimized
    }

    fn submit(&mut self, path: PathId, request: Request, _: Instant) {
        if self.kinds[usize::from(path.0)] == Kind::Error {
            self.events.push(Event::GivenBack(path, request, IoError::Transport));
        } else {
            self.kept.push((path, request));
        }
    }

    fn probe(&mut self, path: PathId, _: Probe, _: Instant) {
        self.events.push(Event::Probed(path, Verdict::Up));
    }

    fn fence(&mut self, path: PathId, _: PathId, _: Instant) {
        self.events.push(Event::Fenced(path));
    }

    fn abort(&mut self, _: PathId, _: RequestId, _: Instant) {}

    fn reset(&mut self, _: DeviceId, _: PathId, _: Instant) {}

    fn poll(&mut self, _: Instant, events: &mut Vec<Event>) {
        events.append(&mut self.events);
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}
