//! Upstream's default policies, one file each. To add one: its file, a line here, a line in [`Profile::upstream`].
//!
//! [`Profile::upstream`]: crate::Profile::upstream

mod balanced_allocation;
mod default_binder;
mod domains;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_selector;
mod node_unschedulable;
mod not_built_yet;
mod pod_topology_spread;
mod priority_sort;
mod scheduling_gates;
mod taint_toleration;
mod tolerations;

pub use balanced_allocation::NodeResourcesBalancedAllocation;
pub use default_binder::DefaultBinder;
pub use inter_pod_affinity::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources_fit::{NodeResourcesFit, ResourceWeight};
pub use node_unschedulable::NodeUnschedulable;
pub use not_built_yet::NotBuiltYet;
pub use pod_topology_spread::PodTopologySpread;
pub use priority_sort::PrioritySort;
pub use scheduling_gates::SchedulingGates;
pub use taint_toleration::TaintToleration;
