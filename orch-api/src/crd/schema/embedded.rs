//! Objects inside of objects have a type, and metadata as all objects have it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orch_core::field::{ErrorList, FieldError, Path};
use serde_json::Value;

use super::Schema;
use crate::decode::decode_typed;

impl Schema {
    /// What is wrong with the objects inside of an object.
    pub(crate) fn check_embedded(&self, path: &Path, value: &Value, errors: &mut ErrorList) {
        match value {
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.check_embedded(&path.index(index), item, errors);
                    }
                }
            }
            Value::Object(fields) => {
                if self.embedded {
                    check_object(path, value, errors);
                }
                for (name, value) in fields {
                    match (self.properties.get(name), self.field(name)) {
                        (Some(schema), _) => schema.check_embedded(&path.child(name.clone()), value, errors),
                        (None, Some(schema)) => schema.check_embedded(&path.key(name.clone()), value, errors),
                        (None, None) => (),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
        }
    }
}

fn check_object(path: &Path, object: &Value, errors: &mut ErrorList) {
    for field in ["apiVersion", "kind"] {
        match object.get(field) {
            Some(Value::String(text)) if !text.is_empty() => (),
            None | Some(Value::String(_) | Value::Null) => {
                errors.push(FieldError::required(&path.child(field), "must not be empty"));
            }
            Some(other) => {
                let why = "must be a string";
                errors.push(FieldError::invalid(&path.child(field), other.clone(), why));
            }
        }
    }
    let Some(metadata) = object.get("metadata") else {
        return;
    };
    if let Err(error) = decode_typed::<Option<ObjectMeta>>(metadata.to_string().as_bytes()) {
        let why = error.describe("ObjectMeta");
        errors.push(FieldError::invalid(
            &path.child("metadata"),
            metadata.clone(),
            why,
        ));
    }
}
