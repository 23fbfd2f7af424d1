//! The userspace backend: each frontend is a socket of this process.
//!
//! It needs nothing of the kernel but sockets. As root it makes a quiet link that holds the cluster IPs (and external ones), so that the node and
//! its pods reach them; without root it serves addresses in 127/8 and node ports, and reports all others. Endpoints see the node as
//! their client. A connection whose endpoint refuses is tried at another one, so an endpoint that is gone before it is reported costs
//! nothing. Frontends without endpoints have no socket: the kernel refuses for them. What `externalTrafficPolicy: Local` would drop is reset.

mod addresses;
mod balancer;
mod socket;
mod tcp;
mod udp;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{BackendError, ProxyBackend, SyncReport, Unserved};
use crate::model::{Changes, DesiredState, Family, Frontend, Protocol, ServicePort, ServicePortKey};
use addresses::{Addresses, NoAddress};
use balancer::Balancer;
use orch_core::ipam::Cidr;

/// How the userspace backend behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserspaceConfig {
    /// The link that holds the addresses of Services. Default `orch-proxy`.
    pub link: String,
    /// The addresses of all pods of the cluster, which `externalTrafficPolicy: Local` does not bind. Default none.
    pub pod_cidrs: Vec<Cidr>,
    /// How long an endpoint may take to accept a connection before another one is tried. Default 1 s.
    pub connect_timeout: Duration,
    /// How long a UDP flow is kept after its last datagram, at least; at most twice as long. Default 60 s.
    pub udp_idle: Duration,
}

impl Default for UserspaceConfig {
    fn default() -> Self {
        Self {
            link: "orch-proxy".to_owned(),
            pod_cidrs: Vec::new(),
            connect_timeout: Duration::from_secs(1),
            udp_idle: Duration::from_secs(60),
        }
    }
}

/// What a frontend's tasks share.
#[derive(Debug)]
struct Service {
    key: ServicePortKey,
    frontend: Frontend,
    balancer: Arc<Balancer>,
    config: Arc<UserspaceConfig>,
    connections: TaskTracker,
    closing: CancellationToken,
}

impl Service {
    /// Whether a client is a pod or the node itself, which speaks to its own addresses from one of them.
    fn is_inside(&self, client: IpAddr, local: IpAddr) -> bool {
        client == local
            || client.is_loopback()
            || self.config.pod_cidrs.iter().any(|cidr| cidr.contains(client))
    }
}

/// Where a frontend listens. The kernel has one socket for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    protocol: Protocol,
    address: SocketAddr,
}

impl Place {
    fn of(port: &ServicePort, frontend: &Frontend) -> Self {
        let ip = frontend.address.ip().unwrap_or(match port.key.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        });
        Self {
            protocol: port.key.protocol,
            address: SocketAddr::new(ip, frontend.port),
        }
    }
}

#[derive(Debug)]
struct Listener {
    key: ServicePortKey,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves service ports by sockets of this process. See the [module documentation](self).
#[derive(Debug)]
pub struct UserspaceBackend {
    config: Arc<UserspaceConfig>,
    addresses: Option<Addresses>,
    ports: HashMap<ServicePortKey, (Arc<ServicePort>, Arc<Balancer>)>,
    /// How many service ports have a frontend at an address.
    ips: HashMap<IpAddr, usize>,
    listeners: HashMap<Place, Listener>,
    unserved: HashMap<Place, Unserved>,
    connections: TaskTracker,
    closing: CancellationToken,
}

impl Drop for UserspaceBackend {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl UserspaceBackend {
    /// A backend that serves nothing yet.
    #[must_use]
    pub fn new(config: UserspaceConfig) -> Self {
        Self {
            config: Arc::new(config),
            addresses: None,
            ports: HashMap::new(),
            ips: HashMap::new(),
            listeners: HashMap::new(),
            unserved: HashMap::new(),
            connections: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Takes over what a difference says.
    fn take_over(&mut self, desired: &DesiredState, changes: &Changes) -> Touched {
        let mut touched = Touched::default();
        match changes {
            Changes::All => {
                let gone: Vec<_> = self
                    .ports
                    .keys()
                    .filter(|key| desired.get(key).is_none())
                    .cloned()
                    .collect();
                gone.iter().for_each(|key| self.remove_port(key, &mut touched));
                desired.iter().for_each(|port| self.set_port(port, &mut touched));
            }
            Changes::Only(changes) => {
                for change in changes {
                    match (&change.before, &change.after) {
                        (_, Some(after)) => self.set_port(after, &mut touched),
                        (Some(before), None) => self.remove_port(&before.key, &mut touched),
                        (None, None) => {}
                    }
                }
            }
        }
        // What could not be served may be servable now.
        for unserved in self.unserved.values() {
            touched.keys.insert(unserved.key.clone());
            touched.ips.extend(
                self.ports
                    .get(&unserved.key)
                    .into_iter()
                    .flat_map(|(port, _)| ips(port)),
            );
        }
        touched
    }

    fn remove_port(&mut self, key: &ServicePortKey, touched: &mut Touched) {
        if let Some((port, _)) = self.ports.remove(key) {
            self.release(&port);
            touched.note(&port);
            touched.before.push(port);
        }
    }

    fn set_port(&mut self, port: &Arc<ServicePort>, touched: &mut Touched) {
        touched.note(port);
        ips(port).for_each(|ip| *self.ips.entry(ip).or_default() += 1);
        let balancer = match self.ports.remove(&port.key) {
            Some((old, balancer)) => {
                self.release(&old);
                touched.note(&old);
                touched.before.push(old);
                balancer.update(port.clone());
                balancer
            }
            None => Arc::new(Balancer::new(port.clone())),
        };
        self.ports.insert(port.key.clone(), (port.clone(), balancer));
    }

    fn release(&mut self, port: &ServicePort) {
        for ip in ips(port) {
            if let Some(count) = self.ips.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    self.ips.remove(&ip);
                }
            }
        }
    }

