//! Who owns whom, over all objects of the cluster, and what a change of one object makes worth a look.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The finalizer of an owner that waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner that sets its dependents free.
pub(crate) const ORPHAN: &str = "orphan";

/// A uid; shared, since every edge names two.
pub(crate) type Uid = Arc<str>;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Index of its resource among those watched.
    pub(crate) resource: usize,
    /// Empty for cluster-scoped objects.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What the graph keeps of an object.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) owners: Vec<Owner>,
    pub(crate) deleting: bool,
    /// Deleted, and waits for its dependents to go first.
    pub(crate) foreground: bool,
    /// Deleted, and its dependents are to stay.
    pub(crate) orphaning: bool,
}

/// An edge to an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Uid,
    pub(crate) blocks: bool,
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Whether the object has still a reason to exist.
    Check(Uid),
    /// The object's dependents are to be set free.
    Orphan(Uid),
}

/// The graph of owners. An owner that was never seen has dependents, but no node.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

impl Node {
    /// The node of an object; `None` for one without a uid, which the server never sends.
    pub(crate) fn of(resource: usize, meta: &ObjectMeta) -> Option<(Uid, Self)> {
        let deleting = meta.deletion_timestamp.is_some();
        let finalizers = meta.finalizers.as_deref().unwrap_or_default();
        let waits = |name: &str| deleting && finalizers.iter().any(|finalizer| finalizer == name);
        let node = Self {
            place: Place {
                resource,
                namespace: meta.namespace.clone().unwrap_or_default(),
                name: meta.name.clone()?,
            },
            owners: meta.owner_references.iter().flatten().map(Owner::of).collect(),
            deleting,
            foreground: waits(FOREGROUND),
            orphaning: waits(ORPHAN),
        };
        Some((Uid::from(meta.uid.as_deref()?), node))
    }
}

impl Owner {
    fn of(reference: &OwnerReference) -> Self {
        Self {
            uid: Uid::from(reference.uid.as_str()),
            blocks: reference.block_owner_deletion == Some(true),
        }
    }
}

impl Graph {
    /// An object was seen. `settled` is false while the first lists still come in: then an owner that was not seen
    /// says nothing.
    pub(crate) fn apply(&mut self, uid: &Uid, node: Node, settled: bool) -> Vec<Work> {
        let mut work = Vec::new();
        let before = self.nodes.remove(uid);
        let old_owners = before
            .as_ref()
            .map(|node| node.owners.clone())
            .unwrap_or_default();
        for owner in old_owners.iter().filter(|owner| !node.owners.contains(owner)) {
            self.unlink(uid, &owner.uid);
            // One that waited for this object may wait no longer.
            work.extend(self.check_if_waiting(&owner.uid));
        }
        for owner in &node.owners {
            self.dependents
                .entry(Arc::clone(&owner.uid))
                .or_default()
                .insert(Arc::clone(uid));
        }
        let unseen = node
            .owners
            .iter()
            .any(|owner| !self.nodes.contains_key(&owner.uid));
        let was = |flag: fn(&Node) -> bool| before.as_ref().is_some_and(flag);
        if settled && unseen && old_owners != node.owners {
            work.push(Work::Check(Arc::clone(uid)));
        }
        if node.foreground && !was(|node| node.foreground) {
            work.push(Work::Check(Arc::clone(uid)));
            work.extend(self.checks_of_dependents(uid));
        }
        if node.orphaning && !was(|node| node.orphaning) {
            work.push(Work::Orphan(Arc::clone(uid)));
        }
        let waiting_owner = node.owners.iter().any(|owner| self.waits(&owner.uid));
        if waiting_owner && before.is_none() {
            work.push(Work::Check(Arc::clone(uid)));
        }
        self.nodes.insert(Arc::clone(uid), node);
        work
    }

    /// An object is gone.
    pub(crate) fn remove(&mut self, uid: &Uid) -> Vec<Work> {
        let mut work: Vec<Work> = self.checks_of_dependents(uid).collect();
        if let Some(node) = self.nodes.remove(uid) {
            for owner in node.owners {
                self.unlink(uid, &owner.uid);
                work.extend(self.check_if_waiting(&owner.uid));
            }
        }
        work
    }

    /// Once all first lists came in: every object with an owner that was not among them, and what waits since before.
    pub(crate) fn settle(&self) -> Vec<Work> {
        let mut work = Vec::new();
        for (uid, node) in &self.nodes {
            if node.foreground
                || node
                    .owners
                    .iter()
                    .any(|owner| !self.nodes.contains_key(&owner.uid))
            {
                work.push(Work::Check(Arc::clone(uid)));
            }
            if node.foreground {
                work.extend(self.checks_of_dependents(uid));
            }
            if node.orphaning {
                work.push(Work::Orphan(Arc::clone(uid)));
            }
        }
        work
    }

