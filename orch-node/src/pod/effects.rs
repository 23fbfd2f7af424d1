//! What is done for a pod outside this process: by the runtime, the API server and in the pod's folder.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use orch_core::events::EventType;
use serde_json::Value;

use super::config;
use super::env::ConfigError;
use super::handler::{self, Target};
use super::start;
use super::status_patch::patch_status;
use super::view::{find_container, spec};
use super::volumes::{self, Tokens, VolumeError};
use crate::agent::shared::Shared;
use crate::runtime::{ContainerId, RuntimeError, SandboxId};

pub(super) async fn prepare_volumes(
    shared: &Shared,
    pod: &Pod,
    ips: &[String],
    tokens: Option<Tokens>,
) -> Result<Tokens, VolumeError> {
    if !shared.settings.volumes {
        return Ok(Tokens::new());
    }
    let referenced = start::fetch(shared, pod, volumes::references(pod)).await?;
    let tokens = match tokens {
        Some(tokens) => tokens,
        None => request_tokens(shared, pod).await?,
    };
    volumes::prepare(
        pod,
        &shared.pod_dir(pod),
        &referenced,
        &shared.env_facts(ips),
        &tokens,
    )?;
    Ok(tokens)
}

/// Asks for the service account tokens that the pod's volumes show, bound to the pod.
async fn request_tokens(shared: &Shared, pod: &Pod) -> Result<Tokens, VolumeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = spec(pod).service_account_name.as_deref().unwrap_or("default");
    let api = Api::<ServiceAccount>::namespaced(shared.client.clone(), namespace);
    let mut tokens = Tokens::new();
    for (volume, wanted) in volumes::token_requests(pod) {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: wanted.audience.clone().map(|audience| vec![audience]),
                expiration_seconds: Some(wanted.expiration_seconds.unwrap_or(3600)),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        let answer = answer.map_err(|error| ConfigError(format!("failed to fetch token: {error}")))?;
        let token = answer.status.and_then(|status| status.token).unwrap_or_default();
        tokens.insert((volume, wanted.path.clone()), token);
    }
    Ok(tokens)
}

pub(super) async fn create_sandbox(shared: &Shared, pod: &Pod, attempt: u32) -> Result<(), RuntimeError> {
    let settings = &shared.settings;
    let config = config::sandbox(
        pod,
        attempt,
        &settings.node_name,
        &settings.log_dir(),
        &settings.dns,
    );
    shared.runtime.run_pod_sandbox(&config).await.map(drop)
}

pub(super) async fn stop_sandboxes(shared: &Shared, ids: &[SandboxId]) -> Result<(), RuntimeError> {
    for id in ids {
        shared.runtime.stop_pod_sandbox(id).await?;
    }
    Ok(())
}

pub(super) async fn kill(
    shared: &Shared,
    pod: &Pod,
    id: &ContainerId,
    name: &str,
    grace: i64,
    message: String,
    ip: &str,
) -> Result<(), RuntimeError> {
    shared.container_event(pod, name, EventType::Normal, "Killing", message);
    let begin = tokio::time::Instant::now();
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    if let Some(container) = find_container(pod, name)
        && let Some(hook) = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.as_ref())
    {
        let target = Target {
            runtime: &*shared.runtime,
            id,
            container,
            ip,
        };
        let failure = match tokio::time::timeout(grace, handler::hook(&target, hook, grace)).await {
            Ok(result) => result.err(),
            Err(_) => Some("it did not end within the grace period".into()),
        };
        if let Some(failure) = failure {
            let message = format!("PreStopHook failed: {failure}");
            shared.container_event(pod, name, EventType::Warning, "FailedPreStopHook", message);
        }
    }
    // However long the hook took, the program gets a moment to end by itself.
    let left = grace
        .saturating_sub(begin.elapsed())
        .max(Duration::from_secs(2).min(grace));
    shared.runtime.stop_container(id, left).await
}

/// Ends what is left of a pod: reports the last status, cleans up, lets the API server forget it.
pub(super) async fn finish(
    shared: &Shared,
    pod: &Pod,
    patch: Option<Value>,
    sandboxes: &[SandboxId],
    gone: bool,
) -> Result<(), String> {
    if let Some(patch) = patch {
        match patch_status(shared, pod, &patch).await {
            Ok(_) => {}
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {}
            Err(error) => return Err(format!("report the last status: {error}")),
        }
    }
    for id in sandboxes {
        shared
            .runtime
            .remove_pod_sandbox(id)
            .await
            .map_err(|error| error.to_string())?;
    }
    shared
        .remove_pod_files(pod)
        .map_err(|error| format!("remove the pod's files: {error}"))?;
    if gone {
        return Ok(());
    }
    let meta = &pod.metadata;
    let api = Api::<Pod>::namespaced(
        shared.client.clone(),
        meta.namespace.as_deref().unwrap_or_default(),
    );
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: meta.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api
        .delete(meta.name.as_deref().unwrap_or_default(), &params)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
        Err(error) => Err(format!("delete the pod: {error}")),
    }
}
