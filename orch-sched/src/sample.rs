//! Small clusters in a few words, for tests, benches and simulations.

use crate::object::{NodeInfo, PodInfo, SlimContainer, SlimNode, SlimPod};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// A node with 4 cores, 32 GiB of memory, 100 GiB of ephemeral storage and room for 110 pods.
pub fn node(name: &str) -> NodeBuilder {
    let mut node = SlimNode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..SlimNode::default()
    };
    let amounts = [
        ("cpu", "4"),
        ("memory", "32Gi"),
        ("ephemeral-storage", "100Gi"),
        ("pods", "110"),
    ];
    node.status.allocatable = Some(amounts.map(|(name, amount)| quantity(name, amount)).into());
    NodeBuilder(node)
}

/// A pod in namespace `default` with one container that requests nothing.
pub fn pod(name: &str) -> PodBuilder {
    let mut pod = SlimPod::default();
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.namespace = Some("default".to_owned());
    pod.spec.containers.push(SlimContainer {
        name: "main".to_owned(),
        ..SlimContainer::default()
    });
    PodBuilder(pod)
}

fn quantity(name: &str, amount: &str) -> (String, Quantity) {
    (name.to_owned(), Quantity(amount.to_owned()))
}

/// Builds a node.
#[derive(Clone, Debug)]
#[must_use]
pub struct NodeBuilder(SlimNode);

impl NodeBuilder {
    /// Sets an allocatable amount.
    pub fn allocatable(mut self, resource: &str, amount: &str) -> Self {
        self.0
            .status
            .allocatable
            .get_or_insert_default()
            .extend([quantity(resource, amount)]);
        self
    }

    /// Sets allocatable processor time, in thousandths of a core.
    pub fn cpu(self, milli: i64) -> Self {
        self.allocatable("cpu", &format!("{milli}m"))
    }

    /// Sets allocatable memory, in bytes.
    pub fn memory(self, bytes: i64) -> Self {
        self.allocatable("memory", &bytes.to_string())
    }

    /// Sets how many pods the node takes.
    pub fn pods(self, count: i64) -> Self {
        self.allocatable("pods", &count.to_string())
    }

    /// Offers so many of the extended resource `example.com/gpu`.
    pub fn gpu(self, count: i64) -> Self {
        self.allocatable("example.com/gpu", &count.to_string())
    }

    /// Sets a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .labels
            .get_or_insert_default()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a taint.
    pub fn taint(mut self, key: &str, value: &str, effect: &str) -> Self {
        let taint = core::Taint {
            key: key.to_owned(),
            value: Some(value.to_owned()),
            effect: effect.to_owned(),
            ..core::Taint::default()
        };
        self.0.spec.taints.get_or_insert_default().push(taint);
        self
    }

    /// Cordons the node.
    pub fn unschedulable(mut self) -> Self {
        self.0.spec.unschedulable = Some(true);
        self
    }

    /// The node in the form that placement computes with.
    #[must_use]
    pub fn build(&self) -> NodeInfo {
        NodeInfo::from(&self.0)
    }
}

/// Builds a pod.
#[derive(Clone, Debug)]
#[must_use]
pub struct PodBuilder(SlimPod);

