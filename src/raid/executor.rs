//! What happens inside a band: plan, read, compute, write, record, acknowledge.
//!
//! A failed read shrinks what can be believed of the band and it is planned again. When that fails
//! too, the trouble may be of a few rows only: the band is halved, down to one block, so that exactly
//! the lost sectors are lost. What could not be read but was reconstructed is written again where it
//! was, and read back.

use bytes::Bytes;
use smallvec::SmallVec;

use super::array::{Array, IoOwner};
use super::band::{Band, Cargo, Content, Phase, Purpose, Waiter};
use super::compute;
use super::control::{Event, READ_ERRORS_MAX};
use super::geometry::{Role, StripeIndex};
use super::locks::Access;
use super::member::{Member, Place, Standing};
use super::mutant::{self, Mutant};
use super::plan::{self, Intent, Parity, Prefer, Unrecoverable};
use super::set::{ChunkSet, ColumnSet};
use crate::block::{Bank, Buf, DeviceId, Durability, Extent, IoError, Lba, Mark, Op, Payload, Sectors};

type Roles = SmallVec<[Role; 8]>;

fn roles_of(band: &Band) -> Roles {
    band.stripe.columns.iter().map(|column| column.role).collect()
}

impl<B: Bank> Array<B> {
    /// Plans what a band does next with what is known by now, and does it.
    pub(super) fn begin(&mut self, key: usize) {
        let band = &self.bands[key];
        if matches!(band.intent, Intent::Write(_)) && self.control.is_failed() {
            self.bank.mark(Mark::WriteMetFailedArray);
            return self.finish(key, Err(IoError::Offline));
        }
        let health = self.control.health(band.index, &band.stripe.columns, &band.rows, &band.excluded);
        let roles = roles_of(band);
        let mirror = self.geometry.parity_count() == 0;
        let settle = matches!(band.intent, Intent::Read(_))
            && mirror
            && !health.trusted
            && band.exclusive
            && !self.control.is_read_only()
            && self.geometry.tolerance() > 0;
        if settle && self.control.is_failed() {
            // Copies that are gone cannot be made equal, nor put on record as gone: they may come back.
            return self.finish(key, Err(IoError::Offline));
        }
        let intent = if settle { Intent::Resync } else { band.intent };
        let prefer = if health.trusted { self.balanced(band) } else { Prefer::First };
        match plan::plan(&roles, &health, prefer, intent) {
            Ok(plan) => {
                let band = &mut self.bands[key];
                band.settle = settle;
                if settle {
                    // What is returned once must be what is returned ever after, also if the power goes next and
                    // takes the copy that was read with it.
                    band.durability = Durability::Fua;
                }
                band.plan = plan;
                if matches!(intent, Intent::Write(_)) {
                    if !health.trusted && plan.parity == Parity::Encode && !plan.reads.is_empty() {
                        self.bank.mark(Mark::ReconstructWriteOnDoubt);
                    }
                    if health.writable != health.sound {
                        self.bank.mark(Mark::WriteMetWatermark);
                    }
                }
                self.read_for(key);
            }
            Err(Unrecoverable(lost)) => self.unrecoverable(key, lost, health.trusted),
        }
    }

    /// Spreads reads over the copies.
    fn balanced(&self, band: &Band) -> Prefer {
        if self.geometry.parity_count() > 0 || band.stripe.data_chunks != 1 {
            return Prefer::First;
        }
        Prefer::Column(self.preferred_copy(band.index, band.stripe.columns.len()))
    }

    /// Of which copy a stripe is read: by address, so that a sequential stream stays on one member for a while.
    pub(super) fn preferred_copy(&self, index: StripeIndex, copies: usize) -> usize {
        if copies < 2 {
            return 0;
        }
        let start = index.0 * self.geometry.rows().0;
        ((start >> 11) % copies as u64) as usize
    }

    // ---- reading ----

    fn read_for(&mut self, key: usize) {
        let band = &mut self.bands[key];
        let direct = matches!(band.intent, Intent::Read(_))
            && !band.settle
            && band.plan.recover.is_empty()
            && band.excluded.is_empty()
            && band.known.iter().all(Option::is_none);
        band.retry = false;
        if direct {
            band.phase = Phase::Direct;
            return self.read_directly(key);
        }
        band.phase = Phase::Reading;
        let missing: SmallVec<[usize; 8]> =
            band.plan.reads.iter().filter(|column| band.known[*column].is_none()).collect();
        band.outstanding = missing.len();
        let bytes = band.height().at_grain(self.grain());
        for column in missing {
            if self.borrow_column(key, column) {
                self.bands[key].outstanding -= 1;
            } else {
                self.read_column(key, column, Buf::stale(bytes), None);
            }
        }
        if self.bands[key].outstanding == 0 {
            self.compute(key);
        }
    }

