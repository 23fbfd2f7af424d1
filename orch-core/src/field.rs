//! Validation errors that name the field they are about.
//!
//! A [`Path`] says where in an object one is, a [`FieldError`] what is wrong there, and an [`ErrorList`] collects
//! them so that a caller learns everything at once. Kinds, reasons and wordings are those of Kubernetes' field
//! errors; [`ApiError::invalid`](crate::status::ApiError::invalid) turns a list into the `Status` which clients read.
//!
//! ```
//! use orch_core::field::{ErrorList, FieldError, Path};
//!
//! let mut errors = ErrorList::new();
//! let container = Path::new("spec").child("containers").index(0);
//! errors.push(FieldError::required(&container.child("name"), ""));
//! assert_eq!(errors.to_string(), "spec.containers[0].name: Required value");
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

/// Where in an object a value stands, for example `spec.containers[0].name`.
///
/// Cheap to clone; a child shares its parent.
#[derive(Clone, Debug, Default)]
pub struct Path(Option<Arc<Node>>);

#[derive(Debug)]
struct Node {
    parent: Path,
    segment: Segment,
}

#[derive(Debug)]
enum Segment {
    Name(Cow<'static, str>),
    Index(usize),
    Key(String),
}

impl Path {
    /// A path of one field.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Path::root().child(name)
    }

    /// The object itself. As the field of an error it is written `<nil>`, as upstream does.
    pub fn root() -> Self {
        Path(None)
    }

