//! The stored form of objects, and what is stored now.

use bytes::Bytes;
use orch_core::status::ApiError;
use orch_store::{KeyValue, StoreError};

use super::Resource;
use crate::cache::splice::Seam;
use crate::context::Context;
use crate::object::Object;
use crate::store_error;

/// An object as it is stored now.
#[derive(Debug)]
pub(crate) struct Live {
    /// The value is in the resource's own version, whichever is stored.
    pub(crate) kv: KeyValue,
    /// Decoded, defaulted, with its resourceVersion.
    pub(crate) object: Box<dyn Object>,
    /// Whether it is stored in a version that is not stored any more.
    pub(crate) stale: bool,
}

impl Live {
    pub(crate) fn new(resource: &Resource, mut kv: KeyValue) -> Result<Self, ApiError> {
        let strategy = &*resource.strategy;
        let unreadable = |error| {
            let key = String::from_utf8_lossy(&kv.key);
            ApiError::internal(format!("stored object at {key}: {error}"))
        };
        let value = strategy.read_stored(&kv.value).map_err(unreadable)?;
        let decoded = strategy.decode(&value).map_err(unreadable)?;
        let stale = strategy.is_stale(&kv.value);
        kv.value = value;
        let mut object = decoded.object;
        strategy.default(&mut *object);
        object.metadata_mut().resource_version = Some(kv.mod_revision.to_string());
        Ok(Self { kv, object, stale })
    }

    pub(crate) fn revision(&self) -> u64 {
        self.kv.mod_revision.get()
    }

    /// The bytes that a reader of this state gets.
    pub(crate) fn served(&self) -> Bytes {
        served(&self.kv.value, self.revision())
    }
}

/// Reads an object from the store, past the cache.
pub(crate) async fn load(
    context: &Context,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Option<Live>, ApiError> {
    let key = resource.info().key(namespace, name);
    let read = match context.store.0.get(key.as_bytes(), None).await {
        Err(StoreError::KeyTooLong { .. }) => return Ok(None),
        other => other.map_err(store_error)?,
    };
    read.kv.map(|kv| Live::new(resource, kv)).transpose()
}

/// The bytes to store: everything but the resourceVersion, which the store gives.
pub(crate) fn encode(object: &mut dyn Object) -> Bytes {
    let version = object.metadata_mut().resource_version.take();
    let bytes = Bytes::from(object.to_json());
    object.metadata_mut().resource_version = version;
    bytes
}

/// Stored bytes with their resourceVersion.
pub(crate) fn served(stored: &Bytes, revision: u64) -> Bytes {
    Seam::find(stored).map_or_else(|| stored.clone(), |seam| seam.splice(stored, revision))
}