    /// Closes sockets that nobody wants any more.
    fn close(&mut self, touched: &Touched) -> usize {
        let ports = &self.ports;
        let is_wanted = |place: Place, key: &ServicePortKey| {
            ports
                .get(key)
                .is_some_and(|(port, _)| wanted(port).any(|(other, _)| other == place))
        };
        let before = self.listeners.len();
        for port in &touched.before {
            for (place, _) in wanted(port) {
                let mine = self
                    .listeners
                    .get(&place)
                    .is_some_and(|listener| listener.key == port.key);
                if mine && !is_wanted(place, &port.key) {
                    self.listeners.remove(&place);
                }
            }
        }
        self.unserved
            .retain(|place, unserved| is_wanted(*place, &unserved.key));
        before - self.listeners.len()
    }

    /// Opens the sockets that are missing.
    fn open(&mut self, touched: &HashSet<ServicePortKey>, refused: &HashMap<IpAddr, NoAddress>) -> usize {
        let missing: Vec<_> = touched
            .iter()
            .filter_map(|key| self.ports.get(key))
            .flat_map(|(port, balancer)| {
                wanted(port).map(move |(place, frontend)| (place, frontend, port, balancer))
            })
            .filter(|(place, ..)| !self.listeners.contains_key(place))
            .map(|(place, frontend, port, balancer)| (place, frontend, port.key.clone(), balancer.clone()))
            .collect();
        let mut opened = 0;
        for (place, frontend, key, balancer) in missing {
            let service = Service {
                key: key.clone(),
                frontend,
                balancer,
                config: self.config.clone(),
                connections: self.connections.clone(),
                closing: self.closing.clone(),
            };
            let task = match refused.get(&place.address.ip()) {
                Some(reason) => Err(reason.to_string()),
                None => listen(place, service).map_err(|error| error.to_string()),
            };
            match task {
                Ok(task) => {
                    self.unserved.remove(&place);
                    self.listeners.insert(place, Listener { key, task });
                    opened += 1;
                }
                Err(reason) => {
                    let message = format!("{}/{} is not served: {reason}", place.address, place.protocol);
                    self.unserved.insert(place, Unserved { key, message });
                }
            }
        }
        opened
    }
}

/// What a difference concerns.
#[derive(Debug, Default)]
struct Touched {
    keys: HashSet<ServicePortKey>,
    /// The service ports as they were.
    before: Vec<Arc<ServicePort>>,
    ips: HashSet<IpAddr>,
}

impl Touched {
    fn note(&mut self, port: &ServicePort) {
        self.keys.insert(port.key.clone());
        self.ips.extend(ips(port));
    }
}

fn ips(port: &ServicePort) -> impl Iterator<Item = IpAddr> + '_ {
    port.frontends.iter().filter_map(|frontend| frontend.address.ip())
}

/// The sockets that a service port needs: none while it has no endpoints, so that the kernel refuses.
fn wanted(port: &ServicePort) -> impl Iterator<Item = (Place, Frontend)> + '_ {
    let served = !port.cluster_endpoints.is_empty();
    port.frontends
        .iter()
        .filter(move |_| served)
        .map(|frontend| (Place::of(port, frontend), *frontend))
}

fn listen(place: Place, service: Service) -> io::Result<JoinHandle<()>> {
    let service = Arc::new(service);
    Ok(match place.protocol {
        Protocol::Tcp => tokio::spawn(tcp::serve(socket::listen(place.address)?, service)),
        Protocol::Udp => tokio::spawn(udp::serve(socket::Datagrams::bind(place.address)?, service)),
        Protocol::Sctp => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the userspace backend has no SCTP",
            ));
        }
    })
}

#[async_trait]
impl ProxyBackend for UserspaceBackend {
    fn name(&self) -> &'static str {
        "userspace"
    }

    async fn probe(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn sync(&mut self, desired: &DesiredState, changes: &Changes) -> Result<SyncReport, BackendError> {
        let mut touched = self.take_over(desired, changes);
        let mut writes = self.close(&touched);
        let fresh = self.addresses.is_none() || changes == &Changes::All;
        let mut addresses = match self.addresses.take() {
            Some(addresses) if !fresh => addresses,
            _ => Addresses::open(&self.config.link).await?,
        };
        if fresh {
            self.listeners.retain(|_, listener| !listener.task.is_finished());
            touched.ips.extend(addresses.held());
        }
        let reconciled = addresses
            .reconcile(&touched.ips, |ip| self.ips.contains_key(ip))
            .await?;
        self.addresses = Some(addresses);
        let refused = reconciled.refused;
        writes += reconciled.writes;
        writes += self.open(&touched.keys, &refused);
        let mut unserved: Vec<Unserved> = self.unserved.values().cloned().collect();
        unserved.sort_by(|a, b| (&a.key, &a.message).cmp(&(&b.key, &b.message)));
        Ok(SyncReport { unserved, writes })
    }

    async fn intact(&mut self) -> Result<bool, BackendError> {
        if self
            .listeners
            .values()
            .any(|listener| listener.task.is_finished())
        {
            return Ok(false);
        }
        match &self.addresses {
            Some(addresses) => addresses.intact().await,
            None => Ok(true),
        }
    }

    async fn cleanup(&mut self) -> Result<(), BackendError> {
        self.listeners.clear();
        self.unserved.clear();
        self.ports.clear();
        self.ips.clear();
        self.addresses = None;
        Addresses::remove(&self.config.link).await
    }

    async fn stop(&mut self) {
        self.listeners.clear();
        self.closing.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}
