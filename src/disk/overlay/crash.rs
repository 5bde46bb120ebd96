//! Overlays cut off at every point: killed, or without power, or both one after the other.
//!
//! The overlay file is a recording of what was done to it. A *kill* leaves everything done so far. A
//! *power cut* leaves what was synced, and of what was done since, any choice, sector by sector.
//! Every sector carries the number of the write that stored it, so that a read tells whose it is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::format::{Fingerprint, Header, Layout, PAGE_BYTES, PAGE_SECTORS, Purpose};
use super::shadow::{LoadError, Shadow, write_header};
use super::store::{Source, Store};
use super::{Durability, carry_out};
use crate::block::{Buf, Extent, IoError, Lba, Op, Payload, Request, RequestId, SECTOR_BYTES, Sectors};

const SECTOR: usize = SECTOR_BYTES as usize;

/// The number of the write that stored a sector: 0 for zeroes, 1 for the original.
type Token = u64;
const ZEROES: Token = 0;
const ORIGINAL: Token = 1;

fn stamped(token: Token, lba: u64) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    if token != ZEROES {
        sector.chunks_mut(16).for_each(|chunk| {
            chunk[..8].copy_from_slice(&token.to_le_bytes());
            chunk[8..].copy_from_slice(&lba.to_le_bytes());
        });
    }
    sector
}

/// Whose a sector is; a sector that is nobody's fails the test.
fn token_of(sector: &[u8], lba: u64) -> Token {
    let token = Token::from_le_bytes(sector[..8].try_into().unwrap());
    assert_eq!(sector, stamped(token, lba), "sector {lba} is garbage");
    token
}

/// A file of mostly holes.
#[derive(Clone, Default)]
struct Sparse(BTreeMap<u64, [u8; SECTOR]>);

impl Sparse {
    fn read(&self, bytes: &mut [u8], offset: u64) {
        bytes.fill(0);
        let end = offset + bytes.len() as u64;
        for (sector, held) in self.0.range(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)) {
            let start = sector * SECTOR_BYTES;
            let (from, to) = (start.max(offset), (start + SECTOR_BYTES).min(end));
            let held = &held[(from - start) as usize..(to - start) as usize];
            bytes[(from - offset) as usize..(to - offset) as usize].copy_from_slice(held);
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(offset, bytes) => {
                for (at, piece) in sector_pieces(*offset, bytes) {
                    let sector = self.0.entry(at / SECTOR_BYTES).or_insert([0; SECTOR]);
                    sector[at as usize % SECTOR..][..piece.len()].copy_from_slice(piece);
                }
            }
            Change::Hole(offset, length) => {
                let hole = offset / SECTOR_BYTES..(offset + length) / SECTOR_BYTES;
                self.0.retain(|sector, _| !hole.contains(sector));
            }
        }
    }
}

/// The parts of `bytes` that lie in one sector each, with their offsets.
fn sector_pieces(offset: u64, mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let (mut at, mut pieces) = (offset, Vec::new());
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at(bytes.len().min(SECTOR - at as usize % SECTOR));
        pieces.push((at, head));
        at += head.len() as u64;
        bytes = rest;
    }
    pieces
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Hole(u64, u64),
}

impl Change {
    /// The change as it happens to each sector: what a power cut chooses from.
    fn sectors(&self) -> Vec<Change> {
        match self {
            Change::Hole(offset, length) => {
                (*offset..offset + length).step_by(SECTOR).map(|at| Change::Hole(at, SECTOR_BYTES)).collect()
            }
            Change::Write(offset, bytes) => {
                let pieces = sector_pieces(*offset, bytes).into_iter();
                pieces.map(|(at, piece)| Change::Write(at, piece.to_vec())).collect()
            }
        }
    }
}

#[derive(Clone)]
enum Event {
    Change(Change),
    Sync,
}

/// What is on the medium, and what was done since the last sync.
#[derive(Clone, Default)]
struct Medium {
    durable: Sparse,
    pending: Vec<Change>,
}

