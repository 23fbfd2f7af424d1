//! Follows the definitions: gives them their status, offers their resources, and deletes their objects with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionStatus,
};
use orch_core::status::ApiError;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::conditions::{self, ESTABLISHED, is_true};
use super::kind::CLEANUP;
use super::publish::Custom;
use super::schema::{Schema, merge_type};
use super::strategy::CustomStrategy;
use super::versions::Siblings;
use crate::cache::topic::Topic;
use crate::context::Context;
use crate::registry::delete::{Deletion, Propagation};
use crate::registry::edit::Edit;
use crate::registry::options::{ListOptions, WriteOptions};
use crate::registry::selection::Selection;
use crate::registry::write::Write;
use crate::registry::{Resource, list};
use crate::schema::TypeRef;
use crate::user::{MASTERS, UserInfo};

/// How long an answer to a write of a definition waits for the definition to take effect, and a failed pass for the next.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(200);
/// How many objects of a definition that goes are deleted before others get their turn.
const DELETE_BATCH: usize = 500;

/// How far the definitions have taken effect, by the revision of the store.
#[derive(Debug)]
pub(crate) struct Definitions {
    done: watch::Sender<u64>,
}

impl Definitions {
    pub(crate) fn new() -> Self {
        Self {
            done: watch::Sender::new(0),
        }
    }

    /// Waits until what was written to definitions before the call has taken effect. Whoever is not done in time, such
    /// as with ten thousand objects to delete, is not waited for.
    pub(crate) async fn settled(&self, context: &Context) {
        if tokio::time::timeout(PATIENCE, self.settle(context))
            .await
            .is_err()
        {
            tracing::debug!("definitions have not taken effect yet");
        }
    }

    async fn settle(&self, context: &Context) {
        let Some(resource) = definitions(context) else {
            return;
        };
        let mut done = self.done.subscribe();
        if let Err(error) = resource.cache.fresh().await {
            tracing::debug!(%error, "definitions cannot be read");
            return;
        }
        loop {
            let revision = *done.borrow_and_update();
            let Ok(Ok(mut changes)) = resource.cache.subscribe(Topic::All, revision).await else {
                return;
            };
            match changes.try_next(1) {
                Ok(Some(batch)) if !batch.items.is_empty() => (),
                _ => return,
            }
            if done.changed().await.is_err() {
                return;
            }
        }
    }
}

