use super::node_set::NodeId;
use crate::object::HostPort;
use std::collections::HashMap;

/// Which nodes have which host ports taken, by port number.
#[derive(Debug, Default)]
pub(super) struct PortHolders(HashMap<i32, Vec<(NodeId, HostPort)>>);

impl PortHolders {
    pub(super) fn add(&mut self, id: NodeId, ports: &[HostPort]) {
        for port in ports {
            self.0.entry(port.port).or_default().push((id, port.clone()));
        }
    }

    pub(super) fn remove(&mut self, id: NodeId, ports: &[HostPort]) {
        for port in ports {
            let Some(holders) = self.0.get_mut(&port.port) else {
                continue;
            };
            if let Some(at) = holders
                .iter()
                .position(|(holder, held)| *holder == id && held == port)
            {
                holders.swap_remove(at);
            }
            if holders.is_empty() {
                self.0.remove(&port.port);
            }
        }
    }

    pub(super) fn conflicting<'c>(&'c self, port: &'c HostPort) -> impl Iterator<Item = NodeId> + 'c {
        let holders = self.0.get(&port.port).into_iter().flatten();
        holders
            .filter(|(_, held)| held.conflicts_with(port))
            .map(|(id, _)| *id)
    }
}
