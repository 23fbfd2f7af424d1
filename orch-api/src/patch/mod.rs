//! The three patch formats that are computed from a document and a patch alone: JSON patch (RFC 6902), JSON merge
//! patch (RFC 7386) and strategic merge patch. Server-side apply needs owners too: see [`crate::apply`].
//!
//! ```
//! use orch_api::{patch, schema};
//! use serde_json::json;
//!
//! let pod = json!({"spec": {"containers": [{"name": "a", "image": "old"}, {"name": "b"}]}});
//! let change = json!({"spec": {"containers": [{"name": "a", "image": "new"}]}});
//! let patched = patch::strategic(pod, change, schema::root("", "v1", "Pod"))?;
//! assert_eq!(patched["spec"]["containers"], json!([{"name": "a", "image": "new"}, {"name": "b"}]));
//! # Ok::<(), patch::PatchError>(())
//! ```

mod json;
mod merge;
mod order;
mod strategic;

use orch_core::status::{ApiError, Reason, cause};

pub use json::{MAX_COPIED, MAX_OPERATIONS, json};
pub use merge::merge;
pub use strategic::strategic;

/// Why a patch was refused. The document it was meant for is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The patch itself is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed and does not fit the document.
    #[error("{0}")]
    Unprocessable(String),
    /// The patch has too many operations.
    #[error("{0}")]
    TooLarge(String),
}

impl PatchError {
    fn malformed(text: impl Into<String>) -> Self {
        Self::Malformed(text.into())
    }

    fn unprocessable(text: impl Into<String>) -> Self {
        Self::Unprocessable(text.into())
    }
}

impl From<PatchError> for ApiError {
    /// Upstream answers 400, 422 and 413. Its 422 keeps the reason to itself; ours has it as a cause.
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(text) => ApiError::bad_request(text),
            PatchError::Unprocessable(text) => ApiError::new(
                Reason::Invalid,
                "the server rejected our request due to an error in our request",
            )
            .with_cause(cause("UnexpectedServerResponse", "", &text)),
            PatchError::TooLarge(text) => ApiError::too_large(text),
        }
    }
}
