//! What is allowed, but most likely not meant.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};

use super::check::Path;
use super::text::{entries, list};

/// Node labels that have a newer name.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
    ),
];

/// Warnings about a template.
pub(crate) fn of_template(template: &PodTemplateSpec, path: &Path) -> Vec<String> {
    template
        .spec
        .as_ref()
        .map_or_else(Vec::new, |spec| of_spec(spec, &path.child("spec")))
}

/// Warnings about a pod's spec.
pub(crate) fn of_spec(spec: &PodSpec, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (label, _) in entries(&spec.node_selector) {
        if let Some((old, new)) = OLD_LABELS.iter().find(|(old, _)| old == label) {
            let at = path.child("nodeSelector").key(*old);
            warnings.push(format!("{at}: deprecated since v1.14; use \"{new}\" instead"));
        }
    }
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        if list(&spec.host_aliases)[..i]
            .iter()
            .any(|other| other.ip == alias.ip)
        {
            let at = path.child("hostAliases").index(i).child("ip");
            warnings.push(format!("{at}: duplicate ip {:?}", alias.ip));
        }
    }
    for (i, volume) in list(&spec.volumes).iter().enumerate() {
        let at = path.child("volumes").index(i);
        if volume.git_repo.is_some() {
            let why = "deprecated in v1.11, and disabled by default in v1.33+";
            warnings.push(format!("{}: {why}", at.child("gitRepo")));
        }
    }
    let containers = [
        ("containers", spec.containers.as_slice()),
        ("initContainers", list(&spec.init_containers)),
    ];
    for (field, containers) in containers {
        for (i, container) in containers.iter().enumerate() {
            of_container(&mut warnings, container, &path.child(field).index(i));
        }
    }
    if spec
        .termination_grace_period_seconds
        .is_some_and(|seconds| seconds < 0)
    {
        let at = path.child("terminationGracePeriodSeconds");
        warnings.push(format!(
            "{at}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    warnings
}

fn of_container(warnings: &mut Vec<String>, container: &Container, path: &Path) {
    let mut names = BTreeSet::new();
    for (i, var) in list(&container.env).iter().enumerate() {
        if !names.insert(&var.name) {
            let at = path.child("env").index(i);
            warnings.push(format!(
                "{at}: hides previous definition of {:?}, which may be dropped when using apply",
                var.name
            ));
        }
    }
    let ports = list(&container.ports);
    for (i, port) in ports.iter().enumerate() {
        let same = |other: &&k8s_openapi::api::core::v1::ContainerPort| {
            other.container_port == port.container_port && other.protocol == port.protocol
        };
        if let Some(first) = ports[..i].iter().position(|other| same(&other)) {
            let list = path.child("ports");
            warnings.push(format!(
                "{}: duplicate port definition with {}",
                list.index(i),
                list.index(first)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn doubled_variables_and_ports_are_told() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [{
            "name": "a",
            "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
            "ports": [{"containerPort": 80}, {"containerPort": 80}],
        }]}))
        .unwrap();
        assert_eq!(
            of_spec(&spec, &Path::new("spec")),
            [
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            ]
        );
    }
}
