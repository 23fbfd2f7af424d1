//! Who has which roles where, ready to be asked: rules by role, bindings by subject.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use orch_core::field::quote;
use serde::Deserialize;

use super::rule;
use crate::authz::{Attributes, Decision};
use crate::cache::entry::Entry;
use crate::user::UserInfo;

/// Prefix of the user names of service accounts.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// A role: its namespace, empty for a cluster role, and its name.
type RoleKey = (Box<str>, Box<str>);

/// All roles and bindings of a cluster. It is changed in place, one object at a time.
#[derive(Debug, Default)]
pub(crate) struct Index {
    roles: HashMap<RoleKey, Arc<[PolicyRule]>>,
    bindings: HashMap<Bytes, Arc<Binding>>,
    cluster: Grants,
    namespaces: HashMap<Box<str>, Grants>,
}

/// The bindings of one scope, by whom they are for.
#[derive(Debug, Default)]
struct Grants {
    users: HashMap<Box<str>, Vec<Grant>>,
    groups: HashMap<Box<str>, Vec<Grant>>,
}

/// One subject of one binding.
#[derive(Clone, Debug)]
struct Grant {
    binding: Arc<Binding>,
    subject: usize,
}

#[derive(Debug)]
struct Binding {
    name: Box<str>,
    /// Empty for a cluster role binding.
    namespace: Box<str>,
    role: RoleRef,
    subjects: Vec<Subject>,
}

