//! `fail`, `remove`, `add`, `re-add`, `replace`: who takes part.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use uuid::Uuid;

use super::create::{check_blank, existing_backing};
use super::job::{Asked, Job, Say, carry_out, is_settled};
use super::{Failure, LabArg, Manner, Outcome, disk_name};
use crate::block::{Bank, DeviceId};
use crate::config::Backing;
use crate::control::Command;
use crate::disk::{Image, Space};
use crate::raid::assemble::Candidate;
use crate::raid::create::{NewDevice, joining};
use crate::raid::manage::ManageError;
use crate::raid::member::{Member, Place};
use crate::raid::superblock::DeviceUuid;
use crate::stack::{BareDisk, Stack, read_candidate_plainly, remove_files};

/// Arguments of `fail`.
#[derive(Args, Debug)]
pub struct FailArgs {
    #[command(flatten)]
    lab: LabArg,
    /// The disk
    disk: String,
    /// On a lab that runs: do not wait for what it begins
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `remove`.
#[derive(Args, Debug)]
pub struct RemoveArgs {
    #[command(flatten)]
    lab: LabArg,
    /// The disk
    disk: String,
}

/// Arguments of `add`.
#[derive(Args, Debug)]
pub struct AddArgs {
    #[command(flatten)]
    lab: LabArg,
    /// A disk of the lab, or an image, block device or NBD export; a new image if none is named
    disk: Option<String>,
    /// As a new disk, without an attempt to put it back where it was
    #[arg(long)]
    spare: bool,
    /// Use it although something is on it
    #[arg(long)]
    yes: bool,
    /// On a lab that runs: do not wait for what it begins
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `re-add`.
#[derive(Args, Debug)]
pub struct ReAddArgs {
    #[command(flatten)]
    lab: LabArg,
    /// The disk
    disk: String,
    /// On a lab that runs: do not wait for what it begins
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `replace`.
#[derive(Args, Debug)]
pub struct ReplaceArgs {
    #[command(flatten)]
    lab: LabArg,
    /// The disk to replace
    disk: String,
    /// The disk or image that takes its place; a spare of the array if none is named
    #[arg(long, value_name = "DISK|IMG")]
    with: Option<String>,
    /// Use the image although something is on it
    #[arg(long)]
    yes: bool,
    /// On a lab that runs: do not wait for what it begins
    #[arg(long)]
    no_wait: bool,
}

fn device_of(stack: &Stack, word: &str) -> Result<(String, DeviceId), Failure> {
    let name = disk_name(word);
    match stack.disks.iter().find(|disk| disk.name == name) {
        Some(disk) => match disk.device {
            Some(device) => Ok((name, device)),
            None => {
                Err(Failure::cannot(format!("{name}: {}", disk.trouble.as_deref().unwrap_or("it cannot be opened"))))
            }
        },
        None => {
            let names: Vec<&str> = stack.disks.iter().map(|disk| disk.name.as_str()).collect();
            Err(Failure::usage(format!("the lab has no {name}: it has {}", names.join(", "))))
        }
    }
}

fn refused(name: &str, error: &ManageError) -> Failure {
    Failure::cannot(format!("{name}: {error}"))
}

/// Waits until recovery, which what was done may have begun, is over.
struct Settle {
    lab: PathBuf,
    interrupted: bool,
}

impl Settle {
    fn after(asked: Asked<'_>) -> Box<dyn Job> {
        Box::new(Settle { lab: asked.lab.to_owned(), interrupted: false })
    }
}

impl Job for Settle {
    fn is_done(&mut self, stack: &mut Stack) -> bool {
        self.interrupted || is_settled(stack)
    }

    fn interrupt(&mut self, _stack: &mut Stack) {
        self.interrupted = true;
    }

