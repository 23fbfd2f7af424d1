use k8s_openapi::api::core::v1 as core;
use serde::{Deserialize, Serialize};

/// Stands for an object that is there, whatever it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {}

/// Volumes that only some nodes can have, or only so many, by the sort of their source.
macro_rules! bound_volumes {
    ($($field:ident: $name:literal,)*) => {
        /// What the scheduler decodes of a volume: whether its source is of a sort that ties the pod to some nodes.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct SlimVolume {
            $(
                #[doc = concat!("The source is `", $name, "`.")]
                pub $field: Option<Present>,
            )*
        }

        impl From<&core::Volume> for SlimVolume {
            fn from(volume: &core::Volume) -> Self {
                Self { $($field: volume.$field.as_ref().map(|_| Present {}),)* }
            }
        }

        impl SlimVolume {
            /// The field names of the sources among `volumes` that tie the pod to some nodes, each once.
            pub(super) fn bound_sorts(volumes: &[Self]) -> Vec<&'static str> {
                let mut sorts = Vec::new();
                $(
                    if volumes.iter().any(|volume| volume.$field.is_some()) {
                        sorts.push($name);
                    }
                )*
                sorts
            }
        }
    };
}

bound_volumes! {
    persistent_volume_claim: "persistentVolumeClaim",
    ephemeral: "ephemeral",
    csi: "csi",
    aws_elastic_block_store: "awsElasticBlockStore",
    azure_disk: "azureDisk",
    cinder: "cinder",
    gce_persistent_disk: "gcePersistentDisk",
    iscsi: "iscsi",
    portworx_volume: "portworxVolume",
    rbd: "rbd",
    vsphere_volume: "vsphereVolume",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_that_tie_to_nodes_are_named_and_their_names_are_those_of_the_api() {
        let json = serde_json::json!([
            {"name": "a", "emptyDir": {}}, {"name": "b", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "logs"}},
            {"name": "d", "gcePersistentDisk": {"pdName": "disk"}},
        ]);
        let slim: Vec<SlimVolume> = serde_json::from_value(json.clone()).unwrap();
        let typed: Vec<core::Volume> = serde_json::from_value(json).unwrap();
        assert_eq!(slim, typed.iter().map(SlimVolume::from).collect::<Vec<_>>());
        assert_eq!(
            SlimVolume::bound_sorts(&slim),
            ["persistentVolumeClaim", "gcePersistentDisk"]
        );
    }
}