    /// Has a user's band compute from a column's bytes where they lie, if the member lends them. Background work reads by
    /// requests: they are its pace.
    fn borrow_column(&mut self, key: usize, at: usize) -> bool {
        let band = &self.bands[key];
        if band.settle || !matches!(band.intent, Intent::Read(_) | Intent::Write(_)) {
            return false;
        }
        let (device, extent) = self.source_of_column(band, at);
        let Some(bytes) = self.bank.lend(device, extent) else { return false };
        let band = &mut self.bands[key];
        band.known[at] = Some(bytes);
        band.lenders.push((device, at));
        true
    }

    /// Whether bytes the band computed from turned out not to be what the member holds. Then nothing that was made of
    /// them counts, and the band has begun anew without that member.
    fn was_misled(&mut self, key: usize) -> bool {
        let lenders = std::mem::take(&mut self.bands[key].lenders);
        let mut misled = false;
        for (device, column) in lenders {
            if self.bank.vouches(device) {
                continue;
            }
            misled = true;
            let band = &mut self.bands[key];
            band.excluded.push(device);
            band.unreadable.push((device, column));
            self.read_failed(device, IoError::Medium);
        }
        if misled {
            self.bands[key].known.fill(None);
            self.begin(key);
        }
        misled
    }

    fn read_directly(&mut self, key: usize) {
        let band = &mut self.bands[key];
        band.outstanding = band.cargo.len();
        for part in 0..band.cargo.len() {
            let band = &mut self.bands[key];
            let chunk = band.cargo[part].0;
            let copies = band.plan.reads & band.columns_of(chunk);
            let column = copies.lowest().expect("a plan reads a column for every chunk");
            let Cargo::Up(buf) = &mut band.cargo[part].2 else { panic!("a read carries bytes up") };
            let buf = std::mem::take(buf);
            self.read_column(key, column, buf, Some(part));
        }
    }

    fn read_column(&mut self, key: usize, at: usize, buf: Buf, part: Option<usize>) {
        let (device, extent) = self.source_of_column(&self.bands[key], at);
        self.submit_io(device, IoOwner::Band { band: key, column: at, part }, extent, Op::Read(buf));
    }

    fn source_of_column(&self, band: &Band, at: usize) -> (DeviceId, Extent) {
        let column = &band.stripe.columns[at];
        let member =
            self.control.members.reader(column, &band.rows, &band.excluded).expect("plans read what can be read");
        (member.device, member.on_device(column.base, &band.rows))
    }

    /// One of a band's requests came back.
    pub(super) fn band_io_done(
        &mut self,
        key: usize,
        device: DeviceId,
        column: usize,
        part: Option<usize>,
        op: Op,
        result: Result<(), IoError>,
    ) {
        match self.bands[key].phase {
            Phase::Direct | Phase::Reading => self.read_done(key, device, column, part, op, result),
            Phase::Writing => self.write_done(key, device, column, result),
            Phase::Verifying => self.verified(key, device, result),
            phase => panic!("a band in {phase:?} has no request under way"),
        }
    }

    fn read_done(
        &mut self,
        key: usize,
        device: DeviceId,
        column: usize,
        part: Option<usize>,
        op: Op,
        result: Result<(), IoError>,
    ) {
        let Op::Read(buf) = op else { panic!("a read comes back as a read") };
        let believed = self.control.members.get(device).is_some_and(Member::serves);
        let band = &mut self.bands[key];
        match part {
            Some(part) => band.cargo[part].2 = Cargo::Up(buf),
            None if result.is_ok() && believed => band.known[column] = Some(buf.into_bytes()),
            None => {}
        }
        if result.is_ok() && !believed {
            // It failed meanwhile; if that was at a flush, it may have lost what it held.
            band.retry = true;
            band.excluded.push(device);
        }
        if let Err(error) = result {
            band.retry = true;
            if !band.excluded.is_empty() {
                self.bank.mark(Mark::SecondReadFailed);
            }
            band.excluded.push(device);
            if error == IoError::Medium {
                band.unreadable.push((device, column));
            }
            self.read_failed(device, error);
        }
        let band = &mut self.bands[key];
        band.outstanding -= 1;
        if band.outstanding > 0 {
            return;
        }
        match (band.retry, band.phase) {
            (true, _) => self.begin(key),
            (false, Phase::Direct) => self.finish(key, Ok(())),
            (false, _) => self.compute(key),
        }
    }

