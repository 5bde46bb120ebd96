//! What must hold of maps and their paths at every moment, whatever fails.
//!
//! The flat oracle judges data; here the layer's own conduct is judged, by what is really wrong with components and units:
//!
//! * O4: an operation is answered within a bound that follows from the timers;
//! * O5: a path that takes no requests gets none;
//! * O6: a path is failed only if something was wrong with it, or the unit was late, a moment ago: never for what the unit answers;
//! * O7: requests that wait for a path are bounded in bytes and time, whatever checkers say of paths that serve nothing, and none is
//!   given up before its time;
//! * O8: a path does not come back more often than it is checked;
//! * O9: when all has been well for long, all paths are in use and the group is the one that the rules choose.
//!
//! O1, O2, O3 and O11 are those of the flat oracle and of the array's own rules, which judge through paths as they do without. O10 needs
//! two hosts, and is tried where they are (`hosts`). O12 holds by construction: a frame owns a share of its payload, which nobody
//! can write to while it is shared.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::block::{Bank, DeviceId, Instant, IoError, Mark};
use crate::disk::FaultKind;
use crate::fabric::emulated::Emulated;
use crate::fabric::transport::Transport;
use crate::multipath::Multipath;
use crate::multipath::map::{Change, Map, Path, PathState, Why};
use crate::multipath::settings::Settings;

use super::World;
use super::array::{SimArray, SimStack};
use super::fabrics::{Fabrics, Side, is_path_dead, is_path_well, settings, transport};

/// How long something that is well again may still show: commands that were lost time out, checks, fences, and a controller that
/// takes over.
const ECHO: Duration = Duration::from_secs(8);

/// When all has been well for so long, every path is back.
const SETTLED: Duration = Duration::from_secs(20);

/// How long a path is kept out that was reinstated and served nothing, many times.
const KEPT_OUT: Duration = Duration::from_secs(64);

/// Between two looks at a path.
const TICK: Duration = Duration::from_secs(1);

/// A rule, and how it was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// O4 to O9.
    pub rule: &'static str,
    /// In words.
    pub how: String,
}

/// The rules of both fabrics, and of operations over them.
#[derive(Clone, Default, Debug)]
pub struct Rules {
    volume: PathRules,
    members: PathRules,
    /// Harms done to paths so far, and disks that stopped.
    pub(super) harms: u64,
    stopped: usize,
    /// Time during which some disk was late.
    late: Duration,
    judged_at: Instant,
    /// A component is not as it was.
    is_changed: bool,
    /// What happened to maps and was not told yet.
    changes: Vec<(Side, DeviceId, Change)>,
}

/// So often rules are judged while nothing happens to paths.
const LOOK: Duration = Duration::from_millis(250);

impl Rules {
    /// What is left of them when the power goes: components are well when it is back.
    pub(super) fn without_power(self) -> Rules {
        Rules { volume: PathRules::default(), members: PathRules::default(), ..self }
    }

    /// Somebody fails paths, or changes the group.
    pub(super) fn asked(&mut self, side: Side, world: &World<SimStack>) {
        self.look(world);
        match side {
            Side::Volume => self.volume.asked(world.now()),
            Side::Members => self.members.asked(world.now()),
        }
    }

    /// Notes what is wrong with paths before somebody changes that.
    pub(super) fn look(&mut self, world: &World<SimStack>) {
        let now = world.now();
        if let Some(multipath) = world.stack.bank().bank().multipath() {
            self.members.look(multipath, now);
        }
        if let Some(multipath) = world.stack.multipath() {
            self.volume.look(multipath, now);
        }
        self.is_changed = true;
    }

    /// What happened to maps since the last call.
    pub(super) fn drain_changes(&mut self) -> Vec<(Side, DeviceId, Change)> {
        std::mem::take(&mut self.changes)
    }

