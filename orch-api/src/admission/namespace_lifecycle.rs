use async_trait::async_trait;
use orch_core::status::{ApiError, GroupResource, cause};
use serde::Deserialize;

use super::{Admission, Operation, Review};
use crate::object::Object;

/// Keeps objects out of namespaces that are not there or are going away, and the system's namespaces from being deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceLifecycle;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

#[derive(Deserialize)]
struct Slim {
    #[serde(default)]
    status: SlimStatus,
    metadata: SlimMetadata,
}

#[derive(Deserialize, Default)]
struct SlimStatus {
    #[serde(default)]
    phase: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMetadata {
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

impl Slim {
    fn is_terminating(&self) -> bool {
        self.status.phase.as_deref() == Some("Terminating") || self.metadata.deletion_timestamp.is_some()
    }
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        if review.namespace.is_empty() {
            return Ok(());
        }
        let Some(namespace) = review.lookup.core("namespaces", "", review.namespace).await? else {
            return Err(ApiError::not_found(
                &GroupResource::new("", "namespaces"),
                review.namespace,
            ));
        };
        if review.operation != Operation::Create {
            return Ok(());
        }
        let namespace: Slim = serde_json::from_slice(&namespace).map_err(ApiError::internal)?;
        if namespace.is_terminating() {
            Err(terminating(review, object.name()))
        } else {
            Ok(())
        }
    }

    async fn validate(&self, review: &Review<'_>, _object: Option<&dyn Object>) -> Result<(), ApiError> {
        let deletes_namespace = review.operation == Operation::Delete && review.is("", "namespaces");
        if deletes_namespace && IMMORTAL.contains(&review.name) {
            let resource = GroupResource::new("", "namespaces");
            return Err(ApiError::forbidden(
                &resource,
                review.name,
                "this namespace may not be deleted",
            ));
        }
        Ok(())
    }
}

fn terminating(review: &Review<'_>, name: &str) -> ApiError {
    let namespace = review.namespace;
    let resource = GroupResource::new(
        review.resource.group.to_string(),
        review.resource.plural.to_string(),
    );
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let text = format!("namespace {namespace} is being terminated");
    ApiError::forbidden(&resource, name, why).with_cause(cause(
        "NamespaceTerminating",
        "metadata.namespace",
        &text,
    ))
}
