//! A stripe of one byte a column, planned for and changed, holds what was written to it.
//!
//! Input: kind of stripe, number of columns, the state of each; then what is done to it, one byte and a set a time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raidlab::raid::geometry::Role;
use raidlab::raid::plan::{BandHealth, Intent, Parity, Plan, Prefer, Unrecoverable, plan};
use raidlab::raid::set::{ChunkSet, ColumnSet};

/// What a column can be.
#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Fine,
    /// Unreadable, takes writes, and what is written there counts.
    Bad,
    /// Takes writes that do not count yet.
    Stale,
    Gone,
}

#[derive(Debug)]
struct Stripe {
    roles: Vec<Role>,
    states: Vec<State>,
    /// What the columns hold.
    media: Vec<u8>,
    /// What was written last to each chunk.
    truth: Vec<u8>,
    trusted: bool,
}

fn double(byte: u8) -> u8 {
    byte << 1 ^ if byte & 0x80 == 0 { 0 } else { 0x1d }
}

/// What a column of that role holds, by definition.
fn byte_of(role: Role, data: &[u8]) -> u8 {
    match role {
        Role::P => data.iter().fold(0, |p, d| p ^ d),
        Role::Q => data.iter().rev().fold(0, |q, d| double(q) ^ d),
        Role::Data { index, .. } => data[usize::from(index)],
    }
}

impl Stripe {
    fn new(next: &mut impl FnMut() -> u8) -> Stripe {
        let kind = next() % 4;
        let columns = match kind {
            0 => 3 + usize::from(next() % 10),
            1 => 4 + usize::from(next() % 9),
            _ => 1 + usize::from(next() % 5),
        };
        let data = |index: usize| Role::Data { index: index as u8, exponent: index as u8 };
        let roles: Vec<Role> = match kind {
            0 => (0..columns - 1).map(data).chain([Role::P]).collect(),
            1 => (0..columns - 2).map(data).chain([Role::P, Role::Q]).collect(),
            2 => (0..columns).map(|_| data(0)).collect(),
            _ => (0..2 * columns).map(|column| data(column / 2)).collect(),
        };
        let chunks = roles.iter().filter_map(chunk_of).max().map_or(0, |last| last + 1);
        let truth: Vec<u8> = (0..chunks).map(|_| next()).collect();
        let media = roles.iter().map(|role| byte_of(*role, &truth)).collect();
        let states = vec![State::Fine; roles.len()];
        Stripe { roles, states, media, truth, trusted: true }
    }

    fn those(&self, wanted: impl Fn(State) -> bool) -> ColumnSet {
        (0..self.roles.len()).filter(|column| wanted(self.states[*column])).collect()
    }

    fn health(&self) -> BandHealth {
        BandHealth {
            readable: self.those(|state| state == State::Fine),
            writable: self.those(|state| state != State::Gone),
            sound: self.those(|state| matches!(state, State::Fine | State::Bad)),
            trusted: self.trusted,
        }
    }

    fn parities(&self) -> usize {
        self.roles.iter().filter(|role| chunk_of(role).is_none()).count()
    }

    /// Whether some chunk may be beyond recovery.
    fn is_beyond(&self) -> bool {
        let lost = self.those(|state| state != State::Fine);
        match self.parities() {
            0 => (0..self.truth.len()).any(|chunk| self.copies(chunk).iter().all(|copy| lost.contains(copy))),
            parities => lost.len() > parities || (!self.trusted && !lost.is_empty()),
        }
    }

    fn copies(&self, chunk: usize) -> ColumnSet {
        (0..self.roles.len()).filter(|column| chunk_of(&self.roles[*column]) == Some(chunk)).collect()
    }

    fn plan(&self, intent: Intent, prefer: u8) -> Result<Plan, Unrecoverable> {
        let prefer = match usize::from(prefer) {
            column if column < self.roles.len() => Prefer::Column(column),
            _ => Prefer::First,
        };
        let planned = plan(&self.roles, &self.health(), prefer, intent);
        match &planned {
            Ok(plan) => {
                let health = self.health();
                assert!(health.readable.contains_all(plan.reads), "{plan:?} reads what cannot be read: {self:?}");
                assert!(health.writable.contains_all(plan.writes), "{plan:?} writes what takes no writes: {self:?}");
            }
            Err(Unrecoverable(lost)) => {
                // Parity is made of data, not of itself.
                let is_resync = intent == Intent::Resync && self.states.iter().any(|state| *state != State::Fine);
                assert!(!lost.is_empty() && (is_resync || self.is_beyond()), "{intent:?} is not beyond {self:?}");
            }
        }
        planned
    }

    /// The old bytes of all chunks that are known when the plan's reads are done.
    fn learn(&self, plan: &Plan) -> Vec<Option<u8>> {
        let mut known = vec![None; self.truth.len()];
        for column in plan.reads.iter() {
            if let Some(chunk) = chunk_of(&self.roles[column]) {
                known[chunk] = Some(self.media[column]);
            }
        }
        if plan.recover.is_empty() {
            return known;
        }
        let open: Vec<usize> = (0..known.len()).filter(|chunk| known[*chunk].is_none()).collect();
        let parity: Vec<usize> = plan.reads.iter().filter(|at| chunk_of(&self.roles[*at]).is_none()).collect();
        assert!(open.len() <= parity.len(), "{plan:?} leaves something open: {self:?}");
        let mut data: Vec<u8> = known.iter().map(|byte| byte.unwrap_or(0)).collect();
        let fits = |data: &[u8]| parity.iter().all(|at| byte_of(self.roles[*at], data) == self.media[*at]);
        let mut solved = Vec::new();
        for first in 0..=255 {
            data[open[0]] = first;
            if let Some(second) = open.get(1) {
                // P says what the second one is.
                data[*second] = 0;
                let p = self.roles.iter().position(|role| *role == Role::P).expect("two unknowns take P and Q");
                data[*second] = byte_of(Role::P, &data) ^ self.media[p];
            }
            if fits(&data) {
                solved.push(data.clone());
            }
        }
        assert_eq!(solved.len(), 1, "{plan:?}: {self:?}");
        for chunk in plan.recover.iter() {
            known[chunk] = Some(solved[0][chunk]);
        }
        known
    }

