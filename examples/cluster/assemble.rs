//! Puts the parts together: store, API server, controllers, scheduler, node agent, service proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::Request;
use http::header::{HeaderValue, USER_AGENT};
use orch_api::{ApiServer, UserInfo};
use orch_controllers::Controllers;
use orch_core::ipam::Cidr;
use orch_core::pki::{self, ClientCertificates};
use orch_core::ready::Ready;
use orch_core::serve::Server;
use orch_net::nftables::{NftablesBackend, NftablesConfig};
use orch_net::userspace::{UserspaceBackend, UserspaceConfig};
use orch_net::{Choice, ProxyBackend, ServiceProxy};
use orch_sched::Scheduler;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::host;
use crate::identity::Identities;
use crate::node;
use crate::options::{Options, ProxyChoice};
use crate::store;

/// How long starting may take before the user is told what is missing.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster.
pub(crate) struct Cluster {
    api: ApiServer,
    parts: Vec<Part>,
    /// What could not be started, and what to do about it.
    notes: Vec<String>,
    agents: Group,
    listener: Group,
}

/// A part's name and what it is, for people, and when it is ready.
#[derive(Clone)]
struct Part {
    name: &'static str,
    what: String,
    ready: Ready,
}

/// Tasks that stop together.
struct Group {
    tasks: JoinSet<&'static str>,
    shutdown: CancellationToken,
}

impl Group {
    fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            shutdown: CancellationToken::new(),
        }
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Ends when one of the tasks does, which none should before it is told to.
    async fn any_ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(name)) => anyhow::anyhow!("{name} stopped by itself"),
            Some(Err(error)) => anyhow::anyhow!("a part failed: {error}"),
            None => std::future::pending().await,
        }
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts every part that this machine can run.
pub(crate) async fn start(options: &Options) -> anyhow::Result<Cluster> {
    let node_name = options.node_name.clone().map_or_else(host::name, Ok)?;
    let store = store::open(options).await?;
    let node_address = host::address();
    let service_cidr = service_cidr(options)?;
    let mut addresses = vec![options.bind.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST)];
    if options.bind.ip().is_unspecified() {
        addresses.push(node_address);
    }
    let identities = Identities::load_or_issue(
        &options.data_dir.join("pki"),
        &addresses,
        &node_name,
        node_address,
    )?;
    let kubelet_tls = pki::client_config(
        identities.authority.certificate_pem(),
        Some(&identities.kubelet_client),
    )?;
    let api = ApiServer::builder(store)
        .service_cidr(service_cidr)
        .kubelet_client(Arc::new(kubelet_tls))
        .build()
        .await?;

    let mut listener = Group::new();
    let bound = listen(&api, &identities, options.bind, &mut listener).await?;
    let reached_at = if bound.ip().is_unspecified() {
        SocketAddr::new(node_address, bound.port())
    } else {
        bound
    };
    let kubeconfig = options.kubeconfig();
    identities.write_kubeconfig(&kubeconfig, reached_at)?;
    let mut cluster = Cluster {
        api,
        parts: Vec::new(),
        notes: Vec::new(),
        agents: Group::new(),
        listener,
    };
    cluster.add("API server", format!("https://{reached_at}"), cluster.api.ready());
    cluster.add("store", store::words(options), always_ready());
    cluster.start_controllers(options, &identities)?;
    cluster.start_scheduler(&node_name)?;
    cluster.start_proxy(options, &node_name, service_cidr).await?;
    node::start(&mut cluster, options, &identities, &node_name, node_address).await?;
    cluster.introduce(&kubeconfig);
    Ok(cluster)
}

/// Upstream's default; without root, addresses that every process may listen on.
fn service_cidr(options: &Options) -> anyhow::Result<Cidr> {
    match options.service_cidr {
        Some(cidr) => Ok(cidr),
        None if host::is_root() => Ok("10.96.0.0/12".parse()?),
        None => Ok("127.96.0.0/16".parse()?),
    }
}

/// Makes a folder that only its owner may enter.
pub(crate) fn private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

fn always_ready() -> Ready {
    let ready = Ready::new();
    ready.set();
    ready
}

async fn listen(
    api: &ApiServer,
    identities: &Identities,
    address: SocketAddr,
    group: &mut Group,
) -> anyhow::Result<SocketAddr> {
    let clients = Some((
        identities.authority.certificate_pem(),
        ClientCertificates::Optional,
    ));
    let tls = pki::server_config(&identities.api_server, clients)?;
    let server = Server::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: another program may; choose another with --bind")
    })?;
    let server = server.tls(tls);
    let bound = server.local_addr()?;
    let (api, shutdown) = (api.clone(), group.shutdown.clone());
    group.spawn("the API server", async move { api.serve(server, shutdown).await });
    Ok(bound)
}

impl Cluster {
    /// Lists a part among those that have to be ready.
    pub(crate) fn add(&mut self, name: &'static str, what: String, ready: Ready) {
        self.parts.push(Part { name, what, ready });
    }

