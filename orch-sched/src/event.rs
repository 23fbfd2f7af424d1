//! What happens in the cluster, as far as it could make a rejected pod schedulable.

use crate::object::{NodeInfo, PodInfo};
use std::ops::{BitOr, BitOrAssign};

/// A set of kinds of cluster events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventSet(u32);

impl EventSet {
    /// No event.
    pub const NONE: Self = Self(0);
    /// A node appeared.
    pub const NODE_ADD: Self = Self(1);
    /// A node went away.
    pub const NODE_DELETE: Self = Self(1 << 1);
    /// A node's allocatable resources changed.
    pub const NODE_ALLOCATABLE: Self = Self(1 << 2);
    /// A node's labels changed.
    pub const NODE_LABEL: Self = Self(1 << 3);
    /// A node's taints changed, or it was cordoned or uncordoned.
    pub const NODE_TAINT: Self = Self(1 << 4);
    /// A node's annotations changed.
    pub const NODE_ANNOTATION: Self = Self(1 << 5);
    /// A pod was bound to a node, or a bound pod appeared.
    pub const ASSIGNED_POD_ADD: Self = Self(1 << 6);
    /// A pod that held room on a node is gone, or its binding failed.
    pub const ASSIGNED_POD_DELETE: Self = Self(1 << 7);
    /// A pod that holds no room is gone.
    pub const PENDING_POD_DELETE: Self = Self(1 << 8);
    /// A pod's labels changed.
    pub const POD_LABEL: Self = Self(1 << 9);
    /// A pod asks for less than before.
    pub const POD_SCALE_DOWN: Self = Self(1 << 10);
    /// A pod's tolerations changed.
    pub const POD_TOLERATION: Self = Self(1 << 11);
    /// A pod's last scheduling gate was taken away.
    pub const POD_GATES_ELIMINATED: Self = Self(1 << 12);
    /// A pod changed otherwise.
    pub const POD_UPDATE: Self = Self(1 << 13);
    /// A namespace appeared or went away, or its labels changed.
    pub const NAMESPACE: Self = Self(1 << 14);
    /// Every event.
    pub const ALL: Self = Self((1 << 15) - 1);

    /// True when the two have a kind in common.
    #[must_use]
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// True when no kind is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both sets together, in constants.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for EventSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl BitOrAssign for EventSet {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// One event. `kinds` may hold several: a node update can change labels and taints at once.
#[derive(Clone, Copy, Debug)]
pub enum ClusterEvent<'a> {
    /// Something about a node.
    Node {
        /// What changed.
        kinds: EventSet,
        /// The node before; none when it is new.
        old: Option<&'a NodeInfo>,
        /// The node now; none when it is gone.
        new: Option<&'a NodeInfo>,
    },
    /// Something about a pod.
    Pod {
        /// What changed.
        kinds: EventSet,
        /// The pod before; none when it is new.
        old: Option<&'a PodInfo>,
        /// The pod now; none when it is gone.
        new: Option<&'a PodInfo>,
    },
    /// Something about a namespace: [`EventSet::NAMESPACE`].
    Namespace {
        /// The namespace's name.
        name: &'a str,
    },
}

impl<'a> ClusterEvent<'a> {
    /// A node that appeared or changed; none when nothing did that placement reads.
    #[must_use]
    pub fn node(old: Option<&'a NodeInfo>, new: &'a NodeInfo) -> Option<Self> {
        let kinds = old.map_or(EventSet::NODE_ADD, |old| node_changes(old, new));
        (!kinds.is_empty()).then_some(Self::Node {
            kinds,
            old,
            new: Some(new),
        })
    }

    /// A node that went away.
    #[must_use]
    pub fn node_deleted(old: &'a NodeInfo) -> Self {
        Self::Node {
            kinds: EventSet::NODE_DELETE,
            old: Some(old),
            new: None,
        }
    }

    /// A pod that took room on a node.
    #[must_use]
    pub fn pod_assigned(new: &'a PodInfo) -> Self {
        Self::Pod {
            kinds: EventSet::ASSIGNED_POD_ADD,
            old: None,
            new: Some(new),
        }
    }

