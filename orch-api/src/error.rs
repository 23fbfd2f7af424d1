//! What a failing store means to a client.

use orch_core::status::ApiError;
use orch_store::StoreError;

/// An error of the store that no caller had an answer to.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::ValueTooLarge { size, limit } => {
            ApiError::too_large(format!("object of {size} bytes, limit is {limit}"))
        }
        StoreError::KeyTooLong { size, limit } => ApiError::bad_request(format!(
            "name of {size} bytes with its namespace, limit is {limit}"
        )),
        StoreError::Unavailable { reason } => {
            ApiError::service_unavailable(format!("storage is unavailable: {reason}"))
        }
        other => ApiError::internal(other),
    }
}
