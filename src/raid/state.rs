//! The state of the volume's sectors, for those who ask where redundancy is missing.
//!
//! A chunk is as well off as the columns of its stripe in its rows: one that nobody holds is missing. What can still be
//! read with columns missing is degraded, or recovering if somebody is on the way to hold each of them; so is what a
//! resync has yet to bring in sync. Parity that does not agree with its data for certain reconstructs nothing.

use std::collections::BTreeSet;

use super::Array;
use super::geometry::{Column, Role, Slot, Stripe, StripeIndex};
use super::member::Standing;
use crate::block::{Bank, Extent, Lba, Sectors, State, States};

/// Chunks looked at in one call: a fraction of a millisecond.
const CHUNKS_MAX: usize = 4096;

impl<B: Bank> States for Array<B> {
    fn states(&self, extent: Extent) -> Vec<(Sectors, State)> {
        if self.lacks_nothing() {
            return vec![(extent.length, State::InSync)];
        }
        let mut told: Vec<(Sectors, State)> = Vec::new();
        let mut at = extent.start;
        for _ in 0..CHUNKS_MAX {
            if at >= extent.end() {
                break;
            }
            at = self.states_of_chunk(at, extent.end(), &mut told);
        }
        told
    }
}

impl<B: Bank> Array<B> {
    fn lacks_nothing(&self) -> bool {
        let members = &self.control.members;
        let whole = |slot| {
            members.in_slot(Slot(slot)).next().is_some_and(|member| member.stale.is_empty() && member.bad.is_empty())
        };
        self.control.untrusted.is_empty() && (0..members.seats().len() as u8).all(whole)
    }

    /// Adds the states from `at` to the end of its chunk, or to `end`; gives where that is.
    fn states_of_chunk(&self, at: Lba, end: Lba, told: &mut Vec<(Sectors, State)>) -> Lba {
        let (index, offset) = self.geometry.locate(at);
        let stripe = self.geometry.stripe(index);
        let (chunk, first) = (offset.0 / stripe.rows.0, offset.0 % stripe.rows.0);
        let last = stripe.rows.0.min(first + (end - at).0);
        let mut row = first;
        for next in self.borders(index, &stripe, first, last) {
            let state = self.state_of(index, &stripe, chunk as u8, row..next);
            match told.last_mut() {
                Some((length, before)) if *before == state => *length += Sectors(next - row),
                _ => told.push((Sectors(next - row), state)),
            }
            row = next;
        }
        at + Sectors(last - first)
    }

    /// Rows after `first` up to `last` at which something may change.
    fn borders(&self, index: StripeIndex, stripe: &Stripe, first: u64, last: u64) -> BTreeSet<u64> {
        let mut borders = BTreeSet::from([last]);
        let mut note = |row: Option<u64>| borders.extend(row.filter(|row| (first + 1..last).contains(row)));
        for column in &stripe.columns {
            for member in self.control.members.in_slot(column.slot) {
                let data = column.base.0 + first..column.base.0 + last;
                for stale in member.stale.overlapping(data) {
                    note(stale.start.checked_sub(column.base.0));
                    note(stale.end.checked_sub(column.base.0));
                }
                let on_device = member.on_device(column.base, &(0..stripe.rows.0));
                for bad in member.bad.within(on_device) {
                    note(bad.start.0.checked_sub(on_device.start.0));
                    note(bad.end().0.checked_sub(on_device.start.0));
                }
            }
        }
        let sync = self.geometry.sync_range(index, first..last);
        if !sync.is_empty() {
            for untrusted in self.control.untrusted.overlapping(sync.clone()) {
                note(untrusted.start.checked_sub(sync.start).map(|row| row + first));
                note(untrusted.end.checked_sub(sync.start).map(|row| row + first));
            }
        }
        borders
    }

