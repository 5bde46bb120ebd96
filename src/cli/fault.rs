//! `fault`: what goes wrong with a lab's disks, and when.

use std::io::Write;
use std::ops::Range;

use clap::Args;

use super::job::{Say, through};
use super::{Failure, LabArg, Manner, Outcome, disk_name};
use crate::block::{Extent, Lba, Limits, SECTOR_BYTES, Sectors};
use crate::config::{Backing, ComponentFault, FaultConfig};
use crate::control::{Client, Command};
use crate::disk::{FaultKind, FaultSpec, Image, ImageOptions, Trigger};
use crate::fabric::health::{Health, HealthError};
use crate::raid::VOLUME;
use crate::stack::{BareDisk, Lab, LabConfig, Stack};
use crate::units::{Size, Span, range};

/// Arguments of `fault`.
#[derive(Args, Debug)]
#[command(after_help = KINDS)]
pub struct FaultArgs {
    #[command(flatten)]
    lab: LabArg,
    /// DISK add KIND[=ARGS], COMPONENT add HEALTH[=ARGS], or list, or clear [DISK|COMPONENT]
    #[arg(value_name = "WORDS", required = true)]
    words: Vec<String>,
    /// Bytes of the disk that have it
    #[arg(long, value_name = "A..B", value_parser = range::<Size>)]
    range: Option<Range<Size>>,
    /// So long after the lab was opened, or from now on if it runs
    #[arg(long, value_name = "T", conflicts_with = "at_io")]
    after: Option<Span>,
    /// From the N-th request of the disk on, counted from then
    #[arg(long, value_name = "N")]
    at_io: Option<u64>,
    /// How many requests it strikes
    #[arg(long, value_name = "N")]
    times: Option<u64>,
}

const KINDS: &str = "Kinds:
  latency=50ms            every answer comes that much later
  medium[=sticky]         reads fail; a write mends the sectors (not if sticky)
  write-medium            writes fail and store nothing
  transient=K             K requests fail, later ones succeed
  torn=K, torn-silent=K   a write stores its first K sectors, and fails or says it succeeded
  lost                    writes succeed and store nothing
  misdirected=D           writes land D sectors further on
  misdirected-read=D      reads return what lies D sectors further on
  bitflip[=BITS][,seed=N][,sticky]   reads return flipped bits
  corrupt-write[=BITS][,seed=N]      writes store flipped bits
  fail-stop               nothing works any more
  flush-lie               flushes succeed and do nothing
  flush-fail              flushes fail and do nothing
  no-space                writes fail: no space left
  hang[=D]                no answers
  read-only               writes are refused

Healths of a component of a lab's paths (hba0, cable1, switch0, ctrl1.p0, ...):
  down                    gone, and its neighbours say so
  black-hole[=tx|rx]      frames vanish, and nobody says so
  losing=K[,sending|transit|answering]   so many frames are lost
  flapping=DOWN,UP        down and up in turns
  stalled                 frames wait, and land late when it is up again
  slow=FACTOR             frames take so many times as long
  zombie=T                each answer comes so much later than the last
  doubling=T              commands come out a second time, so much later
  fails-io, fails-checks  what a checker finds is not what reads and writes find
  corrupting[=reads|writes]   a byte of all data is another one
  up                      it is well again

The fault acts whenever the lab is open, on one that runs from now on; `raidlab fault LAB clear` ends it.";

/// Runs `fault`.
pub fn run(args: &FaultArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let lab = &args.lab.lab;
    let config = LabConfig::read(lab).map_err(|error| Failure::cannot(error.to_string()))?;
    let command = command_of(args, &config)?;
    if matches!(command, Command::ComponentFault { .. })
        && (args.range.is_some() || args.after.is_some() || args.at_io.is_some() || args.times.is_some())
    {
        return Err(Failure::usage("--range, --after, --at-io and --times are for faults of disks"));
    }
    if let Some(client) = Client::find(lab)? {
        return through(client, lab, &command, false, manner, out);
    }
    let mut lab = Lab::open(lab)?;
    match command {
        Command::FaultList => {
            for fault in &lab.config.faults {
                writeln!(out, "{}  {}", fault.disk, fault.fault)?;
            }
            for ComponentFault { component, health } in component_faults(&lab.config) {
                writeln!(out, "{component}  {health}")?;
            }
        }
        Command::FaultClear { disk } => {
            forget(&mut lab.config, disk.as_deref())?;
            lab.save()?;
        }
        Command::FaultAdd { disk, fault } => {
            let disk = known(&lab.config, &disk)?;
            fits(&disk, &fault, &limits_of(&lab, &disk)?)?;
            lab.config.faults.push(FaultConfig { disk, fault });
            lab.save()?;
            manner.hint("armed whenever the lab is opened, until `raidlab fault LAB clear`");
        }
        Command::ComponentFault { component, health } => {
            note_health(&mut lab.config, &component, health);
            lab.save()?;
            manner.hint("so whenever the lab is opened, until `raidlab fault LAB clear`");
        }
        other => unreachable!("{other:?} is not about faults"),
    }
    Ok(0)
}

