//! The resources that a server offers, and the work on their objects.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod edit;
pub(crate) mod list;
pub(crate) mod live;
pub(crate) mod metadata;
pub(crate) mod options;
pub(crate) mod parts;
pub(crate) mod patch;
pub(crate) mod read;
pub(crate) mod selection;
pub(crate) mod table;
pub(crate) mod update;
pub(crate) mod watch;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use orch_core::status::{GroupKind, GroupResource};

use crate::cache::{Cache, StoreHandle};
use crate::ownership::Unowned;
use crate::resource::{ResourceInfo, Verb, Verbs};
use crate::strategy::Strategy;
use crate::tasks::Tasks;
use tokio_util::sync::CancellationToken;

/// One resource of one group and version.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) strategy: Arc<dyn Strategy>,
    pub(crate) cache: Cache,
    pub(crate) group_resource: GroupResource,
    pub(crate) group_kind: GroupKind,
    pub(crate) unowned: Unowned,
    /// Cancelled when the resource is offered no longer, or not like this: its watches end.
    pub(crate) retired: CancellationToken,
    /// Set while its definition is being deleted: then no objects can be made any more.
    terminating: AtomicBool,
}

impl Resource {
    pub(crate) fn new(strategy: Arc<dyn Strategy>, store: StoreHandle, tasks: Tasks) -> Self {
        let info = strategy.info();
        Self {
            group_resource: GroupResource::new(info.group.clone(), info.plural.clone()),
            group_kind: GroupKind::new(info.group.clone(), info.kind.clone()),
            unowned: Unowned::of(info),
            terminating: AtomicBool::new(false),
            retired: tasks.stopped().child_token(),
            cache: Cache::new(Arc::clone(&strategy), store, tasks),
            strategy,
        }
    }

    pub(crate) fn info(&self) -> &ResourceInfo {
        self.strategy.info()
    }

    /// What clients may ask of it now.
    pub(crate) fn verbs(&self) -> Verbs {
        let verbs = self.info().verbs;
        if self.terminating.load(Ordering::Relaxed) {
            verbs
                .without(Verb::Create)
                .without(Verb::Patch)
                .without(Verb::Update)
        } else {
            verbs
        }
    }

    /// Whether objects can still be made.
    pub(crate) fn is_terminating(&self) -> bool {
        self.terminating.load(Ordering::Relaxed)
    }

    pub(crate) fn set_terminating(&self) {
        self.terminating.store(true, Ordering::Relaxed);
    }

    /// Whether it is that resource of that group.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.info().group == group && self.info().plural == plural
    }
}

/// All resources of a server at one moment, by group, version and plural name.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResourceSet {
    groups: BTreeMap<String, BTreeMap<String, BTreeMap<String, Arc<Resource>>>>,
}

impl ResourceSet {
    pub(crate) fn insert(&mut self, resource: Arc<Resource>) {
        let info = resource.info();
        let versions = self.groups.entry(info.group.to_string()).or_default();
        let plurals = versions.entry(info.version.to_string()).or_default();
        let plural = info.plural.to_string();
        plurals.insert(plural, resource);
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.groups.get(group)?.get(version)?.get(plural)
    }

    /// The resources of one group and version in the order of their names.
    pub(crate) fn version(&self, group: &str, version: &str) -> Option<&BTreeMap<String, Arc<Resource>>> {
        self.groups.get(group)?.get(version)
    }

    /// How many objects there are of each resource whose cache has started, named as `pods` or `deployments.apps`.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (String, usize)> {
        let versions = self.groups.values().flat_map(|versions| versions.values());
        versions
            .flat_map(|plurals| plurals.values())
            .filter_map(|resource| {
                let count = resource.cache.count()?;
                Some((resource.group_resource.to_string(), count))
            })
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.groups
            .iter()
            .map(|(group, versions)| (group.as_str(), versions.keys().map(String::as_str).collect()))
    }
}

/// The resources that a server offers now. Custom resources come and go: each change is a new set, swapped in whole, so
/// that a request sees one set from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Resources {
    /// Those that are always there.
    fixed: ResourceSet,
    current: ArcSwap<ResourceSet>,
}

impl Resources {
    pub(crate) fn new(strategies: Vec<Arc<dyn Strategy>>, store: &StoreHandle, tasks: &Tasks) -> Self {
        let mut fixed = ResourceSet::default();
        for strategy in strategies {
            fixed.insert(Arc::new(Resource::new(strategy, store.clone(), tasks.clone())));
        }
        Self {
            current: ArcSwap::from_pointee(fixed.clone()),
            fixed,
        }
    }

    /// The set of the moment.
    pub(crate) fn load(&self) -> Arc<ResourceSet> {
        self.current.load_full()
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.current.load().get(group, version, plural).cloned()
    }

    /// A resource that is always there.
    pub(crate) fn fixed(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.fixed.get(group, version, plural)
    }

    /// Offers these beside those that are always there, which come first where both have a name.
    pub(crate) fn offer(&self, custom: impl IntoIterator<Item = Arc<Resource>>) {
        let mut set = self.fixed.clone();
        for resource in custom {
            let info = resource.info();
            if set.get(&info.group, &info.version, &info.plural).is_none() {
                set.insert(resource);
            }
        }
        self.current.store(Arc::new(set));
    }
}
