//! Nodes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSystemInfo, Taint};
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::pod_spec::taint_effect;
use super::table::{self, AGE, NAME, NONE, UNKNOWN, text_column};
use super::text::{drop_empty, drop_false, entries, list, text};
use super::{format, resources};
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// The rules of nodes.
pub(super) struct Nodes;

impl Kind for Nodes {
    type Object = Node;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster("", "v1", "Node", "nodes")
            .short(["no"])
            .status()
            .stored_at("minions")
    }

    fn default(node: &mut Node) {
        let spec = node.spec.get_or_insert_default();
        drop_empty(&mut spec.pod_cidr);
        drop_empty(&mut spec.provider_id);
        drop_false(&mut spec.unschedulable);
        // The singular field is the first of the plural one, whichever of the two was given.
        match (&spec.pod_cidr, list(&spec.pod_cidrs).first()) {
            (Some(one), None) => spec.pod_cidrs = Some(vec![one.clone()]),
            (None, Some(first)) => spec.pod_cidr = Some(first.clone()),
            _ => {}
        }
        let Some(status) = &mut node.status else { return };
        resources::normalise_list(&mut status.capacity);
        resources::normalise_list(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn prepare_for_update(new: &mut Node, old: &Node) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut Node, old: &Node) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(node: &Node) -> ErrorList {
        Check::run(|check| {
            taints(check, node);
            amounts(check, node);
            cidrs(check, node, &Path::new("spec").child("podCIDRs"));
        })
    }

    fn validate_update(new: &Node, old: &Node) -> ErrorList {
        Check::run(|check| {
            amounts(check, new);
            addresses(check, new);
            unchanged(check, new, old);
            taints(check, new);
        })
    }

    fn validate_status_update(new: &Node, old: &Node) -> ErrorList {
        Self::validate_update(new, old)
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            text_column("Status", "Whether the node is ready and takes new pods."),
            text_column("Roles", "The roles that the node's labels tell."),
            AGE,
            text_column("Version", "The version of the node agent."),
            text_column("Internal-IP", "The address inside the cluster.").wide(),
            text_column("External-IP", "The address outside the cluster.").wide(),
            text_column("OS-Image", "The operating system.").wide(),
            text_column("Kernel-Version", "The version of the kernel.").wide(),
            text_column("Container-Runtime", "What runs the containers, with its version.").wide(),
        ];
        COLUMNS
    }

    fn cells(node: &Node, now: Timestamp) -> Vec<Value> {
        let unknown = NodeSystemInfo::default();
        let info = node
            .status
            .as_ref()
            .and_then(|status| status.node_info.as_ref())
            .unwrap_or(&unknown);
        let known = |value: &str| Value::from(if value.is_empty() { UNKNOWN } else { value });
        vec![
            table::name(&node.metadata),
            status(node).into(),
            roles(node).into(),
            table::age(&node.metadata, now),
            info.kubelet_version.clone().into(),
            address(node, "InternalIP").into(),
            address(node, "ExternalIP").into(),
            known(&info.os_image),
            known(&info.kernel_version),
            known(&info.container_runtime_version),
        ]
    }

    fn selectable_fields(node: &Node) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", is_unschedulable(node).to_string())]
    }
}

fn taints(check: &mut Check, node: &Node) {
    // Upstream reports taints below metadata.
    let path = Path::new("metadata").child("taints");
    let taints = node.spec.as_ref().map_or(&[][..], |spec| list(&spec.taints));
    for (i, taint) in taints.iter().enumerate() {
        let at = path.index(i);
        check.faults(&at.child("key"), &taint.key, format::qualified_name(&taint.key));
        let faults = format::label_value(text(&taint.value));
        if !faults.is_empty() {
            check.invalid(&at.child("value"), text(&taint.value), faults.join(";"));
        }
        taint_effect(check, &taint.effect, &at.child("effect"));
        let doubles = |other: &Taint| other.key == taint.key && other.effect == taint.effect;
        if taints[..i].iter().any(doubles) {
            check.duplicate(&at, taint);
        }
    }
}

fn amounts(check: &mut Check, node: &Node) {
    let Some(status) = &node.status else { return };
    for (field, amounts) in [
        ("capacity", &status.capacity),
        ("allocatable", &status.allocatable),
    ] {
        for (name, amount) in entries(amounts) {
            resources::quantity(
                check,
                name,
                amount,
                &Path::new("status").child(field).child(name.clone()),
            );
        }
    }
}

