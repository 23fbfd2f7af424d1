//! Server-side apply and field ownership: who set which field, what happens when two want different values, and which
//! fields go when their owner gives them up. Follows upstream's structured merge.
//!
//! A [`FieldManager`] is made per request from the kind's type. Writes that aren't applies pass their finished object
//! through [`FieldManager::update`]; applies get theirs from [`FieldManager::apply`]. Both write
//! `metadata.managedFields` into the object which they return.
//!
//! ```
//! use jiff::Timestamp;
//! use orch_api::apply::FieldManager;
//! use orch_api::schema;
//! use serde_json::json;
//!
//! let now = Timestamp::UNIX_EPOCH;
//! let manager = FieldManager::new(schema::root("", "v1", "ConfigMap"), "v1", "ConfigMap");
//! let config = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": value}});
//! let live = manager.apply(None, &config("1"), "first", false, now)?;
//! let refused = manager.apply(Some(&live), &config("2"), "second", false, now).unwrap_err();
//! assert_eq!(refused.to_string(), "Apply failed with 1 conflict: conflict with \"first\": .data.a");
//! let taken = manager.apply(Some(&live), &config("2"), "second", true, now)?;
//! assert_eq!(taken["data"]["a"], "2");
//! # Ok::<(), orch_api::apply::ApplyError>(())
//! ```

mod conflict;
mod fields;
mod last_applied;
mod managed;
mod manager;
mod merge;
mod path;
mod validate;
mod walk;
mod zero;

pub use conflict::{Conflict, Conflicts};
pub use fields::FieldSet;
pub use managed::{ManagerId, validate_field_manager, validate_managed_fields};
pub use manager::{ApplyError, FieldManager};
pub use merge::{OneVersion, Versions};
pub use path::{Step, StepError, display};
pub use walk::{Comparison, compare, fields_of, merge as merge_objects};
