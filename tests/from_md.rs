//! What md made is ours: we read it in whatever state md left it, go on from there, and md takes it back.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::support::sample::{Sample, count};
use crate::support::shape::Shape;
use crate::support::story::story;
use crate::support::twin::{Twin, expect_examined, images, mdadm_examine, without};
use crate::support::uml::{self, Array};

pub fn trials() -> Vec<Trial> {
    vec![
        story("from_md::we_read_arrays_of_md_whole_and_degraded_and_md_takes_them_back")
            .needs(uml::TOOLS)
            .sampled_by(we_read_arrays_of_md),
        story("from_md::what_md_left_half_done_we_finish")
            .needs(uml::TOOLS)
            .sampled_by(what_md_left_half_done_we_finish),
        story("from_md::a_dirty_degraded_array_of_md_starts_with_force_only")
            .needs(uml::TOOLS)
            .sampled_by(a_dirty_degraded_array_starts_with_force_only),
        story("from_md::what_is_left_to_md_is_refused_and_not_touched")
            .needs(uml::TOOLS)
            .sampled_by(what_is_left_to_md_is_refused_and_not_touched),
    ]
}

const BATCH: usize = 5;

/// Bytes for md to fill arrays with, in a file and at hand.
struct Pattern {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Pattern {
    fn new(at: &Path, sample: &mut Sample) -> Pattern {
        // Longer than any array made here.
        let (path, bytes) = (at.join("pattern"), sample.bytes(96 << 20));
        std::fs::write(&path, &bytes).expect("the temporary directory has room");
        Pattern { path, bytes }
    }

    /// A lab over images that md filled.
    #[track_caller]
    fn assemble(&self, at: &Path, name: &str, images: &[PathBuf], options: &[&str]) -> Twin {
        let mut lab = Twin::assemble(at, name, images, options);
        lab.content = self.bytes[..lab.content.len()].to_vec();
        lab
    }
}

fn bytes_of(images: &[PathBuf]) -> Vec<Vec<u8>> {
    images.iter().map(|image| std::fs::read(image).expect("the image is there")).collect()
}

/// Every byte of the images is what it was.
#[track_caller]
fn expect_untouched(images: &[PathBuf], before: &[Vec<u8>]) {
    for (image, before) in images.iter().zip(before) {
        let now = std::fs::read(image).expect("the image is there");
        assert!(now == *before, "{} has changed", image.display());
    }
}

fn we_read_arrays_of_md(mut sample: Sample) {
    let all = Shape::of_every_layout(&mut sample);
    let shapes = sample.some(8, all);
    for batch in shapes.chunks(BATCH) {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let at = directory.path();
        let pattern = Pattern::new(at, &mut sample);
        let labs: Vec<_> = batch
            .iter()
            .map(|shape| (shape, images(at, &format!("{}-image", shape.name()), &shape.sizes_kib)))
            .collect();
        let creations: Vec<_> = labs
            .iter()
            .map(|(shape, images)| {
                let mut words = shape.for_mdadm();
                words.push(format!("--metadata={}", sample.one(&["1.2", "1.2", "1.1", "1.0"])));
                Array::create(&shape.name(), images, &words).settle().fill(&pattern.path).content()
            })
            .collect();
        let made = uml::run_arrays(&creations);

        let mut ours = Vec::new();
        for ((shape, images), made) in labs.iter().zip(&made) {
            made.expect_clean();
            expect_examined(images);
            if shape.tolerance > 0 {
                let absent = shape.slots(1 + sample.below(shape.tolerance as u64) as usize, &mut sample);
                let (rest, before) = (without(images, &absent), bytes_of(images));
                let mut degraded = pattern.assemble(at, &format!("{}-degraded", shape.name()), &rest, &["--overlay"]);
                degraded.expect_content();
                degraded.scribble(&mut sample);
                degraded.expect_content();
                expect_untouched(images, &before);
            }
            let mut lab = pattern.assemble(at, &shape.name(), images, &[]);
            made.expect_md5(&lab.md5());
            lab.expect_content();
            if shape.tolerance > 0 {
                lab.does("check", &[]);
            }
            lab.scribble(&mut sample);
            if shape.tolerance > 0 && sample.below(2) == 0 {
                let slot = sample.below(shape.members() as u64) as usize;
                lab.fail(&[slot]);
                lab.scribble(&mut sample);
                lab.renew(slot);
                lab.scribble(&mut sample);
            }
            lab.expect_content();
            expect_examined(&lab.images);
            ours.push(lab);
        }

        let again: Vec<_> = (labs.iter().zip(&ours))
            .map(|((shape, _), lab)| Array::assemble(&shape.name(), &lab.images, &[]).check().content())
            .collect();
        for (lab, verdict) in ours.iter().zip(uml::run_arrays(&again)) {
            verdict.expect_clean().expect_md5(&lab.md5());
        }
    }
}

/// A state md can be stopped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A spare holds the beginning of its slot's content.
    Recovering,
    /// Redundancy is right up to somewhere.
    Resyncing,
    /// Writes were under way; the bitmap says where.
    Dirty,
    /// A spare holds the beginning of what a member in sync has.
    Replacing,
    /// Some sectors of a member cannot be read.
    BadBlocks,
}

