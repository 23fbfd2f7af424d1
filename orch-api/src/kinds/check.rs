//! Collects what is wrong with an object while its fields are walked.

pub(crate) use orch_core::field::Path;
use orch_core::field::{ErrorList, FieldError};
use serde::Serialize;
use serde_json::Value;

use super::format;

/// The faults found so far. Rules take it by `&mut` and add to it, so that they compose without lists of lists.
#[derive(Debug, Default)]
pub(crate) struct Check {
    errors: ErrorList,
}

impl Check {
    /// Runs one set of rules and gives what it found.
    pub(crate) fn run(rules: impl FnOnce(&mut Self)) -> ErrorList {
        let mut check = Self::default();
        rules(&mut check);
        check.errors
    }

    pub(crate) fn required(&mut self, path: &Path, detail: &str) {
        self.errors.push(FieldError::required(path, detail));
    }

    pub(crate) fn invalid(&mut self, path: &Path, value: impl Serialize, detail: impl Into<String>) {
        self.errors.push(FieldError::invalid(path, json(value), detail));
    }

    pub(crate) fn forbidden(&mut self, path: &Path, detail: impl Into<String>) {
        self.errors.push(FieldError::forbidden(path, detail));
    }

    pub(crate) fn duplicate(&mut self, path: &Path, value: impl Serialize) {
        self.errors.push(FieldError::duplicate(path, json(value)));
    }

    pub(crate) fn not_found(&mut self, path: &Path, value: &str) {
        self.errors.push(FieldError::not_found(path, value));
    }

    /// `value` is none of `supported`, which upstream lists in alphabetical order.
    pub(crate) fn not_supported(&mut self, path: &Path, value: &str, supported: &[&str]) {
        let mut supported = supported.to_vec();
        supported.sort_unstable();
        self.errors
            .push(FieldError::not_supported(path, value, supported));
    }

    pub(crate) fn too_long(&mut self, path: &Path, max: usize) {
        self.errors.push(FieldError::too_long(path, max));
    }

    pub(crate) fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        self.errors.push(FieldError::too_many(path, actual, max));
    }

    /// One `Invalid` for each fault of a text's syntax.
    pub(crate) fn faults(&mut self, path: &Path, value: &str, faults: Vec<String>) {
        for fault in faults {
            self.invalid(path, value, fault);
        }
    }

    /// A needed text of a certain syntax.
    pub(crate) fn name(&mut self, path: &Path, value: &str, syntax: fn(&str) -> Vec<String>) {
        if value.is_empty() {
            self.required(path, "");
        } else {
            self.faults(path, value, syntax(value));
        }
    }

    /// A needed text of any syntax.
    pub(crate) fn present(&mut self, path: &Path, value: &str) {
        if value.is_empty() {
            self.required(path, "");
        }
    }

    /// A needed value out of a set.
    pub(crate) fn one_of(&mut self, path: &Path, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(path, "");
        } else if !supported.contains(&value) {
            self.not_supported(path, value, supported);
        }
    }

    /// A value out of a set, or none.
    pub(crate) fn optional_one_of(&mut self, path: &Path, value: Option<&str>, supported: &[&str]) {
        if let Some(value) = value
            && !supported.contains(&value)
        {
            self.not_supported(path, value, supported);
        }
    }

    pub(crate) fn port(&mut self, path: &Path, port: i32) {
        if !(1..=65535).contains(&port) {
            self.invalid(path, port, "must be between 1 and 65535, inclusive");
        }
    }

    pub(crate) fn not_negative(&mut self, path: &Path, number: i64) {
        if number < 0 {
            self.invalid(path, number, format::NEGATIVE);
        }
    }

    pub(crate) fn ip(&mut self, path: &Path, address: &str) {
        self.faults(path, address, format::ip(address));
    }

    pub(crate) fn cidr(&mut self, path: &Path, network: &str) {
        self.faults(path, network, format::cidr(network));
    }

    /// A user or group id.
    pub(crate) fn id(&mut self, path: &Path, id: i64) {
        if !(0..=i64::from(i32::MAX)).contains(&id) {
            self.invalid(path, id, "must be between 0 and 2147483647, inclusive");
        }
    }

    /// A field that may not change once the object exists.
    pub(crate) fn immutable<T: PartialEq + Serialize>(&mut self, path: &Path, new: &T, old: &T) {
        if new != old {
            self.invalid(path, new, format::IMMUTABLE);
        }
    }
}

fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
