//! A backend on the node of a topology, and a cluster state to feed it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::topology::{ENDPOINTS, GATEWAY, NODE_OUTSIDE, Topology, has_ipv6, six};
use super::traffic::{self, Answer, Connection, Denial};
use super::{Expectations, Namespace};
use crate::backend::ProxyBackend;
use crate::model::{Changes, DesiredState, Family, NamespacedName};
use crate::tracker::Tracker;

pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(super) type Factory = Arc<dyn Fn() -> Box<dyn ProxyBackend> + Send + Sync>;
type Shared = Arc<Mutex<Option<Box<dyn ProxyBackend>>>>;

const NODE_NAME: &str = "node";
pub(super) const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub(super) const EXTERNAL_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub(super) const HTTP: u16 = 80;
pub(super) const DNS: u16 = 53;
pub(super) const NODE_HTTP: u16 = 30080;
pub(super) const NODE_DNS: u16 = 30053;
const TARGET_HTTP: u16 = 8080;
const TARGET_DNS: u16 = 5353;

/// From where traffic is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Client,
    Node,
    Outsider,
    Endpoint(usize),
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Ready,
    Draining,
}

pub(super) struct Kit {
    pub(super) topology: Topology,
    pub(super) expectations: Expectations,
    factory: Factory,
    backend: Shared,
    tracker: Tracker,
}

impl Kit {
    pub(super) async fn new(expectations: Expectations, factory: Factory) -> Result<Self, Error> {
        let topology = Topology::new(expectations.bridge_netfilter).await?;
        for (namespace, ip) in topology.endpoints.iter().zip(ENDPOINTS) {
            let name = namespace.name().to_owned();
            let at = move |port| SocketAddr::new(IpAddr::V4(ip), port);
            let twin = name.clone();
            namespace
                .run(move || traffic::serve(name, at(TARGET_HTTP), at(TARGET_DNS)))
                .await?;
            let at = move |port| SocketAddr::new(IpAddr::V6(six(ip)), port);
            if has_ipv6() {
                namespace
                    .run(move || traffic::serve(twin, at(TARGET_HTTP), at(TARGET_DNS)))
                    .await?;
            }
        }
        let mut kit = Self {
            topology,
            expectations,
            factory,
            backend: Shared::default(),
            tracker: Tracker::new(NODE_NAME),
        };
        kit.start().await?;
        Ok(kit)
    }

    /// Starts a backend, as a new process would, on the state as it is.
    pub(super) async fn start(&mut self) -> Result<(), Error> {
        let (factory, slot) = (self.factory.clone(), self.backend.clone());
        let node = self.topology.node.clone();
        node.run(move || async move {
            let mut backend = factory();
            let probed = backend.probe().await;
            *slot.lock().await = Some(backend);
            probed
        })
        .await?;
        self.tracker.take_changes();
        self.sync_as(Changes::All).await.map(drop)
    }

    /// Drops the backend without a word, as SIGKILL does.
    pub(super) async fn kill(&mut self) {
        let slot = self.backend.clone();
        self.topology
            .node
            .run(move || async move { drop(slot.lock().await.take()) })
            .await;
    }

