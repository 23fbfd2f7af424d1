//! The rules of the built-in kinds, one file a kind: defaults, validation, what an update may change, table columns.
//!
//! They follow Kubernetes 1.37. Names of fields, reasons and the wording of messages are upstream's, since clients and
//! people match on them.

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        reason = "JSON written in place reads best when helpers take it whole"
    )
)]

mod apps;
mod autoscaling;
mod batch;
mod check;
mod classes;
mod config_map;
mod core_rest;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod format;
mod int_or_percent;
mod lease;
mod metadata;
mod namespace;
mod networking;
mod node;
mod other;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_spec;
mod policy;
mod rbac;
mod replica_set;
mod resources;
mod secret;
mod selectors;
mod semantic;
mod service;
mod service_account;
mod storage;
mod stored;
mod table;
mod text;
mod warnings;
mod windows;
mod workload;

use std::sync::Arc;

use crate::strategy::{Strategy, strategy};

pub(crate) use self::check::{Check, Path};
pub(crate) use self::semantic::{bump_generation, same};
pub(crate) use self::table::{NAME, duration, name as name_cell};

/// The built-in kinds, in the order in which discovery lists them within their group.
#[must_use]
pub fn builtin() -> Vec<Arc<dyn Strategy>> {
    vec![
        strategy::<config_map::ConfigMaps>(),
        strategy::<endpoints::AllEndpoints>(),
        strategy::<event::Events>(),
        strategy::<core_rest::LimitRanges>(),
        strategy::<namespace::Namespaces>(),
        strategy::<node::Nodes>(),
        strategy::<persistent_volume_claim::PersistentVolumeClaims>(),
        strategy::<persistent_volume::PersistentVolumes>(),
        strategy::<pod::Pods>(),
        strategy::<core_rest::PodTemplates>(),
        strategy::<core_rest::ReplicationControllers>(),
        strategy::<core_rest::ResourceQuotas>(),
        strategy::<secret::Secrets>(),
        strategy::<service_account::ServiceAccounts>(),
        strategy::<service::Services>(),
        strategy::<apps::ControllerRevisions>(),
        strategy::<apps::DaemonSets>(),
        strategy::<deployment::Deployments>(),
        strategy::<replica_set::ReplicaSets>(),
        strategy::<apps::StatefulSets>(),
        strategy::<autoscaling::HorizontalPodAutoscalers>(),
        strategy::<batch::CronJobs>(),
        strategy::<batch::Jobs>(),
        strategy::<other::CertificateSigningRequests>(),
        strategy::<other::ClusterTrustBundles>(),
        strategy::<other::PodCertificateRequests>(),
        strategy::<lease::Leases>(),
        strategy::<endpoint_slice::EndpointSlices>(),
        strategy::<event::NewerEvents>(),
        strategy::<other::FlowSchemas>(),
        strategy::<other::PriorityLevelConfigurations>(),
        strategy::<networking::IngressClasses>(),
        strategy::<networking::Ingresses>(),
        strategy::<networking::IpAddresses>(),
        strategy::<networking::NetworkPolicies>(),
        strategy::<networking::ServiceCidrs>(),
        strategy::<classes::RuntimeClasses>(),
        strategy::<policy::PodDisruptionBudgets>(),
        strategy::<rbac::ClusterRoleBindings>(),
        strategy::<rbac::ClusterRoles>(),
        strategy::<rbac::RoleBindings>(),
        strategy::<rbac::Roles>(),
        strategy::<other::DeviceClasses>(),
        strategy::<other::DeviceTaintRules>(),
        strategy::<other::ResourceClaims>(),
        strategy::<other::ResourceClaimTemplates>(),
        strategy::<other::ResourceSlices>(),
        strategy::<classes::PriorityClasses>(),
        strategy::<storage::CsiDrivers>(),
        strategy::<storage::CsiNodes>(),
        strategy::<storage::CsiStorageCapacities>(),
        strategy::<storage::StorageClasses>(),
        strategy::<storage::VolumeAttachments>(),
        strategy::<storage::VolumeAttributesClasses>(),
        strategy::<other::StorageVersionMigrations>(),
        strategy::<crate::crd::CustomResourceDefinitions>(),
    ]
}

#[cfg(test)]
mod tests;
