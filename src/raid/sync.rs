//! Background work: recovery, resync, check and repair.
//!
//! *Recovery* fills a device that does not hold all it should; *resync* makes redundancy agree with
//! the data where a crash left it in doubt; *check* reads everything and compares; *repair* also
//! mends. All walk the array in bands like any request, under the same locks, beside the users'
//! I/O, within md's speed limits: as fast as the maximum while nobody else wants the members, not
//! slower than the minimum when somebody does.
//!
//! Recovery walks the member rows of whatever is stale, resync and check the sync space. What is stale or
//! untrusted is a set of ranges, so nothing is done twice and nothing forgotten, whatever happens in
//! between; the watermark on disk is its lowest end.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use rangemap::RangeSet;
use smallvec::SmallVec;

use super::array::{Array, IoOwner};
use super::band::{Band, Phase, Purpose, Waiter};
use super::compute::{self, Blame};
use super::control::Event;
use super::geometry::{Role, Slot, StripeIndex};
use super::member::Place;
use super::mutant::{self, Mutant};
use super::plan::Intent;
use super::set::ColumnSet;
use crate::block::{Bank, DeviceId, Durability, Extent, Instant, IoError, Lba, Mark, Op, Payload, Sectors};

/// md's default `sync_speed_min`, in KiB/s for each member.
pub const SYNC_SPEED_MIN: u64 = 1000;
/// md's default `sync_speed_max`, in KiB/s for each member.
pub const SYNC_SPEED_MAX: u64 = 200_000;

/// Bands of background work in flight.
const BANDS_INFLIGHT_MAX: usize = 16;
/// The members belong to the users until so long after their last request.
const USER_RECENT: Duration = Duration::from_millis(100);
/// The watermark is written down this often, at least.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// Mismatches remembered one by one; beyond that they are only counted.
const MISMATCHES_LISTED_MAX: usize = 1024;
/// Rates are taken over so long.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// How background work behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncOptions {
    /// KiB/s of each member that it may take even while users want the members.
    pub speed_min: u64,
    /// KiB/s of each member that it takes at the most.
    pub speed_max: u64,
    /// Recovery and resync wait until this is taken back; spares are not taken either.
    pub frozen: bool,
}

impl Default for SyncOptions {
    fn default() -> SyncOptions {
        SyncOptions { speed_min: SYNC_SPEED_MIN, speed_max: SYNC_SPEED_MAX, frozen: false }
    }
}

impl SyncOptions {
    /// As fast as it goes.
    pub const UNLIMITED: SyncOptions = SyncOptions { speed_min: u64::MAX, speed_max: u64::MAX, frozen: false };
}

/// What runs in the background; md's `sync_action`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncAction {
    /// Nothing.
    Idle,
    /// Devices are filled.
    Recover,
    /// Redundancy is made to agree with the data.
    Resync,
    /// Everything is read and compared.
    Check,
    /// Everything is read and compared, and what differs is mended.
    Repair,
}

impl SyncAction {
    /// md's word.
    pub fn name(self) -> &'static str {
        match self {
            SyncAction::Idle => "idle",
            SyncAction::Recover => "recover",
            SyncAction::Resync => "resync",
            SyncAction::Check => "check",
            SyncAction::Repair => "repair",
        }
    }
}

/// How a check goes about what it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scrub {
    /// Count and list.
    Check,
    /// Mend where it is known who is wrong. Where it is not: leave everything as it is, or, with `trust_data`, do
    /// what md does: encode parity anew from the data, or copy the first of the copies.
    Repair {
        /// Take the data for right where blame is unknowable.
        trust_data: bool,
    },
}

/// Sectors whose columns disagree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// The stripe.
    pub stripe: StripeIndex,
    /// Rows of its chunks.
    pub rows: Range<u64>,
    /// The first sector of the volume whose redundancy is concerned.
    pub volume: Lba,
    /// Who is wrong, where that can be known.
    pub culprit: Option<Slot>,
    /// Whether a repair mended it.
    pub mended: bool,
}

/// What a check or repair found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ScrubReport {
    /// md's `mismatch_cnt`: 8 sectors for each 4 KiB of a parity stripe's rows that disagree; for mirrors the length of
    /// the window (64 KiB, or the chunk if that is less) for each copy that differs from the first.
    pub mismatch_sectors: u64,
    /// The first of them, one by one.
    pub mismatches: Vec<Mismatch>,
    /// How many there are.
    pub mismatches_total: u64,
    /// How many of them were mended.
    pub mended_total: u64,
    /// Whether the whole range was looked at.
    pub complete: bool,
}

