//! Bands: the rectangles a request is cut into, and what is under way in one.
//!
//! A request is cut at stripe boundaries and, inside a stripe, at the at most two row offsets where
//! the set of touched chunks changes. Each piece is a rectangle: the same rows of some chunks. In
//! a band every column uses the same rows, so what has to be done fits in bit sets.
//!
//! ```text
//!            chunk 0   chunk 1   chunk 2
//!   row 0   |        | #########| ###### |   band A: chunks 1, 2
//!           |        | #########|        |
//!           | #######| #########|        |   band B: chunks 0, 1      one request: ####
//!   row n   | #######| #########|        |
//! ```

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::compute::Known;
use super::control::Epoch;
use super::geometry::{Geometry, Role, Stripe, StripeIndex};
use super::locks::Access;
use super::plan::{Intent, Parity, Plan};
use super::set::{ChunkSet, ColumnSet};
use crate::block::{Buf, DeviceId, Durability, Extent, IoError, Sectors};

/// One rectangle of a request, and which pieces of the request's bytes lie in it.
#[derive(Clone, Debug)]
pub struct Cut {
    /// In which stripe.
    pub index: StripeIndex,
    /// What that stripe looks like.
    pub stripe: Stripe,
    /// Which rows of its chunks.
    pub rows: Range<u64>,
    /// Which chunks, and the number of each one's piece, in array order over the whole request.
    pub pieces: SmallVec<[(usize, usize); 2]>,
}

impl Cut {
    /// The chunks.
    pub fn chunks(&self) -> ChunkSet {
        self.pieces.iter().map(|(chunk, _)| *chunk).collect()
    }
}

/// Cuts `extent` of the array into bands. The second list has the length of every piece, in array order.
pub fn cut(geometry: &Geometry, extent: Extent) -> (SmallVec<[Cut; 4]>, SmallVec<[Sectors; 4]>) {
    let mut cuts: SmallVec<[Cut; 4]> = SmallVec::new();
    let mut lengths = SmallVec::new();
    cuts.reserve((extent.length.0 / geometry.stripe_data().0) as usize + 2);
    let mut at = extent.start;
    while at < extent.end() {
        let (index, offset) = geometry.locate(at);
        let stripe = geometry.stripe(index);
        let length = (stripe.data() - offset).min(extent.end() - at);
        cut_stripe(index, &stripe, offset.0..(offset + length).0, &mut cuts, &mut lengths);
        at = at + length;
    }
    (cuts, lengths)
}

fn cut_stripe(
    index: StripeIndex,
    stripe: &Stripe,
    data: Range<u64>,
    cuts: &mut SmallVec<[Cut; 4]>,
    lengths: &mut SmallVec<[Sectors; 4]>,
) {
    let rows = stripe.rows.0;
    let (first, last) = (data.start / rows, (data.end - 1) / rows);
    let (head, tail) = (data.start % rows, (data.end - 1) % rows + 1);
    let mut edges: SmallVec<[u64; 4]> =
        if first == last { SmallVec::from_slice(&[head, tail]) } else { SmallVec::from_slice(&[0, head, tail, rows]) };
    edges.sort_unstable();
    edges.dedup();
    let begin = cuts.len();
    for edge in edges.windows(2) {
        let piece = Cut { index, stripe: stripe.clone(), rows: edge[0]..edge[1], pieces: SmallVec::new() };
        cuts.push(piece);
    }
    for chunk in first..=last {
        let from = if chunk == first { head } else { 0 };
        let to = if chunk == last { tail } else { rows };
        for cut in &mut cuts[begin..] {
            if cut.rows.start >= from && cut.rows.end <= to {
                cut.pieces.push((chunk as usize, lengths.len()));
                lengths.push(Sectors(cut.rows.end - cut.rows.start));
            }
        }
    }
    // Between the tail of the last chunk and the head of the first, two neighbours share no row.
    let mut at = begin;
    while at < cuts.len() {
        if cuts[at].pieces.is_empty() {
            cuts.remove(at);
        } else {
            at += 1;
        }
    }
}

/// Whom a band works for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A user's request.
    User {
        /// Which one.
        request: usize,
    },
    /// A band that was halved: `second` says which half this is.
    Half {
        /// The band that was halved.
        of: usize,
        /// Whether this is the one with the higher rows.
        second: bool,
    },
    /// Recovery, resync, check or repair.
    Sync,
    /// Sectors that could not be read are written again and read back.
    Mend,
}

/// What a band works at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Work {
    /// A user's read.
    Read,
    /// A user's write.
    Write,
    /// A device is filled.
    Recovery,
    /// Redundancy is made to agree with the data.
    Resync,
    /// Columns are compared; a repair's, too.
    Check,
    /// What could not be read is written again.
    Mend,
    /// Half of any of these.
    Half,
}

/// A user's bytes for one chunk of a band.
#[derive(Clone, Debug)]
pub enum Cargo {
    /// To be filled.
    Up(Buf),
    /// To be stored.
    Down(Bytes),
}

/// Where a band is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// Waiting until its region is marked dirty.
    Gate,
    /// Waiting for its rows.
    Lock,
    /// Reading straight into the user's buffers.
    Direct,
    /// Reading what it computes from.
    Reading,
    /// Writing.
    Writing,
    /// Reading back what a mend wrote.
    Verifying,
    /// Waiting until a failure is on record.
    Recording,
    /// Waiting for its halves.
    Halved,
}