    fn read_failed(&mut self, device: DeviceId, error: IoError) {
        if let Some(member) = self.control.members.get_mut(device) {
            member.errors.read += 1;
        }
        if error != IoError::Medium {
            self.bank.mark(Mark::ReadFailedMember);
            self.control.fail(device, false);
        }
    }

    // ---- computing ----

    fn compute(&mut self, key: usize) {
        let kernel = self.kernel;
        let band = &mut self.bands[key];
        let roles = roles_of(band);
        if mutant::is_on(Mutant::ParityNeverLoaded)
            && roles.contains(&Role::Q)
            && !band.plan.recover.is_empty()
            && matches!(band.intent, Intent::Write(chunks) if !band.plan.writes.contains_all(ColumnSet::from_bits(chunks.bits())))
        {
            band.known.fill(None);
            return self.begin(key);
        }
        compute::recover(kernel, &roles, &mut band.known, band.plan.recover);
        match band.intent {
            Intent::Read(_) if band.settle => self.write_copies(key),
            Intent::Read(_) => {
                self.mark_indirect_read(key);
                self.deliver(key);
                if !self.was_misled(key) {
                    self.finish(key, Ok(()));
                }
            }
            Intent::Write(_) => {
                if !band.plan.recover.is_empty() {
                    self.bank.mark(Mark::WriteReconstructed);
                }
                self.write_new(key, &roles);
            }
            Intent::Recover(_) => self.write_targets(key, &roles),
            Intent::Resync if self.geometry.parity_count() == 0 => self.write_copies(key),
            Intent::Resync => self.write_parity(key, &roles),
            Intent::Check => self.compare(key),
        }
    }

    fn mark_indirect_read(&mut self, key: usize) {
        if self.bands[key].plan.recover.is_empty() {
            return self.bank.mark(Mark::ReadFromElsewhere);
        }
        self.mark_reconstructed_read();
    }

    pub(super) fn mark_reconstructed_read(&mut self) {
        self.bank.mark(Mark::ReadReconstructed);
        if self.control.members.seats().iter().any(|seat| seat.replacement.is_some()) {
            self.bank.mark(Mark::ReadReconstructedInReplacement);
        }
    }

    /// Copies what was read or reconstructed to where the user wants it.
    fn deliver(&mut self, key: usize) {
        let band = &mut self.bands[key];
        for part in 0..band.cargo.len() {
            let bytes = band.known[band.source_of(band.cargo[part].0)].clone().expect("a source is known");
            if let Cargo::Up(buf) = &mut band.cargo[part].2 {
                buf.copy_from(&bytes);
            }
        }
    }

    fn write_new(&mut self, key: usize, roles: &Roles) {
        let band = &self.bands[key];
        let new = Self::written_bytes(band);
        let plan = band.plan;
        if band.content != Content::Bytes && plan.poison.is_empty() {
            return self.write_empty(key);
        }
        let mut writes: SmallVec<[(usize, Bytes); 8]> = SmallVec::new();
        for (chunk, bytes) in &new {
            let copies = plan.writes & band.columns_of(*chunk);
            writes.extend(copies.iter().map(|column| (column, bytes.clone())));
        }
        match plan.parity {
            Parity::Keep => {}
            Parity::Encode => {
                let known = &band.known[..band.stripe.data_chunks];
                let mut data: SmallVec<[Option<&[u8]>; 16]> = known.iter().map(Option::as_deref).collect();
                for (chunk, bytes) in &new {
                    data[*chunk] = Some(bytes);
                }
                let data: SmallVec<[&[u8]; 16]> =
                    data.into_iter().map(|d| d.expect("encoding knows all data")).collect();
                writes.extend(compute::encode(self.kernel, roles, &data, plan.writes));
            }
            Parity::Delta => writes.extend(compute::update(self.kernel, roles, &band.known, &new, plan.writes)),
        }
        if self.was_misled(key) {
            return;
        }
        // What was borrowed is about to change.
        self.bands[key].known.fill(None);
        self.write_columns(key, &writes);
    }

