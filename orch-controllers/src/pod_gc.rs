//! Removes pods that nobody else can: those bound to a node that no longer exists.
//!
//! Upstream's rules: a node must have been missing for 40 seconds, and the API server must confirm it; the pod is marked
//! as failed by disruption and deleted without grace, since no agent is left to confirm its end.

use std::collections::HashMap;
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

/// Pods by the node they are bound to.
const NODE: &str = "node";

/// The pod garbage collector.
pub struct PodGcController {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    quarantine: Duration,
    missing_since: Mutex<HashMap<String, Instant>>,
}

impl std::fmt::Debug for PodGcController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodGcController").finish_non_exhaustive()
    }
}

impl PodGcController {
    /// A controller that reads these informers and writes through their client.
    pub fn new(informers: &Informers) -> Self {
        let pods = pods::informer(informers);
        pods.add_index(NODE, |pod: &Pod| {
            pod.spec
                .iter()
                .filter_map(|spec| spec.node_name.clone())
                .collect()
        });
        Self {
            client: informers.client().clone(),
            nodes: informers.get(),
            pods,
            quarantine: QUARANTINE,
            missing_since: Mutex::default(),
        }
    }

    /// How long a node must have been missing. Default 40 seconds.
    #[must_use]
    pub fn quarantine(mut self, quarantine: Duration) -> Self {
        self.quarantine = quarantine;
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

    async fn remove(&self, pod: &Pod) -> Result<(), ReconcileError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if !matches!(phase, Some("Succeeded" | "Failed")) {
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": conditions::now(),
            });
            let patch = json!({
                "metadata": {"uid": pod.uid()},
                "status": {"phase": "Failed", "conditions": [condition]},
            });
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

#[async_trait]
impl Controller for PodGcController {
    fn name(&self) -> &str {
        "podgc"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.nodes);
        let nodes = self.nodes.clone();
        watches.mapped(&self.pods, move |event| {
            let Event::Applied { new: pod, .. } = event else {
                return None;
            };
            let node = pod
                .spec
                .as_ref()?
                .node_name
                .as_deref()
                .filter(|node| !node.is_empty())?;
            let key = NamespacedName::cluster(node);
            nodes.get(&key).is_none().then_some(key)
        });
    }

    /// The key is a node's name.
    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        let orphans = self.pods.by_index(NODE, key.name());
        if self.nodes.get(key).is_some() || orphans.is_empty() {
            self.missing_since.lock().remove(key.name());
            return Ok(Outcome::Done);
        }
        if let Some(left) = self.still_to_wait(key.name()) {
            return Ok(Outcome::RequeueAfter(left));
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        if nodes.get_metadata_opt(key.name()).await?.is_some() {
            return Ok(Outcome::Done);
        }
        for pod in orphans {
            self.remove(&pod).await?;
        }
        Ok(Outcome::Done)
    }
}
