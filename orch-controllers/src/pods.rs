//! The pod informer that several controllers share, and its indexes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use orch_core::informer::{Informer, Informers};
use orch_core::owner;

/// Pods by the uid of their controller, and those without one by namespace.
const CONTROLLER: &str = "controller";

/// All pods, indexed by controller.
pub(crate) fn informer(informers: &Informers) -> Informer<Pod> {
    let pods = informers.get::<Pod>();
    pods.add_index(CONTROLLER, |pod: &Pod| {
        let index = match owner::controller_of(&pod.metadata) {
            Some(controller) => controller.uid.clone(),
            None => orphans_of(pod.metadata.namespace.as_deref().unwrap_or_default()),
        };
        vec![index]
    });
    pods
}

fn orphans_of(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// The pods that the object with this uid controls.
pub(crate) fn controlled_by(pods: &Informer<Pod>, uid: &str) -> Vec<Arc<Pod>> {
    pods.by_index(CONTROLLER, uid)
}

/// The pods that an owner may claim: its own, and the namespace's orphans.
pub(crate) fn candidates(pods: &Informer<Pod>, namespace: &str, uid: &str) -> Vec<Arc<Pod>> {
    let mut candidates = controlled_by(pods, uid);
    candidates.extend(pods.by_index(CONTROLLER, &orphans_of(namespace)));
    candidates
}

/// The object is not there any more, or another one has its name: no error for who wanted it gone or changed.
pub(crate) fn is_gone_or_changed(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422))
}

/// The namespace is going away: what cannot be created in it will not be missed.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    status.code == 403
        && status.details.as_ref().is_some_and(|details| {
            details
                .causes
                .iter()
                .any(|cause| cause.reason == "NamespaceTerminating")
        })
}

/// Pods by the node they are bound to; those that are bound to none under the empty name.
const NODE: &str = "node";

/// The shared informer, with the index by node.
pub(crate) fn informer_by_node(informers: &Informers) -> Informer<Pod> {
    let pods = informer(informers);
    pods.add_index(NODE, |pod: &Pod| vec![node_name(pod).to_owned()]);
    pods
}

/// The pods that are bound to this node.
pub(crate) fn on_node(pods: &Informer<Pod>, node: &str) -> Vec<Arc<Pod>> {
    pods.by_index(NODE, node)
}

/// The node a pod is bound to, or nothing.
pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

/// Where a pod is in its life.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether a pod ran to its end, well or not.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether a pod is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    orch_core::conditions::is_true(conditions.unwrap_or_default(), "Ready")
}