    /// An object, if it was seen.
    pub(crate) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The uids of all objects of a resource.
    pub(crate) fn of_resource(&self, resource: usize) -> impl Iterator<Item = &Uid> {
        self.nodes
            .iter()
            .filter(move |(_, node)| node.place.resource == resource)
            .map(|(uid, _)| uid)
    }

    /// The objects that name `uid` as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(Uid, Node)> {
        let all = self.dependents.get(uid).into_iter().flatten();
        all.filter_map(|uid| Some((Arc::clone(uid), self.nodes.get(uid)?.clone())))
            .collect()
    }

    /// The dependents that the foreground deletion of `uid` waits for.
    pub(crate) fn blocking(&self, uid: &str) -> Vec<(Uid, Node)> {
        let mut dependents = self.dependents(uid);
        dependents.retain(|(_, node)| node.owners.iter().any(|owner| &*owner.uid == uid && owner.blocks));
        dependents
    }

    fn waits(&self, uid: &Uid) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.foreground)
    }

    fn check_if_waiting(&self, uid: &Uid) -> Option<Work> {
        self.waits(uid).then(|| Work::Check(Arc::clone(uid)))
    }

    fn checks_of_dependents(&self, uid: &Uid) -> impl Iterator<Item = Work> + use<'_> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .map(|uid| Work::Check(Arc::clone(uid)))
    }

    fn unlink(&mut self, dependent: &Uid, owner: &Uid) {
        if let Some(all) = self.dependents.get_mut(owner) {
            all.remove(dependent);
            if all.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::from(text)
    }

    fn node(owners: &[(&str, bool)]) -> Node {
        Node {
            place: Place {
                resource: 0,
                namespace: "ns".into(),
                name: "name".into(),
            },
            owners: owners
                .iter()
                .map(|(owner, blocks)| Owner {
                    uid: uid(owner),
                    blocks: *blocks,
                })
                .collect(),
            deleting: false,
            foreground: false,
            orphaning: false,
        }
    }

    fn foreground(owners: &[(&str, bool)]) -> Node {
        Node {
            deleting: true,
            foreground: true,
            ..node(owners)
        }
    }

    fn check(text: &str) -> Work {
        Work::Check(uid(text))
    }

    #[test]
    fn dependents_are_checked_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(&uid("owner"), node(&[]), true), []);
        assert_eq!(graph.apply(&uid("child"), node(&[("owner", true)]), true), []);
        assert_eq!(graph.remove(&uid("owner")), [check("child")]);
        assert_eq!(graph.remove(&uid("child")), []);
        assert!(graph.dependents.is_empty() && graph.nodes.is_empty());
    }

    #[test]
    fn an_owner_that_was_never_seen_is_looked_for_once_all_is_listed() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(&uid("child"), node(&[("owner", true)]), false), []);
        assert_eq!(graph.settle(), [check("child")]);
        assert_eq!(
            graph.apply(&uid("other"), node(&[("owner", true)]), true),
            [check("other")]
        );
        assert_eq!(
            graph.apply(&uid("other"), node(&[("owner", true)]), true),
            [],
            "nothing new"
        );
    }

    #[test]
    fn a_foreground_deletion_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        graph.apply(&uid("owner"), node(&[]), true);
        graph.apply(&uid("child"), node(&[("owner", true)]), true);
        graph.apply(&uid("free"), node(&[("owner", false)]), true);
        let work = graph.apply(&uid("owner"), foreground(&[]), true);
        assert!(
            work.contains(&check("owner")) && work.contains(&check("child")) && work.contains(&check("free"))
        );
        let blocking: Vec<_> = graph.blocking("owner").into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(blocking, [uid("child")]);
        assert_eq!(graph.remove(&uid("child")), [check("owner")]);
        assert!(graph.blocking("owner").is_empty());
    }

    #[test]
    fn a_released_dependent_lets_its_owner_be_checked() {
        let mut graph = Graph::default();
        graph.apply(&uid("owner"), foreground(&[]), true);
        graph.apply(&uid("child"), node(&[("owner", true)]), true);
        assert_eq!(graph.apply(&uid("child"), node(&[]), true), [check("owner")]);
    }

    #[test]
    fn orphaning_is_told_once() {
        let mut graph = Graph::default();
        let orphaning = Node {
            deleting: true,
            orphaning: true,
            ..node(&[])
        };
        assert_eq!(
            graph.apply(&uid("owner"), orphaning.clone(), true),
            [Work::Orphan(uid("owner"))]
        );
        assert_eq!(graph.apply(&uid("owner"), orphaning, true), []);
    }
}