impl Medium {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Change(change) => self.pending.push(change.clone()),
            Event::Sync => self.pending.drain(..).for_each(|change| self.durable.apply(&change)),
        }
    }

    fn page_cache(&self) -> Sparse {
        let mut all = self.durable.clone();
        self.pending.iter().for_each(|change| all.apply(change));
        all
    }

    /// What a power cut leaves: of each pending sector as `keep` says.
    fn cut(&self, mut keep: impl FnMut() -> bool) -> Medium {
        let mut durable = self.durable.clone();
        for piece in self.pending.iter().flat_map(Change::sectors) {
            if keep() {
                durable.apply(&piece);
            }
        }
        Medium { durable, pending: Vec::new() }
    }
}

/// The overlay file: its content, and what was done to it.
struct Recording {
    content: Sparse,
    bytes: u64,
    events: Vec<Event>,
    /// Changes until the file system is full; the one that fills it is done in part.
    room: Option<usize>,
    broken_sync: bool,
}

#[derive(Clone)]
struct Recorder(Rc<RefCell<Recording>>);

impl Recorder {
    fn over(content: Sparse, bytes: u64) -> Recorder {
        let recording = Recording { content, bytes, events: Vec::new(), room: None, broken_sync: false };
        Recorder(Rc::new(RefCell::new(recording)))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut file = self.0.borrow_mut();
        if file.room == Some(0) {
            let mut pieces = change.sectors();
            pieces.truncate(pieces.len() / 2);
            for piece in pieces {
                file.content.apply(&piece);
                file.events.push(Event::Change(piece));
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.room = file.room.map(|room| room - 1);
        file.content.apply(&change);
        file.events.push(Event::Change(change));
        Ok(())
    }

    fn events(&self) -> usize {
        self.0.borrow().events.len()
    }
}

impl Source for Recorder {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.borrow().content.read(bytes, offset);
        Ok(())
    }
}

impl Store for Recorder {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.borrow().bytes)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()))
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.change(Change::Hole(offset, length))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut file = self.0.borrow_mut();
        if file.broken_sync {
            return Err(io::Error::from_raw_os_error(5));
        }
        file.events.push(Event::Sync);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let file = self.0.borrow();
        Ok(file.content.0.range(offset / SECTOR_BYTES..).next().map(|(sector, _)| offset.max(sector * SECTOR_BYTES)))
    }
}

/// An original of stamped sectors.
struct Original;

impl Source for Original {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(SECTOR_BYTES) && bytes.len().is_multiple_of(SECTOR));
        for (lba, sector) in (offset / SECTOR_BYTES..).zip(bytes.chunks_mut(SECTOR)) {
            sector.copy_from_slice(&stamped(ORIGINAL, lba));
        }
        Ok(())
    }
}

fn header(sectors: u64) -> Header {
    let original = Fingerprint { bytes: sectors * SECTOR_BYTES, head_crc32: 0, modified_ns: 0 };
    // The smallest log there can be: it fills up during a test.
    Header { original, purpose: Purpose::Keep, log_bytes: PAGE_BYTES as u64 }
}

/// A new overlay and its medium, all durable.
fn created(sectors: u64) -> Medium {
    let header = header(sectors);
    let mut recorder = Recorder::over(Sparse::default(), header.layout().file_bytes());
    write_header(&mut recorder, &header).unwrap();
    let durable = recorder.0.borrow().content.clone();
    Medium { durable, pending: Vec::new() }
}

fn load(content: Sparse, sectors: u64) -> Result<(Shadow<Original, Recorder>, Recorder), LoadError> {
    let recorder = Recorder::over(content, header(sectors).layout().file_bytes());
    Ok((Shadow::load(Original, recorder.clone())?, recorder))
}

/// An overlay opened as the bank opens it.
fn open(content: Sparse, sectors: u64) -> (Shadow<Original, Recorder>, Recorder) {
    let (mut shadow, recorder) = load(content, sectors).expect("a crash leaves an overlay that opens");
    shadow.settle().unwrap();
    (shadow, recorder)
}

/// Whose each sector of `watched` is.
fn tokens(shadow: &Shadow<Original, Recorder>, watched: &[u64]) -> Vec<Token> {
    let token = |lba: &u64| {
        let mut buf = Buf::zeroed(SECTOR);
        shadow.read(Extent::new(Lba(*lba), Sectors(1)), &mut buf).unwrap();
        token_of(&buf.to_vec(), *lba)
    };
    watched.iter().map(token).collect()
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Write(Durability),
    Zeroes(Durability),
    Discard,
    Flush,
}

