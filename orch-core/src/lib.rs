//! What every part of a Kubernetes-style control plane shares: quantities, selectors, API errors, informers, work
//! queues, controllers, leader election.
//!
//! ```
//! use orch_core::status::{ApiError, GroupResource};
//!
//! let error = ApiError::not_found(&GroupResource::new("apps", "deployments"), "web");
//! assert!(error.is_not_found());
//! ```

pub mod conditions;
pub mod controller;
pub mod events;
pub mod field;
pub mod informer;
pub mod ipam;
pub mod key;
pub mod leader;
pub mod names;
pub mod owner;
pub mod pki;
pub mod quantity;
pub mod queue;
pub mod ready;
pub mod selector;
pub mod serve;
pub mod status;
