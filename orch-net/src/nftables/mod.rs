//! The nftables backend: service ports as elements of maps, so that a change is as large as what changed.
//!
//! One table for each family, of a name of its own; other tables are never read or written. A packet to a frontend is found in the map
//! `services`, whose verdict names a chain shared by all service ports with the same number of endpoints; that chain draws a random index
//! below the number and finds the endpoint under (frontend, index) in the map `endpoints`. So a service port with ten endpoints is eleven
//! elements, one endpoint more is two or three elements written, and the number of chains does not grow with the number of Services.
//! Only service ports with session affinity have chains of their own, with a set of clients for each endpoint.
//!
//! Each sync is one `nft -f -`, hence one transaction. The first sync of a process, and a repair, replace the tables whole, still in one
//! transaction; only the memory of session affinity is lost by that. Connections that are established are kept by the kernel's connection tracking,
//! whatever happens to the rules; UDP flows to an endpoint that went are forgotten, so that clients which keep their port move on.

mod conntrack;
mod content;
mod fake;
mod nft;
mod routes;
mod ruleset;
mod script;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

pub use fake::{FakeNft, Verdict};
pub use nft::{Nft, NftError, NftProgram};

use crate::backend::{BackendError, ProxyBackend, SyncReport, Unserved};
use crate::model::{Changes, DesiredState, Family, ServicePort, ServicePortKey};
use conntrack::StaleFlows;
use orch_core::ipam::Cidr;
use ruleset::Ruleset;
use script::Script;

/// How the nftables backend behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftablesConfig {
    /// The name of its tables. Default `orch-proxy`.
    pub table: String,
    /// The families it writes tables for. Default: IPv4, and IPv6 if this host speaks it.
    pub families: Vec<Family>,
    /// The addresses of all pods of the cluster. Traffic to cluster IPs from elsewhere is masqueraded; none means that nothing is known of
    /// pods, and traffic to cluster IPs keeps its source. Default none.
    pub pod_cidrs: Vec<Cidr>,
    /// The addresses of pods that share a bridge on this node. Answers between them would cross the bridge past the node, which
    /// could not translate them back, so their connections through Services are masqueraded. Default none.
    pub bridge_cidrs: Vec<Cidr>,
    /// The ranges of cluster IPs. Each is routed to a quiet link, so that the node reaches cluster IPs even if it has no default
    /// route; the rules see to it that nothing ever leaves by that link. Default none: the default route serves as well.
    pub service_cidrs: Vec<Cidr>,
    /// The name of that link. Default `orch-routes`.
    pub link: String,
    /// Masquerade all traffic to cluster IPs, as upstream's `masqueradeAll`. Default off.
    pub masquerade_all: bool,
    /// Which bit of the packet mark tells what to masquerade, in `[0, 31]`. Default 14, as upstream's.
    pub masquerade_bit: u8,
}

impl Default for NftablesConfig {
    fn default() -> Self {
        let mut families = vec![Family::V4];
        if std::path::Path::new("/proc/net/if_inet6").exists() {
            families.push(Family::V6);
        }
        Self {
            table: "orch-proxy".to_owned(),
            families,
            pod_cidrs: Vec::new(),
            bridge_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            link: "orch-routes".to_owned(),
            masquerade_all: false,
            masquerade_bit: 14,
        }
    }
}

impl NftablesConfig {
    fn mark(&self) -> u32 {
        1 << (self.masquerade_bit & 31)
    }

    fn masquerade_mark(&self) -> String {
        format!("0x{:08x}", self.mark())
    }

    fn masquerade_mark_mask(&self) -> String {
        format!("0x{:08x}", !self.mark())
    }

    /// The table's name stands in every script, so it must be an identifier.
    fn is_valid(&self) -> bool {
        let mut chars = self.table.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic())
            && self.table.len() <= 64
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    }
}

/// Serves service ports by nftables rules. See the [module documentation](self).
pub struct NftablesBackend {
    config: NftablesConfig,
    nft: Arc<dyn Nft>,
    ruleset: Ruleset,
    unserved: BTreeMap<ServicePortKey, Unserved>,
    /// Whether this is the real thing: connection tracking and routes are the host's, not nft's.
    owns_host: bool,
}

impl std::fmt::Debug for NftablesBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NftablesBackend")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl NftablesBackend {
    /// A backend that runs the host's `nft`.
    #[must_use]
    pub fn new(config: NftablesConfig) -> Self {
        Self {
            owns_host: true,
            ..Self::with_nft(config, Arc::new(NftProgram::default()))
        }
    }

    /// A backend that hands its transactions to `nft` and leaves the rest of the host (connection tracking, routes) alone.
    pub fn with_nft(config: NftablesConfig, nft: Arc<dyn Nft>) -> Self {
        Self {
            config,
            nft,
            ruleset: Ruleset::default(),
            unserved: BTreeMap::new(),
            owns_host: false,
        }
    }

    /// The script that would make a host serve `desired`, whatever it holds.
    #[must_use]
    pub fn full_script(config: &NftablesConfig, desired: &DesiredState) -> String {
        Ruleset::default().full(config, desired).0
    }

    /// Keeps account of service ports of a family that has no table.
    fn note_unserved(&mut self, desired: &DesiredState, changes: &Changes) {
        let families = &self.config.families;
        let missing = |port: &&ServicePort| !families.contains(&port.key.family);
        match changes {
            Changes::All => {
                let ports = desired.iter().map(|port| &**port).filter(missing);
                self.unserved = ports.map(|port| (port.key.clone(), unserved(port))).collect();
            }
            Changes::Only(changes) => {
                for change in changes {
                    if let Some(before) = &change.before {
                        self.unserved.remove(&before.key);
                    }
                    if let Some(after) = change.after.as_deref().filter(missing) {
                        self.unserved.insert(after.key.clone(), unserved(after));
                    }
                }
            }
        }
    }
}

