//! The roles and bindings that every cluster has, as upstream's bootstrap policy, and their reconciliation at start.

mod cluster;
mod controllers;
mod namespaced;
mod reconcile;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

#[allow(unused_imports, reason = "for the node authorizer")]
pub(crate) use self::cluster::NODE_RULES;
pub(crate) use self::reconcile::reconcile;

const READ: &str = "get list watch";
const WRITE: &str = "create update patch delete deletecollection";
const READ_WRITE: &str = "get list watch create update patch delete deletecollection";
const READ_UPDATE: &str = "get list watch update patch";
const CHANGE: &str = "create update patch";

/// A rule in few words: lists are separated by spaces, and the core group is `core`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuleSpec {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

/// Verbs on resources of groups.
const fn on(verbs: &'static str, groups: &'static str, resources: &'static str) -> RuleSpec {
    RuleSpec {
        verbs,
        groups,
        resources,
        names: "",
        urls: "",
    }
}

/// Verbs on some objects of resources of groups.
const fn on_named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> RuleSpec {
    RuleSpec {
        names,
        ..on(verbs, groups, resources)
    }
}

/// Verbs on paths.
const fn on_urls(verbs: &'static str, urls: &'static str) -> RuleSpec {
    RuleSpec {
        urls,
        ..on(verbs, "", "")
    }
}

/// Writing events.
const EVENTS: RuleSpec = on(CHANGE, "core events.k8s.io", "events");

/// A role.
#[derive(Debug)]
struct RoleSpec {
    name: &'static str,
    /// The role that takes this one's rules over.
    aggregates_to: &'static str,
    /// Whether it is put together of the roles that are labelled with its name.
    aggregates: bool,
    rules: &'static [RuleSpec],
}

const fn role(name: &'static str, rules: &'static [RuleSpec]) -> RoleSpec {
    RoleSpec {
        name,
        aggregates_to: "",
        aggregates: false,
        rules,
    }
}

/// A binding to the role of the same name. Subjects are `group:NAME`, `user:NAME` and `account:NAME`, the last in
/// `kube-system`.
#[derive(Debug)]
struct BindingSpec {
    name: &'static str,
    role: &'static str,
    subjects: &'static [&'static str],
}

const fn binding(name: &'static str, subjects: &'static [&'static str]) -> BindingSpec {
    BindingSpec {
        name,
        role: name,
        subjects,
    }
}

impl RuleSpec {
    /// The rule itself.
    pub(crate) fn rule(self) -> PolicyRule {
        let words = |text: &str| -> Vec<String> {
            let words = text.split_ascii_whitespace();
            words
                .map(|word| if word == "core" { "" } else { word }.to_owned())
                .collect()
        };
        let some = |text: &str| (!text.is_empty()).then(|| words(text));
        PolicyRule {
            verbs: words(self.verbs),
            api_groups: some(self.groups),
            resources: some(self.resources),
            resource_names: some(self.names),
            non_resource_urls: some(self.urls),
        }
    }
}

impl RoleSpec {
    fn object(&self) -> Value {
        let rules: Vec<PolicyRule> = self.rules.iter().map(|rule| rule.rule()).collect();
        let mut object = json!({"metadata": metadata(self.name), "rules": rules});
        if !self.aggregates_to.is_empty() {
            object["metadata"]["labels"][aggregation_label(self.aggregates_to)] = "true".into();
        }
        if self.aggregates {
            let labels = json!({aggregation_label(self.name): "true"});
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        }
        object
    }
}

fn aggregation_label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

impl BindingSpec {
    fn object(&self, role_kind: &str) -> Value {
        let subjects: Vec<Value> = self.subjects.iter().map(|one| subject(one)).collect();
        let mut object = json!({
            "metadata": metadata(self.name),
            "roleRef": {"apiGroup": super::GROUP, "kind": role_kind, "name": self.role},
        });
        if !subjects.is_empty() {
            object["subjects"] = subjects.into();
        }
        object
    }
}

fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once(':').unwrap_or(("user", text));
    match kind {
        "account" => json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": name}),
        "group" => json!({"kind": "Group", "apiGroup": super::GROUP, "name": name}),
        _ => json!({"kind": "User", "apiGroup": super::GROUP, "name": name}),
    }
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}
