//! The controllers of a Kubernetes control plane: Deployment, ReplicaSet, EndpointSlice, Namespace, garbage collection
//! and more.

mod adoption;
mod discovery;
mod expectations;
mod pods;
mod services;

pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod garbage_collector;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod replica_set;
pub mod service_account;