/// One request of a story, and which events of the recording it caused.
#[derive(Clone, Debug)]
struct Step {
    kind: Kind,
    extent: Extent,
    token: Token,
    events: std::ops::Range<usize>,
    result: Result<(), IoError>,
}

impl Step {
    fn run(&mut self, shadow: &mut Shadow<Original, Recorder>, recorder: &Recorder) {
        let op = match self.kind {
            Kind::Write(durability) => {
                let bytes: Vec<u8> = self.extent.range().flat_map(|lba| stamped(self.token, lba)).collect();
                Op::Write(Payload::copy_of(&bytes), durability)
            }
            Kind::Zeroes(durability) => Op::WriteZeroes(durability),
            Kind::Discard => Op::Discard,
            Kind::Flush => Op::Flush,
        };
        let start = recorder.events();
        self.result = carry_out(shadow, &mut Request { id: RequestId(0), extent: self.extent, op });
        self.events = start..recorder.events();
    }

    fn stores(&self, lba: u64) -> Option<Token> {
        self.extent.range().contains(&lba).then_some(self.token)
    }

    fn makes_durable(&self, lba: u64) -> bool {
        match self.kind {
            Kind::Flush => true,
            Kind::Write(Durability::Fua) | Kind::Zeroes(Durability::Fua) => self.stores(lba).is_some(),
            _ => false,
        }
    }
}

/// Whose `lba` may be after a kill at event `cut`: the last acknowledged, or the one on its way.
fn legal_after_kill(steps: &[Step], cut: usize, lba: u64) -> BTreeSet<Token> {
    let mut legal = BTreeSet::from([ORIGINAL]);
    for step in steps.iter().filter(|step| step.events.start <= cut) {
        let Some(token) = step.stores(lba) else { continue };
        if step.events.end <= cut {
            legal.clear();
        }
        legal.insert(token);
    }
    legal
}

/// Whose `lba` may be after a power cut at event `cut`: what was made durable, or anything since.
fn legal_after_cut(steps: &[Step], cut: usize, lba: u64) -> BTreeSet<Token> {
    let mut newest = ORIGINAL;
    let mut legal = BTreeSet::from([ORIGINAL]);
    for step in steps.iter().filter(|step| step.events.start <= cut) {
        if let Some(token) = step.stores(lba) {
            newest = token;
            legal.insert(token);
        }
        if step.makes_durable(lba) && step.events.end <= cut {
            legal = BTreeSet::from([newest]);
        }
    }
    legal
}

struct Story {
    sectors: u64,
    /// The sectors it touches.
    watched: Vec<u64>,
    steps: Vec<Step>,
    events: Vec<Event>,
}

impl Story {
    /// Random requests on a few sectors, some of them beside a border of map pages.
    fn new(seed: u64, length: usize) -> Story {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = move |limit: u64| rng.next_u64() % limit;
        let sectors = if seed.is_multiple_of(2) { 12 } else { PAGE_SECTORS + 6 };
        let first = sectors - 12;
        let (mut shadow, recorder) = open(created(sectors).durable, sectors);
        let opened = recorder.events();
        recorder.0.borrow_mut().events.drain(..opened);
        let mut steps = Vec::new();
        for token in 2..2 + length as u64 {
            let start = below(12);
            let extent = Extent::new(Lba(first + start), Sectors(1 + below((12 - start).min(5))));
            let nothing = Extent::new(Lba(0), Sectors(0));
            let durability = if below(4) == 0 { Durability::Fua } else { Durability::Volatile };
            let (kind, extent, token) = match below(8) {
                0..4 => (Kind::Write(durability), extent, token),
                4 => (Kind::Zeroes(durability), extent, ZEROES),
                5 => (Kind::Discard, extent, ZEROES),
                _ => (Kind::Flush, nothing, ZEROES),
            };
            let mut step = Step { kind, extent, token, events: 0..0, result: Ok(()) };
            step.run(&mut shadow, &recorder);
            assert_eq!(step.result, Ok(()));
            steps.push(step);
        }
        let events = recorder.0.borrow().events.clone();
        Story { sectors, watched: (first..sectors).collect(), steps, events }
    }

