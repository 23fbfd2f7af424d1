//! Items of sets come once, and items of maps have their own keys.

use std::collections::HashSet;

use orch_core::field::{ErrorList, FieldError, Path};
use serde_json::{Map, Value};

use super::{ListType, Schema};

impl Schema {
    /// Items that a list may not have twice.
    pub(crate) fn check_lists(&self, path: &Path, value: &Value, errors: &mut ErrorList) {
        match value {
            Value::Array(items) => {
                match &self.list_type {
                    Some(ListType::Set) => unique(path, items, Value::clone, errors),
                    Some(ListType::Map(keys)) => unique(path, items, |item| key(item, keys), errors),
                    Some(ListType::Atomic) | None => (),
                }
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.check_lists(&path.index(index), item, errors);
                    }
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (self.properties.get(name), self.field(name)) {
                        (Some(schema), _) => schema.check_lists(&path.child(name.clone()), value, errors),
                        (None, Some(schema)) => schema.check_lists(&path.key(name.clone()), value, errors),
                        (None, None) => (),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
        }
    }

    /// The item of an old list that is the same one by its keys.
    pub(crate) fn earlier<'o>(&self, item: &Value, old: Option<&'o Value>) -> Option<&'o Value> {
        let Some(ListType::Map(keys)) = &self.list_type else {
            return None;
        };
        let key = key(item, keys);
        old?.as_array()?.iter().find(|old| self::key(old, keys) == key)
    }
}

fn key(item: &Value, keys: &[String]) -> Value {
    let found: Map<String, Value> = keys
        .iter()
        .filter_map(|key| Some((key.clone(), item.get(key)?.clone())))
        .collect();
    Value::Object(found)
}

fn unique(path: &Path, items: &[Value], key: impl Fn(&Value) -> Value, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    let mut told = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let key = key(item);
        let text = key.to_string();
        if !seen.insert(text.clone()) && told.insert(text) {
            errors.push(FieldError::duplicate(&path.index(index), key));
        }
    }
}
