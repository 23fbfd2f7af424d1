//! What a resource is, as discovery shows it and as the store lays it out.

use std::borrow::Cow;

type Text = Cow<'static, str>;

/// Whether objects of a resource live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One set of names for the whole cluster.
    Cluster,
    /// One set of names in each namespace.
    Namespaced,
}

/// What a client may ask of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// POST to the collection.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of the collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of the collection.
    List,
    /// PATCH of one object, server-side apply included.
    Patch,
    /// PUT of one object.
    Update,
    /// GET of the collection with `watch=true`.
    Watch,
}

impl Verb {
    /// All verbs in the order in which discovery lists them.
    pub const ALL: [Verb; 8] = [
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];

    /// The verb as discovery and authorization spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

/// A set of [`Verb`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Verbs(u8);

impl Verbs {
    /// No verb at all.
    pub const NONE: Verbs = Verbs(0);
    /// Every verb.
    pub const ALL: Verbs = Verbs(0xff);
    /// Only `create`, as for reviews and bindings.
    pub const CREATE: Verbs = Verbs(1 << Verb::Create as u8);
    /// What the `status` subresource answers.
    pub const STATUS: Verbs = Verbs(1 << Verb::Get as u8 | 1 << Verb::Patch as u8 | 1 << Verb::Update as u8);
    /// Only `get`.
    pub const GET: Verbs = Verbs(1 << Verb::Get as u8);
    /// Only `update`.
    pub const UPDATE: Verbs = Verbs(1 << Verb::Update as u8);
    /// Reading only: `get`, `list`.
    pub const READ: Verbs = Verbs(1 << Verb::Get as u8 | 1 << Verb::List as u8);

    /// This set with `verb` in it.
    #[must_use]
    pub const fn with(self, verb: Verb) -> Self {
        Verbs(self.0 | 1 << verb as u8)
    }

    /// This set with `verb` out of it.
    #[must_use]
    pub const fn without(self, verb: Verb) -> Self {
        Verbs(self.0 & !(1 << verb as u8))
    }

    /// Whether `verb` is in the set.
    #[must_use]
    pub const fn contains(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }

    /// The verbs of the set in discovery's order.
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.contains(*verb))
    }
}

/// A named part or action of an object: `/status`, `/scale`, `/log` …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// What controllers report.
    Status,
    /// The `autoscaling/v1` Scale view.
    Scale,
    /// Binds a pod to a node.
    Binding,
    /// A container's log.
    Log,
    /// The finalizers of a namespace.
    Finalize,
    /// Deletion that respects disruption budgets.
    Eviction,
    /// Tokens of a service account.
    Token,
    /// Running a command in a container.
    Exec,
    /// Attaching to a container.
    Attach,
    /// Forwarding ports of a pod.
    PortForward,
    /// HTTP through the API server.
    Proxy,
    /// Debug containers of a running pod.
    EphemeralContainers,
    /// Changing the resources of a running pod.
    Resize,
    /// Approval of a certificate signing request.
    Approval,
}

impl Subresource {
    /// All of them, in no particular order.
    pub const ALL: [Subresource; 14] = [
        Subresource::Status,
        Subresource::Scale,
        Subresource::Binding,
        Subresource::Log,
        Subresource::Finalize,
        Subresource::Eviction,
        Subresource::Token,
        Subresource::Exec,
        Subresource::Attach,
        Subresource::PortForward,
        Subresource::Proxy,
        Subresource::EphemeralContainers,
        Subresource::Resize,
        Subresource::Approval,
    ];