    /// A pod that gave its room on a node back.
    #[must_use]
    pub fn assigned_pod_deleted(old: &'a PodInfo) -> Self {
        Self::Pod {
            kinds: EventSet::ASSIGNED_POD_DELETE,
            old: Some(old),
            new: None,
        }
    }

    /// A pod that went away before it had a node.
    #[must_use]
    pub fn pending_pod_deleted(old: &'a PodInfo) -> Self {
        Self::Pod {
            kinds: EventSet::PENDING_POD_DELETE,
            old: Some(old),
            new: None,
        }
    }

    /// A pod that changed; none when nothing did that placement reads.
    #[must_use]
    pub fn pod_updated(old: &'a PodInfo, new: &'a PodInfo) -> Option<Self> {
        let kinds = pod_changes(old, new);
        (!kinds.is_empty()).then_some(Self::Pod {
            kinds,
            old: Some(old),
            new: Some(new),
        })
    }

    /// What changed.
    #[must_use]
    pub fn kinds(&self) -> EventSet {
        match self {
            Self::Node { kinds, .. } | Self::Pod { kinds, .. } => *kinds,
            Self::Namespace { .. } => EventSet::NAMESPACE,
        }
    }
}

fn node_changes(old: &NodeInfo, new: &NodeInfo) -> EventSet {
    let mut kinds = EventSet::NONE;
    let amounts = |n: &NodeInfo| (n.milli_cpu, n.memory, n.ephemeral_storage, n.pods);
    if amounts(old) != amounts(new) || old.scalar != new.scalar {
        kinds |= EventSet::NODE_ALLOCATABLE;
    }
    if old.labels != new.labels {
        kinds |= EventSet::NODE_LABEL;
    }
    if old.taints != new.taints || old.unschedulable != new.unschedulable {
        kinds |= EventSet::NODE_TAINT;
    }
    if old.annotations != new.annotations {
        kinds |= EventSet::NODE_ANNOTATION;
    }
    kinds
}

fn pod_changes(old: &PodInfo, new: &PodInfo) -> EventSet {
    let mut kinds = EventSet::NONE;
    if old.labels != new.labels {
        kinds |= EventSet::POD_LABEL;
    }
    if asks_for_less(old, new) {
        kinds |= EventSet::POD_SCALE_DOWN;
    }
    if old.tolerations != new.tolerations {
        kinds |= EventSet::POD_TOLERATION;
    }
    if !old.gates.is_empty() && new.gates.is_empty() {
        kinds |= EventSet::POD_GATES_ELIMINATED;
    }
    if kinds.is_empty() && !old.same_placement(new) {
        kinds |= EventSet::POD_UPDATE;
    }
    kinds
}

fn asks_for_less(old: &PodInfo, new: &PodInfo) -> bool {
    let (old, new) = (&old.requests, &new.requests);
    new.milli_cpu < old.milli_cpu
        || new.memory < old.memory
        || new.ephemeral_storage < old.ephemeral_storage
        || old.scalar.iter().any(|(name, amount)| new.get(name) < *amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};

    #[test]
    fn a_node_update_names_everything_that_changed_and_a_heartbeat_is_no_event() {
        let before = node("a").build();
        assert!(ClusterEvent::node(Some(&before), &before.clone()).is_none());
        let after = node("a").label("zone", "b").taint("k", "", "NoExecute").build();
        let kinds = ClusterEvent::node(Some(&before), &after).unwrap().kinds();
        assert_eq!(kinds, EventSet::NODE_LABEL | EventSet::NODE_TAINT);
    }

    #[test]
    fn pod_updates_are_named_as_precisely_as_possible() {
        let before = pod("p").cpu(200).gate("g").build();
        let kinds = |after: &PodInfo| ClusterEvent::pod_updated(&before, after).map(|e| e.kinds());
        assert_eq!(
            kinds(&pod("p").cpu(100).build()),
            Some(EventSet::POD_SCALE_DOWN | EventSet::POD_GATES_ELIMINATED)
        );
        assert_eq!(
            kinds(&pod("p").cpu(200).gate("other").build()),
            Some(EventSet::POD_UPDATE)
        );
        assert_eq!(kinds(&before.clone()), None);
    }
}