    /// Whole rows become zero: every column does, parity too.
    fn write_empty(&mut self, key: usize) {
        self.bank.mark(Mark::RowsEmptied);
        let band = &mut self.bands[key];
        band.phase = Phase::Writing;
        let (content, durability) = (band.content, band.durability);
        let columns = ColumnSet::first(band.stripe.columns.len());
        let targets = self.write_places(key, columns);
        self.bands[key].outstanding = targets.len();
        for (device, column, extent) in targets {
            let op = if content == Content::Zeroes { Op::WriteZeroes(durability) } else { Op::Discard };
            self.submit_io(device, IoOwner::Band { band: key, column, part: None }, extent, op);
        }
    }

    fn write_targets(&mut self, key: usize, roles: &Roles) {
        let band = &self.bands[key];
        let mut writes: SmallVec<[(usize, Bytes); 8]> = SmallVec::new();
        let mut encoded = ColumnSet::EMPTY;
        for column in band.plan.writes.iter() {
            match roles[column] {
                // A copy: of the target's own member, or of any other that holds the chunk.
                _ if band.plan.reads.contains(column) => {
                    writes.push((column, band.known[column].clone().expect("it was read")));
                }
                Role::Data { index, .. } => {
                    let source = band.source_of(usize::from(index));
                    writes.push((column, band.known[source].clone().expect("a source is known")));
                }
                Role::P | Role::Q => encoded.insert(column),
            }
        }
        if !encoded.is_empty() {
            let data: SmallVec<[&[u8]; 16]> = band.known[..band.stripe.data_chunks]
                .iter()
                .map(|d| d.as_deref().expect("encoding knows all data"))
                .collect();
            writes.extend(compute::encode(self.kernel, roles, &data, encoded));
        }
        let targets = band.targets.clone();
        let band = &mut self.bands[key];
        band.phase = Phase::Writing;
        let places: SmallVec<[(DeviceId, usize, Bytes); 2]> = targets
            .iter()
            .filter_map(|(device, column)| {
                let (_, bytes) = writes.iter().find(|(at, _)| at == column)?;
                Some((*device, *column, bytes.clone()))
            })
            .collect();
        band.outstanding = places.len();
        if places.is_empty() {
            return self.written(key);
        }
        let rows = band.rows.clone();
        for (device, column, bytes) in places {
            let base = self.bands[key].stripe.columns[column].base;
            let Some(member) = self.control.members.get(device).filter(|member| member.serves()) else {
                // It failed meanwhile: nothing to fill any more.
                self.bank.mark(Mark::RecoveryTargetFailed);
                self.bands[key].outstanding -= 1;
                continue;
            };
            let extent = member.on_device(base, &rows);
            let op = Op::Write(Payload::from(bytes), Durability::Volatile);
            self.submit_io(device, IoOwner::Band { band: key, column, part: None }, extent, op);
        }
        if self.bands[key].outstanding == 0 {
            self.written(key);
        }
    }

    fn write_copies(&mut self, key: usize) {
        let band = &self.bands[key];
        let source = band.plan.reads.lowest().expect("a resync reads a copy");
        let bytes = band.known[source].clone().expect("it was read");
        let mut columns = band.plan.writes;
        // A replacement beside the member that was read may have been filled from another copy; and what is returned to
        // a user may be there by a resync, in a cache.
        if band.settle || self.control.members.in_slot(band.stripe.columns[source].slot).count() > 1 {
            columns.insert(source);
        }
        let writes: SmallVec<[(usize, Bytes); 8]> = columns.iter().map(|column| (column, bytes.clone())).collect();
        self.write_columns(key, &writes);
    }

    fn write_parity(&mut self, key: usize, roles: &Roles) {
        let band = &self.bands[key];
        let data: SmallVec<[&[u8]; 16]> = band.known[..band.stripe.data_chunks]
            .iter()
            .map(|d| d.as_deref().expect("a resync reads all data"))
            .collect();
        let writes: SmallVec<[(usize, Bytes); 8]> =
            compute::encode(self.kernel, roles, &data, band.plan.writes).into_iter().collect();
        drop(data);
        self.write_columns(key, &writes);
    }

    // ---- writing ----

    /// Every device that has to get the rows of `columns`, and where.
    fn write_places(&self, key: usize, columns: ColumnSet) -> SmallVec<[(DeviceId, usize, Extent); 8]> {
        let band = &self.bands[key];
        let mut places = SmallVec::new();
        for at in columns.iter() {
            let column = &band.stripe.columns[at];
            for member in self.control.members.in_slot(column.slot) {
                let full = member.stale.is_empty();
                let missed = matches!(member.place, Place::Replacement(_))
                    && (mutant::is_on(Mutant::ReplacementMissesWrites) && !full
                        || mutant::is_on(Mutant::ReplacementWindow) && full && self.geometry.parity_count() == 0);
                if member.standing(column.base, &band.rows) != Standing::Stale && !missed {
                    places.push((member.device, at, member.on_device(column.base, &band.rows)));
                }
            }
        }
        places
    }

