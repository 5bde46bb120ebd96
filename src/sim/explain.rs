//! The story of a life, in words.
//!
//! A verdict says that a sector is wrong; why, one sees from what each disk held of its row, and since when. So a
//! scenario that failed is lived again with an onlooker who knows where to look: it writes down what happens, and
//! whenever something changes in that row, who now holds what:
//!
//! ```text
//!    0.000512s       7  answered: w3
//!    0.000512s       7      D0 w3  D1 w1 (medium 0)  D2 absent  P gives D2 w2
//! ```
//!
//! A value is named by the write it comes from: `w3` is what the operation submitted as `w3` has written, `0` are
//! zeroes, `w3 of 17` belongs to another sector. What a disk's cache holds and its medium does not is said of both.
//! Parity is `ok` or `stale` where all data is there, and where some is missing it says what it gives for it. A member
//! that recovery has not filled there is `stale`, one that does not answer `lost`, sectors that cannot be read are
//! `bad`, and where nobody sits it is `absent`.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use super::array::Lab;
use super::fabrics::Side;
use super::life::{Copied, Effort, Report, Verdict, Watch, live, live_watched};
use super::scenario::Scenario;
use super::shape::METADATA;
use super::{ClientOp, Failed, Failure, OpId, Value};
use crate::block::{DeviceId, Extent, Instant, Lba, Sectors};
use crate::disk::Strike;
use crate::multipath::map::{Change, Why};
use crate::multipath::topology::state_word;
use crate::parity::Kernel;
use crate::raid::assemble::Remark;
use crate::raid::compute::{self, Known};
use crate::raid::control::Event;
use crate::raid::geometry::{Column, Role, Stripe, StripeIndex};
use crate::raid::member::{Member, Standing};
use crate::raid::set::{ChunkSet, ColumnSet, SlotSet};
use crate::raid::sync::SyncAction;

/// A row of a stripe that somebody looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Focus {
    index: StripeIndex,
    stripe: Stripe,
    row: u64,
    /// The sector of the volume, if it is about one.
    lba: Option<Lba>,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// When, in nanoseconds of virtual time.
    pub time_ns: u64,
    /// After how many events.
    pub event: u64,
    /// In how many copies of each other: 0 is the life itself, 1 a copy whose power was cut.
    pub copy: usize,
    /// Whether it says who holds what of the row looked at.
    pub row: bool,
    /// What.
    pub what: String,
}

/// A life, written down by one who looks on.
#[derive(Clone, Debug)]
pub struct Story {
    focus: Option<Focus>,
    lines: Vec<Line>,
    /// Where each copy left its original.
    copies: Vec<(usize, Seen)>,
    ops: BTreeMap<OpId, ClientOp>,
    seen: Seen,
}

/// What was last seen, to tell what is new.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Seen {
    row: String,
    /// What runs in the background, and how many quarters of it are done.
    sync: Option<(SyncAction, u64)>,
    is_recording: bool,
}

/// Lives `scenario`, and if it ends badly lives it again to its end as a story. `lba`: which sector to look at, if not
/// the one that is wrong.
pub fn explain(scenario: &Scenario, effort: Effort, lba: Option<Lba>) -> (Report, Verdict, Story) {
    let (report, verdict) = live(scenario, effort);
    let asked = lba.map(|lba| Focus::at(scenario, lba));
    let (ends, effort, found) = match &verdict {
        Verdict::Finding(finding) => {
            (&finding.scenario, Effort { events_max: effort.events_max, ..Effort::PLAIN }, Some(&finding.failed))
        }
        Verdict::NoPromise(failed) => (scenario, effort, Some(failed)),
        Verdict::Pass | Verdict::Budget => (scenario, effort, None),
    };
    let mut story = Story::about(asked.or_else(|| Focus::of(scenario, found?)));
    live_watched(ends, effort, &mut story);
    (report, verdict, story)
}

impl Focus {
    /// The row of a sector of the volume, which has it.
    pub fn at(scenario: &Scenario, lba: Lba) -> Focus {
        let geometry = scenario.array.geometry();
        let (index, offset) = geometry.locate(lba);
        let stripe = geometry.stripe(index);
        Focus { index, row: offset.0 % stripe.rows.0, stripe, lba: Some(lba) }
    }

