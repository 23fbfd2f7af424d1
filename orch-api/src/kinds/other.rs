//! Kinds that are kept for those who use them, with no rules beyond their types: certificates, flow control, devices,
//! storage migration.

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest,
};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::resource::v1::{
    DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;

use super::stored::{counted, status_apart, status_apart_uncounted, table, unchecked};
use super::table::{self as cell, AGE, NAME, NONE, number, text_column};
use super::text::{list, text};
use crate::resource::ResourceInfo;
use crate::strategy::{Kind, NameRule};

/// The rules of certificate signing requests.
pub(super) struct CertificateSigningRequests;

impl Kind for CertificateSigningRequests {
    type Object = CertificateSigningRequest;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(
            "certificates.k8s.io",
            "v1",
            "CertificateSigningRequest",
            "certificatesigningrequests",
        )
        .short(["csr"])
        .status()
    }

    status_apart_uncounted!();
    unchecked!();

    fn selectable_fields(request: &CertificateSigningRequest) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", request.spec.signer_name.clone())]
    }

    table!(
        [
            NAME,
            AGE,
            text_column("SignerName", "Who is asked to sign."),
            text_column("Requestor", "Who asks."),
            text_column("RequestedDuration", "How long the certificate shall last."),
            text_column("Condition", "What became of the request."),
        ],
        |request, now| {
            let status = request.status.clone().unwrap_or_default();
            let has = |sort: &str| list(&status.conditions).iter().any(|one| one.type_ == sort);
            let mut condition = vec![match (has("Denied"), has("Approved")) {
                (true, _) => "Denied",
                (false, true) => "Approved",
                (false, false) => "Pending",
            }];
            if has("Failed") {
                condition.push("Failed");
            }
            if status
                .certificate
                .as_ref()
                .is_some_and(|certificate| !certificate.0.is_empty())
            {
                condition.push("Issued");
            }
            let duration = request.spec.expiration_seconds;
            let duration = duration.map_or_else(|| NONE.to_owned(), |seconds| cell::duration(seconds.into()));
            vec![
                cell::name(&request.metadata),
                cell::age(&request.metadata, now),
                request.spec.signer_name.clone().into(),
                text(&request.spec.username).into(),
                duration.into(),
                condition.join(",").into(),
            ]
        }
    );
}

/// The rules of trust bundles.
pub(super) struct ClusterTrustBundles;

impl Kind for ClusterTrustBundles {
    type Object = ClusterTrustBundle;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(
            "certificates.k8s.io",
            "v1",
            "ClusterTrustBundle",
            "clustertrustbundles",
        )
    }

    unchecked!();

    fn name_rule() -> NameRule {
        // Bundles of a signer are named `signer.example.com:mine`.
        NameRule::PathSegment
    }

    fn selectable_fields(bundle: &ClusterTrustBundle) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", text(&bundle.spec.signer_name).to_owned())]
    }

    table!(
        [
            NAME,
            text_column("SignerName", "The signer whose roots these are.")
        ],
        |bundle, _now| {
            let signer = bundle.spec.signer_name.as_deref().unwrap_or(NONE);
            vec![cell::name(&bundle.metadata), signer.into()]
        }
    );
}

/// The rules of pods' certificate requests.
pub(super) struct PodCertificateRequests;

impl Kind for PodCertificateRequests {
    type Object = PodCertificateRequest;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced(
            "certificates.k8s.io",
            "v1",
            "PodCertificateRequest",
            "podcertificaterequests",
        )
        .status()
    }

    status_apart!();
    unchecked!();

    table!(
        [
            NAME,
            text_column("PodName", "The pod that asks."),
            text_column("ServiceAccountName", "The account of the pod."),
            text_column("NodeName", "The node of the pod."),
            text_column("SignerName", "Who is asked to sign."),
            AGE,
        ],
        |request, now| {
            vec![
                cell::name(&request.metadata),
                request.spec.pod_name.clone().into(),
                request.spec.service_account_name.clone().into(),
                request.spec.node_name.clone().into(),
                request.spec.signer_name.clone().into(),
                cell::age(&request.metadata, now),
            ]
        }
    );
}

/// The rules of flow schemas.
pub(super) struct FlowSchemas;

impl Kind for FlowSchemas {
    type Object = FlowSchema;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas").status()
    }

    status_apart!();
    unchecked!();

    table!(
        [
            NAME,
            text_column("PriorityLevel", "The level that its requests get."),
            number("MatchingPrecedence", "Which schema is asked first."),
            text_column("DistinguisherMethod", "How requests are told apart."),
            AGE,
        ],
        |schema, now| {
            let method = schema
                .spec
                .distinguisher_method
                .as_ref()
                .map_or(NONE, |method| &method.type_);
            vec![
                cell::name(&schema.metadata),
                schema.spec.priority_level_configuration.name.clone().into(),
                schema.spec.matching_precedence.unwrap_or(0).into(),
                method.into(),
                cell::age(&schema.metadata, now),
            ]
        }
    );
}