    fn write_columns(&mut self, key: usize, writes: &[(usize, Bytes)]) {
        let columns = writes.iter().map(|(column, _)| *column).collect();
        let places = self.write_places(key, columns);
        let band = &mut self.bands[key];
        band.phase = Phase::Writing;
        band.outstanding = places.len();
        let durability = band.durability;
        if places.is_empty() {
            self.bank.mark(Mark::WriteHadNoPlace);
            return self.written(key);
        }
        for (device, column, extent) in places {
            let (_, bytes) = writes.iter().find(|(at, _)| *at == column).expect("places are of these columns");
            let op = Op::Write(Payload::from(bytes.clone()), durability);
            self.submit_io(device, IoOwner::Band { band: key, column, part: None }, extent, op);
        }
    }

    fn write_done(&mut self, key: usize, device: DeviceId, column: usize, result: Result<(), IoError>) {
        if let Err(error) = result {
            if let Some(member) = self.control.members.get_mut(device) {
                member.errors.write += 1;
                if !member.serves() {
                    self.bank.mark(Mark::WriteOfFailedMember);
                }
            }
            let of_the_medium = matches!(error, IoError::Medium | IoError::NoSpace);
            if of_the_medium {
                self.bank.mark(if error == IoError::NoSpace { Mark::WriteNoSpace } else { Mark::WriteFailedOnMedium });
                self.bands[key].unwritten.push((device, column));
                if self.geometry.tolerance() == 0 {
                    self.bands[key].result = Err(error);
                }
            } else {
                self.bank.mark(Mark::WriteFailedMember);
                self.control.fail(device, false);
            }
        } else {
            let sectors = self.sectors_on(key, device, column);
            self.control.clear_bad_blocks(device, sectors);
        }
        let band = &mut self.bands[key];
        band.outstanding -= 1;
        if band.outstanding == 0 {
            self.written(key);
        }
    }

    /// Where a band's rows of a column lie on a device; nowhere, if it is no member any more.
    fn sectors_on(&self, key: usize, device: DeviceId, column: usize) -> Extent {
        let band = &self.bands[key];
        let base = band.stripe.columns[column].base;
        let nowhere = Extent::new(Lba(0), Sectors::ZERO);
        self.control.members.get(device).map_or(nowhere, |member| member.on_device(base, &band.rows))
    }

    /// All writes of a band came back.
    fn written(&mut self, key: usize) {
        if self.geometry.tolerance() > 0 && !mutant::is_on(Mutant::WriteErrorForgotten) {
            for (device, column) in self.bands[key].unwritten.clone() {
                let sectors = self.sectors_on(key, device, column);
                self.control.add_bad_blocks(device, sectors);
            }
        }
        match self.bands[key].intent {
            Intent::Write(chunks) => self.written_new(key, chunks),
            Intent::Read(_) => {
                self.bank.mark(Mark::SettleWroteCopies);
                self.resynced(key);
                self.deliver(key);
                self.record(key);
            }
            Intent::Resync => {
                self.resynced(key);
                if self.geometry.parity_count() == 0 {
                    let band = &self.bands[key];
                    let range = self.geometry.sync_range(band.index, band.rows.clone());
                    self.control.not_settled(range);
                }
                self.record(key);
            }
            Intent::Recover(_) if self.bands[key].mend => self.verify(key),
            Intent::Recover(_) => {
                for (device, column) in self.bands[key].targets.clone() {
                    self.mark_recovered(key, device, column);
                }
                self.record(key);
            }
            Intent::Check => self.record(key),
        }
    }

