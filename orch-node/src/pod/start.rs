//! Starting one container: image, configuration, creation, start, postStart hook, with upstream's events on the way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use kube::Api;
use orch_core::events::EventType;

use super::env::{self, ConfigError, EnvFacts, Referenced, References};
use super::handler::{self, Target};
use super::view::spec;
use super::{config, volumes};
use crate::agent::shared::Shared;
use crate::runtime::{ContainerConfig, ContainerId, Mount, RuntimeError, SandboxId, labels};

/// How long a postStart hook may take: upstream sets no limit; this one is beyond what hooks are for.
const HOOK_TIMEOUT: Duration = Duration::from_secs(3600);

/// Why a container was not started, as its waiting state shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartFailure {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl StartFailure {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// One start.
pub(crate) struct Start<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) sandbox: &'a SandboxId,
    pub(crate) pod_ips: &'a [String],
    /// The image was tried a short time ago and is not due: what the waiting state says.
    pub(crate) pull_backoff: Option<SignedDuration>,
}

impl Start<'_> {
    fn event(&self, type_: EventType, reason: &str, message: impl Into<String>) {
        self.shared
            .container_event(self.pod, &self.container.name, type_, reason, message);
    }

    fn failed(&self, message: &str) {
        self.event(EventType::Warning, "Failed", format!("Error: {message}"));
    }

    /// Does it all.
    pub(crate) async fn run(&self) -> Result<(), StartFailure> {
        self.ensure_image().await?;
        let config = match self.configure().await {
            Ok(config) => config,
            Err(error) => {
                self.failed(&error.0);
                return Err(StartFailure::new("CreateContainerConfigError", error.0));
            }
        };
        let id = match self.shared.runtime.create_container(self.sandbox, &config).await {
            Ok(id) => id,
            Err(error) => return Err(self.failure(&error)),
        };
        self.event(EventType::Normal, "Created", "Container created");
        if let Err(error) = self.shared.runtime.start_container(&id).await {
            return Err(self.failure(&error));
        }
        self.event(EventType::Normal, "Started", "Container started");
        self.post_start(&id).await
    }

    fn failure(&self, error: &RuntimeError) -> StartFailure {
        self.failed(&error.to_string());
        StartFailure::new(error.create_reason(), error.to_string())
    }

    async fn ensure_image(&self) -> Result<(), StartFailure> {
        let image = self.container.image.as_deref().unwrap_or_default();
        let policy = self
            .container
            .image_pull_policy
            .as_deref()
            .unwrap_or("IfNotPresent");
        let present = match self.shared.runtime.image_status(image).await {
            Ok(found) => found.is_some(),
            Err(error) => return Err(StartFailure::new("ImageInspectError", error.to_string())),
        };
        if present && policy != "Always" {
            let message = format!(
                "Container image {image:?} already present on machine and can be accessed by the pod"
            );
            self.event(EventType::Normal, "Pulled", message);
            return Ok(());
        }
        if policy == "Never" {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            self.event(EventType::Warning, "ErrImageNeverPull", message.clone());
            return Err(StartFailure::new("ErrImageNeverPull", message));
        }
        if self.pull_backoff.is_some() {
            let message = format!("Back-off pulling image {image:?}");
            self.event(EventType::Normal, "BackOff", message.clone());
            self.failed("ImagePullBackOff");
            return Err(StartFailure::new("ImagePullBackOff", message));
        }
        self.pull(image).await
    }

    async fn pull(&self, image: &str) -> Result<(), StartFailure> {
        self.event(EventType::Normal, "Pulling", format!("Pulling image {image:?}"));
        let begin = Instant::now();
        match self.shared.runtime.pull_image(image).await {
            Ok(_) => {
                let size = self
                    .shared
                    .runtime
                    .image_status(image)
                    .await
                    .ok()
                    .flatten()
                    .map_or(0, |image| image.size);
                let took = format!("{}ms", begin.elapsed().as_millis());
                let message = format!(
                    "Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {size} bytes."
                );
                self.event(EventType::Normal, "Pulled", message);
                Ok(())
            }
            Err(error) => {
                let reason = match &error {
                    RuntimeError::InvalidImageName { .. } => "InvalidImageName",
                    RuntimeError::Unavailable(_) => "RegistryUnavailable",
                    _ => "ErrImagePull",
                };
                self.event(
                    EventType::Warning,
                    "Failed",
                    format!("Failed to pull image {image:?}: {error}"),
                );
                self.failed(reason);
                Err(StartFailure::new(reason, error.to_string()))
            }
        }
    }

    async fn configure(&self) -> Result<ContainerConfig, ConfigError> {
        let mut referenced = fetch(self.shared, self.pod, env::references(self.container)).await?;
        referenced.services = self.services().await?;
        let facts = self.shared.env_facts(self.pod_ips);
        let envs = env::environment(self.pod, self.container, &referenced, &facts)?;
        let dir = self.shared.pod_dir(self.pod);
        let mut mounts = Vec::new();
        let mut annotations = BTreeMap::new();
        if self.shared.settings.volumes {
            mounts = volumes::mounts(self.pod, self.container, &dir, &envs)?;
            mounts.push(self.hosts_file(&mounts)?);
            mounts.retain(|mount| !mount.host_path.as_os_str().is_empty());
            let message = self.termination_file()?;
            annotations.insert(
                labels::TERMINATION_MESSAGE_FILE.to_owned(),
                message.host_path.to_string_lossy().into_owned(),
            );
            mounts.push(message);
        }
        let ingredients = config::Ingredients {
            attempt: self.attempt,
            envs,
            mounts,
            annotations,
            node_memory: self.shared.node_memory(),
        };
        config::container(self.pod, self.container, ingredients)
    }

    /// The services that the environment shows: those of the pod's namespace, and always the API server's.
    async fn services(&self) -> Result<Vec<Service>, ConfigError> {
        if !self.shared.settings.service_links {
            return Ok(Vec::new());
        }
        let failed = |error: kube::Error| ConfigError(format!("services cannot be listed: {error}"));
        let client = &self.shared.client;
        let default = Api::<Service>::namespaced(client.clone(), "default");
        let own = async {
            if spec(self.pod).enable_service_links == Some(false) {
                return Ok(Vec::new());
            }
            let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
            let listed = Api::<Service>::namespaced(client.clone(), namespace)
                .list(&Default::default())
                .await?;
            Ok(listed.items)
        };
        let (kubernetes, own) = tokio::try_join!(default.get_opt("kubernetes"), own).map_err(failed)?;
        let mut services: Vec<Service> = kubernetes.into_iter().collect();
        services.extend(own);
        Ok(services)
    }

    /// The pod's `/etc/hosts`, unless the container mounts one itself.
    fn hosts_file(&self, mounts: &[Mount]) -> Result<Mount, ConfigError> {
        let target = PathBuf::from("/etc/hosts");
        if mounts.iter().any(|mount| mount.container_path == target) {
            return Ok(Mount::default());
        }
        let hostname = config::hostname(self.pod, &self.shared.settings.node_name);
        let text = config::hosts_file(self.pod, self.pod_ips, &hostname);
        let path = self.shared.pod_dir(self.pod).join("etc-hosts");
        write(&path, &text)?;
        Ok(Mount {
            container_path: target,
            host_path: path,
            readonly: false,
        })
    }

    fn termination_file(&self) -> Result<Mount, ConfigError> {
        let dir = self
            .shared
            .pod_dir(self.pod)
            .join("containers")
            .join(&self.container.name);
        let path = dir.join(format!("{}-termination", self.attempt));
        write(&path, "")?;
        // Any user that the container runs as writes its last words.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&path, open)
            .map_err(|error| ConfigError(format!("{}: {error}", path.display())))?;
        let target = self
            .container
            .termination_message_path
            .as_deref()
            .unwrap_or("/dev/termination-log");
        Ok(Mount {
            container_path: target.into(),
            host_path: path,
            readonly: false,
        })
    }

    async fn post_start(&self, id: &ContainerId) -> Result<(), StartFailure> {
        let hook = self
            .container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        let ip = self.pod_ips.first().map_or("", String::as_str);
        let target = Target {
            runtime: &*self.shared.runtime,
            id,
            container: self.container,
            ip,
        };
        let Err(message) = handler::hook(&target, hook, HOOK_TIMEOUT).await else {
            return Ok(());
        };
        self.event(
            EventType::Warning,
            "FailedPostStartHook",
            format!("PostStartHook failed: {message}"),
        );
        self.event(EventType::Normal, "Killing", "FailedPostStartHook");
        let grace = super::view::grace_seconds(self.pod);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        if let Err(error) = self.shared.runtime.stop_container(id, grace).await {
            tracing::warn!(container = %id, %error, "container could not be stopped after its postStart hook failed");
        }
        Err(StartFailure::new(
            "PostStartHookError",
            format!("PostStartHookError: {message}"),
        ))
    }
}

