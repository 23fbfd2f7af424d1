//! How far the emptying of a namespace is, as its conditions tell it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NamespaceCondition;
use kube::discovery::ApiResource;
use orch_core::conditions;

/// What one pass found.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    discovery: Option<String>,
    failures: Vec<String>,
    remaining: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Progress {
    /// Not even the resources could be found.
    pub(crate) fn discovery_failed(&mut self, why: &str) {
        self.discovery = Some(why.to_owned());
    }

    /// Objects of a resource could not be listed or deleted.
    pub(crate) fn deletion_failed(&mut self, resource: &ApiResource, why: &str) {
        self.failures
            .push(format!("unexpected error for {}: {why}", full_name(resource)));
    }

    /// So many objects of a resource are left.
    pub(crate) fn remaining(&mut self, resource: &ApiResource, count: usize) {
        if count > 0 {
            self.remaining.insert(full_name(resource), count);
        }
    }

    /// An object that is left has this finalizer.
    pub(crate) fn finalizer(&mut self, finalizer: &str) {
        *self.finalizers.entry(finalizer.to_owned()).or_default() += 1;
    }

    /// Whether nothing was left so far, and nothing failed.
    pub(crate) fn is_empty(&self) -> bool {
        self.remaining.is_empty() && self.failures.is_empty()
    }

    /// Whether the namespace can go: all was seen, and nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.is_empty() && self.discovery.is_none()
    }

    /// Writes upstream's five conditions.
    pub(crate) fn write(&self, list: &mut Vec<NamespaceCondition>) {
        let discovery = self.discovery.as_ref().map(|why| {
            (
                "DiscoveryFailed",
                format!("Discovery failed for some groups, 1 failing: {why}"),
            )
        });
        set(
            list,
            "NamespaceDeletionDiscoveryFailure",
            discovery,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        );
        set(
            list,
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        );
        let failures = (!self.failures.is_empty()).then(|| {
            let text = format!(
                "Failed to delete all resource types, {} remaining: {}",
                self.failures.len(),
                self.failures.join(", ")
            );
            ("ContentDeletionFailed", text)
        });
        set(
            list,
            "NamespaceDeletionContentFailure",
            failures,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        );
        let remaining = (!self.remaining.is_empty()).then(|| {
            let each = self
                .remaining
                .iter()
                .map(|(name, count)| format!("{name} has {count} resource instances"));
            (
                "SomeResourcesRemain",
                format!(
                    "Some resources are remaining: {}",
                    each.collect::<Vec<_>>().join(", ")
                ),
            )
        });
        let finalizers = (!self.remaining.is_empty() && !self.finalizers.is_empty()).then(|| {
            let each = self
                .finalizers
                .iter()
                .map(|(name, count)| format!("{name} in {count} resource instances"));
            let text = format!(
                "Some content in the namespace has finalizers remaining: {}",
                each.collect::<Vec<_>>().join(", ")
            );
            ("SomeFinalizersRemain", text)
        });
        set(
            list,
            "NamespaceContentRemaining",
            remaining,
            "ContentRemoved",
            "All content successfully removed",
        );
        set(
            list,
            "NamespaceFinalizersRemaining",
            finalizers,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        );
    }
}

fn set(
    list: &mut Vec<NamespaceCondition>,
    type_: &str,
    trouble: Option<(&str, String)>,
    good_reason: &str,
    good_message: &str,
) {
    let status = if trouble.is_some() { "True" } else { "False" };
    let (reason, message) = trouble.unwrap_or_else(|| (good_reason, good_message.to_owned()));
    let condition = NamespaceCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(conditions::now()),
    };
    conditions::set(list, condition);
}

/// `pods`, `deployments.apps`.
fn full_name(resource: &ApiResource) -> String {
    match resource.group.as_str() {
        "" => resource.plural.clone(),
        group => format!("{}.{group}", resource.plural),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told() {
        let mut progress = Progress::default();
        assert!(progress.is_done());
        let pods = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        progress.remaining(&pods, 2);
        progress.finalizer("example.com/wait");
        assert!(!progress.is_done());
        let mut list = Vec::new();
        progress.write(&mut list);
        let find = |type_: &str| {
            list.iter()
                .find(|condition| condition.type_ == type_)
                .expect("a condition")
        };
        let remaining = find("NamespaceContentRemaining");
        assert_eq!(remaining.status, "True");
        assert_eq!(
            remaining.message.as_deref(),
            Some("Some resources are remaining: pods has 2 resource instances")
        );
        assert_eq!(
            find("NamespaceFinalizersRemaining").reason.as_deref(),
            Some("SomeFinalizersRemain")
        );
        assert_eq!(find("NamespaceDeletionDiscoveryFailure").status, "False");
    }

    #[test]
    fn a_pass_that_could_not_look_is_not_done() {
        let mut progress = Progress::default();
        progress.discovery_failed("timeout");
        assert!(!progress.is_done());
    }
}