#[derive(Deserialize)]
struct SlimRole {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimBinding {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

/// Why a binding gives nothing: its role is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoRole(String);

impl fmt::Display for NoRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[a, b]`, or `a` alone, as upstream prints several errors.
pub(crate) fn together(errors: &[NoRole]) -> String {
    match errors {
        [one] => one.to_string(),
        several => {
            let texts: Vec<String> = several.iter().map(NoRole::to_string).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}

impl Index {
    /// Takes over a change of a Role or ClusterRole.
    pub(crate) fn role(&mut self, before: Option<&Arc<Entry>>, after: Option<&Arc<Entry>>) {
        let key = |entry: &Entry| (entry.namespace.clone(), entry.name.clone());
        match after {
            Some(entry) => {
                let rules = match serde_json::from_slice::<SlimRole>(&entry.json) {
                    Ok(role) => role.rules.unwrap_or_default(),
                    Err(error) => {
                        tracing::error!(role = %entry.name, %error, "stored role cannot be decoded; it gives no rights");
                        Vec::new()
                    }
                };
                self.roles.insert(key(entry), rules.into());
            }
            None => {
                before.map(|entry| self.roles.remove(&key(entry)));
            }
        }
    }

    /// Takes over a change of a RoleBinding or ClusterRoleBinding.
    pub(crate) fn binding(&mut self, before: Option<&Arc<Entry>>, after: Option<&Arc<Entry>>) {
        if let Some(old) = before.and_then(|entry| self.bindings.remove(&entry.key)) {
            self.forget(&old);
        }
        let Some(entry) = after else { return };
        match serde_json::from_slice::<SlimBinding>(&entry.json) {
            Ok(slim) => self.learn(entry, slim),
            Err(error) => {
                tracing::error!(binding = %entry.name, %error, "stored binding cannot be decoded; it gives no rights");
            }
        }
    }

    fn learn(&mut self, entry: &Entry, slim: SlimBinding) {
        let binding = Arc::new(Binding {
            name: entry.name.clone(),
            namespace: entry.namespace.clone(),
            role: slim.role_ref,
            subjects: slim.subjects.unwrap_or_default(),
        });
        let grants = if binding.namespace.is_empty() {
            &mut self.cluster
        } else {
            self.namespaces.entry(binding.namespace.clone()).or_default()
        };
        for subject in 0..binding.subjects.len() {
            if let Some((map, name)) = grants.of(&binding, subject) {
                map.entry(name).or_default().push(Grant {
                    binding: Arc::clone(&binding),
                    subject,
                });
            }
        }
        self.bindings.insert(entry.key.clone(), binding);
    }

    fn forget(&mut self, binding: &Arc<Binding>) {
        let cluster = binding.namespace.is_empty();
        let grants = match self.namespaces.get_mut(&binding.namespace) {
            _ if cluster => &mut self.cluster,
            Some(grants) => grants,
            None => return,
        };
        for subject in 0..binding.subjects.len() {
            let Some((map, name)) = grants.of(binding, subject) else {
                continue;
            };
            if let Some(list) = map.get_mut(&name) {
                list.retain(|grant| !Arc::ptr_eq(&grant.binding, binding));
                if list.is_empty() {
                    map.remove(&name);
                }
            }
        }
        if !cluster && grants.users.is_empty() && grants.groups.is_empty() {
            self.namespaces.remove(&binding.namespace);
        }
    }

    /// Everything that a user gets in a namespace, and at the cluster scope: what applies everywhere comes first.
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &str) -> impl Iterator<Item = &'a Grant> + 'a {
        let here = (!namespace.is_empty())
            .then(|| self.namespaces.get(namespace))
            .flatten();
        [Some(&self.cluster), here]
            .into_iter()
            .flatten()
            .flat_map(move |grants| {
                let own = grants.users.get(user.name.as_str());
                let groups = user
                    .groups
                    .iter()
                    .filter_map(|group| grants.groups.get(group.as_str()));
                own.into_iter().chain(groups).flatten()
            })
    }

    /// Whether any rule that the user has allows what is wanted.
    pub(crate) fn decide(&self, user: &UserInfo, wanted: &Attributes) -> Decision {
        let mut errors = Vec::new();
        for grant in self.grants(user, &wanted.namespace) {
            match self.rules_of(&grant.binding.role, &grant.binding.namespace) {
                Ok(rules) if rules.iter().any(|rule| rule::allows(rule, wanted)) => {
                    return Decision::Allow(format!("RBAC: allowed by {grant}").into());
                }
                Ok(_) => (),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            return Decision::NO_OPINION;
        }
        Decision::NoOpinion(format!("RBAC: {}", together(&errors)).into())
    }

    /// All rules that the user has in a namespace, and what could not be found.
    pub(crate) fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<NoRole>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for grant in self.grants(user, namespace) {
            match self.rules_of(&grant.binding.role, &grant.binding.namespace) {
                Ok(rules) => all.extend(rules.iter().cloned()),
                Err(error) => errors.push(error),
            }
        }
        (all, errors)
    }

    /// The rules of the role that a binding in a namespace names.
    pub(crate) fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<&Arc<[PolicyRule]>, NoRole> {
        let (namespace, kind) = match role.kind.as_str() {
            "Role" => (namespace, "role"),
            "ClusterRole" => ("", "clusterrole"),
            other => {
                return Err(NoRole(format!(
                    "unsupported role reference kind: {}",
                    quote(other)
                )));
            }
        };
        let key = (Box::from(namespace), Box::from(role.name.as_str()));
        self.roles.get(&key).ok_or_else(|| {
            NoRole(format!(
                "{kind}.rbac.authorization.k8s.io {} not found",
                quote(&role.name)
            ))
        })
    }
}

/// Grants by the name of a user or of a group.
type ByName = HashMap<Box<str>, Vec<Grant>>;

impl Grants {
    /// Where a subject of a binding belongs, and under which name.
    fn of(&mut self, binding: &Binding, subject: usize) -> Option<(&mut ByName, Box<str>)> {
        let subject = &binding.subjects[subject];
        match subject.kind.as_str() {
            "User" => Some((&mut self.users, subject.name.as_str().into())),
            "Group" => Some((&mut self.groups, subject.name.as_str().into())),
            "ServiceAccount" => {
                let own = subject.namespace.as_deref().filter(|own| !own.is_empty());
                let namespace = own.unwrap_or(&binding.namespace);
                let name = format!("{SERVICE_ACCOUNT}{namespace}:{}", subject.name);
                (!namespace.is_empty()).then(|| (&mut self.users, name.into()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding {
            name,
            namespace,
            role,
            subjects,
        } = &*self.binding;
        let subject = &subjects[self.subject];
        let (kind, place) = match &**namespace {
            "" => ("ClusterRoleBinding", name.to_string()),
            namespace => ("RoleBinding", format!("{name}/{namespace}")),
        };
        let own = subject.namespace.as_deref().filter(|own| !own.is_empty());
        let who = match subject.kind.as_str() {
            "ServiceAccount" => format!("{}/{}", subject.name, own.unwrap_or(namespace)),
            _ => subject.name.clone(),
        };
        write!(
            f,
            "{kind} {} of {} {} to {} {}",
            quote(&place),
            role.kind,
            quote(&role.name),
            subject.kind,
            quote(&who)
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(path: &str, value: &Value, revision: u64) -> Arc<Entry> {
        let text = value.to_string();
        Arc::new(Entry::new(path.to_owned().into(), text.as_bytes(), revision).unwrap())
    }

    fn role(namespace: &str, name: &str, verbs: &[&str]) -> Arc<Entry> {
        let rules = json!([{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]);
        let metadata = json!({"name": name, "namespace": namespace});
        entry(
            &format!("/role/{namespace}/{name}"),
            &json!({"metadata": metadata, "rules": rules}),
            1,
        )
    }

    fn binding(namespace: &str, name: &str, role: (&str, &str), subjects: Value) -> Arc<Entry> {
        let value = json!({
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1}, "subjects": subjects,
        });
        entry(&format!("/binding/{namespace}/{name}"), &value, 1)
    }

    fn wanted(verb: &str, namespace: &str) -> Attributes {
        Attributes {
            verb: verb.to_owned(),
            resource: "pods".to_owned(),
            namespace: namespace.to_owned(),
            ..Attributes::default()
        }
    }

    fn index() -> Index {
        let mut index = Index::default();
        for one in [
            role("", "reader", &["get", "list"]),
            role("a", "writer", &["create"]),
        ] {
            index.role(None, Some(&one));
        }
        let account = json!([{"kind": "ServiceAccount", "name": "bot"}, {"kind": "Group", "name": "devs"}]);
        for one in [
            binding(
                "",
                "all",
                ("ClusterRole", "reader"),
                json!([{"kind": "User", "name": "jane"}]),
            ),
            binding("a", "write", ("Role", "writer"), account),
            binding(
                "b",
                "read",
                ("ClusterRole", "reader"),
                json!([{"kind": "Group", "name": "devs"}]),
            ),
        ] {
            index.binding(None, Some(&one));
        }
        index
    }

    #[test]
    fn a_binding_counts_in_its_scope_for_its_subjects() {
        let index = index();
        let bot = UserInfo::new("system:serviceaccount:a:bot", [] as [&str; 0]);
        let other_bot = UserInfo::new("system:serviceaccount:b:bot", [] as [&str; 0]);
        let (jane, joe) = (
            UserInfo::new("jane", [] as [&str; 0]),
            UserInfo::new("joe", ["devs"]),
        );
        for (user, verb, namespace, allowed) in [
            (&jane, "get", "", true),
            (&jane, "get", "x", true),
            (&jane, "create", "a", false),
            (&bot, "create", "a", true),
            (&bot, "create", "b", false),
            (&bot, "create", "", false),
            (&other_bot, "create", "a", false),
            (&joe, "create", "a", true),
            (&joe, "get", "b", true),
            (&joe, "get", "a", false),
            (&joe, "get", "", false),
        ] {
            let decision = index.decide(user, &wanted(verb, namespace));
            assert_eq!(
                decision.is_allow(),
                allowed,
                "{} {verb} in {namespace:?}",
                user.name
            );
        }
        let why = index.decide(&bot, &wanted("create", "a"));
        let text = r#"RBAC: allowed by RoleBinding "write/a" of Role "writer" to ServiceAccount "bot/a""#;
        assert_eq!(why, Decision::Allow(text.into()));
    }

    #[test]
    fn what_is_taken_away_is_gone() {
        let mut index = index();
        let jane = UserInfo::new("jane", [] as [&str; 0]);
        let all = binding(
            "",
            "all",
            ("ClusterRole", "reader"),
            json!([{"kind": "User", "name": "joe"}]),
        );
        index.binding(Some(&all), Some(&all));
        assert!(!index.decide(&jane, &wanted("get", "")).is_allow());
        let joe = UserInfo::new("joe", [] as [&str; 0]);
        assert!(index.decide(&joe, &wanted("get", "")).is_allow());
        index.role(Some(&role("", "reader", &[])), None);
        let text = r#"RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found"#;
        assert_eq!(
            index.decide(&joe, &wanted("get", "")),
            Decision::NoOpinion(text.into())
        );
        index.binding(Some(&all), None);
        assert_eq!(index.decide(&joe, &wanted("get", "")), Decision::NO_OPINION);
    }
}