    /// The medium at every event, with the number of events before it.
    fn moments(&self) -> impl Iterator<Item = (usize, Medium)> {
        let mut medium = created(self.sectors);
        let first = (0, medium.clone());
        std::iter::once(first).chain(self.events.iter().enumerate().map(move |(i, event)| {
            medium.happen(event);
            (i + 1, medium.clone())
        }))
    }

    fn audit(&self, found: &[Token], legal: impl Fn(u64) -> BTreeSet<Token>, what: &str) {
        for (lba, token) in self.watched.iter().zip(found) {
            let legal = legal(*lba);
            assert!(legal.contains(token), "{what}: sector {lba} is {token}, not one of {legal:?}\n{:#?}", self.steps);
        }
    }

    /// Opens what a power cut left, audits it, cuts the power again with nothing kept since the
    /// opening, and at one random moment of the opening itself: the answer stays.
    fn audit_cut(&self, left: &Medium, cut: usize, rng: &mut ChaCha8Rng, what: &str) {
        let (shadow, recorder) = open(left.durable.clone(), self.sectors);
        let found = tokens(&shadow, &self.watched);
        self.audit(&found, |lba| legal_after_cut(&self.steps, cut, lba), what);
        let events = recorder.0.borrow().events.clone();
        let again = |until: usize| {
            let mut medium = left.clone();
            events[..until].iter().for_each(|event| medium.happen(event));
            medium
        };
        let (shadow, _) = open(again(events.len()).cut(|| false).durable, self.sectors);
        assert_eq!(tokens(&shadow, &self.watched), found, "{what}: what was read once stays");
        let inside = again(rng.next_u64() as usize % (events.len() + 1)).cut(|| rng.next_u64().is_multiple_of(2));
        let (shadow, _) = open(inside.durable, self.sectors);
        let found = tokens(&shadow, &self.watched);
        self.audit(&found, |lba| legal_after_cut(&self.steps, cut, lba), what);
    }
}

#[test]
fn after_a_kill_at_any_point_every_acknowledged_write_is_there() {
    for seed in 0..60 {
        let story = Story::new(seed, 14);
        for (cut, medium) in story.moments() {
            let (shadow, _) = open(medium.page_cache(), story.sectors);
            let found = tokens(&shadow, &story.watched);
            story.audit(&found, |lba| legal_after_kill(&story.steps, cut, lba), &format!("seed {seed}, kill at {cut}"));
        }
    }
}

/// At every event: nothing kept, all kept, and random choices among the sectors not synced.
#[test]
fn after_a_power_cut_at_any_point_every_flushed_write_is_there_and_no_other_is_wrong() {
    for seed in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let story = Story::new(seed, 12);
        for (cut, medium) in story.moments() {
            let what = format!("seed {seed}, power cut at {cut}");
            story.audit_cut(&medium.cut(|| false), cut, &mut rng, &what);
            story.audit_cut(&medium.cut(|| true), cut, &mut rng, &what);
            for odds in [2, 2, 2, 8, 8] {
                let keep_rarely = rng.next_u64().is_multiple_of(2);
                let left = medium.cut(|| rng.next_u64().is_multiple_of(odds) == keep_rarely);
                story.audit_cut(&left, cut, &mut rng, &what);
            }
        }
    }
}

/// Short stories, and every choice among the changes that were not synced, each as a whole.
#[test]
fn every_choice_of_unsynced_changes_is_survived() {
    let mut choices_total = 0;
    for seed in 0..60 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let story = Story::new(seed, 4);
        for (cut, medium) in story.moments().filter(|(_, medium)| medium.pending.len() <= 8) {
            for choice in 0_u32..1 << medium.pending.len() {
                let mut durable = medium.durable.clone();
                for (i, change) in medium.pending.iter().enumerate() {
                    if choice >> i & 1 == 1 {
                        durable.apply(change);
                    }
                }
                let left = Medium { durable, pending: Vec::new() };
                story.audit_cut(&left, cut, &mut rng, &format!("seed {seed}, cut {cut}, choice {choice:b}"));
                choices_total += 1;
            }
        }
    }
    assert!(choices_total > 1000, "{choices_total} choices are too few to mean anything");
}

