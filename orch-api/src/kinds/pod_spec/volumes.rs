//! Volumes of a pod: exactly one source each, and the rules of every source.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;

use super::{Context, containers, env, projected, sources};
use crate::kinds::check::{Check, Path};
use crate::kinds::text::{entries, list, text};
use crate::kinds::{format, persistent_volume_claim, resources};

/// The sound volumes of a pod by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a core::Volume>;

pub(super) const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

pub(super) fn validate<'a>(
    check: &mut Check,
    volumes: &'a [core::Volume],
    context: &Context<'_>,
    path: &Path,
) -> Volumes<'a> {
    let created: BTreeSet<String> = context.pod_name.map_or_else(BTreeSet::new, |pod| {
        let ephemeral = volumes.iter().filter(|volume| volume.ephemeral.is_some());
        ephemeral.map(|volume| format!("{pod}-{}", volume.name)).collect()
    });
    let mut known = Volumes::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        source(check, volume, context, &path);
        check.name(&path.child("name"), &volume.name, format::dns1123_label);
        if known.insert(volume.name.as_str(), volume).is_some() {
            check.duplicate(&path.child("name"), &volume.name);
        }
        if let Some(claim) = &volume.persistent_volume_claim
            && created.contains(&claim.claim_name)
        {
            let at = path.child("persistentVolumeClaim").child("claimName");
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            check.invalid(&at, &claim.claim_name, why);
        }
    }
    known
}

/// The sources which a volume names, in the order in which upstream looks at them. The second name is the field in
/// error messages, which upstream spells differently for a few.
fn given(volume: &core::Volume) -> Vec<&'static str> {
    let all = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ];
    all.into_iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| name)
        .collect()
}

fn source(check: &mut Check, volume: &core::Volume, context: &Context<'_>, path: &Path) {
    let given = given(volume);
    let Some((first, others)) = given.split_first() else {
        check.required(path, "must specify a volume type");
        return;
    };
    let at = path.child(*first);
    match *first {
        "ephemeral" => ephemeral(check, volume, context, path),
        "image" => image(check, volume, context, &at),
        name => {
            local(check, volume, name, &at);
            sources::validate(check, volume, name, &at);
        }
    }
    for other in others {
        check.forbidden(&path.child(*other), "may not specify more than 1 volume type");
    }
}

/// Sources whose content the cluster itself provides.
fn local(check: &mut Check, volume: &core::Volume, name: &str, path: &Path) {
    match name {
        "emptyDir" => {
            if let Some(source) = &volume.empty_dir {
                empty_dir(check, source, path);
            }
        }
        "hostPath" => {
            if let Some(source) = &volume.host_path {
                host_path(check, source, path);
            }
        }
        "secret" => {
            if let Some(source) = &volume.secret {
                check.present(&path.child("secretName"), text(&source.secret_name));
                mode(check, source.default_mode, &path.child("defaultMode"));
                no_user(check, source.default_user, &path.child("defaultUser"));
                items(check, list(&source.items), &path.child("items"));
            }
        }
        "configMap" => {
            if let Some(source) = &volume.config_map {
                check.present(&path.child("name"), &source.name);
                mode(check, source.default_mode, &path.child("defaultMode"));
                no_user(check, source.default_user, &path.child("defaultUser"));
                items(check, list(&source.items), &path.child("items"));
            }
        }
        "persistentVolumeClaim" => {
            if let Some(source) = &volume.persistent_volume_claim {
                check.present(&path.child("claimName"), &source.claim_name);
            }
        }
        "downwardAPI" => {
            if let Some(source) = &volume.downward_api {
                mode(check, source.default_mode, &path.child("defaultMode"));
                for file in list(&source.items) {
                    downward_file(check, file, path);
                }
            }
        }
        "projected" => {
            if let Some(source) = &volume.projected {
                projected::validate(check, source, path);
            }
        }
        _ => {}
    }
}

fn empty_dir(check: &mut Check, source: &core::EmptyDirVolumeSource, path: &Path) {
    if let Some(limit) = &source.size_limit
        && resources::is_negative(limit)
    {
        check.forbidden(
            &path.child("sizeLimit"),
            "SizeLimit field must be a valid resource quantity",
        );
    }
    if source.mode.is_some() {
        check.forbidden(&path.child("mode"), "is not supported by this server");
    }
}

