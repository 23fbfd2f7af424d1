use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use orch_core::quantity::Quantity;
use orch_core::status::ApiError;

use super::{Admission, Operation, Review};
use crate::object::Object;

/// Gives containers the defaults of their namespace's LimitRanges, and holds pods and claims to their limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitRanger;

/// What was filled in is noted here.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Quantity>;
type Map = BTreeMap<String, ApiQuantity>;

#[async_trait]
impl Admission for LimitRanger {
    async fn mutate(&self, review: &Review<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
        if review.operation != Operation::Create || !review.is("", "pods") {
            return Ok(());
        }
        let ranges = ranges(review).await?;
        if let Some(pod) = object.downcast_mut::<Pod>() {
            let items = ranges.iter().flat_map(items);
            for item in items.filter(|item| item.type_ == "Container") {
                fill(pod, item);
            }
        }
        Ok(())
    }

    async fn validate(&self, review: &Review<'_>, object: Option<&dyn Object>) -> Result<(), ApiError> {
        let Some(object) = object else { return Ok(()) };
        let mut faults = Vec::new();
        // The resources of a pod do not change once it is there.
        if review.operation == Operation::Create && review.is("", "pods") {
            if let Some(spec) = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref()) {
                let ranges = ranges(review).await?;
                ranges
                    .iter()
                    .flat_map(items)
                    .for_each(|item| check_pod(spec, item, &mut faults));
            }
        } else if matches!(review.operation, Operation::Create | Operation::Update)
            && review.is("", "persistentvolumeclaims")
            && let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>()
        {
            let ranges = ranges(review).await?;
            ranges
                .iter()
                .flat_map(items)
                .for_each(|item| check_claim(claim, item, &mut faults));
        }
        match faults.as_slice() {
            [] => Ok(()),
            [one] => Err(review.forbidden(object, one)),
            many => Err(review.forbidden(object, format!("[{}]", many.join(", ")))),
        }
    }
}

async fn ranges(review: &Review<'_>) -> Result<Vec<LimitRange>, ApiError> {
    review.lookup.all("", "limitranges", review.namespace).await
}

fn items(range: &LimitRange) -> &[LimitRangeItem] {
    range.spec.as_ref().map_or(&[], |spec| &spec.limits)
}

fn fill(pod: &mut Pod, item: &LimitRangeItem) {
    let Some(spec) = &mut pod.spec else { return };
    let mut notes = Vec::new();
    for container in &mut spec.containers {
        fill_container(container, "container", item, &mut notes);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        fill_container(container, "init container", item, &mut notes);
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.metadata
            .annotations
            .get_or_insert_default()
            .insert(ANNOTATION.to_owned(), note);
    }
}

fn fill_container(container: &mut Container, what: &str, item: &LimitRangeItem, notes: &mut Vec<String>) {
    let resources = container.resources.get_or_insert_default();
    let mut note = |names: Vec<String>, kind: &str| {
        if !names.is_empty() {
            notes.push(format!(
                "{} {kind} for {what} {}",
                names.join(", "),
                container.name
            ));
        }
    };
    note(
        merge(&mut resources.requests, item.default_request.as_ref()),
        "request",
    );
    note(merge(&mut resources.limits, item.default.as_ref()), "limit");
}

/// Fills in what is missing; the names of it, in order.
fn merge(own: &mut Option<Map>, defaults: Option<&Map>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, quantity) in defaults.into_iter().flatten() {
        let own = own.get_or_insert_default();
        if !own.contains_key(name) {
            own.insert(name.clone(), quantity.clone());
            set.push(name.clone());
        }
    }
    set
}

fn check_pod(spec: &PodSpec, item: &LimitRangeItem, faults: &mut Vec<String>) {
    let init = || spec.init_containers.iter().flatten();
    match item.type_.as_str() {
        "Container" => {
            for container in spec.containers.iter().chain(init()) {
                let resources = container.resources.as_ref();
                let requests = amounts(resources.and_then(|resources| resources.requests.as_ref()));
                let limits = amounts(resources.and_then(|resources| resources.limits.as_ref()));
                check(item, &requests, &limits, faults);
            }
        }
        "Pod" => {
            let requests = of_pod(spec, |resources| resources.requests.as_ref());
            let limits = of_pod(spec, |resources| resources.limits.as_ref());
            check(item, &requests, &limits, faults);
        }
        _ => {}
    }
}