impl PodBuilder {
    /// Sets the namespace.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.0.metadata.namespace = Some(namespace.to_owned());
        self
    }

    /// Sets the UID.
    pub fn uid(mut self, uid: &str) -> Self {
        self.0.metadata.uid = Some(uid.to_owned());
        self
    }

    /// Sets a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .labels
            .get_or_insert_default()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets an annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Lets the container request an amount.
    pub fn request(mut self, resource: &str, amount: &str) -> Self {
        let resources = self.0.spec.containers[0].resources.get_or_insert_default();
        resources
            .requests
            .get_or_insert_default()
            .extend([quantity(resource, amount)]);
        self
    }

    /// Lets the container request processor time, in thousandths of a core.
    pub fn cpu(self, milli: i64) -> Self {
        self.request("cpu", &format!("{milli}m"))
    }

    /// Lets the container request memory, in bytes.
    pub fn memory(self, bytes: i64) -> Self {
        self.request("memory", &bytes.to_string())
    }

    /// Lets the container request so many of the extended resource `example.com/gpu`.
    pub fn gpu(self, count: i64) -> Self {
        self.request("example.com/gpu", &count.to_string())
    }

    /// Takes a host port; an empty address stands for all.
    pub fn host_port(mut self, address: &str, protocol: &str, port: i32) -> Self {
        let port = core::ContainerPort {
            container_port: port,
            host_port: Some(port),
            host_ip: Some(address.to_owned()),
            protocol: Some(protocol.to_owned()),
            ..core::ContainerPort::default()
        };
        self.0.spec.containers[0].ports.get_or_insert_default().push(port);
        self
    }

    /// Adds a scheduling gate.
    pub fn gate(mut self, name: &str) -> Self {
        self.0
            .spec
            .scheduling_gates
            .get_or_insert_default()
            .push(core::PodSchedulingGate {
                name: name.to_owned(),
            });
        self
    }

    /// Sets the priority.
    pub fn priority(mut self, priority: i32) -> Self {
        self.0.spec.priority = Some(priority);
        self
    }

    /// Names the scheduler.
    pub fn scheduler(mut self, name: &str) -> Self {
        self.0.spec.scheduler_name = Some(name.to_owned());
        self
    }

    /// Binds the pod to a node, or asks for that node with no scheduler between.
    pub fn on(mut self, node: &str) -> Self {
        self.0.spec.node_name = Some(node.to_owned());
        self
    }

    /// Nominates the pod to a node.
    pub fn nominated(mut self, node: &str) -> Self {
        self.0.status.nominated_node_name = Some(node.to_owned());
        self
    }

    /// Requires a node label.
    pub fn node_selector(mut self, key: &str, value: &str) -> Self {
        self.0
            .spec
            .node_selector
            .get_or_insert_with(BTreeMap::new)
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Requires one of the terms.
    pub fn required_node_affinity(mut self, terms: Vec<core::NodeSelectorTerm>) -> Self {
        self.node_affinity()
            .required_during_scheduling_ignored_during_execution = Some(core::NodeSelector {
            node_selector_terms: terms,
        });
        self
    }

    /// Prefers nodes that the term matches.
    pub fn preferred_node_affinity(mut self, weight: i32, preference: core::NodeSelectorTerm) -> Self {
        let preferred = &mut self
            .node_affinity()
            .preferred_during_scheduling_ignored_during_execution
            .get_or_insert_default();
        preferred.push(core::PreferredSchedulingTerm { weight, preference });
        self
    }

    /// Requires pods to be near.
    pub fn pod_affinity(mut self, term: core::PodAffinityTerm) -> Self {
        let near = self.affinity().pod_affinity.get_or_insert_default();
        let terms = &mut near.required_during_scheduling_ignored_during_execution;
        terms.get_or_insert_default().push(term);
        self
    }

    /// Requires pods not to be near.
    pub fn pod_anti_affinity(mut self, term: core::PodAffinityTerm) -> Self {
        let far = self.affinity().pod_anti_affinity.get_or_insert_default();
        let terms = &mut far.required_during_scheduling_ignored_during_execution;
        terms.get_or_insert_default().push(term);
        self
    }

    /// Prefers pods to be near.
    pub fn preferred_pod_affinity(mut self, weight: i32, term: core::PodAffinityTerm) -> Self {
        let near = self.affinity().pod_affinity.get_or_insert_default();
        let terms = &mut near.preferred_during_scheduling_ignored_during_execution;
        terms.get_or_insert_default().push(weighted(weight, term));
        self
    }

    /// Prefers pods not to be near.
    pub fn preferred_pod_anti_affinity(mut self, weight: i32, term: core::PodAffinityTerm) -> Self {
        let far = self.affinity().pod_anti_affinity.get_or_insert_default();
        let terms = &mut far.preferred_during_scheduling_ignored_during_execution;
        terms.get_or_insert_default().push(weighted(weight, term));
        self
    }

    /// Adds a topology spread constraint.
    pub fn spread(mut self, constraint: core::TopologySpreadConstraint) -> Self {
        let constraints = &mut self.0.spec.topology_spread_constraints;
        constraints.get_or_insert_default().push(constraint);
        self
    }

    /// Marks the pod as being deleted.
    pub fn terminating(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        self
    }

    /// Tolerates taints; empty texts stand for unset fields.
    pub fn toleration(mut self, key: &str, operator: &str, value: &str, effect: &str) -> Self {
        let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let toleration = core::Toleration {
            key: set(key),
            operator: set(operator),
            value: set(value),
            effect: set(effect),
            ..core::Toleration::default()
        };
        self.0.spec.tolerations.get_or_insert_default().push(toleration);
        self
    }

    /// The pod in the form that placement computes with.
    #[must_use]
    pub fn build(&self) -> PodInfo {
        PodInfo::from(&self.0)
    }

    fn affinity(&mut self) -> &mut core::Affinity {
        self.0.spec.affinity.get_or_insert_default()
    }

    fn node_affinity(&mut self) -> &mut core::NodeAffinity {
        self.affinity().node_affinity.get_or_insert_default()
    }
}

