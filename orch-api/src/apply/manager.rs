//! Field management of one request.

use jiff::Timestamp;
use orch_core::status::ApiError;
use serde_json::{Map, Value};

use super::conflict::Conflicts;
use super::fields::FieldSet;
use super::last_applied::{KUBECTL, allowed_conflicts, refresh};
use super::managed::{ManagerId, Managers, format_time, is_reset};
use super::merge::{Frame, OneVersion, Versions};
use super::validate::{summary, validate};
use super::walk::drop_nulls;
use super::zero::{with_embedded, zero};
use crate::schema::Type;

const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const UNKNOWN_MANAGER: &str = "unknown";
const CURRENT_OPERATION: &str = "current-operation";

/// Why a configuration was not applied. The live object is unchanged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Others own fields which the configuration changes, and force wasn't asked for.
    #[error("{0}")]
    Conflict(Conflicts),
    /// The configuration is malformed.
    #[error("{0}")]
    BadConfiguration(String),
    /// The live object's `managedFields` can't be read.
    #[error("failed to decode managed fields: {0}")]
    ManagedFields(String),
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Conflict(conflicts) => conflicts.into(),
            ApplyError::BadConfiguration(text) => ApiError::bad_request(text),
            error @ ApplyError::ManagedFields(_) => ApiError::internal(error),
        }
    }
}

/// Keeps `metadata.managedFields` of objects of one kind, for requests in one API version and through one subresource.
///
/// Objects are JSON, complete with `apiVersion`, `kind` and `metadata`.
#[derive(Clone, Copy)]
pub struct FieldManager<'a> {
    ty: &'a Type,
    api_version: &'a str,
    kind: &'a str,
    subresource: &'a str,
    ignored: Option<&'a FieldSet>,
    versions: &'a dyn Versions,
}

impl std::fmt::Debug for FieldManager<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FieldManager")
            .field("api_version", &self.api_version)
            .field("kind", &self.kind)
            .field("subresource", &self.subresource)
            .finish_non_exhaustive()
    }
}

impl<'a> FieldManager<'a> {
    /// For requests to the object itself, of a kind with one version.
    #[must_use]
    pub fn new(ty: &'a Type, api_version: &'a str, kind: &'a str) -> Self {
        Self {
            ty,
            api_version,
            kind,
            subresource: "",
            ignored: None,
            versions: &OneVersion,
        }
    }

    /// For requests through a subresource, such as `status`.
    #[must_use]
    pub fn subresource(mut self, subresource: &'a str) -> Self {
        self.subresource = subresource;
        self
    }

    /// Fields which these requests can't change because the kind's strategy puts them back: `status` for the object
    /// itself, `spec` for its status. Nobody comes to own them.
    #[must_use]
    pub fn ignoring(mut self, fields: &'a FieldSet) -> Self {
        self.ignored = Some(fields);
        self
    }

    /// How to get to the kind's other API versions.
    #[must_use]
    pub fn versions(mut self, versions: &'a dyn Versions) -> Self {
        self.versions = versions;
        self
    }

    /// The owners after POST, PUT or a patch that isn't an apply: gives `new` with its `managedFields`.
    ///
    /// `live` is the stored object, absent for a create. `new` is the complete object, before the kind's strategy
    /// prepares it. Its `managedFields` count if they are well formed and the request isn't to a subresource; an empty
    /// list forgets all owners. Objects that have no owners get none until the first apply.
    #[must_use]
    pub fn update(&self, live: Option<&Value>, mut new: Value, manager: &str, now: Timestamp) -> Value {
        let mut managers = self.current_managers(live, &new);
        take_managed_fields(&mut new);
        if managers.is_empty() && live.is_some() {
            return new;
        }
        let base = match live {
            Some(live) => {
                let mut live = live.clone();
                take_managed_fields(&mut live);
                live
            }
            None => zero(self.ty),
        };
        self.track(&base, &new, &mut managers, manager, now);
        managers.cap_updates();
        put_managed_fields(&mut new, &managers);
        new
    }

    /// Applies a configuration: gives the object as it should be, before defaulting, with its `managedFields`.
    ///
    /// `live` is absent if the object doesn't exist yet; the result then is what to create.
    ///
    /// # Errors
    /// [`ApplyError::Conflict`] if others own what the configuration changes and `force` is off;
    /// [`ApplyError::BadConfiguration`] if it isn't of this kind and version, has `managedFields`, or doesn't fit the
    /// kind's type.
    pub fn apply(
        &self,
        live: Option<&Value>,
        config: &Value,
        manager: &str,
        force: bool,
        now: Timestamp,
    ) -> Result<Value, ApplyError> {
        self.check(config)?;
        let mut base = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
        let stored = take_managed_fields(&mut base);
        let mut managers = Managers::read(stored.as_ref()).map_err(ApplyError::ManagedFields)?;
        if managers.is_empty() && live.is_some() {
            self.track(&zero(self.ty), &base, &mut managers, BEFORE_FIRST_APPLY, now);
            managers.cap_updates();
        }
        let (mut object, mut managers) = match self.try_apply(&base, config, &managers, manager, force, now) {
            Err(ApplyError::Conflict(conflicts)) if manager == KUBECTL => {
                self.upgrade(&base, config, &managers, conflicts, now)?
            }
            outcome => outcome?,
        };
        self.strip(&mut managers, &self.id(manager, true));
        if manager == KUBECTL {
            refresh(&mut object, config);
        }
        put_managed_fields(&mut object, &managers);
        Ok(object)
    }

