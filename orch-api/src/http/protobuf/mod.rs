//! Bodies in `application/vnd.kubernetes.protobuf`, which typed Go clients send, read into JSON.
//!
//! The wire layout of the built-in kinds' messages is a table (`messages.txt`, made by `make_table.py`), so that one reader
//! serves all kinds. Go's encoder writes every field that is no pointer, set or not; what stands for "not set" there is
//! left out here.

mod reader;
mod table;

use reader::{Field, Fields, Malformed};
use serde_json::{Map, Value};
use table::{Message, Scalar, Table, Type};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Messages nest as deep as the kinds' types do; this bounds what nests without end.
const MAX_DEPTH: usize = 64;

/// Integer fields that are no pointers in Go's types and whose 0 means "not set".
const ZERO_IS_UNSET: &[&str] = &[
    "backoffLimitPerIndex",
    "failureThreshold",
    "generation",
    "healthCheckNodePort",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "observedGeneration",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
];

/// Why a body could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ProtobufError {
    /// It does not begin as such a body does.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    /// It is cut off, or no protobuf at all.
    #[error("the protobuf message is malformed")]
    Malformed,
    /// It names a kind whose layout is not known.
    #[error("no protobuf message is known for {kind} in {api_version}")]
    Unknown {
        /// The kind.
        kind: String,
        /// Its group and version.
        api_version: String,
    },
}

impl From<Malformed> for ProtobufError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads a body into JSON, with `apiVersion` and `kind`.
pub(crate) fn to_json(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields::of(envelope) {
        match field? {
            Field { tag: 1, value } => {
                for field in Fields::of(value.bytes()?) {
                    match field? {
                        Field { tag: 1, value } => api_version = value.text()?.to_owned(),
                        Field { tag: 2, value } => kind = value.text()?.to_owned(),
                        Field { .. } => {}
                    }
                }
            }
            Field { tag: 2, value } => raw = value.bytes()?,
            Field { .. } => {}
        }
    }
    let table = Table::get();
    let message = table
        .of_kind(&api_version, &kind)
        .ok_or_else(|| ProtobufError::Unknown {
            kind: kind.clone(),
            api_version: api_version.clone(),
        })?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Decoder { table }.fields_into(&mut object, message, raw, 0)?;
    Ok(Value::Object(object))
}

struct Decoder {
    table: &'static Table,
}

impl Decoder {
    fn fields_into(
        &self,
        object: &mut Map<String, Value>,
        message: &Message,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(), ProtobufError> {
        if depth > MAX_DEPTH {
            return Err(ProtobufError::Malformed);
        }
        for field in Fields::of(bytes) {
            let Field { tag, value } = field?;
            let Some(known) = message.field(tag) else { continue };
            match &known.kind {
                Type::Inline(name) => {
                    let inner = self.table.message(name).ok_or(ProtobufError::Malformed)?;
                    self.fields_into(object, inner, value.bytes()?, depth + 1)?;
                }
                Type::One(scalar) => {
                    if let Some(value) = self.scalar(scalar, &known.name, &value, depth)? {
                        object.insert(known.name.clone(), value);
                    }
                }
                Type::List(scalar) => {
                    let item = self.item(scalar, &value, depth)?;
                    let list = object
                        .entry(known.name.clone())
                        .or_insert_with(|| Value::Array(Vec::new()));
                    list.as_array_mut().ok_or(ProtobufError::Malformed)?.push(item);
                }
                Type::Map(scalar) => {
                    let (key, item) = self.entry(scalar, value.bytes()?, depth)?;
                    let map = object
                        .entry(known.name.clone())
                        .or_insert_with(|| Value::Object(Map::new()));
                    map.as_object_mut()
                        .ok_or(ProtobufError::Malformed)?
                        .insert(key, item);
                }
            }
        }
        Ok(())
    }

    /// A single field; `None` when it stands for "not set".
    fn scalar(
        &self,
        scalar: &Scalar,
        name: &str,
        value: &reader::Wire<'_>,
        depth: usize,
    ) -> Result<Option<Value>, ProtobufError> {
        Ok(match scalar {
            Scalar::Text => Some(value.text()?)
                .filter(|text| !text.is_empty())
                .map(Value::from),
            Scalar::Integer => match value.integer()? {
                0 if ZERO_IS_UNSET.contains(&name) => None,
                number => Some(number.into()),
            },
            _ => match self.item(scalar, value, depth)? {
                Value::Null => None,
                // The empty message of a field without `omitempty`, such as a status that nobody wrote.
                Value::Object(map) if map.is_empty() && name == "status" => None,
                other => Some(other),
            },
        })
    }

    fn item(&self, scalar: &Scalar, value: &reader::Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
        Ok(match scalar {
            Scalar::Text => value.text()?.into(),
            Scalar::Bytes => base64(value.bytes()?).into(),
            Scalar::Integer => value.integer()?.into(),
            Scalar::Truth => (value.integer()? != 0).into(),
            Scalar::Double => value.double()?.into(),
            Scalar::Message(name) => self.message(name, value.bytes()?, depth)?,
        })
    }

    fn message(&self, name: &str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
        match name {
            "meta/v1.Time" => time(bytes, 0),
            "meta/v1.MicroTime" => time(bytes, 6),
            "resource.Quantity" => Ok(first(bytes, 1)?.map_or(Ok("0"), |value| value.text())?.into()),
            "intstr.IntOrString" => int_or_string(bytes),
            "runtime.RawExtension" | "meta/v1.FieldsV1" => {
                let raw = first(bytes, 1)?.map_or(Ok(&b"null"[..]), |value| value.bytes())?;
                serde_json::from_slice(raw).map_err(|_| ProtobufError::Malformed)
            }
            _ => {
                let message = self.table.message(name).ok_or(ProtobufError::Malformed)?;
                let mut object = Map::new();
                self.fields_into(&mut object, message, bytes, depth + 1)?;
                Ok(Value::Object(object))
            }
        }
    }

    fn entry(&self, scalar: &Scalar, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
        let key = first(bytes, 1)?.map_or(Ok(""), |value| value.text())?;
        let value = match (first(bytes, 2)?, scalar) {
            (Some(value), _) => self.item(scalar, &value, depth)?,
            (None, Scalar::Text | Scalar::Bytes) => "".into(),
            (None, _) => return Err(ProtobufError::Malformed),
        };
        Ok((key.to_owned(), value))
    }
}

fn first(bytes: &[u8], tag: u64) -> Result<Option<reader::Wire<'_>>, Malformed> {
    for field in Fields::of(bytes) {
        let field = field?;
        if field.tag == tag {
            return Ok(Some(field.value));
        }
    }
    Ok(None)
}

