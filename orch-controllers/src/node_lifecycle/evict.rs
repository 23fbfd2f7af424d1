//! Deleting pods from nodes whose taints they do not tolerate.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use orch_core::conditions;
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::events::{self, EventRecorder, EventType};
use orch_core::informer::{Event, Informer, Informers};
use orch_core::key::NamespacedName;
use serde_json::json;

use super::taints::{Leave, when_to_leave};
use crate::pods;

/// Evicts pods by taints.
pub struct TaintEvictionController {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
}

impl std::fmt::Debug for TaintEvictionController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaintEvictionController").finish_non_exhaustive()
    }
}

impl TaintEvictionController {
    /// The name under which events are recorded.
    pub const COMPONENT: &str = "taint-eviction-controller";

    /// A controller that reads `informers` and writes through their client.
    pub fn new(informers: &Informers, recorder: EventRecorder) -> Self {
        TaintEvictionController {
            client: informers.client().clone(),
            nodes: informers.get(),
            pods: pods::informer_by_node(informers),
            recorder,
        }
    }

    async fn evict(&self, key: &NamespacedName, pod: &Pod) -> Result<(), ReconcileError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), key.namespace());
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.event(
            &events::reference(pod),
            EventType::Normal,
            "TaintManagerEviction",
            message,
        );
        let disruption = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": conditions::now(),
        });
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [disruption]}});
        let patched = api
            .patch_status(key.name(), &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        });
        let result = match patched {
            Ok(_) => api.delete(key.name(), &params).await.map(drop),
            Err(error) => Err(error),
        };
        match result {
            Err(error) if !pods::is_gone_or_changed(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Controller for TaintEvictionController {
    fn name(&self) -> &str {
        "taint-eviction"
    }

    fn watches(&self, watches: &mut Watches) {
        let is_bound = |pod: &Pod| !pods::node_name(pod).is_empty();
        watches.mapped(&self.pods, move |event| {
            // Pods that a node's taints cannot concern need no look.
            let Event::Applied { old, new } = event else {
                return None;
            };
            let newly = old.as_ref().is_none_or(|old| {
                !is_bound(old)
                    || old.spec.as_ref().map(|s| &s.tolerations) != new.spec.as_ref().map(|s| &s.tolerations)
            });
            (newly && is_bound(new)).then(|| NamespacedName::of(&**new))
        });
        let pods = self.pods.clone();
        watches.mapped(&self.nodes, move |event| {
            let Event::Applied { old, new } = event else {
                return Vec::new();
            };
            let taints = |node: &Node| {
                node.spec
                    .as_ref()
                    .and_then(|spec| spec.taints.clone())
                    .unwrap_or_default()
            };
            let before = old.as_ref().map(|old| taints(old)).unwrap_or_default();
            if before == taints(new) {
                return Vec::new();
            }
            let pods = pods::on_node(&pods, &new.name_any());
            pods.iter().map(|pod| NamespacedName::of(&**pod)).collect()
        });
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Outcome::Done);
        };
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let Some(node) = self.nodes.get(&NamespacedName::cluster(pods::node_name(&pod))) else {
            return Ok(Outcome::Done);
        };
        let taints = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_deref())
            .unwrap_or_default();
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.tolerations.as_deref())
            .unwrap_or_default();
        match when_to_leave(taints, tolerations, Timestamp::now()) {
            Leave::Never => Ok(Outcome::Done),
            Leave::In(wait) => Ok(Outcome::RequeueAfter(wait)),
            Leave::Now => {
                self.evict(key, &pod).await?;
                Ok(Outcome::Done)
            }
        }
    }
}
