//! Which pod is next: those whose turn it is, those that pause after a failure, those that wait for something to change.

mod heap;
mod parked;

use crate::event::{ClusterEvent, EventSet};
use crate::object::{PodInfo, PodKey};
use crate::policy::{Hint, QueueSort};
use crate::profile::{PolicySet, Profile};
use heap::KeyedHeap;
use parked::Parked;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// How long pods pause and wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueTimes {
    /// The first pause after a failure; it doubles with each further one. Upstream: 1 s.
    pub initial_backoff: Duration,
    /// The longest pause. Upstream: 10 s.
    pub max_backoff: Duration,
    /// After how long a pod is tried again though nothing happened that seemed to matter. Upstream: 5 min.
    pub max_unschedulable: Duration,
}

impl Default for QueueTimes {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            max_unschedulable: Duration::from_secs(300),
        }
    }
}

/// A pod that waits for a node, with what the queue remembers of it. Times count from the scheduler's start.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    /// The pod as it was last seen.
    pub pod: Arc<PodInfo>,
    /// Its profile's place among the scheduler's.
    pub profile: usize,
    /// When it came into the queue for this attempt.
    pub queued_at: Duration,
    /// How often its placement was tried.
    pub attempts: u32,
    /// How often no node took it.
    unschedulable_count: u32,
    /// How often in a row something went wrong otherwise.
    error_count: u32,
    /// Breaks ties of `queued_at`: pods leave as they came.
    sequence: u64,
    rejected_by: PolicySet,
    /// The policy that does not let it wait for its turn.
    gated_by: Option<usize>,
    backoff_until: Duration,
}

impl QueuedPod {
    /// Earlier for the one that waits longer.
    #[must_use]
    pub fn by_arrival(&self, other: &Self) -> Ordering {
        (self.queued_at, self.sequence).cmp(&(other.queued_at, other.sequence))
    }

    /// The policies that rejected it last.
    #[must_use]
    pub fn rejected_by(&self) -> PolicySet {
        self.rejected_by
    }

    fn held_back_by(&self) -> PolicySet {
        self.gated_by.map_or(self.rejected_by, one)
    }

    fn backoff(&self, times: &QueueTimes) -> Duration {
        let failures = if self.error_count > 0 {
            self.error_count
        } else {
            self.unschedulable_count
        };
        if failures == 0 {
            return Duration::ZERO;
        }
        let doubled = 1u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        times
            .initial_backoff
            .saturating_mul(doubled)
            .min(times.max_backoff)
    }
}

/// The pods that have no node yet.
///
/// A pod is in exactly one of three places: *active* (ordered by the profile's queue sort), *back-off* (by the end of the
/// pause) or *unschedulable* (until an event that may help, an update of the pod, or the time limit). What was
/// [popped](Self::pop) is the caller's until it is given back.
#[derive(Debug)]
pub struct SchedulingQueue {
    times: QueueTimes,
    active: KeyedHeap<PodKey, QueuedPod>,
    /// Pauses that may be cut short when nobody else wants a turn.
    backoff: KeyedHeap<PodKey, QueuedPod>,
    /// Pauses that are kept: what went wrong would go wrong again at once.
    kept_backoff: KeyedHeap<PodKey, QueuedPod>,
    unschedulable: Parked,
    sequence: u64,
}

/// Where the pods of a queue stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLengths {
    /// Pods whose turn it is.
    pub active: usize,
    /// Pods that pause.
    pub backoff: usize,
    /// Pods that wait for something to change.
    pub unschedulable: usize,
    /// Pods that a policy does not let wait for their turn.
    pub gated: usize,
}

/// What the queue needs to know beside itself.
#[derive(Clone, Copy, Debug)]
pub struct QueueContext<'a> {
    /// The profiles, for their order, gates and hints.
    pub profiles: &'a [Profile],
    /// Time since the scheduler's start.
    pub now: Duration,
}

