//! Makes JSON fit a type, as decoding into the type's struct would.

use serde_json::Value;

use super::{Scalar, Type};

/// A value of the wrong type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid type: {found}, expected {expected} at {path}")]
pub struct Mismatch {
    /// Where it is: `spec.containers[0].ports`.
    pub path: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: &'static str,
}

/// Takes the fields out of `object` that `ty` doesn't have, and gives their paths (`spec.containers[0].imagee`).
///
/// Kinds that are handled without a Rust type of their own are held to their shape by this.
///
/// # Errors
/// The first value of a wrong type. Null is of every type, as it is for upstream's decoder.
pub fn conform(object: &mut Value, ty: &Type) -> Result<Vec<String>, Mismatch> {
    let mut unknown = Vec::new();
    walk(object, ty, &mut String::new(), &mut unknown)?;
    Ok(unknown)
}

fn walk(value: &mut Value, ty: &Type, path: &mut String, unknown: &mut Vec<String>) -> Result<(), Mismatch> {
    let length = path.len();
    match (ty, value) {
        (Type::Any(_), _) | (_, Value::Null) => Ok(()),
        (Type::Struct(_) | Type::Map(_), Value::Object(fields)) => {
            let mut gone = Vec::new();
            for (name, inner) in fields.iter_mut() {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                match ty.field(name) {
                    Some(ty) => walk(inner, ty, path, unknown)?,
                    None => {
                        unknown.push(path.clone());
                        gone.push(name.clone());
                    }
                }
                path.truncate(length);
            }
            fields.retain(|name, _| !gone.contains(name));
            Ok(())
        }
        (Type::List(list), Value::Array(items)) => {
            for (index, inner) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(inner, &list.items, path, unknown)?;
                path.truncate(length);
            }
            Ok(())
        }
        (Type::Scalar(scalar), value) => match misfit(*scalar, value) {
            None => Ok(()),
            Some(expected) => Err(mismatch(path, value, expected)),
        },
        (Type::Struct(_) | Type::Map(_), value) => Err(mismatch(path, value, "an object")),
        (Type::List(_), value) => Err(mismatch(path, value, "an array")),
    }
}

/// What was expected, if the value is something else.
fn misfit(scalar: Scalar, value: &Value) -> Option<&'static str> {
    let integer = |low, high| {
        value
            .as_i64()
            .is_some_and(|number| (low..=high).contains(&number))
    };
    let (fits, expected) = match scalar {
        Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime => (value.is_string(), "a string"),
        Scalar::Int32 => (integer(i32::MIN.into(), i32::MAX.into()), "a 32-bit integer"),
        Scalar::Int64 => (integer(i64::MIN, i64::MAX), "an integer"),
        Scalar::Double => (value.is_number(), "a number"),
        Scalar::Boolean => (value.is_boolean(), "a boolean"),
        Scalar::Quantity => (value.is_string() || value.is_number(), "a quantity"),
        Scalar::IntOrString => {
            let fits = value.is_string() || integer(i32::MIN.into(), i32::MAX.into());
            (fits, "an integer or a string")
        }
    };
    (!fits).then_some(expected)
}

fn mismatch(path: &str, value: &Value, expected: &'static str) -> Mismatch {
    let found = match value {
        Value::String(text) => format!("string {text:?}"),
        Value::Number(number) => format!("number `{number}`"),
        Value::Bool(flag) => format!("boolean `{flag}`"),
        Value::Array(_) => "sequence".to_owned(),
        Value::Object(_) => "map".to_owned(),
        Value::Null => "null".to_owned(),
    };
    Mismatch {
        path: path.to_owned(),
        found,
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> &'static Type {
        super::super::root("", "v1", "Pod")
    }

    #[test]
    fn unknown_fields_go_and_are_named_with_their_path() {
        let mut object = json!({
            "metadata": {"name": "a", "labels": {"any": "x"}},
            "spec": {"containers": [{"name": "a", "imagee": "b", "tty": null}], "foo": {"bar": 1}}
        });
        let unknown = conform(&mut object, pod()).unwrap();
        assert_eq!(unknown, ["spec.containers[0].imagee", "spec.foo"]);
        assert_eq!(
            object["spec"],
            json!({"containers": [{"name": "a", "tty": null}]})
        );
    }

    #[test]
    fn values_of_a_wrong_type_are_refused() {
        let table = [
            (
                json!({"spec": {"priority": "high"}}),
                "invalid type: string \"high\", expected a 32-bit integer at spec.priority",
            ),
            (
                json!({"spec": {"containers": [{"ports": [{"containerPort": 4_000_000_000_i64}]}]}}),
                "invalid type: number `4000000000`, expected a 32-bit integer at spec.containers[0].ports[0].containerPort",
            ),
            (
                json!({"spec": []}),
                "invalid type: sequence, expected an object at spec",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "invalid type: number `1`, expected a string at metadata.labels.a",
            ),
        ];
        for (mut object, expected) in table {
            assert_eq!(conform(&mut object, pod()).unwrap_err().to_string(), expected);
        }
    }
}
