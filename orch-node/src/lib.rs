//! A Kubernetes node agent as a library: pod workers over any container runtime, and one built in.
//!
//! * [`runtime`]: the [`Runtime`](runtime::Runtime) trait, shaped like CRI, and its types.
//! * [`embedded`]: containers with no daemon, by the kernel's own means.
//! * [`fake`]: a scripted runtime for tests and hollow nodes.
//! * `testkit` (feature `testkit`): the suite that every runtime passes.
//! * [`NodeAgent`]: registers the Node, keeps its status and lease, runs the pods bound to it, serves their logs.
//!
//! ```
//! use std::sync::Arc;
//!
//! use k8s_openapi::api::core::v1::Node;
//! use kube::Api;
//! use orch_node::NodeAgent;
//! use orch_node::fake::FakeRuntime;
//! use tokio_util::sync::CancellationToken;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let server = orch_api::testkit::TestServer::start().await;
//! let agent = NodeAgent::builder(server.client(), "node-1")
//!     .runtime(Arc::new(FakeRuntime::new()))
//!     .pod_cidr("10.244.0.0/24")
//!     .hollow()
//!     .build()
//!     .await?;
//! let ready = agent.ready();
//! let shutdown = CancellationToken::new();
//! let running = tokio::spawn(agent.run(shutdown.clone()));
//! ready.wait().await;
//!
//! let node = Api::<Node>::all(server.client()).get("node-1").await.unwrap();
//! assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/hostname"], "node-1");
//! shutdown.cancel();
//! running.await.unwrap();
//! # Ok::<(), orch_node::NodeError>(())
//! # }).unwrap();
//! ```
//!
//! # What the agent refuses so far
//!
//! A pod that asks for something that is not built waits with `CreateContainerConfigError` and a message that names it: volumes
//! other than emptyDir, hostPath, configMap, secret, downwardAPI and projected; gRPC and HTTPS probes; block volumes, mount
//! propagation, resource claims, runtime classes, user namespaces. `/exec`, `/attach` and `/portForward` answer 501.

mod address_pool;
mod agent;
pub mod embedded;
mod event_bus;
pub mod fake;
mod fd;
mod log_file;
mod pod;
pub mod runtime;
mod server;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use agent::{NodeAgent, NodeAgentBuilder, NodeError};
pub use server::{Authorizer, Refusal, SystemMasters};
