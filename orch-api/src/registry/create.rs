//! Creating objects.

use bytes::Bytes;
use http::StatusCode;
use orch_core::status::{ApiError, Reason};
use orch_store::StoreError;

use super::live::{encode, served};
use super::metadata;
use super::write::{Candidate, Outcome, Write};
use crate::admission::Operation;
use crate::authz::rbac::escalation;
use crate::conversion;
use crate::object::Object;
use crate::ownership;
use crate::store_error;

/// How often a generated name that is taken is generated anew.
const NAME_ATTEMPTS: usize = 8;

/// How often something else is chosen for an object when other servers are faster with what was chosen.
const CHOICES: usize = 64;

/// Why an object was not stored.
enum Unstored {
    /// Surely not.
    Refused(ApiError),
    /// Perhaps it was.
    Unknown(ApiError),
}

impl Write<'_> {
    /// POST to a collection.
    pub(crate) async fn create(&self, body: &[u8]) -> Result<Outcome, ApiError> {
        let mut candidate = self.read_body(body)?;
        self.place(&mut *candidate.object, None)?;
        self.create_object(candidate).await
    }

    /// Creates an object that is already decoded and in its place.
    pub(crate) async fn create_object(&self, candidate: Candidate) -> Result<Outcome, ApiError> {
        if self.resource.is_terminating() {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(ApiError::new(Reason::MethodNotAllowed, why).with_details(|_| ()));
        }
        if candidate
            .object
            .metadata()
            .resource_version
            .as_deref()
            .is_some_and(|version| !version.is_empty())
        {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let prefix = candidate
            .object
            .metadata()
            .generate_name
            .clone()
            .unwrap_or_default();
        if !candidate.object.name().is_empty() || prefix.is_empty() {
            return self.create_named(candidate).await;
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut attempt = candidate.clone();
            let name = metadata::generate_name(&prefix);
            attempt.object.metadata_mut().name = Some(name.clone());
            match self.create_named(attempt).await {
                Err(error) if error.is_already_exists() && attempts < NAME_ATTEMPTS => (),
                Err(error) if error.is_already_exists() => {
                    return Err(ApiError::generate_name_conflict(
                        &self.resource.group_resource,
                        &name,
                    ));
                }
                other => return other,
            }
        }
    }

    async fn create_named(&self, candidate: Candidate) -> Result<Outcome, ApiError> {
        // Nothing is chosen for others than services.
        let choices = if self.resource.is("", "services") {
            CHOICES
        } else {
            1
        };
        for _ in 1..choices {
            if let Some(outcome) = self.attempt(candidate.clone()).await? {
                return Ok(outcome);
            }
        }
        let last = self.attempt(candidate).await?;
        last.ok_or_else(|| ApiError::internal("other servers take every address or port first"))
    }

    /// Creates it; `None` when another server was faster with what was chosen for it.
    async fn attempt(&self, candidate: Candidate) -> Result<Option<Outcome>, ApiError> {
        let Candidate {
            mut object,
            mut warnings,
            owners_known,
        } = candidate;
        let strategy = &*self.resource.strategy;
        strategy.default(&mut *object);
        metadata::prepare_create(object.metadata_mut(), self.namespace);
        if !owners_known {
            ownership::track(self, &mut *object, None)?;
        }
        self.admit(Operation::Create, &mut *object, None).await?;
        escalation::check(self, &*object, None).await?;
        object.metadata_mut().generation = None;
        strategy.prepare_for_create(&mut *object);
        let mut allocation = self
            .context
            .services
            .allocate(self.resource, &mut *object, None)?;
        let name = object.name().to_owned();
        let mut errors = metadata::validate(
            object.metadata(),
            strategy.name_rule(),
            self.resource.info().is_namespaced(),
        );
        errors.extend(strategy.validate(&*object));
        self.check(&name, &errors)?;
        self.admit_finished(Operation::Create, &name, Some(&*object), None)
            .await?;
        warnings.extend(strategy.warnings(&*object, None));
        let key = self.resource.info().key(self.namespace, &name);
        if !self.options.dry_run && allocation.claim().await?.is_err() {
            return Ok(None);
        }
        let stored = match self.store_new(key.into(), &name, &mut *object).await {
            Ok(stored) => stored,
            Err(Unstored::Refused(error)) => return Err(error),
            Err(Unstored::Unknown(error)) => {
                allocation.leave();
                return Err(error);
            }
        };
        if !self.options.dry_run {
            allocation.keep().await;
        }
        Ok(Some(Outcome {
            code: StatusCode::CREATED,
            json: stored,
            warnings,
        }))
    }

    async fn store_new(&self, key: Bytes, name: &str, object: &mut dyn Object) -> Result<Bytes, Unstored> {
        let value = encode(object);
        let exists = || Unstored::Refused(ApiError::already_exists(&self.resource.group_resource, name));
        if self.options.dry_run {
            let read = self.context.store.0.get(&key, None).await;
            let read = read.map_err(|error| Unstored::Refused(store_error(error)))?;
            return if read.kv.is_some() {
                Err(exists())
            } else {
                Ok(value)
            };
        }
        let ttl = self.context.time_to_live(self.resource);
        let stored = conversion::to_storage(&*self.resource.strategy, &value).map_err(Unstored::Refused)?;
        match self.context.store.0.create(key, stored, ttl).await {
            Ok(kv) => Ok(served(&value, kv.mod_revision.get())),
            Err(StoreError::AlreadyExists { .. }) => Err(exists()),
            Err(error) if error.outcome_is_unknown() => Err(Unstored::Unknown(store_error(error))),
            Err(error) => Err(Unstored::Refused(store_error(error))),
        }
    }
}
