use serde_json::{Value, json};

use super::*;
use crate::model::{Frontend, FrontendAddress, Protocol, Route};

#[allow(clippy::needless_pass_by_value, reason = "`json!` makes values")]
fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
}

fn web() -> Service {
    service(
        "web",
        json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}),
    )
}

#[allow(clippy::needless_pass_by_value, reason = "`json!` makes values")]
fn slice(name: &str, service: &str, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    }))
    .unwrap()
}

fn ips(endpoints: &[crate::model::Endpoint]) -> Vec<String> {
    let mut ips: Vec<_> = endpoints
        .iter()
        .map(|endpoint| endpoint.address.to_string())
        .collect();
    ips.sort();
    ips
}

fn only(tracker: &mut Tracker) -> Arc<ServicePort> {
    tracker.take_changes();
    assert_eq!(tracker.state().len(), 1);
    tracker.state().iter().next().unwrap().clone()
}

#[test]
fn a_service_and_its_slice_meet_in_either_order() {
    for slice_first in [false, true] {
        let mut tracker = Tracker::new("node");
        let endpoints = slice("web-1", "web", json!([{"addresses": ["10.0.0.1"]}]));
        if slice_first {
            tracker.apply_slice(&endpoints);
        }
        tracker.apply_service(&web());
        tracker.apply_slice(&endpoints);
        assert_eq!(ips(&only(&mut tracker).cluster_endpoints), ["10.0.0.1:8080"]);
    }
}

#[test]
fn the_difference_is_exact() {
    let mut tracker = Tracker::new("node");
    tracker.apply_service(&web());
    tracker.apply_service(&service(
        "other",
        json!({"clusterIP": "10.96.0.2", "ports": [{"port": 80}]}),
    ));
    assert_eq!(tracker.take_changes().len(), 2);

    tracker.apply_service(&web());
    assert_eq!(
        tracker.take_changes(),
        vec![],
        "the same object again is no change"
    );

    tracker.apply_slice(&slice("web-1", "web", json!([{"addresses": ["10.0.0.1"]}])));
    let changes = tracker.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].before.as_ref().unwrap().cluster_endpoints.len(), 0);
    assert_eq!(changes[0].after.as_ref().unwrap().cluster_endpoints.len(), 1);

    tracker.apply_slice(&slice("web-1", "web", json!([{"addresses": ["10.0.0.2"]}])));
    tracker.apply_slice(&slice("web-1", "web", json!([{"addresses": ["10.0.0.1"]}])));
    assert_eq!(
        tracker.take_changes(),
        vec![],
        "there and back again is no change"
    );

    tracker.delete_service(&NamespacedName::new("ns", "web"));
    let changes = tracker.take_changes();
    assert!(changes.len() == 1 && changes[0].after.is_none());
}

#[test]
fn headless_external_name_and_foreign_services_are_ignored() {
    let mut tracker = Tracker::new("node");
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"clusterIP": "", "ports": [{"port": 80}]}),
        json!({"clusterIP": "10.96.0.3", "type": "ExternalName", "ports": [{"port": 80}]}),
    ] {
        tracker.apply_service(&service("x", spec));
    }
    let mut foreign = web();
    foreign.metadata.labels = Some(
        [(
            "service.kubernetes.io/service-proxy-name".to_owned(),
            String::new(),
        )]
        .into(),
    );
    tracker.apply_service(&foreign);
    assert_eq!(tracker.take_changes(), vec![]);

    tracker.apply_service(&web());
    tracker.take_changes();
    tracker.apply_service(&foreign);
    assert!(
        tracker.take_changes()[0].after.is_none(),
        "handed over to another proxy"
    );
}

#[test]
fn ready_endpoints_come_first_then_serving_terminating_ones() {
    let ready = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": true}});
    let draining = json!({"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    let dead = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false, "terminating": true}});
    let starting = json!({"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false, "terminating": false}});
    let cases = [
        (vec![&ready, &draining, &dead, &starting], vec!["10.0.0.1:8080"]),
        (vec![&draining, &dead, &starting], vec!["10.0.0.2:8080"]),
        (vec![&dead, &starting], vec![]),
    ];
    for (endpoints, expected) in cases {
        let mut tracker = Tracker::new("node");
        tracker.apply_service(&web());
        tracker.apply_slice(&slice("web-1", "web", json!(endpoints)));
        assert_eq!(ips(&only(&mut tracker).cluster_endpoints), expected);
    }
}

#[test]
fn policies_choose_between_endpoints_rejection_and_drop() {
    let here = json!({"addresses": ["10.0.0.1"], "nodeName": "node"});
    let there = json!({"addresses": ["10.0.0.2"], "nodeName": "other"});
    let cases: [(&str, Vec<&Value>, &str); 6] = [
        ("Cluster", vec![&here, &there], "2"),
        ("Cluster", vec![], "reject"),
        ("Local", vec![&here, &there], "1"),
        ("Local", vec![&there], "drop"),
        ("Local", vec![], "reject"),
        ("", vec![&there], "1"),
    ];
    for (policy, endpoints, expected) in cases {
        let mut tracker = Tracker::new("node");
        let spec = json!({
            "type": "NodePort", "clusterIP": "10.96.0.1", "externalTrafficPolicy": policy, "internalTrafficPolicy": policy,
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        });
        tracker.apply_service(&service("web", spec));
        tracker.apply_slice(&slice("web-1", "web", json!(endpoints)));
        let port = only(&mut tracker);
        for frontend in &port.frontends {
            let got = match port.route(frontend) {
                Route::Endpoints(endpoints) => endpoints.len().to_string(),
                Route::Reject => "reject".to_owned(),
                Route::Drop => "drop".to_owned(),
            };
            assert_eq!(got, expected, "{policy} {frontend:?}");
        }
    }
}

#[test]
fn every_kind_of_frontend_is_found_in_its_family() {
    let mut tracker = Tracker::new("node");
    let mut lb = service(
        "lb",
        json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "externalIPs": ["192.0.2.1", "2001:db8::1", "nonsense"], "ports": [{"port": 80, "nodePort": 30080}],
        }),
    );
    lb.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [
        {"ip": "192.0.2.9"}, {"ip": "192.0.2.10", "ipMode": "Proxy"}, {"hostname": "x"}, {"ip": "192.0.2.1"}]}}))
    .unwrap();
    tracker.apply_service(&lb);
    tracker.take_changes();
    let mut four: Vec<_> = tracker
        .state()
        .iter()
        .filter(|p| p.key.family == crate::model::Family::V4)
        .flat_map(|p| p.frontends.clone())
        .collect();
    four.sort();
    let at = |address, port| Frontend { address, port };
    let ip = |text: &str| text.parse().unwrap();
    assert_eq!(
        four,
        [
            at(FrontendAddress::ClusterIp(ip("10.96.0.1")), 80),
            at(FrontendAddress::ExternalIp(ip("192.0.2.1")), 80),
            at(FrontendAddress::LoadBalancerIp(ip("192.0.2.9")), 80),
            at(FrontendAddress::NodePort, 30080),
        ]
    );
    assert_eq!(tracker.state().len(), 2);
}

