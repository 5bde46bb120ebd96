//! Who may write to a unit: persistent reservations as SCSI has them (SPC-4 5.13), of the type write exclusive, registrants only.
//!
//! A nexus registers with a key. While a reservation is held, a write of a nexus that is not registered is refused with a reservation
//! conflict, which is the unit's word and no path's fault. Who takes over from a host that is gone, or that it takes to be, preempts its
//! key: its nexuses are registered no longer, and what they have under way ends.

use std::collections::BTreeMap;

use super::PathId;

/// A host's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u64);

/// What a host asks of a unit's reservation (PERSISTENT RESERVE OUT).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserve {
    /// The nexus is known by this key from now on (REGISTER AND IGNORE EXISTING KEY).
    Register(Key),
    /// Only registered nexuses write (RESERVE).
    Reserve,
    /// The nexuses of this key are registered no longer, and what they have under way ends (PREEMPT AND ABORT).
    Preempt(Key),
}

/// The reservation of a unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservation {
    registered: BTreeMap<PathId, Key>,
    /// The key that the reservation was taken with.
    held: Option<Key>,
}

/// The unit refuses: another host holds the reservation, or the nexus is not registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Conflict;

impl Reservation {
    pub(super) fn held(&self) -> Option<Key> {
        self.held
    }

    /// Whether a nexus may write.
    pub(super) fn admits(&self, path: PathId) -> bool {
        self.held.is_none() || self.registered.contains_key(&path)
    }

    /// Nexuses whose commands are to end.
    pub(super) fn apply(&mut self, path: PathId, reserve: Reserve) -> Result<Vec<PathId>, Conflict> {
        if let Reserve::Register(key) = reserve {
            self.registered.insert(path, key);
            return Ok(Vec::new());
        }
        let mine = *self.registered.get(&path).ok_or(Conflict)?;
        match reserve {
            Reserve::Register(_) => unreachable!("it was just done"),
            Reserve::Reserve if self.held.is_some_and(|held| held != mine) => Err(Conflict),
            Reserve::Reserve => {
                self.held = Some(mine);
                Ok(Vec::new())
            }
            Reserve::Preempt(victim) => {
                let of_victim = self.registered.iter().filter(|(_, key)| **key == victim && victim != mine);
                let gone: Vec<PathId> = of_victim.map(|(path, _)| *path).collect();
                self.registered.retain(|path, _| !gone.contains(path));
                self.held = Some(mine);
                Ok(gone)
            }
        }
    }
}