    /// Judges what has happened since the last time.
    pub(super) fn judge(&mut self, world: &mut World<SimStack>, fabrics: Fabrics) -> Result<(), Broken> {
        let now = world.now();
        let stack = &mut world.stack;
        let of_members = stack.bank_mut().bank_mut().multipath_mut().map(Multipath::drain_changes).unwrap_or_default();
        let of_volume = stack.multipath_mut().map(Multipath::drain_changes).unwrap_or_default();
        let told = |side: Side| move |(_, unit, change): &(Instant, DeviceId, Change)| (side, *unit, *change);
        self.changes.extend(of_members.iter().map(told(Side::Members)));
        self.changes.extend(of_volume.iter().map(told(Side::Volume)));
        let is_quiet = of_members.is_empty() && of_volume.is_empty() && !self.is_changed;
        if is_quiet && now.since(self.judged_at) < LOOK {
            return Ok(());
        }
        self.is_changed = false;
        let (late, stopped) = disks_in_trouble(world.stack.bank());
        if !late.is_empty() {
            self.late += now.since(self.judged_at);
        }
        self.judged_at = now;
        self.harms += stopped.len().saturating_sub(self.stopped) as u64;
        self.stopped = stopped.len();
        let mut array_waits = !late.is_empty();
        let is_late = |unit: DeviceId| late.contains(&unit);
        let mut marks = Vec::new();
        if let Some(multipath) = world.stack.bank_mut().bank_mut().multipath_mut() {
            self.members.judge(multipath, &of_members, now, is_late)?;
            array_waits |= self.members.echoes(now);
            marks.extend(of_members.iter().filter_map(mark_of));
        }
        if let Some(multipath) = world.stack.multipath_mut() {
            self.volume.judge(multipath, &of_volume, now, |_| array_waits)?;
            marks.extend(of_volume.iter().filter_map(mark_of));
        }
        let array = world.stack.bank_mut();
        marks.into_iter().for_each(|mark| array.bank_mut().mark(mark));
        let begun = world.oldest().unwrap_or(now);
        if let (Some(preset), Some(since)) = (fabrics.volume, self.volume.waits_since()) {
            let (waits, most) = (now.since(since.max(begun)), given_up_within(Side::Volume, &transport(preset)));
            if waits > most {
                let how = format!("an operation waits for {waits:?} while no path answers, {most:?} are allowed");
                return Err(Broken { rule: "O7", how });
            }
        }
        let most = self.answered_within(fabrics);
        if now.since(begun) > most {
            let how = format!("an operation has been under way for {:?}, {most:?} are allowed", now.since(begun));
            return Err(Broken { rule: "O4", how });
        }
        Ok(())
    }

    /// The bound of an operation: what the disks may take by themselves, and for each harm what each fabric may.
    fn answered_within(&self, fabrics: Fabrics) -> Duration {
        let of_side = |side: Side| fabrics.of(side).map(|preset| delay_max(side, &transport(preset)));
        let each = [Side::Volume, Side::Members].into_iter().filter_map(of_side).sum::<Duration>();
        CALM + self.late + each * (self.harms as u32 + 1)
    }
}

/// What an operation takes when nothing is wrong, waits for metadata and other operations included.
const CALM: Duration = Duration::from_secs(20);

/// Disks that answer late, and those that have stopped.
fn disks_in_trouble(array: &SimArray) -> (Vec<DeviceId>, Vec<DeviceId>) {
    let (faults, disks) = (array.bank().bank(), array.bank().bank().inner());
    let delays = |kind: FaultKind| matches!(kind, FaultKind::Latency(_) | FaultKind::Hang(_));
    let is_delayed = |device| faults.list().iter().any(|fault| fault.device == device && delays(fault.spec.kind));
    let is_late = |device: &DeviceId| disks.is_slow(*device) || disks.is_hung(*device) || is_delayed(*device);
    (disks.devices().filter(is_late).collect(), disks.devices().filter(|device| !disks.is_online(*device)).collect())
}

