//! The canonical written form.

use std::fmt;

use super::{Format, NANOS, Quantity};

const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// No precision is lost, no fraction is written, and the suffix is the largest possible. Two exceptions, both upstream's: amounts in binary notation between -1024 and 1024 are written
/// decimally, and fractions of larger ones are rounded away from zero.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        match self.format {
            Format::BinarySi if self.nanos.unsigned_abs() >= 1024 * NANOS.unsigned_abs() => {
                let (mantissa, power) = reduce(self.scaled(NANOS), 1024, BINARY.len() - 1);
                write!(f, "{mantissa}{}", BINARY[power])
            }
            Format::BinarySi | Format::DecimalSi => {
                let (mantissa, power) = reduce(self.nanos, 1000, DECIMAL.len() - 1);
                write!(f, "{mantissa}{}", DECIMAL[power])
            }
            Format::DecimalExponent => {
                let (mantissa, power) = reduce(self.nanos, 1000, usize::MAX);
                match (power * 3).cast_signed() - 9 {
                    0 => write!(f, "{mantissa}"),
                    exponent => write!(f, "{mantissa}e{exponent}"),
                }
            }
        }
    }
}

/// Takes as many factors of `base` out of `value` as it has, at most `limit`.
fn reduce(mut value: i128, base: i128, limit: usize) -> (i128, usize) {
    let mut power = 0;
    while power < limit && value % base == 0 {
        value /= base;
        power += 1;
    }
    (value, power)
}
