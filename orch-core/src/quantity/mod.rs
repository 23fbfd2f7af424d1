//! Exact resource quantities: `100m` of CPU, `1.5Gi` of memory.
//!
//! A [`Quantity`] counts in billionths, the finest step that Kubernetes knows, so that sums and comparisons are exact. It
//! remembers which notation it came in and writes itself in the canonical form of that notation.
//!
//! ```
//! use orch_core::quantity::Quantity;
//!
//! # fn main() -> Result<(), orch_core::quantity::ParseError> {
//! let half: Quantity = "0.5".parse()?;
//! let cpu = half + "250m".parse()?;
//! assert_eq!(cpu.to_string(), "750m");
//! assert_eq!(cpu.milli_value(), 750);
//! assert_eq!("1.5Gi".parse::<Quantity>()?.to_string(), "1536Mi");
//! # Ok(())
//! # }
//! ```

mod format;
mod parse;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use parse::ParseError;

const NANOS: i128 = 1_000_000_000;

/// The notation of a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `n`, `u`, `m`, none, `k`, `M`, `G`, `T`, `P`, `E`: powers of 1000.
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`: powers of 1024.
    BinarySi,
    /// `e3`, `e6`, …: powers of ten.
    DecimalExponent,
}

/// An exact amount, in billionths, with its notation.
///
/// Equality, ordering and hash go by the amount alone: `1024` equals `1Ki`. Amounts end at about 1.7 × 10²⁹; sums beyond stay there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::DecimalSi,
    };

    /// `value` whole units.
    pub const fn new(value: i64, format: Format) -> Self {
        Quantity {
            nanos: value as i128 * NANOS,
            format,
        }
    }

    /// `value` thousandths, as CPU is counted.
    pub const fn from_millis(value: i64) -> Self {
        Quantity {
            nanos: value as i128 * (NANOS / 1000),
            format: Format::DecimalSi,
        }
    }

    /// `value` bytes, written in powers of 1024.
    pub const fn from_bytes(value: i64) -> Self {
        Quantity::new(value, Format::BinarySi)
    }

    /// The notation.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whole units. A fraction rounds away from zero; what does not fit is the nearest that does.
    pub fn value(&self) -> i64 {
        saturate(self.scaled(NANOS))
    }

    /// Thousandths, rounded like [`value`](Self::value).
    pub fn milli_value(&self) -> i64 {
        saturate(self.scaled(NANOS / 1000))
    }

    /// Whether it is nothing.
    pub const fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub const fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// An approximation.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// The amount in steps of `step` billionths, rounded away from zero.
    fn scaled(&self, step: i128) -> i128 {
        let whole = self.nanos / step;
        match self.nanos % step {
            0 => whole,
            _ => whole + self.nanos.signum(),
        }
    }

    /// The notation of a sum: that of the first, unless it is nothing.
    fn format_with(&self, other: &Quantity) -> Format {
        if self.is_zero() { other.format } else { self.format }
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Quantity) -> Quantity {
        Quantity {
            nanos: self.nanos.saturating_add(other.nanos),
            format: self.format_with(&other),
        }
    }
}

impl Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Quantity) -> Quantity {
        Quantity {
            nanos: self.nanos.saturating_sub(other.nanos),
            format: self.format_with(&other),
        }
    }
}

impl Neg for Quantity {
    type Output = Quantity;
    fn neg(self) -> Quantity {
        Quantity {
            nanos: self.nanos.saturating_neg(),
            ..self
        }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(iter: I) -> Quantity {
        iter.fold(Quantity::ZERO, Add::add)
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = ParseError;
    fn try_from(quantity: &ApiQuantity) -> Result<Self, ParseError> {
        quantity.0.parse()
    }
}

impl From<Quantity> for ApiQuantity {
    fn from(quantity: Quantity) -> Self {
        ApiQuantity(quantity.to_string())
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From a string or, as upstream also takes it, a JSON number.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<Quantity, E> {
                s.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Quantity, E> {
                self.visit_str(&n.to_string())
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Quantity, E> {
                self.visit_str(&n.to_string())
            }
            fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Quantity, E> {
                self.visit_str(&n.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
