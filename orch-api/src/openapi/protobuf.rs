//! A v2 document as gnostic's `openapi.v2.Document`, for clients that read protobuf only. Field numbers are those of
//! gnostic's `OpenAPIv2.proto`.

use serde_json::{Map, Value};

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: u64, content: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(content.len() as u64);
        self.0.extend_from_slice(content);
    }

    fn message(&mut self, field: u64, inner: &Message) {
        self.bytes(field, &inner.0);
    }

    /// Proto3 leaves out what is empty.
    fn text(&mut self, field: u64, text: Option<&Value>) {
        if let Some(text) = text.and_then(Value::as_str).filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, texts: Option<&Value>) {
        for text in texts.and_then(Value::as_array).into_iter().flatten() {
            self.bytes(field, text.as_str().unwrap_or_default().as_bytes());
        }
    }

    fn flag(&mut self, field: u64, flag: Option<&Value>) {
        if flag.and_then(Value::as_bool) == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    /// A map, as `NamedX` messages of name and value.
    fn named(&mut self, field: u64, entries: &Map<String, Value>, encode: impl Fn(&Value) -> Message) {
        for (name, value) in entries {
            let mut entry = Message::default();
            entry.bytes(1, name.as_bytes());
            entry.message(2, &encode(value));
            self.message(field, &entry);
        }
    }

    /// The `x-` fields of an object. Their values are YAML, which JSON is.
    fn extensions(&mut self, field: u64, object: &Value) {
        for (name, value) in object
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| name.starts_with("x-"))
        {
            let mut any = Message::default();
            any.bytes(2, value.to_string().as_bytes());
            let mut entry = Message::default();
            entry.bytes(1, name.as_bytes());
            entry.message(2, &any);
            self.message(field, &entry);
        }
    }

    /// A message that has this one as its only field.
    fn within(self, field: u64) -> Message {
        let mut outer = Message::default();
        outer.message(field, &self);
        outer
    }
}

/// Encodes a v2 document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, document.get("swagger"));
    let mut info = Message::default();
    info.text(1, document.pointer("/info/title"));
    info.text(2, document.pointer("/info/version"));
    message.message(2, &info);
    if let Some(Value::Object(paths)) = document.get("paths") {
        let mut inner = Message::default();
        inner.named(2, paths, path_item);
        message.message(8, &inner);
    }
    if let Some(Value::Object(definitions)) = document.get("definitions") {
        let mut inner = Message::default();
        inner.named(1, definitions, schema);
        message.message(9, &inner);
    }
    message.0
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(inner) = item.get(method) {
            message.message(field, &operation(inner));
        }
    }
    parameters(&mut message, 9, item);
    message
}

fn operation(operation: &Value) -> Message {
    let mut message = Message::default();
    message.text(5, operation.get("operationId"));
    message.texts(6, operation.get("produces"));
    message.texts(7, operation.get("consumes"));
    parameters(&mut message, 8, operation);
    if let Some(Value::Object(found)) = operation.get("responses") {
        let mut inner = Message::default();
        inner.named(1, found, |found| response(found).within(1));
        message.message(9, &inner);
    }
    message.extensions(13, operation);
    message
}

fn response(response: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, response.get("description"));
    if let Some(found) = response.get("schema") {
        message.message(2, &schema(found).within(1));
    }
    message
}

fn parameters(message: &mut Message, field: u64, object: &Value) {
    for found in object
        .get("parameters")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        message.message(field, &parameter(found).within(1));
    }
}

fn parameter(parameter: &Value) -> Message {
    let mut message = Message::default();
    match parameter.get("in").and_then(Value::as_str) {
        Some("body") => {
            message.text(2, parameter.get("name"));
            message.text(3, parameter.get("in"));
            message.flag(4, parameter.get("required"));
            if let Some(found) = parameter.get("schema") {
                message.message(5, &schema(found));
            }
            message.within(1)
        }
        Some("path") => {
            message.flag(1, parameter.get("required"));
            message.text(2, parameter.get("in"));
            message.text(4, parameter.get("name"));
            message.text(5, parameter.get("type"));
            message.flag(19, parameter.get("uniqueItems"));
            message.within(4).within(2)
        }
        _ => {
            message.flag(1, parameter.get("required"));
            message.text(2, parameter.get("in"));
            message.text(4, parameter.get("name"));
            message.text(6, parameter.get("type"));
            message.flag(20, parameter.get("uniqueItems"));
            message.within(3).within(2)
        }
    }
}

fn schema(schema: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, schema.get("$ref"));
    message.text(2, schema.get("format"));
    message.text(4, schema.get("description"));
    message.texts(19, schema.get("required"));
    if let Some(found) = schema.get("additionalProperties") {
        message.message(21, &self::schema(found).within(1));
    }
    if let Some(Value::String(name)) = schema.get("type") {
        let mut inner = Message::default();
        inner.bytes(1, name.as_bytes());
        message.message(22, &inner);
    }
    if let Some(found) = schema.get("items") {
        message.message(23, &self::schema(found).within(1));
    }
    if let Some(Value::Object(found)) = schema.get("properties") {
        let mut inner = Message::default();
        inner.named(1, found, self::schema);
        message.message(25, &inner);
    }
    message.extensions(31, schema);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_varints_and_fields_are_tagged() {
        let mut message = Message::default();
        message.varint(300);
        assert_eq!(message.0, [0xac, 0x02]);
        let document = json!({"swagger": "2.0", "info": {"title": "K", "version": "v"}});
        assert_eq!(
            encode(&document),
            [b"\x0a\x032.0".as_slice(), b"\x12\x06\x0a\x01K\x12\x01v"].concat()
        );
    }

    #[test]
    fn extensions_carry_yaml() {
        let encoded = schema(&json!({"type": "object", "x-kubernetes-map-type": "atomic"})).0;
        let text = String::from_utf8_lossy(&encoded);
        assert!(text.contains("x-kubernetes-map-type"));
        assert!(text.contains("\"atomic\""));
    }

    #[test]
    fn a_query_parameter_sits_where_clients_look_for_it() {
        let found = parameter(&json!({"in": "query", "name": "dryRun", "type": "string"}));
        // Parameter.non_body_parameter (2) . query_parameter_sub_schema (3) . in, name, type
        let inner = b"\x12\x05query\x22\x06dryRun\x32\x06string";
        let expected = [
            &[0x12, inner.len() as u8 + 2, 0x1a, inner.len() as u8],
            inner.as_slice(),
        ]
        .concat();
        assert_eq!(found.0, expected);
    }
}
