//! What can be done to simulated disks besides using them.
//!
//! [`Fault`](crate::disk::Fault) breaks single requests and is the same everywhere. Here is what takes
//! the inside of a disk: its medium, its cache, its clock. Each of these lasts until it is ended,
//! through power cuts too, and each disk draws from its own stream.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cache::cut_out;
use super::media::Media;
use super::{Disk, InFlight, SimBank};
use crate::block::{DeviceId, Extent, Instant, Lba, Payload, Sectors};

/// What is on the medium of a disk, kept apart from it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    media: Media,
    unreadable: BTreeSet<u64>,
}

/// What a disk does with a request it will not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hung {
    Dropped,
    /// It was carried out when it came, or when the disk hung.
    CarriedOut,
    /// It is carried out when nobody waits any more.
    CarriedOutLate,
}

impl SimBank {
    fn disk(&self, device: DeviceId) -> &Disk {
        &self.disks[device.0 as usize]
    }

    fn disk_mut(&mut self, device: DeviceId) -> &mut Disk {
        &mut self.disks[device.0 as usize]
    }

    /// Changes the medium from `start` on behind everyone's back, cache and all; whole sectors of one area.
    pub fn write_media(&mut self, device: DeviceId, start: Lba, bytes: &[u8]) {
        let disk = self.disk_mut(device);
        let grain = disk.media.grain(Extent::new(start, Sectors(1))) as usize;
        assert!(bytes.len().is_multiple_of(grain), "{} bytes are not whole sectors of {grain}", bytes.len());
        let extent = Extent::new(start, Sectors((bytes.len() / grain) as u64));
        disk.media.grain(extent);
        cut_out(&mut disk.cache, extent);
        disk.land(extent, Some(&Payload::copy_of(bytes)));
    }

    /// From now on every request of `device` ends with [`IoError::Offline`](crate::block::IoError), those
    /// in flight included.
    pub fn fail_stop(&mut self, device: DeviceId) {
        self.disk_mut(device).online = false;
    }

    /// Ends a [`fail_stop`](SimBank::fail_stop): the disk is back with what it held.
    pub fn bring_back(&mut self, device: DeviceId) {
        self.disk_mut(device).online = true;
    }

    /// Whether `device` answers.
    pub fn is_online(&self, device: DeviceId) -> bool {
        self.disk(device).online
    }

    /// From now on `device` answers nothing: its requests, those in flight included, end with
    /// [`IoError::Timeout`](crate::block::IoError) `timeout` after they were submitted, as the block
    /// layer above a silent disk ends them. Whether one was carried out, at once, at that moment or
    /// never, is drawn.
    pub fn hang(&mut self, device: DeviceId, timeout: Duration) {
        let (now, stamp) = (self.now, self.stamp);
        let disk = &mut self.disks[device.0 as usize];
        disk.hang = Some(timeout);
        for mut each in self.inflight.take_all() {
            if each.device == device && each.hung.is_none() {
                disk.leave_hanging(&mut each, timeout, now, stamp);
            }
            self.inflight.push(each.due, each);
        }
    }

    /// Ends a [`hang`](SimBank::hang): new requests are answered; those that hang are not.
    pub fn end_hang(&mut self, device: DeviceId) {
        self.disk_mut(device).hang = None;
    }

    /// Whether `device` hangs, or requests still do that it left hanging.
    pub fn is_hung(&self, device: DeviceId) -> bool {
        self.disk(device).hang.is_some() || self.disk(device).hanging > 0
    }

    /// Whether requests of `device` may fail for what was done to it here.
    pub fn may_fail(&self, device: DeviceId) -> bool {
        let disk = self.disk(device);
        !disk.online || disk.flushes_to_fail > 0 || disk.without_space.is_some() || self.is_hung(device)
    }

    /// Whether requests of `device` take longer than they should.
    pub fn is_slow(&self, device: DeviceId) -> bool {
        self.disk(device).slowness > 1
    }

    /// From now on requests of `device` take `factor` times as long; 1 ends it.
    pub fn slow(&mut self, device: DeviceId, factor: u32) {
        assert!(factor > 0, "{device:?} cannot take no time");
        self.disk_mut(device).slowness = factor;
    }

    /// The next `n` flushes of `device` fail with a medium error, and each takes everything with it that is
    /// in the cache: older versions come back, and the flush after them succeeds (as after a failed `fsync`;
    /// Rebello et al., ATC '20).
    pub fn fail_flushes(&mut self, device: DeviceId, n: u64) {
        self.disk_mut(device).flushes_to_fail = n;
    }

