//! Owner references: which object another belongs to, and which one controls it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

/// The reference to the object that controls this one; there is at most one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    references(meta)
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// All owner references.
pub fn references(meta: &ObjectMeta) -> &[OwnerReference] {
    meta.owner_references.as_deref().unwrap_or_default()
}

/// Whether the object with uid `uid` controls this one.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// Whether the object with uid `uid` owns this one, as controller or not.
pub fn is_owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    references(meta).iter().any(|owner| owner.uid == uid)
}

/// The name of the controlling owner if it is a `kind` of API group `group`, any version.
pub fn controller_name<'a>(meta: &'a ObjectMeta, group: &str, kind: &str) -> Option<&'a str> {
    let owner = controller_of(meta)?;
    (owner.kind == kind && group_of(&owner.api_version) == group).then_some(owner.name.as_str())
}

/// The API group in an `apiVersion`: `apps` of `apps/v1`, empty for `v1`.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// A reference by which `owner` controls an object and keeps foreground deletion waiting for it.
///
/// `None` if `owner` has no name or uid yet, that is, was not created.
pub fn new_controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> Option<OwnerReference> {
    let reference = new_owner_ref(owner)?;
    Some(OwnerReference {
        controller: Some(true),
        block_owner_deletion: Some(true),
        ..reference
    })
}

/// A plain reference to `owner`, which neither controls nor blocks.
///
/// `None` if `owner` has no name or uid yet.
pub fn new_owner_ref<K: Resource<DynamicType = ()>>(owner: &K) -> Option<OwnerReference> {
    let meta = owner.meta();
    Some(OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone()?,
        uid: meta.uid.clone()?,
        ..OwnerReference::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;

    fn replica_set() -> ReplicaSet {
        let mut set = ReplicaSet::default();
        set.metadata.name = Some("web".into());
        set.metadata.uid = Some("u1".into());
        set
    }

    #[test]
    fn a_controller_ref_controls_and_blocks() {
        let meta = ObjectMeta {
            owner_references: new_controller_ref(&replica_set()).map(|r| vec![r]),
            ..ObjectMeta::default()
        };
        assert!(is_controlled_by(&meta, "u1"));
        assert!(is_owned_by(&meta, "u1"));
        assert_eq!(controller_name(&meta, "apps", "ReplicaSet"), Some("web"));
        assert_eq!(controller_name(&meta, "", "ReplicaSet"), None);
        assert_eq!(controller_of(&meta).unwrap().block_owner_deletion, Some(true));
    }

    #[test]
    fn a_plain_owner_does_not_control() {
        let meta = ObjectMeta {
            owner_references: new_owner_ref(&replica_set()).map(|r| vec![r]),
            ..ObjectMeta::default()
        };
        assert!(is_owned_by(&meta, "u1"));
        assert!(controller_of(&meta).is_none());
    }

    #[test]
    fn what_was_not_created_yet_owns_nothing() {
        assert!(new_controller_ref(&ReplicaSet::default()).is_none());
    }
}
