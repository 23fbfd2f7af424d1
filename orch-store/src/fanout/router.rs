use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

/// Decides which readers' topics an item belongs to.
///
/// The two methods must agree: [`route`](Self::route) visits at least every joined topic that
/// [`matches`](Self::matches) the item. Both run under the source's lock and must be quick.
pub trait Router<T>: Send + Sync + 'static {
    /// What a cursor subscribes to.
    type Topic: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static;

    /// Whether a reader of `topic` gets `item`.
    fn matches(&self, topic: &Self::Topic, item: &T) -> bool;

    /// Calls `visit` with every topic that the item belongs to; ones that nobody reads do no harm.
    fn route(&self, item: &T, visit: &mut dyn FnMut(&Self::Topic));

    /// What the item counts towards [`Bounds::max_weight`](super::Bounds::max_weight), typically bytes.
    fn weight(&self, item: &T) -> usize {
        let _ = item;
        0
    }

    /// The first reader of a topic has come.
    fn joined(&mut self, topic: &Self::Topic) {
        let _ = topic;
    }

    /// The last reader of a topic has gone.
    fn left(&mut self, topic: &Self::Topic) {
        let _ = topic;
    }
}

/// Every reader gets every item.
#[derive(Debug, Clone, Copy, Default)]
pub struct Broadcast;

impl<T> Router<T> for Broadcast {
    type Topic = ();

    fn matches(&self, (): &(), _: &T) -> bool {
        true
    }

    fn route(&self, _: &T, visit: &mut dyn FnMut(&())) {
        visit(&());
    }
}

/// What a reader of a [`ByKey`] source wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic<K> {
    /// Every item.
    All,
    /// The items that have this key.
    Key(K),
}

/// A reader gets all items, or those of one key: the pods of one node, say, so that a pod's event wakes one of
/// five thousand node agents.
///
/// The function calls its second argument with each key of an item. An object that moved from one key to another
/// has both, so that readers of the old one learn that it has left.
pub struct ByKey<K, F> {
    keys: F,
    key: PhantomData<fn(K)>,
}

impl<K, F> ByKey<K, F> {
    /// Routes by the keys that `keys` names.
    pub fn new<T>(keys: F) -> Self
    where
        F: Fn(&T, &mut dyn FnMut(K)),
    {
        Self {
            keys,
            key: PhantomData,
        }
    }
}

impl<T, K, F> Router<T> for ByKey<K, F>
where
    K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
    F: Fn(&T, &mut dyn FnMut(K)) + Send + Sync + 'static,
{
    type Topic = Topic<K>;

    fn matches(&self, topic: &Topic<K>, item: &T) -> bool {
        let Topic::Key(wanted) = topic else {
            return true;
        };
        let mut found = false;
        (self.keys)(item, &mut |key| found |= key == *wanted);
        found
    }

    fn route(&self, item: &T, visit: &mut dyn FnMut(&Topic<K>)) {
        visit(&Topic::All);
        (self.keys)(item, &mut |key| visit(&Topic::Key(key)));
    }
}

impl<K, F> fmt::Debug for ByKey<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByKey").finish_non_exhaustive()
    }
}
