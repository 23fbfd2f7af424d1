use super::requests::{Amounts, is_scalar_resource};
use super::{slim_metadata, stands_for};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A Node as the scheduler decodes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlimNode {
    /// Standard metadata, without managed fields.
    #[serde(default, deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    /// The fields of `spec` that placement reads.
    #[serde(default)]
    pub spec: SlimNodeSpec,
    /// The fields of `status` that placement reads.
    #[serde(default)]
    pub status: SlimNodeStatus,
}

/// What placement reads of a Node's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SlimNodeSpec {
    /// True while the node is cordoned.
    pub unschedulable: Option<bool>,
    /// The node's taints.
    pub taints: Option<Vec<core::Taint>>,
}

/// What placement reads of a Node's `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SlimNodeStatus {
    /// What pods may request of the node in total.
    pub allocatable: Option<BTreeMap<String, Quantity>>,
}

stands_for!(SlimNode, core::Node, k8s_openapi::ClusterResourceScope);

impl From<&core::Node> for SlimNode {
    fn from(node: &core::Node) -> Self {
        let spec = node.spec.as_ref();
        Self {
            metadata: node.metadata.clone(),
            spec: SlimNodeSpec {
                unschedulable: spec.and_then(|s| s.unschedulable),
                taints: spec.and_then(|s| s.taints.clone()),
            },
            status: SlimNodeStatus {
                allocatable: node.status.as_ref().and_then(|s| s.allocatable.clone()),
            },
        }
    }
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods go elsewhere when they can.
    PreferNoSchedule,
    /// New pods stay away and running ones leave.
    NoExecute,
}

impl TaintEffect {
    /// The effect of that name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }

    /// The name as it stands in a Node.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// One taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Taint {
    /// The taint's key.
    pub key: String,
    /// The taint's value, empty when it has none.
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

impl Taint {
    /// True for the effects that keep new pods away.
    #[must_use]
    pub fn repels(&self) -> bool {
        matches!(self.effect, TaintEffect::NoSchedule | TaintEffect::NoExecute)
    }
}

/// A Node in the form that placement computes with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInfo {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `spec.taints`, those with a known effect.
    pub taints: Vec<Taint>,
    /// Allocatable processor time in thousandths of a core.
    pub milli_cpu: i64,
    /// Allocatable memory in bytes.
    pub memory: i64,
    /// Allocatable ephemeral storage in bytes.
    pub ephemeral_storage: i64,
    /// How many pods the node takes.
    pub pods: i64,
    /// Allocatable huge pages, extended and attachable resources, by name, sorted.
    pub scalar: Vec<(Arc<str>, i64)>,
}

impl NodeInfo {
    /// Allocatable amount of a resource: milli-cores for `cpu`, whole units for the rest; 0 when absent.
    #[must_use]
    pub fn allocatable(&self, resource: &str) -> i64 {
        match resource {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            _ => self
                .scalar
                .iter()
                .find(|(name, _)| &**name == resource)
                .map_or(0, |(_, amount)| *amount),
        }
    }
}

impl From<&SlimNode> for NodeInfo {
    fn from(node: &SlimNode) -> Self {
        let amounts = Amounts::of(node.status.allocatable.as_ref());
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            annotations: node.metadata.annotations.clone().unwrap_or_default(),
            unschedulable: node.spec.unschedulable.unwrap_or(false),
            taints: node.spec.taints.iter().flatten().filter_map(taint).collect(),
            milli_cpu: amounts.milli("cpu"),
            memory: amounts.whole("memory"),
            ephemeral_storage: amounts.whole("ephemeral-storage"),
            pods: amounts.whole("pods"),
            scalar: amounts
                .names()
                .filter(|n| is_scalar_resource(n))
                .map(|n| (n.into(), amounts.whole(n)))
                .collect(),
        }
    }
}

impl From<&core::Node> for NodeInfo {
    fn from(node: &core::Node) -> Self {
        Self::from(&SlimNode::from(node))
    }
}

fn taint(taint: &core::Taint) -> Option<Taint> {
    let effect = TaintEffect::parse(&taint.effect)?;
    Some(Taint {
        key: taint.key.clone(),
        value: taint.value.clone().unwrap_or_default(),
        effect,
    })
}
