//! The annotation in which `kubectl apply` keeps what it applied last, for the way from client-side to server-side
//! apply and back.

use serde_json::Value;

use super::fields::FieldSet;
use super::walk::{compare, fields_of};
use crate::schema::Type;

/// The only manager that is taken for kubectl going over to server-side apply.
pub(super) const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
const MAX_ANNOTATIONS_SIZE: usize = 256 * 1024;

fn annotation(object: &Value) -> Option<&str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(ANNOTATION)?
        .as_str()
        .filter(|text| !text.is_empty())
}

/// The fields which kubectl applied from the client and which nobody changed since: they may be taken without force.
pub(super) fn allowed_conflicts(live: &Value, ty: &Type, api_version: &str) -> Option<FieldSet> {
    let last: Value = serde_json::from_str(annotation(live)?).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(api_version) {
        return None;
    }
    let found = compare(&last, live, ty);
    Some(
        fields_of(&last, ty)
            .difference(&found.changed())
            .difference(&found.removed),
    )
}

/// Brings the annotation of `object` up to date with what was applied, if it is there.
pub(super) fn refresh(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut applied = config.clone();
    if let Some(Value::Object(annotations)) = applied.pointer_mut("/metadata/annotations") {
        annotations.remove(ANNOTATION);
    }
    let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") else {
        return;
    };
    annotations.insert(ANNOTATION.to_owned(), format!("{applied}\n").into());
    let size: usize = annotations
        .iter()
        .map(|(name, value)| name.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MAX_ANNOTATIONS_SIZE {
        annotations.remove(ANNOTATION);
    }
}
