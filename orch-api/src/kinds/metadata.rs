//! Metadata inside objects: that of templates, and finalizers that are not metadata. The metadata of objects
//! themselves is the write pipeline's business.

use std::collections::BTreeMap;

use super::check::{Check, Path};
use super::format;
use super::text::entries;

/// All annotations of an object together, keys and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The syntax and the size of annotations.
pub(crate) fn annotations(check: &mut Check, annotations: &Option<BTreeMap<String, String>>, path: &Path) {
    let mut size = 0;
    for (key, value) in entries(annotations) {
        check.faults(path, key, format::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        check.too_long(path, MAX_ANNOTATIONS);
    }
}

/// A finalizer without a domain must be one of Kubernetes' own.
pub(crate) fn standard_finalizer(check: &mut Check, name: &str, path: &Path) {
    if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        check.invalid(path, name, why);
    }
}
