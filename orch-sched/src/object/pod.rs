use super::affinity::PodAffinity;
use super::requests::Requests;
use super::spread::SpreadConstraint;
use super::volume::{Present, SlimVolume};
use super::{slim_metadata, stands_for};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A Pod as the scheduler decodes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlimPod {
    /// Standard metadata, without managed fields.
    #[serde(default, deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    /// The fields of `spec` that placement reads.
    #[serde(default)]
    pub spec: SlimPodSpec,
    /// The fields of `status` that placement reads.
    #[serde(default)]
    pub status: SlimPodStatus,
}

/// What placement reads of a Pod's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SlimPodSpec {
    /// The node the pod is bound to.
    pub node_name: Option<String>,
    /// Which scheduler places the pod.
    pub scheduler_name: Option<String>,
    /// Gates that hold the pod back.
    pub scheduling_gates: Option<Vec<core::PodSchedulingGate>>,
    /// Higher goes first.
    pub priority: Option<i32>,
    /// `Never` for a pod that displaces nobody.
    pub preemption_policy: Option<String>,
    /// Labels that a node must carry.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Node and pod affinity.
    pub affinity: Option<core::Affinity>,
    /// Taints that the pod accepts.
    pub tolerations: Option<Vec<core::Toleration>>,
    /// How the pod's like are to be spread.
    pub topology_spread_constraints: Option<Vec<core::TopologySpreadConstraint>>,
    /// The volumes, by the sort of their source.
    pub volumes: Option<Vec<SlimVolume>>,
    /// Claims of devices.
    pub resource_claims: Option<Vec<Present>>,
    /// The group that the pod is to be placed with.
    pub scheduling_group: Option<Present>,
    /// What the pod costs beyond its containers.
    pub overhead: Option<BTreeMap<String, Quantity>>,
    /// Resources of the pod as a whole.
    pub resources: Option<core::ResourceRequirements>,
    /// Containers.
    pub containers: Vec<SlimContainer>,
    /// Init containers, sidecars among them.
    pub init_containers: Option<Vec<SlimContainer>>,
}

/// What placement reads of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SlimContainer {
    /// The container's name.
    pub name: String,
    /// Its requests.
    pub resources: Option<core::ResourceRequirements>,
    /// Its ports, of which host ports matter.
    pub ports: Option<Vec<core::ContainerPort>>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
}

/// What placement reads of a Pod's `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SlimPodStatus {
    /// `Succeeded` and `Failed` pods hold nothing any more.
    pub phase: Option<String>,
    /// The node on which room is being made for the pod.
    pub nominated_node_name: Option<String>,
    /// Conditions, for `PodScheduled` and `PodResizePending`.
    pub conditions: Option<Vec<core::PodCondition>>,
    /// What each container holds while it is being resized.
    pub container_statuses: Option<Vec<SlimContainerStatus>>,
    /// The same for init containers.
    pub init_container_statuses: Option<Vec<SlimContainerStatus>>,
}

/// What placement reads of a container's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SlimContainerStatus {
    /// The container's name.
    pub name: String,
    /// What the node agent admitted.
    pub allocated_resources: Option<BTreeMap<String, Quantity>>,
    /// What is in force.
    pub resources: Option<core::ResourceRequirements>,
}

stands_for!(SlimPod, core::Pod, k8s_openapi::NamespaceResourceScope);

impl From<&core::Pod> for SlimPod {
    fn from(pod: &core::Pod) -> Self {
        Self {
            metadata: pod.metadata.clone(),
            spec: pod.spec.as_ref().map(SlimPodSpec::from).unwrap_or_default(),
            status: pod.status.as_ref().map(SlimPodStatus::from).unwrap_or_default(),
        }
    }
}

impl From<&core::PodSpec> for SlimPodSpec {
    fn from(spec: &core::PodSpec) -> Self {
        Self {
            node_name: spec.node_name.clone(),
            scheduler_name: spec.scheduler_name.clone(),
            scheduling_gates: spec.scheduling_gates.clone(),
            priority: spec.priority,
            preemption_policy: spec.preemption_policy.clone(),
            node_selector: spec.node_selector.clone(),
            affinity: spec.affinity.clone(),
            tolerations: spec.tolerations.clone(),
            topology_spread_constraints: spec.topology_spread_constraints.clone(),
            volumes: spec
                .volumes
                .as_ref()
                .map(|all| all.iter().map(SlimVolume::from).collect()),
            resource_claims: spec
                .resource_claims
                .as_ref()
                .map(|all| vec![Present {}; all.len()]),
            scheduling_group: spec.scheduling_group.as_ref().map(|_| Present {}),
            overhead: spec.overhead.clone(),
            resources: spec.resources.clone(),
            containers: spec.containers.iter().map(SlimContainer::from).collect(),
            init_containers: spec
                .init_containers
                .as_ref()
                .map(|all| all.iter().map(SlimContainer::from).collect()),
        }
    }
}

