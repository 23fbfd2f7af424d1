//! Which endpoint a client is sent to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::{Frontend, Route, ServicePort};

/// When to look for the first time for clients whose affinity has expired.
const FIRST_SWEEP: usize = 1024;

/// Chooses endpoints of one service port, for all its frontends.
#[derive(Debug)]
pub(super) struct Balancer {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    port: Arc<ServicePort>,
    clients: HashMap<IpAddr, Client>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Client {
    endpoint: SocketAddr,
    last_seen: Instant,
}

impl Balancer {
    pub(super) fn new(port: Arc<ServicePort>) -> Self {
        Self {
            state: Mutex::new(State {
                port,
                clients: HashMap::new(),
                sweep_at: FIRST_SWEEP,
            }),
        }
    }

    /// Takes over the new endpoints and policies. Clients stay where they are if that is still an endpoint.
    pub(super) fn update(&self, port: Arc<ServicePort>) {
        self.state.lock().port = port;
    }

    /// The endpoints to try for a client, best first; none if its traffic is not to be served.
    pub(super) fn candidates(&self, frontend: &Frontend, client: IpAddr, inside: bool) -> Vec<SocketAddr> {
        let state = self.state.lock();
        let route = if inside {
            state.port.route_from_cluster(frontend)
        } else {
            state.port.route(frontend)
        };
        let Route::Endpoints(endpoints) = route else {
            return Vec::new();
        };
        let mut candidates: Vec<SocketAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        fastrand::shuffle(&mut candidates);
        if let Some(sticky) = state.sticky(client)
            && let Some(index) = candidates.iter().position(|candidate| *candidate == sticky)
        {
            candidates.swap(0, index);
        }
        candidates
    }

    /// Notes that a client was served by an endpoint.
    pub(super) fn remember(&self, client: IpAddr, endpoint: SocketAddr) {
        let mut state = self.state.lock();
        let Some(timeout) = state.port.session_affinity else {
            return;
        };
        let now = Instant::now();
        state.clients.insert(
            client,
            Client {
                endpoint,
                last_seen: now,
            },
        );
        if state.clients.len() >= state.sweep_at {
            state
                .clients
                .retain(|_, client| now.duration_since(client.last_seen) < timeout);
            state.sweep_at = FIRST_SWEEP.max(state.clients.len() * 2);
        }
    }

    /// Whether an endpoint may go on serving a flow to the frontend.
    pub(super) fn serves(&self, endpoint: SocketAddr) -> bool {
        self.state
            .lock()
            .port
            .all_endpoints()
            .any(|known| known.address == endpoint)
    }
}

impl State {
    fn sticky(&self, client: IpAddr) -> Option<SocketAddr> {
        let timeout = self.port.session_affinity?;
        let client = self.clients.get(&client)?;
        (client.last_seen.elapsed() < timeout).then_some(client.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Endpoint, Family, FrontendAddress, NamespacedName, Protocol, ServicePortKey, TrafficPolicy,
    };

    fn port(endpoints: &[u8], affinity: Option<Duration>) -> Arc<ServicePort> {
        let endpoint = |last: &u8| Endpoint {
            address: SocketAddr::from(([10, 0, 0, *last], 80)),
            local: *last == 1,
        };
        let all: Vec<Endpoint> = endpoints.iter().map(endpoint).collect();
        Arc::new(ServicePort {
            key: ServicePortKey {
                service: NamespacedName::new("ns", "web"),
                port: String::new(),
                protocol: Protocol::Tcp,
                family: Family::V4,
            },
            frontends: Vec::new(),
            session_affinity: affinity,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Local,
            local_endpoints: all.iter().copied().filter(|endpoint| endpoint.local).collect(),
            cluster_endpoints: all,
        })
    }

    const NODE_PORT: Frontend = Frontend {
        address: FrontendAddress::NodePort,
        port: 30080,
    };
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[tokio::test(start_paused = true)]
    async fn clients_stick_until_they_were_away_for_long() {
        let affinity = Duration::from_secs(10);
        let balancer = Balancer::new(port(&[1, 2, 3, 4, 5, 6, 7, 8], Some(affinity)));
        let first = balancer.candidates(&NODE_PORT, CLIENT, true)[0];
        balancer.remember(CLIENT, first);
        tokio::time::advance(Duration::from_secs(9)).await;
        for _ in 0..50 {
            assert_eq!(balancer.candidates(&NODE_PORT, CLIENT, true)[0], first);
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!((0..200).any(|_| balancer.candidates(&NODE_PORT, CLIENT, true)[0] != first));
    }

    #[test]
    fn policy_local_binds_outsiders() {
        let balancer = Balancer::new(port(&[1, 2], None));
        assert_eq!(balancer.candidates(&NODE_PORT, CLIENT, false).len(), 1);
        assert_eq!(balancer.candidates(&NODE_PORT, CLIENT, true).len(), 2);
        balancer.update(port(&[2], None));
        assert!(balancer.candidates(&NODE_PORT, CLIENT, false).is_empty());
        assert!(!balancer.serves(SocketAddr::from(([10, 0, 0, 1], 80))));
    }
}
