//! Who may do what.

pub(crate) mod rbac;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::PolicyRule;
use orch_core::field::quote;
use orch_core::status::{ApiError, GroupResource, Reason};

use crate::user::{MASTERS, UserInfo};

/// What a request wants, in the words of authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `create` … or the HTTP method in lower case for other paths.
    pub verb: String,
    /// API group, empty for the core group and for other paths.
    pub group: String,
    /// API version.
    pub version: String,
    /// Resource; empty for other paths.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name of the object, or empty.
    pub name: String,
    /// The path, for requests that name no resource.
    pub path: String,
    /// What the field selector of a list, watch or deletecollection wants to be equal: `spec.nodeName` and so on.
    pub selected_fields: BTreeMap<String, String>,
}

impl Attributes {
    /// Whether the request names a resource, rather than a path such as `/version`.
    #[must_use]
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }
}

/// What an [`Authorizer`] thinks. The text says why, for people: reviews show it, and refusals end with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow(Cow<'static, str>),
    /// No, whatever later authorizers say.
    Deny(Cow<'static, str>),
    /// Not by this authorizer. When nobody allows it, it is refused.
    NoOpinion(Cow<'static, str>),
}

impl Decision {
    /// No opinion, and nothing to say about it.
    pub const NO_OPINION: Self = Self::NoOpinion(Cow::Borrowed(""));

    /// Whether it is a yes.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// What a user may do in a namespace, as far as it can be told in advance: the answer to `kubectl auth can-i --list`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserRules {
    /// The rules that apply.
    pub rules: Vec<PolicyRule>,
    /// Why there may be more, or empty when these are all.
    pub incomplete: String,
}

/// Decides whether a user may do something.
///
/// The server asks its authorizers in their order (see [`Authorization`]), once for each request, after
/// authentication and before it reads the body; impersonation and some writes ask again about other
/// [`Attributes`]. The first [`Allow`](Decision::Allow) or [`Deny`](Decision::Deny) counts. An authorizer must be
/// quick (each request waits for it), must not have effects, and may be called from many tasks at once; when it cannot
/// find out, it answers [`NoOpinion`](Decision::NoOpinion) with the reason, never `Allow`. A call may be dropped
/// at any await.
#[async_trait]
pub trait Authorizer: Send + Sync + Debug + 'static {
    /// Decides.
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision;

    /// What a user may do in a namespace. The default knows nothing and says so.
    async fn rules(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let _ = (user, namespace);
        UserRules {
            incomplete: "an authorizer does not support user rule resolution".to_owned(),
            ..UserRules::default()
        }
    }
}

/// One of the authorizers of a server, in the words of kube-apiserver's `--authorization-mode`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Authorization {
    /// Roles and their bindings.
    Rbac,
    /// An authorizer from outside.
    Other(Arc<dyn Authorizer>),
}

/// Allows nodes and the components everything, as long as they have no narrower rights.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Components;

#[async_trait]
impl Authorizer for Components {
    async fn authorize(&self, user: &UserInfo, _attributes: &Attributes) -> Decision {
        const USERS: [&str; 3] = [
            "system:kube-controller-manager",
            "system:kube-scheduler",
            "system:kube-proxy",
        ];
        if user.in_group("system:nodes") || USERS.contains(&user.name.as_str()) {
            return Decision::Allow(Cow::Borrowed(""));
        }
        Decision::NO_OPINION
    }

    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
        UserRules::default()
    }
}

/// Several authorizers, asked in their order. Administrators, the group `system:masters`, are not asked about.
#[derive(Clone, Debug)]
pub(crate) struct Chain(pub(crate) Vec<Arc<dyn Authorizer>>);

#[async_trait]
impl Authorizer for Chain {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::Allow(Cow::Borrowed(""));
        }
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(user, attributes).await {
                Decision::NoOpinion(why) if why.is_empty() => (),
                Decision::NoOpinion(why) => reasons.push(why),
                decided => return decided,
            }
        }
        Decision::NoOpinion(match reasons.as_slice() {
            [] => Cow::Borrowed(""),
            [_] => reasons.swap_remove(0),
            _ => Cow::Owned(reasons.join("\n")),
        })
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut all = UserRules::default();
        let mut incomplete = Vec::new();
        for authorizer in &self.0 {
            let rules = authorizer.rules(user, namespace).await;
            all.rules.extend(rules.rules);
            incomplete.extend((!rules.incomplete.is_empty()).then_some(rules.incomplete));
        }
        all.incomplete = incomplete.join(", ");
        all
    }
}

