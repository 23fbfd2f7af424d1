//! What a Go object of a kind has before anything is set: its embedded structs, and null for its required lists.
//!
//! Upstream compares objects that have these, so whoever writes doesn't come to own `spec` or `spec.strategy` as such,
//! but only what is in them. Which structs are embedded isn't in the OpenAPI document; these names are, wherever they
//! lead to a struct by way of such names.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::schema::Type;

const EMBEDDED: [&str; 8] = [
    "metadata",
    "spec",
    "status",
    "template",
    "strategy",
    "updateStrategy",
    "jobTemplate",
    "loadBalancer",
];

/// An object of this type before anything is set.
pub(super) fn zero(ty: &Type) -> Value {
    with_embedded(&Value::Object(Map::new()), ty).into_owned()
}

/// The object with the embedded structs and required lists which it lacks.
pub(super) fn with_embedded<'v>(object: &'v Value, ty: &Type) -> Cow<'v, Value> {
    let (Type::Struct(s), Value::Object(fields)) = (ty, object) else {
        return Cow::Borrowed(object);
    };
    // Custom resources are no Go structs: what they do not say is not there.
    if s.name.is_empty() {
        return Cow::Borrowed(object);
    }
    let empty = Value::Object(Map::new());
    let mut filled: Vec<(String, Value)> = Vec::new();
    for field in s.fields.iter() {
        let have = fields.get(&*field.name);
        match &*field.ty {
            inner @ Type::Struct(_) if EMBEDDED.contains(&&*field.name) => {
                match (with_embedded(have.unwrap_or(&empty), inner), have) {
                    (Cow::Borrowed(_), Some(_)) => {}
                    (value, _) => filled.push((field.name.to_string(), value.into_owned())),
                }
            }
            Type::List(_) if field.required && have.is_none() => {
                filled.push((field.name.to_string(), Value::Null));
            }
            _ => {}
        }
    }
    if filled.is_empty() {
        return Cow::Borrowed(object);
    }
    let mut fields = fields.clone();
    fields.extend(filled);
    Cow::Owned(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::root;
    use serde_json::json;

    #[test]
    fn a_deployment_begins_with_its_embedded_structs() {
        let expected = json!({
            "metadata": {},
            "spec": {"strategy": {}, "template": {"metadata": {}, "spec": {"containers": null}}},
            "status": {}
        });
        assert_eq!(zero(root("apps", "v1", "Deployment")), expected);
    }

    #[test]
    fn a_complete_object_stays_as_it_is() {
        let complete = json!({"metadata": {"name": "c"}, "data": {}});
        assert!(matches!(
            with_embedded(&complete, root("", "v1", "ConfigMap")),
            Cow::Borrowed(_)
        ));
    }
}
