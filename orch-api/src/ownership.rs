//! Field ownership in the write pipeline: `metadata.managedFields` is kept true by every write.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use orch_core::status::ApiError;
use serde::Deserialize;
use serde_json::Value;

use crate::apply::{FieldManager, FieldSet};
use crate::object::Object;
use crate::registry::live::{Live, encode};
use crate::registry::write::Write;
use crate::resource::{ResourceInfo, Subresource};

/// Fields which requests of a resource cannot change, so that nobody comes to own them.
#[derive(Debug)]
pub(crate) struct Unowned {
    object: FieldSet,
    status: FieldSet,
}

impl Unowned {
    pub(crate) fn of(info: &ResourceInfo) -> Self {
        let has_status = info.has(Subresource::Status);
        Self {
            object: if has_status {
                FieldSet::of_fields(&[&["status"]])
            } else {
                FieldSet::new()
            },
            status: FieldSet::of_fields(&[&["spec"]]),
        }
    }

    fn for_requests_to(&self, subresource: Option<Subresource>) -> Option<&FieldSet> {
        match subresource {
            None => Some(&self.object).filter(|fields| !fields.is_empty()),
            Some(Subresource::Status) => Some(&self.status),
            Some(_) => None,
        }
    }
}

/// Calls `work` with the manager of a write's fields.
fn with_manager<T>(write: &Write<'_>, work: impl FnOnce(FieldManager<'_>) -> T) -> T {
    let info = write.resource.info();
    let api_version = info.api_version();
    let schema = write.resource.strategy.schema();
    let subresource = write.subresource.map_or("", Subresource::as_str);
    let mut manager = FieldManager::new(schema, &api_version, &info.kind)
        .subresource(subresource)
        .versions(write.resource.strategy.versions());
    if let Some(unowned) = write.resource.unowned.for_requests_to(write.subresource) {
        manager = manager.ignoring(unowned);
    }
    work(manager)
}

/// Notes down who owns what after a write that is not an apply.
pub(crate) fn track(
    write: &Write<'_>,
    object: &mut dyn Object,
    live: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let has_owners = |object: &dyn Object| {
        object
            .metadata()
            .managed_fields
            .as_ref()
            .is_some_and(|all| !all.is_empty())
    };
    let untracked = live.is_some_and(|live| !has_owners(live)) && !has_owners(object);
    if untracked {
        object.metadata_mut().managed_fields = None;
        return Ok(());
    }
    let live = live.map(Object::to_value);
    let name = write.options.field_manager.as_str();
    let updated = with_manager(write, |manager| {
        manager.update(live.as_ref(), object.to_value(), name, Timestamp::now())
    });
    object.metadata_mut().managed_fields = entries(&updated)?;
    Ok(())
}

fn entries(object: &Value) -> Result<Option<Vec<ManagedFieldsEntry>>, ApiError> {
    match object.pointer("/metadata/managedFields") {
        None | Some(Value::Null) => Ok(None),
        Some(entries) => Vec::deserialize(entries).map(Some).map_err(ApiError::internal),
    }
}

/// The object after an apply, with its owners.
pub(crate) fn apply(
    write: &Write<'_>,
    live: Option<&dyn Object>,
    configuration: &Value,
) -> Result<Value, ApiError> {
    let live = live.map(Object::to_value);
    let force = write.options.force.unwrap_or(false);
    let name = write.options.field_manager.as_str();
    Ok(with_manager(write, |manager| {
        manager.apply(live.as_ref(), configuration, name, force, Timestamp::now())
    })?)
}

/// Whether a changed object differs from the stored one in nothing but the times of its owners' writes: then
/// nothing changed.
pub(crate) fn only_times_differ(new: &dyn Object, live: &Live) -> bool {
    let (after, before) = (new.metadata(), live.object.metadata());
    if after.managed_fields == before.managed_fields || timeless(after) != timeless(before) {
        return false;
    }
    let mut new = new.clone_box();
    new.metadata_mut()
        .managed_fields
        .clone_from(&before.managed_fields);
    encode(&mut *new) == live.kv.value
}

fn timeless(metadata: &ObjectMeta) -> Vec<ManagedFieldsEntry> {
    let entries = metadata.managed_fields.iter().flatten();
    entries
        .map(|entry| ManagedFieldsEntry {
            time: None,
            ..entry.clone()
        })
        .collect()
}
