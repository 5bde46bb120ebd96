//! Every kernel against the definition, and every loss against what was lost.

use super::*;

/// SplitMix64: bytes that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// `count` different exponents out of `0..bound`, in any order.
    fn exponents(&mut self, count: usize, bound: usize) -> Vec<u8> {
        let mut all: Vec<u8> = (0..bound as u8).collect();
        for i in 0..count {
            let other = i + self.below(bound - i);
            all.swap(i, other);
        }
        all.truncate(count);
        all
    }

    fn columns(&mut self, exponents: &[u8], length: usize) -> Vec<(Vec<u8>, u8)> {
        exponents.iter().map(|&exponent| (self.bytes(length), exponent)).collect()
    }
}

/// P and Q by the definition, without tables.
fn by_definition(columns: &[(Vec<u8>, u8)], length: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut p, mut q) = (vec![0; length], vec![0; length]);
    for (data, exponent) in columns {
        let factor = (0..*exponent).fold(1, |power, _| gf::double(power));
        for at in 0..length {
            p[at] ^= data[at];
            q[at] ^= gf::multiply_slowly(factor, data[at]);
        }
    }
    (p, q)
}

fn borrowed(columns: &[(Vec<u8>, u8)]) -> Vec<Column<'_>> {
    columns.iter().map(|(data, exponent)| (&data[..], *exponent)).collect()
}

fn slices(columns: &[(Vec<u8>, u8)]) -> Vec<&[u8]> {
    columns.iter().map(|(data, _)| &data[..]).collect()
}

/// The exponents a stripe of `count` columns may have: in order, shuffled (both Horner), with the gaps of a DDF layout, any.
fn kinds_of_exponents(noise: &mut Noise, count: usize) -> [Vec<u8>; 4] {
    let ddf = (0..=count as u8 + 1).filter(|e| *e != 1 && *e != 2).collect();
    [(0..count as u8).collect(), noise.exponents(count, count), ddf, noise.exponents(count, 254)]
}

/// Lengths around the widths of vectors, and around a tile; fewer where an interpreter counts every byte.
const LENGTHS: &[usize] = if cfg!(miri) {
    &[0, 7, 65, 129]
} else {
    &[0, 1, 7, 8, 31, 33, 63, 64, 65, 127, 128, 129, 512, 1023, 4096, 4097, 9001]
};

/// Numbers of columns: around what one pass takes, and beyond what md does.
const COUNTS: &[usize] =
    if cfg!(miri) { &[0, 1, 3, 9, 17] } else { &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 25, 33, 62, 64, 65, 100] };

#[test]
fn every_kernel_encodes_p_and_q_by_the_definition() {
    let mut noise = Noise(1);
    for &count in COUNTS {
        for exponents in kinds_of_exponents(&mut noise, count) {
            for &length in LENGTHS {
                let columns = noise.columns(&exponents, length);
                let expected = by_definition(&columns, length);
                for kernel in Kernel::all_supported() {
                    let case = format!("{kernel}, {length} bytes, exponents {exponents:?}");
                    let (mut p, mut q) = (vec![0xa5; length], vec![0x5a; length]);
                    kernel.encode_pq(&mut p, &mut q, &borrowed(&columns));
                    assert!((&p, &q) == (&expected.0, &expected.1), "P and Q: {case}");
                    p.fill(0xa5);
                    kernel.encode_p(&mut p, &slices(&columns));
                    assert!(p == expected.0, "P: {case}");
                    q.fill(0x5a);
                    kernel.encode_q(&mut q, &borrowed(&columns));
                    assert!(q == expected.1, "Q: {case}");
                }
            }
        }
    }
}