use State::{BadBlocks, Dirty, Recovering, Replacing, Resyncing};

fn what_md_left_half_done_we_finish(mut sample: Sample) {
    let mut all = Vec::new();
    for state in [Recovering, Resyncing, Dirty, Replacing, BadBlocks] {
        // Where some redundancy is wrong, it lies on the last member; elsewhere it may lie anywhere.
        let mut layouts = match state {
            Resyncing | Dirty => vec![(1, ""), (4, ""), (5, "parity-last"), (6, "parity-last"), (10, "n2")],
            _ => {
                vec![(1, ""), (4, ""), (5, "left-symmetric"), (6, "ddf-N-continue"), (10, "n2"), (10, "f2"), (10, "o2")]
            }
        };
        while layouts.len() > count(2, 7) {
            layouts.remove(sample.below(layouts.len() as u64) as usize);
        }
        for (level, layout) in layouts {
            let mut shape = Shape::of(level, layout, &mut sample);
            // The last of an odd number holds first copies, too.
            while layout == "n2" && shape.members() % 2 == 1 {
                shape = Shape::of(level, layout, &mut sample);
            }
            all.push((state, shape));
        }
    }
    for batch in all.chunks(BATCH) {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let at = directory.path();
        let pattern = Pattern::new(at, &mut sample);
        let mut left: Vec<_> =
            batch.iter().map(|(state, shape)| HalfDone::draw(at, *state, shape, &mut sample)).collect();
        // What is left dirty stays in use until the power is cut.
        left.sort_by_key(|half_done| half_done.state == Dirty);
        let arrays: Vec<_> = left.iter().map(|half_done| half_done.by_md(&pattern.path)).collect();
        let verdicts = uml::run_arrays(&arrays);

        let mut ours = Vec::new();
        for (half_done, verdict) in left.iter().zip(&verdicts) {
            half_done.expect_left(verdict);
            half_done.tear(&mut sample);
            expect_examined(&half_done.images);
            let mut lab = pattern.assemble(at, &half_done.name, &half_done.images, &[]);
            verdict.expect_md5(&lab.md5());
            lab.expect_content();
            lab.scribble(&mut sample);
            lab.expect_content();
            expect_examined(&lab.images);
            lab.does("wait", &[]).does("check", &[]).expect_content();
            expect_examined(&lab.images);
            ours.push(lab);
        }

        let again: Vec<_> = (left.iter().zip(&ours))
            .map(|(half_done, lab)| Array::assemble(&half_done.name, &lab.images, &[]).check().content())
            .collect();
        for (lab, verdict) in ours.iter().zip(uml::run_arrays(&again)) {
            verdict.expect_clean().expect_md5(&lab.md5());
        }
    }
}

/// How many sectors cannot be read.
const BAD_SECTORS: u64 = 24;

/// An array that md leaves in some state.
struct HalfDone {
    state: State,
    name: String,
    shape: Shape,
    images: Vec<PathBuf>,
    /// The slot it is about.
    slot: usize,
    /// How far it came, in sectors, a multiple of the chunk.
    until: u64,
    metadata: &'static str,
}

