//! GRUB, which reads md arrays by itself, reads ours: a second witness beside the kernel.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::sample::Sample;
use crate::support::shape::Shape;
use crate::support::story::story;
use crate::support::twin::{Twin, without};
use crate::support::{process, tools};

pub fn trials() -> Vec<Trial> {
    vec![
        story("grub::grub_reads_our_arrays_whole_and_degraded")
            .needs(&["grub-fstest"])
            .sampled_by(grub_reads_our_arrays_whole_and_degraded),
    ]
}

/// The layouts GRUB knows; it reads wrong bytes from the others.
const KNOWN: [(u8, &str); 16] = [
    (0, ""),
    (1, ""),
    (4, ""),
    (5, "left-asymmetric"),
    (5, "right-asymmetric"),
    (5, "left-symmetric"),
    (5, "right-symmetric"),
    (6, "left-asymmetric"),
    (6, "right-asymmetric"),
    (6, "left-symmetric"),
    (6, "right-symmetric"),
    (10, "n2"),
    (10, "n3"),
    (10, "f2"),
    (10, "f3"),
    (10, "o2"),
];

fn grub_reads_our_arrays_whole_and_degraded(mut sample: Sample) {
    for (level, layout) in KNOWN {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let mut shape = Shape::of(level, layout, &mut sample);
        if (level, layout) == (6, "left-asymmetric") {
            // GRUB reads 32 KiB at a time, and goes wrong there when that spans chunks; md does not (`to_md`).
            shape.chunk_kib = shape.chunk_kib.map(|chunk| chunk.max(64));
        }
        let mut lab = Twin::create(directory.path(), &shape.name(), &shape);
        lab.fill(&mut sample);

        let absent = shape.slots(shape.tolerance.min(2), &mut sample);
        for images in [&lab.images, &without(&lab.images, &absent)] {
            let sum = crc_by_grub(images, &shape.name(), lab.content.len() as u64 / 512);
            assert_eq!(sum, crc32fast::hash(&lab.content), "{shape:?}, {} images", images.len());
        }
    }
}

/// CRC32 of the array called `name`.
#[track_caller]
fn crc_by_grub(images: &[PathBuf], name: &str, sectors: u64) -> u32 {
    let mut command = Command::new(tools::need("grub-fstest"));
    command.arg("-c").arg(images.len().to_string()).args(images).args(["crc", &format!("(md/{name})0+{sectors}")]);
    let ran = process::run(&mut command, Duration::from_secs(60)).expect_ok();
    u32::from_str_radix(ran.text().trim(), 16).unwrap_or_else(|_| panic!("no checksum: {ran}"))
}
