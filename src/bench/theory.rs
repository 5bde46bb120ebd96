//! What theory allows.
//!
//! The textbook measure of a level is member I/O per logical I/O (Patterson, Gibson, Katz, "A Case
//! for Redundant Arrays of Inexpensive Disks", 1988): a RAID5 small write reads two members and
//! writes two. On members that are independent disks an array then does `n` members' worth of that
//! at once. Our members are files of one computer, in its page cache or on one disk, served by one
//! thread: they share everything, so an array can be no faster than the raw file doing the same
//! member I/O one after the other. With the time `r` for a byte read and `w` for a byte written,
//! both from the raw file in the same run, block size and queue depth, the ceiling is
//!
//! ```text
//! 1 / (reads · r + writes · w)       reads, writes: member bytes per logical byte
//! ```
//!
//! | asked                       | reads                           | writes       |
//! |-----------------------------|---------------------------------|--------------|
//! | read, any level             | 1                               | 0            |
//! | write RAID0, RAID1, RAID10  | 0                               | copies       |
//! | write k of d chunks, parity | min(k + p, d − k) / k, 0 if k=d | (k + p) / k  |
//! | degraded read of k chunks   | 1 + (d − k) / n                 | 0            |
//! | recovery, mirror            | 1                               | 1            |
//! | recovery, parity            | d                               | 1            |
//!
//! with `n` members, `p` parities, `d = n − p` data chunks a stripe; `k` follows from block and
//! chunk, band by band, each with the cheaper of read-modify-write and reconstruct-write. Parity
//! arithmetic counts as free. A share above 100 % is possible: an array writes several members from
//! one source that is in the CPU's cache by then, and large blocks become smaller ones.

use serde::{Deserialize, Serialize};

use super::{Mix, Workload};

/// How an array lays data over its members, as far as cost is concerned. Chunks in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Shape {
    /// One raw file or device: the yardstick.
    Single,
    /// RAID0.
    Striped {
        /// Members.
        disks: u32,
    },
    /// RAID1.
    Mirrored {
        /// Members.
        disks: u32,
    },
    /// RAID10.
    StripedMirrors {
        /// Members.
        disks: u32,
        /// Of each chunk.
        copies: u32,
    },
    /// RAID4, RAID5 (one parity) and RAID6 (two).
    Parity {
        /// Members.
        disks: u32,
        /// 1 or 2.
        parities: u32,
        /// Bytes.
        chunk_bytes: u64,
    },
}

/// Member bytes per logical byte.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Read from members.
    pub reads: f64,
    /// Written to members.
    pub writes: f64,
}

impl Cost {
    /// What this costs where a read of one unit takes `read` and a write takes `write`: the least
    /// time per unit of user data, in the same measure.
    pub fn time(self, read: f64, write: f64) -> f64 {
        let read = if self.reads > 0.0 { self.reads * read } else { 0.0 };
        let write = if self.writes > 0.0 { self.writes * write } else { 0.0 };
        read + write
    }

    fn mixed(read: Cost, write: Cost, read_share: f64) -> Cost {
        Cost {
            reads: read.reads * read_share + write.reads * (1.0 - read_share),
            writes: read.writes * read_share + write.writes * (1.0 - read_share),
        }
    }
}

impl Shape {
    /// Members that may fail, any of them, with all data still there.
    pub fn failures_tolerated(self) -> u32 {
        match self {
            Shape::Single | Shape::Striped { .. } => 0,
            Shape::Mirrored { disks } => disks - 1,
            Shape::StripedMirrors { copies, .. } => copies - 1,
            Shape::Parity { parities, .. } => parities,
        }
    }

    /// What `workload` costs while all members are in sync.
    pub fn cost(self, workload: &Workload) -> Cost {
        self.cost_with(workload, Cost { reads: 1.0, writes: 0.0 })
    }

