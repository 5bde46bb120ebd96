//! RAID levels and layouts: their names and numbers.
//!
//! A level says which redundancy an array keeps, a layout where on the members it lies. md writes both as
//! numbers into its superblock and mdadm takes and prints them as names; an array assembles only if both
//! sides mean the same by them. What a layout does to addresses is in [`geometry`](super::geometry).
//!
//! Numbers are those of md metadata 1.x (superblock offsets 72 and 76), names those of mdadm 4.2.

use std::fmt;
use std::str::FromStr;

/// Which redundancy an array keeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Level {
    /// Striped, no redundancy.
    Raid0 = 0,
    /// Mirrored: every member holds everything.
    Raid1 = 1,
    /// Striped, parity on the last member.
    Raid4 = 4,
    /// Striped, parity rotating.
    Raid5 = 5,
    /// Striped, two parities.
    Raid6 = 6,
    /// Striped, every chunk in two or more copies.
    Raid10 = 10,
}

/// Where on the members the chunks of an array lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// There is only one way: RAID1, RAID4, and RAID0 whose superblock records none, which is enough for members of
    /// one size.
    None,
    /// RAID0 on members of several sizes.
    Raid0(Raid0Layout),
    /// RAID5.
    Raid5(Raid5Layout),
    /// RAID6.
    Raid6(Raid6Layout),
    /// RAID10: `near * far` copies of every chunk.
    Raid10 {
        /// Copies in neighbouring slots.
        near: u8,
        /// Copies further down the members.
        far: u8,
        /// The far copies follow their row at once, not in a section of their own.
        offset: bool,
    },
}

/// Which member takes the first chunk of a RAID0 zone after the first. Linux changed it by mistake in 3.14, hence the
/// two. The values are md's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Raid0Layout {
    /// Counted from the start of the array, as before Linux 3.14.
    Original = 1,
    /// Counted from the start of the zone.
    Alternate = 2,
}

/// Where RAID5 puts parity, and whether data goes on behind it (symmetric) or starts at slot 0 again (asymmetric). The
/// values are md's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are all there is to say")]
pub enum Raid5Layout {
    LeftAsymmetric = 0,
    RightAsymmetric = 1,
    LeftSymmetric = 2,
    RightSymmetric = 3,
    ParityFirst = 4,
    ParityLast = 5,
}

/// Where RAID6 puts P and Q. The `Ddf` ones are those of the SNIA Disk Data Format and number the powers of two in Q
/// their own way; those ending in 6 are a RAID5 layout with Q on one more member. The values are md's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are all there is to say")]
pub enum Raid6Layout {
    LeftAsymmetric = 0,
    RightAsymmetric = 1,
    LeftSymmetric = 2,
    RightSymmetric = 3,
    ParityFirst = 4,
    ParityLast = 5,
    DdfZeroRestart = 8,
    DdfNRestart = 9,
    DdfNContinue = 10,
    LeftAsymmetric6 = 16,
    RightAsymmetric6 = 17,
    LeftSymmetric6 = 18,
    RightSymmetric6 = 19,
    ParityFirst6 = 20,
}

/// A level raidlab does not have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LevelError {
    /// No level is called that.
    #[error("no RAID level is called \"{name}\"; use 0, 1, 4, 5, 6 or 10")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// md's number of a level that is not built here: linear is -1, multipath -4, faulty -5.
    #[error("md level {number} is not supported; 0, 1, 4, 5, 6 and 10 are")]
    Number {
        /// The superblock's level.
        number: i32,
    },
}

/// A layout its level does not have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// No layout of this level is called that.
    #[error("{level} has no layout \"{name}\"; {}", choices(*.level))]
    Name {
        /// The level.
        level: Level,
        /// What was asked for.
        name: String,
    },
    /// md gives this level no layout of that number.
    #[error("{level} has no layout number {number:#x}: the superblock is damaged, or newer than raidlab")]
    Number {
        /// The level.
        level: Level,
        /// The superblock's layout.
        number: u32,
    },
    /// RAID10 whose far copies stay in groups of members, which mdadm cannot create.
    #[error("RAID10 layout {number:#x} uses far sets, which raidlab does not support; use Linux md for this array")]
    FarSets {
        /// The superblock's layout.
        number: u32,
    },
}

