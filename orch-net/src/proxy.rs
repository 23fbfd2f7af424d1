//! The service proxy of one node: informers, tracker and backend, put together.

use std::collections::HashSet;
use std::time::Duration;

use kube::{Api, Client};
use orch_core::events::{self, EventRecorder, EventSink, EventType};
use orch_core::informer::{Event, Informer};
use orch_core::ready::Ready;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backend::{BackendError, ProxyBackend, SyncReport, Unserved};
use crate::choice::{Backend, Choice};
use crate::model::{Changes, NamespacedName};
use crate::objects::{EndpointSlice, Service};
use crate::tracker::{Tracker, service_name, slice_name};
use crate::{Cidr, nftables::NftablesConfig, userspace::UserspaceConfig};

/// Services that this proxy is to serve.
const SERVICES: &str = "!service.kubernetes.io/service-proxy-name";
/// EndpointSlices of such Services.
const SLICES: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
/// The first delay before a sync that failed is tried again; it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest such delay.
const LAST_RETRY: Duration = Duration::from_secs(10);

/// Describes a [`ServiceProxy`].
#[must_use]
pub struct ServiceProxyBuilder {
    client: Client,
    node_name: String,
    backend: Backend,
    pod_cidrs: Vec<Cidr>,
    bridge_cidrs: Vec<Cidr>,
    service_cidrs: Vec<Cidr>,
    min_sync_interval: Duration,
    check_interval: Duration,
    cleanup_on_stop: bool,
}

impl std::fmt::Debug for ServiceProxyBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceProxyBuilder")
            .field("node_name", &self.node_name)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl ServiceProxyBuilder {
    /// The name of this node, by which local endpoints are known. Default: none, so that no endpoint is local.
    pub fn node_name(mut self, name: impl Into<String>) -> Self {
        self.node_name = name.into();
        self
    }

    /// What carries the traffic. Default [`Choice::Auto`](crate::Choice::Auto).
    pub fn backend(mut self, backend: impl Into<Backend>) -> Self {
        self.backend = backend.into();
        self
    }

    /// The addresses of all pods of the cluster, one range for each family. Default none.
    ///
    /// Traffic to cluster IPs from elsewhere is masqueraded, and `externalTrafficPolicy: Local` does not bind pods.
    pub fn pod_cidrs(mut self, cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        self.pod_cidrs = cidrs.into_iter().collect();
        self
    }

    /// The addresses of those pods that share a bridge on this node. Default none.
    ///
    /// Needed by kernel backends where bridged packets skip the firewall (`net.bridge.bridge-nf-call-iptables` = 0).
    pub fn bridge_cidrs(mut self, cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        self.bridge_cidrs = cidrs.into_iter().collect();
        self
    }

    /// The ranges of cluster IPs, one for each family. Default none.
    ///
    /// Given to kernel backends, they are routed on this node, so that cluster IPs are reached from it without a default route.
    pub fn service_cidrs(mut self, cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        self.service_cidrs = cidrs.into_iter().collect();
        self
    }

    /// The least time between two syncs, in which changes gather. A change after a quiet time is applied at once. Default 20 ms.
    pub fn min_sync_interval(mut self, interval: Duration) -> Self {
        self.min_sync_interval = interval;
        self
    }

    /// How often the backend is asked whether its rules are still there. Default 30 s.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval;
        self
    }

    /// Whether to remove everything from the host when the proxy stops. Default no, as kube-proxy: what the kernel serves goes
    /// on while the proxy restarts.
    pub fn cleanup_on_stop(mut self, cleanup: bool) -> Self {
        self.cleanup_on_stop = cleanup;
        self
    }

    /// Chooses and probes the backend.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] if the host can not carry what was asked for.
    pub async fn build(self) -> Result<ServiceProxy, BackendError> {
        let nftables = NftablesConfig {
            pod_cidrs: self.pod_cidrs.clone(),
            bridge_cidrs: self.bridge_cidrs,
            service_cidrs: self.service_cidrs,
            ..NftablesConfig::default()
        };
        let userspace = UserspaceConfig {
            pod_cidrs: self.pod_cidrs,
            ..UserspaceConfig::default()
        };
        let backend = self.backend.choose(nftables, userspace).await?;
        let (recorder, sink) = events::recorder(self.client.clone(), "kube-proxy", &self.node_name);
        Ok(ServiceProxy {
            follower: Follower {
                tracker: Tracker::new(self.node_name),
                backend,
                ready: Ready::new(),
                recorder,
                min_sync_interval: self.min_sync_interval,
                told: HashSet::new(),
                full: true,
                retry: FIRST_RETRY,
            },
            client: self.client,
            sink,
            check_interval: self.check_interval,
            cleanup_on_stop: self.cleanup_on_stop,
        })
    }
}