    /// What the reads of `workload` cost with one member missing, whichever it is; `None` if the data
    /// is gone with it. Writes are counted as if all members were there.
    pub fn degraded_cost(self, workload: &Workload) -> Option<Cost> {
        if self.failures_tolerated() == 0 {
            return None;
        }
        let reads = match self {
            Shape::Parity { disks, parities, chunk_bytes } => {
                let data = disks - parities;
                // The missing chunk is one of the k asked for in k of n stripes; then d are read.
                let expected = |k: u32| f64::from(k) + f64::from(k) / f64::from(disks) * f64::from(data - k);
                per_byte(workload, data, chunk_bytes, expected)
            }
            Shape::Single | Shape::Striped { .. } | Shape::Mirrored { .. } | Shape::StripedMirrors { .. } => 1.0,
        };
        Some(self.cost_with(workload, Cost { reads, writes: 0.0 }))
    }

    /// What recovery costs per byte written to the new member; `None` where there is none.
    pub fn recovery_cost(self) -> Option<Cost> {
        let reads = match self {
            Shape::Parity { disks, parities, .. } => f64::from(disks - parities),
            _ if self.failures_tolerated() > 0 => 1.0,
            _ => return None,
        };
        Some(Cost { reads, writes: 1.0 })
    }

    fn cost_with(self, workload: &Workload, read: Cost) -> Cost {
        match workload.mix {
            Mix::Read => read,
            Mix::Write => self.write_cost(workload),
            Mix::Mixed { .. } => Cost::mixed(read, self.write_cost(workload), workload.read_share()),
        }
    }

    fn write_cost(self, workload: &Workload) -> Cost {
        match self {
            Shape::Single | Shape::Striped { .. } => Cost { reads: 0.0, writes: 1.0 },
            Shape::Mirrored { disks: copies } | Shape::StripedMirrors { copies, .. } => {
                Cost { reads: 0.0, writes: f64::from(copies) }
            }
            Shape::Parity { disks, parities, chunk_bytes } => {
                let data = disks - parities;
                let reads = |k: u32| if k == data { 0.0 } else { f64::from((k + parities).min(data - k)) };
                Cost {
                    reads: per_byte(workload, data, chunk_bytes, reads),
                    writes: per_byte(workload, data, chunk_bytes, |k| f64::from(k + parities)),
                }
            }
        }
    }
}

/// Member bytes per byte of `workload`, where a band of `k` chunks costs `members(k)` times its
/// rows: the mean over the requests that begin at each multiple of the block. Sequential requests
/// are costed one by one, too: nothing gathers them.
fn per_byte(workload: &Workload, data: u32, chunk_bytes: u64, members: impl Fn(u32) -> f64) -> f64 {
    let block = workload.block.bytes();
    let stripe = u64::from(data) * chunk_bytes;
    let period = block / gcd(block, stripe) * stripe;
    let mut cost = 0.0;
    let mut at = 0;
    while at < period {
        // The piece of this request in this stripe.
        let end = (at / block + 1).saturating_mul(block).min((at / stripe + 1) * stripe);
        for (k, rows) in bands(at % stripe, end - at, chunk_bytes) {
            cost += members(k) * rows as f64;
        }
        at = end;
    }
    cost / period as f64
}