    fn written_new(&mut self, key: usize, chunks: ChunkSet) {
        let band = &self.bands[key];
        let plan = band.plan;
        for column in plan.poison.iter() {
            self.bank.mark(Mark::WritePoisonedParity);
            let slot = band.stripe.columns[column].slot;
            let devices: SmallVec<[DeviceId; 2]> = self.control.members.in_slot(slot).map(|m| m.device).collect();
            for device in devices {
                let sectors = self.sectors_on(key, device, column);
                self.control.add_bad_blocks(device, sectors);
            }
        }
        let band = &self.bands[key];
        let agrees = match plan.parity {
            Parity::Encode => true,
            // All copies of a mirror have just been written; a parity stripe without parity has nothing to agree.
            Parity::Keep => self.geometry.parity_count() == 0 && self.geometry.tolerance() > 0,
            Parity::Delta => {
                mutant::is_on(Mutant::DifferenceAgrees) || mutant::is_on(Mutant::DifferenceOnDoubtfulParity)
            }
        } || band.content != Content::Bytes;
        if agrees {
            self.resynced(key);
        }
        let band = &self.bands[key];
        let result = if band.result.is_err() {
            band.result
        } else if self.geometry.tolerance() == 0 {
            if self.control.is_failed() { Err(IoError::Offline) } else { Ok(()) }
        } else {
            self.still_readable(key, chunks)
        };
        if result.is_err() {
            self.bank.mark(Mark::WriteNotKept);
        }
        self.bands[key].result = result;
        self.record(key);
    }

    /// Whether what was just written can be had back, now that it is known which members took it.
    fn still_readable(&self, key: usize, chunks: ChunkSet) -> Result<(), IoError> {
        if self.control.is_failed() {
            return Err(IoError::Offline);
        }
        let band = &self.bands[key];
        let health = self.control.health(band.index, &band.stripe.columns, &band.rows, &[]);
        match plan::plan(&roles_of(band), &health, Prefer::First, Intent::Read(chunks)) {
            Ok(_) => Ok(()),
            Err(Unrecoverable(_)) => Err(IoError::Medium),
        }
    }

    fn resynced(&mut self, key: usize) {
        let band = &self.bands[key];
        let range = self.geometry.sync_range(band.index, band.rows.clone());
        self.control.resynced(range);
    }

    fn mark_recovered(&mut self, key: usize, device: DeviceId, column: usize) {
        let band = &self.bands[key];
        let base = band.stripe.columns[column].base.0;
        let data = base + band.rows.start..base + band.rows.end;
        self.control.recovered(device, data);
    }

    // ---- mending ----

    /// Reads back what was written over sectors that could not be read.
    fn verify(&mut self, key: usize) {
        let band = &mut self.bands[key];
        let (device, column) = band.targets[0];
        let failed = band.unwritten.contains(&(device, column));
        let serves = self.control.members.get(device).is_some_and(super::member::Member::serves);
        if failed || !serves {
            self.bank.mark(if failed { Mark::MendWriteFailed } else { Mark::MendLostMember });
            return self.record(key);
        }
        let band = &mut self.bands[key];
        band.phase = Phase::Verifying;
        band.outstanding = 1;
        let bytes = band.height();
        let sectors = self.sectors_on(key, device, column);
        let op = Op::Read(Buf::stale(bytes.at_grain(self.grain())));
        let owner = IoOwner::Band { band: key, column, part: None };
        self.submit_io(device, owner, sectors, op);
    }

    fn verified(&mut self, key: usize, device: DeviceId, result: Result<(), IoError>) {
        let (_, column) = self.bands[key].targets[0];
        let sectors = self.sectors_on(key, device, column);
        match result {
            Ok(()) => {
                self.bank.mark(Mark::Mended);
                let mut worn_out = false;
                if let Some(member) = self.control.members.get_mut(device) {
                    member.errors.corrected += 1;
                    worn_out = member.errors.corrected > READ_ERRORS_MAX;
                }
                self.control.note(Event::Corrected(device, sectors));
                // The count stands in its superblock.
                self.control.announce();
                if worn_out {
                    self.bank.mark(Mark::MemberWornOut);
                    self.control.fail(device, false);
                }
            }
            Err(IoError::Medium) => {
                self.bank.mark(Mark::MendReadBackFailed);
                self.control.add_bad_blocks(device, sectors);
            }
            Err(error) => self.read_failed(device, error),
        }
        self.record(key);
    }

    /// Sees to it that the sectors this band could not read are written again where they are.
    fn mend_unreadable(&mut self, key: usize) {
        if self.control.is_read_only() || self.control.is_failed() || self.geometry.tolerance() == 0 {
            return;
        }
        let band = &self.bands[key];
        let (index, rows, stripe) = (band.index, band.rows.clone(), band.stripe.clone());
        for (device, column) in band.unreadable.clone() {
            let sectors = self.sectors_on(key, device, column);
            if sectors.length == Sectors::ZERO || !self.mending.insert((device, index, rows.start)) {
                self.bank.mark(Mark::MendAlready);
                continue;
            }
            let intent = Intent::Recover(ColumnSet::only(column));
            let mut mend = Band::new(Purpose::Mend, intent, index, stripe.clone(), rows.clone());
            mend.mend = true;
            mend.targets.push((device, column));
            mend.excluded.push(device);
            let mend = self.bands.insert(mend);
            self.take_lock_later(mend);
        }
    }

