use super::QueuedPod;
use crate::event::EventSet;
use crate::object::PodKey;
use std::collections::HashMap;
use std::time::Duration;

/// Pods that wait for something to change, with bounds that spare looking at each of them when nothing can concern any.
#[derive(Debug, Default)]
pub(super) struct Parked {
    pods: HashMap<PodKey, QueuedPod>,
    /// At least the events that any of the pods waits for.
    wanted: EventSet,
    /// At most when the first that is not gated came.
    since: Option<Duration>,
}

impl Parked {
    pub(super) fn insert(&mut self, pod: QueuedPod, wanted: EventSet) {
        self.wanted |= wanted;
        self.note_arrival(&pod);
        self.pods.insert(pod.pod.key.clone(), pod);
    }

    pub(super) fn get(&self, key: &PodKey) -> Option<&QueuedPod> {
        self.pods.get(key)
    }

    pub(super) fn remove(&mut self, key: &PodKey) -> Option<QueuedPod> {
        let pod = self.pods.remove(key);
        if self.pods.is_empty() {
            *self = Self::default();
        }
        pod
    }

    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    pub(super) fn gated(&self) -> usize {
        self.pods.values().filter(|pod| pod.gated_by.is_some()).count()
    }

    /// Keys of the pods that an event of these kinds helps.
    pub(super) fn helped(&self, kinds: EventSet, helps: impl Fn(&QueuedPod) -> bool) -> Vec<PodKey> {
        if !self.wanted.intersects(kinds) {
            return Vec::new();
        }
        self.pods
            .values()
            .filter(|pod| helps(pod))
            .map(|pod| pod.pod.key.clone())
            .collect()
    }

    /// When the first pod that is not gated may have waited for `limit`; rather too early than too late.
    pub(super) fn deadline(&self, limit: Duration) -> Option<Duration> {
        Some(self.since?.saturating_add(limit))
    }

    /// Keys of the pods that are not gated and have waited for `limit`.
    pub(super) fn stale(&mut self, limit: Duration, now: Duration) -> Vec<PodKey> {
        if self.deadline(limit).is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        let is_stale =
            |pod: &&QueuedPod| pod.gated_by.is_none() && pod.queued_at.saturating_add(limit) <= now;
        let stale: Vec<PodKey> = self
            .pods
            .values()
            .filter(is_stale)
            .map(|pod| pod.pod.key.clone())
            .collect();
        let rest = self
            .pods
            .values()
            .filter(|pod| !is_stale(pod) && pod.gated_by.is_none());
        self.since = rest.map(|pod| pod.queued_at).min();
        stale
    }

    fn note_arrival(&mut self, pod: &QueuedPod) {
        if pod.gated_by.is_none() {
            self.since = Some(self.since.map_or(pod.queued_at, |since| since.min(pod.queued_at)));
        }
    }
}
