//! Reading objects from JSON: types, unknown fields, doubled fields.

use std::collections::HashSet;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;

use crate::object::{DynamicObject, Object};
use crate::resource::ResourceInfo;
use crate::schema::{Mismatch, builtin_root, conform};

/// An object read from JSON, and what strict validation would say about the text.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub object: Box<dyn Object>,
    /// Paths of fields that the kind does not have.
    pub unknown: Vec<String>,
    /// Paths of fields that came more than once.
    pub duplicates: Vec<String>,
}

impl Decoded {
    /// What upstream's strict decoder complains about, one text a field, in its order.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let duplicates = self
            .duplicates
            .iter()
            .map(|path| format!("duplicate field \"{path}\""));
        duplicates
            .chain(
                self.unknown
                    .iter()
                    .map(|path| format!("unknown field \"{path}\"")),
            )
            .collect()
    }
}

/// Why JSON text is not an object of its kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The text is not JSON at all.
    #[error("{0}")]
    Syntax(String),
    /// A field has the wrong type.
    #[error("json: {message} at {path}")]
    Type {
        /// Path of the field.
        path: String,
        /// What was found and what was expected.
        message: String,
    },
}

impl DecodeError {
    /// What upstream, written in Go, says of it; `kind` is the object's kind.
    #[must_use]
    pub fn describe(&self, kind: &str) -> String {
        let DecodeError::Type { path, message } = self else {
            return self.to_string();
        };
        let Some((found, expected)) = message
            .strip_prefix("invalid type: ")
            .and_then(|text| text.split_once(", expected "))
        else {
            return self.to_string();
        };
        let found = GO_VALUES
            .iter()
            .find(|(ours, _)| found.starts_with(ours))
            .map_or(found, |(_, go)| go);
        let expected = GO_TYPES
            .iter()
            .find(|(ours, _)| *ours == expected)
            .map_or(expected, |(_, go)| go);
        let field: Vec<&str> = path
            .split('.')
            .map(|part| part.split('[').next().unwrap_or_default())
            .collect();
        let field = field.join(".");
        format!("json: cannot unmarshal {found} into Go struct field {kind}.{field} of type {expected}")
    }
}

const GO_VALUES: [(&str, &str); 6] = [
    ("string", "string"),
    ("integer", "number"),
    ("floating point", "number"),
    ("boolean", "bool"),
    ("map", "object"),
    ("sequence", "array"),
];

const GO_TYPES: [(&str, &str); 5] = [
    ("i32", "int32"),
    ("i64", "int64"),
    ("a string", "string"),
    ("a boolean", "bool"),
    ("f64", "float64"),
];

type Typed<T> = (T, Vec<String>, Vec<String>);

