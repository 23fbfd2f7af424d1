use super::tolerations::tolerated;
use crate::cluster::{Cluster, Node, NodeSet};
use crate::event::{ClusterEvent, EventSet};
use crate::object::{PodInfo, Taint, TaintEffect};
use crate::policy::{Hint, NodeFilter, PreFilter, Rejection, SchedulerPolicy};

/// Keeps pods off cordoned nodes, unless they tolerate the taint `node.kubernetes.io/unschedulable:NoSchedule`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeUnschedulable;

fn tolerates_cordon(pod: &PodInfo) -> bool {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
    };
    tolerated(&pod.tolerations, &cordon)
}

impl SchedulerPolicy for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn events(&self) -> EventSet {
        EventSet::NODE_ADD | EventSet::NODE_TAINT | EventSet::POD_TOLERATION
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        match event {
            ClusterEvent::Node { old, new, .. } => {
                let was_open = old.is_some_and(|node| !node.unschedulable);
                Hint::queue_if(!was_open && new.is_some_and(|node| !node.unschedulable))
            }
            ClusterEvent::Namespace { .. } => Hint::Skip,
            ClusterEvent::Pod { new, .. } => {
                Hint::queue_if(new.is_some_and(|changed| changed.key == pod.key && tolerates_cordon(changed)))
            }
        }
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster) -> PreFilter<'c> {
        if cluster.unschedulable().is_empty() || tolerates_cordon(pod) {
            return PreFilter::Skip;
        }
        PreFilter::Filter(Box::new(Uncordoned))
    }
}

struct Uncordoned;

impl NodeFilter for Uncordoned {
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection> {
        if node.unschedulable() {
            Err(Rejection::unresolvable("node(s) were unschedulable"))
        } else {
            Ok(())
        }
    }

    fn narrow(&self, cluster: &Cluster, candidates: &mut NodeSet) {
        candidates.subtract(cluster.unschedulable());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};
    use crate::testkit::filtered;

    #[test]
    fn cordoned_nodes_are_for_pods_that_tolerate_the_cordon() {
        let nodes = [node("open"), node("cordoned").unschedulable()];
        let rejection = Rejection::unresolvable("node(s) were unschedulable");
        assert_eq!(
            filtered(&NodeUnschedulable, &pod("p").build(), &nodes),
            [Ok(()), Err(rejection)]
        );
        let daemon = pod("p")
            .toleration("node.kubernetes.io/unschedulable", "Exists", "", "NoSchedule")
            .build();
        assert_eq!(filtered(&NodeUnschedulable, &daemon, &nodes), [Ok(()), Ok(())]);
    }

    #[test]
    fn uncordoning_helps_and_cordoning_does_not() {
        let (open, cordoned) = (node("n").build(), node("n").unschedulable().build());
        let hint = |old: &_, new: &_| {
            NodeUnschedulable.hint(&pod("p").build(), &ClusterEvent::node(Some(old), new).unwrap())
        };
        assert_eq!(hint(&cordoned, &open), Hint::Queue);
        assert_eq!(hint(&open, &cordoned), Hint::Skip);
    }
}
