//! Cluster roles that are put together of others, by labels.
//!
//! Upstream has a controller for this in kube-controller-manager. Here the server does it itself, so that `admin`, `edit`
//! and `view` mean something without controllers too. When upstream's controller runs against this server, both
//! compute the same rules, and the second write changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, PolicyRule};
use orch_core::selector::LabelSelector;
use orch_core::status::ApiError;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::GROUP;
use crate::cache::entry::Entry;
use crate::cache::topic::Topic;
use crate::context::Context;
use crate::registry::Resource;
use crate::registry::options::WriteOptions;
use crate::registry::write::{Candidate, Write};
use crate::user::{MASTERS, UserInfo};

/// Who writes the rules, as upstream's controller names itself.
const MANAGER: &str = "clusterrole-aggregation-controller";
/// How long to wait before looking again after a failure.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// A cluster role, as far as aggregation looks at it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slim {
    #[serde(default)]
    aggregation_rule: Option<AggregationRule>,
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

/// A cluster role of which others may be put together.
struct Part {
    name: String,
    labels: BTreeMap<String, String>,
    /// What it is put together of, if it is.
    selectors: Option<Vec<LabelSelector>>,
    stored: Vec<PolicyRule>,
    rules: Vec<PolicyRule>,
}

impl Part {
    fn new(entry: &Entry) -> Option<Self> {
        let role: Slim = serde_json::from_slice(&entry.json).ok()?;
        let selectors = role.aggregation_rule.and_then(|rule| rule.cluster_role_selectors);
        let read = |selectors: Vec<_>| {
            let read = selectors
                .iter()
                .map(|one| LabelSelector::from_api_option(Some(one)));
            read.filter_map(Result::ok).collect::<Vec<_>>()
        };
        let selectors = selectors.filter(|selectors| !selectors.is_empty()).map(read);
        let stored = role.rules.unwrap_or_default();
        Some(Self {
            name: entry.name.to_string(),
            labels: entry.labels.clone(),
            rules: if selectors.is_some() {
                Vec::new()
            } else {
                stored.clone()
            },
            selectors,
            stored,
        })
    }
}

/// The cluster roles whose rules are not those that their selectors find, with the rules that they should have.
///
/// Roles may be put together of roles that are put together, even in circles. All begin empty and take over rules until
/// nothing is added any more, so nobody has a rule that no plain role gives.
fn outdated(mut parts: Vec<Part>) -> Vec<Part> {
    loop {
        let mut settled = true;
        for at in 0..parts.len() {
            let Some(rules) = gathered(&parts, at) else {
                continue;
            };
            if parts[at].rules != rules {
                parts[at].rules = rules;
                settled = false;
            }
        }
        if settled {
            parts.retain(|part| part.rules != part.stored);
            return parts;
        }
    }
}

/// The rules that one role finds now, in the order of the roles' names, as upstream; `None` for a plain role.
fn gathered(parts: &[Part], at: usize) -> Option<Vec<PolicyRule>> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in parts[at].selectors.as_ref()? {
        let others = parts.iter().enumerate().filter(|(other, _)| *other != at);
        let matching = others.filter(|(_, other)| selector.matches(&other.labels));
        for rule in matching.flat_map(|(_, other)| &other.rules) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Some(rules)
}

fn cluster_roles(context: &Context) -> Option<&Arc<Resource>> {
    context.resources.fixed(GROUP, "v1", "clusterroles")
}

/// Brings all aggregated cluster roles up to date, those too which are put together of aggregated ones.
pub(crate) async fn settle(context: &Context) -> Result<(), ApiError> {
    let Some(resource) = cluster_roles(context) else {
        return Ok(());
    };
    let snapshot = resource.cache.fresh().await?;
    let prefix = resource.info().prefix();
    let entries = snapshot.range(prefix.as_bytes(), std::ops::Bound::Unbounded);
    let outdated = outdated(entries.filter_map(|entry| Part::new(entry)).collect());
    let writes = outdated
        .iter()
        .map(|part| store(context, resource, &part.name, &part.rules));
    for written in futures::future::join_all(writes).await {
        match written {
            Err(error) if error.is_not_found() => (),
            other => other?,
        }
    }
    Ok(())
}

