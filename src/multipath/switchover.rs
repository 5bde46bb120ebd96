//! Another path where paths do not promise to see each other's writes.
//!
//! NBD says it with `CAN_MULTI_CONN`: without it a flush of one connection need not cover what was written on another. So one path is
//! used at a time, and before another is used by choice, what is under way comes back and the old path is flushed; requests wait
//! meanwhile. A path that is lost cannot be flushed: what it acknowledged and did not flush is what a volatile cache is.

use super::Multipath;
use crate::block::{Instant, Request};
use crate::fabric::{Fabric, PathId};

/// A change of the path that is under way.
#[derive(Clone, Debug)]
pub(super) struct Switching {
    from: usize,
    to: usize,
    flush: Flush,
    waiting: Vec<(usize, Request)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flush {
    ToBeSent,
    Sent,
    Done,
}

impl Switching {
    /// Has a request wait until the other path is used.
    pub(super) fn wait(&mut self, key: usize, request: Request) {
        self.waiting.push((key, request));
    }
}

impl<F: Fabric> Multipath<F> {
    /// Goes to another group because it is better, or because somebody says so.
    pub(super) fn move_to(&mut self, map: usize, group: usize, now: Instant) {
        let of = &mut self.maps[map];
        match of.current {
            Some(current) if current != group && !self.settings.multi_conn && !of.groups[current].order.is_empty() => {
                let [from, to] = [current, group].map(|group| of.groups[group].paths[0]);
                let waiting = of.switching.take().map(|before| before.waiting).unwrap_or_default();
                of.switching = Some(Switching { from, to, flush: Flush::ToBeSent, waiting });
                self.go_on_switching(map, now);
            }
            _ => self.switch(map, group, now),
        }
    }

    /// The old path was flushed, or failed when it was.
    pub(super) fn flushed(&mut self, map: usize) {
        if let Some(switching) = &mut self.maps[map].switching {
            switching.flush = Flush::Done;
        }
    }

    /// Something came back from a path: a change of the path may have waited for it.
    pub(super) fn mind_switching(&mut self, path: PathId, now: Instant) {
        if !self.settings.multi_conn {
            let (map, _) = self.place(path);
            self.go_on_switching(map, now);
        }
    }

    /// Takes the next step of a change of the path: when all is back, a flush; after it, the other path.
    fn go_on_switching(&mut self, map: usize, now: Instant) {
        let of = &mut self.maps[map];
        let Some(switching) = &mut of.switching else { return };
        let from = &of.paths[switching.from];
        match switching.flush {
            Flush::ToBeSent if from.load.requests > 0 => return,
            Flush::ToBeSent if from.active => {
                switching.flush = Flush::Sent;
                let from = switching.from;
                return self.flush_path(map, from, now);
            }
            Flush::Sent => return,
            Flush::ToBeSent | Flush::Done => {}
        }
        let Switching { to, waiting, .. } = of.switching.take().expect("it was just looked at");
        let group = of.paths[to].group;
        if !of.groups[group].order.is_empty() {
            self.switch(map, group, now);
        }
        for (key, request) in waiting {
            self.route(key, request, now);
        }
    }
}