/// How far background work has come.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SyncProgress {
    /// What runs.
    pub action: SyncAction,
    /// Sectors of the space it walks that are done.
    pub done: Sectors,
    /// Sectors of that space.
    pub total: Sectors,
    /// Bytes per second, lately.
    pub rate: u64,
    /// Time to the end at that rate.
    pub eta: Option<Duration>,
}

#[derive(Clone, Debug)]
struct ScrubRun {
    scrub: Scrub,
    range: Range<u64>,
    /// Where it goes on, after a recovery that came between, too.
    at: u64,
}

/// The cursors and the pace of background work.
#[derive(Clone, Debug)]
pub struct Sync {
    pub(super) options: SyncOptions,
    action: SyncAction,
    inflight: usize,
    /// Next member row to look at, by slot (recovery), or next place in sync space (resync, in `[0]`).
    cursors: Vec<u64>,
    /// Something was left undone in this pass because parity there cannot be trusted.
    blocked: bool,
    /// Membership or trust at the time it was found that nothing more can be done.
    gave_up: bool,
    next_at: Instant,
    checkpoint_at: Instant,
    scrub: Option<ScrubRun>,
    report: ScrubReport,
    rate_since: Instant,
    rate_done: u64,
    rate: u64,
}

impl Sync {
    pub(super) fn new(options: SyncOptions) -> Sync {
        Sync {
            options,
            action: SyncAction::Idle,
            inflight: 0,
            cursors: Vec::new(),
            blocked: false,
            gave_up: false,
            next_at: Instant::START,
            checkpoint_at: Instant::START,
            scrub: None,
            report: ScrubReport::default(),
            rate_since: Instant::START,
            rate_done: 0,
            rate: 0,
        }
    }

    /// Bands under way.
    pub(super) fn inflight(&self) -> usize {
        self.inflight
    }

    /// Whatever was found impossible may be possible now.
    pub(super) fn reconsider(&mut self) {
        self.gave_up = false;
        self.blocked = false;
        self.cursors.iter_mut().for_each(|cursor| *cursor = 0);
    }
}

impl<B: Bank> Array<B> {
    /// Sets the speed limits, freezes or thaws.
    pub fn set_sync_options(&mut self, options: SyncOptions) {
        self.sync.options = options;
        self.sync.next_at = self.now;
    }

    /// Begins a check or repair of the part of the volume in `range`. One that runs already is replaced.
    pub fn start_scrub(&mut self, scrub: Scrub, range: Range<Lba>) {
        let range = if self.geometry.tolerance() == 0 { 0..0 } else { self.sync_space_of(range) };
        self.sync.report = ScrubReport::default();
        self.sync.scrub = Some(ScrubRun { scrub, at: range.start, range });
    }

    /// Ends a check or repair where it is.
    pub fn cancel_scrub(&mut self) {
        self.sync.scrub = None;
    }

    /// Whether a check or repair is asked for and not done.
    pub fn is_scrubbing(&self) -> bool {
        self.sync.scrub.is_some() || matches!(self.sync.action, SyncAction::Check | SyncAction::Repair)
    }

    /// What the last check or repair found, as far as it has come.
    pub fn scrub_report(&self) -> &ScrubReport {
        &self.sync.report
    }

    /// The sector of the volume that a check or repair under way looks at next.
    pub fn scrub_position(&self) -> Option<Lba> {
        let run = self.sync.scrub.as_ref()?;
        let at = run.at;
        if at >= run.range.end {
            return Some(Lba(self.geometry.capacity().0));
        }
        Some(self.geometry.stripe(self.geometry.stripe_of_sync(at)).start)
    }

    /// Whether there is anything for a resync to do.
    pub fn is_resync_due(&self) -> bool {
        !self.control.untrusted.is_empty()
    }

    /// Whether recovery or resync is due, and not given up.
    pub fn is_syncing(&self) -> bool {
        self.sync.inflight > 0 || matches!(self.due(), SyncAction::Recover | SyncAction::Resync)
    }

