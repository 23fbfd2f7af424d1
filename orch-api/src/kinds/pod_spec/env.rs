//! Environment variables and the downward API's field references.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;

use super::volumes::{self, Volumes};
use crate::kinds::check::{Check, Path};
use crate::kinds::text::text;
use crate::kinds::{format, resources};

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Where a field of the pod is shown, which decides which fields may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Env,
    Volume,
}

pub(super) fn vars(check: &mut Check, vars: &[core::EnvVar], volumes: &Volumes<'_>, path: &Path) {
    for (i, var) in vars.iter().enumerate() {
        let path = path.index(i);
        check.name(&path.child("name"), &var.name, format::env_var_name);
        if let Some(from) = &var.value_from {
            value_from(check, from, text(&var.value), volumes, &path.child("valueFrom"));
        }
    }
}

fn value_from(check: &mut Check, from: &core::EnvVarSource, value: &str, volumes: &Volumes<'_>, path: &Path) {
    let mut sources = 0;
    if let Some(field) = &from.field_ref {
        sources += 1;
        field_ref(check, field, Shown::Env, &path.child("fieldRef"));
    }
    if let Some(resource) = &from.resource_field_ref {
        sources += 1;
        resource_ref(check, resource, Shown::Env, &path.child("resourceFieldRef"));
    }
    if let Some(key) = &from.config_map_key_ref {
        sources += 1;
        key_ref(check, &key.name, &key.key, &path.child("configMapKeyRef"));
    }
    if let Some(key) = &from.secret_key_ref {
        sources += 1;
        key_ref(check, &key.name, &key.key, &path.child("secretKeyRef"));
    }
    if let Some(key) = &from.file_key_ref {
        sources += 1;
        file_ref(check, key, volumes, &path.child("fileKeyRef"));
    }
    if sources == 0 {
        let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        check.invalid(path, "", why);
    } else if !value.is_empty() {
        check.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        check.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn key_ref(check: &mut Check, name: &str, key: &str, path: &Path) {
    check.faults(&path.child("name"), name, format::dns1123_subdomain(name));
    check.name(&path.child("key"), key, format::config_map_key);
}

fn file_ref(check: &mut Check, key: &core::FileKeySelector, known: &Volumes<'_>, path: &Path) {
    check.name(&path.child("key"), &key.key, format::env_var_name);
    if key.path.is_empty() {
        check.required(&path.child("path"), "");
    } else {
        volumes::local_path(check, &key.path, &path.child("path"));
    }
    let at = path.child("volumeName");
    if key.volume_name.is_empty() {
        check.required(&at, "");
    } else {
        match known.get(key.volume_name.as_str()) {
            None => check.not_found(&at, &key.volume_name),
            Some(volume) if volume.empty_dir.is_none() => {
                check.invalid(
                    &at,
                    &key.volume_name,
                    "referenced volume must be of type emptyDir",
                );
            }
            Some(_) => {}
        }
    }
}

pub(super) fn sources(check: &mut Check, sources: &[core::EnvFromSource], path: &Path) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            check.faults(&at.child("prefix"), prefix, format::env_var_name(prefix));
        }
        if let Some(one) = &source.config_map_ref {
            check.name(
                &at.child("configMapRef").child("name"),
                &one.name,
                format::dns1123_subdomain,
            );
        }
        if let Some(one) = &source.secret_ref {
            check.name(
                &at.child("secretRef").child("name"),
                &one.name,
                format::dns1123_subdomain,
            );
        }
        match (source.config_map_ref.is_some(), source.secret_ref.is_some()) {
            (false, false) => check.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            (true, true) => check.invalid(path, "", "may not have more than one field specified at a time"),
            _ => {}
        }
    }
}

