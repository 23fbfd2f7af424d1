//! Writes by the server's own rules, past a kind's strategy: binding a pod, finishing a namespace.

use bytes::Bytes;
use http::StatusCode;
use orch_core::status::ApiError;
use orch_store::StoreError;

use super::live::{self, Live, encode};
use super::write::{Outcome, Write};
use crate::conversion;
use crate::object::Object;
use crate::store_error;

const ATTEMPTS: usize = 16;

/// What to do with an object after it was edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Store it.
    Store,
    /// Delete it.
    Remove,
}

impl Write<'_> {
    /// Changes the present object by `edit`, again when somebody else was faster. Nothing is defaulted,
    /// admitted or validated: `edit` knows what it does.
    pub(crate) async fn edit(
        &self,
        name: &str,
        edit: impl Fn(&mut dyn Object) -> Result<Edit, ApiError>,
    ) -> Result<Outcome, ApiError> {
        for _ in 0..ATTEMPTS {
            let live = live::load(self.context, self.resource, self.namespace, name).await?;
            let live = live.ok_or_else(|| ApiError::not_found(&self.resource.group_resource, name))?;
            let mut object = live.object.clone();
            let edited = edit(&mut *object)?;
            if let Some(json) = self.store_edited(&live, &mut *object, edited).await? {
                return Ok(Outcome {
                    code: StatusCode::OK,
                    json,
                    warnings: Vec::new(),
                });
            }
        }
        Err(ApiError::modified(&self.resource.group_resource, name))
    }

    async fn store_edited(
        &self,
        live: &Live,
        object: &mut dyn Object,
        edited: Edit,
    ) -> Result<Option<Bytes>, ApiError> {
        let value = encode(object);
        if self.options.dry_run || (edited == Edit::Store && value == live.kv.value) {
            return Ok(Some(live::served(&value, live.revision())));
        }
        let (store, key, expected) = (&self.context.store.0, live.kv.key.clone(), live.kv.mod_revision);
        let revision = match edited {
            Edit::Store => {
                let ttl = self.context.time_to_live(self.resource);
                let stored = conversion::to_storage(&*self.resource.strategy, &value)?;
                store
                    .update(key, stored, expected, ttl)
                    .await
                    .map(|kv| kv.mod_revision)
            }
            Edit::Remove => store
                .delete(&key, Some(expected))
                .await
                .map(|deleted| deleted.revision),
        };
        match revision {
            Ok(revision) => Ok(Some(live::served(&value, revision.get()))),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }
}
