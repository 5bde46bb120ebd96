//! From the columns that were read to the columns that are wanted: the arithmetic of one band.

use bytes::Bytes;
use smallvec::SmallVec;

use super::geometry::Role;
use super::set::{ChunkSet, ColumnSet};
use crate::block::Buf;
use crate::parity::{self, Culprit, Kernel};

/// What is known of each column of a band, in column order; all of one length.
pub type Known = SmallVec<[Option<Bytes>; 8]>;

fn exponent(role: Role) -> u8 {
    let Role::Data { exponent, .. } = role else { panic!("{role:?} has no exponent") };
    exponent
}

fn column_of(roles: &[Role], wanted: Role) -> Option<usize> {
    roles.iter().position(|role| *role == wanted)
}

fn data_count(roles: &[Role]) -> usize {
    roles.iter().filter(|role| matches!(role, Role::Data { .. })).count()
}

fn bytes_of(known: &Known, column: usize) -> &[u8] {
    known[column].as_ref().expect("the plan read every column it computes from")
}

fn filled(length: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
    let mut buf = Buf::stale(length);
    fill(buf.parts_mut().next().expect("bands are not empty"));
    buf.into_bytes()
}

fn length_of(known: &Known) -> usize {
    known.iter().flatten().next().expect("something is known of a band that is computed").len()
}

/// Reconstructs the data columns that are not known, from the parity columns that are. One or two
/// may be missing; `wanted` says which of them are of use.
pub fn recover(kernel: Kernel, roles: &[Role], known: &mut Known, wanted: ChunkSet) {
    let data = data_count(roles);
    let missing: ColumnSet = (0..data).filter(|column| known[*column].is_none()).collect();
    if missing.is_empty() || wanted.is_empty() {
        return;
    }
    let length = length_of(known);
    let mut found: SmallVec<[Buf; 2]> = missing.iter().map(|_| Buf::stale(length)).collect();
    let mut outs: SmallVec<[&mut [u8]; 2]> =
        found.iter_mut().map(|buf| buf.as_mut_slice().expect("bands are not empty")).collect();
    let held: SmallVec<[Option<&[u8]>; 16]> = known.iter().map(Option::as_deref).collect();
    reconstruct(kernel, roles, &held, missing, &mut outs);
    drop((held, outs));
    for (column, buf) in missing.iter().zip(found) {
        known[column] = Some(buf.into_bytes());
    }
}

