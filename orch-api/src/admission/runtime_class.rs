use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::node::v1 as node;
use orch_core::status::ApiError;

use super::{Admission, Operation, Review};
use crate::object::Object;

/// Gives pods what their runtime class says: its overhead, and where it can run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuntimeClass;

#[async_trait]
impl Admission for RuntimeClass {
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        if review.operation != Operation::Create || !review.is("", "pods") {
            return Ok(());
        }
        let spec = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
        let Some(name) = spec.and_then(|spec| spec.runtime_class_name.clone()) else {
            if spec.is_some_and(|spec| {
                spec.overhead
                    .as_ref()
                    .is_some_and(|overhead| !overhead.is_empty())
            }) {
                return Err(review.forbidden(object, NO_OVERHEAD));
            }
            return Ok(());
        };
        let class: Option<node::RuntimeClass> =
            review.lookup.find("node.k8s.io", "runtimeclasses", &name).await?;
        let Some(class) = class else {
            let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
            return Err(review.forbidden(object, why));
        };
        let spec = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut());
        let result = spec.map_or(Ok(()), |spec| apply(spec, &class));
        result.map_err(|why| review.forbidden(object, why))
    }
}

const NO_OVERHEAD: &str =
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

fn apply(spec: &mut PodSpec, class: &node::RuntimeClass) -> Result<(), String> {
    let given = spec.overhead.as_ref().filter(|overhead| !overhead.is_empty());
    let fixed = class
        .overhead
        .as_ref()
        .and_then(|overhead| overhead.pod_fixed.as_ref());
    match (given, fixed) {
        (Some(given), Some(fixed)) if given != fixed => {
            return Err(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned(),
            );
        }
        (Some(_), None) => return Err(NO_OVERHEAD.to_owned()),
        (_, Some(fixed)) => spec.overhead = Some(fixed.clone()),
        (None, None) => {}
    }
    let Some(scheduling) = &class.scheduling else {
        return Ok(());
    };
    for (key, value) in scheduling.node_selector.iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        selector.insert(key.clone(), value.clone());
    }
    for toleration in scheduling.tolerations.iter().flatten() {
        let own = spec.tolerations.get_or_insert_default();
        if !own.contains(toleration) {
            own.push(toleration.clone());
        }
    }
    Ok(())
}