    fn state_of(&self, index: StripeIndex, stripe: &Stripe, chunk: u8, rows: std::ops::Range<u64>) -> State {
        let sync = self.geometry.sync_range(index, rows.clone());
        let trusted = sync.is_empty() || !self.control.untrusted.overlaps(&sync);
        let held = |column: &Column| {
            let mut members = self.control.members.in_slot(column.slot);
            members.any(|member| member.standing(column.base, &rows) == Standing::Readable)
        };
        let awaited = |column: &Column| {
            let mut members = self.control.members.in_slot(column.slot);
            members.any(|member| member.filling && !member.stale.is_empty())
        };
        let missing = || stripe.columns.iter().filter(|column| !held(column));
        let is_own = |column: &&Column| matches!(column.role, Role::Data { index, .. } if index == chunk);
        let is_readable = stripe.columns.iter().filter(is_own).any(held)
            || (trusted && missing().count() <= self.geometry.parity_count());
        if !is_readable {
            State::Lost
        } else if missing().any(|column| !awaited(column)) {
            State::Degraded
        } else if missing().next().is_some() || !trusted {
            State::Recovering
        } else {
            State::InSync
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::DeviceId;
    use crate::raid::level::{Layout, Level, Raid5Layout};
    use crate::raid::member::Place;
    use crate::raid::tests::Lab;

    fn states(lab: &Lab) -> Vec<(Sectors, State)> {
        let whole = Extent::new(Lba(0), lab.array.geometry().capacity());
        let mut told = Vec::new();
        let mut at = whole.start;
        while at < whole.end() {
            let part = lab.array.states(Extent::new(at, whole.end() - at));
            assert!(!part.is_empty(), "no answer at {at:?}");
            at = part.iter().fold(at, |at, (length, _)| at + *length);
            told.extend(part);
        }
        assert_eq!(at, whole.end());
        told.dedup_by(|next, before| {
            let same = next.1 == before.1;
            before.0 += if same { next.0 } else { Sectors::ZERO };
            same
        });
        told
    }

    fn only(state: State, lab: &Lab) -> Vec<(Sectors, State)> {
        vec![(lab.array.geometry().capacity(), state)]
    }

    fn raid5() -> Lab {
        Lab::new(Level::Raid5, Layout::Raid5(Raid5Layout::LeftSymmetric), 3, 0, false)
    }

    #[test]
    fn an_array_that_lacks_nothing_is_in_sync_and_one_that_lacks_a_member_degraded() {
        let mut lab = raid5();
        assert_eq!(states(&lab), only(State::InSync, &lab));
        lab.array.fail(DeviceId(1)).unwrap();
        assert_eq!(states(&lab), only(State::Degraded, &lab));
    }

    #[test]
    fn what_a_recovery_has_not_reached_is_recovering() {
        let mut lab = raid5();
        lab.array.fail(DeviceId(1)).unwrap();
        lab.drive(Array::is_quiet);
        lab.add_blank();
        lab.drive(|array| array.members().iter().any(|member| member.watermark().is_some_and(|at| at > 1000)));
        let told = states(&lab);
        let kinds: Vec<State> = told.iter().map(|(_, state)| *state).collect();
        assert_eq!(kinds, [State::InSync, State::Recovering]);
        let watermark = lab.array.members().iter().find_map(super::super::member::Member::watermark).unwrap();
        assert_eq!(told[0].0.0, 2 * watermark);
        lab.drive(|array| !array.is_syncing());
        assert_eq!(states(&lab), only(State::InSync, &lab));
    }

    /// With two members of a RAID5 gone, what the third holds can be read; of three chunks in a row it holds one, and
    /// one of three of those is parity.
    #[test]
    fn what_nobody_can_reconstruct_is_lost() {
        let mut lab = raid5();
        for device in [0, 1] {
            lab.array.control.members.move_to(DeviceId(device), Place::Faulty);
        }
        let told = states(&lab);
        let lost: u64 = told.iter().filter(|(_, state)| *state == State::Lost).map(|(length, _)| length.0).sum();
        let capacity = lab.array.geometry().capacity().0;
        let chunk = lab.array.geometry().chunk().0;
        assert!(lost.abs_diff(capacity * 2 / 3) <= 2 * chunk, "{lost} of {capacity}");
    }

    #[test]
    fn a_bad_block_is_lost_where_nothing_else_holds_it() {
        let mut lab = Lab::new(Level::Raid1, Layout::None, 2, 0, false);
        for device in [DeviceId(0), DeviceId(1)] {
            let member = lab.array.control.members.get_mut(device).unwrap();
            let at = member.data_offset() + Sectors(100);
            member.bad.insert(Extent::new(at, Sectors(8 - 4 * u64::from(device.0))));
        }
        let told = states(&lab);
        let kinds: Vec<(u64, State)> = told.iter().take(4).map(|(length, state)| (length.0, *state)).collect();
        assert_eq!(kinds[..3], [(100, State::InSync), (4, State::Lost), (4, State::Degraded)]);
    }
}
