//! `set`: a lab's settings.

use clap::Args;

use super::{Failure, LabArg, Outcome, disk_name};
use crate::config::Cache;
use crate::stack::Lab;

/// Arguments of `set`.
#[derive(Args, Debug)]
pub struct SetArgs {
    #[command(flatten)]
    lab: LabArg,
    /// sync_speed_min or sync_speed_max, in KiB/s for each disk; DISK.cache: through, or volatile: what is not flushed
    /// is lost in a power cut
    #[arg(value_name = "KEY=VALUE", required = true)]
    settings: Vec<String>,
}

/// Runs `set`.
pub fn run(args: &SetArgs) -> Outcome {
    let mut lab = Lab::open(&args.lab.lab)?;
    for setting in &args.settings {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Failure::usage(format!(
                "{setting:?} is not KEY=VALUE: type something like sync_speed_max=200000"
            )));
        };
        if let Some(disk) = key.strip_suffix(".cache") {
            set_cache(&mut lab, disk, value)?;
            continue;
        }
        let speed: u64 = value
            .parse()
            .ok()
            .filter(|speed| *speed > 0)
            .ok_or_else(|| Failure::usage(format!("{value:?} is not a speed: give KiB/s, 1 or more")))?;
        match key {
            "sync_speed_min" => lab.config.sync.speed_min = speed,
            "sync_speed_max" => lab.config.sync.speed_max = speed,
            _ => {
                return Err(Failure::usage(format!(
                    "{key:?} is no setting: there are sync_speed_min, sync_speed_max and DISK.cache"
                )));
            }
        }
    }
    let sync = lab.config.sync;
    if sync.speed_min > sync.speed_max {
        return Err(Failure::usage(format!(
            "sync_speed_min {} is above sync_speed_max {}: set both",
            sync.speed_min, sync.speed_max
        )));
    }
    lab.save()?;
    Ok(0)
}

fn set_cache(lab: &mut Lab, disk: &str, value: &str) -> Result<(), Failure> {
    let cache = Cache::named(value)
        .ok_or_else(|| Failure::usage(format!("{value:?} is not what a cache can be: through or volatile")))?;
    let name = disk_name(disk);
    match lab.config.disks.iter_mut().find(|disk| disk.name == name) {
        Some(disk) => disk.cache = cache,
        None => {
            let names: Vec<&str> = lab.config.disks.iter().map(|disk| disk.name.as_str()).collect();
            return Err(Failure::usage(format!("the lab has no {name}: it has {}", names.join(", "))));
        }
    }
    Ok(())
}