    /// Whether part of the volume stays without redundancy because parity there was never made to agree with the
    /// data since a crash.
    pub fn is_sync_blocked(&self) -> bool {
        self.sync.gave_up
    }

    /// How far background work has come; `None` when none runs.
    pub fn sync_progress(&self) -> Option<SyncProgress> {
        let action = if self.sync.action == SyncAction::Idle { self.due() } else { self.sync.action };
        let (done, total) = match action {
            SyncAction::Idle => return None,
            SyncAction::Recover => {
                let filling = self.control.members.iter().filter(|member| member.serves() && !member.stale.is_empty());
                let left = filling.map(|member| lengths(&member.stale)).max().unwrap_or(0);
                let used = self.geometry.member_used(Slot(0)).0;
                (used.saturating_sub(left), used)
            }
            SyncAction::Resync => {
                let total = self.geometry.sync_size().0;
                (total.saturating_sub(lengths(&self.control.untrusted)), total)
            }
            SyncAction::Check | SyncAction::Repair => {
                let run = self.sync.scrub.as_ref();
                run.map_or((0, 0), |run| (run.at.min(run.range.end) - run.range.start, run.range.end - run.range.start))
            }
        };
        let rate = self.sync.rate;
        let left = (total - done) * crate::block::SECTOR_BYTES;
        let eta = (rate > 0).then(|| Duration::from_secs(left / rate));
        Some(SyncProgress { action, done: Sectors(done), total: Sectors(total), rate, eta })
    }

    fn sync_space_of(&self, range: Range<Lba>) -> Range<u64> {
        let end = range.end.min(Lba(self.geometry.capacity().0));
        if range.start >= end {
            return 0..0;
        }
        let (first, _) = self.geometry.locate(range.start);
        let (last, _) = self.geometry.locate(Lba(end.0 - 1));
        let last_rows = self.geometry.stripe(last).rows.0;
        let first_rows = self.geometry.stripe(first).rows.0;
        self.geometry.sync_range(first, 0..first_rows).start..self.geometry.sync_range(last, 0..last_rows).end
    }

    fn due(&self) -> SyncAction {
        if self.control.is_failed() || self.control.is_read_only() || self.control.is_stopping() {
            return SyncAction::Idle;
        }
        let redundant = self.geometry.tolerance() > 0;
        if redundant && !self.sync.options.frozen && !self.sync.gave_up {
            if self.control.members.iter().any(|member| member.serves() && !member.stale.is_empty()) {
                return SyncAction::Recover;
            }
            if !self.control.untrusted.is_empty() {
                return SyncAction::Resync;
            }
        }
        match &self.sync.scrub {
            Some(ScrubRun { scrub: Scrub::Check, .. }) => SyncAction::Check,
            Some(_) => SyncAction::Repair,
            None => SyncAction::Idle,
        }
    }

    /// When background work can go on.
    pub(super) fn sync_deadline(&self) -> Option<Instant> {
        let due = self.due();
        if due == SyncAction::Idle && self.sync.action == SyncAction::Idle {
            return None;
        }
        if self.sync.action != due {
            // The bands of the old action come back first.
            return (self.sync.inflight == 0).then_some(Instant::START);
        }
        let room = self.sync.inflight < BANDS_INFLIGHT_MAX && (self.sync.inflight == 0 || self.has_next());
        room.then_some(self.sync.next_at)
    }

    fn has_next(&self) -> bool {
        match self.sync.action {
            SyncAction::Recover => self.next_stale().is_some(),
            _ => self.next_place().is_some(),
        }
    }

    /// Starts as many bands as there is room and allowance for.
    pub(super) fn pump_sync(&mut self) {
        let due = self.due();
        if due != self.sync.action {
            if self.sync.inflight > 0 {
                self.bank.mark(Mark::SyncActionWaited);
                return;
            }
            self.begin_action(due);
        }
        if due == SyncAction::Idle {
            return;
        }
        while self.sync.inflight < BANDS_INFLIGHT_MAX && self.sync.next_at <= self.now {
            let started = match due {
                SyncAction::Recover => self.start_recovery_band(),
                _ => self.start_place_band(due),
            };
            let Some(sectors) = started else {
                if self.sync.inflight == 0 {
                    self.end_pass();
                }
                break;
            };
            self.pace(sectors);
        }
        if matches!(due, SyncAction::Recover | SyncAction::Resync)
            && self.sync.checkpoint_at <= self.now
            && self.sync.inflight > 0
        {
            self.sync.checkpoint_at = self.now + CHECKPOINT_INTERVAL;
            self.bank.mark(Mark::WatermarkRecorded);
            self.control.checkpoint();
        }
    }

