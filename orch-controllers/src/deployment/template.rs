//! Which ReplicaSet belongs to which pod template.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use orch_core::owner;

use super::revision;

/// The label that tells the pods of one template from those of another.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// A Deployment's ReplicaSets, told apart by template.
#[derive(Clone, Debug)]
pub(crate) struct Sets {
    /// The one whose template is the Deployment's, the oldest if there are several.
    pub(crate) new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    pub(crate) old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    /// Tells a Deployment's ReplicaSets apart.
    pub(crate) fn of(deployment: &Deployment, mut owned: Vec<Arc<ReplicaSet>>) -> Self {
        owned.sort_by(|a, b| age(a).cmp(&age(b)));
        let template = &deployment.spec.template;
        let new = owned.iter().position(|set| {
            set.spec
                .template
                .as_ref()
                .is_some_and(|other| equal(other, template))
        });
        let new = new.map(|index| owned.remove(index));
        Self { new, old: owned }
    }

    /// New and old together.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.new.iter().chain(&self.old)
    }
}

/// Sorts by creation, then name, so that every pass sees the same order.
fn age(set: &ReplicaSet) -> (Option<k8s_openapi::jiff::Timestamp>, Option<&str>) {
    (
        set.metadata.creation_timestamp.as_ref().map(|time| time.0),
        set.metadata.name.as_deref(),
    )
}

/// Whether two templates are the same but for the hash label.
pub(crate) fn equal(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a.spec == b.spec && without_hash(a.metadata.as_ref()) == without_hash(b.metadata.as_ref())
}

fn without_hash(meta: Option<&ObjectMeta>) -> ObjectMeta {
    let mut meta = meta.cloned().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    meta
}

/// A short name for a template: FNV-1a of its JSON and the count of collisions so far, in letters that spell no word.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = 0x811c_9dc5_u32;
    let mut write = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    // A `Value`'s maps are sorted, so that equal templates give equal bytes. Templates hold no map with other keys
    // than strings, so that serialising cannot fail.
    let json = serde_json::to_value(template)
        .map(|value| value.to_string())
        .unwrap_or_default();
    write(json.as_bytes());
    if let Some(collisions) = collisions {
        write(&collisions.to_le_bytes());
    }
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string()
        .bytes()
        .map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()]))
        .collect()
}

/// The ReplicaSet for a Deployment's template, with `replicas` pods to start with.
pub(crate) fn new_replica_set(
    deployment: &Deployment,
    hash: &str,
    revision: i64,
    replicas: i32,
) -> ReplicaSet {
    let spec = deployment.spec.clone();
    let mut template = spec.template;
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    let labels = labels.clone();
    let mut match_labels = spec.selector.match_labels.unwrap_or_default();
    match_labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}-{hash}",
                deployment.metadata.name.as_deref().unwrap_or_default()
            )),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: owner::new_controller_ref(deployment).map(|reference| vec![reference]),
            ..ObjectMeta::default()
        },
        ..ReplicaSet::default()
    };
    let of = &mut set.spec;
    of.replicas = Some(replicas);
    of.min_ready_seconds = spec.min_ready_seconds;
    of.selector = LabelSelector {
        match_labels: Some(match_labels),
        ..spec.selector
    };
    of.template = Some(template);
    revision::annotate(deployment, revision, &mut set);
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(app: &str) -> PodTemplateSpec {
        let mut template = PodTemplateSpec::default();
        template.metadata.get_or_insert_default().labels = Some([("app".into(), app.into())].into());
        template
    }

    #[test]
    fn the_hash_follows_the_template_and_the_collisions() {
        let (a, b) = (template("a"), template("b"));
        assert_eq!(hash(&a, None), hash(&a.clone(), None));
        assert_ne!(hash(&a, None), hash(&b, None));
        assert_ne!(hash(&a, None), hash(&a, Some(1)));
        assert!(
            hash(&a, None)
                .bytes()
                .all(|letter| letter.is_ascii_alphanumeric())
        );
    }

    #[test]
    fn a_set_is_new_when_its_template_differs_by_the_hash_only() {
        let mut deployment = Deployment::default();
        deployment.metadata.name = Some("web".into());
        deployment.spec.template = template("a");
        let set = new_replica_set(&deployment, "h1", 1, 3);
        assert_eq!(set.metadata.name.as_deref(), Some("web-h1"));
        let mut other = set.clone();
        other.spec.template = Some(template("b"));
        let sets = Sets::of(&deployment, vec![Arc::new(other), Arc::new(set.clone())]);
        assert_eq!(sets.new.as_deref(), Some(&set));
        assert_eq!(sets.old.len(), 1);
    }
}
