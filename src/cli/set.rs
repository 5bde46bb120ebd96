//! `set`: a lab's settings.

use clap::Args;

use super::{Failure, LabArg, Outcome};
use crate::stack::Lab;

/// Arguments of `set`.
#[derive(Args, Debug)]
pub struct SetArgs {
    #[command(flatten)]
    lab: LabArg,
    /// sync_speed_min or sync_speed_max, in KiB/s for each disk
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
                    "{key:?} is no setting: there are sync_speed_min and sync_speed_max"
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