    fn begin_action(&mut self, action: SyncAction) {
        let scrubs = matches!(action, SyncAction::Check | SyncAction::Repair);
        if scrubs && self.sync.scrub.as_ref().is_some_and(|run| run.at > run.range.start) {
            self.bank.mark(Mark::ScrubResumed);
        }
        self.sync.action = action;
        self.sync.blocked = false;
        self.sync.cursors = vec![0; self.geometry.raid_disks()];
        self.sync.next_at = self.now;
        self.sync.checkpoint_at = self.now + CHECKPOINT_INTERVAL;
        self.sync.rate_since = self.now;
        self.sync.rate_done = 0;
        self.sync.rate = 0;
    }

    fn pace(&mut self, sectors: u64) {
        let users = !self.requests.is_empty()
            || (self.last_user_io > Instant::START && self.now.since(self.last_user_io) < USER_RECENT);
        let limit = if users { self.sync.options.speed_min } else { self.sync.options.speed_max };
        if limit == u64::MAX {
            return;
        }
        let nanos = sectors.saturating_mul(500_000_000) / limit.max(1);
        let from = self.sync.next_at.max(Instant(self.now.0.saturating_sub(50_000_000)));
        self.sync.next_at = from + Duration::from_nanos(nanos);
    }

    fn end_pass(&mut self) {
        match self.sync.action {
            SyncAction::Recover | SyncAction::Resync if self.due() == self.sync.action => {
                // What is left could not be done in a whole pass from the start.
                if self.sync.blocked {
                    self.bank.mark(Mark::SyncGaveUp);
                    self.sync.gave_up = true;
                    self.sync.action = SyncAction::Idle;
                    self.control.checkpoint();
                } else {
                    self.bank.mark(Mark::SyncPassAgain);
                    self.sync.cursors.iter_mut().for_each(|cursor| *cursor = 0);
                }
            }
            SyncAction::Check | SyncAction::Repair => {
                self.sync.report.complete = true;
                self.sync.scrub = None;
                self.sync.action = SyncAction::Idle;
                self.control.note(Event::RebuildFinished);
            }
            SyncAction::Recover | SyncAction::Resync | SyncAction::Idle => self.sync.action = SyncAction::Idle,
        }
    }

    // ---- recovery ----

    /// The first stale row at or behind the cursors, and whose it is.
    fn next_stale(&self) -> Option<(Slot, u64)> {
        let mut first: Option<(Slot, u64)> = None;
        for member in self.control.members.iter() {
            let (Place::Slot(slot) | Place::Replacement(slot)) = member.place else { continue };
            let cursor = self.sync.cursors.get(slot.0 as usize).copied().unwrap_or(0);
            let used = self.geometry.member_used(slot).0;
            let row = first_from(&member.stale, cursor).filter(|row| *row < used);
            if let Some(row) = row
                && first.is_none_or(|(_, earliest)| row < earliest)
            {
                first = Some((slot, row));
            }
        }
        first
    }

