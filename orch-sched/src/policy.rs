//! The open seam: one placement rule with the stages of upstream's scheduling framework.

use crate::binding::{BindError, BindOutcome, Binding};
use crate::cluster::{Cluster, Node, NodeId, NodeSet};
use crate::diagnosis::Diagnosis;
use crate::event::{ClusterEvent, EventSet};
use crate::object::{PodInfo, PodKey};
use crate::permit::WaitingPods;
use crate::placement;
use crate::profile::Profile;
use crate::queue::QueuedPod;
use async_trait::async_trait;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The most that a policy may give a node after normalising; the least is 0.
pub const MAX_NODE_SCORE: i64 = 100;

/// One placement rule.
///
/// All stages are optional: a policy overrides those it has something to say in. For each pod the scheduler calls, in the
/// profile's order of policies:
///
/// 1. [`pre_enqueue`](Self::pre_enqueue) before the pod may wait for its turn;
/// 2. [`pre_filter`](Self::pre_filter) once, which returns the rule's [filter](NodeFilter) for this pod, and the filter for
///    all nodes at once or for one;
/// 3. [`post_filter`](Self::post_filter) when no node is left;
/// 4. [`pre_score`](Self::pre_score) once, which returns the rule's [score](NodeScore), when more than one node is left;
/// 5. [`reserve`](Self::reserve) and [`permit`](Self::permit) for the chosen node, undone by
///    [`unreserve`](Self::unreserve), in reverse order, when a later step fails;
/// 6. [`pre_bind`](Self::pre_bind), [`bind`](Self::bind) and [`post_bind`](Self::post_bind), beside the placement of
///    other pods.
///
/// Steps 1 to 5 are decisions: they run one pod at a time, must not block, and the same state must give the same answer.
/// Step 6 may wait; it is dropped when the scheduler stops, and everything is decided again from the API's state on the
/// next start.
///
/// A pod that a policy rejects waits until one of that policy's [`events`](Self::events) happens for which its
/// [`hint`](Self::hint) says that it may help. The defaults, every event and always yes, are right for any policy, only
/// slow.
#[async_trait]
pub trait SchedulerPolicy: Send + Sync {
    /// The name, unique in a profile.
    fn name(&self) -> &str;

    /// The events that could make a pod schedulable which this policy rejected.
    fn events(&self) -> EventSet {
        EventSet::ALL
    }

    /// Whether one of those events could help this pod, which this policy rejected.
    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        let (_, _) = (pod, event);
        Hint::Queue
    }

    /// Orders the pods that wait. One policy of a scheduler does; all its profiles share the first one's.
    fn queue_sort(&self) -> Option<&dyn QueueSort> {
        None
    }

    /// Whether the pod may wait for its turn at all.
    ///
    /// # Errors
    /// The reason for which it may not, until the pod is updated.
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        let _ = pod;
        Ok(())
    }

    /// Prepares this policy's filter for a pod.
    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster) -> PreFilter<'c> {
        let (_, _) = (pod, cluster);
        PreFilter::Skip
    }

    /// Tries to make a pod schedulable that no node takes.
    fn post_filter(&self, attempt: &mut FailedAttempt<'_>) -> PostFilter {
        let _ = attempt;
        PostFilter::Skip
    }

    /// Prepares this policy's score for a pod, given the nodes that take it.
    fn pre_score<'c>(&'c self, pod: &'c PodInfo, cluster: &'c Cluster, feasible: &NodeSet) -> PreScore<'c> {
        let (_, _, _) = (pod, cluster, feasible);
        PreScore::Skip
    }

    /// Sets aside what the pod needs on the node besides what the cluster's columns count.
    ///
    /// # Errors
    /// The reason for which the pod cannot have it; the pod is tried again as the rejection says.
    fn reserve(&self, pod: &PodInfo, node: Node<'_>) -> Result<(), Rejection> {
        let (_, _) = (pod, node);
        Ok(())
    }

    /// Gives back what [`reserve`](Self::reserve) set aside. Called for every policy, also those whose reserve did not run.
    fn unreserve(&self, pod: &PodInfo, node: &str) {
        let (_, _) = (pod, node);
    }

    /// Whether the pod may be bound now, must wait, or must not be bound. May let go or reject pods that wait.
    fn permit(&self, pod: &PodInfo, node: Node<'_>, waiting: &mut WaitingPods) -> Permit {
        let (_, _, _) = (pod, node, waiting);
        Permit::Allow
    }

    /// Does what must be done before the binding.
    ///
    /// # Errors
    /// The pod is not bound and is tried again after its back-off.
    async fn pre_bind(&self, binding: &Binding) -> Result<(), BindError> {
        let _ = binding;
        Ok(())
    }

    /// Binds the pod, or leaves that to the next policy.
    ///
    /// # Errors
    /// The pod is tried again after its back-off.
    async fn bind(&self, binding: &Binding) -> Result<BindOutcome, BindError> {
        let _ = binding;
        Ok(BindOutcome::Skip)
    }

    /// Learns that the pod was bound.
    async fn post_bind(&self, binding: &Binding) {
        let _ = binding;
    }
}

impl fmt::Debug for dyn SchedulerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a policy turned a pod away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reasons, as they stand in events: `Insufficient cpu`.
    pub reasons: Vec<Cow<'static, str>>,
    /// True when displacing other pods from the node could help.
    pub resolvable: bool,
}

impl Rejection {
    /// A rejection that displacing other pods could lift.
    #[must_use]
    pub fn resolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reasons: vec![reason.into()],
            resolvable: true,
        }
    }

    /// A rejection that stands whoever leaves the node.
    #[must_use]
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reasons: vec![reason.into()],
            resolvable: false,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join(", "))
    }
}

