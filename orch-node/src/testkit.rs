//! The suite that every [`Runtime`] passes; run it in a test of your own implementation.
//!
//! Implement [`Subject`] and call [`conformance`]. A check that fails panics with what was expected.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::runtime::{
    ContainerConfig, ContainerEvent, ContainerEventType, ContainerFilter, ContainerId, ContainerMetadata,
    ContainerState, ContainerStatus, NamespaceMode, Observation, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxState, PodSandboxStatus, Runtime, RuntimeConfig, RuntimeError, SandboxId,
};

/// The longest that anything may take here; a check ends as soon as it can.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a program is given to end.
const GRACE: Duration = Duration::from_secs(1);

/// Something that a container can run.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// Its image.
    pub image: String,
    /// Its command.
    pub command: Vec<String>,
}

/// A runtime under test.
#[async_trait]
pub trait Subject: Send {
    /// Opens the runtime; when called again, on the same state, after the earlier one was dropped.
    async fn open(&mut self) -> Arc<dyn Runtime>;
    /// Runs until it is stopped, and ends on the stop signal.
    fn forever(&self) -> Program;
    /// Ends by itself within a second, with exit code 3.
    fn exits_with_3(&self) -> Program;
    /// Can be created, and not started.
    fn not_startable(&self) -> Program;
    /// An image that cannot be pulled.
    fn not_pullable(&self) -> String;
    /// A command that ends with code 0 when it is executed in a container of [`Subject::forever`].
    fn exec_command(&self) -> Vec<String>;
}

/// Runs all checks. The runtime must have no sandboxes at the start, and has none at the end.
///
/// # Panics
/// When a check fails.
pub async fn conformance(subject: &mut dyn Subject) {
    let runtime = subject.open().await;
    let kit = Kit { runtime };
    kit.is_empty().await;
    kit.unknown_things_are_absent().await;
    kit.pods_get_addresses().await;
    kit.images(subject).await;
    kit.container_lives_and_ends(subject).await;
    kit.exit_code_is_recorded(subject).await;
    kit.failed_start_is_recorded(subject).await;
    kit.stopping_a_sandbox_stops_its_containers(subject).await;
    kit.commands_run_in_containers(subject).await;
    everything_is_found_again(kit, subject).await.is_empty().await;
}

#[derive(Debug)]
struct Kit {
    runtime: Arc<dyn Runtime>,
}

fn pod(name: &str) -> PodSandboxConfig {
    let metadata = PodSandboxMetadata {
        name: name.into(),
        uid: format!("uid-of-{name}"),
        namespace: "default".into(),
        attempt: 0,
    };
    PodSandboxConfig {
        metadata,
        hostname: name.into(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        pid: NamespaceMode::Container,
        ..PodSandboxConfig::default()
    }
}

fn container(name: &str, program: &Program) -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata {
            name: name.into(),
            attempt: 0,
        },
        image: program.image.clone(),
        command: program.command.clone(),
        labels: [("container".to_owned(), name.to_owned())].into(),
        annotations: [("note".to_owned(), "kept".to_owned())].into(),
        ..ContainerConfig::default()
    }
}

impl Kit {
    async fn is_empty(&self) {
        assert!(
            self.runtime
                .list_pod_sandbox(None)
                .await
                .expect("list sandboxes")
                .is_empty(),
            "no sandboxes"
        );
        let all = self
            .runtime
            .list_containers(&ContainerFilter::default())
            .await
            .expect("list containers");
        assert!(all.is_empty(), "no containers");
    }