    /// The row a failure is about, if it is about one.
    pub fn of(scenario: &Scenario, failed: &Failed) -> Option<Focus> {
        match failed {
            Failed::World(Failure::Wrong(violation)) => Some(Focus::at(scenario, violation.lba)),
            Failed::Disagree { stripe, row }
            | Failed::Mismatch { stripe, row }
            | Failed::Overlooked { stripe, row }
            | Failed::MendedWrong { stripe, row } => {
                let geometry = scenario.array.geometry();
                Some(Focus { index: *stripe, stripe: geometry.stripe(*stripe), row: *row, lba: None })
            }
            _ => None,
        }
    }

    /// Where it lies.
    fn place(&self) -> String {
        let Focus { index, stripe, row, lba } = self;
        let chunk = lba.map(|lba| (lba - stripe.start).0 / stripe.rows.0);
        let sector = lba.map_or_else(String::new, |lba| format!("sector {} of the volume lies in ", lba.0));
        let which = chunk.map_or_else(String::new, |chunk| format!(" of chunk D{chunk}"));
        let column = |column: &Column| {
            let at = METADATA.0 + column.base.0 + row;
            format!("{} on slot-{} at sector {at}", self.name(column), column.slot.0)
        };
        let columns: Vec<String> = stripe.columns.iter().map(column).collect();
        format!("{sector}stripe {}, row {row}{which}: {}", index.0, columns.join(", "))
    }

    fn is_copies(&self) -> bool {
        self.stripe.data_chunks == 1
            && self.stripe.columns.iter().all(|column| matches!(column.role, Role::Data { .. }))
    }

    fn name(&self, column: &Column) -> String {
        match column.role {
            Role::Data { .. } if self.is_copies() => format!("slot-{}", column.slot.0),
            Role::Data { index, .. } => format!("D{index}"),
            Role::P => "P".to_owned(),
            Role::Q => "Q".to_owned(),
        }
    }

    /// Who holds what.
    fn held(&self, lab: &Lab) -> String {
        let (now, stored) = (self.known(lab, Place::Newest), self.known(lab, Place::Medium));
        let cell = |at: usize, column: &Column| {
            let name = self.name(column);
            let of = |known: &Known| match column.role {
                Role::Data { index, .. } => self.value(&known[at], u64::from(index)),
                Role::P | Role::Q => self.parity(known, at),
            };
            let cell = match self.trouble(lab, column) {
                Some(trouble) => format!("{name} {trouble}"),
                None if of(&now) == of(&stored) => format!("{name} {}", of(&now)),
                None => format!("{name} {} (medium {})", of(&now), of(&stored)),
            };
            match self.replacement(lab, column) {
                Some(replacement) => format!("{cell}, its replacement {replacement}"),
                None => cell,
            }
        };
        let mut cells: Vec<String> = self.stripe.columns.iter().enumerate().map(|(at, c)| cell(at, c)).collect();
        if lab.array().geometry().tolerance() > 0 && !lab.array().is_trusted_at(self.stripe.start + Sectors(self.row)) {
            cells.push("in doubt".to_owned());
        }
        cells.join("  ")
    }

    fn known(&self, lab: &Lab, place: Place) -> Known {
        let column = |column: &Column| {
            let member = sitting(lab, column)?;
            self.trouble(lab, column).is_none().then(|| self.bytes(lab, member, column, place))
        };
        self.stripe.columns.iter().map(column).collect()
    }

    fn rows(&self) -> std::ops::Range<u64> {
        self.row..self.row + 1
    }

    fn bytes(&self, lab: &Lab, member: &Member, column: &Column, place: Place) -> Bytes {
        let extent = member.on_device(column.base, &self.rows());
        Bytes::from(match place {
            Place::Newest => lab.bank().peek(member.device, extent),
            Place::Medium => lab.bank().read_media(member.device, extent),
        })
    }

