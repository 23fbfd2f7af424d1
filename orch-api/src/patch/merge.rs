//! JSON merge patch, RFC 7386.

use serde_json::{Map, Value};

use super::PatchError;

/// Applies a JSON merge patch: objects merge by key, `null` removes, everything else replaces.
///
/// # Errors
/// [`PatchError::Malformed`] if the patch is no object, since a Kubernetes object can't become anything else.
pub fn merge(document: Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(changes) = patch else {
        return Err(PatchError::malformed("Invalid JSON Patch"));
    };
    Ok(merge_object(document, changes))
}

fn merge_object(document: Value, changes: &Map<String, Value>) -> Value {
    let mut fields = match document {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for (name, change) in changes {
        match change {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(changes) => {
                let old = fields.remove(name).unwrap_or_default();
                fields.insert(name.clone(), merge_object(old, changes));
            }
            other => {
                fields.insert(name.clone(), other.clone());
            }
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_rfc_7386_hold() {
        let table = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ];
        for (document, patch, expected) in table {
            assert_eq!(
                merge(document.clone(), &patch).unwrap(),
                expected,
                "{document} {patch}"
            );
        }
    }

    #[test]
    fn a_patch_that_is_no_object_is_refused() {
        for patch in [json!(["c"]), json!(null), json!("bar")] {
            assert_eq!(
                merge(json!({}), &patch),
                Err(PatchError::malformed("Invalid JSON Patch"))
            );
        }
    }
}
