//! Storage classes, CSI drivers and their nodes, attachments.

use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use orch_core::field::ErrorList;

use super::check::{Check, Path};
use super::pod_spec::csi_driver;
use super::stored::{table, unchecked};
use super::table::{self as cell, AGE, NAME, UNSET, number, text_column};
use super::text::{default_text, list, text};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

const GROUP: &str = "storage.k8s.io";

/// The rules of storage classes.
pub(super) struct StorageClasses;

impl Kind for StorageClasses {
    type Object = StorageClass;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "StorageClass", "storageclasses").short(["sc"])
    }

    fn default(class: &mut StorageClass) {
        default_text(&mut class.reclaim_policy, "Delete");
        default_text(&mut class.volume_binding_mode, "Immediate");
    }

    fn validate(class: &StorageClass) -> ErrorList {
        Check::run(|check| {
            check.present(&Path::new("provisioner"), &class.provisioner);
            let policies = ["Delete", "Retain"];
            check.optional_one_of(
                &Path::new("reclaimPolicy"),
                class.reclaim_policy.as_deref(),
                &policies,
            );
            let modes = ["Immediate", "WaitForFirstConsumer"];
            check.optional_one_of(
                &Path::new("volumeBindingMode"),
                class.volume_binding_mode.as_deref(),
                &modes,
            );
        })
    }

    fn validate_update(new: &StorageClass, old: &StorageClass) -> ErrorList {
        Check::run(|check| {
            if new.parameters != old.parameters {
                check.forbidden(&Path::new("parameters"), "updates to parameters are forbidden.");
            }
            if new.provisioner != old.provisioner {
                check.forbidden(&Path::new("provisioner"), "updates to provisioner are forbidden.");
            }
            if new.reclaim_policy != old.reclaim_policy {
                check.forbidden(
                    &Path::new("reclaimPolicy"),
                    "updates to reclaimPolicy are forbidden.",
                );
            }
            check.immutable(
                &Path::new("volumeBindingMode"),
                &new.volume_binding_mode,
                &old.volume_binding_mode,
            );
        })
    }

    table!(
        [
            NAME,
            text_column("Provisioner", "Who makes the volumes."),
            text_column("ReclaimPolicy", "What becomes of a volume after its claim."),
            text_column("VolumeBindingMode", "When a volume is made."),
            Column::new("AllowVolumeExpansion", "boolean", "", "Whether volumes can grow."),
            AGE,
        ],
        |class, now| {
            const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
            let annotations = class.metadata.annotations.as_ref();
            let is_default = annotations
                .and_then(|all| all.get(DEFAULT))
                .is_some_and(|value| value == "true");
            let name = text(&class.metadata.name);
            vec![
                if is_default {
                    format!("{name} (default)")
                } else {
                    name.to_owned()
                }
                .into(),
                class.provisioner.clone().into(),
                text(&class.reclaim_policy).into(),
                text(&class.volume_binding_mode).into(),
                class.allow_volume_expansion.unwrap_or(false).into(),
                cell::age(&class.metadata, now),
            ]
        }
    );
}

/// The rules of CSI drivers.
pub(super) struct CsiDrivers;

impl Kind for CsiDrivers {
    type Object = CSIDriver;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "CSIDriver", "csidrivers")
    }

    fn default(driver: &mut CSIDriver) {
        let spec = &mut driver.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        default_text(&mut spec.fs_group_policy, "ReadWriteOnceWithFSType");
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
        if list(&spec.volume_lifecycle_modes).is_empty() {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
    }

    fn validate(driver: &CSIDriver) -> ErrorList {
        Check::run(|check| {
            csi_driver(
                check,
                text(&driver.metadata.name),
                &Path::new("metadata").child("name"),
            );
            let policies = ["File", "None", "ReadWriteOnceWithFSType"];
            let path = Path::new("spec");
            let policy = driver.spec.fs_group_policy.as_deref();
            check.optional_one_of(&path.child("fsGroupPolicy"), policy, &policies);
            for mode in list(&driver.spec.volume_lifecycle_modes) {
                let at = path.child("volumeLifecycleModes");
                check.optional_one_of(&at, Some(mode), &["Ephemeral", "Persistent"]);
            }
        })
    }

    table!(
        [
            NAME,
            Column::new(
                "AttachRequired",
                "boolean",
                "",
                "Whether volumes are attached before they are mounted."
            ),
            Column::new(
                "PodInfoOnMount",
                "boolean",
                "",
                "Whether the driver is told about the pod."
            ),
            Column::new(
                "StorageCapacity",
                "boolean",
                "",
                "Whether the scheduler looks at capacity."
            ),
            text_column("TokenRequests", "For whom tokens are made."),
            Column::new(
                "RequiresRepublish",
                "boolean",
                "",
                "Whether volumes are published again and again."
            ),
            text_column("Modes", "How volumes live."),
            AGE,
        ],
        |driver, now| {
            let spec = &driver.spec;
            let audiences: Vec<&str> = list(&spec.token_requests)
                .iter()
                .map(|request| request.audience.as_str())
                .collect();
            vec![
                cell::name(&driver.metadata),
                spec.attach_required.unwrap_or(true).into(),
                spec.pod_info_on_mount.unwrap_or(false).into(),
                spec.storage_capacity.unwrap_or(false).into(),
                if audiences.is_empty() {
                    UNSET.to_owned()
                } else {
                    audiences.join(",")
                }
                .into(),
                spec.requires_republish.unwrap_or(false).into(),
                list(&spec.volume_lifecycle_modes).join(",").into(),
                cell::age(&driver.metadata, now),
            ]
        }
    );
}

