use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::Hash;

/// A binary heap with a place for each key, so that any entry can be taken out. The order comes from outside, since it may
/// be a policy's.
#[derive(Debug)]
pub(super) struct KeyedHeap<K, V> {
    entries: Vec<(K, V)>,
    places: HashMap<K, usize>,
}

impl<K, V> Default for KeyedHeap<K, V> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            places: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, V> KeyedHeap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn peek(&self) -> Option<&V> {
        self.entries.first().map(|(_, value)| value)
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.places.get(key).map(|&at| &self.entries[at].1)
    }

    pub(super) fn push(&mut self, key: K, value: V, order: &impl Fn(&V, &V) -> Ordering) {
        self.remove(&key, order);
        let at = self.entries.len();
        self.places.insert(key.clone(), at);
        self.entries.push((key, value));
        self.rise(at, order);
    }

    pub(super) fn pop(&mut self, order: &impl Fn(&V, &V) -> Ordering) -> Option<V> {
        let key = self.entries.first()?.0.clone();
        self.remove(&key, order)
    }

    pub(super) fn remove(&mut self, key: &K, order: &impl Fn(&V, &V) -> Ordering) -> Option<V> {
        let at = self.places.remove(key)?;
        let (_, value) = self.entries.swap_remove(at);
        if at < self.entries.len() {
            self.places.insert(self.entries[at].0.clone(), at);
            self.sink(at, order);
            self.rise(at, order);
        }
        Some(value)
    }

    fn rise(&mut self, mut at: usize, order: &impl Fn(&V, &V) -> Ordering) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if order(&self.entries[at].1, &self.entries[parent].1) != Ordering::Less {
                return;
            }
            self.swap(at, parent);
            at = parent;
        }
    }

    fn sink(&mut self, mut at: usize, order: &impl Fn(&V, &V) -> Ordering) {
        loop {
            let children = [2 * at + 1, 2 * at + 2]
                .into_iter()
                .filter(|&child| child < self.entries.len());
            let Some(first) = children.min_by(|&a, &b| order(&self.entries[a].1, &self.entries[b].1)) else {
                return;
            };
            if order(&self.entries[first].1, &self.entries[at].1) != Ordering::Less {
                return;
            }
            self.swap(at, first);
            at = first;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.entries.swap(a, b);
        self.places.insert(self.entries[a].0.clone(), a);
        self.places.insert(self.entries[b].0.clone(), b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_leave_in_order_whatever_is_taken_out_between(
            values in prop::collection::vec(0u8..50, 0..60), taken in prop::collection::vec(0usize..60, 0..20),
        ) {
            let mut heap = KeyedHeap::default();
            let order = |a: &u8, b: &u8| a.cmp(b);
            for (key, value) in values.iter().enumerate() {
                heap.push(key, *value, &order);
            }
            let mut expected: Vec<Option<u8>> = values.iter().copied().map(Some).collect();
            for key in taken {
                let stood = expected.get_mut(key).and_then(Option::take);
                prop_assert_eq!(heap.remove(&key, &order), stood);
            }
            let mut expected: Vec<u8> = expected.into_iter().flatten().collect();
            expected.sort_unstable();
            let popped: Vec<u8> = std::iter::from_fn(|| heap.pop(&order)).collect();
            prop_assert_eq!(popped, expected);
        }
    }
}
