use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::Changes;
use crate::objects::{EndpointSlice, Service};
use crate::tracker::Tracker;

const NODE: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];

fn config() -> NftablesConfig {
    NftablesConfig {
        families: vec![Family::V4, Family::V6],
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        bridge_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
        ..NftablesConfig::default()
    }
}

fn backend() -> (NftablesBackend, Arc<FakeNft>) {
    let fake = Arc::new(FakeNft::default());
    (NftablesBackend::with_nft(config(), fake.clone()), fake)
}

#[allow(clippy::needless_pass_by_value, reason = "`json!` makes values")]
fn service(name: &str, spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
}

fn slice(service: &str, endpoints: &[(&str, &str)]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, node)| json!({"addresses": [ip], "nodeName": node}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    }))
    .unwrap()
}

fn endpoints(fake: &FakeNft, from: &str, to: &str) -> (Vec<String>, bool) {
    match fake.route(from.parse().unwrap(), to.parse().unwrap(), 6, &NODE) {
        Verdict::Endpoints {
            endpoints,
            masquerade,
        } => (endpoints.iter().map(SocketAddr::to_string).collect(), masquerade),
        other => panic!("{from} to {to}: {other:?}"),
    }
}

fn verdict(fake: &FakeNft, from: &str, to: &str) -> Verdict {
    fake.route(from.parse().unwrap(), to.parse().unwrap(), 6, &NODE)
}

async fn sync(backend: &mut NftablesBackend, tracker: &mut Tracker) -> usize {
    let (desired, changes) = tracker.sync_input();
    backend.sync(desired, &changes).await.unwrap().writes
}

async fn started(tracker: &mut Tracker) -> (NftablesBackend, Arc<FakeNft>) {
    let (mut backend, fake) = backend();
    tracker.take_changes();
    backend.sync(tracker.state(), &Changes::All).await.unwrap();
    (backend, fake)
}

#[tokio::test]
async fn one_endpoint_changed_is_a_few_elements() {
    let mut tracker = Tracker::new("node");
    for index in 0..200 {
        let name = format!("svc-{index}");
        tracker.apply_service(&service(
            &name,
            json!({"clusterIP": format!("10.96.0.{index}"), "ports": [{"port": 80}]}),
        ));
        tracker.apply_slice(&slice(
            &name,
            &[("10.244.0.2", "a"), ("10.244.0.3", "a"), ("10.244.0.4", "a")],
        ));
    }
    let (mut backend, fake) = started(&mut tracker).await;
    assert_eq!(endpoints(&fake, "10.244.0.9", "10.96.0.7:80").0.len(), 3);

    tracker.apply_slice(&slice(
        "svc-7",
        &[("10.244.0.2", "a"), ("10.244.0.5", "a"), ("10.244.0.4", "a")],
    ));
    assert!(sync(&mut backend, &mut tracker).await <= 4, "replaced");
    assert_eq!(
        endpoints(&fake, "10.244.0.9", "10.96.0.7:80").0,
        ["10.244.0.2:8080", "10.244.0.4:8080", "10.244.0.5:8080"]
    );
    tracker.apply_slice(&slice("svc-7", &[("10.244.0.5", "a"), ("10.244.0.4", "a")]));
    assert!(sync(&mut backend, &mut tracker).await <= 6, "one less");
    assert_eq!(
        endpoints(&fake, "10.244.0.9", "10.96.0.7:80").0,
        ["10.244.0.4:8080", "10.244.0.5:8080"]
    );
}

#[tokio::test]
async fn sources_outside_the_cluster_are_masqueraded_and_pods_are_not() {
    let mut tracker = Tracker::new("node");
    tracker.apply_service(&service(
        "web",
        json!({"type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 30080}]}),
    ));
    tracker.apply_slice(&slice("web", &[("10.244.0.2", "node")]));
    let (_, fake) = started(&mut tracker).await;
    for (from, to, masquerade) in [
        ("10.244.0.9", "10.96.0.1:80", false),
        ("192.0.2.1", "10.96.0.1:80", true),
        ("198.51.100.1", "10.96.0.1:80", true),
        ("198.51.100.1", "192.0.2.1:30080", true),
    ] {
        assert_eq!(
            endpoints(&fake, from, to),
            (vec!["10.244.0.2:8080".to_owned()], masquerade),
            "{from} {to}"
        );
    }
    assert_eq!(
        verdict(&fake, "10.244.0.9", "10.96.0.1:81"),
        Verdict::Reject,
        "a port that the Service has not"
    );
    assert_eq!(
        verdict(&fake, "10.244.0.9", "192.0.2.1:30081"),
        Verdict::Pass,
        "a node port that nobody has"
    );
    assert_eq!(
        verdict(&fake, "10.244.0.9", "198.51.100.9:30080"),
        Verdict::Pass,
        "another host's port"
    );
}

#[tokio::test]
async fn external_policy_local_binds_outsiders_only() {
    let mut tracker = Tracker::new("node");
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local",
                      "ports": [{"port": 80, "nodePort": 30080}]});
    tracker.apply_service(&service("web", spec));
    tracker.apply_slice(&slice("web", &[("10.244.0.2", "node"), ("10.244.1.2", "other")]));
    let (mut backend, fake) = started(&mut tracker).await;
    assert_eq!(
        endpoints(&fake, "198.51.100.1", "192.0.2.1:30080"),
        (vec!["10.244.0.2:8080".to_owned()], false)
    );
    assert_eq!(endpoints(&fake, "10.244.0.9", "192.0.2.1:30080").0.len(), 2);
    assert_eq!(endpoints(&fake, "192.0.2.1", "192.0.2.1:30080").0.len(), 2);

    tracker.apply_slice(&slice("web", &[("10.244.1.2", "other")]));
    sync(&mut backend, &mut tracker).await;
    assert_eq!(
        verdict(&fake, "198.51.100.1", "192.0.2.1:30080"),
        Verdict::Drop,
        "none here"
    );
    assert_eq!(endpoints(&fake, "10.244.0.9", "192.0.2.1:30080").0.len(), 1);

    tracker.apply_slice(&slice("web", &[]));
    sync(&mut backend, &mut tracker).await;
    assert_eq!(
        verdict(&fake, "198.51.100.1", "192.0.2.1:30080"),
        Verdict::Reject,
        "none anywhere"
    );
    assert_eq!(verdict(&fake, "10.244.0.9", "10.96.0.1:80"), Verdict::Reject);
}

