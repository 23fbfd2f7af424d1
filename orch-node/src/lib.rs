//! A Kubernetes node agent as a library: pod workers over any container runtime, and one built in.
//!
//! * [`runtime`]: the [`Runtime`](runtime::Runtime) trait, shaped like CRI, and its types.
//! * [`fake`]: a scripted runtime for tests and hollow nodes.

mod address_pool;
pub mod fake;
mod log_file;
pub mod runtime;
