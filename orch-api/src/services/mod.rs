//! Cluster IPs and node ports of services: taken before a service is written, given back when the write fails or
//! the service goes.
//!
//! What counts is the *claim* in the store ([`claims`]), as upstream lays it out: an IPAddress object for each address, and one
//! bit for each node port. Whoever creates the claim has the number, so that several servers on one store never give
//! one out twice. Memory only helps to choose: it follows the claims ([`follow`]), and may be a moment behind. A claim
//! that a crash leaves without its service, or a service without its claim, is mended ([`repair`]).

mod claims;
mod follow;
mod ports;
mod repair;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use orch_core::field::{ErrorList, FieldError, Path};
use orch_core::ipam::{AllocError, Cidr, IpAllocator, PortAllocator};
use orch_core::status::{ApiError, GroupKind};
use parking_lot::Mutex;

use self::claims::{Claims, Owner};
use crate::cache::StoreHandle;
use crate::object::Object;
use crate::registry::Resource;
use crate::tasks::Tasks;

/// One thing that a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Taken {
    Ip(IpAddr),
    Port(u16),
}

#[derive(Debug)]
struct Pools {
    /// One for each address family, the cluster's first family first.
    addresses: Vec<IpAllocator>,
    ports: PortAllocator,
}

impl Pools {
    /// Notes what others have. What is taken already, or in no range, stays as it is.
    fn take(&mut self, taken: Taken) {
        let noted = match taken {
            Taken::Ip(address) => match self.pool(address.is_ipv4()) {
                Some(pool) => pool.reserve(address),
                None => Ok(()),
            },
            Taken::Port(port) => self.ports.reserve(port),
        };
        if let Err(error) = noted {
            tracing::trace!(?taken, %error, "noted before");
        }
    }

    fn release(&mut self, taken: &[Taken]) {
        for one in taken {
            match *one {
                Taken::Ip(address) => {
                    self.addresses.iter_mut().for_each(|pool| {
                        pool.release(address);
                    });
                }
                Taken::Port(port) => {
                    self.ports.release(port);
                }
            }
        }
    }

    fn pool(&mut self, ipv4: bool) -> Option<&mut IpAllocator> {
        self.addresses
            .iter_mut()
            .find(|pool| pool.cidr().is_ipv4() == ipv4)
    }
}

/// What a write has taken for a service. It is given back when this is dropped, unless the write was kept.
#[derive(Debug)]
pub(crate) struct Allocation {
    services: Services,
    taken: Vec<Taken>,
    /// Of what was taken, what has a claim in the store.
    claimed: Vec<Taken>,
    owner: Option<Owner>,
    /// What the service had and has no longer.
    left: Vec<Taken>,
}

/// Another server was faster: what was chosen has to be chosen again.
#[derive(Debug)]
pub(crate) struct ChosenByOthers;

impl Allocation {
    /// Claims in the store what was taken, right before the service is written there.
    pub(crate) async fn claim(&mut self) -> Result<Result<(), ChosenByOthers>, ApiError> {
        let Some(owner) = &self.owner else {
            return Ok(Ok(()));
        };
        for taken in self.taken.clone() {
            if !self.services.claims.make(taken, owner).await? {
                // It stays taken in memory, as it is.
                self.taken.retain(|one| *one != taken);
                return Ok(Err(ChosenByOthers));
            }
            self.claimed.push(taken);
        }
        Ok(Ok(()))
    }

    /// The write has happened.
    pub(crate) async fn keep(mut self) {
        self.taken.clear();
        self.claimed.clear();
        let left = std::mem::take(&mut self.left);
        if let Some(owner) = self.owner.take() {
            self.services.give_back(&left, &owner).await;
        }
    }

    /// Nobody knows whether the write has happened: the repair will see.
    pub(crate) fn leave(mut self) {
        self.taken.clear();
        self.claimed.clear();
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        self.services.pools.lock().release(&self.taken);
        if let Some(owner) = self.owner.take().filter(|_| !self.claimed.is_empty()) {
            let (services, claimed) = (self.services.clone(), std::mem::take(&mut self.claimed));
            self.services
                .tasks
                .spawn(move |_| async move { services.give_back(&claimed, &owner).await });
        }
    }
}

/// The cluster's addresses and ports for services. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pools: Arc<Mutex<Pools>>,
    claims: Arc<Claims>,
    tasks: Tasks,
}

/// Why a service gets no address or port.
enum Refusal {
    Field(FieldError),
    Full(String),
}

