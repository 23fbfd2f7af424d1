//! Shared informers: a local, indexed copy of the objects of one kind, kept current by a watch.
//!
//! An [`Informer`] lists once and then follows the watch. Its content is read without a request ([`Informer::get`],
//! [`Informer::list`], [`Informer::by_index`]) and every change goes to its subscribers, in order. Nothing is lost when the watch breaks: what was deleted or changed
//! meanwhile is found by comparison and told as if it had been watched. Many parts of a program share one informer
//! for a kind through [`Informers`].
//!
//! Any type that `kube` can watch can be informed about; name only the fields you use and the store stays small.
//! `managedFields` are dropped unless asked for.
//!
//! ```no_run
//! use k8s_openapi::api::core::v1::Pod;
//! use kube::Api;
//! use orch_core::informer::Informer;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(client: kube::Client) {
//! let pods = Informer::<Pod>::builder(Api::all(client))
//!     .index("node", |pod: &Pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect())
//!     .build();
//! let shutdown = CancellationToken::new();
//! tokio::join!(pods.clone().run(shutdown), async {
//!     pods.ready().wait().await;
//!     println!("{} pods on node n1", pods.by_index("node", "n1").len());
//! });
//! # }
//! ```

mod factory;
mod run;
mod store;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::runtime::watcher;
use kube::{Api, Resource};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use factory::Informers;

use crate::key::NamespacedName;
use crate::ready::Ready;
use store::Store;

/// What an informer can hold.
pub trait Watchable: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}

impl<K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static> Watchable for K {}

/// A change of the informed objects.
pub enum Event<K> {
    /// The object is new (`old` is none) or changed.
    Applied {
        /// What was there before.
        old: Option<Arc<K>>,
        /// What is there now.
        new: Arc<K>,
    },
    /// The object is gone. This is its last known state.
    Deleted(Arc<K>),
    /// Everything that existed when the informer began has been told.
    Synced,
}

impl<K> Event<K> {
    /// The object concerned: its newest known state.
    pub fn object(&self) -> Option<&Arc<K>> {
        match self {
            Event::Applied { new, .. } => Some(new),
            Event::Deleted(object) => Some(object),
            Event::Synced => None,
        }
    }
}

impl<K> Clone for Event<K> {
    fn clone(&self) -> Self {
        match self {
            Event::Applied { old, new } => Event::Applied {
                old: old.clone(),
                new: Arc::clone(new),
            },
            Event::Deleted(object) => Event::Deleted(Arc::clone(object)),
            Event::Synced => Event::Synced,
        }
    }
}

impl<K: Resource> fmt::Debug for Event<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Applied { old: None, new } => write!(f, "Added({})", NamespacedName::of(&**new)),
            Event::Applied { new, .. } => write!(f, "Changed({})", NamespacedName::of(&**new)),
            Event::Deleted(object) => write!(f, "Deleted({})", NamespacedName::of(&**object)),
            Event::Synced => f.write_str("Synced"),
        }
    }
}

type Handler<K> = Box<dyn Fn(&Event<K>) -> bool + Send + Sync>;
type Modify<K> = Box<dyn Fn(&mut K) + Send + Sync>;

/// A local, current copy of the objects of one kind. Clones are handles to one copy.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    /// For logs.
    resource: String,
    api: Api<K>,
    config: watcher::Config,
    modify: Modify<K>,
    store: RwLock<Store<K>>,
    /// Held while the store changes and the change is told, so that a new subscriber misses and doubles nothing.
    /// Lock order: handlers, then store.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: Ready,
    running: AtomicBool,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer")
            .field("resource", &self.shared.resource)
            .field("objects", &self.shared.store.read().len())
            .field("synced", &self.shared.synced.is_ready())
            .finish()
    }
}

impl<K: Watchable> Informer<K> {
    /// Begins an informer of what `api` lists: one namespace or all.
    pub fn builder(api: Api<K>) -> InformerBuilder<K> {
        InformerBuilder {
            api,
            config: watcher::Config::default(),
            store: Store::default(),
            keep_managed_fields: false,
            modify: None,
        }
    }

