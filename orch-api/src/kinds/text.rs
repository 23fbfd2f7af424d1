//! Optional fields read as the empty value they stand for.

use std::collections::BTreeMap;

/// An absent text is an empty one.
pub(crate) fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// An absent list is an empty one.
pub(crate) fn list<T>(value: &Option<Vec<T>>) -> &[T] {
    value.as_deref().unwrap_or_default()
}

/// The entries of a map that may be absent.
pub(crate) fn entries<V>(value: &Option<BTreeMap<String, V>>) -> impl Iterator<Item = (&String, &V)> {
    value.iter().flatten()
}

/// Fills in a text that is absent or empty.
pub(crate) fn default_text(value: &mut Option<String>, default: &str) {
    if value.as_deref().unwrap_or_default().is_empty() {
        *value = Some(default.to_owned());
    }
}

/// Drops a text that is empty: upstream keeps no difference between the two.
pub(crate) fn drop_empty(value: &mut Option<String>) {
    if value.as_deref() == Some("") {
        *value = None;
    }
}

/// Drops a flag that is not set: upstream keeps no difference between the two.
pub(crate) fn drop_false(value: &mut Option<bool>) {
    if *value == Some(false) {
        *value = None;
    }
}
