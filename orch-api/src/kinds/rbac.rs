//! Roles and their bindings.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::format;
use super::stored::table;
use super::table::{self as cell, AGE, NAME, text_column};
use super::text::{default_text, list, text};
use crate::resource::ResourceInfo;
use crate::strategy::{Kind, NameRule};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of roles.
pub(super) struct Roles;

impl Kind for Roles {
    type Object = Role;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced(GROUP, "v1", "Role", "roles")
    }

    fn validate(role: &Role) -> ErrorList {
        Check::run(|check| rules(check, list(&role.rules), true))
    }

    fn name_rule() -> NameRule {
        NameRule::PathSegment
    }

    fn create_on_update() -> bool {
        true
    }

    table!(
        [NAME, text_column("Created At", "When the object was created.")],
        |role, _now| vec![cell::name(&role.metadata), created(&role.metadata)]
    );
}

/// The rules of cluster roles.
pub(super) struct ClusterRoles;

impl Kind for ClusterRoles {
    type Object = ClusterRole;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "ClusterRole", "clusterroles")
    }

    fn validate(role: &ClusterRole) -> ErrorList {
        Check::run(|check| rules(check, list(&role.rules), false))
    }

    fn name_rule() -> NameRule {
        NameRule::PathSegment
    }

    fn create_on_update() -> bool {
        true
    }

    table!(
        [NAME, text_column("Created At", "When the object was created.")],
        |role, _now| vec![cell::name(&role.metadata), created(&role.metadata)]
    );
}

/// The rules of role bindings.
pub(super) struct RoleBindings;

impl Kind for RoleBindings {
    type Object = RoleBinding;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced(GROUP, "v1", "RoleBinding", "rolebindings")
    }

    fn default(binding: &mut RoleBinding) {
        default(&mut binding.role_ref, &mut binding.subjects);
    }

    fn validate(new: &RoleBinding) -> ErrorList {
        Check::run(|check| {
            binding(
                check,
                &new.role_ref,
                list(&new.subjects),
                &["ClusterRole", "Role"],
            )
        })
    }

    fn validate_update(new: &RoleBinding, old: &RoleBinding) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(Check::run(|check| {
            role_stays(check, &new.role_ref, &old.role_ref)
        }));
        errors
    }

    fn name_rule() -> NameRule {
        NameRule::PathSegment
    }

    fn create_on_update() -> bool {
        true
    }

    table!(
        [
            NAME,
            text_column("Role", "The role that is given."),
            AGE,
            text_column("Users", "Users who get it.").wide(),
            text_column("Groups", "Groups which get it.").wide(),
            text_column("ServiceAccounts", "Service accounts which get it.").wide(),
        ],
        |binding, now| cells(&binding.metadata, &binding.role_ref, list(&binding.subjects), now)
    );
}

/// The rules of cluster role bindings.
pub(super) struct ClusterRoleBindings;

impl Kind for ClusterRoleBindings {
    type Object = ClusterRoleBinding;