    /// Why the member of a column is of no use here.
    fn trouble(&self, lab: &Lab, column: &Column) -> Option<&'static str> {
        let Some(member) = sitting(lab, column) else { return Some("absent") };
        self.trouble_of(lab, member, column)
    }

    fn trouble_of(&self, lab: &Lab, member: &Member, column: &Column) -> Option<&'static str> {
        let extent = member.on_device(column.base, &self.rows());
        match member.standing(column.base, &self.rows()) {
            _ if !lab.bank().is_online(member.device) => Some("lost"),
            Standing::Stale | Standing::PartlyStale => Some("stale"),
            Standing::Bad => Some("bad"),
            Standing::Readable => lab.bank().is_unreadable(member.device, extent).then_some("bad"),
        }
    }

    fn replacement(&self, lab: &Lab, column: &Column) -> Option<String> {
        let members = lab.array().members();
        let member = members.get(members.seats()[usize::from(column.slot.0)].replacement?)?;
        if let Some(trouble) = self.trouble_of(lab, member, column) {
            return Some(trouble.to_owned());
        }
        let bytes = self.bytes(lab, member, column, Place::Newest);
        Some(match column.role {
            Role::Data { index, .. } => self.value(&Some(bytes), u64::from(index)),
            Role::P | Role::Q => {
                let same = sitting(lab, column).map(|other| self.bytes(lab, other, column, Place::Newest) == bytes);
                if same == Some(true) { "the same".to_owned() } else { "another".to_owned() }
            }
        })
    }

    /// A sector of chunk `index` in this row.
    fn value(&self, bytes: &Option<Bytes>, index: u64) -> String {
        let lba = self.stripe.start + Sectors(index * self.stripe.rows.0 + self.row);
        match bytes.as_ref().map(|bytes| Value::of(bytes)) {
            None => "unknown".to_owned(),
            Some(Value::Zero) => "0".to_owned(),
            Some(Value::Garbage) => "garbage".to_owned(),
            Some(Value::Token(token)) if token.lba == lba => format!("w{}", token.write),
            Some(Value::Token(token)) => format!("w{} of {}", token.write, token.lba.0),
        }
    }

    /// What a parity column is worth, given what is known of the others.
    fn parity(&self, known: &Known, at: usize) -> String {
        let Some(mine) = &known[at] else { return "unknown".to_owned() };
        let roles: Vec<Role> = self.stripe.columns.iter().map(|column| column.role).collect();
        let data = self.stripe.data_chunks;
        let missing: Vec<usize> = (0..data).filter(|column| known[*column].is_none()).collect();
        let kernel = Kernel::current();
        // The other parity column may know better; this is about what this one says.
        let mut alone = known.clone();
        let others = (data..alone.len()).filter(|other| *other != at);
        match missing[..] {
            [] => {
                let data: Vec<&[u8]> = known[..data].iter().flatten().map(AsRef::as_ref).collect();
                let right = compute::encode(kernel, &roles, &data, ColumnSet::only(at));
                if right.iter().all(|(_, bytes)| bytes == mine) { "ok" } else { "stale" }.to_owned()
            }
            [lost] => {
                others.for_each(|other| alone[other] = None);
                compute::recover(kernel, &roles, &mut alone, ChunkSet::only(lost));
                format!("gives D{lost} {}", self.value(&alone[lost], lost as u64))
            }
            [one, two] if alone[data..].iter().flatten().count() == 2 => {
                compute::recover(kernel, &roles, &mut alone, ChunkSet::only(one) | ChunkSet::only(two));
                let given = [one, two].map(|lost| format!("D{lost} {}", self.value(&alone[lost], lost as u64)));
                format!("gives, with the other, {} and {}", given[0], given[1])
            }
            _ => "too little is left to say".to_owned(),
        }
    }
}

fn sitting<'a>(lab: &'a Lab, column: &Column) -> Option<&'a Member> {
    let members = lab.array().members();
    members.get(members.seats()[usize::from(column.slot.0)].member?)
}

#[derive(Clone, Copy)]
enum Place {
    /// What a read returns.
    Newest,
    /// What a power cut leaves at least.
    Medium,
}

impl Story {
    /// One that looks at a row, or at none.
    pub fn about(focus: Option<Focus>) -> Story {
        Story { focus, lines: Vec::new(), copies: Vec::new(), ops: BTreeMap::new(), seen: Seen::default() }
    }

    /// What has happened.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Where the row lies that it looks at.
    pub fn place(&self) -> Option<String> {
        self.focus.as_ref().map(Focus::place)
    }