impl From<&core::Container> for SlimContainer {
    fn from(container: &core::Container) -> Self {
        Self {
            name: container.name.clone(),
            resources: container.resources.clone(),
            ports: container.ports.clone(),
            restart_policy: container.restart_policy.clone(),
        }
    }
}

impl From<&core::PodStatus> for SlimPodStatus {
    fn from(status: &core::PodStatus) -> Self {
        let slim = |all: &Vec<core::ContainerStatus>| all.iter().map(SlimContainerStatus::from).collect();
        Self {
            phase: status.phase.clone(),
            nominated_node_name: status.nominated_node_name.clone(),
            conditions: status.conditions.clone(),
            container_statuses: status.container_statuses.as_ref().map(slim),
            init_container_statuses: status.init_container_statuses.as_ref().map(slim),
        }
    }
}

impl From<&core::ContainerStatus> for SlimContainerStatus {
    fn from(status: &core::ContainerStatus) -> Self {
        Self {
            name: status.name.clone(),
            allocated_resources: status.allocated_resources.clone(),
            resources: status.resources.clone(),
        }
    }
}

/// Identifies one pod over its life: its UID, or `namespace/name` for a pod that has none (simulations).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey(Arc<str>);

impl PodKey {
    /// The key of that text.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    /// The key of a pod.
    #[must_use]
    pub fn of(pod: &SlimPod) -> Self {
        let meta = &pod.metadata;
        match meta.uid.as_deref() {
            Some(uid) if !uid.is_empty() => Self::new(uid),
            _ => {
                let part = |text: &Option<String>| text.clone().unwrap_or_default();
                Self::new(&format!("{}/{}", part(&meta.namespace), part(&meta.name)))
            }
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A port that a pod takes on its node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The address it listens on; `0.0.0.0` stands for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port number.
    pub port: i32,
}

impl HostPort {
    /// Upstream's stand-in for every address.
    pub const ANY_ADDRESS: &'static str = "0.0.0.0";

    /// True when the two cannot be held on one node at the same time.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == Self::ANY_ADDRESS || other.ip == Self::ANY_ADDRESS)
    }

    fn of(port: &core::ContainerPort) -> Option<Self> {
        let number = port.host_port.filter(|&p| p > 0)?;
        let or = |value: &Option<String>, default: &str| {
            value
                .as_deref()
                .filter(|v| !v.is_empty())
                .unwrap_or(default)
                .to_owned()
        };
        Some(Self {
            ip: or(&port.host_ip, Self::ANY_ADDRESS),
            protocol: or(&port.protocol, "TCP"),
            port: number,
        })
    }
}

/// A Pod in the form that placement computes with.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Identity over the pod's life.
    pub key: PodKey,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`, empty in simulations.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.schedulerName`, `default-scheduler` when unset.
    pub scheduler_name: String,
    /// `spec.nodeName`, if bound.
    pub node_name: Option<String>,
    /// `status.nominatedNodeName`, if any.
    pub nominated_node: Option<String>,
    /// `spec.priority`, 0 when unset.
    pub priority: i32,
    /// `spec.preemptionPolicy` is `Never`.
    pub never_preempts: bool,
    /// A deletion timestamp is set.
    pub terminating: bool,
    /// Phase is `Succeeded` or `Failed`.
    pub finished: bool,
    /// `status.startTime`'s stand-in: `metadata.creationTimestamp` as RFC 3339 text.
    pub created: Option<String>,
    /// `spec.schedulingGates`, by name.
    pub gates: Vec<String>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `spec.affinity.nodeAffinity`.
    pub node_affinity: Option<core::NodeAffinity>,
    /// `spec.affinity.podAffinity` and `podAntiAffinity`, if either asks for anything.
    pub pod_affinity: Option<Box<PodAffinity>>,
    /// `spec.topologySpreadConstraints`.
    pub spread: Vec<SpreadConstraint>,
    /// Sorts of volumes that the pod has and whose nodes this scheduler cannot tell, by field name.
    pub bound_volumes: Vec<&'static str>,
    /// `spec.resourceClaims` is not empty.
    pub claims_devices: bool,
    /// `spec.schedulingGroup` is set.
    pub in_group: bool,
    /// `spec.tolerations`.
    pub tolerations: Vec<core::Toleration>,
    /// Host ports of all containers and sidecars.
    pub host_ports: Vec<HostPort>,
    /// What the pod takes of a node.
    pub requests: Requests,
    /// The `PodScheduled` condition as it stands in the API, if any.
    pub scheduled_condition: Option<core::PodCondition>,
}

impl PodInfo {
    /// `namespace/name`, as messages name a pod.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// True when both would be treated alike by every policy: nothing that placement reads differs.
    #[must_use]
    pub fn same_placement(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.annotations == other.annotations
            && self.gates == other.gates
            && self.priority == other.priority
            && self.never_preempts == other.never_preempts
            && self.node_selector == other.node_selector
            && self.node_affinity == other.node_affinity
            && self.pod_affinity == other.pod_affinity
            && self.spread == other.spread
            && self.bound_volumes == other.bound_volumes
            && (self.claims_devices, self.in_group) == (other.claims_devices, other.in_group)
            && self.tolerations == other.tolerations
            && self.host_ports == other.host_ports
            && self.requests == other.requests
    }
}

