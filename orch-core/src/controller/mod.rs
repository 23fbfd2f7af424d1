//! Controllers and the manager that runs them.
//!
//! A [`Controller`] says which objects concern it and brings the world of one key to its desired state. The
//! [`Manager`] does the rest: it runs the informers, keeps a [`WorkQueue`] for each
//! controller, calls [`Controller::reconcile`] from as many workers as wanted, retries failures with a growing delay,
//! waits for leadership where asked, and stops cleanly.
//!
//! ```no_run
//! use std::sync::Arc;
//! use async_trait::async_trait;
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use orch_core::controller::{Controller, Manager, Outcome, ReconcileError, Watches};
//! use orch_core::informer::{Informer, Informers};
//! use orch_core::key::NamespacedName;
//!
//! struct Greeter { maps: Informer<ConfigMap> }
//!
//! #[async_trait]
//! impl Controller for Greeter {
//!     fn name(&self) -> &str { "greeter" }
//!     fn watches(&self, watches: &mut Watches) { watches.own(&self.maps); }
//!     async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError> {
//!         println!("{key} {}", if self.maps.get(key).is_some() { "is here" } else { "is gone" });
//!         Ok(Outcome::Done)
//!     }
//! }
//!
//! # async fn example(client: kube::Client, shutdown: tokio_util::sync::CancellationToken) {
//! let informers = Informers::new(client);
//! let greeter = Greeter { maps: informers.get() };
//! Manager::builder(informers).controller(Arc::new(greeter)).build().run(shutdown).await;
//! # }
//! ```

mod manager;
mod watches;

use std::time::Duration;

use async_trait::async_trait;

pub use manager::{Manager, ManagerBuilder};
pub use watches::Watches;

use crate::key::NamespacedName;
#[allow(unused_imports, reason = "named in the documentation")]
use crate::queue::WorkQueue;

/// Why a key could not be reconciled; it will be tried again.
pub type ReconcileError = Box<dyn std::error::Error + Send + Sync>;

/// What is left to do after a key was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing, until something changes.
    Done,
    /// Look again after this time, even if nothing changes.
    RequeueAfter(Duration),
}

/// Drives objects of one kind from observed to desired state.
///
/// Reconciling is level-triggered: the key says *where* to look, never *what happened*. The same key is never
/// reconciled by two workers at once. All results are covered: `Ok(Done)` ends the matter and its back-off,
/// `Ok(RequeueAfter)` looks again at that time, an error (or panic) is logged and retried with a delay from 5 ms to
/// 1000 s.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// The controller's name, for logs and metrics.
    fn name(&self) -> &str;

    /// Registers what the controller looks at: whose changes put which keys into its queue.
    fn watches(&self, watches: &mut Watches);

    /// Brings the object of `key`, and what belongs to it, to its desired state.
    async fn reconcile(&self, key: &NamespacedName) -> Result<Outcome, ReconcileError>;

    /// How many keys may be reconciled at once.
    fn workers(&self) -> usize {
        5
    }
}