/// Serves the Services of a cluster on one node, until told to stop.
///
/// What a Service asks for and this proxy can not give is said in a Warning event on the Service.
pub struct ServiceProxy {
    client: Client,
    follower: Follower,
    sink: EventSink,
    check_interval: Duration,
    cleanup_on_stop: bool,
}

/// The part that turns events into syncs.
struct Follower {
    tracker: Tracker,
    backend: Box<dyn ProxyBackend>,
    ready: Ready,
    recorder: EventRecorder,
    min_sync_interval: Duration,
    /// What is not served, as far as it was said.
    told: HashSet<Unserved>,
    /// Whether the next sync trusts nothing.
    full: bool,
    retry: Duration,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let backend = self.backend.name();
        f.debug_struct("Follower")
            .field("backend", &backend)
            .field("full", &self.full)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ServiceProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceProxy")
            .field("follower", &self.follower)
            .finish_non_exhaustive()
    }
}

impl ServiceProxy {
    /// Begins a proxy that reads the cluster through `client`.
    pub fn builder(client: Client) -> ServiceProxyBuilder {
        ServiceProxyBuilder {
            client,
            node_name: String::new(),
            backend: Choice::Auto.into(),
            pod_cidrs: Vec::new(),
            bridge_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            min_sync_interval: Duration::from_millis(20),
            check_interval: Duration::from_secs(30),
            cleanup_on_stop: false,
        }
    }

    /// Set when all Services that existed at the start are served.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.follower.ready.clone()
    }

    /// The name of the backend.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.follower.backend.name()
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut follower = self.follower;
        let stop = CancellationToken::new();
        let services = Informer::<Service>::builder(Api::all(self.client.clone()))
            .labels(SERVICES)
            .build();
        let slices = Informer::<EndpointSlice>::builder(Api::all(self.client))
            .labels(SLICES)
            .build();
        let mut inbox = Inbox {
            services: services.subscribe(),
            slices: slices.subscribe(),
            unsynced: 2,
            names: services.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(services.run(stop.clone()));
        tasks.spawn(slices.run(stop.clone()));
        tasks.spawn(self.sink.run(stop.clone()));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follower.follow(&mut inbox, self.check_interval) => {}
        }
        if self.cleanup_on_stop
            && let Err(error) = follower.backend.cleanup().await
        {
            tracing::warn!(%error, "could not remove everything from the host");
        }
        follower.backend.stop().await;
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }
}

/// What the informers tell.
struct Inbox {
    services: UnboundedReceiver<Event<Service>>,
    slices: UnboundedReceiver<Event<EndpointSlice>>,
    /// Informers that have not told everything yet.
    unsynced: usize,
    names: Informer<Service>,
}

impl Inbox {
    /// Waits for news and takes in all that is there.
    async fn receive(&mut self, tracker: &mut Tracker) {
        tokio::select! {
            Some(event) = self.services.recv() => self.service(tracker, event),
            Some(event) = self.slices.recv() => self.slice(tracker, event),
            else => std::future::pending().await,
        }
        while let Ok(event) = self.services.try_recv() {
            self.service(tracker, event);
        }
        while let Ok(event) = self.slices.try_recv() {
            self.slice(tracker, event);
        }
    }

