//! The informer's content: objects by key, and indexes over them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::key::NamespacedName;

pub(super) type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

pub(super) struct Store<K> {
    objects: BTreeMap<NamespacedName, Arc<K>>,
    indexes: Vec<Index<K>>,
}

struct Index<K> {
    name: &'static str,
    values: IndexFn<K>,
    entries: HashMap<String, BTreeSet<NamespacedName>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Store {
            objects: BTreeMap::new(),
            indexes: Vec::new(),
        }
    }
}

impl<K> Store<K> {
    pub(super) fn get(&self, key: &NamespacedName) -> Option<Arc<K>> {
        self.objects.get(key).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<K>> {
        self.objects.values().cloned().collect()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &NamespacedName> {
        self.objects.keys()
    }

    /// Keys sort as text, so that those of a namespace stand together.
    pub(super) fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let prefix = format!("{namespace}/");
        self.objects
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(&prefix))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    pub(super) fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let Some(index) = self.indexes.iter().find(|index| index.name == name) else {
            debug_assert!(false, "no index {name}");
            return Vec::new();
        };
        let keys = index.entries.get(value).into_iter().flatten();
        keys.filter_map(|key| self.get(key)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn add_index(&mut self, name: &'static str, values: IndexFn<K>) {
        if self.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index {
            name,
            values,
            entries: HashMap::new(),
        };
        for (key, object) in &self.objects {
            index.insert(key, object);
        }
        self.indexes.push(index);
    }

    /// Puts the object in and returns what was there.
    pub(super) fn insert(&mut self, key: NamespacedName, object: Arc<K>) -> Option<Arc<K>> {
        for index in &mut self.indexes {
            if let Some(old) = self.objects.get(&key) {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        self.objects.insert(key, object)
    }

    pub(super) fn remove(&mut self, key: &NamespacedName) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in &mut self.indexes {
            index.remove(key, &old);
        }
        Some(old)
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &NamespacedName, object: &K) {
        for value in (self.values)(object) {
            self.entries.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &NamespacedName, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.entries.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> NamespacedName {
        NamespacedName::cluster(text)
    }

    #[test]
    fn indexes_follow_the_objects() {
        let mut store = Store::<String>::default();
        store.add_index(
            "first",
            Box::new(|s| s.chars().take(1).map(String::from).collect()),
        );
        store.insert(key("a/1"), Arc::new("x1".into()));
        store.insert(key("a/2"), Arc::new("x2".into()));
        assert_eq!(store.by_index("first", "x").len(), 2);
        store.insert(key("a/1"), Arc::new("y1".into()));
        assert_eq!(store.by_index("first", "x").len(), 1);
        assert_eq!(*store.by_index("first", "y")[0], "y1");
        store.remove(&key("a/2"));
        assert!(store.by_index("first", "x").is_empty());
        store.add_index(
            "last",
            Box::new(|s| s.chars().last().map(String::from).into_iter().collect()),
        );
        assert_eq!(
            store.by_index("last", "1").len(),
            1,
            "a late index sees what was there"
        );
    }

    #[test]
    fn a_namespace_is_not_its_prefix() {
        let mut store = Store::<u8>::default();
        for name in ["a/1", "a/2", "ab/1", "b/1", "a-b/1"] {
            store.insert(key(name), Arc::new(0));
        }
        assert_eq!(store.list_namespace("a").len(), 2);
        assert_eq!(store.list_namespace("ab").len(), 1);
        assert!(store.list_namespace("c").is_empty());
    }
}
