//! `pods/NAME/log`: a container's log, from the node agent that has it.

use http::{HeaderMap, Response, StatusCode};
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use orch_core::field::{ErrorList, FieldError, Path, quote};
use orch_core::status::{ApiError, GroupKind};

use crate::context::Context;
use crate::http::body::Body;
use crate::http::query::Query;
use crate::http::response;
use crate::node::{Endpoint, NodeError};
use crate::registry::{Resource, read};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// What is passed on to the node agent, as it came.
const PASSED_ON: [&str; 8] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
];

/// Streams a log.
pub(crate) async fn log(
    context: &Context,
    pods: &Resource,
    namespace: &str,
    name: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    validate(query, name)?;
    let json = read::bytes(context, pods, namespace, name, None).await?;
    let pod: Pod = serde_json::from_slice(&json).map_err(ApiError::internal)?;
    let container = container(&pod, query.get("container"))?;
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.clone())
        .filter(|node| !node.is_empty());
    let Some(node) = node else {
        // Nothing can have been logged yet.
        return Ok(response::text(StatusCode::OK, Body::empty()));
    };
    let endpoint = endpoint(context, &node).await?;
    let path = path(namespace, name, &container, query);
    let connector = context
        .nodes
        .as_ref()
        .ok_or_else(|| super::not_implemented("reading logs without a way to nodes"))?;
    let answer = connector
        .get(&endpoint, &path, headers)
        .await
        .map_err(|error| unreachable_node(&endpoint, &error))?;
    if answer.status() != StatusCode::OK {
        return Err(refused(answer).await);
    }
    let mut log = response::text(StatusCode::OK, Body::empty());
    *log.body_mut() = answer.into_body();
    Ok(log)
}

fn validate(query: &Query, name: &str) -> Result<(), ApiError> {
    let mut errors = ErrorList::new();
    let since = (query.number("sinceSeconds")?, query.get("sinceTime"));
    let at_least =
        |errors: &mut ErrorList, field: &'static str, value: Option<i64>, least: i64, why: &str| {
            if let Some(value) = value.filter(|value| *value < least) {
                errors.push(FieldError::invalid(&Path::new(field), value, why.to_owned()));
            }
        };
    at_least(
        &mut errors,
        "tailLines",
        query.number("tailLines")?,
        0,
        "must be greater than or equal to 0",
    );
    at_least(
        &mut errors,
        "limitBytes",
        query.number("limitBytes")?,
        1,
        "must be greater than 0",
    );
    at_least(&mut errors, "sinceSeconds", since.0, 1, "must be greater than 0");
    if let (Some(_), Some(_)) = since {
        errors.push(FieldError::forbidden(
            &Path::root(),
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(
            &GroupKind::new("", "PodLogOptions"),
            name,
            &errors,
        ))
    }
}