/// Killed at every event; opened again from the page cache; and the power fails at every event of that
/// opening, with whatever neither process had synced.
#[test]
fn a_power_cut_while_a_killed_overlay_is_opened_loses_nothing_flushed() {
    for seed in 0..25 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let story = Story::new(seed, 10);
        for (cut, mut medium) in story.moments() {
            let (_, recorder) = open(medium.page_cache(), story.sectors);
            let events = recorder.0.borrow().events.clone();
            for event in events {
                for odds in [2, 2, 5] {
                    let left = medium.cut(|| rng.next_u64().is_multiple_of(odds));
                    story.audit_cut(&left, cut, &mut rng, &format!("seed {seed}, kill at {cut}, then a power cut"));
                }
                medium.happen(&event);
            }
            let (shadow, _) = open(medium.cut(|| false).durable, story.sectors);
            let found = tokens(&shadow, &story.watched);
            let what = format!("seed {seed}, kill at {cut}, opened, then a power cut");
            story.audit(&found, |lba| legal_after_kill(&story.steps, cut, lba), &what);
        }
    }
}

/// The file system fills up in the middle of any change: requests fail, and what is read then is what
/// is read after a kill, and flushed writes are there after a power cut. When there is room again the
/// overlay goes on.
#[test]
fn a_full_file_system_fails_requests_and_loses_nothing() {
    for seed in 0..40 {
        let complete = Story::new(seed, 12);
        for room in 0..complete.events.len() {
            let (mut shadow, recorder) = open(created(complete.sectors).durable, complete.sectors);
            let opened = recorder.events();
            recorder.0.borrow_mut().events.drain(..opened);
            recorder.0.borrow_mut().room = Some(room);
            let mut steps = complete.steps.clone();
            for step in &mut steps {
                step.run(&mut shadow, &recorder);
                assert!(matches!(step.result, Ok(()) | Err(IoError::NoSpace)), "{step:?}");
            }
            let found = tokens(&shadow, &complete.watched);
            let (killed, _) = open(recorder.0.borrow().content.clone(), complete.sectors);
            assert_eq!(tokens(&killed, &complete.watched), found, "seed {seed}, room {room}");
            let mut medium = created(complete.sectors);
            recorder.0.borrow().events.iter().for_each(|event| medium.happen(event));
            let mut legal: BTreeMap<u64, BTreeSet<Token>> =
                complete.watched.iter().map(|lba| (*lba, BTreeSet::from([ORIGINAL]))).collect();
            for step in &steps {
                for (lba, legal) in &mut legal {
                    legal.extend(step.stores(*lba));
                }
            }
            let flushed = steps.iter().rposition(|step| step.kind == Kind::Flush && step.result == Ok(()));
            let (after_cut, _) = open(medium.cut(|| false).durable, complete.sectors);
            for (lba, token) in complete.watched.iter().zip(tokens(&after_cut, &complete.watched)) {
                assert!(legal[lba].contains(&token));
                let written_later = |step: &Step| step.stores(*lba).is_some();
                if flushed.is_some_and(|flushed| !steps[flushed..].iter().any(written_later)) {
                    let index = complete.watched.iter().position(|watched| watched == lba).unwrap();
                    assert_eq!(token, found[index], "seed {seed}, room {room}: sector {lba} was flushed");
                }
            }
            recorder.0.borrow_mut().room = None;
            assert_eq!(shadow.flush(), Ok(()));
        }
    }
}

#[test]
fn after_a_failed_sync_the_device_is_offline_until_it_is_opened_anew() {
    let (mut shadow, recorder) = open(created(12).durable, 12);
    let extent = Extent::new(Lba(3), Sectors(1));
    shadow.write(extent, &Payload::copy_of(&stamped(2, 3))).unwrap();
    recorder.0.borrow_mut().broken_sync = true;
    assert_eq!(shadow.flush(), Err(IoError::Offline));
    recorder.0.borrow_mut().broken_sync = false;
    assert_eq!(shadow.flush(), Err(IoError::Offline));
    assert_eq!(shadow.read(extent, &mut Buf::zeroed(SECTOR)), Err(IoError::Offline));
    let (shadow, _) = open(recorder.0.borrow().content.clone(), 12);
    assert_eq!(tokens(&shadow, &[3, 4]), [2, ORIGINAL]);
}

