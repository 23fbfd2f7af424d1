//! What users type on their first day, tried with Debian's kubectl and a current one against the example binary.

mod support;

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::{Cluster, KUBECTL, KUBECTLS, Kubectl, all};

const WEB: &str = include_str!("../manifests/web.yaml");
const MINUTE: Duration = Duration::from_secs(60);

/// The ready replicas that a Deployment reports.
const READY: &str = "jsonpath={.status.readyReplicas}/{.status.updatedReplicas}/{.status.replicas}";

fn rolled_out(cluster: &Cluster, kubectl: Kubectl, namespace: &str) {
    cluster.kubectl(
        kubectl,
        &[
            "-n",
            namespace,
            "rollout",
            "status",
            "deployment/web",
            "--timeout=60s",
        ],
    );
}

fn cluster_ip(cluster: &Cluster, namespace: &str) -> String {
    cluster.kubectl(
        KUBECTL,
        &[
            "-n",
            namespace,
            "get",
            "service",
            "web",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ],
    )
}

#[test]
fn both_kubectls_see_the_cluster_as_upstreams() {
    let cluster = Cluster::start(&[]);
    for kubectl in KUBECTLS {
        let nodes = cluster.kubectl(kubectl, &["get", "nodes", "-o", "wide"]);
        let head = nodes.lines().next().unwrap_or_default();
        let columns: Vec<&str> = head.split_whitespace().collect();
        assert_eq!(
            columns,
            [
                "NAME",
                "STATUS",
                "ROLES",
                "AGE",
                "VERSION",
                "INTERNAL-IP",
                "EXTERNAL-IP",
                "OS-IMAGE",
                "KERNEL-VERSION",
                "CONTAINER-RUNTIME"
            ],
        );
        assert!(
            nodes.lines().nth(1).is_some_and(|row| row.contains(" Ready ")),
            "{nodes}"
        );
        let everything = cluster.kubectl(kubectl, &["get", "nodes,pods", "-A", "-o", "wide"]);
        assert!(everything.contains("node/"), "{everything}");
        let namespaces = cluster.kubectl(kubectl, &["get", "namespaces", "-o", "name"]);
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            assert!(namespaces.contains(&format!("namespace/{name}")), "{namespaces}");
        }
        let resources = cluster.kubectl(kubectl, &["api-resources", "-o", "wide"]);
        for kind in [
            "Deployment",
            "StatefulSet",
            "CronJob",
            "Ingress",
            "PodDisruptionBudget",
            "ClusterRole",
            "StorageClass",
        ] {
            assert!(resources.contains(kind), "{kind} is not listed:\n{resources}");
        }
        let version = cluster.kubectl(kubectl, &["version"]);
        assert!(version.contains("Server Version"), "{version}");
    }
}