    /// Says what was left out, and what to do about it.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Runs a part until the cluster stops.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        run: impl FnOnce(CancellationToken) -> F,
    ) {
        let task = run(self.agents.shutdown.clone());
        self.agents.spawn(name, task);
    }

    /// A client for one of the components, `agent`, which owns the fields that it writes under that name.
    pub(crate) fn client_of<const GROUPS: usize>(
        &self,
        agent: &'static str,
        user: &str,
        groups: [&str; GROUPS],
    ) -> kube::Client {
        let as_agent = move |mut request: Request<kube::client::Body>| {
            let headers = request.headers_mut();
            headers.insert(USER_AGENT, HeaderValue::from_static(agent));
            request
        };
        let service = self
            .api
            .as_user(UserInfo::new(user, groups))
            .map_request(as_agent);
        kube::Client::new(service, "default")
    }

    fn start_controllers(&mut self, options: &Options, identities: &Identities) -> anyhow::Result<()> {
        let client = self.client_of("kube-controller-manager", "system:kube-controller-manager", []);
        let controllers = Controllers::builder(client)
            .cluster_cidr(options.pod_cidr)
            .root_ca(identities.authority.certificate_pem())
            .build()
            .context("--pod-cidr")?;
        self.add(
            "controllers",
            format!("pods in {}", options.pod_cidr),
            controllers.ready(),
        );
        self.spawn("the controllers", |shutdown| controllers.run(shutdown));
        Ok(())
    }

    fn start_scheduler(&mut self, host: &str) -> anyhow::Result<()> {
        let scheduler = Scheduler::builder(self.client_of("kube-scheduler", "system:kube-scheduler", []))
            .host(host)
            .build()?;
        self.add(
            "scheduler",
            "profile default-scheduler".to_owned(),
            scheduler.ready(),
        );
        self.spawn("the scheduler", |shutdown| scheduler.run(shutdown));
        Ok(())
    }

    async fn start_proxy(
        &mut self,
        options: &Options,
        node_name: &str,
        service_cidr: Cidr,
    ) -> anyhow::Result<()> {
        let choice = match options.proxy {
            ProxyChoice::None => return Ok(()),
            ProxyChoice::Auto => Choice::Auto,
            ProxyChoice::Nftables => Choice::Nftables,
            ProxyChoice::Userspace => Choice::Userspace,
        };
        let proxy = ServiceProxy::builder(self.client_of("kube-proxy", "system:kube-proxy", []))
            .node_name(node_name)
            .backend(choice)
            .pod_cidrs([options.pod_cidr])
            .bridge_cidrs([options.pod_cidr])
            .service_cidrs([service_cidr])
            .cleanup_on_stop(true)
            .build()
            .await?;
        self.add("service proxy", proxy.backend_name().to_owned(), proxy.ready());
        self.spawn("the service proxy", |shutdown| proxy.run(shutdown));
        Ok(())
    }

    /// Says what runs where, and how to use it.
    fn introduce(&self, kubeconfig: &Path) {
        for part in &self.parts {
            println!("  {:<14} {}", part.name, part.what);
        }
        for note in &self.notes {
            println!("note: {note}");
        }
        println!("\n  export KUBECONFIG={}", kubeconfig.display());
        println!("  kubectl get nodes,pods --all-namespaces\n");
    }

    /// An administrator's client.
    pub(crate) fn client(&self) -> kube::Client {
        self.api.client(UserInfo::admin())
    }

    /// What the person in front of the cluster looks at.
    pub(crate) fn view(&self) -> View {
        View {
            client: self.client(),
            parts: self.parts.clone(),
        }
    }

    /// Ends, with the reason, when a part does by itself.
    pub(crate) async fn any_ended(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.agents.any_ended() => error,
            error = self.listener.any_ended() => error,
        }
    }

    /// Stops everything: first those who write through the API server, then the server.
    pub(crate) async fn stop(mut self) {
        self.agents.stop().await;
        self.listener.stop().await;
        self.api.stop();
    }
}

/// A cluster as the person in front of it sees it: its parts, and a client.
pub(crate) struct View {
    client: kube::Client,
    parts: Vec<Part>,
}

impl View {
    /// An administrator's client.
    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Why the demo cannot work here, if so.
    pub(crate) fn missing_for_demo(&self) -> Option<String> {
        let has = |name: &str| self.parts.iter().any(|part| part.name == name);
        let missing = ["node agent", "service proxy"]
            .into_iter()
            .find(|name| !has(name))?;
        Some(format!(
            "the demo needs the {missing}: run as root, without --runtime none and --proxy none"
        ))
    }

    /// Waits until every part is ready.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let all = Ready::wait_all(self.parts.iter().map(|part| part.ready.clone()));
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            let late: Vec<_> = self
                .parts
                .iter()
                .filter(|part| !part.ready.is_ready())
                .map(|part| part.name)
                .collect();
            anyhow::bail!(
                "not ready after {PATIENCE:?}: {}; --log-level info may tell why",
                late.join(", ")
            );
        }
        Ok(())
    }
}

/// Ends what a killed cluster left behind: pods, links, rules. Objects stay.
pub(crate) async fn clean(options: &Options) -> anyhow::Result<()> {
    anyhow::ensure!(
        host::is_root(),
        "only root can end pods and remove links and rules"
    );
    let pods = node::clean(options).await?;
    let mut nftables = NftablesBackend::new(NftablesConfig::default());
    if nftables.probe().await.is_ok() {
        nftables.cleanup().await?;
    }
    UserspaceBackend::new(UserspaceConfig::default())
        .cleanup()
        .await?;
    println!("ended {pods} pods; links and rules of the service proxy are gone");
    Ok(())
}
