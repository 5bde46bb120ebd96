//! Strikes: which fault struck which sectors, and when.
//!
//! Whoever judges an array must know what its disks did to it: an error is earned, and wrong bytes
//! are excused, only where a fault struck. So the fault layer can write a ledger of what it does.

use super::{ArmedFault, Fate, FaultId, FaultKind};
use crate::block::{DeviceId, Extent, Instant, Lba, Sectors};

/// One fault that struck one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strike {
    /// The device that has the fault.
    pub device: DeviceId,
    /// The fault.
    pub fault: FaultId,
    /// What it is.
    pub kind: FaultKind,
    /// When the request was submitted.
    pub at: Instant,
    /// Sectors of the device that are not as their requester believes, or could not be had: of a torn
    /// write those not stored, of a misdirected write its own and then those where it landed, of rotten
    /// or unreadable sectors those that were asked for, of a corrupted write the sector that is stored
    /// wrong; of all others the whole request. None for a flush, and none where another fault of the
    /// same request kept this one from having an effect.
    pub extents: Vec<Extent>,
}

/// The strikes nobody has taken yet, if anybody wants them.
#[derive(Clone, Default, Debug)]
pub(super) struct Strikes {
    kept: Option<Vec<Strike>>,
    /// How many of them have been looked at.
    seen: usize,
}

impl Strikes {
    pub(super) fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    pub(super) fn unseen(&mut self) -> &[Strike] {
        let kept = self.kept.as_deref().unwrap_or_default();
        let from = std::mem::replace(&mut self.seen, kept.len());
        &kept[from..]
    }

    pub(super) fn take(&mut self) -> Vec<Strike> {
        self.seen = 0;
        self.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.kept.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn note(&mut self, fault: &ArmedFault, at: Instant, felt_at: impl FnOnce() -> Vec<Extent>) {
        if let Some(kept) = &mut self.kept {
            let ArmedFault { id, device, ref spec, .. } = *fault;
            kept.push(Strike { device, fault: id, kind: spec.kind, at, extents: felt_at() });
        }
    }

    /// Flipped bits go where the request goes: of the strikes from `first` on, on a request of `extent`.
    pub(super) fn follow(&mut self, first: usize, fate: &Fate, extent: Extent) {
        let Some(kept) = &mut self.kept else { return };
        for strike in &mut kept[first..] {
            let corrupts = matches!(strike.kind, FaultKind::CorruptWrite { .. });
            if !corrupts && !matches!(strike.kind, FaultKind::Bitflip { .. }) {
                continue;
            }
            match fate {
                Fate::Answer(_) => strike.extents.clear(),
                Fate::Torn(stored, _) => strike.extents.retain(|sector| sector.end() <= extent.start + *stored),
                Fate::Misdirected(landing) if corrupts => {
                    let moved = |sector: &Extent| Lba(landing.0 + (sector.start - extent.start).0);
                    strike.extents.iter_mut().for_each(|sector| *sector = Extent::new(moved(sector), Sectors(1)));
                }
                Fate::Misdirected(_) | Fate::Pass => {}
            }
        }
    }
}
