use crate::cluster::{Cluster, Node, NodeSet};
use crate::event::EventSet;
use crate::object::PodInfo;
use crate::policy::{NodeFilter, PreFilter, Rejection, SchedulerPolicy};

/// Takes only the node that the pod names in `spec.nodeName`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeName;

impl SchedulerPolicy for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn events(&self) -> EventSet {
        EventSet::NODE_ADD
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, _: &'c Cluster) -> PreFilter<'c> {
        match &pod.node_name {
            None => PreFilter::Skip,
            Some(wanted) => PreFilter::Filter(Box::new(Named(wanted))),
        }
    }
}

struct Named<'c>(&'c str);

impl NodeFilter for Named<'_> {
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection> {
        if node.name() == self.0 {
            return Ok(());
        }
        Err(Rejection::unresolvable(
            "node(s) didn't match the requested node name",
        ))
    }

    fn narrow(&self, cluster: &Cluster, candidates: &mut NodeSet) {
        let wanted = cluster.find(self.0);
        candidates.retain(|id| Some(id) == wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};
    use crate::testkit::filtered;

    #[test]
    fn only_the_named_node_is_taken() {
        let nodes = [node("a"), node("b")];
        assert_eq!(filtered(&NodeName, &pod("p").build(), &nodes), [Ok(()), Ok(())]);
        let why = "node(s) didn't match the requested node name";
        assert_eq!(
            filtered(&NodeName, &pod("p").on("b").build(), &nodes),
            [Err(Rejection::unresolvable(why)), Ok(())]
        );
    }
}
