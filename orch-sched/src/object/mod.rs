//! The parts of Pods and Nodes that placement looks at.
//!
//! [`SlimPod`] and [`SlimNode`] are what the scheduler decodes from the wire: only the fields it uses. [`PodInfo`] and
//! [`NodeInfo`] are what it computes with: requests as integers, ports and taints picked out, once per object.

mod affinity;
mod namespace;
mod node;
mod pod;
mod requests;
mod selector;
mod spread;
mod volume;

pub use affinity::{AffinityTerm, PodAffinity, WeightedAffinityTerm};
pub use namespace::SlimNamespace;
pub use node::{NodeInfo, SlimNode, SlimNodeSpec, SlimNodeStatus, Taint, TaintEffect};
pub use pod::{
    HostPort, PodInfo, PodKey, SlimContainer, SlimContainerStatus, SlimPod, SlimPodSpec, SlimPodStatus,
};
pub use requests::{DEFAULT_MEMORY_REQUEST, DEFAULT_MILLI_CPU_REQUEST, Requests, is_scalar_resource};
pub use spread::{Spread, SpreadConstraint};
pub use volume::{Present, SlimVolume};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Decodes metadata without `managedFields`, `ownerReferences` and `finalizers`: on most objects they outweigh the rest.
fn slim_metadata<'de, D: Deserializer<'de>>(decoder: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let slim = Slim::deserialize(decoder)?;
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        generation: slim.generation,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        labels: slim.labels,
        annotations: slim.annotations,
        ..ObjectMeta::default()
    })
}

/// Lets a slim struct stand for the kind whose fields it decodes.
macro_rules! stands_for {
    ($slim:ty, $kind:ty, $scope:ty) => {
        impl kube::Resource for $slim {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::kind(&())
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::group(&())
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::version(&())
            }
            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::plural(&())
            }
            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
use stands_for;
