//! Which objects belong to an owner: those it controls, and those that nobody controls and its selector matches.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use orch_core::owner;

/// The owner's side of a claim.
#[derive(Debug)]
pub(crate) struct Claimant<'a> {
    /// The owner's uid.
    pub(crate) uid: &'a str,
    /// Whether the owner is being deleted: it then adopts nothing.
    pub(crate) deleting: bool,
}

/// How candidates relate to an owner.
#[derive(Debug)]
pub(crate) struct Claims<K> {
    /// Controlled by the owner and matching.
    pub(crate) owned: Vec<Arc<K>>,
    /// Controlled by nobody and matching: to be adopted.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Controlled by the owner and no longer matching: to be released.
    pub(crate) release: Vec<Arc<K>>,
}

impl Claimant<'_> {
    /// Sorts candidates by what to do with them.
    pub(crate) fn sort<K: Resource>(
        &self,
        candidates: impl IntoIterator<Item = Arc<K>>,
        matches: impl Fn(&ObjectMeta) -> bool,
    ) -> Claims<K> {
        let mut claims = Claims {
            owned: Vec::new(),
            adopt: Vec::new(),
            release: Vec::new(),
        };
        for candidate in candidates {
            let meta = candidate.meta();
            match owner::controller_of(meta) {
                Some(controller) if controller.uid != self.uid => {}
                Some(_) if matches(meta) => claims.owned.push(candidate),
                Some(_) if self.deleting || meta.deletion_timestamp.is_some() => {}
                Some(_) => claims.release.push(candidate),
                None if self.deleting || meta.deletion_timestamp.is_some() || !matches(meta) => {}
                None => claims.adopt.push(candidate),
            }
        }
        claims
    }
}

/// The strategic merge patch by which `reference` becomes the controller of the object with this uid.
pub(crate) fn adopting(
    reference: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
    uid: &str,
) -> serde_json::Value {
    serde_json::json!({"metadata": {"uid": uid, "ownerReferences": [reference]}})
}

/// The strategic merge patch that takes the owner with uid `owner` off the object with this uid.
pub(crate) fn releasing(owner: &str, uid: &str) -> serde_json::Value {
    serde_json::json!({"metadata": {"uid": uid, "ownerReferences": [{"$patch": "delete", "uid": owner}]}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
    use k8s_openapi::jiff::Timestamp;

    fn pod(name: &str, controller: Option<&str>, matching: bool) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.labels = Some([("app".into(), if matching { "web" } else { "other" }.into())].into());
        pod.metadata.owner_references = controller.map(|uid| {
            vec![OwnerReference {
                uid: uid.into(),
                controller: Some(true),
                ..OwnerReference::default()
            }]
        });
        Arc::new(pod)
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter()
            .filter_map(|pod| pod.metadata.name.as_deref())
            .collect()
    }

    fn is_web(meta: &ObjectMeta) -> bool {
        meta.labels
            .as_ref()
            .is_some_and(|labels| labels.get("app").is_some_and(|app| app == "web"))
    }

    #[test]
    fn objects_are_owned_adopted_or_released() {
        let candidates = [
            pod("mine", Some("me"), true),
            pod("strayed", Some("me"), false),
            pod("orphan", None, true),
            pod("stranger", None, false),
            pod("foreign", Some("other"), true),
        ];
        let claims = Claimant {
            uid: "me",
            deleting: false,
        }
        .sort(candidates.clone(), is_web);
        assert_eq!(names(&claims.owned), ["mine"]);
        assert_eq!(names(&claims.adopt), ["orphan"]);
        assert_eq!(names(&claims.release), ["strayed"]);

        let claims = Claimant {
            uid: "me",
            deleting: true,
        }
        .sort(candidates, is_web);
        assert_eq!(names(&claims.owned), ["mine"]);
        assert!(
            claims.adopt.is_empty() && claims.release.is_empty(),
            "a dying owner changes nothing"
        );
    }

    #[test]
    fn a_terminating_orphan_is_not_adopted() {
        let mut orphan = (*pod("orphan", None, true)).clone();
        orphan.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        let claims = Claimant {
            uid: "me",
            deleting: false,
        }
        .sort([Arc::new(orphan)], is_web);
        assert!(claims.adopt.is_empty());
    }
}
