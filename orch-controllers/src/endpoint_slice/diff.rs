//! From the slices there are to the slices there should be, with as few writes as possible.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::desired::Group;

/// Most endpoints in a slice.
const MAX: usize = 100;

/// What to write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Without metadata.
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

/// An endpoint stays in the slice that has it. New ones fill slices that are written anyway, then those with room,
/// then new slices. A slice whose ports nobody has any more goes, as does one that is left empty, unless it is the
/// last of its family.
pub(super) fn plan(
    existing: &[Arc<EndpointSlice>],
    groups: Vec<Group>,
    labels: &BTreeMap<String, String>,
) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    for group in groups {
        let of_group =
            |slice: &&Arc<EndpointSlice>| slice.address_type == group.family && ports(slice) == group.ports;
        let (ours, others) = left.into_iter().partition(of_group);
        left = others;
        group_plan(&mut plan, ours, group, labels);
    }
    plan.delete.extend(left.into_iter().cloned());
    plan
}

fn ports(slice: &EndpointSlice) -> &[EndpointPort] {
    slice.ports.as_deref().unwrap_or_default()
}

/// A slice as it will be.
struct Draft<'a> {
    present: &'a Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn group_plan(
    plan: &mut Plan,
    ours: Vec<&Arc<EndpointSlice>>,
    group: Group,
    labels: &BTreeMap<String, String>,
) {
    let is_placeholder = group.endpoints.is_empty();
    let mut wanted: HashMap<String, Endpoint> = HashMap::new();
    let mut order = Vec::new();
    for endpoint in group.endpoints {
        let id = identity(&endpoint);
        if wanted.insert(id.clone(), endpoint).is_none() {
            order.push(id);
        }
    }
    let mut drafts: Vec<Draft<'_>> = ours
        .into_iter()
        .map(|slice| keep(slice, &mut wanted, labels))
        .collect();
    let mut new: Vec<Endpoint> = order.iter().filter_map(|id| wanted.remove(id)).collect();
    // Those that are written anyway first, then the fullest with room.
    drafts.sort_by_key(|draft| (!draft.changed, MAX.saturating_sub(draft.endpoints.len())));
    for draft in &mut drafts {
        let room = MAX.saturating_sub(draft.endpoints.len()).min(new.len());
        if room > 0 {
            draft.endpoints.extend(new.drain(..room));
            draft.changed = true;
        }
    }
    let mut has_slice = drafts.iter().any(|draft| !draft.endpoints.is_empty());
    for draft in drafts {
        let is_spare = draft.endpoints.is_empty() && (has_slice || !is_placeholder);
        has_slice |= !is_spare;
        if is_spare {
            plan.delete.push(Arc::clone(draft.present));
        } else if draft.changed {
            let mut slice = (**draft.present).clone();
            slice.endpoints = Some(draft.endpoints);
            slice.metadata.labels = Some(labels.clone());
            plan.update.push(slice);
        }
    }
    let fresh = |endpoints: &[Endpoint]| EndpointSlice {
        address_type: group.family.to_owned(),
        ports: Some(group.ports.clone()),
        endpoints: Some(endpoints.to_vec()),
        ..EndpointSlice::default()
    };
    plan.create.extend(new.chunks(MAX).map(fresh));
    if is_placeholder && !has_slice {
        plan.create.push(fresh(&[]));
    }
}

/// What of a slice stays, in its new form; takes that out of `wanted`.
fn keep<'a>(
    slice: &'a Arc<EndpointSlice>,
    wanted: &mut HashMap<String, Endpoint>,
    labels: &BTreeMap<String, String>,
) -> Draft<'a> {
    let present = slice.endpoints.as_deref().unwrap_or_default();
    let endpoints: Vec<_> = present
        .iter()
        .filter_map(|endpoint| wanted.remove(&identity(endpoint)))
        .collect();
    let changed = endpoints != present || slice.metadata.labels.as_ref() != Some(labels);
    Draft {
        present: slice,
        endpoints,
        changed,
    }
}