/// The rules of priority levels.
pub(super) struct PriorityLevelConfigurations;

impl Kind for PriorityLevelConfigurations {
    type Object = PriorityLevelConfiguration;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(
            "flowcontrol.apiserver.k8s.io",
            "v1",
            "PriorityLevelConfiguration",
            "prioritylevelconfigurations",
        )
        .status()
    }

    status_apart!();
    unchecked!();

    table!(
        [NAME, text_column("Type", "Whether the level is limited."), AGE],
        |level, now| {
            vec![
                cell::name(&level.metadata),
                level.spec.type_.clone().into(),
                cell::age(&level.metadata, now),
            ]
        }
    );
}

/// The rules of device classes.
pub(super) struct DeviceClasses;

impl Kind for DeviceClasses {
    type Object = DeviceClass;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster("resource.k8s.io", "v1", "DeviceClass", "deviceclasses")
    }

    counted!();
    unchecked!();

    table!([NAME, AGE], |class, now| vec![
        cell::name(&class.metadata),
        cell::age(&class.metadata, now)
    ]);
}

/// The rules of device taints.
pub(super) struct DeviceTaintRules;

impl Kind for DeviceTaintRules {
    type Object = DeviceTaintRule;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster("resource.k8s.io", "v1", "DeviceTaintRule", "devicetaintrules").status()
    }

    status_apart!();
    unchecked!();

    table!([NAME, AGE], |rule, now| vec![
        cell::name(&rule.metadata),
        cell::age(&rule.metadata, now)
    ]);
}

/// The rules of resource claims.
pub(super) struct ResourceClaims;

impl Kind for ResourceClaims {
    type Object = ResourceClaim;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims").status()
    }

    status_apart_uncounted!();
    unchecked!();

    table!(
        [
            NAME,
            text_column("State", "Whether devices are given and used."),
            AGE
        ],
        |claim, now| {
            let status = claim.status.clone().unwrap_or_default();
            let mut states = Vec::new();
            if claim.metadata.deletion_timestamp.is_some() {
                states.push("deleted");
            }
            if status.allocation.is_none() {
                states.push("pending");
            } else {
                states.push("allocated");
                if !list(&status.reserved_for).is_empty() {
                    states.push("reserved");
                }
            }
            vec![
                cell::name(&claim.metadata),
                states.join(",").into(),
                cell::age(&claim.metadata, now),
            ]
        }
    );
}

/// The rules of templates of resource claims.
pub(super) struct ResourceClaimTemplates;

impl Kind for ResourceClaimTemplates {
    type Object = ResourceClaimTemplate;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced(
            "resource.k8s.io",
            "v1",
            "ResourceClaimTemplate",
            "resourceclaimtemplates",
        )
    }

    unchecked!();

    table!([NAME, AGE], |template, now| vec![
        cell::name(&template.metadata),
        cell::age(&template.metadata, now)
    ]);
}

/// The rules of lists of devices.
pub(super) struct ResourceSlices;

impl Kind for ResourceSlices {
    type Object = ResourceSlice;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster("resource.k8s.io", "v1", "ResourceSlice", "resourceslices")
    }

    counted!();
    unchecked!();

    fn selectable_fields(slice: &ResourceSlice) -> Vec<(&'static str, String)> {
        vec![
            ("spec.nodeName", text(&slice.spec.node_name).to_owned()),
            ("spec.driver", slice.spec.driver.clone()),
        ]
    }

    table!(
        [
            NAME,
            text_column("Node", "The node that has the devices."),
            text_column("Driver", "The driver of the devices."),
            text_column("Pool", "The pool of the devices."),
            AGE,
        ],
        |slice, now| {
            let node = slice.spec.node_name.as_deref();
            let node = node.unwrap_or(if slice.spec.all_nodes == Some(true) {
                "<all>"
            } else {
                "<multiple>"
            });
            vec![
                cell::name(&slice.metadata),
                node.into(),
                slice.spec.driver.clone().into(),
                slice.spec.pool.name.clone().into(),
                cell::age(&slice.metadata, now),
            ]
        }
    );
}

/// The rules of migrations of stored objects.
pub(super) struct StorageVersionMigrations;

impl Kind for StorageVersionMigrations {
    type Object = StorageVersionMigration;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(
            "storagemigration.k8s.io",
            "v1",
            "StorageVersionMigration",
            "storageversionmigrations",
        )
        .status()
    }

    status_apart!();
    unchecked!();

    table!([NAME, AGE], |migration, now| vec![
        cell::name(&migration.metadata),
        cell::age(&migration.metadata, now)
    ]);
}
