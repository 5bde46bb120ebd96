//! What we make is md's: real Linux md assembles it, finds it consistent, and reads our bytes.

use libtest_mimic::Trial;

use crate::support::sample::Sample;
use crate::support::shape::Shape;
use crate::support::story::story;
use crate::support::twin::{Twin, expect_examined, without};
use crate::support::uml::{self, Array};

pub fn trials() -> Vec<Trial> {
    vec![
        story("to_md::md_reads_our_arrays_whole_and_degraded_and_after_we_failed_and_recovered_members")
            .needs(uml::TOOLS)
            .sampled_by(md_reads_our_arrays),
    ]
}

/// How many arrays at a time: a boot is shared, and their images are gone before the next ones come.
const BATCH: usize = 5;

/// One array, in the states md is to see.
struct Told {
    shape: Shape,
    /// As we made and filled it.
    made: Twin,
    /// The slots that go missing.
    absent: Vec<usize>,
    /// We failed `absent` and went on writing.
    failed: Option<Twin>,
    /// We recovered, or brought back, all of them, and went on writing; perhaps a spare took another's place.
    mended: Option<Twin>,
}

fn md_reads_our_arrays(mut sample: Sample) {
    let all = Shape::of_every_layout(&mut sample);
    let shapes = sample.some(9, all);
    for batch in shapes.chunks(BATCH) {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let told: Vec<Told> = batch.iter().map(|shape| tell(shape, directory.path(), &mut sample)).collect();
        for told in &told {
            let states = [Some(&told.made), told.failed.as_ref(), told.mended.as_ref()];
            states.into_iter().flatten().for_each(|lab| expect_examined(&lab.images));
        }

        let arrays: Vec<Array> = told.iter().flat_map(arrays).collect();
        let verdicts = uml::run_arrays(&arrays);

        let mut verdicts = verdicts.iter();
        let mut next = || verdicts.next().expect("one verdict for each array");
        for Told { shape, made, absent, failed, mended } in &told {
            let verdict = next().expect_clean().expect_md5(&made.md5());
            assert_eq!(verdict.level, shape.md_level(), "{shape:?}");
            assert_eq!(verdict.sectors, Some(made.content.len() as u64 / 512), "{shape:?}");
            let (Some(failed), Some(mended)) = (failed, mended) else { continue };
            next().expect_degraded(absent.len() as u64).expect_md5(&made.md5());
            next().expect_degraded(absent.len() as u64).expect_md5(&failed.md5());
            next().expect_clean().expect_md5(&mended.md5());
            // And what md did to them meanwhile is fine with us.
            mended.expect_content().does("check", &[]);
            expect_examined(&mended.images);
        }
    }
}

fn tell(shape: &Shape, at: &std::path::Path, sample: &mut Sample) -> Told {
    let mut made = Twin::create(at, &shape.name(), shape);
    made.fill(sample);
    made.scribble(sample);
    made.expect_content();
    if shape.tolerance == 0 {
        return Told { shape: shape.clone(), made, absent: vec![], failed: None, mended: None };
    }
    let count = 1 + sample.below(shape.tolerance as u64) as usize;
    let absent = shape.slots(count, sample);
    let mut mended = made.copy(&at.join("mended"));
    mended.fail(&absent);
    mended.scribble(sample);
    mended.expect_content();
    let failed = mended.copy(&at.join("failed"));
    for slot in &absent {
        if shape.bitmap && sample.below(3) > 0 {
            mended.bring_back(*slot);
        } else {
            mended.renew(*slot);
        }
        mended.scribble(sample);
    }
    let slot = sample.below(shape.members() as u64) as usize;
    match sample.below(3) {
        0 => mended.hand_over(slot, "fail"),
        1 => mended.hand_over(slot, "replace"),
        _ => {}
    }
    mended.expect_content().does("check", &[]);
    Told { shape: shape.clone(), made, absent, failed: Some(failed), mended: Some(mended) }
}

fn arrays(told: &Told) -> Vec<Array> {
    let Told { shape, made, absent, failed, mended } = told;
    let whole = |state: &str, lab: &Twin| {
        Array::assemble(&format!("{} {state}", shape.name()), &lab.images, &[]).check().content()
    };
    let part = |state: &str, lab: &Twin| {
        Array::assemble(&format!("{} {state}", shape.name()), &without(&lab.images, absent), &[]).check().content()
    };
    let mut arrays = vec![whole("made", made)];
    if let (Some(failed), Some(mended)) = (failed, mended) {
        arrays.extend([part("degraded", made), part("failed", failed), whole("mended", mended)]);
    }
    arrays
}