fn command_of(args: &FaultArgs, config: &LabConfig) -> Result<Command, Failure> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    Ok(match words[..] {
        ["list"] => Command::FaultList,
        ["clear"] => Command::FaultClear { disk: None },
        ["clear", disk] => Command::FaultClear { disk: Some(disk.to_owned()) },
        [word, "add", health] if let Some(component) = component_named(config, word)? => {
            let health = health.parse().map_err(|error: HealthError| Failure::usage(error.to_string()))?;
            Command::ComponentFault { component, health }
        }
        [word, "add", kind] => {
            let disk = known(config, word)?;
            let kind: FaultKind = kind.parse().map_err(|error| Failure::usage(format!("{error}")))?;
            Command::FaultAdd { disk, fault: spec(args, kind)? }
        }
        _ => {
            return Err(Failure::usage(
                "type `raidlab fault LAB DISK add KIND`, `raidlab fault LAB COMPONENT add HEALTH`, `raidlab fault LAB list` or \
                 `raidlab fault LAB clear [DISK|COMPONENT]`",
            ));
        }
    })
}

/// Lists the faults of a lab that runs, with what they have done so far.
pub fn list(stack: &Stack, say: &mut dyn Say) {
    let armed = stack.array().bank().bank().list();
    for FaultConfig { disk, fault } in &stack.lab.config.faults {
        let struck = armed.iter().find(|armed| armed.spec == *fault && stack.name_of(armed.device) == disk);
        let struck = struck.map(|armed| format!("  (struck {} times)", armed.strikes)).unwrap_or_default();
        say.line(&format!("{disk}  {fault}{struck}"));
    }
    for ComponentFault { component, health } in component_faults(&stack.lab.config) {
        say.line(&format!("{component}  {health}"));
    }
}

/// Says how a component of a lab that runs is: from now on, and whenever the lab is opened.
pub fn set_health(stack: &mut Stack, component: &str, health: Health, say: &mut dyn Say) -> Result<(), Failure> {
    if !stack.set_health(component, health) {
        return Err(Failure::usage(format!("the paths of the lab that runs have no {component}")));
    }
    note_health(&mut stack.lab.config, component, health);
    stack.lab.save()?;
    if health != Health::Up {
        say.hint("from now on, and whenever the lab is opened, until `raidlab fault LAB clear`");
    }
    Ok(())
}

/// Arms a fault on a lab that runs: it acts from the next request on, and whenever the lab is opened.
pub fn arm(stack: &mut Stack, disk: &str, fault: &FaultSpec, say: &mut dyn Say) -> Result<(), Failure> {
    let disk = known(&stack.lab.config, disk)?;
    let now = stack.reactor.now();
    let device = stack.disks.iter().find(|open| open.name == disk).and_then(|open| open.device);
    match device {
        Some(device) => {
            let bank = stack.disks_mut();
            bank.arm(device, fault.clone(), now).map_err(|error| Failure::usage(format!("{disk}: {error}")))?;
        }
        None => fits(&disk, fault, &limits_of(&stack.lab, &disk)?)?,
    }
    stack.lab.config.faults.push(FaultConfig { disk, fault: fault.clone() });
    stack.lab.save()?;
    say.hint("armed from now on, and whenever the lab is opened, until `raidlab fault LAB clear`");
    Ok(())
}

/// Takes the faults of one disk or component, or all, away from a lab that runs.
pub fn disarm(stack: &mut Stack, word: Option<&str>) -> Result<(), Failure> {
    let Cleared { disk, components } = forget(&mut stack.lab.config, word)?;
    stack.lab.save()?;
    for component in &components {
        stack.set_health(component, Health::Up);
    }
    let device = |name: &str| stack.disks.iter().find(|open| open.name == name).and_then(|open| open.device);
    let device = match disk {
        None => return Ok(()),
        Some(None) => None,
        Some(Some(name)) => Some(device(&name)),
    };
    let bank = stack.disks_mut();
    let ids: Vec<_> = bank
        .list()
        .iter()
        .filter(|fault| device.is_none_or(|device| device == Some(fault.device)))
        .map(|fault| fault.id)
        .collect();
    for id in ids {
        bank.disarm(id);
    }
    Ok(())
}

