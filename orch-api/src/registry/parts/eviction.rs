//! Eviction: the deletion of a pod that respects disruption budgets.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use orch_core::selector::LabelSelector;
use orch_core::status::{ApiError, Reason, cause};
use serde_json::json;

use crate::registry::Resource;
use crate::registry::delete::{Deletion, Propagation};
use crate::registry::edit::Edit;
use crate::registry::live;
use crate::registry::metadata::now;
use crate::registry::options::ListOptions;
use crate::registry::selection::Selection;
use crate::registry::{list, write::Write};

/// Reads an eviction of the pod in the path.
pub(crate) fn read(body: &[u8], name: &str) -> Result<Deletion, ApiError> {
    let eviction: Eviction = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!(
            "Eviction in version \"v1\" cannot be handled as a Eviction: {error}"
        ))
    })?;
    if eviction.metadata.name.as_deref().is_some_and(|own| own != name) {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let options = eviction.delete_options.unwrap_or_default();
    let body = serde_json::to_vec(&options).map_err(ApiError::internal)?;
    Deletion::parse(&crate::http::query::Query::default(), &body)
}

fn needs_budget(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && pod.metadata.deletion_timestamp.is_none()
}

impl Write<'_> {
    /// Deletes a pod if its disruption budget has room.
    pub(crate) async fn evict(&self, name: &str, wanted: &Deletion) -> Result<(), ApiError> {
        let live = live::load(self.context, self.resource, self.namespace, name).await?;
        let live = live.ok_or_else(|| ApiError::not_found(&self.resource.group_resource, name))?;
        if let Some(pod) = live.object.downcast_ref::<Pod>().filter(|pod| needs_budget(pod)) {
            self.spend(pod, name).await?;
        }
        let background = Deletion {
            propagation: wanted.propagation.or(Some(Propagation::Background)),
            ..wanted.clone()
        };
        Write {
            subresource: None,
            ..*self
        }
        .delete(name, &background)
        .await?;
        Ok(())
    }

    /// Takes one disruption from the pod's budget.
    async fn spend(&self, pod: &Pod, name: &str) -> Result<(), ApiError> {
        let Some(budgets) = self
            .context
            .resources
            .fixed("policy", "v1", "poddisruptionbudgets")
        else {
            return Ok(());
        };
        let found = matching(budgets, self.namespace, pod).await?;
        let budget = match found.as_slice() {
            [] => return Ok(()),
            [one] => one,
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(ApiError::internal(why));
            }
        };
        Write {
            resource: budgets,
            ..*self
        }
        .edit(budget, |object| {
            let mut value = object.to_value();
            let budget: PodDisruptionBudget =
                serde_json::from_value(value.clone()).map_err(ApiError::internal)?;
            check_room(&budget)?;
            let allowed = budget
                .status
                .as_ref()
                .and_then(|status| status.disruptions_allowed)
                .unwrap_or(0);
            value["status"]["disruptionsAllowed"] = json!(allowed - 1);
            value["status"]["disruptedPods"][name] = json!(now());
            let text = serde_json::to_vec(&value).map_err(ApiError::internal)?;
            let decoded = budgets.strategy.decode(&text).map_err(ApiError::internal)?;
            object.assign(decoded.object);
            Ok(Edit::Store)
        })
        .await?;
        Ok(())
    }
}

/// The names of the budgets that cover a pod.
async fn matching(budgets: &Arc<Resource>, namespace: &str, pod: &Pod) -> Result<Vec<String>, ApiError> {
    let selection = Selection::all(namespace);
    let page = list::page(budgets, &selection, &ListOptions::default()).await?;
    let mut names = Vec::new();
    for entry in page.items {
        let budget: PodDisruptionBudget = serde_json::from_slice(&entry.json).map_err(ApiError::internal)?;
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = LabelSelector::from_api_option(selector).map_err(ApiError::internal)?;
        if selector.matches_option(pod.metadata.labels.as_ref()) {
            names.push(entry.name.to_string());
        }
    }
    Ok(names)
}

fn check_room(budget: &PodDisruptionBudget) -> Result<(), ApiError> {
    let name = budget.metadata.name.as_deref().unwrap_or_default();
    let status = budget.status.clone().unwrap_or_default();
    let refused = |text: String| {
        let error = ApiError::new(
            Reason::TooManyRequests,
            "Cannot evict pod as it would violate the pod's disruption budget.",
        );
        error.with_cause(cause("DisruptionBudget", "", &text))
    };
    if status.observed_generation.unwrap_or(0) < budget.metadata.generation.unwrap_or(0) {
        return Err(refused(format!(
            "The disruption budget {name} is still being processed by the server."
        )));
    }
    if status.disruptions_allowed.unwrap_or(0) <= 0 {
        return Err(refused(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy.unwrap_or(0),
            status.current_healthy.unwrap_or(0)
        )));
    }
    Ok(())
}
