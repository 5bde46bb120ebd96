//! Faults, armed by their words, over disks in memory.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::disk::MemBank;

const DISK: DeviceId = DeviceId(0);
const SECTORS: u64 = 64;

fn at(milliseconds: u64) -> Instant {
    Instant::START + Duration::from_millis(milliseconds)
}

fn extent(start: u64, length: u64) -> Extent {
    Extent::new(Lba(start), Sectors(length))
}

/// Two disks with faults, asked one request at a time.
#[derive(Clone)]
struct Rig {
    bank: Fault<MemBank>,
    now: Instant,
    next_id: u64,
}

impl Rig {
    fn new() -> Rig {
        let mut disks = MemBank::new();
        disks.add(Limits::of_disk(Sectors(SECTORS)));
        disks.add(Limits::of_disk(Sectors(SECTORS)));
        Rig { bank: Fault::new(disks), now: Instant::START, next_id: 0 }
    }

    fn with(fault: &str) -> Rig {
        let mut rig = Rig::new();
        rig.arm(fault);
        rig
    }

    fn arm(&mut self, fault: &str) -> FaultId {
        self.bank.arm(DISK, fault.parse().unwrap(), self.now).unwrap()
    }

    fn submit(&mut self, device: DeviceId, extent: Extent, op: Op) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.bank.submit(device, Request { id, extent, op }, self.now);
        id
    }

    fn poll(&mut self) -> Vec<Completion> {
        let mut done = Vec::new();
        self.bank.poll(self.now, &mut done);
        done.into_iter().map(|(_, completion)| completion).collect()
    }

    fn run(&mut self, device: DeviceId, extent: Extent, op: Op) -> Completion {
        let id = self.submit(device, extent, op);
        let mut done = self.poll();
        assert_eq!(done.len(), 1, "one completion per request");
        assert_eq!(done[0].id, id);
        done.remove(0)
    }

    fn write(&mut self, start: u64, length: u64, byte: u8) -> Result<(), IoError> {
        let payload = Payload::copy_of(&vec![byte; (length * 512) as usize]);
        let done = self.run(DISK, extent(start, length), Op::Write(payload.clone(), Durability::Volatile));
        let Op::Write(back, Durability::Volatile) = done.op else { panic!("a write comes back as a write") };
        assert_eq!(back, payload);
        done.result
    }

    fn read(&mut self, start: u64, length: u64) -> Result<Vec<u8>, IoError> {
        let done = self.run(DISK, extent(start, length), Op::Read(Buf::zeroed((length * 512) as usize)));
        let Op::Read(buf) = done.op else { panic!("a read comes back as a read") };
        done.result.map(|()| buf.to_vec())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.run(DISK, extent(0, 0), Op::Flush).result
    }

    /// First byte of each sector below the faults.
    fn stored(&self) -> Vec<u8> {
        self.bank.inner().bytes(DISK).chunks(512).map(|sector| sector[0]).collect()
    }
}

#[test]
fn a_device_without_faults_is_not_touched_by_those_of_another() {
    let mut rig = Rig::with("fail-stop");
    let other = DeviceId(1);
    assert_eq!(rig.run(other, extent(0, 1), Op::Read(Buf::zeroed(512))).result, Ok(()));
    assert_eq!(rig.read(0, 1), Err(IoError::Offline));
    assert!(rig.bank.is_armed(DISK) && !rig.bank.is_armed(other));
}

#[test]
fn a_late_completion_comes_when_it_is_due_and_the_deadline_says_so() {
    let mut rig = Rig::with("latency=10ms");
    rig.submit(DISK, extent(0, 0), Op::Flush);
    assert!(rig.poll().is_empty());
    assert_eq!(rig.bank.next_deadline(), Some(at(10)));
    rig.now = at(9);
    assert!(rig.poll().is_empty());
    rig.now = at(10);
    assert_eq!(rig.poll().len(), 1);
    assert_eq!((rig.poll().len(), rig.bank.next_deadline()), (0, None));
}

#[test]
fn delays_add_up_and_outlive_their_fault() {
    let mut rig = Rig::with("latency=10ms");
    let second = rig.arm("latency=5ms");
    rig.submit(DISK, extent(0, 0), Op::Flush);
    assert!(rig.poll().is_empty());
    rig.bank.disarm(second);
    assert_eq!(rig.bank.next_deadline(), Some(at(15)));
}

