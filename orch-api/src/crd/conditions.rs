//! The conditions of a definition, and its accepted names: decided without I/O.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition as Condition,
    CustomResourceDefinitionNames as Names, CustomResourceDefinitionStatus as Status,
};

use crate::registry::metadata::now;

pub(crate) const ESTABLISHED: &str = "Established";
pub(crate) const NAMES_ACCEPTED: &str = "NamesAccepted";
pub(crate) const TERMINATING: &str = "Terminating";
const API_APPROVED: &str = "KubernetesAPIApprovalPolicyConformant";
/// The annotation that links to the approval of an API in Kubernetes' own groups.
pub(crate) const APPROVAL_ANNOTATION: &str = "api-approved.kubernetes.io";

/// Sets a condition; its time moves only when its status does.
pub(crate) fn set(status: &mut Status, mut condition: Condition) {
    let all = status.conditions.get_or_insert_default();
    match all.iter_mut().find(|one| one.type_ == condition.type_) {
        Some(old) => {
            condition.last_transition_time = if old.status == condition.status {
                old.last_transition_time.take()
            } else {
                Some(now())
            };
            *old = condition;
        }
        None => {
            condition.last_transition_time = Some(now());
            all.push(condition);
        }
    }
}

pub(crate) fn is_true(definition: &CustomResourceDefinition, ty: &str) -> bool {
    let conditions = definition
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|one| one.type_ == ty && one.status == "True")
}

fn condition(ty: &str, status: bool, reason: &str, message: &str) -> Condition {
    Condition {
        type_: ty.into(),
        status: if status { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        ..Condition::default()
    }
}

/// The names that other definitions of a group have.
#[derive(Debug, Default)]
struct Taken<'a> {
    resources: BTreeSet<&'a str>,
    kinds: BTreeSet<&'a str>,
}

impl<'a> Taken<'a> {
    fn of(
        definition: &CustomResourceDefinition,
        all: impl Iterator<Item = &'a CustomResourceDefinition>,
    ) -> Self {
        let mut taken = Self::default();
        for other in all {
            if other.spec.group != definition.spec.group || other.metadata.name == definition.metadata.name {
                continue;
            }
            let Some(names) = other
                .status
                .as_ref()
                .and_then(|status| status.accepted_names.as_ref())
            else {
                continue;
            };
            taken.resources.insert(&names.plural);
            taken.resources.extend(names.singular.as_deref());
            taken
                .resources
                .extend(names.short_names.iter().flatten().map(String::as_str));
            taken.kinds.insert(&names.kind);
            taken.kinds.extend(names.list_kind.as_deref());
        }
        taken.resources.remove("");
        taken.kinds.remove("");
        taken
    }
}

/// The status that a definition should have beside those others. Equal to the present one when there is nothing to say.
pub(crate) fn status<'a>(
    definition: &CustomResourceDefinition,
    all: impl Iterator<Item = &'a CustomResourceDefinition>,
) -> Status {
    let mut status = definition.status.clone().unwrap_or_default();
    let (accepted, problem) = accept(definition, &Taken::of(definition, all));
    status.accepted_names = Some(accepted);
    let fine = problem.is_none();
    set(
        &mut status,
        problem.unwrap_or_else(|| condition(NAMES_ACCEPTED, true, "NoConflicts", "no conflicts found")),
    );
    let words = "the initial names have been accepted";
    if fine && !is_true(definition, ESTABLISHED) {
        set(
            &mut status,
            condition(ESTABLISHED, true, "InitialNamesAccepted", words),
        );
    } else if !is_true(definition, ESTABLISHED) {
        set(
            &mut status,
            condition(ESTABLISHED, false, "NotAccepted", "not all names are accepted"),
        );
    }
    if let Some(approval) = approval(definition) {
        set(&mut status, approval);
    }
    status
}

