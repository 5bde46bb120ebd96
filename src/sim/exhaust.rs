//! Small scope, exhaustively: every short story there is on the smallest array that has a level's properties.
//!
//! Most bugs show in small examples, if only all of them are tried (the small scope hypothesis: Jackson, "Software
//! Abstractions", ch. 5; for crashes of file systems: Mohan et al., "Finding Crash-Consistency Bugs with Bounded
//! Black-Box Crash Testing", OSDI '18). What chance may need a million lives for, a race of two writes with a lost disk
//! and a power cut, is here by its number.
//!
//! A [`Space`] is all *words* of a few operations and faults, in every order, on one array of one-sector chunks. The
//! operations go one by one, a fault between them, or all at once, a fault when something has happened to those before.
//! Each word is a [`Scenario`]; it is lived, and after its last operation or fault the power of a copy is cut before
//! every event ([`Cuts::All`]): for every combination of the sectors that may survive while there are at most 16, with
//! stopped disks gone and back. What comes up must assemble, recover, read right, check clean, and read right from every
//! view with more members lost. What is before the last operation or fault is the life of a shorter word, which is there,
//! too.
//!
//! # The operations
//!
//! Nine are enough for every plan: a write of one chunk and of the next one (the same row of the same stripe, or the
//! next copy), of a whole stripe, of the end of one stripe and the beginning of the next; a forced write; a flush; a
//! read of two stripes; a discard of a stripe; zeroes across two. With them a band is written in part, as a whole, under
//! another band's lock, and read whole, reconstructed and in competition. Left out is what is one of these in other
//! places: other stripes have their parity elsewhere, and faults strike every slot instead; other chunks stand where
//! others stood; forced and unforced only differ in what they wait for. What a difference applied to old parity
//! (read-modify-write) costs is cheaper than encoding anew only where three chunks are not written, or two and one of
//! them is lost: that is why RAID5 has four disks here, one more than it needs; RAID6 would need six ([`Scope::disks`]).
//!
//! # The faults
//!
//! Of every slot: it stops; its sector in the first stripe cannot be read; its next write fails; its next flush fails
//! and takes the cache with it; it is failed while a spare waits, and recovered. And the power is cut, with all that
//! caches held lost, or kept. As long as a level promises to bear them, data must come back; beyond, errors must be
//! earned.

use std::collections::BTreeSet;

use super::array::Lab;
use super::life::{Cuts, Effort, Survivors, Watch, live_watched};
use super::scenario::{Act, Clients, Regime, Scenario, Step, Target, When};
use super::{CacheLoss, ClientOp, Report, Rng, Shape, ShapeError, SimBank, Verdict};
use crate::block::{Durability, Extent, Lba, Sectors};
use crate::disk::FaultKind;
use crate::raid::level::Level;

/// How far a space goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// Operations of a word, at most.
    pub ops: usize,
    /// Faults of a word, at most.
    pub faults: usize,
    /// Stripes of the array, at most: where md's metadata takes no array as small, those behind are only audited.
    pub stripes: u64,
    /// Members; `None`: the fewest with which every plan of the level is reached, RAID6's differences excepted.
    pub disks: Option<usize>,
    /// With a write-intent bitmap.
    pub bitmap: bool,
    /// The recovery from each power cut is cut off again.
    pub twice: bool,
    /// Decides how long disks take, and so the order of their answers: one of many.
    pub seed: u64,
}

impl Scope {
    /// What a dozen cores do in about a minute.
    pub const USUAL: Scope = Scope { ops: 2, faults: 1, stripes: 6, disks: None, bitmap: false, twice: false, seed: 0 };
}

/// All words of one level.
#[derive(Clone, Debug)]
pub struct Space {
    scope: Scope,
    shape: Shape,
    /// Sequences of so many operations.
    ops: Vec<Vec<Vec<ClientOp>>>,
    /// Sequences of so many faults, each of some acts.
    faults: Vec<Vec<Vec<Fault>>>,
    blocks: Vec<Block>,
}

/// What is done together.
type Fault = Vec<Act>;

/// How operations follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    OneByOne,
    AtOnce,
}

/// Words with so many operations and faults.
#[derive(Clone, Debug)]
struct Block {
    pace: Pace,
    ops: usize,
    faults: usize,
    /// Before which operation each fault comes, in every way.
    places: Vec<Vec<usize>>,
    /// The number of its first word.
    first: u64,
    words: u64,
}

/// What the life of a word was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lived {
    /// What it came to.
    pub report: Report,
    /// How it ended.
    pub verdict: Verdict,
    /// Fingerprints of what power cuts left on disks.
    pub states: Vec<u64>,
}