impl Level {
    /// Every level, rising.
    pub const ALL: [Level; 6] = [Level::Raid0, Level::Raid1, Level::Raid4, Level::Raid5, Level::Raid6, Level::Raid10];

    /// The number in md's superblock.
    pub const fn md_number(self) -> i32 {
        self as i32
    }

    /// The level with this number in md's superblock.
    pub fn from_md(number: i32) -> Result<Level, LevelError> {
        Level::ALL.into_iter().find(|level| level.md_number() == number).ok_or(LevelError::Number { number })
    }

    /// How many chunks of a stripe hold parity.
    pub const fn parity_count(self) -> usize {
        match self {
            Level::Raid0 | Level::Raid1 | Level::Raid10 => 0,
            Level::Raid4 | Level::Raid5 => 1,
            Level::Raid6 => 2,
        }
    }
}

/// `raid5`, as mdadm prints it.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "raid{}", self.md_number())
    }
}

/// `raid5` or `5`; mdadm's `stripe` and `mirror` too.
impl FromStr for Level {
    type Err = LevelError;

    fn from_str(name: &str) -> Result<Level, LevelError> {
        match name {
            "stripe" => return Ok(Level::Raid0),
            "mirror" => return Ok(Level::Raid1),
            _ => {}
        }
        let number = name.strip_prefix("raid").unwrap_or(name);
        let named = Level::ALL.into_iter().find(|level| level.md_number().to_string() == number);
        named.ok_or_else(|| LevelError::Name { name: name.to_owned() })
    }
}

impl Raid0Layout {
    const NAMES: [(Raid0Layout, &'static [&'static str]); 2] =
        [(Raid0Layout::Original, &["original"]), (Raid0Layout::Alternate, &["alternate"])];
}

impl Raid5Layout {
    /// Every layout, by rising number.
    pub const ALL: [Raid5Layout; 6] = firsts(Self::NAMES);

    /// mdadm prints the first name and takes all; the DDF ones are where DDF puts the same.
    const NAMES: [(Raid5Layout, &'static [&'static str]); 6] = [
        (Raid5Layout::LeftAsymmetric, &["left-asymmetric", "la", "ddf-N-restart"]),
        (Raid5Layout::RightAsymmetric, &["right-asymmetric", "ra", "ddf-zero-restart"]),
        (Raid5Layout::LeftSymmetric, &["left-symmetric", "ls", "ddf-N-continue"]),
        (Raid5Layout::RightSymmetric, &["right-symmetric", "rs"]),
        (Raid5Layout::ParityFirst, &["parity-first"]),
        (Raid5Layout::ParityLast, &["parity-last"]),
    ];
}

impl Raid6Layout {
    /// Every layout, by rising number.
    pub const ALL: [Raid6Layout; 14] = firsts(Self::NAMES);

    const NAMES: [(Raid6Layout, &'static [&'static str]); 14] = [
        (Raid6Layout::LeftAsymmetric, &["left-asymmetric", "la"]),
        (Raid6Layout::RightAsymmetric, &["right-asymmetric", "ra"]),
        (Raid6Layout::LeftSymmetric, &["left-symmetric", "ls"]),
        (Raid6Layout::RightSymmetric, &["right-symmetric", "rs"]),
        (Raid6Layout::ParityFirst, &["parity-first"]),
        (Raid6Layout::ParityLast, &["parity-last"]),
        (Raid6Layout::DdfZeroRestart, &["ddf-zero-restart"]),
        (Raid6Layout::DdfNRestart, &["ddf-N-restart"]),
        (Raid6Layout::DdfNContinue, &["ddf-N-continue"]),
        (Raid6Layout::LeftAsymmetric6, &["left-asymmetric-6"]),
        (Raid6Layout::RightAsymmetric6, &["right-asymmetric-6"]),
        (Raid6Layout::LeftSymmetric6, &["left-symmetric-6"]),
        (Raid6Layout::RightSymmetric6, &["right-symmetric-6"]),
        (Raid6Layout::ParityFirst6, &["parity-first-6"]),
    ];
}