/// Reconstructs one or two data columns, all of `missing`, from what is held of the others.
pub fn reconstruct(kernel: Kernel, roles: &[Role], held: &[Option<&[u8]>], missing: ColumnSet, outs: &mut [&mut [u8]]) {
    let bytes = |column: usize| held[column].expect("the plan read every column it computes from");
    let p = column_of(roles, Role::P).filter(|column| held[*column].is_some());
    let q = column_of(roles, Role::Q).filter(|column| held[*column].is_some());
    let survivors: SmallVec<[parity::Column<'_>; 16]> = (0..data_count(roles))
        .filter(|column| !missing.contains(*column))
        .map(|column| (bytes(column), exponent(roles[column])))
        .collect();
    let lost: SmallVec<[u8; 2]> = missing.iter().map(|column| exponent(roles[column])).collect();
    match (outs, lost.as_slice(), p, q) {
        ([out], [_], Some(p), _) => {
            let plain: SmallVec<[&[u8]; 16]> = survivors.iter().map(|(bytes, _)| *bytes).collect();
            kernel.recover_from_p(out, bytes(p), &plain);
        }
        ([out], [lost], None, Some(q)) => kernel.recover_from_q(out, *lost, bytes(q), &survivors),
        ([one, other], [x, y], Some(p), Some(q)) => {
            kernel.recover_two((one, *x), (other, *y), bytes(p), bytes(q), &survivors);
        }
        _ => panic!("columns {missing:?} cannot be recovered from P {p:?} and Q {q:?}"),
    }
}

/// Encodes the parity columns `targets` from all data columns of `data` (in array order).
pub fn encode(kernel: Kernel, roles: &[Role], data: &[&[u8]], targets: ColumnSet) -> SmallVec<[(usize, Bytes); 2]> {
    let length = data[0].len();
    let weighted: SmallVec<[parity::Column<'_>; 16]> =
        data.iter().zip(roles).map(|(bytes, role)| (*bytes, exponent(*role))).collect();
    let p = column_of(roles, Role::P).filter(|column| targets.contains(*column));
    let q = column_of(roles, Role::Q).filter(|column| targets.contains(*column));
    match (p, q) {
        (Some(p), Some(q)) => {
            let mut second = Buf::stale(length);
            let first = filled(length, |out| {
                kernel.encode_pq(out, second.parts_mut().next().expect("bands are not empty"), &weighted);
            });
            SmallVec::from_iter([(p, first), (q, second.into_bytes())])
        }
        (Some(p), None) => SmallVec::from_iter([(p, filled(length, |out| kernel.encode_p(out, data)))]),
        (None, Some(q)) => SmallVec::from_iter([(q, filled(length, |out| kernel.encode_q(out, &weighted)))]),
        (None, None) => SmallVec::new(),
    }
}

/// Brings the parity columns `targets` up to date after the chunks of `new` replaced what is known
/// of them.
pub fn update(
    kernel: Kernel,
    roles: &[Role],
    known: &Known,
    new: &[(usize, Bytes)],
    targets: ColumnSet,
) -> SmallVec<[(usize, Bytes); 2]> {
    let mut changed: SmallVec<[parity::Column<'_>; 16]> = SmallVec::new();
    for (chunk, bytes) in new {
        changed.push((bytes_of(known, *chunk), exponent(roles[*chunk])));
        changed.push((bytes, exponent(roles[*chunk])));
    }
    let one = |column: usize| {
        let old = bytes_of(known, column);
        let fresh = match roles[column] {
            // The old parity is one summand more.
            Role::P => {
                let summands: SmallVec<[&[u8]; 16]> =
                    std::iter::once(old).chain(changed.iter().map(|(bytes, _)| *bytes)).collect();
                filled(old.len(), |out| kernel.encode_p(out, &summands))
            }
            Role::Q => filled(old.len(), |out| {
                out.copy_from_slice(old);
                kernel.add_q(out, &changed);
            }),
            Role::Data { .. } => panic!("data is not updated by a difference"),
        };
        (column, fresh)
    };
    targets.iter().filter(|column| !matches!(roles[*column], Role::Data { .. })).map(one).collect()
}

/// Who is wrong in a stretch of rows whose columns disagree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// This column; the others agree without it.
    Column(usize),
    /// There is no telling.
    Unknown,
}

/// Compares the columns of a parity stripe over `range` of their bytes. `None`: they agree, or too
/// little is known to compare (some data column, or every parity column, is missing).
pub fn compare_parity(kernel: Kernel, roles: &[Role], known: &Known, range: std::ops::Range<usize>) -> Option<Blame> {
    let data = data_count(roles);
    if known[..data].iter().any(Option::is_none) {
        return None;
    }
    let cut = |column: usize| &bytes_of(known, column)[range.clone()];
    let plain: SmallVec<[&[u8]; 16]> = (0..data).map(cut).collect();
    let weighted: SmallVec<[parity::Column<'_>; 16]> = (0..data).map(|c| (cut(c), exponent(roles[c]))).collect();
    let syndrome = |column: Option<usize>| {
        let column = column.filter(|column| known[*column].is_some())?;
        let mut sum = cut(column).to_vec();
        match roles[column] {
            Role::P => kernel.add_p(&mut sum, &plain),
            Role::Q => kernel.add_q(&mut sum, &weighted),
            Role::Data { .. } => panic!("data has no syndrome"),
        }
        Some(sum)
    };
    let (p_column, q_column) = (column_of(roles, Role::P), column_of(roles, Role::Q));
    match (syndrome(p_column), syndrome(q_column)) {
        (Some(p), Some(q)) => {
            let exponents: SmallVec<[u8; 16]> = roles[..data].iter().map(|role| exponent(*role)).collect();
            match parity::locate(&p, &q, &exponents) {
                Culprit::None => None,
                Culprit::P => p_column.map(Blame::Column),
                Culprit::Q => q_column.map(Blame::Column),
                Culprit::Data { exponent: wrong } => {
                    roles[..data].iter().position(|role| exponent(*role) == wrong).map(Blame::Column)
                }
                Culprit::Unknown => Some(Blame::Unknown),
            }
        }
        (Some(only), None) | (None, Some(only)) => only.iter().any(|byte| *byte != 0).then_some(Blame::Unknown),
        (None, None) => None,
    }
}

/// Compares copies over `range` of their bytes: how many differ from the first one known, and who
/// is to blame. With three copies or more, those that agree outvote the one that does not.
pub fn compare_copies(known: &Known, range: std::ops::Range<usize>) -> Option<(usize, Blame)> {
    let copies: SmallVec<[(usize, &[u8]); 8]> = known
        .iter()
        .enumerate()
        .filter_map(|(column, bytes)| Some((column, &bytes.as_ref()?[range.clone()])))
        .collect();
    let (_, first) = *copies.first()?;
    let differing = copies.iter().filter(|(_, bytes)| *bytes != first).count();
    if differing == 0 {
        return None;
    }
    let mut minority =
        copies.iter().filter(|(_, bytes)| copies.iter().filter(|(_, other)| other == bytes).count() == 1);
    let blame = match (minority.next(), minority.next()) {
        (Some((column, _)), None) if copies.len() >= 3 => Blame::Column(*column),
        _ => Blame::Unknown,
    };
    Some((differing, blame))
}
