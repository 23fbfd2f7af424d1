//! The node agent of this machine, and nodes that only pretend.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use orch_core::conditions;
use orch_core::pki::{self, ClientCertificates};
use orch_core::ready::Ready;
use orch_node::NodeAgent;
use orch_node::embedded::EmbeddedRuntime;
use orch_node::fake::FakeRuntime;
use orch_node::runtime::Runtime;
use tokio::task::JoinSet;

use crate::assemble::Cluster;
use crate::host;
use crate::identity::Identities;
use crate::options::{Options, RuntimeChoice};

/// The taint of a node that is not ready, or new.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Where the API server reaches a node agent, as upstream has it.
const AGENT_PORT: u16 = 10250;

/// Starts the node agent, if this machine can run one, and the hollow nodes that were asked for.
pub(crate) async fn start(
    cluster: &mut Cluster,
    options: &Options,
    identities: &Identities,
    name: &str,
    address: IpAddr,
) -> anyhow::Result<()> {
    hollow_nodes(cluster, options).await?;
    let (runtime, what): (Arc<dyn Runtime>, &str) = match options.runtime {
        RuntimeChoice::None => return Ok(()),
        RuntimeChoice::Auto if !host::is_root() => {
            cluster.note("pods are not started: namespaces and links need root (sudo); all else runs");
            cluster.note("ClusterIPs answer on this machine only, in 127.96.0.0/16 unless --service-cidr says otherwise");
            return Ok(());
        }
        RuntimeChoice::Fake => (Arc::new(FakeRuntime::new()), "fake"),
        RuntimeChoice::Auto | RuntimeChoice::Embedded => (Arc::new(embedded(options).await?), "embedded"),
    };
    let authority = identities.authority.certificate_pem();
    let tls = pki::server_config(&identities.node, Some((authority, ClientCertificates::Required)))?;
    let client = cluster.client_of("kubelet", &format!("system:node:{name}"), ["system:nodes"]);
    let agent = NodeAgent::builder(client, name)
        .runtime(runtime)
        .data_dir(folder(options))
        .internal_ips([address])
        .server(SocketAddr::new(address, AGENT_PORT), tls)
        // A tenth of a disk, upstream's limit, is a lot on a machine that is not a node before all else.
        .nodefs_available(1)
        .stop_pods_on_shutdown(true)
        .build()
        .await
        .context("the node agent: another one may run on this machine")?;
    let usable = Ready::new();
    cluster.add(
        "node agent",
        format!("node {name}, {what} runtime"),
        usable.clone(),
    );
    let told = tell_when_usable(cluster.client(), name.to_owned(), usable);
    cluster.spawn("the node agent", |shutdown| async move {
        tokio::join!(agent.run(shutdown.clone()), shutdown.run_until_cancelled(told));
    });
    Ok(())
}

/// Waits until pods can be scheduled on a node: its agent says that it is ready, and the controllers have taken the
/// taint of a new node off. Other taints are the user's affair.
async fn tell_when_usable(client: kube::Client, name: String, usable: Ready) {
    let nodes: Api<Node> = Api::all(client);
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = pin!(watcher(nodes, only).default_backoff().applied_objects());
    while let Some(change) = changes.next().await {
        let Ok(node) = change else { continue };
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let conditions = node
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        if taints.iter().all(|taint| taint.key != NOT_READY) && conditions::is_true(&conditions, "Ready") {
            return usable.set();
        }
    }
}

fn folder(options: &Options) -> PathBuf {
    options.data_dir.join("node")
}

async fn embedded(options: &Options) -> anyhow::Result<EmbeddedRuntime> {
    let this_program = std::env::current_exe().context("cannot find this program's own file")?;
    let runtime = EmbeddedRuntime::builder(options.data_dir.join("runtime"))
        .allow_host_image(true)
        .hide_path(std::path::absolute(&options.data_dir)?)
        .program("web", this_program)
        .build()
        .await?;
    Ok(runtime)
}

/// Starts nodes whose containers only pretend to run, all in one task.
async fn hollow_nodes(cluster: &mut Cluster, options: &Options) -> anyhow::Result<()> {
    if options.hollow_nodes == 0 {
        return Ok(());
    }
    let mut agents = Vec::new();
    for number in 1..=options.hollow_nodes {
        let name = format!("hollow-{number}");
        let client = cluster.client_of("kubelet", &format!("system:node:{name}"), ["system:nodes"]);
        let agent = NodeAgent::builder(client, name)
            .runtime(Arc::new(FakeRuntime::new()))
            .hollow()
            .build()
            .await?;
        agents.push(agent);
    }
    let (all, each): (_, Vec<Ready>) = (Ready::new(), agents.iter().map(NodeAgent::ready).collect());
    cluster.add("hollow nodes", options.hollow_nodes.to_string(), all.clone());
    cluster.spawn("the hollow nodes", |shutdown| async move {
        let mut tasks: JoinSet<()> = agents
            .into_iter()
            .map(|agent| agent.run(shutdown.clone()))
            .collect();
        Ready::wait_all(each).await;
        all.set();
        while tasks.join_next().await.is_some() {}
    });
    Ok(())
}

/// Ends all pods that a killed cluster left running; returns how many there were.
pub(crate) async fn clean(options: &Options) -> anyhow::Result<usize> {
    if !options.data_dir.join("runtime").exists() {
        return Ok(0);
    }
    let runtime = embedded(options).await?;
    let sandboxes = runtime.list_pod_sandbox(None).await?;
    for sandbox in &sandboxes {
        runtime.stop_pod_sandbox(&sandbox.id).await?;
        runtime.remove_pod_sandbox(&sandbox.id).await?;
    }
    Ok(sandboxes.len())
}
