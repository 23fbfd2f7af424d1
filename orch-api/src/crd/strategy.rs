//! The rules of one version of a custom resource, out of its definition.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, CustomResourceSubresourceScale,
};
use orch_core::field::{ErrorList, FieldError, Path};
use serde_json::{Map, Value};

use super::columns::Columns;
use super::json_path::JsonPath;
use super::schema::{Schema, merge_type, prune_and_note};
use super::versions::Siblings;
use crate::apply::Versions;
use crate::decode::{DecodeError, Decoded, decode_dynamic};
use crate::object::{DynamicObject, Object};
use crate::resource::{ResourceInfo, Subresource};
use crate::schema::{Type, TypeRef};
use crate::strategy::{Column, NameRule, ScaleView, Strategy};

/// One version of a custom resource.
#[derive(Debug)]
pub(crate) struct CustomStrategy {
    info: ResourceInfo,
    schema: Schema,
    shape: TypeRef,
    columns: Columns,
    scale: Option<Scale>,
    fields: Vec<(Cow<'static, str>, JsonPath)>,
    field_names: Vec<Cow<'static, str>>,
    notice: Option<String>,
    siblings: Siblings,
    /// The API version that is stored, when it is not this one.
    stored_as: Option<String>,
}

/// Where the replicas stand.
#[derive(Debug)]
struct Scale {
    spec: Vec<String>,
    status: Vec<String>,
    selector: Option<Vec<String>>,
}

impl Scale {
    fn new(from: &CustomResourceSubresourceScale) -> Self {
        let names = |path: &str| {
            let path = JsonPath::parse(path).ok();
            let names = path.as_ref().and_then(JsonPath::names).unwrap_or_default();
            names.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        Self {
            spec: names(&from.spec_replicas_path),
            status: names(&from.status_replicas_path),
            selector: from.label_selector_path.as_deref().map(names),
        }
    }
}

fn at<'v>(fields: &'v Map<String, Value>, path: &[String]) -> Option<&'v Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(fields.get(first)?, |value, name| value.get(name))
}

/// Where a custom resource is served and stored.
pub(crate) fn info(
    definition: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
) -> ResourceInfo {
    let spec = &definition.spec;
    let accepted = definition
        .status
        .as_ref()
        .and_then(|status| status.accepted_names.as_ref());
    let names = accepted.unwrap_or(&spec.names);
    let texts = |texts: &Option<Vec<String>>| texts.iter().flatten().cloned().map(Cow::Owned).collect();
    let mut info = if spec.scope == "Cluster" {
        ResourceInfo::cluster("", "", "", "")
    } else {
        ResourceInfo::namespaced("", "", "", "")
    };
    info.group = Cow::Owned(spec.group.clone());
    info.version = Cow::Owned(version.name.clone());
    info.kind = Cow::Owned(names.kind.clone());
    info.list_kind = Cow::Owned(names.list_kind.clone().unwrap_or_default());
    info.plural = Cow::Owned(spec.names.plural.clone());
    info.singular = Cow::Owned(names.singular.clone().unwrap_or_default());
    info.short_names = texts(&names.short_names);
    info.categories = texts(&names.categories);
    info.storage_path = Cow::Owned(format!("{}/{}", spec.group, spec.names.plural));
    let parts = version.subresources.as_ref();
    if parts.is_some_and(|parts| parts.status.is_some()) {
        info = info.status();
    }
    if parts.is_some_and(|parts| parts.scale.is_some()) {
        info = info.scale();
    }
    info
}

