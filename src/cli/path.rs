//! `path`: the paths of a lab, in multipath's words.

mod explain;
mod manage;

pub use manage::{Wanted, begin, change_line};

use std::io::Write;
use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};

use super::job::carry_out;
use super::{Failure, LabArg, Manner, Outcome};
use crate::control::{Client, Command, PathCommand};
use crate::fabric::graph::Graph;
use crate::multipath::profile::Profile;
use crate::raid::VOLUME;
use crate::stack::LabConfig;

/// Arguments of `path`.
#[derive(Args, Debug)]
pub struct PathArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Maps, groups and paths, in the form of `multipath -ll`
    List(ListArgs),
    /// Nothing new goes down a path, until its checker finds it well
    Fail(OnPath),
    /// A path takes requests again, until one of them fails
    Reinstate(OnPath),
    /// Requests go down this group from now on
    Switch(SwitchArgs),
    /// Whether requests wait when no path is left
    Queueing(QueueingArgs),
    /// The worst-case stall of each kind of failure, by formula, against deadlines that others have; a linter for multipath.conf
    Explain(explain::ExplainArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    lab: LabArg,
    /// As `multipathd show maps json`, and what is under way on each path, for how long, how fast it is, how often it failed
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct OnPath {
    #[command(flatten)]
    lab: LabArg,
    /// The path: sda, its 0:0:1:0, or MAP/sda where several have that name
    #[arg(value_name = "PATH")]
    path: String,
}

#[derive(Args, Debug)]
struct SwitchArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Its number, from 1, in the order of `path list`
    #[arg(value_name = "GROUP", value_parser = clap::value_parser!(u16).range(1..))]
    group: u16,
    /// Of which map, if there are several: volume, or a disk's name
    #[arg(long, value_name = "NAME")]
    map: Option<String>,
}

#[derive(Args, Debug)]
struct QueueingArgs {
    #[command(flatten)]
    lab: LabArg,
    /// on: as no_path_retry says (restorequeueing); off: they fail at once (disablequeueing)
    #[arg(value_name = "on|off")]
    queueing: Switch,
    /// Of one map only: volume, or a disk's name
    #[arg(long, value_name = "NAME")]
    map: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Runs `path`.
pub fn run(args: &PathArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let (lab, command) = match &args.what {
        What::Explain(args) => return explain::run(args, manner, out),
        What::List(ListArgs { lab, json }) => (&lab.lab, PathCommand::List { json: *json }),
        What::Fail(OnPath { lab, path }) => (&lab.lab, PathCommand::Fail { path: path.clone() }),
        What::Reinstate(OnPath { lab, path }) => (&lab.lab, PathCommand::Reinstate { path: path.clone() }),
        What::Switch(SwitchArgs { lab, group, map }) => {
            (&lab.lab, PathCommand::Switch { group: *group, map: map.clone() })
        }
        What::Queueing(QueueingArgs { lab, queueing, map }) => {
            (&lab.lab, PathCommand::Queueing { on: *queueing == Switch::On, map: map.clone() })
        }
    };
    must_have_paths(lab)?;
    if !matches!(command, PathCommand::List { .. }) && Client::find(lab)?.is_none() {
        let lab = lab.display();
        return Err(Failure::usage(format!(
            "{lab} is at rest, and all its paths are well whenever it is opened: serve or mount it first (`raidlab serve {lab}`)"
        )));
    }
    carry_out(lab, &Command::Path(command), false, manner, out)
}

fn config_of(lab: &Path) -> Result<LabConfig, Failure> {
    LabConfig::read(lab).map_err(|error| Failure::cannot(error.to_string()))
}

fn none_there(lab: &Path, what: &str) -> Failure {
    Failure::usage(format!(
        "{} has no {what}: make a lab that has with `raidlab create LAB --paths san`",
        lab.display()
    ))
}

fn must_have_paths(lab: &Path) -> Result<(), Failure> {
    let config = config_of(lab)?;
    match config.paths.is_some() || config.disks.iter().any(|disk| disk.backing.paths().is_some()) {
        true => Ok(()),
        false => Err(none_there(lab, "paths")),
    }
}

/// The timers of a lab and its fabric with one unit, which must be an emulated one.
pub fn fabric_of(lab: &Path) -> Result<(Profile, Graph), Failure> {
    let paths = config_of(lab)?.paths.ok_or_else(|| none_there(lab, "paths of a fabric"))?;
    Ok((paths.profile().map_err(Failure::usage)?, paths.graph(&[VOLUME]).map_err(Failure::usage)?))
}