    /// The path segment.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Subresource::Status => "status",
            Subresource::Scale => "scale",
            Subresource::Binding => "binding",
            Subresource::Log => "log",
            Subresource::Finalize => "finalize",
            Subresource::Eviction => "eviction",
            Subresource::Token => "token",
            Subresource::Exec => "exec",
            Subresource::Attach => "attach",
            Subresource::PortForward => "portforward",
            Subresource::Proxy => "proxy",
            Subresource::EphemeralContainers => "ephemeralcontainers",
            Subresource::Resize => "resize",
            Subresource::Approval => "approval",
        }
    }

    /// The subresource of that path segment.
    #[must_use]
    pub fn parse(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == segment)
    }

    /// Group, version and kind of what the subresource takes and gives, where that is not the parent's own kind.
    #[must_use]
    pub fn kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Subresource::Scale => Some(("autoscaling", "v1", "Scale")),
            Subresource::Binding => Some(("", "v1", "Binding")),
            Subresource::Eviction => Some(("policy", "v1", "Eviction")),
            Subresource::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            Subresource::Exec => Some(("", "v1", "PodExecOptions")),
            Subresource::Attach => Some(("", "v1", "PodAttachOptions")),
            Subresource::PortForward => Some(("", "v1", "PodPortForwardOptions")),
            Subresource::Status
            | Subresource::Log
            | Subresource::Finalize
            | Subresource::Proxy
            | Subresource::EphemeralContainers
            | Subresource::Resize
            | Subresource::Approval => None,
        }
    }

    /// What a client may ask of it.
    #[must_use]
    pub fn verbs(self) -> Verbs {
        match self {
            Subresource::Status
            | Subresource::Scale
            | Subresource::EphemeralContainers
            | Subresource::Resize
            | Subresource::Approval => Verbs::STATUS,
            Subresource::Binding | Subresource::Eviction | Subresource::Token => Verbs::CREATE,
            Subresource::Log => Verbs::GET,
            Subresource::Finalize => Verbs::UPDATE,
            Subresource::Exec | Subresource::Attach | Subresource::PortForward => {
                Verbs::CREATE.with(Verb::Get)
            }
            Subresource::Proxy => Verbs::STATUS.with(Verb::Create).with(Verb::Delete),
        }
    }
}

/// The facts of one resource in one group and version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceInfo {
    /// API group; empty for the core group.
    pub group: Text,
    /// Version, such as `v1`.
    pub version: Text,
    /// Kind, such as `Deployment`.
    pub kind: Text,
    /// Kind of a list of them, such as `DeploymentList`.
    pub list_kind: Text,
    /// Name in paths, such as `deployments`.
    pub plural: Text,
    /// Name of one, such as `deployment`.
    pub singular: Text,
    /// Short names that kubectl takes.
    pub short_names: Cow<'static, [Text]>,
    /// Groups of resources such as `all`.
    pub categories: Cow<'static, [Text]>,
    /// Whether its objects live in a namespace.
    pub scope: Scope,
    /// What clients may ask.
    pub verbs: Verbs,
    /// Its subresources.
    pub subresources: Vec<Subresource>,
    /// Where its objects live under `/registry`, as kube-apiserver lays keys out.
    pub storage_path: Text,
}