impl CustomStrategy {
    pub(crate) fn new(
        definition: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
        schema: Schema,
        siblings: Siblings,
    ) -> Self {
        let info = info(definition, version);
        let own = siblings.own().to_owned();
        let shape = siblings
            .shape(&own)
            .unwrap_or_else(|| TypeRef::from(merge_type(&schema)));
        let fields: Vec<(Cow<'static, str>, JsonPath)> = version
            .selectable_fields
            .iter()
            .flatten()
            .filter_map(|field| {
                let name = field.json_path.trim_start_matches('.').to_owned();
                Some((Cow::Owned(name), JsonPath::parse(&field.json_path).ok()?))
            })
            .collect();
        let deprecated = || {
            version
                .deprecation_warning
                .clone()
                .unwrap_or_else(|| format!("{own} {} is deprecated", info.kind))
        };
        Self {
            shape,
            columns: Columns::new(version.additional_printer_columns.as_deref().unwrap_or_default()),
            scale: version
                .subresources
                .as_ref()
                .and_then(|parts| parts.scale.as_ref())
                .map(Scale::new),
            field_names: fields.iter().map(|(name, _)| name.clone()).collect(),
            fields,
            notice: (version.deprecated == Some(true)).then(deprecated),
            stored_as: (siblings.stored() != own).then(|| siblings.stored().to_owned()),
            siblings,
            schema,
            info,
        }
    }

    fn has_status(&self) -> bool {
        self.info.has(Subresource::Status)
    }

    fn check(&self, object: &dyn Object, old: Option<&dyn Object>) -> ErrorList {
        let value = object.to_value();
        let old = old.map(Object::to_value);
        let mut errors = self.schema.validate(&value, old.as_ref());
        self.check_scale(dynamic(object), &mut errors);
        self.schema.check_lists(&Path::root(), &value, &mut errors);
        self.schema.check_embedded(&Path::root(), &value, &mut errors);
        errors
    }

    fn check_scale(&self, object: &DynamicObject, errors: &mut ErrorList) {
        let Some(scale) = &self.scale else { return };
        for path in [&scale.spec, &scale.status] {
            let Some(Value::Number(number)) = at(&object.fields, path) else {
                continue;
            };
            let field = Path::new(path.join("."));
            match number.as_i64() {
                Some(number) if number < 0 => {
                    errors.push(FieldError::invalid(
                        &field,
                        number,
                        "should be a non-negative integer",
                    ));
                }
                Some(number) if number > i64::from(i32::MAX) => {
                    let detail = format!("should be less than or equal to {}", i32::MAX);
                    errors.push(FieldError::invalid(&field, number, detail));
                }
                _ => (),
            }
        }
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

impl Strategy for CustomStrategy {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        let mut decoded = decode_dynamic(json, &self.info)?;
        let mut unknown = prune_and_note(&mut dynamic_mut(&mut *decoded.object).fields, &self.schema);
        unknown.append(&mut decoded.unknown);
        decoded.unknown = unknown;
        Ok(decoded)
    }

    fn default(&self, object: &mut dyn Object) {
        let fields = &mut dynamic_mut(object).fields;
        self.schema.drop_nulls(fields);
        self.schema.set_defaults(fields);
    }

    fn prepare_for_create(&self, object: &mut dyn Object) {
        if self.has_status() {
            dynamic_mut(object).fields.remove("status");
        }
        object.metadata_mut().generation = Some(1);
    }

    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object) {
        if self.has_status() {
            put(
                dynamic_mut(new),
                "status",
                dynamic(old).fields.get("status").cloned(),
            );
        }
        if dynamic(new).fields != dynamic(old).fields {
            new.metadata_mut().generation = Some(old.metadata().generation.unwrap_or(0) + 1);
        }
    }

    fn prepare_for_status_update(&self, new: &mut dyn Object, old: &dyn Object) {
        let status = dynamic_mut(new).fields.remove("status");
        dynamic_mut(new).fields.clone_from(&dynamic(old).fields);
        put(dynamic_mut(new), "status", status);
        let metadata = new.metadata_mut();
        let owners = metadata.managed_fields.take();
        metadata.clone_from(old.metadata());
        metadata.managed_fields = owners;
    }

    fn validate(&self, object: &dyn Object) -> ErrorList {
        self.check(object, None)
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        self.check(new, Some(old))
    }

    fn validate_status_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        self.check(new, Some(old))
    }

    fn warnings(&self, _new: &dyn Object, _old: Option<&dyn Object>) -> Vec<String> {
        Vec::new()
    }

    fn columns(&self) -> &[Column] {
        &self.columns.shown
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        self.columns.cells(object.name(), &object.to_value(), now)
    }

    fn field_names(&self) -> &[Cow<'static, str>] {
        &self.field_names
    }

    fn selectable_fields(&self, object: &dyn Object) -> Vec<(Cow<'static, str>, String)> {
        if self.fields.is_empty() {
            return Vec::new();
        }
        let value = object.to_value();
        let text = |path: &JsonPath| match path.first(&value) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        self.fields
            .iter()
            .map(|(name, path)| (name.clone(), text(path)))
            .collect()
    }

    fn name_rule(&self) -> NameRule {
        NameRule::DnsSubdomain
    }

    fn scale(&self, object: &dyn Object) -> Option<ScaleView> {
        let scale = self.scale.as_ref()?;
        let fields = &dynamic(object).fields;
        let replicas = |path: &[String]| at(fields, path)?.as_i64()?.try_into().ok();
        let selector = scale
            .selector
            .as_ref()
            .and_then(|path| at(fields, path)?.as_str());
        Some(ScaleView {
            spec_replicas: replicas(&scale.spec).unwrap_or(0),
            status_replicas: replicas(&scale.status).unwrap_or(0),
            selector: selector.map(str::to_owned),
        })
    }

    fn set_replicas(&self, object: &mut dyn Object, replicas: i32) {
        let Some((last, path)) = self.scale.as_ref().and_then(|scale| scale.spec.split_last()) else {
            return;
        };
        let mut fields = &mut dynamic_mut(object).fields;
        for name in path {
            let inner = fields
                .entry(name.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            match inner {
                Value::Object(inner) => fields = inner,
                _ => return,
            }
        }
        fields.insert(last.clone(), replicas.into());
    }

    fn grace_period(&self, _object: &dyn Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    fn create_on_update(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn versions(&self) -> &dyn Versions {
        &self.siblings
    }

    fn storage_version(&self) -> Option<&str> {
        self.stored_as.as_deref()
    }

    fn schema(&self) -> &Type {
        &self.shape
    }

    fn merges_strategically(&self) -> bool {
        false
    }

    /// What is stored may be of another version, older than a default, or have fields that are known no longer.
    fn read_stored(&self, stored: &Bytes) -> Result<Bytes, DecodeError> {
        let mut object = self.decode(stored)?.object;
        self.default(&mut *object);
        Ok(object.to_json().into())
    }

    fn is_stale(&self, stored: &Bytes) -> bool {
        super::versions::api_version(stored).is_some_and(|found| found != self.siblings.stored())
    }

    fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }
}
