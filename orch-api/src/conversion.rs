//! Objects in the version that a resource serves and in the version that is stored.
//!
//! Nearly every resource is stored as it is served, and then its bytes pass untouched.

use bytes::Bytes;
use orch_core::status::ApiError;
use serde_json::Value;

use crate::decode::DecodeError;
use crate::strategy::Strategy;

/// Stored bytes in the version of the resource, in the form that its own objects are serialised in.
pub(crate) fn from_storage<S: Strategy + ?Sized>(strategy: &S, stored: &Bytes) -> Result<Bytes, DecodeError> {
    let Some(version) = strategy.storage_version() else {
        return Ok(stored.clone());
    };
    let syntax = |error: serde_json::Error| DecodeError::Syntax(error.to_string());
    let value: Value = serde_json::from_slice(stored).map_err(syntax)?;
    let converted = strategy
        .versions()
        .convert_back(&value, version)
        .ok_or_else(|| DecodeError::Syntax(format!("cannot be converted from {version}")))?;
    let decoded = strategy.decode(&serde_json::to_vec(&converted).map_err(syntax)?)?;
    Ok(decoded.object.to_json().into())
}

/// An object of the resource, without its resourceVersion, as it is stored.
pub(crate) fn to_storage(strategy: &dyn Strategy, served: &Bytes) -> Result<Bytes, ApiError> {
    let Some(version) = strategy.storage_version() else {
        return Ok(served.clone());
    };
    let value: Value = serde_json::from_slice(served).map_err(ApiError::internal)?;
    let (converted, _) = strategy
        .versions()
        .convert(&value, version)
        .ok_or_else(|| ApiError::internal(format!("cannot be converted to {version}")))?;
    let bytes = serde_json::to_vec(&converted).map_err(ApiError::internal)?;
    Ok(bytes.into())
}
