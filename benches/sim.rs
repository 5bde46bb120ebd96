//! Simulated I/Os, forks and crash points, one by one: `cargo bench --bench sim -- "crash points"`; with
//! `--profile-time 10` under a profiler. `raidlab bench sim` is the report.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use raidlab::bench::sim::{Options, Work};

fn simulator(criterion: &mut Criterion) {
    let options = Options { io_ops: 1000, life_ops: 20, ..Options::default() };
    let mut group = criterion.benchmark_group("sim");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for work in Work::ALL {
        let job = work.prepare(&options);
        group.throughput(Throughput::Elements(job.run().0));
        group.bench_function(work.name(), |bencher| bencher.iter(|| job.run()));
    }
    group.finish();
}

criterion_group!(benches, simulator);
criterion_main!(benches);
