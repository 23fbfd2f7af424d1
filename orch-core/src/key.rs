//! The name under which an object is kept in stores and queues.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
///
/// Written `namespace/name` or `name`. One shared string, so that a clone costs a counter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName(Arc<str>);

impl NamespacedName {
    /// The object `name` in `namespace`; an empty namespace means cluster-scoped.
    pub fn new(namespace: &str, name: &str) -> Self {
        match namespace {
            "" => NamespacedName(name.into()),
            namespace => NamespacedName(format!("{namespace}/{name}").into()),
        }
    }

    /// A cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        NamespacedName(name.into())
    }

    /// The key of `object`.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::of_meta(object.meta())
    }

    /// The key of the object with this metadata.
    pub fn of_meta(meta: &ObjectMeta) -> Self {
        let name = meta.name.as_deref().unwrap_or_default();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), name)
    }

    /// The namespace, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for NamespacedName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_scopes_split_into_their_parts() {
        let pod = NamespacedName::new("default", "web");
        assert_eq!(
            (pod.namespace(), pod.name(), pod.as_str()),
            ("default", "web", "default/web")
        );
        let node = NamespacedName::cluster("n1");
        assert_eq!((node.namespace(), node.name(), node.as_str()), ("", "n1", "n1"));
        assert_eq!(NamespacedName::new("", "n1"), node);
    }
}
