//! Deployment: replaces the pods of one template by those of the next, a few at a time.
//!
//! Upstream's rules: a ReplicaSet a template, told apart by `pod-template-hash`; rolling update within `maxSurge` and
//! `maxUnavailable`, or `Recreate`; a change of size in mid-rollout is shared in proportion; history in annotations for
//! `kubectl rollout undo`; progress and its deadline as conditions.

mod revision;
mod rollout;
mod status;
mod template;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::events::{self, EventRecorder, EventType};
use orch_core::informer::{Event, Informer, Informers};
use orch_core::key::NamespacedName;
use orch_core::owner;
use orch_core::selector::LabelSelector;
use serde_json::json;

use crate::adoption::{self, Claimant};
use crate::pods;
use rollout::{Limits, Resize};
use template::Sets;

/// The Deployment controller.
pub struct DeploymentController {
    client: Client,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
}

/// A Deployment in one pass, with what the pass learnt about its status.
struct Pass<'a> {
    deployment: &'a Deployment,
    limits: Limits,
    sets: Sets,
    status: DeploymentStatus,
    /// The Deployment's, as the pass's own writes leave it.
    metadata: ObjectMeta,
}

impl std::fmt::Debug for DeploymentController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeploymentController").finish_non_exhaustive()
    }
}

impl DeploymentController {
    /// A controller that reads these informers and writes through their client.
    pub fn new(informers: &Informers, recorder: EventRecorder) -> Self {
        Self {
            client: informers.client().clone(),
            deployments: informers.get(),
            sets: informers.get(),
            pods: pods::informer(informers),
            recorder,
        }
    }