    fn try_apply(
        &self,
        live: &Value,
        config: &Value,
        managers: &Managers,
        manager: &str,
        force: bool,
        now: Timestamp,
    ) -> Result<(Value, Managers), ApplyError> {
        let me = self.id(manager, true);
        let mut managers = managers.clone();
        let applied = self.with_frame(|frame| frame.apply(live, config, &mut managers, &me, force));
        let mut object = applied.map_err(ApplyError::Conflict)?;
        drop_nulls(&mut object, Some(live));
        if object.is_null() {
            object = Value::Object(Map::new());
        }
        if let Some(owned) = managers.0.get_mut(&me)
            && (object != *live || owned.time.is_none())
        {
            owned.time = Some(format_time(now));
        }
        Ok((object, managers))
    }

    /// Second try of a kubectl that applied from the client before: its own unchanged fields are no conflicts.
    fn upgrade(
        &self,
        live: &Value,
        config: &Value,
        managers: &Managers,
        conflicts: Conflicts,
        now: Timestamp,
    ) -> Result<(Value, Managers), ApplyError> {
        let Some(allowed) = allowed_conflicts(live, self.ty, self.api_version) else {
            return Err(ApplyError::Conflict(conflicts));
        };
        let left = conflicts.except(&allowed);
        if !left.0.is_empty() {
            return Err(ApplyError::Conflict(left));
        }
        self.try_apply(live, config, managers, KUBECTL, true, now)
    }

    fn check(&self, config: &Value) -> Result<(), ApplyError> {
        let bad = |text: String| Err(ApplyError::BadConfiguration(text));
        let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version != self.api_version || kind != self.kind {
            return bad(format!("invalid object type: {api_version}, Kind={kind}"));
        }
        if config
            .pointer("/metadata/managedFields")
            .is_some_and(|entries| !entries.is_null())
        {
            return bad("metadata.managedFields must be nil".to_owned());
        }
        let errors = validate(config, self.ty);
        if errors.is_empty() {
            return Ok(());
        }
        let part = |path| config.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let who = format!(
            "{}/{}; {api_version}, Kind={kind}",
            part("/metadata/namespace"),
            part("/metadata/name")
        );
        bad(format!(
            "failed to create typed patch object ({who}): {}",
            summary(&errors)
        ))
    }

    /// Owners to start from: those which the request sets, or those which the live object has.
    fn current_managers(&self, live: Option<&Value>, new: &Value) -> Managers {
        let entries = |object: &'_ Value| object.pointer("/metadata/managedFields").cloned();
        let stored = || Managers::read(live.and_then(entries).as_ref()).unwrap_or_default();
        if !self.subresource.is_empty() {
            return stored();
        }
        let requested = entries(new);
        if is_reset(requested.as_ref()) {
            return Managers::default();
        }
        match Managers::read(requested.as_ref()) {
            Ok(managers) if !managers.is_empty() => managers,
            _ => stored(),
        }
    }

    /// Notes what changed between two objects under the name of a manager.
    fn track(&self, old: &Value, new: &Value, managers: &mut Managers, manager: &str, now: Timestamp) {
        // The operation gets an entry of its own first: whether it is there afterwards says whether anything changed.
        let current = self.id(CURRENT_OPERATION, false);
        let (old, new) = (with_embedded(old, self.ty), with_embedded(new, self.ty));
        self.with_frame(|frame| frame.update(&old, &new, managers, &current));
        self.strip(managers, &current);
        let Some(mut owned) = managers.0.remove(&current) else {
            return;
        };
        let me = self.id(manager, false);
        if let Some(previous) = managers.0.remove(&me) {
            owned.fields.extend(&previous.fields);
        }
        owned.time = Some(format_time(now));
        managers.0.insert(me, owned);
    }

    fn id(&self, manager: &str, applied: bool) -> ManagerId {
        ManagerId {
            manager: if manager.is_empty() {
                UNKNOWN_MANAGER
            } else {
                manager
            }
            .to_owned(),
            applied,
            api_version: if applied {
                String::new()
            } else {
                self.api_version.to_owned()
            },
            subresource: self.subresource.to_owned(),
        }
    }

    fn with_frame<T>(&self, run: impl FnOnce(Frame<'_>) -> T) -> T {
        let nothing = FieldSet::new();
        run(Frame {
            ty: self.ty,
            api_version: self.api_version,
            versions: self.versions,
            ignored: self.ignored.unwrap_or(&nothing),
        })
    }

    /// Takes out the fields which nobody owns.
    fn strip(&self, managers: &mut Managers, id: &ManagerId) {
        let Some(owned) = managers.0.get_mut(id) else {
            return;
        };
        owned.fields = owned.fields.difference(&untracked());
        if owned.fields.is_empty() {
            managers.0.remove(id);
        }
    }
}

/// The fields which identify the object, or which the server sets.
fn untracked() -> FieldSet {
    FieldSet::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
}

fn take_managed_fields(object: &mut Value) -> Option<Value> {
    match object.get_mut("metadata") {
        Some(Value::Object(metadata)) => metadata.remove("managedFields"),
        _ => None,
    }
}

fn put_managed_fields(object: &mut Value, managers: &Managers) {
    if managers.is_empty() {
        return;
    }
    if let Value::Object(fields) = object {
        let metadata = fields
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert("managedFields".to_owned(), managers.write());
        }
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "literals read best by value")]
mod tests;
