//! Pods that have a node but must wait before they are bound.

use crate::object::{PodInfo, PodKey};
use crate::policy::Rejection;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A pod that waits, with its room reserved, until every policy that holds it lets it go.
#[derive(Debug)]
pub struct WaitingPod {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node it will be bound to.
    pub node: String,
    holds: Vec<(String, Duration)>,
}

impl WaitingPod {
    /// The policies that hold the pod.
    pub fn held_by(&self) -> impl Iterator<Item = &str> {
        self.holds.iter().map(|(policy, _)| policy.as_str())
    }
}

/// The pods that wait, for policies to let go or reject.
#[derive(Debug, Default)]
pub struct WaitingPods {
    pods: BTreeMap<PodKey, WaitingPod>,
    settled: VecDeque<(PodKey, Settled)>,
}

/// What became of a pod that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Allowed,
    Rejected { policy: String, rejection: Rejection },
}

impl WaitingPods {
    /// All pods that wait.
    pub fn iter(&self) -> impl Iterator<Item = &WaitingPod> {
        self.pods.values()
    }

    /// Lets a pod go as far as one policy is concerned. It is bound when no other holds it.
    pub fn allow(&mut self, key: &PodKey, policy: &str) {
        let Some(waiting) = self.pods.get_mut(key) else {
            return;
        };
        waiting.holds.retain(|(holder, _)| holder != policy);
        if waiting.holds.is_empty() {
            self.settle(key, Settled::Allowed);
        }
    }

    /// Rejects a pod: it gives its room back and is tried again.
    pub fn reject(&mut self, key: &PodKey, policy: &str, rejection: Rejection) {
        if self.pods.contains_key(key) {
            self.settle(
                key,
                Settled::Rejected {
                    policy: policy.to_owned(),
                    rejection,
                },
            );
        }
    }

    /// Puts a pod on hold; `holds` are the policies and until when they may hold it.
    pub(crate) fn hold(&mut self, pod: Arc<PodInfo>, node: String, holds: Vec<(String, Duration)>) {
        self.pods.insert(pod.key.clone(), WaitingPod { pod, node, holds });
    }

    /// True when the pod waited.
    pub(crate) fn remove(&mut self, key: &PodKey) -> bool {
        self.pods.remove(key).is_some()
    }

    /// Rejects the pods whose time is up.
    pub(crate) fn expire(&mut self, now: Duration) {
        let late: Vec<_> = self
            .pods
            .iter()
            .filter_map(|(key, pod)| {
                let (policy, _) = pod.holds.iter().find(|(_, until)| *until <= now)?;
                Some((key.clone(), policy.clone()))
            })
            .collect();
        for (key, policy) in late {
            let rejection = Rejection::resolvable("rejected due to timeout after waiting at permit");
            self.reject(&key, &policy, rejection);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.pods
            .values()
            .flat_map(|pod| pod.holds.iter().map(|(_, until)| *until))
            .min()
    }

    /// The next pod that was let go or rejected, in the order in which that happened.
    pub(crate) fn next_settled(&mut self) -> Option<(PodKey, Settled)> {
        self.settled.pop_front()
    }

    fn settle(&mut self, key: &PodKey, settled: Settled) {
        self.pods.remove(key);
        self.settled.push_back((key.clone(), settled));
    }
}