pub(super) fn field_ref(check: &mut Check, field: &core::ObjectFieldSelector, shown: Shown, path: &Path) {
    let version = text(&field.api_version);
    if version.is_empty() {
        check.required(&path.child("apiVersion"), "");
        return;
    }
    if field.field_path.is_empty() {
        check.required(&path.child("fieldPath"), "");
        return;
    }
    let at = path.child("fieldPath");
    if version != "v1" {
        let why = format!("error converting fieldPath: unsupported pod version: {version}");
        check.invalid(&at, &field.field_path, why);
        return;
    }
    match subscript(&field.field_path) {
        Some((field @ ("metadata.annotations" | "metadata.labels"), key)) => {
            let key = if field == "metadata.annotations" {
                key.to_ascii_lowercase()
            } else {
                key.to_owned()
            };
            check.faults(path, &key, format::qualified_name(&key));
        }
        Some((name, _)) => {
            let why = format!("error converting fieldPath: field label does not support subscript: {name}");
            check.invalid(&at, &field.field_path, why);
        }
        None => plain_field(check, &field.field_path, shown, &at),
    }
}

fn plain_field(check: &mut Check, name: &str, shown: Shown, path: &Path) {
    const KNOWN: [&str; 4] = [
        "spec.restartPolicy",
        "spec.schedulerName",
        "status.phase",
        "spec.host",
    ];
    let known = |one: &str| ENV_FIELDS.contains(&one) || VOLUME_FIELDS.contains(&one) || KNOWN.contains(&one);
    let allowed: &[&str] = match shown {
        Shown::Env => &ENV_FIELDS,
        Shown::Volume => &VOLUME_FIELDS,
    };
    if !known(name) {
        check.invalid(
            path,
            name,
            format!("error converting fieldPath: field label not supported: {name}"),
        );
    } else if !allowed.contains(&name) {
        check.not_supported(path, name, allowed);
    }
}

/// Splits `metadata.labels['key']` into the field and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, rest) = path.strip_suffix("']")?.split_once("['")?;
    (!field.is_empty()).then_some((field, rest))
}

pub(super) fn resource_ref(
    check: &mut Check,
    field: &core::ResourceFieldSelector,
    shown: Shown,
    path: &Path,
) {
    let name = field.resource.as_str();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if shown == Shown::Volume && text(&field.container_name).is_empty() {
        check.required(&path.child("containerName"), "");
    } else if name.is_empty() {
        check.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&name) && !huge {
        check.not_supported(&path.child("resource"), name, &RESOURCES);
    }
    if let Some(divisor) = &field.divisor {
        divisor_of(check, name, divisor.0.as_str(), &path.child("divisor"));
    }
}

fn divisor_of(check: &mut Check, resource: &str, divisor: &str, path: &Path) {
    const BYTES: [&str; 13] = [
        "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
    ];
    let canonical = resources::canonical(divisor).unwrap_or_else(|| divisor.to_owned());
    if canonical == "0" {
        return;
    }
    let short = resource.split_once('.').map_or("", |(_, short)| short);
    let word = match short {
        "cpu" => {
            if !["1m", "1"].contains(&canonical.as_str()) {
                check.invalid(
                    path,
                    resource,
                    "only divisor's values 1m and 1 are supported with the cpu resource",
                );
            }
            return;
        }
        "memory" => "memory",
        "ephemeral-storage" => "local ephemeral storage",
        other if other.starts_with("hugepages-") => "hugepages",
        _ => return,
    };
    if !BYTES.contains(&canonical.as_str()) {
        let why = format!(
            "only divisor's values {} are supported with the {word} resource",
            BYTES.join(", ")
        );
        check.invalid(path, resource, why);
    }
}

/// Names of the pod's resource claims, to which containers may refer.
pub(super) fn claim_names(spec: &core::PodSpec) -> BTreeSet<&str> {
    let claims = spec.resource_claims.as_deref().unwrap_or_default();
    claims
        .iter()
        .map(|claim| claim.name.as_str())
        .filter(|name| !name.is_empty())
        .collect()
}
