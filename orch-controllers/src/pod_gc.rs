//! Removes pods that nobody else can, and old ones that are too many.
//!
//! Upstream's rules, but driven by events where upstream looks every 20 seconds:
//! - A pod whose node has been missing for 40 seconds, which the API server must confirm, is marked as failed by
//!   disruption and deleted.
//! - A pod that is being deleted and was never bound to a node is marked as failed and deleted; so is one on a node
//!   that is not ready and has the taint `node.kubernetes.io/out-of-service`.
//! - Of the pods that ran to their end 12500 are kept: evicted ones go first, then the oldest.
//!
//! All are deleted without grace, since no agent is there to confirm their end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use orch_core::conditions;
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::informer::{Event, Informer, Informers};
use orch_core::key::NamespacedName;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::pods;

/// How long a node must have been missing.
const QUARANTINE: Duration = Duration::from_secs(40);

/// How many pods that ran to their end are kept.
const TERMINATED: usize = 12500;

/// The taint of a node that was shut down without its agent's doing.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Pods that ran to their end.
const ENDED: &str = "ended";

/// The pod garbage collector.
pub struct PodGcController {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    quarantine: Duration,
    terminated: usize,
    missing_since: Mutex<HashMap<String, Instant>>,
}

impl std::fmt::Debug for PodGcController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodGcController").finish_non_exhaustive()
    }
}

/// What a key of the queue means: pods have a namespace, nodes have none, and the empty key stands for all that ended.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Ended,
    Node(&'a str),
    Pod,
}

impl<'a> Target<'a> {
    fn of(key: &'a NamespacedName) -> Self {
        match (key.namespace(), key.name()) {
            ("", "") => Target::Ended,
            ("", node) => Target::Node(node),
            _ => Target::Pod,
        }
    }
}

impl PodGcController {
    /// A controller that reads these informers and writes through their client.
    pub fn new(informers: &Informers) -> Self {
        let pods = pods::informer_by_node(informers);
        pods.add_index(ENDED, |pod: &Pod| match pods::is_terminal(pod) {
            true => vec![String::new()],
            false => Vec::new(),
        });
        Self {
            client: informers.client().clone(),
            nodes: informers.get(),
            pods,
            quarantine: QUARANTINE,
            terminated: TERMINATED,
            missing_since: Mutex::default(),
        }
    }

    /// How long a node must have been missing. Default 40 seconds.
    #[must_use]
    pub fn quarantine(mut self, quarantine: Duration) -> Self {
        self.quarantine = quarantine;
        self
    }

    /// How many pods that ran to their end are kept. Default 12500; 0 keeps all of them.
    #[must_use]
    pub fn terminated_pod_threshold(mut self, threshold: usize) -> Self {
        self.terminated = threshold;
        self
    }

    /// How long a missing node has still to be missing; `None` once it has been long enough.
    fn still_to_wait(&self, node: &str) -> Option<Duration> {
        let mut missing = self.missing_since.lock();
        let since = *missing.entry(node.to_owned()).or_insert_with(Instant::now);
        self.quarantine
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())
    }

    async fn of_node(&self, name: &str) -> Result<Outcome, ReconcileError> {
        let bound = pods::on_node(&self.pods, name);
        let node = self.nodes.get(&NamespacedName::cluster(name));
        if node.is_some() || bound.is_empty() {
            self.missing_since.lock().remove(name);
        }
        match node {
            Some(node) if is_out_of_service(&node) => {
                for pod in bound.iter().filter(|pod| is_being_deleted(pod)) {
                    self.remove(pod, None).await?;
                }
                Ok(Outcome::Done)
            }
            None if !bound.is_empty() => self.orphans(name, &bound).await,
            _ => Ok(Outcome::Done),
        }
    }

    async fn orphans(&self, node: &str, orphans: &[Arc<Pod>]) -> Result<Outcome, ReconcileError> {
        if let Some(left) = self.still_to_wait(node) {
            return Ok(Outcome::RequeueAfter(left));
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        if nodes.get_metadata_opt(node).await?.is_some() {
            return Ok(Outcome::Done);
        }
        for pod in orphans {
            self.remove(pod, Some("PodGC: node no longer exists")).await?;
        }
        Ok(Outcome::Done)
    }

    async fn of_pod(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        if let Some(pod) = self.pods.get(key).filter(|pod| is_unbound_and_deleted(pod)) {
            self.remove(&pod, None).await?;
        }
        Ok(Outcome::Done)
    }

    async fn of_ended(&self) -> Result<Outcome, ReconcileError> {
        let ended = self.pods.by_index(ENDED, "");
        for pod in surplus(ended, self.terminated) {
            self.remove(&pod, None).await?;
        }
        Ok(Outcome::Done)
    }

    /// Marks a pod as failed, unless it has ended, and deletes it. `disruption` says why, if that is a disruption.
    async fn remove(&self, pod: &Pod, disruption: Option<&str>) -> Result<(), ReconcileError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        if !pods::is_terminal(pod) {
            let mut status = json!({"phase": "Failed"});
            if let Some(message) = disruption {
                status["conditions"] = json!([{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": message, "lastTransitionTime": conditions::now(),
                }]);
            }
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
            let marked = api
                .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
                .await;
            unless_gone(marked)?;
        }
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(kube::api::Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        unless_gone(api.delete(&pod.name_any(), &parameters).await)
    }
}

