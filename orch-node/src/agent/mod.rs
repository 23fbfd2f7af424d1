//! The node agent: what kubelet does, as a value that a program builds and runs.

mod host;
mod manager;
mod node;
mod pod_cidr;
pub(crate) mod shared;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Api, Client};
use orch_core::events::{self, EventSink};
use orch_core::informer::Informer;
use orch_core::ready::Ready;
use orch_core::serve::Server;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::manager::PodManager;
use self::node::NodeKeeper;
use self::shared::{Settings, Shared};
use crate::pod::config::ClusterDns;
use crate::pod::status::NodeFacts;
use crate::runtime::{Runtime, RuntimeError};
use crate::server::{Authorizer, Handler, SystemMasters};

/// Where kubelets answer `/healthz`.
const HEALTHZ: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10248);

/// Why an agent could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No runtime was given to the builder.
    #[error("a node agent needs a runtime: call NodeAgentBuilder::runtime")]
    NoRuntime,
    /// The runtime does not answer.
    #[error("runtime: {0}")]
    Runtime(#[from] RuntimeError),
    /// A listener could not be opened.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The data directory could not be made.
    #[error("data directory {path}: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A node agent, built and not yet running.
///
/// It registers its Node, keeps its status and lease, and runs the pods that are bound to it. When it is stopped or killed,
/// the pods' programs go on; the next agent on the same runtime and data directory adopts them.
#[derive(Debug)]
#[must_use]
pub struct NodeAgent {
    shared: Arc<Shared>,
    sink: EventSink,
    ready: Ready,
    runtime_version: String,
    healthz: Option<Server>,
    server: Option<Server>,
    authorizer: Arc<dyn Authorizer>,
    stop_pods: bool,
}

/// Settings of a [`NodeAgent`].
#[must_use]
pub struct NodeAgentBuilder {
    client: Client,
    node_name: String,
    runtime: Option<Arc<dyn Runtime>>,
    data_dir: PathBuf,
    labels: BTreeMap<String, String>,
    ips: Vec<IpAddr>,
    pod_cidr: Option<String>,
    capacity: BTreeMap<String, Quantity>,
    max_pods: u32,
    dns: ClusterDns,
    /// `None` for the default.
    healthz: Option<Option<SocketAddr>>,
    server: Option<(SocketAddr, Arc<rustls::ServerConfig>)>,
    authorizer: Arc<dyn Authorizer>,
    disk_percent: u8,
    stop_pods: bool,
    hollow: bool,
}

impl fmt::Debug for NodeAgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeAgentBuilder")
            .field("node_name", &self.node_name)
            .field("runtime", &self.runtime)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl NodeAgentBuilder {
    /// What runs the pods. Required.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Where volumes and logs are kept. Default `/var/lib/orch/node`.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = path.into();
        self
    }

    /// A label of the Node, beside those that every node has.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// The node's addresses, the primary one first. Default: the one by which this machine reaches others.
    pub fn internal_ips(mut self, ips: impl IntoIterator<Item = IpAddr>) -> Self {
        self.ips = ips.into_iter().collect();
        self
    }

    /// The pod CIDR while the Node object has none.
    pub fn pod_cidr(mut self, cidr: impl Into<String>) -> Self {
        self.pod_cidr = Some(cidr.into());
        self
    }

    /// What the node has of a resource, instead of what the machine has. All of it is allocatable.
    pub fn capacity(mut self, resource: impl Into<String>, quantity: impl Into<String>) -> Self {
        self.capacity.insert(resource.into(), Quantity(quantity.into()));
        self
    }

    /// How much of the data directory's file system should be free, in percent: with less, the node reports disk
    /// pressure and takes no more pods. Default 10, as upstream's `evictionHard` has it for `nodefs.available`.
    pub fn nodefs_available(mut self, percent: u8) -> Self {
        self.disk_percent = percent;
        self
    }

    /// How many pods the node takes. Default 110.
    pub fn max_pods(mut self, max: u32) -> Self {
        self.max_pods = max;
        self
    }

    /// The cluster's DNS servers and domain, for pods with the policy `ClusterFirst`. Without, they use the host's.
    pub fn cluster_dns(
        mut self,
        servers: impl IntoIterator<Item = IpAddr>,
        domain: impl Into<String>,
    ) -> Self {
        self.dns = ClusterDns {
            servers: servers.into_iter().collect(),
            domain: domain.into(),
        };
        self
    }

    /// Where `/healthz` answers without TLS, port 0 for any; `None`: nowhere. Default `127.0.0.1:10248`, and nowhere for a
    /// [hollow](Self::hollow) node.
    pub fn healthz(mut self, address: Option<SocketAddr>) -> Self {
        self.healthz = Some(address);
        self
    }

    /// Where the API server reaches the agent for logs, usually port 10250 (0 for any). The TLS configuration should
    /// require client certificates; what a client may do is for the [`Authorizer`] to say. Without this call there
    /// is no such server.
    pub fn server(mut self, address: SocketAddr, tls: Arc<rustls::ServerConfig>) -> Self {
        self.server = Some((address, tls));
        self
    }

    /// Who may use the server. Default: [`SystemMasters`].
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = authorizer;
        self
    }

    /// Whether a clean stop of the agent also stops the pods' programs. Default: they go on.
    pub fn stop_pods_on_shutdown(mut self, stop: bool) -> Self {
        self.stop_pods = stop;
        self
    }

    /// A node that only pretends: no volumes, no measuring of this machine, and no listeners but those that
    /// [`healthz`](Self::healthz) and [`server`](Self::server) name. With a
    /// [`FakeRuntime`](crate::fake::FakeRuntime), thousands of them fit in one process.
    pub fn hollow(mut self) -> Self {
        self.hollow = true;
        self
    }

    /// Opens the listeners and asks the runtime for its version.
    ///
    /// # Errors
    /// Without a runtime, or when a listener or the data directory cannot be opened.
    pub async fn build(self) -> Result<NodeAgent, NodeError> {
        let runtime = self.runtime.ok_or(NodeError::NoRuntime)?;
        let version = runtime.version().await?;
        if !self.hollow {
            make_data_dir(&self.data_dir)?;
        }
        let ips = if self.ips.is_empty() {
            vec![host::internal_ip()]
        } else {
            self.ips
        };
        let (mut capacity, mut allocatable) = host::resources(&self.data_dir, self.max_pods);
        for (resource, quantity) in self.capacity {
            capacity.insert(resource.clone(), quantity.clone());
            allocatable.insert(resource, quantity);
        }
        let (recorder, sink) = events::recorder(self.client.clone(), "kubelet", &self.node_name);
        let settings = Settings {
            node_name: self.node_name,
            data_dir: self.data_dir,
            volumes: !self.hollow,
            service_links: !self.hollow,
            dns: self.dns,
            capacity,
            allocatable,
            labels: self.labels,
            pod_cidr: self.pod_cidr,
            disk_percent: self.disk_percent,
            measure: !self.hollow,
        };
        let node = NodeFacts {
            runtime_name: version.runtime_name.clone(),
            ips: ips.iter().map(ToString::to_string).collect(),
        };
        let server = match self.server {
            Some((address, tls)) => Some(bind(address).await?.tls(tls)),
            None => None,
        };
        let usual = (!self.hollow).then_some(HEALTHZ);
        let healthz = match self.healthz.unwrap_or(usual) {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(NodeAgent {
            shared: Arc::new(Shared {
                client: self.client,
                runtime,
                settings,
                node,
                recorder,
            }),
            sink,
            ready: Ready::new(),
            runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
            healthz,
            server,
            authorizer: self.authorizer,
            stop_pods: self.stop_pods,
        })
    }
}