#[test]
fn an_unreadable_sector_fails_the_whole_read_until_it_is_written() {
    let mut rig = Rig::with("medium --range 2K..3K");
    assert_eq!(rig.read(0, 8), Err(IoError::Medium));
    assert!(rig.read(0, 4).is_ok() && rig.read(6, 2).is_ok());
    assert_eq!(rig.write(5, 1, 7), Ok(()));
    assert_eq!(rig.read(4, 2), Err(IoError::Medium));
    assert_eq!(rig.read(5, 1).unwrap()[0], 7);
    rig.run(DISK, extent(4, 1), Op::WriteZeroes(Durability::Volatile));
    assert!(rig.read(0, 8).is_ok());
}

#[test]
fn a_sticky_unreadable_sector_stays_unreadable() {
    let mut rig = Rig::with("medium=sticky --range 2K..3K");
    assert_eq!(rig.write(0, 8, 7), Ok(()));
    assert_eq!(rig.read(4, 1), Err(IoError::Medium));
}

#[test]
fn a_failed_write_stores_nothing_and_mends_nothing() {
    let mut rig = Rig::with("write-medium --range 0..1K");
    rig.arm("medium");
    assert_eq!(rig.write(1, 3, 7), Err(IoError::Medium));
    assert_eq!(rig.stored(), vec![0; SECTORS as usize]);
    assert_eq!(rig.read(2, 1), Err(IoError::Medium));
}

#[test]
fn a_transient_error_is_gone_after_its_count() {
    let mut rig = Rig::with("transient=2 --range 0..4K");
    assert!(rig.read(8, 1).is_ok());
    assert_eq!(rig.read(0, 1), Err(IoError::Medium));
    assert_eq!(rig.write(7, 2, 1), Err(IoError::Medium));
    assert!(rig.read(0, 1).is_ok());
}

#[test]
fn a_torn_write_stores_its_first_sectors_and_fails() {
    let mut rig = Rig::with("torn=2");
    assert_eq!(rig.write(4, 4, 7), Err(IoError::Medium));
    assert_eq!(rig.stored()[..8], [0, 0, 0, 0, 7, 7, 0, 0]);
    assert_eq!(rig.write(4, 2, 9), Ok(()), "short enough to be stored");
    assert_eq!(rig.bank.list()[0].strikes, 1);
    let zeroes = rig.run(DISK, extent(4, 4), Op::WriteZeroes(Durability::Fua));
    assert_eq!((zeroes.result, rig.stored()[4]), (Err(IoError::Medium), 0));
}

#[test]
fn a_silently_torn_write_is_said_to_have_succeeded() {
    let mut rig = Rig::with("torn-silent=1 --times 1");
    assert_eq!((rig.write(0, 3, 7), rig.stored()[..3].to_vec()), (Ok(()), vec![7, 0, 0]));
    let mut rig = Rig::with("torn-silent=0");
    assert_eq!((rig.write(0, 3, 7), rig.stored()[..3].to_vec()), (Ok(()), vec![0, 0, 0]));
}

#[test]
fn a_tear_is_at_a_logical_block() {
    let limits = Limits { logical_block: Sectors(8), ..Limits::of_disk(Sectors(SECTORS)) };
    let mut disks = MemBank::new();
    disks.add(limits);
    let mut rig = Rig { bank: Fault::new(disks), now: Instant::START, next_id: 0 };
    rig.arm("torn=15");
    assert_eq!(rig.write(0, 16, 7), Err(IoError::Medium));
    assert_eq!(rig.stored()[6..10], [7, 7, 0, 0]);
}

#[test]
fn a_lost_write_is_acknowledged_and_not_stored() {
    let mut rig = Rig::with("lost --at-io 2 --times 1");
    let results = [rig.write(0, 1, 1), rig.write(1, 1, 2), rig.write(2, 1, 3)];
    assert_eq!((results, rig.stored()[..3].to_vec()), ([Ok(()); 3], vec![1, 0, 3]));
}

