//! Maps, whatever fabric they stand on: what a person looks at and changes.

use serde_json::Value;

use super::map::{Change, Map};
use super::settings::Settings;
use super::{Multipath, json, topology};
use crate::block::{DeviceId, Instant};
use crate::fabric::{Fabric, PathId, PathInfo};

/// The maps of one layer of a stack.
pub trait Maps {
    /// One for each logical unit.
    fn maps(&self) -> &[Map];

    /// All paths, by their numbers.
    fn paths(&self) -> &[PathInfo];

    /// Their policies.
    fn settings(&self) -> &Settings;

    /// A map as `multipath -ll` shows it, called `name` and known to the world as `wwid`; its device is `dm-NUMBER`.
    fn show(&self, map: &Map, name: &str, wwid: &str, number: usize) -> String;

    /// All of them as [`json::show`] has them; `name` gives a map's name and WWID, `first` the number of the
    /// first one's device.
    fn json(&self, name: &dyn Fn(&Map) -> (String, String), first: usize, now: Instant) -> Value;

    /// See [`Multipath::fail_path`].
    fn fail_path(&mut self, path: PathId, now: Instant);

    /// See [`Multipath::reinstate_path`].
    fn reinstate_path(&mut self, path: PathId, now: Instant);

    /// See [`Multipath::switch_group`].
    fn switch_group(&mut self, unit: DeviceId, group: usize, now: Instant);

    /// See [`Multipath::set_queueing`].
    fn set_queueing(&mut self, unit: DeviceId, queues: bool, now: Instant);

    /// See [`Multipath::drain_changes`].
    fn drain_changes(&mut self) -> Vec<(Instant, DeviceId, Change)>;
}

impl<F: Fabric> Maps for Multipath<F> {
    fn maps(&self) -> &[Map] {
        self.maps()
    }

    fn paths(&self) -> &[PathInfo] {
        self.fabric().paths()
    }

    fn settings(&self) -> &Settings {
        self.settings()
    }

    fn show(&self, map: &Map, name: &str, wwid: &str, number: usize) -> String {
        topology::show(self, map, name, wwid, number)
    }

    fn json(&self, name: &dyn Fn(&Map) -> (String, String), first: usize, now: Instant) -> Value {
        json::show(self, name, first, now)
    }

    fn fail_path(&mut self, path: PathId, now: Instant) {
        self.fail_path(path, now);
    }

    fn reinstate_path(&mut self, path: PathId, now: Instant) {
        self.reinstate_path(path, now);
    }

    fn switch_group(&mut self, unit: DeviceId, group: usize, now: Instant) {
        self.switch_group(unit, group, now);
    }

    fn set_queueing(&mut self, unit: DeviceId, queues: bool, now: Instant) {
        self.set_queueing(unit, queues, now);
    }

    fn drain_changes(&mut self) -> Vec<(Instant, DeviceId, Change)> {
        self.drain_changes()
    }
}