    fn add(&mut self, now: Instant, event: u64, what: String) {
        self.lines.push(Line { time_ns: now.0, event, copy: self.copies.len(), row: false, what });
    }

    fn name(&self, op: OpId) -> Option<String> {
        let letter = match self.ops.get(&op)? {
            ClientOp::Read(_) => 'r',
            ClientOp::Write(..) => 'w',
            ClientOp::WriteZeroes(..) | ClientOp::Discard(_) => 'z',
            ClientOp::Flush => 'f',
        };
        Some(format!("{letter}{}", op.0))
    }
}

impl Watch for Story {
    fn told(&mut self, now: Instant, event: u64, what: &str) {
        self.add(now, event, what.to_owned());
    }

    fn submitted(&mut self, now: Instant, event: u64, op: OpId, what: ClientOp) {
        self.ops.insert(op, what);
        let name = self.name(op).expect("it was just put in");
        self.add(now, event, format!("submitted: {what}, as {name}"));
    }

    fn look(&mut self, lab: &Lab) {
        let (now, event) = (lab.world.now(), lab.world.events());
        for (op, result) in lab.world.answers() {
            let Some(name) = self.name(*op) else { continue };
            match result {
                Ok(()) => self.add(now, event, format!("answered: {name}")),
                Err(error) => self.add(now, event, format!("failed: {name}, {error}")),
            }
        }
        let sync = lab
            .array()
            .sync_progress()
            .map(|progress| (progress.action, (4 * progress.done.0).checked_div(progress.total.0).unwrap_or(0)));
        if sync != self.seen.sync {
            match (sync, self.seen.sync) {
                (Some((action, quarters)), Some((before, _))) if action == before => {
                    self.add(now, event, format!("{}: {}%", action.name(), 25 * quarters));
                }
                (Some((action, _)), _) => self.add(now, event, format!("{} begins", action.name())),
                (None, Some((action, _))) => self.add(now, event, format!("{} ends", action.name())),
                (None, None) => {}
            }
            self.seen.sync = sync;
        }
        let is_recording = lab.array().is_recording();
        if is_recording != self.seen.is_recording {
            self.seen.is_recording = is_recording;
            let events = lab.array().events_count();
            self.add(
                now,
                event,
                if is_recording {
                    "metadata is being written".to_owned()
                } else {
                    format!("metadata is written: events {events}")
                },
            );
        }
        let Some(row) = self.focus.as_ref().map(|focus| focus.held(lab)) else { return };
        if row != self.seen.row {
            self.lines.push(Line { time_ns: now.0, event, copy: self.copies.len(), row: true, what: row.clone() });
            self.seen.row = row;
        }
    }

    fn enter(&mut self, copy: Copied) {
        self.copies.push((self.lines.len(), self.seen.clone()));
        if let (Copied::View(slots), Some(last)) = (copy, self.lines.last()) {
            let what = format!("with {} lost as well, everything is read", slots_words(slots));
            self.add(Instant(last.time_ns), last.event, what);
        }
    }

    fn leave(&mut self) {
        let (lines, seen) = self.copies.pop().expect("a copy that ends was entered");
        self.lines.truncate(lines);
        self.seen = seen;
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place() {
            writeln!(f, "{place}\n")?;
        }
        for Line { time_ns, event, copy, row, what } in &self.lines {
            let copy = "| ".repeat(*copy);
            let (seconds, micros) = (time_ns / 1_000_000_000, time_ns / 1_000 % 1_000_000);
            writeln!(f, "{seconds:4}.{micros:06}s {event:>7}  {copy}{}{what}", if *row { "    " } else { "" })?;
        }
        Ok(())
    }
}

/// What an array says of itself.
pub fn event_words(event: Event) -> String {
    let data = |extent: Extent| format!("{}+{}", extent.start.0.saturating_sub(METADATA.0), extent.length.0);
    match event {
        Event::Fail(device) => format!("disk-{} has failed", device.0),
        Event::FailSpare(device) => format!("disk-{} has failed, a spare or being filled", device.0),
        Event::RebuildStarted(device) => format!("disk-{} is being filled", device.0),
        Event::SpareActive(device) => format!("disk-{} is full", device.0),
        Event::RebuildFinished => "background work is done".to_owned(),
        Event::BadBlocks(device, extent) => format!("disk-{}: {} recorded as bad", device.0, data(extent)),
        Event::Corrected(device, extent) => format!("disk-{}: read error corrected at {}", device.0, data(extent)),
        Event::ArrayFailed => "the array has failed".to_owned(),
    }
}