    /// A lock asked for from within a band that may still hold one: it begins with the next turn.
    fn take_lock_later(&mut self, key: usize) {
        let band = &mut self.bands[key];
        band.access = Some(Access::Exclusive);
        band.exclusive = true;
        let (index, rows) = (band.index, band.rows.clone());
        if self.locks.acquire(index, rows, Access::Exclusive, key) {
            return self.granted.push(key);
        }
        self.bank.mark(Mark::MendWaited);
    }

    // ---- what cannot be had ----

    fn unrecoverable(&mut self, key: usize, lost: ChunkSet, trusted: bool) {
        let band = &self.bands[key];
        if band.height() > self.logical_block() && self.is_partial(band) {
            return self.halve(key);
        }
        match band.intent {
            Intent::Recover(_) if band.mend => {
                self.bank.mark(Mark::MendLost);
                self.finish(key, Ok(()));
            }
            Intent::Recover(targets) if trusted => self.lose(key, targets, lost),
            // Parity there was never made to agree with the data since a crash: what it says of a lost column may
            // be wrong. It is left as it is, and the volume stays degraded there.
            Intent::Recover(_) | Intent::Resync => {
                self.bank.mark(Mark::SyncBlocked);
                self.sync_blocked();
                self.finish(key, Ok(()));
            }
            Intent::Read(_) | Intent::Write(_) | Intent::Check => {
                self.bank.mark(Mark::BandLost);
                self.finish(key, Err(IoError::Medium));
            }
        }
    }

    /// Whether some rows of the band may be better off than others.
    fn is_partial(&self, band: &Band) -> bool {
        let mixed = |column: &super::geometry::Column| {
            let members = self.control.members.in_slot(column.slot);
            members
                .map(|member| member.standing(column.base, &band.rows))
                .any(|standing| matches!(standing, Standing::Bad | Standing::PartlyStale))
        };
        !band.excluded.is_empty()
            || band.stripe.columns.iter().any(mixed)
            || !self.control.is_trusted(band.index, &band.rows)
    }

    /// Exactly these sectors of the targets are lost: they are recorded as bad, and the rest goes on.
    fn lose(&mut self, key: usize, targets: ColumnSet, lost: ChunkSet) {
        self.bank.mark(Mark::RecoveryLostRows);
        let band = &self.bands[key];
        let roles = roles_of(band);
        let is_lost = |column: &usize| match roles[*column] {
            Role::Data { index, .. } => lost.contains(usize::from(index)),
            // Parity that needs a lost chunk cannot be computed either.
            Role::P | Role::Q => true,
        };
        let gone: ColumnSet = targets.iter().filter(is_lost).collect();
        let gone = if gone.is_empty() { targets } else { gone };
        let lost_targets: SmallVec<[(DeviceId, usize); 2]> =
            band.targets.iter().copied().filter(|(_, column)| gone.contains(*column)).collect();
        for (device, column) in lost_targets {
            let sectors = self.sectors_on(key, device, column);
            if !mutant::is_on(Mutant::LostNotRecorded) {
                self.control.add_bad_blocks(device, sectors);
            }
            self.mark_recovered(key, device, column);
        }
        let left = targets - gone;
        let band = &mut self.bands[key];
        band.targets.retain(|(_, column)| left.contains(*column));
        if left.is_empty() {
            return self.record(key);
        }
        band.intent = Intent::Recover(left);
        self.begin(key);
    }

