//! What paths a lab has: its fabric, its timers and policies, its faults.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::block::DeviceId;
use crate::fabric::graph::{Graph, Preset};
use crate::fabric::health::Health;
use crate::fabric::topology::Topology;
use crate::multipath::keys;
use crate::multipath::profile::{Profile, ProfileName};

/// Between which layers of a lab there are paths.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathsAt {
    /// Between the array and who uses it: the array sells its volume over several ports.
    #[default]
    Volume,
    /// Between the array and its members: every disk has several paths.
    Members,
    /// Both.
    Both,
}

impl PathsAt {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PathsAt::Volume => "volume",
            PathsAt::Members => "members",
            PathsAt::Both => "both",
        }
    }

    /// The one a word names.
    pub fn named(word: &str) -> Option<PathsAt> {
        [PathsAt::Volume, PathsAt::Members, PathsAt::Both].into_iter().find(|at| at.name() == word)
    }

    /// Whether the volume has paths.
    pub fn is_over(self) -> bool {
        self != PathsAt::Members
    }

    /// Whether members have paths.
    pub fn is_under(self) -> bool {
        self != PathsAt::Volume
    }
}

/// Many paths: an emulated fabric, its timers and policies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PathsConfig {
    /// Between which layers.
    #[serde(default)]
    pub at: PathsAt,
    /// The fabric, if it is one of those known by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Whose timers; those usual for the fabric, if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// Members may have paths on which writes can land late (`retry_safety none`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// What differs from them, by [the names of `multipath.conf`](crate::multipath::keys).
    #[serde(flatten)]
    pub settings: BTreeMap<String, Word>,
    /// The fabric, if it is one of its owner's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// Components that are not well whenever the lab is opened.
    #[serde(rename = "fault", default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<ComponentFault>,
}

/// A component of a fabric that is not well, in the words of `raidlab fault`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentFault {
    /// `volume/cable0`, `members/hba1`.
    pub component: String,
    /// What it is like.
    pub health: Health,
}

impl PathsConfig {
    /// This fabric, with the timers usual for it.
    pub fn new(preset: Preset, at: PathsAt) -> PathsConfig {
        PathsConfig { preset: Some(preset), ..PathsConfig::bare(at) }
    }

    /// A fabric of one's own, with the timers of Fibre Channel.
    pub fn of_topology(topology: Topology, at: PathsAt) -> PathsConfig {
        PathsConfig { topology: Some(topology), ..PathsConfig::bare(at) }
    }

    fn bare(at: PathsAt) -> PathsConfig {
        PathsConfig {
            at,
            preset: None,
            profile: None,
            force: false,
            settings: BTreeMap::new(),
            topology: None,
            faults: Vec::new(),
        }
    }

    /// Timers and policies; an error names the setting that is wrong, and says what to do.
    pub fn profile(&self) -> Result<Profile, String> {
        let preset = self.preset.unwrap_or(Preset::San);
        let name = self.profile.unwrap_or(ProfileName::of(preset));
        let mut profile = Profile { preset, ..name.profile() };
        match (&self.topology, self.preset) {
            (None, None) => return Err("they are of no fabric: add preset = \"san\", or a [paths.topology]".to_owned()),
            (Some(_), Some(_)) => return Err("a preset and a topology are two fabrics: remove one of them".to_owned()),
            (Some(_), None) if self.settings.contains_key("fabric") => {
                return Err("the fabric is that of the topology: remove the setting fabric".to_owned());
            }
            (Some(topology), None) => {
                profile.fencing = topology.graph().map_err(|error| error.to_string())?.paths()[0].fencing;
            }
            (None, Some(_)) => {}
        }
        for (key, Word(value)) in &self.settings {
            keys::set(&mut profile, key, value)?;
        }
        profile.settle()?;
        let below_raid = profile.settings.retry_safety.check_below_raid(self.force || !self.at.is_under());
        below_raid.map_err(|error| format!("{error} (force = true in [paths])"))?;
        Ok(profile)
    }

    /// Whether the paths of a lab of so many disks can be as they are said to be; an error says what is wrong, and what to do.
    pub(super) fn check(&self, disks: usize) -> Result<(), String> {
        self.profile()?;
        for ComponentFault { component, .. } in &self.faults {
            if self.component(component, disks)?.as_ref() != Some(component) {
                return Err(format!("{component:?} is no component of the fabric: remove that [[paths.fault]]"));
            }
        }
        Ok(())
    }

    /// The component that a word means in a lab of so many disks, as [`ComponentFault`] names it: `volume/cable0`, or `cable0` where that
    /// is one only. `None`: there is no such component.
    pub fn component(&self, word: &str, disks: usize) -> Result<Option<String>, String> {
        let units: Vec<DeviceId> = (0..disks.max(1)).map(|disk| DeviceId(disk as u32)).collect();
        let (over, under) = (self.graph(&units[..1])?, self.graph(&units)?);
        let layers = [("volume", over, self.at.is_over()), ("members", under, self.at.is_under())];
        let named = |(layer, graph, is_there): &(&str, Graph, bool)| {
            let name = word.strip_prefix(layer).and_then(|rest| rest.strip_prefix('/')).unwrap_or(word);
            (*is_there && graph.find(name).is_some()).then(|| format!("{layer}/{name}"))
        };
        let found: Vec<String> = layers.iter().filter_map(named).collect();
        match &found[..] {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => Err(format!("{word} is there twice: say {}", several.join(" or "))),
        }
    }

    /// The fabric, with these units behind it.
    pub fn graph(&self, units: &[DeviceId]) -> Result<Graph, String> {
        let profile = self.profile()?;
        match &self.topology {
            None => Ok(profile.graph_for(units)),
            Some(topology) => {
                let graph = topology.graph().map_err(|error| error.to_string())?;
                Ok(graph.with_fencing(profile.fencing).for_units(units))
            }
        }
    }
}

/// A setting's value: `no_path_retry = 30` and `no_path_retry = "30"` are the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word(pub String);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<u32>() {
            Ok(number) => serializer.serialize_u32(number),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a setting is a number or a string")]
        enum Either {
            Number(u32),
            Text(String),
        }
        Ok(Word(match Either::deserialize(deserializer)? {
            Either::Number(number) => number.to_string(),
            Either::Text(text) => text,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Fencing;

    #[test]
    fn a_fabric_of_ones_own_is_part_of_the_file() {
        let topology = "component = [{ name = 'hba0', kind = 'hba' }, { name = 'port0', kind = 'port' }]
            path = [{ route = ['hba0', 'port0'] }]
            fencing = 'session'";
        let paths = PathsConfig {
            settings: [(String::from("retry_safety"), Word(String::from("fence")))].into(),
            ..PathsConfig::of_topology(toml::from_str(topology).unwrap(), PathsAt::Both)
        };
        assert_eq!(toml::from_str::<PathsConfig>(&toml::to_string(&paths).unwrap()).unwrap(), paths);
        let graph = paths.graph(&[DeviceId(0), DeviceId(4)]).unwrap();
        let units: Vec<u64> = graph.paths().iter().map(|path| u64::from(path.unit.0)).collect();
        assert_eq!((units, graph.paths()[1].fencing), (vec![0, 4], Fencing::Session));
    }
}
