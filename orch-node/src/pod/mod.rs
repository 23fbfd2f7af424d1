//! One pod on this node: from its specification and what is observed to what is done and what is reported.
//!
//! [`step`] and [`status`] decide and describe, without I/O; [`worker`] drives them.

mod backoff;
pub(crate) mod config;
mod effects;
mod env;
mod handler;
mod prober;
mod start;
pub(crate) mod status;
mod status_patch;
mod step;
#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "JSON literals read better by value")]
mod tests;
pub(crate) mod view;
pub(crate) mod volumes;
pub(crate) mod worker;
