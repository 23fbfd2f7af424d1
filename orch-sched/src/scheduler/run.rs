use super::reports::{Report, Reports};
use super::{Scheduler, write};
use crate::binding::{BindError, Binding};
use crate::engine::{Assignment, Decision, Engine, Unschedulable};
use crate::object::{NodeInfo, PodInfo, PodKey, SlimNamespace, SlimNode, SlimPod};
use crate::policy::SchedulerPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use orch_core::events::{EventRecorder, EventType};
use orch_core::informer::Event;
use orch_core::leader::Leadership;
use orch_core::ready::Ready;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many pods are decided about before news are looked at again.
const DECISIONS_A_TURN: usize = 64;
/// How many events are taken in before the next decisions.
const EVENTS_A_TURN: usize = 1024;

pub(super) async fn run(scheduler: Scheduler, shutdown: CancellationToken) {
    let Scheduler {
        client,
        engine,
        recorders,
        sinks,
        elector,
        pods,
        nodes,
        namespaces,
        ready,
        max_in_flight,
    } = scheduler;
    let (pod_events, node_events, namespace_events) =
        (pods.subscribe(), nodes.subscribe(), namespaces.subscribe());
    let leadership = elector.as_ref().map(orch_core::leader::LeaderElector::leadership);
    // Dropped with this function, and with them whatever still runs.
    let mut parts = JoinSet::new();
    parts.spawn(pods.run(shutdown.clone()));
    parts.spawn(nodes.run(shutdown.clone()));
    parts.spawn(namespaces.run(shutdown.clone()));
    sinks.into_iter().for_each(|sink| {
        parts.spawn(sink.run(shutdown.clone()));
    });
    if let Some(elector) = elector {
        parts.spawn(elector.run(shutdown.clone()));
    }
    let work = Work {
        client: client.0,
        engine,
        recorders,
        ready,
        max_in_flight,
        started: Instant::now(),
        pods: Feed::new(pod_events),
        nodes: Feed::new(node_events),
        namespaces: Feed::new(namespace_events),
        leadership,
        requests: JoinSet::new(),
        reports: Reports::default(),
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work.run() => {}
    }
    // Sinks and the elector finish their last words by themselves once told.
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the scheduler failed");
        }
    }
}

struct Work {
    client: Client,
    engine: Engine,
    recorders: Vec<EventRecorder>,
    ready: Ready,
    max_in_flight: usize,
    started: Instant,
    pods: Feed<SlimPod>,
    nodes: Feed<SlimNode>,
    namespaces: Feed<SlimNamespace>,
    leadership: Option<watch::Receiver<Leadership>>,
    requests: JoinSet<Done>,
    reports: Reports,
}

/// The events of one kind.
struct Feed<K> {
    events: mpsc::UnboundedReceiver<Event<K>>,
    buffer: Vec<Event<K>>,
    synced: bool,
}

/// A request that has ended.
enum Done {
    Bound(Assignment, Result<(), BindError>),
    /// A condition was written, or could not be.
    Reported(PodKey, bool),
    Evicted,
}

impl<K> Feed<K> {
    fn new(events: mpsc::UnboundedReceiver<Event<K>>) -> Self {
        Self {
            events,
            buffer: Vec::new(),
            synced: false,
        }
    }

    /// Waits for news; false when there will be none any more. Cancel safe: what was taken out is in the buffer.
    async fn wait(&mut self) -> bool {
        !self.buffer.is_empty() || self.events.recv_many(&mut self.buffer, EVENTS_A_TURN).await > 0
    }

    /// What has come, after a look at what came meanwhile.
    fn take(&mut self) -> Vec<Event<K>> {
        while self.buffer.len() < EVENTS_A_TURN
            && let Ok(event) = self.events.try_recv()
        {
            self.buffer.push(event);
        }
        std::mem::take(&mut self.buffer)
    }
}

impl Work {
    async fn run(mut self) {
        loop {
            self.take_news();
            let more = self.decide();
            if more {
                tokio::task::yield_now().await;
            } else if !self.wait().await {
                return;
            }
        }
    }

