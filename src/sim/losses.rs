//! What faults have left of the rows of an array, and which errors they are owed.

use std::collections::BTreeSet;

use super::Oracle;
use super::array::{Row, SimArray, SimStack};
use super::fabrics::is_cut_off;
use crate::block::{DeviceId, Extent, Lba, Sectors};
use crate::disk::FaultKind;
use crate::raid::VOLUME;
use crate::raid::geometry::{Column, Role, Slot};
use crate::raid::member::{Member, Place, Standing};
use crate::raid::superblock::MemberRole;

/// The rows of the array that lie on these sectors of a member.
pub(super) fn rows_of(array: &SimArray, member: &Member, extent: Extent) -> Vec<Row> {
    // One that has just failed may be back before anybody has written that down.
    let slot = match (member.place, member.superblock.role()) {
        (Place::Slot(slot) | Place::Replacement(slot), _) => slot,
        (Place::Faulty, MemberRole::Slot(slot)) => Slot(slot as u8),
        _ => return Vec::new(),
    };
    let geometry = array.geometry();
    let row_at = |sector: u64| {
        let row = sector.checked_sub(member.data_offset().0)?;
        let index = geometry.stripe_at(slot, Lba(row))?;
        let stripe = geometry.stripe(index);
        let of_row = |base: u64| (base..base + stripe.rows.0).contains(&row);
        let column = stripe.columns.iter().find(|c| c.slot == slot && of_row(c.base.0));
        Some((index, row - column.expect("a stripe has a column at its rows").base.0))
    };
    extent.range().filter_map(row_at).collect()
}

/// The sectors of the volume in a row.
pub(super) fn sectors_of(array: &SimArray, (index, row): Row) -> impl Iterator<Item = Lba> + use<> {
    let stripe = array.geometry().stripe(index);
    let (start, rows) = (stripe.start, stripe.rows.0);
    (0..stripe.data_chunks as u64).map(move |chunk| start + Sectors(chunk * rows + row))
}

/// A silent fault has touched these sectors of a device: nobody vouches for the rows they lie in (R12).
pub(super) fn taint(array: &SimArray, oracle: &mut Oracle, device: DeviceId, extent: Extent) {
    let Some(member) = array.members().get(device) else { return };
    for row in rows_of(array, member, extent) {
        sectors_of(array, row).for_each(|lba| oracle.excuse(lba));
    }
}

/// Tells the oracle what silent faults have touched since the last time, and what could not be read: a write may have
/// mended that by the time the error arrives.
pub(super) fn account(stack: &mut SimStack, oracle: &mut Oracle) {
    oracle.may_still_land(landing(stack));
    let array = stack.bank_mut();
    for strike in array.bank_mut().bank_mut().unseen_strikes().to_vec() {
        if !strike.kind.is_silent() {
            continue;
        }
        for extent in strike.extents {
            taint(array, oracle, strike.device, extent);
            if let FaultKind::MisdirectedRead(distance) = strike.kind {
                note_misled(array, oracle, strike.device, extent, distance);
            }
        }
    }
    let lost = array.bank_mut().bank_mut().inner_mut().take_lost();
    // Paths may have given the flush up and sent another one: nobody is told that this one failed.
    if array.bank().multipath().is_some() {
        lost.into_iter().for_each(|(device, extent)| taint(array, oracle, device, extent));
    }
    for (device, extent) in array.bank_mut().bank_mut().inner_mut().take_unreadable() {
        let Some(member) = array.members().get(device) else { continue };
        for row in rows_of(array, member, extent) {
            sectors_of(array, row).filter(|lba| earned(array, *lba)).for_each(|lba| oracle.was_lost(lba));
        }
    }
}

/// A read that goes astray may end where nothing can be read: what was asked for is lost then, if no other member has it.
fn note_misled(array: &SimArray, oracle: &mut Oracle, device: DeviceId, asked: Extent, distance: i64) {
    let Some(member) = array.members().get(device) else { return };
    let landing = asked.start.0.checked_add_signed(distance).map(|start| Extent::new(Lba(start), asked.length));
    if landing.is_none_or(|landing| !array.bank().bank().inner().is_unreadable(device, landing)) {
        return;
    }
    for row in rows_of(array, member, asked) {
        let lost = |lba: &Lba| leaves_too_little(array, *lba, Some((device, asked)));
        sectors_of(array, row).filter(lost).for_each(|lba| oracle.was_lost(lba));
    }
}

