//! What a map costs a request, besides its paths: the same requests down a fabric whose paths answer at once, and through a map
//! over it.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use raidlab::block::{Bank, Buf, DeviceId, Extent, Instant, Lba, Limits, Op, Request, RequestId, Sectors};
use raidlab::fabric::{Access, Event, Fabric, Fencing, Link, PathId, PathInfo, Probe, Verdict};
use raidlab::multipath::Multipath;
use raidlab::multipath::settings::{Grouping, SelectorKind, Settings};

/// Paths that answer at once, each with what it was given.
struct AtOnce {
    paths: Vec<PathInfo>,
    events: Vec<Event>,
}

impl AtOnce {
    fn new(paths: usize) -> AtOnce {
        let info = |path: usize| PathInfo {
            hctl: format!("{path}:0:0:0"),
            name: format!("path{path}"),
            host: 0,
            hba: path,
            controller: 0,
            tpg: 0,
            unit: DeviceId(0),
            fencing: Fencing::Epoch,
            queue_depth: 0,
        };
        AtOnce { paths: (0..paths).map(info).collect(), events: Vec::new() }
    }
}

impl Fabric for AtOnce {
    fn paths(&self) -> &[PathInfo] {
        &self.paths
    }

    fn limits(&self, _: DeviceId) -> Limits {
        Limits::of_disk(Sectors(1 << 20))
    }

    fn link(&self, _: PathId) -> Link {
        Link::Online
    }

    fn access(&self, _: PathId) -> Access {
        Access::Optimized
    }

    fn submit(&mut self, path: PathId, request: Request, _: Instant) {
        self.events.push(Event::Completed(path, request.complete(Ok(()))));
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

const PATHS: usize = 4;

fn request(id: u64, buf: Buf) -> Request {
    Request::new(RequestId(id), Extent::new(Lba(id % 4096 * 8), Sectors(8)), Op::Read(buf))
}

fn buffer(op: Op) -> Buf {
    match op {
        Op::Read(buf) => buf,
        other => panic!("a read comes back as a read, not as a {}", other.name()),
    }
}

/// A microsecond a request: timers are due as seldom as they are on fast disks.
fn at(id: u64) -> Instant {
    Instant(id * 1000)
}

fn costs(criterion: &mut Criterion) {
    for depth in [1, 32] {
        let mut group = criterion.benchmark_group(format!("multipath, {depth} under way"));
        group.throughput(Throughput::Elements(depth));
        group.bench_function("direct", |b| {
            let mut fabric = AtOnce::new(PATHS);
            let (mut bufs, mut id) = (vec![Buf::stale(4096); depth as usize], 0);
            let mut events = Vec::new();
            b.iter(|| {
                for buf in bufs.drain(..) {
                    id += 1;
                    fabric.submit(PathId((id % PATHS as u64) as u16), request(id, buf), at(id));
                }
                fabric.poll(at(id), &mut events);
                black_box(fabric.next_deadline());
                for event in events.drain(..) {
                    let Event::Completed(_, completion) = event else { panic!("nothing was asked") };
                    bufs.push(buffer(completion.op));
                }
            });
        });
        for selector in SelectorKind::ALL {
            group.bench_function(selector.name(), |b| {
                let settings = Settings { selector, grouping: Grouping::Multibus, ..Settings::default() };
                let mut map = Multipath::new(AtOnce::new(PATHS), settings);
                let (mut bufs, mut id) = (vec![Buf::stale(4096); depth as usize], 0);
                let mut done = Vec::new();
                b.iter(|| {
                    for buf in bufs.drain(..) {
                        id += 1;
                        map.submit(DeviceId(0), request(id, buf), at(id));
                    }
                    map.poll(at(id), &mut done);
                    black_box(map.next_deadline());
                    bufs.extend(done.drain(..).map(|(_, completion)| buffer(completion.op)));
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = costs
}
criterion_main!(benches);
