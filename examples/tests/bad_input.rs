//! Bad input gets the same kind of `Status` as from Kubernetes, with the field's path, and changes nothing.

mod support;

use support::{Cluster, KUBECTL, KUBECTLS, all};

/// Manifests that must be refused, and words of the answer.
const REFUSED: &[(&str, &str, &[&str])] = &[
    (
        "a name that is no RFC 1123 subdomain",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: Not_Valid}}",
        &[
            "The ConfigMap \"Not_Valid\" is invalid",
            "metadata.name",
            "RFC 1123",
        ],
    ),
    (
        "a selector that does not match its template",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: bad}, spec: {selector: {matchLabels: {app: a}}, \
         template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c, image: i}]}}}}",
        &[
            "The Deployment \"bad\" is invalid",
            "spec.template.metadata.labels",
            "does not match template",
        ],
    ),
    (
        "no containers",
        "{apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {containers: []}}",
        &["The Pod \"bad\" is invalid", "spec.containers", "Required value"],
    ),
    (
        "a port out of range",
        "{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: [{port: 70000}]}}",
        &["The Service \"bad\" is invalid", "spec.ports[0].port", "70000"],
    ),
    (
        "an unknown restart policy",
        "{apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {restartPolicy: Sometimes, containers: [{name: c, image: i}]}}",
        &["spec.restartPolicy", "Unsupported value", "\"Sometimes\""],
    ),
];

#[test]
fn invalid_objects_are_refused_with_the_fields_path() {
    let cluster = Cluster::start(&[]);
    for kubectl in KUBECTLS {
        for (what, manifest, words) in REFUSED {
            let output = cluster.kubectl_with(kubectl, &["apply", "--validate=false", "-f", "-"], manifest);
            assert!(!output.status.success(), "{what} was accepted: {}", all(&output));
            for word in *words {
                assert!(
                    all(&output).contains(word),
                    "{what}: {word:?} is missing in: {}",
                    all(&output)
                );
            }
        }
        let left = cluster.kubectl(kubectl, &["get", "configmaps,deployments,pods", "-o", "name"]);
        assert!(!left.contains("bad") && !left.contains("Not_Valid"), "{left}");
    }
}

#[test]
fn broken_yaml_unknown_fields_and_wrong_types_are_told() {
    let cluster = Cluster::start(&[]);
    let broken = cluster.kubectl_with(
        KUBECTL,
        &["apply", "-f", "-"],
        "kind: [unclosed\n  apiVersion: v1",
    );
    assert!(
        !broken.status.success() && all(&broken).contains("error"),
        "{}",
        all(&broken)
    );

    let unknown = "{apiVersion: v1, kind: Pod, metadata: {name: odd}, spec: {containers: [{name: c, image: i, colour: red}]}}";
    let strict = cluster.kubectl_with(KUBECTL, &["apply", "--validate=strict", "-f", "-"], unknown);
    assert!(!strict.status.success());
    assert!(
        all(&strict).contains("unknown field \"spec.containers[0].colour\""),
        "{}",
        all(&strict)
    );
    let warned = cluster.kubectl_with(
        KUBECTL,
        &["create", "--validate=warn", "--dry-run=server", "-f", "-"],
        unknown,
    );
    assert!(
        warned.status.success() && all(&warned).contains("Warning: unknown field"),
        "{}",
        all(&warned)
    );

    let wrong = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: odd}, spec: {replicas: three}}";
    let wrong = cluster.kubectl_with(KUBECTL, &["create", "--validate=false", "-f", "-"], wrong);
    assert!(
        !wrong.status.success() && all(&wrong).contains("BadRequest"),
        "{}",
        all(&wrong)
    );
    assert!(all(&wrong).contains("spec.replicas"), "{}", all(&wrong));

    let left = cluster.kubectl(KUBECTL, &["get", "deployments,pods", "-o", "name"]);
    assert_eq!(left, "");
}

#[test]
fn flags_that_would_mean_nothing_are_refused() {
    let cluster = Cluster::start(&["--runtime", "fake"]);
    for flag in ["--etcd-servers=http://127.0.0.1:2379", "--etcd-cafile=ca.crt"] {
        let output = cluster.cluster_command(&[flag]).output();
        let output = output.expect("the cluster example starts");
        let told = all(&output);
        assert!(
            !output.status.success() && told.contains("--store etcd only"),
            "{told}"
        );
    }
}
