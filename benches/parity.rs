//! Every parity kernel over stripes in the caches, one call at a time.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::hint::black_box;

use raidlab::parity::{Column, Kernel};

const STRIPES: [(usize, usize); 3] = [(4, 4 << 10), (4, 64 << 10), (8, 64 << 10)];

fn parity(criterion: &mut Criterion) {
    for (data_disks, chunk_bytes) in STRIPES {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut column = || {
            let mut bytes = vec![0; chunk_bytes];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        let data: Vec<Vec<u8>> = (0..data_disks).map(|_| column()).collect();
        let (mut p, mut q, mut x, mut y) = (column(), column(), column(), column());
        let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let columns: Vec<Column<'_>> = slices.iter().copied().zip(0..).collect();

        let mut group = criterion.benchmark_group(format!("parity/{data_disks}x{}K", chunk_bytes >> 10));
        group.throughput(Throughput::Bytes((data_disks * chunk_bytes) as u64));
        for kernel in Kernel::all_supported() {
            group.bench_function(BenchmarkId::new("encode P", kernel), |b| {
                b.iter(|| kernel.encode_p(black_box(&mut p), black_box(&slices)));
            });
            group.bench_function(BenchmarkId::new("encode P+Q", kernel), |b| {
                b.iter(|| kernel.encode_pq(black_box(&mut p), black_box(&mut q), black_box(&columns)));
            });
            group.bench_function(BenchmarkId::new("recover 2", kernel), |b| {
                b.iter(|| {
                    let (x, y) = (black_box(&mut x[..]), black_box(&mut y[..]));
                    kernel.recover_two((x, 0), (y, 1), &p, &q, black_box(&columns[2..]));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, parity);
criterion_main!(benches);
