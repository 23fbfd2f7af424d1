//! All controllers together: what upstream's kube-controller-manager is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use orch_core::controller::{Controller, Manager, ManagerBuilder};
use orch_core::events::{self, EventRecorder, EventSink};
use orch_core::informer::Informers;
use orch_core::ipam::Cidr;
use orch_core::leader::{LeaderElector, Leadership};
use orch_core::ready::Ready;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::deployment::DeploymentController;
use crate::endpoint_slice::{self, EndpointSliceController};
use crate::endpoints::{self, EndpointsController};
use crate::garbage_collector::GarbageCollector;
use crate::namespace::NamespaceController;
use crate::node_ipam::{self, NodeIpamController, NodeIpamError};
use crate::node_lifecycle::{self, NodeLifecycleController, TaintEvictionController};
use crate::pod_gc::PodGcController;
use crate::replica_set::ReplicaSetController;
use crate::service_account::{RootCaPublisher, ServiceAccountController};

/// A controller of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Rolls Deployments out.
    Deployment,
    /// Keeps the pods of ReplicaSets.
    ReplicaSet,
    /// Writes Endpoints.
    Endpoints,
    /// Writes EndpointSlices.
    EndpointSlice,
    /// Empties namespaces that are deleted.
    Namespace,
    /// Gives each namespace its `default` ServiceAccount.
    ServiceAccount,
    /// Publishes the root certificate in each namespace, if one is given.
    RootCa,
    /// Notices silent nodes and taints nodes.
    NodeLifecycle,
    /// Evicts pods by taints.
    TaintEviction,
    /// Gives nodes their pod ranges, if there are any.
    NodeIpam,
    /// Deletes what has lost its owners.
    GarbageCollector,
    /// Deletes pods that no node agent will: their node is gone or was never chosen, or too many have ended.
    PodGc,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 12] = [
        Kind::Deployment,
        Kind::ReplicaSet,
        Kind::Endpoints,
        Kind::EndpointSlice,
        Kind::Namespace,
        Kind::ServiceAccount,
        Kind::RootCa,
        Kind::NodeLifecycle,
        Kind::TaintEviction,
        Kind::NodeIpam,
        Kind::GarbageCollector,
        Kind::PodGc,
    ];

    /// Upstream's name, as in the `--controllers` flag of kube-controller-manager.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Deployment => "deployment-controller",
            Kind::ReplicaSet => "replicaset-controller",
            Kind::Endpoints => "endpoints-controller",
            Kind::EndpointSlice => "endpointslice-controller",
            Kind::Namespace => "namespace-controller",
            Kind::ServiceAccount => "serviceaccount-controller",
            Kind::RootCa => "root-ca-certificate-publisher-controller",
            Kind::NodeLifecycle => "node-lifecycle-controller",
            Kind::TaintEviction => "taint-eviction-controller",
            Kind::NodeIpam => "node-ipam-controller",
            Kind::GarbageCollector => "garbage-collector-controller",
            Kind::PodGc => "pod-garbage-collector-controller",
        }
    }
}

/// Describes a set of [`Controllers`].
#[must_use]
pub struct ControllersBuilder {
    client: Client,
    kinds: Vec<Kind>,
    root_ca: Option<Arc<str>>,
    pod_ranges: Vec<(Cidr, u8)>,
    node_grace: Option<Duration>,
    terminated_pods: Option<usize>,
    leader_identity: Option<String>,
}

impl fmt::Debug for ControllersBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllersBuilder")
            .field("kinds", &self.kinds)
            .field("pod_ranges", &self.pod_ranges)
            .finish_non_exhaustive()
    }
}

