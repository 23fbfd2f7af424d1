//! The metadata that all objects share: what the server sets, and what it refuses.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use orch_core::field::{ErrorList, FieldError, Path};
use orch_core::names;

use crate::strategy::NameRule;

/// Upstream's alphabet for generated names: no vowels, so no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// A generated name is at most 63 characters long, 5 of them random.
const GENERATED_PREFIX: usize = 58;
/// The sum of all annotations' keys and values.
const ANNOTATIONS_SIZE: usize = 256 << 10;

/// A name from `generateName`.
pub(crate) fn generate_name(prefix: &str) -> String {
    let mut cut = prefix.len().min(GENERATED_PREFIX);
    while !prefix.is_char_boundary(cut) {
        cut -= 1;
    }
    let random = std::iter::repeat_with(|| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())])).take(5);
    prefix[..cut].chars().chain(random).collect()
}

/// The present time as objects carry it: whole seconds.
pub(crate) fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Sets what the server decides when an object comes into being.
pub(crate) fn prepare_create(metadata: &mut ObjectMeta, namespace: &str) {
    metadata.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    metadata.uid = Some(uuid::Uuid::new_v4().to_string());
    metadata.creation_timestamp = Some(now());
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.self_link = None;
    metadata.resource_version = None;
    drop_empty(metadata);
}

/// Keeps what only the server decides when an object changes; what the client left out stays as it was.
pub(crate) fn prepare_update(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generation = old.generation;
    new.self_link = None;
    drop_empty(new);
    if new.generate_name.is_none() {
        new.generate_name.clone_from(&old.generate_name);
    }
    keep_if_absent(&mut new.uid, &old.uid);
    keep_if_absent(&mut new.creation_timestamp, &old.creation_timestamp);
    keep_if_absent(&mut new.deletion_timestamp, &old.deletion_timestamp);
    keep_if_absent(
        &mut new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
    );
}

/// Go knows no difference between an empty collection and none, and writes neither.
fn drop_empty(metadata: &mut ObjectMeta) {
    metadata.labels.take_if(|labels| labels.is_empty());
    metadata.annotations.take_if(|annotations| annotations.is_empty());
    metadata.finalizers.take_if(|finalizers| finalizers.is_empty());
    metadata.owner_references.take_if(|owners| owners.is_empty());
}

fn keep_if_absent<T: Clone>(new: &mut Option<T>, old: &Option<T>) {
    if new.is_none() {
        new.clone_from(old);
    }
}

/// What is wrong with a name.
pub(crate) fn name_problems(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    // A prefix may end in a dash, since more follows.
    let masked;
    let name = if prefix && name.ends_with('-') {
        masked = format!("{}a", &name[..name.len() - 1]);
        &masked
    } else {
        name
    };
    match rule {
        NameRule::DnsSubdomain => names::dns1123_subdomain(name),
        NameRule::DnsLabel => names::dns1123_label(name),
        NameRule::Dns1035Label => names::dns1035_label(name),
        NameRule::PathSegment => path_segment(name, prefix),
    }
}

fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if !prefix && matches!(name, "." | "..") {
        problems.push(format!("may not be '{name}'"));
    }
    problems.extend(
        ["/", "%"]
            .into_iter()
            .filter(|sign| name.contains(sign))
            .map(|sign| format!("may not contain '{sign}'")),
    );
    problems
}

/// Upstream's `ValidateObjectMeta`.
pub(crate) fn validate(metadata: &ObjectMeta, rule: NameRule, namespaced: bool) -> ErrorList {
    let root = Path::new("metadata");
    let mut errors = ErrorList::new();
    if let Some(prefix) = metadata
        .generate_name
        .as_deref()
        .filter(|prefix| !prefix.is_empty())
    {
        for problem in name_problems(rule, prefix, true) {
            errors.push(FieldError::invalid(&root.child("generateName"), prefix, problem));
        }
    }
    let name = metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::required(
            &root.child("name"),
            "name or generateName is required",
        ));
    } else {
        for problem in name_problems(rule, name, false) {
            errors.push(FieldError::invalid(&root.child("name"), name, problem));
        }
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let path = root.child("namespace");
    match (namespaced, namespace) {
        (true, "") => errors.push(FieldError::required(&path, "")),
        (true, namespace) => {
            for problem in names::dns1123_label(namespace) {
                errors.push(FieldError::invalid(&path, namespace, problem));
            }
        }
        (false, "") => (),
        (false, _) => errors.push(FieldError::forbidden(&path, "not allowed on this type")),
    }
    validate_common(metadata, &root, &mut errors);
    errors
}

fn validate_common(metadata: &ObjectMeta, root: &Path, errors: &mut ErrorList) {
    let labels = root.child("labels");
    for (key, value) in metadata.labels.iter().flatten() {
        for problem in names::qualified_name(key) {
            errors.push(FieldError::invalid(&labels, key.as_str(), problem));
        }
        for problem in names::label_value(value) {
            errors.push(FieldError::invalid(&labels, value.as_str(), problem));
        }
    }
    let annotations = root.child("annotations");
    let mut size = 0;
    for (key, value) in metadata.annotations.iter().flatten() {
        size += key.len() + value.len();
        for problem in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(&annotations, key.as_str(), problem));
        }
    }
    if size > ANNOTATIONS_SIZE {
        errors.push(FieldError::too_long(&annotations, ANNOTATIONS_SIZE));
    }
    validate_finalizers(metadata, root, errors);
    validate_owners(metadata, root, errors);
}

