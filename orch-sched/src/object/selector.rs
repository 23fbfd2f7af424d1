use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use orch_core::selector::{LabelSelector, Operator, Requirement};
use std::collections::BTreeMap;

/// Reads a label selector; none selects nothing. Neither does one that makes no sense, which API servers do not admit.
pub(super) fn selector(selector: Option<&meta::LabelSelector>) -> LabelSelector {
    LabelSelector::from_api_option(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

/// Adds a requirement for each key that the pod has a label of: that other pods have the same value (`In`) or another one
/// (`NotIn`). API servers do this when a pod is created; where one has, its requirement stands.
pub(super) fn with_label_keys(
    selector: LabelSelector,
    keys: Option<&Vec<String>>,
    operator: Operator,
    labels: &BTreeMap<String, String>,
) -> LabelSelector {
    let merged = |key: &str| {
        let mut all = selector.requirements().iter();
        all.any(|r| r.key() == key && r.operator() == operator)
    };
    let added: Vec<Requirement> = keys
        .into_iter()
        .flatten()
        .filter(|key| !merged(key))
        .filter_map(|key| Requirement::new(key, operator, vec![labels.get(key)?.clone()]).ok())
        .collect();
    if added.is_empty() || selector.is_nothing() {
        return selector;
    }
    LabelSelector::from_requirements([selector.requirements(), &added].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str, operator: Operator) -> String {
        let labels = BTreeMap::from([("rev".to_owned(), "2".to_owned())]);
        let keys = vec!["rev".to_owned(), "absent".to_owned()];
        let selector = LabelSelector::parse(text).unwrap();
        with_label_keys(selector, Some(&keys), operator, &labels).to_string()
    }

    #[test]
    fn keys_are_added_once_and_only_those_the_pod_has() {
        assert_eq!(merged("app=web", Operator::In), "app=web,rev in (2)");
        assert_eq!(merged("app=web", Operator::NotIn), "app=web,rev notin (2)");
        assert_eq!(merged("rev in (1)", Operator::In), "rev in (1)");
        assert_eq!(merged("rev in (1)", Operator::NotIn), "rev in (1),rev notin (2)");
    }

    #[test]
    fn no_selector_selects_nothing_whatever_the_keys() {
        let labels = BTreeMap::from([("rev".to_owned(), "2".to_owned())]);
        let none = with_label_keys(selector(None), Some(&vec!["rev".into()]), Operator::In, &labels);
        assert!(none.is_nothing());
    }
}
