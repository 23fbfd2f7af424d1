use crate::binding::{BindError, BindOutcome, Binding};
use crate::event::EventSet;
use crate::policy::SchedulerPolicy;
use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::{Api, Client, api::PostParams};

/// Binds pods through their `binding` subresource.
#[derive(Clone)]
pub struct DefaultBinder {
    client: Client,
}

impl DefaultBinder {
    /// Binds through that client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl std::fmt::Debug for DefaultBinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DefaultBinder")
    }
}

#[async_trait]
impl SchedulerPolicy for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    fn events(&self) -> EventSet {
        EventSet::NONE
    }

    async fn bind(&self, binding: &Binding) -> Result<BindOutcome, BindError> {
        let pod = &binding.pod;
        let target = core::Binding {
            metadata: ObjectMeta {
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                // The server refuses the binding if a new pod has taken the name.
                uid: (!pod.uid.is_empty()).then(|| pod.uid.clone()),
                ..ObjectMeta::default()
            },
            target: core::ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(binding.node.clone()),
                ..core::ObjectReference::default()
            },
        };
        let pods: Api<core::Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let _: Status = pods
            .create_subresource("binding", &pod.name, &PostParams::default(), &target)
            .await?;
        Ok(BindOutcome::Bound)
    }
}