#[test]
fn a_misdirected_write_lands_elsewhere_or_nowhere() {
    let mut rig = Rig::with("misdirected=-4");
    assert_eq!(rig.write(6, 2, 7), Ok(()));
    assert_eq!(rig.stored()[..8], [0, 0, 7, 7, 0, 0, 0, 0]);
    assert_eq!(rig.write(3, 1, 9), Ok(()));
    assert!(!rig.stored().contains(&9));
    let mut rig = Rig::with("misdirected=4");
    assert_eq!(rig.write(SECTORS - 5, 2, 7), Ok(()));
    assert!(!rig.stored().contains(&7));
    assert_eq!(rig.write(SECTORS - 6, 2, 8), Ok(()));
    assert_eq!(rig.stored()[SECTORS as usize - 2..], [8, 8]);
}

#[test]
fn a_misdirected_read_returns_what_lies_elsewhere_if_there_is_an_elsewhere() {
    let mut rig = Rig::new();
    for start in 0..SECTORS {
        assert_eq!(rig.write(start, 1, start as u8), Ok(()));
    }
    rig.arm("misdirected-read=-4");
    let first_bytes = |read: Result<Vec<u8>, IoError>| read.unwrap().chunks(512).map(|s| s[0]).collect::<Vec<_>>();
    assert_eq!(first_bytes(rig.read(6, 3)), [2, 3, 4]);
    assert_eq!(first_bytes(rig.read(3, 2)), [3, 4]);
    assert_eq!(rig.write(6, 1, 99), Ok(()));
    assert_eq!((rig.stored()[6], rig.bank.list()[0].strikes), (99, 1));
}

#[test]
fn a_corrupted_write_is_stored_with_a_few_bits_of_one_sector_flipped() {
    let mut rig = Rig::with("corrupt-write=3,seed=4 --range 1K..3K --times 2");
    let mut places = Vec::new();
    for _ in 0..2 {
        assert_eq!(rig.write(0, 8, 0xff), Ok(()), "and its requester sees the bytes it gave");
        let zeroes = |sector: &[u8]| sector.iter().map(|byte| byte.count_zeros()).sum::<u32>();
        let stored: Vec<u32> = rig.bank.inner().bytes(DISK)[..4096].chunks(512).map(zeroes).collect();
        assert_eq!(stored.iter().sum::<u32>(), 3, "{stored:?}");
        assert!(stored[2..6].contains(&3), "{stored:?}");
        places.push(rig.bank.inner().bytes(DISK)[..4096].to_vec());
    }
    assert_ne!(places[0], places[1], "memory does not flip twice in one place");
    assert_eq!(rig.write(0, 8, 0xff), Ok(()));
    assert_eq!(rig.read(0, 8).unwrap(), [0xff; 4096]);
}

#[test]
fn writes_find_no_space_and_a_discard_needs_none() {
    let mut rig = Rig::new();
    assert_eq!(rig.write(0, 2, 7), Ok(()));
    rig.arm("no-space --range 0..512");
    assert_eq!(rig.write(0, 2, 8), Err(IoError::NoSpace));
    let zeroes = rig.run(DISK, extent(0, 1), Op::WriteZeroes(Durability::Volatile));
    assert_eq!((zeroes.result, rig.stored()[..2].to_vec()), (Err(IoError::NoSpace), vec![7, 7]));
    assert_eq!((rig.run(DISK, extent(0, 1), Op::Discard).result, rig.write(1, 1, 9)), (Ok(()), Ok(())));
    assert_eq!(rig.stored()[..2], [0, 9]);
}

#[test]
fn rotten_sectors_read_with_the_same_bits_flipped_until_they_are_written() {
    let mut rig = Rig::with("bitflip=3,seed=5 --range 1K..3K");
    let flipped = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let first = rig.read(0, 8).unwrap();
    assert_eq!(first.chunks(512).map(flipped).collect::<Vec<_>>(), [0, 0, 3, 3, 3, 3, 0, 0]);
    assert_eq!(rig.read(1, 4).unwrap(), first[512..2560], "the place depends on the sector, not on the request");
    assert_eq!(rig.write(3, 1, 0), Ok(()));
    assert_eq!(rig.read(0, 8).unwrap().chunks(512).map(flipped).collect::<Vec<_>>(), [0, 0, 3, 0, 3, 3, 0, 0]);
    rig.bank.clear();
    assert_eq!(flipped(&rig.read(0, 8).unwrap()), 0);
}