fn unless_gone<T>(result: kube::Result<T>) -> Result<(), ReconcileError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if pods::is_gone_or_changed(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_being_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_unbound_and_deleted(pod: &Pod) -> bool {
    is_being_deleted(pod) && pods::node_name(pod).is_empty()
}

fn is_evicted(pod: &Pod) -> bool {
    let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
    pods::phase(pod) == "Failed" && reason == Some("Evicted")
}

fn is_out_of_service(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref());
    !conditions::is_true(conditions.unwrap_or_default(), "Ready")
        && taints
            .unwrap_or_default()
            .iter()
            .any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Those beyond `threshold`: evicted ones first, then the oldest.
fn surplus(mut ended: Vec<Arc<Pod>>, threshold: usize) -> Vec<Arc<Pod>> {
    if threshold == 0 || ended.len() <= threshold {
        return Vec::new();
    }
    ended.sort_by_cached_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!is_evicted(pod), created, pod.name_any())
    });
    ended.truncate(ended.len() - threshold);
    ended
}

/// The keys that a change of a pod makes worth a look.
fn keys(nodes: &Informer<Node>, event: &Event<Pod>) -> Vec<NamespacedName> {
    let Event::Applied { old, new: pod } = event else {
        return Vec::new();
    };
    let mut keys = Vec::new();
    if is_unbound_and_deleted(pod) {
        keys.push(NamespacedName::of(&**pod));
    }
    let node = NamespacedName::cluster(pods::node_name(pod));
    if !node.name().is_empty() && (is_being_deleted(pod) || nodes.get(&node).is_none()) {
        keys.push(node);
    }
    if pods::is_terminal(pod) && !old.as_ref().is_some_and(|old| pods::is_terminal(old)) {
        keys.push(NamespacedName::cluster(""));
    }
    keys
}

#[async_trait]
impl Controller for PodGcController {
    fn name(&self) -> &str {
        "podgc"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.nodes);
        let nodes = self.nodes.clone();
        watches.mapped(&self.pods, move |event| keys(&nodes, event));
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        match Target::of(key) {
            Target::Ended => self.of_ended().await,
            Target::Node(name) => self.of_node(name).await,
            Target::Pod => self.of_pod(key).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, created: &str, reason: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "status": {"phase": "Failed", "reason": reason},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn evicted_and_then_old_pods_are_too_many() {
        let ended = vec![
            pod("new", "2026-01-03T00:00:00Z", ""),
            pod("b", "2026-01-01T00:00:00Z", ""),
            pod("a", "2026-01-01T00:00:00Z", ""),
            pod("evicted", "2026-01-04T00:00:00Z", "Evicted"),
        ];
        let names = |threshold| {
            let surplus = surplus(ended.clone(), threshold);
            surplus.iter().map(|pod| pod.name_any()).collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["evicted", "a", "b"]);
        assert_eq!(names(3), ["evicted"]);
        assert!(names(4).is_empty());
        assert!(names(0).is_empty(), "0 keeps all");
    }

    #[test]
    fn keys_of_pods_nodes_and_the_ended_differ() {
        assert_eq!(Target::of(&NamespacedName::cluster("")), Target::Ended);
        assert_eq!(Target::of(&NamespacedName::cluster("n1")), Target::Node("n1"));
        assert_eq!(Target::of(&NamespacedName::new("ns", "p")), Target::Pod);
    }
}