    fn end(self: Box<Self>, stack: &mut Stack, _say: &mut dyn Say) -> Outcome {
        if self.interrupted {
            return Err(Failure::cannot(format!(
                "interrupted: `raidlab wait {}` goes on from here",
                self.lab.display()
            )));
        }
        if stack.array().is_sync_blocked() {
            return Err(Failure::cannot(format!(
                "recovery could not be completed: parity of some stripes was never made to agree with the data since a \
                 crash; `raidlab assemble {} --force` accepts it as it is",
                self.lab.display()
            )));
        }
        Ok(0)
    }
}

/// Runs `fail`. A spare that takes the slot is filled before the command ends.
pub fn fail(args: &FailArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    carry_out(&args.lab.lab, &Command::Fail { disk: args.disk.clone() }, args.no_wait, manner, out)
}

/// Begins `fail`.
pub fn begin_fail(stack: &mut Stack, disk: &str, asked: Asked<'_>) -> Result<Box<dyn Job>, Failure> {
    let (name, device) = device_of(stack, disk)?;
    stack.array_mut().fail(device).map_err(|error| refused(&name, &error))?;
    Ok(Settle::after(asked))
}

/// Runs `remove`. The image stays where it is.
pub fn remove(args: &RemoveArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    carry_out(&args.lab.lab, &Command::Remove { disk: args.disk.clone() }, false, manner, out)
}

/// Begins `remove`.
pub fn begin_remove(stack: &mut Stack, disk: &str) -> Result<Box<dyn Job>, Failure> {
    let name = disk_name(disk);
    match stack.disks.iter().find(|disk| disk.name == name).map(|disk| disk.device) {
        // A disk that cannot be opened, or is no member, is only forgotten.
        Some(None) => {}
        Some(Some(device)) if stack.array().members().get(device).is_none() => {}
        _ => {
            let (name, device) = device_of(stack, disk)?;
            stack.array_mut().remove(device).map_err(|error| refused(&name, &error))?;
        }
    }
    Ok(Box::new(Leave { name }))
}

/// Waits until it is on record that a disk left, and forgets it.
struct Leave {
    name: String,
}

impl Job for Leave {
    fn is_done(&mut self, stack: &mut Stack) -> bool {
        !stack.array().is_recording()
    }

    /// It takes no more than a moment.
    fn interrupt(&mut self, _stack: &mut Stack) {}

    fn end(self: Box<Self>, stack: &mut Stack, _say: &mut dyn Say) -> Outcome {
        stack.detach(&self.name)?;
        Ok(0)
    }