impl Layout {
    /// What `create` uses when no layout is asked for: left-symmetric, n2, and for RAID0 the alternate layout, which
    /// counts only where member sizes differ.
    pub const fn default_of(level: Level) -> Layout {
        match level {
            Level::Raid0 => Layout::Raid0(Raid0Layout::Alternate),
            Level::Raid1 | Level::Raid4 => Layout::None,
            Level::Raid5 => Layout::Raid5(Raid5Layout::LeftSymmetric),
            Level::Raid6 => Layout::Raid6(Raid6Layout::LeftSymmetric),
            Level::Raid10 => Layout::Raid10 { near: 2, far: 1, offset: false },
        }
    }

    /// Whether arrays of `level` can have this layout.
    pub const fn is_of(self, level: Level) -> bool {
        matches!(
            (level, self),
            (Level::Raid0 | Level::Raid1 | Level::Raid4, Layout::None)
                | (Level::Raid0, Layout::Raid0(_))
                | (Level::Raid5, Layout::Raid5(_))
                | (Level::Raid6, Layout::Raid6(_))
                | (Level::Raid10, Layout::Raid10 { .. })
        )
    }

    /// The number in md's superblock.
    pub const fn md_number(self) -> u32 {
        match self {
            Layout::None => 0,
            Layout::Raid0(layout) => layout as u32,
            Layout::Raid5(layout) => layout as u32,
            Layout::Raid6(layout) => layout as u32,
            Layout::Raid10 { near, far, offset } => near as u32 | (far as u32) << 8 | (offset as u32) << 16,
        }
    }

    /// The layout of `level` with this number in md's superblock. RAID0: pass 0 unless feature bit 4096 is set, for the
    /// number means nothing without it. RAID4: md ignores the number; 0 is what mdadm writes, 5 (parity last) what an
    /// array that was RAID5 keeps.
    pub fn from_md(level: Level, number: u32) -> Result<Layout, LayoutError> {
        let known = match level {
            Level::Raid0 if number == 0 => Some(Layout::None),
            Level::Raid0 => by_number(Raid0Layout::NAMES.map(|(l, _)| Layout::Raid0(l)), number),
            Level::Raid1 => (number == 0).then_some(Layout::None),
            Level::Raid4 => matches!(number, 0 | 5).then_some(Layout::None),
            Level::Raid5 => by_number(Raid5Layout::ALL.map(Layout::Raid5), number),
            Level::Raid6 => by_number(Raid6Layout::ALL.map(Layout::Raid6), number),
            Level::Raid10 if number >> 17 & 3 != 0 && number >> 19 == 0 => return Err(LayoutError::FarSets { number }),
            Level::Raid10 => {
                let [near, far, flags, high] = number.to_le_bytes();
                (near > 0 && far > 0 && flags <= 1 && high == 0).then_some(Layout::Raid10 {
                    near,
                    far,
                    offset: flags == 1,
                })
            }
        };
        known.ok_or(LayoutError::Number { level, number })
    }

    /// The layout of `level` that mdadm calls `name`: `left-symmetric` or `ls`, `f2`, … Beyond mdadm, RAID10 takes a
    /// near and a far count at once: `n2f2`, `n2o2`.
    pub fn parse(level: Level, name: &str) -> Result<Layout, LayoutError> {
        let known = match level {
            Level::Raid0 => by_name(Raid0Layout::NAMES, name).map(Layout::Raid0),
            Level::Raid1 | Level::Raid4 => None,
            Level::Raid5 => by_name(Raid5Layout::NAMES, name).map(Layout::Raid5),
            Level::Raid6 => by_name(Raid6Layout::NAMES, name).map(Layout::Raid6),
            Level::Raid10 => parse_raid10(name),
        };
        known.ok_or_else(|| LayoutError::Name { level, name: name.to_owned() })
    }

