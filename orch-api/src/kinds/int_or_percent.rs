//! Numbers that may also be given as a share.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::check::{Check, Path};

/// The percentage, when it is one.
pub(crate) fn percent(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => {
            let digits = text.strip_suffix('%')?;
            if digits.bytes().all(|b| b.is_ascii_digit()) {
                digits.parse().ok()
            } else {
                None
            }
        }
    }
}

/// Whether it comes to nothing of anything.
pub(crate) fn is_zero(value: Option<&IntOrString>) -> bool {
    match value {
        None => true,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(share) => percent(share) == Some(0),
    }
}

/// A number that is not negative, or a share.
pub(crate) fn validate(check: &mut Check, value: &IntOrString, path: &Path) {
    match value {
        IntOrString::Int(number) => check.not_negative(path, i64::from(*number)),
        IntOrString::String(text) => {
            if percent(value).is_none() {
                let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                           '93%', regex used for validation is '[0-9]+%')";
                check.invalid(path, text, why);
            }
        }
    }
}

/// A share of at most all.
pub(crate) fn at_most_all(check: &mut Check, value: &IntOrString, path: &Path) {
    if percent(value).is_some_and(|percent| percent > 100) {
        check.invalid(path, value, "must not be greater than 100%");
    }
}
