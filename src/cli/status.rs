//! `status`: one screen.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::job::{Say, through};
use super::output::{is_utf8, plain_on};
use super::scrub::LastScrub;
use super::{Failure, Manner, Outcome};
use crate::config::Cache;
use crate::control::{Client, Command, StatusForm};
use crate::disk::UringBank;
use crate::multipath::map::Map;
use crate::raid::VOLUME;
use crate::raid::assemble::{AssembleError, Assembly, Remark};
use crate::raid::geometry::Geometry;
use crate::raid::level::{Layout, Level};
use crate::raid::member::{Member, Members, Place};
use crate::raid::superblock::{MemberRole, ResyncOffset, Superblock};
use crate::raid::sync::SyncAction;
use crate::stack::{LabConfig, LabDisk, Look, Stack, StackError, troubles};

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The lab's directory
    #[arg(value_name = "LAB")]
    lab: PathBuf,
    /// As JSON (raidlab-status/v1)
    #[arg(long, conflicts_with = "mdstat")]
    json: bool,
    /// As /proc/mdstat shows an array
    #[arg(long)]
    mdstat: bool,
    /// Exit with 0: in order, 1: degraded, 2: failed, 4: cannot tell; as mdadm --detail --test
    #[arg(long)]
    test: bool,
}

/// What an array is, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// All members in sync, stopped cleanly.
    Clean,
    /// All members in sync, redundancy certain, not stopped cleanly.
    Active,
    /// Without all its redundancy.
    Degraded,
    /// On the way back to it.
    Recovering,
    /// Redundancy has to be made to agree with the data.
    Resyncing,
    /// Too little is left of it.
    Failed,
}

#[derive(Clone, Debug, Serialize)]
struct MemberStatus {
    disk: String,
    slot: Option<usize>,
    state: &'static str,
    events: Option<u64>,
    errors: MemberErrors,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Clone, Copy, Default, Debug, Serialize)]
struct MemberErrors {
    corrected_reads: u32,
    bad_sectors: u64,
}

#[derive(Clone, Debug, Serialize)]
struct SyncStatus {
    action: &'static str,
    percent: Option<f64>,
    /// Bytes per second; none while nothing runs.
    rate: Option<u64>,
    /// Seconds; none while nothing runs.
    eta: Option<u64>,
}

/// A map of a lab with paths.
#[derive(Clone, Debug, Serialize)]
struct MapStatus {
    name: String,
    /// Paths that take requests; none is known of a lab at rest.
    active: Option<usize>,
    paths: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Status {
    schema: &'static str,
    name: String,
    uuid: String,
    level: String,
    layout: Option<String>,
    chunk_bytes: Option<u64>,
    size_bytes: Option<u64>,
    state: State,
    degraded: usize,
    members: Vec<MemberStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    maps: Vec<MapStatus>,
    sync: SyncStatus,
    mismatch_cnt: u64,
    backend: String,
    in_use: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip)]
    raid_disks: usize,
    #[serde(skip)]
    level_number: Level,
    #[serde(skip)]
    layout_number: Layout,
    #[serde(skip)]
    seats: Vec<bool>,
    #[serde(skip)]
    last_scrub: Option<LastScrub>,
    /// In the process that says this.
    #[serde(skip)]
    is_running: bool,
}

/// `1.5 GiB`.
pub fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() < 0.005 || unit == 0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.2} {}", units[unit])
    }
}