/// Slices begin anywhere and the bytes around the outputs belong to someone else.
#[test]
fn at_any_alignment_only_the_outputs_are_written() {
    let mut noise = Noise(2);
    let memory = noise.bytes(4 * 1024);
    for round in 0..if cfg!(miri) { 10 } else { 200 } {
        let length = noise.below(700);
        let exponents = noise.exponents(3, if round % 2 == 0 { 3 } else { 254 });
        let columns: Vec<(Vec<u8>, u8)> = (exponents.iter().enumerate())
            .map(|(i, &exponent)| (memory[i * 1024 + noise.below(128)..][..length].to_vec(), exponent))
            .collect();
        let shifted: Vec<(Vec<u8>, usize)> = (columns.iter())
            .map(|(data, _)| {
                let skip = noise.below(64);
                ([&vec![0; skip][..], &data[..]].concat(), skip)
            })
            .collect();
        let data: Vec<Column<'_>> =
            shifted.iter().zip(&exponents).map(|((bytes, skip), exponent)| (&bytes[*skip..], *exponent)).collect();
        let expected = by_definition(&columns, length);
        for kernel in Kernel::all_supported() {
            let (at_p, at_q) = (noise.below(64), noise.below(64));
            let (mut p, mut q) = (vec![0xee; 1024], vec![0xee; 1024]);
            kernel.encode_pq(&mut p[at_p..][..length], &mut q[at_q..][..length], &data);
            for (out, at, expected) in [(&p, at_p, &expected.0), (&q, at_q, &expected.1)] {
                assert!(out[at..][..length] == expected[..], "{kernel}, {length} bytes at {at}");
                let around = out[..at].iter().chain(&out[at + length..]);
                assert!(around.copied().all(|byte| byte == 0xee), "{kernel} wrote around {length} bytes at {at}");
            }
        }
    }
}

#[test]
fn a_changed_column_brings_parity_up_to_date_without_the_others() {
    let mut noise = Noise(3);
    for &length in LENGTHS {
        let exponents = noise.exponents(7, 254);
        let mut columns = noise.columns(&exponents, length);
        let (old_p, old_q) = by_definition(&columns, length);
        let old = columns.clone();
        for changed in [1, 4, 5] {
            columns[changed].0 = noise.bytes(length);
        }
        let (new_p, new_q) = by_definition(&columns, length);
        for kernel in Kernel::all_supported() {
            let (mut p, mut q) = (old_p.clone(), old_q.clone());
            for changed in [1, 4, 5] {
                kernel.update_p(&mut p, &old[changed].0, &columns[changed].0);
                kernel.update_q(&mut q, &old[changed].0, &columns[changed].0, exponents[changed]);
            }
            assert!(p == new_p && q == new_q, "{kernel}, {length} bytes, one by one");

            let (mut p, mut q) = (old_p.clone(), old_q.clone());
            let changes: Vec<Column<'_>> = [1, 4, 5]
                .iter()
                .flat_map(|&i| [(&old[i].0[..], exponents[i]), (&columns[i].0[..], exponents[i])])
                .collect();
            kernel.add_pq(&mut p, &mut q, &changes);
            assert!(p == new_p && q == new_q, "{kernel}, {length} bytes, all at once");
        }
    }
}

