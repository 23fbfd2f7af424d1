//! The other shapes of objects: tables for people, metadata alone for controllers.

use bytes::Bytes;
use jiff::Timestamp;
use orch_core::status::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::http::accept::Shape;
use crate::http::query::Query;
use crate::strategy::{Column, Strategy};

/// What a table row carries of its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        match query.get("includeObject") {
            None | Some("Metadata") => Ok(IncludeObject::Metadata),
            Some("None") => Ok(IncludeObject::None),
            Some("Object") => Ok(IncludeObject::Object),
            Some(other) => Err(ApiError::bad_request(format!(
                "unrecognized includeObject value: \"{other}\""
            ))),
        }
    }
}

/// What stands in the metadata of a list or table.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    pub(crate) resource_version: String,
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub(crate) continue_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remaining_item_count: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    format: &'a str,
    description: &'a str,
    priority: i32,
}

impl<'a> From<&'a Column> for Definition<'a> {
    fn from(column: &'a Column) -> Self {
        Definition {
            name: &column.name,
            kind: &column.kind,
            format: &column.format,
            description: &column.description,
            priority: column.priority,
        }
    }
}

#[derive(Serialize)]
struct Row {
    cells: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Table<'a> {
    kind: &'static str,
    api_version: String,
    metadata: ListMeta,
    column_definitions: Vec<Definition<'a>>,
    rows: Vec<Row>,
}

fn raw(bytes: &[u8]) -> Result<Box<RawValue>, ApiError> {
    serde_json::from_slice(bytes).map_err(ApiError::internal)
}

fn row(
    strategy: &dyn Strategy,
    version: &str,
    include: IncludeObject,
    object: &[u8],
    now: Timestamp,
) -> Result<Row, ApiError> {
    let decoded = strategy.decode(object).map_err(ApiError::internal)?;
    let object = match include {
        IncludeObject::None => None,
        IncludeObject::Metadata => Some(raw(&metadata(version, object)?)?),
        IncludeObject::Object => Some(raw(object)?),
    };
    Ok(Row {
        cells: strategy.cells(&*decoded.object, now),
        object,
    })
}

/// A table of objects. Without `definitions` it continues one that the client has the columns of.
pub(crate) fn table<'a>(
    strategy: &dyn Strategy,
    version: &str,
    include: IncludeObject,
    objects: impl Iterator<Item = &'a Bytes>,
    list: ListMeta,
    definitions: bool,
) -> Result<Bytes, ApiError> {
    let now = Timestamp::now();
    let columns = if definitions { strategy.columns() } else { &[] };
    let table = Table {
        kind: "Table",
        api_version: format!("meta.k8s.io/{version}"),
        metadata: list,
        column_definitions: columns.iter().map(Definition::from).collect(),
        rows: objects
            .map(|object| row(strategy, version, include, object, now))
            .collect::<Result<_, _>>()?,
    };
    serde_json::to_vec(&table)
        .map(Bytes::from)
        .map_err(ApiError::internal)
}

#[derive(Deserialize)]
struct MetadataOnly<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// The resourceVersion of served bytes, for tables of one object.
#[derive(Deserialize)]
struct Versioned {
    metadata: VersionedMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionedMetadata {
    #[serde(default)]
    resource_version: String,
}

/// A PartialObjectMetadata of served bytes; the metadata is copied as it is.
pub(crate) fn metadata(version: &str, object: &[u8]) -> Result<Bytes, ApiError> {
    let only: MetadataOnly<'_> = serde_json::from_slice(object).map_err(ApiError::internal)?;
    let text = only.metadata.get();
    Ok(format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/{version}","metadata":{text}}}"#
    )
    .into())
}

/// One object in the shape that the client wants.
pub(crate) fn object(
    strategy: &dyn Strategy,
    shape: Shape,
    include: IncludeObject,
    json: &Bytes,
) -> Result<Bytes, ApiError> {
    match shape {
        Shape::Table(version) => {
            let of: Versioned = serde_json::from_slice(json).map_err(ApiError::internal)?;
            let list = ListMeta {
                resource_version: of.metadata.resource_version,
                ..ListMeta::default()
            };
            table(strategy, version, include, std::iter::once(json), list, true)
        }
        Shape::Metadata(version) => metadata(version, json),
        Shape::Object | Shape::AggregatedDiscovery(_) => Ok(json.clone()),
    }
}

/// The shape of an object that says only up to where a watch has come.
pub(crate) fn bookmark(strategy: &dyn Strategy, shape: Shape, revision: u64, initial_end: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let info = strategy.info();
    let object = match shape {
        Shape::Table(version) => json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": [],
            "rows": [{"cells": [], "object": {
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            }}],
        }),
        Shape::Metadata(version) => json!({
            "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        }),
        Shape::Object | Shape::AggregatedDiscovery(_) => {
            json!({"kind": info.kind, "apiVersion": info.api_version(), "metadata": metadata})
        }
    };
    object.to_string().into()
}