    fn info() -> ResourceInfo {
        ResourceInfo::cluster(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings")
    }

    fn default(binding: &mut ClusterRoleBinding) {
        default(&mut binding.role_ref, &mut binding.subjects);
    }

    fn validate(new: &ClusterRoleBinding) -> ErrorList {
        Check::run(|check| binding(check, &new.role_ref, list(&new.subjects), &["ClusterRole"]))
    }

    fn validate_update(new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> ErrorList {
        let mut errors = Self::validate(new);
        errors.extend(Check::run(|check| {
            role_stays(check, &new.role_ref, &old.role_ref)
        }));
        errors
    }

    fn name_rule() -> NameRule {
        NameRule::PathSegment
    }

    fn create_on_update() -> bool {
        true
    }

    table!(
        [
            NAME,
            text_column("Role", "The role that is given."),
            AGE,
            text_column("Users", "Users who get it.").wide(),
            text_column("Groups", "Groups which get it.").wide(),
            text_column("ServiceAccounts", "Service accounts which get it.").wide(),
        ],
        |binding, now| cells(&binding.metadata, &binding.role_ref, list(&binding.subjects), now)
    );
}

fn created(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Value {
    let time = meta.creation_timestamp.as_ref();
    time.map(|time| time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
        .into()
}

fn default(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    default_text(&mut role.api_group, GROUP);
    for subject in subjects.iter_mut().flatten() {
        if subject.kind == "User" || subject.kind == "Group" {
            default_text(&mut subject.api_group, GROUP);
        }
    }
}

fn rules(check: &mut Check, rules: &[PolicyRule], namespaced: bool) {
    for (i, rule) in rules.iter().enumerate() {
        let path = Path::new("rules").index(i);
        if rule.verbs.is_empty() {
            check.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        let urls = list(&rule.non_resource_urls);
        if urls.is_empty() {
            if list(&rule.api_groups).is_empty() {
                check.required(
                    &path.child("apiGroups"),
                    "resource rules must supply at least one api group",
                );
            }
            if list(&rule.resources).is_empty() {
                check.required(
                    &path.child("resources"),
                    "resource rules must supply at least one resource",
                );
            }
        } else if namespaced {
            let why = "namespaced rules cannot apply to non-resource URLs";
            check.invalid(&path.child("nonResourceURLs"), urls, why);
        } else if !list(&rule.api_groups).is_empty() || !list(&rule.resources).is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            check.invalid(&path.child("nonResourceURLs"), urls, why);
        }
    }
}

fn binding(check: &mut Check, role: &RoleRef, subjects: &[Subject], kinds: &[&str]) {
    let path = Path::new("roleRef");
    if text(&role.api_group) != GROUP {
        check.not_supported(&path.child("apiGroup"), text(&role.api_group), &[GROUP]);
    }
    if !kinds.contains(&role.kind.as_str()) {
        check.not_supported(&path.child("kind"), &role.kind, kinds);
    }
    check.present(&path.child("name"), &role.name);
    for (i, subject) in subjects.iter().enumerate() {
        self::subject(check, subject, kinds.len() > 1, &Path::new("subjects").index(i));
    }
}

fn subject(check: &mut Check, subject: &Subject, namespaced: bool, path: &Path) {
    check.present(&path.child("name"), &subject.name);
    let group = text(&subject.api_group);
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                check.faults(
                    &path.child("name"),
                    &subject.name,
                    format::dns1123_subdomain(&subject.name),
                );
            }
            if !group.is_empty() {
                check.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && text(&subject.namespace).is_empty() {
                check.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                check.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => check.not_supported(&path.child("kind"), other, &["Group", "ServiceAccount", "User"]),
    }
}

fn role_stays(check: &mut Check, new: &RoleRef, old: &RoleRef) {
    if new != old {
        check.invalid(&Path::new("roleRef"), new, "cannot change roleRef");
    }
}

fn cells(
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    role: &RoleRef,
    subjects: &[Subject],
    now: jiff::Timestamp,
) -> Vec<Value> {
    let of = |kind: &str| -> Value {
        let named = subjects.iter().filter(|subject| subject.kind == kind);
        let shown = named.map(|subject| match text(&subject.namespace) {
            "" => subject.name.clone(),
            namespace => format!("{namespace}/{}", subject.name),
        });
        shown.collect::<Vec<_>>().join(", ").into()
    };
    vec![
        cell::name(meta),
        format!("{}/{}", role.kind, role.name).into(),
        cell::age(meta, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_role_rule_is_about_resources_or_about_urls() {
        let role: Role = serde_json::from_value(json!({"rules": [
            {"verbs": ["get"], "apiGroups": [""]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]},
        ]}))
        .unwrap();
        assert_eq!(
            Roles::validate(&role).to_string(),
            "[rules[0].resources: Required value: resource rules must supply at least one resource, \
             rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs]"
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let binding = |name: &str| {
            let mut binding: RoleBinding =
                serde_json::from_value(json!({"roleRef": {"kind": "Role", "name": name}})).unwrap();
            RoleBindings::default(&mut binding);
            binding
        };
        assert!(RoleBindings::validate_update(&binding("a"), &binding("a")).is_empty());
        let errors = RoleBindings::validate_update(&binding("b"), &binding("a")).to_string();
        assert!(
            errors.starts_with("roleRef: Invalid value: {") && errors.ends_with("}: cannot change roleRef")
        );
    }
}
