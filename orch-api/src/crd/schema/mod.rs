//! The schema of a version of a custom resource, compiled once: what each value may be, what is kept, what is set.

mod defaults;
mod embedded;
mod format;
mod lists;
mod merge;
mod numbers;
mod prune;
mod validate;

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;
use serde_json::Value;

pub(crate) use self::format::Format;
pub(crate) use self::merge::merge_type;
pub(crate) use self::numbers::go_float;
pub(crate) use self::prune::prune_and_note;

/// The types that JSON knows and a schema may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonType {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl JsonType {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How apply and validation tell items apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What is said about fields that are not named.
#[derive(Debug)]
pub(crate) enum Additional {
    Any(bool),
    Schema(Box<Schema>),
}

/// A compiled schema, or a part of one.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) ty: Option<JsonType>,
    pub(crate) nullable: bool,
    pub(crate) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) additional: Option<Additional>,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) required: Vec<String>,
    pub(crate) preserve: bool,
    pub(crate) embedded: bool,
    pub(crate) int_or_string: bool,
    pub(crate) list_type: Option<ListType>,
    pub(crate) atomic_map: bool,
    pub(crate) enumeration: Vec<Value>,
    pub(crate) format: Option<Format>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) lengths: Bounds,
    pub(crate) counts: Bounds,
    pub(crate) sizes: Bounds,
    pub(crate) minimum: Option<Limit>,
    pub(crate) maximum: Option<Limit>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
    /// Whether anything inside has a default: what has none is not walked.
    pub(crate) has_defaults: bool,
}

/// From and to, each if at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) min: Option<i64>,
    pub(crate) max: Option<i64>,
}

/// A bound of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) value: f64,
    pub(crate) exclusive: bool,
}

impl Schema {
    /// Compiles what has passed validation. What could not be compiled is left out.
    pub(crate) fn compile(from: &JSONSchemaProps) -> Self {
        let all = |parts: &Option<Vec<JSONSchemaProps>>| parts.iter().flatten().map(Self::compile).collect();
        let on = |flag: Option<bool>| flag == Some(true);
        let limit = |value: Option<f64>, exclusive| {
            value.map(|value| Limit {
                value,
                exclusive: on(exclusive),
            })
        };
        let mut schema = Self {
            ty: from.type_.as_deref().and_then(JsonType::parse),
            nullable: on(from.nullable),
            default: from.default.as_ref().map(|default| default.0.clone()),
            properties: from
                .properties
                .iter()
                .flatten()
                .map(|(name, schema)| (name.clone(), Self::compile(schema)))
                .collect(),
            additional: from
                .additional_properties
                .as_ref()
                .map(|additional| match additional {
                    JSONSchemaPropsOrBool::Bool(any) => Additional::Any(*any),
                    JSONSchemaPropsOrBool::Schema(schema) => {
                        Additional::Schema(Box::new(Self::compile(schema)))
                    }
                }),
            items: match &from.items {
                Some(JSONSchemaPropsOrArray::Schema(schema)) => Some(Box::new(Self::compile(schema))),
                Some(JSONSchemaPropsOrArray::Schemas(_)) | None => None,
            },
            required: from.required.clone().unwrap_or_default(),
            preserve: on(from.x_kubernetes_preserve_unknown_fields),
            embedded: on(from.x_kubernetes_embedded_resource),
            int_or_string: on(from.x_kubernetes_int_or_string),
            list_type: list_type(from),
            atomic_map: from.x_kubernetes_map_type.as_deref() == Some("atomic"),
            enumeration: from.enum_.iter().flatten().map(|value| value.0.clone()).collect(),
            format: from.format.as_deref().and_then(Format::parse),
            pattern: from
                .pattern
                .as_deref()
                .and_then(|pattern| Regex::new(pattern).ok()),
            lengths: Bounds {
                min: from.min_length,
                max: from.max_length,
            },
            counts: Bounds {
                min: from.min_items,
                max: from.max_items,
            },
            sizes: Bounds {
                min: from.min_properties,
                max: from.max_properties,
            },
            minimum: limit(from.minimum, from.exclusive_minimum),
            maximum: limit(from.maximum, from.exclusive_maximum),
            multiple_of: from.multiple_of,
            all_of: all(&from.all_of),
            any_of: all(&from.any_of),
            one_of: all(&from.one_of),
            not: from.not.as_ref().map(|not| Box::new(Self::compile(not))),
            has_defaults: false,
        };
        let has_defaults = schema
            .parts()
            .any(|part| part.default.is_some() || part.has_defaults);
        schema.has_defaults = has_defaults;
        schema
    }

    /// The schemas of the values right inside of a value of this one.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Schema> {
        let additional = match &self.additional {
            Some(Additional::Schema(schema)) => Some(&**schema),
            Some(Additional::Any(_)) | None => None,
        };
        self.properties
            .values()
            .chain(additional)
            .chain(self.items.as_deref())
    }

    /// The schema of a field by its name.
    pub(crate) fn field(&self, name: &str) -> Option<&Schema> {
        match (self.properties.get(name), &self.additional) {
            (Some(schema), _) => Some(schema),
            (None, Some(Additional::Schema(schema))) => Some(schema),
            (None, _) => None,
        }
    }
}

fn list_type(from: &JSONSchemaProps) -> Option<ListType> {
    Some(match from.x_kubernetes_list_type.as_deref()? {
        "set" => ListType::Set,
        "map" => ListType::Map(from.x_kubernetes_list_map_keys.clone().unwrap_or_default()),
        _ => ListType::Atomic,
    })
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
