//! The scheduler without I/O: what it is told, what it decides.

use crate::cluster::Cluster;
use crate::diagnosis::Diagnosis;
use crate::event::ClusterEvent;
use crate::object::{NodeInfo, PodInfo, PodKey};
use crate::permit::{Settled, WaitingPods};
use crate::placement::{self, Scratch};
use crate::policy::{FailedAttempt, Permit, PostFilter, Rejection};
use crate::profile::{PolicySet, Profile, ProfileError, check_all};
use crate::queue::{QueueContext, QueueLengths, QueueTimes, QueuedPod, SchedulingQueue};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Keeps the cluster's state and the queue, and decides one pod at a time.
///
/// Everything is a function of what it is told: node and pod changes, the results of bindings, the time (counted from any
/// fixed moment, never going back), and the seed of its random choices. The [`Scheduler`](crate::Scheduler) drives it from an
/// API server, the [`Simulation`](crate::Simulation) from memory.
#[derive(Debug)]
pub struct Engine {
    profiles: Vec<Profile>,
    cluster: Cluster,
    queue: SchedulingQueue,
    in_flight: HashMap<PodKey, InFlight>,
    waiting: WaitingPods,
    scratch: Scratch,
    random: fastrand::Rng,
}

/// A pod that has a node and is not known to be bound yet.
#[derive(Debug)]
struct InFlight {
    queued: QueuedPod,
    node: String,
}

/// What is to be done about a pod.
#[derive(Debug)]
pub enum Decision {
    /// Bind it. Room is reserved until [`Engine::bound`] or [`Engine::bind_failed`] is told.
    Bind(Assignment),
    /// No node takes it for now.
    Unschedulable(Unschedulable),
}

/// A pod with its node.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node's name.
    pub node: String,
    /// The place of its profile.
    pub profile: usize,
}

/// A pod without a node.
#[derive(Clone, Debug)]
pub struct Unschedulable {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Why, as it stands in the event and the condition.
    pub diagnosis: Diagnosis,
    /// The node on which room is being made.
    pub nominated: Option<String>,
    /// The pods to be evicted from it.
    pub victims: Vec<Arc<PodInfo>>,
}

impl Engine {
    /// An engine without nodes and pods.
    ///
    /// # Errors
    /// When the profiles contradict themselves or each other.
    pub fn new(profiles: Vec<Profile>, times: QueueTimes, seed: u64) -> Result<Self, ProfileError> {
        check_all(&profiles)?;
        Ok(Self {
            profiles,
            cluster: Cluster::new(),
            queue: SchedulingQueue::new(times),
            in_flight: HashMap::new(),
            waiting: WaitingPods::default(),
            scratch: Scratch::default(),
            random: fastrand::Rng::with_seed(seed),
        })
    }

    /// The state that decisions are made on.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The profiles, by place.
    #[must_use]
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// How many pods stand where.
    #[must_use]
    pub fn queue_lengths(&self) -> QueueLengths {
        self.queue.lengths()
    }

    /// How many pods have a node and are not known to be bound yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// True while a pod waits for a node or is on its way to one.
    #[must_use]
    pub fn tracks(&self, key: &PodKey) -> bool {
        self.in_flight.contains_key(key) || self.queue.get(key).is_some()
    }

    /// A node appeared or changed.
    pub fn set_node(&mut self, node: NodeInfo, now: Duration) {
        let change = self.cluster.set_node(node);
        if let Some(event) = ClusterEvent::node(change.old.as_deref(), &change.new) {
            self.tell(&event, now);
        }
    }

    /// A node went away.
    pub fn remove_node(&mut self, name: &str, now: Duration) {
        if let Some(old) = self.cluster.remove_node(name) {
            self.tell(&ClusterEvent::node_deleted(&old), now);
        }
    }

