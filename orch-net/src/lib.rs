//! The Kubernetes service proxy as a library: change tracking over Services and EndpointSlices, and backends that apply it.
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
