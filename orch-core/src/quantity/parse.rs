//! Reading quantities.

use std::str::FromStr;

use super::{Format, NANOS, Quantity};

/// Why a text is not a quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It is not built like one.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is none.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// What the number is to be multiplied with.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i64),
    TwoToThe(u32),
}

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl FromStr for Quantity {
    type Err = ParseError;

    /// Digits finer than a billionth round away from zero. Amounts in binary notation end at 2⁶³ − 1.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts = split(text)?;
        let (format, scale) = suffix(parts.suffix)?;
        let nanos = match scale {
            Scale::Ten(exponent) => scaled_by_ten(&parts, exponent),
            Scale::TwoToThe(shift) => scaled_by_two(&parts, shift),
        };
        let nanos = if format == Format::BinarySi {
            nanos.min(i128::from(i64::MAX) * NANOS)
        } else {
            nanos
        };
        // A fraction of a unit cannot be told in powers of 1024.
        let format = match format {
            Format::BinarySi if nanos > 0 && nanos < NANOS => Format::DecimalSi,
            format => format,
        };
        let nanos = if parts.negative { -nanos } else { nanos };
        Ok(Quantity { nanos, format })
    }
}

fn split(text: &str) -> Result<Parts<'_>, ParseError> {
    let (negative, rest) = match text.as_bytes() {
        [] => return Err(ParseError::Format),
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, rest) = digits(rest);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if !is_suffix_shaped(rest) {
        return Err(ParseError::Format);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(ParseError::Number);
    }
    Ok(Parts {
        negative,
        whole,
        fraction,
        suffix: rest,
    })
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .bytes()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Letters, then perhaps a sign, then digits.
fn is_suffix_shaped(text: &str) -> bool {
    let rest = text.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

fn suffix(text: &str) -> Result<(Format, Scale), ParseError> {
    let (format, scale) = match text {
        "" => (Format::DecimalSi, Scale::Ten(0)),
        "n" => (Format::DecimalSi, Scale::Ten(-9)),
        "u" => (Format::DecimalSi, Scale::Ten(-6)),
        "m" => (Format::DecimalSi, Scale::Ten(-3)),
        "k" => (Format::DecimalSi, Scale::Ten(3)),
        "M" => (Format::DecimalSi, Scale::Ten(6)),
        "G" => (Format::DecimalSi, Scale::Ten(9)),
        "T" => (Format::DecimalSi, Scale::Ten(12)),
        "P" => (Format::DecimalSi, Scale::Ten(15)),
        "E" => (Format::DecimalSi, Scale::Ten(18)),
        "Ki" => (Format::BinarySi, Scale::TwoToThe(10)),
        "Mi" => (Format::BinarySi, Scale::TwoToThe(20)),
        "Gi" => (Format::BinarySi, Scale::TwoToThe(30)),
        "Ti" => (Format::BinarySi, Scale::TwoToThe(40)),
        "Pi" => (Format::BinarySi, Scale::TwoToThe(50)),
        "Ei" => (Format::BinarySi, Scale::TwoToThe(60)),
        other => {
            let exponent = other.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
            let exponent = exponent.parse().map_err(|_| ParseError::Suffix)?;
            (Format::DecimalExponent, Scale::Ten(exponent))
        }
    };
    Ok((format, scale))
}

/// The amount in billionths of `whole.fraction × 10^exponent`.
fn scaled_by_ten(parts: &Parts<'_>, exponent: i64) -> i128 {
    let all = || parts.whole.bytes().chain(parts.fraction.bytes());
    let significant = all().skip_while(|b| *b == b'0').count();
    if significant == 0 {
        return 0;
    }
    // The last digit stands for 10^unit billionths.
    let unit = exponent
        .saturating_add(9)
        .saturating_sub_unsigned(parts.fraction.len() as u64);
    let dropped = usize::try_from(unit.saturating_neg()).unwrap_or(0);
    let total = parts.whole.len() + parts.fraction.len();
    let kept = total.saturating_sub(dropped);
    let mut amount: i128 = 0;
    let mut lost = false;
    for (place, byte) in all().enumerate() {
        let digit = i128::from(byte - b'0');
        if place < kept {
            amount = amount.saturating_mul(10).saturating_add(digit);
        } else {
            lost |= digit != 0;
        }
    }
    let factor = u32::try_from(unit.max(0))
        .ok()
        .and_then(|unit| 10i128.checked_pow(unit));
    let amount = match factor {
        Some(factor) => amount.saturating_mul(factor),
        None if amount == 0 => 0,
        None => i128::MAX,
    };
    amount.saturating_add(i128::from(lost))
}

/// The amount in billionths of `whole.fraction × 2^shift`, with `shift` at most 60.
fn scaled_by_two(parts: &Parts<'_>, shift: u32) -> i128 {
    let whole = parts.whole.bytes().fold(0i128, |amount, byte| {
        amount.saturating_mul(10).saturating_add(i128::from(byte - b'0'))
    });
    // 18 digits of fraction: 10^18 × 2^60 fits. Finer ones only say that there is more, which rounds up.
    let (near, far) = parts.fraction.split_at(parts.fraction.len().min(18));
    let mut fraction = near
        .bytes()
        .fold(0i128, |amount, byte| amount * 10 + i128::from(byte - b'0'));
    fraction *= 10i128.pow(18 - near.len() as u32);
    let product = (fraction << shift) / 1_000_000_000;
    let inexact = (fraction << shift) % 1_000_000_000 != 0 || far.bytes().any(|b| b != b'0');
    whole
        .saturating_mul(1 << shift)
        .saturating_mul(NANOS)
        .saturating_add(product)
        .saturating_add(i128::from(inexact))
}