fn weighted(weight: i32, pod_affinity_term: core::PodAffinityTerm) -> core::WeightedPodAffinityTerm {
    core::WeightedPodAffinityTerm {
        weight,
        pod_affinity_term,
    }
}

/// A label selector of equalities.
#[must_use]
pub fn selector(labels: &[(&str, &str)]) -> LabelSelector {
    let owned = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    LabelSelector {
        match_labels: Some(owned.collect()),
        ..LabelSelector::default()
    }
}

/// A pod affinity term about pods of the same namespace with those labels.
#[must_use]
pub fn pod_term(topology_key: &str, labels: &[(&str, &str)]) -> core::PodAffinityTerm {
    core::PodAffinityTerm {
        label_selector: Some(selector(labels)),
        topology_key: topology_key.to_owned(),
        ..core::PodAffinityTerm::default()
    }
}

/// A topology spread constraint on pods with those labels. `when` is `DoNotSchedule` or `ScheduleAnyway`.
#[must_use]
pub fn spread(
    max_skew: i32,
    topology_key: &str,
    when: &str,
    labels: &[(&str, &str)],
) -> core::TopologySpreadConstraint {
    core::TopologySpreadConstraint {
        label_selector: Some(selector(labels)),
        max_skew,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: when.to_owned(),
        ..core::TopologySpreadConstraint::default()
    }
}

/// A node selector term of label expressions.
#[must_use]
pub fn term(expressions: &[(&str, &str, &[&str])]) -> core::NodeSelectorTerm {
    core::NodeSelectorTerm {
        match_expressions: Some(requirements(expressions)),
        ..core::NodeSelectorTerm::default()
    }
}

/// A node selector term of field expressions.
#[must_use]
pub fn field_term(expressions: &[(&str, &str, &[&str])]) -> core::NodeSelectorTerm {
    core::NodeSelectorTerm {
        match_fields: Some(requirements(expressions)),
        ..core::NodeSelectorTerm::default()
    }
}

fn requirements(expressions: &[(&str, &str, &[&str])]) -> Vec<core::NodeSelectorRequirement> {
    let requirement = |(key, operator, values): &(&str, &str, &[&str])| core::NodeSelectorRequirement {
        key: (*key).to_owned(),
        operator: (*operator).to_owned(),
        values: (!values.is_empty()).then(|| values.iter().map(|v| (*v).to_owned()).collect()),
    };
    expressions.iter().map(requirement).collect()
}