#[test]
fn a_deployment_is_applied_scaled_updated_undone_and_deleted() {
    let cluster = Cluster::start(&[]);
    for (kubectl, namespace) in KUBECTLS.into_iter().zip(["old", "new"]) {
        let kubectl_in = |arguments: &[&str]| {
            let mut all = vec!["-n", namespace];
            all.extend(arguments);
            cluster.kubectl(kubectl, &all)
        };
        cluster.kubectl(kubectl, &["create", "namespace", namespace]);

        let applied = cluster.apply(kubectl, &["-n", namespace], WEB);
        assert!(
            applied.contains("deployment.apps/web created") && applied.contains("service/web created"),
            "{applied}"
        );
        let again = cluster.apply(kubectl, &["-n", namespace], WEB);
        assert!(again.contains("deployment.apps/web unchanged"), "{again}");
        rolled_out(&cluster, kubectl, namespace);

        let pods = kubectl_in(&["get", "pods", "-o", "wide"]);
        assert_eq!(
            pods.lines()
                .filter(|row| row.contains("1/1") && row.contains("Running"))
                .count(),
            3,
            "{pods}"
        );

        assert!(kubectl_in(&["scale", "deployment/web", "--replicas=5"]).contains("scaled"));
        rolled_out(&cluster, kubectl, namespace);
        assert_eq!(kubectl_in(&["get", "deployment", "web", "-o", READY]), "5/5/5");
        kubectl_in(&["scale", "deployment/web", "--replicas=2"]);
        cluster.wait_for(&["-n", namespace, "get", "pods", "-o", "name"], MINUTE, |pods| {
            pods.lines().count() == 2
        });

        let image_of = "jsonpath={.items[*].spec.containers[0].env[?(@.name==\"COLOUR\")].value}";
        kubectl_in(&["set", "env", "deployment/web", "COLOUR=green"]);
        rolled_out(&cluster, kubectl, namespace);
        cluster.wait_for(&["-n", namespace, "get", "pods", "-o", "name"], MINUTE, |pods| {
            pods.lines().count() == 2
        });
        assert_eq!(kubectl_in(&["get", "pods", "-o", image_of]).trim(), "green green");
        let history = kubectl_in(&["rollout", "history", "deployment/web"]);
        assert!(history.contains("REVISION") && history.contains('2'), "{history}");

        kubectl_in(&["rollout", "undo", "deployment/web"]);
        rolled_out(&cluster, kubectl, namespace);
        cluster.wait_for(&["-n", namespace, "get", "pods", "-o", "name"], MINUTE, |pods| {
            pods.lines().count() == 2
        });
        assert_eq!(kubectl_in(&["get", "pods", "-o", image_of]).trim(), "");

        let victim = kubectl_in(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
        kubectl_in(&["delete", "pod", &victim]);
        rolled_out(&cluster, kubectl, namespace);
        let pods = kubectl_in(&["get", "pods", "-o", "name"]);
        assert!(
            !pods.contains(&victim) && pods.lines().count() == 2,
            "{victim} was not replaced:\n{pods}"
        );

        kubectl_in(&["label", "deployment/web", "tier=front"]);
        assert!(kubectl_in(&["get", "deployments", "-l", "tier=front"]).contains("web"));
        assert!(kubectl_in(&["get", "all"]).contains("replicaset.apps/web-"));

        assert!(kubectl_in(&["delete", "deployment/web", "service/web"]).contains("deleted"));
        cluster.wait_for(
            &["-n", namespace, "get", "pods,replicasets", "-o", "name"],
            MINUTE,
            str::is_empty,
        );
    }
}

#[test]
fn components_own_fields_under_their_names() {
    let cluster = Cluster::start(&[]);
    cluster.kubectl(
        KUBECTL,
        &[
            "create",
            "deployment",
            "web",
            "--image=orch.local/host",
            "--",
            "/orch/bin/web",
            "--port",
            "8080",
        ],
    );
    cluster.kubectl(KUBECTL, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    let managers = |what: &str, path: &str| {
        let path = format!("jsonpath={{{path}.managedFields[*].manager}}");
        let found = cluster.kubectl(KUBECTL, &["get", what, "--show-managed-fields", "-o", &path]);
        found
            .split(' ')
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let expected = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let deployment = managers("deployment/web", ".metadata");
    assert_eq!(
        deployment,
        expected(&["kube-controller-manager", "kubectl-create"])
    );
    let pods = managers("pods", ".items[0].metadata");
    assert_eq!(pods, expected(&["kube-controller-manager", "kubelet"]));
}

#[test]
fn create_deployment_logs_and_describe_tell_what_happened() {
    let cluster = Cluster::start(&[]);
    for (kubectl, name) in KUBECTLS.into_iter().zip(["old", "new"]) {
        let script = "echo hello from $(hostname); echo to stderr >&2; exec sleep 1000";
        cluster.kubectl(
            kubectl,
            &[
                "create",
                "deployment",
                name,
                "--image=orch.local/host",
                "--",
                "/bin/sh",
                "-c",
                script,
            ],
        );
        cluster.kubectl(
            kubectl,
            &[
                "rollout",
                "status",
                &format!("deployment/{name}"),
                "--timeout=60s",
            ],
        );
        let selector = format!("app={name}");
        let pod = cluster.kubectl(
            KUBECTL,
            &[
                "get",
                "pods",
                "-l",
                &selector,
                "-o",
                "jsonpath={.items[0].metadata.name}",
            ],
        );
        let logs = cluster.wait_for(&["logs", &pod], MINUTE, |logs| logs.contains("stderr"));
        assert_eq!(cluster.kubectl(kubectl, &["logs", &pod]), logs);
        assert!(logs.contains(&format!("hello from {pod}")), "{logs}");
        assert!(
            !cluster
                .kubectl(kubectl, &["logs", "--tail=1", &pod])
                .contains("hello")
        );

        let described = cluster.kubectl(kubectl, &["describe", "pod", &pod]);
        for words in [
            "Successfully assigned",
            "Started",
            "orch.local/host",
            "Ready",
            "QoS Class",
        ] {
            assert!(described.contains(words), "{words} is missing:\n{described}");
        }
        let deployment = cluster.kubectl(kubectl, &["describe", "deployment", name]);
        assert!(
            deployment.contains("ScalingReplicaSet") && deployment.contains("MinimumReplicasAvailable"),
            "{deployment}"
        );
        let node = cluster.kubectl(kubectl, &["describe", "nodes"]);
        for words in [
            "KubeletReady",
            "Starting kubelet.",
            "NodeHasSufficientMemory",
            "NodeReady",
        ] {
            assert!(node.contains(words), "{words} is missing:\n{node}");
        }
        cluster.kubectl(kubectl, &["delete", "deployment", name]);
    }
}

#[test]
fn server_side_apply_owns_fields_and_conflicts() {
    let cluster = Cluster::start(&[]);
    for (kubectl, namespace) in KUBECTLS.into_iter().zip(["old", "new"]) {
        cluster.kubectl(kubectl, &["create", "namespace", namespace]);
        let first = cluster.apply(kubectl, &["--server-side", "-n", namespace], WEB);
        assert!(
            first.contains("deployment.apps/web serverside-applied"),
            "{first}"
        );
        rolled_out(&cluster, kubectl, namespace);

        let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 1}\n";
        let arguments = [
            "apply",
            "--server-side",
            "--field-manager=other",
            // A partial object is fine for the server, not for the old kubectl's own check.
            "--validate=false",
            "-n",
            namespace,
            "-f",
            "-",
        ];
        let refused = cluster.kubectl_with(kubectl, &arguments, other);
        assert!(
            !refused.status.success(),
            "a foreign field was taken without force"
        );
        let words = all(&refused);
        assert!(
            words.contains("conflict with \"kubectl\"") && words.contains(".spec.replicas"),
            "{words}"
        );

        let mut forced = arguments.to_vec();
        forced.push("--force-conflicts");
        let forced = cluster.kubectl_with(kubectl, &forced, other);
        assert!(forced.status.success(), "{}", all(&forced));
        cluster.wait_for(&["-n", namespace, "get", "pods", "-o", "name"], MINUTE, |pods| {
            pods.lines().count() == 1
        });
        cluster.kubectl(kubectl, &["delete", "namespace", namespace]);
    }
}

#[test]
fn a_rolling_update_fails_no_request() {
    let cluster = Cluster::start(&[]);
    cluster.apply(KUBECTL, &[], WEB);
    rolled_out(&cluster, KUBECTL, "default");
    let address = format!("{}:80", cluster_ip(&cluster, "default"));
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut failed = Vec::new();
            while !done.load(Ordering::Relaxed) {
                match cluster.http_get(&address) {
                    Ok(_) => _ = answered.fetch_add(1, Ordering::Relaxed),
                    Err(error) => failed.push(error),
                }
            }
            failed
        });
        for colour in ["COLOUR=red", "COLOUR=blue"] {
            cluster.kubectl(KUBECTL, &["set", "env", "deployment/web", colour]);
            rolled_out(&cluster, KUBECTL, "default");
        }
        std::thread::sleep(Duration::from_secs(1));
        done.store(true, Ordering::Relaxed);
        client.join().expect("the client thread")
    });
    assert!(
        failed.is_empty(),
        "{} of {} requests failed: {failed:?}",
        failed.len(),
        answered.into_inner()
    );
    assert!(answered.into_inner() > 20);
}