#[test]
fn bits_are_flipped_wherever_the_buffer_is_split() {
    let mut whole = Rig::with("bitflip=9,seed=1,sticky");
    let mut split = whole.clone();
    let mut buf = Buf::zeroed(100);
    buf.append(Buf::zeroed(1024 - 100));
    let Op::Read(buf) = split.run(DISK, extent(3, 2), Op::Read(buf)).op else { panic!("a read comes back") };
    assert_eq!(buf.to_vec(), whole.read(3, 2).unwrap());
}

#[test]
fn a_stopped_device_answers_offline_to_everything_from_the_fatal_touch_on() {
    let mut rig = Rig::with("medium");
    rig.arm("fail-stop --range 0..512");
    assert_eq!(rig.flush(), Ok(()));
    assert_eq!(rig.read(1, 1), Err(IoError::Medium));
    assert_eq!(rig.read(0, 1), Err(IoError::Offline));
    assert_eq!((rig.read(1, 1), rig.flush()), (Err(IoError::Offline), Err(IoError::Offline)));
    assert_eq!(rig.write(5, 1, 1), Err(IoError::Offline));
}

/// The bank below keeps the requests it was given.
#[derive(Clone, Default)]
struct Witness(Vec<Request>);

impl Bank for Witness {
    fn limits(&self, _device: DeviceId) -> Limits {
        Limits::of_disk(Sectors(SECTORS))
    }
    fn submit(&mut self, _device: DeviceId, request: Request, _now: Instant) {
        self.0.push(request);
    }
    fn poll(&mut self, _now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        done.extend(self.0.drain(..).map(|request| (DISK, request.complete(Ok(())))));
    }
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

#[test]
fn a_lying_flush_is_not_passed_down_and_no_write_is_made_durable() {
    let mut bank = Fault::new(Witness::default());
    bank.arm(DISK, FaultKind::FlushLie.into(), Instant::START).unwrap();
    bank.submit(DISK, Request::flush(RequestId(0)), Instant::START);
    let fua = Op::Write(Payload::zeroes(512), Durability::Fua);
    bank.submit(DISK, Request::new(RequestId(1), extent(0, 1), fua), Instant::START);
    assert!(matches!(bank.inner().0[..], [Request { op: Op::Write(_, Durability::Volatile), .. }]));
    let mut done = Vec::new();
    bank.poll(Instant::START, &mut done);
    assert!(done.iter().all(|(_, completion)| completion.result.is_ok()));
    assert_eq!(done.len(), 2);
    assert!(done.iter().any(|(_, completion)| matches!(completion.op, Op::Write(_, Durability::Fua))));
}

#[test]
fn a_failing_flush_is_not_passed_down_and_neither_is_a_write_that_must_be_durable() {
    let mut bank = Fault::new(Witness::default());
    bank.arm(DISK, FaultKind::FlushFail.into(), Instant::START).unwrap();
    bank.submit(DISK, Request::flush(RequestId(0)), Instant::START);
    for (id, durability) in [(1, Durability::Fua), (2, Durability::Volatile)] {
        let write = Op::Write(Payload::zeroes(512), durability);
        bank.submit(DISK, Request::new(RequestId(id), extent(0, 1), write), Instant::START);
    }
    assert!(matches!(bank.inner().0[..], [Request { id: RequestId(2), .. }]));
    let mut done = Vec::new();
    bank.poll(Instant::START, &mut done);
    let mut results: Vec<_> = done.iter().map(|(_, done)| (done.id.0, done.result)).collect();
    results.sort_unstable();
    assert_eq!(results, [(0, Err(IoError::Medium)), (1, Err(IoError::Medium)), (2, Ok(()))]);
}

/// Each kind strikes one request of sectors 4 to 8.
#[test]
fn the_ledger_says_which_sectors_were_struck() {
    let write = || Op::Write(Payload::copy_of(&[7; 2048]), Durability::Fua);
    let read = || Op::Read(Buf::zeroed(2048));
    let whole = || vec![extent(4, 4)];
    for (fault, op, extents) in [
        ("latency=1ms", read(), whole()),
        ("hang=1ms", Op::Discard, whole()),
        ("medium --range 3K..5K", read(), vec![extent(6, 2)]),
        ("write-medium --range 3K..5K", write(), whole()),
        ("transient=1", write(), whole()),
        ("torn=1", write(), vec![extent(5, 3)]),
        ("torn-silent=0", Op::Discard, whole()),
        ("lost", write(), whole()),
        ("misdirected=2", write(), vec![extent(4, 4), extent(6, 4)]),
        ("misdirected=-5", write(), whole()),
        ("misdirected-read=2", read(), whole()),
        ("bitflip --range 2560..3584", read(), vec![extent(5, 2)]),
        ("corrupt-write --range 2560..3K", write(), vec![extent(5, 1)]),
        ("fail-stop", read(), whole()),
        ("flush-lie", Op::Flush, vec![]),
        ("flush-fail", write(), whole()),
        ("no-space", write(), whole()),
        ("read-only", write(), whole()),
    ] {
        let mut rig = Rig::with(fault);
        rig.submit(DISK, extent(4, 4), read());
        rig.bank.clear();
        assert_eq!(rig.bank.take_strikes(), [], "nobody wanted them");
        rig.bank.keep_strikes();
        rig.now = at(3);
        let id = rig.arm(fault);
        let place = if matches!(op, Op::Flush) { extent(0, 0) } else { extent(4, 4) };
        rig.submit(DISK, place, op);
        let kind = rig.bank.list()[0].spec.kind;
        assert_eq!(rig.bank.take_strikes(), [Strike { device: DISK, fault: id, kind, at: at(3), extents }], "{fault}");
        assert_eq!(rig.bank.take_strikes(), []);
    }
}

#[test]
fn a_flip_that_never_reached_the_medium_or_the_reader_is_felt_nowhere() {
    let felt = |faults: &[&str], op: Op| {
        let mut rig = Rig::new();
        rig.bank.keep_strikes();
        for fault in faults {
            rig.arm(fault);
        }
        rig.submit(DISK, extent(4, 4), op);
        rig.bank.take_strikes().into_iter().map(|strike| strike.extents).collect::<Vec<_>>()
    };
    let write = || Op::Write(Payload::copy_of(&[7; 2048]), Durability::Volatile);
    let corrupt = "corrupt-write --range 3K..3584";
    assert_eq!(felt(&[corrupt, "lost"], write()), [vec![], vec![extent(4, 4)]]);
    assert_eq!(felt(&["torn=2", corrupt], write()), [vec![extent(6, 2)], vec![]]);
    assert_eq!(felt(&["torn=3", corrupt], write()), [vec![extent(7, 1)], vec![extent(6, 1)]]);
    let misdirected = [vec![extent(4, 4), extent(10, 4)], vec![extent(12, 1)]];
    assert_eq!(felt(&["misdirected=6", corrupt], write()), misdirected);
    let read = Op::Read(Buf::zeroed(2048));
    assert_eq!(felt(&["bitflip", "medium"], read), [vec![], vec![extent(4, 4)]]);
}

/// The ledger against the bytes: what differs from a disk without faults was struck.
#[test]
fn what_is_stored_wrong_was_struck_and_what_is_not_was_not() {
    let kinds = ["torn=2", "torn-silent=1", "lost", "misdirected=3", "misdirected=-7", "corrupt-write=5", "no-space"];
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = move |limit: u64| rng.next_u64() % limit;
        let (mut rig, mut sound) = (Rig::new(), Rig::new());
        rig.bank.keep_strikes();
        for _ in 0..1 + below(2) {
            let kind = kinds[below(kinds.len() as u64) as usize];
            rig.arm(&format!("{kind} --range {}K..16K --times {}", below(16), 1 + below(2)));
        }
        let mut struck = RangeSet::new();
        for step in 1..5 {
            let (start, length) = (below(SECTORS - 8), 1 + below(8));
            let bytes: Vec<u8> = (start..start + length).flat_map(|lba| [[lba as u8, step]; 256]).flatten().collect();
            for rig in [&mut rig, &mut sound] {
                let write = Op::Write(Payload::copy_of(&bytes), Durability::Volatile);
                rig.run(DISK, extent(start, length), write);
            }
            // What is written anew is right again, unless it is struck anew.
            struck.remove(start..start + length);
            for sectors in rig.bank.take_strikes().iter().flat_map(|strike| &strike.extents) {
                struck.insert(sectors.range());
            }
        }
        let bytes = |rig: &Rig| rig.bank.inner().bytes(DISK).chunks(512).map(<[u8]>::to_vec).collect::<Vec<_>>();
        for (lba, (got, wanted)) in bytes(&rig).iter().zip(bytes(&sound)).enumerate() {
            let wrong = *got != wanted;
            assert_eq!(struck.contains(&(lba as u64)), wrong, "seed {seed}, sector {lba}");
        }
    }
}

