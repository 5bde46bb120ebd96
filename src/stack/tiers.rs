//! Where a stack has paths, and what the maps there are called.

use super::Stack;
use crate::block::{DeviceId, Instant};
use crate::config::PathsAt;
use crate::fabric::health::Health;
use crate::multipath::Maps;
use crate::multipath::map::{Change, Map};

/// A layer of a stack that may have paths.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tier {
    /// Over the array.
    Volume,
    /// Between the array and its members.
    Members,
    /// Between this disk and the NBD servers that have it.
    Disk(DeviceId),
}

impl Tier {
    /// Whether paths of a lab's file are here.
    pub fn is_one_of(self, at: PathsAt) -> bool {
        match self {
            Tier::Volume => at.is_over(),
            Tier::Members => at.is_under(),
            Tier::Disk(_) => false,
        }
    }

    /// Where a component is, and its name there: `volume/cable0`.
    pub fn of_component(component: &str) -> Option<(Tier, &str)> {
        match component.split_once('/')? {
            ("volume", name) => Some((Tier::Volume, name)),
            ("members", name) => Some((Tier::Members, name)),
            _ => None,
        }
    }
}

impl Stack {
    /// From now on a component, `volume/cable0`, is as `health` says. Whether there is one.
    pub fn set_health(&mut self, component: &str, health: Health) -> bool {
        let now = self.reactor.now();
        match Tier::of_component(component) {
            Some((Tier::Volume, name)) => self.reactor.stack_mut().set_health(name, health, now),
            Some((Tier::Members, name)) => self.array_mut().bank_mut().set_health(name, health, now),
            Some((Tier::Disk(_), _)) | None => false,
        }
    }

    /// The layers that have paths, from above.
    pub fn tiers(&self) -> Vec<Tier> {
        let disks = self.leaves().mapped().map(Tier::Disk);
        [Tier::Volume, Tier::Members].into_iter().chain(disks).filter(|tier| self.maps(*tier).is_some()).collect()
    }

    /// The maps of a layer, if it has paths.
    pub fn maps(&self, tier: Tier) -> Option<&dyn Maps> {
        match tier {
            Tier::Volume => self.reactor.stack().multipath().map(|maps| maps as &dyn Maps),
            Tier::Members => self.array().bank().multipath().map(|maps| maps as &dyn Maps),
            Tier::Disk(disk) => self.leaves().multipath(disk).map(|maps| maps as &dyn Maps),
        }
    }

    /// The maps of a layer, to be managed.
    pub fn maps_mut(&mut self, tier: Tier) -> Option<&mut dyn Maps> {
        match tier {
            Tier::Volume => self.reactor.stack_mut().multipath_mut().map(|maps| maps as &mut dyn Maps),
            Tier::Members => self.array_mut().bank_mut().multipath_mut().map(|maps| maps as &mut dyn Maps),
            Tier::Disk(disk) => self.leaves_mut().multipath_mut(disk).map(|maps| maps as &mut dyn Maps),
        }
    }

    /// Whether there are paths anywhere.
    pub fn has_paths(&self) -> bool {
        !self.tiers().is_empty()
    }

    /// What a map is called: `volume`, or after its disk.
    pub fn map_name(&self, tier: Tier, unit: DeviceId) -> &str {
        match tier {
            Tier::Volume => "volume",
            Tier::Members => self.name_of(unit),
            Tier::Disk(disk) => self.name_of(disk),
        }
    }

    /// What the world knows a map by: NAA 6 and most of the array's or the member's UUID, as `scsi_id` shows it.
    pub fn wwid(&self, tier: Tier, unit: DeviceId) -> String {
        let members = self.array().members();
        let uuid: Option<[u8; 16]> = match tier {
            Tier::Volume => members.iter().next().map(|member| member.superblock.set_uuid.0),
            Tier::Members => members.get(unit).map(|member| member.superblock.device_uuid.0),
            Tier::Disk(disk) => members.get(disk).map(|member| member.superblock.device_uuid.0),
        };
        let digits: String = uuid.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("36{}", &digits[1..])
    }

    /// What happened to paths since the last call, each with the layer and the unit.
    pub fn drain_path_changes(&mut self) -> Vec<(Tier, DeviceId, Change)> {
        // What transports note is for timelines; here nobody reads it.
        if let Some(maps) = self.reactor.stack_mut().multipath_mut() {
            maps.fabric_mut().drain_notes();
        }
        if let Some(maps) = self.array_mut().bank_mut().multipath_mut() {
            maps.fabric_mut().drain_notes();
        }
        let mut all = Vec::new();
        for tier in self.tiers() {
            let changes = self.maps_mut(tier).map(Maps::drain_changes).unwrap_or_default();
            all.extend(changes.into_iter().map(|(_, unit, change)| (tier, unit, change)));
        }
        all
    }

    /// The time of the stack, and the maps of a layer: what a change of them needs.
    pub fn maps_now(&mut self, tier: Tier) -> Option<(Instant, &mut dyn Maps)> {
        let now = self.reactor.now();
        self.maps_mut(tier).map(|maps| (now, maps))
    }

    /// All maps, from above, with where they are.
    pub fn each_map(&self) -> impl Iterator<Item = (Tier, &dyn Maps, &Map)> {
        let tiers = self.tiers().into_iter().filter_map(|tier| Some((tier, self.maps(tier)?)));
        tiers.flat_map(|(tier, maps)| maps.maps().iter().map(move |map| (tier, maps, map)))
    }
}
