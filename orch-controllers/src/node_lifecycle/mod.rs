//! Node lifecycle: notices nodes that fell silent, marks them and their pods, taints nodes by their conditions, and
//! evicts the pods that do not tolerate it.
//!
//! [`NodeLifecycleController`] watches Leases and node status: nothing is polled, each node is looked at when it says
//! something and when its grace period is over. [`TaintEvictionController`] deletes pods from nodes with `NoExecute`
//! taints, at once or when their `tolerationSeconds` are over.
//!
//! Not there yet: upstream slows evictions down while a large part of a zone is silent.

mod evict;
mod health;
mod taints;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use orch_core::conditions;
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::events::{self, EventRecorder, EventType};
use orch_core::informer::{Event, Informer, Informers};
use orch_core::key::NamespacedName;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::pods;
pub use evict::TaintEvictionController;
use health::{Heard, Pulse};

/// The name under which events are recorded.
pub const COMPONENT: &str = "node-controller";

const LEASES: &str = "kube-node-lease";

/// Marks nodes by their health.
pub struct NodeLifecycleController {
    client: Client,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
    grace: Duration,
    start_grace: Duration,
    /// When each node was last heard, by our own clock: those of the nodes may be off.
    heard: Mutex<HashMap<NamespacedName, Heard>>,
}

impl std::fmt::Debug for NodeLifecycleController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeLifecycleController")
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

impl NodeLifecycleController {
    /// A controller that calls a node unreachable once it was silent for 40 seconds, or 60 if it never said anything.
    pub fn new(informers: &Informers, recorder: EventRecorder) -> Self {
        NodeLifecycleController {
            client: informers.client().clone(),
            nodes: informers.get(),
            leases: informers.get_with("node-leases", |builder| {
                builder.modify(|lease: &mut Lease| lease.metadata.owner_references = None)
            }),
            pods: pods::informer_by_node(informers),
            recorder,
            grace: Duration::from_secs(40),
            start_grace: Duration::from_secs(60),
            heard: Mutex::default(),
        }
    }

    /// How long a node may be silent. Default 40 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long a node may take to say something for the first time. Default 60 s.
    #[must_use]
    pub fn start_grace(mut self, grace: Duration) -> Self {
        self.start_grace = grace;
        self
    }

    async fn sync(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        let Some(node) = self.nodes.get(key) else {
            self.heard.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let silent_at = self.silent_at(key, &node);
        let silent = silent_at <= Instant::now();
        let node = match silent {
            true => self.call_unknown(node).await?,
            false => node,
        };
        let node = self.taint(&node).await?;
        if !is_ready(&node) {
            self.mark_pods(&node).await?;
        }
        Ok(match silent {
            true => Outcome::Done,
            false => Outcome::RequeueAfter(silent_at.duration_since(Instant::now())),
        })
    }

    /// When the node counts as silent, should it say nothing more.
    fn silent_at(&self, key: &NamespacedName, node: &Node) -> Instant {
        let lease = self.leases.get(&NamespacedName::new(LEASES, key.name()));
        let pulse = Pulse::of(node, lease.as_deref());
        let mut heard = self.heard.lock();
        let heard = heard.entry(key.clone()).or_insert_with(|| {
            self.tell_registered(node);
            Heard::now(pulse.clone())
        });
        heard.update(pulse);
        let grace = if health::ever_reported(node) {
            self.grace
        } else {
            self.start_grace
        };
        heard.at() + grace
    }

    /// This controller has not seen the node since it started.
    fn tell_registered(&self, node: &Node) {
        let name = node.name_any();
        let message = format!("Node {name} event: Registered Node {name} in Controller");
        let about = events::reference(node);
        self.recorder
            .event(&about, EventType::Normal, "RegisteredNode", message);
    }

    /// The conditions of a silent node are unknown.
    async fn call_unknown(&self, node: Arc<Node>) -> Result<Arc<Node>, ReconcileError> {
        let Some(silent) = health::silent(&node) else {
            return Ok(node);
        };
        let nodes: Api<Node> = Api::all(self.client.clone());
        let silent = nodes
            .replace_status(&node.name_any(), &PostParams::default(), &silent)
            .await?;
        let name = node.name_any();
        if is_ready(&node) {
            let message = format!("Node {name} status is now: NodeNotReady");
            self.recorder.event(
                &events::reference(&*node),
                EventType::Normal,
                "NodeNotReady",
                message,
            );
        }
        tracing::info!(node = name, "node fell silent");
        Ok(Arc::new(silent))
    }

    async fn taint(&self, node: &Arc<Node>) -> Result<Arc<Node>, ReconcileError> {
        let Some(taints) = taints::wanted(node, &conditions::now()) else {
            return Ok(Arc::clone(node));
        };
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let patched = nodes
            .patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(Arc::new(patched))
    }

    /// Pods on a node that is not ready are not, so that Services leave them out.
    async fn mark_pods(&self, node: &Node) -> Result<(), ReconcileError> {
        for pod in pods::on_node(&self.pods, &node.name_any()) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let api: Api<Pod> = Api::namespaced(
                self.client.clone(),
                pod.namespace().as_deref().unwrap_or_default(),
            );
            let now = conditions::now();
            let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": now});
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [ready]}});
            let patched = api
                .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
                .await;
            match patched {
                Ok(_) => {}
                Err(error) if pods::is_gone_or_changed(&error) => continue,
                Err(error) => return Err(error.into()),
            }
            let about = events::reference(&*pod);
            self.recorder
                .event(&about, EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions::is_true(conditions.unwrap_or_default(), "Ready")
}

#[async_trait]
impl Controller for NodeLifecycleController {
    fn name(&self) -> &str {
        "node-lifecycle"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.nodes);
        // A pod that says it is ready on a node that is not: its last words came late.
        watches.mapped(&self.pods, |event| {
            let Event::Applied { old, new } = event else {
                return None;
            };
            let newly = pods::is_ready(new) && !old.as_ref().is_some_and(|old| pods::is_ready(old));
            let node = pods::node_name(new);
            (newly && !node.is_empty()).then(|| NamespacedName::cluster(node))
        });
        watches.mapped(&self.leases, |event| {
            let lease = event
                .object()
                .filter(|lease| lease.metadata.namespace.as_deref() == Some(LEASES));
            lease.map(|lease| NamespacedName::cluster(&lease.name_any()))
        });
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        self.sync(key).await
    }
}
