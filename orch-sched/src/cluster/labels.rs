use super::interner::{Interner, NONE, Symbol};
use super::node_set::NodeId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Node labels as one column of value symbols a key.
#[derive(Debug, Default)]
pub(crate) struct LabelColumns {
    values: Interner,
    columns: HashMap<Arc<str>, Column>,
}

#[derive(Debug, Default)]
struct Column {
    /// By row; [`NONE`] where the node lacks the label, as for rows past the end.
    rows: Vec<Symbol>,
    holders: usize,
}

/// The values of one label key over all nodes. A key that no node has is an empty column.
#[derive(Clone, Copy, Debug)]
pub struct LabelColumn<'c> {
    rows: &'c [Symbol],
    values: &'c Interner,
}

impl<'c> LabelColumn<'c> {
    /// The label's value on a node.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&'c str> {
        match self.symbol(id) {
            NONE => None,
            symbol => Some(self.values.text(symbol)),
        }
    }

    pub(crate) fn rows(&self) -> &'c [Symbol] {
        self.rows
    }

    pub(crate) fn symbol(&self, id: NodeId) -> Symbol {
        self.rows.get(id.index()).copied().unwrap_or(NONE)
    }

    /// The symbol of a value, if any node has it.
    pub(crate) fn symbol_of(&self, value: &str) -> Option<Symbol> {
        self.values.find(value)
    }

    pub(crate) fn number(&self, symbol: Symbol) -> Option<i64> {
        self.values.number(symbol)
    }
}

impl LabelColumns {
    pub(crate) fn column(&self, key: &str) -> LabelColumn<'_> {
        LabelColumn {
            rows: self.columns.get(key).map_or(&[], |c| &c.rows),
            values: &self.values,
        }
    }

    /// Writes what differs between the two label sets into the node's row.
    pub(crate) fn replace(
        &mut self,
        id: NodeId,
        old: &BTreeMap<String, String>,
        new: &BTreeMap<String, String>,
    ) {
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.set(id, key, None);
        }
        for (key, value) in new {
            if old.get(key) != Some(value) {
                self.set(id, key, Some(value));
            }
        }
    }

    fn set(&mut self, id: NodeId, key: &str, value: Option<&str>) {
        let symbol = value.map_or(NONE, |v| self.values.acquire(v));
        if !self.columns.contains_key(key) {
            self.columns.insert(key.into(), Column::default());
        }
        let column = self
            .columns
            .get_mut(key)
            .expect("the column was just made sure of");
        if column.rows.len() <= id.index() {
            column.rows.resize(id.index() + 1, NONE);
        }
        let before = std::mem::replace(&mut column.rows[id.index()], symbol);
        column.holders += usize::from(symbol != NONE);
        column.holders -= usize::from(before != NONE);
        let unused = column.holders == 0;
        self.values.release(before);
        if unused {
            self.columns.remove(key);
        }
    }

    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.columns.len(), self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn columns_follow_changes_and_leave_nothing_behind() {
        let mut columns = LabelColumns::default();
        let (first, second) = (
            labels(&[("zone", "a"), ("disk", "ssd")]),
            labels(&[("zone", "b")]),
        );
        columns.replace(NodeId(3), &labels(&[]), &first);
        assert_eq!(columns.column("disk").get(NodeId(3)), Some("ssd"));
        assert_eq!(columns.column("zone").get(NodeId(0)), None);
        columns.replace(NodeId(3), &first, &second);
        assert_eq!(columns.column("zone").get(NodeId(3)), Some("b"));
        assert_eq!(columns.column("disk").get(NodeId(3)), None);
        columns.replace(NodeId(3), &second, &labels(&[]));
        assert_eq!(columns.sizes(), (0, 0));
    }
}