#[test]
fn a_cluster_ip_answers_from_the_host_and_from_inside_pods() {
    for proxy in ["nftables", "userspace"] {
        let cluster = Cluster::start(&["--proxy", proxy]);
        cluster.apply(KUBECTL, &[], WEB);
        rolled_out(&cluster, KUBECTL, "default");
        let ip = cluster_ip(&cluster, "default");
        let pods = cluster.kubectl(KUBECTL, &["get", "pods", "-l", "app=web", "-o", "name"]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            seen.insert(
                cluster
                    .http_get(&format!("{ip}:80"))
                    .expect("the ClusterIP answers on the host"),
            );
        }
        assert_eq!(
            seen.len(),
            3,
            "{proxy}: not every pod answered: {seen:?} of {pods}"
        );

        let script = format!("exec 3<>/dev/tcp/{ip}/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
        let client = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: client}}, spec: {{restartPolicy: Never, containers: \
             [{{name: client, image: orch.local/host, command: [bash, -c, {script:?}]}}]}}}}"
        );
        cluster.apply(KUBECTL, &[], &client);
        cluster.wait_for(
            &["get", "pod", "client", "-o", "jsonpath={.status.phase}"],
            MINUTE,
            |phase| {
                assert_ne!(
                    phase,
                    "Failed",
                    "{}",
                    cluster.kubectl(KUBECTL, &["logs", "client"])
                );
                phase == "Succeeded"
            },
        );
        let answer = cluster.kubectl(KUBECTL, &["logs", "client"]);
        assert!(
            seen.iter().any(|pod| answer.contains(pod.as_str())),
            "{proxy}: no pod answered inside: {answer}"
        );
    }
}

