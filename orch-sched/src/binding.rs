//! What the binding stages work on.

use crate::object::PodInfo;
use std::sync::Arc;

/// A pod on its way to its node.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node's name.
    pub node: String,
}

/// Whether a policy bound the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindOutcome {
    /// It did; no other is asked.
    Bound,
    /// It leaves that to the next.
    Skip,
}

/// Why a pod could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The API server did not take the binding.
    #[error("{0}")]
    Api(#[source] Box<kube::Error>),
    /// A policy stood in the way.
    #[error("{policy}: {message}")]
    Policy {
        /// The policy.
        policy: String,
        /// What it says.
        message: String,
    },
    /// No policy of the profile binds.
    #[error("no policy of the profile binds pods")]
    NoBinder,
}

impl BindError {
    /// True when the pod is gone: there is nothing to try again.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if matches!(&**error, kube::Error::Api(status) if status.code == 404))
    }
}

impl From<kube::Error> for BindError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}
