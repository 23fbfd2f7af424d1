//! The controllers of a Kubernetes control plane: Deployment, ReplicaSet, EndpointSlice, Namespace, garbage collection
//! and more.
//!
//! [`Controllers`] runs all of them, or those that are wanted, over one set of informers. Each can also be taken alone
//! and run by a [`Manager`](orch_core::controller::Manager).
//!
//! ```no_run
//! use orch_controllers::Controllers;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(client: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let shutdown = CancellationToken::new();
//! let controllers = Controllers::builder(client)
//!     .cluster_cidr("10.244.0.0/16".parse()?)
//!     .build()?;
//! controllers.run(shutdown).await;
//! # Ok(())
//! # }
//! ```

mod adoption;
mod controllers;
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

pub use controllers::{Controllers, ControllersBuilder, Kind};