    fn start_recovery_band(&mut self) -> Option<u64> {
        let (slot, row) = self.next_stale()?;
        let Some(index) = self.geometry.stripe_at(slot, Lba(row)) else {
            return Some(self.skip_unused(slot, row));
        };
        let stripe = self.geometry.stripe(index);
        let column =
            stripe.columns.iter().position(|c| c.slot == slot && (c.base.0..c.base.0 + stripe.rows.0).contains(&row));
        let column = column.expect("the stripe at a row has a column there");
        let first = row - stripe.columns[column].base.0;
        let mut end = stripe.rows.0;
        let mut targets: SmallVec<[(DeviceId, usize); 2]> = SmallVec::new();
        for (at, column) in stripe.columns.iter().enumerate() {
            for member in self.control.members.in_slot(column.slot) {
                let begin = column.base.0 + first;
                match member.stale.get(&begin) {
                    Some(range) => {
                        targets.push((member.device, at));
                        end = end.min(range.end - column.base.0);
                    }
                    None => {
                        // It joins in further down: stop there, so that every row has its own set of targets.
                        if let Some(next) = first_from(&member.stale, begin) {
                            self.bank.mark(Mark::RecoveryCutShort);
                            end = end.min((next - column.base.0).max(first + 1));
                        }
                    }
                }
            }
        }
        for (_, at) in &targets {
            let column = &stripe.columns[*at];
            let cursor = &mut self.sync.cursors[column.slot.0 as usize];
            *cursor = (*cursor).max(column.base.0 + end);
        }
        let written = |band: &Band| {
            let overlaps = band.index == index && band.rows.start < end && first < band.rows.end;
            overlaps && matches!(band.intent, Intent::Write(_)) && band.phase == Phase::Writing
        };
        if mutant::is_on(Mutant::RecoverySkipsWrites) && self.bands.iter().any(|(_, band)| written(band)) {
            for (device, at) in targets {
                let base = stripe.columns[at].base.0;
                self.control.recovered(device, base + first..base + end);
                self.finish_recovery_of(device);
            }
            return Some(0);
        }
        if targets.len() > 1 {
            self.bank.mark(Mark::RecoveryOfSeveral);
        }
        let columns: ColumnSet = targets.iter().map(|(_, at)| *at).collect();
        let mut band = Band::new(Purpose::Sync, Intent::Recover(columns), index, stripe, first..end);
        band.targets = targets;
        self.start_sync_band(band);
        Some(end - first)
    }

    /// Rows that hold nothing of the array are as good as recovered.
    fn skip_unused(&mut self, slot: Slot, row: u64) -> u64 {
        let used = self.geometry.member_used(slot).0;
        let chunk = self.geometry.chunk().0.max(1);
        let end = ((row / chunk + 1) * chunk).min(used);
        let devices: SmallVec<[DeviceId; 2]> = self.control.members.in_slot(slot).map(|m| m.device).collect();
        for device in devices {
            self.control.recovered(device, row..end);
            self.finish_recovery_of(device);
        }
        0
    }

    fn start_sync_band(&mut self, band: Band) {
        self.sync.inflight += 1;
        let key = self.bands.insert(band);
        if mutant::is_on(Mutant::RepairWithoutLock) && self.sync.action == SyncAction::Repair {
            return self.begin(key);
        }
        self.take_lock(key);
    }

    // ---- resync and check ----

    fn next_place(&self) -> Option<u64> {
        let cursor = self.sync.cursors.first().copied().unwrap_or(0);
        match self.sync.action {
            SyncAction::Resync => first_from(&self.control.untrusted, cursor),
            _ => {
                let run = self.sync.scrub.as_ref()?;
                (run.at < run.range.end).then_some(run.at)
            }
        }
    }

    fn start_place_band(&mut self, action: SyncAction) -> Option<u64> {
        let place = self.next_place()?;
        let index = self.geometry.stripe_of_sync(place);
        let stripe = self.geometry.stripe(index);
        let space = self.geometry.sync_range(index, 0..stripe.rows.0);
        let first = place - space.start;
        let (intent, end) = match action {
            SyncAction::Resync => {
                let range = self.control.untrusted.get(&place).expect("the next place is untrusted");
                (Intent::Resync, range.end.min(space.end) - space.start)
            }
            _ => (Intent::Check, stripe.rows.0),
        };
        match (action, &mut self.sync.scrub) {
            (SyncAction::Check | SyncAction::Repair, Some(run)) => run.at = space.start + end,
            _ => self.sync.cursors[0] = space.start + end,
        }
        let band = Band::new(Purpose::Sync, intent, index, stripe, first..end);
        self.start_sync_band(band);
        Some(end - first)
    }

    /// A band of background work came to its end.
    pub(super) fn sync_band_done(&mut self, band: &Band, _result: Result<(), IoError>) {
        self.sync.inflight -= 1;
        self.sync.rate_done += band.height().bytes();
        let passed = self.now.since(self.sync.rate_since);
        if passed >= RATE_WINDOW {
            self.sync.rate = (u128::from(self.sync.rate_done) * 1_000_000_000 / passed.as_nanos()) as u64;
            self.sync.rate_done = 0;
            self.sync.rate_since = self.now;
        }
        for (at, column) in band.stripe.columns.iter().enumerate() {
            if matches!(band.intent, Intent::Recover(_)) || band.targets.iter().any(|(_, target)| *target == at) {
                let devices: SmallVec<[DeviceId; 2]> =
                    self.control.members.in_slot(column.slot).map(|member| member.device).collect();
                for device in devices {
                    self.finish_recovery_of(device);
                }
            }
        }
        if band.intent == Intent::Resync && self.control.untrusted.is_empty() {
            self.bank.mark(Mark::ResyncEnded);
            self.control.checkpoint();
            self.control.note(Event::RebuildFinished);
        }
    }

