//! The field GF(2^8) with the polynomial 0x11d.
//!
//! A byte is a polynomial over {0, 1}, bit i the coefficient of x^i. A sum is the XOR, a product the
//! product of the polynomials modulo 0x11d. 2 (the polynomial x) generates the field: its powers
//! 2^0 … 2^254 are the 255 elements that are not zero, so a product is a sum of logarithms.

/// The polynomial without x^8: what a carry out of bit 7 adds.
pub const REDUCTION: u8 = 0x1d;

/// The number of elements that are not zero, and the period of the powers of 2.
pub const ORDER: usize = 255;

/// `POWERS[e]` is 2^e, twice over so that a sum of two logarithms needs no reduction.
static POWERS: [u8; 2 * ORDER] = {
    let mut powers = [0; 2 * ORDER];
    let mut power = 1;
    let mut exponent = 0;
    while exponent < 2 * ORDER {
        powers[exponent] = power;
        power = double(power);
        exponent += 1;
    }
    powers
};

/// `LOGARITHMS[2^e]` is e. Zero has no logarithm; its entry is never read.
static LOGARITHMS: [u8; 256] = {
    let mut logarithms = [0; 256];
    let mut power = 1;
    let mut exponent = 0;
    while exponent < ORDER {
        logarithms[power as usize] = exponent as u8;
        power = double(power);
        exponent += 1;
    }
    logarithms
};

/// 2 · x.
#[inline]
pub const fn double(x: u8) -> u8 {
    (x << 1) ^ (REDUCTION * (x >> 7))
}

/// x · y by the definition: shift, add, reduce.
pub const fn multiply_slowly(x: u8, y: u8) -> u8 {
    let mut product = 0;
    let mut bit = 8;
    while bit > 0 {
        bit -= 1;
        product = double(product) ^ (x * (y >> bit & 1));
    }
    product
}

/// x · y.
#[inline]
pub fn multiply(x: u8, y: u8) -> u8 {
    if x == 0 || y == 0 {
        return 0;
    }
    POWERS[LOGARITHMS[x as usize] as usize + LOGARITHMS[y as usize] as usize]
}

/// `HALVES[f]`: the products of f with 0 … 15, then those with 0 … 15 times 16.
pub static HALVES: [[u8; 32]; 256] = {
    let mut tables = [[0; 32]; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut half = 0;
        while half < 16 {
            tables[factor][half] = multiply_slowly(factor as u8, half as u8);
            tables[factor][16 + half] = multiply_slowly(factor as u8, (half << 4) as u8);
            half += 1;
        }
        factor += 1;
    }
    tables
};

/// 2^`exponent`.
pub fn power(exponent: u8) -> u8 {
    POWERS[exponent as usize]
}

/// 1 / x, for x not zero.
pub fn inverse(x: u8) -> u8 {
    assert!(x != 0, "zero has no inverse");
    POWERS[ORDER - LOGARITHMS[x as usize] as usize]
}

/// The e with 2^e = x / y, both not zero.
pub fn exponent_of_quotient(x: u8, y: u8) -> u8 {
    assert!(x != 0 && y != 0, "zero has no logarithm");
    ((LOGARITHMS[x as usize] as usize + ORDER - LOGARITHMS[y as usize] as usize) % ORDER) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_by_logarithms_is_the_product_by_definition() {
        for x in 0..=255 {
            for y in 0..=255 {
                assert_eq!(multiply(x, y), multiply_slowly(x, y), "{x} * {y}");
            }
        }
    }

    #[test]
    fn every_element_but_zero_is_a_power_of_two_and_has_an_inverse() {
        for x in 1..=255 {
            assert_eq!(multiply(x, inverse(x)), 1);
            assert_eq!(power(exponent_of_quotient(x, 1)), x);
        }
    }
}
