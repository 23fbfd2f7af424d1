//! EndpointSlices: the addresses and ports behind each Service, in slices of at most 100, for proxies and DNS to read.

mod desired;
mod diff;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use orch_core::controller::{Controller, Outcome, ReconcileError, Watches};
use orch_core::events::{self, EventRecorder, EventType};
use orch_core::informer::{Event, Informer, Informers};
use orch_core::key::NamespacedName;
use orch_core::owner;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{pods, services};

/// The name under which events are recorded.
pub const COMPONENT: &str = "endpoint-slice-controller";

/// Names the Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Names who writes a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Index of our slices by the key of their Service.
const BY_SERVICE: &str = "service";

const ZONE: &str = "topology.kubernetes.io/zone";

/// Writes the EndpointSlices of Services that have a selector.
pub struct EndpointSliceController {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    recorder: EventRecorder,
    /// Slices created that the informer has not shown: without them the next look would create them again.
    unseen: Mutex<HashMap<NamespacedName, Unseen>>,
}

struct Unseen {
    uids: HashSet<String>,
    since: Instant,
}

impl std::fmt::Debug for EndpointSliceController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointSliceController").finish_non_exhaustive()
    }
}

impl EndpointSliceController {
    /// A controller that reads `informers` and writes through their client.
    pub fn new(informers: &Informers, recorder: EventRecorder) -> Self {
        let slices = informers.get::<EndpointSlice>();
        slices.add_index(BY_SERVICE, |slice| {
            service_of(slice)
                .map(|key| key.as_str().to_owned())
                .into_iter()
                .collect()
        });
        EndpointSliceController {
            client: informers.client().clone(),
            services: informers.get(),
            pods: pods::informer(informers),
            nodes: informers.get(),
            slices,
            recorder,
            unseen: Mutex::default(),
        }
    }

