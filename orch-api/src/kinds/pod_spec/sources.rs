//! Volume sources that lie outside the cluster: disks, shares and drivers.

use k8s_openapi::api::core::v1 as core;

use super::volumes::{descending_path, flex_options};
use crate::kinds::check::{Check, Path};
use crate::kinds::format;
use crate::kinds::text::{list, text};

/// The rules of the source `name` of a volume, at its own path.
pub(super) fn validate(check: &mut Check, volume: &core::Volume, name: &str, path: &Path) {
    match name {
        "nfs" | "glusterfs" | "cephfs" | "rbd" | "quobyte" | "azureFile" | "gitRepo" => {
            shares(check, volume, name, path);
        }
        "csi" | "flexVolume" | "flocker" | "storageos" | "scaleIO" => drivers(check, volume, name, path),
        _ => disks(check, volume, name, path),
    }
}

fn shares(check: &mut Check, volume: &core::Volume, name: &str, path: &Path) {
    if let (Some(nfs), "nfs") = (&volume.nfs, name) {
        check.present(&path.child("server"), &nfs.server);
        check.present(&path.child("path"), &nfs.path);
        if !nfs.path.starts_with('/') {
            check.invalid(&path.child("path"), &nfs.path, "must be an absolute path");
        }
    } else if let (Some(glusterfs), "glusterfs") = (&volume.glusterfs, name) {
        check.present(&path.child("endpoints"), &glusterfs.endpoints);
        check.present(&path.child("path"), &glusterfs.path);
    } else if let (Some(cephfs), "cephfs") = (&volume.cephfs, name) {
        if cephfs.monitors.is_empty() {
            check.required(&path.child("monitors"), "");
        }
    } else if let (Some(rbd), "rbd") = (&volume.rbd, name) {
        if rbd.monitors.is_empty() {
            check.required(&path.child("monitors"), "");
        }
        check.present(&path.child("image"), &rbd.image);
    } else if let (Some(quobyte), "quobyte") = (&volume.quobyte, name) {
        self::quobyte(check, quobyte, path);
    } else if let (Some(azure), "azureFile") = (&volume.azure_file, name) {
        check.present(&path.child("secretName"), &azure.secret_name);
        check.present(&path.child("shareName"), &azure.share_name);
    } else if let (Some(git), "gitRepo") = (&volume.git_repo, name) {
        check.present(&path.child("repository"), &git.repository);
        descending_path(check, text(&git.directory), &path.child("directory"));
    }
}

fn quobyte(check: &mut Check, quobyte: &core::QuobyteVolumeSource, path: &Path) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let is_pair = |pair: &str| {
        pair.rsplit_once(':')
            .is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'))
    };
    if quobyte.registry.is_empty() {
        check.required(&path.child("registry"), PAIRS);
    } else if text(&quobyte.tenant).len() >= 65 {
        check.required(
            &path.child("tenant"),
            "must be a UUID and may not exceed a length of 64 characters",
        );
    } else if !quobyte.registry.split(',').all(is_pair) {
        check.invalid(&path.child("registry"), &quobyte.registry, PAIRS);
    }
    check.present(&path.child("volume"), &quobyte.volume);
}

