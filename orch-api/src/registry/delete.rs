//! Deleting objects: at once, gracefully, or when the last finalizer has gone.

use bytes::Bytes;
use http::StatusCode;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    DeleteOptions, ObjectMeta, Status, StatusDetails, Time,
};
use orch_core::field::{ErrorList, FieldError, Path};
use orch_core::status::{ApiError, GroupKind};
use orch_store::StoreError;

use super::live::{self, Live, encode};
use super::metadata::{FOREGROUND, ORPHAN, now};
use super::options::dry_run;
use super::write::Write;
use crate::admission::Operation;
use crate::conversion;
use crate::http::query::Query;
use crate::object::Object;
use crate::store_error;

const ATTEMPTS: usize = 16;

/// What becomes of the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// What the client wants of a deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

impl Deletion {
    /// Reads options from the body or, when there is none, from the query.
    pub(crate) fn parse(query: &Query, body: &[u8]) -> Result<Self, ApiError> {
        let options = if body.is_empty() {
            from_query(query)?
        } else {
            from_body(body)?
        };
        let mut errors = ErrorList::new();
        let policy = Path::new("propagationPolicy");
        let propagation = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
            (Some(_), Some(_)) => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid(
                    &policy,
                    options.propagation_policy.clone(),
                    why,
                ));
                None
            }
            (None, orphan) => orphan.map(|orphan| {
                if orphan {
                    Propagation::Orphan
                } else {
                    Propagation::Background
                }
            }),
            (Some("Orphan"), None) => Some(Propagation::Orphan),
            (Some("Background"), None) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some(other), None) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&policy, other, supported));
                None
            }
        };
        let dry_run = dry_run(options.dry_run.iter().flatten().map(String::as_str), &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                &GroupKind::new("meta.k8s.io", "DeleteOptions"),
                "",
                &errors,
            ));
        }
        let preconditions = options.preconditions.unwrap_or_default();
        Ok(Self {
            grace: options.grace_period_seconds,
            propagation,
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            dry_run,
        })
    }
}

fn from_query(query: &Query) -> Result<DeleteOptions, ApiError> {
    let dry_run: Vec<String> = query.all("dryRun").map(str::to_owned).collect();
    Ok(DeleteOptions {
        grace_period_seconds: query.number("gracePeriodSeconds")?,
        propagation_policy: query.get("propagationPolicy").map(str::to_owned),
        orphan_dependents: query
            .get("orphanDependents")
            .map(|_| query.flag("orphanDependents")),
        dry_run: (!dry_run.is_empty()).then_some(dry_run),
        ..DeleteOptions::default()
    })
}

/// The options come under whatever version the client has: only their fields matter.
fn from_body(body: &[u8]) -> Result<DeleteOptions, ApiError> {
    let bad = |error: serde_json::Error| {
        ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
    };
    let mut value: serde_json::Value = serde_json::from_slice(body).map_err(bad)?;
    if let Some(fields) = value.as_object_mut() {
        let kind = fields.remove("kind");
        fields.remove("apiVersion");
        if let Some(kind) = kind
            .as_ref()
            .and_then(|kind| kind.as_str())
            .filter(|kind| *kind != "DeleteOptions")
        {
            return Err(ApiError::bad_request(format!(
                "decoded object cannot be converted to DeleteOptions: {kind}"
            )));
        }
    }
    serde_json::from_value(value).map_err(bad)
}

/// What a deletion came to.
pub(crate) enum Deleted {
    /// The object has gone; this was its last state.
    Gone { json: Bytes, uid: Option<String> },
    /// It is marked and goes later.
    Pending(Bytes),
}

/// The next step towards an object's end. Decided without I/O.
enum Step {
    Remove,
    Mark,
    /// It is marked already; there is nothing new to say.
    Wait,
}

