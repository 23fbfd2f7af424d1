//! Admission: rules that see an object between authorization and the store, and may change or refuse it.

mod default_class;
mod limit_ranger;
mod namespace_lifecycle;
mod pod_defaults;
mod priority;
mod runtime_class;
mod taint_nodes;

use std::fmt::Debug;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use orch_core::status::{ApiError, GroupResource};
use serde::de::DeserializeOwned;

pub use default_class::{DefaultIngressClass, DefaultStorageClass};
pub use limit_ranger::LimitRanger;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use pod_defaults::{DefaultServiceAccount, DefaultTolerationSeconds};
pub use priority::Priority;
pub use runtime_class::RuntimeClass;
pub use taint_nodes::TaintNodesByCondition;

use crate::context::Context;
use crate::object::Object;
use crate::registry::read;
use crate::resource::{ResourceInfo, Subresource};
use crate::user::UserInfo;

/// What is about to happen to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It comes into being.
    Create,
    /// It changes.
    Update,
    /// It is deleted.
    Delete,
    /// Somebody connects to it: exec, port-forward, proxy.
    Connect,
}

/// One write as admission sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Review<'a> {
    /// What is about to happen.
    pub operation: Operation,
    /// Who asks.
    pub user: &'a UserInfo,
    /// The resource.
    pub resource: &'a ResourceInfo,
    /// The part of the object, if the request is about one.
    pub subresource: Option<Subresource>,
    /// The namespace, empty for cluster-wide resources.
    pub namespace: &'a str,
    /// The name; empty while it is not generated yet.
    pub name: &'a str,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The object as it is now, unless it is created.
    pub old: Option<&'a dyn Object>,
    /// What else the server knows.
    pub lookup: Lookup<'a>,
}

impl Review<'_> {
    /// The refusal of this write, for a reason in upstream's words.
    #[must_use]
    pub fn forbidden(&self, object: &dyn Object, why: impl std::fmt::Display) -> ApiError {
        let resource = GroupResource::new(self.resource.group.to_string(), self.resource.plural.to_string());
        let name = if self.name.is_empty() {
            object.name()
        } else {
            self.name
        };
        ApiError::forbidden(&resource, name, why)
    }

    /// Whether it is about that resource itself, not about a part of its objects.
    #[must_use]
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural && self.subresource.is_none()
    }
}

/// Reads other objects on behalf of admission.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    context: &'a Context,
}

impl Debug for Lookup<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookup")
    }
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(context: &'a Context) -> Self {
        Self { context }
    }

    /// The objects of a resource that is served in version `v1`: all of them, or those of a namespace. It holds every write that
    /// was acknowledged before the call.
    ///
    /// # Errors
    /// When the store cannot be read, or one of them not be decoded.
    pub async fn all<T: DeserializeOwned>(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
    ) -> Result<Vec<T>, ApiError> {
        let Some(resource) = self.context.resources.get(group, "v1", plural) else {
            return Ok(Vec::new());
        };
        let prefix = match namespace {
            "" => resource.info().prefix(),
            namespace => resource.info().namespace_prefix(namespace),
        };
        let snapshot = resource.cache.fresh().await?;
        let entries = snapshot.range(prefix.as_bytes(), Bound::Unbounded);
        entries
            .map(|entry| serde_json::from_slice(&entry.json).map_err(ApiError::internal))
            .collect()
    }

    /// One object of a cluster-wide resource that is served in version `v1`, `None` when it does not exist.
    ///
    /// # Errors
    /// When the store cannot be read, or the object not be decoded.
    pub async fn find<T: DeserializeOwned>(
        &self,
        group: &str,
        plural: &str,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(resource) = self.context.resources.get(group, "v1", plural) else {
            return Ok(None);
        };
        let snapshot = resource.cache.fresh().await?;
        let entry = snapshot.get(resource.info().key("", name).as_bytes());
        let object = entry.map(|entry| serde_json::from_slice(&entry.json));
        object.transpose().map_err(ApiError::internal)
    }

    /// The JSON of an object of the core group as it is stored now, `None` when it does not exist.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn core(&self, plural: &str, namespace: &str, name: &str) -> Result<Option<Bytes>, ApiError> {
        let Some(resource) = self.context.core(plural) else {
            return Ok(None);
        };
        match read::bytes(self.context, resource, namespace, name, None).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A rule for writes.
///
/// The server calls [`mutate`](Self::mutate) of all rules in order, then, when the object is complete and valid,
/// [`validate`](Self::validate) of all of them. Either may refuse the write by an error, which the client gets
/// as it is. Both may run more than once for one request, when the object changed meanwhile; neither may have effects
/// elsewhere. For a deletion there is no object to change: only `validate` is called, with the old object.
#[async_trait]
pub trait Admission: Send + Sync + Debug + 'static {
    /// Changes the object, or refuses the write.
    ///
    /// # Errors
    /// Why the write is refused.
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        let _ = (review, object);
        Ok(())
    }

    /// Looks at the finished object, or refuses the write.
    ///
    /// # Errors
    /// Why the write is refused.
    async fn validate(&self, review: &Review<'_>, object: Option<&dyn Object>) -> Result<(), ApiError> {
        let _ = (review, object);
        Ok(())
    }
}
