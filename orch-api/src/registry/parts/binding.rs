//! Binding pods to nodes.

use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use orch_core::field::{ErrorList, FieldError, Path};
use orch_core::status::{ApiError, GroupKind, GroupResource};

use crate::registry::edit::Edit;
use crate::registry::metadata::now;
use crate::registry::write::Write;

/// Reads a binding; `name` is the pod's name in the path, if it is there.
pub(crate) fn read(body: &[u8], name: Option<&str>) -> Result<Binding, ApiError> {
    let mut binding: Binding = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!(
            "Binding in version \"v1\" cannot be handled as a Binding: {error}"
        ))
    })?;
    match (name, binding.metadata.name.as_deref().unwrap_or_default()) {
        (Some(name), "") => binding.metadata.name = Some(name.to_owned()),
        (Some(name), own) if own != name => {
            return Err(ApiError::bad_request(
                "name in URL does not match name in Binding object",
            ));
        }
        _ => (),
    }
    let target = Path::new("target");
    let mut errors = ErrorList::new();
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(
            &target.child("kind"),
            kind,
            ["Node", "<empty>"],
        ));
    }
    if binding.target.name.as_deref().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(binding);
    }
    let name = binding.metadata.name.unwrap_or_default();
    Err(ApiError::invalid(&GroupKind::new("", "Binding"), &name, &errors))
}

/// What stands against binding a pod.
fn obstacle(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(format!(
            "pod {name} is already assigned to node {}",
            orch_core::field::quote(node)
        ));
    }
    let gated = spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    gated.then(|| format!("pod {name} has non-empty .spec.schedulingGates"))
}

fn bind(pod: &mut Pod, binding: &Binding) {
    pod.spec
        .get_or_insert_default()
        .node_name
        .clone_from(&binding.target.name);
    for (key, value) in binding.metadata.annotations.iter().flatten() {
        pod.metadata
            .annotations
            .get_or_insert_default()
            .insert(key.clone(), value.clone());
    }
    let conditions = pod
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let scheduled = PodCondition {
        type_: "PodScheduled".into(),
        status: "True".into(),
        last_transition_time: Some(now()),
        ..PodCondition::default()
    };
    match conditions
        .iter_mut()
        .find(|condition| condition.type_ == "PodScheduled")
    {
        Some(present) => *present = scheduled,
        None => conditions.push(scheduled),
    }
}

impl Write<'_> {
    /// Assigns a pod to a node, once.
    pub(crate) async fn bind(&self, binding: &Binding) -> Result<(), ApiError> {
        let name = binding.metadata.name.as_deref().unwrap_or_default();
        let conflict = |why: String| ApiError::conflict(&GroupResource::new("", "pods/binding"), name, why);
        let expected = &binding.metadata;
        self.edit(name, |object| {
            check(expected.uid.as_deref(), object.metadata().uid.as_deref(), "UID").map_err(conflict)?;
            let (wanted, actual) = (
                expected.resource_version.as_deref(),
                object.metadata().resource_version.as_deref(),
            );
            check(wanted, actual, "ResourceVersion").map_err(conflict)?;
            let pod = object
                .downcast_mut::<Pod>()
                .ok_or_else(ApiError::unknown_resource)?;
            match obstacle(pod) {
                Some(why) => Err(conflict(why)),
                None => {
                    bind(pod, binding);
                    Ok(Edit::Store)
                }
            }
        })
        .await?;
        Ok(())
    }
}

fn check(wanted: Option<&str>, actual: Option<&str>, what: &str) -> Result<(), String> {
    match wanted.filter(|wanted| !wanted.is_empty()) {
        Some(wanted) if Some(wanted) != actual => Err(format!(
            "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {}",
            actual.unwrap_or_default()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_is_bound_once() {
        let binding = read(
            br#"{"target":{"kind":"Node","name":"n1"},"metadata":{"annotations":{"a":"b"}}}"#,
            Some("p"),
        );
        let mut pod = pod(&json!({"containers": []}));
        assert_eq!(obstacle(&pod), None);
        bind(&mut pod, &binding.unwrap());
        assert_eq!(
            obstacle(&pod).unwrap(),
            "pod p is already assigned to node \"n1\""
        );
        assert_eq!(pod.metadata.annotations.unwrap()["a"], "b");
        assert_eq!(pod.status.unwrap().conditions.unwrap()[0].type_, "PodScheduled");
    }

    #[test]
    fn a_gated_pod_is_not_bound() {
        let pod = pod(&json!({"containers": [], "schedulingGates": [{"name": "g"}]}));
        assert!(obstacle(&pod).unwrap().contains("schedulingGates"));
    }

    #[test]
    fn a_binding_needs_a_node() {
        assert!(
            read(br#"{"target":{"name":""}}"#, Some("p"))
                .unwrap_err()
                .message()
                .contains("target.name: Required")
        );
        assert!(read(br#"{"target":{"kind":"Pod","name":"x"}}"#, Some("p")).is_err());
        assert!(read(br#"{"target":{"name":"n"},"metadata":{"name":"q"}}"#, Some("p")).is_err());
    }
}