#[test]
fn a_hanging_request_is_carried_out_and_answered_when_the_fault_is_disarmed() {
    let mut rig = Rig::with("hang --times 1");
    let hung = rig.submit(DISK, extent(0, 1), Op::Write(Payload::copy_of(&[7; 512]), Durability::Volatile));
    rig.now = at(1_000_000);
    assert!(rig.poll().is_empty());
    assert_eq!((rig.bank.next_deadline(), rig.stored()[0]), (None, 7));
    assert_eq!(rig.flush(), Ok(()), "only one was to hang");
    rig.bank.disarm(rig.bank.list()[0].id);
    assert_eq!(rig.bank.next_deadline(), Some(Instant::START));
    assert_eq!(rig.poll().iter().map(|completion| completion.id).collect::<Vec<_>>(), [hung]);
}

#[test]
fn a_device_silent_for_a_while_answers_all_at_once() {
    let mut rig = Rig::with("hang=30ms --after 5ms");
    assert_eq!(rig.flush(), Ok(()));
    for moment in [5, 20, 34] {
        rig.now = at(moment);
        rig.submit(DISK, extent(0, 0), Op::Flush);
        assert!(rig.poll().is_empty());
        assert_eq!(rig.bank.next_deadline(), Some(at(35)));
    }
    rig.now = at(35);
    assert_eq!(rig.poll().len(), 3);
    assert_eq!(rig.flush(), Ok(()), "it happens once");
}