    /// If a device that was filled now holds everything, it takes its place.
    pub(super) fn finish_recovery_of(&mut self, device: DeviceId) {
        let Some(member) = self.control.members.get_mut(device).filter(|member| member.is_filled()) else { return };
        member.filling = false;
        member.by_bitmap = false;
        let replaces = matches!(member.place, Place::Replacement(_));
        let epoch = self.control.checkpoint();
        if replaces && mutant::is_on(Mutant::ReplacementBeforeRecord) {
            self.finish_replacement(device);
        } else if replaces {
            self.waiting.push((epoch, Waiter::Replacement(device)));
        } else {
            self.control.note(Event::SpareActive(device));
        }
    }

    /// It is on record that a replacement holds everything: only now may the old member go, or a crash between the two
    /// would leave a slot whose one device admits to be half full.
    pub(super) fn finish_replacement(&mut self, device: DeviceId) {
        let place =
            self.control.members.get(device).filter(|member| member.stale.is_empty()).map(|member| member.place);
        if let Some(Place::Replacement(slot)) = place
            && !self.control.is_failed()
        {
            let writes = self.control.writes_inflight() > 0;
            self.bank.mark(if writes { Mark::ReplacementTookOverFromWrites } else { Mark::ReplacementTookOver });
            self.control.finish_replacement(slot);
            self.control.note(Event::SpareActive(device));
        } else {
            self.bank.mark(Mark::ReplacementOvertaken);
        }
    }

    /// A band could not be done because parity there is not trusted.
    pub(super) fn sync_blocked(&mut self) {
        self.sync.blocked = true;
    }

    // ---- comparing ----

    /// Compares the columns of a band that were read, and mends what is to be mended.
    pub(super) fn compare(&mut self, key: usize) {
        let band = &self.bands[key];
        if !band.excluded.is_empty() {
            self.bank.mark(Mark::CheckMetUnreadable);
        }
        let roles: SmallVec<[Role; 8]> = band.stripe.columns.iter().map(|column| column.role).collect();
        let parity = self.geometry.parity_count() > 0;
        let grain = u64::from(self.grain());
        // 4 KiB of rows on parity, as md's stripes are; 64 KiB on mirrors, as its resync requests are.
        let window = if parity { 8 } else { 128 };
        let mut found: Vec<(Range<u64>, Blame, u64)> = Vec::new();
        let mut row = band.rows.start;
        while row < band.rows.end {
            let end = ((row / window + 1) * window).min(band.rows.end);
            let bytes = ((row - band.rows.start) * grain) as usize..((end - band.rows.start) * grain) as usize;
            if parity {
                if let Some(blame) = compute::compare_parity(self.kernel, &roles, &band.known, bytes) {
                    found.push((row..end, blame, end - row));
                }
            } else if let Some((differing, blame)) = compute::compare_copies(&band.known, bytes) {
                found.push((row..end, blame, (end - row) * differing as u64));
            }
            row = end;
        }
        let trust_data = match self.sync.scrub.as_ref().map(|run| run.scrub) {
            Some(Scrub::Repair { trust_data }) => Some(trust_data),
            Some(Scrub::Check) | None => None,
        };
        let mut writes: Vec<(usize, Range<u64>, Bytes)> = Vec::new();
        for (rows, blame, sectors) in found {
            let mended = match trust_data {
                Some(trust) => self.mending_writes(key, &roles, &rows, blame, trust, &mut writes),
                None => false,
            };
            self.list_mismatch(key, rows, blame, sectors, mended);
        }
        self.write_mended(key, writes);
    }

