use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Taint};
use orch_core::status::ApiError;

use super::{Admission, Operation, Review};
use crate::object::Object;

/// Keeps pods off a new node until it has reported that it is ready.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintNodesByCondition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

#[async_trait]
impl Admission for TaintNodesByCondition {
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        if review.operation != Operation::Create || !review.is("", "nodes") {
            return Ok(());
        }
        let Some(node) = object.downcast_mut::<Node>() else {
            return Ok(());
        };
        let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
        let is_tainted = taints
            .iter()
            .any(|taint| taint.key == NOT_READY && taint.effect == "NoSchedule");
        if !is_tainted {
            taints.push(Taint {
                key: NOT_READY.into(),
                effect: "NoSchedule".into(),
                ..Taint::default()
            });
        }
        Ok(())
    }
}
