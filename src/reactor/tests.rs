//! The loop, with a volume in memory behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use super::*;
use crate::block::{Buf, Durability, Extent, Lba, Limits, Payload, Sectors, State, States};
use crate::disk::MemBank;

struct Flat(MemBank);

impl Bank for Flat {
    fn limits(&self, device: DeviceId) -> Limits {
        self.0.limits(device)
    }
    fn submit(&mut self, device: DeviceId, request: Request, now: Instant) {
        self.0.submit(device, request, now);
    }
    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        self.0.poll(now, done);
    }
    fn next_deadline(&self) -> Option<Instant> {
        self.0.next_deadline()
    }
}

impl Wakeups for Flat {
    fn wakeups(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        Vec::new()
    }
}

impl States for Flat {
    fn states(&self, extent: Extent) -> Vec<(Sectors, State)> {
        vec![(extent.length, State::InSync)]
    }
}

#[test]
fn other_threads_write_and_read_through_handles_until_the_loop_ends() {
    let mut bank = MemBank::new();
    let device = bank.add(Limits::of_disk(Sectors(1024)));
    let (handle, mut inbox) = Handle::new().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let ask = |handle: &Handle, extent, op| {
        let (sender, receiver) = channel();
        handle.submit(extent, op, move |completion| drop(sender.send(completion))).unwrap();
        receiver.recv().unwrap()
    };
    let threads = (0..4_u8).map(|number| {
        let handle = handle.clone();
        std::thread::spawn(move || {
            for round in 0..50 {
                let extent = Extent::new(Lba(u64::from(number) * 256 + round), Sectors(1));
                let write = Op::Write(Payload::copy_of(&[number + 1; 512]), Durability::Volatile);
                assert_eq!(ask(&handle, extent, write).result, Ok(()));
                let Op::Read(buf) = ask(&handle, extent, Op::Read(Buf::zeroed(512))).op else {
                    panic!("a read is one")
                };
                assert_eq!(buf.to_vec(), [number + 1; 512]);
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    let watcher = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            done.store(true, Ordering::Release);
        }
    });

    let mut reactor = Reactor::new(Flat(bank));
    let mut fronts: [&mut dyn FrontEnd; 1] = [&mut inbox];
    let mut service = Service::begin(&reactor, device, &mut fronts).unwrap();
    while !service.is_over(&reactor, &fronts) {
        service.turn(&mut reactor, &mut fronts);
        if done.load(Ordering::Acquire) {
            service.stop(&reactor, &mut fronts);
        }
        service.wait(&reactor, &mut fronts).unwrap();
    }
    service.end(&mut reactor, &mut fronts);

    watcher.join().unwrap();
    assert!(inbox.is_stopped());
    drop(inbox);
    assert_eq!(handle.submit(Extent::new(Lba(0), Sectors(1)), Op::Discard, drop), Err(Stopped));
}