/// What a write puts on the members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The user's bytes.
    Bytes,
    /// Zeroes, asked of each member as such.
    Zeroes,
    /// Nothing any more.
    Discarded,
}

/// One rectangle in one stripe, and all that is under way in it.
#[derive(Clone, Debug)]
pub struct Band {
    pub(super) purpose: Purpose,
    pub(super) intent: Intent,
    pub(super) index: StripeIndex,
    pub(super) stripe: Stripe,
    pub(super) rows: Range<u64>,
    /// The user's bytes: chunk, piece of the request, bytes.
    pub(super) cargo: SmallVec<[(usize, usize, Cargo); 2]>,
    pub(super) content: Content,
    pub(super) durability: Durability,
    pub(super) phase: Phase,
    /// The lock it holds or waits for; none where its parent holds one, or nothing can disagree.
    pub(super) access: Option<Access>,
    /// Nobody else is in its rows, by its own lock or its parent's.
    pub(super) exclusive: bool,
    /// It writes again what could not be read, and reads it back.
    pub(super) mend: bool,
    /// The sync space it announced to write to.
    pub(super) gate: Option<Range<u64>>,
    pub(super) plan: Plan,
    pub(super) known: Known,
    /// Who lent which of these columns.
    pub(super) lenders: SmallVec<[(DeviceId, usize); 4]>,
    /// Devices whose rows here could not be read.
    pub(super) excluded: SmallVec<[DeviceId; 2]>,
    /// Those of them that may be mended by writing, with their columns.
    pub(super) unreadable: SmallVec<[(DeviceId, usize); 2]>,
    /// Whom a recovery fills, with their columns.
    pub(super) targets: SmallVec<[(DeviceId, usize); 2]>,
    pub(super) outstanding: usize,
    /// A read of the present round failed.
    pub(super) retry: bool,
    /// Writes that failed on the medium.
    pub(super) unwritten: SmallVec<[(DeviceId, usize); 2]>,
    /// Answers to wait for: of its halves, when it is halved.
    pub(super) halves: u8,
    pub(super) result: Result<(), IoError>,
    /// The copies in these rows may disagree: they are made equal before one is returned.
    pub(super) settle: bool,
}

impl Band {
    /// A band that is not yet under way.
    pub fn new(purpose: Purpose, intent: Intent, index: StripeIndex, stripe: Stripe, rows: Range<u64>) -> Band {
        assert!(rows.start < rows.end && rows.end <= stripe.rows.0, "{rows:?} of {} rows", stripe.rows.0);
        let columns = stripe.columns.len();
        Band {
            purpose,
            intent,
            index,
            stripe,
            rows,
            cargo: SmallVec::new(),
            content: Content::Bytes,
            durability: Durability::Volatile,
            phase: Phase::Lock,
            access: None,
            exclusive: false,
            mend: false,
            gate: None,
            plan: Plan {
                reads: ColumnSet::EMPTY,
                recover: ChunkSet::EMPTY,
                parity: Parity::Keep,
                writes: ColumnSet::EMPTY,
                poison: ColumnSet::EMPTY,
            },
            known: SmallVec::from_elem(None, columns),
            lenders: SmallVec::new(),
            excluded: SmallVec::new(),
            unreadable: SmallVec::new(),
            targets: SmallVec::new(),
            outstanding: 0,
            retry: false,
            unwritten: SmallVec::new(),
            halves: 0,
            result: Ok(()),
            settle: false,
        }
    }

    /// What it works at.
    pub fn work(&self) -> Work {
        match (self.purpose, self.intent) {
            (Purpose::Half { .. }, _) => Work::Half,
            (Purpose::Mend, _) => Work::Mend,
            (Purpose::User { .. }, Intent::Write(_)) => Work::Write,
            (Purpose::User { .. }, _) => Work::Read,
            (Purpose::Sync, Intent::Recover(_)) => Work::Recovery,
            (Purpose::Sync, Intent::Check) => Work::Check,
            (Purpose::Sync, _) => Work::Resync,
        }
    }

    /// Number of rows.
    pub fn height(&self) -> Sectors {
        Sectors(self.rows.end - self.rows.start)
    }

    /// The columns that hold a data chunk: one, or all its copies.
    pub(super) fn columns_of(&self, chunk: usize) -> ColumnSet {
        let holds = |role: Role| matches!(role, Role::Data { index, .. } if usize::from(index) == chunk);
        let columns = self.stripe.columns.iter().enumerate();
        columns.filter(|(_, column)| holds(column.role)).map(|(at, _)| at).collect()
    }

    /// The column a chunk's bytes were read in or reconstructed to.
    pub(super) fn source_of(&self, chunk: usize) -> usize {
        self.columns_of(chunk)
            .iter()
            .find(|column| self.known[*column].is_some())
            .expect("what was read or recovered is known")
    }
}

/// Who waits for an update of the metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiter {
    /// A band before its first write.
    Gate(usize),
    /// A band before it is acknowledged.
    Record(usize),
    /// A user's flush before it is acknowledged.
    Flush(usize),
    /// A replacement that holds everything, before the old member is let go.
    Replacement(DeviceId),
}

/// Everybody who waits for an update, and for which.
pub type Waiting = Vec<(Epoch, Waiter)>;
