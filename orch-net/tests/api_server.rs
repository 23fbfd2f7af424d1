//! The whole way: a Service and an EndpointSlice into the project's API server, packets out. Needs root and nft.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use orch_api::testkit::TestServer;
use orch_net::testkit::{BRIDGE_CIDRS, Namespace, POD_CIDRS, Topology};
use orch_net::{Choice, ServiceProxy};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const CLUSTER_IP: &str = "10.96.0.10";

fn service(spec: &Value) -> Service {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP],
                 "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]},
    });
    object["spec"]
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn slice(ips: &[IpAddr]) -> EndpointSlice {
    let endpoints: Vec<Value> = ips
        .iter()
        .map(|ip| json!({"addresses": [ip], "nodeName": "node"}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }))
    .unwrap()
}

/// Greets each client with a name.
async fn greet(namespace: &Namespace, name: &'static str, ip: IpAddr) {
    namespace
        .run(move || async move {
            let listener = TcpListener::bind((ip, 8080)).await.unwrap();
            tokio::task::spawn_local(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    stream.write_all(name.as_bytes()).await.ok();
                }
            });
        })
        .await;
}

/// Who answers at the cluster IP, or why nobody does.
async fn ask(namespace: &Namespace) -> Result<String, std::io::ErrorKind> {
    let to: SocketAddr = format!("{CLUSTER_IP}:80").parse().unwrap();
    let answer = namespace.run(move || async move {
        let asked = async {
            let mut text = String::new();
            TcpStream::connect(to).await?.read_to_string(&mut text).await?;
            Ok::<_, std::io::Error>(text)
        };
        tokio::time::timeout(Duration::from_secs(5), asked)
            .await
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
    });
    answer.await.map_err(|error| error.kind())
}

/// Asks from a pod and from the node until both hear `expected`.
async fn eventually(topology: &Topology, expected: &Result<String, std::io::ErrorKind>) {
    for namespace in [&topology.client, &*topology.node] {
        let mut heard = ask(namespace).await;
        for _ in 0..100 {
            if heard == *expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            heard = ask(namespace).await;
        }
        assert_eq!(heard, *expected, "from {}", namespace.name());
    }
}

async fn follows_the_api(topology: Arc<Topology>, choice: Choice) {
    // Many machines at the edge have no default route.
    let routes = std::process::Command::new("ip")
        .args(["route", "del", "default"])
        .status();
    assert!(
        routes
            .expect("ip is installed (apt-get install iproute2)")
            .success()
    );
    let server = TestServer::start().await;
    let services: Api<Service> = Api::namespaced(server.client(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(server.client(), "default");
    let ips: Vec<IpAddr> = (0..2).map(|index| topology.endpoint_ip(index).into()).collect();
    services
        .create(&PostParams::default(), &service(&json!({})))
        .await
        .unwrap();
    slices
        .create(&PostParams::default(), &slice(&ips[..1]))
        .await
        .unwrap();

    let proxy = ServiceProxy::builder(server.client())
        .node_name("node")
        .backend(choice)
        .pod_cidrs(POD_CIDRS.map(|cidr| cidr.parse().unwrap()))
        .bridge_cidrs(BRIDGE_CIDRS.map(|cidr| cidr.parse().unwrap()))
        .service_cidrs(["10.96.0.0/16".parse().unwrap()])
        .check_interval(Duration::from_millis(200))
        .cleanup_on_stop(true)
        .build()
        .await
        .unwrap();
    assert_eq!(proxy.backend_name(), choice.to_string());
    let (ready, shutdown) = (proxy.ready(), CancellationToken::new());
    let run = tokio::spawn(proxy.run(shutdown.clone()));
    ready.wait().await;
    for namespace in [&topology.client, &*topology.node] {
        assert_eq!(
            ask(namespace).await.as_deref(),
            Ok("web-1"),
            "what was there is served when it is ready"
        );
    }

    slices.delete("web-1", &DeleteParams::default()).await.unwrap();
    eventually(&topology, &Err(std::io::ErrorKind::ConnectionRefused)).await;
    slices
        .create(&PostParams::default(), &slice(&ips[1..]))
        .await
        .unwrap();
    eventually(&topology, &Ok("web-2".to_owned())).await;

    // Somebody clears the tables.
    let flushed = std::process::Command::new("nft")
        .args(["flush", "ruleset"])
        .status();
    assert!(
        flushed
            .expect("nft is installed (apt-get install nftables)")
            .success()
    );
    eventually(&topology, &Ok("web-2".to_owned())).await;

    let restricted = json!({"spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]}});
    services
        .patch("web", &PatchParams::default(), &Patch::Merge(restricted))
        .await
        .unwrap();
    warned(&Api::namespaced(server.client(), "default")).await;

    services.delete("web", &DeleteParams::default()).await.unwrap();
    let gone = async {
        while ask(&topology.node).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("a deleted Service is not served");
    shutdown.cancel();
    run.await.unwrap();
}

async fn warned(events: &Api<Event>) {
    for _ in 0..200 {
        let found = events.list(&kube::api::ListParams::default()).await.unwrap();
        if found
            .items
            .iter()
            .any(|event| event.reason.as_deref() == Some("LoadBalancerSourceRangesUnsupported"))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no event says that source ranges are not implemented");
}

fn with_topology(choice: Choice) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let topology = Arc::new(Topology::new(false).await.unwrap());
        for (index, name) in ["web-1", "web-2"].into_iter().enumerate() {
            greet(
                &topology.endpoints[index],
                name,
                topology.endpoint_ip(index).into(),
            )
            .await;
        }
        let shared = topology.clone();
        topology.node.run(move || follows_the_api(shared, choice)).await;
        let left = topology.node.run(|| async {
            std::process::Command::new("nft")
                .args(["list", "ruleset"])
                .output()
        });
        let left = left.await.expect("nft is installed (apt-get install nftables)");
        assert_eq!(
            String::from_utf8_lossy(&left.stdout),
            "",
            "the proxy cleans up when asked to"
        );
    });
}

#[test]
fn nftables_follow_the_api_server() {
    with_topology(Choice::Nftables);
}

#[test]
fn userspace_follows_the_api_server() {
    with_topology(Choice::Userspace);
}
