//! The strategy of kinds without rules of their own.

use std::borrow::Cow;

use jiff::Timestamp;
use orch_core::field::ErrorList;
use serde_json::Value;

use crate::decode::{DecodeError, Decoded, decode_dynamic};
use crate::object::{DynamicObject, Object};
use crate::resource::{ResourceInfo, Subresource};
use crate::strategy::{Column, NameRule, ScaleView, Strategy, generic_cells, generic_columns};

#[derive(Debug)]
pub(crate) struct GenericStrategy {
    info: ResourceInfo,
    name_rule: NameRule,
}

impl GenericStrategy {
    pub(crate) fn new(info: ResourceInfo) -> Self {
        let name_rule = if info.group == "rbac.authorization.k8s.io" {
            NameRule::PathSegment
        } else {
            NameRule::DnsSubdomain
        };
        Self { info, name_rule }
    }

    fn has_status(&self) -> bool {
        self.info.has(Subresource::Status)
    }
}

fn dynamic(object: &dyn Object) -> &DynamicObject {
    object
        .downcast_ref()
        .expect("a strategy gets only objects that it decoded itself")
}

fn dynamic_mut(object: &mut dyn Object) -> &mut DynamicObject {
    object
        .downcast_mut()
        .expect("a strategy gets only objects that it decoded itself")
}

fn put(object: &mut DynamicObject, field: &str, value: Option<Value>) {
    match value {
        Some(value) => object.fields.insert(field.to_owned(), value),
        None => object.fields.remove(field),
    };
}

impl Strategy for GenericStrategy {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        decode_dynamic(json, &self.info)
    }

    fn default(&self, _object: &mut dyn Object) {}

    fn prepare_for_create(&self, object: &mut dyn Object) {
        if self.has_status() {
            dynamic_mut(object).fields.remove("status");
            object.metadata_mut().generation = Some(1);
        }
    }

    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object) {
        if self.has_status() {
            put(
                dynamic_mut(new),
                "status",
                dynamic(old).fields.get("status").cloned(),
            );
            if dynamic(new).fields != dynamic(old).fields {
                new.metadata_mut().generation = Some(old.metadata().generation.unwrap_or(0) + 1);
            }
        }
    }

    fn prepare_for_status_update(&self, new: &mut dyn Object, old: &dyn Object) {
        let status = dynamic_mut(new).fields.remove("status");
        dynamic_mut(new).fields.clone_from(&dynamic(old).fields);
        put(dynamic_mut(new), "status", status);
    }

    fn validate(&self, _object: &dyn Object) -> ErrorList {
        ErrorList::default()
    }

    fn validate_update(&self, _new: &dyn Object, _old: &dyn Object) -> ErrorList {
        ErrorList::default()
    }

    fn validate_status_update(&self, _new: &dyn Object, _old: &dyn Object) -> ErrorList {
        ErrorList::default()
    }

    fn warnings(&self, _new: &dyn Object, _old: Option<&dyn Object>) -> Vec<String> {
        Vec::new()
    }

    fn columns(&self) -> &[Column] {
        generic_columns()
    }

    fn cells(&self, object: &dyn Object, _now: Timestamp) -> Vec<Value> {
        generic_cells(object)
    }

    fn field_names(&self) -> &[Cow<'static, str>] {
        &[]
    }

    fn selectable_fields(&self, _object: &dyn Object) -> Vec<(Cow<'static, str>, String)> {
        Vec::new()
    }

    fn name_rule(&self) -> NameRule {
        self.name_rule
    }

    fn scale(&self, object: &dyn Object) -> Option<ScaleView> {
        let fields = &dynamic(object).fields;
        let replicas = |part: &str| fields.get(part)?.get("replicas")?.as_i64()?.try_into().ok();
        self.info.has(Subresource::Scale).then(|| ScaleView {
            spec_replicas: replicas("spec").unwrap_or(0),
            status_replicas: replicas("status").unwrap_or(0),
            selector: selector_text(fields.get("spec").and_then(|spec| spec.get("selector"))),
        })
    }

    fn set_replicas(&self, object: &mut dyn Object, replicas: i32) {
        let fields = &mut dynamic_mut(object).fields;
        let spec = fields
            .entry("spec")
            .or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Value::Object(spec) = spec {
            spec.insert("replicas".to_owned(), Value::from(replicas));
        }
    }

    fn grace_period(&self, _object: &dyn Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    fn create_on_update(&self) -> bool {
        self.info.group == "rbac.authorization.k8s.io"
    }

    fn unconditional_update(&self) -> bool {
        true
    }
}

/// The text of a selector: either `matchLabels` or, as replication controllers have it, a plain map.
fn selector_text(selector: Option<&Value>) -> Option<String> {
    let selector = selector?;
    let labels = selector.get("matchLabels").unwrap_or(selector).as_object()?;
    let pairs: Vec<String> = labels
        .iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    Some(pairs.join(","))
}
