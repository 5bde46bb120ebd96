//! `assemble`: a lab over members that exist.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::create::{backend_named, existing_backing, lab_config, make_directory};
use super::run::remark_line;
use super::{Failure, Manner, Outcome};
use crate::block::DeviceId;
use crate::config::{Backend, Backing, FILE_NAME};
use crate::raid::assemble::{AssembleOptions, Remark, assemble};
use crate::stack::{
    Lab, LabConfig, OpenOptions, Stack, StackError, lock_directory, read_candidate_plainly, wall_clock,
};

/// Arguments of `assemble`.
#[derive(Args, Debug)]
pub struct AssembleArgs {
    /// The lab's directory; made, if images are given and it is not there
    #[arg(value_name = "LAB")]
    lab: PathBuf,
    /// Members: images, block devices or NBD exports with md 1.x metadata; none: those the lab has
    #[arg(value_name = "IMG|URI")]
    images: Vec<PathBuf>,
    /// Accept a dirty degraded array, and members that are behind where there are not enough without
    #[arg(long)]
    force: bool,
    /// Never write to the members: keep what is written beside them, in the lab
    #[arg(long)]
    overlay: bool,
    /// How members are reached: mmap, file or uring
    #[arg(long, value_parser = ["mmap", "file", "uring"])]
    backend: Option<String>,
}

/// Runs `assemble`.
pub fn run(args: &AssembleArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let there = args.lab.join(FILE_NAME).exists();
    match (there, args.images.is_empty()) {
        (false, true) => {
            return Err(Failure::usage("name the members: raidlab assemble LAB IMG..."));
        }
        (true, false) => {
            return Err(Failure::usage(format!(
                "{} is a lab already: `raidlab assemble {0}` starts it, `raidlab add` adds disks",
                args.lab.display()
            )));
        }
        (true, true) => {}
        (false, false) => {
            let made = make_directory(&args.lab)?;
            if let Err(failure) = build(args) {
                if made {
                    // Ours and empty; if not, it stays.
                    let _ = std::fs::remove_dir(&args.lab);
                }
                return Err(failure);
            }
        }
    }
    let started = start(args, manner);
    if started.is_err() && !there {
        let overlays = if args.overlay { args.images.len() } else { 0 };
        for overlay in (0..overlays).map(|number| args.lab.join(format!("disk-{number}.overlay"))) {
            // Made just now, if it got so far.
            let _ = std::fs::remove_file(overlay);
        }
        let _ = std::fs::remove_file(args.lab.join(FILE_NAME));
        let _ = std::fs::remove_dir(&args.lab);
    }
    let (summary, due) = started?;
    writeln!(out, "{summary}")?;
    if due {
        manner.hint(&format!("redundancy is not complete: `raidlab wait {}` recovers and resyncs", args.lab.display()));
    }
    Ok(0)
}

/// Judges the members, and writes `lab.toml` if they make an array.
fn build(args: &AssembleArgs) -> Result<(), Failure> {
    let _lock = lock_directory(&args.lab)?;
    let mut backings = Vec::new();
    for image in &args.images {
        let backing = existing_backing(image, Path::new(""))?;
        if backings.contains(&backing) {
            return Err(Failure::usage(format!("{} is named twice", image.display())));
        }
        if args.overlay && backing.file().is_none() {
            return Err(Failure::usage(format!(
                "{backing}: overlays are made for images and devices; let the server make one \
                 (`nbdkit --filter=cow`, `qemu-nbd --snapshot`)"
            )));
        }
        backings.push(backing);
    }
    let mut candidates = Vec::new();
    for (number, (backing, image)) in backings.iter().zip(&args.images).enumerate() {
        let candidate = read_candidate_plainly(DeviceId(number as u32), backing)
            .map_err(|error| Failure::cannot(format!("{}: {error}", image.display())))?;
        candidates.push(candidate);
    }
    let options = AssembleOptions { force: args.force, read_only: false, wall_clock: wall_clock() };
    let names: Vec<String> = args.images.iter().map(|image| image.display().to_string()).collect();
    assemble(candidates, options).map_err(|error| StackError::Assemble { error, troubles: Vec::new(), names })?;
    let on_devices = backings.iter().filter_map(Backing::file).any(|path| !path.is_file());
    let backend = match args.backend.as_deref() {
        Some(word) => backend_named(word),
        None if on_devices => Backend::Uring,
        None => Backend::Mmap,
    };
    let mut config = LabConfig { backend, ..lab_config(&backings) };
    if args.overlay {
        for disk in &mut config.disks {
            let overlay = PathBuf::from(format!("{}.overlay", disk.name));
            let path = args.lab.join(&overlay);
            if path.symlink_metadata().is_ok() {
                return Err(Failure::usage(format!(
                    "{} exists already: choose another directory, or remove it if it is of no use",
                    path.display()
                )));
            }
            disk.overlay = Some(overlay);
        }
    }
    config.write(&args.lab).map_err(|error| Failure::cannot(error.to_string()))
}

/// Starts the array once, so that what `--force` accepted is on record.
fn start(args: &AssembleArgs, manner: Manner) -> Result<(String, bool), Failure> {
    let options = OpenOptions { force: args.force, frozen: true, unlimited: false };
    let mut stack = Stack::open(Lab::open(&args.lab)?, options)?;
    for disk in stack.disks.iter().filter(|disk| disk.trouble.is_some()) {
        manner.hint(&format!("note: {}: {}", disk.name, disk.trouble.as_deref().unwrap_or_default()));
    }
    let mut forced = false;
    for remark in &stack.remarks {
        forced |= matches!(remark, Remark::ForcedIn { .. } | Remark::ForcedClean);
        if let Some(line) = remark_line(remark, |device| stack.name_of(device).to_owned()) {
            manner.hint(&line);
        }
    }
    let array = stack.array_mut();
    if forced {
        array.put_on_record();
    }
    let due = !array.degraded().is_empty() || array.is_resync_due();
    let (raid_disks, missing) = (array.geometry().raid_disks(), array.degraded().len());
    let summary = format!(
        "{}: {}  {} of {raid_disks} disks  usable {}",
        args.lab.display(),
        array.geometry().level(),
        raid_disks - missing,
        super::status::human(array.geometry().capacity().bytes()),
    );
    stack.stop();
    Ok((summary, due))
}
