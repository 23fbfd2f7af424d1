//! The contract between the proxy and what carries its traffic.

use async_trait::async_trait;

use crate::model::{Changes, DesiredState, ServicePortKey};

/// Carries the traffic of service ports: kernel rules, a listener in this process, a load balancer elsewhere.
///
/// The proxy owns its backend and calls one method at a time. It calls [`probe`](Self::probe) once before anything else,
/// then [`sync`](Self::sync) for each change, [`intact`](Self::intact) now and then, and at the end
/// [`stop`](Self::stop), before which it may call [`cleanup`](Self::cleanup).
///
/// * **All or nothing.** A sync that fails leaves the host as it was or makes part of the difference true, but never routes
///   traffic of one service port to another. The proxy retries with [`Changes::All`].
/// * **Adoption.** The first sync after a start is [`Changes::All`]. The host may hold what an earlier process left; the
///   backend makes it equal to the desired state without a moment in which a service port served before and after is not
///   served, and removes what is no longer asked for.
/// * **Draining.** Established connections to an endpoint that goes away are left alone; new ones go to those that remain.
/// * **Cancellation.** A `sync` that is dropped midway counts as failed.
///
/// Every backend should pass [`testkit::conformance`](crate::testkit), which needs the feature `testkit`.
#[async_trait]
pub trait ProxyBackend: Send {
    /// A short name for logs: `nftables`, `userspace`.
    fn name(&self) -> &'static str;

    /// Whether this host and this process can use the backend. Changes nothing that lasts.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] with what is missing.
    async fn probe(&mut self) -> Result<(), BackendError>;

    /// Makes the host serve `desired`, of which `changes` is what differs since the last sync that succeeded.
    ///
    /// # Errors
    /// Any [`BackendError`]; the next sync is then [`Changes::All`].
    async fn sync(&mut self, desired: &DesiredState, changes: &Changes) -> Result<SyncReport, BackendError>;

    /// Whether the host still holds what the last sync brought. Called every few seconds, so it must be cheap; it may look
    /// at a token only. On `false` the proxy syncs [`Changes::All`].
    ///
    /// # Errors
    /// If it could not look. The proxy then changes nothing.
    async fn intact(&mut self) -> Result<bool, BackendError> {
        Ok(true)
    }

    /// Removes all that this backend, in this or an earlier process, left on the host, and nothing else. Idempotent.
    ///
    /// # Errors
    /// If something could not be removed.
    async fn cleanup(&mut self) -> Result<(), BackendError>;

    /// Ends what the backend runs inside this process. What lives in the kernel stays and goes on working.
    async fn stop(&mut self) {}
}

/// What a sync did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Service ports of which something is not served, as of this sync. The rest of the state is served.
    pub unserved: Vec<Unserved>,
    /// How many single things (elements, rules, listeners) were written or removed, for logs and tests.
    pub writes: usize,
}

/// A frontend that a backend can not serve.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unserved {
    /// The service port.
    pub key: ServicePortKey,
    /// What is not served and why, for an event on the Service.
    pub message: String,
}

/// Why a backend could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The host lacks what the backend needs.
    #[error("{backend} backend: {reason}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// What is missing and how to get it.
        reason: String,
    },
    /// The firewall program refused or failed.
    #[error(transparent)]
    Nft(#[from] crate::nftables::NftError),
    /// The kernel refused a change of links or addresses.
    #[error("{action}: {source}")]
    Netlink {
        /// What was tried.
        action: String,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
    /// A system call failed.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Any other failure, for backends from outside.
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BackendError {
    /// Whether the host can not carry this backend at all, so that another one should be tried.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }

    pub(crate) fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            action: action.into(),
            source,
        }
    }

    pub(crate) fn netlink(action: impl Into<String>, source: rtnetlink::Error) -> Self {
        Self::Netlink {
            action: action.into(),
            source,
        }
    }
}
