use super::node_resources_fit::{Fraction, ResourceWeight, Usage, fractions};
use crate::cluster::{Cluster, Node, NodeId, NodeSet};
use crate::event::EventSet;
use crate::object::PodInfo;
use crate::policy::{MAX_NODE_SCORE, NodeScore, PreScore, SchedulerPolicy};

/// Prefers nodes on which the requested shares of the resources come out alike: 100 less the standard deviation of the
/// shares, in percent. Has no opinion on pods that request nothing.
#[derive(Clone, Debug)]
pub struct NodeResourcesBalancedAllocation {
    resources: Vec<ResourceWeight>,
}

impl Default for NodeResourcesBalancedAllocation {
    fn default() -> Self {
        Self {
            resources: ResourceWeight::cpu_and_memory(),
        }
    }
}

impl NodeResourcesBalancedAllocation {
    /// Balances these resources instead of processor time and memory.
    #[must_use]
    pub fn of(resources: &[&str]) -> Self {
        Self {
            resources: resources
                .iter()
                .map(|name| ResourceWeight::new(name, 1))
                .collect(),
        }
    }
}

impl SchedulerPolicy for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn events(&self) -> EventSet {
        EventSet::NONE
    }

    fn pre_score<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster, _: &NodeSet) -> PreScore<'c> {
        if self
            .resources
            .iter()
            .all(|resource| pod.requests.get(&resource.name) == 0)
        {
            return PreScore::Skip;
        }
        PreScore::Score(Box::new(Balance(fractions(
            &self.resources,
            &pod.requests,
            cluster,
            Usage::Requested,
        ))))
    }
}

struct Balance<'c>(Vec<Fraction<'c>>);

impl Balance<'_> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "upstream scores in floating point"
    )]
    fn on(&self, id: NodeId) -> i64 {
        let shares = || {
            let on_node = self.0.iter().filter_map(|fraction| fraction.on(id));
            on_node.map(|(requested, allocatable)| (requested as f64 / allocatable as f64).min(1.0))
        };
        let (count, sum) = shares().fold((0, 0.0), |(count, sum), share| (count + 1, sum + share));
        let deviation = match count {
            0 | 1 => 0.0,
            2 => {
                let mut both = shares();
                let (first, second) = (both.next().unwrap_or(0.0), both.next().unwrap_or(0.0));
                ((first - second) / 2.0).abs()
            }
            _ => {
                let mean = sum / f64::from(count);
                (shares().map(|share| (share - mean) * (share - mean)).sum::<f64>() / f64::from(count)).sqrt()
            }
        };
        ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
    }
}

impl NodeScore for Balance<'_> {
    fn score(&self, node: Node<'_>) -> i64 {
        self.on(node.id())
    }

    fn score_all(&self, _: &Cluster, nodes: &[NodeId], scores: &mut [i64]) {
        for (score, &id) in scores.iter_mut().zip(nodes) {
            *score = self.on(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};
    use crate::testkit::scored_among;

    fn policy() -> NodeResourcesBalancedAllocation {
        NodeResourcesBalancedAllocation::default()
    }

    /// With half the difference of two shares as their deviation: |3/4 - 5/10| / 2 = 12.5 %, |3/6 - 5/10| = 0.
    #[test]
    fn even_shares_score_highest() {
        let nodes = [
            node("a").cpu(4000).memory(10000),
            node("b").cpu(6000).memory(10000),
        ];
        assert_eq!(
            scored_among(&policy(), &pod("p").cpu(3000).memory(5000).build(), &nodes, &[]),
            [87, 100]
        );
    }

    #[test]
    fn shares_above_one_count_as_one() {
        let nodes = [node("n").cpu(1000).memory(1000)];
        let there = [pod("x").cpu(5000).memory(500).on("n")];
        assert_eq!(
            scored_among(&policy(), &pod("p").cpu(1000).build(), &nodes, &there),
            [75]
        );
    }

    #[test]
    fn three_resources_use_the_standard_deviation() {
        let balanced = NodeResourcesBalancedAllocation::of(&["cpu", "memory", "example.com/gpu"]);
        let nodes = [node("n").cpu(1000).memory(1000).gpu(4)];
        let wanted = pod("p").cpu(250).memory(500).gpu(3).build();
        let deviation = ((0.25f64 * 0.25 + 0.0 + 0.25 * 0.25) / 3.0).sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "the policy truncates too")]
        let expected = ((1.0 - deviation) * 100.0) as i64;
        assert_eq!(scored_among(&balanced, &wanted, &nodes, &[]), [expected]);
    }

    #[test]
    fn pods_that_request_nothing_are_not_judged() {
        let (cluster, p) = (Cluster::new(), pod("p").build());
        assert!(matches!(
            policy().pre_score(&p, &cluster, &NodeSet::new()),
            PreScore::Skip
        ));
    }
}