    fn list_mismatch(&mut self, key: usize, rows: Range<u64>, blame: Blame, sectors: u64, mended: bool) {
        let band = &self.bands[key];
        let culprit = match blame {
            Blame::Column(column) => Some(band.stripe.columns[column].slot),
            Blame::Unknown => None,
        };
        self.bank.mark(if culprit.is_some() { Mark::MismatchLocated } else { Mark::MismatchUnlocated });
        let report = &mut self.sync.report;
        report.mismatch_sectors += sectors;
        report.mismatches_total += 1;
        report.mended_total += u64::from(mended);
        if report.mismatches.len() < MISMATCHES_LISTED_MAX {
            let volume = Lba(band.stripe.start.0 + rows.start);
            report.mismatches.push(Mismatch { stripe: band.index, rows, volume, culprit, mended });
        }
    }

    /// Adds what has to be written so that `rows` agree; `false` if it is not known, and not to be guessed.
    fn mending_writes(
        &self,
        key: usize,
        roles: &[Role],
        rows: &Range<u64>,
        blame: Blame,
        trust_data: bool,
        writes: &mut Vec<(usize, Range<u64>, Bytes)>,
    ) -> bool {
        let band = &self.bands[key];
        let grain = u64::from(self.grain());
        let bytes = ((rows.start - band.rows.start) * grain) as usize..((rows.end - band.rows.start) * grain) as usize;
        let mut known: compute::Known =
            band.known.iter().map(|column| column.as_ref().map(|all| all.slice(bytes.clone()))).collect();
        let parity = self.geometry.parity_count() > 0;
        let data = band.stripe.data_chunks;
        let wrong = match blame {
            Blame::Column(column) if mutant::is_on(Mutant::CulpritIntoParity) && parity && column < data => {
                ColumnSet::range(data..roles.len())
            }
            Blame::Column(column) => ColumnSet::only(column),
            Blame::Unknown if !trust_data => return false,
            Blame::Unknown if parity => ColumnSet::range(data..roles.len()),
            Blame::Unknown => {
                let first = known.iter().position(Option::is_some).expect("copies were compared");
                (0..roles.len()).filter(|column| *column != first && known[*column].is_some()).collect()
            }
        };
        for column in wrong.iter() {
            known[column] = None;
        }
        if parity && wrong.iter().any(|column| column < data) {
            let chunks = super::set::ChunkSet::from_bits(wrong.bits());
            compute::recover(self.kernel, roles, &mut known, chunks);
            let column = wrong.lowest().expect("somebody is wrong");
            writes.push((column, rows.clone(), known[column].clone().expect("it was recovered")));
        } else if parity {
            let all: SmallVec<[&[u8]; 16]> =
                known[..data].iter().map(|d| d.as_deref().expect("all data was compared")).collect();
            for (column, bytes) in compute::encode(self.kernel, roles, &all, wrong) {
                writes.push((column, rows.clone(), bytes));
            }
        } else {
            let right = known.iter().flatten().next().expect("somebody is right").clone();
            writes.extend(wrong.iter().map(|column| (column, rows.clone(), right.clone())));
        }
        true
    }

    fn write_mended(&mut self, key: usize, writes: Vec<(usize, Range<u64>, Bytes)>) {
        let mut ios: Vec<(DeviceId, usize, Extent, Bytes)> = Vec::new();
        let band = &self.bands[key];
        for (at, rows, bytes) in writes {
            let column = &band.stripe.columns[at];
            for member in self.control.members.in_slot(column.slot) {
                if !member.stale.overlaps(&(column.base.0 + rows.start..column.base.0 + rows.end)) {
                    ios.push((member.device, at, member.on_device(column.base, &rows), bytes.clone()));
                }
            }
        }
        if ios.is_empty() {
            return self.finish(key, Ok(()));
        }
        self.bank.mark(Mark::RepairWrote);
        let band = &mut self.bands[key];
        band.phase = Phase::Writing;
        band.outstanding = ios.len();
        for (device, column, extent, bytes) in ios {
            let op = Op::Write(Payload::from(bytes), Durability::Volatile);
            self.submit_io(device, IoOwner::Band { band: key, column, part: None }, extent, op);
        }
    }
}

fn lengths(set: &RangeSet<u64>) -> u64 {
    set.iter().map(|range| range.end - range.start).sum()
}

/// The first number in `set` that is `from` or more.
fn first_from(set: &RangeSet<u64>, from: u64) -> Option<u64> {
    if set.contains(&from) {
        return Some(from);
    }
    set.overlapping(&(from..u64::MAX)).next().map(|range| range.start.max(from))
}