    /// What the columns hold when the plan's writes are done, and the chunks hold `new`.
    fn carry_out(&mut self, plan: &Plan, known: &[Option<u8>], written: ChunkSet, new: &[u8]) {
        for column in plan.writes.iter() {
            self.media[column] = match (chunk_of(&self.roles[column]), plan.parity) {
                (Some(chunk), _) if written.contains(chunk) => new[chunk],
                (Some(chunk), _) => known[chunk].expect("what is copied was read"),
                (None, Parity::Keep) => panic!("{plan:?} writes parity it does not make: {self:?}"),
                (None, Parity::Encode) => {
                    let after = |chunk: usize| if written.contains(chunk) { Some(new[chunk]) } else { known[chunk] };
                    let after: Option<Vec<u8>> = (0..self.truth.len()).map(after).collect();
                    byte_of(self.roles[column], &after.expect("who encodes knows all chunks"))
                }
                (None, Parity::Delta) => {
                    let change = |chunk: usize| match written.contains(chunk) {
                        true => new[chunk] ^ known[chunk].expect("who applies a difference knows the old"),
                        false => 0,
                    };
                    let change: Vec<u8> = (0..self.truth.len()).map(change).collect();
                    assert!(plan.reads.contains(column), "{plan:?} reads the old parity: {self:?}");
                    byte_of(self.roles[column], &change) ^ self.media[column]
                }
            };
        }
    }

    fn read(&self, chunks: ChunkSet, prefer: u8) {
        if let Ok(plan) = self.plan(Intent::Read(chunks), prefer) {
            let known = self.learn(&plan);
            for chunk in chunks.iter() {
                assert_eq!(known[chunk], Some(self.truth[chunk]), "chunk {chunk}, {plan:?}: {self:?}");
            }
        }
    }

    fn write(&mut self, chunks: ChunkSet, byte: u8, prefer: u8) {
        let Ok(plan) = self.plan(Intent::Write(chunks), prefer) else { return };
        let known = self.learn(&plan);
        let mut new = self.truth.clone();
        chunks.iter().for_each(|chunk| new[chunk] = byte.wrapping_add(chunk as u8));
        self.carry_out(&plan, &known, chunks, &new);
        self.truth = new;
        for column in (plan.writes & self.health().sound).iter() {
            self.states[column] = State::Fine;
        }
        for column in plan.poison.iter().filter(|column| self.states[*column] != State::Gone).collect::<Vec<_>>() {
            self.states[column] = if self.states[column] == State::Stale { State::Stale } else { State::Bad };
        }
        self.read(chunks, prefer);
    }

    fn recover(&mut self, targets: ColumnSet, prefer: u8) {
        let targets = targets & self.those(|state| matches!(state, State::Bad | State::Stale));
        if targets.is_empty() {
            return;
        }
        let Ok(plan) = self.plan(Intent::Recover(targets), prefer) else { return };
        let known = self.learn(&plan);
        assert_eq!(plan.writes, targets);
        self.carry_out(&plan, &known, ChunkSet::EMPTY, &[]);
        targets.iter().for_each(|column| self.states[column] = State::Fine);
    }

    fn resync(&mut self, prefer: u8) {
        let Ok(plan) = self.plan(Intent::Resync, prefer) else { return };
        let known = self.learn(&plan);
        self.carry_out(&plan, &known, ChunkSet::EMPTY, &[]);
        for column in (plan.writes & self.health().sound).iter() {
            self.states[column] = State::Fine;
        }
        self.trusted = true;
    }
}

fn chunk_of(role: &Role) -> Option<usize> {
    match role {
        Role::Data { index, .. } => Some(usize::from(*index)),
        Role::P | Role::Q => None,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.iter().copied();
    let mut done = bytes.len().min(64);
    let mut next = || bytes.next().unwrap_or(0);
    let mut stripe = Stripe::new(&mut next);
    while done > 0 {
        done -= 1;
        let (what, low, high, prefer) = (next(), next(), next(), next());
        let bits = u64::from(low) | u64::from(high) << 8;
        let chunks = ChunkSet::from_bits(bits) & ChunkSet::first(stripe.truth.len());
        let columns = ColumnSet::from_bits(bits) & ColumnSet::first(stripe.roles.len());
        let column = usize::from(low) % stripe.roles.len();
        match what % 10 {
            0 | 1 if !chunks.is_empty() => stripe.read(chunks, prefer),
            2..=4 if !chunks.is_empty() => stripe.write(chunks, high, prefer),
            5 => stripe.recover(columns, prefer),
            6 => stripe.resync(prefer),
            7 => stripe.states[column] = State::Gone,
            8 => {
                stripe.states[column] = if high % 2 == 0 { State::Bad } else { State::Stale };
                stripe.media[column] = 0xee ^ prefer;
            }
            // A crash leaves parity as it may be.
            9 if stripe.parities() > 0 => {
                stripe.trusted = false;
                let parity = stripe.roles.len() - 1 - usize::from(low) % stripe.parities();
                stripe.media[parity] ^= high;
            }
            _ => {}
        }
    }
    let all = ChunkSet::first(stripe.truth.len());
    for chunk in all.iter() {
        stripe.read(ChunkSet::only(chunk), 255);
    }
});