#[test]
fn named_ports_and_protocols_are_kept_apart() {
    let mut tracker = Tracker::new("node");
    tracker.apply_service(&service(
        "dns",
        json!({"clusterIP": "10.96.0.10", "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}),
    ));
    let mut endpoints = slice("dns-1", "dns", json!([{"addresses": ["10.0.0.1"]}]));
    endpoints.ports = serde_json::from_value(json!([
        {"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5354, "protocol": "TCP"}]))
    .unwrap();
    tracker.apply_slice(&endpoints);
    tracker.take_changes();
    for (protocol, expected) in [(Protocol::Udp, "10.0.0.1:5353"), (Protocol::Tcp, "10.0.0.1:5354")] {
        let port = tracker
            .state()
            .iter()
            .find(|port| port.key.protocol == protocol)
            .unwrap();
        assert_eq!(ips(&port.cluster_endpoints), [expected]);
    }
}

#[test]
fn the_older_service_keeps_a_contested_frontend_and_the_younger_gets_it_after() {
    let mut tracker = Tracker::new("node");
    let contested = |name: &str, ip: &str, second: u32| {
        let mut made = service(
            name,
            json!({"clusterIP": ip, "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]}),
        );
        let time = format!("2026-01-01T00:00:{second:02}Z");
        made.metadata.creation_timestamp = serde_json::from_value(json!(time)).unwrap();
        made
    };
    tracker.apply_service(&contested("young", "10.96.0.2", 2));
    tracker.take_changes();
    tracker.apply_service(&contested("old", "10.96.0.1", 1));
    assert_eq!(
        tracker.take_changes().len(),
        2,
        "the younger one loses the frontend in the same difference"
    );
    let frontends = |tracker: &Tracker, name: &str| {
        tracker
            .state()
            .iter()
            .find(|port| port.key.service.name() == name)
            .unwrap()
            .frontends
            .len()
    };
    assert_eq!((frontends(&tracker, "old"), frontends(&tracker, "young")), (2, 1));
    assert_eq!(tracker.take_warnings().len(), 1);

    tracker.delete_service(&NamespacedName::new("ns", "old"));
    tracker.take_changes();
    assert_eq!(frontends(&tracker, "young"), 2);
}

#[test]
fn what_is_not_built_is_refused_aloud() {
    let mut tracker = Tracker::new("node");
    let mut lb = service(
        "lb",
        json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1", "loadBalancerSourceRanges": ["192.0.2.0/24"],
               "healthCheckNodePort": 31000, "ports": [{"port": 80}, {"name": "bad", "port": 70000}]}),
    );
    lb.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}})).unwrap();
    tracker.apply_service(&lb);
    let port = only(&mut tracker);
    assert_eq!(port.frontends.len(), 1, "only the cluster IP is served");
    let reasons: Vec<_> = tracker
        .take_warnings()
        .into_iter()
        .map(|warning| warning.reason)
        .collect();
    assert_eq!(
        reasons,
        [
            "HealthCheckNodePortUnsupported",
            "InvalidServicePort",
            "LoadBalancerSourceRangesUnsupported"
        ]
    );
}

#[test]
fn a_slice_that_moves_to_another_service_leaves_the_first() {
    let mut tracker = Tracker::new("node");
    tracker.apply_service(&web());
    tracker.apply_slice(&slice("s", "web", json!([{"addresses": ["10.0.0.1"]}])));
    tracker.take_changes();
    tracker.apply_slice(&slice("s", "other", json!([{"addresses": ["10.0.0.1"]}])));
    assert!(only(&mut tracker).cluster_endpoints.is_empty());
}

#[test]
fn overlapping_slices_count_an_endpoint_once() {
    let mut tracker = Tracker::new("node");
    tracker.apply_service(&web());
    tracker.apply_slice(&slice(
        "a",
        "web",
        json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]),
    ));
    tracker.apply_slice(&slice("b", "web", json!([{"addresses": ["10.0.0.1"]}])));
    assert_eq!(ips(&only(&mut tracker).cluster_endpoints), ["10.0.0.1:8080"]);
    tracker.delete_slice(&NamespacedName::new("ns", "b"));
    assert!(only(&mut tracker).cluster_endpoints.is_empty());
}
