//! Brings the built-in roles and bindings up to date when a server starts, as upstream: what is missing is made, what
//! was taken from a built-in one is added again, what somebody added stays. Whoever sets the annotation
//! `rbac.authorization.kubernetes.io/autoupdate: "false"` keeps an object as it is.

use k8s_openapi::api::rbac::v1::PolicyRule;
use orch_core::status::ApiError;
use serde_json::{Value, json};

use super::super::{GROUP, rule};
use super::controllers::{CONTROLLERS, PREFIX};
use super::{BindingSpec, cluster, metadata, namespaced, subject};
use crate::context::Context;
use crate::registry::Resource;
use crate::registry::options::WriteOptions;
use crate::registry::write::Write;
use crate::user::UserInfo;

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// An object that every cluster has.
struct Wanted {
    plural: &'static str,
    namespace: &'static str,
    object: Value,
}

impl Wanted {
    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Makes and completes the built-in roles and bindings.
pub(crate) async fn reconcile(
    context: &Context,
    user: &UserInfo,
    options: &WriteOptions,
) -> Result<(), ApiError> {
    let all = wanted();
    // All at once: a durable store then makes them all durable together.
    let written = futures::future::join_all(all.iter().map(|wanted| ensure(context, user, options, wanted)));
    written.await.into_iter().collect()
}

fn wanted() -> Vec<Wanted> {
    let cluster_role = |object| Wanted {
        plural: "clusterroles",
        namespace: "",
        object,
    };
    let cluster_binding = |object| Wanted {
        plural: "clusterrolebindings",
        namespace: "",
        object,
    };
    let mut all: Vec<Wanted> = cluster::ROLES
        .iter()
        .map(|role| cluster_role(role.object()))
        .collect();
    all.extend(
        cluster::BINDINGS
            .iter()
            .map(|binding| cluster_binding(binding.object("ClusterRole"))),
    );
    for (account, rules) in CONTROLLERS {
        let name = format!("{PREFIX}{account}");
        let rules: Vec<PolicyRule> = rules.iter().map(|rule| rule.rule()).collect();
        all.push(cluster_role(json!({"metadata": metadata(&name), "rules": rules})));
        all.push(cluster_binding(json!({
            "metadata": metadata(&name),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [subject(&format!("account:{account}"))],
        })));
    }
    all.extend(namespaced::ROLES.iter().map(|(namespace, role)| Wanted {
        plural: "roles",
        namespace,
        object: role.object(),
    }));
    let of = |(namespace, binding): &'static (&'static str, BindingSpec)| Wanted {
        plural: "rolebindings",
        namespace,
        object: binding.object("Role"),
    };
    all.extend(namespaced::BINDINGS.iter().map(of));
    all
}

async fn ensure(
    context: &Context,
    user: &UserInfo,
    options: &WriteOptions,
    wanted: &Wanted,
) -> Result<(), ApiError> {
    let Some(resource) = context.resources.fixed(GROUP, "v1", wanted.plural) else {
        return Ok(());
    };
    let write = Write {
        context,
        resource,
        namespace: wanted.namespace,
        subresource: None,
        user,
        options,
    };
    let written = match present(resource, wanted).await? {
        None => write.create(wanted.object.to_string().as_bytes()).await,
        Some(present) => match completed(&present, &wanted.object) {
            None => return Ok(()),
            Some(Completed::Changed(object)) => {
                write.replace(wanted.name(), object.to_string().as_bytes()).await
            }
            // A binding keeps its role for life, so that it has to be made anew.
            Some(Completed::Replaced(object)) => {
                write.delete(wanted.name(), &Default::default()).await?;
                write.create(object.to_string().as_bytes()).await
            }
        },
    };
    match written {
        Ok(_) => Ok(()),
        // Another server was faster.
        Err(error) if error.is_already_exists() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn present(resource: &Resource, wanted: &Wanted) -> Result<Option<Value>, ApiError> {
    let key = resource.info().key(wanted.namespace, wanted.name());
    let snapshot = resource.cache.any().await?;
    let entry = snapshot.get(key.as_bytes());
    entry
        .map(|entry| serde_json::from_slice(&entry.json).map_err(ApiError::internal))
        .transpose()
}

/// What has to be written.
enum Completed {
    Changed(Value),
    Replaced(Value),
}

/// The present object with what it lacks; `None` when it lacks nothing.
fn completed(present: &Value, wanted: &Value) -> Option<Completed> {
    if present["metadata"]["annotations"][AUTO_UPDATE] == "false" {
        return None;
    }
    let mut object = present.clone();
    for map in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][map].as_object().into_iter().flatten() {
            if object["metadata"][map][key].is_null() {
                object["metadata"][map][key] = value.clone();
            }
        }
    }
    let aggregates = wanted.get("aggregationRule").is_some();
    if aggregates {
        complete_list(&mut object, wanted, &["aggregationRule", "clusterRoleSelectors"]);
    } else if wanted.get("rules").is_some() {
        complete_rules(&mut object, wanted);
    }
    if wanted.get("roleRef").is_some() {
        complete_list(&mut object, wanted, &["subjects"]);
        if object["roleRef"] != wanted["roleRef"] {
            object["roleRef"] = wanted["roleRef"].clone();
            object["metadata"] = json!({
                "name": wanted["metadata"]["name"], "labels": object["metadata"]["labels"],
                "annotations": object["metadata"]["annotations"],
            });
            return Some(Completed::Replaced(object));
        }
    }
    (object != *present).then_some(Completed::Changed(object))
}

