//! The rules of the built-in kinds, one file a kind: defaults, validation, what an update may change, table columns.
//!
//! They follow Kubernetes 1.37. Names of fields, reasons and the wording of messages are upstream's, since clients and
//! people match on them.

mod check;
mod config_map;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod format;
mod int_or_percent;
mod lease;
mod metadata;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_spec;
mod replica_set;
mod resources;
mod secret;
mod selectors;
mod semantic;
mod service;
mod service_account;
mod stored;
mod table;
mod text;
mod warnings;
mod windows;
mod workload;

use std::sync::Arc;

use crate::strategy::{Strategy, strategy};

/// The built-in kinds, in the order in which discovery lists them within their group.
#[must_use]
pub fn builtin() -> Vec<Arc<dyn Strategy>> {
    vec![
        strategy::<config_map::ConfigMaps>(),
        strategy::<endpoints::AllEndpoints>(),
        strategy::<event::Events>(),
        strategy::<namespace::Namespaces>(),
        strategy::<node::Nodes>(),
        strategy::<persistent_volume_claim::PersistentVolumeClaims>(),
        strategy::<persistent_volume::PersistentVolumes>(),
        strategy::<pod::Pods>(),
        strategy::<secret::Secrets>(),
        strategy::<service_account::ServiceAccounts>(),
        strategy::<service::Services>(),
        strategy::<deployment::Deployments>(),
        strategy::<replica_set::ReplicaSets>(),
        strategy::<lease::Leases>(),
        strategy::<endpoint_slice::EndpointSlices>(),
    ]
}
