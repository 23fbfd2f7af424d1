//! PersistentVolumes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::persistent_volume_claim::modes;
use super::table::{self, AGE, NAME, UNSET, text_column};
use super::text::{default_text, entries, list, text};
use super::{format, pod_spec, resources};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// The rules of volumes.
pub(super) struct PersistentVolumes;

impl Kind for PersistentVolumes {
    type Object = PersistentVolume;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster("", "v1", "PersistentVolume", "persistentvolumes")
            .short(["pv"])
            .status()
    }

    fn default(volume: &mut PersistentVolume) {
        let spec = volume.spec.get_or_insert_default();
        default_text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        default_text(&mut spec.volume_mode, "Filesystem");
        resources::normalise_list(&mut spec.capacity);
        if let Some(path) = &mut spec.host_path {
            path.type_.get_or_insert_default();
        }
    }

    fn prepare_for_create(volume: &mut PersistentVolume) {
        let phase = Some("Pending".to_owned());
        volume.status = Some(PersistentVolumeStatus {
            phase,
            ..PersistentVolumeStatus::default()
        });
    }

    fn prepare_for_update(new: &mut PersistentVolume, old: &PersistentVolume) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut PersistentVolume, old: &PersistentVolume) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(volume: &PersistentVolume) -> ErrorList {
        Check::run(|check| {
            let empty = PersistentVolumeSpec::default();
            validate(check, volume.spec.as_ref().unwrap_or(&empty), &Path::new("spec"));
        })
    }

    fn validate_update(new: &PersistentVolume, old: &PersistentVolume) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(Check::run(|check| {
            let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
                return;
            };
            let path = Path::new("spec");
            if sources(new) != sources(old) {
                let why = "spec.persistentvolumesource is immutable after creation";
                check.forbidden(&path.child("persistentvolumesource"), why);
            }
            check.immutable(&path.child("volumeMode"), &new.volume_mode, &old.volume_mode);
            if old.node_affinity.is_some() {
                check.immutable(
                    &path.child("nodeAffinity"),
                    &new.node_affinity,
                    &old.node_affinity,
                );
            }
        }));
        errors
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            text_column("Capacity", "How much the volume holds."),
            text_column("Access Modes", "How the volume can be mounted."),
            text_column("Reclaim Policy", "What becomes of the volume after its claim."),
            text_column("Status", "Whether the volume is bound."),
            text_column("Claim", "The claim that the volume is bound to."),
            text_column("StorageClass", "The class of the volume."),
            text_column("VolumeAttributesClass", "The class of the volume's attributes."),
            text_column("Reason", "Why the volume is in its state."),
            AGE,
            text_column("VolumeMode", "Whether the volume has a file system.").wide(),
        ];
        COLUMNS
    }

    fn cells(volume: &PersistentVolume, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (
            volume.spec.clone().unwrap_or_default(),
            volume.status.clone().unwrap_or_default(),
        );
        let phase = match volume.metadata.deletion_timestamp {
            Some(_) => "Terminating",
            None => text(&status.phase),
        };
        let claim = spec.claim_ref.as_ref();
        let claim = claim.map_or_else(String::new, |one| {
            format!("{}/{}", text(&one.namespace), text(&one.name))
        });
        let capacity = spec
            .capacity
            .as_ref()
            .and_then(|capacity| capacity.get("storage"));
        vec![
            table::name(&volume.metadata),
            capacity.map_or("", |amount| &amount.0).into(),
            access_modes(list(&spec.access_modes)).into(),
            text(&spec.persistent_volume_reclaim_policy).into(),
            phase.into(),
            claim.into(),
            text(&spec.storage_class_name).into(),
            spec.volume_attributes_class_name
                .as_deref()
                .unwrap_or(UNSET)
                .into(),
            text(&status.reason).into(),
            table::age(&volume.metadata, now),
            spec.volume_mode.as_deref().unwrap_or(UNSET).into(),
        ]
    }
}

