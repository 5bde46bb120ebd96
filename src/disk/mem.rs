//! Disks in memory: for no files at all, and the plainest bank there is.

use std::os::fd::BorrowedFd;

use crate::block::Wakeups;
use crate::block::{Bank, Completion, DeviceId, Instant, IoError, Limits, Op, Request};

/// A bank of disks whose sectors are bytes of this process. Everything is done when it is
/// submitted; `poll` hands the completions over.
#[derive(Clone, Debug, Default)]
pub struct MemBank {
    disks: Vec<(Limits, Vec<u8>)>,
    done: Vec<(DeviceId, Completion)>,
}

impl MemBank {
    /// A bank without disks.
    pub fn new() -> MemBank {
        MemBank::default()
    }

    /// Adds a disk full of zeroes.
    pub fn add(&mut self, limits: Limits) -> DeviceId {
        self.disks.push((limits, vec![0; limits.capacity.bytes() as usize]));
        DeviceId(self.disks.len() as u32 - 1)
    }

    /// The bytes of a disk.
    pub fn bytes(&self, device: DeviceId) -> &[u8] {
        &self.disks[device.0 as usize].1
    }

    /// The bytes of a disk, to be changed behind everyone's back.
    pub fn bytes_mut(&mut self, device: DeviceId) -> &mut [u8] {
        &mut self.disks[device.0 as usize].1
    }
}

fn carry_out(bytes: &mut [u8], request: &mut Request) -> Result<(), IoError> {
    let start = request.extent.start.bytes() as usize;
    let range = start..start + request.extent.length.bytes() as usize;
    match &mut request.op {
        Op::Read(buf) => buf.copy_from(&bytes[range]),
        Op::Write(payload, _) => {
            let mut at = start;
            for slice in payload.slices() {
                bytes[at..at + slice.len()].copy_from_slice(slice);
                at += slice.len();
            }
        }
        Op::WriteZeroes(_) | Op::Discard => bytes[range].fill(0),
        Op::Flush => {}
    }
    Ok(())
}

impl Bank for MemBank {
    fn limits(&self, device: DeviceId) -> Limits {
        self.disks[device.0 as usize].0
    }

    fn submit(&mut self, device: DeviceId, mut request: Request, _now: Instant) {
        let (limits, bytes) = &mut self.disks[device.0 as usize];
        let result = match limits.refuse(&request) {
            Some(error) => Err(error),
            None => carry_out(bytes, &mut request),
        };
        self.done.push((device, request.complete(result)));
    }

    fn poll(&mut self, _now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        done.append(&mut self.done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        (!self.done.is_empty()).then_some(Instant::START)
    }
}

impl Wakeups for MemBank {
    fn wakeups(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Buf, Durability, Extent, Lba, Payload, RequestId, Sectors};

    #[test]
    fn what_was_written_is_read_and_nothing_beyond_the_end_is_taken() {
        let mut bank = MemBank::new();
        let disk = bank.add(Limits::of_disk(Sectors(16)));
        let write = Op::Write(Payload::copy_of(&[7; 1024]), Durability::Volatile);
        bank.submit(disk, Request::new(RequestId(1), Extent::new(Lba(14), Sectors(2)), write.clone()), Instant::START);
        bank.submit(disk, Request::new(RequestId(2), Extent::new(Lba(15), Sectors(2)), write), Instant::START);
        let read = Op::Read(Buf::zeroed(1024));
        bank.submit(disk, Request::new(RequestId(3), Extent::new(Lba(13), Sectors(2)), read), Instant::START);
        let mut done = Vec::new();
        bank.poll(Instant::START, &mut done);
        let results: Vec<_> = done.iter().map(|(_, c)| (c.id.0, c.result)).collect();
        assert_eq!(results, [(1, Ok(())), (2, Err(IoError::OutOfRange)), (3, Ok(()))]);
        let Op::Read(buf) = &done[2].1.op else { panic!("a read comes back as a read") };
        assert_eq!(buf.to_vec(), [[0; 512], [7; 512]].concat());
    }
}
