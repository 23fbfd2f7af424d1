//! Creating objects.

use bytes::Bytes;
use http::StatusCode;
use orch_core::status::ApiError;
use orch_store::StoreError;

use super::live::{encode, served};
use super::metadata;
use super::write::{Candidate, Outcome, Write};
use crate::admission::Operation;
use crate::conversion;
use crate::object::Object;
use crate::ownership;
use crate::store_error;

/// How often a generated name that is taken is generated anew.
const NAME_ATTEMPTS: usize = 8;

impl Write<'_> {
    /// POST to a collection.
    pub(crate) async fn create(&self, body: &[u8]) -> Result<Outcome, ApiError> {
        let mut candidate = self.read_body(body)?;
        self.place(&mut *candidate.object, None)?;
        self.create_object(candidate).await
    }

    /// Creates an object that is already decoded and in its place.
    pub(crate) async fn create_object(&self, candidate: Candidate) -> Result<Outcome, ApiError> {
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
        object.metadata_mut().generation = None;
        strategy.prepare_for_create(&mut *object);
        let allocation = self
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
        let stored = self.store_new(key.into(), &name, &mut *object).await?;
        if !self.options.dry_run {
            allocation.keep();
        }
        Ok(Outcome {
            code: StatusCode::CREATED,
            json: stored,
            warnings,
        })
    }

    async fn store_new(&self, key: Bytes, name: &str, object: &mut dyn Object) -> Result<Bytes, ApiError> {
        let value = encode(object);
        let exists = || ApiError::already_exists(&self.resource.group_resource, name);
        if self.options.dry_run {
            let read = self.context.store.0.get(&key, None).await.map_err(store_error)?;
            return if read.kv.is_some() {
                Err(exists())
            } else {
                Ok(value)
            };
        }
        let ttl = self.context.time_to_live(self.resource);
        let stored = conversion::to_storage(&*self.resource.strategy, &value)?;
        match self.context.store.0.create(key, stored, ttl).await {
            Ok(kv) => Ok(served(&value, kv.mod_revision.get())),
            Err(StoreError::AlreadyExists { .. }) => Err(exists()),
            Err(error) => Err(store_error(error)),
        }
    }
}
