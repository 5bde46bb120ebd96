//! Reads carried out at once, on the bytes of the members where they lie.
//!
//! Where a bank lends [windows](Bank::window), a read needs no band, no request and no buffer: its bytes are copied out, or
//! reconstructed, straight into the user's. That is done where nobody is at work in the stripe and what the members hold
//! can be believed; the rest is the executor's, and so is what turns out on the way not to be as it seemed.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::array::Array;
use super::compute;
use super::geometry::{Role, StripeIndex};
use super::plan::{self, Intent, Prefer};
use super::set::{ChunkSet, ColumnSet};
use crate::block::{Bank, Buf, DeviceId, Extent, Sectors};

/// Rows of one data chunk.
struct Piece {
    index: StripeIndex,
    chunk: usize,
    rows: Range<u64>,
}

/// Where the bytes of a piece came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Member,
    Reconstructed,
}

/// The rows of a column where they lie, and on which device.
struct Window<'a> {
    column: usize,
    device: DeviceId,
    bytes: Cow<'a, [u8]>,
}

impl<B: Bank> Array<B> {
    /// Fills `buf` with `extent`. False: it is to be read by requests, whatever is in `buf` now.
    pub(super) fn read_at_once(&mut self, extent: Extent, buf: &mut Buf) -> bool {
        let Some(mut rest) = buf.as_mut_slice() else { return false };
        if self.control.is_failed() {
            return false;
        }
        let (rows, grain) = (self.geometry.rows().0, self.grain());
        let mut at = extent.start;
        while at < extent.end() {
            let (index, offset) = self.geometry.locate(at);
            let row = offset.0 % rows;
            let length = Sectors(rows - row).min(extent.end() - at);
            let piece = Piece { index, chunk: (offset.0 / rows) as usize, rows: row..row + length.0 };
            let (out, after) = rest.split_at_mut(length.at_grain(grain));
            match self.read_piece(&piece, out) {
                Some(Source::Member) => {}
                Some(Source::Reconstructed) => self.mark_reconstructed_read(),
                None => return false,
            }
            rest = after;
            at = at + length;
        }
        true
    }

    fn read_piece(&self, piece: &Piece, out: &mut [u8]) -> Option<Source> {
        let Piece { index, chunk, rows } = piece;
        // Nothing may change under who looks through a window. Without redundancy there are no locks that tell.
        let is_quiet = match self.geometry.tolerance() {
            0 => self.control.writes_inflight() == 0,
            _ => self.locks.is_free(*index) && self.control.is_trusted(*index, rows),
        };
        if !is_quiet {
            return None;
        }
        let copies = self.geometry.copies();
        let first = self.preferred_copy(*index, copies);
        for copy in (first..copies).chain(0..first) {
            let column = self.geometry.data_column(*index, *chunk, copy);
            if let Some(member) = self.control.members.reader(&column, rows, &[]) {
                let device = member.device;
                let window = self.bank.window(device, member.on_device(column.base, rows))?;
                out.copy_from_slice(&window);
                return self.bank.vouches(device).then_some(Source::Member);
            }
        }
        if self.geometry.parity_count() == 0 { None } else { self.reconstruct_piece(piece, out) }
    }

    fn reconstruct_piece(&self, piece: &Piece, out: &mut [u8]) -> Option<Source> {
        let Piece { index, chunk, rows } = piece;
        let stripe = self.geometry.stripe(*index);
        let roles: SmallVec<[Role; 8]> = stripe.columns.iter().map(|column| column.role).collect();
        let health = self.control.health(*index, &stripe.columns, rows, &[]);
        let plan = plan::plan(&roles, &health, Prefer::First, Intent::Read(ChunkSet::only(*chunk))).ok()?;

        let mut windows: SmallVec<[Window<'_>; 8]> = SmallVec::new();
        for at in plan.reads.iter() {
            let column = &stripe.columns[at];
            let member = self.control.members.reader(column, rows, &[])?;
            let extent = member.on_device(column.base, rows);
            windows.push(Window { column: at, device: member.device, bytes: self.bank.window(member.device, extent)? });
        }
        let mut held: SmallVec<[Option<&[u8]>; 16]> = SmallVec::from_elem(None, roles.len());
        for window in &windows {
            held[window.column] = Some(&window.bytes);
        }
        let missing: ColumnSet = (0..stripe.data_chunks).filter(|column| held[*column].is_none()).collect();
        let mut room = if missing.len() > 1 { vec![0; out.len()] } else { Vec::new() };
        let mut outs: SmallVec<[&mut [u8]; 2]> = SmallVec::from_iter([out]);
        if missing.len() > 1 {
            // In the order of the columns.
            outs.insert(usize::from(missing.lowest() == Some(*chunk)), &mut room);
        }
        compute::reconstruct(self.kernel, &roles, &held, missing, &mut outs);
        windows.iter().all(|window| self.bank.vouches(window.device)).then_some(Source::Reconstructed)
    }
}
