//! What befalls the paths of a drawn life.
//!
//! As with disks, short stories: something is out of order for a moment or for long, flaps, keeps what it gets; no path is left, and
//! comes back in time or too late; an administrator fails a path or goes to another group.

use std::time::Duration;

use super::Rng;
use super::array::PathOrder;
use super::fabrics::{Part, PartKind, Side};
use super::scenario::{Act, Disks, Scenario, Step, Target, When};
use crate::fabric::emulated::{Health, Point};

/// Tells the stories of a life's paths.
pub(super) struct PathTeller {
    rng: Rng,
    scenario: Scenario,
}

impl PathTeller {
    /// For a scenario with paths, whose other stories are told.
    pub(super) fn new(rng: Rng, scenario: Scenario) -> PathTeller {
        PathTeller { rng, scenario }
    }

    /// The scenario with them.
    pub(super) fn tell(mut self) -> Scenario {
        self.keep_in_time();
        let ops = self.scenario.clients.ops.len() as u64;
        for _ in 0..4 + self.rng.below(5) {
            let at = self.rng.below(ops - 12) as usize;
            self.story(at);
        }
        self.scenario
    }

    /// A disk that takes longer for a request than a command has is never answered in time, and nothing would be learnt.
    fn keep_in_time(&mut self) {
        self.scenario.disks = Disks::Fixed;
        for step in &mut self.scenario.steps {
            if let Act::Slow(target, factor) = step.act {
                step.act = Act::Slow(target, factor.min(100));
            }
        }
    }

    fn story(&mut self, at: usize) {
        let side = self.side();
        match self.rng.below(10) {
            0 => self.order(side, at),
            1 => self.flap(side, at),
            2 => self.late(side, at),
            3 => self.cut_off(side, at),
            4 => self.given_up(side, at),
            5 => self.lies(side, at),
            _ => {
                let part = self.part(side);
                let health = self.health();
                self.outage(part, health, When::Op(at));
            }
        }
    }

    fn side(&mut self) -> Side {
        match (self.scenario.paths.volume, self.scenario.paths.members) {
            (Some(_), None) => Side::Volume,
            (None, _) => Side::Members,
            (Some(_), Some(_)) => [Side::Volume, Side::Members][self.rng.below(2) as usize],
        }
    }

    fn step(&mut self, when: When, act: Act) -> u32 {
        let id = self.scenario.steps.iter().map(|step| step.id + 1).max().unwrap_or(1);
        self.scenario.steps.push(Step { id, when, act });
        id
    }

    fn part(&mut self, side: Side) -> Part {
        let kind = PartKind::ALL[self.rng.below(PartKind::ALL.len() as u64) as usize];
        let count = match (side, kind) {
            (Side::Volume, PartKind::Port) | (Side::Members, PartKind::Switch) => 4,
            (Side::Members, PartKind::Port) => 2 * (self.scenario.array.disks + self.scenario.array.spares) as u64,
            // Disks have none.
            (Side::Members, PartKind::Controller) => return self.part(side),
            _ => 2,
        };
        Part { side, kind, number: self.rng.below(count) as u16 }
    }

    fn health(&mut self) -> Health {
        match self.rng.below(16) {
            0..3 => Health::Down,
            3 => Health::BlackHole { tx: true, rx: true },
            4 => Health::BlackHole { tx: true, rx: false },
            5 => Health::BlackHole { tx: false, rx: true },
            6 => Health::Slow(10_u32.pow(1 + self.rng.below(3) as u32)),
            7 => Health::Flapping { down: self.tenths(30), up: self.tenths(30) },
            8 => Health::Zombie(self.tenths(5)),
            9 => Health::Doubling(self.tenths(20)),
            10 => Health::FailsIo,
            11 => Health::FailsChecks,
            12 => {
                let at = [Point::Sending, Point::Transit, Point::Answering][self.rng.below(3) as usize];
                Health::Losing { frames: 1 + self.rng.below(6) as u32, at }
            }
            _ => Health::Stalled,
        }
    }

    /// So many tenths of a second at the most.
    fn tenths(&mut self, most: u64) -> Duration {
        Duration::from_millis(100 * (1 + self.rng.below(most)))
    }

