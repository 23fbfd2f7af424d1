//! What the scheduler writes to the API server.

use crate::binding::{BindError, BindOutcome, Binding};
use crate::engine::Unschedulable;
use crate::object::PodInfo;
use crate::policy::SchedulerPolicy;
use crate::scheduler::reports::Report;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use std::sync::Arc;

/// Takes a pod through the binding stages of its profile.
pub(super) async fn bind(
    policies: Vec<Arc<dyn SchedulerPolicy>>,
    binding: &Binding,
) -> Result<(), BindError> {
    for policy in &policies {
        policy.pre_bind(binding).await?;
    }
    for policy in &policies {
        if policy.bind(binding).await? == BindOutcome::Bound {
            for policy in &policies {
                policy.post_bind(binding).await;
            }
            return Ok(());
        }
    }
    Err(BindError::NoBinder)
}

/// The reference by which events name a pod.
pub(super) fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        resource_version: Some(pod.resource_version.clone()),
        field_path: None,
    }
}

/// The condition and what is to be written into a pod's status; none when it stands there already.
pub(super) fn unscheduled_status(
    report: &Report,
    before: Option<&PodCondition>,
    now: Timestamp,
) -> Option<(PodCondition, serde_json::Value)> {
    let Report {
        pod,
        reason,
        message,
        nominated,
    } = report;
    let says_so = |c: &PodCondition| {
        c.status == "False"
            && c.reason.as_deref() == Some(*reason)
            && c.message.as_deref() == Some(message.as_str())
    };
    let nominated = nominated.as_deref();
    let nominated_news = nominated.filter(|node| pod.nominated_node.as_deref() != Some(*node));
    if before.is_some_and(says_so) && nominated_news.is_none() {
        return None;
    }
    let since = before
        .filter(|c| c.status == "False")
        .and_then(|c| c.last_transition_time.clone());
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some((*reason).to_owned()),
        message: Some(message.clone()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        observed_generation: pod.generation,
        ..PodCondition::default()
    };
    let mut status = json!({ "conditions": [condition] });
    if let Some(node) = nominated_news {
        status["nominatedNodeName"] = json!(node);
    }
    // With the UID, a pod that took over the name is left alone.
    let patch = json!({ "metadata": { "uid": pod.uid }, "status": status });
    Some((condition, patch))
}

/// Merges a status into a pod's.
pub(super) async fn patch_status(
    client: Client,
    pod: &PodInfo,
    patch: &serde_json::Value,
) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
    pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch))
        .await?;
    Ok(())
}

/// Evicts the pods that make room for another, lowest first in the order given: marks each as disrupted, then deletes it.
pub(super) async fn evict(
    client: Client,
    failure: &Unschedulable,
    scheduler: &str,
) -> Result<(), kube::Error> {
    for victim in &failure.victims {
        let condition = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("PreemptionByScheduler".to_owned()),
            message: Some(format!(
                "{scheduler}: preempting to accommodate a higher priority pod"
            )),
            last_transition_time: Some(Time(Timestamp::now())),
            observed_generation: victim.generation,
            ..PodCondition::default()
        };
        let patch = json!({ "metadata": { "uid": victim.uid }, "status": { "conditions": [condition] } });
        let only_this_pod = Preconditions {
            uid: Some(victim.uid.clone()),
            resource_version: None,
        };
        let delete = DeleteParams {
            preconditions: Some(only_this_pod),
            ..DeleteParams::default()
        };
        let pods: Api<Pod> = Api::namespaced(client.clone(), &victim.namespace);
        let evicted = match patch_status(client.clone(), victim, &patch).await {
            Ok(()) => pods.delete(&victim.name, &delete).await.map(drop),
            Err(error) => Err(error),
        };
        match evicted {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::pod;

    #[test]
    fn a_condition_is_written_once_and_keeps_the_time_since_when_it_holds() {
        let (early, late) = (
            Timestamp::from_second(1000).unwrap(),
            Timestamp::from_second(2000).unwrap(),
        );
        let report = |message: &str, nominated: Option<&str>| Report {
            pod: Arc::new(pod("p").uid("u").build()),
            reason: "Unschedulable",
            message: message.to_owned(),
            nominated: nominated.map(str::to_owned),
        };
        let (condition, first) = unscheduled_status(&report("no room", None), None, early).unwrap();
        assert_eq!(first["metadata"]["uid"], "u");
        let before = Some(&condition);
        assert_eq!(unscheduled_status(&report("no room", None), before, late), None);
        let (_, other) = unscheduled_status(&report("still none", None), before, late).unwrap();
        assert_eq!(
            other["status"]["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:16:40Z"
        );
        let (_, nominated) = unscheduled_status(&report("no room", Some("n")), before, late).unwrap();
        assert_eq!(nominated["status"]["nominatedNodeName"], "n");
    }
}
