//! JSON patch, RFC 6902, with the wording and the leniencies of upstream's library: negative indices count from the
//! end, and removing or replacing what isn't there says which path was missing.

use serde_json::Value;

use super::PatchError;

/// How many operations one patch may have.
pub const MAX_OPERATIONS: usize = 10_000;

/// How much all copies of one patch may add, in bytes of JSON: a copy of what holds copies doubles with each operation.
pub const MAX_COPIED: usize = 3 << 20;

/// How deep a patch may nest a document. JSON that is read is at most half as deep.
const MAX_DEPTH: usize = 256;

/// Applies a JSON patch: all of its operations, or none.
///
/// # Errors
/// [`PatchError::Malformed`] if the patch is no list of operations, [`PatchError::TooLarge`] past [`MAX_OPERATIONS`],
/// [`PatchError::Unprocessable`] if an operation doesn't fit the document, a test fails, or the copies are more than
/// [`MAX_COPIED`].
pub fn json(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {} into Go value of type jsonpatch.Patch",
            kind(patch)
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut result = document.clone();
    let mut copied = 0;
    for operation in operations {
        Operation::read(operation)?.apply(&mut result, &mut copied)?;
    }
    Ok(result)
}

/// About how many bytes of JSON a value is.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 5,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => 2 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => {
            2 + fields
                .iter()
                .map(|(key, value)| key.len() + 4 + size(value))
                .sum::<usize>()
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

struct Operation<'a> {
    op: &'a str,
    path: &'a str,
    from: Option<&'a str>,
    value: Option<&'a Value>,
}

impl<'a> Operation<'a> {
    fn read(operation: &'a Value) -> Result<Self, PatchError> {
        let Value::Object(fields) = operation else {
            return Err(PatchError::Malformed(format!(
                "json: cannot unmarshal {} into Go value of type jsonpatch.Operation",
                kind(operation)
            )));
        };
        let text = |name| fields.get(name).and_then(Value::as_str);
        let op = text("op").unwrap_or("unknown");
        let Some(path) = text("path") else {
            return Err(missing(format!("{op} operation failed to decode path")));
        };
        Ok(Self {
            op,
            path,
            from: text("from"),
            value: fields.get("value"),
        })
    }

    fn apply(&self, document: &mut Value, copied: &mut usize) -> Result<(), PatchError> {
        match self.op {
            "add" => self.add(document, self.new_value()?.clone()),
            "remove" => self.remove(document, self.path).map(drop),
            "replace" => self.replace(document),
            "move" => {
                let from = self.source()?;
                if self
                    .path
                    .strip_prefix(from)
                    .is_some_and(|rest| rest.starts_with('/'))
                {
                    return Err(missing(format!(
                        "add operation does not apply: doc is missing path: \"{}\"",
                        self.path
                    )));
                }
                self.lookup(document, from)?;
                let value = self.remove(document, from)?;
                self.add(document, value)
            }
            "copy" => {
                let value = self.lookup(document, self.source()?)?;
                *copied += size(value);
                if *copied > MAX_COPIED {
                    return Err(PatchError::Unprocessable(format!(
                        "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit \
                         {MAX_COPIED}"
                    )));
                }
                let value = value.clone();
                self.add(document, value)
            }
            "test" => self.test(document),
            other => Err(PatchError::Unprocessable(format!("Unexpected kind: {other}"))),
        }
    }

