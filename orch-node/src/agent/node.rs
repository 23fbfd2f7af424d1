//! The Node object: registration, status, lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, ObjectReference,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use orch_core::events::EventType;
use orch_core::informer::{Event, Informer};
use orch_core::ready::Ready;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::host::{self, Pressure};
use super::pod_cidr::PodCidr;
use super::shared::Shared;
use crate::pod::status::time;
use crate::runtime::{RuntimeConfig, RuntimeStatus};

/// How often the status is looked at; it is written when it changed, and after [`REPORT`] in any case.
const UPDATE: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);

/// The lease is renewed at a quarter of its duration.
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The longest pause between attempts to register or to renew.
const MAX_PAUSE: Duration = Duration::from_secs(7);

/// Keeps the Node object and its lease.
pub(super) struct NodeKeeper {
    shared: Arc<Shared>,
    informer: Informer<Node>,
    /// Port of the agent's HTTPS server.
    port: Option<u16>,
    info: k8s_openapi::api::core::v1::NodeSystemInfo,
    registered: Ready,
    reported: Mutex<Option<NodeStatus>>,
    /// The conditions of the Node when it was registered, from an earlier life of this agent.
    found: Mutex<Vec<NodeCondition>>,
    /// The UID of the Node as it is registered now; the lease is owned by it.
    uid: watch::Sender<String>,
}