    fn api<K>(&self, object: &impl ResourceExt) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }

    /// The ReplicaSets of a Deployment: adopts and releases on the way.
    async fn claim(
        &self,
        deployment: &Deployment,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<ReplicaSet>>, ReconcileError> {
        let uid = deployment.uid().unwrap_or_default();
        let candidates = self
            .sets
            .list_namespace(&deployment.namespace().unwrap_or_default());
        let deleting = deployment.metadata.deletion_timestamp.is_some();
        let claims = Claimant { uid: &uid, deleting }
            .sort(candidates, |meta| selector.matches_option(meta.labels.as_ref()));
        let api = self.api::<ReplicaSet>(deployment);
        let mut owned = claims.owned;
        if !claims.adopt.is_empty() {
            // The cache may not know yet that this Deployment is being deleted; such a one must not adopt.
            let fresh = self
                .api::<Deployment>(deployment)
                .get(&deployment.name_any())
                .await?;
            if fresh.uid() != deployment.uid() || fresh.metadata.deletion_timestamp.is_some() {
                return Err(format!(
                    "Deployment {} has just been deleted: adopts nothing",
                    fresh.name_any()
                )
                .into());
            }
        }
        let reference = owner::new_controller_ref(deployment);
        let adopt = claims.adopt.iter().zip(std::iter::repeat(reference.as_ref()));
        let adopt = adopt.filter_map(|(set, reference)| Some((set, adopting(set, reference?))));
        let release = claims.release.iter().map(|set| (set, releasing(set, &uid)));
        for (set, patch) in adopt.chain(release) {
            match api
                .patch(&set.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(changed) if owner::is_controlled_by(&changed.metadata, &uid) => {
                    owned.push(Arc::new(changed))
                }
                Ok(_) => {}
                Err(error) if pods::is_gone_or_changed(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(owned)
    }

    /// Makes sure that the ReplicaSet of the current template exists and carries the newest revision.
    async fn ensure_new(&self, pass: &mut Pass<'_>) -> Result<(), ReconcileError> {
        let revision = revision::next(&pass.sets);
        let name = match pass.sets.new.clone() {
            Some(new) => self.refresh_new(pass, &new, revision).await?,
            None => self.create_new(pass, revision).await?,
        };
        let current = revision::of(
            pass.sets
                .new
                .as_ref()
                .and_then(|new| new.metadata.annotations.as_ref()),
        );
        let list = pass.status.conditions.get_or_insert_default();
        status::note_new_set(list, &name.0, name.1, Timestamp::now());
        self.annotate_deployment(pass, current).await
    }

    /// Writes revision, annotations and minReadySeconds on an existing ReplicaSet, when they differ.
    async fn refresh_new(
        &self,
        pass: &mut Pass<'_>,
        new: &Arc<ReplicaSet>,
        revision: i64,
    ) -> Result<(String, bool), ReconcileError> {
        let mut changed = (**new).clone();
        let annotated = revision::annotate(pass.deployment, revision, &mut changed);
        let min_ready = pass.deployment.spec.min_ready_seconds;
        let spec = &mut changed.spec;
        let min_ready_changed = spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0);
        spec.min_ready_seconds = min_ready;
        if annotated || min_ready_changed {
            let api = self.api::<ReplicaSet>(pass.deployment);
            pass.sets.new = Some(Arc::new(
                api.replace(&new.name_any(), &PostParams::default(), &changed)
                    .await?,
            ));
        }
        Ok((new.name_any(), false))
    }

    async fn create_new(&self, pass: &mut Pass<'_>, revision: i64) -> Result<(String, bool), ReconcileError> {
        let hash = template::hash(&pass.deployment.spec.template, pass.status.collision_count);
        let replicas = rollout::new_replicas(&pass.limits, &pass.sets);
        let mut set = template::new_replica_set(pass.deployment, &hash, revision, replicas);
        let annotations = set.metadata.annotations.get_or_insert_default();
        revision::set_sizes(annotations, pass.limits.replicas, pass.limits.max_total());
        let (name, api) = (set.name_any(), self.api::<ReplicaSet>(pass.deployment));
        match api.create(&PostParams::default(), &set).await {
            Ok(created) => {
                pass.sets.new = Some(Arc::new(created));
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.event(
                        &events::reference(pass.deployment),
                        EventType::Normal,
                        "ScalingReplicaSet",
                        message,
                    );
                }
                Ok((name, true))
            }
            Err(kube::Error::Api(error)) if error.code == 409 => self.meet_existing(pass, &api, name).await,
            Err(error) => {
                let list = pass.status.conditions.get_or_insert_default();
                status::note_create_error(list, &error.to_string(), Timestamp::now());
                let message = format!("Failed to create new replica set \"{name}\": {error}");
                self.recorder.event(
                    &events::reference(pass.deployment),
                    EventType::Warning,
                    "ReplicaSetCreateError",
                    message,
                );
                self.write_status(pass, pass.status.clone()).await?;
                Err(error.into())
            }
        }
    }

    /// A ReplicaSet of that name exists: ours, when the cache was behind; else another template has the same hash, and
    /// the next try uses another one.
    async fn meet_existing(
        &self,
        pass: &mut Pass<'_>,
        api: &Api<ReplicaSet>,
        name: String,
    ) -> Result<(String, bool), ReconcileError> {
        let existing = api.get(&name).await?;
        let uid = pass.deployment.uid().unwrap_or_default();
        let template = existing.spec.template.as_ref();
        let same = template.is_some_and(|template| template::equal(template, &pass.deployment.spec.template));
        if same && owner::is_controlled_by(&existing.metadata, &uid) {
            pass.sets.new = Some(Arc::new(existing));
            return Ok((name, false));
        }
        let collisions = pass.status.collision_count.get_or_insert_default();
        *collisions += 1;
        self.write_status(pass, pass.status.clone()).await?;
        Err(format!("hash collision: replica set {name} has another template").into())
    }

    async fn annotate_deployment(&self, pass: &mut Pass<'_>, revision: i64) -> Result<(), ReconcileError> {
        let deployment = pass.deployment;
        if revision::of(deployment.metadata.annotations.as_ref()) == revision {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "resourceVersion": pass.metadata.resource_version,
            "annotations": {revision::REVISION: revision.to_string()},
        }});
        let api = self.api::<Deployment>(deployment);
        let annotated = api
            .patch_metadata(
                &deployment.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await?;
        pass.metadata = annotated.metadata;
        Ok(())
    }

    /// Carries out resizes, each guarded by the ReplicaSet's resourceVersion: a size is decided on what was seen.
    async fn resize(&self, pass: &mut Pass<'_>, resizes: Vec<Resize>) -> Result<bool, ReconcileError> {
        let changed = !resizes.is_empty();
        for Resize { set, replicas } in resizes {
            let before = rollout::wanted(&set);
            let mut annotations = set.metadata.annotations.clone().unwrap_or_default();
            revision::set_sizes(&mut annotations, pass.limits.replicas, pass.limits.max_total());
            let patch = json!({
                "metadata": {"resourceVersion": set.resource_version(), "annotations": annotations},
                "spec": {"replicas": replicas},
            });
            let api = self.api::<ReplicaSet>(pass.deployment);
            let resized = api
                .patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await?;
            let direction = if replicas > before { "up" } else { "down" };
            let message = format!(
                "Scaled {direction} replica set {} from {before} to {replicas}",
                set.name_any()
            );
            self.recorder.event(
                &events::reference(pass.deployment),
                EventType::Normal,
                "ScalingReplicaSet",
                message,
            );
            pass.replace(&Arc::new(resized));
        }
        Ok(changed)
    }

    /// Keeps the noted size on ReplicaSets that need no resizing, so that the next pass does not take it for a change.
    async fn note_sizes(&self, pass: &mut Pass<'_>) -> Result<(), ReconcileError> {
        let active: Vec<_> = pass
            .sets
            .all()
            .filter(|set| rollout::wanted(set) > 0)
            .cloned()
            .collect();
        for set in active {
            let mut annotations = set.metadata.annotations.clone().unwrap_or_default();
            if revision::set_sizes(&mut annotations, pass.limits.replicas, pass.limits.max_total()) {
                let patch = json!({
                    "metadata": {"resourceVersion": set.resource_version(), "annotations": annotations},
                });
                let api = self.api::<ReplicaSet>(pass.deployment);
                let noted = api
                    .patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                    .await?;
                pass.replace(&Arc::new(noted));
            }
        }
        Ok(())
    }

    async fn roll(&self, pass: &mut Pass<'_>) -> Result<(), ReconcileError> {
        self.ensure_new(pass).await?;
        let grow: Vec<_> = rollout::grow_new(&pass.limits, &pass.sets).into_iter().collect();
        if self.resize(pass, grow).await? {
            return Ok(());
        }
        let shrink = rollout::shrink_old(&pass.limits, &pass.sets);
        self.resize(pass, shrink).await?;
        Ok(())
    }

    async fn recreate(&self, pass: &mut Pass<'_>) -> Result<(), ReconcileError> {
        let active = pass.sets.old.iter().filter(|set| rollout::wanted(set) > 0);
        let down: Vec<_> = active
            .map(|set| Resize {
                set: Arc::clone(set),
                replicas: 0,
            })
            .collect();
        if self.resize(pass, down).await? || self.old_pods_run(&pass.sets) {
            return Ok(());
        }
        self.ensure_new(pass).await?;
        let grow: Vec<_> = rollout::grow_new(&pass.limits, &pass.sets).into_iter().collect();
        self.resize(pass, grow).await?;
        Ok(())
    }

    fn old_pods_run(&self, sets: &Sets) -> bool {
        let pods = sets
            .old
            .iter()
            .flat_map(|set| pods::controlled_by(&self.pods, &set.uid().unwrap_or_default()));
        pods.into_iter().any(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        })
    }

    async fn clean_up(&self, pass: &Pass<'_>, status: &DeploymentStatus) -> Result<(), ReconcileError> {
        let limit = pass.deployment.spec.revision_history_limit;
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return Ok(());
        };
        if !status::is_complete(pass.deployment, status, &pass.limits) {
            return Ok(());
        }
        for set in rollout::expired(&pass.sets, limit) {
            let preconditions = Preconditions {
                uid: set.uid(),
                resource_version: set.resource_version(),
            };
            let parameters = DeleteParams {
                preconditions: Some(preconditions),
                ..DeleteParams::background()
            };
            let deleted = self
                .api::<ReplicaSet>(pass.deployment)
                .delete(&set.name_any(), &parameters)
                .await;
            if let Err(error) = deleted.map(drop)
                && !pods::is_gone_or_changed(&error)
            {
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn write_status(&self, pass: &Pass<'_>, status: DeploymentStatus) -> Result<(), ReconcileError> {
        let deployment = pass.deployment;
        if deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = deployment.clone();
        changed.status = Some(status);
        // A status update carries the metadata too: written blindly, a stale copy would take finalizers off.
        changed.metadata.clone_from(&pass.metadata);
        let api = self.api::<Deployment>(deployment);
        api.replace_status(&deployment.name_any(), &PostParams::default(), &changed)
            .await?;
        Ok(())
    }

    async fn advance(&self, pass: &mut Pass<'_>) -> Result<(), ReconcileError> {
        let paused = pass.deployment.spec.paused.unwrap_or(false);
        let list = pass.status.conditions.get_or_insert_default();
        status::note_pause(list, paused, Timestamp::now());
        if paused || rollout::is_scaling(&pass.limits, &pass.sets) {
            let resizes = rollout::scale(&pass.limits, &pass.sets);
            self.resize(pass, resizes).await?;
            return self.note_sizes(pass).await;
        }
        if pass.limits.recreate {
            self.recreate(pass).await
        } else {
            self.roll(pass).await
        }
    }
}

impl Pass<'_> {
    fn replace(&mut self, set: &Arc<ReplicaSet>) {
        let name = set.name_any();
        for slot in self.sets.new.iter_mut().chain(&mut self.sets.old) {
            if slot.name_any() == name {
                *slot = Arc::clone(set);
            }
        }
    }
}

