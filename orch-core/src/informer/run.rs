//! Following the API: events of `kube`'s watcher become changes of the store and events for subscribers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Resource;
use kube::runtime::watcher;

use super::{Event, Shared, Watchable};
use crate::key::NamespacedName;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

pub(super) async fn follow<K: Watchable>(shared: &Shared<K>) {
    let events = watcher::watcher(shared.api.clone(), shared.config.clone());
    let mut events = std::pin::pin!(events);
    let mut applier = Applier::new(shared);
    let mut delay = FIRST_DELAY;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if !matches!(event, watcher::Event::Init) {
                    delay = FIRST_DELAY;
                }
                applier.apply(event);
            }
            Err(error) => {
                let resource = &shared.resource;
                if delay > Duration::from_secs(1) {
                    tracing::warn!(resource, %error, "watch failed");
                } else {
                    tracing::debug!(resource, %error, "watch failed");
                }
                tokio::time::sleep(jittered(delay)).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
        }
    }
}

/// Between the whole delay and one and a half of it, so that many clients of one server do not come back together.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(1.0 + fastrand::f64() / 2.0)
}

struct Applier<'a, K> {
    shared: &'a Shared<K>,
    /// What the list in progress has shown; everything else is gone when it is complete.
    seen: HashSet<NamespacedName>,
}

impl<'a, K: Watchable> Applier<'a, K> {
    fn new(shared: &'a Shared<K>) -> Self {
        Applier {
            shared,
            seen: HashSet::new(),
        }
    }

    fn apply(&mut self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Init => self.seen = HashSet::new(),
            watcher::Event::InitApply(object) => {
                let key = NamespacedName::of(&object);
                self.seen.insert(key.clone());
                self.put(key, object);
            }
            watcher::Event::InitDone => self.finish_list(),
            watcher::Event::Apply(object) => self.put(NamespacedName::of(&object), object),
            watcher::Event::Delete(object) => self.delete(object),
        }
    }

    fn put(&self, key: NamespacedName, mut object: K) {
        (self.shared.modify)(&mut object);
        let new = Arc::new(object);
        self.change(|store, tell| {
            let old = store.get(&key);
            if old.as_ref().is_some_and(|old| same_version(&**old, &*new)) {
                return;
            }
            store.insert(key, Arc::clone(&new));
            match old {
                // Deleted and created again behind our back: whoever counts by uid must hear of both.
                Some(old) if old.meta().uid != new.meta().uid => {
                    tell(Event::Deleted(old));
                    tell(Event::Applied { old: None, new });
                }
                old => tell(Event::Applied { old, new }),
            }
        });
    }

    fn delete(&self, mut object: K) {
        (self.shared.modify)(&mut object);
        self.change(|store, tell| {
            if store.remove(&NamespacedName::of(&object)).is_some() {
                tell(Event::Deleted(Arc::new(object)));
            }
        });
    }

    fn finish_list(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        let first = !self.shared.synced.is_ready();
        self.change(|store, tell| {
            let gone: Vec<_> = store.keys().filter(|key| !seen.contains(*key)).cloned().collect();
            for key in gone {
                if let Some(object) = store.remove(&key) {
                    tell(Event::Deleted(object));
                }
            }
            if first {
                // Under the handlers' lock: who subscribes later sees it set, who did before gets the event.
                self.shared.synced.set();
                tell(Event::Synced);
            }
        });
    }

    /// Changes the store, then tells what `change` reports, under the handlers' lock.
    fn change(&self, change: impl FnOnce(&mut super::Store<K>, &mut dyn FnMut(Event<K>))) {
        let mut handlers = self.shared.handlers.lock();
        let mut events = Vec::new();
        change(&mut self.shared.store.write(), &mut |event| events.push(event));
        for event in &events {
            handlers.retain(|handler| handler(event));
        }
    }
}

fn same_version<K: Resource>(a: &K, b: &K) -> bool {
    let (a, b) = (a.meta(), b.meta());
    a.resource_version.is_some() && a.resource_version == b.resource_version && a.uid == b.uid
}