    async fn unknown_things_are_absent(&self) {
        let (sandbox, id) = (
            SandboxId::from("no-such-sandbox"),
            ContainerId::from("no-such-container"),
        );
        assert!(matches!(
            self.runtime.pod_sandbox_status(&sandbox).await,
            Observation::Absent
        ));
        assert!(matches!(
            self.runtime.container_status(&id).await,
            Observation::Absent
        ));
        self.runtime
            .stop_pod_sandbox(&sandbox)
            .await
            .expect("stopping an absent sandbox");
        self.runtime
            .remove_pod_sandbox(&sandbox)
            .await
            .expect("removing an absent sandbox");
        self.runtime
            .stop_container(&id, Duration::ZERO)
            .await
            .expect("stopping an absent container");
        self.runtime
            .remove_container(&id)
            .await
            .expect("removing an absent container");
        assert!(
            self.runtime
                .start_container(&id)
                .await
                .expect_err("starting an absent container")
                .is_not_found()
        );
    }

    async fn pods_get_addresses(&self) {
        assert!(
            !self
                .runtime
                .version()
                .await
                .expect("version")
                .runtime_name
                .is_empty()
        );
        let without = self.runtime.run_pod_sandbox(&pod("early")).await;
        assert!(
            matches!(without, Err(RuntimeError::Network(_))),
            "no pod CIDR, no pod network: {without:?}"
        );
        let config = RuntimeConfig {
            pod_cidr: "10.213.77.0/28".into(),
        };
        self.runtime
            .update_runtime_config(&config)
            .await
            .expect("set the pod CIDR");
        let status = self.runtime.status().await.expect("status");
        assert!(
            status.runtime_ready.status && status.network_ready.status,
            "ready with a pod CIDR: {status:?}"
        );
        let mut addresses = BTreeSet::new();
        let mut sandboxes = Vec::new();
        for name in ["a", "b", "c"] {
            let id = self
                .runtime
                .run_pod_sandbox(&pod(name))
                .await
                .expect("run a sandbox");
            let status = self.sandbox(&id).await;
            assert_eq!(status.sandbox.state, PodSandboxState::Ready);
            assert_eq!(status.sandbox.labels["app"], name);
            addresses.insert(status.ips[0].to_string());
            sandboxes.push(id);
        }
        assert_eq!(addresses.len(), 3, "each pod has an address of its own");
        assert!(
            addresses.iter().all(|ip| ip.starts_with("10.213.77.")),
            "from the pod CIDR: {addresses:?}"
        );
        let of_b = self
            .runtime
            .list_pod_sandbox(Some("uid-of-b"))
            .await
            .expect("list one pod's");
        assert_eq!(of_b.iter().map(|s| &s.id).collect::<Vec<_>>(), [&sandboxes[1]]);
        let host = PodSandboxConfig {
            network: NamespaceMode::Node,
            ..pod("host")
        };
        let host = self
            .runtime
            .run_pod_sandbox(&host)
            .await
            .expect("run a sandbox on the host's network");
        assert!(
            self.sandbox(&host).await.ips.is_empty(),
            "no address of its own on the host's network"
        );
        for id in sandboxes.iter().chain([&host]) {
            self.runtime
                .remove_pod_sandbox(id)
                .await
                .expect("remove a sandbox");
        }
        self.is_empty().await;
    }

    async fn images(&self, subject: &dyn Subject) {
        let image = subject.forever().image;
        self.runtime.pull_image(&image).await.expect("pull the image");
        let present = self
            .runtime
            .image_status(&image)
            .await
            .expect("image status")
            .expect("the pulled image");
        let all = self.runtime.list_images().await.expect("list images");
        assert!(all.contains(&present), "a pulled image is in the list");
        let refused = self.runtime.pull_image(&subject.not_pullable()).await;
        assert!(
            matches!(refused, Err(RuntimeError::ImagePull { .. })),
            "{refused:?}"
        );
        assert!(
            self.runtime
                .image_status(&subject.not_pullable())
                .await
                .expect("image status")
                .is_none()
        );
    }

