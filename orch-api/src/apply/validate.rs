//! Whether an applied configuration fits the type of its kind, in upstream's words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::path::Step;
use super::walk::identify;
use crate::schema::{Scalar, Type};

/// Everything that is wrong with the value: path and reason.
pub(super) fn validate(value: &Value, ty: &Type) -> Vec<String> {
    let mut errors = Vec::new();
    walk(value, ty, "", &mut errors);
    errors
}

/// One text for all errors.
pub(super) fn summary(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    }
}

fn walk(value: &Value, ty: &Type, path: &str, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    match (ty, value) {
        (Type::Any(_), _) => {}
        (Type::Scalar(scalar), value) => {
            if let Some(wrong) = wrong_scalar(*scalar, value) {
                errors.push(at(path, &wrong));
            }
        }
        (Type::Struct(_) | Type::Map(_), Value::Object(fields)) => {
            for (name, inner) in fields {
                let path = format!("{path}.{name}");
                match ty.field(name) {
                    Some(ty) => walk(inner, ty, &path, errors),
                    None => errors.push(at(&path, "field not declared in schema")),
                }
            }
        }
        (Type::Struct(_) | Type::Map(_), other) => {
            errors.push(at(path, &format!("expected map, got {}", found(other))))
        }
        (Type::List(_), Value::Array(items)) => walk_items(items, ty, path, errors),
        (Type::List(_), other) => errors.push(at(path, &format!("expected list, got {}", found(other)))),
    }
}

fn walk_items(items: &[Value], ty: &Type, path: &str, errors: &mut Vec<String>) {
    let Some(inner) = ty.items() else { return };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let step = if ty.is_atomic() {
            Step::Index(i64::try_from(index).unwrap_or(i64::MAX))
        } else {
            match identify(item, ty) {
                Ok(step) => step,
                Err(why) => {
                    errors.push(at(path, &format!("element {index}: {why}")));
                    return;
                }
            }
        };
        let inside = format!("{path}{step}");
        if !seen.insert(step.clone()) {
            errors.push(at(path, &format!("duplicate entries for key {step}")));
        }
        walk(item, inner, &inside, errors);
    }
}

fn wrong_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    let expected = match scalar {
        Scalar::Int32 | Scalar::Int64 | Scalar::Double => {
            (!value.is_number()).then_some("numeric (int or float)")
        }
        Scalar::Boolean => (!value.is_boolean()).then_some("boolean"),
        Scalar::String | Scalar::Bytes => (!value.is_string()).then_some("string"),
        Scalar::Time | Scalar::MicroTime | Scalar::Quantity | Scalar::IntOrString => {
            (value.is_object() || value.is_array()).then_some("any scalar")
        }
    }?;
    Some(format!("expected {expected}, got {}", found(value)))
}

fn found(value: &Value) -> String {
    match value {
        Value::String(_) => "string".to_owned(),
        other => other.to_string(),
    }
}

fn at(path: &str, text: &str) -> String {
    if path.is_empty() {
        text.to_owned()
    } else {
        format!("{path}: {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::root;
    use serde_json::json;

    #[test]
    fn what_does_not_fit_is_named_with_its_path() {
        let config = json!({"spec": {
            "replicas": "3", "foo": 1,
            "template": {"spec": {"containers": [{"name": "a"}, {"name": "a", "ports": {}}]}}
        }});
        let errors = validate(&config, root("apps", "v1", "Deployment"));
        let expected = [
            ".spec.foo: field not declared in schema",
            ".spec.replicas: expected numeric (int or float), got string",
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
            ".spec.template.spec.containers[name=\"a\"].ports: expected list, got {}",
        ];
        assert_eq!(errors, expected);
        assert!(summary(&errors).starts_with("errors:\n  .spec.foo"));
    }
}
