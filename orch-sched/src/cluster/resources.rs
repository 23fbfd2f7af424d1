use super::node_set::NodeId;
use crate::object::{NodeInfo, Requests};
use std::collections::HashMap;
use std::sync::Arc;

/// One resource over all nodes, by row: milli-cores for `cpu`, whole units for the rest.
#[derive(Clone, Debug, Default)]
pub struct ResourceColumn {
    allocatable: Vec<i64>,
    requested: Vec<i64>,
    free: Vec<i64>,
}

impl ResourceColumn {
    /// What pods may take in total.
    #[must_use]
    pub fn allocatable(&self) -> &[i64] {
        &self.allocatable
    }

    /// What pods take, assumed ones among them.
    #[must_use]
    pub fn requested(&self) -> &[i64] {
        &self.requested
    }

    /// `allocatable - requested`; below zero on a node that was shrunk.
    #[must_use]
    pub fn free(&self) -> &[i64] {
        &self.free
    }

    fn grow(&mut self, rows: usize) {
        self.allocatable.resize(rows, 0);
        self.requested.resize(rows, 0);
        self.free.resize(rows, 0);
    }

    fn set_allocatable(&mut self, row: usize, amount: i64) {
        self.allocatable[row] = amount;
        self.free[row] = amount.saturating_sub(self.requested[row]);
    }

    fn add_requested(&mut self, row: usize, amount: i64) {
        // Wrapping keeps adding and removing symmetric whatever a pod asks for; `Requests` caps what one pod can add.
        self.requested[row] = self.requested[row].wrapping_add(amount);
        self.free[row] = self.allocatable[row].saturating_sub(self.requested[row]);
    }
}

/// Allocatable and requested amounts, one column a resource.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    rows: usize,
    pub(crate) cpu: ResourceColumn,
    pub(crate) memory: ResourceColumn,
    pub(crate) ephemeral_storage: ResourceColumn,
    /// Counts pods.
    pub(crate) pods: ResourceColumn,
    scalar: HashMap<Arc<str>, ResourceColumn>,
    pub(crate) nonzero_cpu: Vec<i64>,
    pub(crate) nonzero_memory: Vec<i64>,
}

impl Resources {
    /// The column of a resource; none when no node offers it and no pod asks for it.
    pub(crate) fn column(&self, name: &str) -> Option<&ResourceColumn> {
        match name {
            "cpu" => Some(&self.cpu),
            "memory" => Some(&self.memory),
            "ephemeral-storage" => Some(&self.ephemeral_storage),
            "pods" => Some(&self.pods),
            _ => self.scalar.get(name),
        }
    }

    pub(crate) fn grow(&mut self, rows: usize) {
        self.rows = rows;
        for column in [
            &mut self.cpu,
            &mut self.memory,
            &mut self.ephemeral_storage,
            &mut self.pods,
        ] {
            column.grow(rows);
        }
        self.scalar.values_mut().for_each(|column| column.grow(rows));
        self.nonzero_cpu.resize(rows, 0);
        self.nonzero_memory.resize(rows, 0);
    }

    /// Writes the node's allocatable amounts; `old` names the scalar resources that may have gone.
    pub(crate) fn set_allocatable(&mut self, id: NodeId, old: Option<&NodeInfo>, new: Option<&NodeInfo>) {
        let row = id.index();
        let amount = |of: fn(&NodeInfo) -> i64| new.map_or(0, of);
        self.cpu.set_allocatable(row, amount(|n| n.milli_cpu));
        self.memory.set_allocatable(row, amount(|n| n.memory));
        self.ephemeral_storage
            .set_allocatable(row, amount(|n| n.ephemeral_storage));
        self.pods.set_allocatable(row, amount(|n| n.pods));
        for (name, _) in old.into_iter().flat_map(|n| &n.scalar) {
            self.scalar_mut(name).set_allocatable(row, 0);
        }
        for (name, amount) in new.into_iter().flat_map(|n| &n.scalar) {
            self.scalar_mut(name).set_allocatable(row, *amount);
        }
    }

    pub(crate) fn add_pod(&mut self, id: NodeId, requests: &Requests) {
        self.count_pod(id, requests, 1);
    }

    pub(crate) fn remove_pod(&mut self, id: NodeId, requests: &Requests) {
        self.count_pod(id, requests, -1);
    }

    fn count_pod(&mut self, id: NodeId, requests: &Requests, sign: i64) {
        let row = id.index();
        self.cpu.add_requested(row, sign * requests.milli_cpu);
        self.memory.add_requested(row, sign * requests.memory);
        self.ephemeral_storage
            .add_requested(row, sign * requests.ephemeral_storage);
        self.pods.add_requested(row, sign);
        for (name, amount) in &requests.scalar {
            self.scalar_mut(name).add_requested(row, sign * amount);
        }
        self.nonzero_cpu[row] = self.nonzero_cpu[row].wrapping_add(sign * requests.nonzero_milli_cpu);
        self.nonzero_memory[row] = self.nonzero_memory[row].wrapping_add(sign * requests.nonzero_memory);
    }

    fn scalar_mut(&mut self, name: &Arc<str>) -> &mut ResourceColumn {
        let rows = self.rows;
        self.scalar.entry(name.clone()).or_insert_with(|| {
            let mut column = ResourceColumn::default();
            column.grow(rows);
            column
        })
    }
}
