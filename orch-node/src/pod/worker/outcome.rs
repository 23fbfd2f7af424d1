//! What a worker makes of an action that ended: what it remembers, when it tries again, what it tells.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Volume};
use orch_core::events::EventType;
use tokio::task::{Id, JoinError};

use super::{Done, Next, PATCH_RETRY, REFRESH, Worker, is_older, pull_key};
use crate::pod::start::StartFailure;
use crate::pod::status;
use crate::pod::view::{find_container, spec};
use crate::pod::volumes::VolumeError;

impl Worker {
    pub(super) fn finished(&mut self, done: Result<(Id, Done), JoinError>) -> Next {
        let (id, done) = match done {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, pod = %status::full_name(&self.pod), "an action ended badly");
                }
                (error.id(), None)
            }
        };
        self.running.remove(&id);
        match done {
            Some(Done::Finished(Ok(()))) => Next::End,
            Some(Done::Patched(result)) => {
                self.patched(result);
                Next::Decide
            }
            Some(done) => {
                self.take(done);
                Next::Look
            }
            None => Next::Look,
        }
    }

    fn take(&mut self, done: Done) {
        let now = Timestamp::now();
        match done {
            Done::Volumes(Ok(tokens)) => {
                self.tokens = tokens;
                self.memory.volumes_ready = true;
                self.succeeded();
                let shows_objects = |v: &Volume| {
                    v.config_map.is_some()
                        || v.secret.is_some()
                        || v.projected.is_some()
                        || v.downward_api.is_some()
                };
                let refresh = self.shared.settings.volumes
                    && spec(&self.pod).volumes.iter().flatten().any(shows_objects);
                self.refresh_at = refresh.then(|| now + REFRESH);
            }
            Done::Volumes(Err(error)) => self.volumes_failed(&error, now),
            Done::Sandbox(Ok(())) => self.succeeded(),
            Done::Sandbox(Err(error)) => {
                let message = format!("Failed to create pod sandbox: {error}");
                self.shared
                    .pod_event(&self.pod, EventType::Warning, "FailedCreatePodSandBox", message);
                self.retry_later("", now);
            }
            Done::Started(name, Ok(())) => {
                self.memory.waiting.remove(&name);
                self.memory.retry_at.remove(&name);
            }
            Done::Started(name, Err(failure)) => self.start_failed(name, failure, now),
            Done::Runtime(Err(error)) => {
                tracing::warn!(pod = %status::full_name(&self.pod), %error, "runtime call failed");
                self.retry_later("", now);
            }
            Done::Finished(Err(error)) => {
                tracing::warn!(pod = %status::full_name(&self.pod), error, "pod could not be cleaned up yet");
                self.failures += 1;
            }
            Done::Runtime(Ok(())) | Done::Patched(_) | Done::Finished(Ok(())) => {}
        }
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.memory.retry_at.remove("");
    }

    /// Half a second, doubled each time up to half a minute.
    fn retry_later(&mut self, key: &str, now: Timestamp) {
        let delay = SignedDuration::from_millis(500i64 << self.failures.min(6));
        self.failures += 1;
        self.memory.retry_at.insert(key.to_owned(), now + delay);
    }

    fn volumes_failed(&mut self, error: &VolumeError, now: Timestamp) {
        let message = format!("MountVolume.SetUp failed : {error}");
        self.shared
            .pod_event(&self.pod, EventType::Warning, "FailedMount", message);
        if matches!(error, VolumeError::NotBuilt(_)) {
            self.refused = Some(error.to_string());
            self.refuse();
        }
        if self.memory.volumes_ready {
            self.refresh_at = Some(now + REFRESH);
        } else {
            self.retry_later("", now);
        }
    }

    fn start_failed(&mut self, name: String, failure: StartFailure, now: Timestamp) {
        let image = find_container(&self.pod, &name)
            .and_then(|c| c.image.clone())
            .unwrap_or_default();
        let again = match failure.reason.as_str() {
            "ErrImagePull" | "RegistryUnavailable" | "InvalidImageName" => {
                self.memory.pulls.next(&image, now);
                self.memory.retry_at.insert(pull_key(&image), now);
                Some(now + SignedDuration::from_secs(1))
            }
            "ImagePullBackOff" => {
                let since = self
                    .memory
                    .retry_at
                    .get(&pull_key(&image))
                    .copied()
                    .unwrap_or(now);
                self.memory.pulls.due(&image, since, now).map(|(due, _)| due)
            }
            // The container is there, and ended: the restart policy has the word.
            "RunContainerError" | "PostStartHookError" => None,
            _ => Some(now + SignedDuration::from_secs(10)),
        };
        let message = match failure.reason.as_str() {
            "ImagePullBackOff" => {
                let before = self
                    .memory
                    .waiting
                    .get(&name)
                    .filter(|(reason, _)| reason == "ErrImagePull");
                let why = before
                    .map(|(reason, message)| format!(": {reason}: {message}"))
                    .unwrap_or_default();
                failure.message + &why
            }
            _ => failure.message,
        };
        match again {
            Some(at) => self.memory.retry_at.insert(name.clone(), at),
            None => self.memory.retry_at.remove(&name),
        };
        self.memory.waiting.insert(name, (failure.reason, message));
    }

    fn patched(&mut self, result: Result<Box<Pod>, kube::Error>) {
        match result {
            Ok(pod) => {
                if !is_older(&pod, &self.pod) {
                    self.pod = Arc::new(*pod);
                }
            }
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {
                tracing::debug!(pod = %status::full_name(&self.pod), error = %error.message, "status was not taken");
                self.patch_after = Some(Timestamp::now() + PATCH_RETRY);
            }
            Err(error) => {
                tracing::warn!(pod = %status::full_name(&self.pod), %error, "status could not be reported");
                self.patch_after = Some(Timestamp::now() + PATCH_RETRY);
            }
        }
    }
}
