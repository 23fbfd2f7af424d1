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

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use orch_core::status::{GroupKind, GroupResource};

use crate::cache::{Cache, StoreHandle};
use crate::ownership::Unowned;
use crate::resource::ResourceInfo;
use crate::strategy::Strategy;
use crate::tasks::Tasks;

/// One resource of one group and version.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) strategy: Arc<dyn Strategy>,
    pub(crate) cache: Cache,
    pub(crate) group_resource: GroupResource,
    pub(crate) group_kind: GroupKind,
    pub(crate) unowned: Unowned,
}

impl Resource {
    pub(crate) fn new(strategy: Arc<dyn Strategy>, store: StoreHandle, tasks: Tasks) -> Self {
        let info = strategy.info();
        Self {
            group_resource: GroupResource::new(info.group.clone(), info.plural.clone()),
            group_kind: GroupKind::new(info.group.clone(), info.kind.clone()),
            unowned: Unowned::of(info),
            cache: Cache::new(Arc::clone(&strategy), store, tasks),
            strategy,
        }
    }

    pub(crate) fn info(&self) -> &ResourceInfo {
        self.strategy.info()
    }

    /// Whether it is that resource of that group.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.info().group == group && self.info().plural == plural
    }
}

/// All resources of a server, by group, version and plural name.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    groups: HashMap<String, HashMap<String, BTreeMap<String, Arc<Resource>>>>,
}

impl Resources {
    pub(crate) fn new(strategies: Vec<Arc<dyn Strategy>>, store: &StoreHandle, tasks: &Tasks) -> Self {
        let mut resources = Self::default();
        for strategy in strategies {
            let resource = Arc::new(Resource::new(strategy, store.clone(), tasks.clone()));
            let info = resource.info();
            let versions = resources.groups.entry(info.group.to_string()).or_default();
            let plurals = versions.entry(info.version.to_string()).or_default();
            plurals.insert(info.plural.to_string(), Arc::clone(&resource));
        }
        resources
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
