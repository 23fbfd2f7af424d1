//! Garbage collector: what is owned goes with its last owner.
//!
//! It watches the metadata of every resource, keeps a graph of owners, and acts on what the server confirms: an owner
//! counts as absent only after the server said so. Background, foreground and orphaning deletion as upstream has them.

mod graph;
mod verdict;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use orch_core::controller::ReconcileError;
use orch_core::owner;
use orch_core::queue::WorkQueue;
use orch_core::ready::Ready;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::discovery::{self, Discovered};
use graph::{FOREGROUND, Graph, Node, ORPHAN, Place, Uid, Work};
use verdict::{OwnerState, Verdict};

const WORKERS: usize = 4;

/// Time to finish what is being worked at when the program stops.
const LAST_ITEMS: Duration = Duration::from_secs(5);

/// How often resources that came later are looked for.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(60);

/// Resources that nothing is gained by watching, as upstream ignores them.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];

/// The garbage collector.
pub struct GarbageCollector {
    shared: Arc<Shared>,
}

impl fmt::Debug for GarbageCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GarbageCollector").finish_non_exhaustive()
    }
}

struct Shared {
    client: Client,
    /// Only grows; a `Place` names a resource by its index.
    resources: Mutex<Vec<Discovered>>,
    graph: Mutex<Graph>,
    queue: WorkQueue<Work>,
    /// Whether all first lists came in.
    settled: AtomicBool,
    ready: Ready,
}

impl GarbageCollector {
    /// A collector that watches and deletes through `client`.
    pub fn new(client: Client) -> Self {
        Self {
            shared: Arc::new(Shared {
                client,
                resources: Mutex::default(),
                graph: Mutex::default(),
                queue: WorkQueue::new(),
                settled: AtomicBool::new(false),
                ready: Ready::new(),
            }),
        }
    }

    /// Set when every resource was listed once.
    pub fn ready(&self) -> Ready {
        self.shared.ready.clone()
    }

    /// Collects until `shutdown`; then each worker finishes the object it is at, for which it has five seconds.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut watches = JoinSet::new();
        watches.spawn(Arc::clone(&self.shared).watch_all());
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            workers.spawn(Arc::clone(&self.shared).work(shutdown.clone()));
        }
        shutdown.cancelled().await;
        watches.shutdown().await;
        let finished = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ITEMS, finished).await.is_err() {
            tracing::debug!("no time to finish what was being collected");
            workers.shutdown().await;
        }
    }
}

impl Shared {
    /// Watches every resource, and those that come later.
    async fn watch_all(self: Arc<Self>) {
        let mut watches = JoinSet::new();
        loop {
            let delay = match self.watch_new(&mut watches).await {
                Ok(synced) => {
                    Ready::wait_all(synced).await;
                    self.settle();
                    DISCOVERY_PERIOD
                }
                Err(error) => {
                    tracing::debug!(%error, "resources could not be discovered, will retry");
                    Duration::from_secs(1)
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    async fn watch_new(self: &Arc<Self>, watches: &mut JoinSet<()>) -> kube::Result<Vec<Ready>> {
        let found = discovery::resources(&self.client).await?;
        let mut synced = Vec::new();
        for resource in found.into_iter().filter(is_collectable) {
            let index = {
                let mut known = self.resources.lock();
                let same = |other: &Discovered| other.resource == resource.resource;
                if known.iter().any(same) {
                    continue;
                }
                known.push(resource.clone());
                known.len() - 1
            };
            let ready = Ready::new();
            synced.push(ready.clone());
            watches.spawn(Arc::clone(self).watch(index, resource, ready));
        }
        Ok(synced)
    }

    async fn watch(self: Arc<Self>, index: usize, found: Discovered, ready: Ready) {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &found.resource);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => listed.extend(self.apply(index, &object.metadata)),
                Ok(Event::InitDone) => {
                    self.remove_unlisted(index, &listed);
                    listed = HashSet::new();
                    ready.set();
                }
                Ok(Event::Apply(object)) => _ = self.apply(index, &object.metadata),
                Ok(Event::Delete(object)) => {
                    if let Some(uid) = object.metadata.uid {
                        self.remove(&Uid::from(uid));
                    }
                }
                Err(error) => {
                    tracing::debug!(resource = found.resource.plural, %error, "watch failed, will resume")
                }
            }
        }
    }

    fn apply(&self, index: usize, meta: &ObjectMeta) -> Option<Uid> {
        let (uid, node) = Node::of(index, meta)?;
        let work = self
            .graph
            .lock()
            .apply(&uid, node, self.settled.load(Ordering::Acquire));
        self.enqueue(work);
        Some(uid)
    }

    fn remove(&self, uid: &Uid) {
        let work = self.graph.lock().remove(uid);
        self.enqueue(work);
    }

    /// What a new list no longer holds went while the watch was broken.
    fn remove_unlisted(&self, index: usize, listed: &HashSet<Uid>) {
        let gone: Vec<Uid> = self
            .graph
            .lock()
            .of_resource(index)
            .filter(|uid| !listed.contains(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.remove(&uid);
        }
    }

    fn settle(&self) {
        if !self.settled.swap(true, Ordering::AcqRel) {
            let work = self.graph.lock().settle();
            self.enqueue(work);
            self.ready.set();
        }
    }

    fn enqueue(&self, work: Vec<Work>) {
        for item in work {
            self.queue.add(item);
        }
    }

    async fn work(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let item = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                item = self.queue.get() => item,
            };
            let Some(item) = item else { return };
            let done = match &*item {
                Work::Check(uid) => self.check(uid).await,
                Work::Orphan(uid) => self.orphan(uid).await,
            };
            match done {
                Ok(()) => self.queue.forget(&item),
                Err(error) => {
                    tracing::debug!(work = ?*item, %error, "will retry");
                    self.queue.add_rate_limited((*item).clone());
                }
            }
        }
    }

