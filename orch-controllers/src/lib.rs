//! The controllers of a Kubernetes control plane.

mod adoption;
mod discovery;
mod expectations;
mod pods;

pub mod deployment;
pub mod garbage_collector;
pub mod namespace;
pub mod pod_gc;
pub mod replica_set;
pub mod service_account;
