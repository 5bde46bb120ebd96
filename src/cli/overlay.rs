//! `overlay`: what was written beside the originals of a lab.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::status::human;
use super::{Failure, LabArg, Manner, Outcome};
use crate::disk::{overlay_commit, overlay_discard, overlay_status};
use crate::stack::Lab;

/// Arguments of `overlay`.
#[derive(Args, Debug)]
pub struct OverlayArgs {
    /// What to do with it
    action: Action,
    #[command(flatten)]
    lab: LabArg,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    /// How much was written, disk by disk
    Status,
    /// Write it into the originals; the overlays are gone then
    Commit,
    /// Forget it; the originals are as they always were
    Discard,
}

/// Runs `overlay`.
pub fn run(args: &OverlayArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let mut lab = Lab::open(&args.lab.lab)?;
    let overlays: Vec<(usize, PathBuf, PathBuf)> = lab
        .config
        .disks
        .iter()
        .enumerate()
        .filter_map(|(at, disk)| Some((at, lab.path_of(disk.backing.file()?), lab.path_of(disk.overlay.as_ref()?))))
        .collect();
    if overlays.is_empty() {
        return Err(Failure::usage(format!(
            "{} has no overlays: its disks are written in place",
            args.lab.lab.display()
        )));
    }
    for (at, original, overlay) in overlays {
        let name = lab.config.disks[at].name.clone();
        let cannot = |error: crate::disk::OverlayError| Failure::cannot(format!("{name}: {error}"));
        match args.action {
            Action::Status if !overlay.exists() => {
                writeln!(out, "{name}  0 B changed")?;
            }
            Action::Status => {
                let status = overlay_status(&original, &overlay).map_err(cannot)?;
                let unfinished = if status.commit_unfinished { "  commit unfinished: run it again" } else { "" };
                writeln!(
                    out,
                    "{name}  {} changed in {} extents  of {}{unfinished}",
                    human(status.changed_bytes),
                    status.changed_extents,
                    human(status.capacity_bytes)
                )?;
            }
            Action::Commit if overlay.exists() => {
                let status = overlay_commit(&original, &overlay).map_err(cannot)?;
                manner.hint(&format!("{name}: {} written to {}", human(status.changed_bytes), original.display()));
            }
            Action::Discard if overlay.exists() => {
                overlay_discard(&overlay).map_err(cannot)?;
                manner.hint(&format!("{name}: overlay discarded, {} is as it was", original.display()));
            }
            // A commit or discard that was interrupted is run again.
            Action::Commit | Action::Discard => {}
        }
        if args.action == Action::Commit {
            lab.config.disks[at].overlay = None;
        }
    }
    if args.action == Action::Commit {
        lab.save()?;
    }
    Ok(0)
}