    /// The words `mdadm --detail` and `--examine` have for it: as `Display`, but `near=2`, `offset=2`, `near=2, far=2`
    /// for RAID10.
    pub fn detail(self) -> String {
        let Layout::Raid10 { near, far, offset } = self else { return self.to_string() };
        let near = (near != 1).then(|| format!("near={near}"));
        let far = (far != 1).then(|| format!("{}={far}", if offset { "offset" } else { "far" }));
        near.into_iter().chain(far).collect::<Vec<_>>().join(", ")
    }
}

/// mdadm's name, `n2f2` for RAID10, `none` where there is only one way.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Layout::None => f.write_str("none"),
            Layout::Raid0(layout) => f.write_str(name_of(Raid0Layout::NAMES, layout)),
            Layout::Raid5(layout) => f.write_str(name_of(Raid5Layout::NAMES, layout)),
            Layout::Raid6(layout) => f.write_str(name_of(Raid6Layout::NAMES, layout)),
            Layout::Raid10 { near, far: 1, offset: false } => write!(f, "n{near}"),
            Layout::Raid10 { near, far, offset } => {
                if near != 1 {
                    write!(f, "n{near}")?;
                }
                write!(f, "{}{far}", if offset { 'o' } else { 'f' })
            }
        }
    }
}

const fn firsts<T: Copy, const N: usize>(names: [(T, &'static [&'static str]); N]) -> [T; N] {
    let mut all = [names[0].0; N];
    let mut i = 1;
    while i < N {
        all[i] = names[i].0;
        i += 1;
    }
    all
}

fn by_number<const N: usize>(layouts: [Layout; N], number: u32) -> Option<Layout> {
    layouts.into_iter().find(|layout| layout.md_number() == number)
}

fn by_name<T, const N: usize>(names: [(T, &'static [&'static str]); N], name: &str) -> Option<T> {
    names.into_iter().find(|(_, names)| names.contains(&name)).map(|(layout, _)| layout)
}

fn name_of<T: Copy + PartialEq, const N: usize>(names: [(T, &'static [&'static str]); N], layout: T) -> &'static str {
    let (_, names) = names.into_iter().find(|(l, _)| *l == layout).expect("every layout has a name");
    names[0]
}

/// `n2`, `f2`, `o3`, `n2f2`, `n2o2`.
fn parse_raid10(name: &str) -> Option<Layout> {
    let (near, rest) = match name.strip_prefix('n') {
        Some(rest) => split_count(rest)?,
        None => (1, name),
    };
    let (far, offset) = match rest.chars().next() {
        Some('f') => (&rest[1..], false),
        Some('o') => (&rest[1..], true),
        Some(_) => return None,
        None if name.is_empty() => return None,
        None => return Some(Layout::Raid10 { near, far: 1, offset: false }),
    };
    let (far, rest) = split_count(far)?;
    rest.is_empty().then_some(Layout::Raid10 { near, far, offset })
}

/// A number of copies and what follows it.
fn split_count(text: &str) -> Option<(u8, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count = text[..end].parse().ok().filter(|count| *count > 0)?;
    Some((count, &text[end..]))
}