impl Write<'_> {
    /// DELETE of one object.
    pub(crate) async fn delete(&self, name: &str, wanted: &Deletion) -> Result<Deleted, ApiError> {
        for _ in 0..ATTEMPTS {
            let live = live::load(self.context, self.resource, self.namespace, name).await?;
            let live = live.ok_or_else(|| ApiError::not_found(&self.resource.group_resource, name))?;
            self.check_deletion(name, wanted, &live)?;
            self.admit_finished(Operation::Delete, name, None, Some(&*live.object))
                .await?;
            let mut object = live.object.clone();
            let done = match self.mark(&mut *object, wanted)? {
                Step::Wait => Some(Deleted::Pending(live.served())),
                Step::Remove => self.remove(&live, wanted).await?,
                Step::Mark => self.store_mark(&live, &mut *object, wanted).await?,
            };
            if let Some(done) = done {
                return Ok(done);
            }
        }
        Err(ApiError::modified(&self.resource.group_resource, name))
    }

    fn check_deletion(&self, name: &str, wanted: &Deletion, live: &Live) -> Result<(), ApiError> {
        let conflict = |what: &str, wanted: &str, actual: &str| {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}"
            );
            Err(ApiError::conflict(&self.resource.group_resource, name, why))
        };
        let actual = live.object.metadata().uid.as_deref().unwrap_or_default();
        if let Some(uid) = wanted.uid.as_deref().filter(|uid| *uid != actual) {
            return conflict("UID", uid, actual);
        }
        let actual = live.revision().to_string();
        if let Some(version) = wanted
            .resource_version
            .as_deref()
            .filter(|version| *version != actual)
        {
            return conflict("ResourceVersion", version, &actual);
        }
        Ok(())
    }

    /// Decides the step, and marks the object where that is it.
    fn mark(&self, object: &mut dyn Object, wanted: &Deletion) -> Result<Step, ApiError> {
        if object.downcast_ref::<Namespace>().is_some() {
            return self.mark_namespace(object, wanted);
        }
        if object.metadata().deletion_timestamp.is_none() {
            self.resource.strategy.prepare_for_delete(object);
        }
        let grace = self.resource.strategy.grace_period(object, wanted.grace);
        let finalizers_changed = add_finalizers(object.metadata_mut(), wanted.propagation);
        let metadata = object.metadata_mut();
        let held = metadata
            .finalizers
            .as_ref()
            .is_some_and(|finalizers| !finalizers.is_empty());
        let is_marked = metadata.deletion_timestamp.is_some();
        let step = match grace {
            Some(seconds) if seconds > 0 || (is_marked && held) => {
                mark_graceful(metadata, seconds, wanted.grace)
            }
            _ if held && is_marked => Step::Wait,
            _ if held => {
                set_deadline(metadata, 0);
                Step::Mark
            }
            _ => Step::Remove,
        };
        Ok(if matches!(step, Step::Wait) && finalizers_changed {
            Step::Mark
        } else {
            step
        })
    }

    /// A namespace goes when its controller has emptied it and taken its own finalizer off.
    fn mark_namespace(&self, object: &mut dyn Object, wanted: &Deletion) -> Result<Step, ApiError> {
        let name = object.name().to_owned();
        if object.metadata().deletion_timestamp.is_none() {
            add_finalizers(object.metadata_mut(), wanted.propagation);
            object.metadata_mut().deletion_timestamp = Some(now());
            if let Some(namespace) = object.downcast_mut::<Namespace>() {
                namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
            }
            if !namespace_is_held(object) {
                return Ok(Step::Remove);
            }
            return Ok(Step::Mark);
        }
        if namespace_is_held(object) {
            let why = "The system is ensuring all content is removed from this namespace.  Upon completion, this \
                       namespace will automatically be purged by the system.";
            return Err(ApiError::conflict(&self.resource.group_resource, &name, why));
        }
        Ok(Step::Remove)
    }

    async fn remove(&self, live: &Live, wanted: &Deletion) -> Result<Option<Deleted>, ApiError> {
        let uid = live.object.metadata().uid.clone();
        if wanted.dry_run {
            return Ok(Some(Deleted::Gone {
                json: live.served(),
                uid,
            }));
        }
        match self
            .context
            .store
            .0
            .delete(&live.kv.key, Some(live.kv.mod_revision))
            .await
        {
            Ok(deleted) => {
                self.context.services.release(&*live.object).await;
                let json = live::served(&live.kv.value, deleted.revision.get());
                Ok(Some(Deleted::Gone { json, uid }))
            }
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }

    async fn store_mark(
        &self,
        live: &Live,
        object: &mut dyn Object,
        wanted: &Deletion,
    ) -> Result<Option<Deleted>, ApiError> {
        let value = encode(object);
        if wanted.dry_run {
            return Ok(Some(Deleted::Pending(live::served(&value, live.revision()))));
        }
        let ttl = self.context.time_to_live(self.resource);
        let stored = conversion::to_storage(&*self.resource.strategy, &value)?;
        match self
            .context
            .store
            .0
            .update(live.kv.key.clone(), stored, live.kv.mod_revision, ttl)
            .await
        {
            Ok(kv) => Ok(Some(Deleted::Pending(live::served(
                &value,
                kv.mod_revision.get(),
            )))),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }

    /// The answer to a deletion of one object.
    pub(crate) fn answer(
        &self,
        name: &str,
        wanted: &Deletion,
        deleted: Deleted,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        let info = self.resource.info();
        match deleted {
            Deleted::Pending(json) => {
                let waits = matches!(
                    wanted.propagation,
                    Some(Propagation::Orphan | Propagation::Foreground)
                );
                Ok((
                    if waits {
                        StatusCode::ACCEPTED
                    } else {
                        StatusCode::OK
                    },
                    json,
                ))
            }
            Deleted::Gone { json, .. }
                if info.group.is_empty() && RETURNED.contains(&info.plural.as_ref()) =>
            {
                Ok((StatusCode::OK, json))
            }
            Deleted::Gone { uid, .. } => {
                let details = StatusDetails {
                    name: Some(name.to_owned()),
                    group: (!info.group.is_empty()).then(|| info.group.to_string()),
                    kind: Some(info.plural.to_string()),
                    uid,
                    ..StatusDetails::default()
                };
                let status = Status {
                    status: Some("Success".into()),
                    details: Some(details),
                    ..Status::default()
                };
                Ok((
                    StatusCode::OK,
                    serde_json::to_vec(&status).map_err(ApiError::internal)?.into(),
                ))
            }
        }
    }
}

/// Core kinds whose deletion answers with the object rather than a Status.
const RETURNED: [&str; 7] = [
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
    "services",
];

fn namespace_is_held(object: &dyn Object) -> bool {
    let own = object
        .downcast_ref::<Namespace>()
        .and_then(|namespace| namespace.spec.as_ref()?.finalizers.as_ref());
    let some = |names: Option<&Vec<String>>| names.is_some_and(|names| !names.is_empty());
    some(own) || some(object.metadata().finalizers.as_ref())
}

/// Puts the garbage collector's finalizers on or off, as the propagation says. Whether that changed anything.
fn add_finalizers(metadata: &mut ObjectMeta, propagation: Option<Propagation>) -> bool {
    let before = metadata.finalizers.clone().unwrap_or_default();
    let had = |name: &str| before.iter().any(|finalizer| finalizer == name);
    // Without a word from the client, what stands on the object is kept.
    let (orphan, foreground) = match propagation {
        Some(wanted) => (wanted == Propagation::Orphan, wanted == Propagation::Foreground),
        None => (had(ORPHAN), had(FOREGROUND)),
    };
    let mut after: Vec<String> = before
        .iter()
        .filter(|name| *name != ORPHAN && *name != FOREGROUND)
        .cloned()
        .collect();
    after.extend(
        [(orphan, ORPHAN), (foreground, FOREGROUND)]
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| name.to_owned()),
    );
    let changed = after.len() != before.len() || after.iter().any(|name| !before.contains(name));
    if changed {
        metadata.finalizers = (!after.is_empty()).then_some(after);
    }
    changed
}

