//! PersistentVolumeClaims.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
};
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::persistent_volume::access_modes;
use super::semantic::{difference, same};
use super::table::{self, AGE, NAME, UNSET, text_column};
use super::text::{default_text, entries, list, text};
use super::{format, resources, selectors};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// The rules of claims.
pub(super) struct PersistentVolumeClaims;

impl Kind for PersistentVolumeClaims {
    type Object = PersistentVolumeClaim;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
            .short(["pvc"])
            .status()
    }

    fn default(claim: &mut PersistentVolumeClaim) {
        default_spec(claim.spec.get_or_insert_default());
    }

    fn prepare_for_create(claim: &mut PersistentVolumeClaim) {
        let phase = Some("Pending".to_owned());
        claim.status = Some(PersistentVolumeClaimStatus {
            phase,
            ..PersistentVolumeClaimStatus::default()
        });
    }

    fn prepare_for_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(claim: &PersistentVolumeClaim) -> ErrorList {
        Check::run(|check| {
            let empty = PersistentVolumeClaimSpec::default();
            spec(check, claim.spec.as_ref().unwrap_or(&empty), &Path::new("spec"));
        })
    }

    fn validate_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(Check::run(|check| unchanged(check, new, old)));
        errors
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            text_column("Status", "Whether the claim is bound."),
            text_column("Volume", "The volume that the claim is bound to."),
            text_column("Capacity", "How much the volume holds."),
            text_column("Access Modes", "How the volume can be mounted."),
            text_column("StorageClass", "The class of the volume."),
            text_column("VolumeAttributesClass", "The class of the volume's attributes."),
            AGE,
            text_column("VolumeMode", "Whether the volume has a file system.").wide(),
        ];
        COLUMNS
    }

    fn cells(claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (
            claim.spec.clone().unwrap_or_default(),
            claim.status.clone().unwrap_or_default(),
        );
        let phase = match claim.metadata.deletion_timestamp {
            Some(_) => "Terminating",
            None => text(&status.phase),
        };
        let bound = spec.volume_name.is_some();
        let capacity = status
            .capacity
            .as_ref()
            .and_then(|capacity| capacity.get("storage"));
        let capacity = capacity.filter(|_| bound).map_or("", |amount| &amount.0);
        vec![
            table::name(&claim.metadata),
            phase.into(),
            text(&spec.volume_name).into(),
            capacity.into(),
            if bound {
                access_modes(list(&status.access_modes))
            } else {
                String::new()
            }
            .into(),
            text(&spec.storage_class_name).into(),
            spec.volume_attributes_class_name
                .as_deref()
                .unwrap_or(UNSET)
                .into(),
            table::age(&claim.metadata, now),
            spec.volume_mode.as_deref().unwrap_or(UNSET).into(),
        ]
    }
}

/// Defaults of a claim, on its own or as a template.
pub(crate) fn default_spec(spec: &mut PersistentVolumeClaimSpec) {
    default_text(&mut spec.volume_mode, "Filesystem");
    if let Some(requirements) = &mut spec.resources {
        resources::normalise_list(&mut requirements.requests);
        resources::normalise_list(&mut requirements.limits);
    }
}

/// The rules of a claim, on its own or as a template.
pub(crate) fn spec(check: &mut Check, spec: &PersistentVolumeClaimSpec, path: &Path) {
    modes(check, list(&spec.access_modes), &path.child("accessModes"));
    selectors::validate(check, spec.selector.as_ref(), &path.child("selector"));
    let requests = spec.resources.as_ref().map(|requirements| &requirements.requests);
    let at = path.child("resources");
    match requests
        .and_then(|requests| requests.as_ref())
        .and_then(|requests| requests.get("storage"))
    {
        None => check.required(&at.key("storage"), ""),
        Some(amount) => {
            let at = at.child("requests").key("storage");
            resources::quantity(check, "storage", amount, &at);
            if !resources::is_positive(amount) && !resources::is_negative(amount) {
                check.invalid(&at, &amount.0, format::NOT_POSITIVE);
            }
        }
    }
    let class = text(&spec.storage_class_name);
    if !class.is_empty() {
        check.faults(
            &path.child("storageClassName"),
            class,
            format::dns1123_subdomain(class),
        );
    }
    check.optional_one_of(
        &path.child("volumeMode"),
        spec.volume_mode.as_deref(),
        &["Block", "Filesystem"],
    );
    if let Some(source) = &spec.data_source {
        check.present(&path.child("dataSource").child("name"), &source.name);
        check.present(&path.child("dataSource").child("kind"), &source.kind);
    }
}

/// Ways to mount a volume: at least one, and the single-pod one only alone.
pub(super) fn modes(check: &mut Check, modes: &[String], path: &Path) {
    const MODES: [&str; 4] = [
        "ReadOnlyMany",
        "ReadWriteMany",
        "ReadWriteOnce",
        "ReadWriteOncePod",
    ];
    if modes.is_empty() {
        check.required(path, "at least 1 access mode is required");
    }
    for mode in modes {
        check.optional_one_of(path, Some(mode), &MODES);
    }
    let single = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    if single
        && modes
            .iter()
            .any(|mode| mode != "ReadWriteOncePod" && MODES.contains(&mode.as_str()))
    {
        check.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// A claim stays what was asked for, but may be bound once, and grow while it is bound.
fn unchanged(check: &mut Check, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) {
    let (Some(after), Some(before)) = (&new.spec, &old.spec) else {
        return;
    };
    let path = Path::new("spec");
    let mut munged = after.clone();
    if text(&before.volume_name).is_empty() {
        munged.volume_name.clone_from(&before.volume_name);
    }
    if before.storage_class_name.is_none() {
        munged.storage_class_name = None;
    }
    let storage = |spec: &PersistentVolumeClaimSpec| {
        let requests = spec.resources.as_ref().map(|requirements| &requirements.requests);
        requests
            .into_iter()
            .flat_map(entries)
            .find(|(name, _)| *name == "storage")
            .map(|(_, amount)| amount.clone())
    };
    let bound = new
        .status
        .as_ref()
        .is_some_and(|status| text(&status.phase) == "Bound");
    if bound {
        munged.resources.clone_from(&before.resources);
        munged
            .volume_attributes_class_name
            .clone_from(&before.volume_attributes_class_name);
    }
    if !same(&munged, before) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                   claims";
        check.forbidden(&path, format!("{why}\n{}", difference(before, &munged, "spec")));
    }
    if let (Some(after), Some(before)) = (storage(after), storage(before))
        && resources::is_less(&after, &before)
    {
        let at = path.child("resources").child("requests").child("storage");
        check.forbidden(&at, "field can not be less than previous value");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(json: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_claim_says_how_much_and_how() {
        let errors = PersistentVolumeClaims::validate(&claim(json!({"spec": {}})));
        assert_eq!(
            errors.to_string(),
            "[spec.accessModes: Required value: at least 1 access mode is required, spec.resources[storage]: Required \
             value]"
        );
    }

    #[test]
    fn a_bound_claim_grows_but_never_shrinks() {
        let sized = |size: &str| {
            claim(
                json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
                "status": {"phase": "Bound"}}),
            )
        };
        assert!(PersistentVolumeClaims::validate_update(&sized("2Gi"), &sized("1Gi")).is_empty());
        assert_eq!(
            PersistentVolumeClaims::validate_update(&sized("1Gi"), &sized("2Gi")).to_string(),
            "spec.resources.requests.storage: Forbidden: field can not be less than previous value"
        );
    }
}