/// Access modes in kubectl's short form, each once.
pub(super) fn access_modes(modes: &[String]) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let given = short
        .iter()
        .filter(|(long, _)| modes.iter().any(|mode| mode == long));
    given.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn validate(check: &mut Check, spec: &PersistentVolumeSpec, path: &Path) {
    modes(check, list(&spec.access_modes), &path.child("accessModes"));
    let at = path.child("capacity");
    if !entries(&spec.capacity).any(|(name, _)| name == "storage") {
        check.required(&at, "");
    }
    for (name, amount) in entries(&spec.capacity) {
        if name != "storage" {
            check.not_supported(&at, name, &["storage"]);
        }
        resources::quantity(check, name, amount, &at.key(name));
        if !resources::is_positive(amount) && !resources::is_negative(amount) {
            check.invalid(&at.key(name), &amount.0, format::NOT_POSITIVE);
        }
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = spec.persistent_volume_reclaim_policy.as_deref();
    check.optional_one_of(&path.child("persistentVolumeReclaimPolicy"), policy, &policies);
    check.optional_one_of(
        &path.child("volumeMode"),
        spec.volume_mode.as_deref(),
        &["Block", "Filesystem"],
    );
    source(check, spec, path);
    if let Some(affinity) = &spec.node_affinity {
        let at = path.child("nodeAffinity").child("required");
        match &affinity.required {
            Some(selector) => pod_spec::node_selector(check, selector, &at),
            None => check.required(&at, "must specify required node constraints"),
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
}

/// The sources that a volume names, with what they say.
fn sources(spec: &PersistentVolumeSpec) -> Vec<(String, Value)> {
    const NOT_SOURCES: [&str; 10] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
        "volumeName",
    ];
    match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields
            .into_iter()
            .filter(|(name, _)| !NOT_SOURCES.contains(&name.as_str()))
            .collect(),
        _ => Vec::new(),
    }
}

fn source(check: &mut Check, spec: &PersistentVolumeSpec, path: &Path) {
    let given = sources(spec);
    if given.is_empty() {
        check.required(path, "must specify a volume type");
    }
    for (name, _) in given.iter().skip(1) {
        check.forbidden(
            &path.child(name.clone()),
            "may not specify more than 1 volume type",
        );
    }
    if let Some(host) = &spec.host_path {
        pod_spec::host_path(check, host, &path.child("hostPath"));
    }
    if let Some(csi) = &spec.csi {
        pod_spec::csi_driver(check, &csi.driver, &path.child("csi").child("driver"));
        check.present(&path.child("csi").child("volumeHandle"), &csi.volume_handle);
    }
    if let Some(local) = &spec.local {
        check.present(&path.child("local").child("path"), &local.path);
        if spec.node_affinity.is_none() {
            check.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if let Some(nfs) = &spec.nfs {
        check.present(&path.child("nfs").child("server"), &nfs.server);
        if !nfs.path.starts_with('/') {
            check.invalid(
                &path.child("nfs").child("path"),
                &nfs.path,
                "must be an absolute path",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(spec: Value) -> PersistentVolume {
        let mut volume = serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap();
        PersistentVolumes::default(&mut volume);
        volume
    }

    #[test]
    fn a_volume_has_one_source() {
        let base = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
        let with = |more: Value| {
            let mut spec = base.clone();
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            PersistentVolumes::validate(&volume(spec)).to_string()
        };
        assert_eq!(
            with(json!({})),
            "spec: Required value: must specify a volume type"
        );
        assert_eq!(with(json!({"hostPath": {"path": "/x"}})), "[]");
        assert_eq!(
            with(json!({"hostPath": {"path": "/x"}, "nfs": {"server": "a", "path": "/"}})),
            "spec.nfs: Forbidden: may not specify more than 1 volume type"
        );
    }

    #[test]
    fn the_table_shows_short_modes() {
        let one = volume(
            json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}),
        );
        let cells = PersistentVolumes::cells(&one, Timestamp::UNIX_EPOCH);
        assert_eq!((&cells[1], &cells[2]), (&json!("1Gi"), &json!("RWO,RWX")));
    }
}