fn adopting(
    set: &ReplicaSet,
    reference: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
) -> serde_json::Value {
    adoption::adopting(reference, &set.uid().unwrap_or_default())
}

fn releasing(set: &ReplicaSet, uid: &str) -> serde_json::Value {
    adoption::releasing(uid, &set.uid().unwrap_or_default())
}

#[async_trait]
impl Controller for DeploymentController {
    fn name(&self) -> &str {
        "deployment"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.deployments);
        watches.owned(&self.sets, "apps", "Deployment");
        let deployments = self.deployments.clone();
        watches.mapped(&self.sets, move |event| orphans_owners(&deployments, event));
        // `Recreate` waits for the last old pod to go.
        let sets = self.sets.clone();
        watches.mapped(&self.pods, move |event| {
            let Event::Deleted(pod) = event else { return None };
            let namespace = pod.namespace().unwrap_or_default();
            let set = owner::controller_name(&pod.metadata, "apps", "ReplicaSet")?;
            let set = sets.get(&NamespacedName::new(&namespace, set))?;
            let deployment = owner::controller_name(&set.metadata, "apps", "Deployment")?;
            Some(NamespacedName::new(&namespace, deployment))
        });
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        let Some(deployment) = self.deployments.get(key) else {
            return Ok(Outcome::Done);
        };
        let selector = LabelSelector::from_api(&deployment.spec.selector)?;
        let owned = self.claim(&deployment, &selector).await?;
        let mut pass = Pass {
            deployment: &deployment,
            limits: Limits::of(&deployment),
            sets: Sets::of(&deployment, owned),
            status: deployment.status.clone().unwrap_or_default(),
            metadata: deployment.metadata.clone(),
        };
        if deployment.metadata.deletion_timestamp.is_none() {
            self.advance(&mut pass).await?;
        }
        let mut judged = (*deployment).clone();
        let before = judged.status.get_or_insert_default();
        before.conditions = pass.status.conditions.clone();
        let report = status::report(&judged, &pass.sets, pass.status.collision_count, Timestamp::now());
        self.clean_up(&pass, &report.status).await?;
        self.write_status(&pass, report.status).await?;
        Ok(report.again_in.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

/// A ReplicaSet without a controller concerns every Deployment whose selector matches it: one of them may adopt it.
fn orphans_owners(deployments: &Informer<Deployment>, event: &Event<ReplicaSet>) -> Vec<NamespacedName> {
    let Event::Applied { new: set, .. } = event else {
        return Vec::new();
    };
    if owner::controller_of(&set.metadata).is_some() || set.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let candidates = deployments.list_namespace(&set.namespace().unwrap_or_default());
    let matching = candidates.iter().filter(|deployment| {
        LabelSelector::from_api(&deployment.spec.selector)
            .is_ok_and(|selector| selector.matches_option(set.metadata.labels.as_ref()))
    });
    matching
        .map(|deployment| NamespacedName::of(&**deployment))
        .collect()
}
