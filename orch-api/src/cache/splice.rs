//! Putting the resourceVersion into stored JSON without decoding it.
//!
//! Values are stored without a resourceVersion, since the store gives it with the write. Readers get the stored bytes
//! with `"resourceVersion":"N"` as the first field of `metadata`.

use bytes::Bytes;

/// Where the resourceVersion goes in a stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seam {
    /// Just after the opening brace of `metadata`.
    at: usize,
    /// Whether `metadata` holds anything else.
    comma: bool,
}

impl Seam {
    /// Finds the top-level `metadata` object. `None` when the text is not an object that has one.
    pub(crate) fn find(json: &[u8]) -> Option<Self> {
        let mut at = skip_space(json, 0);
        if json.get(at) != Some(&b'{') {
            return None;
        }
        at = skip_space(json, at + 1);
        while json.get(at) == Some(&b'"') {
            let end = skip_string(json, at)?;
            let is_metadata = &json[at..end] == b"\"metadata\"";
            at = skip_space(json, end);
            if json.get(at) != Some(&b':') {
                return None;
            }
            at = skip_space(json, at + 1);
            if is_metadata {
                return Self::inside(json, at);
            }
            at = skip_space(json, skip_value(json, at)?);
            if json.get(at) == Some(&b',') {
                at = skip_space(json, at + 1);
            }
        }
        None
    }

    fn inside(json: &[u8], brace: usize) -> Option<Self> {
        if json.get(brace) != Some(&b'{') {
            return None;
        }
        let next = skip_space(json, brace + 1);
        Some(Self {
            at: brace + 1,
            comma: json.get(next)? != &b'}',
        })
    }

    /// Copies the object with a resourceVersion in it.
    pub(crate) fn splice(self, json: &[u8], revision: u64) -> Bytes {
        let field = format!(
            "\"resourceVersion\":\"{revision}\"{}",
            if self.comma { "," } else { "" }
        );
        let mut out = Vec::with_capacity(json.len() + field.len());
        out.extend_from_slice(&json[..self.at]);
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(&json[self.at..]);
        out.into()
    }

    /// Copies an object that was spliced with `old` and puts `new` in its place.
    pub(crate) fn replace(self, spliced: &[u8], old: u64, new: u64) -> Bytes {
        let (old, new) = (
            format!("\"resourceVersion\":\"{old}\""),
            format!("\"resourceVersion\":\"{new}\""),
        );
        let (head, tail) = spliced.split_at(self.at);
        [head, new.as_bytes(), tail.get(old.len()..).unwrap_or_default()]
            .concat()
            .into()
    }
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// The place after the string that begins at `at`.
fn skip_string(json: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The place after the value that begins at `at`.
fn skip_value(json: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match json.get(at)? {
            b'"' => at = skip_string(json, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => {
                at += 1;
                continue;
            }
            // A number or a word: up to the next sign of structure.
            _ => {
                while !matches!(json.get(at)?, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') {
                    at += 1;
                }
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spliced(text: &str) -> Value {
        let seam = Seam::find(text.as_bytes()).expect("there is metadata");
        serde_json::from_slice(&seam.splice(text.as_bytes(), 42)).unwrap()
    }

    #[test]
    fn the_revision_lands_in_the_metadata() {
        for text in [
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{}}"#,
            r#"{"metadata":{"name":"a"}}"#,
            r#" { "data" : {"metadata":{"x":"}\"{"}, "n":[1, -2e3, null, true]}, "z": 5 , "metadata" : { "name":"a" } } "#,
        ] {
            let value = spliced(text);
            assert_eq!(value["metadata"]["resourceVersion"], "42", "{text}");
            assert_eq!(value["metadata"]["name"], "a");
        }
    }

    #[test]
    fn a_spliced_revision_is_replaced() {
        let text = br#"{"x":{"resourceVersion":"9"},"metadata":{"name":"a"}}"#;
        let seam = Seam::find(text).unwrap();
        assert_eq!(
            seam.replace(&seam.splice(text, 9), 9, 12345),
            seam.splice(text, 12345)
        );
    }

    #[test]
    fn empty_metadata_gets_no_comma() {
        assert_eq!(
            spliced(r#"{"metadata":{ }}"#),
            json!({"metadata": {"resourceVersion": "42"}})
        );
    }

    #[test]
    fn text_without_metadata_has_no_seam() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"metadata":null}"#,
            r#"{"a":"metadata"}"#,
            r#"{"a""#,
            r#"{"a":{"#,
            "{\"a",
        ] {
            assert_eq!(Seam::find(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            if let Some(seam) = Seam::find(&bytes) {
                seam.splice(&bytes, 1);
            }
        }
    }
}