    /// Waits for anything to do; false when the informers have ended.
    async fn wait(&mut self) -> bool {
        let now = self.started.elapsed();
        let deadline = self
            .may_decide()
            .then(|| self.engine.next_deadline(now))
            .flatten();
        let wake = self.started + deadline.unwrap_or(Duration::ZERO);
        tokio::select! {
            open = self.nodes.wait() => open,
            open = self.namespaces.wait() => open,
            open = self.pods.wait() => open,
            Some(done) = self.requests.join_next(), if !self.requests.is_empty() => {
                match done {
                    Ok(done) => self.done(done),
                    Err(error) => tracing::error!(%error, "a request of the scheduler failed"),
                }
                true
            }
            () = changed(self.leadership.as_mut()) => true,
            () = tokio::time::sleep_until(wake), if deadline.is_some() => true,
        }
    }

    /// Nodes first: a pod may be bound to a node that is news too, and be in a namespace that is.
    fn take_news(&mut self) {
        let now = self.started.elapsed();
        for event in self.namespaces.take() {
            self.namespace_news(&event, now);
        }
        for event in self.nodes.take() {
            match event {
                Event::Applied { new, .. } => self.engine.set_node(NodeInfo::from(&*new), now),
                Event::Deleted(old) => self
                    .engine
                    .remove_node(old.metadata.name.as_deref().unwrap_or_default(), now),
                Event::Synced => self.nodes.synced = true,
            }
        }
        for event in self.pods.take() {
            match event {
                Event::Applied { old, new } => self.pod_applied(old.as_deref(), &new, now),
                Event::Deleted(old) => {
                    self.reports.forget(&PodKey::of(&old));
                    self.engine.remove_pod(&PodKey::of(&old), now);
                }
                Event::Synced => self.pods.synced = true,
            }
        }
        while let Some(done) = self.requests.try_join_next() {
            match done {
                Ok(done) => self.done(done),
                Err(error) => tracing::error!(%error, "a request of the scheduler failed"),
            }
        }
    }

    fn namespace_news(&mut self, event: &Event<SlimNamespace>, now: Duration) {
        match event {
            Event::Applied { new, .. } => {
                let (name, labels) = (new.metadata.name.as_deref(), new.metadata.labels.as_ref());
                let none = BTreeMap::new();
                self.engine
                    .set_namespace(name.unwrap_or_default(), labels.unwrap_or(&none), now);
            }
            Event::Deleted(old) => self
                .engine
                .remove_namespace(old.metadata.name.as_deref().unwrap_or_default(), now),
            Event::Synced => self.namespaces.synced = true,
        }
    }

    fn synced(&self) -> bool {
        self.pods.synced && self.nodes.synced && self.namespaces.synced
    }

    /// A pod whose UID changed is another pod that took over the name between two looks.
    fn pod_applied(&mut self, old: Option<&SlimPod>, new: &SlimPod, now: Duration) {
        if let Some(old) = old.map(PodKey::of).filter(|old| *old != PodKey::of(new)) {
            self.reports.forget(&old);
            self.engine.remove_pod(&old, now);
        }
        let pod = PodInfo::from(new);
        if pod.node_name.is_some() {
            self.reports.forget(&pod.key);
        }
        self.engine.set_pod(pod, now);
    }

    fn may_decide(&self) -> bool {
        let leads = self
            .leadership
            .as_ref()
            .is_none_or(|leadership| leadership.borrow().leading);
        leads && self.synced() && self.requests.len() < self.max_in_flight
    }

    /// Decides about some pods; true when there may be more.
    fn decide(&mut self) -> bool {
        let synced = self.synced();
        for _ in 0..DECISIONS_A_TURN {
            if !self.may_decide() {
                break;
            }
            match self.engine.decide(self.started.elapsed()) {
                Some(Decision::Bind(assignment)) => self.bind(assignment),
                Some(Decision::Unschedulable(failure)) => self.unschedulable(failure),
                None => {
                    self.ready.set();
                    return false;
                }
            }
        }
        if synced {
            self.ready.set();
        }
        self.may_decide()
    }

    fn policies(&self, profile: usize) -> Vec<Arc<dyn SchedulerPolicy>> {
        self.engine.profiles()[profile]
            .policies()
            .map(|(policy, _)| policy.clone())
            .collect()
    }