impl Space {
    /// The space of a level.
    ///
    /// # Errors
    /// If there is no array of so many disks, or a bitmap without redundancy.
    pub fn new(level: Level, scope: Scope) -> Result<Space, ShapeError> {
        let shape = smallest(level, &scope)?;
        let single = |letters: Vec<ClientOp>| sequences(&letters, scope.ops);
        let mut ops = single(alphabet(&shape));
        // What changes nothing is not done twice in a row.
        let idle = |op: &ClientOp| matches!(op, ClientOp::Flush | ClientOp::Read(_));
        for words in &mut ops {
            words.retain(|word| word.windows(2).all(|two| two[0] != two[1] || !idle(&two[0])));
        }
        let faults = sequences(&harms(&shape), scope.faults);
        let mut space = Space { scope, shape, ops, faults, blocks: Vec::new() };
        let mut sizes: Vec<(usize, usize)> =
            (0..=scope.ops).flat_map(|ops| (0..=scope.faults).map(move |faults| (ops, faults))).collect();
        // Short words first.
        sizes.sort_by_key(|(ops, faults)| (ops + faults, *faults));
        for (ops, faults) in sizes {
            for pace in [Pace::OneByOne, Pace::AtOnce] {
                space.add_block(pace, ops, faults);
            }
        }
        Ok(space)
    }

    fn add_block(&mut self, pace: Pace, ops: usize, faults: usize) {
        let mut places = rising(ops, faults);
        if pace == Pace::AtOnce {
            // Less than two at once, with nothing under way when a fault comes, are one by one.
            places.retain(|places| ops > 1 || places.iter().any(|place| *place > 0));
        }
        let words = (self.ops[ops].len() * self.faults[faults].len() * places.len()) as u64;
        let first = self.words();
        self.blocks.push(Block { pace, ops, faults, places, first, words });
    }

    /// The array.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How many words there are. They are numbered from 0, short ones first.
    pub fn words(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.first + block.words)
    }

    /// The scope it was made for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// `count` words drawn from all parts of the space, rising; all of them if there are no more.
    pub fn sample(&self, count: u64, seed: u64) -> Vec<u64> {
        let words = self.words();
        if count >= words {
            return (0..words).collect();
        }
        let mut rng = Rng::new(seed, 104);
        let border = |part: u64| (u128::from(words) * u128::from(part) / u128::from(count)) as u64;
        (0..count).map(|part| rng.range(border(part)..border(part + 1))).collect()
    }

    /// The word of a number below [`words`](Space::words).
    pub fn scenario(&self, number: u64) -> Scenario {
        assert!(number < self.words(), "there are {} words, and none of number {number}", self.words());
        let block = &self.blocks[self.blocks.partition_point(|block| block.first + block.words <= number)];
        let rest = (number - block.first) as usize;
        let (ops, faults) = (&self.ops[block.ops], &self.faults[block.faults]);
        let (rest, ops) = (rest / ops.len(), &ops[rest % ops.len()]);
        let (places, faults) = (&block.places[rest / faults.len()], &faults[rest % faults.len()]);
        let clients = match block.pace {
            Pace::OneByOne => Clients { depth: 1, ops: ops.clone() },
            Pace::AtOnce => Clients { depth: AT_ONCE, ops: ops.clone() },
        };
        let mut scenario = Scenario::new(self.scope.seed, regime(&self.shape, faults), self.shape, clients);
        for (fault, place) in faults.iter().zip(places) {
            let when = match block.pace {
                Pace::OneByOne => When::Answered(*place),
                Pace::AtOnce => When::Op(*place),
            };
            for act in fault {
                let id = scenario.steps.len() as u32 + 1;
                scenario.steps.push(Step { id, when, act: *act });
            }
        }
        scenario
    }

    /// Lives the word of a number.
    pub fn live(&self, number: u64) -> Lived {
        let survivors = Survivors { twice: self.scope.twice, ..Survivors::FEW };
        let effort = Effort { cuts: Cuts::All(survivors), ..Effort::PLAIN };
        let mut seen = Seen::default();
        let (report, verdict) = live_watched(&self.scenario(number), effort, &mut seen);
        let Seen { mut states, .. } = seen;
        states.sort_unstable();
        states.dedup();
        Lived { report, verdict, states }
    }
}

/// More than any word has, so that a longer one begins like a shorter one.
const AT_ONCE: usize = 64;

/// Remembers what power cuts left, and of which arrays at rest views were read.
#[derive(Default)]
struct Seen {
    states: Vec<u64>,
    data: BTreeSet<u64>,
}

impl Watch for Seen {
    fn left(&mut self, bank: &SimBank) {
        self.states.push(bank.fingerprint());
    }

    fn is_new(&mut self, lab: &Lab) -> bool {
        self.data.insert(lab.data())
    }
}