fn unserved(port: &ServicePort) -> Unserved {
    let family = port.key.family;
    let message = format!(
        "port {} is not served over {family:?}: this node does not speak it",
        port.key
    );
    Unserved {
        key: port.key.clone(),
        message,
    }
}

#[async_trait]
impl ProxyBackend for NftablesBackend {
    fn name(&self) -> &'static str {
        "nftables"
    }

    async fn probe(&mut self) -> Result<(), BackendError> {
        let unsupported = |reason: String| BackendError::Unsupported {
            backend: "nftables",
            reason,
        };
        if !self.config.is_valid() {
            return Err(unsupported(format!(
                "{:?} is no name for a table",
                self.config.table
            )));
        }
        // One of each thing that the backend may write, into a table that is checked and never made.
        let config = NftablesConfig {
            table: format!("{}-probe", self.config.table),
            ..self.config.clone()
        };
        let script = NftablesBackend::full_script(&config, &probe_state(&config));
        self.nft
            .check(&script)
            .await
            .map_err(|error| unsupported(error.to_string()))
    }

    async fn sync(&mut self, desired: &DesiredState, changes: &Changes) -> Result<SyncReport, BackendError> {
        let (script, writes) = match changes {
            Changes::All => self.ruleset.full(&self.config, desired),
            Changes::Only(changes) => self.ruleset.incremental(&self.config, changes),
        };
        if !script.is_empty() {
            self.nft.apply(&script).await?;
        }
        if self.owns_host && changes == &Changes::All {
            routes::ensure(&self.config.link, &self.config.service_cidrs).await?;
        }
        if self.owns_host {
            let stale = StaleFlows::of(desired, changes);
            if !stale.is_empty() {
                let forgotten = tokio::task::spawn_blocking(move || stale.forget()).await;
                match forgotten {
                    Ok(Ok(count)) => tracing::debug!(count, "stale UDP flows forgotten"),
                    Ok(Err(error)) => tracing::warn!(%error, "could not forget stale UDP flows"),
                    Err(error) => tracing::warn!(%error, "could not forget stale UDP flows"),
                }
            }
        }
        self.note_unserved(desired, changes);
        Ok(SyncReport {
            unserved: self.unserved.values().cloned().collect(),
            writes,
        })
    }

    async fn intact(&mut self) -> Result<bool, BackendError> {
        for family in &self.config.families {
            match self
                .nft
                .list_chain(script::keyword(*family), &self.config.table, script::SENTINEL)
                .await
            {
                Ok(listing) if listing.contains(script::SENTINEL_RULE) => {}
                Ok(_) | Err(NftError::NotFound(_)) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    async fn cleanup(&mut self) -> Result<(), BackendError> {
        let mut script = Script::default();
        for family in &self.config.families {
            script.table(&self.config, *family).remove_table();
        }
        self.ruleset = Ruleset::default();
        self.nft.apply(&script.into_text()).await?;
        if self.owns_host {
            routes::remove(&self.config.link).await?;
        }
        Ok(())
    }
}

/// Service ports that between them use every construct.
fn probe_state(config: &NftablesConfig) -> DesiredState {
    use crate::model::{
        Endpoint, Frontend, FrontendAddress, NamespacedName, Protocol, ServicePort, ServicePortKey,
        TrafficPolicy,
    };
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::time::Duration;

    let port = |family: Family, affinity: Option<Duration>, policy: TrafficPolicy, number: u16| {
        let ip = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let endpoint = Endpoint {
            address: SocketAddr::new(ip, number),
            local: true,
        };
        ServicePort {
            key: ServicePortKey {
                service: NamespacedName::new("probe", &number.to_string()),
                port: String::new(),
                protocol: Protocol::Tcp,
                family,
            },
            frontends: vec![
                Frontend {
                    address: FrontendAddress::ClusterIp(ip),
                    port: number,
                },
                Frontend {
                    address: FrontendAddress::NodePort,
                    port: number,
                },
            ],
            session_affinity: affinity,
            internal_policy: policy,
            external_policy: policy,
            cluster_endpoints: vec![endpoint],
            local_endpoints: vec![endpoint],
        }
    };
    config
        .families
        .iter()
        .flat_map(|family| {
            [
                port(*family, None, TrafficPolicy::Cluster, 1),
                port(*family, Some(Duration::from_secs(1)), TrafficPolicy::Cluster, 2),
                port(*family, None, TrafficPolicy::Local, 3),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests;