impl Services {
    pub(crate) fn new(cidrs: &[Cidr], ports: RangeInclusive<u16>, store: StoreHandle, tasks: Tasks) -> Self {
        let addresses = cidrs.iter().map(|cidr| IpAllocator::new(*cidr)).collect();
        Self {
            claims: Arc::new(Claims::new(store, ports.clone())),
            pools: Arc::new(Mutex::new(Pools {
                addresses,
                ports: PortAllocator::new(ports),
            })),
            tasks,
        }
    }

    fn nothing(&self) -> Allocation {
        Allocation {
            services: self.clone(),
            taken: Vec::new(),
            claimed: Vec::new(),
            owner: None,
            left: Vec::new(),
        }
    }

    /// Takes what a service needs that it does not have yet. `old` is the service before an update.
    pub(crate) fn allocate(
        &self,
        resource: &Resource,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<Allocation, ApiError> {
        let mut allocation = self.nothing();
        let name = object.name().to_owned();
        let Some(service) = object.downcast_mut::<Service>() else {
            return Ok(allocation);
        };
        allocation.owner = Some(Owner::of(service));
        let had = old
            .and_then(|old| old.downcast_ref::<Service>())
            .map(belongings)
            .unwrap_or_default();
        let fill = {
            let mut pools = self.pools.lock();
            let mut desk = Desk {
                pools: &mut pools,
                had: &had,
                taken: &mut allocation.taken,
            };
            desk.fill(service.spec.get_or_insert_default())
        };
        fill.map_err(|refusal| match refusal {
            Refusal::Field(error) => invalid(&resource.group_kind, &name, error),
            Refusal::Full(text) => ApiError::internal(text),
        })?;
        let has = belongings(service);
        allocation.left = had.into_iter().filter(|one| !has.contains(one)).collect();
        Ok(allocation)
    }

    /// Gives back what a deleted service had.
    pub(crate) async fn release(&self, object: &dyn Object) {
        if let Some(service) = object.downcast_ref::<Service>() {
            self.give_back(&belongings(service), &Owner::of(service)).await;
        }
    }

    /// Removes claims, then what memory has of them. What cannot be removed now, the repair removes.
    async fn give_back(&self, all: &[Taken], owner: &Owner) {
        for taken in all {
            if let Err(error) = self.claims.remove(*taken, owner).await {
                tracing::warn!(?taken, %error, "a service's claim is left to the repair");
            }
        }
        self.pools.lock().release(all);
    }
}

fn invalid(kind: &GroupKind, name: &str, error: FieldError) -> ApiError {
    ApiError::invalid(kind, name, &ErrorList::from(error))
}

/// Everything that a service has taken.
fn belongings(service: &Service) -> Vec<Taken> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut all: Vec<Taken> = addresses
        .filter_map(|text| text.parse().ok())
        .map(Taken::Ip)
        .collect();
    let ports = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| port.node_port)
        .chain(spec.health_check_node_port);
    all.extend(
        ports
            .filter_map(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0)
            .map(Taken::Port),
    );
    let mut seen = Vec::with_capacity(all.len());
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

/// Serves one service under the lock.
struct Desk<'a> {
    pools: &'a mut Pools,
    had: &'a [Taken],
    taken: &'a mut Vec<Taken>,
}