async fn store(
    context: &Context,
    resource: &Resource,
    name: &str,
    rules: &[PolicyRule],
) -> Result<(), ApiError> {
    let write = Write {
        context,
        resource,
        namespace: "",
        subresource: None,
        user: &UserInfo::new("system:apiserver", [MASTERS]),
        options: &WriteOptions {
            field_manager: MANAGER.into(),
            ..WriteOptions::default()
        },
    };
    let none = || Ok(None);
    let changed = write.change(name, none, |live| {
        let mut object = live.object.clone();
        if let Some(role) = object.downcast_mut::<ClusterRole>() {
            role.rules = Some(rules.to_vec());
        }
        object.metadata_mut().resource_version = None;
        Ok(Candidate {
            object,
            warnings: Vec::new(),
            owners_known: false,
        })
    });
    changed.await.map(|_| ())
}

/// Follows the cluster roles and settles after every change.
pub(crate) async fn follow(context: Weak<Context>, shutdown: CancellationToken) {
    let work = async {
        loop {
            match until_changed(&context).await {
                None => return,
                Some(Ok(())) => (),
                Some(Err(error)) => {
                    tracing::warn!(%error, "cluster roles cannot be aggregated, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => (),
        () = work => (),
    }
}

/// Settles once, then waits for the next change. `None` when there is nothing left to follow.
async fn until_changed(context: &Weak<Context>) -> Option<Result<(), ApiError>> {
    let mut cursor = {
        let context = context.upgrade()?;
        let resource = cluster_roles(&context)?;
        let begin = async {
            let seen = resource.cache.any().await?.revision;
            let cursor = resource.cache.subscribe(Topic::All, seen).await?;
            settle(&context).await?;
            cursor.map_err(|error| ApiError::service_unavailable(error.to_string()))
        };
        match begin.await {
            Ok(cursor) => cursor,
            Err(error) => return Some(Err(error)),
        }
    };
    loop {
        match cursor.next(usize::MAX).await {
            Ok(batch) if batch.items.is_empty() => (),
            Ok(_) => return Some(Ok(())),
            Err(error) => return Some(Err(ApiError::service_unavailable(error.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn part(name: &str, labels: Value, selects: Option<&str>, verbs: &[&str]) -> Part {
        let rules: Vec<Value> = verbs
            .iter()
            .map(|verb| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}))
            .collect();
        let aggregation =
            selects.map(|label| json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}));
        let role = json!({"metadata": {"name": name, "labels": labels}, "rules": rules, "aggregationRule": aggregation});
        Part::new(&Entry::new("/x".into(), role.to_string().as_bytes(), 1).unwrap()).unwrap()
    }

    fn verbs(parts: Vec<Part>) -> Vec<(String, Vec<String>)> {
        let shown = outdated(parts).into_iter();
        shown
            .map(|part| {
                (
                    part.name,
                    part.rules.iter().flat_map(|rule| rule.verbs.clone()).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn a_role_of_roles_of_roles_gets_all_rules_once() {
        let parts = vec![
            part("admin", json!({}), Some("to-admin"), &["stale"]),
            part("edit", json!({"to-admin": "true"}), Some("to-edit"), &[]),
            part("plain", json!({"to-edit": "true"}), None, &["get", "list"]),
            part("view", json!({"to-edit": "true"}), Some("to-view"), &["get"]),
            part("view-plain", json!({"to-view": "true"}), None, &["get"]),
        ];
        let both = vec!["get".to_owned(), "list".to_owned()];
        let expected = [("admin".to_owned(), both.clone()), ("edit".to_owned(), both)];
        assert_eq!(verbs(parts), expected);
    }

    #[test]
    fn roles_in_a_circle_keep_no_rule_of_their_own() {
        let parts = vec![
            part("a", json!({"x": "true"}), Some("y"), &["get"]),
            part("b", json!({"y": "true"}), Some("x"), &["list"]),
        ];
        assert_eq!(verbs(parts), [("a".to_owned(), vec![]), ("b".to_owned(), vec![])]);
    }
}
