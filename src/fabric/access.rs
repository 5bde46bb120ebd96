//! Which target port group owns a unit, and what the others offer of it meanwhile.

use super::Access;
use super::graph::Alua;
use crate::block::Instant;

/// The ownership of a unit among target port groups.
#[derive(Clone, Debug)]
pub(super) struct Ownership {
    alua: Alua,
    owner: u16,
    /// The owner to be, and since when it will be.
    moving: Option<(Instant, u16)>,
}

impl Ownership {
    pub(super) fn new(alua: Alua, owner: u16) -> Ownership {
        Ownership { alua, owner, moving: None }
    }

    /// What a group offers.
    pub(super) fn access(&self, group: u16, now: Instant) -> Access {
        match self.moving {
            Some((since, _)) if now < since => Access::Transitioning,
            _ if group == self.owner(now) => Access::Optimized,
            _ => self.alua.others,
        }
    }

    fn owner(&self, now: Instant) -> u16 {
        match self.moving {
            Some((since, heir)) if since <= now => heir,
            _ => self.owner,
        }
    }

    /// Somebody asks for another owner.
    pub(super) fn activate(&mut self, group: u16, now: Instant) {
        if self.alua.explicit && self.moving.is_none() && self.owner != group {
            self.moving = Some((now + self.alua.transition, group));
        }
    }

    /// Another group takes over from one that is gone; `alive` are those that are there.
    pub(super) fn mind(&mut self, alive: &[u16], now: Instant) {
        if !self.alua.implicit || alive.contains(&self.owner) || self.moving.is_some() {
            return;
        }
        if let Some(heir) = alive.first() {
            self.moving = Some((now + self.alua.transition, *heir));
        }
    }

    /// Whether there is another owner since the last call.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        let Some((_, heir)) = self.moving.filter(|(since, _)| *since <= now) else { return false };
        self.owner = heir;
        self.moving = None;
        true
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.moving.map(|(since, _)| since)
    }
}