impl From<&SlimPod> for PodInfo {
    fn from(pod: &SlimPod) -> Self {
        let (meta, spec, status) = (&pod.metadata, &pod.spec, &pod.status);
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let uid = meta.uid.clone().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let constraints = spec.topology_spread_constraints.iter().flatten();
        Self {
            key: PodKey::of(pod),
            name,
            uid,
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation,
            annotations: meta.annotations.clone().unwrap_or_default(),
            scheduler_name: non_empty(&spec.scheduler_name).unwrap_or_else(|| "default-scheduler".to_owned()),
            node_name: non_empty(&spec.node_name),
            nominated_node: non_empty(&status.nominated_node_name),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            terminating: meta.deletion_timestamp.is_some(),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            created: meta.creation_timestamp.as_ref().map(|t| t.0.to_string()),
            gates: spec
                .scheduling_gates
                .iter()
                .flatten()
                .map(|gate| gate.name.clone())
                .collect(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            node_affinity: spec.affinity.as_ref().and_then(|a| a.node_affinity.clone()),
            pod_affinity: spec
                .affinity
                .as_ref()
                .and_then(|affinity| PodAffinity::of(affinity, &namespace, &labels))
                .map(Box::new),
            spread: constraints
                .map(|one| SpreadConstraint::of(one, &labels))
                .collect(),
            bound_volumes: SlimVolume::bound_sorts(spec.volumes.as_deref().unwrap_or_default()),
            claims_devices: spec.resource_claims.as_ref().is_some_and(|all| !all.is_empty()),
            in_group: spec.scheduling_group.is_some(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            host_ports: host_ports(spec),
            requests: Requests::of(pod),
            scheduled_condition: status
                .conditions
                .iter()
                .flatten()
                .find(|c| c.type_ == "PodScheduled")
                .cloned(),
            namespace,
            labels,
        }
    }
}

impl From<&core::Pod> for PodInfo {
    fn from(pod: &core::Pod) -> Self {
        Self::from(&SlimPod::from(pod))
    }
}

/// Ports of containers and of sidecars: plain init containers are gone before the pod serves.
fn host_ports(spec: &SlimPodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(HostPort::of)
        .collect()
}

fn non_empty(value: &Option<String>) -> Option<String> {
    value.clone().filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: serde_json::Value) -> SlimPod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_slim_pod_decodes_what_the_typed_pod_decodes() {
        let json = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {}}}],
                "labels": {"l": "1"}, "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"priority": 7, "nodeSelector": {"disk": "ssd"}, "schedulingGates": [{"name": "g"}],
                "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "250m"}},
                    "ports": [{"containerPort": 80, "hostPort": 8080}]}]},
            "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}
        });
        let typed: core::Pod = serde_json::from_value(json.clone()).unwrap();
        let (from_wire, from_typed) = (PodInfo::from(&decode(json)), PodInfo::from(&typed));
        assert!(from_wire.same_placement(&from_typed));
        assert_eq!(from_wire.key, PodKey::new("u"));
        assert_eq!(from_wire.requests.milli_cpu, 250);
        assert_eq!(
            from_wire.host_ports,
            [HostPort {
                ip: "0.0.0.0".into(),
                protocol: "TCP".into(),
                port: 8080
            }]
        );
        assert_eq!(from_wire.created.as_deref(), Some("2026-01-02T03:04:05Z"));
    }

    #[test]
    fn ports_of_plain_init_containers_are_not_held() {
        let port = serde_json::json!([{"containerPort": 1, "hostPort": 1}]);
        let pod = decode(
            serde_json::json!({"spec": {"containers": [{"name": "c"}], "initContainers": [
            {"name": "plain", "ports": port}, {"name": "sidecar", "ports": [{"containerPort": 2, "hostPort": 2}], "restartPolicy": "Always"}]}}),
        );
        let ports: Vec<i32> = PodInfo::from(&pod).host_ports.iter().map(|p| p.port).collect();
        assert_eq!(ports, [2]);
    }

    #[test]
    fn ports_conflict_by_number_protocol_and_overlapping_address() {
        let port = |ip: &str, protocol: &str, port| HostPort {
            ip: ip.into(),
            protocol: protocol.into(),
            port,
        };
        assert!(port("0.0.0.0", "TCP", 80).conflicts_with(&port("127.0.0.1", "TCP", 80)));
        assert!(port("127.0.0.1", "TCP", 80).conflicts_with(&port("127.0.0.1", "TCP", 80)));
        assert!(!port("127.0.0.1", "TCP", 80).conflicts_with(&port("127.0.0.2", "TCP", 80)));
        assert!(!port("0.0.0.0", "TCP", 80).conflicts_with(&port("0.0.0.0", "UDP", 80)));
        assert!(!port("0.0.0.0", "TCP", 80).conflicts_with(&port("0.0.0.0", "TCP", 81)));
    }
}