/// The smallest array for the scope.
fn smallest(level: Level, scope: &Scope) -> Result<Shape, ShapeError> {
    let disks = scope.disks.unwrap_or(match level {
        Level::Raid0 | Level::Raid1 => 2,
        Level::Raid4 | Level::Raid10 => 3,
        Level::Raid5 | Level::Raid6 => 4,
    });
    let bitmap = scope.bitmap.then_some(Sectors(8));
    let plain = Shape { chunk: Sectors(1), bitmap, ..Shape::plain(level, disks) };
    // md has no members below 10 sectors, and a bitmap takes 128.
    let sizes = [scope.stripes, 10, 16, 32, 64, 128];
    let mut shapes = sizes.into_iter().map(|member| Shape { member: Sectors(member), ..plain });
    let fits = |shape: &Shape| shape.check().is_ok() && shape.geometry().stripes() >= scope.stripes;
    match shapes.find(fits) {
        Some(shape) => Ok(shape),
        None => Shape { member: Sectors(128), ..plain }.check().map(|()| Shape { member: Sectors(128), ..plain }),
    }
}

/// What clients do.
fn alphabet(shape: &Shape) -> Vec<ClientOp> {
    let geometry = shape.geometry();
    let stripe = geometry.stripe(geometry.locate(Lba(0)).0);
    // RAID1 has no chunks: a sector is one.
    let chunks = if stripe.rows == Sectors(1) { stripe.data_chunks as u64 } else { 1 };
    let at = |start: u64, length: u64| Extent::new(Lba(start), Sectors(length));
    let (volatile, forced) = (Durability::Volatile, Durability::Fua);
    let mut letters = vec![
        ClientOp::Write(at(0, 1), volatile),
        ClientOp::Write(at(1, 1), volatile),
        ClientOp::Write(at(0, chunks), volatile),
        ClientOp::Write(at(chunks - 1, 2), volatile),
        ClientOp::Write(at(0, 1), forced),
        ClientOp::Flush,
        ClientOp::Read(at(0, 2 * chunks)),
        ClientOp::Discard(at(0, chunks)),
        ClientOp::WriteZeroes(at(chunks - 1, 2), volatile),
    ];
    let all = letters.clone();
    let mut at = 0..;
    letters.retain(|letter| !all[..at.next().expect("there is no end")].contains(letter));
    letters
}

/// What happens besides.
fn harms(shape: &Shape) -> Vec<Fault> {
    let first = Extent::new(Lba(0), Sectors(1));
    let slots = (0..shape.disks as u8).map(Target::Slot);
    let of_slot = |slot| {
        let mut faults = vec![
            vec![Act::Stop(slot)],
            vec![Act::Unreadable(slot, first)],
            vec![Act::Fault(slot, FaultKind::WriteMedium, None, Some(1))],
            vec![Act::LoseFlush(slot, 1)],
        ];
        if shape.geometry().tolerance() > 0 {
            faults.push(vec![Act::Add, Act::Fail(slot)]);
        }
        faults
    };
    let cuts = [CacheLoss::DropAll, CacheLoss::KeepAll].map(|loss| vec![Act::PowerCut(loss)]);
    slots.flat_map(of_slot).chain(cuts).collect()
}

/// As long as the level promises to bear it, data must come back.
fn regime(shape: &Shape, faults: &[Fault]) -> Regime {
    let is_cut = |fault: &&Fault| matches!(fault[..], [Act::PowerCut(_)]);
    let cuts = faults.iter().filter(is_cut).count();
    let erasures = faults.len() - cuts;
    let bears = erasures <= shape.geometry().tolerance() && (cuts == 0 || erasures == 0);
    if bears { Regime::Budgeted } else { Regime::Unbudgeted }
}

/// All sequences of 0, 1, ... up to `most` letters.
fn sequences<T: Clone>(letters: &[T], most: usize) -> Vec<Vec<Vec<T>>> {
    let mut all = vec![vec![Vec::new()]];
    for _ in 0..most {
        let shorter = all.last().expect("there is the empty one");
        let longer = |word: &Vec<T>| {
            letters.iter().map(|letter| [&word[..], std::slice::from_ref(letter)].concat()).collect::<Vec<_>>()
        };
        all.push(shorter.iter().flat_map(longer).collect());
    }
    all
}

/// All sequences of `count` numbers up to `most` that do not fall.
fn rising(most: usize, count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        let longer = |word: &Vec<usize>| {
            let least = word.last().copied().unwrap_or(0);
            (least..=most).map(|next| [&word[..], &[next]].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_number_is_a_word_of_its_own_that_fits_its_array() {
        for level in Level::ALL {
            let space = Space::new(level, Scope::USUAL).unwrap();
            let texts: BTreeSet<String> = (0..space.words())
                .map(|number| {
                    let scenario = space.scenario(number);
                    scenario.check().unwrap();
                    scenario.to_toml()
                })
                .collect();
            assert_eq!(texts.len() as u64, space.words(), "{level}");
        }
    }
}