    /// From now on writes, and writes of zeroes, to sectors of `device` that were never written fail for
    /// lack of space, as on a sparse image in a full file system. Counted in pages of 4 KiB of media, of
    /// which a sector takes its grain; a page that was zeroed as a whole counts as never written. A
    /// discard needs no space, and what it gives back is there for the next write.
    pub fn limit_space(&mut self, device: DeviceId) {
        self.disk_mut(device).limit_space();
    }

    /// Ends a [`limit_space`](SimBank::limit_space).
    pub fn unlimit_space(&mut self, device: DeviceId) {
        self.disk_mut(device).without_space = None;
    }

    /// Makes `extent` unreadable, each sector until it is written. Outlives a power cut.
    pub fn fail_medium(&mut self, device: DeviceId, extent: Extent) {
        self.disk_mut(device).medium_errors.extend(extent.range());
    }

    /// Whether a read of `extent` would meet an unreadable sector.
    pub fn is_unreadable(&self, device: DeviceId, extent: Extent) -> bool {
        self.disk(device).is_unreadable(extent)
    }

    /// What `device` holds now, its cache written back.
    pub fn snapshot(&self, device: DeviceId) -> Snapshot {
        let mut disk = self.disk(device).clone();
        for write in std::mem::take(&mut disk.cache) {
            disk.land(write.extent, write.data.as_ref());
        }
        Snapshot { media: disk.media, unreadable: disk.medium_errors }
    }

    /// Makes `device` hold what `snapshot` holds, with an empty cache; it is of a disk of the same size,
    /// metadata and grain. Requests in flight meet what they find.
    pub fn restore(&mut self, device: DeviceId, snapshot: Snapshot) {
        let disk = self.disk_mut(device);
        assert!(disk.media.is_shaped_like(&snapshot.media), "{device:?} is not a disk like that of the snapshot");
        disk.media = snapshot.media;
        disk.medium_errors = snapshot.unreadable;
        disk.cache.clear();
        if disk.without_space.is_some() {
            disk.limit_space();
        }
    }

    /// What two disks of one kind hold changes places, cached writes and all: somebody has mixed up the
    /// cables.
    pub fn swap(&mut self, a: DeviceId, b: DeviceId) {
        if a == b {
            return;
        }
        let both = self.disks.get_disjoint_mut([a.0 as usize, b.0 as usize]);
        let [a, b] = both.expect("both are disks of the bank");
        assert!(a.media.is_shaped_like(&b.media), "the two disks are not of one kind");
        std::mem::swap(&mut a.media, &mut b.media);
        std::mem::swap(&mut a.medium_errors, &mut b.medium_errors);
        std::mem::swap(&mut a.without_space, &mut b.without_space);
        std::mem::swap(&mut a.cache, &mut b.cache);
        std::mem::swap(&mut a.settled, &mut b.settled);
    }

    /// Makes `to` a duplicate of `from`, down to its names.
    pub fn copy(&mut self, from: DeviceId, to: DeviceId) {
        self.restore(to, self.snapshot(from));
    }
}

impl Disk {
    /// Decides what becomes of a request that will time out.
    pub(super) fn leave_hanging(&mut self, inflight: &mut InFlight, timeout: Duration, now: Instant, stamp: u64) {
        let hung = [Hung::Dropped, Hung::CarriedOut, Hung::CarriedOutLate][self.rng.below(3) as usize];
        inflight.due = (inflight.begun + timeout).max(now);
        inflight.effect = if hung == Hung::CarriedOutLate { inflight.due } else { now };
        if hung == Hung::CarriedOut {
            // Whether it succeeds is not told.
            let _ = self.carry_out(inflight, stamp);
        }
        inflight.hung = Some(hung);
        self.hanging += 1;
    }

