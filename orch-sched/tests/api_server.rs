//! The scheduler on a real API server.

#![allow(clippy::unwrap_used, reason = "a test")]

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Binding, Event, Namespace, Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use orch_api::testkit::TestServer;
use orch_core::leader::LeaderElector;
use orch_sched::binding::{BindError, BindOutcome};
use orch_sched::policy::{FailedAttempt, PostFilter};
use orch_sched::{Profile, Scheduler, SchedulerBuilder, SchedulerPolicy};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for any machine; a test that gets here has failed.
const TOO_LONG: Duration = Duration::from_secs(20);

struct Bed {
    server: TestServer,
    shutdown: CancellationToken,
    scheduler: Option<JoinHandle<()>>,
}

impl Bed {
    async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    async fn start_with(change: impl FnOnce(SchedulerBuilder) -> SchedulerBuilder) -> Self {
        let mut bed = Self {
            server: TestServer::start().await,
            shutdown: CancellationToken::new(),
            scheduler: None,
        };
        bed.run_scheduler(change).await;
        bed
    }

    async fn run_scheduler(&mut self, change: impl FnOnce(SchedulerBuilder) -> SchedulerBuilder) {
        let scheduler = change(Scheduler::builder(self.server.client())).build().unwrap();
        let ready = scheduler.ready();
        self.shutdown = CancellationToken::new();
        self.scheduler = Some(tokio::spawn(scheduler.run(self.shutdown.clone())));
        tokio::time::timeout(TOO_LONG, ready.wait())
            .await
            .expect("the scheduler becomes ready");
    }

