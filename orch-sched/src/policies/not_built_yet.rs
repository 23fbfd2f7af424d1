use crate::cluster::Cluster;
use crate::event::EventSet;
use crate::object::PodInfo;
use crate::policy::{PreFilter, Rejection, SchedulerPolicy};

/// Holds back pods that ask the scheduler for something which no policy here knows: placed all the same, they would be
/// placed wrongly. Whoever places them by policies of their own takes this one out of the profile.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotBuiltYet;

fn unknown_wish(pod: &PodInfo) -> Option<String> {
    if !pod.bound_volumes.is_empty() {
        let sorts = pod.bound_volumes.join(", ");
        return Some(format!(
            "finding nodes for volumes of type {sorts} is not built into this scheduler yet"
        ));
    }
    if pod.claims_devices {
        return Some("allocating resource claims is not built into this scheduler yet".to_owned());
    }
    pod.in_group
        .then(|| "placing a scheduling group is not built into this scheduler yet".to_owned())
}

impl SchedulerPolicy for NotBuiltYet {
    fn name(&self) -> &'static str {
        "NotBuiltYet"
    }

    /// These wishes stand for the pod's life.
    fn events(&self) -> EventSet {
        EventSet::NONE
    }

    fn pre_filter<'c>(&'c self, pod: &'c PodInfo, _: &'c Cluster) -> PreFilter<'c> {
        match unknown_wish(pod) {
            None => PreFilter::Skip,
            Some(why) => PreFilter::Reject(Rejection::unresolvable(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{node, pod};
    use crate::testkit::filtered;

    fn said(extra: &serde_json::Value) -> Option<String> {
        let mut pod = serde_json::json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": []}});
        pod["spec"]
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let typed: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
        let [verdict] = &filtered(&NotBuiltYet, &PodInfo::from(&typed), &[node("n")])[..] else {
            panic!("one node")
        };
        verdict.as_ref().err().map(ToString::to_string)
    }

    #[test]
    fn wishes_that_nobody_knows_are_named() {
        let claim = serde_json::json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "e", "ephemeral": {}}]});
        assert_eq!(
            said(&claim).unwrap(),
            "finding nodes for volumes of type persistentVolumeClaim, ephemeral is not built into this scheduler yet"
        );
        let device = serde_json::json!({"resourceClaims": [{"name": "gpu"}]});
        assert_eq!(
            said(&device).unwrap(),
            "allocating resource claims is not built into this scheduler yet"
        );
        let group = serde_json::json!({"schedulingGroup": {"podGroupName": "g"}});
        assert_eq!(
            said(&group).unwrap(),
            "placing a scheduling group is not built into this scheduler yet"
        );
    }

    #[test]
    fn volumes_that_every_node_has_are_no_reason() {
        let local = serde_json::json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "c"}}, {"name": "d", "projected": {}}]});
        assert_eq!(said(&local), None);
        assert_eq!(filtered(&NotBuiltYet, &pod("p").build(), &[node("n")]), [Ok(())]);
    }
}