impl HalfDone {
    fn draw(at: &Path, state: State, shape: &Shape, sample: &mut Sample) -> HalfDone {
        let shape = Shape { bitmap: state == Dirty || (state != Resyncing && shape.bitmap), ..shape.clone() };
        let name = format!("{}-{state:?}", shape.name());
        let mut sizes = shape.sizes_kib.clone();
        sizes.extend((state == Replacing).then_some(sizes[0]));
        let images = images(at, &format!("{name}-image"), &sizes);
        let slot = sample.below(shape.members() as u64) as usize;
        let until = 2048 * (1 + sample.below(3));
        let metadata = if state == Resyncing { "1.2" } else { *sample.one(&["1.2", "1.1", "1.0"]) };
        HalfDone { state, name, shape, images, slot, until, metadata }
    }

    /// Makes wrong what nobody vouches for: redundancy of a write that had reached the data when the power was
    /// cut, and sectors that cannot be read.
    fn tear(&self, sample: &mut Sample) {
        let (image, at, length) = match self.state {
            Dirty | Resyncing => {
                let last = self.images.last().expect("arrays have members");
                // Within the last of 12 MiB or more, but for what the largest chunk may leave unused.
                let end = last.metadata().expect("it is a file").len();
                (last, end - (3 << 20) + sample.below(1 << 20), 100_000)
            }
            BadBlocks => (&self.images[self.slot], self.bad_at() * 512, BAD_SECTORS as usize * 512),
            Recovering | Replacing => return,
        };
        let file = std::fs::OpenOptions::new().write(true).open(image).expect("the image is there");
        file.write_all_at(&sample.bytes(length), at).expect("the temporary directory has room");
    }

    /// The first sector of the member that cannot be read.
    fn bad_at(&self) -> u64 {
        8192 + self.until
    }

    fn by_md(&self, pattern: &Path) -> Array {
        let HalfDone { state, name, shape, images, slot, until, .. } = self;
        let mut words = shape.for_mdadm();
        words.extend((*state == Replacing).then(|| "--spare-devices=1".to_owned()));
        // Many bits, so that it matters which are set.
        words.extend(shape.bitmap.then(|| "--bitmap-chunk=64K".to_owned()));
        words.push(format!("--metadata={}", self.metadata));
        let filled = |array: Array| array.settle().fill(pattern);
        let made = Array::create(name, images, &words);
        let array = match state {
            Recovering => filled(made).fail(*slot).remove(*slot).wipe(*slot).add_until(*slot, *until),
            Resyncing => filled(made).resync_until(*until),
            Dirty => filled(made).stay_dirty().fill(pattern),
            Replacing => filled(made).replace_until(*slot, images.len() - 1, *until),
            // Not read any more: md would write again what it cannot read, and take it off the list.
            BadBlocks => return filled(made).content().bad_block(*slot, self.bad_at(), BAD_SECTORS),
        };
        array.content()
    }

    fn expect_left(&self, verdict: &uml::Verdict) {
        verdict.expect_degraded(u64::from(self.state == Recovering));
        let examined: String = self.images.iter().map(|image| mdadm_examine(image)).collect();
        let told = match self.state {
            Recovering | Replacing => format!("Recovery Offset : {} sectors", self.until),
            Dirty => "State : active".to_owned(),
            BadBlocks => "bad blocks present".to_owned(),
            // mdadm does not tell.
            Resyncing => {
                let image = std::fs::read(&self.images[0]).expect("the image is there");
                assert_eq!(image[4096 + 208..][..8], self.until.to_le_bytes(), "{}", self.name);
                return;
            }
        };
        assert!(examined.contains(&told), "{}: {told} is not in {examined}", self.name);
    }
}