impl Desk<'_> {
    fn fill(&mut self, spec: &mut ServiceSpec) -> Result<(), Refusal> {
        let kind = spec.type_.clone().unwrap_or_default();
        if kind == "ExternalName" {
            return Ok(());
        }
        self.addresses(spec)?;
        let balances = kind == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false);
        if kind == "NodePort" || balances {
            self.node_ports(spec)?;
        }
        if kind == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local") {
            self.health_check_port(spec)?;
        }
        Ok(())
    }

    fn addresses(&mut self, spec: &mut ServiceSpec) -> Result<(), Refusal> {
        let mut addresses = spec.cluster_ips.clone().filter(|addresses| !addresses.is_empty());
        if addresses.is_none() {
            addresses = spec
                .cluster_ip
                .clone()
                .filter(|address| !address.is_empty())
                .map(|address| vec![address]);
        }
        let mut addresses = addresses.unwrap_or_default();
        if addresses.first().is_some_and(|address| address == "None") {
            return Ok(());
        }
        let path = Path::new("spec").child("clusterIPs");
        for text in &addresses {
            // What is no address at all is validation's to refuse.
            let Ok(address) = text.parse::<IpAddr>() else {
                continue;
            };
            if let Err(error) = self.take_address(address) {
                let why = format!("failed to allocate IP {text}: {error}");
                return Err(Refusal::Field(FieldError::invalid(&path, addresses.clone(), why)));
            }
        }
        for family in self.families(spec)?.into_iter().skip(addresses.len()) {
            addresses.push(self.next_address(family)?.to_string());
        }
        spec.cluster_ip = addresses.first().cloned();
        spec.cluster_ips = (!addresses.is_empty()).then_some(addresses);
        Ok(())
    }

    /// The address families that the service gets, `true` for IPv4; they are settled in the spec too.
    fn families(&mut self, spec: &mut ServiceSpec) -> Result<Vec<bool>, Refusal> {
        let configured: Vec<bool> = self
            .pools
            .addresses
            .iter()
            .map(|pool| pool.cidr().is_ipv4())
            .collect();
        let mut wanted: Vec<bool> = spec
            .ip_families
            .iter()
            .flatten()
            .map(|family| family != "IPv6")
            .collect();
        let path = Path::new("spec");
        for (index, ipv4) in wanted.iter().enumerate() {
            if !configured.contains(ipv4) {
                let path = path.child("ipFamilies").index(index);
                let why = "not configured on this cluster";
                return Err(Refusal::Field(FieldError::invalid(
                    &path,
                    family_name(*ipv4),
                    why,
                )));
            }
        }
        if wanted.is_empty() {
            wanted.extend(configured.first());
        }
        let policy = spec.ip_family_policy.clone().unwrap_or_default();
        if policy == "RequireDualStack" && configured.len() < 2 {
            let why = "this cluster is not configured for dual-stack services";
            return Err(Refusal::Field(FieldError::invalid(
                &path.child("ipFamilyPolicy"),
                policy,
                why,
            )));
        }
        if matches!(policy.as_str(), "PreferDualStack" | "RequireDualStack") {
            wanted.extend(
                configured
                    .iter()
                    .filter(|ipv4| !wanted.contains(ipv4))
                    .copied()
                    .collect::<Vec<_>>(),
            );
        }
        spec.ip_families = Some(wanted.iter().map(|ipv4| family_name(*ipv4).to_owned()).collect());
        Ok(wanted)
    }

    fn take_address(&mut self, address: IpAddr) -> Result<(), AllocError> {
        let taken = Taken::Ip(address);
        if self.had.contains(&taken) || self.taken.contains(&taken) {
            return Ok(());
        }
        match self.pools.pool(address.is_ipv4()) {
            Some(pool) => pool.reserve(address)?,
            None => return Err(AllocError::Full),
        }
        self.taken.push(taken);
        Ok(())
    }

    fn next_address(&mut self, ipv4: bool) -> Result<IpAddr, Refusal> {
        let next = self
            .pools
            .pool(ipv4)
            .map_or(Err(AllocError::Full), IpAllocator::next);
        let address =
            next.map_err(|error| Refusal::Full(format!("failed to allocate a serviceIP: {error}")))?;
        self.taken.push(Taken::Ip(address));
        Ok(address)
    }

    fn node_ports(&mut self, spec: &mut ServiceSpec) -> Result<(), Refusal> {
        let path = Path::new("spec").child("ports");
        let ports = spec.ports.get_or_insert_default();
        for (index, port) in ports.iter().enumerate() {
            if let Some(number) = port.node_port.filter(|number| *number != 0) {
                self.take_port(number, &path.index(index).child("nodePort"))?;
            }
        }
        for index in 0..ports.len() {
            if ports[index].node_port.unwrap_or(0) == 0 {
                // One number serves several protocols of the same port.
                let (port, protocol) = (ports[index].port, ports[index].protocol.clone());
                let shared = ports
                    .iter()
                    .find(|other| other.port == port && other.protocol != protocol);
                let shared = shared
                    .and_then(|other| other.node_port)
                    .filter(|number| *number != 0);
                ports[index].node_port = Some(match shared {
                    Some(number) => number,
                    None => self.next_port()?,
                });
            }
        }
        Ok(())
    }

    fn health_check_port(&mut self, spec: &mut ServiceSpec) -> Result<(), Refusal> {
        match spec.health_check_node_port.filter(|port| *port != 0) {
            Some(port) => self.take_port(port, &Path::new("spec").child("healthCheckNodePort")),
            None => {
                spec.health_check_node_port = Some(self.next_port()?);
                Ok(())
            }
        }
    }

    fn take_port(&mut self, number: i32, path: &Path) -> Result<(), Refusal> {
        let refuse = |error: &dyn std::fmt::Display| {
            Refusal::Field(FieldError::invalid(path, number, error.to_string()))
        };
        let port = u16::try_from(number).map_err(|error| refuse(&error))?;
        let taken = Taken::Port(port);
        if self.had.contains(&taken) || self.taken.contains(&taken) {
            return Ok(());
        }
        self.pools.ports.reserve(port).map_err(|error| refuse(&error))?;
        self.taken.push(taken);
        Ok(())
    }

    fn next_port(&mut self) -> Result<i32, Refusal> {
        let port = self.pools.ports.next();
        let port = port.map_err(|error| Refusal::Full(format!("failed to allocate a nodePort: {error}")))?;
        self.taken.push(Taken::Port(port));
        Ok(i32::from(port))
    }
}

