//! `stop` and `power-cut`: the end of a lab that runs, the good one and the other.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use uuid::Uuid;

use super::job::through;
use super::{Failure, LabArg, Manner, Outcome};
use crate::control::{Client, Command};
use crate::stack::{Lab, LabConfig, StackError, lock_directory};

/// How long the process that served a lab may take to end after it said that it would.
pub const END_MAX: Duration = Duration::from_secs(10);

/// How long one that does not listen any more is waited for.
const ENDING_MAX: Duration = Duration::from_secs(1);

/// Arguments of `stop`.
#[derive(Args, Debug)]
pub struct StopArgs {
    #[command(flatten)]
    lab: LabArg,
}

/// Arguments of `power-cut`.
#[derive(Args, Debug)]
pub struct PowerCutArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Decides which sectors of volatile caches survive; another one each time if not said
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs `stop`; the lab is at rest when it returns.
pub fn stop(args: &StopArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let lab = &args.lab.lab;
    let Some(client) = Client::find(lab)? else {
        LabConfig::read(lab).map_err(StackError::from)?;
        // One that is ending already does not listen any more; whoever has it open without serving it is named.
        released(lab, ENDING_MAX)?;
        manner.hint(&format!("{} is at rest: there is nothing to stop", lab.display()));
        return Ok(0);
    };
    let code = through(client, lab, &Command::Stop, false, manner, out)?;
    released(lab, END_MAX)?;
    Ok(code)
}

/// Runs `power-cut`; the process that served the lab is gone when it returns.
pub fn power_cut(args: &PowerCutArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let lab = &args.lab.lab;
    let Some(client) = Client::find(lab)? else {
        let _lab = Lab::open(lab)?;
        return Err(Failure::usage(format!(
            "{} is at rest: there is no power to cut; `raidlab serve {}` runs it",
            lab.display(),
            lab.display()
        )));
    };
    let seed = args.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().1 & 0xffff_ffff);
    if args.seed.is_none() {
        manner.hint(&format!("seed {seed}"));
    }
    let code = through(client, lab, &Command::PowerCut { seed }, false, manner, out)?;
    released(lab, END_MAX)?;
    Ok(code)
}

/// Waits until the lab can be opened again, so long at the most.
pub fn released(lab: &Path, patience: Duration) -> Result<(), StackError> {
    let deadline = Instant::now() + patience;
    loop {
        match lock_directory(lab) {
            Err(StackError::InUse { .. }) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            other => return other.map(drop),
        }
    }
}