    /// The field `name` below this one.
    #[must_use]
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.join(Segment::Name(name.into()))
    }

    /// The item at `index` of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.join(Segment::Index(index))
    }

    /// The entry `key` of this map, or the list item which `key` identifies.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.join(Segment::Key(key.into()))
    }

    fn join(&self, segment: Segment) -> Self {
        Path(Some(Arc::new(Node {
            parent: self.clone(),
            segment,
        })))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(node) = &self.0 else {
            return f.write_str("<nil>");
        };
        let mut nodes = vec![node];
        while let Some(parent) = &nodes[nodes.len() - 1].parent.0 {
            nodes.push(parent);
        }
        for (depth, node) in nodes.iter().rev().enumerate() {
            match &node.segment {
                Segment::Name(name) if depth == 0 => f.write_str(name)?,
                Segment::Name(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => write!(f, "[{key}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldErrorKind {
    /// The value names something that does not exist.
    NotFound,
    /// A value is needed and absent or empty.
    Required,
    /// The value occurs twice where it may occur once.
    Duplicate,
    /// The value is malformed or out of range.
    Invalid,
    /// The value is none of the known ones.
    NotSupported,
    /// The field may not be set, or not like this, under the present conditions.
    Forbidden,
    /// The value is too long.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// The check itself failed.
    Internal,
    /// The value has the wrong type.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The words that begin the message.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Invalid | FieldErrorKind::TypeInvalid => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::Internal => "Internal error",
        }
    }

    /// The `reason` of the cause in a `Status`.
    pub fn reason(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::Internal => "InternalError",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(
            self,
            FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::TooLong
                | FieldErrorKind::Internal
        )
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: {}", self.body())]
pub struct FieldError {
    /// What kind of error it is.
    pub kind: FieldErrorKind,
    /// The field's path.
    pub field: String,
    /// The value found there.
    pub value: Value,
    /// More words, may be empty.
    pub detail: String,
}

impl FieldError {
    fn new(kind: FieldErrorKind, path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        FieldError {
            kind,
            field: path.to_string(),
            value: value.into(),
            detail: detail.into(),
        }
    }

    /// A value is needed here.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, "", detail)
    }

    /// `value` is not acceptable here; `detail` says why.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, value, detail)
    }

    /// `value` has the wrong type.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, value, detail)
    }

    /// `value` is here for the second time.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, value, "")
    }

    /// `value` is none of `supported`.
    pub fn not_supported<S: AsRef<str>>(
        path: &Path,
        value: impl Into<Value>,
        supported: impl IntoIterator<Item = S>,
    ) -> Self {
        let quoted: Vec<_> = supported.into_iter().map(|s| quote(s.as_ref())).collect();
        let detail = match quoted.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", quoted.join(", ")),
        };
        Self::new(FieldErrorKind::NotSupported, path, value, detail)
    }

    /// This field may not be set, or not changed.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, "", detail)
    }

    /// What is here is longer than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::new(FieldErrorKind::TooLong, path, "<value omitted>", detail)
    }

    /// `actual` items are here, `max` are allowed.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} items");
        Self::new(FieldErrorKind::TooMany, path, actual, detail)
    }

    /// What `value` names does not exist.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, value, "")
    }

    /// The field could not be checked.
    pub fn internal(path: &Path, error: impl fmt::Display) -> Self {
        Self::new(FieldErrorKind::Internal, path, Value::Null, error.to_string())
    }

    /// The message without the field, as a `Status` cause carries it.
    pub fn body(&self) -> String {
        let mut body = self.kind.as_str().to_owned();
        if self.kind.shows_value() {
            body.push_str(": ");
            match &self.value {
                Value::String(s) => body.push_str(&quote(s)),
                Value::Null => body.push_str("null"),
                other => body.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }

    /// The cause that stands for this error in `Status.details.causes`.
    pub fn to_cause(&self) -> StatusCause {
        StatusCause {
            field: Some(self.field.clone()),
            message: Some(self.body()),
            reason: Some(self.kind.reason().to_owned()),
        }
    }
}

/// All that is wrong with an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList(Vec<FieldError>);

impl ErrorList {
    /// No errors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an error.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many errors there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The errors in the order found.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    /// The causes for `Status.details.causes`.
    pub fn to_causes(&self) -> Vec<StatusCause> {
        self.0.iter().map(FieldError::to_cause).collect()
    }

    /// `Err(self)` when something is wrong.
    ///
    /// # Errors
    /// The list itself, unless it is empty.
    pub fn into_result(self) -> Result<(), ErrorList> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

/// One error as it is; several in brackets, repeats once, as upstream aggregates them.
impl fmt::Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut messages: Vec<String> = Vec::with_capacity(self.0.len());
        for error in &self.0 {
            let message = error.to_string();
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
        match messages.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

impl std::error::Error for ErrorList {}

impl From<FieldError> for ErrorList {
    fn from(error: FieldError) -> Self {
        ErrorList(vec![error])
    }
}

impl From<Vec<FieldError>> for ErrorList {
    fn from(errors: Vec<FieldError>) -> Self {
        ErrorList(errors)
    }
}

impl Extend<FieldError> for ErrorList {
    fn extend<T: IntoIterator<Item = FieldError>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}

impl FromIterator<FieldError> for ErrorList {
    fn from_iter<T: IntoIterator<Item = FieldError>>(iter: T) -> Self {
        ErrorList(iter.into_iter().collect())
    }
}

impl IntoIterator for ErrorList {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// `s` in double quotes with the escapes that Go's `%q` uses, which all of upstream's messages are written with.
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_upstream_writes_them() {
        let containers = Path::new("spec").child("containers");
        assert_eq!(
            containers.index(3).child("name").to_string(),
            "spec.containers[3].name"
        );
        assert_eq!(
            Path::new("metadata").child("labels").key("a/b").to_string(),
            "metadata.labels[a/b]"
        );
        assert_eq!(Path::root().to_string(), "<nil>");
        assert_eq!(Path::root().index(1).child("x").to_string(), "[1].x");
    }

    #[test]
    fn every_kind_has_upstreams_words() {
        let p = Path::new("a");
        let table = [
            (FieldError::required(&p, ""), "a: Required value"),
            (FieldError::required(&p, "name it"), "a: Required value: name it"),
            (
                FieldError::invalid(&p, "x\"y", "no quotes"),
                "a: Invalid value: \"x\\\"y\": no quotes",
            ),
            (
                FieldError::invalid(&p, -1, "negative"),
                "a: Invalid value: -1: negative",
            ),
            (
                FieldError::invalid(&p, serde_json::json!({"b": 1}), "bad"),
                "a: Invalid value: {\"b\":1}: bad",
            ),
            (FieldError::duplicate(&p, "x"), "a: Duplicate value: \"x\""),
            (
                FieldError::not_supported(&p, "x", ["a", "b"]),
                "a: Unsupported value: \"x\": supported values: \"a\", \"b\"",
            ),
            (FieldError::forbidden(&p, "immutable"), "a: Forbidden: immutable"),
            (
                FieldError::too_long(&p, 63),
                "a: Too long: may not be more than 63 bytes",
            ),
            (
                FieldError::too_many(&p, 5, 3),
                "a: Too many: 5: must have at most 3 items",
            ),
            (FieldError::not_found(&p, "x"), "a: Not found: \"x\""),
            (FieldError::internal(&p, "disk"), "a: Internal error: disk"),
        ];
        for (error, text) in table {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn causes_carry_field_reason_and_body() {
        let cause = FieldError::duplicate(&Path::new("a"), "x").to_cause();
        assert_eq!(cause.field.as_deref(), Some("a"));
        assert_eq!(cause.reason.as_deref(), Some("FieldValueDuplicate"));
        assert_eq!(cause.message.as_deref(), Some("Duplicate value: \"x\""));
    }

    #[test]
    fn several_errors_are_bracketed_and_repeats_told_once() {
        let a = FieldError::required(&Path::new("a"), "");
        let b = FieldError::required(&Path::new("b"), "");
        let list: ErrorList = [a.clone(), b, a].into_iter().collect();
        assert_eq!(list.to_string(), "[a: Required value, b: Required value]");
        assert_eq!(list.to_causes().len(), 3);
    }
}
