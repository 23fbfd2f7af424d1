//! What is wrong with a definition.

mod names;
mod parts;
mod structural;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, JSONSchemaProps,
    JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use orch_core::field::ErrorList;
use orch_core::names::dns1035_label;

use super::conditions::{APPROVAL_ANNOTATION, ESTABLISHED, is_protected, is_true};
use crate::kinds::{Check, Path};

/// What is wrong with a new definition.
pub(super) fn validate(definition: &CustomResourceDefinition) -> ErrorList {
    Check::run(|check| {
        let spec = &definition.spec;
        let name = definition.metadata.name.as_deref().unwrap_or_default();
        if name != format!("{}.{}", spec.names.plural, spec.group) {
            let path = Path::new("metadata").child("name");
            check.invalid(&path, name, "must be spec.names.plural+\".\"+spec.group");
        }
        check_spec(check, spec, &Path::new("spec"));
        check_approval(check, definition);
        check_stored(check, definition);
    })
}

/// What is wrong with an update of one.
pub(super) fn validate_update(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> ErrorList {
    Check::run(|check| {
        let path = Path::new("spec");
        check_spec(check, &new.spec, &path);
        let names = path.child("names");
        if is_true(old, ESTABLISHED) {
            check.immutable(&path.child("scope"), &new.spec.scope, &old.spec.scope);
            check.immutable(&names.child("kind"), &new.spec.names.kind, &old.spec.names.kind);
        }
        check.immutable(&path.child("group"), &new.spec.group, &old.spec.group);
        check.immutable(
            &names.child("plural"),
            &new.spec.names.plural,
            &old.spec.names.plural,
        );
        check_approval(check, new);
        check_stored(check, new);
    })
}

/// What is wrong with the versions that the status says are stored.
pub(super) fn validate_stored_versions(definition: &CustomResourceDefinition) -> ErrorList {
    Check::run(|check| check_stored(check, definition))
}

/// Calls `visit` with a schema and all that are in it, and their paths.
pub(super) fn each(schema: &JSONSchemaProps, path: &str, visit: &mut dyn FnMut(&JSONSchemaProps, &str)) {
    visit(schema, path);
    for (name, inner) in schema.properties.iter().flatten() {
        each(inner, &format!("{path}.properties[{name}]"), visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(inner)) = &schema.additional_properties {
        each(inner, &format!("{path}.additionalProperties"), visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(inner)) = &schema.items {
        each(inner, &format!("{path}.items"), visit);
    }
    for (word, parts) in [
        ("allOf", &schema.all_of),
        ("anyOf", &schema.any_of),
        ("oneOf", &schema.one_of),
    ] {
        for (index, inner) in parts.iter().flatten().enumerate() {
            each(inner, &format!("{path}.{word}[{index}]"), visit);
        }
    }
    if let Some(inner) = &schema.not {
        each(inner, &format!("{path}.not"), visit);
    }
}

fn check_spec(check: &mut Check, spec: &CustomResourceDefinitionSpec, path: &Path) {
    names::check_group(check, &spec.group, &path.child("group"));
    check.one_of(&path.child("scope"), &spec.scope, &["Cluster", "Namespaced"]);
    if spec.preserve_unknown_fields == Some(true) {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        check.invalid(&path.child("preserveUnknownFields"), true, why);
    }
    let versions = path.child("versions");
    let mut seen = Vec::new();
    let mut unique = true;
    for (index, version) in spec.versions.iter().enumerate() {
        unique &= !seen.contains(&&version.name);
        seen.push(&version.name);
        check_version(check, version, &versions.index(index));
    }
    if !unique {
        check.invalid(&versions, &seen, "must contain unique version names");
    }
    if spec.versions.iter().filter(|version| version.storage).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        check.invalid(&versions, &seen, why);
    }
    names::check_names(check, &spec.names, &path.child("names"));
    parts::check_conversion(check, spec, &path.child("conversion"));
}

fn check_version(check: &mut Check, version: &CustomResourceDefinitionVersion, path: &Path) {
    check.faults(&path.child("name"), &version.name, dns1035_label(&version.name));
    if let Some(words) = &version.deprecation_warning {
        let path = path.child("deprecationWarning");
        if version.deprecated != Some(true) {
            check.invalid(&path, words, "can only be set for deprecated versions");
        }
        if words.len() > 256 {
            check.too_long(&path, 256);
        } else if words.is_empty() {
            check.invalid(&path, words, "must not be an empty string");
        }
        if words.chars().any(char::is_control) {
            check.invalid(
                &path,
                words,
                "must only contain printable UTF-8 characters; non-printable character found",
            );
        }
    }
    let schema = version
        .schema
        .as_ref()
        .and_then(|schema| schema.open_api_v3_schema.as_ref());
    let at = path.child("schema").child("openAPIV3Schema");
    match schema {
        Some(schema) => structural::check_root(check, schema, &at),
        None => check.required(&at, "schemas are required"),
    }
    parts::check_columns(
        check,
        version.additional_printer_columns.as_deref().unwrap_or_default(),
        &path.child("additionalPrinterColumns"),
    );
    if let Some(parts) = &version.subresources {
        parts::check_subresources(check, parts, &path.child("subresources"));
    }
    parts::check_selectable(
        check,
        version.selectable_fields.as_deref().unwrap_or_default(),
        schema,
        &path.child("selectableFields"),
    );
}

fn check_approval(check: &mut Check, definition: &CustomResourceDefinition) {
    if !is_protected(&definition.spec.group) {
        return;
    }
    let path = Path::new("metadata")
        .child("annotations")
        .key(APPROVAL_ANNOTATION);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let annotations = definition.metadata.annotations.as_ref();
    match annotations.and_then(|all| all.get(APPROVAL_ANNOTATION)) {
        None => check.required(
            &path,
            &format!("protected groups must have approval annotation \"{APPROVAL_ANNOTATION}\", {see}"),
        ),
        Some(words) if words.starts_with("unapproved") || words.contains("://") => (),
        Some(words) => check.invalid(
            &path,
            words,
            format!(
                "protected groups must have approval annotation \"{APPROVAL_ANNOTATION}\" with either a URL or a \
                 reason starting with \"unapproved\", {see}"
            ),
        ),
    }
}

fn check_stored(check: &mut Check, definition: &CustomResourceDefinition) {
    let path = Path::new("status").child("storedVersions");
    let none = Vec::new();
    let stored = definition
        .status
        .as_ref()
        .and_then(|status| status.stored_versions.as_ref())
        .unwrap_or(&none);
    if stored.is_empty() {
        check.invalid(&path, stored, "must have at least one stored version");
        return;
    }
    let versions = &definition.spec.versions;
    for (index, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.name == *name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            check.invalid(&path.index(index), name, why);
        }
    }
    if let Some(storage) = versions.iter().find(|version| version.storage)
        && !stored.contains(&storage.name)
    {
        check.invalid(
            &path,
            stored,
            format!("must have the storage version {}", storage.name),
        );
    }
}

#[cfg(test)]
mod tests;
