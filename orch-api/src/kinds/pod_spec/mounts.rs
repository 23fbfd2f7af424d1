//! Volume mounts and raw block devices of one container.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;

use super::volumes::{Volumes, descending_path, has_backsteps};
use crate::kinds::check::{Check, Path};
use crate::kinds::text::{list, text};

pub(super) fn mounts(check: &mut Check, container: &core::Container, volumes: &Volumes<'_>, path: &Path) {
    let devices: BTreeMap<&str, &str> = list(&container.volume_devices)
        .iter()
        .map(|one| (one.name.as_str(), one.device_path.as_str()))
        .collect();
    let mut points = BTreeSet::new();
    for (i, mount) in list(&container.volume_mounts).iter().enumerate() {
        let at = path.index(i);
        if mount.name.is_empty() {
            check.required(&at.child("name"), "");
        }
        let volume = volumes.get(mount.name.as_str());
        if volume.is_none() {
            check.not_found(&at.child("name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            check.required(&at.child("mountPath"), "");
        }
        if !points.insert(mount.mount_path.as_str()) {
            check.invalid(&at.child("mountPath"), &mount.mount_path, "must be unique");
        }
        if devices.contains_key(mount.name.as_str()) {
            check.invalid(
                &at.child("name"),
                &mount.name,
                "must not already exist in volumeDevices",
            );
        }
        if devices.values().any(|device| *device == mount.mount_path) {
            let why = "must not already exist as a path in volumeDevices";
            check.invalid(&at.child("mountPath"), &mount.mount_path, why);
        }
        sub_paths(check, mount, &at, path);
        propagation(check, mount, container, path);
        recursive_read_only(check, mount, &path.child("recursiveReadOnly"));
    }
}

// Upstream reports faults inside subPath and mountPropagation at the list, not at the element; so do we.
fn sub_paths(check: &mut Check, mount: &core::VolumeMount, at: &Path, path: &Path) {
    let (plain, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !plain.is_empty() {
        descending_path(check, plain, &path.child("subPath"));
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            check.invalid(
                &at.child("subPathExpr"),
                expression,
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        descending_path(check, expression, &path.child("subPathExpr"));
    }
}

fn propagation(check: &mut Check, mount: &core::VolumeMount, container: &core::Container, path: &Path) {
    const MODES: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
    let Some(mode) = &mount.mount_propagation else {
        return;
    };
    let path = path.child("mountPropagation");
    if !MODES.contains(&mode.as_str()) {
        check.not_supported(&path, mode, &MODES);
    }
    let privileged = container
        .security_context
        .as_ref()
        .and_then(|context| context.privileged)
        .unwrap_or(false);
    if mode == "Bidirectional" && !privileged {
        check.forbidden(
            &path,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

fn recursive_read_only(check: &mut Check, mount: &core::VolumeMount, path: &Path) {
    const MODES: [&str; 3] = ["Disabled", "Enabled", "IfPossible"];
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !mount.read_only.unwrap_or(false) {
                check.forbidden(path, "may only be specified when readOnly is true");
            }
            if !matches!(mount.mount_propagation.as_deref(), None | Some("None")) {
                check.forbidden(
                    path,
                    "may only be specified when mountPropagation is None or not specified",
                );
            }
        }
        Some(other) => check.not_supported(path, other, &MODES),
    }
}

pub(super) fn devices(check: &mut Check, container: &core::Container, volumes: &Volumes<'_>, path: &Path) {
    let mounts: BTreeMap<&str, &str> = list(&container.volume_mounts)
        .iter()
        .map(|one| (one.name.as_str(), one.mount_path.as_str()))
        .collect();
    let (mut paths, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in list(&container.volume_devices).iter().enumerate() {
        let at = path.index(i);
        let (name, point) = (device.name.as_str(), device.device_path.as_str());
        if name.is_empty() {
            check.required(&at.child("name"), "");
        } else if !names.insert(name) {
            check.invalid(&at.child("name"), name, "must be unique");
        }
        match volumes.get(name) {
            None => check.not_found(&at.child("name"), name),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                check.invalid(&at.child("name"), name, why);
            }
            Some(_) => {}
        }
        if point.is_empty() {
            check.required(&at.child("devicePath"), "");
        }
        if paths.contains(point) {
            check.invalid(&at.child("devicePath"), point, "must be unique");
        }
        if has_backsteps(point) {
            check.invalid(&at.child("devicePath"), point, "can not contain backsteps ('..')");
        } else {
            paths.insert(point);
        }
        if mounts.contains_key(name) {
            check.invalid(&at.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.values().any(|mount| *mount == point) {
            check.invalid(
                &at.child("devicePath"),
                point,
                "must not already exist as a path in volumeMounts",
            );
        }
    }
}