/// `1h02m`, `3m20s`, `7s`.
fn human_time(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

/// Runs `status`.
pub fn run(args: &StatusArgs, manner: Manner, out: &mut impl Write) -> Outcome {
    let form = match (args.json, args.mdstat) {
        (true, _) => StatusForm::Json,
        (_, true) => StatusForm::Mdstat,
        _ => StatusForm::Screen,
    };
    let utf8 = is_utf8();
    if let Some(client) = Client::find(&args.lab)? {
        return through(client, &args.lab, &Command::Status { form, test: args.test, utf8 }, false, manner, out);
    }
    let status = status_of(&Look::at(&args.lab)?, &args.lab)?;
    status.write(form, &args.lab, utf8, out)?;
    Ok(status.code(args.test))
}

/// What `status` says of an array that runs here.
pub fn of_running(stack: &Stack, lab: &Path, form: StatusForm, test: bool, utf8: bool, say: &mut dyn Say) -> Outcome {
    let status = running_status(stack)?;
    let mut text = Vec::new();
    status.write(form, lab, utf8, &mut text)?;
    String::from_utf8_lossy(&text).lines().for_each(|line| say.line(line));
    Ok(status.code(test))
}

impl Status {
    fn write(&self, form: StatusForm, lab: &Path, utf8: bool, out: &mut impl Write) -> std::io::Result<()> {
        match form {
            StatusForm::Json => {
                serde_json::to_writer_pretty(&mut *out, self)?;
                writeln!(out)
            }
            StatusForm::Mdstat => write_mdstat(self, utf8, out),
            StatusForm::Screen => write_screen(self, lab, utf8, out),
        }
    }

    /// The exit code; with `test`, that of `mdadm --detail --test`.
    fn code(&self, test: bool) -> u8 {
        match self.state {
            _ if !test => 0,
            State::Clean | State::Active | State::Resyncing => 0,
            State::Degraded | State::Recovering => 1,
            State::Failed => 2,
        }
    }
}

/// What is the same for an array at rest and one that runs.
fn outline(superblock: &Superblock, config: &LabConfig, lab: &Path) -> Result<Status, Failure> {
    let level = Level::from_md(superblock.level).map_err(|error| Failure::cannot(error.to_string()))?;
    let number = if level == Level::Raid0 && !superblock.raid0_layout { 0 } else { superblock.layout };
    let layout = Layout::from_md(level, number).map_err(|error| Failure::cannot(error.to_string()))?;
    let raid_disks = superblock.raid_disks as usize;
    let last_scrub = LastScrub::of(lab);
    let backend = match (config.disks.first().and_then(|disk| disk.overlay.as_ref()), config.backend) {
        (Some(_), _) => String::from("overlay"),
        (None, crate::config::Backend::Uring) => match UringBank::available() {
            Ok(()) => String::from("uring"),
            Err(why) => format!("file ({why})"),
        },
        (None, backend) => backend.name().to_owned(),
    };
    Ok(Status {
        schema: "raidlab-status/v1",
        name: superblock.set_name.to_string(),
        uuid: superblock.set_uuid.to_string(),
        level: level.to_string(),
        layout: (layout != Layout::None).then(|| layout.to_string()),
        chunk_bytes: (superblock.chunk.0 > 0).then(|| superblock.chunk.bytes()),
        size_bytes: None,
        state: State::Failed,
        degraded: raid_disks,
        members: Vec::new(),
        maps: Vec::new(),
        sync: SyncStatus { action: "idle", percent: None, rate: None, eta: None },
        mismatch_cnt: last_scrub.as_ref().map_or(0, |last| last.mismatch_cnt),
        backend,
        in_use: false,
        problem: None,
        raid_disks,
        level_number: level,
        layout_number: layout,
        seats: vec![false; raid_disks],
        last_scrub,
        is_running: false,
    })
}

/// The state of an array that runs in this process.
fn running_status(stack: &Stack) -> Result<Status, Failure> {
    let (array, lab) = (stack.array(), &stack.lab);
    let members = array.members();
    let known = members.iter().find(|member| member.place != Place::Faulty).or_else(|| members.iter().next());
    let Some(known) = known else { return Err(Failure::lost("the array has no member left")) };
    let mut status = outline(&known.superblock, &lab.config, &lab.directory)?;
    status.is_running = true;
    status.in_use = true;
    status.size_bytes = Some(array.geometry().capacity().bytes());
    for (slot, seat) in members.seats().iter().enumerate() {
        status.seats[slot] = seat.member.and_then(|device| members.get(device)).is_some_and(Member::is_in_sync);
    }
    status.degraded = status.seats.iter().filter(|in_sync| !**in_sync).count();
    status.members = stack
        .disks
        .iter()
        .map(|disk| match disk.device.and_then(|device| members.get(device)) {
            Some(member) => {
                let events = match member.place {
                    Place::Faulty => member.superblock.events,
                    _ => array.events_count(),
                };
                MemberStatus { events: Some(events), ..member_status(disk, member) }
            }
            None => absent(disk),
        })
        .collect();
    note_caches(&mut status, &lab.config);
    status.maps = stack.each_map().map(|(tier, _, map)| map_status(stack.map_name(tier, map.unit()), map)).collect();
    let progress = array.sync_progress();
    let action = progress.map_or(SyncAction::Idle, |progress| progress.action);
    status.state = match action {
        _ if array.is_failed() => State::Failed,
        SyncAction::Recover => State::Recovering,
        _ if status.degraded > 0 => State::Degraded,
        SyncAction::Resync => State::Resyncing,
        _ if array.is_marked_clean() => State::Clean,
        _ => State::Active,
    };
    if let Some(progress) = progress.filter(|_| status.state != State::Failed) {
        let percent = 100.0 * progress.done.0 as f64 / progress.total.0.max(1) as f64;
        let eta = progress.eta.map(|eta| eta.as_secs());
        status.sync = SyncStatus { action: action.name(), percent: Some(percent), rate: Some(progress.rate), eta };
    }
    if array.is_scrubbing() {
        status.mismatch_cnt = array.scrub_report().mismatch_sectors;
    }
    if array.is_sync_blocked() {
        status.problem = Some(String::from(
            "part of the array stays without redundancy: its parity was never made to agree with the data since a crash",
        ));
    }
    if status.state == State::Failed {
        status.problem = Some(String::from(
            "more disks are gone than the level tolerates: bring them back, then stop the lab and start it again",
        ));
    }
    Ok(status)
}

fn map_status(name: &str, map: &Map) -> MapStatus {
    let active = map.paths().iter().filter(|path| path.active).count();
    MapStatus { name: name.to_owned(), active: Some(active), paths: map.paths().len() }
}

/// The maps that a lab at rest has when it is opened.
fn maps_at_rest(config: &LabConfig) -> Vec<MapStatus> {
    let at_rest = |name: &str, paths| MapStatus { name: name.to_owned(), active: None, paths };
    let mut maps = Vec::new();
    if let Some(paths) = &config.paths {
        let count = paths.graph(&[VOLUME]).map_or(0, |graph| graph.paths().len());
        let under = config.disks.iter().map(|disk| disk.name.as_str()).filter(|_| paths.at.is_under());
        maps.extend(paths.at.is_over().then_some("volume").into_iter().chain(under).map(|name| at_rest(name, count)));
    }
    let connections = config.disks.iter().filter_map(|disk| Some((disk, disk.backing.paths()?)));
    maps.extend(connections.map(|(disk, uris)| at_rest(&disk.name, uris.len())));
    maps
}

/// `volume 8 of 8 active`.
fn map_words(map: &MapStatus) -> String {
    match map.active {
        Some(active) => format!("{} {active} of {} active", map.name, map.paths),
        None => format!("{} {}", map.name, map.paths),
    }
}

/// A disk that takes no part.
fn absent(disk: &LabDisk) -> MemberStatus {
    MemberStatus {
        disk: disk.name.clone(),
        slot: None,
        state: "missing",
        events: None,
        errors: MemberErrors::default(),
        cache: None,
        note: disk.trouble.clone(),
    }
}

fn note_caches(status: &mut Status, config: &LabConfig) {
    for member in &mut status.members {
        let disk = config.disks.iter().find(|disk| disk.name == member.disk);
        member.cache = disk.filter(|disk| disk.cache == Cache::Volatile).map(|disk| disk.cache.name());
    }
}

fn status_of(look: &Look, lab: &Path) -> Result<Status, Failure> {
    let newest =
        look.candidates.iter().map(|candidate| &candidate.superblock).max_by_key(|superblock| superblock.events);
    let Some(newest) = newest else {
        return Err(match &look.assembly {
            Err(error @ StackError::Refused { .. }) => Failure::cannot(error.to_string()),
            _ => Failure::lost(format!(
                "no disk of {} has a usable superblock: {}",
                lab.display(),
                troubles(&look.disks).join("; ")
            )),
        });
    };
    let mut status = outline(newest, &look.config, lab)?;
    status.in_use = look.in_use;
    status.maps = maps_at_rest(&look.config);
    match &look.assembly {
        Ok(assembly) => describe(&mut status, look, assembly),
        Err(error) => {
            if let StackError::Assemble { error: AssembleError::DirtyDegraded { missing }, .. } = error {
                status.degraded = missing.len();
            }
            status.problem = Some(error.to_string());
            status.members = look.disks.iter().map(|disk| found_on(disk, look, newest)).collect();
        }
    }
    note_caches(&mut status, &look.config);
    Ok(status)
}

fn describe(status: &mut Status, look: &Look, assembly: &Assembly) {
    let (geometry, start) = (&assembly.geometry, &assembly.start);
    status.size_bytes = Some(geometry.capacity().bytes());
    for (slot, seat) in start.members.seats().iter().enumerate() {
        status.seats[slot] = seat.member.and_then(|device| start.members.get(device)).is_some_and(Member::is_in_sync);
    }
    status.degraded = status.seats.iter().filter(|in_sync| !**in_sync).count();
    status.members = look
        .disks
        .iter()
        .map(|disk| match disk.device.and_then(|device| start.members.get(device)) {
            Some(member) => member_status(disk, member),
            None => found_on(disk, look, &assembly.newest),
        })
        .collect();
    let filling = start.members.iter().any(|member| member.serves() && !member.stale.is_empty());
    let unclean = !start.untrusted.is_empty();
    status.state = if status.degraded > 0 {
        if filling { State::Recovering } else { State::Degraded }
    } else if filling {
        State::Recovering
    } else if unclean {
        State::Resyncing
    } else if assembly.newest.resync != ResyncOffset::InSync {
        State::Active
    } else {
        State::Clean
    };
    if filling {
        status.sync =
            SyncStatus { action: "recover", percent: Some(recovered(geometry, &start.members)), rate: None, eta: None };
    } else if unclean {
        let left: u64 = start.untrusted.iter().map(|range| range.end - range.start).sum();
        let total = geometry.sync_size().0.max(1);
        let percent = 100.0 * (1.0 - left as f64 / total as f64);
        status.sync = SyncStatus { action: "resync", percent: Some(percent), rate: None, eta: None };
    }
    if assembly.remarks.iter().any(|remark| matches!(remark, Remark::StaleBitmap)) {
        status.problem = Some(String::from("the bitmap is older than the superblocks: all of it counts as dirty"));
    }
}

fn recovered(geometry: &Geometry, members: &Members) -> f64 {
    let used = geometry.member_used(crate::raid::geometry::Slot(0)).0.max(1);
    let left = members.iter().map(|member| member.stale.iter().map(|range| range.end - range.start).sum::<u64>()).max();
    100.0 * (1.0 - left.unwrap_or(0) as f64 / used as f64)
}

fn member_status(disk: &LabDisk, member: &Member) -> MemberStatus {
    let (slot, state) = match member.place {
        Place::Slot(slot) if member.stale.is_empty() => (Some(slot), "in sync"),
        Place::Slot(slot) => (Some(slot), "recovering"),
        Place::Replacement(slot) => (Some(slot), "replacement"),
        Place::Spare => (None, "spare"),
        Place::Faulty => (None, "faulty"),
    };
    MemberStatus {
        disk: disk.name.clone(),
        slot: slot.map(|slot| slot.0 as usize),
        state,
        events: Some(member.superblock.events),
        errors: MemberErrors {
            corrected_reads: member.superblock.corrected_reads,
            bad_sectors: member.bad.sectors().0,
        },
        cache: None,
        note: disk.trouble.clone(),
    }
}

/// A disk that is not part of the array as it would start.
fn found_on(disk: &LabDisk, look: &Look, newest: &Superblock) -> MemberStatus {
    let candidate = look.candidates.iter().find(|candidate| Some(candidate.device) == disk.device);
    let (state, slot) = match candidate.map(|candidate| (&candidate.superblock, candidate.superblock.role())) {
        None => ("missing", None),
        Some((superblock, MemberRole::Slot(slot))) => {
            let role = newest.roles.get(superblock.dev_number as usize);
            let current = superblock.events + 1 >= newest.events && role == Some(&MemberRole::Slot(slot));
            (if current { "in sync" } else { "faulty" }, current.then_some(usize::from(slot)))
        }
        Some((_, MemberRole::Spare)) => ("spare", None),
        Some(_) => ("faulty", None),
    };
    MemberStatus {
        disk: disk.name.clone(),
        slot,
        state,
        events: candidate.map(|candidate| candidate.superblock.events),
        errors: MemberErrors::default(),
        cache: None,
        note: disk.trouble.clone(),
    }
}

fn action_sentence(status: &Status, lab: &Path) -> String {
    let lab = lab.display();
    match status.state {
        State::Failed => match &status.problem {
            Some(problem) => problem.clone(),
            None => String::from("bring missing disks back"),
        },
        State::Recovering if status.in_use => String::from("none, a disk is being filled"),
        State::Resyncing if status.is_running => String::from("none, parity is made to agree with the data"),
        State::Degraded if status.is_running && status.members.iter().any(|member| member.state == "spare") => {
            String::from("none, a spare takes the place of the disk that is missing")
        }
        State::Recovering => format!("`raidlab wait {lab}` goes on filling the disk"),
        State::Resyncing => format!("not stopped cleanly: `raidlab wait {lab}` resyncs"),
        State::Degraded if status.members.iter().any(|member| member.state == "spare") => {
            format!("`raidlab wait {lab}` recovers onto the spare")
        }
        State::Degraded => format!("`raidlab add {lab}` recovers onto a new disk"),
        State::Clean | State::Active => match &status.last_scrub {
            Some(last) if last.mismatches > last.mended => {
                format!("`raidlab repair {lab}`: the last {} found mismatches", last.action)
            }
            _ => String::from("none needed"),
        },
    }
}

fn write_screen(status: &Status, lab: &Path, utf8: bool, out: &mut impl Write) -> std::io::Result<()> {
    let chunk = status.chunk_bytes.map(|chunk| format!(", chunk {}", human(chunk))).unwrap_or_default();
    let layout = status.layout.as_ref().map(|layout| format!(", {layout}")).unwrap_or_default();
    let size = status.size_bytes.map(|size| format!(", {}", human(size))).unwrap_or_default();
    writeln!(out, "  array: {}   {}{chunk}{layout}{size}", plain_on(&status.name, utf8), status.level)?;
    let word = match status.state {
        State::Clean => "clean",
        State::Active => "active",
        State::Degraded => "DEGRADED",
        State::Recovering => "DEGRADED, recovering",
        State::Resyncing => "resyncing",
        State::Failed => "FAILED",
    };
    let word = if status.state == State::Recovering && status.degraded == 0 { "replacing" } else { word };
    let in_use = if status.in_use && !status.is_running { " (open in another process; as last written)" } else { "" };
    writeln!(out, "  state: {word}{in_use}")?;
    writeln!(out, " action: {}", action_sentence(status, lab))?;
    if let Some(problem) = status.problem.as_ref().filter(|_| status.state != State::Failed) {
        writeln!(out, "   note: {problem}")?;
    }
    if let Some(percent) = status.sync.percent {
        let rate = status.sync.rate.filter(|rate| *rate > 0).map(|rate| format!("  {}/s", human(rate)));
        let eta = status.sync.eta.map(|eta| format!("  {} left", human_time(eta)));
        let (rate, eta) = (rate.unwrap_or_default(), eta.unwrap_or_default());
        writeln!(out, "   scan: {} {} {percent:.1}%{rate}{eta}", status.sync.action, gauge(percent, utf8))?;
    }
    if let Some(last) = &status.last_scrub {
        let at = last.position.map(|at| format!(", interrupted at byte {at}")).unwrap_or_default();
        writeln!(out, "   last: {}, mismatch_cnt {}{at}", last.action, last.mismatch_cnt)?;
    }
    writeln!(out, "backend: {}", status.backend)?;
    if !status.maps.is_empty() {
        let maps: Vec<String> = status.maps.iter().map(map_words).collect();
        writeln!(out, "  paths: {}", maps.join(", "))?;
    }
    writeln!(out, "  {}", marks(status))?;
    writeln!(out, "  SLOT DISK         STATE         EVENTS  CORRECTED  BAD SECTORS")?;
    let mut members: Vec<&MemberStatus> = status.members.iter().collect();
    members.sort_by_key(|member| (member.slot.is_none(), member.slot, member.disk.clone()));
    for member in members {
        let slot = member.slot.map_or_else(|| String::from("-"), |slot| slot.to_string());
        let events = member.events.map_or_else(|| String::from("-"), |events| events.to_string());
        let cache = member.cache.map(|cache| format!("  {cache} cache")).unwrap_or_default();
        let note = member.note.as_ref().map(|note| format!("  {note}")).unwrap_or_default();
        writeln!(
            out,
            "  {slot:>4} {:<12} {:<12} {events:>7}  {:>9}  {:>11}{cache}{note}",
            member.disk, member.state, member.errors.corrected_reads, member.errors.bad_sectors
        )?;
    }
    Ok(())
}

fn gauge(percent: f64, utf8: bool) -> String {
    let width = 20_usize;
    let full = ((percent / 100.0 * width as f64) as usize).min(width);
    let (done, left) = if utf8 { ("█", "·") } else { ("=", ".") };
    format!("[{}{}]", done.repeat(full), left.repeat(width - full))
}

/// `[4/3] [UU_U]`.
fn marks(status: &Status) -> String {
    let up = status.raid_disks - status.degraded.min(status.raid_disks);
    let letters: String = status.seats.iter().map(|in_sync| if *in_sync { 'U' } else { '_' }).collect();
    format!("[{}/{up}] [{letters}]", status.raid_disks)
}

/// As the kernel prints it, one array.
fn write_mdstat(status: &Status, utf8: bool, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "Personalities : [{}]", status.level)?;
    let active = if status.state == State::Failed { "inactive" } else { "active" };
    write!(out, "{} : {active} {}", plain_on(&status.name.replace(char::is_whitespace, "_"), utf8), status.level)?;
    for member in status.members.iter().rev().filter(|member| member.state != "missing") {
        let mark = match member.state {
            "faulty" => "(F)",
            "spare" => "(S)",
            "replacement" => "(R)",
            _ => "",
        };
        write!(
            out,
            " {}[{}]{mark}",
            member.disk,
            member.slot.map_or_else(|| String::from("-"), |slot| slot.to_string())
        )?;
    }
    writeln!(out)?;
    write!(out, "      {} blocks super 1.2", status.size_bytes.unwrap_or(0) / 1024)?;
    let chunk = status.chunk_bytes.unwrap_or(0) / 1024;
    match (status.level_number, status.layout_number) {
        (Level::Raid4 | Level::Raid5 | Level::Raid6, layout) => {
            write!(
                out,
                " level {}, {chunk}k chunk, algorithm {}",
                status.level_number.md_number(),
                layout.md_number()
            )?;
        }
        (Level::Raid10, layout) => write!(out, " {chunk}K chunks {} copies", layout.detail())?,
        (Level::Raid0, _) => write!(out, " {chunk}k chunks")?,
        (Level::Raid1, _) => {}
    }
    if status.level_number == Level::Raid0 {
        writeln!(out)?;
    } else {
        writeln!(out, " {}", marks(status))?;
    }
    if let Some(percent) = status.sync.percent {
        let word = if status.sync.action == "recover" { "recovery" } else { status.sync.action };
        let full = (percent / 5.0) as usize;
        writeln!(out, "      [{}>{}]  {word} = {percent:.1}%", "=".repeat(full), ".".repeat(20 - full.min(20)))?;
    }
    writeln!(out, "\nunused devices: <none>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_largest_unit_that_says_something() {
        assert_eq!(human(512), "512 B");
        assert_eq!(human(1 << 30), "1 GiB");
        assert_eq!(human(3 << 29), "1.50 GiB");
    }
}
