//! One request after the other on arrays of disks in memory: what a level costs besides its disks.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use raidlab::bench::{
    ArraySpec, ArraySubject, Backend, Budget, Clock, Offsets, PayloadPool, RealClock, Store, Subject, Workload, fill,
    run_cell,
};
use raidlab::block::Sectors;
use raidlab::raid::level::Level;

const WORKLOADS: [&str; 4] = ["rand-read-4K-q1", "rand-write-4K-q1", "seq-read-1M-q1", "seq-write-1M-q1"];

/// A repetition is given this long at the most.
const LONGEST: Duration = Duration::from_secs(60);

fn arrays(criterion: &mut Criterion) {
    let store = Store::new(Backend::Mem, &std::env::temp_dir()).0;
    let clock = RealClock::start();
    let never = AtomicBool::new(false);
    for level in [Level::Raid0, Level::Raid5, Level::Raid6] {
        // Five disks: a small write to RAID5 is a read-modify-write.
        let member = Sectors::floor_bytes(16 << 20);
        let spec = ArraySpec { level, disks: 5, chunk: Sectors::floor_bytes(64 << 10), member };
        let mut array = ArraySubject::new(level.to_string(), spec, &store, clock).expect("memory makes every level");
        let mut pool = PayloadPool::new(1 << 20, 0);
        let span = fill(&mut array, &mut pool, LONGEST, &clock, &never).expect("memory takes every write");
        let mut group = criterion.benchmark_group(format!("array/{}", array.name()));
        for name in WORKLOADS {
            let workload: Workload = name.parse().expect("these are workloads");
            group.throughput(Throughput::Bytes(workload.block.bytes()));
            group.bench_function(name, |b| {
                b.iter_custom(|requests| {
                    let offsets = Offsets::new(workload, span, 0);
                    let budget = Budget::requests(requests, LONGEST);
                    let began = clock.now();
                    let done = run_cell(&mut array, offsets, &mut pool, budget, &clock, &never);
                    assert_eq!((done.requests(), done.errors), (requests, 0));
                    clock.now().since(began)
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
    targets = arrays
}
criterion_main!(benches);