fn drivers(check: &mut Check, volume: &core::Volume, name: &str, path: &Path) {
    if let (Some(csi), "csi") = (&volume.csi, name) {
        csi_driver(check, &csi.driver, &path.child("driver"));
        if let Some(secret) = &csi.node_publish_secret_ref {
            check.name(
                &path.child("nodePublishSecretRef").child("name"),
                &secret.name,
                format::dns1123_subdomain,
            );
        }
    } else if let (Some(flex), "flexVolume") = (&volume.flex_volume, name) {
        check.present(&path.child("driver"), &flex.driver);
        flex_options(check, flex, path);
    } else if let (Some(flocker), "flocker") = (&volume.flocker, name) {
        let (dataset, uuid) = (text(&flocker.dataset_name), text(&flocker.dataset_uuid));
        if dataset.is_empty() && uuid.is_empty() {
            check.required(path, "one of datasetName and datasetUUID is required");
        } else if !dataset.is_empty() && !uuid.is_empty() {
            check.invalid(
                path,
                "resource",
                "datasetName and datasetUUID can not be specified simultaneously",
            );
        }
        if dataset.contains('/') {
            check.invalid(&path.child("datasetName"), dataset, "must not contain '/'");
        }
    } else if let (Some(storageos), "storageos") = (&volume.storageos, name) {
        check.name(
            &path.child("volumeName"),
            text(&storageos.volume_name),
            format::dns1123_label,
        );
        let namespace = text(&storageos.volume_namespace);
        if !namespace.is_empty() {
            check.faults(
                &path.child("volumeNamespace"),
                namespace,
                format::dns1123_label(namespace),
            );
        }
        if let Some(secret) = &storageos.secret_ref {
            check.present(&path.child("secretRef").child("name"), &secret.name);
        }
    } else if let (Some(scale_io), "scaleIO") = (&volume.scale_io, name) {
        check.present(&path.child("gateway"), &scale_io.gateway);
        check.present(&path.child("system"), &scale_io.system);
        check.present(&path.child("volumeName"), text(&scale_io.volume_name));
    }
}

/// The name of a CSI driver: a domain name of at most 63 bytes, in any case.
pub(crate) fn csi_driver(check: &mut Check, driver: &str, path: &Path) {
    check.present(path, driver);
    if driver.len() > 63 {
        check.too_long(path, 63);
    }
    check.faults(path, driver, format::dns1123_subdomain(&driver.to_lowercase()));
}

fn disks(check: &mut Check, volume: &core::Volume, name: &str, path: &Path) {
    if let (Some(disk), "gcePersistentDisk") = (&volume.gce_persistent_disk, name) {
        check.present(&path.child("pdName"), &disk.pd_name);
        partition(check, disk.partition, path);
    } else if let (Some(disk), "awsElasticBlockStore") = (&volume.aws_elastic_block_store, name) {
        check.present(&path.child("volumeID"), &disk.volume_id);
        partition(check, disk.partition, path);
    } else if let (Some(disk), "cinder") = (&volume.cinder, name) {
        check.present(&path.child("volumeID"), &disk.volume_id);
        if let Some(secret) = &disk.secret_ref {
            check.present(&path.child("secretRef").child("name"), &secret.name);
        }
    } else if let (Some(disk), "vsphereVolume") = (&volume.vsphere_volume, name) {
        check.present(&path.child("volumePath"), &disk.volume_path);
    } else if let (Some(disk), "photonPersistentDisk") = (&volume.photon_persistent_disk, name) {
        check.present(&path.child("pdID"), &disk.pd_id);
    } else if let (Some(disk), "portworxVolume") = (&volume.portworx_volume, name) {
        check.present(&path.child("volumeID"), &disk.volume_id);
    } else if let (Some(disk), "azureDisk") = (&volume.azure_disk, name) {
        azure_disk(check, disk, path);
    } else if let (Some(disk), "fc") = (&volume.fc, name) {
        fibre_channel(check, disk, path);
    } else if let (Some(disk), "iscsi") = (&volume.iscsi, name) {
        iscsi(check, disk, &volume.name, path);
    }
}

fn partition(check: &mut Check, partition: Option<i32>, path: &Path) {
    if let Some(partition) = partition
        && !(0..=255).contains(&partition)
    {
        check.invalid(
            &path.child("partition"),
            partition,
            "must be between 1 and 255, inclusive",
        );
    }
}

