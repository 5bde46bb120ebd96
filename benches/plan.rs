//! One decision: what a band reads, computes and writes.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

use raidlab::block::Sectors;
use raidlab::raid::geometry::{Geometry, GeometryConfig, MemberSizes, Role, StripeIndex};
use raidlab::raid::level::{Layout, Level};
use raidlab::raid::plan::{BandHealth, Intent, Prefer, plan};
use raidlab::raid::set::{ChunkSet, ColumnSet};

fn roles(level: Level) -> Vec<Role> {
    let config = GeometryConfig {
        level,
        layout: Layout::default_of(level),
        raid_disks: 6,
        chunk: Sectors(128),
        member_sizes: MemberSizes::Common(Sectors(1 << 20)),
    };
    let geometry = Geometry::new(config).expect("six disks make every level");
    geometry.stripe(StripeIndex(0)).columns.iter().map(|column| column.role).collect()
}

fn plans(criterion: &mut Criterion) {
    for level in [Level::Raid5, Level::Raid6, Level::Raid10] {
        let roles = roles(level);
        let whole = BandHealth::whole(roles.len());
        let left = whole.readable - ColumnSet::only(0);
        let degraded = BandHealth { readable: left, writable: left, sound: left, ..whole };
        let chunk = ChunkSet::only(0);
        let mut group = criterion.benchmark_group(format!("plan/{level}"));
        for (name, health, intent) in [
            ("read", whole, Intent::Read(chunk)),
            ("degraded read", degraded, Intent::Read(chunk)),
            ("write", whole, Intent::Write(chunk)),
            ("degraded write", degraded, Intent::Write(chunk)),
        ] {
            group.bench_function(name, |b| {
                b.iter(|| plan(black_box(&roles), black_box(&health), Prefer::First, black_box(intent)));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = plans
}
criterion_main!(benches);
