//! Nobody gives away more than they have: who writes a role has to hold its rights, who binds a role too, unless they
//! are allowed the verbs `escalate` and `bind`. This is not an admission rule, since no server is safe without it.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};
use orch_core::field::quote;
use orch_core::status::{ApiError, GroupResource};

use super::GROUP;
use super::index::NoRole;
use super::rule::{describe, missing, quoted};
use crate::authz::Attributes;
use crate::object::Object;
use crate::registry::write::Write;
use crate::user::MASTERS;

/// What a write puts into the store, of what escalation is about.
enum Grant<'a> {
    Rules {
        rules: &'a [PolicyRule],
        aggregates: bool,
    },
    Role(&'a RoleRef),
}

/// Refuses the write of a role or binding that gives what the writer does not have.
pub(crate) async fn check(
    write: &Write<'_>,
    new: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    if write.resource.info().group != GROUP || write.user.in_group(MASTERS) {
        return Ok(());
    }
    let Some(grant) = grant(new) else { return Ok(()) };
    if old.is_some_and(|old| gives_nothing_new(new, old, &grant)) {
        return Ok(());
    }
    let guard = Guard {
        write,
        name: new.name(),
    };
    match grant {
        Grant::Rules { rules, aggregates } => guard.rules(rules, aggregates || had_aggregation(old)).await,
        Grant::Role(role) => guard.role(role).await,
    }
}

fn grant(object: &dyn Object) -> Option<Grant<'_>> {
    if let Some(role) = object.downcast_ref::<ClusterRole>() {
        return Some(Grant::Rules {
            rules: role.rules.as_deref().unwrap_or_default(),
            aggregates: aggregates(role),
        });
    }
    if let Some(role) = object.downcast_ref::<Role>() {
        return Some(Grant::Rules {
            rules: role.rules.as_deref().unwrap_or_default(),
            aggregates: false,
        });
    }
    if let Some(binding) = object.downcast_ref::<ClusterRoleBinding>() {
        return Some(Grant::Role(&binding.role_ref));
    }
    let binding = object.downcast_ref::<RoleBinding>()?;
    Some(Grant::Role(&binding.role_ref))
}

fn aggregates(role: &ClusterRole) -> bool {
    let selectors = role
        .aggregation_rule
        .as_ref()
        .and_then(|rule| rule.cluster_role_selectors.as_ref());
    selectors.is_some_and(|selectors| !selectors.is_empty())
}

fn had_aggregation(old: Option<&dyn Object>) -> bool {
    old.and_then(|old| old.downcast_ref::<ClusterRole>())
        .is_some_and(aggregates)
}

/// Roles whose rules stay, and what only the garbage collector's fields change of.
fn gives_nothing_new(new: &dyn Object, old: &dyn Object, grant: &Grant<'_>) -> bool {
    let same_rules = match (grant, self::grant(old)) {
        (Grant::Rules { rules, .. }, Some(Grant::Rules { rules: before, .. })) => *rules == before,
        _ => false,
    };
    let aggregation = |object: &dyn Object| {
        let role = object.downcast_ref::<ClusterRole>();
        role.and_then(|role| role.aggregation_rule.clone())
    };
    (same_rules && aggregation(new) == aggregation(old)) || bare(new) == bare(old)
}

fn bare(object: &dyn Object) -> serde_json::Value {
    let mut object = object.clone_box();
    let metadata = object.metadata_mut();
    metadata.owner_references = None;
    metadata.finalizers = None;
    metadata.managed_fields = None;
    metadata.resource_version = None;
    object.to_value()
}

struct Guard<'a> {
    write: &'a Write<'a>,
    name: &'a str,
}

impl Guard<'_> {
    async fn rules(&self, rules: &[PolicyRule], aggregates: bool) -> Result<(), ApiError> {
        let escalate = Attributes {
            verb: "escalate".to_owned(),
            resource: self.write.resource.info().plural.to_string(),
            name: self.name.to_owned(),
            ..self.attributes()
        };
        if self.is_allowed(&escalate).await {
            return Ok(());
        }
        self.holds(rules).await?;
        if aggregates && self.holds(&everything()).await.is_err() {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(self.forbidden(why));
        }
        Ok(())
    }

    async fn role(&self, role: &RoleRef) -> Result<(), ApiError> {
        let bind = Attributes {
            verb: "bind".to_owned(),
            group: role.api_group.clone().unwrap_or_default(),
            resource: if role.kind == "Role" {
                "roles"
            } else {
                "clusterroles"
            }
            .to_owned(),
            name: role.name.clone(),
            ..self.attributes()
        };
        if self.is_allowed(&bind).await {
            return Ok(());
        }
        let rules = self
            .write
            .context
            .rbac
            .rules_of(role, self.write.namespace)
            .await?;
        self.holds(&rules).await
    }

    fn attributes(&self) -> Attributes {
        Attributes {
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            namespace: self.write.namespace.to_owned(),
            ..Attributes::default()
        }
    }

    async fn is_allowed(&self, wanted: &Attributes) -> bool {
        let authorizer = &self.write.context.authorizer;
        authorizer.authorize(self.write.user, wanted).await.is_allow()
    }

    /// Fails when the user does not hold all these rights.
    async fn holds(&self, rules: &[PolicyRule]) -> Result<(), ApiError> {
        let user = self.write.user;
        let rbac = &self.write.context.rbac;
        let (held, errors) = rbac.rules_for(user, self.write.namespace).await?;
        let missing = missing(&held, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let mut why = format!(
            "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            quote(&user.name),
            quoted(&user.groups),
            describe(&missing)
        );
        if !errors.is_empty() {
            let texts: Vec<String> = errors.iter().map(NoRole::to_string).collect();
            why.push_str(&format!("; resolution errors: [{}]", texts.join(" ")));
        }
        Err(self.forbidden(&why))
    }

    fn forbidden(&self, why: &str) -> ApiError {
        ApiError::forbidden(&self.write.resource.group_resource, self.name, why)
    }
}

fn everything() -> [PolicyRule; 2] {
    let all = || Some(vec!["*".to_owned()]);
    let verbs = vec!["*".to_owned()];
    [
        PolicyRule {
            verbs: verbs.clone(),
            api_groups: all(),
            resources: all(),
            ..PolicyRule::default()
        },
        PolicyRule {
            verbs,
            non_resource_urls: all(),
            ..PolicyRule::default()
        },
    ]
}

/// The answer to a binding to a role that is not there.
pub(super) fn no_role(role: &RoleRef, error: &NoRole) -> ApiError {
    match role.kind.as_str() {
        "Role" | "ClusterRole" => {
            ApiError::not_found(&GroupResource::new(GROUP, role.kind.to_lowercase()), &role.name)
        }
        _ => ApiError::bad_request(error.to_string()),
    }
}