/// Secrets are shown to pods from below this directory: only root may enter.
fn make_data_dir(path: &PathBuf) -> Result<(), NodeError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| NodeError::DataDir {
        path: path.clone(),
        source,
    })
}

async fn bind(address: SocketAddr) -> Result<Server, NodeError> {
    Server::bind(address)
        .await
        .map_err(|source| NodeError::Listen { address, source })
}

impl NodeAgent {
    /// Settings for an agent of a node.
    pub fn builder(client: Client, node_name: impl Into<String>) -> NodeAgentBuilder {
        NodeAgentBuilder {
            client,
            node_name: node_name.into(),
            runtime: None,
            data_dir: PathBuf::from("/var/lib/orch/node"),
            labels: BTreeMap::new(),
            ips: Vec::new(),
            pod_cidr: None,
            capacity: BTreeMap::new(),
            max_pods: 110,
            dns: ClusterDns::default(),
            healthz: None,
            server: None,
            authorizer: Arc::new(SystemMasters),
            disk_percent: 10,
            stop_pods: false,
            hollow: false,
        }
    }

    /// Set when the Node is registered and the pods bound to it are known.
    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// Where the HTTPS server listens.
    #[must_use]
    pub fn server_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().and_then(|server| server.local_addr().ok())
    }

    /// Where `/healthz` answers without TLS.
    #[must_use]
    pub fn healthz_addr(&self) -> Option<SocketAddr> {
        self.healthz.as_ref().and_then(|server| server.local_addr().ok())
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let name = self.shared.settings.node_name.clone();
        let client = self.shared.client.clone();
        let pods = Informer::<Pod>::builder(Api::all(client.clone()))
            .fields(&format!("spec.nodeName={name}"))
            .build();
        let nodes = Informer::<Node>::builder(Api::all(client))
            .fields(&format!("metadata.name={name}"))
            .build();
        let port = self.server_addr().map(|address| address.port());
        let keeper = NodeKeeper::new(
            Arc::clone(&self.shared),
            nodes.clone(),
            port,
            self.runtime_version,
        );
        let registered = keeper.registered();
        let first_look = Ready::new();
        let manager = PodManager::new(Arc::clone(&self.shared), &pods, first_look.clone());
        let handler = Handler::new(
            Arc::clone(&self.shared),
            pods.clone(),
            self.authorizer,
            shutdown.clone(),
        );

        let mut tasks = JoinSet::new();
        tasks.spawn(pods.run(shutdown.clone()));
        tasks.spawn(nodes.run(shutdown.clone()));
        tasks.spawn(keeper.run(shutdown.clone()));
        tasks.spawn(manager.run(shutdown.clone()));
        tasks.spawn(self.sink.run(shutdown.clone()));
        if let Some(server) = self.server {
            tasks.spawn(server.run(handler.secure(), shutdown.clone()));
        }
        if let Some(server) = self.healthz {
            tasks.spawn(server.run(handler.plain(), shutdown.clone()));
        }
        let ready = self.ready;
        let stop = shutdown.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = Ready::wait_all([registered, first_look]) => ready.set(),
            }
        });
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, node = name, "a part of the node agent ended badly");
            }
        }
        if self.stop_pods
            && let Err(error) = manager::stop_all(&*self.shared.runtime).await
        {
            tracing::warn!(%error, "pods could not all be stopped");
        }
    }
}