    fn api(&self, place: &Place) -> Option<Api<DynamicObject>> {
        let resources = self.resources.lock();
        let found = resources.get(place.resource)?;
        Some(api_of(&self.client, found, &place.namespace))
    }

    /// The object as the server has it; `None` when it is gone, or another one has its name.
    async fn fresh(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        uid: &str,
    ) -> kube::Result<Option<ObjectMeta>> {
        let meta = api.get_metadata_opt(name).await?.map(|object| object.metadata);
        Ok(meta.filter(|meta| meta.uid.as_deref() == Some(uid)))
    }

    async fn check(&self, uid: &Uid) -> Result<(), ReconcileError> {
        let node = self.graph.lock().get(uid).cloned();
        let Some(node) = node else { return Ok(()) };
        let Some(api) = self.api(&node.place) else {
            return Ok(());
        };
        let Some(meta) = self.fresh(&api, &node.place.name, uid).await? else {
            self.remove(uid);
            return Ok(());
        };
        if meta.deletion_timestamp.is_some() {
            return match has_finalizer(&meta, FOREGROUND) {
                true => self.proceed_in_foreground(uid, &api, &meta).await,
                false => Ok(()),
            };
        }
        let mut owners = Vec::new();
        for reference in meta.owner_references.iter().flatten() {
            owners.push((
                reference.clone(),
                self.state_of(reference, &node.place.namespace).await?,
            ));
        }
        let blocked = !self.graph.lock().dependents(uid).is_empty();
        match verdict::judge(&meta, &owners, blocked) {
            Verdict::Keep => Ok(()),
            Verdict::KeepOnly(references) => {
                let patch = json!({"metadata": {
                    "resourceVersion": meta.resource_version, "ownerReferences": references,
                }});
                patch_unless_gone(&api, &node.place.name, patch).await
            }
            Verdict::Delete(policy) => {
                tracing::debug!(
                    name = node.place.name,
                    namespace = node.place.namespace,
                    "collecting"
                );
                let parameters = DeleteParams {
                    propagation_policy: Some(policy),
                    preconditions: Some(Preconditions {
                        uid: meta.uid,
                        resource_version: meta.resource_version,
                    }),
                    ..DeleteParams::default()
                };
                match api.delete(&node.place.name, &parameters).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    other => Ok(other.map(drop)?),
                }
            }
        }
    }

    /// An object that is deleted in the foreground goes when no blocking dependent is left.
    async fn proceed_in_foreground(
        &self,
        uid: &Uid,
        api: &Api<DynamicObject>,
        meta: &ObjectMeta,
    ) -> Result<(), ReconcileError> {
        let blocking = self.graph.lock().blocking(uid);
        if blocking.is_empty() {
            return remove_finalizer(api, meta, FOREGROUND).await;
        }
        for (dependent, _) in blocking.into_iter().filter(|(_, node)| !node.deleting) {
            self.queue.add(Work::Check(dependent));
        }
        Ok(())
    }

    /// Looks at an owner. What cannot be looked at is an error, never taken for absent. As upstream has it, an owner
    /// waits when it is deleted in the foreground, whether or not the reference blocks that: what does not block goes,
    /// too, but is not waited for.
    async fn state_of(
        &self,
        reference: &OwnerReference,
        namespace: &str,
    ) -> Result<OwnerState, ReconcileError> {
        if let Some(state) = self.state_in_graph(reference, namespace) {
            return Ok(state);
        }
        let group = owner::group_of(&reference.api_version);
        let found = {
            let resources = self.resources.lock();
            let same =
                |found: &&Discovered| found.resource.group == group && found.resource.kind == reference.kind;
            resources.iter().find(same).cloned()
        };
        let Some(found) = found else {
            let message = format!(
                "owner {} {} is of an unknown kind",
                reference.kind, reference.name
            );
            return Err(message.into());
        };
        if found.namespaced && namespace.is_empty() {
            let message = format!(
                "cluster-scoped object names the namespaced {} {} as its owner",
                reference.kind, reference.name
            );
            return Err(message.into());
        }
        let api = api_of(&self.client, &found, namespace);
        Ok(match self.fresh(&api, &reference.name, &reference.uid).await? {
            None => OwnerState::Absent,
            Some(meta) if meta.deletion_timestamp.is_some() && has_finalizer(&meta, FOREGROUND) => {
                OwnerState::Waiting
            }
            Some(_) => OwnerState::Solid,
        })
    }

    /// What the graph knows of an owner. One that is elsewhere than the reference says is for the server to judge: a
    /// reference never leads into another namespace.
    fn state_in_graph(&self, reference: &OwnerReference, namespace: &str) -> Option<OwnerState> {
        let (place, foreground) = {
            let graph = self.graph.lock();
            let node = graph.get(&reference.uid)?;
            (node.place.clone(), node.foreground)
        };
        let resources = self.resources.lock();
        let found = resources.get(place.resource)?;
        let meant = found.resource.group == owner::group_of(&reference.api_version)
            && found.resource.kind == reference.kind
            && place.name == reference.name
            && (!found.namespaced || place.namespace == namespace);
        meant.then_some(match foreground {
            true => OwnerState::Waiting,
            false => OwnerState::Solid,
        })
    }

    /// Takes an owner that is being deleted off its dependents, then lets it go.
    async fn orphan(&self, uid: &Uid) -> Result<(), ReconcileError> {
        let (node, dependents) = {
            let graph = self.graph.lock();
            (graph.get(uid).cloned(), graph.dependents(uid))
        };
        let Some(node) = node else { return Ok(()) };
        for (dependent, place) in dependents.into_iter().map(|(uid, node)| (uid, node.place)) {
            let Some(api) = self.api(&place) else { continue };
            let Some(meta) = self.fresh(&api, &place.name, &dependent).await? else {
                continue;
            };
            let references = meta.owner_references.unwrap_or_default();
            let kept: Vec<_> = references
                .iter()
                .filter(|reference| *reference.uid != **uid)
                .collect();
            if kept.len() < references.len() {
                let patch = json!({"metadata": {
                    "resourceVersion": meta.resource_version, "ownerReferences": kept,
                }});
                patch_unless_gone(&api, &place.name, patch).await?;
            }
        }
        let Some(api) = self.api(&node.place) else {
            return Ok(());
        };
        match self.fresh(&api, &node.place.name, uid).await? {
            Some(meta) => remove_finalizer(&api, &meta, ORPHAN).await,
            None => Ok(()),
        }
    }
}