pub(crate) fn host_path(check: &mut Check, source: &core::HostPathVolumeSource, path: &Path) {
    const TYPES: [&str; 8] = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    if source.path.is_empty() {
        check.required(&path.child("path"), "");
        return;
    }
    no_backsteps(check, &source.path, &path.child("path"));
    check.optional_one_of(&path.child("type"), source.type_.as_deref(), &TYPES);
}

fn ephemeral(check: &mut Check, volume: &core::Volume, context: &Context<'_>, path: &Path) {
    let at = path.child("ephemeral").child("volumeClaimTemplate");
    let template = volume
        .ephemeral
        .as_ref()
        .and_then(|source| source.volume_claim_template.as_ref());
    let Some(template) = template else {
        check.required(&at, "");
        return;
    };
    persistent_volume_claim::spec(check, &template.spec, &at.child("spec"));
    if let Some(pod) = context.pod_name
        && !volume.name.is_empty()
    {
        let claim = format!("{pod}-{}", volume.name);
        for fault in format::dns1123_subdomain(&claim) {
            check.invalid(
                &path.child("name"),
                &volume.name,
                format!("PVC name {claim:?}: {fault}"),
            );
        }
    }
}

fn image(check: &mut Check, volume: &core::Volume, context: &Context<'_>, path: &Path) {
    let Some(source) = &volume.image else { return };
    if context.is_pod && text(&source.reference).is_empty() {
        check.required(&path.child("reference"), "");
    }
    containers::pull_policy(check, text(&source.pull_policy), &path.child("pullPolicy"));
}

pub(super) fn items(check: &mut Check, items: &[core::KeyToPath], path: &Path) {
    for (i, item) in items.iter().enumerate() {
        let path = path.index(i);
        check.present(&path.child("key"), &item.key);
        check.present(&path.child("path"), &item.path);
        local_path(check, &item.path, &path.child("path"));
        mode(check, item.mode, &path.child("mode"));
        no_user(check, item.user, &path.child("user"));
    }
}

pub(super) fn downward_file(check: &mut Check, file: &core::DownwardAPIVolumeFile, path: &Path) {
    check.present(&path.child("path"), &file.path);
    local_path(check, &file.path, &path.child("path"));
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            env::field_ref(check, field, env::Shown::Volume, &path.child("fieldRef"));
            if other.is_some() {
                check.invalid(
                    path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
        (None, Some(resource)) => {
            env::resource_ref(
                check,
                resource,
                env::Shown::Volume,
                &path.child("resourceFieldRef"),
            );
        }
        (None, None) => check.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(check, file.mode, &path.child("mode"));
    no_user(check, file.user, &path.child("user"));
}

pub(super) fn mode(check: &mut Check, mode: Option<i32>, path: &Path) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        check.invalid(path, mode, MODE);
    }
}

/// Files owned by a chosen user are an alpha feature upstream, off by default there.
pub(super) fn no_user(check: &mut Check, user: Option<i64>, path: &Path) {
    if user.is_some() {
        check.forbidden(path, "is not supported by this server");
    }
}

pub(super) fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

pub(super) fn no_backsteps(check: &mut Check, value: &str, path: &Path) {
    if has_backsteps(value) {
        check.invalid(path, value, "must not contain '..'");
    }
}

/// A relative path that never climbs.
pub(super) fn descending_path(check: &mut Check, value: &str, path: &Path) {
    if value.starts_with('/') {
        check.invalid(path, value, "must be a relative path");
    }
    no_backsteps(check, value, path);
}

/// A relative path whose names do not begin with two dots, which the kubelet's atomic writer keeps for itself.
pub(super) fn local_path(check: &mut Check, value: &str, path: &Path) {
    descending_path(check, value, path);
    if value.starts_with("..") && !has_backsteps(value) {
        check.invalid(path, value, "must not start with '..'");
    }
}

/// The options of a flexVolume may not use names that are kept for Kubernetes.
pub(super) fn flex_options(check: &mut Check, source: &core::FlexVolumeSource, path: &Path) {
    for (key, _) in entries(&source.options) {
        let namespace = key
            .split_once('/')
            .map_or(key.as_str(), |(namespace, _)| namespace);
        let dotted = format!(".{}", namespace.to_lowercase());
        if dotted.ends_with(".kubernetes.io") || dotted.ends_with(".k8s.io") {
            check.invalid(
                &path.child("options").key(key),
                key,
                "kubernetes.io and k8s.io namespaces are reserved",
            );
        }
    }
}
