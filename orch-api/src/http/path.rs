//! The matcher for Kubernetes paths, which are regular enough to need no router.

use std::borrow::Cow;

use super::query::percent_decode;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(&'a str),
    /// `/api/v1` (empty group) or `/apis/GROUP/VERSION`
    Resources { group: &'a str, version: &'a str },
    /// A resource, an object or one of its parts.
    Object(Target<'a>),
    /// Anything outside the API proper: `/version`, `/livez` …
    Other(&'a str),
}

/// The resource that a path names.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub(crate) struct Target<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) namespace: Option<Cow<'a, str>>,
    pub(crate) resource: Cow<'a, str>,
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) subresource: Option<Cow<'a, str>>,
    /// Whether the path began with the old `/watch/` prefix.
    pub(crate) watch: bool,
    /// What follows the subresource, which only `proxy` takes.
    pub(crate) rest: Vec<&'a str>,
}

pub(crate) fn route(path: &str) -> Route<'_> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group(group),
        ["api", version] => Route::Resources { group: "", version },
        ["apis", group, version] => Route::Resources { group, version },
        ["api", version, rest @ ..] => object("", version, rest).unwrap_or(Route::Other(path)),
        ["apis", group, version, rest @ ..] => object(group, version, rest).unwrap_or(Route::Other(path)),
        _ => Route::Other(path),
    }
}

fn object<'a>(group: &'a str, version: &'a str, segments: &[&'a str]) -> Option<Route<'a>> {
    let (watch, segments) = match segments {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        other => (false, other),
    };
    let text = |segment: &'a str| percent_decode(segment, false);
    let (namespace, segments) = match segments {
        // A namespace's own parts; everything else below a namespace is a resource in it.
        ["namespaces", _, "status" | "finalize"] => (None, segments),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(text(namespace)), rest),
        other => (None, other),
    };
    let [resource, parts @ ..] = segments else {
        return None;
    };
    let mut parts = parts.iter().copied();
    Some(Route::Object(Target {
        group,
        version,
        namespace,
        resource: text(resource),
        name: parts.next().map(text),
        subresource: parts.next().map(text),
        watch,
        rest: parts.collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target<'_> {
        match route(path) {
            Route::Object(target) => target,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn objects_and_collections() {
        let pods = target("/api/v1/namespaces/default/pods");
        assert_eq!(
            (pods.namespace.as_deref(), &*pods.resource, pods.name),
            (Some("default"), "pods", None)
        );
        let scale = target("/apis/apps/v1/namespaces/a/deployments/web/scale");
        assert_eq!(
            (scale.group, scale.name.as_deref(), scale.subresource.as_deref()),
            ("apps", Some("web"), Some("scale"))
        );
        let role = target("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        assert_eq!(role.name.as_deref(), Some("system:node"));
    }

    #[test]
    fn namespaces_are_resources_too() {
        assert_eq!(target("/api/v1/namespaces/a").name.as_deref(), Some("a"));
        let finalize = target("/api/v1/namespaces/a/finalize");
        assert_eq!(
            (&*finalize.resource, finalize.subresource.as_deref()),
            ("namespaces", Some("finalize"))
        );
        assert_eq!(
            target("/api/v1/namespaces/status/pods").namespace.as_deref(),
            Some("status")
        );
    }

    #[test]
    fn discovery_and_the_rest() {
        assert_eq!(route("/api"), Route::CoreVersions);
        assert_eq!(route("/apis/"), Route::Groups);
        assert_eq!(route("/apis/apps"), Route::Group("apps"));
        assert_eq!(
            route("/api/v1"),
            Route::Resources {
                group: "",
                version: "v1"
            }
        );
        assert_eq!(route("/livez/etcd"), Route::Other("/livez/etcd"));
    }

    #[test]
    fn the_old_watch_prefix() {
        let pods = target("/api/v1/watch/namespaces/a/pods");
        assert!(pods.watch);
        assert_eq!(&*pods.resource, "pods");
    }
}
