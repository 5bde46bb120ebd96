//! `set`: a lab's settings.

use std::io::Write;

use clap::Args;

use super::job::through;
use super::{Failure, LabArg, Manner, Outcome, disk_name};
use crate::config::{Cache, Word};
use crate::control::{Client, Command};
use crate::stack::{Lab, LabConfig, Stack};

/// Arguments of `set`.
#[derive(Args, Debug)]
pub struct SetArgs {
    #[command(flatten)]
    lab: LabArg,
    /// sync_speed_min or sync_speed_max, in KiB/s for each disk; DISK.cache: through, or volatile: what is not flushed
    /// is lost in a power cut; of a lab with paths also their timers and policies, by their names in multipath.conf; of a disk that several
    /// connections lead to DISK.cmd_timeout, DISK.hold_max and others of those
    #[arg(value_name = "KEY=VALUE", required = true)]
    settings: Vec<String>,
}

/// Runs `set`.
pub fn run(args: &SetArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let lab = &args.lab.lab;
    if let Some(client) = Client::find(lab)? {
        return through(client, lab, &Command::Set { settings: args.settings.clone() }, false, manner, out);
    }
    let mut lab = Lab::open(lab)?;
    apply(&mut lab.config, &args.settings)?;
    lab.save()?;
    Ok(0)
}

/// Changes the settings of a lab that runs.
pub fn on(stack: &mut Stack, settings: &[String]) -> Result<(), Failure> {
    let mut config = stack.lab.config.clone();
    apply(&mut config, settings)?;
    let is_changed = [
        ("what a disk is", config.disks != stack.lab.config.disks),
        ("what its paths do", config.paths != stack.lab.config.paths),
    ];
    if let Some((what, _)) = is_changed.into_iter().find(|(_, is_changed)| *is_changed) {
        return Err(Failure::cannot(format!(
            "{what} can be changed while the lab is at rest: `raidlab stop` it first; nothing was changed"
        )));
    }
    stack.lab.config = config;
    stack.lab.save()?;
    stack.obey_speed_limits();
    Ok(())
}

fn apply(config: &mut LabConfig, settings: &[String]) -> Result<(), Failure> {
    for setting in settings {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Failure::usage(format!(
                "{setting:?} is not KEY=VALUE: type something like sync_speed_max=200000"
            )));
        };
        if let Some((disk, key)) = key.split_once('.') {
            set_of_disk(config, disk, key, value)?;
            continue;
        }
        if !key.starts_with("sync_speed_") {
            set_path_key(config, key, value)?;
            continue;
        }
        let speed: u64 = value
            .parse()
            .ok()
            .filter(|speed| *speed > 0)
            .ok_or_else(|| Failure::usage(format!("{value:?} is not a speed: give KiB/s, 1 or more")))?;
        match key {
            "sync_speed_min" => config.sync.speed_min = speed,
            "sync_speed_max" => config.sync.speed_max = speed,
            _ => {
                return Err(Failure::usage(format!(
                    "{key:?} is no speed: there are sync_speed_min and sync_speed_max"
                )));
            }
        }
    }
    let sync = config.sync;
    if sync.speed_min > sync.speed_max {
        return Err(Failure::usage(format!(
            "sync_speed_min {} is above sync_speed_max {}: set both",
            sync.speed_min, sync.speed_max
        )));
    }
    Ok(())
}

/// A timer or policy of the lab's paths.
fn set_path_key(config: &mut LabConfig, key: &str, value: &str) -> Result<(), Failure> {
    let Some(paths) = &mut config.paths else {
        return Err(Failure::usage(format!(
            "{key:?} is no setting: there are sync_speed_min, sync_speed_max and DISK.cache, for disks with several paths DISK.cmd_timeout and more, and for labs with paths those of multipath.conf"
        )));
    };
    paths.settings.insert(key.to_owned(), Word(value.to_owned()));
    paths.profile().map(|_| ()).map_err(Failure::usage)
}

/// Something of one disk: its cache, or a timer or policy of its paths.
fn set_of_disk(config: &mut LabConfig, disk: &str, key: &str, value: &str) -> Result<(), Failure> {
    let name = disk_name(disk);
    let names: Vec<&str> = config.disks.iter().map(|disk| disk.name.as_str()).collect();
    let missing = format!("the lab has no {name}: it has {}", names.join(", "));
    let disk = config.disks.iter_mut().find(|disk| disk.name == name).ok_or(Failure::usage(missing))?;
    if key == "cache" {
        let cannot = || Failure::usage(format!("{value:?} is not what a cache can be: through or volatile"));
        disk.cache = Cache::named(value).ok_or_else(cannot)?;
        return Ok(());
    }
    if disk.backing.paths().is_none() {
        return Err(Failure::usage(format!("{name} has one path: there is {name}.cache to be set, and nothing else")));
    }
    disk.timers.insert(key.to_owned(), Word(value.to_owned()));
    disk.connections().map(|_| ()).map_err(Failure::usage)
}