fn mark_of((.., change): &(Instant, DeviceId, Change)) -> Option<Mark> {
    match change {
        Change::Failed(_, Why::Io(_)) => Some(Mark::PathFailedByRequest),
        Change::Failed(_, Why::Checker(_)) => Some(Mark::PathFailedByChecker),
        Change::Switched(_) => Some(Mark::GroupSwitched),
        Change::Fenced(_) => Some(Mark::NexusFenced),
        Change::Resumed(_) => Some(Mark::QueueResumed),
        Change::GaveUp(_) => Some(Mark::QueueGivenUp),
        _ => None,
    }
}

/// What is remembered of one fabric.
#[derive(Clone, Default, Debug)]
struct PathRules {
    paths: Vec<PathMemory>,
    maps: Vec<MapMemory>,
}

#[derive(Clone, Debug)]
struct PathMemory {
    unwell_at: Option<Instant>,
    active: bool,
    requests: u64,
    reinstated: VecDeque<Instant>,
}

#[derive(Clone, Debug)]
struct MapMemory {
    /// When the unit was last late.
    late_at: Option<Instant>,
    /// Whether no path takes requests.
    is_without: bool,
    /// When a path that answered requests was well, last.
    served_at: Instant,
    /// Since when nothing that goes down any path is answered.
    dead_since: Option<Instant>,
    /// Since when requests wait for one.
    queue_since: Option<Instant>,
    /// When somebody interfered.
    asked_at: Option<Instant>,
}

impl PathRules {
    /// Notes what is wrong with paths.
    fn look<B: Bank>(&mut self, multipath: &Multipath<Emulated<B>>, now: Instant) {
        let fabric = multipath.fabric();
        for (at, map) in multipath.maps().iter().enumerate() {
            if self.maps.len() <= at {
                self.maps.push(MapMemory {
                    late_at: None,
                    is_without: false,
                    served_at: now,
                    dead_since: None,
                    queue_since: None,
                    asked_at: None,
                });
            }
            let is_dead = map.paths().iter().all(|path| is_path_dead(fabric, path.id));
            let memory = &mut self.maps[at];
            memory.dead_since = if is_dead { memory.dead_since.or(Some(now)) } else { None };
            for path in map.paths() {
                let number = usize::from(path.id.0);
                while self.paths.len() <= number {
                    let reinstated = VecDeque::new();
                    self.paths.push(PathMemory { unwell_at: None, active: true, requests: 0, reinstated });
                }
                if !is_path_well(fabric, path.id) {
                    self.paths[number].unwell_at = Some(now);
                }
            }
        }
    }

    /// Judges what has happened since the last time. `is_late`: whether a unit may be slow to answer.
    fn judge<B: Bank>(
        &mut self,
        multipath: &mut Multipath<Emulated<B>>,
        changes: &[(Instant, DeviceId, Change)],
        now: Instant,
        is_late: impl Fn(DeviceId) -> bool,
    ) -> Result<(), Broken> {
        multipath.fabric_mut().drain_notes();
        self.look(multipath, now);
        let fabric = multipath.fabric();
        let settings = *multipath.settings();
        for (at, map) in multipath.maps().iter().enumerate() {
            if is_late(map.unit()) {
                self.maps[at].late_at = Some(now);
            }
            let mine = changes.iter().filter(|(_, unit, _)| *unit == map.unit()).map(|(.., change)| *change);
            let mine: Vec<Change> = mine.collect();
            self.judge_changes(at, &mine, &settings, now)?;
            self.judge_map(at, map, &settings, now)?;
            self.judge_paths(map, &mine)?;
            let memory = &mut self.maps[at];
            memory.is_without = !map.paths().iter().any(|path| path.active);
            if map.paths().iter().any(|path| path.active && path.has_served() && is_path_well(fabric, path.id)) {
                memory.served_at = now;
            }
        }
        Ok(())
    }

