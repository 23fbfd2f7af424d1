//! Whatever Services and EndpointSlices say, nft takes the scripts. Needs root and nft.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use orch_net::nftables::{Nft, NftError, NftProgram, NftablesBackend, NftablesConfig};
use orch_net::testkit::Namespace;
use orch_net::{Changes, ProxyBackend, Tracker};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// Names that no API server would let pass.
fn hostile_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]",
        Just("}; flush ruleset; table ip x {".to_owned()),
        Just("\"; drop\n add table ip evil".to_owned()),
        Just("web comment \"x\" : drop".to_owned()),
        "\\PC{0,40}",
    ]
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u32>().prop_map(|bits| std::net::Ipv4Addr::from_bits(bits).to_string()),
        any::<u128>().prop_map(|bits| std::net::Ipv6Addr::from_bits(bits).to_string()),
        (0..4u8).prop_map(|last| format!("10.0.0.{last}")),
        Just("::ffff:10.0.0.1".to_owned()),
        Just("0.0.0.0".to_owned()),
        Just("255.255.255.255".to_owned()),
        Just("127.0.0.1".to_owned()),
        Just("::".to_owned()),
        hostile_name(),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let number = prop_oneof![4 => 1..65536i64, 1 => any::<i64>()];
    let protocol = prop_oneof!["TCP", "UDP", "SCTP", hostile_name()];
    (hostile_name(), protocol, number.clone(), number)
        .prop_map(|(name, protocol, port, node_port)| json!({"name": name, "protocol": protocol, "port": port, "nodePort": node_port}))
}

fn policy() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("Local".to_owned()),
        Just("Cluster".to_owned()),
        hostile_name()
    ]
}

fn service() -> impl Strategy<Value = Value> {
    let ports = prop::collection::vec(port(), 0..4);
    let ips = || prop::collection::vec(address(), 0..3);
    (hostile_name(), ips(), ips(), ports, any::<bool>(), any::<i64>(), policy(), policy()).prop_map(
        |(name, cluster, external, ports, affinity, seconds, internal_policy, external_policy)| {
            json!({
                "metadata": {"namespace": "ns", "name": name},
                "spec": {
                    "clusterIPs": cluster, "externalIPs": external, "ports": ports,
                    "sessionAffinity": if affinity { "ClientIP" } else { "None" },
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
                    "internalTrafficPolicy": internal_policy, "externalTrafficPolicy": external_policy,
                },
                "status": {"loadBalancer": {"ingress": external.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()}},
            })
        },
    )
}

/// An EndpointSlice for one of the Services' ports, named alike.
fn slice(services: &[Value]) -> impl Strategy<Value = Value> + use<> {
    let services = services.to_vec();
    let endpoints = prop::collection::vec((address(), any::<bool>()), 0..6);
    (any::<prop::sample::Index>(), endpoints, any::<bool>(), 1..65536i64).prop_map(move |(index, endpoints, six, port)| {
        let service = index.get(&services);
        let mut ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        ports.iter_mut().for_each(|entry| entry["port"] = json!(port));
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(ip, local)| json!({"addresses": [ip], "nodeName": if *local { "node" } else { "other" }}))
            .collect();
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        json!({
            "metadata": {"namespace": "ns", "name": format!("{name}-{six}"), "labels": {"kubernetes.io/service-name": name}},
            "addressType": if six { "IPv6" } else { "IPv4" }, "ports": ports, "endpoints": endpoints,
        })
    })
}

fn life() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    prop::collection::vec(service(), 1..5).prop_flat_map(|services| {
        let slices = prop::collection::vec(slice(&services), 1..8);
        (Just(services), slices)
    })
}

/// Remembers the last script, to show the one that was refused.
#[derive(Default)]
struct Witness {
    nft: NftProgram,
    last: Mutex<String>,
}

#[async_trait::async_trait]
impl Nft for Witness {
    async fn apply(&self, script: &str) -> Result<(), NftError> {
        script.clone_into(&mut self.last.lock());
        self.nft.check(script).await?;
        self.nft.apply(script).await
    }

    async fn check(&self, script: &str) -> Result<(), NftError> {
        self.nft.check(script).await
    }

    async fn list_chain(&self, family: &str, table: &str, chain: &str) -> Result<String, NftError> {
        self.nft.list_chain(family, table, chain).await
    }
}

async fn live(services: Vec<Value>, slices: Vec<Value>) -> Result<(), String> {
    let witness = Arc::new(Witness::default());
    let mut backend = NftablesBackend::with_nft(NftablesConfig::default(), witness.clone());
    let mut tracker = Tracker::new("node");
    let explain = |error: orch_net::BackendError| format!("{error}\n{}", witness.last.lock());
    backend
        .sync(tracker.state(), &Changes::All)
        .await
        .map_err(explain)?;
    let (first, rest) = services.split_at(services.len() / 2);
    for service in first {
        tracker.apply_service(&serde_json::from_value(service.clone()).map_err(|error| error.to_string())?);
    }
    tracker.take_changes();
    backend
        .sync(tracker.state(), &Changes::All)
        .await
        .map_err(explain)?;
    for service in rest {
        tracker.apply_service(&serde_json::from_value(service.clone()).map_err(|error| error.to_string())?);
        let (desired, changes) = tracker.sync_input();
        backend.sync(desired, &changes).await.map_err(explain)?;
    }
    for slice in slices {
        tracker.apply_slice(&serde_json::from_value(slice).map_err(|error| error.to_string())?);
        let (desired, changes) = tracker.sync_input();
        backend.sync(desired, &changes).await.map_err(explain)?;
    }
    backend.cleanup().await.map_err(explain)
}

#[test]
fn nft_accepts_whatever_the_objects_say() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let namespace = Namespace::new("nft").unwrap();
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(60)
    });
    let outcome = runner.run(&life(), |(services, slices)| {
        let lived = runtime.block_on(namespace.run(move || live(services, slices)));
        lived.map_err(TestCaseError::fail)
    });
    outcome.unwrap();
}

#[test]
fn the_tables_of_others_are_left_alone() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let namespace = Namespace::new("foreign").unwrap();
    let work = namespace.run(|| async {
        let nft = NftProgram::default();
        let foreign = "table ip foreign {\n chain input {\n type filter hook input priority 0;\n tcp dport 9 drop\n }\n}\n";
        nft.apply(foreign).await.unwrap();
        let before = nft.list_chain("ip", "foreign", "input").await.unwrap();
        let mut backend = NftablesBackend::new(NftablesConfig::default());
        backend.probe().await.unwrap();
        backend.sync(Tracker::new("node").state(), &Changes::All).await.unwrap();
        assert!(backend.intact().await.unwrap());
        backend.cleanup().await.unwrap();
        assert!(!backend.intact().await.unwrap());
        assert_eq!(nft.list_chain("ip", "foreign", "input").await.unwrap(), before);
    });
    runtime.block_on(work);
}