fn is_collectable(found: &Discovered) -> bool {
    let name = (found.resource.group.as_str(), found.resource.plural.as_str());
    !IGNORED.contains(&name)
        && ["list", "watch", "delete"]
            .into_iter()
            .all(|verb| found.can(verb))
}

fn api_of(client: &Client, found: &Discovered, namespace: &str) -> Api<DynamicObject> {
    if found.namespaced {
        Api::namespaced_with(client.clone(), namespace, &found.resource)
    } else {
        Api::all_with(client.clone(), &found.resource)
    }
}

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == name)
}

async fn remove_finalizer(
    api: &Api<DynamicObject>,
    meta: &ObjectMeta,
    name: &str,
) -> Result<(), ReconcileError> {
    if !has_finalizer(meta, name) {
        return Ok(());
    }
    let kept: Vec<_> = meta
        .finalizers
        .iter()
        .flatten()
        .filter(|finalizer| *finalizer != name)
        .collect();
    let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": kept}});
    patch_unless_gone(api, meta.name.as_deref().unwrap_or_default(), patch).await
}

async fn patch_unless_gone(
    api: &Api<DynamicObject>,
    name: &str,
    patch: serde_json::Value,
) -> Result<(), ReconcileError> {
    match api
        .patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(|object| tracing::trace!(name = object.name_any(), "patched"))?),
    }
}