impl QueueContext<'_> {
    fn order(&self) -> impl Fn(&QueuedPod, &QueuedPod) -> Ordering {
        let sort: Option<&dyn QueueSort> = self.profiles.iter().find_map(Profile::queue_sort);
        move |a, b| {
            sort.map_or(Ordering::Equal, |sort| sort.compare(a, b))
                .then_with(|| a.by_arrival(b))
        }
    }

    fn gate(&self, pod: &QueuedPod) -> Option<usize> {
        let entries = self.profiles[pod.profile].entries();
        entries
            .iter()
            .position(|entry| entry.policy.pre_enqueue(&pod.pod).is_err())
    }

    fn helps(&self, pod: &QueuedPod, event: &ClusterEvent<'_>) -> bool {
        let rejecters = pod.held_back_by();
        let entries = self.profiles[pod.profile].entries();
        rejecters.is_empty()
            || rejecters.iter().filter_map(|at| entries.get(at)).any(|entry| {
                entry.policy.events().intersects(event.kinds())
                    && entry.policy.hint(&pod.pod, event) == Hint::Queue
            })
    }

    /// The events that may help a pod; all of them when no policy is known to hold it back.
    fn wanted(&self, pod: &QueuedPod) -> EventSet {
        let rejecters = pod.held_back_by();
        if rejecters.is_empty() {
            return EventSet::ALL;
        }
        let entries = self.profiles[pod.profile].entries();
        let events = rejecters
            .iter()
            .filter_map(|at| entries.get(at))
            .map(|entry| entry.policy.events());
        events.fold(EventSet::NONE, EventSet::and)
    }
}

fn one(policy: usize) -> PolicySet {
    let mut set = PolicySet::default();
    set.insert(policy);
    set
}

fn by_pause(a: &QueuedPod, b: &QueuedPod) -> Ordering {
    a.backoff_until
        .cmp(&b.backoff_until)
        .then_with(|| a.by_arrival(b))
}