    /// Calls the backend in the node's namespace.
    pub(super) async fn with_backend<T, F>(&self, call: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: AsyncFnOnce(&mut dyn ProxyBackend) -> Result<T, crate::BackendError> + Send + 'static,
    {
        let slot = self.backend.clone();
        let outcome = self
            .topology
            .node
            .run(move || async move {
                let mut slot = slot.lock().await;
                let backend = slot
                    .as_mut()
                    .expect("a case that kills the backend starts it again");
                call(&mut **backend).await
            })
            .await;
        Ok(outcome?)
    }

    /// Brings the state to the backend by difference; returns the number of writes.
    pub(super) async fn sync(&mut self) -> Result<usize, Error> {
        let changes = Changes::Only(self.tracker.take_changes());
        self.sync_as(changes).await
    }

    pub(super) async fn sync_as(&mut self, changes: Changes) -> Result<usize, Error> {
        let desired: DesiredState = self.tracker.state().clone();
        let report = self
            .with_backend(async move |backend: &mut dyn ProxyBackend| backend.sync(&desired, &changes).await)
            .await?;
        if report.unserved.is_empty() {
            Ok(report.writes)
        } else {
            Err(format!("{:?}", report.unserved).into())
        }
    }

    /// Forgets all Services, so that a case starts from nothing.
    pub(super) async fn reset(&mut self) -> Result<(), Error> {
        self.tracker.retain_services(|_| false);
        self.tracker.retain_slices(|_| false);
        self.sync().await.map(drop)
    }

    /// Sets the Service `web`; fields of `spec` replace the usual ones.
    pub(super) fn service(&mut self, spec: Value) -> Result<(), Error> {
        let mut object = json!({
            "metadata": {"namespace": "kit", "name": "web"},
            "spec": {
                "type": "NodePort", "clusterIP": CLUSTER_IP, "clusterIPs": self.families(CLUSTER_IP),
                "externalIPs": self.families(EXTERNAL_IP),
                "ports": [
                    {"name": "http", "port": HTTP, "protocol": "TCP", "nodePort": NODE_HTTP},
                    {"name": "dns", "port": DNS, "protocol": "UDP", "nodePort": NODE_DNS},
                ],
            },
        });
        if let (Some(all), Value::Object(more)) = (object["spec"].as_object_mut(), spec) {
            all.extend(more);
        }
        self.tracker.apply_service(&serde_json::from_value(object)?);
        Ok(())
    }

    pub(super) fn delete_service(&mut self) {
        self.tracker.delete_service(&NamespacedName::new("kit", "web"));
    }

    /// Sets the endpoints of `web` by their indexes.
    pub(super) fn endpoints(&mut self, endpoints: &[(usize, Health)]) -> Result<(), Error> {
        for (family, name) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
            let endpoints: Vec<Value> = endpoints
                .iter()
                .map(|endpoint| entry(family, *endpoint))
                .collect();
            let slice = json!({
                "metadata": {"namespace": "kit", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": name, "endpoints": endpoints,
                "ports": [
                    {"name": "http", "port": TARGET_HTTP, "protocol": "TCP"},
                    {"name": "dns", "port": TARGET_DNS, "protocol": "UDP"},
                ],
            });
            self.tracker.apply_slice(&serde_json::from_value(slice)?);
        }
        Ok(())
    }

    /// Whether IPv6 is to be served.
    pub(super) fn ipv6(&self) -> bool {
        has_ipv6() && !self.expectations.ipv4_only
    }

    fn families(&self, ip: Ipv4Addr) -> Vec<IpAddr> {
        if self.ipv6() {
            vec![ip.into(), six(ip).into()]
        } else {
            vec![ip.into()]
        }
    }

    /// A plain Service with these ready endpoints, served.
    pub(super) async fn serve(&mut self, endpoints: &[usize]) -> Result<(), Error> {
        self.serve_with(json!({}), endpoints).await
    }

    pub(super) async fn serve_with(&mut self, spec: Value, endpoints: &[usize]) -> Result<(), Error> {
        self.service(spec)?;
        self.ready(endpoints)?;
        self.sync().await.map(drop)
    }

    pub(super) fn ready(&mut self, endpoints: &[usize]) -> Result<(), Error> {
        let endpoints: Vec<_> = endpoints.iter().map(|index| (*index, Health::Ready)).collect();
        self.endpoints(&endpoints)
    }

    pub(super) fn namespace(&self, place: Place) -> &Namespace {
        match place {
            Place::Client => &self.topology.client,
            Place::Node => &self.topology.node,
            Place::Outsider => &self.topology.outsider,
            Place::Endpoint(index) => &self.topology.endpoints[index],
        }
    }

    pub(super) async fn ask(&self, from: Place, to: SocketAddr) -> Result<Answer, Error> {
        let answer = self.namespace(from).run(move || traffic::ask(to)).await;
        answer.map_err(|error| format!("TCP from {from:?} to {to}: {error}").into())
    }

    pub(super) async fn ask_udp(&self, from: Place, to: SocketAddr) -> Result<Answer, Error> {
        let answer = self.namespace(from).run(move || traffic::ask_udp(to)).await;
        answer.map_err(|error| format!("UDP from {from:?} to {to}: {error}").into())
    }

    pub(super) async fn open(&self, from: Place, to: SocketAddr) -> Result<Connection, Error> {
        let opened = self.namespace(from).run(move || Connection::open(to)).await;
        opened.map_err(|error| format!("TCP from {from:?} to {to}: {error}").into())
    }

    pub(super) async fn denied(&self, from: Place, to: SocketAddr) -> Result<Denial, Error> {
        let denial = self.namespace(from).run(move || traffic::denied(to)).await;
        denial.map_err(|error| format!("TCP from {from:?} to {to}: {error}").into())
    }

    /// How often each endpoint answered `count` requests.
    pub(super) async fn spread(
        &self,
        from: Place,
        to: SocketAddr,
        count: usize,
    ) -> Result<BTreeMap<String, usize>, Error> {
        let answers = self.namespace(from).run(move || async move {
            let mut answers = BTreeMap::new();
            for _ in 0..count {
                *answers.entry(traffic::ask(to).await?.server).or_default() += 1;
            }
            Ok::<_, std::io::Error>(answers)
        });
        answers
            .await
            .map_err(|error| format!("TCP from {from:?} to {to}: {error}").into())
    }
}

/// An entry of an EndpointSlice.
fn entry(family: Family, (index, health): (usize, Health)) -> Value {
    let ip: IpAddr = match family {
        Family::V4 => ENDPOINTS[index].into(),
        Family::V6 => six(ENDPOINTS[index]).into(),
    };
    let ready = health == Health::Ready;
    json!({
        "addresses": [ip], "nodeName": if index < 2 { NODE_NAME } else { "other" },
        "conditions": {"ready": ready, "serving": true, "terminating": !ready},
    })
}

/// The IPv6 twin of where to.
pub(super) fn twin(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(ip) => SocketAddr::new(six(ip).into(), to.port()),
        IpAddr::V6(_) => to,
    }
}

pub(super) fn cluster(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(CLUSTER_IP), port)
}

pub(super) fn external(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(EXTERNAL_IP), port)
}

/// A node port as seen from a place.
pub(super) fn node_port(from: Place, port: u16) -> SocketAddr {
    let ip = if matches!(from, Place::Client | Place::Endpoint(0 | 1)) {
        GATEWAY
    } else {
        NODE_OUTSIDE
    };
    SocketAddr::new(IpAddr::V4(ip), port)
}