#[test]
fn a_read_only_device_refuses_writes_and_serves_reads() {
    let mut rig = Rig::with("read-only");
    assert_eq!(rig.write(0, 1, 1), Err(IoError::ReadOnly));
    assert!(rig.read(0, 1).is_ok() && rig.flush().is_ok());
}

#[test]
fn a_request_the_device_refuses_is_not_acknowledged_by_a_fault() {
    let mut rig = Rig::with("lost");
    assert_eq!(rig.write(SECTORS - 1, 2, 7), Err(IoError::OutOfRange));
}

#[test]
fn faults_are_listed_in_order_and_a_disarmed_one_is_gone() {
    let mut rig = Rig::with("lost");
    let second = rig.arm("read-only");
    rig.arm("medium");
    assert_eq!(rig.bank.disarm(second), Some(FaultKind::ReadOnly.into()));
    assert_eq!(rig.bank.disarm(second), None);
    let names: Vec<_> = rig.bank.list().iter().map(|fault| fault.spec.kind.name()).collect();
    assert_eq!(names, ["lost", "medium"]);
}

/// Random operations under random detected faults, one at a time, beside an array of bytes that
/// changes as the documentation of each kind says.
#[test]
fn under_detected_faults_every_answer_is_right_or_an_error() {
    let detected =
        ["medium", "write-medium", "transient=2", "torn=3", "read-only", "latency=1ms", "torn=0", "no-space"];
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = move |limit: usize| rng.next_u64() as usize % limit;
        let mut rig = Rig::new();
        let mut model = vec![0_u8; SECTORS as usize];
        for step in 0..60_u8 {
            if below(4) == 0 {
                let start = below(SECTORS as usize) as u64;
                let range = extent(start, 1 + below((SECTORS - start) as usize) as u64);
                let kind = detected[below(detected.len())].parse().unwrap();
                rig.bank.arm(DISK, FaultSpec::new(kind).range(range), rig.now).unwrap();
                if below(3) == 0 {
                    rig.bank.disarm(rig.bank.list()[0].id);
                }
            }
            let start = below(SECTORS as usize);
            let length = 1 + below((SECTORS as usize - start).min(8));
            let extent = extent(start as u64, length as u64);
            let op = match below(3) {
                0 => Op::Read(Buf::zeroed(length * 512)),
                1 => Op::Write(Payload::copy_of(&vec![step; length * 512]), Durability::Volatile),
                _ => Op::Discard,
            };
            let stored = rig.stored();
            rig.submit(DISK, extent, op);
            let done = loop {
                match rig.poll().pop() {
                    Some(done) => break done,
                    None => rig.now = rig.bank.next_deadline().expect("a delayed completion has a deadline"),
                }
            };
            match (&done.op, done.result) {
                (Op::Read(buf), Ok(())) => {
                    let bytes: Vec<u8> = buf.to_vec().chunks(512).map(|sector| sector[0]).collect();
                    assert_eq!(bytes, model[start..start + length], "seed {seed}, step {step}");
                }
                (Op::Write(..), Ok(())) => model[start..start + length].fill(step),
                (Op::Discard, Ok(())) => model[start..start + length].fill(0),
                (_, Err(error)) => {
                    assert!(
                        matches!(error, IoError::Medium | IoError::ReadOnly | IoError::NoSpace),
                        "seed {seed}, step {step}"
                    );
                    let now = rig.stored();
                    let torn = start + length.min(3);
                    for (i, (now, before)) in now.iter().zip(&stored).enumerate() {
                        let written = matches!(done.op, Op::Write(..)).then_some(step).unwrap_or_default();
                        let may_change = (start..torn).contains(&i) && !matches!(done.op, Op::Read(_));
                        assert!(now == before || may_change && *now == written, "seed {seed}, step {step}");
                    }
                    model = now;
                }
                (other, Ok(())) => panic!("{} was not submitted", other.name()),
            }
            assert_eq!(rig.stored(), model, "seed {seed}, step {step}");
        }
    }
}

