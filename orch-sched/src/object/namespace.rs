use super::{slim_metadata, stands_for};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// A Namespace as the scheduler decodes it: its labels, which affinity terms select by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlimNamespace {
    /// Standard metadata, without managed fields.
    #[serde(default, deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
}

stands_for!(SlimNamespace, core::Namespace, k8s_openapi::ClusterResourceScope);