    /// Something is as it should not be, for a moment or for long.
    fn outage(&mut self, part: Part, health: Health, when: When) -> u32 {
        let longest = [20, 200, 1000][self.rng.below(3) as usize];
        let events = self.rng.below(longest);
        let id = self.step(when, Act::Component(part, health));
        self.step(When::After(events, id), Act::Component(part, Health::Up));
        id
    }

    /// Down and up, again and again.
    fn flap(&mut self, side: Side, at: usize) {
        let part = self.part(side);
        let mut when = When::Op(at);
        for _ in 0..2 + self.rng.below(3) {
            let down = self.step(when, Act::Component(part, Health::Down));
            let (short, later) = (self.rng.below(60), self.rng.below(100));
            let up = self.step(When::After(short, down), Act::Component(part, Health::Up));
            when = When::After(later, up);
        }
    }

    /// What one side keeps arrives when others have long been written again.
    fn late(&mut self, side: Side, at: usize) {
        let number = self.rng.below(2) as u16;
        let part = |number| Part { side, kind: PartKind::Hba, number };
        let id = self.step(When::Op(at), Act::Component(part(number), Health::Stalled));
        if self.rng.chance(40) {
            let events = self.rng.below(150);
            let health = self.health();
            self.outage(part(1 - number), health, When::After(events, id));
        }
        let later = at + 2 + self.rng.below(20) as usize;
        self.step(When::Op(later), Act::Component(part(number), Health::Up));
    }

    /// No path is left, for shorter or longer than requests wait.
    fn cut_off(&mut self, side: Side, at: usize) {
        let disks = (self.scenario.array.disks + self.scenario.array.spares) as u64;
        let kind = if side == Side::Members { PartKind::Port } else { PartKind::Hba };
        let first = if side == Side::Members { 2 * self.rng.below(disks) as u16 } else { 0 };
        let part = |number| Part { side, kind, number };
        let health = self.health();
        let one = self.step(When::Op(at), Act::Component(part(first), health));
        let events = self.rng.below(20);
        let other = self.step(When::After(events, one), Act::Component(part(first + 1), Health::Down));
        for number in [first, first + 1] {
            let events = self.rng.below(600);
            self.step(When::After(events, other), Act::Component(part(number), Health::Up));
        }
        if side == Side::Members {
            let later = at + 3 + self.rng.below(20) as usize;
            self.step(When::Op(later), Act::ReAdd(Target::Faulty));
        }
    }

    /// What one side keeps is given up, for the other is lost, too. That is back first, and others write.
    fn given_up(&mut self, side: Side, at: usize) {
        let part = |number| Part { side, kind: PartKind::Hba, number };
        let kept = self.step(When::Op(at), Act::Component(part(0), Health::Stalled));
        let soon = self.rng.below(4);
        let lost = self.step(When::After(soon, kept), Act::Component(part(1), Health::Down));
        let until = 30 + self.rng.below(120);
        let back = self.step(When::After(until, lost), Act::Component(part(1), Health::Up));
        let later = 10 + self.rng.below(80);
        self.step(When::After(later, back), Act::Component(part(0), Health::Up));
    }

    /// Nothing is read or written by any path, and checkers may find them well.
    fn lies(&mut self, side: Side, at: usize) {
        let part = |number| Part { side, kind: PartKind::Hba, number };
        let one = self.step(When::Op(at), Act::Component(part(0), Health::FailsIo));
        let other = self.step(When::After(0, one), Act::Component(part(1), Health::FailsIo));
        for number in 0..2 {
            let events = 100 + self.rng.below(600);
            self.step(When::After(events, other), Act::Component(part(number), Health::Up));
        }
    }

    fn order(&mut self, side: Side, at: usize) {
        let number = self.rng.below(4) as u16;
        let order = [PathOrder::Fail, PathOrder::SwitchGroup][self.rng.below(2) as usize];
        let id = self.step(When::Op(at), Act::Path(side, order, number));
        if order == PathOrder::Fail && self.rng.chance(50) {
            let events = self.rng.below(100);
            self.step(When::After(events, id), Act::Path(side, PathOrder::Reinstate, number));
        }
    }
}
