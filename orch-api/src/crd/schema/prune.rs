//! Takes out of an object what its schema does not have.

use serde_json::{Map, Value};

use super::{Additional, Schema};

/// Takes the fields out of the top level and below that the schema does not have, and gives their paths. `apiVersion`,
/// `kind` and `metadata` are everybody's.
pub(crate) fn prune_and_note(fields: &mut Map<String, Value>, schema: &Schema) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_fields(fields, schema, true, &mut String::new(), &mut unknown);
    unknown
}

fn prune(value: &mut Value, schema: &Schema, path: &mut String, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => prune_fields(fields, schema, schema.embedded, path, unknown),
        Value::Array(items) => {
            let length = path.len();
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                match &schema.items {
                    Some(schema) => prune(item, schema, path, unknown),
                    None if schema.preserve => (),
                    None => prune(item, &Schema::default(), path, unknown),
                }
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

fn prune_fields(
    fields: &mut Map<String, Value>,
    schema: &Schema,
    is_object: bool,
    path: &mut String,
    unknown: &mut Vec<String>,
) {
    let length = path.len();
    let mut gone: Vec<String> = Vec::new();
    for (name, value) in fields.iter_mut() {
        if is_object && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        match (schema.field(name), &schema.additional) {
            (Some(schema), _) => prune(value, schema, path, unknown),
            (None, Some(Additional::Any(true))) => (),
            (None, _) if schema.preserve => (),
            (None, _) => {
                unknown.push(path.clone());
                gone.push(name.clone());
            }
        }
        path.truncate(length);
    }
    for name in gone {
        fields.remove(&name);
    }
}