impl NodeKeeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        informer: Informer<Node>,
        port: Option<u16>,
        runtime_version: String,
    ) -> Self {
        Self {
            shared,
            informer,
            port,
            info: host::system_info(runtime_version),
            registered: Ready::new(),
            reported: Mutex::default(),
            found: Mutex::default(),
            uid: watch::Sender::default(),
        }
    }

    /// Set when the Node is there and its status was written once.
    pub(super) fn registered(&self) -> Ready {
        self.registered.clone()
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.shared.client.clone())
    }

    fn name(&self) -> &str {
        &self.shared.settings.node_name
    }

    /// Registers the node, then keeps status and lease until `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        self.event("Starting", "Starting kubelet.");
        let work = async {
            let node = self.register().await;
            tokio::join!(self.keep_status(&node), self.keep_lease());
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// Registers the node, however long it takes. A Node that is not the one before has no status of ours yet.
    async fn register(&self) -> Node {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.try_register().await {
                Ok((node, found)) => {
                    *self.found.lock() = found;
                    let uid = node.metadata.uid.clone().unwrap_or_default();
                    *self.reported.lock() = None;
                    self.uid.send_replace(uid);
                    return node;
                }
                Err(error) => tracing::warn!(node = self.name(), %error, "node could not be registered"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Creates the Node, or gives the one that is there the labels it should have; with the conditions that one has.
    async fn try_register(&self) -> Result<(Node, Vec<NodeCondition>), kube::Error> {
        let labels = self.labels();
        let wanted = Node {
            metadata: ObjectMeta {
                name: Some(self.name().into()),
                labels: Some(labels.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec::default()),
            status: Some(self.status(&[]).await),
        };
        match self.api().create(&PostParams::default(), &wanted).await {
            Ok(node) => Ok((node, Vec::new())),
            Err(kube::Error::Api(error)) if error.code == 409 => {
                let patch = json!({"metadata": {"labels": labels}});
                let node = self
                    .api()
                    .patch(self.name(), &PatchParams::default(), &Patch::Strategic(patch))
                    .await?;
                let status = node.status.as_ref();
                let found = status.and_then(|status| status.conditions.clone());
                Ok((node, found.unwrap_or_default()))
            }
            Err(error) => Err(error),
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let arch = host::architecture();
        let mut labels = self.shared.settings.labels.clone();
        for (key, value) in [
            ("kubernetes.io/hostname", self.name()),
            ("kubernetes.io/arch", arch),
            ("kubernetes.io/os", std::env::consts::OS),
            ("beta.kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", std::env::consts::OS),
        ] {
            labels.entry(key.into()).or_insert_with(|| value.into());
        }
        labels
    }

    /// Writes the status when it changed; at once when the Node's pod CIDR did.
    async fn keep_status(&self, node: &Node) {
        let mut events = self.informer.subscribe();
        let mut cidr = PodCidr::default();
        cidr.want(node, self.shared.settings.pod_cidr.as_ref());
        let mut tick = tokio::time::interval(UPDATE);
        let mut last_report = Instant::now();
        loop {
            self.tell_cidr(&mut cidr).await;
            let force = self.reported.lock().is_none() || last_report.elapsed() >= REPORT;
            match self.report(force).await {
                Ok(true) => last_report = Instant::now(),
                Ok(false) => {}
                Err(error) => tracing::warn!(node = self.name(), %error, "node status could not be written"),
            }
            if self.reported.lock().is_some() {
                self.registered.set();
            }
            tokio::select! {
                _ = tick.tick() => {}
                () = cidr.retry() => {}
                event = events.recv() => match event {
                    Some(Event::Applied { new, .. }) => {
                        if new.metadata.uid.as_ref() != Some(&*self.uid.borrow()) {
                            self.register().await;
                        }
                        cidr.want(&new, self.shared.settings.pod_cidr.as_ref());
                    }
                    // Someone removed the Node of a living agent: it comes back.
                    Some(Event::Deleted(_)) => {
                        self.register().await;
                    }
                    Some(Event::Synced) => {}
                    None => return,
                },
            }
        }
    }

    /// Tells the runtime the pod CIDR when it is a new one.
    async fn tell_cidr(&self, cidr: &mut PodCidr) {
        let Some(pod_cidr) = cidr.due(Instant::now()) else {
            return;
        };
        let config = RuntimeConfig {
            pod_cidr: pod_cidr.clone(),
        };
        match self.shared.runtime.update_runtime_config(&config).await {
            Ok(()) => cidr.took(pod_cidr),
            Err(error) => {
                tracing::error!(pod_cidr, %error, "runtime does not take the pod CIDR");
                cidr.failed(Instant::now());
            }
        }
    }

    /// Writes the status if it changed or must be; says whether it was written.
    async fn report(&self, force: bool) -> Result<bool, kube::Error> {
        let before = self.reported.lock().clone();
        let known = match &before {
            Some(before) => before.conditions.clone().unwrap_or_default(),
            None => self.found.lock().clone(),
        };
        let status = self.status(&known).await;
        if !force && before.is_some_and(|before| same(&before, &status)) {
            return Ok(false);
        }
        let patch = json!({"status": status_value(&status)});
        self.api()
            .patch_status(self.name(), &PatchParams::default(), &Patch::Strategic(patch))
            .await?;
        for reason in transitions(&known, status.conditions.as_deref().unwrap_or_default()) {
            self.event(reason, format!("Node {} status is now: {reason}", self.name()));
        }
        *self.reported.lock() = Some(status);
        Ok(true)
    }

    /// Records an event about the node. As upstream has it, the node's name stands for its UID in the agent's events.
    fn event(&self, reason: &str, message: impl Into<String>) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.name().into()),
            uid: Some(self.name().into()),
            ..ObjectReference::default()
        };
        let recorder = &self.shared.recorder;
        recorder.event(&about, EventType::Normal, reason, message);
    }

    async fn status(&self, known: &[NodeCondition]) -> NodeStatus {
        let settings = &self.shared.settings;
        let runtime = self
            .shared
            .runtime
            .status()
            .await
            .map_err(|error| error.to_string());
        let pressure = if settings.measure {
            host::pressure(&settings.data_dir, settings.disk_percent)
        } else {
            Pressure::default()
        };
        let mut addresses: Vec<NodeAddress> = Vec::new();
        for ip in &self.shared.node.ips {
            addresses.push(NodeAddress {
                type_: "InternalIP".into(),
                address: ip.clone(),
            });
        }
        addresses.push(NodeAddress {
            type_: "Hostname".into(),
            address: self.name().into(),
        });
        let images = self.shared.runtime.list_images().await.unwrap_or_default();
        let image = |image: crate::runtime::Image| ContainerImage {
            names: Some(image.repo_tags),
            size_bytes: i64::try_from(image.size).ok(),
        };
        NodeStatus {
            addresses: Some(addresses),
            capacity: Some(settings.capacity.clone()),
            allocatable: Some(settings.allocatable.clone()),
            conditions: Some(conditions(pressure, runtime.as_ref(), known, Timestamp::now())),
            daemon_endpoints: self.port.map(|port| NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: port.into() }),
            }),
            node_info: Some(self.info.clone()),
            images: Some(images.into_iter().take(50).map(image).collect()),
            ..NodeStatus::default()
        }
    }

    /// Renews the lease, at once when another Node took the place of the one that owns it.
    async fn keep_lease(&self) {
        let mut uid = self.uid.subscribe();
        let mut lease: Option<Lease> = None;
        loop {
            let mut pause = Duration::from_millis(200);
            loop {
                let owner = uid.borrow_and_update().clone();
                match self.renew(owner, lease.take()).await {
                    Ok(renewed) => {
                        lease = Some(renewed);
                        break;
                    }
                    Err(error) => tracing::debug!(node = self.name(), %error, "lease could not be renewed"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                // The sender is this value's own: it does not go before this future does.
                _ = uid.changed() => {}
            }
        }
    }

    /// Renews the lease of the Node with a UID; without a known one it is read or created.
    async fn renew(&self, uid: String, known: Option<Lease>) -> Result<Lease, kube::Error> {
        let api = Api::<Lease>::namespaced(self.shared.client.clone(), LEASE_NAMESPACE);
        let known = match known {
            Some(lease) => Some(lease),
            None => api.get_opt(self.name()).await?,
        };
        let exists = known.is_some();
        let mut lease = known.unwrap_or_default();
        lease.metadata.name = Some(self.name().into());
        lease.metadata.namespace = Some(LEASE_NAMESPACE.into());
        lease.metadata.managed_fields = None;
        lease.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.name().into(),
            uid,
            ..OwnerReference::default()
        }]);
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.name().into());
        spec.lease_duration_seconds = Some(LEASE_SECONDS);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        if exists {
            api.replace(self.name(), &PostParams::default(), &lease).await
        } else {
            api.create(&PostParams::default(), &lease).await
        }
    }
}

