//! From events to keys: what puts work into a controller's queue.

use std::sync::Arc;

use crate::informer::{Event, Informer, Watchable};
use crate::key::NamespacedName;
use crate::owner;
use crate::queue::WorkQueue;
use crate::ready::Ready;

/// Collects what a controller watches. Given to [`Controller::watches`](super::Controller::watches).
#[derive(Debug)]
pub struct Watches {
    queue: WorkQueue<NamespacedName>,
    synced: Vec<Ready>,
}

impl Watches {
    pub(super) fn new(queue: WorkQueue<NamespacedName>) -> Self {
        Watches {
            queue,
            synced: Vec::new(),
        }
    }

    pub(super) fn into_synced(self) -> Vec<Ready> {
        self.synced
    }

    /// The controller's queue, for keys that no informer gives.
    pub fn queue(&self) -> &WorkQueue<NamespacedName> {
        &self.queue
    }

    /// Each object of the informer is reconciled under its own key when it appears, changes or goes.
    pub fn own<K: Watchable>(&mut self, informer: &Informer<K>) {
        self.mapped(informer, |event| {
            event.object().map(|object| NamespacedName::of(&**object))
        });
    }

    /// The controlling owner of an object is reconciled if it is a `kind` of API group `group`; when the controller
    /// changes hands, both are. The owner is sought in the object's namespace, which is empty for cluster-scoped
    /// objects.
    pub fn owned<K: Watchable>(&mut self, informer: &Informer<K>, group: &'static str, kind: &'static str) {
        let owner_of = move |object: &Arc<K>| {
            let meta = object.meta();
            let name = owner::controller_name(meta, group, kind)?;
            Some(NamespacedName::new(
                meta.namespace.as_deref().unwrap_or_default(),
                name,
            ))
        };
        self.mapped(informer, move |event| {
            let (before, now) = match event {
                Event::Applied { old, new } => (old.as_ref().and_then(owner_of), owner_of(new)),
                Event::Deleted(object) => (None, owner_of(object)),
                Event::Synced => (None, None),
            };
            let before = before.filter(|before| Some(before) != now.as_ref());
            before.into_iter().chain(now)
        });
    }

    /// Each event puts the keys which `keys` returns for it into the queue.
    pub fn mapped<K, I>(
        &mut self,
        informer: &Informer<K>,
        keys: impl Fn(&Event<K>) -> I + Send + Sync + 'static,
    ) where
        K: Watchable,
        I: IntoIterator<Item = NamespacedName>,
    {
        let queue = self.queue.clone();
        self.needs(informer);
        informer.on_event(move |event| {
            for key in keys(event) {
                queue.add(key);
            }
        });
    }

    /// The controller reads this informer: nothing is reconciled before it has synced.
    pub fn needs<K: Watchable>(&mut self, informer: &Informer<K>) {
        self.synced.push(informer.ready());
    }
}