    async fn stop_scheduler(&mut self) {
        self.shutdown.cancel();
        let task = self.scheduler.take().expect("a scheduler runs");
        tokio::time::timeout(TOO_LONG, task)
            .await
            .expect("the scheduler stops")
            .unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.server.client(), "default")
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.server.client())
    }

    async fn node(&self, name: &str, cpu: &str, spec: Value) {
        let resources = json!({"cpu": cpu, "memory": "8Gi", "pods": "110"});
        let taints = spec.get("taints").cloned();
        let node = json!({"metadata": {"name": name}, "spec": spec,
            "status": {"allocatable": resources, "capacity": resources}});
        self.nodes()
            .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
            .await
            .unwrap();
        // New nodes are tainted as not ready until a controller finds them ready.
        let ready = Patch::Merge(json!({"spec": {"taints": taints}}));
        self.nodes()
            .patch(name, &PatchParams::default(), &ready)
            .await
            .unwrap();
    }

    async fn pod(&self, name: &str, cpu: &str, extra: Value) -> Pod {
        let mut spec =
            json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]});
        spec.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        self.pods()
            .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap()
    }

    async fn wait(&self, name: &str, what: impl Condition<Pod>) -> Pod {
        let waiting = await_condition(self.pods(), name, what);
        let Ok(pod) = tokio::time::timeout(TOO_LONG, waiting).await else {
            panic!("the pod does not get there: {:#?}", self.pods().get(name).await);
        };
        pod.unwrap().expect("the pod exists")
    }

    async fn bound(&self, name: &str) -> String {
        let pod = self
            .wait(name, |pod: Option<&Pod>| pod.and_then(node_of).is_some())
            .await;
        node_of(&pod).unwrap().to_owned()
    }

    async fn unschedulable(&self, name: &str, message: &str) {
        let expected = message.to_owned();
        let pod = self.wait(name, move |pod: Option<&Pod>| {
            scheduled_condition(pod).is_some_and(|c| c.message.as_deref() == Some(expected.as_str()))
        });
        let pod = pod.await;
        let condition = scheduled_condition(Some(&pod)).unwrap();
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_deref()),
            ("False", Some("Unschedulable"))
        );
        assert_eq!(
            pod.status.as_ref().and_then(|s| s.phase.as_deref()),
            Some("Pending")
        );
        assert_eq!(node_of(&pod), None);
    }

    /// Waits for an event about a pod.
    async fn event(&self, pod: &str, reason: &str) -> Event {
        self.event_saying("", pod, reason).await
    }

    /// Waits for an event about a pod with these words in its message. Nodes and pods come to the scheduler on watches of
    /// their own: a pod may be tried on a node that still has the taint of a new one, and say that first.
    async fn event_saying(&self, words: &str, pod: &str, reason: &str) -> Event {
        let events: Api<Event> = Api::namespaced(self.server.client(), "default");
        let looking = async {
            loop {
                let all = events.list(&ListParams::default()).await.unwrap();
                let about = |e: &Event| {
                    e.involved_object.name.as_deref() == Some(pod)
                        && e.reason.as_deref() == Some(reason)
                        && e.message.as_deref().unwrap_or_default().contains(words)
                };
                if let Some(event) = all.into_iter().find(about) {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(TOO_LONG, looking)
            .await
            .unwrap_or_else(|_| panic!("no event {reason} {words} about {pod}"))
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn scheduled_condition(pod: Option<&Pod>) -> Option<&PodCondition> {
    pod?.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|c| c.type_ == "PodScheduled")
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_spread_over_the_nodes_and_told_so() {
    let bed = Bed::start().await;
    bed.node("a", "4", json!({})).await;
    bed.node("b", "4", json!({})).await;
    for i in 0..8 {
        bed.pod(&format!("p{i}"), "1", json!({})).await;
    }
    let mut on_a = 0;
    for i in 0..8 {
        on_a += usize::from(bed.bound(&format!("p{i}")).await == "a");
    }
    assert_eq!(on_a, 4, "each node is filled exactly");
    let pod = bed.pods().get("p0").await.unwrap();
    assert_eq!(
        scheduled_condition(Some(&pod)).map(|c| c.status.as_str()),
        Some("True")
    );
    let event = bed.event("p0", "Scheduled").await;
    let message = format!("Successfully assigned default/p0 to {}", node_of(&pod).unwrap());
    assert_eq!(
        (event.message.as_deref(), event.type_.as_deref()),
        (Some(message.as_str()), Some("Normal"))
    );
    assert_eq!(
        event.source.and_then(|s| s.component).as_deref(),
        Some("default-scheduler")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_a_node_comes() {
    let bed = Bed::start().await;
    bed.pod("big", "3", json!({})).await;
    bed.unschedulable("big", "no nodes available to schedule pods")
        .await;
    bed.node("small", "2", json!({})).await;
    bed.unschedulable("big", "0/1 nodes are available: 1 Insufficient cpu.")
        .await;
    let event = bed.event("big", "FailedScheduling").await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    bed.node("large", "4", json!({})).await;
    assert_eq!(bed.bound("big").await, "large");
}

#[tokio::test(flavor = "multi_thread")]
async fn lifting_the_taint_or_the_cordon_lets_the_pod_in() {
    let bed = Bed::start().await;
    bed.node(
        "n",
        "4",
        json!({"unschedulable": true, "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}),
    )
    .await;
    bed.pod("p", "1", json!({})).await;
    bed.unschedulable("p", "0/1 nodes are available: 1 node(s) were unschedulable.")
        .await;
    let patch = |spec: Value| Patch::Merge(json!({ "spec": spec }));
    bed.nodes()
        .patch(
            "n",
            &PatchParams::default(),
            &patch(json!({"unschedulable": null})),
        )
        .await
        .unwrap();
    bed.unschedulable(
        "p",
        "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
    )
    .await;
    bed.nodes()
        .patch("n", &PatchParams::default(), &patch(json!({"taints": null})))
        .await
        .unwrap();
    assert_eq!(bed.bound("p").await, "n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_leaves_or_ends_makes_room() {
    let bed = Bed::start().await;
    bed.node("n", "2", json!({})).await;
    bed.pod("first", "2", json!({})).await;
    bed.bound("first").await;
    bed.pod("second", "2", json!({})).await;
    bed.unschedulable("second", "0/1 nodes are available: 1 Insufficient cpu.")
        .await;
    bed.pods()
        .delete("first", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(bed.bound("second").await, "n");
    bed.pod("third", "1", json!({})).await;
    bed.unschedulable("third", "0/1 nodes are available: 1 Insufficient cpu.")
        .await;
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    bed.pods()
        .patch_status("second", &PatchParams::default(), &ended)
        .await
        .unwrap();
    assert_eq!(bed.bound("third").await, "n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_pod_is_placed_when_its_gates_are_gone() {
    let bed = Bed::start().await;
    bed.node("n", "2", json!({})).await;
    bed.pod(
        "gated",
        "1",
        json!({"schedulingGates": [{"name": "example.com/wait"}]}),
    )
    .await;
    bed.pod("free", "1", json!({})).await;
    bed.bound("free").await;
    assert_eq!(node_of(&bed.pods().get("gated").await.unwrap()), None);
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    bed.pods()
        .patch("gated", &PatchParams::default(), &open)
        .await
        .unwrap();
    assert_eq!(bed.bound("gated").await, "n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_serves_its_own_names_and_counts_what_others_bind() {
    let second = Profile::upstream().named("second");
    let bed = Bed::start_with(|builder| builder.profile(Profile::upstream()).profile(second)).await;
    bed.node("n", "3", json!({})).await;
    bed.pod("foreign", "2", json!({"schedulerName": "someone-else"}))
        .await;
    bed.pod("own", "1", json!({"schedulerName": "second"})).await;
    bed.bound("own").await;
    let event = bed.event("own", "Scheduled").await;
    assert_eq!(event.source.and_then(|s| s.component).as_deref(), Some("second"));
    assert_eq!(node_of(&bed.pods().get("foreign").await.unwrap()), None);
    let binding: Binding = serde_json::from_value(
        json!({"metadata": {"name": "foreign"}, "target": {"kind": "Node", "name": "n"}}),
    )
    .unwrap();
    let _: Status = bed
        .pods()
        .create_subresource("binding", "foreign", &PostParams::default(), &binding)
        .await
        .unwrap();
    bed.pod("late", "1", json!({})).await;
    bed.unschedulable("late", "0/1 nodes are available: 1 Insufficient cpu.")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_scheduler_goes_on_where_the_old_one_stopped() {
    let mut bed = Bed::start().await;
    bed.node("n", "2", json!({})).await;
    bed.pod("first", "1", json!({})).await;
    bed.bound("first").await;
    bed.stop_scheduler().await;
    bed.pod("second", "1", json!({})).await;
    bed.pod("third", "1", json!({})).await;
    bed.run_scheduler(|builder| builder).await;
    bed.bound("second").await;
    bed.unschedulable("third", "0/1 nodes are available: 1 Insufficient cpu.")
        .await;
}

/// Fails to bind twice, then leaves it to the next policy.
#[derive(Debug, Default)]
struct Clumsy(AtomicUsize);

#[async_trait]
impl SchedulerPolicy for Clumsy {
    fn name(&self) -> &'static str {
        "Clumsy"
    }

    async fn bind(&self, _: &orch_sched::binding::Binding) -> Result<BindOutcome, BindError> {
        if self.0.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(BindError::Policy {
                policy: "Clumsy".into(),
                message: "dropped it".into(),
            });
        }
        Ok(BindOutcome::Skip)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_given_back_when_a_binding_fails_and_the_pod_is_tried_again() {
    let clumsy = Profile::upstream().policy(Clumsy::default());
    let bed = Bed::start_with(|builder| builder.profile(clumsy)).await;
    bed.node("n", "2", json!({})).await;
    bed.pod("p", "2", json!({})).await;
    let words = "binding rejected: Clumsy: dropped it";
    let event = bed.event_saying(words, "p", "FailedScheduling").await;
    assert_eq!(event.message.as_deref(), Some(words));
    assert_eq!(bed.bound("p").await, "n");
}

/// Evicts the pod named victim if it is in the way of another.
#[derive(Debug)]
struct Bully;

impl SchedulerPolicy for Bully {
    fn name(&self) -> &'static str {
        "Bully"
    }

    fn post_filter(&self, attempt: &mut FailedAttempt<'_>) -> PostFilter {
        for id in attempt.diagnosis.resolvable.iter() {
            let node = attempt.cluster.node(id).name().to_owned();
            let node_of_victim = attempt.cluster.node(id);
            let Some(victim) = node_of_victim.pods().iter().find(|pod| pod.name == "victim") else {
                continue;
            };
            let victim = victim.clone();
            attempt.cluster.remove_pod(&victim.key);
            let helps = attempt.fits(id);
            attempt.cluster.set_pod(victim.clone(), &node);
            if helps {
                return PostFilter::Nominated {
                    node,
                    victims: vec![victim.key.clone()],
                };
            }
        }
        PostFilter::Unresolved("bullying: nobody worth it".to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_can_make_room_by_evicting_and_the_room_is_kept_for_the_pod() {
    let bed = Bed::start_with(|builder| builder.profile(Profile::upstream().policy(Bully))).await;
    bed.node("n", "2", json!({})).await;
    bed.pod("victim", "2", json!({})).await;
    bed.bound("victim").await;
    bed.pod("huge", "3", json!({})).await;
    bed.unschedulable(
        "huge",
        "0/1 nodes are available: 1 Insufficient cpu. bullying: nobody worth it",
    )
    .await;
    bed.pod("bold", "2", json!({})).await;
    let nominated = |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.nominated_node_name.as_deref()) == Some("n")
    };
    bed.wait("bold", nominated).await;
    let victim = bed
        .wait("victim", |pod: Option<&Pod>| {
            pod.is_some_and(|p| p.metadata.deletion_timestamp.is_some())
        })
        .await;
    let conditions = victim.status.and_then(|s| s.conditions).unwrap();
    let target = conditions.iter().find(|c| c.type_ == "DisruptionTarget").unwrap();
    assert_eq!(target.reason.as_deref(), Some("PreemptionByScheduler"));
    bed.event("victim", "Preempted").await;
    // One that would fit the freed room, but comes after the nominated pod.
    bed.pod("late", "1", json!({})).await;
    bed.unschedulable(
        "late",
        "0/1 nodes are available: 1 Insufficient cpu. bullying: nobody worth it",
    )
    .await;
    bed.pods()
        .delete("victim", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(bed.bound("bold").await, "n");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_schedulers_with_an_election_one_places_and_the_other_takes_over() {
    let mut bed = Bed::start().await;
    bed.stop_scheduler().await;
    let elect = |bed: &Bed, identity: &str| {
        LeaderElector::builder(bed.server.client(), "kube-system", "kube-scheduler", identity)
            .retry_period(Duration::from_millis(50))
            .build()
    };
    let first = elect(&bed, "first");
    let second = elect(&bed, "second");
    bed.run_scheduler(|builder| builder.leader_election(first)).await;
    let (stop_first, first_task) = (bed.shutdown.clone(), bed.scheduler.take().unwrap());
    bed.node("n", "4", json!({})).await;
    bed.pod("one", "1", json!({})).await;
    bed.bound("one").await;
    bed.run_scheduler(|builder| builder.leader_election(second)).await;
    stop_first.cancel();
    first_task.await.unwrap();
    bed.pod("two", "1", json!({})).await;
    assert_eq!(bed.bound("two").await, "n");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_are_bound_without_overcommitting_a_node() {
    let bed = Bed::start_with(|builder| builder.max_in_flight(16)).await;
    for i in 0..10 {
        bed.node(&format!("n{i}"), "2", json!({})).await;
    }
    let names: Vec<String> = (0..100).map(|i| format!("p{i}")).collect();
    for name in &names {
        bed.pod(name, "200m", json!({})).await;
    }
    for name in &names {
        bed.bound(name).await;
    }
    let mut counts = std::collections::BTreeMap::new();
    for pod in bed.pods().list(&ListParams::default()).await.unwrap() {
        *counts.entry(node_of(&pod).unwrap().to_owned()).or_insert(0) += 1;
    }
    assert!(
        counts.len() == 10 && counts.values().all(|count| *count == 10),
        "{counts:?}"
    );
}

/// A pod of the group `app=web`.
async fn web(bed: &Bed, name: &str, extra: Value) {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
    spec.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec});
    bed.pods()
        .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
        .await
        .unwrap();
}

async fn label_node(bed: &Bed, name: &str, key: &str, value: &str) {
    let labels = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
    bed.nodes()
        .patch(name, &PatchParams::default(), &labels)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn anti_affinity_gives_each_pod_a_node_of_its_own_and_the_third_waits() {
    let bed = Bed::start().await;
    for name in ["a", "b"] {
        bed.node(name, "4", json!({})).await;
        label_node(&bed, name, "kubernetes.io/hostname", name).await;
    }
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}});
    web(&bed, "first", apart.clone()).await;
    web(&bed, "second", apart.clone()).await;
    assert_ne!(bed.bound("first").await, bed.bound("second").await);
    web(&bed, "third", apart).await;
    bed.unschedulable(
        "third",
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.",
    )
    .await;
    web(&bed, "careless", json!({})).await;
    bed.unschedulable(
        "careless",
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.",
    )
    .await;
    let free = bed.bound("first").await;
    bed.pods()
        .delete("careless", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    bed.pods()
        .delete("first", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(bed.bound("third").await, free);
}

#[tokio::test(flavor = "multi_thread")]
async fn topology_spread_keeps_zones_even_and_a_pod_that_would_not_waits() {
    let bed = Bed::start().await;
    bed.node("a", "4", json!({})).await;
    bed.node("b", "4", json!({"unschedulable": true})).await;
    label_node(&bed, "a", "zone", "x").await;
    label_node(&bed, "b", "zone", "y").await;
    let even = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    web(&bed, "first", even.clone()).await;
    assert_eq!(bed.bound("first").await, "a");
    web(&bed, "second", even).await;
    bed.unschedulable(
        "second",
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable.",
    )
    .await;
    let open = Patch::Merge(json!({"spec": {"unschedulable": null}}));
    bed.nodes()
        .patch("b", &PatchParams::default(), &open)
        .await
        .unwrap();
    assert_eq!(bed.bound("second").await, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn affinity_follows_the_labels_of_namespaces() {
    let bed = Bed::start().await;
    bed.node("n", "4", json!({})).await;
    label_node(&bed, "n", "zone", "x").await;
    web(&bed, "there", json!({})).await;
    bed.bound("there").await;
    let near = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}},
            "namespaceSelector": {"matchLabels": {"team": "a"}}}]}}});
    bed.pod("p", "1", near).await;
    bed.unschedulable(
        "p",
        "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
    )
    .await;
    let namespaces: Api<Namespace> = Api::all(bed.server.client());
    let team = Patch::Merge(json!({"metadata": {"labels": {"team": "a"}}}));
    namespaces
        .patch("default", &PatchParams::default(), &team)
        .await
        .unwrap();
    assert_eq!(bed.bound("p").await, "n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_for_what_is_not_built_waits_and_is_told_so() {
    let bed = Bed::start().await;
    bed.node("n", "4", json!({})).await;
    let volume = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    bed.pod("p", "1", volume).await;
    bed.unschedulable(
        "p",
        "0/1 nodes are available: finding nodes for volumes of type persistentVolumeClaim is not built into this \
         scheduler yet.",
    )
    .await;
}