/// The container to read: the one asked for, the default, or the only one.
fn container(pod: &Pod, asked: Option<&str>) -> Result<String, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let names = |containers: &[Container]| containers.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let (main, init) = (
        names(&spec.containers),
        names(&spec.init_containers.unwrap_or_default()),
    );
    let debug: Vec<String> = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|one| one.name.clone())
        .collect();
    if let Some(asked) = asked {
        if [&main, &init, &debug]
            .into_iter()
            .flatten()
            .any(|one| one == asked)
        {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {name}"
        )));
    }
    let annotated = pod
        .metadata
        .annotations
        .iter()
        .flatten()
        .find(|(key, _)| *key == DEFAULT_CONTAINER);
    if let Some((_, wanted)) = annotated.filter(|(_, wanted)| main.contains(wanted)) {
        return Ok(wanted.clone());
    }
    match main.as_slice() {
        [only] => Ok(only.clone()),
        _ => {
            let mut text = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                main.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// Where the agent of a node listens.
async fn endpoint(context: &Context, name: &str) -> Result<Endpoint, ApiError> {
    let nodes = context.core("nodes").ok_or_else(ApiError::unknown_resource)?;
    let json = read::bytes(context, nodes, "", name, Some(0)).await;
    let json = match json {
        Err(error) if error.is_not_found() => read::bytes(context, nodes, "", name, None).await?,
        other => other?,
    };
    let node: Node = serde_json::from_slice(&json).map_err(ApiError::internal)?;
    let status = node.status.unwrap_or_default();
    let addresses = status.addresses.unwrap_or_default();
    let kinds = ["InternalIP", "ExternalIP", "Hostname"];
    let address = kinds
        .into_iter()
        .find_map(|kind| addresses.iter().find(|address| address.type_ == kind));
    let port = status
        .daemon_endpoints
        .and_then(|endpoints| endpoints.kubelet_endpoint)
        .map_or(0, |endpoint| endpoint.port);
    let host = address.map(|address| address.address.clone());
    let host = host.ok_or_else(|| {
        ApiError::internal(format!(
            "no preferred addresses found; known addresses: [] of node {name}"
        ))
    })?;
    let port = u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .unwrap_or(10250);
    Ok(Endpoint {
        node: name.to_owned(),
        host,
        port,
    })
}

fn path(namespace: &str, pod: &str, container: &str, query: &Query) -> String {
    let mut path = format!("/containerLogs/{namespace}/{pod}/{container}");
    let mut sign = '?';
    for name in PASSED_ON {
        if let Some(value) = query.get(name) {
            let value: String = value.bytes().map(escape).collect();
            path.push_str(&format!("{sign}{name}={value}"));
            sign = '&';
        }
    }
    path
}

fn escape(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn unreachable_node(endpoint: &Endpoint, error: &NodeError) -> ApiError {
    ApiError::internal(format!("node {}: {error}", quote(&endpoint.node)))
}

/// The agent's own words on why it refuses.
async fn refused(answer: Response<Body>) -> ApiError {
    let status = answer.status();
    let text =
        http_body_util::BodyExt::collect(http_body_util::Limited::new(answer.into_body(), 64 << 10)).await;
    let text = text
        .map(|text| String::from_utf8_lossy(&text.to_bytes()).trim().to_owned())
        .unwrap_or_default();
    match status {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => ApiError::new(orch_core::status::Reason::NotFound, text),
        _ => ApiError::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: &[&str], annotation: Option<&str>) -> Pod {
        let containers: Vec<_> = containers.iter().map(|name| json!({"name": name})).collect();
        let annotations = annotation.map(|name| json!({DEFAULT_CONTAINER: name}));
        serde_json::from_value(json!({
            "metadata": {"name": "p", "annotations": annotations}, "spec": {"containers": containers, "initContainers": [{"name": "i"}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_container_is_chosen_when_there_is_no_choice() {
        assert_eq!(container(&pod(&["a"], None), None).unwrap(), "a");
        assert_eq!(container(&pod(&["a", "b"], Some("b")), None).unwrap(), "b");
        assert_eq!(container(&pod(&["a", "b"], None), Some("i")).unwrap(), "i");
        let error = container(&pod(&["a", "b"], None), None).unwrap_err();
        assert_eq!(
            error.message(),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(
            container(&pod(&["a"], None), Some("x")).unwrap_err().message(),
            "container x is not valid for pod p"
        );
    }

    #[test]
    fn options_are_passed_on_and_checked() {
        let query = Query::parse(Some(
            "follow=true&tailLines=5&sinceTime=2026-01-01T00:00:00%2B01:00&container=a",
        ));
        assert_eq!(
            path("ns", "p", "a", &query),
            "/containerLogs/ns/p/a?follow=true&sinceTime=2026-01-01T00%3A00%3A00%2B01%3A00&tailLines=5"
        );
        assert_eq!(
            validate(&Query::parse(Some("tailLines=-1")), "p")
                .unwrap_err()
                .code(),
            422
        );
        assert_eq!(
            validate(&Query::parse(Some("tailLines=x")), "p")
                .unwrap_err()
                .code(),
            400
        );
    }
}
