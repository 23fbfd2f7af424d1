//! Namespaces.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::table::{self, AGE, NAME, text_column};
use super::text::{list, text};
use super::{format, metadata};
use crate::resource::{ResourceInfo, Subresource, Verb, Verbs};
use crate::strategy::{Column, Kind, NameRule};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

/// The rules of namespaces.
pub(super) struct Namespaces;

impl Kind for Namespaces {
    type Object = Namespace;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster("", "v1", "Namespace", "namespaces")
            .short(["ns"])
            .verbs(Verbs::ALL.without(Verb::DeleteCollection))
            .subresource(Subresource::Finalize)
            .status()
    }

    fn default(namespace: &mut Namespace) {
        if let Some(name) = namespace.metadata.name.clone().filter(|name| !name.is_empty()) {
            namespace
                .metadata
                .labels
                .get_or_insert_default()
                .insert(NAME_LABEL.to_owned(), name);
        }
        let status = namespace.status.get_or_insert_default();
        status.phase.get_or_insert_with(|| "Active".to_owned());
    }

    fn prepare_for_create(namespace: &mut Namespace) {
        // Deletion waits until the namespace controller has emptied the namespace.
        let finalizers = namespace
            .spec
            .get_or_insert_default()
            .finalizers
            .get_or_insert_default();
        if !finalizers.iter().any(|name| name == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        namespace.status = Some(NamespaceStatus {
            phase: Some("Active".to_owned()),
            conditions: None,
        });
        Self::default(namespace);
    }

    fn prepare_for_update(new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(namespace: &Namespace) -> ErrorList {
        Check::run(|check| {
            let finalizers = namespace
                .spec
                .as_ref()
                .map_or(&[][..], |spec| list(&spec.finalizers));
            let path = Path::new("spec").child("finalizers");
            for name in finalizers {
                check.faults(&path, name, format::qualified_name(name));
                metadata::standard_finalizer(check, name, &path);
            }
        })
    }

    fn validate_update(_new: &Namespace, _old: &Namespace) -> ErrorList {
        ErrorList::default()
    }

    fn validate_status_update(new: &Namespace, _old: &Namespace) -> ErrorList {
        Check::run(|check| {
            let path = Path::new("status").child("phase");
            match (new.metadata.deletion_timestamp.is_some(), phase(new)) {
                (false, "Active") | (true, "Terminating") => {}
                (false, other) => check.invalid(
                    &path,
                    other,
                    "may only be 'Active' if `deletionTimestamp` is empty",
                ),
                (true, other) => {
                    check.invalid(
                        &path,
                        other,
                        "may only be 'Terminating' if `deletionTimestamp` is not empty",
                    );
                }
            }
        })
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            text_column("Status", "Whether it is active or being emptied."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(namespace: &Namespace, now: Timestamp) -> Vec<Value> {
        let meta = &namespace.metadata;
        vec![table::name(meta), phase(namespace).into(), table::age(meta, now)]
    }

    fn selectable_fields(namespace: &Namespace) -> Vec<(&'static str, String)> {
        vec![
            ("status.phase", phase(namespace).to_owned()),
            ("name", text(&namespace.metadata.name).to_owned()),
        ]
    }

    fn name_rule() -> NameRule {
        NameRule::DnsLabel
    }
}

fn phase(namespace: &Namespace) -> &str {
    namespace.status.as_ref().map_or("", |status| text(&status.phase))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_namespace_is_active_labelled_and_kept_until_it_is_empty() {
        let mut namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        Namespaces::default(&mut namespace);
        Namespaces::prepare_for_create(&mut namespace);
        assert_eq!(
            serde_json::to_value(&namespace).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        );
    }

    #[test]
    fn only_a_deleted_namespace_terminates() {
        let namespace: Namespace =
            serde_json::from_value(json!({"status": {"phase": "Terminating"}})).unwrap();
        assert_eq!(
            Namespaces::validate_status_update(&namespace, &namespace).to_string(),
            "status.phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
        );
    }
}
