//! A fabric that does to requests and probes what a test says: each path has its way.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::block::*;
use crate::fabric::{Access, Event, Fabric, Fencing, Link, PathId, PathInfo, Probe, Verdict};

/// How requests fare on a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// They are served, after so long. What is read is the path's number.
    Serve(Duration),
    /// They come back unanswered.
    Fail(IoError),
    /// The unit answers with an error of its own.
    Refuse(IoError),
    /// They are kept.
    Silent,
}

#[derive(Clone, Debug)]
pub(super) struct Scripted {
    infos: Vec<PathInfo>,
    pub(super) ways: Vec<Way>,
    /// How probes are answered; `None`: not.
    pub(super) verdicts: Vec<Option<Verdict>>,
    pub(super) accesses: Vec<Access>,
    pub(super) links: Vec<Link>,
    /// What each path was sent: the name of its operation.
    pub(super) sent: Vec<(PathId, &'static str, Instant)>,
    pub(super) probes: u64,
    kept: Vec<(PathId, Request)>,
    due: BTreeMap<(Instant, u64), Event>,
    numbers: u64,
}

const TRIP: Duration = Duration::from_micros(100);

impl Scripted {
    pub(super) fn new(paths: usize) -> Scripted {
        let info = |path: usize| PathInfo {
            hctl: format!("{path}:0:0:0"),
            name: format!("sd{}", (b'a' + path as u8) as char),
            host: 0,
            hba: path,
            controller: 0,
            tpg: path as u16,
            unit: DeviceId(0),
            fencing: Fencing::Epoch,
            queue_depth: 0,
        };
        Scripted {
            infos: (0..paths).map(info).collect(),
            ways: vec![Way::Serve(TRIP); paths],
            verdicts: vec![Some(Verdict::Up); paths],
            accesses: vec![Access::Optimized; paths],
            links: vec![Link::Online; paths],
            sent: Vec::new(),
            probes: 0,
            kept: Vec::new(),
            due: BTreeMap::new(),
            numbers: 0,
        }
    }

    fn at(&mut self, moment: Instant, event: Event) {
        self.numbers += 1;
        self.due.insert((moment, self.numbers), event);
    }

    /// What a path kept comes back.
    pub(super) fn give_back(&mut self, path: PathId, result: Result<(), IoError>, now: Instant) {
        let (back, kept) = std::mem::take(&mut self.kept).into_iter().partition(|(of, _)| *of == path);
        self.kept = kept;
        let back: Vec<(PathId, Request)> = back;
        for (path, request) in back {
            let event = match result {
                Ok(()) => Event::Completed(path, request.complete(Ok(()))),
                Err(error) => Event::GivenBack(path, request, error),
            };
            self.at(now, event);
        }
    }
}

impl Fabric for Scripted {
    fn paths(&self) -> &[PathInfo] {
        &self.infos
    }

    fn limits(&self, _: DeviceId) -> Limits {
        Limits::of_disk(Sectors(2048))
    }

    fn link(&self, path: PathId) -> Link {
        self.links[usize::from(path.0)]
    }

    fn access(&self, path: PathId) -> Access {
        self.accesses[usize::from(path.0)]
    }

    fn submit(&mut self, path: PathId, mut request: Request, now: Instant) {
        self.sent.push((path, request.op.name(), now));
        match self.ways[usize::from(path.0)] {
            Way::Serve(time) => {
                if let Op::Read(buf) = &mut request.op {
                    buf.fill(path.0 as u8);
                }
                self.at(now + time, Event::Completed(path, request.complete(Ok(()))));
            }
            Way::Fail(error) => self.at(now + TRIP, Event::GivenBack(path, request, error)),
            Way::Refuse(error) => self.at(now + TRIP, Event::Completed(path, request.complete(Err(error)))),
            Way::Silent => self.kept.push((path, request)),
        }
    }

    fn probe(&mut self, path: PathId, _: Probe, now: Instant) {
        self.probes += 1;
        if let Some(verdict) = self.verdicts[usize::from(path.0)] {
            self.at(now + TRIP, Event::Probed(path, verdict));
        }
    }

    fn fence(&mut self, path: PathId, _: PathId, now: Instant) {
        self.at(now + TRIP, Event::Fenced(path));
    }

    fn abort(&mut self, _: PathId, _: RequestId, _: Instant) {}

    fn reset(&mut self, _: DeviceId, _: PathId, _: Instant) {}

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            events.push(first.remove());
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }
}
