//! What one service port is in nftables: elements of maps and sets, and for session affinity a few chains.
//!
//! This is pure and typed, so that the difference of two service ports is the difference of two short lists.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use sha2::{Digest, Sha256};

use crate::model::{Endpoint, Frontend, Protocol, Route, ServicePort, TrafficPolicy};

/// By what a packet finds its service port: the destination address and port, or at the node's own addresses the port alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Space {
    Address,
    NodePort,
}

/// Which of a frontend's two lists of endpoints: the second one serves outside traffic under `externalTrafficPolicy: Local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum List {
    Main,
    Local,
}

/// A map or set of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Collection {
    /// Frontend → chain.
    Services(Space),
    /// Frontend and a random index below the number of endpoints → endpoint.
    Endpoints(Space, List, Protocol),
    /// Frontend under `externalTrafficPolicy: Local` → chain for pods and the node (main list) or for all others (local list).
    Policy(Space, List),
    /// Frontend without endpoints → reject or drop.
    Blocked(Space),
    /// All cluster IPs: what is left for them after the maps is refused.
    ClusterIps,
    /// Local endpoint and itself: a pod that reaches itself through a Service.
    Hairpin,
}

impl Collection {
    /// All that a table has.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::ClusterIps, Self::Hairpin];
        for space in [Space::Address, Space::NodePort] {
            all.extend([Self::Services(space), Self::Blocked(space)]);
            for list in [List::Main, List::Local] {
                all.push(Self::Policy(space, list));
                all.extend(Protocol::ALL.map(|protocol| Self::Endpoints(space, list, protocol)));
            }
        }
        all
    }

    /// Whether several service ports may hold the same element.
    pub(super) fn is_shared(self) -> bool {
        matches!(self, Self::ClusterIps | Self::Hairpin)
    }
}

/// A frontend as packets show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) ip: Option<IpAddr>,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Target(Target),
    Slot(Target, u32),
    Ip(IpAddr),
    Pair(IpAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Value {
    None,
    Goto(ChainId),
    Endpoint(SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) collection: Collection,
    pub(super) key: Key,
    pub(super) value: Value,
}

/// How endpoints are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Choice {
    /// At random among as many elements of an endpoint map; all service ports of the protocol with as many endpoints share the chain.
    Random(Space, List, Protocol, u32),
    /// By the service port's own chain, which remembers clients.
    Sticky(u64),
}

/// What happens to a packet on its way to the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Entry {
    /// Nothing.
    Plain,
    /// It is masqueraded: its answer must come back through this node.
    Masquerade,
    /// It is masqueraded unless it comes from a pod.
    Cluster,
}

/// A chain that elements point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ChainId {
    Choose(Choice, Entry),
    ExternalLocal(Space),
    Reject,
    Drop,
}

/// A service port's chain that keeps clients at their endpoints, with one set of clients for each endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sticky {
    pub(super) id: u64,
    pub(super) protocol: Protocol,
    pub(super) timeout_seconds: u64,
    /// Each endpoint with the id of its chain and set.
    pub(super) endpoints: Vec<(u64, SocketAddr)>,
}

/// All of one service port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) elements: Vec<Element>,
    pub(super) sticky: Vec<Sticky>,
}

impl Content {
    pub(super) fn of(port: &ServicePort) -> Self {
        let mut content = Self::default();
        for frontend in &port.frontends {
            content.frontend(port, frontend);
        }
        for endpoint in port.all_endpoints().filter(|endpoint| endpoint.local) {
            let ip = endpoint.address.ip();
            content.push(Collection::Hairpin, Key::Pair(ip), Value::None);
        }
        content.elements.sort_unstable();
        content.elements.dedup();
        content
    }

    fn push(&mut self, collection: Collection, key: Key, value: Value) {
        self.elements.push(Element {
            collection,
            key,
            value,
        });
    }