    fn recently(when: Option<Instant>, now: Instant, span: Duration) -> bool {
        when.is_some_and(|when| now.since(when) <= span)
    }

    /// Whether requests may be slow for what was wrong with paths a while ago.
    fn echoes(&self, now: Instant) -> bool {
        self.paths.iter().any(|path| Self::recently(path.unwell_at, now, ECHO))
            || self.maps.iter().any(|map| {
                Self::recently(map.late_at, now, ECHO) || Self::recently(map.asked_at, now, ECHO) || map.is_without
            })
    }

    fn judge_changes(
        &mut self,
        at: usize,
        changes: &[Change],
        settings: &Settings,
        now: Instant,
    ) -> Result<(), Broken> {
        for change in changes {
            match *change {
                Change::Failed(_, Why::Asked) => self.maps[at].asked_at = Some(now),
                Change::Failed(path, why) => {
                    if let Why::Io(error) = why
                        && !matches!(error, IoError::Transport | IoError::Timeout | IoError::Offline)
                    {
                        return broken(
                            "O6",
                            format_args!("path {} was failed by the unit's own error, {error}", path.0),
                        );
                    }
                    let excused = Self::recently(self.paths[usize::from(path.0)].unwell_at, now, ECHO)
                        || Self::recently(self.maps[at].late_at, now, ECHO)
                        || Self::recently(self.maps[at].asked_at, now, ECHO);
                    if !excused {
                        return broken("O6", format_args!("path {} was failed ({why:?}), and all was well", path.0));
                    }
                }
                Change::Reinstated(path) => {
                    let times = &mut self.paths[usize::from(path.0)].reinstated;
                    times.push_back(now);
                    times.retain(|time| now.since(*time) <= 60 * TICK);
                    let asked = Self::recently(self.maps[at].asked_at, now, 60 * TICK);
                    if !asked && times.len() > 61 {
                        return broken(
                            "O8",
                            format_args!("path {} came back {} times in a minute", path.0, times.len()),
                        );
                    }
                }
                Change::GaveUp(count) => {
                    let wait = settings.queueing_max().unwrap_or(Duration::MAX);
                    let waited = now.since(self.maps[at].served_at);
                    if waited + TICK < wait {
                        return broken("O7", format_args!("{count} requests given up after {waited:?} without a path"));
                    }
                }
                Change::Switched(_)
                | Change::KeptOut(..)
                | Change::Marginal(..)
                | Change::Hedged(_)
                | Change::Queueing
                | Change::Resumed(_)
                | Change::Fencing(_)
                | Change::Fenced(_)
                | Change::Aborting(_)
                | Change::Aborted(_)
                | Change::Resetting
                | Change::Reset
                | Change::Epoch(_) => {}
            }
        }
        Ok(())
    }

    fn judge_map(&mut self, at: usize, map: &Map, settings: &Settings, now: Instant) -> Result<(), Broken> {
        if map.queued_bytes() > settings.queue_bytes_max {
            return broken("O7", format_args!("{} bytes wait for a path", map.queued_bytes()));
        }
        let memory = &mut self.maps[at];
        memory.queue_since = if map.queued() > 0 { memory.queue_since.or(Some(now)) } else { None };
        let memory = &self.maps[at];
        if let (Some(since), Some(most)) = (memory.queue_since, settings.queueing_max())
            && now.since(since) > most + 2 * TICK
        {
            return broken("O7", format_args!("requests have waited for a path for {:?}", now.since(since)));
        }
        let long_ago = |when: Option<Instant>| !Self::recently(when, now, SETTLED);
        let settled = now.since(Instant::START) > SETTLED
            && long_ago(memory.late_at)
            && long_ago(memory.asked_at)
            && map.paths().iter().all(|path| long_ago(self.paths[usize::from(path.id.0)].unwell_at));
        if !settled {
            return Ok(());
        }
        // What was found well and served nothing is kept out for twice as long each time, be it for the unit.
        let unwell_at = |path: &Path| self.paths[usize::from(path.id.0)].unwell_at.max(memory.late_at);
        let kept_out =
            |path: &&Path| path.state == PathState::Shaky && Self::recently(unwell_at(path), now, SETTLED + KEPT_OUT);
        if map.paths().iter().any(|path| !path.active && kept_out(&path)) {
            return Ok(());
        }
        if let Some(idle) = map.paths().iter().find(|path| !path.active) {
            return broken("O9", format_args!("path {} is well and takes no requests", idle.id.0));
        }
        match (map.current(), best_group(map)) {
            (Some(current), Some(best)) if current != best => {
                broken("O9", format_args!("group {current} is in use where {best} is better"))
            }
            _ => Ok(()),
        }
    }