/// The status as it goes into a patch: lists without entries are left out, since they would delete nothing.
fn status_value(status: &NodeStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }
    value
}

/// Whether two statuses say the same, but for the time of the heartbeat.
fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let quiet = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    quiet(a) == quiet(b)
}

/// The node's conditions with upstream's reasons and messages.
fn conditions(
    pressure: Pressure,
    runtime: Result<&RuntimeStatus, &String>,
    known: &[NodeCondition],
    now: Timestamp,
) -> Vec<NodeCondition> {
    let choose = |holds: bool, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if holds { yes } else { no };
        (holds, reason.to_owned(), message.to_owned())
    };
    let problem = not_ready(runtime);
    let all = [
        (
            "MemoryPressure",
            choose(
                pressure.memory,
                (
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                ),
                (
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                ),
            ),
        ),
        (
            "DiskPressure",
            choose(
                pressure.disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ),
        ),
        (
            "PIDPressure",
            choose(
                pressure.pids,
                (
                    "KubeletHasInsufficientPID",
                    "kubelet has insufficient PID available",
                ),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ),
        ),
        (
            "Ready",
            match problem {
                None => (
                    true,
                    "KubeletReady".to_owned(),
                    "kubelet is posting ready status".to_owned(),
                ),
                Some(message) => (false, "KubeletNotReady".to_owned(), message),
            },
        ),
    ];
    all.into_iter()
        .map(|(type_, (holds, reason, message))| {
            let status = if holds { "True" } else { "False" };
            let before = known
                .iter()
                .find(|condition| condition.type_ == type_ && condition.status == status);
            NodeCondition {
                type_: type_.into(),
                status: status.into(),
                reason: Some(reason),
                message: Some(message),
                last_heartbeat_time: Some(time(now)),
                last_transition_time: before
                    .and_then(|c| c.last_transition_time.clone())
                    .or_else(|| Some(time(now))),
            }
        })
        .collect()
}