fn check_claim(claim: &PersistentVolumeClaim, item: &LimitRangeItem, faults: &mut Vec<String>) {
    if item.type_ != "PersistentVolumeClaim" {
        return;
    }
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = amounts(resources.and_then(|resources| resources.requests.as_ref()));
    for (name, least) in amounts(item.min.as_ref()) {
        let what = format!("minimum {name} usage per {} is {least}", item.type_);
        faults.extend(too_little(&what, requests.get(&name), "request", least, true));
    }
    for (name, most) in amounts(item.max.as_ref()) {
        let what = format!("maximum {name} usage per {} is {most}", item.type_);
        faults.extend(too_much(&what, requests.get(&name), "request", most, true));
    }
}

/// Holds requests and limits to one item; of each rule the first fault is told.
fn check(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
    for (name, least) in amounts(item.min.as_ref()) {
        let what = format!("minimum {name} usage per {} is {least}", item.type_);
        let fault = too_little(&what, requests.get(&name), "request", least, true)
            .or_else(|| too_little(&what, limits.get(&name), "limit", least, false));
        faults.extend(fault);
    }
    for (name, most) in amounts(item.max.as_ref()) {
        let what = format!("maximum {name} usage per {} is {most}", item.type_);
        let fault = too_much(&what, limits.get(&name), "limit", most, true)
            .or_else(|| too_much(&what, requests.get(&name), "request", most, false));
        faults.extend(fault);
    }
    for (name, most) in amounts(item.max_limit_request_ratio.as_ref()) {
        let what = format!("{name} max limit to request ratio per {} is {most}", item.type_);
        let known = |amounts: &Amounts| {
            amounts
                .get(&name)
                .filter(|amount| **amount > Quantity::ZERO)
                .copied()
        };
        let fault = match (known(requests), known(limits)) {
            (None, _) => Some(format!("{what}, but no request is specified or request is 0")),
            (_, None) => Some(format!("{what}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                (ratio > most.as_f64()).then(|| format!("{what}, but provided ratio is {ratio:.6}"))
            }
        };
        faults.extend(fault);
    }
}

fn too_little(
    what: &str,
    amount: Option<&Quantity>,
    kind: &str,
    least: Quantity,
    needed: bool,
) -> Option<String> {
    match amount {
        None => needed.then(|| format!("{what}.  No {kind} is specified")),
        Some(amount) => (*amount < least).then(|| format!("{what}, but {kind} is {amount}")),
    }
}

fn too_much(
    what: &str,
    amount: Option<&Quantity>,
    kind: &str,
    most: Quantity,
    needed: bool,
) -> Option<String> {
    match amount {
        None => needed.then(|| format!("{what}.  No {kind} is specified")),
        Some(amount) => (*amount > most).then(|| format!("{what}, but {kind} is {amount}")),
    }
}

/// What all containers of a pod come to: those that run together are added; an init container that ends needs its own beside the
/// sidecars before it.
fn of_pod(spec: &PodSpec, part: impl Fn(&ResourceRequirements) -> Option<&Map>) -> Amounts {
    let of = |container: &Container| amounts(container.resources.as_ref().and_then(&part));
    let mut together = Amounts::new();
    for container in &spec.containers {
        add(&mut together, of(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut running = sidecars.clone();
        add(&mut running, of(container));
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = running.clone();
        }
        raise(&mut peak, running);
    }
    add(&mut together, sidecars);
    raise(&mut together, peak);
    together
}

fn add(sum: &mut Amounts, more: Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name).or_insert(Quantity::ZERO);
        *entry += amount;
    }
}

fn raise(most: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        let entry = most.entry(name).or_insert(amount);
        *entry = (*entry).max(amount);
    }
}

/// Quantities that can be compared; validation has refused what is none.
fn amounts(map: Option<&Map>) -> Amounts {
    let known =
        |(name, quantity): (&String, &ApiQuantity)| Some((name.clone(), Quantity::try_from(quantity).ok()?));
    map.into_iter().flatten().filter_map(known).collect()
}
