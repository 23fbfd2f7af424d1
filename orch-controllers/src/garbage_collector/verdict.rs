//! What is to become of an object, given its owners. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

use super::graph::{FOREGROUND, ORPHAN};

/// What was seen of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerState {
    /// It is there.
    Solid,
    /// It is there, deleted, and waits for this object to go first.
    Waiting,
    /// The server confirmed that it is not there.
    Absent,
}

/// What to do with an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing.
    Keep,
    /// Keep it, with these owner references only: the others lead nowhere.
    KeepOnly(Vec<OwnerReference>),
    /// Delete it.
    Delete(PropagationPolicy),
}

/// Judges an object that is not itself waiting for dependents. `blocked` tells whether it has dependents of its own.
pub(crate) fn judge(meta: &ObjectMeta, owners: &[(OwnerReference, OwnerState)], blocked: bool) -> Verdict {
    let solid: Vec<_> = owners
        .iter()
        .filter(|(_, state)| *state == OwnerState::Solid)
        .collect();
    if owners.is_empty() || solid.len() == owners.len() {
        return Verdict::Keep;
    }
    if !solid.is_empty() {
        return Verdict::KeepOnly(
            solid
                .into_iter()
                .map(|(reference, _)| reference.clone())
                .collect(),
        );
    }
    let waited_for = owners.iter().any(|(_, state)| *state == OwnerState::Waiting);
    if waited_for && blocked {
        // Its own dependents go first too, so that the owner's foreground deletion means what it says.
        return Verdict::Delete(PropagationPolicy::Foreground);
    }
    let has = |name: &str| {
        meta.finalizers
            .iter()
            .flatten()
            .any(|finalizer| finalizer == name)
    };
    Verdict::Delete(match (has(ORPHAN), has(FOREGROUND)) {
        (true, _) => PropagationPolicy::Orphan,
        (_, true) => PropagationPolicy::Foreground,
        _ => PropagationPolicy::Background,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str, state: OwnerState) -> (OwnerReference, OwnerState) {
        (
            OwnerReference {
                uid: uid.into(),
                ..OwnerReference::default()
            },
            state,
        )
    }

    #[test]
    fn an_object_lives_as_long_as_one_owner_does() {
        let meta = ObjectMeta::default();
        assert_eq!(judge(&meta, &[], false), Verdict::Keep);
        assert_eq!(
            judge(&meta, &[owner("a", OwnerState::Solid)], false),
            Verdict::Keep
        );
        let mixed = [
            owner("a", OwnerState::Solid),
            owner("b", OwnerState::Absent),
            owner("c", OwnerState::Waiting),
        ];
        let Verdict::KeepOnly(kept) = judge(&meta, &mixed, false) else {
            panic!("kept with one reference")
        };
        assert_eq!(
            kept.iter()
                .map(|reference| reference.uid.as_str())
                .collect::<Vec<_>>(),
            ["a"]
        );
    }

    #[test]
    fn without_owners_it_goes_by_its_own_wish() {
        let mut meta = ObjectMeta::default();
        let absent = [owner("a", OwnerState::Absent)];
        assert_eq!(
            judge(&meta, &absent, false),
            Verdict::Delete(PropagationPolicy::Background)
        );
        meta.finalizers = Some(vec![ORPHAN.into()]);
        assert_eq!(
            judge(&meta, &absent, false),
            Verdict::Delete(PropagationPolicy::Orphan)
        );
        meta.finalizers = Some(vec![FOREGROUND.into()]);
        assert_eq!(
            judge(&meta, &absent, false),
            Verdict::Delete(PropagationPolicy::Foreground)
        );
    }

    #[test]
    fn what_an_owner_waits_for_takes_its_own_dependents_first() {
        let meta = ObjectMeta::default();
        let waiting = [owner("a", OwnerState::Waiting)];
        assert_eq!(
            judge(&meta, &waiting, true),
            Verdict::Delete(PropagationPolicy::Foreground)
        );
        assert_eq!(
            judge(&meta, &waiting, false),
            Verdict::Delete(PropagationPolicy::Background)
        );
    }
}
