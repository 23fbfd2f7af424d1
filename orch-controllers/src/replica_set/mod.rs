//! ReplicaSet: keeps as many pods of a template as wanted.
//!
//! Upstream's rules: pods are claimed by selector and controller reference; missing ones are created in batches that
//! double while they succeed; surplus ones are deleted in upstream's order of usefulness; nothing is done while the
//! cache lags behind the controller's own writes.

mod plan;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::events::{self, EventRecorder, EventType};
use orch_core::informer::{Event, Informer, Informers};
use orch_core::key::NamespacedName;
use orch_core::owner;
use orch_core::selector::LabelSelector;

use crate::adoption::{self, Claimant};
use crate::expectations::Expectations;
use crate::pods;
use plan::Step;
use status::Failure;

/// The ReplicaSet controller.
pub struct ReplicaSetController {
    client: Client,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
    expectations: Arc<Expectations>,
}

impl std::fmt::Debug for ReplicaSetController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaSetController").finish_non_exhaustive()
    }
}

impl ReplicaSetController {
    /// A controller that reads these informers and writes through their client.
    pub fn new(informers: &Informers, recorder: EventRecorder) -> Self {
        Self {
            client: informers.client().clone(),
            sets: informers.get(),
            pods: pods::informer(informers),
            recorder,
            expectations: Arc::default(),
        }
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The pods of a set: adopts and releases on the way.
    async fn claim(
        &self,
        set: &ReplicaSet,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let (uid, namespace) = (set.uid().unwrap_or_default(), set.namespace().unwrap_or_default());
        let candidates = pods::candidates(&self.pods, &namespace, &uid);
        let deleting = set.metadata.deletion_timestamp.is_some();
        let claims = Claimant { uid: &uid, deleting }
            .sort(candidates, |meta| selector.matches_option(meta.labels.as_ref()));
        let api = self.api::<Pod>(&namespace);
        let mut owned = claims.owned;
        if !claims.adopt.is_empty() {
            self.confirm_not_deleted(set).await?;
        }
        for pod in claims.adopt {
            let Some(reference) = owner::new_controller_ref(set) else {
                continue;
            };
            let patch = adoption::adopting(&reference, &pod.uid().unwrap_or_default());
            let adopted = api
                .patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
                .await;
            match adopted {
                Ok(pod) => owned.push(Arc::new(pod)),
                Err(error) if pods::is_gone_or_changed(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for pod in claims.release {
            let patch = adoption::releasing(&uid, &pod.uid().unwrap_or_default());
            let released = api
                .patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
                .await;
            if let Err(error) = released.map(drop)
                && !pods::is_gone_or_changed(&error)
            {
                return Err(error.into());
            }
        }
        Ok(owned)
    }

    /// Asks the server, since the cache may not know yet: an owner that is being deleted must not adopt.
    async fn confirm_not_deleted(&self, set: &ReplicaSet) -> Result<(), ReconcileError> {
        let fresh = self
            .api::<ReplicaSet>(&set.namespace().unwrap_or_default())
            .get(&set.name_any())
            .await?;
        if fresh.uid() != set.uid() || fresh.metadata.deletion_timestamp.is_some() {
            return Err(format!(
                "ReplicaSet {} has just been deleted: adopts nothing",
                set.name_any()
            )
            .into());
        }
        Ok(())
    }

    /// Takes the next step; what failed comes back for the status.
    async fn step(&self, key: &NamespacedName, set: &ReplicaSet, active: &[Arc<Pod>]) -> Option<Failure> {
        let wanted = set.spec.replicas.unwrap_or(1);
        let wanted = usize::try_from(wanted).unwrap_or_default();
        let related = if active.len() > wanted {
            self.related_per_node(set)
        } else {
            HashMap::new()
        };
        match plan::next_step(wanted, active.to_vec(), &related, Timestamp::now()) {
            Step::Nothing => None,
            Step::Create(missing) => self.create(key, set, missing).await,
            Step::Delete(surplus) => self.delete(key, set, &surplus).await,
        }
    }

    /// Creates pods in batches of 1, 2, 4 …, and stops after a batch with a failure: a quota that refuses one pod is
    /// not asked five hundred times.
    async fn create(&self, key: &NamespacedName, set: &ReplicaSet, missing: usize) -> Option<Failure> {
        let template = set.spec.template.as_ref()?;
        let pod = plan::pod_from_template(set, template);
        let api = self.api::<Pod>(key.namespace());
        let (mut left, mut doubling) = (missing, 1);
        while left > 0 {
            let size = doubling.min(left);
            let parameters = PostParams::default();
            let batch = self.expectations.batch(key);
            let results = join_all((0..size).map(|_| async {
                let created = api.create(&parameters, &pod).await?;
                batch.created(created.metadata.uid.as_deref().unwrap_or_default());
                Ok(created)
            }))
            .await;
            drop(batch);
            let mut failed = None;
            for result in results {
                match result {
                    Ok(created) => {
                        let message = format!("Created pod: {}", created.name_any());
                        self.recorder.event(
                            &events::reference(set),
                            EventType::Normal,
                            "SuccessfulCreate",
                            message,
                        );
                    }
                    Err(error) if pods::is_namespace_terminating(&error) => return None,
                    Err(error) => {
                        self.recorder.event(
                            &events::reference(set),
                            EventType::Warning,
                            "FailedCreate",
                            format!("Error creating: {error}"),
                        );
                        failed = Some(Failure {
                            reason: "FailedCreate",
                            message: error.to_string(),
                        });
                    }
                }
            }
            if failed.is_some() {
                return failed;
            }
            (left, doubling) = (left - size, size * 2);
        }
        None
    }

    async fn delete(&self, key: &NamespacedName, set: &ReplicaSet, surplus: &[Arc<Pod>]) -> Option<Failure> {
        let api = self.api::<Pod>(key.namespace());
        let batch = self.expectations.batch(key);
        let results = join_all(surplus.iter().map(|pod| {
            let (api, batch) = (&api, &batch);
            async move {
                let parameters = DeleteParams {
                    preconditions: Some(kube::api::Preconditions {
                        uid: pod.uid(),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                let result = api.delete(&pod.name_any(), &parameters).await;
                if result.is_ok() {
                    batch.deleted(pod.metadata.uid.as_deref().unwrap_or_default());
                }
                (pod, result)
            }
        }))
        .await;
        drop(batch);
        let mut failed = None;
        for (pod, result) in results {
            match result {
                Ok(_) => {
                    self.recorder.event(
                        &events::reference(set),
                        EventType::Normal,
                        "SuccessfulDelete",
                        format!("Deleted pod: {}", pod.name_any()),
                    );
                }
                Err(error) if pods::is_gone_or_changed(&error) => {}
                Err(error) => {
                    self.recorder.event(
                        &events::reference(set),
                        EventType::Warning,
                        "FailedDelete",
                        format!("Error deleting: {error}"),
                    );
                    failed = Some(Failure {
                        reason: "FailedDelete",
                        message: error.to_string(),
                    });
                }
            }
        }
        failed
    }

    /// Active pods per node over all sets with the same controller: the Deployment's old and new ones.
    fn related_per_node(&self, set: &ReplicaSet) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        let Some(controller) = owner::controller_of(&set.metadata) else {
            return counts;
        };
        let siblings = self.sets.list_namespace(&set.namespace().unwrap_or_default());
        for sibling in siblings
            .iter()
            .filter(|other| owner::is_controlled_by(&other.metadata, &controller.uid))
        {
            for pod in pods::controlled_by(&self.pods, &sibling.uid().unwrap_or_default()) {
                if let Some(node) = plan::node_name(&pod).filter(|_| plan::is_active(&pod)) {
                    *counts.entry(node.to_owned()).or_default() += 1;
                }
            }
        }
        counts
    }

    async fn write_status(&self, set: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), ReconcileError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = set.clone();
        changed.status = Some(status);
        let api = self.api::<ReplicaSet>(&set.namespace().unwrap_or_default());
        api.replace_status(&set.name_any(), &PostParams::default(), &changed)
            .await?;
        Ok(())
    }
}

#[async_trait]
impl Controller for ReplicaSetController {
    fn name(&self) -> &str {
        "replicaset"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.sets);
        // Before the owner is queued: a worker that takes it at once must not wait for what is gone.
        let (sets, expectations) = (self.sets.clone(), Arc::clone(&self.expectations));
        watches.mapped(&self.pods, move |event| {
            if let Event::Deleted(pod) = event
                && let Some(name) = owner::controller_name(&pod.metadata, "apps", "ReplicaSet")
            {
                let owner = NamespacedName::new(&pod.namespace().unwrap_or_default(), name);
                expectations.gone(&owner, &pod.uid().unwrap_or_default());
            }
            orphans_owners(&sets, event)
        });
        watches.owned(&self.pods, "apps", "ReplicaSet");
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let selector = LabelSelector::from_api(&set.spec.selector)?;
        let uid = set.uid().unwrap_or_default();
        let present = pods::controlled_by(&self.pods, &uid);
        let shown = present.iter().map(|pod| {
            (
                pod.metadata.uid.as_deref().unwrap_or_default(),
                pod.metadata.deletion_timestamp.is_some(),
            )
        });
        let still_to_wait = self.expectations.still_to_wait(key, shown);
        let claimed = self.claim(&set, &selector).await?;
        let (active, ended): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|pod| plan::is_active(pod));
        let terminating = ended
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_some())
            .count();
        let failure = if still_to_wait.is_none() && set.metadata.deletion_timestamp.is_none() {
            self.step(key, &set, &active).await
        } else {
            None
        };
        let report = status::report(&set, &active, terminating, failure.as_ref(), Timestamp::now());
        self.write_status(&set, report.status).await?;
        if let Some(failure) = failure {
            return Err(failure.message.into());
        }
        let again_in = report
            .again_in
            .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default().max(1)));
        // Should the event be lost, nothing else would wake the set.
        let soonest = [again_in, still_to_wait].into_iter().flatten().min();
        Ok(soonest.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

/// A pod without a controller concerns every set whose selector matches it: one of them may adopt it.
fn orphans_owners(sets: &Informer<ReplicaSet>, event: &Event<Pod>) -> Vec<NamespacedName> {
    let Event::Applied { new: pod, .. } = event else {
        return Vec::new();
    };
    if owner::controller_of(&pod.metadata).is_some() || pod.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let candidates = sets.list_namespace(&pod.namespace().unwrap_or_default());
    let matching = candidates.iter().filter(|set| {
        LabelSelector::from_api(&set.spec.selector)
            .is_ok_and(|selector| selector.matches_option(pod.metadata.labels.as_ref()))
    });
    matching.map(|set| NamespacedName::of(&**set)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use orch_api::testkit::TestServer;
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn a_set_whose_events_are_outstanding_is_looked_at_again() {
        let server = TestServer::start().await;
        let sets: Api<ReplicaSet> = Api::default_namespaced(server.client());
        let set = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        let set: ReplicaSet = serde_json::from_value(set).unwrap();
        sets.create(&PostParams::default(), &set).await.unwrap();
        let informers = Informers::new(server.client());
        let controller = ReplicaSetController::new(&informers, EventRecorder::discarding());
        let stop = CancellationToken::new();
        let running = tokio::spawn(informers.clone().run(stop.clone()));
        informers.synced().await;

        let key = NamespacedName::new("default", "web");
        controller.expectations.batch(&key).created("never shown");
        let outcome = controller.reconcile(&key).await.unwrap();
        let Outcome::RequeueAfter(delay) = outcome else {
            panic!("must be looked at again, not {outcome:?}")
        };
        assert!(delay <= Duration::from_secs(300), "{delay:?}");
        let pods: Api<Pod> = Api::default_namespaced(server.client());
        let pods = pods.list(&kube::api::ListParams::default()).await.unwrap();
        assert!(pods.items.is_empty(), "nothing is created meanwhile");
        stop.cancel();
        running.await.unwrap();
    }
}