/// Allows everybody everything. For tests, and for servers behind another guard.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn authorize(&self, _user: &UserInfo, _attributes: &Attributes) -> Decision {
        Decision::Allow(Cow::Borrowed(""))
    }

    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
        let all = || Some(vec!["*".to_owned()]);
        let of_resources = PolicyRule {
            verbs: vec!["*".to_owned()],
            api_groups: all(),
            resources: all(),
            ..PolicyRule::default()
        };
        let of_paths = PolicyRule {
            verbs: vec!["*".to_owned()],
            non_resource_urls: all(),
            ..PolicyRule::default()
        };
        UserRules {
            rules: vec![of_resources, of_paths],
            incomplete: String::new(),
        }
    }
}

/// The answer to a request that nobody allowed, in upstream's words.
pub(crate) fn refusal(user: &UserInfo, attributes: &Attributes, why: &str) -> ApiError {
    let (verb, name) = (attributes.verb.as_str(), quote(&user.name));
    let tail = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    if !attributes.is_resource() {
        let message = format!(
            "forbidden: User {name} cannot {verb} path {}{tail}",
            quote(&attributes.path)
        );
        return ApiError::new(Reason::Forbidden, message).with_details(|_| ());
    }
    let resource = match attributes.subresource.as_str() {
        "" => attributes.resource.clone(),
        sub => format!("{}/{sub}", attributes.resource),
    };
    let scope = match attributes.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {}", quote(namespace)),
    };
    let group = quote(&attributes.group);
    let why = format!(
        "User {name} cannot {verb} resource {} in API group {group} {scope}{tail}",
        quote(&resource)
    );
    let named = GroupResource::new(attributes.group.clone(), attributes.resource.clone());
    ApiError::forbidden(&named, &attributes.name, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_pods(namespace: &str) -> Attributes {
        Attributes {
            verb: "list".into(),
            version: "v1".into(),
            resource: "pods".into(),
            namespace: namespace.into(),
            ..Attributes::default()
        }
    }

    fn path(path: &str) -> Attributes {
        Attributes {
            verb: "get".into(),
            path: path.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn a_refusal_reads_like_upstreams() {
        let user = UserInfo::new("jane", ["devs"]);
        assert_eq!(
            refusal(&user, &list_pods("y"), "").message(),
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "y""#
        );
        assert_eq!(
            refusal(&user, &list_pods(""), "").message(),
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" at the cluster scope"#
        );
        let anonymous = UserInfo::anonymous();
        assert_eq!(
            refusal(&anonymous, &path("/metrics"), "").message(),
            r#"forbidden: User "system:anonymous" cannot get path "/metrics""#
        );
    }

    #[derive(Debug)]
    struct Says(Decision);

    #[async_trait]
    impl Authorizer for Says {
        async fn authorize(&self, _user: &UserInfo, _attributes: &Attributes) -> Decision {
            self.0.clone()
        }
    }

    #[tokio::test]
    async fn the_first_decision_counts_and_reasons_are_collected() {
        let (yes, no) = (Decision::Allow("a".into()), Decision::Deny("b".into()));
        let hm = |why: &'static str| Decision::NoOpinion(why.into());
        let decide = async |decisions: &[Decision], user: &UserInfo| {
            let one = |decision: &Decision| Arc::new(Says(decision.clone())) as Arc<dyn Authorizer>;
            let chain = Chain(decisions.iter().map(one).collect());
            chain.authorize(user, &list_pods("a")).await
        };
        let jane = UserInfo::new("jane", ["devs"]);
        assert_eq!(decide(&[hm("x"), yes.clone(), no.clone()], &jane).await, yes);
        assert_eq!(decide(&[no.clone(), yes.clone()], &jane).await, no);
        assert_eq!(decide(&[hm("x"), hm(""), hm("y")], &jane).await, hm("x\ny"));
        assert_eq!(decide(&[], &jane).await, Decision::NO_OPINION);
        assert!(decide(&[no], &UserInfo::admin()).await.is_allow());
    }
}
