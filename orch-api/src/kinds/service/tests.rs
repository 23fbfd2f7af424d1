use serde_json::json;

use super::*;

fn service(spec: Value) -> Service {
    let mut service: Service =
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
    Services::default(&mut service);
    Services::prepare_for_create(&mut service);
    service
}

fn errors(spec: Value) -> String {
    Services::validate(&service(spec)).to_string()
}

#[test]
fn a_cluster_service_gets_upstreams_defaults() {
    let spec =
        serde_json::to_value(service(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]})).spec).unwrap();
    assert_eq!(
        spec,
        json!({
            "type": "ClusterIP",
            "selector": {"a": "b"},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ipFamilyPolicy": "SingleStack",
        })
    );
}

#[test]
fn sticky_clients_stick_for_three_hours() {
    let spec = service(json!({"sessionAffinity": "ClientIP", "ports": [{"port": 80}]}))
        .spec
        .unwrap();
    assert_eq!(
        spec.session_affinity_config
            .unwrap()
            .client_ip
            .unwrap()
            .timeout_seconds,
        Some(10_800)
    );
}

#[test]
fn a_headless_service_without_selector_may_have_both_families() {
    let spec = service(json!({"clusterIP": "None"})).spec.unwrap();
    assert_eq!(list(&spec.cluster_ips), ["None"]);
    assert_eq!(list(&spec.ip_families), ["IPv4", "IPv6"]);
    assert_eq!(errors(json!({"clusterIP": "None"})), "[]");
}

#[test]
fn faults_are_told_with_their_fields() {
    for (spec, expected) in [
        (json!({}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}),
            "spec.ports[0].name: Required value",
        ),
        (
            json!({"ports": [{"port": 0, "targetPort": 1}]}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            json!({"type": "ExternalName"}),
            "spec.externalName: Required value",
        ),
        (
            json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local"}),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        (
            json!({"ports": [{"port": 80}], "externalIPs": ["127.0.0.1"]}),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            json!({"ports": [{"port": 80}], "clusterIP": "x"}),
            "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
    ] {
        assert_eq!(errors(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn a_duplicate_port_is_told_once() {
    let errors = errors(json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}));
    assert_eq!(
        errors,
        "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}"
    );
}

#[test]
fn what_was_allocated_stays_when_the_client_leaves_it_open() {
    let mut old = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    let spec = old.spec.as_mut().unwrap();
    spec.cluster_ip = Some("10.96.0.10".into());
    spec.cluster_ips = Some(vec!["10.96.0.10".into()]);
    spec.ports.as_mut().unwrap()[0].node_port = Some(30_080);

    let mut new = service(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81}]}));
    Services::prepare_for_update(&mut new, &old);
    let spec = new.spec.as_ref().unwrap();
    assert_eq!(text(&spec.cluster_ip), "10.96.0.10");
    assert_eq!(list(&spec.ports)[0].node_port, Some(30_080));
    assert_eq!(list(&spec.ports)[1].node_port, None);

    new = old.clone();
    new.spec.as_mut().unwrap().type_ = Some("ClusterIP".into());
    Services::prepare_for_update(&mut new, &old);
    assert_eq!(list(&new.spec.as_ref().unwrap().ports)[0].node_port, None);
    assert!(Services::validate_update(&new, &old).is_empty());
}

#[test]
fn the_cluster_address_never_changes() {
    let mut old = service(json!({"ports": [{"port": 80}]}));
    let with = |service: &mut Service, address: &str| {
        service.spec.as_mut().unwrap().cluster_ip = Some(address.to_owned());
    };
    with(&mut old, "10.96.0.10");
    old.spec.as_mut().unwrap().cluster_ips = Some(vec!["10.96.0.10".into()]);
    let mut new = old.clone();
    with(&mut new, "10.96.0.11");
    Services::prepare_for_update(&mut new, &old);
    assert_eq!(
        Services::validate_update(&new, &old).to_string(),
        "spec.clusterIPs[0]: Invalid value: [\"10.96.0.11\"]: may not change once set"
    );
}

#[test]
fn the_table_is_kubectls() {
    let mut one = service(
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}], "selector": {"a": "b"}}),
    );
    one.spec.as_mut().unwrap().cluster_ips = Some(vec!["10.96.0.10".into()]);
    let cells = Services::cells(&one, Timestamp::UNIX_EPOCH);
    assert_eq!(
        Value::from(cells),
        json!([
            "web",
            "NodePort",
            "10.96.0.10",
            "<none>",
            "80:30080/TCP",
            "<unknown>",
            "a=b"
        ])
    );
    let pending = service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    assert_eq!(Services::cells(&pending, Timestamp::UNIX_EPOCH)[3], "<pending>");
}