    fn limit_space(&mut self) {
        let mut without = self.media.unwritten();
        for write in self.cache.iter().filter(|write| write.data.is_some()) {
            without.remove(self.media.pages(write.extent).range());
        }
        self.without_space = Some(without);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::block::{Bank, Buf, Durability, IoError, Op, Request, RequestId};
    use crate::sim::disk::tests::{DISK, bank, do_one, extent, first_bytes, read, run, write};
    use crate::sim::{CacheLoss, DiskModel, Rng};

    const OTHER: DeviceId = DeviceId(1);
    const PATIENCE: Duration = Duration::from_millis(50);

    fn at(milliseconds: u64) -> Instant {
        Instant::START + Duration::from_millis(milliseconds)
    }

    fn results(bank: &mut SimBank) -> Vec<Result<(), IoError>> {
        run(bank).into_iter().map(|completion| completion.result).collect()
    }

    #[test]
    fn a_disk_that_hangs_times_out_what_is_in_flight_and_what_comes_until_it_is_ended() {
        let mut bank = bank();
        bank.submit(DISK, write(20, 1, 1, Durability::Volatile), Instant::START);
        bank.hang(DISK, PATIENCE);
        bank.submit(DISK, Request::flush(RequestId(2)), Instant::START);
        bank.submit(DISK, Request::new(RequestId(3), extent(20, 1), Op::Read(Buf::zeroed(64))), at(1));
        bank.submit(DISK, write(63, 2, 4, Durability::Volatile), at(2));
        assert!(bank.is_hung(DISK));
        assert_eq!(bank.next_deadline(), Some(at(50)));
        bank.end_hang(DISK);
        bank.submit(DISK, write(21, 1, 5, Durability::Volatile), at(3));
        assert_eq!(results(&mut bank), [vec![Ok(())], vec![Err(IoError::Timeout); 4]].concat());
        assert_eq!(bank.now, at(52));
        assert!(!bank.is_hung(DISK));
    }

    /// Asked before the disk hangs, at once after, and when the write has timed out.
    #[test]
    fn a_hung_write_happened_at_once_or_at_its_timeout_or_never() {
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            for late in [false, true] {
                let mut bank = SimBank::new(seed);
                bank.add_disk(DiskModel::small(Sectors(64), Sectors(16)));
                if late {
                    bank.hang(DISK, PATIENCE);
                }
                bank.submit(DISK, write(20, 1, 7, Durability::Fua), Instant::START);
                bank.hang(DISK, PATIENCE);
                let at_once = first_bytes(&bank, 20, 1)[0];
                let mut cut = bank.clone();
                cut.power_cut(CacheLoss::DropAll, &mut Rng::new(seed, 9));
                assert_eq!(first_bytes(&cut, 20, 1)[0], at_once);
                assert_eq!(results(&mut bank), [Err(IoError::Timeout)]);
                let at_last = first_bytes(&bank, 20, 1)[0];
                seen.insert((late, at_once, at_last));
            }
        }
        let each = |late| [(late, 0, 0), (late, 0, 7), (late, 7, 7)];
        assert!(seen.iter().eq(&[each(false), each(true)].concat()), "{seen:?}");
    }

    #[test]
    fn a_disk_that_stopped_is_offline_and_does_not_time_out() {
        let mut bank = bank();
        bank.hang(DISK, PATIENCE);
        bank.submit(DISK, write(20, 1, 1, Durability::Volatile), Instant::START);
        bank.fail_stop(DISK);
        assert_eq!(results(&mut bank), [Err(IoError::Offline)]);
    }

    #[test]
    fn a_slow_disk_takes_its_factor_as_long() {
        let took = |factor| {
            let mut bank = bank();
            bank.slow(DISK, factor);
            do_one(&mut bank, write(20, 1, 1, Durability::Volatile));
            bank.now.since(Instant::START)
        };
        assert_eq!(took(1000), took(1) * 1000);
        let mut bank = bank();
        bank.slow(DISK, 1000);
        bank.slow(DISK, 1);
        do_one(&mut bank, write(20, 1, 1, Durability::Volatile));
        assert_eq!(bank.now.since(Instant::START), took(1));
    }

    #[test]
    fn a_failed_flush_takes_the_cache_with_it_and_the_next_one_succeeds() {
        let mut bank = bank();
        do_one(&mut bank, write(20, 2, 1, Durability::Fua));
        do_one(&mut bank, write(21, 2, 2, Durability::Volatile));
        bank.fail_flushes(DISK, 1);
        assert_eq!(do_one(&mut bank, Request::flush(RequestId(1))).result, Err(IoError::Medium));
        assert_eq!(read(&mut bank, 20, 3), [[1; 64], [1; 64], [0; 64]].concat());
        assert_eq!(do_one(&mut bank, Request::flush(RequestId(3))).result, Ok(()));
        assert_eq!(first_bytes(&bank, 20, 3), [1, 1, 0]);
    }