#[test]
fn a_watch_of_events_shows_them_as_they_happen() {
    let cluster = Cluster::start(&[]);
    for (kubectl, name) in KUBECTLS.into_iter().zip(["old", "new"]) {
        let mut watch = cluster
            .command(kubectl, &["get", "events", "-w"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        let (sender, events) = std::sync::mpsc::channel();
        let lines = support::lines(&mut watch);
        let reader = std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
        cluster.kubectl(
            kubectl,
            &[
                "create",
                "deployment",
                name,
                "--image=orch.local/host",
                "--",
                "/bin/sleep",
                "1000",
            ],
        );
        let mut wanted = vec!["ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "Started"];
        while !wanted.is_empty() {
            let line = events
                .recv_timeout(MINUTE)
                .unwrap_or_else(|_| panic!("no event of {wanted:?} came"));
            wanted.retain(|reason| !(line.contains(reason) && line.contains(name)));
        }
        watch.kill().expect("kubectl runs");
        watch.wait().expect("kubectl ends");
        reader.join().expect("the reader ends");
    }
}

#[test]
fn a_stale_edit_conflicts_and_changes_nothing() {
    let cluster = Cluster::start(&[]);
    for (kubectl, name) in KUBECTLS.into_iter().zip(["old", "new"]) {
        cluster.kubectl(kubectl, &["create", "configmap", name, "--from-literal=a=1"]);
        let stale = cluster.kubectl(kubectl, &["get", "configmap", name, "-o", "json"]);
        cluster.kubectl(
            kubectl,
            &["patch", "configmap", name, "-p", "{\"data\":{\"a\":\"2\"}}"],
        );
        let refused = cluster.kubectl_with(kubectl, &["replace", "-f", "-"], &stale);
        assert!(!refused.status.success());
        assert!(
            all(&refused).contains("the object has been modified"),
            "{}",
            all(&refused)
        );
        let value = cluster.kubectl(kubectl, &["get", "configmap", name, "-o", "jsonpath={.data.a}"]);
        assert_eq!(value, "2");
    }
}

#[test]
fn deleting_a_namespace_empties_it() {
    let cluster = Cluster::start(&[]);
    for (kubectl, namespace) in KUBECTLS.into_iter().zip(["old", "new"]) {
        cluster.kubectl(kubectl, &["create", "namespace", namespace]);
        cluster.apply(kubectl, &["-n", namespace], WEB);
        cluster.kubectl(
            kubectl,
            &[
                "-n",
                namespace,
                "create",
                "secret",
                "generic",
                "key",
                "--from-literal=k=v",
            ],
        );
        rolled_out(&cluster, kubectl, namespace);
        cluster.kubectl(kubectl, &["delete", "namespace", namespace, "--timeout=60s"]);
        let gone = cluster.kubectl_fails(kubectl, &["get", "namespace", namespace]);
        assert!(gone.contains("NotFound"), "{gone}");
        let left = cluster.kubectl(
            kubectl,
            &[
                "-n",
                namespace,
                "get",
                "all,secrets,configmaps,endpointslices",
                "-o",
                "name",
            ],
        );
        assert_eq!(left, "");
    }
}

#[test]
fn a_pod_that_fits_nowhere_waits_and_says_why() {
    let cluster = Cluster::start(&[]);
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: huge}, spec: {containers: [{name: huge, image: \
               orch.local/host, command: [sleep, '1000'], resources: {requests: {cpu: '5000'}}}]}}";
    cluster.apply(KUBECTL, &[], pod);
    let events = cluster.wait_for(&["get", "events"], MINUTE, |events| {
        events.contains("FailedScheduling")
    });
    assert!(
        events.contains("0/1 nodes are available: 1 Insufficient cpu"),
        "{events}"
    );
    assert!(cluster.kubectl(KUBECTL, &["get", "pods"]).contains("Pending"));
    cluster.kubectl(KUBECTL, &["delete", "pod", "huge"]);
}
