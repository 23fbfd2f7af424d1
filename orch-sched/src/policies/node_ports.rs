use crate::cluster::{Cluster, Node, NodeSet};
use crate::event::{ClusterEvent, EventSet};
use crate::object::{HostPort, PodInfo};
use crate::policy::{Hint, NodeFilter, PreFilter, Rejection, SchedulerPolicy};

/// Takes nodes on which the pod's host ports are free.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodePorts;

impl SchedulerPolicy for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn events(&self) -> EventSet {
        EventSet::NODE_ADD | EventSet::ASSIGNED_POD_DELETE
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        match event {
            ClusterEvent::Node { .. } => Hint::Queue,
            ClusterEvent::Namespace { .. } => Hint::Skip,
            ClusterEvent::Pod { old, .. } => {
                Hint::queue_if(old.is_some_and(|gone| in_the_way(&gone.host_ports, &pod.host_ports)))
            }
        }
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, _: &'c Cluster) -> PreFilter<'c> {
        if pod.host_ports.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Filter(Box::new(FreePorts(&pod.host_ports)))
    }
}

fn in_the_way(held: &[HostPort], wanted: &[HostPort]) -> bool {
    held.iter()
        .any(|held| wanted.iter().any(|wanted| wanted.conflicts_with(held)))
}

struct FreePorts<'c>(&'c [HostPort]);

impl NodeFilter for FreePorts<'_> {
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection> {
        if node
            .used_ports()
            .any(|held| self.0.iter().any(|wanted| wanted.conflicts_with(held)))
        {
            return Err(Rejection::resolvable(
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        Ok(())
    }

    fn narrow(&self, cluster: &Cluster, candidates: &mut NodeSet) {
        for port in self.0 {
            cluster.holders_of(port).for_each(|id| candidates.remove(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};
    use crate::testkit::filtered_among;

    #[test]
    fn a_port_is_free_until_a_pod_on_the_node_holds_it() {
        let nodes = [node("a"), node("b"), node("c")];
        let pods = [
            pod("x").host_port("", "TCP", 80).on("a"),
            pod("y").host_port("127.0.0.1", "TCP", 80).on("b"),
            pod("z").host_port("", "UDP", 80).on("c"),
        ];
        let taken = || {
            Err(Rejection::resolvable(
                "node(s) didn't have free ports for the requested pod ports",
            ))
        };
        let verdicts = |wanted: &PodInfo| filtered_among(&NodePorts, wanted, &nodes, &pods);
        assert_eq!(
            verdicts(&pod("p").host_port("", "TCP", 80).build()),
            [taken(), taken(), Ok(())]
        );
        assert_eq!(
            verdicts(&pod("p").host_port("127.0.0.2", "TCP", 80).build()),
            [taken(), Ok(()), Ok(())]
        );
        assert_eq!(
            verdicts(&pod("p").host_port("", "TCP", 81).build()),
            [Ok(()), Ok(()), Ok(())]
        );
    }

    #[test]
    fn only_a_pod_that_held_the_port_is_worth_waiting_for() {
        let wanting = pod("p").host_port("", "TCP", 80).build();
        let hint = |gone: &PodInfo| NodePorts.hint(&wanting, &ClusterEvent::assigned_pod_deleted(gone));
        assert_eq!(
            hint(&pod("x").host_port("", "TCP", 80).on("a").build()),
            Hint::Queue
        );
        assert_eq!(
            hint(&pod("x").host_port("", "TCP", 81).on("a").build()),
            Hint::Skip
        );
    }
}