/// Adds the rights that no present rule covers.
fn complete_rules(object: &mut Value, wanted: &Value) {
    let read = |value: &Value| -> Vec<PolicyRule> {
        serde_json::from_value(value["rules"].clone()).unwrap_or_default()
    };
    let (mut rules, wanted) = (read(object), read(wanted));
    let lacking: Vec<PolicyRule> = wanted
        .into_iter()
        .filter(|rule| !rule::missing(&rules, std::slice::from_ref(rule)).is_empty())
        .collect();
    if !lacking.is_empty() {
        rules.extend(lacking);
        object["rules"] = json!(rules);
    }
}

fn complete_list(object: &mut Value, wanted: &Value, path: &[&str]) {
    let wanted = path.iter().fold(wanted, |value, part| &value[part]);
    if wanted.is_null() {
        return;
    }
    let list = path.iter().fold(object, |value, part| &mut value[part]);
    let mut items = list.as_array().cloned().unwrap_or_default();
    let before = items.len();
    for item in wanted.as_array().into_iter().flatten() {
        if !items.contains(item) {
            items.push(item.clone());
        }
    }
    if items.len() != before {
        *list = items.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Value {
        let found = wanted()
            .into_iter()
            .find(|one| one.plural == "clusterroles" && one.name() == name);
        found.expect("a built-in role").object
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written() {
        for one in wanted() {
            assert!(completed(&one.object, &one.object).is_none(), "{}", one.name());
        }
    }

    #[test]
    fn what_was_taken_comes_back_and_what_was_added_stays() {
        let wanted = role("system:discovery");
        let mut present = wanted.clone();
        present["rules"] = json!([{"verbs": ["get"], "nonResourceURLs": ["/mine"]}]);
        present["metadata"]["labels"] = json!({"mine": "1"});
        let Some(Completed::Changed(object)) = completed(&present, &wanted) else {
            panic!("it lacks its rules");
        };
        assert_eq!(object["rules"][0]["nonResourceURLs"][0], "/mine");
        assert_eq!(object["rules"][1], wanted["rules"][0]);
        assert_eq!(
            object["metadata"]["labels"]["kubernetes.io/bootstrapping"],
            "rbac-defaults"
        );
        assert_eq!(object["metadata"]["labels"]["mine"], "1");
        present["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert!(completed(&present, &wanted).is_none());
    }

    #[test]
    fn names_are_unique_and_every_binding_has_its_role() {
        let all = wanted();
        let names: std::collections::BTreeSet<_> = all
            .iter()
            .map(|one| (one.plural, one.namespace, one.name()))
            .collect();
        assert_eq!(names.len(), all.len());
        for one in all.iter().filter(|one| one.plural.ends_with("bindings")) {
            let role = one.object["roleRef"]["name"].as_str().unwrap();
            let plural = one.plural.replace("bindings", "s");
            assert!(
                all.iter().any(|other| other.plural == plural
                    && other.namespace == one.namespace
                    && other.name() == role),
                "{role}"
            );
        }
    }
}