fn cidrs(check: &mut Check, node: &Node, path: &Path) {
    let cidrs = node.spec.as_ref().map_or(&[][..], |spec| list(&spec.pod_cidrs));
    for (i, cidr) in cidrs.iter().enumerate() {
        check.cidr(&path.index(i), cidr);
        if cidrs[..i].contains(cidr) {
            check.duplicate(&path.index(i), cidr);
        }
    }
    let families: BTreeSet<bool> = cidrs.iter().map(|cidr| cidr.contains(':')).collect();
    if cidrs.len() > 1 && (families.len() < 2 || cidrs.len() > 2) {
        check.invalid(
            path,
            cidrs,
            "may specify no more than one CIDR for each IP family",
        );
    }
}

fn addresses(check: &mut Check, node: &Node) {
    let addresses = node
        .status
        .as_ref()
        .map_or(&[][..], |status| list(&status.addresses));
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) {
            check.duplicate(&Path::new("status").child("addresses").index(i), address);
        }
    }
}

/// Given once, the pods' network and the provider's id stay.
fn unchanged(check: &mut Check, new: &Node, old: &Node) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    let path = Path::new("spec");
    if !list(&old.pod_cidrs).is_empty() && list(&old.pod_cidrs) != list(&new.pod_cidrs) {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        check.forbidden(&path.child("podCIDRs"), why);
    }
    if !text(&old.provider_id).is_empty() && text(&old.provider_id) != text(&new.provider_id) {
        let why = "node updates may not change providerID except from \"\" to valid";
        check.forbidden(&path.child("providerID"), why);
    }
    if text(&old.external_id) != text(&new.external_id) {
        check.forbidden(&path.child("externalID"), "may not be updated");
    }
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false)
}

fn status(node: &Node) -> String {
    let conditions = node
        .status
        .as_ref()
        .map_or(&[][..], |status| list(&status.conditions));
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let status = match ready {
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if is_unschedulable(node) {
        format!("{status},SchedulingDisabled")
    } else {
        status.to_owned()
    }
}

fn roles(node: &Node) -> String {
    let mut roles = BTreeSet::new();
    for (label, value) in entries(&node.metadata.labels) {
        if let Some(role) = label
            .strip_prefix("node-role.kubernetes.io/")
            .filter(|role| !role.is_empty())
        {
            roles.insert(role);
        } else if label == "kubernetes.io/role" && !value.is_empty() {
            roles.insert(value);
        }
    }
    if roles.is_empty() {
        NONE.to_owned()
    } else {
        roles.into_iter().collect::<Vec<_>>().join(",")
    }
}

fn address(node: &Node, sort: &str) -> String {
    let addresses = node
        .status
        .as_ref()
        .map_or(&[][..], |status| list(&status.addresses));
    addresses
        .iter()
        .find(|address| address.type_ == sort)
        .map_or(NONE, |address| &address.address)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(json: Value) -> Node {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_table_shows_roles_readiness_and_versions() {
        let node = node(json!({
            "metadata": {"name": "n1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.1",
                    "containerRuntimeVersion": "orch://0.1.0"},
            },
        }));
        let cells = Nodes::cells(&node, "2026-01-01T01:00:00Z".parse().unwrap());
        assert_eq!(
            Value::from(cells),
            json!([
                "n1",
                "Ready,SchedulingDisabled",
                "control-plane,worker",
                "60m",
                "v1.37.0",
                "10.0.0.1",
                "<none>",
                "Debian",
                "6.1",
                "orch://0.1.0"
            ])
        );
    }

    #[test]
    fn pod_networks_stay_once_given() {
        let mut old = node(json!({"spec": {"podCIDR": "10.1.0.0/24"}}));
        Nodes::default(&mut old);
        assert_eq!(list(&old.spec.as_ref().unwrap().pod_cidrs), ["10.1.0.0/24"]);
        let mut new = node(json!({"spec": {"podCIDR": "10.2.0.0/24"}}));
        Nodes::default(&mut new);
        assert_eq!(
            Nodes::validate_update(&new, &old).to_string(),
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"
        );
    }

    #[test]
    fn taints_are_unique_by_key_and_effect() {
        let node = node(json!({"spec": {"taints": [
            {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoSchedule"},
        ]}}));
        let errors = Nodes::validate(&node).to_string();
        assert!(
            errors.starts_with("metadata.taints[2]: Duplicate value"),
            "{errors}"
        );
    }
}
