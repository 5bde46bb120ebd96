//! The planner: all that is hard about RAID, as one pure function.
//!
//! A band is a rectangle in a stripe: the same rows of some chunks. Given what each column of the
//! stripe holds, which columns can be read or written in these rows, and what somebody wants, the
//! planner says which columns to read, what to compute, and which columns to write. What is left
//! for the array is to carry that out. A failed read shrinks the health, and the same function
//! plans again.
//!
//! Small writes to a parity stripe have two ways. *Read-modify-write* reads the old bytes of the
//! written chunks and of the parity and applies the difference; *reconstruct-write* reads the
//! chunks that are not written and encodes anew. Whichever reads less is taken, and of equals
//! read-modify-write, because it reads where it will write; except where parity
//! is not trusted: a difference applied to wrong parity keeps it wrong (and hides it), so there
//! only reconstruct-write is right.

use super::geometry::Role;
use super::mutant::{self, Mutant};
use super::set::{ChunkSet, ColumnSet};

/// What is wanted of a band.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// The bytes of these chunks.
    Read(ChunkSet),
    /// New bytes for these chunks.
    Write(ChunkSet),
    /// The bytes these columns should hold, written to whatever stands in their slots.
    Recover(ColumnSet),
    /// Redundancy made to agree with the data: parity encoded anew, copies made from the first.
    Resync,
    /// Everything that can be read, to be compared.
    Check,
}

/// The state of each column in the rows of a band.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BandHealth {
    /// Columns that hold what they should.
    pub readable: ColumnSet,
    /// Columns that take writes.
    pub writable: ColumnSet,
    /// Columns on which written bytes can be read back: the writable ones less those that a
    /// recovery has yet to fill.
    pub sound: ColumnSet,
    /// Redundancy agrees with the data: parity with its chunks, copies with each other.
    pub trusted: bool,
}

impl BandHealth {
    /// All `columns` in order.
    pub fn whole(columns: usize) -> BandHealth {
        let all = ColumnSet::first(columns);
        BandHealth { readable: all, writable: all, sound: all, trusted: true }
    }
}

/// How parity follows a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parity {
    /// There is none to write.
    Keep,
    /// Computed from all data chunks: those read, recovered and newly written.
    Encode,
    /// The difference of old and new data applied to the old parity.
    Delta,
}

/// What to read, compute and write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Columns to read first.
    pub reads: ColumnSet,
    /// Data chunks to reconstruct from what was read.
    pub recover: ChunkSet,
    /// How parity is made.
    pub parity: Parity,
    /// Columns to write then.
    pub writes: ColumnSet,
    /// Parity columns that no longer match anything after the write and must be recorded as bad
    /// before it is acknowledged: too much was lost to compute them.
    pub poison: ColumnSet,
}

impl Plan {
    const NOTHING: Plan = Plan {
        reads: ColumnSet::EMPTY,
        recover: ChunkSet::EMPTY,
        parity: Parity::Keep,
        writes: ColumnSet::EMPTY,
        poison: ColumnSet::EMPTY,
    };
}

/// These chunks cannot be had: more is lost than the redundancy covers, or what is left of it is
/// not to be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unrecoverable(pub ChunkSet);

/// Which of several equal copies to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefer {
    /// The first that can be read.
    First,
    /// This column, if it can be read.
    Column(usize),
}

/// Plans `intent` for a band of a stripe whose columns play `roles`.
pub fn plan(roles: &[Role], health: &BandHealth, prefer: Prefer, intent: Intent) -> Result<Plan, Unrecoverable> {
    debug_assert!(health.writable.contains_all(health.sound), "{health:?}: sound columns take writes");
    debug_assert!(health.readable.is_empty() || ColumnSet::first(roles.len()).contains_all(health.readable));
    if roles.iter().any(|role| matches!(role, Role::P)) {
        ParityStripe::new(roles, health).plan(intent)
    } else {
        Copies { roles, health, prefer }.plan(intent)
    }
}

