//! One step of a field's path, and its text in `FieldsV1`.

use std::fmt;

use serde_json::{Map, Value};

/// One step from an object or a list to something in it. Values are kept as their JSON text, so that they have an
/// order and an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A field of an object (`f:`).
    Field(String),
    /// The item of a list whose key fields have these values (`k:`), sorted by field.
    Key(Vec<(String, String)>),
    /// The item of a set (`v:`).
    Value(String),
    /// The item at an index (`i:`).
    Index(i64),
}

/// Why a text is no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The text has no known prefix. Upstream passes over such steps.
    #[error("unknown path element type in {0:?}")]
    UnknownKind(String),
    /// The part after the prefix can't be read.
    #[error("malformed path element {0:?}")]
    Malformed(String),
}

impl Step {
    /// A field.
    pub fn field(name: impl Into<String>) -> Self {
        Self::Field(name.into())
    }

    /// The item whose key fields have these values.
    #[must_use]
    pub fn key(fields: Vec<(String, &Value)>) -> Self {
        let mut fields: Vec<(String, String)> = fields
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        fields.sort();
        Self::Key(fields)
    }

    /// The item of a set.
    #[must_use]
    pub fn value(value: &Value) -> Self {
        Self::Value(value.to_string())
    }

    /// Reads a key of `FieldsV1`.
    ///
    /// # Errors
    /// [`StepError`]; callers pass over [`StepError::UnknownKind`].
    pub fn parse(text: &str) -> Result<Self, StepError> {
        let malformed = || StepError::Malformed(text.to_owned());
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(StepError::UnknownKind(text.to_owned()));
        };
        match kind {
            "f" => Ok(Self::field(rest)),
            "v" => {
                let value: Value = serde_json::from_str(rest).map_err(|_| malformed())?;
                Ok(Self::value(&value))
            }
            "i" => rest.parse().map(Self::Index).map_err(|_| malformed()),
            "k" => {
                let fields: Map<String, Value> = serde_json::from_str(rest).map_err(|_| malformed())?;
                Ok(Self::key(
                    fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
                ))
            }
            _ => Err(StepError::UnknownKind(text.to_owned())),
        }
    }

    /// The text of this step as a key of `FieldsV1`.
    #[must_use]
    pub fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
            Self::Key(fields) => {
                let pairs: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
                    .collect();
                format!("k:{{{}}}", pairs.join(","))
            }
        }
    }
}

impl fmt::Display for Step {
    /// As messages show it: `.name`, `[key="value"]`, `[="value"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(fields) => {
                let pairs: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                write!(f, "[{}]", pairs.join(","))
            }
        }
    }
}

/// A path as messages show it: `.spec.containers[name="web"].image`.
#[must_use]
pub fn display(path: &[Step]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_their_text() {
        for text in [
            "f:a:b",
            "v:\"x\"",
            "v:1",
            "i:3",
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}",
        ] {
            assert_eq!(Step::parse(text).unwrap().to_key(), text);
        }
        let unsorted = Step::parse("k:{\"protocol\":\"TCP\", \"containerPort\":80}").unwrap();
        assert_eq!(unsorted.to_key(), "k:{\"containerPort\":80,\"protocol\":\"TCP\"}");
        assert_eq!(unsorted.to_string(), "[containerPort=80,protocol=\"TCP\"]");
    }

    #[test]
    fn broken_steps_are_refused_and_unknown_ones_told_apart() {
        assert!(matches!(Step::parse("x:1"), Err(StepError::UnknownKind(_))));
        assert!(matches!(Step::parse("nothing"), Err(StepError::UnknownKind(_))));
        for text in ["v:{", "i:x", "k:[]", "k:"] {
            assert!(
                matches!(Step::parse(text), Err(StepError::Malformed(_))),
                "{text}"
            );
        }
    }
}
