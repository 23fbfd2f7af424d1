//! Selecting nodes, as a pod's required node affinity does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector as ApiNodeSelector, NodeSelectorRequirement, NodeSelectorTerm as ApiNodeSelectorTerm,
};

use super::{LabelSelector, Operator, Requirement, SelectorError};

/// Selects nodes that match at least one term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeSelector {
    terms: Vec<NodeSelectorTerm>,
}

/// Selects nodes whose labels and name meet all of its requirements. A term without any selects none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeSelectorTerm {
    labels: LabelSelector,
    /// On `metadata.name`, the only field there is.
    name: LabelSelector,
}

impl NodeSelector {
    /// The selector of an API object.
    ///
    /// # Errors
    /// When an operator, key or value is wrong.
    pub fn from_api(selector: &ApiNodeSelector) -> Result<Self, SelectorError> {
        let terms = selector
            .node_selector_terms
            .iter()
            .map(NodeSelectorTerm::from_api);
        terms
            .collect::<Result<_, _>>()
            .map(|terms| NodeSelector { terms })
    }

    /// Whether a node of this name and these labels is selected.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().any(|term| term.matches(name, labels))
    }

    /// The terms.
    pub fn terms(&self) -> &[NodeSelectorTerm] {
        &self.terms
    }
}

impl NodeSelectorTerm {
    /// The term of an API object.
    ///
    /// # Errors
    /// When an operator, key or value is wrong.
    pub fn from_api(term: &ApiNodeSelectorTerm) -> Result<Self, SelectorError> {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if labels.is_empty() && fields.is_empty() {
            return Ok(NodeSelectorTerm {
                labels: LabelSelector::nothing(),
                name: LabelSelector::nothing(),
            });
        }
        let labels = labels.iter().map(requirement).collect::<Result<_, _>>()?;
        let fields = fields.iter().map(field_requirement).collect::<Result<_, _>>()?;
        Ok(NodeSelectorTerm {
            labels: LabelSelector::from_requirements(labels),
            name: LabelSelector::from_requirements(fields),
        })
    }

    /// Whether a node of this name and these labels is selected.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.labels.matches(labels)
            && self
                .name
                .matches_with(|key| (key == "metadata.name").then_some(name))
    }

    /// The one node that this term can select, if its name is given.
    pub fn node_name(&self) -> Option<&str> {
        self.name.exact_value("metadata.name")
    }
}

fn operator(name: &str) -> Result<Operator, SelectorError> {
    match name {
        "In" => Ok(Operator::In),
        "NotIn" => Ok(Operator::NotIn),
        "Exists" => Ok(Operator::Exists),
        "DoesNotExist" => Ok(Operator::DoesNotExist),
        "Gt" => Ok(Operator::GreaterThan),
        "Lt" => Ok(Operator::LessThan),
        other => Err(SelectorError::Operator {
            operator: other.to_owned(),
            kind: "node selector",
        }),
    }
}

fn requirement(api: &NodeSelectorRequirement) -> Result<Requirement, SelectorError> {
    let values = api.values.clone().unwrap_or_default();
    Ok(Requirement::new(&api.key, operator(&api.operator)?, values)?)
}

/// A node's name is longer than a label's value may be, so that its syntax is not checked here.
fn field_requirement(api: &NodeSelectorRequirement) -> Result<Requirement, SelectorError> {
    let values = api.values.clone().unwrap_or_default();
    match operator(&api.operator)? {
        operator @ (Operator::In | Operator::NotIn) => Ok(Requirement::unchecked(&api.key, operator, values)),
        _ => Err(SelectorError::Operator {
            operator: api.operator.clone(),
            kind: "node field selector",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(labels: &[(&str, &str, &[&str])], fields: &[(&str, &str, &[&str])]) -> ApiNodeSelectorTerm {
        let all = |list: &[(&str, &str, &[&str])]| {
            let requirements = list
                .iter()
                .map(|(key, operator, values)| NodeSelectorRequirement {
                    key: (*key).into(),
                    operator: (*operator).into(),
                    values: Some(values.iter().map(|v| (*v).into()).collect()),
                });
            Some(requirements.collect())
        };
        ApiNodeSelectorTerm {
            match_expressions: all(labels),
            match_fields: all(fields),
        }
    }

    #[test]
    fn terms_are_ored_and_their_requirements_anded() {
        let selector = NodeSelector::from_api(&ApiNodeSelector {
            node_selector_terms: vec![
                term(&[("zone", "In", &["a"]), ("cores", "Gt", &["4"])], &[]),
                term(&[], &[("metadata.name", "In", &["n1"])]),
                term(&[], &[]),
            ],
        })
        .unwrap();
        let labels =
            |cores: &str| BTreeMap::from([("zone".into(), "a".into()), ("cores".into(), cores.into())]);
        assert!(selector.matches("n2", &labels("8")));
        assert!(!selector.matches("n2", &labels("4")));
        assert!(selector.matches("n1", &BTreeMap::new()));
        assert_eq!(selector.terms()[1].node_name(), Some("n1"));
    }

    #[test]
    fn fields_know_only_in_and_notin() {
        assert!(NodeSelectorTerm::from_api(&term(&[], &[("metadata.name", "Exists", &[])])).is_err());
    }
}