    fn judge_paths(&mut self, map: &Map, changes: &[Change]) -> Result<(), Broken> {
        for path in map.paths() {
            let memory = &mut self.paths[usize::from(path.id.0)];
            let came_back = changes.contains(&Change::Reinstated(path.id));
            let idle = !memory.active && !path.active && !came_back;
            let (before, after) = (memory.requests, path.load.requests);
            (memory.active, memory.requests) = (path.active, after);
            if idle && after > before {
                return broken("O5", format_args!("path {} is failed and was given a request", path.id.0));
            }
        }
        Ok(())
    }

    /// Since when nothing is answered on any path of the only map, for no other reason than that.
    fn waits_since(&self) -> Option<Instant> {
        let map = self.maps.first()?;
        Some(map.dead_since?.max(map.late_at.unwrap_or(Instant::START)))
    }

    /// Somebody fails a path, or changes the group.
    fn asked(&mut self, now: Instant) {
        self.maps.iter_mut().for_each(|map| map.asked_at = Some(now));
    }
}

fn broken<T>(rule: &'static str, how: impl fmt::Display) -> Result<T, Broken> {
    Err(Broken { rule, how: how.to_string() })
}

/// The group to be used: the highest mean priority of paths in use, then the most of these, then the first.
fn best_group(map: &Map) -> Option<usize> {
    let rank = |group: usize| {
        let paths = map.groups()[group].paths.iter().map(|path| &map.paths()[*path]).filter(|path| path.active);
        let prios: Vec<i32> = paths.map(|path| path.prio).collect();
        let mean = prios.iter().sum::<i32>().checked_div(prios.len() as i32)?;
        Some((mean, prios.len()))
    };
    let ranked = (0..map.groups().len()).filter_map(|group| rank(group).map(|rank| (rank, group)));
    ranked.max_by(|(a, of_a), (b, of_b)| a.cmp(b).then(of_b.cmp(of_a))).map(|(_, group)| group)
}

/// How long a fabric can delay an operation for each harm that is done to it: the loss is noticed, the old nexus ended, the next
/// check finds the path; a controller takes over; or no path is left until the map gives up.
pub(super) fn delay_max(side: Side, transport: &Transport) -> Duration {
    let settings = settings(side);
    let noticed = transport.silent_loss_max().max(transport.link_loss_max());
    let fenced = transport.cmd_timeout + TICK;
    let back = settings.max_polling_interval + settings.checker_timeout + TICK;
    let takeover = crate::fabric::emulated::TRANSITION;
    noticed + fenced + back + takeover + settings.queueing_max().unwrap_or_default() + transport.reconnect_delay
}

/// How long an operation may wait while no path answers, whatever checkers say of them: until the loss is noticed on each path that is
/// tried, and for as long as requests wait.
fn given_up_within(side: Side, transport: &Transport) -> Duration {
    const TRIES: u32 = 4;
    let noticed = transport.silent_loss_max().max(transport.link_loss_max());
    noticed * TRIES + settings(side).queueing_max().unwrap_or_default() + 2 * TICK
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken: {}", self.rule, self.how)
    }
}
