//! Which changes wake which watchers.

use std::sync::Arc;

use bytes::Bytes;
use orch_store::fanout::Router;

use super::entry::{Change, Entry};

/// The part of a resource that a watcher can be woken by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// Every change.
    All,
    /// Changes in one namespace.
    Namespace(Box<str>),
    /// Changes of one object, by its key.
    Object(Bytes),
    /// Changes of objects whose indexed field has this value: the pods of one node.
    Field(Box<str>),
}

/// Sorts changes by topic.
#[derive(Debug)]
pub(crate) struct Topics {
    /// The selectable field by which watchers of this resource are woken apart.
    pub(crate) indexed: Option<&'static str>,
}

impl Topics {
    fn values<'a>(&self, change: &'a Change) -> [Option<&'a str>; 2] {
        let value = |entry: &'a Entry| self.indexed.and_then(|field| entry.field(field));
        [value(&change.entry), change.previous.as_deref().and_then(value)]
    }
}

impl Router<Arc<Change>> for Topics {
    type Topic = Topic;

    fn matches(&self, topic: &Topic, change: &Arc<Change>) -> bool {
        match topic {
            Topic::All => true,
            Topic::Namespace(namespace) => change.entry.namespace == *namespace,
            Topic::Object(key) => change.entry.key == *key,
            Topic::Field(value) => self.values(change).contains(&Some(value)),
        }
    }

    fn route(&self, change: &Arc<Change>, visit: &mut dyn FnMut(&Topic)) {
        visit(&Topic::All);
        visit(&Topic::Namespace(change.entry.namespace.clone()));
        visit(&Topic::Object(change.entry.key.clone()));
        let [after, before] = self.values(change);
        for value in [after, before.filter(|before| after != Some(before))]
            .into_iter()
            .flatten()
        {
            visit(&Topic::Field(value.into()));
        }
    }

    fn weight(&self, change: &Arc<Change>) -> usize {
        change.entry.json.len() + 256
    }
}