    async fn sync(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        // Slices of a Service that is gone go by their owner reference.
        let Some(service) = self.services.get(key) else {
            self.unseen.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = services::selector(&service) else {
            return Ok(Outcome::Done);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let existing = self.slices.by_index(BY_SERVICE, key.as_str());
        if !self.has_seen_all(key, &existing) {
            return Ok(Outcome::RequeueAfter(Duration::from_secs(1)));
        }
        let mut behind = self.pods.list_namespace(key.namespace());
        behind.retain(|pod| {
            selector.matches_option(pod.metadata.labels.as_ref()) && services::is_candidate(pod, true)
        });
        let groups = desired::groups(&service, &behind, |node| self.zone(node));
        let plan = diff::plan(&existing, groups, &slice_labels(&service));
        self.carry_out(key, &service, plan).await?;
        Ok(Outcome::Done)
    }

    fn zone(&self, node: &str) -> Option<String> {
        let node = self.nodes.get(&NamespacedName::cluster(node))?;
        node.labels().get(ZONE).cloned()
    }

    /// An informer that does not show in half a minute what was created will not: it was deleted meanwhile.
    fn has_seen_all(&self, key: &NamespacedName, existing: &[Arc<EndpointSlice>]) -> bool {
        let mut all = self.unseen.lock();
        let Some(unseen) = all.get_mut(key) else {
            return true;
        };
        for slice in existing {
            if let Some(uid) = &slice.metadata.uid {
                unseen.uids.remove(uid);
            }
        }
        let seen = unseen.uids.is_empty() || unseen.since.elapsed() > Duration::from_secs(30);
        if seen {
            all.remove(key);
        }
        seen
    }

    async fn carry_out(
        &self,
        key: &NamespacedName,
        service: &Service,
        plan: diff::Plan,
    ) -> Result<(), ReconcileError> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), key.namespace());
        let params = PostParams::default();
        for mut slice in plan.create {
            slice.metadata = new_metadata(service);
            match slices.create(&params, &slice).await {
                Ok(created) => self.remember(key, created.metadata.uid),
                Err(error) if pods::is_namespace_terminating(&error) => return Ok(()),
                Err(error) => {
                    return Err(self.failed(service, "FailedToCreateEndpointSlices", "create", error));
                }
            }
        }
        for slice in plan.update {
            let result = slices.replace(&slice.name_any(), &params, &slice).await;
            if let Err(error) = result {
                return Err(self.failed(service, "FailedToUpdateEndpointSlices", "update", error));
            }
        }
        for slice in plan.delete {
            let delete = DeleteParams::default().preconditions(Preconditions {
                uid: slice.metadata.uid.clone(),
                resource_version: None,
            });
            match slices.delete(&slice.name_any(), &delete).await {
                Err(error) if !pods::is_gone_or_changed(&error) => {
                    return Err(self.failed(service, "FailedToDeleteEndpointSlices", "delete", error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn remember(&self, key: &NamespacedName, uid: Option<String>) {
        let mut all = self.unseen.lock();
        let unseen = all.entry(key.clone()).or_insert_with(|| Unseen {
            uids: HashSet::new(),
            since: Instant::now(),
        });
        unseen.uids.extend(uid);
    }

    /// A conflict says that the informer is behind, which is nobody's fault.
    fn failed(&self, service: &Service, reason: &str, verb: &str, error: kube::Error) -> ReconcileError {
        if !pods::is_gone_or_changed(&error) {
            let namespace = service.namespace().unwrap_or_default();
            let message = format!(
                "Error updating Endpoint Slices for Service {namespace}/{}: failed to {verb} EndpointSlice: {error}",
                service.name_any()
            );
            self.recorder
                .event(&events::reference(service), EventType::Warning, reason, message);
        }
        error.into()
    }
}

#[async_trait]
impl Controller for EndpointSliceController {
    fn name(&self) -> &str {
        "endpointslice"
    }

    fn watches(&self, watches: &mut Watches) {
        watches.own(&self.services);
        watches.needs(&self.nodes);
        watches.mapped(&self.slices, |event| {
            event.object().and_then(|slice| service_of(slice))
        });
        let services = self.services.clone();
        watches.mapped(&self.pods, move |event| services_of(&services, event));
    }

    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
        self.sync(key).await
    }
}

/// The Services in front of a pod, now or before.
pub(crate) fn services_of(services: &Informer<Service>, event: &Event<Pod>) -> Vec<NamespacedName> {
    let (old, new) = match event {
        Event::Applied { old, new } => (old.as_ref(), new),
        Event::Deleted(pod) => (None, pod),
        Event::Synced => return Vec::new(),
    };
    if old.is_some_and(|old| !services::matters(old, new)) {
        return Vec::new();
    }
    let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
    let matches = |service: &&Arc<Service>| {
        services::selector(service).is_some_and(|selector| {
            selector.matches_option(new.metadata.labels.as_ref())
                || old.is_some_and(|old| selector.matches_option(old.metadata.labels.as_ref()))
        })
    };
    let services = services.list_namespace(namespace);
    services
        .iter()
        .filter(matches)
        .map(|service| NamespacedName::of(&**service))
        .collect()
}

/// The Service of a slice that is ours.
fn service_of(slice: &EndpointSlice) -> Option<NamespacedName> {
    let labels = slice.labels();
    if labels.get(MANAGED_BY).map(String::as_str) != Some(MANAGER) {
        return None;
    }
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    Some(NamespacedName::new(namespace, labels.get(SERVICE_NAME)?))
}

fn slice_labels(service: &Service) -> std::collections::BTreeMap<String, String> {
    let mut labels = services::labels(service, &[SERVICE_NAME, MANAGED_BY, services::HEADLESS]);
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn new_metadata(service: &Service) -> ObjectMeta {
    ObjectMeta {
        generate_name: Some(format!("{}-", service.name_any())),
        namespace: service.namespace(),
        labels: Some(slice_labels(service)),
        owner_references: owner::new_controller_ref(service).map(|reference| vec![reference]),
        ..ObjectMeta::default()
    }
}
