use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use orch_core::status::ApiError;

use super::{Admission, Operation, Review};
use crate::object::Object;

/// Gives pods the priority of their class, or of the default one, and sees to it that there is one default at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Priority;

const GROUP: &str = "scheduling.k8s.io";
const PLURAL: &str = "priorityclasses";

#[async_trait]
impl Admission for Priority {
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        if !review.is("", "pods") {
            return Ok(());
        }
        match review.operation {
            Operation::Create => {
                let class = class_of(review, object).await?;
                set(review, object, class)
            }
            Operation::Update => {
                keep(review, object);
                Ok(())
            }
            Operation::Delete | Operation::Connect => Ok(()),
        }
    }

    async fn validate(&self, review: &Review<'_>, object: Option<&dyn Object>) -> Result<(), ApiError> {
        let Some(object) = object.filter(|_| review.is(GROUP, PLURAL)) else {
            return Ok(());
        };
        let is_default = object
            .downcast_ref::<PriorityClass>()
            .is_some_and(|class| class.global_default == Some(true));
        if !is_default || !matches!(review.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let all: Vec<PriorityClass> = review.lookup.all(GROUP, PLURAL, "").await?;
        let name = object.name();
        let other = all
            .iter()
            .find(|class| class.global_default == Some(true) && class.metadata.name.as_deref() != Some(name));
        match other.and_then(|class| class.metadata.name.as_deref()) {
            None => Ok(()),
            Some(other) => Err(review.forbidden(
                object,
                format!("PriorityClass {other} is already marked as default. Only one default can exist"),
            )),
        }
    }
}

/// The class that the pod names, or the default one. Of several defaults, an old fault, that of the least priority.
async fn class_of(review: &Review<'_>, object: &dyn Object) -> Result<Option<PriorityClass>, ApiError> {
    let spec = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
    let name = spec
        .and_then(|spec| spec.priority_class_name.as_deref())
        .unwrap_or_default();
    if name.is_empty() {
        let all: Vec<PriorityClass> = review.lookup.all(GROUP, PLURAL, "").await?;
        let defaults = all.into_iter().filter(|class| class.global_default == Some(true));
        return Ok(defaults.min_by_key(|class| class.value));
    }
    match review.lookup.find(GROUP, PLURAL, name).await? {
        Some(class) => Ok(Some(class)),
        None => Err(review.forbidden(object, format!("no PriorityClass with name {name} was found"))),
    }
}

fn set(review: &Review<'_>, object: &mut dyn Object, class: Option<PriorityClass>) -> Result<(), ApiError> {
    let spec = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
    let given = spec.map(|spec| (spec.priority, spec.preemption_policy.clone()));
    let Some((priority, preemption)) = given else {
        return Ok(());
    };
    let computed = class.as_ref().and_then(|class| class.value).unwrap_or_default();
    let policy = class.as_ref().and_then(|class| class.preemption_policy.clone());
    let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".to_owned());
    if let Some(priority) = priority.filter(|priority| *priority != computed) {
        let why = format!(
            "the integer value of priority ({priority}) must not be provided in pod spec; priority admission controller \
             computed {computed} from the given PriorityClass name"
        );
        return Err(review.forbidden(object, why));
    }
    if let Some(preemption) = preemption.filter(|preemption| *preemption != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({preemption}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        );
        return Err(review.forbidden(object, why));
    }
    if let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) {
        spec.priority = Some(computed);
        spec.preemption_policy = Some(policy);
        if let Some(class) = class {
            spec.priority_class_name = class.metadata.name;
        }
    }
    Ok(())
}

/// What an update leaves out stays.
fn keep(review: &Review<'_>, object: &mut dyn Object) {
    let old = review
        .old
        .and_then(|old| old.downcast_ref::<Pod>())
        .and_then(|pod| pod.spec.as_ref());
    let new = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut());
    if let (Some(old), Some(new)) = (old, new) {
        new.priority = new.priority.or(old.priority);
        if new.preemption_policy.is_none() {
            new.preemption_policy.clone_from(&old.preemption_policy);
        }
    }
}