/// What to ask for instead.
fn choices(level: Level) -> String {
    fn list<T, const N: usize>(names: [(T, &'static [&'static str]); N]) -> String {
        format!("use one of {}", names.map(|(_, names)| names[0]).join(", "))
    }
    match level {
        Level::Raid0 => list(Raid0Layout::NAMES),
        Level::Raid1 | Level::Raid4 => "it takes none: leave the layout out".to_owned(),
        Level::Raid5 => list(Raid5Layout::NAMES),
        Level::Raid6 => list(Raid6Layout::NAMES),
        Level::Raid10 => "use nN (near), fN (far) or oN (offset) with N copies, such as n2".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_layouts(level: Level) -> Vec<Layout> {
        match level {
            Level::Raid0 => Raid0Layout::NAMES.map(|(l, _)| Layout::Raid0(l)).into(),
            Level::Raid1 | Level::Raid4 => vec![],
            Level::Raid5 => Raid5Layout::ALL.map(Layout::Raid5).into(),
            Level::Raid6 => Raid6Layout::ALL.map(Layout::Raid6).into(),
            Level::Raid10 => [(2, 1, false), (1, 2, false), (1, 3, true), (2, 2, false), (2, 2, true), (64, 1, false)]
                .map(|(near, far, offset)| Layout::Raid10 { near, far, offset })
                .into(),
        }
    }

    #[test]
    fn names_and_numbers_lead_back_to_their_layout() {
        for level in Level::ALL {
            assert_eq!(Level::from_md(level.md_number()), Ok(level));
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(level.md_number().to_string().parse(), Ok(level));
            assert!(Layout::default_of(level).is_of(level));
            for layout in some_layouts(level) {
                assert!(layout.is_of(level));
                assert_eq!(Layout::from_md(level, layout.md_number()), Ok(layout));
                assert_eq!(Layout::parse(level, &layout.to_string()), Ok(layout));
            }
        }
    }

    #[test]
    fn a_layout_belongs_to_one_level() {
        for level in Level::ALL {
            for other in Level::ALL.into_iter().filter(|other| *other != level) {
                assert!(some_layouts(level).into_iter().all(|layout| !layout.is_of(other)), "{level} {other}");
            }
        }
    }

    /// Read off superblocks mdadm 4.2 made.
    #[test]
    fn numbers_are_those_mdadm_writes() {
        let number = |level, name| Layout::parse(level, name).expect("mdadm takes it").md_number();
        assert_eq!(number(Level::Raid5, "ls"), 2);
        assert_eq!(number(Level::Raid5, "ddf-N-restart"), 0);
        assert_eq!(number(Level::Raid6, "ddf-N-continue"), 10);
        assert_eq!(number(Level::Raid6, "parity-first-6"), 20);
        assert_eq!(number(Level::Raid10, "n2"), 0x102);
        assert_eq!(number(Level::Raid10, "f2"), 0x201);
        assert_eq!(number(Level::Raid10, "o3"), 0x1_0301);
        assert_eq!(number(Level::Raid0, "original"), 1);
        assert_eq!(Layout::from_md(Level::Raid0, 0), Ok(Layout::None));
        assert_eq!(Layout::from_md(Level::Raid4, 0), Ok(Layout::None));
        assert_eq!(Layout::from_md(Level::Raid1, 0), Ok(Layout::None));
    }

    #[test]
    fn only_known_numbers_are_layouts() {
        let known = |level| (0..0x2_0000).filter(|n| Layout::from_md(level, *n).is_ok()).count();
        assert_eq!(Level::ALL.map(known), [3, 1, 2, 6, 14, 2 * 255 * 255]);
        for bit in 17..32 {
            assert!(Layout::from_md(Level::Raid10, 0x102 | 1 << bit).is_err());
        }
        assert_eq!(Layout::from_md(Level::Raid10, 0x2_0201), Err(LayoutError::FarSets { number: 0x2_0201 }));
        for number in [-5, -4, -1, 2, 3, 7, 11] {
            assert_eq!(Level::from_md(number), Err(LevelError::Number { number }));
        }
    }

    #[test]
    fn wrong_names_are_refused_and_the_error_says_what_to_type() {
        for name in ["", "n", "n0", "2", "x2", "f", "n2x2", "n2f", "n2f2x", "f2n2", "n256", "n+2", "f2 ", "ñ2", "nö"]
        {
            assert!(Layout::parse(Level::Raid10, name).is_err(), "{name}");
        }
        for name in ["", "05", "raid", "raid05", "-1", "raidraid5", "linear", "+5"] {
            assert!(name.parse::<Level>().is_err(), "{name}");
        }
        let text = |level, name| Layout::parse(level, name).expect_err("unknown").to_string();
        assert!(text(Level::Raid5, "n2").contains("left-symmetric"));
        assert!(text(Level::Raid1, "n2").contains("leave the layout out"));
        assert!(text(Level::Raid10, "ls").contains("such as n2"));
    }

    #[test]
    fn raid10_is_described_in_mdadms_words() {
        let detail = |name| Layout::parse(Level::Raid10, name).expect("a layout").detail();
        assert_eq!(["n2", "f3", "o2", "n2f2"].map(detail), ["near=2", "far=3", "offset=2", "near=2, far=2"]);
        assert_eq!(Layout::default_of(Level::Raid5).detail(), "left-symmetric");
    }
}
