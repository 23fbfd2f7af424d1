//! The schemas of custom resources as the OpenAPI documents have them.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Value, json};

use crate::resource::ResourceInfo;

/// A custom resource with its definition, from which its schemas are made when a document is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Custom {
    pub(crate) info: ResourceInfo,
    pub(crate) definition: Arc<CustomResourceDefinition>,
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.definition, &other.definition) && self.info == other.info
    }
}

impl Custom {
    /// `com.example.v1.Widget`, as upstream names definitions.
    pub(crate) fn definition_name(&self, list: bool) -> String {
        let group: Vec<&str> = self.info.group.rsplit('.').collect();
        let kind = if list {
            &self.info.list_kind
        } else {
            &self.info.kind
        };
        format!("{}.{}.{kind}", group.join("."), self.info.version)
    }

    fn kind(&self, list: bool) -> Value {
        let kind = if list {
            &self.info.list_kind
        } else {
            &self.info.kind
        };
        json!([{"group": self.info.group, "version": self.info.version, "kind": kind}])
    }

    /// The schema of one object; `metadata` is that of all objects.
    pub(crate) fn schema(&self, v2: bool, metadata: &Value) -> Value {
        let versions = &self.definition.spec.versions;
        let version = versions.iter().find(|version| version.name == self.info.version);
        let schema = version
            .and_then(|version| version.schema.as_ref())
            .and_then(|schema| schema.open_api_v3_schema.clone());
        let mut schema = schema.unwrap_or_default();
        if v2 {
            to_v2(&mut schema);
        }
        let keeps_all = schema.x_kubernetes_preserve_unknown_fields == Some(true);
        let mut value = serde_json::to_value(&schema).unwrap_or_else(|_| json!({}));
        value["type"] = json!("object");
        if !(v2 && keeps_all) {
            for (name, field) in type_fields() {
                value["properties"][name] = field;
            }
            value["properties"]["metadata"] = described(metadata, "Standard object's metadata.");
        }
        value["x-kubernetes-group-version-kind"] = self.kind(false);
        value
    }

    /// The schema of a list; `item` and `metadata` refer to those of its parts.
    pub(crate) fn list_schema(&self, item: &Value, metadata: &Value) -> Value {
        let mut schema = json!({
            "description": format!("{} is a list of {}", self.info.list_kind, self.info.kind),
            "type": "object", "required": ["items"],
            "properties": {
                "items": {"type": "array", "items": item, "description": format!("The objects of kind {}.", self.info.kind)},
                "metadata": described(metadata, "Standard list metadata."),
            },
            "x-kubernetes-group-version-kind": self.kind(true),
        });
        for (name, field) in type_fields() {
            schema["properties"][name] = field;
        }
        schema
    }
}

fn described(reference: &Value, words: &str) -> Value {
    let mut described = json!({"allOf": [reference], "description": words});
    // What refers to something else may say nothing more in v2.
    if reference["$ref"]
        .as_str()
        .is_some_and(|path| path.starts_with("#/definitions/"))
    {
        described = reference.clone();
        described["description"] = json!(words);
    }
    described
}

fn type_fields() -> [(&'static str, Value); 2] {
    let field = |words: &str| json!({"type": "string", "description": words});
    [
        (
            "apiVersion",
            field("The version of the schema that this object is written in."),
        ),
        (
            "kind",
            field("The kind of this object, in CamelCase. It cannot be changed."),
        ),
    ]
}

/// Takes out what version 2 cannot say. Old clients validate by that document: it says nothing rather than something too
/// narrow.
fn to_v2(schema: &mut JSONSchemaProps) {
    schema.any_of = None;
    schema.one_of = None;
    schema.not = None;
    schema.all_of = None;
    let nullable = schema.nullable.take() == Some(true);
    if nullable || schema.x_kubernetes_preserve_unknown_fields == Some(true) {
        schema.type_ = None;
        schema.items = None;
        schema.properties = None;
        schema.additional_properties = None;
        schema.enum_ = None;
        schema.required = None;
    }
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.type_ = None;
    }
    for inner in schema.properties.iter_mut().flatten() {
        to_v2(inner.1);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(inner)) = &mut schema.items {
        to_v2(inner);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(inner)) = &mut schema.additional_properties {
        to_v2(inner);
    }
}
