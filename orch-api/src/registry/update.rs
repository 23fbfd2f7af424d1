//! Changing objects: one loop for PUT, every patch, apply and the subresources that write.

use bytes::Bytes;
use http::StatusCode;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orch_core::field::{ErrorList, FieldError, Path};
use orch_core::status::ApiError;
use orch_store::StoreError;

use super::live::{self, Live, encode};
use super::metadata;
use super::write::{Candidate, Outcome, Write};
use crate::admission::Operation;
use crate::authz::rbac::escalation;
use crate::conversion;
use crate::object::Object;
use crate::ownership;
use crate::resource::Subresource;
use crate::services::Allocation;
use crate::store_error;

/// How often a write that names no resourceVersion is tried again when somebody else was first.
const ATTEMPTS: usize = 16;

/// How one attempt ended.
enum Attempt {
    Done(Bytes),
    /// Somebody else wrote meanwhile.
    Raced,
    /// Another server was faster with what was chosen for the object.
    Again,
}

impl Write<'_> {
    /// PUT of an object or of its status.
    pub(crate) async fn replace(&self, name: &str, body: &[u8]) -> Result<Outcome, ApiError> {
        let mut wanted = self.read_body(body)?;
        self.place(&mut *wanted.object, Some(name))?;
        let strategy = &*self.resource.strategy;
        let version = wanted
            .object
            .metadata()
            .resource_version
            .clone()
            .unwrap_or_default();
        if version.is_empty() && !strategy.unconditional_update() {
            let path = Path::new("metadata").child("resourceVersion");
            let errors =
                ErrorList::from_iter([FieldError::invalid(&path, 0, "must be specified for an update")]);
            self.check(name, &errors)?;
        }
        let creates = strategy.create_on_update() && self.subresource.is_none() && version.is_empty();
        let or_create = || Ok(creates.then(|| wanted.clone()));
        self.change(name, or_create, |_| Ok(wanted.clone())).await
    }

    /// Computes a new object from the present one and stores it, again and again until nobody else is faster.
    /// What `or_create` gives is created when there is nothing yet; it is asked only then.
    pub(crate) async fn change(
        &self,
        name: &str,
        or_create: impl Fn() -> Result<Option<Candidate>, ApiError>,
        compute: impl Fn(&Live) -> Result<Candidate, ApiError>,
    ) -> Result<Outcome, ApiError> {
        for _ in 0..ATTEMPTS {
            let Some(live) = live::load(self.context, self.resource, self.namespace, name).await? else {
                let Some(candidate) = or_create()? else {
                    return Err(ApiError::not_found(&self.resource.group_resource, name));
                };
                match self.create_object(candidate).await {
                    Err(error) if error.is_already_exists() => continue,
                    other => return other,
                }
            };
            let Candidate {
                mut object,
                mut warnings,
                owners_known,
            } = compute(&live)?;
            let guarded = self.check_preconditions(name, object.metadata(), &live)?;
            let allocation = self.prepare(&mut object, &live, owners_known).await?;
            warnings.extend(self.resource.strategy.warnings(&*object, Some(&*live.object)));
            match self.store_changed(&live, object, allocation).await? {
                Attempt::Done(json) => {
                    return Ok(Outcome {
                        code: StatusCode::OK,
                        json,
                        warnings,
                    });
                }
                Attempt::Raced if guarded => break,
                Attempt::Raced | Attempt::Again => (),
            }
        }
        Err(ApiError::modified(&self.resource.group_resource, name))
    }

    /// Compares the identity and version that the client expects. Whether it expects a version is the answer.
    fn check_preconditions(&self, name: &str, wanted: &ObjectMeta, live: &Live) -> Result<bool, ApiError> {
        let expected = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let (Some(uid), Some(actual)) = (expected(&wanted.uid), &live.object.metadata().uid)
            && uid != *actual
        {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}");
            return Err(ApiError::conflict(&self.resource.group_resource, name, why));
        }
        let Some(version) = expected(&wanted.resource_version) else {
            return Ok(false);
        };
        let version: u64 = version.parse().map_err(|_| {
            let path = Path::new("metadata").child("resourceVersion");
            let error = FieldError::invalid(&path, version.as_str(), "must be a decimal number");
            ApiError::invalid(&self.resource.group_kind, name, &ErrorList::from_iter([error]))
        })?;
        // Zero is no version, as in kube-apiserver.
        match version {
            0 => Ok(false),
            version if version == live.revision() => Ok(true),
            _ => Err(ApiError::modified(&self.resource.group_resource, name)),
        }
    }

    async fn prepare(
        &self,
        object: &mut Box<dyn Object>,
        live: &Live,
        owners_known: bool,
    ) -> Result<Option<Allocation>, ApiError> {
        let (strategy, old) = (&*self.resource.strategy, &*live.object);
        strategy.default(&mut **object);
        metadata::prepare_update(object.metadata_mut(), old.metadata());
        if !owners_known {
            ownership::track(self, &mut **object, Some(old))?;
        }
        self.admit(Operation::Update, &mut **object, Some(old)).await?;
        escalation::check(self, &**object, Some(old)).await?;
        let name = object.name().to_owned();
        let mut errors = metadata::validate_update(object.metadata(), old.metadata());
        let mut allocation = None;
        if self.subresource == Some(Subresource::Status) {
            strategy.prepare_for_status_update(&mut **object, old);
            errors.extend(strategy.validate_status_update(&**object, old));
        } else {
            strategy.prepare_for_update(&mut **object, old);
            allocation = Some(
                self.context
                    .services
                    .allocate(self.resource, &mut **object, Some(old))?,
            );
            errors.extend(strategy.validate_update(&**object, old));
        }
        self.check(&name, &errors)?;
        self.admit_finished(Operation::Update, &name, Some(&**object), Some(old))
            .await?;
        Ok(allocation)
    }

    async fn store_changed(
        &self,
        live: &Live,
        mut object: Box<dyn Object>,
        mut allocation: Option<Allocation>,
    ) -> Result<Attempt, ApiError> {
        if is_deleted_by_update(&*object, live.object.metadata()) {
            return self.remove_after_update(live, &*object).await;
        }
        let value = encode(&mut *object);
        if !live.stale && (value == live.kv.value || ownership::only_times_differ(&*object, live)) {
            return Ok(Attempt::Done(live.served()));
        }
        if self.options.dry_run {
            return Ok(Attempt::Done(live::served(&value, live.revision())));
        }
        let ttl = self.context.time_to_live(self.resource);
        let (key, expected) = (live.kv.key.clone(), live.kv.mod_revision);
        let stored = conversion::to_storage(&*self.resource.strategy, &value)?;
        if let Some(allocation) = &mut allocation
            && allocation.claim().await?.is_err()
        {
            return Ok(Attempt::Again);
        }
        match self.context.store.0.update(key, stored, expected, ttl).await {
            Ok(kv) => {
                if let Some(allocation) = allocation {
                    allocation.keep().await;
                }
                Ok(Attempt::Done(live::served(&value, kv.mod_revision.get())))
            }
            Err(StoreError::Conflict { .. }) => Ok(Attempt::Raced),
            Err(error) => {
                if let Some(allocation) = allocation.filter(|_| error.outcome_is_unknown()) {
                    allocation.leave();
                }
                Err(store_error(error))
            }
        }
    }

    /// The last finalizer has gone from an object that is being deleted: now it goes too.
    async fn remove_after_update(&self, live: &Live, object: &dyn Object) -> Result<Attempt, ApiError> {
        let json = Bytes::from(object.to_json());
        if self.options.dry_run {
            return Ok(Attempt::Done(json));
        }
        match self
            .context
            .store
            .0
            .delete(&live.kv.key, Some(live.kv.mod_revision))
            .await
        {
            Ok(_) => {
                self.context.services.release(&*live.object).await;
                Ok(Attempt::Done(json))
            }
            Err(StoreError::Conflict { .. }) => Ok(Attempt::Raced),
            Err(error) => Err(store_error(error)),
        }
    }
}