fn write(path: &std::path::Path, text: &str) -> Result<(), ConfigError> {
    let failed = |error: std::io::Error| ConfigError(format!("write {}: {error}", path.display()));
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

/// Gets the objects that are referred to.
pub(crate) async fn fetch(
    shared: &Shared,
    pod: &Pod,
    references: References,
) -> Result<Referenced, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut found = Referenced::default();
    let failed = |error: kube::Error| ConfigError(format!("failed to sync cache: {error}"));
    for name in references.config_maps {
        let map = Api::<ConfigMap>::namespaced(shared.client.clone(), namespace)
            .get_opt(&name)
            .await
            .map_err(failed)?;
        found.config_maps.insert(name, map);
    }
    for name in references.secrets {
        let secret = Api::<Secret>::namespaced(shared.client.clone(), namespace)
            .get_opt(&name)
            .await
            .map_err(failed)?;
        found.secrets.insert(name, secret);
    }
    Ok(found)
}

/// What the environment shows of the node.
impl Shared {
    pub(crate) fn env_facts(&self, pod_ips: &[String]) -> EnvFacts {
        EnvFacts {
            pod_ips: pod_ips.to_vec(),
            host_ips: self.node.ips.clone(),
            allocatable: self.settings.allocatable.clone(),
        }
    }

    fn node_memory(&self) -> i64 {
        let memory = self
            .settings
            .capacity
            .get("memory")
            .and_then(|q| q.0.parse::<orch_core::quantity::Quantity>().ok());
        memory.map_or(0, |q| q.value())
    }
}
