use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use orch_core::status::ApiError;

use super::{Admission, Operation, Review};
use crate::object::Object;

/// Gives pods that name no service account the one called `default`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultServiceAccount;

#[async_trait]
impl Admission for DefaultServiceAccount {
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        if review.operation != Operation::Create || !review.is("", "pods") {
            return Ok(());
        }
        let is_mirror = object
            .metadata()
            .annotations
            .iter()
            .flatten()
            .any(|(key, _)| key == MIRROR_ANNOTATION);
        let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else {
            return Ok(());
        };
        if !is_mirror
            && spec
                .service_account_name
                .as_deref()
                .unwrap_or_default()
                .is_empty()
        {
            spec.service_account_name = Some("default".to_owned());
            spec.service_account = Some("default".to_owned());
        }
        Ok(())
    }
}

/// Marks pods that node agents report rather than anybody wants.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Lets pods stay for a while on a node that is not ready or not reachable, unless they say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct DefaultTolerationSeconds {
    /// How long on a node that is not ready.
    pub not_ready: i64,
    /// How long on a node that cannot be reached.
    pub unreachable: i64,
}

impl Default for DefaultTolerationSeconds {
    fn default() -> Self {
        Self {
            not_ready: 300,
            unreachable: 300,
        }
    }
}

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        if !matches!(review.operation, Operation::Create | Operation::Update) || !review.is("", "pods") {
            return Ok(());
        }
        let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else {
            return Ok(());
        };
        let taints = [
            ("node.kubernetes.io/not-ready", self.not_ready),
            ("node.kubernetes.io/unreachable", self.unreachable),
        ];
        // Both are looked for before either is added, as upstream does.
        let missing: Vec<_> = taints
            .into_iter()
            .filter(|(key, _)| !spec.tolerations.iter().flatten().any(|own| tolerates(own, key)))
            .collect();
        for (key, seconds) in missing {
            spec.tolerations.get_or_insert_default().push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(seconds),
                ..Toleration::default()
            });
        }
        Ok(())
    }
}

fn tolerates(toleration: &Toleration, key: &str) -> bool {
    let own = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    (own == key || own.is_empty()) && matches!(effect, "" | "NoExecute")
}
