//! Reading one object.

use bytes::Bytes;
use http::Response;
use orch_core::status::ApiError;
use orch_store::StoreError;

use super::options::resource_version;
use super::table::{self, IncludeObject};
use super::{Resource, live};
use crate::context::Context;
use crate::http::accept::Shape;
use crate::http::body::Body;
use crate::http::query::Query;
use crate::http::response;
use crate::store_error;

/// The served bytes of one object: as new as the store, unless the client asks for less.
pub(crate) async fn bytes(
    context: &Context,
    resource: &Resource,
    namespace: &str,
    name: &str,
    version: Option<u64>,
) -> Result<Bytes, ApiError> {
    let key = resource.info().key(namespace, name);
    let not_found = || ApiError::not_found(&resource.group_resource, name);
    let snapshot = match version {
        None => {
            return newest(context, resource, key.as_bytes())
                .await?
                .ok_or_else(not_found);
        }
        Some(0) => resource.cache.any().await?,
        Some(version) => resource.cache.not_older_than(version).await?,
    };
    snapshot
        .get(key.as_bytes())
        .map(|entry| entry.json.clone())
        .ok_or_else(not_found)
}

async fn newest(context: &Context, resource: &Resource, key: &[u8]) -> Result<Option<Bytes>, ApiError> {
    let read = match context.store.0.get(key, None).await {
        Ok(read) => read,
        // A name that cannot be a key names nothing.
        Err(StoreError::KeyTooLong { .. }) => return Ok(None),
        Err(error) => return Err(store_error(error)),
    };
    let Some(kv) = read.kv else { return Ok(None) };
    let value = resource
        .strategy
        .read_stored(&kv.value)
        .map_err(ApiError::internal)?;
    Ok(Some(live::served(&value, kv.mod_revision.get())))
}

/// Answers GET of one object.
pub(crate) async fn get(
    context: &Context,
    resource: &Resource,
    namespace: &str,
    name: &str,
    query: &Query,
    shape: Shape,
) -> Result<Response<Body>, ApiError> {
    let version = resource_version(query.get("resourceVersion"))?;
    let include = IncludeObject::parse(query)?;
    let json = bytes(context, resource, namespace, name, version).await?;
    table::object(&*resource.strategy, shape, include, &json)
        .map(|json| response::json(http::StatusCode::OK, json))
}