    /// The object of that key.
    pub fn get(&self, key: &NamespacedName) -> Option<Arc<K>> {
        self.shared.store.read().get(key)
    }

    /// All objects, in the order of their keys.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.store.read().list()
    }

    /// All objects of a namespace, in the order of their names.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared.store.read().list_namespace(namespace)
    }

    /// The objects which the index `index` files under `value`. Nothing for an index that was never defined.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        self.shared.store.read().by_index(index, value)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.store.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Defines the index `name`, which files each object under the values that `values` returns for it. Does nothing
    /// if it is defined already.
    pub fn add_index(&self, name: &'static str, values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        self.shared.store.write().add_index(name, Box::new(values));
    }

    /// Calls `handler` for each event, in order: first what is known already as new objects, then every change.
    ///
    /// It runs in the informer's own task: keep it short. It may read the informer and must not subscribe to it.
    pub fn on_event(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        self.register(Box::new(move |event| {
            handler(event);
            true
        }));
    }

    /// The events as a stream of one's own, as [`on_event`](Self::on_event) tells them. It buffers without a bound:
    /// read it, or drop it.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Event<K>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.register(Box::new(move |event| sender.send(event.clone()).is_ok()));
        receiver
    }

    fn register(&self, handler: Handler<K>) {
        let mut handlers = self.shared.handlers.lock();
        let known = self.shared.store.read().list();
        for new in known {
            if !handler(&Event::Applied { old: None, new }) {
                return;
            }
        }
        if self.shared.synced.is_ready() && !handler(&Event::Synced) {
            return;
        }
        handlers.push(handler);
    }

    /// Set when the first list is complete in the store.
    pub fn ready(&self) -> Ready {
        self.shared.synced.clone()
    }

    /// Whether the first list is complete in the store.
    pub fn has_synced(&self) -> bool {
        self.shared.synced.is_ready()
    }

    /// Follows the API until `shutdown`. A second run of one informer returns at once.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.shared.running.swap(true, Ordering::AcqRel) {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = run::follow(&self.shared) => {}
        }
        self.shared.running.store(false, Ordering::Release);
    }
}

/// Describes an [`Informer`].
#[must_use]
pub struct InformerBuilder<K> {
    api: Api<K>,
    config: watcher::Config,
    store: Store<K>,
    keep_managed_fields: bool,
    modify: Option<Modify<K>>,
}

impl<K> fmt::Debug for InformerBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InformerBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<K: Watchable> InformerBuilder<K> {
    /// How to list and watch: selectors, page size, time-outs.
    pub fn config(mut self, config: watcher::Config) -> Self {
        self.config = config;
        self
    }

    /// Only objects with these labels.
    pub fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    /// Only objects with these fields, for example `spec.nodeName=n1`.
    pub fn fields(mut self, selector: &str) -> Self {
        self.config = self.config.fields(selector);
        self
    }

    /// Defines an index: each object is filed under the values that `values` returns for it.
    pub fn index(
        mut self,
        name: &'static str,
        values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.store.add_index(name, Box::new(values));
        self
    }

    /// Changes each object before it is stored, to drop what is not used.
    pub fn modify(mut self, modify: impl Fn(&mut K) + Send + Sync + 'static) -> Self {
        self.modify = Some(Box::new(modify));
        self
    }

    /// Keeps `metadata.managedFields`, which are dropped otherwise.
    pub fn keep_managed_fields(mut self) -> Self {
        self.keep_managed_fields = true;
        self
    }

    /// The informer, empty until it is [run](Informer::run).
    pub fn build(self) -> Informer<K> {
        let keep = self.keep_managed_fields;
        let modify = self.modify;
        let modify: Modify<K> = Box::new(move |object| {
            if !keep {
                object.meta_mut().managed_fields = None;
            }
            if let Some(modify) = &modify {
                modify(object);
            }
        });
        Informer {
            shared: Arc::new(Shared {
                resource: self.api.resource_url().to_owned(),
                api: self.api,
                config: self.config,
                modify,
                store: RwLock::new(self.store),
                handlers: Mutex::new(Vec::new()),
                synced: Ready::new(),
                running: AtomicBool::new(false),
            }),
        }
    }
}