fn family_name(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn services() -> Services {
        let store = StoreHandle(Arc::new(orch_store::MemoryStore::new()));
        let cidr = "10.0.0.0/29".parse().unwrap();
        Services::new(&[cidr], 30000..=30003, store, Tasks::new())
    }

    fn resource() -> Resource {
        let info = crate::resource::ResourceInfo::namespaced("", "v1", "Service", "services");
        let store = crate::cache::StoreHandle(Arc::new(orch_store::MemoryStore::new()));
        Resource::new(crate::strategy::generic(info), store, crate::tasks::Tasks::new())
    }

    fn service(spec: &serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap()
    }

    fn ip(service: &Service) -> String {
        service
            .spec
            .as_ref()
            .unwrap()
            .cluster_ip
            .clone()
            .unwrap_or_default()
    }

    #[tokio::test]
    async fn a_failed_write_gives_back_what_it_took() {
        let (services, resource) = (services(), resource());
        let mut first = service(&json!({"type": "ClusterIP", "clusterIP": "10.0.0.3"}));
        let allocation = services.allocate(&resource, &mut first, None).unwrap();
        let mut second = service(&json!({"type": "ClusterIP", "clusterIP": "10.0.0.3"}));
        let error = services.allocate(&resource, &mut second, None).unwrap_err();
        assert!(
            error
                .message()
                .contains("failed to allocate IP 10.0.0.3: provided IP is already allocated"),
            "{error}"
        );
        drop(allocation);
        services
            .allocate(&resource, &mut second, None)
            .unwrap()
            .keep()
            .await;
        assert_eq!(second.spec.unwrap().cluster_ips.unwrap(), ["10.0.0.3"]);
    }

    #[tokio::test]
    async fn headless_and_external_services_take_nothing() {
        let (services, resource) = (services(), resource());
        let mut headless =
            service(&json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}));
        services
            .allocate(&resource, &mut headless, None)
            .unwrap()
            .keep()
            .await;
        assert_eq!(ip(&headless), "None");
        let mut external = service(&json!({"type": "ExternalName", "externalName": "a.b"}));
        services
            .allocate(&resource, &mut external, None)
            .unwrap()
            .keep()
            .await;
        assert_eq!(ip(&external), "");
        assert_eq!(services.pools.lock().addresses[0].used(), 0);
    }

    #[tokio::test]
    async fn node_ports_are_taken_once_and_released_with_the_type() {
        let (services, resource) = (services(), resource());
        let ports =
            json!([{"port": 53, "protocol": "UDP", "nodePort": 30001}, {"port": 53, "protocol": "TCP"}]);
        let mut old = service(&json!({"type": "NodePort", "ports": ports}));
        services.allocate(&resource, &mut old, None).unwrap().keep().await;
        assert_eq!(
            old.spec.as_ref().unwrap().ports.as_ref().unwrap()[1].node_port,
            Some(30001)
        );
        let mut other = service(&json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]}));
        let error = services.allocate(&resource, &mut other, None).unwrap_err();
        assert!(
            error
                .message()
                .contains("spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated")
        );

        let mut new = service(&json!({"type": "ClusterIP", "clusterIP": ip(&old), "ports": [{"port": 53}]}));
        services
            .allocate(&resource, &mut new, Some(&old))
            .unwrap()
            .keep()
            .await;
        services
            .allocate(&resource, &mut other, None)
            .unwrap()
            .keep()
            .await;
        services.release(&new).await;
        assert!(!services.pools.lock().addresses[0].has(ip(&old).parse().unwrap()));
    }

    #[tokio::test]
    async fn a_full_range_is_an_error_that_takes_nothing() {
        let (services, resource) = (services(), resource());
        for _ in 0..6 {
            services
                .allocate(&resource, &mut service(&json!({"type": "ClusterIP"})), None)
                .unwrap()
                .keep()
                .await;
        }
        let error = services
            .allocate(&resource, &mut service(&json!({"type": "ClusterIP"})), None)
            .unwrap_err();
        assert!(error.message().contains("range is full"), "{error}");
    }
}
