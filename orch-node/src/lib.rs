//! A Kubernetes node agent as a library: pod workers over any container runtime, and one built in.
//!
//! * [`runtime`]: the [`Runtime`](runtime::Runtime) trait, shaped like CRI, and its types.
//! * [`embedded`]: containers with no daemon, by the kernel's own means.
//! * [`fake`]: a scripted runtime for tests and hollow nodes.
//! * `testkit` (feature `testkit`): the suite that every runtime passes.

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