    async fn container_lives_and_ends(&self, subject: &dyn Subject) {
        let mut events = self.runtime.events();
        let sandbox = self
            .runtime
            .run_pod_sandbox(&pod("life"))
            .await
            .expect("run a sandbox");
        let config = container("main", &subject.forever());
        let id = self
            .runtime
            .create_container(&sandbox, &config)
            .await
            .expect("create");
        let status = self.container(&id).await;
        assert_eq!((status.state, status.started_at), (ContainerState::Created, None));
        assert_eq!(
            (&status.labels, &status.annotations),
            (&config.labels, &config.annotations)
        );
        self.runtime.start_container(&id).await.expect("start");
        let status = self.container(&id).await;
        assert_eq!(status.state, ContainerState::Running);
        assert!(status.started_at.is_some() && status.finished_at.is_none());
        let again = self.runtime.start_container(&id).await;
        assert!(again.is_err(), "a container is started once");
        let filter = ContainerFilter::pod("uid-of-life");
        assert_eq!(
            self.runtime.list_containers(&filter).await.expect("list")[0].id,
            id
        );
        self.runtime.stop_container(&id, GRACE).await.expect("stop");
        self.runtime.stop_container(&id, GRACE).await.expect("stop twice");
        let status = self.container(&id).await;
        assert_eq!(status.state, ContainerState::Exited);
        assert!(status.finished_at >= status.started_at);
        self.runtime.remove_container(&id).await.expect("remove");
        self.runtime.remove_container(&id).await.expect("remove twice");
        assert!(matches!(
            self.runtime.container_status(&id).await,
            Observation::Absent
        ));
        for expected in [
            ContainerEventType::Created,
            ContainerEventType::Started,
            ContainerEventType::Stopped,
            ContainerEventType::Deleted,
        ] {
            let event = next(&mut events).await;
            let expected = ContainerEvent {
                container_id: id.clone(),
                pod_uid: "uid-of-life".into(),
                event_type: expected,
            };
            assert_eq!(event, expected);
        }
        self.runtime
            .remove_pod_sandbox(&sandbox)
            .await
            .expect("remove the sandbox");
    }

    async fn exit_code_is_recorded(&self, subject: &dyn Subject) {
        let (sandbox, id) = self.started("exits", &subject.exits_with_3()).await;
        let status = self.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
        assert!(status.finished_at.is_some());
        self.runtime
            .remove_pod_sandbox(&sandbox)
            .await
            .expect("remove the sandbox");
    }

