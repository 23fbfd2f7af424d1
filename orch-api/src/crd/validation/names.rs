//! The names of a definition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionNames;
use orch_core::names::{dns1035_label, dns1123_subdomain};

use crate::kinds::{Check, Path};

pub(super) fn check_group(check: &mut Check, group: &str, path: &Path) {
    if group.is_empty() {
        check.required(path, "");
        return;
    }
    let faults = dns1123_subdomain(group);
    if !faults.is_empty() {
        check.invalid(path, group, faults.join(","));
    } else if !group.contains('.') {
        check.invalid(path, group, "should be a domain with at least one dot");
    }
}

pub(super) fn check_names(check: &mut Check, names: &CustomResourceDefinitionNames, path: &Path) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (singular, list_kind) = (text(&names.singular), text(&names.list_kind));
    for (field, name) in [("plural", &names.plural), ("singular", &singular)] {
        if name.is_empty() {
            check.required(&path.child(field), "");
        } else {
            lower(check, &path.child(field), name, "");
        }
    }
    for (field, name) in [("kind", &names.kind), ("listKind", &list_kind)] {
        if name.is_empty() {
            check.required(&path.child(field), "");
        } else {
            lower(
                check,
                &path.child(field),
                name,
                "may have mixed case, but should otherwise match: ",
            );
        }
    }
    if !names.kind.is_empty() && names.kind == list_kind {
        check.invalid(
            &path.child("listKind"),
            &list_kind,
            "kind and listKind may not be the same",
        );
    }
    for (field, all) in [
        ("shortNames", &names.short_names),
        ("categories", &names.categories),
    ] {
        for (index, name) in all.iter().flatten().enumerate() {
            lower(check, &path.child(field).index(index), name, "");
        }
    }
}

fn lower(check: &mut Check, path: &Path, name: &str, lead: &str) {
    let checked = if lead.is_empty() {
        name.to_owned()
    } else {
        name.to_lowercase()
    };
    let faults = dns1035_label(&checked);
    if !faults.is_empty() {
        check.invalid(path, name, format!("{lead}{}", faults.join(",")));
    }
}
