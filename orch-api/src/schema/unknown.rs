//! Fields of an object which its type doesn't have, and duplicated ones: what field validation reports.

use serde_json::Value;

use super::Type;

/// A field which the type of an object doesn't have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldProblem {
    /// Where it is, as upstream writes it: `spec.containers[0].imagee`.
    pub path: String,
}

impl std::fmt::Display for FieldProblem {
    /// Upstream's wording for strict decoding.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unknown field \"{}\"", self.path)
    }
}

/// The fields of `object` which `ty` doesn't have, in the object's order.
///
/// Values of the wrong shape (an array for an object) are none of its business and are passed over.
#[must_use]
pub fn unknown_fields(object: &Value, ty: &Type) -> Vec<FieldProblem> {
    let mut found = Vec::new();
    walk(object, ty, &mut String::new(), &mut found);
    found
}

fn walk(value: &Value, ty: &Type, path: &mut String, found: &mut Vec<FieldProblem>) {
    let length = path.len();
    match value {
        Value::Object(fields) if !matches!(ty, Type::Scalar(_) | Type::List(_)) => {
            for (name, inner) in fields {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                match ty.field(name) {
                    Some(ty) => walk(inner, ty, path, found),
                    None => found.push(FieldProblem { path: path.clone() }),
                }
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let Some(ty) = ty.items() else { return };
            for (index, inner) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(inner, ty, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_named_with_their_path() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"any": "x"}},
            "spec": {"containers": [{"name": "a", "imagee": "b"}], "foo": {"bar": 1}}
        });
        let found = unknown_fields(&pod, super::super::root("", "v1", "Pod"));
        let paths: Vec<&str> = found.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["spec.containers[0].imagee", "spec.foo"]);
        assert_eq!(
            found[0].to_string(),
            "unknown field \"spec.containers[0].imagee\""
        );
    }
}
