//! What steps of a scenario do: when their moment has come, to which disk, and what clients wait for meanwhile.

use super::array::{Lab, PathOrder};
use super::crash::{Tally, power_on};
use super::explain::assembled_words;
use super::fabrics::{Part, Side};
use super::life::{End, Life, Pause, Promise};
use super::off::Off;
use super::scenario::{Act, Moment, Regime, Target, When};
use super::strikes::{count_act, count_cut};
use super::{CacheLoss, Rng};
use crate::block::{DeviceId, Extent, Instant, Lba, Sectors};
use crate::disk::{FaultKind, FaultSpec};
use crate::fabric::emulated::Health;
use crate::raid::band::Phase;
use crate::raid::member::{Member, Place};
use crate::raid::sync::{Scrub, SyncAction, SyncOptions};

impl Life<'_> {
    pub(super) fn take_steps(&mut self) -> Result<(), End> {
        for index in 0..self.scenario.steps.len() {
            if self.progress[index].taken.is_none() && self.is_due(index) {
                self.progress[index].taken = Some(self.lab().world.events());
                self.take(index)?;
            }
        }
        Ok(())
    }

    fn is_due(&mut self, index: usize) -> bool {
        let step = &self.scenario.steps[index];
        if self.pause.is_some() && step.act.pauses_clients() {
            return false;
        }
        let lab = self.lab();
        match step.when {
            When::Op(count) => self.op >= count,
            When::Answered(count) => self.op - lab.world.inflight() >= count,
            When::Time(time) => lab.world.now() >= Instant::START + time,
            When::Io(target, count) => {
                self.device(target).is_some_and(|device| lab.bank().io_count_of(device) >= count)
            }
            When::Recovery(percent) => lab.array().sync_progress().is_some_and(|progress| {
                let runs = matches!(progress.action, SyncAction::Recover | SyncAction::Resync);
                runs && progress.done.0 * 100 >= percent * progress.total.0
            }),
            When::Phase(moment, count) => {
                let seen = u64::from(is_at(lab, moment));
                let progress = &mut self.progress[index];
                progress.seen += seen;
                progress.seen >= count
            }
            When::Event(count) => lab.world.events() >= count,
            When::After(events, id) => {
                let other = self.scenario.steps.iter().position(|step| step.id == id);
                let taken = other.and_then(|other| self.progress[other].taken);
                taken.is_some_and(|taken| lab.world.events() >= taken + events)
            }
            When::Off(_) => false,
        }
    }

    fn device(&self, target: Target) -> Option<DeviceId> {
        let members = self.lab().array().members();
        let placed = |place| members.iter().find(|member| member.place == place).map(|member| member.device);
        match target {
            Target::Disk(number) => self.lab().disks().contains(&DeviceId(number)).then_some(DeviceId(number)),
            Target::Slot(slot) => members.seats().get(usize::from(slot)).and_then(|seat| seat.member),
            Target::Filling => {
                let filling = members.iter().find(|member| {
                    matches!(member.place, Place::Replacement(_)) || (member.serves() && !member.stale.is_empty())
                });
                filling.map(|member| member.device)
            }
            Target::Spare => placed(Place::Spare),
            Target::Faulty => placed(Place::Faulty),
        }
    }

    fn take(&mut self, index: usize) -> Result<(), End> {
        let step = self.scenario.steps[index];
        match step.act {
            Act::Rest => {
                self.tell(format!("step {}: rest", step.id));
                self.pause = Some(Pause::Resting);
            }
            Act::Restart | Act::Mend => {
                self.tell(format!("step {}: {}", step.id, step.act));
                self.pause = Some(Pause::Draining(index));
            }
            Act::PowerCut(loss) => {
                self.tell(format!("step {}: {}", step.id, step.act));
                self.pause = None;
                self.cut_power(index, loss)?;
            }
            act => {
                let done = self.act(act);
                let count = match done {
                    Done::Harm => &mut self.report.faults,
                    Done::HeldBack => &mut self.report.held_back,
                    Done::Nothing => &mut self.report.idle_steps,
                    Done::Managed => &mut self.report.ops,
                };
                // Management is no operation of a client.
                *count += u64::from(done != Done::Managed);
                self.tell(format!("step {}: {act}{}", step.id, done.note()));
            }
        }
        Ok(())
    }

    fn act(&mut self, act: Act) -> Done {
        let Some(target) = act.target() else { return self.act_on_all(act) };
        let Some(device) = self.device(target) else { return Done::Nothing };
        let extent = act.extent().and_then(|extent| self.on_device(device, extent));
        if act.loses_data() && self.scenario.regime == Regime::Budgeted {
            let whole = !matches!(act, Act::Unreadable(..));
            if !self.lab().can_lose(device, if whole { None } else { extent }) {
                return Done::HeldBack;
            }
        }
        let now = self.lab().world.now();
        let lab = self.lab.as_mut().expect("a lab is gone only while it is remade");
        count_act(&mut self.report.coverage, lab, act, device);
        match act {
            Act::Fail(_) if lab.fail(device).is_ok() => Done::Harm,
            Act::Fail(_) => Done::Nothing,
            Act::Remove(_) => {
                let removed = lab.array_mut().remove(device).is_ok();
                if removed {
                    lab.unplug(device);
                }
                managed(removed)
            }
            Act::ReAdd(_) => {
                if lab.array_mut().remove(device).is_err() {
                    return Done::Nothing;
                }
                lab.bank_mut().bring_back(device);
                let back = lab.re_add(device).is_ok();
                if !back {
                    lab.unplug(device);
                }
                managed(back)
            }
            Act::Replace(_) => managed(lab.array_mut().replace(device, None).is_ok()),
            Act::Stop(_) => {
                lab.bank_mut().fail_stop(device);
                Done::Harm
            }
            Act::Return(_) => {
                lab.bank_mut().bring_back(device);
                Done::Managed
            }
            Act::Unreadable(..) => match extent {
                Some(extent) => {
                    lab.bank_mut().fail_medium(device, extent);
                    Done::Harm
                }
                None => Done::Nothing,
            },
            Act::Fault(_, kind, _, times) => {
                let spec =
                    FaultSpec { times, range: kind.takes_range().then_some(extent).flatten(), ..FaultSpec::new(kind) };
                if lab.faults_mut().arm(device, spec, now).is_err() {
                    return Done::Nothing;
                }
                if kind == FaultKind::FlushLie {
                    lab.will_lie(device);
                }
                let silent = kind.is_silent() || kind == FaultKind::FlushLie;
                self.report.promise = self.report.promise.max(if silent { Promise::Silent } else { Promise::Detected });
                Done::Harm
            }
            Act::Hang(_, timeout) => {
                lab.bank_mut().hang(device, timeout);
                Done::Harm
            }
            Act::Slow(_, factor) => {
                lab.bank_mut().slow(device, factor);
                Done::Harm
            }
            Act::LoseFlush(_, count) => {
                lab.bank_mut().fail_flushes(device, count);
                Done::Harm
            }
            Act::Fill(_) => {
                lab.bank_mut().limit_space(device);
                Done::Harm
            }
            Act::Snapshot(_) => {
                let snapshot = lab.bank().snapshot(device);
                self.snapshots.retain(|(other, _)| *other != device);
                self.snapshots.push((device, snapshot));
                Done::Managed
            }
            other => unreachable!("{other} has no target while the array runs"),
        }
    }

    /// A component of a fabric changes. Where faults know a budget, what it cuts off can be lost.
    fn change_component(&mut self, part: Part, health: Health) -> Done {
        let lab = self.lab_mut();
        if part.side == Side::Members && health != Health::Up {
            let cut_off = lab.cut_off_by(part, health);
            if !self.may_cut_off(&cut_off) {
                return Done::HeldBack;
            }
        }
        let lab = self.lab_mut();
        match (lab.set_health(part, health), health) {
            (false, _) => Done::Nothing,
            (true, Health::Up) => Done::Managed,
            (true, _) => Done::Harm,
        }
    }

    /// Somebody fails or reinstates a path, or changes the group.
    fn order_path(&mut self, side: Side, order: PathOrder, number: u16) -> Done {
        let lab = self.lab_mut();
        if (side, order) == (Side::Members, PathOrder::Fail) {
            let cut_off: Vec<DeviceId> = lab.cut_off_without(number).into_iter().collect();
            if !self.may_cut_off(&cut_off) {
                return Done::HeldBack;
            }
        }
        managed(self.lab_mut().order_path(side, number, order))
    }

    /// Whether disks may lose all their paths.
    fn may_cut_off(&mut self, disks: &[DeviceId]) -> bool {
        let budgeted = self.scenario.regime == Regime::Budgeted;
        let lab = self.lab_mut();
        let serves = |disk: &&DeviceId| lab.array().members().get(**disk).is_some_and(Member::serves);
        let lost: Vec<DeviceId> = disks.iter().filter(serves).copied().collect();
        match lost[..] {
            _ if !budgeted => true,
            [] => true,
            [device] => lab.can_lose(device, None),
            _ => false,
        }
    }

    fn act_on_all(&mut self, act: Act) -> Done {
        match act {
            Act::Component(part, health) => return self.change_component(part, health),
            Act::Path(side, order, number) => return self.order_path(side, order, number),
            _ => {}
        }
        let lab = self.lab_mut();
        let end = Lba(lab.array().geometry().capacity().0);
        match act {
            Act::Add => return managed(lab.add_disk().is_ok()),
            Act::Check => lab.array_mut().start_scrub(Scrub::Check, Lba(0)..end),
            Act::Repair { trust_data } => lab.array_mut().start_scrub(Scrub::Repair { trust_data }, Lba(0)..end),
            Act::Freeze => lab.array_mut().set_sync_options(SyncOptions { frozen: true, ..SyncOptions::UNLIMITED }),
            Act::Thaw => lab.array_mut().set_sync_options(SyncOptions::UNLIMITED),
            other => unreachable!("{other} has a target, or pauses clients"),
        }
        Done::Managed
    }

    /// Data sectors of a member, on its device.
    fn on_device(&self, device: DeviceId, extent: Extent) -> Option<Extent> {
        let member = self.lab().array().members().get(device)?;
        Some(Extent::new(member.data_offset() + Sectors(extent.start.0), extent.length))
    }

    // ---- pauses ----

    /// Goes on with what clients wait for.
    pub(super) fn go_on(&mut self) -> Result<(), End> {
        match self.pause {
            Some(Pause::Draining(index)) if self.lab().world.inflight() == 0 => {
                if self.scenario.steps[index].act == Act::Mend {
                    self.mend();
                    self.pause = None;
                } else if self.lab().array().is_failed() {
                    self.pause = None;
                    self.cut_power(index, CacheLoss::KeepAll)?;
                } else {
                    self.lab_mut().array_mut().stop();
                    self.pause = Some(Pause::Stopping(index));
                }
                Ok(())
            }
            Some(Pause::Stopping(index)) if self.lab().array().is_stopped() => {
                self.pause = None;
                if self.lab().array().is_failed() {
                    return self.cut_power(index, CacheLoss::KeepAll);
                }
                self.start_again(index)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn mend(&mut self) {
        let lab = self.lab_mut();
        lab.faults_mut().clear();
        self.seen.forget_armed();
        let lab = self.lab_mut();
        lab.mend_fabrics();
        for disk in lab.disks().to_vec() {
            let bank = lab.bank_mut();
            bank.end_hang(disk);
            bank.slow(disk, 1);
            bank.fail_flushes(disk, 0);
            bank.unlimit_space(disk);
        }
    }

    fn start_again(&mut self, index: usize) -> Result<(), End> {
        let dark = self.has_dark_steps(index);
        let off = self.lab.take().expect("it is there").switch_off(dark).without_ghosts();
        self.switch_on(index, off)
    }

    fn cut_power(&mut self, index: usize, loss: CacheLoss) -> Result<(), End> {
        let step = &self.scenario.steps[index];
        let mut choose = Rng::new(self.scenario.seed, 2 << 32 | u64::from(step.id));
        self.report.cuts += 1;
        let lab = self.lab.take().expect("it is there");
        count_cut(&mut self.report.coverage, &lab, loss);
        for other in self.scenario.steps.iter().filter(|other| other.when == When::Off(step.id)) {
            let device = match other.act.target() {
                Some(Target::Disk(number)) => Some(DeviceId(number)),
                Some(Target::Slot(slot)) => {
                    lab.array().members().seats().get(usize::from(slot)).and_then(|seat| seat.member)
                }
                _ => None,
            };
            if let Some(device) = device {
                count_act(&mut self.report.coverage, &lab, other.act, device);
            }
        }
        if !lab.vouches_for_cut() {
            self.report.promise = Promise::None;
        }
        let dark = self.has_dark_steps(index);
        self.switch_on(index, lab.cut_power(loss, dark, &mut choose))
    }

    /// Whether something is done to disks while the power is off in this step.
    fn has_dark_steps(&self, index: usize) -> bool {
        let off = When::Off(self.scenario.steps[index].id);
        self.scenario.steps.iter().any(|step| step.when == off)
    }

    /// Does what is to be done while the power is off, and assembles what is there. Where that is too little, life goes on
    /// with a new array on the same disks.
    fn switch_on(&mut self, index: usize, mut off: Off) -> Result<(), End> {
        let id = self.scenario.steps[index].id;
        for other in 0..self.scenario.steps.len() {
            let step = self.scenario.steps[other];
            if step.when == When::Off(id) {
                self.progress[other].taken = Some(0);
                let done = self.act_in_the_dark(step.act, &mut off);
                self.report.faults += u64::from(done == Done::Harm);
                self.report.held_back += u64::from(done == Done::HeldBack);
                self.report.idle_steps += u64::from(done == Done::Nothing);
                self.tell(format!("step {}: {}{}", step.id, step.act, done.note()));
            }
        }
        let mut tally = Tally::default();
        let started = power_on(off, self.scenario.regime, &mut tally)?;
        self.report.tally += tally;
        self.tell(assembled_words(started.as_ref().ok()));
        self.lab = Some(started.unwrap_or_else(|off| {
            self.note("a new array is made of the same disks".to_owned());
            off.make_anew()
        }));
        Ok(())
    }

    fn act_in_the_dark(&mut self, act: Act, off: &mut Off) -> Done {
        let there = |target| match target {
            Target::Disk(number) => off.disks().iter().copied().find(|disk| disk.0 == number),
            Target::Slot(slot) => off.in_slot(slot),
            Target::Filling | Target::Spare | Target::Faulty => None,
        };
        let budgeted = self.scenario.regime == Regime::Budgeted;
        match act {
            Act::Swap(one, other) => match (there(one), there(other)) {
                (Some(one), Some(other)) if one != other && off.is_well(one) && off.is_well(other) => {
                    off.swap(one, other);
                    self.snapshots.retain(|(device, _)| ![one, other].contains(device));
                }
                _ => return Done::Nothing,
            },
            Act::Duplicate(target) => match there(target) {
                Some(device) => off.duplicate(device),
                None => return Done::Nothing,
            },
            Act::Split(target) => match there(target) {
                Some(device) if off.split(device) => {}
                _ => return Done::Nothing,
            },
            Act::RotSuperblock(target) => match there(target) {
                // What is older would be taken for the truth, and nobody could tell.
                Some(device) if !off.has_equals(device) => return Done::HeldBack,
                Some(device) if budgeted && !off.can_lose(device) => return Done::HeldBack,
                Some(device) => off.rot_superblock(device),
                None => return Done::Nothing,
            },
            Act::Restore(target) => {
                let Some(device) = there(target) else { return Done::Nothing };
                let Some(at) = self.snapshots.iter().position(|(other, _)| *other == device) else {
                    return Done::Nothing;
                };
                // What is older would be taken for the truth, and nobody could tell.
                if !off.has_equals(device) || budgeted && !off.can_lose(device) {
                    return Done::HeldBack;
                }
                let (_, snapshot) = self.snapshots.swap_remove(at);
                if !off.restore(device, snapshot) {
                    return Done::Nothing;
                }
            }
            other => unreachable!("{other} is not for when the power is off"),
        }
        Done::Harm
    }
}

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Done {
    /// A disk was harmed.
    Harm,
    /// The array was told something, and took it.
    Managed,
    /// It would go beyond the budget.
    HeldBack,
    /// There was no such disk, or the array refused.
    Nothing,
}

impl Done {
    fn note(self) -> &'static str {
        match self {
            Done::Harm | Done::Managed => "",
            Done::HeldBack => " (held back: beyond the budget)",
            Done::Nothing => " (nothing to be done)",
        }
    }
}

fn managed(done: bool) -> Done {
    if done { Done::Managed } else { Done::Nothing }
}

fn is_at(lab: &Lab, moment: Moment) -> bool {
    let array = lab.array();
    let phase = |phase| array.under_way().any(|(_, other)| other == phase);
    match moment {
        Moment::Gate => phase(Phase::Gate),
        Moment::Lock => phase(Phase::Lock),
        Moment::Reading => phase(Phase::Reading) || phase(Phase::Direct),
        Moment::Writing => phase(Phase::Writing),
        Moment::Verifying => phase(Phase::Verifying),
        Moment::Recording => phase(Phase::Recording),
        Moment::Metadata => array.is_recording(),
        Moment::Flush => array.is_flushing(),
    }
}

impl Act {
    /// The disk it is done to while the array runs.
    pub fn target(self) -> Option<Target> {
        let mut first = None;
        self.with_targets(|target| {
            first.get_or_insert(target);
            target
        });
        first
    }

    /// The data sectors it concerns.
    pub fn extent(self) -> Option<Extent> {
        match self {
            Act::Unreadable(_, extent) => Some(extent),
            Act::Fault(_, _, extent, _) => extent,
            _ => None,
        }
    }

    /// Whether data of the disk may be gone afterwards, and everybody can see that.
    fn loses_data(self) -> bool {
        match self {
            Act::Fail(_) | Act::Stop(_) | Act::Unreadable(..) | Act::Hang(..) | Act::LoseFlush(..) | Act::Fill(_) => {
                true
            }
            Act::Fault(_, kind, ..) => {
                !kind.is_silent() && !matches!(kind, FaultKind::Latency(_) | FaultKind::FlushLie)
            }
            _ => false,
        }
    }
}