/// Sectors of the volume in `rows` that no member holds and can read.
pub(super) fn sectors_without_member(array: &SimArray, rows: &BTreeSet<Row>) -> Vec<Lba> {
    let mut sectors = Vec::new();
    for (index, row) in rows {
        let stripe = array.geometry().stripe(*index);
        for column in &stripe.columns {
            // Where a row of a chunk cannot be read, its neighbours are reconstructed with it.
            if !(0..stripe.rows.0).any(|near| is_lost(array, column, near)) {
                continue;
            }
            if let Role::Data { index: chunk, .. } = column.role {
                sectors.push(stripe.start + Sectors(u64::from(chunk) * stripe.rows.0 + row));
            }
        }
    }
    sectors
}

/// Whether no device has this row of a column, by what it holds and by what it can read.
pub(super) fn is_lost(array: &SimArray, column: &Column, row: u64) -> bool {
    is_lost_with(array, column, row, None)
}

/// The same, if these sectors of a device cannot be read either.
fn is_lost_with(array: &SimArray, column: &Column, row: u64, with: Option<(DeviceId, Extent)>) -> bool {
    let rows = row..row + 1;
    let bank = array.bank().bank().inner();
    !array.members().in_slot(column.slot).any(|member| {
        member.standing(column.base, &rows) == Standing::Readable
            && !may_fail(array, member.device)
            && bank.is_online(member.device)
            && !bank.is_unreadable(member.device, member.on_device(column.base, &rows))
            && with.is_none_or(|(device, extent)| {
                device != member.device || !extent.overlaps(member.on_device(column.base, &rows))
            })
    })
}

/// Sectors of the volume in which a write may still land that a map has given up: over the array, or under it.
fn landing(stack: &SimStack) -> BTreeSet<u64> {
    let mut sectors = BTreeSet::new();
    if let Some(multipath) = stack.multipath() {
        sectors.extend(multipath.may_still_land().flat_map(|(_, extent)| extent.range()));
    }
    let array = stack.bank();
    if let Some(multipath) = array.bank().multipath() {
        for (device, extent) in multipath.may_still_land() {
            let Some(member) = array.members().get(device) else { continue };
            let rows = rows_of(array, member, extent);
            sectors.extend(rows.into_iter().flat_map(|row| sectors_of(array, row)).map(|lba| lba.0));
        }
    }
    sectors
}

/// Whether requests of a disk may fail for a fault that somebody gave it, or its paths.
pub(super) fn may_fail(array: &SimArray, device: DeviceId) -> bool {
    let fails = |fault: &crate::disk::ArmedFault| fault.device == device && fault.spec.kind.is_error();
    let bank = array.bank().bank();
    bank.list().iter().any(fails) || bank.inner().may_fail(device) || is_cut_off(array.bank(), device)
}

/// The same as clients see it, who may be cut off from the volume.
pub(super) fn earned_by_clients(stack: &SimStack, lba: Lba) -> bool {
    is_cut_off(stack, VOLUME) || earned(stack.bank(), lba)
}

/// Whether faults that are really there leave too little of a sector: what the array believes of its members is taken
/// for true only where it believes less than it could.
pub fn earned(array: &SimArray, lba: Lba) -> bool {
    leaves_too_little(array, lba, None)
}

fn leaves_too_little(array: &SimArray, lba: Lba, with: Option<(DeviceId, Extent)>) -> bool {
    if array.is_failed() {
        return true;
    }
    let geometry = array.geometry();
    let (index, offset) = geometry.locate(lba);
    let stripe = geometry.stripe(index);
    let (chunk, row) = (offset.0 / stripe.rows.0, offset.0 % stripe.rows.0);
    let lost_columns: Vec<_> = stripe.columns.iter().filter(|column| is_lost_with(array, column, row, with)).collect();
    if geometry.parity_count() == 0 {
        let lost = lost_columns.iter().filter(|column| holds(column.role, chunk)).count();
        return lost == stripe.columns.iter().filter(|column| holds(column.role, chunk)).count();
    }
    let mine = lost_columns.iter().any(|column| holds(column.role, chunk));
    lost_columns.len() > geometry.parity_count() || (mine && !array.is_trusted_at(lba))
}

pub(super) fn holds(role: Role, chunk: u64) -> bool {
    matches!(role, Role::Data { index, .. } if u64::from(index) == chunk)
}