impl ControllersBuilder {
    /// Runs only these. Default all.
    pub fn only(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Does not run this one.
    pub fn without(mut self, kind: Kind) -> Self {
        self.kinds.retain(|present| *present != kind);
        self
    }

    /// The certificate (PEM) by which pods trust the API server. Without it none is published.
    pub fn root_ca(mut self, certificate_pem: impl Into<Arc<str>>) -> Self {
        self.root_ca = Some(certificate_pem.into());
        self
    }

    /// A range of pod addresses; each node gets a part of it: 24 bits of IPv4, 64 of IPv6. Call it once a family.
    /// Without any, nodes get none.
    pub fn cluster_cidr(self, cidr: Cidr) -> Self {
        let prefix = if cidr.is_ipv4() { 24 } else { 64 };
        self.cluster_cidr_with(cidr, prefix)
    }

    /// Like [`cluster_cidr`](Self::cluster_cidr), with parts of `prefix` bits.
    pub fn cluster_cidr_with(mut self, cidr: Cidr, prefix: u8) -> Self {
        self.pod_ranges.push((cidr, prefix));
        self
    }

    /// How long a node may be silent. Default 40 s.
    pub fn node_grace(mut self, grace: Duration) -> Self {
        self.node_grace = Some(grace);
        self
    }

    /// How many pods that ran to their end are kept. Default 12500; 0 keeps all of them.
    pub fn terminated_pod_threshold(mut self, threshold: usize) -> Self {
        self.terminated_pods = Some(threshold);
        self
    }

    /// Takes turns with other copies, under upstream's Lease `kube-system/kube-controller-manager`. `identity` must
    /// differ between the copies. Default: works without asking.
    pub fn leader_election(mut self, identity: &str) -> Self {
        self.leader_identity = Some(identity.to_owned());
        self
    }

    /// The controllers.
    ///
    /// # Errors
    /// When a pod range is too small for its parts.
    pub fn build(self) -> Result<Controllers, NodeIpamError> {
        let informers = Informers::new(self.client.clone());
        let mut assembly = Assembly {
            manager: Manager::builder(informers.clone()),
            informers,
            sinks: Vec::new(),
        };
        for kind in &self.kinds {
            assembly.add(*kind, &self)?;
        }
        let elector = self.leader_identity.as_deref().map(|identity| {
            LeaderElector::builder(
                self.client.clone(),
                "kube-system",
                "kube-controller-manager",
                identity,
            )
            .build()
        });
        let leadership = elector.as_ref().map(LeaderElector::leadership);
        let mut manager = assembly.manager;
        if let Some(elector) = elector {
            manager = manager.leader_election(elector);
        }
        let collects = self.kinds.contains(&Kind::GarbageCollector);
        Ok(Controllers {
            manager: manager.build(),
            collector: collects.then(|| GarbageCollector::new(self.client.clone())),
            client: self.client,
            leadership,
            sinks: assembly.sinks,
            ready: Ready::new(),
        })
    }
}

struct Assembly {
    informers: Informers,
    manager: ManagerBuilder,
    sinks: Vec<EventSink>,
}

impl Assembly {
    fn add(&mut self, kind: Kind, settings: &ControllersBuilder) -> Result<(), NodeIpamError> {
        let informers = self.informers.clone();
        let controller: Arc<dyn Controller> = match kind {
            Kind::Deployment => Arc::new(DeploymentController::new(
                &informers,
                self.recorder("deployment-controller"),
            )),
            Kind::ReplicaSet => Arc::new(ReplicaSetController::new(
                &informers,
                self.recorder("replicaset-controller"),
            )),
            Kind::Endpoints => Arc::new(EndpointsController::new(
                &informers,
                self.recorder(endpoints::COMPONENT),
            )),
            Kind::EndpointSlice => Arc::new(EndpointSliceController::new(
                &informers,
                self.recorder(endpoint_slice::COMPONENT),
            )),
            Kind::Namespace => Arc::new(NamespaceController::new(&informers)),
            Kind::ServiceAccount => Arc::new(ServiceAccountController::new(&informers)),
            Kind::RootCa => match &settings.root_ca {
                Some(certificate) => Arc::new(RootCaPublisher::new(&informers, Arc::clone(certificate))),
                None => return Ok(()),
            },
            Kind::NodeLifecycle => {
                let recorder = self.recorder(node_lifecycle::COMPONENT);
                let controller = NodeLifecycleController::new(&informers, recorder);
                Arc::new(match settings.node_grace {
                    Some(grace) => controller.grace(grace),
                    None => controller,
                })
            }
            Kind::TaintEviction => {
                let recorder = self.recorder(TaintEvictionController::COMPONENT);
                Arc::new(TaintEvictionController::new(&informers, recorder))
            }
            Kind::NodeIpam if settings.pod_ranges.is_empty() => return Ok(()),
            Kind::NodeIpam => {
                let recorder = self.recorder(node_ipam::COMPONENT);
                Arc::new(NodeIpamController::new(
                    &informers,
                    recorder,
                    &settings.pod_ranges,
                )?)
            }
            Kind::PodGc => {
                let controller = PodGcController::new(&informers);
                Arc::new(match settings.terminated_pods {
                    Some(threshold) => controller.terminated_pod_threshold(threshold),
                    None => controller,
                })
            }
            // Not a controller of one kind: it runs beside the manager.
            Kind::GarbageCollector => return Ok(()),
        };
        let manager = std::mem::replace(&mut self.manager, Manager::builder(informers));
        self.manager = manager.controller(controller);
        Ok(())
    }