/// The reasons of the events that tell which conditions changed. That a node is there is no news about its readiness.
fn transitions(before: &[NodeCondition], after: &[NodeCondition]) -> Vec<&'static str> {
    let changed = after.iter().filter(|now| {
        let old = before.iter().find(|old| old.type_ == now.type_);
        old.map_or(now.type_ != "Ready", |old| old.status != now.status)
    });
    let reason = |condition: &NodeCondition| match (&*condition.type_, condition.status == "True") {
        ("MemoryPressure", true) => Some("NodeHasInsufficientMemory"),
        ("MemoryPressure", false) => Some("NodeHasSufficientMemory"),
        ("DiskPressure", true) => Some("NodeHasDiskPressure"),
        ("DiskPressure", false) => Some("NodeHasNoDiskPressure"),
        ("PIDPressure", true) => Some("NodeHasInsufficientPID"),
        ("PIDPressure", false) => Some("NodeHasSufficientPID"),
        ("Ready", true) => Some("NodeReady"),
        ("Ready", false) => Some("NodeNotReady"),
        _ => None,
    };
    changed.filter_map(reason).collect()
}

fn not_ready(runtime: Result<&RuntimeStatus, &String>) -> Option<String> {
    let status = match runtime {
        Ok(status) => status,
        Err(error) => return Some(format!("container runtime is down: {error}")),
    };
    let say = |what: &str, name: &str, condition: &crate::runtime::RuntimeCondition| {
        let crate::runtime::RuntimeCondition { reason, message, .. } = condition;
        format!("{what} not ready: {name}=false reason:{reason} message:{message}")
    };
    if !status.runtime_ready.status {
        return Some(say("container runtime", "RuntimeReady", &status.runtime_ready));
    }
    if !status.network_ready.status {
        return Some(say(
            "container runtime network",
            "NetworkReady",
            &status.network_ready,
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::RuntimeCondition;

    #[test]
    fn events_tell_the_conditions_that_changed_and_no_others() {
        let now = Timestamp::UNIX_EPOCH;
        let healthy = ready(RuntimeCondition::ready());
        let first = conditions(Pressure::default(), Ok(&healthy), &[], now);
        assert_eq!(
            transitions(&[], &first),
            [
                "NodeHasSufficientMemory",
                "NodeHasNoDiskPressure",
                "NodeHasSufficientPID"
            ]
        );
        assert!(transitions(&first, &first).is_empty());
        let down = conditions(Pressure::default(), Err(&"gone".to_owned()), &first, now);
        assert_eq!(transitions(&first, &down), ["NodeNotReady"]);
        let mut silent = first.clone();
        silent[3].status = "Unknown".into();
        assert_eq!(transitions(&silent, &first), ["NodeReady"]);
    }

    fn ready(network: RuntimeCondition) -> RuntimeStatus {
        RuntimeStatus {
            runtime_ready: RuntimeCondition::ready(),
            network_ready: network,
        }
    }

    #[test]
    fn conditions_have_upstreams_reasons_and_keep_their_times() {
        let begin = Timestamp::UNIX_EPOCH;
        let missing = ready(RuntimeCondition::not_ready(
            "NetworkPluginNotReady",
            "no pod CIDR",
        ));
        let first = conditions(Pressure::default(), Ok(&missing), &[], begin);
        let types: Vec<&str> = first.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);
        assert_eq!(first[3].reason.as_deref(), Some("KubeletNotReady"));
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no pod CIDR";
        assert_eq!(first[3].message.as_deref(), Some(message));
        let later = begin + jiff::SignedDuration::from_secs(60);
        let second = conditions(
            Pressure {
                memory: true,
                ..Pressure::default()
            },
            Ok(&ready(RuntimeCondition::ready())),
            &first,
            later,
        );
        assert_eq!(second[0].reason.as_deref(), Some("KubeletHasInsufficientMemory"));
        assert_eq!(
            second[1].last_transition_time,
            Some(time(begin)),
            "what did not change keeps its time"
        );
        assert_eq!(second[3].last_transition_time, Some(time(later)));
        assert_eq!(second[3].reason.as_deref(), Some("KubeletReady"));
        let down = conditions(Pressure::default(), Err(&"gone".to_owned()), &[], begin);
        assert_eq!(
            down[3].message.as_deref(),
            Some("container runtime is down: gone")
        );
    }
}