/// Stripes without parity: every chunk stands in one column or more.
struct Copies<'a> {
    roles: &'a [Role],
    health: &'a BandHealth,
    prefer: Prefer,
}

impl Copies<'_> {
    fn plan(&self, intent: Intent) -> Result<Plan, Unrecoverable> {
        match intent {
            Intent::Read(chunks) => Ok(Plan { reads: self.sources(chunks)?, ..Plan::NOTHING }),
            Intent::Write(chunks) => self.write(chunks),
            Intent::Recover(targets) => {
                // What is there is copied from itself: a replacement must be like the member beside it, also where a
                // crash has left other copies different.
                let copied = targets & self.health.readable;
                let chunks = (targets - copied).iter().map(|column| self.chunk(column)).collect();
                Ok(Plan { reads: copied | self.sources(chunks)?, writes: targets, ..Plan::NOTHING })
            }
            Intent::Resync => {
                let reads = self.sources(self.chunks())?;
                Ok(Plan { reads, writes: self.health.writable - reads, ..Plan::NOTHING })
            }
            Intent::Check => Ok(Plan { reads: self.health.readable, ..Plan::NOTHING }),
        }
    }

    fn chunk(&self, column: usize) -> usize {
        let Role::Data { index, .. } = self.roles[column] else { panic!("column {column} of a mirror is not data") };
        index as usize
    }

    fn chunks(&self) -> ChunkSet {
        (0..self.roles.len()).map(|column| self.chunk(column)).collect()
    }

    fn columns_of(&self, chunk: usize) -> ColumnSet {
        (0..self.roles.len()).filter(|column| self.chunk(*column) == chunk).collect()
    }

    /// One readable column for each of `chunks`.
    fn sources(&self, chunks: ChunkSet) -> Result<ColumnSet, Unrecoverable> {
        let mut sources = ColumnSet::EMPTY;
        let mut lost = ChunkSet::EMPTY;
        for chunk in chunks.iter() {
            let candidates = self.columns_of(chunk) & self.health.readable;
            let chosen = match self.prefer {
                Prefer::Column(column) if self.health.trusted && candidates.contains(column) => Some(column),
                Prefer::Column(_) | Prefer::First => candidates.lowest(),
            };
            match chosen {
                Some(column) => sources.insert(column),
                None => lost.insert(chunk),
            }
        }
        if lost.is_empty() { Ok(sources) } else { Err(Unrecoverable(lost)) }
    }

    fn write(&self, chunks: ChunkSet) -> Result<Plan, Unrecoverable> {
        let lost: ChunkSet =
            chunks.iter().filter(|chunk| (self.columns_of(*chunk) & self.health.sound).is_empty()).collect();
        if !lost.is_empty() {
            return Err(Unrecoverable(lost));
        }
        let all = chunks.iter().fold(ColumnSet::EMPTY, |columns, chunk| columns | self.columns_of(chunk));
        Ok(Plan { writes: all & self.health.writable, ..Plan::NOTHING })
    }
}

/// Stripes with parity: data chunk `i` stands in column `i`, P and Q behind them.
struct ParityStripe<'a> {
    health: &'a BandHealth,
    data: ColumnSet,
    p: ColumnSet,
    q: ColumnSet,
}

fn columns(chunks: ChunkSet) -> ColumnSet {
    ColumnSet::from_bits(chunks.bits())
}

fn chunks(columns: ColumnSet) -> ChunkSet {
    ChunkSet::from_bits(columns.bits())
}