#[tokio::test]
async fn a_flushed_ruleset_is_noticed_and_written_anew() {
    let mut tracker = Tracker::new("node");
    tracker.apply_service(&service(
        "web",
        json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
    ));
    tracker.apply_slice(&slice("web", &[("10.244.0.2", "node")]));
    let (mut backend, fake) = started(&mut tracker).await;
    assert!(backend.intact().await.unwrap());
    fake.flush();
    assert!(!backend.intact().await.unwrap());
    tracker.apply_slice(&slice("web", &[("10.244.0.3", "node")]));
    let (desired, changes) = tracker.sync_input();
    let error = backend.sync(desired, &changes).await.unwrap_err();
    assert!(
        matches!(error, BackendError::Nft(ref error) if error.is_drift()),
        "{error}"
    );
    backend.sync(tracker.state(), &Changes::All).await.unwrap();
    assert_eq!(
        endpoints(&fake, "10.244.0.9", "10.96.0.1:80").0,
        ["10.244.0.3:8080"]
    );
    backend.cleanup().await.unwrap();
    assert_eq!(fake.elements(), 0);
}

/// One step in the life of a cluster of few names, so that steps collide.
#[derive(Clone, Debug)]
enum Step {
    Service {
        name: u8,
        ip: u8,
        ports: u8,
        affinity: bool,
        local: bool,
        external: bool,
    },
    Slice {
        service: u8,
        endpoints: Vec<(u8, bool)>,
    },
    DeleteService(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let service = (
        0..4u8,
        0..5u8,
        1..4u8,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(name, ip, ports, affinity, local, external)| Step::Service {
            name,
            ip,
            ports,
            affinity,
            local,
            external,
        });
    let slice = (0..4u8, prop::collection::vec((0..6u8, any::<bool>()), 0..6))
        .prop_map(|(service, endpoints)| Step::Slice { service, endpoints });
    prop_oneof![3 => service, 4 => slice, 1 => (0..4u8).prop_map(Step::DeleteService)]
}

fn take(tracker: &mut Tracker, step: &Step) {
    match step {
        Step::Service {
            name,
            ip,
            ports,
            affinity,
            local,
            external,
        } => {
            let ports: Vec<_> = (0..*ports)
                .map(|n| json!({"name": format!("p{n}"), "port": 80 + n, "nodePort": if *external { 30_000 + u16::from(n) } else { 0 }}))
                .collect();
            let policy = if *local { "Local" } else { "Cluster" };
            let externals: Vec<&str> = if *external { vec!["192.0.2.50"] } else { vec![] };
            let spec = json!({
                "clusterIP": format!("10.96.0.{ip}"), "ports": ports, "externalIPs": externals,
                "sessionAffinity": if *affinity { "ClientIP" } else { "None" },
                "internalTrafficPolicy": policy, "externalTrafficPolicy": policy,
            });
            tracker.apply_service(&self::service(&format!("s{name}"), spec));
        }
        Step::Slice { service, endpoints } => {
            let endpoints: Vec<_> = endpoints
                .iter()
                .map(|(ip, local)| {
                    json!({"addresses": [format!("10.244.0.{ip}")], "nodeName": if *local { "node" } else { "other" }})
                })
                .collect();
            let ports: Vec<_> = (0..3)
                .map(|n| json!({"name": format!("p{n}"), "port": 8080 + n, "protocol": "TCP"}))
                .collect();
            let slice = json!({
                "metadata": {"namespace": "ns", "name": format!("s{service}"),
                             "labels": {"kubernetes.io/service-name": format!("s{service}")}},
                "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
            });
            tracker.apply_slice(&serde_json::from_value(slice).unwrap());
        }
        Step::DeleteService(name) => {
            tracker.delete_service(&crate::model::NamespacedName::new("ns", &format!("s{name}")));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn differences_add_up_to_the_whole(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut tracker = Tracker::new("node");
            let (mut stepwise, stepwise_fake) = started(&mut tracker).await;
            for step in &steps {
                take(&mut tracker, step);
                sync(&mut stepwise, &mut tracker).await;
                let (mut whole, whole_fake) = backend();
                whole.sync(tracker.state(), &Changes::All).await.unwrap();
                assert_eq!(stepwise_fake.dump(), whole_fake.dump(), "after {step:?}");
            }
        });
    }
}
