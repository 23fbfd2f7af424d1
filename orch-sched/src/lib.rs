//! A Kubernetes scheduler as a library: a framework of policies over a columnar, incrementally kept cluster state.
//!
//! - [`Scheduler`] places the pods of an API server: informers in, bindings and events out.
//! - [`Simulation`] makes the same decisions in memory, for planning and tests.
//! - [`SchedulerPolicy`] is the open seam: one placement rule with upstream's stages; [`policies`] has upstream's.
//! - [`explain()`] tells what each policy says about each node.
//!
//! ```
//! use orch_sched::{Profile, Simulation};
//! use k8s_openapi::api::core::v1::{Node, Pod};
//!
//! let node: Node = serde_json::from_str(
//!     r#"{"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}}}"#)?;
//! let pod: Pod = serde_json::from_str(
//!     r#"{"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [{"name": "c"}]}}"#)?;
//!
//! let mut simulation = Simulation::new(vec![Profile::upstream()])?;
//! simulation.add_node((&node).into());
//! simulation.add_pod((&pod).into());
//! assert_eq!(simulation.run()[0].node(), Some("n1"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod binding;
pub mod cluster;
pub mod diagnosis;
pub mod engine;
pub mod event;
mod explain;
pub mod object;
pub mod permit;
mod placement;
pub mod policies;
pub mod policy;
pub mod profile;
pub mod queue;
#[cfg(any(test, feature = "testkit"))]
pub mod sample;
mod scheduler;
mod simulation;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;

pub use cluster::Cluster;
pub use engine::Engine;
pub use explain::{Explanation, NodeExplanation, PolicyScore, explain};
pub use object::{NodeInfo, PodInfo};
pub use policy::SchedulerPolicy;
pub use profile::Profile;
pub use scheduler::{BuildError, Scheduler, SchedulerBuilder};
pub use simulation::{Outcome, Simulation};