    fn bind(&mut self, assignment: Assignment) {
        let policies = self.policies(assignment.profile);
        self.requests.spawn(async move {
            let binding = Binding {
                pod: assignment.pod.clone(),
                node: assignment.node.clone(),
            };
            let result = write::bind(policies, &binding).await;
            Done::Bound(assignment, result)
        });
    }

    fn done(&mut self, done: Done) {
        let (assignment, result) = match done {
            Done::Bound(assignment, result) => (assignment, result),
            Done::Reported(key, written) => {
                if let Some(next) = self.reports.ended(&key, written) {
                    self.report(next);
                }
                return;
            }
            Done::Evicted => return,
        };
        let recorder = &self.recorders[assignment.profile];
        let pod = &assignment.pod;
        match result {
            Ok(()) => {
                self.engine.bound(&pod.key);
                let message = format!("Successfully assigned {} to {}", pod.full_name(), assignment.node);
                recorder.event(&write::reference(pod), EventType::Normal, "Scheduled", message);
            }
            Err(error) => {
                tracing::debug!(pod = pod.full_name(), node = assignment.node, %error, "cannot bind");
                self.engine.bind_failed(&pod.key, self.started.elapsed());
                if !error.is_not_found() {
                    let message = format!("binding rejected: {error}");
                    recorder.event(
                        &write::reference(pod),
                        EventType::Warning,
                        "FailedScheduling",
                        message.clone(),
                    );
                    self.report(Report {
                        pod: pod.clone(),
                        reason: "SchedulerError",
                        message,
                        nominated: None,
                    });
                }
            }
        }
    }

    fn unschedulable(&mut self, failure: Unschedulable) {
        let profile = self
            .engine
            .profiles()
            .iter()
            .position(|p| p.name() == failure.pod.scheduler_name);
        let Some(recorder) = profile.map(|at| &self.recorders[at]) else {
            return;
        };
        let message = failure.diagnosis.to_string();
        recorder.event(
            &write::reference(&failure.pod),
            EventType::Warning,
            "FailedScheduling",
            message.clone(),
        );
        self.report(Report {
            pod: failure.pod.clone(),
            reason: "Unschedulable",
            message,
            nominated: failure.nominated.clone(),
        });
        if !failure.victims.is_empty() {
            self.evict(failure);
        }
    }

    fn report(&mut self, report: Report) {
        let Some(report) = self.reports.admit(report) else {
            return;
        };
        let before = self.reports.last(&report.pod);
        let Some((condition, patch)) = write::unscheduled_status(&report, before, Timestamp::now()) else {
            return;
        };
        let pod = report.pod;
        self.reports.begun(&pod.key, condition);
        let client = self.client.clone();
        self.requests.spawn(async move {
            let result = write::patch_status(client, &pod, &patch).await;
            if let Err(error) = &result {
                tracing::debug!(pod = pod.full_name(), %error, "cannot write the PodScheduled condition");
            }
            Done::Reported(pod.key.clone(), result.is_ok())
        });
    }

    fn evict(&mut self, failure: Unschedulable) {
        let Some(profile) = self
            .engine
            .profiles()
            .iter()
            .position(|p| p.name() == failure.pod.scheduler_name)
        else {
            return;
        };
        let (client, recorder) = (self.client.clone(), self.recorders[profile].clone());
        self.requests.spawn(async move {
            let node = failure.nominated.as_deref().unwrap_or_default();
            match write::evict(client, &failure, &failure.pod.scheduler_name).await {
                Ok(()) => failure.victims.iter().for_each(|victim| {
                    let message = format!("Preempted by pod {} on node {node}", failure.pod.uid);
                    recorder.event(&write::reference(victim), EventType::Normal, "Preempted", message);
                }),
                Err(error) => tracing::warn!(pod = failure.pod.full_name(), %error, "cannot evict for a pod"),
            }
            Done::Evicted
        });
    }
}

/// Waits for leadership to change hands; for ever without an election.
async fn changed(leadership: Option<&mut watch::Receiver<Leadership>>) {
    match leadership {
        Some(leadership) => {
            if leadership.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}
