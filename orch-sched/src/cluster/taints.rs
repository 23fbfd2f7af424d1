use super::node_set::NodeId;
use crate::object::Taint;
use std::collections::HashMap;
use std::sync::Arc;

/// Stands for one distinct list of taints; 0 is the empty list.
pub(crate) type TaintList = u32;

/// Taints by row, where nodes with the same taints share one list: a toleration is matched once a list, not once a node.
#[derive(Debug)]
pub(crate) struct TaintColumn {
    rows: Vec<TaintList>,
    lists: Vec<Entry>,
    by_taints: HashMap<Arc<[Taint]>, TaintList>,
    free: Vec<TaintList>,
}

#[derive(Debug)]
struct Entry {
    taints: Arc<[Taint]>,
    users: usize,
}

impl Default for TaintColumn {
    fn default() -> Self {
        let none: Arc<[Taint]> = Arc::new([]);
        let lists = vec![Entry {
            taints: none.clone(),
            users: 0,
        }];
        Self {
            rows: Vec::new(),
            lists,
            by_taints: HashMap::from([(none, 0)]),
            free: Vec::new(),
        }
    }
}

impl TaintColumn {
    pub(crate) fn grow(&mut self, rows: usize) {
        self.rows.resize(rows, 0);
    }

    pub(crate) fn rows(&self) -> &[TaintList] {
        &self.rows
    }

    pub(crate) fn of(&self, id: NodeId) -> &[Taint] {
        &self.lists[self.rows[id.index()] as usize].taints
    }

    /// Evaluates something for each list, indexed by [`TaintList`].
    pub(crate) fn by_list<T>(&self, eval: impl Fn(&[Taint]) -> T) -> Vec<T> {
        self.lists.iter().map(|entry| eval(&entry.taints)).collect()
    }

    pub(crate) fn set(&mut self, id: NodeId, taints: &[Taint]) {
        let list = self.acquire(taints);
        let before = std::mem::replace(&mut self.rows[id.index()], list);
        self.release(before);
    }

    fn acquire(&mut self, taints: &[Taint]) -> TaintList {
        if let Some(&list) = self.by_taints.get(taints) {
            self.lists[list as usize].users += 1;
            return list;
        }
        let taints: Arc<[Taint]> = taints.into();
        let entry = Entry {
            taints: taints.clone(),
            users: 1,
        };
        let list = match self.free.pop() {
            Some(list) => {
                self.lists[list as usize] = entry;
                list
            }
            None => {
                self.lists.push(entry);
                TaintList::try_from(self.lists.len() - 1).expect("fewer than 2^32 nodes")
            }
        };
        self.by_taints.insert(taints, list);
        list
    }

    fn release(&mut self, list: TaintList) {
        let entry = &mut self.lists[list as usize];
        entry.users = entry.users.saturating_sub(1);
        if list != 0 && entry.users == 0 {
            self.by_taints.remove(&entry.taints);
            entry.taints = Arc::new([]);
            self.free.push(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::TaintEffect;

    fn taint(key: &str) -> Taint {
        Taint {
            key: key.into(),
            value: String::new(),
            effect: TaintEffect::NoSchedule,
        }
    }

    #[test]
    fn equal_lists_are_shared_and_unused_ones_are_used_again() {
        let mut column = TaintColumn::default();
        column.grow(3);
        column.set(NodeId(0), &[taint("a")]);
        column.set(NodeId(1), &[taint("a")]);
        assert_eq!(column.rows(), [1, 1, 0]);
        column.set(NodeId(0), &[]);
        column.set(NodeId(1), &[]);
        column.set(NodeId(2), &[taint("b")]);
        assert_eq!(column.rows(), [0, 0, 1]);
        assert_eq!(column.of(NodeId(2)), [taint("b")]);
        assert_eq!(column.by_list(<[Taint]>::len), [0, 1]);
    }
}