pub(crate) fn decode_typed<T: DeserializeOwned>(json: &[u8]) -> Result<Typed<T>, DecodeError> {
    let mut unknown = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // Not a closure's own type, which differs per kind: the readers of the parts that kinds share, such as a pod's spec,
    // would be compiled once for each of them, and a process maps what it touches of that.
    let note: &mut dyn FnMut(serde_ignored::Path<'_>) = &mut |path| unknown.push(ignored_path(&path));
    let read = serde_ignored::deserialize(&mut deserializer, note)
        .and_then(|object| deserializer.end().map(|()| object));
    match read {
        Ok(object) => Ok((object, unknown, duplicate_fields(json))),
        Err(error) => explain::<T>(json, &error),
    }
}

/// Reads again, slowly, to tell where the error is. Go takes `null` for any zero value, so nulls get a second chance.
fn explain<T: DeserializeOwned>(json: &[u8], error: &serde_json::Error) -> Result<Typed<T>, DecodeError> {
    let mut value: Value =
        serde_json::from_slice(json).map_err(|_| DecodeError::Syntax(error.to_string()))?;
    if drop_nulls(&mut value) {
        let text = serde_json::to_vec(&value).map_err(|error| DecodeError::Syntax(error.to_string()))?;
        return decode_typed(&text);
    }
    match serde_path_to_error::deserialize::<_, T>(value) {
        Ok(_) => Err(DecodeError::Syntax(error.to_string())),
        Err(error) => Err(DecodeError::Type {
            path: error.path().to_string(),
            message: error.into_inner().to_string(),
        }),
    }
}

fn drop_nulls(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            let before = map.len();
            map.retain(|_, value| !value.is_null());
            let mut dropped = map.len() != before;
            for value in map.values_mut() {
                dropped |= drop_nulls(value);
            }
            dropped
        }
        Value::Array(items) => items
            .iter_mut()
            .fold(false, |dropped, item| drop_nulls(item) | dropped),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

pub(crate) fn decode_dynamic(json: &[u8], info: &ResourceInfo) -> Result<Decoded, DecodeError> {
    let mut value: Value =
        serde_json::from_slice(json).map_err(|error| DecodeError::Syntax(error.to_string()))?;
    let unknown = match builtin_root(&info.group, &info.version, &info.kind) {
        Some(ty) if value.is_object() => conform(&mut value, ty)?,
        _ => Vec::new(),
    };
    let Value::Object(mut fields) = value else {
        return Err(DecodeError::Type {
            path: ".".into(),
            message: "invalid type: expected an object".into(),
        });
    };
    fields.remove("apiVersion");
    fields.remove("kind");
    let metadata = fields
        .remove("metadata")
        .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let text = serde_json::to_vec(&metadata).map_err(|error| DecodeError::Syntax(error.to_string()))?;
    let (metadata, in_meta, _) = decode_typed::<Option<ObjectMeta>>(&text).map_err(in_metadata)?;
    let in_meta = in_meta.into_iter().map(|path| format!("metadata.{path}"));
    Ok(Decoded {
        object: Box::new(DynamicObject {
            api_version: info.api_version().into_owned(),
            kind: info.kind.clone().into_owned(),
            metadata: metadata.unwrap_or_default(),
            fields,
        }),
        unknown: unknown.into_iter().chain(in_meta).collect(),
        duplicates: duplicate_fields(json),
    })
}

impl From<Mismatch> for DecodeError {
    fn from(mismatch: Mismatch) -> Self {
        DecodeError::Type {
            message: format!("invalid type: {}, expected {}", mismatch.found, mismatch.expected),
            path: mismatch.path,
        }
    }
}

fn in_metadata(error: DecodeError) -> DecodeError {
    match error {
        DecodeError::Type { path, message } => DecodeError::Type {
            path: format!("metadata.{path}"),
            message,
        },
        syntax @ DecodeError::Syntax(_) => syntax,
    }
}

/// `spec.containers[0].foo`, as upstream writes paths.
fn ignored_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", ignored_path(parent)),
        Path::Map { parent, key } => {
            let parent = ignored_path(parent);
            if parent.is_empty() {
                (*key).to_owned()
            } else {
                format!("{parent}.{key}")
            }
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored_path(parent)
        }
    }
}

/// Paths of all fields which come twice in one object. Invalid text has none: it fails elsewhere.
fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let scan = Scan {
        path: String::new(),
        found: &mut found,
    };
    match scan.deserialize(&mut deserializer) {
        Ok(()) => found,
        Err(_) => Vec::new(),
    }
}

struct Scan<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        while seq
            .next_element_seed(Scan {
                path: format!("{}[{index}]", self.path),
                found: self.found,
            })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(Key(key)) = map.next_key()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            if !seen.insert(key) {
                self.found.push(path.clone());
            }
            map.next_value_seed(Scan {
                path,
                found: self.found,
            })?;
        }
        Ok(())
    }
}

struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Key)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn unknown_fields_are_named_with_their_path() {
        let json = br#"{"spec":{"containers":[{"name":"a","nam":"b"}],"foo":1}}"#;
        let (_, unknown, duplicates) = decode_typed::<Pod>(json).unwrap();
        assert_eq!(unknown, ["spec.containers[0].nam", "spec.foo"]);
        assert!(duplicates.is_empty());
    }

    #[test]
    fn doubled_fields_are_named_with_their_path() {
        let json = br#"{"metadata":{"name":"a","name":"b"},"spec":{"containers":[{"name":"a","name":"a"}]}}"#;
        let (_, _, duplicates) = decode_typed::<Pod>(json).unwrap();
        assert_eq!(duplicates, ["metadata.name", "spec.containers[0].name"]);
    }

    #[test]
    fn a_wrong_type_is_found_with_its_path() {
        let error = decode_typed::<Pod>(br#"{"spec":{"containers":[{"name":5}]}}"#).unwrap_err();
        let DecodeError::Type { path, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(path, "spec.containers[0].name");
    }

    #[test]
    fn a_wrong_type_is_described_as_in_go() {
        let error = decode_typed::<Pod>(br#"{"spec":{"containers":[{"name":5}]}}"#).unwrap_err();
        assert_eq!(
            error.describe("Pod"),
            "json: cannot unmarshal number into Go struct field Pod.spec.containers.name of type string"
        );
    }

    #[test]
    fn null_is_a_zero_value_as_in_go() {
        let (pod, _, _) = decode_typed::<Pod>(br#"{"metadata":{"labels":{"a":null}},"spec":null}"#).unwrap();
        assert!(pod.metadata.labels.unwrap().is_empty());
    }

    #[test]
    fn broken_text_is_a_syntax_error() {
        assert!(matches!(decode_typed::<Pod>(b"{"), Err(DecodeError::Syntax(_))));
    }
}