/// All columns and all pairs of columns of stripes of up to ten, and a sample of those of a wide one.
#[test]
fn every_one_and_two_lost_columns_come_back() {
    let mut noise = Noise(4);
    let counts: &[usize] = if cfg!(miri) { &[1, 2, 4] } else { &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 62] };
    for &count in counts {
        for exponents in kinds_of_exponents(&mut noise, count) {
            let length = [0, 1, 64, 200, 512, 4100][noise.below(if cfg!(miri) { 3 } else { 6 })];
            let columns = noise.columns(&exponents, length);
            let (p, q) = by_definition(&columns, length);
            for kernel in Kernel::all_supported() {
                for x in (0..count).step_by(1 + count / 11) {
                    let case = format!("{kernel}, {length} bytes, exponents {exponents:?}, lost {x}");
                    let (lost, exponent) = &columns[x];
                    let mut survivors = columns.clone();
                    survivors.remove(x);
                    let mut out = vec![0xa5; length];
                    kernel.recover_from_p(&mut out, &p, &slices(&survivors));
                    assert!(out == *lost, "from P: {case}");
                    out.fill(0xa5);
                    kernel.recover_from_q(&mut out, *exponent, &q, &borrowed(&survivors));
                    assert!(out == *lost, "from Q: {case}");

                    for y in (0..count).filter(|y| *y != x).step_by(1 + count / 11) {
                        let survivors: Vec<Column<'_>> = (0..count)
                            .filter(|i| *i != x && *i != y)
                            .map(|i| (&columns[i].0[..], columns[i].1))
                            .collect();
                        let (mut out_x, mut out_y) = (vec![0xa5; length], vec![0x5a; length]);
                        let lost_x = (&mut out_x[..], exponents[x]);
                        kernel.recover_two(lost_x, (&mut out_y, exponents[y]), &p, &q, &survivors);
                        assert!(out_x == columns[x].0 && out_y == columns[y].0, "two: {case} and {y}");
                    }
                }
            }
        }
    }
}

/// What is written past the caches is the same: at addresses a vector can be streamed to and at others.
#[test]
#[cfg_attr(miri, ignore = "megabytes")]
fn what_is_too_large_for_the_caches_is_computed_alike() {
    let mut noise = Noise(7);
    for count in [1, 2, 4, 8, 9, 16, 20] {
        let length = Kernel::cached_bytes() / (count + 1) + noise.below(5000);
        for (exponents, skew) in [((0..count as u8).collect(), 0), (noise.exponents(count, 254), 0), (vec![9; 1], 3)] {
            let columns = noise.columns(&exponents, length);
            let (mut p, mut q) = (vec![0; length], vec![0; length]);
            Kernel::NAIVE.encode_pq(&mut p, &mut q, &borrowed(&columns));
            let mut room = [vec![0xee; length + 128], vec![0xee; length + 128]];
            let [one, other] = room.each_mut().map(|room| {
                let at = room.as_ptr().align_offset(64) + skew;
                &mut room[at..at + length]
            });
            for kernel in Kernel::all_supported() {
                let case = format!("{kernel}, {length} bytes from {skew}, exponents {exponents:?}");
                kernel.encode_pq(one, other, &borrowed(&columns));
                assert!(*one == p && *other == q, "P and Q: {case}");
                one.fill(0xa5);
                kernel.encode_p(one, &slices(&columns));
                assert!(*one == p, "P: {case}");
                other.fill(0xa5);
                kernel.encode_q(other, &borrowed(&columns));
                assert!(*other == q, "Q: {case}");
                if let [first, second, rest @ ..] = &columns[..] {
                    let rest = borrowed(rest);
                    kernel.recover_two((one, first.1), (other, second.1), &p, &q, &rest);
                    assert!(*one == first.0 && *other == second.0, "two: {case}");
                }
            }
        }
    }
}

/// "Hello World?" cut in three. The first byte of Q is 48 + 2 · 6f + 4 · 72 = 48 + de + d5 = 43, without and with a carry.
#[test]
fn a_sum_worked_out_by_hand() {
    let data: [Column<'_>; 3] = [(b"Hell", 0), (b"o Wo", 1), (b"rld?", 2)];
    for kernel in Kernel::all_supported() {
        let (mut p, mut q) = ([0; 4], [0; 4]);
        kernel.encode_pq(&mut p, &mut q, &data);
        assert_eq!(p, [0x55, 0x29, 0x5f, 0x3c], "{kernel}");
        assert_eq!(q, [0x43, 0x88, 0x4f, 0x4e], "{kernel}");
    }
}

/// The column of ones with exponent e gives Q = 2^e: the first powers are those in every RAID6 paper and in md's tables.
#[test]
fn the_powers_of_two_are_those_of_linux_md() {
    let powers = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1d, 0x3a, 0x74, 0xe8, 0xcd, 0x87, 0x13, 0x26];
    for kernel in Kernel::all_supported() {
        for (exponent, power) in powers.into_iter().enumerate() {
            let mut q = [0; 512];
            kernel.encode_q(&mut q, &[(&[1; 512], exponent as u8)]);
            assert_eq!(q, [power; 512], "{kernel}, 2^{exponent}");
        }
    }
}