fn azure_disk(check: &mut Check, disk: &core::AzureDiskVolumeSource, path: &Path) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    check.present(&path.child("diskName"), &disk.disk_name);
    check.present(&path.child("diskURI"), &disk.disk_uri);
    check.optional_one_of(
        &path.child("cachingMode"),
        disk.caching_mode.as_deref(),
        &["None", "ReadOnly", "ReadWrite"],
    );
    check.optional_one_of(
        &path.child("kind"),
        disk.kind.as_deref(),
        &["Dedicated", "Managed", "Shared"],
    );
    let uri = path.child("diskURI");
    match disk.kind.as_deref() {
        Some("Managed") if !disk.disk_uri.starts_with("/subscriptions/") => {
            check.not_supported(&uri, &disk.disk_uri, &[MANAGED]);
        }
        Some(kind) if kind != "Managed" && !disk.disk_uri.starts_with("https://") => {
            check.not_supported(&uri, &disk.disk_uri, &[BLOB]);
        }
        _ => {}
    }
}

fn fibre_channel(check: &mut Check, disk: &core::FCVolumeSource, path: &Path) {
    let (targets, ids) = (list(&disk.target_wwns), list(&disk.wwids));
    let at = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        check.required(&at, "must specify either targetWWNs or wwids, but not both");
    } else if !targets.is_empty() && !ids.is_empty() {
        check.invalid(
            &at,
            targets,
            "targetWWNs and wwids can not be specified simultaneously",
        );
    }
    if !targets.is_empty() {
        match disk.lun {
            None => check.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
            Some(lun) => self::lun(check, lun, path),
        }
    }
}

fn lun(check: &mut Check, lun: i32, path: &Path) {
    if !(0..=255).contains(&lun) {
        check.invalid(&path.child("lun"), lun, "must be between 0 and 255, inclusive");
    }
}

fn iscsi(check: &mut Check, disk: &core::ISCSIVolumeSource, volume: &str, path: &Path) {
    check.present(&path.child("targetPortal"), &disk.target_portal);
    let at = path.child("iqn");
    if disk.iqn.is_empty() {
        check.required(&at, "");
    } else {
        iscsi_name(check, &disk.iqn, &at);
    }
    lun(check, disk.lun, path);
    let chap = disk.chap_auth_discovery.unwrap_or(false) || disk.chap_auth_session.unwrap_or(false);
    if chap && disk.secret_ref.is_none() {
        check.required(&path.child("secretRef"), "");
    }
    if let Some(initiator) = &disk.initiator_name {
        iscsi_name(check, initiator, &path.child("initiatorname"));
        if volume.len() + 1 + disk.target_portal.len() > 64 {
            let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
            check.invalid(&path.child("name"), volume, why);
        }
    }
}

/// An iSCSI name: `iqn.YYYY-MM.domain:id`, `eui.` and 16 characters, or `naa.` and 32.
fn iscsi_name(check: &mut Check, name: &str, path: &Path) {
    let alphanumeric =
        |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let sound = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => name.get(4..).is_some_and(|rest| alphanumeric(rest, 16)),
        Some("naa") => name.get(4..).is_some_and(|rest| alphanumeric(rest, 32)),
        _ => {
            check.invalid(path, name, "must be valid format starting with iqn, eui, or naa");
            return;
        }
    };
    if !sound {
        check.invalid(path, name, "must be valid format");
    }
}

fn is_iqn(name: &str) -> bool {
    let Some((date, rest)) = name
        .strip_prefix("iqn.")
        .and_then(|rest| rest.split_at_checked(8))
    else {
        return false;
    };
    let date = date.as_bytes();
    let digits = |range: std::ops::Range<usize>| date[range].iter().all(u8::is_ascii_digit);
    let dated = digits(0..4) && date[4] == b'-' && digits(5..7) && date[7] == b'.';
    let Some((domain, id)) = rest.split_once(':') else {
        return false;
    };
    let domain_sound = !domain.is_empty()
        && domain
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let id_sound = !id.is_empty() && !id.chars().any(|c| ",;*&$|".contains(c) || c.is_whitespace());
    dated && domain_sound && id_sound
}