/// Marks an object whose end somebody else confirms, or shortens the time it has.
fn mark_graceful(metadata: &mut ObjectMeta, seconds: i64, requested: Option<i64>) -> Step {
    let Some(deadline) = metadata.deletion_timestamp.clone() else {
        set_deadline(metadata, seconds);
        return Step::Mark;
    };
    let present = metadata.deletion_grace_period_seconds.unwrap_or(0);
    // Only a shorter period than the present one counts; nobody's deletion is put off.
    match requested {
        Some(requested) if requested < present => {
            let start = deadline
                .0
                .checked_sub(SignedDuration::from_secs(present))
                .unwrap_or(deadline.0);
            let sooner = start
                .checked_add(SignedDuration::from_secs(seconds))
                .unwrap_or(deadline.0);
            metadata.deletion_timestamp = Some(Time(sooner));
            metadata.deletion_grace_period_seconds = Some(seconds);
            Step::Mark
        }
        _ => Step::Wait,
    }
}

fn set_deadline(metadata: &mut ObjectMeta, seconds: i64) {
    let now = now();
    let deadline = now
        .0
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(now.0);
    metadata.deletion_timestamp = Some(Time(deadline));
    metadata.deletion_grace_period_seconds = Some(seconds);
    // Who watches generations has to act on the deletion.
    if let Some(generation) = &mut metadata.generation {
        *generation += 1;
    }
}