    fn frontend(&mut self, port: &ServicePort, frontend: &Frontend) {
        let ip = frontend.address.ip();
        let space = if ip.is_some() {
            Space::Address
        } else {
            Space::NodePort
        };
        let target = Target {
            ip,
            protocol: port.key.protocol,
            port: frontend.port,
        };
        if let (true, Some(ip)) = (frontend.is_internal(), ip) {
            self.push(Collection::ClusterIps, Key::Ip(ip), Value::None);
        }
        if !frontend.is_internal() && port.external_policy == TrafficPolicy::Local {
            return self.external_local(port, frontend, space, target);
        }
        let (entry, remembered) = match (frontend.is_internal(), port.internal_policy) {
            (false, _) => (Entry::Masquerade, List::Main),
            (true, TrafficPolicy::Cluster) => (Entry::Cluster, List::Main),
            (true, TrafficPolicy::Local) => (Entry::Cluster, List::Local),
        };
        match port.route(frontend) {
            Route::Endpoints(endpoints) => {
                let choice = self.choice(port, space, target, (List::Main, remembered), endpoints);
                let value = Value::Goto(ChainId::Choose(choice, entry));
                self.push(Collection::Services(space), Key::Target(target), value);
            }
            Route::Reject => self.block(space, target, ChainId::Reject),
            Route::Drop => self.block(space, target, ChainId::Drop),
        }
    }

    fn external_local(&mut self, port: &ServicePort, frontend: &Frontend, space: Space, target: Target) {
        let Route::Endpoints(all) = port.route_from_cluster(frontend) else {
            return self.block(space, target, ChainId::Reject);
        };
        let key = Key::Target(target);
        self.push(
            Collection::Services(space),
            key,
            Value::Goto(ChainId::ExternalLocal(space)),
        );
        let choice = self.choice(port, space, target, (List::Main, List::Main), all);
        let value = Value::Goto(ChainId::Choose(choice, Entry::Plain));
        self.push(Collection::Policy(space, List::Main), key, value);
        if let Route::Endpoints(local) = port.route(frontend) {
            let choice = self.choice(port, space, target, (List::Local, List::Local), local);
            let value = Value::Goto(ChainId::Choose(choice, Entry::Plain));
            self.push(Collection::Policy(space, List::Local), key, value);
        } else {
            self.block(space, target, ChainId::Drop);
        }
    }

    fn block(&mut self, space: Space, target: Target, chain: ChainId) {
        self.push(
            Collection::Blocked(space),
            Key::Target(target),
            Value::Goto(chain),
        );
    }

    /// Lays out `endpoints` to be chosen from. Of the lists, the first says in which map they are, the second which list of the service
    /// port they are: with session affinity, frontends that share a list share its clients.
    fn choice(
        &mut self,
        port: &ServicePort,
        space: Space,
        target: Target,
        (list, remembered): (List, List),
        endpoints: &[Endpoint],
    ) -> Choice {
        if let Some(timeout) = port.session_affinity {
            let id = hash(&(&port.key, remembered, timeout));
            if self.sticky.iter().all(|sticky| sticky.id != id) {
                let endpoints = endpoints
                    .iter()
                    .map(|e| (hash(&(id, e.address)), e.address))
                    .collect();
                let protocol = port.key.protocol;
                self.sticky.push(Sticky {
                    id,
                    protocol,
                    timeout_seconds: timeout.as_secs(),
                    endpoints,
                });
            }
            return Choice::Sticky(id);
        }
        let mut count = 0;
        for endpoint in endpoints {
            let collection = Collection::Endpoints(space, list, target.protocol);
            self.push(
                collection,
                Key::Slot(target, count),
                Value::Endpoint(endpoint.address),
            );
            count += 1;
        }
        Choice::Random(space, list, target.protocol, count)
    }
}

/// A name for what users name: their text never reaches the ruleset as an identifier, and the same thing has the same name after a
/// restart and on each build.
fn hash(value: &impl Hash) -> u64 {
    struct Feed(Sha256);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            let digest = self.0.clone().finalize();
            u64::from_be_bytes([
                digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
            ])
        }
    }
    let mut feed = Feed(Sha256::new());
    value.hash(&mut feed);
    feed.finish()
}