/// Upstream's `ShouldDeleteDuringUpdate`. A namespace has finalizers in its spec too.
fn is_deleted_by_update(new: &dyn Object, old: &ObjectMeta) -> bool {
    let some = |names: Option<&Vec<String>>| names.is_some_and(|names| !names.is_empty());
    let namespace = new
        .downcast_ref::<Namespace>()
        .and_then(|namespace| namespace.spec.as_ref()?.finalizers.as_ref());
    !some(new.metadata().finalizers.as_ref())
        && !some(namespace)
        && some(old.finalizers.as_ref())
        && old.deletion_timestamp.is_some()
        && old.deletion_grace_period_seconds.unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::UserInfo;
    use crate::http::query::Query;
    use crate::registry::options::WriteOptions;
    use crate::testkit::TestServer;

    #[tokio::test]
    async fn what_would_be_created_is_asked_only_when_nothing_is_there() {
        let server = TestServer::start().await;
        let context = &server.server().context;
        let (query, headers) = (Query::parse(None), HeaderMap::new());
        let write = Write {
            context,
            resource: context.core("namespaces").unwrap(),
            namespace: "",
            subresource: None,
            user: &UserInfo::admin(),
            options: &WriteOptions::parse(&query, &headers, "PatchOptions").unwrap(),
        };
        let asked = || Err(ApiError::bad_request("asked"));
        let same = |live: &Live| {
            Ok(Candidate {
                object: live.object.clone(),
                warnings: Vec::new(),
                owners_known: true,
            })
        };
        assert!(write.change("default", asked, same).await.is_ok());
        let error = write.change("absent", asked, same).await.unwrap_err();
        assert_eq!(error.code(), 400);
    }
}
