//! Sets what an object leaves out.

use serde_json::{Map, Value};

use super::{Additional, Schema};

impl Schema {
    /// Sets the defaults of the fields of an object, all the way down. A null where none may be counts as absent.
    pub(crate) fn set_defaults(&self, fields: &mut Map<String, Value>) {
        for (name, schema) in &self.properties {
            if let Some(default) = &schema.default {
                let absent = match fields.get(name) {
                    None => true,
                    Some(value) => value.is_null() && !schema.nullable,
                };
                if absent {
                    fields.insert(name.clone(), default.clone());
                }
            }
        }
        if !self.has_defaults {
            return;
        }
        for (name, value) in fields {
            match (self.properties.get(name), &self.additional) {
                (Some(schema), _) => schema.default_inside(value),
                (None, Some(Additional::Schema(schema))) => {
                    if value.is_null()
                        && !schema.nullable
                        && let Some(default) = &schema.default
                    {
                        *value = default.clone();
                    }
                    schema.default_inside(value);
                }
                (None, _) => (),
            }
        }
    }

    fn default_inside(&self, value: &mut Value) {
        if !self.has_defaults {
            return;
        }
        match value {
            Value::Object(fields) => self.set_defaults(fields),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for item in items {
                    if item.is_null()
                        && !schema.nullable
                        && let Some(default) = &schema.default
                    {
                        *item = default.clone();
                    }
                    schema.default_inside(item);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
        }
    }

    /// Takes out the nulls of fields that may not be null and have no default, as upstream does before it defaults.
    pub(crate) fn drop_nulls(&self, fields: &mut Map<String, Value>) {
        fields.retain(|name, value| {
            let Some(schema) = self.field(name) else {
                return true;
            };
            !(value.is_null() && !schema.nullable && schema.default.is_none())
        });
        for (name, value) in fields {
            if let Some(schema) = self.field(name) {
                schema.drop_nulls_inside(value);
            }
        }
    }

    fn drop_nulls_inside(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => self.drop_nulls(fields),
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.drop_nulls_inside(item));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
        }
    }
}