/// What was removed from a lab's file.
struct Cleared {
    /// Faults of disks: of none, of all, or of this one.
    disk: Option<Option<String>>,
    /// Components that are well again.
    components: Vec<String>,
}

/// Removes the faults of a disk or a component, or all, from a lab's file.
fn forget(config: &mut LabConfig, word: Option<&str>) -> Result<Cleared, Failure> {
    let Some(word) = word else {
        config.faults.clear();
        let faults = config.paths.as_mut().map(|paths| std::mem::take(&mut paths.faults)).unwrap_or_default();
        let components = faults.into_iter().map(|fault| fault.component).collect();
        return Ok(Cleared { disk: Some(None), components });
    };
    if let Some(component) = component_named(config, word)? {
        note_health(config, &component, Health::Up);
        return Ok(Cleared { disk: None, components: vec![component] });
    }
    let disk = known(config, word)?;
    config.faults.retain(|fault| fault.disk != disk);
    Ok(Cleared { disk: Some(Some(disk)), components: Vec::new() })
}

/// The component that a word means, if the lab has paths with one of that name.
fn component_named(config: &LabConfig, word: &str) -> Result<Option<String>, Failure> {
    let found = config.paths.as_ref().map(|paths| paths.component(word, config.disks.len()));
    Ok(found.transpose().map_err(Failure::usage)?.flatten())
}

fn component_faults(config: &LabConfig) -> &[ComponentFault] {
    config.paths.as_ref().map_or(&[], |paths| &paths.faults)
}

fn note_health(config: &mut LabConfig, component: &str, health: Health) {
    let paths = config.paths.as_mut().expect("a component was found in it");
    paths.faults.retain(|fault| fault.component != component);
    if health != Health::Up {
        paths.faults.push(ComponentFault { component: component.to_owned(), health });
    }
}

fn known(config: &LabConfig, word: &str) -> Result<String, Failure> {
    let name = disk_name(word);
    if config.disks.iter().any(|disk| disk.name == name) {
        return Ok(name);
    }
    let names: Vec<&str> = config.disks.iter().map(|disk| disk.name.as_str()).collect();
    let mut error = format!("the lab has no {name}: it has {}", names.join(", "));
    if let Some(Ok(graph)) = config.paths.as_ref().map(|paths| paths.graph(&[VOLUME])) {
        let components: Vec<&str> = graph.components().iter().map(|component| component.name.as_str()).collect();
        error += &format!("; and {} in its paths", components.join(", "));
    }
    Err(Failure::usage(error))
}

fn spec(args: &FaultArgs, kind: FaultKind) -> Result<FaultSpec, Failure> {
    let range = match &args.range {
        None => None,
        Some(Range { start, end }) => {
            if !start.0.is_multiple_of(SECTOR_BYTES) || !end.0.is_multiple_of(SECTOR_BYTES) {
                return Err(Failure::usage("--range begins and ends on multiples of 512 bytes"));
            }
            let length = Sectors((end.0 - start.0) / SECTOR_BYTES);
            Some(Extent::new(Lba(start.0 / SECTOR_BYTES), length))
        }
    };
    let trigger = match (args.after, args.at_io) {
        (Some(Span(after)), _) => Trigger::After(after),
        (None, Some(count)) => Trigger::AtIo(count),
        (None, None) => Trigger::Armed,
    };
    Ok(FaultSpec { kind, range, trigger, times: args.times })
}

fn fits(name: &str, fault: &FaultSpec, limits: &Limits) -> Result<(), Failure> {
    fault.check(limits).map_err(|error| Failure::usage(format!("{name}: {error}")))
}

/// What a disk that is not open here takes.
fn limits_of(lab: &Lab, name: &str) -> Result<Limits, Failure> {
    let disk = lab.config.disks.iter().find(|disk| disk.name == name).expect("the disk was looked up");
    let backing = disk.backing.within(&lab.directory);
    let cannot = |error: &dyn std::fmt::Display| Failure::cannot(format!("{name}: {error}"));
    match &backing {
        Backing::File(path) => {
            let options = ImageOptions { read_only: true, ..ImageOptions::default() };
            Ok(Image::open(path, options).map_err(|error| Failure::cannot(error.to_string()))?.limits())
        }
        Backing::Nbd(_) | Backing::Paths(_) => Ok(BareDisk::look(&backing).map_err(|error| cannot(&error))?.limits()),
    }
}