/// The bands of `length` bytes from `start` on inside one stripe: how many chunks, how many rows.
fn bands(start: u64, length: u64, chunk: u64) -> impl Iterator<Item = (u32, u64)> {
    let last = start + length - 1;
    let (first_chunk, last_chunk) = (start / chunk, last / chunk);
    let (from, to) = (start % chunk, last % chunk + 1);
    let between = (last_chunk - first_chunk) as u32;
    // Rows from `from` on in the first chunk, rows up to `to` in the last, all rows between.
    let bands = if between == 0 {
        [(1, to - from), (0, 0), (0, 0)]
    } else if from < to {
        [(between, from), (between + 1, to - from), (between, chunk - to)]
    } else {
        [(between, to), (between - 1, from - to), (between, chunk - from)]
    };
    bands.into_iter().filter(|&(k, rows)| k > 0 && rows > 0)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn parity(disks: u32, parities: u32, chunk_kib: u64) -> Shape {
        Shape::Parity { disks, parities, chunk_bytes: chunk_kib << 10 }
    }

    fn cost(shape: Shape, workload: &str) -> (f64, f64) {
        let cost = shape.cost(&workload.parse().unwrap());
        (cost.reads, cost.writes)
    }

    #[test]
    fn small_writes_cost_what_the_textbook_says() {
        let write = "rand-write-4K-q1";
        assert_eq!(cost(Shape::Single, write), (0.0, 1.0));
        assert_eq!(cost(Shape::Striped { disks: 4 }, write), (0.0, 1.0));
        assert_eq!(cost(Shape::Mirrored { disks: 3 }, write), (0.0, 3.0));
        assert_eq!(cost(Shape::StripedMirrors { disks: 5, copies: 2 }, write), (0.0, 2.0));
        assert_eq!(cost(parity(8, 1, 64), write), (2.0, 2.0));
        assert_eq!(cost(parity(8, 2, 64), write), (3.0, 3.0));
        // Few members: reading the other data chunks is cheaper than reading old data and parity.
        assert_eq!(cost(parity(3, 1, 64), write), (1.0, 2.0));
        assert_eq!(cost(parity(4, 2, 64), write), (1.0, 3.0));
    }

    #[test]
    fn full_stripes_are_written_without_reading() {
        assert_eq!(cost(parity(5, 1, 256), "seq-write-1M"), (0.0, 5.0 / 4.0));
        assert_eq!(cost(parity(6, 2, 64), "seq-write-1M"), (0.0, 6.0 / 4.0));
    }

    #[test]
    fn large_writes_that_fill_no_stripe_cost_what_their_bands_cost() {
        // 512K chunks on 4 members: a stripe is 1.5M. Requests in three stripes' worth (3M):
        // [0,1M): k=2, read 1 (the third chunk); [1M,1.5M): k=1, read 2; and so on mirrored.
        let (reads, writes) = cost(parity(4, 1, 512), "seq-write-1M");
        assert!((reads - (0.5 + 1.0 + 1.0 + 0.5) / 3.0).abs() < 1e-9, "{reads}");
        assert!((writes - (1.5 + 1.0 + 1.0 + 1.5) / 3.0).abs() < 1e-9, "{writes}");
    }

    #[test]
    fn a_degraded_read_pays_for_the_share_that_is_missing() {
        let read = "rand-read-4K-q32".parse().unwrap();
        let degraded = parity(5, 1, 64).degraded_cost(&read).unwrap();
        assert!((degraded.reads - (4.0 / 5.0 + 4.0 / 5.0)).abs() < 1e-9, "{degraded:?}");
        // Whole stripes: parity is read in place of the missing chunk.
        let read = "seq-read-1M".parse().unwrap();
        assert!((parity(5, 1, 64).degraded_cost(&read).unwrap().reads - 1.0).abs() < 1e-9);
        assert_eq!(Shape::Mirrored { disks: 2 }.degraded_cost(&read), Some(Cost { reads: 1.0, writes: 0.0 }));
        assert_eq!(Shape::Striped { disks: 2 }.degraded_cost(&read), None);
    }

    #[test]
    fn a_mix_costs_the_mean_of_its_parts() {
        let (reads, writes) = cost(parity(8, 1, 64), "rand-mix70-4K-q32");
        assert!((reads - (0.7 + 0.3 * 2.0)).abs() < 1e-9 && (writes - 0.6).abs() < 1e-9);
        // 1 µs a read, 2 µs a write: 1.3 + 1.2 µs an I/O, so 400 000 a second.
        let time = Shape::cost(parity(8, 1, 64), &"rand-mix70-4K-q32".parse().unwrap()).time(1e-6, 2e-6);
        assert!((1.0 / time - 400_000.0).abs() < 1.0);
    }

    /// Against counting byte by byte, for every start and length in a small stripe.
    #[test]
    fn bands_hold_the_rows_of_the_chunks_they_say() {
        let (chunk, data) = (5, 4);
        for start in 0..chunk * data {
            for length in 1..=chunk * data - start {
                let mut counted = [0; 5];
                for row in 0..chunk {
                    let k = (0..data).filter(|c| (start..start + length).contains(&(c * chunk + row))).count();
                    counted[k] += 1;
                }
                counted[0] = 0;
                let mut said = [0; 5];
                bands(start, length, chunk).for_each(|(k, rows)| said[k as usize] += rows);
                assert_eq!(said, counted, "{start} + {length}");
            }
        }
    }
}
