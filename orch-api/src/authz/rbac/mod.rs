//! Role based access control: who may do what is written in Roles, ClusterRoles and their bindings.
//!
//! The rules come from the server's own watch caches. They are read and sorted once per change of an object
//! ([`index`]): a request compares the caches' snapshots with those last seen, which are a pointer each, and only what
//! differs is read again. Whoever writes a role or binding through this server waits until the cache has it, so that an
//! answered write counts from then on.

pub(crate) mod aggregation;
pub(crate) mod escalation;
mod index;
pub(crate) mod policy;
mod rule;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use orch_core::status::ApiError;
use parking_lot::{RwLock, RwLockUpgradableReadGuard};

use self::index::{Index, NoRole};
use super::{Attributes, Authorizer, Decision, UserRules};
use crate::cache::snapshot::Snapshot;
use crate::registry::{Resource, Resources};
use crate::user::UserInfo;

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
/// Roles first, then bindings.
const KINDS: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

/// The authorizer of roles and bindings. Clones share one index.
#[derive(Clone, Debug)]
pub(crate) struct Rbac {
    resources: [Option<Arc<Resource>>; 4],
    seen: Arc<RwLock<Seen>>,
}

/// An index, and what it was made of.
#[derive(Debug, Default)]
struct Seen {
    snapshots: [Arc<Snapshot>; 4],
    index: Index,
}

impl Rbac {
    pub(crate) fn new(resources: &Resources) -> Self {
        Self {
            resources: KINDS.map(|plural| resources.fixed(GROUP, "v1", plural).cloned()),
            seen: Arc::default(),
        }
    }

    /// Asks the index of the newest state that the caches have.
    async fn ask<T>(&self, question: impl FnOnce(&Index) -> T) -> Result<T, ApiError> {
        let mut newest: [Arc<Snapshot>; 4] = Default::default();
        for (resource, snapshot) in self.resources.iter().zip(&mut newest) {
            if let Some(resource) = resource {
                *snapshot = resource.cache.any().await?;
            }
        }
        {
            let seen = self.seen.read();
            if seen.is(&newest) {
                return Ok(question(&seen.index));
            }
        }
        let seen = self.seen.upgradable_read();
        if seen.is(&newest) {
            return Ok(question(&seen.index));
        }
        let mut seen = RwLockUpgradableReadGuard::upgrade(seen);
        seen.catch_up(newest);
        Ok(question(&seen.index))
    }

    /// All rules that a user has in a namespace, and what could not be found.
    async fn rules_for(
        &self,
        user: &UserInfo,
        namespace: &str,
    ) -> Result<(Vec<PolicyRule>, Vec<NoRole>), ApiError> {
        self.ask(|index| index.rules_for(user, namespace)).await
    }

    /// The rules of the role that a binding in a namespace names.
    async fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, ApiError> {
        let found = self.ask(|index| index.rules_of(role, namespace).cloned()).await?;
        found.map_err(|error| super::rbac::escalation::no_role(role, &error))
    }
}

impl Seen {
    fn is(&self, newest: &[Arc<Snapshot>; 4]) -> bool {
        let mut pairs = self.snapshots.iter().zip(newest);
        pairs.all(|(seen, newest)| Arc::ptr_eq(seen, newest) || seen.revision > newest.revision)
    }

    fn catch_up(&mut self, newest: [Arc<Snapshot>; 4]) {
        for (at, newest) in newest.into_iter().enumerate() {
            let index = &mut self.index;
            // Somebody else may have come with a later state of this kind.
            if self.snapshots[at].revision > newest.revision {
                continue;
            }
            newest.changes_since(&self.snapshots[at], |before, after| match at {
                0 | 1 => index.role(before, after),
                _ => index.binding(before, after),
            });
            self.snapshots[at] = newest;
        }
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        let asked = self.ask(|index| index.decide(user, attributes)).await;
        asked.unwrap_or_else(|error| Decision::NoOpinion(format!("RBAC: {}", error.message()).into()))
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> UserRules {
        match self.rules_for(user, namespace).await {
            Ok((rules, errors)) if errors.is_empty() => UserRules {
                rules,
                incomplete: String::new(),
            },
            Ok((rules, errors)) => UserRules {
                rules,
                incomplete: index::together(&errors),
            },
            Err(error) => UserRules {
                incomplete: error.message().to_owned(),
                ..UserRules::default()
            },
        }
    }
}
