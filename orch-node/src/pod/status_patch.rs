//! The pod's status as a patch: what differs from what the API server has, and nothing of what others write.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::agent::shared::Shared;

pub(super) async fn patch_status(shared: &Shared, pod: &Pod, patch: &Value) -> Result<Pod, kube::Error> {
    let meta = &pod.metadata;
    let api = Api::<Pod>::namespaced(
        shared.client.clone(),
        meta.namespace.as_deref().unwrap_or_default(),
    );
    let name = meta.name.as_deref().unwrap_or_default();
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await
}

/// A strategic merge patch from the reported status to the wanted one; `None` when they agree.
///
/// The pod's UID goes with it, so that a later pod of the same name refuses it.
pub(super) fn patch_between(reported: &PodStatus, wanted: &PodStatus, uid: &str) -> Option<Value> {
    const MERGED: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];
    // What others write into the status.
    const FOREIGN: [&str; 4] = [
        "qosClass",
        "nominatedNodeName",
        "resize",
        "ephemeralContainerStatuses",
    ];
    let (Ok(Value::Object(reported)), Ok(Value::Object(wanted))) =
        (serde_json::to_value(reported), serde_json::to_value(wanted))
    else {
        return None;
    };
    let mut status = serde_json::Map::new();
    for (key, value) in &wanted {
        if FOREIGN.contains(&key.as_str()) || reported.get(key) == Some(value) {
            continue;
        }
        let value = match MERGED.iter().find(|(name, _)| name == key) {
            Some((_, by)) => merge_list(reported.get(key), value, by),
            None => value.clone(),
        };
        if value.as_array().is_none_or(|list| !list.is_empty()) {
            status.insert(key.clone(), value);
        }
    }
    for key in reported
        .keys()
        .filter(|key| ["podIP", "podIPs", "reason", "message"].contains(&key.as_str()))
    {
        if !wanted.contains_key(key) {
            status.insert(key.clone(), Value::Null);
        }
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

/// What to send for a list that the server merges by a key: entries that changed, and deletions.
fn merge_list(reported: Option<&Value>, wanted: &Value, by: &str) -> Value {
    let reported = reported
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
    let changed = wanted.iter().filter(|entry| !reported.contains(entry)).cloned();
    let gone = reported
        .iter()
        .filter(|entry| !wanted.iter().any(|other| other.get(by) == entry.get(by)));
    let gone = gone.map(|entry| json!({"$patch": "delete", by: entry.get(by)}));
    gone.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_hold_what_changed_and_leave_others_conditions_alone() {
        let status = |value: Value| -> PodStatus { serde_json::from_value(value).unwrap() };
        let condition = |type_: &str, holds: &str| json!({"type": type_, "status": holds});
        let reported = status(
            json!({"phase": "Pending", "qosClass": "Burstable", "podIPs": [{"ip": "10.0.0.1"}], "podIP": "10.0.0.1",
            "conditions": [condition("Gate", "True"), condition("Ready", "False")]}),
        );
        let wanted = status(
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}], "podIP": "10.0.0.2",
            "conditions": [condition("Gate", "True"), condition("Ready", "True")]}),
        );
        let patch = patch_between(&reported, &wanted, "u1").unwrap();
        let expected = json!({"metadata": {"uid": "u1"}, "status": {
            "phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"$patch": "delete", "ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
            "conditions": [condition("Ready", "True")],
        }});
        assert_eq!(patch, expected);
        assert_eq!(patch_between(&wanted, &wanted, "u1"), None);
    }
}