/// A pod under its address: a pod that got another address is another endpoint.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref());
    format!("{} {}", uid.unwrap_or_default(), endpoint.addresses.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::desired::groups;
    use super::super::desired::tests::{pod, service};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn wanted(names: impl IntoIterator<Item = usize>) -> Vec<Group> {
        let service = service(&json!({"ports": [{"port": 80}]}));
        let pods: Vec<_> = names
            .into_iter()
            .map(|i| {
                pod(
                    &format!("p{i}"),
                    &format!("10.0.{}.{}", i / 250, i % 250 + 1),
                    80,
                    "True",
                )
            })
            .collect();
        groups(&service, &pods, |_| None)
    }

    /// What the API holds after a plan was carried out.
    fn carried_out(existing: &[Arc<EndpointSlice>], plan: Plan) -> Vec<Arc<EndpointSlice>> {
        let mut slices: BTreeMap<String, Arc<EndpointSlice>> = existing
            .iter()
            .map(|s| (s.metadata.name.clone().unwrap(), s.clone()))
            .collect();
        for slice in plan.delete {
            slices.remove(slice.metadata.name.as_ref().unwrap()).unwrap();
        }
        for slice in plan.update {
            slices
                .insert(slice.metadata.name.clone().unwrap(), Arc::new(slice))
                .unwrap();
        }
        for mut slice in plan.create {
            let mut number = 0;
            while slices.contains_key(&format!("s{number}")) {
                number += 1;
            }
            slice.metadata.name = Some(format!("s{number}"));
            slice.metadata.labels = Some(BTreeMap::new());
            slices.insert(format!("s{number}"), Arc::new(slice));
        }
        slices.into_values().collect()
    }

    fn step(
        existing: &[Arc<EndpointSlice>],
        names: impl IntoIterator<Item = usize>,
    ) -> Vec<Arc<EndpointSlice>> {
        carried_out(existing, plan(existing, wanted(names), &BTreeMap::new()))
    }

    #[test]
    fn slices_hold_a_hundred() {
        let slices = step(&[], 0..250);
        let sizes: Vec<_> = slices
            .iter()
            .map(|s| s.endpoints.as_ref().unwrap().len())
            .collect();
        assert_eq!(sizes, [100, 100, 50]);
        let again = plan(&slices, wanted(0..250), &BTreeMap::new());
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
    }

    #[test]
    fn one_change_is_one_write() {
        let slices = step(&[], 0..250);
        let plan = plan(
            &slices,
            wanted((0..250).filter(|i| *i != 120).chain([300])),
            &BTreeMap::new(),
        );
        assert_eq!(
            (plan.create.len(), plan.update.len(), plan.delete.len()),
            (0, 1, 0)
        );
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice() {
        let slices = step(&[], []);
        assert_eq!(slices.len(), 1);
        let slices = step(&slices, [1]);
        assert_eq!(slices.len(), 1, "the empty one has other ports and goes");
        assert_eq!(slices[0].endpoints.as_ref().unwrap().len(), 1);
        let slices = step(&slices, []);
        assert_eq!(slices.len(), 1);
        assert!(slices[0].endpoints.as_ref().unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_endpoint_is_in_one_slice(rounds in prop::collection::vec(prop::collection::btree_set(0usize..300, 0..280), 1..6)) {
            let mut slices = Vec::new();
            for names in rounds {
                slices = step(&slices, names.iter().copied());
                let mut seen = BTreeSet::new();
                for slice in &slices {
                    let endpoints = slice.endpoints.as_ref().unwrap();
                    prop_assert!(endpoints.len() <= MAX);
                    for endpoint in endpoints {
                        prop_assert!(seen.insert(identity(endpoint)), "twice");
                    }
                }
                prop_assert_eq!(seen.len(), names.len());
                let again = plan(&slices, wanted(names), &BTreeMap::new());
                prop_assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
            }
        }
    }
}