/// The names that the definition may have, which are its old ones where the new ones are taken.
fn accept(definition: &CustomResourceDefinition, taken: &Taken<'_>) -> (Names, Option<Condition>) {
    let wanted = &definition.spec.names;
    let mut accepted = definition
        .status
        .as_ref()
        .and_then(|status| status.accepted_names.clone())
        .unwrap_or_default();
    let mut problem = None;
    let in_use = |name: &str| format!("{} is already in use", orch_core::field::quote(name));
    let mut reject = |reason: &str, message: &str| {
        problem = Some(condition(NAMES_ACCEPTED, false, reason, message));
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if taken.resources.contains(wanted.plural.as_str()) {
        reject("PluralConflict", &in_use(&wanted.plural));
    } else {
        accepted.plural.clone_from(&wanted.plural);
    }
    if taken.resources.contains(text(&wanted.singular).as_str()) {
        reject("SingularConflict", &in_use(&text(&wanted.singular)));
    } else {
        accepted.singular.clone_from(&wanted.singular);
    }
    let conflicts: Vec<String> = wanted
        .short_names
        .iter()
        .flatten()
        .filter(|name| taken.resources.contains(name.as_str()))
        .map(|name| in_use(name))
        .collect();
    match conflicts.as_slice() {
        [] => accepted.short_names.clone_from(&wanted.short_names),
        [one] => reject("ShortNamesConflict", one),
        many => reject("ShortNamesConflict", &format!("[{}]", many.join(", "))),
    }
    if taken.kinds.contains(wanted.kind.as_str()) {
        reject("KindConflict", &in_use(&wanted.kind));
    } else {
        accepted.kind.clone_from(&wanted.kind);
    }
    if taken.kinds.contains(text(&wanted.list_kind).as_str()) {
        reject("ListKindConflict", &in_use(&text(&wanted.list_kind)));
    } else {
        accepted.list_kind.clone_from(&wanted.list_kind);
    }
    accepted.categories.clone_from(&wanted.categories);
    (accepted, problem)
}

/// Whether a group is Kubernetes' own, whose APIs need an approval.
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

fn approval(definition: &CustomResourceDefinition) -> Option<Condition> {
    if !is_protected(&definition.spec.group) {
        return None;
    }
    let annotations = definition.metadata.annotations.as_ref();
    let words = annotations.and_then(|all| all.get(APPROVAL_ANNOTATION));
    Some(match words.map(String::as_str) {
        Some(words) if words.starts_with("unapproved") => condition(
            API_APPROVED,
            false,
            "UnapprovedAnnotation",
            &format!("not approved: {}", orch_core::field::quote(words)),
        ),
        Some(words) if words.starts_with("http://") || words.starts_with("https://") => condition(
            API_APPROVED,
            true,
            "ApprovedAnnotation",
            &format!("approved in {words}"),
        ),
        Some(words) => {
            let why = format!(
                "protected groups must have approval annotation \"{APPROVAL_ANNOTATION}\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111, got {}",
                orch_core::field::quote(words)
            );
            condition(API_APPROVED, false, "InvalidAnnotation", &why)
        }
        None => {
            let why = format!(
                "protected groups must have approval annotation \"{APPROVAL_ANNOTATION}\", see https://github.com/kubernetes/enhancements/pull/1111"
            );
            condition(API_APPROVED, false, "MissingAnnotation", &why)
        }
    })
}

/// The condition of a definition whose objects are being deleted, or have been.
pub(crate) fn terminating(finished: bool) -> Condition {
    if finished {
        condition(
            TERMINATING,
            false,
            "InstanceDeletionCompleted",
            "removed all instances",
        )
    } else {
        condition(
            TERMINATING,
            true,
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress",
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn definition(plural: &str, names: Value) -> CustomResourceDefinition {
        let mut all = json!({"plural": plural, "singular": plural.trim_end_matches('s'), "kind": plural, "listKind": format!("{plural}List")});
        for (name, value) in names.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": all, "scope": "Cluster", "versions": []},
        }))
        .unwrap()
    }

    fn words(status: &Status, ty: &str) -> (String, String) {
        let all = status.conditions.clone().unwrap();
        let one = all.into_iter().find(|one| one.type_ == ty).unwrap();
        (one.status, one.reason.unwrap())
    }

    #[test]
    fn the_first_names_are_accepted_and_established() {
        let one = definition("widgets", json!({"shortNames": ["w"]}));
        let status = status(&one, std::iter::empty());
        assert_eq!(
            words(&status, "NamesAccepted"),
            ("True".into(), "NoConflicts".into())
        );
        assert_eq!(
            words(&status, "Established"),
            ("True".into(), "InitialNamesAccepted".into())
        );
        assert_eq!(status.accepted_names.unwrap().short_names.unwrap(), ["w"]);
    }

    #[test]
    fn a_taken_name_is_told_and_not_accepted() {
        let mut first = definition("widgets", json!({"shortNames": ["w"]}));
        first.status = Some(status(&first, std::iter::empty()));
        let second = definition("wheels", json!({"shortNames": ["w"]}));
        let found = status(&second, std::iter::once(&first));
        assert_eq!(
            words(&found, "NamesAccepted"),
            ("False".into(), "ShortNamesConflict".into())
        );
        assert_eq!(
            words(&found, "Established"),
            ("False".into(), "NotAccepted".into())
        );
        assert_eq!(found.accepted_names.unwrap().short_names, None);
        let mut elsewhere = second;
        elsewhere.spec.group = "example.org".into();
        assert_eq!(
            words(&status(&elsewhere, std::iter::once(&first)), "Established").0,
            "True"
        );
    }

    #[test]
    fn a_second_look_changes_nothing() {
        let mut one = definition("widgets", json!({}));
        one.status = Some(status(&one, std::iter::empty()));
        assert_eq!(one.status.clone().unwrap(), status(&one, std::iter::empty()));
    }
}