impl SchedulingQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(times: QueueTimes) -> Self {
        Self {
            times,
            active: KeyedHeap::default(),
            backoff: KeyedHeap::default(),
            kept_backoff: KeyedHeap::default(),
            unschedulable: Parked::default(),
            sequence: 0,
        }
    }

    /// Takes in a pod that appeared.
    pub fn add(&mut self, pod: Arc<PodInfo>, profile: usize, cx: QueueContext<'_>) {
        self.remove(&pod.key, cx);
        let queued = QueuedPod {
            pod,
            profile,
            queued_at: cx.now,
            attempts: 0,
            unschedulable_count: 0,
            error_count: 0,
            sequence: 0,
            rejected_by: PolicySet::default(),
            gated_by: None,
            backoff_until: Duration::ZERO,
        };
        self.enqueue(queued, cx);
    }

    /// The pod of that key, if it is in the queue.
    #[must_use]
    pub fn get(&self, key: &PodKey) -> Option<&QueuedPod> {
        self.active
            .get(key)
            .or_else(|| self.backoff.get(key))
            .or_else(|| self.kept_backoff.get(key))
            .or_else(|| self.unschedulable.get(key))
    }

    /// Takes over a new version of a pod. One that waits for a change gets another attempt if its own change may help.
    pub fn update(&mut self, pod: Arc<PodInfo>, cx: QueueContext<'_>) {
        let order = cx.order();
        if let Some(mut queued) = self.active.remove(&pod.key, &order) {
            queued.pod = pod;
            // A gate cannot come back, but a policy may gate by other fields.
            match cx.gate(&queued) {
                None => self.active.push(queued.pod.key.clone(), queued, &order),
                gated_by => self.park(QueuedPod { gated_by, ..queued }, cx),
            }
        } else if let Some(mut queued) = self.backoff.remove(&pod.key, &by_pause) {
            queued.pod = pod;
            self.backoff.push(queued.pod.key.clone(), queued, &by_pause);
        } else if let Some(mut queued) = self.kept_backoff.remove(&pod.key, &by_pause) {
            queued.pod = pod;
            self.kept_backoff.push(queued.pod.key.clone(), queued, &by_pause);
        } else if let Some(mut queued) = self.unschedulable.remove(&pod.key) {
            let old = std::mem::replace(&mut queued.pod, pod.clone());
            let helps = ClusterEvent::pod_updated(&old, &pod).is_some_and(|event| cx.helps(&queued, &event));
            if helps || queued.gated_by.is_some() {
                self.requeue(queued, cx);
            } else {
                self.park(queued, cx);
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, key: &PodKey, cx: QueueContext<'_>) -> Option<QueuedPod> {
        let active = self.active.remove(key, &cx.order());
        active
            .or_else(|| self.backoff.remove(key, &by_pause))
            .or_else(|| self.kept_backoff.remove(key, &by_pause))
            .or_else(|| self.unschedulable.remove(key))
    }

    /// The pod whose turn it is, one attempt richer. When none is active, one that pauses after not fitting may go at once:
    /// the pause is there to let others by, and there are none. Pauses after errors are kept.
    pub fn pop(&mut self, cx: QueueContext<'_>) -> Option<QueuedPod> {
        self.end_pauses(cx);
        let next = self
            .active
            .pop(&cx.order())
            .or_else(|| self.backoff.pop(&by_pause));
        let mut queued = next?;
        queued.attempts += 1;
        Some(queued)
    }

    /// Gives back a pod that no node took, with the policies that rejected it.
    pub fn give_back_unschedulable(
        &mut self,
        queued: QueuedPod,
        rejected_by: PolicySet,
        cx: QueueContext<'_>,
    ) {
        let queued = self.rejected(queued, rejected_by, cx);
        self.park(queued, cx);
    }

    /// Gives back a pod that was rejected after it had a node: what would help may have happened meanwhile, so it pauses and
    /// is tried again.
    pub fn give_back_rejected(&mut self, queued: QueuedPod, rejected_by: PolicySet, cx: QueueContext<'_>) {
        let queued = self.rejected(queued, rejected_by, cx);
        self.kept_backoff.push(queued.pod.key.clone(), queued, &by_pause);
    }

    /// Gives back a pod with which something went wrong: it pauses and is tried again whatever happens.
    pub fn give_back_failed(&mut self, mut queued: QueuedPod, cx: QueueContext<'_>) {
        queued.error_count += 1;
        queued.rejected_by = PolicySet::default();
        queued.queued_at = cx.now;
        queued.backoff_until = cx.now + queued.backoff(&self.times);
        self.kept_backoff.push(queued.pod.key.clone(), queued, &by_pause);
    }

    /// Gives every waiting pod another attempt that the event may help.
    pub fn on_event(&mut self, event: &ClusterEvent<'_>, cx: QueueContext<'_>) {
        let helped = self
            .unschedulable
            .helped(event.kinds(), |queued| cx.helps(queued, event));
        self.requeue_all(helped, cx);
    }

    /// Gives pods another attempt that have waited for too long, and ends pauses that are over.
    pub fn tick(&mut self, cx: QueueContext<'_>) {
        self.end_pauses(cx);
        let stale = self.unschedulable.stale(self.times.max_unschedulable, cx.now);
        self.requeue_all(stale, cx);
    }

    /// When [`tick`](Self::tick) or [`pop`](Self::pop) may have something to do if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let pauses =
            [&self.backoff, &self.kept_backoff].map(|heap| heap.peek().map(|queued| queued.backoff_until));
        let stale = self.unschedulable.deadline(self.times.max_unschedulable);
        pauses.into_iter().chain([stale]).flatten().min()
    }

    /// True when [`pop`](Self::pop) would return a pod.
    #[must_use]
    pub fn has_next(&self, now: Duration) -> bool {
        let kept_is_over = || {
            self.kept_backoff
                .peek()
                .is_some_and(|queued| queued.backoff_until <= now)
        };
        !self.active.is_empty() || !self.backoff.is_empty() || kept_is_over()
    }

    /// How many pods stand where.
    #[must_use]
    pub fn lengths(&self) -> QueueLengths {
        let gated = self.unschedulable.gated();
        QueueLengths {
            active: self.active.len(),
            backoff: self.backoff.len() + self.kept_backoff.len(),
            unschedulable: self.unschedulable.len() - gated,
            gated,
        }
    }

    fn requeue_all(&mut self, keys: Vec<PodKey>, cx: QueueContext<'_>) {
        for key in keys {
            if let Some(queued) = self.unschedulable.remove(&key) {
                self.requeue(queued, cx);
            }
        }
    }

    fn requeue(&mut self, queued: QueuedPod, cx: QueueContext<'_>) {
        if queued.gated_by.is_none() && queued.backoff_until > cx.now {
            self.backoff.push(queued.pod.key.clone(), queued, &by_pause);
        } else {
            self.enqueue(queued, cx);
        }
    }

    fn end_pauses(&mut self, cx: QueueContext<'_>) {
        let over = |heap: &KeyedHeap<PodKey, QueuedPod>| {
            heap.peek().is_some_and(|queued| queued.backoff_until <= cx.now)
        };
        while over(&self.backoff) {
            let Some(queued) = self.backoff.pop(&by_pause) else {
                break;
            };
            self.enqueue(queued, cx);
        }
        while over(&self.kept_backoff) {
            let Some(queued) = self.kept_backoff.pop(&by_pause) else {
                break;
            };
            self.enqueue(queued, cx);
        }
    }

    fn enqueue(&mut self, mut queued: QueuedPod, cx: QueueContext<'_>) {
        self.sequence += 1;
        queued.sequence = self.sequence;
        queued.gated_by = cx.gate(&queued);
        if queued.gated_by.is_some() {
            self.park(queued, cx);
        } else {
            self.active.push(queued.pod.key.clone(), queued, &cx.order());
        }
    }

    fn rejected(&self, mut queued: QueuedPod, rejected_by: PolicySet, cx: QueueContext<'_>) -> QueuedPod {
        queued.unschedulable_count += 1;
        queued.error_count = 0;
        queued.rejected_by = rejected_by;
        queued.queued_at = cx.now;
        queued.backoff_until = cx.now + queued.backoff(&self.times);
        queued
    }

    fn park(&mut self, queued: QueuedPod, cx: QueueContext<'_>) {
        let wanted = cx.wanted(&queued);
        self.unschedulable.insert(queued, wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};

    struct Bed {
        queue: SchedulingQueue,
        profiles: Vec<Profile>,
        now: Duration,
    }

    impl Bed {
        fn new() -> Self {
            Self {
                queue: SchedulingQueue::new(QueueTimes::default()),
                profiles: vec![Profile::upstream()],
                now: Duration::ZERO,
            }
        }

        fn cx(profiles: &[Profile], now: Duration) -> QueueContext<'_> {
            QueueContext { profiles, now }
        }

        fn add(&mut self, pod: PodInfo) {
            self.queue
                .add(Arc::new(pod), 0, Self::cx(&self.profiles, self.now));
        }

        fn pop(&mut self) -> Option<QueuedPod> {
            self.queue.pop(Self::cx(&self.profiles, self.now))
        }

        fn name(&mut self) -> Option<String> {
            self.pop().map(|queued| queued.pod.name.clone())
        }

        fn reject(&mut self, queued: QueuedPod, policy: &str) {
            let at = self.profiles[0]
                .policies()
                .position(|(p, _)| p.name() == policy)
                .unwrap();
            self.queue
                .give_back_unschedulable(queued, one(at), Self::cx(&self.profiles, self.now));
        }

        fn event(&mut self, event: &ClusterEvent<'_>) {
            self.queue.on_event(event, Self::cx(&self.profiles, self.now));
        }

        fn tick(&mut self, to: u64) {
            self.now = Duration::from_secs(to);
            self.queue.tick(Self::cx(&self.profiles, self.now));
        }
    }

    #[test]
    fn higher_priority_goes_first_and_equals_in_order_of_arrival() {
        let mut bed = Bed::new();
        for (name, priority) in [("low", 1), ("first", 5), ("second", 5), ("high", 9)] {
            bed.add(pod(name).priority(priority).build());
        }
        let order: Vec<_> = std::iter::from_fn(|| bed.name()).collect();
        assert_eq!(order, ["high", "first", "second", "low"]);
    }

    #[test]
    fn a_rejected_pod_waits_for_an_event_that_its_rejecter_finds_helpful() {
        let mut bed = Bed::new();
        bed.add(pod("big").cpu(6000).build());
        let queued = bed.pop().unwrap();
        bed.reject(queued, "NodeResourcesFit");
        let (small, large) = (node("small").build(), node("large").cpu(8000).build());
        bed.event(&ClusterEvent::node(None, &small).unwrap());
        assert_eq!(
            bed.queue.lengths().unschedulable,
            1,
            "a node that is too small does not help"
        );
        bed.event(&ClusterEvent::node(None, &large).unwrap());
        assert_eq!(bed.queue.lengths().backoff, 1, "its pause is not over yet");
        assert_eq!(bed.name().as_deref(), Some("big"), "but nobody else wants a turn");
    }

    #[test]
    fn pauses_double_up_to_the_limit_and_let_others_by() {
        let mut bed = Bed::new();
        let times = QueueTimes::default();
        bed.add(pod("p").build());
        let mut queued = bed.pop().unwrap();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            queued.unschedulable_count += 1;
            pauses.push(queued.backoff(&times).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        bed.reject(queued, "NodeResourcesFit");
        bed.event(&ClusterEvent::node(None, &node("n").build()).unwrap());
        bed.add(pod("other").build());
        assert_eq!(bed.name().as_deref(), Some("other"));
        assert_eq!(bed.name().as_deref(), Some("p"));
    }

    #[test]
    fn a_pause_after_an_error_is_kept_to_its_end() {
        let mut bed = Bed::new();
        bed.add(pod("p").build());
        let queued = bed.pop().unwrap();
        bed.queue
            .give_back_failed(queued, Bed::cx(&bed.profiles, bed.now));
        assert!(bed.pop().is_none());
        assert_eq!(bed.queue.next_deadline(), Some(Duration::from_secs(1)));
        bed.now = Duration::from_secs(1);
        assert_eq!(bed.name().as_deref(), Some("p"));
    }

    #[test]
    fn a_pod_that_waited_for_five_minutes_is_tried_again() {
        let mut bed = Bed::new();
        bed.add(pod("p").build());
        let queued = bed.pop().unwrap();
        bed.reject(queued, "NodeResourcesFit");
        bed.tick(299);
        assert_eq!(bed.queue.lengths().unschedulable, 1);
        bed.tick(300);
        assert_eq!(bed.queue.lengths().active, 1);
    }

    #[test]
    fn a_gated_pod_waits_for_its_gates_and_for_nothing_else() {
        let mut bed = Bed::new();
        bed.add(pod("p").gate("g").build());
        assert_eq!(bed.queue.lengths().gated, 1);
        bed.event(&ClusterEvent::node(None, &node("n").build()).unwrap());
        bed.tick(1000);
        assert!(bed.pop().is_none());
        bed.queue
            .update(Arc::new(pod("p").build()), Bed::cx(&bed.profiles, bed.now));
        assert_eq!(bed.name().as_deref(), Some("p"));
    }

    #[test]
    fn an_update_that_may_help_the_pod_itself_gets_it_another_attempt() {
        let mut bed = Bed::new();
        bed.add(pod("p").build());
        let queued = bed.pop().unwrap();
        bed.reject(queued, "TaintToleration");
        bed.queue.update(
            Arc::new(pod("p").label("a", "b").build()),
            Bed::cx(&bed.profiles, bed.now),
        );
        assert_eq!(bed.queue.lengths().unschedulable, 1);
        bed.queue.update(
            Arc::new(pod("p").toleration("k", "Exists", "", "").build()),
            Bed::cx(&bed.profiles, bed.now),
        );
        assert_eq!(bed.queue.lengths().unschedulable, 0);
    }

    #[test]
    fn a_deleted_pod_is_gone_wherever_it_stood() {
        let mut bed = Bed::new();
        for name in ["active", "paused", "waiting"] {
            bed.add(pod(name).build());
        }
        let (active, paused, waiting) = (bed.pop().unwrap(), bed.pop().unwrap(), bed.pop().unwrap());
        let keys = [&active, &paused, &waiting].map(|q| q.pod.key.clone());
        bed.queue
            .give_back_failed(paused, Bed::cx(&bed.profiles, bed.now));
        bed.reject(waiting, "NodeName");
        bed.add((*active.pod).clone());
        assert!(keys.iter().all(|key| bed.queue.get(key).is_some()));
        assert!(
            keys.iter()
                .all(|key| bed.queue.remove(key, Bed::cx(&bed.profiles, bed.now)).is_some())
        );
        assert_eq!(
            bed.queue.lengths(),
            QueueLengths {
                active: 0,
                backoff: 0,
                unschedulable: 0,
                gated: 0
            }
        );
    }
}
