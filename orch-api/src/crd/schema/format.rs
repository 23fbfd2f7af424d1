//! The formats of strings and numbers that are checked. Others are taken and mean nothing, as upstream has it.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::Date;

macro_rules! formats {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// A format that values are held against.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Format {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Format {
            /// The format of that name, if it is one that means something.
            pub(crate) fn parse(name: &str) -> Option<Self> {
                // Upstream looks formats up without their dashes.
                match name.replace('-', "").as_str() {
                    $(text if text == $name.replace('-', "") => Some(Self::$variant),)*
                    "datetime" => Some(Self::DateTime),
                    _ => None,
                }
            }

            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

formats! {
    Bsonobjectid "bsonobjectid",
    Byte "byte",
    Cidr "cidr",
    Creditcard "creditcard",
    Date "date",
    DateTime "date-time",
    Duration "duration",
    Email "email",
    Hexcolor "hexcolor",
    Hostname "hostname",
    Int32 "int32",
    Int64 "int64",
    Ipv4 "ipv4",
    Ipv6 "ipv6",
    Mac "mac",
    Rgbcolor "rgbcolor",
    Ssn "ssn",
    Uri "uri",
    Uuid "uuid",
    Uuid3 "uuid3",
    Uuid4 "uuid4",
    Uuid5 "uuid5",
    ShortName "k8s-short-name",
    LongName "k8s-long-name",
}

impl Format {
    /// The numbers that have it.
    pub(crate) fn range(self) -> Option<(f64, f64)> {
        match self {
            Self::Int32 => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
            _ => None,
        }
    }

    /// Whether a text has it. Formats of numbers say nothing of texts.
    pub(crate) fn fits(self, text: &str) -> bool {
        match self {
            Self::Int32 | Self::Int64 => true,
            Self::Bsonobjectid => text.len() == 24 && is_hex(text),
            Self::Byte => STANDARD.decode(text).is_ok(),
            Self::Cidr => text.parse::<orch_core::ipam::Cidr>().is_ok(),
            Self::Creditcard => is_card(text),
            Self::Date => text.len() == 10 && text.parse::<Date>().is_ok(),
            Self::DateTime => is_time(text),
            Self::Duration => is_duration(text),
            Self::Email => is_email(text),
            Self::Hexcolor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && is_hex(digits)
            }
            Self::Hostname => is_hostname(text),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Mac => is_mac(text),
            Self::Rgbcolor => is_rgb(text),
            Self::Ssn => shape(text, "ddd-dd-dddd") || shape(text, "ddd dd dddd") || shape(text, "ddddddddd"),
            Self::Uri => text
                .parse::<http::Uri>()
                .is_ok_and(|uri| uri.scheme().is_some() || text.starts_with('/')),
            Self::Uuid => is_uuid(text, None),
            Self::Uuid3 => is_uuid(text, Some('3')),
            Self::Uuid4 => is_uuid(text, Some('4')),
            Self::Uuid5 => is_uuid(text, Some('5')),
            Self::ShortName => orch_core::names::dns1123_label(text).is_empty(),
            Self::LongName => orch_core::names::dns1123_subdomain(text).is_empty(),
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a text is like a model in which `d` stands for a digit and `x` for a hexadecimal one.
fn shape(text: &str, model: &str) -> bool {
    text.len() == model.len()
        && text
            .bytes()
            .zip(model.bytes())
            .all(|(found, wanted)| match wanted {
                b'd' => found.is_ascii_digit(),
                b'x' => found.is_ascii_hexdigit(),
                other => found == other,
            })
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let plain = text.replace('-', "");
    let places = shape(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") || shape(text, &"x".repeat(32));
    places && version.is_none_or(|version| plain.chars().nth(12) == Some(version))
}

fn is_time(text: &str) -> bool {
    // RFC 3339: a date, a T, a time with seconds and an offset.
    text.len() >= 20
        && text
            .as_bytes()
            .get(10)
            .is_some_and(|sign| matches!(sign, b'T' | b't'))
        && text.parse::<jiff::Timestamp>().is_ok()
}

/// Go's durations, `1h30m`, and those in words that upstream takes too, `2 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 26] = [
        "ns", "nano", "us", "µs", "μs", "micro", "ms", "milli", "s", "sec", "second", "seconds", "m", "min",
        "minute", "minutes", "h", "hr", "hour", "hours", "d", "day", "days", "w", "week", "weeks",
    ];
    let mut rest = text.trim().trim_start_matches(['-', '+']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|sign: char| !sign.is_ascii_digit() && sign != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after
            .find(|sign: char| !sign.is_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if number.parse::<f64>().is_err() || !UNITS.contains(&unit) {
            return false;
        }
        rest = after.trim_start();
        parts += 1;
    }
    parts > 0
}

fn is_email(text: &str) -> bool {
    let bare = match (text.rfind('<'), text.ends_with('>')) {
        (Some(start), true) => &text[start + 1..text.len() - 1],
        _ => text,
    };
    match bare.rsplit_once('@') {
        Some((user, domain)) => {
            !user.is_empty()
                && !domain.is_empty()
                && !user.contains(|sign: char| sign.is_whitespace() || sign == '@')
                && !domain.contains(char::is_whitespace)
        }
        None => false,
    }
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

fn is_mac(text: &str) -> bool {
    let groups = |sign: char, digits: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(sign).collect();
        counts.contains(&parts.len()) && parts.iter().all(|part| part.len() == digits && is_hex(part))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn is_rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    inner.is_some_and(|inner| {
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
    })
}

/// Luhn's check over 13 to 19 digits.
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|sign| sign.to_digit(10)).collect();
    let only = text
        .chars()
        .all(|sign| sign.is_ascii_digit() || matches!(sign, ' ' | '-'));
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    only && (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
}
