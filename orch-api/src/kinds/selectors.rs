//! Label selectors and label maps as fields of objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::check::{Check, Path};
use super::format;
use super::text::{entries, list};

type Labels = Option<BTreeMap<String, String>>;

/// The syntax of a label map.
pub(crate) fn labels(check: &mut Check, labels: &Labels, path: &Path) {
    for (key, value) in entries(labels) {
        check.faults(path, key, format::qualified_name(key));
        check.faults(path, value, format::label_value(value));
    }
}

/// The syntax of a label selector. An absent one is sound.
pub(crate) fn validate(check: &mut Check, selector: Option<&LabelSelector>, path: &Path) {
    let Some(selector) = selector else { return };
    labels(check, &selector.match_labels, &path.child("matchLabels"));
    for (i, requirement) in list(&selector.match_expressions).iter().enumerate() {
        self::requirement(check, requirement, &path.child("matchExpressions").index(i));
    }
}

fn requirement(check: &mut Check, requirement: &LabelSelectorRequirement, path: &Path) {
    let values = list(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                check.required(
                    &path.child("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                check.forbidden(&path.child("values"), why);
            }
        }
        other => check.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    check.faults(
        &path.child("key"),
        &requirement.key,
        format::qualified_name(&requirement.key),
    );
    for (i, value) in values.iter().enumerate() {
        check.faults(&path.child("values").index(i), value, format::label_value(value));
    }
}

/// Whether a selector selects everything because it says nothing.
pub(crate) fn is_empty(selector: &LabelSelector) -> bool {
    entries(&selector.match_labels).next().is_none() && list(&selector.match_expressions).is_empty()
}

/// Whether a selector matches labels. A requirement with an unknown operator matches nothing.
pub(crate) fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let value = |key: &str| labels.as_ref().and_then(|labels| labels.get(key));
    entries(&selector.match_labels).all(|(key, wanted)| value(key) == Some(wanted))
        && list(&selector.match_expressions).iter().all(|one| {
            let found = value(&one.key);
            let listed = found.is_some_and(|found| list(&one.values).contains(found));
            match one.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// A selector as kubectl prints it: `a=b,c in (d,e),!f`, and `<none>` when it says nothing.
pub(crate) fn show(selector: Option<&LabelSelector>) -> String {
    let shown = selector.map(text).unwrap_or_default();
    if shown.is_empty() {
        "<none>".to_owned()
    } else {
        shown
    }
}

/// A selector in the syntax of the `labelSelector` parameter.
pub(crate) fn text(selector: &LabelSelector) -> String {
    let labels = entries(&selector.match_labels).map(|(key, value)| (key.as_str(), format!("{key}={value}")));
    let expressions = list(&selector.match_expressions)
        .iter()
        .map(|one| (one.key.as_str(), expression(one)));
    let mut parts: Vec<(&str, String)> = labels.chain(expressions).collect();
    parts.sort();
    parts
        .into_iter()
        .map(|(_, part)| part)
        .collect::<Vec<_>>()
        .join(",")
}

fn expression(one: &LabelSelectorRequirement) -> String {
    let mut values = list(&one.values).to_vec();
    values.sort();
    let values = values.join(",");
    match one.operator.as_str() {
        "In" => format!("{} in ({values})", one.key),
        "NotIn" => format!("{} notin ({values})", one.key),
        "Exists" => one.key.clone(),
        _ => format!("!{}", one.key),
    }
}

/// Labels as kubectl prints them: `a=b,c=d`, and `<none>` when there are none.
pub(crate) fn show_labels(labels: &Labels) -> String {
    let parts: Vec<String> = entries(labels)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: serde_json::Value) -> LabelSelector {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_selector_is_shown_in_the_order_of_its_keys() {
        let selector = selector(serde_json::json!({
            "matchLabels": {"b": "1"},
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["y", "x"]},
                {"key": "c", "operator": "DoesNotExist"},
            ],
        }));
        assert_eq!(show(Some(&selector)), "a in (x,y),b=1,!c");
        assert_eq!(show(None), "<none>");
    }

    #[test]
    fn an_absent_label_satisfies_not_in_but_not_in() {
        let none = None;
        let one = |operator: &str| {
            selector(
                serde_json::json!({"matchExpressions": [{"key": "a", "operator": operator, "values": ["b"]}]}),
            )
        };
        assert!(matches(&one("NotIn"), &none));
        assert!(!matches(&one("In"), &none));
    }

    #[test]
    fn a_requirement_without_values_is_refused_at_its_values() {
        let selector = selector(serde_json::json!({"matchExpressions": [{"key": "a", "operator": "In"}]}));
        let errors = Check::run(|check| validate(check, Some(&selector), &Path::new("selector")));
        assert_eq!(
            errors.to_string(),
            "selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
        );
    }
}