    async fn failed_start_is_recorded(&self, subject: &dyn Subject) {
        let sandbox = self
            .runtime
            .run_pod_sandbox(&pod("bad"))
            .await
            .expect("run a sandbox");
        let program = subject.not_startable();
        self.runtime.pull_image(&program.image).await.expect("pull");
        let id = self
            .runtime
            .create_container(&sandbox, &container("main", &program))
            .await
            .expect("create");
        let failed = self.runtime.start_container(&id).await;
        assert!(matches!(failed, Err(RuntimeError::Start(_))), "{failed:?}");
        let status = self.container(&id).await;
        assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 128));
        assert_eq!(status.reason, "StartError");
        assert!(!status.message.is_empty());
        self.runtime
            .remove_pod_sandbox(&sandbox)
            .await
            .expect("remove the sandbox");
    }

    async fn stopping_a_sandbox_stops_its_containers(&self, subject: &dyn Subject) {
        let (sandbox, id) = self.started("stopped", &subject.forever()).await;
        self.runtime
            .stop_pod_sandbox(&sandbox)
            .await
            .expect("stop the sandbox");
        self.runtime
            .stop_pod_sandbox(&sandbox)
            .await
            .expect("stop it twice");
        assert_eq!(self.container(&id).await.state, ContainerState::Exited);
        assert_eq!(
            self.sandbox(&sandbox).await.sandbox.state,
            PodSandboxState::NotReady
        );
        let refused = self
            .runtime
            .create_container(&sandbox, &container("late", &subject.forever()))
            .await;
        assert!(refused.is_err(), "no container in a stopped sandbox");
        self.runtime
            .remove_pod_sandbox(&sandbox)
            .await
            .expect("remove the sandbox");
        self.is_empty().await;
    }

    async fn commands_run_in_containers(&self, subject: &dyn Subject) {
        let (sandbox, id) = self.started("exec", &subject.forever()).await;
        let answer = self
            .runtime
            .exec_sync(&id, &subject.exec_command(), PATIENCE)
            .await
            .expect("exec");
        assert_eq!(answer.exit_code, 0, "{answer:?}");
        self.runtime.stop_container(&id, GRACE).await.expect("stop");
        let late = self
            .runtime
            .exec_sync(&id, &subject.exec_command(), PATIENCE)
            .await;
        assert!(late.is_err(), "no command in a stopped container");
        self.runtime
            .remove_pod_sandbox(&sandbox)
            .await
            .expect("remove the sandbox");
    }

    async fn started(&self, name: &str, program: &Program) -> (SandboxId, ContainerId) {
        let sandbox = self
            .runtime
            .run_pod_sandbox(&pod(name))
            .await
            .expect("run a sandbox");
        self.runtime.pull_image(&program.image).await.expect("pull");
        let id = self
            .runtime
            .create_container(&sandbox, &container("main", program))
            .await
            .expect("create");
        self.runtime.start_container(&id).await.expect("start");
        (sandbox, id)
    }

    /// Waits for a container's end, by its event or because it has ended already.
    async fn ended(&self, id: &ContainerId) -> ContainerStatus {
        let mut events = self.runtime.events();
        loop {
            let status = self.container(id).await;
            if status.state == ContainerState::Exited {
                return status;
            }
            next(&mut events).await;
        }
    }

    async fn container(&self, id: &ContainerId) -> ContainerStatus {
        self.runtime
            .container_status(id)
            .await
            .seen()
            .expect("the container is there")
    }

    async fn sandbox(&self, id: &SandboxId) -> PodSandboxStatus {
        self.runtime
            .pod_sandbox_status(id)
            .await
            .seen()
            .expect("the sandbox is there")
    }
}

/// A runtime that is closed and opened again shows what the one before it created.
async fn everything_is_found_again(kit: Kit, subject: &mut dyn Subject) -> Kit {
    let (running_in, running) = kit.started("stays", &subject.forever()).await;
    let (ended_in, ended) = kit.started("ended", &subject.exits_with_3()).await;
    kit.ended(&ended).await;
    let created = kit
        .runtime
        .create_container(&running_in, &container("created", &subject.forever()))
        .await;
    let created = created.expect("create");
    let before = kit.container(&running).await;
    let network = kit.sandbox(&running_in).await;
    drop(kit);
    let kit = Kit {
        runtime: subject.open().await,
    };
    assert_eq!(
        kit.container(&running).await,
        before,
        "a running container goes on"
    );
    assert_eq!(
        kit.sandbox(&running_in).await,
        network,
        "its sandbox keeps its address"
    );
    assert_eq!(
        kit.container(&ended).await.exit_code,
        3,
        "an exit code is remembered"
    );
    assert_eq!(kit.container(&created).await.state, ContainerState::Created);
    let config = RuntimeConfig {
        pod_cidr: "10.213.77.0/28".into(),
    };
    kit.runtime
        .update_runtime_config(&config)
        .await
        .expect("set the pod CIDR");
    let (new_in, _) = kit.started("new", &subject.forever()).await;
    assert_ne!(
        kit.sandbox(&new_in).await.ips,
        network.ips,
        "an adopted pod's address is taken"
    );
    kit.runtime
        .stop_container(&running, GRACE)
        .await
        .expect("stop an adopted container");
    assert_eq!(kit.container(&running).await.state, ContainerState::Exited);
    for sandbox in [running_in, ended_in, new_in] {
        kit.runtime
            .remove_pod_sandbox(&sandbox)
            .await
            .expect("remove the sandbox");
    }
    kit
}

async fn next(events: &mut BoxStream<'static, ContainerEvent>) -> ContainerEvent {
    let event = tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("an event in time");
    event.expect("the stream of events does not end")
}
