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
        let mut inflight = std::mem::take(&mut self.inflight).into_vec();
        inflight.sort_by_key(|each| each.submitted);
        for each in inflight.iter_mut().filter(|each| each.device == device && each.hung.is_none()) {
            disk.leave_hanging(each, timeout, now, stamp);
        }
        self.inflight = inflight.into();
    }

    /// Ends a [`hang`](SimBank::hang): new requests are answered; those that hang are not.
    pub fn end_hang(&mut self, device: DeviceId) {
        self.disk_mut(device).hang = None;
    }

    /// Whether `device` hangs.
    pub fn is_hung(&self, device: DeviceId) -> bool {
        self.disk(device).hang.is_some()
    }

    /// From now on requests of `device` take `factor` times as long; 1 ends it.
    pub fn slow(&mut self, device: DeviceId, factor: u32) {
        assert!(factor > 0, "{device:?} cannot take no time");
        self.disk_mut(device).slowness = factor;
    }

    /// The next `n` flushes and writes with force unit access of `device` fail with a medium error, and
    /// each takes everything with it that is in the cache: older versions come back, and the flush
    /// after them succeeds (as after a failed `fsync`; Rebello et al., ATC '20).
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
    }

    fn limit_space(&mut self) {
        let mut without = self.media.unwritten();
        for write in self.cache.iter().filter(|write| write.data.is_some()) {
            without.remove(self.media.pages(write.extent).range());
        }
        self.without_space = Some(without);
    }
}
