//! Who may do what.

use std::fmt::Debug;

use async_trait::async_trait;
use orch_core::field::quote;
use orch_core::status::{ApiError, GroupResource, Reason};

use crate::user::{MASTERS, UNAUTHENTICATED, UserInfo};

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
}

impl Attributes {
    /// Whether the request names a resource, rather than a path such as `/version`.
    #[must_use]
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }
}

/// What an [`Authorizer`] thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No, whatever others say.
    Deny(String),
    /// Not by this authorizer. When nobody allows it, it is refused.
    NoOpinion,
}

/// Decides whether a user may do something. Called once for each request, after authentication; must be quick.
#[async_trait]
pub trait Authorizer: Send + Sync + Debug + 'static {
    /// Decides.
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision;
}

/// Paths that everybody may read, as upstream's `system:public-info-viewer` says.
const PUBLIC: [&str; 8] = [
    "/healthz",
    "/livez",
    "/readyz",
    "/version",
    "/version/",
    "/healthz/",
    "/livez/",
    "/readyz/",
];
/// Paths that everybody who is authenticated may read, as upstream's `system:discovery` says.
const DISCOVERY: [&str; 4] = ["/api", "/apis", "/openapi", "/version"];

/// Allows administrators, the components' own identities and nodes everything, the others discovery only.
#[derive(Clone, Copy, Debug, Default)]
pub struct ComponentAuthorizer;

const COMPONENTS: [&str; 3] = [
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
];

#[async_trait]
impl Authorizer for ComponentAuthorizer {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.in_group(MASTERS) || user.in_group("system:nodes") || COMPONENTS.contains(&user.name.as_str())
        {
            return Decision::Allow;
        }
        if attributes.is_resource() {
            return if is_self_review(attributes) && !user.in_group(UNAUTHENTICATED) {
                Decision::Allow
            } else {
                Decision::NoOpinion
            };
        }
        let path = attributes.path.as_str();
        let below =
            |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        let readable =
            PUBLIC.contains(&path) || (!user.in_group(UNAUTHENTICATED) && DISCOVERY.into_iter().any(below));
        if attributes.verb == "get" && readable {
            Decision::Allow
        } else {
            Decision::NoOpinion
        }
    }
}

/// Everybody may ask about themselves.
fn is_self_review(attributes: &Attributes) -> bool {
    attributes.verb == "create"
        && matches!(
            (attributes.group.as_str(), attributes.resource.as_str()),
            (
                "authorization.k8s.io",
                "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
            ) | ("authentication.k8s.io", "selfsubjectreviews")
        )
}

/// Allows everybody everything. For tests, and for servers behind another guard.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn authorize(&self, _user: &UserInfo, _attributes: &Attributes) -> Decision {
        Decision::Allow
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

    #[tokio::test]
    async fn nobody_in_particular_reads_health_and_nothing_else() {
        let decide =
            async |user: &UserInfo, attributes| ComponentAuthorizer.authorize(user, &attributes).await;
        let (anonymous, jane) = (UserInfo::anonymous(), UserInfo::new("jane", ["devs"]));
        assert_eq!(decide(&anonymous, path("/livez")).await, Decision::Allow);
        assert_eq!(decide(&anonymous, path("/apis")).await, Decision::NoOpinion);
        assert_eq!(decide(&jane, path("/apis/apps/v1")).await, Decision::Allow);
        assert_eq!(decide(&jane, path("/apisx")).await, Decision::NoOpinion);
        assert_eq!(decide(&jane, path("/metrics")).await, Decision::NoOpinion);
        assert_eq!(decide(&jane, list_pods("a")).await, Decision::NoOpinion);
        assert_eq!(decide(&UserInfo::admin(), list_pods("a")).await, Decision::Allow);
    }
}