fn syndromes(columns: &[(Vec<u8>, u8)], p: &[u8], q: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut p_syndrome, mut q_syndrome) = (p.to_vec(), q.to_vec());
    Kernel::current().add_pq(&mut p_syndrome, &mut q_syndrome, &borrowed(columns));
    (p_syndrome, q_syndrome)
}

#[test]
fn one_wrong_column_is_named_and_repaired_by_its_syndrome() {
    let mut noise = Noise(5);
    let exponents = noise.exponents(9, 254);
    let columns = noise.columns(&exponents, 512);
    let (p, q) = by_definition(&columns, 512);
    let name = |columns: &[(Vec<u8>, u8)], p: &[u8], q: &[u8]| {
        let (p_syndrome, q_syndrome) = syndromes(columns, p, q);
        locate(&p_syndrome, &q_syndrome, &exponents)
    };

    assert_eq!(name(&columns, &p, &q), Culprit::None);
    for wrong in 0..9 {
        let mut columns = columns.clone();
        let right = columns[wrong].0.clone();
        for at in [3, 77, 500] {
            columns[wrong].0[at] ^= 1 + noise.below(255) as u8;
        }
        let (p_syndrome, _) = syndromes(&columns, &p, &q);
        assert_eq!(name(&columns, &p, &q), Culprit::Data { exponent: exponents[wrong] });
        Kernel::current().add_p(&mut columns[wrong].0, &[&p_syndrome]);
        assert_eq!(columns[wrong].0, right);
    }
    let mut rotten = p.clone();
    rotten[100] ^= 4;
    assert_eq!(name(&columns, &rotten, &q), Culprit::P);
    rotten = q.clone();
    rotten[100] ^= 4;
    assert_eq!(name(&columns, &p, &rotten), Culprit::Q);
}

#[test]
fn two_wrong_columns_or_one_that_does_not_exist_are_unknown() {
    let mut noise = Noise(6);
    let exponents = [0, 1, 2, 5];
    let mut columns = noise.columns(&exponents, 64);
    let (p, mut q) = by_definition(&columns, 64);
    columns[1].0[10] ^= 1;
    columns[3].0[11] ^= 1;
    let (p_syndrome, q_syndrome) = syndromes(&columns, &p, &q);
    assert_eq!(locate(&p_syndrome, &q_syndrome, &exponents), Culprit::Unknown);

    // A data column and Q, at different bytes.
    columns[3].0[11] ^= 1;
    q[20] ^= 1;
    let (p_syndrome, q_syndrome) = syndromes(&columns, &p, &q);
    assert_eq!(locate(&p_syndrome, &q_syndrome, &exponents), Culprit::Unknown);

    assert_eq!(locate(&[1], &[8], &exponents), Culprit::Unknown, "2^3 is no column's factor");
    assert_eq!(locate(&[1], &[32], &exponents), Culprit::Data { exponent: 5 });
}

#[test]
fn a_kernel_is_found_by_its_name_and_no_other() {
    for kernel in Kernel::all_supported() {
        assert_eq!(Kernel::named(kernel.name()), Ok(kernel));
    }
    let error = Kernel::named("sse9").expect_err("no such kernel");
    assert_eq!(
        error.to_string(),
        "there is no parity kernel \"sse9\"; there are naive, portable, neon, avx2, gfni256, avx512, gfni"
    );
    assert!(Kernel::best() != Kernel::NAIVE);
}
