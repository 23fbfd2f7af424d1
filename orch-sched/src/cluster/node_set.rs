use fixedbitset::FixedBitSet;

/// A node's row in the columns. Rows of removed nodes are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// The row as an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("fewer than 2^32 nodes"))
    }
}

/// A set of nodes, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSet(FixedBitSet);

impl NodeSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node.
    pub fn insert(&mut self, id: NodeId) {
        self.0.grow_and_insert(id.index());
    }

    /// Removes a node.
    pub fn remove(&mut self, id: NodeId) {
        if id.index() < self.0.len() {
            self.0.remove(id.index());
        }
    }

    /// True when the node is in the set.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.0.contains(id.index())
    }

    /// How many nodes are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.count_ones(..)
    }

    /// True when no node is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_clear()
    }

    /// Nodes by ascending row.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.ones().map(NodeId::from_index)
    }

    /// Removes every node.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps the nodes that are in `other` too.
    pub fn intersect(&mut self, other: &Self) {
        self.0.intersect_with(&other.0);
    }

    /// Removes the nodes that are in `other`.
    pub fn subtract(&mut self, other: &Self) {
        self.0.difference_with(&other.0);
    }

    /// Keeps the nodes for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(NodeId) -> bool) {
        let bits = usize::BITS as usize;
        for (at, word) in self.0.as_mut_slice().iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                if !keep(NodeId::from_index(at * bits + bit)) {
                    *word &= !(1 << bit);
                }
            }
        }
    }

    /// Keeps the nodes whose entry in `column` satisfies `keep`; rows past its end are removed.
    ///
    /// Made for the compiler to turn into vector comparisons: `keep` should be a plain comparison without branches.
    pub fn retain_column<T: Copy>(&mut self, column: &[T], keep: impl Fn(T) -> bool) {
        let bits = usize::BITS as usize;
        for (at, word) in self.0.as_mut_slice().iter_mut().enumerate() {
            if *word == 0 {
                continue;
            }
            let from = (at * bits).min(column.len());
            let to = (from + bits).min(column.len());
            let mut mask = 0usize;
            for (bit, &value) in column[from..to].iter().enumerate() {
                mask |= usize::from(keep(value)) << bit;
            }
            *word &= mask;
        }
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut set = Self::new();
        for id in nodes {
            set.insert(id);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[u32]) -> NodeSet {
        rows.iter().map(|&row| NodeId(row)).collect()
    }

    #[test]
    fn retain_and_retain_column_agree_across_word_borders() {
        let column: Vec<i64> = (0..150).map(|i| i % 7).collect();
        let mut by_row = set(&(0..200).collect::<Vec<_>>());
        let mut by_column = by_row.clone();
        by_row.retain(|id| column.get(id.index()).is_some_and(|v| *v > 3));
        by_column.retain_column(&column, |v| v > 3);
        assert_eq!(
            by_row.iter().collect::<Vec<_>>(),
            by_column.iter().collect::<Vec<_>>()
        );
        assert_eq!(by_column.len(), (0..150).filter(|i| i % 7 > 3).count());
    }

    #[test]
    fn removing_a_row_that_was_never_there_changes_nothing() {
        let mut nodes = set(&[1]);
        nodes.remove(NodeId(900));
        assert!(nodes.contains(NodeId(1)) && nodes.len() == 1);
    }
}