/// The rules of CSI nodes.
pub(super) struct CsiNodes;

impl Kind for CsiNodes {
    type Object = CSINode;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "CSINode", "csinodes")
    }

    fn validate(node: &CSINode) -> ErrorList {
        Check::run(|check| {
            let path = Path::new("spec").child("drivers");
            for (i, driver) in node.spec.drivers.iter().enumerate() {
                let at = path.index(i);
                csi_driver(check, &driver.name, &at.child("name"));
                check.present(&at.child("nodeID"), &driver.node_id);
                if node.spec.drivers[..i]
                    .iter()
                    .any(|other| other.name == driver.name)
                {
                    check.duplicate(&at.child("name"), &driver.name);
                }
            }
        })
    }

    table!(
        [NAME, number("Drivers", "How many drivers run on the node."), AGE],
        |node, now| {
            vec![
                cell::name(&node.metadata),
                node.spec.drivers.len().into(),
                cell::age(&node.metadata, now),
            ]
        }
    );
}

/// The rules of free storage.
pub(super) struct CsiStorageCapacities;

impl Kind for CsiStorageCapacities {
    type Object = CSIStorageCapacity;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced(GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities")
    }

    fn validate(capacity: &CSIStorageCapacity) -> ErrorList {
        Check::run(|check| check.present(&Path::new("storageClassName"), &capacity.storage_class_name))
    }

    table!(
        [
            NAME,
            text_column("StorageClassName", "The class of which there is storage."),
            text_column("Capacity", "How much there is."),
        ],
        |capacity, _now| {
            let amount = capacity.capacity.as_ref().map_or(UNSET, |amount| &amount.0);
            vec![
                cell::name(&capacity.metadata),
                capacity.storage_class_name.clone().into(),
                amount.into(),
            ]
        }
    );
}

/// The rules of attachments.
pub(super) struct VolumeAttachments;

impl Kind for VolumeAttachments {
    type Object = VolumeAttachment;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "VolumeAttachment", "volumeattachments").status()
    }

    super::stored::status_apart_uncounted!();

    fn validate(attachment: &VolumeAttachment) -> ErrorList {
        Check::run(|check| {
            let path = Path::new("spec");
            check.present(&path.child("attacher"), &attachment.spec.attacher);
            check.present(&path.child("nodeName"), &attachment.spec.node_name);
        })
    }

    fn validate_update(new: &VolumeAttachment, old: &VolumeAttachment) -> ErrorList {
        Check::run(|check| {
            if new.spec != old.spec {
                check.invalid(&Path::new("spec"), &new.spec, super::format::IMMUTABLE);
            }
        })
    }

    table!(
        [
            NAME,
            text_column("Attacher", "The driver that attaches."),
            text_column("PV", "The volume."),
            text_column("Node", "The node."),
            Column::new("Attached", "boolean", "", "Whether the volume is attached."),
            AGE,
        ],
        |attachment, now| {
            let attached = attachment.status.as_ref().is_some_and(|status| status.attached);
            vec![
                cell::name(&attachment.metadata),
                attachment.spec.attacher.clone().into(),
                text(&attachment.spec.source.persistent_volume_name).into(),
                attachment.spec.node_name.clone().into(),
                attached.into(),
                cell::age(&attachment.metadata, now),
            ]
        }
    );
}

/// The rules of classes of volume attributes.
pub(super) struct VolumeAttributesClasses;

impl Kind for VolumeAttributesClasses {
    type Object = VolumeAttributesClass;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "VolumeAttributesClass", "volumeattributesclasses").short(["vac"])
    }

    unchecked!();

    table!(
        [
            NAME,
            text_column("DriverName", "The driver that knows the attributes."),
            AGE
        ],
        |class, now| {
            vec![
                cell::name(&class.metadata),
                class.driver_name.clone().into(),
                cell::age(&class.metadata, now),
            ]
        }
    );
}
