//! Namespace: empties a namespace that is being deleted, then lets it go.
//!
//! Upstream's rules: pods go first, since others may still be needed by them; then everything that can be listed and
//! deleted; how far it is stands in the namespace's conditions; when nothing is left, the finalizer `kubernetes` is taken
//! off through the `finalize` subresource.

mod conditions;

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Client, ResourceExt};
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::informer::{Informer, Informers};
use orch_core::key::NamespacedName;

use crate::discovery::{self, Discovered};
use conditions::Progress;

/// The finalizer that stands in every namespace's spec.
const KUBERNETES: &str = "kubernetes";

/// The namespace controller.
pub struct NamespaceController {
    client: Client,
    namespaces: Informer<Namespace>,
}

impl std::fmt::Debug for NamespaceController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamespaceController").finish_non_exhaustive()
    }
}

impl NamespaceController {
    /// A controller that reads these informers and writes through their client.
    pub fn new(informers: &Informers) -> Self {
        Self {
            client: informers.client().clone(),
            namespaces: informers.get(),
        }
    }

    /// Deletes what is in a namespace and tells what is left.
    async fn empty(&self, namespace: &str) -> Progress {
        let mut progress = Progress::default();
        let resources = match discovery::resources(&self.client).await {
            Ok(resources) => resources,
            Err(error) => {
                progress.discovery_failed(&error.to_string());
                return progress;
            }
        };
        let deletable = |found: &&Discovered| found.namespaced && found.can("delete") && found.can("list");
        let is_pods =
            |found: &&Discovered| found.resource.group.is_empty() && found.resource.plural == "pods";
        let (pods, others): (Vec<_>, Vec<_>) = resources.iter().filter(deletable).partition(is_pods);
        for found in pods {
            self.empty_of(namespace, found, &mut progress).await;
        }
        if progress.is_empty() {
            for found in others {
                self.empty_of(namespace, found, &mut progress).await;
            }
        }
        progress
    }

    async fn empty_of(&self, namespace: &str, found: &Discovered, progress: &mut Progress) {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &found.resource);
        let left = match self.left(&api, found, progress).await {
            Some(0) | None => return,
            Some(left) => left,
        };
        tracing::debug!(namespace, resource = found.resource.plural, left, "deleting");
        if let Err(error) = delete_all(&api, found).await {
            progress.deletion_failed(&found.resource, &error.to_string());
        }
        if let Some(left) = self.left(&api, found, progress).await {
            progress.remaining(&found.resource, left);
        }
    }

    /// How many objects of a resource are left; `None` when that could not be seen, which is a failure.
    async fn left(
        &self,
        api: &Api<DynamicObject>,
        found: &Discovered,
        progress: &mut Progress,
    ) -> Option<usize> {
        match api.list_metadata(&ListParams::default()).await {
            Ok(list) => {
                for finalizer in list
                    .items
                    .iter()
                    .flat_map(|item| item.metadata.finalizers.iter().flatten())
                {
                    progress.finalizer(finalizer);
                }
                Some(list.items.len())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => Some(0),
            Err(error) => {
                progress.deletion_failed(&found.resource, &error.to_string());
                None
            }
        }
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), ReconcileError> {
        let mut finalized = namespace.clone();
        let finalizers = finalized
            .spec
            .get_or_insert_default()
            .finalizers
            .get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != KUBERNETES);
        let api: Api<Namespace> = Api::all(self.client.clone());
        let done = api
            .replace_subresource(
                "finalize",
                &namespace.name_any(),
                &PostParams::default(),
                &finalized,
            )
            .await;
        match done {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes how far it is; returns the namespace as it is now, `None` when it is gone.
    async fn write_status(
        &self,
        namespace: &Namespace,
        progress: &Progress,
    ) -> Result<Option<Namespace>, ReconcileError> {
        let mut changed = namespace.clone();
        let status = changed.status.get_or_insert_default();
        status.phase = Some("Terminating".to_owned());
        progress.write(status.conditions.get_or_insert_default());
        if changed.status == namespace.status {
            return Ok(Some(changed));
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        match api
            .replace_status(&namespace.name_any(), &PostParams::default(), &changed)
            .await
        {
            Ok(written) => Ok(Some(written)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

async fn delete_all(api: &Api<DynamicObject>, found: &Discovered) -> kube::Result<()> {
    let background = DeleteParams::background();
    if found.can("deletecollection") {
        return api
            .delete_collection(&background, &ListParams::default())
            .await
            .map(drop);
    }
    for item in api.list_metadata(&ListParams::default()).await? {
        match api.delete(&item.name_any(), &background).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// When to look again at what is left: soon in the beginning, seldom when it takes long.
fn next_look(namespace: &Namespace, now: Timestamp) -> Duration {
    let since = namespace
        .metadata
        .deletion_timestamp
        .as_ref()
        .map_or(0, |time| now.as_second() - time.0.as_second());
    let quarter = Duration::from_secs(u64::try_from(since).unwrap_or_default()) / 4;
    quarter.clamp(Duration::from_millis(100), Duration::from_secs(10))
}

#[async_trait]
impl Controller for NamespaceController {
    fn name(&self) -> &str {
        "namespace"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.namespaces);
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        let Some(namespace) = self.namespaces.get(key) else {
            return Ok(Outcome::Done);
        };
        let finalizers = namespace
            .spec
            .as_ref()
            .and_then(|spec| spec.finalizers.as_deref())
            .unwrap_or_default();
        let ours = finalizers.iter().any(|finalizer| finalizer == KUBERNETES);
        if namespace.metadata.deletion_timestamp.is_none() || !ours {
            return Ok(Outcome::Done);
        }
        let progress = self.empty(key.name()).await;
        let Some(written) = self.write_status(&namespace, &progress).await? else {
            return Ok(Outcome::Done);
        };
        if progress.is_done() {
            self.finalize(&written).await?;
            return Ok(Outcome::Done);
        }
        Ok(Outcome::RequeueAfter(next_look(&namespace, Timestamp::now())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn looks_grow_seldom_with_time() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let mut namespace = Namespace::default();
        namespace.metadata.deletion_timestamp = Some(Time(at(1000)));
        assert_eq!(next_look(&namespace, at(1000)), Duration::from_millis(100));
        assert_eq!(next_look(&namespace, at(1004)), Duration::from_secs(1));
        assert_eq!(next_look(&namespace, at(9000)), Duration::from_secs(10));
    }
}