impl ResourceInfo {
    fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        scope: Scope,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            list_kind: Cow::Owned(format!("{kind}List")),
            plural: Cow::Borrowed(plural),
            singular: Cow::Owned(kind.to_ascii_lowercase()),
            short_names: Cow::Borrowed(&[]),
            categories: Cow::Borrowed(&[]),
            scope,
            verbs: Verbs::ALL,
            subresources: Vec::new(),
            storage_path: Cow::Borrowed(plural),
        }
    }

    /// A namespaced resource with all verbs, stored under its plural name.
    #[must_use]
    pub fn namespaced(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self::new(group, version, kind, plural, Scope::Namespaced)
    }

    /// A cluster-wide resource with all verbs, stored under its plural name.
    #[must_use]
    pub fn cluster(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self::new(group, version, kind, plural, Scope::Cluster)
    }

    /// Short names for kubectl.
    #[must_use]
    pub fn short<const N: usize>(mut self, names: [&'static str; N]) -> Self {
        self.short_names = names.into_iter().map(Cow::Borrowed).collect();
        self
    }

    /// Categories for kubectl.
    #[must_use]
    pub fn categories<const N: usize>(mut self, names: [&'static str; N]) -> Self {
        self.categories = names.into_iter().map(Cow::Borrowed).collect();
        self
    }

    /// Limits the verbs.
    #[must_use]
    pub fn verbs(mut self, verbs: Verbs) -> Self {
        self.verbs = verbs;
        self
    }

    /// Where objects live under `/registry`, if not under the plural name.
    #[must_use]
    pub fn stored_at(mut self, path: &'static str) -> Self {
        self.storage_path = Cow::Borrowed(path);
        self
    }

    /// Adds a subresource.
    #[must_use]
    pub fn subresource(mut self, subresource: Subresource) -> Self {
        self.subresources.push(subresource);
        self
    }

    /// Adds the `status` subresource.
    #[must_use]
    pub fn status(self) -> Self {
        self.subresource(Subresource::Status)
    }

    /// Adds the `scale` subresource.
    #[must_use]
    pub fn scale(self) -> Self {
        self.subresource(Subresource::Scale)
    }

    /// Whether it has that subresource.
    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Whether its objects live in a namespace.
    #[must_use]
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `v1` for the core group, `group/version` for all others.
    #[must_use]
    pub fn api_version(&self) -> Cow<'_, str> {
        if self.group.is_empty() {
            Cow::Borrowed(self.version.as_ref())
        } else {
            Cow::Owned(format!("{}/{}", self.group, self.version))
        }
    }

    /// `pods` for the core group, `deployments.apps` for all others: how errors name a resource.
    #[must_use]
    pub fn qualified_resource(&self) -> Cow<'_, str> {
        if self.group.is_empty() {
            Cow::Borrowed(self.plural.as_ref())
        } else {
            Cow::Owned(format!("{}.{}", self.plural, self.group))
        }
    }

    /// The prefix of all its keys, with a trailing slash.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("/registry/{}/", self.storage_path)
    }

    /// The prefix of its keys in one namespace, with a trailing slash.
    #[must_use]
    pub fn namespace_prefix(&self, namespace: &str) -> String {
        format!("/registry/{}/{namespace}/", self.storage_path)
    }

    /// The key of one object. A cluster-wide resource passes an empty namespace.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if namespace.is_empty() {
            format!("/registry/{}/{name}", self.storage_path)
        } else {
            format!("/registry/{}/{namespace}/{name}", self.storage_path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_laid_out_as_kube_apiserver_does() {
        let services = ResourceInfo::namespaced("", "v1", "Service", "services").stored_at("services/specs");
        assert_eq!(
            services.key("default", "kubernetes"),
            "/registry/services/specs/default/kubernetes"
        );
        let nodes = ResourceInfo::cluster("", "v1", "Node", "nodes").stored_at("minions");
        assert_eq!(nodes.key("", "n1"), "/registry/minions/n1");
        assert_eq!(services.namespace_prefix("a"), "/registry/services/specs/a/");
    }

    #[test]
    fn names_of_groups_follow_upstream() {
        let deployments = ResourceInfo::namespaced("apps", "v1", "Deployment", "deployments")
            .status()
            .scale();
        assert_eq!(deployments.api_version(), "apps/v1");
        assert_eq!(deployments.qualified_resource(), "deployments.apps");
        assert_eq!(deployments.singular, "deployment");
        assert!(deployments.has(Subresource::Scale) && !deployments.has(Subresource::Log));
    }

    #[test]
    fn verbs_list_in_discovery_order() {
        let verbs: Vec<_> = Verbs::STATUS.iter().map(Verb::as_str).collect();
        assert_eq!(verbs, ["get", "patch", "update"]);
        assert!(!Verbs::ALL.without(Verb::Watch).contains(Verb::Watch));
    }
}