    /// A namespace appeared or changed.
    pub fn set_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>, now: Duration) {
        if self.cluster.set_namespace(name, labels) {
            self.tell(&ClusterEvent::Namespace { name }, now);
        }
    }

    /// A namespace went away.
    pub fn remove_namespace(&mut self, name: &str, now: Duration) {
        if self.cluster.remove_namespace(name) {
            self.tell(&ClusterEvent::Namespace { name }, now);
        }
    }

    /// A pod appeared or changed.
    pub fn set_pod(&mut self, pod: PodInfo, now: Duration) {
        let pod = Arc::new(pod);
        if pod.finished {
            self.remove_pod(&pod.key, now);
        } else if let Some(node) = pod.node_name.clone() {
            self.assigned(&pod, &node, now);
        } else if let Some(profile) = self.profiles.iter().position(|p| p.name() == pod.scheduler_name) {
            self.pending(pod, profile, now);
        }
    }

    /// A pod went away, or holds nothing any more.
    pub fn remove_pod(&mut self, key: &PodKey, now: Duration) {
        let queued = self.queue.remove(
            key,
            QueueContext {
                profiles: &self.profiles,
                now,
            },
        );
        let in_flight = self.in_flight.remove(key);
        self.waiting.remove(key);
        self.cluster.withdraw_nomination(key);
        if let Some(in_flight) = &in_flight {
            self.unreserve(&in_flight.queued, &in_flight.node);
        }
        if let Some(pod) = self.cluster.remove_pod(key) {
            self.tell(&ClusterEvent::assigned_pod_deleted(&pod), now);
        } else if let Some(queued) = queued {
            self.tell(&ClusterEvent::pending_pod_deleted(&queued.pod), now);
        }
    }

    /// Decides about the next pod, if one's turn has come.
    pub fn decide(&mut self, now: Duration) -> Option<Decision> {
        self.waiting.expire(now);
        self.queue.tick(QueueContext {
            profiles: &self.profiles,
            now,
        });
        loop {
            while let Some(settled) = self.waiting.next_settled() {
                if let Some(decision) = self.settle(settled, now) {
                    return Some(decision);
                }
            }
            let queued = self.queue.pop(QueueContext {
                profiles: &self.profiles,
                now,
            })?;
            if let Some(decision) = self.attempt(queued, now) {
                return Some(decision);
            }
        }
    }

    /// A binding went through.
    pub fn bound(&mut self, key: &PodKey) {
        self.in_flight.remove(key);
    }

    /// A binding did not go through: the room is given back and the pod tried again after a pause, unless it is gone or was
    /// bound otherwise.
    pub fn bind_failed(&mut self, key: &PodKey, now: Duration) {
        let Some(in_flight) = self.in_flight.remove(key) else {
            return;
        };
        if self.release(&in_flight, now) {
            self.queue.give_back_failed(
                in_flight.queued,
                QueueContext {
                    profiles: &self.profiles,
                    now,
                },
            );
        }
    }

    /// When [`decide`](Self::decide) may have something to do though nothing else happens; a moment in the past means now.
    #[must_use]
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        if self.queue.has_next(now) {
            return Some(now);
        }
        [self.queue.next_deadline(), self.waiting.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    fn assigned(&mut self, pod: &Arc<PodInfo>, node: &str, now: Duration) {
        self.queue.remove(
            &pod.key,
            QueueContext {
                profiles: &self.profiles,
                now,
            },
        );
        self.cluster.withdraw_nomination(&pod.key);
        if self.waiting.remove(&pod.key)
            && let Some(in_flight) = self.in_flight.remove(&pod.key)
        {
            // Bound by another while a policy held it.
            self.unreserve(&in_flight.queued, &in_flight.node);
        }
        let was_assumed = self.cluster.is_assumed(&pod.key);
        let old = self.cluster.set_pod(pod.clone(), node);
        match old.filter(|_| !was_assumed) {
            None => self.tell(&ClusterEvent::pod_assigned(pod), now),
            Some(old) => {
                if let Some(event) = ClusterEvent::pod_updated(&old, pod) {
                    self.tell(&event, now);
                }
            }
        }
    }

    fn pending(&mut self, pod: Arc<PodInfo>, profile: usize, now: Duration) {
        let cx = QueueContext {
            profiles: &self.profiles,
            now,
        };
        if pod.terminating {
            self.queue.remove(&pod.key, cx);
            self.cluster.withdraw_nomination(&pod.key);
        } else if let Some(in_flight) = self.in_flight.get_mut(&pod.key) {
            in_flight.queued.pod = pod;
        } else if self.cluster.node_of(&pod.key).is_some() {
            // Bound by us, and this update was sent before the binding: the next one will have the node.
        } else {
            if let Some(node) = &pod.nominated_node {
                self.cluster.nominate(pod.clone(), node);
            }
            if self.queue.get(&pod.key).is_some() {
                self.queue.update(pod, cx);
            } else {
                self.queue.add(pod, profile, cx);
            }
        }
    }

    fn attempt(&mut self, queued: QueuedPod, now: Duration) -> Option<Decision> {
        let (profile, pod) = (&self.profiles[queued.profile], queued.pod.clone());
        match placement::place(
            profile,
            &mut self.cluster,
            &pod,
            &mut self.scratch,
            &mut self.random,
        ) {
            Err(diagnosis) => Some(self.unschedulable(queued, diagnosis, now)),
            Ok(placement) => {
                self.cluster.assume(pod.clone(), placement.node);
                self.cluster.withdraw_nomination(&pod.key);
                self.reserve(queued, now)
            }
        }
    }

    fn unschedulable(&mut self, queued: QueuedPod, mut diagnosis: Diagnosis, now: Duration) -> Decision {
        let profile = &self.profiles[queued.profile];
        let pod = queued.pod.clone();
        let outcome = if diagnosis.nodes == 0 {
            PostFilter::Skip
        } else {
            make_room(profile, &mut self.cluster, &pod, &diagnosis)
        };
        let (mut nominated, mut victims) = (None, Vec::new());
        match outcome {
            PostFilter::Skip => {}
            PostFilter::Unresolved(message) => {
                diagnosis.post_filter = Some(message);
                self.cluster.withdraw_nomination(&pod.key);
            }
            PostFilter::Nominated { node, victims: keys } => {
                self.cluster.nominate(pod.clone(), &node);
                victims = keys
                    .iter()
                    .filter_map(|key| self.cluster.pod(key).cloned())
                    .collect();
                nominated = Some(node);
            }
        }
        let cx = QueueContext {
            profiles: &self.profiles,
            now,
        };
        self.queue
            .give_back_unschedulable(queued, diagnosis.rejected_by, cx);
        Decision::Unschedulable(Unschedulable {
            pod,
            diagnosis,
            nominated,
            victims,
        })
    }

    /// Reserve and permit, for a pod that was just assumed.
    fn reserve(&mut self, queued: QueuedPod, now: Duration) -> Option<Decision> {
        let id = self.cluster.node_of(&queued.pod.key)?;
        let node = self.cluster.node(id).name().to_owned();
        let profile = &self.profiles[queued.profile];
        let mut holds = Vec::new();
        for (at, entry) in profile.entries().iter().enumerate() {
            if let Err(rejection) = entry.policy.reserve(&queued.pod, self.cluster.node(id)) {
                return Some(self.give_up(InFlight { queued, node }, at, rejection, now));
            }
        }
        for (at, entry) in profile.entries().iter().enumerate() {
            match entry
                .policy
                .permit(&queued.pod, self.cluster.node(id), &mut self.waiting)
            {
                Permit::Allow => {}
                Permit::Wait(time) => holds.push((entry.policy.name().to_owned(), now.saturating_add(time))),
                Permit::Reject(rejection) => {
                    return Some(self.give_up(InFlight { queued, node }, at, rejection, now));
                }
            }
        }
        let assignment = Assignment {
            pod: queued.pod.clone(),
            node: node.clone(),
            profile: queued.profile,
        };
        self.in_flight.insert(
            queued.pod.key.clone(),
            InFlight {
                queued,
                node: node.clone(),
            },
        );
        if holds.is_empty() {
            return Some(Decision::Bind(assignment));
        }
        self.waiting.hold(assignment.pod, node, holds);
        None
    }

    /// Takes up a pod that a policy let go or rejected while it waited; none when it is gone.
    fn settle(&mut self, (key, settled): (PodKey, Settled), now: Duration) -> Option<Decision> {
        match settled {
            Settled::Allowed => {
                let in_flight = self.in_flight.get(&key)?;
                let (pod, node) = (in_flight.queued.pod.clone(), in_flight.node.clone());
                Some(Decision::Bind(Assignment {
                    pod,
                    node,
                    profile: in_flight.queued.profile,
                }))
            }
            Settled::Rejected { policy, rejection } => {
                let in_flight = self.in_flight.remove(&key)?;
                let mut entries = self.profiles[in_flight.queued.profile].entries().iter();
                let at = entries
                    .position(|entry| entry.policy.name() == policy)
                    .unwrap_or(0);
                Some(self.give_up(in_flight, at, rejection, now))
            }
        }
    }

    /// A policy rejected a pod that has a node.
    fn give_up(
        &mut self,
        in_flight: InFlight,
        policy: usize,
        rejection: Rejection,
        now: Duration,
    ) -> Decision {
        let mut diagnosis = Diagnosis::new(1);
        if let Some(node) = self.cluster.node_of(&in_flight.queued.pod.key) {
            diagnosis.reject(policy, node, rejection);
        }
        let pod = in_flight.queued.pod.clone();
        if self.release(&in_flight, now) {
            let cx = QueueContext {
                profiles: &self.profiles,
                now,
            };
            let mut rejected_by = PolicySet::default();
            rejected_by.insert(policy);
            self.queue.give_back_rejected(in_flight.queued, rejected_by, cx);
        }
        Decision::Unschedulable(Unschedulable {
            pod,
            diagnosis,
            nominated: None,
            victims: Vec::new(),
        })
    }

    /// Gives the reserved room back. False when the pod was confirmed meanwhile: then it is placed.
    fn release(&mut self, in_flight: &InFlight, now: Duration) -> bool {
        self.unreserve(&in_flight.queued, &in_flight.node);
        let Some(pod) = self.cluster.forget(&in_flight.queued.pod.key) else {
            return false;
        };
        self.tell(&ClusterEvent::assigned_pod_deleted(&pod), now);
        true
    }

    fn unreserve(&self, queued: &QueuedPod, node: &str) {
        for entry in self.profiles[queued.profile].entries().iter().rev() {
            entry.policy.unreserve(&queued.pod, node);
        }
    }

    fn tell(&mut self, event: &ClusterEvent<'_>, now: Duration) {
        self.queue.on_event(
            event,
            QueueContext {
                profiles: &self.profiles,
                now,
            },
        );
    }
}

/// Asks the policies in order to make room; the first that has something to say decides.
fn make_room(
    profile: &Profile,
    cluster: &mut Cluster,
    pod: &Arc<PodInfo>,
    diagnosis: &Diagnosis,
) -> PostFilter {
    for entry in profile.entries() {
        let mut attempt = FailedAttempt {
            pod,
            cluster,
            profile,
            diagnosis,
        };
        match entry.policy.post_filter(&mut attempt) {
            PostFilter::Skip => {}
            outcome => return outcome,
        }
    }
    PostFilter::Skip
}