    fn new_value(&self) -> Result<&'a Value, PatchError> {
        self.value.ok_or_else(|| missing("operation missing value field"))
    }

    fn source(&self) -> Result<&'a str, PatchError> {
        self.from.ok_or_else(|| missing("operation, missing from field"))
    }

    fn add(&self, document: &mut Value, value: Value) -> Result<(), PatchError> {
        let path = self.path;
        self.check_depth(&value)?;
        if path.is_empty() {
            *document = value;
            return Ok(());
        }
        let lost = || {
            missing(format!(
                "add operation does not apply: doc is missing path: \"{path}\""
            ))
        };
        let (parent, key) = parent(document, path).ok_or_else(lost)?;
        match parent {
            Value::Object(fields) => {
                fields.insert(key, value);
                Ok(())
            }
            Value::Array(items) => {
                let index = if key == "-" {
                    Some(items.len())
                } else {
                    index(&key, items.len() + 1)
                };
                let Some(index) = index else {
                    return Err(bad_index("add", path, &key));
                };
                items.insert(index, value);
                Ok(())
            }
            _ => Err(lost()),
        }
    }

    fn remove(&self, document: &mut Value, path: &str) -> Result<Value, PatchError> {
        let op = self.op;
        let lost = || {
            missing(format!(
                "{op} operation does not apply: doc is missing path: \"{path}\""
            ))
        };
        let (parent, key) = parent(document, path).ok_or_else(lost)?;
        match parent {
            Value::Object(fields) => fields.remove(&key).ok_or_else(|| {
                missing(format!(
                    "error in {op} for path: '{path}': Unable to remove nonexistent key: {key}"
                ))
            }),
            Value::Array(items) => match index(&key, items.len()) {
                Some(index) => Ok(items.remove(index)),
                None => Err(bad_index(op, path, &key)),
            },
            _ => Err(lost()),
        }
    }

    /// Refuses a value that would make the document deeper than recursion can safely go.
    fn check_depth(&self, value: &Value) -> Result<(), PatchError> {
        if self.path.matches('/').count() + depth(value) <= MAX_DEPTH {
            return Ok(());
        }
        Err(PatchError::Unprocessable(format!(
            "{} operation does not apply: the document would be nested more than {MAX_DEPTH} deep",
            self.op
        )))
    }

    fn replace(&self, document: &mut Value) -> Result<(), PatchError> {
        let value = self.new_value()?.clone();
        let path = self.path;
        self.check_depth(&value)?;
        if path.is_empty() {
            *document = value;
            return Ok(());
        }
        let (parent, key) = parent(document, path).ok_or_else(|| {
            missing(format!(
                "replace operation does not apply: doc is missing path: {path}"
            ))
        })?;
        match child(parent, &key) {
            Some(place) => {
                *place = value;
                Ok(())
            }
            None => Err(missing(format!(
                "replace operation does not apply: doc is missing key: {path}"
            ))),
        }
    }

    fn lookup<'d>(&self, document: &'d mut Value, from: &str) -> Result<&'d Value, PatchError> {
        let op = self.op;
        if from.is_empty() {
            return Ok(document);
        }
        let lost = || {
            missing(format!(
                "{op} operation does not apply: doc is missing from path: {from}"
            ))
        };
        let (parent, key) = parent(document, from).ok_or_else(lost)?;
        child(parent, &key).map(|value| &*value).ok_or_else(lost)
    }

    fn test(&self, document: &mut Value) -> Result<(), PatchError> {
        let path = self.path;
        let expected = self.value.unwrap_or(&Value::Null);
        let found = if path.is_empty() {
            Some(&*document)
        } else {
            let (parent, key) = parent(document, path)
                .ok_or_else(|| missing(format!("test operation does not apply: is missing path: {path}")))?;
            child(parent, &key).map(|value| &*value)
        };
        if found.unwrap_or(&Value::Null) == expected {
            Ok(())
        } else {
            Err(PatchError::Unprocessable(format!(
                "testing value {path} failed: test failed"
            )))
        }
    }
}

fn missing(text: impl std::fmt::Display) -> PatchError {
    PatchError::Unprocessable(format!("{text}: missing value"))
}

fn bad_index(op: &str, path: &str, key: &str) -> PatchError {
    let why = if key.parse::<i64>().is_ok() {
        format!("Unable to access invalid index: {key}: invalid index referenced")
    } else {
        format!(
            "value was not a proper array index: '{key}': strconv.Atoi: parsing \"{key}\": invalid syntax"
        )
    };
    PatchError::Unprocessable(format!("error in {op} for path: '{path}': {why}"))
}

/// The value that holds what `path` points to, and the last step of the path.
fn parent<'d>(document: &'d mut Value, path: &str) -> Option<(&'d mut Value, String)> {
    let (folders, last) = path.rsplit_once('/')?;
    let mut place = document;
    if !folders.is_empty() {
        for step in folders.strip_prefix('/')?.split('/') {
            place = child(place, &unescape(step))?;
        }
    }
    (place.is_object() || place.is_array()).then(|| (place, unescape(last)))
}