/// What happened to the map of a unit.
pub fn change_words(side: Side, unit: DeviceId, change: Change) -> String {
    let what = match change {
        Change::Failed(path, why) => {
            let why = match why {
                Why::Io(error) => error.to_string(),
                Why::Checker(state) => format!("found {}", state_word(state)),
                Why::Link(link) => format!("its link is {link}"),
                Why::Silence(time) => format!("silent for {time:?}"),
                Why::Asked => "as asked".to_owned(),
            };
            format!("path {} is failed ({why})", path.0)
        }
        Change::Reinstated(path) => format!("path {} is reinstated", path.0),
        Change::KeptOut(path, state) => format!("path {} is well, and kept out ({})", path.0, state_word(state)),
        Change::Marginal(path, true) => format!("path {} is marginal", path.0),
        Change::Marginal(path, false) => format!("path {} is marginal no more", path.0),
        Change::Hedged(path) => format!("a late read goes down path {}, too", path.0),
        Change::Switched(group) => format!("requests go down group {}", group + 1),
        Change::Queueing => "no path is left, requests wait".to_owned(),
        Change::GaveUp(count) => format!("{count} requests are given up"),
        Change::Resumed(count) => format!("{count} requests go on"),
        Change::Fencing(path) => format!("the nexus of path {} is to be ended", path.0),
        Change::Fenced(path) => format!("the nexus of path {} has ended", path.0),
        Change::Aborting(path) => format!("a write of path {} is to be aborted", path.0),
        Change::Aborted(path) => format!("a write of path {} is aborted", path.0),
        Change::Resetting => "the unit is to be reset".to_owned(),
        Change::Reset => "the unit is reset".to_owned(),
        Change::Epoch(epoch) => format!("connection generation {epoch} begins"),
    };
    match side {
        Side::Volume => format!("volume: {what}"),
        Side::Members => format!("disk-{}: {what}", unit.0),
    }
}

/// A fault that struck.
pub fn strike_words(strike: &Strike) -> String {
    let data = |extent: &Extent| format!(" {}+{}", extent.start.0.saturating_sub(METADATA.0), extent.length.0);
    let data: String = strike.extents.iter().map(data).collect();
    format!("{} strikes disk-{}{}{data}", strike.kind, strike.device.0, if data.is_empty() { "" } else { " at" })
}

/// How an array came up; `None`: it did not.
pub fn assembled_words(lab: Option<&Lab>) -> String {
    let Some(lab) = lab else { return "too little is left to assemble, and rightly".to_owned() };
    let remark = |remark: &Remark| match remark {
        Remark::LeftOut { device, events, newest } => {
            format!("; disk-{} missed writes and is left out (events {events}, newest {newest})", device.0)
        }
        Remark::ForcedIn { device, events, newest } => {
            format!("; disk-{} is forced in (events {events}, newest {newest})", device.0)
        }
        Remark::ForcedClean => "; dirty and degraded, and forced: parity is taken for right".to_owned(),
        Remark::Unclean { sectors } => format!("; not stopped cleanly: {} sectors in doubt", sectors.0),
        Remark::StaleBitmap => "; the bitmap is older than the superblocks: all of it counts as dirty".to_owned(),
    };
    let remarks: String = lab.remarks().iter().map(remark).collect();
    let sits = |(slot, seat): (usize, &crate::raid::member::Seat)| {
        let who = seat.member.map_or_else(|| "nobody".to_owned(), |device| format!("disk-{}", device.0));
        format!("slot-{slot} {who}")
    };
    let seats: Vec<String> = lab.array().members().seats().iter().enumerate().map(sits).collect();
    format!("assembled, events {}: {}{remarks}", lab.array().events_count(), seats.join(", "))
}

/// Some slots.
pub fn slots_words(slots: SlotSet) -> String {
    let names: Vec<String> = slots.iter().map(|slot| format!("slot-{slot}")).collect();
    names.join(" and ")
}