/// Whether an event is worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The pod may fit now.
    Queue,
    /// The event changes nothing for the pod.
    Skip,
}

impl Hint {
    /// [`Hint::Queue`] if the condition holds.
    #[must_use]
    pub fn queue_if(worth: bool) -> Self {
        if worth { Self::Queue } else { Self::Skip }
    }
}

/// The order in which waiting pods get their turn.
pub trait QueueSort: Send + Sync {
    /// `Less` when `a` goes before `b`.
    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering;
}

/// What a policy has to say about which nodes take a pod.
pub enum PreFilter<'c> {
    /// Every node is fine.
    Skip,
    /// The filter decides.
    Filter(Box<dyn NodeFilter + 'c>),
    /// Only these nodes come into question, and of them those that the filter takes.
    Only(NodeSet, Option<Box<dyn NodeFilter + 'c>>),
    /// No node will do.
    Reject(Rejection),
}

impl<'c> PreFilter<'c> {
    /// A filter that looks at one node at a time.
    pub fn each(filter: impl Fn(Node<'_>) -> Result<(), Rejection> + 'c) -> Self {
        Self::Filter(Box::new(filter))
    }
}

impl fmt::Debug for PreFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip => f.write_str("Skip"),
            Self::Filter(_) => f.write_str("Filter"),
            Self::Only(nodes, _) => f.debug_tuple("Only").field(nodes).finish(),
            Self::Reject(rejection) => f.debug_tuple("Reject").field(rejection).finish(),
        }
    }
}

/// A policy's filter for one pod.
pub trait NodeFilter {
    /// Whether one node takes the pod.
    ///
    /// # Errors
    /// Why it does not.
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection>;

    /// Removes the nodes that do not take the pod. Same answers as [`filter`](Self::filter); override it to decide along
    /// the cluster's columns.
    fn narrow(&self, cluster: &Cluster, candidates: &mut NodeSet) {
        candidates.retain(|id| self.filter(cluster.node(id)).is_ok());
    }
}

impl<F: Fn(Node<'_>) -> Result<(), Rejection>> NodeFilter for F {
    fn filter(&self, node: Node<'_>) -> Result<(), Rejection> {
        self(node)
    }
}

/// What a policy has to say about which nodes suit a pod better.
pub enum PreScore<'c> {
    /// All are alike.
    Skip,
    /// The score decides.
    Score(Box<dyn NodeScore + 'c>),
}

impl<'c> PreScore<'c> {
    /// A score from 0 to [`MAX_NODE_SCORE`] for one node at a time.
    pub fn each(score: impl Fn(Node<'_>) -> i64 + 'c) -> Self {
        Self::Score(Box::new(score))
    }
}

impl fmt::Debug for PreScore<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skip => "Skip",
            Self::Score(_) => "Score",
        })
    }
}

/// A policy's score for one pod.
pub trait NodeScore {
    /// One node's score, before [`normalise`](Self::normalise).
    fn score(&self, node: Node<'_>) -> i64;

    /// The scores of many nodes, `scores[i]` for `nodes[i]`. Same answers as [`score`](Self::score); override it to decide
    /// along the cluster's columns.
    fn score_all(&self, cluster: &Cluster, nodes: &[NodeId], scores: &mut [i64]) {
        for (score, &id) in scores.iter_mut().zip(nodes) {
            *score = self.score(cluster.node(id));
        }
    }

    /// Brings the scores of all feasible nodes into 0 to [`MAX_NODE_SCORE`].
    fn normalise(&self, scores: &mut [i64]) {
        let _ = scores;
    }
}

impl<F: Fn(Node<'_>) -> i64> NodeScore for F {
    fn score(&self, node: Node<'_>) -> i64 {
        self(node)
    }
}

/// Scales scores so that the highest becomes [`MAX_NODE_SCORE`]; turned round when `reverse`. Upstream's default.
pub fn scale_scores(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 {
            0
        } else {
            MAX_NODE_SCORE * *score / max
        };
        *score = if reverse { MAX_NODE_SCORE - scaled } else { scaled };
    }
}

/// A pod that no node took, for [`SchedulerPolicy::post_filter`].
#[derive(Debug)]
pub struct FailedAttempt<'a> {
    /// The pod.
    pub pod: &'a Arc<PodInfo>,
    /// The cluster. What a policy tries out on it, it must undo.
    pub cluster: &'a mut Cluster,
    /// The profile, to ask its filters again.
    pub profile: &'a Profile,
    /// Who said no to which node, and why.
    pub diagnosis: &'a Diagnosis,
}

impl FailedAttempt<'_> {
    /// Whether a node takes the pod as the cluster stands now, beside the pods that room is reserved for.
    pub fn fits(&mut self, node: NodeId) -> bool {
        placement::fits_beside_nominated(self.profile, self.cluster, self.pod, node).is_ok()
    }
}

/// What came of trying to make room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostFilter {
    /// Nothing was tried.
    Skip,
    /// Nothing helps; the message goes behind the reasons of the filters.
    Unresolved(String),
    /// Room is made on a node by displacing pods; the pod is nominated to it.
    Nominated {
        /// The node.
        node: String,
        /// The pods to be evicted from it.
        victims: Vec<PodKey>,
    },
}

/// Whether a pod may be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Now, as far as this policy is concerned.
    Allow,
    /// When this policy lets it go; if it does not in that time, the pod is rejected.
    Wait(Duration),
    /// Not on this node at this time.
    Reject(Rejection),
}