fn a_dirty_degraded_array_starts_with_force_only(mut sample: Sample) {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let at = directory.path();
    let pattern = Pattern::new(at, &mut sample);
    let all = vec![(4, ""), (5, "left-symmetric"), (6, "left-symmetric"), (6, "ddf-N-restart")];
    let shapes: Vec<_> =
        sample.some(2, all).into_iter().map(|(level, layout)| Shape::of(level, layout, &mut sample)).collect();
    let labs: Vec<_> =
        shapes.iter().map(|shape| (shape, images(at, &format!("{}-image", shape.name()), &shape.sizes_kib))).collect();
    let made: Vec<_> = labs
        .iter()
        .map(|(shape, images)| {
            let array = Array::create(&shape.name(), images, &shape.for_mdadm()).settle();
            array.stay_dirty().fill(&pattern.path).content()
        })
        .collect();
    uml::run_arrays(&made).iter().for_each(|verdict| {
        verdict.expect_clean();
    });

    let mut ours = Vec::new();
    for (shape, images) in &labs {
        let slot = sample.below(shape.members() as u64) as usize;
        let rest = without(images, &[slot]);
        let before = bytes_of(images);
        let refused = Twin::try_assemble(at, &shape.name(), &rest, &[]).expect_code(4);
        assert!(refused.stderr.contains("cannot start dirty degraded array"), "{refused}");
        assert!(refused.stderr.contains("--force"), "{refused}");
        assert!(!at.join(shape.name()).exists(), "a refusal leaves no lab");
        expect_untouched(images, &before);

        let mut lab = pattern.assemble(at, &shape.name(), &rest, &["--force"]);
        lab.expect_content();
        lab.scribble(&mut sample);
        expect_examined(&rest);
        lab.images = images.clone();
        lab.does("add", &[&images[slot].display().to_string(), "--spare"]);
        lab.does("wait", &[]).does("check", &[]).expect_content();
        expect_examined(&lab.images);
        ours.push(lab);
    }
    let again: Vec<_> = (labs.iter().zip(&ours))
        .map(|((shape, _), lab)| Array::assemble(&shape.name(), &lab.images, &[]).check().content())
        .collect();
    for (lab, verdict) in ours.iter().zip(uml::run_arrays(&again)) {
        verdict.expect_clean().expect_md5(&lab.md5());
    }
}

fn what_is_left_to_md_is_refused_and_not_touched(mut sample: Sample) {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let at = directory.path();
    let pattern = Pattern::new(at, &mut sample);
    let raid5 = ["--level=5", "--raid-devices=3", "--chunk=64"];
    let with = |more: &'static str| [&raid5[..], &[more]].concat();
    let [old, journal, ppl, growing, linear] =
        ["0.90", "journal", "ppl", "growing", "linear"].map(|name| images(at, name, &[16 * 1024; 4]));
    // The formats of controllers keep 32 MiB for themselves.
    let [ddf, imsm] = ["ddf", "imsm"].map(|name| images(at, name, &[48 * 1024; 2]));
    let verdicts = uml::run_arrays(&[
        Array::create("0.90", &old[..3], &with("--metadata=0.90")).settle().fill(&pattern.path),
        Array::create_journalled("journal", &journal, &raid5).settle().fill(&pattern.path),
        Array::create("ppl", &ppl[..3], &with("--consistency-policy=ppl")).settle().fill(&pattern.path),
        Array::create("growing", &growing, &with("--spare-devices=1")).settle().fill(&pattern.path).grow(4),
        Array::create("linear", &linear, &["--level=linear", "--raid-devices=4"]).fill(&pattern.path),
        Array::create("ddf", &ddf, &["--metadata=ddf", "--raid-devices=2"]),
        Array::create("imsm", &imsm, &["--metadata=imsm", "--raid-devices=2"]),
    ]);
    for verdict in &verdicts {
        assert_eq!(verdict.problem, None, "{}", verdict.log);
    }

    let refusals = [
        (&old[..3], "0.90"),
        (&journal[..], "journal"),
        (&ppl[..3], "partial parity log"),
        (&growing[..], "reshape"),
        (&linear[..], "linear"),
        (&ddf[..], "DDF"),
        (&imsm[..], "IMSM"),
    ];
    for (images, told) in refusals {
        let before = bytes_of(images);
        for options in [&[][..], &["--force"], &["--overlay"]] {
            let refused = Twin::try_assemble(at, "lab", images, options).expect_code(4);
            assert!(refused.stderr.contains(told), "{told} is not in {refused}");
            assert!(!at.join("lab").exists(), "a refusal leaves no lab");
        }
        expect_untouched(images, &before);
    }
}