impl ParityStripe<'_> {
    fn new<'a>(roles: &[Role], health: &'a BandHealth) -> ParityStripe<'a> {
        let where_is = |wanted: fn(&Role) -> bool| {
            roles.iter().enumerate().filter(|(_, role)| wanted(role)).map(|(column, _)| column).collect::<ColumnSet>()
        };
        let data = where_is(|role| matches!(role, Role::Data { .. }));
        assert_eq!(data, ColumnSet::first(data.len()), "data chunk i stands in column i");
        ParityStripe {
            health,
            data,
            p: where_is(|role| matches!(role, Role::P)),
            q: where_is(|role| matches!(role, Role::Q)),
        }
    }

    fn parity(&self) -> ColumnSet {
        self.p | self.q
    }

    fn plan(&self, intent: Intent) -> Result<Plan, Unrecoverable> {
        match intent {
            Intent::Read(wanted) => self.read(columns(wanted)),
            Intent::Write(written) => self.write(columns(written)),
            Intent::Recover(targets) => self.recover(targets),
            Intent::Resync => self.resync(),
            Intent::Check => Ok(Plan { reads: self.health.readable, ..Plan::NOTHING }),
        }
    }

    /// The parity columns, of those in `from`, that determine the data columns `missing`.
    fn solve(&self, missing: ColumnSet, from: ColumnSet) -> Option<ColumnSet> {
        match missing.len() {
            0 => Some(ColumnSet::EMPTY),
            1 if !(self.p & from).is_empty() => Some(self.p),
            1 if !(self.q & from).is_empty() => Some(self.q),
            2 if !(self.p & from).is_empty() && !(self.q & from).is_empty() => Some(self.parity()),
            _ => None,
        }
    }

    /// Everything that has to be read to know the data columns `wanted`.
    fn sources(&self, wanted: ColumnSet) -> Result<ColumnSet, Unrecoverable> {
        let lost = wanted - self.health.readable;
        if lost.is_empty() {
            return Ok(wanted);
        }
        let missing = self.data - self.health.readable;
        match self.solve(missing, self.health.readable) {
            Some(parity) if self.health.trusted => Ok((self.data - missing) | parity),
            _ => Err(Unrecoverable(chunks(lost))),
        }
    }

    fn read(&self, wanted: ColumnSet) -> Result<Plan, Unrecoverable> {
        let reads = self.sources(wanted)?;
        Ok(Plan { reads, recover: chunks(wanted - self.health.readable), ..Plan::NOTHING })
    }

    fn write(&self, written: ColumnSet) -> Result<Plan, Unrecoverable> {
        let parity = self.parity() & self.health.writable;
        let direct = Plan { writes: written & self.health.writable, ..Plan::NOTHING };
        let unsound = written - self.health.sound;
        if parity.is_empty() {
            return if unsound.is_empty() { Ok(direct) } else { Err(Unrecoverable(chunks(unsound))) };
        }
        let encode = self.encode(written, parity, direct);
        let delta = self.delta(written, parity, direct);
        match (encode, delta) {
            (Some(encode), _) if !self.health.trusted && !mutant::is_on(Mutant::DifferenceOnDoubtfulParity) => {
                Ok(encode)
            }
            (Some(encode), Some(delta)) => Ok(if delta.reads.len() <= encode.reads.len() { delta } else { encode }),
            (Some(only), None) | (None, Some(only)) => Ok(only),
            // Too much of the stripe is lost to know its parity. What is written is still good in its own
            // column; the parity must never again be used to reconstruct anything here.
            (None, None) if unsound.is_empty() => Ok(Plan { poison: parity, ..direct }),
            (None, None) => Err(Unrecoverable(chunks(unsound))),
        }
    }

    /// Reconstruct-write; with data columns lost that are not written, they are recovered first.
    fn encode(&self, written: ColumnSet, parity: ColumnSet, direct: Plan) -> Option<Plan> {
        let kept = self.data - written;
        let reads = self.sources(kept).ok()?;
        let lost_after = (written - self.health.sound) | (kept - self.health.readable);
        if !(written - self.health.sound).is_empty() {
            self.solve(lost_after, parity & self.health.sound)?;
        }
        let recover = chunks(kept - self.health.readable);
        Some(Plan { reads, recover, parity: Parity::Encode, writes: direct.writes | parity, ..direct })
    }

    /// Read-modify-write; possible where every old byte it needs can be read.
    fn delta(&self, written: ColumnSet, parity: ColumnSet, direct: Plan) -> Option<Plan> {
        let reads = written | parity;
        let possible = self.health.readable.contains_all(reads) && self.health.sound.contains_all(written);
        possible.then_some(Plan { reads, parity: Parity::Delta, writes: direct.writes | parity, ..direct })
    }

    /// A target that can be read (its member still serves while a replacement fills) is copied; the
    /// others are computed, all in one pass.
    fn recover(&self, targets: ColumnSet) -> Result<Plan, Unrecoverable> {
        let copied = targets & self.health.readable;
        let computed = targets - copied;
        let (parity, wanted) =
            if (computed & self.parity()).is_empty() { (Parity::Keep, computed) } else { (Parity::Encode, self.data) };
        let reads = copied | self.sources(wanted)?;
        Ok(Plan { reads, recover: chunks(wanted - self.health.readable), parity, writes: targets, ..Plan::NOTHING })
    }

    fn resync(&self) -> Result<Plan, Unrecoverable> {
        let writes = self.parity() & self.health.writable;
        let lost = self.data - self.health.readable;
        if !lost.is_empty() {
            return Err(Unrecoverable(chunks(lost)));
        }
        Ok(Plan { reads: self.data, parity: Parity::Encode, writes, ..Plan::NOTHING })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raid::set::Set64;

    /// What one column of the test stripe can be.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum State {
        Fine,
        /// Unreadable, takes writes, and what is written there counts: a bad block.
        Bad,
        /// Takes writes that do not count yet: a recovery is about to pass.
        Stale,
        Gone,
    }

    const STATES: [State; 4] = [State::Fine, State::Bad, State::Stale, State::Gone];

    fn health(states: &[State], trusted: bool) -> BandHealth {
        let those = |wanted: fn(State) -> bool| {
            states.iter().enumerate().filter(|(_, s)| wanted(**s)).map(|(c, _)| c).collect::<ColumnSet>()
        };
        BandHealth {
            readable: those(|s| s == State::Fine),
            writable: those(|s| s != State::Gone),
            sound: those(|s| matches!(s, State::Fine | State::Bad)),
            trusted,
        }
    }

    fn parity_roles(columns: usize, parities: usize) -> Vec<Role> {
        let data = columns - parities;
        (0..columns)
            .map(|c| match c.checked_sub(data) {
                None => Role::Data { index: c as u8, exponent: c as u8 },
                Some(0) => Role::P,
                Some(_) => Role::Q,
            })
            .collect()
    }

    fn double(byte: u8) -> u8 {
        byte << 1 ^ if byte & 0x80 == 0 { 0 } else { 0x1d }
    }

    /// The parity byte of a role, straight from the definition.
    fn parity_of(role: Role, data: &[u8]) -> u8 {
        match role {
            Role::P => data.iter().fold(0, |p, d| p ^ d),
            Role::Q => data.iter().rev().fold(0, |q, d| double(q) ^ d),
            Role::Data { index, .. } => data[index as usize],
        }
    }

    /// All data that agrees with what `known` says of each column: solved by trying every byte.
    fn solutions(roles: &[Role], known: &[Option<u8>], data: usize) -> Vec<Vec<u8>> {
        let free: Vec<usize> = (0..data).filter(|c| known[*c].is_none()).collect();
        assert!(free.len() <= 2, "the planner asks for two at most");
        let mut found = Vec::new();
        let mut bytes: Vec<u8> = (0..data).map(|c| known[c].unwrap_or(0)).collect();
        for guess in 0..256_usize.pow(free.len() as u32) {
            for (at, column) in free.iter().enumerate() {
                bytes[*column] = (guess >> (8 * at)) as u8;
            }
            let fits = |c: usize| known[c].is_none_or(|byte| byte == parity_of(roles[c], &bytes));
            if (data..roles.len()).all(fits) {
                found.push(bytes.clone());
            }
        }
        found
    }

    /// Everything a stripe of one byte a column holds: what is on the columns, and what the user
    /// wrote last.
    struct Stripe {
        roles: Vec<Role>,
        data: usize,
        truth: Vec<u8>,
        media: Vec<u8>,
    }

    impl Stripe {
        fn new(roles: &[Role], states: &[State]) -> Stripe {
            let data = roles.iter().filter(|r| matches!(r, Role::Data { .. })).count();
            let truth: Vec<u8> = (0..data).map(|c| 0x35 ^ (c as u8).wrapping_mul(0x4b)).collect();
            let media = (0..roles.len())
                .map(|c| if states[c] == State::Fine { parity_of(roles[c], &truth) } else { 0xee })
                .collect();
            Stripe { roles: roles.to_vec(), data, truth, media }
        }

        /// The old bytes of all data that `plan` knows after its reads.
        fn learn(&self, plan: &Plan, health: &BandHealth) -> Vec<Option<u8>> {
            assert!(health.readable.contains_all(plan.reads), "{plan:?} reads what cannot be read");
            let mut known: Vec<Option<u8>> =
                (0..self.roles.len()).map(|c| plan.reads.contains(c).then_some(self.media[c])).collect();
            if !plan.recover.is_empty() {
                let solved = solutions(&self.roles, &known, self.data);
                for chunk in plan.recover.iter() {
                    let first = solved[0][chunk];
                    assert!(solved.iter().all(|s| s[chunk] == first), "{plan:?} leaves chunk {chunk} open");
                    known[chunk] = Some(first);
                }
            }
            known
        }

        fn write(&mut self, plan: &Plan, health: &BandHealth, written: ChunkSet) {
            let known = self.learn(plan, health);
            assert!(health.writable.contains_all(plan.writes), "{plan:?} writes what cannot be written");
            let new: Vec<u8> = (0..self.data)
                .map(|c| if written.contains(c) { self.truth[c] ^ 0xa7 } else { self.truth[c] })
                .collect();
            for column in plan.writes.iter() {
                self.media[column] = match (self.roles[column], plan.parity) {
                    (Role::Data { index, .. }, _) => new[index as usize],
                    (_, Parity::Keep) => panic!("{plan:?} writes parity it does not make"),
                    (role, Parity::Encode) => {
                        let known_after: Vec<u8> = (0..self.data)
                            .map(
                                |c| if written.contains(c) { new[c] } else { known[c].expect("encode knows all data") },
                            )
                            .collect();
                        parity_of(role, &known_after)
                    }
                    (role, Parity::Delta) => {
                        let difference: Vec<u8> =
                            (0..self.data)
                                .map(|c| {
                                    if written.contains(c) {
                                        new[c] ^ known[c].expect("delta knows the old")
                                    } else {
                                        0
                                    }
                                })
                                .collect();
                        parity_of(role, &difference) ^ known[column].expect("delta reads the old parity")
                    }
                };
            }
            self.truth = new;
        }
    }

    fn every_state(columns: usize, mut visit: impl FnMut(&[State])) {
        for code in 0..4_usize.pow(columns as u32) {
            let states: Vec<State> = (0..columns).map(|c| STATES[code >> (2 * c) & 3]).collect();
            visit(&states);
        }
    }

    fn lost_beyond(states: &[State], parities: usize) -> bool {
        states.iter().filter(|s| **s != State::Fine).count() > parities
    }

    /// Every parity stripe of up to six columns, every state of every column, every set of chunks.
    #[test]
    fn a_read_plan_reads_only_what_can_be_read_and_finds_the_truth_whenever_it_can_be_found() {
        for (columns, parities) in (3..=6).map(|n| (n, 1)).chain((4..=6).map(|n| (n, 2))) {
            let roles = parity_roles(columns, parities);
            every_state(columns, |states| {
                let health = health(states, true);
                let stripe = Stripe::new(&roles, states);
                for wanted in ChunkSet::first(stripe.data).subsets().skip(1) {
                    match plan(&roles, &health, Prefer::First, Intent::Read(wanted)) {
                        Ok(plan) => {
                            let known = stripe.learn(&plan, &health);
                            for chunk in wanted.iter() {
                                assert_eq!(known[chunk], Some(stripe.truth[chunk]), "{states:?} {plan:?}");
                            }
                            assert!(plan.writes.is_empty());
                        }
                        Err(Unrecoverable(lost)) => {
                            assert!(lost_beyond(states, parities), "{states:?} can be read");
                            assert!(wanted.contains_all(lost) && !lost.is_empty());
                        }
                    }
                }
            });
        }
    }

    /// After any write, every chunk that is not lost reads back right from every view the remaining
    /// redundancy offers: the columns themselves, and any solution through parity.
    #[test]
    fn after_a_write_plan_whatever_can_still_be_read_is_the_truth() {
        for (columns, parities) in (3..=5).map(|n| (n, 1)).chain((4..=6).map(|n| (n, 2))) {
            let roles = parity_roles(columns, parities);
            every_state(columns, |states| {
                let before = health(states, true);
                for written in ChunkSet::first(columns - parities).subsets().skip(1) {
                    let mut stripe = Stripe::new(&roles, states);
                    let plan = match plan(&roles, &before, Prefer::First, Intent::Write(written)) {
                        Ok(plan) => plan,
                        Err(Unrecoverable(lost)) => {
                            assert!(lost_beyond(states, parities), "{states:?} can be written");
                            assert!(written.contains_all(lost) && !lost.is_empty());
                            continue;
                        }
                    };
                    stripe.write(&plan, &before, written);
                    let healed = plan.writes & before.sound;
                    let after = BandHealth { readable: (before.readable | healed) - plan.poison, ..before };
                    for chunk in written.iter() {
                        let one = ChunkSet::only(chunk);
                        let read = super::plan(&roles, &after, Prefer::First, Intent::Read(one))
                            .unwrap_or_else(|_| panic!("{states:?} {plan:?}: written chunk {chunk} is lost"));
                        assert_eq!(
                            stripe.learn(&read, &after)[chunk],
                            Some(stripe.truth[chunk]),
                            "{states:?} {plan:?}"
                        );
                    }
                    // Every further loss the parity still covers must reveal the same truth.
                    for dropped in after.readable.subsets() {
                        let view = BandHealth { readable: after.readable - dropped, ..after };
                        for chunk in 0..stripe.data {
                            if let Ok(read) =
                                super::plan(&roles, &view, Prefer::First, Intent::Read(ChunkSet::only(chunk)))
                            {
                                let known = stripe.learn(&read, &view);
                                assert_eq!(
                                    known[chunk],
                                    Some(stripe.truth[chunk]),
                                    "{states:?} {plan:?} without {dropped:?}"
                                );
                            }
                        }
                    }
                }
            });
        }
    }

    #[test]
    fn a_recovery_plan_gives_every_target_its_byte_or_says_that_it_is_lost() {
        for (columns, parities) in (3..=6).map(|n| (n, 1)).chain((4..=6).map(|n| (n, 2))) {
            let roles = parity_roles(columns, parities);
            every_state(columns, |states| {
                let health = health(states, true);
                let stripe = Stripe::new(&roles, states);
                for targets in (ColumnSet::first(columns) - health.sound).subsets().skip(1) {
                    match plan(&roles, &health, Prefer::First, Intent::Recover(targets)) {
                        Ok(plan) => {
                            assert_eq!(plan.writes, targets);
                            let known = stripe.learn(&plan, &health);
                            for target in targets.iter() {
                                if target < stripe.data {
                                    assert_eq!(known[target], Some(stripe.truth[target]));
                                } else {
                                    assert_eq!(plan.parity, Parity::Encode);
                                    assert!(known[..stripe.data].iter().all(Option::is_some));
                                }
                            }
                        }
                        Err(_) => assert!(lost_beyond(states, parities), "{states:?} can be recovered"),
                    }
                }
            });
        }
    }

    #[test]
    fn untrusted_parity_is_never_used_and_is_made_right_by_the_next_write() {
        for (columns, parities) in [(3, 1), (5, 1), (5, 2), (6, 2)] {
            let roles = parity_roles(columns, parities);
            every_state(columns, |states| {
                let health = health(states, false);
                let data = ColumnSet::first(columns - parities);
                for chosen in ChunkSet::first(columns - parities).subsets().skip(1) {
                    if let Ok(plan) = plan(&roles, &health, Prefer::First, Intent::Read(chosen)) {
                        assert!(data.contains_all(plan.reads) && plan.recover.is_empty());
                    }
                    if states.iter().all(|s| *s == State::Fine) {
                        let plan =
                            plan(&roles, &health, Prefer::First, Intent::Write(chosen)).expect("nothing is lost");
                        assert_eq!(plan.parity, Parity::Encode);
                        assert_eq!(plan.reads, data - columns_of(chosen));
                    }
                }
            });
        }
    }

    fn columns_of(chunks: ChunkSet) -> ColumnSet {
        ColumnSet::from_bits(chunks.bits())
    }

    #[test]
    fn the_cheaper_of_read_modify_write_and_reconstruct_write_is_taken() {
        for (columns, parities) in (3..=12).map(|n| (n, 1)).chain((4..=12).map(|n| (n, 2))) {
            let roles = parity_roles(columns, parities);
            for written in 1..=columns - parities {
                let intent = Intent::Write(Set64::first(written));
                let plan = plan(&roles, &BandHealth::whole(columns), Prefer::First, intent).expect("whole");
                let (modify, reconstruct) = (written + parities, columns - parities - written);
                assert_eq!(plan.reads.len(), modify.min(reconstruct), "{columns} columns, {written} written");
                assert_eq!(plan.writes.len(), written + parities);
            }
        }
    }

    /// Mirrors, stripes and stripes of mirrors: each chunk has `copies` columns.
    #[test]
    fn copies_are_read_from_a_readable_one_and_written_to_all() {
        for (chunk_count, copies) in [(1, 1), (1, 2), (1, 3), (1, 5), (4, 1), (2, 2)] {
            let roles: Vec<Role> =
                (0..chunk_count * copies).map(|c| Role::Data { index: (c / copies) as u8, exponent: 0 }).collect();
            every_state(roles.len(), |states| {
                for (trusted, preferred) in [(true, 0), (true, roles.len() - 1), (false, roles.len() - 1)] {
                    let health = health(states, trusted);
                    let prefer = Prefer::Column(preferred);
                    for wanted in ChunkSet::first(chunk_count).subsets().skip(1) {
                        let of = |chunk: usize| ColumnSet::range(chunk * copies..(chunk + 1) * copies);
                        match plan(&roles, &health, prefer, Intent::Read(wanted)) {
                            Ok(plan) => {
                                assert!(health.readable.contains_all(plan.reads));
                                for chunk in wanted.iter() {
                                    assert_eq!((plan.reads & of(chunk)).len(), 1);
                                    if trusted && of(chunk).contains(preferred) && health.readable.contains(preferred) {
                                        assert!(plan.reads.contains(preferred));
                                    }
                                    if !trusted {
                                        assert_eq!(
                                            (plan.reads & of(chunk)).lowest(),
                                            (of(chunk) & health.readable).lowest()
                                        );
                                    }
                                }
                            }
                            Err(Unrecoverable(lost)) => {
                                assert!(lost.iter().all(|chunk| (of(chunk) & health.readable).is_empty()));
                            }
                        }
                        match plan(&roles, &health, prefer, Intent::Write(wanted)) {
                            Ok(plan) => {
                                let all = wanted.iter().fold(ColumnSet::EMPTY, |all, chunk| all | of(chunk));
                                assert_eq!(plan.writes, all & health.writable);
                            }
                            Err(Unrecoverable(lost)) => {
                                assert!(lost.iter().all(|chunk| (of(chunk) & health.sound).is_empty()));
                            }
                        }
                    }
                }
            });
        }
    }
}