    fn recorder(&mut self, component: &str) -> EventRecorder {
        let (recorder, sink) = events::recorder(self.informers.client().clone(), component, "");
        self.sinks.push(sink);
        recorder
    }
}

/// The controllers, ready to run.
pub struct Controllers {
    manager: Manager,
    collector: Option<GarbageCollector>,
    client: Client,
    leadership: Option<watch::Receiver<Leadership>>,
    sinks: Vec<EventSink>,
    ready: Ready,
}

impl fmt::Debug for Controllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controllers")
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

impl Controllers {
    /// Begins a set of all controllers that work through `client`.
    pub fn builder(client: Client) -> ControllersBuilder {
        ControllersBuilder {
            client,
            kinds: Kind::ALL.to_vec(),
            root_ca: None,
            pod_ranges: Vec::new(),
            node_grace: None,
            terminated_pods: None,
            leader_identity: None,
        }
    }

    /// Set when every controller has reconciled, once, what existed when it began; with leader election also when
    /// another copy leads.
    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// Runs until `shutdown`; then each worker finishes the key it is at, and the last events are written.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut parts = vec![self.manager.ready()];
        if let Some(collector) = self.collector {
            match self.leadership {
                None => {
                    parts.push(collector.ready());
                    tasks.spawn(collector.run(shutdown.clone()));
                }
                Some(leadership) => {
                    tasks.spawn(collect_while_leading(
                        collector,
                        self.client,
                        leadership,
                        shutdown.clone(),
                    ));
                }
            }
        }
        // Stopped last: the controllers' last acts are events, too.
        let sinks_stop = CancellationToken::new();
        let _stop_on_drop = sinks_stop.clone().drop_guard();
        let mut sinks = JoinSet::new();
        for sink in self.sinks {
            sinks.spawn(sink.run(sinks_stop.clone()));
        }
        let (ready, stop) = (self.ready, shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = Ready::wait_all(parts) => ready.set(),
                () = stop.cancelled() => {}
            }
        });
        // The manager has the Lease, which is not to be released while the collector is still at work.
        let manager_stop = CancellationToken::new();
        let others = async {
            shutdown.cancelled().await;
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a part of the controllers failed");
                }
            }
            manager_stop.cancel();
        };
        tokio::join!(self.manager.run(manager_stop.clone()), others);
        sinks_stop.cancel();
        while sinks.join_next().await.is_some() {}
    }
}

/// Each term begins with a look at everything.
async fn collect_while_leading(
    first: GarbageCollector,
    client: Client,
    mut leadership: watch::Receiver<Leadership>,
    shutdown: CancellationToken,
) {
    let mut next = Some(first);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            led = leadership.wait_for(|l| l.leading) => if led.is_err() { return },
        }
        let collector = next
            .take()
            .unwrap_or_else(|| GarbageCollector::new(client.clone()));
        let term = shutdown.child_token();
        let until_lost = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = leadership.wait_for(|l| !l.leading) => {}
            }
            term.cancel();
        };
        tokio::join!(until_lost, collector.run(term.clone()));
    }
}
