//! The kind CustomResourceDefinition.

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionCondition,
    CustomResourceDefinitionSpec, CustomResourceDefinitionStatus,
};
use orch_core::field::ErrorList;
use serde_json::Value;

use super::schema::Format;
use super::{conditions, validation};
use crate::kinds::{NAME, bump_generation, name_cell, same};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// The finalizer that holds a definition until its objects have gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The rules of custom resource definitions.
pub(crate) struct CustomResourceDefinitions;

impl Kind for CustomResourceDefinitions {
    type Object = CustomResourceDefinition;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
        .short(["crd", "crds"])
        .categories(["api-extensions"])
        .stored_at("apiextensions.k8s.io/customresourcedefinitions")
        .status()
    }

    fn default(definition: &mut CustomResourceDefinition) {
        default_spec(&mut definition.spec);
    }

    fn prepare_for_create(definition: &mut CustomResourceDefinition) {
        definition.metadata.generation = Some(1);
        definition.status = Some(CustomResourceDefinitionStatus {
            stored_versions: Some(storage_versions(&definition.spec)),
            ..CustomResourceDefinitionStatus::default()
        });
    }

    fn prepare_for_update(new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
        new.status.clone_from(&old.status);
        let changed = !same(&new.spec, &old.spec);
        bump_generation(&mut new.metadata, &old.metadata, changed);
        let stored = new
            .status
            .get_or_insert_default()
            .stored_versions
            .get_or_insert_default();
        for version in storage_versions(&new.spec) {
            if !stored.contains(&version) {
                stored.push(version);
            }
        }
    }

    fn prepare_for_status_update(new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
        new.spec.clone_from(&old.spec);
        let owners = new.metadata.managed_fields.take();
        new.metadata.clone_from(&old.metadata);
        new.metadata.managed_fields = owners;
    }

    fn prepare_for_delete(definition: &mut CustomResourceDefinition) {
        let finalizers = definition.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|one| one == CLEANUP) {
            finalizers.push(CLEANUP.to_owned());
        }
        let status = definition.status.get_or_insert_default();
        conditions::set(
            status,
            CustomResourceDefinitionCondition {
                type_: conditions::TERMINATING.into(),
                status: "True".into(),
                reason: Some("InstanceDeletionPending".into()),
                message: Some(
                    "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
                        .into(),
                ),
                ..CustomResourceDefinitionCondition::default()
            },
        );
    }

    fn validate(definition: &CustomResourceDefinition) -> ErrorList {
        validation::validate(definition)
    }

    fn validate_update(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> ErrorList {
        validation::validate_update(new, old)
    }

    fn validate_status_update(new: &CustomResourceDefinition, _old: &CustomResourceDefinition) -> ErrorList {
        validation::validate_stored_versions(new)
    }

    fn warnings(new: &CustomResourceDefinition, _old: Option<&CustomResourceDefinition>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, version) in new.spec.versions.iter().enumerate() {
            if let Some(schema) = version
                .schema
                .as_ref()
                .and_then(|one| one.open_api_v3_schema.as_ref())
            {
                let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
                validation::each(schema, &path, &mut |schema, path| {
                    if let Some(format) = schema.format.as_deref()
                        && Format::parse(format).is_none()
                        && !matches!(
                            format,
                            "" | "float" | "double" | "password" | "isbn" | "isbn10" | "isbn13"
                        )
                    {
                        warnings.push(format!("{path}.format: unrecognized format \"{format}\""));
                    }
                });
            }
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: [Column; 2] = [
            NAME,
            Column::new("Created At", "date", "", "When the definition was made."),
        ];
        &COLUMNS
    }

    fn cells(definition: &CustomResourceDefinition, _now: Timestamp) -> Vec<Value> {
        let created = definition.metadata.creation_timestamp.as_ref();
        vec![
            name_cell(&definition.metadata),
            created.map_or(Value::Null, |time| {
                time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
            }),
        ]
    }
}

fn default_spec(spec: &mut CustomResourceDefinitionSpec) {
    if spec.scope.is_empty() {
        spec.scope = "Namespaced".into();
    }
    let names = &mut spec.names;
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    if empty(&names.singular) {
        names.singular = Some(names.kind.to_lowercase());
    }
    if empty(&names.list_kind) && !names.kind.is_empty() {
        names.list_kind = Some(format!("{}List", names.kind));
    }
    let conversion = spec.conversion.get_or_insert_with(|| CustomResourceConversion {
        strategy: "None".into(),
        webhook: None,
    });
    let service = conversion
        .webhook
        .as_mut()
        .and_then(|webhook| webhook.client_config.as_mut())
        .and_then(|client| client.service.as_mut());
    if let Some(service) = service
        && service.port.is_none()
    {
        service.port = Some(443);
    }
    if spec.preserve_unknown_fields == Some(false) {
        spec.preserve_unknown_fields = None;
    }
}

fn storage_versions(spec: &CustomResourceDefinitionSpec) -> Vec<String> {
    let stored = spec.versions.iter().filter(|version| version.storage);
    stored.map(|version| version.name.clone()).collect()
}
