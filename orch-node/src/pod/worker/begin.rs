//! How a worker begins what was decided: each action is a task, and the worker keeps what it needs to end it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use orch_core::events::EventType;

use super::{Done, RETRY, Task, Worker, pull_key};
use crate::pod::effects;
use crate::pod::start::Start;
use crate::pod::step::Action;
use crate::pod::view::{Busy, find_container, spec};
use crate::pod::volumes;
use crate::runtime::{ContainerState, SandboxId};

impl Worker {
    pub(super) fn begin(&mut self, action: Action, now: Timestamp) {
        let shared = Arc::clone(&self.shared);
        let pod = Arc::clone(&self.pod);
        match action {
            Action::PrepareVolumes => self.begin_volumes(now),
            Action::CreateSandbox { attempt } => {
                self.spawn(Task::Action(Busy::Sandbox), async move {
                    Done::Sandbox(effects::create_sandbox(&shared, &pod, attempt).await)
                });
            }
            Action::StartContainer { name, attempt } => self.begin_start(name, attempt, now),
            Action::KillContainer {
                id,
                name,
                grace,
                message,
            } => {
                let ip = self.memory.ips.first().cloned().unwrap_or_default();
                self.spawn(Task::Action(Busy::Kill(id.clone())), async move {
                    Done::Runtime(effects::kill(&shared, &pod, &id, &name, grace, message, &ip).await)
                });
            }
            Action::RemoveContainer(id) => {
                self.spawn(Task::Action(Busy::Remove(id.clone())), async move {
                    Done::Runtime(shared.runtime.remove_container(&id).await)
                });
            }
            Action::StopSandboxes(ids) => {
                self.spawn(Task::Action(Busy::StopSandboxes), async move {
                    Done::Runtime(effects::stop_sandboxes(&shared, &ids).await)
                });
            }
            Action::DeadlineExceeded => {
                let message = "Pod was active on the node longer than the specified deadline";
                self.shared
                    .pod_event(&self.pod, EventType::Normal, "DeadlineExceeded", message);
                self.memory.failed = Some(("DeadlineExceeded".into(), message.into()));
                self.memory.retry_at.insert(String::new(), now);
            }
            Action::Finish => self.begin_finish(),
        }
    }

    fn begin_volumes(&mut self, now: Timestamp) {
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
        let ips = self.memory.ips.clone();
        let known = self
            .tokens_at
            .filter(|at| now.duration_since(*at) < token_age(&pod))
            .map(|_| self.tokens.clone());
        if known.is_none() {
            self.tokens_at = Some(now);
        }
        self.spawn(Task::Action(Busy::Volumes), async move {
            Done::Volumes(effects::prepare_volumes(&shared, &pod, &ips, known).await)
        });
    }

    fn begin_start(&mut self, name: String, attempt: u32, now: Timestamp) {
        let Some(sandbox) = self.observed.ready_sandbox().map(|s| s.sandbox.id.clone()) else {
            return;
        };
        let Some(container) = find_container(&self.pod, &name).cloned() else {
            return;
        };
        if self
            .observed
            .current(&name)
            .is_some_and(|c| c.state == ContainerState::Exited)
        {
            self.memory.restarts.next(&name, now);
        }
        let image = container.image.clone().unwrap_or_default();
        let pull_backoff = self
            .memory
            .retry_at
            .get(&pull_key(&image))
            .and_then(|since| self.memory.pulls.due(&image, *since, now).map(|(_, delay)| delay));
        let ips = if spec(&self.pod).host_network == Some(true) {
            self.shared.node.ips.clone()
        } else {
            self.memory.ips.clone()
        };
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
        self.spawn(Task::Action(Busy::Container(name.clone())), async move {
            let start = Start {
                shared: &shared,
                pod: &pod,
                container: &container,
                attempt,
                sandbox: &sandbox,
                pod_ips: &ips,
                pull_backoff,
            };
            let result = start.run().await;
            Done::Started(name, result)
        });
    }

    pub(super) fn begin_finish(&mut self) {
        let patch = self.status_patch(true);
        let (shared, pod, gone) = (Arc::clone(&self.shared), Arc::clone(&self.pod), self.gone);
        let delay = if self.failures == 0 { Duration::ZERO } else { RETRY };
        let sandboxes: Vec<SandboxId> = self
            .observed
            .sandboxes
            .iter()
            .map(|s| s.sandbox.id.clone())
            .collect();
        self.spawn(Task::Finish, async move {
            tokio::time::sleep(delay).await;
            Done::Finished(effects::finish(&shared, &pod, patch.filter(|_| !gone), &sandboxes, gone).await)
        });
    }

    pub(super) fn spawn(&mut self, task: Task, work: impl Future<Output = Done> + Send + 'static) {
        let handle = self.tasks.spawn(async move {
            let done = work.await;
            if matches!(done, Done::Runtime(Err(_))) {
                // It stays under way for so long, so that it is not begun again at once.
                tokio::time::sleep(RETRY).await;
            }
            done
        });
        self.running.insert(handle.id(), (task, handle));
    }
}

/// How long tokens are shown before they are asked for anew: four fifths of the shortest life among them.
fn token_age(pod: &Pod) -> SignedDuration {
    let requests = volumes::token_requests(pod);
    let shortest = requests
        .iter()
        .map(|(_, token)| token.expiration_seconds.unwrap_or(3600))
        .min()
        .unwrap_or(3600);
    SignedDuration::from_secs(shortest * 8 / 10)
}