/// Two checkpoints, then either copy of the page is destroyed, then both.
#[test]
fn one_copy_of_the_map_is_enough_and_none_is_refused() {
    let (mut shadow, recorder) = open(created(12).durable, 12);
    for (token, lba) in [(2, 1), (3, 5)] {
        shadow.write(Extent::new(Lba(lba), Sectors(1)), &Payload::copy_of(&stamped(token, lba))).unwrap();
        shadow.flush().unwrap();
    }
    drop(shadow);
    let layout: Layout = header(12).layout();
    let whole = {
        let mut content = recorder.0.borrow().content.clone();
        content.apply(&Change::Hole(Layout::LOG, PAGE_BYTES as u64));
        content
    };
    let damage = |content: &mut Sparse, copy| content.apply(&Change::Write(layout.page(copy, 0) + 700, vec![1; 9]));
    for copy in [0, 1] {
        let mut content = whole.clone();
        damage(&mut content, copy);
        let (shadow, mended) = open(content, 12);
        assert_eq!(tokens(&shadow, &[0, 1, 5]), [ORIGINAL, 2, 3]);
        let mut content = mended.0.borrow().content.clone();
        damage(&mut content, 1 - copy);
        assert_eq!(tokens(&open(content, 12).0, &[0, 1, 5]), [ORIGINAL, 2, 3], "opening mended the other copy");
    }
    let mut content = whole;
    damage(&mut content, 0);
    damage(&mut content, 1);
    assert!(matches!(load(content, 12), Err(LoadError::Map { page: 0 })));
}

/// A log of 4 KiB holds records of 1018 sectors: larger requests are cut, and a full log is emptied
/// by a checkpoint of its own.
#[test]
fn a_full_log_makes_a_checkpoint_and_no_request_is_too_large() {
    let sectors = 3000;
    let (mut shadow, recorder) = open(created(sectors).durable, sectors);
    let bytes: Vec<u8> = (0..sectors).flat_map(|lba| stamped(2, lba)).collect();
    shadow.write(Extent::new(Lba(0), Sectors(sectors)), &Payload::copy_of(&bytes)).unwrap();
    let (killed, _) = open(recorder.0.borrow().content.clone(), sectors);
    let all: Vec<u64> = (0..sectors).collect();
    assert!(tokens(&killed, &all).iter().all(|token| *token == 2));
    let syncs = recorder.0.borrow().events.iter().filter(|event| matches!(event, Event::Sync)).count();
    assert!(syncs >= 4, "two checkpoints at least");
}

/// A power cut keeps the second record of the log and not the first, so neither is believed. The next
/// process logs a record just as long as the first: the log must not lead on to the second.
#[test]
fn a_record_once_not_believed_is_never_believed() {
    let sectors = 400;
    let write = |shadow: &mut Shadow<Original, Recorder>| {
        let bytes: Vec<u8> = (0..200).flat_map(|lba| stamped(2, lba)).collect();
        shadow.write(Extent::new(Lba(0), Sectors(200)), &Payload::copy_of(&bytes)).unwrap();
    };
    let mut content = created(sectors).durable;
    let (mut shadow, recorder) = open(content.clone(), sectors);
    write(&mut shadow);
    shadow.zero(Extent::new(Lba(300), Sectors(1))).unwrap();
    let second = Layout::LOG / SECTOR_BYTES + 1;
    content.0.insert(second, recorder.0.borrow().content.0[&second]);
    let (mut shadow, recorder) = open(content, sectors);
    assert_eq!(tokens(&shadow, &[0, 300]), [ORIGINAL, ORIGINAL]);
    write(&mut shadow);
    let (shadow, _) = open(recorder.0.borrow().content.clone(), sectors);
    assert_eq!(tokens(&shadow, &[0, 300]), [2, ORIGINAL]);
}