fn child<'d>(value: &'d mut Value, key: &str) -> Option<&'d mut Value> {
    match value {
        Value::Object(fields) => fields.get_mut(key),
        Value::Array(items) => {
            let index = index(key, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    }
}

/// An index below `length`; a negative one counts from the end.
fn index(key: &str, length: usize) -> Option<usize> {
    let number: i64 = key.parse().ok()?;
    let index = if number < 0 {
        number.checked_add(i64::try_from(length).ok()?)?
    } else {
        number
    };
    usize::try_from(index).ok().filter(|index| *index < length)
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as j;

    fn refused(document: &Value, patch: &Value) -> String {
        match json(document, patch) {
            Err(PatchError::Unprocessable(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn copies_of_copies_come_to_an_end() {
        let double = serde_json::json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let patch = Value::Array(vec![double; 60]);
        let document = serde_json::json!({"a": ["x"]});
        let error = json(&document, &patch).unwrap_err().to_string();
        assert!(error.contains("exceeding the limit 3145728"), "{error}");
    }

    #[test]
    fn nesting_comes_to_an_end() {
        // Each copies the whole of it to its own innermost place.
        let mut patch = Vec::new();
        for power in 0..18 {
            let path = "/a".repeat(1 << power) + "/a";
            patch.push(serde_json::json!({"op": "copy", "from": "/a", "path": path}));
        }
        let document = serde_json::json!({"a": {}});
        let error = json(&document, &Value::Array(patch)).unwrap_err().to_string();
        assert!(error.contains("more than 256 deep"), "{error}");
    }

    #[test]
    fn operations_do_what_rfc_6902_says() {
        let document = j!({"a": [1, 2], "b": {"c/d": 1}});
        let patch = j!([
            {"op": "test", "path": "/a/0", "value": 1},
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "add", "path": "/a/1", "value": 9},
            {"op": "remove", "path": "/b/c~1d"},
            {"op": "copy", "from": "/a", "path": "/e"},
            {"op": "move", "from": "/a", "path": "/b/a"},
            {"op": "replace", "path": "/e/-1", "value": "last"},
        ]);
        assert_eq!(
            json(&document, &patch).unwrap(),
            j!({"b": {"a": [1, 9, 2, 3]}, "e": [1, 9, 2, "last"]})
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_in_upstreams_words() {
        let document = j!({"a": {"b": 1}, "list": []});
        let table = [
            (
                j!({"op": "test", "path": "/a/b", "value": 2}),
                "testing value /a/b failed: test failed",
            ),
            (
                j!({"op": "remove", "path": "/a/x"}),
                "error in remove for path: '/a/x': Unable to remove nonexistent key: x: missing value",
            ),
            (
                j!({"op": "remove", "path": "/x/y"}),
                "remove operation does not apply: doc is missing path: \"/x/y\": missing value",
            ),
            (
                j!({"op": "replace", "path": "/a/x", "value": 1}),
                "replace operation does not apply: doc is missing key: /a/x: missing value",
            ),
            (
                j!({"op": "add", "path": "/list/5", "value": 1}),
                "error in add for path: '/list/5': Unable to access invalid index: 5: invalid index referenced",
            ),
            (
                j!({"op": "add", "path": "/list/x", "value": 1}),
                "error in add for path: '/list/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (
                j!({"op": "add"}),
                "add operation failed to decode path: missing value",
            ),
            (j!({"op": "frob", "path": "/a"}), "Unexpected kind: frob"),
        ];
        for (operation, expected) in table {
            assert_eq!(refused(&document, &j!([operation])), expected);
        }
    }

    #[test]
    fn malformed_and_oversized_patches_have_kinds_of_their_own() {
        assert!(matches!(
            json(&j!({}), &j!({"op": "add"})),
            Err(PatchError::Malformed(_))
        ));
        let many = Value::Array(vec![
            j!({"op": "test", "path": "", "value": {}});
            MAX_OPERATIONS + 1
        ]);
        let text = "The allowed maximum operations in a JSON patch is 10000, got 10001";
        assert_eq!(json(&j!({}), &many), Err(PatchError::TooLarge(text.into())));
    }

    mod agreement {
        use super::super::json;
        use proptest::prelude::*;
        use serde_json::{Value, json as j};

        fn document() -> impl Strategy<Value = Value> {
            let leaf = prop_oneof![(0..3).prop_map(|n| j!(n)), Just(j!("x")), Just(Value::Null)];
            leaf.prop_recursive(3, 16, 3, |inner| {
                prop_oneof![
                    prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                    prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|m| j!(m)),
                ]
            })
        }

        fn operation() -> impl Strategy<Value = Value> {
            let path = prop::collection::vec(prop_oneof!["[ab]", "[01]", Just("-".to_owned())], 1..4)
                .prop_map(|steps| format!("/{}", steps.join("/")));
            let op = prop::sample::select(vec!["add", "remove", "replace", "move", "copy"]);
            (op, path.clone(), path, document()).prop_map(
                |(op, path, from, value)| j!({"op": op, "path": path, "from": from, "value": value}),
            )
        }

        proptest! {
            #[test]
            fn with_the_json_patch_crate(
                document in prop::collection::btree_map("[ab]", document(), 0..3).prop_map(|m| j!(m)),
                operations in prop::collection::vec(operation(), 0..4),
            ) {
                let patch: json_patch::Patch = serde_json::from_value(j!(operations)).unwrap();
                let mut expected = document.clone();
                // Not `patch`: its way back from a failed operation panics on some patches.
                let outcome = json_patch::patch_unsafe(&mut expected, &patch);
                match json(&document, &j!(operations)) {
                    Ok(found) => {
                        prop_assert!(outcome.is_ok(), "{:?}", outcome);
                        prop_assert_eq!(found, expected);
                    }
                    Err(error) => prop_assert!(outcome.is_err(), "{} but {}", error, expected),
                }
            }
        }
    }
}