/// Seconds and nanoseconds; the message without either is Go's zero time, which is no time.
fn time(bytes: &[u8], digits: usize) -> Result<Value, ProtobufError> {
    let seconds = first(bytes, 1)?.map_or(Ok(0), |value| value.integer())?;
    let nanoseconds = first(bytes, 2)?.map_or(Ok(0), |value| value.integer())?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| ProtobufError::Malformed)?;
    let time = jiff::Timestamp::new(seconds, nanoseconds).map_err(|_| ProtobufError::Malformed)?;
    Ok(format!("{time:.digits$}").into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let is_text = first(bytes, 1)?.map_or(Ok(0), |value| value.integer())? == 1;
    Ok(if is_text {
        first(bytes, 3)?.map_or(Ok(""), |value| value.text())?.into()
    } else {
        first(bytes, 2)?.map_or(Ok(0), |value| value.integer())?.into()
    })
}

fn base64(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn varint(mut number: u64, into: &mut Vec<u8>) {
        while number >= 0x80 {
            into.push((number as u8) | 0x80);
            number >>= 7;
        }
        into.push(number as u8);
    }

    fn number(tag: u64, value: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint(tag << 3, &mut bytes);
        varint(value as u64, &mut bytes);
        bytes
    }

    fn part(tag: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint(tag << 3 | 2, &mut bytes);
        varint(value.as_ref().len() as u64, &mut bytes);
        bytes.extend(value.as_ref());
        bytes
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [part(1, api_version), part(2, kind)].concat();
        [
            MAGIC.to_vec(),
            part(1, types),
            part(2, raw),
            part(3, ""),
            part(4, ""),
        ]
        .concat()
    }

    #[test]
    fn a_deployment_becomes_the_json_that_it_stands_for() {
        let meta = [
            part(1, "web"),
            part(2, ""),
            part(8, ""),
            part(11, [part(1, "app"), part(2, "web")].concat()),
        ]
        .concat();
        let port = [number(2, 0), number(3, 8080)].concat();
        let volume = [part(1, "tmp"), part(2, part(2, ""))].concat();
        let limits = part(1, [part(1, "cpu"), part(2, part(1, "10m"))].concat());
        let container = [part(1, "c"), part(3, "sleep"), part(6, port), part(8, limits)].concat();
        let pod = [part(1, volume), part(2, container), number(11, 0)].concat();
        let template = [part(1, part(8, "")), part(2, pod)].concat();
        let rolling = part(1, [number(1, 1), number(2, 0), part(3, "25%")].concat());
        let spec = [
            number(1, 0),
            part(3, template),
            part(4, part(2, rolling)),
            number(5, 0),
        ]
        .concat();
        let raw = [part(1, meta), part(2, spec), part(3, "")].concat();
        let expected = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {
                "replicas": 0,
                "strategy": {"rollingUpdate": {"maxUnavailable": "25%"}},
                "template": {"metadata": {}, "spec": {
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                    "containers": [{
                        "name": "c", "command": ["sleep"], "ports": [{"containerPort": 8080}],
                        "resources": {"limits": {"cpu": "10m"}},
                    }],
                    "hostNetwork": false,
                }},
            },
        });
        assert_eq!(to_json(&body("apps/v1", "Deployment", &raw)), Ok(expected));
    }

    #[test]
    fn bytes_times_and_negative_numbers_are_read() {
        let data = part(2, [part(1, "k"), part(2, [0xff, 0])].concat());
        let secret = to_json(&body("v1", "Secret", &data)).expect("a secret");
        assert_eq!(secret["data"]["k"], "/wA=");
        let meta = part(1, part(8, number(1, 1_700_000_000)));
        let pod = to_json(&body("v1", "Pod", &meta)).expect("a pod");
        assert_eq!(pod["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
        let class = to_json(&body("scheduling.k8s.io/v1", "PriorityClass", &number(2, -5))).expect("a class");
        assert_eq!(class["value"], -5);
    }

    #[test]
    fn options_are_known_in_every_group() {
        let options = to_json(&body("apps/v1", "DeleteOptions", &number(1, 0))).expect("options");
        assert_eq!(options["gracePeriodSeconds"], 0);
    }

    #[test]
    fn what_is_no_such_body_is_refused() {
        assert_eq!(to_json(b"{}"), Err(ProtobufError::Prefix));
        assert_eq!(to_json(b"k8s\0\x0a\xff"), Err(ProtobufError::Malformed));
        let unknown = to_json(&body("example.com/v1", "Thing", &[]));
        assert!(matches!(unknown, Err(ProtobufError::Unknown { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _outcome = to_json(&body("v1", "Pod", &raw)).is_ok();
            let _outcome = to_json(&raw).is_ok();
        }
    }
}