fn validate_finalizers(metadata: &ObjectMeta, root: &Path, errors: &mut ErrorList) {
    let path = root.child("finalizers");
    let finalizers = metadata.finalizers.iter().flatten();
    for finalizer in finalizers.clone() {
        for problem in names::qualified_name(finalizer) {
            errors.push(FieldError::invalid(&path, finalizer.as_str(), problem));
        }
    }
    let has = |name: &str| finalizers.clone().any(|finalizer| finalizer == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let why = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid(
            &path,
            metadata.finalizers.clone().unwrap_or_default(),
            why,
        ));
    }
}

/// The finalizer of deletions that leave dependents behind.
pub(crate) const ORPHAN: &str = "orphan";
/// The finalizer of deletions that wait for dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

fn validate_owners(metadata: &ObjectMeta, root: &Path, errors: &mut ErrorList) {
    let path = root.child("ownerReferences");
    let owners = metadata.owner_references.iter().flatten();
    let mut controller: Option<&OwnerReference> = None;
    for (index, owner) in owners.enumerate() {
        let path = path.index(index);
        for (field, value) in [
            ("apiVersion", &owner.api_version),
            ("kind", &owner.kind),
            ("name", &owner.name),
            ("uid", &owner.uid),
        ] {
            if value.is_empty() {
                errors.push(FieldError::required(&path.child(field), "must not be empty"));
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            errors.push(FieldError::invalid(
                &path,
                "v1, Kind=Event",
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                    first.name, owner.name
                );
                errors.push(FieldError::invalid(
                    &root.child("ownerReferences"),
                    owner.name.as_str(),
                    why,
                ));
            }
            controller = Some(owner);
        }
    }
}

/// Upstream's `ValidateObjectMetaUpdate`.
pub(crate) fn validate_update(new: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    let root = Path::new("metadata");
    let mut errors = ErrorList::new();
    let time = |time: &Option<Time>| time.as_ref().map(|time| time.0.to_string());
    let seconds = |seconds: Option<i64>| seconds.map(|seconds| seconds.to_string());
    for (field, new, old) in [
        ("name", new.name.clone(), old.name.clone()),
        ("namespace", new.namespace.clone(), old.namespace.clone()),
        ("uid", new.uid.clone(), old.uid.clone()),
        (
            "creationTimestamp",
            time(&new.creation_timestamp),
            time(&old.creation_timestamp),
        ),
        (
            "deletionTimestamp",
            time(&new.deletion_timestamp),
            time(&old.deletion_timestamp),
        ),
        (
            "deletionGracePeriodSeconds",
            seconds(new.deletion_grace_period_seconds),
            seconds(old.deletion_grace_period_seconds),
        ),
    ] {
        if new != old {
            let value = new.map_or(serde_json::Value::Null, serde_json::Value::from);
            errors.push(FieldError::invalid(
                &root.child(field),
                value,
                "field is immutable",
            ));
        }
    }
    if old.deletion_timestamp.is_some() {
        let added: Vec<&str> = new_finalizers(new, old);
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|name| orch_core::field::quote(name)).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(FieldError::forbidden(&root.child("finalizers"), why));
        }
    }
    validate_common(new, &root, &mut errors);
    errors
}

fn new_finalizers<'a>(new: &'a ObjectMeta, old: &ObjectMeta) -> Vec<&'a str> {
    let known = |name: &String| old.finalizers.iter().flatten().any(|old| old == name);
    new.finalizers
        .iter()
        .flatten()
        .filter(|name| !known(name))
        .map(String::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn generated_names_have_five_characters_of_their_own() {
        let name = generate_name("web-");
        assert_eq!(name.len(), 9);
        assert!(name[4..].bytes().all(|sign| ALPHABET.contains(&sign)));
        assert_eq!(generate_name(&"x".repeat(100)).len(), 63);
    }

    #[test]
    fn a_name_is_needed_and_checked() {
        let meta = ObjectMeta {
            namespace: Some("a".into()),
            ..ObjectMeta::default()
        };
        assert_eq!(
            texts(&validate(&meta, NameRule::DnsSubdomain, true)),
            ["metadata.name: Required value: name or generateName is required"]
        );
        let meta = ObjectMeta {
            name: Some("A_b".into()),
            ..ObjectMeta::default()
        };
        let errors = texts(&validate(&meta, NameRule::DnsSubdomain, false));
        assert!(
            errors[0].starts_with("metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain"),
            "{errors:?}"
        );
        assert!(validate(&meta, NameRule::PathSegment, false).is_empty());
    }

    #[test]
    fn identity_cannot_be_changed() {
        let old = ObjectMeta {
            name: Some("a".into()),
            uid: Some("1".into()),
            ..ObjectMeta::default()
        };
        let new = ObjectMeta {
            uid: Some("2".into()),
            ..old.clone()
        };
        assert_eq!(
            texts(&validate_update(&new, &old)),
            ["metadata.uid: Invalid value: \"2\": field is immutable"]
        );
    }

    #[test]
    fn a_deletion_takes_no_new_finalizers() {
        let old = ObjectMeta {
            deletion_timestamp: Some(now()),
            ..ObjectMeta::default()
        };
        let new = ObjectMeta {
            finalizers: Some(vec!["a.b/c".into()]),
            ..old.clone()
        };
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
              finalizers []string{\"a.b/c\"}"
            ]
        );
    }
}
