//! What a repair may do to rows that silent faults have damaged.
//!
//! Nobody vouches for what such a row reads as; but whether a repair makes it better can be said all the same. Where all
//! columns but one agree, that one may be made to agree with them; everything else stays as it is. A repair that folds
//! the wrong column into parity instead destroys the only witness against it (btrfs' destructive read-modify-write).

use bytes::Bytes;

use super::Failed;
use super::array::{Lab, Row};
use crate::parity::Kernel;
use crate::raid::compute::{Known, encode, recover};
use crate::raid::geometry::{Role, StripeIndex};
use crate::raid::set::{ChunkSet, ColumnSet};

/// What the columns of every row hold, before a repair: of those that all can be read of.
pub(super) struct Unmended(Vec<(Row, Known)>);

impl Unmended {
    pub(super) fn of(lab: &Lab) -> Unmended {
        // Where a sector cannot be read, the rows around it are written again with it, from the other columns.
        let vouched = |row: &Row| !lab.was_given_up(*row) && !lab.has_unreadable(row.0);
        Unmended(rows(lab).filter(vouched).filter_map(|row| Some((row, contents(lab, row)?))).collect())
    }

    /// A repair has come to its end: it has mended what could be located, or left everything as it was.
    pub(super) fn judge(&self, lab: &Lab) -> Result<(), Failed> {
        for (row, before) in &self.0 {
            let Some(after) = contents(lab, *row) else { continue };
            if after == *before {
                continue;
            }
            let roles = roles(lab, row.0);
            let mut mended = (0..before.len()).filter_map(|column| without(&roles, before, column));
            let (only, another) = (mended.next(), mended.next());
            if another.is_some() || only != Some(after) {
                return Err(Failed::MendedWrong { stripe: row.0, row: row.1 });
            }
        }
        Ok(())
    }
}

/// Whether all columns of a row can be read, and agree.
pub(super) fn agrees(lab: &Lab, row: Row) -> bool {
    contents(lab, row).is_some_and(|known| without(&roles(lab, row.0), &known, 0) == Some(known))
}

fn rows(lab: &Lab) -> impl Iterator<Item = Row> {
    let geometry = lab.array().geometry();
    (0..geometry.stripes()).map(StripeIndex).flat_map(|index| {
        let rows = geometry.stripe(index).rows.0;
        (0..rows).map(move |row| (index, row))
    })
}

fn roles(lab: &Lab, index: StripeIndex) -> Vec<Role> {
    lab.array().geometry().stripe(index).columns.iter().map(|column| column.role).collect()
}

fn contents(lab: &Lab, (index, row): Row) -> Option<Known> {
    let known = lab.known(&lab.array().geometry().stripe(index), row, false);
    known.iter().all(Option::is_some).then_some(known)
}

/// The row with this column as the others say it is, if they agree without it.
fn without(roles: &[Role], known: &Known, column: usize) -> Option<Known> {
    let mut row = known.clone();
    row[column] = None;
    let data = roles.iter().filter(|role| matches!(role, Role::Data { .. })).count();
    if data == roles.len() {
        let first = row.iter().flatten().next()?.clone();
        row[column] = Some(first.clone());
        return row.iter().flatten().all(|copy| *copy == first).then_some(row);
    }
    if column < data {
        recover(Kernel::current(), roles, &mut row, ChunkSet::from_bits(1 << column));
    }
    let bytes: Vec<&[u8]> = row[..data].iter().map(|data| data.as_deref().expect("it was recovered")).collect();
    let parity: Vec<(usize, Bytes)> =
        encode(Kernel::current(), roles, &bytes, ColumnSet::range(data..roles.len())).into_iter().collect();
    drop(bytes);
    for (at, bytes) in parity {
        if at != column && row[at].as_ref() != Some(&bytes) {
            return None;
        }
        row[at] = Some(bytes);
    }
    Some(row)
}
