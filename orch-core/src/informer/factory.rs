//! One informer a kind for all parts of a program.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Informer, InformerBuilder, Watchable};
use crate::ready::Ready;

type Run = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// Makes and runs the informers that a program shares: one for each type and selector. Clones are handles to one set.
///
/// ```no_run
/// use k8s_openapi::api::core::v1::{Node, Pod};
/// use orch_core::informer::Informers;
/// # async fn example(client: kube::Client, shutdown: tokio_util::sync::CancellationToken) {
/// let informers = Informers::new(client);
/// let pods = informers.get::<Pod>();
/// let nodes = informers.get::<Node>();
/// informers.run(shutdown).await;
/// # }
/// ```
#[derive(Clone)]
pub struct Informers {
    client: Client,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    set: Mutex<Set>,
    added: Notify,
}

#[derive(Default)]
struct Set {
    by_kind: HashMap<(TypeId, String), Box<dyn Any + Send>>,
    ready: Vec<Ready>,
    not_running: Vec<Run>,
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informers")
            .field("kinds", &self.shared.set.lock().by_kind.len())
            .finish_non_exhaustive()
    }
}

impl Informers {
    /// No informers yet; they will use `client`.
    pub fn new(client: Client) -> Self {
        Informers {
            client,
            shared: Arc::default(),
        }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of all objects of `K`.
    pub fn get<K>(&self) -> Informer<K>
    where
        K: Watchable + Resource<DynamicType = ()>,
    {
        self.get_with("", |builder| builder)
    }

    /// The informer of `K` known as `variant`, for which `describe` says how it differs from that of all objects
    /// (a selector, a modification). `describe` is not called when the informer exists.
    pub fn get_with<K>(
        &self,
        variant: &str,
        describe: impl FnOnce(InformerBuilder<K>) -> InformerBuilder<K>,
    ) -> Informer<K>
    where
        K: Watchable + Resource<DynamicType = ()>,
    {
        let mut set = self.shared.set.lock();
        let id = (TypeId::of::<K>(), variant.to_owned());
        let present = set
            .by_kind
            .get(&id)
            .and_then(|any| any.downcast_ref::<Informer<K>>());
        if let Some(informer) = present {
            return informer.clone();
        }
        let informer = describe(Informer::builder(Api::all(self.client.clone()))).build();
        set.by_kind.insert(id, Box::new(informer.clone()));
        set.ready.push(informer.ready());
        let run = informer.clone();
        set.not_running
            .push(Box::new(move |shutdown| Box::pin(run.run(shutdown))));
        drop(set);
        self.shared.added.notify_one();
        informer
    }

    /// Returns once all informers made so far have synced.
    pub async fn synced(&self) {
        let ready = self.shared.set.lock().ready.clone();
        Ready::wait_all(ready).await;
    }

    /// Runs all informers, also those that are made later, until `shutdown`. Run it once.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            let added = self.shared.added.notified();
            let waiting = std::mem::take(&mut self.shared.set.lock().not_running);
            for run in waiting {
                tasks.spawn(run(shutdown.clone()));
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = added => {}
            }
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "an informer failed");
            }
        }
    }
}
