//! Whether two objects mean the same, and how they differ.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

/// Equality as upstream's semantic comparison has it: absent, empty and null are one.
pub(crate) fn same<T: PartialEq + Serialize>(one: &T, other: &T) -> bool {
    one == other || pruned(one) == pruned(other)
}

/// Raises `metadata.generation` when the desired state changed, else keeps it.
pub(crate) fn bump_generation(new: &mut ObjectMeta, old: &ObjectMeta, changed: bool) {
    new.generation = if changed {
        Some(old.generation.unwrap_or(0) + 1)
    } else {
        old.generation
    };
}

fn pruned(value: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, field| !is_nothing(field));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The fields in which two objects differ, one line each way: `- path: old` and `+ path: new`.
pub(crate) fn difference(old: &impl Serialize, new: &impl Serialize, root: &str) -> String {
    let mut lines = Vec::new();
    differ(&pruned(old), &pruned(new), root, &mut lines);
    lines.join("\n")
}

fn differ(old: &Value, new: &Value, path: &str, lines: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let of =
                    |fields: &serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or(Value::Null);
                differ(&of(before), &of(after), &format!("{path}.{key}"), lines);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                differ(before, after, &format!("{path}[{i}]"), lines);
            }
        }
        (old, new) if old == new => {}
        (old, new) => {
            if !old.is_null() {
                lines.push(format!("- {path}: {old}"));
            }
            if !new.is_null() {
                lines.push(format!("+ {path}: {new}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_and_empty_are_the_same() {
        assert!(same(&json!({"a": [], "b": ""}), &json!({})));
        assert!(!same(&json!({"a": false}), &json!({})));
    }

    #[test]
    fn a_difference_names_the_fields() {
        let old = json!({"a": [{"b": 1}], "c": "x"});
        let new = json!({"a": [{"b": 2}], "d": "y"});
        assert_eq!(
            difference(&old, &new, "spec"),
            "- spec.a[0].b: 1\n+ spec.a[0].b: 2\n- spec.c: \"x\"\n+ spec.d: \"y\""
        );
    }
}
