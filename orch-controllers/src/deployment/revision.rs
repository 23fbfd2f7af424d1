//! The annotations by which a Deployment keeps its history: what `kubectl rollout history` and `undo` read.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::template::Sets;

/// The number of a rollout, on the Deployment and its ReplicaSets.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a ReplicaSet that came back by an undo.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when the ReplicaSet was last sized.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Replicas and surge when the ReplicaSet was last sized.
const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that its ReplicaSets do not inherit.
const OWN: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
];

type Annotations = BTreeMap<String, String>;

/// The revision in a set of annotations; 0 when there is none.
pub(crate) fn of(annotations: Option<&Annotations>) -> i64 {
    annotations
        .and_then(|all| all.get(REVISION))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The number that the new ReplicaSet should carry: one more than any old one.
pub(crate) fn next(sets: &Sets) -> i64 {
    sets.old
        .iter()
        .map(|set| of(set.metadata.annotations.as_ref()))
        .max()
        .unwrap_or(0)
        + 1
}

/// Brings the annotations of the new ReplicaSet up to date. Returns whether anything changed.
pub(crate) fn annotate(deployment: &Deployment, revision: i64, set: &mut ReplicaSet) -> bool {
    let before = set.metadata.annotations.clone();
    let annotations = set.metadata.annotations.get_or_insert_default();
    let inherited = deployment.metadata.annotations.iter().flatten();
    for (key, value) in inherited.filter(|(key, _)| !OWN.contains(&key.as_str())) {
        annotations.insert(key.clone(), value.clone());
    }
    let had = of(Some(annotations));
    if had < revision {
        if had > 0 {
            let history = annotations.entry(HISTORY.to_owned()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&had.to_string());
        }
        annotations.insert(REVISION.to_owned(), revision.to_string());
    }
    before.as_ref() != Some(&*annotations)
}

/// Writes down for which size of the Deployment a ReplicaSet was sized. Returns whether anything changed.
pub(crate) fn set_sizes(annotations: &mut Annotations, desired: i32, max: i32) -> bool {
    let mut changed = false;
    for (key, value) in [(DESIRED, desired), (MAX, max)] {
        let value = value.to_string();
        if annotations.get(key) != Some(&value) {
            annotations.insert(key.to_owned(), value);
            changed = true;
        }
    }
    changed
}

/// The Deployment's replicas when a ReplicaSet was last sized.
pub(crate) fn desired(set: &ReplicaSet) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(DESIRED)?.parse().ok()
}

/// The most pods that were allowed when a ReplicaSet was last sized.
pub(crate) fn max(set: &ReplicaSet) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(MAX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undone_set_gets_a_new_number_and_keeps_its_history() {
        let (mut set, deployment) = (ReplicaSet::default(), Deployment::default());
        assert!(annotate(&deployment, 1, &mut set));
        assert!(!annotate(&deployment, 1, &mut set));
        assert!(annotate(&deployment, 3, &mut set));
        assert!(annotate(&deployment, 5, &mut set));
        let annotations = set.metadata.annotations.expect("annotations");
        assert_eq!(annotations[REVISION], "5");
        assert_eq!(annotations[HISTORY], "1,3");
    }

    #[test]
    fn the_users_annotations_are_inherited_but_not_the_machinerys() {
        let mut deployment = Deployment::default();
        deployment.metadata.annotations = Some(
            [
                ("kubernetes.io/change-cause", "x"),
                (OWN[0], "y"),
                (REVISION, "7"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        );
        let mut set = ReplicaSet::default();
        annotate(&deployment, 1, &mut set);
        let annotations = set.metadata.annotations.expect("annotations");
        assert_eq!(annotations.len(), 2);
        assert_eq!(annotations["kubernetes.io/change-cause"], "x");
    }
}
