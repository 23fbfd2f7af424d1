//! The Kubernetes service proxy as a library: change tracking over Services and EndpointSlices, and backends that apply it.
//!
//! [`ServiceProxy`] is the whole, for one node:
//!
//! ```no_run
//! use orch_net::{Choice, ServiceProxy};
//!
//! # async fn example(client: kube::Client, shutdown: tokio_util::sync::CancellationToken) -> Result<(), Box<dyn std::error::Error>> {
//! let proxy = ServiceProxy::builder(client)
//!     .node_name("node-1")
//!     .backend(Choice::Auto)
//!     .pod_cidrs(["10.244.0.0/16".parse()?])
//!     .build()
//!     .await?;
//! proxy.run(shutdown).await;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Tracker`] turns Services and EndpointSlices into a [`DesiredState`] and the exact difference since the last look; a
//! [`ProxyBackend`] brings that to the host. Two backends are here: [`nftables`] rules in the
//! kernel, and [`userspace`] sockets.
//!
//! ```
//! use orch_net::Tracker;
//! use orch_net::nftables::{NftablesBackend, NftablesConfig};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), serde_json::Error> {
//! let mut tracker = Tracker::new("node-1");
//! tracker.apply_service(&serde_json::from_value(json!({
//!     "metadata": {"namespace": "default", "name": "web"},
//!     "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
//! }))?);
//! tracker.apply_slice(&serde_json::from_value(json!({
//!     "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
//!     "addressType": "IPv4",
//!     "ports": [{"port": 8080}],
//!     "endpoints": [{"addresses": ["10.244.0.2"]}],
//! }))?);
//! assert_eq!(tracker.take_changes().len(), 1);
//! let rules = NftablesBackend::full_script(&NftablesConfig::default(), tracker.state());
//! assert!(rules.contains("10.96.0.1 . 80 . 0 : 10.244.0.2 . 8080"));
//! # Ok(())
//! # }
//! ```
//!
//! # Not built
//! What a Service asks for and does not get is said in a Warning event on it: `loadBalancerSourceRanges` (such a Service's load
//! balancer addresses are then not served at all), `healthCheckNodePort`, a frontend that an older Service has. Topology hints are
//! ignored, as the API allows. Node ports answer at every address of the node but loopback. SCTP is served by nftables only.

pub mod backend;
mod choice;
pub mod model;
mod netlink;
pub mod nftables;
pub mod objects;
mod proxy;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod tracker;
pub mod userspace;

pub use backend::{BackendError, ProxyBackend, SyncReport, Unserved};
pub use choice::{Backend, Choice, UnknownBackend};
pub use model::{Change, Changes, DesiredState};
pub use orch_core::ipam::Cidr;
pub use proxy::{ServiceProxy, ServiceProxyBuilder};
pub use tracker::Tracker;
