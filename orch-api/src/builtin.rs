//! The resources that are built in.

use std::sync::Arc;

use crate::resource::ResourceInfo;
use crate::strategy::{Strategy, generic};

pub(crate) fn strategies() -> Vec<Arc<dyn Strategy>> {
    let core = |kind, plural| ResourceInfo::namespaced("", "v1", kind, plural);
    vec![
        generic(
            ResourceInfo::cluster("", "v1", "Namespace", "namespaces")
                .short(["ns"])
                .status(),
        ),
        generic(
            ResourceInfo::cluster("", "v1", "Node", "nodes")
                .short(["no"])
                .stored_at("minions")
                .status(),
        ),
        generic(core("Pod", "pods").short(["po"]).categories(["all"]).status()),
        generic(
            core("Service", "services")
                .short(["svc"])
                .stored_at("services/specs")
                .status(),
        ),
        generic(
            core("Endpoints", "endpoints")
                .short(["ep"])
                .stored_at("services/endpoints"),
        ),
        generic(core("ConfigMap", "configmaps").short(["cm"])),
        generic(core("Secret", "secrets")),
        generic(core("ServiceAccount", "serviceaccounts").short(["sa"])),
        generic(core("Event", "events").short(["ev"])),
        generic(ResourceInfo::namespaced("events.k8s.io", "v1", "Event", "events").short(["ev"])),
        generic(
            ResourceInfo::namespaced("apps", "v1", "Deployment", "deployments")
                .short(["deploy"])
                .status()
                .scale(),
        ),
        generic(
            ResourceInfo::namespaced("apps", "v1", "ReplicaSet", "replicasets")
                .short(["rs"])
                .status()
                .scale(),
        ),
        generic(ResourceInfo::namespaced(
            "coordination.k8s.io",
            "v1",
            "Lease",
            "leases",
        )),
        generic(ResourceInfo::namespaced(
            "discovery.k8s.io",
            "v1",
            "EndpointSlice",
            "endpointslices",
        )),
    ]
}