    /// Two bands of half the height take over; this one waits for them, and keeps its lock.
    fn halve(&mut self, key: usize) {
        let block = self.logical_block();
        let grain = self.grain();
        let band = &mut self.bands[key];
        self.bank.mark(match band.intent {
            Intent::Read(_) => Mark::ReadHalved,
            Intent::Write(_) => Mark::WriteHalved,
            Intent::Recover(_) | Intent::Resync | Intent::Check => Mark::SyncHalved,
        });
        let middle = band.rows.start + (Sectors(band.height().0 / 2).round_down(block).max(block)).0;
        let split = Sectors(middle - band.rows.start).at_grain(grain);
        band.phase = Phase::Halved;
        band.halves = 2;
        band.known.fill(None);
        let mut halves = [(); 2].map(|()| SmallVec::new());
        for (chunk, piece, cargo) in &mut band.cargo {
            let (low, high) = match cargo {
                Cargo::Up(buf) => {
                    let mut low = std::mem::take(buf);
                    let high = low.split_off(split);
                    (Cargo::Up(low), Cargo::Up(high))
                }
                Cargo::Down(bytes) => (Cargo::Down(bytes.slice(..split)), Cargo::Down(bytes.slice(split..))),
            };
            halves[0].push((*chunk, *piece, low));
            halves[1].push((*chunk, *piece, high));
        }
        let (intent, index, stripe, rows) = (band.intent, band.index, band.stripe.clone(), band.rows.clone());
        let (content, durability, targets) = (band.content, band.durability, band.targets.clone());
        let (exclusive, mend) = (band.exclusive, band.mend);
        // A read that failed is tried again on fewer rows; what is to be mended is not to be read at all.
        let excluded = if mend { band.excluded.clone() } else { SmallVec::new() };
        for (half, cargo) in halves.into_iter().enumerate() {
            let rows = if half == 0 { rows.start..middle } else { middle..rows.end };
            let mut child =
                Band::new(Purpose::Half { of: key, second: half == 1 }, intent, index, stripe.clone(), rows);
            child.cargo = cargo;
            child.content = content;
            child.durability = durability;
            child.targets = targets.clone();
            // It works under its parent's lock.
            child.exclusive = exclusive;
            child.mend = mend;
            child.excluded = excluded.clone();
            let child = self.bands.insert(child);
            self.granted.push(child);
        }
    }

    // ---- the end ----

    /// Last station: a failure on the way has to be on record before anybody is told that all is well.
    fn record(&mut self, key: usize) {
        let band = &mut self.bands[key];
        match self.control.record() {
            Some(epoch) => {
                self.bank.mark(Mark::RecordWaited);
                band.phase = Phase::Recording;
                self.waiting.push((epoch, Waiter::Record(key)));
            }
            None => {
                let unsettled = band.settle && self.control.is_failed();
                let result = if unsettled { Err(IoError::Offline) } else { band.result };
                self.finish(key, result);
            }
        }
    }

    /// The record a band waited for is durable, or the array failed meanwhile.
    pub(super) fn recorded(&mut self, key: usize) {
        if let Some(epoch) = self.control.record() {
            self.bank.mark(Mark::RecordWaitedAgain);
            self.waiting.push((epoch, Waiter::Record(key)));
            return;
        }
        let band = &self.bands[key];
        let lost = self.control.is_failed() && (matches!(band.intent, Intent::Write(_)) || band.settle);
        let result = if lost { Err(IoError::Offline) } else { band.result };
        if lost {
            self.bank.mark(Mark::WriteUnrecorded);
        }
        self.finish(key, result);
    }

    /// The band is over.
    pub(super) fn finish(&mut self, key: usize, result: Result<(), IoError>) {
        if result.is_ok() && !self.bands[key].unreadable.is_empty() && !self.bands[key].mend {
            self.mend_unreadable(key);
        }
        let band = self.bands.remove(key);
        if let Some(range) = &band.gate {
            self.control.end_write(range, self.now);
        }
        if band.access.is_some() {
            self.locks.release(band.index, key, &mut self.granted);
        }
        match band.purpose {
            Purpose::User { request } => self.user_band_done(request, band.cargo, result),
            Purpose::Half { of, second } => self.half_done(of, second, band.cargo, result),
            Purpose::Sync => self.sync_band_done(&band, result),
            Purpose::Mend => {
                let (device, _) = band.targets[0];
                self.mending.remove(&(device, band.index, band.rows.start));
            }
        }
    }

    fn half_done(
        &mut self,
        key: usize,
        second: bool,
        cargo: SmallVec<[(usize, usize, Cargo); 2]>,
        result: Result<(), IoError>,
    ) {
        let band = &mut self.bands[key];
        for ((_, _, mine), (_, _, half)) in band.cargo.iter_mut().zip(cargo) {
            if let (Cargo::Up(whole), Cargo::Up(half)) = (mine, half) {
                let whole_now = std::mem::take(whole);
                let (mut low, high) = if second { (whole_now, half) } else { (half, whole_now) };
                low.append(high);
                *whole = low;
            }
        }
        if result.is_err() {
            self.bank.mark(Mark::HalfFailed);
        }
        band.result = band.result.and(result);
        band.halves -= 1;
        if band.halves == 0 {
            let result = band.result;
            band.unreadable.clear();
            self.finish(key, result);
        }
    }
}