    /// A page of media is 8 sectors of metadata, or 64 of data.
    #[test]
    fn without_space_only_what_was_written_before_can_be_written() {
        let mut bank = SimBank::new(1);
        bank.add_disk(DiskModel::small(Sectors(16 + 256), Sectors(16)));
        bank.write_media(DISK, Lba(8), &[1; 512]);
        do_one(&mut bank, write(16 + 70, 1, 1, Durability::Fua));
        do_one(&mut bank, write(16 + 191, 1, 1, Durability::Volatile));
        bank.limit_space(DISK);

        let attempt = |bank: &mut SimBank, start, length| {
            do_one(bank, write(start, length, 2, Durability::Volatile)).result.is_ok()
        };
        let fits = [(8, 8), (16 + 64, 128), (16 + 191, 1)];
        assert!(fits.into_iter().all(|(start, length)| attempt(&mut bank, start, length)));
        let full = [(0, 1), (7, 2), (16, 1), (16 + 63, 2), (16 + 191, 2), (16 + 255, 1)];
        assert!(!full.into_iter().any(|(start, length)| attempt(&mut bank, start, length)));
        let zeroes = Request::new(RequestId(1), extent(0, 1), Op::WriteZeroes(Durability::Volatile));
        assert_eq!(do_one(&mut bank, zeroes).result, Err(IoError::NoSpace));
        let discard = Request::new(RequestId(1), extent(0, 100), Op::Discard);
        assert_eq!(do_one(&mut bank, discard).result, Ok(()));
        assert!(attempt(&mut bank, 8, 1) && !attempt(&mut bank, 7, 1));
        assert_eq!(first_bytes(&bank, 16, 1), [0]);

        bank.unlimit_space(DISK);
        assert!(full.into_iter().all(|(start, length)| attempt(&mut bank, start, length)));
    }

    #[test]
    fn an_image_comes_back_as_it_was_read_when_it_was_taken() {
        let mut bank = bank();
        do_one(&mut bank, write(20, 4, 1, Durability::Fua));
        do_one(&mut bank, write(21, 1, 2, Durability::Volatile));
        bank.fail_medium(DISK, extent(30, 1));
        let snapshot = bank.snapshot(DISK);
        assert_eq!(first_bytes(&bank, 20, 4), [1; 4], "the disk itself is as it was");
        do_one(&mut bank, write(20, 12, 3, Durability::Fua));
        do_one(&mut bank, write(20, 1, 4, Durability::Volatile));
        assert!(!bank.is_unreadable(DISK, extent(30, 1)));

        bank.restore(DISK, snapshot);
        assert_eq!(first_bytes(&bank, 20, 4), [1, 2, 1, 1]);
        assert_eq!(read(&mut bank, 20, 4)[64..128], [2; 64]);
        assert!(bank.unsettled(DISK).is_empty() && bank.is_unreadable(DISK, extent(30, 1)));
    }

    #[test]
    fn two_disks_change_places_and_one_becomes_the_double_of_the_other() {
        let mut bank = bank();
        bank.add_disk(DiskModel::small(Sectors(64), Sectors(16)));
        do_one(&mut bank, write(20, 1, 1, Durability::Volatile));
        bank.fail_medium(DISK, extent(40, 1));
        bank.write_media(OTHER, Lba(20), &[2; 64]);

        bank.swap(DISK, OTHER);
        let byte = |bank: &SimBank, device| bank.peek(device, extent(20, 1))[0];
        assert_eq!((byte(&bank, DISK), byte(&bank, OTHER)), (2, 1));
        assert!(bank.is_unreadable(OTHER, extent(40, 1)) && !bank.is_unreadable(DISK, extent(40, 1)));
        assert_eq!((bank.unsettled(DISK), bank.unsettled(OTHER)), (vec![], vec![extent(20, 1)]));

        bank.copy(OTHER, DISK);
        assert_eq!((byte(&bank, DISK), byte(&bank, OTHER)), (1, 1));
        assert!(bank.is_unreadable(DISK, extent(40, 1)));
        do_one(&mut bank, write(20, 1, 3, Durability::Fua));
        assert_eq!((byte(&bank, DISK), byte(&bank, OTHER)), (3, 1));
    }

    /// All of it at once: a clone goes on as the original does.
    #[test]
    fn a_clone_of_a_broken_disk_has_the_same_future() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed, 0);
            let mut bank = SimBank::new(seed);
            bank.add_disk(DiskModel::small(Sectors(64), Sectors(16)));
            let live = |bank: &mut SimBank, rng: &mut Rng| {
                for byte in 0..20 {
                    match rng.below(8) {
                        0 => bank.hang(DISK, PATIENCE),
                        1 => bank.end_hang(DISK),
                        2 => bank.slow(DISK, 1 + rng.below(9) as u32),
                        3 => bank.fail_flushes(DISK, rng.below(2)),
                        4 => bank.limit_space(DISK),
                        5 => bank.submit(DISK, Request::flush(RequestId(0)), bank.now),
                        _ => bank.submit(DISK, write(16 + rng.below(40), 3, byte, Durability::Volatile), bank.now),
                    }
                }
                (results(bank), bank.trace())
            };
            live(&mut bank, &mut rng);
            let (mut clone, mut again) = (bank.clone(), rng.clone());
            assert_eq!(live(&mut bank, &mut rng), live(&mut clone, &mut again));
        }
    }
}