    fn outlives_caller(&self) -> bool {
        true
    }
}

/// A disk that shall join, open, with what it says about itself.
struct Joining {
    name: String,
    device: DeviceId,
    candidate: Option<Candidate>,
    /// Files that are of no use if it does not join; `None` if the lab had it before.
    undo: Option<Vec<PathBuf>>,
}

/// Forgets a disk that came for nothing.
fn undo(stack: &mut Stack, disk: &Joining) -> Result<(), Failure> {
    let Some(made) = &disk.undo else { return Ok(()) };
    stack.detach(&disk.name)?;
    remove_files(made);
    Ok(())
}

/// Finds the disk that `word` means: one of the lab's, an image in its directory, any other file or device, or, if
/// nothing is said, a new image.
fn joining_disk(stack: &mut Stack, word: Option<&str>, yes: bool, asked: Asked<'_>) -> Result<Joining, Failure> {
    let Some(word) = word else { return new_image(stack) };
    let name = disk_name(word);
    if let Some(disk) = stack.disks.iter().find(|disk| disk.name == name) {
        let (backing, device) = (disk.backing.clone(), disk.device);
        let Some(device) = device else { return device_of(stack, word).map(|_| unreachable!("it cannot be opened")) };
        if stack.array().members().get(device).is_some_and(|member| member.place != Place::Faulty) {
            return Err(refused(&name, &ManageError::AlreadyAMember));
        }
        let candidate = judge(stack, &backing, yes)?;
        return Ok(Joining { name, device, candidate, undo: None });
    }
    let in_lab = PathBuf::from(format!("{name}.img"));
    let (name, backing) = if stack.lab.path_of(&in_lab).exists() {
        (name, Backing::File(in_lab))
    } else {
        (stack.lab.next_name(), existing_backing(Path::new(word), asked.directory)?)
    };
    let candidate = judge(stack, &backing.within(&stack.lab.directory), yes)?;
    let device = stack.attach(&name, &backing)?;
    let overlay = stack.lab.path_of(Path::new(&format!("{name}.overlay")));
    Ok(Joining { name, device, candidate, undo: Some(vec![overlay]) })
}

/// What an image says about itself, if it was a member of this array. Anything else on it must not be lost unasked.
fn judge(stack: &Stack, backing: &Backing, yes: bool) -> Result<Option<Candidate>, Failure> {
    let ours = stack.array().members().iter().next().map(|member| member.superblock.set_uuid);
    match read_candidate_plainly(DeviceId(0), backing) {
        Ok(candidate) if Some(candidate.superblock.set_uuid) == ours => {
            // A file that is in use is locked; an export may be reached in many ways.
            let uuid = candidate.superblock.device_uuid;
            let same = |member: &&Member| member.place != Place::Faulty && member.superblock.device_uuid == uuid;
            match stack.array().members().iter().find(same) {
                Some(member) => Err(Failure::usage(format!(
                    "{backing} is a member already, as {}, or a copy of it",
                    stack.name_of(member.device)
                ))),
                None => Ok(Some(candidate)),
            }
        }
        _ => {
            let mut disk =
                BareDisk::look(backing).map_err(|error| Failure::cannot(format!("cannot read {backing}: {error}")))?;
            check_blank(&mut disk, backing, yes).map(|()| None)
        }
    }
}

fn new_image(stack: &mut Stack) -> Result<Joining, Failure> {
    let array = stack.array();
    let model = array.members().iter().find(|member| member.serves());
    let Some(model) = model else { return Err(Failure::lost("the array has no member left to go by")) };
    let capacity = array.bank().limits(model.device).capacity;
    let name = stack.lab.next_name();
    let path = PathBuf::from(format!("{name}.img"));
    let full = stack.lab.path_of(&path);
    Image::create(&full, capacity, Space::Preallocated).map_err(|error| Failure::cannot(error.to_string()))?;
    match stack.attach(&name, &Backing::File(path)) {
        Ok(device) => {
            let overlay = stack.lab.path_of(Path::new(&format!("{name}.overlay")));
            Ok(Joining { name, device, candidate: None, undo: Some(vec![overlay, full]) })
        }
        Err(error) => {
            remove_files(&[full]);
            Err(error.into())
        }
    }
}

fn return_to_slot(stack: &mut Stack, device: DeviceId, candidate: &Candidate) -> Result<(), ManageError> {
    let array = stack.array_mut();
    let was_faulty = array.members().get(device).is_some_and(|member| member.place == Place::Faulty);
    array.check_re_add(candidate, device)?;
    if was_faulty {
        array.remove(device)?;
    }
    array.re_add(Candidate { device, ..candidate.clone() })
}

fn join_as_new(stack: &mut Stack, name: &str, device: DeviceId) -> Result<(), Failure> {
    let array = stack.array_mut();
    if array.members().get(device).is_some_and(|member| member.place == Place::Faulty) {
        array.remove(device).map_err(|error| refused(name, &error))?;
    }
    let model = array.members().iter().find(|member| member.serves());
    let Some(model) = model.map(|member| member.superblock.clone()) else {
        return Err(Failure::lost("the array has no member left to go by"));
    };
    let size = array.bank().limits(device).capacity;
    let new = NewDevice { size, uuid: DeviceUuid(Uuid::new_v4().into_bytes()) };
    let superblock = joining(&model, new, array.next_device_number(), array.geometry().sync_size())
        .map_err(|error| Failure::cannot(format!("{name}: {error}")))?;
    array.add(device, superblock).map_err(|error| refused(name, &error))
}

fn join(
    stack: &mut Stack,
    word: Option<&str>,
    spare: bool,
    yes: bool,
    asked: Asked<'_>,
    say: &mut dyn Say,
) -> Result<DeviceId, Failure> {
    if stack.array().geometry().tolerance() == 0 {
        return Err(refused("the array", &ManageError::NoRedundancy));
    }
    let disk = joining_disk(stack, word, yes, asked)?;
    if let (Some(candidate), false) = (&disk.candidate, spare) {
        match return_to_slot(stack, disk.device, candidate) {
            Ok(()) => {
                say.hint(&format!("{} is back in its slot: only what it missed is copied", disk.name));
                return Ok(disk.device);
            }
            Err(ManageError::CannotReturn(why)) => {
                say.hint(&format!("note: {why}: {} joins as a new disk", disk.name));
            }
            Err(error) => {
                undo(stack, &disk)?;
                return Err(refused(&disk.name, &error));
            }
        }
    }
    if let Err(failure) = join_as_new(stack, &disk.name, disk.device) {
        undo(stack, &disk)?;
        return Err(failure);
    }
    if !stack.array().is_syncing() {
        say.hint(&format!("{} is a spare: it takes the place of the next disk that fails", disk.name));
    }
    Ok(disk.device)
}

/// Runs `add`. What it recovers is recovered before the command ends.
pub fn add(args: &AddArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let command = Command::Add { disk: args.disk.clone(), spare: args.spare, yes: args.yes };
    carry_out(&args.lab.lab, &command, args.no_wait, manner, out)
}

/// Begins `add`.
pub fn begin_add(
    stack: &mut Stack,
    disk: Option<&str>,
    spare: bool,
    yes: bool,
    asked: Asked<'_>,
    say: &mut dyn Say,
) -> Result<Box<dyn Job>, Failure> {
    join(stack, disk, spare, yes, asked, say)?;
    Ok(Settle::after(asked))
}

/// Runs `re-add`.
pub fn re_add(args: &ReAddArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    carry_out(&args.lab.lab, &Command::ReAdd { disk: args.disk.clone() }, args.no_wait, manner, out)
}

/// Begins `re-add`.
pub fn begin_re_add(stack: &mut Stack, disk: &str, asked: Asked<'_>) -> Result<Box<dyn Job>, Failure> {
    let disk = joining_disk(stack, Some(disk), false, asked)?;
    let returned = match &disk.candidate {
        Some(candidate) => return_to_slot(stack, disk.device, candidate).map_err(|error| refused(&disk.name, &error)),
        None => {
            Err(Failure::cannot(format!("{}: it was not a member of this array; `raidlab add` adds it", disk.name)))
        }
    };
    if let Err(failure) = returned {
        undo(stack, &disk)?;
        return Err(failure);
    }
    Ok(Settle::after(asked))
}

/// Runs `replace`.
pub fn replace(args: &ReplaceArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let command = Command::Replace { disk: args.disk.clone(), with: args.with.clone(), yes: args.yes };
    carry_out(&args.lab.lab, &command, args.no_wait, manner, out)
}

/// Begins `replace`.
pub fn begin_replace(
    stack: &mut Stack,
    disk: &str,
    with: Option<&str>,
    yes: bool,
    asked: Asked<'_>,
    say: &mut dyn Say,
) -> Result<Box<dyn Job>, Failure> {
    let (name, device) = device_of(stack, disk)?;
    let with = match with {
        None => None,
        Some(word) => Some(replacement(stack, word, yes, asked, say)?),
    };
    stack.array_mut().replace(device, with).map_err(|error| refused(&name, &error))?;
    Ok(Settle::after(asked))
}

/// The spare that `word` names, made one if it is not.
fn replacement(
    stack: &mut Stack,
    word: &str,
    yes: bool,
    asked: Asked<'_>,
    say: &mut dyn Say,
) -> Result<DeviceId, Failure> {
    let known = stack.disks.iter().find(|disk| disk.name == disk_name(word)).and_then(|disk| disk.device);
    match known {
        Some(device) if stack.array().members().get(device).is_some() => Ok(device),
        _ => join(stack, Some(word), true, yes, asked, say),
    }
}