/// Many requests in flight under every kind of fault, cloned midway: both worlds finish alike, and
/// every request comes back once, as what it was.
#[test]
fn every_request_comes_back_once_and_a_clone_has_the_same_future() {
    let kinds = [
        "latency=3ms",
        "medium",
        "write-medium",
        "transient=2",
        "torn=1",
        "torn-silent=2",
        "lost",
        "misdirected=5",
        "misdirected-read=-3",
        "bitflip=2,seed=3",
        "corrupt-write=2",
        "fail-stop",
        "flush-lie",
        "flush-fail",
        "no-space",
        "hang",
        "hang=4ms",
        "read-only",
    ];
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = move |limit: u64| rng.next_u64() % limit;
        let mut rig = Rig::new();
        let mut submitted = Vec::new();
        let mut done = Vec::new();
        for _ in 0..40 {
            if below(3) == 0 {
                let kind = kinds[below(kinds.len() as u64) as usize].parse().unwrap();
                let trigger = [Trigger::Armed, Trigger::AtIo(3), Trigger::After(Duration::from_millis(2))];
                let spec = FaultSpec::new(kind).trigger(trigger[below(3) as usize]);
                let counted = matches!(kind, FaultKind::Transient(_));
                let spec = if counted { spec } else { spec.times(1 + below(4)) };
                rig.bank.arm(DISK, spec, rig.now).unwrap();
            }
            let start = below(SECTORS - 4);
            let (extent, op) = match below(4) {
                0 => (extent(start, 4), Op::Read(Buf::zeroed(2048))),
                1 => (extent(start, 4), Op::Write(Payload::copy_of(&[1; 2048]), Durability::Fua)),
                2 => (extent(start, 4), Op::WriteZeroes(Durability::Volatile)),
                _ => (extent(0, 0), Op::Flush),
            };
            let name = op.name();
            submitted.push((rig.submit(DISK, extent, op), name));
            if below(2) == 0 {
                rig.now = rig.now + Duration::from_millis(1);
                done.extend(rig.poll());
            }
        }
        let finish = |mut rig: Rig, mut done: Vec<Completion>| {
            rig.bank.clear();
            while let Some(due) = rig.bank.next_deadline() {
                rig.now = rig.now.max(due);
                done.extend(rig.poll());
            }
            done.iter().map(|done| (done.id, done.op.name(), done.result)).collect::<Vec<_>>()
        };
        let fates = finish(rig.clone(), done.clone());
        assert_eq!(fates, finish(rig, done), "seed {seed}");
        let mut came_back: Vec<_> = fates.iter().map(|(id, name, _)| (*id, *name)).collect();
        came_back.sort_unstable();
        assert_eq!(came_back, submitted, "seed {seed}");
    }
}
