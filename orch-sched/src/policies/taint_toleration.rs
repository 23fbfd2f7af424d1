use super::tolerations::{first_untolerated, tolerated};
use crate::cluster::{Cluster, Node, NodeId, NodeSet};
use crate::event::{ClusterEvent, EventSet};
use crate::object::{NodeInfo, PodInfo, Taint, TaintEffect};
use crate::policy::{
    Hint, NodeFilter, NodeScore, PreFilter, PreScore, Rejection, SchedulerPolicy, scale_scores,
};
use k8s_openapi::api::core::v1::Toleration;

/// Keeps pods off nodes with taints they do not tolerate, and prefers nodes with fewer untolerated `PreferNoSchedule` taints.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintToleration;

fn repelled(node: &NodeInfo, pod: &PodInfo) -> bool {
    first_untolerated(&node.taints, &pod.tolerations, Taint::repels).is_some()
}

impl SchedulerPolicy for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn events(&self) -> EventSet {
        EventSet::NODE_ADD | EventSet::NODE_TAINT | EventSet::POD_TOLERATION
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        match event {
            ClusterEvent::Node { old, new, .. } => {
                let was_repelled = old.is_none_or(|node| repelled(node, pod));
                Hint::queue_if(was_repelled && new.is_some_and(|node| !repelled(node, pod)))
            }
            ClusterEvent::Namespace { .. } => Hint::Skip,
            ClusterEvent::Pod { new, .. } => {
                Hint::queue_if(new.is_some_and(|changed| changed.key == pod.key))
            }
        }
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, _: &'c Cluster) -> PreFilter<'c> {
        PreFilter::Filter(Box::new(Unrepelled(&pod.tolerations)))
    }

    fn pre_score<'c>(&'c self, pod: &'c PodInfo, _: &'c Cluster, _: &NodeSet) -> PreScore<'c> {
        PreScore::Score(Box::new(SoftTaints(&pod.tolerations)))
    }
}

struct Unrepelled<'c>(&'c [Toleration]);

impl NodeFilter for Unrepelled<'_> {
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection> {
        match first_untolerated(node.taints(), self.0, Taint::repels) {
            None => Ok(()),
            Some(_) => Err(Rejection::unresolvable("node(s) had untolerated taint(s)")),
        }
    }

    fn narrow(&self, cluster: &Cluster, candidates: &mut NodeSet) {
        let open = cluster.by_taint_list(|taints| first_untolerated(taints, self.0, Taint::repels).is_none());
        if open.contains(&false) {
            candidates.retain_column(cluster.taint_lists(), |list| open[list as usize]);
        }
    }
}

struct SoftTaints<'c>(&'c [Toleration]);

impl SoftTaints<'_> {
    fn count(&self, taints: &[Taint]) -> i64 {
        let soft = taints
            .iter()
            .filter(|taint| taint.effect == TaintEffect::PreferNoSchedule);
        soft.map(|taint| i64::from(!tolerated(self.0, taint))).sum()
    }
}

impl NodeScore for SoftTaints<'_> {
    fn score(&self, node: Node<'_>) -> i64 {
        self.count(node.taints())
    }

    fn score_all(&self, cluster: &Cluster, nodes: &[NodeId], scores: &mut [i64]) {
        let counts = cluster.by_taint_list(|taints| self.count(taints));
        let lists = cluster.taint_lists();
        for (score, id) in scores.iter_mut().zip(nodes) {
            *score = counts[lists[id.index()] as usize];
        }
    }

    fn normalise(&self, scores: &mut [i64]) {
        scale_scores(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};
    use crate::testkit::{filtered, scored};

    #[test]
    fn hard_taints_keep_away_whoever_does_not_tolerate_them() {
        let nodes = [
            node("plain"),
            node("no-schedule").taint("k", "v", "NoSchedule"),
            node("no-execute").taint("k", "v", "NoExecute"),
            node("soft").taint("k", "v", "PreferNoSchedule"),
        ];
        let rejected = || Err(Rejection::unresolvable("node(s) had untolerated taint(s)"));
        assert_eq!(
            filtered(&TaintToleration, &pod("p").build(), &nodes),
            [Ok(()), rejected(), rejected(), Ok(())]
        );
        let tolerant = pod("p").toleration("k", "Equal", "v", "NoSchedule").build();
        assert_eq!(
            filtered(&TaintToleration, &tolerant, &nodes),
            [Ok(()), Ok(()), rejected(), Ok(())]
        );
    }

    #[test]
    fn fewer_untolerated_soft_taints_score_higher() {
        let nodes = [
            node("none"),
            node("one").taint("a", "", "PreferNoSchedule"),
            node("two")
                .taint("a", "", "PreferNoSchedule")
                .taint("b", "", "PreferNoSchedule"),
        ];
        assert_eq!(scored(&TaintToleration, &pod("p").build(), &nodes), [100, 50, 0]);
        let tolerant = pod("p").toleration("a", "Exists", "", "PreferNoSchedule").build();
        assert_eq!(scored(&TaintToleration, &tolerant, &nodes), [100, 100, 0]);
        assert_eq!(scored(&TaintToleration, &pod("p").build(), &nodes[..1]), [100]);
    }

    #[test]
    fn only_lifting_the_last_untolerated_taint_helps() {
        let two = node("n")
            .taint("a", "", "NoSchedule")
            .taint("b", "", "NoSchedule")
            .build();
        let one = node("n").taint("a", "", "NoSchedule").build();
        let none = node("n").build();
        let hint = |old: &_, new: &_| {
            TaintToleration.hint(&pod("p").build(), &ClusterEvent::node(Some(old), new).unwrap())
        };
        assert_eq!(hint(&two, &one), Hint::Skip);
        assert_eq!(hint(&one, &none), Hint::Queue);
    }
}