fn definitions(context: &Context) -> Option<&Arc<Resource>> {
    context
        .resources
        .fixed("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

/// Offers what is defined already, and from then on what changes.
pub(crate) async fn start(context: &Arc<Context>) -> Result<(), ApiError> {
    let mut offered = Offered::default();
    while let Next::Again = pass(context, &mut offered).await? {}
    let weak = Arc::downgrade(context);
    context.tasks.spawn(move |shutdown| run(weak, offered, shutdown));
    Ok(())
}

/// What a pass waits for.
enum Next {
    /// Nothing: it changed something itself, or has more to do.
    Again,
    /// The next change of a definition.
    Change(u64),
    /// That, or a change of the objects of a definition that goes.
    ChangeOf(u64, Arc<Resource>, u64),
}

/// The task holds the server only while it works, so that it ends with the server.
async fn run(context: Weak<Context>, mut offered: Offered, shutdown: CancellationToken) {
    loop {
        let Some(strong) = context.upgrade() else { return };
        let outcome = match pass(&strong, &mut offered).await {
            Ok(Next::Again) => Ok(None),
            Ok(next) => wait_for(&strong, next).await.map(Some),
            Err(error) => Err(error),
        };
        drop(strong);
        let step = async {
            match outcome {
                Ok(None) => tokio::task::yield_now().await,
                Ok(Some(changed)) => changed.await,
                Err(error) => {
                    tracing::warn!(%error, "custom resource definitions cannot be followed, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = step => (),
        }
    }
}

/// What resolves with the next change. It holds no part of the server but the log of changes.
async fn wait_for(
    context: &Context,
    next: Next,
) -> Result<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>, ApiError> {
    let (after, objects) = match next {
        Next::Again => return Ok(Box::pin(std::future::ready(()))),
        Next::Change(after) => (after, None),
        Next::ChangeOf(after, resource, seen) => (after, Some((resource, seen))),
    };
    let Some(resource) = definitions(context) else {
        return Ok(Box::pin(std::future::pending()));
    };
    // A position that the log no longer has means that much has changed: look again at once.
    let Ok(mut own) = resource.cache.subscribe(Topic::All, after).await? else {
        return Ok(Box::pin(std::future::ready(())));
    };
    let Some((resource, seen)) = objects else {
        return Ok(Box::pin(async move {
            own.next(1).await.ok();
        }));
    };
    let Ok(mut theirs) = resource.cache.subscribe(Topic::All, seen).await? else {
        return Ok(Box::pin(std::future::ready(())));
    };
    drop(resource);
    Ok(Box::pin(async move {
        tokio::select! {
            _ = own.next(1) => (),
            _ = theirs.next(1) => (),
        }
    }))
}

/// The resources that are offered now, by the name of their definition.
#[derive(Debug, Default)]
struct Offered {
    all: BTreeMap<String, Offer>,
}

#[derive(Debug)]
struct Offer {
    /// What the resources were made of.
    definition: Arc<CustomResourceDefinition>,
    resources: Vec<Arc<Resource>>,
    /// The version that is stored, be it served or not.
    stored: Option<Arc<Resource>>,
}

/// Brings everything in line with the definitions of the moment.
async fn pass(context: &Arc<Context>, offered: &mut Offered) -> Result<Next, ApiError> {
    let Some(resource) = definitions(context) else {
        return Ok(Next::Change(0));
    };
    let page = list::page(resource, &Selection::all(""), &ListOptions::default()).await?;
    let revision = page.revision;
    let all: Vec<CustomResourceDefinition> = page
        .items
        .iter()
        .filter_map(|entry| match serde_json::from_slice(&entry.json) {
            Ok(definition) => Some(definition),
            Err(error) => {
                tracing::error!(name = %entry.name, %error, "stored definition cannot be read");
                None
            }
        })
        .collect();
    let author = Author::new(context);
    let mut changed = false;
    for (index, definition) in all.iter().enumerate() {
        // In the order of names, so that of two new ones with one name the same always wins.
        let others = all[..index].iter().chain(&all[index + 1..]);
        let wanted = conditions::status(definition, others);
        if definition.status.as_ref() != Some(&wanted) {
            author.set_status(definition, wanted).await?;
            changed = true;
            break;
        }
    }
    if changed {
        return Ok(Next::Again);
    }
    if offered.update(context, all.iter()) {
        let resources = offered
            .all
            .values()
            .flat_map(|offer| offer.resources.iter().cloned());
        context.resources.offer(resources);
        offered.publish(context);
    }
    let next = empty(&author, &all, offered, revision).await?;
    if !matches!(next, Next::Again) {
        context.definitions.done.send_replace(revision);
    }
    Ok(next)
}

impl Offered {
    /// Puts the schemas of what is offered into the OpenAPI documents.
    fn publish(&self, context: &Context) {
        let custom = self.all.values().flat_map(|offer| {
            offer.resources.iter().map(|resource| Custom {
                info: resource.info().clone(),
                definition: Arc::clone(&offer.definition),
            })
        });
        let documents = context.openapi.load().with_custom(custom.collect());
        context.openapi.store(Arc::new(documents));
    }

    /// Makes the resources of new and changed definitions, and retires those of old ones. Whether anything changed.
    fn update<'d>(
        &mut self,
        context: &Context,
        all: impl Iterator<Item = &'d CustomResourceDefinition>,
    ) -> bool {
        let mut wanted: BTreeMap<String, &CustomResourceDefinition> = BTreeMap::new();
        for definition in all.filter(|one| is_true(one, ESTABLISHED)) {
            wanted.insert(definition.metadata.name.clone().unwrap_or_default(), definition);
        }
        let mut changed = false;
        self.all.retain(|name, offer| {
            let stays = wanted
                .get(name)
                .is_some_and(|new| serves_the_same(&offer.definition, new));
            if !stays {
                offer
                    .resources
                    .iter()
                    .for_each(|resource| resource.retired.cancel());
                changed = true;
            }
            stays
        });
        for (name, definition) in wanted {
            if definition.metadata.deletion_timestamp.is_some()
                && let Some(offer) = self.all.get(&name)
            {
                offer.end();
            }
            self.all.entry(name).or_insert_with(|| {
                changed = true;
                let offer = Offer::new(context, definition);
                if definition.metadata.deletion_timestamp.is_some() {
                    offer.end();
                }
                offer
            });
        }
        changed
    }
}

fn serves_the_same(old: &CustomResourceDefinition, new: &CustomResourceDefinition) -> bool {
    let names = |one: &CustomResourceDefinition| {
        one.status
            .as_ref()
            .and_then(|status| status.accepted_names.clone())
    };
    old.spec == new.spec && old.metadata.uid == new.metadata.uid && names(old) == names(new)
}

impl Offer {
    /// No more objects can be made.
    fn end(&self) {
        let all = self.resources.iter().chain(&self.stored);
        all.for_each(|resource| resource.set_terminating());
    }

    fn new(context: &Context, definition: &CustomResourceDefinition) -> Self {
        let spec = &definition.spec;
        let compiled: Vec<_> = spec
            .versions
            .iter()
            .map(|version| {
                let schema = version
                    .schema
                    .as_ref()
                    .and_then(|one| one.open_api_v3_schema.as_ref());
                (version, schema.map(Schema::compile).unwrap_or_default())
            })
            .collect();
        let api_version = |name: &str| format!("{}/{name}", spec.group);
        let shapes: Arc<[(String, TypeRef)]> = compiled
            .iter()
            .filter(|(version, _)| version.served)
            .map(|(version, schema)| (api_version(&version.name), TypeRef::from(merge_type(schema))))
            .collect();
        let storage = spec.versions.iter().find(|version| version.storage);
        let storage = storage
            .map(|version| api_version(&version.name))
            .unwrap_or_default();
        let mut offer = Self {
            definition: Arc::new(definition.clone()),
            resources: Vec::new(),
            stored: None,
        };
        for (version, schema) in compiled {
            let siblings = Siblings::new(Arc::clone(&shapes), api_version(&version.name), storage.clone());
            let strategy = CustomStrategy::new(definition, version, schema, siblings);
            let (store, tasks) = (context.store.clone(), context.tasks.clone());
            let resource = Arc::new(Resource::new(Arc::new(strategy), store, tasks));
            if version.storage {
                offer.stored = Some(Arc::clone(&resource));
            }
            if version.served {
                offer.resources.push(resource);
            }
        }
        offer
    }
}

/// Deletes the objects of definitions that go, and lets those definitions go that have none left.
async fn empty(
    author: &Author<'_>,
    all: &[CustomResourceDefinition],
    offered: &Offered,
    revision: u64,
) -> Result<Next, ApiError> {
    let mut next = Next::Change(revision);
    for definition in all {
        let metadata = &definition.metadata;
        let held = metadata.finalizers.iter().flatten().any(|one| one == CLEANUP);
        if metadata.deletion_timestamp.is_none() || !held {
            continue;
        }
        let offer = offered.all.get(metadata.name.as_deref().unwrap_or_default());
        // One that never was established has no objects.
        let Some(resource) = offer.and_then(|offer| offer.stored.as_ref()) else {
            author.release(definition).await?;
            return Ok(Next::Again);
        };
        let page = list::page(resource, &Selection::all(""), &ListOptions::default()).await?;
        if page.items.is_empty() {
            author.release(definition).await?;
            return Ok(Next::Again);
        }
        let present = page.items.iter().filter(|entry| !is_terminating(&entry.json));
        let mut deleted = false;
        for entry in present.take(DELETE_BATCH) {
            author.delete(resource, &entry.namespace, &entry.name).await?;
            deleted = true;
        }
        if deleted {
            return Ok(Next::Again);
        }
        // The rest is held by finalizers of others.
        next = Next::ChangeOf(revision, Arc::clone(resource), page.revision);
    }
    Ok(next)
}

#[derive(Deserialize)]
struct Slim {
    metadata: SlimMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMetadata {
    deletion_timestamp: Option<String>,
}

fn is_terminating(json: &[u8]) -> bool {
    let read: Result<Slim, _> = serde_json::from_slice(json);
    read.is_ok_and(|slim| slim.metadata.deletion_timestamp.is_some())
}

/// Writes as the server itself.
struct Author<'a> {
    context: &'a Context,
    user: UserInfo,
    options: WriteOptions,
}

impl<'a> Author<'a> {
    fn new(context: &'a Context) -> Self {
        Self {
            context,
            user: UserInfo::new("system:apiserver", [MASTERS]),
            options: WriteOptions {
                field_manager: "kube-apiserver".into(),
                ..WriteOptions::default()
            },
        }
    }

    fn write<'w>(&'w self, resource: &'w Resource, namespace: &'w str) -> Write<'w> {
        Write {
            context: self.context,
            resource,
            namespace,
            subresource: None,
            user: &self.user,
            options: &self.options,
        }
    }

    /// Edits a definition if it is still the one that was looked at.
    async fn edit(
        &self,
        definition: &CustomResourceDefinition,
        change: impl Fn(&mut CustomResourceDefinition) -> Edit,
    ) -> Result<(), ApiError> {
        let Some(resource) = definitions(self.context) else {
            return Ok(());
        };
        let seen = definition.metadata.resource_version.as_deref();
        let name = definition.metadata.name.as_deref().unwrap_or_default();
        let write = self.write(resource, "");
        let edited = write.edit(name, |object| {
            match object.downcast_mut::<CustomResourceDefinition>() {
                Some(found) if found.metadata.resource_version.as_deref() == seen => Ok(change(found)),
                // Changed meanwhile: the next pass looks at it as it is now.
                _ => Ok(Edit::Store),
            }
        });
        match edited.await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn set_status(
        &self,
        definition: &CustomResourceDefinition,
        status: CustomResourceDefinitionStatus,
    ) -> Result<(), ApiError> {
        self.edit(definition, |found| {
            found.status = Some(status.clone());
            Edit::Store
        })
        .await
    }

    /// Takes the finalizer off a definition without objects; it goes if nobody else holds it.
    async fn release(&self, definition: &CustomResourceDefinition) -> Result<(), ApiError> {
        self.edit(definition, |found| {
            let finalizers = found.metadata.finalizers.get_or_insert_default();
            finalizers.retain(|one| one != CLEANUP);
            conditions::set(
                found.status.get_or_insert_default(),
                conditions::terminating(true),
            );
            if found.metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
                Edit::Remove
            } else {
                Edit::Store
            }
        })
        .await
    }

    async fn delete(&self, resource: &Resource, namespace: &str, name: &str) -> Result<(), ApiError> {
        let wanted = Deletion {
            propagation: Some(Propagation::Background),
            ..Deletion::default()
        };
        match self.write(resource, namespace).delete(name, &wanted).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
