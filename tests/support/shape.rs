//! Arrays to tell stories about: one of every layout, with numbers that are drawn.

use super::sample::Sample;

/// What an array shall be, in the words both command lines have.
#[derive(Clone, Debug)]
pub struct Shape {
    /// 0, 1, 4, 5, 6 or 10.
    pub level: u8,
    /// mdadm's name for the layout; empty where there is only one.
    pub layout: &'static str,
    /// Chunk in KiB; RAID1 has none.
    pub chunk_kib: Option<u64>,
    /// Size of every member in KiB.
    pub sizes_kib: Vec<u64>,
    /// Whether it has a write-intent bitmap.
    pub bitmap: bool,
    /// How many members may be missing, whichever they are.
    pub tolerance: usize,
}

/// Level, layout, and the fewest and most members.
const LAYOUTS: [(u8, &str, u64, u64); 31] = [
    (0, "", 2, 4),
    (0, "original", 2, 5),
    (0, "alternate", 2, 5),
    (1, "", 2, 4),
    (4, "", 3, 5),
    (5, "left-asymmetric", 3, 5),
    (5, "right-asymmetric", 3, 5),
    (5, "left-symmetric", 3, 6),
    (5, "right-symmetric", 3, 5),
    (5, "parity-first", 3, 5),
    (5, "parity-last", 3, 5),
    (6, "left-asymmetric", 4, 6),
    (6, "right-asymmetric", 4, 6),
    (6, "left-symmetric", 4, 6),
    (6, "right-symmetric", 4, 6),
    (6, "parity-first", 4, 6),
    (6, "parity-last", 4, 6),
    (6, "ddf-zero-restart", 4, 6),
    (6, "ddf-N-restart", 4, 6),
    (6, "ddf-N-continue", 4, 6),
    (6, "left-asymmetric-6", 4, 6),
    (6, "right-asymmetric-6", 4, 6),
    (6, "left-symmetric-6", 4, 6),
    (6, "right-symmetric-6", 4, 6),
    (6, "parity-first-6", 4, 6),
    (10, "n2", 2, 5),
    (10, "n3", 3, 5),
    (10, "f2", 2, 5),
    (10, "f3", 3, 5),
    (10, "o2", 2, 5),
    (10, "o3", 3, 5),
];

impl Shape {
    /// One array of every layout: members, sizes, chunk and bitmap are drawn.
    pub fn of_every_layout(sample: &mut Sample) -> Vec<Shape> {
        LAYOUTS.iter().map(|layout| Shape::draw(layout, sample)).collect()
    }

    /// One array of level `level` with the layout called `layout`.
    pub fn of(level: u8, layout: &str, sample: &mut Sample) -> Shape {
        let found = LAYOUTS.iter().find(|(of, name, ..)| (*of, *name) == (level, layout));
        Shape::draw(found.unwrap_or_else(|| panic!("there is no layout {layout} of level {level}")), sample)
    }

    fn draw(&(level, layout, fewest, most): &(u8, &'static str, u64, u64), sample: &mut Sample) -> Shape {
        let members = fewest + sample.below(most - fewest + 1);
        // Not a multiple of the larger chunks: what is left over at the end is not used.
        let mut size = || 12 * 1024 + 4 * sample.below(1024);
        let zones = level == 0 && !layout.is_empty();
        let sizes_kib = if zones {
            // Two members of one size at the least in most arrays: a zone of several members lies behind the first.
            let sizes = [size(), size() + 5 * 1024];
            (0..members as usize).map(|slot| sizes[slot.min(1)]).collect()
        } else {
            vec![size(); members as usize]
        };
        let chunk_kib = (level != 1).then(|| *sample.one(&[4, 8, 16, 64, 64, 128, 512, 1024]));
        let bitmap = level != 0 && sample.below(2) == 0;
        let copies = || layout[1..].parse::<usize>().expect("RAID10 layouts end in their number of copies");
        let tolerance = match level {
            0 => 0,
            1 => members as usize - 1,
            4 | 5 => 1,
            6 => 2,
            _ => copies() - 1,
        };
        Shape { level, layout, chunk_kib, sizes_kib, bitmap, tolerance }
    }

    /// How many members it has.
    pub fn members(&self) -> usize {
        self.sizes_kib.len()
    }

    /// Whether its members differ in size.
    pub fn is_uneven(&self) -> bool {
        self.sizes_kib.iter().any(|size| *size != self.sizes_kib[0])
    }

    /// Something to call it.
    pub fn name(&self) -> String {
        let layout = if self.layout.is_empty() { String::new() } else { format!("-{}", self.layout) };
        format!("raid{}{layout}", self.level)
    }

    /// md's word for its level.
    pub fn md_level(&self) -> String {
        format!("raid{}", self.level)
    }

    /// Arguments of `mdadm --create`, members apart.
    pub fn for_mdadm(&self) -> Vec<String> {
        let mut words = vec![format!("--level={}", self.level), format!("--raid-devices={}", self.members())];
        words.extend((!self.layout.is_empty()).then(|| format!("--layout={}", self.layout)));
        words.extend(self.chunk_kib.map(|chunk| format!("--chunk={chunk}")));
        words.extend((self.level != 0).then(|| format!("--bitmap={}", if self.bitmap { "internal" } else { "none" })));
        words
    }

    /// Arguments of `raidlab create`, members apart.
    pub fn for_raidlab(&self) -> Vec<String> {
        let mut words = vec![format!("--level={}", self.level)];
        words.extend((!self.layout.is_empty()).then(|| format!("--layout={}", self.layout)));
        words.extend(self.chunk_kib.map(|chunk| format!("--chunk={chunk}K")));
        words.extend(self.bitmap.then(|| "--bitmap=internal".to_owned()));
        words
    }

    /// `count` slots in order, drawn: those that go missing.
    pub fn slots(&self, count: usize, sample: &mut Sample) -> Vec<usize> {
        let mut slots: Vec<usize> = (0..self.members()).collect();
        while slots.len() > count {
            slots.remove(sample.below(slots.len() as u64) as usize);
        }
        slots
    }
}