    fn service(&mut self, tracker: &mut Tracker, event: Event<Service>) {
        match event {
            Event::Applied { new, .. } => tracker.apply_service(&new),
            Event::Deleted(service) => tracker.delete_service(&service_name(&service)),
            Event::Synced => self.unsynced -= 1,
        }
    }

    fn slice(&mut self, tracker: &mut Tracker, event: Event<EndpointSlice>) {
        match event {
            Event::Applied { new, .. } => tracker.apply_slice(&new),
            Event::Deleted(slice) => tracker.delete_slice(&slice_name(&slice)),
            Event::Synced => self.unsynced -= 1,
        }
    }
}

impl Follower {
    /// Never returns; a sync that is cut off counts as failed, and the next process starts with a full one.
    async fn follow(&mut self, inbox: &mut Inbox, check_interval: Duration) {
        while inbox.unsynced > 0 {
            inbox.receive(&mut self.tracker).await;
        }
        let mut next_sync = Some(Instant::now());
        let mut next_check = Instant::now() + check_interval;
        let mut last_sync = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = inbox.receive(&mut self.tracker) => {
                    if self.tracker.is_dirty() && next_sync.is_none() {
                        next_sync = Some(last_sync + self.min_sync_interval);
                    }
                }
                () = until(next_sync) => {
                    next_sync = self.sync(inbox).await;
                    last_sync = Instant::now();
                }
                () = sleep_until(next_check) => {
                    self.check().await;
                    if self.full {
                        next_sync = Some(Instant::now());
                    }
                    next_check = Instant::now() + check_interval;
                }
            }
        }
    }

    /// Brings the backend up to date; says when to try again if that failed.
    async fn sync(&mut self, inbox: &Inbox) -> Option<Instant> {
        let started = Instant::now();
        let changes = self.tracker.take_changes();
        self.warn(inbox);
        let changes = if self.full {
            Changes::All
        } else {
            Changes::Only(changes)
        };
        if changes.is_empty() {
            return None;
        }
        // Until it has succeeded nothing is certain, not even if this future is dropped.
        let was_full = std::mem::replace(&mut self.full, true);
        match self.backend.sync(self.tracker.state(), &changes).await {
            Ok(report) => {
                self.full = false;
                self.retry = FIRST_RETRY;
                self.ready.set();
                let took = started.elapsed();
                tracing::debug!(
                    backend = self.backend.name(),
                    writes = report.writes,
                    full = was_full,
                    ?took,
                    "synced"
                );
                self.tell(inbox, report);
                None
            }
            Err(error) => {
                tracing::warn!(backend = self.backend.name(), %error, retry_in = ?self.retry, "sync failed");
                let at = Instant::now() + if was_full { self.retry } else { Duration::ZERO };
                self.retry = (self.retry * 2).min(LAST_RETRY);
                Some(at)
            }
        }
    }

    /// Looks whether somebody removed what the backend had written.
    async fn check(&mut self) {
        match self.backend.intact().await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(
                    backend = self.backend.name(),
                    "rules are gone or changed: writing them anew"
                );
                self.full = true;
            }
            Err(error) => {
                tracing::warn!(backend = self.backend.name(), %error, "could not look at the rules")
            }
        }
    }

    /// Says what Services ask for in vain.
    fn warn(&mut self, inbox: &Inbox) {
        for warning in self.tracker.take_warnings() {
            self.record(inbox, &warning.service, warning.reason, &warning.message);
        }
    }

    /// Says what the backend can not serve, once.
    fn tell(&mut self, inbox: &Inbox, report: SyncReport) {
        let unserved: HashSet<Unserved> = report.unserved.into_iter().collect();
        for news in unserved.difference(&self.told) {
            self.record(inbox, &news.key.service, "FrontendNotServed", &news.message);
        }
        self.told = unserved;
    }

    fn record(&self, inbox: &Inbox, service: &NamespacedName, reason: &str, message: &str) {
        tracing::warn!(%service, reason, message);
        if let Some(object) = inbox.names.get(service) {
            self.recorder
                .event(&events::reference(&*object), EventType::Warning, reason, message);
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
